//! Writes again what may be in the page cache only.

use std::path::Path;

use super::segment::segment_path;
use crate::disk::Disk;
use crate::error::{Context, FileError};

/// How much is written at a time.
const CHUNK: usize = 1 << 20;

/// A part of a segment's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    /// The segment's number.
    pub(crate) segment: u64,
    /// The first byte.
    pub(crate) from: u64,
    /// One past the last byte.
    pub(crate) to: u64,
}

/// Writes these bytes over themselves and syncs them. After a failed sync the system takes them for written, and a
/// further sync alone succeeds without writing anything (“Can Applications Recover from fsync Failures?”, USENIX ATC
/// 2020).
///
/// # Errors
/// What the disk says.
pub(crate) fn rewrite(disk: &dyn Disk, dir: &Path, stretches: &[Stretch]) -> Result<(), FileError> {
    for Stretch { segment, from, to } in stretches {
        let path = segment_path(dir, *segment);
        let file = disk.open(&path).context("open", &path)?;
        let mut buffer = vec![0; CHUNK];
        let mut at = *from;
        while at < *to {
            let length = usize::try_from(to - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut buffer[..length];
            file.read_at(chunk, at).context("read", &path)?;
            file.write_at(chunk, at).context("write", &path)?;
            at += length as u64;
        }
        file.sync_data().context("sync", &path)?;
    }
    if stretches.is_empty() { Ok(()) } else { disk.sync_dir(dir).context("sync", dir) }
}
