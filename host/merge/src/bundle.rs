//! Merges of a cluster in one file, to be run again elsewhere: inputs, limits, what came of them, and the components.
//!
//! ```text
//! "rejoin merges\n" ‖ SHA-256 of the rest ‖ version ‖ postcard of a Bundle
//! ```

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::receipt::{MergeLimits, output_hash};
use rejoin_proto::{PluginDigest, ProfileId, client};

use crate::call::{Sibling, Usage};
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// What a file begins with.
const MAGIC: &[u8] = b"rejoin merges\n";
const HASH_BYTES: usize = 32;
/// The wall-clock limit of a merge that is run again. Only its fuel is to end it.
const WALL: Duration = Duration::from_secs(600);
/// The most siblings of a merge; more than any bucket allows.
const MAX_SIBLINGS: usize = 1024;

/// The merges of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bundle {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// The merges.
    pub merges: Vec<BundledMerge>,
    /// The components of their plugins.
    pub components: Vec<Bytes>,
}

impl Versioned for Bundle {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "bundle of merges";
}

/// One merge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BundledMerge {
    /// Where it comes from.
    pub source: MergeSource,
    /// By which plugin.
    pub plugin: PluginDigest,
    /// In which profile of the engine.
    pub profile: ProfileId,
    /// The inputs, in canonical order.
    pub siblings: Vec<client::Sibling>,
    /// Its limits.
    pub limits: MergeLimits,
    /// What came of it.
    pub outcome: BundledOutcome,
}

/// Where a merge comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MergeSource {
    /// A fold, by its receipt.
    Fold {
        /// The node that has folded.
        node: String,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// The fuel that it used; 0 if an equal merge was remembered.
        fuel_used: u64,
    },
    /// A merge that failed.
    Failure {
        /// The node.
        node: String,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// The siblings that the key had when the bundle was made.
    Siblings,
}

/// What came of a merge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum BundledOutcome {
    /// A value.
    Value {
        /// Its [`output_hash`].
        hash: [u8; 32],
        /// Its bytes.
        bytes: u32,
    },
    /// No value.
    Failed {
        /// Why, in one word. `None` if only the sentence is known.
        reason: Option<String>,
        /// Why, in a sentence.
        why: String,
    },
}

/// Why a file is no bundle that can be replayed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// It is something else.
    #[error("this is no bundle of merges: `rejoin conflict export` makes one")]
    Foreign,
    /// It was cut off or altered.
    #[error("the bundle is damaged: its checksum is wrong")]
    Damaged,
    /// It is of another release.
    #[error("the bundle cannot be read: {0}")]
    Unreadable(String),
}

/// A merge that was run again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// The value, or why there is none.
    pub result: Result<Bytes, MergeFault>,
    /// What it has used.
    pub used: Usage,
    /// Whether the value is the one before, or it fails for the same reason.
    pub is_same_result: bool,
    /// Whether it has used the fuel that it used before; true if that is not known.
    pub is_same_fuel: bool,
}

impl Replayed {
    /// Whether all is as it was. In one profile of the engine equal merges use equal fuel.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.is_same_result && self.is_same_fuel
    }
}

impl Bundle {
    /// The bytes of its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = codec::encode(self);
        [MAGIC, &Sha256::digest(&body)[..], &body].concat()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(BundleError::Foreign)?;
        let (hash, body) = rest.split_at_checked(HASH_BYTES).ok_or(BundleError::Damaged)?;
        if Sha256::digest(body)[..] != *hash {
            return Err(BundleError::Damaged);
        }
        codec::decode(body).map_err(|error| BundleError::Unreadable(error.to_string()))
    }
}

impl BundledMerge {
    /// The fuel that it used, if that is known: not of one that was answered from memory, and not of a failure.
    #[must_use]
    pub fn fuel_used(&self) -> Option<u64> {
        match &self.source {
            MergeSource::Fold { fuel_used, .. } => Some(*fuel_used).filter(|fuel| *fuel > 0),
            MergeSource::Failure { .. } | MergeSource::Siblings => None,
        }
    }

    /// Runs the merge again, with its limits.
    #[must_use]
    pub fn replay(&self, host: &Host, plugin: &Plugin, key: &[u8]) -> Replayed {
        let siblings: Vec<Sibling> = self.siblings.iter().map(Sibling::from).collect();
        let limits = CallLimits {
            fuel: self.limits.fuel,
            memory_bytes: self.limits.memory_bytes as usize,
            result_bytes: self.limits.result_bytes as usize,
            max_siblings: MAX_SIBLINGS,
            wall: WALL,
        };
        let (result, used) = host.merge_measured(plugin, key, &siblings, &limits);
        let result = result.map_err(|fault| host.attribute_fault(plugin, key, &siblings, &limits, fault));
        let is_same_result = match (&self.outcome, &result) {
            (BundledOutcome::Value { hash, .. }, Ok(value)) => output_hash(value) == *hash,
            (BundledOutcome::Failed { reason: Some(reason), .. }, Err(fault)) => reason == fault.reason(),
            (BundledOutcome::Failed { reason: None, why }, Err(fault)) => *why == fault.to_string(),
            _ => false,
        };
        let is_same_fuel = self.fuel_used().is_none_or(|before| before == used.fuel);
        Replayed { result, used, is_same_result, is_same_fuel }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let sibling = |writer| client::Sibling { value: Bytes::from_static(b"v"), stamp_ms: 1, writer };
        let merge = BundledMerge {
            source: MergeSource::Siblings,
            plugin: PluginDigest([1; 32]),
            profile: ProfileId(2),
            siblings: vec![sibling(1), sibling(2)],
            limits: MergeLimits { fuel: 3, memory_bytes: 4, result_bytes: 5 },
            outcome: BundledOutcome::Failed { reason: None, why: "it did".into() },
        };
        let components = vec![Bytes::from_static(b"a component")];
        Bundle { bucket: "cart".into(), key: "ann".into(), made_ms: 6, merges: vec![merge], components }
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written_and_nothing_else_is() {
        let bytes = bundle().to_bytes();
        assert_eq!(Bundle::parse(&bytes), Ok(bundle()));
        assert_eq!(Bundle::parse(b"{\"format\":1}"), Err(BundleError::Foreign));
        assert_eq!(Bundle::parse(&bytes[..20]), Err(BundleError::Damaged));
        for at in MAGIC.len()..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(Bundle::parse(&altered), Err(BundleError::Damaged), "byte {at}");
        }
        let newer = [&[9][..], &codec::encode(&bundle())[1..]].concat();
        let newer = [MAGIC, &Sha256::digest(&newer)[..], &newer].concat();
        assert!(matches!(Bundle::parse(&newer), Err(BundleError::Unreadable(_))));
    }
}
