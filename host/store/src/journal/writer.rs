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

/// The most that is zeroed at a time. A sync of blocks that were never written has the file system note that they now are, which takes about as long again
/// as the sync itself; so zeros are written there first, and one sync in many pays. Larger chunks hold the shard up: a page of them takes some 3 to 10 µs.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// The least: small segments have small chunks.
const LEAST_ZEROS: u64 = 2 << 10;

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
    /// Up to where the file was written, with records or zeros.
    touched: u64,
    /// How much is zeroed at a time.
    chunk: u64,
}

impl Segment {
    /// Creates a segment with room for so many bytes of records.
    fn create(disk: &dyn Disk, path: &Path, number: u64, at: Position, pinned: &Pinned, (room, chunk): (u64, u64)) -> io::Result<Self> {
        let head = Header::encode(number, at.index + 1, at.chain, pinned);
        let records = head.len() as u64;
        let reserved = records + room;
        let file = disk.create(path)?;
        if let Err(error) = file.preallocate(reserved).and_then(|()| file.write_at(&head, 0)) {
            // A header without records is harmless at replay; the room that it took may be needed.
            let _ = disk.remove(path);
            return Err(error);
        }
        Ok(Self { number, file, records, end: records, reserved, touched: records, chunk })
    }

    /// Writes zeros ahead of the records, so that a batch of up to half a chunk finds its place written before. A larger one pays for itself: zeros would
    /// only be more to write.
    fn zero_ahead(&mut self, batch: u64) -> io::Result<()> {
        self.touched = self.touched.max(self.end);
        let to = self.reserved.min(self.touched + self.chunk);
        if batch > self.chunk / 2 || self.touched >= self.end + self.chunk / 2 || self.touched >= to {
            return Ok(());
        }
        let zeros = usize::try_from(to - self.touched).map_or(&ZEROS[..], |length| &ZEROS[..length.min(ZEROS.len())]);
        match self.file.write_at(zeros, self.touched) {
            Ok(()) => self.touched += zeros.len() as u64,
            // Where room cannot be promised, a full disk shows here first. The records may still fit.
            Err(error) if no_room(&error) => self.chunk = 0,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// How much is zeroed at a time.
fn chunk(segment_bytes: u64) -> u64 {
    (segment_bytes / 1024).clamp(LEAST_ZEROS, ZEROS.len() as u64)
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
        let create = |room| Segment::create(disk.as_ref(), &path, number, at, pinned, (room, chunk(segment_bytes)));
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

    /// Writes the batch in one call, and now and then zeros ahead of it. Returns where the journal now ends and how many bytes were written.
    ///
    /// # Errors
    /// What the disk says; part of the batch may be in the file, and nothing may be written after it.
    pub(crate) fn write_batch(&mut self) -> io::Result<(Position, u64)> {
        let written = self.buffer.len() as u64;
        self.segment.file.write_at(&self.buffer, self.segment.end)?;
        self.segment.end += written;
        self.segment.zero_ahead(written)?;
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
        self.segment = Segment::create(self.disk.as_ref(), &path, number, self.gathered, pinned, (room, chunk(self.segment_bytes)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::FIRST_CHAIN;
    use super::super::watched::Watched;
    use super::*;
    use rejoin_core::port::{Change, Space};

    fn begin(disk: &Watched, dir: &Path, segment_bytes: u64) -> Writer {
        let at = Position { index: 0, chain: FIRST_CHAIN };
        Writer::begin(Arc::new(disk.clone()), dir.to_path_buf(), segment_bytes, 1, at, &Pinned::new()).expect("a segment")
    }

    /// A batch of one record whose value has that many bytes. Returns where it begins and how long it is.
    fn batch(writer: &mut Writer, value: usize) -> (u64, u64) {
        let mut change = Change::default();
        change.put(Space::Objects, "key", vec![b'v'; value]);
        let from = writer.segment.end;
        writer.reserve(&change.rows).expect("room");
        writer.gather(&change.rows);
        (from, writer.write_batch().expect("written").1)
    }

    #[test]
    fn small_batches_find_their_place_written_and_no_zeros_touch_a_record() {
        let (disk, dir) = (Watched::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        let (chunk, mut touched, mut zeroed, mut unwritten) = (writer.segment.chunk, disk.writes()[0].1.len() as u64, 0, 0);
        for number in 0..3000_u64 {
            let (from, length) = batch(&mut writer, 100 + (number * 7919 % 30_000) as usize);
            assert!(length <= chunk / 2);
            for (offset, bytes) in disk.writes() {
                let to = offset + bytes.len() as u64;
                if bytes.iter().all(|byte| *byte == 0) {
                    assert!(offset >= writer.segment.end && bytes.len() as u64 <= chunk && to <= writer.segment.reserved);
                    zeroed += 1;
                } else {
                    assert_eq!((offset, to), (from, from + length));
                    unwritten += u64::from(touched < to);
                }
                touched = touched.max(to);
            }
        }
        assert_eq!(unwritten, 1, "only the first batch of a segment comes to a place that was never written");
        assert!((1..1500).contains(&zeroed), "{zeroed} times zeros were written");
        let bytes = std::fs::read(segment_path(dir.path(), 1)).expect("readable");
        let (mut at, mut records) = (writer.segment.records as usize, 0);
        while let Some(found) = record::at(&bytes, at) {
            assert!(found.intact());
            (at, records) = (at + found.bytes.len(), records + 1);
        }
        assert_eq!((at as u64, records), (writer.segment.end, 3000));
    }

    #[test]
    fn large_batches_have_no_zeros_ahead_and_a_full_disk_ends_them() {
        let (mut disk, dir) = (Watched::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        for _ in 0..10 {
            batch(&mut writer, ZEROS.len() / 2);
        }
        assert_eq!(disk.writes().len(), 1 + 10);
        disk.no_room_for_zeros = true;
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        for _ in 0..10 {
            batch(&mut writer, 100);
        }
        assert_eq!(disk.writes().len(), 1 + 10);
        assert_eq!(writer.segment.chunk, 0, "it is not tried again in this segment");
    }

    #[test]
    fn zeros_end_where_the_room_does() {
        let (disk, dir) = (Watched::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 1);
        assert_eq!(writer.segment.chunk, LEAST_ZEROS);
        while writer.segment.end + 1000 < writer.segment.reserved {
            batch(&mut writer, 500);
        }
        let last = disk.writes().iter().map(|(offset, bytes)| offset + bytes.len() as u64).max();
        assert_eq!(last, Some(writer.segment.reserved));
    }
}
