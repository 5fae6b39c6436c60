//! A graceful stop. The node takes nothing new, and answers the requests that it has: those of clients, which then go
//! to other nodes, and those of peers.
//!
//! A peer that hears of the stop asks nothing more of this node, and releases it once all its own requests are
//! answered. Closing the connection earlier would leave writes with an unknown outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::shard::event::Event;
use rejoin_proto::NodeId;
use rejoin_wire::{Class, Endpoint, Sender};

use crate::context::NodeContext;
use crate::frames::{RELEASED, STOPPING};
use crate::messages::ShardMessage;

/// How often it is checked whether a peer is still waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until clients and peers have their answers, at most `drain_ms`.
pub(crate) async fn drain(ctx: &NodeContext, endpoint: &Endpoint) {
    endpoint.refuse_new();
    // It cannot be set already: a node is stopped once.
    let _ = ctx.stopping.set(());
    let limit = Duration::from_millis(ctx.config.drain_ms);
    // Clients and peers at the same time: a slow client must not delay the news to the peers. The peers still answer
    // what this node asks for its clients.
    let drained = async { tokio::join!(ctx.sessions.none(), drain_peers(ctx)) };
    if tokio::time::timeout(limit, drained).await.is_err() {
        let (clients, drain_ms) = (ctx.sessions.count(), ctx.config.drain_ms);
        tracing::warn!(clients, drain_ms, "drain_ms is over: stopping with requests still under way");
    }
}

/// Tells every peer that this node stops, and waits until each has released it or is disconnected.
async fn drain_peers(ctx: &NodeContext) {
    let mut released_by = ctx.released_by.subscribe();
    let peers: Vec<(NodeId, Sender)> =
        ctx.peers().all().map(|(peer, connection)| (*peer, connection.sender())).collect();
    for (_, sender) in &peers {
        let sender = sender.clone();
        // In tasks: a peer whose queue is full must not delay the others.
        tokio::spawn(async move { sender.send(Class::Control, STOPPING, Bytes::new()).await });
    }
    loop {
        let done = {
            let released_by = released_by.borrow_and_update();
            peers.iter().all(|(peer, sender)| sender.is_closed() || released_by.contains(peer))
        };
        if done {
            return;
        }
        // A closed connection changes no watch, so look again after a while too.
        let _ = tokio::time::timeout(POLL_INTERVAL, released_by.changed()).await;
    }
}

/// Notes that a peer waits for nothing more from this node.
pub(crate) fn peer_released(ctx: &NodeContext, peer: NodeId) {
    ctx.released_by.send_if_modified(|released_by| released_by.insert(peer));
}

/// Handles the news that a peer is about to stop.
pub(crate) fn peer_stopping(ctx: &Arc<NodeContext>, peer: NodeId) {
    tracing::info!(peer = %ctx.peer_name(peer), "a peer is about to stop");
    ctx.broadcast(|| ShardMessage::Core(Box::new(Event::PeerLeaving(peer))));
    let sender = ctx.peers().sender(peer);
    if let Some(sender) = sender {
        tokio::spawn(release_peer(ctx.clone(), peer, sender));
    }
}

/// Releases a peer that is about to stop, once no shard waits for an answer of it.
async fn release_peer(ctx: Arc<NodeContext>, peer: NodeId, sender: Sender) {
    while !sender.is_closed() && waits_for(&ctx, peer).await {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let _ = sender.send(Class::Control, RELEASED, Bytes::new()).await;
}

async fn waits_for(ctx: &NodeContext, peer: NodeId) -> bool {
    for shard in &ctx.shards {
        let (answer, waits) = oneshot::channel();
        let _ = shard.messages.send(ShardMessage::WaitsFor(peer, answer));
        // A shard that has stopped waits for nobody.
        if waits.await.unwrap_or(false) {
            return true;
        }
    }
    false
}
