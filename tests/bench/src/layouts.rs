//! Typical changes of a cluster, and the fewest copies of partitions that each could move.

use std::collections::{BTreeMap, BTreeSet};

use rejoin_core::placement::change::compare;
use rejoin_core::placement::solver::{Demand, Solution, solve};
use rejoin_proto::{Layout, LayoutNode, LayoutPolicy, Name, NodeId, PartitionId, ZoneDemand};

/// The partitions of each cluster.
const PARTITIONS: u32 = 256;
/// The copies.
const N: u8 = 3;

/// Node number `at`, in one of so many zones.
///
/// # Panics
/// Never: the names are good.
#[must_use]
pub fn node(at: usize, zones: usize, capacity: u32) -> LayoutNode {
    in_zone(at, at % zones, capacity)
}

fn in_zone(at: usize, zone: usize, capacity: u32) -> LayoutNode {
    let name = |text: String| Name::new(text).expect("a good name");
    let (name, zone) = (name(format!("n{at}")), name(format!("z{zone}")));
    let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], 7_000 + at as u16).into());
    LayoutNode { id, name, zone, capacity, address }
}

fn nodes(count: usize, zones: usize) -> Vec<LayoutNode> {
    (0..count).map(|at| node(at, zones, 2)).collect()
}

fn weighed(capacities: &[u32]) -> Vec<LayoutNode> {
    capacities.iter().enumerate().map(|(at, capacity)| node(at, 1, *capacity)).collect()
}

/// A change of a cluster.
#[derive(Debug)]
pub struct Change {
    /// In words.
    pub what: &'static str,
    before: Vec<LayoutNode>,
    after: Vec<LayoutNode>,
}

/// What a change moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moves {
    /// Copies of partitions that the solver moves, of 768.
    pub moved: u32,
    /// What the shares make necessary: the sum of what the growing nodes grow by.
    pub shares: u32,
    /// What zones and nodes that leave make necessary, if shares do not matter: copies that cannot stay where they are.
    pub places: u32,
}

impl Moves {
    /// No layout with these shares in these zones moves fewer.
    #[must_use]
    pub fn least(&self) -> u32 {
        self.shares.max(self.places)
    }
}

impl Change {
    fn new(what: &'static str, before: Vec<LayoutNode>, after: Vec<LayoutNode>) -> Self {
        Self { what, before, after }
    }

    /// Solves it.
    ///
    /// # Panics
    /// If it has no solution.
    #[must_use]
    pub fn moves(&self) -> Moves {
        let before = solved(self.before.clone(), PARTITIONS, None).layout;
        let after = solved(self.after.clone(), PARTITIONS, Some(&before)).layout;
        let change = compare(&before, &after, N).expect("as many partitions");
        Moves { moved: change.moved(), shares: change.least_moved(), places: must_move(&before, &after) }
    }
}

/// A layout for three copies, spread over zones.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn solved(nodes: Vec<LayoutNode>, partitions: u32, before: Option<&Layout>) -> Solution {
    let policy = LayoutPolicy { n: N, zones: ZoneDemand::Spread };
    solve(Demand { nodes, partitions, before, policy }).expect("a layout")
}

/// The copies that cannot stay: their node leaves, or is in one zone with others of the partition while there are zones
/// without one.
fn must_move(before: &Layout, after: &Layout) -> u32 {
    let stays: BTreeMap<NodeId, &Name> =
        after.nodes.iter().filter(|node| node.capacity > 0).map(|node| (node.id, &node.zone)).collect();
    let zones = stays.values().collect::<BTreeSet<_>>().len().min(usize::from(N));
    let moves = |at: u16| {
        let kept: Vec<&Name> =
            before.owners(PartitionId(at), N).filter_map(|node| stays.get(&node.id).copied()).collect();
        let doubled = kept.len() - kept.iter().collect::<BTreeSet<_>>().len();
        let can_stay = kept.len() - doubled.saturating_sub(usize::from(N) - zones);
        usize::from(N) - can_stay
    };
    (0..PARTITIONS as u16).map(moves).sum::<usize>() as u32
}

/// Twenty changes of clusters of three to nine nodes.
#[must_use]
pub fn typical() -> Vec<Change> {
    let without = |all: Vec<LayoutNode>, gone: &[usize]| -> Vec<LayoutNode> {
        all.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, node)| node).collect()
    };
    let with = |all: Vec<LayoutNode>, more: Vec<LayoutNode>| [all, more].concat();
    let set = |mut all: Vec<LayoutNode>, at: usize, new: LayoutNode| {
        all[at] = new;
        all
    };
    vec![
        Change::new("3 nodes become 4", nodes(3, 1), nodes(4, 1)),
        Change::new("3 nodes become 5", nodes(3, 1), nodes(5, 1)),
        Change::new("4 nodes become 3", nodes(4, 1), without(nodes(4, 1), &[1])),
        Change::new("one of 5 nodes is drained", nodes(5, 1), set(nodes(5, 1), 2, node(2, 1, 0))),
        Change::new("one of 5 nodes is replaced", nodes(5, 1), set(nodes(5, 1), 2, node(9, 1, 2))),
        Change::new("6 nodes become 9", nodes(6, 1), nodes(9, 1)),
        Change::new("9 nodes become 7", nodes(9, 1), without(nodes(9, 1), &[0, 4])),
        Change::new("3 nodes in 3 zones become 6", nodes(3, 3), nodes(6, 3)),
        Change::new("6 nodes in 3 zones become 7", nodes(6, 3), nodes(7, 3)),
        Change::new("6 nodes in 3 zones become 5", nodes(6, 3), without(nodes(6, 3), &[3])),
        Change::new("one of 9 nodes in 3 zones is replaced", nodes(9, 3), set(nodes(9, 3), 4, in_zone(20, 1, 2))),
        Change::new("one of 9 nodes in 3 zones doubles", nodes(9, 3), set(nodes(9, 3), 4, node(4, 3, 4))),
        Change::new("one of 9 nodes in 3 zones is halved", nodes(9, 3), set(nodes(9, 3), 4, node(4, 3, 1))),
        Change::new("one of 6 unequal nodes doubles", weighed(&[1, 1, 1, 2, 2, 2]), weighed(&[2, 1, 1, 2, 2, 2])),
        Change::new("4 unequal nodes become 5", weighed(&[1, 2, 3, 4]), weighed(&[1, 2, 3, 4, 2])),
        Change::new(
            "6 nodes in 2 zones get a third zone of 2",
            nodes(6, 2),
            with(nodes(6, 2), vec![in_zone(10, 2, 2), in_zone(11, 2, 2)]),
        ),
        Change::new(
            "6 nodes in 3 zones get a fourth zone of 2",
            nodes(6, 3),
            with(nodes(6, 3), vec![in_zone(10, 3, 2), in_zone(11, 3, 2)]),
        ),
        Change::new("one of 3 zones of 9 nodes leaves", nodes(9, 3), without(nodes(9, 3), &[1, 4, 7])),
        Change::new("one of 6 nodes in 3 zones changes its zone", nodes(6, 3), set(nodes(6, 3), 0, in_zone(0, 1, 2))),
        Change::new("6 nodes in one zone are divided into 3", nodes(6, 1), nodes(6, 3)),
    ]
}
