//! What a shard's store may use.

use std::fmt;
use std::sync::Arc;

use super::tree::Descriptors;

/// Limits of one shard's store. A node with S shards divides its memory among them.
#[derive(Clone)]
pub struct Options {
    /// Bytes of records after which a journal segment is left for the next, at most an eighth later while that one is
    /// made (64 KiB to 8 MiB); files are preallocated that much larger, but for the first after a start, which begins
    /// with 1 MiB and grows. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes in the memtable after which it is sealed and flushed, at most an eighth later while the next segment is
    /// made; at twice as much writes are answered busy. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Written rows that are gathered before the tree gets them, in order; 1 MiB of them are too many as well. Default
    /// 2048.
    pub young_rows: usize,
    /// Committed bytes after which a sync is due that nobody waits for. Default 4 MiB.
    pub sync_bytes: u64,
    /// Live segments above which the memtable is sealed however small, so that segments can be retired. Default 4.
    pub max_segments: u64,
    /// Runs in the tree's first level at which writes are answered busy. Default 32.
    pub max_l0_runs: u64,
    /// Bytes of cache: a quarter of them for single rows as they were last read or written, the rest for blocks of the
    /// tree. Default 32 MiB.
    pub cache_bytes: u64,
    /// Free bytes on the file system below which writes are refused, and a start flushes nothing. Default 64 MiB.
    pub free_space_floor: u64,
    /// File descriptors for the tables of the tree. Default [`Descriptors::of_process`], which all shards share.
    pub descriptors: Descriptors,
    /// Whether the mark is written and synced on a thread of its own, in parallel with the journal. Default true; a
    /// simulator that runs everything on one thread says false, and the mark follows the journal.
    pub parallel_mark: bool,
    /// Called, from any thread, when [`Maintenance::turn`](crate::Maintenance::turn) has something to do. Must be
    /// quick. A node that uses [`Maintenance::run_until_stopped`](crate::Maintenance::run_until_stopped) needs none.
    pub on_work: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            memtable_bytes: 64 << 20,
            young_rows: 2048,
            sync_bytes: 4 << 20,
            max_segments: 4,
            max_l0_runs: 32,
            cache_bytes: 32 << 20,
            free_space_floor: 64 << 20,
            descriptors: Descriptors::of_process(),
            parallel_mark: true,
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
