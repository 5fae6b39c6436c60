//! An operation under way: whose it is, what it is about, how far it has come.

use alloc::string::String;
use alloc::vec::Vec;

use rejoin_proto::client::{Get, Put, Receipt};
use rejoin_proto::peer::OpId;
use rejoin_proto::{Dot, Entry, NodeId, Object, ObjectId, ReapEpoch, RequestId, TenantId, VersionVector};

use super::event::ReplyTo;
use crate::causal;
use crate::quorum::Tally;
use crate::view::Target;

/// Who waits for the reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Client(ReplyTo),
    Peer { node: NodeId, op: OpId },
}

#[derive(Debug)]
pub(super) struct Op {
    /// More than one when a retry has met the first attempt still under way.
    pub(super) origins: Vec<Origin>,
    pub(super) trace: u64,
    pub(super) deadline_us: u64,
    pub(super) target: Target,
    pub(super) work: Work,
    /// What it was last counted with, see [`Op::weigh`].
    pub(super) bytes: usize,
}

/// What an operation takes beside the bytes of its key and values.
pub(super) const OP_BYTES: usize = 512;

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // It is kept in a box as a part of its operation.
pub(super) enum Work {
    /// Not yet decided; never kept.
    Starting,
    /// Waits for an owner to answer the client's request.
    Forward {
        to: NodeId,
        is_put: bool,
    },
    Read(ReadWork),
    /// Waits for the bucket's plugin to validate the value. Nothing is written yet.
    Validate(ValidateWork),
    Write(WriteWork),
}

#[derive(Debug)]
pub(super) struct ValidateWork {
    pub(super) put: Put,
    /// What the writer has seen; none for a create, which has yet to look.
    pub(super) seen: Option<VersionVector>,
}

#[derive(Debug)]
pub(super) struct ReadWork {
    pub(super) aim: Aim,
    pub(super) tally: Tally,
    /// Who has answered with a copy, and whether that is what all copies are joined to: to know whom to repair. The
    /// copies themselves are not kept, because an answered read may wait for a late owner for as long as its deadline
    /// is away.
    pub(super) copies: Vec<(NodeId, bool)>,
    /// The owners that cannot read theirs.
    pub(super) damaged: Vec<NodeId>,
    /// The join of all copies, and the lowest epoch among them.
    pub(super) joined: Object,
    pub(super) epoch: ReapEpoch,
    pub(super) phase: ReadPhase,
    /// What a plugin made of which entries, if it is to be folded.
    pub(super) folded: Option<Folded>,
}

/// Why an object is read.
#[derive(Debug)]
pub(super) enum Aim {
    Reply(Get),
    /// A write that must find nothing.
    Create(Put),
    /// A write, by what its writer has seen, whose coordinator cannot read its own copy: first it takes what the others
    /// have.
    Heal(Put, VersionVector),
}

#[derive(Debug)]
pub(super) enum ReadPhase {
    Collecting,
    /// `seen` is what the inputs were read with: a copy that comes while the plugin runs must not widen the reader's
    /// context, because the reader is not shown what that copy holds.
    Merging {
        inputs: Vec<Entry>,
        seen: VersionVector,
    },
    /// The client has its answer; those that are late still take part in the repair.
    Answered,
}

#[derive(Debug)]
pub(super) struct Folded {
    pub(super) inputs: Vec<Entry>,
    pub(super) value: bytes::Bytes,
    pub(super) by: Option<rejoin_proto::FoldedBy>,
}

#[derive(Debug)]
pub(super) struct WriteWork {
    pub(super) put: Put,
    pub(super) seen: VersionVector,
    pub(super) phase: WritePhase,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // As above.
pub(super) enum WritePhase {
    /// The object is at its limit; what is there is merged first.
    Folding { inputs: Vec<Entry> },
    /// The dot is minted, the write is on its way.
    Replicating { dot: Dot, tally: Tally, context: Vec<u8> },
}

impl Op {
    /// Whether an answer of that node is still to come.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        match &self.work {
            Work::Starting | Work::Validate(_) => false,
            Work::Forward { to, .. } => *to == node,
            Work::Read(read) => read.tally.is_waiting_for(node),
            Work::Write(write) => matches!(&write.phase, WritePhase::Replicating { tally, .. } if tally.is_waiting_for(node)),
        }
    }

    /// The bytes that it keeps in memory.
    pub(super) fn weigh(&self) -> usize {
        let folding = |inputs: &[Entry]| inputs.iter().map(|entry| entry.content.len()).sum::<usize>();
        let held = match &self.work {
            Work::Starting | Work::Forward { .. } => 0,
            Work::Validate(validate) => validate.put.content.len(),
            Work::Read(read) => {
                let put = match &read.aim {
                    Aim::Reply(_) => 0,
                    Aim::Create(put) | Aim::Heal(put, _) => put.content.len(),
                };
                put + causal::value_bytes(&read.joined) + read.folded.as_ref().map_or(0, |folded| folded.value.len())
            }
            Work::Write(WriteWork { put, phase, .. }) => {
                put.content.len() + if let WritePhase::Folding { inputs } = phase { folding(inputs) } else { 0 }
            }
        };
        OP_BYTES + self.target.object.key.len() + held
    }

    /// The write whose retries must meet this operation.
    pub(super) fn claim(&self) -> Option<(TenantId, RequestId)> {
        match &self.work {
            Work::Validate(validate) => Some(self.claim_of(&validate.put)),
            Work::Write(write) => Some(self.claim_of(&write.put)),
            Work::Read(ReadWork { aim: Aim::Create(put) | Aim::Heal(put, _), .. }) => Some(self.claim_of(put)),
            _ => None,
        }
    }

    /// Under what a write of this object is known while it goes on and afterwards.
    pub(super) fn claim_of(&self, put: &Put) -> (TenantId, RequestId) {
        (self.target.object.tenant, self.retry_id(put))
    }

    /// What the client of a write says when it has its answer.
    pub(super) fn receipt(&self, put: &Put) -> Receipt {
        Receipt { partition: self.target.partition, id: self.retry_id(put).0 }
    }

    /// A request id counts for one object only: a client that uses one twice must not be told that a write was done
    /// which never was.
    pub(super) fn retry_id(&self, put: &Put) -> RequestId {
        let ObjectId { bucket, .. } = self.target.object;
        RequestId(put.request.0 ^ self.target.object.hash() ^ u128::from(bucket.0))
    }
}

/// Why a plugin did not run or did not succeed, for a bucket that has none.
pub(super) fn no_plugin() -> String {
    String::from("the bucket has no merge plugin: the siblings are as they were written")
}
