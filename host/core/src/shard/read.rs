//! Reads: ask the owners, count R, join what comes, have several values merged, answer, and repair the owners that were
//! behind.
//!
//! In the order of a read: [`Shard::start_get`], [`Shard::start_read`], [`Shard::read_answered`], `read_step`,
//! `read_quorum`, [`Shard::read_merged`], `answer_read`, [`Shard::repair`]. Creates, writes over an unreadable copy and
//! undos begin with a read too, and go on in [`Shard::write_object`] or [`Shard::restore`]. A read mints nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::SmallVec;

use rejoin_proto::catalog::Durability;
use rejoin_proto::client::{Get, GetReply, MergedBy, Put, Reply, Show, Sibling};
use rejoin_proto::peer::{PeerBody, Replicate};
use rejoin_proto::{EncodedObject, Entry, ErrorCode, ErrorReply, FoldedBy, NodeId, PluginDigest, VersionVector};

use super::Shard;
use super::copy::{Copy, Place, StoredRow};
use super::event::{Effect, MergeTicket, Merged, PluginError};
use super::jobs::merge_job;
use super::op::{CopyAnswer, Op, PendingFold, PendingWrite, ReadPhase, ReadPurpose, ReadWork, SameAnswer, Step, Work};
use super::turn::Turn;
use crate::causal;
use crate::layouts::{LayoutSet, Seat};
use crate::quorum::Verdict;
use crate::trials;

/// How long a client should wait when its read would hold too many bytes, in milliseconds.
const BUSY_RETRY_MS: u32 = 50;

impl Shard {
    pub(super) fn start_get(&mut self, turn: &mut Turn<'_>, op: Box<Op>, get: Get) -> Step {
        self.counters.gets += 1;
        let (props, n) = (&op.target.bucket.props, op.target.read_copies().n);
        let r = get.r.unwrap_or(props.r).of(n).max(1);
        let pr = get.pr.unwrap_or(props.pr).of(n);
        self.start_read(turn, op, ReadPurpose::Reply(get), (r, pr))
    }

    /// Begins to read an object with `(r, pr)`. As many owners are asked as it needs, see [`asking`](super::asking), or
    /// all of them and the fallbacks that hold something of the partition. A read that this owner's own copy can answer
    /// asks nobody.
    pub(super) fn start_read(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        purpose: ReadPurpose,
        (r, pr): (u8, u8),
    ) -> Step {
        let mut tally = self.read_tally(&op.target.owners, r, pr);
        let (mut fallbacks, unreachable) = self.holders(&op.target);
        let (from, nobody_holds) = (self.config.node, fallbacks.is_empty() && unreachable.is_empty());
        // Nobody else could have what the only owner has lost.
        let owners = &op.target.owners;
        let is_owner = owners.reads_at(from);
        let complete = self.vouches(op.target.partition, Some(&op.target.bucket), !is_owner)
            || (owners.len() == 1 && nobody_holds);
        if !is_owner {
            fallbacks.push(from);
        }
        // A strict bucket counts its owners only. What fallbacks hold from before it became strict is joined.
        let counts = if op.target.read_copies().sloppy { owners.reads() } else { LayoutSet::EMPTY };
        // Neither does an owner in another live layout stand in for one in the layout that is read.
        let counts_of = |node: &NodeId| if owners.contains(*node) { LayoutSet::EMPTY } else { counts };
        fallbacks.iter().for_each(|node| tally.add(*node, Seat::fallback(counts_of(node))));
        if tally.verdict() == Verdict::Impossible {
            let message = "too few replicas of the key can be reached; nothing was done";
            let reply = self.quorum_error(ErrorCode::Unavailable, message, &tally.at_best());
            return self.finish(turn, &op, reply);
        }
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        let copy = self.load(turn, place);
        let alone = tally.only(from);
        // What a fallback holds may be newer than the fold that is to be undone.
        let may_be_alone = is_owner && (fallbacks.is_empty() || !matches!(purpose, ReadPurpose::Undo(_)));
        if may_be_alone
            && alone.verdict() != Verdict::Impossible
            && complete
            && let Ok(copy) = &copy
        {
            tally = alone;
            // Rule: not found needs the fallbacks.
            if fallbacks.is_empty() || !causal::visible(&copy.object, turn.now.wall_ms).is_empty() {
                fallbacks.clear();
            }
            fallbacks.iter().for_each(|node| tally.add(*node, Seat::fallback(counts_of(node))));
        }
        let epoch = self.epoch();
        let mut read = ReadWork { fallbacks, unreachable, ..ReadWork::new(purpose, tally, epoch) };
        if self.spares(&read, is_owner) {
            read.spared = self.spare(&mut read.tally, complete && copy.is_ok());
            read.asks_all = !read.spared.is_empty() && self.draws_all();
        }
        let mut asked: SmallVec<[NodeId; 5]> = read.tally.waiting().filter(|node| *node != from).collect();
        self.contacts.sort(&mut asked);
        if is_owner && !asked.is_empty() {
            let of = |copy: &Copy| self.digest(&op.target.object, &op.target.store_key, copy);
            read.digest = copy.as_ref().ok().map(of);
        }
        op.asked_us = turn.now.mono_us;
        op.work = Work::Read(read);
        asked.into_iter().for_each(|node| self.ask_for_copy(turn, &op, node));
        self.expect_relief(turn.now.mono_us, &op);
        // This node's own copy is the first answer.
        let copy = copy.map(|copy| copy.object);
        self.read_answered(turn, op, CopyAnswer { from, epoch, copy, complete })
    }

