//! With keys no file of a shard has a value in the clear. Rows under older keys are written anew, whatever crash comes
//! in between, and a key that is still needed is asked for.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use rejoin_core::port::{Change, Space, Store, StoreFault};
use rejoin_proto::id::{ClusterId, NodeId};
use rejoin_store::{
    DataDir, FORMAT_VERSION, FileError, Identity, Key, Keys, OpenError, Options, OsDisk, ScanLimit, SealedRows,
    ShardStore, Start,
};
use rejoin_test_store::{
    DiskEvent, Expected, FRONT, Loss, Random, Recording, SECTOR, Survival, campaign, copy, crc, edit, get, put, rows,
    segments, small,
};

/// A part of every value.
const CANARY: &str = "a canary that nobody may read";
/// Rows that fill several tables.
const ROWS: usize = 3000;
/// Every so many of them have a receipt.
const RECEIPTS_EACH: usize = 100;

fn key(number: u8) -> Key {
    Key::new([number; 32])
}

fn keys(used: u8, others: &[u8]) -> Option<Keys> {
    Some(Keys::new(key(used), others.iter().map(|other| key(*other))))
}

fn try_open(dir: &Path, start: Start, keys: Option<Keys>) -> Result<ShardStore, OpenError> {
    let options = Options { keys: keys.map(Arc::new), ..small() };
    let (store, recovery) = ShardStore::open(dir, options, Arc::new(OsDisk), &start)?;
    assert_eq!((recovery.lost, recovery.damaged), (vec![], vec![]));
    Ok(store)
}

fn open(dir: &Path, start: Start, keys: Option<Keys>) -> ShardStore {
    try_open(dir, start, keys).unwrap()
}

fn value(row: usize) -> String {
    format!("{row} {CANARY} {}", "v".repeat(row % 500))
}

fn fill(store: &mut ShardStore) {
    for row in 0..ROWS {
        let mut change = put(Space::Objects, &format!("{row:04}"), &value(row));
        if row % RECEIPTS_EACH == 0 {
            change.put(Space::Receipts, format!("{row:04}"), value(row));
        }
        while store.write(change.clone()) == Err(StoreFault::Busy) {
            store.commit().unwrap();
            store.maintenance().run().unwrap();
        }
        if row % 10 == 0 {
            store.commit().unwrap();
            store.maintenance().run().unwrap();
        }
    }
    store.commit().unwrap();
    store.syncer().sync().unwrap();
}

fn has_all(store: &ShardStore) {
    let expected: Vec<(String, String)> = (0..ROWS).map(|row| (format!("{row:04}"), value(row))).collect();
    assert_eq!(rows(store, Space::Objects), expected);
    let receipts: Vec<_> = expected.into_iter().step_by(RECEIPTS_EACH).collect();
    assert_eq!(rows(store, Space::Receipts), receipts);
    assert_eq!(get(store, Space::Receipts, "0000"), Some(value(0)));
    for row in [0, ROWS / 2, ROWS - 1] {
        // Twice: the second one is from the cache.
        for _ in 0..2 {
            assert_eq!(get(store, Space::Objects, &format!("{row:04}")), Some(value(row)));
        }
    }
    let step = store.snapshot().unwrap().step(
        &Bound::Unbounded,
        &Bound::Unbounded,
        ScanLimit { rows: usize::MAX, bytes: usize::MAX },
    );
    let step = step.unwrap();
    assert!(step.unreadable.is_empty() && step.rows.len() == ROWS);
    assert!(step.rows.iter().enumerate().all(|(row, (_, found))| found == &value(row)));
}

/// The files that have the canary in the clear.
fn in_the_clear(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(in_the_clear(&path));
        } else if std::fs::read(&path).unwrap().windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Maintenance until no row is left under an older key.
fn reseal(store: &ShardStore) -> SealedRows {
    while store.maintenance().run().unwrap().more {}
    let sealed = store.sealed_rows().unwrap();
    assert!(sealed.older.is_empty() && !sealed.plain && sealed.tables == 0, "{sealed:?}");
    sealed
}

