//! The other nodes: does what [`Links`](rejoin_core::node::links::Links) decides with real connections.
//!
//! A connection has a task that reads it. What it reads is told to the machine, and the machine's outputs are done
//! under its lock, so that shards and control hear of peers in the order in which the machine decided. In reading
//! order: `keep` (the task that dials and keeps time), `serve` (a connection), `step` (the machine and its outputs),
//! `route` (messages to shards).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use rejoin_core::control::SAVE_AGAIN_US;
use rejoin_core::node::links::{CloseReason, LinkEvent, LinkOutput, Links};
use rejoin_core::node::route::{Route, route as route_of};
use rejoin_core::shard::event::Event;
use rejoin_proto::peer::{PeerBody, PeerEnvelope, PeerHello};
use rejoin_proto::{Name, NodeId, PluginDigest, codec};
use rejoin_wire::{Class, CloseCode, Closed, Connection, Endpoint, Error, Frame, SendError, Sender};

use crate::catalog::ControlCall;
use crate::driver::{Notice, Work, frame};
use crate::leaving;
use crate::parts::Parts;

/// The name under which the disk ids are kept.
pub(crate) const DISKS_FILE: &str = "disks";

/// Frame ids between nodes, all but [`MESSAGE`] on the control class: the hello, a message, the word that all
/// objections to the other side's actors were sent before it, the sender's wall clock, the word that it is about to
/// stop, and the word that nothing more is asked of the one that is.
const HELLO: u64 = 0;
const MESSAGE: u64 = 1;
const READY: u64 = 2;
const CLOCK: u64 = 3;
pub(crate) const LEAVING: u64 = 4;
pub(crate) const LEFT: u64 = 5;

/// The most frames taken from a connection at once.
const FRAMES: usize = 512;
/// How often the addresses of peers are looked up, to keep places for their handshakes.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

/// The words with which a peer's connection is closed.
const REFUSED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 1);
const REPLACED: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 2);
const CUT: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 3);
const BEHIND: CloseCode = CloseCode(CloseCode::FIRST_FREE.0 + 4);

/// The connections to other nodes.
pub(crate) struct Peers {
    pub(crate) links: Links,
    /// Every connection with a task, by the number that the machine knows it by.
    open: BTreeMap<u64, Connection>,
    /// The peers that shards and control know of.
    up: BTreeMap<NodeId, Connection>,
    /// Why dialling a peer ends in a way that time alone does not change, in words that are the same for each attempt.
    undialled: BTreeMap<NodeId, String>,
    /// When the disk ids are to be saved again, if they could not be.
    remember_at_us: Option<u64>,
}

impl Peers {
    pub(crate) fn new(links: Links) -> Self {
        Self { links, open: BTreeMap::new(), up: BTreeMap::new(), undialled: BTreeMap::new(), remember_at_us: None }
    }

    fn next_wake_us(&self) -> u64 {
        self.links.next_wake_us().min(self.remember_at_us.unwrap_or(u64::MAX))
    }

    /// The peers that are up, with their connections.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&NodeId, &Connection)> + '_ {
        self.up.iter()
    }

    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        self.up.contains_key(&peer)
    }

    pub(crate) fn count(&self) -> usize {
        self.up.len()
    }

    fn sender(&self, peer: NodeId) -> Option<Sender> {
        self.up.get(&peer).map(Connection::sender)
    }
}

/// Dials when the machine says so, and tells it the time and what the shards have heard.
pub(crate) async fn keep(
    parts: Arc<Parts>,
    endpoint: Endpoint,
    mut orders: mpsc::UnboundedReceiver<NodeId>,
    mut heard: mpsc::UnboundedReceiver<u64>,
) {
    let mut dialling = JoinSet::new();
    step(&parts, LinkEvent::Tick);
    loop {
        let wake = parts.clock.instant(parts.peers().next_wake_us());
        tokio::select! {
            biased;
            Some(connection) = heard.recv() => step(&parts, LinkEvent::ActorsChecked(connection)),
            Some(peer) = orders.recv() => drop(dialling.spawn(dial(parts.clone(), endpoint.clone(), peer))),
            Some(_) = dialling.join_next(), if !dialling.is_empty() => {}
            () = parts.redial.notified() => step(&parts, LinkEvent::Redial),
            // Something has happened: the machine may want to be woken at another time.
            () = parts.links_changed.notified() => {}
            () = tokio::time::sleep_until(wake) => step(&parts, LinkEvent::Tick),
        }
    }
}

