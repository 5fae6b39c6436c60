//! Appends to the journal. Records are gathered in a buffer and reach the file in one write per batch.
//!
//! The writer never syncs: [`Writer::file`] hands the file to the thread that does.

use std::io;
use std::sync::Arc;

use rejoin_core::port::Row;

use super::next_segment::{NewSegment, NextSegment, discard_next};
use super::position::{JournalDir, Position};
use super::record;
use crate::disk::DiskFile;
use crate::io_cause::IoCause;
use crate::pinned::Pinned;

/// The room that is reserved for the first segment after a start. It grows with the records, so that a node with few
/// writes takes little of the disk. Later segments are reserved whole, but for those of a node that is written no more.
const FIRST_ROOM: u64 = 1 << 20;

/// The least room with which a segment is begun.
const MIN_ROOM: u64 = 64 << 10;

/// The most zeros that are written ahead at a time. A sync of blocks that were never written makes the file system
/// record that they now are, which doubles the time of the sync. Zeros written ahead make one sync in many pay for
/// that. Larger chunks would delay the shard: a page of zeros takes 3 to 10 µs.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// The fewest zeros at a time: small segments have small chunks.
const MIN_ZEROS: u64 = 2 << 10;

/// The most pinned rows that a commit with a small batch copies into the next segment: some 25 KB, a tenth of a
/// millisecond.
const COPY_ROWS: u64 = 512;
/// The fewest pinned rows that a commit copies, so that small segments take many steps too.
const MIN_ROWS: u64 = 4;
/// Bytes after which the next segment is synced along with the open one, so that its first sync as the open segment is
/// short.
const SYNC_BYTES: u64 = 256 << 10;

/// The open segment and the batch that is being gathered.
pub(crate) struct Writer {
    dir: JournalDir,
    segment: OpenSegment,
    /// The next segment, once its preparation has begun.
    next: Option<NextSegment>,
    /// Few records are expected in the next segment.
    little: bool,
    buffer: Vec<u8>,
    /// Bytes of the last batch, until pinned rows were copied for it.
    batch: u64,
    /// The position after the last gathered record.
    gathered: Position,
}

/// The segment that is written. All fields but `number` and `file` are byte offsets or lengths.
struct OpenSegment {
    number: u64,
    file: Arc<dyn DiskFile>,
    /// The first record.
    records: u64,
    /// The end of the last batch.
    end: u64,
    /// The end of the reserved room.
    reserved: u64,
    /// The end of what was ever written, records or zeros.
    touched: u64,
    /// How much is zeroed at a time; 0 once zeros have found no room.
    chunk: u64,
}

impl OpenSegment {
    /// A new segment without records.
    fn new(number: u64, NewSegment { file, records, reserved }: NewSegment, chunk: u64) -> Self {
        Self { number, file, records, end: records, reserved, touched: records, chunk }
    }

