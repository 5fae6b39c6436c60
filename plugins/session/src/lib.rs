//! Session attributes: the last writer wins, field by field.
//!
//! # Format
//! The value is JSON that a person can read, a map from names to fields:
//! ```json
//! {"name":{"stamp":1700000000000,"writer":"web-7f3a","value":"Ann"},"theme":{"stamp":1700000000007,"writer":"app-01c9","value":null}}
//! ```
//! - `stamp` is when the field was set, in milliseconds since the Unix epoch by its writer's clock, and `writer` who
//!   did it.
//! - A field without a value *was removed*. It stays in the map, since an older copy that still has a value must not
//!   win.
//!
//! # Merging
//! Of each field the one with the larger stamp is kept; of equal stamps the larger writer, and of one writer's two
//! values at one stamp the larger value. That is a total order, so that all replicas agree; a removal is a field like
//! any other. Different fields never compete: two browsers that change the name and the theme at the same time both
//! succeed, where a last writer of the whole session would lose one of them.
//!
//! Of two who change one field at the same time, one loses: that is what the last writer wins means, and no law forbids
//! it. What has to be added up belongs in another plugin. The values carry their stamps (`self-causal`); those of
//! siblings are not looked at.
//!
//! # Writing
//! A client edits what it has read and writes all of it back. [`Session::set`] and [`Session::remove`] give a stamp
//! above that of the field they have seen, so whoever has seen a value always replaces it, even with a clock that is
//! behind. A client that drops a field instead of removing it leaves it to the next merge with an older copy to bring
//! it back.
//!
//! # Limits
//! Stamps are at most 2^53 (exact in every JSON reader). A clock that is far ahead keeps its fields until the others'
//! clocks are there too, or a client that has seen them replaces them. What readers of JSON could take for different
//! sessions, such as a name that comes twice, is none: it is refused when it is written. Removed fields stay until the
//! session ends: delete its key, or let it expire.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

mod plugin;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use rejoin_guest::json;

pub use plugin::Plugin;

/// The largest stamp.
const MAX_STAMP: u64 = json::MAX_NUMBER;

/// A field. The order of its parts is the order in which fields win.
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
    /// Why it is none, in words; also if it could be read in two ways (see [`rejoin_guest::json`]).
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The session as JSON, always the same bytes for the same session.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with text keys, texts and integers are always JSON")
    }

    /// The fields that have a value.
    #[must_use]
    pub fn attributes(&self) -> BTreeMap<&str, &str> {
        self.0.iter().filter_map(|(name, field)| Some((name.as_str(), field.value.as_deref()?))).collect()
    }

    /// Sets a field, at the time of the writer's clock in milliseconds since the Unix epoch, or just after what it
    /// replaces.
    pub fn set(&mut self, writer: &str, now_ms: u64, name: &str, value: &str) {
        self.write(writer, now_ms, name, Some(value.into()));
    }

    /// Removes a field, and remembers when. One that is not there may be elsewhere, and is removed there too.
    pub fn remove(&mut self, writer: &str, now_ms: u64, name: &str) {
        self.write(writer, now_ms, name, None);
    }

    fn write(&mut self, writer: &str, now_ms: u64, name: &str, value: Option<String>) {
        let after = self.0.get(name).map_or(0, |seen| seen.stamp + 1);
        let stamp = now_ms.max(after).min(MAX_STAMP);
        self.0.insert(name.into(), Field { stamp, writer: writer.into(), value });
    }

    /// Takes in another session: of each field, the later one.
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
