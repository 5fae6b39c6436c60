//! The hash trees of a shard: sums of causal hashes over what is stored, by bucket and key hash.
//!
//! A *leaf* has the sum of a range of key hashes. It is kept in memory and as a row of [`Space::Trees`], which is
//! written with its absolute new value in the record that changes an object of the range. So replaying the journal
//! needs no reads and counts nothing twice, and a start loads the leaves without reading an object. Everything above
//! the leaves is the sum of leaves and stored nowhere. A range without objects has no leaf.
//!
//! A leaf with more than [`MAX_LEAF_OBJECTS`] is divided into 16, by a [`recount`](super::recount) of its range. Small
//! leaves that shrink become one again.
//!
//! When partitions are split, leaves stay as they are: those below a partition's own are of one half each. A leaf that
//! is a whole partition has objects of both halves. It is divided by a recount, and until then the halves' sums are not
//! known.
//!
//! A leaf is *unknown* when its sum cannot be told from what was stored before: a copy in its range cannot be read, or
//! rows were lost. Its row says so until a recount has read the range. A leaf that was recounted while some rows could
//! not be read is *partial*: it is recounted before any of those can count again, and from time to time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::exchange::{BRANCHES, HashRange, MAX_DEPTH, Sum, partition_of, place_of};
use rejoin_proto::object::outline_of;
use rejoin_proto::{BucketId, PartitionId};

use super::hash::CausalKey;
use super::recount::Recounts;
use crate::port::{Change, Space, Store, StoreFault};

/// The most objects of a leaf. One with more is divided.
pub const MAX_LEAF_OBJECTS: u64 = 128;
/// The bytes of rows above which a leaf with several objects is divided, so that reading its range takes little time.
pub const MAX_LEAF_BYTES: u64 = 1 << 20;
/// A leaf that shrinks to so few objects is joined with its neighbours, if together they have no more than
/// [`JOINED_OBJECTS`].
const SHRUNK_OBJECTS: u64 = 4;
const JOINED_OBJECTS: u64 = 64;
/// The key of the row that says under which key and layout the leaves were written.
const HEAD_KEY: [u8; 1] = [0];

/// Where a leaf is kept.
pub(super) type Place = (BucketId, u64);

/// How far a leaf's sum can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It is the sum of all objects in the range.
    Known,
    /// It is the sum of those that could be read when it was recounted.
    Partial,
    /// It says nothing.
    Unknown,
}

/// One leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf {
    pub(super) depth: u8,
    pub(super) standing: Standing,
    /// Whether the stored row is that of this leaf. Only an unknown leaf may wait for that.
    pub(super) stored: bool,
    pub(super) sum: Sum,
}

impl Leaf {
    pub(super) fn known(depth: u8, sum: Sum) -> Self {
        Self { depth, standing: Standing::Known, stored: true, sum }
    }

    pub(super) fn unknown(depth: u8) -> Self {
        Self { depth, standing: Standing::Unknown, stored: true, sum: Sum::default() }
    }
}

/// A leaf as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LeafRow {
    depth: u8,
    standing: Standing,
    sum: Sum,
    /// [`Sum::live`], which a sum that is sent does not have.
    live: u64,
}

impl Versioned for LeafRow {
    /// A row of version 1 has no `live`. It cannot be read any more, so its leaf is counted anew.
    const VERSION: u8 = 2;
    const WHAT: &'static str = "leaf row";
}

/// Written when every leaf is stored: without it the leaves are void.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct HeadRow {
    /// [`CausalKey::check`] of the key.
    key: u64,
    /// The ring had 2^this partitions, or has by now.
    partition_bits: u8,
    /// [`Store::losses`] of which the leaves know.
    losses: u64,
}

impl Versioned for HeadRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "head row of the hash trees";
}

/// The sum of a (partition, bucket).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Root {
    /// The sum of its known leaves.
    pub(crate) sum: Sum,
    /// How many of its leaves are unknown. While there are any, the sum says nothing.
    pub(crate) unknown: u32,
}

/// What an object's row held before a change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OldRow<'a> {
    Absent,
    Row(&'a [u8]),
    /// It could not be read, so nobody can tell whether the sum has it.
    Unreadable,
}

/// A change of the trees that is not in force yet: its rows are written first.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Leaves as they will be; `None` for one that goes.
    leaves: SmallVec<[(Place, Option<Leaf>); 1]>,
    /// What a recount under way has to hear of.
    noted: Option<Noted>,
}

