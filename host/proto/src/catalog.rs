//! The records of the catalog: tenants, buckets, plugins and tokens. Every node holds all of them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::access::Grant;
use crate::codec::Versioned;
use crate::hlc::Hlc;
use crate::id::{BucketId, Name, PluginDigest, ProfileId, TenantId};
use crate::layout::MAX_OWNERS;
use crate::quota::Quota;
use crate::signing::{Provenance, SignerKey};
use crate::trial::{Canary, MAX_CANARY_PERCENT, MAX_SHADOW_PERCENT, Shadow};

/// The default of [`BucketProps::value_bytes`].
pub const DEFAULT_VALUE_BYTES: u32 = 1024 * 1024;
/// The largest [`BucketProps::value_bytes`]: 16 MiB.
pub const MAX_VALUE_BYTES: u32 = 16 * 1024 * 1024;
/// Before a fold is forced, an object may have this many times the bytes of its bucket's largest value.
const OBJECT_VALUES: usize = 4;
/// The largest [`BucketProps::siblings`].
pub const MAX_SIBLINGS: u16 = 256;
/// The default largest plugin component, 2 MiB.
pub const MAX_MODULE_BYTES: u64 = 2 * 1024 * 1024;

/// A call of a plugin with this many bytes of inputs gets exactly [`BucketProps::fuel`].
pub const FUEL_BYTES: u64 = 2 * 1024 * 1024;
/// The most bytes of the reason for a plugin's quarantine.
pub const MAX_QUARANTINE_BYTES: usize = 512;
/// The most transcripts of a plugin that are kept: the last ones. Nodes of two releases need two.
pub const MAX_TRANSCRIPTS: usize = 4;
/// The most times that the name of a deleted bucket or tenant is used again.
pub const MAX_PAST: usize = 32;
/// The largest [`BucketProps::fold_undo_ms`]: 90 days.
pub const MAX_FOLD_UNDO_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// The most earlier plugins of a bucket that are kept, to go back to.
pub const MAX_PAST_PLUGINS: usize = 100;

/// Fuel does not grow beyond this many bytes of inputs: the largest object of a bucket with the defaults.
pub const MOST_FUEL_BYTES: u64 = OBJECT_VALUES as u64 * DEFAULT_VALUE_BYTES as u64;
/// The least fuel of a call, however small its inputs, unless [`BucketProps::fuel`] is less.
pub const LEAST_FUEL: u64 = 250_000_000;

/// The largest [`BucketProps::fuel`]. The wall-clock limit that goes with it frees a merge thread within minutes.
pub const MAX_FUEL: u64 = 10_000_000_000;

/// The fuel of a call with `bytes` of inputs in a bucket with `fuel`: proportional to the inputs, at least the smaller
/// of [`LEAST_FUEL`] and `fuel`, and at most twice `fuel` ([`MOST_FUEL_BYTES`]). A plugin that loops is stopped soon,
/// and a merge of the largest siblings can read all of them.
#[must_use]
pub fn fuel_for(fuel: u64, bytes: usize) -> u64 {
    let bytes = (bytes as u64).min(MOST_FUEL_BYTES);
    let share = u128::from(fuel) * u128::from(bytes) / u128::from(FUEL_BYTES);
    u64::try_from(share).unwrap_or(u64::MAX).max(fuel.min(LEAST_FUEL))
}

/// The number of replicas that an operation waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Quorum {
    /// More than half of n.
    Majority,
    /// A fixed number.
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

/// What a replica promises when it acknowledges a write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Durability {
    /// The write is on the disk: it survives a loss of power.
    Fsync,
    /// The operating system has the write: it survives the end of the process, not that of the machine.
    Os,
}

