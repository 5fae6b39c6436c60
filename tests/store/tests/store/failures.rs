//! Disks that fail, fill up or lie, at every call of a script. A failure stops the store and is never made good in
//! silence; a full disk refuses and takes again; what a lying disk has lost is said where anything is left to say it
//! by.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_store::{Options, ShardStore, Start};
use rejoin_test_store::{
    Attempt, Call, Cursor, Cuts, DiskEvent, Expected, Fault, Image, Loss, MemoryDisk, Node, Random, SHARD, Survival,
    Tree, Witness, campaign, put, recording, rows, small,
};

/// Seeds per kind of failure.
const SEEDS: u64 = 3;
/// Steps of a script of which every call fails once, each in a run of its own.
const STEPS: u64 = 100;

/// What the end of the process, or a loss of power, leaves now.
fn verify(attempt: &Attempt<'_>, cuts: &mut Cuts, place: usize) {
    let tree = Arc::new(Tree::read(&attempt.root.join(SHARD).join("tree")));
    let machine = attempt.disk.machine();
    let mut verify = |survival, end: RangeInclusive<u64>, same_boot: bool| {
        let mut image = machine.crash(survival, &mut Random::new(0, 0)).image;
        if !same_boot {
            image.reboot();
        }
        // A directory whose first start has failed may be taken for one that has lost something.
        let loss = if attempt.model.made() == 0 { Loss::Allowed } else { Loss::None };
        let expected = Expected { model: &attempt.model, end, loss, same_boot };
        cuts.cut(place, &format_args!("call {place} has failed, and {survival:?} survives"), image, &tree, &expected);
    };
    verify(Survival::Everything, attempt.model.heard()..=attempt.model.made(), true);
    verify(Survival::Nothing, attempt.model.synced()..=attempt.model.made(), false);
}

/// Nothing works any more.
fn assert_poisoned(node: &mut Node) {
    let store = &mut node.store;
    assert!(matches!(store.commit(), Err(StoreFault::Failed(_))));
    assert!(matches!(store.syncer().sync(), Err(StoreFault::Failed(_))));
    assert!(matches!(store.write(put(Space::Objects, "a", "b")), Err(StoreFault::Failed(_))));
    assert!(matches!(store.get(Space::Objects, b"a"), Err(StoreFault::Failed(_))));
    assert!(matches!(store.maintenance().run(), Err(StoreFault::Failed(_))));
}

/// How many calls the script of a seed makes.
fn calls(seed: u64, cuts: &Cuts) -> u64 {
    let nothing = Fault { calls: 0..0, kind: ErrorKind::Other, room: None };
    let run = |root: &Path| Attempt::new(root, seed, STEPS, |disk| disk.break_down(nothing)).disk.calls();
    cuts.on_a_fresh_directory(0, &"no call fails", |root| Ok(run(root)))
}

fn each_call(test: &'static str, fault: impl Fn(u64) -> Fault + Sync, after: impl Fn(&mut Attempt<'_>) + Sync) {
    campaign(test, 0..SEEDS, |seed, cuts| {
        for call in 0..calls(seed, cuts) {
            let place = call as usize;
            if !cuts.wants(place) {
                continue;
            }
            let root = rejoin_test_store::scratch();
            let mut attempt = Attempt::new(root.path(), seed, STEPS, |disk| disk.break_down(fault(call)));
            if attempt.failed.is_some() {
                attempt.node.take().iter_mut().for_each(assert_poisoned);
            }
            attempt.disk.heal();
            after(&mut attempt);
            attempt.node = None;
            verify(&attempt, cuts, place);
        }
    });
}

#[test]
fn any_call_fails_once() {
    let fault = |call| Fault { calls: call..call + 1, kind: ErrorKind::Other, room: None };
    each_call("any_call_fails_once", fault, |_| {});
}

#[test]
fn any_call_finds_the_disk_full_once() {
    let fault = |call| Fault { calls: call..call + 1, kind: ErrorKind::StorageFull, room: None };
    each_call("any_call_finds_the_disk_full_once", fault, |_| {});
}

#[test]
fn the_disk_is_full_from_any_call_on_and_then_there_is_room_again() {
    let fault = |call| Fault { calls: call..u64::MAX, kind: ErrorKind::StorageFull, room: Some(0) };
    each_call("the_disk_is_full_from_any_call_on_and_then_there_is_room_again", fault, |attempt| {
        // What was refused for want of room is taken now; a node that could not start can.
        if let Some(node) = &mut attempt.node {
            while node.store.maintenance().run().unwrap().more {}
            let change = put(Space::Objects, "object 00", "taken again");
            node.store.write(change.clone()).unwrap();
            attempt.model.write(change.rows);
            attempt.model.commit(node.store.commit().unwrap().0);
            attempt.model.sync(node.store.syncer().sync().unwrap().0);
        }
    });
}

