//! Codecs between the values of a bucket and bytes. All readers and writers of a bucket, and its plugin, must use the
//! same.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes and decodes the values of a bucket.
///
/// ```
/// use rejoin_client::{Codec, CodecError};
///
/// /// Values are decimal numbers.
/// struct Decimal;
///
/// impl Codec for Decimal {
///     type Value = u64;
///     fn encode(value: &u64) -> Result<Vec<u8>, CodecError> {
///         Ok(value.to_string().into_bytes())
///     }
///     fn decode(bytes: &[u8]) -> Result<u64, CodecError> {
///         let text = std::str::from_utf8(bytes).map_err(CodecError::new)?;
///         text.parse().map_err(CodecError::new)
///     }
/// }
///
/// assert_eq!(Decimal::decode(&Decimal::encode(&42)?)?, 42);
/// assert!(Decimal::decode(b"forty-two").is_err());
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec: 'static {
    /// The application's type.
    type Value: Send + 'static;

    /// Encodes a value.
    ///
    /// # Errors
    /// [`CodecError`] if the value cannot be encoded.
    fn encode(value: &Self::Value) -> Result<Vec<u8>, CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not an encoded value.
    fn decode(bytes: &[u8]) -> Result<Self::Value, CodecError>;
}

/// A value that cannot be encoded, or bytes that cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// An error with that text.
    #[must_use]
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Values without encoding: `Vec<u8>`.
///
/// ```
/// use rejoin_client::{Bytes, Codec};
///
/// assert_eq!(Bytes::decode(b"raw")?, b"raw");
/// # Ok::<(), rejoin_client::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bytes;

impl Codec for Bytes {
    type Value = Vec<u8>;

    fn encode(value: &Vec<u8>) -> Result<Vec<u8>, CodecError> {
        Ok(value.clone())
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

/// Values as JSON, through serde.
///
/// ```
/// use rejoin_client::{Codec, Json};
///
/// type Tags = Json<Vec<String>>;
/// assert_eq!(Tags::encode(&vec!["new".to_string()])?, br#"["new"]"#);
/// # Ok::<(), rejoin_client::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Codec for Json<T> {
    type Value = T;

    fn encode(value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(CodecError::new)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

/// Values in the postcard format, through serde: compact, but not self-describing. Bytes after the value are refused.
///
/// ```
/// use rejoin_client::{Codec, Postcard};
///
/// assert_eq!(Postcard::<(u8, bool)>::decode(&[7, 1])?, (7, true));
/// assert!(Postcard::<(u8, bool)>::decode(&[7, 1, 0]).is_err());
/// # Ok::<(), rejoin_client::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Postcard<T>(PhantomData<fn() -> T>);

impl<T: Serialize + DeserializeOwned + Send + 'static> Codec for Postcard<T> {
    type Value = T;

    fn encode(value: &T) -> Result<Vec<u8>, CodecError> {
        postcard::to_allocvec(value).map_err(CodecError::new)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(CodecError(format!("{} bytes follow the value", rest.len()))),
            Err(why) => Err(CodecError::new(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_round_trips_and_refuses_garbage() {
        let value = vec![("a".to_string(), 1_u32), ("b".to_string(), 2)];
        type T = Vec<(String, u32)>;
        assert_eq!(Json::<T>::decode(&Json::<T>::encode(&value).unwrap()).unwrap(), value);
        assert_eq!(Postcard::<T>::decode(&Postcard::<T>::encode(&value).unwrap()).unwrap(), value);
        assert!(Json::<T>::decode(b"{]").is_err());
        assert!(Postcard::<T>::decode(&[255, 255]).is_err());
    }
}
