//! The control plane's records: tenants, buckets, plugins and tokens. Every node holds them all.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::hlc::Hlc;
use crate::id::{BucketId, Name, PluginDigest, TenantId};
use crate::layout::MAX_OWNERS;

/// The default limit of a value's bytes.
pub const DEFAULT_VALUE_BYTES: u32 = 1024 * 1024;
/// The limit that no bucket can raise: 16 MiB.
pub const MAX_VALUE_BYTES: u32 = 16 * 1024 * 1024;
/// An object may hold so many times the bytes of its bucket's largest value before a fold is forced.
const OBJECT_VALUES: usize = 4;
/// The most siblings that a bucket can allow.
pub const MAX_SIBLINGS: u16 = 256;
/// The default largest plugin component, 2 MiB.
pub const MAX_MODULE_BYTES: u64 = 2 * 1024 * 1024;

/// Bytes of inputs for which a call of a plugin has exactly the fuel that its bucket names.
pub const FUEL_BYTES: u64 = 2 * 1024 * 1024;
/// Beyond so many bytes the fuel does not grow: those of the largest object of a bucket with the defaults.
pub const MOST_FUEL_BYTES: u64 = OBJECT_VALUES as u64 * DEFAULT_VALUE_BYTES as u64;
/// The fuel that every call has, however small its inputs, unless its bucket names less.
pub const LEAST_FUEL: u64 = 250_000_000;

/// The most fuel that a bucket may name: the wall-clock limit that belongs to it ends what holds a merge thread within
/// minutes.
pub const MAX_FUEL: u64 = 10_000_000_000;

/// The fuel of a call with so many bytes of inputs, in a bucket that names so much: in proportion to the inputs, at
/// least [`LEAST_FUEL`] or what the bucket names, and at most twice that, for [`MOST_FUEL_BYTES`]. So a plugin that
/// loops is stopped soon, and a merge of the largest siblings can read them all.
#[must_use]
pub fn fuel_for(fuel: u64, bytes: usize) -> u64 {
    let bytes = (bytes as u64).min(MOST_FUEL_BYTES);
    let share = u128::from(fuel) * u128::from(bytes) / u128::from(FUEL_BYTES);
    u64::try_from(share).unwrap_or(u64::MAX).max(fuel.min(LEAST_FUEL))
}

/// How many answers are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Quorum {
    /// More than half of n.
    Majority,
    /// That many.
    Count(u8),
}

impl Quorum {
    /// The number for a bucket with `n` copies. Never more than `n`.
    #[must_use]
    pub fn of(self, n: u8) -> u8 {
        match self {
            Self::Majority => n / 2 + 1,
            Self::Count(count) => count.min(n),
        }
    }
}

/// What an acknowledgement promises of each replica that gave one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Durability {
    /// On the disk: it survives a loss of power.
    Fsync,
    /// With the operating system: it survives the end of the process, not that of the machine.
    Os,
}

/// A bucket's properties.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketProps {
    /// Copies of each object, 1 to 5.
    pub n: u8,
    /// Replicas that must answer a read.
    pub r: Quorum,
    /// Replicas that must acknowledge a write.
    pub w: Quorum,
    /// Of those that answer a read, how many must be owners.
    pub pr: Quorum,
    /// Of those that acknowledge a write, how many must be owners.
    pub pw: Quorum,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Whether other healthy nodes may stand in for owners that are away.
    pub sloppy: bool,
    /// The merge plugin; without one, readers get all siblings.
    pub plugin: Option<Activation>,
    /// The most bytes of a value.
    pub value_bytes: u32,
    /// The most siblings an object may collect before a fold is forced.
    pub siblings: u16,
    /// Fuel for one merge of [`FUEL_BYTES`]: roughly, WebAssembly instructions. Others have it in proportion, see
    /// [`fuel_for`].
    pub fuel: u64,
    /// Linear memory for one merge, in bytes.
    pub memory_bytes: u32,
    /// Milliseconds after which a value stops being visible, unless its writer said otherwise.
    pub ttl_ms: Option<u64>,
    /// Milliseconds during which nothing folds after a plugin has replaced another one.
    pub fold_delay_ms: u64,
}

/// Which plugin a bucket merges with, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activation {
    /// The component.
    pub plugin: PluginDigest,
    /// Whether its author says that its values carry their own causality, so that reads may fold at once.
    pub self_causal: bool,
    /// When it became the active one.
    pub since: Hlc,
    /// Whether it replaced another plugin (a bucket's first plugin folds at once).
    pub replaces: bool,
    /// Whether it has a validator, which is asked before every put.
    pub validates: bool,
}

