//! Checker 1: no acknowledged write is lost unless it was causally overwritten, and no value appears from nowhere.
//!
//! On sets of unique elements: *acknowledged* ⊆ *final* ⊆ *attempted*, on every owner. An acknowledged element may be
//! gone only if a client that was shown it wrote a value without it or deleted the key, or if a value with it had a
//! time to live. What a client was shown is read from the answers of the run and not from contexts, so wrong contexts
//! are found.

use std::collections::BTreeSet;

use super::Finding;
use super::index::{ByKey, Index, Write};
use crate::history::{Element, KeyId, Kind, NodeIndex};

/// Its name in findings.
pub const NAME: &str = "survival";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for &call in &index.malformed {
        let evidence = format!("call {call} was answered with bytes that are no value: {:?}", index.call(call));
        findings.push(Finding { checker: NAME, key: Some(index.call(call).key), evidence });
    }
    for (key, by_key) in index.keys.iter().enumerate() {
        if index.kind(key as KeyId) == Kind::Set {
            ends_as_written(index, NAME, key as KeyId, by_key, findings);
        }
    }
}

/// An acknowledged element that an owner lacks in the end.
struct Missing {
    node: NodeIndex,
    write: Write,
    element: Element,
    acked_us: u64,
}

/// The acknowledged elements that are gone from an owner of their key though nothing may have ended them.
pub(super) fn lost(index: &Index<'_>) -> BTreeSet<(KeyId, Element)> {
    let keys = (0..).zip(&index.keys).filter(|(key, _)| index.kind(*key) != Kind::Latest);
    keys.flat_map(|(key, by_key)| missing(index, key, by_key).into_iter().map(move |one| (key, one.element))).collect()
}

fn missing(index: &Index<'_>, key: KeyId, by_key: &ByKey) -> Vec<Missing> {
    let attempted = by_key.writes.iter().filter(|write| write.attempted);
    let ended = attempted.flat_map(|write| index.may_end(write));
    let may_be_gone: BTreeSet<Element> = ended.chain(index.beyond_undo(key)).collect();
    let mut missing = Vec::new();
    for &at in &by_key.finals {
        let Some(held) = index.held(at) else { continue };
        for write in &by_key.writes {
            let (Some(element), Some(acked_us)) = (write.adds, write.acked_us) else { continue };
            if !may_be_gone.contains(&element) && held.binary_search(&element).is_err() {
                missing.push(Missing { node: index.run.finals[at].node, write: *write, element, acked_us });
            }
        }
    }
    missing
}

/// Compares the final copies of a key's owners with the writes to it.
pub(super) fn ends_as_written(
    index: &Index<'_>,
    checker: &'static str,
    key: KeyId,
    by_key: &ByKey,
    findings: &mut Vec<Finding>,
) {
    let attempted = by_key.writes.iter().filter(|write| write.attempted);
    // A session of carts has an add of its own in its next cart too, though the first was refused.
    let possible: BTreeSet<Element> = match index.kind(key) {
        Kind::Cart => attempted.flat_map(|write| index.shown(write.call).iter().copied()).collect(),
        Kind::Set | Kind::Latest => attempted.filter_map(|write| write.adds).collect(),
    };
    let mut report = |evidence| findings.push(Finding { checker, key: Some(key), evidence });
    for Missing { node, write, element, acked_us } in missing(index, key, by_key) {
        report(format!(
            "{element:?}, written by call {} and acknowledged at {acked_us} µs, is not at owner {node}, and nobody who \
             had seen it wrote after it",
            write.call
        ));
    }
    for &at in &by_key.finals {
        let node = index.run.finals[at].node;
        if index.run.finals[at].object.is_none() {
            continue;
        }
        let Some(held) = index.held(at) else {
            report(format!("owner {node} holds bytes that are no value: {:?}", index.run.finals[at].object));
            continue;
        };
        for element in held.iter().filter(|element| !possible.contains(element)) {
            report(format!("owner {node} holds {element:?}, which no write that was not refused has added"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::Basis;

    #[test]
    fn a_history_in_which_nothing_is_lost_passes() {
        let mut story = Story::new(Kind::Set);
        let (_, first) = story.add(0, Basis::Blind, &[]);
        let (_, second) = story.add(1, Basis::Blind, &[]);
        story.settle();
        let read = story.get(2);
        assert_eq!(story.shown(read), [first, second]);
        story.delete(2, Basis::After(read));
        story.add(1, Basis::After(read), &[first]);
        story.settle();
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn an_acknowledged_write_that_nobody_has_seen_must_be_there() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.end();
        assert!(story.findings(check)[0].contains("is not at owner 1"), "it never left its coordinator");
    }

    #[test]
    fn an_overwrite_by_somebody_who_had_not_seen_it_is_no_excuse() {
        let mut story = Story::new(Kind::Set);
        let (_, first) = story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(0);
        story.add(1, Basis::Blind, &[]);
        story.settle();
        story.add(2, Basis::After(read), &[first]);
        story.settle();
        story.replicas.iter_mut().for_each(|replica| drop(replica.entries.remove(0)));
        story.end();
        assert!(!story.findings(check).is_empty(), "the second was shown to nobody");
    }

    #[test]
    fn a_refused_write_must_not_be_there() {
        let mut story = Story::new(Kind::Set);
        let (call, _) = story.add(0, Basis::Blind, &[]);
        story.refuse(call);
        story.settle();
        story.end();
        assert!(story.findings(check)[0].contains("no write that was not refused has added"));
    }

    #[test]
    fn what_is_not_known_to_be_done_may_be_there_or_not() {
        for lands in [false, true] {
            let mut story = Story::new(Kind::Set);
            let (call, _) = story.add(0, Basis::Blind, &[]);
            story.forget_answer(call);
            match lands {
                true => story.settle(),
                false => story.replicas = Default::default(),
            }
            story.end();
            assert_eq!(story.findings(check), [""; 0]);
        }
    }

    #[test]
    fn a_write_that_is_acknowledged_at_its_second_attempt_counts() {
        let mut story = Story::new(Kind::Set);
        let (call, _) = story.add(0, Basis::Blind, &[]);
        story.forget_answer(call);
        story.retry(call);
        story.replicas = Default::default();
        story.end();
        assert_eq!(story.findings(check).len(), 3, "it is nowhere");
    }

    #[test]
    fn an_expired_value_may_be_gone() {
        let mut story = Story::new(Kind::Set);
        let (call, _) = story.add(0, Basis::Blind, &[]);
        story.expire(call);
        story.replicas = Default::default();
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn bytes_that_are_no_value_are_found() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(0);
        story.answer_mut(read).values = vec!["not eight".into()];
        story.end();
        assert!(story.findings(check)[0].contains("bytes that are no value"));
    }
}
