//! The options of `plugin undo` and `explain`.

use std::time::Duration;

use clap::Args;

use crate::args::{KeyArgs, KeyBytes, base64_bytes};
use crate::values::duration;

#[derive(Args, Debug)]
pub(crate) struct UndoArgs {
    pub(crate) bucket: String,
    /// Only the folds of this key
    key: Option<String>,
    /// Its bytes in base64, instead of KEY
    #[arg(long, value_name = "BASE64", conflicts_with = "key", value_parser = base64_bytes)]
    key_base64: Option<KeyBytes>,
    /// The plugin: its name, name@version, or four digits or more of the beginning of its digest
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) plugin: String,
    /// Only the folds of the last so long, such as 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Show what would be undone, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl UndoArgs {
    /// The bytes of the key.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.key_base64.as_ref().map(KeyBytes::bytes).or(self.key.as_deref().map(str::as_bytes))
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}
