//! Reads: ask the owners, count R, join what comes, have several values merged, answer, and repair those that were
//! behind.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::Durability;
use rejoin_proto::catalog::fuel_for;
use rejoin_proto::client::{Get, GetReply, MergedBy, Put, Reply, Sibling};
use rejoin_proto::peer::{PeerBody, Replicate};
use rejoin_proto::{Entry, ErrorCode, ErrorReply, FoldedBy, NodeId, Object, ReapEpoch, VersionVector};

use super::Shard;
use super::event::{Effect, MergeJob, MergeTicket, Merged};
use super::op::{Aim, Folded, Op, ReadPhase, ReadWork, Work, no_plugin};
use super::turn::Turn;
use crate::causal;
use crate::port::Change;
use crate::quorum::Verdict;

impl Shard {
    pub(super) fn start_get(&mut self, turn: &mut Turn<'_>, op: Box<Op>, get: Get) {
        self.counters.gets += 1;
        let props = &op.target.bucket.props;
        let r = get.r.unwrap_or(props.r).of(props.n).max(1);
        let pr = get.pr.unwrap_or(props.pr).of(props.n);
        self.start_read(turn, op, Aim::Reply(get), r, pr);
    }

    /// Begins to read an object. A read that this node's own copy can answer asks nobody.
    pub(super) fn start_read(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, aim: Aim, r: u8, pr: u8) {
        let mut tally = self.tally(&op.target.owners, r, pr);
        if tally.verdict() == Verdict::Impossible {
            let message = "too few replicas of the key can be reached; nothing was done";
            let reply = self.quorum_error(ErrorCode::Unavailable, message, &tally.at_best());
            return self.reply(turn, &op, reply);
        }
        let epoch = self.epoch(op.target.partition);
        let own = self.load(turn, op.target.partition, &op.target.store_key.clone());
        let complete = self.is_complete();
        let alone = r.max(pr) <= 1 && own.is_ok() && complete;
        if alone {
            tally = crate::quorum::Tally::new(r, pr, [(self.config.node, true)]);
        }
        let asked: Vec<NodeId> =
            op.target.owners.iter().copied().filter(|&node| node != self.config.node && tally.is_waiting_for(node)).collect();
        let (object, trace, phase) = (op.target.object.clone(), op.trace, ReadPhase::Collecting);
        let work = ReadWork { aim, tally, copies: Vec::new(), damaged: Vec::new(), joined: Object::default(), epoch, phase, folded: None };
        op.work = Work::Read(work);
        let claim = op.claim();
        let number = self.keep(op);
        if let Some(claim) = claim {
            self.writing.insert(claim, number);
        }
        for node in asked {
            let read = PeerBody::Read { op: self.op_id(number), object: object.clone() };
            self.send(turn, node, trace, read);
        }
        let node = self.config.node;
        self.with_op(turn, number, |shard, turn, number, op| shard.read_answered(turn, number, op, node, epoch, own, complete));
    }

    /// An owner has answered with its copy, or with why it cannot. The copy of a replica that is not complete is joined
    /// and repaired like any other, but does not count: what it lacks proves nothing.
    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn read_answered(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        mut op: Box<Op>,
        from: NodeId,
        epoch: ReapEpoch,
        copy: Result<Object, ErrorCode>,
        complete: bool,
    ) -> Option<Box<Op>> {
        let partition = op.target.partition;
        let Work::Read(read) = &mut op.work else { return Some(op) };
        match copy {
            Ok(copy) => {
                if read.tally.is_waiting_for(from) {
                    self.heed_context(turn, partition, &copy.context);
                    let joined = causal::sync(&read.joined, &copy).0;
                    if joined != read.joined {
                        read.copies.iter_mut().for_each(|(_, current)| *current = false);
                    }
                    read.copies.push((from, copy == joined));
                    read.joined = joined;
                    read.epoch = read.epoch.min(epoch);
                    // Rule: replaced replicas do not count.
                    if complete {
                        read.tally.good(from);
                    } else {
                        read.tally.bad(from, "it has lost its data and is not rebuilt");
                    }
                }
            }
            // Rule: errors are no copies.
            Err(code) => {
                if code == ErrorCode::Damaged && read.tally.is_waiting_for(from) {
                    read.damaged.push(from);
                }
                read.tally.bad(from, rejoin_proto::peer::refusal(code));
            }
        }
        if matches!(read.phase, ReadPhase::Collecting) && !self.has_room_for(turn, op.weigh()) {
            self.counters.overloaded += 1;
            let error = ErrorReply::new(ErrorCode::Overloaded, "the requests under way hold too many bytes; read again").retry_after(50);
            self.reply(turn, &op, Reply::Error(error));
            return None;
        }
        self.read_step(turn, number, op)
    }

