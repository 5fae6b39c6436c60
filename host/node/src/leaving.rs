//! A graceful stop. The node takes nothing new and answers what it was asked, by clients, which then go to other nodes,
//! and by peers.
//!
//! A peer that hears of it asks nothing more of this node from then on, and says so once everything that it has asked
//! is answered. So no write is left in doubt, as it would be if the connection were closed in the middle of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use rejoin_core::shard::event::Event;
use rejoin_proto::NodeId;
use rejoin_wire::{Class, Endpoint, Sender};

use crate::driver::Notice;
use crate::parts::Parts;
use crate::peers::{LEAVING, LEFT};

/// How often it is looked whether shards still wait for a node that is about to stop.
const GLANCE: Duration = Duration::from_millis(10);

/// Ends what is under way, within the time that the configuration gives.
pub(crate) async fn drain(parts: &Parts, endpoint: &Endpoint) {
    endpoint.refuse_new();
    // A node is stopped once.
    let _ = parts.leaving.set(());
    let limit = Duration::from_millis(parts.config.drain_ms);
    // At once, so that a client that holds on does not keep the peers from hearing it: what this node still has to ask
    // them, they answer.
    let drained = async { tokio::join!(parts.sessions.none(), leave(parts)) };
    if tokio::time::timeout(limit, drained).await.is_err() {
        let (clients, drain_ms) = (parts.sessions.count(), parts.config.drain_ms);
        tracing::warn!(clients, drain_ms, "stopping although not everything under way has ended");
    }
}

/// Tells the peers, and waits until each has what it has asked for or is gone.
async fn leave(parts: &Parts) {
    let mut left = parts.left.subscribe();
    let peers: Vec<(NodeId, Sender)> = parts.peers().all().map(|(peer, connection)| (*peer, connection.sender())).collect();
    for (_, sender) in &peers {
        let sender = sender.clone();
        // One whose queue is full is told when it has room, or never: then its time ends. It keeps no other from being
        // told.
        tokio::spawn(async move { sender.send(Class::Control, LEAVING, Bytes::new()).await });
    }
    loop {
        let done = { peers.iter().all(|(peer, sender)| sender.is_closed() || left.borrow_and_update().contains(peer)) };
        if done {
            return;
        }
        // Either way it is time to look again: a connection that ends is not told of.
        let _ = tokio::time::timeout(GLANCE, left.changed()).await;
    }
}

/// A peer asks nothing more of this node.
pub(crate) fn left(parts: &Parts, peer: NodeId) {
    parts.left.send_if_modified(|left| left.insert(peer));
}

/// A peer is about to stop.
pub(crate) fn heard(parts: &Arc<Parts>, peer: NodeId) {
    tracing::info!(peer = %parts.peer_name(peer), "a peer is about to stop");
    parts.tell_all(|| Notice::Event(Box::new(Event::PeerLeaving(peer))));
    let sender = parts.peers().all().find(|(up, _)| **up == peer).map(|(_, connection)| connection.sender());
    if let Some(sender) = sender {
        tokio::spawn(let_go(parts.clone(), peer, sender));
    }
}

/// Says that nothing more is asked of a peer that is about to stop, once that is so.
async fn let_go(parts: Arc<Parts>, peer: NodeId, sender: Sender) {
    while !sender.is_closed() && waits_for(&parts, peer).await {
        tokio::time::sleep(GLANCE).await;
    }
    let _ = sender.send(Class::Control, LEFT, Bytes::new()).await;
}

async fn waits_for(parts: &Parts, peer: NodeId) -> bool {
    for shard in &parts.shards {
        let (answer, told) = oneshot::channel();
        let _ = shard.notices.send(Notice::WaitsFor(peer, answer));
        // A shard that has stopped waits for nobody.
        if told.await.unwrap_or(false) {
            return true;
        }
    }
    false
}
