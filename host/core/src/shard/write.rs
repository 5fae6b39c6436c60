//! Writes: check, mint a dot, put, replicate, count W.
//!
//! In the order of a write: [`Shard::start_put`], [`Shard::begin_put`], [`Shard::write_object`], `mint_and_replicate`,
//! `own_ack`, [`Shard::write_acked`], `write_step`. Until the dot is minted a refusal means that nothing was written;
//! from then on a failure is answered *unknown*, because an owner may have the write.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::Durability;
use rejoin_proto::client::{Basis, Put, PutOutcome, PutReply, Receipt, Reply, Show};
use rejoin_proto::peer::{PeerBody, Replicate};
use rejoin_proto::receipt::MAX_RECEIPT_BYTES;
use rejoin_proto::{
    Content, Dot, EncodedObject, Entry, ErrorCode, ErrorReply, FoldedBy, Hlc, NodeId, Object, VersionVector,
};

use super::copy::{Copy, Place, lost_upto};
use super::event::{DurableTicket, Effect, MergeTicket, Merged, PluginError};
use super::jobs::{merge_job, validate_job};
use super::op::{Op, PendingFold, PendingWrite, ReadPurpose, Step, ValidateWork, Work, WritePhase, WriteWork};
use super::quotas;
use super::turn::{Turn, fault_code};
use super::{Shard, UPKEEP_US};
use crate::causal::{self, Write};
use crate::port::Change;
use crate::quorum::{Need, Tally, Verdict};
use crate::retries::Retries;
use crate::rows::RetryRow;
use crate::trials;
use crate::view::Bucket;

/// The most attempts at one write that wait for it.
const MAX_ORIGINS: usize = 16;
/// The most rows of the request-id table that a write removes along with what it writes.
const SETTLED_AT_ONCE: usize = 4;
/// The most retry rows that are dropped at once, and the pause before the next, in microseconds: few and often, because
/// requests wait meanwhile.
const EXPIRED_AT_ONCE: usize = 256;
const NEXT_EXPIRED_US: u64 = 1_000;
/// How long a client should wait while no retry row fits, in milliseconds.
const RETRY_ROOM_MS: u32 = 1000;

/// What is known of earlier attempts at a write.
enum Attempt {
    /// There was none, as far as this node can know.
    First,
    /// Another one is under way, and its reply goes to this one too.
    Joined,
    /// The write was done, as this row says.
    Done(RetryRow),
    /// The write must not begin.
    Refused(Box<Reply>),
}

impl Shard {
    pub(super) fn start_put(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, put: Put) -> Step {
        self.counters.puts += 1;
        // What is wrong with the request itself comes first: it costs no look at the store.
        let seen = match check_put(&op, &put).and_then(|()| self.seen_by(&op, &put)) {
            Ok(seen) => seen,
            Err(error) => return self.finish(turn, &op, Reply::Error(error)),
        };
        // Retries come before the validator and the read of a create: a write that was done is not judged again, and
        // finds its own value.
        op.claim = Some(op.claim_of(&put));
        match self.attempt(turn, &mut op, &put) {
            Attempt::First => {}
            Attempt::Joined => return Step::Done,
            Attempt::Done(row) => return self.replicate_again(turn, op, put, row),
            Attempt::Refused(reply) => return self.finish(turn, &op, *reply),
        }
        if put.basis == Basis::Operation {
            return self.start_operation(turn, op, put);
        }
        let restored = match self.unproven_inputs(turn, &op, &put) {
            Ok(restored) => restored,
            Err(reply) => return self.finish(turn, &op, *reply),
        };
        match validate_job(&op, (&put, &restored), 0) {
            Some(job) => self.start_validation(turn, op, ValidateWork { put, seen, restored, run: 0 }, job),
            None => self.begin_put(turn, op, put, seen),
        }
    }

