//! An operation under way: who waits for it, which object it is about, and how far it has come.
//!
//! An operation begins with a client's or a peer's request and ends with its reply, or for a read when the last owner
//! has answered. It is owned by `Shard::ops`; a step takes it out, changes it, and returns a [`Step`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::client::{Get, Put, Receipt};
use rejoin_proto::peer::OpId;
use rejoin_proto::{Dot, Entry, ErrorCode, NodeId, Object, ObjectId, ReapEpoch, RequestId, TenantId, VersionVector};

use super::event::ReplyTo;
use super::forward::ForwardWork;
use crate::causal;
use crate::exchange::pace::Kind;
use crate::quorum::{Nodes, Tally};
use crate::view::Target;

/// Where a reply goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Client(ReplyTo),
    /// The request was forwarded by that node, as that operation of its own.
    Peer {
        node: NodeId,
        op: OpId,
    },
}

/// Whether an operation goes on after a step.
pub(super) enum Step {
    /// It waits for another answer.
    Keep(Box<Op>),
    /// It has ended. Whoever waited for it has the reply.
    Done,
}

/// The write that an operation does: attempts with the same claim are attempts at one write.
pub(super) type Claim = (TenantId, RequestId);

#[derive(Debug)]
pub(super) struct Op {
    /// Names it in messages, tickets and deadlines.
    pub(super) id: OpId,
    /// More than one when a retry has met the first attempt still under way.
    pub(super) origins: SmallVec<[Origin; 1]>,
    pub(super) trace: u64,
    pub(super) kind: Kind,
    /// When it arrived at this node, in microseconds.
    pub(super) begun_us: u64,
    pub(super) deadline_us: u64,
    /// When other nodes were last asked for something, in microseconds.
    pub(super) asked_us: u64,
    /// When others were last asked in the place of a node that is late, in microseconds; 0: never.
    pub(super) relieved_us: u64,
    pub(super) target: Target,
    pub(super) work: Work,
    /// Set for a write before it is kept, so that its retries find it.
    pub(super) claim: Option<Claim>,
    /// Whether a node has refused it because of the layout by which it was asked.
    pub(super) is_stale: bool,
    /// The dot that an operation is applied with, see [`ApplyWork`].
    pub(super) reserved: Option<Dot>,
    /// The bytes that it was last counted with, see [`Op::held_bytes`].
    pub(super) bytes: usize,
}

/// What an operation takes beside the bytes of its key and values.
pub(super) const OP_BYTES: usize = 512;

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // It is kept in a box as a part of its operation.
pub(super) enum Work {
    /// Not decided yet; never kept.
    Starting,
    /// Waits for an owner to answer the client's request.
    Forward(ForwardWork),
    Read(ReadWork),
    /// Waits for the bucket's plugin to validate the value. Nothing is written yet.
    Validate(ValidateWork),
    /// Waits for the bucket's plugin to apply an operation, or for its turn. Nothing is written yet.
    Apply(ApplyWork),
    Write(WriteWork),
}

/// An operation of the plugin's data type.
#[derive(Debug)]
pub(super) struct ApplyWork {
    /// Its content is the operation.
    pub(super) put: Put,
    /// The number of the run, from 1; 0 while operations on the same key that came before it go first.
    pub(super) run: u8,
    /// The copy that the plugin works on.
    pub(super) base: Object,
    /// What it has made, while the other version of the plugin looks at it.
    pub(super) made: Option<bytes::Bytes>,
}

/// A client's write and the context that its writer had seen.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) put: Put,
    pub(super) seen: VersionVector,
}

#[derive(Debug)]
pub(super) struct ValidateWork {
    pub(super) put: Put,
    /// What the writer has seen; none for a create, which has yet to look.
    pub(super) seen: Option<VersionVector>,
    /// Of an undo: the values that it restores and that have to be validated.
    pub(super) restored: Vec<bytes::Bytes>,
    /// How many validations have been run: each value is validated by each version of the plugin.
    pub(super) run: u16,
}

