//! Writes: check, mint a dot, put, replicate, count W. Refused before the dot is minted: nothing was written. After:
//! *unknown*.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::Durability;
use rejoin_proto::client::{Basis, Put, PutOutcome, PutReply, Reply};
use rejoin_proto::peer::{PeerBody, Replicate};
use rejoin_proto::{Content, Dot, ErrorCode, ErrorReply, FoldedBy, Hlc, NodeId, Object, VersionVector};

use super::Shard;
use super::event::{DurableTicket, Effect, MergeTicket, Merged};
use super::op::{Aim, Op, Work, WritePhase, WriteWork};
use super::read::merge_job;
use super::turn::{Turn, fault_code, lost_upto};
use super::validate::validate_job;
use crate::causal::{self, Write};
use crate::port::Change;
use crate::quorum::{Tally, Verdict};
use crate::retries::Retries;
use crate::rows::RetryRow;

/// The most attempts at one write that wait for it.
const MAX_ORIGINS: usize = 16;
/// The most rows of the request-id table that a write removes along with what it writes.
const SETTLED_AT_ONCE: usize = 4;

impl Shard {
    pub(super) fn start_put(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, put: Put) {
        self.counters.puts += 1;
        let props = &op.target.bucket.props;
        let bytes = put.content.len();
        if bytes > props.value_bytes as usize {
            let message =
                alloc::format!("the value has {bytes} bytes, bucket {} takes {} at most", op.target.bucket.name, props.value_bytes);
            return self.reply(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::TooLarge, message)));
        }
        if put.ttl_ms == Some(0) {
            let message = "a time to live of no time at all would hide the value at once: give 1 ms or more, or delete the key";
            return self.reply(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::BadRequest, message)));
        }
        let seen = match self.seen_by(&op, &put) {
            Ok(seen) => seen,
            Err(error) => return self.reply(turn, &op, Reply::Error(error)),
        };
        let Some(()) = self.first_attempt(turn, &mut op, &put) else { return };
        match validate_job(&op, &put) {
            Some(job) => self.start_validation(turn, op, put, seen, job),
            None => self.begin_put(turn, op, put, seen),
        }
    }

    /// The write is good as far as it alone can be judged.
    fn begin_put(&mut self, turn: &mut Turn<'_>, op: Box<Op>, put: Put, seen: Option<VersionVector>) {
        if let Some(seen) = seen {
            let claim = op.claim_of(&put);
            let number = self.keep(op);
            self.writing.insert(claim, number);
            return self.with_op(turn, number, |shard, turn, number, op| {
                let op = shard.write_object(turn, number, op, put, seen, false);
                if op.is_none() {
                    shard.writing.remove(&claim);
                }
                op
            });
        }
        self.begin_create(turn, op, put);
    }

    /// A create first reads, and must find nothing.
    pub(super) fn begin_create(&mut self, turn: &mut Turn<'_>, op: Box<Op>, put: Put) {
        let props = &op.target.bucket.props;
        let (r, pr) = (props.r.of(props.n).max(1), props.pr.of(props.n));
        self.start_read(turn, op, Aim::Create(put), r, pr);
    }

    /// What the writer has seen; `None` if that is still to be found out (a create).
    fn seen_by(&self, op: &Op, put: &Put) -> Result<Option<VersionVector>, ErrorReply> {
        match &put.basis {
            Basis::Blind => Ok(Some(VersionVector::new())),
            Basis::Create => Ok(None),
            Basis::Context(token) => {
                // Rule: contexts open one key.
                let opened = self.config.contexts.open(&op.target.object, token);
                opened.map(Some).map_err(|error| ErrorReply::new(ErrorCode::BadContext, error.to_string()))
            }
        }
    }

    /// Recognises a write that was done, or is being done, for the same request: then it is not begun again. A retry of
    /// which this node cannot know whether it was done is answered *unknown*.
    fn first_attempt(&mut self, turn: &mut Turn<'_>, op: &mut Op, put: &Put) -> Option<()> {
        if let Some(&number) = self.writing.get(&op.claim_of(put))
            && let Some(first) = self.ops.get_mut(&number)
        {
            if first.origins.len() >= MAX_ORIGINS {
                let message = "this write is being done, and too many of its retries wait for it already";
                self.reply(turn, op, Reply::Error(ErrorReply::new(ErrorCode::Unknown, message)));
                return None;
            }
            first.origins.append(&mut op.origins);
            self.counters.retries_recognised += 1;
            return None;
        }
        let done = match Retries::get(turn.store, op.target.partition, op.retry_id(put)) {
            Ok(done) => done,
            Err(fault) => {
                let code = fault_code(turn, fault);
                self.reply(turn, op, self.store_error(code));
                return None;
            }
        };
        // Rule: retries outlive their value. The row alone decides, whether the value is still there or not.
        if let Some(RetryRow { dot, context, .. }) = done {
            self.counters.retries_recognised += 1;
            self.replicate_again(turn, op, put.clone(), dot, context);
            return None;
        }
        // Rule: strange retries are unknown.
        if put.attempt > 0 && self.start != Some(put.start) {
            let message = "this node has lost track of the first attempt since it was made: the write may have been done; read the key";
            self.reply(turn, op, Reply::Error(ErrorReply::new(ErrorCode::Unknown, message)));
            return None;
        }
        if !self.retries.has_room() {
            self.counters.overloaded += 1;
            let error =
                ErrorReply::new(ErrorCode::Overloaded, "too many recent writes are remembered for their retries; nothing was written");
            self.reply(turn, op, Reply::Error(error.retry_after(1000)));
            return None;
        }
        Some(())
    }

    /// Writes the object here and sends it to the other owners; or first has what is there merged, if it is at its
    /// limit.
    pub(super) fn write_object(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        mut op: Box<Op>,
        put: Put,
        seen: VersionVector,
        merge_tried: bool,
    ) -> Option<Box<Op>> {
        let tally = self.reachable_tally(turn, &op, &put)?;
        self.heed_context(turn, op.target.partition, &seen);
        let mut object = match self.load(turn, op.target.partition, &op.target.store_key.clone()) {
            Ok(object) => object,
            // Rule: unreadable is replaced.
            Err(ErrorCode::Damaged) => return self.heal(turn, number, op, put, seen),
            Err(code) => {
                self.reply(turn, &op, self.store_error(code));
                return None;
            }
        };
        self.heed_claims(turn, op.target.partition, &seen, &object.context);
        causal::drop_expired(&mut object, turn.now.wall_ms, self.config.max_skew_ms);
        let replaced = causal::bounded(&object, seen.clone());
        if is_above_limit(&op, &object, &put, &replaced) {
            let inputs = causal::visible(&object, turn.now.wall_ms);
            let plugin = op.target.bucket.props.plugin;
            if inputs.len() == 1 && causal::fold(&mut object, &inputs, Bytes::new(), None) && !is_above_limit(&op, &object, &put, &replaced)
            {
                // What stood beside the one value were tombstones; no plugin is needed to drop them.
                return self.mint_and_replicate(turn, number, op, put, seen, object, tally);
            }
            let Some(activation) = plugin.filter(|_| inputs.len() > 1 && !merge_tried) else {
                // Rule: limits drop nothing.
                self.reply(turn, &op, too_many_siblings(&op));
                return None;
            };
            self.counters.merges += 1;
            let job = merge_job(&op, activation.plugin, causal::siblings(&inputs), false);
            op.work = Work::Write(WriteWork { put, seen, phase: WritePhase::Folding { inputs } });
            turn.effects.push(Effect::Merge(MergeTicket(number), job));
            return Some(op);
        }
        self.mint_and_replicate(turn, number, op, put, seen, object, tally)
    }

    /// The siblings at the limit have been merged, or could not be: the write goes on either way, and is refused if
    /// there is still no room.
    pub(super) fn write_merged(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        mut op: Box<Op>,
        result: Result<Merged, String>,
    ) -> Option<Box<Op>> {
        let Work::Write(work) = core::mem::replace(&mut op.work, Work::Starting) else { return Some(op) };
        let inputs = match work.phase {
            WritePhase::Folding { inputs } => inputs,
            phase @ WritePhase::Replicating { .. } => {
                op.work = Work::Write(WriteWork { phase, ..work });
                return Some(op);
            }
        };
        if let (Ok(merged), Some(activation)) = (result, op.target.bucket.props.plugin) {
            let by = FoldedBy { plugin: activation.plugin, profile: merged.profile };
            self.fold_stored(turn, &op, &inputs, merged, by);
        }
        // Kept as a write while it goes on, so that its claim on the request id stays.
        self.write_object(turn, number, op, work.put, work.seen, true)
    }

    fn fold_stored(&mut self, turn: &mut Turn<'_>, op: &Op, inputs: &[rejoin_proto::Entry], merged: Merged, by: FoldedBy) {
        let Ok(mut object) = self.load(turn, op.target.partition, &op.target.store_key.clone()) else { return };
        if !causal::fold(&mut object, inputs, merged.value, Some(by)) {
            self.counters.folds_discarded += 1;
            return;
        }
        let mut change = Change::default();
        Self::object_row(&mut change, &op.target.store_key, &object);
        if self.write(turn, change).is_ok() {
            self.counters.folds += 1;
        }
    }

    #[allow(clippy::too_many_arguments)] // One step of a write, cut off only for its length.
    fn mint_and_replicate(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        mut op: Box<Op>,
        put: Put,
        seen: VersionVector,
        mut object: Object,
        tally: Tally,
    ) -> Option<Box<Op>> {
        let partition = op.target.partition;
        let mut change = Change::default();
        let dot = self.tenures.mint(partition, &mut change, &mut self.rng);
        let stamp = self.stamp(turn.now);
        let expires = self.expiry(&op, &put, stamp);
        let replaced = causal::bounded(&object, seen.clone());
        causal::put(&mut object, Write { seen: replaced, dot, content: put.content.clone(), stamp, expires });
        // Rule: writers are told their own.
        let told = causal::writers_view(&object, &seen, dot);
        let context = self.config.contexts.seal(&op.target.object, &told);
        Self::object_row(&mut change, &op.target.store_key, &object);
        let (retry, epoch) = (op.retry_id(&put), self.retry_epoch(turn.now));
        self.retries.insert(partition, retry, &RetryRow { dot, context: context.clone(), epoch }, &mut change);
        let settled = self.retries.droppable(SETTLED_AT_ONCE, &mut change);
        let written = self.write(turn, change);
        if written.is_ok() {
            self.retries.dropped(settled);
        }
        // Rule: refused is not sent.
        if let Err(code) = written {
            self.retries.forget(epoch, partition, retry);
            // A store that has failed for good may have kept what it was given: only after a restart will it be known.
            let failed = "the coordinating node's store has failed and the node is stopping: the write may have been done; read the key";
            let stopping = || Reply::Error(ErrorReply::new(ErrorCode::Unknown, failed));
            self.reply(turn, &op, if code == ErrorCode::Stopping { stopping() } else { self.store_error(code) });
            return None;
        }
        self.replicate(turn, number, &op, object, dot, &tally);
        op.work = Work::Write(WriteWork { put, seen, phase: WritePhase::Replicating { dot, tally, context } });
        self.own_ack(turn, number, op)
    }

    /// Writes an object whose copy here cannot be read, and of which those other owners that were asked have nothing.
    ///
    /// A copy that is lost for good is given up, in one record with the end of the tenure or after it. If so many
    /// others have nothing that every acknowledged write would have been met, none was lost. Otherwise the lost copy
    /// may have been the only one: a put or a delete is what makes the key whole again, and a create is refused,
    /// because it promises that there was nothing. One that is only damaged may be read again, and keeps its place.
    pub(super) fn write_over_lost(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        op: Box<Op>,
        put: Put,
        seen: VersionVector,
        absent: u8,
    ) -> Option<Box<Op>> {
        let (partition, store_key) = (op.target.partition, op.target.store_key.clone());
        match self.load(turn, partition, &store_key) {
            // Something has come in meanwhile.
            Ok(_) => return self.write_object(turn, number, op, put, seen, false),
            Err(ErrorCode::Damaged) => {}
            Err(code) => {
                self.reply(turn, &op, self.store_error(code));
                return None;
            }
        }
        let props = &op.target.bucket.props;
        let meets_all = absent.saturating_add(props.w.of(props.n).max(1)) > props.n;
        // Rule: lost copies are written over.
        let lost = lost_upto(turn, &store_key).is_some();
        // Rule: creates need proof.
        let allowed = meets_all || put.basis != Basis::Create;
        if !(lost && allowed) {
            self.reply(turn, &op, self.store_error(ErrorCode::Damaged));
            return None;
        }
        let tally = self.reachable_tally(turn, &op, &put)?;
        self.heed_claims(turn, partition, &seen, &VersionVector::new());
        self.replaces_unreadable(turn, partition, &store_key);
        self.unreadable.remove(&store_key);
        self.mint_and_replicate(turn, number, op, put, seen, Object::default(), tally)
    }

    /// The owners that a write waits for; `None`, with the writer told, if too few of them can be reached.
    fn reachable_tally(&mut self, turn: &mut Turn<'_>, op: &Op, put: &Put) -> Option<Tally> {
        let tally = self.write_tally(op, put);
        if tally.verdict() != Verdict::Impossible {
            return Some(tally);
        }
        let message = "too few replicas of the key can be reached; nothing was written";
        let reply = self.quorum_error(ErrorCode::Unavailable, message, &tally.at_best());
        self.reply(turn, op, reply);
        None
    }

    /// Waits for what the request, or else its bucket, wants of how many owners.
    fn write_tally(&self, op: &Op, put: &Put) -> Tally {
        let props = &op.target.bucket.props;
        let w = put.w.unwrap_or(props.w).of(props.n).max(1);
        let pw = put.pw.unwrap_or(props.pw).of(props.n);
        self.tally(&op.target.owners, w, pw)
    }

    fn expiry(&self, op: &Op, put: &Put, stamp: Hlc) -> Option<Hlc> {
        let ttl_ms = put.ttl_ms.or(op.target.bucket.props.ttl_ms)?;
        // A tombstone never expires: a delete must not be undone by time.
        (put.content != Content::Tombstone).then(|| Hlc::from_ms(stamp.ms().saturating_add(ttl_ms)))
    }

    /// A retry has met its first attempt's row: the write is done here, but its quorum may still be missing.
    fn replicate_again(&mut self, turn: &mut Turn<'_>, op: &mut Op, put: Put, dot: Dot, context: Vec<u8>) {
        let object = match self.load(turn, op.target.partition, &op.target.store_key.clone()) {
            Ok(object) if object.context.contains(dot) => object,
            _ => {
                let message = "the write was done, but this node has lost it or cannot read it any more; read the key";
                return self.reply(turn, op, Reply::Error(ErrorReply::new(ErrorCode::Unknown, message)));
            }
        };
        let tally = self.write_tally(op, &put);
        let work = WriteWork { put, seen: VersionVector::new(), phase: WritePhase::Replicating { dot, tally: tally.clone(), context } };
        let kept = Box::new(Op {
            origins: core::mem::take(&mut op.origins),
            trace: op.trace,
            deadline_us: op.deadline_us,
            target: op.target.clone(),
            work: Work::Write(work),
            bytes: 0,
        });
        let claim = kept.claim();
        let number = self.keep(kept);
        if let Some(claim) = claim {
            self.writing.insert(claim, number);
        }
        self.with_op(turn, number, |shard, turn, number, op| {
            shard.replicate(turn, number, &op, object, dot, &tally);
            shard.own_ack(turn, number, op)
        });
    }

    /// Sends the object to every other owner that is connected.
    fn replicate(&mut self, turn: &mut Turn<'_>, number: u64, op: &Op, state: Object, dot: Dot, tally: &Tally) {
        let others = op.target.owners.iter().copied().filter(|&node| node != self.config.node && tally.is_waiting_for(node));
        for node in others {
            let message = Replicate {
                op: Some(self.op_id(number)),
                object: op.target.object.clone(),
                bucket_version: op.target.bucket.version,
                epoch: self.epoch(op.target.partition),
                dot: Some(dot),
                durability: op.target.bucket.props.durability,
                state: state.clone(),
            };
            self.send(turn, node, op.trace, PeerBody::Replicate(message));
        }
    }

    /// This node's own acknowledgement: at once if the operating system is enough (effects wait for the write anyway),
    /// else with the disk.
    fn own_ack(&mut self, turn: &mut Turn<'_>, number: u64, op: Box<Op>) -> Option<Box<Op>> {
        // Rule: acks wait for the disk.
        if op.target.bucket.props.durability == Durability::Os {
            let node = self.config.node;
            return self.write_acked(turn, number, op, node);
        }
        turn.effects.push(Effect::WhenDurable(DurableTicket(number)));
        self.write_step(turn, op)
    }

    /// An owner has what supersedes the write. That is an acknowledgement, unless the owner has seen later writes of
    /// the minting actor than this node's copy holds: then the disk is an old one, the write was minted under a used
    /// dot, and the owner has dropped it.
    pub(super) fn write_superseded(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        op: Box<Op>,
        from: NodeId,
        seen: &VersionVector,
    ) -> Option<Box<Op>> {
        let partition = op.target.partition;
        self.heed_context(turn, partition, seen);
        if let Ok(copy) = self.load(turn, partition, &op.target.store_key) {
            self.heed_claims(turn, partition, seen, &copy.context);
        }
        let minted = match &op.work {
            Work::Write(WriteWork { phase: WritePhase::Replicating { dot, .. }, .. }) => Some(dot.actor),
            _ => None,
        };
        let goes_on = minted.is_none_or(|actor| self.tenures.is_current(partition, actor));
        // Rule: outrun writes are not acked.
        if goes_on {
            return self.write_acked(turn, number, op, from);
        }
        self.write_failed(turn, number, op, from, "it has seen later writes of this node's actor: this node's disk is an old one")
    }

    pub(super) fn write_acked(&mut self, turn: &mut Turn<'_>, _number: u64, mut op: Box<Op>, from: NodeId) -> Option<Box<Op>> {
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            // Rule: nodes count once. The tally takes the first answer of each node.
            tally.good(from);
        }
        self.write_step(turn, op)
    }

    pub(super) fn write_failed(&mut self, turn: &mut Turn<'_>, _number: u64, mut op: Box<Op>, node: NodeId, why: &str) -> Option<Box<Op>> {
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            tally.bad(node, why);
        }
        self.write_step(turn, op)
    }

    /// Replies as soon as W is reached, or cannot be reached any more.
    fn write_step(&mut self, turn: &mut Turn<'_>, op: Box<Op>) -> Option<Box<Op>> {
        let Work::Write(WriteWork { put, phase: WritePhase::Replicating { tally, context, .. }, .. }) = &op.work else { return Some(op) };
        let outcome = match tally.verdict() {
            Verdict::Enough => PutOutcome::Stored,
            Verdict::Impossible => {
                self.counters.quorum_failures += 1;
                PutOutcome::Unknown
            }
            Verdict::Waiting => return Some(op),
        };
        let receipt = (outcome == PutOutcome::Stored).then(|| op.receipt(put));
        let reply = PutReply { outcome, context: context.clone().into(), acked: tally.got(), needed: tally.needed(), receipt };
        self.reply(turn, &op, Reply::Put(reply));
        None
    }

    pub(super) fn write_timed_out(&mut self, turn: &mut Turn<'_>, _number: u64, op: Box<Op>) -> Option<Box<Op>> {
        let reply = match &op.work {
            Work::Write(WriteWork { phase: WritePhase::Replicating { tally, context, .. }, .. }) => {
                self.counters.quorum_failures += 1;
                let (acked, needed) = (tally.got(), tally.needed());
                let (outcome, context) = (PutOutcome::Unknown, context.clone().into());
                Reply::Put(PutReply { outcome, context, acked, needed, receipt: None })
            }
            _ => {
                let message = "the merge of the siblings at the object's limit did not end in time; nothing was written";
                Reply::Error(ErrorReply::new(ErrorCode::TimedOut, message))
            }
        };
        self.reply(turn, &op, reply);
        None
    }
}

/// Whether the object would be above its bucket's limits with this write. A write that has seen everything leaves
/// itself only, and never is.
fn is_above_limit(op: &Op, object: &Object, put: &Put, seen: &VersionVector) -> bool {
    // Rule: full contexts pass.
    let stays = |entry: &&rejoin_proto::Entry| !entry.dots.unseen_by(seen).is_empty();
    let left: Vec<&rejoin_proto::Entry> = object.entries.iter().filter(stays).collect();
    if left.is_empty() {
        return false;
    }
    // Rule: limits are kept.
    let props = &op.target.bucket.props;
    let bytes = left.iter().map(|entry| entry.content.len()).sum::<usize>() + put.content.len();
    left.len() + 1 > usize::from(props.siblings) || bytes > props.object_bytes()
}

fn too_many_siblings(op: &Op) -> Reply {
    let bucket = &op.target.bucket;
    let message = alloc::format!(
        "the object is at the limit of bucket {} ({} siblings, {} bytes) and could not be merged; read it and write with its context",
        bucket.name,
        bucket.props.siblings,
        bucket.props.object_bytes()
    );
    Reply::Error(ErrorReply::new(ErrorCode::TooManySiblings, message))
}
