//! Work that no shard waits for: flushes, compactions, segments that are no longer needed, and the watch over free space.

use super::shared::{Shared, lock};
use super::tree::damaged;
use crate::disk::no_room;
use lsm_tree::Error;
use rejoin_core::port::StoreFault;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often free space is looked at when nothing else happens.
const IDLE: Duration = Duration::from_secs(10);
/// The same while the disk is full or a run has failed.
const RETRY: Duration = Duration::from_secs(1);

/// What one run did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct WorkDone {
    /// Whether sealed memtables were flushed.
    pub flushed: bool,
    /// Whether a compaction was done; there is at most one in a run.
    pub compacted: bool,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Flushes, compacts and retires segments. Call [`Maintenance::turn`] when `on_work` says so and as often as it wants itself, or give a
/// thread to [`Maintenance::run_until_stopped`].
pub struct Maintenance {
    shared: Arc<Shared>,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Does what is due. Blocks for as long as that takes; a flush syncs the journal first.
    ///
    /// # Errors
    /// [`StoreFault::Full`]: no room to flush or compact, to be tried again. [`StoreFault::Damaged`]: a table that was to be
    /// compacted is damaged; writing and reading go on. [`StoreFault::Failed`]: the store has stopped.
    pub fn run(&self) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        let _one_at_a_time = lock(&shared.running);
        shared.poison.check()?;
        // The tree asserts its invariants. A thread of its own must not die of it in silence, with writes piling up.
        let work = catch_unwind(AssertUnwindSafe(|| self.work()));
        work.unwrap_or_else(|_| Err(shared.poison.set("flush or compact", &"the tree has panicked")))
    }

    /// Does what is due, and says after how long to look again at the latest, if `on_work` does not ask for it before; none once the
    /// store has failed.
    #[must_use]
    pub fn turn(&self) -> Option<Duration> {
        match self.run() {
            Ok(done) if done.more => Some(Duration::ZERO),
            Ok(_) if !self.shared.full.load(Relaxed) => Some(IDLE),
            Ok(_) | Err(StoreFault::Full) => Some(RETRY),
            Err(StoreFault::Failed(_)) => None,
            Err(fault) => {
                tracing::error!(dir = %self.shared.dir.display(), %fault, "maintenance of the store failed");
                Some(RETRY)
            }
        }
    }

    /// Works whenever work is due, until the store is dropped, stopped by [`Maintenance::stopper`], or failed.
    pub fn run_until_stopped(&self) {
        let mut pause = Some(IDLE);
        while let Some(at_most) = pause
            && self.shared.signal.wait(at_most)
        {
            pause = self.turn();
        }
    }

    /// Runs [`Maintenance::run_until_stopped`] on a thread of this name. Under Linux it stands back behind threads that answer: its nice value is 5, for a
    /// third of their share where the processors do not suffice for all.
    ///
    /// # Errors
    /// What the operating system says when it has no thread.
    pub fn spawn(self, name: &str) -> io::Result<MaintenanceThread> {
        let stopper = self.stopper();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            stand_back();
            self.run_until_stopped();
        })?;
        Ok(MaintenanceThread { stopper, thread: Some(thread) })
    }

    /// A handle that stops [`Maintenance::run_until_stopped`].
    #[must_use]
    pub fn stopper(&self) -> StopMaintenance {
        StopMaintenance { shared: Arc::clone(&self.shared) }
    }

    /// All kinds of work, the most urgent first.
    fn work(&self) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        self.watch_space()?;
        let flushed = self.flush()?;
        let compacted = shared.tree.compact().map_err(|error| self.fault("compact", error))?;
        shared.counters.compactions.fetch_add(u64::from(compacted), Relaxed);
        shared.counters.l0_runs.store(shared.tree.l0_runs(), Relaxed);
        let more = compacted || lock(&shared.gate).sealed.is_some();
        Ok(WorkDone { flushed, compacted, more })
    }

    /// Refuses writes below the floor of free space, and takes them again when a segment fits above it.
    fn watch_space(&self) -> Result<(), StoreFault> {
        let shared = &self.shared;
        let free = shared.disk.free_space(&shared.journal).map_err(|error| shared.poison.set("look at the free space", &error))?;
        let floor = shared.options.free_space_floor;
        if free < floor {
            if !shared.full.swap(true, Relaxed) {
                tracing::error!(free, floor, "too little free space: writes are refused, reads go on");
            }
        } else if free >= floor + shared.options.segment_bytes && shared.full.swap(false, Relaxed) {
            tracing::info!(free, "there is room again: writes are taken");
        }
        Ok(())
    }

    /// Flushes what is sealed, and retires the segments that only held that.
    fn flush(&self) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let first_needed = {
            let mut gate = lock(&shared.gate);
            let Some(first_needed) = gate.sealed else { return Ok(false) };
            gate.flushing = true;
            first_needed
        };
        let result = self.flush_sealed();
        let mut gate = lock(&shared.gate);
        gate.flushing = false;
        let flushed = result?;
        let version = shared.tree.version();
        gate.sealed = None;
        drop(gate);
        shared.retire(first_needed, version)?;
        Ok(flushed)
    }

    /// The tree must never hold what the journal has not got durably, so the journal goes first.
    fn flush_sealed(&self) -> Result<bool, StoreFault> {
        self.shared.sync()?;
        let flushed = self.shared.tree.flush().map_err(|error| self.fault("flush", error))?;
        if flushed {
            self.shared.counters.flushes.fetch_add(1, Relaxed);
        }
        Ok(flushed)
    }

    /// What a tree error means for the store.
    fn fault(&self, tried: &str, error: Error) -> StoreFault {
        match error {
            Error::Io(error) if no_room(&error) => {
                // Not `set_full`: that would wake this very thread to try again at once.
                self.shared.full.store(true, Relaxed);
                StoreFault::Full
            }
            Error::Io(error) => self.shared.poison.set(&format!("{tried} the tree"), &error),
            error => damaged(&error),
        }
    }
}

/// How far maintenance stands back. Writes are answered busy when it falls behind, so it must not starve: at 10 a tenth would be left to it.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Lets other threads go before this one, where the system can do that for a thread alone. If it does not, nothing is wrong.
fn stand_back() {
    // Linux counts niceness per thread, and no process means the calling thread. Elsewhere it would be that of the whole process.
    #[cfg(target_os = "linux")]
    if rustix::process::getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Stops maintenance.
#[derive(Clone)]
pub struct StopMaintenance {
    shared: Arc<Shared>,
}

impl StopMaintenance {
    /// Makes [`Maintenance::run_until_stopped`] return once its present run has ended.
    pub fn stop(&self) {
        self.shared.signal.stop();
    }
}

/// A thread that does the maintenance; dropping it stops and joins it.
pub struct MaintenanceThread {
    stopper: StopMaintenance,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MaintenanceThread {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // A panic inside was turned into a fault of the store; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stands_back_and_takes_no_other_along() {
        let nice = || rustix::process::getpriority_process(None).expect("a priority");
        let before = nice();
        let inside = std::thread::spawn(move || {
            stand_back();
            nice()
        });
        assert_eq!((inside.join().expect("no panic"), nice()), (NICE.max(before), before));
    }
}
