//! A shard's disk: rows in memory, with the guarantees of `rejoin-store` after a crash.
//!
//! A change is visible at once. [`Disk::commit`] *writes* the batch, and a kill keeps everything written. A sync makes
//! everything *durable* that was written when it began, and a power loss keeps at least that: a prefix of what was
//! written. Rows that a change replaces are kept until it is durable, so that a crash can undo it.

mod scan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::port::{Change, CommitSeq, Journal, Row, Space, Store, StoreFault};
use rejoin_proto::Dot;
use rejoin_proto::codec::{self, Versioned};

use crate::trees::{self, StoredTrees};

/// Rows by key.
type Rows = BTreeMap<Bytes, Bytes>;

/// The first byte of the keys of retry rows (see the core's `rows`): written with every put, they name its dot.
const RETRY: u8 = b'r';
/// The first byte of the keys of receipts (see the core's `receipts`). The other rows of their space order them.
const RECEIPT: u8 = b'r';

/// A retry row as the core keeps it: its frozen encoding, read here and not by the core's own code.
#[derive(Serialize, Deserialize)]
struct RetryRow {
    dot: Dot,
    context: Vec<u8>,
    epoch: u64,
}

impl Versioned for RetryRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "retry row";
}

/// The faults of a disk at the moment.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trouble {
    /// It is full.
    pub(crate) full: bool,
    /// Flushes are behind.
    pub(crate) busy: bool,
    /// The next write fails, and the store is broken from then on.
    pub(crate) failing: bool,
    /// Keys of objects that cannot be read.
    pub(crate) bad_blocks: BTreeSet<Bytes>,
}

/// A put that a shard has stored.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// Which change.
    number: u64,
    pub(crate) dot: Dot,
    pub(crate) store_key: Bytes,
    /// The request id, as the client gave it.
    pub(crate) request: u128,
    /// The object as it was stored.
    pub(crate) object: Bytes,
}

/// An object that could not be read and was written over, or that was removed.
#[derive(Clone, Debug)]
pub(crate) struct Replaced {
    /// The number of the change.
    number: u64,
    pub(crate) store_key: Bytes,
    /// What was there before.
    pub(crate) object: Bytes,
}

/// A receipt of a fold that was written, or removed.
#[derive(Clone, Debug)]
pub(crate) struct ReceiptRow {
    /// The number of the change.
    number: u64,
    pub(crate) key: Bytes,
    /// `None`: it was removed.
    pub(crate) row: Option<Bytes>,
    /// Whether an object was written in the same record.
    pub(crate) with_object: bool,
}

/// A row as it was before a change.
#[derive(Clone, Debug)]
struct Undo {
    /// Which change.
    number: u64,
    space: Space,
    key: Bytes,
    value: Option<Bytes>,
    /// Whether it could not be read.
    bad: bool,
    /// Whether it was lost with a range of keys.
    lost: bool,
}

/// A range of keys that was lost with a table.
#[derive(Clone, Debug)]
struct LostRange {
    first: Bytes,
    last: Bytes,
    /// The last change that may be lost.
    upto: u64,
}

/// One shard's disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct Disk {
    objects: Rows,
    trees: Rows,
    /// Whether rows of hash trees were lost with a table.
    leaves_lost: bool,
    pinned: Rows,
    receipts: Rows,
    lost: Vec<LostRange>,
    /// Keys of lost ranges that were removed after the loss: they are known to be absent.
    removed: BTreeSet<Bytes>,
    undo: VecDeque<Undo>,
    /// The number of changes so far, written or not.
    gathered: u64,
    /// The number of changes in the journal file.
    written: u64,
    /// The number of changes that a power loss keeps.
    synced: u64,
    failed: bool,
    pub(crate) trouble: Trouble,
    /// Unreadable objects that were written over since this was last taken. What only the old copy had is lost.
    pub(crate) replaced: Vec<Replaced>,
    /// Puts since this was last taken.
    pub(crate) puts: Vec<Put>,
    /// Objects that were removed since this was last taken.
    pub(crate) removed_objects: Vec<Replaced>,
    /// Receipts of folds that were written or removed since this was last taken.
    pub(crate) changed_receipts: Vec<ReceiptRow>,
}

impl Disk {
    /// Writes the changes since the last commit. Returns the number of changes in the journal then.
    pub(crate) fn commit(&mut self) -> Result<u64, StoreFault> {
        self.check()?;
        self.written = self.gathered;
        Ok(self.written)
    }

