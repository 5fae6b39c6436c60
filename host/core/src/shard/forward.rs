//! A request for a key that this node does not own: it is passed on to an owner.
//!
//! A write goes to one owner only, unless it was not sent or that owner has refused it: otherwise it may have minted a
//! dot for it. A read goes to the next owner too when the one that was asked is late or cannot answer any more, and the
//! first answer counts.

use alloc::boxed::Box;

use smallvec::SmallVec;

use rejoin_proto::client::{Get, Put, PutReply, Reply};
use rejoin_proto::peer::{DataRequest, Forward, PeerBody};
use rejoin_proto::{ErrorCode, ErrorReply, NodeId};

use super::Shard;
use super::contacts::QUEUE_RETRY_MS;
use super::op::{Op, Origin, Step, Work};
use super::turn::Turn;
use crate::layouts::{LayoutSet, Seat};
use crate::quorum::Tally;

/// A request that waits for an owner's answer.
#[derive(Debug)]
pub(super) struct ForwardWork {
    /// The owners that were asked, each with the time of that, in microseconds.
    asked: SmallVec<[(NodeId, u64); 2]>,
    /// Those of them that may still answer. One answer is enough.
    pub(super) tally: Tally,
    /// What is asked of another owner; `None` for a write.
    get: Option<Get>,
    /// A write, for an owner that has refused it because of the layout: it has not done it.
    put: Option<Box<Put>>,
}

impl ForwardWork {
    fn new(request: &DataRequest) -> Self {
        let (get, put) = match request {
            DataRequest::Get(get) => (Some(get.clone()), None),
            DataRequest::Put(put) => (None, Some(Box::new(put.clone()))),
        };
        Self { asked: SmallVec::new(), tally: Tally::new(1, 0, []), get, put }
    }

    /// What was asked.
    pub(super) fn request(&self) -> Option<DataRequest> {
        let put = || self.put.as_deref().cloned().map(DataRequest::Put);
        self.get.clone().map(DataRequest::Get).or_else(put)
    }

    /// The bytes of the value that it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.put.as_ref().map_or(0, |put| put.content.len())
    }

    /// When a node was asked, in microseconds.
    pub(super) fn asked_at_us(&self, node: NodeId) -> Option<u64> {
        self.asked.iter().find(|(asked, _)| *asked == node).map(|(_, at_us)| *at_us)
    }

    /// Whether others may be asked in the place of an owner that is late.
    pub(super) fn may_ask_others(&self) -> bool {
        self.get.is_some()
    }

    /// What a client is told when the owner's answer will not come: a write may have been done.
    fn lost(&self, why: &str) -> Reply {
        let (code, after) = match self.get {
            None => (ErrorCode::Unknown, "the write may still take effect"),
            Some(_) => (ErrorCode::TimedOut, "read again"),
        };
        Reply::Error(ErrorReply::new(code, alloc::format!("{why}; {after}")))
    }
}