    /// The write is good as far as it alone can be judged. A create has yet to read, and must find nothing; an undo has
    /// yet to find its fold.
    pub(super) fn begin_put(
        &mut self,
        turn: &mut Turn<'_>,
        op: Box<Op>,
        put: Put,
        seen: Option<VersionVector>,
    ) -> Step {
        match seen {
            Some(seen) if matches!(put.basis, Basis::Undo(_)) => self.undo_fold(turn, op, put, &seen),
            Some(seen) => self.write_object(turn, op, PendingWrite { put, seen }, false),
            None => {
                let (props, n) = (&op.target.bucket.props, op.target.read_copies().n);
                let quorum = (props.r.of(n).max(1), props.pr.of(n));
                self.start_read(turn, op, ReadPurpose::Create(put), quorum)
            }
        }
    }

    /// What the writer has seen; `None` if that is still to be found out (a create).
    fn seen_by(&self, op: &Op, put: &Put) -> Result<Option<VersionVector>, ErrorReply> {
        match &put.basis {
            // What an operation has seen is found out when it is its turn.
            Basis::Blind | Basis::Operation => Ok(Some(VersionVector::new())),
            Basis::Create => Ok(None),
            Basis::Context(token) | Basis::Undo(token) => {
                // Rule: contexts open one key.
                let opened = self.config.contexts.open(&op.target.object, token);
                opened.map(Some).map_err(|error| ErrorReply::new(ErrorCode::BadContext, error.to_string()))
            }
        }
    }

