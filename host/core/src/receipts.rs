//! The receipts of folds that a shard keeps: which go when, and how much room they take.
//!
//! A receipt has two rows of [`Space::Receipts`]: the receipt itself, under its object, and a small one that orders the
//! receipts of its bucket by age. Both are written with the folded object, in one record. A pinned row has the number
//! of the next receipt, and one for each bucket has the sums of that.
//!
//! A bucket's receipts go in the order in which they came. When there is no room for another one, some of the tenant
//! that has most go at once, so that one who folds much, or keeps receipts for long, pushes nobody else's out.

use core::ops::ControlFlow;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_proto::codec::{self, DecodeError, Versioned};
use rejoin_proto::receipt::{FoldReceipt, MAX_RECEIPT_BYTES};
use rejoin_proto::{BucketId, ObjectId, PartitionId, TenantId};

use crate::port::{Change, Space, Store, StoreFault, key_after};
use crate::rows::{self, Kind};

/// The first byte of the key of a receipt: object's bucket ‖ hash ‖ number follow.
const RECEIPT: u8 = b'r';
/// The first byte of the key of a row that orders them: bucket ‖ number follow.
const ORDER: u8 = b'o';
/// The most receipts that make room for another one, in its record. If that is not enough, there is none of the fold.
const GIVEN_UP_AT_ONCE: usize = 256;
/// When there is no room, this part of the limit is made free, so that not every fold has to look for what goes.
const FREED_PART: u64 = 16;
/// A tenant that has most gives up this part of the limit more than makes it equal to the next one, so that two do not
/// take turns with every receipt.
const TURN_PART: u64 = 64;
/// The most rows that a recount writes in one record.
const RECOUNTED_AT_ONCE: usize = 1024;
/// The bytes that a receipt takes beside its own: its key, and the other row.
pub(crate) const ROW_OVERHEAD: u64 = 128;

/// Where a receipt is, in the row that orders it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PlaceRow {
    hash: u128,
    /// What it takes.
    bytes: u64,
    until_ms: u64,
}

impl Versioned for PlaceRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "place of a receipt";
}

/// What is counted over all of a shard's receipts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct NumbersRow {
    /// The number of the next one.
    next: u64,
    /// How many went before their time, or were never written, for want of room.
    given_up: u64,
}

impl Versioned for NumbersRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "numbers of receipts";
}

/// The sums of a bucket's receipts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct BucketRow {
    tenant: TenantId,
    /// There is no row in front of this number: scans need not pass what was removed.
    first: u64,
    /// When the first one goes, in milliseconds since 1970.
    until_ms: u64,
    count: u64,
    bytes: u64,
}

impl Versioned for BucketRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "sums of a bucket's receipts";
}

impl BucketRow {
    /// Without receipts, of which the first will be that one.
    fn empty(tenant: TenantId, first: u64, until_ms: u64) -> Self {
        Self { tenant, first, until_ms, count: 0, bytes: 0 }
    }
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
    numbers: NumbersRow,
    count: u64,
    bytes: u64,
    of_buckets: BTreeMap<BucketId, BucketRow>,
    limit: u64,
}

/// The sums as they are once a change is written.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct StagedReceipts {
    numbers: NumbersRow,
    count: u64,
    bytes: u64,
    changed: BTreeMap<BucketId, BucketRow>,
}

/// Whether the next receipt of a bucket is to go too, after those that went.
type Wanted<'a> = dyn Fn(&StagedReceipts, &BucketRow) -> bool + 'a;

impl Receipts {
    /// Reads the sums, or counts anew what is left where rows were `lost`. `limit` is in bytes.
    pub(crate) fn open(store: &mut dyn Store, limit: u64, lost: bool) -> Result<Self, StoreFault> {
        let damaged = |error: DecodeError| StoreFault::Damaged(alloc::format!("{error}"));
        let mut receipts =
            Self { numbers: NumbersRow::default(), count: 0, bytes: 0, of_buckets: BTreeMap::new(), limit };
        if let Some(row) = store.get(Space::Pinned, &numbers_key())? {
            receipts.numbers = codec::decode(&row).map_err(damaged)?;
        }
        let mut fault = None;
        let mut visit = |key: &[u8], row: Bytes| {
            let Some(bucket) = key.last_chunk().map(|id| BucketId(u64::from_be_bytes(*id))) else {
                return ControlFlow::Continue(());
            };
            match codec::decode(&row) {
                Ok(of) => receipts.of_buckets.insert(bucket, of),
                Err(error) => {
                    fault = Some(damaged(error));
                    return ControlFlow::Break(());
                }
            };
            ControlFlow::Continue(())
        };
        let (from, to) = (bucket_key(BucketId(0)), key_after(&bucket_key(BucketId(u64::MAX))));
        store.scan(Space::Pinned, &from, Some(&to), &mut visit)?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if lost {
            receipts.recount(store)?;
        }
        receipts.add_up();
        Ok(receipts)
    }

