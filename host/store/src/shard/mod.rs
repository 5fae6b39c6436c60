//! One shard's store: a [`Store`] over journal, tree and pinned rows.

mod maintenance;
mod open;
mod options;
mod recent;
mod shared;
mod stats;
mod sync;
mod tree;
mod unbegun;
mod young;

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use recent::Recent;
use shared::{Place, Shared, lock};
use unbegun::Unbegun;
use young::Young;

use rejoin_core::port::{Change, Journal, Row, Space, Store, StoreFault};

use crate::disk::{is_short, no_room};
use crate::error::FileError;
use crate::journal::{Writer, is_key_length};
use crate::pinned::{Key, Pinned};

pub use maintenance::{Maintenance, MaintenanceThread, StopMaintenance, StoreWatch, WorkDone};
pub use open::Recovery;
pub use options::Options;
pub use rejoin_core::port::CommitSeq;
pub use stats::Stats;
pub use sync::Syncer;
pub use tree::Descriptors;
pub(crate) use tree::remove_unlisted;

/// The store of one shard, owned by the shard. Dropping it stops its [`Maintenance`] and syncs nothing: see
/// [`ShardStore::close`].
pub struct ShardStore {
    shared: Arc<Shared>,
    writer: Writer,
    pinned: Pinned,
    /// Behind a cell, since reads fill it too.
    recent: RefCell<Recent>,
    /// Behind a cell, since a scan hands them to the tree.
    young: RefCell<Young>,
    /// The active memtable's size, without the young rows.
    memtable_bytes: Cell<u64>,
    /// The last record in the journal file.
    committed: CommitSeq,
    /// Bytes committed since [`ShardStore::sync_is_due`] last said so.
    unsynced: u64,
    /// What is left of the start until there is room for it.
    unbegun: Option<Box<Unbegun>>,
}

impl ShardStore {
    /// Writes all changes since the last commit to the journal file, in one call. From its return on they survive the
    /// end of this process, not yet that of the machine. With nothing to write it is cheap. May begin a new segment and
    /// seal the memtable.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: the write failed, the store is poisoned and the node must stop.
    pub fn commit(&mut self) -> Result<CommitSeq, StoreFault> {
        self.shared.poison.check()?;
        if !self.writer.at_boundary() {
            let (position, bytes) = self.writer.write_batch().map_err(|error| self.shared.poison.set("write to the journal", &error))?;
            self.shared.counters.commits.fetch_add(1, Relaxed);
            self.shared.counters.journal_bytes.fetch_add(bytes, Relaxed);
            lock(&self.shared.written).committed = position;
            self.committed = CommitSeq(position.index);
            self.unsynced += bytes;
        }
        self.turn_over()?;
        Ok(self.committed)
    }

    /// Whether [`Options::sync_bytes`] were committed since it last was. A sync is then due even if nobody waits for
    /// it: what nobody has synced is left to the next flush, and would be written back in one go.
    pub fn sync_is_due(&mut self) -> bool {
        let due = self.unsynced >= self.shared.options.sync_bytes;
        if due {
            self.unsynced = 0;
        }
        due
    }

