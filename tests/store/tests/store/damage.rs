//! Torn ends are cut in silence; everything else that is gone or damaged is said, and never becomes a wrong value.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::{Path, PathBuf};

use rejoin_core::port::{Space, Store};
use rejoin_store::{CommitSeq, Recovery, ShardStore, Start};
use rejoin_test_store::{FRONT, copy, edit, get, open, put, rows, segments, used};

const RECORDS: usize = 6;

/// A shard with six synced records, one commit each, in one segment.
fn synced(dir: &Path) {
    let (mut store, _) = open(dir, Start::FIRST);
    for index in 0..RECORDS {
        let space = if index % 3 == 2 { Space::Pinned } else { Space::Objects };
        store.write(put(space, &format!("key {index}"), &format!("value {index}"))).unwrap();
        store.commit().unwrap();
    }
    store.syncer().sync().unwrap();
}

/// A copy of a shard, its newest segment, and the directory that holds both.
fn copied(from: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    copy(from, dir.path());
    let segment = segments(dir.path()).pop().unwrap();
    (dir, segment)
}

/// How many of the six rows are there; panics at one that was never written.
fn intact(store: &ShardStore) -> usize {
    let all = [rows(store, Space::Objects), rows(store, Space::Pinned)].concat();
    for (key, value) in &all {
        assert_eq!(value, &key.replace("key", "value"));
    }
    all.len()
}

/// A loss is said again until it is settled, and what is written after it is kept.
fn said_until_settled(dir: &Path, first: &Recovery) {
    assert!(!first.lost.is_empty());
    let (mut store, recovery) = open(dir, Start::CLEAN);
    assert_eq!(recovery.lost, first.lost);
    assert!(store.write(put(Space::Objects, "later", "written")).is_ok());
    let seq = store.commit().unwrap();
    assert!(seq > CommitSeq(RECORDS as u64), "an index that may have been used is never used again");
    store.settle_loss().unwrap();
    store.close().unwrap();
    let (store, recovery) = open(dir, Start::CLEAN);
    assert_eq!(recovery.lost, Vec::<String>::new());
    assert_eq!(get(&store, Space::Objects, "later").as_deref(), Some("written"));
}

#[test]
fn a_torn_last_record_is_cut_at_any_byte_without_a_loss() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    let segment = segments(base.path()).pop().unwrap();
    let before = used(&std::fs::read(&segment).unwrap());
    let (mut store, _) = open(base.path(), Start::CLEAN);
    store.write(put(Space::Objects, "synced", "too")).unwrap();
    store.commit().unwrap();
    store.syncer().sync().unwrap();
    let segment = segments(base.path()).pop().unwrap();
    let start = used(&std::fs::read(&segment).unwrap());
    store.write(put(Space::Pinned, "torn", "record")).unwrap();
    store.commit().unwrap();
    drop(store);
    let end = used(&std::fs::read(&segment).unwrap());
    assert!(before > 0 && end - start > 24, "there is a record to tear");
    for cut in start..=end {
        let (dir, segment) = copied(base.path());
        edit(&segment, |bytes| bytes[cut..].fill(0));
        let torn = if cut == end { 0 } else { used(&std::fs::read(&segment).unwrap()[start..]) };
        let (mut store, recovery) = open(dir.path(), Start::POWER_LOST);
        assert_eq!(recovery.lost, Vec::<String>::new(), "cut at {cut}");
        assert_eq!(recovery.cut_bytes, torn as u64);
        assert_eq!(get(&store, Space::Pinned, "torn").is_some(), cut == end);
        assert_eq!(get(&store, Space::Objects, "synced").as_deref(), Some("too"));
        // What was cut never comes back, and its place is taken by something else.
        store.write(put(Space::Pinned, "next", "record")).unwrap();
        store.commit().unwrap();
        drop(store);
        let (store, recovery) = open(dir.path(), Start::KILLED);
        assert_eq!(recovery.lost, Vec::<String>::new());
        assert_eq!(rows(&store, Space::Pinned).iter().any(|(key, _)| key == "torn"), cut == end);
        assert_eq!(get(&store, Space::Pinned, "next").as_deref(), Some("record"));
    }
}

#[test]
fn any_damage_before_the_mark_is_said_and_nothing_wrong_is_served() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    let length = used(&std::fs::read(segments(base.path()).pop().unwrap()).unwrap());
    for place in (FRONT..length).step_by(5) {
        let (dir, segment) = copied(base.path());
        edit(&segment, |bytes| bytes[place] ^= 0x10);
        let (store, recovery) = open(dir.path(), Start::KILLED);
        assert!(!recovery.lost.is_empty(), "byte {place} of {length}");
        assert!(intact(&store) <= RECORDS);
        drop(store);
        if place % 50 == 0 {
            said_until_settled(dir.path(), &recovery);
        }
    }
}

