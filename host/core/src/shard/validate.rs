//! Validation: the bucket's plugin looks at a value before anything is written, so that one it could not merge never
//! blocks a key.
//!
//! A write is validated once, by the node that coordinates it, after its retries have been told apart and before its
//! dot is minted. Exchanges and repairs are not: what they carry was acknowledged somewhere.

use alloc::boxed::Box;

use rejoin_proto::catalog::fuel_for;
use rejoin_proto::client::{Put, Reply};
use rejoin_proto::{Content, ErrorCode, ErrorReply, VersionVector};

use super::Shard;
use super::event::{Effect, Invalid, ValidateJob, ValidateTicket};
use super::op::{Op, ValidateWork, Work};
use super::turn::Turn;

/// How long a client should wait where the plugin could not be asked, in milliseconds.
const UNJUDGED_RETRY_MS: u32 = 200;

impl Shard {
    /// Has the value validated. The write is kept meanwhile, so that its retries meet it.
    pub(super) fn start_validation(
        &mut self,
        turn: &mut Turn<'_>,
        mut op: Box<Op>,
        put: Put,
        seen: Option<VersionVector>,
        job: ValidateJob,
    ) {
        let claim = op.claim_of(&put);
        op.work = Work::Validate(ValidateWork { put, seen });
        let number = self.keep(op);
        self.writing.insert(claim, number);
        turn.effects.push(Effect::Validate(ValidateTicket(number), job));
    }

    /// The plugin has looked at the value, or could not.
    pub(super) fn validated(&mut self, turn: &mut Turn<'_>, ticket: ValidateTicket, result: Result<(), Invalid>) {
        self.with_op(turn, ticket.0, |shard, turn, number, mut op| {
            let work = match core::mem::replace(&mut op.work, Work::Starting) {
                Work::Validate(work) => work,
                // The answer came twice.
                other => {
                    op.work = other;
                    return Some(op);
                }
            };
            // Rule: invalid is not written.
            if let Err(invalid) = result {
                shard.counters.values_refused += 1;
                shard.reply(turn, &op, Reply::Error(refusal(&op, invalid)));
                return None;
            }
            match work.seen {
                Some(seen) => shard.write_object(turn, number, op, work.put, seen, false),
                None => {
                    shard.begin_create(turn, op, work.put);
                    None
                }
            }
        });
    }

    pub(super) fn validate_timed_out(&mut self, turn: &mut Turn<'_>, op: Box<Op>) -> Option<Box<Op>> {
        let message = alloc::format!(
            "the plugin of bucket {} did not validate the value within the request's time; nothing was written",
            op.target.bucket.name
        );
        self.reply(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::TimedOut, message)));
        None
    }
}

/// What the bucket's plugin is asked about a write; none if it has no validator. A delete writes no value.
pub(super) fn validate_job(op: &Op, put: &Put) -> Option<ValidateJob> {
    let props = &op.target.bucket.props;
    let activation = props.plugin.filter(|activation| activation.validates)?;
    let Content::Value(value) = &put.content else { return None };
    Some(ValidateJob {
        plugin: activation.plugin,
        bucket: op.target.object.bucket,
        bucket_name: op.target.bucket.name.clone(),
        key: op.target.object.key.clone(),
        key_hash: op.target.object.hash(),
        value: value.clone(),
        fuel: fuel_for(props.fuel, value.len()),
        memory_bytes: props.memory_bytes,
        deadline_us: op.deadline_us,
    })
}

fn refusal(op: &Op, invalid: Invalid) -> ErrorReply {
    let bucket = &op.target.bucket.name;
    match invalid {
        Invalid::Refused(why) => {
            let message = alloc::format!("the plugin of bucket {bucket} does not take the value: {why}; nothing was written");
            ErrorReply::new(ErrorCode::InvalidValue, message)
        }
        Invalid::Unjudged(why) => {
            let message = alloc::format!("the plugin of bucket {bucket} could not validate the value: {why}; nothing was written");
            ErrorReply::new(ErrorCode::Overloaded, message).retry_after(UNJUDGED_RETRY_MS)
        }
    }
}
