//! Sets of writes: [`VersionVector`], the writes that were seen, and [`DotSet`], the writes that a value stands for.
//!
//! Both have one canonical form, so that equal sets are equal bytes; decoding refuses any other form. The idea of a
//! context beside per-value dots is that of dotted version vectors (Preguiça, Baquero, Almeida, Fonte, Gonçalves 2010).

use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::{Array, SmallVec};

use crate::id::{ActorId, Dot};

/// Inline for most keys: as many actors as a bucket usually has copies.
type Counters = SmallVec<[(ActorId, u64); 3]>;
type Spans = SmallVec<[DotSpan; 1]>;

/// Reads a sequence element by element, without reserving memory for its announced length.
fn sequence<'de, D: Deserializer<'de>, A: Array>(deserializer: D) -> Result<SmallVec<A>, D::Error>
where
    A::Item: Deserialize<'de>,
{
    struct Elements<A>(PhantomData<A>);
    impl<'de, A: Array> Visitor<'de> for Elements<A>
    where
        A::Item: Deserialize<'de>,
    {
        type Value = SmallVec<A>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a causal set")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<SmallVec<A>, S::Error> {
            let mut all = SmallVec::new();
            while let Some(element) = elements.next_element()? {
                all.push(element);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(Elements(PhantomData))
}

/// A set was not in its canonical form (unsorted, doubled, empty or backward), or an object's entry is not within its
/// context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a causal set is not in canonical form")]
pub struct NotCanonical;

/// The writes to one key that were seen: for each actor a counter up to which *every* write was seen (0 for an absent
/// actor), and a cloud of spans above those counters.
///
/// A read needs counters only. The cloud is for a writer that knows its own write and not an earlier one of the same
/// actor, which no counter can express. A span moves into its actor's counter as soon as the counter reaches its lower
/// end. This is the compact causal context of delta-state CRDTs (Almeida, Shoker, Baquero 2016): a vector and a dot
/// cloud.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct VersionVector {
    seen: Counters,
    /// Every span begins above its actor's counter. Rare, and so boxed; never an empty set.
    cloud: Option<Box<DotSet>>,
}

// Not derived: a `SmallVec` clones its elements one by one, and these are copied as a whole.
impl Clone for VersionVector {
    fn clone(&self) -> Self {
        Self { seen: Counters::from_slice(&self.seen), cloud: self.cloud.clone() }
    }
}

impl VersionVector {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter up to which every write of that actor was seen, 0 if none was.
    #[must_use]
    pub fn get(&self, actor: ActorId) -> u64 {
        self.find(actor).map_or(0, |at| self.seen[at].1)
    }

    /// The highest counter seen of that actor, 0 if none. Writes below it may be missing.
    #[must_use]
    pub fn highest(&self, actor: ActorId) -> u64 {
        let clouded = self.cloud().iter().filter(|run| run.actor == actor).map(|run| run.hi).max();
        clouded.unwrap_or_else(|| self.get(actor))
    }

    /// Whether the dot was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor) || self.cloud().iter().any(|run| run.holds(dot))
    }

    /// Whether it contains every write of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let cloud_is = |cloud: &DotSet| cloud.unseen_by(self).is_empty();
        other.seen.iter().all(|&(actor, counter)| counter <= self.get(actor))
            && other.cloud.as_deref().is_none_or(cloud_is)
    }

    /// Grows with every write that is added: a vector that covers another and differs from it weighs more. Says nothing
    /// about two of which neither covers the other.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let counters = self.seen.iter().map(|&(_, counter)| counter);
        let spans = self.cloud().iter().map(|run| run.hi.saturating_sub(run.lo));
        counters.chain(spans).fold(0, u64::saturating_add)
    }

    /// Adds all writes of `dot.actor` up to `dot`.
    pub fn insert(&mut self, dot: Dot) {
        match self.find(dot.actor) {
            Ok(at) => self.seen[at].1 = self.seen[at].1.max(dot.counter),
            Err(at) if dot.counter > 0 => self.seen.insert(at, (dot.actor, dot.counter)),
            Err(_) => {}
        }
        self.settle();
    }

    /// Adds the writes of one span, and none below it.
    pub fn insert_span(&mut self, run: DotSpan) {
        if run.lo <= self.get(run.actor) {
            return self.insert(Dot { actor: run.actor, counter: run.hi });
        }
        self.set_cloud(self.cloud().iter().copied().chain([run]).collect());
    }

    /// Adds every write of `other`.
    pub fn join(&mut self, other: &Self) {
        for &(actor, counter) in &other.seen {
            self.insert(Dot { actor, counter });
        }
        for &run in other.cloud() {
            self.insert_span(run);
        }
    }

    /// The counter of each actor, ordered by actor, without the [`cloud`](Self::cloud).
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.seen.iter().map(|&(actor, counter)| Dot { actor, counter })
    }

    /// The spans that were seen above the counters, ordered by actor and counter.
    #[must_use]
    pub fn cloud(&self) -> &[DotSpan] {
        self.cloud.as_deref().map_or(&[], DotSet::spans)
    }

    /// Removes the cloud. The smaller vector replaces less.
    pub fn drop_cloud(&mut self) {
        self.cloud = None;
    }

    /// The number of actors that have a counter.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.cloud.is_none()
    }

    fn set_cloud(&mut self, cloud: DotSet) {
        self.cloud = (!cloud.is_empty()).then(|| Box::new(cloud));
    }

    /// Merges spans into the counters that have reached them.
    fn settle(&mut self) {
        let Some(cloud) = self.cloud.take() else { return };
        // Spans of one actor are in order, so each merged span may let the next one merge.
        let mut left: Spans = Spans::new();
        for run in cloud.runs {
            match self.find(run.actor) {
                Ok(at) if run.lo <= self.seen[at].1 => self.seen[at].1 = self.seen[at].1.max(run.hi),
                _ => left.push(run),
            }
        }
        self.set_cloud(DotSet { runs: left });
    }

    fn checked(seen: Counters, cloud: DotSet) -> Result<Self, NotCanonical> {
        let sorted = seen.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let mut vector = Self { seen, cloud: None };
        let above = cloud.spans().iter().all(|run| run.lo > vector.get(run.actor));
        vector.set_cloud(cloud);
        if sorted && above && vector.seen.iter().all(|&(_, counter)| counter > 0) {
            Ok(vector)
        } else {
            Err(NotCanonical)
        }
    }

    fn find(&self, actor: ActorId) -> Result<usize, usize> {
        self.seen.binary_search_by_key(&actor, |&(actor, _)| actor)
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::new();
        dots.into_iter().for_each(|dot| vector.insert(dot));
        vector
    }
}

