//! Disks that fail, fill up or take their time.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_store::{CommitSeq, Options, ShardStore, Start};
use rejoin_test_store::{FaultDisk, get, open_on, put, rows, small};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

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
    for parallel_mark in [true, false] {
        let disk = FaultDisk::default();
        let dir = tempfile::tempdir().unwrap();
        let options = Options { parallel_mark, ..small() };
        let (mut store, _) = ShardStore::open(dir.path(), options, Arc::new(disk.clone()), &Start::FIRST).unwrap();
        store.write(put(Space::Objects, "before", "the fault")).unwrap();
        store.commit().unwrap();
        store.syncer().sync().unwrap();
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
    // Journal and mark are both in their sync: they are issued in parallel.
    disk.faults.syncs.wait_for(2);
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
