//! Requests that a change of layout overtakes: a node has refused them, because it has retired the layout by which it
//! was asked, or closed it. They begin anew by the newer layout, at once or when it comes here, until their deadline.

use alloc::boxed::Box;

use rejoin_proto::client::Reply;
use rejoin_proto::peer::DataRequest;
use rejoin_proto::{ErrorCode, ErrorReply, LayoutRef, NodeId};

use super::Shard;
use super::op::{CopyAnswer, Op, PendingWrite, ReadPhase, ReadPurpose, Step, Work, WritePhase, WriteWork};
use super::turn::Turn;
use crate::quorum::Verdict;
use crate::rows::RetryRow;

impl Shard {
    /// A node has refused a write. `by` is its newest layout.
    pub(super) fn write_refused(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        (node, by): (NodeId, LayoutRef),
        code: ErrorCode,
    ) -> Step {
        op.is_stale |= code == ErrorCode::StaleLayout && by > op.target.layout;
        // Rule: busy nodes are asked again.
        if code == ErrorCode::Overloaded {
            return self.ask_later(turn, op, node);
        }
        self.node_failed(turn, op, node, &rejoin_proto::peer::refusal(code))
    }

    /// A node has answered a read.
    pub(super) fn read_replied(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        answer: CopyAnswer,
        by: LayoutRef,
    ) -> Step {
        op.is_stale |= matches!(answer.copy, Err(ErrorCode::StaleLayout)) && by > op.target.reads;
        self.read_answered(turn, op, answer)
    }

    /// Whether there is a newer layout here than an operation has asked by, or reads go by a newer one.
    pub(super) fn is_overtaken(&self, op: &Op) -> bool {
        (op.target.layout, op.target.reads) != (self.view.layout_name(), self.view.layouts().reads_name())
    }

    /// An operation cannot go on by its layout. It waits for the newer one that others have, if it is not here yet.
    pub(super) fn go_on_by_newer(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        // Rule: overtaken requests go on.
        if !self.is_overtaken(&op) {
            return Step::Keep(op);
        }
        match core::mem::replace(&mut op.work, Work::Starting) {
            Work::Read(read) => {
                let request = match read.purpose {
                    ReadPurpose::Reply(get) => DataRequest::Get(get),
                    // Nothing is written yet.
                    ReadPurpose::Create(put)
                    | ReadPurpose::Recover(PendingWrite { put, .. })
                    | ReadPurpose::Undo(PendingWrite { put, .. }) => DataRequest::Put(put),
                };
                self.start_by_newer(turn, op, request)
            }
            Work::Write(WriteWork { write, phase: WritePhase::Replicating { dot, context, .. }, .. }) => {
                // The dot is minted: the same write goes to the owners of now.
                match self.aim_anew(&mut op) {
                    Ok(()) => self.replicate_again(turn, op, write.put, RetryRow { dot, context, epoch: 0 }),
                    Err(error) => self.finish(turn, &op, Reply::Error(error)),
                }
            }
            work => {
                op.work = work;
                Step::Keep(op)
            }
        }
    }

    /// Begins a request anew by the layouts of now.
    pub(super) fn start_by_newer(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, request: DataRequest) -> Step {
        match self.aim_anew(&mut op) {
            Ok(()) => self.start_request(turn, op, request),
            Err(error) => self.finish(turn, &op, Reply::Error(error)),
        }
    }

    /// Finds the owners of an operation's key anew.
    fn aim_anew(&mut self, op: &mut Op) -> Result<(), ErrorReply> {
        let object = &op.target.object;
        op.target = self.view.target(object.tenant, &op.target.bucket.name, &object.key)?;
        op.is_stale = false;
        self.counters.overtaken += 1;
        // It is one of the operations of now.
        self.ring.forget_earlier(op.id.number);
        Ok(())
    }

    /// There is a newer layout: operations that wait for it go on.
    pub(super) fn go_on_stale(&mut self, turn: &mut Turn<'_>) {
        let waits = |op: &Op| op.is_stale && self.is_overtaken(op) && is_blocked(op);
        for number in self.ops.which(waits) {
            self.with_op(turn, number, Self::go_on_by_newer);
        }
    }
}

/// Whether an operation has no answer, and cannot come to one.
fn is_blocked(op: &Op) -> bool {
    match &op.work {
        Work::Read(read) => matches!(read.phase, ReadPhase::Collecting) && read.tally.verdict() == Verdict::Impossible,
        Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) => {
            tally.verdict() == Verdict::Impossible
        }
        _ => false,
    }
}