/// A row that is written while its range may be read.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) place: Place,
    pub(super) store_key: Bytes,
    /// The sum of the row; `None` if it is removed.
    pub(super) row: Option<Sum>,
}

/// The hash trees of one shard.
#[derive(Debug)]
pub(crate) struct Trees {
    pub(super) key: CausalKey,
    pub(super) bits: u8,
    pub(super) leaves: BTreeMap<Place, Leaf>,
    roots: BTreeMap<(PartitionId, BucketId), Root>,
    /// The first place that may have objects which no leaf counts; `None` when there is none.
    pub(super) undiscovered: Option<Place>,
    /// Rows of void leaves, to be removed.
    stale: BTreeSet<Place>,
    /// Whether the head row is stored, and rightly so.
    pub(super) headed: bool,
    /// [`Store::losses`] of which the leaves know.
    losses: u64,
    /// Whether rows were lost of which the last run did not know.
    lost: bool,
    /// Whether a head row is stored that says the leaves are sound, and they are not. Its removal is owed.
    belied: bool,
    pub(super) recounts: Recounts,
}

impl Trees {
    /// Loads the leaves. They are void, and counted anew in the background, if `doubtful` (rows of the shard may be
    /// lost), if the tree rows cannot all be read, or if they are of another key or of more partitions.
    ///
    /// # Errors
    /// [`StoreFault::Failed`], or [`StoreFault::Busy`].
    pub(crate) fn open(store: &dyn Store, key: CausalKey, partitions: u32, doubtful: bool) -> Result<Self, StoreFault> {
        let bits = partitions.trailing_zeros() as u8;
        let (mut leaves, mut head, mut sound) = (BTreeMap::new(), None, !doubtful);
        let scanned = store.scan(Space::Trees, &[], None, &mut |key, value| {
            match place_of(key) {
                Some(place) => match codec::decode::<LeafRow>(&value) {
                    Ok(row) => drop(leaves.insert(place, Leaf::from(row))),
                    Err(_) => {
                        sound = false;
                        leaves.insert(place, Leaf::unknown(bits));
                    }
                },
                None => head = codec::decode::<HeadRow>(&value).ok(),
            }
            core::ops::ControlFlow::Continue(())
        });
        match scanned {
            Ok(()) => {}
            Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => sound = false,
            Err(fault) => return Err(fault),
        }
        let losses = store.losses();
        let is_sound = |head: &HeadRow| (head.key, head.losses) == (key.check(), losses) && head.partition_bits <= bits;
        let sound = sound && head.as_ref().is_some_and(is_sound);
        let mut trees = Self {
            key,
            bits,
            leaves: BTreeMap::new(),
            roots: BTreeMap::new(),
            undiscovered: None,
            stale: BTreeSet::new(),
            headed: true,
            belied: false,
            losses,
            lost: head.is_some_and(|head| head.losses != losses),
            recounts: Recounts::default(),
        };
        // Rule: doubtful trees are recounted.
        if !sound {
            trees.undiscovered = Some((BucketId(0), 0));
            trees.stale = leaves.into_keys().collect();
            (trees.headed, trees.belied) = (false, head.is_some());
            return Ok(trees);
        }
        leaves.into_iter().for_each(|(place, leaf)| trees.set(place, Some(leaf)));
        Ok(trees)
    }

    /// Whether the removal of a head row is owed, because the store was full or busy.
    pub(crate) fn owes(&self) -> bool {
        self.belied
    }

    /// Adds what is owed to a change. Call [`Trees::settled`] once it is written.
    pub(crate) fn settle(&self, change: &mut Change) {
        if self.belied {
            // Rule: void trees stay void. Otherwise the next start, which is not told of the loss, would believe them.
            change.remove(Space::Trees, &HEAD_KEY[..]);
        }
    }

    /// The change that [`settle`](Self::settle) filled is written.
    pub(crate) fn settled(&mut self) {
        self.belied = false;
    }

