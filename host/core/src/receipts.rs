//! The receipts of folds that a shard keeps: which go when, and how much room they take.
//!
//! A receipt has two rows of [`Space::Receipts`]: the receipt itself, under its object, and a small one that orders all
//! receipts by the time until which they are kept. Both are written with the folded object, in one record. One pinned
//! row has the sums. When there is no room for another receipt, those that would go next go now.

use core::ops::ControlFlow;

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::receipt::{FoldReceipt, MAX_RECEIPT_BYTES};
use rejoin_proto::{BucketId, ObjectId, PartitionId};

use crate::port::{Change, Space, Store, StoreFault, key_after};
use crate::rows::{self, Kind};

/// The first byte of the key of a receipt: object's bucket ‖ hash ‖ number follow.
const RECEIPT: u8 = b'r';
/// The first byte of the key of a row that orders them: time ‖ number follow.
const TIME: u8 = b't';
/// The most receipts that make room for another one, in its record. If that is not enough, there is none of the fold.
const GIVEN_UP_AT_ONCE: usize = 256;
/// The bytes that a receipt takes beside its own: its key, and the other row.
pub(crate) const ROW_OVERHEAD: u64 = 128;

/// Where a receipt is, in the row that orders it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PlaceRow {
    bucket: BucketId,
    hash: u128,
    /// What it takes.
    bytes: u64,
}

impl Versioned for PlaceRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "place of a receipt";
}

/// The sums of a shard's receipts.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct SumsRow {
    /// The number of the next one.
    next: u64,
    count: u64,
    bytes: u64,
    /// How many went before their time, or were never written, for want of room.
    given_up: u64,
    /// There is no row in front of this key: scans need not pass what was removed.
    first: Vec<u8>,
}

impl Versioned for SumsRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "sums of receipts";
}

/// What a shard has of receipts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReceiptSums {
    /// How many there are.
    pub count: u64,
    /// What they take.
    pub bytes: u64,
    /// How many went before their time, or were never written, for want of room.
    pub given_up: u64,
}

/// The receipts of one shard.
#[derive(Debug)]
pub(crate) struct Receipts {
    sums: SumsRow,
    limit: u64,
}

/// The sums as they are once a change is written.
pub(crate) struct StagedReceipts(SumsRow);

impl Receipts {
    /// Reads the sums. `limit` is in bytes.
    pub(crate) fn open(store: &dyn Store, limit: u64) -> Result<Self, StoreFault> {
        let sums = match store.get(Space::Pinned, &sums_key())? {
            Some(row) => codec::decode(&row).map_err(|error| StoreFault::Damaged(alloc::format!("{error}")))?,
            None => SumsRow::default(),
        };
        Ok(Self { sums, limit })
    }

    pub(crate) fn sums(&self) -> ReceiptSums {
        let SumsRow { count, bytes, given_up, .. } = self.sums;
        ReceiptSums { count, bytes, given_up }
    }

    /// Adds a receipt to the change, and removes others if there is no room for it.
    pub(crate) fn stage(&self, store: &dyn Store, receipt: &FoldReceipt, change: &mut Change) -> StagedReceipts {
        let mut sums = self.sums.clone();
        let row = codec::encode(receipt);
        let bytes = row.len() as u64 + ROW_OVERHEAD;
        let limit = self.limit.min(MAX_RECEIPT_BYTES as u64);
        if bytes <= limit {
            let room = self.limit - bytes;
            let is_full = |sums: &SumsRow| sums.bytes > room;
            if is_full(&sums) {
                let removed = remove_first(store, &mut sums, change, (is_full, GIVEN_UP_AT_ONCE));
                sums.given_up += removed;
            }
        }
        // Rule: receipts are bounded.
        if bytes > limit || sums.bytes > self.limit - bytes {
            sums.given_up += 1;
            put_sums(&sums, change);
            return StagedReceipts(sums);
        }
        let (bucket, hash, number) = (receipt.object.bucket, receipt.object.hash(), sums.next);
        let time_key = time_key(receipt.until_ms, number);
        change.put(Space::Receipts, receipt_key(bucket, hash, number), row);
        change.put(Space::Receipts, time_key.clone(), codec::encode(&PlaceRow { bucket, hash, bytes }));
        if sums.count == 0 || time_key < sums.first {
            sums.first = time_key;
        }
        sums.next += 1;
        sums.count += 1;
        sums.bytes += bytes;
        put_sums(&sums, change);
        StagedReceipts(sums)
    }

    /// Adds the removal of receipts whose time is over to the change. `None`: there are none.
    pub(crate) fn expire(
        &self,
        store: &dyn Store,
        now_ms: u64,
        most: usize,
        change: &mut Change,
    ) -> Option<StagedReceipts> {
        let end = time_key(now_ms.saturating_add(1), 0);
        let is_over = |sums: &SumsRow| sums.first < end;
        if self.sums.count == 0 || !is_over(&self.sums) {
            return None;
        }
        let mut sums = self.sums.clone();
        remove_first(store, &mut sums, change, (is_over, most));
        (sums != self.sums).then(|| {
            put_sums(&sums, change);
            StagedReceipts(sums)
        })
    }

