//! Decoding any bytes: no panic, no trailing bytes, and encoded values are restored.

use proptest::collection::vec;
use proptest::prelude::*;

use rejoin_proto::client::{ClientHello, HelloReply, ReplyEnvelope, Request};
use rejoin_proto::codec::{self, DecodeError, Versioned};
use rejoin_proto::peer::{PeerEnvelope, PeerHello, PeerReady};
use rejoin_proto::{Layout, Object, catalog::Record};

use crate::support::{self, Sample, again, samples};

/// Bytes that decode must be the encoding of the decoded value: each value has one encoding.
fn is_stable<T: Versioned>(bytes: &[u8]) {
    if let Ok(written) = again::<T>(bytes) {
        assert_eq!(again::<T>(&written).as_deref(), Ok(written.as_slice()), "{}", T::WHAT);
    }
}

fn try_all(bytes: &[u8]) {
    is_stable::<Object>(bytes);
    is_stable::<Record>(bytes);
    is_stable::<Layout>(bytes);
    is_stable::<ClientHello>(bytes);
    is_stable::<HelloReply>(bytes);
    is_stable::<Request>(bytes);
    is_stable::<ReplyEnvelope>(bytes);
    is_stable::<PeerHello>(bytes);
    is_stable::<PeerReady>(bytes);
    is_stable::<PeerEnvelope>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..400)) {
        try_all(&[&[1], body.as_slice()].concat());
        try_all(&body);
    }

    /// Small bytes reach deeper: they are the tags, flags and lengths of real messages.
    #[test]
    fn plausible_bytes_never_panic(body in vec(0u8..6, 0..200)) {
        try_all(&[&[1], body.as_slice()].concat());
    }

    #[test]
    fn altered_messages_never_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let all = samples();
        let Sample { mut bytes, again, .. } = all.into_iter().nth(which.index(samples().len())).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = again(&bytes);
        try_all(&bytes);
    }
}

#[test]
fn a_message_that_is_cut_anywhere_or_followed_by_more_is_refused() {
    for Sample { name, bytes, again } in samples() {
        for cut in 0..bytes.len() {
            assert!(again(&bytes[..cut]).is_err(), "{name} cut to {cut} of {} bytes", bytes.len());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(again(&longer), Err(DecodeError::Malformed { .. })), "{name} with a byte too many");
    }
}

#[test]
fn another_version_is_named_and_nothing_is_an_error() {
    assert_eq!(codec::decode::<Object>(&[]), Err(DecodeError::Empty { what: "object" }));
    let error = codec::decode::<Object>(&[2, 0, 0]).unwrap_err();
    assert_eq!(error, DecodeError::Version { what: "object", found: 2, expected: 1 });
    assert!(error.to_string().contains("version 2 is not known here"), "{error}");
}

#[test]
fn sets_out_of_order_are_refused_inside_messages_too() {
    // A context of two actors, the larger one first; then the same in order.
    assert!(codec::decode::<Object>(&[1, 2, 9, 1, 3, 1, 0, 0]).is_err());
    assert!(codec::decode::<Object>(&[1, 2, 3, 1, 9, 1, 0, 0]).is_ok());
    // A cloud that begins where its actor's counter is, and one above it.
    assert!(codec::decode::<Object>(&[1, 1, 3, 5, 1, 3, 5, 6, 0]).is_err());
    assert!(codec::decode::<Object>(&[1, 1, 3, 5, 1, 3, 6, 7, 0]).is_ok());
    // An entry whose only span is empty: (5, 5].
    assert!(codec::decode::<Object>(&[1, 1, 3, 5, 0, 1, 1, 3, 5, 5, 0, 0, 0, 0, 0]).is_err());
    assert!(codec::decode::<Object>(&[1, 1, 3, 5, 0, 1, 1, 3, 4, 5, 0, 0, 0, 0, 0]).is_ok());
}

#[test]
fn an_objects_id_with_a_key_out_of_bounds_is_refused() {
    let read = |length: usize| {
        let object = rejoin_proto::ObjectId { key: vec![7; length].into(), ..support::object_id() };
        let op = rejoin_proto::peer::OpId { shard: 0, number: 1 };
        let body = rejoin_proto::peer::PeerBody::Read { op, object, as_fallback: false, digest: None };
        codec::decode::<PeerEnvelope>(&codec::encode(&PeerEnvelope { layout: support::layout_ref(), trace: 0, body }))
    };
    assert!(read(1).is_ok() && read(1024).is_ok());
    assert!(read(0).is_err() && read(1025).is_err());
}

/// No write could ever replace such an entry: it would return from every replica.
#[test]
fn an_entry_without_a_write_or_with_one_that_the_context_has_not_seen_is_refused() {
    let altered = |change: fn(&mut Object)| {
        let mut object = support::object();
        change(&mut object);
        codec::decode::<Object>(&codec::encode(&object))
    };
    assert_eq!(altered(|_| {}), Ok(support::object()));
    assert!(altered(|object| object.entries[1].dots = support::runs(&[])).is_err());
    assert!(altered(|object| object.entries[1].dots = support::runs(&[(3, 299, 301)])).is_err());
    assert!(altered(|object| object.context = Default::default()).is_err());
    // A cloud that has seen the end of a span and not its beginning.
    assert!(altered(|object| object.entries[1].dots = support::runs(&[(3, 299, 307)])).is_err());
    assert!(altered(|object| object.entries[1].dots = support::runs(&[(3, 305, 307)])).is_ok());
}

#[test]
fn an_object_costs_its_values_and_a_bounded_head() {
    let object = support::object();
    let values: usize = object.entries.iter().map(|entry| entry.content.len()).sum();
    let spans: usize = object.entries.iter().map(|entry| entry.dots.spans().len() + entry.covers.spans().len()).sum();
    // Per actor two varints of at most 10 bytes, per span three; per entry tags, lengths, two stamps and a plugin.
    let spans = spans + object.context.cloud().len();
    let bound = 1 + 20 + object.context.len() * 20 + spans * 30 + object.entries.len() * 100 + values;
    let bytes = codec::encode(&object).len();
    assert!(bytes <= bound, "{bytes} bytes, at most {bound} expected");
}
