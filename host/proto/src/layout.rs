//! Layouts: which node owns which partition. Nodes and clients route by the same functions.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::codec::{self, Versioned};
use crate::hash::{ObjectId, partition_of};
use crate::id::{BucketId, Name, NodeId, PartitionId};

/// The most owners that a layout lists for a partition, and so the largest `n` of a bucket.
pub const MAX_OWNERS: usize = 5;
/// The most nodes in a layout.
pub const MAX_NODES: usize = 4096;
/// The most partitions that a layout may have.
pub const MAX_PARTITIONS: u32 = 1 << 16;

/// Names a layout by its version and the hash of its content. Of two layouts the one with the larger name wins, on all
/// nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct LayoutRef {
    /// Grows by one with each change.
    pub version: u64,
    /// The hash of the encoded layout.
    pub hash: u64,
}

/// The live layouts of a node, from the oldest to the newest one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LayoutRange {
    /// The oldest live layout. Those before it are retired.
    pub oldest: LayoutRef,
    /// The newest live layout.
    pub newest: LayoutRef,
}

impl LayoutRange {
    /// Whether a node with these layouts has heard of the other one's newest layout, and of all that it has retired.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.oldest >= other.oldest && self.newest >= other.newest
    }
}

/// A node in a layout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayoutNode {
    /// Derived from the name.
    pub id: NodeId,
    /// As in the node's certificate.
    pub name: Name,
    /// The copies of a partition are spread over zones.
    pub zone: Name,
    /// Its share of the ring, relative to the capacities of the other nodes.
    pub capacity: u32,
    /// The UDP address for peers and clients.
    pub address: Address,
}

/// The zones that the first n owners of a partition must be in, for the default n.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub enum ZoneDemand {
    /// As many as there are.
    #[default]
    Spread,
    /// As many as there are, and at least so many.
    AtLeast(u8),
    /// Any: zones are ignored.
    Waived,
}

/// What a layout is made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LayoutPolicy {
    /// The number of copies for which the nodes' shares are balanced, 1 to [`MAX_OWNERS`].
    pub n: u8,
    /// The zones that these copies are in.
    pub zones: ZoneDemand,
}

impl Default for LayoutPolicy {
    fn default() -> Self {
        Self { n: 3, zones: ZoneDemand::default() }
    }
}

/// Which node owns which partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Grows by one with each change, from 1.
    pub version: u64,
    /// What it was made for. The next one is made for the same, unless an operator says otherwise.
    pub policy: LayoutPolicy,
    /// The nodes, ordered by id.
    pub nodes: Vec<LayoutNode>,
    /// For each partition up to [`MAX_OWNERS`] owners, as indices of `nodes`, in order of preference. A bucket with n
    /// copies uses the first n.
    pub owners: Vec<Vec<u16>>,
    /// The buckets whose copies were changed after they were made, ordered by id. The next layout has them too.
    pub copies: Vec<BucketCopies>,
}

/// The copies of a bucket, if they were changed after it was made. They are a part of the layout, so that their changes
/// are carried out as those of owners are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BucketCopies {
    /// The bucket.
    pub bucket: BucketId,
    /// Counts the changes, from 1.
    pub change: u32,
    /// Copies of each object, 1 to [`MAX_OWNERS`].
    pub n: u8,
    /// Whether other nodes stand in for owners.
    pub sloppy: bool,
}

impl Versioned for Layout {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "layout";
}

/// Why a layout is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadLayout {
    /// No nodes, or too many.
    #[error("a layout has 1 to {MAX_NODES} nodes")]
    Nodes,
    /// The nodes are unsorted or repeated, or an id does not match its name.
    #[error("the nodes of a layout are ordered by id, each once, each under its own name's id")]
    Order,
    /// The number of partitions is invalid.
    #[error("a layout has a power of two of partitions, 1 to {MAX_PARTITIONS}")]
    Partitions,
    /// An owner list is empty, too long, repeats a node or names an unknown one.
    #[error("each partition has 1 to {MAX_OWNERS} different owners among the nodes")]
    Owners,
    /// The copies of buckets are unsorted, or out of bounds.
    #[error("the copies of buckets are ordered by bucket, each once, with 1 to {MAX_OWNERS} copies")]
    Copies,
}

