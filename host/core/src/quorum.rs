//! Counting answers, as pure functions: a [`Tally`] is told what came and says whether that is enough, still possible,
//! or not any more. (The separation of counting from messaging is that of riak_kv's get and put cores.)

use alloc::string::String;
use alloc::vec::Vec;

use smallvec::SmallVec;

use rejoin_proto::NodeId;

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

/// Nodes, each with whether it is an owner.
type Nodes = SmallVec<[(NodeId, bool); 5]>;

/// The answers to one question asked of several nodes.
#[derive(Clone, Debug)]
pub struct Tally {
    needed: u8,
    needed_owners: u8,
    waiting: Nodes,
    good: Nodes,
    bad: Vec<(NodeId, String)>,
}

impl Tally {
    /// Waits for `needed` good answers, of which `needed_owners` from owners, among the nodes asked (each with whether
    /// it is an owner).
    #[must_use]
    pub fn new(needed: u8, needed_owners: u8, asked: impl IntoIterator<Item = (NodeId, bool)>) -> Self {
        Self { needed, needed_owners, waiting: asked.into_iter().collect(), good: Nodes::new(), bad: Vec::new() }
    }

    /// Counts a good answer. A second one, or one of a node that was not asked, counts nothing: W and R are distinct
    /// nodes.
    pub fn good(&mut self, node: NodeId) {
        if let Some(at) = self.waiting.iter().position(|&(asked, _)| asked == node) {
            self.good.push(self.waiting.swap_remove(at));
        }
    }

    /// Counts a node out, with the reason.
    pub fn bad(&mut self, node: NodeId, why: impl Into<String>) {
        if let Some(at) = self.waiting.iter().position(|&(asked, _)| asked == node) {
            self.waiting.swap_remove(at);
            self.bad.push((node, why.into()));
        }
    }

    /// Counts everybody who is not counted out as good: how it would stand at best. For saying who is missing before
    /// anybody is asked.
    #[must_use]
    pub fn at_best(mut self) -> Self {
        self.good.append(&mut self.waiting);
        self
    }

    /// Where the count stands.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let owners = |nodes: &[(NodeId, bool)]| nodes.iter().filter(|(_, owner)| *owner).count();
        let (needed, needed_owners) = (usize::from(self.needed), usize::from(self.needed_owners));
        let (good, good_owners) = (self.good.len(), owners(&self.good));
        if good >= needed && good_owners >= needed_owners {
            Verdict::Enough
        } else if good + self.waiting.len() < needed || good_owners + owners(&self.waiting) < needed_owners {
            Verdict::Impossible
        } else {
            Verdict::Waiting
        }
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

    /// The answers that are needed in all: the larger of both demands.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed.max(self.needed_owners)
    }

    /// The good answers so far. More than 255 are never asked.
    #[must_use]
    pub fn got(&self) -> u8 {
        u8::try_from(self.good.len()).unwrap_or(u8::MAX)
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

    fn asked() -> Vec<(NodeId, bool)> {
        (1..=3).map(|id| (NodeId(id), id != 3)).collect()
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
        tally.bad(NodeId(2), "down");
        assert_eq!(tally.verdict(), Verdict::Impossible);
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