async fn dial(parts: Arc<Parts>, endpoint: Endpoint, peer: NodeId) {
    let node = parts.cluster_view().layout().node(peer).cloned();
    let Some(node) = node.filter(|_| !parts.faults.is_cut(peer)) else { return step(&parts, LinkEvent::DialFailed(peer)) };
    match endpoint.connect_peer_at(&node.address, &node.name).await {
        Ok(connection) => serve(&parts, connection, node.name, true).await,
        Err(error) => {
            tracing::debug!(peer = %node.name, %error, "not connected");
            report_undialled(&parts, peer, &node.name, &error);
            step(&parts, LinkEvent::DialFailed(peer));
        }
    }
}

/// A peer that answers and is not taken for itself, or does not take this node for itself, is a problem until it is
/// connected. It is dialled again and again, and said once for each reason: numbers in the text, such as for how long a
/// certificate has been out of date, are none.
fn report_undialled(parts: &Parts, peer: NodeId, name: &Name, error: &Error) {
    let lasting = matches!(
        error,
        Error::Untrusted { .. }
            | Error::CertificateRefused { .. }
            | Error::WrongCluster { .. }
            | Error::WrongNode { .. }
            | Error::NotANode { .. }
            | Error::NoSuchProtocol { .. }
            | Error::Version { .. }
    );
    if !lasting {
        return;
    }
    let text = error.to_string();
    let reason: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    let known = parts.peers().undialled.insert(peer, reason.clone());
    if known.as_ref() != Some(&reason) {
        parts.problems.set(&dialling(name), format!("{} and {name} cannot connect: {text}", parts.config.name));
    }
}

/// The source of the problem that a peer cannot be dialled.
fn dialling(name: &Name) -> String {
    format!("dialling {name}")
}

/// Keeps places for handshakes free for the peers, at the addresses of the layout. Host names are looked up again from
/// time to time.
pub(crate) async fn expect(parts: Arc<Parts>, endpoint: Endpoint) {
    loop {
        let view = parts.cluster_view();
        let mut lookups = JoinSet::new();
        for node in view.layout().nodes.iter().filter(|node| node.id != parts.node) {
            let (endpoint, address) = (endpoint.clone(), node.address.clone());
            lookups.spawn(async move { endpoint.resolve(&address).await });
        }
        // One that cannot be looked up now has no places of its own until the next time.
        let found = lookups.join_all().await;
        endpoint.expect_peers(found.into_iter().flatten().flatten());
        tokio::time::sleep(LOOK_UP_EVERY).await;
    }
}

/// A connection that the machine knows of. Dropped, however its task ends, the machine is told that it is gone.
struct Open<'a> {
    parts: &'a Parts,
    number: u64,
    connection: Connection,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // The task may be ended while its connection lives.
        self.connection.close(CloseCode::SHUTDOWN, "the node is stopping");
        self.parts.peers().open.remove(&self.number);
        let refusal = match self.connection.close_reason() {
            Some(Closed::ByPeer { code: REFUSED, reason }) => Some(reason),
            _ => None,
        };
        step(self.parts, LinkEvent::Closed(self.number, refusal));
    }
}

