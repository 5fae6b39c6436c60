//! Contexts cannot be forged, altered or used for another key; their text is safe in shells and headers.

use proptest::collection::vec;
use proptest::prelude::*;

use rejoin_proto::context::{ContextError, ContextKey, MAX_CONTEXT_BYTES, from_text, to_text};
use rejoin_proto::{ActorId, BucketId, Dot, DotSpan, ObjectId, TenantId, VersionVector};

use crate::support::{object_id, vector};

fn key() -> ContextKey {
    ContextKey::derive(1, b"a cluster's secret")
}

proptest! {
    #[test]
    fn a_sealed_vector_comes_back_for_its_key_only(
        dots in vec((any::<u64>(), 1..u64::MAX), 0..40),
        spans in vec((0..9u64, 0..90u64, 1..9u64), 0..9),
        own in vec(any::<u8>(), 1..64),
        other in vec(any::<u8>(), 1..64),
    ) {
        let dot = |(actor, counter)| Dot { actor: ActorId(actor), counter };
        let mut seen: VersionVector = dots.into_iter().map(dot).collect();
        for (actor, lo, length) in spans {
            seen.insert_span(DotSpan { actor: ActorId(actor), lo, hi: lo + length });
        }
        let id = ObjectId { key: own.clone().into(), ..object_id() };
        let token = key().seal(&id, &seen);
        prop_assert!(token.len() <= 18 + 20 + 20 * seen.len() + 30 * seen.cloud().len());
        prop_assert_eq!(key().open(&id, &token), Ok(seen));
        if own != other {
            let elsewhere = ObjectId { key: other.into(), ..object_id() };
            prop_assert_eq!(key().open(&elsewhere, &token), Err(ContextError::Foreign));
        }
    }

    #[test]
    fn an_altered_context_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut token = key().seal(&object_id(), &vector());
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        prop_assert!(key().open(&object_id(), &token).is_err());
    }

    #[test]
    fn bytes_made_up_are_refused(token in vec(any::<u8>(), 0..200)) {
        prop_assert!(key().open(&object_id(), &token).is_err());
    }

    #[test]
    fn the_text_form_is_safe_and_comes_back(token in vec(any::<u8>(), 0..200)) {
        let text = to_text(&token);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{}", text);
        prop_assert_eq!(from_text(&text), Ok(token));
    }
}

#[test]
fn another_tenant_bucket_secret_or_key_id_is_foreign() {
    let token = key().seal(&object_id(), &vector());
    let tenant = ObjectId { tenant: TenantId(1), ..object_id() };
    let bucket = ObjectId { bucket: BucketId(1), ..object_id() };
    for elsewhere in [tenant, bucket] {
        assert_eq!(key().open(&elsewhere, &token), Err(ContextError::Foreign));
    }
    for stranger in [ContextKey::derive(1, b"another secret"), ContextKey::derive(2, b"a cluster's secret")] {
        assert_eq!(stranger.open(&object_id(), &token), Err(ContextError::Foreign));
    }
}

#[test]
fn a_truncated_extended_or_oversized_context_is_refused() {
    let token = key().seal(&object_id(), &vector());
    for cut in 0..token.len() {
        assert!(key().open(&object_id(), &token[..cut]).is_err(), "cut to {cut}");
    }
    let longer = [token.as_slice(), &[0]].concat();
    assert_eq!(key().open(&object_id(), &longer), Err(ContextError::Foreign));
    assert_eq!(key().open(&object_id(), &vec![1; MAX_CONTEXT_BYTES + 1]), Err(ContextError::Malformed));
}

#[test]
fn a_text_with_padding_spaces_or_other_signs_is_no_context() {
    for text in ["AA==", "A A", "a+b/", "äöü", "A"] {
        assert_eq!(from_text(text), Err(ContextError::Malformed), "{text}");
    }
}

#[test]
fn the_key_does_not_show_in_its_debug_form() {
    assert_eq!(format!("{:?}", key()), "ContextKey(1)");
}
