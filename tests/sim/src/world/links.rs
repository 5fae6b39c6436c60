//! Connections between nodes, as the real node's peers task keeps them (`host/node/src/peers.rs`): dialled by the lower id, begun with a hello
//! each way that announces the actors, registered with the shards, and *ready* behind whatever the shards have to object.

use rejoin_core::shard::event::Event;
use rejoin_core::view::shard_of;
use rejoin_proto::peer::{ActorNext, DataRequest, PeerBody, PeerEnvelope};

use super::node::Notice;
use super::{Occurrence, Parcel, World};
use crate::history::NodeIndex;
use crate::keys::tenant;
use crate::network::Passage;
use crate::options::{MS, SECOND};

/// How long a handshake may take before another is begun.
const HANDSHAKE_US: u64 = SECOND;
/// A peer that holds no such connection resets it within that time of the first packet.
const RESET_US: u64 = 100 * MS;

impl World {
    /// Sends something over a connection.
    pub(super) fn post_parcel(&mut self, from: NodeIndex, to: NodeIndex, connection: u32, parcel: Parcel, ordered: bool) {
        if ordered {
            // The control stream loses nothing while its connection lives; what is cut comes when the link is whole.
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
        if self.nodes[usize::from(to)].running.is_none() {
            return;
        }
        if self.network.is_cut(from, to) && !matches!(parcel, Parcel::Message(_)) {
            // Sent again until it comes through or the connection is given up.
            return self.plan_parcel(self.now_us + RESET_US, from, to, connection, parcel);
        }
        let held = self.network.held(to, from) == connection;
        match parcel {
            Parcel::Hello(actors) if connection > self.network.held(to, from) => self.hello_arrived(to, from, connection, actors),
            Parcel::Message(envelope) if held || self.network.lets_ghosts_through(&envelope.body) => {
                self.message_arrived(to, from, *envelope)
            }
            Parcel::Ready if held => self.ready_arrived(to, from),
            Parcel::Closed if held => self.disconnect(to, from, "the other side has closed it"),
            _ => {}
        }
    }

    /// Hands a message to the shard that it is for.
    fn message_arrived(&mut self, at: NodeIndex, from: NodeIndex, envelope: PeerEnvelope) {
        let envelope = if self.options.encoded { recoded(&envelope) } else { envelope };
        let shard = match &envelope.body {
            PeerBody::Forward(forward) => {
                let (bucket, key) = match &forward.request {
                    DataRequest::Get(get) => (&get.bucket, &get.key),
                    DataRequest::Put(put) => (&put.bucket, &put.key),
                };
                self.view.target(tenant(), bucket, key).map_or(0, |target| self.keys.shard_of(&target.object))
            }
            PeerBody::Read { object, .. } => self.keys.shard_of(object),
            PeerBody::Replicate(message) => self.keys.shard_of(&message.object),
            PeerBody::ForwardReply { op, .. } | PeerBody::ReadReply { op, .. } | PeerBody::Replicated { op, .. } => op.shard,
            PeerBody::Observed { actor, .. } => {
                let shard = self.keys.shard_of_partition(actor.partition);
                let peer = self.keys.node(from);
                return self.tell(at, shard, Event::Peer(peer, envelope));
            }
            _ => return,
        };
        let peer = self.keys.node(from);
        self.work(at, shard, Event::Peer(peer, envelope));
    }

    /// Begins a connection, if the link lets it through.
    pub(super) fn dial(&mut self, a: NodeIndex, b: NodeIndex) {
        let runs = |world: &Self, node: NodeIndex| world.nodes[usize::from(node)].running.is_some();
        if !runs(self, a) || !runs(self, b) || self.network.is_cut(a, b) || self.network.is_cut(b, a) {
            return;
        }
        self.network.link(a, b).dialled_us = self.now_us;
        let connection = self.network.next_generation();
        for (from, to) in [(a, b), (b, a)] {
            let parcel = Parcel::Hello(self.actors(from));
            self.post_parcel(from, to, connection, parcel, true);
        }
    }

    /// What a node announces.
    pub(super) fn actors(&self, at: NodeIndex) -> Vec<ActorNext> {
        let running = self.nodes[usize::from(at)].running.as_ref();
        running.map(|running| running.shards.iter().flat_map(|post| post.shard.actors()).collect()).unwrap_or_default()
    }

    /// Registers a connection, in place of an older one to that peer.
    fn hello_arrived(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32, actors: Vec<ActorNext>) {
        if self.network.held(at, peer) != 0 {
            self.disconnect(at, peer, "a newer connection has taken its place");
        }
        let now_us = self.now_us;
        let link = self.network.link(peer, at);
        (link.held, link.heard_us) = (connection, now_us);
        self.network.link(at, peer).dialled_us = 0;
        let shards = self.options.shards;
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        running.hearing[usize::from(peer)] = (connection, shards);
        self.note(at, || format!("connected to n{peer}, whose actors are {}", counters(&actors)));
        let mut by_shard = vec![Vec::new(); usize::from(shards)];
        for actor in actors {
            by_shard[usize::from(shard_of(actor.partition, self.options.partitions, shards))].push(actor);
        }
        for (shard, actors) in (0..).zip(by_shard) {
            self.notify(at, shard, Notice::PeerUp { peer, connection, actors });
        }
    }

    /// A shard has looked at a peer's actors, and its batch is written: when all have, the peer is told.
    pub(super) fn hello_heard(&mut self, at: NodeIndex, peer: NodeIndex, connection: u32) {
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let (of, left) = &mut running.hearing[usize::from(peer)];
        if *of == connection {
            *left = left.saturating_sub(1);
            if *left == 0 && self.network.held(at, peer) == connection {
                self.post_parcel(at, peer, connection, Parcel::Ready, true);
            }
        }
    }

    fn ready_arrived(&mut self, at: NodeIndex, peer: NodeIndex) {
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        running.settled[usize::from(peer)] = true;
        if running.settled.iter().filter(|settled| **settled).count() + 1 >= usize::from(self.options.nodes) {
            self.serve(at, "all peers have had their say");
        }
    }

    /// A node gives up its connection to a peer.
    pub(super) fn disconnect(&mut self, at: NodeIndex, peer: NodeIndex, why: &str) {
        let link = self.network.link(peer, at);
        if std::mem::take(&mut link.held) == 0 {
            return;
        }
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        running.settled[usize::from(peer)] = false;
        self.note(at, || format!("disconnected from n{peer}: {why}"));
        let id = self.keys.node(peer);
        self.tell_all(at, &Event::PeerDown(id));
    }

    /// Closes a connection on purpose: the other side hears of it.
    pub(super) fn close(&mut self, at: NodeIndex, peer: NodeIndex, why: &str) {
        let connection = self.network.held(at, peer);
        if connection != 0 {
            self.post_parcel(at, peer, connection, Parcel::Closed, true);
            self.disconnect(at, peer, why);
        }
    }

    /// Every node looks at its connections: gives up those that are dead, and dials those that are its to dial.
    pub(super) fn look_at_connections(&mut self) {
        let idle_us = self.network.idle_us();
        self.plan_in((idle_us / 4).max(50 * MS), Occurrence::Connections);
        for at in 0..self.options.nodes {
            for peer in (0..self.options.nodes).filter(|peer| *peer != at) {
                if self.nodes[usize::from(at)].running.is_some() {
                    self.look_at_connection(at, peer, idle_us);
                }
            }
        }
    }

    fn look_at_connection(&mut self, at: NodeIndex, peer: NodeIndex, idle_us: u64) {
        let held = self.network.held(at, peer);
        if held == 0 {
            let dialled_us = self.network.link(at, peer).dialled_us;
            if at < peer && (dialled_us == 0 || self.now_us - dialled_us >= HANDSHAKE_US) {
                self.dial(at, peer);
            }
            return;
        }
        let there = self.nodes[usize::from(peer)].running.is_some();
        let (whole, known) = (!self.network.is_cut(peer, at), self.network.held(peer, at) == held);
        let now_us = self.now_us;
        let heard_us = &mut self.network.link(peer, at).heard_us;
        if there && whole && known {
            *heard_us = now_us;
        }
        let silent_us = now_us - *heard_us;
        if there && whole && !known && silent_us >= RESET_US {
            self.disconnect(at, peer, "the peer does not know the connection");
        } else if silent_us >= idle_us {
            self.disconnect(at, peer, "nothing was heard of it");
        }
    }
}

/// What a message is after its encoding.
fn recoded(envelope: &PeerEnvelope) -> PeerEnvelope {
    let decoded = rejoin_proto::codec::decode(&rejoin_proto::codec::encode(envelope)).expect("what is sent can be read");
    assert_eq!(*envelope, decoded, "a message is the same after its encoding");
    decoded
}

fn counters(actors: &[ActorNext]) -> String {
    let one = |actor: &ActorNext| format!("p{}:{:04x}<{}", actor.partition, actor.actor.0 >> 48, actor.next);
    format!("[{}]", actors.iter().map(one).collect::<Vec<_>>().join(" "))
}
