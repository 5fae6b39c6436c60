//! The partitions in which this replica may lack writes that it has acknowledged. Until it has what the other owners
//! have, its copies are joined by readers and not counted.
//!
//! A *gap* begins when rows are lost, when the data directory was replaced, or when the disk turns out to be an old
//! one. It is durable, and ends for each partition by itself.
//!
//! **When it may end.** A write of a bucket with `n` owners was acknowledged by `w` nodes. This replica was one of
//! them, so at least `w - 1` of the `n - 1` other owners have it (or fallbacks, which readers ask while they hold
//! something). Any `k` of the others meet every such set of `w - 1` if `k + (w - 1) > n - 1`, so `k = n - w + 1`
//! complete ones are enough. With `w = 1` that is more than there are: a write that only this replica had is gone, and
//! no exchange brings it back. So a gap also ends when *all* other owners have been met: then this replica has
//! everything that there is.
//!
//! With its data directory a node loses its catalog. It may learn of a bucket only after its gaps have ended, which did
//! not wait for the owners of that one then. So it remembers when the loss was, and a bucket that is older begins gaps
//! anew. One that was created since had nothing that could be lost.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::{Hlc, NodeId, PartitionId};

use super::gains::Gains;
use crate::layouts::Owners;
use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, LossRow};

/// A gap as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct GapRow {
    /// The peers from which everything was taken, and whether each was complete then.
    met: Vec<(NodeId, bool)>,
}

impl Versioned for GapRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "gap row";
}

/// Stands for the whole data directory: the row says that its gaps were noted, and are not to be noted with each start.
const NOTED: PartitionId = PartitionId(u16::MAX);
/// Behind the key of that row, since a partition may have the same number.
const NOTED_REST: &[u8] = b"noted";

/// A gap in one partition.
#[derive(Clone, Debug)]
struct Gap {
    met: BTreeMap<NodeId, bool>,
    /// What a peer has told before this does not count. In microseconds, or 0 from an earlier run.
    since_us: u64,
}

impl Gap {
    /// Whether so many complete owners were met that one of them has every acknowledged write.
    fn has_met_quorum(&self, others: &Owners, w: u8) -> bool {
        let complete = others.iter().filter(|node| self.met.get(node) == Some(&true)).count();
        // Rule: gaps end by quorum. `others` are n - 1, so n - w + 1 of them.
        complete >= (others.len() + 2).saturating_sub(usize::from(w))
    }

    /// Whether the replica has all that these owners can bring: all were met, or a quorum of complete ones.
    fn closes(&self, others: &Owners, w: u8) -> bool {
        others.iter().all(|node| self.met.contains_key(&node)) || self.has_met_quorum(others, w)
    }
}

/// How far a shard has come with what it rebuilds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RebuildProgress {
    /// The partitions that have had a gap since there last was none, or since the start.
    pub partitions: usize,
    /// Objects that were taken for them.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// When this replica has lost all that it had, or what it had since some time, along with its catalog.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Loss {
    #[default]
    Never,
    /// It has, and has not seen a clock yet.
    Undated,
    /// In milliseconds of the wall clock.
    At(u64),
}

/// The gaps of one shard.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    gaps: BTreeMap<PartitionId, Gap>,
    /// Rows that the store has yet to take.
    owed: BTreeSet<PartitionId>,
    /// Whether a replaced data directory was noted, and whether that is stored.
    noted: bool,
    noted_owed: bool,
    /// Whether the shard has told that it is rebuilt since.
    told_rebuilt: bool,
    loss: Loss,
    loss_owed: bool,
    progress: RebuildProgress,
    /// What this replica gains by a change of layout.
    pub(crate) gains: Gains,
}

impl Gaps {
    /// Reads the gaps of the last run.
    pub(crate) fn open(store: &dyn Store) -> Result<Self, StoreFault> {
        let mut gaps = Self { gains: Gains::open(store)?, ..Self::default() };
        for (partition, rest, row) in rows::load::<GapRow>(store, Kind::Gap)? {
            if rest == NOTED_REST {
                gaps.noted = true;
            } else {
                gaps.gaps.insert(partition, Gap { met: row.met.into_iter().collect(), since_us: 0 });
            }
        }
        gaps.progress.partitions = gaps.gaps.len();
        let dated = rows::load::<LossRow>(store, Kind::Loss)?.into_iter().map(|(_, _, row)| Loss::At(row.0)).next();
        gaps.loss = dated.unwrap_or(if gaps.noted { Loss::Undated } else { Loss::Never });
        Ok(gaps)
    }

    /// Partitions are split: what may be lacking in one may be lacking in both halves.
    pub(crate) fn split(&mut self, more: u8) {
        let gaps = core::mem::take(&mut self.gaps);
        self.owed.extend(gaps.keys());
        let halves = |(partition, gap): (PartitionId, Gap)| partition.parts(more).map(move |half| (half, gap.clone()));
        // Rule: gaps are split.
        self.gaps = gaps.into_iter().flat_map(halves).collect();
        self.owed.extend(self.gaps.keys());
        self.progress.partitions <<= more;
        self.gains.split(more);
    }

    /// Whether a replica has everything of a partition that it has acknowledged.
    pub(crate) fn is_complete(&self, partition: PartitionId) -> bool {
        !self.gaps.contains_key(&partition)
    }

