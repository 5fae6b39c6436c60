//! Background work: flushes, compactions, repairs of damaged tables, rows that are written anew under another key,
//! retiring segments, and watching the free space.
//!
//! Work that fails is tried again with new files after a pause. Only a store that cannot tell which version of its tree
//! is the current one, or fails five times in a row, is stopped.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rejoin_core::port::StoreFault;

use super::failures::{BackgroundFailures, Backoff, DamageReports};
use super::files::{remove_quarantine, remove_set_aside, save_table_list};
use super::reseal::{ResealStep, SealedRows};
use super::shared::Shared;
use super::signal::lock;
use super::tree::{DueCompaction, RepairContext, SuspectTables, Sweep, TableFile, TreeError};
use crate::io_cause::IoCause;

/// The time between two turns when nothing happens, in which the free space is looked at.
const IDLE: Duration = Duration::from_secs(10);
/// The time between two turns while the disk is full or something has failed.
const RETRY: Duration = Duration::from_secs(1);
/// The least time between two turns for the room of removed rows.
const AT_LEAST: Duration = Duration::from_millis(100);
/// Failures in a row of one kind of work that stop the store, other than for damage and for errors that pass.
const MAX_FAILURES: u32 = 5;

/// Selects the failures of one kind of work.
type Kind = fn(&mut BackgroundFailures) -> &mut Backoff;

const FLUSH: Kind = |failures| &mut failures.flush;
const COMPACTION: Kind = |failures| &mut failures.compaction;
const REPAIR: Kind = |failures| &mut failures.repair;
const RESEAL: Kind = |failures| &mut failures.reseal;

/// The work of one run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct WorkDone {
    /// Whether sealed memtables were flushed.
    pub flushed: bool,
    /// Whether there was a compaction; a run has at most one.
    pub compacted: bool,
    /// Whether there is more work to do at once.
    pub more: bool,
}

/// Flushes, compacts and retires segments. Call [`Maintenance::turn`] whenever [`Options::on_work`](crate::Options) is
/// called and after the time that it returns, or give a thread to [`Maintenance::run_until_stopped`].
pub struct Maintenance {
    shared: Arc<Shared>,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Does the work that is due, without a pause also what has failed before. Blocks for as long as that takes; a
    /// flush syncs the journal first.
    ///
    /// # Errors
    /// [`StoreFault::Full`]: no room to flush or compact; try again. [`StoreFault::Busy`]: the system is out of
    /// descriptors or memory; try again. [`StoreFault::Damaged`]: a table is damaged and could not be taken out of the
    /// tree yet; writes and reads go on. [`StoreFault::Failed`]: the store has stopped.
    pub fn run(&self) -> Result<WorkDone, StoreFault> {
        self.guarded(false)
    }

