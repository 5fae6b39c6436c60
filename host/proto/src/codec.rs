//! The envelope around everything that is stored or sent: one version byte, then postcard.
//!
//! A struct is frozen once a version of it has been written: a change is a new version beside the old. Decoding takes
//! no more memory than a small multiple of what it was given (a sequence is only reserved for as many elements as there
//! are bytes left, and never for more than 1 MiB at once), and whatever is left over after the body is an error.

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type with a frozen encoding.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version that is written, and the only one that is read.
    const VERSION: u8;
    /// What it is, for error messages.
    const WHAT: &'static str;
}

/// Why bytes could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There was nothing.
    #[error("{what}: no bytes")]
    Empty {
        /// What was to be decoded.
        what: &'static str,
    },
    /// Written by another release.
    #[error("{what}: version {found} is not known here (this release reads version {expected})")]
    Version {
        /// What was to be decoded.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The version read by this release.
        expected: u8,
    },
    /// Cut off, altered, or not this kind of thing.
    #[error("{what}: the bytes are malformed")]
    Malformed {
        /// What was to be decoded.
        what: &'static str,
    },
}

/// Room that an encoding begins with: most messages and objects fit, and growing to it from one byte would take eight
/// allocations.
const ROOM: usize = 256;

/// Encodes a value in its envelope.
///
/// # Panics
/// Never for the types of this crate: they have no maps, no unknown lengths and no failing serialisers.
#[must_use]
pub fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.push(T::VERSION);
    postcard::to_extend(value, bytes).expect("encoding into memory does not fail for these types")
}

/// Decodes an envelope.
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