    /// Changes that no commit has written yet.
    pub(crate) fn unwritten(&self) -> u64 {
        self.gathered - self.written
    }

    /// The number of changes that a sync which begins now makes durable.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The number of durable changes.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// A sync has ended: everything up to that change is durable.
    pub(crate) fn sync(&mut self, goal: u64) {
        self.synced = self.synced.max(goal);
        let done = self.undo.iter().take_while(|undo| undo.number <= self.synced).count();
        self.undo.drain(..done);
    }

    /// The process has ended. Written changes stay, and of the unwritten batch the first `torn` changes.
    pub(crate) fn kill(&mut self, torn: u64) {
        self.written = self.gathered.min(self.written.saturating_add(torn));
        self.cut(self.written);
        self.failed = false;
        let written = self.written;
        self.puts.retain(|put| put.number <= written);
        self.replaced.retain(|replaced| replaced.number <= written);
        self.removed_objects.retain(|removed| removed.number <= written);
        self.changed_receipts.retain(|changed| changed.number <= written);
    }

    /// The machine has lost power. Durable changes stay, and of the others those before `cut`.
    pub(crate) fn cut(&mut self, cut: u64) {
        let cut = cut.max(self.synced);
        while let Some(undo) = self.undo.pop_back_if(|undo| undo.number > cut) {
            let rows = match undo.space {
                Space::Objects => &mut self.objects,
                Space::Trees => &mut self.trees,
                Space::Pinned => &mut self.pinned,
                Space::Receipts => &mut self.receipts,
            };
            if undo.bad {
                self.trouble.bad_blocks.insert(undo.key.clone());
            }
            if undo.lost {
                self.removed.remove(&undo.key);
            }
            match undo.value {
                Some(value) => rows.insert(undo.key, value),
                None => rows.remove(&undo.key),
            };
        }
        self.gathered = cut;
        self.written = self.written.min(cut);
    }

    /// The objects that a cut there would change, and what it would leave of each.
    pub(crate) fn objects_after_cut(&self, cut: u64) -> BTreeMap<Bytes, Option<Bytes>> {
        let lost = self.undo.iter().rev().take_while(|undo| undo.number > cut.max(self.synced));
        lost.filter(|undo| undo.space == Space::Objects).map(|undo| (undo.key.clone(), undo.value.clone())).collect()
    }

    /// Loses the objects that `which` picks. The others are durable then.
    pub(crate) fn forget_objects(&mut self, mut which: impl FnMut() -> bool) {
        self.objects.retain(|_, _| !which());
        self.sync(self.written);
    }

    /// The objects of a range of keys that a loss would take: those that are durable, since only durable rows go to the
    /// tree.
    pub(crate) fn durable_objects(&self, first: &Bytes, last: &Bytes) -> BTreeMap<Bytes, Bytes> {
        let mut objects: BTreeMap<Bytes, Option<Bytes>> = self
            .objects
            .range::<Bytes, _>(first..=last)
            .map(|(key, object)| (key.clone(), Some(object.clone())))
            .collect();
        // The oldest undo of a key knows what is durable.
        for undo in self
            .undo
            .iter()
            .rev()
            .filter(|undo| undo.space == Space::Objects && *first <= undo.key && undo.key <= *last)
        {
            objects.insert(undo.key.clone(), undo.value.clone().filter(|_| !undo.lost));
        }
        objects.into_iter().filter_map(|(key, object)| Some((key, object?))).collect()
    }

    /// The object under a key of a range after its loss: a row that is not durable yet stays.
    pub(crate) fn after_loss(&self, key: &[u8]) -> Option<&Bytes> {
        let is_newer = self.undo.iter().any(|undo| undo.space == Space::Objects && undo.key == key);
        self.objects.get(key).filter(|_| is_newer)
    }

    /// Loses a range of keys for good, as a store does that has given up a table. Rows that are not durable yet are in
    /// the journal only, and stay. Returns what was lost.
    pub(crate) fn lose_range(&mut self, first: Bytes, last: Bytes) -> Vec<Replaced> {
        let lost = self.durable_objects(&first, &last);
        let is_in = |key: &Bytes| first <= *key && *key <= last;
        let mut newer = BTreeSet::new();
        for undo in self.undo.iter_mut().filter(|undo| undo.space == Space::Objects && is_in(&undo.key)) {
            if newer.insert(undo.key.clone()) {
                (undo.value, undo.bad, undo.lost) = (None, false, true);
            }
        }
        self.objects.retain(|key, _| !is_in(key) || newer.contains(key));
        self.trouble.bad_blocks.retain(|key| !is_in(key));
        self.removed.retain(|key| !is_in(key) || newer.contains(key));
        self.removed.extend(newer.into_iter().filter(|key| !self.objects.contains_key(key)));
        self.lost.push(LostRange { first, last, upto: self.synced });
        let number = self.gathered;
        lost.into_iter().map(|(store_key, object)| Replaced { number, store_key, object }).collect()
    }

