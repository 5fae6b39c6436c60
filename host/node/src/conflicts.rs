//! The conflict inbox: keys whose merge has failed at this node, until a later merge of theirs succeeds.
//!
//! It is kept in memory only. After a restart a key is noted again when it is read or exchanged. What writers have
//! resolved since is still in it: whoever lists it reads the keys.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use rejoin_core::shard::event::{MergeJob, PluginError};
use rejoin_proto::client::{Reply, Sibling};
use rejoin_proto::conflict::ConflictNote;
use rejoin_proto::fault::MergeFault;
use rejoin_proto::receipt::{FailedMerge as KeptFailure, MergeLimits};
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, ProfileId};

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::lock::lock;

/// The most keys of one bucket. The one that failed least lately is forgotten for another one.
const MAX_KEYS: usize = 256;
/// The most buckets that have such keys.
const MAX_BUCKETS: usize = 256;
/// The most failed merges of which the inputs are kept, and the most bytes of these.
const MAX_INPUTS: usize = 64;
const MAX_INPUT_BYTES: usize = 16 << 20;
/// The most bytes of a reason in words.
const MAX_WHY_BYTES: usize = 512;

/// The keys of all buckets.
#[derive(Default, Debug)]
pub(crate) struct ConflictInbox {
    buckets: Mutex<BTreeMap<BucketId, BTreeMap<Bytes, ConflictNote>>>,
    /// The inputs of the last of these merges.
    inputs: Mutex<FailedInputs>,
    /// How many buckets have keys here, so that a merge that succeeds need not lock anything when there are none.
    filled: AtomicUsize,
}

/// A merge that failed.
pub(crate) struct FailedMerge<'a> {
    pub(crate) job: &'a MergeJob,
    /// Of the engine.
    pub(crate) profile: ProfileId,
}

/// The last merges that failed, the oldest first.
#[derive(Default, Debug)]
struct FailedInputs {
    merges: VecDeque<KeptMerge>,
    bytes: usize,
}

/// A merge that failed, with copies of its inputs.
#[derive(Debug)]
struct KeptMerge {
    bucket: BucketId,
    key: Bytes,
    /// Of its inputs.
    bytes: usize,
    failure: KeptFailure,
}

impl KeptMerge {
    /// `None`: nothing was run, or the inputs would never fit.
    fn new(merge: &FailedMerge<'_>, error: &PluginError, wall_ms: u64) -> Option<Self> {
        let job = merge.job;
        let bytes = job.siblings.iter().map(|sibling| sibling.value.len()).sum();
        if !matches!(error, PluginError::Call(_)) || bytes > MAX_INPUT_BYTES {
            return None;
        }
        // Copied: these may be parts of larger buffers, which would be kept with them.
        let copied = |one: &Sibling| Sibling { value: Bytes::copy_from_slice(&one.value), ..one.clone() };
        let failure = KeptFailure {
            plugin: job.plugin,
            profile: merge.profile,
            siblings: job.siblings.iter().map(copied).collect(),
            limits: MergeLimits { fuel: job.fuel, memory_bytes: job.memory_bytes, result_bytes: job.result_bytes },
            reason: error.reason().to_owned(),
            why: why(error),
            at_ms: wall_ms,
        };
        Some(Self { bucket: job.bucket, key: Bytes::copy_from_slice(&job.key), bytes, failure })
    }
}

impl FailedInputs {
    /// Adds a merge. It takes the place of an earlier one of the same key and plugin.
    fn add(&mut self, merge: KeptMerge) {
        let is_same = |known: &KeptMerge| {
            (known.bucket, &known.key, known.failure.plugin) == (merge.bucket, &merge.key, merge.failure.plugin)
        };
        if let Some(at) = self.merges.iter().position(is_same) {
            self.remove(at);
        }
        self.bytes += merge.bytes;
        self.merges.push_back(merge);
        while self.merges.len() > MAX_INPUTS || self.bytes > MAX_INPUT_BYTES {
            self.remove(self.least_missed());
        }
    }

    /// Where the oldest merge of the bucket is that has the most: it makes room, so that nobody pushes others' out.
    fn least_missed(&self) -> usize {
        let of_count = self.merges.len() > MAX_INPUTS;
        let mut sums: BTreeMap<BucketId, usize> = BTreeMap::new();
        for merge in &self.merges {
            *sums.entry(merge.bucket).or_default() += if of_count { 1 } else { merge.bytes };
        }
        let most = sums.values().max();
        self.merges.iter().position(|merge| sums.get(&merge.bucket) == most).unwrap_or_default()
    }

    fn remove(&mut self, at: usize) {
        let removed = self.merges.remove(at);
        self.bytes -= removed.map_or(0, |merge| merge.bytes);
    }
}

fn why(error: &PluginError) -> String {
    let mut why = error.to_string();
    why.truncate(why.floor_char_boundary(MAX_WHY_BYTES));
    why
}