/// A segment that was begun with little room takes what fits and then refuses, like any other.
#[test]
fn a_store_that_started_with_little_room_refuses_what_does_not_fit() {
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(65 << 10) });
    let options = || Options { segment_bytes: 1 << 20, ..small() };
    let open = |start| ShardStore::open(root.path().join(SHARD), options(), Arc::new(disk.clone()), &start).unwrap();
    let (mut store, _) = open(Start::FIRST);
    let mut written = 0;
    let refused = loop {
        match store.write(put(Space::Objects, &format!("{written:04}"), &"v".repeat(1000))) {
            Ok(()) => written += 1,
            Err(fault) => break fault,
        }
        store.commit().unwrap();
    };
    assert_eq!((refused, store.stats().full), (StoreFault::Full, true));
    assert!((50..64).contains(&written), "{written}");
    drop(store);
    let (store, recovery) = open(Start::KILLED);
    assert_eq!((recovery.lost, rows(&store, Space::Objects).len()), (vec![], written));
}

#[test]
fn a_node_starts_on_a_disk_with_less_room_than_a_segment() {
    let root = rejoin_test_store::scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default());
    let mut node = Node::open(root.path(), &disk).unwrap();
    node.store.write(put(Space::Objects, "key", "value")).unwrap();
    node.store.commit().unwrap();
    drop(node);
    disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(65 << 10) });
    let mut node = Node::open(root.path(), &disk).unwrap();
    assert_eq!(node.recovery.lost, Vec::<String>::new());
    assert_eq!(node.rows().unwrap().len(), 1);
    node.store.maintenance().run().unwrap();
    assert_eq!(node.store.write(put(Space::Objects, "key", "other")), Err(StoreFault::Full));
    disk.heal();
    node.store.maintenance().run().unwrap();
    node.store.write(put(Space::Objects, "key", "other")).unwrap();
}

/// A disk that answers the syncs of some files without doing them; then the power fails.
fn lies(test: &'static str, about: fn(&str) -> bool, expected: fn(&Cursor<'_>, &Image) -> Option<Loss>) {
    campaign(test, 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let (mut walk, mut witness) = (recording.walk(), Witness::default());
        while let Some(next) = walk.next_moment() {
            for survival in [Survival::Nothing, Survival::WholeChanges] {
                let mut image = walk.machine.crash(survival, &mut Random::new(seed, walk.place as u64)).image;
                image.reboot();
                if let Some(loss) = expected(&walk, &image) {
                    // What was synced since then is named in the journal alone.
                    let end = witness.synced..=walk.model.made();
                    let expected = Expected { model: &walk.model, end, loss, same_boot: false };
                    cuts.cut(
                        walk.place,
                        &format_args!("{survival:?} survives of what was never synced"),
                        image,
                        &walk.tree,
                        &expected,
                    );
                }
            }
            witness.hear(&walk, next);
            walk.pass_unless(about);
        }
    });
}

/// All of them, so that segments have lost their slots too. What the mark has said at its last sync is there, or its
/// loss is said.
#[test]
fn syncs_that_lie_about_the_journal() {
    lies("syncs_that_lie_about_the_journal", |name| name.ends_with(".seg"), |_, _| Some(Loss::Required));
}

/// That looks like a power cut during the sync. What was synced before it is there, or its loss is said.
#[test]
fn a_last_sync_that_lies_about_the_journal() {
    campaign("a_last_sync_that_lies_about_the_journal", 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        while let Some(next) = walk.next_moment() {
            let is_segment = |file| walk.machine.name_of(file).ends_with(".seg");
            if matches!(next, DiskEvent::Call(Call::Sync(file)) if is_segment(*file)) {
                let mut machine = walk.machine.clone();
                let others =
                    |call: &&Call| !matches!(call, Call::Sync(file) if machine.name_of(*file).ends_with(".seg"));
                let calls: Vec<_> = walk.calls_ahead().filter(others).collect();
                calls.into_iter().for_each(|call| machine.apply(call));
                for survival in [Survival::Nothing, Survival::WholeChanges] {
                    let mut image = machine.crash(survival, &mut Random::new(seed, walk.place as u64)).image;
                    image.reboot();
                    let end = walk.model.synced()..=walk.model.made();
                    let expected = Expected { model: &walk.model, end, loss: Loss::Required, same_boot: false };
                    let what = format_args!("{survival:?} survives of what was not synced in truth");
                    cuts.cut(walk.place, &what, image, &walk.tree, &expected);
                }
            }
            walk.pass();
        }
    });
}

/// Nothing is left that could tell what was lost. No value is wrong, and after a loss of power there are new actors,
/// whatever is found; only a clean stop that lied too keeps the old ones, until the first peer objects.
#[test]
fn a_sync_that_lies_about_the_journal_and_the_mark() {
    let about = |name: &str| name.starts_with(SHARD);
    let expected = |_: &Cursor<'_>, image: &Image| {
        let state = image.files.get("STATE").map(|state| String::from_utf8_lossy(state.written()).into_owned());
        let clean = state.is_some_and(|state| state.contains("clean true"));
        (!clean).then_some(Loss::Undetectable)
    };
    lies("a_sync_that_lies_about_the_journal_and_the_mark", about, expected);
}
