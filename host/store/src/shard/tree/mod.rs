//! The lsm-tree of a shard: reads, writes, flushes, compactions, snapshots, and the repair of damaged tables.
//!
//! It never syncs the journal and never decides when work is due: that is maintenance's.
//!
//! Every sequence number is drawn from the counter `seqno`, from which lsm-tree's flushes and compactions draw too.
//! Reads ask for the newest version of a row: only the shard writes, so that is its last write.
//!
//! lsm-tree retries the compaction of a damaged table for ever. So a damaged table is taken out of the list of tables
//! ([`repair`]), its readable rows go into a new table ([`salvage`]), and the other keys are listed as lost
//! ([`lost_ranges`]).
//!
//! Reading order: this file, [`compaction`], [`snapshot`], [`lost_ranges`], [`check`] and [`manifest`] (what is
//! verified), [`repair`], [`salvage`], [`reseal`].

mod check;
mod compaction;
mod descriptors;
mod error;
mod lost_ranges;
mod manifest;
mod repair;
mod reseal;
mod salvage;
mod snapshot;

use std::fs::DirBuilder;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use lsm_tree::Table;
use lsm_tree::table::filter::standard_bloom;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Error, Guard, InternalValue, Memtable, SeqNo, SequenceNumberCounter, Slice,
    Tree as LsmTree,
};
use manifest::{KeyRange, Manifest, TableEntry, TableRanges};
use snapshot::Snapshots;

use crate::disk::PRIVATE;
use crate::io_cause::IoCause;

pub(super) use check::Sweep;
pub(super) use check::clear_strays;
pub(crate) use check::remove_unlisted;
pub(super) use compaction::{DueCompaction, RemovedRows};
pub use descriptors::Descriptors;
pub(super) use error::{ReadFault, TreeError};
pub(super) use lost_ranges::LostRanges;
pub(super) use repair::{
    RepairContext, SaveLost, SuspectTables, TreeCheck, check_before_open, repair_before_open, restore,
};
pub(super) use reseal::TableFile;
pub(super) use salvage::DamagedTable;
pub(super) use snapshot::TreeSnapshot;
pub use snapshot::{ScanLimit, ScanStep, UnreadableRange};

/// Sequence numbers have 63 bits; a read below the largest sees every row.
const NEWEST: SeqNo = 0x7fff_ffff_ffff_ffff;
/// Bytes up to which a value is copied out of its block; a longer one shares the block's memory.
const COPY_UP_TO: usize = 2048;
/// Bytes added to the estimate of a flush or a compaction, for indexes, filters and the new version.
const MARGIN: u64 = 256 << 10;

/// The tree of one shard.
pub(super) struct Tree {
    path: PathBuf,
    cache_bytes: u64,
    descriptors: Descriptors,
    seqno: SequenceNumberCounter,
    visible: SequenceNumberCounter,
    snapshots: Arc<Snapshots>,
    /// Locked exclusively while files are removed that a read may need, and while the tree is replaced, which no write
    /// may miss.
    open: RwLock<OpenTree>,
}

/// The open tree.
struct OpenTree {
    tree: AnyTree,
    /// The list of tables as of the opening.
    manifest: Manifest,
    /// The sealed memtables, oldest first.
    sealed: Vec<Arc<Memtable>>,
    lost: Arc<LostRanges>,
}

/// Whether there is a tree at `path`. If the disk cannot tell, there is one, and it is damaged.
///
/// # Errors
/// Every error that is not [damage](IoCause::is_damage).
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match path.join(manifest::CURRENT).try_exists() {
        Err(error) if IoCause::of(&error).is_damage() => Ok(true),
        exists => exists,
    }
}

impl Tree {
    /// Opens or creates the tree. `lost` has the ranges that earlier damage has cost.
    pub(super) fn open(
        path: &Path,
        cache_bytes: u64,
        descriptors: Descriptors,
        lost: LostRanges,
    ) -> Result<Self, TreeError> {
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        // lsm-tree asserts what it expects of its files.
        let opened = catch_unwind(AssertUnwindSafe(|| open_files(path, cache_bytes, &descriptors, (&seqno, &visible))));
        let (tree, manifest) = opened.unwrap_or(Err(Error::Unrecoverable))?;
        // Every later write is newer than all rows that were there or are lost.
        let next = tree.get_highest_persisted_seqno().max(lost.highest()).map_or(0, |highest| highest + 1);
        seqno.fetch_max(next);
        visible.fetch_max(next);
        let open = RwLock::new(OpenTree { tree, manifest, sealed: Vec::new(), lost: Arc::new(lost) });
        Ok(Self { path: path.to_path_buf(), cache_bytes, descriptors, seqno, visible, snapshots: Arc::default(), open })
    }

