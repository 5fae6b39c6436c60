//! Checker 4: one dot, one value; one write, one dot; contexts never go back.
//!
//! - A dot is minted once, whatever disks forget.
//! - All attempts at one write are one write.
//! - The reply to a put covers what its writer had seen; and what was acknowledged is covered by what every owner has
//!   seen in the end.
//! - A context of another key is not taken.

use std::collections::BTreeMap;

use rejoin_proto::{Dot, VersionVector};

use super::Finding;
use super::index::{Index, context, first_attempt};
use crate::history::{Asked, Basis, CallId};

/// Its name in findings.
pub const NAME: &str = "dots";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    minted_once(index, findings);
    replies(index, findings);
    owners(index, findings);
}

fn minted_once(index: &Index<'_>, findings: &mut Vec<Finding>) {
    let mut writes: BTreeMap<Dot, CallId> = BTreeMap::new();
    let mut dots: BTreeMap<(CallId, Option<usize>), Dot> = BTreeMap::new();
    for minted in &index.run.minted {
        let write = first_attempt(index.run, minted.call);
        let key = Some(index.call(write).key);
        let mut report = |evidence| findings.push(Finding { checker: NAME, key, evidence });
        if let Some(other) = writes.insert(minted.dot, write)
            && other != write
        {
            report(format!(
                "{:?} was minted for call {other} and, by node {} at {} µs, for call {write}",
                minted.dot, minted.node, minted.at_us
            ));
        }
        if let Some(other) = dots.insert((write, minted.restored), minted.dot)
            && other != minted.dot
        {
            report(format!(
                "call {write} was done twice: as {other:?} and, by node {} at {} µs, as {:?}",
                minted.node, minted.at_us, minted.dot
            ));
        }
    }
}

fn replies(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (id, call) in index.run.calls.iter().enumerate() {
        let Asked::Put { basis: Basis::After(basis), .. } = call.asked else { continue };
        let (Some(told), basis) = (context(call), index.call(basis)) else { continue };
        let mut report = |evidence| findings.push(Finding { checker: NAME, key: Some(call.key), evidence });
        if basis.key != call.key {
            report(format!("call {id} was done with a context of key {}", basis.key));
        } else if let Some(seen) = context(basis).filter(|seen| !told.covers(seen)) {
            report(format!("call {id} was written with {seen:?} and is told {told:?}"));
        }
    }
}

fn owners(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (key, by_key) in index.keys.iter().enumerate() {
        let mut acknowledged = VersionVector::new();
        for write in by_key.writes.iter().filter(|write| write.acked_us.is_some()) {
            if let Some(context) = context(index.call(write.call)) {
                acknowledged.join(context);
            }
        }
        for held in by_key.finals.iter().map(|&at| &index.run.finals[at]) {
            let Some(object) = held.object.as_ref().filter(|object| !object.context.covers(&acknowledged)) else {
                continue;
            };
            let evidence = format!(
                "owner {} has seen {:?} in the end, and {acknowledged:?} was acknowledged",
                held.node, object.context
            );
            findings.push(Finding { checker: NAME, key: Some(key as u32), evidence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::Kind;

    fn two() -> (Story, [CallId; 2]) {
        let mut story = Story::new(Kind::Set);
        let (first, element) = story.add(0, Basis::Blind, &[]);
        let (second, _) = story.add(0, Basis::After(first), &[element]);
        story.settle();
        (story, [first, second])
    }

    #[test]
    fn a_history_with_retries_passes() {
        let (mut story, [first, _]) = two();
        story.retry(first);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn a_dot_of_two_writes_is_found() {
        let (mut story, _) = two();
        story.run.minted[1].dot = story.run.minted[0].dot;
        assert!(story.findings(check)[0].contains("was minted for call"));
    }

    #[test]
    fn a_write_that_was_done_twice_is_found() {
        let (mut story, [first, _]) = two();
        let retry = story.retry(first);
        let mut again = story.run.minted[0].clone();
        (again.call, again.dot.counter) = (retry, 77);
        story.run.minted.push(again);
        assert!(story.findings(check)[0].contains("was done twice"));
    }

    #[test]
    fn a_reply_that_forgets_what_the_writer_had_seen_is_found() {
        let (mut story, [_, second]) = two();
        story.answer_mut(second).context = VersionVector::new();
        assert!(story.findings(check)[0].contains("is told"));
    }

    #[test]
    fn an_owner_that_has_not_seen_what_was_acknowledged_is_found() {
        let (mut story, _) = two();
        story.replicas[2].context = VersionVector::new();
        story.end();
        assert!(story.findings(check)[0].contains("owner 2 has seen"));
    }

    #[test]
    fn a_context_of_another_key_must_be_refused() {
        let (mut story, [first, _]) = two();
        let other = story.another_key();
        let (forged, _) = story.add(1, Basis::After(first), &[]);
        story.run.calls[forged as usize].key = other;
        assert!(story.findings(check).iter().any(|found| found.contains("with a context of key")));
        story.refuse(forged);
        story.run.minted.pop();
        assert_eq!(story.findings(check), [""; 0]);
    }
}
