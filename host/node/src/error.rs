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

/// Why a node did not stop cleanly. The next start recovers as after a crash.
#[derive(Debug, thiserror::Error)]
#[error("the node did not stop cleanly: {0}")]
pub struct StopError(pub(crate) String);
