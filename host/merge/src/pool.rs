//! The merge threads and the memo they share. All calls of plugins run here and never on a thread that serves requests.
//!
//! Each tenant gets a share of the threads and of the queue ([`PoolConfig`]), and each bucket a share of its tenant's,
//! so that a tenant or a bucket with slow or many merges does not delay others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::call::{Merged, Sibling};
use crate::fault::{HostError, MergeFault, QueueOf};
use crate::host::Host;
use crate::job_fuel::JobFuel;
use crate::limits::CallLimits;
use crate::memo::Memo;
use crate::operate::OperationDot;
use crate::plugin::Plugin;
use crate::sampled::{SampledLaws, SampledMerge};
use crate::workers::{QueueFull, STOPPED, TenantShare, Whose, WorkerLimits, Workers};

/// The most waiting jobs of the thread for what nobody waits for.
const BACKGROUND_QUEUE: usize = 64;
/// The most of them of one tenant.
const BACKGROUND_TENANT_QUEUE: usize = 16;
/// The most bytes of merges that wait to be checked again, or are being checked. A merge that alone has more is checked
/// by itself.
const BACKGROUND_BYTES: usize = 16 << 20;

/// The sizes of a [`Pool`], and the shares of one tenant and of one bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Merge threads; at least one.
    pub threads: usize,
    /// The most waiting jobs; at least one. Above it jobs are refused.
    pub queue: usize,
    /// The most threads of one tenant at once; at least one. Of several threads one is always left to other tenants.
    pub tenant_threads: usize,
    /// The most waiting jobs of one tenant; at least one.
    pub tenant_queue: usize,
    /// The most threads of one bucket at once; at least one. Of several threads of a tenant one is always left to its
    /// other buckets.
    pub bucket_threads: usize,
    /// The most waiting jobs of one bucket; at least one.
    pub bucket_queue: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(4, |cores| cores.get().clamp(4, 16));
        let (tenant_threads, bucket_threads) = (threads - 1, threads - 2);
        Self { threads, queue: 1_024, tenant_threads, tenant_queue: 512, bucket_threads, bucket_queue: 256 }
    }
}

/// The queue, or the tenant's or bucket's share of it, is full. The caller keeps its siblings and may try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{waiting} merges{of} are waiting already; the siblings are kept")]
pub struct Overloaded {
    /// The most waiting jobs.
    pub waiting: usize,
    /// Whose share it is that is full.
    pub of: QueueOf,
}

impl From<QueueFull> for Overloaded {
    fn from(full: QueueFull) -> Self {
        Self { waiting: full.limit, of: full.of }
    }
}

/// A merge is not checked again: as many wait for it as may, or they hold as many bytes as they may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many merges wait to be checked again, or too large ones")]
pub struct TooManyChecks;

/// The bytes of the merges that are to be checked again.
#[derive(Clone, Default, Debug)]
struct CheckedBytes(Arc<AtomicUsize>);