/// The properties of a bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BucketProps {
    /// Copies of each object, 1 to 5. In a record those that the bucket was made with: what has become of them since is
    /// in the layouts ([`Layout::copies`](crate::Layout::copies)).
    pub n: u8,
    /// Replicas that must answer a read.
    pub r: Quorum,
    /// Replicas that must acknowledge a write.
    pub w: Quorum,
    /// Owners among the replicas that answer a read.
    pub pr: Quorum,
    /// Owners among the replicas that acknowledge a write.
    pub pw: Quorum,
    /// When a replica acknowledges a write.
    pub durability: Durability,
    /// Whether other healthy nodes stand in for owners that cannot take a write. They hand what they hold over to the
    /// owners later. In a record as with `n`.
    pub sloppy: bool,
    /// The merge plugin. Without one, readers get all siblings.
    pub plugin: Option<Activation>,
    /// The most bytes of a value.
    pub value_bytes: u32,
    /// The most siblings an object may collect before a fold is forced.
    pub siblings: u16,
    /// Fuel for one merge of [`FUEL_BYTES`], about one unit for each WebAssembly instruction. See [`fuel_for`] for
    /// other sizes.
    pub fuel: u64,
    /// Linear memory for one merge, in bytes.
    pub memory_bytes: u32,
    /// Milliseconds after which a value expires, unless its writer set another time. `None`: never.
    pub ttl_ms: Option<u64>,
    /// Milliseconds without folds after a plugin has replaced another one.
    pub fold_delay_ms: u64,
    /// Zones in which replicas must acknowledge a write, 1 to n.
    pub zones: u8,
    /// For how many milliseconds the receipt of a fold is kept, at most [`MAX_FOLD_UNDO_MS`]. 0: folds leave none.
    pub fold_undo_ms: u64,
    /// The plugin that merges a share of the keys in the place of `plugin`.
    pub canary: Option<Canary>,
    /// The plugin that is compared with the one that merges.
    pub shadow: Option<Shadow>,
}

/// The active plugin of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activation {
    /// The digest of its component.
    pub plugin: PluginDigest,
    /// Whether the plugin declares that its values carry their own causality, so that reads may fold at once.
    pub self_causal: bool,
    /// The time of its activation, or since when it has merged all the keys that it merges: a canary that grows gains
    /// keys, and the bucket's plugin gains those of a canary that shrinks or ends.
    pub since: Hlc,
    /// Whether it replaced another plugin, be it for some keys only (a bucket's first plugin folds at once).
    pub replaces: bool,
    /// Whether it has a validator, which is called before every put.
    pub validates: bool,
}

/// What a bucket's name belonged to before, and which plugins the bucket had.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct BucketPast {
    /// The buckets that had the name before, and are reaped; at most [`MAX_PAST`].
    pub buckets: Vec<BucketId>,
    /// The plugins that the bucket had before, the latest last; at most [`MAX_PAST_PLUGINS`].
    pub plugins: Vec<PastPlugin>,
}

impl BucketPast {
    /// Adds a plugin that was replaced at that time, and forgets the oldest ones if there are too many.
    pub fn replaced(&mut self, plugin: Option<Activation>, until: Hlc) {
        self.plugins.push(PastPlugin { plugin, until });
        let excess = self.plugins.len().saturating_sub(MAX_PAST_PLUGINS);
        self.plugins.drain(..excess);
    }

    /// Whether no list is longer than it may be.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.buckets.len() <= MAX_PAST && self.plugins.len() <= MAX_PAST_PLUGINS
    }
}

/// A plugin that a bucket had before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastPlugin {
    /// Its activation. `None`: the bucket had no plugin.
    pub plugin: Option<Activation>,
    /// When it was replaced.
    pub until: Hlc,
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
            zones: 1,
            fold_undo_ms: 7 * 24 * 60 * 60 * 1000,
            canary: None,
            shadow: None,
        }
    }
}

/// A property that is out of its bounds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{property} must be {allowed}")]
pub struct BadProps {
    /// The name of the property.
    pub property: &'static str,
    /// The allowed values, as text.
    pub allowed: String,
}

