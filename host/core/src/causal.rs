//! The algebra of an object: [`sync`] joins two copies, [`put`] applies a write, [`visible`] is what a reader sees, and
//! [`fold`] stores a merge's result.
//!
//! All are pure functions on one object: nothing here knows a store, a clock or a plugin. `sync` is the only join. It
//! is commutative and idempotent and never loses a live dot. The result of a plugin enters through `fold` only, which
//! is conditional and mints nothing. Contexts and dots are those of dotted version vectors (Preguiça et al. 2010) and
//! of delta-state CRDTs with causal contexts (Almeida, Shoker, Baquero 2016); folds that keep every dot are our own.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;

use rejoin_proto::{Content, Dot, DotSet, DotSpan, Entry, FoldedBy, Hlc, Object, VersionVector};

pub use rejoin_proto::receipt::siblings;

/// Two entries have the same dot and different values, as they were written: a disk was cloned or went back. Both are
/// kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneDotTwoValues;

/// Joins two copies of an object. The result has seen what either has seen. A dot stays live if it is live in both, or
/// live in one and not seen by the other.
#[must_use]
pub fn sync(a: &Object, b: &Object) -> (Object, Option<OneDotTwoValues>) {
    let (joined, alarm) = sync_borrowed(a, b);
    (joined.into_owned(), alarm)
}

/// As [`sync`], without a copy where the join is one of the two.
#[must_use]
pub fn sync_borrowed<'a>(a: &'a Object, b: &'a Object) -> (Cow<'a, Object>, Option<OneDotTwoValues>) {
    // Rule: joins keep both. Rule: siblings stay. Two shortcuts for the common cases, with the result that `join` would
    // have.
    if a == b || supersedes(a, b) {
        return (Cow::Borrowed(a), None);
    }
    if supersedes(b, a) {
        return (Cow::Borrowed(b), None);
    }
    let (joined, alarm) = join(a, b);
    (Cow::Owned(joined), alarm)
}

/// The join without shortcuts.
fn join(a: &Object, b: &Object) -> (Object, Option<OneDotTwoValues>) {
    let (live_a, live_b) = (live(a), live(b));
    let mut entries: Vec<Entry> = Vec::with_capacity(a.entries.len() + b.entries.len());
    entries.extend(a.entries.iter().filter_map(|entry| surviving(entry, &b.context, &live_b)));
    entries.extend(b.entries.iter().filter_map(|entry| surviving(entry, &a.context, &live_a)));
    // Rule: clashes are kept.
    let (entries, alarm) = without_doubles(entries);
    let mut context = a.context.clone();
    context.join(&b.context);
    (Object { context, entries }, alarm)
}

/// Whether `newer` has seen all that `older` has, and has at most one entry, which `older` has not seen. Then nothing
/// of `older` is live in it, and it is the join. (Several entries may stand in another order than a join leaves them
/// in.)
fn supersedes(newer: &Object, older: &Object) -> bool {
    newer.entries.len() <= 1
        && newer.context.covers(&older.context)
        && newer.entries.iter().all(|entry| entry.dots.is_new_to(&older.context))
}

/// All live dots of an object.
fn live(object: &Object) -> DotSet {
    object.entries.iter().flat_map(|entry| entry.dots.spans().iter().copied()).collect()
}

/// An entry with the dots that the other side has live or has not seen; `None` if there are none.
fn surviving(entry: &Entry, seen: &VersionVector, live: &DotSet) -> Option<Entry> {
    if entry.dots.is_new_to(seen) {
        return Some(entry.clone());
    }
    let fresh = entry.dots.unseen_by(seen);
    let dots = fresh.union(&entry.dots.intersection(live));
    (!dots.is_empty()).then(|| Entry { dots, ..entry.clone() })
}

