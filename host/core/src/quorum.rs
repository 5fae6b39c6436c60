//! Counts answers: a [`Tally`] is told what came and says whether that is enough, still possible, or not any more.
//!
//! A quorum is needed in each layout in which one of the asked nodes counts: for a write that is every live layout, for
//! a read the one that reads use. While the copies of a bucket change, it is another number in each. The tally sends
//! nothing and knows no time. (The separation of counting from messaging is that of riak_kv's get and put cores.)

use alloc::string::String;
use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::NodeId;

use crate::layouts::{LayoutSet, Seat};

/// What a tally says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Enough answers, and enough of them from owners.
    Enough,
    /// Not yet, but those that are still to come could do.
    Waiting,
    /// Not even if all that are still to come do well.
    Impossible,
}

/// Nodes, each with where it counts.
pub(crate) type Nodes = SmallVec<[(NodeId, Seat); 5]>;

/// The good answers that are needed in a layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// From so many nodes.
    pub nodes: u8,
    /// From so many owners.
    pub owners: u8,
    /// From so many zones. 0 or 1: from any.
    pub zones: u8,
}

impl Need {
    /// The largest of the demands.
    fn most(self) -> u8 {
        self.nodes.max(self.owners).max(self.zones)
    }
}

/// The zone of each node by its number.
type Zones = SmallVec<[(NodeId, u16); 5]>;

/// What an answer from a node's zone is worth, the most first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ZoneNeed {
    /// Too few zones have answered or are going to, and the node's is none of them.
    Missing,
    /// The zones that have answered and are going to are enough, or no others are needed.
    Open,
    /// The node's zone has answered, and others are needed.
    Answered,
}

/// The answers to one question asked of several nodes.
#[derive(Clone, Debug)]
pub struct Tally {
    need: Need,
    /// The layouts in which something else is needed than `need`, because a bucket's copies change.
    other_needs: SmallVec<[(LayoutSet, Need); 1]>,
    /// The layouts in each of which so many are needed.
    layouts: LayoutSet,
    waiting: Nodes,
    good: Nodes,
    bad: Vec<(NodeId, String)>,
    /// Those of `waiting` in whose place others were asked, because they are late.
    relieved: SmallVec<[NodeId; 4]>,
    zones: Zones,
}

impl Tally {
    /// Waits, in each layout in which one of the asked nodes counts, for `needed` good answers, of which
    /// `needed_owners` from owners.
    #[must_use]
    pub fn new(needed: u8, needed_owners: u8, asked: impl IntoIterator<Item = (NodeId, Seat)>) -> Self {
        let waiting: Nodes = asked.into_iter().collect();
        let layouts = waiting.iter().fold(LayoutSet::EMPTY, |all, (_, seat)| all.union(seat.counts));
        // Where nobody is asked, a quorum is missing and not met.
        let layouts = if layouts.is_empty() { LayoutSet::NEWEST } else { layouts };
        let (good, bad, relieved) = (Nodes::new(), Vec::new(), SmallVec::new());
        let need = Need { nodes: needed, owners: needed_owners, zones: 0 };
        let other_needs = SmallVec::new();
        Self { need, other_needs, layouts, waiting, good, bad, relieved, zones: Zones::new() }
    }

    /// Needs something else in one layout.
    #[must_use]
    pub fn needing(mut self, layout: LayoutSet, need: Need) -> Self {
        if need != self.need {
            self.other_needs.push((layout, need));
        }
        self
    }

    fn need_in(&self, layout: LayoutSet) -> Need {
        let other = self.other_needs.iter().find(|(of, _)| *of == layout);
        other.map_or(self.need, |(_, need)| *need)
    }

    /// Also waits for good answers from `needed` different zones, by the zones that the nodes have.
    #[must_use]
    pub fn in_zones(mut self, needed: u8, zones: impl IntoIterator<Item = (NodeId, u16)>) -> Self {
        self.need.zones = needed;
        self.zones = zones.into_iter().collect();
        self
    }

    /// Asks one more node: a fallback, mostly. One that was asked before is not asked again.
    pub fn add(&mut self, node: NodeId, seat: Seat) {
        if !self.has_asked(node) {
            self.waiting.push((node, seat));
        }
    }

    /// Whether a node was asked, whatever it has answered.
    #[must_use]
    pub fn has_asked(&self, node: NodeId) -> bool {
        let known = |nodes: &Nodes| nodes.iter().any(|(asked, _)| *asked == node);
        known(&self.waiting) || known(&self.good) || self.bad.iter().any(|(asked, _)| *asked == node)
    }

