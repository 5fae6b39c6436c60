//! Reads the journal back, and tells a torn end from a loss.

use std::io;
use std::path::Path;

use rejoin_core::port::{Row, Space};

use super::mark::Mark;
use super::record;
use super::rewrite::Stretch;
use super::segment::{Header, list_segments, segment_path};
use super::{FIRST_CHAIN, Position};
use crate::disk::{Disk, DiskFile, is_damage, read_all};
use crate::error::{Context, FileError};
use crate::pinned::{Key, Pinned};

/// How much is read at a time once a file has shown unreadable blocks.
const BLOCK: usize = 4096;

/// What the journal held.
pub(crate) struct Replayed {
    /// Where it ends, or must be taken to end: never before the mark.
    pub(crate) end: Position,
    /// The pinned rows there.
    pub(crate) pinned: Pinned,
    /// How many records were applied.
    pub(crate) records: u64,
    /// Bytes behind the end that were thrown away: a torn tail, never synced.
    pub(crate) cut_bytes: u64,
    /// What was synced once and is gone or damaged, for people.
    pub(crate) lost: Vec<String>,
    /// The segment files that are there.
    pub(crate) segments: Vec<u64>,
    /// Where that lies which was applied and is behind the mark: perhaps in the page cache only.
    pub(crate) unsynced: Vec<Stretch>,
}

/// Applies every object row of the journal in order. `mark` is what the high-water mark says; `None` if it cannot be
/// read (which is the caller's to report).
///
/// # Errors
/// [`FileError`] if the directory cannot be read at all, or the system is out of something that reading needs. Blocks
/// that the disk cannot read are losses, not errors.
pub(crate) fn replay(disk: &dyn Disk, dir: &Path, mark: Option<Mark>, apply: &mut dyn FnMut(Row)) -> Result<Replayed, FileError> {
    let segments = list_segments(disk, dir).context("list", dir)?;
    let first = mark.map_or(0, |mark| mark.first_segment);
    let live: Vec<u64> = segments.iter().copied().filter(|number| *number >= first).collect();
    let mut headers = Vec::new();
    for number in &live {
        let path = segment_path(dir, *number);
        // An unreadable header counts as a damaged one: what it held shows as a hole.
        headers.extend(match Header::read(disk, &path, *number) {
            Err(error) if is_damage(&error) => None,
            header => header.context("read", &path)?,
        });
    }
    // A segment that begins before an earlier one did says that the earlier one was behind a torn end, and is to be
    // passed over.
    let firsts: Vec<u64> = headers.iter().map(|header: &Header| header.first_index).collect();
    let mut place = 0;
    headers.retain(|header| {
        place += 1;
        firsts[place..].iter().all(|later| *later >= header.first_index)
    });
    // Without a mark everything that a later segment vouches for must be there.
    let vouched = headers.iter().map(|header| header.first_index - 1).max().unwrap_or(0);
    let mut walk = Walk {
        at: Position { index: 0, chain: FIRST_CHAIN },
        mark: mark.map_or(vouched, |mark| mark.index),
        mark_chain: mark.map(|mark| mark.chain),
        pinned: Pinned::new(),
        records: 0,
        cut_bytes: 0,
        lost: Vec::new(),
        torn: false,
        unsynced: Vec::new(),
        apply,
    };
    // Also where nothing was ever synced: a later segment that is there vouches for what came before it.
    let vouches = headers.first().is_some_and(|header| header.first_index > 1);
    if headers.first().map(|header| header.number) != Some(first) && (walk.mark > 0 || vouches) && mark.is_some() {
        walk.lost.push(format!("journal segment {first}, the first that is still needed, is missing or damaged"));
    }
    for (place, header) in headers.iter().enumerate() {
        // A later header says where this segment ends: what follows there was cut before.
        let stop = headers[place + 1..].iter().map(|later| later.first_index - 1).min().unwrap_or(u64::MAX);
        walk.segment(disk, dir, header, place == 0, stop)?;
    }
    walk.finish();
    let Walk { at: end, pinned, records, cut_bytes, lost, unsynced, .. } = walk;
    Ok(Replayed { end, pinned, records, cut_bytes, lost, segments, unsynced })
}

/// The state of a reading.
struct Walk<'a> {
    /// After the last record applied or given up.
    at: Position,
    /// Up to which index everything was synced.
    mark: u64,
    mark_chain: Option<u64>,
    pinned: Pinned,
    records: u64,
    cut_bytes: u64,
    lost: Vec<String>,
    /// The end has been found: nothing behind it counts.
    torn: bool,
    unsynced: Vec<Stretch>,
    apply: &'a mut dyn FnMut(Row),
}

