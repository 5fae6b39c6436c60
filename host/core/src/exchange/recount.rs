//! Counts leaves anew by reading their ranges off the shard's turn: leaves that are unknown, those that have become too
//! large, and after a loss of tree rows all that there are.
//!
//! A scan is older than the store is by the time its rows arrive. So every row of the range that is written from the
//! request on is *noted*, and counts in the place of the scanned one. One range is read at a time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{HashRange, MAX_DEPTH, Sum, partition_of, place_of};
use rejoin_proto::{BucketId, PartitionId};

use super::trees::{Leaf, MAX_LEAF_BYTES, MAX_LEAF_OBJECTS, Noted, Place, Standing, Trees, row_key, row_of, sum_of};
use crate::port::{Change, Space, StoreFault};
use crate::shard::event::{ScanJob, ScanTicket, ScannedRows};

/// The most rows and bytes of one scan.
const SCAN_ROWS: usize = 512;
const SCAN_BYTES: usize = 256 << 10;
/// An unknown range with more rows is divided, and each part read by itself.
const MAX_ROWS: usize = 4096;
/// The most rows that are noted during one recount. With more it begins again later.
const MAX_NOTED: usize = 4096;
/// The pause after a recount that could not be ended, in microseconds.
const PAUSE_US: u64 = 200_000;
/// The pause before leaves in whose range some rows could not be read are recounted again, in microseconds. Such rows
/// may be readable by then, and no write says so.
const PARTIAL_PAUSE_US: u64 = 10_000_000;

/// The recounts of one shard's trees.
#[derive(Debug, Default)]
pub(super) struct Recounts {
    wanted: BTreeSet<Place>,
    /// Partial leaves, which are recounted again when `partial_at_us` has come.
    partial: BTreeSet<Place>,
    partial_at_us: u64,
    running: Option<Running>,
    /// Where the search for objects that no leaf counts goes on.
    search_from: Bytes,
    not_before_us: u64,
    /// Leaves whose sum was not what a recount found.
    pub(super) corrected: u64,
}

/// A scan under way.
#[derive(Debug)]
struct Running {
    ticket: ScanTicket,
    /// Whether its rows still count for something.
    void: bool,
    task: Task,
}

#[derive(Debug)]
enum Task {
    /// Looks for the next object, in the partition and bucket of which there is a leaf to be made.
    Search,
    Recount(Recount),
}

#[derive(Debug)]
struct Recount {
    range: HashRange,
    /// The sum of each row that was read.
    rows: BTreeMap<Bytes, Sum>,
    /// The same of rows that were written meanwhile; `None` for those that were removed.
    noted: BTreeMap<Bytes, Option<Sum>>,
    /// Whether rows of the range could not be read.
    partial: bool,
}

impl Recounts {
    /// Whether the range of a leaf is being read.
    pub(super) fn reads(&self, place: Place) -> bool {
        self.recount().is_some_and(|recount| (recount.range.bucket, recount.range.start) == place)
    }

    /// Whether a leaf is to be recounted.
    pub(super) fn has(&self, place: Place) -> bool {
        self.wanted.contains(&place) || self.reads(place)
    }

    /// A row of a range that is being read is written.
    pub(super) fn note(&mut self, noted: Noted) {
        let Some(running) = self.running.as_mut().filter(|running| !running.void) else { return };
        let Task::Recount(recount) = &mut running.task else { return };
        if (recount.range.bucket, recount.range.start) == noted.place {
            // Rule: recounts know of newer rows.
            recount.noted.insert(noted.store_key, noted.row);
            running.void = recount.noted.len() > MAX_NOTED;
        }
    }

