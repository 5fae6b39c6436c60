//! What a shard does for exchanges and drains has to leave room for requests: before each piece of work the
//! pacer is asked when it may begin. Questions of peers that take work wait here until then, so that a peer, which asks
//! one question of a walk at a time, is held to the pace of this node too.

use alloc::vec::Vec;

use rejoin_proto::catalog::Durability;
use rejoin_proto::exchange::{Ask, ExchangeAnswer, ObjectBatch};
use rejoin_proto::peer::{PeerBody, Replicate};
use rejoin_proto::{ErrorCode, LayoutRef, NodeId};

use super::Shard;
use super::event::{DurableTicket, Effect, Now};
use super::exchange::ANSWER_US;
use super::op::{Op, Origin};
use super::turn::Turn;
use crate::causal;
use crate::exchange::pace::{Kind, OBJECT_BYTES};
use crate::exchange::state::{Held, HeldBody};

/// The most questions that waited and are answered in one turn.
const HELD_AT_ONCE: usize = 4;
/// Reading and hashing an object takes this part of the work of moving it.
const READING: u64 = 4;

impl Shard {
    /// When the next piece of exchange work may begin.
    pub(super) fn may_work_at(&mut self, now: Now) -> u64 {
        if self.exchanges.pacer.is_due(now.mono_us) {
            let is_late = |op: &&Op| op.is_of_client() && !self.lingering.contains(&op.id.number);
            let waiting: Vec<(Kind, u64)> =
                self.ops.values().filter(is_late).map(|op| (op.kind, op.begun_us)).collect();
            self.exchanges.pacer.adapt(now.mono_us, waiting.into_iter());
        }
        self.exchanges.pacer.may_work_at(now, self.ops.len() - self.lingering.len())
    }

    /// An operation is answered: what it took says how much exchange work may go on.
    pub(super) fn note_latency(&mut self, now: Now, op: &Op) {
        if op.is_of_client() {
            self.exchanges.pacer.answered(now.mono_us, op.begun_us, op.kind);
        }
    }

    /// A message of a peer is about to be handled. Those that requests of its clients wait for are noted, and so is
    /// what a drain brings.
    pub(super) fn note_peer_message(&mut self, turn: &mut Turn<'_>, body: &PeerBody) {
        let now = turn.now;
        match body {
            PeerBody::Read { .. } => self.exchanges.pacer.served(now.mono_us),
            PeerBody::Replicate(message) if message.dot.is_some() => {
                self.exchanges.pacer.served(now.mono_us);
                // The acknowledgement waits for the disk anyway: to learn when it is there costs no sync.
                let waits = message.durability == Durability::Fsync;
                if waits {
                    let ticket = self.ops.ticket();
                    if self.exchanges.pacer.times(now.mono_us, ticket) {
                        turn.effects.push(Effect::WhenDurable(DurableTicket(ticket)));
                    }
                }
            }
            // Not a repair, which nobody waits for.
            PeerBody::Replicate(Replicate { op: Some(_), object, state, .. }) => {
                let cost = cost_of(object.key.len() + causal::value_bytes(state));
                self.exchanges.pacer.spend(now.mono_us, cost);
            }
            _ => {}
        }
    }

    /// Rows were read to compare them.
    pub(super) fn spend_reading(&mut self, now: Now, (rows, bytes): (usize, u64)) {
        if rows > 0 {
            let cost = bytes.max(rows as u64 * OBJECT_BYTES) / READING;
            self.exchanges.pacer.spend(now.mono_us, cost);
        }
    }