#[test]
fn no_file_has_a_value_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    for (name, keys) in [("plain", None), ("sealed", keys(1, &[]))] {
        let dir = dir.path().join(name);
        let mut store = open(&dir, Start::FIRST, keys.clone());
        let looked = |when: &str| {
            let found = in_the_clear(&dir);
            match keys {
                // What is looked for is found where it may be.
                None => assert!(!found.is_empty(), "{when}"),
                Some(_) => assert_eq!(found, Vec::<String>::new(), "{when}"),
            }
        };
        store.write(put(Space::Objects, "0000", &value(0))).unwrap();
        store.commit().unwrap();
        looked("in the journal");
        fill(&mut store);
        assert!(store.stats().flushes > 1 && store.stats().compactions > 0, "{:?}", store.stats());
        looked("in the tree");
        drop(store);
        looked("after the end of the process");
        let store = open(&dir, Start::KILLED, keys.clone());
        has_all(&store);
        looked("after the next start");
        store.close().unwrap();
        has_all(&open(&dir, Start::CLEAN, keys.clone()));
        looked("after a clean stop");
    }
}

#[test]
fn encryption_is_turned_on_the_key_is_replaced_and_it_is_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open(dir, Start::FIRST, None);
    fill(&mut store);
    store.close().unwrap();
    assert!(!in_the_clear(dir).is_empty());

    let store = open(dir, Start::CLEAN, keys(1, &[]));
    let before = store.sealed_rows().unwrap();
    assert!(before.plain && before.used == Some(key(1).id()) && before.tables > 1 && before.bytes > 100_000);
    has_all(&store);
    // Killed in between: the next start begins anew, and nothing is lost.
    store.maintenance().run().unwrap();
    drop(store);
    let store = open(dir, Start::KILLED, keys(1, &[]));
    has_all(&store);
    reseal(&store);
    has_all(&store);
    assert_eq!(in_the_clear(dir), Vec::<String>::new());
    drop(store);
    has_all(&open(dir, Start::KILLED, keys(1, &[])));

    let refused = |keys: Option<Keys>, missing: u8| match try_open(dir, Start::KILLED, keys) {
        Err(OpenError::KeyMissing { key: named, .. }) => assert_eq!(named, key(missing).id()),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opens without its key"),
    };
    refused(None, 1);
    refused(keys(2, &[]), 1);
    has_all(&open(dir, Start::KILLED, keys(1, &[])));

    let mut store = open(dir, Start::KILLED, keys(2, &[1]));
    assert_eq!(store.sealed_rows().unwrap().older, [key(1).id()]);
    // A read of before is remembered, and so is a write.
    has_all(&store);
    let other = copy_of(dir);
    store.write(put(Space::Objects, "0000", &value(0))).unwrap();
    store.commit().unwrap();
    while store.sealed_rows().unwrap().tables > 1 {
        refused_copy(&other, dir);
        assert!(store.maintenance().run().unwrap().more);
        has_all(&store);
    }
    reseal(&store);
    has_all(&store);
    drop(store);
    refused(keys(1, &[]), 2);
    has_all(&open(dir, Start::KILLED, keys(2, &[])));

    let off = || Some(Keys::to_read([key(2)]));
    let store = open(dir, Start::KILLED, off());
    has_all(&store);
    assert_eq!(reseal(&store).used, None);
    has_all(&store);
    drop(store);
    has_all(&open(dir, Start::KILLED, None));
    assert!(!in_the_clear(dir).is_empty());
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    std::fs::remove_dir(other.path()).unwrap();
    copy(dir, other.path());
    other
}

/// While rows are written anew the older key is needed. A copy is looked at: the directory is locked.
fn refused_copy(other: &tempfile::TempDir, dir: &Path) {
    for name in ["keys", "keys.copy"] {
        std::fs::copy(dir.join(name), other.path().join(name)).unwrap();
    }
    let refused = try_open(other.path(), Start::KILLED, keys(2, &[]));
    assert!(matches!(refused, Err(OpenError::KeyMissing { .. })));
}

