//! Requests of an operator about layouts, and their answers.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::id::{BucketId, Name, NodeId};
use crate::layout::{LayoutPolicy, LayoutRef};
use crate::ring::{PastLayout, Role};

/// A request about layouts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LayoutRequest {
    /// The live layouts, what is staged, and how far a change has come.
    Show,
    /// Stage changes on top of the newest layout.
    Stage(LayoutChanges),
    /// Take back everything that is staged.
    Revert,
    /// The layout that comes of what is staged, and what it moves.
    Plan,
    /// Make what is staged the newest layout, if that is the layout of this name.
    Apply(LayoutRef),
    /// Declare a node dead, for the changes that are under way.
    Skip(Name),
    /// The ring, for a node that is about to join under this name.
    Join(Name),
}

/// Changes to be staged.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LayoutChanges {
    /// Changes of nodes.
    pub nodes: Vec<NodeChange>,
    /// Another default n.
    pub n: Option<u8>,
    /// Other zones.
    pub zones: Option<crate::layout::ZoneDemand>,
    /// Twice as many partitions. Nothing else can be staged with it.
    pub split: bool,
}

/// A change of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NodeChange {
    /// It is to be a member.
    Assign {
        /// The node.
        node: Name,
        /// Its zone. `None`: the one that it has, or the default zone.
        zone: Option<Name>,
        /// Its capacity. `None`: the one that it has, or 1.
        capacity: Option<u32>,
    },
    /// It is to be no member any more.
    Remove(Name),
}

impl NodeChange {
    /// The node that changes.
    #[must_use]
    pub fn node(&self) -> &Name {
        match self {
            Self::Assign { node, .. } | Self::Remove(node) => node,
        }
    }
}

/// A step of a change of layout.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LayoutStep {
    /// Writes need their quorum in the newest layout too.
    Acknowledge,
    /// The owners that gain partitions take them.
    Exchange,
    /// Reads use the newest layout.
    Read,
}

/// The layouts as one node sees them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutStatus {
    /// The answering node.
    pub node: Name,
    /// The live layouts, the newest last.
    pub live: Vec<LayoutRef>,
    /// What the newest one was made for.
    pub policy: LayoutPolicy,
    /// The partitions of the ring.
    pub partitions: u32,
    /// All nodes that are members of a live layout, and those that have announced themselves.
    pub nodes: Vec<LayoutNodeStatus>,
    /// The change that is under way.
    pub change: Option<ChangeStatus>,
    /// The buckets whose copies it changes.
    pub buckets: Vec<BucketChange>,
    /// The policy that is staged.
    pub staged_policy: Option<LayoutPolicy>,
    /// The number of partitions that is staged.
    pub staged_split: Option<u32>,
    /// The layouts that were applied, the last one last.
    pub past: Vec<PastLayoutStatus>,
}

/// A node, with its part in the layouts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutNodeStatus {
    /// Its name.
    pub name: Name,
    /// Where it is reached.
    pub address: Address,
    /// Whether the answering node is it, or has a connection to it.
    pub up: bool,
    /// Its part in the newest layout.
    pub member: Option<MemberStatus>,
    /// Whether it is a member of an older live layout.
    pub in_older: bool,
    /// Whether an operator has declared it dead for the change that is under way.
    pub dead: bool,
    /// What is staged for it.
    pub staged: Option<Role>,
}

/// A node's part in the newest layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its zone.
    pub zone: Name,
    /// Its capacity.
    pub capacity: u32,
    /// The partitions that it owns, for the default n.
    pub owner_of: u32,
}

/// How far a change of layout has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeStatus {
    /// The step that is under way.
    pub step: LayoutStep,
    /// The nodes that have not taken it yet.
    pub waits_for: Vec<AwaitedNode>,
}

/// A bucket whose copies differ between the live layouts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketChange {
    /// The bucket.
    pub bucket: BucketId,
    /// Its name.
    pub name: Name,
    /// Its copies in the oldest live layout.
    pub from: CopiesStatus,
    /// Its copies in the newest.
    pub to: CopiesStatus,
}

/// The copies of a bucket in a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopiesStatus {
    /// How many.
    pub n: u8,
    /// Whether other nodes stand in for owners.
    pub sloppy: bool,
}

/// A node that a change of layout waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AwaitedNode {
    /// Its name.
    pub name: Name,
    /// Whether the answering node is it, or has a connection to it.
    pub up: bool,
}

/// A layout that was applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastLayoutStatus {
    /// Its name.
    pub name: LayoutRef,
    /// What is remembered of it.
    pub layout: PastLayout,
    /// The name of the node that took the command, or its id if it is not known any more.
    pub by: Name,
}

/// The layout that comes of what is staged, and what it moves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutPlan {
    /// Its name: what `apply` has to be given.
    pub name: LayoutRef,
    /// What it is made for.
    pub policy: LayoutPolicy,
    /// The partitions of the ring now.
    pub partitions_before: u32,
    /// The partitions of the ring then.
    pub partitions: u32,
    /// The nodes of either layout.
    pub nodes: Vec<PlannedNode>,
    /// Copies of partitions that it moves, for the default n.
    pub moved: u32,
    /// The fewest moves with which any layout could give the nodes these shares.
    pub least_moved: u32,
    /// The bytes that a node takes in a second at most.
    pub pace_bytes: u64,
    /// What an operator should look at before the change.
    pub warnings: Vec<String>,
}

/// What a plan changes for a node, in partitions, for the default n.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Its zone and capacity; `None` if it is no member any more.
    pub role: Option<(Name, u32)>,
    /// Those that it owns now.
    pub before: u32,
    /// Those that it will own.
    pub after: u32,
    /// Those that it has to take from others.
    pub gains: u32,
    /// Those that it gives up.
    pub loses: u32,
    /// The bytes of those that it has to take, as the nodes that own them now have told.
    pub bytes: u64,
}
