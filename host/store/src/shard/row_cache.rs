//! Caches the object rows that were last read or written. A write begins with a read of its object, and a row that is
//! read was often written a moment ago. Both are spared a search of the tree, whose memtable costs a dozen cache
//! misses.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// The overhead of a row, about: two handles and the cache's entry.
const ROW_BYTES: usize = 128;
/// Larger rows are not cached: each would evict many small ones, and its search in the tree costs little beside its
/// size.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// A bounded cache of rows. The shard updates it with every write, so it is never stale.
pub(super) struct RowCache(Cache<Bytes, Bytes, RowWeighter>);

#[derive(Clone)]
struct RowWeighter;

impl Weighter<Bytes, Bytes> for RowWeighter {
    fn weight(&self, key: &Bytes, value: &Bytes) -> u64 {
        (key.len() + value.len() + ROW_BYTES) as u64
    }
}

impl RowCache {
    /// A cache of so many bytes, overhead included.
    pub(super) fn new(bytes: u64) -> Self {
        let rows = usize::try_from(bytes / 512).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(rows, bytes, RowWeighter))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    /// Caches a row, or removes it from the cache if it is too large.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) {
        if value.len() <= MAX_VALUE_BYTES {
            self.0.insert(key, value);
        } else {
            self.remove(&key);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_the_bound_holds() {
        let mut row_cache = RowCache::new(64 << 10);
        let key = |number: u32| Bytes::from(number.to_string());
        row_cache.put(key(1), "one".into());
        row_cache.put(key(1), "uno".into());
        assert_eq!(row_cache.get(b"1").as_deref(), Some(&b"uno"[..]));
        row_cache.put(key(1), vec![0; MAX_VALUE_BYTES + 1].into());
        assert_eq!(row_cache.get(b"1"), None, "a row that became too large is not remembered as it was");
        row_cache.put(key(2), "two".into());
        row_cache.remove(b"2");
        assert_eq!(row_cache.get(b"2"), None);
        (0..10_000).for_each(|number| row_cache.put(key(number), vec![0; 100].into()));
        assert!(
            row_cache.0.weight() <= 64 << 10 && row_cache.0.len() > 100,
            "{} bytes in {} rows",
            row_cache.0.weight(),
            row_cache.0.len()
        );
    }
}