    /// Keeps those of the nodes that are still to answer which are to be asked now. Returns the others, each with where
    /// it counts: they may be asked later, by [`add`](Self::add).
    pub fn keep(&mut self, is_asked: impl Fn(NodeId) -> bool) -> SmallVec<[(NodeId, Seat); 5]> {
        let waiting = core::mem::take(&mut self.waiting);
        let (asked, spared): (Nodes, Nodes) = waiting.into_iter().partition(|(node, _)| is_asked(*node));
        self.waiting = asked;
        spared
    }

    /// The same count, if only that node were asked.
    #[must_use]
    pub fn only(&self, node: NodeId) -> Self {
        let waiting = self.waiting.iter().copied().filter(|(asked, _)| *asked == node).collect();
        let (good, bad, relieved) = (Nodes::new(), Vec::new(), SmallVec::new());
        let (zones, other_needs) = (self.zones.clone(), self.other_needs.clone());
        Self { waiting, good, bad, relieved, zones, other_needs, ..*self }
    }

    /// Counts a good answer. A second one, or one of a node that was not asked, counts nothing: W and R are distinct
    /// nodes.
    pub fn good(&mut self, node: NodeId) {
        if let Some(at) = self.waiting.iter().position(|&(asked, _)| asked == node) {
            self.good.push(self.waiting.swap_remove(at));
        }
    }

    /// Counts a node out, with the reason. Returns where it would have counted, if it was waited for and nobody was
    /// asked in its place.
    pub fn bad(&mut self, node: NodeId, why: impl Into<String>) -> Option<Seat> {
        let at = self.waiting.iter().position(|&(asked, _)| asked == node)?;
        let (_, seat) = self.waiting.swap_remove(at);
        self.bad.push((node, why.into()));
        (!self.relieved.contains(&node)).then_some(seat)
    }

    /// Whether the answer of a node that is no owner could still help.
    #[must_use]
    pub fn lacks_nodes(&self) -> bool {
        self.layouts.each().any(|layout| {
            let good = self.good.iter().filter(|(_, seat)| seat.counts.contains(layout)).count();
            let need = self.need_in(layout);
            let zones = usize::from(need.zones);
            good < usize::from(need.nodes) || zones > 1 && self.zones_in(layout, false) < zones
        })
    }

    /// Whether a node is still to answer, and nobody was asked in its place.
    #[must_use]
    pub fn is_unrelieved(&self, node: NodeId) -> bool {
        self.is_waiting_for(node) && !self.relieved.contains(&node)
    }

    /// Notes that another node is asked in the place of one that is late, which may still answer. Returns where the
    /// late one would count; `None` if it is not waited for, or was noted before.
    pub fn relieve(&mut self, node: NodeId) -> Option<Seat> {
        let seat = self.seat(node).filter(|_| !self.relieved.contains(&node))?;
        self.relieved.push(node);
        Some(seat)
    }

    /// Stops waiting for a node that has nothing to say. It counts neither way.
    pub fn dismiss(&mut self, node: NodeId) {
        self.waiting.retain(|(asked, _)| *asked != node);
    }

    /// Counts everybody who is not counted out as good: how it would stand at best. For saying who is missing before
    /// anybody is asked.
    #[must_use]
    pub fn at_best(mut self) -> Self {
        self.good.append(&mut self.waiting);
        self
    }

