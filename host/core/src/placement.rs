//! Who owns what: the layout that a cluster starts with ([`bootstrap`]), layouts for other nodes and capacities
//! ([`solver`]), and what layouts give and move ([`change`]).

pub mod change;
mod fill;
mod lists;
mod quota;
pub mod solver;

use alloc::vec::Vec;

use rejoin_proto::layout::{BadLayout, LayoutNode, MAX_OWNERS};
use rejoin_proto::{Layout, LayoutPolicy};

/// The number of partitions of a new cluster.
pub const DEFAULT_PARTITIONS: u32 = 256;

/// The first layout over equal nodes. The owners of a partition are in different zones as far as there are any; within
/// that, every prefix of the owner lists is balanced over the nodes (within three lists at 256 partitions), so that a
/// bucket of any n is. Zones of unequal size cannot be both, and are kept apart first. The same nodes give the same
/// layout on every node.
///
/// # Errors
/// [`BadLayout`] if there are no nodes, too many, two of one name, or the number of partitions is no power of two.
pub fn bootstrap(mut nodes: Vec<LayoutNode>, partitions: u32) -> Result<Layout, BadLayout> {
    nodes.sort_by_key(|node| node.id);
    let mut load =
        Load { held: alloc::vec![[0; MAX_OWNERS]; nodes.len()], heirs: alloc::vec![0; nodes.len() * nodes.len()] };
    let owners = (0..partitions as usize).map(|_| owner_list(&nodes, &mut load)).collect();
    let layout = Layout { version: 1, policy: LayoutPolicy::default(), nodes, owners };
    layout.check()?;
    Ok(layout)
}

/// What the lists made so far demand of each node.
struct Load {
    /// Per node and position: in how many lists it stands up to that position.
    held: Vec<[u32; MAX_OWNERS]>,
    /// Per pair of nodes: in how many lists the second comes right after the first, and so takes over from it.
    heirs: Vec<u32>,
}

/// Picks the owners of the next partition one position after the other: from the zone that is least in the list, a node
/// that stands in few lists up to that position, and second the one that least often comes after that first owner, so
/// that a dead node's load falls on all the others.
fn owner_list(nodes: &[LayoutNode], load: &mut Load) -> Vec<u16> {
    let count = nodes.len();
    let mut list: Vec<usize> = Vec::with_capacity(MAX_OWNERS);
    for position in 0..count.min(MAX_OWNERS) {
        let least = load.held.iter().map(|held| held[position]).min().unwrap_or_default();
        let rank = |node: usize| {
            let zone_mates = list.iter().filter(|&&other| nodes[other].zone == nodes[node].zone).count();
            let held = load.held[node][position];
            match list.as_slice() {
                // One more list than the least is near enough for an heir: without that slack every node would have one
                // and the same.
                [first] => (zone_mates, held.saturating_sub(least + 1), load.heirs[first * count + node], held),
                _ => (zone_mates, held, 0, 0),
            }
        };
        let Some(next) = (0..count).filter(|node| !list.contains(node)).min_by_key(|&node| rank(node)) else { break };
        if let [first] = list.as_slice() {
            load.heirs[first * count + next] += 1;
        }
        list.push(next);
        list.iter().for_each(|&node| load.held[node][position] += 1);
    }
    list.into_iter().filter_map(|at| u16::try_from(at).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
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
        assert_eq!(bootstrap(Vec::new(), 256), Err(BadLayout::Nodes));
        assert_eq!(bootstrap(nodes(3, 1), 100), Err(BadLayout::Partitions));
        let mut doubled = nodes(2, 1);
        doubled.push(doubled[0].clone());
        assert_eq!(bootstrap(doubled, 256), Err(BadLayout::Order));
    }
}
