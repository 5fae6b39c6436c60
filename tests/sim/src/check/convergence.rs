//! Checker 2: all owners of a key hold the same bytes, and these are what a model makes of the writes that landed.
//!
//! The model is written from the algebra's one page and shares no code with the core. A write has *landed* if the
//! owners have seen its dot. What they have seen is then what all landed writes had seen, and those writes. A landed
//! write is live unless a landed write had seen it. Its value stands as it was written, for the span that begins after
//! the dot which its actor minted for the key before it.
//!
//! Where merged values may be stored, bytes depend on who folded when. There the context must be that of the model, the
//! entries together speak for its live values and nothing else. Anywhere tombstones may have been dropped: at the limit
//! that is done without a plugin too. A value that has expired by the latest clock may be gone.

use rejoin_proto::{Content, Dot, DotSet, DotSpan as Span, Entry, Object, VersionVector, codec};

use super::Finding;
use super::index::{ByKey, Index, first_attempt};
use crate::history::{Asked, KeyId, Minted};

/// Its name in findings.
pub const NAME: &str = "convergence";

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (key, by_key) in index.keys.iter().enumerate() {
        of_key(index, key as KeyId, by_key, findings);
    }
}

fn of_key(index: &Index<'_>, key: KeyId, by_key: &ByKey, findings: &mut Vec<Finding>) {
    let mut report = |evidence| findings.push(Finding { checker: NAME, key: Some(key), evidence });
    let mut held =
        by_key.finals.iter().filter_map(|&at| Some((index.run.finals[at].node, index.run.finals[at].object.as_ref()?)));
    let Some((node, object)) = held.next() else { return };
    let bytes = codec::encode(object);
    for (other, copy) in held {
        if codec::encode(copy) != bytes {
            return report(format!("owners {node} and {other} differ: {object:?} and {copy:?}"));
        }
    }
    if index.run.dots_unknown {
        return;
    }
    let Some(model) = Model::of(index, by_key, &object.context) else { return };
    let wall_ms = index.run.wall_ms.1;
    let problem =
        if index.run.keys[key as usize].folds { model.folds_to(object, wall_ms) } else { model.is(object, wall_ms) };
    if let Some(problem) = problem {
        report(format!("owner {node} holds {object:?}: {problem}"));
    }
}

/// What the writes that landed come to.
struct Model {
    context: VersionVector,
    /// In the order of their dots.
    live: Vec<Landed>,
    /// All dots of the key.
    minted: Vec<Dot>,
}

/// A write that landed.
struct Landed {
    dot: Dot,
    /// What its writer had seen.
    seen: VersionVector,
    /// As it was written.
    entry: Entry,
}

impl Model {
    /// `None` if the record does not tell what some landed write had seen.
    fn of(index: &Index<'_>, by_key: &ByKey, owners_have_seen: &VersionVector) -> Option<Self> {
        let mut minted: Vec<&Minted> = by_key.minted.iter().map(|&at| &index.run.minted[at]).collect();
        minted.sort_by_key(|minted| minted.dot);
        let mut landed = Vec::new();
        let mut before: Option<Dot> = None;
        for &minted in &minted {
            let after = before.filter(|before| before.actor == minted.dot.actor).map_or(0, |before| before.counter);
            before = Some(minted.dot);
            if owners_have_seen.contains(minted.dot) {
                landed.push(Landed::of(index, minted, after)?);
            }
        }
        let (mut context, mut replaced) = (VersionVector::new(), VersionVector::new());
        for one in &landed {
            context.join(&one.seen);
            one.entry.dots.spans().iter().for_each(|&span| context.insert_span(span));
            replaced.join(&one.seen);
        }
        landed.retain(|one| !replaced.contains(one.dot));
        Some(Self { context, live: landed, minted: minted.iter().map(|minted| minted.dot).collect() })
    }

    /// What is wrong with an object in which nothing was ever folded.
    fn is(&self, object: &Object, wall_ms: u64) -> Option<String> {
        let is_held = |one: &Landed| object.entries.iter().any(|entry| entry.dots == one.entry.dots);
        let may_be_gone = |one: &Landed| one.is_tombstone() || one.has_expired(wall_ms);
        let entries =
            self.live.iter().filter(|one| is_held(one) || !may_be_gone(one)).map(|one| one.entry.clone()).collect();
        let expected = Object { context: self.context.clone(), entries };
        (codec::encode(object) != codec::encode(&expected))
            .then(|| format!("the writes that landed come to {expected:?}"))
    }

