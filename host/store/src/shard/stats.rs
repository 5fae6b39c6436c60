//! Counters for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of a shard's store since it was opened, and its present sizes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Batches written to the journal.
    pub commits: u64,
    /// Syncs of journal and mark.
    pub syncs: u64,
    /// Microseconds spent in syncs.
    pub sync_micros: u64,
    /// Live journal segments.
    pub segments: u64,
    /// Bytes in the active memtable, as of the last commit.
    pub memtable_bytes: u64,
    /// Runs in the tree's first level, as of the last maintenance.
    pub l0_runs: u64,
    /// Flushes of sealed memtables.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Of these, compactions that have freed the room of removed rows.
    pub reclaims: u64,
    /// Writes answered busy.
    pub busy: u64,
    /// Whether writes are refused for want of room.
    pub full: bool,
    /// Whether the store was opened without room for a journal segment and there still is none.
    pub read_only: bool,
    /// Key ranges that were lost with damaged tables. Their keys read as lost until they are written anew.
    pub lost_ranges: u64,
    /// Flushes and compactions that failed.
    pub failures: u64,
    /// Reads and writes that were refused, and new segments that were delayed, for want of descriptors or memory.
    pub short: u64,
}

/// The counters behind [`Stats`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) journal_bytes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_micros: AtomicU64,
    pub(super) first_segment: AtomicU64,
    pub(super) last_segment: AtomicU64,
    pub(super) memtable_bytes: AtomicU64,
    pub(super) l0_runs: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) reclaims: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) lost_ranges: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) short: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, full: bool, read_only: bool) -> Stats {
        let first = self.first_segment.load(Relaxed);
        Stats {
            journal_bytes: self.journal_bytes.load(Relaxed),
            commits: self.commits.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            sync_micros: self.sync_micros.load(Relaxed),
            segments: (self.last_segment.load(Relaxed) + 1).saturating_sub(first),
            memtable_bytes: self.memtable_bytes.load(Relaxed),
            l0_runs: self.l0_runs.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            compactions: self.compactions.load(Relaxed),
            reclaims: self.reclaims.load(Relaxed),
            busy: self.busy.load(Relaxed),
            full,
            read_only,
            lost_ranges: self.lost_ranges.load(Relaxed),
            failures: self.failures.load(Relaxed),
            short: self.short.load(Relaxed),
        }
    }
}
