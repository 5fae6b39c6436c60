//! When the room of removed rows is freed.
//!
//! A node that hands over a part of the ring removes what it had there. Each removal is a row too, and the room of both
//! is free once a compaction brings them to the last level of the tree. On a node that is written no more that would
//! never come. So once many rows were removed, and for a while no further ones, maintenance asks for the memtable to be
//! sealed, flushes it, and compacts until the tombstones are gone. Between two such compactions there is a pause three
//! times as long as the one before, so that they take no more than a quarter of a disk's time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::signal::lock;
use super::tree::RemovedRows;

/// The time without a removal after which the memtable is sealed for it.
const QUIET: Duration = Duration::from_secs(3);
/// The pause after a compaction, as a multiple of the time that it took.
const PAUSE: u32 = 3;
/// The share of rows that must be removed, as one in so many.
const SHARE: u64 = 16;

/// The removals of a shard.
#[derive(Default)]
pub(super) struct Reclaim {
    /// Removed object rows that are in no table yet.
    unflushed: AtomicU64,
    /// The shard is asked to seal its memtable.
    seal: AtomicBool,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    /// The count of removals that was last seen, and since when it has been the same.
    seen: Option<(u64, Instant)>,
    /// The end of the pause.
    until: Option<Instant>,
}

impl Reclaim {
    pub(super) fn new(unflushed: u64) -> Self {
        Self { unflushed: AtomicU64::new(unflushed), ..Self::default() }
    }

    /// Counts a removal. Returns the number of those that are in no table.
    pub(super) fn removed(&self) -> u64 {
        self.unflushed.fetch_add(1, Relaxed) + 1
    }

    /// Whether the shard is asked to seal its memtable.
    pub(super) fn wants_seal(&self) -> bool {
        self.seal.load(Relaxed)
    }

    /// The memtable was sealed.
    pub(super) fn sealed(&self) {
        self.unflushed.store(0, Relaxed);
        self.seal.store(false, Relaxed);
    }

    /// Whether so many rows were removed, of those in tables and in the memtable, that their room is to be freed.
    /// `least` is the number below which it is not worth it.
    pub(super) fn is_worth_it(&self, tables: RemovedRows, least: u64) -> bool {
        let removed = tables.removed + self.unflushed.load(Relaxed);
        removed >= least.max(1) && removed >= tables.rows / SHARE
    }

    /// Asks the shard to seal its memtable, if there are at least so many removals in it and the last one was a while
    /// ago, or at once if it is not `patient`.
    pub(super) fn consider_seal(&self, least: u64, patient: bool) {
        let unflushed = self.unflushed.load(Relaxed);
        let now = Instant::now();
        let mut pace = lock(&self.pace);
        let since = match pace.seen {
            Some((seen, since)) if seen == unflushed => since,
            _ => now,
        };
        pace.seen = Some((unflushed, since));
        if unflushed >= least.max(1) && (!patient || now.duration_since(since) >= QUIET) {
            self.seal.store(true, Relaxed);
        }
    }

    /// Whether the pause since the last compaction is over.
    pub(super) fn may_compact(&self) -> bool {
        lock(&self.pace).until.is_none_or(|until| until <= Instant::now())
    }

    /// Notes a compaction that has taken so long.
    pub(super) fn compacted(&self, took: Duration) {
        lock(&self.pace).until = Some(Instant::now() + took * PAUSE);
    }

    /// The time until there may be something to do, if that is known.
    pub(super) fn due_in(&self, least: u64) -> Option<Duration> {
        let now = Instant::now();
        let pace = lock(&self.pace);
        let pause = pace.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let waits = self.unflushed.load(Relaxed) >= least.max(1) && !self.wants_seal();
        let quiet = pace.seen.filter(|_| waits).map(|(_, since)| QUIET.saturating_sub(now.duration_since(since)));
        pause.into_iter().chain(quiet).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_removals_and_those_of_a_small_share_are_not_worth_it() {
        let reclaim = Reclaim::new(0);
        let tables = |removed, rows| RemovedRows { removed, rows };
        assert!(!reclaim.is_worth_it(tables(0, 0), 0), "none");
        assert!(!reclaim.is_worth_it(tables(99, 99), 100), "few");
        assert!(reclaim.is_worth_it(tables(100, 1_600), 100) && !reclaim.is_worth_it(tables(100, 1_616), 100));
        for _ in 0..50 {
            reclaim.removed();
        }
        assert!(reclaim.is_worth_it(tables(50, 1_600), 100), "those of the memtable count too");
    }

    #[test]
    fn a_seal_waits_until_removals_have_ended() {
        let reclaim = Reclaim::new(9);
        reclaim.consider_seal(10, true);
        assert!(reclaim.due_in(10).is_none(), "too few");
        reclaim.removed();
        reclaim.consider_seal(10, true);
        assert!(!reclaim.wants_seal() && reclaim.due_in(10).is_some_and(|left| left <= QUIET));
        reclaim.consider_seal(10, false);
        assert!(reclaim.wants_seal());
        reclaim.sealed();
        reclaim.consider_seal(10, false);
        assert!(!reclaim.wants_seal(), "they are in the table now");
    }

    #[test]
    fn a_compaction_is_followed_by_a_pause() {
        let reclaim = Reclaim::new(0);
        assert!(reclaim.may_compact());
        reclaim.compacted(Duration::from_secs(60));
        assert!(!reclaim.may_compact() && reclaim.due_in(1).is_some_and(|left| left > Duration::from_secs(170)));
    }
}
