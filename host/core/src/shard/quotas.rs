//! Writes to full buckets.

use rejoin_proto::client::Put;
use rejoin_proto::quota::Limit;
use rejoin_proto::{Content, ErrorReply, Object, VersionVector};

use super::Shard;
use super::op::Op;
use crate::quota::{Reached, USAGE_EVERY_MS};
use crate::view::Bucket;

/// The refusal of a sibling above the quota, that the plugin could not make room for.
pub(super) fn too_many_siblings(bucket: &Bucket, quota: u16) -> ErrorReply {
    let whose = alloc::format!("bucket {}", bucket.name);
    let refusal = Reached { whose, limit: Limit::Siblings, most: quota.into(), used: None }.refusal(0);
    let advice = "; the object could not be merged: read it and write with its context";
    ErrorReply { message: refusal.message + advice, ..refusal }
}

impl Shard {
    /// Whether a write would make a full bucket fuller. Deletes pass, and writes that replace all values of an object,
    /// so that a tenant can get below its limit. Only a key without a value makes more objects: what is deleted is no
    /// object, although its tombstone is kept.
    ///
    /// # Errors
    /// It would.
    pub(super) fn check_quota(
        &self,
        op: &Op,
        object: &Object,
        put: &Put,
        replaced: &VersionVector,
    ) -> Result<(), ErrorReply> {
        let Some(reached) = self.full.get(&op.target.bucket.id) else { return Ok(()) };
        let has_value = object.entries.iter().any(|entry| entry.content != Content::Tombstone);
        let replaces = has_value && object.entries.iter().all(|entry| entry.dots.is_seen_by(replaced));
        // Rule: tombstones are no objects.
        let is_there = reached.limit == Limit::Objects && has_value;
        // Rule: full buckets can be emptied.
        if put.content == Content::Tombstone || replaces || is_there {
            return Ok(());
        }
        Err(reached.refusal(USAGE_EVERY_MS))
    }
}
