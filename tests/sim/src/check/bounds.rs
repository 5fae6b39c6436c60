//! Checker 10: what is bounded stays within its bound: siblings, contexts, and whatever the run has measured.

use std::collections::BTreeSet;

use rejoin_proto::ActorId;

use super::Finding;
use super::index::Index;
use super::reads::Losses;
use crate::history::{KeyId, NodeIndex};

/// Its name in findings.
pub const NAME: &str = "bounds";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for bound in index.run.bounds.iter().filter(|bound| bound.most > bound.limit) {
        let evidence = format!("{}: {} of at most {}", bound.what, bound.most, bound.limit);
        findings.push(Finding { checker: NAME, key: None, evidence });
    }
    for (key, by_key) in index.keys.iter().enumerate() {
        let of = &index.run.keys[key];
        let actors: BTreeSet<ActorId> = by_key.minted.iter().map(|&at| index.run.minted[at].dot.actor).collect();
        // Each owner or fallback takes writes up to the limit of what it has itself; at worst none of them has what
        // the others took, nor what it took itself before its disk lost that.
        let minters: BTreeSet<NodeIndex> = by_key.minted.iter().map(|&at| index.run.minted[at].node).collect();
        // Where owners change, all nodes that were one have taken writes.
        let former = if of.moves { minters.len() } else { 0 };
        let nodes = (of.owners.len() + of.fallbacks + of.later_owners).max(former);
        let most = (nodes + Losses::of(index.run, key as KeyId).count()) * usize::from(of.siblings);
        for held in by_key.finals.iter().map(|&at| &index.run.finals[at]) {
            let Some(object) = &held.object else { continue };
            let mut report = |evidence| findings.push(Finding { checker: NAME, key: Some(held.key), evidence });
            if object.entries.len() > most {
                report(format!(
                    "owner {} holds {} siblings, at most {most} can come together",
                    held.node,
                    object.entries.len()
                ));
            }
            if index.run.dots_unknown {
                continue;
            }
            if let Some(stranger) = object.context.iter().find(|dot| !actors.contains(&dot.actor)) {
                report(format!("owner {} has seen {stranger:?}, whose actor never wrote to the key", held.node));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Bound, Kind};

    #[test]
    fn what_is_at_its_bound_passes_and_what_is_above_is_found() {
        let mut story = Story::new(Kind::Set);
        story.run.keys[0].siblings = 2;
        for _ in 0..6 {
            story.add(0, Basis::Blind, &[]);
        }
        story.run.bounds = vec![Bound { what: "requests", most: 8, limit: 8 }];
        story.settle();
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
        story.run.bounds[0].most = 9;
        assert_eq!(story.findings(check), ["requests: 9 of at most 8"]);
        story.run.keys[0].siblings = 1;
        assert_eq!(story.findings(check).len(), 4);
        (0..3).for_each(|_| story.loss(0));
        assert_eq!(story.findings(check).len(), 1, "what an owner has lost it may take again");
    }

    #[test]
    fn an_actor_that_nobody_knows_is_found() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        story.replicas[1].context.insert(rejoin_proto::Dot { actor: ActorId(77), counter: 1 });
        story.end();
        assert!(story.findings(check)[0].contains("never wrote"));
        story.forget_dots();
        assert_eq!(story.findings(check), [""; 0], "nobody knows who wrote");
    }
}
