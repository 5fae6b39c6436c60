//! Fills the record of a run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use rejoin_core::exchange::ExchangeLoad;
use rejoin_core::shard::ReceiptSums;
use rejoin_core::shard::event::{Alarm, MergeJob};
use rejoin_proto::catalog::{Record, RecordBody};
use rejoin_proto::receipt::FoldReceipt;
use rejoin_proto::{BucketId, Content, Dot, Entry, Object, VersionVector, codec};

use crate::disk::{Put, ReceiptRow};
use crate::history::{Asked, Basis, Call, CallId, Fold, KeyId, Merge, Minted, NodeIndex, Outcome, Run, Spoiled, Stray};
use crate::keys::Keys;

/// One in this many merges is kept for the checkers, and at most so many per run.
const MERGE_SHARE: u64 = 16;
const MERGES: usize = 500;

/// The mark of a plugin that a node has found not to be deterministic.
pub(crate) const QUARANTINED: &str = "plugin quarantined";
/// The mark of a node that merges to another result than the others.
pub(crate) const VIEWS_DIFFER: &str = "views differ";

/// The mark of a fold that was undone, and of an undo that was refused for now.
pub(crate) const UNDONE: &str = "fold undone";
pub(crate) const UNDO_REFUSED: &str = "undo refused";

/// The mark of an undo that was refused for one of its values, which the operator had forged.
pub(crate) const FORGED_UNDO_REFUSED: &str = "undo of malformed values refused";

/// The mark for one dot under two values: a disk went back, and no handshake has found it out.
pub(crate) const CLASH: &str = "one dot, two values";

/// Fills the record of a run.
#[derive(Default, Debug)]
pub(crate) struct Recorder {
    pub(crate) run: Run,
    /// Per call, the last dot of its write.
    dots: Vec<Option<(KeyId, Dot)>>,
    merges: u64,
    /// Per undo, the dots of what it has restored.
    undone: BTreeMap<CallId, Vec<(KeyId, Dot)>>,
    /// The receipts that nodes keep, by their places in [`Run::folds`].
    receipts: BTreeMap<(NodeIndex, Bytes), usize>,
    /// The most requests that were under way in one shard.
    pub(crate) most_under_way: u64,
    /// The most walks of exchanges that one shard had under way, the most bytes of memory of one, and the most
    /// questions of walks for which one read rows.
    pub(crate) most_walking: ExchangeLoad,
    /// The most bytes of receipts that one shard had.
    pub(crate) most_receipt_bytes: u64,
    /// How often each fault took effect, and each alarm was raised.
    pub(crate) marks: BTreeMap<&'static str, u64>,
    /// The number of calls that have ended.
    pub(crate) ended: u64,
    /// The number of copies of each bucket, as nodes have seen it.
    copies: BTreeMap<BucketId, u8>,
    /// Contradictions in the catalogs of nodes.
    pub(crate) catalog: Vec<String>,
    /// Stored hash trees that their objects do not come to.
    pub(crate) trees: Vec<String>,
}

impl Recorder {
    /// A client begins a call.
    pub(crate) fn invoked(&mut self, call: Call) -> CallId {
        self.run.calls.push(call);
        (self.run.calls.len() - 1) as CallId
    }

    /// A call has ended.
    pub(crate) fn ended(&mut self, id: CallId, now_us: u64, outcome: Outcome) {
        let call = &mut self.run.calls[id as usize];
        (call.ended_us, call.outcome) = (now_us, outcome);
        self.ended += 1;
    }

