//! The options of `conflict`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::args::KeyArgs;

#[derive(Subcommand, Debug)]
pub(crate) enum ConflictCommand {
    /// List the keys of a bucket whose merge fails. All of their siblings are kept
    List { bucket: String },
    /// Show the siblings of a key, with their numbers, and why they are not merged
    Show {
        bucket: String,
        #[command(flatten)]
        key: KeyArgs,
    },
    /// List merges of a bucket that were found to break a law of merging when they were checked again
    Violations {
        bucket: String,
        /// Also write their siblings, for `plugin run --replay` and `plugin test --replay`
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the merges of a key to a file with which `plugin replay` runs them again: folds, failures, its siblings
    Export {
        bucket: String,
        #[command(flatten)]
        key: KeyArgs,
        /// The file, which is replaced (default: BUCKET.KEY.merges, which must not exist yet)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write one value in the place of all siblings of a key
    Resolve {
        bucket: String,
        #[command(flatten)]
        key: KeyArgs,
        /// The sibling that is kept, by its number of `conflict show`
        #[arg(long, value_name = "NUMBER", required_unless_present = "merged", conflicts_with = "merged")]
        keep: Option<usize>,
        /// The value instead of all of them, @FILE for the bytes of a file, or - for those of stdin
        #[arg(long = "value", id = "merged", value_name = "VALUE", allow_hyphen_values = true)]
        value: Option<String>,
        /// Only if the siblings are still those of this context, which `conflict show` prints
        #[arg(long, value_name = "CONTEXT")]
        context: Option<String>,
    },
}
