//! Requests that are not about objects: status, and changes of tenants, buckets, tokens and plugins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::control::{CatalogChange, Published, TokenChange, Wait, plugin_record, transcribed_record};
use rejoin_core::exchange::ExchangeCommand;
use rejoin_core::placement::change::shares;
use rejoin_core::shard::event::Event;
use rejoin_merge::{builder_of, digest_of};
use rejoin_proto::access::{DEFAULT_TENANT, Scope};
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::client::{
    AdminRequest, ExchangePair, ExchangeStatus, NodeStatus, PushChecks, RecordKind, Reply, Status, TokenStatus,
};
use rejoin_proto::signing::{MAX_BUILDER_BYTES, Provenance};
use rejoin_proto::{ErrorCode, ErrorReply, Hlc, Name, NodeId, PluginDigest, PluginSignature, TenantId};

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::lag::ShardSums;
use crate::messages::{CatalogRequest, ShardMessage};
use crate::plugin_table::share;
use crate::token::ROOT;
use crate::{buckets, conflicts, law_checks, layouts, members, quotas, receipts, sentinel, signing, transcripts};

/// Handles a request that is not about an object, of a client that may make it and waits for `wait` at most. If it
/// pushes a component, `digest` is that one's.
pub(crate) async fn run(
    ctx: &Arc<NodeContext>,
    caller: &Caller,
    request: AdminRequest,
    digest: Option<PluginDigest>,
    wait: Duration,
) -> Reply {
    let tenant = caller.tenant;
    let token = |name, change| CatalogChange::Token(tenant, name, caller.scope(), change);
    let result = match request {
        AdminRequest::Status => return Reply::Status(status(ctx).await),
        AdminRequest::Members => return Reply::Members(members::views(ctx)),
        AdminRequest::Exchange => return Reply::Exchange(exchange(ctx).await),
        AdminRequest::ExchangePause(paused) => {
            tracing::info!(paused, "an operator has set the exchange");
            let command = if paused { ExchangeCommand::Pause } else { ExchangeCommand::Start };
            ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Exchange(command))));
            return Reply::Exchange(exchange(ctx).await);
        }
        AdminRequest::Layout(request) => layouts::run(ctx, request).await,
        AdminRequest::List(kind) => return list(ctx, kind, caller).await,
        AdminRequest::BucketCreate { props, .. } | AdminRequest::BucketSet { props, .. }
            if removed_plugin(ctx, &props).is_some() =>
        {
            Reply::Error(removed_plugin(ctx, &props).unwrap_or_else(stopping))
        }
        AdminRequest::BucketCreate { name, props } => buckets::create(ctx, tenant, (name, props), wait).await,
        AdminRequest::BucketSet { name, version, props, force } => {
            buckets::set(ctx, tenant, (name, version, props, force), wait).await
        }
        AdminRequest::TokenCreate { name, .. } if name.as_str() == ROOT => Reply::Error(ErrorReply::new(
            ErrorCode::Exists,
            "root is the name of the token that is derived from the cluster's secret; choose another name",
        )),
        AdminRequest::TokenCreate { name, grant, secret_hash } => {
            change(ctx, wait, token(name, TokenChange::Create(grant, secret_hash))).await
        }
        AdminRequest::TokenRotate { name, secret_hash, overlap_ms } => {
            change(ctx, wait, token(name, TokenChange::Rotate(secret_hash, overlap_ms))).await
        }
        AdminRequest::TokenRevoke { name, certificates } => {
            let revoke = if certificates { TokenChange::Bar } else { TokenChange::Revoke };
            change(ctx, wait, token(name, revoke)).await
        }
        AdminRequest::PluginRelease { digest } => change(ctx, wait, CatalogChange::PluginRelease(tenant, digest)).await,
        AdminRequest::PluginPush { name, module, unchecked, signature } => {
            let digest = digest.unwrap_or_else(|| digest_of(&module));
            let checks = (!unchecked).then(PushChecks::default);
            push(ctx, wait, caller, (name, digest), (module, checks, signature)).await
        }
        AdminRequest::PluginPushWith { name, module, signature, checks } => {
            let digest = digest.unwrap_or_else(|| digest_of(&module));
            push(ctx, wait, caller, (name, digest), (module, Some(*checks), signature)).await
        }
        AdminRequest::SignersSet(change_of) => change(ctx, wait, CatalogChange::SignersSet(tenant, change_of)).await,
        AdminRequest::PluginLaws { digest } => return law_checks::progress(ctx, caller, digest, wait).await,
        AdminRequest::PluginStates { digest } => return transcripts::states(ctx, tenant, digest).await,
        AdminRequest::TenantCreate { name } => change(ctx, wait, CatalogChange::TenantCreate(name)).await,
        // `audit` answers it.
        AdminRequest::Audit(_) => Reply::Error(ErrorReply::new(ErrorCode::BadRequest, "no command")),
        AdminRequest::TenantDelete { name, .. } if name.as_str() == DEFAULT_TENANT => Reply::Error(ErrorReply::new(
            ErrorCode::BadRequest,
            "the tenant default is that of the cluster's operators, and cannot be deleted",
        )),
        AdminRequest::TenantDelete { name, after_ms } => {
            change(ctx, wait, CatalogChange::TenantDelete(name, after_ms)).await
        }
        AdminRequest::TenantRestore { name } => change(ctx, wait, CatalogChange::TenantRestore(name)).await,
        AdminRequest::BucketDelete { name, after_ms } => {
            change(ctx, wait, CatalogChange::BucketDelete(tenant, name, after_ms)).await
        }
        AdminRequest::BucketRestore { name } => change(ctx, wait, CatalogChange::BucketRestore(tenant, name)).await,
        AdminRequest::PluginDelete { digest, after_ms } => {
            change(ctx, wait, CatalogChange::PluginDelete(tenant, digest, after_ms)).await
        }
        AdminRequest::PluginRestore { digest } => change(ctx, wait, CatalogChange::PluginRestore(tenant, digest)).await,
        AdminRequest::QuotaSet { bucket, quota } => {
            change(ctx, wait, CatalogChange::QuotaSet(tenant, bucket, quota)).await
        }
        AdminRequest::Usage => return Reply::Usage(quotas::usage(ctx, tenant).await),
        AdminRequest::Conflicts { bucket } => conflicts::list(ctx, caller, &bucket),
        AdminRequest::LawViolations { bucket } => sentinel::list(ctx, caller, &bucket),
        AdminRequest::Receipts(query) => receipts::page(ctx, caller, *query).await,
        AdminRequest::KeyShow { bucket, key } => receipts::key(ctx, caller, &bucket, key).await,
        AdminRequest::ShadowReport { bucket, samples } => shadow_report(ctx, caller, &bucket, samples),
        AdminRequest::PluginFetch { digest } => fetched(ctx, caller, &digest).await,
    };
    if let Reply::Error(error) = &result {
        tracing::info!(token = %caller.principal.name, tenant = %caller.tenant_name, %error, "a request was refused");
    }
    result
}

