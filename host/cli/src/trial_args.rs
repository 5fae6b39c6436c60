//! The options of `plugin activate|shadow|diff|fetch`.

use std::path::PathBuf;

use clap::Args;

/// The word for no plugin.
pub(crate) const NONE: &str = "none";
/// The share that is all keys, in percent.
pub(crate) const ALL_KEYS: u8 = 100;
/// What one `plugin diff` compares at most, unless it is told otherwise.
const DEFAULT_LIMIT: usize = 100;

#[derive(Args, Debug)]
pub(crate) struct ActivateArgs {
    pub(crate) bucket: String,
    /// Its name, name@version, four digits or more of the beginning of its digest, or none
    #[arg(required_unless_present = "partitions")]
    pub(crate) plugin: Option<String>,
    /// Let it merge this share of the keys only, in every partition alike: the same keys at every node, and with a
    /// greater share more of them. 0 ends that. Without a plugin it changes the share of the one that has a share
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) partitions: Option<u8>,
    /// Even if not every node is ready: siblings are kept where it is not
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ShadowArgs {
    pub(crate) bucket: String,
    /// Its name, name@version, four digits or more of the beginning of its digest, or none. Without it, show what has
    /// come of the shadow at each node
    pub(crate) plugin: Option<String>,
    /// Run it for the merges of this share of the keys only
    #[arg(long, value_name = "PERCENT", requires = "plugin", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) share: Option<u8>,
    /// Show the counts, without the keys and values of samples
    #[arg(long, conflicts_with = "plugin")]
    pub(crate) counts: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    pub(crate) bucket: String,
    /// One plugin: its name, name@version, or four digits or more of the beginning of its digest
    #[arg(value_name = "A")]
    pub(crate) one: String,
    /// The other one
    #[arg(value_name = "B")]
    pub(crate) other: String,
    /// The most conflicts that are compared
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_LIMIT)]
    pub(crate) limit: usize,
}

#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// Its name, name@version, or four digits or more of the beginning of its digest
    pub(crate) plugin: String,
    /// The file of the component, which is replaced (default: NAME@VERSION.wasm, which must not exist yet)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
