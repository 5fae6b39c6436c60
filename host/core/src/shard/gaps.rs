//! What this replica lacks: gaps that begin with a loss, and end when enough others have been met.

use alloc::sync::Arc;
use alloc::vec::Vec;

use rejoin_proto::{NodeId, PartitionId};

use super::Shard;
use super::event::{Alarm, Effect};
use super::turn::Turn;
use crate::layouts::{LayoutSet, Owners};
use crate::port::Change;
use crate::view::Bucket;

impl Shard {
    /// Everything that a peer had in a partition is here. If this replica had lost something there, it may be complete
    /// by that. The end is durable with what was taken, which stands in front of it in the journal.
    pub(super) fn gap_met(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        peer: NodeId,
        complete: bool,
        begun_us: u64,
    ) {
        if !self.gaps.is_complete(partition) {
            let others = self.other_owners(partition);
            if self.gaps.met(partition, peer, complete, begun_us, &others) {
                turn.effects.push(Effect::Alarm(Alarm::Rebuilt { partition }));
            }
        }
        // What is owed goes with the next change, if the store does not take it now.
        if self.gaps.owes() {
            let _ = self.write(turn, Change::default());
        }
    }

    /// Whether this replica has all that it has acknowledged of a partition, and all that it is to take of it.
    pub(super) fn has_all(&self, partition: PartitionId) -> bool {
        self.gaps.is_complete(partition) && !self.gaps.gains.has(partition)
    }

    /// The other owners, in each live layout by itself, of each bucket of which this node is one; and the bucket's W.
    fn other_owners(&self, partition: PartitionId) -> Vec<(Owners, u8)> {
        let others = |bucket: &Arc<Bucket>| {
            let owners = self.view.owners_of(partition, bucket);
            let is_owner = owners.contains(self.config.node);
            let layouts = if is_owner { self.view.layouts().all() } else { LayoutSet::EMPTY };
            let (bucket, node) = (bucket.clone(), self.config.node);
            let w = move |layout| bucket.props.w.of(bucket.live.in_layout(layout).n).max(1);
            layouts
                .each()
                .map(move |layout| (owners.others_in(layout, node), w(layout)))
                .filter(|(others, _)| !others.is_empty())
        };
        self.view.buckets().flat_map(others).collect()
    }

    /// Whether this replica has lost something of which an owner by an older layout may have the only copy: it has not
    /// met that owner since, nor so many complete owners by the newest layout that one of them has every acknowledged
    /// write. Of an owner that is declared dead nothing can be had.
    pub(super) fn lacks_what_older_owners_have(&self) -> bool {
        let node = self.config.node;
        let lacks = |partition: PartitionId, bucket: &Arc<Bucket>| {
            let owners = self.view.owners_of(partition, bucket);
            let newest = owners.others_in(LayoutSet::NEWEST, node);
            let w = bucket.props.w.of(bucket.live.in_layout(LayoutSet::NEWEST).n).max(1);
            let is_older = |owner: NodeId| owner != node && !owners.owns_in(owner, LayoutSet::NEWEST);
            let mut older = owners.iter().filter(|owner| is_older(*owner) && !self.view.is_dead(*owner));
            owners.owns_in(node, LayoutSet::NEWEST)
                && older.any(|owner| !self.gaps.has_met(partition, owner))
                && !self.gaps.has_met_quorum(partition, &newest, w)
        };
        self.view.layouts().count() > 1
            && self.gaps.partitions().any(|partition| self.view.buckets().any(|bucket| lacks(partition, bucket)))
    }

    /// This replica may lack writes of a partition. Where there is no other owner nobody could bring them.
    pub(super) fn begin_gap(&mut self, partition: PartitionId, now_us: u64) {
        let widest = self.view.most_copies().unwrap_or(u8::MAX);
        let owners = self.view.owners(partition, widest);
        if owners.contains(self.config.node) && owners.len() > 1 {
            self.gaps.begin(partition, now_us);
            self.gaps.gains.lose(partition, self.exchanges.next_walk);
            self.exchange_soon();
        }
    }

    /// Closes gaps in partitions that this node does not own along with another one. A node that serves knows all
    /// buckets; before that it may not know with whom it owns what.
    pub(super) fn close_lonely_gaps(&mut self) {
        let alone = |partition: &PartitionId| self.other_owners(*partition).is_empty();
        let lonely: Vec<PartitionId> = self.gaps.partitions().filter(alone).collect();
        if self.serving {
            lonely.into_iter().for_each(|partition| self.gaps.close_lonely(partition));
        }
    }

    /// This replica may lack writes of all its partitions.
    pub(super) fn begin_gaps(&mut self, now_us: u64) {
        let partitions: Vec<PartitionId> = self.own_partitions().collect();
        partitions.into_iter().for_each(|partition| self.begin_gap(partition, now_us));
    }
}