impl Serialize for VersionVector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.seen.as_slice(), self.cloud()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The counters as they arrive.
        struct Arrived(Counters);
        impl<'de> Deserialize<'de> for Arrived {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                sequence(deserializer).map(Self)
            }
        }
        let (Arrived(seen), cloud) = Deserialize::deserialize(deserializer)?;
        Self::checked(seen, cloud).map_err(D::Error::custom)
    }
}

/// One span `(lo, hi]` of an actor's counters: every dot of that actor in the span *for one key*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DotSpan {
    /// The actor of the dots.
    pub actor: ActorId,
    /// Exclusive.
    pub lo: u64,
    /// Inclusive.
    pub hi: u64,
}

impl DotSpan {
    fn overlap(&self, other: &Self) -> Option<Self> {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        (self.actor == other.actor && lo < hi).then_some(Self { actor: self.actor, lo, hi })
    }

    fn contains(&self, other: &Self) -> bool {
        self.actor == other.actor && self.lo <= other.lo && other.hi <= self.hi
    }

    /// Whether the dot is in the span.
    #[must_use]
    pub fn holds(&self, dot: Dot) -> bool {
        self.actor == dot.actor && self.lo < dot.counter && dot.counter <= self.hi
    }
}

/// A set of dots of one key, as spans: sorted, neither overlapping nor touching. Consecutive writes of one actor are
/// one span, however many there are. (Keeping only the largest dot of each actor would lose the others.)
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct DotSet {
    runs: Spans,
}

impl Clone for DotSet {
    fn clone(&self) -> Self {
        Self { runs: Spans::from_slice(&self.runs) }
    }
}

impl DotSet {
    /// The set of a new dot. `after` is the last counter that its actor used for the key, so the span has this dot
    /// only.
    ///
    /// # Panics
    /// If `after` is not below the dot's counter: counters of an actor only grow.
    #[must_use]
    pub fn minted(dot: Dot, after: u64) -> Self {
        assert!(after < dot.counter, "a dot is minted above all earlier ones of its actor");
        Self { runs: smallvec::smallvec![DotSpan { actor: dot.actor, lo: after, hi: dot.counter }] }
    }

    /// The spans, ordered by actor and counter.
    #[must_use]
    pub fn spans(&self) -> &[DotSpan] {
        &self.runs
    }

