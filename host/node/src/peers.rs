//! Connections to the other nodes, as [`Links`](rejoin_core::node::links::Links) decides: dialling, hellos, routing.
//!
//! Each connection has a task that reads it and gives events to the links machine. The machine's outputs are carried
//! out under its lock, so that shards and catalog hear of peers in the order in which the machine decided. In reading
//! order: `run_links` (the task that dials and watches the time), `serve` (one connection), `handle_event` (the machine
//! and its outputs), `route` (messages to shards).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use rejoin_core::control::SAVE_AGAIN_US;
use rejoin_core::node::actors::announced;
use rejoin_core::node::links::{CloseReason, LinkEvent, LinkOutput};
use rejoin_core::node::route::{Route, route as route_of};
use rejoin_core::ring::RingEvent;
use rejoin_core::shard::event::Event;
use rejoin_proto::client::Reply;
use rejoin_proto::peer::{OpId, PeerBody, PeerEnvelope, PeerHello, PeerReady};
use rejoin_proto::{Address, ErrorCode, ErrorReply, Name, NodeId, PluginDigest, TenantId, codec};
use rejoin_wire::{Class, CloseCode, Closed, Connection, Endpoint, Error, Frame, SendError};

use crate::context::NodeContext;
use crate::control_files::DISKS_FILE;
use crate::drain;
use crate::frames::{CLOCK, HELLO, MESSAGE, READY, REBUILT, RELEASED, STOPPING, frame};
use crate::loops;
use crate::members;
use crate::messages::{CatalogRequest, InboxItem, RingRequest, ShardHandle, ShardMessage};
use crate::peer_table::Peers;
use crate::readiness;
use crate::requests::{NotTaken, Waiting, Weighed};
use crate::sizes;
use crate::view::NodeView;

/// Retry delay for the client of a forwarded request that finds too many of its tenant waiting, in milliseconds.
const FORWARDED_RETRY_MS: u32 = 100;
/// The most frames taken from a connection at once.
const MAX_FRAMES: usize = 512;
/// How often the addresses of peers are resolved, to reserve handshakes for them.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);

// Close codes of a connection between nodes.
const REFUSED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 1);
const REPLACED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 2);
const CUT: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 3);
const BEHIND: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 4);

/// Dials the peers that the machine asks for, each on the loop whose turn it is, and gives it the time and what shards
/// have to tell it.
pub(crate) async fn run_links(
    ctx: Arc<NodeContext>,
    endpoint: Endpoint,
    mut dials: mpsc::UnboundedReceiver<NodeId>,
    mut events: mpsc::UnboundedReceiver<LinkEvent>,
) {
    let mut dialling = JoinSet::new();
    let peers = ctx.view.borrow().peers_of(ctx.node);
    handle_event(&ctx, peers);
    loop {
        let wake = ctx.clock.instant(ctx.peers().next_wake_us());
        tokio::select! {
            biased;
            Some(event) = events.recv() => handle_event(&ctx, event),
            Some(peer) = dials.recv() => {
                let on = endpoint.runtime_for_peer();
                loops::spawn(&mut dialling, on.as_ref(), dial(ctx.clone(), endpoint.clone(), peer));
            }
            Some(_) = dialling.join_next(), if !dialling.is_empty() => {}
            () = ctx.redial.notified() => handle_event(&ctx, LinkEvent::Redial),
            // The machine has handled an event: compute its wake-up time again.
            () = ctx.links_changed.notified() => {}
            () = tokio::time::sleep_until(wake) => handle_event(&ctx, LinkEvent::Tick),
        }
    }
}

async fn dial(ctx: Arc<NodeContext>, endpoint: Endpoint, peer: NodeId) {
    let node = ctx.view.borrow().nodes.get(&peer).cloned();
    let Some(node) = node.filter(|_| !ctx.faults.is_cut(peer)) else {
        return handle_event(&ctx, LinkEvent::DialFailed(peer, None));
    };
    match endpoint.connect_peer_at(&node.address, &node.name).await {
        Ok(connection) => serve(&ctx, connection, node.name, true).await,
        Err(error) => {
            tracing::debug!(peer = %node.name, %error, "a peer could not be dialled");
            handle_event(&ctx, LinkEvent::DialFailed(peer, is_lasting(&error).then(|| error.to_string())));
        }
    }
}

