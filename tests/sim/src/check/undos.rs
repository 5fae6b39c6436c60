//! What the bad version of a plugin has folded is undone in the end, from its receipts. And an undo takes nothing away
//! that was acknowledged before it was asked, and that had seen the fold.
//!
//! A fold is beyond an undo if its receipt has gone for want of room, or its node's disk has lost something since. The
//! undo itself is judged by all other checkers: what was acknowledged must be there again.

use rejoin_proto::Dot;

use super::Finding;
use super::index::{ByKey, Index, Write};
use super::reads::Losses;
use crate::history::{Asked, KeyId};

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

/// Inputs that were restored though all that they stood for had been written over.
fn written_over(index: &Index<'_>, key: KeyId, by_key: &ByKey, findings: &mut Vec<Finding>) {
    let losses = Losses::of(index.run, key);
    let minted = || by_key.minted.iter().map(|&at| &index.run.minted[at]);
    for undo in minted() {
        let call = index.call(undo.call);
        let (Asked::Undo { stood_for, .. }, Some(place)) = (&call.asked, undo.restored) else { continue };
        let Some(input) = stood_for.get(place) else { continue };
        // Whether a write that was acknowledged before the undo had seen a dot, and its coordinator went by that.
        let has_seen = |write: &&Write, seen: Dot| {
            let dot = index.dot(write);
            let of = minted().find(|minted| Some(minted.dot) == dot);
            let known = write.acked_us.is_some_and(|acked_us| acked_us < call.invoked_us);
            known
                && dot != Some(seen)
                && of.is_some_and(|of| !of.cloudless)
                && losses.none_in(write.invoked_us, call)
                && index.seen(write.call).is_some_and(|context| context.contains(seen))
        };
        let dots: Vec<Dot> = minted().map(|of| of.dot).filter(|dot| input.contains(*dot)).collect();
        let over = |dot: &Dot| by_key.writes.iter().find(|write| has_seen(write, *dot));
        let Some(write) = dots.first().and_then(over).filter(|_| dots.iter().all(|dot| over(dot).is_some())) else {
            continue;
        };
        let evidence = format!(
            "call {} restored at {} µs what call {}, acknowledged at {:?} µs, had written over",
            undo.call, undo.at_us, write.call, write.acked_us
        );
        findings.push(Finding { checker: NAME, key: Some(key), evidence });
    }
}

#[cfg(test)]
mod tests {
    use rejoin_proto::{DotSet, Entry};

    use super::super::story::Story;
    use super::super::{convergence, dots, survival};
    use super::*;
    use crate::history::{Basis, Kind};

    /// Two writes, of which the bad version has kept one at the first node.
    fn folded() -> (Story, (DotSet, Vec<Entry>)) {
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
        let found = story.findings(check);
        assert!(found.len() == 2 && found[0].contains("had written over"), "{found:?}");
    }

    #[test]
    fn what_a_write_has_left_of_a_fold_may_be_undone() {
        let mut story = Story::new(Kind::Set);
        story.run.keys[0].folds = true;
        let (first, element) = story.add(0, Basis::Blind, &[]);
        story.add(1, Basis::Blind, &[]);
        story.settle();
        let (dots, inputs) = story.fold_badly(0);
        story.settle();
        // Its writer has seen one of the two.
        story.add(0, Basis::After(first), &[element]);
        story.settle();
        let left = inputs.iter().filter(|input| input.dots.contains(story.run.minted[1].dot)).cloned().collect();
        story.undo(1, &(dots.clone(), left));
        story.settle();
        story.end();
        for of in [check, survival::check, convergence::check] {
            assert_eq!(story.findings(of), [""; 0]);
        }
        story.undo(1, &(dots, inputs));
        assert_eq!(story.findings(check).len(), 1, "the other one was written over");
    }
}
