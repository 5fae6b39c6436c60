//! An object together with its encoding.
//!
//! The row in the store, the record in the journal and the message to every owner hold the same bytes. They are made
//! once, and shared.

use core::ops::Deref;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::causal::NotCanonical;
use crate::codec::{self, DecodeError};
use crate::object::Object;

/// An object and the bytes that [`encode`](codec::encode) makes of it. In a message it is these bytes, with their
/// length in front of them.
///
/// A message with bytes that are no object is refused as a whole, and so are bytes that no node encodes: whoever takes
/// the object may keep them as its row, and equal objects are equal rows.
#[derive(Clone, Debug)]
pub struct EncodedObject {
    row: Bytes,
    object: Object,
}

impl EncodedObject {
    /// An object that was decoded from this row, or encoded to it.
    #[must_use]
    pub fn of(object: Object, row: Bytes) -> Self {
        debug_assert!(codec::is_encoding_of(&row, &object), "the row is another object's");
        Self { row, object }
    }

    /// Decodes a row that this node has stored. The values of the object are slices of it.
    ///
    /// # Errors
    /// As [`Object::of_row`].
    pub fn of_row(row: Bytes) -> Result<Self, DecodeError> {
        let object = Object::of_row(&row)?;
        Ok(Self { row, object })
    }

    /// The encoding.
    #[must_use]
    pub fn row(&self) -> &Bytes {
        &self.row
    }

    /// The object, without its encoding.
    #[must_use]
    pub fn into_object(self) -> Object {
        self.object
    }
}

impl From<Object> for EncodedObject {
    fn from(object: Object) -> Self {
        Self { row: codec::encode_bytes(&object), object }
    }
}

impl Deref for EncodedObject {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.object
    }
}

/// Equal rows are equal objects.
impl PartialEq for EncodedObject {
    fn eq(&self, other: &Self) -> bool {
        let is_shared = self.row.as_ptr() == other.row.as_ptr() && self.row.len() == other.row.len();
        is_shared || self.row == other.row
    }
}

impl Eq for EncodedObject {}

impl Serialize for EncodedObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.row)
    }
}

