//! Errors of starting and stopping a node.

use std::net::SocketAddr;
use std::path::PathBuf;

use rejoin_core::port::StoreFault;
use rejoin_merge::HostError;
use rejoin_store::{FileError, OpenError};

/// Why a node did not start. Nothing keeps running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file that the configuration names cannot be read.
    #[error("{key} = {}: {source}", path.display())]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Values of the configuration contradict each other, or the files that they name.
    #[error("{0}")]
    Unfit(String),
    /// The data directory cannot be opened.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// A small file in the data directory cannot be read or written.
    #[error(transparent)]
    Control(#[from] FileError),
    /// The host name of `listen` or `admin` has no IP address.
    #[error("{key} = {source}")]
    Unresolved {
        /// The key of the configuration.
        key: &'static str,
        /// The error of the resolver. It names the address.
        source: rejoin_wire::Error,
    },
    /// A shard's store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The certificates are not valid, or the UDP address cannot be bound.
    #[error(transparent)]
    Wire(#[from] rejoin_wire::Error),
    /// The engine that runs plugins cannot be created.
    #[error(transparent)]
    Merge(#[from] HostError),
    /// The admin address cannot be bound.
    #[error("admin = {address}: {source}; is another process using it?")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The system did not start a thread.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// Whether the same start may succeed later without a change: the disk is full, the system is out of descriptors,
    /// memory or threads, or a host name does not resolve now.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        let is_short = |error: &std::io::Error| FileError::io_is_for_want_of_room(error);
        match self {
            Self::Data(OpenError::File(error)) | Self::Control(error) => error.is_for_want_of_room(),
            Self::Store(fault) => matches!(fault, StoreFault::Busy | StoreFault::Full),
            Self::File { source, .. } | Self::Admin { source, .. } | Self::Thread(source) => is_short(source),
            Self::Unresolved { .. } => true,
            _ => false,
        }
    }
}

/// Why a node did not stop cleanly. The next start recovers as after a crash.
#[derive(Debug, thiserror::Error)]
#[error("the node did not stop cleanly: {0}")]
pub struct StopError(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_lacks_descriptors_or_space_is_temporary_and_one_with_bad_files_is_not() {
        let file = |code| StartError::File { key: "ca", path: "ca.pem".into(), source: std::io::Error::from_raw_os_error(code) };
        let data = |code| {
            let source = std::io::Error::from_raw_os_error(code);
            StartError::Data(OpenError::File(FileError::Io { action: "open", path: "data".into(), source }))
        };
        // EMFILE, ENFILE, ENOMEM, ENOSPC, and a store that is out of them.
        for code in [24, 23, 12, 28] {
            assert!(file(code).is_temporary() && data(code).is_temporary(), "{code}");
        }
        assert!(StartError::Store(StoreFault::Busy).is_temporary() && StartError::Store(StoreFault::Full).is_temporary());
        // ENOENT, EACCES, EIO.
        for code in [2, 13, 5] {
            assert!(!file(code).is_temporary() && !data(code).is_temporary(), "{code}");
        }
        assert!(!StartError::Unfit(String::new()).is_temporary());
        assert!(!StartError::Store(StoreFault::Failed("disk".into())).is_temporary());
    }
}
