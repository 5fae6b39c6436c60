//! Objects that change owners: in a new layout, which may also have fewer copies of their bucket.
//!
//! The node that has them and does not own them any more *holds* them from then on. So reads that find nothing
//! elsewhere ask it, and the walk of [`drain`](super::drain) hands them over to the owners. The hash trees say where
//! there are objects, without a look at the store.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rejoin_proto::{BucketId, PartitionId};

use super::holdings::put_row;
use crate::port::Change;
use crate::shard::Shard;
use crate::shard::turn::Turn;
use crate::view::{Bucket, ClusterView};

/// What a bucket has in a partition.
type Part = (PartitionId, BucketId);

impl Shard {
    /// Layout or catalog have changed. This node holds what it owned until now, and others do from now on.
    pub(in crate::shard) fn take_view(&mut self, turn: &mut Turn<'_>, view: Arc<ClusterView>) {
        let is_learnt = |bucket: &Bucket| self.view.bucket(bucket.id).is_none();
        let had = |bucket: &Bucket| self.gaps.may_have_lost(bucket.created, self.config.max_skew_ms);
        let learns = view.buckets().any(|bucket| is_learnt(bucket) && (self.gaps.is_rebuilding() || had(bucket)));
        let old = core::mem::replace(&mut self.view, view);
        let is_split = self.view.partitions() > old.partitions();
        let old = if is_split { Arc::new(old.divided(self.view.partitions())) } else { old };
        self.split(turn);
        if learns {
            // Rule: learnt buckets begin gaps. The old data directory had their objects, and its catalog is lost too.
            // Also after the rebuild, which did not wait for their owners.
            self.begin_gaps(turn.now.mono_us);
        }
        let mut parts: Vec<Part> = Vec::new();
        if self.view.has_layouts_of(&old) {
            // Few changes of the catalog change an owner, and a node may have many buckets.
            let is_known = |bucket: &Bucket| old.bucket(bucket.id).is_some_and(|old| old.live == bucket.live);
            let changed = self.view.buckets().filter(|bucket| !is_known(bucket));
            for id in changed.map(|bucket| bucket.id) {
                parts.extend(self.trees.partitions(id).map(|partition| (partition, id)));
            }
        } else {
            parts.extend(self.trees.filled());
        }
        parts.retain(|(partition, bucket)| old.owns(self.config.node, *partition, *bucket));
        // Rule: former owners hold.
        self.hold_unowned(turn, parts);
    }

    /// This node holds all that it has and does not own. It may have become a former owner while it was down, or before
    /// it had counted what it has.
    pub(in crate::shard) fn hold_all_unowned(&mut self, turn: &mut Turn<'_>) {
        let parts = self.trees.filled().collect();
        self.hold_unowned(turn, parts);
    }

    /// Writes what the store did not take when it was full or busy.
    pub(in crate::shard) fn hold_owed(&mut self, turn: &mut Turn<'_>) {
        if core::mem::take(&mut self.holdings.owed) {
            self.hold_all_unowned(turn);
        }
    }

    /// Of these parts, in which this node has objects, it holds those that it does not own.
    fn hold_unowned(&mut self, turn: &mut Turn<'_>, mut parts: Vec<Part>) {
        parts.retain(|(partition, bucket)| !self.view.owns(self.config.node, *partition, *bucket));
        let partitions: BTreeSet<PartitionId> = parts.into_iter().map(|(partition, _)| partition).collect();
        // Rule: changes of owners touch holdings. A pass under way may have gone past these objects.
        partitions.iter().for_each(|partition| self.drain.touched(*partition));
        let version = self.holdings.next_version(0, turn.now.wall_ms);
        let mut change = Change::default();
        let newly_held = partitions.into_iter().filter(|partition| self.holdings.held(*partition).is_none());
        let newly_held: Vec<PartitionId> = newly_held.collect();
        newly_held.iter().for_each(|partition| put_row(&mut change, *partition, version));
        if newly_held.is_empty() {
            return;
        }
        match self.write(turn, change) {
            Ok(()) => newly_held.into_iter().for_each(|partition| self.holds(turn, partition, version)),
            Err(_) => self.holdings.owed = true,
        }
    }
}
