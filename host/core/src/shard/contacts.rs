//! What this shard sees of its peers' liveness, and what it is told of it.
//!
//! What has become of its requests goes to [`Members`](crate::members::Members). What comes back, a peer's
//! [`Liveness`], changes the order in which owners are asked, and when a fallback is asked in a node's place.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rejoin_proto::client::Reply;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, ErrorReply, NodeId};

use super::Shard;
use super::asking::ReadLimits;
use super::event::Effect;
use super::handoff::HandoffLimits;
use super::op::Op;
use super::read_times::ReadTimes;
use super::turn::Turn;
use crate::members::{Liveness, Requests};

/// When a client may try again whose request found the queue to the owner full, in milliseconds.
pub(super) const QUEUE_RETRY_MS: u32 = 50;
/// How often the outcomes of requests are told, in microseconds.
const REPORT_US: u64 = 200_000;
/// For how long an answer is waited for that no operation needs any more, in microseconds.
const LATE_US: u64 = 5_000_000;

/// How long a peer's answers take, in microseconds: mean and mean deviation, smoothed like TCP's round trips (RFC
/// 6298).
#[derive(Clone, Copy, Debug)]
struct Latency {
    mean_us: u64,
    deviation_us: u64,
}

impl Latency {
    fn first(took_us: u64) -> Self {
        Self { mean_us: took_us, deviation_us: took_us / 2 }
    }

    fn add(&mut self, took_us: u64) {
        let difference = self.mean_us.abs_diff(took_us);
        self.deviation_us = self.deviation_us - self.deviation_us / 4 + difference / 4;
        self.mean_us = self.mean_us - self.mean_us / 8 + took_us / 8;
    }
}

/// The requests to each peer, since they were last told.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    /// The longest time that an answer of a peer took.
    answered: BTreeMap<NodeId, u64>,
    /// When the oldest question was asked whose operation has ended without the peer's answer: W was reached, or the
    /// deadline came.
    late: BTreeMap<NodeId, u64>,
    /// The peers of which an open request was told.
    waiting: Vec<NodeId>,
    /// The peers that are not alive.
    doubted: BTreeMap<NodeId, Liveness>,
    latencies: BTreeMap<NodeId, Latency>,
    /// How long the answers to reads take.
    reads: BTreeMap<NodeId, ReadTimes>,
    next_report_us: u64,
}

impl Contacts {
    pub(super) fn set(&mut self, peer: NodeId, liveness: Liveness) {
        match liveness {
            Liveness::Alive => drop(self.doubted.remove(&peer)),
            doubted => drop(self.doubted.insert(peer, doubted)),
        }
    }

    /// Whether a peer answers, as far as this node knows.
    pub(super) fn liveness(&self, peer: NodeId) -> Liveness {
        self.doubted.get(&peer).copied().unwrap_or(Liveness::Alive)
    }

    /// How long a write waits for a peer before it asks a fallback too, in microseconds.
    pub(super) fn patience_us(&self, peer: NodeId, limits: &HandoffLimits) -> u64 {
        let recent = match (self.liveness(peer), self.latencies.get(&peer)) {
            (Liveness::Alive, Some(latency)) => latency.mean_us.saturating_add(8 * latency.deviation_us),
            (Liveness::Alive, None) => limits.relief_max_us,
            _ => limits.relief_min_us,
        };
        recent.min(limits.relief_max_us).max(limits.relief_min_us)
    }

    /// How long a read waits for a peer before it asks other owners too, in microseconds.
    pub(super) fn hedge_us(&self, peer: NodeId, limits: &ReadLimits) -> u64 {
        let usual_us = match (self.liveness(peer), self.reads.get(&peer)) {
            (Liveness::Alive, Some(times)) => times.slow_us(),
            (Liveness::Alive, None) => limits.hedge_max_us,
            _ => limits.hedge_min_us,
        };
        usual_us.max(limits.hedge_min_us).min(limits.hedge_max_us)
    }

    /// Puts those that answer first, and of these the nearest. Others keep their order.
    pub(super) fn sort(&self, nodes: &mut [NodeId]) {
        let distance = |node: &NodeId| self.reads.get(node).map_or(0, ReadTimes::distance);
        nodes.sort_by_key(|node| (self.liveness(*node), distance(node)));
    }

    /// The connection to a peer is lost: nothing that was asked on it will be answered.
    pub(super) fn lost(&mut self, peer: NodeId) {
        self.late.remove(&peer);
        self.answered.remove(&peer);
        self.latencies.remove(&peer);
        self.reads.remove(&peer);
    }

    fn is_idle(&self) -> bool {
        self.answered.is_empty() && self.late.is_empty() && self.waiting.is_empty()
    }
}

