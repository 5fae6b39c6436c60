//! The core's port to the disk: a synchronous [`Store`], and a [`Journal`] for batches. Everything else comes in as
//! events and goes out as effects.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

/// A key space of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Space {
    /// The objects, in the tree: key order is bucket id ‖ 128-bit hash ‖ key, so a (partition, bucket) is one
    /// contiguous range.
    Objects,
    /// The leaves of the hash trees, in the tree too. They change with every object and are read at a start only.
    Trees,
    /// A few small rows that change with nearly every write: actors, retry rows, start ids, observed counters. A store
    /// keeps them in memory and in the journal, and carries them into every new journal segment.
    Pinned,
    /// The receipts of folds, in the tree. They have values, as objects do, and are written often and read seldom.
    Receipts,
}

/// One row written (`Some`) or removed (`None`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The key space.
    pub space: Space,
    /// 1 to 65 535 bytes.
    pub key: Bytes,
    /// `None` removes the row.
    pub value: Option<Bytes>,
}

/// Rows that are written together or not at all: one journal record.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// The rows, in order; a later one wins over an earlier one of the same key.
    pub rows: Vec<Row>,
}

impl Change {
    /// Adds a row to be written.
    pub fn put(&mut self, space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Self {
        self.rows.push(Row { space, key: key.into(), value: Some(value.into()) });
        self
    }

    /// Adds a row to be removed.
    pub fn remove(&mut self, space: Space, key: impl Into<Bytes>) -> &mut Self {
        self.rows.push(Row { space, key: key.into(), value: None });
        self
    }
}

/// Why a store could not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// No room for the change. Nothing was written; reads go on.
    #[error("the disk is full: writes are refused until there is room again, reads go on")]
    Full,
    /// Flushes are behind, or the system is out of descriptors or memory: refused now, to be tried again soon. Nothing
    /// was written, and nothing is damaged.
    #[error("the store is behind its flushes, or the system is out of file descriptors or memory; try again shortly")]
    Busy,
    /// The row cannot be read. Never to be taken for "absent". It may become readable again, or be given up as
    /// [`Lost`](Self::Lost).
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A row under this key, if there was one, is lost for good. Never to be taken for "absent".
    #[error("stored data is lost: {what}")]
    Lost {
        /// The highest write number of the store that a lost row may have. Numbers only grow, so a row that is written
        /// later is no part of this loss.
        upto: u64,
        /// What was lost, for the log.
        what: String,
    },
    /// The store has failed for good (a failed write or fsync); the node must stop.
    #[error("the store has failed: {0}")]
    Failed(String),
}

/// The smallest key behind `key`: where a scan goes on that has `key` behind it.
#[must_use]
pub fn key_after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// How far a journal has come: everything committed up to here. Grows with each commit that wrote something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CommitSeq(pub u64);

/// An ordered store of rows with atomic changes. A change is visible to `get` and `scan` as soon as `write` returns;
/// the shell makes it survive a crash (one journal write for a batch of changes, one fdatasync for all who wait) before
/// it releases the effects of that batch.
pub trait Store {
    /// The row's value, `None` if there is none.
    ///
    /// # Errors
    /// [`StoreFault::Damaged`] if the row is there but unreadable, [`StoreFault::Lost`] if it may have been there: it
    /// stays so until it is written anew. [`StoreFault::Busy`] if the system is out of descriptors or memory.
    /// [`StoreFault::Failed`] if the store has stopped.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault>;

    /// Visits rows in key order, from the first key ≥ `from` while keys are < `to` (`None`: to the end), until `visit`
    /// breaks.
    ///
    /// # Errors
    /// As [`Store::get`]; where rows were lost the others are visited all the same.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault>;

    /// A number that is another one after rows were lost for good, and stays the same with every restart. 0: nothing
    /// was ever lost.
    fn losses(&self) -> u64 {
        0
    }

    /// Applies a change as one atomic journal record.
    ///
    /// # Errors
    /// [`StoreFault::Full`] or [`StoreFault::Busy`]: nothing was applied. [`StoreFault::Failed`]: the node must stop.
    fn write(&mut self, change: Change) -> Result<(), StoreFault>;
}

/// A store with a journal, as a batch of changes needs it.
pub trait Journal: Store {
    /// Writes every change since the last commit to the journal file: from then on the end of the process cannot lose
    /// it.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: the node must stop.
    fn commit(&mut self) -> Result<CommitSeq, StoreFault>;

    /// Whether so much is written and not synced that a sync is due though nobody waits for it.
    fn sync_is_due(&mut self) -> bool;
}
