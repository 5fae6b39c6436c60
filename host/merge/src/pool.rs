//! A bounded number of merge threads behind a bounded queue. Everything that takes long here runs on one of them, never on a thread that serves.

use crate::call::{Merged, Sibling};
use crate::fault::{HostError, MergeFault, Rejection};
use crate::host::Host;
use crate::limits::{CallLimits, ModuleLimits};
use crate::memo::Memo;
use crate::plugin::Plugin;
use crate::profile::WASM_STACK_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many threads, and how many jobs may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Threads that merge and compile; at least one.
    pub threads: usize,
    /// Jobs that may wait; at least one. What comes when they are all waiting is refused.
    pub queue: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { threads: std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 16)), queue: 1_024 }
    }
}

/// The queue is full: the caller keeps its siblings, and may try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{queue} merges are waiting already; the siblings are kept")]
pub struct Overloaded {
    /// How many may wait.
    pub queue: usize,
}

/// A job is told whether it may run or the pool has stopped; it answers its caller either way, once.
type Job = Box<dyn FnOnce(Turn) + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Run,
    Stopped,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    limit: usize,
}

impl Shared {
    /// A job that panics is caught, so the lock is never poisoned by one; and the queue is whole at every unlock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a merge thread does until the pool stops.
    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                if queue.stopped {
                    return;
                }
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None => queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            // The work's own panics are answered; this is for those of the caller's `done`, which must not take the thread with it.
            if catch_unwind(AssertUnwindSafe(|| job(Turn::Run))).is_err() {
                tracing::error!("what was to be done with a merge's outcome panicked; the merge thread goes on");
            }
        }
    }
}

/// Stops the threads when the last handle goes. A thread ends after the job it is at; jobs that wait are answered with *stopped*.
struct Threads(Arc<Shared>);

impl Drop for Threads {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.stopped = true;
        let left = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.0.ready.notify_all();
        left.into_iter().for_each(|job| job(Turn::Stopped));
    }
}

/// Merge threads and the memo they share. Cloning is cheap.
#[derive(Clone)]
pub struct Pool {
    host: Host,
    memo: Arc<Memo>,
    /// None runs every job at once on the caller: for simulations and tests, where threads would decide the order.
    threads: Option<Arc<Threads>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("waiting", &self.waiting()).field("memo", &self.memo).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads. They end when the last clone is dropped.
    ///
    /// # Errors
    /// [`HostError::Thread`] if one cannot be started.
    pub fn new(host: Host, memo: Memo, config: PoolConfig) -> Result<Self, HostError> {
        let shared = Arc::new(Shared { queue: Mutex::default(), ready: Condvar::new(), limit: config.queue.max(1) });
        let threads = Arc::new(Threads(shared.clone()));
        for number in 0..config.threads.max(1) {
            let shared = shared.clone();
            // The guest's stack is part of the thread's, with as much again for the host's own frames and the compiler.
            let builder = std::thread::Builder::new().name(format!("merge-{number}")).stack_size(WASM_STACK_BYTES + (4 << 20));
            builder.spawn(move || shared.work())?;
        }
        Ok(Self { host, memo: Arc::new(memo), threads: Some(threads) })
    }

    /// A pool without threads: every job runs at once on the caller, `done` before the call returns.
    #[must_use]
    pub fn inline(host: Host, memo: Memo) -> Self {
        Self { host, memo: Arc::new(memo), threads: None }
    }

    /// Merges siblings, or gives what is remembered of them.
    ///
    /// `done` is called exactly once, on a merge thread (or on the caller, if inline or when the pool stops), unless the queue is full.
    ///
    /// # Errors
    /// [`Overloaded`] if the queue is full; `done` is then dropped uncalled.
    pub fn merge(
        &self,
        plugin: Plugin,
        key: Bytes,
        siblings: Vec<Sibling>,
        limits: CallLimits,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        self.merge_while(|| true, plugin, key, siblings, limits, done)
    }

    /// As [`Pool::merge`], but not begun when its turn comes and `wanted` says that nobody waits any more ([`MergeFault::TooLate`]): a queue
    /// that was once long must not go on being worked off for requests that have all been answered.
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn merge_while(
        &self,
        wanted: impl FnOnce() -> bool + Send + 'static,
        plugin: Plugin,
        key: Bytes,
        siblings: Vec<Sibling>,
        limits: CallLimits,
        done: impl FnOnce(Result<Merged, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let (host, memo) = (self.host.clone(), self.memo.clone());
        let work = move || if wanted() { memo.merge(&host, &plugin, &key, &siblings, &limits) } else { Err(MergeFault::TooLate) };
        self.submit(work, |failure| Err(failure.into_fault()), done)
    }

    /// Shows a value to people.
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn show(
        &self,
        plugin: Plugin,
        value: Bytes,
        limits: CallLimits,
        done: impl FnOnce(Result<Vec<u8>, MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let host = self.host.clone();
        self.submit(move || host.show(&plugin, &value, &limits), |failure| Err(failure.into_fault()), done)
    }

    /// Asks a plugin whether a value may be stored, unless `wanted` says when its turn comes that nobody waits any more
    /// ([`MergeFault::TooLate`]).
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn validate_while(
        &self,
        wanted: impl FnOnce() -> bool + Send + 'static,
        plugin: Plugin,
        key: Bytes,
        value: Bytes,
        limits: CallLimits,
        done: impl FnOnce(Result<(), MergeFault>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let host = self.host.clone();
        let work = move || if wanted() { host.validate(&plugin, &key, &value, &limits) } else { Err(MergeFault::TooLate) };
        self.submit(work, |failure| Err(failure.into_fault()), done)
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// As [`Pool::merge`].
    pub fn compile(
        &self,
        bytes: Bytes,
        limits: ModuleLimits,
        done: impl FnOnce(Result<Plugin, Rejection>) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let host = self.host.clone();
        let failed = |failure: Failure| Err(Rejection::NotTried { reason: failure.into_fault().to_string() });
        self.submit(move || host.compile(&bytes, &limits), failed, done)
    }

    /// How many jobs are waiting.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.threads.as_ref().map_or(0, |threads| threads.0.lock().jobs.len())
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
        work: impl FnOnce() -> T + Send + 'static,
        failed: impl FnOnce(Failure) -> T + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), Overloaded> {
        let job = move |turn| {
            let outcome = match turn {
                Turn::Stopped => failed(Failure::Stopped),
                // A panic would be ours or the engine's, not the guest's; it must not take the thread with it.
                Turn::Run => catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| failed(Failure::Panicked(words_of(&*panic)))),
            };
            done(outcome);
        };
        let Some(threads) = &self.threads else {
            job(Turn::Run);
            return Ok(());
        };
        let shared = &threads.0;
        let mut queue = shared.lock();
        if queue.jobs.len() >= shared.limit {
            return Err(Overloaded { queue: shared.limit });
        }
        queue.jobs.push_back(Box::new(job));
        drop(queue);
        shared.ready.notify_one();
        Ok(())
    }
}

/// Why a job has no outcome of its own.
enum Failure {
    Stopped,
    Panicked(String),
}

impl Failure {
    fn into_fault(self) -> MergeFault {
        match self {
            Self::Stopped => MergeFault::Stopped,
            Self::Panicked(reason) => MergeFault::Host { reason },
        }
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".into())
}
