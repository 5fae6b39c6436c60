//! The limits of a shard's store.

use std::fmt;
use std::sync::Arc;

use super::tree::Descriptors;
use crate::sealed::Keys;

/// The largest segment.
pub(super) const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Limits of one shard's store. A node with S shards divides its memory among them.
#[derive(Clone)]
pub struct Options {
    /// Bytes of records after which the next journal segment is begun. While it is prepared the open one grows by at
    /// most an eighth (64 KiB to 8 MiB). Files are preallocated with that size; the first one after a start begins with
    /// 1 MiB and grows. A start reads a whole segment into memory, so at most 1 GiB; larger values count as that.
    /// Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes after which the memtable is sealed and flushed, at most an eighth later while the next segment is
    /// prepared. At twice as much writes are answered busy. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Rows of the write buffer, which is drained into the memtable in key order; also at 1 MiB. Default 2048.
    pub write_buffer_rows: usize,
    /// Committed bytes after which a sync is due although nobody waits for it. Default 4 MiB.
    pub sync_bytes: u64,
    /// Live segments above which the memtable is sealed whatever its size, so that segments can be retired. Default 4.
    pub max_segments: u64,
    /// Runs in the tree's first level from which on writes are answered busy. Default 32.
    pub max_l0_runs: u64,
    /// Removed rows from which on their room is freed, if they are also a sixteenth of all rows. Default 256.
    pub reclaim_rows: u64,
    /// Bytes of cache: a quarter for the row cache, the rest for blocks of the tree. Default 32 MiB.
    pub cache_bytes: u64,
    /// Free bytes of the file system below which writes are refused and a start does not flush. Default 64 MiB.
    pub free_space_floor: u64,
    /// File descriptors for the tables of the tree. Default [`Descriptors::of_process`], which all shards share.
    pub descriptors: Descriptors,
    /// The keys that rows are sealed with. Default none: rows are in the clear.
    pub keys: Option<Arc<Keys>>,
    /// Called from any thread when [`Maintenance::turn`](crate::Maintenance::turn) has work to do. It must return
    /// quickly. A node that uses [`Maintenance::run_until_stopped`](crate::Maintenance::run_until_stopped) needs none.
    pub on_work: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            memtable_bytes: 64 << 20,
            write_buffer_rows: 2048,
            sync_bytes: 4 << 20,
            max_segments: 4,
            max_l0_runs: 32,
            reclaim_rows: 256,
            cache_bytes: 32 << 20,
            free_space_floor: 64 << 20,
            descriptors: Descriptors::of_process(),
            keys: None,
            on_work: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .field("max_segments", &self.max_segments)
            .field("free_space_floor", &self.free_space_floor)
            .finish_non_exhaustive()
    }
}
