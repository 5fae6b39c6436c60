//! The options of `plugin undo` and `explain`.

use std::time::Duration;

use clap::Args;

use crate::args::KeyArgs;
use crate::values::duration;

#[derive(Args, Debug)]
pub(crate) struct UndoArgs {
    pub(crate) bucket: String,
    /// Only the folds of this key
    pub(crate) key: Option<String>,
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

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}