    /// What is wrong with an object in which values may have been folded.
    fn folds_to(&self, object: &Object, wall_ms: u64) -> Option<String> {
        if object.context != self.context {
            return Some(format!("all that landed has seen {:?}", self.context));
        }
        for one in &self.live {
            let holder = object.entries.iter().find(|entry| entry.dots.contains(one.dot));
            match holder {
                None if !one.is_tombstone() && !one.has_expired(wall_ms) => {
                    return Some(format!("nothing speaks for {:?}", one.entry));
                }
                Some(holder) if one.is_tombstone() && *holder != one.entry => {
                    return Some(format!("a value speaks for the delete {:?}", one.dot));
                }
                _ => {}
            }
        }
        for entry in &object.entries {
            let live = |dot: &Dot| self.live.iter().find(|one| one.dot == *dot);
            if let Some(dead) = self.minted.iter().find(|dot| entry.dots.contains(**dot) && live(dot).is_none()) {
                return Some(format!("{dead:?} had been replaced, and an entry speaks for it"));
            }
            let written = self.live.iter().find(|one| entry.is_unfolded() && entry.dots.contains(one.dot));
            if let Some(written) = written.filter(|written| written.entry != *entry) {
                return Some(format!("it was written as {:?}", written.entry));
            }
        }
        None
    }
}

impl Landed {
    fn of(index: &Index<'_>, minted: &Minted, after: u64) -> Option<Self> {
        let (dot, write) = (minted.dot, first_attempt(index.run, minted.call));
        let dots: DotSet = [Span { actor: dot.actor, lo: after, hi: dot.counter }].into_iter().collect();
        let as_written = |content| Entry {
            covers: dots.clone(),
            dots: dots.clone(),
            content,
            stamp: minted.stamp,
            expires: minted.expires,
            folded_by: None,
        };
        if let (Asked::Undo { seen, inputs, .. }, Some(place)) = (&index.call(write).asked, minted.restored) {
            let mut seen = seen.clone();
            if minted.cloudless {
                seen.drop_cloud();
            }
            return Some(Self { dot, seen, entry: as_written(inputs.get(place)?.clone()) });
        }
        // A create's own reply is all that tells what it had found. That names its own dot too, which it does not
        // replace.
        let before_itself = |known: Dot| {
            if known.actor == dot.actor { Dot { counter: known.counter.min(dot.counter - 1), ..known } } else { known }
        };
        let told = index.seen(write)?;
        let mut seen: VersionVector = told.iter().map(before_itself).collect();
        // What the bound took from the context was not replaced.
        for span in told.cloud().iter().filter(|_| !minted.cloudless) {
            let hi = before_itself(Dot { actor: span.actor, counter: span.hi }).counter;
            if span.lo < hi {
                seen.insert_span(Span { hi, ..*span });
            }
        }
        let Asked::Put { value, .. } = &index.call(write).asked else { return None };
        let content = value.clone().map_or(Content::Tombstone, Content::Value);
        Some(Self { dot, seen, entry: as_written(content) })
    }

    fn is_tombstone(&self) -> bool {
        self.entry.content == Content::Tombstone
    }

