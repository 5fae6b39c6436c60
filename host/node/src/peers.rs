//! The other nodes: one connection to each, made by the one with the lower id, kept for as long as both live.
//!
//! A connection begins with a hello each way. What a peer has seen of this node's actors comes right behind it, so that when the peer says
//! *ready*, an old disk has been found out; only then, or after a grace, does a starting node take writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use rejoin_proto::client::PROTOCOL;
use rejoin_proto::peer::{ActorNext, DataRequest, PeerBody, PeerEnvelope, PeerHello};
use rejoin_proto::{LayoutNode, Name, NodeId, PluginDigest, codec};
use rejoin_wire::{Class, CloseCode, Connection, Endpoint, Frame, SendError};
use tokio::sync::oneshot;

use crate::catalog::ControlCall;
use crate::driver::{Notice, Work, frame};
use crate::parts::{Parts, Peer};

/// Frame ids on the control class: the hello, a message, and the word that all objections to the other side's actors were sent before it.
const HELLO: u64 = 0;
const MESSAGE: u64 = 1;
const READY: u64 = 2;

/// How long a peer may take for its hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts to dial.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The most frames taken from a connection at once.
const FRAMES: usize = 512;

/// The words with which a peer's connection is closed.
const NOT_WELCOME: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 1);
const REPLACED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 2);
const CUT: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 3);
const BEHIND: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 4);