    /// Commits and syncs: a clean stop of this shard. Afterwards, when all shards are closed, the node leaves the
    /// clean-stop mark.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: no clean-stop mark may be left.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.commit()?;
        self.syncer().sync()?;
        if let Some(unbegun) = &self.unbegun {
            return unbegun.is_as_it_was_left();
        }
        if let Err(error) = self.writer.trim() {
            tracing::warn!(dir = %self.shared.dir.display(), %error, "the room behind the journal's end is not given back");
        }
        Ok(())
    }

    /// A handle that makes commits durable, from any thread.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer::new(Arc::clone(&self.shared))
    }

    /// A handle that flushes, compacts and retires segments, on a thread of the caller's.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(Arc::clone(&self.shared))
    }

    /// Says that every actor of this shard that [`Recovery::lost`] put in doubt has durably ended. Until then each
    /// start repeats what was lost.
    ///
    /// # Errors
    /// [`FileError`] if the note cannot be removed; it is then repeated.
    pub fn settle_loss(&self) -> Result<(), FileError> {
        open::forget_loss(self.shared.disk.as_ref(), &self.shared.dir)
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What is wrong with this store at the moment, for people, one line each; none if nothing is. Asks the disk for
    /// its free space.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.problems()
    }

    /// A handle that tells [`ShardStore::problems`] from any thread.
    #[must_use]
    pub fn watch(&self) -> StoreWatch {
        StoreWatch::new(&self.shared)
    }

    /// Begins a new segment and seals the memtable when they have had their share, in steps if there is much to copy.
    /// Only between batches.
    fn turn_over(&mut self) -> Result<(), StoreFault> {
        if self.unbegun.is_some() {
            return Ok(());
        }
        let memtable_bytes = self.memtable_bytes();
        self.shared.counters.memtable_bytes.store(memtable_bytes, Relaxed);
        let seal = self.must_seal();
        // A segment that is begun is finished, even if what called for it has passed.
        if !seal && !self.writer.is_full() && !self.writer.has_next() {
            return Ok(());
        }
        let share = self.shared.options.memtable_bytes;
        let late = self.writer.is_late() || seal && memtable_bytes >= share.saturating_add(share / 8);
        if self.writer.has_records() && !self.switch(late)? {
            return Ok(());
        }
        if seal {
            self.seal();
        }
        Ok(())
    }

    /// Whether the memtable is to be sealed, and can be.
    fn must_seal(&self) -> bool {
        let options = &self.shared.options;
        let live = self.shared.live_segments(self.writer.number());
        if self.memtable_bytes() < options.memtable_bytes && live <= options.max_segments {
            return false;
        }
        // A flush takes all sealed memtables at once and has synced the journal only up to those it knew. This one
        // waits.
        let gate = lock(&self.shared.gate);
        !gate.flushing && gate.sealed.is_none()
    }

    /// Seals the memtable, which [`Self::must_seal`] has allowed: a flush begins only behind what is sealed here.
    fn seal(&mut self) {
        self.hand_over();
        let shared = &self.shared;
        let mut gate = lock(&shared.gate);
        shared.tree.rotate();
        self.memtable_bytes.set(0);
        gate.sealed = Some(self.writer.number());
        drop(gate);
        shared.counters.memtable_bytes.store(0, Relaxed);
        shared.signal.work_is_due();
    }

    /// Goes a step towards the next segment, or all the way. Returns whether it is the open one now; or whether it need
    /// not be waited for: on a full disk the old one goes on, and further writes are refused.
    fn switch(&mut self, at_once: bool) -> Result<bool, StoreFault> {
        if self.shared.full.load(Relaxed) {
            self.writer.abandon();
            return Ok(true);
        }
        match self.writer.advance(&self.pinned, at_once) {
            Ok(false) => {
                self.sync_next_along();
                Ok(false)
            }
            Ok(true) => {
                let mut written = lock(&self.shared.written);
                written.files.push(self.writer.file());
                written.names = true;
                self.shared.counters.last_segment.store(self.writer.number(), Relaxed);
                Ok(true)
            }
            Err(error) if no_room(&error) => {
                self.shared.set_full();
                Ok(true)
            }
            Err(error) if is_short(&error) => {
                if self.shared.counters.short.fetch_add(1, Relaxed).is_power_of_two() {
                    let dir = self.shared.dir.display();
                    tracing::warn!(%dir, %error, "the journal goes on in its segment: the system is out of descriptors or memory");
                }
                Ok(true)
            }
            Err(error) => Err(self.shared.poison.set("begin a journal segment", &error)),
        }
    }

    /// Has the next sync take a part of the next segment along. Nobody relies on that: once it is the open segment, it
    /// is synced as such.
    fn sync_next_along(&mut self) {
        let Some(file) = self.writer.next_to_sync() else { return };
        let mut written = lock(&self.shared.written);
        let open = written.files.len() - 1;
        if !written.files.iter().any(|other| Arc::ptr_eq(other, &file)) {
            written.files.insert(open, file);
        }
    }

    /// What waits for a flush in memory.
    fn memtable_bytes(&self) -> u64 {
        self.memtable_bytes.get() + self.young.borrow().bytes()
    }

    /// Gives the tree every row that it does not have yet.
    fn hand_over(&self) {
        let rows = self.young.borrow_mut().take();
        for (key, value) in rows {
            self.memtable_bytes.set(self.shared.tree.apply(&key, value.as_deref()));
        }
    }

    /// Whether flushes or compactions are too far behind to take more.
    fn is_behind(&self) -> bool {
        let options = &self.shared.options;
        self.memtable_bytes() >= options.memtable_bytes.saturating_mul(2)
            || self.shared.counters.l0_runs.load(Relaxed) >= options.max_l0_runs
    }

    /// Refuses what would not fit.
    fn admit(&mut self, rows: &[Row]) -> Result<(), StoreFault> {
        if self.shared.full.load(Relaxed) {
            return Err(StoreFault::Full);
        }
        if self.unbegun.is_some() {
            self.begin_now()?;
        }
        // A caller's mistake: nothing is written, because the journal would hold what no start could put into the tree.
        if let Some(row) = rows.iter().find(|row| !is_key_length(row.key.len())) {
            return Err(StoreFault::Failed(format!("a row's key has 1 to 65535 bytes, not {}", row.key.len())));
        }
        if self.is_behind() {
            if self.writer.at_boundary() {
                self.turn_over()?;
            }
            if self.is_behind() {
                self.shared.counters.busy.fetch_add(1, Relaxed);
                self.shared.signal.work_is_due();
                return Err(StoreFault::Busy);
            }
        }
        match self.writer.reserve(rows) {
            Ok(()) => Ok(()),
            Err(error) if no_room(&error) => {
                self.shared.set_full();
                Err(StoreFault::Full)
            }
            Err(error) if is_short(&error) => {
                self.shared.counters.short.fetch_add(1, Relaxed);
                Err(StoreFault::Busy)
            }
            // A caller's mistake, not the disk's: nothing was written and nothing is in doubt.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(StoreFault::Failed(error.to_string())),
            Err(error) => Err(self.shared.poison.set("reserve room in the journal", &error)),
        }
    }
}

