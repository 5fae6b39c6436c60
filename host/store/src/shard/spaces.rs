//! How the key spaces share the one lsm-tree: the rows of hash trees stand behind all object rows.

use std::ops::Bound;

use bytes::Bytes;

use rejoin_core::port::{Row, Space};

use crate::journal::is_key_length;

/// In front of the keys of [`Space::Trees`]. It is the id of no bucket, so no object's key begins with it.
pub(super) const TREES: [u8; 8] = [0xff; 8];

/// A key of [`Space::Trees`] as the lsm-tree has it.
pub(super) fn tree_key(key: &[u8]) -> Bytes {
    [&TREES, key].concat().into()
}

/// The upper bound of a scan of objects: at most the first row of a hash tree.
pub(super) fn objects_end(to: Bound<Bytes>) -> Bound<Bytes> {
    match to {
        Bound::Included(to) if to[..] < TREES[..] => Bound::Included(to),
        Bound::Excluded(to) if to[..] <= TREES[..] => Bound::Excluded(to),
        _ => Bound::Excluded(Bytes::from_static(&TREES)),
    }
}

/// The mistake in a row's key, if there is one. Such a row must not reach the journal: no start could put it into the
/// tree.
pub(super) fn mistake(row: &Row) -> Option<String> {
    let length = row.key.len() + if row.space == Space::Trees { TREES.len() } else { 0 };
    if !is_key_length(length) || row.key.is_empty() {
        return Some(format!("a row's key has 1 to 65535 bytes, not {}", row.key.len()));
    }
    (row.space == Space::Objects && row.key.starts_with(&TREES))
        .then(|| "no object's key begins with eight bytes ff".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_of_objects_ends_in_front_of_the_trees() {
        let end = Bound::Excluded(Bytes::from_static(&TREES));
        for to in [Bound::Unbounded, Bound::Included(tree_key(b"k")), Bound::Excluded(tree_key(b""))] {
            assert_eq!(objects_end(to), end);
        }
        for to in [Bound::Included("k".into()), Bound::Excluded(Bytes::from_static(&[0xff; 7]))] {
            assert_eq!(objects_end(to.clone()), to);
        }
    }

    #[test]
    fn a_key_that_would_stand_among_the_trees_is_a_mistake() {
        let row = |space, key: Bytes| Row { space, key, value: None };
        assert_eq!(mistake(&row(Space::Objects, Bytes::from_static(&[0xff; 7]))), None);
        assert!(mistake(&row(Space::Objects, tree_key(b"k"))).is_some());
        assert_eq!(mistake(&row(Space::Trees, tree_key(b"k"))), None);
        let long = |length| Bytes::from(vec![1; length]);
        assert!(mistake(&row(Space::Objects, long(65_535))).is_none());
        assert!(mistake(&row(Space::Trees, long(65_528))).is_some() && mistake(&row(Space::Trees, long(0))).is_some());
    }
}
