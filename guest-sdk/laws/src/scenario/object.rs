//! The object of one key on one replica: a context and its live entries.
//!
//! The same algebra as the database's, with sets of dots instead of runs, because scenarios are short.

use std::collections::{BTreeMap, BTreeSet};

use crate::merge::Sibling;

type Dot = (u64, u64);
pub(crate) type Context = BTreeMap<u64, u64>;

/// A value or a tombstone, with the dots of the writes that it stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    dots: BTreeSet<Dot>,
    covers: BTreeSet<Dot>,
    value: Option<Vec<u8>>,
    stamp_ms: u64,
}

/// One key at one replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Object {
    pub(crate) context: Context,
    entries: Vec<Entry>,
}

fn covered(context: &Context, dot: &Dot) -> bool {
    context.get(&dot.0).is_some_and(|counter| *counter >= dot.1)
}

fn join(mut one: Context, other: &Context) -> Context {
    for (actor, counter) in other {
        let known = one.entry(*actor).or_insert(0);
        *known = (*known).max(*counter);
    }
    one
}

impl Object {
    /// A write with the context that its client has read.
    pub(crate) fn put(&mut self, seen: &Context, dot: Dot, value: Option<Vec<u8>>, stamp_ms: u64) {
        for entry in &mut self.entries {
            entry.dots.retain(|dot| !covered(seen, dot));
        }
        self.entries.retain(|entry| !entry.dots.is_empty());
        let dots = BTreeSet::from([dot]);
        self.entries.push(Entry { covers: dots.clone(), dots, value, stamp_ms });
        self.context = join(join(core::mem::take(&mut self.context), seen), &Context::from([dot]));
        self.entries.sort();
    }

    /// The join of two replicas' objects. Commutative and idempotent; calls no plugin.
    pub(crate) fn sync(&self, other: &Self) -> Self {
        let mut entries = self.surviving(other);
        entries.extend(other.surviving(self));
        entries.sort();
        // Two folds of the same writes may differ: of entries with equal dots the first in order is kept.
        entries.dedup_by(|later, earlier| later.dots == earlier.dots);
        let speaks_for =
            |larger: &Entry, entry: &Entry| entry.dots.len() < larger.dots.len() && entry.dots.is_subset(&larger.dots);
        let all = entries.clone();
        entries.retain(|entry| !all.iter().any(|larger| speaks_for(larger, entry)));
        Self { context: join(self.context.clone(), &other.context), entries }
    }

    /// The entries with those dots that the other side has not seen or still has.
    fn surviving(&self, other: &Self) -> Vec<Entry> {
        let live: BTreeSet<Dot> = other.entries.iter().flat_map(|entry| entry.dots.iter().copied()).collect();
        let keep = |entry: &Entry| {
            let dots =
                entry.dots.iter().copied().filter(|dot| !covered(&other.context, dot) || live.contains(dot)).collect();
            Entry { dots, ..entry.clone() }
        };
        self.entries.iter().map(keep).filter(|entry| !entry.dots.is_empty()).collect()
    }

    /// The siblings that a merge is given: the values in canonical order, equal bytes once. The writer is the actor of
    /// the largest dot.
    pub(crate) fn siblings(&self) -> Vec<Sibling> {
        let mut siblings: Vec<Sibling> = Vec::new();
        for entry in &self.entries {
            let Some(value) = &entry.value else { continue };
            let writer = entry.dots.last().map_or(0, |dot| dot.0);
            if !siblings.iter().any(|sibling| sibling.value == *value) {
                siblings.push(Sibling { value: value.clone(), stamp_ms: entry.stamp_ms, writer });
            }
        }
        siblings
    }

    /// As [`Object::siblings`], with equal bytes as often as they were written.
    pub(crate) fn all_siblings(&self) -> Vec<Sibling> {
        let sibling = |entry: &Entry| {
            let writer = entry.dots.last().map_or(0, |dot| dot.0);
            entry.value.clone().map(|value| Sibling { value, stamp_ms: entry.stamp_ms, writer })
        };
        self.entries.iter().filter_map(sibling).collect()
    }

    /// The object with one value instead of all. Tombstones are dropped and their dots stay in the context. Mints no
    /// dot.
    pub(crate) fn fold(self, merged: Vec<u8>) -> Self {
        let values: Vec<&Entry> = self.entries.iter().filter(|entry| entry.value.is_some()).collect();
        let dots = values.iter().flat_map(|entry| entry.dots.iter().copied()).collect();
        let covers = values.iter().flat_map(|entry| entry.covers.iter().copied()).collect();
        let stamp_ms = values.iter().map(|entry| entry.stamp_ms).max().unwrap_or(0);
        Self { context: self.context, entries: vec![Entry { dots, covers, value: Some(merged), stamp_ms }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(writes: &[(Dot, &str)]) -> Object {
        let mut object = Object::default();
        for (dot, value) in writes {
            object.put(&Context::new(), *dot, Some(value.as_bytes().to_vec()), dot.1);
        }
        object
    }

    fn values(object: &Object) -> Vec<String> {
        object.siblings().into_iter().map(|sibling| String::from_utf8(sibling.value).expect("text")).collect()
    }

    #[test]
    fn a_write_replaces_what_was_seen_and_nothing_else() {
        let mut here = object(&[((1, 1), "a"), ((2, 1), "b")]);
        here.put(&Context::from([(1, 1)]), (1, 2), Some(b"c".to_vec()), 9);
        assert_eq!(values(&here), ["c", "b"], "b had not been seen");
    }

    #[test]
    fn meeting_commutes_and_is_idempotent() {
        let one = object(&[((1, 1), "a"), ((2, 1), "b")]);
        let mut other = one.clone();
        other.put(&one.context, (3, 1), None, 9);
        let joined = one.sync(&other);
        assert_eq!(joined, other.sync(&one));
        assert_eq!(joined, joined.sync(&one));
        assert_eq!(values(&joined), Vec::<String>::new(), "a delete that saw both leaves none");
    }

    #[test]
    fn a_fold_speaks_for_its_inputs() {
        let siblings = object(&[((1, 1), "a"), ((2, 1), "b")]);
        let folded = siblings.clone().fold(b"ab".to_vec());
        assert_eq!(values(&folded.sync(&object(&[((1, 1), "a")]))), ["ab"]);
        let mut later = object(&[((1, 1), "a")]);
        later.put(&Context::from([(1, 1)]), (3, 1), Some(b"c".to_vec()), 9);
        assert_eq!(values(&folded.sync(&later)), ["ab", "c"], "the fold still speaks for b");
    }
}
