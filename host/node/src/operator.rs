//! An operator's verbs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::control::{CatalogChange, Published, Wait, plugin_record};
use rejoin_merge::digest_of;
use rejoin_proto::client::{Admin, NodeStatus, RecordKind, Reply, Status};
use rejoin_proto::{ErrorCode, ErrorReply, Name, NodeId, PartitionId, TenantId};

use crate::catalog::ControlCall;
use crate::parts::Parts;
use crate::token::ROOT;

/// Runs a verb for a tenant's administrator, who waits for so long.
pub(crate) async fn run(parts: &Arc<Parts>, tenant: TenantId, verb: Admin, wait: Duration) -> Reply {
    let result = match verb {
        Admin::Status => return Reply::Status(status(parts)),
        Admin::List(kind) => return list(parts, kind, tenant).await,
        Admin::BucketCreate { name, props } => change(parts, wait, CatalogChange::BucketCreate(tenant, name, props)).await,
        Admin::BucketSet { name, version, props } => change(parts, wait, CatalogChange::BucketSet(tenant, name, version, props)).await,
        Admin::TokenCreate { name, .. } if name.as_str() == ROOT => Reply::Error(ErrorReply::new(
            ErrorCode::Exists,
            "root is the token that is derived from the cluster's secret; choose another name",
        )),
        Admin::TokenCreate { name, scope, secret_hash } => {
            change(parts, wait, CatalogChange::TokenCreate(tenant, name, scope, secret_hash)).await
        }
        Admin::TokenRevoke { name } => change(parts, wait, CatalogChange::TokenRevoke(name)).await,
        Admin::PluginPush { name, module } => push(parts, wait, name, module).await,
    };
    if let Reply::Error(error) = &result {
        tracing::info!(%error, "an operator's verb was refused");
    }
    result
}

async fn change(parts: &Parts, wait: Duration, change: CatalogChange) -> Reply {
    let (answer, made) = oneshot::channel();
    // The answer has its way to go, too.
    let until_us = parts.clock.now().mono_us + u64::try_from((wait - wait / 5).as_micros()).unwrap_or(u64::MAX / 2);
    let others = parts.cluster_view().layout().nodes.iter().map(|node| node.id).filter(|id| *id != parts.node).collect();
    let _ = parts.control.send(ControlCall::Change(change, Wait { all: others, until_us }, answer));
    match made.await {
        Ok(Ok(Published { record, taken_by })) => {
            let view = parts.cluster_view();
            let nodes = view.layout().nodes.iter().filter(|node| node.id != parts.node && !taken_by.contains(&node.id));
            Reply::Changed { record, behind: nodes.map(|node| node.name.clone()).collect() }
        }
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => Reply::Error(stopping()),
    }
}

async fn list(parts: &Parts, kind: RecordKind, tenant: TenantId) -> Reply {
    let (answer, listed) = oneshot::channel();
    let _ = parts.control.send(ControlCall::List(kind, tenant, answer));
    listed.await.map_or_else(|_| Reply::Error(stopping()), Reply::Records)
}

fn stopping() -> ErrorReply {
    ErrorReply::new(ErrorCode::Stopping, "the node is stopping; try another")
}

/// Checks and keeps a plugin, then lets the others know of it.
async fn push(parts: &Arc<Parts>, wait: Duration, name: Name, module: Bytes) -> Reply {
    let pushed = match parts.desk.push(module.clone()).await {
        Ok(pushed) => pushed,
        Err(rejection) => return Reply::Error(ErrorReply::new(ErrorCode::PluginRejected, rejection.to_string())),
    };
    let plugin = pushed.plugin();
    if let Err(why) = parts.desk.keep(plugin, &module) {
        let message = format!("the plugin could not be stored: {why}");
        return Reply::Error(ErrorReply::new(ErrorCode::DiskFull, message));
    }
    let metadata = plugin.metadata();
    // A plugin's own name, where it is one that can be shown and typed; else what the operator calls it.
    let name = metadata.and_then(|metadata| Name::new(metadata.name.as_str()).ok()).unwrap_or(name);
    let version = metadata.map(|metadata| metadata.version.clone()).unwrap_or_default();
    let self_causal = metadata.is_some_and(|metadata| metadata.self_causal);
    let record = plugin_record(name, version, module.len() as u64, self_causal, plugin.exports().validate);
    change(parts, wait, CatalogChange::PluginAdd(digest_of(&module), record)).await
}

/// How the cluster looks from here.
fn status(parts: &Parts) -> Status {
    let view = parts.cluster_view();
    let layout = view.layout();
    let owners = |n: u8| (0..layout.partitions()).map(move |p| layout.owners(PartitionId(u16::try_from(p).unwrap_or(u16::MAX)), n));
    let (own, authority) = parts.certificates.ends();
    let warnings = parts.warnings();
    let peers = parts.peers();
    let is_up = |node: NodeId| node == parts.node || peers.is_up(node);
    let node = |node: &rejoin_proto::LayoutNode| NodeStatus {
        name: node.name.clone(),
        zone: node.zone.clone(),
        address: node.address.clone(),
        up: is_up(node.id),
        first_owner_of: owners(1).flatten().filter(|owner| owner.id == node.id).count() as u32,
        owner_of: owners(u8::MAX).flatten().filter(|owner| owner.id == node.id).count() as u32,
        replaced: peers.links.is_replaced(node.id),
    };
    Status {
        cluster: parts.cluster,
        node: parts.config.name.clone(),
        release: env!("CARGO_PKG_VERSION").into(),
        uptime_ms: parts.clock.now().mono_us / 1000,
        layout: view.layout_name(),
        partitions: layout.partitions(),
        nodes: layout.nodes.iter().map(node).collect(),
        lost: parts.lost.clone(),
        missing_plugins: parts.desk.missing(),
        warnings,
        certificate_until_ms: own.saturating_mul(1_000),
        authority_until_ms: authority.saturating_mul(1_000),
        problems: parts.all_problems(),
        spare: view.spare(|node| is_up(node) && !peers.links.is_replaced(node), is_up),
    }
}
