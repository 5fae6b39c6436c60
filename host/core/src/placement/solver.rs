//! The solver: owner lists for any nodes, zones and capacities, with as few moves from the layout before as possible.
//!
//! In this order:
//!
//! 1. Zones: every prefix of an owner list is in as many zones as there are, unless zones are waived.
//! 2. Balance: for a bucket with the default number of copies, the fullest node by its capacity is as empty as it can
//!    be, then the second fullest, and so on (`quota`).
//! 3. Moves: with these shares, no other layout moves fewer copies of buckets with the default n (`fill`).
//! 4. Buckets with another n: each node has its share within one partition where zones allow that. [`Solution::uneven`]
//!    says how far the shares are from it.
//!
//! The solver uses integers and ordered collections only: the same input gives the same layout on every node.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rejoin_proto::layout::{BadLayout, LayoutNode, MAX_NODES, MAX_OWNERS, MAX_PARTITIONS};
use rejoin_proto::{Layout, LayoutPolicy, Name, NodeId, PartitionId, ZoneDemand};

use super::change::shares;
use super::lists::{GONE, Ring};

/// What a layout is wanted for.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// All nodes. One without capacity gets no partitions.
    pub nodes: Vec<LayoutNode>,
    /// The number of partitions; that of the layout before, if there is one.
    pub partitions: u32,
    /// The layout before.
    pub before: Option<&'a Layout>,
    /// The default n, for which the layout is balanced, and the zones.
    pub policy: LayoutPolicy,
}

/// A layout, and what it lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Solution {
    /// The layout. Its version is that of the layout before plus one.
    pub layout: Layout,
    /// For n = 1, 2, ...: how many partitions a node is at most away from its share, which is n copies for each
    /// default n that it has.
    pub uneven: [u32; MAX_OWNERS],
}

/// Why there is no such layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Infeasible {
    /// The default n is out of its bounds.
    #[error("n is 1 to {MAX_OWNERS}, not {0}")]
    Copies(u8),
    /// Fewer nodes with capacity than copies.
    #[error("{n} copies need as many nodes with capacity, and there are {nodes}: assign more nodes, or lower n")]
    Nodes {
        /// The default n.
        n: u8,
        /// The nodes with capacity.
        nodes: usize,
    },
    /// Fewer zones than demanded.
    #[error("{demanded} zones are demanded, and nodes with capacity are in {zones}: add a zone, or waive the demand")]
    Zones {
        /// The demand.
        demanded: u8,
        /// The zones with capacity.
        zones: usize,
    },
    /// More zones than copies are demanded.
    #[error("{n} copies cannot be in {demanded} zones: demand {n} at most")]
    MoreZonesThanCopies {
        /// The demand.
        demanded: u8,
        /// The default n.
        n: u8,
    },
    /// The partitions are not those of the layout before.
    #[error("the layout before has {before} partitions, not {wanted}")]
    Partitions {
        /// Those of the layout before.
        before: u32,
        /// The demand.
        wanted: u32,
    },
    /// The layout would break a rule of all layouts.
    #[error(transparent)]
    Layout(#[from] BadLayout),
}

/// Makes a layout.
///
/// # Errors
/// [`Infeasible`] says which demand cannot be met, and what to do.
pub fn solve(demand: Demand<'_>) -> Result<Solution, Infeasible> {
    let Demand { mut nodes, partitions, before, policy } = demand;
    let LayoutPolicy { n, zones } = policy;
    nodes.sort_by_key(|node| node.id);
    let zone_of = zone_indices(&nodes);
    let zone_count = check(&nodes, &zone_of, (partitions, n, zones), before)?;
    let capacities: Vec<u32> = nodes.iter().map(|node| node.capacity).collect();
    let ring = Ring {
        capacities: &capacities,
        zone_of: &zone_of,
        zones: if zones == ZoneDemand::Waived { 1 } else { zone_count },
        partitions,
        n: usize::from(n),
        longest: capacities.iter().filter(|capacity| **capacity > 0).count().min(MAX_OWNERS),
        before: &before.map(|layout| kept(layout, &nodes)).unwrap_or_default(),
    };
    let owners = ring.lists();
    let copies = before.map(|layout| layout.copies.clone()).unwrap_or_default();
    let layout = Layout { version: before.map_or(1, |layout| layout.version + 1), policy, nodes, owners, copies };
    layout.check()?;
    let uneven = uneven(&layout, n);
    Ok(Solution { layout, uneven })
}

