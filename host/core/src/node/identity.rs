//! Disk ids: how a wiped data directory is noticed.
//!
//! A data directory gets a random *disk id* when it is made. In its hello a node sends its own id and the id that it
//! remembers of the receiver. A node that is sent another id than its own knows that its directory was replaced: it has
//! lost everything that the old one held.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_proto::codec::Versioned;
use rejoin_proto::peer::DiskId;
use rejoin_proto::{LayoutRef, Name, NodeId};

/// The disk ids that a node knows, as they are saved in its data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disks {
    /// Drawn when this data directory was made.
    pub own: DiskId,
    /// The peer that has noticed that this node's directory was replaced, if one has. Until the replica is rebuilt its
    /// copies do not count in reads.
    pub replaced: Option<Name>,
    /// Whether the replica is rebuilt since.
    pub rebuilt: bool,
    /// The newest live layout of which this node was a member since the directory was made. Saved before it serves as
    /// one.
    pub member_of: Option<LayoutRef>,
    /// The disk ids of the peers.
    pub peers: BTreeMap<NodeId, DiskId>,
}

impl Versioned for Disks {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "disk ids";
}

impl Disks {
    /// The ids of a directory that was just made.
    #[must_use]
    pub fn new(own: DiskId) -> Self {
        Self { own, replaced: None, rebuilt: false, member_of: None, peers: BTreeMap::new() }
    }

    /// This node is a member of a live layout. Returns whether that is new.
    pub fn note_member(&mut self, layout: LayoutRef) -> bool {
        // Rule: returned nodes are not dead.
        let is_newer = self.member_of < Some(layout);
        if is_newer {
            self.member_of = Some(layout);
        }
        is_newer
    }

    /// Whether this node's directory was replaced and is not rebuilt yet.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.replaced.is_some() && !self.rebuilt
    }

    /// All shards of this node are rebuilt. Returns whether that is new.
    pub(crate) fn rebuilt(&mut self) -> bool {
        let is_new = self.is_replaced();
        self.rebuilt |= is_new;
        is_new
    }

    /// Remembers a peer's disk. Returns whether anything has changed. A peer that does not know yet that its directory
    /// was replaced keeps its old id here, so that it is told again after a crash.
    pub(crate) fn remember(&mut self, peer: NodeId, disk: DiskId, knows_it_was_replaced: bool) -> bool {
        match self.peers.get(&peer) {
            Some(known) if *known == disk || !knows_it_was_replaced => false,
            _ => {
                self.peers.insert(peer, disk);
                true
            }
        }
    }

    /// Takes in which disk of this node a peer remembers. Returns whether this node learns from it that its directory
    /// was replaced.
    pub(crate) fn remembered_by(&mut self, by: &Name, remembered: Option<DiskId>) -> bool {
        let replaced = self.replaced.is_none() && remembered.is_some_and(|disk| disk != self.own);
        if replaced {
            self.replaced = Some(by.clone());
        }
        replaced
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
        assert!(
            theirs.remembered_by(&n1, ours.peers.get(&n2).copied())
                && !theirs.remembered_by(&n1, ours.peers.get(&n2).copied())
        );
        assert!(ours.remember(n2, theirs.own, theirs.replaced.is_some()));
        assert!(theirs.is_replaced() && theirs.rebuilt() && !theirs.is_replaced() && !theirs.rebuilt());
        let n3 = Name::new("n3").expect("a name");
        assert!(!theirs.remembered_by(&n3, Some(DiskId(20))), "one that was away is late with its news");
        assert!(!Disks::new(DiskId(7)).rebuilt(), "nothing was replaced");
        assert!(!Disks::new(DiskId(5)).remembered_by(&n1, None), "a node that nobody knew has lost nothing");
    }
}
