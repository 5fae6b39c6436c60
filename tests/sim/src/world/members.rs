//! Membership: datagrams between nodes, which get lost, come twice and overtake each other, and what a node's own
//! [`Members`](rejoin_core::members::Members) make of them.

use bytes::Bytes;

use rejoin_core::members::{Liveness, MemberEvent, MemberOutput, Requests};
use rejoin_core::shard::event;
use rejoin_proto::NodeId;

use super::{Occurrence, World};
use crate::history::NodeIndex;

impl World {
    /// A shard tells of its requests to peers.
    pub(super) fn requests_told(&mut self, at: NodeIndex, shard: u16, told: Vec<(NodeId, Requests)>) {
        self.member_event(at, MemberEvent::Requests(shard, told));
    }

    /// Tells a node's membership what has happened, and does what it asks for.
    pub(super) fn member_event(&mut self, at: NodeIndex, event: MemberEvent) {
        let now_us = self.clock(at).mono_us;
        let Some(running) = &mut self.nodes[usize::from(at)].running else { return };
        let mut outputs = Vec::new();
        running.members.handle(now_us, event, &mut outputs);
        for output in outputs {
            match output {
                MemberOutput::Send(peer, body) => self.post_datagram(at, self.keys.index(peer), body),
                MemberOutput::Changed(peer, liveness) => {
                    let other = self.keys.index(peer);
                    self.note(at, || format!("takes n{other} for {liveness:?}"));
                    self.recorder.mark(match liveness {
                        Liveness::Alive => "taken for alive",
                        Liveness::Suspect => "suspected",
                        Liveness::Down => "taken for down",
                    });
                    self.tell_all(at, &event::Event::Liveness(peer, liveness));
                }
            }
        }
        self.want_members_wake(at);
    }

    fn want_members_wake(&mut self, at: NodeIndex) {
        let node = &mut self.nodes[usize::from(at)];
        let life = node.life;
        let Some(running) = &mut node.running else { return };
        let due_us = running.members.next_wake_us();
        if due_us < running.members_wake_us {
            running.members_wake_us = due_us;
            self.plan_at(due_us.max(1) - 1, Occurrence::Members { node: at, life });
        }
    }

    pub(super) fn members_due(&mut self, at: NodeIndex) {
        if let Some(running) = &mut self.nodes[usize::from(at)].running {
            running.members_wake_us = u64::MAX;
        }
        self.member_event(at, MemberEvent::Tick);
    }

    /// Sends a datagram over the connection that the sender has to the receiver, if any. Unlike a message it does not
    /// wait for a link that is cut.
    fn post_datagram(&mut self, from: NodeIndex, to: NodeIndex, body: Bytes) {
        let connection = self.held(from, to);
        if connection == 0 {
            return;
        }
        let arrivals = self.network.datagram(self.now_us, from, to);
        for at_us in arrivals.into_iter().flatten() {
            self.plan_at(at_us, Occurrence::Datagram { from, to, connection, body: body.clone() });
        }
    }

    pub(super) fn datagram_arrived(&mut self, from: NodeIndex, to: NodeIndex, connection: u32, body: Bytes) {
        let peer = self.keys.node(from);
        let Some(running) = &self.nodes[usize::from(to)].running else { return };
        let known = running.open.contains_key(&connection) && running.links.is_known(peer, u64::from(connection));
        if known && !self.network.is_cut(from, to) {
            self.member_event(to, MemberEvent::Datagram(peer, body));
        }
    }

    /// Nodes that take another one for less than alive.
    pub(super) fn suspicions(&self) -> Vec<(NodeIndex, NodeIndex)> {
        let nodes = self.options.nodes;
        let pairs = (0..nodes).flat_map(|at| (0..nodes).map(move |peer| (at, peer))).filter(|(at, peer)| at != peer);
        let doubts = |(at, peer): &(NodeIndex, NodeIndex)| {
            let running = self.nodes[usize::from(*at)].running.as_ref();
            running.is_some_and(|running| running.members.liveness(self.keys.node(*peer)) != Liveness::Alive)
        };
        pairs.filter(doubts).collect()
    }
}
