//! The command line of keys and signatures of plugins.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand, Debug)]
pub(crate) enum SignersCommand {
    /// Let a key sign plugins. From the first one on the tenant takes and activates only signed plugins
    Add {
        /// The file of the public key, as `plugin keygen` makes it, or its text
        key: String,
    },
    /// Take that from a key
    Remove {
        /// The file of the public key, or its text
        key: String,
    },
    /// List the keys
    List,
}

#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// The file of the private key; the public one gets the name with .pub
    #[arg(default_value = "plugin-key.pem")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// The component
    pub(crate) file: PathBuf,
    /// The private key, as `plugin keygen` makes it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The file of the signature [default: the component's with .sig]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
