//! A bounded cache of results, so that a hot conflicted key is merged once and not at every read.
//!
//! Deterministic faults are cached like values. A call that the wall clock has stopped is not repeated for a while,
//! which doubles each time it happens again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use rejoin_proto::{PluginDigest, ProfileId};

use crate::call::{Merged, Sibling};
use crate::fault::MergeFault;
use crate::host::Host;
use crate::limits::CallLimits;
use crate::plugin::Plugin;

/// The pause before a call is repeated that the clock has stopped: the first time, and at the most.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);
/// The most calls in such a pause.
const TIMED_OUT_CALLS: usize = 1_024;

/// The function of the plugin that was called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Merge,
    Show,
    Validate,
}

/// The identity of a result: the plugin, the profile, and a hash of the inputs and the limits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MemoKey {
    kind: Kind,
    digest: PluginDigest,
    profile: ProfileId,
    inputs: [u8; 32],
}

type CallResult = Result<Merged, MergeFault>;

/// A call that the clock has stopped.
#[derive(Clone)]
struct TimedOutCall {
    fault: MergeFault,
    until: Instant,
    next: Duration,
}

/// Weighs an entry by the bytes of its value, its key and the bookkeeping.
#[derive(Clone)]
struct Bytes;

/// Bytes of an entry besides its value.
const ENTRY_BYTES: u64 = 192;

impl Weighter<MemoKey, CallResult> for Bytes {
    fn weight(&self, _key: &MemoKey, outcome: &CallResult) -> u64 {
        // A fault may carry a message of the plugin.
        ENTRY_BYTES + outcome.as_ref().map_or_else(|fault| fault.to_string().len(), |merged| merged.value.len()) as u64
    }
}

/// A bounded cache of merged and shown values and of deterministic faults, so that a looping plugin uses up its fuel
/// once.
pub struct Memo {
    cache: Cache<MemoKey, CallResult, Bytes>,
    timed_out: Cache<MemoKey, TimedOutCall>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo")
            .field("entries", &self.cache.len())
            .field("bytes", &self.cache.weight())
            .finish_non_exhaustive()
    }
}

impl Memo {
    /// A cache of at most `bytes`; 0 caches nothing.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / 1024).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let (cache, timed_out) = (Cache::with_weighter(entries, bytes, Bytes), Cache::new(TIMED_OUT_CALLS));
        Self { cache, timed_out, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// [`Host::merge`], or its cached result.
    ///
    /// # Errors
    /// As [`Host::merge`], with the sibling named that causes it ([`Host::attribute_fault`]).
    pub fn merge(
        &self,
        host: &Host,
        plugin: &Plugin,
        key: &[u8],
        siblings: &[Sibling],
        limits: &CallLimits,
    ) -> Result<Merged, MergeFault> {
        let name = MemoKey {
            kind: Kind::Merge,
            digest: plugin.digest(),
            profile: host.profile(),
            inputs: hash(key, siblings, limits),
        };
        let merge = || host.merge(plugin, key, siblings, limits);
        self.remembered(name, true, || {
            merge().map_err(|fault| host.attribute_fault(plugin, key, siblings, limits, fault))
        })
    }

    /// [`Host::show`], or its cached result.
    ///
    /// # Errors
    /// As [`Host::show`].
    pub fn show(
        &self,
        host: &Host,
        plugin: &Plugin,
        value: &bytes::Bytes,
        limits: &CallLimits,
    ) -> Result<bytes::Bytes, MergeFault> {
        let input = [Sibling { value: value.clone(), stamp_ms: 0, writer: 0 }];
        let name = MemoKey {
            kind: Kind::Show,
            digest: plugin.digest(),
            profile: host.profile(),
            inputs: hash(&[], &input, limits),
        };
        // Who pays asks `job_fuel`.
        let show = || host.show(plugin, value, limits).map(|shown| Merged { value: shown.into(), fuel_used: 0 });
        self.remembered(name, true, show).map(|shown| shown.value)
    }

    /// [`Host::validate`], or its cached fault. Good values are not cached: a value is rarely written twice.
    ///
    /// # Errors
    /// As [`Host::validate`].
    pub fn validate(
        &self,
        host: &Host,
        plugin: &Plugin,
        key: &[u8],
        value: &bytes::Bytes,
        limits: &CallLimits,
    ) -> Result<(), MergeFault> {
        let input = [Sibling { value: value.clone(), stamp_ms: 0, writer: 0 }];
        let name = MemoKey {
            kind: Kind::Validate,
            digest: plugin.digest(),
            profile: host.profile(),
            inputs: hash(key, &input, limits),
        };
        let good = Merged { value: bytes::Bytes::new(), fuel_used: 0 };
        self.remembered(name, false, || host.validate(plugin, key, value, limits).map(|()| good)).map(drop)
    }

    fn remembered(&self, name: MemoKey, values: bool, call: impl FnOnce() -> CallResult) -> CallResult {
        if let Some(outcome) = self.cache.get(&name) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return outcome;
        }
        let rested = self.timed_out.get(&name);
        if let Some(rest) = rested.as_ref().filter(|rest| Instant::now() < rest.until) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Err(rest.fault.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let outcome = call();
        match &outcome {
            Err(fault @ MergeFault::OutOfTime { .. }) => {
                let now = rested.map_or(FIRST_BACKOFF, |rest| rest.next);
                let rest = TimedOutCall {
                    fault: fault.clone(),
                    until: Instant::now() + now,
                    next: (now * 2).min(LONGEST_BACKOFF),
                };
                self.timed_out.insert(name, rest);
            }
            Err(fault) if !fault.is_deterministic() => {}
            Ok(_) if !values => {}
            // What is remembered costs nothing the next time.
            Ok(merged) => self.cache.insert(name, Ok(Merged { fuel_used: 0, ..merged.clone() })),
            Err(_) => self.cache.insert(name, outcome.clone()),
        }
        outcome
    }

    /// Lookups that hit and that missed since the start.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Bytes in use, counted as for the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// Every field has a fixed length or its length before it, so that no two inputs give the same bytes.
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
                kind: Kind::Merge,
                digest: PluginDigest([0; 32]),
                profile: ProfileId(0),
                inputs: hash(&number.to_le_bytes(), &[], &CallLimits::default()),
            };
            memo.cache.insert(name, Ok(Merged { value: vec![0; 1_000].into(), fuel_used: 1 }));
            assert!(memo.bytes() <= 64 << 10);
        }
        assert!(memo.bytes() > 0);
    }

    #[test]
    fn the_words_of_a_fault_count() {
        let memo = Memo::new(64 << 10);
        let fault = MergeFault::Panicked { message: "\\u{1b}".repeat(400) };
        let of = fault.to_string().len() as u64;
        for number in 0..100_u64 {
            let inputs = hash(&number.to_le_bytes(), &[], &CallLimits::default());
            let name = MemoKey { kind: Kind::Merge, digest: PluginDigest([0; 32]), profile: ProfileId(0), inputs };
            memo.cache.insert(name, Err(fault.clone()));
        }
        assert!(memo.cache.len() as u64 <= (64 << 10) / of, "{} faults of {of} bytes each", memo.cache.len());
        assert!(!memo.cache.is_empty());
    }
}