    /// Adds the removal of these receipts to the change.
    pub(crate) fn remove(&self, rows: &[(Bytes, Bytes)], change: &mut Change) -> StagedReceipts {
        let mut sums = self.sums.clone();
        for (key, row) in rows {
            change.remove(Space::Receipts, key.clone());
            sums.count = sums.count.saturating_sub(1);
            sums.bytes = sums.bytes.saturating_sub(row.len() as u64 + ROW_OVERHEAD);
            if let (Ok(receipt), Some(number)) = (codec::decode::<FoldReceipt>(row), number_of(key)) {
                change.remove(Space::Receipts, time_key(receipt.until_ms, number));
            }
        }
        put_sums(&sums, change);
        StagedReceipts(sums)
    }

    /// The change was written.
    pub(crate) fn apply(&mut self, StagedReceipts(sums): StagedReceipts) {
        self.sums = sums;
    }
}

/// Removes the receipts that go next, while that is `(wanted, at most so many)`. Returns how many went.
fn remove_first(
    store: &dyn Store,
    sums: &mut SumsRow,
    change: &mut Change,
    (wanted, most): (impl Fn(&SumsRow) -> bool, usize),
) -> u64 {
    let from = sums.first.clone().max(alloc::vec![TIME]);
    let (mut removed, mut is_last) = (0, true);
    let mut visit = |key: &[u8], row: Bytes| {
        sums.first = key.to_vec();
        if removed == most || !wanted(sums) {
            is_last = false;
            return ControlFlow::Break(());
        }
        removed += 1;
        change.remove(Space::Receipts, Bytes::copy_from_slice(key));
        sums.first = key_after(key).to_vec();
        sums.count = sums.count.saturating_sub(1);
        if let (Ok(place), Some(number)) = (codec::decode::<PlaceRow>(&row), number_of(key)) {
            change.remove(Space::Receipts, receipt_key(place.bucket, place.hash, number));
            sums.bytes = sums.bytes.saturating_sub(place.bytes);
        }
        ControlFlow::Continue(())
    };
    // Rows that cannot be read are passed: those that can are removed all the same.
    let scanned = store.scan(Space::Receipts, &from, Some(&[TIME + 1]), &mut visit);
    // Rows may have been lost, and what they took with them.
    if scanned.is_ok() && is_last && removed < most {
        (sums.count, sums.bytes) = (0, 0);
    }
    removed as u64
}

fn put_sums(sums: &SumsRow, change: &mut Change) {
    change.put(Space::Pinned, sums_key(), codec::encode(sums));
}

fn sums_key() -> Vec<u8> {
    rows::key(Kind::Receipts, PartitionId(0), &[])
}

fn time_key(until_ms: u64, number: u64) -> Vec<u8> {
    [&[TIME][..], &until_ms.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn receipt_key(bucket: BucketId, hash: u128, number: u64) -> Vec<u8> {
    [&[RECEIPT][..], &bucket.0.to_be_bytes(), &hash.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The keys of a bucket's receipts, or of those of one object, end excluded.
pub(crate) fn range_of(bucket: BucketId, object: Option<&ObjectId>) -> (Vec<u8>, Vec<u8>) {
    let (first, last) = object.map_or((0, u128::MAX), |object| (object.hash(), object.hash()));
    (receipt_key(bucket, first, 0), key_after(&receipt_key(bucket, last, u64::MAX)).to_vec())
}

/// The bucket of the first receipt at that bucket or behind it.
pub(crate) fn next_bucket(store: &dyn Store, from: BucketId) -> Option<BucketId> {
    let mut found = None;
    let mut visit = |key: &[u8], _| {
        found = key.get(1..9).and_then(|id| <[u8; 8]>::try_from(id).ok()).map(|id| BucketId(u64::from_be_bytes(id)));
        ControlFlow::Break(())
    };
    let _ = store.scan(Space::Receipts, &receipt_key(from, 0, 0), Some(&[RECEIPT + 1]), &mut visit);
    found
}

/// The number at the end of both keys.
fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|number| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_time_and_of_objects() {
        assert!(time_key(1, 9) < time_key(2, 0) && time_key(2, 0) < time_key(2, 1));
        let object = ObjectId { tenant: rejoin_proto::TenantId(1), bucket: BucketId(7), key: "k".into() };
        let key = receipt_key(BucketId(7), object.hash(), 3);
        let within = |(from, to): (Vec<u8>, Vec<u8>)| from <= key && key < to;
        assert!(within(range_of(BucketId(7), Some(&object))) && within(range_of(BucketId(7), None)));
        assert!(!within(range_of(BucketId(8), None)) && !within(range_of(BucketId(6), None)));
        assert_eq!((number_of(&key), number_of(&time_key(5, 6))), (Some(3), Some(6)));
    }
}
