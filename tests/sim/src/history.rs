//! The record of a run: every call as its client saw it, every minted dot, and the objects of the owners in the end.
//!
//! The world fills a [`Run`] and the checkers read it; they share nothing else. Recording is cheap: numbers, and bytes
//! that are shared and not copied. Only the checkers decode values, see [`elements`].
//!
//! Every write that adds something adds one [`Element`] of its own, so that a value tells which writes are in it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_proto::catalog::Durability;
use rejoin_proto::client::Sibling;
use rejoin_proto::{Content, Dot, DotSet, Entry, Hlc, Object, PluginDigest, VersionVector};

/// A call's place in [`Run::calls`].
pub type CallId = u32;
/// A key's place in [`Run::keys`].
pub type KeyId = u32;
/// A node's place in the cluster.
pub type NodeIndex = u8;
/// A tenant's place among those of the run.
pub type TenantIndex = u8;

/// The element that one write adds: the session in the upper half, its count of adds from 1 in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Element(pub u64);

impl Element {
    /// The `count`th add of a session.
    #[must_use]
    pub const fn new(session: u32, count: u32) -> Self {
        Self((session as u64) << 32 | count as u64)
    }

    /// The name under which a session writes its carts; its tags are `writer:count`.
    #[must_use]
    pub fn writer(session: u32) -> String {
        format!("{session:x}")
    }
}

/// The kind of a key's values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Kind {
    /// Elements, each eight bytes little-endian, in ascending order. Siblings stand for their union, whether a plugin
    /// merges them or not.
    Set,
    /// A cart of `plugins/cart`, as JSON; its tags are the elements. The plugin merges carts by their own causality.
    Cart,
    /// One element as in a set; of siblings the plugin keeps the one with the latest stamp, so what a reader is shown
    /// is not all there is.
    Latest,
}

/// A key, with the properties of its bucket.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its values.
    pub kind: Kind,
    /// Its owners, the preferred one first; as many as its bucket's `n`.
    pub owners: Vec<NodeIndex>,
    /// The durability of an acknowledgement.
    pub durability: Durability,
    /// The bucket's limit of siblings.
    pub siblings: u16,
    /// Whether anything may store merged values: a self-causal plugin, or any plugin at the limit.
    pub folds: bool,
    /// How many nodes that are no owners may stand in for owners.
    pub fallbacks: usize,
    /// How many owners may do so later, once the copies of its bucket are fewer and they are owners no more.
    pub later_fallbacks: usize,
    /// Whether changes of the layout give it other owners.
    pub moves: bool,
    /// How many nodes that are neither may own it later, because the copies of its bucket change.
    pub later_owners: usize,
    /// From when on only its owners answer reads, if its bucket turned strict in the run; in microseconds.
    pub strict_from_us: Option<u64>,
    /// The tenant whose it is.
    pub tenant: TenantIndex,
}

impl Key {
    /// Whether nodes that are no owners take its writes at some time of the run.
    #[must_use]
    pub fn has_fallbacks(&self) -> bool {
        self.fallbacks + self.later_fallbacks > 0
    }
}

/// The basis of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Basis {
    /// Nothing.
    Blind,
    /// The context that this call on the key was answered with, a get or a put.
    After(CallId),
    /// The absence that the coordinator finds: a create.
    Create,
}

/// How many answers a call waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Answers {
    /// R or W: of any nodes that count.
    pub nodes: u8,
    /// PR or PW: of owners.
    pub owners: u8,
}

impl Answers {
    /// The fewest of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self { nodes: self.nodes.min(other.nodes), owners: self.owners.min(other.owners) }
    }
}

impl From<u8> for Answers {
    fn from(nodes: u8) -> Self {
        Self { nodes, owners: 0 }
    }
}