    /// A coordinator has stored a write.
    pub(crate) fn minted(&mut self, at_us: u64, node: NodeIndex, put: &Put, keys: &Keys) {
        let call = (put.request & u128::from(u32::MAX)) as CallId;
        let object: Object = codec::decode(&put.object).expect("a stored object");
        if let Asked::Undo { seen, inputs, .. } = &self.run.calls[call as usize].asked {
            let (seen, inputs) = (seen.clone(), inputs.clone());
            return self.restored(at_us, (call, node), put, &object, (&seen, &inputs), keys);
        }
        let cloudless = self.seen(call).is_some_and(|seen| !seen.cloud().is_empty() && !replaces(&object, seen));
        let entry = entry_of(&object, put.dot);
        let (dot, stamp, expires) = (put.dot, entry.stamp, entry.expires);
        self.run.minted.push(Minted { call, node, at_us, dot, stamp, expires, cloudless, restored: None });
        if cloudless {
            self.mark("cloud of a context dropped");
        }
        if self.dots.len() <= call as usize {
            self.dots.resize(call as usize + 1, None);
        }
        let (stored, meant) = (keys.of_store_key(&put.store_key), self.run.calls[call as usize].key);
        if keys.twin(meant) == Some(stored) {
            let evidence = format!("node {node} stored call {call} under the key of that name of another tenant");
            self.run.strays.push(Stray { key: meant, evidence });
        }
        self.dots[call as usize] = Some((stored, put.dot));
    }

    /// A coordinator has undone a fold: each of the inputs that it has restored has a dot of its own, in their order,
    /// and the last one is that of the retry row.
    fn restored(
        &mut self,
        at_us: u64,
        (call, node): (CallId, NodeIndex),
        put: &Put,
        object: &Object,
        (seen, inputs): (&VersionVector, &[Content]),
        keys: &Keys,
    ) {
        let cloudless = !seen.cloud().is_empty() && !replaces(object, seen);
        let key = keys.of_store_key(&put.store_key);
        let known: BTreeSet<Dot> = self.run.minted.iter().map(|minted| minted.dot).collect();
        let is_new = |dot: &Dot| !known.contains(dot) && object.entries.iter().any(|entry| is_write(entry, *dot));
        let back = (0..inputs.len() as u64).map(|back| put.dot.counter.saturating_sub(back));
        let mut dots: Vec<Dot> = back.map(|counter| Dot { counter, ..put.dot }).take_while(is_new).collect();
        dots.reverse();
        let mut place = 0;
        for dot in dots {
            let entry = entry_of(object, dot);
            let (stamp, expires) = (entry.stamp, entry.expires);
            match inputs[place..].iter().position(|input| *input == entry.content) {
                Some(further) => place += further,
                None => {
                    return self.misused(key, format!("node {node} restored {:?}, which is no input", entry.content));
                }
            }
            let restored = Some(place);
            place += 1;
            self.run.minted.push(Minted { call, node, at_us, dot, stamp, expires, cloudless, restored });
            self.undone.entry(call).or_default().push((key, dot));
        }
        self.mark(UNDONE);
    }

    /// A shard has written or removed a receipt. Returns it, if it was written.
    pub(crate) fn receipt(
        &mut self,
        at_us: u64,
        node: NodeIndex,
        changed: &ReceiptRow,
        keys: &Keys,
    ) -> Option<FoldReceipt> {
        let Some(row) = &changed.row else {
            if let Some(fold) = self.receipts.get(&(node, changed.key.clone())) {
                self.run.folds[*fold].given_up = true;
            }
            return None;
        };
        let receipt: FoldReceipt = codec::decode(row).expect("a receipt as it is kept");
        let key = keys.of_name(receipt.object.bucket, &receipt.object.key);
        let plugin = receipt.by.plugin;
        if !changed.with_object {
            self.misused(key, format!("node {node} wrote a receipt of {plugin} and not its fold"));
        }
        if self.run.bad.contains(&plugin) {
            self.mark("fold by the bad version");
        }
        self.receipts.insert((node, changed.key.clone()), self.run.folds.len());
        let value = |entry: &Entry| match &entry.content {
            Content::Value(value) => Some(value.clone()),
            Content::Tombstone => None,
        };
        let inputs = receipt.inputs.iter().filter_map(value).collect();
        let (dots, covers) = (receipt.dots.clone(), receipt.covers.clone());
        self.run.folds.push(Fold { key, node, at_us, plugin, inputs, dots, covers, given_up: false });
        Some(receipt)
    }

    /// What a shard's receipts come to.
    pub(crate) fn receipts_are(&mut self, sums: ReceiptSums) {
        self.run.receipts_given_up |= sums.given_up > 0;
        self.most_receipt_bytes = self.most_receipt_bytes.max(sums.bytes);
    }

    /// Something was done with a version of a plugin that must not be.
    pub(crate) fn misused(&mut self, key: KeyId, evidence: String) {
        self.run.misused.push(Stray { key, evidence });
    }

