//! The options of `plugin push`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// The component
    pub(crate) file: PathBuf,
    /// The name, if the component has none [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Do not let the node check the laws, which `plugin list` says from then on; takes a token of scope operator
    #[arg(long)]
    pub(crate) unchecked: bool,
    /// A file that is a valid value, or a directory of such files, to check among the sampler's values; may be repeated
    #[arg(long, value_name = "PATH", conflicts_with = "unchecked")]
    pub(crate) fixture: Vec<PathBuf>,
    /// A file that says what the operations mean: the node checks all short histories of them
    #[arg(long, value_name = "FILE", conflicts_with = "unchecked")]
    pub(crate) intent: Option<PathBuf>,
    /// Check the laws on siblings of this bucket too, of which the report may show some; takes a token that may read it
    #[arg(long, value_name = "BUCKET", conflicts_with = "unchecked")]
    pub(crate) siblings_of: Option<String>,
    /// The file for counterexamples [default: the file's name with .counterexample.json]
    #[arg(long, value_name = "FILE", conflicts_with = "unchecked")]
    pub(crate) counterexample: Option<PathBuf>,
    /// The file of its signature [default: the component's with .sig, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
}
