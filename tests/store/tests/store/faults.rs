//! Disks that fail, fill up or take their time.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rustix::io::Errno;

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_store::{CommitSeq, Options, ShardStore, Start};
use rejoin_test_store::{FaultDisk, copy, get, open, open_on, put, rows, scratch, sealed, segments, small};

fn on(disk: &FaultDisk) -> (tempfile::TempDir, ShardStore) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open_on(dir.path(), Arc::new(disk.clone()), Start::FIRST).unwrap();
    store.write(put(Space::Objects, "before", "the fault")).unwrap();
    store.commit().unwrap();
    store.syncer().sync().unwrap();
    (dir, store)
}

fn assert_failed(store: &mut ShardStore) {
    assert!(matches!(store.commit(), Err(StoreFault::Failed(_))));
    assert!(matches!(store.syncer().sync(), Err(StoreFault::Failed(_))));
    assert!(matches!(store.write(put(Space::Objects, "a", "b")), Err(StoreFault::Failed(_))));
    assert!(matches!(store.get(Space::Objects, b"before"), Err(StoreFault::Failed(_))));
    assert!(matches!(store.maintenance().run(), Err(StoreFault::Failed(_))));
}

#[test]
fn a_failed_sync_is_never_retried_into_success() {
    let disk = FaultDisk::default();
    let (dir, mut store) = on(&disk);
    store.write(put(Space::Objects, "in", "doubt")).unwrap();
    store.commit().unwrap();
    disk.faults.fail_sync.store(true, SeqCst);
    assert!(matches!(store.syncer().sync(), Err(StoreFault::Failed(_))));
    disk.faults.fail_sync.store(false, SeqCst);
    assert_failed(&mut store);
    drop(store);
    let (store, recovery) = open_on(dir.path(), Arc::new(disk), Start::KILLED).unwrap();
    assert_eq!(recovery.lost, Vec::<String>::new());
    assert_eq!(get(&store, Space::Objects, "before").as_deref(), Some("the fault"));
}

