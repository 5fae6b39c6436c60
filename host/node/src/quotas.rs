//! Once a second: what each tenant and bucket with a quota uses, which limits that reaches, and which buckets are full.
//!
//! What is stored is estimated from this node's own copies, see [`rejoin_core::quota`]. The rest is this node's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rejoin_core::placement::change::shares;
use rejoin_core::quota::{Reached, USAGE_EVERY_MS, reached, whole};
use rejoin_core::shard::event::Event;
use rejoin_core::view::{ClusterView, Owner};
use rejoin_proto::client::{BucketUsage, ReachedLimit, TenantUsage};
use rejoin_proto::exchange::Sum;
use rejoin_proto::quota::{Amounts, Limit};
use rejoin_proto::{BucketId, ErrorReply, TenantId};

use crate::context::NodeContext;
use crate::messages::ShardMessage;
use crate::metering::{Totals, whose};
use crate::metrics::TenantFigures;

/// The limits that are reached, by tenant.
type AllReached = BTreeMap<TenantId, Vec<ReachedLimit>>;

/// The refusal of a connection beyond the tenant's.
pub(crate) fn too_many_connections(view: &ClusterView, tenant: TenantId, most: u64, retry_ms: u32) -> ErrorReply {
    let whose = whose(view, (tenant, None));
    Reached { whose, limit: Limit::Connections, most, used: Some(most) }.refusal(retry_ms)
}

/// Looks once a second at what is used, and tells the shards which buckets are full.
pub(crate) async fn watch(ctx: Arc<NodeContext>) {
    let mut told: BTreeMap<BucketId, Reached> = BTreeMap::new();
    let (mut before, mut before_us) = (ctx.metering.totals(), ctx.clock.now().mono_us);
    loop {
        tokio::time::sleep(Duration::from_millis(u64::from(USAGE_EVERY_MS))).await;
        let view = ctx.cluster_view();
        let (now, now_us) = (ctx.metering.totals(), ctx.clock.now().mono_us);
        let limited = view.quotas().next().is_some();
        let stored = if limited { stored_by_all(&ctx, &view, &stored(&ctx).await) } else { BTreeMap::new() };
        let elapsed_us = now_us.saturating_sub(before_us).max(1);
        let used = Used { ctx: &ctx, view: &view, stored, totals: (&before, &now), elapsed_us };
        let (full, reached) = if limited { used.reached() } else { Default::default() };
        ctx.metering.set_reached(reached);
        ctx.metering.forget(&view);
        if full != told {
            ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Full(full.clone()))));
            told = full;
        }
        (before, before_us) = (now, now_us);
    }
}

/// What this node stores of each bucket.
async fn stored(ctx: &NodeContext) -> BTreeMap<BucketId, Sum> {
    let mut own: BTreeMap<BucketId, Sum> = BTreeMap::new();
    for report in ctx.reports().await {
        for (bucket, sum) in report.buckets {
            let all = own.entry(bucket).or_default();
            *all = all.plus(sum);
        }
    }
    own
}

/// What all nodes store of each bucket, each object counted once, by what this one has.
fn stored_by_all(
    ctx: &NodeContext,
    view: &ClusterView,
    own: &BTreeMap<BucketId, Sum>,
) -> BTreeMap<BucketId, (u64, u64)> {
    let layout = view.layout();
    let at = layout.nodes.iter().position(|node| node.id == ctx.node);
    let mut owned: BTreeMap<u8, u32> = BTreeMap::new();
    let whole_of = |bucket: &Arc<rejoin_core::view::Bucket>| {
        let n = bucket.props.n;
        let share = *owned.entry(n).or_insert_with(|| at.map_or(0, |at| shares(layout, n)[at]));
        let sum = own.get(&bucket.id).copied().unwrap_or_default();
        let whole = |own| whole(own, share, layout.partitions());
        (bucket.id, (whole(sum.live), whole(sum.bytes)))
    };
    view.buckets().map(whole_of).collect()
}

/// What is used, for the limits.
struct Used<'a> {
    ctx: &'a NodeContext,
    view: &'a ClusterView,
    stored: BTreeMap<BucketId, (u64, u64)>,
    totals: (&'a BTreeMap<Owner, Totals>, &'a BTreeMap<Owner, Totals>),
    elapsed_us: u64,
}

