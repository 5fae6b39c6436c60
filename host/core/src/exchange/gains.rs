//! The partitions that this replica gains by the newest layout, and takes from the owners in the oldest live one.
//!
//! **When a gain ends.** While layouts change, a write needs its quorum in each live layout; writes that began before
//! had it in the older layouts alone. A replica that has *closed* the older layouts refuses writes by them. So a walk
//! with such a replica that begins after that brings everything that was acknowledged there by the older layouts. When
//! all owners in the oldest live layout have been met in such walks (but for those that an operator has declared dead),
//! this replica has everything, and its copies count in reads by the newest layout.
//!
//! What was met is durable, so that a restart does not begin anew. Unlike a [gap](super::gaps), a gain says nothing of
//! what this replica has acknowledged: it counts towards W from the beginning.

use alloc::collections::{BTreeMap, BTreeSet};

use rejoin_proto::{LayoutRef, NodeId, PartitionId, codec};

use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, GainRow, Kind, VouchedRow};

/// The gains of one shard.
#[derive(Debug, Default)]
pub(crate) struct Gains {
    /// The layout by which they are gained. The default one before the first.
    layout: LayoutRef,
    /// Each with the owners from which everything was taken.
    open: BTreeMap<PartitionId, BTreeSet<NodeId>>,
    /// The newest layout of which this replica has everything; the default one if that is not known.
    vouched: LayoutRef,
    /// The owners that have closed the older layouts, each with the number of the last walk before that was known.
    sources: BTreeMap<NodeId, u64>,
    /// Rows that the store has yet to take.
    owed: BTreeSet<PartitionId>,
    vouched_owed: bool,
}

impl Gains {
    /// Reads the gains of the last run.
    pub(crate) fn open(store: &dyn Store) -> Result<Self, StoreFault> {
        let mut gains = Self::default();
        for (partition, _, row) in rows::load::<GainRow>(store, Kind::Gain)? {
            // All rows are of one layout, but for those that were not removed yet when the next one came.
            if row.layout > gains.layout {
                gains.owed.extend(core::mem::take(&mut gains.open).into_keys());
                gains.layout = row.layout;
            }
            if row.layout == gains.layout {
                gains.open.insert(partition, row.met.into_iter().collect());
            } else {
                gains.owed.insert(partition);
            }
        }
        let vouched = rows::load::<VouchedRow>(store, Kind::Vouched)?.into_iter().map(|(_, _, row)| row.0);
        gains.vouched = vouched.max().unwrap_or_default();
        Ok(gains)
    }

    /// The newest layout of which this replica has everything.
    pub(crate) fn vouched(&self) -> LayoutRef {
        self.vouched
    }

    /// This replica has everything of a layout.
    pub(crate) fn vouch(&mut self, layout: LayoutRef) {
        self.vouched_owed |= self.vouched != layout;
        self.vouched = layout;
    }

    /// Begins to take partitions by another layout. Of those that were being taken for the same one, by the last run,
    /// what was met stays met.
    pub(crate) fn begin(&mut self, layout: LayoutRef, partitions: impl IntoIterator<Item = PartitionId>) {
        let before = core::mem::take(&mut self.open);
        // Rule: gains are of one layout. What was acknowledged meanwhile by the layout before may be elsewhere.
        let mut kept = if self.layout == layout { before.clone() } else { BTreeMap::new() };
        self.owed.extend(before.into_keys());
        if self.layout != layout {
            self.sources.clear();
        }
        self.layout = layout;
        for partition in partitions {
            self.open.insert(partition, kept.remove(&partition).unwrap_or_default());
            self.owed.insert(partition);
        }
    }

    /// Partitions are split: both halves are still being taken, and from the same owners.
    pub(crate) fn split(&mut self, more: u8) {
        let open = core::mem::take(&mut self.open);
        self.owed.extend(open.keys());
        let halves = |(partition, met): (PartitionId, BTreeSet<NodeId>)| {
            partition.parts(more).map(move |half| (half, met.clone()))
        };
        self.open = open.into_iter().flat_map(halves).collect();
        self.owed.extend(self.open.keys());
    }

    /// The owners that have closed the older layouts by now. Walks that are known by numbers up to `last_walk` have
    /// begun before.
    pub(crate) fn set_sources(&mut self, sources: impl IntoIterator<Item = NodeId>, last_walk: u64) {
        let before = core::mem::take(&mut self.sources);
        let since = |node: NodeId| (node, before.get(&node).copied().unwrap_or(last_walk));
        self.sources = sources.into_iter().map(since).collect();
    }

    /// Whether a partition is being taken.
    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        self.open.contains_key(&partition)
    }

    /// The partitions that are being taken.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.open.keys().copied()
    }

    /// Whether everything was taken.
    pub(crate) fn are_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a partition is to be taken from a node, and can be now.
    pub(crate) fn wants(&self, partition: PartitionId, from: NodeId) -> bool {
        self.sources.contains_key(&from) && self.open.get(&partition).is_some_and(|met| !met.contains(&from))
    }

    /// This replica has everything that a peer had in a partition when the walk with that number began.
    pub(crate) fn met(&mut self, partition: PartitionId, peer: NodeId, walk: u64) {
        // Rule: sources have closed. Before that they may still acknowledge what this replica does not hear of.
        let counts = self.sources.get(&peer).is_some_and(|last_before| walk > *last_before);
        if let Some(met) = self.open.get_mut(&partition).filter(|_| counts)
            && met.insert(peer)
        {
            self.owed.insert(partition);
        }
    }

    /// Something of a partition may be lost here: what was taken before does not count any more.
    pub(crate) fn lose(&mut self, partition: PartitionId, last_walk: u64) {
        if let Some(met) = self.open.get_mut(&partition) {
            met.clear();
            self.sources.values_mut().for_each(|last_before| *last_before = last_walk);
            self.owed.insert(partition);
        }
    }

    /// Ends the gain of a partition if it was taken from all of these owners. Returns whether it was.
    pub(crate) fn close(&mut self, partition: PartitionId, mut owners: impl Iterator<Item = NodeId>) -> bool {
        let Some(met) = self.open.get(&partition) else { return false };
        // Rule: every older owner is met. A single one may be the only one that has some write.
        let is_taken = owners.all(|owner| met.contains(&owner));
        if is_taken {
            self.open.remove(&partition);
            self.owed.insert(partition);
        }
        is_taken
    }

    /// Whether the store has yet to take something.
    pub(crate) fn owes(&self) -> bool {
        self.vouched_owed || !self.owed.is_empty()
    }

    /// Adds what is owed to a change. Call [`Gains::settled`] once it is written.
    pub(crate) fn settle(&self, change: &mut Change) {
        for partition in &self.owed {
            let key = rows::key(Kind::Gain, *partition, &[]);
            match self.open.get(partition) {
                Some(met) => {
                    let row = GainRow { layout: self.layout, met: met.iter().copied().collect() };
                    change.put(Space::Pinned, key, codec::encode(&row));
                }
                None => {
                    change.remove(Space::Pinned, key);
                }
            }
        }
        if self.vouched_owed {
            let key = rows::key(Kind::Vouched, PartitionId(0), &[]);
            change.put(Space::Pinned, key, codec::encode(&VouchedRow(self.vouched)));
        }
    }

    /// The change that [`Gains::settle`] filled is written.
    pub(crate) fn settled(&mut self) {
        self.owed.clear();
        self.vouched_owed = false;
    }
}
