//! All encoded types: messages of clients and peers, records, layouts and stored objects.

use std::fmt::Debug;

use rejoin_core::causal::{self, Write};
use rejoin_core::control::Catalog;
use rejoin_proto::catalog::Record;
use rejoin_proto::client::{ClientHello, HelloReply, ReplyEnvelope, Request};
use rejoin_proto::codec::{self, DecodeError, Versioned};
use rejoin_proto::hash::partition_of;
use rejoin_proto::peer::{PeerEnvelope, PeerHello, PeerReady};
use rejoin_proto::{ActorId, Content, Dot, Hlc, Layout, NodeId, Object, ObjectId};
use rejoin_test_fuzz::corpus;

use crate::{fuzz, meter};

/// Bytes of memory per byte that came: the largest element of a sequence, and room to grow it.
const FACTOR: usize = 1024;
/// Bytes of memory whatever came.
const BASE: usize = 4096;

/// Decodes, and holds what is promised of every encoding: the right error, bounded memory, one shortest form, nothing
/// left over.
fn word<T: Versioned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let (decoded, held) = meter::peak(|| codec::decode::<T>(bytes));
    assert!(held <= FACTOR * bytes.len() + BASE, "{}: {held} bytes held for {} that came", T::WHAT, bytes.len());
    match decoded {
        Ok(value) => {
            let again = codec::encode(&value);
            assert!(again.len() <= bytes.len(), "{}: what is written is the shortest form", T::WHAT);
            assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
            assert_eq!(
                codec::decode::<T>(&again[..again.len() - 1]),
                Err(error::<T>(&again[..again.len() - 1])),
                "cut"
            );
            assert_eq!(
                codec::decode::<T>(&[&again[..], &[0]].concat()),
                Err(DecodeError::Malformed { what: T::WHAT }),
                "a byte too many"
            );
            Some(value)
        }
        Err(found) => {
            assert_eq!(found, error::<T>(bytes));
            None
        }
    }
}

/// The error of bytes that are no such thing.
fn error<T: Versioned>(bytes: &[u8]) -> DecodeError {
    match bytes.first() {
        None => DecodeError::Empty { what: T::WHAT },
        Some(&found) if found != T::VERSION => DecodeError::Version { what: T::WHAT, found, expected: T::VERSION },
        Some(_) => DecodeError::Malformed { what: T::WHAT },
    }
}

fn messages_property(bytes: &[u8]) {
    word::<ClientHello>(bytes);
    word::<HelloReply>(bytes);
    word::<Request>(bytes);
    word::<ReplyEnvelope>(bytes);
    word::<PeerHello>(bytes);
    word::<PeerReady>(bytes);
    word::<PeerEnvelope>(bytes);
    word::<Record>(bytes);
    word::<Catalog>(bytes);
    word::<Layout>(bytes).as_ref().map(look_ups_are_safe);
}

/// A layout that was checked can be asked anything.
fn look_ups_are_safe(layout: &Layout) {
    if layout.check().is_err() {
        return;
    }
    let partitions = layout.partitions();
    for hash in [0, 1, u128::MAX / 3, u128::MAX] {
        let partition = partition_of(hash, partitions);
        assert!(u32::from(partition.0) < partitions);
        assert!(
            (1..=5).contains(&layout.owners(partition, u8::MAX).count()) && layout.owners(partition, 1).count() == 1
        );
    }
    for node in &layout.nodes {
        assert_eq!(layout.node(node.id).map(|node| &node.name), Some(&node.name));
    }
    assert!(layout.node(NodeId(0)).is_none_or(|node| node.id == NodeId(0)));
}

fn objects_property(bytes: &[u8]) {
    let row = bytes.to_vec().into();
    assert_eq!(Object::of_row(&row), codec::decode::<Object>(bytes), "a row is read as any other encoding");
    let Some(object) = word::<Object>(bytes) else { return };
    let nothing = Object::default();
    // What comes in goes through the one join, whatever it is.
    let taken = causal::sync(&nothing, &object).0;
    assert_eq!(causal::sync(&taken, &taken).0, taken, "joined with itself it is the same");
    assert_eq!(causal::sync(&nothing, &taken).0, taken);
    assert_eq!(codec::decode::<Object>(&codec::encode(&taken)).as_ref(), Ok(&taken), "what is stored can be read");
    // A write that has seen all of it replaces all of it, and no copy brings anything back.
    let dot = Dot { actor: ActorId(0x5eed), counter: u64::MAX };
    if taken.context.contains(dot) {
        return;
    }
    let mut written = taken.clone();
    causal::put(
        &mut written,
        Write { seen: taken.context.clone(), dot, content: Content::Tombstone, stamp: Hlc(1), expires: None },
    );
    assert_eq!(written.entries.len(), 1, "a write with a full context leaves itself only");
    for earlier in [&taken, &object] {
        assert_eq!(causal::sync(&written, earlier).0, written, "what was replaced stays replaced");
        assert_eq!(causal::sync(earlier, &written).0, written, "on either side");
    }
    let id =
        ObjectId { tenant: rejoin_proto::TenantId(1), bucket: rejoin_proto::BucketId(2), key: bytes.to_vec().into() };
    assert_eq!(id.store_key().len(), 24 + bytes.len());
}

#[test]
fn messages() {
    fuzz("messages", corpus::fixtures(&["answer", "hello", "layout", "peer", "record", "request"]), messages_property);
}

#[test]
fn objects() {
    fuzz("objects", corpus::fixtures(&["object"]), objects_property);
}