    /// A leaf has changed: it may have to be recounted. The ring has 2^`bits` partitions.
    pub(super) fn consider(&mut self, place: Place, leaf: &Leaf, bits: u8) {
        let large = leaf.sum.count > MAX_LEAF_OBJECTS || leaf.sum.bytes > MAX_LEAF_BYTES && leaf.sum.count > 1;
        let divides = large && leaf.standing == Standing::Known && leaf.depth < MAX_DEPTH;
        // Rule: leaves are of one partition.
        let is_wanted = divides || leaf.standing == Standing::Unknown || leaf.depth < bits;
        // Rule: partial leaves are recounted again.
        let is_partial = leaf.standing == Standing::Partial;
        for (places, has) in [(&mut self.wanted, is_wanted), (&mut self.partial, is_partial && !is_wanted)] {
            match has {
                true => drop(places.insert(place)),
                false => drop(places.remove(&place)),
            }
        }
        if self.reads(place) && self.recount().is_some_and(|recount| recount.range.depth != leaf.depth) {
            self.restart(place);
        }
    }

    /// A leaf is gone.
    pub(super) fn forget(&mut self, place: Place) {
        self.wanted.remove(&place);
        self.partial.remove(&place);
        self.restart(place);
    }

    /// What was read of a leaf's range does not count.
    pub(super) fn restart(&mut self, place: Place) {
        if self.reads(place)
            && let Some(running) = &mut self.running
        {
            running.void = true;
        }
    }

    fn recount(&self) -> Option<&Recount> {
        match &self.running {
            Some(Running { task: Task::Recount(recount), void: false, .. }) => Some(recount),
            _ => None,
        }
    }
}

impl Trees {
    /// When a scan is to be asked for, in microseconds.
    pub(crate) fn next_scan_us(&self) -> u64 {
        let Recounts { wanted, partial, partial_at_us, running, not_before_us, .. } = &self.recounts;
        let has_work = !wanted.is_empty() || !self.is_discovered();
        match (running.is_some(), has_work, partial.is_empty()) {
            (true, ..) | (false, false, true) => u64::MAX,
            (false, true, _) => *not_before_us,
            (false, false, false) => *partial_at_us.max(not_before_us),
        }
    }

    /// The next scan, if one is due.
    pub(crate) fn next_scan(&mut self, now_us: u64, ticket: ScanTicket) -> Option<ScanJob> {
        if now_us < self.next_scan_us() {
            return None;
        }
        let (task, job) = if !self.is_discovered() {
            let job = ScanJob { from: self.recounts.search_from.clone(), to: None, max_rows: 1, max_bytes: 1 };
            (Task::Search, job)
        } else {
            if self.recounts.wanted.is_empty() {
                self.recounts.wanted = core::mem::take(&mut self.recounts.partial);
            }
            let &place = self.recounts.wanted.first()?;
            let Some(leaf) = self.leaves.get(&place) else {
                self.recounts.wanted.remove(&place);
                return None;
            };
            let range = HashRange { bucket: place.0, start: place.1, depth: leaf.depth };
            let recount = Recount { range, rows: BTreeMap::new(), noted: BTreeMap::new(), partial: false };
            (Task::Recount(recount), scan_from(range.from(), &range))
        };
        self.recounts.running = Some(Running { ticket, void: false, task });
        Some(job)
    }

    /// Whether a scan is one of these.
    pub(crate) fn asked_for(&self, ticket: ScanTicket) -> bool {
        self.recounts.running.as_ref().is_some_and(|running| running.ticket == ticket)
    }

    /// A scan has ended. Returns the next one of the same recount, or what the recount has come to, which is to be
    /// written and then [taken over](Self::recounted).
    pub(crate) fn scanned(
        &mut self,
        now_us: u64,
        scanned: Result<ScannedRows, StoreFault>,
        ticket: ScanTicket,
    ) -> Scanned {
        let Some(running) = self.recounts.running.take() else { return Scanned::Nothing };
        let (Ok(found), false) = (scanned, running.void) else {
            self.recounts.not_before_us = now_us + PAUSE_US;
            return Scanned::Nothing;
        };
        match running.task {
            Task::Search => {
                self.found(found);
                Scanned::Nothing
            }
            Task::Recount(mut recount) => {
                recount.partial |= found.damaged;
                for (key, row) in found.rows {
                    let sum = sum_of(&self.key, &key, &row);
                    recount.rows.insert(key, sum);
                }
                match found.next {
                    Some(next) if recount.rows.len() <= MAX_ROWS || !recount.divides() => {
                        let job = scan_from(next, &recount.range);
                        let task = Task::Recount(recount);
                        self.recounts.running = Some(Running { ticket, void: false, task });
                        Scanned::Next(job)
                    }
                    next => {
                        if recount.partial {
                            self.recounts.partial_at_us = now_us + PARTIAL_PAUSE_US;
                        }
                        let leaves = recount.leaves(next.is_some(), self.bits);
                        Scanned::Ended(Recounted { leaves, range: recount.range })
                    }
                }
            }
        }
    }