    /// Prepares a change of one object's row: adds the row of its leaf to the change that writes the object.
    pub(crate) fn stage(&self, store_key: &Bytes, old: OldRow<'_>, new: Option<&[u8]>, change: &mut Change) -> Staged {
        let Some((bucket, prefix)) = place_of(store_key) else { return Staged::default() };
        let new = new.map(|row| sum_of(&self.key, store_key, row));
        let (range, leaf) = match self.leaf_of(bucket, prefix) {
            Some((range, leaf)) => (range, *leaf),
            None => self.fresh_leaf(bucket, prefix),
        };
        let place = (bucket, range.start);
        let noted = self.recounts.reads(place).then(|| Noted { place, store_key: store_key.clone(), row: new });
        let mut staged = Staged { leaves: SmallVec::new(), noted };
        if leaf.standing == Standing::Unknown {
            if !leaf.stored {
                let leaf = Leaf { stored: true, ..leaf };
                change.put(Space::Trees, row_key(place), row_of(&leaf));
                staged.leaves.push((place, Some(leaf)));
            }
            return staged;
        }
        let leaf = self.leaf_after(&leaf, store_key, old, new);
        if leaf.sum.count <= SHRUNK_OBJECTS && leaf.standing == Standing::Known && new.is_none() {
            self.stage_joined(range, leaf, &mut staged);
        } else {
            staged.leaves.push((place, Some(leaf)));
        }
        for (place, leaf) in &staged.leaves {
            match leaf {
                Some(leaf) => change.put(Space::Trees, row_key(*place), row_of(leaf)),
                None => change.remove(Space::Trees, row_key(*place)),
            };
        }
        staged
    }

    /// The leaf of a range after one of its rows has changed.
    fn leaf_after(&self, leaf: &Leaf, store_key: &[u8], old: OldRow<'_>, new: Option<Sum>) -> Leaf {
        let without = match (old, leaf.standing) {
            (OldRow::Absent, _) => Some(leaf.sum),
            (OldRow::Row(row), Standing::Known) => leaf.sum.minus(sum_of(&self.key, store_key, row)),
            // Nobody can tell whether the sum has it.
            (OldRow::Row(_) | OldRow::Unreadable, _) => None,
        };
        match without {
            Some(sum) => {
                let sum = new.map_or(sum, |row| sum.plus(row));
                Leaf { sum, stored: true, ..*leaf }
            }
            // Rule: unreadable rows are recounted.
            None => Leaf::unknown(leaf.depth),
        }
    }

    /// Removes an empty leaf, or joins a small one with its neighbours, as far up as they are small.
    fn stage_joined(&self, range: HashRange, leaf: Leaf, staged: &mut Staged) {
        let (mut range, mut sum) = (range, leaf.sum);
        let mut gone: SmallVec<[Place; 1]> = SmallVec::new();
        while let Some(parent) = range.parent(self.bits) {
            let mut joined = sum;
            let others = self.leaves_in(&parent).filter(|(other, _)| !range.contains(other));
            let mut parts: SmallVec<[Place; BRANCHES]> = SmallVec::new();
            for (other, leaf) in others {
                if leaf.standing != Standing::Known || self.recounts.has((other.bucket, other.start)) {
                    joined.count = u64::MAX;
                    break;
                }
                joined = joined.plus(leaf.sum);
                parts.push((other.bucket, other.start));
            }
            if joined.count > JOINED_OBJECTS || joined.bytes > MAX_LEAF_BYTES / 2 {
                break;
            }
            gone.push((range.bucket, range.start));
            gone.extend(parts);
            (range, sum) = (parent, joined);
        }
        let place = (range.bucket, range.start);
        let left = (sum.count > 0).then(|| Leaf::known(range.depth, sum));
        let gone = gone.into_iter().filter(|other| *other != place && self.leaves.contains_key(other));
        staged.leaves.extend(gone.map(|other| (other, None)));
        staged.leaves.push((place, left));
    }

    /// A change that [`stage`](Self::stage) has prepared is written.
    pub(crate) fn apply(&mut self, staged: Staged) {
        if let Some(noted) = staged.noted {
            self.recounts.note(noted);
        }
        staged.leaves.into_iter().for_each(|(place, leaf)| self.set(place, leaf));
    }

    /// What the sum says of a copy is not sure any more: it cannot be read, or it can again.
    pub(crate) fn doubt(&mut self, store_key: &[u8]) {
        let Some((bucket, prefix)) = place_of(store_key) else { return };
        let Some((range, leaf)) = self.leaf_of(bucket, prefix) else { return };
        let (place, leaf) = ((bucket, range.start), *leaf);
        self.recounts.restart(place);
        if leaf.standing != Standing::Unknown {
            self.set(place, Some(Leaf { stored: false, ..Leaf::unknown(leaf.depth) }));
        }
    }

    /// Rows are lost, and nobody can tell which there were: no leaf is known any more. Returns whether that is new.
    pub(crate) fn lose(&mut self, losses: u64) -> bool {
        if losses == self.losses {
            return false;
        }
        self.losses = losses;
        self.belied |= self.headed;
        self.headed = false;
        let doubted: Vec<(Place, u8)> = self.leaves.iter().map(|(place, leaf)| (*place, leaf.depth)).collect();
        for (place, depth) in doubted {
            self.recounts.restart(place);
            self.set(place, Some(Leaf { stored: false, ..Leaf::unknown(depth) }));
        }
        true
    }