impl CheckedBytes {
    /// Takes room for a merge; `None` if there is not enough.
    fn hold(&self, bytes: usize) -> Option<HeldBytes> {
        let add = |held: usize| {
            let all = held.saturating_add(bytes);
            (held == 0 || all <= BACKGROUND_BYTES).then_some(all)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(HeldBytes { of: self.clone(), bytes })
    }
}

/// Room that a merge takes until this is dropped: it was checked, or never will be.
struct HeldBytes {
    of: CheckedBytes,
    bytes: usize,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The merge threads and their memo. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Pool {
    host: Host,
    memo: Arc<Memo>,
    /// `None` runs every job on the caller: for simulations and tests, where threads would decide the order.
    workers: Option<Workers>,
    /// The thread for what nobody waits for.
    background: Option<Workers>,
    checked_bytes: CheckedBytes,
}

/// A call of a plugin for a bucket.
#[derive(Clone, Debug)]
pub struct PluginCall {
    /// The bucket whose share of the pool it uses.
    pub bucket: u64,
    /// The bucket's tenant, whose share it uses too.
    pub tenant: TenantShare,
    /// The plugin to call.
    pub plugin: Plugin,
    /// The limits of the call.
    pub limits: CallLimits,
    /// Whether the plugin is called though the memo may have the result of a merge. The result is not memoised then.
    pub fresh: bool,
}

impl PluginCall {
    fn whose(&self) -> Whose {
        Whose { tenant: self.tenant, group: self.bucket }
    }
}

impl Pool {
    /// Starts the threads. They end with the last clone.
    ///
    /// # Errors
    /// [`HostError::Thread`] if one cannot be started.
    pub fn new(host: Host, memo: Memo, config: PoolConfig) -> Result<Self, HostError> {
        let threads = config.threads.max(1);
        let limits = WorkerLimits {
            threads,
            queue: config.queue,
            tenant_threads: config.tenant_threads.min(threads.saturating_sub(1)),
            tenant_queue: config.tenant_queue,
            group_threads: config.bucket_threads,
            group_queue: config.bucket_queue,
        };
        let one = WorkerLimits {
            threads: 1,
            queue: BACKGROUND_QUEUE,
            tenant_threads: 1,
            tenant_queue: BACKGROUND_TENANT_QUEUE,
            group_threads: 1,
            group_queue: BACKGROUND_TENANT_QUEUE,
        };
        let (workers, background) = (Workers::new("merge", limits)?, Workers::in_background("again", one)?);
        Ok(Self { workers: Some(workers), background: Some(background), ..Self::inline(host, memo) })
    }

    /// A pool without threads: every job runs on the caller, and `done` is called before the method returns.
    #[must_use]
    pub fn inline(host: Host, memo: Memo) -> Self {
        Self { host, memo: Arc::new(memo), workers: None, background: None, checked_bytes: CheckedBytes::default() }
    }