    /// Counts the receipts that there are. One whose other row was lost gets it again: it would be kept for good
    /// otherwise. The sums stay as they are where rows are damaged: what cannot be read may be read later.
    fn recount(&mut self, store: &mut dyn Store) -> Result<(), StoreFault> {
        let (mut known, mut found) = (BTreeSet::new(), BTreeMap::new());
        let mut visit = |key: &[u8], row: Bytes| {
            if let (Some(bucket), Some(number), Ok(place)) =
                (bucket_of(key), number_of(key), codec::decode::<PlaceRow>(&row))
            {
                known.insert(number);
                let tenant = self.of_buckets.get(&bucket).map_or(TenantId(0), |of| of.tenant);
                add(&mut found, (bucket, tenant), (number, place));
            }
            ControlFlow::Continue(())
        };
        if !is_read(store.scan(Space::Receipts, &[ORDER], Some(&[ORDER + 1]), &mut visit))? {
            return Ok(());
        }
        let mut strays = Vec::new();
        let mut visit = |key: &[u8], row: Bytes| {
            if let Some(number) = number_of(key).filter(|number| !known.contains(number))
                && let Ok(receipt) = codec::decode::<FoldReceipt>(&row)
            {
                let (hash, bytes) = (receipt.object.hash(), row.len() as u64 + ROW_OVERHEAD);
                let of = (receipt.object.bucket, receipt.object.tenant);
                strays.push((of, (number, PlaceRow { hash, bytes, until_ms: receipt.until_ms })));
            }
            ControlFlow::Continue(())
        };
        if !is_read(store.scan(Space::Receipts, &[RECEIPT], Some(&[RECEIPT + 1]), &mut visit))? {
            return Ok(());
        }
        for some in strays.chunks(RECOUNTED_AT_ONCE) {
            let mut change = Change::default();
            for ((bucket, _), (number, place)) in some {
                change.put(Space::Receipts, order_key(*bucket, *number), codec::encode(place));
            }
            match store.write(change) {
                Ok(()) => some.iter().for_each(|(of, numbered)| add(&mut found, *of, *numbered)),
                // A full disk must not keep the shard from serving reads.
                Err(StoreFault::Full | StoreFault::Busy) => break,
                Err(fault) => return Err(fault),
            }
        }
        let mut change = Change::default();
        for bucket in self.of_buckets.keys().filter(|bucket| !found.contains_key(bucket)) {
            change.remove(Space::Pinned, bucket_key(*bucket));
        }
        found.iter().for_each(|(bucket, of)| {
            change.put(Space::Pinned, bucket_key(*bucket), codec::encode(of));
        });
        self.of_buckets = found;
        match store.write(change) {
            Err(fault @ StoreFault::Failed(_)) => Err(fault),
            // The sums of a bucket that could not be written are right again with its next receipt.
            _ => Ok(()),
        }
    }

    fn add_up(&mut self) {
        self.count = self.of_buckets.values().map(|of| of.count).sum();
        self.bytes = self.of_buckets.values().map(|of| of.bytes).sum();
    }

    pub(crate) fn sums(&self) -> ReceiptSums {
        ReceiptSums { count: self.count, bytes: self.bytes, given_up: self.numbers.given_up }
    }