/// Refuses what cannot be met. Returns the number of zones with capacity.
fn check(
    nodes: &[LayoutNode],
    zone_of: &[u16],
    (partitions, n, zones): (u32, u8, ZoneDemand),
    before: Option<&Layout>,
) -> Result<usize, Infeasible> {
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err(BadLayout::Nodes.into());
    }
    if nodes.windows(2).any(|pair| pair[0].id == pair[1].id) {
        return Err(BadLayout::Order.into());
    }
    if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
        return Err(BadLayout::Partitions.into());
    }
    if let Some(before) = before.map(Layout::partitions).filter(|before| *before != partitions) {
        return Err(Infeasible::Partitions { before, wanted: partitions });
    }
    if !(1..=MAX_OWNERS).contains(&usize::from(n)) {
        return Err(Infeasible::Copies(n));
    }
    let usable = nodes.iter().filter(|node| node.capacity > 0).count();
    if usable < usize::from(n) {
        return Err(Infeasible::Nodes { n, nodes: usable });
    }
    let with_capacity = nodes.iter().zip(zone_of).filter(|(node, _)| node.capacity > 0).map(|(_, zone)| zone);
    let count = with_capacity.collect::<alloc::collections::BTreeSet<_>>().len();
    match zones {
        ZoneDemand::AtLeast(demanded) if demanded > n => Err(Infeasible::MoreZonesThanCopies { demanded, n }),
        ZoneDemand::AtLeast(demanded) if usize::from(demanded) > count => {
            Err(Infeasible::Zones { demanded, zones: count })
        }
        _ => Ok(count),
    }
}

/// The zone of each node as a number, in the order of their names.
fn zone_indices(nodes: &[LayoutNode]) -> Vec<u16> {
    let mut zones: Vec<&Name> = nodes.iter().map(|node| &node.zone).collect();
    zones.sort();
    zones.dedup();
    let index = |node: &LayoutNode| zones.binary_search(&&node.zone).unwrap_or_default() as u16;
    nodes.iter().map(index).collect()
}

/// The owner lists of a layout, with [`GONE`] for nodes that are not there any more or have no capacity.
fn kept(layout: &Layout, nodes: &[LayoutNode]) -> Vec<Vec<u16>> {
    let place = |at: usize| u16::try_from(at).ok();
    let places = nodes.iter().enumerate().filter(|(_, node)| node.capacity > 0);
    let places: BTreeMap<NodeId, u16> = places.filter_map(|(at, node)| Some((node.id, place(at)?))).collect();
    let list = |at: u32| {
        let partition = PartitionId(u16::try_from(at).unwrap_or(u16::MAX));
        layout.owners(partition, u8::MAX).map(|node| places.get(&node.id).copied().unwrap_or(GONE)).collect()
    };
    (0..layout.partitions()).map(list).collect()
}

