//! Quotas at a node: rates and connections are counted here, and what is stored is estimated and told to the shards.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rejoin_core::quota::{Rate, Reached, USAGE_EVERY_MS, whole};
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::exchange::Sum;
use rejoin_proto::quota::Quota;
use rejoin_proto::{BucketId, ErrorReply, Name, TenantId};

use crate::context::NodeContext;
use crate::lock::lock;
use crate::messages::ShardMessage;

/// A tenant, or one of its buckets.
type Owner = (TenantId, Option<Name>);

/// The rates of a tenant or bucket.
#[derive(Clone, Copy, Default)]
struct Rates {
    requests: Rate,
    bytes: Rate,
}

/// The rates that are limited.
#[derive(Default)]
pub(crate) struct RateLimits {
    /// One entry for each quota with a rate, so no more than the catalog has.
    rates: Mutex<BTreeMap<Owner, Rates>>,
}

impl RateLimits {
    /// Counts a request of so many bytes, unless a rate of its tenant or bucket is used up.
    ///
    /// # Errors
    /// One is.
    pub(crate) fn admit(
        &self,
        view: &ClusterView,
        (tenant, bucket): (TenantId, &Name),
        bytes: usize,
        now_us: u64,
    ) -> Result<(), ErrorReply> {
        let of_tenant = view.quota(tenant, None).map(|quota| (None, quota));
        let of_bucket = view.quota(tenant, Some(bucket)).map(|quota| (Some(bucket.clone()), quota));
        for (owner, quota) in of_tenant.into_iter().chain(of_bucket) {
            if quota.requests_per_second.or(quota.bytes_per_second).is_none() {
                continue;
            }
            let mut rates = lock(&self.rates);
            let kept = rates.entry((tenant, owner.clone())).or_default();
            let mut next = *kept;
            let limits = [
                (&mut next.requests, quota.requests_per_second, 1, "requests a second"),
                (&mut next.bytes, quota.bytes_per_second, bytes as u64, "bytes a second"),
            ];
            for (rate, limit, units, what) in limits {
                let Some(limit) = limit else { continue };
                // What is refused for its bytes is no request either: `next` is not kept.
                rate.take(now_us, limit, units).map_err(|wait_ms| {
                    let whose = whose(view, tenant, owner.as_ref());
                    Reached { whose, what, limit, used: None }.refusal(wait_ms)
                })?;
            }
            *kept = next;
        }
        Ok(())
    }
}

fn whose(view: &ClusterView, tenant: TenantId, bucket: Option<&Name>) -> String {
    match (bucket, view.tenant_name(tenant)) {
        (Some(bucket), _) => format!("bucket {bucket}"),
        (None, Some(tenant)) => format!("tenant {tenant}"),
        (None, None) => format!("tenant {tenant}"),
    }
}

/// The refusal of a connection beyond the tenant's.
pub(crate) fn too_many_connections(view: &ClusterView, tenant: TenantId, limit: u64, retry_ms: u32) -> ErrorReply {
    let (whose, what) = (whose(view, tenant, None), "connections to this node");
    Reached { whose, what, limit, used: Some(limit) }.refusal(retry_ms)
}

/// Looks once a second at what is stored, and tells the shards which buckets are full.
pub(crate) async fn watch(ctx: Arc<NodeContext>) {
    let mut told: BTreeMap<BucketId, Reached> = BTreeMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(u64::from(USAGE_EVERY_MS))).await;
        let view = ctx.cluster_view();
        let limited = view.buckets().any(|bucket| {
            let limits = |quota: Option<&Quota>| quota.is_some_and(|quota| quota.objects.or(quota.bytes).is_some());
            limits(view.quota(bucket.tenant, None)) || limits(view.quota(bucket.tenant, Some(&bucket.name)))
        });
        if !limited && told.is_empty() {
            continue;
        }
        let mut own: BTreeMap<BucketId, Sum> = BTreeMap::new();
        for report in ctx.reports().await {
            for (bucket, sum) in report.buckets {
                let all = own.entry(bucket).or_default();
                *all = all.plus(sum);
            }
        }
        let full = full(&view, &own, |n| owned(&ctx, &view, n));
        if full != told {
            ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Full(full.clone()))));
            told = full;
        }
    }
}

/// Of how many partitions this node is one of the first `n` owners.
fn owned(ctx: &NodeContext, view: &ClusterView, n: u8) -> u32 {
    let layout = view.layout();
    let at = layout.nodes.iter().position(|node| node.id == ctx.node);
    at.map_or(0, |at| rejoin_core::placement::change::shares(layout, n)[at])
}

/// The buckets that have as much as their quota or their tenant's allows, by what this node has of each.
fn full(view: &ClusterView, own: &BTreeMap<BucketId, Sum>, owned: impl Fn(u8) -> u32) -> BTreeMap<BucketId, Reached> {
    let partitions = view.layout().partitions();
    let (mut shares, mut of_tenants) = (BTreeMap::new(), BTreeMap::<TenantId, (u64, u64)>::new());
    let mut used = Vec::new();
    for bucket in view.buckets() {
        let sum = own.get(&bucket.id).copied().unwrap_or_default();
        let share = *shares.entry(bucket.props.n).or_insert_with(|| owned(bucket.props.n));
        let (objects, bytes) = (whole(sum.count, share, partitions), whole(sum.bytes, share, partitions));
        let all = of_tenants.entry(bucket.tenant).or_default();
        *all = (all.0.saturating_add(objects), all.1.saturating_add(bytes));
        used.push((bucket, (objects, bytes)));
    }
    let reached = |quota: Option<&Quota>, (objects, bytes): (u64, u64), whose: String| {
        let quota = quota?;
        let limits = [(quota.objects, objects, "objects stored"), (quota.bytes, bytes, "bytes stored")];
        let (limit, used, what) =
            limits.into_iter().find(|(limit, used, _)| limit.is_some_and(|most| *used >= most))?;
        limit.map(|limit| Reached { whose, what, limit, used: Some(used) })
    };
    let of = |(bucket, of_bucket): (&Arc<rejoin_core::view::Bucket>, (u64, u64))| {
        let (tenant, name) = (bucket.tenant, &bucket.name);
        let of_tenant = of_tenants.get(&tenant).copied().unwrap_or_default();
        reached(view.quota(tenant, None), of_tenant, whose(view, tenant, None))
            .or_else(|| reached(view.quota(tenant, Some(name)), of_bucket, whose(view, tenant, Some(name))))
            .map(|reached| (bucket.id, reached))
    };
    used.into_iter().filter_map(of).collect()
}
