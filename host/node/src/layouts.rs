//! Requests of an operator about layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use rejoin_core::copies::Copies;
use rejoin_core::placement::change::{compare, shares};
use rejoin_core::placement::solver::Solution;
use rejoin_core::ring::{Awaited, RingCommand, Step, plan};
use rejoin_core::view::{Bucket, ClusterView};
use rejoin_proto::client::Reply;
use rejoin_proto::layout_request::{
    AwaitedNode, BucketChange, ChangeStatus, CopiesStatus, LayoutNodeStatus, LayoutPlan, LayoutRequest, LayoutStatus,
    LayoutStep, MemberStatus, PastLayoutStatus, PlannedNode,
};
use rejoin_proto::{ErrorCode, ErrorReply, Layout, Name, NodeId, PartitionId, Ring};

use crate::context::NodeContext;
use crate::messages::{CatalogRequest, RingRequest};
use crate::ring::RingAnswer;
use crate::sizes;

/// Shares of two buckets that differ by so many partitions are worth a warning.
const UNEVEN: u32 = 2;
/// A node with so many times the capacity of the median is worth a warning.
const SKEW: u64 = 8;

pub(crate) async fn run(ctx: &Arc<NodeContext>, request: LayoutRequest) -> Reply {
    match request {
        LayoutRequest::Show => match ring(ctx).await {
            Some(ring) => Reply::LayoutStatus(show(ctx, &ring)),
            None => stopping(),
        },
        LayoutRequest::Plan => match ring(ctx).await {
            Some(ring) => planned(ctx, ring).await,
            None => stopping(),
        },
        LayoutRequest::Join(name) => join(ctx, &name).await,
        LayoutRequest::Stage(changes) => command(ctx, |answer| RingRequest::Stage(changes, answer)).await,
        LayoutRequest::Revert => command_of(ctx, RingCommand::Revert).await,
        LayoutRequest::Apply(name) => command_of(ctx, RingCommand::Apply(name)).await,
        LayoutRequest::Skip(name) => command_of(ctx, RingCommand::Skip(name)).await,
    }
}

/// The ring; `None` while the node stops.
pub(crate) async fn ring(ctx: &NodeContext) -> Option<Ring> {
    let (answer, answered) = oneshot::channel();
    let _ = ctx.catalog.send(CatalogRequest::Ring(RingRequest::Get(answer)));
    answered.await.ok()
}

pub(crate) async fn command_of(ctx: &NodeContext, of: RingCommand) -> Reply {
    command(ctx, |answer| RingRequest::Command(of, answer)).await
}

async fn command(ctx: &NodeContext, request: impl FnOnce(RingAnswer) -> RingRequest) -> Reply {
    let (answer, answered) = oneshot::channel();
    let _ = ctx.catalog.send(CatalogRequest::Ring(request(answer)));
    match answered.await {
        Ok(Ok(newest)) => Reply::LayoutChanged(newest),
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => stopping(),
    }
}

fn stopping() -> Reply {
    Reply::Error(ErrorReply::new(ErrorCode::Stopping, "the node is stopping; try another"))
}

/// The ring, for a node that is about to start under that name with an empty data directory.
async fn join(ctx: &NodeContext, name: &Name) -> Reply {
    let node = NodeId::from_name(name);
    if node == ctx.node || ctx.peers().sender(node).is_some() {
        let at = ctx.view.borrow().nodes.get(&node).map(|known| known.address.to_string()).unwrap_or_default();
        let why = format!("node {name} is running already, at {at}: give each node a name of its own");
        return Reply::Error(ErrorReply::new(ErrorCode::Exists, why));
    }
    tracing::info!(node = %name, "a node joins");
    ring(ctx).await.map_or_else(stopping, Reply::Ring)
}

/// The nodes that this one is connected to, and itself.
fn up(ctx: &NodeContext) -> BTreeSet<NodeId> {
    ctx.peers().all().map(|(peer, _)| *peer).chain([ctx.node]).collect()
}

