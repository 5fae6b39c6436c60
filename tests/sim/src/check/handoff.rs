//! Checker 7: a fallback drops an object only when it is on the disk of every owner.
//!
//! The record says of each drop which owners had less on their disks at that time. An owner whose disk has lost
//! something shortly before may have had it when it confirmed. That what fallbacks hold reaches the owners at all is
//! checked by the liveness phase and by [`survival`](super::survival).

use super::Finding;
use super::index::Index;

/// Its name in findings.
pub const NAME: &str = "handoff";

/// For so long before a drop an owner's confirmation may have been given, in virtual microseconds.
const CONFIRMED_US: u64 = 10_000_000;

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for dropped in &index.run.dropped {
        let may_have_lost = |owner: &&u8| {
            let since = dropped.at_us.saturating_sub(CONFIRMED_US);
            let mut losses = index.run.losses.iter().filter(|loss| loss.node == **owner);
            losses.any(|loss| (since..=dropped.at_us).contains(&loss.at_us))
        };
        if let Some(owner) = dropped.lacking.iter().find(|owner| !may_have_lost(owner)) {
            let evidence = format!(
                "node {} has dropped at {} µs what is not on the disk of owner {owner}",
                dropped.node, dropped.at_us
            );
            findings.push(Finding { checker: NAME, key: Some(dropped.key), evidence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Dropped, Kind};

    #[test]
    fn a_drop_is_found_that_an_owner_lacks_and_has_not_lost() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        let dropped = |lacking: &[u8]| Dropped { key: 0, node: 4, at_us: 1_000, lacking: lacking.to_vec() };
        story.run.dropped.push(dropped(&[]));
        assert_eq!(story.findings(check), [""; 0]);
        story.run.dropped.push(dropped(&[2]));
        assert!(story.findings(check)[0].contains("not on the disk of owner 2"));
        story.loss(2);
        story.run.losses[0].at_us = 500;
        assert_eq!(story.findings(check), [""; 0], "its disk has lost it");
    }
}
