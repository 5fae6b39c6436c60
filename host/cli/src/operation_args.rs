//! The arguments of `apply` and `query`.

use clap::Args;

use crate::args::KeyArgs;

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The operation in the plugin's format, @FILE for the bytes of a file, or - for those of stdin
    #[arg(allow_hyphen_values = true, required_unless_present = "literal")]
    pub(crate) operation: Option<String>,
    /// The operation exactly as given, even if it begins with @ or is -; goes with --key-base64
    #[arg(
        long = "operation",
        id = "literal",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "operation"
    )]
    pub(crate) literal: Option<String>,
    /// Replicas that must acknowledge, instead of the bucket's w
    #[arg(long)]
    pub(crate) w: Option<u8>,
    /// How many of them must be owners, instead of the bucket's pw
    #[arg(long)]
    pub(crate) pw: Option<u8>,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    pub(crate) bucket: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The question in the plugin's format, @FILE or - as for `put` [default: an empty one]
    #[arg(allow_hyphen_values = true)]
    pub(crate) question: Option<String>,
    /// The question exactly as given, even if it begins with @ or is -; goes with --key-base64
    #[arg(
        long = "question",
        id = "literal",
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "question"
    )]
    pub(crate) literal: Option<String>,
    /// Replicas that must answer, instead of the bucket's r
    #[arg(long)]
    pub(crate) r: Option<u8>,
    /// How many of them must be owners, instead of the bucket's pr
    #[arg(long)]
    pub(crate) pr: Option<u8>,
}
