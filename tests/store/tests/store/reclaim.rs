//! The room of removed rows is freed: that of a shard that has handed over what it had, and a part of it.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::{Options, OsDisk, ShardStore, Start};
use rejoin_test_store::{Attempt, Random, STEPS, Step, rows, scratch, script, small};

/// Rows, and bytes of each, which do not compress.
const ROWS: u64 = 1_000;
const BYTES: usize = 2_000;

fn options(reclaim_rows: u64) -> Options {
    Options { segment_bytes: 1 << 20, memtable_bytes: 256 << 10, reclaim_rows, ..small() }
}

fn open(dir: &Path, start: Start, reclaim_rows: u64) -> ShardStore {
    ShardStore::open(dir, options(reclaim_rows), Arc::new(OsDisk), &start).unwrap().0
}

fn key(number: u64) -> String {
    format!("{number:08}")
}

fn noise(random: &mut Random) -> String {
    (0..BYTES).map(|_| char::from(b' ' + u8::try_from(random.below(95)).unwrap())).collect()
}

/// Writes a change, and lets maintenance go on until it takes it.
fn write(store: &mut ShardStore, change: &Change) {
    while store.write(change.clone()).is_err() {
        work(store);
    }
    store.commit().unwrap();
}

/// All the work that is due, with the commits in which the shard seals its memtable.
fn work(store: &mut ShardStore) {
    loop {
        let more = store.maintenance().run().unwrap().more;
        let segments = store.stats().segments;
        store.commit().unwrap();
        let done = store.maintenance().run().unwrap();
        if !more && !done.more && !done.flushed && segments == store.stats().segments {
            return;
        }
    }
}

fn fill(store: &mut ShardStore) {
    let mut random = Random::new(3, 0);
    for number in 0..ROWS {
        let mut change = Change::default();
        change.put(Space::Objects, key(number), noise(&mut random));
        write(store, &change);
    }
    work(store);
}

fn remove(store: &mut ShardStore, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let mut change = Change::default();
        change.remove(Space::Objects, key(number));
        write(store, &change);
    }
    work(store);
}

/// Bytes of blocks that a directory takes on the disk.
fn taken(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => taken(&entry.path()),
            found => found.blocks() * 512,
        })
        .sum()
}

#[test]
fn a_shard_that_has_handed_over_everything_gives_its_room_back() {
    let kept = {
        let root = scratch();
        let mut store = open(root.path(), Start::FIRST, u64::MAX);
        fill(&mut store);
        remove(&mut store, 0..ROWS);
        assert_eq!(store.stats().reclaims, 0);
        taken(root.path())
    };
    let root = scratch();
    let mut store = open(root.path(), Start::FIRST, 100);
    fill(&mut store);
    let full = taken(root.path());
    remove(&mut store, 0..ROWS);
    let left = taken(root.path());
    eprintln!("{full} bytes of {ROWS} rows; removed {left}, and {kept} if their room is not freed");
    assert!(full > ROWS * BYTES as u64, "{full}");
    assert!(kept > full / 2, "{kept} of {full}: the test has shown nothing");
    // Two segments' first room, and nothing of the rows.
    assert!(left < (2 << 20) + (128 << 10) && left < full, "{left} of {full}");
    assert!(store.stats().reclaims > 0);
    assert_eq!(rows(&store, Space::Objects), []);
    let tables = std::fs::read_dir(root.path().join("tree").join("tables")).unwrap().count();
    assert_eq!(tables, 0, "neither rows nor tombstones");
}

#[test]
fn the_rows_that_stay_are_there_when_the_others_have_gone() {
    let root = scratch();
    let mut store = open(root.path(), Start::FIRST, 100);
    fill(&mut store);
    let before = rows(&store, Space::Objects);
    let full = taken(&root.path().join("tree"));
    let snapshot = store.snapshot().unwrap();
    remove(&mut store, (0..ROWS).filter(|number| number % 4 != 0));
    assert_eq!(store.stats().reclaims, 0, "a snapshot reads them yet");
    drop(snapshot);
    work(&mut store);
    let left = taken(&root.path().join("tree"));
    assert!(left < full * 2 / 5, "{left} of {full} for a quarter of the rows");
    let stay: Vec<_> = before.into_iter().step_by(4).collect();
    assert_eq!(rows(&store, Space::Objects), stay);
    // A few more are not worth it.
    let reclaims = store.stats().reclaims;
    remove(&mut store, (0..8 * 4).step_by(4));
    assert_eq!(store.stats().reclaims, reclaims);
    drop(store);
    let store = open(root.path(), Start::KILLED, 100);
    assert_eq!(rows(&store, Space::Objects), stay[8..]);
}

/// Removals that a start has replayed count as those before it.
#[test]
fn the_room_is_freed_also_when_the_process_ends_in_between() {
    let root = scratch();
    let mut store = open(root.path(), Start::FIRST, 100);
    fill(&mut store);
    for number in 0..ROWS {
        let mut change = Change::default();
        change.remove(Space::Objects, key(number));
        store.write(change).unwrap();
    }
    store.commit().unwrap();
    store.close().unwrap();
    let mut store = open(root.path(), Start::CLEAN, 100);
    work(&mut store);
    assert!(store.stats().reclaims > 0);
    assert_eq!(std::fs::read_dir(root.path().join("tree").join("tables")).unwrap().count(), 0);
}

/// Or the scripts that are cut at each call of the store and of the tree would show nothing about it.
#[test]
fn the_scripts_free_room() {
    for (steps, at_least) in [(STEPS, 10), (90, 1)] {
        let (mut reclaims, mut before) = (0, 0);
        for seed in 0..2 {
            let root = scratch();
            let mut attempt = Attempt::new(root.path(), seed, 0, |_| {});
            for step in script(seed, steps).into_iter().filter(|step| *step != Step::PowerCut) {
                attempt.step(step).unwrap();
                let now = attempt.node.as_ref().unwrap().store.stats().reclaims;
                reclaims += now.saturating_sub(before);
                before = now;
            }
        }
        assert!(reclaims >= at_least, "{reclaims} in {steps} steps");
    }
}