    /// Goes on with the search for objects that no leaf counts.
    fn found(&mut self, found: ScannedRows) {
        // Rule: what cannot be read has a leaf.
        if found.damaged {
            found.unreadable.iter().for_each(|(from, to)| self.found_unreadable(from, to.as_ref()));
        }
        let object = found.rows.first().and_then(|(key, _)| place_of(key));
        let next = match object {
            Some((bucket, prefix)) => {
                let range = HashRange::around(bucket, prefix, self.bits);
                if self.leaves_in(&range).next().is_none() {
                    self.set((bucket, range.start), Some(Leaf { stored: false, ..Leaf::unknown(self.bits) }));
                }
                range.to()
            }
            None => found.next,
        };
        self.undiscovered = next.as_ref().map(|next| place_of(next).unwrap_or((BucketId(0), 0)));
        self.recounts.search_from = next.unwrap_or_default();
    }

    /// What cannot be read now may be read again, and nobody would look for it where no leaf is. So the partitions of
    /// such a range have leaves too, which are unknown until they are recounted. Of buckets between those of its ends
    /// nothing is known.
    fn found_unreadable(&mut self, from: &[u8], to: Option<&Bytes>) {
        match (place_of(from), to.and_then(|to| place_of(to))) {
            (Some((bucket, first)), Some((end, last))) if bucket == end => self.suppose(bucket, first, last),
            (first, last) => {
                first.into_iter().for_each(|(bucket, first)| self.suppose(bucket, first, u64::MAX));
                last.into_iter().for_each(|(bucket, last)| self.suppose(bucket, 0, last));
            }
        }
    }

    /// Makes leaves for the partitions from one prefix to another that have none.
    fn suppose(&mut self, bucket: BucketId, first: u64, last: u64) {
        for partition in partition_of(first, self.bits).0..=partition_of(last, self.bits).0 {
            let range = HashRange::of_partition(bucket, PartitionId(partition), self.bits);
            if self.leaves_in(&range).next().is_none() {
                self.set((bucket, range.start), Some(Leaf { stored: false, ..Leaf::unknown(self.bits) }));
            }
        }
    }

    /// The rows of a recount are written.
    pub(crate) fn recounted(&mut self, recounted: Recounted) {
        let old = self.leaves.get(&(recounted.range.bucket, recounted.range.start)).copied();
        let found = recounted.leaves.iter().filter_map(|(_, leaf)| *leaf);
        let sure = found.clone().all(|leaf| leaf.standing == Standing::Known);
        let sum = found.fold(Sum::default(), |sum, leaf| sum.plus(leaf.sum));
        if old.is_some_and(|old| old.standing == Standing::Known && sure && !old.sum.is_same(&sum)) {
            self.recounts.corrected += 1;
        }
        recounted.leaves.into_iter().for_each(|(place, leaf)| self.set(place, leaf));
    }

    /// A recount could not be written: it is begun again later.
    pub(crate) fn postpone(&mut self, now_us: u64) {
        self.recounts.not_before_us = now_us + PAUSE_US;
    }

    /// Leaves whose sum was not what a recount found, since the start. There should be none.
    pub(crate) fn corrected(&self) -> u64 {
        self.recounts.corrected
    }
}

/// What follows from a scan.
pub(crate) enum Scanned {
    Nothing,
    /// The range goes on.
    Next(ScanJob),
    Ended(Recounted),
}

