//! The lock of a data directory or shard: held by one handle of one process, and released by the kernel when the
//! process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Context, FileError, OpenError};

/// Locks a directory by its file `LOCK`. Dropping the file releases the lock.
///
/// # Errors
/// [`OpenError::InUse`] if another handle has the lock.
pub(crate) fn lock_dir(path: &Path) -> Result<File, OpenError> {
    let name = path.join("LOCK");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name).context("open", &name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(FileError::io("lock", &name, source).into()),
    }
}
