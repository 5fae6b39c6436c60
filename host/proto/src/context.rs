//! Context tokens, as clients hold them: opaque, and authenticated so that they cannot be forged or used for another
//! key.
//!
//! A token is `format ‖ key id ‖ 16 bytes of keyed BLAKE3 ‖ the version vector`. The MAC is over tenant, bucket, key
//! and vector, under a key derived from the cluster's secret. While that secret is replaced there are two keys: one
//! seals, both open, and the key id says which ones need to be tried. The text form is unpadded base64url, which is
//! safe in headers, shells and file names.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::causal::VersionVector;
use crate::hash::ObjectId;

const FORMAT: u8 = 1;
const MAC_BYTES: usize = 16;
const HEAD_BYTES: usize = 2 + MAC_BYTES;

/// The most bytes of a token: enough for some thousand actors, far more than a key has.
pub const MAX_CONTEXT_BYTES: usize = 64 * 1024;

/// Seals and opens context tokens. Each node derives it from the cluster's secret.
#[derive(Clone)]
pub struct ContextKey {
    id: u8,
    key: [u8; 32],
    /// Others that open tokens and seal none.
    accepted: Vec<(u8, [u8; 32])>,
}

/// Why a context was refused. The client learns no more than the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// Not a token, or one of another format.
    #[error("the context is malformed: pass it on exactly as it was received")]
    Malformed,
    /// Sealed for another key or under another secret, or altered.
    #[error(
        "the context does not belong to this key of this cluster: read the key again and use the context of that reply"
    )]
    Foreign,
}

impl ContextKey {
    /// Derives the key with that id from the cluster's secret.
    #[must_use]
    pub fn derive(id: u8, cluster_secret: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 context key");
        hasher.update(&[id]);
        hasher.update(cluster_secret);
        Self { id, key: *hasher.finalize().as_bytes(), accepted: Vec::new() }
    }

    /// Derives the key, and its id, from the cluster's secret.
    #[must_use]
    pub fn of_secret(cluster_secret: &[u8]) -> Self {
        let id = blake3::derive_key("rejoin 2026 context key id", cluster_secret)[0];
        Self::derive(id, cluster_secret)
    }

    /// A key that seals as this one does, and also opens what the other one has sealed.
    #[must_use]
    pub fn accepting(mut self, other: &Self) -> Self {
        self.accepted.push((other.id, other.key));
        self
    }

    /// Seals a vector for one object.
    #[must_use]
    pub fn seal(&self, object: &ObjectId, seen: &VersionVector) -> Vec<u8> {
        let vector = encode_vector(seen);
        let mut token = Vec::with_capacity(HEAD_BYTES + vector.len());
        token.extend_from_slice(&[FORMAT, self.id]);
        token.extend_from_slice(&mac(&self.key, object, &vector).as_bytes()[..MAC_BYTES]);
        token.extend_from_slice(&vector);
        token
    }

    /// Opens a token for one object.
    ///
    /// # Errors
    /// [`ContextError`] if the token is malformed, or was not sealed for this object under this key.
    pub fn open(&self, object: &ObjectId, token: &[u8]) -> Result<VersionVector, ContextError> {
        if token.len() < HEAD_BYTES || token.len() > MAX_CONTEXT_BYTES || token[0] != FORMAT {
            return Err(ContextError::Malformed);
        }
        let (head, vector) = token.split_at(HEAD_BYTES);
        let own = (self.id, self.key);
        let mut keys = core::iter::once(&own).chain(&self.accepted).filter(|(id, _)| *id == head[1]);
        let is_sealed_with = |key: &[u8; 32]| {
            let mut expected = *mac(key, object, vector).as_bytes();
            let mut given = expected;
            given[..MAC_BYTES].copy_from_slice(&head[2..]);
            // Compared as BLAKE3 hashes, whose equality takes constant time.
            expected[MAC_BYTES..].fill(0);
            given[MAC_BYTES..].fill(0);
            blake3::Hash::from_bytes(given) == blake3::Hash::from_bytes(expected)
        };
        // Two secrets may have one id.
        if !keys.any(|(_, key)| is_sealed_with(key)) {
            return Err(ContextError::Foreign);
        }
        match postcard::take_from_bytes(vector) {
            Ok((seen, [])) => Ok(seen),
            _ => Err(ContextError::Malformed),
        }
    }
}

fn mac(key: &[u8; 32], object: &ObjectId, vector: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&object.tenant.0.to_le_bytes());
    hasher.update(&object.bucket.0.to_le_bytes());
    hasher.update(&(object.key.len() as u64).to_le_bytes());
    hasher.update(&object.key);
    hasher.update(vector);
    hasher.finalize()
}

impl core::fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ContextKey({})", self.id)
    }
}

fn encode_vector(seen: &VersionVector) -> Vec<u8> {
    postcard::to_allocvec(seen).expect("encoding a vector into memory does not fail")
}

/// A token's text form.
#[must_use]
pub fn to_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// The token of a text form.
///
/// # Errors
/// [`ContextError::Malformed`] if the text is not unpadded base64url.
pub fn from_text(text: &str) -> Result<Vec<u8>, ContextError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| ContextError::Malformed)
}