/// Serves a connection to a peer, dialled or accepted, until it ends.
pub(crate) async fn serve(parts: &Arc<Parts>, connection: Connection, name: Name, dialled: bool) {
    let (peer, number) = (NodeId::from_name(&name), parts.generations.fetch_add(1, Relaxed) + 1);
    parts.peers().open.insert(number, connection.clone());
    let open = Open { parts, number, connection: connection.clone() };
    step(parts, LinkEvent::Connected { peer, connection: number, dialled });
    if parts.faults.is_cut(peer) {
        return connection.close(CUT, "cut on purpose");
    }
    if let Err(why) = greet(parts, &connection, peer).await {
        return tracing::debug!(peer = %name, why, "a peer could not be greeted");
    }
    receive(parts, &connection, peer, number).await;
    tracing::info!(peer = %name, reason = ?connection.close_reason(), "disconnected");
    drop(open);
}

/// Sends this node's hello.
async fn greet(parts: &Parts, connection: &Connection, peer: NodeId) -> Result<(), String> {
    let mut actors = Vec::new();
    for shard in &parts.shards {
        let (answer, told) = oneshot::channel();
        let _ = shard.notices.send(Notice::Actors(answer));
        actors.extend(told.await.map_err(|_| "this node is stopping".to_owned())?);
    }
    let hello = parts.peers().links.hello(peer, parts.clock.now(), parts.catalog_digest.load(Relaxed), actors);
    let sent = connection.sender().send(Class::Control, HELLO, codec::encode(&hello).into()).await;
    sent.map_err(|error| error.to_string())
}

async fn receive(parts: &Arc<Parts>, connection: &Connection, peer: NodeId, number: u64) {
    let mut frames = Vec::with_capacity(FRAMES);
    let mut known = false;
    while connection.recv_batch(&mut frames, FRAMES).await > 0 {
        for frame in frames.drain(..) {
            if let Err(why) = received(parts, peer, number, &frame, &mut known).await {
                tracing::error!(peer = %parts.peer_name(peer), why, "closing the connection");
                return connection.close(CloseCode::PROTOCOL, why);
            }
        }
    }
}

/// Takes one frame. `known`: the machine has taken the peer's hello on this connection.
async fn received(parts: &Arc<Parts>, peer: NodeId, number: u64, frame: &Frame, known: &mut bool) -> Result<(), &'static str> {
    match (frame.class, frame.id) {
        (Class::Control, HELLO) => {
            let hello = codec::decode::<PeerHello>(&frame.body).map_err(|_| "its hello is none of this protocol")?;
            step(parts, LinkEvent::Hello(number, hello));
        }
        (Class::Control, READY) => {
            step(parts, LinkEvent::Ready(number, word(&frame.body)?));
        }
        (Class::Control, CLOCK) => step(parts, LinkEvent::Clock(number, word(&frame.body)?)),
        (_, MESSAGE) => {
            *known = *known || parts.peers().links.is_known(peer, number);
            if *known {
                let envelope = codec::decode::<PeerEnvelope>(&frame.body).map_err(|_| "it has sent what is no message")?;
                route(parts, peer, envelope, frame.body.len()).await;
            }
        }
        (Class::Control, LEAVING | LEFT) if !parts.peers().links.is_known(peer, number) => {}
        (Class::Control, LEAVING) => leaving::heard(parts, peer),
        (Class::Control, LEFT) => leaving::left(parts, peer),
        _ => return Err("it has sent a frame of no known kind"),
    }
    Ok(())
}

fn word(body: &[u8]) -> Result<u64, &'static str> {
    <[u8; 8]>::try_from(body).map(u64::from_le_bytes).map_err(|_| "it has sent a malformed control frame")
}

/// Tells the machine what has happened, and does what it asks for.
pub(crate) fn step(parts: &Parts, event: LinkEvent) {
    let mut outputs = Vec::new();
    let mut peers = parts.peers();
    peers.links.handle(parts.clock.now(), event, &mut outputs);
    outputs.into_iter().for_each(|output| act(parts, &mut peers, output));
    let barred = peers.links.why_not_serving().filter(|told| told.lasting).map(|told| told.why);
    parts.barred.send_if_modified(|known| std::mem::replace(known, barred.clone()) != barred);
    if peers.remember_at_us.is_some_and(|at| at <= parts.clock.now().mono_us) {
        remember(parts, &mut peers);
    }
    drop(peers);
    parts.links_changed.notify_one();
}

