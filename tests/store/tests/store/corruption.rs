//! Files that are damaged at rest. Everything in them was synced, so whatever is missing must be said: as a loss or as
//! a damaged row. What is read without a word is exactly what was there, and no damage of one file keeps a node from
//! starting.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::sync::Arc;

use rejoin_test_store::{
    Content, Cuts, DiskEvent, Expected, FRONT, Image, Loss, Machine, MemoryDisk, Model, Node, Outcome, Random, SECTOR,
    SHARD, Survival, Tree, campaign, recording, used, verify,
};

/// Seeds per kind of damage.
const SEEDS: u64 = 5;
/// Moments of each script at which the files are taken.
const MOMENTS: usize = 4;

/// All files of a directory in which everything is synced.
struct SyncedDir {
    place: usize,
    image: Image,
    tree: Arc<Tree>,
    model: Model,
}

/// Directories from all over a script.
fn at_rest(seed: u64) -> Vec<SyncedDir> {
    let recording = recording(seed);
    let mut walk = recording.walk();
    let mut found = Vec::new();
    while walk.next_moment().is_some() {
        if walk.opened && walk.model.synced() == walk.model.made() && !walk.is_starting() {
            found.push(walk.place);
        }
        walk.pass();
    }
    let chosen: Vec<_> = (1..=MOMENTS).map(|part| found[found.len() * part / MOMENTS - 1]).collect();
    let mut walk = recording.walk();
    let mut all = Vec::new();
    while walk.next_moment().is_some() {
        if chosen.contains(&walk.place) {
            let image = walk.machine.crash(Survival::Everything, &mut Random::new(seed, 0)).image;
            all.push(SyncedDir { place: walk.place, image, tree: Arc::clone(&walk.tree), model: walk.model.clone() });
        }
        walk.pass();
    }
    all
}

impl SyncedDir {
    fn expected(&self) -> Expected<'_> {
        let end = self.model.synced()..=self.model.made();
        Expected { model: &self.model, end, loss: Loss::Required, same_boot: false }
    }

    /// Damages one of the files beside the tree.
    fn damage(&self, cuts: &mut Cuts, name: &str, what: &str, damage: impl FnOnce(&mut Content)) {
        let mut image = self.image.clone();
        damage(image.files.get_mut(name).unwrap());
        cuts.cut(self.place, &format_args!("{name}: {what}"), image, &self.tree, &self.expected());
    }

    /// Damages one of the tree's files.
    fn damage_tree(&self, cuts: &mut Cuts, name: &str, what: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut tree = Tree::clone(&self.tree);
        let mut bytes = tree.files[name].to_vec();
        damage(&mut bytes);
        tree.files.insert(name.to_owned(), bytes.into());
        cuts.cut(
            self.place,
            &format_args!("tree/{name}: {what}"),
            self.image.clone(),
            &Arc::new(tree),
            &self.expected(),
        );
    }

    fn journal(&self) -> impl Iterator<Item = (&String, &Content)> {
        self.image.files.iter().filter(|(name, _)| name.ends_with(".seg"))
    }

    fn tree_files(&self, tables: bool) -> impl Iterator<Item = (&String, &Arc<[u8]>)> {
        self.tree.files.iter().filter(move |(name, _)| name.starts_with("tables/") == tables)
    }
}

/// Flips one bit in every so many bytes of what is there.
fn flips(seed: u64, place: usize, length: usize, step: u64) -> impl Iterator<Item = (usize, u8)> {
    let mut random = Random::new(seed, place as u64);
    let first = random.index(step as usize);
    (first..length).step_by(step as usize).map(move |at| (at, 1 << random.below(8)))
}

fn each(test: &'static str, damage: impl Fn(u64, &SyncedDir, &mut Cuts) + Sync) {
    campaign(test, 0..SEEDS, |seed, cuts| at_rest(seed).iter().for_each(|rest| damage(seed, rest, cuts)));
}

#[test]
fn a_flipped_bit_in_the_journal() {
    each("a_flipped_bit_in_the_journal", |seed, rest, cuts| {
        for (name, content) in rest.journal() {
            // Of the zeros ahead of the records a few are enough, and of those behind the slots.
            let length = content.written().len().min(used(content.written()) + 64);
            let in_slot = flips(seed, rest.place, FRONT, 1).filter(|(at, _)| content.written()[*at] != 0);
            let behind = flips(seed, rest.place, length, 5).filter(|(at, _)| *at >= FRONT || at % 512 == 0);
            for (at, bit) in in_slot.chain(behind) {
                rest.damage(cuts, name, &format!("bit {bit:#x} of byte {at}"), |content| content.edit()[at] ^= bit);
            }
        }
    });
}

