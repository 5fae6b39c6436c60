//! A directory that two processes want, and one that is an old copy of itself.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rejoin_core::port::{Space, Store};
use rejoin_proto::id::{ClusterId, NodeId};
use rejoin_store::{DataDir, Identity, OpenError, OsDisk, ShardStore, Start};
use rejoin_test_store::{copy, edit, get, open, open_on, put, rows, sealed, small};

const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 1 };

/// What is in a directory, by name.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let read = |path: std::path::PathBuf| {
        if path.is_dir() { contents(&path) } else { vec![(path.display().to_string(), std::fs::read(path).unwrap())] }
    };
    all.into_iter().flat_map(read).collect()
}

#[test]
fn a_second_process_is_refused_and_has_changed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("shard");
    let mut first =
        Command::new(env!("CARGO_BIN_EXE_store-writer")).arg(&shard).arg("0").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    let heard = lines.next().unwrap().unwrap();
    assert!(matches!(open_on(&shard, Arc::new(OsDisk), Start::KILLED), Err(OpenError::InUse { .. })));
    let second =
        Command::new(env!("CARGO_BIN_EXE_store-writer")).arg(&shard).arg("1").stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success() && second.stdout.is_empty());
    assert!(String::from_utf8_lossy(&second.stderr).contains("InUse"), "{}", String::from_utf8_lossy(&second.stderr));
    // The first goes on as if nothing had been.
    let next = lines.next().unwrap().unwrap();
    assert_eq!((heard.split(' ').next(), next.split(' ').next()), (Some("4"), Some("9")));
    first.kill().unwrap();
    first.wait().unwrap();
    let (store, recovery) = open(&shard, Start::KILLED);
    assert_eq!(recovery.lost, Vec::<String>::new());
    assert!(!rows(&store, Space::Objects).is_empty());
}

#[test]
fn a_directory_in_use_is_refused_before_anything_in_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (data, start) = DataDir::open(dir.path(), IDENTITY).unwrap();
    let (mut store, _) = ShardStore::open(data.shard_dir(0), small(), Arc::new(OsDisk), &start).unwrap();
    store.write(put(Space::Objects, "key", "value")).unwrap();
    store.commit().unwrap();
    let before = contents(dir.path());
    assert!(matches!(DataDir::open(dir.path(), IDENTITY), Err(OpenError::InUse { .. })));
    assert!(matches!(open_on(&data.shard_dir(0), Arc::new(OsDisk), Start::KILLED), Err(OpenError::InUse { .. })));
    assert!(contents(dir.path()) == before, "the one that was refused has left something behind");
}

/// Writes up to a number, one row per change, and leaves the directory as the end of the process does.
fn run(dir: &Path, numbers: std::ops::Range<u32>) -> Start {
    let (data, start) = DataDir::open(dir, IDENTITY).unwrap();
    let (mut store, recovery) = ShardStore::open(data.shard_dir(0), small(), Arc::new(OsDisk), &start).unwrap();
    assert_eq!(recovery.lost, Vec::<String>::new());
    for number in numbers {
        let mut change = put(Space::Objects, &format!("{number:04}"), &format!("value {number} {}", "v".repeat(400)));
        change.put(Space::Pinned, "actor", number.to_string());
        store.write(change).unwrap();
        store.commit().unwrap();
        if number % 100 == 99 {
            store.syncer().sync().unwrap();
            while store.maintenance().run().unwrap().more {}
        }
    }
    store.syncer().sync().unwrap();
    start
}

/// It cannot be told from the disk that it has been further: it is whole, and that is all. Peers tell it at the
/// handshake. What can be told is that the machine was restarted, and then there are new actors.
#[test]
fn an_old_copy_serves_what_it_was_and_calls_for_new_actors_after_a_restart_of_the_machine() {
    let (root, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = root.path().join("node");
    run(&dir, 0..700);
    copy(&dir, old.path());
    run(&dir, 700..1500);
    for rebooted in [false, true] {
        std::fs::remove_dir_all(&dir).unwrap();
        copy(old.path(), &dir);
        if rebooted {
            edit(&dir.join("STATE"), |bytes| *bytes = sealed("boot another\nclean false\nrenewal_owed false\n"));
        }
        let (data, start) = DataDir::open(&dir, IDENTITY).unwrap();
        assert_eq!(start.unsynced_may_be_gone(), rebooted);
        let (store, recovery) = ShardStore::open(data.shard_dir(0), small(), Arc::new(OsDisk), &start).unwrap();
        assert_eq!(recovery.lost, Vec::<String>::new());
        let rows = rows(&store, Space::Objects);
        assert_eq!((rows.len(), get(&store, Space::Pinned, "actor").as_deref()), (700, Some("699")));
        assert!(rows.iter().enumerate().all(|(number, (key, value))| {
            *key == format!("{number:04}") && value.starts_with(&format!("value {number} v"))
        }));
    }
}

/// A directory of which a part is older than the rest, as a backup of a running node makes it, is not whole, and says
/// so.
#[test]
fn a_copy_whose_parts_are_of_different_ages_has_lost_something() {
    let (root, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = root.path().join("node");
    run(&dir, 0..700);
    copy(&dir, old.path());
    run(&dir, 700..1500);
    for part in ["journal", "mark", "tree"] {
        let mixed = tempfile::tempdir().unwrap();
        copy(&dir, mixed.path());
        let (from, to) = (old.path().join("shard-000").join(part), mixed.path().join("shard-000").join(part));
        if from.is_dir() {
            std::fs::remove_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
        let (data, start) = DataDir::open(mixed.path(), IDENTITY).unwrap();
        let (_, recovery) = ShardStore::open(data.shard_dir(0), small(), Arc::new(OsDisk), &start).unwrap();
        assert!(!recovery.lost.is_empty(), "an old {part}");
    }
}
