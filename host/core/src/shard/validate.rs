//! Validation: the bucket's plugin looks at a value before anything is written, so that one it could not merge never
//! blocks a key.
//!
//! A write is validated once, by the node that coordinates it, after its retries have been told apart and before its
//! dot is minted. While a canary runs, both versions of the plugin validate it. What an undo restores is validated
//! unless a receipt shows that it was accepted before. Exchanges and repairs are not validated: what they carry was
//! acknowledged somewhere.

use alloc::boxed::Box;

use rejoin_proto::client::Reply;
use rejoin_proto::{ErrorCode, ErrorReply};

use super::Shard;
use super::event::{Effect, PluginError, ValidateJob, ValidateTicket};
use super::jobs::validate_job;
use super::op::{Op, Step, ValidateWork, Work};
use super::turn::Turn;

/// The retry delay for a client whose value could not be validated now, in milliseconds.
const UNJUDGED_RETRY_MS: u32 = 200;

impl Shard {
    /// Has the value validated. The write is kept meanwhile, so that its retries meet it.
    pub(super) fn start_validation(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        work: ValidateWork,
        job: ValidateJob,
    ) -> Step {
        turn.effects.push(Effect::Validate(ValidateTicket { op: op.id.number, run: work.run }, job));
        op.work = Work::Validate(work);
        Step::Keep(op)
    }

    /// The plugin has looked at the value, or could not.
    pub(super) fn validated(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        run: u16,
        result: Result<(), PluginError>,
    ) -> Step {
        if matches!(op.work, Work::Apply(_)) {
            return self.judged(turn, op, run, result);
        }
        let ValidateWork { put, seen, restored, .. } = match core::mem::replace(&mut op.work, Work::Starting) {
            Work::Validate(work) if work.run == run => work,
            // The answer came twice.
            other => {
                op.work = other;
                return Step::Keep(op);
            }
        };
        // Rule: invalid is not written.
        if let Err(error) = result {
            self.counters.values_refused += 1;
            let refusal = refusal(&op, &error);
            return self.finish(turn, &op, Reply::Error(refusal));
        }
        let run = run.saturating_add(1);
        // Rule: both versions validate. Either may have to merge the value, whatever becomes of the canary.
        match validate_job(&op, (&put, &restored), run) {
            Some(job) => self.start_validation(turn, op, ValidateWork { put, seen, restored, run }, job),
            None => self.begin_put(turn, op, put, seen),
        }
    }

    pub(super) fn validate_timed_out(&mut self, turn: &mut Turn<'_>, op: &Op) -> Step {
        let message = alloc::format!(
            "the plugin of bucket {} did not validate the value within the request's time; nothing was written",
            op.target.bucket.name
        );
        self.finish(turn, op, Reply::Error(ErrorReply::new(ErrorCode::TimedOut, message)))
    }
}

/// What the writer of a value is told that was not validated. A validator that fails on a value would fail on it on
/// every node, and so would the merge: then the value is refused for good.
fn refusal(op: &Op, error: &PluginError) -> ErrorReply {
    let bucket = &op.target.bucket.name;
    if error.is_deterministic() {
        let message =
            alloc::format!("the plugin of bucket {bucket} does not take the value: {error}; nothing was written");
        return ErrorReply::new(ErrorCode::InvalidValue, message);
    }
    let message =
        alloc::format!("the plugin of bucket {bucket} could not validate the value: {error}; nothing was written");
    ErrorReply::new(ErrorCode::Overloaded, message).retry_after(UNJUDGED_RETRY_MS)
}
