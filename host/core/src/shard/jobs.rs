//! What a plugin is given: the jobs of merges, operations and validations, with the bucket's limits in them. And who
//! takes what it has merged.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::fuel_for;
use rejoin_proto::client::{Basis, Put, Show, Sibling};
use rejoin_proto::{Content, Dot, ObjectId, PluginDigest};

use super::Shard;
use super::event::{ApplyJob, MergeJob, Merged, PluginError, ValidateJob};
use super::op::{Op, Step, Work};
use super::turn::Turn;
use crate::trials;
use crate::view::Bucket;

impl Shard {
    /// A plugin has merged what an operation had asked for, or could not.
    pub(super) fn merged(&mut self, turn: &mut Turn<'_>, op: Box<Op>, result: Result<Merged, PluginError>) -> Step {
        match op.work {
            Work::Read(_) => self.read_merged(turn, op, result),
            Work::Write(_) => self.write_merged(turn, op, result),
            Work::Forward(_) | Work::Validate(_) | Work::Apply(_) | Work::Starting => Step::Keep(op),
        }
    }
}

/// The merge of an object's siblings, for an operation.
pub(super) fn merge_job(op: &Op, plugin: PluginDigest, siblings: Vec<Sibling>, show: Show) -> MergeJob {
    MergeJob { show, ..fold_job(&op.target.bucket, &op.target.object, plugin, siblings, op.deadline_us) }
}

/// The merge of an object's siblings, for nobody who waits for it.
pub(super) fn fold_job(
    bucket: &Bucket,
    object: &ObjectId,
    plugin: PluginDigest,
    siblings: Vec<Sibling>,
    deadline_us: u64,
) -> MergeJob {
    let props = &bucket.props;
    let bytes = siblings.iter().map(|sibling| sibling.value.len()).sum();
    MergeJob {
        plugin,
        bucket: object.bucket,
        bucket_name: bucket.name.clone(),
        key: object.key.clone(),
        key_hash: object.hash(),
        siblings,
        show: Show::Nothing,
        fresh: false,
        fuel: fuel_for(props.fuel, bytes),
        memory_bytes: props.memory_bytes,
        result_bytes: props.value_bytes,
        deadline_us,
    }
}

/// An operation on an object with these siblings.
pub(super) fn apply_job(op: &Op, plugin: PluginDigest, siblings: Vec<Sibling>, operation: Bytes, dot: Dot) -> ApplyJob {
    let (bucket, object) = (&op.target.bucket, &op.target.object);
    let bytes = operation.len() + siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>();
    ApplyJob {
        plugin,
        bucket: object.bucket,
        bucket_name: bucket.name.clone(),
        key: object.key.clone(),
        key_hash: object.hash(),
        siblings,
        operation,
        dot,
        fuel: fuel_for(bucket.props.fuel, bytes),
        memory_bytes: bucket.props.memory_bytes,
        result_bytes: bucket.props.value_bytes,
        deadline_us: op.deadline_us,
    }
}

/// The validation of a write after `run` others of it; none if all versions of the bucket's plugin that have a
/// validator have validated all of its values. Those of an undo are `restored`. A delete writes no value.
pub(super) fn validate_job(op: &Op, (put, restored): (&Put, &[Bytes]), run: u16) -> Option<ValidateJob> {
    let versions = || trials::validators(&op.target.bucket.props);
    let (run, count) = (usize::from(run), versions().count());
    let (place, version) = (run.checked_div(count)?, versions().nth(run.checked_rem(count)?)?);
    let value = match (&put.basis, &put.content) {
        (Basis::Undo(_), _) => restored.get(place)?,
        (_, Content::Value(value)) if place == 0 => value,
        _ => return None,
    };
    Some(validation(op, version.plugin, value))
}

/// The validation of what an operation has made, by the version of the bucket's plugin that has not made it. The one
/// that has made it validates that itself.
pub(super) fn second_opinion(op: &Op, made: &Bytes) -> Option<ValidateJob> {
    let other = trials::other(&op.target.bucket, &op.target.object).filter(|other| other.validates)?;
    Some(validation(op, other.plugin, made))
}

fn validation(op: &Op, plugin: PluginDigest, value: &Bytes) -> ValidateJob {
    let props = &op.target.bucket.props;
    ValidateJob {
        plugin,
        bucket: op.target.object.bucket,
        bucket_name: op.target.bucket.name.clone(),
        key: op.target.object.key.clone(),
        key_hash: op.target.object.hash(),
        value: value.clone(),
        fuel: fuel_for(props.fuel, value.len()),
        memory_bytes: props.memory_bytes,
        deadline_us: op.deadline_us,
    }
}
