//! Wakes maintenance, and stops the store for good.

use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rejoin_core::port::StoreFault;

/// Locks. A thread that panicked with the lock held leaves whole values behind; whether the store may go on is decided
/// by [`Poison`] alone.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the store has stopped for good, once it has.
#[derive(Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// Fails if the store has stopped.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        self.0.get().map_or(Ok(()), |why| Err(StoreFault::Failed(why.clone())))
    }

    /// Stops the store for good. The first reason is kept.
    pub(super) fn set(&self, tried: &str, error: &dyn Display) -> StoreFault {
        let why = self.0.get_or_init(|| {
            tracing::error!(%error, "the store has failed: cannot {tried}");
            format!(
                "cannot {tried}: {error}; what was not yet acknowledged is in doubt, restart the node once the \
                disk is sound"
            )
        });
        StoreFault::Failed(why.clone())
    }
}

/// Wakes the thread that does the maintenance.
#[derive(Default)]
pub(super) struct WorkSignal {
    state: Mutex<WorkSignalState>,
    changed: Condvar,
    on_work: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct WorkSignalState {
    due: bool,
    stopped: bool,
}

impl WorkSignal {
    pub(super) fn new(on_work: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        Self { on_work, ..Self::default() }
    }

    pub(super) fn work_is_due(&self) {
        lock(&self.state).due = true;
        self.changed.notify_all();
        if let Some(on_work) = &self.on_work {
            on_work();
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// Waits for work, at most so long. Returns false once stopped.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let idle = |state: &mut WorkSignalState| !state.due && !state.stopped;
        let (mut state, _) =
            self.changed.wait_timeout_while(state, at_most, idle).unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        !state.stopped
    }
}
