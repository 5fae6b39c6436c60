//! Stored objects: a causal context and the values that are still live.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::causal::{DotSet, NotCanonical, VersionVector};
use crate::codec::{DecodeError, Versioned, body_of};
use crate::hlc::Hlc;
use crate::id::{PluginDigest, ProfileId};

/// A value, or the tombstone of a delete.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Content {
    /// This write deleted the key. Ordered before every value, as the canonical order of entries requires.
    Tombstone,
    /// The bytes of a write or a fold.
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

    /// Whether [`Content::len`] is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The plugin and engine profile that made a folded value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FoldedBy {
    /// The plugin.
    pub plugin: PluginDigest,
    /// The engine profile.
    pub profile: ProfileId,
}

/// One value, with the writes that it stands for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The writes that this value still stands for. Never empty.
    pub dots: DotSet,
    /// Every write that was folded into it: a superset of `dots`.
    pub covers: DotSet,
    /// The value or tombstone.
    pub content: Content,
    /// The time of the write, for a fold of its latest input. Never used for causality.
    pub stamp: Hlc,
    /// The time from which it is invisible; `None` for never.
    pub expires: Option<Hlc>,
    /// The plugin that made it; `None` for a client's write.
    pub folded_by: Option<FoldedBy>,
}

impl Entry {
    /// Whether it is the value of a client's write, not of a fold.
    #[must_use]
    pub fn is_unfolded(&self) -> bool {
        self.folded_by.is_none()
    }

    /// Whether it is a value that has not expired at that wall time.
    #[must_use]
    pub fn is_visible(&self, now_ms: u64) -> bool {
        matches!(self.content, Content::Value(_)) && self.expires.is_none_or(|end| now_ms < end.ms())
    }
}

/// The state of one key on one replica.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "UncheckedObject")]
pub struct Object {
    /// Every write to the key that this replica has seen, live or not.
    pub context: VersionVector,
    /// The live entries in canonical order. The context contains all their dots.
    pub entries: Vec<Entry>,
}

impl Object {
    /// Whether no write was ever seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.context.is_empty() && self.entries.is_empty()
    }

    /// Decodes an object as [`decode`](crate::codec::decode) does, but copies no value: each is a slice of `row`, and
    /// keeps all of it in memory.
    ///
    /// # Errors
    /// As [`decode`](crate::codec::decode).
    pub fn of_row(row: &Bytes) -> Result<Self, DecodeError> {
        sliced(row, body_of::<Self>(row)?).ok_or(DecodeError::Malformed { what: Self::WHAT })
    }
}

/// The object whose encoding is in `body`, a part of `row`.
fn sliced(row: &Bytes, body: &[u8]) -> Option<Object> {
    let (context, rest) = postcard::take_from_bytes(body).ok()?;
    let (count, mut rest) = postcard::take_from_bytes::<u64>(rest).ok()?;
    let most = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len() / LEAST_ENTRY_BYTES);
    let mut entries = Vec::with_capacity(most);
    for _ in 0..count {
        let (outline, others) = postcard::take_from_bytes::<EntryOutline<'_>>(rest).ok()?;
        let (dots, covers, content, stamp, expires, folded_by) = outline;
        let content = match content {
            ContentOutline::Tombstone => Content::Tombstone,
            ContentOutline::Value(value) => Content::Value(row.slice_ref(value)),
        };
        entries.push(Entry { dots, covers, content, stamp, expires, folded_by });
        rest = others;
    }
    Object::try_from(UncheckedObject { context, entries }).ok().filter(|_| rest.is_empty())
}

/// The fewest bytes that an entry is encoded in: the lengths of two sets with a span in one of them, and four fields.
/// No more entries are reserved than the bytes could hold.
const LEAST_ENTRY_BYTES: usize = 9;

