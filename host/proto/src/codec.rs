//! The encoding of everything that is stored or sent: one version byte, then postcard.
//!
//! A struct is frozen once a release has written it: a change is a new version beside the old one. Decoding allocates
//! at most a small multiple of its input (a sequence reserves at most one element for each byte left, and never more
//! than 1 MiB at once). Bytes after the body are an error.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

/// A type with a frozen encoding.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version byte that is written, and the only one that is read.
    const VERSION: u8;
    /// The name of the type in error messages.
    const WHAT: &'static str;

    /// About how many bytes the encoding has. It begins with that room: a value that is larger than its room is copied
    /// each time that the room grows.
    fn size_hint(&self) -> usize {
        INITIAL_CAPACITY
    }
}

/// Why bytes could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input is empty.
    #[error("{what}: no bytes")]
    Empty {
        /// [`Versioned::WHAT`].
        what: &'static str,
    },
    /// The version byte is of another release.
    #[error("{what}: version {found} is not known here (this release reads version {expected})")]
    Version {
        /// [`Versioned::WHAT`].
        what: &'static str,
        /// The version byte of the input.
        found: u8,
        /// [`Versioned::VERSION`].
        expected: u8,
    },
    /// The body is cut off, altered, or of another type.
    #[error("{what}: the bytes are malformed")]
    Malformed {
        /// [`Versioned::WHAT`].
        what: &'static str,
    },
}

/// The initial capacity of an encoding. Most messages fit; growing to it from one byte would take eight allocations.
pub(crate) const INITIAL_CAPACITY: usize = 256;
/// The room of an encoding that is made on the stack first.
const STACK_BYTES: usize = 512;

/// Encodes a value with its version byte.
///
/// # Panics
/// Never for the types of this crate: they have no maps, no unknown lengths and no failing serialisers.
#[must_use]
pub fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.size_hint());
    write(value, &mut bytes);
    bytes
}

/// Encodes a value that is kept: a small encoding takes the memory of its bytes and no more.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn encode_bytes<T: Versioned>(value: &T) -> Bytes {
    if value.size_hint() > STACK_BYTES {
        return encode(value).into();
    }
    let mut bytes = SmallVec::<[u8; STACK_BYTES]>::new();
    write(value, &mut bytes);
    Bytes::copy_from_slice(&bytes)
}

/// Encodes a value behind what a buffer has.
///
/// # Panics
/// As [`encode`].
pub fn encode_into<T: Versioned>(value: &T, buffer: &mut BytesMut) {
    buffer.reserve(value.size_hint());
    write(value, buffer);
}

fn write<T: Versioned>(value: &T, to: &mut impl Buffer) {
    to.append(&[T::VERSION]);
    postcard::serialize_with_flavor(value, Growing(to)).expect("encoding into memory does not fail for these types");
}

/// Memory that grows.
trait Buffer {
    fn append(&mut self, bytes: &[u8]);
}

impl Buffer for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Buffer for SmallVec<[u8; STACK_BYTES]> {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Buffer for BytesMut {
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Whether these bytes are what [`encode`] makes of the value. Several inputs decode to one value, for a number may be
/// written with more bytes than it needs.
#[must_use]
pub(crate) fn is_encoding_of<T: Versioned>(bytes: &[u8], value: &T) -> bool {
    let Some((&version, body)) = bytes.split_first() else { return false };
    version == T::VERSION && postcard::serialize_with_flavor(value, Comparing(body)).is_ok_and(<[u8]>::is_empty)
}

/// Writes behind what a buffer has, and copies slices as a whole.
struct Growing<'a, B>(&'a mut B);

impl<B: Buffer> Flavor for Growing<'_, B> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.append(&[byte]);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.append(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Writes nothing, and fails where what would be written is not what is there. What is left is the output.
struct Comparing<'a>(&'a [u8]);

impl<'a> Flavor for Comparing<'a> {
    type Output = &'a [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<&'a [u8]> {
        Ok(self.0)
    }
}

/// Decodes a value with its version byte.
///
/// # Errors
/// [`DecodeError`] if the bytes are empty, of another version, malformed, or followed by more.
pub fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(body_of::<T>(bytes)?) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed { what: T::WHAT }),
    }
}

/// The bytes behind the version byte.
pub(crate) fn body_of<T: Versioned>(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty { what: T::WHAT }),
        Some((&version, body)) if version == T::VERSION => Ok(body),
        Some((&found, _)) => Err(DecodeError::Version { what: T::WHAT, found, expected: T::VERSION }),
    }
}
