//! What says how far the journal was synced: the slots at the front of the open segment, and the mark beside it. A
//! crash, and then one damage of any kind: what a sync before the last one covered is there, or its loss is said; after
//! the end of a process, what the last one covered is, too.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

use rejoin_core::port::{Space, Store};
use rejoin_test_store::{
    Call, Content, Cursor, Cuts, DiskEvent, Expected, FRONT, Fault, Image, Loss, MemoryDisk, Node, Random, SECTOR,
    SHARD, Survival, Witness, campaign, copy, put, recording, scratch, used,
};

/// Seeds per kind of crash.
const SEEDS: u64 = 5;
/// One moment in so many is looked at, and one in so many of those at which everything is synced.
const ONE_IN: u64 = 50;
const ONE_SYNCED_IN: u64 = 8;
/// The bytes of a slot's block.
const SLOT: usize = FRONT / 2;

/// A crash, and what it leaves.
struct Crashed<'a> {
    walk: &'a Cursor<'a>,
    image: Image,
    end: RangeInclusive<u64>,
}

impl Crashed<'_> {
    fn cut(&self, cuts: &mut Cuts, what: &str, image: Image, end: RangeInclusive<u64>) {
        let expected = Expected { model: &self.walk.model, end, loss: Loss::Required, same_boot: false };
        cuts.cut(self.walk.place, &what, image, &self.walk.tree, &expected);
    }

    /// Damages a file.
    fn damage(&self, cuts: &mut Cuts, name: &str, what: &str, damage: impl FnOnce(&mut Content)) {
        let mut image = self.image.clone();
        damage(image.files.get_mut(name).unwrap());
        self.cut(cuts, &format!("{name}: {what}"), image, self.end.clone());
    }

    /// Every kind of damage, at places that are drawn.
    fn damages(&self, cuts: &mut Cuts, random: &mut Random) {
        let marks = self.image.files.keys().filter(|name| name.ends_with("/mark"));
        let newest = self.image.files.keys().filter(|name| name.ends_with(".seg")).rev().take(2);
        for name in marks.chain(newest) {
            let content = &self.image.files[name];
            let (length, mut gone) = (used(content.written()), self.image.clone());
            gone.files.remove(name);
            self.cut(cuts, &format!("{name} is gone"), gone, self.end.clone());
            self.damage(cuts, name, "is empty", |content| content.set_length(0));
            self.damage(cuts, name, "zeros", |content| content.edit().fill(0));
            for block in 0..FRONT / SLOT {
                let block = block * SLOT..((block + 1) * SLOT).min(content.written().len());
                self.damage(cuts, name, &format!("a slot of zeros at {}", block.start), |content| {
                    content.edit().get_mut(block.clone()).unwrap_or_default().fill(0);
                });
                self.damage(cuts, name, &format!("a slot of noise at {}", block.start), |content| {
                    random.fill(content.edit().get_mut(block).unwrap_or_default());
                });
            }
            for _ in 0..2 {
                if length <= FRONT {
                    break;
                }
                let from = FRONT + random.index(length - FRONT);
                self.damage(cuts, name, &format!("cut at {from}"), |content| content.set_length(from));
                self.damage(cuts, name, &format!("zeros from {from} on"), |content| content.edit()[from..].fill(0));
                for size in [SECTOR, SLOT] {
                    let lost = from / size * size..(from / size * size + size).min(length);
                    self.damage(cuts, name, &format!("zeros at {lost:?}"), |content| content.edit()[lost].fill(0));
                }
                let bit = 1 << random.below(8);
                self.damage(cuts, name, &format!("bit {bit:#x} of byte {from}"), |content| content.edit()[from] ^= bit);
            }
        }
    }

    /// Each file is what it was at an earlier crash.
    fn set_back(&self, cuts: &mut Cuts, earlier: &Image, end: RangeInclusive<u64>) {
        for (name, content) in earlier.files.iter().filter(|(name, _)| name.contains('/')) {
            let mut image = self.image.clone();
            image.files.insert(name.clone(), content.clone());
            self.cut(cuts, &format!("{name} as it was some time ago"), image, end.clone());
        }
    }
}

