//! Checker 3: nothing deleted comes back, in any read that must know of the deletion and in the final copies.
//!
//! A deletion is an acknowledged write whose writer had been shown an element and wrote a value without it, or none. It
//! counts for the *writes* that the writer had been shown, each known by the element that it alone adds. So an element
//! is dead once every write whose value has it is dead: a concurrent write that its deleter had not seen may keep it
//! alive. Carts are stricter, for their clocks tell what was removed: there one such deletion is enough.
//!
//! Sets whose siblings may be stored folded are left out: a fold of two writes of which one is then overwritten speaks
//! for the other, and shows the elements of both (host/cli/book/internals/objects.md, rule 3). So are keys with values
//! that expire, since the value that knew of a deletion may be gone.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::index::{ByKey, Index, Write};
use super::reads::{Losses, meets};
use crate::history::{Answers, Asked, Element, KeyId, Kind};

/// Its name in findings.
pub const NAME: &str = "deletions";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (key, by_key) in (0..).zip(&index.keys) {
        let back = came_back(index, key, by_key).into_iter();
        findings.extend(back.map(|(_, evidence)| Finding { checker: NAME, key: Some(key), evidence }));
    }
}

/// The deleted elements that a read or a final copy shows.
pub(super) fn returned(index: &Index<'_>) -> BTreeSet<(KeyId, Element)> {
    let keys = (0..).zip(&index.keys);
    keys.flat_map(|(key, by_key)| came_back(index, key, by_key).into_iter().map(move |(of, _)| (key, of))).collect()
}

/// Each deleted element of a key that is shown again, with the evidence.
fn came_back(index: &Index<'_>, key: KeyId, by_key: &ByKey) -> Vec<(Element, String)> {
    let of = &index.run.keys[key as usize];
    let expires = by_key.writes.iter().any(|write| write.expires);
    let dead = match of.kind {
        // The bad version of a plugin may show an old cart alone, and its reader writes that over the others.
        _ if expires || index.run.spoiled.contains_key(&key) => return Vec::new(),
        Kind::Set if !of.folds => dead_in_sets(index, key, by_key),
        Kind::Cart => dead_in_carts(index, by_key),
        Kind::Set | Kind::Latest => return Vec::new(),
    };
    if dead.is_empty() { Vec::new() } else { stays_dead(index, key, by_key, &dead) }
}

/// Since when something is dead, and the least W of the writes that made it so.
type Dead = BTreeMap<Element, Death>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Death {
    at_us: u64,
    /// When the deletion was asked: between that and `at_us` its answers came.
    asked_us: u64,
    w: Answers,
}

fn death(write: &Write) -> Option<Death> {
    write.acked_us.map(|at_us| Death { at_us, asked_us: write.invoked_us, w: write.w })
}

/// The first deletion of each element.
fn dead_in_carts(index: &Index<'_>, by_key: &ByKey) -> Dead {
    let mut dead = Dead::new();
    for write in &by_key.writes {
        let Some(death) = death(write) else { continue };
        for element in index.removed(write) {
            dead.entry(element).and_modify(|known| *known = death.min(*known)).or_insert(death);
        }
    }
    dead
}

/// Every write that has an element must be dead, each by a write whose author had been shown it.
fn dead_in_sets(index: &Index<'_>, key: KeyId, by_key: &ByKey) -> Dead {
    let mut killed: BTreeMap<Element, Death> = BTreeMap::new();
    for write in &by_key.writes {
        let Some(death) = death(write) else { continue };
        // Whoever has been shown an element has been shown the write that added it, or one that had seen that; unless
        // its own writer copied it.
        for &element in index.observed(write.call).iter().filter(|element| !index.copied.contains(&(key, **element))) {
            killed.entry(element).and_modify(|known| *known = death.min(*known)).or_insert(death);
        }
    }
    // An element lives as long as the last write that has it.
    let mut lives: BTreeMap<Element, Option<Death>> = BTreeMap::new();
    for write in by_key.writes.iter().filter(|write| write.attempted) {
        let own = write.adds.and_then(|adds| killed.get(&adds).copied());
        for &element in index.shown(write.call) {
            let end = lives.entry(element).or_insert(own);
            *end = end.zip(own).map(|(a, b)| Death {
                w: a.w.least(b.w),
                asked_us: a.asked_us.min(b.asked_us),
                at_us: a.at_us.max(b.at_us),
            });
        }
    }
    lives.into_iter().filter_map(|(element, end)| Some((element, end?))).collect()
}