    /// Whether there is no dot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the dot is in the set.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.runs.iter().any(|run| run.holds(dot))
    }

    /// The dots in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.runs.iter().chain(&other.runs).copied().collect()
    }

    /// The dots in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.runs.iter().flat_map(|a| other.runs.iter().filter_map(|b| a.overlap(b))).collect()
    }

    /// The dots that are not in the vector.
    #[must_use]
    pub fn unseen_by(&self, seen: &VersionVector) -> Self {
        if self.is_new_to(seen) {
            return self.clone();
        }
        let cut = |run: &DotSpan| DotSpan { lo: run.lo.max(seen.get(run.actor)), ..*run };
        let above: Self = self.runs.iter().map(cut).collect();
        match &seen.cloud {
            Some(cloud) => above.difference(cloud),
            None => above,
        }
    }

    /// The dots that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Spans::new();
        for run in &self.runs {
            let mut lo = run.lo;
            for hole in other.runs.iter().filter_map(|hole| run.overlap(hole)) {
                left.push(DotSpan { lo, hi: hole.lo, ..*run });
                lo = hole.hi;
            }
            left.push(DotSpan { lo, ..*run });
        }
        left.into_iter().collect()
    }

    /// Whether every dot here is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.runs.iter().all(|run| other.runs.iter().any(|wide| wide.contains(run)))
    }

    /// Whether no dot here was seen.
    #[must_use]
    pub fn is_new_to(&self, seen: &VersionVector) -> bool {
        let clouded = |run: &DotSpan| seen.cloud().iter().any(|other| other.overlap(run).is_some());
        self.runs.iter().all(|run| seen.get(run.actor) <= run.lo && !clouded(run))
    }

    /// Whether every dot here was seen.
    #[must_use]
    pub fn is_seen_by(&self, seen: &VersionVector) -> bool {
        self.runs.iter().all(|run| run.hi <= seen.get(run.actor))
            || (seen.cloud.is_some() && self.unseen_by(seen).is_empty())
    }

    fn checked(runs: Spans) -> Result<Self, NotCanonical> {
        if is_canonical(&runs) { Ok(Self { runs }) } else { Err(NotCanonical) }
    }

    /// The dot with the highest counter of each actor.
    pub fn highest(&self) -> impl Iterator<Item = Dot> + '_ {
        self.runs.iter().map(|run| Dot { actor: run.actor, counter: run.hi })
    }
}

/// Whether spans are in order, not empty, and neither overlap nor touch.
fn is_canonical(runs: &[DotSpan]) -> bool {
    let apart = |a: &DotSpan, b: &DotSpan| a.actor < b.actor || (a.actor == b.actor && a.hi < b.lo);
    runs.windows(2).all(|pair| apart(&pair[0], &pair[1])) && runs.iter().all(|run| run.lo < run.hi)
}

impl FromIterator<DotSpan> for DotSet {
    /// Sorts the spans, joins those that overlap or touch, and drops empty ones.
    fn from_iter<I: IntoIterator<Item = DotSpan>>(runs: I) -> Self {
        let mut sorted: Spans = runs.into_iter().filter(|run| run.lo < run.hi).collect();
        if is_canonical(&sorted) {
            return Self { runs: sorted };
        }
        sorted.sort_unstable();
        let mut joined = Spans::with_capacity(sorted.len());
        for run in sorted {
            match joined.last_mut() {
                Some(last) if last.actor == run.actor && run.lo <= last.hi => last.hi = last.hi.max(run.hi),
                _ => joined.push(run),
            }
        }
        Self { runs: joined }
    }
}