impl<'de> Deserialize<'de> for EncodedObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Copied, once: a slice would keep the whole chunk of the connection in memory, as long as the row is.
        let row = Bytes::deserialize(deserializer)?;
        let encoded = Self::of_row(row).map_err(D::Error::custom)?;
        if codec::is_encoding_of(&encoded.row, &encoded.object) {
            Ok(encoded)
        } else {
            Err(D::Error::custom(NotCanonical))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::{DotSet, DotSpan};
    use crate::codec::Versioned;
    use crate::hlc::Hlc;
    use crate::id::{ActorId, Dot, PluginDigest, ProfileId};
    use crate::object::{Content, Entry, FoldedBy};
    use alloc::vec::Vec;
    use bytes::BytesMut;

    /// What a message holds of an object.
    #[derive(Debug, Serialize, Deserialize)]
    struct Message(EncodedObject);

    impl Versioned for Message {
        const VERSION: u8 = 1;
        const WHAT: &'static str = "message";
    }

    fn objects() -> Vec<Object> {
        let dot = |counter| Dot { actor: ActorId(7), counter };
        let dots = |counter: u64| -> DotSet {
            [DotSpan { actor: ActorId(7), lo: counter - 1, hi: counter }].into_iter().collect()
        };
        let entry = |counter, content| Entry {
            dots: dots(counter),
            covers: dots(counter),
            content,
            stamp: Hlc(5 << 40),
            expires: Some(Hlc(9 << 40)),
            folded_by: Some(FoldedBy { plugin: PluginDigest([3; 32]), profile: ProfileId(4) }),
        };
        let value = |text: &[u8]| Content::Value(Bytes::copy_from_slice(text));
        let context: crate::causal::VersionVector = [dot(9)].into_iter().collect();
        let of = |entries| Object { context: context.clone(), entries };
        alloc::vec![
            Object::default(),
            of(Vec::new()),
            of(alloc::vec![entry(9, Content::Tombstone)]),
            of(alloc::vec![entry(8, value(b"")), entry(9, value(&[7; 5_000]))]),
        ]
    }

    #[test]
    fn an_object_travels_as_its_row_and_no_value_is_copied_out_of_it() {
        for object in objects() {
            let sent = Message(object.clone().into());
            assert_eq!(sent.0.row(), &codec::encode(&object));
            let bytes = codec::encode(&sent);
            assert_eq!(codec::encode_bytes(&sent), bytes);
            assert_eq!(&codec::encode_bytes(&object), sent.0.row());
            let mut buffer = BytesMut::from(&b"behind"[..]);
            codec::encode_into(&sent, &mut buffer);
            assert_eq!(buffer, [&b"behind"[..], &bytes].concat());
            assert!(bytes.ends_with(sent.0.row()), "the row as it is");
            let Message(got) = codec::decode(&bytes).expect("it is whole");
            assert_eq!((&*got, got.row()), (&object, sent.0.row()));
            assert_eq!(got, sent.0);
            let within = |value: &Bytes| got.row().as_ptr_range().contains(&value.as_ptr());
            for entry in &got.entries {
                assert!(!matches!(&entry.content, Content::Value(value) if !value.is_empty() && !within(value)));
            }
        }
    }

    #[test]
    fn a_row_is_read_as_an_object_is_whatever_is_done_to_it() {
        for row in objects().iter().map(codec::encode).filter(|row| row.len() < 200) {
            for at in 0..row.len() {
                let cut = Bytes::copy_from_slice(&row[..at]);
                assert_eq!(Object::of_row(&cut), codec::decode::<Object>(&cut), "{at} bytes");
                for bit in 0..8 {
                    let mut altered = row.clone();
                    altered[at] ^= 1 << bit;
                    let altered = Bytes::from(altered);
                    assert_eq!(Object::of_row(&altered), codec::decode::<Object>(&altered), "bit {bit} of byte {at}");
                }
            }
            let longer = Bytes::from([&row[..], &[0]].concat());
            assert_eq!(Object::of_row(&longer), Err(DecodeError::Malformed { what: "object" }), "trailing bytes");
        }
    }

    #[test]
    fn a_message_is_refused_with_an_object_that_is_damaged_cut_longer_or_written_otherwise() {
        let with = |row: &[u8]| {
            let mut bytes = alloc::vec![Message::VERSION];
            bytes.extend(postcard::to_allocvec(&row.len()).expect("a length"));
            bytes.extend_from_slice(row);
            codec::decode::<Message>(&bytes).map(|Message(encoded)| encoded.into_object())
        };
        let malformed = Err(DecodeError::Malformed { what: "message" });
        for object in objects() {
            let row = codec::encode(&object);
            assert_eq!(with(&row), Ok(object));
            assert_eq!(with(&row[..row.len() - 1]), malformed, "cut off");
            assert_eq!(with(&[&row[..], &[0]].concat()), malformed, "trailing bytes");
            assert_eq!(with(&[&[9][..], &row[1..]].concat()), malformed, "another version");
            // The number of actors, with a byte that it does not need.
            let otherwise = [&row[..1], &[row[1] | 0x80, 0], &row[2..]].concat();
            assert!(codec::decode::<Object>(&otherwise).is_ok(), "it is the same object");
            assert_eq!(with(&otherwise), malformed, "no node would encode it so");
        }
        assert_eq!(with(&[]), malformed);
    }

    #[test]
    fn a_count_of_entries_that_is_a_lie_reserves_no_more_than_the_bytes_could_hold() {
        let context = postcard::to_allocvec(&objects()[1].context).expect("a context");
        let count = postcard::to_allocvec(&u64::MAX).expect("a count");
        let row = Bytes::from([&[Object::VERSION][..], &context, &count, &[0; 40]].concat());
        assert_eq!(Object::of_row(&row), Err(DecodeError::Malformed { what: "object" }));
    }
}
