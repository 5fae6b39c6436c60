//! Whom a read asks, and what for.
//!
//! A read needs R answers, and more owners than that would only answer for nothing. So it asks the nearest ones that
//! are needed beside this node, and *spares* the others. These are asked too
//!
//! - when one that was asked is late, refuses, fails, or does not count (the read is *hedged*: Dean and Barroso, "The
//!   Tail at Scale", 2013);
//! - once the reader has its answer, when copies differ, so that all owners are repaired;
//! - and then for a share of reads drawn by chance, so that owners which no read needs are repaired as well.
//!
//! All are asked at once where some may not count: while layouts change, where fallbacks hold something of the
//! partition (whether they can be reached or not), and where this node is no owner itself.
//!
//! An owner is asked with the digest of this node's copy. One whose copy has the same digest says so, and sends none.

use rand_core::Rng;
use smallvec::SmallVec;

use rejoin_proto::peer::PeerBody;
use rejoin_proto::{NodeId, ObjectId};

use super::Shard;
use super::copy::{Copy, StoredRow};
use super::op::{Op, ReadPhase, ReadWork, Work};
use super::turn::Turn;
use crate::quorum::{Nodes, Tally, Verdict};

/// Whom reads ask, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// The shortest time, in microseconds, after which a read that waits for an owner asks the others too. A suspected
    /// owner is given this time; another one's follows its recent answers.
    pub hedge_min_us: u64,
    /// The longest such time, in microseconds. An owner that has not answered any read yet is given this time. With 0
    /// every read asks all owners at once.
    pub hedge_max_us: u64,
    /// Of so many reads one asks all owners, to repair them; 0: none.
    pub all_one_in: u32,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { hedge_min_us: 5_000, hedge_max_us: 200_000, all_one_in: 32 }
    }
}

impl ReadWork {
    /// Whether the owners that it has spared are asked now.
    pub(super) fn needs_spared(&self) -> bool {
        match self.phase {
            // Rule: failed reads ask the others.
            ReadPhase::Collecting => self.tally.verdict() == Verdict::Impossible,
            ReadPhase::Merging { .. } => false,
            // Rule: some reads repair all.
            ReadPhase::Answered if self.asks_all => true,
            // Rule: differences are repaired everywhere.
            ReadPhase::Answered => !self.is_sound() || self.fold.is_some(),
        }
    }
}

impl Shard {
    /// Leaves in a read's tally the nodes that are asked at once, and returns the others. `counts`: whether this node's
    /// own copy does.
    pub(super) fn spare(&self, tally: &mut Tally, counts: bool) -> Nodes {
        let own = self.config.node;
        let mut nearest: SmallVec<[NodeId; 5]> = tally.waiting().filter(|node| *node != own).collect();
        self.contacts.sort(&mut nearest);
        // All of them are owners in the one layout, so each counts towards R and PR.
        nearest.truncate(usize::from(tally.needed()).saturating_sub(usize::from(counts)));
        tally.keep(|node| node == own || nearest.contains(&node))
    }

    /// Whether a read asks only those that it needs.
    pub(super) fn spares(&self, read: &ReadWork, is_owner: bool) -> bool {
        // Rule: holders spare nobody. What one has that cannot be reached, a spared owner may have too.
        let nobody_holds = read.fallbacks.is_empty() && read.unreachable.is_empty();
        let is_settled = self.view.layouts().count() == 1 && nobody_holds;
        is_owner && is_settled && self.config.reads.hedge_max_us > 0
    }

    /// Whether a read is one of the share that repairs all owners.
    pub(super) fn draws_all(&mut self) -> bool {
        match self.config.reads.all_one_in {
            0 => false,
            1 => true,
            // Not by the number of the operation: writes may take every other one.
            one_in => self.rng.next_u64().is_multiple_of(u64::from(one_in)),
        }
    }

    /// Asks a node for its copy.
    pub(super) fn ask_for_copy(&self, turn: &mut Turn<'_>, op: &Op, node: NodeId) {
        let Work::Read(read) = &op.work else { return };
        let as_fallback = read.fallbacks.contains(&node);
        // A fallback's copy does not count if it is empty, whatever this node's is.
        let digest = read.digest.filter(|_| !as_fallback);
        let body = PeerBody::Read { op: op.id, object: op.target.object.clone(), as_fallback, digest };
        self.send_for(turn, op, node, body);
    }

    /// Asks the owners that were spared. Returns whether there were any.
    pub(super) fn ask_spared(&mut self, turn: &mut Turn<'_>, op: &mut Op) -> bool {
        let Work::Read(read) = &mut op.work else { return false };
        let spared = core::mem::take(&mut read.spared);
        if spared.is_empty() {
            return false;
        }
        self.counters.reads_hedged += u64::from(matches!(read.phase, ReadPhase::Collecting));
        op.relieved_us = turn.now.mono_us;
        for (node, seat) in spared {
            let Work::Read(read) = &mut op.work else { break };
            read.tally.add(node, seat);
            if !self.reachable(node) {
                read.tally.bad(node, "not connected");
                continue;
            }
            read.asked_later.push(node);
            self.ask_for_copy(turn, op, node);
        }
        true
    }

    /// What tells whether another node's copy is the same as this one: the hash of what is stored.
    pub(super) fn digest(&self, id: &ObjectId, store_key: &[u8], copy: &Copy) -> [u8; 16] {
        let hash = match &copy.row {
            StoredRow::Present(row) => self.config.causal_key.hash_row(store_key, row),
            StoredRow::Absent | StoredRow::GivenUp => self.config.causal_key.hash(id, &copy.object),
        };
        hash.0.to_le_bytes()
    }
}
