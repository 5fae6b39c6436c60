//! The state that the shard, its syncer, its maintenance and its snapshots share.
//!
//! Lock order: `running`, then `durable`, then `unsynced` or `gate`. The tree's own lock is taken last.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use rejoin_core::port::StoreFault;

use super::durable::DurableState;
use super::failures::{BackgroundFailures, DamageReports, ReadPosition};
use super::files::{ShardPaths, write_lost_ranges, write_table_list};
use super::options::Options;
use super::reclaim::Reclaim;
use super::reseal::{SealedRows, Sealing};
use super::signal::{Poison, WorkSignal, lock};
use super::stats::{Counters, Stats};
use super::tree::{LostRanges, ReadFault, Tree};
use crate::disk::{Disk, DiskFile};
use crate::error::FileError;
use crate::journal::Position;

/// Lost ranges that [`Shared::problems`] lists one by one.
const SHOWN_RANGES: usize = 5;

/// Shared by all handles of a shard's store. The lock on the directory ends with the last of them.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) paths: ShardPaths,
    pub(super) options: Options,
    pub(super) tree: Tree,
    pub(super) poison: Poison,
    pub(super) unsynced: Mutex<Unsynced>,
    /// Held during a sync: syncs queue here, and each covers all commits before it.
    pub(super) durable: Mutex<DurableState>,
    pub(super) gate: Mutex<FlushGate>,
    /// Held during a maintenance run.
    pub(super) running: Mutex<()>,
    /// Writes are refused for want of room.
    pub(super) full: AtomicBool,
    /// The start had no room for a journal segment, and there still is none.
    pub(super) read_only: AtomicBool,
    pub(super) damage_reports: Mutex<DamageReports>,
    pub(super) failures: Mutex<BackgroundFailures>,
    pub(super) signal: WorkSignal,
    pub(super) reclaim: Reclaim,
    /// `None`: the shard has no keys, and its rows are in the clear.
    pub(super) sealing: Option<Arc<Sealing>>,
    pub(super) counters: Counters,
    /// The durable index that the last idle turn of maintenance has seen.
    pub(super) idle_at: AtomicU64,
    /// Closed when a sync needs a descriptor and there is none.
    pub(super) spare: Mutex<Option<File>>,
    pub(super) _lock: File,
}

/// The written part of the journal that is not synced.
pub(super) struct Unsynced {
    /// The end of the journal.
    pub(super) committed: Position,
    /// The files with unsynced bytes. The last is the open segment.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// The number of the open segment.
    pub(super) segment: u64,
    /// Whether the journal's directory has a new entry.
    pub(super) names: bool,
}

/// Keeps sealing a memtable and flushing apart: a flush takes every sealed memtable, so only those may be sealed whose
/// records were synced before it began.
#[derive(Default)]
pub(super) struct FlushGate {
    pub(super) flushing: bool,
    /// For a sealed memtable: the first segment that is needed once it is flushed.
    pub(super) sealed: Option<u64>,
}

/// The parts of an opened shard.
pub(super) struct OpenedShard {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) paths: ShardPaths,
    pub(super) options: Options,
    pub(super) lock: File,
    pub(super) tree: Tree,
    pub(super) sealing: Option<Arc<Sealing>>,
    pub(super) unsynced: Unsynced,
    pub(super) durable: DurableState,
    pub(super) read_only: bool,
    /// Removed object rows that were replayed and not flushed.
    pub(super) removed: u64,
}

impl Shared {
    pub(super) fn new(opened: OpenedShard) -> Arc<Self> {
        let OpenedShard { disk, paths, options, lock, tree, sealing, unsynced, durable, .. } = opened;
        let (read_only, removed) = (opened.read_only, opened.removed);
        let counters = Counters::default();
        counters.first_segment.store(durable.first_segment, Relaxed);
        counters.last_segment.store(unsynced.segment, Relaxed);
        counters.l0_runs.store(tree.l0_runs(), Relaxed);
        counters.lost_ranges.store(tree.lost().ranges().len() as u64, Relaxed);
        if read_only {
            let dir = paths.dir.display();
            tracing::error!(%dir, "the disk is full: the store is open to be read, writes are refused until there is \
                room");
        }
        let shared = Self {
            signal: WorkSignal::new(options.on_work.clone()),
            unsynced: Mutex::new(unsynced),
            durable: Mutex::new(durable),
            gate: Mutex::default(),
            running: Mutex::new(()),
            full: AtomicBool::new(read_only),
            read_only: AtomicBool::new(read_only),
            damage_reports: Mutex::default(),
            failures: Mutex::default(),
            reclaim: Reclaim::new(removed),
            sealing,
            poison: Poison::default(),
            disk,
            paths,
            options,
            tree,
            counters,
            idle_at: AtomicU64::new(u64::MAX),
            spare: Mutex::new(spare_descriptor()),
            _lock: lock,
        };
        // Maintenance looks at the free space and at what the tree has left to compact.
        shared.signal.work_is_due();
        Arc::new(shared)
    }

