//! Errors of opening, reading and replacing files. Faults of a running store are the port's `StoreFault`.

use std::io;
use std::path::{Path, PathBuf};

use crate::io_cause::IoCause;
use crate::sealed::KeyId;

/// A small file (control, state, module) could not be read or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file exists but its content is not what was written.
    #[error("{path} is damaged ({why}); restore it from a copy, or wipe this node's data directory and let it \
        rebuild", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The check that failed.
        why: String,
    },
    /// Neither the file nor its copy has the content that was written.
    #[error("{path} and its copy {copy} are both damaged ({why}): \
        {advice}", path = path.display(), copy = copy.display())]
    BothDamaged {
        /// The file.
        path: PathBuf,
        /// Its copy.
        copy: PathBuf,
        /// The check that failed.
        why: String,
        /// What an operator can do.
        advice: &'static str,
    },
    /// A control file's name with characters that are not allowed, such as those that could leave the directory.
    #[error("{name:?} is not a valid name for a control file: use 1 to 64 of a-z, 0-9 and -")]
    BadName {
        /// The name.
        name: String,
    },
}

impl FileError {
    /// Whether the disk is full, or the process or machine out of file descriptors or memory. The file is sound, and
    /// the same call may succeed later.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        self.cause().is_transient()
    }

    /// What the error says about the disk.
    pub(crate) fn cause(&self) -> IoCause {
        match self {
            Self::Io { source, .. } => IoCause::of(source),
            Self::Damaged { .. } | Self::BothDamaged { .. } => IoCause::WrongContent,
            Self::BadName { .. } => IoCause::Other,
        }
    }

    /// An I/O error with the action that failed and its file.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// A data directory or a shard could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another handle of this process, has the directory open.
    #[error("{path} is in use by another process: stop that node first, or give this one its own data \
        directory", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer release has written the directory.
    #[error("{path} has data format {found}, this release knows up to {supported}: start a newer release of rejoin on \
        it", path = path.display())]
    Newer {
        /// The directory or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
    /// An older release has written the directory.
    #[error("{path} has data format {found}, this release knows none before {supported}: start the release of rejoin \
        that has written it; nothing was changed", path = path.display())]
    Older {
        /// The directory or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The oldest format that this release reads.
        supported: u32,
    },
    /// Another cluster's directory.
    #[error("{path} belongs to cluster {found}, not to {expected}: check the configured data directory and \
        certificate", path = path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The owner that the directory names.
        found: String,
        /// The owner that was asked for.
        expected: String,
    },
    /// Another node's directory.
    #[error("{path} belongs to node {found}, not to {expected}: two nodes must never share or exchange data \
        directories", path = path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// The owner that the directory names.
        found: String,
        /// The owner that was asked for.
        expected: String,
    },
    /// The number of shards is fixed when the directory is made.
    #[error("{path} was made with {found} shards and cannot be opened with {expected}: set shards = \
        {found}", path = path.display())]
    OtherShards {
        /// The directory.
        path: PathBuf,
        /// The number that the directory names.
        found: u16,
        /// The number that was asked for.
        expected: u16,
    },
    /// The node does not have a key that rows of the directory are sealed with.
    #[error("{path} has values that are encrypted with key {key}, and {found}: give the node that key again, under \
        [encryption] in its configuration; nothing was changed", path = path.display())]
    KeyMissing {
        /// The shard's directory.
        path: PathBuf,
        /// The key.
        key: KeyId,
        /// The keys that the node has, for people.
        found: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tree could not be opened, for a reason that is not damage.
    #[error("cannot open the tree at {path}: {why}", path = path.display())]
    Tree {
        /// The tree's directory.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

/// Turns an [`io::Error`] into a [`FileError`].
pub(crate) trait Context<T> {
    /// Adds the action that failed, as a verb, and its file.
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError::io(action, path, source))
    }
}