/// Whether a dial error lasts until an operator does something: one of the two nodes does not accept the other's
/// identity or version.
fn is_lasting(error: &Error) -> bool {
    matches!(
        error,
        Error::Untrusted { .. }
            | Error::CertificateRefused { .. }
            | Error::WrongCluster { .. }
            | Error::WrongNode { .. }
            | Error::NotANode { .. }
            | Error::NoSuchProtocol { .. }
            | Error::Version { .. }
    )
}

/// The problem's source when a peer cannot be dialled.
fn dial_source(name: &Name) -> String {
    format!("dialling {name}")
}

/// Reserves handshakes for the peers at their addresses. Host names are resolved again every minute, and when a node
/// has another address.
pub(crate) async fn reserve_handshakes(ctx: Arc<NodeContext>, endpoint: Endpoint) {
    let mut view = ctx.view.clone();
    loop {
        let addresses = peer_addresses(&ctx, &view.borrow_and_update());
        let mut lookups = JoinSet::new();
        for address in addresses.clone() {
            let endpoint = endpoint.clone();
            lookups.spawn(async move { endpoint.resolve(&address).await });
        }
        // A host name that does not resolve has no reserved handshakes until the next round.
        let found = lookups.join_all().await;
        endpoint.expect_peers(found.into_iter().flatten().flatten());
        let moved = view.wait_for(|view| peer_addresses(&ctx, view) != addresses);
        // Whether something has moved, or the time is over: resolve again.
        let _ = tokio::time::timeout(RESOLVE_INTERVAL, moved).await;
    }
}

fn peer_addresses(ctx: &NodeContext, view: &NodeView) -> Vec<Address> {
    view.nodes.iter().filter(|(id, _)| **id != ctx.node).map(|(_, known)| known.address.clone()).collect()
}

/// Tells the machine that a connection is gone, however its task ends.
struct ConnectionGuard<'a> {
    ctx: &'a NodeContext,
    number: u64,
    connection: Connection,
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        // When the node stops, the task is dropped while the connection is still open.
        self.connection.close(CloseCode::SHUTDOWN, "the node is stopping");
        self.ctx.peers().open.remove(&self.number);
        let refusal = match self.connection.close_reason() {
            Some(Closed::ByPeer { code: REFUSED, reason }) => Some(reason),
            _ => None,
        };
        handle_event(self.ctx, LinkEvent::Closed(self.number, refusal));
    }
}

/// Serves a connection to a peer, dialled or accepted, until it ends.
pub(crate) async fn serve(ctx: &Arc<NodeContext>, connection: Connection, name: Name, dialled: bool) {
    let (peer, number) = (NodeId::from_name(&name), ctx.connection_numbers.fetch_add(1, Relaxed) + 1);
    ctx.peers().open.insert(number, connection.clone());
    let guard = ConnectionGuard { ctx, number, connection: connection.clone() };
    handle_event(ctx, LinkEvent::Connected { peer, name: name.clone(), connection: number, dialled });
    if ctx.faults.is_cut(peer) {
        return connection.close(CUT, "cut by an injected fault");
    }
    if let Err(why) = send_hello(ctx, &connection, peer).await {
        return tracing::debug!(peer = %name, why, "the hello could not be sent");
    }
    tokio::select! {
        biased;
        () = receive(ctx, &connection, peer, number) => {}
        () = members::receive(ctx, &connection, peer, number) => {}
    }
    tracing::info!(peer = %name, reason = ?connection.close_reason(), "disconnected");
    drop(guard);
}

