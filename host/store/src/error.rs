//! What can go wrong while files are opened, read or replaced. Faults of a running store are the port's `StoreFault`.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::is_damage;

/// A small file (control, state, module) could not be read or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is there, but is not what was written.
    #[error("{path} is damaged ({why}); restore it from a copy, or wipe this node's data directory and let it rebuild", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How it was noticed.
        why: String,
    },
    /// Neither the file nor its copy is what was written.
    #[error("{path} and its copy {copy} are both damaged ({why}): {advice}", path = path.display(), copy = copy.display())]
    BothDamaged {
        /// Which file.
        path: PathBuf,
        /// Its copy.
        copy: PathBuf,
        /// How it was noticed.
        why: String,
        /// What can be done.
        advice: &'static str,
    },
    /// A control file's name that could leave its directory.
    #[error("{name:?} is no name for a control file: use 1 to 64 of a-z, 0-9 and -")]
    BadName {
        /// The name.
        name: String,
    },
}

impl FileError {
    /// Whether the disk is full, or the process or machine short of descriptors or memory: nothing is wrong with the
    /// file, and the same may succeed later.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        self.source_error().is_some_and(|error| crate::disk::no_room(error) || crate::disk::is_short(error))
    }

    /// What the operating system said, if it was asked.
    pub(crate) fn source_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the file is gone, is not what was written, or cannot be read by the disk.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_damage(source),
            Self::Damaged { .. } | Self::BothDamaged { .. } => true,
            Self::BadName { .. } => false,
        }
    }

    /// As an I/O error, for those who go by its kind.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io { source, .. } if source.raw_os_error().is_some() => source,
            Self::Io { ref source, .. } => io::Error::new(source.kind(), self.to_string()),
            other => io::Error::other(other.to_string()),
        }
    }

    /// Wraps an I/O error with what was tried.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// A data directory or a shard could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process (or another handle of this one) has it open.
    #[error("{path} is in use by another process: stop that node first, or give this one its own data directory", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("{path} has data format {found}, this release knows up to {supported}: start a newer release of rejoin on it", path = path.display())]
    Newer {
        /// The directory or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
    /// Another cluster's directory.
    #[error("{path} belongs to cluster {found}, not to {expected}: check the configured data directory and certificate", path = path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Another node's directory.
    #[error("{path} belongs to node {found}, not to {expected}: two nodes must never share or exchange data directories", path = path.display())]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The number of shards is fixed when the directory is made.
    #[error("{path} was made with {found} shards and cannot be opened with {expected}: set shards = {found}", path = path.display())]
    OtherShards {
        /// The directory.
        path: PathBuf,
        /// How many it has.
        found: u16,
        /// How many were asked for.
        expected: u16,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tree could not be opened, for a reason that is not damage.
    #[error("cannot open the tree at {path}: {why}", path = path.display())]
    Tree {
        /// The tree's directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Short for wrapping an I/O error as a [`FileError`].
pub(crate) trait Context<T> {
    /// Says what was tried on which file.
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError::io(action, path, source))
    }
}