/// A client's request.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A read.
    Get {
        /// What it waits for.
        r: Answers,
    },
    /// A write.
    Put {
        /// What it waits for.
        w: Answers,
        /// Its basis.
        basis: Basis,
        /// The value, `None` for a delete.
        value: Option<Bytes>,
        /// The element that it adds, if it adds one.
        adds: Option<Element>,
        /// Whether it has a time to live.
        expires: bool,
        /// Whether the value is one that the bucket's plugin must refuse.
        malformed: bool,
        /// The first attempt, if this is a retry of it: both are one write.
        retry_of: Option<CallId>,
    },
    /// An operator's undo of a fold.
    Undo {
        /// The folded entry's context.
        seen: VersionVector,
        /// What takes its place.
        inputs: Vec<Content>,
        /// The writes that each of them stood for.
        stood_for: Vec<DotSet>,
        /// Whether one of them is a value that the bucket's plugin must refuse.
        malformed: bool,
    },
}

/// The outcome of a call for its client.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A good answer.
    Ok(Answer),
    /// A refusal: nothing was done.
    Refused,
    /// No answer in time, or *unknown*: a write may take effect at any time. With the context of the answer, if it had
    /// one.
    Unknown(Option<VersionVector>),
}

/// A good answer.
#[derive(Clone, Default, Debug)]
pub struct Answer {
    /// Of a get: the merged value, or else all siblings.
    pub values: Vec<Bytes>,
    /// The context, opened.
    pub context: VersionVector,
}

/// One call of a client. A session has one call at a time.
#[derive(Clone, Debug)]
pub struct Call {
    /// The session.
    pub session: u32,
    /// The node that was asked.
    pub node: NodeIndex,
    /// The key.
    pub key: KeyId,
    /// When it was asked, in virtual microseconds.
    pub invoked_us: u64,
    /// When it was answered or given up.
    pub ended_us: u64,
    /// The request.
    pub asked: Asked,
    /// Its outcome.
    pub outcome: Outcome,
}

impl Call {
    /// The good answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Refused | Outcome::Unknown(_) => None,
        }
    }
}

/// A dot, when its coordinator stored the write.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The write, as any one of its attempts.
    pub call: CallId,
    /// The coordinator.
    pub node: NodeIndex,
    /// When.
    pub at_us: u64,
    /// The dot.
    pub dot: Dot,
    /// The stamp of the write.
    pub stamp: Hlc,
    /// When its value expires.
    pub expires: Option<Hlc>,
    /// The bound on an object's spans took the cloud of the writer's context, so the writes in the cloud were not
    /// replaced.
    pub cloudless: bool,
    /// Which input of an undo it is.
    pub restored: Option<usize>,
}

/// An owner's copy in the end.
#[derive(Clone, Debug)]
pub struct Final {
    /// Of which key.
    pub key: KeyId,
    /// Which owner.
    pub node: NodeIndex,
    /// The stored object (empty if there is none), or `None` if its disk cannot read it.
    pub object: Option<Object>,
}

impl Final {
    /// A copy as a read of this owner alone has shown it: the siblings with their stamps in milliseconds, and the
    /// opened context. Which dots each sibling stands for is not known.
    #[must_use]
    pub fn read(key: KeyId, node: NodeIndex, context: VersionVector, siblings: Vec<(Bytes, u64)>) -> Self {
        let entry = |(value, stamp_ms)| Entry {
            dots: DotSet::default(),
            covers: DotSet::default(),
            content: Content::Value(value),
            stamp: Hlc::from_ms(stamp_ms),
            expires: None,
            folded_by: None,
        };
        Self { key, node, object: Some(Object { context, entries: siblings.into_iter().map(entry).collect() }) }
    }
}

/// A node has dropped an object that it does not own.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// Of which key.
    pub key: KeyId,
    /// Which node.
    pub node: NodeIndex,
    /// When.
    pub at_us: u64,
    /// The owners on whose disks there was less than what was dropped.
    pub lacking: Vec<NodeIndex>,
}

