//! The pinned rows. They live in memory; the journal's records change them, and each segment begins with a copy of
//! them.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

/// Keys up to this length are stored in the map's nodes. There may be some 100 000 rows of retries, and a search that
/// follows a pointer for every key it compares misses the cache dozens of times. The core's longest key has 19 bytes;
/// 23 make a [`Key`] of 32 bytes.
const INLINE: usize = 23;

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
        assert!(
            rows.keys().all(|key| key.spilled() == (key.len() > INLINE)),
            "only a longer key has memory of its own"
        );
        assert!(keys.iter().all(|key| rows.get(*key).is_some_and(|value| value == key)));
        let between = (Bound::Included(&b"r"[..]), Bound::Excluded(&[b'r'; INLINE][..]));
        assert_eq!(rows.range::<[u8], _>(between).count(), 2);
    }
}
