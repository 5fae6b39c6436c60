//! Appends to the journal: records gather in a buffer and reach the file in one write per batch.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rejoin_core::port::Row;

use super::next::{Made, Next, discard_next};
use super::record;
use crate::disk::{Disk, DiskFile, no_room};
use crate::pinned::Pinned;

/// The room that the first segment after a start is begun with. It grows as it is written: a node that is written
/// little must not take more, and one that is written much has its later segments reserved whole.
const FIRST_ROOM: u64 = 1 << 20;

/// The least room that a segment is begun with.
const LEAST_ROOM: u64 = 64 << 10;

/// The most that is zeroed at a time. A sync of blocks that were never written has the file system note that they now
/// are, which takes about as long again as the sync itself; so zeros are written there first, and one sync in many
/// pays. Larger chunks hold the shard up: a page of them takes some 3 to 10 µs.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// The least: small segments have small chunks.
const LEAST_ZEROS: u64 = 2 << 10;

/// The most pinned rows that one commit copies into the next segment if its batch is small: some 25 KB, a tenth of a
/// millisecond.
const COPY_ROWS: u64 = 512;
/// The fewest: small segments are made in as many steps.
const LEAST_ROWS: u64 = 4;
/// After how many bytes the next segment is synced along, so that the first sync of it as the open one has little left.
const SYNC_BYTES: u64 = 256 << 10;

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
    /// The one after it, once it is begun.
    next: Option<Next>,
    buffer: Vec<u8>,
    /// The bytes of the last batch, until rows were copied for it.
    batch: u64,
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
    /// A segment that was made just now.
    fn new(number: u64, Made { file, records, reserved }: Made, chunk: u64) -> Self {
        Self { number, file, records, end: records, reserved, touched: records, chunk }
    }

    /// Writes zeros ahead of the records, so that a batch of up to half a chunk finds its place written before. A
    /// larger one pays for itself: zeros would only be more to write.
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

