//! Scans of a snapshot in bounded steps: they read the position at which the snapshot was opened, whatever is written,
//! flushed, compacted or repaired meanwhile, and rows that cannot be read do not end them.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::{
    CommitSeq, Maintenance, Options, OsDisk, ScanError, ScanLimit, ScanStep, ShardStore, Snapshot, Start,
    UnreadableRange,
};
use rejoin_test_store::{FaultDisk, edit};

const ROWS: u64 = 600;
const LIMIT: ScanLimit = ScanLimit { rows: 50, bytes: 1 << 20 };

type Rows = BTreeMap<Bytes, Bytes>;

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        memtable_bytes: 64 << 10,
        write_buffer_rows: 16,
        free_space_floor: 0,
        cache_bytes: 0,
        ..Options::default()
    }
}

fn open(dir: &Path, start: Start) -> ShardStore {
    let (store, recovery) = ShardStore::open(dir, options(), Arc::new(OsDisk), &start).unwrap();
    assert_eq!(recovery.lost, Vec::<String>::new());
    store
}

fn key(number: u64) -> Bytes {
    format!("{number:06}").into()
}

fn value(number: u64, round: u64) -> Bytes {
    format!("{number}.{round} {}", "v".repeat(200)).into()
}

fn write(store: &mut ShardStore, maintenance: &Maintenance, change: &Change) {
    while store.write(change.clone()) == Err(StoreFault::Busy) {
        store.commit().unwrap();
        maintenance.run().unwrap();
    }
    store.commit().unwrap();
}

/// Writes a generation of rows, and lets maintenance work until it has nothing to do.
fn round(store: &mut ShardStore, maintenance: &Maintenance, round: u64, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let mut change = Change::default();
        change.put(Space::Objects, key(number), value(number, round));
        write(store, maintenance, &change);
    }
    while maintenance.run().unwrap().more {}
}

fn whole() -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Unbounded, Bound::Unbounded)
}

/// Steps through a range, with something else done between the steps.
fn scan(
    snapshot: &Snapshot,
    (from, to): (Bound<Bytes>, Bound<Bytes>),
    mut between: impl FnMut(),
) -> (Rows, Vec<UnreadableRange>) {
    let (mut rows, mut unreadable, mut next, mut last) = (Rows::new(), Vec::new(), Some(from), None);
    while let Some(from) = next {
        let step: ScanStep = snapshot.step(&from, &to, LIMIT).unwrap();
        assert!(step.rows.len() <= LIMIT.rows);
        for (key, value) in step.rows {
            assert!(last.as_ref().is_none_or(|last| *last < key), "rows come in the order of their keys, each once");
            last = Some(key.clone());
            rows.insert(key, value);
        }
        unreadable.extend(step.unreadable);
        assert_ne!(step.next.as_ref(), Some(&from), "each step gets on");
        next = step.next;
        between();
    }
    (rows, unreadable)
}

fn generation(round: u64) -> Rows {
    (0..ROWS).map(|number| (key(number), value(number, round))).collect()
}

fn covers(range: &UnreadableRange, key: &Bytes) -> bool {
    use std::ops::RangeBounds;
    (range.from.clone(), range.to.clone()).contains(key)
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("tree/tables")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_scan_reads_one_position_while_everything_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Start::FIRST);
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..ROWS);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.position(), store.commit().unwrap());
    let mut generation_now = 1;
    let before = store.stats();
    let (rows, unreadable) = scan(&snapshot, whole(), || {
        // Every row is overwritten, some are removed, new ones come between; all of it is flushed and compacted.
        generation_now += 1;
        round(&mut store, &maintenance, generation_now, 0..ROWS + 100);
        for number in (0..ROWS).step_by(3) {
            let mut change = Change::default();
            change.remove(Space::Objects, key(number));
            write(&mut store, &maintenance, &change);
        }
    });
    let after = store.stats();
    assert!(after.flushes > before.flushes + 5 && after.compactions > before.compactions, "{after:?}");
    assert_eq!((rows == generation(1), unreadable), (true, vec![]));
    // Once it is closed the old versions go.
    let kept = |dir: &Path| tables(dir).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let with = kept(dir.path());
    drop(snapshot);
    for generation in 0..12 {
        round(&mut store, &maintenance, 100 + generation, 0..ROWS);
    }
    assert!(kept(dir.path()) < with / 2, "{} bytes of {with}", kept(dir.path()));
    let now = store.snapshot().unwrap();
    assert_eq!(scan(&now, (Bound::Unbounded, Bound::Excluded(key(ROWS))), || ()).0, generation(111));
}

