//! Positions in the journal, and the directory that holds it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;

/// The chain value before the first record.
pub(crate) const FIRST_CHAIN: u64 = 0x7265_6a6f_696e_0001;

/// A position in the journal: behind a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// The record's index, 0 before the first.
    pub(crate) index: u64,
    /// The chain value after it.
    pub(crate) chain: u64,
}

/// The directory of a journal, and how large its segments are.
#[derive(Clone)]
pub(crate) struct JournalDir {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    /// Bytes of records after which the next segment is due.
    pub(crate) segment_bytes: u64,
}