#[test]
fn one_damaged_record_costs_only_itself() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    let (dir, segment) = copied(base.path());
    edit(&segment, |bytes| {
        let place = bytes.windows(7).position(|bytes| bytes == b"value 1").unwrap();
        bytes[place] = b'w';
    });
    let (store, recovery) = open(dir.path(), Start::KILLED);
    assert_eq!(recovery.lost.len(), 1, "{:?}", recovery.lost);
    assert_eq!(intact(&store), RECORDS - 1);
    assert_eq!(get(&store, Space::Objects, "key 1"), None);
}

#[test]
fn a_journal_that_ends_before_the_mark_has_lost_its_end() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    let (dir, segment) = copied(base.path());
    edit(&segment, |bytes| {
        let last = bytes.windows(5).position(|bytes| bytes == b"key 5").unwrap();
        bytes[last - 34..].fill(0);
    });
    let (store, recovery) = open(dir.path(), Start::KILLED);
    assert_eq!(intact(&store), RECORDS - 1);
    drop(store);
    said_until_settled(dir.path(), &recovery);
}

/// A slot is written before its sync, so a power cut may leave one that is ahead of the journal by the sync that was
/// under way. Nobody was answered for it.
#[test]
fn after_a_power_cut_only_records_of_the_last_sync_may_be_missing_without_a_loss() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    let (mut store, _) = open(base.path(), Start::CLEAN);
    let mark = std::fs::read(base.path().join("mark")).unwrap();
    for key in ["key 6", "key 7", "key 8"] {
        store.write(put(Space::Objects, key, &key.replace("key", "value"))).unwrap();
        store.commit().unwrap();
        store.syncer().sync().unwrap();
    }
    // Cuts the journal in front of a record, or makes it zeros from there.
    let lost_in = |base: &Path, key: &str, start: Start| {
        let lost = [true, false].map(|zeros| {
            let (dir, segment) = copied(base);
            edit(&segment, |bytes| {
                let record = bytes.windows(5).position(|bytes| bytes == key.as_bytes()).unwrap() - 34;
                if zeros { bytes[record..].fill(0) } else { bytes.truncate(record) }
            });
            let (store, recovery) = open(dir.path(), start);
            assert_eq!(intact(&store), key.trim_start_matches("key ").parse::<usize>().unwrap());
            !recovery.lost.is_empty()
        });
        assert_eq!(lost[0], lost[1], "{key}");
        lost[0]
    };
    let lost = |key: &str, start: Start| lost_in(base.path(), key, start);
    // The mark was not synced since the start, so the slots are all that is left to say how far the journal was.
    let after_a_power_cut = |key: &str| {
        let (dir, _) = copied(base.path());
        std::fs::write(dir.path().join("mark"), &mark).unwrap();
        lost_in(dir.path(), key, Start::POWER_LOST)
    };
    assert!(!after_a_power_cut("key 8"), "its sync need not have ended");
    assert!(after_a_power_cut("key 7"), "its sync had ended before the next one began");
    assert!(after_a_power_cut("key 6"), "and this one's before that");
    // Of the two slots one is left: also the older one says what must be there.
    for torn in [0, FRONT / 2] {
        let (dir, segment) = copied(base.path());
        std::fs::write(dir.path().join("mark"), &mark).unwrap();
        edit(&segment, |bytes| bytes[torn..torn + FRONT / 2].fill(7));
        assert!(lost_in(dir.path(), "key 6", Start::POWER_LOST), "without the slot at {torn}");
    }
    assert!(lost("key 8", Start::KILLED) && lost("key 8", Start::CLEAN), "the page cache outlives the process");
    // Maintenance that is idle for two turns confirms the last sync.
    let maintenance = store.maintenance();
    for _ in 0..3 {
        assert!(maintenance.turn().is_some());
    }
    assert!(lost("key 8", Start::POWER_LOST));
}

#[test]
fn a_missing_or_emptied_file_is_a_loss() {
    let base = tempfile::tempdir().unwrap();
    synced(base.path());
    for what in ["segment", "empty segment", "mark", "damaged mark", "tree", "all"] {
        let (dir, segment) = copied(base.path());
        match what {
            "segment" => std::fs::remove_file(segment).unwrap(),
            "empty segment" => edit(&segment, Vec::clear),
            "mark" => std::fs::remove_file(dir.path().join("mark")).unwrap(),
            "damaged mark" => edit(&dir.path().join("mark"), |bytes| bytes.fill(7)),
            "tree" => std::fs::remove_dir_all(dir.path().join("tree")).unwrap(),
            _ => {
                std::fs::remove_dir_all(dir.path()).unwrap();
            }
        }
        let (store, recovery) = open(dir.path(), Start::CLEAN);
        assert!(!recovery.lost.is_empty(), "{what}");
        // The journal holds all rows; without a mark, or a tree, they are still served.
        let expected = if ["mark", "damaged mark", "tree"].contains(&what) { RECORDS } else { 0 };
        assert_eq!(intact(&store), expected, "{what}");
        drop(store);
        if what != "all" && expected > 0 {
            said_until_settled(dir.path(), &recovery);
        }
    }
}

