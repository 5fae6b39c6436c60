//! The limit of a key.

use rejoin_proto::hash::MAX_KEY_BYTES;

use crate::{Error, ErrorKind, Result};

/// Refuses a key that no node would take, before anything is sent.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() <= MAX_KEY_BYTES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!("the key has {} bytes, at most {MAX_KEY_BYTES} are possible: use a hash of it", key.len()),
    ))
}