    /// Loses the durable rows of hash trees for good: those that are not durable are in the journal, and stay.
    pub(crate) fn lose_leaves(&mut self) {
        let mut newer = BTreeSet::new();
        for undo in self.undo.iter_mut().filter(|undo| undo.space == Space::Trees) {
            if newer.insert(undo.key.clone()) {
                undo.value = None;
            }
        }
        // Without the head row, which is older than nearly all others.
        self.trees.retain(|key, _| newer.contains(key) && key.len() > 1);
        self.leaves_lost = true;
    }

    /// What is wrong with the stored hash trees.
    pub(crate) fn tree_problems(&self, key: &CausalKey) -> Vec<String> {
        let trees = StoredTrees { leaves: &self.trees, objects: &self.objects, key };
        let in_doubt = |from: &[u8], to: Option<&[u8]>| {
            let meets = |range: &LostRange| range.last[..] >= *from && to.is_none_or(|to| range.first[..] < *to);
            self.lost.iter().any(meets)
        };
        trees.problems(in_doubt)
    }

    /// Whether no leaf of the hash trees is unknown. Rows that were lost are not written anew before the next start.
    pub(crate) fn has_whole_trees(&self) -> bool {
        self.leaves_lost || trees::are_whole(&self.trees)
    }

    /// The last change that may be lost with what stood under a key, if a loss has taken it.
    pub(crate) fn lost_upto(&self, key: &[u8]) -> Option<u64> {
        if self.lost.is_empty() || self.objects.contains_key(key) || self.removed.contains(key) {
            return None;
        }
        let ranges = self.lost.iter().filter(|range| range.first[..] <= *key && *key <= range.last[..]);
        ranges.map(|range| range.upto).max()
    }

    /// A copy as a backup takes it: everything written, all of it durable, without faults.
    pub(crate) fn copy(&self) -> Self {
        let mut copy = Self { trouble: Trouble::default(), ..self.clone() };
        copy.sync(copy.written);
        copy
    }

    /// The readable object under a key.
    pub(crate) fn object(&self, store_key: &[u8]) -> Option<&Bytes> {
        self.objects.get(store_key).filter(|_| !self.trouble.bad_blocks.contains(store_key))
    }

    /// The object under a key, also if its block cannot be read at the moment.
    pub(crate) fn object_on_disk(&self, store_key: &[u8]) -> Option<&Bytes> {
        self.objects.get(store_key)
    }

    /// The object under a key that no loss of power takes.
    pub(crate) fn durable_object(&self, store_key: &[u8]) -> Option<&Bytes> {
        // The oldest undo of a key knows what is durable.
        let undo = self.undo.iter().find(|undo| undo.space == Space::Objects && undo.key == store_key);
        undo.map_or_else(|| self.objects.get(store_key), |undo| undo.value.as_ref().filter(|_| !undo.lost))
    }