/// A write that no owner had at a step of a change of layout.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Of which key.
    pub key: KeyId,
    /// When.
    pub at_us: u64,
    /// When it was acknowledged.
    pub acked_us: u64,
    /// The step, for people.
    pub step: String,
    /// The owners in the layouts that were live.
    pub owners: Vec<NodeIndex>,
}

/// A disk has lost something.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Whose.
    pub node: NodeIndex,
    /// When.
    pub at_us: u64,
    /// Whether synced data is gone too (a wiped disk, an old copy, a damaged block), and not only unsynced writes.
    pub synced: bool,
    /// Whether the whole disk was replaced by an empty one. From `known_us` on the node's copies do not count.
    pub wiped: bool,
    /// When the node learned of it.
    pub known_us: Option<u64>,
}

/// A merge that gave a value.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Whether the bad version has made it.
    pub bad: bool,
    /// Whether it was a shadow, whose result nobody sees.
    pub shadow: bool,
    /// For which key.
    pub key: KeyId,
    /// Where it ran.
    pub node: NodeIndex,
    /// Its inputs.
    pub siblings: Vec<Sibling>,
    /// Its result.
    pub value: Bytes,
}

/// A fold that was stored with its receipt.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Of which key.
    pub key: KeyId,
    /// Where.
    pub node: NodeIndex,
    /// When.
    pub at_us: u64,
    /// By which version.
    pub plugin: PluginDigest,
    /// The values that were folded.
    pub inputs: Vec<Bytes>,
    /// The writes that it speaks for.
    pub dots: DotSet,
    /// All that was ever folded into it.
    pub covers: DotSet,
    /// Whether its receipt has gone for want of room.
    pub given_up: bool,
}

/// From when on a key may show less than it has, because the bad version has merged it; and until when.
#[derive(Clone, Copy, Debug)]
pub struct Spoiled {
    /// Since its first merge by the bad version, in virtual microseconds.
    pub from_us: u64,
    /// Until the folds of the bad version were undone.
    pub until_us: u64,
}

/// Which version was to merge a key while a canary had a share of the keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Choice {
    /// The canary.
    pub canary: PluginDigest,
    /// Its share.
    pub percent: u8,
    /// The key.
    pub key: KeyId,
    /// Whether it was the canary.
    pub chosen: bool,
}

/// The highest value seen of something bounded.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Of what.
    pub what: &'static str,
    /// The most that was seen.
    pub most: u64,
    /// The most that may be.
    pub limit: u64,
}

/// Something that no element shows: of another tenant, or of a version of a plugin.
#[derive(Clone, Debug)]
pub struct Stray {
    /// The key that was meant.
    pub key: KeyId,
    /// What was seen.
    pub evidence: String,
}

/// A whole run.
#[derive(Clone, Default, Debug)]
pub struct Run {
    /// How many tenants there are. 0 is one, as in records that know of none.
    pub tenants: u8,
    /// What tenants were given that was not their own, and no element shows.
    pub strays: Vec<Stray>,
    /// All keys.
    pub keys: Vec<Key>,
    /// All calls, in the order in which they were asked.
    pub calls: Vec<Call>,
    /// All dots, in the order in which they were minted.
    pub minted: Vec<Minted>,
    /// Whether the record has no dots, because nobody could see them minted: that of real processes. The checks that
    /// need `minted` are then left out.
    pub dots_unknown: bool,
    /// The copy of every owner of every written key after the liveness phase.
    pub finals: Vec<Final>,
    /// The objects that fallbacks have dropped.
    pub dropped: Vec<Dropped>,
    /// Acknowledged writes that no owner had at a step of a change of layout.
    pub missing: Vec<Missing>,
    /// The losses of disks.
    pub losses: Vec<Loss>,
    /// Writes whose last copy was in an unreadable block that was written over before another node had it. No database
    /// keeps those.
    pub given_up: BTreeSet<Dot>,
    /// A sample of the merges that gave a value.
    pub merges: Vec<Merge>,
    /// The versions of plugins that lose siblings.
    pub bad: BTreeSet<PluginDigest>,
    /// The keys that a bad version has merged.
    pub spoiled: BTreeMap<KeyId, Spoiled>,
    /// Folds with receipts, where versions change.
    pub folds: Vec<Fold>,
    /// Whether a fold has no receipt for want of room.
    pub receipts_given_up: bool,
    /// Which version was to merge which key, and the node that was seen to do it first.
    pub choices: BTreeMap<Choice, NodeIndex>,
    /// What was done with a version of a plugin that must not be.
    pub misused: Vec<Stray>,
    /// Bounded values, with their limits.
    pub bounds: Vec<Bound>,
    /// The earliest wall clock at the end, and the latest that any clock has shown, in milliseconds. By these a value
    /// has expired or not.
    pub wall_ms: (u64, u64),
}

