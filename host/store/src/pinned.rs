//! The pinned rows, which live in memory: the journal's records change them, and each segment begins with a copy of
//! them.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

/// Keys up to this length stand in the map's own nodes. There may be some 100 000 rows of retries; a search that
/// followed a pointer for every key it compares would miss the cache dozens of times. The longest key of the core's has
/// 19 bytes, and 23 are what fits into 32 with the rest.
const INLINE: usize = 23;

/// A pinned row's key.
pub(crate) type Key = SmallVec<[u8; INLINE]>;

/// The pinned rows, in the order of their keys.
pub(crate) type Pinned = BTreeMap<Key, Bytes>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound;

    #[test]
    fn keys_stand_in_the_nodes_and_are_found_by_their_bytes_in_their_order() {
        assert_eq!(size_of::<Key>(), 32);
        let keys: [&[u8]; 5] = [b"", b"r", &[b'r'; 19], &[b'r'; INLINE], &[b'r'; 40]];
        let rows: Pinned = keys.iter().rev().map(|key| (Key::from_slice(key), Bytes::copy_from_slice(key))).collect();
        assert!(rows.keys().map(Key::as_slice).eq(keys) && keys.is_sorted());
        assert!(rows.keys().all(|key| key.spilled() == (key.len() > INLINE)), "only a longer key has memory of its own");
        assert!(keys.iter().all(|key| rows.get(*key).is_some_and(|value| value == key)));
        let between = (Bound::Included(&b"r"[..]), Bound::Excluded(&[b'r'; INLINE][..]));
        assert_eq!(rows.range::<[u8], _>(between).count(), 2);
    }
}