/// Sends this node's hello, with the actors of all shards.
async fn send_hello(ctx: &NodeContext, connection: &Connection, peer: NodeId) -> Result<(), String> {
    let mut of_shards = Vec::new();
    for shard in &ctx.shards {
        let (answer, answered) = oneshot::channel();
        let _ = shard.messages.send(ShardMessage::Actors(answer));
        of_shards.push(answered.await.map_err(|_| "this node is stopping".to_owned())?);
    }
    let (now, catalog) = (ctx.clock.now(), ctx.catalog_digest.load(Relaxed));
    let hello = ctx.peers().links.hello(peer, now, catalog, announced(of_shards));
    let sent = connection.sender().send(Class::Control, HELLO, codec::encode(&hello).into()).await;
    sent.map_err(|error| error.to_string())
}

/// The classes of small messages.
const PROMPT: [Class; 2] = [Class::Control, Class::Request];

/// Receives until the connection ends. Large messages and bulk have readers of their own: the others do not wait while
/// the inbox of these is full.
async fn receive(ctx: &Arc<NodeContext>, connection: &Connection, peer: NodeId, number: u64) {
    tokio::join!(
        biased;
        receive_classes(ctx, connection, peer, number, &PROMPT),
        receive_classes(ctx, connection, peer, number, &[Class::Large]),
        receive_classes(ctx, connection, peer, number, &[Class::Bulk]),
    );
}

async fn receive_classes(
    ctx: &Arc<NodeContext>,
    connection: &Connection,
    peer: NodeId,
    number: u64,
    classes: &[Class],
) {
    let mut frames = Vec::with_capacity(MAX_FRAMES);
    let mut known = false;
    while connection.recv_batch_of(classes, &mut frames, MAX_FRAMES).await > 0 {
        for frame in frames.drain(..) {
            if let Err(why) = received(ctx, peer, number, &frame, &mut known).await {
                tracing::error!(peer = %ctx.peer_name(peer), why, "closing the connection");
                return connection.close(CloseCode::PROTOCOL, why);
            }
        }
    }
}

/// Handles one frame. `known`: the machine has accepted the peer's hello on this connection.
async fn received(
    ctx: &Arc<NodeContext>,
    peer: NodeId,
    number: u64,
    frame: &Frame,
    known: &mut bool,
) -> Result<(), &'static str> {
    match (frame.class, frame.id) {
        (Class::Control, HELLO) => {
            let hello = codec::decode::<PeerHello>(&frame.body).map_err(|_| "its hello cannot be decoded")?;
            handle_event(ctx, LinkEvent::Hello(number, hello));
        }
        (Class::Control, READY) => {
            let ready = codec::decode::<PeerReady>(&frame.body).map_err(|_| "its ready cannot be decoded")?;
            handle_event(ctx, LinkEvent::Ready(number, ready));
        }
        (Class::Control, REBUILT) => handle_event(ctx, LinkEvent::PeerRebuilt(number)),
        (Class::Control, CLOCK) => handle_event(ctx, LinkEvent::Clock(number, word(&frame.body)?)),
        (_, MESSAGE) => {
            *known = *known || ctx.peers().links.is_known(peer, number);
            if *known {
                let envelope = codec::decode::<PeerEnvelope>(&frame.body)
                    .map_err(|_| "it has sent a message that cannot be decoded")?;
                route(ctx, peer, envelope, frame).await;
            }
        }
        (Class::Control, STOPPING | RELEASED) if !ctx.peers().links.is_known(peer, number) => {}
        (Class::Control, STOPPING) => drain::peer_stopping(ctx, peer),
        (Class::Control, RELEASED) => drain::peer_released(ctx, peer),
        _ => return Err("it has sent a frame of an unknown kind"),
    }
    Ok(())
}

fn word(body: &[u8]) -> Result<u64, &'static str> {
    <[u8; 8]>::try_from(body).map(u64::from_le_bytes).map_err(|_| "it has sent a malformed control frame")
}

