//! Identifiers. Each is a newtype, so that the compiler tells them apart.

use alloc::sync::Arc;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Implements `Display` and `Debug` as fixed-width lower-case hexadecimal, and `FromStr` for the same form.
macro_rules! hex_id {
    ($name:ident, $inner:ty, $digits:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:0", $digits, "x})"), self.0)
            }
        }
        impl core::str::FromStr for $name {
            type Err = core::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$inner>::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

/// A cluster: 128 random bits drawn when its certificate authority is made. Part of every certificate and data
/// directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);
hex_id!(ClusterId, u128, "32");

/// A node, derived from the name in its certificate (see [`NodeId::from_name`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);
hex_id!(NodeId, u64, "16");

impl NodeId {
    /// The id of the node of that name: the first eight bytes of a keyed BLAKE3 hash, equal on all nodes.
    #[must_use]
    pub fn from_name(name: &Name) -> Self {
        let hash = blake3::derive_key("rejoin 2026 node id", name.as_str().as_bytes());
        Self(first_u64(&hash))
    }
}

/// The first eight bytes of a hash as an integer.
fn first_u64(hash: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(word)
}

/// An actor mints the dots of one partition on one node, for one tenure: 64 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId(pub u64);
hex_id!(ActorId, u64, "16");

/// One write: the actor that coordinated it and that actor's counter, which only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Dot {
    /// The actor that minted it.
    pub actor: ActorId,
    /// From 1.
    pub counter: u64,
}

/// One of the Q equal arcs of the hash space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partitions that it becomes when there are 2^`more` times as many, in their order: the leading bits of a hash
    /// are those of its partition, so each is a part of it.
    pub fn parts(self, more: u8) -> impl Iterator<Item = Self> {
        let first = u32::from(self.0) << more;
        (first..first + (1 << more)).filter_map(|part| u16::try_from(part).ok()).map(Self)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A tenant, derived from its name (see [`TenantId::from_name`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantId(pub u64);
hex_id!(TenantId, u64, "16");

impl TenantId {
    /// The id of the tenant of that name.
    #[must_use]
    pub fn from_name(name: &Name) -> Self {
        let hash = blake3::derive_key("rejoin 2026 tenant id", name.as_str().as_bytes());
        Self(first_u64(&hash))
    }

    /// The id of an incarnation of the tenant of that name: one that was deleted and reaped keeps its id for ever, and
    /// the next of its name has another one. The first is 0, and has the id of [`TenantId::from_name`].
    #[must_use]
    pub fn of_incarnation(name: &Name, incarnation: u8) -> Self {
        if incarnation == 0 {
            return Self::from_name(name);
        }
        let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 tenant id");
        hasher.update(name.as_str().as_bytes());
        // The zero byte marks the end of the name: no name contains it.
        hasher.update(&[0, incarnation]);
        Self(first_u64(hasher.finalize().as_bytes()))
    }
}

/// A bucket. The upper half, its *place*, is derived from tenant and name: keys are placed by it, so that a client
/// finds the owners by the name alone. The lower half also depends on the incarnation, so that two buckets made in a
/// race under one name have different ids, and never share data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId(pub u64);
hex_id!(BucketId, u64, "16");

impl BucketId {
    /// The id of an incarnation of the bucket of that name.
    #[must_use]
    pub fn derive(tenant: TenantId, name: &Name, incarnation: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 bucket id");
        hasher.update(&tenant.0.to_le_bytes());
        hasher.update(name.as_str().as_bytes());
        let place = first_u64(hasher.finalize().as_bytes());
        // The zero byte marks the end of the name: no name contains it.
        hasher.update(&[0]);
        hasher.update(&incarnation.to_le_bytes());
        let own = first_u64(hasher.finalize().as_bytes());
        Self(place & !u64::from(u32::MAX) | own & u64::from(u32::MAX))
    }

    /// The upper half, by which keys are placed. The same for all incarnations.
    #[must_use]
    pub const fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One write of a client. A retry with the same id is idempotent at the same coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);
hex_id!(RequestId, u128, "32");

/// The SHA-256 of a plugin's component.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PluginDigest(pub [u8; 32]);

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginDigest({self})")
    }
}

impl core::str::FromStr for PluginDigest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        // Parsing a number would also take a plus sign.
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadDigest);
        }
        let mut digest = [0; 32];
        for (slot, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let pair = core::str::from_utf8(pair).map_err(|_| BadDigest)?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| BadDigest)?;
        }
        Ok(Self(digest))
    }
}

/// A text that is not a SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a plugin digest is 64 hexadecimal digits (the SHA-256 of the component)")]
pub struct BadDigest;

/// The engine that ran a plugin: its version, configuration and fuel table. The same plugin under the same profile
/// gives the same result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProfileId(pub u64);
hex_id!(ProfileId, u64, "16");

/// The most bytes a [`Name`] may have.
pub const MAX_NAME_BYTES: usize = 64;

/// The name of a tenant, bucket, node, zone, token or plugin: 1 to 64 bytes of `a-z A-Z 0-9 . _ -`, beginning with a
/// letter or digit, so that it is safe in a shell, a file name, a certificate and a metric label.
///
/// A clone shares the text: names go from request to reply and message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadName`] if the text is empty, too long, or has a character outside the set.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
        let text = text.as_ref();
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if starts_well && text.len() <= MAX_NAME_BYTES && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(BadName)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl core::str::FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A text that is not a [`Name`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a name is 1 to 64 of a-z A-Z 0-9 . _ - and begins with a letter or digit")]
pub struct BadName;