fn stays_dead(index: &Index<'_>, key: KeyId, by_key: &ByKey, dead: &Dead) -> Vec<(Element, String)> {
    let mut back = Vec::new();
    let losses = Losses::of(index.run, key);
    for &get in &by_key.gets {
        let call = index.call(get);
        let Asked::Get { r } = call.asked else { continue };
        for element in index.shown(get) {
            let Some(death) = dead.get(element) else { continue };
            let knows = meets(index.run, key, r, death.w)
                && death.at_us < call.invoked_us
                && losses.none_in(death.asked_us, call);
            if knows {
                let (asked_us, at_us) = (call.invoked_us, death.at_us);
                let evidence =
                    format!("get {get}, asked at {asked_us} µs, shows {element:?}, which was deleted at {at_us} µs");
                back.push((*element, evidence));
            }
        }
    }
    for &at in &by_key.finals {
        let node = index.run.finals[at].node;
        for element in index.held(at).unwrap_or_default() {
            if let Some(death) = dead.get(element) {
                let evidence = format!("owner {node} holds {element:?}, which was deleted at {} µs", death.at_us);
                back.push((*element, evidence));
            }
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::Basis;

    #[test]
    fn what_was_deleted_and_is_gone_passes() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        story.delete(1, Basis::After(read));
        story.settle();
        story.get(2);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn a_deleted_value_that_is_read_or_held_again_is_found() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let before = story.replicas.clone();
        let read = story.get(1);
        story.delete(1, Basis::After(read));
        story.settle();
        story.replicas = before;
        story.get(2);
        assert_eq!(story.findings(check).len(), 1, "read");
        story.end();
        assert_eq!(story.findings(check).len(), 4, "and held by three");
    }

    #[test]
    fn a_concurrent_write_that_copied_it_keeps_it_alive() {
        let mut story = Story::new(Kind::Set);
        let (_, first) = story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        story.delete(1, Basis::After(read));
        story.add(2, Basis::After(read), &[first]);
        story.settle();
        story.get(0);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
        // Until that one is overwritten too, by somebody who has seen it.
        let read = story.get(0);
        story.delete(0, Basis::After(read));
        story.get(0);
        let alive = story.replicas[1].clone();
        story.replicas[0] = alive;
        assert_eq!(story.findings(check).len(), 6, "what the three held then is deleted now, both elements of it");
    }

    #[test]
    fn in_a_cart_a_removal_wins_over_what_was_copied() {
        let mut story = Story::new(Kind::Cart);
        let (_, milk) = story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(0);
        story.add(1, Basis::After(read), &[milk]);
        let copied = story.replicas[1].clone();
        story.write(2, Basis::After(read), &[], None, &[milk]);
        story.settle();
        story.get(0);
        assert_eq!(story.findings(check), [""; 0]);
        story.replicas[0] = copied;
        story.get(0);
        assert!(story.findings(check)[0].contains("which was deleted"));
    }

    #[test]
    fn a_read_that_need_not_know_is_not_accused() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        let before = story.replicas.clone();
        story.delete(1, Basis::After(read));
        story.replicas[0] = before[0].clone();
        let late = story.get(0);
        assert_eq!(story.findings(check).len(), 1, "its quorum meets that of the delete");
        story.read_quorum(late, 1.into());
        assert_eq!(story.findings(check), [""; 0], "a single owner need not know");
        story.read_quorum(late, 2.into());
        story.loss(1);
        story.get(0);
        assert_eq!(story.findings(check).len(), 1, "the second read comes after a loss");
    }
}
