//! What a node notes of merges that failed, and of those that break a law.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::Sibling;
use crate::id::PluginDigest;

/// A key whose merge has failed at a node. All of its siblings are kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictNote {
    /// The key.
    pub key: Bytes,
    /// The plugin that gave no result.
    pub plugin: PluginDigest,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub why: String,
    /// How many siblings it was given at last.
    pub siblings: u32,
    /// When it failed first, in milliseconds since 1970.
    pub first_ms: u64,
    /// When it failed last.
    pub last_ms: u64,
    /// How often.
    pub times: u64,
}

/// A merge that was found to break a law when a node has checked it again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LawViolation {
    /// The key.
    pub key: Bytes,
    /// The plugin.
    pub plugin: PluginDigest,
    /// The law's name.
    pub law: String,
    /// What does not hold, such as `m(all) = m(all, reversed)`.
    pub equation: String,
    /// The siblings that show it, in the order of the merge. Empty if they are too large to be kept.
    pub siblings: Vec<Sibling>,
    /// Whether a second check has found the same.
    pub confirmed: bool,
    /// When it was found, in milliseconds since 1970.
    pub at_ms: u64,
}
