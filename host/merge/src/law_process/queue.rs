//! The queue of components whose laws are to be checked, with a thread of its own, so that no merge and no compilation
//! waits for a check. It is fair between tenants, as that of compilations.

use bytes::Bytes;

use super::{LawError, LawInputs, LawLimits, LawProgress, LawRunner};
use crate::compile::CancelToken;
use crate::fault::HostError;
use crate::law_report::LawTest;
use crate::limits::ModuleLimits;
use crate::workers::{TenantShare, Whose, WorkerLimits, Workers};

/// All components of a tenant are in one group: they are of no bucket.
const ONE_GROUP: u64 = 0;
/// Components that are checked at once, each by a process of its own.
const THREADS: usize = 1;
/// The most that wait.
const QUEUE: usize = 16;
/// The most of one tenant that wait.
const TENANT_QUEUE: usize = 4;

/// Checks the laws of components on a thread of its own. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct LawQueue {
    runner: LawRunner,
    /// `None` checks on the caller: for simulations and tests, where threads would decide the order.
    workers: Option<Workers>,
}

/// A check that waits or runs. Dropping it cancels the check.
#[derive(Debug)]
#[must_use = "dropped, it is cancelled"]
pub struct PendingLaws(CancelToken);

impl Drop for PendingLaws {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl LawQueue {
    /// Starts the thread. It ends with the last clone.
    ///
    /// # Errors
    /// [`HostError::Thread`] if it cannot be started.
    pub fn new(runner: LawRunner) -> Result<Self, HostError> {
        let limits = WorkerLimits {
            threads: THREADS,
            queue: QUEUE,
            tenant_threads: THREADS,
            tenant_queue: TENANT_QUEUE,
            group_threads: THREADS,
            group_queue: TENANT_QUEUE,
        };
        Ok(Self { workers: Some(Workers::new("laws", limits)?), ..Self::inline(runner) })
    }

    /// A queue without threads: checks on the caller, and calls `done` before it returns.
    #[must_use]
    pub fn inline(runner: LawRunner) -> Self {
        Self { runner, workers: None }
    }

    /// The seconds of a processor that a check may take.
    #[must_use]
    pub fn cpu_seconds(&self) -> u64 {
        match &self.runner {
            LawRunner::Child(process) => process.limits.cpu_seconds,
            LawRunner::InProcess => LawLimits::default().cpu_seconds,
        }
    }

    /// Checks the laws of a tenant's component. `done` is called exactly once, unless the queue is full; `watch` is
    /// told the progress before that.
    ///
    /// # Errors
    /// [`LawError::NotTried`] if the queue or the tenant's share of it is full; `done` is then dropped uncalled.
    pub fn check(
        &self,
        tenant: TenantShare,
        (component, inputs): (Bytes, LawInputs),
        modules: ModuleLimits,
        mut watch: impl FnMut(LawProgress) + Send + 'static,
        done: impl FnOnce(Result<LawTest, LawError>) + Send + 'static,
    ) -> Result<PendingLaws, LawError> {
        let cancel = CancelToken::default();
        let (runner, running, queued) = (self.runner.clone(), cancel.clone(), cancel.clone());
        let mut work = move || runner.check((&component[..], &inputs), &modules, &running, &mut watch);
        let Some(workers) = &self.workers else {
            done(work());
            return Ok(PendingLaws(cancel));
        };
        let failed = |reason: String| Err(LawError::NotTried { reason });
        let whose = Whose { tenant, group: ONE_GROUP };
        let submitted = workers.submit(whose, move || queued.is_cancelled(), work, failed, done);
        submitted.map_err(|full| LawError::NotTried {
            reason: format!("{} components{} are waiting for a check of their laws already", full.limit, full.of),
        })?;
        Ok(PendingLaws(cancel))
    }
}