    /// An owner or a fallback has answered with its copy, or with why it cannot. The copy of a replica that is not
    /// complete is joined and repaired like any other, but does not count: what it lacks proves nothing. Neither does a
    /// fallback that has nothing.
    pub(super) fn read_answered(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, answer: CopyAnswer) -> Step {
        let CopyAnswer { from, epoch, copy, complete } = answer;
        let partition = op.target.partition;
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        let is_fallback = read.fallbacks.contains(&from);
        match copy {
            // Rule: empty fallbacks do not count.
            Ok(copy) if is_fallback && copy.is_empty() && complete => read.tally.dismiss(from),
            Ok(copy) => {
                if read.tally.is_waiting_for(from) {
                    self.check_context(turn, partition, &copy.context);
                    if copy == read.joined {
                        read.copies.push((from, true));
                    } else {
                        let joined = causal::sync(&read.joined, &copy).0;
                        if joined != read.joined {
                            // The copies that were current until now lack what this one has brought.
                            read.copies.iter_mut().for_each(|(_, current)| *current = false);
                        }
                        read.copies.push((from, copy == joined));
                        read.take(joined, &copy);
                    }
                    read.count(from, epoch, complete);
                }
            }
            // Rule: errors are no copies.
            Err(code) => {
                if code == ErrorCode::Damaged && !is_fallback && read.tally.is_waiting_for(from) {
                    read.damaged.push(from);
                }
                let was_asked = read.tally.bad(from, rejoin_proto::peer::refusal(code)).is_some();
                read.unreachable.extend((is_fallback && was_asked).then_some(from));
            }
        }
        if matches!(read.phase, ReadPhase::Collecting) && !self.has_room_for(turn, op.held_bytes()) {
            self.counters.overloaded += 1;
            let message = "the requests under way hold too many bytes; read again";
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(BUSY_RETRY_MS);
            return self.finish(turn, &op, Reply::Error(error));
        }
        self.read_step(turn, op)
    }

