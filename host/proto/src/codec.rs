//! The encoding of everything that is stored or sent: one version byte, then postcard.
//!
//! A struct is frozen once a release has written it: a change is a new version beside the old one. Decoding allocates
//! at most a small multiple of its input (a sequence reserves at most one element for each byte left, and never more
//! than 1 MiB at once). Bytes after the body are an error.

use alloc::vec::Vec;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type with a frozen encoding.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version byte that is written, and the only one that is read.
    const VERSION: u8;
    /// The name of the type in error messages.
    const WHAT: &'static str;
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

/// The initial capacity of an encoding. Most messages and objects fit; growing to it from one byte would take eight
/// allocations.
const INITIAL_CAPACITY: usize = 256;

/// Encodes a value with its version byte.
///
/// # Panics
/// Never for the types of this crate: they have no maps, no unknown lengths and no failing serialisers.
#[must_use]
pub fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(INITIAL_CAPACITY);
    bytes.push(T::VERSION);
    postcard::serialize_with_flavor(value, Growing(bytes)).expect("encoding into memory does not fail for these types")
}

/// Writes behind what a vector has, and copies slices as a whole.
struct Growing(Vec<u8>);

impl Flavor for Growing {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Decodes a value with its version byte.
///
/// # Errors
/// [`DecodeError`] if the bytes are empty, of another version, malformed, or followed by more.
pub fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty { what: T::WHAT })?;
    if version != T::VERSION {
        return Err(DecodeError::Version { what: T::WHAT, found: version, expected: T::VERSION });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed { what: T::WHAT }),
    }
}
