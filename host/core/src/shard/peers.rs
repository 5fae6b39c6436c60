//! The peers that are connected and can be asked. How well they answer is [`contacts`](super::contacts), and what they
//! announce of their actors is [`Event::PeerActors`](super::event::Event::PeerActors).

use alloc::collections::BTreeSet;

use rejoin_proto::NodeId;

/// The connections to the other nodes.
#[derive(Debug, Default)]
pub(super) struct PeerConnections {
    connected: BTreeSet<NodeId>,
    /// Peers that are about to stop. They stay in it when another connection takes the place of theirs.
    leaving: BTreeSet<NodeId>,
}

impl PeerConnections {
    pub(super) fn add(&mut self, peer: NodeId) {
        self.connected.insert(peer);
    }

    pub(super) fn leaving(&mut self, peer: NodeId) {
        self.leaving.insert(peer);
    }

    pub(super) fn lost(&mut self, peer: NodeId) {
        self.connected.remove(&peer);
        self.leaving.remove(&peer);
    }

    /// The peers that are connected.
    pub(super) fn connected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.connected.iter().copied()
    }

    /// Whether a peer can be asked something and is expected to live long enough to answer.
    pub(super) fn can_ask(&self, peer: NodeId) -> bool {
        self.connected.contains(&peer) && !self.leaving.contains(&peer)
    }
}
