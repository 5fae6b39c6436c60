//! What the shard, its syncer and its maintenance share.

use super::options::Options;
use super::stats::{Counters, Stats};
use super::sync::Durable;
use super::tree::Tree;
use crate::disk::{Disk, DiskFile};
use crate::journal::Position;
use rejoin_core::port::StoreFault;
use std::fmt::Display;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Shared by all handles of one shard's store. The directory's lock goes with the last of them.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    /// The shard's directory.
    pub(super) dir: PathBuf,
    /// The journal's directory.
    pub(super) journal: PathBuf,
    pub(super) options: Options,
    pub(super) tree: Tree,
    pub(super) poison: Poison,
    /// What is in the journal file.
    pub(super) written: Mutex<Written>,
    /// What is durable. Held during a sync: syncs queue here, and each serves all who committed before it.
    pub(super) durable: Mutex<Durable>,
    pub(super) gate: Mutex<Gate>,
    /// One maintenance run at a time.
    pub(super) running: Mutex<()>,
    /// Writes are refused for want of room.
    pub(super) full: AtomicBool,
    pub(super) signal: Signal,
    pub(super) counters: Counters,
    pub(super) _lock: File,
}

/// What has been written and not yet synced.
pub(super) struct Written {
    /// The end of the journal.
    pub(super) committed: Position,
    /// The files with unsynced bytes; the last is the one being written.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// Whether the journal directory has a new name.
    pub(super) names: bool,
}

/// Keeps sealing a memtable apart from flushing: a flush takes every sealed memtable, and only those may be there whose records were
/// synced before it began.
#[derive(Default)]
pub(super) struct Gate {
    /// A flush is under way.
    pub(super) flushing: bool,
    /// A sealed memtable waits: once it is flushed, segments before this one are no longer needed.
    pub(super) sealed: Option<u64>,
}

impl Shared {
    pub(super) fn stats(&self) -> Stats {
        self.counters.read(self.full.load(Relaxed))
    }

    /// How many segments there are, up to this one.
    pub(super) fn live_segments(&self, last: u64) -> u64 {
        (last + 1).saturating_sub(self.counters.first_segment.load(Relaxed))
    }

    /// From now on writes are refused, until maintenance finds room.
    pub(super) fn set_full(&self) {
        if !self.full.swap(true, Relaxed) {
            tracing::error!(dir = %self.dir.display(), "the disk is full: writes are refused until there is room, reads go on");
            self.signal.work_is_due();
        }
    }
}

/// Why the store has stopped for good, once it has.
#[derive(Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// Fails if the store has stopped.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        self.0.get().map_or(Ok(()), |why| Err(StoreFault::Failed(why.clone())))
    }

    /// Stops the store for good; the first reason stays.
    pub(super) fn set(&self, tried: &str, error: &dyn Display) -> StoreFault {
        let why = self.0.get_or_init(|| {
            tracing::error!(%error, "the store has failed: cannot {tried}");
            format!("cannot {tried}: {error}; what was not yet acknowledged is in doubt, restart the node once the disk is sound")
        });
        StoreFault::Failed(why.clone())
    }
}

/// Wakes whoever does the maintenance.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
    on_work: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct SignalState {
    due: bool,
    stopped: bool,
}

impl Signal {
    pub(super) fn new(on_work: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        Self { on_work, ..Self::default() }
    }

    /// There is work.
    pub(super) fn work_is_due(&self) {
        lock(&self.state).due = true;
        self.changed.notify_all();
        if let Some(on_work) = &self.on_work {
            on_work();
        }
    }

    /// No more work is to be done.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// Waits for work, at most so long. Returns false once stopped.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let idle = |state: &mut SignalState| !state.due && !state.stopped;
        let (mut state, _) = self.changed.wait_timeout_while(state, at_most, idle).unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        !state.stopped
    }
}

/// Locks. A thread that panicked with the lock held leaves plain values behind, whole ones; whether the store may go on is decided by
/// [`Poison`] alone.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