    /// Looks for earlier attempts at the same write. A retry that this node cannot know of is refused as *unknown*.
    fn attempt(&mut self, turn: &mut Turn<'_>, op: &mut Op, put: &Put) -> Attempt {
        let refused = |code, message| Attempt::Refused(Box::new(Reply::Error(ErrorReply::new(code, message))));
        if let Some(&number) = op.claim.and_then(|claim| self.writing.get(&claim))
            && let Some(first) = self.ops.get_mut(number)
        {
            if first.origins.len() >= MAX_ORIGINS {
                let message = "this write is being done, and too many of its retries wait for it already";
                return refused(ErrorCode::Unknown, message);
            }
            first.origins.append(&mut op.origins);
            self.counters.retries_recognised += 1;
            return Attempt::Joined;
        }
        let done = match Retries::get(turn.store, op.target.partition, op.retry_id(put)) {
            Ok(done) => done,
            Err(fault) => {
                let code = fault_code(turn, fault);
                return Attempt::Refused(Box::new(self.store_error(code)));
            }
        };
        // Rule: retries outlive their value. The row alone decides, whether the value is still there or not.
        if let Some(row) = done {
            self.counters.retries_recognised += 1;
            return Attempt::Done(row);
        }
        // Rule: strange retries are unknown. A node that stands in for the owners may have forwarded the first attempt.
        let stands_in = !op.target.owners.contains(self.config.node);
        if put.attempt > 0 && (stands_in || self.start != Some(put.start)) {
            let message = "this node has lost track of the first attempt since it was made: the write may have been done; read the key";
            return refused(ErrorCode::Unknown, message);
        }
        if !self.retries.has_room() {
            self.counters.overloaded += 1;
            let message = "too many recent writes are remembered for their retries; nothing was written";
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_ROOM_MS);
            return Attempt::Refused(Box::new(Reply::Error(error)));
        }
        Attempt::First
    }

    /// Clients will not retry these writes: their rows go with the next change, or the next upkeep.
    pub(super) fn settle_retries(&mut self, turn: &Turn<'_>, receipts: Vec<Receipt>) {
        for receipt in receipts {
            self.counters.retries_settled += u64::from(self.retries.settle(turn.store, receipt));
        }
    }

    /// Drops the rows of retries that will not come any more.
    pub(super) fn expire_retries(&mut self, turn: &mut Turn<'_>) {
        self.retry_epoch(turn.now);
        let mut change = Change::default();
        let count = self.retries.droppable(EXPIRED_AT_ONCE, &mut change);
        // What could not be written is tried again.
        if count > 0 && self.write(turn, change).is_ok() {
            self.retries.dropped(count);
        }
        let pause = if count == EXPIRED_AT_ONCE { NEXT_EXPIRED_US } else { UPKEEP_US };
        self.next_expiry_us = turn.now.mono_us + pause;
    }

    /// Writes the object here and sends it to the other owners. An object at its limit is merged first, once.
    pub(super) fn write_object(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        write: PendingWrite,
        merge_tried: bool,
    ) -> Step {
        // W must be reachable before the dot is minted: afterwards the answer could only be *unknown*.
        let tally = match self.reachable_tally(&op, &write.put) {
            Ok(tally) => tally,
            Err(reply) => return self.finish(turn, &op, *reply),
        };
        // A context from a later life of this disk ends the tenure now, and not after the mint.
        let partition = op.target.partition;
        self.check_context(turn, partition, &write.seen);
        let mut copy = match self.load(turn, Place { partition, store_key: &op.target.store_key }) {
            Ok(copy) => copy,
            // Rule: unreadable is replaced.
            Err(ErrorCode::Damaged) => return self.recover(turn, op, write),
            Err(code) => {
                let error = self.store_error(code);
                return self.finish(turn, &op, error);
            }
        };
        let object = &mut copy.object;
        self.check_claims(turn, partition, &write.seen, &object.context);
        causal::drop_expired(object, turn.now.wall_ms, self.config.max_skew_ms);
        let replaced = causal::bounded(object, write.seen.clone());
        // Rule: quotas come before the mint.
        if let Err(refusal) = self.check_quota(&op, object, &write.put, &replaced) {
            return self.finish(turn, &op, Reply::Error(refusal));
        }
        if is_above_limit(&op, object, &write.put, &replaced) {
            let inputs = causal::visible(object, turn.now.wall_ms);
            if inputs.len() == 1
                && causal::fold(object, &inputs, Bytes::new(), None)
                && !is_above_limit(&op, object, &write.put, &replaced)
            {
                // What stood beside the one value were tombstones; no plugin is needed to drop them.
                return self.mint_and_replicate(turn, op, write, copy, tally);
            }
            let merger = self.merger(&op.target.bucket, &op.target.object).ok();
            let Some(activation) = merger.filter(|_| inputs.len() > 1 && !merge_tried) else {
                // Rule: limits drop nothing.
                let refusal = too_many_siblings(&op);
                return self.finish(turn, &op, refusal);
            };
            self.counters.merges += 1;
            let job = merge_job(&op, activation.plugin, causal::siblings(&inputs), Show::Nothing);
            op.work = Work::Write(WriteWork { write, phase: WritePhase::Folding { inputs }, busy: Vec::new() });
            turn.effects.push(Effect::Merge(MergeTicket(op.id.number), job));
            return Step::Keep(op);
        }
        self.mint_and_replicate(turn, op, write, copy, tally)
    }

    /// The siblings at the limit have been merged, or could not be. The write goes on either way, and is refused if
    /// there is still no room.
    pub(super) fn write_merged(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        result: Result<Merged, PluginError>,
    ) -> Step {
        let (write, inputs) = match core::mem::replace(&mut op.work, Work::Starting) {
            Work::Write(WriteWork { write, phase: WritePhase::Folding { inputs }, .. }) => (write, inputs),
            // The answer came twice.
            other => {
                op.work = other;
                return Step::Keep(op);
            }
        };
        if let (Ok(merged), Some(activation)) = (result, trials::merging(&op.target.bucket, &op.target.object)) {
            let by = FoldedBy { plugin: activation.plugin, profile: merged.profile };
            let fold = PendingFold { inputs, value: merged.value, by: Some(by), fuel_used: merged.fuel_used };
            // Whether the write has room without the fold is not the question: the store would not take it either.
            if let Err(code) = self.fold_stored(turn, &op, &fold) {
                let error = self.store_error(code);
                return self.finish(turn, &op, error);
            }
        }
        self.write_object(turn, op, write, true)
    }

    fn fold_stored(&mut self, turn: &mut Turn<'_>, op: &Op, fold: &PendingFold) -> Result<(), ErrorCode> {
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        // The write meets a copy that cannot be read next.
        let Ok(mut copy) = self.load(turn, place) else { return Ok(()) };
        self.store_fold(turn, &op.target.bucket, (&op.target.object, &mut copy), fold).map(|_| ())
    }

    /// The write becomes real: it gets its dot, and object, actor and retry row are written in one record. Only then do
    /// the other owners hear of it.
    fn mint_and_replicate(
        &mut self,
        turn: &mut Turn<'_>,
        op: Box<Op>,
        write: PendingWrite,
        copy: Copy,
        tally: Tally,
    ) -> Step {
        let (Copy { mut object, row }, partition) = (copy, op.target.partition);
        let mut change = Change::default();
        let reserved = op.reserved.and_then(|dot| self.tenures.take(partition, dot, &mut change));
        let dot = reserved.unwrap_or_else(|| self.tenures.mint(partition, &mut change, &mut self.rng));
        let stamp = self.stamp(turn.now);
        let (content, expires) = (write.put.content.clone(), expiry(&op, &write.put, stamp));
        let replaced = causal::bounded(&object, write.seen.clone());
        causal::put(&mut object, Write { seen: replaced, dot, content, stamp, expires });
        // Rule: writers are told their own. A sibling that the writer was not shown must outlive its next write.
        let view = causal::writers_view(&object, &write.seen, dot);
        let context = self.config.contexts.seal(&op.target.object, &view);
        // The retry row stands in the same record: a retry finds the write exactly if it was done.
        let (retry, epoch) = (op.retry_id(&write.put), self.retry_epoch(turn.now));
        self.retries.insert(partition, retry, &RetryRow { dot, context: context.clone(), epoch }, &mut change);
        let settled = self.retries.droppable(SETTLED_AT_ONCE, &mut change);
        let place = Place { partition, store_key: &op.target.store_key };
        let state = EncodedObject::from(object);
        let written = self.store_row(turn, place, &row, state.row().clone(), change);
        if written.is_ok() {
            self.retries.dropped(settled);
        }
        // Rule: refused is not sent.
        if let Err(code) = written {
            self.retries.forget(epoch, partition, retry);
            // A store that has failed for good may have kept what it was given: only after a restart will it be known.
            let failed = "the coordinating node's store has failed and the node is stopping: the write may have been done; read the key";
            let stopping = || Reply::Error(ErrorReply::new(ErrorCode::Unknown, failed));
            let reply = if code == ErrorCode::Stopping { stopping() } else { self.store_error(code) };
            return self.finish(turn, &op, reply);
        }
        self.replicate(turn, &op, state, dot, &tally);
        self.await_acks(turn, op, write, WritePhase::Replicating { dot, tally, context })
    }

    /// Writes an object whose copy here cannot be read, and of which the `absent` owners that have answered have
    /// nothing.
    ///
    /// A copy that is lost for good is given up. If so many others have nothing that every acknowledged write would
    /// have been met, none was lost. Otherwise the lost copy may have been the only one: a put or a delete is what
    /// makes the key whole again, and a create is refused, because it promises that there was nothing. A copy that is
    /// only damaged may be read again, and keeps its place.
    pub(super) fn write_over_lost(
        &mut self,
        turn: &mut Turn<'_>,
        op: Box<Op>,
        write: PendingWrite,
        absent: u8,
    ) -> Step {
        let (partition, store_key) = (op.target.partition, op.target.store_key.clone());
        let place = Place { partition, store_key: &store_key };
        match self.load(turn, place) {
            // Something has come in meanwhile.
            Ok(_) => return self.write_object(turn, op, write, false),
            Err(ErrorCode::Damaged) => {}
            Err(code) => {
                let error = self.store_error(code);
                return self.finish(turn, &op, error);
            }
        }
        let (w, n) = (op.target.bucket.props.w, op.target.read_copies().n);
        // Where a fallback holds something, W owners need not have an acknowledged write.
        let held = self.holdings.others(partition).next().is_some();
        let meets_all = !held && absent.saturating_add(w.of(n).max(1)) > n;
        // Rule: lost copies are written over.
        let lost = lost_upto(turn, &store_key).is_some();
        // Rule: creates need proof.
        let allowed = meets_all || write.put.basis != Basis::Create;
        if !(lost && allowed) {
            let error = self.store_error(ErrorCode::Damaged);
            return self.finish(turn, &op, error);
        }
        let tally = match self.reachable_tally(&op, &write.put) {
            Ok(tally) => tally,
            Err(reply) => return self.finish(turn, &op, *reply),
        };
        self.check_claims(turn, partition, &write.seen, &VersionVector::new());
        // Before the mint: the dot must be the next actor's.
        let copy = Copy { object: Object::default(), row: self.give_up(turn, place) };
        self.mint_and_replicate(turn, op, write, copy, tally)
    }

    /// The nodes that a write waits for, or the refusal if too few of them can be reached.
    pub(super) fn reachable_tally(&mut self, op: &Op, put: &Put) -> Result<Tally, Box<Reply>> {
        let tally = self.write_tally(op, put);
        if tally.verdict() != Verdict::Impossible {
            return Ok(tally);
        }
        let zones = op.target.bucket.props.zones;
        let message = match usize::from(zones) <= self.view.zone_count() {
            true => "too few replicas of the key can be reached; nothing was written",
            false => {
                "the bucket asks for acknowledgements from more zones than the layout has; nothing was written. Lower it \
                 with `rejoin bucket set BUCKET --zones`"
            }
        };
        Err(Box::new(self.quorum_error(ErrorCode::Unavailable, message, &tally.at_best())))
    }

    /// A tally with the W and PW of the request, or else of its bucket: of the owners, and of a fallback for each that
    /// is not healthy.
    fn write_tally(&self, op: &Op, put: &Put) -> Tally {
        let Bucket { props, live, .. } = &*op.target.bucket;
        let (w, pw) = (put.w.unwrap_or(props.w), put.pw.unwrap_or(props.pw));
        let zones = |n: u8| if props.zones > 1 { props.zones.min(n) } else { 0 };
        let need = |n: u8| Need { nodes: w.of(n).max(1), owners: pw.of(n), zones: zones(n) };
        let newest = need(props.n);
        let mut tally = self.tally(&op.target.owners, newest.nodes, newest.owners);
        if props.zones > 1 {
            tally = tally.in_zones(newest.zones, self.view.zones());
        }
        tally = live.each().fold(tally, |tally, (layout, copies)| tally.needing(layout, need(copies.n)));
        self.seat_fallbacks(&op.target, &mut tally);
        tally
    }

    /// A retry has met its first attempt's row: the write is done here, but its quorum may still be missing. So it is
    /// replicated once more, under the same dot, and counted anew.
    pub(super) fn replicate_again(&mut self, turn: &mut Turn<'_>, op: Box<Op>, put: Put, row: RetryRow) -> Step {
        let RetryRow { dot, context, .. } = row;
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        let object = match self.load(turn, place) {
            Ok(copy) if copy.object.context.contains(dot) => copy.encoded(),
            _ => {
                let message = "the write was done, but this node has lost it or cannot read it any more; read the key";
                return self.finish(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::Unknown, message)));
            }
        };
        let tally = self.write_tally(&op, &put);
        self.replicate(turn, &op, object, dot, &tally);
        let write = PendingWrite { put, seen: VersionVector::new() };
        self.await_acks(turn, op, write, WritePhase::Replicating { dot, tally, context })
    }

    /// The other nodes have been asked just now.
    pub(super) fn await_acks(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        write: PendingWrite,
        phase: WritePhase,
    ) -> Step {
        op.asked_us = turn.now.mono_us;
        op.work = Work::Write(WriteWork { write, phase, busy: Vec::new() });
        self.expect_relief(turn.now.mono_us, &op);
        self.own_ack(turn, op)
    }

    /// Sends the object to every other node that the write waits for. The whole object goes and not only the new entry,
    /// so that an owner that was behind is not any more.
    pub(super) fn replicate(&mut self, turn: &mut Turn<'_>, op: &Op, state: EncodedObject, dot: Dot, tally: &Tally) {
        let own = self.config.node;
        let mut nodes = tally.waiting().filter(|node| *node != own).peekable();
        let mut state = Some(state);
        while let Some(node) = nodes.next() {
            self.counters.fallbacks_asked += u64::from(!op.target.owners.contains(node));
            let is_last = nodes.peek().is_none();
            let Some(sent) = (if is_last { state.take() } else { state.clone() }) else { return };
            let message = self.write_message(op, sent, dot);
            self.send_for(turn, op, node, PeerBody::Replicate(message));
        }
    }

    /// A write as the other nodes get it.
    pub(super) fn write_message(&self, op: &Op, state: EncodedObject, dot: Dot) -> Replicate {
        Replicate {
            op: Some(op.id),
            object: op.target.object.clone(),
            bucket_version: op.target.bucket.version,
            epoch: self.epoch(),
            dot: Some(dot),
            durability: op.target.bucket.props.durability,
            state,
        }
    }

    /// This node's own acknowledgement: at once if the operating system is enough (effects wait for the journal write
    /// anyway), else with the disk.
    fn own_ack(&mut self, turn: &mut Turn<'_>, op: Box<Op>) -> Step {
        // Rule: acks wait for the disk.
        if op.target.bucket.props.durability == Durability::Os {
            let node = self.config.node;
            return self.write_acked(turn, op, node);
        }
        turn.effects.push(Effect::WhenDurable(DurableTicket(op.id.number)));
        self.write_step(turn, op)
    }

    /// What a ticket stands for is on the disk, or too much waited for the disk already.
    pub(super) fn disk_waited_for(&mut self, turn: &mut Turn<'_>, ticket: DurableTicket, is_durable: bool) {
        if self.exchanges.pacer.is_timed(ticket.0) {
            return self.exchanges.pacer.acknowledged(turn.now.mono_us, is_durable);
        }
        if self.ring.waits_for(ticket) {
            return self.taken_durably(turn, is_durable);
        }
        let node = self.config.node;
        self.with_op(turn, ticket.0, |shard, turn, op| match is_durable {
            true => shard.write_acked(turn, op, node),
            // Rule: full waits are told.
            false => shard.ask_later(turn, op, node),
        });
    }

    /// An owner has what supersedes the write. That is an acknowledgement, unless the owner has seen later writes of
    /// the minting actor than this node's copy holds: then the disk is an old one, the write was minted under a used
    /// dot, and the owner has dropped it.
    pub(super) fn write_superseded(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        from: NodeId,
        seen: &VersionVector,
    ) -> Step {
        let partition = op.target.partition;
        self.check_context(turn, partition, seen);
        let mut claims_more = false;
        let minted = match &op.work {
            Work::Write(WriteWork { phase: WritePhase::Replicating { dot, .. }, .. }) => Some(dot.actor),
            _ => None,
        };
        if let Ok(copy) = self.load(turn, Place { partition, store_key: &op.target.store_key }) {
            let own = &copy.object.context;
            self.check_claims(turn, partition, seen, own);
            claims_more = minted.is_some_and(|actor| seen.highest(actor) > own.highest(actor));
        }
        // The tenure may have ended meanwhile for another reason, such as a damaged copy. That says nothing of this
        // write.
        let goes_on = minted.is_none_or(|actor| !claims_more && self.tenures.stands(partition, actor, seen));
        // Rule: outrun writes are not acked.
        if goes_on {
            return self.write_acked(turn, op, from);
        }
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            // No other node could do better: the dot is one that was used before.
            tally.bad(from, "it has seen later writes of this node's actor: this node's disk is an old one");
        }
        self.write_step(turn, op)
    }

    pub(super) fn write_acked(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, from: NodeId) -> Step {
        if let Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) = &mut op.work {
            // Rule: nodes count once. The tally takes the first answer of each node.
            tally.good(from);
        }
        self.write_step(turn, op)
    }

    pub(super) fn write_failed(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, node: NodeId, why: &str) -> Step {
        let seat = match &mut op.work {
            Work::Write(WriteWork { phase: WritePhase::Replicating { tally, .. }, .. }) => tally.bad(node, why),
            _ => None,
        };
        if let Some(seat) = seat {
            self.stand_in(turn, &mut op, seat);
        }
        self.write_step(turn, op)
    }

    /// Replies as soon as W is reached, or cannot be reached any more. The write stays where it has come to: read
    /// repair and fallbacks bring it to the owners that are missing.
    fn write_step(&mut self, turn: &mut Turn<'_>, op: Box<Op>) -> Step {
        let Work::Write(WriteWork { write, phase: WritePhase::Replicating { tally, context, .. }, .. }) = &op.work
        else {
            return Step::Keep(op);
        };
        let outcome = match tally.verdict() {
            Verdict::Enough => PutOutcome::Stored,
            Verdict::Impossible if op.is_stale => return self.go_on_by_newer(turn, op),
            Verdict::Impossible => {
                self.counters.quorum_failures += 1;
                PutOutcome::Unknown
            }
            Verdict::Waiting => return Step::Keep(op),
        };
        self.stop_waiting(&op);
        let receipt = (outcome == PutOutcome::Stored).then(|| op.receipt(&write.put));
        let reply =
            PutReply { outcome, context: context.clone().into(), acked: tally.got(), needed: tally.needed(), receipt };
        self.finish(turn, &op, Reply::Put(reply))
    }

    pub(super) fn write_timed_out(&mut self, turn: &mut Turn<'_>, op: &Op) -> Step {
        let reply = match &op.work {
            Work::Write(WriteWork { phase: WritePhase::Replicating { tally, context, .. }, .. }) => {
                self.counters.quorum_failures += 1;
                let (acked, needed) = (tally.got(), tally.needed());
                let (outcome, context) = (PutOutcome::Unknown, context.clone().into());
                Reply::Put(PutReply { outcome, context, acked, needed, receipt: None })
            }
            _ => {
                let message =
                    "the merge of the siblings at the object's limit did not end in time; nothing was written";
                Reply::Error(ErrorReply::new(ErrorCode::TimedOut, message))
            }
        };
        self.finish(turn, op, reply)
    }
}

