//! Which nodes stand in for owners that cannot take a write.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rejoin_proto::NodeId;
use rejoin_proto::peer::PeerBody;

use crate::layouts::Seat;
use crate::members::Liveness;
use crate::quorum::Tally;
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

    /// Whether this node, which is no owner of the key, coordinates requests for it: the bucket is sloppy, and no owner
    /// is healthy.
    pub(in crate::shard) fn stands_in(&self, target: &Target) -> bool {
        target.bucket.props.sloppy && !target.owners.iter().any(|owner| self.is_healthy(owner))
    }

    /// Adds a fallback to a write's tally for each owner that is not healthy. An owner that is connected is asked all
    /// the same, and counts if it answers.
    pub(in crate::shard) fn seat_fallbacks(&self, target: &Target, tally: &mut Tally) {
        // Rule: strict buckets use no fallbacks.
        if !target.bucket.props.sloppy {
            return;
        }
        let missing = target.owners.seats().filter(|(owner, _)| !self.is_healthy(*owner));
        let missing: Vec<Seat> = missing.map(|(_, seat)| seat).collect();
        if missing.is_empty() {
            return;
        }
        let own = Some(self.config.node).filter(|node| !target.owners.contains(*node));
        let others = self.fallbacks(target).into_iter().filter(|node| Some(*node) != own);
        for (node, seat) in own.into_iter().chain(others).zip(missing) {
            // Rule: fallbacks are no owners.
            tally.add(node, Seat::fallback(seat.counts));
        }
    }

    /// The healthy nodes that may stand in for owners of a key, the preferred one first. Suspected ones come last.
    fn fallbacks(&self, target: &Target) -> Vec<NodeId> {
        let mut fallbacks = self.view.fallbacks(target, |node| self.is_healthy(node));
        self.contacts.sort(&mut fallbacks);
        fallbacks
    }

    /// A node that a write waits for will not take it, or is silent: the next fallback that was not asked yet is sent
    /// the write, and counts where that node did.
    pub(in crate::shard) fn stand_in(&mut self, turn: &mut Turn<'_>, op: &mut Op, seat: Seat) {
        let Work::Write(WriteWork { phase: WritePhase::Replicating { dot, tally, .. }, .. }) = &op.work else { return };
        if !op.target.bucket.props.sloppy {
            return;
        }
        let Some(node) = self.fallbacks(&op.target).into_iter().find(|node| !tally.has_asked(*node)) else { return };
        let (dot, place) = (*dot, Place { partition: op.target.partition, store_key: &op.target.store_key });
        // The copy may have come further meanwhile; then it has seen the write.
        let Ok(copy) = self.load(turn, place) else { return };
        if !copy.object.context.contains(dot) {
            return;
        }
        self.counters.fallbacks_asked += 1;
        let message = self.write_message(op, copy.object, dot);
        self.send(turn, node, op.trace, PeerBody::Replicate(message));
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            tally.add(node, Seat::fallback(seat.counts));
        }
    }

    /// A peer has been silent for so long that others take its place in what waits for it.
    pub(in crate::shard) fn peer_is_silent(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        let waiting: Vec<u64> =
            self.ops.iter().filter(|(_, op)| op.waits_for(peer)).map(|(&number, _)| number).collect();
        for number in waiting {
            self.with_op(turn, number, |shard, turn, mut op: Box<Op>| match &op.work {
                Work::Read(read) if read.fallbacks.contains(&peer) => {
                    shard.read_failed(turn, op, peer, "it has been silent for long")
                }
                Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) => {
                    if let Some(seat) = tally.seat(peer) {
                        shard.stand_in(turn, &mut op, seat);
                    }
                    Step::Keep(op)
                }
                _ => Step::Keep(op),
            });
        }
    }
}