/// Where a segment would be that there was no room for.
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
        let create = |room| {
            let mut next = Next::create(disk.as_ref(), &dir, room)?;
            next.copy(pinned, usize::MAX)?;
            next.finish(disk.as_ref(), &dir, number, at, room)
        };
        // A node must start on a disk that is nearly full, or nobody could read what it has: a little room will do.
        let made = match create((segment_bytes + headroom(segment_bytes)).min(FIRST_ROOM)) {
            Err(error) if no_room(&error) => create(LEAST_ROOM),
            created => created,
        };
        if made.is_err() {
            // The room that it took may be needed.
            let _ = discard_next(disk.as_ref(), &dir);
        }
        let segment = Segment::new(number, made?, chunk(segment_bytes));
        Ok(Self { disk, dir, segment_bytes, segment, next: None, buffer: Vec::new(), batch: 0, gathered: at })
    }

    /// A journal that ends at `at` and has no segment to go on in, for want of room: every change is refused.
    pub(crate) fn unbegun(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64, number: u64, at: Position) -> Self {
        let made = Made { file: Arc::new(NoFile), records: 0, reserved: 0 };
        let segment = Segment::new(number, made, 0);
        Self { disk, dir, segment_bytes, segment, next: None, buffer: Vec::new(), batch: 0, gathered: at }
    }

    /// Gives back the room behind the last record: a segment that is left at a stop is not written any more.
    ///
    /// # Errors
    /// What the disk says; nothing but the room is at stake.
    pub(crate) fn trim(&self) -> io::Result<()> {
        self.segment.file.set_length(self.segment.end)
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
        // A segment that was begun with little room has its share in steps, in time for the zeros ahead of its records.
        let headroom = headroom(self.segment_bytes);
        let whole = need.max(self.segment.records + self.segment_bytes + headroom);
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

    /// Whether nothing is gathered: the memtable then holds nothing that the journal file does not.
    pub(crate) fn at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Writes the batch in one call, and now and then zeros ahead of it. Returns where the journal now ends and how
    /// many bytes were written.
    ///
    /// # Errors
    /// What the disk says; part of the batch may be in the file, and nothing may be written after it.
    pub(crate) fn write_batch(&mut self) -> io::Result<(Position, u64)> {
        let written = self.buffer.len() as u64;
        self.segment.file.write_at(&self.buffer, self.segment.end)?;
        self.segment.end += written;
        self.batch = written;
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

    /// A pinned row is written or removed: what was copied of it for the next segment is not what it is.
    pub(crate) fn change(&mut self, key: &[u8]) {
        if let Some(next) = &mut self.next {
            next.change(key);
        }
    }

    /// Whether the next segment is begun.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the segment has had so much more than its share that the next one can no longer be waited for.
    pub(crate) fn is_late(&self) -> bool {
        self.segment.end - self.segment.records >= self.segment_bytes + headroom(self.segment_bytes)
    }

    /// Copies pinned rows into the next segment: those that the last batch has changed, and so many others that none
    /// are left when the open segment is late, or all of them `at_once`. Returns whether the journal goes on in the
    /// next segment now. Only between batches.
    ///
    /// # Errors
    /// What the disk says; the journal then goes on in the old segment.
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

    /// Gives up the next segment, if it is begun: the room that it takes may be needed.
    pub(crate) fn abandon(&mut self) {
        if self.next.take().is_some() {
            self.discard();
        }
    }

    fn discard(&self) {
        // What stays is removed at the next start, or taken by the next attempt.
        let _ = discard_next(self.disk.as_ref(), &self.dir);
    }

    /// The file of the next segment, if a sync of it is due.
    pub(crate) fn next_to_sync(&mut self) -> Option<Arc<dyn DiskFile>> {
        let bytes = (self.segment_bytes / 256).clamp(64, SYNC_BYTES);
        self.next.as_mut()?.due_for_sync(bytes)
    }

    /// How many rows one commit copies of this many. A large batch copies more: what must be copied while the segment
    /// takes so many bytes.
    fn further(&mut self, pinned: usize) -> usize {
        let share = pinned as u64 * std::mem::take(&mut self.batch) / headroom(self.segment_bytes);
        usize::try_from(share.max((self.segment_bytes >> 17).clamp(LEAST_ROWS, COPY_ROWS))).unwrap_or(usize::MAX)
    }

    fn copy(&mut self, pinned: &Pinned, further: usize) -> io::Result<bool> {
        let room = self.segment_bytes + headroom(self.segment_bytes);
        let mut next = match self.next.take() {
            Some(next) => next,
            None => Next::create(self.disk.as_ref(), &self.dir, room)?,
        };
        next.copy(pinned, further)?;
        if !next.is_whole() {
            self.next = Some(next);
            return Ok(false);
        }
        let number = self.segment.number + 1;
        let made = next.finish(self.disk.as_ref(), &self.dir, number, self.gathered, room)?;
        self.segment = Segment::new(number, made, chunk(self.segment_bytes));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FIRST_CHAIN;
    use super::super::segment::{Header, segment_path};
    use super::super::watched::Watched;
    use super::*;
    use crate::pinned::Key;
    use rejoin_core::port::{Change, Space};
    use std::path::Path;

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

    /// Rows that are written and removed before, at and behind those that are being copied, in segments of which some
    /// are finished in a hurry.
    #[test]
    fn a_segment_begins_with_exactly_the_rows_that_are_there_when_it_is_begun() {
        let (disk, dir) = (Watched::default(), tempfile::tempdir().expect("a directory"));
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
                let header = Header::decode(&bytes, writer.number()).expect("a header");
                assert_eq!((header.records() as u64, header.snapshot(&bytes)), (writer.segment.records, Some(pinned.clone())));
                assert!(!dir.path().join("next").exists());
            }
        }
        assert!(steps > 1500 && hurried > 100, "{steps} steps, {hurried} of them to the end");
    }

    #[test]
    fn a_large_batch_copies_more_so_that_the_segment_is_ready_in_time() {
        let (disk, dir) = (Watched::default(), tempfile::tempdir().expect("a directory"));
        let mut writer = begin(&disk, dir.path(), 64 << 20);
        let pinned: Pinned = (0..200_000_u64).map(|number| (Key::from_slice(&number.to_be_bytes()), "row".into())).collect();
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