#[test]
fn a_failed_write_stops_the_store() {
    let disk = FaultDisk::default();
    let (_dir, mut store) = on(&disk);
    store.write(put(Space::Objects, "in", "doubt")).unwrap();
    disk.faults.fail_write.store(true, SeqCst);
    assert!(matches!(store.commit(), Err(StoreFault::Failed(_))));
    disk.faults.fail_write.store(false, SeqCst);
    assert_failed(&mut store);
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading_until_there_is_room() {
    let disk = FaultDisk::default();
    let (dir, mut store) = on(&disk);
    let maintenance = store.maintenance();
    disk.faults.full.store(true, SeqCst);
    // What was promised room is still taken; then it is over, and nothing of the refused change is applied.
    let mut written = 0;
    let value = "v".repeat(1000);
    let fault = loop {
        let change = put(Space::Objects, &format!("key {written:04}"), &value);
        match store.write(change) {
            Ok(()) => written += 1,
            Err(fault) => break fault,
        }
        store.commit().unwrap();
    };
    assert_eq!(fault, StoreFault::Full);
    assert!((1..500).contains(&written), "{written}");
    assert!(store.stats().full);
    assert_eq!(store.write(put(Space::Objects, "refused", "x")), Err(StoreFault::Full));
    maintenance.run().unwrap();
    assert_eq!(store.write(put(Space::Objects, "refused", "x")), Err(StoreFault::Full), "there is still no room");
    store.syncer().sync().unwrap();
    assert_eq!(rows(&store, Space::Objects).len(), written + 1);
    assert_eq!(get(&store, Space::Objects, "refused"), None);
    disk.faults.full.store(false, SeqCst);
    maintenance.run().unwrap();
    store.write(put(Space::Objects, "taken", "again")).unwrap();
    store.commit().unwrap();
    store.syncer().sync().unwrap();
    drop((store, maintenance));
    let (store, recovery) = open_on(dir.path(), Arc::new(disk), Start::KILLED).unwrap();
    assert_eq!(recovery.lost, Vec::<String>::new());
    assert_eq!(rows(&store, Space::Objects).len(), written + 2);
}

#[test]
fn too_little_free_space_is_seen_by_maintenance_alone() {
    let disk = FaultDisk::default();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { free_space_floor: 1 << 20, ..small() };
    let (mut store, _) = ShardStore::open(dir.path(), options, Arc::new(disk.clone()), &Start::FIRST).unwrap();
    disk.faults.full.store(true, SeqCst);
    store.maintenance().run().unwrap();
    assert_eq!(store.write(put(Space::Objects, "a", "b")), Err(StoreFault::Full));
    disk.faults.full.store(false, SeqCst);
    store.maintenance().run().unwrap();
    store.write(put(Space::Objects, "a", "b")).unwrap();
}

#[test]
fn commits_go_on_while_a_sync_is_held_back_and_nothing_is_durable_before_it() {
    let disk = FaultDisk::default();
    let (dir, mut store) = on(&disk);
    store.write(put(Space::Objects, "first", "x")).unwrap();
    assert_eq!(store.commit().unwrap(), CommitSeq(2));
    disk.faults.syncs.close();
    let (syncer, (done, durable)) = (store.syncer(), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || done.send(syncer.sync()).unwrap());
    disk.faults.syncs.wait_for(1);
    for index in 0..100 {
        store.write(put(Space::Objects, &format!("meanwhile {index}"), "x")).unwrap();
        store.commit().unwrap();
    }
    assert!(durable.try_recv().is_err(), "nothing is durable while the disk holds back");
    disk.faults.syncs.open();
    assert_eq!(durable.recv().unwrap().unwrap(), CommitSeq(2), "what was committed after it began is not covered");
    thread.join().unwrap();
    assert_eq!(store.syncer().sync().unwrap(), CommitSeq(102));
    drop((store, dir));
}

#[test]
fn the_tree_never_gets_ahead_of_what_the_journal_has_durably() {
    let disk = FaultDisk::default();
    let (dir, mut store) = on(&disk);
    let value = "v".repeat(1000);
    let mut index = 0;
    while store.stats().memtable_bytes > 0 || index == 0 {
        store.write(put(Space::Objects, &format!("key {index}"), &value)).unwrap();
        store.commit().unwrap();
        index += 1;
    }
    disk.faults.syncs.close();
    let maintenance = store.maintenance();
    let thread = std::thread::spawn(move || maintenance.run());
    disk.faults.syncs.wait_for(1);
    let tables = || std::fs::read_dir(dir.path().join("tree/tables")).unwrap().count();
    assert_eq!((tables(), store.stats().flushes), (0, 0));
    disk.faults.syncs.open();
    assert!(thread.join().unwrap().unwrap().flushed);
    assert_eq!((tables(), store.stats().flushes), (1, 1));
}

#[test]
fn a_write_for_which_there_is_no_memory_is_refused_and_taken_later() {
    let disk = FaultDisk::default();
    let (_dir, mut store) = on(&disk);
    disk.faults.no_memory.store(true, SeqCst);
    let value = "v".repeat(1000);
    let fault = (0..2000).find_map(|number| {
        let refused = store.write(put(Space::Objects, &format!("{number}"), &value)).err();
        store.commit().unwrap();
        refused
    });
    assert_eq!(fault, Some(StoreFault::Busy));
    disk.faults.no_memory.store(false, SeqCst);
    store.maintenance().run().unwrap();
    store.write(put(Space::Objects, "taken", "again")).unwrap();
}

fn tables(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("tree/tables")).unwrap().count()
}

#[test]
fn nothing_is_flushed_that_does_not_fit() {
    let disk = FaultDisk::default();
    let (dir, mut store) = on(&disk);
    let value = "v".repeat(1000);
    for number in 0.. {
        store.write(put(Space::Objects, &format!("{number}"), &value)).unwrap();
        store.commit().unwrap();
        if store.stats().memtable_bytes == 0 {
            break;
        }
    }
    disk.faults.full.store(true, SeqCst);
    assert_eq!(store.maintenance().run(), Err(StoreFault::Full));
    assert_eq!((tables(dir.path()), store.stats().flushes), (0, 0));
    assert!(store.problems().iter().any(|line| line.contains("no room to flush: it needs")), "{:?}", store.problems());
    disk.faults.full.store(false, SeqCst);
    assert!(store.maintenance().run().unwrap().flushed);
}

#[test]
fn nothing_is_compacted_that_does_not_fit() {
    let disk = FaultDisk::default();
    let (dir, store) = on(&disk);
    drop(store);
    // Each start after a kill flushes, and no maintenance compacts.
    for number in 0..5 {
        let (mut store, _) = open_on(dir.path(), Arc::new(disk.clone()), Start::KILLED).unwrap();
        store.write(put(Space::Objects, "key", &format!("{number}"))).unwrap();
        store.commit().unwrap();
    }
    let (store, _) = open_on(dir.path(), Arc::new(disk.clone()), Start::KILLED).unwrap();
    disk.faults.full.store(true, SeqCst);
    let before = tables(dir.path());
    assert_eq!(store.maintenance().run(), Err(StoreFault::Full));
    assert_eq!((tables(dir.path()), store.stats().compactions), (before, 0));
    assert!(
        store.problems().iter().any(|line| line.contains("no room to compact: it needs")),
        "{:?}",
        store.problems()
    );
    disk.faults.full.store(false, SeqCst);
    assert!(store.maintenance().run().unwrap().compacted && tables(dir.path()) < before);
}

