//! Prepares the next segment while the open one is written. A shard may have some 100 000 pinned rows, and copying them
//! in one go would block it for tens of milliseconds. So each commit copies a few into a file beside the segments. Once
//! the file holds all pinned rows, it gets a header and a segment's name.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rejoin_core::port::Space;

use super::position::{JournalDir, Position};
use super::record::encode_row;
use super::segment::{Header, ROWS, SnapshotRows, segment_path};
use super::slot::{FRONT, SyncSlot};
use crate::disk::{Disk, DiskFile, if_found};
use crate::pinned::{Key, Pinned};

/// The path of the file. It is not a segment's name, so a start does not read what a crash leaves there, and removes
/// it.
fn path(dir: &Path) -> PathBuf {
    dir.join("next")
}

/// Removes a next segment that was never finished, if there is one.
///
/// # Errors
/// What the disk says.
pub(crate) fn discard_next(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if_found(disk.remove(&path(dir))).map(drop)
}

/// A segment in preparation.
pub(super) struct NextSegment {
    file: Arc<dyn DiskFile>,
    /// The offset up to which room is reserved.
    reserved: u64,
    copied: SnapshotRows,
    /// The last key that was copied; `None` before the first.
    upto: Option<Key>,
    /// Every row was copied at least once.
    all: bool,
    /// Rows that have changed since they were copied.
    changed: BTreeSet<Key>,
    /// Bytes written since [`NextSegment::due_for_sync`] last returned the file.
    unsynced: u64,
}

/// A finished segment without records.
pub(super) struct NewSegment {
    pub(super) file: Arc<dyn DiskFile>,
    /// The offset of the first record.
    pub(super) records: u64,
    /// The offset up to which room is reserved.
    pub(super) reserved: u64,
}

impl NextSegment {
    /// Creates the file and reserves `room` bytes.
    pub(super) fn create(dir: &JournalDir, room: u64) -> io::Result<Self> {
        let file = dir.disk.create(&path(&dir.path))?;
        file.preallocate(room)?;
        let (copied, changed) = (SnapshotRows::default(), BTreeSet::new());
        Ok(Self { file, reserved: room, copied, upto: None, all: false, changed, unsynced: 0 })
    }

    /// Notes that a pinned row was written or removed, so that it is copied again if it was copied before.
    pub(super) fn change(&mut self, key: &[u8]) {
        if self.all || self.upto.as_ref().is_some_and(|upto| key <= upto.as_slice()) {
            self.changed.insert(Key::from_slice(key));
        }
    }

    /// Copies the rows that have changed once more, and up to `further` others.
    pub(super) fn copy(&mut self, pinned: &Pinned, further: usize) -> io::Result<()> {
        let (mut bytes, mut rows) = (Vec::new(), self.changed.len());
        for key in std::mem::take(&mut self.changed) {
            encode_row(&mut bytes, Space::Pinned, &key, pinned.get(&key).map(AsRef::as_ref));
        }
        let from = self.upto.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (key, value) in pinned.range::<Key, _>((from, Bound::Unbounded)).take(if self.all { 0 } else { further }) {
            encode_row(&mut bytes, Space::Pinned, key, Some(value));
            (last, rows) = (Some(key), rows + 1);
        }
        self.upto = last.cloned().or(self.upto.take());
        self.all = self.all
            || pinned.last_key_value().is_none_or(|(last, _)| self.upto.as_ref().is_some_and(|upto| last <= upto));
        self.append(&bytes, rows)
    }

    /// Whether the file holds exactly the pinned rows.
    pub(super) fn is_whole(&self) -> bool {
        self.all && self.changed.is_empty()
    }

    /// The file, if at least so many bytes of it are unsynced. Syncing it in parts keeps the sync at the end short.
    pub(super) fn due_for_sync(&mut self, bytes: u64) -> Option<Arc<dyn DiskFile>> {
        let due = self.unsynced >= bytes;
        due.then(|| {
            self.unsynced = 0;
            Arc::clone(&self.file)
        })
    }

    /// Turns it into segment `number`, which begins after `at` and has room for `room` bytes of records.
    pub(super) fn finish(self, dir: &JournalDir, number: u64, at: Position, room: u64) -> io::Result<NewSegment> {
        let records = self.end();
        let reserved = self.reserved.max(records + room);
        self.file.preallocate(reserved)?;
        self.file.write_at(&SyncSlot::front(number), 0)?;
        self.file.write_at(&Header::encode(number, at, self.copied), FRONT as u64)?;
        let to = segment_path(&dir.path, number);
        if let Err(error) = dir.disk.rename(&path(&dir.path), &to) {
            // The rename may have been done all the same. The header would then end the segment before it at `at`,
            // while that segment goes on.
            let _ = dir.disk.remove(&to);
            return Err(error);
        }
        Ok(NewSegment { file: self.file, records, reserved })
    }

    fn end(&self) -> u64 {
        ROWS as u64 + self.copied.bytes
    }

    fn append(&mut self, bytes: &[u8], rows: usize) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (from, length) = (self.end(), bytes.len() as u64);
        if from + length > self.reserved {
            self.file.preallocate(from + length)?;
            self.reserved = from + length;
        }
        self.file.write_at(bytes, from)?;
        self.copied.check = crc32c::crc32c_append(self.copied.check, bytes);
        self.copied.bytes += length;
        self.copied.rows += rows;
        self.unsynced += length;
        Ok(())
    }
}
