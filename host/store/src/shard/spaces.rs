//! How the key spaces share the one lsm-tree: behind all object rows stand those of receipts, then those of hash trees.

use std::ops::Bound;

use bytes::Bytes;

use rejoin_core::port::{Row, Space};

use crate::journal::is_key_length;
use crate::sealed::is_sealed;

/// In front of the keys of [`Space::Trees`]. It is the id of no bucket, so no object's key begins with it.
pub(super) const TREES: [u8; 8] = [0xff; 8];

/// A key of [`Space::Trees`] as the lsm-tree has it.
pub(super) fn tree_key(key: &[u8]) -> Bytes {
    [&TREES, key].concat().into()
}

/// In front of the keys of [`Space::Receipts`]. It is the id of no bucket either.
pub(super) const RECEIPTS: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];

/// A key of [`Space::Receipts`] as the lsm-tree has it.
pub(super) fn receipt_key(key: &[u8]) -> Bytes {
    [&RECEIPTS, key].concat().into()
}

/// The upper bound of a scan of objects: at most the first row of a receipt.
pub(super) fn objects_end(to: Bound<Bytes>) -> Bound<Bytes> {
    match to {
        Bound::Included(to) if to[..] < RECEIPTS[..] => Bound::Included(to),
        Bound::Excluded(to) if to[..] <= RECEIPTS[..] => Bound::Excluded(to),
        _ => Bound::Excluded(Bytes::from_static(&RECEIPTS)),
    }
}

/// The upper bound of a scan of receipts: at most the first row of a hash tree.
pub(super) fn receipts_end(to: Option<&[u8]>) -> Bytes {
    to.map_or(Bytes::from_static(&TREES), receipt_key)
}

/// The mistake in a row, if there is one. Such a row must not reach the journal: no start could put it into the tree,
/// or a row in the clear would be taken for a sealed one. `seals` says that objects are sealed.
pub(super) fn mistake(row: &Row, seals: bool) -> Option<String> {
    let prefixed = matches!(row.space, Space::Trees | Space::Receipts);
    let length = row.key.len() + if prefixed { TREES.len() } else { 0 };
    if !is_key_length(length) || row.key.is_empty() {
        return Some(format!("a row's key has 1 to 65535 bytes, not {}", row.key.len()));
    }
    if !matches!(row.space, Space::Objects | Space::Receipts) {
        return None;
    }
    if row.space == Space::Objects && row.key[..] >= RECEIPTS[..] {
        return Some("no object's key begins with seven bytes ff and one of fe or ff".to_owned());
    }
    let claims_to_be_sealed = !seals && row.value.as_deref().is_some_and(is_sealed);
    claims_to_be_sealed.then(|| "no row of an object begins with a byte ff: that is how a sealed one begins".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_of_objects_ends_in_front_of_the_receipts_and_one_of_receipts_in_front_of_the_trees() {
        let end = Bound::Excluded(Bytes::from_static(&RECEIPTS));
        for to in [Bound::Unbounded, Bound::Included(tree_key(b"k")), Bound::Excluded(receipt_key(b""))] {
            assert_eq!(objects_end(to), end);
        }
        assert_eq!((receipts_end(None), receipts_end(Some(b"k"))), (tree_key(b""), receipt_key(b"k")));
        assert!(receipt_key(&[0xff; 100]) < tree_key(b""));
        for to in [Bound::Included("k".into()), Bound::Excluded(Bytes::from_static(&[0xff; 7]))] {
            assert_eq!(objects_end(to.clone()), to);
        }
    }

    #[test]
    fn a_key_that_would_stand_among_the_trees_is_a_mistake() {
        let mistake = |space, key: Bytes| mistake(&Row { space, key, value: None }, false);
        assert_eq!(mistake(Space::Objects, Bytes::from_static(&[0xff; 7])), None);
        assert!(mistake(Space::Objects, tree_key(b"k")).is_some());
        assert!(mistake(Space::Objects, receipt_key(b"k")).is_some());
        assert_eq!(mistake(Space::Receipts, tree_key(b"k")), None);
        assert_eq!(mistake(Space::Trees, tree_key(b"k")), None);
        let long = |length| Bytes::from(vec![1; length]);
        assert!(mistake(Space::Objects, long(65_535)).is_none());
        assert!(mistake(Space::Trees, long(65_528)).is_some() && mistake(Space::Trees, long(0)).is_some());
    }

    #[test]
    fn a_row_in_the_clear_that_would_be_taken_for_a_sealed_one_is_a_mistake() {
        let row = |space, value| Row { space, key: "k".into(), value: Some(Bytes::from_static(value)) };
        assert!(mistake(&row(Space::Objects, b"\xff"), false).is_some());
        assert!(
            mistake(&row(Space::Objects, b"\xff"), true).is_none()
                && mistake(&row(Space::Pinned, b"\xff"), false).is_none()
        );
        assert!(mistake(&row(Space::Objects, b"\xfe\xff"), false).is_none());
    }
}