#[derive(Debug)]
pub(super) struct ReadWork {
    pub(super) purpose: ReadPurpose,
    pub(super) tally: Tally,
    /// Who has answered with a copy, and whether that copy equals the join of all: the others are repaired. The copies
    /// themselves are not kept, because an answered read may wait for a late owner until its deadline.
    pub(super) copies: SmallVec<[(NodeId, bool); 3]>,
    /// The owners that cannot read theirs.
    pub(super) damaged: Vec<NodeId>,
    /// What equal copies are told by: the digest of this node's copy. `None` if it has none that others could have.
    pub(super) digest: Option<[u8; 16]>,
    /// The owners that are not needed for the answer, and not asked so far.
    pub(super) spared: Nodes,
    /// Those that were asked after the others.
    pub(super) asked_later: SmallVec<[NodeId; 4]>,
    /// Whether it is one of the share of reads that asks the spared owners too, once its reader has the answer.
    pub(super) asks_all: bool,
    /// The nodes that are asked as fallbacks, and those that hold something of the partition and cannot be asked.
    pub(super) fallbacks: Vec<NodeId>,
    pub(super) unreachable: Vec<NodeId>,
    /// The join of all copies, and the lowest epoch among them.
    pub(super) joined: Object,
    /// The bytes that the values of the join keep in memory, and those that a merge was given: each value is a part of
    /// the row that it came in.
    pub(super) kept: usize,
    pub(super) epoch: ReapEpoch,
    pub(super) phase: ReadPhase,
    /// A merge's result that is to be stored, see [`causal::fold`].
    pub(super) fold: Option<PendingFold>,
}

impl ReadWork {
    pub(super) fn new(purpose: ReadPurpose, tally: Tally, epoch: ReapEpoch) -> Self {
        Self {
            purpose,
            tally,
            copies: SmallVec::new(),
            damaged: Vec::new(),
            digest: None,
            spared: Nodes::new(),
            asked_later: SmallVec::new(),
            asks_all: false,
            fallbacks: Vec::new(),
            unreachable: Vec::new(),
            joined: Object::default(),
            kept: 0,
            epoch,
            phase: ReadPhase::Collecting,
            fold: None,
        }
    }
}

impl ReadWork {
    /// Whether all copies that have come are equal, and nothing else is to be repaired.
    pub(super) fn is_sound(&self) -> bool {
        self.copies.iter().all(|&(_, current)| current) && self.damaged.is_empty()
    }

    /// Whether owners could be asked in the place of one that is late.
    pub(super) fn may_hedge(&self) -> bool {
        matches!(self.phase, ReadPhase::Collecting) && !self.spared.is_empty()
    }

    /// Takes the join with a copy. A small value must not keep the large one in memory that it stood beside, until the
    /// last owner has answered: when most of the rows is gone from the join, the rest is copied out of them.
    pub(super) fn take(&mut self, joined: Object, copy: &Object) {
        let brought = if causal::share_values(&joined, copy) { causal::value_bytes(copy) } else { 0 };
        let is_merged = self.fold.is_some() || matches!(self.phase, ReadPhase::Merging { .. });
        let stays = is_merged || causal::share_values(&joined, &self.joined);
        self.kept = brought + if stays { self.kept } else { 0 };
        self.joined = joined;
        let bytes = causal::value_bytes(&self.joined);
        if !is_merged && 2 * bytes < self.kept {
            causal::copy_values(&mut self.joined);
            self.kept = bytes;
        }
    }

    /// Counts a copy that was joined.
    pub(super) fn count(&mut self, from: NodeId, epoch: ReapEpoch, complete: bool) {
        // A joined object is as old as the oldest copy in it.
        self.epoch = self.epoch.min(epoch);
        // Rule: replaced replicas do not count.
        if complete {
            self.tally.good(from);
        } else {
            self.tally.bad(from, "it has lost something and is not rebuilt");
            let is_fallback = self.fallbacks.contains(&from);
            self.unreachable.extend(is_fallback.then_some(from));
        }
    }

