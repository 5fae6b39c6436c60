//! The tree alone: inserts into its memtable, and point reads in random order.

use lsm_tree::{AbstractTree, AnyTree, Config, SequenceNumberCounter};
use tempfile::TempDir;

/// Number of keys. Inserts beyond it overwrite.
const KEYS: u64 = 100_000;

/// A tree in a directory of its own.
pub struct Tree {
    tree: AnyTree,
    seqno: SequenceNumberCounter,
    value: Vec<u8>,
    next: u64,
    _dir: TempDir,
}

impl Tree {
    /// A tree with values of `value` bytes. With `flushed`, it holds every key, in files.
    ///
    /// # Panics
    /// If the disk refuses.
    #[must_use]
    pub fn new(value: usize, flushed: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (seqno, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(dir.path(), seqno.clone(), visible).open().expect("a tree");
        let mut tree = Self { tree, seqno, value: crate::bytes(value), next: 0, _dir: dir };
        if flushed {
            tree.inserts(KEYS);
            tree.tree.flush_active_memtable(0).expect("a flush");
        }
        tree
    }

    /// Makes `inserts` inserts.
    pub fn inserts(&mut self, inserts: u64) {
        for _ in 0..inserts {
            self.tree.insert(key(self.next), self.value.as_slice(), self.seqno.next());
            self.next += 1;
        }
    }

    /// Makes `reads` reads of keys that exist.
    ///
    /// # Panics
    /// If a key is missing.
    pub fn reads(&mut self, reads: u64) {
        for _ in 0..reads {
            let found = self.tree.get(key(self.next), u64::MAX >> 1).expect("a sound tree").expect("what was inserted");
            assert_eq!(found.len(), self.value.len());
            self.next += 1;
        }
    }
}

/// A key as long as an object's key, spread over the whole key range.
fn key(number: u64) -> [u8; 40] {
    let mut key = [7; 40];
    let scattered = (number % KEYS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[8..16].copy_from_slice(&scattered.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_is_read() {
        let mut tree = Tree::new(100, true);
        assert_eq!(tree.tree.table_count(), 1);
        tree.reads(2 * KEYS);
    }
}
