//! The file operations of journal, mark and control files, behind a trait: a test holds them back or fails them, a
//! simulator replaces them. The tree does its own file operations and is not behind it.

mod errors;
mod os;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use errors::{is_damage, is_other_content, is_short, no_room};
pub use os::OsDisk;
pub(crate) use os::PRIVATE;

/// A disk. Paths are those of the data directory; every method may block.
pub trait Disk: Send + Sync {
    /// Creates a file for reading and writing, or empties the one that is there.
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none, else what the operating system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of what is directly in a directory, sorted.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and those above it, for this user alone. One that is there already is no error.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing a file of the new name. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that this process may still write on the file system that holds `dir`.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file of a [`Disk`]; shared between the thread that writes and the one that syncs.
pub trait DiskFile: Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// Reserves room so that the file is at least `length` bytes long; new bytes read as zero.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is no room, else what the operating system says.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Writes all of `bytes` at an offset, as one call where the system allows it.
    ///
    /// # Errors
    /// What the operating system says; part of it may then have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `bytes.len()` bytes at an offset; fewer only at the end of the file. Returns how many.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes what was written durable, with what is needed to read it back (fdatasync).
    ///
    /// # Errors
    /// What the operating system says. After an error nothing is known about what is on the disk.
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// `None` instead of an error when the file is not there.
pub(crate) fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
