//! Writing, reading, reopening, flushing.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_store::{CommitSeq, OpenError, Options, OsDisk, ShardStore, Start};
use rejoin_test_store::{get, open, open_on, put, rows, segments, small};

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, recovery) = open(dir.path(), Start::FIRST);
    assert!(recovery.lost.is_empty() && recovery.replayed_records == 0);
    for space in [Space::Objects, Space::Trees, Space::Pinned, Space::Receipts] {
        let mut change = Change::default();
        change.put(space, "b", "1").put(space, "a", "2").put(space, "c", "3").put(space, "a", "4").remove(space, "c");
        store.write(change).unwrap();
        assert_eq!(rows(&store, space), [("a".into(), "4".into()), ("b".into(), "1".into())]);
        let mut seen = Vec::new();
        let mut visit = |key: &[u8], _| {
            seen.push(key.to_vec());
            ControlFlow::Break(())
        };
        store.scan(space, b"aa", Some(b"c"), &mut visit).unwrap();
        assert_eq!(seen, [b"b".to_vec()]);
        store.scan(space, b"c", Some(b"a"), &mut |_, _| panic!("an empty range has no rows")).unwrap();
    }
    assert_eq!(store.commit().unwrap(), CommitSeq(4));
    assert_eq!(store.commit().unwrap(), CommitSeq(4));
    assert_eq!(store.syncer().sync().unwrap(), CommitSeq(4));
    assert_eq!((store.stats().commits, store.stats().syncs), (1, 1));
}

/// Reads are remembered, and so are writes: neither may outlive the next write of its row.
#[test]
fn a_read_sees_the_last_write_however_often_the_row_was_read_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Start::FIRST).0;
    for start in [Start::FIRST, Start::KILLED] {
        if start == Start::KILLED {
            drop(store);
            store = open(dir.path(), start).0;
            assert_eq!(get(&store, Space::Objects, "key"), None, "it was removed last");
        }
        let large = "x".repeat(40_000);
        for value in ["one", "two", large.as_str(), "three"] {
            store.write(put(Space::Objects, "key", value)).unwrap();
            for _ in 0..2 {
                assert_eq!(get(&store, Space::Objects, "key").as_deref(), Some(value));
            }
        }
        let mut change = Change::default();
        change.remove(Space::Objects, "key");
        store.write(change).unwrap();
        store.commit().unwrap();
        assert_eq!(get(&store, Space::Objects, "key"), None);
    }
}

#[test]
fn committed_survives_a_drop_and_uncommitted_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    store.write(put(Space::Objects, "key", "value")).unwrap();
    let mut change = put(Space::Pinned, "actor", "7");
    change.put(Space::Receipts, "fold", "inputs");
    store.write(change).unwrap();
    store.commit().unwrap();
    store.write(put(Space::Objects, "never", "committed")).unwrap();
    drop(store);
    for round in 0..3 {
        let (store, recovery) = open(dir.path(), Start::KILLED);
        assert_eq!(
            (recovery.lost, recovery.cut_bytes, recovery.replayed_records),
            (vec![], 0, if round == 0 { 2 } else { 0 })
        );
        assert_eq!(rows(&store, Space::Objects), [("key".into(), "value".into())]);
        assert_eq!(rows(&store, Space::Pinned), [("actor".into(), "7".into())]);
        assert_eq!(rows(&store, Space::Receipts), [("fold".into(), "inputs".into())]);
    }
}

/// In the journal they would end every start: the tree panics at them.
#[test]
fn rows_that_the_tree_could_not_take_are_refused_before_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    for key in [String::new(), "k".repeat(65_536)] {
        for space in [Space::Objects, Space::Trees, Space::Pinned] {
            assert!(
                matches!(store.write(put(space, &key, "v")), Err(StoreFault::Failed(why)) if why.contains("65535"))
            );
        }
    }
    let longest = "k".repeat(65_535);
    store.write(put(Space::Objects, &longest, "v")).unwrap();
    store.commit().unwrap();
    drop(store);
    let (store, recovery) = open(dir.path(), Start::KILLED);
    assert_eq!((recovery.lost.len(), recovery.replayed_records), (0, 1));
    assert_eq!(get(&store, Space::Objects, &longest).as_deref(), Some("v"));
}

#[test]
fn a_change_of_more_than_a_gibibyte_is_refused_and_leaves_the_store_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    let value = bytes::Bytes::from(vec![7; 64 << 20]);
    let mut change = Change::default();
    for row in 0..16u8 {
        change.put(Space::Objects, vec![row], value.clone());
    }
    assert!(matches!(store.write(change), Err(StoreFault::Failed(why)) if why.contains("1 GiB")));
    store.write(put(Space::Objects, "key", "value")).unwrap();
    assert_eq!(store.commit().unwrap(), CommitSeq(1), "nothing was written before");
    assert_eq!(rows(&store, Space::Objects).len(), 1);
}

#[test]
fn a_sync_is_due_once_for_so_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sync_bytes: 1000, ..small() };
    let (mut store, _) = ShardStore::open(dir.path(), options, Arc::new(OsDisk), &Start::FIRST).unwrap();
    let mut due = Vec::new();
    for round in 0..6 {
        store.write(put(Space::Objects, &format!("{round}"), &"x".repeat(450))).unwrap();
        store.commit().unwrap();
        due.push((store.sync_is_due(), store.sync_is_due()));
    }
    // Each record has its head and its key beside the 450 bytes.
    assert_eq!(due, [(false, false), (false, false), (true, false), (false, false), (false, false), (true, false)]);
}

