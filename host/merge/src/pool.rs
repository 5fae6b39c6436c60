//! Merge threads, and the memo they share. Every plugin's call runs on one of them, never on a thread that serves.
//!
//! Each bucket has a share of the threads and of the places in the queue ([`PoolConfig`]), so that a bucket whose
//! merges are slow or many does not keep another's waiting.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::{Merged, Sibling};
use crate::fault::{HostError, MergeFault};
use crate::host::Host;
use crate::limits::CallLimits;
use crate::memo::Memo;
use crate::plugin::Plugin;
use crate::workers::{QueueFull, STOPPED, WorkerLimits, Workers};

/// How many threads, how many jobs may wait, and what a bucket may have of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Threads that merge; at least one.
    pub threads: usize,
    /// Jobs that may wait; at least one. What comes when they are all waiting is refused.
    pub queue: usize,
    /// Threads that one bucket may have at once; at least one. Of several threads the last is always left to the
    /// others.
    pub bucket_threads: usize,
    /// Jobs of one bucket that may wait; at least one.
    pub bucket_queue: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(3, |cores| cores.get().clamp(3, 16));
        Self { threads, queue: 1_024, bucket_threads: threads - 1, bucket_queue: 256 }
    }
}

/// The queue is full, or the bucket's share of it: the caller keeps its siblings, and may try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{waiting} merges{} are waiting already; the siblings are kept", if *of_bucket { " of this bucket" } else { "" })]
pub struct Overloaded {
    /// How many may wait.
    pub waiting: usize,
    /// Whether they are all of the same bucket.
    pub of_bucket: bool,
}

impl From<QueueFull> for Overloaded {
    fn from(full: QueueFull) -> Self {
        Self { waiting: full.limit, of_bucket: full.of_group }
    }
}

/// Merge threads and the memo they share. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Pool {
    host: Host,
    memo: Arc<Memo>,
    /// None runs every job at once on the caller: for simulations and tests, where threads would decide the order.
    workers: Option<Workers>,
}

/// What one call is to do, and for whom.
#[derive(Clone, Debug)]
pub struct PluginCall {
    /// Whose share of the pool it takes.
    pub bucket: u64,
    /// What runs.
    pub plugin: Plugin,
    /// What it may use.
    pub limits: CallLimits,
}

impl Pool {
    /// Starts the threads. They end when the last clone is dropped.
    ///
    /// # Errors
    /// [`HostError::Thread`] if one cannot be started.
    pub fn new(host: Host, memo: Memo, config: PoolConfig) -> Result<Self, HostError> {
        let threads = config.threads.max(1);
        let limits = WorkerLimits {
            threads,
            queue: config.queue,
            group_threads: config.bucket_threads.min(threads.saturating_sub(1)),
            group_queue: config.bucket_queue,
        };
        Ok(Self { workers: Some(Workers::new("merge", limits)?), ..Self::inline(host, memo) })
    }

    /// A pool without threads: every job runs at once on the caller, `done` before the call returns.
    #[must_use]
    pub fn inline(host: Host, memo: Memo) -> Self {
        Self { host, memo: Arc::new(memo), workers: None }
    }

    /// Merges siblings, or gives what is remembered of them.
    ///
    /// A merge is not begun when its turn comes and `wanted` says that nobody waits any more ([`MergeFault::TooLate`]):
    /// a queue that was once long must not go on being worked off for requests that have all been answered. `done` is
    /// called exactly once, on a merge thread (or on the caller, if inline or when the pool stops), unless there is no
    /// room.
    ///
    /// # Errors
    /// [`Overloaded`] if the queue or the bucket's share of it is full; `done` is then dropped uncalled.
    pub fn merge(
        &self,
        call: PluginCall,
        key: Bytes,
        siblings: Vec<Sibling>,
        wanted: impl FnOnce() -> bool + Send + 'static,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo, bucket) = (self.host.clone(), self.memo.clone(), call.bucket);
        let work = move || match wanted() {
            true => memo.merge(&host, &call.plugin, &key, &siblings, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(bucket, work, done)
    }

    /// Shows a value to people, or gives what is remembered of it; otherwise as [`Pool::merge`].
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
        let (host, memo, bucket) = (self.host.clone(), self.memo.clone(), call.bucket);
        let work = move || match wanted() {
            true => memo.show(&host, &call.plugin, &value, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(bucket, work, done)
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
        let (host, memo, bucket) = (self.host.clone(), self.memo.clone(), call.bucket);
        let work = move || match wanted() {
            true => memo.validate(&host, &call.plugin, &key, &value, &call.limits),
            false => Err(MergeFault::TooLate),
        };
        self.submit(bucket, work, done)
    }

    /// How many jobs are waiting.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.workers.as_ref().map_or(0, Workers::waiting)
    }

    /// The host that everything runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What is remembered.
    #[must_use]
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    fn submit<T: 'static>(
        &self,
        bucket: u64,
        work: impl FnOnce() -> Result<T, MergeFault> + Send + 'static,
        done: impl FnOnce(Result<T, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let Some(workers) = &self.workers else {
            done(work());
            return Ok(());
        };
        let failed = |reason: String| Err(if reason == STOPPED { MergeFault::Stopped } else { MergeFault::Host { reason } });
        Ok(workers.submit(bucket, || false, work, failed, done)?)
    }
}