#[test]
fn damage_after_a_loss_of_power() {
    campaign("damage_after_a_loss_of_power", 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let (mut walk, mut witness, mut earlier) = (recording.walk(), Witness::default(), None::<Image>);
        while let Some(next) = walk.next_moment() {
            let random = &mut Random::new(seed, walk.place as u64);
            if walk.opened && random.one_in(ONE_IN) {
                let survivals = [Survival::Nothing, Survival::Sectors(SECTOR), Survival::Everything];
                let mut image = walk.machine.crash(survivals[random.index(3)], random).image;
                image.reboot();
                let end = walk.model.confirmed()..=walk.model.made();
                let crashed = Crashed { walk: &walk, image, end };
                crashed.damages(cuts, random);
                // A segment that is set back takes its slots along. What the mark has said at its last sync counts.
                let end = witness.synced.min(walk.model.confirmed())..=walk.model.made();
                if let Some(earlier) = &earlier {
                    crashed.set_back(cuts, earlier, end.clone());
                }
                earlier = Some(crashed.image);
            }
            witness.hear(&walk, next);
            walk.pass();
        }
    });
}

#[test]
fn damage_after_the_end_of_a_process() {
    campaign("damage_after_the_end_of_a_process", 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let (mut walk, mut earlier) = (recording.walk(), None::<Image>);
        while walk.next_moment().is_some() {
            let random = &mut Random::new(seed, walk.place as u64);
            // Others may know of what was only committed, and nobody could tell them.
            let is_synced = walk.model.synced() == walk.model.made() && !walk.is_starting();
            if walk.opened && is_synced && random.one_in(ONE_SYNCED_IN) {
                let image = walk.machine.crash(Survival::Everything, random).image;
                let end = walk.model.synced()..=walk.model.made();
                let crashed = Crashed { walk: &walk, image, end: end.clone() };
                crashed.damages(cuts, random);
                if let Some(earlier) = &earlier {
                    crashed.set_back(cuts, earlier, end.clone());
                }
                earlier = Some(crashed.image);
            }
            walk.pass();
        }
    });
}

/// Writes changes of one row each, and syncs each, until `enough`. Returns how many.
fn write(node: &mut Node, mut enough: impl FnMut(&Node) -> bool) -> usize {
    let mut number = node.rows().unwrap().len();
    while !enough(node) {
        let key = format!("object {number:04}");
        node.store.write(put(Space::Objects, &key, &"v".repeat(300))).unwrap();
        node.store.commit().unwrap();
        node.store.syncer().sync().unwrap();
        number += 1;
    }
    number
}

/// What a loss of power leaves, of which nothing survives that was not synced.
fn cut_the_power(disk: &MemoryDisk) -> Image {
    let mut image = disk.machine().crash(Survival::Nothing, &mut Random::new(0, 0)).image;
    image.reboot();
    image
}

/// Puts a tree in its place.
fn copy_tree(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|root| root.join(SHARD).join("tree"));
    copy(&from, &to);
}

/// A start on these files and the tree of another directory: the losses, and how many rows were found.
fn start(tree: &Path, image: &Image) -> (Vec<String>, usize) {
    let root = scratch();
    copy_tree(tree, root.path());
    let node = Node::open(root.path(), &MemoryDisk::new(root.path(), image)).unwrap();
    let rows = node.rows().unwrap().len();
    (node.recovery.lost, rows)
}

fn newest(image: &Image) -> String {
    image.files.keys().rfind(|name| name.ends_with(".seg")).unwrap().clone()
}

fn running(root: &Path) -> (MemoryDisk, Node) {
    let disk = MemoryDisk::new(root, &Image::default());
    let node = Node::open(root, &disk).unwrap();
    node.data.settle().unwrap();
    (disk, node)
}

/// The first sync in a segment is answered when the mark names it durably, and not before: a segment that is lost as a
/// whole takes its slots along.
#[test]
fn a_segment_that_is_gone_is_a_loss_from_its_first_answered_sync_on() {
    let root = scratch();
    let (disk, mut node) = running(root.path());
    let written = write(&mut node, |node| node.store.stats().segments == 2);
    for (more, there) in [(0, written), (1, written + 1), (2, written + 2)] {
        let written = write(&mut node, {
            let until = written + more;
            move |node| node.rows().unwrap().len() >= until
        });
        assert_eq!(written, there);
        let image = cut_the_power(&disk);
        assert_eq!(start(root.path(), &image), (vec![], there));
        let name = newest(&image);
        for damage in ["gone", "empty", "zeros"] {
            let mut image = image.clone();
            match damage {
                "gone" => drop(image.files.remove(&name)),
                "empty" => image.files.get_mut(&name).unwrap().set_length(0),
                _ => image.files.get_mut(&name).unwrap().edit().fill(0),
            }
            assert!(!start(root.path(), &image).0.is_empty(), "{name} is {damage} after {more} syncs");
        }
    }
}

