//! Wrong wall clocks: each node compares its own with those of its connected peers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rejoin_proto::{Name, NodeId};

/// How often connected nodes send each other their wall clocks, in microseconds.
pub const EVERY_US: u64 = 10_000_000;

/// How far the clocks of connected peers are ahead of this node's.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    ahead_ms: BTreeMap<NodeId, i64>,
    /// As of the last report.
    reported: Verdict,
}

/// The clocks that are wrong.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Verdict {
    /// Whether this node's is one of them.
    own: bool,
    /// The peers whose clocks differ too much from this node's.
    differ: BTreeSet<NodeId>,
}

impl Clocks {
    /// Takes in a peer's wall clock.
    pub(crate) fn observe(&mut self, peer: NodeId, theirs_ms: u64, ours_ms: u64) {
        self.ahead_ms.insert(peer, i64::try_from(i128::from(theirs_ms) - i128::from(ours_ms)).unwrap_or(i64::MAX));
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.ahead_ms.remove(&peer);
    }

    /// How far this node's clock is behind, in milliseconds, if it is known to be wrong: more than half of all known
    /// clocks agree with each other, at least two of them, and differ from it by more than `max_skew_ms`. Otherwise 0.
    /// With one peer nobody can tell whose clock is wrong.
    pub(crate) fn correction_ms(&self, max_skew_ms: u64) -> i64 {
        let mut ahead: Vec<i64> = self.ahead_ms.values().copied().collect();
        ahead.sort_unstable();
        let Some(&median) = ahead.get(ahead.len() / 2) else { return 0 };
        let agree = ahead.iter().filter(|ahead| ahead.abs_diff(median) <= max_skew_ms).count();
        let is_wrong = agree >= 2 && 2 * agree > ahead.len() + 1 && median.unsigned_abs() > max_skew_ms;
        if is_wrong { median } else { 0 }
    }

    /// The clocks that are wrong, a line for each, if that has changed since the last call. This node's own clock is
    /// wrong if it differs by more than `max_skew_ms` from those of most of its peers.
    pub(crate) fn news(&mut self, max_skew_ms: u64, name: impl Fn(NodeId) -> Option<Name>) -> Option<Vec<String>> {
        let differs = |(peer, ahead): (&NodeId, &i64)| (ahead.unsigned_abs() > max_skew_ms).then_some(*peer);
        let differ: BTreeSet<NodeId> = self.ahead_ms.iter().filter_map(differs).collect();
        let verdict = Verdict { own: differ.len() * 2 > self.ahead_ms.len(), differ };
        if verdict == self.reported {
            return None;
        }
        self.reported = verdict;
        let named = |peer: &NodeId| name(*peer).map(|name| (name, self.ahead_ms[peer]));
        let apart: Vec<(Name, i64)> = self.reported.differ.iter().filter_map(named).collect();
        if self.reported.own {
            let peers: Vec<String> =
                apart.iter().map(|(name, ahead_ms)| format!("{} {name}'s", behind(*ahead_ms))).collect();
            return Some(alloc::vec![format!(
                "this node's wall clock is wrong: it is {}; set it by NTP",
                peers.join(", ")
            )]);
        }
        Some(
            apart
                .iter()
                .map(|(name, ahead_ms)| format!("the wall clock of {name} is {} this node's", behind(-ahead_ms)))
                .collect(),
        )
    }
}

/// Where a clock stands that the other one is so far ahead of.
fn behind(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs() / 1000;
    if ahead_ms >= 0 { format!("{seconds} s behind") } else { format!("{seconds} s ahead of") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: NodeId) -> Option<Name> {
        Name::new(format!("n{}", id.0)).ok()
    }

    #[test]
    fn the_clock_that_most_others_contradict_is_the_wrong_one() {
        let mut clocks = Clocks::default();
        for peer in [2, 3, 4] {
            clocks.observe(NodeId(peer), 1_000_500, 1_000_000);
        }
        assert_eq!(clocks.news(1000, name), None, "half a second is nothing");
        clocks.observe(NodeId(3), 61_000, 1_000_000);
        assert_eq!(
            clocks.news(1000, name).as_deref(),
            Some(&["the wall clock of n3 is 939 s behind this node's".into()][..])
        );
        assert_eq!(clocks.news(1000, name), None, "said once");
        for peer in [2, 4] {
            clocks.observe(NodeId(peer), 11_000_000, 1_000_000);
        }
        let lines = clocks.news(1000, name).unwrap_or_default();
        assert!(lines.len() == 1 && lines[0].contains("this node's wall clock is wrong"), "{lines:?}");
        assert!(lines[0].contains("10000 s behind n2's") && lines[0].contains("939 s ahead of n3's"), "{lines:?}");
        assert_eq!(clocks.correction_ms(1000), 0, "two of four clocks are not most of them");
        for peer in [2, 4] {
            clocks.observe(NodeId(peer), 1_000_000, 1_000_000);
        }
        clocks.forget(NodeId(3));
        assert_eq!(clocks.news(1000, name), Some(Vec::new()), "all is well again");
    }
    #[test]
    fn a_clock_is_corrected_only_if_most_of_all_clocks_agree_that_it_is_wrong() {
        let correction = |theirs: &[u64]| {
            let mut clocks = Clocks::default();
            (2..).zip(theirs).for_each(|(peer, theirs)| clocks.observe(NodeId(peer), *theirs, 5_000_000));
            clocks.correction_ms(1000)
        };
        assert_eq!(correction(&[]), 0);
        assert_eq!(correction(&[9_000_000]), 0, "it may be the peer's that is wrong");
        assert_eq!(correction(&[5_000_900, 4_999_100]), 0, "within the skew");
        assert_eq!(correction(&[9_000_000, 9_000_400]), 4_000_400);
        assert_eq!(correction(&[1_000_000, 1_000_400]), -3_999_600);
        assert_eq!(correction(&[9_000_000, 1_000_000]), 0, "they do not agree");
        assert_eq!(correction(&[9_000_000, 9_000_400, 5_000_000]), 0, "two against two");
        assert_eq!(correction(&[9_000_000, 9_000_400, 9_000_800, 5_000_000]), 4_000_400);
    }
}
