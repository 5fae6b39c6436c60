//! What is stored under a key: a causal context and the values that are still live in it.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::causal::{NotCanonical, Runs, VersionVector};
use crate::codec::Versioned;
use crate::hlc::Hlc;
use crate::id::{PluginDigest, ProfileId};

/// A value, or the mark that a delete leaves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Content {
    /// The key was deleted by this write. Ordered before every value, which is where the total order of entries wants
    /// it.
    Tombstone,
    /// The bytes that were written, or what a fold made of them.
    Value(Bytes),
}

impl Content {
    /// The number of bytes of the value, 0 for a tombstone.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Tombstone => 0,
            Self::Value(bytes) => bytes.len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which plugin made a folded value, and under which engine profile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FoldedBy {
    /// The plugin.
    pub plugin: PluginDigest,
    /// What it ran under.
    pub profile: ProfileId,
}

/// One value with the writes it speaks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The writes that this value still speaks for. Never empty.
    pub dots: Runs,
    /// Every write that was ever folded into it; never less than `dots`.
    pub covers: Runs,
    /// What was written or folded.
    pub content: Content,
    /// When it was written (for a fold: the latest of its inputs). Causality never reads it.
    pub stamp: Hlc,
    /// When it stops being visible; `None` is never.
    pub expires: Option<Hlc>,
    /// The plugin that made it; `None` for a client's write.
    pub folded_by: Option<FoldedBy>,
}

impl Entry {
    /// Whether this is a client's write as it came, not the result of a fold.
    #[must_use]
    pub fn is_unfolded(&self) -> bool {
        self.folded_by.is_none()
    }

    /// Whether a reader sees it at that wall time: a value, and not expired.
    #[must_use]
    pub fn is_visible(&self, now_ms: u64) -> bool {
        matches!(self.content, Content::Value(_)) && self.expires.is_none_or(|end| now_ms < end.ms())
    }
}

/// Everything known of one key.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Object {
    /// Every write to the key that this copy has seen, live or not.
    pub context: VersionVector,
    /// The live entries in canonical order. The context has seen every dot of theirs.
    pub entries: Vec<Entry>,
}

impl Object {
    /// Whether nothing was ever seen under the key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.context.is_empty() && self.entries.is_empty()
    }
}

/// An object as it arrives.
#[derive(Deserialize)]
struct Parts {
    context: VersionVector,
    entries: Vec<Entry>,
}

impl TryFrom<Parts> for Object {
    type Error = NotCanonical;

    /// Refuses an entry that no write could ever replace, because it speaks for none or for one that the object itself
    /// has not seen: it would come back from every copy for ever.
    fn try_from(Parts { context, entries }: Parts) -> Result<Self, NotCanonical> {
        let replaceable = |entry: &Entry| !entry.dots.is_empty() && entry.dots.unseen_by(&context).is_empty();
        if entries.iter().all(replaceable) { Ok(Self { context, entries }) } else { Err(NotCanonical) }
    }
}

impl Versioned for Object {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "object";
}

/// A partition's place in the order of reaping rounds. An object read in an older epoch is not taken in a newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct ReapEpoch {
    /// Counts the rounds.
    pub number: u64,
    /// Who proposed it: breaks ties.
    pub proposer: u64,
}