/// Saves what is known of disks. Without room for that it is tried again: a restart before then would only not know of
/// a disk that was first met, or replaced, meanwhile.
fn remember(parts: &Parts, peers: &mut Peers) {
    peers.remember_at_us = None;
    match parts.files.write(DISKS_FILE, &codec::encode(peers.links.disks())) {
        Ok(()) => parts.problems.clear(DISKS_FILE),
        Err(error) if error.is_for_want_of_room() => {
            peers.remember_at_us = Some(parts.clock.now().mono_us + SAVE_AGAIN_US);
            let name = &parts.config.name;
            parts.problems.set(DISKS_FILE, format!("{name}: the ids of the peers' disks cannot be saved ({error})"));
        }
        Err(error) => {
            let _ = parts.failures.send(format!("the ids of the peers' disks cannot be kept: {error}"));
        }
    }
}

fn act(parts: &Parts, peers: &mut Peers, output: LinkOutput) {
    match output {
        LinkOutput::Dial(peer) => drop(parts.dials.send(peer)),
        LinkOutput::Close(number, closing) => {
            if let Some(connection) = peers.open.get(&number) {
                let (code, why) = closing_words(closing);
                connection.close(code, &why);
            }
        }
        LinkOutput::SaveDisks => remember(parts, peers),
        LinkOutput::Replaced(by) => {
            parts.report_replaced(&by);
            parts.tell_all(|| Notice::Event(Box::new(Event::Replaced)));
        }
        LinkOutput::PeerUp { peer, connection: number, actors, catalog } => {
            let Some(connection) = peers.open.get(&number).cloned() else { return };
            for (shard, actors) in parts.shards.iter().zip(actors) {
                let _ = shard.notices.send(Notice::PeerUp { peer, connection: number, sender: connection.sender(), actors });
            }
            if parts.leaving.initialized() {
                // A connection that is newer than the word. A full queue is no matter: the peer finds out by the end.
                let _ = connection.sender().try_send(Class::Control, LEAVING, Bytes::new());
            }
            peers.up.insert(peer, connection);
            let _ = parts.control.send(ControlCall::PeerUp(peer, number, catalog));
            let name = parts.peer_name(peer);
            tracing::info!(peer = %name, "connected");
            if peers.undialled.remove(&peer).is_some() {
                parts.problems.clear(&dialling(&name));
            }
        }
        LinkOutput::PeerDown(peer) => {
            peers.up.remove(&peer);
            parts.tell_all(|| Notice::PeerDown(peer));
            let _ = parts.control.send(ControlCall::PeerDown(peer));
        }
        LinkOutput::SendReady(number) => {
            say(peers, number, READY, parts.catalog_digest.load(Relaxed));
        }
        LinkOutput::SendClock(number) => say(peers, number, CLOCK, parts.clock.now().wall_ms),
        LinkOutput::Clocks(lines) => match lines.is_empty() {
            true => parts.problems.clear("clocks"),
            false => parts.problems.set("clocks", lines.join("; ")),
        },
        LinkOutput::CompareCatalog(peer, digest) => drop(parts.control.send(ControlCall::PeerReady(peer, digest))),
        LinkOutput::Refused(peer, why) => {
            let name = parts.peer_name(peer);
            if parts.cluster_view().layout().node(peer).is_none() {
                // Not this node's trouble: whoever should be here shows it.
                return tracing::warn!(why, "a node is refused");
            }
            parts.problems.set(&format!("peer {name}"), format!("{} and {name} contradict each other: {why}", parts.config.name));
        }
        LinkOutput::Reconciled(peer) => parts.problems.clear(&format!("peer {}", parts.peer_name(peer))),
        LinkOutput::Serve { met_all } => {
            if !met_all {
                tracing::warn!("not every other node could be asked: this node takes new actors for all its partitions");
            }
            parts.tell_all(|| Notice::Event(Box::new(Event::Serving { met_all })));
            // Nobody else sets it.
            let _ = parts.serving.set(());
        }
    }
}

