//! Siblings of a bucket, on which the laws of a pushed plugin are checked if whoever pushes it asks for that.
//!
//! They are those that this node has: under the keys that it has merged lately, in the receipts of folds that it keeps,
//! and in its copies. Each is looked for in turn until there are enough sets, or bytes of them, or time is over. Only a
//! bucket of the caller's tenant is looked at, and only keys that the caller's token opens.

use bytes::Bytes;
use tokio::time::Instant;

use rejoin_core::shard::ReceiptsWanted;
use rejoin_core::shard::recorded::{self, RecordedSet};
use rejoin_merge::laws::{Sibling, Trial};
use rejoin_merge::{CallLimits, LawInputs};
use rejoin_proto::access::Limits;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, ObjectId, TenantId, receipt};

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::receipts::{look, shard_of};

/// The most pages of receipts of one shard that are read, and of its objects: each is read on a turn of the shard.
const RECEIPT_PAGES: usize = 8;
const OBJECT_PAGES: usize = 64;

/// The keys that a caller's token opens.
#[derive(Clone, Copy)]
struct Opened<'a> {
    limits: &'a Limits,
    bucket: &'a Name,
}

impl Opened<'_> {
    fn admits(self, key: &Bytes) -> bool {
        self.limits.admit(self.bucket, key)
    }
}

/// The sets that were found, within the bounds of the configuration.
struct Sample {
    sets: Vec<RecordedSet>,
    bytes: usize,
    most_sets: usize,
    most_bytes: usize,
    until: Instant,
}

fn bytes_of(set: &RecordedSet) -> usize {
    set.key.len() + set.siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>()
}

impl Sample {
    /// Whether nothing more is looked for.
    fn is_done(&self) -> bool {
        self.sets.len() >= self.most_sets || self.bytes >= self.most_bytes || Instant::now() >= self.until
    }

    /// Adds a set unless it is known, or too large to fit.
    fn add(&mut self, set: RecordedSet) {
        let bytes = bytes_of(&set);
        let has_room = self.sets.len() < self.most_sets && bytes <= self.most_bytes.saturating_sub(self.bytes);
        if set.siblings.len() > 1 && has_room && !self.sets.contains(&set) {
            self.bytes += bytes;
            self.sets.push(set);
        }
    }
}

/// A sample of the siblings of a bucket of the caller's tenant, with the limits that it gives a merge of them. There
/// may be none.
///
/// # Errors
/// There is no such bucket.
pub(crate) async fn sample(
    ctx: &NodeContext,
    caller: &Caller,
    bucket: &Name,
    until: Instant,
) -> Result<LawInputs, ErrorReply> {
    let (of, limits) = match ctx.cluster_view().bucket_named(caller.tenant, bucket) {
        Some(known) => ((known.tenant, known.id), CallLimits::of_bucket(&known.props)),
        None => return Err(ErrorReply::new(ErrorCode::NotFound, format!("there is no bucket {bucket}"))),
    };
    let (most_sets, most_bytes) = (ctx.config.law_sibling_sets, ctx.config.law_sibling_bytes);
    let mut sample = Sample { sets: Vec::new(), bytes: 0, most_sets, most_bytes, until };
    let opened = Opened { limits: &caller.principal.grant.limits, bucket };
    merged_lately(ctx, of, opened, &mut sample).await;
    for shard in 0..ctx.shards.len() {
        folded(ctx, (of.1, shard), opened, &mut sample).await;
    }
    for shard in 0..ctx.shards.len() {
        held(ctx, (of.1, shard), opened, &mut sample).await;
    }
    tracing::info!(tenant = %caller.tenant_name, %bucket, sets = sample.sets.len(), bytes = sample.bytes,
        "siblings were taken for a check of laws");
    let recorded = sample.sets.into_iter().map(trial).collect();
    Ok(LawInputs { recorded, recorded_limits: Some(limits), ..LawInputs::default() })
}

/// As the law checker takes them: a bucket has them, so they are valid.
fn trial(set: RecordedSet) -> Trial {
    let siblings = set.siblings.into_iter().map(|one| Sibling {
        value: one.value.to_vec(),
        stamp_ms: one.stamp_ms,
        writer: one.writer,
    });
    Trial { key: set.key.to_vec(), siblings: siblings.collect(), valid: true }
}

