//! Folds and their receipts: a fold that a node stores has its receipt in the same record, see [`Receipts`]. And what
//! the node tells of them.
//!
//! [`Receipts`]: crate::receipts::Receipts

use core::ops::ControlFlow;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::fuel_for;
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::receipt::{
    CopyReport, EntryReport, FoldReceipt, KeptReceipt, MergeLimits, RECEIPT_PAGE, RECEIPT_PAGE_BYTES, output_hash,
};
use rejoin_proto::{BucketId, Content, Entry, ErrorCode, NodeId, Object, ObjectId, PluginDigest};

use super::Shard;
use super::copy::{Copy, Place, StoredRow};
use super::event::Now;
use super::op::PendingFold;
use super::turn::Turn;
use crate::causal;
use crate::port::{Change, Space, Store, StoreFault};
use crate::receipts::{ReceiptSums, range_of};
use crate::view::Bucket;

/// The most receipts that go in one turn because their time is over, and as many because their bucket is reaped.
const REMOVED_AT_ONCE: usize = 1024;
/// The time, in microseconds, for which the wall clock must have gone as the monotonic one before it ends receipts. By
/// then the peers have told their clocks several times, and a wrong one is known.
const STEADY_US: u64 = 60_000_000;

/// Since when the wall clock goes as the monotonic one, as far as was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyClock {
    last: Now,
    since_us: u64,
}

impl SteadyClock {
    /// Compares the two at a time. `before`: as of the time before.
    fn at(before: Option<Self>, now: Now, max_skew_ms: u64) -> Self {
        let goes_on = |before: &Self| {
            let passed_ms = now.mono_us.saturating_sub(before.last.mono_us) / 1000;
            let expected_ms = before.last.wall_ms.saturating_add(passed_ms);
            now.wall_ms.abs_diff(expected_ms) <= max_skew_ms
        };
        let since_us = before.filter(goes_on).map_or(now.mono_us, |before| before.since_us);
        Self { last: now, since_us }
    }

    fn is_trusted(&self) -> bool {
        self.last.mono_us.saturating_sub(self.since_us) >= STEADY_US
    }
}

/// Which receipts are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiptsWanted {
    /// Of this bucket.
    pub bucket: BucketId,
    /// Of this object only.
    pub object: Option<ObjectId>,
    /// Of folds by this plugin only.
    pub plugin: Option<PluginDigest>,
    /// Of folds since then only, in milliseconds since 1970.
    pub since_ms: u64,
    /// From this key on.
    pub from: Option<Bytes>,
    /// With the contexts that undo them.
    pub undo: bool,
}

impl Shard {
    /// Puts the result of a merge in the place of its inputs, and writes that with its receipt. Returns whether the
    /// inputs were still there, and the plugin still merges the object. If not, or without room, the copy stays as it
    /// is.
    pub(super) fn store_fold(
        &mut self,
        turn: &mut Turn<'_>,
        bucket: &Bucket,
        (id, copy): (&ObjectId, &mut Copy),
        fold: &PendingFold,
    ) -> Result<bool, ErrorCode> {
        let mut folded = copy.object.clone();
        // Rule: stopped plugins fold nothing. One may have been rolled back, or quarantined, while it ran.
        let goes_on = fold.by.is_none_or(|by| self.merges_now(id, &by.plugin));
        if !goes_on || !causal::fold(&mut folded, &fold.inputs, fold.value.clone(), fold.by) {
            self.counters.folds_discarded += 1;
            return Ok(false);
        }
        let store_key = Bytes::from(id.store_key());
        let place = Place { partition: self.view.layout().partition(id), store_key: &store_key };
        let mut change = Change::default();
        // Rule: folds leave receipts. In the record of the fold, so that there is none without the other.
        let staged = self
            .receipt_of(turn, bucket, (id, &folded), fold)
            .map(|receipt| self.receipts.stage(turn.store, &receipt, &mut change));
        let row = codec::encode_bytes(&folded);
        self.store_row(turn, place, &copy.row, row.clone(), change)?;
        *copy = Copy { object: folded, row: StoredRow::Present(row) };
        if let Some(staged) = staged {
            self.receipts.apply(staged);
        }
        self.counters.folds += 1;
        Ok(true)
    }