    /// The buckets that have receipts.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = BucketId> + '_ {
        self.of_buckets.keys().copied()
    }

    fn draft(&self) -> StagedReceipts {
        StagedReceipts { numbers: self.numbers, count: self.count, bytes: self.bytes, changed: BTreeMap::new() }
    }

    /// Adds a receipt to the change, and removes others if there is no room for it.
    pub(crate) fn stage(&self, store: &dyn Store, receipt: &FoldReceipt, change: &mut Change) -> StagedReceipts {
        let mut sums = self.draft();
        let row = codec::encode(receipt);
        let bytes = row.len() as u64 + ROW_OVERHEAD;
        let limit = self.limit.min(MAX_RECEIPT_BYTES as u64);
        if bytes <= limit && sums.bytes > self.limit - bytes {
            let room = (self.limit - self.limit / FREED_PART).saturating_sub(bytes);
            self.make_room(store, &mut sums, room, change);
        }
        // Rule: receipts are bounded.
        if bytes > limit || sums.bytes > self.limit - bytes {
            sums.numbers.given_up += 1;
            return self.staged(sums, change);
        }
        let (bucket, hash, number) = (receipt.object.bucket, receipt.object.hash(), sums.numbers.next);
        let place = PlaceRow { hash, bytes, until_ms: receipt.until_ms };
        change.put(Space::Receipts, receipt_key(bucket, hash, number), row);
        change.put(Space::Receipts, order_key(bucket, number), codec::encode(&place));
        let known = self.of_bucket(&sums, bucket).filter(|of| of.count > 0);
        let mut of = known.unwrap_or_else(|| BucketRow::empty(receipt.object.tenant, number, receipt.until_ms));
        (of.count, of.bytes) = (of.count + 1, of.bytes + bytes);
        (sums.count, sums.bytes) = (sums.count + 1, sums.bytes + bytes);
        sums.changed.insert(bucket, of);
        sums.numbers.next += 1;
        self.staged(sums, change)
    }

    /// Gives receipts up until the others take no more than `room`, or as many as may go at once are gone: those of the
    /// tenant that has most, of its bucket that has most, the oldest first.
    fn make_room(&self, store: &dyn Store, sums: &mut StagedReceipts, room: u64, change: &mut Change) {
        let mut most = GIVEN_UP_AT_ONCE;
        while sums.bytes > room && most > 0 {
            let Some((bucket, enough)) = self.fullest(sums) else { return };
            let before = sums.bytes;
            let wanted = |sums: &StagedReceipts, of: &BucketRow| sums.bytes > room && of.bytes > enough;
            let removed = self.remove_first(store, sums, (bucket, most, &wanted), change);
            sums.numbers.given_up += removed as u64;
            most -= removed;
            // What cannot be read is in the way.
            if sums.bytes == before {
                return;
            }
        }
    }

    /// The bucket that gives up receipts next, and the bytes at which it is another tenant's turn.
    fn fullest(&self, sums: &StagedReceipts) -> Option<(BucketId, u64)> {
        let mut of_tenants: BTreeMap<TenantId, (u64, BucketId, u64)> = BTreeMap::new();
        for bucket in self.of_buckets.keys() {
            let Some(of) = self.of_bucket(sums, *bucket) else { continue };
            let (all, fullest, bytes) = of_tenants.entry(of.tenant).or_insert((0, *bucket, 0));
            *all += of.bytes;
            if of.bytes > *bytes {
                (*fullest, *bytes) = (*bucket, of.bytes);
            }
        }
        let mut ranked: Vec<(u64, BucketId, u64)> = of_tenants.into_values().collect();
        ranked.sort_unstable();
        let (all, bucket, bytes) = ranked.pop()?;
        let next = ranked.last().map_or(0, |(all, ..)| *all);
        let surplus = all - next.saturating_sub((self.limit / TURN_PART).max(1)).min(all);
        Some((bucket, bytes.saturating_sub(surplus)))
    }

    /// Adds the removal of receipts to the change whose time ended before that one. `None`: there are none.
    pub(crate) fn expire(
        &self,
        store: &dyn Store,
        before_ms: u64,
        mut most: usize,
        change: &mut Change,
    ) -> Option<StagedReceipts> {
        let mut sums = self.draft();
        let is_over = |of: &BucketRow| of.count > 0 && of.until_ms < before_ms;
        for (bucket, _) in self.of_buckets.iter().filter(|(_, of)| is_over(of)) {
            if most == 0 {
                break;
            }
            let wanted = |_: &StagedReceipts, of: &BucketRow| of.until_ms < before_ms;
            most -= self.remove_first(store, &mut sums, (*bucket, most, &wanted), change);
        }
        (sums != self.draft()).then(|| self.staged(sums, change))
    }

    /// Adds the removal of receipts of a bucket to the change, whatever their time.
    pub(crate) fn reap(&self, store: &dyn Store, bucket: BucketId, most: usize, change: &mut Change) -> StagedReceipts {
        let mut sums = self.draft();
        let wanted = |_: &StagedReceipts, _: &BucketRow| true;
        self.remove_first(store, &mut sums, (bucket, most, &wanted), change);
        self.staged(sums, change)
    }

    /// Removes the receipts of a bucket that go next: at most so many, and while that is wanted. Returns how many went.
    fn remove_first(
        &self,
        store: &dyn Store,
        sums: &mut StagedReceipts,
        (bucket, most, wanted): (BucketId, usize, &Wanted<'_>),
        change: &mut Change,
    ) -> usize {
        let Some(before) = self.of_bucket(sums, bucket) else { return 0 };
        let (mut of, mut removed, mut is_last) = (before, 0, true);
        let (from, to) = (order_key(bucket, before.first), key_after(&order_key(bucket, u64::MAX)));
        let mut visit = |key: &[u8], row: Bytes| {
            let (place, number) = (codec::decode::<PlaceRow>(&row).ok(), number_of(key).unwrap_or_default());
            (of.first, of.until_ms) = (number, place.map_or(0, |place| place.until_ms));
            if removed == most || !wanted(sums, &of) {
                is_last = false;
                return ControlFlow::Break(());
            }
            removed += 1;
            change.remove(Space::Receipts, Bytes::copy_from_slice(key));
            of.first = number.saturating_add(1);
            if let Some(place) = place {
                change.remove(Space::Receipts, receipt_key(bucket, place.hash, number));
                sums.less(&mut of, (1, place.bytes));
            }
            ControlFlow::Continue(())
        };
        // Rows that are lost, or cannot be read, are passed: those that can be are removed all the same.
        let scanned = store.scan(Space::Receipts, &from, Some(&to), &mut visit);
        // None is left, whatever the sums say: rows may have been lost, and what they took with them.
        if is_last && matches!(scanned, Ok(()) | Err(StoreFault::Lost { .. })) {
            let (count, bytes) = (of.count, of.bytes);
            sums.less(&mut of, (count, bytes));
        }
        if of != before {
            sums.changed.insert(bucket, of);
        }
        removed
    }

    fn of_bucket(&self, sums: &StagedReceipts, bucket: BucketId) -> Option<BucketRow> {
        sums.changed.get(&bucket).or_else(|| self.of_buckets.get(&bucket)).copied()
    }

    /// Adds the sums that are other ones to the change.
    fn staged(&self, sums: StagedReceipts, change: &mut Change) -> StagedReceipts {
        if sums.numbers != self.numbers {
            change.put(Space::Pinned, numbers_key(), codec::encode(&sums.numbers));
        }
        for (bucket, of) in &sums.changed {
            match of.count {
                0 => change.remove(Space::Pinned, bucket_key(*bucket)),
                _ => change.put(Space::Pinned, bucket_key(*bucket), codec::encode(of)),
            };
        }
        sums
    }

    /// The change was written.
    pub(crate) fn apply(&mut self, sums: StagedReceipts) {
        (self.numbers, self.count, self.bytes) = (sums.numbers, sums.count, sums.bytes);
        self.of_buckets.extend(sums.changed);
        self.of_buckets.retain(|_, of| of.count > 0);
    }
}

