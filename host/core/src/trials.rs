//! Which plugin of a bucket merges a key while another one is on trial in it.
//!
//! The bucket's record decides, so all nodes agree. A key's place on the ring says whether a canary merges it, by its
//! trailing bits: those that no split of partitions looks at. So a share is one of the keys, in every partition alike,
//! and a key keeps its plugin when the ring is split or its owners change. A greater share has all keys of a smaller
//! one.
//!
//! Where a plugin is chosen: reads, writes at the limit, exchanges, comparisons of views, operations and questions go
//! by [`merging`]. A value must please the validators of all versions (`validators`), because either of them may have
//! to merge it: the share may grow, or end.

use rejoin_proto::catalog::{Activation, BucketProps};
use rejoin_proto::{BucketId, ObjectId};

use crate::view::Bucket;

/// The plugin that merges an object. `None`: its bucket has none.
#[must_use]
pub fn merging(bucket: &Bucket, object: &ObjectId) -> Option<Activation> {
    let active = bucket.props.plugin?;
    match &bucket.props.canary {
        // Rule: canaries have a share of the keys.
        Some(canary) if is_in_share(bucket.id, object.hash(), canary.percent) => Some(canary.plugin),
        _ => Some(active),
    }
}

/// The version of a bucket's plugin that does not merge an object, if there are two.
pub(crate) fn other(bucket: &Bucket, object: &ObjectId) -> Option<Activation> {
    let (active, canary) = (bucket.props.plugin?, bucket.props.canary?.plugin);
    let chosen = merging(bucket, object)?;
    Some(if chosen == canary { active } else { canary })
}

/// The versions of a bucket's plugin that have a validator.
pub(crate) fn validators(props: &BucketProps) -> impl Iterator<Item = Activation> {
    let canary = props.plugin.and(props.canary).map(|canary| canary.plugin);
    [props.plugin, canary].into_iter().flatten().filter(|version| version.validates)
}

/// Whether what a version merges is stored at once.
pub(crate) fn folds_at_once(props: &BucketProps, version: &Activation, now_ms: u64) -> bool {
    // Rule: canaries fold late.
    props.folds_at_once(version, now_ms)
}

/// Whether a key of a bucket is in a share of so many percent of its keys, by the key's place on the ring.
#[must_use]
pub fn is_in_share(bucket: BucketId, hash: u128, percent: u8) -> bool {
    // The trailing half. Another bucket has other keys in its share, though the keys are of one name.
    let drawn = mixed((hash as u64) ^ mixed(bucket.0));
    (u128::from(drawn) * 100) >> 64 < u128::from(percent)
}

/// All bits of the result depend on all bits of the word (the end of splitmix64).
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
