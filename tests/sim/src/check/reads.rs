//! Checker 5: with quorums that meet (R + W > N), a read shows every write acknowledged before it began.
//!
//! Where fallbacks count towards R and W, the owners must meet (PR + PW > N). Once a bucket has turned strict, all
//! reads must show what was written before: by then its owners have what fallbacks took.
//!
//! This holds for the writes of all sessions, because quorums meet whoever asks. The read's context must cover the
//! contexts of those acknowledgements, and the read must show the elements that they added, unless a client that had
//! seen them wrote a value without them before the read ended. An acknowledgement does not count across a loss on a
//! disk that may have been one of its quorum.

use rejoin_proto::VersionVector;
use rejoin_proto::catalog::Durability;

use super::Finding;
use super::index::{ByKey, Index, context};
use crate::history::{Answers, Asked, Call, CallId, Element, KeyId, Kind, Run};

/// Its name in findings.
pub const NAME: &str = "reads";

/// Whether any two such quorums have an owner in common. Where fallbacks count, only the demands on owners say so.
pub(super) fn meets(run: &Run, key: KeyId, r: Answers, w: Answers) -> bool {
    let key = &run.keys[key as usize];
    let owners = |of: Answers| usize::from(if key.has_fallbacks() { of.owners } else { of.nodes.max(of.owners) });
    owners(r) + owners(w) > key.owners.len()
}

/// When disks of a key's owners lost what an acknowledgement may have stood for, in order; and from when on such a
/// disk's copies do not count in a read any more, so that it is no excuse.
pub(super) struct Losses(Vec<(u64, u64)>);

impl Losses {
    pub(super) fn of(run: &Run, key: KeyId) -> Self {
        let key = &run.keys[key as usize];
        let counts = |synced: bool| synced || key.durability == Durability::Os;
        let lost =
            run.losses.iter().filter(|loss| counts(loss.synced) && (key.moves || key.owners.contains(&loss.node)));
        let mut times: Vec<(u64, u64)> = lost.map(|loss| (loss.at_us, loss.known_us.unwrap_or(u64::MAX))).collect();
        times.sort_unstable();
        Self(times)
    }

    /// How many there were.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether no loss between the start of an acknowledged call and the end of a read excuses the read for not knowing
    /// the call.
    pub(super) fn none_in(&self, from_us: u64, read: &Call) -> bool {
        let after = self.0.partition_point(|&(at, _)| at < from_us);
        self.0[after..].iter().take_while(|&&(at, _)| at <= read.ended_us).all(|&(_, known)| known < read.invoked_us)
    }
}

/// An acknowledgement that later reads must know.
struct Due {
    acked_us: u64,
    asked_us: u64,
    w: Answers,
    call: CallId,
    element: Option<Element>,
}

/// The events of a key, in order of time.
enum Moment {
    /// A write that may end elements is asked: place among the writes.
    Asked(usize),
    /// An acknowledgement arrives.
    Acked(usize),
    /// A get ends.
    Read(CallId),
}

pub(super) fn check(index: &Index<'_>, findings: &mut Vec<Finding>) {
    for (key, by_key) in index.keys.iter().enumerate() {
        if !by_key.gets.is_empty() {
            of_key(index, key as KeyId, by_key, findings);
        }
    }
}

fn of_key(index: &Index<'_>, key: KeyId, by_key: &ByKey, findings: &mut Vec<Finding>) {
    let losses = Losses::of(index.run, key);
    let mut moments: Vec<(u64, u8, Moment)> = Vec::new();
    for (at, write) in by_key.writes.iter().enumerate() {
        if write.attempted {
            moments.push((write.invoked_us, 0, Moment::Asked(at)));
        }
        if let Some(acked_us) = write.acked_us {
            moments.push((acked_us, 2, Moment::Acked(at)));
        }
    }
    moments.extend(by_key.gets.iter().map(|&get| (index.call(get).ended_us, 1, Moment::Read(get))));
    moments.sort_by_key(|(at_us, rank, _)| (*at_us, *rank));

    let mut ended: std::collections::BTreeSet<Element> = index.beyond_undo(key).into_iter().collect();
    let mut due: Vec<Due> = Vec::new();
    let mut told = Told::default();
    for (_, _, moment) in &moments {
        match *moment {
            Moment::Asked(at) => {
                ended.extend(index.may_end(&by_key.writes[at]));
                due.retain(|due| due.element.is_none_or(|element| !ended.contains(&element)));
            }
            Moment::Acked(at) => {
                let write = &by_key.writes[at];
                let acked_us = write.acked_us.expect("it was acknowledged");
                let element = write.adds.filter(|element| index.kind(key) != Kind::Latest && !ended.contains(element));
                if element.is_some() {
                    due.push(Due { acked_us, asked_us: write.invoked_us, w: write.w, call: write.call, element });
                }
                if let Some(context) = context(index.call(write.call)) {
                    told.acknowledged(write.invoked_us, acked_us, write.w, context);
                }
            }
            Moment::Read(get) => {
                let call = index.call(get);
                let Asked::Get { r } = call.asked else { continue };
                let strict_from_us = index.run.keys[key as usize].strict_from_us;
                let is_strict = strict_from_us.is_some_and(|from_us| from_us <= call.invoked_us);
                let knows = |asked_us: u64, acked_us: u64, w: Answers| {
                    let meets = is_strict || meets(index.run, key, r, w);
                    acked_us < call.invoked_us && meets && losses.none_in(asked_us, call)
                };
                let shown = index.shown(get);
                let missed = |due: &&Due| {
                    due.element.is_some_and(|element| shown.binary_search(&element).is_err())
                        && knows(due.asked_us, due.acked_us, due.w)
                };
                if let Some(due) = due.iter().find(missed).filter(|_| !index.is_spoiled(key, call)) {
                    let evidence = format!(
                        "get {get}, asked at {} µs by session {}, does not show {:?} of call {}, acknowledged at {} µs",
                        call.invoked_us, call.session, due.element, due.call, due.acked_us
                    );
                    findings.push(Finding { checker: NAME, key: Some(key), evidence });
                }
                let Some(seen) = context(call) else { continue };
                if let Some(behind) = told.latest_before(call.invoked_us, knows).find(|context| !seen.covers(context)) {
                    let evidence = format!(
                        "get {get}, asked at {} µs, is told {seen:?}, after {behind:?} was acknowledged",
                        call.invoked_us
                    );
                    findings.push(Finding { checker: NAME, key: Some(key), evidence });
                }
            }
        }
    }
}

