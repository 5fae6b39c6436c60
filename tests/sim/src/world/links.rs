//! Connections between nodes: handshakes that succeed or time out, messages under way, idle time-outs. The product's
//! own [`Links`](rejoin_core::node::links::Links) decides what a node does about them.

use rejoin_core::control::CatalogEvent;
use rejoin_core::members::MemberEvent;
use rejoin_core::node::actors::announced;
use rejoin_core::node::batch::Input;
use rejoin_core::node::links::{CloseReason, LinkEvent, LinkOutput};
use rejoin_core::node::route::{Route, route};
use rejoin_core::ring::RingEvent;
use rejoin_core::shard::event::Event;
use rejoin_proto::peer::{ActorNext, PeerBody, PeerEnvelope, PeerReady};

use super::node::Open;
use super::{Occurrence, Parcel, World};
use crate::history::NodeIndex;
use crate::network::Passage;
use crate::options::{MS, SECOND};

/// How long a handshake may take.
const HANDSHAKE_US: u64 = 5 * SECOND;
/// The pause before a first datagram is sent again; each further pause is twice as long.
const RESEND_US: u64 = 120 * MS;
/// A peer that does not know a connection resets it within this time of the first packet.
const RESET_US: u64 = 100 * MS;

impl World {
    /// The connection to a peer that the shards and the catalog of `at` know, 0 if none.
    pub(super) fn held(&self, at: NodeIndex, peer: NodeIndex) -> u32 {
        let running = self.nodes[usize::from(at)].running.as_ref();
        running
            .and_then(|running| running.links.connection(self.keys.node(peer)))
            .map_or(0, |connection| connection as u32)
    }

    /// Sends something over a connection.
    pub(super) fn post_parcel(
        &mut self,
        from: NodeIndex,
        to: NodeIndex,
        connection: u32,
        parcel: Parcel,
        ordered: bool,
    ) {
        if ordered {
            // The control stream loses nothing while its connection lives; during a cut its messages wait.
            let at_us = self.network.in_order(self.now_us, from, to);
            return self.plan_parcel(at_us, from, to, connection, parcel);
        }
        let Parcel::Message(envelope) = parcel else { return };
        match self.network.passage(self.now_us, from, to, &envelope.body) {
            Passage::Arrives { at_us, again_us } => {
                if let Some(again_us) = again_us {
                    self.plan_parcel(again_us, from, to, connection, Parcel::Message(envelope.clone()));
                }
                self.plan_parcel(at_us, from, to, connection, Parcel::Message(envelope));
            }
            Passage::Waits => self.network.link(from, to).parked.push((connection, envelope)),
            Passage::Lost => {}
        }
    }

    fn plan_parcel(&mut self, at_us: u64, from: NodeIndex, to: NodeIndex, connection: u32, parcel: Parcel) {
        self.network.under_way += 1;
        self.plan_at(at_us, Occurrence::Parcel { from, to, connection, parcel });
    }

    pub(super) fn parcel_arrived(&mut self, from: NodeIndex, to: NodeIndex, connection: u32, parcel: Parcel) {
        self.network.under_way -= 1;
        let Some(running) = &self.nodes[usize::from(to)].running else { return };
        let ordered = !matches!(&parcel, Parcel::Message(envelope) if !super::batch::is_control(&envelope.body));
        if self.network.is_cut(from, to) && ordered {
            // Sent again until it arrives or either side closes the connection.
            let sender = self.nodes[usize::from(from)].running.as_ref();
            if !sender.is_some_and(|running| running.open.contains_key(&connection)) {
                return;
            }
            let at_us = self.network.in_order(self.now_us + RESET_US, from, to);
            return self.plan_parcel(at_us, from, to, connection, parcel);
        }
        let (open, number) = (running.open.contains_key(&connection), u64::from(connection));
        let current = running.links.is_known(self.keys.node(from), number);
        match parcel {
            Parcel::Hello(hello) if open => self.link_event(to, LinkEvent::Hello(number, *hello)),
            Parcel::Ready(ready) if open => self.link_event(to, LinkEvent::Ready(number, ready)),
            Parcel::Rebuilt if open => self.link_event(to, LinkEvent::PeerRebuilt(number)),
            Parcel::Clock(wall_ms) if open => self.link_event(to, LinkEvent::Clock(number, wall_ms)),
            Parcel::Leaving if open => self.peer_leaves(to, from, connection),
            Parcel::Left if open => self.peer_has_left(to, connection),
            Parcel::Closed(refusal) if open => {
                self.connection_ended(to, connection, refusal, "the other side has closed it")
            }
            Parcel::Message(envelope) if (open && current) || self.network.lets_ghosts_through(&envelope.body) => {
                self.message_arrived(to, from, *envelope);
            }
            _ => {}
        }
    }

