//! Exchanges, by which the replicas of a partition are made to agree: ranges of key hashes, the sums of what is stored
//! in them, and the messages that compare them and bring what the other side lacks.
//!
//! The node that begins a [`Walk`](WalkId) asks, and the other one answers each question by itself, without remembering
//! the walk.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::id::{BucketId, PartitionId};
use crate::object::{Object, ReapEpoch};

/// A range is divided at the next multiple of so many bits, whatever the number of partitions is. So all ranges below
/// those of partitions stay what they are when partitions are split.
pub const BRANCH_BITS: u8 = 4;
/// The most parts of a range.
pub const BRANCHES: usize = 1 << BRANCH_BITS;
/// The deepest range: that of one 64-bit prefix of the key hash.
pub const MAX_DEPTH: u8 = 64;
/// The bits by which objects within a range are told apart.
pub const PLACE_BITS: u8 = 16;

/// What a set of copies comes to. Sums are additive, so those of trees with different depths can be compared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Sum {
    /// The number of objects.
    pub count: u64,
    /// How many of them have a value: the others are deleted, and their tombstones are kept. Not sent to others, and
    /// not compared.
    #[serde(skip)]
    pub live: u64,
    /// The bytes of their rows.
    pub bytes: u64,
    /// The wrapping sum of their causal hashes, which are over all that is stored of an object.
    pub hash: u128,
    /// The wrapping sum of the lower halves of those hashes, each multiplied by the 64-bit prefix of the key hash,
    /// backwards. Of two sums that differ in one key this names the key.
    pub places: u64,
    /// The wrapping sum of the [weights](crate::VersionVector::weight) of their contexts.
    pub weights: u64,
}

impl Sum {
    /// The sum of one row: its causal hash, the prefix of its key hash, its bytes, the weight of its context, and
    /// whether it has a value.
    #[must_use]
    pub fn of(hash: u128, prefix: u64, row_bytes: usize, weight: u64, is_live: bool) -> Self {
        let places = prefix.reverse_bits().wrapping_mul(hash as u64);
        Self { count: 1, live: is_live.into(), bytes: row_bytes as u64, hash, places, weights: weight }
    }

    /// What a message has of it, to find out which key differs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest { hash: self.hash as u32, places: self.places as u32, weights: self.weights as u32 }
    }

    /// The sum as others are told it: without [`Sum::live`].
    #[must_use]
    pub fn told(self) -> Self {
        Self { live: 0, ..self }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_add(other.count),
            live: self.live.wrapping_add(other.live),
            bytes: self.bytes.wrapping_add(other.bytes),
            hash: self.hash.wrapping_add(other.hash),
            places: self.places.wrapping_add(other.places),
            weights: self.weights.wrapping_add(other.weights),
        }
    }

    /// The sum without a part of it; `None` if `other` cannot be a part.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        Some(Self {
            count: self.count.checked_sub(other.count)?,
            live: self.live.checked_sub(other.live)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
            hash: self.hash.wrapping_sub(other.hash),
            places: self.places.wrapping_sub(other.places),
            weights: self.weights.wrapping_sub(other.weights),
        })
    }

    /// Whether the objects are the same as those of another sum.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.count, self.hash) == (other.count, other.hash)
    }
}

/// The trailing bits of a [`Sum`]'s hash, places and weights. The digest of a sum without objects is zero.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(into = "[u8; 12]", from = "[u8; 12]")]
pub struct Digest {
    /// Of [`Sum::hash`].
    pub hash: u32,
    /// Of [`Sum::places`].
    pub places: u32,
    /// Of [`Sum::weights`].
    pub weights: u32,
}

impl From<Digest> for [u8; 12] {
    fn from(Digest { hash, places, weights }: Digest) -> Self {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&hash.to_be_bytes());
        bytes[4..8].copy_from_slice(&places.to_be_bytes());
        bytes[8..].copy_from_slice(&weights.to_be_bytes());
        bytes
    }
}

impl From<[u8; 12]> for Digest {
    fn from(bytes: [u8; 12]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { hash: word(0), places: word(4), weights: word(8) }
    }
}

/// The keys of a bucket whose hashes begin with the `depth` leading bits of `start`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct HashRange {
    /// The bucket.
    pub bucket: BucketId,
    /// The first 64-bit prefix of the range.
    #[serde(with = "leading_bits")]
    pub start: u64,
    /// The number of bits that all hashes of the range have in common, 0 to [`MAX_DEPTH`].
    pub depth: u8,
}