    /// A peer asks something for an exchange or a drain: it is answered now, or when this shard may work on it.
    pub(super) fn asked_by_peer(&mut self, turn: &mut Turn<'_>, held: Held) {
        let takes_work = match &held.body {
            HeldBody::Exchange(asked) => !matches!(asked.ask, Ask::Roots(_) | Ask::Buckets(_) | Ask::Ended { .. }),
            HeldBody::Offer(_) => true,
        };
        let may_begin = self.exchanges.held.is_empty() && self.may_work_at(turn.now) <= turn.now.mono_us;
        // Rule: receivers hold exchanges back. The sender cannot know what its objects do to the requests here.
        if !takes_work || !self.serving || may_begin {
            return self.answer_held(turn, held);
        }
        let waiting: u64 = self.exchanges.held.iter().map(|held| self.held_bytes(held)).sum();
        let waits_us = self.exchanges.pacer.longest_us(waiting);
        if waits_us > ANSWER_US / 2 && self.refuse_held(turn, &held) {
            return;
        }
        self.exchanges.held.push_back(held);
        self.exchange_soon();
    }

    /// Answers questions that have waited, as far as this shard may.
    pub(super) fn answer_waiting(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..HELD_AT_ONCE {
            if self.exchanges.held.is_empty() || self.may_work_at(turn.now) > turn.now.mono_us {
                break;
            }
            if let Some(held) = self.exchanges.held.pop_front() {
                self.answer_held(turn, held);
            }
        }
    }

    /// When questions that wait may be answered.
    pub(super) fn next_held_us(&mut self, now: Now) -> Option<u64> {
        (!self.exchanges.held.is_empty()).then(|| self.may_work_at(now))
    }

    fn answer_held(&mut self, turn: &mut Turn<'_>, held: Held) {
        let Held { peer, layout, trace, body } = held;
        match body {
            HeldBody::Exchange(asked) => self.exchange_asked(turn, peer, (layout, trace), asked),
            HeldBody::Offer(offer) => self.serve_offer(turn, peer, trace, layout, offer),
        }
    }

    /// Refuses a question for which too many wait. An offer is never refused: its sender has one under way.
    fn refuse_held(&mut self, turn: &mut Turn<'_>, held: &Held) -> bool {
        let HeldBody::Exchange(asked) = &held.body else { return false };
        let (walk, number, epoch) = (asked.walk, asked.number, self.epoch());
        let body = ExchangeAnswer { walk, number, epoch, answer: Err(ErrorCode::Overloaded) };
        self.send(turn, held.peer, held.trace, PeerBody::ExchangeAnswer(body));
        true
    }

    /// The bytes that a question is taken to move.
    fn held_bytes(&self, held: &Held) -> u64 {
        match &held.body {
            HeldBody::Exchange(asked) => match &asked.ask {
                Ask::Objects { batch, .. } => cost_of_batch(batch),
                _ => self.config.exchange.piece_bytes as u64,
            },
            HeldBody::Offer(_) => self.config.exchange.piece_bytes as u64,
        }
    }

    /// When a drain may take its next step; `None`: now.
    pub(super) fn drain_waits_until(&mut self, now: Now) -> Option<u64> {
        if self.exchanges.paused {
            return Some(now.mono_us.saturating_add(self.config.handoff.retry_us / 4));
        }
        Some(self.may_work_at(now)).filter(|at_us| *at_us > now.mono_us)
    }

    /// Objects of that many bytes with their keys go to a peer, or come from one.
    pub(super) fn spend_moved(&mut self, now: Now, objects: impl IntoIterator<Item = usize>) {
        let cost = objects.into_iter().map(cost_of).sum();
        self.exchanges.pacer.spend(now.mono_us, cost);
    }
}

impl Op {
    /// Whether a client of this node waits for it.
    fn is_of_client(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::Client(_)))
    }
}

impl Held {
    pub(super) fn new(peer: NodeId, (layout, trace): (LayoutRef, u64), body: HeldBody) -> Self {
        Self { peer, layout, trace, body }
    }
}

/// What an object of so many bytes counts.
fn cost_of(bytes: usize) -> u64 {
    (bytes as u64).max(OBJECT_BYTES)
}

fn cost_of_batch(batch: &ObjectBatch) -> u64 {
    batch.objects.iter().map(|(key, object)| cost_of(key.len() + causal::value_bytes(object))).sum()
}
