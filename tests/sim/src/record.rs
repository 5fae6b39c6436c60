//! Fills the record of a run.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_core::exchange::ExchangeLoad;
use rejoin_core::shard::event::{Alarm, MergeJob};
use rejoin_proto::catalog::{Record, RecordBody};
use rejoin_proto::{BucketId, Dot, Object, VersionVector, codec};

use crate::disk::Put;
use crate::history::{Asked, Basis, Call, CallId, KeyId, Merge, Minted, NodeIndex, Outcome, Run, Stray};
use crate::keys::Keys;

/// One in this many merges is kept for the checkers, and at most so many per run.
const MERGE_SHARE: u64 = 16;
const MERGES: usize = 500;

/// The mark of a plugin that a node has found not to be deterministic.
pub(crate) const QUARANTINED: &str = "plugin quarantined";
/// The mark of a node that merges to another result than the others.
pub(crate) const VIEWS_DIFFER: &str = "views differ";

/// The mark for one dot under two values: a disk went back, and no handshake has found it out.
pub(crate) const CLASH: &str = "one dot, two values";

/// Fills the record of a run.
#[derive(Default, Debug)]
pub(crate) struct Recorder {
    pub(crate) run: Run,
    /// Per call, the last dot of its write.
    dots: Vec<Option<(KeyId, Dot)>>,
    merges: u64,
    /// The most requests that were under way in one shard.
    pub(crate) most_under_way: u64,
    /// The most walks of exchanges that one shard had under way, the most bytes of memory of one, and the most
    /// questions of walks for which one read rows.
    pub(crate) most_walking: ExchangeLoad,
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
        let entry = object
            .entries
            .iter()
            .find(|entry| entry.dots.contains(put.dot))
            .expect("a put is live in what it has made");
        let cloudless = self.seen(call).is_some_and(|seen| !seen.cloud().is_empty() && !replaces(&object, seen));
        let (dot, stamp, expires) = (put.dot, entry.stamp, entry.expires);
        self.run.minted.push(Minted { call, node, at_us, dot, stamp, expires, cloudless });
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

    /// The dot of a write, if it has one.
    pub(crate) fn dot(&self, call: CallId) -> Option<(KeyId, Dot)> {
        self.dots.get(self.first_attempt(call) as usize).copied().flatten()
    }

    /// A plugin has merged.
    pub(crate) fn merged(&mut self, key: KeyId, node: NodeIndex, job: &MergeJob, value: &Bytes) {
        self.merges += 1;
        if self.merges.is_multiple_of(MERGE_SHARE) && self.run.merges.len() < MERGES {
            self.run.merges.push(Merge { key, node, siblings: job.siblings.clone(), value: value.clone() });
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

/// Whether an object is what a write leaves that has replaced everything in `seen`.
fn replaces(object: &Object, seen: &VersionVector) -> bool {
    object.context.covers(seen) && object.entries.iter().all(|entry| entry.dots.is_new_to(seen))
}
