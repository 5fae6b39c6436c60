//! Who owns what: the [`solver`] makes layouts, [`bootstrap`] has it make the first one, and [`change`] counts what
//! layouts give and move.

#[cfg(test)]
mod chains;
pub mod change;
mod fill;
mod lists;
mod quota;
pub mod solver;

use alloc::vec::Vec;

use rejoin_proto::layout::LayoutNode;
use rejoin_proto::{Layout, LayoutPolicy};

use self::solver::{Demand, Infeasible};

/// The number of partitions of a new cluster.
pub const DEFAULT_PARTITIONS: u32 = 256;

/// The first layout, for three copies or as many as there are nodes: see [`solver`]. The same nodes give the same
/// layout on every node.
///
/// # Errors
/// [`Infeasible`] if there are no nodes, too many, two of one name, none with capacity, or the number of partitions is
/// no power of two.
pub fn bootstrap(nodes: Vec<LayoutNode>, partitions: u32) -> Result<Layout, Infeasible> {
    let with_capacity = nodes.iter().filter(|node| node.capacity > 0).count();
    let default = LayoutPolicy::default();
    let n = u8::try_from(with_capacity).unwrap_or(u8::MAX).clamp(1, default.n);
    let policy = LayoutPolicy { n, ..default };
    Ok(solver::solve(Demand { nodes, partitions, before: None, policy })?.layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use rejoin_proto::layout::BadLayout;
    use rejoin_proto::{Name, NodeId, PartitionId};

    fn nodes(count: usize, zones: usize) -> Vec<LayoutNode> {
        let node = |at: usize| {
            let name = Name::new(format!("n{at}")).expect("a good name");
            let zone = Name::new(format!("z{}", at % zones)).expect("a good name");
            LayoutNode {
                id: NodeId::from_name(&name),
                name,
                zone,
                capacity: 1,
                address: ([127, 0, 0, 1], 7000 + at as u16).into(),
            }
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn every_prefix_is_balanced_over_equal_zones() {
        for (count, zones) in
            [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (7, 1), (4, 2), (6, 2), (6, 3), (9, 3), (3, 3), (5, 5)]
        {
            let layout = bootstrap(nodes(count, zones), 256).expect("a layout");
            for n in 1..=5 {
                let holds =
                    |id| (0..256).filter(|&p| layout.owners(PartitionId(p), n).any(|node| node.id == id)).count();
                let shares: Vec<usize> = layout.nodes.iter().map(|node| holds(node.id)).collect();
                let (least, most) = (shares.iter().min().expect("nodes"), shares.iter().max().expect("nodes"));
                assert!(most - least <= 3, "{count} nodes in {zones} zones, n = {n}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_dead_nodes_load_falls_on_all_the_others() {
        let layout = bootstrap(nodes(5, 1), 256).expect("a layout");
        for dead in &layout.nodes {
            let heirs = (0..256).filter_map(|p| {
                let mut owners = layout.owners(PartitionId(p), 2);
                (owners.next()?.id == dead.id).then(|| owners.next().map(|node| node.id)).flatten()
            });
            let mut heirs: Vec<NodeId> = heirs.collect();
            heirs.sort();
            heirs.dedup();
            assert_eq!(heirs.len(), 4, "{:?}", dead.name);
        }
    }

    #[test]
    fn owners_are_in_different_zones_while_there_are_any() {
        let layout = bootstrap(nodes(6, 3), 256).expect("a layout");
        for partition in 0..256 {
            let mut zones: Vec<&Name> = layout.owners(PartitionId(partition), 3).map(|node| &node.zone).collect();
            zones.sort();
            zones.dedup();
            assert_eq!(zones.len(), 3, "partition {partition}");
        }
    }

    #[test]
    fn bad_demands_are_refused() {
        assert_eq!(bootstrap(Vec::new(), 256), Err(BadLayout::Nodes.into()));
        assert_eq!(bootstrap(nodes(3, 1), 100), Err(BadLayout::Partitions.into()));
        let mut doubled = nodes(2, 1);
        doubled.push(doubled[0].clone());
        assert_eq!(bootstrap(doubled, 256), Err(BadLayout::Order.into()));
    }
}
