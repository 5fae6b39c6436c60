//! What this node tells of folds and keys: receipts, its own copy of a key, merges that have failed, and the components
//! of plugins.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::shard::{ReceiptsWanted, Shard};
use rejoin_core::trials;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::Activation;
use rejoin_proto::client::Reply;
use rejoin_proto::hash::MAX_KEY_BYTES;
use rejoin_proto::receipt::{KeyReport, ReceiptPage, ReceiptQuery};
use rejoin_proto::{ErrorCode, ErrorReply, Name, ObjectId};
use rejoin_store::ShardStore;

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::messages::ShardMessage;

/// Looks at a shard as it is after its next commit.
pub(crate) async fn look<T: Send + 'static>(
    ctx: &NodeContext,
    shard: usize,
    looks: impl FnOnce(&Shard, &ShardStore) -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let inspection = Box::new(move |shard: &Shard, store: &ShardStore| {
        // It may have waited for others, and its client have gone.
        if !answer.is_closed() {
            drop(answer.send(looks(shard, store)));
        }
    });
    // A shard that has stopped drops it unseen.
    let _ = ctx.shards.get(shard)?.messages.send(ShardMessage::Inspect(inspection));
    answered.await.ok()
}

fn stopping() -> Reply {
    Reply::Error(ErrorReply::new(ErrorCode::Stopping, "the node is stopping; try another"))
}

/// The object under a key of a bucket of the caller's tenant.
fn object(ctx: &NodeContext, caller: &Caller, bucket: &Name, key: Option<Bytes>) -> Result<ObjectId, ErrorReply> {
    let view = ctx.cluster_view();
    let Some(known) = view.bucket_named(caller.tenant, bucket) else {
        return Err(ErrorReply::new(ErrorCode::NotFound, format!("there is no bucket {bucket}")));
    };
    let key = key.unwrap_or_else(|| Bytes::from_static(b"-"));
    if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
        return Err(ErrorReply::new(ErrorCode::BadRequest, format!("a key has 1 to {MAX_KEY_BYTES} bytes")));
    }
    Ok(ObjectId { tenant: known.tenant, bucket: known.id, key })
}

pub(crate) fn shard_of(ctx: &NodeContext, object: &ObjectId) -> usize {
    let view = ctx.cluster_view();
    ctx.shard_index(view.layout().partition(object), &view)
}

/// Some of the receipts that this node keeps: those of one shard, of keys that the caller's token opens.
pub(crate) async fn page(ctx: &NodeContext, caller: &Caller, query: ReceiptQuery) -> Reply {
    let of_key = query.key.is_some();
    let object = match object(ctx, caller, &query.bucket, query.key) {
        Ok(object) => object,
        Err(error) => return Reply::Error(error),
    };
    let (first, from) = match query.from.as_deref().map(begun) {
        None => (0, None),
        Some(Some((shard, from))) => (shard, Some(from)),
        Some(None) => {
            return Reply::Error(ErrorReply::new(ErrorCode::BadRequest, "that is no end of a page of receipts"));
        }
    };
    let shards: Range<usize> = if of_key {
        let shard = shard_of(ctx, &object);
        shard..shard + 1
    } else {
        0..ctx.shards.len()
    };
    let shard = first.max(shards.start);
    let wanted = ReceiptsWanted {
        bucket: object.bucket,
        object: of_key.then_some(object),
        plugin: query.plugin,
        since_ms: query.since_ms,
        from: from.filter(|from| !from.is_empty()),
        undo: query.undo,
    };
    let node = ctx.config.name.clone();
    if !shards.contains(&shard) {
        return Reply::Receipts(ReceiptPage { node, receipts: Vec::new(), next: None, lost: false });
    }
    let found = look(ctx, shard, move |of, store| of.kept_receipts(store, &wanted)).await;
    let (mut receipts, next, lost) = match found {
        Some(Ok(found)) => found,
        Some(Err(fault)) => {
            return Reply::Error(ErrorReply::new(ErrorCode::Damaged, format!("the receipts cannot be read: {fault}")));
        }
        None => return stopping(),
    };
    let limits = &caller.principal.grant.limits;
    receipts.retain(|kept| limits.admit(&query.bucket, &kept.receipt.object.key));
    let next = match next {
        Some(key) => Some(cursor(shard, &key)),
        None => Some(shard + 1).filter(|next| shards.contains(next)).map(|next| cursor(next, &[])),
    };
    Reply::Receipts(ReceiptPage { node, receipts, next, lost })
}