/// Checks what the request alone shows to be wrong.
fn check_put(op: &Op, put: &Put) -> Result<(), ErrorReply> {
    let bucket = &op.target.bucket;
    let (bytes, most) = (put.content.len(), bucket.props.value_bytes);
    // What a fold is undone with is as large as all of its inputs.
    let is_above = if matches!(put.basis, Basis::Undo(_)) { bytes > MAX_RECEIPT_BYTES } else { bytes > most as usize };
    if is_above {
        let message = alloc::format!("the value has {bytes} bytes, bucket {} takes {most} at most", bucket.name);
        return Err(ErrorReply::new(ErrorCode::TooLarge, message));
    }
    if put.basis == Basis::Operation && put.content == Content::Tombstone {
        let message = "an operation has content: to remove the key, delete it";
        return Err(ErrorReply::new(ErrorCode::BadRequest, message));
    }
    if put.ttl_ms == Some(0) {
        let message =
            "a time to live of no time at all would hide the value at once: give 1 ms or more, or delete the key";
        return Err(ErrorReply::new(ErrorCode::BadRequest, message));
    }
    Ok(())
}

fn expiry(op: &Op, put: &Put, stamp: Hlc) -> Option<Hlc> {
    let ttl_ms = put.ttl_ms.or(op.target.bucket.props.ttl_ms)?;
    // A tombstone never expires: a delete must not be undone by time.
    (put.content != Content::Tombstone).then(|| Hlc::from_ms(stamp.ms().saturating_add(ttl_ms)))
}