#[test]
fn a_segment_of_another_history_is_a_loss() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synced(one.path());
    let (mut store, _) = open(other.path(), Start::FIRST);
    for index in 0..RECORDS {
        store.write(put(Space::Objects, &format!("key {index}"), &format!("other {index}"))).unwrap();
        store.commit().unwrap();
    }
    drop(store);
    std::fs::copy(segments(other.path()).pop().unwrap(), segments(one.path()).pop().unwrap()).unwrap();
    let (_, recovery) = open(one.path(), Start::KILLED);
    assert!(recovery.lost.iter().any(|what| what.contains("another history")), "{:?}", recovery.lost);
}

/// A start that was cut short had begun a segment behind records that are gone now. A later start goes on where the
/// journal ends.
#[test]
fn a_segment_behind_a_torn_end_is_passed_over_by_every_later_start() {
    let (base, further) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synced(base.path());
    copy(base.path(), further.path());
    let (mut store, _) = open(further.path(), Start::KILLED);
    store.write(put(Space::Objects, "torn", "record")).unwrap();
    store.close().unwrap();
    drop(open(further.path(), Start::KILLED));
    let left_behind = segments(further.path()).pop().unwrap();
    std::fs::copy(&left_behind, base.path().join("journal").join(left_behind.file_name().unwrap())).unwrap();
    for round in 0..3 {
        let (mut store, recovery) = open(base.path(), Start::CLEAN);
        assert_eq!(recovery.lost, Vec::<String>::new(), "round {round}");
        assert_eq!(rows(&store, Space::Objects).len() + rows(&store, Space::Pinned).len(), RECORDS + round);
        store.write(put(Space::Objects, &format!("round {round}"), "written")).unwrap();
        assert_eq!(store.commit().unwrap(), CommitSeq((RECORDS + round) as u64 + 1));
        store.close().unwrap();
    }
}

/// Every record of it is whole and has the right index; only the chain tells that one does not follow from the other.
#[test]
fn a_segment_of_two_histories_is_a_loss() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synced(one.path());
    copy(one.path(), other.path());
    for (dir, value) in [(one.path(), "value"), (other.path(), "other")] {
        let (mut store, _) = open(dir, Start::CLEAN);
        for index in RECORDS..RECORDS + 10 {
            store.write(put(Space::Objects, &format!("key {index:02}"), &format!("{value} {index:02}"))).unwrap();
        }
        store.close().unwrap();
    }
    let (segment, spliced) = (segments(one.path()).pop().unwrap(), segments(other.path()).pop().unwrap());
    let spliced = std::fs::read(spliced).unwrap();
    edit(&segment, |bytes| {
        // In front of a record of one history stands what came before it in the other.
        let record = bytes.windows(6).position(|bytes| bytes == b"key 12").unwrap() - 34;
        bytes[..record].copy_from_slice(&spliced[..record]);
    });
    let (store, recovery) = open(one.path(), Start::CLEAN);
    assert!(!recovery.lost.is_empty());
    assert_eq!(
        get(&store, Space::Objects, "key 11").as_deref(),
        Some("other 11"),
        "it was written once, and the loss is said"
    );
}

#[test]
fn a_damaged_segment_among_others_costs_only_itself() {
    let base = tempfile::tempdir().unwrap();
    let filler = "v".repeat(40);
    for round in 0..3 {
        let (mut store, _) = open(base.path(), if round == 0 { Start::FIRST } else { Start::CLEAN });
        for index in 0..20 {
            store.write(put(Space::Objects, &format!("key {round} {index}"), &filler)).unwrap();
            store.write(put(Space::Pinned, "round", &format!("{round}"))).unwrap();
        }
        store.close().unwrap();
    }
    assert_eq!(segments(base.path()).len(), 3);
    for damaged in 0..3 {
        let (dir, _) = copied(base.path());
        edit(&segments(dir.path())[damaged], |bytes| bytes[FRONT..FRONT + 200].fill(0xff));
        let (store, recovery) = open(dir.path(), Start::CLEAN);
        assert!(!recovery.lost.is_empty());
        let left = rows(&store, Space::Objects);
        assert_eq!(left.len(), 40, "{:?}", recovery.lost);
        assert!(left.iter().all(|(key, value)| *value == filler && !key.starts_with(&format!("key {damaged}"))));
        assert_eq!(get(&store, Space::Pinned, "round").as_deref(), Some(if damaged == 2 { "1" } else { "2" }));
    }
}
