//! A merge that remembers its answers.
//!
//! The laws ask for the same merges again and again: the canonical form of a value, the merge of all siblings, every
//! pair of a small scope. A component takes some ten microseconds for each, a look at a table takes less than one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::merge::{Merge, MergeError, MergeResult, Sibling};

/// Bytes of the answers that are kept. Once there are as many, later answers are not kept.
const KEPT_BYTES: usize = 64 << 20;
/// What an answer costs beside its bytes.
const ENTRY_BYTES: usize = 64;

/// A merge with a memory. Merges elsewhere are always run: the law of replay compares them with what was remembered.
pub struct Memoised<'a> {
    merge: &'a dyn Merge,
    answers: RefCell<HashMap<[u64; 2], MergeResult>>,
    bytes: Cell<usize>,
    runs: Cell<u64>,
}

impl<'a> Memoised<'a> {
    /// Remembers the answers of this merge.
    #[must_use]
    pub fn new(merge: &'a dyn Merge) -> Self {
        Self { merge, answers: RefCell::default(), bytes: Cell::new(0), runs: Cell::new(0) }
    }

    /// How many merges were run, and not answered from memory.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs.get()
    }
}

/// 128 bits, so that two different calls never have the same in practice.
fn hash(key: &[u8], siblings: &[Sibling]) -> [u64; 2] {
    [1_u8, 2].map(|lane| {
        let mut hasher = DefaultHasher::new();
        (lane, key, siblings).hash(&mut hasher);
        hasher.finish()
    })
}

impl Merge for Memoised<'_> {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let hash = hash(key, siblings);
        if let Some(answer) = self.answers.borrow().get(&hash) {
            return answer.clone();
        }
        let answer = self.merge.merge(key, siblings);
        self.runs.set(self.runs.get() + 1);
        let bytes = ENTRY_BYTES + answer.as_ref().map_or(0, Vec::len);
        if self.bytes.get() + bytes <= KEPT_BYTES {
            self.bytes.set(self.bytes.get() + bytes);
            self.answers.borrow_mut().insert(hash, answer.clone());
        }
        answer
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.runs.set(self.runs.get() + 1);
        self.merge.merge_elsewhere(key, siblings)
    }

    fn has_reached_new_code(&self) -> bool {
        self.merge.has_reached_new_code()
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        self.merge.validate(key, value)
    }
}

impl std::fmt::Debug for Memoised<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memoised").field("runs", &self.runs).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells how often it was asked.
    struct Counting(Cell<u8>);

    impl Merge for Counting {
        fn merge(&self, _key: &[u8], _siblings: &[Sibling]) -> MergeResult {
            self.0.set(self.0.get() + 1);
            Ok(vec![self.0.get()])
        }
    }

    #[test]
    fn the_same_merge_is_run_once_and_elsewhere_again() {
        let (counting, one) = (Counting(Cell::new(0)), Sibling { value: vec![1], stamp_ms: 1, writer: 1 });
        let memoised = Memoised::new(&counting);
        let later = Sibling { stamp_ms: 2, ..one.clone() };
        assert_eq!(memoised.merge(b"k", std::slice::from_ref(&one)), Ok(vec![1]));
        assert_eq!(memoised.merge(b"k", std::slice::from_ref(&one)), Ok(vec![1]));
        assert_eq!(memoised.merge(b"k", &[later]), Ok(vec![2]), "the stamp is part of the call");
        assert_eq!(memoised.merge(b"l", std::slice::from_ref(&one)), Ok(vec![3]), "and so is the key");
        assert_eq!(memoised.merge_elsewhere(b"k", &[one]), Ok(vec![4]));
        assert_eq!(memoised.runs(), 4);
    }
}
