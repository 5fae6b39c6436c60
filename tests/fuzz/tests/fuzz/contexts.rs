//! Contexts that clients return: only a context that was sealed for this key, in canonical form, can be opened.

use bytes::Bytes;

use rejoin_proto::context::{ContextError, ContextKey, MAX_CONTEXT_BYTES, from_text, to_text};
use rejoin_proto::{ActorId, BucketId, Dot, ObjectId, TenantId, VersionVector};

use crate::fuzz;

fn object(key: &'static [u8]) -> ObjectId {
    ObjectId { tenant: TenantId(1), bucket: BucketId(2), key: Bytes::from_static(key) }
}

fn key() -> ContextKey {
    ContextKey::derive(1, b"the secret of the fuzz cluster")
}

fn property(bytes: &[u8]) {
    // Tokens of the fuzz cluster are among the seeds, and hostile bytes have at most been made of them.
    match key().open(&object(b"k"), bytes) {
        Ok(seen) => {
            assert_eq!(key().seal(&object(b"k"), &seen), bytes, "one vector, one token");
            assert_eq!(key().open(&object(b"j"), bytes), Err(ContextError::Foreign));
            assert_eq!(
                ContextKey::derive(2, b"the secret of the fuzz cluster").open(&object(b"k"), bytes),
                Err(ContextError::Foreign)
            );
        }
        Err(error) => {
            let malformed = bytes.len() < 18 || bytes.len() > MAX_CONTEXT_BYTES || bytes[0] != 1;
            assert_eq!(error, if malformed { ContextError::Malformed } else { ContextError::Foreign });
        }
    }
    assert_eq!(from_text(&to_text(bytes)).as_deref(), Ok(bytes));
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = from_text(text)
    {
        assert_eq!(to_text(&token), text, "one token, one text");
    }
    sealed_comes_back(bytes);
}

/// Any vector that bytes spell out opens again as what it was.
fn sealed_comes_back(bytes: &[u8]) {
    let dot = |word: &[u8]| {
        let (actor, counter) = word.split_at(word.len() / 2);
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        Dot { actor: ActorId(number(actor)), counter: number(counter) }
    };
    let seen: VersionVector = bytes.chunks(16).map(dot).collect();
    let token = key().seal(&object(b"k"), &seen);
    if token.len() <= MAX_CONTEXT_BYTES {
        assert_eq!(key().open(&object(b"k"), &token), Ok(seen));
    }
}

#[test]
fn contexts() {
    let vector = |dots: &[(u64, u64)]| {
        dots.iter().map(|&(actor, counter)| Dot { actor: ActorId(actor), counter }).collect::<VersionVector>()
    };
    let vectors = [vector(&[]), vector(&[(1, 1)]), vector(&[(3, 300), (5, 7), (u64::MAX, u64::MAX)])];
    let tokens = vectors.iter().map(|seen| key().seal(&object(b"k"), seen));
    let texts = vectors.iter().map(|seen| to_text(&key().seal(&object(b"k"), seen)).into_bytes());
    fuzz("contexts", tokens.chain(texts).collect(), property);
}
