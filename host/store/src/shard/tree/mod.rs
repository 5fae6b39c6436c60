//! The lsm-tree, behind the few things that a shard asks of it.
//!
//! Two of its counters must never be fed from elsewhere: every sequence number is drawn from `seqno`, which flushes and
//! compactions draw from too. Reads ask for the newest of everything: only the shard itself writes, so that is always
//! what it wrote last.
//!
//! lsm-tree does not live with damage: it tries the compaction of a damaged table again and again. So such a table is
//! taken out of the list of tables (`mend`), what can be read of it takes its place (`salvage`), and what cannot is
//! remembered as lost (`lost`).

mod check;
mod descriptors;
mod lost;
mod manifest;
mod mend;
mod salvage;

use std::fs::DirBuilder;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use lsm_tree::Table;
use lsm_tree::compaction::{Choice, CompactionStrategy, Leveled};
use lsm_tree::table::filter::standard_bloom;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Error, Guard, InternalValue, Memtable, SeqNo, SequenceNumberCounter, Slice, Tree as Plain,
};
use manifest::{Entry, KeyRange, Manifest, Ranges};

use crate::disk::{PRIVATE, is_damage, is_short};

pub(super) use check::Sweep;
pub(super) use check::clear_strays;
pub(crate) use check::remove_unlisted;
pub use descriptors::Descriptors;
pub(super) use lost::Lost;
pub(super) use mend::{DamagedTable, Found, Suspect, look_before_open, mend_before_open, restore};

/// Sequence numbers have 63 bits; reading below the largest sees all.
const NEWEST: SeqNo = 0x7fff_ffff_ffff_ffff;
/// Values up to this length are copied out of their block; longer ones keep it.
const COPY_UP_TO: usize = 2048;
/// What is added to an estimate of a flush or a compaction: the tables' indexes and filters, and the new version.
const MARGIN: u64 = 256 << 10;

/// The tree of one shard.
pub(super) struct Tree {
    path: PathBuf,
    cache_bytes: u64,
    descriptors: Descriptors,
    seqno: SequenceNumberCounter,
    visible: SequenceNumberCounter,
    /// Exclusive while files go that a read may want, and while a tree is put in another one's place, which no write
    /// may miss.
    open: RwLock<Open>,
}

/// The open tree.
struct Open {
    tree: AnyTree,
    /// The list of tables as it was when the tree was opened.
    manifest: Manifest,
    /// The sealed memtables, oldest first.
    sealed: Vec<Arc<Memtable>>,
    lost: Lost,
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// It was lost with a table, and that is known: no row above that sequence number.
    Lost { upto: u64, what: String },
    /// A table is damaged that nobody has looked at yet.
    Unreadable(String),
    /// The system is out of descriptors or memory.
    Short(String),
}

/// A compaction that is due.
pub(super) struct Due {
    /// The tables that it reads.
    pub(super) tables: Vec<u64>,
    /// The room that it needs until those are removed.
    pub(super) bytes: u64,
}

/// Whether there is a tree. One of which the disk cannot tell is there, and damaged.
///
/// # Errors
/// What the operating system says for want of memory or permission.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match path.join(manifest::CURRENT).try_exists() {
        Err(error) if is_damage(&error) => Ok(true),
        exists => exists,
    }
}

impl Tree {
    /// Opens or creates the tree. `lost` is what earlier damage has cost it.
    pub(super) fn open(path: &Path, cache_bytes: u64, descriptors: Descriptors, lost: Lost) -> Result<Self, Error> {
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        // The tree asserts what it expects of its files.
        let opened = catch_unwind(AssertUnwindSafe(|| open_files(path, cache_bytes, &descriptors, (&seqno, &visible))));
        let (tree, manifest) = opened.unwrap_or(Err(Error::Unrecoverable))?;
        // What is written from now on is newer than all that was there, also than what is lost.
        let next = tree.get_highest_persisted_seqno().max(lost.highest()).map_or(0, |highest| highest + 1);
        seqno.fetch_max(next);
        visible.fetch_max(next);
        let open = RwLock::new(Open { tree, manifest, sealed: Vec::new(), lost });
        Ok(Self { path: path.to_path_buf(), cache_bytes, descriptors, seqno, visible, open })
    }

    fn shared(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes or removes a row. Returns the memtable's size.
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

    /// The row's value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        let open = self.shared();
        if open.lost.hides(key, None).is_some() {
            return open.get_among_lost(key);
        }
        Ok(open.tree.get(key, NEWEST)?.map(out))
    }

