//! While versions of a plugin change: a canary merges its share of the keys, the same ones at all nodes, and more of
//! them when it grows. What the world has seen of misuse is reported: a fold or an answer by a version that was only a
//! shadow, by one that the bucket has not any more, or by one that the node is not ready with.
//!
//! Which keys a canary has is not computed: a key that it has merged at some share is one of every greater share.

use std::collections::BTreeMap;

use rejoin_proto::PluginDigest;

use super::Finding;
use super::index::Index;
use crate::history::KeyId;

/// Its name in findings.
pub const NAME: &str = "versions";

/// The chance of keys to be distributed as they are at which that is a finding.
const TOO_RARE: f64 = 1e-9;

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    let mut found = |key: Option<KeyId>, evidence: String| findings.push(Finding { checker: NAME, key, evidence });
    for stray in &index.run.misused {
        found(Some(stray.key), stray.evidence.clone());
    }
    // Per key, the greatest share that did not have it, and the least that had.
    let mut bounds: BTreeMap<KeyId, (u8, u8)> = BTreeMap::new();
    let mut counts: BTreeMap<(PluginDigest, u8), (u32, u32)> = BTreeMap::new();
    for (choice, node) in &index.run.choices {
        let (without, with) = bounds.entry(choice.key).or_insert((0, u8::MAX));
        let (chosen, all) = counts.entry((choice.canary, choice.percent)).or_default();
        *all += 1;
        if choice.chosen {
            (*with, *chosen) = ((*with).min(choice.percent), *chosen + 1);
        } else {
            *without = (*without).max(choice.percent);
        }
        if without >= with {
            let evidence = format!(
                "node {node} and another one differ: {without} percent are without the key, {with} percent have it"
            );
            found(Some(choice.key), evidence);
        }
    }
    for ((canary, percent), (chosen, all)) in counts {
        let share = f64::from(percent) / 100.0;
        if chance(all, chosen, share) < TOO_RARE {
            found(None, format!("canary {canary}, with {percent} percent, has merged {chosen} of {all} keys"));
        }
    }
}

/// A bound on the chance that so many or more of all keys are in a share, or so few or fewer (Chernoff 1952).
fn chance(all: u32, chosen: u32, share: f64) -> f64 {
    let (all, part) = (f64::from(all), f64::from(chosen) / f64::from(all));
    let term = |of: f64, expected: f64| if of == 0.0 { 0.0 } else { of * (of / expected).ln() };
    (-all * (term(part, share) + term(1.0 - part, 1.0 - share))).exp()
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Choice, Kind, Stray};

    fn story(choices: impl IntoIterator<Item = (u8, KeyId, bool)>) -> Story {
        let mut story = Story::new(Kind::Set);
        let canary = PluginDigest([2; 32]);
        let choice = |(percent, key, chosen)| (Choice { canary, percent, key, chosen }, 0);
        story.run.choices = choices.into_iter().map(choice).collect();
        story
    }

    #[test]
    fn a_canary_that_has_its_share_and_more_of_it_when_it_grows_passes() {
        let sound = (0..40).flat_map(|key| [(20, key, key % 5 == 0), (60, key, key % 5 < 3)]);
        assert_eq!(story(sound).findings(check), [""; 0]);
    }

    #[test]
    fn two_nodes_that_differ_and_a_key_that_a_greater_share_loses_are_found() {
        for choices in [[(20, 1, true), (20, 1, false)], [(20, 1, true), (60, 1, false)]] {
            let found = story(choices).findings(check);
            assert!(found.len() == 1 && found[0].contains("differ"), "{found:?}");
        }
    }

    #[test]
    fn a_canary_that_has_all_keys_or_none_is_found() {
        for chosen in [true, false] {
            let found = story((0..60).map(|key| (50, key, chosen))).findings(check);
            assert!(found.len() == 1 && found[0].contains("with 50 percent"), "{found:?}");
        }
        assert_eq!(story((0..5).map(|key| (50, key, true))).findings(check), [""; 0], "that may be chance");
    }

    #[test]
    fn misuse_is_reported_as_it_was_noted() {
        let mut story = story([]);
        story.run.misused.push(Stray { key: 0, evidence: "a fold by a shadow".into() });
        assert_eq!(story.findings(check), ["a fold by a shadow"]);
    }
}
