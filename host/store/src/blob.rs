//! Small files that are replaced as a whole. A file is one text line with version, length and checksum, and then the
//! content.
//!
//! Files that a node needs to start are kept in two copies, so that one bad sector costs nothing.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, if_found, read_all, replace, sync_parent};
use crate::error::{Context, FileError};

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;
/// The extension of a second copy.
pub(crate) const COPY: &str = "copy";
/// The version of the first line.
const VERSION: u32 = 1;

/// Durably replaces the file at `path`.
pub(crate) fn write(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), FileError> {
    write_beside(disk, path, &path.with_extension("new"), &sealed(content))
}

/// The path of a file's second copy.
fn copy_of(path: &Path) -> PathBuf {
    path.with_extension(COPY)
}

/// Durably replaces the file at `path` and its copy. The copy is replaced first, so after an error the file still has
/// its old content, unless only the sync of the directory failed.
pub(crate) fn write_twice(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(disk, &copy_of(path), content)?;
    write(disk, path, content)
}

/// The content of the file at `path`, or of its copy if the file is damaged or gone; `None` if neither is there.
///
/// # Errors
/// [`FileError::BothDamaged`] with this advice if neither is whole; another [`FileError`] if an error that is not
/// damage kept one of them from being read.
pub(crate) fn read_either(disk: &dyn Disk, path: &Path, advice: &'static str) -> Result<Option<Vec<u8>>, FileError> {
    let first = match read(disk, path) {
        Ok(None) => None,
        Err(error) if error.cause().is_damage() => Some(error),
        read => return read,
    };
    match (read(disk, &copy_of(path)), first) {
        (Ok(Some(content)), first) => {
            let why = first.map_or_else(|| "it is gone".to_owned(), |error| error.to_string());
            tracing::error!(path = %path.display(), why, "a file is damaged; its copy takes its place");
            Ok(Some(content))
        }
        (Ok(None), None) => Ok(None),
        (Err(error), _) if !error.cause().is_damage() => Err(error),
        (Ok(None), Some(error)) | (Err(error), _) => Err(FileError::BothDamaged {
            path: path.to_path_buf(),
            copy: copy_of(path),
            why: error.to_string(),
            advice,
        }),
    }
}

/// Rewrites the file at `path` and its copy if one of them is damaged or gone and the other is whole. A failure is
/// logged only: the next start tries again.
pub(crate) fn mend(disk: &dyn Disk, path: &Path) {
    let whole = |path: &Path| matches!(read(disk, path), Ok(Some(_)));
    if whole(path) && whole(&copy_of(path)) {
        return;
    }
    let mended = read_either(disk, path, "")
        .and_then(|content| content.map_or(Ok(()), |content| write_twice(disk, path, &content)));
    if let Err(error) = mended {
        tracing::warn!(path = %path.display(), %error, "a damaged file could not be rewritten from its copy");
    }
}

/// Durably overwrites the file at `path` in place, for a disk without room for a second file. The new content must have
/// the old one's length and fit into a sector: disks write a sector atomically, so a reader finds the old content or
/// the new one here too.
pub(crate) fn overwrite(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), FileError> {
    let (file, bytes) = (disk.open(path).context("open", path)?, sealed(content));
    if file.length().context("look at", path)? != bytes.len() as u64 || bytes.len() > SECTOR {
        return Err(FileError::io("write over", path, std::io::ErrorKind::StorageFull.into()));
    }
    file.write_at(&bytes, 0).context("write over", path)?;
    file.sync_data().context("sync", path)
}

/// The first line and the content.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("rejoin-file {VERSION} {} {:08x}\n", content.len(), crc32c::crc32c(content)).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// Durably replaces the file at `path` by way of `beside`. The bytes must carry a check of their own.
pub(crate) fn write_beside(disk: &dyn Disk, path: &Path, beside: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(disk, path, beside, |file| file.write_at(bytes, 0)).map(drop)
}

/// Durably removes the file at `path`; one that is not there is no error.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    if if_found(disk.remove(path)).context("remove", path)?.is_some() {
        sync_parent(disk, path)?;
    }
    Ok(())
}

/// The content of the file at `path`, `None` if there is no file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let Some(bytes) = read_raw(disk, path)? else { return Ok(None) };
    let damaged = |why: &str| FileError::Damaged { path: path.to_path_buf(), why: why.to_owned() };
    let split = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no first line"))?;
    let line = std::str::from_utf8(&bytes[..split]).map_err(|_| damaged("its first line is not text"))?;
    let content = &bytes[split + 1..];
    let words: Vec<&str> = line.split(' ').collect();
    let ["rejoin-file", version, length, check] = words[..] else {
        return Err(damaged("its first line is not that of a rejoin file"));
    };
    if version != VERSION.to_string() {
        return Err(damaged("it has a version that this release does not know"));
    }
    if length != content.len().to_string() {
        return Err(damaged("it has another length than its first line says"));
    }
    if check != format!("{:08x}", crc32c::crc32c(content)) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(Some(content.to_vec()))
}

/// All bytes of the file at `path`, `None` if there is no file.
pub(crate) fn read_raw(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match if_found(disk.open(path)).context("open", path)? {
        None => Ok(None),
        Some(file) => Ok(Some(read_all(file.as_ref()).context("read", path)?)),
    }
}