    fn receipt_of(
        &self,
        turn: &Turn<'_>,
        bucket: &Bucket,
        (id, object): (&ObjectId, &Object),
        fold: &PendingFold,
    ) -> Option<FoldReceipt> {
        let props = &bucket.props;
        let by = fold.by.filter(|_| props.fold_undo_ms > 0 && fold.inputs.len() > 1)?;
        let folded = object.entries.iter().find(|entry| speaks_for(entry, &fold.inputs))?;
        let bytes = causal::siblings(&fold.inputs).iter().map(|sibling| sibling.value.len()).sum();
        Some(FoldReceipt {
            object: id.clone(),
            by,
            inputs: fold.inputs.clone(),
            dots: folded.dots.clone(),
            covers: folded.covers.clone(),
            output: output_hash(&fold.value),
            output_bytes: u32::try_from(fold.value.len()).unwrap_or(u32::MAX),
            limits: MergeLimits {
                fuel: fuel_for(props.fuel, bytes),
                memory_bytes: props.memory_bytes,
                result_bytes: props.value_bytes,
            },
            fuel_used: fold.fuel_used,
            node: self.config.node,
            at_ms: turn.now.wall_ms,
            until_ms: turn.now.wall_ms.saturating_add(props.fold_undo_ms),
        })
    }

    /// Removes receipts whose time is over, and those of buckets that are reaped.
    pub(super) fn tidy_receipts(&mut self, turn: &mut Turn<'_>) {
        let skew_ms = self.config.max_skew_ms;
        let clock = SteadyClock::at(self.steady, turn.now, skew_ms);
        self.steady = Some(clock);
        // Rule: wrong clocks end no receipts. They cannot be had again, unlike the room that they take.
        if clock.is_trusted() && self.correction.is_none() {
            self.expire_receipts(turn, turn.now.wall_ms.saturating_sub(skew_ms));
        }
        if self.serving && self.view.reaps() && self.receipts.sums().count > 0 {
            self.reap_receipts(turn);
        }
    }

    fn expire_receipts(&mut self, turn: &mut Turn<'_>, before_ms: u64) {
        let mut change = Change::default();
        let staged = self.receipts.expire(turn.store, before_ms, REMOVED_AT_ONCE, &mut change);
        // What could not be written is tried again.
        if let Some(staged) = staged
            && self.write(turn, change).is_ok()
        {
            self.receipts.apply(staged);
        }
    }

    /// Removes receipts of one bucket that is reaped, if there is one. The rest goes with the next upkeep.
    fn reap_receipts(&mut self, turn: &mut Turn<'_>) {
        let Some(bucket) = self.receipts.buckets().find(|bucket| self.view.is_reaped(*bucket)) else { return };
        let mut change = Change::default();
        let staged = self.receipts.reap(turn.store, bucket, REMOVED_AT_ONCE, &mut change);
        if self.write(turn, change).is_ok() {
            self.receipts.apply(staged);
        }
    }

    /// How many receipts there are, and what they take.
    #[must_use]
    pub fn receipt_sums(&self) -> ReceiptSums {
        self.receipts.sums()
    }