    pub(super) fn stats(&self) -> Stats {
        self.counters.read(self.full.load(Relaxed), self.read_only.load(Relaxed))
    }

    /// Turns a read fault of the tree into the port's, and reports new damage to maintenance.
    pub(super) fn read_fault(&self, fault: ReadFault, position: ReadPosition<'_>) -> StoreFault {
        match fault {
            ReadFault::Lost { upto, what } => StoreFault::Lost { upto, what },
            ReadFault::Unreadable(why) => {
                self.report_damage(position);
                StoreFault::Damaged(format!("the tree cannot be read: {why}"))
            }
            ReadFault::OutOfResources(why) => {
                if self.counters.short.fetch_add(1, Relaxed).is_power_of_two() {
                    let dir = self.paths.dir.display();
                    tracing::error!(%dir, why, "a read was refused: the system is out of descriptors or memory");
                }
                StoreFault::Busy
            }
        }
    }

    /// Has maintenance verify the tables at a position.
    pub(super) fn report_damage(&self, position: ReadPosition<'_>) {
        lock(&self.damage_reports).add(position);
        self.signal.work_is_due();
    }

    pub(super) fn write_lost_ranges(&self, lost: &LostRanges) -> Result<(), FileError> {
        write_lost_ranges(self.disk.as_ref(), &self.paths, lost)
    }

    pub(super) fn write_table_list(&self) {
        write_table_list(self.disk.as_ref(), &self.paths, &self.tree);
    }

    /// The present problems of this store, for people, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (dir, floor) = (self.paths.dir.display(), self.options.free_space_floor);
        if self.full.load(Relaxed) || self.read_only.load(Relaxed) {
            let free = self
                .disk
                .free_space(&self.paths.dir)
                .map_or_else(|error| error.to_string(), |free| format!("{free} bytes"));
            let begun = if self.read_only.load(Relaxed) { ", and there was no room to start with" } else { "" };
            problems.push(format!(
                "the disk of {dir} is full ({free} free, {floor} are kept free{begun}): writes are refused until there \
                    is room, reads go on"
            ));
        }
        problems.extend(lock(&self.failures).lines().map(|line| format!("{dir}: {line}")));
        let lost = self.tree.lost();
        problems.extend(
            lost.ranges()
                .iter()
                .take(SHOWN_RANGES)
                .map(|range| format!("{dir}: lost with a damaged table are the {range}")),
        );
        if let Some(more) = lost.ranges().len().checked_sub(SHOWN_RANGES).filter(|more| *more > 0) {
            problems.push(format!("{dir}: {more} further ranges of keys are lost"));
        }
        problems
    }

    /// Whether the shard is asked to seal its memtable whatever its size.
    pub(super) fn wants_seal(&self) -> bool {
        self.reclaim.wants_seal() || self.sealing.as_ref().is_some_and(|sealing| sealing.wants_seal())
    }

    /// The object in a row that was read.
    pub(super) fn unseal(&self, key: &[u8], row: Bytes) -> Result<Bytes, StoreFault> {
        match &self.sealing {
            None => Ok(row),
            Some(sealing) => sealing.unseal(key, row),
        }
    }

    /// How far rows are sealed with the key in use; `None` without keys.
    pub(super) fn sealed_rows(&self) -> Option<SealedRows> {
        self.sealing.as_ref().map(|sealing| sealing.progress(&self.tree.table_files()))
    }

    /// The number of live segments, if `last` is the open one.
    pub(super) fn live_segments(&self, last: u64) -> u64 {
        (last + 1).saturating_sub(self.counters.first_segment.load(Relaxed))
    }

    /// Refuses writes until maintenance finds room.
    pub(super) fn set_full(&self) {
        if !self.full.swap(true, Relaxed) {
            let dir = self.paths.dir.display();
            tracing::error!(%dir, "the disk is full: writes are refused until there is room, reads go on");
            self.signal.work_is_due();
        }
    }
}

/// A descriptor that a sync can close when the system has none left.
pub(super) fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}
