//! Which nodes stand in for owners that cannot take a write.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::NodeId;
use rejoin_proto::peer::PeerBody;

use crate::layouts::Seat;
use crate::members::Liveness;
use crate::quorum::{Tally, ZoneNeed};
use crate::shard::Shard;
use crate::shard::copy::Place;
use crate::shard::op::{Op, Step, Work, WritePhase, WriteWork};
use crate::shard::turn::Turn;
use crate::view::Target;

impl Shard {
    /// Whether a node is connected and has not been silent for so long that another one should take its writes.
    pub(in crate::shard) fn is_healthy(&self, node: NodeId) -> bool {
        self.reachable(node) && self.contacts.liveness(node) != Liveness::Down
    }

    /// Whether this node, which is no owner of the key, coordinates requests for it: it is a member of a live layout,
    /// the bucket is sloppy, and no owner is healthy.
    pub(in crate::shard) fn stands_in(&self, target: &Target) -> bool {
        let is_member = self.view.is_member(self.config.node);
        is_member
            && !target.bucket.live.sloppy().is_empty()
            && !target.owners.iter().any(|owner| self.is_healthy(owner))
    }

    /// Adds a fallback to a write's tally for each owner that is not healthy. An owner that is connected is asked all
    /// the same, and counts if it answers.
    pub(in crate::shard) fn seat_fallbacks(&self, target: &Target, tally: &mut Tally) {
        // Rule: strict buckets use no fallbacks.
        let sloppy = target.bucket.live.sloppy();
        let lacks =
            |(owner, seat): &(NodeId, Seat)| !self.is_healthy(*owner) && !seat.counts.intersection(sloppy).is_empty();
        let missing: Vec<(NodeId, Seat)> = target.owners.seats().filter(lacks).collect();
        if missing.is_empty() {
            return;
        }
        let fallbacks = self.fallbacks(target);
        // A node that stands in has the write itself.
        let mut own = Some(self.config.node).filter(|node| !target.owners.contains(*node));
        for (owner, seat) in missing {
            // Rule: fallbacks count where they may.
            let counts = seat.counts.intersection(sloppy);
            let stand_in = Seat::fallback(counts);
            let Some(node) = own.take().or_else(|| self.next_fallback(&fallbacks, tally, stand_in)) else { break };
            // Rule: fallbacks are no owners.
            tally.add(node, stand_in);
            tally.relieve(owner);
        }
    }

    /// The healthy nodes that may stand in for owners of a key, the preferred one first.
    fn fallbacks(&self, target: &Target) -> Vec<NodeId> {
        self.view.fallbacks(target, |node| self.is_healthy(node))
    }

    /// The one of these fallbacks that is asked next. One without which there would be too few zones comes first, a
    /// suspected one after others, and one of a zone that has answered last.
    fn next_fallback(&self, fallbacks: &[NodeId], tally: &Tally, seat: Seat) -> Option<NodeId> {
        let unasked = fallbacks.iter().copied().filter(|node| !tally.has_asked(*node));
        unasked.min_by_key(|&node| {
            let need = tally.zone_need(node, seat.counts, |waiting| self.is_healthy(waiting));
            // Rule: missing zones come first.
            (need != ZoneNeed::Missing, self.contacts.liveness(node), need)
        })
    }

