//! Checker 6: merges give the same bytes in every order, grouping, process and node.
//!
//! The same siblings must have been merged to the same bytes wherever and by whatever they were, the component or the
//! native plugin. And what a run has met is merged again: in other orders, and in groups, by the laws of `rejoin-laws`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_laws::{Law, Merge, MergeError, MergeResult, Sibling, Trial, Verdict};

use super::Finding;
use super::index::Index;
use crate::history::{self, KeyId, Kind};
use crate::plugins::BAD;

/// Its name in findings.
pub const NAME: &str = "merges";

/// The most merges of a run that are merged again, and the most siblings of one that is.
const AGAIN: usize = 100;
const SIBLINGS: usize = 6;

/// What a plugin was given of each sibling: value, stamp, writer.
type Given<'a> = Vec<(&'a [u8], u64, u64)>;

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<(Kind, bool, Given<'_>), &history::Merge> = BTreeMap::new();
    for merge in &index.run.merges {
        let given =
            merge.siblings.iter().map(|sibling| (&sibling.value[..], sibling.stamp_ms, sibling.writer)).collect();
        let first = *known.entry((index.kind(merge.key), merge.bad, given)).or_insert(merge);
        if first.value != merge.value {
            let evidence = format!(
                "node {} made {:?} of what node {} made {:?} of",
                merge.node, merge.value, first.node, first.value
            );
            findings.push(Finding { checker: NAME, key: Some(merge.key), evidence });
        }
    }
    for ((kind, bad, _), merge) in known.iter().filter(|(_, merge)| merge.siblings.len() <= SIBLINGS).take(AGAIN) {
        let native = if *bad { BAD } else { (index.native)(*kind) };
        again(*kind, merge.key, &merge.siblings, &merge.value, native, findings);
    }
}

fn again(
    kind: Kind,
    key: KeyId,
    siblings: &[rejoin_proto::client::Sibling],
    value: &Bytes,
    native: &dyn Merge,
    findings: &mut Vec<Finding>,
) {
    let lend = |one: &rejoin_proto::client::Sibling| Sibling {
        value: one.value.to_vec(),
        stamp_ms: one.stamp_ms,
        writer: one.writer,
    };
    let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
    let mut report = |evidence| findings.push(Finding { checker: NAME, key: Some(key), evidence });
    let native = &Remembering { merge: native, known: RefCell::default() };
    let made = native.merge(b"", &siblings);
    if made.as_deref() != Ok(&value[..]) {
        report(format!("{value:?} was made of {siblings:?}, of which the native plugin makes {made:?}"));
    }
    // The latest of several is a matter of stamps, and a group has the stamp of one and the writer of another: only its
    // order is free.
    let laws = if kind == Kind::Latest { &[Law::Permutation][..] } else { &Law::ALL };
    let trial = Trial { key: Vec::new(), siblings, valid: true };
    for law in laws {
        if let Verdict::Broken(violation) = law.judge(native, &trial) {
            report(format!("{law} is broken by {:?}: {violation:?}", trial.siblings));
        }
    }
}

/// A merge of which the laws ask the same several times: it is run once. Whether it says the same each time is what
/// [`Law::Replay`] asks, and that runs it anew. The key is always the same.
struct Remembering<'a> {
    merge: &'a dyn Merge,
    known: RefCell<BTreeMap<Vec<Sibling>, MergeResult>>,
}

impl Merge for Remembering<'_> {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        if let Some(known) = self.known.borrow().get(siblings) {
            return known.clone();
        }
        let made = self.merge.merge(key, siblings);
        self.known.borrow_mut().insert(siblings.to_vec(), made.clone());
        made
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.merge.merge_elsewhere(key, siblings)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        self.merge.validate(key, value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Element, set_bytes};

    fn merged(values: &[&[u32]], made: &[u32]) -> history::Merge {
        let set = |elements: &[u32]| set_bytes(elements.iter().map(|&count| Element::new(1, count)));
        let sibling = |(at, value): (usize, &&[u32])| rejoin_proto::client::Sibling {
            value: set(value),
            stamp_ms: at as u64,
            writer: 1,
        };
        let siblings = values.iter().enumerate().map(sibling).collect();
        history::Merge { bad: false, shadow: false, key: 0, node: 0, siblings, value: set(made) }
    }

    fn of(merges: Vec<history::Merge>) -> Vec<String> {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.run.merges = merges;
        story.findings(check)
    }

    #[test]
    fn unions_pass() {
        let one = merged(&[&[1, 2], &[2, 3], &[4]], &[1, 2, 3, 4]);
        assert_eq!(of(vec![one.clone(), one]), [""; 0]);
    }

    #[test]
    fn two_results_of_the_same_siblings_are_found() {
        let one = merged(&[&[1], &[2]], &[1, 2]);
        let other = history::Merge { node: 2, ..merged(&[&[1], &[2]], &[1]) };
        assert!(of(vec![one, other])[0].contains("node 2 made"));
    }

    #[test]
    fn a_result_that_no_plugin_makes_is_found() {
        assert!(of(vec![merged(&[&[1], &[2]], &[2])])[0].contains("the native plugin makes"));
    }

    /// The first of its siblings: depends on their order.
    struct First;
    impl Merge for First {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            Ok(siblings[0].value.clone())
        }
    }

    /// As many bytes as there were siblings: depends on their grouping.
    struct Count;
    impl Merge for Count {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            Ok(vec![0; siblings.len()])
        }
    }

    #[test]
    fn a_merge_that_depends_on_order_or_grouping_is_found() {
        let given = merged(&[&[1], &[2], &[3]], &[1]).siblings;
        for (plugin, made, law) in
            [(&First as &dyn Merge, given[0].value.clone(), "permutation"), (&Count, vec![0; 3].into(), "bracketing")]
        {
            let mut findings = Vec::new();
            again(Kind::Set, 0, &given, &made, plugin, &mut findings);
            assert!(findings[0].evidence.starts_with(law), "{findings:?}");
        }
    }
}
