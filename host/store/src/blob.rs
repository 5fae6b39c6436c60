//! Small files that are replaced as a whole: one text line with version, length and checksum, then the content. Written beside,
//! synced, renamed, and the directory synced: a reader finds the old content or the new one, never a mixture.

use crate::disk::{Disk, if_found, read_all};
use crate::error::{Context, FileError};
use std::path::Path;

/// What a disk writes whole.
const SECTOR: usize = 512;
/// The version of the line in front.
const VERSION: u32 = 1;

/// Durably replaces the file at `path`.
pub(crate) fn write(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), FileError> {
    write_raw(disk, path, &sealed(content))
}

/// Durably writes over the file at `path`, which has this length, where there is no room for another beside it. Within a sector, of which disks write
/// all or nothing, a reader finds the old content or the new here too.
pub(crate) fn overwrite(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), FileError> {
    let (file, bytes) = (disk.open(path).context("open", path)?, sealed(content));
    if file.length().context("look at", path)? != bytes.len() as u64 || bytes.len() > SECTOR {
        return Err(FileError::io("write over", path, std::io::ErrorKind::StorageFull.into()));
    }
    file.write_at(&bytes, 0).context("write over", path)?;
    file.sync_data().context("sync", path)
}

/// Content with the line in front of it.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("rejoin-file {VERSION} {} {:08x}\n", content.len(), crc32c::crc32c(content)).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// Durably replaces the file at `path` by exactly these bytes, for content that carries its own check.
pub(crate) fn write_raw(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let beside = path.with_extension("new");
    let file = disk.create(&beside).context("create", &beside)?;
    let written = file.write_at(bytes, 0).context("write", &beside).and_then(|()| file.sync_data().context("sync", &beside));
    if let Err(error) = written {
        // Half a file is only in the way, above all on a full disk.
        let _ = disk.remove(&beside);
        return Err(error);
    }
    disk.rename(&beside, path).context("replace", path)?;
    sync_parent(disk, path)
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
    let line = std::str::from_utf8(&bytes[..split]).map_err(|_| damaged("its first line is no text"))?;
    let content = &bytes[split + 1..];
    let words: Vec<&str> = line.split(' ').collect();
    let ["rejoin-file", version, length, check] = words[..] else { return Err(damaged("its first line is not ours")) };
    if version != VERSION.to_string() {
        return Err(damaged("it has a version that this release does not know"));
    }
    if length != content.len().to_string() {
        return Err(damaged("it is shorter or longer than it was"));
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

/// Makes the name durable.
fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), FileError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    disk.sync_dir(parent).context("sync", parent)
}
