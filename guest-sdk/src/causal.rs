//! A map whose entries know who has seen them, for plugins whose values lose and regain names: sets, records, carts.
//!
//! It is an observed-remove map without a list of what was removed (Bieniusa et al., "An optimized conflict-free
//! replicated set", 2012). Every entry has a *tag*: the writer that made it, and a counter that grows with every change
//! by that writer. The map's `clock` says up to which counter it has seen each writer. An entry that the clock of a
//! copy covers and the copy lacks *was removed* there, and an older copy does not bring it back. One that the clock
//! does not cover is new there, and stays: a change wins over a concurrent removal.
//!
//! As JSON, with entries of the type `u64`:
//! ```json
//! {"clock":{"ann-7f3a":2,"bob-01c9":1},"items":{"apples":{"ann-7f3a":2},"pears":{"bob-01c9":1}}}
//! ```
//!
//! ```
//! use rejoin_guest::causal::CausalMap;
//!
//! let mut phone = CausalMap::default();
//! phone.put("apples", "phone", 1);
//! let mut laptop = phone.clone();
//! laptop.remove("apples");
//! phone.put("pears", "phone", 2);
//! phone.join(&laptop);
//! assert_eq!(phone.names().collect::<Vec<_>>(), ["pears"]);
//! ```

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::json;
use crate::traits::{Dot, Fault};

/// An entry with the counter of its tag. Where two copies have one tag with different entries, which is a mistake of
/// its writer, the larger entry is kept.
pub trait Entry: Clone + Ord {
    /// The counter of the tag, from 1.
    fn counter(&self) -> u64;
}

impl Entry for u64 {
    fn counter(&self) -> u64 {
        *self
    }
}

/// Entries by the writers that made them: one, or those of concurrent changes.
pub type Entries<E> = BTreeMap<String, E>;

/// The map. A name has an entry of every writer whose change was not seen by a later one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CausalMap<E> {
    clock: BTreeMap<String, u64>,
    items: BTreeMap<String, Entries<E>>,
}

impl<E> Default for CausalMap<E> {
    fn default() -> Self {
        Self { clock: BTreeMap::new(), items: BTreeMap::new() }
    }
}

impl<E: Entry> CausalMap<E> {
    /// Reads a map.
    ///
    /// # Errors
    /// [`json::Error`] if the bytes are not strict JSON of the documented form, or an entry's counter is 0 or is not
    /// covered by the clock.
    pub fn parse(json: &[u8]) -> Result<Self, json::Error>
    where
        E: DeserializeOwned,
    {
        let map: Self = json::from_slice(json)?;
        if map.clock.values().any(|seen| *seen == 0) || map.items.values().any(BTreeMap::is_empty) {
            return Err(json::Error::custom("a writer without a change, or a name without an entry"));
        }
        for (writer, entry) in map.items.values().flatten() {
            if entry.counter() == 0 || !map.covers(writer, entry.counter()) {
                return Err(json::Error::custom(format_args!("the clock does not cover an entry of {writer:?}")));
            }
        }
        Ok(map)
    }

    /// The map as JSON. Equal maps give equal bytes.
    ///
    /// # Panics
    /// If an entry cannot be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8>
    where
        E: Serialize,
    {
        serde_json::to_vec(self).expect("maps with text keys are JSON if their entries are")
    }

    /// The counter for the next change by a writer. A writer's name stands for one session: two sessions under one name
    /// would use a tag twice.
    #[must_use]
    pub fn next(&self, writer: &str) -> u64 {
        self.clock.get(writer).map_or(1, |seen| seen.saturating_add(1))
    }

    /// The writer of an operation's dot, whose counter is that of the tag.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the map has seen the dot already; [`Fault::TooLarge`] if JSON readers could round it.
    pub fn writer(&self, dot: Dot) -> Result<String, Fault> {
        let writer = dot.writer();
        if self.covers(&writer, dot.counter) {
            return Err(Fault::Malformed);
        }
        if dot.counter > json::MAX_NUMBER { Err(Fault::TooLarge) } else { Ok(writer) }
    }

    /// Whether the map has seen this change of the writer.
    #[must_use]
    pub fn covers(&self, writer: &str, counter: u64) -> bool {
        has_seen(&self.clock, writer, counter)
    }

    /// Puts an entry in the place of all entries that this copy has under the name.
    pub fn put(&mut self, name: &str, writer: &str, entry: E) {
        let seen = self.clock.entry(writer.into()).or_insert(0);
        *seen = entry.counter().max(*seen);
        self.items.insert(name.into(), BTreeMap::from([(writer.into(), entry)]));
    }

    /// Removes all entries that this copy has under the name.
    pub fn remove(&mut self, name: &str) {
        self.items.remove(name);
    }