    /// Whether a fallback that is still to answer has to: nothing was found yet, or the read is for an undo.
    pub(super) fn awaits_fallbacks(&self, wall_ms: u64) -> bool {
        // Rule: not found needs the fallbacks.
        self.fallbacks.iter().any(|node| self.tally.is_waiting_for(*node))
            && (self.is_for_undo() || causal::visible(&self.joined, wall_ms).is_empty())
    }

    /// Whether every holder of something newer matters, and not only whether there is a value.
    pub(super) fn is_for_undo(&self) -> bool {
        matches!(self.purpose, ReadPurpose::Undo(_))
    }
}

/// The answer of an owner or a fallback to a read.
pub(super) struct CopyAnswer {
    pub(super) from: NodeId,
    pub(super) epoch: ReapEpoch,
    pub(super) copy: Result<Object, ErrorCode>,
    /// Whether the replica still has everything that it has acknowledged.
    pub(super) complete: bool,
}

/// The answer of an owner whose copy has the digest that it was asked with.
pub(super) struct SameAnswer {
    pub(super) from: NodeId,
    pub(super) epoch: ReapEpoch,
    pub(super) digest: [u8; 16],
    /// Whether the replica still has everything that it has acknowledged.
    pub(super) complete: bool,
}

/// Why an object is read.
#[derive(Debug)]
pub(super) enum ReadPurpose {
    /// To answer a client.
    Reply(Get),
    /// To write, if nothing is found.
    Create(Put),
    /// To write over a copy of this node that cannot be read: first it takes the copies of the other owners.
    Recover(PendingWrite),
    /// To undo a fold, if that is what the key still has.
    Undo(PendingWrite),
}

#[derive(Debug)]
pub(super) enum ReadPhase {
    Collecting,
    /// A plugin merges `inputs`. `seen` is the context that they were read with: a copy that comes while the plugin
    /// runs must not widen the reader's context, because the reader is not shown what that copy holds.
    Merging {
        inputs: Vec<Entry>,
        seen: VersionVector,
    },
    /// The client has its answer; the owners that are late still take part in the repair.
    Answered,
}

#[derive(Debug)]
pub(super) struct PendingFold {
    pub(super) inputs: Vec<Entry>,
    pub(super) value: bytes::Bytes,
    pub(super) by: Option<rejoin_proto::FoldedBy>,
    pub(super) fuel_used: u64,
}

#[derive(Debug)]
pub(super) struct WriteWork {
    pub(super) write: PendingWrite,
    pub(super) phase: WritePhase,
    /// The nodes that have not taken it at once, see [`busy`](super::busy).
    pub(super) busy: Vec<BusyNode>,
}

/// A node that did not take a write at the moment when it was asked.
#[derive(Debug)]
pub(super) struct BusyNode {
    pub(super) node: NodeId,
    /// How often that was so.
    pub(super) times: u32,
    /// When it was last asked, in microseconds.
    pub(super) asked_us: u64,
    /// When it is asked again, in microseconds; `None` while its answer is still to come.
    pub(super) again_us: Option<u64>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // As above.
pub(super) enum WritePhase {
    /// The object is at its limit, and a plugin merges these entries of it first.
    Folding { inputs: Vec<Entry> },
    /// The dot is minted and stored here. `context` is the sealed context of the reply.
    Replicating { dot: Dot, tally: Tally, context: Vec<u8> },
}

impl Op {
    /// When a node was last asked, in microseconds.
    pub(super) fn asked_at_us(&self, node: NodeId) -> u64 {
        self.busy(node).map_or_else(|| self.first_asked_at_us(node), |busy| busy.asked_us)
    }

