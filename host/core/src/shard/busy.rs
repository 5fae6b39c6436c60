//! Nodes that do not take a write at the moment, although they are well: the flushes of a store are behind, or too much
//! waits for a disk. That passes in a fraction of a second. The dot is minted by then, so the write is not refused: it
//! is sent to them again, after a pause, for as long as its client waits. A message that finds the queue to a peer full
//! is another thing: that peer does not read, perhaps for ever, and the operation is told at once.
//!
//! A node that stays busy is late like any other: a fallback is asked in its place when one would be
//! ([`relieve`](Shard::relieve)), and its answer still counts. A disk that is full is not busy: nobody knows when there
//! will be room.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use rand_core::Rng;

use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, NodeId};

use super::Shard;
use super::copy::Place;
use super::event::{DurableTicket, Effect};
use super::op::{BusyNode, Op, Step, Work, WritePhase, WriteWork};
use super::turn::Turn;

/// The longest pause before a busy node is sent a write again for the first time, in microseconds. Each further one is
/// twice as long. Half of it at least is waited; where in the other half is drawn, so that the writes that have met a
/// busy node do not all come to it again at once.
const FIRST_PAUSE_US: u64 = 40_000;
/// The longest of all, in microseconds.
const LONGEST_PAUSE_US: u64 = 320_000;
/// The most writes that are sent again in one turn, and the bytes of their objects at which it ends: a batch is not
/// looked at before it is over.
const AGAIN_AT_ONCE: usize = 16;
const AGAIN_BYTES: u64 = 1 << 20;
/// The bytes of objects that a shard sends again in a second: a node that is behind its flushes reads, joins and
/// refuses each of them, and would fall further behind.
const AGAIN_BYTES_A_SECOND: u64 = 128 << 20;

/// The writes that are sent again.
#[derive(Default, Debug)]
pub(super) struct Again {
    /// By the time of that: when, in microseconds, which operation's, to whom.
    due: BTreeSet<(u64, u64, NodeId)>,
    /// When the next one may be sent, in microseconds: what was sent before has taken its share of a second.
    from_us: u64,
}

impl Shard {
    /// A node does not take a write at the moment: it is sent to it again after a pause.
    pub(super) fn ask_later(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, node: NodeId) -> Step {
        let asked_us = op.asked_at_us(node);
        let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, busy, .. }) = &mut op.work else {
            return Step::Keep(op);
        };
        if !tally.is_waiting_for(node) {
            return Step::Keep(op);
        }
        let at = busy.iter().position(|known| known.node == node).unwrap_or_else(|| {
            busy.push(BusyNode { node, times: 0, asked_us, again_us: None });
            busy.len() - 1
        });
        let known = &mut busy[at];
        // Its answer may come twice.
        if known.again_us.is_none() {
            let most_us = (FIRST_PAUSE_US << known.times.min(8)).min(LONGEST_PAUSE_US);
            let pause_us = most_us / 2 + self.rng.next_u64() % (most_us / 2);
            let again_us = turn.now.mono_us.saturating_add(pause_us);
            known.times = known.times.saturating_add(1);
            known.again_us = Some(again_us);
            self.again.due.insert((again_us, op.id.number, node));
        }
        Step::Keep(op)
    }

    /// When the next write is sent to a busy node again, in microseconds.
    pub(super) fn next_again_us(&self) -> u64 {
        self.again.due.first().map_or(u64::MAX, |(at_us, ..)| self.again.from_us.max(*at_us))
    }

    /// Sends busy nodes the writes whose pause is over.
    pub(super) fn ask_busy(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_us < self.again.from_us {
            return;
        }
        let (mut sent, mut bytes) = (0, 0);
        while sent < AGAIN_AT_ONCE
            && bytes < AGAIN_BYTES
            && let Some(&(at_us, number, node)) = self.again.due.first().filter(|due| due.0 <= turn.now.mono_us)
        {
            self.again.due.pop_first();
            // Most have had their acknowledgements of other nodes meanwhile.
            sent += usize::from(self.ops.get(number).is_some());
            self.with_op(turn, number, |shard, turn, op| shard.ask_again(turn, op, (node, at_us), &mut bytes));
        }
        self.again.from_us = turn.now.mono_us + bytes * 1_000_000 / AGAIN_BYTES_A_SECOND;
    }

    /// Adds the bytes that are sent.
    fn ask_again(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        (node, at_us): (NodeId, u64),
        bytes: &mut u64,
    ) -> Step {
        let Work::Write(WriteWork { phase: WritePhase::Replicating { dot, tally, .. }, busy, .. }) = &mut op.work
        else {
            return Step::Keep(op);
        };
        // It may have answered meanwhile, or the write goes by a newer layout now.
        let is_due = |known: &&mut BusyNode| known.node == node && known.again_us == Some(at_us);
        let Some(known) = busy.iter_mut().find(is_due).filter(|_| tally.is_waiting_for(node)) else {
            return Step::Keep(op);
        };
        (known.asked_us, known.again_us) = (turn.now.mono_us, None);
        if !self.reachable(node) {
            return self.write_failed(turn, op, node, "not connected");
        }
        let (dot, place) = (*dot, Place { partition: op.target.partition, store_key: &op.target.store_key });
        // The copy may have come further meanwhile; then it has seen the write.
        let copy = match self.load(turn, place) {
            Ok(copy) if copy.object.context.contains(dot) => copy,
            // This node's own store is short of descriptors or memory for a moment.
            Err(ErrorCode::Overloaded) => return self.ask_later(turn, op, node),
            _ => return self.write_failed(turn, op, node, "the coordinator cannot send the write again"),
        };
        if node == self.config.node {
            turn.effects.push(Effect::WhenDurable(DurableTicket(op.id.number)));
            return Step::Keep(op);
        }
        self.counters.writes_sent_again += 1;
        let object = copy.encoded();
        *bytes += object.row().len() as u64;
        let message = self.write_message(&op, object, dot);
        self.send_for(turn, &op, node, PeerBody::Replicate(message));
        Step::Keep(op)
    }
}