impl Run {
    /// The tenant of a session. The sessions of all tenants take turns in their numbers, so an element says whose it
    /// is.
    #[must_use]
    pub fn tenant_of(&self, session: u32) -> TenantIndex {
        (session % u32::from(self.tenants.max(1))) as TenantIndex
    }
}

/// The bytes of a set.
#[must_use]
pub fn set_bytes(elements: impl IntoIterator<Item = Element>) -> Bytes {
    let sorted: BTreeSet<Element> = elements.into_iter().collect();
    sorted.iter().flat_map(|element| element.0.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// The elements that these siblings show together, in ascending order. `None` if one of them is no value of that kind.
#[must_use]
pub fn elements(kind: Kind, values: &[Bytes]) -> Option<Vec<Element>> {
    let mut shown = match kind {
        Kind::Set | Kind::Latest => sets(values)?,
        Kind::Cart => carts(values)?,
    };
    shown.sort_unstable();
    shown.dedup();
    Some(shown)
}

fn sets(values: &[Bytes]) -> Option<Vec<Element>> {
    let mut shown = Vec::with_capacity(values.iter().map(|value| value.len() / 8).sum());
    for value in values {
        let (words, rest) = value.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        shown.extend(words.iter().map(|word| Element(u64::from_le_bytes(*word))));
    }
    Some(shown)
}

/// A cart, decoded by its documented format and not by its own code. No name in it needs an escape.
#[derive(Deserialize)]
struct CartText<'a> {
    #[serde(borrow)]
    clock: BTreeMap<&'a str, u64>,
    #[serde(borrow)]
    items: BTreeMap<&'a str, BTreeMap<&'a str, u32>>,
}

fn carts(values: &[Bytes]) -> Option<Vec<Element>> {
    let texts =
        values.iter().map(|value| serde_json::from_slice::<CartText<'_>>(value).ok()).collect::<Option<Vec<_>>>()?;
    let mut read = Vec::with_capacity(texts.len());
    for text in &texts {
        let clock = text
            .clock
            .iter()
            .map(|(writer, count)| Some((session(writer)?, *count)))
            .collect::<Option<BTreeMap<u32, u64>>>()?;
        let mut tags =
            text.items.values().flat_map(BTreeMap::keys).map(|tag| element(tag)).collect::<Option<Vec<_>>>()?;
        tags.sort_unstable();
        read.push((clock, tags));
    }
    let stays = |element: &Element| {
        let (session, count) = ((element.0 >> 32) as u32, element.0 & 0xffff_ffff);
        read.iter().all(|(clock, tags)| {
            tags.binary_search(element).is_ok() || clock.get(&session).is_none_or(|seen| *seen < count)
        })
    };
    Some(read.iter().flat_map(|(_, tags)| tags.iter().copied()).filter(stays).collect())
}

fn session(writer: &str) -> Option<u32> {
    u32::from_str_radix(writer, 16).ok()
}

fn element(tag: &str) -> Option<Element> {
    let (writer, count) = tag.rsplit_once(':')?;
    Some(Element::new(session(writer)?, count.parse().ok()?))
}