impl Layout {
    /// Checks the rules that the other functions rely on. To be called once on a decoded layout.
    ///
    /// # Errors
    /// [`BadLayout`] names the rule that is broken.
    pub fn check(&self) -> Result<(), BadLayout> {
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return Err(BadLayout::Nodes);
        }
        let ordered = self.nodes.windows(2).all(|pair| pair[0].id < pair[1].id);
        if !ordered || self.nodes.iter().any(|node| node.id != NodeId::from_name(&node.name)) {
            return Err(BadLayout::Order);
        }
        if !self.owners.len().is_power_of_two() || self.owners.len() > MAX_PARTITIONS as usize {
            return Err(BadLayout::Partitions);
        }
        let distinct = |list: &[u16]| list.iter().enumerate().all(|(at, node)| !list[..at].contains(node));
        let known = |list: &[u16]| list.iter().all(|&node| usize::from(node) < self.nodes.len());
        let sound = |list: &Vec<u16>| (1..=MAX_OWNERS).contains(&list.len()) && distinct(list) && known(list);
        if !self.owners.iter().all(sound) {
            return Err(BadLayout::Owners);
        }
        let ordered = self.copies.windows(2).all(|pair| pair[0].bucket < pair[1].bucket);
        let bounded = |of: &BucketCopies| (1..=MAX_OWNERS).contains(&usize::from(of.n)) && of.change > 0;
        if ordered && self.copies.iter().all(bounded) { Ok(()) } else { Err(BadLayout::Copies) }
    }

    /// Version and hash.
    #[must_use]
    pub fn name(&self) -> LayoutRef {
        LayoutRef { version: self.version, hash: xxhash_rust::xxh3::xxh3_64(&codec::encode(self)) }
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.owners.len() as u32
    }

    /// The same owners in a ring of so many partitions: each one is divided into equal parts, which keep its owners. No
    /// key changes its owners by that, and no bucket its copies. The layout itself if it has that many, or more.
    #[must_use]
    pub fn divided(&self, partitions: u32) -> Self {
        let parts = (partitions / self.partitions().max(1)).max(1) as usize;
        let owners = self.owners.iter().flat_map(|list| core::iter::repeat_n(list, parts)).cloned().collect();
        Self { owners, nodes: self.nodes.clone(), copies: self.copies.clone(), ..*self }
    }

    /// The partition of an object.
    #[must_use]
    pub fn partition(&self, object: &ObjectId) -> PartitionId {
        self.partition_of(object.hash())
    }

    /// The partition of an object's [`hash`](ObjectId::hash).
    #[must_use]
    pub fn partition_of(&self, hash: u128) -> PartitionId {
        partition_of(hash, self.partitions())
    }

    /// The first `n` owners of a partition, the preferred coordinator first. Fewer if the layout has fewer.
    pub fn owners(&self, partition: PartitionId, n: u8) -> impl Iterator<Item = &LayoutNode> + '_ {
        let list = self.owners.get(usize::from(partition.0)).map_or(&[][..], Vec::as_slice);
        list.iter().take(usize::from(n)).map(|&at| &self.nodes[usize::from(at)])
    }

    /// The copies of a bucket, if they were changed after it was made.
    #[must_use]
    pub fn copies_of(&self, bucket: BucketId) -> Option<&BucketCopies> {
        self.copies.binary_search_by_key(&bucket, |of| of.bucket).ok().map(|at| &self.copies[at])
    }

    /// The node with that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&LayoutNode> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|at| &self.nodes[at])
    }
}