#[test]
fn a_flipped_bit_in_the_mark() {
    each("a_flipped_bit_in_the_mark", |seed, rest, cuts| {
        for (name, content) in rest.image.files.iter().filter(|(name, _)| name.ends_with("/mark")) {
            let length = content.written().len();
            for (at, bit) in
                flips(seed, rest.place, length, 1).filter(|(at, _)| content.written()[*at] != 0 || at % 64 == 0)
            {
                rest.damage(cuts, name, &format!("bit {bit:#x} of byte {at}"), |content| content.edit()[at] ^= bit);
            }
        }
    });
}

#[test]
fn a_flipped_bit_in_the_version_or_the_state() {
    each("a_flipped_bit_in_the_version_or_the_state", |seed, rest, cuts| {
        for (name, content) in rest.image.files.iter().filter(|(name, _)| !name.contains('/')) {
            for (at, bit) in flips(seed, rest.place, content.written().len(), 1) {
                rest.damage(cuts, name, &format!("bit {bit:#x} of byte {at}"), |content| content.edit()[at] ^= bit);
            }
        }
    });
}

#[test]
fn a_flipped_bit_in_a_table_of_the_tree() {
    each("a_flipped_bit_in_a_table_of_the_tree", |seed, rest, cuts| {
        for (name, bytes) in rest.tree_files(true) {
            for (at, bit) in flips(seed, rest.place, bytes.len(), 37) {
                rest.damage_tree(cuts, name, &format!("bit {bit:#x} of byte {at}"), |bytes| bytes[at] ^= bit);
            }
        }
    });
}

#[test]
fn a_flipped_bit_in_the_version_of_the_tree() {
    each("a_flipped_bit_in_the_version_of_the_tree", |seed, rest, cuts| {
        for (name, bytes) in rest.tree_files(false) {
            for (at, bit) in flips(seed, rest.place, bytes.len(), 2) {
                rest.damage_tree(cuts, name, &format!("bit {bit:#x} of byte {at}"), |bytes| bytes[at] ^= bit);
            }
        }
    });
}

#[test]
fn a_sector_that_was_lost() {
    each("a_sector_that_was_lost", |_, rest, cuts| {
        for size in [SECTOR, 4096] {
            for (name, content) in &rest.image.files {
                for start in (0..content.written().len()).step_by(size) {
                    let end = content.written().len().min(start + size);
                    rest.damage(cuts, name, &format!("{size} zeros at {start}"), |content| {
                        content.edit()[start..end].fill(0)
                    });
                }
            }
            for (name, bytes) in &rest.tree.files {
                for start in (0..bytes.len()).step_by(size) {
                    let end = bytes.len().min(start + size);
                    rest.damage_tree(cuts, name, &format!("{size} zeros at {start}"), |bytes| {
                        bytes[start..end].fill(0)
                    });
                }
            }
        }
    });
}

#[test]
fn a_sector_that_was_written_in_anothers_place() {
    each("a_sector_that_was_written_in_anothers_place", |seed, rest, cuts| {
        let mut random = Random::new(seed, rest.place as u64);
        for (name, content) in rest.journal() {
            let sectors = content.written().len() / SECTOR;
            for to in 0..sectors {
                let from = random.index(sectors);
                rest.damage(cuts, name, &format!("sector {from} in place of {to}"), |content| {
                    content.edit().copy_within(from * SECTOR..(from + 1) * SECTOR, to * SECTOR);
                });
            }
        }
        for (name, bytes) in rest.tree_files(true) {
            let sectors = bytes.len() / SECTOR;
            for to in 0..sectors {
                let from = random.index(sectors);
                rest.damage_tree(cuts, name, &format!("sector {from} in place of {to}"), |bytes| {
                    bytes.copy_within(from * SECTOR..(from + 1) * SECTOR, to * SECTOR);
                });
            }
        }
    });
}

