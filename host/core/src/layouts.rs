//! The live layouts: one, or two while partitions move from an older layout to the newest.
//!
//! A request needs its quorum in each live layout, so that a quorum of either meets it. Layouts become live and cease
//! to be elsewhere; here is only who owns what meanwhile.

use smallvec::SmallVec;

use rejoin_proto::{Layout, NodeId, PartitionId};

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
}