/// The context of an encoded object, and whether one of its entries has a value, expired or not. No value is copied,
/// and nothing behind the first one is read. `None` if what is read is malformed.
#[must_use]
pub fn outline_of(row: &[u8]) -> Option<(VersionVector, bool)> {
    let (&version, body) = row.split_first()?;
    let (context, rest) = postcard::take_from_bytes(body).ok().filter(|_| version == Object::VERSION)?;
    let (count, mut rest) = postcard::take_from_bytes::<u64>(rest).ok()?;
    for _ in 0..count {
        let (entry, others) = postcard::take_from_bytes::<EntryOutline<'_>>(rest).ok()?;
        if matches!(entry.2, ContentOutline::Value(_)) {
            return Some((context, true));
        }
        rest = others;
    }
    Some((context, false))
}

/// An [`Entry`], field by field, whose value stays where it is.
type EntryOutline<'a> = (DotSet, DotSet, ContentOutline<'a>, Hlc, Option<Hlc>, Option<FoldedBy>);

/// A [`Content`] whose value stays where it is.
#[derive(Deserialize)]
enum ContentOutline<'a> {
    Tombstone,
    Value(&'a [u8]),
}

/// A decoded object before its check.
#[derive(Deserialize)]
struct UncheckedObject {
    context: VersionVector,
    entries: Vec<Entry>,
}

impl TryFrom<UncheckedObject> for Object {
    type Error = NotCanonical;

    /// Refuses an entry without dots, or with a dot outside the context: no write could ever replace it, and it would
    /// return from every replica.
    fn try_from(UncheckedObject { context, entries }: UncheckedObject) -> Result<Self, NotCanonical> {
        let replaceable = |entry: &Entry| !entry.dots.is_empty() && entry.dots.is_seen_by(&context);
        if entries.iter().all(replaceable) { Ok(Self { context, entries }) } else { Err(NotCanonical) }
    }
}

impl Versioned for Object {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "object";

    fn size_hint(&self) -> usize {
        let entries = self.entries.iter().map(|entry| ENTRY_BYTES + entry.content.len());
        HEAD_BYTES + entries.sum::<usize>()
    }
}

/// About the bytes of a context, and those of an entry beside its value.
const HEAD_BYTES: usize = 64;
const ENTRY_BYTES: usize = 96;

/// The number of a partition's reaping round. An object that was read in an older epoch is refused in a newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct ReapEpoch {
    /// The number of the round.
    pub number: u64,
    /// The proposer, which breaks ties.
    pub proposer: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::DotSpan;
    use crate::codec;
    use crate::id::{ActorId, Dot};
    use alloc::vec;

    #[test]
    fn an_outline_says_what_the_object_does() {
        let entry = |counter: u64, content: Content| {
            let dots: DotSet = [DotSpan { actor: ActorId(7), lo: counter - 1, hi: counter }].into_iter().collect();
            let (expires, folded_by) =
                (Some(Hlc(9)), Some(FoldedBy { plugin: PluginDigest([3; 32]), profile: ProfileId(4) }));
            Entry { dots: dots.clone(), covers: dots, content, stamp: Hlc(5), expires, folded_by }
        };
        let value = |text: &'static [u8]| Content::Value(Bytes::from_static(text));
        let context: VersionVector = (1..=9).map(|counter| Dot { actor: ActorId(7), counter }).collect();
        for (contents, is_live) in [
            (vec![], false),
            (vec![Content::Tombstone], false),
            (vec![Content::Tombstone, Content::Tombstone], false),
            (vec![Content::Tombstone, value(b"")], true),
            (vec![value(b"a value")], true),
        ] {
            let entries = (9 - contents.len() as u64 + 1..).zip(contents).map(|(at, content)| entry(at, content));
            let object = Object { context: context.clone(), entries: entries.collect() };
            let row = codec::encode(&object);
            assert!(object.size_hint() >= row.len(), "{} of {} bytes", object.size_hint(), row.len());
            assert_eq!(codec::decode::<Object>(&row), Ok(object));
            assert_eq!(outline_of(&row), Some((context.clone(), is_live)));
            assert_eq!(outline_of(&row[..row.len() / 2]), None, "it is cut off");
        }
        assert_eq!(outline_of(b"row"), None);
    }
}
