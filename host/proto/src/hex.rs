//! Bytes as hexadecimal digits.

use alloc::string::String;
use core::fmt::Write as _;

/// Two lower-case digits for each byte.
///
/// ```
/// assert_eq!(rejoin_proto::hex::hex(&[0, 0x1f, 0xa0]), "001fa0");
/// ```
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