impl Default for BucketProps {
    fn default() -> Self {
        Self {
            n: 3,
            r: Quorum::Majority,
            w: Quorum::Majority,
            pr: Quorum::Count(0),
            pw: Quorum::Count(0),
            durability: Durability::Fsync,
            sloppy: true,
            plugin: None,
            value_bytes: DEFAULT_VALUE_BYTES,
            siblings: 32,
            fuel: 5_000_000_000,
            memory_bytes: 64 * 1024 * 1024,
            ttl_ms: None,
            fold_delay_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// Why properties are refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{property} must be {allowed}")]
pub struct BadProps {
    /// Which property.
    pub property: &'static str,
    /// What it may be.
    pub allowed: String,
}

impl BucketProps {
    /// The most bytes that all values of an object may have before a fold is forced.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        OBJECT_VALUES * self.value_bytes as usize
    }

    /// Stands for the properties as the incarnation of a bucket that is made with them ([`BucketId::derive`]): nodes
    /// that make a bucket of one name with the same properties make the same bucket. When its plugin became the active
    /// one does not count.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        let plugin = self.plugin.map(|plugin| Activation { since: Hlc::default(), replaces: false, ..plugin });
        let props = Self { plugin, ..self.clone() };
        let bytes = postcard::to_allocvec(&props).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`BadProps`] names the property and what it may be.
    pub fn check(&self) -> Result<(), BadProps> {
        let bad = |property, allowed: String| Err(BadProps { property, allowed });
        if !(1..=MAX_OWNERS).contains(&usize::from(self.n)) {
            return bad("n", alloc::format!("1 to {MAX_OWNERS}"));
        }
        let counted = [("r", self.r, 1), ("w", self.w, 1), ("pr", self.pr, 0), ("pw", self.pw, 0)];
        for (property, quorum, least) in counted {
            if matches!(quorum, Quorum::Count(count) if count < least || count > self.n) {
                return bad(property, alloc::format!("{least} to n ({}), or quorum", self.n));
            }
        }
        if !(1..=MAX_VALUE_BYTES).contains(&self.value_bytes) {
            return bad("value_bytes", alloc::format!("1 to {MAX_VALUE_BYTES}"));
        }
        if !(2..=MAX_SIBLINGS).contains(&self.siblings) {
            return bad("siblings", alloc::format!("2 to {MAX_SIBLINGS}"));
        }
        if !(1..=MAX_FUEL).contains(&self.fuel) {
            return bad("fuel", alloc::format!("1 to {MAX_FUEL}"));
        }
        if self.memory_bytes < 64 * 1024 {
            return bad("memory_bytes", String::from("at least 65536"));
        }
        if self.ttl_ms == Some(0) {
            return bad("ttl", String::from("longer than nothing"));
        }
        Ok(())
    }

    /// Whether values may be folded at that wall time. Without an activation nothing folds, and for `fold_delay_ms`
    /// after one that replaced another plugin only the sibling limit makes it.
    #[must_use]
    pub fn folds_at_once(&self, now_ms: u64) -> bool {
        let settled = |a: &Activation| !a.replaces || now_ms >= a.since.ms().saturating_add(self.fold_delay_ms);
        self.plugin.as_ref().is_some_and(|a| a.self_causal && settled(a))
    }
}

/// What a token allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// Get, put and delete in the tenant's buckets.
    Data,
    /// Also the verbs of an operator.
    Admin,
}

/// A record's place in the catalog.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RecordKey {
    /// A tenant.
    Tenant(TenantId),
    /// A tenant's bucket, by name.
    Bucket(TenantId, Name),
    /// A plugin.
    Plugin(PluginDigest),
    /// A token, by name.
    Token(Name),
}

/// A record's content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecordBody {
    /// A tenant.
    Tenant {
        /// Its name.
        name: Name,
    },
    /// A bucket.
    Bucket {
        /// Its id, never reused.
        id: BucketId,
        /// Its properties.
        props: BucketProps,
    },
    /// A plugin that was pushed.
    Plugin {
        /// As its author calls it, or the file's name.
        name: Name,
        /// Its own version text.
        version: String,
        /// The component's size.
        bytes: u64,
        /// Whether its author says its values carry their own causality.
        self_causal: bool,
        /// Whether it has a validator.
        validates: bool,
    },
    /// A token. Only a hash of its secret is kept.
    Token {
        /// Whose buckets it opens.
        tenant: TenantId,
        /// What it allows.
        scope: Scope,
        /// BLAKE3 of the secret part.
        secret_hash: [u8; 32],
        /// Whether it was withdrawn.
        revoked: bool,
    },
}

/// One record. Of two records under one key the larger (version, hash of the body) wins, whoever made them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its place.
    pub key: RecordKey,
    /// Grows by one with each change, from 1.
    pub version: u64,
    /// When it was written, for people.
    pub stamp: Hlc,
    /// Its content.
    pub body: RecordBody,
}

impl Record {
    /// What decides between two records of one key: the version, then the hash of the whole record.
    #[must_use]
    pub fn rank(&self) -> (u64, u64) {
        (self.version, xxhash_rust::xxh3::xxh3_64(&crate::codec::encode(self)))
    }
}

impl Versioned for Record {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "catalog record";
}
