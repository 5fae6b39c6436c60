//! Work that no shard waits for: flushes, compactions, segments that are no longer needed, and the watch over free
//! space.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use lsm_tree::Error;

use rejoin_core::port::StoreFault;

use super::open::remove_set_aside;
use super::shared::{Backoff, Shared, Suspects, Trouble, lock, note_version};
use super::tree::{Suspect, Sweep};
use crate::disk::{is_short, no_room};

/// How often free space is looked at when nothing else happens.
const IDLE: Duration = Duration::from_secs(10);
/// So many failures in a row of one kind of work, for nothing that passes and no damage, stop the store.
const MOST_FAILURES: u32 = 5;
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

/// Flushes, compacts and retires segments. Call [`Maintenance::turn`] when `on_work` says so and as often as it wants
/// itself, or give a thread to [`Maintenance::run_until_stopped`].
pub struct Maintenance {
    shared: Arc<Shared>,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Does what is due, at once also what has failed before. Blocks for as long as that takes; a flush syncs the
    /// journal first.
    ///
    /// # Errors
    /// [`StoreFault::Full`]: no room to flush or compact, to be tried again. [`StoreFault::Busy`]: the system is out of
    /// descriptors or memory, to be tried again. [`StoreFault::Damaged`]: a table is damaged and could not be taken out
    /// of the tree yet; writing and reading go on. [`StoreFault::Failed`]: the store has stopped.
    pub fn run(&self) -> Result<WorkDone, StoreFault> {
        self.guarded(false)
    }

