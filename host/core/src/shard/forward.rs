//! A request for a key that this node does not own: it is passed on to an owner, once.

use alloc::boxed::Box;

use rejoin_proto::client::{PutReply, Reply};
use rejoin_proto::peer::{DataRequest, Forward, PeerBody};
use rejoin_proto::{ErrorCode, ErrorReply, NodeId, TenantId};

use super::Shard;
use super::op::{Op, Origin, Step, Work};
use super::turn::Turn;

impl Shard {
    /// Sends the request to the first owner that can be asked and that answers, as far as is known, with the time that
    /// is left for it.
    pub(super) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        tenant: TenantId,
        request: DataRequest,
    ) -> Step {
        if op.origins.iter().any(|origin| matches!(origin, Origin::Peer { .. })) {
            let message =
                "the forwarding node's layout counts this node among the owners, its own does not; try again shortly";
            return self.finish(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::StaleLayout, message)));
        }
        let owners = op.target.owners.iter().filter(|&owner| self.reachable(owner));
        let Some(to) = owners.min_by_key(|owner| self.contacts.liveness(*owner)) else {
            let tally = self.tally(&op.target.owners, 1, 0);
            let reply = self.quorum_error(
                ErrorCode::Unavailable,
                "no owner of the key can be reached; nothing was done",
                &tally,
            );
            return self.finish(turn, &op, reply);
        };
        self.counters.forwards += 1;
        let left_us = op.deadline_us.saturating_sub(turn.now.mono_us);
        let deadline_ms = u32::try_from(left_us / 1000).unwrap_or(u32::MAX).max(1);
        op.work = Work::Forward { to, is_put: matches!(request, DataRequest::Put(_)) };
        let forward = Forward { op: op.id, tenant, deadline_ms, request };
        self.send(turn, to, op.trace, PeerBody::Forward(forward));
        Step::Keep(op)
    }

    /// The owner's answer is the client's, but for the receipt: from here it could not be settled.
    pub(super) fn forward_answered(&mut self, turn: &mut Turn<'_>, op: Box<Op>, from: NodeId, reply: Reply) -> Step {
        if !matches!(op.work, Work::Forward { to, .. } if to == from) {
            return Step::Keep(op);
        }
        let reply = match reply {
            Reply::Put(reply) => Reply::Put(PutReply { receipt: None, ..reply }),
            other => other,
        };
        self.finish(turn, &op, reply)
    }
}

/// What a client is told when the owner's answer will not come: a write may have been done.
pub(super) fn lost(is_put: bool, why: &str) -> Reply {
    let (code, after) = match is_put {
        true => (ErrorCode::Unknown, "the write may still take effect"),
        false => (ErrorCode::TimedOut, "read again"),
    };
    Reply::Error(ErrorReply::new(code, alloc::format!("{why}; {after}")))
}