    /// Routes a message within the node.
    fn message_arrived(&mut self, at: NodeIndex, from: NodeIndex, envelope: PeerEnvelope) {
        let envelope = if self.options.encoded { recoded(&envelope) } else { envelope };
        let peer = self.keys.node(from);
        if let PeerBody::Ring(message) = envelope.body {
            return self.ring_event(at, RingEvent::Peer(peer, message));
        }
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        match route(&envelope.body, &running.view, self.options.shards) {
            Route::Shard(shard) => self.work(at, shard, Event::Peer(peer, envelope)),
            Route::Ahead(shard) => self.tell(at, shard, Event::Peer(peer, envelope)),
            Route::All => self.tell_all(at, &Event::Peer(peer, envelope)),
            Route::Control => self.tell_control(at, CatalogEvent::Peer(peer, envelope.body), None),
            Route::Modules | Route::Sizes | Route::Nowhere => {}
        }
    }

    /// The actors that a node announces.
    pub(super) fn actors(&self, at: NodeIndex) -> Vec<ActorNext> {
        let running = self.nodes[usize::from(at)].running.as_ref();
        running
            .map(|running| running.shards.iter().flat_map(|task| task.batch.shard().actors()).collect())
            .unwrap_or_default()
    }

    /// Hands an event to a node's links, and carries out their outputs.
    pub(super) fn link_event(&mut self, at: NodeIndex, event: LinkEvent) {
        let now = self.clock(at);
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let mut outputs = Vec::new();
        running.links.handle(now, event, &mut outputs);
        for output in outputs {
            self.link_output(at, output);
        }
        self.want_links_wake(at);
    }

    /// Plans the next look of the links.
    fn want_links_wake(&mut self, at: NodeIndex) {
        let node = &mut self.nodes[usize::from(at)];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let due_us = running.links.next_wake_us();
        if due_us < running.links_wake_us {
            running.links_wake_us = due_us;
            self.plan_at(due_us.max(1) - 1, Occurrence::Links { node: at, life });
        }
    }

    pub(super) fn links_due(&mut self, at: NodeIndex) {
        if let Some(running) = &mut self.nodes[usize::from(at)].running {
            running.links_wake_us = u64::MAX;
        }
        self.link_event(at, LinkEvent::Tick);
    }

