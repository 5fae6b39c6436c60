//! What a layout gives to each node, and what another layout would move.
//!
//! Nothing is decided here: [`shares`] counts one layout, [`compare`] counts two, [`crowded`] finds partitions whose
//! copies are in fewer zones than they could be. All are for the first `n` owners of each partition, as a bucket with
//! `n` copies uses them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rejoin_proto::{Layout, Name, NodeId, PartitionId};

/// In how many partitions each node of a layout is among the first `n` owners, in the order of [`Layout::nodes`].
#[must_use]
pub fn shares(layout: &Layout, n: u8) -> Vec<u32> {
    let mut shares = alloc::vec![0; layout.nodes.len()];
    for list in &layout.owners {
        for &owner in list.iter().take(usize::from(n)) {
            shares[usize::from(owner)] += 1;
        }
    }
    shares
}

/// What changes for one node, in partitions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NodeChange {
    /// Those that it owns before.
    pub before: u32,
    /// Those that it owns afterwards.
    pub after: u32,
    /// Those that it has to copy from others, as it does not own them before.
    pub gains: u32,
    /// Those that it gives up.
    pub loses: u32,
}

/// What a change of layout moves.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LayoutChange {
    /// Every node of either layout.
    pub nodes: BTreeMap<NodeId, NodeChange>,
}

impl LayoutChange {
    /// The copies of partitions that move to another node. A change of order within an owner list moves nothing.
    #[must_use]
    pub fn moved(&self) -> u32 {
        self.nodes.values().map(|node| node.gains).sum()
    }

    /// The fewest moves with which any layout could give the nodes what they own afterwards: the sum of what the
    /// growing nodes grow by. Zones may make more necessary.
    #[must_use]
    pub fn least_moved(&self) -> u32 {
        self.nodes.values().map(|node| node.after.saturating_sub(node.before)).sum()
    }
}

/// Two layouts that cannot be compared: a partition of one is none of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a layout of {before} partitions cannot be compared with one of {after}")]
pub struct OtherPartitions {
    /// The partitions of the first one.
    pub before: u32,
    /// The partitions of the second one.
    pub after: u32,
}

/// Counts what moves between two layouts, for buckets with `n` copies.
///
/// # Errors
/// [`OtherPartitions`] if they have different numbers of partitions.
pub fn compare(before: &Layout, after: &Layout, n: u8) -> Result<LayoutChange, OtherPartitions> {
    if before.partitions() != after.partitions() {
        return Err(OtherPartitions { before: before.partitions(), after: after.partitions() });
    }
    let mut change = LayoutChange::default();
    for (layout, share) in [(before, false), (after, true)] {
        for (node, owned) in layout.nodes.iter().zip(shares(layout, n)) {
            let of = change.nodes.entry(node.id).or_default();
            *(if share { &mut of.after } else { &mut of.before }) = owned;
        }
    }
    for partition in partitions(before) {
        let ids = |layout: &Layout| layout.owners(partition, n).map(|node| node.id).collect::<Vec<NodeId>>();
        let (old, new) = (ids(before), ids(after));
        for id in new.iter().filter(|id| !old.contains(id)) {
            change.nodes.entry(*id).or_default().gains += 1;
        }
        for id in old.iter().filter(|id| !new.contains(id)) {
            change.nodes.entry(*id).or_default().loses += 1;
        }
    }
    Ok(change)
}

/// The partitions whose first `n` owners are in fewer zones than the nodes of the layout allow: `n`, or all zones if
/// there are fewer.
#[must_use]
pub fn crowded(layout: &Layout, n: u8) -> Vec<PartitionId> {
    let possible = distinct(layout.nodes.iter().map(|node| &node.zone)).min(usize::from(n));
    let zones = |partition: &PartitionId| distinct(layout.owners(*partition, n).map(|node| &node.zone));
    partitions(layout).filter(|partition| zones(partition) < possible).collect()
}

fn distinct<'a>(zones: impl Iterator<Item = &'a Name>) -> usize {
    zones.collect::<alloc::collections::BTreeSet<_>>().len()
}