impl StagedReceipts {
    /// Takes receipts from the sums of a bucket and from those of all.
    fn less(&mut self, of: &mut BucketRow, (count, bytes): (u64, u64)) {
        (of.count, of.bytes) = (of.count.saturating_sub(count), of.bytes.saturating_sub(bytes));
        (self.count, self.bytes) = (self.count.saturating_sub(count), self.bytes.saturating_sub(bytes));
    }
}

/// Adds a receipt to the sums of its bucket. They may come in any order.
fn add(
    found: &mut BTreeMap<BucketId, BucketRow>,
    (bucket, tenant): (BucketId, TenantId),
    (number, place): (u64, PlaceRow),
) {
    let of = found.entry(bucket).or_insert_with(|| BucketRow::empty(tenant, number, place.until_ms));
    if number < of.first {
        (of.first, of.until_ms) = (number, place.until_ms);
    }
    (of.count, of.bytes) = (of.count + 1, of.bytes.saturating_add(place.bytes));
}

/// Whether a scan has come to its end. Damage is no end; what is lost is no more there.
fn is_read(scanned: Result<(), StoreFault>) -> Result<bool, StoreFault> {
    match scanned {
        Ok(()) | Err(StoreFault::Lost { .. }) => Ok(true),
        Err(StoreFault::Failed(why)) => Err(StoreFault::Failed(why)),
        Err(_) => Ok(false),
    }
}

