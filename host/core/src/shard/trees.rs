//! Upkeep of the hash trees: leaves that have to be counted anew are read off the shard's turn, one range at a time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rejoin_proto::exchange::Sum;
use rejoin_proto::{BucketId, PartitionId};

use super::Shard;
use super::event::{Effect, ScanTicket, ScannedRows};
use super::turn::Turn;
use crate::exchange::Scanned;
use crate::port::{Change, StoreFault};

/// The rows of void leaves that one change removes, and of new ones that it writes.
const TIDIED_AT_ONCE: usize = 1000;

impl Shard {
    /// The bytes of the objects that this shard has, as far as its hash trees have counted them.
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        self.trees.bytes()
    }

    /// The same for each of its partitions that has some.
    #[must_use]
    pub fn partition_bytes(&self) -> Vec<(PartitionId, u64)> {
        let mut bytes: Vec<(PartitionId, u64)> = Vec::new();
        for (partition, bucket) in self.trees.filled() {
            let of_bucket = self.trees.roots(partition).filter(|(id, _)| *id == bucket);
            let more: u64 = of_bucket.map(|(_, root)| root.sum.bytes).sum();
            match bytes.last_mut().filter(|(last, _)| *last == partition) {
                Some((_, sum)) => *sum += more,
                None => bytes.push((partition, more)),
            }
        }
        bytes
    }

    /// What this shard has of each bucket, as far as its hash trees have counted it.
    #[must_use]
    pub fn usage(&self) -> BTreeMap<BucketId, Sum> {
        self.trees.usage()
    }

    /// Asks for the next scan of a range that has to be counted anew.
    pub(super) fn count_leaves(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_us < self.trees.next_scan_us() {
            return;
        }
        let ticket = self.scan_ticket();
        if let Some(job) = self.trees.next_scan(turn.now.mono_us, ticket) {
            turn.effects.push(Effect::Scan(ticket, job));
        }
    }

    /// Looks whether the store has lost rows since it was last looked at: nobody need have asked for them.
    pub(super) fn notice_losses(&mut self, turn: &mut Turn<'_>) {
        // Rule: losses are noticed.
        if self.trees.lose(turn.store.losses()) {
            self.begin_gaps(turn.now.mono_us);
        }
    }

    /// A ticket for a scan.
    pub(super) fn scan_ticket(&mut self) -> ScanTicket {
        self.next_scan += 1;
        ScanTicket(self.next_scan)
    }

    /// A scan has ended.
    pub(super) fn scanned(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: ScanTicket,
        scanned: Result<ScannedRows, StoreFault>,
    ) {
        if self.trees.asked_for(ticket) {
            self.leaf_scanned(turn, ticket, scanned);
        } else if self.views.waits_for_scan(ticket) {
            self.views_scanned(turn, scanned);
        } else if self.exchanges.serving.contains_key(&ticket) {
            self.serving_scanned(turn, ticket, scanned);
        } else {
            self.walk_scanned(turn, ticket, scanned);
        }
    }

    fn leaf_scanned(&mut self, turn: &mut Turn<'_>, ticket: ScanTicket, scanned: Result<ScannedRows, StoreFault>) {
        let was_discovered = self.trees.is_discovered();
        match self.trees.scanned(turn.now.mono_us, scanned, ticket) {
            Scanned::Next(job) => turn.effects.push(Effect::Scan(ticket, job)),
            Scanned::Ended(recounted) => {
                let mut change = Change::default();
                recounted.stage(&mut change);
                // What a full or busy store does not take is counted again.
                match self.write(turn, change) {
                    Ok(()) => self.trees.recounted(recounted),
                    Err(_) => self.trees.postpone(turn.now.mono_us),
                }
            }
            Scanned::Nothing => {}
        }
        if self.trees.is_discovered() {
            self.tidy_trees(turn);
        }
        if self.trees.is_discovered() && !was_discovered {
            self.hold_all_unowned(turn);
        }
        self.count_leaves(turn);
    }

    /// Writes what remains of a new beginning of the trees. A store that does not take it is asked again with the next
    /// upkeep.
    pub(super) fn tidy_trees(&mut self, turn: &mut Turn<'_>) {
        let mut change = Change::default();
        let tidied = self.trees.tidy(TIDIED_AT_ONCE, &mut change);
        if !change.rows.is_empty() && self.write(turn, change).is_ok() {
            self.trees.tidied(tidied);
        }
    }
}