    /// Where the count stands: enough when it is in every layout, impossible when it is in one.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::Enough;
        for layout in self.layouts.each() {
            match self.verdict_in(layout) {
                Verdict::Enough => {}
                Verdict::Waiting => verdict = Verdict::Waiting,
                Verdict::Impossible => return Verdict::Impossible,
            }
        }
        verdict
    }

    fn verdict_in(&self, layout: LayoutSet) -> Verdict {
        let counted = |nodes: &Nodes| nodes.iter().filter(|(_, seat)| seat.counts.contains(layout)).count();
        let owners = |nodes: &Nodes| nodes.iter().filter(|(_, seat)| seat.owns.contains(layout)).count();
        // Rule: each layout has its quorum. The copies of a bucket may differ between them.
        let need = self.need_in(layout);
        let (needed, needed_owners) = (usize::from(need.nodes), usize::from(need.owners));
        let (good, good_owners) = (counted(&self.good), owners(&self.good));
        let zones_needed = usize::from(need.zones);
        let zones = |with_waiting| if zones_needed > 1 { self.zones_in(layout, with_waiting) } else { zones_needed };
        if good >= needed && good_owners >= needed_owners && zones(false) >= zones_needed {
            Verdict::Enough
        } else if good + counted(&self.waiting) < needed
            || good_owners + owners(&self.waiting) < needed_owners
            || zones(true) < zones_needed
        {
            Verdict::Impossible
        } else {
            Verdict::Waiting
        }
    }

    /// What an answer from a node's zone would be worth in layouts in which it is to count. Of the nodes that are still
    /// to answer those count that do so `in_time` and in whose place none was asked.
    #[must_use]
    pub fn zone_need(&self, node: NodeId, layouts: LayoutSet, in_time: impl Fn(NodeId) -> bool) -> ZoneNeed {
        let Some(zone) = self.zone_of(node) else { return ZoneNeed::Open };
        let need = |layout| {
            let needed = usize::from(self.need_in(layout).zones);
            let answered = self.zones_of(layout, |_| false);
            let expected = self.zones_of(layout, |waiting| in_time(waiting) && !self.relieved.contains(&waiting));
            if answered.len() >= needed {
                ZoneNeed::Open
            } else if expected.len() < needed && !expected.contains(&zone) {
                ZoneNeed::Missing
            } else if answered.contains(&zone) {
                ZoneNeed::Answered
            } else {
                ZoneNeed::Open
            }
        };
        layouts.each().map(need).min().unwrap_or(ZoneNeed::Open)
    }

    fn zone_of(&self, node: NodeId) -> Option<u16> {
        self.zones.iter().find(|(of, _)| *of == node).map(|(_, zone)| *zone)
    }

    /// In how many zones there are good answers in a layout, or may be once all have answered.
    fn zones_in(&self, layout: LayoutSet, with_waiting: bool) -> usize {
        self.zones_of(layout, |_| with_waiting).len()
    }

    /// The zones in which there are good answers in a layout, or may be once those have answered that are expected.
    fn zones_of(&self, layout: LayoutSet, is_expected: impl Fn(NodeId) -> bool) -> SmallVec<[u16; 8]> {
        let expected = self.waiting.iter().filter(|(node, _)| is_expected(*node));
        let counted = self.good.iter().chain(expected).filter(|(_, seat)| seat.counts.contains(layout));
        let mut zones: SmallVec<[u16; 8]> = counted.filter_map(|(node, _)| self.zone_of(*node)).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    /// Whether nobody is left to answer.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether that node is still to answer.
    #[must_use]
    pub fn is_waiting_for(&self, node: NodeId) -> bool {
        self.waiting.iter().any(|&(asked, _)| asked == node)
    }

    /// Where a node counts that is still to answer.
    #[must_use]
    pub fn seat(&self, node: NodeId) -> Option<Seat> {
        self.waiting.iter().find(|(asked, _)| *asked == node).map(|(_, seat)| *seat)
    }

    /// Who is still to answer.
    pub fn waiting(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.waiting.iter().map(|&(node, _)| node)
    }

    /// The answers that are needed in all: the largest of the demands, in the layout that has the largest.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.layouts.each().map(|layout| self.need_in(layout).most()).max().unwrap_or_default()
    }

    /// The good answers so far, in the layout that has fewest. Fewer than are needed while a demand is not met: what
    /// owners or other zones would have to give is not made up for by others. More than 255 are never asked.
    #[must_use]
    pub fn got(&self) -> u8 {
        let counted = |layout| {
            let good = self.good.iter().filter(|(_, seat)| seat.counts.contains(layout)).count();
            let owners = self.good.iter().filter(|(_, seat)| seat.owns.contains(layout)).count();
            let need = self.need_in(layout);
            let zones = if need.zones > 1 { self.zones_in(layout, false) } else { 1 };
            let lacking = usize::from(need.owners).saturating_sub(owners);
            let got = match lacking.max(usize::from(need.zones).saturating_sub(zones)) {
                0 => good,
                lacking => good.min(usize::from(need.most()).saturating_sub(lacking)),
            };
            // What is enough there is enough, although another layout needs more.
            let is_met = got >= usize::from(need.most());
            if is_met { got.max(usize::from(self.needed())) } else { got }
        };
        u8::try_from(self.layouts.each().map(counted).min().unwrap_or_default()).unwrap_or(u8::MAX)
    }

    /// Who has answered well.
    pub fn answered(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.good.iter().map(|&(node, _)| node)
    }

    /// Who has not, and why: refused, or no answer yet.
    pub fn missing(&self) -> impl Iterator<Item = (NodeId, &str)> + '_ {
        let silent = self.waiting.iter().map(|&(node, _)| (node, "no answer in time"));
        self.bad.iter().map(|(node, why)| (*node, why.as_str())).chain(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two owners and a fallback.
    fn asked() -> [(NodeId, Seat); 3] {
        let (owner, fallback) = (Seat::owner(LayoutSet::NEWEST), Seat::fallback(LayoutSet::NEWEST));
        [(NodeId(1), owner), (NodeId(2), owner), (NodeId(3), fallback)]
    }

    /// The owners of a partition that moves: 1 to 3 in the older layout, 3 to 5 in the newest.
    fn moving() -> [(NodeId, Seat); 5] {
        let both = LayoutSet::NEWEST.union(LayoutSet::at(1));
        let sets = [LayoutSet::at(1), LayoutSet::at(1), both, LayoutSet::NEWEST, LayoutSet::NEWEST];
        core::array::from_fn(|at| (NodeId(at as u64 + 1), Seat::owner(sets[at])))
    }

    #[test]
    fn a_quorum_is_needed_in_each_live_layout() {
        let mut tally = Tally::new(2, 0, moving());
        for node in [1, 2] {
            tally.good(NodeId(node));
        }
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Waiting, 0), "enough in the older layout only");
        tally.good(NodeId(3));
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Waiting, 1), "a node in both counts in both");
        tally.good(NodeId(5));
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Enough, 2));
    }

    #[test]
    fn where_copies_change_each_layout_needs_as_many_as_there_are_by_it() {
        let need = |nodes| Need { nodes, owners: 0, zones: 0 };
        let mut tally = Tally::new(2, 0, moving()).needing(LayoutSet::at(1), need(1));
        tally.good(NodeId(4));
        tally.good(NodeId(5));
        assert_eq!((tally.verdict(), tally.got(), tally.needed()), (Verdict::Waiting, 0, 2));
        tally.good(NodeId(1));
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Enough, 2), "one is enough in the older layout");
        let mut more = Tally::new(2, 0, moving()).needing(LayoutSet::at(1), need(3));
        [3, 4, 1].iter().for_each(|node| more.good(NodeId(*node)));
        assert_eq!((more.verdict(), more.got(), more.needed()), (Verdict::Waiting, 2, 3));
        more.bad(NodeId(2), "down");
        assert_eq!(more.verdict(), Verdict::Impossible);
    }

    #[test]
    fn one_node_is_enough_only_where_it_counts_in_every_layout() {
        let tally = Tally::new(1, 1, moving());
        assert_eq!([3, 4].map(|node| tally.only(NodeId(node)).verdict()), [Verdict::Waiting, Verdict::Impossible]);
    }

    #[test]
    fn a_layout_without_its_quorum_makes_a_request_impossible() {
        let mut tally = Tally::new(2, 0, moving());
        for node in [1, 2, 3] {
            tally.good(NodeId(node));
        }
        tally.bad(NodeId(4), "down");
        assert_eq!(tally.verdict(), Verdict::Waiting);
        tally.bad(NodeId(5), "down");
        assert_eq!(tally.verdict(), Verdict::Impossible);
    }

    #[test]
    fn a_fallback_counts_where_it_stands_in_and_is_an_owner_nowhere() {
        let stand_in = (NodeId(6), Seat::fallback(LayoutSet::at(1)));
        let without_two = moving().into_iter().filter(|(node, _)| *node != NodeId(2)).chain([stand_in]);
        let mut tally = Tally::new(2, 1, without_two);
        for node in [6, 4, 5] {
            tally.good(NodeId(node));
        }
        assert_eq!(tally.verdict(), Verdict::Waiting, "one in the older layout, and no owner");
        tally.good(NodeId(3));
        assert_eq!(tally.verdict(), Verdict::Enough);
    }

    #[test]
    fn a_node_counts_once() {
        let mut tally = Tally::new(2, 0, asked());
        tally.good(NodeId(1));
        tally.good(NodeId(1));
        tally.good(NodeId(9));
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Waiting, 1));
    }

    #[test]
    fn a_fallback_does_not_count_as_an_owner() {
        let mut tally = Tally::new(2, 2, asked());
        tally.good(NodeId(1));
        tally.good(NodeId(3));
        assert_eq!(tally.verdict(), Verdict::Waiting);
        assert_eq!((tally.got(), tally.needed()), (1, 2), "one that is lacking is not said to be there");
        tally.bad(NodeId(2), "down");
        assert_eq!(tally.verdict(), Verdict::Impossible);
    }

    #[test]
    fn answers_come_from_as_many_zones_as_are_asked_for() {
        let zones = [(NodeId(1), 0), (NodeId(2), 0), (NodeId(3), 1)];
        let mut tally = Tally::new(2, 0, asked()).in_zones(2, zones);
        tally.good(NodeId(1));
        tally.good(NodeId(2));
        assert_eq!(tally.verdict(), Verdict::Waiting, "two nodes of one zone");
        let mut other = tally.clone();
        other.good(NodeId(3));
        assert_eq!(other.verdict(), Verdict::Enough);
        assert!(tally.bad(NodeId(3), "down").is_some());
        assert_eq!(tally.verdict(), Verdict::Impossible);
    }

    #[test]
    fn a_zone_is_needed_while_too_few_have_answered_or_are_going_to() {
        let zones = (1..=6).map(|at| (NodeId(at), at as u16 / 3));
        let (owner, layout) = (Seat::owner(LayoutSet::NEWEST), LayoutSet::NEWEST);
        // Of the zones 0, 0 and 1.
        let asked = [1, 2, 3].map(|at| (NodeId(at), owner));
        let mut tally = Tally::new(2, 0, asked).in_zones(2, zones);
        let need = |tally: &Tally, node, late| tally.zone_need(NodeId(node), layout, |node| node != NodeId(late));
        assert_eq!(need(&tally, 4, 0), ZoneNeed::Open, "two zones are going to answer");
        assert_eq!([4, 2, 6].map(|node| need(&tally, node, 3)), [ZoneNeed::Missing, ZoneNeed::Open, ZoneNeed::Missing]);
        tally.good(NodeId(1));
        assert_eq!([2, 4].map(|node| need(&tally, node, 0)), [ZoneNeed::Answered, ZoneNeed::Open]);
        tally.relieve(NodeId(3));
        assert_eq!(need(&tally, 4, 0), ZoneNeed::Missing, "somebody else is asked in the place of a late node");
        tally.good(NodeId(3));
        assert_eq!([2, 4, 6].map(|node| need(&tally, node, 0)), [ZoneNeed::Open; 3]);
        assert_eq!(need(&Tally::new(2, 0, asked), 4, 3), ZoneNeed::Open, "no zones are asked for");
    }

    #[test]
    fn a_node_is_asked_once_and_one_without_an_answer_is_not_named() {
        let mut tally = Tally::new(2, 0, asked());
        assert_eq!(tally.bad(NodeId(3), "its disk is full"), Some(Seat::fallback(LayoutSet::NEWEST)));
        assert_eq!(tally.bad(NodeId(3), "again"), None);
        tally.add(NodeId(3), Seat::fallback(LayoutSet::NEWEST));
        tally.add(NodeId(4), Seat::fallback(LayoutSet::NEWEST));
        assert!(!tally.is_waiting_for(NodeId(3)) && tally.is_waiting_for(NodeId(4)));
        tally.dismiss(NodeId(4));
        [1, 2].iter().for_each(|node| tally.good(NodeId(*node)));
        assert!(tally.is_complete());
        assert_eq!(tally.missing().collect::<Vec<_>>(), [(NodeId(3), "its disk is full")]);
    }

    #[test]
    fn those_that_are_not_asked_yet_are_not_counted_on() {
        let mut tally = Tally::new(2, 0, asked());
        let spared = tally.keep(|node| node != NodeId(3));
        assert_eq!(spared.as_slice(), [(NodeId(3), Seat::fallback(LayoutSet::NEWEST))]);
        tally.good(NodeId(3));
        tally.good(NodeId(1));
        assert_eq!((tally.verdict(), tally.got()), (Verdict::Waiting, 1));
        tally.bad(NodeId(2), "down");
        assert_eq!(tally.verdict(), Verdict::Impossible);
        spared.into_iter().for_each(|(node, seat)| tally.add(node, seat));
        assert_eq!(tally.verdict(), Verdict::Waiting);
        tally.good(NodeId(3));
        assert_eq!(tally.verdict(), Verdict::Enough);
    }

    #[test]
    fn enough_stays_enough_whatever_comes_after() {
        let mut tally = Tally::new(1, 0, asked());
        tally.good(NodeId(2));
        tally.bad(NodeId(1), "down");
        assert_eq!(tally.verdict(), Verdict::Enough);
        assert_eq!(tally.missing().count(), 2);
    }
}
