//! The one routine that durably replaces a file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile};
use crate::error::{Context, FileError};

/// Durably replaces the file at `path`: `fill` writes the new content into a file named `beside`, which is synced and
/// renamed, and the directory is synced. After a crash a reader finds the old content or the new one, never a mixture.
/// `beside` must be in the same directory, and nobody else may use it meanwhile.
///
/// # Errors
/// [`FileError::Io`], which names the step. Unless the last step failed the old content is still there.
pub(crate) fn replace(
    disk: &dyn Disk,
    path: &Path,
    beside: &Path,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> Result<Arc<dyn DiskFile>, FileError> {
    let file = disk.create(beside).context("create", beside)?;
    let written = fill(file.as_ref()).context("write", beside).and_then(|()| file.sync_data().context("sync", beside));
    if let Err(error) = written.and_then(|()| disk.rename(beside, path).context("replace", path)) {
        // Half a file only takes room, which may be what is missing.
        let _ = disk.remove(beside);
        return Err(error);
    }
    sync_parent(disk, path)?;
    Ok(file)
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    disk.sync_dir(parent).context("sync", parent)
}
