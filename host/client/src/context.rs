//! The context token of a read.

use std::fmt;
use std::str::FromStr;

use rejoin_proto::context::{from_text, to_text};

use crate::{Error, ErrorKind};

/// The writes to one key that a reader has seen. Pass it to the write that follows the read: the write then replaces
/// exactly those.
///
/// It is opaque, authenticated by the cluster and bound to its key; the context of another key is refused. Its text
/// form ([`Display`](fmt::Display), [`FromStr`]) is unpadded base64url, which is safe in headers, shells and file
/// names. At most 64 KiB, usually below 200 bytes.
///
/// ```
/// use rejoin_client::Context;
///
/// let context: Context = "AQEC_w".parse()?;
/// assert_eq!(context.to_string(), "AQEC_w");
/// assert!("not base64!".parse::<Context>().is_err());
/// # Ok::<(), rejoin_client::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Context(Vec<u8>);

impl Context {
    pub(crate) fn from_wire(token: impl Into<Vec<u8>>) -> Self {
        Self(token.into())
    }

    /// The bytes of the token.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A context from the bytes of [`Context::as_bytes`]. Only the node checks them.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(&self.0))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::BadContext`] if the text is not unpadded base64url.
    fn from_str(text: &str) -> Result<Self, Error> {
        from_text(text).map(Self).map_err(|why| Error::new(ErrorKind::BadContext, why.to_string()))
    }
}