/// Whether the object would be above its bucket's limits with this write. A write that has seen everything leaves
/// itself only, and never is.
fn is_above_limit(op: &Op, object: &Object, put: &Put, seen: &VersionVector) -> bool {
    // Rule: full contexts pass.
    let stays = |entry: &&Entry| !entry.dots.is_seen_by(seen);
    let left: Vec<&Entry> = object.entries.iter().filter(stays).collect();
    if left.is_empty() {
        return false;
    }
    // Rule: limits are kept.
    let props = &op.target.bucket.props;
    let bytes = left.iter().map(|entry| entry.content.len()).sum::<usize>() + put.content.len();
    let most = op.target.bucket.siblings_quota.map_or(props.siblings, |quota| quota.min(props.siblings));
    left.len() + 1 > usize::from(most) || bytes > props.object_bytes()
}

fn too_many_siblings(op: &Op) -> Reply {
    let bucket = &op.target.bucket;
    if let Some(quota) = bucket.siblings_quota.filter(|quota| *quota < bucket.props.siblings) {
        return Reply::Error(quotas::too_many_siblings(bucket, quota));
    }
    let message = alloc::format!(
        "the object is at the limit of bucket {} ({} siblings, {} bytes) and could not be merged; read it and write with its context",
        bucket.name,
        bucket.props.siblings,
        bucket.props.object_bytes()
    );
    Reply::Error(ErrorReply::new(ErrorCode::TooManySiblings, message))
}