#[test]
fn rows_that_wait_in_the_journal_for_want_of_room_are_written_anew_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), Start::FIRST, None);
    fill(&mut store);
    store.write(put(Space::Objects, "0000", &value(0))).unwrap();
    store.commit().unwrap();
    store.close().unwrap();
    // Below its floor of free space a start flushes nothing.
    let options = Options { keys: keys(1, &[]).map(Arc::new), free_space_floor: u64::MAX / 4, ..small() };
    let (mut store, _) = ShardStore::open(dir.path(), options, Arc::new(OsDisk), &Start::CLEAN).unwrap();
    has_all(&store);
    let in_the_journal = || in_the_clear(&dir.path().join("journal"));
    assert!(store.sealed_rows().unwrap().plain && !in_the_journal().is_empty());
    // Maintenance asks for the memtable, the shard seals it at its next turn, and the flush retires the segments.
    while store.maintenance().run().unwrap().more {}
    assert!(!in_the_journal().is_empty());
    store.commit().unwrap();
    assert!(store.maintenance().run().unwrap().flushed);
    assert_eq!(in_the_journal(), Vec::<String>::new());
    has_all(&store);
    drop(store);
    let store = open(dir.path(), Start::KILLED, keys(1, &[]));
    reseal(&store);
    has_all(&store);
    assert_eq!(in_the_clear(dir.path()), Vec::<String>::new());
}

/// Changes a committed record that no sync covers, and makes its checksum and its chain right again: what whoever can
/// write the disk may do, and no bad sector does.
fn forge(dir: &Path, change: impl FnOnce(&mut [u8])) {
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    edit(segments(dir).first().unwrap(), |segment| {
        // Behind both slots and the header.
        let (chain, at) = (word(segment, FRONT + 24), FRONT + 48 + word(segment, FRONT + 32) as usize);
        let length = u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
        let record = &mut segment[at..at + 24 + length];
        change(&mut record[24..]);
        let index = word(record, 8);
        let chain = xxh3_64_with_seed(&record[24..], chain ^ index.rotate_left(32));
        record[16..24].copy_from_slice(&chain.to_le_bytes());
        let check = crc(&[&record[..4], &record[8..]].concat());
        record[4..8].copy_from_slice(&check.to_le_bytes());
    });
}

/// Where sealed rows begin.
fn sealed(payload: &[u8]) -> Vec<usize> {
    let head = [&[0xff, 1][..], &key(1).id().0.to_be_bytes()].concat();
    payload.windows(head.len()).enumerate().filter(|(_, bytes)| *bytes == head).map(|(at, _)| at).collect()
}

#[test]
fn altered_and_swapped_rows_are_damaged_and_never_absent() {
    type Forge = fn(&mut [u8]);
    // What sealing adds to the three bytes.
    const LENGTH: usize = 3 + 46;
    let flip = |payload: &mut [u8]| {
        let at = sealed(payload)[0];
        payload[at + LENGTH - 20] ^= 1;
    };
    let swap = |payload: &mut [u8]| {
        let (one, two) = (sealed(payload)[0], *sealed(payload).last().unwrap());
        let (front, back) = payload.split_at_mut(two);
        front[one..one + LENGTH].swap_with_slice(&mut back[..LENGTH]);
    };
    let cases: [(Forge, &[&str]); 2] = [(flip, &["a"]), (swap, &["a", "b"])];
    for (forged, damaged) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), Start::FIRST, keys(1, &[]));
        let mut change = Change::default();
        change.put(Space::Objects, "a", "one").put(Space::Objects, "b", "two").put(Space::Pinned, "c", "in the clear");
        store.write(change).unwrap();
        store.commit().unwrap();
        drop(store);
        forge(dir.path(), forged);
        let mut store = open(dir.path(), Start::KILLED, keys(1, &[]));
        assert_eq!(get(&store, Space::Pinned, "c").as_deref(), Some("in the clear"));
        let mut visited = Vec::new();
        let mut visit = |key: &[u8], _| {
            visited.push(String::from_utf8(key.to_vec()).unwrap());
            std::ops::ControlFlow::Continue(())
        };
        let scanned = store.scan(Space::Objects, b"", None, &mut visit);
        assert!(matches!(scanned, Err(StoreFault::Damaged(_))), "{scanned:?}");
        let limit = ScanLimit { rows: 10, bytes: 1000 };
        let step = store.snapshot().unwrap().step(&Bound::Unbounded, &Bound::Unbounded, limit).unwrap();
        assert_eq!(step.rows.len() + damaged.len(), 2);
        assert!(
            step.unreadable.len() == damaged.len() && step.unreadable.iter().all(|range| range.lost_upto.is_none())
        );
        for key in ["a", "b"] {
            let found = store.get(Space::Objects, key.as_bytes());
            if damaged.contains(&key) {
                assert!(matches!(found, Err(StoreFault::Damaged(_))), "{key}: {found:?}");
                assert!(!visited.contains(&key.to_owned()));
            } else {
                assert!(found.unwrap().is_some() && visited.contains(&key.to_owned()));
            }
        }
        // Nothing is wrong with the table, and a row that does not open keeps no key in use.
        while store.maintenance().run().unwrap().more {}
        drop(store);
        store = open(dir.path(), Start::KILLED, keys(2, &[1]));
        reseal(&store);
        assert!(matches!(store.get(Space::Objects, b"a"), Err(StoreFault::Damaged(_))), "with both keys");
        drop(store);
        store = open(dir.path(), Start::KILLED, keys(2, &[]));
        assert!(matches!(store.get(Space::Objects, b"a"), Err(StoreFault::Damaged(_))), "without its own");
        store.write(put(Space::Objects, "a", "again")).unwrap();
        assert_eq!(get(&store, Space::Objects, "a").as_deref(), Some("again"), "a write heals it");
    }
}

