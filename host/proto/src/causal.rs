//! The two sets that causality is made of: [`VersionVector`] (what has been seen) and [`Runs`] (which dots are meant).
//!
//! Both are kept in one canonical form, so that equal sets are equal bytes. What comes from outside is checked when it is decoded.
//! The idea of a context beside per-value dots is that of dotted version vectors (Preguiça, Baquero, Almeida, Fonte, Gonçalves 2010).

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::{Array, SmallVec};

use crate::id::{ActorId, Dot};

/// What most keys need stands in the value itself: as many writers as a bucket usually has copies, one span an entry.
type Counters = SmallVec<[(ActorId, u64); 3]>;
type Spans = SmallVec<[Run; 1]>;

/// Reads a sequence element by element: no room is made for what is only announced.
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

/// A set was not in its canonical form (unsorted, doubled, empty or backward), or an object's entry is not within its context.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a causal set is not in canonical form")]
pub struct NotCanonical;

/// Per actor, the counter up to which *every* write to one key by that actor has been seen. An absent actor stands for 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct VersionVector {
    seen: Counters,
}

impl VersionVector {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter seen of that actor, 0 if none.
    #[must_use]
    pub fn get(&self, actor: ActorId) -> u64 {
        self.find(actor).map_or(0, |at| self.seen[at].1)
    }

    /// Whether the dot is one of those seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Whether all that `other` has seen was seen here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.seen.iter().all(|&(actor, counter)| counter <= self.get(actor))
    }

    /// Adds all writes of `dot.actor` up to `dot`.
    pub fn insert(&mut self, dot: Dot) {
        match self.find(dot.actor) {
            Ok(at) => self.seen[at].1 = self.seen[at].1.max(dot.counter),
            Err(at) if dot.counter > 0 => self.seen.insert(at, (dot.actor, dot.counter)),
            Err(_) => {}
        }
    }

    /// The union: per actor the larger counter.
    pub fn join(&mut self, other: &Self) {
        for &(actor, counter) in &other.seen {
            self.insert(Dot { actor, counter });
        }
    }

    /// The actors and their counters, ordered by actor.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.seen.iter().map(|&(actor, counter)| Dot { actor, counter })
    }

    /// The number of actors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn checked(seen: Counters) -> Result<Self, NotCanonical> {
        let sorted = seen.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if sorted && seen.iter().all(|&(_, counter)| counter > 0) { Ok(Self { seen }) } else { Err(NotCanonical) }
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
        self.seen.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(sequence(deserializer)?).map_err(D::Error::custom)
    }
}

/// One span `(lo, hi]` of an actor's counters: every dot of that actor *for one key* in the span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whose dots.
    pub actor: ActorId,
    /// The span begins after this counter.
    pub lo: u64,
    /// The span ends with this counter.
    pub hi: u64,
}

impl Run {
    fn overlap(&self, other: &Self) -> Option<Self> {
        let (lo, hi) = (self.lo.max(other.lo), self.hi.min(other.hi));
        (self.actor == other.actor && lo < hi).then_some(Self { actor: self.actor, lo, hi })
    }

    fn contains(&self, other: &Self) -> bool {
        self.actor == other.actor && self.lo <= other.lo && other.hi <= self.hi
    }
}

/// A set of dots of one key, as spans: sorted, neither overlapping nor touching. Spans and not single dots, because a run of
/// writes by one actor is then one span however long it is, and because keeping only its largest dot would lose the others.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Runs {
    runs: Spans,
}

impl Runs {
    /// The span of a freshly minted dot: `after` is the last counter that its actor had used for the key, so the span holds that dot only.
    ///
    /// # Panics
    /// If `after` is not below the dot's counter: an actor's counter never goes back.
    #[must_use]
    pub fn minted(dot: Dot, after: u64) -> Self {
        assert!(after < dot.counter, "a dot is minted above all earlier ones of its actor");
        Self { runs: smallvec::smallvec![Run { actor: dot.actor, lo: after, hi: dot.counter }] }
    }

    /// The spans, ordered by actor and counter.
    #[must_use]
    pub fn spans(&self) -> &[Run] {
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
        self.runs.iter().any(|run| run.actor == dot.actor && run.lo < dot.counter && dot.counter <= run.hi)
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

    /// The dots that the vector has not seen: every span cut from below.
    #[must_use]
    pub fn unseen_by(&self, seen: &VersionVector) -> Self {
        let cut = |run: &Run| Run { lo: run.lo.max(seen.get(run.actor)), ..*run };
        self.runs.iter().map(cut).filter(|run| run.lo < run.hi).collect()
    }

    /// Whether every dot here is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.runs.iter().all(|run| other.runs.iter().any(|wide| wide.contains(run)))
    }

    /// Whether no dot here was seen.
    #[must_use]
    pub fn is_new_to(&self, seen: &VersionVector) -> bool {
        self.runs.iter().all(|run| seen.get(run.actor) <= run.lo)
    }

    fn checked(runs: Spans) -> Result<Self, NotCanonical> {
        let apart = |a: &Run, b: &Run| a.actor < b.actor || (a.actor == b.actor && a.hi < b.lo);
        let ordered = runs.windows(2).all(|pair| apart(&pair[0], &pair[1]));
        if ordered && runs.iter().all(|run| run.lo < run.hi) { Ok(Self { runs }) } else { Err(NotCanonical) }
    }

    /// The dot with the highest counter of each actor.
    pub fn highest(&self) -> impl Iterator<Item = Dot> + '_ {
        self.runs.iter().map(|run| Dot { actor: run.actor, counter: run.hi })
    }
}

impl FromIterator<Run> for Runs {
    /// Sorts the spans and joins those that overlap or touch; empty ones are left out.
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut sorted: Spans = runs.into_iter().filter(|run| run.lo < run.hi).collect();
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

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(sequence(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(actor: u64, lo: u64, hi: u64) -> Run {
        Run { actor: ActorId(actor), lo, hi }
    }

    #[test]
    fn touching_spans_become_one_and_apart_ones_stay() {
        let runs: Runs = [run(1, 3, 7), run(1, 0, 3), run(1, 9, 10), run(2, 7, 9)].into_iter().collect();
        assert_eq!(runs.spans(), [run(1, 0, 7), run(1, 9, 10), run(2, 7, 9)]);
    }

    #[test]
    fn a_context_cuts_a_span_from_below() {
        let runs: Runs = [run(1, 0, 7), run(2, 0, 2)].into_iter().collect();
        let seen: VersionVector = [Dot { actor: ActorId(1), counter: 5 }, Dot { actor: ActorId(2), counter: 2 }].into_iter().collect();
        assert_eq!(runs.unseen_by(&seen).spans(), [run(1, 5, 7)]);
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let runs = |runs: &[Run]| Runs::checked(runs.iter().copied().collect());
        let vector = |seen: &[(u64, u64)]| VersionVector::checked(seen.iter().map(|&(actor, counter)| (ActorId(actor), counter)).collect());
        assert!(runs(&[run(1, 3, 7), run(1, 8, 9)]).is_ok() && vector(&[(1, 1), (2, 1)]).is_ok());
        assert!(runs(&[run(1, 3, 7), run(1, 7, 9)]).is_err(), "touching");
        assert!(runs(&[run(1, 7, 7)]).is_err(), "empty");
        assert!(vector(&[(2, 1), (1, 1)]).is_err(), "unsorted");
        assert!(vector(&[(2, 0)]).is_err(), "zero");
    }
}
