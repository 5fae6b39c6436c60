//! Receipts of folds: what a merge was given, and what came of it. A node keeps each for as long as its bucket says, so
//! that a fold can be explained, run again and undone.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{Activation, MAX_SIBLINGS};
use crate::causal::{DotSet, VersionVector};
use crate::client::Sibling;
use crate::codec::Versioned;
use crate::hash::ObjectId;
use crate::hlc::Hlc;
use crate::id::{Name, NodeId, PluginDigest, ProfileId};
use crate::object::{Content, Entry, FoldedBy};

/// The most bytes of an encoded receipt: it must fit into a reply, and its inputs into one request. A fold of more
/// leaves none.
pub const MAX_RECEIPT_BYTES: usize = 12 << 20;
/// The bytes of receipts at which a [`ReceiptPage`] ends; one is always in it. It also ends where so much was read of
/// receipts and the objects that they belong to, and another object would have to be read.
pub const RECEIPT_PAGE_BYTES: usize = 2 << 20;
/// The most receipts of a [`ReceiptPage`].
pub const RECEIPT_PAGE: usize = 256;

/// The most inputs of a [`Restoration`]: as many as the largest object has siblings, and one.
pub const MAX_RESTORED: usize = MAX_SIBLINGS as usize + 1;

/// The limits of one merge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct MergeLimits {
    /// Units of fuel.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory_bytes: u32,
    /// Bytes of the result.
    pub result_bytes: u32,
}

/// The receipt of one fold, in the journal record of the folded object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoldReceipt {
    /// Of which object.
    pub object: ObjectId,
    /// The plugin and the engine's profile.
    pub by: FoldedBy,
    /// What was folded, in canonical order.
    pub inputs: Vec<Entry>,
    /// The writes that the folded value speaks for.
    pub dots: DotSet,
    /// Every write that was folded into it.
    pub covers: DotSet,
    /// The [`output_hash`] of the folded value.
    pub output: [u8; 32],
    /// Its bytes.
    pub output_bytes: u32,
    /// The limits of the merge.
    pub limits: MergeLimits,
    /// The fuel that it used. 0 if an equal merge was remembered.
    pub fuel_used: u64,
    /// The node that has folded.
    pub node: NodeId,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Until when the receipt is kept, unless its room is needed before.
    pub until_ms: u64,
}

impl Versioned for FoldReceipt {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "fold receipt";
}

/// The hash of a merge's result: BLAKE3.
#[must_use]
pub fn output_hash(value: &[u8]) -> [u8; 32] {
    *blake3::hash(value).as_bytes()
}

/// The values of these entries as a reader and a plugin are given them: each once. Of byte-equal ones the latest stamp
/// and the largest writer count, as if they were folded: otherwise a merge by stamps would depend on what was folded
/// before.
#[must_use]
pub fn siblings(entries: &[Entry]) -> Vec<Sibling> {
    let mut siblings: Vec<Sibling> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Content::Value(value) = &entry.content else { continue };
        let writer = entry.dots.highest().max().map_or(0, |dot| dot.actor.0);
        let stamp_ms = entry.stamp.ms();
        match siblings.iter_mut().find(|earlier| earlier.value == value) {
            Some(earlier) => {
                earlier.stamp_ms = earlier.stamp_ms.max(stamp_ms);
                earlier.writer = earlier.writer.max(writer);
            }
            None => siblings.push(Sibling { value: value.clone(), stamp_ms, writer }),
        }
    }
    siblings
}

/// Asks for the receipts that a node keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReceiptQuery {
    /// A bucket of the tenant.
    pub bucket: Name,
    /// Only those of this key.
    pub key: Option<Bytes>,
    /// Only folds by this plugin.
    pub plugin: Option<PluginDigest>,
    /// Only folds since then, in milliseconds since 1970.
    pub since_ms: u64,
    /// The [`ReceiptPage::next`] of the page before.
    pub from: Option<Bytes>,
    /// Also a context for each, with which the fold can be undone.
    pub undo: bool,
}

/// Some of the receipts that a node keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReceiptPage {
    /// The node.
    pub node: Name,
    /// Those that fit.
    pub receipts: Vec<KeptReceipt>,
    /// Where the next page begins. `None`: there is none. Pages may be empty.
    pub next: Option<Bytes>,
    /// Whether the node has lost a part of its disk that may have had others.
    pub lost: bool,
}

/// A receipt, with what the node knows of its fold now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptReceipt {
    /// The receipt.
    pub receipt: FoldReceipt,
    /// Whether the folded entry, or what later writes have left of it, is live in the node's copy. True also of a node
    /// that neither has the object nor owns it: a fallback that has handed it over, or a former owner.
    pub live: bool,
    /// The context of the folded entry, if it was asked for.
    pub context: Option<Bytes>,
}

/// What takes the place of what is left of a folded entry: the content of a [`Put`](crate::client::Put) with
/// [`Basis::Undo`](crate::client::Basis::Undo), encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restoration {
    /// By what it was folded.
    pub by: FoldedBy,
    /// The inputs of the fold, at most [`MAX_RESTORED`]. One of whose writes none is live any more is not restored.
    #[serde(deserialize_with = "crate::bounded::seq::<_, _, MAX_RESTORED>")]
    pub inputs: Vec<Restored>,
}

impl Versioned for Restoration {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "restoration";
}

/// An input of a fold that is written again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restored {
    /// The value, or the tombstone of a delete.
    pub content: Content,
    /// When it expires, as before.
    pub expires: Option<Hlc>,
    /// The writes that it spoke for when it was folded.
    pub dots: DotSet,
}

/// What a node knows of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyReport {
    /// The node.
    pub node: Name,
    /// The owners by its layout.
    pub owners: Vec<Name>,
    /// Its own copy, or why that cannot be read.
    pub copy: Result<CopyReport, String>,
    /// The plugin that merges.
    pub plugin: Option<Activation>,
    /// Why its merges are not run.
    pub quarantined: Option<String>,
    /// The profile of the node's engine.
    pub profile: ProfileId,
    /// The last merges of the key that have failed there.
    pub failures: Vec<FailedMerge>,
}

/// A node's copy of an object, without the values.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CopyReport {
    /// Every write that it has seen.
    pub context: VersionVector,
    /// What is live.
    pub entries: Vec<EntryReport>,
}

/// An entry of a copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EntryReport {
    /// The writes that it stands for.
    pub dots: DotSet,
    /// Every write that was folded into it.
    pub covers: DotSet,
    /// The bytes of its value; `None` for a tombstone.
    pub bytes: Option<u32>,
    /// When it was written.
    pub stamp: Hlc,
    /// When it expires.
    pub expires: Option<Hlc>,
    /// What made it, if it is a fold.
    pub folded_by: Option<FoldedBy>,
}

/// A merge that has failed at a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedMerge {
    /// By which plugin.
    pub plugin: PluginDigest,
    /// In which profile of the engine.
    pub profile: ProfileId,
    /// Its inputs.
    pub siblings: Vec<Sibling>,
    /// Its limits.
    pub limits: MergeLimits,
    /// Why it failed, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}