impl Used<'_> {
    /// The full buckets, and all limits that are reached.
    fn reached(&self) -> (BTreeMap<BucketId, Reached>, AllReached) {
        let (mut full, mut all) = (BTreeMap::new(), AllReached::new());
        for (owner, quota) in self.view.quotas() {
            let (tenant, bucket) = owner;
            let known = bucket.map(|bucket| self.view.bucket(bucket));
            if known == Some(None) || self.view.tenant_name(tenant).is_none() {
                continue;
            }
            for (limit, hard, most, used) in reached(quota, &self.amounts(owner)) {
                let bucket_name = known.flatten().map(|bucket| bucket.name.clone());
                all.entry(tenant).or_default().push(ReachedLimit { bucket: bucket_name, limit, hard, most, used });
                if hard && matches!(limit, Limit::Objects | Limit::Bytes) {
                    let reached = Reached { whose: whose(self.view, owner), limit, most, used: Some(used) };
                    full.extend(self.buckets_of(owner).map(|bucket| (bucket, reached.clone())));
                }
            }
        }
        (full, all)
    }

    /// The buckets that a quota is about.
    fn buckets_of(&self, (tenant, bucket): Owner) -> impl Iterator<Item = BucketId> + '_ {
        let all = self.view.buckets().filter(move |known| known.tenant == tenant);
        all.map(|known| known.id).filter(move |id| bucket.is_none_or(|bucket| bucket == *id))
    }

    fn amounts(&self, owner: Owner) -> Amounts {
        let stored = self.buckets_of(owner).filter_map(|bucket| self.stored.get(&bucket));
        let add = |all: (u64, u64), of: &(u64, u64)| (all.0.saturating_add(of.0), all.1.saturating_add(of.1));
        let (objects, bytes) = stored.fold((0, 0), add);
        let (before, now) = self.totals;
        let (then, now) = (before.get(&owner).copied(), now.get(&owner).copied().unwrap_or_default());
        let rate = |of: fn(&Totals) -> u64| {
            let used = of(&now).saturating_sub(of(&then.unwrap_or_default()));
            let a_second = u128::from(used) * 1_000_000 / u128::from(self.elapsed_us);
            u64::try_from(a_second).unwrap_or(u64::MAX)
        };
        let mut amounts = Amounts::default();
        for (limit, used) in [
            (Limit::Objects, objects),
            (Limit::Bytes, bytes),
            (Limit::RequestsPerSecond, rate(|totals| totals.requests)),
            (Limit::BytesPerSecond, rate(|totals| totals.bytes_in)),
            (Limit::FuelPerSecond, rate(|totals| totals.fuel)),
            (Limit::InFlight, now.in_flight),
        ] {
            amounts.set(limit, Some(used));
        }
        if owner.1.is_none() {
            let (plugins, plugin_bytes) = self.view.plugins_of(owner.0);
            amounts.set(Limit::Connections, Some(self.ctx.sessions.of_tenant(owner.0)));
            amounts.set(Limit::Plugins, Some(plugins));
            amounts.set(Limit::PluginBytes, Some(plugin_bytes));
        }
        amounts
    }
}

/// What a tenant uses at this node.
pub(crate) async fn usage(ctx: &NodeContext, tenant: TenantId) -> TenantUsage {
    let view = ctx.cluster_view();
    let totals = ctx.metering.tenant(&view, tenant).totals();
    let Totals { requests, refused, bytes_in, bytes_out, fuel, in_flight } = totals;
    let mut own = stored(ctx).await;
    own.retain(|bucket, _| view.bucket(*bucket).is_some_and(|known| known.tenant == tenant));
    let usage = |(bucket, sum): (BucketId, Sum)| BucketUsage { bucket, objects: sum.live, bytes: sum.bytes };
    TenantUsage {
        requests,
        refused,
        bytes_in,
        bytes_out,
        fuel,
        connections: ctx.sessions.of_tenant(tenant),
        in_flight,
        buckets: own.into_iter().map(usage).collect(),
        reached: ctx.metering.reached(tenant),
    }
}

/// What the tenants use, by their labels in the metrics. `own`: what each shard has of each bucket.
pub(crate) fn figures(
    ctx: &NodeContext,
    view: &ClusterView,
    own: impl IntoIterator<Item = (BucketId, Sum)>,
) -> BTreeMap<String, TenantFigures> {
    let mut figures: BTreeMap<String, TenantFigures> = BTreeMap::new();
    for (tenant, _) in view.tenants() {
        let of = figures.entry(ctx.metering.label(view, tenant)).or_default();
        of.connections += ctx.sessions.of_tenant(tenant);
        for reached in ctx.metering.reached(tenant) {
            let count = if reached.hard { &mut of.hard_reached } else { &mut of.soft_reached };
            *count += 1;
        }
    }
    for (label, totals) in ctx.metering.by_label() {
        figures.entry(label).or_default().totals = totals;
    }
    for (bucket, sum) in own {
        let Some(bucket) = view.bucket(bucket) else { continue };
        let of = figures.entry(ctx.metering.label(view, bucket.tenant)).or_default();
        of.stored = of.stored.plus(sum);
    }
    figures
}
