//! Plugins on trial in a bucket: a *canary* merges a share of its keys, a *shadow* only shows what it would make.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::Activation;
use crate::client::Sibling;
use crate::hlc::Hlc;
use crate::id::{Name, PluginDigest};

/// The largest [`Canary::percent`]. All keys are merged by the bucket's plugin.
pub const MAX_CANARY_PERCENT: u8 = 99;
/// The largest [`Shadow::percent`].
pub const MAX_SHADOW_PERCENT: u8 = 100;

/// A plugin that merges a share of a bucket's keys in the place of the bucket's plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Canary {
    /// It replaces the bucket's plugin for those keys.
    pub plugin: Activation,
    /// The share of the keys: 1 to [`MAX_CANARY_PERCENT`].
    pub percent: u8,
}

/// A plugin that is run on what the bucket's plugin has merged. What it makes is compared, and never stored or read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shadow {
    /// The digest of its component.
    pub plugin: PluginDigest,
    /// Since when it is run.
    pub since: Hlc,
    /// The share of the keys for whose merges it is run: 1 to [`MAX_SHADOW_PERCENT`].
    pub percent: u8,
}

/// What has come of the merges that a shadow was to be run for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// Both plugins made the same bytes, or failed on what they were given.
    pub equal: u64,
    /// They made other bytes.
    pub different: u64,
    /// One of them failed.
    pub faulted: u64,
    /// The shadow was not run: too many merges waited for it, the tenant owed fuel, or the node had no time for it.
    pub skipped: u64,
}

impl ShadowCounts {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            equal: self.equal.saturating_add(other.equal),
            different: self.different.saturating_add(other.different),
            faulted: self.faulted.saturating_add(other.faulted),
            skipped: self.skipped.saturating_add(other.skipped),
        }
    }
}

/// A merge whose two results are not the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShadowSample {
    /// The key.
    pub key: Bytes,
    /// What both plugins were given.
    pub siblings: Vec<Sibling>,
    /// The plugin that merges the key.
    pub active: PluginDigest,
    /// What it made, or why nothing.
    pub made: Result<Bytes, String>,
    /// What the shadow made, or why nothing.
    pub shadow: Result<Bytes, String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What one node knows of a bucket's merges, since its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShadowReport {
    /// The node.
    pub node: Name,
    /// The shadow that the counts and samples are of. `None`: no merge of the bucket was compared.
    pub shadow: Option<PluginDigest>,
    /// What has come of the comparisons.
    pub counts: ShadowCounts,
    /// The latest merges whose results were not the same.
    pub samples: Vec<ShadowSample>,
    /// Keys of which siblings were merged lately.
    pub keys: Vec<Bytes>,
}
