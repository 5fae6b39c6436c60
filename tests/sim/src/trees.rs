//! Whether the stored hash trees of a disk are what its objects come to. Nothing here is the core's but the hash of one
//! row: leaves are decoded and added up anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_core::exchange::hash::CausalKey;
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::{Content, Object};

/// A leaf as the core stores it: its frozen encoding, read here and not by the core's own code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Leaf {
    depth: u8,
    standing: Standing,
    count: u64,
    bytes: u64,
    hash: u128,
    places: u64,
    weights: u64,
    /// How many of the objects have a value.
    live: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Standing {
    Known,
    Partial,
    Unknown,
}

impl Versioned for Leaf {
    const VERSION: u8 = 2;
    const WHAT: &'static str = "leaf row";
}

/// The trees of one disk.
pub(crate) struct StoredTrees<'a> {
    pub(crate) leaves: &'a BTreeMap<Bytes, Bytes>,
    pub(crate) objects: &'a BTreeMap<Bytes, Bytes>,
    pub(crate) key: &'a CausalKey,
}

impl StoredTrees<'_> {
    /// What is wrong with the leaves that are known. `in_doubt` are keys that may be lost without the core's knowledge.
    /// Trees without a head row are being counted, and say nothing yet.
    pub(crate) fn problems(&self, in_doubt: impl Fn(&[u8], Option<&[u8]>) -> bool) -> Vec<String> {
        let (mut problems, mut counted) = (Vec::new(), 0);
        let mut has_head = false;
        for (place, row) in self.leaves {
            if place.len() < 16 {
                has_head = true;
                continue;
            }
            let leaf: Leaf = codec::decode(row).expect("a leaf row as it is kept");
            let (from, to) = range(place, leaf.depth);
            let inside = |key: &[u8]| key >= &from[..] && to.as_ref().is_none_or(|to| key < &to[..]);
            let rows = self.objects.range(from.clone()..).take_while(|(key, _)| inside(key));
            let (mut count, mut live, mut bytes, mut hash, mut places, mut weights) = (0, 0, 0, 0_u128, 0_u64, 0_u64);
            for (key, row) in rows {
                let of_row = self.key.hash_row(key, row).0;
                count += 1;
                bytes += row.len() as u64;
                hash = hash.wrapping_add(of_row);
                let prefix = u64::from_be_bytes(key[8..16].try_into().expect("a key of the store"));
                places = places.wrapping_add(prefix.reverse_bits().wrapping_mul(of_row as u64));
                if let Ok(object) = codec::decode::<Object>(row) {
                    weights = weights.wrapping_add(object.context.weight());
                    live += u64::from(object.entries.iter().any(|entry| entry.content != Content::Tombstone));
                }
            }
            counted += count;
            let sum = (leaf.count, leaf.live, leaf.bytes, leaf.hash, leaf.places, leaf.weights);
            let is_sum = sum == (count, live, bytes, hash, places, weights);
            if leaf.standing == Standing::Known && !is_sum && !in_doubt(&from, to.as_deref()) {
                problems.push(format!(
                    "leaf {place:?} is {leaf:?}, and its objects come to {count} ({live}), {bytes}, {hash:x}"
                ));
            }
        }
        if !has_head {
            return Vec::new();
        }
        if counted != self.objects.len() as u64 && !in_doubt(&[], None) {
            problems.push(format!("the leaves hold {counted} of {} objects", self.objects.len()));
        }
        problems
    }
}

/// Whether no leaf is unknown, and all are stored.
pub(crate) fn are_whole(leaves: &BTreeMap<Bytes, Bytes>) -> bool {
    let known = |row| codec::decode::<Leaf>(row).is_ok_and(|leaf| leaf.standing != Standing::Unknown);
    leaves.iter().any(|(place, _)| place.len() < 16)
        && leaves.iter().filter(|(place, _)| place.len() == 16).all(|(_, row)| known(row))
}

/// The keys of a leaf's range: the first, and the first behind it.
fn range(place: &[u8], depth: u8) -> (Bytes, Option<Bytes>) {
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let (bucket, start) = (word(&place[..8]), word(&place[8..]));
    let last = start | u64::MAX.checked_shr(u32::from(depth)).unwrap_or(0);
    let next = (u128::from(bucket) << 64 | u128::from(last)).checked_add(1);
    (Bytes::copy_from_slice(place), next.map(|next| Bytes::copy_from_slice(&next.to_be_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(leaf: &Leaf, objects: &BTreeMap<Bytes, Bytes>) -> usize {
        let place = [7_u64.to_be_bytes(), 0_u64.to_be_bytes()].concat();
        let leaves = [(place.into(), codec::encode(leaf).into()), (Bytes::from_static(&[0]), Bytes::new())].into();
        let key = CausalKey::derive(b"k");
        StoredTrees { leaves: &leaves, objects, key: &key }.problems(|_, _| false).len()
    }

    #[test]
    fn a_leaf_that_its_objects_do_not_come_to_is_found_and_an_object_without_a_leaf() {
        let object = |prefix: u64| Bytes::from([7_u64.to_be_bytes(), prefix.to_be_bytes(), [1; 8]].concat());
        let (inside, outside) = (object(5), object(u64::MAX));
        let hash = CausalKey::derive(b"k").hash_row(&inside, b"row").0;
        let places = 5_u64.reverse_bits().wrapping_mul(hash as u64);
        let leaf = Leaf { depth: 4, standing: Standing::Known, count: 1, bytes: 3, hash, places, weights: 0, live: 0 };
        let one: BTreeMap<_, _> = [(inside.clone(), "row".into())].into();
        assert_eq!(problems(&leaf, &one), 0);
        assert_eq!(problems(&Leaf { hash: hash + 1, ..leaf }, &one), 1);
        assert_eq!(problems(&Leaf { bytes: 4, ..leaf }, &one), 1);
        assert_eq!(problems(&Leaf { places: 4, ..leaf }, &one), 1);
        assert_eq!(problems(&Leaf { weights: 4, ..leaf }, &one), 1);
        assert_eq!(problems(&Leaf { live: 1, ..leaf }, &one), 1);
        assert_eq!(problems(&Leaf { standing: Standing::Unknown, count: 0, ..leaf }, &one), 0);
        assert_eq!(problems(&leaf, &[(inside, "other".into())].into()), 1);
        let two: BTreeMap<_, _> = one.into_iter().chain([(outside, "row".into())]).collect();
        assert_eq!(problems(&leaf, &two), 1, "it has no leaf");
    }
}
