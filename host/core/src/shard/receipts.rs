//! Folds and their receipts: a fold that a node stores has its receipt in the same record, see [`Receipts`]. And what
//! the node tells of them.
//!
//! [`Receipts`]: crate::receipts::Receipts

use core::ops::ControlFlow;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::fuel_for;
use rejoin_proto::receipt::{
    CopyReport, EntryReport, FoldReceipt, KeptReceipt, MergeLimits, RECEIPT_PAGE, RECEIPT_PAGE_BYTES, output_hash,
};
use rejoin_proto::{BucketId, Content, Entry, ErrorCode, NodeId, Object, ObjectId, PluginDigest, codec};

use super::Shard;
use super::copy::{Copy, Place, StoredRow};
use super::op::PendingFold;
use super::turn::Turn;
use crate::causal;
use crate::port::{Change, Space, Store, StoreFault};
use crate::receipts::{ReceiptSums, next_bucket, range_of};
use crate::view::Bucket;

/// The most receipts that go in one turn because their time is over, and because their bucket is reaped.
const EXPIRED_AT_ONCE: usize = 1024;
const REAPED_AT_ONCE: usize = 128;
/// The bytes of reaped receipts at which a turn takes no more.
const REAPED_BYTES: usize = 4 << 20;

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
    /// inputs were still there.
    pub(super) fn store_fold(
        &mut self,
        turn: &mut Turn<'_>,
        bucket: &Bucket,
        (id, copy): (&ObjectId, &mut Copy),
        fold: &PendingFold,
    ) -> Result<bool, ErrorCode> {
        if !causal::fold(&mut copy.object, &fold.inputs, fold.value.clone(), fold.by) {
            self.counters.folds_discarded += 1;
            return Ok(false);
        }
        let store_key = Bytes::from(id.store_key());
        let place = Place { partition: self.view.layout().partition(id), store_key: &store_key };
        let mut change = Change::default();
        // Rule: folds leave receipts. In the record of the fold, so that there is none without the other.
        let staged = self
            .receipt_of(turn, bucket, (id, &copy.object), fold)
            .map(|receipt| self.receipts.stage(turn.store, &receipt, &mut change));
        let row = codec::encode_bytes(&copy.object);
        self.store_row(turn, place, &copy.row, row.clone(), change)?;
        copy.row = StoredRow::Present(row);
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
        let mut change = Change::default();
        let staged = self.receipts.expire(turn.store, turn.now.wall_ms, EXPIRED_AT_ONCE, &mut change);
        // What could not be written is tried again.
        if let Some(staged) = staged
            && self.write(turn, change).is_ok()
        {
            self.receipts.apply(staged);
        }
        if self.serving && self.view.reaps() && self.receipts.sums().count > 0 {
            self.reap_receipts(turn);
        }
    }

    fn reap_receipts(&mut self, turn: &mut Turn<'_>) {
        let mut from = Some(BucketId(0));
        while let Some(bucket) = from.and_then(|from| next_bucket(turn.store, from)) {
            if self.view.is_reaped(bucket) {
                let (mut rows, mut bytes) = (Vec::new(), 0);
                let mut visit = |key: &[u8], row: Bytes| {
                    bytes += row.len();
                    rows.push((Bytes::copy_from_slice(key), row));
                    if rows.len() < REAPED_AT_ONCE && bytes < REAPED_BYTES {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                };
                let (start, end) = range_of(bucket, None);
                let _ = turn.store.scan(Space::Receipts, &start, Some(&end), &mut visit);
                let mut change = Change::default();
                let staged = self.receipts.remove(&rows, &mut change);
                if self.write(turn, change).is_ok() {
                    self.receipts.apply(staged);
                }
                // The rest goes with the next upkeep.
                return;
            }
            from = bucket.0.checked_add(1).map(BucketId);
        }
    }

    /// How many receipts there are, and what they take.
    #[must_use]
    pub fn receipt_sums(&self) -> ReceiptSums {
        self.receipts.sums()
    }

    /// Some of the receipts that are wanted, and where the next ones begin.
    ///
    /// # Errors
    /// The store cannot read them.
    pub fn kept_receipts(
        &self,
        store: &dyn Store,
        wanted: &ReceiptsWanted,
    ) -> Result<(Vec<KeptReceipt>, Option<Bytes>), StoreFault> {
        let (start, end) = range_of(wanted.bucket, wanted.object.as_ref());
        let start = wanted.from.clone().filter(|from| from[..] > start[..]).unwrap_or_else(|| start.into());
        let (mut found, mut next, mut rows, mut bytes) = (Vec::new(), None, 0_usize, 0);
        let mut visit = |key: &[u8], row: Bytes| {
            (rows, bytes) = (rows + 1, bytes + row.len());
            if rows > 1 && (rows > RECEIPT_PAGE || bytes > RECEIPT_PAGE_BYTES) {
                next = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            let receipt = codec::decode::<FoldReceipt>(&row).ok().filter(|receipt| wanted.takes(receipt));
            found.extend(receipt);
            ControlFlow::Continue(())
        };
        store.scan(Space::Receipts, &start, Some(&end), &mut visit)?;
        let kept = found.into_iter().map(|receipt| {
            let row = store.get(Space::Objects, &receipt.object.store_key()).ok().flatten();
            let object = row.and_then(|row| codec::decode::<Object>(&row).ok()).unwrap_or_default();
            let live = object.entries.iter().any(|entry| entry.dots == receipt.dots && is_by(entry, &receipt));
            let context = || self.config.contexts.seal(&receipt.object, &causal::context_of(&receipt.dots)).into();
            let context = wanted.undo.then(context);
            KeptReceipt { receipt, live, context }
        });
        Ok((kept.collect(), next))
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

/// Whether an entry has the dots of all of these.
fn speaks_for(entry: &Entry, inputs: &[Entry]) -> bool {
    entry.folded_by.is_some() && inputs.iter().all(|input| input.dots.is_subset(&entry.dots))
}

fn is_by(entry: &Entry, receipt: &FoldReceipt) -> bool {
    entry.folded_by == Some(receipt.by)
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