fn show(ctx: &NodeContext, ring: &Ring) -> LayoutStatus {
    let (up, newest, name) = (up(ctx), ring.newest().divided(ring.partitions()), ring.newest().name());
    let owned = shares(&newest, newest.policy.n);
    let member = |id: NodeId| {
        let at = newest.nodes.iter().position(|node| node.id == id)?;
        let node = &newest.nodes[at];
        Some(MemberStatus { zone: node.zone.clone(), capacity: node.capacity, owner_of: owned[at] })
    };
    let older = &ring.live[..ring.live.len() - 1];
    let in_older = |id: NodeId| older.iter().any(|layout| layout.node(id).is_some());
    let is_dead = |id: &NodeId| ring.notes.skipped.get(id).is_some_and(|until| *until >= name);
    let view = ctx.view.borrow().clone();
    let node = |(id, known): (&NodeId, &crate::view::KnownNode)| LayoutNodeStatus {
        name: known.name.clone(),
        address: known.address.clone(),
        up: up.contains(id),
        member: member(*id),
        in_older: in_older(*id),
        dead: is_dead(id),
        staged: ring.staged().find(|(staged, _)| staged == id).map(|(_, role)| role.clone()),
    };
    // A node that was declared dead and removed is of interest only if it is there again.
    let shown = |(id, known): &(&NodeId, &crate::view::KnownNode)| {
        !matches!(known.standing, rejoin_core::node::links::Standing::Dead(_)) || up.contains(id)
    };
    let mut nodes: Vec<LayoutNodeStatus> = view.nodes.iter().filter(shown).map(node).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    LayoutStatus {
        node: ctx.config.name.clone(),
        live: ring.live.iter().map(Layout::name).collect(),
        policy: newest.policy,
        partitions: newest.partitions(),
        nodes,
        change: change(ctx, ring, &up),
        buckets: changing(&view.cluster),
        staged_policy: ring.staged_policy(),
        staged_split: ring.staged_split(),
        past: ring
            .notes
            .past
            .iter()
            .map(|(name, layout)| PastLayoutStatus {
                name: *name,
                layout: layout.clone(),
                by: ctx.peer_name(layout.by),
            })
            .collect(),
    }
}

/// The buckets whose copies differ between the live layouts.
fn changing(view: &ClusterView) -> Vec<BucketChange> {
    let status = |Copies { n, sloppy }: Copies| CopiesStatus { n, sloppy };
    let change = |bucket: &Arc<Bucket>| {
        let from = bucket.live.in_layout(view.layouts().oldest());
        let (from, to) = (status(from), status(bucket.live.at(0)));
        (from != to).then(|| BucketChange { bucket: bucket.id, name: bucket.name.clone(), from, to })
    };
    view.buckets().filter_map(change).collect()
}

fn change(ctx: &NodeContext, ring: &Ring, up: &BTreeSet<NodeId>) -> Option<ChangeStatus> {
    let awaited = Awaited::of(ring);
    let step = match awaited.step? {
        Step::Acknowledge => LayoutStep::Acknowledge,
        Step::Exchange => LayoutStep::Exchange,
        Step::Read => LayoutStep::Read,
    };
    let mut waits_for: Vec<AwaitedNode> =
        awaited.nodes.iter().map(|id| AwaitedNode { name: ctx.peer_name(*id), up: up.contains(id) }).collect();
    waits_for.sort_by(|a, b| a.name.cmp(&b.name));
    Some(ChangeStatus { step, waits_for })
}

/// The plan. It is made on a thread of its own: a large cluster takes a second or two.
async fn planned(ctx: &NodeContext, ring: Ring) -> Reply {
    let made = tokio::task::spawn_blocking(move || {
        let solution = plan(&ring).map_err(|refused| refused.to_string())?;
        Ok::<_, String>((ring, solution))
    });
    match made.await {
        Ok(Ok((ring, solution))) => {
            let sizes = sizes::of_partitions(ctx).await;
            Reply::LayoutPlan(describe(ctx, (&ring, &solution), &sizes))
        }
        Ok(Err(why)) => Reply::Error(ErrorReply::new(ErrorCode::BadRequest, why)),
        Err(_) => stopping(),
    }
}

