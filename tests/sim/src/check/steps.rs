//! Checker 8: at each step of a change of layout, the owners in the live layouts hold every acknowledged write.
//!
//! The record has what was not found when the first node took a step. Other checkers see such a write only if somebody
//! reads it before its former owners have handed it over.

use super::Finding;
use super::index::Index;

/// Its name in findings.
pub const NAME: &str = "steps";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for missing in &index.run.missing {
        let evidence = format!(
            "when {}, at {} µs, none of the owners {:?} had a write that was acknowledged at {} µs",
            missing.step, missing.at_us, missing.owners, missing.acked_us
        );
        findings.push(Finding { checker: NAME, key: Some(missing.key), evidence });
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Kind, Missing};

    #[test]
    fn a_write_that_no_owner_had_at_a_step_is_found() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        assert_eq!(story.findings(check), [""; 0]);
        let (step, owners) = ("n1 reads by layout 2".to_owned(), vec![0, 1, 3]);
        story.run.missing.push(Missing { key: 0, at_us: 2_000, acked_us: 1_000, step, owners });
        assert!(
            story.findings(check)[0].contains("when n1 reads by layout 2, at 2000 µs, none of the owners [0, 1, 3]")
        );
    }
}
