//! Reads the journal back and tells a torn end from a loss.
//!
//! Every record up to the last confirmed sync must be there; what is missing or damaged among those is *lost*. The
//! first bad record behind it is the torn end of the journal, and everything from there on is cut. A slot is written
//! before its sync, so after a power cut the records that only the newest slot names may be missing too: nobody had
//! been answered yet. Such a record counts as torn only if a part of it was never written; other damage there is a
//! loss.
//!
//! A lost end, if blocks are zeros or the file is cut, leaves the slots at the front as they are. A segment that is
//! lost as a whole takes its slots along: so the mark names the newest segment that was synced.

use std::io;
use std::path::Path;

use rejoin_core::port::{Row, Space};

use super::mark::Mark;
use super::position::{FIRST_CHAIN, Position};
use super::record;
use super::rewrite::SegmentRange;
use super::segment::{Header, list_segments, segment_path};
use super::slot::{FRONT, SyncSlot};
use crate::disk::{Disk, read_readable};
use crate::error::{Context, FileError};
use crate::io_cause::IoCause;
use crate::pinned::{Key, Pinned};

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

/// The result of a replay.
pub(crate) struct Replayed {
    /// The end of the journal. After a loss it is never before what a sync has covered, so that no index is used twice.
    pub(crate) end: Position,
    /// The pinned rows at the end.
    pub(crate) pinned: Pinned,
    /// The number of records that were applied.
    pub(crate) records: u64,
    /// Bytes behind the end that were cut as torn.
    pub(crate) cut_bytes: u64,
    /// What was synced once and is missing or damaged now, for people.
    pub(crate) lost: Vec<String>,
    /// The numbers of all segment files.
    pub(crate) segments: Vec<u64>,
    /// Where the applied records are that no confirmed sync covers. They may be in the page cache only.
    pub(crate) unsynced: Vec<SegmentRange>,
}

/// Applies every object row of the journal in order. `mark` is `None` if the mark cannot be read, which is the caller's
/// to report. `power_lost` says that the machine has stopped since the last write.
///
/// # Errors
/// [`FileError`] if the directory cannot be listed, or for an error that is not [damage](IoCause::is_damage). Blocks
/// that the disk cannot read are losses, not errors.
pub(crate) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    mark: Option<Mark>,
    power_lost: bool,
    apply: &mut dyn FnMut(Row),
) -> Result<Replayed, FileError> {
    let segments = list_segments(disk, dir).context("list", dir)?;
    let first = mark.map_or(0, |mark| mark.first_segment);
    let LiveSegments { headers, slots, lost } = LiveSegments::read(disk, dir, &segments, mark)?;
    let SyncedEnds { confirmed, named, known } = SyncedEnds::of(mark, &headers, &slots);
    let mut replayer = Replayer {
        at: Position { index: 0, chain: FIRST_CHAIN },
        known,
        confirmed,
        named,
        required: if power_lost { confirmed } else { named },
        newest: mark.map_or(0, |mark| mark.newest_segment),
        pinned: Pinned::new(),
        records: 0,
        cut_bytes: 0,
        lost,
        torn: false,
        unsynced: Vec::new(),
        apply,
    };
    // Also where nothing was ever synced: a later segment implies that there was an earlier one.
    let follows = headers.first().is_some_and(|header| header.first_index > 1);
    let first_is_missing = headers.first().map(|header| header.number) != Some(first);
    if first_is_missing && replayer.lost.is_empty() && mark.is_some_and(|mark| mark.index > 0 || follows) {
        replayer.lost.push(format!("journal segment {first}, the first that is still needed, is missing or damaged"));
    }
    for (place, header) in headers.iter().enumerate() {
        // A later header says where this segment ends: what follows there was cut before.
        let stop = headers[place + 1..].iter().map(|later| later.first_index - 1).min().unwrap_or(u64::MAX);
        replayer.segment(disk, dir, header, place == 0, stop)?;
    }
    replayer.finish(dir);
    let Replayer { at: end, pinned, records, cut_bytes, lost, unsynced, .. } = replayer;
    Ok(Replayed { end, pinned, records, cut_bytes, lost, segments, unsynced })
}

/// The fronts of the segments that are still needed.
struct LiveSegments {
    /// Without those of segments that a later one has superseded.
    headers: Vec<Header>,
    /// Those that count.
    slots: Vec<SyncSlot>,
    /// What the mark says of the newest segment and does not hold, for people.
    lost: Vec<String>,
}

