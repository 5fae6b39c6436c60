//! The place of a key on the ring, and its key in the store.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128;

use crate::id::{BucketId, PartitionId, TenantId};

/// The most bytes a key may have.
pub const MAX_KEY_BYTES: usize = 1024;

/// Identifies an object within the cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectId {
    /// The tenant of the bucket.
    pub tenant: TenantId,
    /// The incarnation of the bucket.
    pub bucket: BucketId,
    /// 1 to [`MAX_KEY_BYTES`] bytes.
    #[serde(deserialize_with = "checked_key")]
    pub key: Bytes,
}

/// Checks the length: objects from other nodes are stored under this key.
fn checked_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let key = Bytes::deserialize(deserializer)?;
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        Ok(key)
    } else {
        Err(serde::de::Error::custom("a key has 1 to 1024 bytes"))
    }
}

impl ObjectId {
    /// The place on the ring: xxh3-128 of tenant ‖ the bucket's place ‖ key. The function is fixed: another would move
    /// every key.
    #[must_use]
    pub fn hash(&self) -> u128 {
        // On the stack except for long keys: this runs for every message.
        let mut bytes = SmallVec::<[u8; 128]>::with_capacity(12 + self.key.len());
        bytes.extend_from_slice(&self.tenant.0.to_le_bytes());
        bytes.extend_from_slice(&self.bucket.place().to_le_bytes());
        bytes.extend_from_slice(&self.key);
        xxh3_128(&bytes)
    }

    /// The key in the store: bucket id ‖ hash ‖ key, big-endian, so that a (partition, bucket) is one contiguous range
    /// at any number of partitions.
    #[must_use]
    pub fn store_key(&self) -> Vec<u8> {
        self.store_key_of(self.hash())
    }

    /// As [`ObjectId::store_key`], with the known [`hash`](Self::hash).
    #[must_use]
    pub fn store_key_of(&self, hash: u128) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + self.key.len());
        bytes.extend_from_slice(&self.bucket.0.to_be_bytes());
        bytes.extend_from_slice(&hash.to_be_bytes());
        bytes.extend_from_slice(&self.key);
        bytes
    }
}

/// The partition of a hash when the ring has `partitions` equal arcs: its leading bits.
///
/// # Panics
/// If `partitions` is not a power of two between 1 and 65 536; a layout is checked when it is made.
#[must_use]
pub fn partition_of(hash: u128, partitions: u32) -> PartitionId {
    assert!(partitions.is_power_of_two() && partitions <= 1 << 16, "partitions are a power of two up to 65536");
    let bits = partitions.trailing_zeros();
    PartitionId(if bits == 0 { 0 } else { (hash >> (128 - bits)) as u16 })
}
