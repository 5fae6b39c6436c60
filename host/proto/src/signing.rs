//! Keys and signatures of plugins, and what is known of where a plugin comes from.
//!
//! A signature is an Ed25519 one over [`signed_message`]: a text of its own, the tenant, and the digest of the
//! component. One that was made for a tenant is none for another tenant, and none for anything but a plugin.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hlc::Hlc;
use crate::id::{Name, PluginDigest};

/// The most keys that may sign the plugins of a tenant.
pub const MAX_SIGNERS: usize = 16;
/// The most bytes of [`Provenance::builder`].
pub const MAX_BUILDER_BYTES: usize = 256;

/// What a signed message begins with.
const CONTEXT: &[u8] = b"rejoin 2026 plugin signature\0";
/// What the text of a key begins with.
const KIND: &str = "ed25519:";

/// The public key of somebody who signs plugins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignerKey(pub [u8; 32]);

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KIND)?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({self})")
    }
}

impl core::str::FromStr for SignerKey {
    type Err = BadSignature;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(KIND).and_then(hex).map(Self).ok_or(BadSignature::Key)
    }
}

/// A signature, with the key that it was made with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginSignature {
    /// The key.
    pub signer: SignerKey,
    /// The halves of the signature.
    pub halves: ([u8; 32], [u8; 32]),
}

impl PluginSignature {
    /// The signature of those bytes.
    #[must_use]
    pub fn new(signer: SignerKey, bytes: &[u8; 64]) -> Self {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&bytes[..32]);
        second.copy_from_slice(&bytes[32..]);
        Self { signer, halves: (first, second) }
    }

    /// Its bytes, without the key.
    #[must_use]
    pub fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.halves.0);
        bytes[32..].copy_from_slice(&self.halves.1);
        bytes
    }
}

impl fmt::Display for PluginSignature {
    /// The key, a space, and the signature: the content of a signature file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.signer)?;
        write_hex(f, &self.bytes())
    }
}

impl fmt::Debug for PluginSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginSignature({self})")
    }
}

impl core::str::FromStr for PluginSignature {
    type Err = BadSignature;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (signer, signature) = text.trim().split_once(' ').ok_or(BadSignature::File)?;
        let bytes = hex(signature).ok_or(BadSignature::File)?;
        Ok(Self::new(signer.parse()?, &bytes))
    }
}

/// A text that is no key or no signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSignature {
    /// No public key.
    #[error("a public key is ed25519: and 64 hexadecimal digits, as `rejoin plugin keygen` writes it")]
    Key,
    /// No signature.
    #[error("a signature is a public key, a space and 128 hexadecimal digits, as `rejoin plugin sign` writes it")]
    File,
}

/// What is signed: that a tenant may take a component.
#[must_use]
pub fn signed_message(tenant: &Name, digest: &PluginDigest) -> Vec<u8> {
    let name = tenant.as_str().as_bytes();
    let mut message = CONTEXT.to_vec();
    // A name has 64 bytes at most. With its length before it, no two tenants and digests give the same bytes.
    message.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    message.extend_from_slice(name);
    message.extend_from_slice(&digest.0);
    message
}

/// A change of a tenant's signers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SignerChange {
    /// Plugins signed with the key are taken.
    Add(SignerKey),
    /// They are not any more.
    Remove(SignerKey),
}

/// Where a plugin comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// The token or certificate with which it was pushed first.
    pub pushed_by: Name,
    /// When.
    pub pushed: Hlc,
    /// The key that has signed it for the tenant. The node that took it has verified that.
    pub signer: Option<SignerKey>,
    /// What has built it, as the component itself says: nobody has verified that. At most [`MAX_BUILDER_BYTES`].
    pub builder: Option<String>,
}

impl Provenance {
    /// Whether it is within its bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.builder.as_ref().is_none_or(|builder| builder.len() <= MAX_BUILDER_BYTES)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The bytes of so many hexadecimal digits, exactly.
fn hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digits = text.as_bytes();
    // Parsing a number would also take a plus sign.
    if digits.len() != 2 * BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (slot, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *slot = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    #[test]
    fn keys_and_signatures_have_one_text() {
        let key = SignerKey([0xab; 32]);
        assert_eq!(key.to_string(), alloc::format!("ed25519:{}", "ab".repeat(32)));
        assert_eq!(key.to_string().parse(), Ok(key));
        let mut bytes = [7; 64];
        bytes[63] = 9;
        let signature = PluginSignature::new(key, &bytes);
        assert_eq!(signature.bytes(), bytes);
        assert_eq!(alloc::format!("{signature}\n").parse(), Ok(signature));
        for bad in ["", "ed25519:", "ab", &alloc::format!("ed25519:+{}", "a".repeat(63))] {
            assert_eq!(bad.parse::<SignerKey>(), Err(BadSignature::Key), "{bad}");
        }
        for bad in ["", "ed25519: ", &alloc::format!("{key} 00")] {
            assert_eq!(bad.parse::<PluginSignature>(), Err(BadSignature::File), "{bad}");
        }
    }

    #[test]
    fn a_message_is_of_one_tenant_and_one_component() {
        let digest = PluginDigest([1; 32]);
        let message = signed_message(&name("shop"), &digest);
        assert!(message.starts_with(b"rejoin 2026 plugin signature\0\x04shop"));
        assert_ne!(message, signed_message(&name("shop2"), &digest));
        assert_ne!(message, signed_message(&name("shop"), &PluginDigest([2; 32])));
    }
}
