//! What the bad version of a plugin has folded is undone in the end, from its receipts. And an undo takes nothing away
//! that was acknowledged before it was asked, and that had seen the fold.
//!
//! A fold is beyond an undo if its receipt has gone for want of room, or its node's disk has lost something since. The
//! undo itself is judged by all other checkers: what was acknowledged must be there again.

use super::Finding;
use super::index::{ByKey, Index, Write};
use super::reads::Losses;
use crate::history::{Asked, KeyId, Minted};

/// Its name in findings.
pub const NAME: &str = "undos";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for &key in index.run.spoiled.keys() {
        let by_key = &index.keys[key as usize];
        left(index, key, by_key, findings);
        written_over(index, key, by_key, findings);
    }
}

/// The bad folds that are still there.
fn left(index: &Index<'_>, key: KeyId, by_key: &ByKey, findings: &mut Vec<Finding>) {
    for held in by_key.finals.iter().map(|&at| &index.run.finals[at]) {
        for entry in held.object.iter().flat_map(|object| &object.entries) {
            let is_bad = entry.folded_by.is_some_and(|by| index.run.bad.contains(&by.plugin));
            let is_lost = || {
                let mut folds = index.folds_beyond_undo(key);
                index.run.receipts_given_up || folds.any(|fold| fold.covers.is_subset(&entry.covers))
            };
            if is_bad && !is_lost() {
                let evidence = format!("owner {} still holds what the bad version has folded: {entry:?}", held.node);
                findings.push(Finding { checker: NAME, key: Some(key), evidence });
            }
        }
    }
}

/// Undos of what had been written over.
fn written_over(index: &Index<'_>, key: KeyId, by_key: &ByKey, findings: &mut Vec<Finding>) {
    let losses = Losses::of(index.run, key);
    let minted = || by_key.minted.iter().map(|&at| &index.run.minted[at]);
    let undos = minted().filter(|minted| minted.restored.is_some());
    for undo in undos {
        let call = index.call(undo.call);
        let Asked::Undo { seen: fold, .. } = &call.asked else { continue };
        let is_over = |write: &&Write| {
            let dot = index.dot(write);
            let of = minted().find(|minted| Some(minted.dot) == dot);
            let replaces = of.is_some_and(|of| !of.cloudless && of.at_us < undo.at_us);
            let seen = index.seen(write.call).filter(|_| replaces && dot.is_some_and(|dot| !fold.contains(dot)));
            let known = write.acked_us.is_some_and(|acked_us| acked_us < call.invoked_us);
            let meets = |of: &Minted| fold.contains(of.dot) && of.at_us < undo.at_us;
            known
                && losses.none_in(write.invoked_us, call)
                && seen.is_some_and(|seen| minted().any(|of| Some(of.dot) != dot && meets(of) && seen.contains(of.dot)))
        };
        if let Some(write) = by_key.writes.iter().find(is_over) {
            let evidence = format!(
                "call {} undid at {} µs what call {}, acknowledged at {:?} µs, had written over",
                undo.call, undo.at_us, write.call, write.acked_us
            );
            findings.push(Finding { checker: NAME, key: Some(key), evidence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::super::{convergence, dots, survival};
    use super::*;
    use crate::history::{Basis, Kind};

    /// Two writes, of which the bad version has kept one at the first node.
    fn folded() -> (Story, (rejoin_proto::DotSet, Vec<rejoin_proto::Content>)) {
        let mut story = Story::new(Kind::Set);
        story.run.keys[0].folds = true;
        story.add(0, Basis::Blind, &[]);
        story.add(1, Basis::Blind, &[]);
        story.settle();
        let fold = story.fold_badly(0);
        story.settle();
        (story, fold)
    }

    #[test]
    fn a_fold_of_the_bad_version_must_be_undone_unless_its_receipt_is_lost() {
        let (mut story, _) = folded();
        story.end();
        assert!(story.findings(check)[0].contains("still holds what the bad version has folded"));
        assert!(!story.findings(survival::check).is_empty(), "an acknowledged write is gone");
        story.run.folds[0].given_up = true;
        assert_eq!(story.findings(check), [""; 0]);
        assert_eq!(story.findings(survival::check), [""; 0]);
        story.run.folds[0].given_up = false;
        story.loss(0);
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn an_undone_fold_has_its_inputs_again() {
        let (mut story, fold) = folded();
        story.undo(1, &fold);
        story.settle();
        story.end();
        for of in [check, survival::check, convergence::check, dots::check] {
            assert_eq!(story.findings(of), [""; 0]);
        }
    }

    #[test]
    fn an_undo_that_loses_an_input_is_found() {
        let (mut story, fold) = folded();
        story.undo(1, &fold);
        story.settle();
        let least = story.replicas[0].entries[0].clone();
        story.replicas.iter_mut().for_each(|replica| replica.entries = vec![least.clone()]);
        story.end();
        assert!(!story.findings(survival::check).is_empty());
    }

    #[test]
    fn an_undo_of_what_was_written_over_is_found() {
        let (mut story, fold) = folded();
        let read = story.get(2);
        let shown = story.shown(read);
        story.add(2, Basis::After(read), &shown);
        // Its coordinator has missed that.
        story.undo(1, &fold);
        story.settle();
        story.end();
        assert!(story.findings(check)[0].contains("had written over"), "{:?}", story.findings(check));
    }
}
