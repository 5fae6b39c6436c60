//! The causal hash: 128 bits over what is stored of an object.
//!
//! It covers the object's key in the store and its row, which has the context, and of each entry the dots, covers,
//! stamp, expiry, plugin and value. Both encodings are canonical: equal copies are equal bytes. Two copies with equal
//! hashes are taken for equal by every exchange. The hash is never over a view: two folds of equal dots have equal
//! contexts and may still differ, and must meet in an exchange.
//!
//! The key comes from the cluster's secret, so that a client cannot choose values whose hashes cancel out in the sum of
//! a hash tree.

use core::fmt;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use rejoin_proto::{Object, ObjectId, codec};

/// The length of the secret of XXH3.
const SECRET_BYTES: usize = 192;

/// Makes causal hashes. The nodes of a cluster have the same key.
#[derive(Clone)]
pub struct CausalKey {
    secret: [u8; SECRET_BYTES],
}

/// The hash of one copy of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CausalHash(pub u128);

impl CausalKey {
    /// Derives the key from the cluster's secret.
    #[must_use]
    pub fn derive(cluster_secret: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 causal hash key");
        hasher.update(cluster_secret);
        let mut secret = [0; SECRET_BYTES];
        hasher.finalize_xof().fill(&mut secret);
        Self { secret }
    }

    /// The hash of a copy. An empty object has one too, though no tree contains it.
    #[must_use]
    pub fn hash(&self, id: &ObjectId, object: &Object) -> CausalHash {
        self.hash_row(&id.store_key(), &codec::encode(object))
    }

    /// The hash of a copy as it is stored: the object's key in the store, and its row.
    #[must_use]
    pub fn hash_row(&self, store_key: &[u8], row: &[u8]) -> CausalHash {
        // Rule: stored bytes are hashed.
        let content = xxh3_128_with_secret(row, &self.secret);
        let mut bytes = SmallVec::<[u8; 128]>::with_capacity(store_key.len() + 16);
        bytes.extend_from_slice(store_key);
        bytes.extend_from_slice(&content.to_le_bytes());
        CausalHash(xxh3_128_with_secret(&bytes, &self.secret))
    }

    /// Tells keys apart without revealing them: stored with hash trees, which are void under another key.
    #[must_use]
    pub fn check(&self) -> u64 {
        let hash = blake3::derive_key("rejoin 2026 causal hash key check", &self.secret);
        hash[..8].iter().fold(0, |word, &byte| (word << 8) | u64::from(byte))
    }
}

impl fmt::Debug for CausalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CausalKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use bytes::Bytes;
    use rejoin_proto::{
        ActorId, BucketId, Content, Dot, DotSet, DotSpan, Entry, FoldedBy, Hlc, PluginDigest, ProfileId, TenantId,
    };

    fn key() -> CausalKey {
        CausalKey::derive(b"a cluster's secret")
    }

    fn id() -> ObjectId {
        ObjectId { tenant: TenantId(1), bucket: BucketId(2), key: Bytes::from_static(b"key") }
    }

    fn object() -> Object {
        let span = |lo, hi| [DotSpan { actor: ActorId(7), lo, hi }].into_iter().collect::<DotSet>();
        let entry = Entry {
            dots: span(1, 2),
            covers: span(0, 2),
            content: Content::Value(Bytes::from_static(b"value")),
            stamp: Hlc(5),
            expires: Some(Hlc(6)),
            folded_by: Some(FoldedBy { plugin: PluginDigest([3; 32]), profile: ProfileId(4) }),
        };
        Object { context: [Dot { actor: ActorId(7), counter: 2 }].into_iter().collect(), entries: alloc::vec![entry] }
    }

    /// The object with one entry changed.
    fn with(change: impl FnOnce(&mut Entry)) -> Object {
        let mut object = object();
        change(&mut object.entries[0]);
        object
    }

    #[test]
    fn every_part_of_what_is_stored_is_in_the_hash() {
        let span = |lo, hi| [DotSpan { actor: ActorId(7), lo, hi }].into_iter().collect::<DotSet>();
        let other = FoldedBy { plugin: PluginDigest([3; 32]), profile: ProfileId(5) };
        let mut clouded = object();
        clouded.context.insert_span(DotSpan { actor: ActorId(7), lo: 8, hi: 9 });
        let objects = [
            object(),
            Object { context: [Dot { actor: ActorId(7), counter: 3 }].into_iter().collect(), ..object() },
            clouded,
            Object { entries: Vec::new(), ..object() },
            Object { entries: [object().entries, object().entries].concat(), ..object() },
            with(|entry| entry.dots = span(0, 2)),
            with(|entry| entry.covers = span(1, 2)),
            with(|entry| entry.stamp = Hlc(6)),
            with(|entry| entry.expires = Some(Hlc(7))),
            with(|entry| entry.expires = None),
            with(|entry| entry.folded_by = Some(other)),
            with(|entry| entry.folded_by = Some(FoldedBy { plugin: PluginDigest([4; 32]), ..other })),
            with(|entry| entry.folded_by = None),
            with(|entry| entry.content = Content::Value(Bytes::from_static(b"valuf"))),
            with(|entry| entry.content = Content::Value(Bytes::new())),
            with(|entry| entry.content = Content::Tombstone),
            Object::default(),
        ];
        let hashes: BTreeSet<CausalHash> = objects.iter().map(|object| key().hash(&id(), object)).collect();
        assert_eq!(hashes.len(), objects.len());
        assert_eq!(key().hash(&id(), &object()), key().hash(&id(), &object()));
    }

    #[test]
    fn the_id_and_the_cluster_are_in_the_hash() {
        let ids = [
            id(),
            ObjectId { tenant: TenantId(9), ..id() },
            ObjectId { bucket: BucketId(9), ..id() },
            ObjectId { key: Bytes::from_static(b"kez"), ..id() },
        ];
        let mut hashes: BTreeSet<CausalHash> = ids.iter().map(|id| key().hash(id, &object())).collect();
        let other = CausalKey::derive(b"another cluster's secret");
        hashes.insert(other.hash(&id(), &object()));
        assert_eq!(hashes.len(), ids.len() + 1);
        assert_ne!(key().check(), other.check());
    }
}