    /// The context of a put, if it has one.
    fn seen(&self, call: CallId) -> Option<&VersionVector> {
        let Asked::Put { basis: Basis::After(basis), .. } = self.run.calls[call as usize].asked else { return None };
        match &self.run.calls[basis as usize].outcome {
            Outcome::Ok(answer) => Some(&answer.context),
            Outcome::Unknown(context) => context.as_ref(),
            Outcome::Refused => None,
        }
    }

    /// The first attempt at a write.
    pub(crate) fn first_attempt(&self, call: CallId) -> CallId {
        match self.run.calls[call as usize].asked {
            Asked::Put { retry_of: Some(first), .. } => first,
            _ => call,
        }
    }

    /// The dots of a write, if it has any: those of an undo are as many as it restores.
    pub(crate) fn dots(&self, call: CallId) -> Vec<(KeyId, Dot)> {
        let of_put = self.dots.get(self.first_attempt(call) as usize).copied().flatten();
        of_put.into_iter().chain(self.undone.get(&call).into_iter().flatten().copied()).collect()
    }

    /// A plugin has merged.
    pub(crate) fn merged(
        &mut self,
        (key, node, at_us): (KeyId, NodeIndex, u64),
        job: &MergeJob,
        value: &Bytes,
        (bad, shadow): (bool, bool),
    ) {
        if bad && !shadow {
            self.run.spoiled.entry(key).or_insert(Spoiled { from_us: at_us, until_us: u64::MAX });
            self.mark("merge by the bad version");
        }
        self.merges += 1;
        if (self.merges.is_multiple_of(MERGE_SHARE) || shadow) && self.run.merges.len() < MERGES {
            let (siblings, value) = (job.siblings.clone(), value.clone());
            self.run.merges.push(Merge { bad, shadow, key, node, siblings, value });
        }
    }

    pub(crate) fn alarm(&mut self, alarm: &Alarm) {
        self.mark(match alarm {
            Alarm::OneDotTwoValues { .. } => CLASH,
            Alarm::FutureStamp { .. } => "stamp of the future",
            Alarm::TenureEnded { .. } | Alarm::TenuresEnded { .. } => "tenure ended",
            Alarm::Damaged { .. } => "damage found",
            Alarm::Rebuilt { .. } => "partition rebuilt",
            Alarm::NotDeterministic { .. } => QUARANTINED,
            Alarm::ViewsDiffer { .. } => VIEWS_DIFFER,
            _ => "other alarm",
        });
    }

    /// A node has a new view of its catalog. A bucket must keep the number of its copies, or its keys would move.
    pub(crate) fn buckets_seen<'a>(&mut self, node: NodeIndex, records: impl Iterator<Item = &'a Record>) {
        for record in records {
            let RecordBody::Bucket { id, props, .. } = &record.body else { continue };
            let first = *self.copies.entry(*id).or_insert(props.n);
            if first != props.n && self.catalog.is_empty() {
                self.catalog.push(format!("n{node} sees {id} with {} copies, which had {first} before", props.n));
            }
        }
    }

    /// A node has refused a call because it does not know a bucket in use.
    pub(crate) fn unknown_bucket(&mut self, node: NodeIndex, key: KeyId) {
        if self.catalog.is_empty() {
            self.catalog
                .push(format!("n{node} has met all of its peers, serves, and does not know the bucket of k{key}"));
        }
    }

    /// Counts something.
    pub(crate) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }
}

/// The entry that a coordinator has just made.
fn entry_of(object: &Object, dot: Dot) -> &Entry {
    object.entries.iter().find(|entry| entry.dots.contains(dot)).expect("a put is live in what it has made")
}

/// Whether an entry is the write of that dot, as it came.
fn is_write(entry: &Entry, dot: Dot) -> bool {
    entry.is_unfolded() && matches!(entry.dots.spans(), [span] if span.actor == dot.actor && span.hi == dot.counter)
}

/// Whether an object is what a write leaves that has replaced everything in `seen`.
fn replaces(object: &Object, seen: &VersionVector) -> bool {
    object.context.covers(seen) && object.entries.iter().all(|entry| entry.dots.is_new_to(seen))
}