impl ConflictInbox {
    /// Notes a merge that failed, unless only the moment was bad: a queue was full, or the time too short.
    pub(crate) fn failed(&self, merge: &FailedMerge<'_>, error: &PluginError, wall_ms: u64) {
        let is_moment =
            |fault: &MergeFault| matches!(fault, MergeFault::Busy | MergeFault::TooLate | MergeFault::Stopped);
        match error {
            PluginError::Call(fault) if !is_moment(fault) => {}
            PluginError::Unusable { .. } => {}
            _ => return,
        }
        let job = merge.job;
        // Copied before anything is locked.
        if let Some(kept) = KeptMerge::new(merge, error, wall_ms) {
            lock(&self.inputs).add(kept);
        }
        let mut buckets = lock(&self.buckets);
        if !buckets.contains_key(&job.bucket) && buckets.len() >= MAX_BUCKETS {
            return;
        }
        let keys = buckets.entry(job.bucket).or_default();
        if !keys.contains_key(&job.key) && keys.len() >= MAX_KEYS {
            let oldest = keys.values().min_by_key(|note| note.last_ms).map(|note| note.key.clone());
            oldest.iter().for_each(|key| drop(keys.remove(key)));
        }
        let known = keys.get(&job.key);
        let (first_ms, times) = known.map_or((wall_ms, 0), |known| (known.first_ms, known.times));
        let note = ConflictNote {
            key: job.key.clone(),
            plugin: job.plugin,
            reason: error.reason().to_owned(),
            why: why(error),
            siblings: u32::try_from(job.siblings.len()).unwrap_or(u32::MAX),
            first_ms,
            last_ms: wall_ms,
            times: times + 1,
        };
        keys.insert(job.key.clone(), note);
        self.filled.store(buckets.len(), Ordering::Relaxed);
    }

    /// A merge of a key has succeeded.
    pub(crate) fn merged(&self, bucket: BucketId, key: &Bytes) {
        if self.filled.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut buckets = lock(&self.buckets);
        let Some(keys) = buckets.get_mut(&bucket) else { return };
        keys.remove(key);
        if keys.is_empty() {
            buckets.remove(&bucket);
        }
        self.filled.store(buckets.len(), Ordering::Relaxed);
    }

    /// The last merges of a key that have failed, with their inputs, the latest first.
    pub(crate) fn failures(&self, bucket: BucketId, key: &Bytes) -> Vec<KeptFailure> {
        let inputs = lock(&self.inputs);
        let of_key = inputs.merges.iter().rev().filter(|merge| merge.bucket == bucket && merge.key == key);
        of_key.map(|merge| merge.failure.clone()).collect()
    }

    /// How many keys there are.
    #[cfg(test)]
    fn keys(&self) -> usize {
        lock(&self.buckets).values().map(BTreeMap::len).sum()
    }

    fn of(&self, bucket: BucketId) -> Vec<ConflictNote> {
        lock(&self.buckets).get(&bucket).map(|keys| keys.values().cloned().collect()).unwrap_or_default()
    }
}

