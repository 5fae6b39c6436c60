//! A key that alone makes two sums differ is named by them, without a search.
//!
//! A [`Sum`] has, of all objects in a range, the sum of the hashes and the sum of `place * hash`, where the place is
//! the prefix of the key hash. If two nodes' sums differ in one key, be it that one of them lacks it or that they have
//! two versions of it, the differences of these sums are `d` and `place * d`, modulo a power of two. So the place is
//! the quotient. A `d` with `z` trailing zeros has no inverse, but divided by `2^z` it has, and the quotient is known
//! but for `z` bits. Places are multiplied backwards, so that those are the last bits of the prefix.
//!
//! If the sums differ in several keys, the quotient is some number. It is taken for a name only if it lies in the range
//! and fits to what is there, so a wrong name is rare; what comes of a name is compared with the sums, and the whole
//! roots are compared again after the walk.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use rejoin_proto::exchange::{Digest, HashRange, Sum};

use super::own::{OwnRow, ReadBudget, Readable};
use super::trees::Trees;
use crate::port::{Space, Store, StoreFault};

/// The most rows with one name.
const MOST_NAMED: usize = 4;

/// What alone seems to make the sums of a range differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lone {
    /// Where the key is.
    pub(crate) name: HashRange,
    /// The trailing bits of the hash of the peer's copy, less those of this node's. A copy that is not there counts 0.
    pub(crate) hash: u32,
    /// By how much the peer's copy weighs more, if both have one.
    pub(crate) weight: i32,
}

/// The rows with a name.
#[derive(Debug)]
pub(crate) enum NamedRows {
    /// Each as it is stored, with what it comes to.
    Rows(Vec<(OwnRow, Bytes)>),
    /// Some cannot be read, or there are too many.
    Unclear,
    /// More was read before on this turn than leaves room for them.
    Spent,
    /// They may be too large to be read on a turn.
    Large,
}

/// The key that alone makes the sums of a range differ, if it may be one.
pub(crate) fn lone(range: &HashRange, own: &Sum, theirs: Digest) -> Option<Lone> {
    let mine = own.digest();
    let hash = theirs.hash.wrapping_sub(mine.hash);
    let places = theirs.places.wrapping_sub(mine.places);
    let zeros = hash.trailing_zeros();
    // As many bits of the place are known. They have to be more than the range has in common.
    let known = u32::BITS - zeros;
    if known <= u32::from(range.depth) || places & ((1 << zeros) - 1) != 0 {
        return None;
    }
    let place = (places >> zeros).wrapping_mul(inverse(hash >> zeros)) & u32::MAX >> zeros;
    let name = HashRange { bucket: range.bucket, start: u64::from(place).reverse_bits(), depth: known as u8 };
    let weight = theirs.weights.wrapping_sub(mine.weights).cast_signed();
    range.contains(&name).then_some(Lone { name, hash, weight })
}

/// The inverse of an odd number, modulo 2^32.
fn inverse(odd: u32) -> u32 {
    // Right in the last three bits. Each step doubles them.
    let mut inverse = odd;
    for _ in 0..4 {
        inverse = inverse.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

impl Trees {
    /// The rows of this node with a name.
    ///
    /// # Errors
    /// A fault of the store.
    pub(crate) fn named_rows(
        &self,
        store: &dyn Store,
        name: &HashRange,
        budget: &mut ReadBudget,
    ) -> Result<NamedRows, StoreFault> {
        match budget.judge(self.leaves_in(name).map(|(_, of)| of.sum.bytes).sum()) {
            Readable::Now => {}
            Readable::Later => return Ok(NamedRows::Spent),
            Readable::Never => return Ok(NamedRows::Large),
        }
        let mut rows = Vec::new();
        let scanned = store.scan(Space::Objects, &name.from(), name.to().as_deref(), &mut |key, row| {
            rows.push((OwnRow::of(&self.key, Bytes::copy_from_slice(key), &row), row));
            if rows.len() > MOST_NAMED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        budget.spend(rows.iter().map(|(row, _)| row));
        match scanned {
            Ok(()) if rows.len() <= MOST_NAMED => Ok(NamedRows::Rows(rows)),
            Ok(()) | Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => Ok(NamedRows::Unclear),
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::BucketId;

    /// A hash of a number, for tests.
    fn mixed(number: u64) -> u128 {
        u128::from(number.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(57)
    }

    /// The sum of a copy of a key.
    fn copy(key: u64, version: u64) -> Sum {
        Sum::of(mixed(key * 100 + version) ^ mixed(version) >> 3, mixed(key) as u64, 100, version, true)
    }

    fn all(bucket: BucketId) -> HashRange {
        HashRange { bucket, start: 0, depth: 0 }
    }

    #[test]
    fn an_inverse_is_one() {
        for odd in [1, 3, 5, 0x1234_5677, u32::MAX] {
            assert_eq!(odd.wrapping_mul(inverse(odd)), 1);
        }
    }

    #[test]
    fn a_lone_difference_is_named_whoever_has_it_and_whatever_else_is_there() {
        let both = (0..50).fold(Sum::default(), |sum, key| sum.plus(copy(key, 1)));
        let mut named = 0;
        for key in 100..400 {
            let prefix = mixed(key) as u64;
            for depth in [0, 8, 12] {
                let range = HashRange::around(BucketId(7), prefix, depth);
                let cases = [
                    (both, both.plus(copy(key, 1)), copy(key, 1).digest().hash, 1),
                    (both.plus(copy(key, 1)), both, 0_u32.wrapping_sub(copy(key, 1).digest().hash), -1),
                    (
                        both.plus(copy(key, 5)),
                        both.plus(copy(key, 3)),
                        copy(key, 3).digest().hash.wrapping_sub(copy(key, 5).digest().hash),
                        -2,
                    ),
                ];
                for (own, theirs, hash, weight) in cases {
                    let Some(lone) = lone(&range, &own, theirs.digest()) else {
                        assert!(hash.trailing_zeros() >= 20, "{key} {depth} {hash:x}");
                        continue;
                    };
                    assert!(lone.name.holds(prefix) && range.contains(&lone.name), "{key} {lone:?}");
                    assert_eq!((lone.hash, lone.weight), (hash, weight));
                    named += usize::from(lone.name.depth >= 28);
                }
            }
        }
        assert!(named > 800 * 3, "{named}");
    }

    #[test]
    fn of_several_differences_hardly_a_name_comes() {
        let (mut names, rounds) = (0, 2000);
        for round in 0..rounds {
            let theirs = (0..3).fold(Sum::default(), |sum, key| sum.plus(copy(round * 10 + key, 1)));
            let range = HashRange::around(BucketId(7), mixed(round) as u64, 8);
            names += usize::from(lone(&range, &Sum::default(), theirs.digest()).is_some());
        }
        assert!(names < rounds as usize / 50, "{names} of {rounds}");
    }

    #[test]
    fn equal_sums_name_nothing() {
        let sum = copy(1, 1).plus(copy(2, 2));
        assert_eq!(lone(&all(BucketId(7)), &sum, sum.digest()), None);
    }
}
