//! Checker 9: a tenant never sees a byte of another. Every element in an answer, in a merge and in an owner's final
//! copy is of a session of the key's own tenant, and no context of another tenant is taken.
//!
//! Both tenants of a run have buckets and keys of the same names, so that whatever forgets the tenant meets the other's
//! data. Elements are the canaries: each has the number of the session that wrote it, and sessions are of one tenant.

use bytes::Bytes;

use rejoin_proto::Content;

use super::Finding;
use super::index::{Index, first_attempt};
use crate::history::{Asked, Basis, Call, Element, KeyId, elements};

/// Its name in findings.
pub const NAME: &str = "tenants";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    let run = index.run;
    if run.tenants < 2 {
        return;
    }
    let mut found = |key: KeyId, evidence: String| findings.push(Finding { checker: NAME, key: Some(key), evidence });
    for stray in &run.strays {
        found(stray.key, stray.evidence.clone());
    }
    let foreign = |key: KeyId, values: &[Bytes]| foreign(index, key, values);
    for (id, call) in run.calls.iter().enumerate() {
        let shown = call.answer().and_then(|answer| foreign(call.key, &answer.values));
        if let Some(element) = shown {
            found(call.key, format!("call {id} was shown {element:?}, which another tenant has written"));
        }
        if call.answer().is_some() && has_foreign_context(index, call) {
            found(call.key, format!("call {id} has written by a context that another tenant was given"));
        }
    }
    for minted in &run.minted {
        let write = first_attempt(run, minted.call);
        let call = index.call(write);
        if has_foreign_context(index, call) {
            let (dot, node) = (minted.dot, minted.node);
            found(call.key, format!("node {node} stored call {write} as {dot:?} by a context of another tenant"));
        }
    }
    for merge in &run.merges {
        let inputs: Vec<Bytes> = merge.siblings.iter().map(|sibling| sibling.value.clone()).collect();
        let shown = foreign(merge.key, &inputs).or_else(|| foreign(merge.key, std::slice::from_ref(&merge.value)));
        if let Some(element) = shown {
            let (node, what) = (merge.node, if merge.shadow { "shadow" } else { "merge" });
            found(merge.key, format!("a {what} at node {node} met {element:?}, which another tenant has written"));
        }
    }
    for fold in &run.folds {
        if let Some(element) = foreign(fold.key, &fold.inputs) {
            let node = fold.node;
            found(fold.key, format!("a receipt at node {node} has {element:?}, which another tenant has written"));
        }
    }
    for copy in &run.finals {
        let entries = copy.object.iter().flat_map(|object| &object.entries);
        let values: Vec<Bytes> = entries
            .filter_map(|entry| match &entry.content {
                Content::Value(value) => Some(value.clone()),
                Content::Tombstone => None,
            })
            .collect();
        if let Some(element) = foreign(copy.key, &values) {
            let node = copy.node;
            found(copy.key, format!("node {node} holds {element:?} in the end, which another tenant has written"));
        }
    }
}

/// An element of another tenant than the key's. Bytes that are no value are for other checkers.
fn foreign(index: &Index<'_>, key: KeyId, values: &[Bytes]) -> Option<Element> {
    let of = &index.run.keys[key as usize];
    let is_foreign = |element: &Element| index.run.tenant_of((element.0 >> 32) as u32) != of.tenant;
    // One by one: in a cart, a foreign clock could hide what it covers.
    values.iter().filter_map(|value| elements(of.kind, std::slice::from_ref(value))).flatten().find(is_foreign)
}

/// Whether a call names a context that was given for a key of another tenant.
fn has_foreign_context(index: &Index<'_>, call: &Call) -> bool {
    let Asked::Put { basis: Basis::After(basis), .. } = call.asked else { return false };
    let of = |key: KeyId| index.run.keys[key as usize].tenant;
    of(index.run.calls[basis as usize].key) != of(call.key)
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Kind, Stray};

    /// A key of the first of two tenants. Sessions with even numbers are its own.
    fn story() -> Story {
        let mut story = Story::new(Kind::Set);
        story.run.tenants = 2;
        story
    }

    #[test]
    fn own_elements_pass_and_those_of_the_other_tenant_are_found_wherever_they_show() {
        let mut story = story();
        let (own, other) = (Element::new(2, 1), Element::new(3, 1));
        let first = story.write(0, Basis::Blind, &[own], Some(own), &[]);
        story.get(0);
        assert_eq!(story.findings(check), [""; 0]);
        story.write(0, Basis::After(first), &[own, other], Some(other), &[]);
        story.get(0);
        let found = story.findings(check);
        assert!(found.len() == 1 && found[0].contains("was shown"), "{found:?}");
        story.end();
        assert!(story.findings(check).iter().any(|found| found.contains("holds")), "{:?}", story.findings(check));
        // Where there is one tenant all is its own.
        story.run.tenants = 1;
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn a_context_of_the_other_tenant_that_is_taken_is_found() {
        let mut story = story();
        let own = Element::new(2, 1);
        let first = story.write(0, Basis::Blind, &[own], Some(own), &[]);
        let second = story.write(0, Basis::After(first), &[own], None, &[]);
        assert_eq!(story.findings(check), [""; 0]);
        let mut twin = story.run.keys[0].clone();
        twin.tenant = 1;
        story.run.keys.push(twin);
        story.run.calls[first as usize].key = 1;
        let found = story.findings(check);
        assert!(found.iter().any(|found| found.contains(&format!("call {second} has written by"))), "{found:?}");
        assert!(found.iter().any(|found| found.contains("stored call")), "{found:?}");
    }

    #[test]
    fn what_shows_in_no_element_is_reported_as_it_was_noted() {
        let mut story = story();
        story.run.strays.push(Stray { key: 0, evidence: "a context of another key".into() });
        assert_eq!(story.findings(check).len(), 1);
    }
}