impl HashRange {
    /// The range of that depth that holds a prefix.
    #[must_use]
    pub fn around(bucket: BucketId, prefix: u64, depth: u8) -> Self {
        Self { bucket, start: prefix & !Self::mask(depth), depth }
    }

    /// The range of a partition in a bucket, when the ring has 2^`bits` partitions.
    #[must_use]
    pub fn of_partition(bucket: BucketId, partition: PartitionId, bits: u8) -> Self {
        let start = u64::from(partition.0).checked_shl(64 - u32::from(bits)).unwrap_or(0);
        Self { bucket, start, depth: bits }
    }

    /// The range of a decoded message, if it is one: aligned, and no deeper than [`MAX_DEPTH`].
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        (self.depth <= MAX_DEPTH && self.start & Self::mask(self.depth) == 0).then_some(self)
    }

    /// The bits that differ within a range.
    fn mask(depth: u8) -> u64 {
        u64::MAX.checked_shr(u32::from(depth)).unwrap_or(0)
    }

    /// The last prefix of the range.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.start | Self::mask(self.depth)
    }

    /// Whether a prefix is in the range.
    #[must_use]
    pub fn holds(&self, prefix: u64) -> bool {
        (self.start..=self.last()).contains(&prefix)
    }

    /// Whether another range of the same bucket is a part of this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.bucket == other.bucket && self.depth <= other.depth && self.holds(other.start)
    }

    /// The partition of the range, when the ring has 2^`bits` partitions; `None` if it reaches over several.
    #[must_use]
    pub fn partition(&self, bits: u8) -> Option<PartitionId> {
        (self.depth >= bits).then(|| partition_of(self.start, bits))
    }

    /// The depth of its parts.
    fn part_depth(&self) -> u8 {
        ((self.depth / BRANCH_BITS + 1) * BRANCH_BITS).min(MAX_DEPTH)
    }

    /// The number of its parts: 16, or fewer in the range of a partition; 1 if it cannot be divided.
    #[must_use]
    pub fn parts(&self) -> usize {
        1 << self.part_depth().saturating_sub(self.depth)
    }

    /// One of its parts; the range itself if it cannot be divided.
    #[must_use]
    pub fn part(&self, at: usize) -> Self {
        let depth = self.part_depth();
        let bits = (at as u64 % self.parts() as u64).checked_shl(64 - u32::from(depth)).unwrap_or(0);
        Self { start: self.start | bits, depth, ..*self }
    }

    /// Which of its parts holds a prefix.
    #[must_use]
    pub fn part_of(&self, prefix: u64) -> usize {
        (prefix >> (64 - u32::from(self.part_depth()))) as usize % self.parts()
    }

    /// The [`PLACE_BITS`] bits of a prefix that follow those which all prefixes of the range have in common.
    #[must_use]
    pub fn place(&self, prefix: u64) -> u16 {
        (prefix.checked_shl(u32::from(self.depth)).unwrap_or(0) >> (64 - PLACE_BITS)) as u16
    }

    /// The part of the range with that [place](Self::place).
    #[must_use]
    pub fn at_place(&self, place: u16) -> Self {
        let start = u64::from(place).checked_shl(64 - u32::from(PLACE_BITS)).unwrap_or(0);
        let start = self.start | start.checked_shr(u32::from(self.depth)).unwrap_or(0);
        Self::around(self.bucket, start, (self.depth + PLACE_BITS).min(MAX_DEPTH))
    }

    /// The range that it is a part of; `None` for that of a partition, when the ring has 2^`bits` partitions.
    #[must_use]
    pub fn parent(&self, bits: u8) -> Option<Self> {
        let above = self.depth.checked_sub(1).filter(|depth| *depth >= bits)?;
        Some(Self::around(self.bucket, self.start, (above - above % BRANCH_BITS).max(bits)))
    }

    /// The first key of the range in the store.
    #[must_use]
    pub fn from(&self) -> Bytes {
        store_prefix(self.bucket, self.start)
    }

    /// The first key behind the range in the store; `None` if it reaches to the end.
    #[must_use]
    pub fn to(&self) -> Option<Bytes> {
        match self.last().checked_add(1) {
            Some(next) => Some(store_prefix(self.bucket, next)),
            None => self.bucket.0.checked_add(1).map(|next| store_prefix(BucketId(next), 0)),
        }
    }
}

