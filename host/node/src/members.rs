//! Membership: does what [`Members`] decides with the connections to the other nodes.
//!
//! The machine and the connections that it may use stand under one lock, which is taken after that of the peers and
//! never before it. Datagrams are sent and changes told under the lock, so that shards hear of changes in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use rejoin_core::members::{Counters, Liveness, MemberEvent, MemberOutput, Members, PeerView, Reason, Requests};
use rejoin_core::shard::event::Event;
use rejoin_proto::NodeId;
use rejoin_proto::client::{Doubt, Liveness as Shown, MemberView};
use rejoin_wire::Connection;

use crate::context::NodeContext;
use crate::messages::ShardMessage;

/// What shards tell of their requests to peers: which shard, and what.
pub(crate) type ShardRequests = (u16, Vec<(NodeId, Requests)>);

/// The machine and the connections over which its datagrams go.
pub(crate) struct Membership {
    members: Members,
    connections: BTreeMap<NodeId, Connection>,
}

impl Membership {
    pub(crate) fn new(members: Members) -> Self {
        Self { members, connections: BTreeMap::new() }
    }

    /// How many peers are suspected and how many are taken for down, and what the machine has done.
    pub(crate) fn figures(&self) -> ([usize; 2], Counters) {
        let views: Vec<PeerView> = self.members.views(0).collect();
        let count = |liveness| views.iter().filter(|view| view.liveness == liveness).count();
        ([count(Liveness::Suspect), count(Liveness::Down)], self.members.counters())
    }
}

/// Tells the machine the time and what the shards have seen.
pub(crate) async fn run_members(ctx: Arc<NodeContext>, mut requests: mpsc::UnboundedReceiver<ShardRequests>) {
    loop {
        // The machine looks around every fifth of a second, so nothing that happens meanwhile needs to wake this task.
        let wake = ctx.clock.instant(ctx.members().members.next_wake_us());
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(wake) => step(&ctx, MemberEvent::Tick),
            Some((shard, outcomes)) = requests.recv() => step(&ctx, MemberEvent::Requests(shard, outcomes)),
        }
    }
}

/// A peer is connected.
pub(crate) fn connected(ctx: &NodeContext, peer: NodeId, connection: Connection) {
    ctx.members().connections.insert(peer, connection);
    step(ctx, MemberEvent::LinkUp(peer));
}

/// A peer's connection is lost.
pub(crate) fn disconnected(ctx: &NodeContext, peer: NodeId) {
    ctx.members().connections.remove(&peer);
    step(ctx, MemberEvent::LinkDown(peer));
}

/// The other members of the live layouts are these now.
pub(crate) fn set(ctx: &NodeContext, members: Vec<NodeId>) {
    step(ctx, MemberEvent::Members(members));
}

/// Takes a connection's datagrams for as long as it lives. Never ends: whoever reads the connection's frames knows when
/// it does.
pub(crate) async fn receive(ctx: &NodeContext, connection: &Connection, peer: NodeId, number: u64) {
    while let Some(body) = connection.recv_datagram().await {
        // Not before its hello was taken.
        if ctx.peers().links.is_known(peer, number) {
            step(ctx, MemberEvent::Datagram(peer, body));
        }
    }
    std::future::pending().await
}

fn step(ctx: &NodeContext, event: MemberEvent) {
    // The end of a connection is logged where it is noticed.
    let is_news = !matches!(event, MemberEvent::LinkDown(_));
    let mut outputs = Vec::new();
    let mut membership = ctx.members();
    membership.members.handle(ctx.clock.now().mono_us, event, &mut outputs);
    for output in outputs {
        match output {
            MemberOutput::Send(to, body) => {
                // One that is not taken is lost, as any datagram may be.
                let _ = membership.connections.get(&to).map(|connection| connection.send_datagram(body));
            }
            MemberOutput::Changed(peer, liveness) => {
                if is_news {
                    tracing::info!(peer = %ctx.peer_name(peer), ?liveness, "liveness");
                }
                ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Liveness(peer, liveness))));
            }
        }
    }
}

/// What this node thinks of every other one.
pub(crate) fn views(ctx: &NodeContext) -> Vec<MemberView> {
    let now_us = ctx.clock.now().mono_us;
    let views: Vec<PeerView> = ctx.members().members.views(now_us).collect();
    let ago = |at_us: u64| now_us.saturating_sub(at_us) / 1_000;
    let view = |view: PeerView| MemberView {
        node: ctx.peer_name(view.node),
        liveness: shown(view.liveness),
        for_ms: ago(view.since_us),
        doubt: match view.reason {
            Reason::Answers => None,
            Reason::NotConnected => Some(Doubt::NotConnected),
            Reason::Probes => Some(Doubt::Probes),
            Reason::Requests => Some(Doubt::Requests),
            Reason::Gossip(by) => Some(Doubt::Gossip(ctx.peer_name(by))),
        },
        phi_milli: view.phi_milli.0.max(view.phi_milli.1),
        probe_answered_ms: view.probe_answered_us.map(ago),
        request_answered_ms: view.request_answered_us.map(ago),
        gossip: shown(view.gossip.liveness()),
    };
    views.into_iter().map(view).collect()
}

/// The nodes that this one doubts.
pub(crate) fn doubted(ctx: &NodeContext) -> BTreeSet<NodeId> {
    let now_us = ctx.clock.now().mono_us;
    let membership = ctx.members();
    let doubted = membership.members.views(now_us).filter(|view| view.liveness != Liveness::Alive);
    doubted.map(|view| view.node).collect()
}

fn shown(liveness: Liveness) -> Shown {
    match liveness {
        Liveness::Alive => Shown::Alive,
        Liveness::Suspect => Shown::Suspect,
        Liveness::Down => Shown::Down,
    }
}
