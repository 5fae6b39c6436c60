//! What a node remembers of its own disk and of the disks of its peers, so that a wiped one is noticed.
//!
//! A data directory gets a random *disk id* when it is made. Nodes tell each other theirs in the hello, and what they
//! remember of the other side's. A node that hears of another id than its own knows that its directory was replaced: it
//! has lost everything that the old one held.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_proto::codec::Versioned;
use rejoin_proto::peer::DiskId;
use rejoin_proto::{Name, NodeId};

/// A node's own disk id and what it remembers of others, as it is kept in the data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disks {
    /// Drawn when this data directory was made.
    pub own: DiskId,
    /// Who has told this node that its directory was replaced, if anybody has. Until the replica is rebuilt its copies
    /// are not counted.
    pub replaced: Option<Name>,
    /// The disk ids of the peers.
    pub peers: BTreeMap<NodeId, DiskId>,
}

impl Versioned for Disks {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "disk ids";
}

impl Disks {
    /// Of a directory that was just made.
    #[must_use]
    pub fn new(own: DiskId) -> Self {
        Self { own, replaced: None, peers: BTreeMap::new() }
    }

    /// Remembers a peer's disk. Returns whether that is news. A peer that does not know yet that its directory was
    /// replaced is remembered by its old one, so that it is told again, whatever becomes of it meanwhile.
    pub(crate) fn remember(&mut self, peer: NodeId, disk: DiskId, knows_it_was_replaced: bool) -> bool {
        match self.peers.get(&peer) {
            Some(known) if *known == disk || !knows_it_was_replaced => false,
            _ => {
                self.peers.insert(peer, disk);
                true
            }
        }
    }

    /// A peer remembers another disk of this node. Returns whether that is news.
    pub(crate) fn told(&mut self, by: &Name, remembered: Option<DiskId>) -> bool {
        let news = self.replaced.is_none() && remembered.is_some_and(|disk| disk != self.own);
        if news {
            self.replaced = Some(by.clone());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_disk_is_told_until_its_node_knows() {
        let (n1, n2) = (Name::new("n1").expect("a name"), NodeId(2));
        let mut ours = Disks::new(DiskId(10));
        assert!(ours.remember(n2, DiskId(20), false) && !ours.remember(n2, DiskId(20), false));
        // Node 2 comes back with an empty directory.
        let mut theirs = Disks::new(DiskId(21));
        assert!(!ours.remember(n2, theirs.own, theirs.replaced.is_some()), "it does not know yet");
        assert!(theirs.told(&n1, ours.peers.get(&n2).copied()) && !theirs.told(&n1, ours.peers.get(&n2).copied()));
        assert!(ours.remember(n2, theirs.own, theirs.replaced.is_some()));
        assert!(!Disks::new(DiskId(5)).told(&n1, None), "a node that nobody knew has lost nothing");
    }
}
