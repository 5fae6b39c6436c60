//! The tree's own file calls fail: each of them, once or for a while, with no room, no descriptor, a failed write, or
//! an unreadable block; and the power fails at each, so that what the tree has not synced is gone.
//!
//! The tree calls the operating system by itself, through the C library. This binary defines the library's functions
//! that it uses, which needs unsafe code: they count the calls that are about the tree's files, fail the one that is to
//! fail, and pass all others to the kernel.
#![allow(unsafe_code, reason = "functions of the C library are defined here")]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod calls;

use std::path::{Path, PathBuf};

use calls::{Kind, Plan, Trigger};
use rustix::io::Errno;

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_test_store::{
    Attempt, Expected, Image, Loss, MemoryDisk, Node, Random, SHARD, Step, Survival, Tree, passes, put, verify,
};

/// Steps of a script of which every call of the tree fails once, each in a run of its own.
const STEPS: u64 = 90;
/// Scripts of each kind of fault; `REJOIN_STORE_SEEDS=A..B` runs others.
const SEEDS: std::ops::Range<u64> = 0..2;

/// All rows are read that the model knows; what cannot be read is said. Returns how many are damaged.
fn read_all(attempt: &Attempt<'_>) -> usize {
    damaged_keys(attempt).len()
}

/// The keys that read as damaged. All others read as what they are.
fn damaged_keys(attempt: &Attempt<'_>) -> Vec<bytes::Bytes> {
    let node = attempt.node.as_ref().unwrap();
    let right = attempt.model.rows_after(attempt.model.made());
    let unread = |(space, key): &(Space, bytes::Bytes)| match node.store.get(*space, key) {
        Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => true,
        found => {
            assert_eq!(found.unwrap().as_ref(), right.get(&(*space, key.clone())), "{key:?}");
            false
        }
    };
    attempt.model.keys().filter(|key| unread(key)).map(|(_, key)| key.clone()).collect()
}

/// Does the script of a seed. A store that has failed is closed.
fn run(root: &Path, seed: u64) -> Attempt<'_> {
    let mut attempt = Attempt::new(root, seed, STEPS, |_| {});
    attempt.node.take_if(|_| attempt.failed.is_some());
    attempt
}

fn tree(root: &Path) -> PathBuf {
    root.join(SHARD).join("tree")
}

