//! The cart: an observed-remove set of tagged adds, whose removals are summarised by a clock (Bieniusa et al., "An
//! optimized conflict-free replicated set", 2012).

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde::{Deserialize, Serialize};

/// The largest counter of a writer.
const MAX_COUNTER: u64 = rejoin_guest::json::MAX_NUMBER;

/// A shopping cart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cart {
    clock: BTreeMap<String, u64>,
    items: BTreeMap<String, BTreeMap<String, u32>>,
}

/// Why bytes are no cart, or why a cart cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadCart(String);

impl std::error::Error for BadCart {}

impl std::fmt::Display for BadCart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cart {
    /// Reads a cart.
    ///
    /// # Errors
    /// [`BadCart`] if it is not JSON of the documented form, is ambiguous (see [`rejoin_guest::json`]), or has a tag
    /// that its own clock does not cover.
    pub fn parse(json: &[u8]) -> Result<Self, BadCart> {
        let mut cart: Self =
            rejoin_guest::json::from_slice(json).map_err(|error| BadCart(format!("this is no cart: {error}")))?;
        for (tag, quantity) in cart.items.values().flatten() {
            if *quantity == 0 || !well_formed(tag) || !cart.covers(tag) {
                let what =
                    format!("this is no cart: tag {tag:?} has no quantity, no counter, or is not covered by the clock");
                return Err(BadCart(what));
            }
        }
        cart.clock.retain(|_, counter| *counter > 0);
        cart.items.retain(|_, tags| !tags.is_empty());
        Ok(cart)
    }

    /// The cart as JSON. Equal carts give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and integers are always JSON")
    }

    /// The items and their quantities.
    #[must_use]
    pub fn items(&self) -> BTreeMap<&str, u64> {
        let sum = |tags: &BTreeMap<String, u32>| tags.values().map(|quantity| u64::from(*quantity)).sum();
        self.items.iter().map(|(item, tags)| (item.as_str(), sum(tags))).collect()
    }

    /// Adds an item; a quantity of 0 adds nothing. `writer` must be unique to a session, see the crate's documentation.
    ///
    /// A writer has 2^53 adds. One more makes a value that [`Cart::check`] and the plugin refuse, so that the add is
    /// never acknowledged and lost. An honest writer never gets there, but a client can write such a clock.
    pub fn add(&mut self, writer: &str, item: &str, quantity: u32) {
        if quantity == 0 {
            return;
        }
        let counter = self.clock.entry(writer.into()).or_insert(0);
        *counter = counter.saturating_add(1);
        self.items.entry(item.into()).or_default().insert(format!("{writer}:{counter}"), quantity);
    }

    /// Whether the plugin accepts this cart.
    ///
    /// # Errors
    /// [`BadCart`] names the writer that has no counters left.
    pub fn check(&self) -> Result<(), BadCart> {
        match self.clock.iter().find(|(_, counter)| **counter > MAX_COUNTER) {
            Some((writer, _)) => Err(BadCart(format!(
                "writer {writer:?} has used up its {MAX_COUNTER} counters: add under the name of a new session"
            ))),
            None => Ok(()),
        }
    }

    /// Removes every add of the item that this cart has seen. Adds that it has not seen stay: an add wins over a
    /// concurrent remove.
    pub fn remove(&mut self, item: &str) {
        self.items.remove(item);
    }

    /// Joins another cart: keeps the adds of both, without those that one of them has seen and removed.
    pub fn join(&mut self, other: &Self) {
        // A cart can only have removed tags that it has seen. Siblings mostly share none, and then the sets are not
        // built.
        let (mine, theirs) = (LazyCell::new(|| self.tags()), LazyCell::new(|| other.tags()));
        let mut new = Vec::new();
        for (item, tags) in &other.items {
            // A tag that both have is under the same item in both, unless a client has written nonsense.
            let has = |tag: &str| self.items.get(item).is_some_and(|known| known.contains_key(tag));
            let stays = |tag: &str| !self.covers(tag) || has(tag) || mine.contains(tag);
            new.extend(tags.iter().filter(|(tag, _)| stays(tag)).map(|(tag, quantity)| (item, tag, *quantity)));
        }
        // Carts without a common writer have seen no tags of each other.
        if self.clock.keys().any(|writer| other.clock.contains_key(writer)) {
            for (item, tags) in &mut self.items {
                let has = |tag: &str| other.items.get(item).is_some_and(|known| known.contains_key(tag));
                tags.retain(|tag, _| !other.covers(tag) || has(tag) || theirs.contains(tag.as_str()));
            }
        }
        for (item, tag, quantity) in new {
            // Two quantities for one tag are a writer's mistake. All replicas keep the larger one.
            match self.items.get_mut(item).and_then(|tags| tags.get_mut(tag)) {
                Some(known) => *known = (*known).max(quantity),
                None => drop(self.items.entry(item.clone()).or_default().insert(tag.clone(), quantity)),
            }
        }
        self.items.retain(|_, tags| !tags.is_empty());
        for (writer, counter) in &other.clock {
            match self.clock.get_mut(writer) {
                Some(known) => *known = (*known).max(*counter),
                None => drop(self.clock.insert(writer.clone(), *counter)),
            }
        }
    }

    fn tags(&self) -> HashSet<&str, BuildHasherDefault<DefaultHasher>> {
        let count = self.items.values().map(BTreeMap::len).sum();
        let mut tags = HashSet::with_capacity_and_hasher(count, BuildHasherDefault::default());
        tags.extend(self.items.values().flat_map(|tags| tags.keys().map(String::as_str)));
        tags
    }

    fn covers(&self, tag: &str) -> bool {
        split(tag).is_some_and(|(writer, counter)| self.clock.get(writer).is_some_and(|seen| *seen >= counter))
    }
}

fn split(tag: &str) -> Option<(&str, u64)> {
    let (writer, counter) = tag.rsplit_once(':')?;
    Some((writer, counter.parse().ok()?))
}

/// A tag has one spelling, without zeros or a sign before its counter. Otherwise one add could count as two.
fn well_formed(tag: &str) -> bool {
    tag.rsplit_once(':').is_some_and(|(_, counter)| counter.starts_with(|digit: char| matches!(digit, '1'..='9')))
}
