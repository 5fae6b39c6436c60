//! The causal hash: 128 bits over what is stored of an object.
//!
//! It covers the object's id, its context, and of each entry the dots, covers, stamp, expiry, plugin and value. Two
//! copies with equal hashes are taken for equal by every exchange. The hash is never over a view: two folds of equal
//! dots have equal contexts and may still differ, and must meet in an exchange.
//!
//! The key comes from the cluster's secret, so that a client cannot choose values whose hashes cancel out in the sum of
//! a hash tree.

use alloc::vec::Vec;
use core::fmt;

use xxhash_rust::xxh3::xxh3_128_with_secret;

use rejoin_proto::{Content, DotSet, Object, ObjectId, VersionVector};

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
        let mut bytes = Vec::with_capacity(256 + id.key.len());
        put_u64(&mut bytes, id.tenant.0);
        put_u64(&mut bytes, id.bucket.0);
        put_len(&mut bytes, id.key.len());
        bytes.extend_from_slice(&id.key);
        put_vector(&mut bytes, &object.context);
        put_len(&mut bytes, object.entries.len());
        for entry in &object.entries {
            put_dots(&mut bytes, &entry.dots);
            put_dots(&mut bytes, &entry.covers);
            put_u64(&mut bytes, entry.stamp.0);
            put_option(&mut bytes, entry.expires, |bytes, expires| put_u64(bytes, expires.0));
            put_option(&mut bytes, entry.folded_by.as_ref(), |bytes, by| {
                bytes.extend_from_slice(&by.plugin.0);
                put_u64(bytes, by.profile.0);
            });
            let value = match &entry.content {
                Content::Tombstone => None,
                Content::Value(value) => Some(value),
            };
            put_option(&mut bytes, value, |bytes, value| {
                put_len(bytes, value.len());
                bytes.extend_from_slice(&xxh3_128_with_secret(value, &self.secret).to_le_bytes());
            });
        }
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

fn put_u64(bytes: &mut Vec<u8>, word: u64) {
    bytes.extend_from_slice(&word.to_le_bytes());
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    put_u64(bytes, len as u64);
}

fn put_option<T>(bytes: &mut Vec<u8>, option: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    bytes.push(u8::from(option.is_some()));
    if let Some(value) = option {
        put(bytes, value);
    }
}

fn put_vector(bytes: &mut Vec<u8>, vector: &VersionVector) {
    put_len(bytes, vector.len());
    for dot in vector.iter() {
        put_u64(bytes, dot.actor.0);
        put_u64(bytes, dot.counter);
    }
    put_len(bytes, vector.cloud().len());
    for span in vector.cloud() {
        [span.actor.0, span.lo, span.hi].iter().for_each(|&word| put_u64(bytes, word));
    }
}

fn put_dots(bytes: &mut Vec<u8>, dots: &DotSet) {
    put_len(bytes, dots.spans().len());
    for span in dots.spans() {
        [span.actor.0, span.lo, span.hi].iter().for_each(|&word| put_u64(bytes, word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use bytes::Bytes;
    use rejoin_proto::{ActorId, BucketId, Dot, DotSpan, Entry, FoldedBy, Hlc, PluginDigest, ProfileId, TenantId};

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
