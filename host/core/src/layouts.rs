//! The live layouts: one, or two while partitions move from an older layout to the newest.
//!
//! A request needs its quorum in each live layout, so that a quorum of either meets it. Layouts become live and cease
//! to be elsewhere; here is only who owns what meanwhile.

use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::{Layout, LayoutNode, NodeId, PartitionId};

/// The most fallbacks that a walk around the ring finds. More than a write can use unless many of them fail during it.
pub const MAX_FALLBACKS: usize = 16;

/// In which of the live layouts something holds, a bit for each, the newest first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LayoutSet(u8);

impl LayoutSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);
    /// The newest one.
    pub const NEWEST: Self = Self(1);
    /// The older one.
    pub const OLDER: Self = Self(2);
    /// Both.
    pub const ALL: Self = Self(3);

    /// In either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The layouts in it, one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        [Self::NEWEST, Self::OLDER].into_iter().filter(move |layout| self.contains(*layout))
    }
}

/// For which live layouts a node's answer counts, and in which of them the node is an owner.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seat {
    /// Where its answer counts.
    pub counts: LayoutSet,
    /// Where the node is an owner. Elsewhere it stands in for one.
    pub owns: LayoutSet,
}

impl Seat {
    /// The seat of an owner.
    #[must_use]
    pub fn owner(layouts: LayoutSet) -> Self {
        Self { counts: layouts, owns: layouts }
    }

    /// The seat of a fallback, which stands in for an owner.
    #[must_use]
    pub fn fallback(layouts: LayoutSet) -> Self {
        Self { counts: layouts, owns: LayoutSet::EMPTY }
    }
}

/// The owners of a partition in all live layouts, each once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Owners(SmallVec<[(NodeId, LayoutSet); 5]>);

impl Owners {
    /// The nodes, those of the newest layout first, each layout in its order of preference.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().map(|&(node, _)| node)
    }

    /// Each node with its seat.
    pub fn seats(&self) -> impl Iterator<Item = (NodeId, Seat)> + '_ {
        self.0.iter().map(|&(node, layouts)| (node, Seat::owner(layouts)))
    }

    /// Whether a node is one of them.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.iter().any(|owner| owner == node)
    }

    /// All but one.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        Self(self.0.iter().copied().filter(|(owner, _)| *owner != node).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, node: NodeId, layout: LayoutSet) {
        match self.0.iter_mut().find(|(owner, _)| *owner == node) {
            Some((_, layouts)) => *layouts = layouts.union(layout),
            None => self.0.push((node, layout)),
        }
    }
}

/// The live layouts of a cluster.
#[derive(Clone, Debug)]
pub struct LiveLayouts {
    newest: Layout,
    older: Option<Layout>,
}

impl From<Layout> for LiveLayouts {
    fn from(newest: Layout) -> Self {
        Self { newest, older: None }
    }
}

impl LiveLayouts {
    /// Two live layouts.
    ///
    /// # Panics
    /// If they have different numbers of partitions: then a partition of one is none of the other.
    #[must_use]
    pub fn moving(older: Layout, newest: Layout) -> Self {
        assert_eq!(older.partitions(), newest.partitions(), "layouts that are live together have the same partitions");
        Self { newest, older: Some(older) }
    }

    /// The layout by which requests are routed.
    #[must_use]
    pub fn newest(&self) -> &Layout {
        &self.newest
    }