/// Keeps a connection to one node that is this one's to dial.
pub(crate) async fn dial(parts: Arc<Parts>, endpoint: Endpoint, node: LayoutNode) {
    let mut pause = FIRST_PAUSE;
    loop {
        if !parts.faults.is_cut(node.id) {
            match endpoint.connect_peer_at(&node.address, &node.name).await {
                Ok(connection) => {
                    let begun = tokio::time::Instant::now();
                    serve(&parts, connection, node.name.clone()).await;
                    // One that is made and refused again and again is not to be tried twenty times a second.
                    if begun.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => tracing::debug!(peer = %node.name, %error, "not connected"),
            }
        }
        // Jittered, so that nodes which lost each other at one moment do not meet again in lockstep.
        let jitter = (parts.chance.word() % 1024) as f64 / 1024.0 + 0.5;
        tokio::select! {
            biased;
            () = parts.redial.notified() => pause = FIRST_PAUSE,
            () = tokio::time::sleep(pause.mul_f64(jitter)) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// Serves a connection to a peer, dialled or accepted, until it ends.
pub(crate) async fn serve(parts: &Arc<Parts>, connection: Connection, name: Name) {
    let hello = match greet(parts, &connection, &name).await {
        Ok(hello) => hello,
        Err(why) => {
            tracing::warn!(peer = %name, why, "a peer is not welcome");
            return connection.close(NOT_WELCOME, &why);
        }
    };
    let peer = hello.node;
    let Some((registered, heard)) = register(parts, peer, &connection, &hello) else { return };
    tracing::info!(peer = %name, "connected");
    if all_heard(heard).await {
        // Behind every objection that the shards have sent by now.
        let _ = connection.sender().send(Class::Control, READY, Bytes::new()).await;
    }
    receive(parts, &connection, peer, registered.generation).await;
    drop(registered);
    tracing::info!(peer = %name, reason = ?connection.close_reason(), "disconnected");
}

/// Exchanges hellos and checks the other side's.
async fn greet(parts: &Arc<Parts>, connection: &Connection, name: &Name) -> Result<PeerHello, String> {
    let view = parts.cluster_view();
    let mut actors = Vec::new();
    for shard in &parts.shards {
        let (answer, told) = oneshot::channel();
        let _ = shard.notices.send(Notice::Actors(answer));
        actors.extend(told.await.map_err(|_| "this node is stopping".to_owned())?);
    }
    let ours = PeerHello {
        protocol: PROTOCOL,
        cluster: parts.cluster,
        node: parts.node,
        layout: view.layout_name(),
        catalog: parts.catalog_digest.load(Relaxed),
        actors,
    };
    let sent = connection.sender().send(Class::Control, HELLO, codec::encode(&ours).into()).await;
    sent.map_err(|error| error.to_string())?;
    let first = tokio::time::timeout(HELLO_WAIT, connection.recv_class(Class::Control)).await;
    let frame = first.map_err(|_| "it said nothing".to_owned())?.ok_or("the connection was lost")?;
    let hello: PeerHello = codec::decode(&frame.body).map_err(|error| error.to_string())?;
    check(parts, &hello, name)?;
    Ok(hello)
}

fn check(parts: &Parts, hello: &PeerHello, name: &Name) -> Result<(), String> {
    if hello.protocol != PROTOCOL {
        return Err(format!("it speaks protocol {}, this node {PROTOCOL}", hello.protocol));
    }
    if hello.cluster != parts.cluster || hello.node != NodeId::from_name(name) {
        return Err("its hello and its certificate name different nodes or clusters".into());
    }
    let view = parts.cluster_view();
    if view.layout().node(hello.node).is_none() {
        return Err(format!("node {name} is not in this cluster's layout"));
    }
    if parts.faults.is_cut(hello.node) {
        return Err("the connection is cut on purpose".into());
    }
    Ok(())
}

/// A peer that shards and control know of. Dropped, however its task ends, they are told that it is gone.
struct Registered<'a> {
    parts: &'a Parts,
    peer: NodeId,
    generation: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        unregister(self.parts, self.peer, self.generation);
    }
}

/// Makes the peer known to shards and control, in place of an older connection to it. The shards answer when they have looked at its actors.
/// None if the connection has ended meanwhile: it must not take the place of a newer one.
fn register<'a>(
    parts: &'a Parts,
    peer: NodeId,
    connection: &Connection,
    hello: &PeerHello,
) -> Option<(Registered<'a>, Vec<oneshot::Receiver<()>>)> {
    let generation = parts.generations.fetch_add(1, Relaxed) + 1;
    let sender = connection.sender();
    let mut by_shard = split(parts, &hello.actors);
    let mut heard = Vec::new();
    {
        let mut peers = parts.peers();
        if parts.faults.is_cut(peer) {
            // Cut since the hello was checked.
            connection.close(CUT, "cut on purpose");
        }
        if connection.close_reason().is_some() {
            return None;
        }
        let entry = Peer { connection: connection.clone(), sender: sender.clone(), generation, settled: false };
        if let Some(old) = peers.insert(peer, entry) {
            old.connection.close(REPLACED, "a newer connection has taken its place");
            announce_down(parts, peer);
        }
        // Under the lock, so that no other connection's news of this peer comes in between.
        for (index, shard) in parts.shards.iter().enumerate() {
            let (done, told) = oneshot::channel();
            let actors = by_shard.remove(&index).unwrap_or_default();
            let _ = shard.notices.send(Notice::PeerUp { peer, sender: sender.clone(), actors, done });
            heard.push(told);
        }
        let _ = parts.control.send(ControlCall::PeerUp(peer, hello.catalog));
    }
    Some((Registered { parts, peer, generation }, heard))
}

/// Whether every shard has looked at the peer's actors. One that has failed has not, and the peer must not be told that it has.
async fn all_heard(heard: Vec<oneshot::Receiver<()>>) -> bool {
    for told in heard {
        if told.await.is_err() {
            return false;
        }
    }
    true
}

fn split(parts: &Parts, actors: &[ActorNext]) -> BTreeMap<usize, Vec<ActorNext>> {
    let view = parts.cluster_view();
    let partitions = view.layout().partitions();
    let mut by_shard: BTreeMap<usize, Vec<ActorNext>> = BTreeMap::new();
    let known = actors.iter().filter(|actor| u32::from(actor.partition.0) < partitions);
    for actor in known {
        let shards = u16::try_from(parts.shards.len()).unwrap_or(1);
        let shard = rejoin_core::view::shard_of(actor.partition, partitions, shards);
        by_shard.entry(usize::from(shard)).or_default().push(*actor);
    }
    by_shard
}

fn unregister(parts: &Parts, peer: NodeId, generation: u64) {
    let mut peers = parts.peers();
    if peers.get(&peer).is_some_and(|known| known.generation == generation) {
        peers.remove(&peer);
        announce_down(parts, peer);
    }
}

fn announce_down(parts: &Parts, peer: NodeId) {
    parts.tell_all(|| Notice::PeerDown(peer));
    let _ = parts.control.send(ControlCall::PeerDown(peer));
}

/// Cuts the connection to a peer, and keeps it cut until [`Faults::heal`](crate::faults::Faults::heal).
pub(crate) fn cut(parts: &Parts, peer: NodeId) {
    parts.faults.cut(peer);
    if let Some(known) = parts.peers().get(&peer) {
        known.connection.close(CUT, "cut on purpose");
    }
}

async fn receive(parts: &Arc<Parts>, connection: &Connection, peer: NodeId, generation: u64) {
    let mut frames = Vec::with_capacity(FRAMES);
    while connection.recv_batch(&mut frames, FRAMES).await > 0 {
        for frame in frames.drain(..) {
            if frame.class == Class::Control && frame.id == READY {
                settle(parts, peer, generation);
                continue;
            }
            match codec::decode::<PeerEnvelope>(&frame.body) {
                Ok(envelope) if frame.id == MESSAGE => route(parts, peer, envelope).await,
                _ => {
                    let why = "it has sent what is no message";
                    tracing::error!(peer = %parts.peer_name(peer), why, "closing the connection");
                    return connection.close(CloseCode::PROTOCOL, why);
                }
            }
        }
    }
}

fn settle(parts: &Parts, peer: NodeId, generation: u64) {
    if let Some(known) = parts.peers().get_mut(&peer)
        && known.generation == generation
    {
        known.settled = true;
    }
    parts.settled.notify_waiters();
}

/// Hands a message to whom it is for. Waits while that shard's inbox is full: then this connection is not read, and the peer is held back.
async fn route(parts: &Arc<Parts>, peer: NodeId, envelope: PeerEnvelope) {
    let view = parts.cluster_view();
    let shard = match &envelope.body {
        PeerBody::Forward(forward) => {
            let (bucket, key) = match &forward.request {
                DataRequest::Get(get) => (&get.bucket, &get.key),
                DataRequest::Put(put) => (&put.bucket, &put.key),
            };
            // An unknown bucket is answered by whichever shard gets it.
            let partition = view.partition(forward.tenant, bucket, key);
            partition.map_or(&parts.shards[0], |partition| parts.shard_of(partition, &view))
        }
        PeerBody::Read { object, .. } => parts.shard_of(view.layout().partition(object), &view),
        PeerBody::Replicate(message) => parts.shard_of(view.layout().partition(&message.object), &view),
        PeerBody::ForwardReply { op, .. } | PeerBody::ReadReply { op, .. } | PeerBody::Replicated { op, .. } => {
            let Some(shard) = parts.shards.get(usize::from(op.shard)) else { return };
            shard
        }
        PeerBody::Observed { actor, .. } => {
            if u32::from(actor.partition.0) < view.layout().partitions() {
                // Not through the inbox: it must be heard before the word that the peer is ready.
                let _ = parts.shard_of(actor.partition, &view).notices.send(Notice::Peer(peer, envelope));
            }
            return;
        }
        PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. } => {
            let _ = parts.control.send(ControlCall::Peer(peer, envelope.body));
            return;
        }
        PeerBody::ModuleWanted(_) | PeerBody::Module { .. } => return module(parts, peer, envelope.body),
    };
    let _ = shard.inbox.send(Work::Peer(peer, envelope)).await;
}

