//! The cart: an observed-remove set of tagged adds whose removals are summarised by a clock (Bieniusa et al., "An
//! optimized conflict-free replicated set", 2012).

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde::{Deserialize, Serialize};

/// A shopping cart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cart {
    clock: BTreeMap<String, u64>,
    items: BTreeMap<String, BTreeMap<String, u32>>,
}

/// Bytes that are no cart, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadCart(String);

impl std::error::Error for BadCart {}

impl std::fmt::Display for BadCart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "this is no cart: {}", self.0)
    }
}

impl Cart {
    /// Reads a cart.
    ///
    /// # Errors
    /// [`BadCart`] if it is not JSON of the documented form, could be read in two ways (see [`rejoin_guest::json`]), or
    /// has a tag that its own clock does not cover.
    pub fn parse(json: &[u8]) -> Result<Self, BadCart> {
        let mut cart: Self = rejoin_guest::json::from_slice(json).map_err(|error| BadCart(error.to_string()))?;
        for (tag, quantity) in cart.items.values().flatten() {
            if *quantity == 0 || !well_formed(tag) || !cart.covers(tag) {
                return Err(BadCart(format!("tag {tag:?} has no quantity, no counter, or is not covered by the clock")));
            }
        }
        cart.clock.retain(|_, counter| *counter > 0);
        cart.items.retain(|_, tags| !tags.is_empty());
        Ok(cart)
    }

    /// The cart as JSON, always the same bytes for the same cart.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys and integers are always JSON")
    }

    /// What is in the cart, and how much of it.
    #[must_use]
    pub fn items(&self) -> BTreeMap<&str, u64> {
        let sum = |tags: &BTreeMap<String, u32>| tags.values().map(|quantity| u64::from(*quantity)).sum();
        self.items.iter().map(|(item, tags)| (item.as_str(), sum(tags))).collect()
    }

    /// Adds an item; a quantity of 0 adds nothing. `writer` must be unique to a session: see the crate's documentation.
    pub fn add(&mut self, writer: &str, item: &str, quantity: u32) {
        if quantity == 0 {
            return;
        }
        let counter = self.clock.entry(writer.into()).or_insert(0);
        *counter += 1;
        self.items.entry(item.into()).or_default().insert(format!("{writer}:{counter}"), quantity);
    }

    /// Removes every add of the item that this cart has seen. Adds that it has not seen stay: an add wins over a remove
    /// at the same time.
    pub fn remove(&mut self, item: &str) {
        self.items.remove(item);
    }

    /// Takes in another cart: what either has, less what the other has seen and removed.
    pub fn join(&mut self, other: &Self) {
        // Only what one cart has seen may the other have removed; of most siblings that is nothing, and the set is not
        // made.
        let (mine, theirs) = (LazyCell::new(|| self.tags()), LazyCell::new(|| other.tags()));
        let every = other.items.iter().flat_map(|(item, tags)| tags.iter().map(move |(tag, quantity)| (item, tag, *quantity)));
        let new: Vec<_> = every.filter(|(_, tag, _)| !self.covers(tag) || mine.contains(tag.as_str())).collect();
        // Every tag is covered by its own cart's clock: strangers have seen nothing of each other.
        if self.clock.keys().any(|writer| other.clock.contains_key(writer)) {
            self.items.values_mut().for_each(|tags| tags.retain(|tag, _| !other.covers(tag) || theirs.contains(tag.as_str())));
        }
        for (item, tag, quantity) in new {
            // One tag with two quantities is a writer's mistake; the larger is kept, so that all replicas agree.
            match self.items.get_mut(item).and_then(|tags| tags.get_mut(tag)) {
                Some(known) => *known = (*known).max(quantity),
                None => drop(self.items.entry(item.clone()).or_default().insert(tag.clone(), quantity)),
            }
        }
        self.items.retain(|_, tags| !tags.is_empty());
        for (writer, counter) in &other.clock {
            let known = self.clock.entry(writer.clone()).or_insert(0);
            *known = (*known).max(*counter);
        }
    }

    fn tags(&self) -> HashSet<&str, BuildHasherDefault<DefaultHasher>> {
        self.items.values().flat_map(|tags| tags.keys().map(String::as_str)).collect()
    }

    fn covers(&self, tag: &str) -> bool {
        split(tag).is_some_and(|(writer, counter)| self.clock.get(writer).is_some_and(|seen| *seen >= counter))
    }
}

fn split(tag: &str) -> Option<(&str, u64)> {
    let (writer, counter) = tag.rsplit_once(':')?;
    Some((writer, counter.parse().ok()?))
}

/// A tag has one spelling only, without zeros or a sign before its counter, or one add could be taken for two.
fn well_formed(tag: &str) -> bool {
    tag.rsplit_once(':').is_some_and(|(_, counter)| counter.starts_with(|digit: char| matches!(digit, '1'..='9')))
}