/// The steps run on another thread, and the shard does not wait for them.
#[test]
fn a_scan_runs_on_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Start::FIRST);
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..ROWS);
    let snapshots: Vec<_> = (0..3).map(|_| store.snapshot().unwrap()).collect();
    std::thread::scope(|scope| {
        let scans: Vec<_> = snapshots.iter().map(|snapshot| scope.spawn(|| scan(snapshot, whole(), || ()).0)).collect();
        let mut generation_now = 1;
        while !scans.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            generation_now += 1;
            round(&mut store, &maintenance, generation_now, 0..ROWS);
        }
        scans.into_iter().for_each(|rows| assert!(rows.join().unwrap() == generation(1)));
    });
}

#[test]
fn a_step_ends_at_its_limits_and_at_the_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Start::FIRST);
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..20);
    let snapshot = store.snapshot().unwrap();
    let step = |from: Bound<Bytes>, to: Bound<Bytes>, rows, bytes| {
        snapshot.step(&from, &to, ScanLimit { rows, bytes }).unwrap()
    };
    let (from, to) = (Bound::Included(key(3)), Bound::Excluded(key(9)));
    let all = step(from.clone(), to.clone(), 100, 1 << 20);
    assert_eq!(
        (all.rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>(), all.next),
        ((3..9).map(key).collect(), None)
    );
    let one = step(from.clone(), to.clone(), 0, 0);
    assert_eq!((one.rows.len(), one.next), (1, Some(Bound::Excluded(key(3)))), "a step gets on whatever its limits");
    assert_eq!(step(from.clone(), to.clone(), 100, 300).rows.len(), 2, "the row that passes the limit is the last one");
    assert_eq!(step(to.clone(), Bound::Excluded(key(3)), 100, 300), ScanStep::default());
    assert_eq!(step(Bound::Excluded(key(3)), Bound::Excluded(key(3)), 100, 300), ScanStep::default());
    // Rows that are not committed are a part of what is written.
    store
        .write({
            let mut change = Change::default();
            change.put(Space::Objects, key(3), "not committed");
            change
        })
        .unwrap();
    let now = store.snapshot().unwrap();
    assert_eq!(now.position(), CommitSeq(21));
    assert_eq!(now.step(&from, &to, ScanLimit { rows: 1, bytes: 0 }).unwrap().rows[0].1, "not committed");
}

/// Two generations of all rows in tables, of which one has a flipped bit.
fn damaged(dir: &Path) {
    let mut store = open(dir, Start::FIRST);
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..ROWS);
    round(&mut store, &maintenance, 2, 0..ROWS);
    drop((store, maintenance));
    drop(open(dir, Start::KILLED));
    let table = tables(dir).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    edit(&table, |bytes| {
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x10;
    });
}

