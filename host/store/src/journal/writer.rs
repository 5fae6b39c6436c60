//! Appends to the journal: records gather in a buffer and reach the file in one write per batch.

use super::record;
use super::segment::{Header, segment_path};
use crate::disk::{Disk, DiskFile, no_room};
use crate::pinned::Pinned;
use rejoin_core::port::Row;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The least room that a segment is begun with.
const LEAST_ROOM: u64 = 64 << 10;

/// A place in the journal: a record's index and the chain after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// The record's index, 0 before the first.
    pub(crate) index: u64,
    /// The chain after it.
    pub(crate) chain: u64,
}

/// The open segment and the batch that is being gathered.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// After how many bytes of records the next segment is due.
    segment_bytes: u64,
    segment: Segment,
    buffer: Vec<u8>,
    /// After the last record gathered.
    gathered: Position,
}

/// The file written to.
struct Segment {
    number: u64,
    file: Arc<dyn DiskFile>,
    /// Where the records begin.
    records: u64,
    /// Where the next batch goes.
    end: u64,
    /// Up to where the disk has promised room.
    reserved: u64,
}

impl Segment {
    /// Creates a segment with room for so many bytes of records.
    fn create(disk: &dyn Disk, path: &Path, number: u64, at: Position, pinned: &Pinned, room: u64) -> io::Result<Self> {
        let head = Header::encode(number, at.index + 1, at.chain, pinned);
        let records = head.len() as u64;
        let reserved = records + room;
        let file = disk.create(path)?;
        if let Err(error) = file.preallocate(reserved).and_then(|()| file.write_at(&head, 0)) {
            // A header without records is harmless at replay; the room that it took may be needed.
            let _ = disk.remove(path);
            return Err(error);
        }
        Ok(Self { number, file, records, end: records, reserved })
    }
}

/// How far a batch may reach past a segment's share: most fit in this.
fn headroom(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).clamp(LEAST_ROOM, 8 << 20)
}

impl Writer {
    /// Begins a segment after `at` with these pinned rows. Not durable before the file and the directory are synced.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        number: u64,
        at: Position,
        pinned: &Pinned,
    ) -> io::Result<Self> {
        let path = segment_path(&dir, number);
        let create = |room| Segment::create(disk.as_ref(), &path, number, at, pinned, room);
        // A node must start on a disk that is nearly full, or nobody could read what it has: a little room will do.
        let segment = match create(segment_bytes + headroom(segment_bytes)) {
            Err(error) if no_room(&error) => create(LEAST_ROOM)?,
            created => created?,
        };
        Ok(Self { disk, dir, segment_bytes, segment, buffer: Vec::new(), gathered: at })
    }

    /// Makes sure that a change fits: reserves more room if the batch would reach past what the disk has promised.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(crate) fn reserve(&mut self, rows: &[Row]) -> io::Result<()> {
        let payload = record::rows_len(rows.iter());
        if payload > record::MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a change of more than 1 GiB"));
        }
        let need = self.segment.end + (self.buffer.len() + record::HEAD + payload) as u64;
        if need > self.segment.reserved {
            let reserved = need + headroom(self.segment_bytes);
            self.segment.file.preallocate(reserved)?;
            self.segment.reserved = reserved;
        }
        Ok(())
    }

    /// Adds a change to the batch.
    pub(crate) fn gather(&mut self, rows: &[Row]) {
        let index = self.gathered.index + 1;
        let chain = record::encode(&mut self.buffer, index, self.gathered.chain, rows);
        self.gathered = Position { index, chain };
    }

    /// Whether nothing is gathered: the memtable then holds nothing that the journal file does not.
    pub(crate) fn at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Writes the batch in one call. Returns where the journal now ends and how many bytes were written.
    ///
    /// # Errors
    /// What the disk says; part of the batch may be in the file, and nothing may be written after it.
    pub(crate) fn write_batch(&mut self) -> io::Result<(Position, u64)> {
        let written = self.buffer.len() as u64;
        self.segment.file.write_at(&self.buffer, self.segment.end)?;
        self.segment.end += written;
        self.buffer.clear();
        // A rare large batch must not keep its memory.
        self.buffer.shrink_to(1 << 20);
        Ok((self.gathered, written))
    }

    /// Whether the segment has had its share.
    pub(crate) fn is_full(&self) -> bool {
        self.segment.end - self.segment.records >= self.segment_bytes
    }

    /// Whether the segment has any record.
    pub(crate) fn has_records(&self) -> bool {
        self.segment.end > self.segment.records
    }

    /// The segment's number.
    pub(crate) fn number(&self) -> u64 {
        self.segment.number
    }

    /// The segment's file.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.segment.file)
    }

    /// Goes on in a new segment that begins with these pinned rows. Only between batches.
    ///
    /// # Errors
    /// What the disk says; the journal then goes on in the old segment.
    ///
    /// # Panics
    /// If a batch is being gathered: the snapshot would hold what is not yet in the journal.
    pub(crate) fn switch(&mut self, pinned: &Pinned) -> io::Result<()> {
        assert!(self.at_boundary(), "a segment is switched between batches only");
        let number = self.segment.number + 1;
        let path = segment_path(&self.dir, number);
        let room = self.segment_bytes + headroom(self.segment_bytes);
        self.segment = Segment::create(self.disk.as_ref(), &path, number, self.gathered, pinned, room)?;
        Ok(())
    }
}