/// Where a page begins: the shard, and the key in it.
fn cursor(shard: usize, key: &[u8]) -> Bytes {
    let shard = u16::try_from(shard).unwrap_or(u16::MAX);
    [&shard.to_be_bytes()[..], key].concat().into()
}

fn begun(cursor: &[u8]) -> Option<(usize, Bytes)> {
    let (shard, key) = cursor.split_first_chunk()?;
    Some((usize::from(u16::from_be_bytes(*shard)), Bytes::copy_from_slice(key)))
}

/// The plugin that merges an object: its bucket's, or the canary.
fn merging(view: &ClusterView, object: &ObjectId) -> Option<Activation> {
    trials::merging(view.bucket(object.bucket)?, object)
}

/// What this node knows of a key.
pub(crate) async fn key(ctx: &NodeContext, caller: &Caller, bucket: &Name, key: Bytes) -> Reply {
    let object = match object(ctx, caller, bucket, Some(key)) {
        Ok(object) => object,
        Err(error) => return Reply::Error(error),
    };
    let (shard, of) = (shard_of(ctx, &object), object.clone());
    let Some((owners, copy)) = look(ctx, shard, move |shard, store| shard.describe_copy(store, &of)).await else {
        return stopping();
    };
    let view = ctx.cluster_view();
    let plugin = merging(&view, &object);
    let quarantine = plugin.and_then(|active| view.quarantine(object.tenant, &active.plugin).map(str::to_owned));
    Reply::Key(Box::new(KeyReport {
        node: ctx.config.name.clone(),
        owners: owners.into_iter().map(|owner| view.node_name(owner)).collect(),
        copy,
        plugin,
        quarantined: quarantine,
        profile: ctx.plugins.profile(),
        failures: ctx.plugins.conflicts().failures(object.bucket, &object.key),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_core::placement;
    use rejoin_proto::catalog::{BucketPast, BucketProps, Record, RecordBody, RecordKey};
    use rejoin_proto::layout::LayoutNode;
    use rejoin_proto::trial::Canary;
    use rejoin_proto::{BucketId, Hlc, NodeId, PluginDigest, TenantId};

    #[test]
    fn a_key_is_told_of_with_the_version_that_merges_it() {
        let name = |text: &str| Name::new(text).expect("a name");
        let (tenant, id) = (TenantId(1), BucketId(7));
        let version = |plugin: u8| Activation {
            plugin: PluginDigest([plugin; 32]),
            self_causal: true,
            since: Hlc::from_ms(1),
            replaces: false,
            validates: false,
        };
        let canary = Canary { plugin: version(2), percent: 30 };
        let props = BucketProps { plugin: Some(version(1)), canary: Some(canary), ..BucketProps::default() };
        let body = RecordBody::Bucket { id, props, past: BucketPast::default() };
        let key = RecordKey::Bucket(tenant, name("cart"));
        let record = Record { key, version: 1, stamp: Hlc::from_ms(1), body };
        let node = LayoutNode {
            id: NodeId::from_name(&name("a")),
            name: name("a"),
            zone: name("z"),
            capacity: 1,
            address: ([127, 0, 0, 1], 1).into(),
        };
        let view = ClusterView::new(placement::bootstrap(vec![node], 8).expect("a layout"), &[record]);
        let merging = |number: u32| {
            let key = Bytes::from(number.to_string());
            merging(&view, &ObjectId { tenant, bucket: id, key }).map(|version| version.plugin)
        };
        let canarys = (0..1_000).filter(|number| merging(*number) == Some(canary.plugin.plugin)).count();
        assert!((200..400).contains(&canarys), "{canarys} of 1000 keys");
        assert!((0..1_000).all(|number| merging(number).is_some()));
        let elsewhere = ObjectId { tenant, bucket: BucketId(8), key: Bytes::from_static(b"1") };
        assert_eq!(super::merging(&view, &elsewhere), None);
    }

    #[test]
    fn a_page_goes_on_where_the_one_before_has_ended() {
        assert_eq!(begun(&cursor(3, b"key")), Some((3, Bytes::from_static(b"key"))));
        assert_eq!(begun(&cursor(256, b"")), Some((256, Bytes::new())));
        assert_eq!(begun(b"x"), None);
    }
}