impl Serialize for DotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(sequence(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(actor: u64, lo: u64, hi: u64) -> DotSpan {
        DotSpan { actor: ActorId(actor), lo, hi }
    }

    #[test]
    fn touching_spans_become_one_and_apart_ones_stay() {
        let runs: DotSet = [run(1, 3, 7), run(1, 0, 3), run(1, 9, 10), run(2, 7, 9)].into_iter().collect();
        assert_eq!(runs.spans(), [run(1, 0, 7), run(1, 9, 10), run(2, 7, 9)]);
    }

    #[test]
    fn a_context_cuts_a_span_from_below() {
        let runs: DotSet = [run(1, 0, 7), run(2, 0, 2)].into_iter().collect();
        let seen: VersionVector =
            [Dot { actor: ActorId(1), counter: 5 }, Dot { actor: ActorId(2), counter: 2 }].into_iter().collect();
        assert_eq!(runs.unseen_by(&seen).spans(), [run(1, 5, 7)]);
        assert!(!runs.is_seen_by(&seen) && !runs.is_new_to(&seen));
    }

    #[test]
    fn a_span_waits_in_the_cloud_until_the_counter_reaches_it() {
        let dot = |counter| Dot { actor: ActorId(1), counter };
        let mut seen = VersionVector::new();
        seen.insert_span(run(1, 7, 9));
        seen.insert_span(run(1, 3, 5));
        assert!(seen.contains(dot(4)) && seen.contains(dot(9)) && !seen.contains(dot(3)) && !seen.contains(dot(6)));
        assert_eq!((seen.get(ActorId(1)), seen.highest(ActorId(1)), seen.len()), (0, 9, 0));
        assert!(!seen.is_empty());
        seen.insert(dot(3));
        assert_eq!((seen.get(ActorId(1)), seen.cloud()), (5, &[run(1, 7, 9)][..]), "the gap from 5 to 7 is still open");
        seen.insert_span(run(1, 4, 7));
        assert_eq!((seen.get(ActorId(1)), seen.cloud().is_empty()), (9, true));
    }

    #[test]
    fn contexts_with_clouds_join_to_the_same_in_any_order_and_cover_what_they_joined() {
        let vector = |counter: u64, spans: &[(u64, u64)]| {
            let mut vector: VersionVector = [Dot { actor: ActorId(1), counter }].into_iter().collect();
            spans.iter().for_each(|&(lo, hi)| vector.insert_span(run(1, lo, hi)));
            vector
        };
        let parts = [vector(1, &[(4, 5)]), vector(0, &[(1, 2), (7, 9)]), vector(0, &[(2, 4)]), vector(3, &[(8, 10)])];
        for (a, b, c) in (0..64).map(|at| (&parts[at / 16], &parts[at / 4 % 4], &parts[at % 4])) {
            let join = |x: &VersionVector, y: &VersionVector| {
                let mut joined = x.clone();
                joined.join(y);
                joined
            };
            let whole = join(&join(a, b), c);
            assert_eq!(whole, join(a, &join(c, b)));
            assert!([a, b, c].iter().all(|part| whole.covers(part)));
            assert_eq!(a.covers(b), join(a, b) == *a, "{a:?} and {b:?}");
            for counter in 1..12 {
                let dot = Dot { actor: ActorId(1), counter };
                assert_eq!(whole.contains(dot), [a, b, c].iter().any(|part| part.contains(dot)), "{dot:?}");
            }
        }
    }

    #[test]
    fn a_cloud_cuts_holes() {
        let mut seen: VersionVector = [Dot { actor: ActorId(1), counter: 1 }].into_iter().collect();
        seen.insert_span(run(1, 3, 5));
        let runs: DotSet = [run(1, 0, 7), run(2, 0, 2)].into_iter().collect();
        assert_eq!(runs.unseen_by(&seen).spans(), [run(1, 1, 3), run(1, 5, 7), run(2, 0, 2)]);
        let is_new = |run: DotSpan| DotSet::from_iter([run]).is_new_to(&seen);
        assert!(is_new(run(1, 1, 3)) && is_new(run(1, 5, 6)) && !is_new(run(1, 1, 4)) && !is_new(run(1, 0, 1)));
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let runs = |runs: &[DotSpan]| DotSet::checked(runs.iter().copied().collect());
        let vector = |seen: &[(u64, u64)]| {
            VersionVector::checked(
                seen.iter().map(|&(actor, counter)| (ActorId(actor), counter)).collect(),
                DotSet::default(),
            )
        };
        assert!(runs(&[run(1, 3, 7), run(1, 8, 9)]).is_ok() && vector(&[(1, 1), (2, 1)]).is_ok());
        assert!(runs(&[run(1, 3, 7), run(1, 7, 9)]).is_err(), "touching");
        assert!(runs(&[run(1, 7, 7)]).is_err(), "empty");
        assert!(vector(&[(2, 1), (1, 1)]).is_err(), "unsorted");
        assert!(vector(&[(2, 0)]).is_err(), "zero");
        let clouded =
            |span| VersionVector::checked([(ActorId(1), 3)].into_iter().collect(), [span].into_iter().collect());
        assert!(clouded(run(1, 4, 5)).is_ok() && clouded(run(2, 1, 2)).is_ok());
        assert!(clouded(run(1, 3, 5)).is_err() && clouded(run(2, 0, 1)).is_err(), "the counter reaches it");
    }
}