    fn has_expired(&self, wall_ms: u64) -> bool {
        self.entry.expires.is_some_and(|end| end.ms() <= wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::{Basis, Kind};
    use rejoin_core::causal;

    /// Concurrent writes, a stale one, a delete that has seen some, and another key's counter between them.
    fn busy(kind: Kind) -> Story {
        let mut story = Story::new(kind);
        let (first, a) = story.add(0, Basis::Blind, &[]);
        let (_, b) = story.add(1, Basis::Blind, &[]);
        story.settle();
        let read = story.get(2);
        story.add(0, Basis::Blind, &[]);
        story.skip_counters(0, 3);
        story.add(0, Basis::After(first), &[a]);
        story.settle();
        story.delete(2, Basis::After(read));
        story.add(2, Basis::After(read), &[a, b]);
        story.settle();
        story
    }

    #[test]
    fn what_the_core_makes_of_a_history_is_what_the_model_does() {
        let mut story = busy(Kind::Set);
        assert!(story.replicas[0].entries.len() > 2);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn a_fold_passes_and_its_tombstone_may_be_gone() {
        let mut story = busy(Kind::Set);
        story.run.keys[0].folds = true;
        story.fold(0);
        story.settle();
        assert_eq!(story.replicas[1].entries.len(), 1);
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
        story.run.keys[0].folds = false;
        assert_eq!(story.findings(check).len(), 1, "where nothing folds that is wrong");
    }

    /// A blind write's context names its own dot in the cloud, above a sibling that it has not seen. The next write
    /// loses that cloud.
    fn with_a_cloud_dropped() -> Story {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        let (second, _) = story.add(0, Basis::Blind, &[]);
        assert!(!story.answer_mut(second).context.cloud().is_empty());
        story.add_without_cloud(0, second);
        story.settle();
        story.end();
        story
    }

    #[test]
    fn what_a_dropped_cloud_named_stays_and_only_where_it_was_dropped() {
        let mut story = with_a_cloud_dropped();
        assert_eq!(story.replicas[1].entries.len(), 3);
        assert_eq!(story.findings(check), [""; 0]);
        story.run.minted[2].cloudless = false;
        assert_eq!(story.findings(check).len(), 1, "a write that kept its cloud has replaced what that named");
    }

    #[test]
    fn owners_that_differ_are_found_also_where_no_dots_are_known() {
        let mut story = busy(Kind::Set);
        story.replicas[1].entries[0].stamp.0 += 1;
        story.end();
        assert!(story.findings(check)[0].contains("owners 0 and 1 differ"));
        story.forget_dots();
        assert!(story.findings(check)[0].contains("owners 0 and 1 differ"));
        story.replicas[1] = story.replicas[0].clone();
        story.end();
        assert_eq!(story.findings(check), [""; 0], "equal copies are all that can be asked for");
    }

    fn broken(folds: bool, breaking: impl Fn(&mut Object)) -> String {
        let mut story = busy(Kind::Set);
        story.run.keys[0].folds = folds;
        if folds {
            story.fold(0);
            story.settle();
        }
        story.replicas.iter_mut().for_each(breaking);
        story.end();
        story.findings(check).pop().expect("it is found")
    }

    #[test]
    fn what_all_owners_agree_on_may_still_be_wrong() {
        for folds in [false, true] {
            broken(folds, |object| {
                let value =
                    object.entries.iter().position(|entry| entry.content != Content::Tombstone).expect("a value");
                object.entries.remove(value);
            });
            broken(folds, |object| {
                let forgotten: VersionVector = object.context.iter().skip(1).collect();
                object.context = forgotten;
            });
        }
        broken(false, |object| object.entries[0].content = Content::Value("changed".into()));
        broken(false, |object| object.entries[0].stamp.0 += 1);
        let latest_only = |object: &mut Object| {
            let latest = object.entries[0].dots.highest().max().expect("a dot");
            object.entries[0].dots =
                [Span { actor: latest.actor, lo: latest.counter - 1, hi: latest.counter }].into_iter().collect();
        };
        assert!(broken(true, latest_only).contains("nothing speaks for"));
    }

    #[test]
    fn a_tombstone_may_be_gone_where_nothing_folds() {
        let mut story = busy(Kind::Set);
        story
            .replicas
            .iter_mut()
            .for_each(|replica| replica.entries.retain(|entry| entry.content != Content::Tombstone));
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn what_was_replaced_must_not_be_spoken_for() {
        let mut story = Story::new(Kind::Set);
        story.run.keys[0].folds = true;
        let (_, element) = story.add(0, Basis::Blind, &[]);
        let old = story.replicas[0].entries[0].clone();
        let read = story.get(0);
        story.add(1, Basis::After(read), &[element]);
        story.settle();
        story.replicas.iter_mut().for_each(|replica| replica.entries.insert(0, old.clone()));
        story.end();
        assert!(story.findings(check)[0].contains("had been replaced"));
    }

    #[test]
    fn a_write_that_reached_nobody_is_not_asked_for() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.replicas = Default::default();
        story.end();
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn what_has_expired_may_be_gone_and_what_has_not_may_not() {
        for (wall_ms, gone) in [(0, 1), (u64::MAX, 0)] {
            let mut story = Story::new(Kind::Set);
            let (call, _) = story.add(0, Basis::Blind, &[]);
            story.expire(call);
            story.settle();
            story.run.wall_ms = (0, wall_ms);
            story.replicas.iter_mut().for_each(|replica| assert!(causal::drop_expired(replica, u64::MAX, 0)));
            story.end();
            assert_eq!(story.findings(check).len(), gone);
        }
    }

    #[test]
    fn a_create_is_modelled_by_its_own_reply() {
        let mut story = Story::new(Kind::Set);
        let (_, element) = story.add(0, Basis::Blind, &[]);
        let read = story.get(0);
        story.delete(0, Basis::After(read));
        story.create(0);
        story.settle();
        assert_eq!(story.replicas[1].entries.len(), 1);
        story.end();
        assert_eq!(story.findings(check), [""; 0], "{element:?}");
    }
}