    /// Merges siblings, or returns the memoised result.
    ///
    /// If `wanted` returns false when the job's turn comes, the merge does not run and fails with
    /// [`MergeFault::TooLate`]: a long queue must not be worked off for requests that have ended. `done` is called
    /// exactly once, on a merge thread (or on the caller, if the pool is inline or stops), unless the queue is full.
    ///
    /// # Errors
    /// [`Overloaded`] if the queue or the tenant's or bucket's share of it is full; `done` is then dropped uncalled.
    pub fn merge(
        &self,
        call: PluginCall,
        key: Bytes,
        siblings: Vec<Sibling>,
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo, whose) = (self.host.clone(), self.memo.clone(), call.whose());
        let work = move || match wanted() {
            true if call.fresh => host.merge(&call.plugin, &key, &siblings, &call.limits),
            true => memo.merge(&host, &call.plugin, &key, &siblings, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(whose, work, done)
    }

    /// Shows a value to people, or returns the memoised result; otherwise as [`Pool::merge`].
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn show(
        &self,
        call: PluginCall,
        value: Bytes,
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<Bytes, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo, whose) = (self.host.clone(), self.memo.clone(), call.whose());
        let work = move || match wanted() {
            true => memo.show(&host, &call.plugin, &value, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(whose, work, done)
    }

    /// Asks a plugin whether a value may be stored under a key; otherwise as [`Pool::merge`].
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn validate(
        &self,
        call: PluginCall,
        key: Bytes,
        value: Bytes,
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<(), MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo, whose) = (self.host.clone(), self.memo.clone(), call.whose());
        let work = move || match wanted() {
            true => memo.validate(&host, &call.plugin, &key, &value, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(whose, work, done)
    }

    /// Applies an operation to the value that the plugin merges of the siblings, of which there may be none, and has
    /// the plugin validate the result if it can; otherwise as [`Pool::merge`]. The fuel is that of the merge and the
    /// operation.
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn apply(
        &self,
        call: PluginCall,
        (key, siblings): (Bytes, Vec<Sibling>),
        (operation, dot): (Bytes, OperationDot),
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo, whose) = (self.host.clone(), self.memo.clone(), call.whose());
        let work = move || {
            if !wanted() {
                return Err(MergeFault::TooLate);
            }
            let (plugin, limits) = (&call.plugin, &call.limits);
            let (state, merged_for) = match siblings.as_slice() {
                [] => (None, 0),
                [only] => (Some(only.value.clone()), 0),
                several => {
                    let merged = memo.merge(&host, plugin, &key, several, limits)?;
                    (Some(merged.value), merged.fuel_used)
                }
            };
            let applied = host.apply(plugin, (&key, state.as_deref()), (&operation, dot), limits)?;
            if plugin.exports().validate {
                host.validate(plugin, &key, &applied.value, limits)?;
            }
            Ok(Merged { fuel_used: applied.fuel_used.saturating_add(merged_for), ..applied })
        };
        self.submit(whose, work, done)
    }

    /// Asks the plugin a question about a value; otherwise as [`Pool::merge`].
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn query(
        &self,
        call: PluginCall,
        (value, question): (Bytes, Bytes),
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, whose) = (self.host.clone(), call.whose());
        let work = move || match wanted() {
            true => host.query(&call.plugin, &value, &question, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(whose, work, done)
    }

    /// Checks the laws on a merge that was run ([`Host::check_again`]), on a thread of the lowest priority. The fuel is
    /// that of [`job_fuel`](crate::job_fuel). Otherwise as [`Pool::merge`].
    ///
    /// # Errors
    /// [`TooManyChecks`] if the queue, which is a short one of its own, or the tenant's share of it is full, or the
    /// merges in it hold too many bytes; `done` is then dropped uncalled.
    pub fn check_again(
        &self,
        call: PluginCall,
        merge: SampledMerge,
        done: impl FnOnce(Result<SampledLaws, MergeFault>) + Send + 'static,
    ) -> Result<(), TooManyChecks> {
        let held = self.checked_bytes.hold(merge.bytes()).ok_or(TooManyChecks)?;
        let (host, whose) = (self.host.clone(), call.whose());
        let work = move || {
            let found = host.check_again(&call.plugin, &merge, &call.limits);
            // The merge goes first, and then the room for it.
            drop((merge, held));
            Ok(found)
        };
        submit_to(self.background.as_ref(), whose, work, done).map_err(|_| TooManyChecks)
    }

    /// The number of waiting jobs.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.workers.as_ref().map_or(0, Workers::waiting)
    }

    /// The host that runs the calls.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The memo of results.
    #[must_use]
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    fn submit<T: 'static>(
        &self,
        whose: Whose,
        work: impl FnOnce() -> Result<T, MergeFault> + Send + 'static,
        done: impl FnOnce(Result<T, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        submit_to(self.workers.as_ref(), whose, work, done)
    }
}

/// Runs a job on threads, or on the caller if there are none. The fuel of its calls is counted until `done` has
/// returned.
fn submit_to<T: 'static>(
    workers: Option<&Workers>,
    whose: Whose,
    work: impl FnOnce() -> Result<T, MergeFault> + Send + 'static,
    done: impl FnOnce(Result<T, MergeFault>) + Send + 'static,
) -> Result<(), Overloaded> {
    let Some(workers) = workers else {
        let _counted = JobFuel::begin();
        done(work());
        return Ok(());
    };
    let work = move || (JobFuel::begin(), work());
    let failed = |reason: String| {
        (JobFuel::begin(), Err(if reason == STOPPED { MergeFault::Stopped } else { MergeFault::Host { reason } }))
    };
    let done = move |(_counted, result): (JobFuel, Result<T, MergeFault>)| done(result);
    Ok(workers.submit(whose, || false, work, failed, done)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_that_wait_to_be_checked_hold_so_many_bytes_and_a_larger_one_is_alone() {
        let bytes = CheckedBytes::default();
        let held: Vec<HeldBytes> = (0..99).map_while(|_| bytes.hold(1 << 20)).collect();
        assert_eq!(held.len(), BACKGROUND_BYTES >> 20);
        assert!(bytes.hold(1).is_none(), "nothing fits beside them");
        drop(held);
        let large = bytes.hold(BACKGROUND_BYTES + 1).expect("it is alone");
        assert!(bytes.hold(1).is_none());
        drop(large);
        assert_eq!(bytes.0.load(Ordering::Relaxed), 0);
    }
}