    /// All of them, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Layout> {
        core::iter::once(&self.newest).chain(&self.older)
    }

    /// The first `n` owners of a partition in each live layout.
    #[must_use]
    pub fn owners(&self, partition: PartitionId, n: u8) -> Owners {
        let mut owners = Owners::default();
        for (layout, set) in self.iter().zip([LayoutSet::NEWEST, LayoutSet::OLDER]) {
            layout.owners(partition, n).for_each(|node| owners.add(node.id, set));
        }
        owners
    }

    /// Whether a node is one of the first `n` owners of a partition in a live layout.
    #[must_use]
    pub fn owns(&self, node: NodeId, partition: PartitionId, n: u8) -> bool {
        self.iter().any(|layout| layout.owners(partition, n).any(|owner| owner.id == node))
    }

    /// The nodes that may stand in for owners of a partition in a bucket of `n` copies, the preferred one first, and at
    /// most [`MAX_FALLBACKS`].
    ///
    /// They are met on a walk around the ring of the newest layout, from the partition on. Owners in any live layout
    /// are none, and neither is a node that `usable` does not accept. Of those that are met, each next one is of the
    /// zone that has the fewest usable owners and fallbacks before it: a zone without a usable owner comes first.
    #[must_use]
    pub fn fallbacks(&self, partition: PartitionId, n: u8, usable: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let owners = self.owners(partition, n);
        let zone = |id| self.iter().find_map(|layout| layout.node(id)).map(|node| &node.zone);
        let mut zones: Vec<_> = owners.iter().filter(|owner| usable(*owner)).filter_map(zone).collect();
        let mut met = self.walk(partition, |node| usable(node) && !owners.contains(node));
        let mut fallbacks = Vec::with_capacity(met.len());
        while !met.is_empty() {
            let mates = |node: &&LayoutNode| zones.iter().filter(|zone| **zone == &node.zone).count();
            // The first of the least: the order of the walk decides between equal zones.
            let Some(next) = (0..met.len()).min_by_key(|at| mates(&met[*at])) else { break };
            let node = met.remove(next);
            zones.push(&node.zone);
            fallbacks.push(node.id);
        }
        fallbacks
    }

    /// The first nodes that `accepts`, in the order in which a walk around the ring meets them.
    fn walk(&self, from: PartitionId, accepts: impl Fn(NodeId) -> bool) -> Vec<&LayoutNode> {
        let partitions = self.newest.partitions();
        let mut met: Vec<&LayoutNode> = Vec::new();
        for step in 0..partitions {
            let at = (u32::from(from.0) + step) % partitions;
            for node in self.newest.owners(PartitionId(u16::try_from(at).unwrap_or(u16::MAX)), u8::MAX) {
                if !met.iter().any(|other| other.id == node.id) && accepts(node.id) {
                    met.push(node);
                    if met.len() == MAX_FALLBACKS {
                        return met;
                    }
                }
            }
        }
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::bootstrap;
    use alloc::format;
    use alloc::vec::Vec;
    use rejoin_proto::{LayoutNode, Name};

    fn layout(nodes: core::ops::Range<u16>) -> Layout {
        let node = |at: u16| {
            let name = Name::new(format!("n{at}")).expect("a good name");
            let zone = Name::new("z").expect("a good name");
            LayoutNode {
                id: NodeId::from_name(&name),
                name,
                zone,
                capacity: 1,
                address: ([127, 0, 0, 1], 7000 + at).into(),
            }
        };
        bootstrap(nodes.map(node).collect(), 16).expect("a layout")
    }

    #[test]
    fn one_layout_has_its_owners_in_their_order() {
        let (one, live) = (layout(0..5), LiveLayouts::from(layout(0..5)));
        for partition in (0..16).map(PartitionId) {
            let ids: Vec<NodeId> = one.owners(partition, 3).map(|node| node.id).collect();
            let owners = live.owners(partition, 3);
            assert_eq!(owners.iter().collect::<Vec<_>>(), ids);
            assert!(owners.seats().all(|(_, seat)| seat == Seat::owner(LayoutSet::NEWEST)));
        }
    }

    #[test]
    fn an_owner_in_both_layouts_stands_once_with_a_seat_in_each() {
        let (older, newest) = (layout(0..3), layout(1..5));
        let live = LiveLayouts::moving(older.clone(), newest.clone());
        for partition in (0..16).map(PartitionId) {
            let owners = live.owners(partition, 3);
            let owns = |layout: &Layout, id| layout.owners(partition, 3).any(|node| node.id == id);
            for (id, seat) in owners.seats() {
                assert_eq!(seat.owns.contains(LayoutSet::NEWEST), owns(&newest, id));
                assert_eq!(seat.owns.contains(LayoutSet::OLDER), owns(&older, id));
            }
            assert!(older.owners(partition, 3).chain(newest.owners(partition, 3)).all(|node| owners.contains(node.id)));
            let first = newest.owners(partition, 1).next().map(|node| node.id);
            assert_eq!(owners.iter().next(), first, "requests go to the newest layout first");
            let mut ids: Vec<NodeId> = owners.iter().collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), owners.len());
            assert_eq!(owners.without(ids[0]).len(), owners.len() - 1);
        }
    }

    /// `nodes` nodes in `zones` zones.
    fn zoned(nodes: u16, zones: u16) -> Layout {
        let node = |at: u16| {
            let (name, zone) = (format!("n{at}"), format!("z{}", at % zones));
            let (name, zone) = (Name::new(name).expect("a good name"), Name::new(zone).expect("a good name"));
            let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], 7000 + at).into());
            LayoutNode { id, name, zone, capacity: 1, address }
        };
        bootstrap((0..nodes).map(node).collect(), 16).expect("a layout")
    }

    /// Every set of usable nodes of small clusters, and some of larger ones.
    fn usable_sets(layout: &Layout) -> impl Iterator<Item = Vec<NodeId>> + '_ {
        let picked = |set: u32| {
            let nodes = layout.nodes.iter().enumerate();
            nodes.filter(move |(at, _)| set >> at & 1 == 1).map(|(_, node)| node.id).collect()
        };
        (0..1_u32 << layout.nodes.len().min(7)).map(move |set| picked(set.wrapping_mul(0x9E37_79B1) ^ set))
    }

    #[test]
    fn fallbacks_are_all_usable_nodes_that_own_nothing_of_the_partition_each_once() {
        for (nodes, zones, n) in [(3, 1, 3), (4, 2, 3), (5, 1, 3), (5, 3, 2), (7, 3, 3), (9, 3, 5)] {
            let layout = zoned(nodes, zones);
            let live = LiveLayouts::from(layout.clone());
            for (usable, partition) in usable_sets(&layout).flat_map(|usable| (0..16).map(move |p| (usable.clone(), p)))
            {
                let partition = PartitionId(partition);
                let mut found = live.fallbacks(partition, n, |node| usable.contains(&node));
                found.sort();
                let owns = |node: &NodeId| layout.owners(partition, n).any(|owner| owner.id == *node);
                let mut expected: Vec<NodeId> = usable.into_iter().filter(|node| !owns(node)).collect();
                expected.sort();
                assert_eq!(found, expected, "{nodes} nodes in {zones} zones, n = {n}, {partition}");
            }
        }
    }

    #[test]
    fn each_fallback_is_of_the_zone_that_has_the_fewest_before_it() {
        let layout = zoned(9, 3);
        let live = LiveLayouts::from(layout.clone());
        let zone = |node: NodeId| layout.node(node).map(|node| node.zone.clone()).expect("a node");
        for usable in usable_sets(&layout) {
            for partition in (0..16).map(PartitionId) {
                let owners = live.owners(partition, 3);
                let mut before: Vec<Name> = owners.iter().filter(|node| usable.contains(node)).map(zone).collect();
                let mut left = live.fallbacks(partition, 3, |node| usable.contains(&node));
                while !left.is_empty() {
                    let mates = |node: &NodeId| before.iter().filter(|other| **other == zone(*node)).count();
                    let least = left.iter().map(mates).min();
                    assert_eq!(Some(mates(&left[0])), least, "{partition}: {left:?} after {before:?}");
                    before.push(zone(left.remove(0)));
                }
            }
        }
    }

    #[test]
    fn an_owner_in_either_live_layout_is_no_fallback_and_the_walk_is_bounded() {
        let live = LiveLayouts::moving(layout(0..3), layout(2..30));
        for partition in (0..16).map(PartitionId) {
            let (owners, fallbacks) = (live.owners(partition, 3), live.fallbacks(partition, 3, |_| true));
            assert_eq!(fallbacks.len(), MAX_FALLBACKS);
            assert!(fallbacks.iter().all(|node| !owners.contains(*node) && !live.owns(*node, partition, 3)));
        }
    }

    #[test]
    fn a_dead_nodes_writes_are_spread_over_all_that_own_nothing_of_them() {
        let layout = zoned(6, 1);
        let live = LiveLayouts::from(layout.clone());
        let dead = layout.nodes[0].id;
        let first = |partition: PartitionId| live.fallbacks(partition, 3, |node| node != dead).first().copied();
        let mut firsts: Vec<NodeId> =
            (0..16).map(PartitionId).filter(|p| live.owns(dead, *p, 3)).filter_map(first).collect();
        firsts.sort();
        firsts.dedup();
        assert!(firsts.len() >= 4, "{firsts:?}");
    }
}