/// Contexts that were acknowledged, in order. A read must cover all that were acknowledged before it; since each
/// acknowledgement covers what it replaced, looking at the last few is nearly as good as looking at all, and linear.
#[derive(Default)]
struct Told<'a> {
    contexts: Vec<(u64, u64, Answers, &'a VersionVector)>,
}

/// Acknowledgements that are looked at for one read.
const LOOKED_AT: usize = 8;

impl<'a> Told<'a> {
    fn acknowledged(&mut self, asked_us: u64, acked_us: u64, w: Answers, context: &'a VersionVector) {
        self.contexts.push((asked_us, acked_us, w, context));
    }

    fn latest_before(
        &self,
        asked_us: u64,
        knows: impl Fn(u64, u64, Answers) -> bool,
    ) -> impl Iterator<Item = &'a VersionVector> {
        let before = self.contexts.partition_point(|(_, acked_us, ..)| *acked_us < asked_us);
        let latest = self.contexts[..before].iter().rev().take(LOOKED_AT);
        latest.filter(move |(asked, acked, w, _)| knows(*asked, *acked, *w)).map(|(.., context)| *context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Story;
    use super::*;
    use crate::history::Basis;

    #[test]
    fn a_read_that_shows_what_was_acknowledged_passes() {
        let mut story = Story::new(Kind::Set);
        let (first, element) = story.add(0, Basis::Blind, &[]);
        story.settle();
        story.get(1);
        story.add(1, Basis::After(first), &[element]);
        story.settle();
        story.get(0);
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn a_read_of_an_owner_that_was_left_out_is_found_by_value_and_by_context() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        let read = story.get(1);
        let found = story.findings(check);
        assert!(found.len() == 2 && found[0].contains("does not show") && found[1].contains("is told"), "{found:?}");
        story.read_quorum(read, 1.into());
        assert_eq!(story.findings(check), [""; 0], "a single owner need not know");
    }

    #[test]
    fn where_fallbacks_count_only_the_owners_of_both_quorums_must_meet() {
        let mut story = Story::new(Kind::Set);
        let (write, _) = story.add(0, Basis::Blind, &[]);
        let read = story.get(1);
        assert!(!story.findings(check).is_empty(), "all nodes are owners, and always will be");
        story.run.keys[0].later_fallbacks = 2;
        assert_eq!(story.findings(check), [""; 0], "two that were owners may have acknowledged it");
        (story.run.keys[0].fallbacks, story.run.keys[0].later_fallbacks) = (2, 0);
        assert_eq!(story.findings(check), [""; 0], "two fallbacks may have acknowledged it");
        let owners = |owners| Answers { nodes: 2, owners };
        for (pr, pw, missed) in [(2, 1, false), (2, 2, true), (1, 3, true), (3, 0, false)] {
            story.read_quorum(read, owners(pr));
            story.write_quorum(write, owners(pw));
            assert_eq!(!story.findings(check).is_empty(), missed, "PR = {pr}, PW = {pw}");
        }
    }

    #[test]
    fn a_bucket_that_has_turned_strict_shows_what_fallbacks_took() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.get(1);
        story.run.keys[0].fallbacks = 2;
        story.run.keys[0].strict_from_us = Some(story.now_us() + 1);
        assert_eq!(story.findings(check), [""; 0], "it was asked before");
        story.get(1);
        assert!(!story.findings(check).is_empty());
    }

    #[test]
    fn a_context_without_the_value_is_no_read_of_it() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        story.answer_mut(read).values.clear();
        assert!(story.findings(check)[0].contains("does not show"));
    }

    #[test]
    fn a_write_that_is_asked_before_the_read_ends_may_have_removed_it() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        let delete = story.delete(0, Basis::After(read));
        story.forget_answer(delete);
        story.get(0);
        assert_eq!(story.findings(check), [""; 0]);
    }

    #[test]
    fn after_a_loss_the_quorum_may_not_know_any_more() {
        let mut story = Story::new(Kind::Set);
        story.add(0, Basis::Blind, &[]);
        story.loss(0);
        story.get(1);
        assert_eq!(story.findings(check), [""; 0]);
        story.losses_are_known(true);
        story.get(1);
        assert!(!story.findings(check).is_empty(), "an empty disk that is known for one is no excuse");
        story.losses_are_known(false);
        assert_eq!(story.findings(check), [""; 0]);
        story.add(2, Basis::Blind, &[]);
        story.get(1);
        assert!(!story.findings(check).is_empty(), "what was acknowledged after the loss is due");
    }

    #[test]
    fn of_the_latest_only_the_context_is_due() {
        let mut story = Story::new(Kind::Latest);
        story.add(0, Basis::Blind, &[]);
        story.settle();
        let read = story.get(1);
        story.answer_mut(read).values.clear();
        assert_eq!(story.findings(check), [""; 0]);
        story.answer_mut(read).context = VersionVector::new();
        assert!(story.findings(check)[0].contains("is told"));
    }
}