pub(crate) async fn change(ctx: &NodeContext, wait: Duration, change: CatalogChange) -> Reply {
    let (answer, made) = oneshot::channel();
    // A fifth of the time is left for the reply to travel.
    let until_us = ctx.clock.now().mono_us + u64::try_from((wait - wait / 5).as_micros()).unwrap_or(u64::MAX / 2);
    let others = ctx.view.borrow().members_besides(ctx.node).into_iter().collect();
    let _ = ctx.catalog.send(CatalogRequest::Change(change, Wait { all: others, until_us }, answer));
    match made.await {
        Ok(Ok(Published { record, taken_by })) => {
            let others = ctx.view.borrow().members_besides(ctx.node).into_iter();
            let behind = others.filter(|node| !taken_by.contains(node)).map(|node| ctx.peer_name(node)).collect();
            Reply::Changed { record: buckets::shown(&ctx.cluster_view(), record.without_secrets()), behind }
        }
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => Reply::Error(stopping()),
    }
}

/// The records of a kind that the caller may see.
async fn list(ctx: &NodeContext, kind: RecordKind, caller: &Caller) -> Reply {
    let Some(mut records) = records(ctx, kind, caller.tenant).await else { return Reply::Error(stopping()) };
    let limits = &caller.principal.grant.limits;
    records.retain(|record| !is_gone(record));
    records.retain(|record| match &record.key {
        RecordKey::Bucket(_, name) => limits.admit_bucket(name),
        RecordKey::Tenant(tenant) => caller.scope() == Scope::Operator || *tenant == caller.tenant,
        RecordKey::Plugin(..) | RecordKey::Token(..) | RecordKey::Quota(..) | RecordKey::Signers(_) => true,
    });
    match kind {
        RecordKind::Token => {
            Reply::Tokens(records.into_iter().filter_map(|record| token_status(ctx, record)).collect())
        }
        _ => {
            let view = ctx.cluster_view();
            Reply::Records(records.into_iter().map(|record| buckets::shown(&view, record)).collect())
        }
    }
}