/// Gives the machine an event and carries out its outputs.
pub(crate) fn handle_event(ctx: &NodeContext, event: LinkEvent) {
    let mut outputs = Vec::new();
    let mut peers = ctx.peers();
    peers.links.handle(ctx.clock.now(), event, &mut outputs);
    outputs.into_iter().for_each(|output| apply(ctx, &mut peers, output));
    let barred = peers.links.why_not_serving().filter(|reason| reason.lasting).map(|reason| reason.why);
    ctx.barred.send_if_modified(|known| std::mem::replace(known, barred.clone()) != barred);
    if peers.save_again_at_us.is_some_and(|at| at <= ctx.clock.now().mono_us) {
        save_disk_ids(ctx, &mut peers);
    }
    drop(peers);
    ctx.links_changed.notify_one();
}

/// Saves the disk ids. On a full disk it is tried again later; a restart before that forgets only disks that were first
/// seen, or replaced, in between.
fn save_disk_ids(ctx: &NodeContext, peers: &mut Peers) {
    peers.save_again_at_us = None;
    match ctx.files.write(DISKS_FILE, &codec::encode(peers.links.disks())) {
        Ok(()) => ctx.problems.clear(DISKS_FILE),
        Err(error) if error.is_for_want_of_room() => {
            peers.save_again_at_us = Some(ctx.clock.now().mono_us + SAVE_AGAIN_US);
            let name = &ctx.config.name;
            ctx.problems.set(DISKS_FILE, format!("{name}: the ids of the peers' disks cannot be saved ({error})"));
        }
        Err(error) => {
            let _ = ctx.failures.send(format!("the ids of the peers' disks cannot be kept: {error}"));
        }
    }
}

fn apply(ctx: &NodeContext, peers: &mut Peers, output: LinkOutput) {
    match output {
        LinkOutput::Dial(peer) => drop(ctx.dials.send(peer)),
        LinkOutput::Close(number, reason) => {
            if let Some(connection) = peers.open.get(&number) {
                let (code, why) = close_code(reason);
                connection.close(code, &why);
            }
        }
        LinkOutput::SaveDisks => save_disk_ids(ctx, peers),
        LinkOutput::Replaced(_) => {
            ctx.report_replaced(peers.links.disks());
            ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Replaced)));
        }
        LinkOutput::PeerUp { peer, connection: number, actors, catalog } => {
            let Some(connection) = peers.open.get(&number).cloned() else { return };
            for (shard, actors) in ctx.shards.iter().zip(actors) {
                let _ = shard.messages.send(ShardMessage::PeerUp {
                    peer,
                    connection: number,
                    sender: connection.sender(),
                    actors,
                });
            }
            if ctx.stopping.initialized() {
                // This connection is newer than the news of the stop. If its queue is full, the peer learns it from the
                // close.
                let _ = connection.sender().try_send(Class::Control, STOPPING, Bytes::new());
            }
            peers.up.insert(peer, connection.clone());
            members::connected(ctx, peer, connection);
            let _ = ctx.catalog.send(CatalogRequest::PeerUp { peer, connection: number, digest: catalog });
            let name = ctx.peer_name(peer);
            tracing::info!(peer = %name, "connected");
            ctx.problems.clear(&dial_source(&name));
        }
        LinkOutput::PeerDown(peer) => {
            peers.up.remove(&peer);
            members::disconnected(ctx, peer);
            ctx.broadcast(|| ShardMessage::PeerDown(peer));
            let _ = ctx.catalog.send(CatalogRequest::PeerDown(peer));
        }
        LinkOutput::SendReady(number) => {
            let layouts = ctx.cluster_view().layouts().range();
            let ready = PeerReady { catalog: ctx.catalog_digest.load(Relaxed), layouts };
            send_control(peers, number, READY, codec::encode(&ready).into());
        }
        LinkOutput::Rebuilt => ctx.report_replaced(peers.links.disks()),
        LinkOutput::SendRebuilt(number) => send_control(peers, number, REBUILT, Bytes::new()),
        LinkOutput::SendClock(number) => send_word(peers, number, CLOCK, ctx.clock.now().wall_ms),
        LinkOutput::Clocks(lines) => match lines.is_empty() {
            true => ctx.problems.clear("clocks"),
            false => ctx.problems.set("clocks", lines.join("; ")),
        },
        LinkOutput::CorrectClock(ms) => ctx.broadcast(|| ShardMessage::Core(Box::new(Event::CorrectClock(ms)))),
        LinkOutput::CompareCatalog(peer, digest) => drop(ctx.catalog.send(CatalogRequest::PeerReady { peer, digest })),
        LinkOutput::Refused(peer, why) => {
            let name = ctx.peer_name(peer);
            if !ctx.view.borrow().is_member(peer) {
                // It is in no layout of this node, so it is no problem of this cluster.
                return tracing::warn!(why, "a node that is in no layout was refused");
            }
            ctx.problems
                .set(&format!("peer {name}"), format!("{} and {name} contradict each other: {why}", ctx.config.name));
        }
        LinkOutput::CannotConnect(peer, why) => {
            let name = ctx.peer_name(peer);
            ctx.problems.set(&dial_source(&name), format!("{} and {name} cannot connect: {why}", ctx.config.name));
        }
        LinkOutput::Reconciled(peer) => ctx.problems.clear(&format!("peer {}", ctx.peer_name(peer))),
        LinkOutput::Serve { met_all } => {
            if !met_all {
                tracing::warn!(
                    "not every node could be asked about this node's actors: it begins to serve with new actors for \
                        all partitions"
                );
            }
            ctx.broadcast(|| ShardMessage::Core(Box::new(Event::Serving { met_all })));
            // It is set only here, and the machine serves once.
            let _ = ctx.serving.set(());
        }
    }
}