impl Shard {
    /// A peer has answered a request, whatever it says.
    pub(super) fn heard(&mut self, turn: &Turn<'_>, from: NodeId, body: &PeerBody) {
        let (number, is_copy) = match body {
            PeerBody::ForwardReply { op, .. } | PeerBody::Replicated { op, .. } => (op.number, false),
            // A refusal comes sooner than a copy.
            PeerBody::ReadReply { op, copy, .. } => (op.number, copy.is_ok()),
            PeerBody::ReadSame { op, .. } => (op.number, true),
            _ => return,
        };
        let open = self.ops.get(number).filter(|op| op.waits_for(from)).map(|op| op.asked_at_us(from));
        let late = self.contacts.late.remove(&from);
        let Some(asked_us) = open.or(late) else { return };
        let took_us = turn.now.mono_us.saturating_sub(asked_us);
        let longest = self.contacts.answered.entry(from).or_default();
        *longest = took_us.max(*longest);
        let latencies = self.contacts.latencies.entry(from);
        latencies.and_modify(|latency| latency.add(took_us)).or_insert_with(|| Latency::first(took_us));
        if is_copy && open.is_some() {
            let reads = self.contacts.reads.entry(from);
            reads.and_modify(|times| times.add(took_us)).or_insert_with(|| ReadTimes::first(took_us));
        }
    }

    /// An operation ends: answers that are still to come say something of the peers that owe them.
    pub(super) fn stop_waiting(&mut self, op: &Op) {
        for peer in op.awaited().filter(|peer| *peer != self.config.node) {
            self.contacts.late.entry(peer).or_insert(op.asked_at_us(peer));
        }
    }

    /// A message was not sent: the operation that waits for it goes on without, or ends.
    pub(super) fn not_sent(&mut self, turn: &mut Turn<'_>, to: NodeId, body: &PeerBody) {
        if let PeerBody::ExchangeAsk(asked) = body {
            return self.exchange_not_sent(turn, asked);
        }
        let op = match body {
            PeerBody::Forward(forward) => {
                let request = forward.request.clone();
                return self
                    .with_op(turn, forward.op.number, |shard, turn, op| shard.not_forwarded(turn, op, to, request));
            }
            PeerBody::Read { op, .. } => Some(*op),
            PeerBody::Replicate(message) => message.op,
            // The operation is another node's, and waits for this answer. A short one may fit.
            PeerBody::ReadReply { op, epoch, copy: Ok(_), complete }
            | PeerBody::ReadSame { op, epoch, complete, .. } => {
                let (op, epoch, complete, copy) = (*op, *epoch, *complete, Err(ErrorCode::Overloaded));
                return self.send(turn, to, 0, PeerBody::ReadReply { op, epoch, copy, complete });
            }
            PeerBody::ForwardReply { op, reply: Reply::Get(_) } => {
                let message = "too much waits to be sent from the owner of the key";
                let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(QUEUE_RETRY_MS);
                return self.send(turn, to, 0, PeerBody::ForwardReply { op: *op, reply: Reply::Error(error) });
            }
            PeerBody::Offer(_) => return self.drain.lost(to),
            // Nobody here waits for an answer to anything else.
            _ => None,
        };
        let Some(op) = op else { return };
        if self.drain.has_sent(op.number) {
            return self.drain.lost(to);
        }
        self.with_op(turn, op.number, |shard, turn, op| {
            // Rule: unsent messages are told.
            shard.node_failed(turn, op, to, "too much waits to be sent to it")
        });
    }

    /// When the outcomes of requests are due to be told.
    pub(super) fn next_report_us(&self) -> u64 {
        if self.ops.is_empty() && self.contacts.is_idle() { u64::MAX } else { self.contacts.next_report_us }
    }

    /// Tells what has become of requests to peers: of each that has answered, or that a request waits for, and once
    /// more of each that none waits for any more.
    pub(super) fn report(&mut self, turn: &mut Turn<'_>) {
        if turn.now.mono_us < self.next_report_us() {
            return;
        }
        self.contacts.next_report_us = turn.now.mono_us.saturating_add(REPORT_US);
        let mut requests: BTreeMap<NodeId, Requests> = BTreeMap::new();
        for (peer, longest_us) in core::mem::take(&mut self.contacts.answered) {
            requests.entry(peer).or_default().answered_after_us = Some(longest_us);
        }
        for peer in self.contacts.waiting.drain(..) {
            requests.entry(peer).or_default();
        }
        self.contacts.late.retain(|_, asked_us| turn.now.mono_us.saturating_sub(*asked_us) < LATE_US);
        let late = self.contacts.late.iter().map(|(peer, asked_us)| (*peer, *asked_us));
        let open = self.ops.values().flat_map(|op| op.awaited().map(|peer| (peer, op.asked_at_us(peer))));
        for (peer, asked_us) in late.chain(open).filter(|(peer, _)| *peer != self.config.node) {
            let since_us = &mut requests.entry(peer).or_default().waiting_since_us;
            *since_us = Some(since_us.map_or(asked_us, |at_us| at_us.min(asked_us)));
        }
        self.contacts
            .waiting
            .extend(requests.iter().filter(|(_, told)| told.waiting_since_us.is_some()).map(|(peer, _)| *peer));
        if !requests.is_empty() {
            turn.effects.push(Effect::Requests(requests.into_iter().collect()));
        }
    }
}