impl Shard {
    /// Sends the request to the first owner that can be asked and that answers, as far as is known.
    pub(super) fn forward(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, request: DataRequest) -> Step {
        if op.origins.iter().any(|origin| matches!(origin, Origin::Peer { .. })) {
            let message =
                "the forwarding node's layout counts this node among the owners, its own does not; try again shortly";
            return self.finish(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::StaleLayout, message)));
        }
        op.work = Work::Forward(ForwardWork::new(&request));
        self.counters.forwards += 1;
        if self.forward_to_next(turn, &mut op, request) {
            return Step::Keep(op);
        }
        let tally = self.tally(&op.target.owners, 1, 0);
        let message = "no owner of the key can be reached; nothing was done";
        let reply = self.quorum_error(ErrorCode::Unavailable, message, &tally);
        self.finish(turn, &op, reply)
    }

    /// Sends the request to the best owner that was not asked yet, with the time that is left for it. Returns whether
    /// there is one.
    fn forward_to_next(&mut self, turn: &mut Turn<'_>, op: &mut Op, request: DataRequest) -> bool {
        let Work::Forward(forward) = &mut op.work else { return false };
        let owners = op.target.owners.iter().filter(|&owner| self.reachable(owner) && !forward.tally.has_asked(owner));
        let Some(to) = owners.min_by_key(|owner| self.contacts.liveness(*owner)) else { return false };
        forward.asked.push((to, turn.now.mono_us));
        forward.tally.add(to, Seat::owner(LayoutSet::NEWEST));
        let left_us = op.deadline_us.saturating_sub(turn.now.mono_us);
        let deadline_ms = u32::try_from(left_us / 1000).unwrap_or(u32::MAX).max(1);
        let message = Forward { op: op.id, tenant: op.target.object.tenant, deadline_ms, request };
        self.send(turn, to, op.trace, PeerBody::Forward(message));
        self.expect_relief(turn.now.mono_us, op);
        true
    }

    /// Asks the next owner in the place of one that is late. That one's answer still counts if it comes first.
    pub(super) fn forward_again(&mut self, turn: &mut Turn<'_>, op: &mut Op, late: NodeId) {
        let Work::Forward(forward) = &mut op.work else { return };
        // Rule: slow gets are forwarded again. A write is not: two owners would mint two dots for it.
        let Some(get) = forward.get.clone() else { return };
        if forward.tally.relieve(late).is_some() {
            self.forward_to_next(turn, op, DataRequest::Get(get));
        }
    }

    /// An owner will not answer. A read is sent to the next one, unless somebody was asked in its place already.
    pub(super) fn forward_failed(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, node: NodeId, why: &str) -> Step {
        let Work::Forward(forward) = &mut op.work else { return Step::Keep(op) };
        let is_unrelieved = forward.tally.bad(node, why).is_some();
        if let Some(get) = forward.get.clone().filter(|_| is_unrelieved) {
            self.forward_to_next(turn, &mut op, DataRequest::Get(get));
        }
        match &op.work {
            Work::Forward(forward) if forward.tally.is_complete() => {
                let reply = forward.lost("the connection to the owner that it was forwarded to was lost");
                self.finish(turn, &op, reply)
            }
            _ => Step::Keep(op),
        }
    }

    /// The request has not left this node, whatever it is: the next owner is asked.
    pub(super) fn not_forwarded(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        to: NodeId,
        request: DataRequest,
    ) -> Step {
        let Work::Forward(forward) = &mut op.work else { return Step::Keep(op) };
        forward.tally.bad(to, "too much waits to be sent to it");
        if self.forward_to_next(turn, &mut op, request) || op.awaited().next().is_some() {
            return Step::Keep(op);
        }
        let message = "too much waits to be sent to the owners of the key; nothing was done";
        let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(QUEUE_RETRY_MS);
        self.finish(turn, &op, Reply::Error(error))
    }

    /// The owner's answer is the client's, but for the receipt: from here it could not be settled. An error waits for
    /// the others that were asked.
    pub(super) fn forward_answered(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        from: NodeId,
        reply: Reply,
    ) -> Step {
        let Work::Forward(forward) = &mut op.work else { return Step::Keep(op) };
        if !forward.tally.is_waiting_for(from) {
            return Step::Keep(op);
        }
        // Rule: refusals go to the next owner. Who is no owner, starts or stops has done nothing.
        let is_refusal = |code| matches!(code, ErrorCode::StaleLayout | ErrorCode::NotServing | ErrorCode::Stopping);
        if matches!(&reply, Reply::Error(error) if is_refusal(error.code)) {
            return self.forward_refused(turn, op, from, reply);
        }
        forward.tally.good(from);
        if matches!(reply, Reply::Error(_)) && !forward.tally.is_complete() {
            return Step::Keep(op);
        }
        let reply = match reply {
            Reply::Put(reply) => Reply::Put(PutReply { receipt: None, ..reply }),
            other => other,
        };
        self.stop_waiting(&op);
        self.finish(turn, &op, reply)
    }

    /// One that was taken for an owner is none, or does not serve, and has done nothing. The next one is asked, or the
    /// owners in a newer layout.
    fn forward_refused(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, from: NodeId, refusal: Reply) -> Step {
        let Work::Forward(forward) = &mut op.work else { return Step::Keep(op) };
        let request = forward.request();
        let why = match &refusal {
            Reply::Error(error) if error.code != ErrorCode::StaleLayout => "it does not serve",
            _ => "its layout does not name it as an owner",
        };
        forward.tally.bad(from, why);
        let is_complete = forward.tally.is_complete();
        let Some(request) = request else { return self.finish(turn, &op, refusal) };
        if self.is_overtaken(&op) {
            return self.start_by_newer(turn, op, request);
        }
        if self.forward_to_next(turn, &mut op, request) || !is_complete {
            return Step::Keep(op);
        }
        self.finish(turn, &op, refusal)
    }

    /// No owner has answered in time.
    pub(super) fn forward_timed_out(&mut self, turn: &mut Turn<'_>, op: &Op) -> Step {
        let Work::Forward(forward) = &op.work else { return Step::Done };
        let reply = forward.lost("the owner that it was forwarded to did not answer in time");
        self.finish(turn, op, reply)
    }
}
