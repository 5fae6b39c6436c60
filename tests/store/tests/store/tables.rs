//! Damaged tables of the tree. One is taken out of the tree, what can be read of it stays, and what cannot reads as
//! damaged until it is written anew: never as absent, and never as what it was before.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::{Maintenance, Options, OsDisk, ShardStore, Start};
use rejoin_test_store::{FaultDisk, edit, put, segments};

const ROWS: u64 = 600;

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

fn open(dir: &Path, start: Start) -> (ShardStore, rejoin_store::Recovery) {
    ShardStore::open(dir, options(), Arc::new(OsDisk), &start).unwrap()
}

/// Keys whose order is not that of their numbers.
fn key(number: u64) -> String {
    format!("{:016x}", number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn value(number: u64, round: u64) -> String {
    format!("{number}.{round} {}", "v".repeat(200))
}

/// Writes all rows, and flushes what there is.
fn round(store: &mut ShardStore, maintenance: &Maintenance, round: u64, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        write(store, maintenance, put(Space::Objects, &key(number), &value(number, round)));
    }
    flush(store, maintenance);
}

fn write(store: &mut ShardStore, maintenance: &Maintenance, change: Change) {
    while store.write(change.clone()) == Err(StoreFault::Busy) {
        maintenance.run().unwrap();
    }
    store.commit().unwrap();
}

/// Lets maintenance work until it has nothing to do. What is in the memtable stays there.
fn flush(store: &mut ShardStore, maintenance: &Maintenance) {
    store.commit().unwrap();
    while maintenance.run().unwrap().more {}
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut tables: Vec<PathBuf> =
        std::fs::read_dir(dir.join("tree/tables")).unwrap().map(|entry| entry.unwrap().path()).collect();
    tables.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    tables
}

fn bytes(dir: &Path) -> u64 {
    tables(dir).iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// The numbers of the rows that read as damaged. All others must be what was written last.
fn damaged(store: &ShardStore, last: impl Fn(u64) -> Option<String>) -> BTreeSet<u64> {
    let mut damaged = BTreeSet::new();
    for number in 0..ROWS {
        match store.get(Space::Objects, key(number).as_bytes()) {
            Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => drop(damaged.insert(number)),
            found => assert_eq!(
                found.unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap()),
                last(number),
                "row {number}"
            ),
        }
    }
    damaged
}

/// A store with two generations of all rows in tables, and nothing in its journal.
fn two_rounds(dir: &Path) {
    let (mut store, _) = open(dir, Start::FIRST);
    let maintenance = store.maintenance();
    round(&mut store, &maintenance, 1, 0..ROWS);
    round(&mut store, &maintenance, 2, 0..ROWS);
    drop(maintenance);
    drop(store);
    // An unclean start flushes what the journal has left.
    let (mut store, recovery) = open(dir, Start::KILLED);
    assert_eq!(recovery.lost, Vec::<String>::new());
    store.commit().unwrap();
    store.close().unwrap();
    assert_eq!(segments(dir).len(), 1);
}

/// Where the damaged byte is, from the front or the end of the largest table.
fn flip(dir: &Path, at: impl Fn(usize) -> usize) -> PathBuf {
    let table = tables(dir).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    edit(&table, |bytes| {
        let at = at(bytes.len());
        bytes[at] ^= 0x10;
    });
    table
}

#[test]
fn one_flipped_bit_costs_the_keys_of_one_block() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    flip(dir.path(), |length| length / 3);
    let (mut store, recovery) = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    assert_eq!((recovery.lost, recovery.damaged), (vec![], vec![]), "rows are not read at a start");
    let unread = damaged(&store, |number| Some(value(number, 2)));
    assert!((1..40).contains(&unread.len()), "{unread:?}");
    // The damage was met: maintenance looks into it, and says what is lost.
    flush(&mut store, &maintenance);
    assert_eq!(damaged(&store, |number| Some(value(number, 2))), unread);
    let mut found = unread.iter().map(|number| store.get(Space::Objects, key(*number).as_bytes()));
    assert!(found.all(|found| matches!(found, Err(StoreFault::Lost { .. }))), "they may be written over");
    assert_eq!(store.stats().lost_ranges, 1);
    let problems = store.problems();
    assert!(problems.iter().any(|line| line.contains("lost with a damaged table are the keys from")), "{problems:?}");
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
    // What is written anew is healed, also if it is removed; the rest stays damaged, whatever is compacted and however
    // often the node starts.
    let mut unread: Vec<u64> = unread.into_iter().collect();
    let (healed, gone) = (unread.pop().unwrap(), unread.pop().unwrap());
    let mut change = Change::default();
    change.put(Space::Objects, key(healed).into_bytes(), value(healed, 3).into_bytes());
    change.remove(Space::Objects, key(gone).into_bytes());
    write(&mut store, &maintenance, change);
    let last = |number| (number != gone).then(|| value(number, if number == healed { 3 } else { 2 }));
    let unread: BTreeSet<u64> = unread.into_iter().collect();
    assert_eq!(damaged(&store, last), unread);
    store.close().unwrap();
    drop(maintenance);
    for start in [Start::CLEAN, Start::KILLED, Start::POWER_LOST] {
        let (store, recovery) = open(dir.path(), start);
        assert_eq!(recovery.lost, Vec::<String>::new());
        assert_eq!(damaged(&store, last), unread, "{start:?}");
        let mut rows = 0;
        let mut count = |_: &[u8], _| {
            rows += 1;
            ControlFlow::Continue(())
        };
        assert!(
            matches!(store.scan(Space::Objects, b"", None, &mut count), Err(StoreFault::Lost { .. })),
            "a scan says that rows are missing"
        );
        assert_eq!(rows, ROWS - 1 - unread.len() as u64, "and visits all others");
    }
}