fn send_word(peers: &Peers, number: u64, id: u64, word: u64) {
    send_control(peers, number, id, Bytes::copy_from_slice(&word.to_le_bytes()));
}

/// Sends a control frame, behind everything sent in that class before. A peer whose queue is full is disconnected.
fn send_control(peers: &Peers, number: u64, id: u64, body: Bytes) {
    if let Some(connection) = peers.open.get(&number)
        && connection.sender().try_send(Class::Control, id, body).is_err()
    {
        connection.close(BEHIND, "its send queue is full: it reads too slowly");
    }
}

fn close_code(reason: CloseReason) -> (CloseCode, String) {
    match reason {
        CloseReason::Refused(why) => (REFUSED, why),
        CloseReason::Replaced => (REPLACED, "a newer connection has replaced this one".into()),
        CloseReason::NoHello => (CloseCode::PROTOCOL, "it has sent no hello in time".into()),
    }
}

/// Injects a fault: cuts the connection to a peer, until [`Faults::heal`](crate::faults::Faults::heal).
pub(crate) fn cut(ctx: &NodeContext, peer: NodeId) {
    ctx.faults.cut(peer);
    if let Some(connection) = ctx.peers().up.get(&peer) {
        connection.close(CUT, "cut by an injected fault");
    }
}

/// Passes a message to its shard or task. Waits while the shard's inbox is full: meanwhile the frame's class is not
/// read, which slows the peer down.
async fn route(ctx: &Arc<NodeContext>, peer: NodeId, envelope: PeerEnvelope, frame: &Frame) {
    match route_of(&envelope.body, &ctx.cluster_view(), ctx.shard_count()) {
        Route::Shard(shard) => {
            let shard = &ctx.shards[usize::from(shard)];
            match &envelope.body {
                PeerBody::Forward(forward) => {
                    let (op, tenant) = (forward.op, forward.tenant);
                    take_forwarded(ctx, shard, peer, (op, tenant), (envelope, frame.body.len()));
                }
                _ => deliver(shard, peer, envelope, frame).await,
            }
        }
        Route::Ahead(shard) => {
            let _ =
                ctx.shards[usize::from(shard)].messages.send(ShardMessage::Core(Box::new(Event::Peer(peer, envelope))));
        }
        Route::All => {
            for shard in &ctx.shards {
                let event = Event::Peer(peer, envelope.clone());
                let _ = shard.messages.send(ShardMessage::Core(Box::new(event)));
            }
        }
        Route::Control => {
            let request = match envelope.body {
                PeerBody::Ring(message) => CatalogRequest::Ring(RingRequest::Event(RingEvent::Peer(peer, message))),
                body => CatalogRequest::Peer(peer, body),
            };
            let _ = ctx.catalog.send(request);
        }
        Route::Modules => handle_plugin(ctx, peer, envelope.body),
        Route::Sizes => sizes::handle(ctx, peer, envelope.body),
        Route::Nowhere => {}
    }
}