    /// The entries under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entries<E>> {
        self.items.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.items.keys().map(String::as_str)
    }

    /// All names with their entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Entries<E>)> {
        self.items.iter().map(|(name, entries)| (name.as_str(), entries))
    }

    /// Joins another copy: an entry stays if each of the two that has seen it has it.
    pub fn join(&mut self, other: &Self) {
        let Self { clock, items } = self;
        for (name, entries) in items.iter_mut() {
            let theirs = other.items.get(name);
            entries.retain(|writer, entry| {
                let twin = theirs.and_then(|theirs| theirs.get(writer));
                let twin = twin.filter(|twin| twin.counter() == entry.counter());
                if let Some(larger) = twin.filter(|twin| **twin > *entry) {
                    *entry = larger.clone();
                }
                twin.is_some() || !has_seen(&other.clock, writer, entry.counter())
            });
        }
        for (name, theirs) in &other.items {
            for (writer, entry) in theirs.iter().filter(|(writer, entry)| !has_seen(clock, writer, entry.counter())) {
                match items.get_mut(name) {
                    Some(entries) => drop(entries.insert(writer.clone(), entry.clone())),
                    None => drop(items.insert(name.clone(), BTreeMap::from([(writer.clone(), entry.clone())]))),
                }
            }
        }
        items.retain(|_, entries| !entries.is_empty());
        for (writer, counter) in &other.clock {
            match clock.get_mut(writer) {
                Some(seen) => *seen = (*seen).max(*counter),
                None => drop(clock.insert(writer.clone(), *counter)),
            }
        }
    }
}

fn has_seen(clock: &BTreeMap<String, u64>, writer: &str, counter: u64) -> bool {
    clock.get(writer).is_some_and(|seen| *seen >= counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: &str) -> CausalMap<u64> {
        CausalMap::parse(json.as_bytes()).expect(json)
    }

    fn joined(one: &CausalMap<u64>, other: &CausalMap<u64>) -> CausalMap<u64> {
        let mut joined = one.clone();
        joined.join(other);
        joined
    }

    #[test]
    fn an_entry_stays_if_all_who_have_seen_it_have_it() {
        let old = map(r#"{"clock":{"a":1},"items":{"x":{"a":1},"y":{"a":1}}}"#);
        let mut removed = old.clone();
        removed.remove("x");
        let mut again = old.clone();
        again.put("x", "b", 1);
        assert_eq!(joined(&old, &removed), removed, "an old copy brings nothing back");
        let both = map(r#"{"clock":{"a":1,"b":1},"items":{"x":{"b":1},"y":{"a":1}}}"#);
        assert_eq!((joined(&removed, &again), joined(&again, &removed)), (both.clone(), both), "the change wins");
    }

    #[test]
    fn a_change_replaces_what_its_writer_has_seen_and_nothing_else() {
        let (mut one, mut two) = (CausalMap::default(), CausalMap::default());
        one.put("x", "a", one.next("a"));
        two.put("x", "b", two.next("b"));
        let mut both = joined(&one, &two);
        assert_eq!(both.get("x").map(BTreeMap::len), Some(2));
        both.put("x", "a", both.next("a"));
        assert_eq!(both.to_json(), br#"{"clock":{"a":2,"b":1},"items":{"x":{"a":2}}}"#);
        assert_eq!(joined(&both, &two), both);
    }

    /// The same with one tag under two names or with two entries, as a client without this crate may write it.
    #[test]
    fn copies_agree_in_any_order_and_grouping_also_on_what_a_wrong_writer_wrote() {
        let copies = [
            map(r#"{"clock":{"a":2},"items":{"x":{"a":1},"y":{"a":2}}}"#),
            map(r#"{"clock":{"a":2},"items":{"x":{"a":2},"y":{"a":2}}}"#),
            map(r#"{"clock":{"a":1,"b":3},"items":{"x":{"a":1,"b":2}}}"#),
            map(r#"{"clock":{"b":2},"items":{"y":{"b":2},"z":{"b":1}}}"#),
            map(r#"{"clock":{"a":1},"items":{}}"#),
            CausalMap::default(),
        ];
        for one in &copies {
            assert_eq!(joined(one, one), *one);
            for two in &copies {
                let both = joined(one, two);
                assert_eq!(both, joined(two, one));
                assert_eq!(CausalMap::parse(&both.to_json()).expect("a map"), both);
                for three in &copies {
                    assert_eq!(joined(&both, three), joined(one, &joined(two, three)), "{one:?} {two:?} {three:?}");
                }
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_map() {
        for bad in [
            r#"{"clock":{},"items":{"x":{"a":1}}}"#,
            r#"{"clock":{"a":1},"items":{"x":{"a":2}}}"#,
            r#"{"clock":{"a":1},"items":{"x":{"a":0}}}"#,
            r#"{"clock":{"a":0},"items":{}}"#,
            r#"{"clock":{"a":1},"items":{"x":{}}}"#,
            r#"{"clock":{},"items":{},"more":1}"#,
            r#"{"clock":{}}"#,
            r#"{"clock":{"a":1,"a":1},"items":{}}"#,
        ] {
            assert!(CausalMap::<u64>::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