    /// Visits rows in order. Where rows were lost the others are visited all the same, and the fault comes at the end.
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
            if visit(&key, out(value)).is_break() {
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

    /// The room that a flush of what is sealed needs.
    pub(super) fn flush_bytes(&self) -> u64 {
        let sealed: u64 = self.shared().sealed.iter().map(|memtable| memtable.size()).sum();
        if sealed == 0 { 0 } else { sealed + sealed / 16 + MARGIN }
    }

    /// Writes all sealed memtables to a table, durably. Returns whether there were any.
    pub(super) fn flush(&self) -> Result<bool, Error> {
        let tree = self.shared().tree.clone();
        let flushed = tree.flush(&tree.get_flush_lock(), self.visible.get())?.is_some();
        tree.get_version_history_lock().maintenance(&self.path, NEWEST)?;
        let sealed = std::mem::take(&mut self.exclusive().sealed);
        // Only now: to free a memtable takes a while, and nobody is to wait for it.
        drop(sealed);
        Ok(flushed)
    }

    /// The compaction that is due, if there is one.
    pub(super) fn due(&self) -> Option<Due> {
        let tree = self.shared().tree.clone();
        let version = tree.current_version();
        let tables: Vec<u64> = match Leveled::default().choose(&version, tree.tree_config(), &Default::default()) {
            Choice::DoNothing => return None,
            Choice::Move(input) => return Some(Due { tables: input.table_ids.into_iter().collect(), bytes: MARGIN }),
            Choice::Merge(input) => input.table_ids.into_iter().collect(),
            Choice::Drop(tables) => tables.into_iter().collect(),
        };
        let inputs = version.iter_tables().filter(|table| tables.contains(&table.id()));
        let bytes: u64 = inputs.map(|table| table.metadata.file_size).sum();
        Some(Due { tables, bytes: bytes + bytes / 16 + MARGIN })
    }

    /// Does one compaction, if one is due: flushes have their turn before the next. `done` is called before what it has
    /// read is removed. Returns whether it was done.
    pub(super) fn compact(&self, done: &dyn Fn()) -> Result<bool, Error> {
        let tree = self.shared().tree.clone();
        let before = tree.current_version();
        tree.compact(Arc::new(Leveled::default()), self.visible.get())?;
        done();
        // The versions before this one keep the files of the tables that went into it.
        tree.get_version_history_lock().maintenance(&self.path, NEWEST)?;
        // Removed by this, without a lock: it takes tens of milliseconds.
        Ok(before.id() != tree.current_version().id())
    }

    /// The version that counts on the disk. It grows with every flush and compaction.
    pub(super) fn version(&self) -> u64 {
        self.shared().tree.current_version().id()
    }

    /// A copy of the list of tables, which [`restore`] takes.
    pub(super) fn copy_of_manifest(&self) -> Vec<u8> {
        let version = self.shared().tree.current_version();
        let mut ranges = Ranges::default();
        for table in version.iter_tables() {
            let range = &table.metadata.key_range;
            let (first, last) = (Bytes::copy_from_slice(range.min()), Bytes::copy_from_slice(range.max()));
            ranges.insert(&entry(table), KeyRange { upto: table.get_highest_seqno(), first, last });
        }
        self.manifest().to_copy(&ranges)
    }

    /// The list of tables that counts, from memory: its file may be what is damaged.
    fn manifest(&self) -> Manifest {
        let open = self.shared();
        let version = open.tree.current_version();
        let levels = version.iter_levels().map(|level| level.iter().map(|run| run.iter().map(entry).collect()).collect());
        open.manifest.with(version.id(), levels.collect())
    }

    /// Runs in the first level.
    pub(super) fn l0_runs(&self) -> u64 {
        self.shared().tree.l0_run_count() as u64
    }

    /// What was lost with damaged tables.
    pub(super) fn lost(&self) -> Lost {
        self.shared().lost.clone()
    }
}

/// A table as the list of tables has it.
fn entry(table: &Table) -> Entry {
    Entry { id: table.id(), checksum: table.checksum().into_u128(), seqno: table.global_seqno() }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.descriptors.forget(&self.shared().tree);
    }
}

impl Open {
    /// Of a key in a lost range only a row counts that is newer than the table which is lost.
    fn get_among_lost(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        let newest = match self.in_memory(key) {
            Some(row) => Some(row),
            None => self.in_tables(key)?,
        };
        match self.lost.hides(key, newest.as_ref().map(|row| row.key.seqno)) {
            Some(range) => Err(ReadFault::of(range)),
            None => Ok(newest.filter(|row| !row.is_tombstone()).map(|row| out(row.value))),
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
        for row in Plain::create_internal_range::<&[u8], _>(version, &range, NEWEST, None) {
            let row = row?;
            let key = &row.key.user_key;
            if self.lost.hides(key, Some(row.key.seqno)).is_some() {
                continue;
            }
            if visit(key, out(row.value)).is_break() {
                return self.lost.between(range.0, Bound::Included(key)).map_or(Ok(()), ReadFault::said);
            }
        }
        self.lost.between(range.0, range.1).map_or(Ok(()), ReadFault::said)
    }
}

impl ReadFault {
    fn of(range: &lost::LostRange) -> Self {
        Self::Lost { upto: range.upto, what: format!("lost are the {range}") }
    }

    fn said(range: &lost::LostRange) -> Result<(), Self> {
        Err(Self::of(range))
    }
}

impl From<Error> for ReadFault {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) if is_short(&error) => Self::Short(error.to_string()),
            // Whatever it is: the row may be there, so it is never "absent".
            error => Self::Unreadable(error.to_string()),
        }
    }
}

/// Opens the files of a tree, or creates them.
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

/// Whether an error on opening means that files are gone or not what they were.
pub(super) fn shows_damage(error: &Error) -> bool {
    match error {
        Error::Io(error) => is_damage(error),
        _ => true,
    }
}

/// Takes a value out of the tree.
fn out(value: Slice) -> Bytes {
    if value.len() <= COPY_UP_TO { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}