fn partitions(layout: &Layout) -> impl Iterator<Item = PartitionId> {
    // A layout has 65 536 partitions at most.
    (0..layout.partitions()).filter_map(|at| u16::try_from(at).ok()).map(PartitionId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::bootstrap;
    use alloc::format;
    use proptest::prelude::*;
    use rejoin_proto::{LayoutNode, LayoutPolicy};

    fn node(at: u16, zones: u16) -> LayoutNode {
        let name = |text| Name::new(text).expect("a good name");
        let (name, zone) = (name(format!("n{at}")), name(format!("z{}", at % zones)));
        let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], 7000 + at).into());
        LayoutNode { id, name, zone, capacity: 1, address }
    }

    fn layout(nodes: core::ops::Range<u16>, zones: u16) -> Layout {
        bootstrap(nodes.map(|at| node(at, zones)).collect(), 16).expect("a layout")
    }

    /// A layout with any owners: three of a few nodes for each partition.
    fn any_layout() -> impl Strategy<Value = Layout> {
        let lists = proptest::collection::vec(proptest::sample::subsequence((0..6).collect::<Vec<u16>>(), 3), 16);
        (0..4_u16, lists).prop_map(|(first, owners)| Layout { owners, ..layout(first..first + 6, 2) })
    }

    #[test]
    fn a_layout_moves_nothing_to_itself_and_order_alone_moves_nothing() {
        let before = layout(0..5, 1);
        let mut turned = before.clone();
        turned.owners.iter_mut().for_each(|list| list[..3].reverse());
        for after in [before.clone(), turned] {
            let change = compare(&before, &after, 3).expect("comparable");
            assert_eq!((change.moved(), change.least_moved()), (0, 0));
        }
    }

    #[test]
    fn a_node_that_takes_the_place_of_another_gains_all_that_it_had() {
        let before = layout(0..4, 1);
        let (left, came) = (before.nodes[2].id, node(9, 1));
        // Owners are indices of nodes that are ordered by id, so the new node has its own index.
        let mut nodes: Vec<LayoutNode> = before.nodes.iter().filter(|node| node.id != left).cloned().collect();
        nodes.push(came.clone());
        nodes.sort_by_key(|node| node.id);
        let place = |id: NodeId| {
            let id = if id == left { came.id } else { id };
            nodes.iter().position(|node| node.id == id).expect("a node") as u16
        };
        let list = |list: &Vec<u16>| list.iter().map(|&at| place(before.nodes[usize::from(at)].id)).collect();
        let owners = before.owners.iter().map(list).collect();
        let after =
            Layout { version: 2, policy: LayoutPolicy::default(), nodes: nodes.clone(), owners, copies: Vec::new() };
        after.check().expect("a sound layout");
        let change = compare(&before, &after, 3).expect("comparable");
        let had = shares(&before, 3)[2];
        assert!(had > 0);
        assert_eq!(change.nodes[&left], NodeChange { before: had, after: 0, gains: 0, loses: had });
        assert_eq!(change.nodes[&came.id], NodeChange { before: 0, after: had, gains: had, loses: 0 });
        assert_eq!((change.moved(), change.least_moved()), (had, had));
    }

    #[test]
    fn layouts_of_other_partitions_are_not_compared() {
        let (before, mut after) = (layout(0..3, 1), layout(0..3, 1));
        after.owners.truncate(8);
        assert_eq!(compare(&before, &after, 3), Err(OtherPartitions { before: 16, after: 8 }));
    }

    #[test]
    fn a_partition_is_crowded_if_its_zones_could_be_more() {
        let mut layout = layout(0..4, 2);
        assert_eq!(crowded(&layout, 3), [], "two zones for three copies are all that there are");
        let one_zone = layout.nodes.iter().enumerate().filter(|(_, node)| node.zone.as_str() == "z1");
        layout.owners[5] = one_zone.map(|(at, _)| at as u16).collect();
        assert_eq!(crowded(&layout, 2), [PartitionId(5)]);
        assert_eq!(crowded(&layout, 1), [], "one copy is in one zone");
    }

    proptest! {
        #[test]
        fn what_a_node_gains_and_loses_explains_its_share(
            before in any_layout(), after in any_layout(), n in 1..=3_u8
        ) {
            let change = compare(&before, &after, n).expect("comparable");
            for (id, of) in &change.nodes {
                prop_assert_eq!(of.before + of.gains, of.after + of.loses);
                let owned = |layout: &Layout| partitions(layout)
                    .filter(|partition| layout.owners(*partition, n).any(|node| node.id == *id)).count() as u32;
                prop_assert_eq!((of.before, of.after), (owned(&before), owned(&after)));
            }
            prop_assert!(change.least_moved() <= change.moved() && change.moved() <= 16 * u32::from(n));
            let back = compare(&after, &before, n).expect("comparable");
            prop_assert_eq!(back.moved(), change.moved(), "every copy that comes to a node has left another");
            prop_assert_eq!(shares(&after, n).iter().sum::<u32>(), 16 * u32::from(n));
        }
    }
}
