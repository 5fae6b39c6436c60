//! Who owns what: the layout that a cluster starts with.

use alloc::vec::Vec;

use rejoin_proto::Layout;
use rejoin_proto::layout::{BadLayout, LayoutNode, MAX_OWNERS};

/// The number of partitions of a new cluster.
pub const DEFAULT_PARTITIONS: u32 = 256;

/// The first layout over equal nodes: every prefix of the owner lists is balanced within one partition per node and position, and
/// the owners of a partition are in different zones as far as there are any. The same nodes give the same layout on every node.
///
/// # Errors
/// [`BadLayout`] if there are no nodes, too many, two of one name, or the number of partitions is no power of two.
pub fn bootstrap(mut nodes: Vec<LayoutNode>, partitions: u32) -> Result<Layout, BadLayout> {
    nodes.sort_by_key(|node| node.id);
    let owners = (0..partitions as usize).map(|partition| owner_list(&nodes, partition)).collect();
    let layout = Layout { version: 1, nodes, owners };
    layout.check()?;
    Ok(layout)
}

/// Rotates the first owner over all nodes and the others behind it, so that the load of a dead node falls on all the rest; then moves
/// nodes of zones that are already in the list to its end.
fn owner_list(nodes: &[LayoutNode], partition: usize) -> Vec<u16> {
    let count = nodes.len();
    if count == 0 {
        return Vec::new();
    }
    let first = partition % count;
    let turn = if count > 1 { (partition / count) % (count - 1) } else { 0 };
    let rest = (0..count - 1).map(|at| (first + 1 + (at + turn) % (count - 1)) % count);
    let mut fresh = alloc::vec![first];
    let mut repeated = Vec::new();
    for node in rest {
        let known_zone = fresh.iter().any(|&at| nodes[at].zone == nodes[node].zone);
        if known_zone { repeated.push(node) } else { fresh.push(node) }
    }
    fresh.extend(repeated);
    fresh.into_iter().take(MAX_OWNERS).filter_map(|at| u16::try_from(at).ok()).collect()
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
            LayoutNode { id: NodeId::from_name(&name), name, zone, capacity: 1, address: ([127, 0, 0, 1], 7000 + at as u16).into() }
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn first_owners_are_balanced_within_one() {
        for count in 1..=7 {
            let layout = bootstrap(nodes(count, 1), 256).expect("a layout");
            let firsts = |id| (0..256).filter(|&p| layout.owners(PartitionId(p), 1).next().is_some_and(|node| node.id == id)).count();
            let shares: Vec<usize> = layout.nodes.iter().map(|node| firsts(node.id)).collect();
            let (least, most) = (shares.iter().min().expect("nodes"), shares.iter().max().expect("nodes"));
            assert!(most - least <= 1, "{count} nodes: {shares:?}");
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