/// The records of a kind as the catalog has them; `None` while the node stops.
pub(crate) async fn records(ctx: &NodeContext, kind: RecordKind, tenant: TenantId) -> Option<Vec<Record>> {
    let (answer, listed) = oneshot::channel();
    let _ = ctx.catalog.send(CatalogRequest::List(kind, tenant, answer));
    listed.await.ok()
}

/// Whether a record is of something that is gone.
fn is_gone(record: &Record) -> bool {
    match &record.body {
        RecordBody::DeletedBucket { deleted, .. }
        | RecordBody::DeletedTenant { deleted, .. }
        | RecordBody::DeletedPlugin { deleted, .. } => deleted.reaped,
        _ => false,
    }
}

fn token_status(ctx: &NodeContext, record: Record) -> Option<TokenStatus> {
    let (RecordKey::Token(tenant, name), RecordBody::Token { grant, before, revoked, .. }) = (record.key, record.body)
    else {
        return None;
    };
    let now_ms = ctx.clock.now().wall_ms;
    let rotating_until_ms = before.map(|old| old.until_ms).filter(|until_ms| !revoked && now_ms < *until_ms);
    let last_used_ms = ctx.sessions.last_used_ms(&(tenant, name.clone()));
    Some(TokenStatus { name, grant, rotating_until_ms, revoked, last_used_ms })
}

/// What this node still has to make equal with others.
async fn exchange(ctx: &NodeContext) -> ExchangeStatus {
    let (node, view, now_us) = (ctx.config.name.clone(), ctx.cluster_view(), ctx.clock.now().mono_us);
    let (pairs, incomplete) = (Vec::new(), Vec::new());
    let mut all = ExchangeStatus { node, paused: false, pairs, incomplete, holdings: 0, handed_over: 0 };
    for report in ctx.reports().await {
        all.holdings = all.holdings.saturating_add(u32::try_from(report.held.partitions.len()).unwrap_or(u32::MAX));
        all.handed_over += report.core.objects_dropped;
        let shard = report.exchange;
        all.paused |= shard.paused;
        all.incomplete.extend(shard.incomplete);
        all.pairs.extend(shard.pairs.into_iter().map(|(partition, peer, pair)| ExchangePair {
            partition,
            peer: view.node_name(peer),
            equal_ago_ms: pair.equal_us.map(|at_us| now_us.saturating_sub(at_us) / 1_000),
            differs: pair.differs,
            walking: pair.walking,
            failures: pair.failures,
            sent: pair.counts.sent,
            received: pair.counts.received,
            sent_bytes: pair.counts.sent_bytes,
            received_bytes: pair.counts.received_bytes,
        }));
    }
    all
}

pub(crate) fn stopping() -> ErrorReply {
    ErrorReply::new(ErrorCode::Stopping, "the node is stopping; try another")
}

/// A plugin that a bucket would get and that no node has any more.
fn removed_plugin(ctx: &NodeContext, props: &BucketProps) -> Option<ErrorReply> {
    let digest = props.plugins().find(|plugin| ctx.plugins.is_removed(plugin))?;
    let message = format!("plugin {digest} was removed, since no bucket used it and others were pushed: push it again");
    Some(ErrorReply::new(ErrorCode::NotFound, message))
}

/// The component of a plugin of the caller's tenant.
async fn fetched(ctx: &NodeContext, caller: &Caller, digest: &PluginDigest) -> Reply {
    let is_known = ctx.cluster_view().plugin_name(caller.tenant, digest).is_some();
    let missing = |why: &str| Reply::Error(ErrorReply::new(ErrorCode::NotFound, format!("{why} {digest}")));
    // What another tenant has pushed is not told of.
    if !is_known {
        return missing("there is no plugin");
    }
    let bytes = ctx.plugins.bytes(digest).await;
    bytes.map_or_else(|| missing("this node does not have the component of plugin"), Reply::Module)
}

/// What this node knows of a bucket's shadow, as far as the caller's token opens the keys.
fn shadow_report(ctx: &NodeContext, caller: &Caller, bucket: &Name, samples: bool) -> Reply {
    let view = ctx.cluster_view();
    let Some(known) = view.bucket_named(caller.tenant, bucket) else {
        return Reply::Error(ErrorReply::new(ErrorCode::NotFound, format!("there is no bucket {bucket}")));
    };
    let mut report = ctx.plugins.shadows().report(known.id, ctx.config.name.clone(), samples);
    let limits = &caller.principal.grant.limits;
    report.samples.retain(|sample| limits.admit(bucket, &sample.key));
    report.keys.retain(|key| limits.admit(bucket, key));
    Reply::ShadowReport(Box::new(report))
}