impl Walk<'_> {
    /// Reads one segment.
    fn segment(&mut self, disk: &dyn Disk, dir: &Path, header: &Header, first: bool, stop: u64) -> Result<(), FileError> {
        let path = segment_path(dir, header.number);
        let file = disk.open(&path).context("open", &path)?;
        let (bytes, unreadable) = read_what_can_be_read(file.as_ref()).context("read", &path)?;
        if unreadable > 0 {
            self.lost.push(format!("journal segment {} has {unreadable} unreadable blocks", header.number));
        }
        if self.torn || !self.enter(header, &bytes, first) {
            self.cut_bytes += trailing(&bytes, 0);
            return Ok(());
        }
        let mut offset = header.records();
        // Of a segment that begins behind the mark, the header is unsynced too.
        let mut unsynced = (header.first_index > self.mark).then_some(0);
        while self.at.index < stop {
            if self.at.index == self.mark {
                unsynced = unsynced.or(Some(offset));
            }
            match self.step(&bytes, offset, header.number) {
                Some(next) => offset = next,
                None => break,
            }
        }
        if let Some(from) = unsynced.filter(|from| *from < offset) {
            self.unsynced.push(Stretch { segment: header.number, from: from as u64, to: offset as u64 });
        }
        if self.torn {
            self.cut_bytes += trailing(&bytes, offset);
        }
        Ok(())
    }

    /// Checks that a segment goes on where the last one ended. Returns whether to read it.
    fn enter(&mut self, header: &Header, bytes: &[u8], first: bool) -> bool {
        let begins = Position { index: header.first_index - 1, chain: header.chain };
        if !first {
            if begins == self.at {
                return true;
            }
            let number = header.number;
            let Position { index, .. } = self.at;
            self.lost.push(format!("the journal breaks off after record {index} and goes on after {} in segment {number}", begins.index));
            if begins.index < self.at.index {
                return false;
            }
        }
        self.at = begins;
        match header.snapshot(bytes) {
            Some(pinned) => self.pinned = pinned,
            None => self.lost.push(format!("the pinned rows at the front of journal segment {} are damaged", header.number)),
        }
        self.check_mark();
        true
    }

    /// Reads the record at an offset. Returns the offset of the next one, `None` where this segment can tell no more.
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
        if index > self.mark {
            self.torn = true;
            return None;
        }
        self.lost.push(format!("record {index} at byte {offset} of journal segment {number} is damaged or missing"));
        // Its head may still be good: then the next record proves itself against the chain that the head names.
        let found = found.filter(|found| found.index == index)?;
        let next = offset + found.bytes.len();
        let proof = record::at(bytes, next)?;
        let proven = proof.intact() && proof.index == index + 1 && proof.chain == record::link(found.chain, index + 1, proof.payload());
        if !proven {
            return None;
        }
        self.at = Position { index, chain: found.chain };
        Some(next)
    }

    /// Applies a row.
    fn row(&mut self, row: Row) {
        match (row.space, row.value) {
            (Space::Pinned, Some(value)) => drop(self.pinned.insert(Key::from_slice(&row.key), value)),
            (Space::Pinned, None) => drop(self.pinned.remove(row.key.as_ref())),
            (space, value) => (self.apply)(Row { space, key: row.key, value }),
        }
    }

    /// At the mark the chain must be the one that was synced.
    fn check_mark(&mut self) {
        if self.at.index == self.mark && self.mark_chain.is_some_and(|chain| chain != self.at.chain) {
            self.lost.push(format!("record {} is not the one that was synced: the journal is another history", self.mark));
            self.mark_chain = None;
        }
    }

    /// A journal that ends before the mark has lost its end.
    fn finish(&mut self) {
        if self.mark > self.at.index {
            let ends = self.at.index;
            self.lost.push(format!("records up to {} were synced, but the journal ends after record {ends}", self.mark));
            self.at.index = self.mark;
        }
    }
}

/// How many bytes from an offset up to the last one that is not zero.
fn trailing(bytes: &[u8], offset: usize) -> u64 {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// The file's bytes, with zeros where the disk cannot read a block, and how many blocks those are.
fn read_what_can_be_read(file: &dyn DiskFile) -> io::Result<(Vec<u8>, usize)> {
    let length = match file.length() {
        Err(error) if is_damage(&error) => return Ok((Vec::new(), 1)),
        length => usize::try_from(length?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?,
    };
    match read_all(file) {
        Err(error) if is_damage(&error) => {}
        read => return read.map(|bytes| (bytes, 0)),
    }
    let (mut bytes, mut unreadable) = (vec![0; length], 0);
    for (place, block) in bytes.chunks_mut(BLOCK).enumerate() {
        match file.read_at(block, (place * BLOCK) as u64) {
            Err(error) if is_damage(&error) => {
                block.fill(0);
                unreadable += 1;
            }
            read => drop(read?),
        }
    }
    Ok((bytes, unreadable))
}
