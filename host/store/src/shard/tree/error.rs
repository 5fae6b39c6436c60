//! Errors of the tree.

use std::io;

use lsm_tree::Error;

use crate::error::FileError;
use crate::io_cause::IoCause;

/// An operation on the tree has failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::shard) enum TreeError {
    /// lsm-tree, or a system call on one of its files.
    #[error(transparent)]
    Lsm(#[from] Error),
    /// A file that the store keeps for the tree.
    #[error(transparent)]
    File(#[from] FileError),
}

impl TreeError {
    /// What the error says about the disk. What lsm-tree finds wrong in its files is damage.
    pub(in crate::shard) fn cause(&self) -> IoCause {
        match self {
            Self::Lsm(error) => cause(error),
            Self::File(error) => error.cause(),
        }
    }

    /// Whether the operating system has refused a call, as opposed to content that is not what was written.
    pub(in crate::shard) fn is_io(&self) -> bool {
        matches!(self, Self::Lsm(Error::Io(_)) | Self::File(FileError::Io { .. }))
    }
}

/// See [`TreeError::cause`].
pub(super) fn cause(error: &Error) -> IoCause {
    match error {
        Error::Io(error) => IoCause::of(error),
        _ => IoCause::WrongContent,
    }
}

impl From<io::Error> for TreeError {
    fn from(error: io::Error) -> Self {
        Self::Lsm(Error::Io(error))
    }
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(in crate::shard) enum ReadFault {
    /// It was lost with a table. Rows with a sequence number above `upto` are not affected.
    Lost { upto: u64, what: String },
    /// A block is damaged that maintenance has not looked at yet.
    Unreadable(String),
    /// The system is out of descriptors or memory.
    OutOfResources(String),
}

impl From<Error> for ReadFault {
    fn from(error: Error) -> Self {
        match cause(&error) {
            IoCause::OutOfResources => Self::OutOfResources(error.to_string()),
            // Whatever the cause: the row may be there, so it is never reported as absent.
            _ => Self::Unreadable(error.to_string()),
        }
    }
}
