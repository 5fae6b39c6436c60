//! A value that its bucket's plugin must refuse is never written: its writer gets no good answer, and no dot is minted.

use super::Finding;
use super::index::{Index, first_attempt};
use crate::history::{Asked, Call};

/// Its name in findings.
pub const NAME: &str = "values";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    let is_malformed =
        |call: &Call| matches!(call.asked, Asked::Put { malformed: true, .. } | Asked::Undo { malformed: true, .. });
    for (id, call) in index.run.calls.iter().enumerate() {
        if is_malformed(call) && call.answer().is_some() {
            let evidence = format!("call {id} wrote a malformed value and was told that it is stored");
            findings.push(Finding { checker: NAME, key: Some(call.key), evidence });
        }
    }
    for minted in &index.run.minted {
        let write = first_attempt(index.run, minted.call);
        if is_malformed(index.call(write)) {
            let (dot, node, at_us) = (minted.dot, minted.node, minted.at_us);
            let evidence =
                format!("call {write} has a malformed value; node {node} stored it as {dot:?} at {at_us} µs");
            findings.push(Finding { checker: NAME, key: Some(index.call(write).key), evidence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Kind};

    #[test]
    fn a_malformed_value_that_is_refused_passes_and_one_that_is_stored_is_found() {
        let mut story = Story::new(Kind::Set);
        let (call, _) = story.add(0, Basis::Blind, &[]);
        let Asked::Put { malformed, .. } = &mut story.run.calls[call as usize].asked else { panic!("a put") };
        *malformed = true;
        let found = story.findings(check);
        assert!(
            found.len() == 2 && found[0].contains("told that it is stored") && found[1].contains("stored it as"),
            "{found:?}"
        );
        story.refuse(call);
        assert_eq!(story.findings(check).len(), 1, "it must not be stored under a refusal either");
        story.run.minted.clear();
        assert_eq!(story.findings(check), [""; 0]);
    }
}