impl Journal for ShardStore {
    fn commit(&mut self) -> Result<CommitSeq, StoreFault> {
        ShardStore::commit(self)
    }

    fn sync_is_due(&mut self) -> bool {
        ShardStore::sync_is_due(self)
    }
}

impl Store for ShardStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        self.shared.poison.check()?;
        match space {
            Space::Pinned => Ok(self.pinned.get(key).cloned()),
            Space::Objects => {
                if let Some(row) = self.recent.borrow().get(key) {
                    return Ok(Some(row));
                }
                let young = self.young.borrow().get(key).cloned();
                let row = match young {
                    Some(row) => row,
                    None => self.shared.tree.get(key).map_err(|fault| self.shared.read_fault(fault, Place::Key(key)))?,
                };
                if let Some(row) = &row {
                    self.recent.borrow_mut().put(Bytes::copy_from_slice(key), row.clone());
                }
                Ok(row)
            }
        }
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        self.shared.poison.check()?;
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        match space {
            Space::Objects => {
                self.hand_over();
                let (mut last, mut visited) = (from.to_vec(), false);
                let mut visit = |key: &[u8], value| {
                    last.clear();
                    last.extend_from_slice(key);
                    visited = true;
                    visit(key, value)
                };
                let scanned = self.shared.tree.scan(range, &mut visit);
                let bound = if visited { Bound::Excluded(last.into()) } else { Bound::Included(last.into()) };
                scanned.map_err(|fault| self.shared.read_fault(fault, Place::Behind(bound)))
            }
            Space::Pinned => {
                let rows = self.pinned.range::<[u8], _>(range);
                let _ = rows.into_iter().try_for_each(|(key, value)| visit(key, value.clone()));
                Ok(())
            }
        }
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        self.shared.poison.check()?;
        if change.rows.is_empty() {
            return Ok(());
        }
        self.admit(&change.rows)?;
        self.writer.gather(&change.rows);
        for row in change.rows {
            match (row.space, row.value) {
                (Space::Pinned, value) => {
                    self.writer.change(&row.key);
                    match value {
                        // Copied: what a row was encoded into has room for larger ones, and some 10⁵ rows stay for a
                        // while.
                        Some(value) => drop(self.pinned.insert(Key::from_slice(&row.key), Bytes::copy_from_slice(&value))),
                        None => drop(self.pinned.remove(row.key.as_ref())),
                    }
                }
                (Space::Objects, value) => {
                    match &value {
                        Some(value) => self.recent.get_mut().put(row.key.clone(), value.clone()),
                        None => self.recent.get_mut().remove(&row.key),
                    }
                    self.young.get_mut().put(row.key, value);
                }
            }
        }
        if self.young.get_mut().is_full(self.shared.options.young_rows) {
            self.hand_over();
        }
        Ok(())
    }
}

impl Drop for ShardStore {
    fn drop(&mut self) {
        self.shared.signal.stop();
    }
}
