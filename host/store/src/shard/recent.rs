//! Rows of objects as they were last read or written. A write begins with a read of its object, and what is read at one
//! owner was often written there a moment ago: both are spared a search of the tree, whose memtable costs a dozen cache
//! misses a row.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// What a row costs beside its bytes, about: two handles and the cache's own notes.
const ROW_BYTES: usize = 128;
/// Larger rows are left to the tree: they would push out many small ones, and beside them the search is small.
const LARGEST: usize = 16 << 10;

/// A bounded cache of rows. It belongs to the shard and is told of every write, so it never differs from the last of
/// them.
pub(super) struct Recent(Cache<Bytes, Bytes, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Bytes, Bytes> for Weight {
    fn weight(&self, key: &Bytes, value: &Bytes) -> u64 {
        (key.len() + value.len() + ROW_BYTES) as u64
    }
}

impl Recent {
    /// A cache of that many bytes in all.
    pub(super) fn new(bytes: u64) -> Self {
        let rows = usize::try_from(bytes / 512).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(rows, bytes, Weight))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    /// The row is now that.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        if value.len() <= LARGEST {
            self.0.insert(key, value);
        } else {
            self.remove(&key);
        }
    }

    /// The row is gone, or is not to be remembered.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_the_bound_holds() {
        let mut recent = Recent::new(64 << 10);
        let key = |number: u32| Bytes::from(number.to_string());
        recent.put(key(1), "one".into());
        recent.put(key(1), "uno".into());
        assert_eq!(recent.get(b"1").as_deref(), Some(&b"uno"[..]));
        recent.put(key(1), vec![0; LARGEST + 1].into());
        assert_eq!(recent.get(b"1"), None, "a row that became too large is not remembered as it was");
        recent.put(key(2), "two".into());
        recent.remove(b"2");
        assert_eq!(recent.get(b"2"), None);
        (0..10_000).for_each(|number| recent.put(key(number), vec![0; 100].into()));
        assert!(recent.0.weight() <= 64 << 10 && recent.0.len() > 100, "{} bytes in {} rows", recent.0.weight(), recent.0.len());
    }
}