/// Runs the script of each seed once for every call of the tree of these kinds.
fn each_call(test: &str, kinds: &[Kind], trigger: impl Fn(u64) -> Trigger, after: impl Fn(&mut Attempt<'_>, u64)) {
    let _alone = calls::alone();
    let seeds = std::env::var("REJOIN_STORE_SEEDS").map_or(SEEDS, |seeds| {
        let (from, to) = seeds.split_once("..").unwrap();
        from.parse().unwrap()..to.parse().unwrap()
    });
    let mut cuts = 0;
    for seed in seeds.clone() {
        let root = rejoin_test_store::scratch();
        calls::arm(Plan::new(tree(root.path()), kinds, Trigger::Never));
        drop(run(root.path(), seed));
        let calls = calls::disarm().calls;
        for call in 0..calls {
            let root = rejoin_test_store::scratch();
            calls::arm(Plan::new(tree(root.path()), kinds, trigger(call)));
            let mut attempt = run(root.path(), seed);
            after(&mut attempt, call);
            calls::disarm();
            cuts += 1;
        }
    }
    // The script of a seed may end early, but not those of all.
    assert!(cuts > 10 * (seeds.end - seeds.start), "{cuts} calls");
    eprintln!("{test}: {cuts} runs, each with another call of the tree that failed; nothing wrong, nothing silent");
}

/// Whatever has happened: the process ends, and all that was heard of is found by the next one.
fn nothing_is_lost(attempt: &mut Attempt<'_>, call: u64) {
    calls::disarm();
    attempt.node = None;
    let image = attempt.disk.machine().crash(Survival::Everything, &mut Random::new(0, 0)).image;
    let end = attempt.model.heard()..=attempt.model.made();
    let loss = if attempt.model.made() == 0 { Loss::Allowed } else { Loss::None };
    let expected = Expected { model: &attempt.model, end, loss, same_boot: true };
    let fresh = rejoin_test_store::scratch();
    let found = verify(fresh.path(), &image, &Tree::read(&tree(attempt.root)), &expected);
    assert!(found.is_ok(), "call {call}: {found:?}");
}

/// What has passed is over: the store goes on by itself, and nothing stays behind in its directory.
fn goes_on(attempt: &mut Attempt<'_>, call: u64) {
    calls::disarm();
    assert_eq!(attempt.failed, None, "call {call}: what passes has stopped the store");
    if attempt.node.is_none() {
        attempt.model.kill();
        assert!(attempt.open().is_ok(), "call {call}: it does not start again");
    }
    let node = attempt.node.as_mut().unwrap();
    // A store that is behind its flushes takes no write before the batch is committed.
    attempt.model.commit(node.store.commit().unwrap_or_else(|fault| panic!("call {call}: {fault}")).0);
    while node.store.maintenance().run().unwrap_or_else(|fault| panic!("call {call}: {fault}")).more {}
    let change = put(Space::Objects, "object 00", "written after it");
    node.store.write(change.clone()).unwrap_or_else(|fault| panic!("call {call}: {fault}"));
    attempt.model.write(change.rows);
    attempt.model.commit(node.store.commit().unwrap().0);
    attempt.model.sync(node.store.syncer().sync().unwrap().0);
    assert_eq!(read_all(attempt), 0, "call {call}");
    let node = attempt.node.as_mut().unwrap();
    assert_eq!(node.store.problems(), Vec::<String>::new(), "call {call}");
    let tables = std::fs::read_dir(tree(attempt.root).join("tables")).unwrap().count();
    assert!(tables <= 8, "call {call}: {tables} tables");
    nothing_is_lost(attempt, call);
}

#[test]
fn any_call_of_the_tree_finds_no_room_once() {
    let once = |call| Trigger::Once(call, Errno::NOSPC);
    each_call("any_call_of_the_tree_finds_no_room_once", &[Kind::Create, Kind::Write], once, goes_on);
}

#[test]
fn there_is_no_room_from_any_call_of_the_tree_on_and_then_there_is() {
    let on = |call| Trigger::From(call, Errno::NOSPC);
    each_call(
        "there_is_no_room_from_any_call_of_the_tree_on_and_then_there_is",
        &[Kind::Create, Kind::Write],
        on,
        goes_on,
    );
}

#[test]
fn any_call_of_the_tree_finds_no_descriptor_once() {
    let once = |call| Trigger::Once(call, Errno::MFILE);
    each_call("any_call_of_the_tree_finds_no_descriptor_once", &[Kind::Create, Kind::Open], once, goes_on);
}

#[test]
fn there_is_no_descriptor_from_any_call_of_the_tree_on_and_then_there_are() {
    let on = |call| Trigger::From(call, Errno::MFILE);
    each_call(
        "there_is_no_descriptor_from_any_call_of_the_tree_on_and_then_there_are",
        &[Kind::Create, Kind::Open],
        on,
        goes_on,
    );
}

#[test]
fn any_write_or_sync_of_the_tree_fails_once() {
    let once = |call| Trigger::Once(call, Errno::IO);
    each_call(
        "any_write_or_sync_of_the_tree_fails_once",
        &[Kind::Write, Kind::Sync, Kind::Rename],
        once,
        nothing_is_lost,
    );
}

/// A path that fails for a moment is no damage, and no reason to stop.
#[test]
fn any_read_of_the_tree_fails_once() {
    let once = |call| Trigger::Once(call, Errno::IO);
    each_call("any_read_of_the_tree_fails_once", &[Kind::Read], once, goes_on);
}

/// While a damaged table is taken out of the tree there is no descriptor, at any call of that. No more is lost than the
/// block.
#[test]
fn there_is_no_descriptor_while_a_damaged_table_is_taken_out() {
    let _alone = calls::alone();
    let lost = |table: usize, call: Option<u64>| {
        let root = rejoin_test_store::scratch();
        let mut attempt = run(root.path(), 0);
        let trigger = call.map_or(Trigger::Never, |call| Trigger::Once(call, Errno::MFILE));
        let mut plan = Plan::new(tree(root.path()), &[Kind::Create, Kind::Open], trigger);
        // A new process has nothing open and nothing in its cache.
        attempt.node = None;
        attempt.model.kill();
        assert!(attempt.open().is_ok());
        let mut tables: Vec<_> =
            std::fs::read_dir(tree(root.path()).join("tables")).unwrap().map(|entry| entry.unwrap().path()).collect();
        tables.sort();
        plan.break_block(&tables[table], 0);
        calls::arm(plan);
        // A read may find no descriptor.
        let read = |(space, key): &(Space, bytes::Bytes)| attempt.node.as_ref().unwrap().store.get(*space, key);
        let is_damage = |fault| matches!(fault, StoreFault::Damaged(_) | StoreFault::Lost { .. });
        let met = attempt.model.keys().filter(|key| read(key).is_err_and(is_damage)).count();
        for _ in 0..3 {
            let done = attempt.node.as_ref().unwrap().store.maintenance().run();
            passes(done.map(drop)).unwrap_or_else(|stopped| panic!("call {call:?}: {stopped:?}"));
        }
        let calls = calls::calm_down();
        attempt.node = None;
        attempt.model.kill();
        assert!(attempt.open().is_ok(), "call {call:?}");
        let lost = damaged_keys(&attempt);
        calls::disarm();
        (met, lost, calls)
    };
    // Newer tables may have all keys of an older one.
    let (table, least, calls) = (0..)
        .find_map(|table| {
            let (met, least, calls) = lost(table, None);
            (met > 0).then_some((table, least, calls))
        })
        .unwrap();
    assert!(!least.is_empty() && calls > 8, "{least:?}, {calls} calls");
    for call in 0..calls {
        assert_eq!(lost(table, Some(call)).1, least, "call {call}");
    }
}

/// Writes until a memtable waits for its flush.
fn seal(node: &mut Node) {
    for number in 0.. {
        node.store.write(put(Space::Objects, &format!("object {number:02}"), &"v".repeat(900))).unwrap();
        node.store.commit().unwrap();
        if node.store.stats().memtable_bytes == 0 {
            return;
        }
    }
}

#[test]
fn a_flush_or_compaction_that_finds_no_room_leaves_nothing_behind() {
    let _alone = calls::alone();
    for call in 0.. {
        let root = rejoin_test_store::scratch();
        let disk = MemoryDisk::new(root.path(), &Image::default());
        let mut node = Node::open(root.path(), &disk).unwrap();
        // The flush of the last one makes a compaction due.
        for _ in 0..3 {
            seal(&mut node);
            node.store.maintenance().run().unwrap();
        }
        seal(&mut node);
        let path = tree(root.path());
        let files = || Tree::read(&path).files.into_keys().collect::<Vec<_>>();
        let (before, flushes) = (files(), node.store.stats().flushes);
        calls::arm(Plan::new(path.clone(), &[Kind::Create, Kind::Write], Trigger::From(call, Errno::NOSPC)));
        let done = node.store.maintenance().run();
        let calls = calls::disarm().calls;
        if calls <= call {
            assert!(done.is_ok() && call > 8, "{done:?}, {call} calls");
            return;
        }
        assert_eq!(done, Err(StoreFault::Full), "call {call}");
        // A flush that was done has one table more, and another version.
        let flushed = usize::from(node.store.stats().flushes > flushes);
        assert_eq!(files().len(), before.len() + flushed, "call {call}: {:?} after {before:?}", files());
    }
}

#[test]
fn what_has_failed_is_not_tried_again_at_once() {
    let _alone = calls::alone();
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let mut node = Node::open(root.path(), &disk).unwrap();
    seal(&mut node);
    calls::arm(Plan::new(tree(root.path()), &[Kind::Create], Trigger::From(0, Errno::MFILE)));
    let maintenance = node.store.maintenance();
    for _ in 0..3 {
        assert!(maintenance.turn().is_some_and(|pause| !pause.is_zero()));
        assert_eq!(node.store.stats().failures, 1);
    }
    calls::disarm();
    assert!(maintenance.run().unwrap().flushed, "who asks for it does not wait");
}

/// A block that cannot be read stays so until it is written anew. It costs its rows; the node runs on, starts, and
/// compacts what it has.
#[test]
fn any_block_of_the_tree_cannot_be_read_any_more() {
    each_call("any_block_of_the_tree_cannot_be_read_any_more", &[Kind::Read], Trigger::BadBlock, |attempt, call| {
        for start in 0..3 {
            if attempt.node.is_none() {
                attempt.model.kill();
                assert!(attempt.open().is_ok(), "call {call}: it does not start again at {start}");
            }
            read_all(attempt);
            let node = attempt.node.as_mut().unwrap();
            // Damage that was met is looked into.
            passes(node.store.maintenance().run().map(drop)).unwrap_or_else(|_| panic!("call {call}: it has stopped"));
            while node.store.maintenance().run().unwrap_or_else(|fault| panic!("call {call}: {fault}")).more {}
            attempt.node = None;
        }
        attempt.model.kill();
        assert!(attempt.open().is_ok());
        // Every row is written anew, and none is damaged any more.
        let keys: Vec<_> = attempt.model.keys().filter(|(space, _)| *space == Space::Objects).cloned().collect();
        for (_, key) in keys {
            let change = put(Space::Objects, std::str::from_utf8(&key).unwrap(), "written anew");
            assert!(attempt.step(Step::Write(change)).is_ok() && attempt.step(Step::Commit).is_ok(), "call {call}");
        }
        assert_eq!(read_all(attempt), 0, "call {call}");
    });
}

/// The power fails at any call of the tree: what the tree has not synced is gone, and so is what the journal has not.
#[test]
fn the_power_fails_at_any_call_of_the_tree() {
    let kinds = [Kind::Create, Kind::Write, Kind::Sync, Kind::Rename, Kind::Remove];
    each_call(
        "the_power_fails_at_any_call_of_the_tree",
        &kinds,
        |call| Trigger::From(call, Errno::IO),
        |attempt, call| {
            attempt.node = None;
            let plan = calls::disarm();
            plan.lose_what_is_not_synced();
            for survival in [Survival::Nothing, Survival::Everything] {
                let mut image = attempt.disk.machine().crash(survival, &mut Random::new(0, 0)).image;
                image.reboot();
                let end = attempt.model.synced()..=attempt.model.made();
                let loss = if attempt.model.made() == 0 { Loss::Allowed } else { Loss::None };
                let expected = Expected { model: &attempt.model, end, loss, same_boot: false };
                let fresh = rejoin_test_store::scratch();
                let found = verify(fresh.path(), &image, &Tree::read(&tree(attempt.root)), &expected);
                assert!(found.is_ok(), "call {call}, {survival:?}: {found:?}");
            }
        },
    );
}
