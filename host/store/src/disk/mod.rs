//! The file operations of journal, mark and control files. They are behind a trait so that a test can delay or fail
//! them and a simulator can replace them. lsm-tree makes its own system calls, so the tree's files are not behind it.
//!
//! [`replace`] is the one routine that durably replaces a file, and [`read_readable`] the one that reads around bad
//! blocks.

mod os;
mod replace;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use os::OsDisk;
pub(crate) use os::PRIVATE;
pub(crate) use replace::{replace, sync_parent};

use crate::io_cause::IoCause;

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

    /// The names of a directory's entries, sorted.
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

    /// Makes the directory's entries durable (fsync of the directory).
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Free bytes of the file system that holds `dir`, as statvfs tells an unprivileged process. A quota may allow
    /// less.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file of a [`Disk`]. The thread that writes and the thread that syncs share it.
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

    /// Truncates or extends the file.
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

/// The size in which a file is read once it has shown unreadable blocks.
const BLOCK: usize = 4096;

/// Reads a whole file, with zeros where the disk cannot read a block. Returns the bytes and how many blocks those are.
///
/// # Errors
/// Every error that is not [damage](IoCause::is_damage).
pub(crate) fn read_readable(file: &dyn DiskFile) -> io::Result<(Vec<u8>, usize)> {
    let length = match file.length() {
        Err(error) if IoCause::of(&error).is_damage() => return Ok((Vec::new(), 1)),
        length => usize::try_from(length?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?,
    };
    match read_all(file) {
        Err(error) if IoCause::of(&error).is_damage() => {}
        read => return read.map(|bytes| (bytes, 0)),
    }
    let (mut bytes, mut unreadable) = (vec![0; length], 0);
    for (place, block) in bytes.chunks_mut(BLOCK).enumerate() {
        match file.read_at(block, (place * BLOCK) as u64) {
            Err(error) if IoCause::of(&error).is_damage() => {
                block.fill(0);
                unreadable += 1;
            }
            read => drop(read?),
        }
    }
    Ok((bytes, unreadable))
}