    fn link_output(&mut self, at: NodeIndex, output: LinkOutput) {
        match output {
            LinkOutput::Dial(peer) => {
                let (to, connection) = (self.keys.index(peer), self.network.next_generation());
                self.note(at, || format!("dials n{to} as c{connection}"));
                let life = self.nodes[usize::from(at)].life;
                let dialling = Dialling {
                    from: at,
                    life,
                    to,
                    connection,
                    until_us: self.now_us + HANDSHAKE_US,
                    resend_us: RESEND_US,
                };
                self.network.under_way += 1;
                self.dialling(dialling);
            }
            LinkOutput::Close(connection, closing) => self.close_connection(at, connection as u32, closing),
            LinkOutput::SaveDisks => {
                let node = &mut self.nodes[usize::from(at)];
                node.ids = node.running.as_ref().map(|running| running.links.disks().clone());
            }
            LinkOutput::Replaced(by) => {
                self.note(at, || format!("learns from {by} that its disk was WIPED"));
                self.recorder.mark("replaced disk known");
                let now_us = self.now_us;
                for loss in self
                    .recorder
                    .run
                    .losses
                    .iter_mut()
                    .filter(|loss| loss.node == at && loss.wiped && loss.known_us.is_none())
                {
                    loss.known_us = Some(now_us);
                }
                self.tell_all(at, &Event::Replaced);
            }
            LinkOutput::PeerUp { peer, connection, actors, catalog } => {
                let other = self.keys.index(peer);
                self.note(at, || {
                    format!("connected to n{other} as c{connection}, whose actors are {}", counters(&actors))
                });
                for (shard, actors) in (0..).zip(actors) {
                    self.input(at, shard, Input::PeerUp { peer, connection, actors });
                }
                self.member_event(at, MemberEvent::LinkUp(peer));
                self.tell_control(at, CatalogEvent::PeerUp(peer, catalog), Some(connection as u32));
                self.ring_event(at, RingEvent::PeerUp(peer));
            }
            LinkOutput::PeerDown(peer) => {
                self.tell_all(at, &Event::PeerDown(peer));
                self.member_event(at, MemberEvent::LinkDown(peer));
                self.tell_control(at, CatalogEvent::PeerDown(peer), None);
                self.ring_event(at, RingEvent::PeerDown(peer));
            }
            LinkOutput::SendReady(connection) => {
                let Some(running) = &self.nodes[usize::from(at)].running else { return };
                let (catalog, connection) = (running.control.control.digest(), connection as u32);
                let ready = PeerReady { catalog, layouts: running.view.layouts().range() };
                if let Some(peer) = running.open.get(&connection).map(|open| open.peer) {
                    self.post_parcel(at, peer, connection, Parcel::Ready(ready), true);
                }
            }
            LinkOutput::Rebuilt => {
                self.note(at, || "is rebuilt".into());
                self.recorder.mark("node rebuilt");
            }
            LinkOutput::SendRebuilt(connection) => {
                let connection = connection as u32;
                let Some(running) = &self.nodes[usize::from(at)].running else { return };
                if let Some(peer) = running.open.get(&connection).map(|open| open.peer) {
                    self.post_parcel(at, peer, connection, Parcel::Rebuilt, true);
                }
            }
            LinkOutput::SendClock(connection) => {
                let (wall_ms, connection) = (self.wall_ms(at), connection as u32);
                let Some(running) = &self.nodes[usize::from(at)].running else { return };
                if let Some(peer) = running.open.get(&connection).map(|open| open.peer) {
                    self.post_parcel(at, peer, connection, Parcel::Clock(wall_ms), true);
                }
            }
            LinkOutput::Clocks(lines) => {
                if !lines.is_empty() {
                    self.recorder.mark("wrong clock told");
                    self.note(at, || lines.join("; "));
                }
            }
            LinkOutput::CorrectClock(ms) => {
                self.recorder.mark("wall clock corrected");
                self.tell_all(at, &Event::CorrectClock(ms));
            }
            LinkOutput::CompareCatalog(peer, digest) => {
                self.tell_control(at, CatalogEvent::PeerReady(peer, digest), None)
            }
            LinkOutput::Refused(_, why) => panic!("equal nodes refuse each other: {why}"),
            LinkOutput::CannotConnect(_, why) => panic!("dials fail here only while the peer is away: {why}"),
            LinkOutput::Reconciled(_) => {}
            LinkOutput::Serve { met_all } => {
                self.recorder.mark(if met_all { "served when all were met" } else { "served without all" });
                self.note(at, || format!("serves, all met: {met_all}"));
                if let Some(running) = &mut self.nodes[usize::from(at)].running {
                    running.met_all = met_all;
                }
                self.tell_all(at, &Event::Serving { met_all });
            }
        }
    }

    /// One attempt of a datagram to begin a connection.
    pub(super) fn dialling(&mut self, dialling: Dialling) {
        let Dialling { from, life, to, connection, until_us, resend_us } = dialling;
        if !self.lives(from, life) {
            self.network.under_way -= 1;
            return;
        }
        let whole = !self.network.is_cut(from, to) && !self.network.is_cut(to, from);
        if whole && self.nodes[usize::from(to)].running.is_some() {
            let (there_us, back_us) = (self.network.one_way_us(), self.network.one_way_us());
            let made = Occurrence::Connected { node: from, life, peer: to, connection, dialled: true };
            return self.plan_in(there_us + back_us, made);
        }
        if self.now_us >= until_us {
            self.network.under_way -= 1;
            return self.link_event(from, LinkEvent::DialFailed(self.keys.node(to), None));
        }
        let at_us = (self.now_us + resend_us).min(until_us);
        self.plan_at(at_us, Occurrence::Dialling(Dialling { resend_us: 2 * resend_us, ..dialling }));
    }