/// The order of entries in an object, and of those with equal dots the order of preference: fewer covers, then covers,
/// tombstone before value, bytes, stamp, expiry, plugin.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let weight = |runs: &DotSet| runs.spans().iter().fold(0u64, |sum, run| sum.saturating_add(run.hi - run.lo));
    a.dots
        .cmp(&b.dots)
        .then_with(|| weight(&a.covers).cmp(&weight(&b.covers)))
        .then_with(|| a.covers.cmp(&b.covers))
        .then_with(|| a.content.cmp(&b.content))
        .then_with(|| (a.stamp, a.expires, a.folded_by).cmp(&(b.stamp, b.expires, b.folded_by)))
}

/// Whether both are a client's write as it came, and not the same write.
fn clash(a: &Entry, b: &Entry) -> bool {
    let fresh = |entry: &Entry| entry.is_unfolded() && entry.covers == entry.dots && entry.dots.spans().len() == 1;
    fresh(a) && fresh(b) && a.content != b.content
}

/// Keeps the preferred one of entries with equal dots (both, if they [`clash`]), and drops entries whose dots are a
/// proper part of another's.
fn without_doubles(mut entries: Vec<Entry>) -> (Vec<Entry>, Option<OneDotTwoValues>) {
    if entries.len() < 2 {
        return (entries, None);
    }
    entries.sort_by(order);
    let mut alarm = None;
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut rivals = kept.iter().rev().take_while(|other| other.dots == entry.dots).peekable();
        let alone = rivals.peek().is_none();
        let clashing = !alone && rivals.all(|other| clash(other, &entry));
        if clashing {
            alarm = Some(OneDotTwoValues);
        }
        if alone || clashing {
            kept.push(entry);
        }
    }
    let spoken_for =
        |entry: &Entry| kept.iter().any(|other| other.dots != entry.dots && entry.dots.is_subset(&other.dots));
    let redundant: Vec<bool> = kept.iter().map(spoken_for).collect();
    let mut at = redundant.into_iter();
    kept.retain(|_| !at.next().unwrap_or(false));
    (kept, alarm)
}

/// A client's write, at the replica that coordinates it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The writer's context: the write replaces what it has seen.
    pub seen: VersionVector,
    /// Minted by this replica for this write.
    pub dot: Dot,
    /// A value, or a tombstone for a delete.
    pub content: Content,
    /// The replica's clock.
    pub stamp: Hlc,
    /// When it stops being visible.
    pub expires: Option<Hlc>,
}

/// Applies a write. It replaces what its writer had seen; everything else stays beside it.
///
/// # Panics
/// If the dot is not above all that its actor had minted for the key: the actor rule was broken, and going on would
/// lose writes.
pub fn put(object: &mut Object, write: Write) {
    let actor = write.dot.actor;
    let after = object.context.highest(actor).max(write.seen.highest(actor));
    // Rule: writes replace what was seen.
    drop_seen(object, &write.seen);
    // Rule: contexts are remembered, also of writes that have not arrived here yet.
    object.context.join(&write.seen);
    object.context.insert(write.dot);
    let dots = DotSet::minted(write.dot, after);
    object.entries.push(Entry {
        covers: dots.clone(),
        dots,
        content: write.content,
        stamp: write.stamp,
        expires: write.expires,
        folded_by: None,
    });
    object.entries.sort_by(order);
}

/// Takes the dots that `seen` covers from every entry, and drops the entries that have none left.
fn drop_seen(object: &mut Object, seen: &VersionVector) {
    object.entries.retain_mut(|entry| {
        entry.dots = entry.dots.unseen_by(seen);
        !entry.dots.is_empty()
    });
    normalise(object);
}

/// Brings an object that was changed in place into the form that a [`sync`] leaves.
fn normalise(object: &mut Object) {
    object.entries = without_doubles(core::mem::take(&mut object.entries)).0;
}

/// Drops entries that expired more than `max_skew_ms` ago. The context stays, so this is a removal like a delete.
/// Returns whether anything was dropped.
pub fn drop_expired(object: &mut Object, now_ms: u64, max_skew_ms: u64) -> bool {
    let before = object.entries.len();
    // Rule: expiry waits for skew.
    object.entries.retain(|entry| entry.expires.is_none_or(|end| now_ms <= end.ms().saturating_add(max_skew_ms)));
    object.entries.len() != before
}