#[test]
fn a_directory_says_which_keys_it_needs_and_older_releases_refuse_it() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 2 };
    let check = |keys: Option<Keys>| DataDir::check_keys(dir.path(), 2, &OsDisk, keys.as_ref());
    let format = || std::fs::read_to_string(dir.path().join("VERSION")).unwrap().lines().nth(1).unwrap().to_owned();
    let (data, start) = DataDir::open(dir.path(), identity).unwrap();
    let shard = |index: u16, start: &Start, keys: Option<Keys>| {
        let options = Options { keys: keys.map(Arc::new), ..small() };
        drop(ShardStore::open(data.shard_dir(index), options, Arc::new(OsDisk), start).unwrap());
    };
    shard(0, &start, None);
    shard(1, &start, None);
    data.note_encrypted(false).unwrap();
    assert!(format() == "format 3" && check(None).is_ok() && check(keys(1, &[])).is_ok());
    shard(0, &Start::KILLED, keys(1, &[]));
    assert!(matches!(check(None), Err(OpenError::KeyMissing { .. })), "one shard is enough");
    shard(1, &Start::KILLED, keys(1, &[]));
    data.note_encrypted(true).unwrap();
    assert_eq!(format(), format!("format {FORMAT_VERSION}"));
    assert!(check(keys(1, &[])).is_ok() && check(keys(2, &[1])).is_ok());
    let refused = check(keys(2, &[])).unwrap_err().to_string();
    assert!(refused.contains(&key(1).id().to_string()) && refused.contains("[encryption]"), "{refused}");
    drop(data);
    drop(DataDir::open(dir.path(), identity).unwrap());
    // One copy of the list is enough. With none, what is missing is not taken for what never was.
    let list = dir.path().join("shard-001/keys");
    std::fs::remove_file(&list).unwrap();
    assert!(check(keys(1, &[])).is_ok() && check(None).is_err());
    std::fs::remove_file(list.with_extension("copy")).unwrap();
    let refused = check(keys(1, &[]));
    assert!(matches!(refused, Err(OpenError::File(FileError::Damaged { .. }))), "{refused:?}");
}

/// A recording in which every start has another key, cut wherever the store makes a call.
#[test]
fn a_crash_at_any_call_while_keys_are_replaced_takes_nothing() {
    let test = "a_crash_at_any_call_while_keys_are_replaced_takes_nothing";
    campaign(test, 0..2, |seed, cuts| {
        let recording = Recording::with_keys(seed);
        assert!(recording.resealed > 3, "keys were replaced {} times", recording.resealed);
        let mut walk = recording.walk();
        while let Some(next) = walk.next_moment() {
            let loss = if walk.opened { Loss::None } else { Loss::Allowed };
            let survivals = [Survival::Everything, Survival::Nothing, Survival::Sectors(SECTOR)];
            let survival = survivals[walk.place % survivals.len()];
            let mut trees = vec![Arc::clone(&walk.tree)];
            if let DiskEvent::Tree(after) = next {
                trees.extend(walk.tree.on_the_way_to(after).into_iter().map(Arc::new));
            }
            for tree in trees {
                let mut image = walk.machine.crash(survival, &mut Random::new(seed, walk.place as u64)).image;
                image.reboot();
                let end = walk.model.synced()..=walk.model.made();
                let expected = Expected { model: &walk.model, end, loss, same_boot: false };
                cuts.cut(walk.place, &format_args!("{survival:?} survives"), image, &tree, &expected);
            }
            walk.pass();
        }
    });
}