    /// The keys of all objects.
    pub(crate) fn object_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.objects.keys()
    }

    /// The core's own row under a key.
    pub(crate) fn all_pinned(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pinned.iter()
    }

    fn check(&self) -> Result<(), StoreFault> {
        if self.failed { Err(StoreFault::Failed("the simulated disk has failed".into())) } else { Ok(()) }
    }

    fn apply(&mut self, row: Row) {
        let lost = row.space == Space::Objects && self.lost_upto(&row.key).is_some();
        if lost && row.value.is_none() {
            self.removed.insert(row.key.clone());
        }
        let rows = match row.space {
            Space::Objects => &mut self.objects,
            Space::Trees => &mut self.trees,
            Space::Pinned => &mut self.pinned,
            Space::Receipts => &mut self.receipts,
        };
        let (key, removes) = (row.key, row.space == Space::Objects && row.value.is_none());
        let value = match (row.value, rows.get_mut(&key)) {
            (Some(value), Some(stored)) => Some(std::mem::replace(stored, value)),
            (Some(value), None) => rows.insert(key.clone(), value),
            (None, _) => rows.remove(&key),
        };
        if let Some(object) = value.clone().filter(|_| removes) {
            self.removed_objects.push(Replaced { number: self.gathered, store_key: key.clone(), object });
        }
        // A row that is written anew is in another block.
        let bad = row.space == Space::Objects && self.trouble.bad_blocks.remove(&key);
        if let Some(object) = value.clone().filter(|_| bad) {
            self.replaced.push(Replaced { number: self.gathered, store_key: key.clone(), object });
        }
        self.undo.push_back(Undo { number: self.gathered, space: row.space, key, value, bad, lost });
    }

    /// Remembers the receipts that a change holds, or removes.
    fn notice_receipts(&mut self, rows: &[Row]) {
        let receipts = rows.iter().filter(|row| row.space == Space::Receipts && row.key.first() == Some(&RECEIPT));
        for Row { key, value, .. } in receipts {
            let with_object = rows.iter().any(|row| row.space == Space::Objects);
            let (number, key, row) = (self.gathered, key.clone(), value.clone());
            self.changed_receipts.push(ReceiptRow { number, key, row, with_object });
        }
    }

    /// Remembers the put that a change holds, if it holds one.
    fn notice_put(&mut self, rows: &[Row]) {
        let Some(retry) = rows.iter().find(|row| row.space == Space::Pinned && row.key.first() == Some(&RETRY)) else {
            return;
        };
        let object = rows.iter().find(|row| row.space == Space::Objects);
        if let (Some(row), Some(Row { key, value: Some(object), .. })) = (&retry.value, object) {
            let RetryRow { dot, .. } = codec::decode(row).expect("a retry row as it is kept");
            let word = |bytes: &[u8]| u128::from_be_bytes(bytes.try_into().expect("sixteen bytes"));
            let bucket = u64::from_be_bytes(key[..8].try_into().expect("eight bytes"));
            // The row's key is kind, partition, and the request crossed with bucket and hash, with which the object's
            // key begins.
            let request = word(&retry.key[3..19]) ^ word(&key[8..24]) ^ u128::from(bucket);
            self.puts.push(Put { number: self.gathered, dot, store_key: key.clone(), request, object: object.clone() });
        }
    }
}

impl Journal for Disk {
    fn commit(&mut self) -> Result<CommitSeq, StoreFault> {
        Disk::commit(self).map(CommitSeq)
    }

    fn sync_is_due(&mut self) -> bool {
        // No sync without a waiting effect, so that a power loss can take as much as possible.
        false
    }
}