    fn shared(&self) -> RwLockReadGuard<'_, OpenTree> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, OpenTree> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes or removes a row. Returns the memtable's size in bytes.
    pub(super) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> u64 {
        let open = self.shared();
        let seqno = self.seqno.next();
        let (_, size) = match value {
            Some(value) => open.tree.insert(key, value, seqno),
            None => open.tree.remove(key, seqno),
        };
        self.visible.fetch_max(seqno + 1);
        size
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        let open = self.shared();
        if open.lost.hides(key, None).is_some() {
            return open.get_among_lost(key);
        }
        Ok(open.tree.get(key, NEWEST)?.map(into_bytes))
    }

    /// Visits rows in key order. Where rows were lost the others are visited, and the fault is returned at the end.
    pub(super) fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        let open = self.shared();
        if open.lost.between(range.0, range.1).is_some() {
            return open.scan_among_lost(range, visit);
        }
        for row in open.tree.range::<&[u8], _>(range, NEWEST, None) {
            let (key, value) = row.into_inner()?;
            if visit(&key, into_bytes(value)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Seals the memtable.
    pub(super) fn rotate(&self) {
        let mut open = self.exclusive();
        let sealed = open.tree.rotate_memtable();
        open.sealed.extend(sealed);
    }

    /// Bytes of room that a flush of the sealed memtables needs.
    pub(super) fn flush_bytes(&self) -> u64 {
        let sealed: u64 = self.shared().sealed.iter().map(|memtable| memtable.size()).sum();
        if sealed == 0 { 0 } else { sealed + sealed / 16 + MARGIN }
    }

    /// Durably writes all sealed memtables to a table. Returns whether there were any.
    pub(super) fn flush(&self) -> Result<bool, TreeError> {
        let tree = self.shared().tree.clone();
        let flushed = tree.flush(&tree.get_flush_lock(), self.gc_seqno())?.is_some();
        tree.get_version_history_lock().maintenance(&self.path, NEWEST)?;
        let sealed = std::mem::take(&mut self.exclusive().sealed);
        // Without the lock: freeing a memtable takes a while.
        drop(sealed);
        Ok(flushed)
    }

    /// Lists the removals in lost ranges that a compaction of these tables may forget: it drops the tombstones that it
    /// writes to the last level, and the keys would read as lost again.
    ///
    /// # Errors
    /// [`TreeError`]; the compaction must not be done then.
    pub(super) fn save_removals(&self, tables: &[u64], save: SaveLost<'_>) -> Result<(), TreeError> {
        let (tree, lost) = {
            let open = self.shared();
            (open.tree.clone(), Arc::clone(&open.lost))
        };
        let mut more = LostRanges::clone(&lost);
        let version = tree.current_version();
        for table in version.iter_tables().filter(|table| tables.contains(&table.id()) && table.tombstone_count() > 0) {
            for range in lost.ranges() {
                let slice = |bound: &Bound<Bytes>| bound.as_ref().map(|key| Slice::from(&key[..]));
                for row in table.range((slice(&range.from), slice(&range.to))) {
                    let row = row?;
                    if row.is_tombstone() && row.key.seqno > range.upto {
                        more.remove(&row.key.user_key, row.key.seqno);
                    }
                }
            }
        }
        if more != *lost {
            save(&more)?;
            self.set_lost(more);
        }
        Ok(())
    }

    fn set_lost(&self, lost: LostRanges) {
        self.exclusive().lost = Arc::new(lost);
    }

    fn gc_seqno(&self) -> SeqNo {
        self.snapshots.gc_seqno(self.visible.get())
    }

    /// The number of the current version. It grows with every flush and compaction.
    pub(super) fn version(&self) -> u64 {
        self.shared().tree.current_version().id()
    }

    /// A copy of the list of tables, for [`restore`].
    pub(super) fn copy_of_manifest(&self) -> Vec<u8> {
        let version = self.shared().tree.current_version();
        let mut ranges = TableRanges::default();
        for table in version.iter_tables() {
            let range = &table.metadata.key_range;
            let (first, last) = (Bytes::copy_from_slice(range.min()), Bytes::copy_from_slice(range.max()));
            ranges.insert(&entry(table), KeyRange { upto: table.get_highest_seqno(), first, last });
        }
        self.manifest().to_copy(&ranges)
    }

    /// The list of tables from memory, since its file may be damaged.
    fn manifest(&self) -> Manifest {
        let open = self.shared();
        let version = open.tree.current_version();
        let levels =
            version.iter_levels().map(|level| level.iter().map(|run| run.iter().map(entry).collect()).collect());
        open.manifest.with(version.id(), levels.collect())
    }

    /// The number of runs in the first level.
    pub(super) fn l0_runs(&self) -> u64 {
        self.shared().tree.l0_run_count() as u64
    }

    /// The ranges that were lost with damaged tables.
    pub(super) fn lost(&self) -> Arc<LostRanges> {
        Arc::clone(&self.shared().lost)
    }
}

/// A table's entry in the list of tables.
fn entry(table: &Table) -> TableEntry {
    TableEntry { id: table.id(), checksum: table.checksum().into_u128(), seqno: table.global_seqno() }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.descriptors.forget(&self.shared().tree);
    }
}

impl OpenTree {
    /// Reads a key in a lost range: only a row that is newer than the lost table is valid.
    fn get_among_lost(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        let newest = match self.in_memory(key) {
            Some(row) => Some(row),
            None => self.in_tables(key)?,
        };
        match self.lost.hides(key, newest.as_ref().map(|row| row.key.seqno)) {
            Some(range) => Err(ReadFault::of(range)),
            None => {
                let removed = self.lost.removed(key);
                let live =
                    |row: &InternalValue| !row.is_tombstone() && removed.is_none_or(|removed| removed < row.key.seqno);
                Ok(newest.filter(live).map(|row| into_bytes(row.value)))
            }
        }
    }

