//! What an empty node takes of its disk, who may enter its directory, and what a start and a stop need on a full one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_proto::id::{ClusterId, NodeId};
use rejoin_store::{DataDir, Identity, OpenError, Options, OsDisk, ShardStore};
use rejoin_test_store::{Fault, Image, MemoryDisk, Node, get, put};

const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 2 };

/// Bytes that the files below a directory take on the disk.
fn taken(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { taken(&entry.path()) } else { metadata.blocks() * 512 }
        })
        .sum()
}

fn open(root: &Path) -> (DataDir, Vec<ShardStore>) {
    let (data, start) = DataDir::open(root, IDENTITY).unwrap();
    let open = |index| ShardStore::open(data.shard_dir(index), Options::default(), Arc::new(OsDisk), &start).unwrap().0;
    let shards = (0..IDENTITY.shards).map(open).collect();
    (data, shards)
}

#[test]
fn an_empty_node_is_small_and_clean_restarts_do_not_make_it_larger() {
    let root = tempfile::tempdir().unwrap();
    let mut sizes = Vec::new();
    for _ in 0..12 {
        let (data, shards) = open(root.path());
        sizes.push(taken(root.path()));
        shards.into_iter().for_each(|shard| shard.close().unwrap());
        data.mark_clean().unwrap();
    }
    assert!(sizes.iter().all(|size| *size < 20 << 20), "{sizes:?}");
    let first = sizes[0];
    assert!(sizes.iter().all(|size| *size < first + (1 << 20)), "{sizes:?}");
}

#[test]
fn only_the_user_of_a_node_may_enter_its_directories() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("node");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&root));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for dir in ["", "control", "modules", "shard-000", "shard-001/journal", "shard-000/tree", "shard-000/tree/tables"] {
        assert_eq!(mode(&root.join(dir)), 0o700, "{dir}");
    }
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o1777)).unwrap();
    drop(open(&root));
    assert_eq!(mode(&root), 0o777, "a directory that is there for everybody is not taken from them");
}

/// The state file is written over, no segment is begun, and the ballast goes only if it is there.
#[test]
fn a_node_starts_on_a_disk_without_any_room_and_goes_on_when_there_is_some() {
    for clean in [true, false] {
        let root = rejoin_test_store::scratch();
        let disk = MemoryDisk::new(root.path(), &Image::default());
        let mut node = Node::open(root.path(), &disk).unwrap();
        node.store.write(put(Space::Objects, "key", "value")).unwrap();
        node.store.commit().unwrap();
        if clean {
            node.store.close().unwrap();
            node.data.mark_clean().unwrap();
        } else {
            drop(node);
        }
        disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) });
        let mut node = Node::open(root.path(), &disk).unwrap();
        assert_eq!(node.start.clean, clean);
        assert_eq!(
            (node.recovery.lost.clone(), node.recovery.read_only, node.store.stats().read_only),
            (vec![], true, true)
        );
        assert_eq!(get(&node.store, Space::Objects, "key").as_deref(), Some("value"));
        assert_eq!(node.store.write(put(Space::Objects, "key", "other")), Err(StoreFault::Full));
        node.store.commit().unwrap();
        node.store.syncer().sync().unwrap();
        let _ = node.store.maintenance().run();
        let problems = node.store.problems().join("\n");
        assert!(problems.contains("is full") && problems.contains(&root.path().display().to_string()), "{problems}");
        // A stop that never made the journal's end durable is not a clean one, unless the last was.
        assert_eq!(node.store.close().is_ok(), clean);
        drop(node.data);
        let mut node = Node::open(root.path(), &disk).unwrap();
        disk.heal();
        node.store.maintenance().run().unwrap();
        node.store.write(put(Space::Objects, "key", "other")).unwrap();
        node.store.commit().unwrap();
        node.store.syncer().sync().unwrap();
        assert_eq!((node.store.stats().read_only, node.store.problems()), (false, Vec::new()));
        drop(node);
        let node = Node::open(root.path(), &disk).unwrap();
        assert_eq!(
            (node.recovery.lost.clone(), get(&node.store, Space::Objects, "key").as_deref()),
            (vec![], Some("other"))
        );
    }
}

/// The end of an actor that a full disk did not take outlives a clean stop on that disk, until a start has settled.
#[test]
fn new_actors_that_are_owed_at_a_clean_stop_are_owed_at_the_next_start_also_without_any_room() {
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let open = || DataDir::open_on(root.path(), IDENTITY, Arc::new(disk.clone())).unwrap();
    let (data, _) = open();
    data.settle().unwrap();
    data.mark_clean().unwrap();
    for full in [true, false] {
        if full {
            disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) });
        }
        let (data, start) = open();
        assert!(start.clean && !start.unsynced_may_be_gone(), "{start:?}");
        data.settle().unwrap();
        data.owe_renewal().unwrap();
        data.mark_clean().unwrap();
        // Starts that do not settle leave it owed.
        for _ in 0..2 {
            let (data, start) = open();
            assert!(start.clean && start.unsynced_may_be_gone(), "{start:?}");
            data.mark_clean().unwrap();
        }
        disk.heal();
        let (data, start) = open();
        assert!(start.unsynced_may_be_gone(), "{start:?}");
        data.settle().unwrap();
        data.mark_clean().unwrap();
    }
    assert!(!open().1.unsynced_may_be_gone());
}

#[test]
fn the_first_start_on_a_full_disk_is_refused() {
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) });
    assert!(matches!(Node::open(root.path(), &disk).err().unwrap(), OpenError::File(_)));
}

#[test]
fn the_ballast_makes_room_for_a_start_and_comes_back() {
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let ballast = || {
        disk.machine().crash(rejoin_test_store::Survival::Everything, &mut rejoin_test_store::Random::new(0, 0)).image
    };
    let there = || ballast().files.contains_key("BALLAST");
    drop(Node::open(root.path(), &disk).unwrap());
    assert!(there());
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(70 << 10) });
    drop(Node::open(root.path(), &disk).unwrap());
    assert!(!there());
    disk.heal();
    drop(Node::open(root.path(), &disk).unwrap());
    assert!(there());
}