fn describe(ctx: &NodeContext, (ring, solution): (&Ring, &Solution), sizes: &sizes::Known) -> LayoutPlan {
    let after = &solution.layout;
    // The halves of a partition that is split stay where they are.
    let before = &ring.newest().divided(after.partitions());
    let n = after.policy.n;
    let change = compare(before, after, n).unwrap_or_default();
    let (bytes, estimated) = bytes_to_take((before, after), n, sizes);
    let node = |(id, of): (&NodeId, &rejoin_core::placement::change::NodeChange)| PlannedNode {
        id: *id,
        name: after.node(*id).or(before.node(*id)).map_or_else(|| ctx.peer_name(*id), |node| node.name.clone()),
        role: after.node(*id).map(|node| (node.zone.clone(), node.capacity)),
        before: of.before,
        after: of.after,
        gains: of.gains,
        loses: of.loses,
        bytes: bytes.get(id).copied().unwrap_or(0),
    };
    let mut nodes: Vec<PlannedNode> = change.nodes.iter().map(node).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let up = up(ctx);
    let unknown = (estimated > 0).then(|| {
        format!(
            "no owner of {estimated} partitions that move has told their size: they are taken to be like the others"
        )
    });
    LayoutPlan {
        name: after.name(),
        policy: after.policy,
        partitions_before: ring.partitions(),
        partitions: after.partitions(),
        moved: change.moved(),
        least_moved: change.least_moved(),
        pace_bytes: ctx.config.exchange.max_bytes.saturating_mul(u64::from(ctx.shard_count())),
        warnings: warnings(before, solution, |node| up.contains(&node)).into_iter().chain(unknown).collect(),
        nodes,
    }
}

/// The bytes of the partitions that each node gains. Those whose owners have not told are taken to be like the others;
/// also gives their number.
fn bytes_to_take((before, after): (&Layout, &Layout), n: u8, sizes: &sizes::Known) -> (BTreeMap<NodeId, u64>, u64) {
    let owned = |layout: &Layout, of| layout.owners(of, n).map(|node| node.id).collect::<BTreeSet<NodeId>>();
    let all = || (0..before.partitions()).filter_map(|at| u16::try_from(at).ok()).map(PartitionId);
    let is_told = |of: PartitionId| !owned(before, of).is_disjoint(&sizes.by);
    let told = all().filter(|of| is_told(*of)).count() as u64;
    let average = sizes.bytes.values().sum::<u64>().checked_div(told).unwrap_or(0);
    let (mut bytes, mut estimated) = (BTreeMap::new(), BTreeSet::new());
    for partition in all() {
        let gaining = &owned(after, partition) - &owned(before, partition);
        if !gaining.is_empty() && !is_told(partition) {
            estimated.insert(partition);
        }
        let size = if is_told(partition) { sizes.bytes.get(&partition).copied().unwrap_or(0) } else { average };
        gaining.into_iter().for_each(|node| *bytes.entry(node).or_default() += size);
    }
    (bytes, estimated.len() as u64)
}

/// What an operator should look at before the change.
fn warnings(before: &Layout, solution: &Solution, is_up: impl Fn(NodeId) -> bool) -> Vec<String> {
    let (after, mut warnings) = (&solution.layout, Vec::new());
    let n = usize::from(after.policy.n);
    for (at, uneven) in solution.uneven.iter().enumerate().filter(|(_, uneven)| **uneven >= UNEVEN) {
        let why = if at + 1 == n { "a zone has too little capacity for its share" } else { "zones or capacities" };
        warnings.push(format!("for n = {} a node is {uneven} partitions away from its share: {why}", at + 1));
    }
    let mut capacities: Vec<u64> =
        after.nodes.iter().map(|node| u64::from(node.capacity)).filter(|capacity| *capacity > 0).collect();
    capacities.sort_unstable();
    let median = capacities.get(capacities.len() / 2).copied().unwrap_or(1);
    let skewed = after.nodes.iter().filter(|node| u64::from(node.capacity) >= median.saturating_mul(SKEW));
    for node in skewed {
        warnings.push(format!(
            "node {} has a capacity of {}, {} times the usual one: is that meant?",
            node.name,
            node.capacity,
            u64::from(node.capacity) / median
        ));
    }
    let mut seen = BTreeSet::new();
    let down = before.nodes.iter().chain(&after.nodes).filter(|node| !is_up(node.id) && seen.insert(node.id));
    for node in down {
        warnings.push(format!(
            "node {} is down: the change waits for it, or for `rejoin layout skip {}` once it is applied",
            node.name, node.name
        ));
    }
    warnings
}