impl Store for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        self.check()?;
        match space {
            Space::Pinned => return Ok(self.pinned.get(key).cloned()),
            Space::Trees => return Ok(self.trees.get(key).cloned()),
            Space::Receipts => return Ok(self.receipts.get(key).cloned()),
            Space::Objects => {}
        }
        if !self.trouble.bad_blocks.is_empty() && self.trouble.bad_blocks.contains(key) {
            return Err(StoreFault::Damaged("a simulated bad block".into()));
        }
        if let Some(upto) = self.lost_upto(key) {
            return Err(StoreFault::Lost { upto, what: "a simulated table".into() });
        }
        Ok(self.objects.get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        self.check()?;
        let rows = match space {
            Space::Objects => &self.objects,
            Space::Trees => &self.trees,
            Space::Pinned => &self.pinned,
            Space::Receipts => &self.receipts,
        };
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        for (key, value) in rows.range::<[u8], _>(range) {
            if space == Space::Objects && self.trouble.bad_blocks.contains(key) {
                return Err(StoreFault::Damaged("a simulated bad block".into()));
            }
            if visit(key, value.clone()).is_break() {
                return Ok(());
            }
        }
        let meets = |lost: &&LostRange| lost.last[..] >= *from && to.is_none_or(|to| lost.first[..] < *to);
        if let Some(lost) = self.lost.iter().find(meets).filter(|_| space == Space::Objects) {
            return Err(StoreFault::Lost { upto: lost.upto, what: "a simulated table".into() });
        }
        if space == Space::Trees && self.leaves_lost {
            return Err(StoreFault::Lost { upto: self.synced, what: "a simulated table".into() });
        }
        Ok(())
    }

    fn losses(&self) -> u64 {
        self.lost.len() as u64
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        self.check()?;
        if change.rows.is_empty() {
            return Ok(());
        }
        if self.trouble.failing {
            self.failed = true;
            self.trouble.failing = false;
            return self.check();
        }
        if self.trouble.full {
            return Err(StoreFault::Full);
        }
        if self.trouble.busy {
            return Err(StoreFault::Busy);
        }
        self.gathered += 1;
        self.notice_put(&change.rows);
        self.notice_receipts(&change.rows);
        change.rows.into_iter().for_each(|row| self.apply(row));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(disk: &mut Disk, key: &'static str, value: &'static str) {
        let mut change = Change::default();
        change.put(Space::Objects, key, value);
        disk.write(change).unwrap();
    }

    fn rows(disk: &Disk) -> Vec<(&str, &str)> {
        disk.objects.iter().map(|(key, value)| (str::from_utf8(key).unwrap(), str::from_utf8(value).unwrap())).collect()
    }

    /// a=1 durable, a=2 and b=1 written, a=3 gathered only.
    fn disk() -> Disk {
        let mut disk = Disk::default();
        put(&mut disk, "a", "1");
        let first = disk.commit().unwrap();
        disk.sync(first);
        put(&mut disk, "a", "2");
        put(&mut disk, "b", "1");
        disk.commit().unwrap();
        put(&mut disk, "a", "3");
        disk
    }

    #[test]
    fn a_kill_leaves_what_was_written_and_nothing_else() {
        let mut disk = disk();
        disk.kill(0);
        assert_eq!(rows(&disk), [("a", "2"), ("b", "1")]);
        let mut torn = super::tests::disk();
        torn.kill(1);
        assert_eq!(rows(&torn), [("a", "3"), ("b", "1")]);
    }

    #[test]
    fn a_loss_of_power_leaves_what_is_durable_and_a_prefix_of_the_rest() {
        for (cut, left) in
            [(0, vec![("a", "1")]), (1, vec![("a", "1")]), (2, vec![("a", "2")]), (3, vec![("a", "2"), ("b", "1")])]
        {
            let mut disk = disk();
            disk.kill(0);
            disk.cut(cut);
            assert_eq!(rows(&disk), left, "cut at {cut}");
            put(&mut disk, "c", "1");
            assert_eq!(disk.commit().unwrap(), cut.max(1) + 1, "the journal goes on behind the cut");
        }
    }

    #[test]
    fn what_a_cut_would_leave_is_told_before() {
        let disk = disk();
        let after = disk.objects_after_cut(1);
        assert_eq!(after.get(&b"a"[..]), Some(&Some("1".into())));
        assert_eq!(after.get(&b"b"[..]), Some(&None));
    }

    #[test]
    fn a_lost_range_takes_what_is_durable_and_is_over_where_a_newer_row_stands() {
        let mut disk = disk();
        put(&mut disk, "d", "1");
        let goal = disk.commit().unwrap();
        disk.sync(goal);
        put(&mut disk, "b", "2");
        let lost = disk.lose_range("a".into(), "c".into());
        let lost: Vec<&[u8]> = lost.iter().map(|lost| &lost.object[..]).collect();
        assert_eq!(lost, [b"3", b"1"], "a, and what b was before");
        assert_eq!(rows(&disk), [("b", "2"), ("d", "1")]);
        let is_lost =
            |disk: &Disk, key: &str| matches!(disk.get(Space::Objects, key.as_bytes()), Err(StoreFault::Lost { .. }));
        assert!(is_lost(&disk, "a") && is_lost(&disk, "aa") && !is_lost(&disk, "b") && !is_lost(&disk, "d"));
        let mut change = Change::default();
        change.put(Space::Objects, "a", "4").remove(Space::Objects, "aa");
        disk.write(change).unwrap();
        assert!(!is_lost(&disk, "a") && !is_lost(&disk, "aa"));
        disk.kill(0);
        disk.cut(0);
        assert_eq!(rows(&disk), [("d", "1")], "the newer rows are undone");
        assert!(is_lost(&disk, "a") && is_lost(&disk, "aa") && is_lost(&disk, "b"));
    }

    #[test]
    fn a_failed_write_ends_the_store() {
        let mut disk = disk();
        disk.trouble.failing = true;
        let mut change = Change::default();
        change.put(Space::Objects, "x", "1");
        assert!(matches!(disk.write(change), Err(StoreFault::Failed(_))));
        assert!(disk.commit().is_err() && disk.get(Space::Objects, b"a").is_err());
    }
}
