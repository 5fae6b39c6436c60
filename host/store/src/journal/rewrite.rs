//! Rewrites records that may be in the page cache only.

use std::path::Path;

use super::segment::segment_path;
use crate::disk::Disk;
use crate::error::{Context, FileError};

/// Bytes that are rewritten at a time.
const CHUNK: usize = 1 << 20;

/// A part of a segment's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentRange {
    /// The segment's number.
    pub(crate) segment: u64,
    /// Inclusive.
    pub(crate) from: u64,
    /// Exclusive.
    pub(crate) to: u64,
}

/// Overwrites these bytes with themselves and syncs them. After a failed sync the kernel considers the pages clean, so
/// a further sync alone succeeds without writing anything (“Can Applications Recover from fsync Failures?”, USENIX
/// ATC 2020).
///
/// # Errors
/// What the disk says.
pub(crate) fn rewrite(disk: &dyn Disk, dir: &Path, ranges: &[SegmentRange]) -> Result<(), FileError> {
    for SegmentRange { segment, from, to } in ranges {
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
    if ranges.is_empty() { Ok(()) } else { disk.sync_dir(dir).context("sync", dir) }
}
