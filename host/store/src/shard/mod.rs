//! One shard's store: a [`Store`] over journal, write buffer, tree and pinned rows.
//!
//! [`ShardStore`] belongs to the shard and is the only writer. It never syncs, flushes or compacts: [`Syncer`] and
//! [`Maintenance`] do that on other threads, and [`Snapshot`] reads on other threads. What they have in common is in
//! [`shared`].

mod durable;
mod failures;
mod files;
mod maintenance;
mod open;
mod open_tree;
mod options;
mod read_only;
mod reclaim;
mod recovered;
mod reseal;
mod row_cache;
mod shared;
mod signal;
mod snapshot;
mod spaces;
mod stats;
mod sync;
mod tree;
mod write_buffer;

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use failures::ReadPosition;
use read_only::ReadOnly;
use row_cache::RowCache;
use shared::Shared;
use signal::lock;
use write_buffer::WriteBuffer;

use rejoin_core::port::{Change, Journal, Row, Space, Store, StoreFault};

use crate::error::FileError;
use crate::io_cause::IoCause;
use crate::journal::Writer;
use crate::pinned::{Key, Pinned};

pub use maintenance::{Maintenance, MaintenanceThread, StopMaintenance, StoreWatch, WorkDone};
pub use options::Options;
pub use recovered::Recovery;
pub use rejoin_core::port::CommitSeq;
pub use reseal::SealedRows;
pub use snapshot::{ScanError, Snapshot};
pub use stats::Stats;
pub use sync::Syncer;
pub(crate) use tree::remove_unlisted;
pub use tree::{Descriptors, ScanLimit, ScanStep, UnreadableRange};

/// The rows of hash trees that are buffered: so many that draining them takes some milliseconds.
const TREE_BUFFER_ROWS: usize = 16_384;

/// The store of one shard, owned by the shard. Dropping it stops its [`Maintenance`] and syncs nothing: see
/// [`ShardStore::close`].
pub struct ShardStore {
    shared: Arc<Shared>,
    writer: Writer,
    pinned: Pinned,
    /// In a cell, since reads fill it too.
    row_cache: RefCell<RowCache>,
    /// In a cell, since a scan drains it.
    write_buffer: RefCell<WriteBuffer>,
    /// The rows of hash trees that were written since the last seal, or since it was full. Few leaves change very
    /// often, so most of their writes never reach the tree.
    tree_buffer: RefCell<WriteBuffer>,
    /// Bytes in the active memtable, without the buffers.
    memtable_bytes: Cell<u64>,
    /// The last record in the journal file.
    committed: CommitSeq,
    /// Bytes committed since [`ShardStore::sync_is_due`] last returned true.
    unsynced: u64,
    /// Set while the store is read-only.
    read_only: Option<Box<ReadOnly>>,
}

/// The result of a step towards the next segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SegmentSwitch {
    /// The next segment is the open one now.
    Switched,
    /// Pinned rows are still to be copied.
    InProgress,
    /// For want of room, descriptors or memory the old segment goes on. Nothing waits for the next one.
    Deferred,
}

impl ShardStore {
    /// Writes all changes since the last commit to the journal file, in one call. When it returns they survive the end
    /// of this process, but not a power cut. It is cheap with nothing to write. It may begin a new segment and seal the
    /// memtable.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: the write has failed, and the node must stop.
    pub fn commit(&mut self) -> Result<CommitSeq, StoreFault> {
        self.shared.poison.check()?;
        if !self.writer.at_boundary() {
            let (position, bytes) =
                self.writer.write_batch().map_err(|error| self.shared.poison.set("write to the journal", &error))?;
            self.shared.counters.commits.fetch_add(1, Relaxed);
            self.shared.counters.journal_bytes.fetch_add(bytes, Relaxed);
            lock(&self.shared.unsynced).committed = position;
            self.committed = CommitSeq(position.index);
            self.unsynced += bytes;
        }
        self.rotate()?;
        Ok(self.committed)
    }

    /// Whether [`Options::sync_bytes`] were committed since this last returned true. A sync is then due although nobody
    /// waits for it: otherwise the next flush would have to sync everything at once.
    pub fn sync_is_due(&mut self) -> bool {
        let due = self.unsynced >= self.shared.options.sync_bytes;
        if due {
            self.unsynced = 0;
        }
        due
    }