impl LiveSegments {
    fn read(disk: &dyn Disk, dir: &Path, segments: &[u64], mark: Option<Mark>) -> Result<Self, FileError> {
        let (mut headers, mut slots, mut lost) = (Vec::<Header>::new(), Vec::new(), Vec::new());
        let (first, slots_from) = mark.map_or((0, 0), |mark| (mark.first_segment, mark.slots_from));
        for number in segments.iter().copied().filter(|number| *number >= first) {
            let path = segment_path(dir, number);
            // The records of a segment without a header show as a gap, or the mark names it.
            headers.extend(if_undamaged(Header::read(disk, &path, number), &path)?.flatten());
            if number >= slots_from {
                slots.extend(if_undamaged(SyncSlot::read(disk, &path, number), &path)?.unwrap_or_default());
            }
        }
        if let Some(Mark { newest_segment: newest, .. }) = mark.filter(|mark| mark.newest_segment >= first.max(1)) {
            if !headers.iter().any(|header| header.number == newest) {
                lost.push(format!("journal segment {newest}, the newest that was synced, is missing or damaged"));
            } else if newest >= slots_from && !slots.iter().any(|slot| slot.segment == newest) {
                lost.push(format!("journal segment {newest} does not say how far it was synced: its front is damaged"));
            }
        }
        // A segment that begins before an earlier one did was begun after a start that had cut the earlier one as torn.
        let firsts: Vec<u64> = headers.iter().map(|header| header.first_index).collect();
        let mut place = 0;
        headers.retain(|header| {
            place += 1;
            firsts[place..].iter().all(|later| *later >= header.first_index)
        });
        Ok(Self { headers, slots, lost })
    }
}

/// `None` instead of an error that shows damage.
fn if_undamaged<T>(read: io::Result<T>, path: &Path) -> Result<Option<T>, FileError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if IoCause::of(&error).is_damage() => Ok(None),
        Err(error) => Err(FileError::io("read", path, error)),
    }
}

/// How far the journal was synced.
struct SyncedEnds {
    /// The last record that a sync is known to have covered.
    confirmed: u64,
    /// The last record that a slot or the mark names. Its sync may not have ended.
    named: u64,
    /// Positions that were synced, or were about to be.
    known: Vec<Position>,
}

impl SyncedEnds {
    fn of(mark: Option<Mark>, headers: &[Header], slots: &[SyncSlot]) -> Self {
        // Without a mark, everything that a later segment's header implies must be there.
        let implied = headers.iter().map(|header| header.first_index - 1).max().unwrap_or(0);
        let mark = mark.map(|mark| Position { index: mark.index, chain: mark.chain });
        let newest = slots.iter().map(|slot| slot.end).max_by_key(|end| end.index);
        let confirmed = slots.iter().map(|slot| slot.confirmed).max().unwrap_or(0);
        let confirmed = confirmed.max(mark.map_or(implied, |mark| mark.index));
        let named = confirmed.max(newest.map_or(0, |newest| newest.index));
        Self { confirmed, named, known: mark.into_iter().chain(newest).collect() }
    }
}

/// The state of a replay.
struct Replayer<'a> {
    /// The position after the last record that was applied or given up.
    at: Position,
    /// Positions whose chain values must be right, until one was found to be wrong.
    known: Vec<Position>,
    /// The last record that a sync is known to have covered.
    confirmed: u64,
    /// The last record that a sync has covered, or was about to.
    named: u64,
    /// The last record that must be there.
    required: u64,
    /// The newest segment that the mark names.
    newest: u64,
    pinned: Pinned,
    records: u64,
    cut_bytes: u64,
    lost: Vec<String>,
    /// The torn end was found: nothing behind it counts.
    torn: bool,
    unsynced: Vec<SegmentRange>,
    apply: &'a mut dyn FnMut(Row),
}

