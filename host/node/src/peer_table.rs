//! The state that `peers` keeps under one lock: the links machine and the connections that it decides about.

use std::collections::BTreeMap;

use rejoin_core::node::links::Links;
use rejoin_proto::NodeId;
use rejoin_wire::{Connection, Sender};

/// The links machine and the connections to other nodes.
pub(crate) struct Peers {
    pub(crate) links: Links,
    /// Every connection that a task serves, by the number under which the machine knows it.
    pub(crate) open: BTreeMap<u64, Connection>,
    /// The connection to each peer that shards and catalog were told is up.
    pub(crate) up: BTreeMap<NodeId, Connection>,
    /// When to try again to save the disk ids, in microseconds of the node's clock, after a full disk.
    pub(crate) save_again_at_us: Option<u64>,
}

impl Peers {
    pub(crate) fn new(links: Links) -> Self {
        Self { links, open: BTreeMap::new(), up: BTreeMap::new(), save_again_at_us: None }
    }

    pub(crate) fn next_wake_us(&self) -> u64 {
        self.links.next_wake_us().min(self.save_again_at_us.unwrap_or(u64::MAX))
    }

    /// The peers that are up, with their connections.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&NodeId, &Connection)> + '_ {
        self.up.iter()
    }

    pub(crate) fn sender(&self, peer: NodeId) -> Option<Sender> {
        self.up.get(&peer).map(Connection::sender)
    }
}
