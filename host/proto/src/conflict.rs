//! What a node notes of merges that failed.

use alloc::string::String;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