#[test]
fn a_sync_that_finds_no_descriptor_gives_up_the_spare_one() {
    let disk = FaultDisk::default();
    let (_dir, mut store) = on(&disk);
    let value = "v".repeat(1000);
    // The name of a new segment is to be synced: its directory has to be opened for that.
    for number in 0.. {
        store.write(put(Space::Objects, &format!("{number}"), &value)).unwrap();
        store.commit().unwrap();
        if store.stats().segments > 1 {
            break;
        }
    }
    let next = disk.faults.calls.load(SeqCst);
    *disk.faults.once.lock().unwrap() = Some((next, Errno::MFILE));
    store.syncer().sync().unwrap();
    assert!(disk.faults.calls.load(SeqCst) > next + 1, "it was tried again");
}

const ROWS: usize = 300;

/// A store that was killed, with rows in its tree, in older segments, and behind what was synced.
fn killed(dir: &Path) {
    let mut store = open(dir, Start::FIRST).0;
    let maintenance = store.maintenance();
    for number in 0..ROWS {
        let mut change = put(Space::Objects, &format!("{number:04}"), &"v".repeat(900));
        change.put(Space::Pinned, "actor", number.to_string());
        store.write(change).unwrap();
        store.commit().unwrap();
        if number == ROWS / 2 {
            maintenance.run().unwrap();
        }
        if number == ROWS - 10 {
            store.syncer().sync().unwrap();
        }
    }
    assert!(store.stats().flushes == 1 && store.stats().segments > 2, "{:?}", store.stats());
}

fn assert_whole(store: &ShardStore) {
    assert_eq!(rows(store, Space::Objects).len(), ROWS);
    assert_eq!(get(store, Space::Pinned, "actor"), Some((ROWS - 1).to_string()));
}

/// The system is short of something for a moment, or the user may not: that says nothing about what is on the disk.
#[test]
fn an_error_that_shows_no_damage_costs_a_start_and_nothing_else() {
    let base = scratch();
    killed(base.path());
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS] {
        let mut refused = 0;
        for call in 0.. {
            let dir = scratch();
            copy(base.path(), dir.path());
            let disk = FaultDisk::default();
            *disk.faults.once.lock().unwrap() = Some((call, errno));
            let opened = open_on(dir.path(), Arc::new(disk.clone()), Start::KILLED);
            let calls = disk.faults.calls.load(SeqCst);
            refused += u64::from(opened.is_err());
            if let Ok((store, recovery)) = opened {
                assert_eq!(recovery.lost, Vec::<String>::new(), "{errno:?} at call {call}");
                assert_whole(&store);
            }
            let (store, recovery) = open(dir.path(), Start::KILLED);
            assert_eq!((recovery.lost, recovery.damaged), (vec![], vec![]), "after {errno:?} at call {call}");
            assert_whole(&store);
            if calls <= call {
                break;
            }
        }
        assert!(refused > 10, "{refused} starts are refused for {errno:?}");
    }
}

/// A bad sector is there at every start: none may fail on it.
#[test]
fn a_file_that_the_disk_cannot_read_keeps_no_store_from_opening() {
    let base = scratch();
    killed(base.path());
    let segment = segments(base.path()).into_iter().nth(1).unwrap();
    let segment = segment.strip_prefix(base.path()).unwrap().to_owned();
    for name in ["mark", "damaged", "lost", "tables", segment.to_str().unwrap()] {
        let dir = scratch();
        copy(base.path(), dir.path());
        if !dir.path().join(name).exists() {
            std::fs::write(dir.path().join(name), sealed("")).unwrap();
        }
        for start in [Start::KILLED, Start::CLEAN] {
            let disk = FaultDisk::default();
            *disk.faults.unreadable.lock().unwrap() = Some(dir.path().join(name));
            let (store, recovery) =
                open_on(dir.path(), Arc::new(disk), start).unwrap_or_else(|error| panic!("{name}: {error}"));
            let costs_rows = name.ends_with(".seg");
            assert_eq!(recovery.lost.is_empty(), name == "tables", "{name}: {:?}", recovery.lost);
            assert!(costs_rows || rows(&store, Space::Objects).len() == ROWS, "{name}");
        }
    }
}