/// The leaves that a recount has come to.
#[derive(Debug)]
pub(crate) struct Recounted {
    range: HashRange,
    leaves: Vec<(Place, Option<Leaf>)>,
}

impl Recounted {
    /// Adds the rows of the leaves to a change.
    pub(crate) fn stage(&self, change: &mut Change) {
        for (place, leaf) in &self.leaves {
            match leaf {
                Some(leaf) => change.put(Space::Trees, row_key(*place), row_of(leaf)),
                None => change.remove(Space::Trees, row_key(*place)),
            };
        }
    }
}

impl Recount {
    fn divides(&self) -> bool {
        self.range.depth < MAX_DEPTH
    }

    /// The leaves of the range: of what was read, and what was written meanwhile. If there is `more`, each of its parts
    /// is unknown.
    fn leaves(&self, more: bool, bits: u8) -> Vec<(Place, Option<Leaf>)> {
        let place = (self.range.bucket, self.range.start);
        let mut leaves = Vec::new();
        if more {
            let unknown = |part: HashRange| (place_at(&part), Some(Leaf::unknown(part.depth)));
            return parts(self.range, bits).map(unknown).collect();
        }
        let read = self.rows.iter().filter(|(key, _)| !self.noted.contains_key(*key));
        let read = read.map(|(key, row)| (key, *row));
        let written = self.noted.iter().filter_map(|(key, row)| Some((key, (*row)?)));
        let mut rows: Vec<(u64, Sum)> =
            read.chain(written).filter_map(|(key, row)| Some((place_of(key)?.1, row))).collect();
        rows.sort_unstable_by_key(|(prefix, _)| *prefix);
        let standing = if self.partial { Standing::Partial } else { Standing::Known };
        divided(self.range, bits, (&rows, standing), &mut leaves);
        if leaves.first().is_none_or(|(first, _)| *first != place) {
            leaves.insert(0, (place, None));
        }
        leaves
    }
}

/// The parts of a range; those that are partitions, if it reaches over several.
fn parts(range: HashRange, bits: u8) -> impl Iterator<Item = HashRange> {
    let whole = range.partition(bits).is_some();
    let partition = move |at: u16| HashRange::of_partition(range.bucket, PartitionId(at), bits);
    let first = partition_of(range.start, bits).0;
    let partitions = (first..=partition_of(range.last(), bits).0).filter(move |_| !whole).map(partition);
    partitions.chain((0..range.parts()).filter(move |_| whole).map(move |at| range.part(at)))
}

/// The leaves of the rows of a range, which are sorted.
fn divided(
    range: HashRange,
    bits: u8,
    (rows, standing): (&[(u64, Sum)], Standing),
    leaves: &mut Vec<(Place, Option<Leaf>)>,
) {
    let sum = rows.iter().fold(Sum::default(), |sum, (_, row)| sum.plus(*row));
    // A partial range stays, however empty: what could not be read may be read again.
    if sum.count == 0 && standing == Standing::Known {
        return;
    }
    let fits = sum.count <= MAX_LEAF_OBJECTS && (sum.bytes <= MAX_LEAF_BYTES || sum.count == 1);
    let is_undivided = sum.count == 0 || fits || range.depth >= MAX_DEPTH;
    if is_undivided && range.partition(bits).is_some() {
        leaves.push((place_at(&range), Some(Leaf { depth: range.depth, standing, stored: true, sum })));
        return;
    }
    let mut rest = rows;
    for part in parts(range, bits) {
        let (mine, others) = rest.split_at(rest.partition_point(|(prefix, _)| *prefix <= part.last()));
        divided(part, bits, (mine, standing), leaves);
        rest = others;
    }
}

fn place_at(range: &HashRange) -> (BucketId, u64) {
    (range.bucket, range.start)
}

fn scan_from(from: Bytes, range: &HashRange) -> ScanJob {
    ScanJob { from, to: range.to(), max_rows: SCAN_ROWS, max_bytes: SCAN_BYTES }
}