/// Sends a word on the control stream, behind everything that was sent on it so far. A peer that does not take it is
/// let go.
fn say(peers: &Peers, number: u64, id: u64, word: u64) {
    if let Some(connection) = peers.open.get(&number)
        && connection.sender().try_send(Class::Control, id, Bytes::copy_from_slice(&word.to_le_bytes())).is_err()
    {
        connection.close(BEHIND, "it does not take what it is sent");
    }
}

fn closing_words(closing: CloseReason) -> (CloseCode, String) {
    match closing {
        CloseReason::Refused(why) => (REFUSED, why),
        CloseReason::Replaced => (REPLACED, "a newer connection has taken its place".into()),
        CloseReason::NoHello => (CloseCode::PROTOCOL, "no hello".into()),
    }
}

/// Cuts the connection to a peer, and keeps it cut until [`Faults::heal`](crate::faults::Faults::heal).
pub(crate) fn cut(parts: &Parts, peer: NodeId) {
    parts.faults.cut(peer);
    if let Some(connection) = parts.peers().up.get(&peer) {
        connection.close(CUT, "cut on purpose");
    }
}

/// Hands a message of so many bytes to whom it is for. Waits while that shard's inbox is full: then this connection is
/// not read, and the peer is held back.
async fn route(parts: &Arc<Parts>, peer: NodeId, envelope: PeerEnvelope, bytes: usize) {
    let shards = u16::try_from(parts.shards.len()).unwrap_or(1);
    match route_of(&envelope.body, &parts.cluster_view(), shards) {
        Route::Shard(shard) => {
            let shard = &parts.shards[usize::from(shard)];
            if let Some(room) = shard.room(bytes).await {
                let _ = shard.inbox.send(Work::Peer(peer, envelope, room)).await;
            }
        }
        Route::Ahead(shard) => {
            let _ = parts.shards[usize::from(shard)].notices.send(Notice::Event(Box::new(Event::Peer(peer, envelope))));
        }
        Route::Control => drop(parts.control.send(ControlCall::Peer(peer, envelope.body))),
        Route::Modules => module(parts, peer, envelope.body),
        Route::Nowhere => {}
    }
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

/// Sends a message that belongs to no shard. One about the catalog that is lost on a connection that goes on would not
/// be sent again, so if the peer does not take it, the connection is begun anew: then both sides compare what they
/// know.
pub(crate) fn send(parts: &Parts, peer: NodeId, body: PeerBody) {
    let is_catalog = matches!(body, PeerBody::CatalogSummary(_) | PeerBody::CatalogRecords { .. } | PeerBody::CatalogTaken { .. });
    let envelope = PeerEnvelope { layout: parts.cluster_view().layout_name(), trace: 0, body };
    let Frame { class, id, body } = frame(&envelope);
    let peers = parts.peers();
    if let Some(sender) = peers.sender(peer)
        && let Err(error) = sender.try_send(class, id, body)
    {
        if let Some(connection) = peers.up.get(&peer).filter(|_| is_catalog && matches!(error, SendError::Full(_))) {
            connection.close(BEHIND, "it does not take what it is sent");
        }
        tracing::warn!(peer = %parts.peer_name(peer), %error, "a message was not sent");
    }
}

/// Asks every connected peer for modules that this node lacks.
pub(crate) fn ask_for_modules(parts: &Parts, missing: &[PluginDigest]) {
    let peers: Vec<NodeId> = parts.peers().up.keys().copied().collect();
    for &peer in &peers {
        missing.iter().for_each(|digest| send(parts, peer, PeerBody::ModuleWanted(*digest)));
    }
}
