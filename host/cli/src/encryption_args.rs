//! The command line of `rejoin encryption`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum EncryptionCommand {
    /// Add a new key to a file of keys, or make the file: the new key encrypts from a node's next start on, and what
    /// the others have encrypted can be read
    Add {
        /// The file that `key_file` names in a node's configuration, in the table `encryption`
        file: PathBuf,
    },
    /// List the ids of the keys in a file, never the keys
    List {
        /// The file of keys
        file: PathBuf,
    },
    /// Take a key out of a file, once `rejoin status` says that no node needs it; a node that does refuses to start
    Remove {
        /// The file of keys
        file: PathBuf,
        /// The id of the key, as `list` and a node's warnings show it
        key: String,
    },
}
