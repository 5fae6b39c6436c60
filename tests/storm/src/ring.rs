//! What part each node has in the layout, as far as the storm has changed it, and which nodes a change can be about.

use rejoin_client::admin::{LayoutChanges, Name, NodeChange};
use rejoin_test_cluster::name;
use rejoin_test_sim::history::NodeIndex;

use crate::changes::{Change, Due};
use crate::plan::Place;
use crate::{MEMBERS, NODES, ZONES};

/// The fewest members with capacity: with three copies, one of them may be away.
const LEAST: usize = 4;

/// A node's part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A member with that capacity.
    Member(u32),
    /// It runs, and is no member.
    Out,
    /// It is dead for good, until its place in the layout is another's.
    Gone,
}

/// A change, with the nodes that it is about.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// For the operator.
    pub changes: LayoutChanges,
    /// The parts of the nodes when it is carried out.
    pub then: Vec<(NodeIndex, Part)>,
    /// The node that dies for it.
    pub dies: Option<NodeIndex>,
}

/// The parts of all nodes.
#[derive(Debug)]
pub struct Parts(Vec<Part>);

/// The name of a node.
#[must_use]
pub fn name_of(node: NodeIndex) -> Name {
    name(&Place::Node(node).to_string())
}

fn zone(number: u8) -> Name {
    name(&format!("z{}", number % ZONES + 1))
}

impl Default for Parts {
    fn default() -> Self {
        Self((0..NODES).map(|node| if node < MEMBERS { Part::Member(1) } else { Part::Out }).collect())
    }
}

impl Parts {
    /// The part of a node.
    #[must_use]
    pub fn of(&self, node: NodeIndex) -> Part {
        self.0[usize::from(node)]
    }

    /// A node has another part.
    pub fn set(&mut self, node: NodeIndex, part: Part) {
        self.0[usize::from(node)] = part;
    }

    /// All nodes that are not dead for good.
    pub fn alive(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        (0..NODES).filter(|node| self.of(*node) != Part::Gone)
    }

    /// Two members that are killed beside a change, one after the other.
    #[must_use]
    pub fn victims(&self, due: &Due) -> Vec<NodeIndex> {
        let members: Vec<NodeIndex> = (0..NODES).filter(|node| matches!(self.of(*node), Part::Member(1..))).collect();
        let first = usize::try_from(due.pick).unwrap_or_default();
        (0..members.len().min(2)).map(|more| members[first.wrapping_add(more) % members.len()]).collect()
    }

    /// Chooses the nodes for a change. `None` if there are none for it now.
    #[must_use]
    pub fn choose(&self, due: &Due) -> Option<Chosen> {
        let those = |fits: fn(Part) -> bool| (0..NODES).filter(move |node| fits(self.of(*node))).collect::<Vec<_>>();
        let (weighing, out) = (those(|part| matches!(part, Part::Member(1..))), those(|part| part == Part::Out));
        let pick = |among: &[NodeIndex]| {
            let at = usize::try_from(due.pick).unwrap_or_default().checked_rem(among.len())?;
            among.get(at).copied()
        };
        let assign = |node: NodeIndex, zone: Option<Name>, capacity: Option<u32>| NodeChange::Assign {
            node: name_of(node),
            zone,
            capacity,
        };
        let of = |nodes| LayoutChanges { nodes, ..LayoutChanges::default() };
        let one =
            |node: NodeIndex, change, part| Chosen { changes: of(vec![change]), then: vec![(node, part)], dies: None };
        let spare = weighing.len() > LEAST;
        match due.change {
            Change::Join => {
                let empty = those(|part| part == Part::Member(0));
                let node = pick(&out).or_else(|| pick(&empty))?;
                Some(one(node, assign(node, Some(zone(node)), Some(1)), Part::Member(1)))
            }
            Change::Leave => {
                let node = pick(&weighing).filter(|_| spare)?;
                Some(one(node, NodeChange::Remove(name_of(node)), Part::Out))
            }
            Change::Drain => {
                let node = pick(&weighing).filter(|_| spare)?;
                Some(one(node, assign(node, None, Some(0)), Part::Member(0)))
            }
            Change::Replace => {
                let (dies, takes) = (pick(&weighing)?, pick(&out)?);
                let nodes = vec![NodeChange::Remove(name_of(dies)), assign(takes, Some(zone(takes)), Some(1))];
                Some(Chosen { changes: of(nodes), then: vec![(takes, Part::Member(1))], dies: Some(dies) })
            }
            Change::Weigh(capacity) => {
                let node = pick(&weighing)?;
                Some(one(node, assign(node, None, Some(capacity)), Part::Member(capacity)))
            }
            Change::Move(to) => {
                let node = pick(&weighing)?;
                Some(one(node, assign(node, Some(zone(to)), None), self.of(node)))
            }
            // Whether the ring may have so many partitions its nodes say.
            Change::Split(_) => {
                let changes = LayoutChanges { split: true, ..LayoutChanges::default() };
                Some(Chosen { changes, then: Vec::new(), dies: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Beside;

    fn due(change: Change) -> Due {
        Due { at_ms: 0, change, pick: 7 }
    }

    #[test]
    fn a_split_is_about_no_node_and_two_members_are_killed_beside_it() {
        let mut parts = Parts::default();
        let due = due(Change::Split(Beside::Kills));
        let split = parts.choose(&due).expect("it needs no node");
        assert!(split.changes.split && split.changes.nodes.is_empty() && split.then.is_empty());
        parts.set(0, Part::Gone);
        parts.set(1, Part::Member(0));
        let victims = parts.victims(&due);
        assert!(victims.len() == 2 && victims[0] != victims[1], "{victims:?}");
        assert!(victims.iter().all(|node| (2..MEMBERS).contains(node)), "{victims:?} have data");
    }

    #[test]
    fn nodes_that_fit_are_chosen_and_enough_of_them_keep_their_capacity() {
        let mut parts = Parts::default();
        let joins = parts.choose(&due(Change::Join)).expect("two are out");
        assert!(joins.then[0].0 >= MEMBERS && joins.then[0].1 == Part::Member(1));
        let replaced = parts.choose(&due(Change::Replace)).expect("a member and one that is out");
        assert!(replaced.dies.is_some_and(|dies| dies < MEMBERS) && replaced.changes.nodes.len() == 2);
        let left = parts.choose(&due(Change::Leave)).expect("five members");
        left.then.iter().for_each(|(node, part)| parts.set(*node, *part));
        assert!(parts.choose(&due(Change::Drain)).is_none(), "four are left");
        (0..NODES).filter(|node| parts.of(*node) == Part::Out).collect::<Vec<_>>().into_iter().for_each(|node| {
            parts.set(node, Part::Gone);
        });
        assert!(parts.choose(&due(Change::Join)).is_none() && parts.alive().count() == LEAST);
    }
}
