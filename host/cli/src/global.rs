//! The options of every command.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::output::Color;
use crate::values::duration;

/// The options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalArgs {
    /// The profile: a file with seeds, ca and token [default: the one in REJOIN_PROFILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Print data as JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Ask only this node, instead of the owners of the key
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) node: Option<String>,
    /// Act in this tenant instead of the token's own; takes a token of scope operator
    #[arg(long, global = true, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
    /// How long to wait for an answer, such as 500ms, 5s, 2m; the push of a plugin takes 30s at least
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// When to use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}