    /// Writes zeros ahead of the records, so that a batch of up to half a chunk goes to blocks that were written
    /// before. For larger batches zeros would only add to what is written.
    fn zero_ahead(&mut self, batch: u64) -> io::Result<()> {
        self.touched = self.touched.max(self.end);
        let to = self.reserved.min(self.touched + self.chunk);
        if batch > self.chunk / 2 || self.touched >= self.end + self.chunk / 2 || self.touched >= to {
            return Ok(());
        }
        let zeros = usize::try_from(to - self.touched).map_or(&ZEROS[..], |length| &ZEROS[..length.min(ZEROS.len())]);
        match self.file.write_at(zeros, self.touched) {
            Ok(()) => self.touched += zeros.len() as u64,
            // Where the file system cannot reserve room, a full disk shows here first. The records may still fit.
            Err(error) if IoCause::of(&error) == IoCause::NoRoom => self.chunk = 0,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Stands in for the segment of a store that was opened without room for one.
struct NoFile;

impl DiskFile for NoFile {
    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn preallocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn set_length(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Zeros that are written ahead at a time.
fn chunk(segment_bytes: u64) -> u64 {
    (segment_bytes / 1024).clamp(MIN_ZEROS, ZEROS.len() as u64)
}

/// How far a segment may grow beyond `segment_bytes`, while the next one is prepared or for the last batch.
fn headroom(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).clamp(MIN_ROOM, 8 << 20)
}

impl Writer {
    /// Begins segment `number` after `at` with these pinned rows. It is durable once its file and the directory are
    /// synced.
    ///
    /// # Errors
    /// What the disk says; no file is left then.
    pub(crate) fn begin(dir: JournalDir, number: u64, at: Position, pinned: &Pinned) -> io::Result<Self> {
        let create = |room| {
            let mut next = NextSegment::create(&dir, room)?;
            next.copy(pinned, usize::MAX)?;
            next.finish(&dir, number, at, room)
        };
        // A node must start on a nearly full disk, or nobody could read its data. A little room is enough for that.
        let created = match create((dir.segment_bytes + headroom(dir.segment_bytes)).min(FIRST_ROOM)) {
            Err(error) if IoCause::of(&error) == IoCause::NoRoom => create(MIN_ROOM),
            created => created,
        };
        if created.is_err() {
            // The room that the unfinished file takes may be needed.
            let _ = discard_next(dir.disk.as_ref(), &dir.path);
        }
        let segment = OpenSegment::new(number, created?, chunk(dir.segment_bytes));
        Ok(Self { dir, segment, next: None, little: false, buffer: Vec::new(), batch: 0, gathered: at })
    }

    /// The writer of a store that was opened without room for a segment: the journal ends at `at`, and every write
    /// fails for want of room.
    pub(crate) fn without_room(dir: JournalDir, number: u64, at: Position) -> Self {
        let segment = NewSegment { file: Arc::new(NoFile), records: 0, reserved: 0 };
        let segment = OpenSegment::new(number, segment, 0);
        Self { dir, segment, next: None, little: false, buffer: Vec::new(), batch: 0, gathered: at }
    }

    /// Truncates the segment behind its last record. For a clean stop: the segment is not written any more.
    ///
    /// # Errors
    /// What the disk says; only the reserved room is kept then.
    pub(crate) fn trim(&self) -> io::Result<()> {
        self.segment.file.set_length(self.segment.end)
    }

    /// Makes sure that a change fits, and reserves more room if it does not.
    ///
    /// # Errors
    /// What the disk says, or [`io::ErrorKind::FileTooLarge`] for a change of more than 1 GiB; nothing has changed
    /// then.
    pub(crate) fn reserve(&mut self, rows: &[Row]) -> io::Result<()> {
        let payload = record::rows_len(rows.iter());
        if payload > record::MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a change of more than 1 GiB"));
        }
        let need = self.segment.end + (self.buffer.len() + record::HEAD + payload) as u64;
        // A segment that was begun with little room grows in steps, early enough for the zeros ahead of its records.
        let headroom = headroom(self.dir.segment_bytes);
        let whole = need.max(self.segment.records + self.dir.segment_bytes + headroom);
        if whole.min(need + self.segment.chunk) > self.segment.reserved {
            let reserved = if need < whole { whole.min(need + headroom) } else { need + headroom };
            match self.segment.file.preallocate(reserved) {
                Ok(()) => self.segment.reserved = reserved,
                Err(_) if need <= self.segment.reserved => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds a change to the batch.
    pub(crate) fn gather(&mut self, rows: &[Row]) {
        let index = self.gathered.index + 1;
        let chain = record::encode(&mut self.buffer, index, self.gathered.chain, rows);
        self.gathered = Position { index, chain };
    }

    /// Whether nothing is gathered. The memtable then holds nothing that is not in the journal file.
    pub(crate) fn at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Writes the batch in one call, and zeros ahead of it when they are due. Returns the end of the journal and the
    /// bytes written.
    ///
    /// # Errors
    /// What the disk says. Part of the batch may then be in the file, so nothing may be written after it.
    pub(crate) fn write_batch(&mut self) -> io::Result<(Position, u64)> {
        let written = self.buffer.len() as u64;
        self.segment.file.write_at(&self.buffer, self.segment.end)?;
        self.segment.end += written;
        self.batch = written;
        self.segment.zero_ahead(written)?;
        self.buffer.clear();
        // Do not keep the memory of a rare large batch.
        self.buffer.shrink_to(1 << 20);
        Ok((self.gathered, written))
    }

    /// Whether the segment has reached `segment_bytes`.
    pub(crate) fn is_full(&self) -> bool {
        self.segment.end - self.segment.records >= self.dir.segment_bytes
    }

    pub(crate) fn has_records(&self) -> bool {
        self.segment.end > self.segment.records
    }

    /// The number of the open segment.
    pub(crate) fn number(&self) -> u64 {
        self.segment.number
    }

    /// The file of the open segment, to be synced.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.segment.file)
    }

    /// The position after the last gathered record.
    pub(crate) fn gathered(&self) -> Position {
        self.gathered
    }

    /// Notes that a pinned row was written or removed, for the next segment.
    pub(crate) fn change(&mut self, key: &[u8]) {
        if let Some(next) = &mut self.next {
            next.change(key);
        }
    }

    /// Whether the next segment is in preparation.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Has the next segment begin with little room, as the first one after a start.
    pub(crate) fn expect_little(&mut self) {
        self.little = true;
    }

    /// Whether the segment has used its headroom too, so that the next one must be finished at once.
    pub(crate) fn is_late(&self) -> bool {
        self.segment.end - self.segment.records >= self.dir.segment_bytes + headroom(self.dir.segment_bytes)
    }

    /// Copies pinned rows into the next segment: those that the last batch has changed, and enough others to be done
    /// before the open segment is late, or all of them `at_once`. Returns whether the next segment is the open one now.
    /// Only between batches.
    ///
    /// # Errors
    /// What the disk says; the old segment stays the open one.
    ///
    /// # Panics
    /// If a batch is being gathered: the snapshot would hold what is not yet in the journal.
    pub(crate) fn advance(&mut self, pinned: &Pinned, at_once: bool) -> io::Result<bool> {
        assert!(self.at_boundary(), "a segment is switched between batches only");
        let further = if at_once { usize::MAX } else { self.further(pinned.len()) };
        let advanced = self.copy(pinned, further);
        if advanced.is_err() {
            self.discard();
        }
        advanced
    }

    /// Removes the next segment if it is in preparation: the room that it takes may be needed.
    pub(crate) fn abandon(&mut self) {
        if self.next.take().is_some() {
            self.discard();
        }
    }

    fn discard(&self) {
        // A file that stays is replaced by the next attempt, or removed at the next start.
        let _ = discard_next(self.dir.disk.as_ref(), &self.dir.path);
    }

    /// The file of the next segment, if a sync of it is due.
    pub(crate) fn next_to_sync(&mut self) -> Option<Arc<dyn DiskFile>> {
        let bytes = (self.dir.segment_bytes / 256).clamp(64, SYNC_BYTES);
        self.next.as_mut()?.due_for_sync(bytes)
    }

    /// How many of `pinned` rows the commit copies. A large batch uses up more of the headroom, so it copies more.
    fn further(&mut self, pinned: usize) -> usize {
        let share = pinned as u64 * std::mem::take(&mut self.batch) / headroom(self.dir.segment_bytes);
        usize::try_from(share.max((self.dir.segment_bytes >> 17).clamp(MIN_ROWS, COPY_ROWS))).unwrap_or(usize::MAX)
    }

    fn copy(&mut self, pinned: &Pinned, further: usize) -> io::Result<bool> {
        let whole = self.dir.segment_bytes + headroom(self.dir.segment_bytes);
        let room = if self.little { whole.min(FIRST_ROOM) } else { whole };
        let mut next = match self.next.take() {
            Some(next) => next,
            None => NextSegment::create(&self.dir, room)?,
        };
        next.copy(pinned, further)?;
        if !next.is_whole() {
            self.next = Some(next);
            return Ok(false);
        }
        let number = self.segment.number + 1;
        let segment = next.finish(&self.dir, number, self.gathered, room)?;
        self.segment = OpenSegment::new(number, segment, chunk(self.dir.segment_bytes));
        self.little = false;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::FIRST_CHAIN;
    use super::super::recording_disk::RecordingDisk;
    use super::super::segment::{Header, segment_path};
    use super::super::slot::FRONT;
    use super::*;
    use crate::pinned::Key;
    use rejoin_core::port::{Change, Space};
    use std::path::Path;

    fn begin(disk: &RecordingDisk, dir: &Path, segment_bytes: u64) -> Writer {
        let at = Position { index: 0, chain: FIRST_CHAIN };
        let dir = JournalDir { disk: Arc::new(disk.clone()), path: dir.to_path_buf(), segment_bytes };
        Writer::begin(dir, 1, at, &Pinned::new()).expect("a segment")
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
        let (disk, dir) = (RecordingDisk::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        let (chunk, mut touched, mut zeroed, mut unwritten) = (writer.segment.chunk, disk.writes()[1].0, 0, 0);
        for number in 0..3000_u64 {
            let (from, length) = batch(&mut writer, 100 + (number * 7919 % 30_000) as usize);
            assert!(length <= chunk / 2);
            for (offset, bytes) in disk.writes() {
                let to = offset + bytes.len() as u64;
                if bytes.iter().all(|byte| *byte == 0) {
                    assert!(
                        offset >= writer.segment.end && bytes.len() as u64 <= chunk && to <= writer.segment.reserved
                    );
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
        let (mut disk, dir) = (RecordingDisk::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        for _ in 0..10 {
            batch(&mut writer, ZEROS.len() / 2);
        }
        assert_eq!(disk.writes().len(), 2 + 10, "slots, header, batches");
        disk.no_room_for_zeros = true;
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        for _ in 0..10 {
            batch(&mut writer, 100);
        }
        assert_eq!(disk.writes().len(), 2 + 10, "slots, header, batches");
        assert_eq!(writer.segment.chunk, 0, "it is not tried again in this segment");
    }

    #[test]
    fn zeros_end_where_the_room_does() {
        let (disk, dir) = (RecordingDisk::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 1);
        assert_eq!(writer.segment.chunk, MIN_ZEROS);
        while writer.segment.end + 1000 < writer.segment.reserved {
            batch(&mut writer, 500);
        }
        let last = disk.writes().iter().map(|(offset, bytes)| offset + bytes.len() as u64).max();
        assert_eq!(last, Some(writer.segment.reserved));
    }

    /// Rows that are written and removed before, at and behind those that are being copied, in segments of which some
    /// are finished in a hurry.
    #[test]
    fn a_segment_begins_with_exactly_the_rows_that_are_there_when_it_is_begun() {
        let (disk, dir) = (RecordingDisk::default(), tempfile::tempdir().expect("a directory"));
        let (mut writer, mut pinned) = (begin(&disk, dir.path(), 1), Pinned::new());
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let (mut steps, mut hurried) = (0, 0);
        while writer.number() < 300 {
            for _ in 0..next(6) {
                let key = format!("{:02}", next(60));
                writer.change(key.as_bytes());
                match next(3) {
                    0 => drop(pinned.remove(key.as_bytes())),
                    _ => drop(pinned.insert(key.as_bytes().into(), next(1000).to_string().into())),
                }
            }
            let at_once = next(12) == 0;
            let finished = writer.advance(&pinned, at_once).expect("copied");
            assert!(finished || !at_once);
            (steps, hurried) = (steps + 1, hurried + u64::from(at_once));
            if finished {
                let bytes = std::fs::read(segment_path(dir.path(), writer.number())).expect("readable");
                let header = Header::decode(&bytes[FRONT..], writer.number()).expect("a header");
                assert_eq!(
                    (header.records() as u64, header.snapshot(&bytes)),
                    (writer.segment.records, Some(pinned.clone()))
                );
                assert!(!dir.path().join("next").exists());
            }
        }
        assert!(steps > 1500 && hurried > 100, "{steps} steps, {hurried} of them to the end");
    }

    #[test]
    fn a_large_batch_copies_more_so_that_the_segment_is_ready_in_time() {
        let (disk, dir) = (RecordingDisk::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        let pinned: Pinned =
            (0..200_000_u64).map(|number| (Key::from_slice(&number.to_be_bytes()), "row".into())).collect();
        writer.batch = 3_000;
        assert_eq!(writer.further(pinned.len()), COPY_ROWS as usize);
        for batch in [100, 3_000, 300_000] {
            let mut copied = 0;
            for _ in 0..headroom(64 << 20).div_ceil(batch) {
                writer.batch = batch;
                copied += writer.further(pinned.len());
            }
            assert!(copied + 100 > pinned.len(), "{copied} rows in batches of {batch} bytes");
        }
    }
}