    /// Some of the receipts that are wanted, where the next ones begin, and whether others, or the objects of these,
    /// may be lost. What is read for them is bounded: receipts of one key in a row need its object once, and there is
    /// one object at most behind the bytes of a page.
    ///
    /// # Errors
    /// The store cannot read the receipts or the objects that they belong to.
    pub fn kept_receipts(
        &self,
        store: &dyn Store,
        wanted: &ReceiptsWanted,
    ) -> Result<(Vec<KeptReceipt>, Option<Bytes>, bool), StoreFault> {
        let (start, end) = range_of(wanted.bucket, wanted.object.as_ref());
        let start = wanted.from.clone().filter(|from| from[..] > start[..]).unwrap_or_else(|| start.into());
        let (mut rows, mut bytes, mut next) = (Vec::new(), 0_usize, None);
        let mut visit = |key: &[u8], row: Bytes| {
            let key = Bytes::copy_from_slice(key);
            bytes += row.len();
            if !rows.is_empty() && (rows.len() >= RECEIPT_PAGE || bytes > RECEIPT_PAGE_BYTES) {
                next = Some(key);
                return ControlFlow::Break(());
            }
            rows.push((key, row));
            ControlFlow::Continue(())
        };
        let mut lost = match store.scan(Space::Receipts, &start, Some(&end), &mut visit) {
            Ok(()) => false,
            // The others were visited.
            Err(StoreFault::Lost { .. }) => true,
            Err(fault) => return Err(fault),
        };
        let (mut kept, mut read, mut last) = (Vec::new(), 0_usize, None::<(ObjectId, Object)>);
        for (key, row) in rows {
            let receipt: FoldReceipt = decoded(&row)?;
            read += row.len();
            if !wanted.takes(&receipt) {
                continue;
            }
            let object = match last.take() {
                Some((id, object)) if id == receipt.object => object,
                // The other receipts are found again by the next page.
                Some(_) if read > RECEIPT_PAGE_BYTES => {
                    next = Some(key);
                    break;
                }
                _ => match store.get(Space::Objects, &receipt.object.store_key()) {
                    Ok(Some(row)) => {
                        read += row.len();
                        decoded(&row)?
                    }
                    Ok(None) => Object::default(),
                    Err(StoreFault::Lost { .. }) => {
                        lost = true;
                        Object::default()
                    }
                    Err(fault) => return Err(fault),
                },
            };
            // A fallback that has handed the object over, or a former owner, cannot tell.
            let owns = || {
                let partition = self.view.layout().partition(&receipt.object);
                self.view.owns(self.config.node, partition, receipt.object.bucket)
            };
            let is_live = object.entries.iter().any(|entry| is_left_of(entry, &receipt));
            let live = is_live || (object.is_empty() && !owns());
            let context = || self.config.contexts.seal(&receipt.object, &causal::context_of(&receipt.dots)).into();
            let context = wanted.undo.then(context);
            last = Some((receipt.object.clone(), object));
            kept.push(KeptReceipt { receipt, live, context });
        }
        Ok((kept, next, lost))
    }

    /// The owners of an object, and this node's own copy of it without the values, or why it cannot be read.
    pub fn describe_copy(&self, store: &dyn Store, id: &ObjectId) -> (Vec<NodeId>, Result<CopyReport, String>) {
        let owners = match self.view.bucket(id.bucket) {
            Some(bucket) => self.view.owners_of(self.view.layout().partition(id), bucket).iter().collect(),
            None => Vec::new(),
        };
        let object = match store.get(Space::Objects, &id.store_key()) {
            Ok(None) => Ok(Object::default()),
            Ok(Some(row)) => codec::decode::<Object>(&row).map_err(|error| error.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        let described = object.map(|object| CopyReport {
            entries: object.entries.iter().map(describe).collect(),
            context: object.context,
        });
        (owners, described)
    }
}

impl ReceiptsWanted {
    fn takes(&self, receipt: &FoldReceipt) -> bool {
        self.plugin.is_none_or(|plugin| plugin == receipt.by.plugin)
            && receipt.at_ms >= self.since_ms
            && self.object.as_ref().is_none_or(|object| *object == receipt.object)
    }
}

fn decoded<T: Versioned>(row: &[u8]) -> Result<T, StoreFault> {
    codec::decode(row).map_err(|error| StoreFault::Damaged(error.to_string()))
}

/// Whether an entry has the dots of all of these.
fn speaks_for(entry: &Entry, inputs: &[Entry]) -> bool {
    entry.folded_by.is_some() && inputs.iter().all(|input| input.dots.is_subset(&entry.dots))
}

/// Whether an entry is a fold, or what later writes have left of it.
fn is_left_of(entry: &Entry, receipt: &FoldReceipt) -> bool {
    entry.folded_by == Some(receipt.by) && entry.dots.is_subset(&receipt.dots)
}

fn describe(entry: &Entry) -> EntryReport {
    let bytes = match &entry.content {
        Content::Tombstone => None,
        Content::Value(value) => Some(u32::try_from(value.len()).unwrap_or(u32::MAX)),
    };
    EntryReport {
        dots: entry.dots.clone(),
        covers: entry.covers.clone(),
        bytes,
        stamp: entry.stamp,
        expires: entry.expires,
        folded_by: entry.folded_by,
    }
}