#[test]
fn a_file_that_is_gone_or_cut_short() {
    each("a_file_that_is_gone_or_cut_short", |_, rest, cuts| {
        for (name, content) in &rest.image.files {
            let mut image = rest.image.clone();
            image.files.remove(name);
            cuts.cut(rest.place, &format_args!("{name} is gone"), image, &rest.tree, &rest.expected());
            for length in [0, content.written().len() / 2, content.written().len().saturating_sub(1)] {
                rest.damage(cuts, name, &format!("cut to {length}"), |content| content.set_length(length));
            }
        }
        for (name, bytes) in &rest.tree.files {
            let mut tree = Tree::clone(&rest.tree);
            tree.files.remove(name);
            cuts.cut(
                rest.place,
                &format_args!("tree/{name} is gone"),
                rest.image.clone(),
                &Arc::new(tree),
                &rest.expected(),
            );
            for length in [0, bytes.len() / 2, bytes.len() - 1] {
                rest.damage_tree(cuts, name, &format!("cut to {length}"), |bytes| bytes.truncate(length));
            }
        }
    });
}

/// Writes that were answered and never done: a part of the directory is what it was some time ago, the rest goes on.
#[test]
fn a_file_or_the_tree_as_it_was_some_time_ago() {
    campaign("a_file_or_the_tree_as_it_was_some_time_ago", 0..SEEDS, |seed, cuts| {
        let all = at_rest(seed);
        for (place, rest) in all.iter().enumerate() {
            for older in &all[..place] {
                for (name, content) in older.image.files.iter().filter(|(name, _)| name.contains('/')) {
                    let mut image = rest.image.clone();
                    image.files.insert(name.clone(), content.clone());
                    cuts.cut(
                        rest.place,
                        &format_args!("{name} as at {}", older.place),
                        image,
                        &rest.tree,
                        &rest.expected(),
                    );
                }
                cuts.cut(
                    rest.place,
                    &format_args!("the tree as at {}", older.place),
                    rest.image.clone(),
                    &older.tree,
                    &rest.expected(),
                );
            }
        }
    });
}

/// A start that finds a loss makes everything sound again, so a crash in its middle must not hide what it had found.
#[test]
fn a_loss_is_said_again_after_a_crash_at_any_call_of_the_start_that_found_it() {
    let test = "a_loss_is_said_again_after_a_crash_at_any_call_of_the_start_that_found_it";
    each(test, |seed, rest, cuts| {
        if !cuts.wants(rest.place) {
            return;
        }
        let mark = format!("{SHARD}/mark");
        // The first may be one that is about to be removed, and the last one that holds nothing yet.
        let is_needed = |name: &String| {
            let mut image = rest.image.clone();
            image.files.remove(name);
            cuts.on_a_fresh_directory(rest.place, name, |root| Ok(start_with_a_loss(root, &image, &rest.tree).is_ok()))
        };
        let segment = rest.journal().map(|(name, _)| name).find(|name| is_needed(name)).unwrap().clone();
        for damaged in [mark.as_str(), segment.as_str(), "current"] {
            let (mut image, mut tree) = (rest.image.clone(), Tree::clone(&rest.tree));
            if damaged == "current" {
                tree.files.insert(damaged.to_owned(), Arc::from(&b"damaged"[..]));
                // With the copy that the store keeps of it nothing is lost.
                image.files.remove(&format!("{SHARD}/tables"));
            } else {
                image.files.remove(damaged);
            }
            let seen = cuts.on_a_fresh_directory(rest.place, &damaged, |root| start_with_a_loss(root, &image, &tree));
            let mut machine = Machine::holding(&image);
            for (call, seen) in seen.into_iter().enumerate() {
                match seen {
                    DiskEvent::Call(call) => machine.apply(&call),
                    DiskEvent::Tree(after) => tree = Tree::clone(&after),
                }
                for survival in [Survival::Nothing, Survival::Everything, Survival::WholeChanges] {
                    let image = machine.crash(survival, &mut Random::new(seed, call as u64)).image;
                    let what = format_args!("{damaged} is damaged, {survival:?} survives after call {call}");
                    let found = cuts.on_a_fresh_directory(rest.place, &what, |root| {
                        let found = verify(root, &image, &tree, &rest.expected())?;
                        if found == Outcome::Sound { Err("the loss is forgotten".to_owned()) } else { Ok(found) }
                    });
                    cuts.count(&found);
                }
            }
        }
    });
}

/// What a start on a damaged directory does below the store.
fn start_with_a_loss(root: &Path, image: &Image, tree: &Tree) -> Result<Vec<DiskEvent>, String> {
    let path = root.join(SHARD).join("tree");
    tree.write(&path);
    let disk = MemoryDisk::new(root, image).watching(&path);
    let node = Node::open(root, &disk).map_err(|error| error.to_string())?;
    if node.recovery.lost.is_empty() { Err("nothing is lost".to_owned()) } else { Ok(disk.seen()) }
}