    /// Whether rows were lost of which the last run did not know, as far as this start can tell.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost
    }

    /// The ring has 2^this partitions.
    pub(crate) fn bits(&self) -> u8 {
        self.bits
    }

    /// The buckets that have objects in a partition, each with its sum.
    pub(crate) fn roots(&self, partition: PartitionId) -> impl Iterator<Item = (BucketId, Root)> + '_ {
        let all = (partition, BucketId(0))..=(partition, BucketId(u64::MAX));
        self.roots.range(all).map(|(&(_, bucket), &root)| (bucket, root))
    }

    /// The partitions and buckets that have objects, or may have some where a sum is not known.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (PartitionId, BucketId)> + '_ {
        self.roots.keys().copied()
    }

    /// The partitions in which a bucket has objects, or may have some.
    pub(crate) fn partitions(&self, bucket: BucketId) -> impl Iterator<Item = PartitionId> + '_ {
        let all = (0..1_u32 << self.bits).map(|at| PartitionId(u16::try_from(at).unwrap_or(u16::MAX)));
        all.filter(move |partition| self.roots.contains_key(&(*partition, bucket)))
    }

    /// The bytes of all objects that known leaves count.
    pub(crate) fn bytes(&self) -> u64 {
        self.roots.values().map(|root| root.sum.bytes).sum()
    }

    /// The sum of each bucket, of what known leaves count.
    pub(crate) fn usage(&self) -> BTreeMap<BucketId, Sum> {
        let mut sums: BTreeMap<BucketId, Sum> = BTreeMap::new();
        for (&(_, bucket), root) in &self.roots {
            let sum = sums.entry(bucket).or_default();
            *sum = sum.plus(root.sum);
        }
        sums
    }

    /// Whether every object is counted by some leaf, be it an unknown one.
    pub(crate) fn is_discovered(&self) -> bool {
        self.undiscovered.is_none()
    }

    /// The number of leaves, and how many of them are unknown.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.leaves.len(), self.roots.values().map(|root| root.unknown as usize).sum())
    }

    /// The leaves within a range, with the one that the range is a part of, if there is one.
    pub(super) fn leaves_in(&self, range: &HashRange) -> impl Iterator<Item = (HashRange, &Leaf)> {
        let bucket = range.bucket;
        let whole = self.leaf_of(bucket, range.start).filter(|(leaf, _)| leaf.start < range.start);
        let within = self.leaves.range((bucket, range.start)..=(bucket, range.last()));
        let within = within.map(move |(place, leaf)| (HashRange { bucket, start: place.1, depth: leaf.depth }, leaf));
        whole.into_iter().chain(within)
    }

    /// The leaf of a prefix.
    pub(super) fn leaf_of(&self, bucket: BucketId, prefix: u64) -> Option<(HashRange, &Leaf)> {
        let (place, leaf) = self.leaves.range((bucket, 0)..=(bucket, prefix)).next_back()?;
        let range = HashRange { bucket, start: place.1, depth: leaf.depth };
        range.holds(prefix).then_some((range, leaf))
    }

    /// The leaf that a prefix without one gets: the largest range around it that no other leaf shares. Where objects
    /// may be that no leaf counts yet, it is unknown, and that of the whole partition.
    fn fresh_leaf(&self, bucket: BucketId, prefix: u64) -> (HashRange, Leaf) {
        let root = HashRange::around(bucket, prefix, self.bits);
        if self.undiscovered.is_some_and(|from| (bucket, root.last()) >= from) {
            return (root, Leaf { stored: false, ..Leaf::unknown(self.bits) });
        }
        let mut range = root;
        while range.depth < MAX_DEPTH && self.leaves_in(&range).next().is_some() {
            range = range.part(range.part_of(prefix));
        }
        (range, Leaf::known(range.depth, Sum::default()))
    }

    /// Puts a leaf in force, or removes it, and keeps the roots.
    pub(super) fn set(&mut self, place: Place, leaf: Option<Leaf>) {
        if leaf.is_some_and(|leaf| leaf.stored) || leaf.is_none() {
            self.stale.remove(&place);
        }
        let old = match leaf {
            Some(leaf) => self.leaves.insert(place, leaf),
            None => self.leaves.remove(&place),
        };
        if let Some(old) = old {
            self.account(place, &old, false);
        }
        if let Some(leaf) = leaf {
            self.account(place, &leaf, true);
            self.recounts.consider(place, &leaf, self.bits);
        } else {
            self.recounts.forget(place);
        }
    }

    /// Adds a leaf to the roots of its partition, or takes it away. One of several partitions says of none what it has.
    fn account(&mut self, place: Place, leaf: &Leaf, is_added: bool) {
        let range = HashRange { bucket: place.0, start: place.1, depth: leaf.depth };
        let is_whole = range.partition(self.bits).is_some();
        // Rule: halves are unknown.
        let unknown = u32::from(leaf.standing == Standing::Unknown || !is_whole);
        let sum = if is_whole { leaf.sum } else { Sum::default() };
        let (first, last) = (partition_of(range.start, self.bits), partition_of(range.last(), self.bits));
        for partition in (first.0..=last.0).map(PartitionId) {
            let root = self.roots.entry((partition, place.0)).or_default();
            if is_added {
                (root.sum, root.unknown) = (root.sum.plus(sum), root.unknown + unknown);
            } else {
                (root.sum, root.unknown) = (root.sum.minus(sum).unwrap_or_default(), root.unknown - unknown);
            }
            if *root == Root::default() {
                self.roots.remove(&(partition, place.0));
            }
        }
    }

    /// The partitions are split: the ring has 2^`bits` from now on.
    pub(crate) fn split(&mut self, bits: u8) {
        self.bits = bits;
        self.roots.clear();
        let leaves: Vec<(Place, Leaf)> = self.leaves.iter().map(|(place, leaf)| (*place, *leaf)).collect();
        for (place, leaf) in leaves {
            self.account(place, &leaf, true);
            self.recounts.consider(place, &leaf, bits);
        }
    }

    /// Adds what remains to be written of a new beginning: removals of void leaves, and last the head row. Returns
    /// whether there is anything. Call [`Trees::tidied`] once it is written.
    pub(crate) fn tidy(&self, most: usize, change: &mut Change) -> Tidied {
        if self.headed {
            return Tidied::default();
        }
        let stale: Vec<Place> = self.stale.iter().take(most).copied().collect();
        for place in &stale {
            change.remove(Space::Trees, row_key(*place));
        }
        let unstored: Vec<Place> =
            self.leaves.iter().filter(|(_, leaf)| !leaf.stored).take(most).map(|(place, _)| *place).collect();
        for place in &unstored {
            change.put(Space::Trees, row_key(*place), row_of(&self.leaves[place]));
        }
        let is_last = stale.len() == self.stale.len() && unstored.len() < most && self.is_discovered();
        if is_last {
            let head = HeadRow { key: self.key.check(), partition_bits: self.bits, losses: self.losses };
            change.put(Space::Trees, &HEAD_KEY[..], codec::encode(&head));
        }
        Tidied { stale, unstored, is_last }
    }

    /// What [`tidy`](Self::tidy) added is written.
    pub(crate) fn tidied(&mut self, tidied: Tidied) {
        for place in &tidied.stale {
            self.stale.remove(place);
        }
        for place in tidied.unstored {
            self.stale.remove(&place);
            if let Some(leaf) = self.leaves.get_mut(&place) {
                leaf.stored = true;
            }
        }
        self.headed |= tidied.is_last;
    }
}