/// Compiles a plugin, checks its laws and stores it, then adds it to the catalog. Without `checks` nothing is checked.
async fn push(
    ctx: &Arc<NodeContext>,
    wait: Duration,
    caller: &Caller,
    (name, digest): (Name, PluginDigest),
    (module, checks, signature): (Bytes, Option<PushChecks>, Option<PluginSignature>),
) -> Reply {
    let tenant = caller.tenant;
    // Before anything is compiled.
    let most = (ctx.config.law_fixtures, ctx.config.law_fixture_bytes);
    if let Some(Err(refusal)) = checks.as_ref().map(|checks| law_checks::check_fixtures(checks, most)) {
        return Reply::Error(refusal);
    }
    let signer = match signing::signer(ctx, caller, &digest, signature).await {
        Ok(signer) => signer,
        Err(refusal) => return Reply::Error(refusal),
    };
    let pushed = match ctx.plugins.push(share(&ctx.cluster_view(), tenant), digest, module.clone()).await {
        Ok(pushed) => pushed,
        Err(rejection) => return Reply::Error(ErrorReply::new(ErrorCode::PluginRejected, rejection.to_string())),
    };
    let plugin = pushed.plugin();
    let marked = match law_checks::admit(ctx, caller, (digest, &module, checks), wait).await {
        Ok(marked) => marked,
        Err(reply) => return reply,
    };
    if let Err(why) = pushed.keep(module.clone()).await {
        let message = format!("the plugin could not be stored: {why}");
        return Reply::Error(ErrorReply::new(ErrorCode::DiskFull, message));
    }
    let metadata = plugin.metadata();
    // The plugin's own name if it is a valid one, else the name that the administrator gave.
    let name = metadata.and_then(|metadata| Name::new(metadata.name.as_str()).ok()).unwrap_or(name);
    let version = metadata.map(|metadata| metadata.version.clone()).unwrap_or_default();
    let self_causal = metadata.is_some_and(|metadata| metadata.self_causal);
    let record = plugin_record(name, version, module.len() as u64, self_causal, plugin.exports().validate);
    let mut record = transcribed_record(record, pushed.transcript().as_slice());
    record.unchecked = marked;
    let pushed_by = caller.principal.name.clone();
    let builder = ctx.aside.run(move || builder_of(&module, MAX_BUILDER_BYTES)).await;
    // When it was pushed is filled in where it becomes part of the catalog.
    record.provenance = Some(Box::new(Provenance { pushed_by, pushed: Hlc::default(), signer, builder }));
    change(ctx, wait / 2, CatalogChange::PluginAdd(tenant, digest, record)).await
}

/// The cluster's state as this node sees it.
async fn status(ctx: &NodeContext) -> Status {
    let sums = ShardSums::ask(ctx).await;
    let receipts = sums.receipts_warning(&ctx.config.name);
    let ShardSums { holdings, rebuild, warning, .. } = sums;
    let view = ctx.cluster_view();
    let layout = view.layout();
    let known = ctx.view.borrow().clone();
    let (first, any) = (shares(layout, 1), shares(layout, u8::MAX));
    let (own, authority) = ctx.certificates.ends();
    // Copied, so that the lock is not held while the status is computed: the links need it.
    let (up, replaced): (BTreeSet<NodeId>, BTreeSet<NodeId>) = {
        let peers = ctx.peers();
        let replaced = layout.nodes.iter().map(|node| node.id).filter(|id| peers.links.is_replaced(*id));
        (peers.all().map(|(peer, _)| *peer).chain([ctx.node]).collect(), replaced.collect())
    };
    let is_up = |node: NodeId| up.contains(&node);
    let node = |(at, node): (usize, &rejoin_proto::LayoutNode)| NodeStatus {
        name: node.name.clone(),
        zone: node.zone.clone(),
        address: known.nodes.get(&node.id).map_or(&node.address, |known| &known.address).clone(),
        up: is_up(node.id),
        first_owner_of: first[at],
        owner_of: any[at],
        replaced: replaced.contains(&node.id),
    };
    Status {
        cluster: ctx.cluster,
        node: ctx.config.name.clone(),
        release: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: ctx.clock.now().mono_us / 1000,
        layout: view.layout_name(),
        partitions: layout.partitions(),
        nodes: layout.nodes.iter().enumerate().map(node).collect(),
        lost: ctx.lost.clone(),
        missing_plugins: ctx.plugins.missing(),
        warnings: ctx.warnings().into_iter().chain(warning).chain(receipts).collect(),
        certificate_until_ms: own.saturating_mul(1_000),
        authority_until_ms: authority.saturating_mul(1_000),
        problems: ctx.all_problems(),
        spare: view.spare(|node| is_up(node) && !replaced.contains(&node), is_up),
        holdings,
        rebuild,
    }
}