    /// A node that a write waits for will not take it, or is silent: the next fallback that was not asked yet is sent
    /// the write, and counts where that node did.
    pub(in crate::shard) fn stand_in(&mut self, turn: &mut Turn<'_>, op: &mut Op, seat: Seat) {
        let Work::Write(WriteWork { phase: WritePhase::Replicating { dot, tally, .. }, .. }) = &op.work else { return };
        let seat = Seat::fallback(seat.counts.intersection(op.target.bucket.live.sloppy()));
        if seat.counts.is_empty() {
            return;
        }
        let Some(node) = self.next_fallback(&self.fallbacks(&op.target), tally, seat) else { return };
        let (dot, place) = (*dot, Place { partition: op.target.partition, store_key: &op.target.store_key });
        // The copy may have come further meanwhile; then it has seen the write.
        let Ok(copy) = self.load(turn, place) else { return };
        if !copy.object.context.contains(dot) {
            return;
        }
        self.counters.fallbacks_asked += 1;
        let message = self.write_message(op, copy.encoded(), dot);
        self.send_for(turn, op, node, PeerBody::Replicate(message));
        op.relieved_us = turn.now.mono_us;
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            tally.add(node, seat);
        }
        self.expect_relief(turn.now.mono_us, op);
    }

    /// Asks another node in the place of one that an operation still waits for, once.
    fn relieve_one(&mut self, turn: &mut Turn<'_>, op: &mut Op, late: NodeId) {
        match &mut op.work {
            Work::Forward(_) => self.forward_again(turn, op, late),
            Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) => {
                if let Some(seat) = tally.relieve(late) {
                    self.stand_in(turn, op, seat);
                }
            }
            Work::Read(read) if read.may_hedge() => {
                self.ask_spared(turn, op);
            }
            _ => {}
        }
    }

    /// When an operation asks another node in the place of the first one that is late by then, in microseconds; `None`
    /// if none could help it.
    fn relief_due_us(&self, op: &Op) -> Option<u64> {
        self.unrelieved(op).map(|(_, due_us)| due_us).min()
    }

    /// The nodes that an operation waits for and in whose place others can be asked and none was yet, each with the
    /// time of that.
    fn unrelieved<'a>(&'a self, op: &'a Op) -> impl Iterator<Item = (NodeId, u64)> + 'a {
        let tally = match &op.work {
            Work::Forward(forward) => Some(&forward.tally).filter(|_| forward.may_ask_others()),
            Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) => {
                // Rule: strict buckets use no fallbacks.
                let is_sloppy = !op.target.bucket.live.sloppy().is_empty();
                Some(tally).filter(|tally| is_sloppy && tally.lacks_nodes())
            }
            // Rule: late reads are hedged.
            Work::Read(read) => Some(&read.tally).filter(|_| read.may_hedge()),
            _ => None,
        };
        let waiting =
            tally.into_iter().flat_map(|tally| tally.waiting().filter(move |node| tally.is_unrelieved(*node)));
        waiting.filter(move |node| *node != self.config.node).map(move |node| {
            // One that was busy and was asked again has had the time since the first time.
            let asked_us = op.first_asked_at_us(node);
            // Whoever is asked next needs time to answer, too.
            let half_us = op.deadline_us.saturating_sub(asked_us) / 2;
            let patience_us = match &op.work {
                Work::Read(_) => self.contacts.hedge_us(node, &self.config.reads),
                _ => self.contacts.patience_us(node, &self.config.handoff),
            };
            let patience_us = patience_us.min(half_us);
            (node, asked_us.saturating_add(patience_us))
        })
    }

    /// Sees to it that a tick comes when an operation that has just asked others may ask one more.
    pub(in crate::shard) fn expect_relief(&mut self, now_us: u64, op: &Op) {
        if let Some(due_us) = self.relief_due_us(op) {
            // Not at every tick, whatever the times are.
            self.next_relief_us = self.next_relief_us.min(due_us.max(now_us + 1));
        }
    }

    /// Asks a fallback in the place of each node that has not answered a write in the time that it usually takes, the
    /// next owner in the place of one that has not answered a read which was forwarded to it, and the owners that were
    /// spared in the place of one that has not answered a read. The late node still counts if it answers.
    pub(in crate::shard) fn relieve(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_us < self.next_relief_us {
            return;
        }
        let mut next_us = u64::MAX;
        let due = self.ops.which(|op| {
            let due_us = self.relief_due_us(op).unwrap_or(u64::MAX);
            let is_due = due_us <= turn.now.mono_us;
            next_us = if is_due { next_us } else { next_us.min(due_us) };
            is_due
        });
        self.next_relief_us = next_us;
        for number in due {
            self.with_op(turn, number, |shard, turn, mut op: Box<Op>| {
                // Rule: late nodes are relieved.
                let late = shard.unrelieved(&op).filter(|(_, due_us)| *due_us <= turn.now.mono_us);
                let late: SmallVec<[NodeId; 5]> = late.map(|(node, _)| node).collect();
                late.into_iter().for_each(|node| shard.relieve_one(turn, &mut op, node));
                shard.expect_relief(turn.now.mono_us, &op);
                Step::Keep(op)
            });
        }
    }

    /// A peer has been silent for so long that others take its place in what waits for it.
    pub(in crate::shard) fn peer_is_silent(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        for number in self.ops.which(|op| op.waits_for(peer)) {
            self.with_op(turn, number, |shard, turn, mut op: Box<Op>| match &op.work {
                Work::Read(read) if read.fallbacks.contains(&peer) => {
                    shard.read_failed(turn, op, peer, "it has been silent for long")
                }
                Work::Read(_) | Work::Write(_) | Work::Forward(_) => {
                    shard.relieve_one(turn, &mut op, peer);
                    Step::Keep(op)
                }
                _ => Step::Keep(op),
            });
        }
    }
}