/// The context of a put's reply: what the writer had seen before, and its own write, so that its next write replaces
/// both. A sibling that the writer was not shown is not in it. If one is live below the new dot, the dot goes into the
/// cloud of the context. Gaps of the cloud in which nothing is live are closed, so that it has at most one span more
/// than there are such siblings.
#[must_use]
pub fn writers_view(object: &Object, seen: &VersionVector, dot: Dot) -> VersionVector {
    let mut view = seen.clone();
    let spans = object.entries.iter().flat_map(|entry| entry.dots.spans());
    let own = spans.copied().find(|run| run.holds(dot));
    view.insert_span(own.unwrap_or(DotSpan { actor: dot.actor, lo: dot.counter.saturating_sub(1), hi: dot.counter }));
    let hidden: DotSet = object.entries.iter().flat_map(|entry| entry.dots.unseen_by(&view).spans().to_vec()).collect();
    for run in view.cloud().to_vec() {
        // Of what this copy has not seen itself it cannot tell whether it is live.
        if run.hi <= object.context.get(run.actor) {
            let below = hidden
                .spans()
                .iter()
                .filter(|other| other.actor == run.actor && other.hi <= run.lo)
                .map(|other| other.hi)
                .max();
            view.insert_span(DotSpan { lo: below.unwrap_or(0), ..run });
        }
    }
    view
}

/// The most spans that an object's dots, or its context's cloud, may come to have through contexts with a cloud.
pub const MAX_SPANS: usize = 256;

/// A writer's context, bounded: without its cloud if that would leave the object with more than [`MAX_SPANS`] spans.
/// The writes that the cloud named then stay as siblings, which is always sound.
#[must_use]
pub fn bounded(object: &Object, mut seen: VersionVector) -> VersionVector {
    if seen.cloud().is_empty() {
        return seen;
    }
    let mut context = object.context.clone();
    context.join(&seen);
    let left =
        || object.entries.iter().map(|entry| (entry, entry.dots.unseen_by(&seen))).filter(|(_, dots)| !dots.is_empty());
    let dots: DotSet = left().flat_map(|(_, dots)| dots.spans().to_vec()).collect();
    // The covers of a fold of them all.
    let covers: DotSet = left().flat_map(|(entry, _)| entry.covers.spans().iter().copied()).collect();
    if [context.cloud(), dots.spans(), covers.spans()].iter().any(|spans| spans.len() > MAX_SPANS) {
        seen.drop_cloud();
    }
    seen
}

/// The entries that a reader sees at that time, in canonical order.
#[must_use]
pub fn visible(object: &Object, now_ms: u64) -> Vec<Entry> {
    // Rule: expired is hidden. Rule: tombstones are no values.
    object.entries.iter().filter(|entry| entry.is_visible(now_ms)).cloned().collect()
}

/// The context that has seen these writes and no others.
#[must_use]
pub fn context_of(dots: &DotSet) -> VersionVector {
    let mut seen = VersionVector::new();
    dots.spans().iter().for_each(|run| seen.insert_span(*run));
    seen
}

/// Replaces `inputs` by the result of a merge, if every one of them is still there unchanged. Otherwise leaves the
/// object alone and returns `false`. No dot is minted: the result has exactly the dots of its inputs. Tombstones beside
/// it are dropped, and their dots stay seen.
pub fn fold(object: &mut Object, inputs: &[Entry], merged: Bytes, by: Option<FoldedBy>) -> bool {
    let Some(first) = inputs.first() else { return false };
    // Rule: late merges are dropped.
    if !inputs.iter().all(|input| object.entries.contains(input)) {
        return false;
    }
    let folded = if inputs.len() == 1 { first.clone() } else { joined(inputs, merged, by) };
    object.entries.retain(|entry| !inputs.contains(entry) && entry.content != Content::Tombstone);
    object.entries.push(folded);
    // Rule: folds forget nothing. The context stays as it is, also for the dots of dropped tombstones.
    normalise(object);
    true
}