/// A number of which mostly the leading bits are set, encoded backwards so that it takes few bytes.
mod leading_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(word: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        word.reverse_bits().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        u64::deserialize(deserializer).map(u64::reverse_bits)
    }
}

/// The partition of a prefix, when the ring has 2^`bits` partitions.
#[must_use]
pub fn partition_of(prefix: u64, bits: u8) -> PartitionId {
    PartitionId(prefix.checked_shr(64 - u32::from(bits)).unwrap_or(0) as u16)
}

/// How the keys of a bucket in the store begin from a prefix on.
fn store_prefix(bucket: BucketId, prefix: u64) -> Bytes {
    let mut key = Vec::with_capacity(16);
    key.extend_from_slice(&bucket.0.to_be_bytes());
    key.extend_from_slice(&prefix.to_be_bytes());
    key.into()
}

/// The bucket and the prefix of a key in the store; `None` if it is no object's key.
#[must_use]
pub fn place_of(store_key: &[u8]) -> Option<(BucketId, u64)> {
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word: u64, &byte| word << 8 | u64::from(byte));
    let (bucket, rest) = store_key.split_at_checked(8)?;
    let (prefix, _) = rest.split_at_checked(8)?;
    Some((BucketId(word(bucket)), word(prefix)))
}

/// A range of a bucket that is small enough to hold hardly more than one key. In a message the bits that its hashes
/// have in common, backwards, with a one in front of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeyName(u64);

impl KeyName {
    /// The deepest range that has a name.
    pub const MAX_DEPTH: u8 = 63;

    /// The name of a range, or of the one around it with the depth that has a name.
    #[must_use]
    pub fn of(range: &HashRange) -> Self {
        let depth = range.depth.min(Self::MAX_DEPTH);
        let start = range.start & !HashRange::mask(depth);
        Self(start.reverse_bits() | 1 << depth)
    }

    /// The range with that name; `None` if there is none.
    #[must_use]
    pub fn range(self, bucket: BucketId) -> Option<HashRange> {
        let depth = self.0.checked_ilog2()?;
        Some(HashRange { bucket, start: (self.0 ^ 1 << depth).reverse_bits(), depth: depth as u8 })
    }
}

/// Names a walk, within the node that has begun it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WalkId {
    /// The shard that has begun it.
    pub shard: u16,
    /// Its number in that shard.
    pub number: u64,
}

/// A question of a walk. It is answered by an [`ExchangeAnswer`] with the same walk and number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExchangeAsk {
    /// The walk.
    pub walk: WalkId,
    /// The number of the question in the walk.
    pub number: u64,
    /// The sender's ring has 2^this partitions. A receiver with others refuses the question.
    pub partition_bits: u8,
    /// The partition that it is about; of several the first.
    pub partition: PartitionId,
    /// The partition's reap epoch at the sender. Another one is refused.
    pub epoch: ReapEpoch,
    /// The question itself.
    pub ask: Ask,
}

/// What is asked in a walk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Which of these partitions differ? In ascending order, beginning with the message's. Each sum is over the buckets
    /// of which both nodes own the partition.
    Roots(Vec<(PartitionId, u128)>),
    /// What are the sums of these partitions in each bucket?
    Buckets(Vec<PartitionId>),
    /// Where do these ranges differ? Hashes are multiplied by a number that follows from the walk, before their leading
    /// bits are compared, so that a difference which one walk does not show is found with the next.
    Compare {
        /// The bytes of each object's hash that are compared. With 16 of them sums are compared as a whole, too.
        width: u8,
        /// The ranges, with what the sender has in them.
        ranges: Vec<BucketRanges>,
    },
    /// The objects of a range whose hashes are not among these.
    Wanted {
        /// The range.
        range: HashRange,
        /// The first key to be looked at, as in the store; empty for the first of the range.
        from: Bytes,
        /// As in [`Ask::Compare`].
        width: u8,
        /// Hashes of objects that the sender has, `width` bytes each.
        except: Bytes,
        /// The bytes of objects after which the answer ends.
        max_bytes: u32,
    },
    /// The objects with these names.
    Named {
        /// The bucket; `None` for the only one with objects in the message's partition.
        bucket: Option<BucketId>,
        /// The names.
        names: Vec<KeyName>,
        /// Whether the walk ends with the answer, as by [`Ask::Ended`], if that has everything.
        last: bool,
    },
    /// Objects that the receiver lacks.
    Objects {
        /// The objects.
        batch: ObjectBatch,
        /// Whether the walk ends with them, as by [`Ask::Ended`], if all are stored as they are.
        last: bool,
    },
    /// The walk has ended well: all that either had was compared, and is with both.
    Ended {
        /// But for these partitions.
        failed: Vec<PartitionId>,
    },
}