/// Lists the keys of a bucket that the caller's token opens.
pub(crate) fn list(ctx: &NodeContext, caller: &Caller, bucket: &Name) -> Reply {
    let view = ctx.cluster_view();
    let Some(known) = view.bucket_named(caller.tenant, bucket) else {
        return Reply::Error(ErrorReply::new(ErrorCode::NotFound, format!("there is no bucket {bucket}")));
    };
    let limits = &caller.principal.grant.limits;
    let mut notes = ctx.plugins.conflicts().of(known.id);
    notes.retain(|note| limits.admit(bucket, &note.key));
    Reply::Conflicts(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::PluginDigest;
    use rejoin_proto::client::Show;
    use rejoin_proto::fault::QueueOf;

    fn job(bucket: u64, key: &str, value_bytes: usize) -> MergeJob {
        let sibling = |writer| Sibling { value: vec![b'v'; value_bytes].into(), stamp_ms: 1, writer };
        MergeJob {
            plugin: PluginDigest([1; 32]),
            bucket: BucketId(bucket),
            bucket_name: Name::new("cart").expect("a name"),
            key: Bytes::copy_from_slice(key.as_bytes()),
            key_hash: 0,
            siblings: vec![sibling(1), sibling(2)],
            show: Show::Nothing,
            fresh: false,
            fuel: 7,
            memory_bytes: 8,
            result_bytes: 9,
            deadline_us: 0,
        }
    }

    #[test]
    fn the_inputs_of_the_last_failures_are_kept() {
        let inbox = ConflictInbox::default();
        let fail = |key: &str, value_bytes, wall_ms| {
            let job = job(1, key, value_bytes);
            inbox.failed(
                &FailedMerge { job: &job, profile: ProfileId(5) },
                &MergeFault::OutOfFuel { limit: 7 }.into(),
                wall_ms,
            );
        };
        let kept = |key: &str| inbox.failures(BucketId(1), &Bytes::copy_from_slice(key.as_bytes()));
        fail("k", 10, 1);
        fail("k", 11, 2);
        let failures = kept("k");
        assert_eq!((failures.len(), failures[0].at_ms, failures[0].siblings[1].value.len()), (1, 2, 11));
        assert_eq!((failures[0].profile, failures[0].limits.fuel), (ProfileId(5), 7));
        fail("large", MAX_INPUT_BYTES / 2, 3);
        assert_eq!((kept("k").len(), kept("large").len()), (0, 1), "the oldest makes room");
        fail("larger", MAX_INPUT_BYTES, 4);
        assert!(kept("larger").is_empty(), "it would never fit");
        (0..2 * MAX_INPUTS).for_each(|at| fail(&format!("{at}"), 1, 5));
        assert!(kept("0").is_empty() && kept(&format!("{MAX_INPUTS}")).len() == 1);
    }

    #[test]
    fn a_bucket_pushes_out_only_its_own_inputs_and_what_never_ran_has_none() {
        let inbox = ConflictInbox::default();
        let fail = |bucket, key: &str, value_bytes| {
            let (job, fault) = (job(bucket, key, value_bytes), MergeFault::OutOfFuel { limit: 7 });
            inbox.failed(&FailedMerge { job: &job, profile: ProfileId(5) }, &fault.into(), 1);
        };
        let kept = |bucket| lock(&inbox.inputs).merges.iter().filter(|merge| merge.bucket == BucketId(bucket)).count();
        fail(1, "k", 100);
        fail(2, "k", 1 << 20);
        (0..99).for_each(|at| fail(3, &format!("{at}"), 1 << 20));
        assert_eq!((kept(1), kept(2)), (1, 1), "those of others stay, however large the new ones are");
        assert_eq!(kept(3), MAX_INPUT_BYTES / (2 << 20) - 2);
        fail(4, "k", MAX_INPUT_BYTES / 2);
        assert_eq!((kept(1), kept(2), kept(4)), (1, 1, 0), "too large beside them");
        (0..99).for_each(|at| fail(3, &format!("{at}"), 1));
        assert_eq!((kept(1), kept(2), kept(3)), (1, 1, MAX_INPUTS - 2), "nor however many");
        let sum = lock(&inbox.inputs).merges.iter().map(|merge| merge.bytes).sum::<usize>();
        assert_eq!(lock(&inbox.inputs).bytes, sum);
        note(&inbox, 5, "k", 1);
        assert!(kept(5) == 0 && inbox.of(BucketId(5)).len() == 1, "there is nothing to run again");
    }

    fn note(inbox: &ConflictInbox, bucket: u64, key: &str, wall_ms: u64) {
        let job = job(bucket, key, 1);
        let merge = FailedMerge { job: &job, profile: ProfileId(5) };
        inbox.failed(&merge, &PluginError::Unusable { plugin: PluginDigest([1; 32]), why: "é".repeat(600) }, wall_ms);
    }

    #[test]
    fn a_key_is_noted_until_a_merge_of_it_succeeds() {
        let inbox = ConflictInbox::default();
        note(&inbox, 1, "a", 10);
        note(&inbox, 1, "a", 20);
        note(&inbox, 1, "b", 30);
        let notes = inbox.of(BucketId(1));
        let seen: Vec<(u64, u64, u64)> = notes.iter().map(|note| (note.first_ms, note.last_ms, note.times)).collect();
        assert_eq!(seen, [(10, 20, 2), (30, 30, 1)]);
        assert!(notes[0].why.len() <= MAX_WHY_BYTES && inbox.of(BucketId(2)).is_empty());
        inbox.merged(BucketId(1), &Bytes::from_static(b"a"));
        assert_eq!(inbox.keys(), 1);
        inbox.merged(BucketId(1), &Bytes::from_static(b"b"));
        assert_eq!((inbox.keys(), inbox.filled.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_bad_moment_is_no_conflict_and_there_are_so_many_keys_at_most() {
        let inbox = ConflictInbox::default();
        let job = job(1, "k", 1);
        let merge = FailedMerge { job: &job, profile: ProfileId(5) };
        for error in
            [PluginError::TimedOut, PluginError::Overloaded { waiting: 1, of: QueueOf::All }, MergeFault::Busy.into()]
        {
            inbox.failed(&merge, &error, 1);
        }
        assert_eq!(inbox.keys(), 0);
        inbox.failed(&merge, &MergeFault::OutOfFuel { limit: 1 }.into(), 1);
        assert_eq!(inbox.keys(), 1);
        (0..2 * MAX_KEYS).for_each(|at| note(&inbox, 1, &format!("{at}"), 2 + at as u64));
        assert_eq!(inbox.keys(), MAX_KEYS);
        assert!(inbox.of(BucketId(1)).iter().all(|note| note.last_ms >= MAX_KEYS as u64), "the oldest are forgotten");
        (0..2 * MAX_BUCKETS as u64).for_each(|bucket| note(&inbox, bucket, "k", 1));
        assert_eq!(inbox.keys(), MAX_KEYS + MAX_BUCKETS - 1);
    }
}
