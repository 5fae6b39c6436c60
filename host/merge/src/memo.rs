//! Remembers what merges gave, so that a hot conflicted key is merged once and not at every read.

use crate::call::{Merged, Sibling};
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rejoin_proto::{PluginDigest, ProfileId};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

/// What names a result: the plugin, the profile, and a hash of exactly what the plugin is given under which limits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MemoKey {
    digest: PluginDigest,
    profile: ProfileId,
    inputs: [u8; 32],
}

type Outcome = Result<Merged, MergeFault>;

/// Counts an entry's value and its key, and some for the bookkeeping.
#[derive(Clone)]
struct Bytes;

/// What an entry costs besides its value, in bytes.
const ENTRY_BYTES: u64 = 192;

impl Weighter<MemoKey, Outcome> for Bytes {
    fn weight(&self, _key: &MemoKey, outcome: &Outcome) -> u64 {
        ENTRY_BYTES + outcome.as_ref().map_or(0, |merged| merged.value.len() as u64)
    }
}

/// A bounded cache of merge results. Faults that every node would meet are remembered as well, so that a looping plugin burns its fuel once.
pub struct Memo {
    cache: Cache<MemoKey, Outcome, Bytes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("entries", &self.cache.len()).field("bytes", &self.cache.weight()).finish_non_exhaustive()
    }
}

impl Memo {
    /// A cache of that many bytes in all; 0 remembers nothing.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self { cache: Cache::with_weighter(entries, bytes, Bytes), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// [`Host::merge`], or what it gave last time.
    ///
    /// # Errors
    /// As [`Host::merge`].
    pub fn merge(&self, host: &Host, plugin: &Plugin, key: &[u8], siblings: &[Sibling], limits: &CallLimits) -> Result<Merged, MergeFault> {
        let name = MemoKey { digest: plugin.digest(), profile: host.profile(), inputs: hash(key, siblings, limits) };
        if let Some(outcome) = self.cache.get(&name) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return outcome;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let outcome = host.merge(plugin, key, siblings, limits);
        if outcome.as_ref().err().is_none_or(MergeFault::is_deterministic) {
            self.cache.insert(name, outcome.clone());
        }
        outcome
    }

    /// How many lookups found something, and how many did not, since the start.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Bytes in use, as they are counted against the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// Every field is preceded by its length or has a fixed one, so that no two inputs hash as one.
fn hash(key: &[u8], siblings: &[Sibling], limits: &CallLimits) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for limit in [limits.fuel, limits.memory_bytes as u64, limits.result_bytes as u64, limits.max_siblings as u64] {
        hasher.update(limit.to_le_bytes());
    }
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    for sibling in siblings {
        hasher.update(sibling.stamp_ms.to_le_bytes());
        hasher.update(sibling.writer.to_le_bytes());
        hasher.update((sibling.value.len() as u64).to_le_bytes());
        hasher.update(&sibling.value);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sibling(value: &'static str, stamp_ms: u64, writer: u64) -> Sibling {
        Sibling { value: value.into(), stamp_ms, writer }
    }

    #[test]
    fn every_input_counts() {
        let limits = CallLimits::default();
        let base = hash(b"k", &[sibling("a", 1, 1), sibling("b", 1, 1)], &limits);
        let others = [
            hash(b"j", &[sibling("a", 1, 1), sibling("b", 1, 1)], &limits),
            hash(b"ka", &[sibling("", 1, 1), sibling("b", 1, 1)], &limits),
            hash(b"k", &[sibling("b", 1, 1), sibling("a", 1, 1)], &limits),
            hash(b"k", &[sibling("a", 2, 1), sibling("b", 1, 1)], &limits),
            hash(b"k", &[sibling("a", 1, 2), sibling("b", 1, 1)], &limits),
            hash(b"k", &[sibling("ab", 1, 1)], &limits),
            hash(b"k", &[sibling("a", 1, 1), sibling("b", 1, 1)], &CallLimits { fuel: 1, ..limits }),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn the_bound_holds() {
        let memo = Memo::new(64 << 10);
        for number in 0..1_000_u64 {
            let name = MemoKey {
                digest: PluginDigest([0; 32]),
                profile: ProfileId(0),
                inputs: hash(&number.to_le_bytes(), &[], &CallLimits::default()),
            };
            memo.cache.insert(name, Ok(Merged { value: vec![0; 1_000].into(), fuel_used: 1 }));
            assert!(memo.bytes() <= 64 << 10);
        }
        assert!(memo.bytes() > 0);
    }
}
