//! The row of an object: written to the journal and the write buffer, or read from the cache, with and without keys.

use std::sync::Arc;

use tempfile::TempDir;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::{Key, Keys, Options, OsDisk, ShardStore, Start};

/// Records of a batch.
const BATCH: u64 = 64;
/// How many objects there are.
const OBJECTS: u64 = 1000;

/// A store of objects.
pub struct Objects {
    store: ShardStore,
    value: Vec<u8>,
    _dir: TempDir,
}

impl Objects {
    /// Objects with rows of `value` bytes, encrypted or in the clear.
    ///
    /// # Panics
    /// If the disk refuses.
    #[must_use]
    pub fn new(value: usize, encrypted: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = encrypted.then(|| Arc::new(Keys::new(Key::new([7; 32]), [])));
        let options = Options { keys, ..Options::default() };
        let opened = ShardStore::open(dir.path().join("shard"), options, Arc::new(OsDisk), &Start::FIRST);
        let mut objects = Self { store: opened.expect("a store").0, value: crate::bytes(value), _dir: dir };
        objects.writes(OBJECTS);
        objects
    }

    /// Writes objects, in batches with a commit each.
    ///
    /// # Panics
    /// If the disk refuses.
    pub fn writes(&mut self, writes: u64) {
        for number in 1..=writes {
            let mut change = Change::default();
            change.put(Space::Objects, key(number), self.value.clone());
            while self.store.write(change.clone()) == Err(StoreFault::Busy) {
                self.store.commit().expect("committed");
                self.store.maintenance().run().expect("flushed");
            }
            if number % BATCH == 0 || number == writes {
                self.store.commit().expect("committed");
            }
        }
    }

    /// Reads objects that were written or read before.
    ///
    /// # Panics
    /// If one is not what was written.
    pub fn reads(&self, reads: u64) {
        for number in 1..=reads {
            let read = self.store.get(Space::Objects, &key(number)).expect("readable").expect("it was written");
            assert_eq!(read.len(), self.value.len());
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    (number % OBJECTS).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_they_were_written_with_and_without_keys() {
        for encrypted in [false, true] {
            let mut objects = Objects::new(100, encrypted);
            objects.writes(100);
            objects.reads(2 * OBJECTS);
            assert_eq!(objects.store.sealed_rows().is_some(), encrypted);
        }
    }
}