fn module(parts: &Arc<Parts>, peer: NodeId, body: PeerBody) {
    let parts = parts.clone();
    tokio::spawn(async move {
        match body {
            PeerBody::ModuleWanted(digest) => {
                let bytes = parts.desk.bytes(&digest);
                send(&parts, peer, PeerBody::Module { digest, bytes });
            }
            PeerBody::Module { digest, bytes: Some(bytes) } => parts.desk.fetched(digest, bytes).await,
            _ => {}
        }
    });
}

/// Sends a message that belongs to no shard. One about the catalog that is lost on a connection that goes on would not be sent again, so
/// if the peer does not take it, the connection is begun anew: then both sides compare what they know.
pub(crate) fn send(parts: &Parts, peer: NodeId, body: PeerBody) {
    let is_catalog = matches!(body, PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. });
    let envelope = PeerEnvelope { layout: parts.cluster_view().layout_name(), trace: 0, body };
    let Frame { class, id, body } = frame(&envelope);
    if let Some(known) = parts.peers().get(&peer)
        && let Err(error) = known.sender.try_send(class, id, body)
    {
        if is_catalog && matches!(error, SendError::Full(_)) {
            known.connection.close(BEHIND, "it does not take what it is sent");
        }
        tracing::warn!(peer = %parts.peer_name(peer), %error, "a message was not sent");
    }
}

/// Asks every connected peer for modules that this node lacks.
pub(crate) fn ask_for_modules(parts: &Parts, missing: &[PluginDigest]) {
    let peers: Vec<NodeId> = parts.peers().keys().copied().collect();
    for &peer in &peers {
        missing.iter().for_each(|digest| send(parts, peer, PeerBody::ModuleWanted(*digest)));
    }
}

/// Waits until every other node is connected and has had its say about this node's actors, or until the grace is over.
pub(crate) async fn start_grace(parts: &Parts, grace: Duration) {
    let others = parts.cluster_view().layout().nodes.len() - 1;
    let all = async {
        loop {
            let settled = parts.settled.notified();
            if parts.peers().values().filter(|peer| peer.settled).count() >= others {
                return;
            }
            settled.await;
        }
    };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::info!("not all other nodes are there; writes are taken without them");
    }
}
