//! Reads the tree as it was at one sequence number, in bounded steps.
//!
//! A snapshot holds no lock, file or memtable. While one is open, flushes and compactions keep every version of a row
//! ([`Snapshots::gc_seqno`]), and each step reads the tables and memtables of its time with the snapshot's sequence
//! number as the limit. So compactions, and the opening of a repaired tree, do not disturb it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lsm_tree::{AbstractTree, AnyTree, SeqNo, Slice, Table, Tree as LsmTree};

use super::error::{ReadFault, cause};
use super::lost_ranges::LostRanges;
use super::salvage::end_of_block;
use super::{Tree, into_bytes};
use crate::io_cause::IoCause;

/// How often a step is tried when files are replaced under it.
const TRIES: usize = 3;
/// Rows of a table that are read to find the block at which a step has failed.
const PROBED_ROWS: usize = 4096;

/// The open snapshots of a tree.
#[derive(Default)]
pub(super) struct Snapshots(Mutex<OpenSnapshots>);

#[derive(Default)]
struct OpenSnapshots {
    next: u64,
    open: BTreeMap<u64, Arc<AtomicBool>>,
}

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, OpenSnapshots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence number below which a flush or compaction may drop rows that were overwritten. lsm-tree drops the
    /// newest version below this number too, if there is a newer one above it. So no number but 0 is safe for a
    /// snapshot.
    pub(super) fn gc_seqno(&self, visible: SeqNo) -> SeqNo {
        if self.any() { 0 } else { visible }
    }

    /// Whether a snapshot is open.
    pub(super) fn any(&self) -> bool {
        !self.lock().open.is_empty()
    }
}

/// A tree at one sequence number. Dropping it lets overwritten rows be dropped again.
pub(in crate::shard) struct TreeSnapshot {
    seqno: SeqNo,
    number: u64,
    expired: Arc<AtomicBool>,
    snapshots: Arc<Snapshots>,
}

impl TreeSnapshot {
    /// Whether it was given up because the disk is full.
    pub(in crate::shard) fn is_expired(&self) -> bool {
        self.expired.load(Relaxed)
    }
}

impl Drop for TreeSnapshot {
    fn drop(&mut self) {
        self.snapshots.lock().open.remove(&self.number);
    }
}

/// A key range whose rows cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadableRange {
    /// The lower bound.
    pub from: Bound<Bytes>,
    /// The upper bound.
    pub to: Bound<Bytes>,
    /// For rows that are lost for good: the store's count of writes up to which they may have been written. `None` for
    /// rows in a damaged block that maintenance has not looked at yet.
    pub lost_upto: Option<u64>,
}

/// The result of one step.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ScanStep {
    /// The rows, in key order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Key ranges within the step that may have further rows. None of their keys may be taken for absent.
    pub unreadable: Vec<UnreadableRange>,
    /// Where the next step begins; `None` if the scan is complete.
    pub next: Option<Bound<Bytes>>,
}

/// The limits of one step. At least one row is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimit {
    /// Rows that a step reads at most.
    pub rows: usize,
    /// Bytes of keys and values after which a step ends.
    pub bytes: usize,
}

/// The end of a step that a read error has cut short.
struct Interrupted {
    step: ScanStep,
    error: lsm_tree::Error,
}

impl Tree {
    /// Opens a snapshot of everything written so far.
    pub(in crate::shard) fn snapshot(&self) -> TreeSnapshot {
        let mut open = self.snapshots.lock();
        let (number, expired) = (open.next, Arc::new(AtomicBool::new(false)));
        open.next += 1;
        open.open.insert(number, Arc::clone(&expired));
        // Read with the registry locked: a compaction that has asked for its limit before covers older rows only.
        TreeSnapshot { seqno: self.visible.get(), number, expired, snapshots: Arc::clone(&self.snapshots) }
    }

    /// Gives up all snapshots, so that compactions free the room of rows that were overwritten. Returns how many there
    /// were.
    pub(in crate::shard) fn expire_snapshots(&self) -> usize {
        let mut open = self.snapshots.lock();
        open.open.values().for_each(|expired| expired.store(true, Relaxed));
        std::mem::take(&mut open.open).len()
    }

    /// Reads rows of a snapshot from `from` on, up to `to` or a limit.
    pub(in crate::shard) fn step(
        &self,
        snapshot: &TreeSnapshot,
        from: &Bound<Bytes>,
        to: &Bound<Bytes>,
        limit: ScanLimit,
    ) -> Result<ScanStep, ReadFault> {
        let mut tried = 1;
        loop {
            let (tree, lost) = {
                let open = self.shared();
                (open.tree.clone(), Arc::clone(&open.lost))
            };
            let version = tree.current_version().id();
            let Interrupted { step, error } = match read_rows(&tree, &lost, snapshot.seqno, (from, to), limit) {
                Ok(step) => return Ok(step.with_lost(&lost, from, to)),
                Err(interrupted) => *interrupted,
            };
            // The rows in front of the damage are a step of their own.
            if step.next.is_some() {
                return Ok(step.with_lost(&lost, from, to));
            }
            if let Some(damage) = self.damage_after(&tree, from)? {
                let step = damage.rows_in_front(&tree, &lost, snapshot.seqno, (from, to), limit);
                return Ok(step.map_or_else(|| damage.step(from, to), |step| step.with_lost(&lost, from, to)));
            }
            // Every block can be read now: a file was replaced meanwhile, or the read has failed once.
            if tried == TRIES && self.version() == version {
                return Err(error.into());
            }
            tried += 1;
        }
    }