#[test]
fn damage_behind_the_rows_of_a_table_costs_nothing() {
    for back in [1, 20, 39, 60, 200, 900] {
        let dir = tempfile::tempdir().unwrap();
        two_rounds(dir.path());
        flip(dir.path(), |length| length - back);
        let (mut store, recovery) = open(dir.path(), Start::CLEAN);
        assert_eq!(recovery.lost, Vec::<String>::new(), "{back} bytes from the end");
        let maintenance = store.maintenance();
        assert_eq!(
            damaged(&store, |number| Some(value(number, 2))),
            BTreeSet::new(),
            "{back} bytes from the end: {:?}",
            recovery.damaged
        );
        flush(&mut store, &maintenance);
        assert_eq!(damaged(&store, |number| Some(value(number, 2))), BTreeSet::new(), "{back} bytes from the end");
    }
}

#[test]
fn a_table_that_is_gone_costs_itself_and_never_brings_older_rows_back() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    let (mut store, _) = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    // A table above the others, which has newer rows of every second key.
    for number in (0..ROWS).step_by(2) {
        write(&mut store, &maintenance, put(Space::Objects, &key(number), &value(number, 3)));
    }
    drop((store, maintenance));
    drop(open(dir.path(), Start::KILLED));
    let newest = tables(dir.path()).pop().unwrap();
    std::fs::remove_file(newest).unwrap();
    let (store, recovery) = open(dir.path(), Start::CLEAN);
    assert_eq!((recovery.lost, recovery.damaged.len()), (vec![], 1));
    let unread = damaged(&store, |number| Some(value(number, 2)));
    assert!(
        (0..ROWS).step_by(2).all(|number| unread.contains(&number)),
        "a row that was replaced is not what there is"
    );
}

#[test]
fn a_compaction_of_a_damaged_table_ends_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    flip(dir.path(), |length| length / 2);
    let (mut store, _) = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    for generation in 3..12 {
        round(&mut store, &maintenance, generation, (0..ROWS).step_by(3));
    }
    let most = ROWS * 300 * 2;
    assert!(bytes(dir.path()) < most, "{} bytes in {:?}", bytes(dir.path()), tables(dir.path()));
    let last = |number: u64| Some(value(number, if number.is_multiple_of(3) { 11 } else { 2 }));
    let unread = damaged(&store, last);
    assert!((1..40).contains(&unread.len()) && unread.iter().all(|number| !number.is_multiple_of(3)), "{unread:?}");
    assert_eq!(store.stats().lost_ranges, 1, "{:?}", store.stats());
}

#[test]
fn two_damaged_blocks_and_a_damaged_index_cost_no_more_than_they_must() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    let table = tables(dir.path()).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    edit(&table, |bytes| {
        let length = bytes.len();
        // The rows of a block in front, and everything behind the rows.
        bytes[length / 4 + 100] ^= 1;
        bytes[length - 3000..].fill(0);
    });
    let (store, recovery) = open(dir.path(), Start::CLEAN);
    assert_eq!((recovery.lost, recovery.damaged.len()), (vec![], 1));
    let unread = damaged(&store, |number| Some(value(number, 2)));
    assert!((1..120).contains(&unread.len()), "{} rows are lost", unread.len());
}

#[test]
fn what_a_crash_left_of_a_flush_is_removed_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    let left = dir.path().join("tree/tables/900");
    std::fs::write(&left, vec![1; 1 << 20]).unwrap();
    drop(open(dir.path(), Start::KILLED));
    assert!(!left.exists());
}

/// Descriptors of this process for files below a directory that are removed: their room is not given back.
fn removed_and_open(dir: &Path) -> Vec<PathBuf> {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.starts_with(dir) && link.to_string_lossy().ends_with(" (deleted)")).collect()
}

#[test]
fn after_a_table_was_taken_out_no_removed_file_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    flip(dir.path(), |length| length / 3);
    let (mut store, _) = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    assert!(!damaged(&store, |number| Some(value(number, 2))).is_empty(), "every table has been read");
    flush(&mut store, &maintenance);
    assert_eq!(store.stats().lost_ranges, 1);
    for generation in 3..12 {
        round(&mut store, &maintenance, generation, 0..ROWS);
    }
    assert!(store.stats().compactions > 0);
    assert_eq!(removed_and_open(dir.path()), Vec::<PathBuf>::new());
    drop((store, maintenance));
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    assert_eq!(
        links.filter(|link| link.starts_with(dir.path().join("tree"))).count(),
        0,
        "a tree that is closed holds nothing open"
    );
}