impl BucketProps {
    /// The most bytes that all values of an object may have before a fold is forced.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        OBJECT_VALUES * self.value_bytes as usize
    }

    /// The incarnation of a bucket that is made with these properties ([`BucketId::derive`]): nodes that make a bucket
    /// of one name with the same properties make the same bucket. The times of activations do not count.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        let timeless = |plugin| Activation { since: Hlc::default(), replaces: false, ..plugin };
        let canary = self.canary.map(|canary| Canary { plugin: timeless(canary.plugin), ..canary });
        let shadow = self.shadow.map(|shadow| Shadow { since: Hlc::default(), ..shadow });
        let props = Self { plugin: self.plugin.map(timeless), canary, shadow, ..self.clone() };
        let bytes = postcard::to_allocvec(&props).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// [`BadProps`] names the property and the allowed values.
    pub fn check(&self) -> Result<(), BadProps> {
        self.check_with(self.n)
    }

    /// Checks what holds whatever n has become of the one that the bucket was made with.
    ///
    /// # Errors
    /// As [`BucketProps::check`].
    pub fn check_record(&self) -> Result<(), BadProps> {
        self.check_with(MAX_OWNERS as u8)
    }

    /// Checks every bound, with quorums up to a number of copies.
    fn check_with(&self, copies: u8) -> Result<(), BadProps> {
        let bad = |property, allowed: String| Err(BadProps { property, allowed });
        if !(1..=MAX_OWNERS).contains(&usize::from(self.n)) {
            return bad("n", alloc::format!("1 to {MAX_OWNERS}"));
        }
        let counted = [("r", self.r, 1), ("w", self.w, 1), ("pr", self.pr, 0), ("pw", self.pw, 0)];
        for (property, quorum, least) in counted {
            if matches!(quorum, Quorum::Count(count) if count < least || count > copies) {
                return bad(property, alloc::format!("{least} to n ({copies}), or quorum"));
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
        if !(1..=copies).contains(&self.zones) {
            return bad("zones", alloc::format!("1 to n ({copies})"));
        }
        if self.ttl_ms == Some(0) {
            return bad("ttl", String::from("longer than nothing"));
        }
        if self.fold_undo_ms > MAX_FOLD_UNDO_MS {
            return bad("fold-undo", String::from("at most 90 days"));
        }
        if self.canary.is_some_and(|canary| !(1..=MAX_CANARY_PERCENT).contains(&canary.percent)) {
            return bad("the share of a canary", alloc::format!("1 to {MAX_CANARY_PERCENT} percent"));
        }
        if self.shadow.is_some_and(|shadow| !(1..=MAX_SHADOW_PERCENT).contains(&shadow.percent)) {
            return bad("the share of a shadow", alloc::format!("1 to {MAX_SHADOW_PERCENT} percent"));
        }
        Ok(())
    }

    /// Whether what that plugin of the bucket merges is stored at once, at that wall time. For `fold_delay_ms` after a
    /// plugin has replaced another one, only the sibling limit forces a fold.
    #[must_use]
    pub fn folds_at_once(&self, by: &Activation, now_ms: u64) -> bool {
        let settled = !by.replaces || now_ms >= by.since.ms().saturating_add(self.fold_delay_ms);
        by.self_causal && settled
    }

    /// The plugins that the bucket uses: the one that merges, the canary, and the shadow.
    pub fn plugins(&self) -> impl Iterator<Item = PluginDigest> {
        let active = self.plugin.map(|active| active.plugin);
        let canary = self.canary.map(|canary| canary.plugin.plugin);
        [active, canary, self.shadow.map(|shadow| shadow.plugin)].into_iter().flatten()
    }
}

/// The key of a record in the catalog.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RecordKey {
    /// A tenant.
    Tenant(TenantId),
    /// A bucket, by tenant and name.
    Bucket(TenantId, Name),
    /// A plugin of a tenant.
    Plugin(TenantId, PluginDigest),
    /// A token, by tenant and name.
    Token(TenantId, Name),
    /// The quota of a tenant, or of one of its buckets.
    Quota(TenantId, Option<BucketId>),
    /// The keys that may sign the plugins of a tenant.
    Signers(TenantId),
}