    /// The damaged block at which a scan from this bound fails; of several, the one that ends first. `None` if every
    /// table can be read there.
    fn damage_after(&self, tree: &AnyTree, from: &Bound<Bytes>) -> Result<Option<DamagedBlock>, ReadFault> {
        let (version, mut first) = (tree.current_version(), None::<DamagedBlock>);
        for run in version.iter_levels().flat_map(|level| level.iter()) {
            if let Some(block) = self.damage_in_run(run.iter(), from)?
                && first.as_ref().is_none_or(|first| block.end < first.end)
            {
                first = Some(block);
            }
        }
        Ok(first)
    }

    /// As [`Self::damage_after`], for the tables of one run, which are in key order.
    fn damage_in_run<'a>(
        &self,
        run: impl Iterator<Item = &'a Table>,
        from: &Bound<Bytes>,
    ) -> Result<Option<DamagedBlock>, ReadFault> {
        let (mut readable, mut left) = (None, PROBED_ROWS);
        let bound = from.as_ref().map(|key| Slice::from(&key[..]));
        for table in run {
            for row in table.range((bound.clone(), Bound::Unbounded)).take(left) {
                match row {
                    Ok(row) => readable = Some(Bytes::copy_from_slice(&row.key.user_key)),
                    Err(error) if cause(&error) == IoCause::OutOfResources => return Err(error.into()),
                    Err(_) => {
                        let path = self.path.join("tables").join(table.id().to_string());
                        let begin = readable
                            .as_ref()
                            .map_or_else(|| from.as_ref().map(|key| &key[..]), |key| Bound::Excluded(&key[..]));
                        let last = || Bytes::copy_from_slice(table.metadata.key_range.max());
                        let end = end_of_block(&path, begin).unwrap_or_else(last);
                        return Ok(Some(DamagedBlock { readable, end }));
                    }
                }
                left -= 1;
            }
        }
        Ok(None)
    }
}

/// A damaged block of a table.
struct DamagedBlock {
    /// The last key in front of it that its run has behind the beginning of the step.
    readable: Option<Bytes>,
    /// Its last key.
    end: Bytes,
}

impl DamagedBlock {
    /// A step up to the last readable key in front of the block, if there is one. lsm-tree fails a row early, since it
    /// reads the next block ahead.
    fn rows_in_front(
        &self,
        tree: &AnyTree,
        lost: &LostRanges,
        seqno: SeqNo,
        (from, to): (&Bound<Bytes>, &Bound<Bytes>),
        limit: ScanLimit,
    ) -> Option<ScanStep> {
        let readable = self.readable.clone().filter(|readable| is_before(readable, to))?;
        let mut step = read_rows(tree, lost, seqno, (from, &Bound::Included(readable.clone())), limit).ok()?;
        step.next.get_or_insert(Bound::Excluded(readable));
        Some(step)
    }

    /// The step that passes the block.
    fn step(self, from: &Bound<Bytes>, to: &Bound<Bytes>) -> ScanStep {
        // The smallest key behind the block: a bound that excludes `end` would read the damaged block again.
        let next = Bound::Included([&self.end[..], &[0]].concat().into());
        let complete = !is_before(&self.end, to);
        let last = if complete { to.clone() } else { Bound::Included(self.end) };
        let unreadable = vec![UnreadableRange { from: from.clone(), to: last, lost_upto: None }];
        ScanStep { rows: Vec::new(), unreadable, next: (!complete).then_some(next) }
    }
}

/// Whether there may be keys between a key and an upper bound.
fn is_before(key: &Bytes, to: &Bound<Bytes>) -> bool {
    match to {
        Bound::Included(to) | Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    }
}

fn read_rows(
    tree: &AnyTree,
    lost: &LostRanges,
    seqno: SeqNo,
    (from, to): (&Bound<Bytes>, &Bound<Bytes>),
    limit: ScanLimit,
) -> Result<ScanStep, Box<Interrupted>> {
    let version = tree.get_version_history_lock().latest_version();
    let range = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
    let (mut step, mut bytes) = (ScanStep::default(), 0);
    for row in LsmTree::create_internal_range::<&[u8], _>(version, &range, seqno, None) {
        let row = match row {
            Ok(row) => row,
            Err(error) => return Err(Box::new(Interrupted { step, error })),
        };
        let key = Bytes::copy_from_slice(&row.key.user_key);
        step.next = Some(Bound::Excluded(key.clone()));
        if lost.is_valid(&key, row.key.seqno, seqno) {
            bytes += key.len() + row.value.len();
            step.rows.push((key, into_bytes(row.value)));
        }
        if step.rows.len() >= limit.rows.max(1) || bytes >= limit.bytes {
            return Ok(step);
        }
    }
    step.next = None;
    Ok(step)
}

impl ScanStep {
    /// Adds the lost ranges that the step has passed.
    fn with_lost(mut self, lost: &LostRanges, from: &Bound<Bytes>, to: &Bound<Bytes>) -> Self {
        let end = match &self.next {
            Some(Bound::Excluded(last)) => Bound::Included(last.clone()),
            _ => to.clone(),
        };
        let bounds = (from.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
        for range in lost.ranges().iter().filter(|range| range.meets(bounds.0, bounds.1)) {
            let (from, to) = range.clipped(from, &end);
            self.unreadable.push(UnreadableRange { from, to, lost_upto: Some(range.upto) });
        }
        self
    }
}
