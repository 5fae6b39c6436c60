//! What this node has in a range of key hashes: from the leaves, and within a leaf from the rows themselves.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use rejoin_proto::exchange::{BRANCHES, HashRange, Sum, WalkId, place_of};

use super::hash::CausalKey;
use super::trees::{Leaf, Standing, Trees, sum_of};
use crate::port::{Space, Store, StoreFault};
use crate::shard::event::{ScanJob, ScannedRows};

/// The most objects whose hashes are listed. Of more, the sums of the parts take fewer bytes.
pub(crate) const FEW_OBJECTS: u64 = BRANCHES as u64;
/// The most rows that are read at once for one range. A leaf that is larger is about to be divided.
const MAX_ROWS: usize = 2048;
/// The most rows, and bytes of them, that one question or its answer makes a shard read on its turn.
const READ_ROWS: usize = 1024;
const READ_BYTES: u64 = 1 << 20;

/// What this node has in a range.
#[derive(Debug)]
pub(crate) enum Own {
    /// Few objects.
    Rows(Vec<OwnRow>),
    /// The sums of its parts.
    Parts(Box<[Sum; BRANCHES]>),
    /// That is not known yet.
    Unknown,
    /// Its rows have to be read, and are more than is left to be read on this turn.
    Spent,
    /// Its rows have to be read, and are too large for a turn of the shard.
    Large,
}

/// The rows of a range, as far as they are wanted.
#[derive(Debug)]
pub(crate) enum FewRows {
    Rows(Vec<OwnRow>),
    /// There are more than is asked for.
    Many,
    /// As [`Own::Spent`] and [`Own::Large`].
    Spent,
    Large,
}

/// What one turn may still read.
#[derive(Debug, Default)]
pub(crate) struct ReadBudget {
    rows: usize,
    bytes: u64,
}

/// Whether rows can be read on this turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readable {
    Now,
    /// When nothing else was read on the turn.
    Later,
    /// Only off the turn.
    Never,
}

impl ReadBudget {
    /// Whether nothing more is read.
    pub(crate) fn is_spent(&self) -> bool {
        self.rows >= READ_ROWS || self.bytes >= READ_BYTES
    }

    /// The rows and bytes that were read.
    pub(crate) fn read(&self) -> (usize, u64) {
        (self.rows, self.bytes)
    }

    pub(super) fn judge(&self, bytes: u64) -> Readable {
        // Rule: large rows are read off the turn.
        if bytes > READ_BYTES {
            return Readable::Never;
        }
        if self.bytes + bytes > READ_BYTES { Readable::Later } else { Readable::Now }
    }

    pub(super) fn spend<'a>(&mut self, rows: impl IntoIterator<Item = &'a OwnRow>) {
        for row in rows {
            self.rows += 1;
            self.bytes += row.sum.bytes;
        }
    }
}

/// A range whose rows are read off the turn, step by step.
#[derive(Debug)]
pub(crate) struct RangeScan {
    pub(crate) range: HashRange,
    rows: Vec<OwnRow>,
    /// Whether it has more rows than were wanted.
    pub(crate) has_more: bool,
}

impl RangeScan {
    pub(crate) fn new(range: HashRange) -> Self {
        Self { range, rows: Vec::new(), has_more: false }
    }

    /// The next step.
    pub(crate) fn job(&self, from: Option<Bytes>) -> ScanJob {
        let from = from.unwrap_or_else(|| self.range.from());
        ScanJob { from, to: self.range.to(), max_rows: READ_ROWS, max_bytes: READ_BYTES as usize }
    }

    /// Takes the rows of a step. Returns the next one, unless the range has ended or has more rows than `most`.
    pub(crate) fn take(&mut self, key: &CausalKey, found: ScannedRows, most: usize) -> Option<ScanJob> {
        self.rows.extend(found.rows.iter().map(|(store_key, row)| OwnRow::of(key, store_key.clone(), row)));
        let next = found.next?;
        self.has_more = self.rows.len() > most;
        (!self.has_more).then(|| self.job(Some(next)))
    }

    /// The rows as they were when each step was read, which may be older than the store is.
    pub(crate) fn into_rows(self) -> Vec<OwnRow> {
        self.rows
    }
}

impl Own {
    /// The bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let of = match self {
            Self::Rows(rows) => rows.iter().map(|row| size_of::<OwnRow>() + row.store_key.len()).sum(),
            Self::Parts(parts) => size_of_val(&**parts),
            Self::Unknown | Self::Spent | Self::Large => 0,
        };
        size_of::<Self>() + of
    }

    /// What all rows of a range come to.
    pub(crate) fn of_rows(range: &HashRange, rows: Vec<OwnRow>) -> Self {
        if rows.len() as u64 <= FEW_OBJECTS {
            return Self::Rows(rows);
        }
        Self::Parts(parts_of(range, &rows))
    }
}

