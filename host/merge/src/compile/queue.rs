//! Threads that have components compiled, one after the other: not those that merge.

use bytes::Bytes;

use super::{ArtefactCache, CancelToken, Compiler};
use crate::fault::{HostError, Rejection};
use crate::host::Host;
use crate::limits::ModuleLimits;
use crate::plugin::{Plugin, digest_of};
use crate::workers::{WorkerLimits, Workers};

/// Everything that waits here is of one kind.
const ONE_GROUP: u64 = 0;

/// How many components are compiled at once, and how many may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueConfig {
    /// Components that are compiled at once, each on a processor of its own; at least one.
    pub threads: usize,
    /// Components that may wait; at least one.
    pub queue: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { threads: 1, queue: 32 }
    }
}

/// Where components are compiled, and found again. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct CompileQueue {
    host: Host,
    compiler: Compiler,
    cache: Option<ArtefactCache>,
    /// None compiles on the caller: for simulations and tests, where threads would decide the order.
    workers: Option<Workers>,
}

/// A component that is to be compiled. Dropped, it need not be any more: what works on it is stopped.
#[derive(Debug)]
#[must_use = "dropped, it is cancelled"]
pub struct PendingCompile(CancelToken);

impl Drop for PendingCompile {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl CompileQueue {
    /// Starts the threads. They end when the last clone is dropped.
    ///
    /// # Errors
    /// [`HostError::Thread`] if one cannot be started.
    pub fn new(host: Host, compiler: Compiler, cache: Option<ArtefactCache>, config: QueueConfig) -> Result<Self, HostError> {
        let limits =
            WorkerLimits { threads: config.threads, queue: config.queue, group_threads: config.threads, group_queue: config.queue };
        Ok(Self { workers: Some(Workers::new("compile", limits)?), ..Self::inline(host, compiler, cache) })
    }

    /// A queue without threads: everything is compiled at once on the caller, `done` before the call returns.
    #[must_use]
    pub fn inline(host: Host, compiler: Compiler, cache: Option<ArtefactCache>) -> Self {
        Self { host, compiler, cache, workers: None }
    }

    /// Has a component compiled, or takes what is kept of it. `done` is called exactly once, unless there is no room.
    ///
    /// # Errors
    /// [`Rejection::NotTried`] if too many are waiting; `done` is then dropped uncalled.
    pub fn compile(
        &self,
        bytes: Bytes,
        limits: ModuleLimits,
        done: impl FnOnce(Result<Plugin, Rejection>) + Send + 'static,
    ) -> Result<PendingCompile, Rejection> {
        let cancel = CancelToken::default();
        let (this, running, queued) = (self.clone_without_threads(), cancel.clone(), cancel.clone());
        let work = move || this.work(&bytes, &limits, &running);
        let Some(workers) = &self.workers else {
            done(work());
            return Ok(PendingCompile(cancel));
        };
        let failed = |reason: String| Err(Rejection::NotTried { reason });
        let submitted = workers.submit(ONE_GROUP, move || queued.is_cancelled(), work, failed, done);
        submitted.map_err(|full| {
            let reason = format!("{} components are waiting to be compiled already", full.limit);
            Rejection::NotTried { reason }
        })?;
        Ok(PendingCompile(cancel))
    }

    /// What the threads work with must not keep the threads.
    fn clone_without_threads(&self) -> Self {
        Self { host: self.host.clone(), compiler: self.compiler.clone(), cache: self.cache.clone(), workers: None }
    }

    fn work(&self, bytes: &[u8], limits: &ModuleLimits, cancel: &CancelToken) -> Result<Plugin, Rejection> {
        let digest = digest_of(bytes);
        if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.get(&digest, limits)) {
            return self.host.load(&kept);
        }
        let compiled = self.compiler.compile(&self.host, bytes, limits, cancel)?;
        let plugin = self.host.load(&compiled)?;
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(&compiled, limits)) {
            tracing::warn!(%digest, %error, "a compiled plugin could not be kept");
        }
        Ok(plugin)
    }
}