fn joined(inputs: &[Entry], merged: Bytes, by: Option<FoldedBy>) -> Entry {
    let spans = |pick: fn(&Entry) -> &DotSet| {
        inputs.iter().flat_map(|entry| pick(entry).spans().iter().copied()).collect::<DotSet>()
    };
    let never = inputs.iter().any(|entry| entry.expires.is_none());
    Entry {
        // Rule: runs are whole.
        dots: spans(|entry| &entry.dots),
        covers: spans(|entry| &entry.covers),
        content: Content::Value(merged),
        stamp: inputs.iter().map(|entry| entry.stamp).max().unwrap_or_default(),
        expires: if never { None } else { inputs.iter().filter_map(|entry| entry.expires).max() },
        folded_by: by,
    }
}

/// Whether a value of one is the same bytes in memory as one of the other, and so keeps the same row.
#[must_use]
pub(crate) fn share_values(a: &Object, b: &Object) -> bool {
    let is_one = |a: &Entry, b: &Entry| match (&a.content, &b.content) {
        (Content::Value(a), Content::Value(b)) => !a.is_empty() && a.as_ptr() == b.as_ptr(),
        _ => false,
    };
    a.entries.iter().any(|entry| b.entries.iter().any(|other| is_one(entry, other)))
}

/// Gives each value memory of its own, so that no row is kept for it.
pub(crate) fn copy_values(object: &mut Object) {
    for entry in &mut object.entries {
        if let Content::Value(value) = &mut entry.content {
            *value = Bytes::copy_from_slice(value);
        }
    }
}

/// The bytes of all values together.
#[must_use]
pub fn value_bytes(object: &Object) -> usize {
    object.entries.iter().map(|entry| entry.content.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::ActorId;

    /// Every object of two actors with two writes each and up to two values.
    fn small_objects() -> Vec<Object> {
        let all: Vec<Dot> =
            (1..=2).flat_map(|actor| (1..=2).map(move |counter| Dot { actor: ActorId(actor), counter })).collect();
        let picked =
            |mask: usize| (0..4).filter(move |bit| mask & 1 << bit != 0).map(|bit| all[bit]).collect::<Vec<_>>();
        let entry = |mask: usize| {
            let dots: DotSet = picked(mask)
                .iter()
                .map(|dot| DotSpan { actor: dot.actor, lo: dot.counter - 1, hi: dot.counter })
                .collect();
            let content = Content::Value(Bytes::from(alloc::vec![mask as u8]));
            Entry { covers: dots.clone(), dots, content, stamp: Hlc::default(), expires: None, folded_by: None }
        };
        let mut objects = Vec::new();
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let context: VersionVector =
                [(1, a), (2, b)].map(|(actor, counter)| Dot { actor: ActorId(actor), counter }).into_iter().collect();
            let within = |mask: &usize| picked(*mask).iter().all(|dot| context.contains(*dot));
            objects.push(Object { context: context.clone(), entries: Vec::new() });
            for first in (1..16).filter(within) {
                objects.push(Object { context: context.clone(), entries: alloc::vec![entry(first)] });
                for second in (first + 1..16).filter(within).filter(|second| first & second == 0) {
                    let entries = without_doubles(alloc::vec![entry(first), entry(second)]).0;
                    objects.push(Object { context: context.clone(), entries });
                }
            }
        }
        objects
    }

    #[test]
    fn the_short_ways_of_a_join_come_to_the_same_as_the_long_one() {
        let objects = small_objects();
        let mut short = 0;
        for (a, b) in objects.iter().flat_map(|a| objects.iter().map(move |b| (a, b))) {
            assert_eq!(sync(a, b), join(a, b), "{a:?} with {b:?}");
            short += usize::from(a == b || supersedes(a, b) || supersedes(b, a));
        }
        let two = objects.iter().find(|object| object.entries.len() == 2).expect("there are some");
        let other_way = Object { entries: two.entries.iter().rev().cloned().collect(), ..two.clone() };
        assert_eq!(&sync(&Object::default(), &other_way).0, two, "an order that no join leaves");
        assert!(short > objects.len() * 5, "{short} of {} pairs took one", objects.len().pow(2));
    }
}