/// Ranges of one bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketRanges {
    /// The bucket.
    pub bucket: BucketId,
    /// The start and depth of each [`HashRange`], with what the sender has in it.
    pub ranges: Vec<(RangeBits, RangeHashes)>,
}

/// A [`HashRange`] without its bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeBits {
    #[serde(with = "leading_bits")]
    start: u64,
    depth: u8,
}

impl RangeBits {
    /// The range in a bucket, as it was sent: [`HashRange::checked`] says whether it is one.
    #[must_use]
    pub fn of(self, bucket: BucketId) -> HashRange {
        HashRange { bucket, start: self.start, depth: self.depth }
    }
}

impl From<HashRange> for RangeBits {
    fn from(HashRange { start, depth, .. }: HashRange) -> Self {
        Self { start, depth }
    }
}

/// What a node has in a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RangeHashes {
    /// The sums of the 16 parts of the range, two bytes each, or 16.
    Parts(Bytes),
    /// The hashes of all objects of the range, `width` bytes each.
    Objects(Bytes),
}

/// Objects of one bucket, for the receiver to absorb.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectBatch {
    /// The bucket.
    pub bucket: BucketId,
    /// The sender's version of the bucket.
    pub bucket_version: u64,
    /// Each key with the object.
    pub objects: Vec<(Bytes, Object)>,
}

/// The answer to an [`ExchangeAsk`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExchangeAnswer {
    /// The walk.
    pub walk: WalkId,
    /// The number of the question.
    pub number: u64,
    /// The partition's reap epoch at the sender.
    pub epoch: ReapEpoch,
    /// The answer itself, or why there is none.
    pub answer: Result<Answer, ErrorCode>,
}

/// An answer in a walk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Roots`].
    Differ {
        /// How many of the partitions were looked at. The others are to be asked for again.
        considered: u16,
        /// Those of them that differ.
        partitions: Vec<Differing>,
        /// Those that cannot be compared, because sums are not known yet.
        refused: Vec<PartitionId>,
        /// Those of the others in which the answering node may lack something that it has acknowledged.
        incomplete: Vec<PartitionId>,
    },
    /// To [`Ask::Buckets`], for each partition. `None` for one that is being walked with another node, or whose sums
    /// are not known yet.
    Buckets(Vec<Option<PartitionBuckets>>),
    /// To [`Ask::Compare`]: one for each range, or fewer. The others are to be asked for again.
    Compared(Vec<Compared>),
    /// To [`Ask::Wanted`].
    Objects {
        /// The objects.
        batch: ObjectBatch,
        /// The first key that was not looked at; `None` if the whole range was.
        next: Option<Bytes>,
        /// Whether rows in front of that could not be read.
        unreadable: bool,
    },
    /// To [`Ask::Named`].
    Found {
        /// The objects.
        batch: ObjectBatch,
        /// How many of the names were looked at. The others are to be asked for again.
        considered: u16,
        /// Whether rows of those could not be read, or not be looked at.
        unreadable: bool,
    },
    /// To [`Ask::Objects`]: all are absorbed.
    Taken {
        /// Whether each is here now exactly as it was sent. If not, the copies still differ.
        same: bool,
    },
}

/// A partition that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Differing {
    /// The partition.
    pub partition: PartitionId,
    /// In how many of the buckets that both own the answering node has objects; at most 255.
    pub buckets: u8,
    /// Of the sum over them.
    pub digest: Digest,
}

/// What a node has in a partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionBuckets {
    /// Whether it has everything that it has acknowledged in the partition.
    pub complete: bool,
    /// Each bucket with objects, its version, and its sum.
    pub sums: Vec<(BucketId, u64, Sum)>,
}

/// What comes of the comparison of one range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Compared {
    /// The sums of the parts differ, or some of them.
    Parts {
        /// A bit for each part that differs.
        differ: u16,
        /// The sums here of those parts, where hashes are shortened.
        digests: Vec<Digest>,
    },
    /// The hashes of all objects of the range, as they are few.
    Objects(Bytes),
    /// The given objects that are not here, a bit for each, and the objects here that were not given.
    Objections {
        /// Bit `at % 8` of byte `at / 8` is set if the object at that place is not here.
        lacking: Bytes,
        /// The objects here that were not given.
        others: Vec<OtherCopy>,
    },
    /// There are many more objects than were given.
    Many,
    /// The sum of the range is not known yet.
    Unknown,
    /// The partition is being walked with another node.
    Refused,
}

