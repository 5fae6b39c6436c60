//! The lsm-tree, behind the few things that a shard asks of it.
//!
//! Two of its counters must never be fed from elsewhere: every sequence number is drawn from `seqno`, which flushes and compactions
//! draw from too. Reads ask for the newest of everything: only the shard itself writes, so that is always what it wrote last.

mod sound;

pub(super) use sound::unsound;

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, Error, Guard, SeqNo, SequenceNumberCounter, Slice};
use rejoin_core::port::StoreFault;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

/// Sequence numbers have 63 bits; reading below the largest sees all.
const NEWEST: SeqNo = 0x7fff_ffff_ffff_ffff;
/// Values up to this length are copied out of their block; longer ones keep it.
const COPY_UP_TO: usize = 2048;

/// The tree of one shard.
pub(super) struct Tree {
    tree: AnyTree,
    seqno: SequenceNumberCounter,
    visible: SequenceNumberCounter,
}

/// What the tree's files show before it is opened.
pub(super) fn exists(path: &Path) -> bool {
    path.join("current").exists()
}

impl Tree {
    /// Opens or creates the tree.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let cache = Arc::new(Cache::with_capacity_bytes(cache_bytes));
        let tree = Config::new(path, seqno.clone(), visible.clone()).use_cache(cache).open()?;
        let next = tree.get_highest_persisted_seqno().map_or(0, |highest| highest + 1);
        seqno.fetch_max(next);
        visible.fetch_max(next);
        Ok(Self { tree, seqno, visible })
    }

    /// Writes or removes a row. Returns the memtable's size.
    pub(super) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> u64 {
        let seqno = self.seqno.next();
        let (_, size) = match value {
            Some(value) => self.tree.insert(key, value, seqno),
            None => self.tree.remove(key, seqno),
        };
        self.visible.fetch_max(seqno + 1);
        size
    }

    /// The row's value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        let found = self.tree.get(key, NEWEST).map_err(|error| damaged(&error))?;
        Ok(found.map(out))
    }

    /// Visits rows in order.
    pub(super) fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        for row in self.tree.range::<&[u8], _>(range, NEWEST, None) {
            let (key, value) = row.into_inner().map_err(|error| damaged(&error))?;
            if visit(&key, out(value)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Seals the memtable.
    pub(super) fn rotate(&self) {
        self.tree.rotate_memtable();
    }

    /// Writes all sealed memtables to a table, durably. Returns whether there were any.
    pub(super) fn flush(&self) -> Result<bool, Error> {
        let flushing = self.tree.get_flush_lock();
        Ok(self.tree.flush(&flushing, self.visible.get())?.is_some())
    }

    /// Does one compaction, if one is due: flushes have their turn before the next. Returns whether it was done.
    pub(super) fn compact(&self) -> Result<bool, Error> {
        let before = self.version();
        self.tree.compact(Arc::new(Leveled::default()), self.visible.get())?;
        Ok(self.version() != before)
    }

    /// The version that counts on the disk. It grows with every flush and compaction.
    pub(super) fn version(&self) -> u64 {
        self.tree.current_version().id()
    }

    /// Runs in the first level.
    pub(super) fn l0_runs(&self) -> u64 {
        self.tree.l0_run_count() as u64
    }
}

/// A tree error on reading, whatever it is: the row may be there, so it is never "absent".
pub(super) fn damaged(error: &Error) -> StoreFault {
    StoreFault::Damaged(format!("the tree cannot be read: {error}"))
}

/// Whether an error on opening means that files are gone or not what they were.
pub(super) fn is_damage(error: &Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    match error {
        Error::Io(error) => matches!(error.kind(), InvalidData | NotFound | UnexpectedEof),
        _ => true,
    }
}

/// Takes a value out of the tree.
fn out(value: Slice) -> Bytes {
    if value.len() <= COPY_UP_TO { Bytes::copy_from_slice(&value) } else { Bytes::from_owner(value) }
}
