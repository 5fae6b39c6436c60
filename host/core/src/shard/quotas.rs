//! Writes to full buckets.

use rejoin_proto::client::Put;
use rejoin_proto::{Content, ErrorReply, Object, VersionVector};

use super::Shard;
use super::op::Op;
use crate::quota::USAGE_EVERY_MS;

impl Shard {
    /// Whether a write would make a full bucket fuller. Deletes pass, and writes that replace all values of an object,
    /// so that a tenant can get below its limit.
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
        // Rule: full buckets can be emptied.
        if put.content == Content::Tombstone || replaces {
            return Ok(());
        }
        Err(reached.refusal(USAGE_EVERY_MS))
    }
}