    /// An owner's copy is the same as the one that this node had when it asked. That one is in the join already.
    pub(super) fn read_same(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, same: SameAnswer) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        // Rule: same is said of one copy. The request may have been begun anew since, with a newer copy here.
        let is_about_it = read.digest == Some(same.digest);
        if !is_about_it || read.fallbacks.contains(&same.from) || !read.tally.is_waiting_for(same.from) {
            return Step::Keep(op);
        }
        let own = self.config.node;
        let is_current = read.copies.iter().any(|&(node, current)| node == own && current);
        read.copies.push((same.from, is_current));
        read.count(same.from, same.epoch, same.complete);
        self.read_step(turn, op)
    }

    pub(super) fn read_failed(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, node: NodeId, why: &str) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        let was_asked = read.tally.bad(node, why).is_some();
        read.unreachable.extend((was_asked && read.fallbacks.contains(&node)).then_some(node));
        self.read_step(turn, op)
    }

    /// Goes as far as the answers allow. A read that has replied stays until all that it has asked have answered, so
    /// that the late ones are repaired too.
    fn read_step(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        if read.needs_spared() && self.ask_spared(turn, &mut op) {
            return self.read_step(turn, op);
        }
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        match (&read.phase, read.tally.verdict()) {
            (ReadPhase::Collecting, Verdict::Enough) if read.awaits_fallbacks(turn.now.wall_ms) => Step::Keep(op),
            (ReadPhase::Collecting, Verdict::Enough) => self.read_quorum(turn, op),
            (ReadPhase::Collecting, Verdict::Impossible) if op.is_stale => self.go_on_by_newer(turn, op),
            (ReadPhase::Collecting, Verdict::Impossible) => self.read_impossible(turn, op),
            (ReadPhase::Answered, _) if read.tally.is_complete() => {
                self.repair(turn, &op);
                Step::Done
            }
            (ReadPhase::Answered, _) => {
                self.lingering.insert(op.id.number);
                self.no_longer_earlier(turn, op.id.number);
                Step::Keep(op)
            }
            _ => Step::Keep(op),
        }
    }

    /// R cannot be reached any more. The reader is told. What has come, and what is still to come, is repaired all the
    /// same; a write ends here, and repairs only if a copy is damaged.
    fn read_impossible(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        let (is_damaged, is_write) = (!read.damaged.is_empty(), !matches!(read.purpose, ReadPurpose::Reply(_)));
        let reply = self.quorum_error(ErrorCode::Unavailable, "too few replicas could answer the read", &read.tally);
        if !is_write {
            read.phase = ReadPhase::Answered;
            self.reply(turn, &op, reply);
            return self.read_step(turn, op);
        }
        self.reply(turn, &op, reply);
        if is_damaged {
            self.repair(turn, &op);
        }
        Step::Done
    }

    /// R owners have answered: the reply, unless a plugin has to run first.
    fn read_quorum(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        let inputs = causal::visible(&read.joined, turn.now.wall_ms);
        let siblings = causal::siblings(&inputs);
        self.counters.siblings_seen += siblings.len() as u64;
        let get = match &mut read.purpose {
            ReadPurpose::Create(put) => {
                let put = put.clone();
                return self.created(turn, op, put, inputs.is_empty());
            }
            ReadPurpose::Recover(PendingWrite { put, seen }) => {
                let write = PendingWrite { put: put.clone(), seen: core::mem::take(seen) };
                return self.recovered(turn, op, write);
            }
            ReadPurpose::Undo(PendingWrite { put, seen }) => {
                let (put, seen) = (put.clone(), core::mem::take(seen));
                return self.restore(turn, op, put, &seen);
            }
            ReadPurpose::Reply(get) => get,
        };
        // A single value needs the plugin only for its readable form.
        let is_wanted = siblings.len() > 1 || (siblings.len() == 1 && get.show != Show::Nothing);
        let merger = self.merger(&op.target.bucket, &op.target.object);
        if let (true, Ok(activation)) = (is_wanted, &merger) {
            let show = get.show.clone();
            read.phase = ReadPhase::Merging { inputs, seen: read.joined.context.clone() };
            self.counters.merges += 1;
            let job = merge_job(&op, activation.plugin, siblings, show);
            turn.effects.push(Effect::Merge(MergeTicket(op.id.number), job));
            return Step::Keep(op);
        }
        let asks = matches!(get.show, Show::Answer(_));
        let fault = merger.err().filter(|_| siblings.len() > 1 || (asks && is_wanted));
        if let Some(fault) = fault.as_ref().filter(|_| asks) {
            return self.refuse_question(turn, op, fault);
        }
        let value = if siblings.len() == 1 { siblings.first().map(|sibling| sibling.value.clone()) } else { None };
        let (plugin, seen) = (folded_by(&inputs), read.joined.context.clone());
        self.answer_read(turn, op, Outcome { inputs, seen, value, shown: None, plugin, fault })
    }

    /// The plugin has run, or could not.
    pub(super) fn read_merged(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        result: Result<Merged, PluginError>,
    ) -> Step {
        let plugin = trials::merging(&op.target.bucket, &op.target.object);
        let now_ms = turn.now.wall_ms;
        let folds = plugin.is_some_and(|by| trials::folds_at_once(&op.target.bucket.props, &by, now_ms));
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        // Rule: readers are told what is shown. `seen` is from when the plugin began; copies that came later are not in
        // it.
        let ReadPhase::Merging { inputs, seen } = core::mem::replace(&mut read.phase, ReadPhase::Answered) else {
            return Step::Keep(op);
        };
        if let (ReadPurpose::Reply(Get { show: Show::Answer(_), .. }), Err(fault)) = (&read.purpose, &result) {
            return self.refuse_question(turn, op, fault);
        }
        let distinct = causal::siblings(&inputs);
        let outcome = match result {
            Ok(merged) if distinct.len() > 1 => {
                let plugin = plugin.map(|activation| activation.plugin);
                if folds {
                    let by = plugin.map(|plugin| FoldedBy { plugin, profile: merged.profile });
                    let (inputs, value, fuel_used) = (inputs.clone(), merged.value.clone(), merged.fuel_used);
                    read.fold = Some(PendingFold { inputs, value, by, fuel_used });
                }
                Outcome { inputs, seen, value: Some(merged.value), shown: merged.shown, plugin, fault: None }
            }
            Ok(merged) => {
                let plugin = folded_by(&inputs);
                Outcome { inputs, seen, value: Some(merged.value), shown: merged.shown, plugin, fault: None }
            }
            // A single value needs no merge: only its readable form could not be made.
            Err(_) if distinct.len() == 1 => {
                let (value, plugin) = (distinct.first().map(|sibling| sibling.value.clone()), folded_by(&inputs));
                Outcome { inputs, seen, value, shown: None, plugin, fault: None }
            }
            // Rule: failures choose nothing.
            Err(fault) => Outcome { inputs, seen, value: None, shown: None, plugin: None, fault: Some(fault) },
        };
        self.answer_read(turn, op, outcome)
    }

    /// There is no answer to the reader's question. The read itself goes on, as after any reply.
    fn refuse_question(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, fault: &PluginError) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        read.phase = ReadPhase::Answered;
        let bucket = &op.target.bucket.name;
        let error = match fault {
            PluginError::NoPlugin => {
                let message = alloc::format!("bucket {bucket} has no plugin that could answer: read the value");
                ErrorReply::new(ErrorCode::BadRequest, message)
            }
            fault if fault.is_deterministic() => {
                let message = alloc::format!("the plugin of bucket {bucket} does not answer the question: {fault}");
                ErrorReply::new(ErrorCode::InvalidValue, message)
            }
            fault => {
                let message = alloc::format!("the plugin of bucket {bucket} could not answer the question: {fault}");
                ErrorReply::new(ErrorCode::Overloaded, message).retry_after(BUSY_RETRY_MS)
            }
        };
        self.reply(turn, &op, Reply::Error(error));
        self.read_step(turn, op)
    }

    /// Replies to the reader. The read itself goes on until the late owners have answered.
    fn answer_read(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, outcome: Outcome) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        read.phase = ReadPhase::Answered;
        let all = matches!(&read.purpose, ReadPurpose::Reply(get) if get.siblings);
        let asks = matches!(&read.purpose, ReadPurpose::Reply(Get { show: Show::Answer(_), .. }));
        let mut siblings = if asks { Vec::new() } else { causal::siblings(&outcome.inputs) };
        if let (Some(value), true, false) = (&outcome.value, siblings.len() > 1, all) {
            siblings = alloc::vec![merged_sibling(&outcome.inputs, value)];
        }
        let digest = outcome.plugin;
        let reply = GetReply {
            value: outcome.value.filter(|_| !asks),
            shown: outcome.shown,
            siblings,
            context: self.config.contexts.seal(&op.target.object, &outcome.seen).into(),
            merged_by: digest.map(|digest| {
                let name = self.view.plugin_name(op.target.object.tenant, &digest).cloned();
                MergedBy { name, digest }
            }),
            merge_fault: outcome.fault.map(|fault| alloc::format!("{fault}")),
            answered: read.tally.answered().map(|node| self.view.node_name(node)).collect(),
            unreachable: read.unreachable.iter().map(|node| self.view.node_name(*node)).collect(),
        };
        self.reply(turn, &op, Reply::Get(reply));
        self.read_step(turn, op)
    }

    /// What a create has found. Nothing: the write goes on with the context of that nothing, so that it replaces what
    /// was deleted before. Something: it is refused.
    fn created(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, put: Put, nothing: bool) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        if !nothing {
            let message =
                "the key already has a value: read it and write with its context, or write blind to stand beside it";
            return self.finish(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::Exists, message)));
        }
        let seen = core::mem::take(&mut read.joined.context);
        self.write_object(turn, op, PendingWrite { put, seen }, false)
    }

    /// Asks the other owners for their copies of an object whose copy here cannot be read, so that the write can go on.
    pub(super) fn recover(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, write: PendingWrite) -> Step {
        let others = op.target.owners.readers_besides(self.config.node);
        let r = op.target.bucket.props.r.of(op.target.read_copies().n);
        let needed = r.max(1).min(u8::try_from(others.len()).unwrap_or(u8::MAX));
        let tally = self.tally(&others, needed, 0);
        if others.is_empty() {
            return self.write_over_lost(turn, op, write, 0);
        }
        if tally.verdict() == Verdict::Impossible {
            let error = self.store_error(ErrorCode::Damaged);
            return self.finish(turn, &op, error);
        }
        let asked: SmallVec<[NodeId; 5]> = tally.waiting().collect();
        op.work = Work::Read(ReadWork::new(ReadPurpose::Recover(write), tally, self.epoch()));
        asked.into_iter().for_each(|node| self.ask_for_copy(turn, &op, node));
        Step::Keep(op)
    }

    /// The other owners have sent their copies: these take the place of the damaged one, and the write goes on from
    /// there.
    fn recovered(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, write: PendingWrite) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Keep(op) };
        let (joined, epoch, answers) = (core::mem::take(&mut read.joined), read.epoch, read.tally.got());
        if joined.is_empty() {
            return self.write_over_lost(turn, op, write, answers);
        }
        let taken = self.absorb(turn, &op.target.object, epoch, &joined);
        // It may be damaged still, on a disk that writes to the same bad block.
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        match taken.and_then(|_| self.load(turn, place)) {
            Ok(_) => self.write_object(turn, op, write, false),
            Err(code) => {
                let error = self.store_error(code);
                self.finish(turn, &op, error)
            }
        }
    }

    /// The deadline has come: the reader is told, if it has no reply yet, and the owners that have answered are
    /// repaired.
    pub(super) fn read_timed_out(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        let Work::Read(read) = &mut op.work else { return Step::Done };
        match &read.phase {
            ReadPhase::Answered => self.repair(turn, &op),
            ReadPhase::Collecting => {
                let message = match read.tally.verdict() {
                    Verdict::Enough if read.is_for_undo() => {
                        "a fallback that may have a newer value did not answer in time; nothing was written"
                    }
                    Verdict::Enough => "nothing was found, and a fallback that may have a value did not answer in time",
                    _ => "too few replicas answered the read in time",
                };
                let reply = self.quorum_error(ErrorCode::TimedOut, message, &read.tally);
                self.reply(turn, &op, reply);
            }
            // A merge that is too slow is a failed merge: the reader gets the siblings.
            ReadPhase::Merging { .. } => {
                if let Step::Keep(op) = self.read_merged(turn, op, Err(PluginError::TimedOut)) {
                    self.repair(turn, &op);
                }
            }
        }
        Step::Done
    }

    /// Read repair: this node takes the join if it is an owner or has a copy, and folds it if a plugin has run and its
    /// inputs are still there unchanged. Every owner whose copy differs, or cannot be read, is sent the result. A
    /// fallback is sent nothing: what it has goes to the owners by its own walk.
    pub(super) fn repair(&mut self, turn: &mut Turn<'_>, op: &Op) {
        let Work::Read(read) = &op.work else { return };
        let sound = read.is_sound();
        // Rule: reads repair.
        if sound && read.fold.is_none() || read.joined.is_empty() {
            return;
        }
        let own = self.config.node;
        let keeps = op.target.owners.contains(own) || read.copies.iter().any(|&(node, _)| node == own);
        let mut copy = match keeps {
            true => match self.absorb(turn, &op.target.object, read.epoch, &read.joined) {
                Ok(copy) => copy,
                Err(_) => return,
            },
            false => Copy { object: read.joined.clone(), row: StoredRow::Absent },
        };
        if let Some(fold) = read.fold.as_ref().filter(|_| keeps) {
            let of = (&op.target.object, &mut copy);
            // Where there is no room for the fold, the copy stays as it was joined, and the owners are sent that.
            let _ = self.store_fold(turn, &op.target.bucket, of, fold);
        }
        // This node's own copy, or a fold, may have added to what was joined.
        let same = copy.object == read.joined;
        let behind = read.copies.iter().filter(|&&(_, current)| !(current && same)).map(|&(node, _)| node);
        let behind = behind.chain(read.damaged.iter().copied());
        let state = EncodedObject::from(copy.object);
        // Rule: repairs make no fallback copies.
        for node in behind.filter(|&node| node != own && op.target.owners.contains(node)) {
            self.counters.read_repairs += 1;
            let message = Replicate {
                op: None,
                object: op.target.object.clone(),
                bucket_version: op.target.bucket.version,
                epoch: read.epoch,
                dot: None,
                durability: Durability::Os,
                state: state.clone(),
            };
            self.send_for(turn, op, node, PeerBody::Replicate(message));
        }
    }
}

/// The result of a read.
struct Outcome {
    inputs: Vec<Entry>,
    /// The context that the inputs were read with.
    seen: VersionVector,
    value: Option<Bytes>,
    shown: Option<Bytes>,
    plugin: Option<PluginDigest>,
    fault: Option<PluginError>,
}

/// The plugin behind a single value that was folded earlier.
fn folded_by(inputs: &[Entry]) -> Option<PluginDigest> {
    match inputs {
        [only] => only.folded_by.map(|by| by.plugin),
        _ => None,
    }
}

/// The merged value as the one sibling that is left: latest stamp, writer of the largest dot.
fn merged_sibling(inputs: &[Entry], value: &Bytes) -> Sibling {
    let stamp_ms = inputs.iter().map(|entry| entry.stamp.ms()).max().unwrap_or_default();
    let writer = inputs.iter().flat_map(|entry| entry.dots.highest()).max().map_or(0, |dot| dot.actor.0);
    Sibling { value: value.clone(), stamp_ms, writer }
}
