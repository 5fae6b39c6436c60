//! Session attributes: the last writer wins, field by field.
//!
//! # Format
//! The value is JSON that a person can read, a map from names to fields:
//! ```json
//! {"name":{"stamp":1700000000000,"writer":"web-7f3a","value":"Ann"},
//!  "theme":{"stamp":1700000000007,"writer":"app-01c9","value":null}}
//! ```
//! - `stamp` is when the field was set, in milliseconds since the Unix epoch by the clock of its `writer`.
//! - A field without a value *was removed*. It stays in the map, so that an older copy with a value does not win.
//!
//! # Merging
//! Of each field the copy with the larger stamp is kept, then the one with the larger writer, then the one with the
//! larger value. That is a total order, so all replicas agree; a removal is a field like any other. Different fields
//! never compete: two browsers that change the name and the theme concurrently both succeed.
//!
//! Of two concurrent changes of one field one is lost: that is what *last writer wins* means, and no law forbids it.
//! Values that have to be added up need another plugin. Values carry their own stamps (`self-causal`); the merge
//! ignores those of siblings.
//!
//! # Writing
//! A client edits the session it has read and writes all of it back. [`Session::set`] and [`Session::remove`] give the
//! field a stamp above the one they have read, so a client always replaces a value that it has seen, even if its clock
//! is behind. A field that is dropped instead of removed comes back with the next merge with an older copy.
//!
//! # Limits
//! Stamps are at most 2^53, which every JSON reader represents exactly. A clock is counted up to 2^20 less, so that a
//! wrong one leaves room for later changes. Above a stamp of 2^53, which only a client without this crate writes, a
//! field cannot be changed: `set` fails instead of making a change that a merge could lose. A clock that is far ahead
//! wins until the other clocks have caught up, or a client that has read the field replaces it. Ambiguous JSON, such as
//! a duplicate name, is refused when it is written. Removed fields stay until the key is deleted or expires.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

mod plugin;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_guest::json;

pub use plugin::Plugin;

/// The largest stamp.
const MAX_STAMP: u64 = json::MAX_NUMBER;
/// The largest stamp that is taken from a clock. Above it there is room for 2^20 changes that each have seen the last.
const MAX_CLOCK: u64 = MAX_STAMP - (1 << 20);

/// The field has the largest stamp already and can no longer be changed. Write it under another name, or delete the
/// key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StampsUsedUp {
    /// The name of the field.
    pub field: String,
}

impl std::error::Error for StampsUsedUp {}

impl std::fmt::Display for StampsUsedUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "field {:?} has the largest stamp already: write it under another name, or delete the key",
            self.field
        )
    }
}

/// A field. The derived order is the one in which fields win.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    stamp: u64,
    writer: String,
    value: Option<String>,
}

/// The attributes of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(BTreeMap<String, Field>);

impl Session {
    /// Reads a session.
    ///
    /// # Errors
    /// Why the bytes are no session; ambiguous JSON is none either (see [`rejoin_guest::json`]).
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The session as JSON. Equal sessions give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys, texts and integers are always JSON")
    }

    /// The fields that have a value.
    #[must_use]
    pub fn attributes(&self) -> BTreeMap<&str, &str> {
        self.0.iter().filter_map(|(name, field)| Some((name.as_str(), field.value.as_deref()?))).collect()
    }

    /// Sets a field, with the time of the writer's clock in milliseconds since the Unix epoch, or a stamp just above
    /// the one it replaces.
    ///
    /// # Errors
    /// [`StampsUsedUp`] if there is no larger stamp. Nothing is changed.
    pub fn set(&mut self, writer: &str, now_ms: u64, name: &str, value: &str) -> Result<(), StampsUsedUp> {
        self.write(writer, now_ms, name, Some(value.into()))
    }

    /// Removes a field and keeps the stamp of the removal, also if this copy does not have the field: another may.
    ///
    /// # Errors
    /// As [`Session::set`].
    pub fn remove(&mut self, writer: &str, now_ms: u64, name: &str) -> Result<(), StampsUsedUp> {
        self.write(writer, now_ms, name, None)
    }

    fn write(&mut self, writer: &str, now_ms: u64, name: &str, value: Option<String>) -> Result<(), StampsUsedUp> {
        let after = self.0.get(name).map_or(0, |seen| seen.stamp + 1);
        let stamp = now_ms.min(MAX_CLOCK).max(after);
        if stamp > MAX_STAMP {
            return Err(StampsUsedUp { field: name.into() });
        }
        self.0.insert(name.into(), Field { stamp, writer: writer.into(), value });
        Ok(())
    }

    /// Joins another session: keeps the later copy of each field.
    pub fn join(&mut self, other: Self) {
        for (name, theirs) in other.0 {
            match self.0.get_mut(&name) {
                Some(ours) if *ours >= theirs => {}
                Some(ours) => *ours = theirs,
                None => drop(self.0.insert(name, theirs)),
            }
        }
    }
}