fn numbers_key() -> Vec<u8> {
    rows::key(Kind::Receipts, PartitionId(0), &[])
}

fn bucket_key(bucket: BucketId) -> Vec<u8> {
    rows::key(Kind::Receipts, PartitionId(0), &bucket.0.to_be_bytes())
}

fn order_key(bucket: BucketId, number: u64) -> Vec<u8> {
    [&[ORDER][..], &bucket.0.to_be_bytes(), &number.to_be_bytes()].concat()
}

fn receipt_key(bucket: BucketId, hash: u128, number: u64) -> Vec<u8> {
    [&[RECEIPT][..], &bucket.0.to_be_bytes(), &hash.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The keys of a bucket's receipts, or of those of one object, end excluded.
pub(crate) fn range_of(bucket: BucketId, object: Option<&ObjectId>) -> (Vec<u8>, Vec<u8>) {
    let (first, last) = object.map_or((0, u128::MAX), |object| (object.hash(), object.hash()));
    (receipt_key(bucket, first, 0), key_after(&receipt_key(bucket, last, u64::MAX)).to_vec())
}

/// The bucket behind the first byte of both keys.
fn bucket_of(key: &[u8]) -> Option<BucketId> {
    key.get(1..9).and_then(|id| <[u8; 8]>::try_from(id).ok()).map(|id| BucketId(u64::from_be_bytes(id)))
}

/// The number at the end of both keys.
fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|number| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_age_and_of_objects() {
        assert!(order_key(BucketId(1), 9) < order_key(BucketId(2), 0));
        assert!(order_key(BucketId(2), 0xff) < order_key(BucketId(2), 0x100));
        let object = ObjectId { tenant: rejoin_proto::TenantId(1), bucket: BucketId(7), key: "k".into() };
        let key = receipt_key(BucketId(7), object.hash(), 3);
        let within = |(from, to): (Vec<u8>, Vec<u8>)| from <= key && key < to;
        assert!(within(range_of(BucketId(7), Some(&object))) && within(range_of(BucketId(7), None)));
        assert!(!within(range_of(BucketId(8), None)) && !within(range_of(BucketId(6), None)));
        assert_eq!((number_of(&key), number_of(&order_key(BucketId(5), 6))), (Some(3), Some(6)));
        assert_eq!((bucket_of(&key), bucket_of(&order_key(BucketId(5), 6))), (Some(BucketId(7)), Some(BucketId(5))));
    }
    /// Rows, how often they were scanned, and whether some of them are lost.
    #[derive(Default)]
    struct Rows {
        rows: BTreeMap<(Space, Bytes), Bytes>,
        scans: core::cell::Cell<usize>,
        lost: bool,
    }

    impl Store for Rows {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
            Ok(self.rows.get(&(space, Bytes::copy_from_slice(key))).cloned())
        }

        fn scan(
            &self,
            space: Space,
            from: &[u8],
            to: Option<&[u8]>,
            visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
        ) -> Result<(), StoreFault> {
            self.scans.set(self.scans.get() + 1);
            for ((at, key), row) in self.rows.range((space, Bytes::copy_from_slice(from))..) {
                if *at != space || to.is_some_and(|to| key[..] >= *to) || visit(key, row.clone()).is_break() {
                    break;
                }
            }
            if self.lost { Err(StoreFault::Lost { upto: 1, what: "some".into() }) } else { Ok(()) }
        }

        fn write(&mut self, change: Change) -> Result<(), StoreFault> {
            for row in change.rows {
                match row.value {
                    Some(value) => self.rows.insert((row.space, row.key), value),
                    None => self.rows.remove(&(row.space, row.key)),
                };
            }
            Ok(())
        }
    }

    fn receipt((tenant, bucket): (u64, u64), until_ms: u64) -> FoldReceipt {
        let limits = rejoin_proto::receipt::MergeLimits { fuel: 1, memory_bytes: 1, result_bytes: 1 };
        FoldReceipt {
            object: ObjectId { tenant: TenantId(tenant), bucket: BucketId(bucket), key: "k".into() },
            by: rejoin_proto::FoldedBy {
                plugin: rejoin_proto::PluginDigest([1; 32]),
                profile: rejoin_proto::ProfileId(1),
            },
            inputs: Vec::new(),
            dots: Default::default(),
            covers: Default::default(),
            output: [0; 32],
            output_bytes: 1,
            limits,
            fuel_used: 1,
            node: rejoin_proto::NodeId(1),
            at_ms: 1,
            until_ms,
        }
    }

    fn keep(receipts: &mut Receipts, store: &mut Rows, of: (u64, u64), until_ms: u64) {
        let mut change = Change::default();
        let staged = receipts.stage(store, &receipt(of, until_ms), &mut change);
        store.write(change).expect("it takes all");
        receipts.apply(staged);
    }

    fn count_of(receipts: &Receipts, bucket: u64) -> u64 {
        receipts.of_buckets.get(&BucketId(bucket)).map_or(0, |of| of.count)
    }

    #[test]
    fn who_has_most_gives_up_his_oldest_however_long_he_wants_them_kept() {
        let mut store = Rows::default();
        let mut receipts = Receipts::open(&mut store, 100_000, false).expect("none yet");
        (0..20).for_each(|_| keep(&mut receipts, &mut store, (1, 1), 10));
        let few = receipts.bytes;
        // Another tenant, which has two buckets, and keeps what it has for ever.
        (0..2_000).for_each(|at| keep(&mut receipts, &mut store, (2, 2 + at % 2), u64::MAX));
        assert_eq!(count_of(&receipts, 1), 20, "they take {few} bytes of 100000, less than half");
        assert!(receipts.bytes <= 100_000 && receipts.bytes > 80_000, "{receipts:?}");
        assert_eq!(receipts.sums().given_up + receipts.count, 2_020);
        let firsts = [2, 3].map(|bucket| receipts.of_buckets[&BucketId(bucket)].first);
        assert!(firsts.iter().all(|first| *first > 1_000), "the oldest have gone: {firsts:?}");
        // A start finds the same.
        let again = Receipts::open(&mut store, 100_000, false).expect("they can be read");
        assert_eq!((again.numbers, &again.of_buckets), (receipts.numbers, &receipts.of_buckets));
        assert_eq!(again.sums(), receipts.sums());
    }

    #[test]
    fn few_folds_look_for_what_makes_room() {
        let mut store = Rows::default();
        let mut receipts = Receipts::open(&mut store, 100_000, false).expect("none yet");
        (0..1_000).for_each(|_| keep(&mut receipts, &mut store, (1, 1), 10));
        store.scans.set(0);
        (0..1_000).for_each(|_| keep(&mut receipts, &mut store, (1, 1), 10));
        assert!((1..=100).contains(&store.scans.get()), "{} scans for 1000 folds", store.scans.get());
    }

    #[test]
    fn sums_of_what_is_lost_are_put_right_at_the_end_of_a_scan() {
        let mut store = Rows::default();
        let mut receipts = Receipts::open(&mut store, 100_000, false).expect("none yet");
        (0..10).for_each(|_| keep(&mut receipts, &mut store, (1, 1), 10));
        store.rows.retain(|(space, key), _| *space != Space::Receipts || number_of(key) != Some(4));
        store.lost = true;
        let mut change = Change::default();
        let staged = receipts.expire(&store, 11, 100, &mut change).expect("all are over");
        store.write(change).expect("it takes all");
        receipts.apply(staged);
        assert_eq!((receipts.count, receipts.bytes, receipts.of_buckets.len()), (0, 0, 0));
        assert!(store.rows.keys().all(|(space, key)| *space == Space::Pinned && *key == numbers_key()));
    }
}
