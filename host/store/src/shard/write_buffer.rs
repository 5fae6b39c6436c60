//! Buffers written rows in front of the tree, so that they reach its memtable in key order, and a row that is written
//! several times only once.
//!
//! An insert at a random place of the memtable costs a dozen cache misses, one beside the previous row hardly any. The
//! journal has all rows already, so the buffer only has to be drained before the memtable is sealed.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Bytes at which the buffer is full.
const MAX_BYTES: usize = 1 << 20;

/// Rows that the tree does not have yet.
#[derive(Default)]
pub(super) struct WriteBuffer {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl WriteBuffer {
    /// The buffered row: `Some(None)` if it was removed, `None` if the key is not in the buffer.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.rows.get(key)
    }

    /// Adds a row. It replaces the key's former row in the buffer, which the tree never gets.
    pub(super) fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        let key_bytes = key.len();
        match self.rows.insert(key, value) {
            Some(former) => self.bytes -= size(&former),
            None => self.bytes += key_bytes,
        }
    }

    /// Whether the buffer is to be drained.
    pub(super) fn is_full(&self, max_rows: usize) -> bool {
        self.rows.len() >= max_rows || self.bytes >= MAX_BYTES
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Takes all rows, in key order.
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
        let mut write_buffer = WriteBuffer::default();
        write_buffer.put("a".into(), Some("one".into()));
        write_buffer.put("b".into(), Some("two".into()));
        write_buffer.put("a".into(), None);
        assert_eq!(
            (write_buffer.get(b"a"), write_buffer.get(b"c")),
            (Some(&None), None),
            "removed is not the same as never written"
        );
        assert_eq!(write_buffer.bytes(), 5);
        assert!(write_buffer.is_full(2) && !write_buffer.is_full(3));
        write_buffer.put("c".into(), Some(vec![0; MAX_BYTES].into()));
        assert!(write_buffer.is_full(usize::MAX));
        assert_eq!(write_buffer.take().into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((write_buffer.bytes(), write_buffer.get(b"a")), (0, None));
    }
}