/// A copy that was not among those that were given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OtherCopy {
    /// [`HashRange::place`] of its key.
    pub place: u16,
    /// [`VersionVector::weight`](crate::VersionVector::weight) of its context.
    pub weight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectId;
    use crate::id::TenantId;
    use alloc::string::ToString;

    #[test]
    fn the_parts_of_a_range_are_disjoint_and_come_to_the_range() {
        for depth in 0..MAX_DEPTH {
            let range = HashRange::around(BucketId(7), 0x1234_5678_9abc_def0, depth);
            let mut next = Some(range.start);
            assert_eq!(range.parts(), BRANCHES >> (depth % BRANCH_BITS));
            for at in 0..range.parts() {
                let part = range.part(at);
                assert_eq!(Some(part.start), next);
                // The range is that of a partition, or as deep as it is in any ring of fewer.
                assert!(range.contains(&part) && part.parent(depth) == Some(range), "{range:?} {part:?}");
                assert!(depth % BRANCH_BITS > 0 || part.parent(0) == Some(range), "{range:?} {part:?}");
                assert_eq!([part.start, part.last()].map(|prefix| range.part_of(prefix)), [at; 2]);
                next = part.last().checked_add(1);
            }
            assert_eq!(next, range.last().checked_add(1));
        }
        let deepest = HashRange::around(BucketId(7), 0x1234_5678_9abc_def0, MAX_DEPTH);
        assert_eq!((deepest.parts(), deepest.part(0)), (1, deepest));
    }

    #[test]
    fn a_range_in_the_store_has_the_keys_of_its_hashes() {
        let bits = 3;
        for number in 0..200 {
            let id = ObjectId { tenant: TenantId(1), bucket: BucketId(7 << 32 | 5), key: number.to_string().into() };
            let (key, hash) = (id.store_key(), id.hash());
            let (bucket, prefix) = place_of(&key).expect("a key");
            assert_eq!((bucket, prefix), (id.bucket, (hash >> 64) as u64));
            let partition = crate::hash::partition_of(hash, 1 << bits);
            assert_eq!(partition_of(prefix, bits), partition);
            for other in 0..1 << bits {
                let range = HashRange::of_partition(bucket, PartitionId(other), bits);
                let inside = range.from()[..] <= key[..] && range.to().is_none_or(|to| key[..] < to[..]);
                assert_eq!((inside, range.holds(prefix)), (other == partition.0, other == partition.0));
                assert_eq!(range.partition(bits), Some(PartitionId(other)));
            }
        }
        assert_eq!(HashRange { bucket: BucketId(u64::MAX), start: 0, depth: 0 }.to(), None);
    }

    #[test]
    fn a_name_is_that_of_its_range() {
        for depth in [0, 8, 31, 32, 40, 63] {
            let range = HashRange::around(BucketId(7), 0xa5b4_5678_9abc_def1, depth);
            assert_eq!(KeyName::of(&range).range(BucketId(7)), Some(range));
        }
        let deepest = HashRange::around(BucketId(7), u64::MAX, 64);
        assert!(KeyName::of(&deepest).range(BucketId(7)).is_some_and(|range| range.contains(&deepest)));
        assert_eq!(KeyName(0).range(BucketId(7)), None);
    }

    #[test]
    fn a_place_is_a_part_of_its_range() {
        for depth in [0, 8, 20, 48, 60, 64] {
            let prefix = 0x1234_5678_9abc_def0;
            let range = HashRange::around(BucketId(7), prefix, depth);
            let part = range.at_place(range.place(prefix));
            assert!(range.contains(&part) && part.holds(prefix) && part.checked().is_some(), "{range:?} {part:?}");
            assert_eq!(part.depth, (depth + PLACE_BITS).min(MAX_DEPTH));
        }
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        let range = |start, depth| HashRange { bucket: BucketId(1), start, depth };
        assert!(range(0, 0).checked().is_some() && range(u64::MAX, 64).checked().is_some());
        assert!(
            range(1, 0).checked().is_none() && range(1, 63).checked().is_none() && range(0, 65).checked().is_none()
        );
    }
}