    fn guarded(&self, patient: bool) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        let _one_at_a_time = lock(&shared.running);
        shared.poison.check()?;
        // lsm-tree asserts its invariants. A panic must not end the thread silently while writes pile up.
        let work = catch_unwind(AssertUnwindSafe(|| self.work(patient)));
        work.unwrap_or_else(|_| Err(shared.poison.set("flush or compact", &"the tree has panicked")))
    }

    /// Does the work that is due, except what has just failed. Returns the time until the next turn, unless `on_work`
    /// is called before; `None` once the store has failed.
    #[must_use]
    pub fn turn(&self) -> Option<Duration> {
        let done = self.guarded(true).and_then(|done| self.confirm_if_idle(done).map(|()| done));
        match done {
            Ok(done) if done.more => Some(Duration::ZERO),
            Ok(_) if lock(&self.shared.failures).any() => Some(RETRY),
            Ok(_) if !self.shared.full.load(Relaxed) => {
                let reclaim = self.shared.reclaim.due_in(self.shared.options.reclaim_rows);
                let reseal = self.shared.sealing.as_ref().and_then(|sealing| sealing.due_in());
                Some(reclaim.into_iter().chain(reseal).min().map_or(IDLE, |due| due.clamp(AT_LEAST, IDLE)))
            }
            Ok(_) | Err(StoreFault::Full) => Some(RETRY),
            Err(StoreFault::Failed(_)) => None,
            Err(fault) => {
                tracing::error!(dir = %self.shared.paths.dir.display(), %fault, "maintenance of the store has failed");
                Some(RETRY)
            }
        }
    }

    /// Takes a turn whenever one is due, until the store is dropped, has failed, or is stopped by
    /// [`Maintenance::stopper`].
    pub fn run_until_stopped(&self) {
        let mut pause = Some(IDLE);
        while let Some(at_most) = pause
            && self.shared.signal.wait(at_most)
        {
            pause = self.turn();
        }
    }

    /// Runs [`Maintenance::run_until_stopped`] on a thread of this name. On Linux it has a lower priority than the
    /// threads that serve requests: nice value 5, a third of their share when processors are short.
    ///
    /// # Errors
    /// What the operating system says if there is no thread.
    pub fn spawn(self, name: &str) -> io::Result<MaintenanceThread> {
        let stopper = self.stopper();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            lower_priority();
            self.run_until_stopped();
        })?;
        Ok(MaintenanceThread { stopper, thread: Some(thread) })
    }

    /// A handle that stops [`Maintenance::run_until_stopped`].
    #[must_use]
    pub fn stopper(&self) -> StopMaintenance {
        StopMaintenance { shared: Arc::clone(&self.shared) }
    }

    /// Does every kind of work, the most urgent first. If it is `patient`, failed work waits until its pause is over.
    fn work(&self, patient: bool) -> Result<WorkDone, StoreFault> {
        let shared = &self.shared;
        self.watch_space();
        self.watch_removals(patient);
        let waits = |kind: Kind| patient && kind(&mut lock(&shared.failures)).left().is_some();
        // A failure of one kind of work must not delay another: flushes go on while a damaged table cannot be
        // compacted, and before tables are read for damage.
        let flushed = if waits(FLUSH) { Ok(false) } else { self.flush() };
        let verified = if waits(REPAIR) { Ok(()) } else { self.verify_reported() };
        let compacted = if waits(COMPACTION) { Ok(false) } else { self.compact(patient) };
        shared.counters.l0_runs.store(shared.tree.l0_runs(), Relaxed);
        let idle = matches!(compacted, Ok(false)) && verified.is_ok();
        let resealed = if !idle || waits(RESEAL) { Ok(false) } else { self.reseal(patient) };
        let (flushed, compacted) = (flushed?, compacted?);
        verified?;
        let again = resealed? || compacted;
        let more = again || lock(&shared.gate).sealed.is_some() && lock(&shared.failures).flush.left().is_none();
        Ok(WorkDone { flushed, compacted, more })
    }

    /// Confirms the last sync in the mark if there was no sync between two turns.
    fn confirm_if_idle(&self, done: WorkDone) -> Result<(), StoreFault> {
        let durable = lock(&self.shared.durable).position.index;
        let before = self.shared.idle_at.swap(durable, Relaxed);
        if done.more || before != durable { Ok(()) } else { self.shared.confirm() }
    }

    /// Refuses writes below the floor of free space, and takes them again when there is room above it for a segment and
    /// for what waits to be flushed.
    fn watch_space(&self) {
        let shared = &self.shared;
        let Ok(free) = self.free() else { return };
        let floor = shared.options.free_space_floor;
        if free < floor {
            let dir = shared.paths.dir.display();
            // Damaged tables and overwritten rows are kept only while there is room.
            remove_quarantine(&shared.paths);
            remove_set_aside(&shared.paths);
            let snapshots = shared.tree.expire_snapshots();
            if snapshots > 0 {
                tracing::warn!(%dir, snapshots, "too little free space: snapshots were given up");
            }
            if !shared.full.swap(true, Relaxed) {
                tracing::error!(%dir, free, floor, "too little free space: writes are refused, reads go on");
            }
        } else if free >= self.room_needed() && shared.full.swap(false, Relaxed) {
            tracing::info!(dir = %shared.paths.dir.display(), free, "there is room again: writes are taken");
        }
    }

    /// Asks for the memtable to be sealed, if the removals in it are worth it.
    fn watch_removals(&self, patient: bool) {
        let (reclaim, least) = (&self.shared.reclaim, self.shared.options.reclaim_rows);
        if reclaim.is_worth_it(self.shared.tree.removed_rows(), least) {
            reclaim.consider_seal(least, patient);
        }
    }

    /// The free bytes on the disk. An error is not a failure of the store: work that needs room will notice.
    fn free(&self) -> Result<u64, StoreFault> {
        let paths = &self.shared.paths;
        let free = self.shared.disk.free_space(&paths.journal);
        free.map_err(|error| {
            tracing::warn!(dir = %paths.dir.display(), %error, "cannot look at the free space");
            StoreFault::Busy
        })
    }

    /// The free bytes from which on writes are taken again.
    fn room_needed(&self) -> u64 {
        let shared = &self.shared;
        let (tree, options) = (&shared.tree, &shared.options);
        let stuck = shared.counters.l0_runs.load(Relaxed) >= options.max_l0_runs;
        let compaction = if stuck { tree.due_compaction().map_or(0, |due| due.bytes) } else { 0 };
        (options.free_space_floor + options.segment_bytes).max(tree.flush_bytes() + compaction)
    }

    /// Verifies the tables in which reads have met damage, and takes out those that are damaged.
    fn verify_reported(&self) -> Result<(), StoreFault> {
        let shared = &self.shared;
        let DamageReports { keys, behind } = std::mem::take(&mut *lock(&shared.damage_reports));
        if behind.is_none() && keys.is_empty() {
            lock(&shared.failures).repair.succeeded();
            return Ok(());
        }
        let at_keys = if keys.is_empty() { Ok(false) } else { self.repair(&SuspectTables::Keys(&keys)) };
        let verified = at_keys
            .and_then(|_| behind.as_ref().map_or(Ok(false), |behind| self.repair(&SuspectTables::Behind(behind))));
        if verified.is_err() {
            let mut reports = lock(&shared.damage_reports);
            reports.keys.extend(keys);
            reports.behind = reports.behind.take().or(behind);
        }
        verified.map(drop)
    }

    /// Takes damaged tables out of the tree. Returns whether there were any.
    fn repair(&self, suspects: &SuspectTables<'_>) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let context =
            RepairContext { save_lost: &|lost| shared.write_lost_ranges(lost), quarantine: &shared.paths.quarantine() };
        let repaired = shared.tree.repair(suspects, &context);
        let lines = repaired.map_err(|error| self.fault("take a damaged table out of the tree", &error, REPAIR))?;
        lock(&shared.failures).repair.succeeded();
        if !lines.is_empty() {
            shared.write_table_list();
        }
        for what in &lines {
            tracing::error!(dir = %shared.paths.dir.display(), what, "a table of the tree is damaged");
        }
        shared.counters.lost_ranges.store(shared.tree.lost().ranges().len() as u64, Relaxed);
        Ok(!lines.is_empty())
    }

    /// Flushes the sealed memtable, and retires the segments that held no other rows.
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
        if let Some(sealing) = &shared.sealing {
            sealing.flushed();
        }
        Ok(flushed)
    }

    /// Syncs the journal and flushes: the tree must never hold rows that a start could cut from the journal as torn.
    fn flush_sealed(&self) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        shared.sync()?;
        shared.confirm()?;
        let need = shared.tree.flush_bytes();
        let free = self.free()?;
        if free < need {
            // Not `set_full`, which would wake this thread to try again at once.
            shared.full.store(true, Relaxed);
            return Err(self.no_room_to("flush", need, free, FLUSH));
        }
        let flushed = shared.tree.reconcile().and_then(|()| shared.tree.flush()).map_err(|error| {
            let fault = self.fault("flush the memtable", &error, FLUSH);
            shared.full.fetch_or(fault == StoreFault::Full, Relaxed);
            fault
        })?;
        shared.write_table_list();
        lock(&shared.failures).flush.succeeded();
        shared.counters.flushes.fetch_add(u64::from(flushed), Relaxed);
        Ok(flushed)
    }

    /// The compaction that is due. One for the room of removed rows comes last, and waits if it is `patient`.
    fn due_compaction(&self, patient: bool) -> Option<DueCompaction> {
        let Shared { tree, reclaim, options, .. } = &*self.shared;
        tree.due_compaction().or_else(|| {
            let may = !patient || reclaim.may_compact();
            let rows = tree.removed_rows();
            let worth_it = rows.removed > 0 && reclaim.is_worth_it(rows, options.reclaim_rows);
            if may && worth_it { tree.due_reclaim() } else { None }
        })
    }

    /// Does the compaction that is due, if its result has room beside its inputs.
    fn compact(&self, patient: bool) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let Some(due) = self.due_compaction(patient) else {
            lock(&shared.failures).compaction.succeeded();
            return Ok(false);
        };
        let (need, free) = (due.bytes + shared.tree.flush_bytes(), self.free()?);
        if free < need {
            let stuck = shared.counters.l0_runs.load(Relaxed) >= shared.options.max_l0_runs;
            shared.full.fetch_or(stuck, Relaxed);
            return Err(self.no_room_to("compact", need, free, COMPACTION));
        }
        let begun = Instant::now();
        let compact = || {
            shared.tree.reconcile()?;
            shared.tree.save_removals(&due.tables, &|lost| shared.write_lost_ranges(lost))?;
            shared.tree.compact(&due, &|| shared.write_table_list())
        };
        let compacted = match compact() {
            Ok(compacted) => compacted,
            Err(error) => return self.not_compacted(&due.tables, &error),
        };
        if due.frees {
            shared.reclaim.compacted(begun.elapsed());
            shared.counters.reclaims.fetch_add(u64::from(compacted), Relaxed);
        }
        lock(&shared.failures).compaction.succeeded();
        shared.counters.compactions.fetch_add(u64::from(compacted), Relaxed);
        Ok(compacted)
    }

    /// Handles a failed compaction. If one of its inputs is damaged, that table is taken out, and the next compaction
    /// does without it.
    fn not_compacted(&self, tables: &[u64], error: &TreeError) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        if error.cause().is_transient() {
            return Err(self.fault("compact", error, COMPACTION));
        }
        self.sweep("compact", error)?;
        match self.repair(&SuspectTables::Tables(tables)) {
            Ok(true) => {
                shared.counters.failures.fetch_add(1, Relaxed);
                Ok(true)
            }
            // The inputs are sound: a read has failed once, or a write.
            Ok(false) => Err(self.fault("compact", error, COMPACTION)),
            Err(fault) => {
                lock(&shared.failures).compaction.failed(format!("{error}; {fault}"));
                Err(fault)
            }
        }
    }

    /// Takes a step towards having no rows under older keys. Returns whether there may be another one at once.
    fn reseal(&self, patient: bool) -> Result<bool, StoreFault> {
        let shared = &self.shared;
        let Some(sealing) = &shared.sealing else { return Ok(false) };
        let begun = Instant::now();
        match sealing.step(&shared.tree.table_files(), patient) {
            ResealStep::None | ResealStep::Seal => return Ok(false),
            ResealStep::Look(table) => match shared.tree.has_older_rows(table, sealing.sealer()) {
                Ok(has_older) => sealing.looked(table, has_older),
                Err(error) => return self.not_resealed(&[table], &error),
            },
            ResealStep::Rewrite(tables) => {
                let (need, free) = (tables.iter().map(TableFile::room).sum::<u64>(), self.free()?);
                if free < need + shared.options.free_space_floor {
                    return Err(self.no_room_to("write rows anew under another key", need, free, RESEAL));
                }
                let save_copy = |list: &[u8]| save_table_list(shared.disk.as_ref(), &shared.paths, list);
                if let Err(error) = shared.tree.reseal(&tables, sealing.sealer(), &save_copy) {
                    return self.not_resealed(&tables, &error);
                }
            }
            ResealStep::Finish => {
                // What is kept there to be looked at may have rows of before.
                remove_quarantine(&shared.paths);
                remove_set_aside(&shared.paths);
                if let Err(error) = sealing.finish(shared.disk.as_ref(), &shared.paths.dir) {
                    return Err(self.fault("note that older keys are needed no more", &error.into(), RESEAL));
                }
            }
        }
        lock(&shared.failures).reseal.succeeded();
        sealing.took(begun.elapsed());
        // Without patience there is no pause.
        Ok(!patient)
    }

    /// As [`Self::not_compacted`], for tables that were to be read or written anew.
    fn not_resealed(&self, tables: &[TableFile], error: &TreeError) -> Result<bool, StoreFault> {
        let numbers: Vec<u64> = tables.iter().map(|table| table.id).collect();
        if error.cause().is_damage() && self.repair(&SuspectTables::Tables(&numbers))? {
            return Ok(true);
        }
        Err(self.fault("write rows anew under another key", error, RESEAL))
    }

    fn no_room_to(&self, what: &str, need: u64, free: u64, kind: Kind) -> StoreFault {
        let why = format!("no room to {what}: it needs {need} bytes, {free} are free");
        // Logged once, not at every turn.
        if kind(&mut lock(&self.shared.failures)).blocked(why.clone()) {
            tracing::warn!(dir = %self.shared.paths.dir.display(), why);
        }
        StoreFault::Full
    }

    /// Removes the files that a failed flush or compaction has left. Otherwise each attempt would take more room.
    fn sweep(&self, tried: &str, error: &TreeError) -> Result<(), StoreFault> {
        match self.shared.tree.sweep() {
            Ok(Sweep::Removed(_)) => Ok(()),
            // The next attempt begins with the version on the disk.
            Ok(Sweep::Unclear) if error.cause().is_transient() => Ok(()),
            Ok(Sweep::Unclear) => Err(self
                .shared
                .poison
                .set(tried, &format!("{error}, and it is not known which version of the tree counts"))),
            Err(error) => {
                tracing::warn!(dir = %self.shared.paths.dir.display(), %error, "the files of a failed {tried} could \
                    not be removed");
                Ok(())
            }
        }
    }

    /// Handles a failure of the tree. Work that was not published has left nothing, and nobody relies on it. So it is
    /// tried again with new files, but not for ever on a disk that cannot write.
    fn fault(&self, tried: &str, error: &TreeError, kind: Kind) -> StoreFault {
        let shared = &self.shared;
        shared.counters.failures.fetch_add(1, Relaxed);
        if let Err(fault) = self.sweep(tried, error) {
            return fault;
        }
        let fault = match error.cause() {
            IoCause::NoRoom => StoreFault::Full,
            IoCause::OutOfResources => StoreFault::Busy,
            _ if error.is_io() && kind(&mut lock(&shared.failures)).failures() + 1 >= MAX_FAILURES => {
                return shared.poison.set(tried, error);
            }
            _ => StoreFault::Damaged(format!("cannot {tried}: {error}")),
        };
        kind(&mut lock(&shared.failures)).failed(format!("cannot {tried}: {error}"));
        fault
    }
}

