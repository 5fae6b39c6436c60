//! The segment after the open one, while it is made. There may be some 100 000 pinned rows, and to copy them in one go
//! would hold the shard up for tens of milliseconds: so at each commit a few are copied into a file beside the
//! segments. It becomes one by its header and its name, once it holds all of them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rejoin_core::port::Space;

use super::record::encode_row;
use super::segment::{Copied, Header, ROWS, segment_path};
use super::writer::Position;
use crate::disk::{Disk, DiskFile, if_found};
use crate::pinned::{Key, Pinned};

/// Where it is made. No segment has such a name, so whatever a crash leaves there is not read, and the next start
/// removes it.
fn path(dir: &Path) -> PathBuf {
    dir.join("next")
}

/// Removes what is there, if anything is.
///
/// # Errors
/// What the disk says.
pub(crate) fn discard_next(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if_found(disk.remove(&path(dir))).map(drop)
}

/// A segment that is made.
pub(super) struct Next {
    file: Arc<dyn DiskFile>,
    /// Up to where the disk has promised room.
    reserved: u64,
    copied: Copied,
    /// Rows up to this key are copied; none, if none is.
    upto: Option<Key>,
    /// All rows are copied.
    all: bool,
    /// Rows that were copied and have changed since.
    changed: BTreeSet<Key>,
    /// Bytes that nobody was asked to sync.
    unsynced: u64,
}

/// A segment that was made.
pub(super) struct Made {
    pub(super) file: Arc<dyn DiskFile>,
    /// Where its records begin.
    pub(super) records: u64,
    /// Up to where the disk has promised room.
    pub(super) reserved: u64,
}

impl Next {
    /// Begins one, with so much room.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, room: u64) -> io::Result<Self> {
        let file = disk.create(&path(dir))?;
        file.preallocate(room)?;
        let (copied, changed) = (Copied::default(), BTreeSet::new());
        Ok(Self { file, reserved: room, copied, upto: None, all: false, changed, unsynced: 0 })
    }

    /// A pinned row is written or removed.
    pub(super) fn change(&mut self, key: &[u8]) {
        if self.all || self.upto.as_ref().is_some_and(|upto| key <= upto.as_slice()) {
            self.changed.insert(Key::from_slice(key));
        }
    }

    /// Copies again what has changed, and up to so many further rows.
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
        self.all = self.all || pinned.last_key_value().is_none_or(|(last, _)| self.upto.as_ref().is_some_and(|upto| last <= upto));
        self.append(&bytes, rows)
    }

    /// Whether it holds exactly the pinned rows.
    pub(super) fn is_whole(&self) -> bool {
        self.all && self.changed.is_empty()
    }

    /// The file, if so many bytes of it are unsynced: a sync of all of it at the end would take long.
    pub(super) fn due_for_sync(&mut self, bytes: u64) -> Option<Arc<dyn DiskFile>> {
        let due = self.unsynced >= bytes;
        due.then(|| {
            self.unsynced = 0;
            Arc::clone(&self.file)
        })
    }

    /// Makes it the segment that begins after `at`, with room for so many bytes of records.
    pub(super) fn finish(self, disk: &dyn Disk, dir: &Path, number: u64, at: Position, room: u64) -> io::Result<Made> {
        let records = self.end();
        let reserved = self.reserved.max(records + room);
        self.file.preallocate(reserved)?;
        self.file.write_at(&Header::encode(number, at.index + 1, at.chain, self.copied), 0)?;
        let to = segment_path(dir, number);
        if let Err(error) = disk.rename(&path(dir), &to) {
            // A header would say that the segment before it ends here, and that one may go on.
            let _ = disk.remove(&to);
            return Err(error);
        }
        Ok(Made { file: self.file, records, reserved })
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