impl Replayer<'_> {
    /// Replays one segment up to record `stop`.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        header: &Header,
        first: bool,
        stop: u64,
    ) -> Result<(), FileError> {
        let path = segment_path(dir, header.number);
        let file = disk.open(&path).context("open", &path)?;
        let (bytes, unreadable) = read_readable(file.as_ref()).context("read", &path)?;
        if unreadable > 0 {
            self.lost.push(format!("journal segment {} has {unreadable} unreadable blocks", header.number));
        }
        if self.torn || !self.enter(header, &bytes, first) {
            self.cut_bytes += trailing(&bytes, FRONT);
            return Ok(());
        }
        let mut offset = header.records();
        // If no confirmed sync covers the segment's first record, none need have covered its front either, unless the
        // mark says so.
        let mut unsynced = (header.first_index > self.confirmed && header.number > self.newest).then_some(0);
        while self.at.index < stop {
            if self.at.index == self.confirmed {
                unsynced = unsynced.or(Some(offset));
            }
            match self.step(&bytes, offset, header.number) {
                Some(next) => offset = next,
                None => break,
            }
        }
        if let Some(from) = unsynced.filter(|from| *from < offset) {
            self.unsynced.push(SegmentRange { segment: header.number, from: from as u64, to: offset as u64 });
        }
        if self.torn {
            self.cut_bytes += trailing(&bytes, offset);
        }
        Ok(())
    }

    /// Checks that a segment continues where the last one ended, and takes its snapshot. Returns whether to read it.
    fn enter(&mut self, header: &Header, bytes: &[u8], first: bool) -> bool {
        let begins = Position { index: header.first_index - 1, chain: header.chain };
        if !first {
            if begins == self.at {
                return true;
            }
            let number = header.number;
            let Position { index, .. } = self.at;
            self.lost.push(format!(
                "the journal breaks off after record {index} and goes on after {} in segment {number}",
                begins.index
            ));
            if begins.index < self.at.index {
                return false;
            }
        }
        self.at = begins;
        match header.snapshot(bytes) {
            Some(pinned) => self.pinned = pinned,
            None => {
                self.lost.push(format!("the pinned rows at the front of journal segment {} are damaged", header.number))
            }
        }
        self.check_known();
        true
    }

    /// Replays the record at an offset. Returns the offset of the next one; `None` where this segment has no more that
    /// can be read.
    fn step(&mut self, bytes: &[u8], offset: usize, number: u64) -> Option<usize> {
        let index = self.at.index + 1;
        let found = record::at(bytes, offset);
        if let Some(found) = &found
            && found.intact()
            && found.index == index
            && found.chain == record::link(self.at.chain, index, found.payload())
            && let Some(rows) = record::decode_rows(found.payload())
        {
            self.at = Position { index, chain: found.chain };
            self.records += 1;
            rows.into_iter().for_each(|row| self.row(row));
            self.check_known();
            return Some(offset + found.bytes.len());
        }
        // No sync that is known to have ended covers the record.
        if index > self.required && (index > self.named || never_written(bytes, offset, index)) {
            self.torn = true;
            return None;
        }
        self.lost.push(format!("record {index} at byte {offset} of journal segment {number} is damaged or missing"));
        // Its head may be intact. Then the next record can be verified against the chain value that the head names.
        let found = found.filter(|found| found.index == index)?;
        let next = offset + found.bytes.len();
        let proof = record::at(bytes, next)?;
        let proven = proof.intact()
            && proof.index == index + 1
            && proof.chain == record::link(found.chain, index + 1, proof.payload());
        if !proven {
            return None;
        }
        self.at = Position { index, chain: found.chain };
        Some(next)
    }

    fn row(&mut self, row: Row) {
        match (row.space, row.value) {
            (Space::Pinned, Some(value)) => drop(self.pinned.insert(Key::from_slice(&row.key), value)),
            (Space::Pinned, None) => drop(self.pinned.remove(row.key.as_ref())),
            (space, value) => (self.apply)(Row { space, key: row.key, value }),
        }
    }

    /// At a known index the chain value must be the known one: otherwise this is another journal's record.
    fn check_known(&mut self) {
        let Position { index, chain } = self.at;
        if self.known.iter().any(|known| known.index == index && known.chain != chain) {
            self.lost.push(format!("record {index} is not the one that was synced: the journal is another history"));
            self.known.clear();
        }
    }

    /// Reports a journal that ends before the required record.
    fn finish(&mut self, dir: &Path) {
        let (ends, synced) = (self.at.index, self.named);
        if synced > ends && (self.required > ends || !self.lost.is_empty()) {
            self.lost.push(format!("records up to {synced} were synced, but the journal ends after record {ends}"));
            self.at.index = synced;
        } else if synced > ends {
            tracing::warn!(dir = %dir.display(), ends, synced, "the power failed during a sync: records that nobody \
                relied on are cut");
        }
    }
}

/// Whether a part of the record at an offset was never written. Disks write sectors atomically, and a segment is zeros
/// where nothing was written: so each sector of a record that a power cut has torn is complete or zero.
fn never_written(bytes: &[u8], offset: usize, index: u64) -> bool {
    let rest = bytes.get(offset..).unwrap_or_default();
    let has_gap = |length: usize| {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let next = end.min((at / SECTOR + 1) * SECTOR);
            // What lies behind the end of the file was not written either.
            if bytes.get(at..next).is_none_or(|part| part.iter().all(|byte| *byte == 0)) {
                return true;
            }
            at = next;
        }
        false
    };
    if has_gap(record::HEAD) {
        return true;
    }
    let length = record::read_u32(rest, 0) as usize;
    length <= record::MAX_PAYLOAD && record::read_u64(rest, 8) == index && has_gap(record::HEAD + length)
}

/// The number of bytes from an offset to the last byte that is not zero, inclusive.
fn trailing(bytes: &[u8], offset: usize) -> u64 {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_was_never_written_where_a_sector_of_it_is_zero_and_not_where_it_is_noise() {
        let mut change = rejoin_core::port::Change::default();
        change.put(Space::Objects, "key", vec![b'v'; 3 * SECTOR]);
        let mut bytes = vec![1; 500];
        record::encode(&mut bytes, 7, 99, &change.rows);
        let end = bytes.len();
        bytes.resize(4096, 0);
        let after = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            edit(&mut bytes);
            never_written(&bytes, 500, 7)
        };
        assert!(!after(&|_| ()) && !after(&|bytes| bytes[700..900].fill(0)), "no sector is missing");
        for (from, to) in [(500, end), (500, SECTOR), (SECTOR, 2 * SECTOR), (3 * SECTOR, end)] {
            assert!(after(&|bytes| bytes[from..to].fill(0)), "{from} to {to}");
            assert!(!after(&|bytes| bytes[from..to].fill(9)), "noise at {from} to {to}");
        }
        assert!(after(&|bytes| bytes.truncate(600)) && after(&|bytes| bytes.truncate(510)), "the file ends within it");
    }
}