/// A forwarded request waits among the others of its tenant, as if the client had sent it here.
fn take_forwarded(
    ctx: &NodeContext,
    shard: &ShardHandle,
    from: NodeId,
    (op, tenant): (OpId, TenantId),
    (envelope, bytes): (PeerEnvelope, usize),
) {
    let of = Weighed { tenant, weight: ctx.cluster_view().weight(tenant) };
    let waiting = Waiting::Forwarded(from, Box::new(envelope));
    if let Err(NotTaken::Full(_)) = shard.requests.push(ctx.clock.now().mono_us, of, bytes, waiting) {
        ctx.metrics.overloaded.increment(1);
        let message = "too many requests are waiting at an owner of the key; nothing was done";
        let refusal = ErrorReply::new(ErrorCode::Overloaded, message).retry_after(FORWARDED_RETRY_MS);
        send(ctx, from, PeerBody::ForwardReply { op, reply: Reply::Error(refusal) });
    }
}

/// Passes a message to its shard.
async fn deliver(shard: &ShardHandle, peer: NodeId, envelope: PeerEnvelope, frame: &Frame) {
    let inbox = match frame.class {
        Class::Bulk => &shard.bulk,
        Class::Large => &shard.large,
        Class::Control | Class::Request => &shard.inbox,
    };
    if let Some(permit) = inbox.reserve(frame.body.len()).await {
        let _ = inbox.items.send(InboxItem::Peer(peer, envelope, permit)).await;
    }
}

fn handle_plugin(ctx: &Arc<NodeContext>, peer: NodeId, body: PeerBody) {
    match body {
        PeerBody::PluginAsk { number, digest } => {
            let state = readiness::own(ctx, &digest);
            send(ctx, peer, PeerBody::PluginAnswer { number, state });
        }
        PeerBody::PluginAnswer { number, state } => ctx.readiness.answered(number, peer, state),
        body => handle_module(ctx.clone(), peer, body),
    }
}

fn handle_module(ctx: Arc<NodeContext>, peer: NodeId, body: PeerBody) {
    tokio::spawn(async move {
        match body {
            PeerBody::ModuleWanted(digest) => {
                let bytes = ctx.plugins.bytes(&digest).await;
                send(&ctx, peer, PeerBody::Module { digest, bytes });
            }
            PeerBody::Module { digest, bytes: Some(bytes) } => ctx.plugins.fetched(digest, bytes).await,
            _ => {}
        }
    });
}

/// Sends a message that belongs to no shard. A lost catalog message would not be sent again on the same connection, so
/// if the peer's queue is full, the connection is closed: on the next one both sides compare their catalogs.
pub(crate) fn send(ctx: &NodeContext, peer: NodeId, body: PeerBody) {
    let is_catalog =
        matches!(body, PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. });
    let envelope = PeerEnvelope { layout: ctx.cluster_view().layout_name(), trace: 0, body };
    let Frame { class, id, body } = frame(&envelope);
    let peers = ctx.peers();
    if let Some(sender) = peers.sender(peer)
        && let Err(error) = sender.try_send(class, id, body)
    {
        if let Some(connection) = peers.up.get(&peer).filter(|_| is_catalog && matches!(error, SendError::Full(_))) {
            connection.close(BEHIND, "its send queue is full: it reads too slowly");
        }
        tracing::warn!(peer = %ctx.peer_name(peer), %error, "a message was not sent");
    }
}

/// Asks every connected peer for plugin modules that this node lacks.
pub(crate) fn ask_for_modules(ctx: &NodeContext, missing: &[PluginDigest]) {
    let peers: Vec<NodeId> = ctx.peers().up.keys().copied().collect();
    for &peer in &peers {
        missing.iter().for_each(|digest| send(ctx, peer, PeerBody::ModuleWanted(*digest)));
    }
}