#[test]
fn rows_that_cannot_be_read_are_reported_and_the_scan_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path());
    let mut store = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    let snapshot = store.snapshot().unwrap();
    let complete = |rows: &Rows, unreadable: &[UnreadableRange]| {
        let missing: BTreeSet<u64> = (0..ROWS).filter(|number| !rows.contains_key(&key(*number))).collect();
        assert!((1..40).contains(&missing.len()), "{missing:?}");
        assert!(rows.iter().all(|(key, found)| generation(2)[key] == found), "nothing older is read");
        assert!(
            missing.iter().all(|number| unreadable.iter().any(|range| covers(range, &key(*number)))),
            "{missing:?} in {unreadable:?}"
        );
        missing
    };
    let (rows, unreadable) = scan(&snapshot, whole(), || ());
    let missing = complete(&rows, &unreadable);
    assert!(unreadable.iter().all(|range| range.lost_upto.is_none()), "nobody has looked at it: {unreadable:?}");
    assert!(
        (0..ROWS).filter(|number| unreadable.iter().any(|range| covers(range, &key(*number)))).count() < 60,
        "{unreadable:?}"
    );
    // The table is taken out while the scan is under way; what is lost stays so, also when all rows are written anew.
    let mut generation_now = 2;
    let (rows, unreadable) = scan(&snapshot, whole(), || {
        generation_now += 1;
        round(&mut store, &maintenance, generation_now, 0..ROWS);
    });
    assert!(complete(&rows, &unreadable).is_subset(&missing));
    assert_eq!(store.stats().lost_ranges, 1);
    let (rows, unreadable) = scan(&snapshot, whole(), || ());
    assert!(complete(&rows, &unreadable).is_subset(&missing));
    assert!(unreadable.iter().all(|range| range.lost_upto.is_some()), "{unreadable:?}");
    let (rows, _) = scan(&store.snapshot().unwrap(), whole(), || ());
    assert_eq!(rows, generation(generation_now), "they are healed now");
}

/// A removal heals a key like any other write, also once its tombstone is compacted away.
#[test]
fn a_lost_key_that_was_removed_stays_absent_when_its_tombstone_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path());
    let mut store = open(dir.path(), Start::CLEAN);
    let mut maintenance = store.maintenance();
    let unreadable = |store: &ShardStore| {
        (0..ROWS).filter(|number| store.get(Space::Objects, &key(*number)).is_err()).collect::<Vec<_>>()
    };
    let lost = unreadable(&store);
    while maintenance.run().unwrap().more {}
    assert_eq!((store.stats().lost_ranges, unreadable(&store) == lost, lost.len() > 2), (1, true, true));
    let (gone, again, still) = (lost[0], lost[1], &lost[2..]);
    for number in [gone, again] {
        let mut change = Change::default();
        change.remove(Space::Objects, key(number));
        write(&mut store, &maintenance, &change);
    }
    // Every other row is written until all tables are compacted, also into the last level.
    for generation in 3..16 {
        round(&mut store, &maintenance, generation, (0..ROWS).filter(|number| !lost.contains(number)));
    }
    assert!(store.stats().compactions > 2, "{:?}", store.stats());
    for start in [Start::CLEAN, Start::KILLED] {
        assert_eq!(unreadable(&store), still, "{start:?}");
        assert_eq!(store.get(Space::Objects, &key(gone)), Ok(None));
        let (rows, _) = scan(&store.snapshot().unwrap(), whole(), || ());
        assert_eq!(rows.len() as u64, ROWS - lost.len() as u64);
        drop(maintenance);
        store.close().unwrap();
        store = open(dir.path(), start);
        maintenance = store.maintenance();
    }
    let mut change = Change::default();
    change.put(Space::Objects, key(again), value(again, 99));
    write(&mut store, &maintenance, &change);
    assert_eq!(store.get(Space::Objects, &key(again)), Ok(Some(value(again, 99))));
}

#[test]
fn snapshots_are_given_up_when_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultDisk::default();
    let options = Options { free_space_floor: 1 << 20, ..options() };
    let (mut store, _) = ShardStore::open(dir.path(), options, Arc::new(disk.clone()), &Start::FIRST).unwrap();
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..ROWS);
    let (snapshot, other) = (store.snapshot().unwrap(), store.snapshot().unwrap());
    let first = || snapshot.step(&Bound::Unbounded, &Bound::Unbounded, LIMIT);
    assert_eq!(first().unwrap().rows.len(), LIMIT.rows);
    drop(other);
    disk.faults.full.store(true, SeqCst);
    let _ = maintenance.run();
    assert_eq!(first(), Err(ScanError::Expired));
    disk.faults.full.store(false, SeqCst);
    maintenance.run().unwrap();
    assert_eq!(first(), Err(ScanError::Expired));
    assert_eq!(scan(&store.snapshot().unwrap(), whole(), || ()).0, generation(1));
}