    fn in_memory(&self, key: &[u8]) -> Option<InternalValue> {
        let active = self.tree.active_memtable().get(key, NEWEST);
        active.or_else(|| self.sealed.iter().rev().find_map(|memtable| memtable.get(key, NEWEST)))
    }

    fn in_tables(&self, key: &[u8]) -> Result<Option<InternalValue>, Error> {
        let hash = standard_bloom::Builder::get_hash(key);
        for run in self.tree.current_version().iter_levels().flat_map(|level| level.iter()) {
            if let Some(table) = run.get_for_key(key)
                && let Some(row) = table.get(key, NEWEST, hash)?
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn scan_among_lost(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadFault> {
        let version = self.tree.get_version_history_lock().latest_version();
        for row in LsmTree::create_internal_range::<&[u8], _>(version, &range, NEWEST, None) {
            let row = row?;
            let key = &row.key.user_key;
            if !self.lost.is_valid(key, row.key.seqno, NEWEST) {
                continue;
            }
            if visit(key, into_bytes(row.value)).is_break() {
                return self.lost.between(range.0, Bound::Included(key)).map_or(Ok(()), ReadFault::said);
            }
        }
        self.lost.between(range.0, range.1).map_or(Ok(()), ReadFault::said)
    }
}

impl ReadFault {
    fn of(range: &lost_ranges::LostRange) -> Self {
        Self::Lost { upto: range.upto, what: format!("lost are the {range}") }
    }

    fn said(range: &lost_ranges::LostRange) -> Result<(), Self> {
        Err(Self::of(range))
    }
}

/// Opens or creates the files of a tree.
fn open_files(
    path: &Path,
    cache_bytes: u64,
    descriptors: &Descriptors,
    (seqno, visible): (&SequenceNumberCounter, &SequenceNumberCounter),
) -> Result<(AnyTree, Manifest), Error> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path.join("tables"))?;
    let cache = Arc::new(Cache::with_capacity_bytes(cache_bytes));
    let config = Config::new(path, seqno.clone(), visible.clone()).use_cache(cache);
    let tree = config.use_descriptor_table(Some(descriptors.table())).open()?;
    Ok((tree, Manifest::read(path)?))
}

/// Converts a value of the tree.
fn into_bytes(value: Slice) -> Bytes {
    if value.len() <= COPY_UP_TO { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}
