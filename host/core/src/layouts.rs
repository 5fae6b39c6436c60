//! The live layouts: one, or more while partitions move from older layouts to the newest.
//!
//! A write needs its quorum in each live layout. A read needs it in one of them only, the layout that reads use: while
//! partitions move that is an older one, because its owners have everything. Layouts become live and cease to be in
//! [`ring`](crate::ring); here is only who owns what meanwhile.

use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::{Layout, LayoutNode, LayoutRange, LayoutRef, NodeId, PartitionId};

/// The most fallbacks that a walk around the ring finds. More than a write can use unless many of them fail during it.
pub const MAX_FALLBACKS: usize = 16;

/// In which of the live layouts something holds, a bit for each, the newest first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LayoutSet(u32);

impl LayoutSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);
    /// The newest one.
    pub const NEWEST: Self = Self(1);
    /// The most layouts that have a bit of their own.
    const MOST: usize = 32;

    /// The layout at that place, the newest at place 0.
    ///
    /// # Panics
    /// If the place is 32 or higher. Administrators can race to more than [`MAX_LIVE`](rejoin_proto::ring::MAX_LIVE)
    /// live layouts, but that many would need eleven of them in as many parts of a cluster that hear nothing of one
    /// another.
    #[must_use]
    pub const fn at(place: usize) -> Self {
        assert!(place < Self::MOST, "no more than 32 layouts are live at once");
        Self(1 << place)
    }

    /// The place of a single one.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` is in this.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The layouts in it, one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        let last = Self::MOST - self.0.leading_zeros() as usize;
        (0..last).map(Self::at).filter(move |layout| self.contains(*layout))
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
pub struct Owners {
    nodes: SmallVec<[(NodeId, LayoutSet); 5]>,
    /// The layout whose owners answer reads.
    reads: LayoutSet,
}

impl Owners {
    /// The nodes, those of the newest layout first, each layout in its order of preference.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|&(node, _)| node)
    }

    /// Each node with its seat.
    pub fn seats(&self) -> impl Iterator<Item = (NodeId, Seat)> + '_ {
        self.nodes.iter().map(|&(node, layouts)| (node, Seat::owner(layouts)))
    }

    /// Each owner that answers reads, with its seat in the layout that these use.
    pub fn readers(&self) -> impl Iterator<Item = (NodeId, Seat)> + '_ {
        let reading = self.nodes.iter().filter(|(_, owns)| owns.contains(self.reads));
        reading.map(|&(node, _)| (node, Seat::owner(self.reads)))
    }

    /// Whether a node is one of those.
    #[must_use]
    pub fn reads_at(&self, node: NodeId) -> bool {
        self.owns_in(node, self.reads)
    }

    /// The layout that reads use.
    #[must_use]
    pub fn reads(&self) -> LayoutSet {
        self.reads
    }

    /// Whether a node is an owner in all of these layouts.
    #[must_use]
    pub fn owns_in(&self, node: NodeId, layouts: LayoutSet) -> bool {
        self.nodes.iter().any(|(owner, owns)| *owner == node && owns.contains(layouts))
    }

    /// The owners that answer reads, but for one node, in that layout only.
    #[must_use]
    pub fn readers_besides(&self, node: NodeId) -> Self {
        let others = self.readers().filter(|(reader, _)| *reader != node);
        Self { nodes: others.map(|(reader, seat)| (reader, seat.owns)).collect(), reads: self.reads }
    }

    /// The owners in one layout, but for one node.
    #[must_use]
    pub fn others_in(&self, layout: LayoutSet, node: NodeId) -> Self {
        let others = self.nodes.iter().copied().filter(|(owner, owns)| *owner != node && owns.contains(layout));
        Self { nodes: others.collect(), reads: self.reads }
    }

    /// Whether a node is one of them.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.iter().any(|owner| owner == node)
    }

    /// All but one.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        let others = self.nodes.iter().copied().filter(|(owner, _)| *owner != node);
        Self { nodes: others.collect(), reads: self.reads }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn add(&mut self, node: NodeId, layout: LayoutSet) {
        match self.nodes.iter_mut().find(|(owner, _)| *owner == node) {
            Some((_, layouts)) => *layouts = layouts.union(layout),
            None => self.nodes.push((node, layout)),
        }
    }
}

