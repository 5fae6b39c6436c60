//! One record of a journal batch. The batch is written with one call and, if wanted, synced with one sync.

use std::sync::Arc;

use tempfile::TempDir;

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::{Options, OsDisk, ShardStore, Start};

/// When a batch is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// The journal is synced.
    Durable,
    /// The operating system has the bytes.
    Written,
}

/// A store that takes writes and no reads.
pub struct Journal {
    store: ShardStore,
    batch: u64,
    sync: Sync,
    value: Vec<u8>,
    _dir: TempDir,
}

impl Journal {
    /// Batches of `batch` records with values of `value` bytes. All records write the same pinned row, so that
    /// nothing goes to the tree.
    ///
    /// # Panics
    /// If the disk refuses.
    #[must_use]
    pub fn new(value: usize, batch: u64, sync: Sync) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::FIRST;
        let (store, _) =
            ShardStore::open(dir.path().join("shard"), Options::default(), Arc::new(OsDisk), &start).expect("a store");
        Self { store, batch, sync, value: crate::bytes(value), _dir: dir }
    }

    /// Writes `records` records.
    ///
    /// # Panics
    /// If the disk refuses.
    pub fn records(&mut self, records: u64) {
        let syncer = self.store.syncer();
        for number in 1..=records {
            let mut change = Change::default();
            change.put(Space::Pinned, &b"row"[..], self.value.clone());
            self.store.write(change).expect("written");
            if number % self.batch == 0 || number == records {
                let seq = self.store.commit().expect("committed");
                if self.sync == Sync::Durable {
                    assert!(syncer.sync().expect("synced") >= seq);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_share_commits_and_syncs() {
        let mut journal = Journal::new(100, 64, Sync::Durable);
        journal.records(640);
        let stats = journal.store.stats();
        assert_eq!((stats.commits, stats.syncs), (10, 10));
        let mut journal = Journal::new(100, 64, Sync::Written);
        journal.records(65);
        let stats = journal.store.stats();
        assert_eq!((stats.commits, stats.syncs), (2, 0));
    }
}