/// How far the shares for each n are from those for the default n, in proportion.
pub(crate) fn uneven(layout: &Layout, default: u8) -> [u32; MAX_OWNERS] {
    let base = shares(layout, default);
    let mut uneven = [0; MAX_OWNERS];
    for (copies, worst) in (1..).zip(&mut uneven) {
        let all = shares(layout, copies);
        let off = |(share, base): (&u32, &u32)| {
            (share * u32::from(default)).abs_diff(base * u32::from(copies)).div_ceil(u32::from(default))
        };
        *worst = all.iter().zip(&base).map(off).max().unwrap_or_default();
    }
    uneven
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::change::{compare, crowded};
    use alloc::format;

    fn node(at: usize, zones: usize, capacity: u32) -> LayoutNode {
        let name = |text| Name::new(text).expect("a good name");
        let (name, zone) = (name(format!("n{at}")), name(format!("z{}", at % zones)));
        let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], 7000 + at as u16).into());
        LayoutNode { id, name, zone, capacity, address }
    }

    fn demand(nodes: Vec<LayoutNode>) -> Demand<'static> {
        Demand { nodes, partitions: 256, before: None, policy: LayoutPolicy::default() }
    }

    fn cluster(count: usize, zones: usize) -> Vec<LayoutNode> {
        (0..count).map(|at| node(at, zones, 1)).collect()
    }

    #[test]
    fn the_same_demand_gives_the_same_layout_whatever_the_order_of_its_nodes() {
        let mut nodes = cluster(9, 3);
        let one = solve(demand(nodes.clone())).expect("a layout");
        nodes.reverse();
        assert_eq!(solve(demand(nodes)), Ok(one));
    }

    #[test]
    fn equal_nodes_are_even_for_every_n() {
        for (count, zones) in [(1, 1), (3, 1), (4, 1), (5, 1), (7, 1), (6, 2), (6, 3), (9, 3), (5, 5), (20, 4)] {
            let n = count.min(3) as u8;
            let policy = LayoutPolicy { n, ..LayoutPolicy::default() };
            let solved = solve(Demand { policy, ..demand(cluster(count, zones)) }).expect("a layout");
            for copies in 1..=5 {
                let shares = shares(&solved.layout, copies);
                let (least, most) = (shares.iter().min().expect("nodes"), shares.iter().max().expect("nodes"));
                assert!(most - least <= 2, "{count} nodes in {zones} zones, n = {copies}: {shares:?}");
                assert!(crowded(&solved.layout, copies).is_empty());
            }
            assert!(solved.uneven[..usize::from(n)].iter().all(|off| *off <= 1), "{:?}", solved.uneven);
        }
    }

    #[test]
    fn typical_changes_move_no_more_than_the_lower_bound() {
        let nodes: Vec<LayoutNode> = (0..12).map(|at| node(at, 3, [2, 3, 4][at % 3])).collect();
        let before = solve(demand(nodes.clone())).expect("a layout").layout;
        let without = |at: usize| nodes.iter().enumerate().filter(move |(other, _)| *other != at);
        let mut changes: Vec<Vec<LayoutNode>> = Vec::new();
        for at in 0..12 {
            changes.push(without(at).map(|(_, node)| node.clone()).collect());
            changes.push(nodes.iter().cloned().chain([node(12 + at, 3, 3)]).collect());
            let weighed = |other: usize, node: &LayoutNode| LayoutNode {
                capacity: node.capacity * if other == at { 2 } else { 1 },
                ..node.clone()
            };
            changes.push(nodes.iter().enumerate().map(|(other, node)| weighed(other, node)).collect());
        }
        for nodes in changes {
            let wanted = Demand { before: Some(&before), ..demand(nodes) };
            let solved = solve(wanted).expect("a layout");
            let change = compare(&before, &solved.layout, 3).expect("comparable");
            assert_eq!(solved.layout.version, 2);
            assert_eq!(change.moved(), change.least_moved());
            assert!(crowded(&solved.layout, 3).is_empty());
        }
    }

    #[test]
    fn a_node_without_capacity_is_drained_and_stays_in_the_layout() {
        let mut nodes = cluster(4, 1);
        let before = solve(demand(nodes.clone())).expect("a layout").layout;
        nodes[1].capacity = 0;
        let drained = solve(Demand { before: Some(&before), ..demand(nodes.clone()) }).expect("a layout").layout;
        let at = drained.nodes.iter().position(|node| node.id == nodes[1].id).expect("it is there");
        assert_eq!((drained.nodes.len(), shares(&drained, u8::MAX)[at]), (4, 0));
    }

    #[test]
    fn demands_that_cannot_be_met_are_refused_with_the_reason_or_waived() {
        let two_zones = || demand(cluster(5, 2));
        let zoned = |zones| Demand { policy: LayoutPolicy { n: 3, zones }, ..two_zones() };
        let at_least = |zones| zoned(ZoneDemand::AtLeast(zones));
        assert_eq!(solve(at_least(3)), Err(Infeasible::Zones { demanded: 3, zones: 2 }));
        assert_eq!(solve(at_least(4)), Err(Infeasible::MoreZonesThanCopies { demanded: 4, n: 3 }));
        assert!(solve(at_least(2)).is_ok());
        assert!(solve(zoned(ZoneDemand::Waived)).is_ok());
        assert_eq!(solve(demand(cluster(2, 1))), Err(Infeasible::Nodes { n: 3, nodes: 2 }));
        let six = LayoutPolicy { n: 6, ..LayoutPolicy::default() };
        assert_eq!(solve(Demand { policy: six, ..two_zones() }), Err(Infeasible::Copies(6)));
        assert_eq!(solve(demand(Vec::new())), Err(BadLayout::Nodes.into()));
        assert_eq!(solve(Demand { partitions: 100, ..two_zones() }), Err(BadLayout::Partitions.into()));
        let doubled = [cluster(3, 1), cluster(1, 1)].concat();
        assert_eq!(solve(demand(doubled)), Err(BadLayout::Order.into()));
        let before = solve(two_zones()).expect("a layout").layout;
        let split = Demand { before: Some(&before), partitions: 512, ..two_zones() };
        assert_eq!(solve(split), Err(Infeasible::Partitions { before: 256, wanted: 512 }));
    }

    #[test]
    fn a_small_zone_is_full_and_the_unevenness_is_reported() {
        let nodes = (0..7).map(|at| node(if at == 0 { 0 } else { 2 * at + 1 }, 2, 1)).collect();
        let solved = solve(demand(nodes)).expect("a layout");
        let small = solved.layout.nodes.iter().position(|node| node.zone.as_str() == "z0").expect("a node");
        assert_eq!(shares(&solved.layout, 2)[small], 256);
        assert!(solved.uneven[1] > 1, "{:?}", solved.uneven);
        assert!(crowded(&solved.layout, 2).is_empty());
    }

    #[test]
    fn a_thousand_nodes_are_solved() {
        let mut nodes: Vec<LayoutNode> = (0..1_000).map(|at| node(at, 7, [4, 8, 8, 16][at % 4])).collect();
        let large = |nodes: Vec<LayoutNode>| Demand { partitions: 4_096, ..demand(nodes) };
        let before = solve(large(nodes.clone())).expect("a layout").layout;
        nodes.remove(17);
        let after = solve(Demand { before: Some(&before), ..large(nodes) }).expect("a layout").layout;
        let change = compare(&before, &after, 3).expect("comparable");
        assert_eq!(change.moved(), change.least_moved());
    }
}