    /// When a node was asked for the first time, in microseconds. Fallbacks, and owners that a read had spared, may
    /// have been asked later than others.
    pub(super) fn first_asked_at_us(&self, node: NodeId) -> u64 {
        match &self.work {
            Work::Forward(forward) => return forward.asked_at_us(node).unwrap_or(self.asked_us),
            Work::Read(read) if read.asked_later.contains(&node) => return self.relieved_us,
            _ => {}
        }
        if self.target.owners.contains(node) { self.asked_us } else { self.asked_us.max(self.relieved_us) }
    }

    /// What is known of a node that did not take this write at once.
    fn busy(&self, node: NodeId) -> Option<&BusyNode> {
        let Work::Write(write) = &self.work else { return None };
        write.busy.iter().find(|busy| busy.node == node)
    }

    /// Whether it still counts on that node.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        match &self.work {
            Work::Starting | Work::Validate(_) | Work::Apply(_) => false,
            Work::Forward(forward) => forward.tally.is_waiting_for(node),
            Work::Read(read) => read.tally.is_waiting_for(node),
            Work::Write(write) => {
                matches!(&write.phase, WritePhase::Replicating { tally, .. } if tally.is_waiting_for(node))
            }
        }
    }

    /// The nodes of which an answer is still to come. One that was busy, and is asked again later, owes none.
    pub(super) fn awaited(&self) -> impl Iterator<Item = NodeId> + '_ {
        let tally = match &self.work {
            Work::Starting | Work::Validate(_) | Work::Apply(_) => None,
            Work::Forward(forward) => Some(&forward.tally),
            Work::Read(read) => Some(&read.tally),
            Work::Write(write) => match &write.phase {
                WritePhase::Folding { .. } => None,
                WritePhase::Replicating { tally, .. } => Some(tally),
            },
        };
        let owes = move |node: &NodeId| self.busy(*node).is_none_or(|busy| busy.again_us.is_none());
        tally.into_iter().flat_map(Tally::waiting).filter(owes)
    }

    /// The bytes of memory that it holds now.
    pub(super) fn held_bytes(&self) -> usize {
        let folding = |inputs: &[Entry]| inputs.iter().map(|entry| entry.content.len()).sum::<usize>();
        let held = match &self.work {
            Work::Starting => 0,
            Work::Forward(forward) => forward.held_bytes(),
            Work::Validate(validate) => {
                validate.put.content.len() + validate.restored.iter().map(bytes::Bytes::len).sum::<usize>()
            }
            Work::Apply(apply) => {
                let made = apply.made.as_ref().map_or(0, bytes::Bytes::len);
                apply.put.content.len() + causal::value_bytes(&apply.base) + made
            }
            Work::Read(read) => {
                let put = match &read.purpose {
                    ReadPurpose::Reply(_) => 0,
                    ReadPurpose::Create(put)
                    | ReadPurpose::Recover(PendingWrite { put, .. })
                    | ReadPurpose::Undo(PendingWrite { put, .. }) => put.content.len(),
                };
                put + read.kept + read.fold.as_ref().map_or(0, |fold| fold.value.len())
            }
            Work::Write(WriteWork { write, phase, .. }) => {
                write.put.content.len() + if let WritePhase::Folding { inputs } = phase { folding(inputs) } else { 0 }
            }
        };
        OP_BYTES + self.target.object.key.len() + held
    }

    /// The claim of a write to this operation's object.
    pub(super) fn claim_of(&self, put: &Put) -> Claim {
        (self.target.object.tenant, self.retry_id(put))
    }

    /// What the client of a write sends back once it has its answer, so that the retry row may go.
    pub(super) fn receipt(&self, put: &Put) -> Receipt {
        Receipt { partition: self.target.partition, id: self.retry_id(put).0 }
    }

    /// A request id counts for one object only: a client that uses one twice must not be told that a write was done
    /// which never was.
    pub(super) fn retry_id(&self, put: &Put) -> RequestId {
        let ObjectId { bucket, .. } = self.target.object;
        RequestId(put.request.0 ^ self.target.hash ^ u128::from(bucket.0))
    }
}
