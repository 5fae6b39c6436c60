//! Operations of a plugin's data type: the plugin makes the new value of the copy of the node that coordinates and of
//! the operation, and the value replaces what that copy had.
//!
//! In the order of an operation: [`Shard::start_operation`], `run_operation`, [`Shard::applied`], while a canary runs
//! [`Shard::judged`], `write_made`, [`Shard::write_object`]. Operations on one key run one after the other, so that
//! each sees those before it. A dot is reserved for an operation while its plugin runs: the plugin may use it as the
//! name of the change, and the write gets the same one. Nothing is written before the plugin has answered, so that a
//! refusal is one.

use alloc::boxed::Box;

use bytes::Bytes;

use rejoin_proto::client::{Put, Reply};
use rejoin_proto::{Content, Dot, ErrorCode, ErrorReply, Object};

use super::Shard;
use super::copy::Place;
use super::event::{ApplyTicket, Effect, PluginError, ValidateTicket};
use super::jobs::{apply_job, second_opinion};
use super::op::{ApplyWork, Op, PendingWrite, Step, Work};
use super::turn::Turn;
use crate::causal;

/// The most operations on one key that wait for their plugin.
const MAX_IN_LINE: usize = 64;
/// The most runs of one operation. It runs again when the copy has changed meanwhile.
const MAX_RUNS: u8 = 8;
/// How long a client should wait whose operation could not be applied now, in milliseconds.
const RETRY_MS: u32 = 200;