    /// Commits and syncs, for a clean stop. When all shards are closed, the node writes the clean-stop mark.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: no clean-stop mark may be written.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.commit()?;
        self.syncer().sync()?;
        self.shared.confirm()?;
        if let Some(read_only) = &self.read_only {
            return read_only.can_stop_cleanly();
        }
        if let Err(error) = self.writer.trim() {
            tracing::warn!(dir = %self.shared.paths.dir.display(), %error, "the room behind the journal's end could \
                not be freed");
        }
        Ok(())
    }

    /// A handle that makes commits durable, from any thread.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer::new(Arc::clone(&self.shared))
    }

    /// A handle that flushes, compacts and retires segments, on the caller's thread.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(Arc::clone(&self.shared))
    }

    /// Opens a snapshot of all object rows as they are now. It costs draining the write buffer, at most 1 MiB; its
    /// steps run on any thread.
    ///
    /// # Errors
    /// [`StoreFault::Failed`] if the store has stopped.
    pub fn snapshot(&self) -> Result<Snapshot, StoreFault> {
        self.shared.poison.check()?;
        self.drain_write_buffer();
        Ok(Snapshot::new(Arc::clone(&self.shared), CommitSeq(self.writer.gathered().index)))
    }

    /// How far the shard's rows are sealed with the key in use; `None` if it has no keys.
    #[must_use]
    pub fn sealed_rows(&self) -> Option<SealedRows> {
        self.shared.sealed_rows()
    }

    /// Records that every actor of this shard that [`Recovery::lost`] put in doubt has durably ended. Until then each
    /// start reports the loss again.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be removed; the next start reports the loss again.
    pub fn settle_loss(&self) -> Result<(), FileError> {
        files::remove_loss(self.shared.disk.as_ref(), &self.shared.paths)
    }

    /// The store's counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// The present problems of this store, for people, one line each. Asks the disk for its free space.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.problems()
    }

    /// A handle that returns [`ShardStore::problems`] on any thread.
    #[must_use]
    pub fn watch(&self) -> StoreWatch {
        StoreWatch::new(&self.shared)
    }

    /// Begins a new segment, and seals the memtable, when they have reached their sizes. With many pinned rows that
    /// takes several calls. Only between batches.
    fn rotate(&mut self) -> Result<(), StoreFault> {
        if self.read_only.is_some() {
            return Ok(());
        }
        let memtable_bytes = self.memtable_bytes();
        self.shared.counters.memtable_bytes.store(memtable_bytes, Relaxed);
        let seal = self.must_seal();
        // A next segment in preparation is finished, even if its reason is gone.
        if !seal && !self.writer.is_full() && !self.writer.has_next() {
            return Ok(());
        }
        let share = self.shared.options.memtable_bytes;
        if seal && self.shared.wants_seal() {
            self.writer.expect_little();
        }
        let late = self.writer.is_late() || seal && memtable_bytes >= share.saturating_add(share / 8);
        if self.writer.has_records() && self.switch_segment(late)? == SegmentSwitch::InProgress {
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
        let due = self.memtable_bytes() >= options.memtable_bytes || live > options.max_segments;
        if !due && !self.shared.wants_seal() {
            return false;
        }
        // A flush under way takes every sealed memtable, but has synced the journal for the earlier ones only.
        let gate = lock(&self.shared.gate);
        !gate.flushing && gate.sealed.is_none()
    }

    /// Seals the memtable after [`Self::must_seal`] has allowed it: no flush is under way, and none begins before the
    /// gate is set.
    fn seal(&mut self) {
        self.drain_write_buffer();
        self.drain_tree_buffer();
        let shared = &self.shared;
        let mut gate = lock(&shared.gate);
        shared.tree.rotate();
        shared.reclaim.sealed();
        if let Some(sealing) = &shared.sealing {
            sealing.memtable_sealed();
        }
        self.memtable_bytes.set(0);
        gate.sealed = Some(self.writer.number());
        drop(gate);
        shared.counters.memtable_bytes.store(0, Relaxed);
        shared.signal.work_is_due();
    }

    /// Takes a step towards the next segment, or all of them `at_once`.
    fn switch_segment(&mut self, at_once: bool) -> Result<SegmentSwitch, StoreFault> {
        if self.shared.full.load(Relaxed) {
            self.writer.abandon();
            return Ok(SegmentSwitch::Deferred);
        }
        let error = match self.writer.advance(&self.pinned, at_once) {
            Ok(false) => {
                self.sync_next_along();
                return Ok(SegmentSwitch::InProgress);
            }
            Ok(true) => {
                let mut unsynced = lock(&self.shared.unsynced);
                unsynced.files.push(self.writer.file());
                unsynced.segment = self.writer.number();
                unsynced.names = true;
                self.shared.counters.last_segment.store(self.writer.number(), Relaxed);
                return Ok(SegmentSwitch::Switched);
            }
            Err(error) => error,
        };
        match IoCause::of(&error) {
            IoCause::NoRoom => self.shared.set_full(),
            IoCause::OutOfResources => {
                if self.shared.counters.short.fetch_add(1, Relaxed).is_power_of_two() {
                    let dir = self.shared.paths.dir.display();
                    tracing::warn!(%dir, %error, "the journal goes on in its segment: the system is out of descriptors \
                        or memory");
                }
            }
            _ => return Err(self.shared.poison.set("begin a journal segment", &error)),
        }
        Ok(SegmentSwitch::Deferred)
    }

    /// Has the next sync include the next segment, if much of it is unsynced. Nothing relies on that: once it is the
    /// open segment, it is synced as such.
    fn sync_next_along(&mut self) {
        let Some(file) = self.writer.next_to_sync() else { return };
        let mut unsynced = lock(&self.shared.unsynced);
        let open = unsynced.files.len() - 1;
        if !unsynced.files.iter().any(|other| Arc::ptr_eq(other, &file)) {
            unsynced.files.insert(open, file);
        }
    }

    /// Visits rows of the tree in key order.
    fn scan_tree(
        &self,
        from: &[u8],
        to: Bound<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        if matches!(to, Bound::Excluded(to) if to <= from) {
            return Ok(());
        }
        let (mut last, mut visited) = (from.to_vec(), false);
        let mut visit = |key: &[u8], value| {
            last.clear();
            last.extend_from_slice(key);
            visited = true;
            visit(key, value)
        };
        let scanned = self.shared.tree.scan((Bound::Included(from), to), &mut visit);
        let bound = if visited { Bound::Excluded(last.into()) } else { Bound::Included(last.into()) };
        scanned.map_err(|fault| self.shared.read_fault(fault, ReadPosition::After(bound)))
    }

    /// Bytes that wait for a flush in memory.
    fn memtable_bytes(&self) -> u64 {
        self.memtable_bytes.get() + self.write_buffer.borrow().bytes() + self.tree_buffer.borrow().bytes()
    }

    /// Moves every row of the write buffer to the tree's memtable.
    fn drain_write_buffer(&self) {
        self.drain(&self.write_buffer);
    }

    /// The same for the rows of hash trees.
    fn drain_tree_buffer(&self) {
        self.drain(&self.tree_buffer);
    }

    fn drain(&self, buffer: &RefCell<WriteBuffer>) {
        let rows = buffer.borrow_mut().take();
        for (key, value) in rows {
            self.memtable_bytes.set(self.shared.tree.apply(&key, value.as_deref()));
        }
    }

    /// Whether flushes or compactions are too far behind for further writes.
    fn is_behind(&self) -> bool {
        let options = &self.shared.options;
        self.memtable_bytes() >= options.memtable_bytes.saturating_mul(2)
            || self.shared.counters.l0_runs.load(Relaxed) >= options.max_l0_runs
    }

    /// Refuses a change that there is no room for in memory or on the disk.
    fn admit(&mut self, rows: &[Row]) -> Result<(), StoreFault> {
        if self.shared.full.load(Relaxed) {
            return Err(StoreFault::Full);
        }
        if let Some(read_only) = &self.read_only {
            self.writer = read_only.finish_start(&self.shared, &self.pinned)?;
            self.read_only = None;
        }
        let seals = self.shared.sealing.as_ref().is_some_and(|sealing| sealing.seals());
        if let Some(mistake) = rows.iter().find_map(|row| spaces::mistake(row, seals)) {
            return Err(StoreFault::Failed(mistake));
        }
        if self.is_behind() {
            if self.writer.at_boundary() {
                self.rotate()?;
            }
            if self.is_behind() {
                self.shared.counters.busy.fetch_add(1, Relaxed);
                self.shared.signal.work_is_due();
                return Err(StoreFault::Busy);
            }
        }
        let Err(error) = self.writer.reserve(rows) else { return Ok(()) };
        match IoCause::of(&error) {
            IoCause::NoRoom => {
                self.shared.set_full();
                Err(StoreFault::Full)
            }
            IoCause::OutOfResources => {
                self.shared.counters.short.fetch_add(1, Relaxed);
                Err(StoreFault::Busy)
            }
            // A mistake of the caller, not the disk's: nothing was written and nothing is in doubt.
            _ if error.kind() == io::ErrorKind::FileTooLarge => Err(StoreFault::Failed(error.to_string())),
            _ => Err(self.shared.poison.set("reserve room in the journal", &error)),
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
                if let Some(row) = self.row_cache.borrow().get(key) {
                    return self.shared.unseal(key, row).map(Some);
                }
                let buffered = self.write_buffer.borrow().get(key).cloned();
                let row = match buffered {
                    Some(row) => row,
                    None => self
                        .shared
                        .tree
                        .get(key)
                        .map_err(|fault| self.shared.read_fault(fault, ReadPosition::Key(key)))?,
                };
                if let Some(row) = &row {
                    self.row_cache.borrow_mut().put(Bytes::copy_from_slice(key), row.clone());
                }
                row.map(|row| self.shared.unseal(key, row)).transpose()
            }
            // Seldom read, so they are not cached.
            Space::Receipts => {
                let key = spaces::receipt_key(key);
                let buffered = self.write_buffer.borrow().get(&key).cloned();
                let row = match buffered {
                    Some(row) => row,
                    None => {
                        let read = self.shared.tree.get(&key);
                        read.map_err(|fault| self.shared.read_fault(fault, ReadPosition::Key(&key)))?
                    }
                };
                row.map(|row| self.shared.unseal(&key, row)).transpose()
            }
            // The shard keeps them itself, so they are not cached.
            Space::Trees => {
                let key = spaces::tree_key(key);
                let buffered = self.tree_buffer.borrow().get(&key).cloned();
                match buffered {
                    Some(row) => Ok(row),
                    None => {
                        let read = self.shared.tree.get(&key);
                        read.map_err(|fault| self.shared.read_fault(fault, ReadPosition::Key(&key)))
                    }
                }
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
                self.drain_write_buffer();
                let end = spaces::objects_end(range.1.map(Bytes::copy_from_slice));
                let mut unopened = Ok(());
                let mut visit = |key: &[u8], row| match self.shared.unseal(key, row) {
                    Ok(row) => visit(key, row),
                    Err(fault) => {
                        unopened = Err(fault);
                        ControlFlow::Continue(())
                    }
                };
                self.scan_tree(from, end.as_ref().map(|end| &end[..]), &mut visit)?;
                unopened
            }
            Space::Receipts => {
                self.drain_write_buffer();
                let (start, end) = (spaces::receipt_key(from), spaces::receipts_end(to));
                let mut unopened = Ok(());
                let mut visit = |key: &[u8], row| match self.shared.unseal(key, row) {
                    Ok(row) => visit(&key[spaces::RECEIPTS.len()..], row),
                    Err(fault) => {
                        unopened = Err(fault);
                        ControlFlow::Continue(())
                    }
                };
                self.scan_tree(&start, Bound::Excluded(&end[..]), &mut visit)?;
                unopened
            }
            Space::Trees => {
                self.drain_tree_buffer();
                let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded(spaces::tree_key(to)));
                let mut visit = |key: &[u8], value| visit(&key[spaces::TREES.len()..], value);
                self.scan_tree(&spaces::tree_key(from), end.as_ref().map(|end| &end[..]), &mut visit)
            }
            Space::Pinned => {
                let rows = self.pinned.range::<[u8], _>(range);
                let _ = rows.into_iter().try_for_each(|(key, value)| visit(key, value.clone()));
                Ok(())
            }
        }
    }

    fn losses(&self) -> u64 {
        self.shared.tree.lost().fingerprint()
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        self.shared.poison.check()?;
        if change.rows.is_empty() {
            return Ok(());
        }
        // All rows come by here. Behind this, nothing knows whether a row is sealed.
        let rows = match &self.shared.sealing {
            None => change.rows,
            Some(sealing) => sealing.seal(change.rows),
        };
        self.admit(&rows)?;
        self.writer.gather(&rows);
        for row in rows {
            match (row.space, row.value) {
                (Space::Pinned, value) => {
                    self.writer.change(&row.key);
                    match value {
                        // Copied, since the buffer of an encoded row has room for larger ones and 10⁵ rows may stay.
                        Some(value) => {
                            drop(self.pinned.insert(Key::from_slice(&row.key), Bytes::copy_from_slice(&value)))
                        }
                        None => drop(self.pinned.remove(row.key.as_ref())),
                    }
                }
                (Space::Objects, value) => {
                    match &value {
                        Some(value) => self.row_cache.get_mut().put(row.key.clone(), value.clone()),
                        None => {
                            self.row_cache.get_mut().remove(&row.key);
                            if self.shared.reclaim.removed() == self.shared.options.reclaim_rows {
                                self.shared.signal.work_is_due();
                            }
                        }
                    }
                    self.write_buffer.get_mut().put(row.key, value);
                }
                (Space::Trees, value) => self.tree_buffer.get_mut().put(spaces::tree_key(&row.key), value),
                (Space::Receipts, value) => {
                    if value.is_none() && self.shared.reclaim.removed() == self.shared.options.reclaim_rows {
                        self.shared.signal.work_is_due();
                    }
                    self.write_buffer.get_mut().put(spaces::receipt_key(&row.key), value);
                }
            }
        }
        if self.tree_buffer.get_mut().is_full(TREE_BUFFER_ROWS) {
            self.drain_tree_buffer();
        }
        if self.write_buffer.get_mut().is_full(self.shared.options.write_buffer_rows) {
            self.drain_write_buffer();
        }
        Ok(())
    }
}

impl Drop for ShardStore {
    fn drop(&mut self) {
        self.shared.signal.stop();
    }
}
