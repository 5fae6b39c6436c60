//! The order in which things become durable, one rule at a time: what must be on the disk before what.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;

use rejoin_core::port::{Space, Store};
use rejoin_test_store::{DiskEvent, Fault, Image, Machine, MemoryDisk, Node, Random, SHARD, Survival, put, scratch};

/// Everything that was not synced is gone, and the machine is started again.
fn cut_the_power(machine: &Machine, root: &Path) -> MemoryDisk {
    let mut image = machine.crash(Survival::Nothing, &mut Random::new(0, 0)).image;
    image.reboot();
    MemoryDisk::new(root, &image)
}

fn fail_the_next_call(disk: &MemoryDisk) {
    let calls = disk.calls();
    disk.break_down(Fault { calls: calls..calls + 1, kind: std::io::ErrorKind::Other, room: None });
}

fn write(node: &mut Node, key: &str, value: &str) {
    node.store.write(put(Space::Objects, key, value)).unwrap();
    node.store.commit().unwrap();
}

fn value(node: &Node, key: &str) -> Option<String> {
    node.store.get(Space::Objects, key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_new_segments_header_is_durable_before_the_mark_names_it() {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let mut node = Node::open(root.path(), &disk).unwrap();
    let maintenance = node.store.maintenance();
    let mut number = 0;
    let mut fill = |node: &mut Node, until: &dyn Fn(u64) -> bool| {
        while !until(node.store.stats().memtable_bytes) {
            write(node, &format!("key {number}"), &"v".repeat(700));
            node.store.syncer().sync().unwrap();
            number += 1;
        }
    };
    // A first memtable is sealed and waits for its flush, so a second one grows past its share, all of it synced.
    fill(&mut node, &|bytes| bytes > 700);
    fill(&mut node, &|bytes| bytes == 0);
    fill(&mut node, &|bytes| bytes > 8000);
    assert!(maintenance.run().unwrap().flushed);
    // A commit of nothing seals it now: all that is unsynced is the header of the segment that is begun for it. The
    // flush then makes the mark name that segment as the first that is needed.
    node.store.commit().unwrap();
    assert_eq!(node.store.stats().memtable_bytes, 0);
    assert!(maintenance.run().unwrap().flushed);
    drop((node, maintenance));
    let disk = cut_the_power(&disk.machine(), root.path());
    let node = Node::open(root.path(), &disk).unwrap();
    assert_eq!(node.recovery.lost, Vec::<String>::new());
    assert_eq!(node.rows().unwrap().len(), number);
}

#[test]
fn replayed_records_are_durable_before_the_tree_has_their_rows() {
    ends_in_the_middle_of_a_start(false);
}

#[test]
fn replayed_records_are_written_anew_before_the_tree_has_their_rows() {
    ends_in_the_middle_of_a_start(true);
}

/// A process has ended, by a signal or because a sync has failed; and while the next one starts, the power fails.
fn ends_in_the_middle_of_a_start(failed_sync: bool) {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default()).watching(&root.path().join(SHARD).join("tree"));
    let mut node = Node::open(root.path(), &disk).unwrap();
    write(&mut node, "key", "old");
    node.store.syncer().sync().unwrap();
    write(&mut node, "key", "new");
    write(&mut node, "other", "new");
    if failed_sync {
        fail_the_next_call(&disk);
        node.store.syncer().sync().unwrap_err();
    }
    drop((node, disk.seen()));
    // The next start finds both changes in the journal and puts them into the tree.
    let mut machine = disk.machine();
    drop(Node::open(root.path(), &disk).unwrap());
    let seen = disk.seen();
    let flushed = seen.iter().rposition(|seen| matches!(seen, DiskEvent::Tree(_))).expect("a flush");
    let (before, DiskEvent::Tree(tree)) = (&seen[..flushed], &seen[flushed]) else { panic!("a flush") };
    for seen in before {
        if let DiskEvent::Call(call) = seen {
            machine.apply(call);
        }
    }
    // The power fails right behind that.
    let root = scratch();
    tree.write(&root.path().join(SHARD).join("tree"));
    let node = Node::open(root.path(), &cut_the_power(&machine, root.path())).unwrap();
    assert_eq!(node.recovery.lost, Vec::<String>::new());
    assert_eq!((value(&node, "key").as_deref(), value(&node, "other").as_deref()), (Some("new"), Some("new")));
}

/// A mark that is written and not synced vouches for the last sync as long as the machine goes on. A start that flushes
/// what that sync has covered makes it durable, so that no later one cuts what the tree has.
#[test]
fn the_mark_is_durable_before_the_tree_has_what_a_start_replays() {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default()).watching(&root.path().join(SHARD).join("tree"));
    let mut node = Node::open(root.path(), &disk).unwrap();
    node.data.settle().unwrap();
    for key in ["key", "other"] {
        write(&mut node, key, "new");
        node.store.syncer().sync().unwrap();
    }
    drop((node, disk.seen()));
    let mut machine = disk.machine();
    drop(Node::open(root.path(), &disk).unwrap());
    let seen = disk.seen();
    let flushed = seen.iter().rposition(|seen| matches!(seen, DiskEvent::Tree(_))).expect("a flush");
    for seen in &seen[..flushed] {
        if let DiskEvent::Call(call) = seen {
            machine.apply(call);
        }
    }
    // The power fails, and the record of the last sync is gone.
    let mut image = machine.crash(Survival::Nothing, &mut Random::new(0, 0)).image;
    image.reboot();
    let mut found = 0;
    for content in image.files.iter_mut().filter(|(name, _)| name.ends_with(".seg")).map(|(_, content)| content) {
        if let Some(key) = content.written().windows(5).position(|bytes| bytes == b"other") {
            content.edit()[key - 34..].fill(0);
            found += 1;
        }
    }
    assert_eq!(found, 1);
    let root = scratch();
    let DiskEvent::Tree(tree) = &seen[flushed] else { panic!("a flush") };
    tree.write(&root.path().join(SHARD).join("tree"));
    let node = Node::open(root.path(), &MemoryDisk::new(root.path(), &image)).unwrap();
    assert!(!node.recovery.lost.is_empty());
}

#[test]
fn a_failed_sync_does_not_become_a_success_by_a_restart() {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let mut node = Node::open(root.path(), &disk).unwrap();
    write(&mut node, "synced", "before");
    node.store.syncer().sync().unwrap();
    write(&mut node, "in doubt", "since the sync failed");
    fail_the_next_call(&disk);
    node.store.syncer().sync().unwrap_err();
    drop(node);
    // The page cache still has it, so the next process finds it; from then on it must survive a loss of power.
    let node = Node::open(root.path(), &disk).unwrap();
    assert_eq!(value(&node, "in doubt").as_deref(), Some("since the sync failed"));
    drop(node);
    let node = Node::open(root.path(), &cut_the_power(&disk.machine(), root.path())).unwrap();
    assert_eq!(node.recovery.lost, Vec::<String>::new());
    assert_eq!(value(&node, "in doubt").as_deref(), Some("since the sync failed"));
}