/// The keys of which this node has merged siblings lately, as far as they still have some.
async fn merged_lately(
    ctx: &NodeContext,
    (tenant, bucket): (TenantId, BucketId),
    opened: Opened<'_>,
    sample: &mut Sample,
) {
    let keys = ctx.plugins.shadows().report(bucket, ctx.config.name.clone(), true).keys;
    for key in keys {
        if sample.is_done() {
            return;
        }
        if !opened.admits(&key) {
            continue;
        }
        let (id, now_ms) = (ObjectId { tenant, bucket, key }, ctx.clock.now().wall_ms);
        let shard = shard_of(ctx, &id);
        let found = look(ctx, shard, move |_, store| recorded::siblings_of(store, &id, now_ms)).await;
        found.flatten().into_iter().for_each(|set| sample.add(set));
    }
}

/// What folds were given, of which this node keeps the receipts.
async fn folded(ctx: &NodeContext, (bucket, shard): (BucketId, usize), opened: Opened<'_>, sample: &mut Sample) {
    let mut from = None;
    for _ in 0..RECEIPT_PAGES {
        if sample.is_done() {
            return;
        }
        let wanted = ReceiptsWanted { bucket, object: None, plugin: None, since_ms: 0, from, undo: false };
        let page = look(ctx, shard, move |of, store| of.kept_receipts(store, &wanted)).await;
        // A shard that cannot read its receipts has none to show.
        let Some(Ok((kept, next, _))) = page else { return };
        for receipt in kept.into_iter().map(|kept| kept.receipt).filter(|receipt| opened.admits(&receipt.object.key)) {
            sample.add(RecordedSet { siblings: receipt::siblings(&receipt.inputs), key: receipt.object.key });
        }
        if next.is_none() {
            return;
        }
        from = next;
    }
}

/// What the copies of this node have.
async fn held(ctx: &NodeContext, (bucket, shard): (BucketId, usize), opened: Opened<'_>, sample: &mut Sample) {
    let mut from = None;
    for _ in 0..OBJECT_PAGES {
        if sample.is_done() {
            return;
        }
        let now_ms = ctx.clock.now().wall_ms;
        let page =
            look(ctx, shard, move |_, store| recorded::siblings_from(store, bucket, from.as_ref(), now_ms)).await;
        let Some(Ok(page)) = page else { return };
        page.sets.into_iter().filter(|set| opened.admits(&set.key)).for_each(|set| sample.add(set));
        if page.next.is_none() {
            return;
        }
        from = page.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn set(key: &'static str, lengths: &[usize]) -> RecordedSet {
        let sibling = |length: &usize| rejoin_proto::client::Sibling {
            value: vec![b'x'; *length].into(),
            stamp_ms: 1,
            writer: 1,
        };
        RecordedSet { key: Bytes::from_static(key.as_bytes()), siblings: lengths.iter().map(sibling).collect() }
    }

    fn sample(most_sets: usize, most_bytes: usize) -> Sample {
        let until = Instant::now() + Duration::from_secs(60);
        Sample { sets: Vec::new(), bytes: 0, most_sets, most_bytes, until }
    }

    #[tokio::test]
    async fn a_sample_is_bounded_in_sets_bytes_and_time() {
        let mut few = sample(2, 1_000);
        for key in ["a", "b", "c"] {
            few.add(set(key, &[1, 2]));
        }
        assert_eq!((few.sets.len(), few.bytes, few.is_done()), (2, 8, true));
        let mut small = sample(100, 20);
        small.add(set("a", &[10, 20]));
        assert!(small.sets.is_empty() && !small.is_done(), "one that is too large leaves room to others");
        small.add(set("b", &[1, 2]));
        small.add(set("b", &[1, 2]));
        small.add(set("c", &[1]));
        assert_eq!((small.sets.len(), small.bytes), (1, 4), "each set once, and of two siblings at least");
        small.add(set("d", &[5, 10]));
        assert_eq!((small.bytes, small.is_done()), (20, true));
        let mut late = Sample { until: Instant::now(), ..sample(9, 9_000) };
        assert!(late.is_done());
        late.add(set("a", &[1, 2]));
        assert_eq!(trial(late.sets.remove(0)).siblings.len(), 2);
        assert!(sample(0, 9).is_done() && sample(9, 0).is_done(), "with 0 there is none");
    }
}