/// Tables of rising keys, which are one run of the tree.
fn three_tables(dir: &Path) {
    let (mut store, _) = open(dir, Start::FIRST);
    let maintenance = store.maintenance();
    let mut number = 0;
    while store.stats().flushes < 3 {
        write(&mut store, &maintenance, put(Space::Objects, &format!("{number:06}"), &value(number, 1)));
        maintenance.run().unwrap();
        number += 1;
    }
    store.close().unwrap();
    assert_eq!(tables(dir).len(), 3);
}

/// The keys of a table that is gone are known beside the tree: not every key of the shard is lost with it.
#[test]
fn a_table_that_is_gone_costs_its_own_keys_only() {
    let dir = tempfile::tempdir().unwrap();
    three_tables(dir.path());
    let (store, _) = open(dir.path(), Start::CLEAN);
    let read = |store: &ShardStore, number: u64| store.get(Space::Objects, format!("{number:06}").as_bytes());
    let last = (0..).find(|number| read(&store, *number).unwrap().is_none()).unwrap() - 1;
    store.close().unwrap();
    std::fs::remove_file(&tables(dir.path())[1]).unwrap();
    let (store, recovery) = open(dir.path(), Start::CLEAN);
    assert_eq!((recovery.lost, recovery.damaged.len()), (vec![], 1));
    let is_lost = |number: &u64| matches!(read(&store, *number), Err(StoreFault::Lost { .. }));
    let lost: Vec<u64> = (0..=last).filter(is_lost).collect();
    let (from, to) = (lost[0], lost[lost.len() - 1]);
    assert_eq!(lost.len() as u64, to - from + 1, "they are beside each other: {lost:?}");
    assert!(from > 50 && to + 50 < last, "keys {from} to {to} of {last} are lost");
    assert_eq!(read(&store, last + 1).unwrap(), None);
    for number in (0..from).chain(to + 1..=last) {
        assert_eq!(read(&store, number).unwrap().unwrap(), value(number, 1));
    }
}

/// Where a scan has met damage is known: other tables are not read for it.
#[test]
fn damage_that_a_scan_has_met_is_looked_for_where_the_scan_was() {
    let dir = tempfile::tempdir().unwrap();
    three_tables(dir.path());
    for damaged in [0, 2] {
        edit(&tables(dir.path())[damaged], |bytes| {
            let middle = bytes.len() / 3;
            bytes[middle] ^= 1;
        });
    }
    let (mut store, _) = open(dir.path(), Start::CLEAN);
    let maintenance = store.maintenance();
    for lost in 1..=2 {
        assert!(matches!(
            store.scan(Space::Objects, b"", None, &mut |_, _| ControlFlow::Continue(())),
            Err(StoreFault::Damaged(_) | StoreFault::Lost { .. })
        ));
        flush(&mut store, &maintenance);
        assert_eq!(store.stats().lost_ranges, lost);
    }
}

#[test]
fn what_is_no_table_among_the_tables_is_moved_out_of_the_way() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    let there = dir.path().join("tree/tables");
    std::fs::write(there.join("12.bak"), "a backup").unwrap();
    std::fs::write(there.join(".nfs0000000001"), "a removed file that is open elsewhere").unwrap();
    std::fs::create_dir(there.join("lost+found")).unwrap();
    std::fs::create_dir(there.join("900")).unwrap();
    let (store, recovery) = open(dir.path(), Start::CLEAN);
    assert_eq!((recovery.lost, recovery.damaged), (vec![], vec![]));
    assert_eq!(damaged(&store, |number| Some(value(number, 2))), BTreeSet::new());
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 4);
}

/// A tree that is set aside may be most of what is on the disk.
#[test]
fn a_tree_that_was_set_aside_gives_way_when_there_is_little_room() {
    let dir = tempfile::tempdir().unwrap();
    two_rounds(dir.path());
    let kept = dir.path().join("tree.damaged");
    for _ in 0..2 {
        edit(&dir.path().join("tree/current"), |bytes| bytes[0] ^= 1);
        std::fs::remove_file(dir.path().join("tables")).unwrap();
        let (store, recovery) = open(dir.path(), Start::CLEAN);
        assert!(!recovery.lost.is_empty() && kept.exists());
        store.close().unwrap();
    }
    let disk = FaultDisk::default();
    let options = Options { free_space_floor: 1 << 20, ..options() };
    let (store, _) = ShardStore::open(dir.path(), options, Arc::new(disk.clone()), &Start::CLEAN).unwrap();
    store.maintenance().run().unwrap();
    assert!(kept.exists(), "there is room");
    disk.faults.full.store(true, SeqCst);
    let _ = store.maintenance().run();
    assert!(!kept.exists());
}