    pub(super) fn read_failed(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>, node: NodeId, why: &str) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        read.tally.bad(node, why);
        self.read_step(turn, number, op)
    }

    /// Goes as far as the answers allow. A read that has replied stays until all have answered, so that the late ones
    /// are repaired too.
    fn read_step(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        match (&read.phase, read.tally.verdict()) {
            (ReadPhase::Collecting, Verdict::Enough) => return self.read_quorum(turn, number, op),
            (ReadPhase::Collecting, Verdict::Impossible) => {
                let message = "too few replicas could answer the read";
                let (heals, is_write) = (!read.damaged.is_empty(), !matches!(read.aim, Aim::Reply(_)));
                let reply = self.quorum_error(ErrorCode::Unavailable, message, &read.tally);
                self.reply(turn, &op, reply);
                if !is_write {
                    // What has come, and what is still to come, is repaired all the same.
                    if let Work::Read(read) = &mut op.work {
                        read.phase = ReadPhase::Answered;
                    }
                    return self.read_step(turn, number, op);
                }
                if heals {
                    self.repair(turn, &op);
                }
                return None;
            }
            (ReadPhase::Answered, _) if read.tally.is_complete() => {
                self.repair(turn, &op);
                return None;
            }
            (ReadPhase::Answered, _) => {
                self.lingering.insert(number);
            }
            _ => {}
        }
        Some(op)
    }

    /// R owners have answered: the reply, unless a plugin has to run first.
    fn read_quorum(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        let inputs = causal::visible(&read.joined, turn.now.wall_ms);
        let siblings = causal::siblings(&inputs);
        self.counters.siblings_seen += siblings.len() as u64;
        let get = match &read.aim {
            Aim::Create(put) => {
                let put = put.clone();
                return self.created(turn, number, op, put, inputs.is_empty());
            }
            Aim::Heal(put, seen) => {
                let (put, seen) = (put.clone(), seen.clone());
                return self.healed(turn, number, op, put, seen);
            }
            Aim::Reply(get) => get,
        };
        let plugin = op.target.bucket.props.plugin;
        let wanted = siblings.len() > 1 || (siblings.len() == 1 && get.show);
        if let (true, Some(activation)) = (wanted, plugin) {
            let show = get.show;
            read.phase = ReadPhase::Merging { inputs, seen: read.joined.context.clone() };
            self.counters.merges += 1;
            let job = merge_job(&op, activation.plugin, siblings, show);
            turn.effects.push(Effect::Merge(MergeTicket(number), job));
            return Some(op);
        }
        let fault = (siblings.len() > 1).then(no_plugin);
        let value = if siblings.len() == 1 { siblings.first().map(|sibling| sibling.value.clone()) } else { None };
        let (plugin, seen) = (folded_by(&inputs), read.joined.context.clone());
        self.answer_read(turn, number, op, Outcome { inputs, seen, value, shown: None, plugin, fault })
    }

    /// The plugin has run, or could not.
    pub(super) fn read_merged(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        mut op: Box<Op>,
        result: Result<Merged, String>,
    ) -> Option<Box<Op>> {
        let plugin = op.target.bucket.props.plugin;
        let folds = op.target.bucket.props.folds_at_once(turn.now.wall_ms);
        let Work::Read(read) = &mut op.work else { return Some(op) };
        // Rule: readers are told what is shown. `seen` is from when the plugin began; copies that came later are not in
        // it.
        let ReadPhase::Merging { inputs, seen } = core::mem::replace(&mut read.phase, ReadPhase::Answered) else { return Some(op) };
        let distinct = causal::siblings(&inputs);
        let outcome = match result {
            Ok(merged) if distinct.len() > 1 => {
                let plugin = plugin.map(|activation| activation.plugin);
                if folds {
                    let by = plugin.map(|plugin| FoldedBy { plugin, profile: merged.profile });
                    read.folded = Some(Folded { inputs: inputs.clone(), value: merged.value.clone(), by });
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
        self.answer_read(turn, number, op, outcome)
    }

    fn answer_read(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>, outcome: Outcome) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        read.phase = ReadPhase::Answered;
        let all = matches!(&read.aim, Aim::Reply(get) if get.siblings);
        let mut siblings = causal::siblings(&outcome.inputs);
        if let (Some(value), true, false) = (&outcome.value, siblings.len() > 1, all) {
            siblings = alloc::vec![merged_sibling(&outcome.inputs, value)];
        }
        let digest = outcome.plugin;
        let reply = GetReply {
            value: outcome.value,
            shown: outcome.shown,
            siblings,
            context: self.config.contexts.seal(&op.target.object, &outcome.seen).into(),
            merged_by: digest.map(|digest| MergedBy { name: self.view.plugin_name(&digest).cloned(), digest }),
            merge_fault: outcome.fault,
            answered: read.tally.answered().map(|node| self.view.node_name(node)).collect(),
        };
        self.reply(turn, &op, Reply::Get(reply));
        self.read_step(turn, number, op)
    }

    /// What a create has found: nothing, and the write goes on with the context of that nothing; or something, and it
    /// is refused.
    fn created(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>, put: Put, nothing: bool) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        if !nothing {
            let message = "the key already has a value: read it and write with its context, or write blind to stand beside it";
            self.reply(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::Exists, message)));
            return None;
        }
        let seen = core::mem::take(&mut read.joined.context);
        self.write_object(turn, number, op, put, seen, false)
    }

    /// Asks the other owners for what they have of an object whose copy here cannot be read, so that the write can go
    /// on.
    pub(super) fn heal(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>, put: Put, seen: VersionVector) -> Option<Box<Op>> {
        let others: Vec<NodeId> = op.target.owners.iter().copied().filter(|&node| node != self.config.node).collect();
        let props = &op.target.bucket.props;
        let needed = props.r.of(props.n).max(1).min(u8::try_from(others.len()).unwrap_or(u8::MAX));
        let tally = self.tally(&others, needed, 0);
        if others.is_empty() {
            return self.write_over_lost(turn, number, op, put, seen, 0);
        }
        if tally.verdict() == Verdict::Impossible {
            self.reply(turn, &op, self.store_error(ErrorCode::Damaged));
            return None;
        }
        for &node in others.iter().filter(|&&node| tally.is_waiting_for(node)) {
            let read = PeerBody::Read { op: self.op_id(number), object: op.target.object.clone() };
            self.send(turn, node, op.trace, read);
        }
        let (epoch, phase, joined) = (self.epoch(op.target.partition), ReadPhase::Collecting, Object::default());
        let aim = Aim::Heal(put, seen);
        op.work = Work::Read(ReadWork { aim, tally, copies: Vec::new(), damaged: Vec::new(), joined, epoch, phase, folded: None });
        Some(op)
    }

    /// The other owners have said what they have: it takes the place of the damaged copy, and the write goes on from
    /// there.
    fn healed(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>, put: Put, seen: VersionVector) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return Some(op) };
        let (joined, epoch, answers) = (core::mem::take(&mut read.joined), read.epoch, read.tally.got());
        if joined.is_empty() {
            return self.write_over_lost(turn, number, op, put, seen, answers);
        }
        let taken = self.absorb(turn, &op.target.object, epoch, &joined);
        // It may be damaged still, on a disk that writes to the same bad block.
        let readable = taken.and_then(|_| self.load(turn, op.target.partition, &op.target.store_key.clone()));
        match readable {
            Ok(_) => self.write_object(turn, number, op, put, seen, false),
            Err(code) => {
                self.reply(turn, &op, self.store_error(code));
                None
            }
        }
    }

    /// The deadline has come: whoever still waits is told, and those that have answered are repaired.
    pub(super) fn read_timed_out(&mut self, turn: &mut Turn<'_>, number: u64, mut op: Box<Op>) -> Option<Box<Op>> {
        let Work::Read(read) = &mut op.work else { return None };
        match &read.phase {
            ReadPhase::Answered => self.repair(turn, &op),
            ReadPhase::Collecting => {
                let message = "too few replicas answered the read in time";
                let reply = self.quorum_error(ErrorCode::TimedOut, message, &read.tally);
                self.reply(turn, &op, reply);
            }
            // A merge that is too slow is a failed merge: the reader gets the siblings.
            ReadPhase::Merging { .. } => {
                let fault = String::from("the merge did not end within the request's time");
                if let Some(op) = self.read_merged(turn, number, op, Err(fault)) {
                    self.repair(turn, &op);
                }
            }
        }
        None
    }

    /// Read repair: this node takes the join (and folds it, if a plugin has run and its inputs are still what is
    /// there), and every owner whose copy differs, or cannot be read, is sent the result.
    pub(super) fn repair(&mut self, turn: &mut Turn<'_>, op: &Op) {
        let Work::Read(read) = &op.work else { return };
        let sound = read.copies.iter().all(|&(_, current)| current) && read.damaged.is_empty();
        // Rule: reads repair.
        if sound && read.folded.is_none() || read.joined.is_empty() {
            return;
        }
        let Ok(mut state) = self.absorb(turn, &op.target.object, read.epoch, &read.joined) else { return };
        if let Some(folded) = &read.folded {
            if causal::fold(&mut state, &folded.inputs, folded.value.clone(), folded.by) {
                self.counters.folds += 1;
                let mut change = Change::default();
                Self::object_row(&mut change, &op.target.store_key, &state);
                if self.write(turn, change).is_err() {
                    return;
                }
            } else {
                self.counters.folds_discarded += 1;
            }
        }
        // This node's own copy, or a fold, may have added to what was joined.
        let same = state == read.joined;
        let behind = read.copies.iter().filter(|&&(_, current)| !(current && same)).map(|&(node, _)| node);
        for node in behind.chain(read.damaged.iter().copied()).filter(|&node| node != self.config.node) {
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
            self.send(turn, node, op.trace, PeerBody::Replicate(message));
        }
    }
}

/// What a read has come to.
struct Outcome {
    inputs: Vec<Entry>,
    /// Exactly what the inputs were read with.
    seen: VersionVector,
    value: Option<Bytes>,
    shown: Option<Bytes>,
    plugin: Option<rejoin_proto::PluginDigest>,
    fault: Option<String>,
}

/// The plugin behind a single value that was folded earlier.
fn folded_by(inputs: &[Entry]) -> Option<rejoin_proto::PluginDigest> {
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

pub(super) fn merge_job(op: &Op, plugin: rejoin_proto::PluginDigest, siblings: Vec<Sibling>, show: bool) -> MergeJob {
    let props = &op.target.bucket.props;
    let bytes = siblings.iter().map(|sibling| sibling.value.len()).sum();
    MergeJob {
        plugin,
        bucket: op.target.object.bucket,
        bucket_name: op.target.bucket.name.clone(),
        key: op.target.object.key.clone(),
        key_hash: op.target.object.hash(),
        siblings,
        show,
        fuel: fuel_for(props.fuel, bytes),
        memory_bytes: props.memory_bytes,
        result_bytes: props.value_bytes,
        deadline_us: op.deadline_us,
    }
}