/// What a change of [`Trees::tidy`] holds.
#[derive(Debug, Default)]
pub(crate) struct Tidied {
    stale: Vec<Place>,
    unstored: Vec<Place>,
    is_last: bool,
}

impl From<LeafRow> for Leaf {
    fn from(LeafRow { depth, standing, sum, live }: LeafRow) -> Self {
        Self { depth, standing, stored: true, sum: Sum { live, ..sum } }
    }
}

/// The sum of one row.
pub(super) fn sum_of(key: &CausalKey, store_key: &[u8], row: &[u8]) -> Sum {
    let prefix = place_of(store_key).map_or(0, |(_, prefix)| prefix);
    let (weight, is_live) = outline_of(row).map_or((0, false), |(context, is_live)| (context.weight(), is_live));
    Sum::of(key.hash_row(store_key, row).0, prefix, row.len(), weight, is_live)
}

/// The key of a leaf's row.
pub(super) fn row_key((bucket, start): Place) -> Bytes {
    HashRange { bucket, start, depth: MAX_DEPTH }.from()
}

/// A leaf's row.
pub(super) fn row_of(leaf: &Leaf) -> Bytes {
    codec::encode_bytes(&LeafRow { depth: leaf.depth, standing: leaf.standing, sum: leaf.sum, live: leaf.sum.live })
}