    fn guarded(&self, patient: bool) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        let _one_at_a_time = lock(&shared.running);
        shared.poison.check()?;
        // The tree asserts its invariants. A thread of its own must not die of it in silence, with writes piling up.
        let work = catch_unwind(AssertUnwindSafe(|| self.work(patient)));
        work.unwrap_or_else(|_| Err(shared.poison.set("flush or compact", &"the tree has panicked")))
    }

    /// Does what is due but for what has just failed, and says after how long to look again at the latest, if `on_work`
    /// does not ask for it before; none once the store has failed.
    #[must_use]
    pub fn turn(&self) -> Option<Duration> {
        match self.guarded(true) {
            Ok(done) if done.more => Some(Duration::ZERO),
            Ok(_) if lock(&self.shared.trouble).any() => Some(RETRY),
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

    /// Runs [`Maintenance::run_until_stopped`] on a thread of this name. Under Linux it stands back behind threads that
    /// answer: its nice value is 5, for a third of their share where the processors do not suffice for all.
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

    /// All kinds of work, the most urgent first. If it is to be patient, what has failed waits until its pause is over.
    fn work(&self, patient: bool) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        self.watch_space();
        let waits = |backoff: fn(&mut Trouble) -> &mut Backoff| patient && backoff(&mut lock(&shared.trouble)).left().is_some();
        // A fault of one kind of work must not hold up another: flushes go on while a damaged table cannot be
        // compacted, and before tables are read for damage.
        let flushed = if waits(|trouble| &mut trouble.flush) { Ok(false) } else { self.flush() };
        let mended = if waits(|trouble| &mut trouble.mending) { Ok(()) } else { self.look_into_suspects() };
        let compacted = if waits(|trouble| &mut trouble.compaction) { Ok(false) } else { self.compact() };
        shared.counters.l0_runs.store(shared.tree.l0_runs(), Relaxed);
        let (flushed, compacted) = (flushed?, compacted?);
        mended?;
        let more = compacted || lock(&shared.gate).sealed.is_some() && lock(&shared.trouble).flush.left().is_none();
        Ok(WorkDone { flushed, compacted, more })
    }

    /// Refuses writes below the floor of free space, and takes them again when there is room above it for a segment and
    /// for what waits to be written.
    fn watch_space(&self) {
        let shared = &self.shared;
        let Ok(free) = self.free() else { return };
        let floor = shared.options.free_space_floor;
        if free < floor {
            // Damaged tables are kept for people to look at, while there is room.
            let _ = std::fs::remove_dir_all(shared.aside());
            remove_set_aside(&shared.dir);
            if !shared.full.swap(true, Relaxed) {
                tracing::error!(dir = %shared.dir.display(), free, floor, "too little free space: writes are refused, reads go on");
            }
        } else if free >= self.room_needed() && shared.full.swap(false, Relaxed) {
            tracing::info!(dir = %shared.dir.display(), free, "there is room again: writes are taken");
        }
    }

    /// The free bytes on the disk. Not to know them is no fault of the store: what needs room finds out.
    fn free(&self) -> Result<u64, StoreFault> {
        let free = self.shared.disk.free_space(&self.shared.journal);
        free.map_err(|error| {
            tracing::warn!(dir = %self.shared.dir.display(), %error, "cannot look at the free space");
            StoreFault::Busy
        })
    }

    /// What must be free before writes are taken again.
    fn room_needed(&self) -> u64 {
        let shared = &self.shared;
        let (tree, options) = (&shared.tree, &shared.options);
        let stuck = shared.counters.l0_runs.load(Relaxed) >= options.max_l0_runs;
        let compaction = if stuck { tree.due().map_or(0, |due| due.bytes) } else { 0 };
        (options.free_space_floor + options.segment_bytes).max(tree.flush_bytes() + compaction)
    }

    /// Reads the tables in which a read has met damage, and takes out those that are damaged.
    fn look_into_suspects(&self) -> Result<(), StoreFault> {
        let shared = &self.shared;
        let Suspects { keys, behind } = std::mem::take(&mut *lock(&shared.suspects));
        if behind.is_none() && keys.is_empty() {
            lock(&shared.trouble).mending.worked();
            return Ok(());
        }
        let at_keys = if keys.is_empty() { Ok(false) } else { self.mend(&Suspect::Keys(&keys)) };
        let looked = at_keys.and_then(|_| behind.as_ref().map_or(Ok(false), |behind| self.mend(&Suspect::Behind(behind))));
        if looked.is_err() {
            let mut now = lock(&shared.suspects);
            now.keys.extend(keys);
            now.behind = now.behind.take().or(behind);
        }
        looked.map(drop)
    }

    /// Takes damaged tables out. Returns whether there were any.
    fn mend(&self, suspect: &Suspect<'_>) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let mended = shared.tree.mend(suspect, &|lost| shared.note_lost(lost), &shared.aside());
        let said = mended.map_err(|error| self.fault("take a damaged table out of the tree", error, |trouble| &mut trouble.mending))?;
        lock(&shared.trouble).mending.worked();
        if !said.is_empty() {
            self.note_version();
        }
        for what in &said {
            tracing::error!(dir = %shared.dir.display(), what, "a table of the tree is damaged");
        }
        shared.counters.lost_ranges.store(shared.tree.lost().ranges().len() as u64, Relaxed);
        Ok(!said.is_empty())
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
        let shared = &self.shared;
        shared.sync()?;
        let need = shared.tree.flush_bytes();
        let free = self.free()?;
        if free < need {
            // Not `set_full`: that would wake this very thread to try again at once.
            shared.full.store(true, Relaxed);
            return Err(self.no_room_to("flush", need, free, |trouble| &mut trouble.flush));
        }
        let flushed = shared.tree.reconcile().and_then(|()| shared.tree.flush()).map_err(|error| {
            let fault = self.fault("flush the memtable", error, |trouble| &mut trouble.flush);
            shared.full.fetch_or(fault == StoreFault::Full, Relaxed);
            fault
        })?;
        self.note_version();
        lock(&shared.trouble).flush.worked();
        shared.counters.flushes.fetch_add(u64::from(flushed), Relaxed);
        Ok(flushed)
    }

    /// Does the compaction that is due, if there is room for what it writes beside what it reads.
    fn compact(&self) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let Some(due) = shared.tree.due() else {
            lock(&shared.trouble).compaction.worked();
            return Ok(false);
        };
        let (need, free) = (due.bytes + shared.tree.flush_bytes(), self.free()?);
        if free < need {
            let stuck = shared.counters.l0_runs.load(Relaxed) >= shared.options.max_l0_runs;
            shared.full.fetch_or(stuck, Relaxed);
            return Err(self.no_room_to("compact", need, free, |trouble| &mut trouble.compaction));
        }
        let compact = || shared.tree.reconcile().and_then(|()| shared.tree.compact(&|| self.note_version()));
        let compacted = match compact() {
            Ok(compacted) => compacted,
            Err(error) => return self.not_compacted(&due.tables, error),
        };
        lock(&shared.trouble).compaction.worked();
        shared.counters.compactions.fetch_add(u64::from(compacted), Relaxed);
        Ok(compacted)
    }

    /// A compaction has failed: if it was for a table that it read, that one is taken out and the next compaction does
    /// without it.
    fn not_compacted(&self, tables: &[u64], error: Error) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        if passes(&error) {
            return Err(self.fault("compact", error, |trouble| &mut trouble.compaction));
        }
        self.sweep("compact", &error)?;
        match self.mend(&Suspect::Tables(tables)) {
            Ok(true) => {
                shared.counters.failures.fetch_add(1, Relaxed);
                Ok(true)
            }
            // All that it read is sound: a read has failed for a moment, or a write.
            Ok(false) => Err(self.fault("compact", error, |trouble| &mut trouble.compaction)),
            Err(fault) => {
                lock(&shared.trouble).compaction.failed(format!("{error}; {fault}"));
                Err(fault)
            }
        }
    }

    /// Keeps a copy of the list of tables. Without it a damaged list costs the whole tree; so it is not worth a fault
    /// of its own.
    fn note_version(&self) {
        let shared = &self.shared;
        if let Err(error) = note_version(shared.disk.as_ref(), &shared.dir, &shared.tree) {
            tracing::warn!(dir = %shared.dir.display(), %error, "no copy is kept of the tree's list of tables");
        }
    }

    fn no_room_to(&self, what: &str, need: u64, free: u64, of: fn(&mut Trouble) -> &mut Backoff) -> StoreFault {
        let why = format!("no room to {what}: it needs {need} bytes, {free} are free");
        // Said once, not at every look.
        if of(&mut lock(&self.shared.trouble)).waits(why.clone()) {
            tracing::warn!(dir = %self.shared.dir.display(), why);
        }
        StoreFault::Full
    }

    /// Removes what a failed flush or compaction has left: or it would take more room with each attempt.
    fn sweep(&self, tried: &str, error: &Error) -> Result<(), StoreFault> {
        match self.shared.tree.sweep() {
            Ok(Sweep::Removed(_)) => Ok(()),
            // The next attempt begins with the version on the disk.
            Ok(Sweep::Unclear) if passes(error) => Ok(()),
            Ok(Sweep::Unclear) => {
                Err(self.shared.poison.set(tried, &format!("{error}, and it is not known which version of the tree counts")))
            }
            Err(error) => {
                tracing::warn!(dir = %self.shared.dir.display(), %error, "what a failed {tried} has left could not be removed");
                Ok(())
            }
        }
    }

    /// What a tree error means for the store. Of work that has not been published nothing is left, and nobody relies on
    /// it: it is tried again with new files, but not for ever on a disk that cannot write.
    fn fault(&self, tried: &str, error: Error, of: fn(&mut Trouble) -> &mut Backoff) -> StoreFault {
        let shared = &self.shared;
        shared.counters.failures.fetch_add(1, Relaxed);
        if let Err(fault) = self.sweep(tried, &error) {
            return fault;
        }
        let fault = match &error {
            Error::Io(error) if no_room(error) => StoreFault::Full,
            Error::Io(error) if is_short(error) => StoreFault::Busy,
            Error::Io(error) if of(&mut lock(&shared.trouble)).failures() + 1 >= MOST_FAILURES => {
                return shared.poison.set(tried, error);
            }
            error => StoreFault::Damaged(format!("cannot {tried}: {error}")),
        };
        of(&mut lock(&shared.trouble)).failed(format!("cannot {tried}: {error}"));
        fault
    }
}

/// Whether an error is over when there is room, descriptors or memory again.
fn passes(error: &Error) -> bool {
    matches!(error, Error::Io(error) if no_room(error) || is_short(error))
}

/// How far maintenance stands back. Writes are answered busy when it falls behind, so it must not starve: at 10 a tenth
/// would be left to it.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Lets other threads go before this one, where the system can do that for a thread alone. If it does not, nothing is
/// wrong.
fn stand_back() {
    // Linux counts niceness per thread, and no process means the calling thread. Elsewhere it would be that of the
    // whole process.
    #[cfg(target_os = "linux")]
    if rustix::process::getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Tells what is wrong with a store, from any thread. It does not keep the store open.
#[derive(Clone)]
pub struct StoreWatch {
    shared: Weak<Shared>,
}

impl StoreWatch {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// As [`ShardStore::problems`](crate::ShardStore::problems); none once the store is closed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.upgrade().map_or_else(Vec::new, |shared| shared.problems())
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
