//! The conflict inbox: keys whose merge has failed at this node, until a later merge of theirs succeeds.
//!
//! It is kept in memory only. After a restart a key is noted again when it is read or exchanged. What writers have
//! resolved since is still in it: whoever lists it reads the keys.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use rejoin_core::shard::event::PluginError;
use rejoin_proto::client::Reply;
use rejoin_proto::conflict::ConflictNote;
use rejoin_proto::fault::MergeFault;
use rejoin_proto::{BucketId, ErrorCode, ErrorReply, Name, PluginDigest};

use crate::caller::Caller;
use crate::context::NodeContext;
use crate::lock::lock;

/// The most keys of one bucket. The one that failed least lately is forgotten for another one.
const MAX_KEYS: usize = 256;
/// The most buckets that have such keys.
const MAX_BUCKETS: usize = 256;
/// The most bytes of a reason in words.
const MAX_WHY_BYTES: usize = 512;

/// The keys of all buckets.
#[derive(Default, Debug)]
pub(crate) struct ConflictInbox {
    buckets: Mutex<BTreeMap<BucketId, BTreeMap<Bytes, ConflictNote>>>,
    /// How many buckets have keys here, so that a merge that succeeds need not lock anything when there are none.
    filled: AtomicUsize,
}

/// A merge that failed.
pub(crate) struct FailedMerge<'a> {
    pub(crate) bucket: BucketId,
    pub(crate) key: &'a Bytes,
    pub(crate) plugin: PluginDigest,
    pub(crate) siblings: usize,
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
        let mut buckets = lock(&self.buckets);
        if !buckets.contains_key(&merge.bucket) && buckets.len() >= MAX_BUCKETS {
            return;
        }
        let keys = buckets.entry(merge.bucket).or_default();
        if !keys.contains_key(merge.key) && keys.len() >= MAX_KEYS {
            let oldest = keys.values().min_by_key(|note| note.last_ms).map(|note| note.key.clone());
            oldest.iter().for_each(|key| drop(keys.remove(key)));
        }
        let mut why = error.to_string();
        why.truncate(why.floor_char_boundary(MAX_WHY_BYTES));
        let known = keys.get(merge.key);
        let (first_ms, times) = known.map_or((wall_ms, 0), |known| (known.first_ms, known.times));
        let note = ConflictNote {
            key: merge.key.clone(),
            plugin: merge.plugin,
            reason: error.reason().to_owned(),
            why,
            siblings: u32::try_from(merge.siblings).unwrap_or(u32::MAX),
            first_ms,
            last_ms: wall_ms,
            times: times + 1,
        };
        keys.insert(merge.key.clone(), note);
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
    use rejoin_proto::fault::QueueOf;

    fn note(inbox: &ConflictInbox, bucket: u64, key: &str, wall_ms: u64) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let merge = FailedMerge { bucket: BucketId(bucket), key: &key, plugin: PluginDigest([1; 32]), siblings: 2 };
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
        let key = Bytes::from_static(b"k");
        let merge = FailedMerge { bucket: BucketId(1), key: &key, plugin: PluginDigest([1; 32]), siblings: 2 };
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