    /// An end of a connection has come about: it says its hello.
    pub(super) fn connected(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32, dialled: bool) {
        if dialled {
            // The other end is done with the handshake when it has this end's last words of it, ahead of the hello.
            let (at_us, life) = (self.network.in_order(self.now_us, at, peer), self.nodes[usize::from(peer)].life);
            self.network.under_way += 1;
            self.plan_at(at_us, Occurrence::Connected { node: peer, life, peer: at, connection, dialled: false });
        }
        let (id, now, now_us) = (self.keys.node(peer), self.clock(at), self.now_us);
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        running.open.insert(connection, Open { peer, heard_us: now_us });
        let name = self.keys.of(peer).name.clone();
        let connection_number = u64::from(connection);
        self.link_event(at, LinkEvent::Connected { peer: id, name, connection: connection_number, dialled });
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        let shards = running.shards.iter().map(|task| task.batch.shard());
        let actors = announced(shards.map(|shard| (shard.partition_bits(), shard.actors())).collect());
        let hello = running.links.hello(id, now, running.control.control.digest(), actors);
        self.post_parcel(at, peer, connection, Parcel::Hello(Box::new(hello)), true);
    }

    /// A node closes a connection: the other side hears of it.
    fn close_connection(&mut self, at: NodeIndex, connection: u32, closing: CloseReason) {
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        if let Some(open) = running.open.remove(&connection) {
            self.note(at, || format!("closes c{connection} to n{}: {closing:?}", open.peer));
            let refusal = match closing {
                CloseReason::Refused(why) => Some(why),
                _ => None,
            };
            self.post_parcel(at, open.peer, connection, Parcel::Closed(refusal), true);
        }
    }

    /// Resets the connection of two nodes: the other side hears of it.
    pub(super) fn reset(&mut self, at: NodeIndex, peer: NodeIndex) {
        let connection = self.held(at, peer);
        if connection != 0 {
            self.post_parcel(at, peer, connection, Parcel::Closed(None), true);
            self.connection_ended(at, connection, None, "reset");
        }
    }

    fn connection_ended(&mut self, at: NodeIndex, connection: u32, refusal: Option<String>, why: &str) {
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let Some(open) = running.open.remove(&connection) else { return };
        self.note(at, || format!("c{connection} to n{} has ended: {why}", open.peer));
        self.link_event(at, LinkEvent::Closed(u64::from(connection), refusal));
    }

    /// Every node looks at its connections and gives up those that are dead.
    pub(super) fn look_at_connections(&mut self) {
        let idle_us = self.network.idle_us();
        self.plan_in((idle_us / 4).max(50 * MS), Occurrence::Connections);
        for at in 0..self.options.nodes {
            let running = self.nodes[usize::from(at)].running.as_ref();
            let open: Vec<(u32, NodeIndex)> = running
                .map(|running| running.open.iter().map(|(number, open)| (*number, open.peer)).collect())
                .unwrap_or_default();
            for (connection, peer) in open {
                self.look_at_connection(at, peer, connection, idle_us);
            }
        }
    }

    fn look_at_connection(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32, idle_us: u64) {
        let other = self.nodes[usize::from(peer)].running.as_ref();
        let (there, known) = (other.is_some(), other.is_some_and(|running| running.open.contains_key(&connection)));
        let (whole, now_us) = (!self.network.is_cut(peer, at), self.now_us);
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let Some(open) = running.open.get_mut(&connection) else { return };
        if there && whole && known {
            open.heard_us = now_us;
        }
        let silent_us = now_us - open.heard_us;
        if there && whole && !known && silent_us >= RESET_US {
            self.connection_ended(at, connection, None, "the peer does not know the connection");
        } else if silent_us >= idle_us {
            self.connection_ended(at, connection, None, "nothing was heard of it");
        }
    }
}

/// A connection that is being dialled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialling {
    pub(super) from: NodeIndex,
    pub(super) life: u32,
    pub(super) to: NodeIndex,
    pub(super) connection: u32,
    pub(super) until_us: u64,
    /// The pause until the next datagram.
    pub(super) resend_us: u64,
}

/// What a message is after its encoding.
fn recoded(envelope: &PeerEnvelope) -> PeerEnvelope {
    let decoded =
        rejoin_proto::codec::decode(&rejoin_proto::codec::encode(envelope)).expect("what is sent can be read");
    assert_eq!(*envelope, decoded, "a message is the same after its encoding");
    decoded
}

fn counters(actors: &[Vec<ActorNext>]) -> String {
    let one = |actor: &ActorNext| format!("p{}:{:04x}<{}", actor.partition, actor.actor.0 >> 48, actor.next);
    format!("[{}]", actors.iter().flatten().map(one).collect::<Vec<_>>().join(" "))
}