/// The nice value of maintenance. Writes are answered busy when it falls behind, so it must not starve: 10 would leave
/// it a tenth of a processor.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Lowers the priority of this thread, where the system can do that for a single thread. A failure does no harm.
fn lower_priority() {
    // On Linux `None` is the calling thread. Elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if rustix::process::getpriority_process(None).is_ok_and(|now| now < NICE) {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// Returns the problems of a store, on any thread. It does not keep the store open.
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

    /// As [`ShardStore::sealed_rows`](crate::ShardStore::sealed_rows); `None` once the store is closed.
    #[must_use]
    pub fn sealed_rows(&self) -> Option<SealedRows> {
        self.shared.upgrade().and_then(|shared| shared.sealed_rows())
    }
}

/// A handle that stops [`Maintenance::run_until_stopped`].
#[derive(Clone)]
pub struct StopMaintenance {
    shared: Arc<Shared>,
}

impl StopMaintenance {
    /// Ends it after its present run.
    pub fn stop(&self) {
        self.shared.signal.stop();
    }
}

/// A maintenance thread. Dropping it stops and joins the thread.
pub struct MaintenanceThread {
    stopper: StopMaintenance,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MaintenanceThread {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was turned into a fault of the store already.
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
            lower_priority();
            nice()
        });
        assert_eq!((inside.join().expect("no panic"), nice()), (NICE.max(before), before));
    }
}