impl Shard {
    /// Applies an operation when those on the same key that came before it have been.
    pub(super) fn start_operation(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, put: Put) -> Step {
        let line = self.applying.entry(op.target.store_key.clone()).or_default();
        if line.len() >= MAX_IN_LINE {
            self.counters.overloaded += 1;
            let message =
                alloc::format!("{MAX_IN_LINE} operations on the key wait for their plugin; nothing was written");
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_MS);
            return self.finish(turn, &op, Reply::Error(error));
        }
        line.push_back(op.id.number);
        let is_first = line.len() == 1;
        op.work = Work::Apply(ApplyWork { put, run: 0, base: Object::default(), made: None });
        // Rule: operations take turns.
        if is_first { self.run_operation(turn, op) } else { Step::Keep(op) }
    }

    /// Has the plugin apply the operation to this node's copy.
    fn run_operation(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>) -> Step {
        let Work::Apply(work) = &mut op.work else { return Step::Keep(op) };
        let Content::Value(operation) = work.put.content.clone() else { return Step::Keep(op) };
        let activation = match self.merger(&op.target.bucket, &op.target.object) {
            Ok(activation) => activation,
            Err(error) => return self.refuse_operation(turn, &op, &error),
        };
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        let copy = match self.load(turn, place) {
            Ok(copy) => copy.object,
            Err(code) => {
                let error = self.store_error(code);
                return self.end_operation(turn, &op, error);
            }
        };
        if !self.has_room_for(turn, causal::value_bytes(&copy)) {
            self.counters.overloaded += 1;
            let message = "the requests under way hold too many bytes; nothing was written";
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_MS);
            return self.end_operation(turn, &op, Reply::Error(error));
        }
        // Rule: reserved dots are unseen. A put of the same key may have been given a later one meanwhile.
        let is_unseen = |dot: &Dot| !copy.context.contains(*dot);
        let stands = |dot: &Dot| self.tenures.is_current(op.target.partition, dot.actor);
        let kept = op.reserved.filter(|dot| stands(dot) && is_unseen(dot));
        let dot = kept.unwrap_or_else(|| self.tenures.reserve(op.target.partition, &mut self.rng));
        let siblings = causal::siblings(&causal::visible(&copy, turn.now.wall_ms));
        work.run += 1;
        work.base = copy;
        let ticket = ApplyTicket { op: op.id.number, run: work.run };
        op.reserved = Some(dot);
        turn.effects.push(Effect::Apply(ticket, apply_job(&op, activation.plugin, siblings, operation, dot)));
        Step::Keep(op)
    }

    /// The plugin has made the new value, or could not.
    pub(super) fn applied(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        run: u8,
        result: Result<Bytes, PluginError>,
    ) -> Step {
        match &op.work {
            Work::Apply(work) if work.run == run && work.made.is_none() => {}
            // An answer came twice.
            _ => return Step::Keep(op),
        }
        let value = match result {
            Ok(value) => value,
            Err(error) => return self.refuse_operation(turn, &op, &error),
        };
        match (second_opinion(&op, &value), &mut op.work) {
            (Some(job), Work::Apply(work)) => {
                work.made = Some(value);
                turn.effects.push(Effect::Validate(ValidateTicket { op: op.id.number, run: run.into() }, job));
                Step::Keep(op)
            }
            _ => self.write_made(turn, op, run, value),
        }
    }

    /// The other version of the plugin has looked at what an operation has made, or could not.
    pub(super) fn judged(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        run: u16,
        result: Result<(), PluginError>,
    ) -> Step {
        let made = match &mut op.work {
            Work::Apply(work) if u16::from(work.run) == run => work.made.take().map(|value| (work.run, value)),
            _ => None,
        };
        match (made, result) {
            (Some((run, value)), Ok(())) => self.write_made(turn, op, run, value),
            (Some(_), Err(error)) => self.refuse_operation(turn, &op, &error),
            // An answer came twice.
            (None, _) => Step::Keep(op),
        }
    }

    /// Writes what an operation has made, if the copy is still that of which it was made.
    fn write_made(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, run: u8, value: Bytes) -> Step {
        let Work::Apply(work) = &mut op.work else { return Step::Keep(op) };
        let base = core::mem::take(&mut work.base);
        let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
        let copy = match self.load(turn, place) {
            Ok(copy) => copy.object,
            Err(code) => {
                let error = self.store_error(code);
                return self.end_operation(turn, &op, error);
            }
        };
        let has_dot = op.reserved.is_some_and(|dot| self.tenures.is_current(op.target.partition, dot.actor));
        // Rule: operations see their copy. What has come meanwhile is not in the value.
        if copy != base || !has_dot {
            if run < MAX_RUNS {
                return self.run_operation(turn, op);
            }
            self.counters.overloaded += 1;
            let message = "the key changes faster than its plugin applies the operation; nothing was written";
            let error = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_MS);
            return self.end_operation(turn, &op, Reply::Error(error));
        }
        let Work::Apply(ApplyWork { put, .. }) = core::mem::replace(&mut op.work, Work::Starting) else {
            return Step::Keep(op);
        };
        let (key, number) = (op.target.store_key.clone(), op.id.number);
        let write = PendingWrite { put: Put { content: Content::Value(value), ..put }, seen: copy.context };
        let step = self.write_object(turn, op, write, false);
        self.leave_line(turn, &key, number);
        step
    }

    pub(super) fn operation_timed_out(&mut self, turn: &mut Turn<'_>, op: &Op) -> Step {
        let message = alloc::format!(
            "the plugin of bucket {} did not apply the operation within the request's time; nothing was written",
            op.target.bucket.name
        );
        self.end_operation(turn, op, Reply::Error(ErrorReply::new(ErrorCode::TimedOut, message)))
    }

    /// A plugin that refuses an operation, or fails on it, would do so on every node: then it is refused for good.
    fn refuse_operation(&mut self, turn: &mut Turn<'_>, op: &Op, error: &PluginError) -> Step {
        self.counters.values_refused += 1;
        let bucket = &op.target.bucket.name;
        let refusal = match error {
            PluginError::NoPlugin => {
                let message = alloc::format!(
                    "bucket {bucket} has no plugin, and an operation needs one: `rejoin bucket set {bucket} --merge \
                     NAME`"
                );
                ErrorReply::new(ErrorCode::BadRequest, message)
            }
            error if error.is_deterministic() => {
                let message = alloc::format!(
                    "the plugin of bucket {bucket} does not apply the operation: {error}; nothing was written"
                );
                ErrorReply::new(ErrorCode::InvalidValue, message)
            }
            error => {
                let message = alloc::format!(
                    "the plugin of bucket {bucket} could not apply the operation: {error}; nothing was written"
                );
                ErrorReply::new(ErrorCode::Overloaded, message).retry_after(RETRY_MS)
            }
        };
        self.end_operation(turn, op, Reply::Error(refusal))
    }

    /// An operation ends without a write. The next one on the key has its turn.
    fn end_operation(&mut self, turn: &mut Turn<'_>, op: &Op, reply: Reply) -> Step {
        let step = self.finish(turn, op, reply);
        self.leave_line(turn, &op.target.store_key, op.id.number);
        step
    }

    fn leave_line(&mut self, turn: &mut Turn<'_>, key: &Bytes, number: u64) {
        let Some(line) = self.applying.get_mut(key) else { return };
        let was_first = line.front() == Some(&number);
        line.retain(|waiting| *waiting != number);
        let next = line.front().copied();
        match next {
            None => drop(self.applying.remove(key)),
            Some(next) if was_first => self.with_op(turn, next, Self::run_operation),
            Some(_) => {}
        }
    }
}
