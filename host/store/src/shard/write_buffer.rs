//! Buffers written rows in front of the tree, so that they reach its memtable in key order, and a row that is written
//! several times only once.
//!
//! An insert at a random place of the memtable costs a dozen cache misses, one beside the previous row hardly any. The
//! journal has all rows already, so the buffer only has to be drained before the memtable is sealed.
//!
//! The rows are hashed, and sorted once when they are taken. A map that keeps them in order would compare each new key
//! with a dozen others, each of which is somewhere else in memory.

use std::collections::HashMap;

use bytes::Bytes;

/// Bytes at which the buffer is full.
const MAX_BYTES: usize = 1 << 20;

/// Rows for which an empty buffer keeps room.
const KEPT_ROWS: usize = 4096;
/// The bytes of a key that are compared without a look at the key.
const PREFIX_BYTES: usize = 32;

/// Rows that the tree does not have yet.
#[derive(Default)]
pub(super) struct WriteBuffer {
    /// In no order: only [`take`](Self::take) goes through all of them.
    rows: HashMap<Bytes, Option<Bytes>>,
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
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + use<> {
        self.bytes = 0;
        let mut rows: Vec<_> = self.rows.drain().map(|(key, value)| (prefix(&key), key, value)).collect();
        self.rows.shrink_to(KEPT_ROWS);
        rows.sort_unstable_by(|(one, key, _), (other, other_key, _)| (one, key).cmp(&(other, other_key)));
        rows.into_iter().map(|(_, key, value)| (key, value))
    }
}

/// The first bytes of a key, with zeros behind a shorter one. Keys with different ones are in the order of these.
fn prefix(key: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    let length = key.len().min(PREFIX_BYTES);
    prefix[..length].copy_from_slice(&key[..length]);
    prefix
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
        assert_eq!(write_buffer.take().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((write_buffer.bytes(), write_buffer.get(b"a")), (0, None));
    }

    #[test]
    fn rows_come_in_the_order_of_their_keys_whatever_these_begin_and_end_with() {
        let long = |end: &str| "p".repeat(PREFIX_BYTES) + end;
        let mut keys: Vec<Bytes> = vec![Bytes::from_static(&[0]), Bytes::from_static(&[0, 0]), "".into(), "p".into()];
        keys.extend(["", "a", "b", "\0", "ab"].map(|end| Bytes::from(long(end))));
        keys.extend((0..500_u16).map(|number| Bytes::copy_from_slice(&number.wrapping_mul(7919).to_be_bytes())));
        let mut write_buffer = WriteBuffer::default();
        keys.iter().for_each(|key| write_buffer.put(key.clone(), Some(key.clone())));
        keys.sort();
        keys.dedup();
        let taken: Vec<(Bytes, Option<Bytes>)> = write_buffer.take().collect();
        assert_eq!(taken, keys.into_iter().map(|key| (key.clone(), Some(key))).collect::<Vec<_>>());
        assert!(write_buffer.take().next().is_none());
    }
}
