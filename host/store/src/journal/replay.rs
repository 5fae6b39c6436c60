//! Reads the journal back and tells a torn end from a loss.
//!
//! Every record up to the last confirmed sync must be there; what is missing or damaged among those is *lost*. The
//! first bad record behind it is the torn end of the journal, and everything from there on is cut. After a power cut
//! the records between the two slots of the mark may be missing too: the mark's sync was the faster one, and nobody had
//! been answered yet. Such a record counts as torn only if a part of it was never written; other damage there is a
//! loss.

use std::path::Path;

use rejoin_core::port::{Row, Space};

use super::mark::{Mark, Marks};
use super::position::{FIRST_CHAIN, Position};
use super::record;
use super::rewrite::SegmentRange;
use super::segment::{Header, ReadHeader, list_segments, segment_path};
use crate::disk::{Disk, read_readable};
use crate::error::{Context, FileError};
use crate::io_cause::IoCause;
use crate::pinned::{Key, Pinned};

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

/// The result of a replay.
pub(crate) struct Replayed {
    /// The end of the journal. After a loss it is never before the mark, so that no index is used twice.
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

/// Applies every object row of the journal in order. `marks` is `None` if the mark cannot be read, which is the
/// caller's to report. `power_lost` says that the machine has stopped since the last write.
///
/// # Errors
/// [`FileError`] if the directory cannot be listed, or for an error that is not [damage](IoCause::is_damage). Blocks
/// that the disk cannot read are losses, not errors.
pub(crate) fn replay(
    disk: &dyn Disk,
    dir: &Path,
    marks: Option<Marks>,
    power_lost: bool,
    apply: &mut dyn FnMut(Row),
) -> Result<Replayed, FileError> {
    let segments = list_segments(disk, dir).context("list", dir)?;
    let mark = marks.map(|marks| marks.newest);
    let first = mark.map_or(0, |mark| mark.first_segment);
    let (headers, damaged) = live_headers(disk, dir, &segments, first)?;
    // Without a mark, everything that a later segment's header implies must be there.
    let implied = headers.iter().map(|header| header.first_index - 1).max().unwrap_or(0);
    let confirmed = marks.map_or(implied, |marks| marks.confirmed);
    let mut replayer = Replayer {
        at: Position { index: 0, chain: FIRST_CHAIN },
        mark,
        confirmed,
        // A segment with a damaged header may have held the records of the last sync.
        required: if power_lost && !damaged { confirmed } else { mark.map_or(implied, |mark| mark.index) },
        pinned: Pinned::new(),
        records: 0,
        cut_bytes: 0,
        lost: Vec::new(),
        torn: false,
        unsynced: Vec::new(),
        apply,
    };
    // Also where nothing was ever synced: a later segment implies that there was an earlier one.
    let follows = headers.first().is_some_and(|header| header.first_index > 1);
    let first_is_missing = headers.first().map(|header| header.number) != Some(first);
    if first_is_missing && mark.is_some_and(|mark| mark.index > 0 || follows) {
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

/// The headers of the segments from `first` on, without those that a later segment has superseded, and whether any is
/// damaged.
fn live_headers(disk: &dyn Disk, dir: &Path, segments: &[u64], first: u64) -> Result<(Vec<Header>, bool), FileError> {
    let (mut headers, mut damaged) = (Vec::new(), false);
    for number in segments.iter().copied().filter(|number| *number >= first) {
        let path = segment_path(dir, number);
        // The records of a segment without a header show as a gap.
        match Header::read(disk, &path, number) {
            Ok(ReadHeader::Intact(header)) => headers.push(header),
            Ok(ReadHeader::NeverWritten) => {}
            Ok(ReadHeader::Damaged) => damaged = true,
            Err(error) if IoCause::of(&error).is_damage() => damaged = true,
            Err(error) => return Err(FileError::io("read", &path, error)),
        }
    }
    // A segment that begins before an earlier one did was begun after a start that had cut the earlier one as torn.
    let firsts: Vec<u64> = headers.iter().map(|header: &Header| header.first_index).collect();
    let mut place = 0;
    headers.retain(|header| {
        place += 1;
        firsts[place..].iter().all(|later| *later >= header.first_index)
    });
    Ok((headers, damaged))
}

/// The state of a replay.
struct Replayer<'a> {
    /// The position after the last record that was applied or given up.
    at: Position,
    /// The newest mark, until its chain value was found to be wrong.
    mark: Option<Mark>,
    /// The last record that a sync is known to have covered.
    confirmed: u64,
    /// The last record that must be there.
    required: u64,
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
            self.cut_bytes += trailing(&bytes, 0);
            return Ok(());
        }
        let mut offset = header.records();
        // If no confirmed sync covers the segment's first record, none need have covered its header either.
        let mut unsynced = (header.first_index > self.confirmed).then_some(0);
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
        self.check_mark();
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
            self.check_mark();
            return Some(offset + found.bytes.len());
        }
        // No sync that is known to have ended covers the record.
        let marked = self.mark.is_some_and(|mark| index <= mark.index);
        if index > self.required && (!marked || never_written(bytes, offset, index)) {
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

    /// At the mark's index the chain value must be the mark's: otherwise this is another journal's record.
    fn check_mark(&mut self) {
        if let Some(Mark { index, chain, .. }) = self.mark
            && self.at.index == index
            && self.at.chain != chain
        {
            self.lost.push(format!("record {index} is not the one that was synced: the journal is another history"));
            self.mark = None;
        }
    }

    /// Reports a journal that ends before the required record.
    fn finish(&mut self, dir: &Path) {
        let ends = self.at.index;
        let synced = self.mark.map_or(self.required, |mark| mark.index);
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
