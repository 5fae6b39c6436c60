//! The shard's part in a split of the partitions: what it knows by partition it knows of both halves from then on.
//!
//! Objects and the leaves of hash trees stay where they are: their keys begin with the key's hash, not with a
//! partition. A shard has an arc of the ring, so both halves of a partition are its own. What is kept by partition is
//! renamed, in memory at once and on the disk with the next change, all in one record with the row that says how many
//! partitions the rows are of. Retry rows and observed counters keep the names that they were given: the first are void
//! by then (a change of layout ends what clients may retry), and the others are looked for under all names.
//!
//! No actor outlives a split. It would be that of two partitions, and what is dropped in one of them has to end it in
//! both. What the ended ones had come to is kept until their halves have others: a disk from before the split is found
//! out by it.

use rejoin_proto::{PartitionId, codec};

use super::Shard;
use super::turn::Turn;
use crate::port::{Change, Space, Store, StoreFault};
use crate::rows::{self, Kind, NumberRow};

/// Of how many partitions the rows of a shard are.
#[derive(Debug)]
pub(super) struct Grid {
    /// 2^this.
    bits: u8,
    /// Whether the store has yet to take that.
    owed: bool,
}

impl Grid {
    /// Reads what the last run left. A new shard is one of the ring's partitions.
    pub(super) fn open(store: &dyn Store, bits: u8) -> Result<Self, StoreFault> {
        let kept = rows::load::<NumberRow>(store, Kind::Grid)?.into_iter().next().map(|(_, _, row)| row.0);
        let kept = kept.map(|kept| u8::try_from(kept).unwrap_or(u8::MAX));
        match kept {
            Some(kept) if kept > bits => {
                let why = alloc::format!("its rows are of 2^{kept} partitions, and the ring has 2^{bits}");
                Err(StoreFault::Failed(why))
            }
            kept => Ok(Self { bits: kept.unwrap_or(bits), owed: kept.is_none() }),
        }
    }

    pub(super) fn owes(&self) -> bool {
        self.owed
    }

    pub(super) fn settle(&self, change: &mut Change) {
        if self.owed {
            let key = rows::key(Kind::Grid, PartitionId(0), &[]);
            change.put(Space::Pinned, key, codec::encode(&NumberRow(u64::from(self.bits))));
        }
    }

    pub(super) fn settled(&mut self) {
        self.owed = false;
    }
}

impl Shard {
    /// The ring has more partitions than the rows of the last run are of: they were split while this node was down.
    pub(super) fn split_at_open(&mut self) {
        self.rename_partitions();
    }

    /// The view has other partitions than this shard knows of.
    pub(super) fn split(&mut self, turn: &mut Turn<'_>) {
        let bits = self.view.partition_bits();
        if bits <= self.grid.bits {
            return;
        }
        // What is under way there is named by the partitions of before.
        self.end_exchanges(turn.now.mono_us);
        self.counters.tenures_ended += self.tenures.announce().len() as u64;
        self.rename_partitions();
        self.trees.split(bits);
        // Rule: operations follow the split. A write under way mints for the half that its key is in.
        for op in self.ops.values_mut() {
            op.target.partition = self.view.layout().partition(&op.target.object);
        }
        self.renew_start(turn);
        // In one record. If the store does not take it, it is owed.
        self.write_tenure_ends(turn);
        self.tell_all_holdings(turn);
    }

    /// What the store has yet to take, in the order in which it is due: in front of everything else.
    pub(super) fn owed(&self) -> Change {
        let mut change = Change::default();
        self.tenures.settle(&mut change);
        self.trees.settle(&mut change);
        self.gaps.settle(&mut change);
        self.holdings.settle(&mut change);
        self.grid.settle(&mut change);
        change
    }

    /// It has taken that.
    pub(super) fn owes_nothing(&mut self) {
        self.tenures.settled();
        self.trees.settled();
        self.gaps.settled();
        self.holdings.settled();
        self.grid.settled();
    }

    fn rename_partitions(&mut self) {
        let bits = self.view.partition_bits();
        let more = bits.saturating_sub(self.grid.bits);
        if more == 0 {
            return;
        }
        // Rule: splits end tenures.
        self.tenures.split(more);
        self.tenures.renew_start(&mut self.rng);
        self.gaps.split(more);
        self.holdings.split(more);
        self.exchanges.split(more);
        self.drain.split();
        let lost = core::mem::take(&mut self.lost_upto).into_iter();
        self.lost_upto =
            lost.flat_map(|(partition, upto)| partition.parts(more).map(move |half| (half, upto))).collect();
        self.grid = Grid { bits, owed: true };
    }
}