/// The content of a record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecordBody {
    /// A tenant.
    Tenant {
        /// The name from which the id is derived.
        name: Name,
    },
    /// A bucket.
    Bucket {
        /// Its id, never reused.
        id: BucketId,
        /// Its properties.
        props: BucketProps,
        /// What was before.
        past: BucketPast,
    },
    /// A plugin that was pushed.
    Plugin(Box<PluginRecord>),
    /// A token. Only hashes of its secrets are kept.
    Token {
        /// What it allows.
        grant: Grant,
        /// BLAKE3 of the secret part.
        secret_hash: [u8; 32],
        /// After a rotation: the secret before, which is taken for a while.
        before: Option<OldSecret>,
        /// A revoked token is refused.
        revoked: bool,
        /// Certificates of this name are refused, for good.
        barred: bool,
    },
    /// A bucket that was deleted. Its name can be used again once it is reaped, by a bucket of another id.
    DeletedBucket {
        /// Its id.
        id: BucketId,
        /// What it is restored with.
        props: BucketProps,
        /// As in [`RecordBody::Bucket`].
        past: BucketPast,
        /// How far it is gone.
        deleted: Deleted,
    },
    /// A tenant that was deleted, with all that it has. Its name can be used again once it is reaped, by a tenant of
    /// another id.
    DeletedTenant {
        /// Its name.
        name: Name,
        /// How far it is gone.
        deleted: Deleted,
    },
    /// A plugin that was deleted. Its module is kept until it is reaped, and it can be pushed again.
    DeletedPlugin {
        /// What it is restored with.
        plugin: Box<PluginRecord>,
        /// How far it is gone.
        deleted: Deleted,
    },
    /// A quota.
    Quota(Box<Quota>),
    /// The keys that may sign a tenant's plugins, in their order, at most
    /// [`MAX_SIGNERS`](crate::signing::MAX_SIGNERS). Without any its plugins need no signature.
    Signers(Vec<SignerKey>),
}

/// What is known of a plugin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PluginRecord {
    /// The name in its card, or that of its file.
    pub name: Name,
    /// The version in its card.
    pub version: String,
    /// The size of the component.
    pub bytes: u64,
    /// See [`Activation::self_causal`].
    pub self_causal: bool,
    /// See [`Activation::validates`].
    pub validates: bool,
    /// Why its merges are not run, if it was found to make different values of the same siblings. At most
    /// [`MAX_QUARANTINE_BYTES`].
    pub quarantined: Option<String>,
    /// The token of the operator who has pushed it without the laws being checked, if one has ever.
    pub unchecked: Option<Name>,
    /// What every node must get in a fixed run before it uses the plugin, one for each engine. At most
    /// [`MAX_TRANSCRIPTS`].
    pub transcripts: Vec<Transcript>,
    /// Where it comes from.
    pub provenance: Option<Box<Provenance>>,
}

/// What a plugin answers in a fixed run of calls, and what fuel they use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transcript {
    /// The engine.
    pub profile: ProfileId,
    /// The version of the list of calls.
    pub cases: u16,
    /// SHA-256 of the answers.
    pub hash: [u8; 32],
}

impl Transcript {
    /// Whether it is of the same engine and of the same calls as another one, so that the answers must be the same.
    #[must_use]
    pub fn is_comparable(&self, other: &Self) -> bool {
        (self.profile, self.cases) == (other.profile, other.cases)
    }

    /// The beginning of the hash, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hash.iter().take(6).map(|byte| alloc::format!("{byte:02x}")).collect()
    }
}

/// When what was deleted is reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// Until then it can be restored, in milliseconds since 1970.
    pub reap_ms: u64,
    /// Its objects are removed, or being removed.
    pub reaped: bool,
}

/// The secret that a token had before its rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OldSecret {
    /// BLAKE3 of the secret part.
    pub hash: [u8; 32],
    /// Until when it is taken, in milliseconds since 1970.
    pub until_ms: u64,
}

/// One record. Of two records with one key the larger by [`Record::rank`] wins, on all nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The key.
    pub key: RecordKey,
    /// Grows by one with each change, from 1.
    pub version: u64,
    /// The time of the change, for people.
    pub stamp: Hlc,
    /// The content.
    pub body: RecordBody,
}

impl Record {
    /// The record as it may leave the cluster: without the hashes of secrets.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        if let RecordBody::Token { secret_hash, before, .. } = &mut self.body {
            (*secret_hash, *before) = ([0; 32], None);
        }
        self
    }

    /// Decides between two records of one key: the version, then the hash of the whole record.
    #[must_use]
    pub fn rank(&self) -> (u64, u64) {
        (self.version, xxhash_rust::xxh3::xxh3_64(&crate::codec::encode(self)))
    }
}

impl Versioned for Record {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "catalog record";
}
