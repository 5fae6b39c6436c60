//! What this node has in a range of key hashes: from the leaves, and within a leaf from the rows themselves.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use rejoin_proto::exchange::{BRANCHES, HashRange, Sum, place_of};
use rejoin_proto::object::context_of;

use super::trees::{Leaf, Standing, Trees};
use crate::port::{Space, Store, StoreFault};

/// The most objects whose hashes are listed. Of more, the sums of the parts take fewer bytes.
pub(crate) const FEW_OBJECTS: u64 = 10;
/// The most rows that are read at once for one range. A leaf that is larger is about to be divided.
const MAX_ROWS: usize = 2048;

/// What this node has in a range.
#[derive(Debug)]
pub(crate) enum Own {
    /// Few objects.
    Rows(Vec<OwnRow>),
    /// The sums of its parts.
    Parts(Box<[Sum; BRANCHES]>),
    /// That is not known yet.
    Unknown,
}

/// A row of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OwnRow {
    pub(crate) store_key: Bytes,
    pub(crate) hash: u128,
    pub(crate) bytes: usize,
    /// Of two copies of a key, one that dominates the other weighs more.
    pub(crate) weight: u64,
}

impl OwnRow {
    /// Where its key is in a range.
    pub(crate) fn place(&self, range: &HashRange) -> u32 {
        place_of(&self.store_key).map_or(0, |(_, prefix)| range.place(prefix))
    }
}

/// The rows of a range.
struct Read {
    rows: Vec<OwnRow>,
    /// Whether there may be more than those.
    partial: bool,
}

impl Trees {
    /// What this node has in a range. Adds the rows that it had to read to `read`. A leaf whose objects do not come to
    /// its sum is counted anew.
    pub(crate) fn look(&mut self, store: &dyn Store, range: &HashRange, read: &mut usize) -> Result<Own, StoreFault> {
        let leaves: Vec<(HashRange, Leaf)> = self.leaves_in(range).map(|(range, leaf)| (range, *leaf)).collect();
        let is_undiscovered = self.undiscovered.is_some_and(|from| (range.bucket, range.last()) >= from);
        if is_undiscovered || leaves.iter().any(|(_, leaf)| leaf.standing == Standing::Unknown) {
            return Ok(Own::Unknown);
        }
        let sum = leaves.iter().fold(Sum::default(), |sum, (_, leaf)| sum.plus(leaf.sum));
        let whole = leaves.iter().all(|(leaf, _)| range.contains(leaf));
        if sum.count == 0 {
            return Ok(Own::Rows(Vec::new()));
        }
        let undivided = leaves.iter().any(|(leaf, _)| leaf.depth <= range.depth);
        if whole && !undivided && sum.count > FEW_OBJECTS {
            let mut parts = [Sum::default(); BRANCHES];
            for (leaf, of) in &leaves {
                let part = &mut parts[range.part_of(leaf.start)];
                *part = part.plus(of.sum);
            }
            return Ok(Own::Parts(Box::new(parts)));
        }
        let found = self.rows(store, range)?;
        *read += found.rows.len();
        let rows_sum = found.rows.iter().fold(Sum::default(), |sum, row| sum.plus(Sum::of(row.hash, row.bytes)));
        if whole && !found.partial && !rows_sum.is_same(&sum) {
            // Rule: wrong leaves are recounted.
            leaves.iter().for_each(|(leaf, _)| self.doubt(&leaf.from()));
        }
        if found.partial && found.rows.len() >= MAX_ROWS {
            return Ok(Own::Unknown);
        }
        if found.rows.len() as u64 <= FEW_OBJECTS {
            return Ok(Own::Rows(found.rows));
        }
        let mut parts = [Sum::default(); BRANCHES];
        for row in found.rows {
            let prefix = place_of(&row.store_key).map_or(range.start, |(_, prefix)| prefix);
            let part = &mut parts[range.part_of(prefix)];
            *part = part.plus(Sum::of(row.hash, row.bytes));
        }
        Ok(Own::Parts(Box::new(parts)))
    }

    /// The rows of a range, if there are no more than so many.
    pub(crate) fn few_rows(
        &self,
        store: &dyn Store,
        range: &HashRange,
        most: u64,
        read: &mut usize,
    ) -> Result<Option<Vec<OwnRow>>, StoreFault> {
        let known: u64 =
            self.leaves_in(range).filter(|(leaf, _)| range.contains(leaf)).map(|(_, of)| of.sum.count).sum();
        if known > most {
            return Ok(None);
        }
        let found = self.rows(store, range)?;
        *read += found.rows.len();
        Ok((found.rows.len() as u64 <= most).then_some(found.rows))
    }

    /// The readable rows of a range.
    fn rows(&self, store: &dyn Store, range: &HashRange) -> Result<Read, StoreFault> {
        let mut read = Read { rows: Vec::new(), partial: false };
        let scanned = store.scan(Space::Objects, &range.from(), range.to().as_deref(), &mut |key, row| {
            if read.rows.len() >= MAX_ROWS {
                read.partial = true;
                return ControlFlow::Break(());
            }
            let hash = self.key.hash_row(key, &row).0;
            let weight = context_of(&row).map_or(0, |context| context.weight());
            read.rows.push(OwnRow { store_key: Bytes::copy_from_slice(key), hash, bytes: row.len(), weight });
            ControlFlow::Continue(())
        });
        match scanned {
            Ok(()) => Ok(read),
            // What cannot be read is for the other side to bring.
            Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => Ok(Read { partial: true, ..read }),
            Err(fault) => Err(fault),
        }
    }
}

/// The leading bytes of a hash, multiplied by a salt. Sums can be shortened like hashes: both sides of an equation are
/// multiplied.
pub(crate) fn shorten(hash: u128, salt: u128, width: u8) -> [u8; 16] {
    let mut bytes = hash.wrapping_mul(salt).to_be_bytes();
    bytes[usize::from(width).min(16)..].fill(0);
    bytes
}

/// The first four bytes of a shortened hash, as a message has them.
pub(crate) fn leading(short: &[u8; 16]) -> u32 {
    u32::from_be_bytes([short[0], short[1], short[2], short[3]])
}

/// The leading bytes of many hashes, one behind the other.
pub(crate) fn shortened(hashes: impl IntoIterator<Item = u128>, salt: u128, width: u8) -> Bytes {
    let width_bytes = usize::from(width).min(16);
    let mut bytes = Vec::new();
    for hash in hashes {
        bytes.extend_from_slice(&shorten(hash, salt, width)[..width_bytes]);
    }
    bytes.into()
}

/// The width to which the sums of parts are shortened, where hashes of objects have `width` bytes.
pub(crate) fn part_width(width: u8) -> u8 {
    if width >= 16 { 16 } else { (width / 2).max(1) }
}

/// Hashes as they were shortened, in order of their bytes, for look-ups.
pub(crate) fn sorted(hashes: &[u8], width: u8) -> Vec<[u8; 16]> {
    let mut all: Vec<[u8; 16]> = hashes.chunks_exact(usize::from(width.clamp(1, 16))).map(padded).collect();
    all.sort_unstable();
    all
}

fn padded(hash: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..hash.len()].copy_from_slice(hash);
    bytes
}

/// Shortened hashes, one behind the other.
pub(crate) fn padded_hashes<'a>(hashes: impl Iterator<Item = &'a [u8; 16]>, width: u8) -> Bytes {
    let width = usize::from(width).min(16);
    let mut bytes = Vec::new();
    hashes.for_each(|hash| bytes.extend_from_slice(&hash[..width]));
    bytes.into()
}