/// The live layouts of a cluster.
///
/// All have the same partitions here, those of the ring: one that was made with fewer is seen as divided into so many
/// ([`Layout::divided`]). So a partition is the same in all of them, and a split moves nothing.
#[derive(Clone, Debug)]
pub struct LiveLayouts {
    /// The newest first. Never empty.
    layouts: Vec<Layout>,
    /// Of the layouts as they were applied.
    names: Vec<LayoutRef>,
    /// The newest one as it was applied, if that has fewer partitions.
    undivided: Option<Layout>,
    reads: LayoutSet,
}

impl LiveLayouts {
    /// These layouts, the newest last, of which reads use the one with that name, or else the oldest.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn new(mut layouts: Vec<Layout>, reads: LayoutRef) -> Self {
        assert!(!layouts.is_empty(), "a ring has a live layout");
        layouts.reverse();
        let names: Vec<LayoutRef> = layouts.iter().map(Layout::name).collect();
        let place = names.iter().position(|name| *name == reads).unwrap_or(names.len() - 1);
        let partitions = layouts.iter().map(Layout::partitions).max().unwrap_or(1);
        Self { layouts, names, undivided: None, reads: LayoutSet::at(place) }.divided(partitions)
    }

    /// The same layouts in a ring of so many partitions, if they have fewer.
    #[must_use]
    pub fn divided(mut self, partitions: u32) -> Self {
        for (place, layout) in self.layouts.iter_mut().enumerate() {
            if layout.partitions() < partitions {
                let divided = layout.divided(partitions);
                let undivided = core::mem::replace(layout, divided);
                if place == 0 {
                    self.undivided.get_or_insert(undivided);
                }
            }
        }
        self
    }

    /// The newest layout as it was applied, with its own number of partitions.
    #[must_use]
    pub fn applied(&self) -> &Layout {
        self.undivided.as_ref().unwrap_or(&self.layouts[0])
    }

    /// The layout by which requests are routed.
    #[must_use]
    pub fn newest(&self) -> &Layout {
        &self.layouts[0]
    }

    /// Its name.
    #[must_use]
    pub fn newest_name(&self) -> LayoutRef {
        self.names[0]
    }

    /// The names of the oldest and the newest one.
    #[must_use]
    pub fn range(&self) -> LayoutRange {
        LayoutRange { oldest: self.names[self.names.len() - 1], newest: self.names[0] }
    }

    /// Their names, the newest first.
    #[must_use]
    pub fn names(&self) -> &[LayoutRef] {
        &self.names
    }

    /// The layout whose owners answer reads.
    #[must_use]
    pub fn reads(&self) -> LayoutSet {
        self.reads
    }

    /// Its name.
    #[must_use]
    pub fn reads_name(&self) -> LayoutRef {
        self.names[self.reads.place()]
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> LayoutSet {
        (0..self.layouts.len()).fold(LayoutSet::EMPTY, |all, place| all.union(LayoutSet::at(place)))
    }

    /// The oldest live layout.
    #[must_use]
    pub fn oldest(&self) -> LayoutSet {
        LayoutSet::at(self.layouts.len() - 1)
    }

    /// Its name.
    #[must_use]
    pub fn oldest_name(&self) -> LayoutRef {
        self.names[self.names.len() - 1]
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.layouts.len()
    }

    /// All of them, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Layout> {
        self.layouts.iter()
    }

    /// One of them.
    ///
    /// # Panics
    /// If it is not a single one of them.
    #[must_use]
    pub fn get(&self, layout: LayoutSet) -> &Layout {
        &self.layouts[layout.place()]
    }

    /// The first `n` owners of a partition in each live layout.
    #[must_use]
    pub fn owners(&self, partition: PartitionId, n: u8) -> Owners {
        self.owners_by(partition, |_| n)
    }

    /// The first owners of a partition in each live layout, as many as there are copies by its place.
    #[must_use]
    pub fn owners_by(&self, partition: PartitionId, n: impl Fn(usize) -> u8) -> Owners {
        let mut owners = Owners { nodes: SmallVec::new(), reads: self.reads };
        for (place, layout) in self.iter().enumerate() {
            layout.owners(partition, n(place)).for_each(|node| owners.add(node.id, LayoutSet::at(place)));
        }
        owners
    }

    /// Whether a node is one of the first owners of a partition in a live layout, of as many as there are copies by its
    /// place.
    #[must_use]
    pub fn owns_by(&self, node: NodeId, partition: PartitionId, n: impl Fn(usize) -> u8) -> bool {
        let mut layouts = self.iter().enumerate();
        layouts.any(|(place, layout)| layout.owners(partition, n(place)).any(|owner| owner.id == node))
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
        let partitions = self.newest().partitions();
        let mut met: Vec<&LayoutNode> = Vec::new();
        for step in 0..partitions {
            let at = (u32::from(from.0) + step) % partitions;
            for node in self.newest().owners(PartitionId(u16::try_from(at).unwrap_or(u16::MAX)), u8::MAX) {
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

    /// One live layout.
    fn settled(layout: Layout) -> LiveLayouts {
        let name = layout.name();
        LiveLayouts::new(alloc::vec![layout], name)
    }

    /// Two live layouts. Reads use the older one.
    fn moving(older: Layout, newest: Layout) -> LiveLayouts {
        let name = older.name();
        LiveLayouts::new(alloc::vec![older, newest], name)
    }

    const OLDER: LayoutSet = LayoutSet::at(1);

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
        let (one, live) = (layout(0..5), settled(layout(0..5)));
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
        let live = moving(older.clone(), newest.clone());
        for partition in (0..16).map(PartitionId) {
            let owners = live.owners(partition, 3);
            let owns = |layout: &Layout, id| layout.owners(partition, 3).any(|node| node.id == id);
            for (id, seat) in owners.seats() {
                assert_eq!(seat.owns.contains(LayoutSet::NEWEST), owns(&newest, id));
                assert_eq!(seat.owns.contains(OLDER), owns(&older, id));
            }
            assert!(older.owners(partition, 3).chain(newest.owners(partition, 3)).all(|node| owners.contains(node.id)));
            let readers: Vec<NodeId> = owners.readers().map(|(node, _)| node).collect();
            assert_eq!(readers.len(), 3, "reads are for the owners of one layout");
            assert!(readers.iter().all(|node| owns(&older, *node) && owners.owns_in(*node, live.oldest())));
            let first = newest.owners(partition, 1).next().map(|node| node.id);
            assert_eq!(owners.iter().next(), first, "requests go to the newest layout first");
            let mut ids: Vec<NodeId> = owners.iter().collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), owners.len());
            assert_eq!(owners.without(ids[0]).len(), owners.len() - 1);
        }
    }

    #[test]
    fn each_of_many_live_layouts_has_owners_of_its_own() {
        let layouts: Vec<Layout> = (0..6).map(|at| layout(at..at + 4)).collect();
        let live = LiveLayouts::new(layouts.clone(), layouts[2].name());
        assert_eq!((live.count(), live.reads_name()), (6, layouts[2].name()));
        for partition in (0..16).map(PartitionId) {
            let owners = live.owners(partition, 3);
            for (place, layout) in layouts.iter().rev().enumerate() {
                let expected: Vec<NodeId> = layout.owners(partition, 3).map(|node| node.id).collect();
                let mut found: Vec<NodeId> = owners.others_in(LayoutSet::at(place), NodeId(0)).iter().collect();
                found.sort_by_key(|node| expected.iter().position(|other| other == node));
                assert_eq!(found, expected);
            }
        }
        let all = (0..6).fold(LayoutSet::EMPTY, |all, place| all.union(LayoutSet::at(place)));
        assert_eq!(all.each().collect::<Vec<_>>(), (0..6).map(LayoutSet::at).collect::<Vec<_>>());
        assert_eq!(LayoutSet::EMPTY.each().count(), 0);
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
            let live = settled(layout.clone());
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
        let live = settled(layout.clone());
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
        let live = moving(layout(0..3), layout(2..30));
        for partition in (0..16).map(PartitionId) {
            let (owners, fallbacks) = (live.owners(partition, 3), live.fallbacks(partition, 3, |_| true));
            assert_eq!(fallbacks.len(), MAX_FALLBACKS);
            assert!(fallbacks.iter().all(|node| !owners.contains(*node) && !live.owns_by(*node, partition, |_| 3)));
        }
    }

    #[test]
    fn a_dead_nodes_writes_are_spread_over_all_that_own_nothing_of_them() {
        let layout = zoned(6, 1);
        let live = settled(layout.clone());
        let dead = layout.nodes[0].id;
        let first = |partition: PartitionId| live.fallbacks(partition, 3, |node| node != dead).first().copied();
        let mut firsts: Vec<NodeId> =
            (0..16).map(PartitionId).filter(|p| live.owns_by(dead, *p, |_| 3)).filter_map(first).collect();
        firsts.sort();
        firsts.dedup();
        assert!(firsts.len() >= 4, "{firsts:?}");
    }
}
