//! Written rows on their way to the tree: gathered, so that they reach its memtable in order and a row that is written
//! again meanwhile only once.
//!
//! A row in a random place costs the memtable a dozen cache misses; one beside the row before it hardly any. The
//! journal has them all, so nothing depends on when they get there, as long as they do before the memtable is sealed.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Bytes of rows that are gathered at most, beyond one row.
const MOST_BYTES: usize = 1 << 20;

/// The rows that the tree does not have yet.
#[derive(Default)]
pub(super) struct Young {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl Young {
    /// What was last written or removed under the key, if the tree does not have it yet.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.rows.get(key)
    }

    /// Takes a row. Its former value, if the tree has not seen it, it will not see.
    pub(super) fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        let key_bytes = key.len();
        match self.rows.insert(key, value) {
            Some(former) => self.bytes -= size(&former),
            None => self.bytes += key_bytes,
        }
    }

    /// Whether so many have come together that the tree should have them.
    pub(super) fn is_full(&self, most_rows: usize) -> bool {
        self.rows.len() >= most_rows || self.bytes >= MOST_BYTES
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// All of them, in order; none are left.
    pub(super) fn take(&mut self) -> BTreeMap<Bytes, Option<Bytes>> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_so_do_the_bytes() {
        let mut young = Young::default();
        young.put("a".into(), Some("one".into()));
        young.put("b".into(), Some("two".into()));
        young.put("a".into(), None);
        assert_eq!((young.get(b"a"), young.get(b"c")), (Some(&None), None), "removed is not the same as never written");
        assert_eq!(young.bytes(), 5);
        assert!(young.is_full(2) && !young.is_full(3));
        young.put("c".into(), Some(vec![0; MOST_BYTES].into()));
        assert!(young.is_full(usize::MAX));
        assert_eq!(young.take().into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((young.bytes(), young.get(b"a")), (0, None));
    }
}