#[test]
fn indexes_go_on_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    for (round, start) in [Start::FIRST, Start::CLEAN, Start::KILLED, Start::CLEAN].into_iter().enumerate() {
        let (mut store, recovery) = open(dir.path(), start);
        assert_eq!(recovery.lost, Vec::<String>::new());
        store.write(put(Space::Objects, &format!("{round}"), "x")).unwrap();
        assert_eq!(store.commit().unwrap(), CommitSeq(round as u64 + 1));
        assert_eq!(rows(&store, Space::Objects).len(), round + 1);
        store.close().unwrap();
    }
}

#[test]
fn a_shard_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Start::FIRST);
    let syncer = store.syncer();
    let again = || open_on(dir.path(), Arc::new(OsDisk), Start::KILLED).err();
    assert!(matches!(again(), Some(OpenError::InUse { .. })));
    drop(store);
    assert!(matches!(again(), Some(OpenError::InUse { .. })), "a syncer still uses it");
    drop(syncer);
    assert!(again().is_none());
}

#[test]
fn flushes_retire_segments_and_nothing_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    let thread = store.maintenance().spawn("maintenance").unwrap();
    let value = "v".repeat(300);
    let mut busy = 0;
    for index in 0..12_000 {
        let mut change = put(Space::Objects, &format!("{:05}", index % 8_000), &format!("{index} {value}"));
        change.put(Space::Pinned, format!("actor {}", index % 7), format!("{index}"));
        while let Err(fault) = store.write(change.clone()) {
            assert_eq!(fault, StoreFault::Busy);
            busy += 1;
            store.commit().unwrap();
            std::thread::yield_now();
        }
        if index % 5 == 0 {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    let check = |store: &ShardStore| {
        for key in 0..8_000 {
            let index = if key < 4_000 { key + 8_000 } else { key };
            assert_eq!(get(store, Space::Objects, &format!("{key:05}")), Some(format!("{index} {value}")));
        }
        let pinned: BTreeMap<_, _> = rows(store, Space::Pinned).into_iter().collect();
        assert_eq!(pinned.len(), 7);
        assert_eq!(pinned["actor 1"], "11999");
    };
    check(&store);
    let stats = store.stats();
    assert!(stats.flushes > 3, "{stats:?}, busy {busy}");
    assert!(stats.journal_bytes > 4_000_000);
    drop(thread);
    let maintenance = store.maintenance();
    while maintenance.run().unwrap().more {}
    drop(maintenance);
    assert!(store.stats().segments <= small().max_segments + 3, "{:?}", store.stats());
    assert_eq!(segments(dir.path()).len() as u64, store.stats().segments);
    drop(store);
    let (store, recovery) = open(dir.path(), Start::KILLED);
    assert_eq!(recovery.lost, Vec::<String>::new());
    assert!(recovery.replayed_records < 6_000, "{recovery:?}");
    check(&store);
}

#[test]
fn a_shard_with_only_pinned_rows_retires_segments_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    let maintenance = store.maintenance();
    for index in 0..20_000_u32 {
        store.write(put(Space::Pinned, &format!("{}", index % 10), &format!("{index:0100}"))).unwrap();
        store.commit().unwrap();
        if index % 500 == 0 {
            maintenance.run().unwrap();
        }
    }
    assert!(store.stats().segments <= small().max_segments + 2, "{:?}", store.stats());
    drop(maintenance);
    drop(store);
    let (store, recovery) = open(dir.path(), Start::KILLED);
    assert_eq!((recovery.lost, recovery.pinned_rows), (vec![], 10));
    assert_eq!(get(&store, Space::Pinned, "9"), Some(format!("{:0100}", 19_999)));
}

#[test]
fn without_maintenance_writes_are_refused_and_taken_again_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path(), Start::FIRST);
    let value = "v".repeat(1000);
    let mut written = 0;
    let fault = loop {
        match store.write(put(Space::Objects, &format!("{written}"), &value)) {
            Ok(()) => written += 1,
            Err(fault) => break fault,
        }
        store.commit().unwrap();
    };
    assert_eq!(fault, StoreFault::Busy);
    assert!(written < 1000);
    assert_eq!(get(&store, Space::Objects, &format!("{written}")), None, "nothing of it was applied");
    assert!(store.maintenance().run().unwrap().flushed);
    store.write(put(Space::Objects, "after", &value)).unwrap();
}

#[test]
fn random_changes_and_reopenings_agree_with_a_map() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut model: [BTreeMap<String, String>; 2] = Default::default();
    let mut start = Start::FIRST;
    for _ in 0..25 {
        let (mut store, recovery) = open(dir.path(), start);
        assert_eq!(recovery.lost, Vec::<String>::new());
        for (space, model) in [Space::Objects, Space::Trees, Space::Pinned].into_iter().zip(&model) {
            assert_eq!(rows(&store, space).into_iter().collect::<BTreeMap<_, _>>(), *model);
        }
        for _ in 0..next(400) {
            let mut change = Change::default();
            for _ in 0..next(4) {
                let which = next(2) as usize;
                let space = [Space::Objects, Space::Trees, Space::Pinned][which];
                let key = format!("{}", next(300));
                if next(3) == 0 {
                    change.remove(space, key.clone());
                    model[which].remove(&key);
                } else {
                    let value = "x".repeat(next(3000) as usize);
                    change.put(space, key.clone(), value.clone());
                    model[which].insert(key, value);
                }
            }
            store.write(change).unwrap();
            if next(4) == 0 {
                store.commit().unwrap();
            }
            if next(40) == 0 {
                store.syncer().sync().unwrap();
            }
            if next(60) == 0 || store.stats().memtable_bytes > 150_000 {
                store.commit().unwrap();
                store.maintenance().run().unwrap();
            }
        }
        store.commit().unwrap();
        start = if next(2) == 0 {
            store.close().unwrap();
            Start::CLEAN
        } else {
            Start::KILLED
        };
    }
}