/// Until the mark is synced, the last sync is in doubt after a power cut. An idle store and one that stops make it so.
#[test]
fn an_idle_store_and_a_clean_stop_vouch_for_the_last_sync_too() {
    for stops in [false, true] {
        let root = scratch();
        let (disk, mut node) = running(root.path());
        write(&mut node, |node| node.rows().unwrap().len() == 4);
        // Of the last record nothing is left.
        let without_the_last = |mut image: Image| {
            let content = image.files.get_mut(&newest(&image)).unwrap();
            let key = content.written().windows(11).position(|bytes| bytes == b"object 0003").unwrap();
            content.edit()[key - 34..].fill(0);
            start(root.path(), &image)
        };
        assert_eq!(without_the_last(cut_the_power(&disk)), (vec![], 3), "its sync need not have ended");
        if stops {
            node.store.close().unwrap();
        } else {
            let maintenance = node.store.maintenance();
            (0..3).for_each(|_| assert!(maintenance.turn().is_some()));
        }
        let (lost, rows) = without_the_last(cut_the_power(&disk));
        assert!(!lost.is_empty() && rows == 3, "{stops}: {lost:?}");
    }
}

/// Each start puts an end to what older slots say: they may name records that it has cut.
#[test]
fn a_slot_that_names_what_a_start_has_cut_does_not_count_at_the_next_one() {
    let root = scratch();
    let (disk, mut node) = running(root.path());
    let written = write(&mut node, |node| node.rows().unwrap().len() == 3);
    let platter = cut_the_power(&disk);
    write(&mut node, |node| node.rows().unwrap().len() == 4);
    // Of the last sync the slot arrives and the record does not.
    let (mut image, name) = (platter, newest(&cut_the_power(&disk)));
    let mut front = vec![0; FRONT];
    cut_the_power(&disk).files[&name].read(&mut front, 0);
    image.files.get_mut(&name).unwrap().write(&front, 0);
    assert_eq!(start(root.path(), &image), (vec![], written));
    // The start that cuts it ends at any of its calls. The next one goes by the boot that it finds, or by none.
    let mut calls = 0;
    loop {
        let other = scratch();
        copy_tree(root.path(), other.path());
        let disk = MemoryDisk::new(other.path(), &image);
        disk.break_down(Fault { calls: calls..u64::MAX, kind: ErrorKind::Other, room: None });
        let ended = match Node::open(other.path(), &disk) {
            Ok(node) => node.data.settle().is_err(),
            Err(_) => true,
        };
        disk.heal();
        for survival in [Survival::Everything, Survival::Nothing] {
            let image = disk.machine().crash(survival, &mut Random::new(0, 0)).image;
            assert_eq!(start(other.path(), &image), (vec![], written), "{calls} calls, {survival:?}");
        }
        if !ended {
            break;
        }
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
    // One that has room for a segment and none for a flush, and one that opens to be read, leave the old slots there.
    for room in [80 << 10, 16 << 10] {
        let other = scratch();
        copy_tree(root.path(), other.path());
        let disk = MemoryDisk::new(other.path(), &image);
        disk.break_down(Fault { calls: 0..u64::MAX, kind: ErrorKind::StorageFull, room: Some(room) });
        let node = Node::open(other.path(), &disk).unwrap();
        assert_eq!(node.recovery.read_only, room < 64 << 10);
        node.data.settle().unwrap();
        drop(node);
        disk.heal();
        let image = disk.machine().crash(Survival::Everything, &mut Random::new(0, 0)).image;
        assert!(image.files.contains_key(&name), "{name} is still needed");
        assert_eq!(start(other.path(), &image), (vec![], written), "{room} bytes of room");
    }
}

/// Slot, records, one sync: that is all that the disk has to do for a commit, but for the first in a segment.
#[test]
fn a_synced_commit_costs_one_sync() {
    let root = scratch();
    let disk = MemoryDisk::new(root.path(), &Image::default()).watching(&root.path().join(SHARD).join("tree"));
    let mut node = Node::open(root.path(), &disk).unwrap();
    drop(disk.seen());
    let syncs =
        |disk: &MemoryDisk| disk.seen().iter().filter(|seen| matches!(seen, DiskEvent::Call(Call::Sync(_)))).count();
    let mut found = Vec::new();
    let mut segments = Vec::new();
    for number in 0..12 {
        node.store.write(put(Space::Objects, &format!("{number}"), &"v".repeat(300))).unwrap();
        node.store.commit().unwrap();
        segments.push(node.store.stats().segments);
        node.store.syncer().sync().unwrap();
        found.push(syncs(&disk));
    }
    let is_new = |at: usize| at > 0 && segments[at] > segments[at - 1];
    assert!((0..12).any(is_new), "{segments:?}");
    for (at, syncs) in found.into_iter().enumerate() {
        // Both segments, and the mark.
        assert_eq!(syncs, if is_new(at) { 3 } else { 1 }, "sync {at}, segments {segments:?}");
    }
}