/// A row of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OwnRow {
    pub(crate) store_key: Bytes,
    /// Of two copies of a key, one that dominates the other weighs more.
    pub(crate) sum: Sum,
}

impl OwnRow {
    pub(super) fn of(key: &CausalKey, store_key: Bytes, row: &[u8]) -> Self {
        let sum = sum_of(key, &store_key, row);
        Self { store_key, sum }
    }

    /// Its causal hash.
    pub(crate) fn hash(&self) -> u128 {
        self.sum.hash
    }

    /// Where its key is in a range.
    pub(crate) fn place(&self, range: &HashRange) -> u16 {
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
    /// What this node has in a range. A leaf whose objects do not come to its sum is counted anew.
    pub(crate) fn look(
        &mut self,
        store: &dyn Store,
        range: &HashRange,
        budget: &mut ReadBudget,
    ) -> Result<Own, StoreFault> {
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
        match budget.judge(sum.bytes) {
            Readable::Now => {}
            Readable::Later => return Ok(Own::Spent),
            Readable::Never => return Ok(Own::Large),
        }
        let found = self.rows(store, range)?;
        budget.spend(&found.rows);
        let rows_sum = found.rows.iter().fold(Sum::default(), |sum, row| sum.plus(row.sum));
        if whole && !found.partial && !rows_sum.is_same(&sum) {
            // Rule: wrong leaves are recounted.
            leaves.iter().for_each(|(leaf, _)| self.doubt(&leaf.from()));
        }
        if found.partial && found.rows.len() >= MAX_ROWS {
            return Ok(Own::Unknown);
        }
        Ok(Own::of_rows(range, found.rows))
    }

    /// The rows of a range, if there are no more than so many.
    ///
    /// # Errors
    /// A fault of the store.
    pub(crate) fn few_rows(
        &self,
        store: &dyn Store,
        range: &HashRange,
        most: usize,
        budget: &mut ReadBudget,
    ) -> Result<FewRows, StoreFault> {
        let within = self.leaves_in(range).filter(|(leaf, _)| range.contains(leaf));
        let known: u64 = within.map(|(_, of)| of.sum.count).sum();
        if known > most as u64 {
            return Ok(FewRows::Many);
        }
        match budget.judge(self.leaves_in(range).map(|(_, of)| of.sum.bytes).sum()) {
            Readable::Now => {}
            Readable::Later => return Ok(FewRows::Spent),
            Readable::Never => return Ok(FewRows::Large),
        }
        let found = self.rows(store, range)?;
        budget.spend(&found.rows);
        Ok(if found.rows.len() <= most { FewRows::Rows(found.rows) } else { FewRows::Many })
    }

    /// The readable rows of a range.
    fn rows(&self, store: &dyn Store, range: &HashRange) -> Result<Read, StoreFault> {
        let mut read = Read { rows: Vec::new(), partial: false };
        let scanned = store.scan(Space::Objects, &range.from(), range.to().as_deref(), &mut |key, row| {
            if read.rows.len() >= MAX_ROWS {
                read.partial = true;
                return ControlFlow::Break(());
            }
            read.rows.push(OwnRow::of(&self.key, Bytes::copy_from_slice(key), &row));
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

/// By what hashes are multiplied in a walk. Odd; 64 bits are enough to move every bit of a hash.
pub(crate) fn salt_of(walk: WalkId) -> u128 {
    // The finaliser of SplitMix64, so that walks that follow each other have nothing in common.
    let mut word = (walk.number ^ u64::from(walk.shard) << 48).wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    u128::from(word ^ word >> 31 | 1)
}

/// The bytes of the sums of parts that are compared, where hashes of objects have `width` bytes. A list has a hash that
/// is taken for another one more easily than a sum, since each is compared with all.
pub(crate) fn part_width(width: u8) -> u8 {
    if width >= 16 { 16 } else { 2 }
}

/// The sums of the parts of a range.
pub(crate) fn parts_of(range: &HashRange, rows: &[OwnRow]) -> Box<[Sum; BRANCHES]> {
    let mut parts = Box::new([Sum::default(); BRANCHES]);
    for row in rows {
        let prefix = place_of(&row.store_key).map_or(range.start, |(_, prefix)| prefix);
        let part = &mut parts[range.part_of(prefix)];
        *part = part.plus(row.sum);
    }
    parts
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