    /// The partitions with a gap.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.gaps.keys().copied()
    }

    /// Something of a partition may be lost: what was taken from peers before does not count any more.
    pub(crate) fn begin(&mut self, partition: PartitionId, now_us: u64) {
        if self.gaps.is_empty() {
            self.progress = RebuildProgress::default();
        }
        let known = self.gaps.insert(partition, Gap { met: BTreeMap::new(), since_us: now_us });
        self.progress.partitions += usize::from(known.is_none());
        self.owed.insert(partition);
    }

    /// Objects of a partition were taken from a peer.
    pub(crate) fn took(&mut self, partition: PartitionId, objects: u64, bytes: u64) {
        if !self.is_complete(partition) {
            self.progress.objects += objects;
            self.progress.bytes += bytes;
        }
    }

    /// How far the rebuild has come.
    pub(crate) fn progress(&self) -> RebuildProgress {
        self.progress
    }

    /// The data directory was replaced by an empty one. Returns whether that is new.
    pub(crate) fn note_replaced(&mut self) -> bool {
        self.noted_owed |= !self.noted;
        self.told_rebuilt = false;
        let is_new = !core::mem::replace(&mut self.noted, true);
        if is_new {
            self.note_loss();
        }
        is_new
    }

    /// What this replica had since some time is lost, and its catalog as well.
    pub(crate) fn note_loss(&mut self) {
        self.loss = Loss::Undated;
    }

    /// What was lost by now is dated.
    pub(crate) fn date_loss(&mut self, wall_ms: u64) {
        if self.loss == Loss::Undated {
            (self.loss, self.loss_owed) = (Loss::At(wall_ms), true);
        }
    }

    /// Whether a bucket that this replica learns of may have been there before its loss.
    pub(crate) fn may_have_lost(&self, created: Option<Hlc>, max_skew_ms: u64) -> bool {
        match self.loss {
            Loss::Never => false,
            Loss::Undated => true,
            Loss::At(ms) => created.is_none_or(|created| created.ms() <= ms.saturating_add(max_skew_ms)),
        }
    }

    /// This replica has everything that a peer had in a partition at that time. `others` are the owners of each bucket
    /// without this node, with its `w`. Returns whether the gap is closed by it.
    pub(crate) fn met(
        &mut self,
        partition: PartitionId,
        peer: NodeId,
        is_complete: bool,
        begun_us: u64,
        others: &[(Owners, u8)],
    ) -> bool {
        let Some(gap) = self.gaps.get_mut(&partition).filter(|gap| gap.since_us <= begun_us) else { return false };
        gap.met.insert(peer, is_complete);
        self.owed.insert(partition);
        let closed = others.iter().all(|(others, w)| gap.closes(others, *w));
        if closed {
            self.gaps.remove(&partition);
        }
        closed
    }

    /// Whether everything was taken from a peer since the gap began, or there is no gap.
    pub(crate) fn has_met(&self, partition: PartitionId, peer: NodeId) -> bool {
        self.gaps.get(&partition).is_none_or(|gap| gap.met.contains_key(&peer))
    }

    /// Whether everything was taken since the gap began from so many complete owners that one of them has every
    /// acknowledged write, or there is no gap. `others` are the owners without this node.
    pub(crate) fn has_met_quorum(&self, partition: PartitionId, others: &Owners, w: u8) -> bool {
        self.gaps.get(&partition).is_none_or(|gap| gap.has_met_quorum(others, w))
    }

    /// No other node owns the partition along with this one: nobody could bring what is lost.
    pub(crate) fn close_lonely(&mut self, partition: PartitionId) {
        if self.gaps.remove(&partition).is_some() {
            self.owed.insert(partition);
        }
    }

    /// Whether the data directory was replaced, and the shard has not told yet that it is rebuilt.
    pub(crate) fn is_rebuilding(&self) -> bool {
        self.noted && !self.told_rebuilt
    }

    /// Whether it is news that nothing is missing any more of what the replaced data directory had. A restart cannot
    /// bring a gap back by then.
    pub(crate) fn is_newly_rebuilt(&mut self) -> bool {
        // Rule: ended rebuilds stay ended.
        let is_rebuilt = self.noted && self.gaps.is_empty() && !self.owes();
        is_rebuilt && !core::mem::replace(&mut self.told_rebuilt, true)
    }

    /// Whether the store has yet to take something.
    pub(crate) fn owes(&self) -> bool {
        self.noted_owed || self.loss_owed || !self.owed.is_empty() || self.gains.owes()
    }

    /// Adds what is owed to a change. Call [`Gaps::settled`] once it is written.
    pub(crate) fn settle(&self, change: &mut Change) {
        for partition in &self.owed {
            let key = rows::key(Kind::Gap, *partition, &[]);
            match self.gaps.get(partition) {
                Some(gap) => {
                    let row = GapRow { met: gap.met.iter().map(|(peer, complete)| (*peer, *complete)).collect() };
                    change.put(Space::Pinned, key, codec::encode(&row));
                }
                None => {
                    change.remove(Space::Pinned, key);
                }
            }
        }
        if self.noted_owed {
            let row = GapRow { met: Vec::new() };
            change.put(Space::Pinned, rows::key(Kind::Gap, NOTED, NOTED_REST), codec::encode(&row));
        }
        if let Loss::At(ms) = self.loss
            && self.loss_owed
        {
            change.put(Space::Pinned, rows::key(Kind::Loss, PartitionId(0), &[]), codec::encode(&LossRow(ms)));
        }
        self.gains.settle(change);
    }

    /// The change that [`Gaps::settle`] filled is written.
    pub(crate) fn settled(&mut self) {
        self.owed.clear();
        (self.noted_owed, self.loss_owed) = (false, false);
        self.gains.settled();
    }
}
