//! A script of a thousand steps is cut at every call that the store makes. Whatever the crash leaves: everything synced
//! is there, what was only committed is there up to some change, nothing else is, no loss is said that there was not,
//! and the store goes on.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_test_store::{
    Call, Cursor, Cuts, DiskEvent, Expected, FRONT, FileChange, Loss, Random, Recording, SECTOR, STEPS, Survival,
    campaign, recording, transcript,
};

/// Seeds per kind of crash.
const SEEDS: u64 = 5;

/// Losses of power that leave this.
fn power_cuts(test: &'static str, survival: Survival, seeds: std::ops::Range<u64>) {
    campaign(test, seeds, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        while walk.next_moment().is_some() {
            power_cut(&walk, survival, seed, cuts);
            walk.pass();
        }
    });
}

fn power_cut(walk: &Cursor<'_>, survival: Survival, seed: u64, cuts: &mut Cuts) {
    let mut crash = walk.machine.crash(survival, &mut Random::new(seed, walk.place as u64));
    crash.image.reboot();
    let loss = match &crash.noise {
        // Noise in a sector that held synced bytes too is damage, and to be said.
        Some(noise) if noise.spoilt => Loss::Required,
        // A record that a slot names and that is neither there nor missing may be damaged as well.
        Some(noise) if noise.name.ends_with(".seg") && noise.start >= FRONT => Loss::Allowed,
        _ => loss_of_power(walk),
    };
    let expected =
        Expected { model: &walk.model, end: walk.model.synced()..=walk.model.made(), loss, same_boot: false };
    cuts.cut(walk.place, &format_args!("{survival:?} survives"), crash.image, &walk.tree, &expected);
}

/// A start that was never finished may be taken for a loss: nothing had been promised.
fn loss_of_power(walk: &Cursor<'_>) -> Loss {
    if walk.opened { Loss::None } else { Loss::Allowed }
}

#[test]
fn the_end_of_the_process_at_any_call_takes_nothing_that_was_committed() {
    let test = "the_end_of_the_process_at_any_call_takes_nothing_that_was_committed";
    campaign(test, 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        while walk.next_moment().is_some() {
            let image = walk.machine.crash(Survival::Everything, &mut Random::new(seed, 0)).image;
            let end = walk.written()..=walk.model.made();
            let expected =
                Expected { model: &walk.model, end, loss: loss_of_power(&walk), same_boot: walk.process_only };
            cuts.cut(walk.place, &"the process ends", image, &walk.tree, &expected);
            walk.pass();
        }
    });
}

#[test]
fn the_end_of_the_process_within_a_write_takes_nothing_that_was_committed() {
    let test = "the_end_of_the_process_within_a_write_takes_nothing_that_was_committed";
    campaign(test, 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        while let Some(next) = walk.next_moment() {
            if let DiskEvent::Call(Call::Change(file, FileChange::Write(offset, bytes))) = next {
                let mut random = Random::new(seed, walk.place as u64);
                let mut image = walk.machine.crash(Survival::Everything, &mut random).image;
                let done = random.index(bytes.len());
                image.files.get_mut(walk.machine.name_of(*file)).unwrap().write(&bytes[..done], *offset);
                let end = walk.written()..=walk.model.made();
                let expected =
                    Expected { model: &walk.model, end, loss: loss_of_power(&walk), same_boot: walk.process_only };
                cuts.cut(
                    walk.place,
                    &format_args!("{done} of {} bytes are written", bytes.len()),
                    image,
                    &walk.tree,
                    &expected,
                );
            }
            walk.pass();
        }
    });
}

#[test]
fn a_loss_of_power_that_takes_all_that_was_not_synced() {
    power_cuts("a_loss_of_power_that_takes_all_that_was_not_synced", Survival::Nothing, 0..SEEDS);
}

#[test]
fn a_loss_of_power_that_takes_nothing() {
    power_cuts("a_loss_of_power_that_takes_nothing", Survival::Everything, 0..SEEDS);
}

#[test]
fn a_loss_of_power_that_takes_what_came_after_a_moment_and_tears_the_last_write() {
    power_cuts(
        "a_loss_of_power_that_takes_what_came_after_a_moment_and_tears_the_last_write",
        Survival::UpToAMoment,
        0..SEEDS,
    );
}

#[test]
fn a_loss_of_power_that_tears_and_reorders_sectors() {
    power_cuts("a_loss_of_power_that_tears_and_reorders_sectors", Survival::Sectors(SECTOR), 0..SEEDS);
}

#[test]
fn a_loss_of_power_that_tears_and_reorders_blocks_of_4_kib() {
    power_cuts("a_loss_of_power_that_tears_and_reorders_blocks_of_4_kib", Survival::Sectors(4096), 0..SEEDS);
}

#[test]
fn a_loss_of_power_that_takes_whole_writes_and_leaves_later_ones() {
    power_cuts("a_loss_of_power_that_takes_whole_writes_and_leaves_later_ones", Survival::WholeChanges, 0..SEEDS);
}

#[test]
fn a_loss_of_power_that_leaves_noise_in_a_sector() {
    power_cuts("a_loss_of_power_that_leaves_noise_in_a_sector", Survival::Noise, 0..SEEDS);
}

/// The block of a slot that is about to be written, and the name of its segment.
fn slot<'a>(walk: &'a Cursor<'_>, next: &DiskEvent) -> Option<(&'a str, usize, std::sync::Arc<[u8]>)> {
    let DiskEvent::Call(Call::Change(file, FileChange::Write(offset, bytes))) = next else { return None };
    let name = walk.machine.name_of(*file);
    (name.ends_with(".seg") && *offset < FRONT && bytes.len() == FRONT / 2).then(|| (name, *offset, bytes.clone()))
}

/// Losses of power in a sync, of which the slot does not come through as the rest does. `keeps` is what the disk has of
/// the rest; `edit` changes the block of the slot that is written, of which it is given what was synced before.
fn slots(test: &'static str, keeps: &[Survival], edit: impl Fn(&mut [u8], &[u8], &mut Random) + Sync) {
    campaign(test, 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let (mut walk, mut written) = (recording.walk(), 0);
        while let Some(next) = walk.next_moment() {
            let random = &mut Random::new(seed, walk.place as u64);
            if let Some((name, offset, block)) = slot(&walk, next)
                && walk.opened
            {
                written += 1;
                let before = walk.machine.crash(Survival::Nothing, random).image;
                let mut synced = vec![0; block.len()];
                if let Some(content) = before.files.get(name) {
                    content.read(&mut synced, offset);
                }
                for survival in keeps {
                    let mut image = walk.machine.crash(*survival, random).image;
                    let mut found = block.to_vec();
                    edit(&mut found, &synced, random);
                    match image.files.get_mut(name) {
                        Some(content) if content.length() > offset => content.write(&found, offset),
                        _ => continue,
                    }
                    image.reboot();
                    let end = walk.model.synced()..=walk.model.made();
                    let expected = Expected { model: &walk.model, end, loss: Loss::None, same_boot: false };
                    let what = format_args!("the slot is another one than that of what else there is, {survival:?}");
                    cuts.cut(walk.place, &what, image, &walk.tree, &expected);
                }
            }
            walk.pass();
        }
        assert!(written > 50, "{written} slots");
    });
}

/// It names records that are not there. Nobody was answered yet, so nothing is lost.
#[test]
fn a_loss_of_power_that_leaves_the_slot_and_not_what_it_names() {
    let test = "a_loss_of_power_that_leaves_the_slot_and_not_what_it_names";
    slots(test, &[Survival::Nothing, Survival::Sectors(SECTOR), Survival::UpToAMoment], |_, _, _| {});
}

#[test]
fn a_loss_of_power_that_leaves_records_and_not_the_slot_that_names_them() {
    let test = "a_loss_of_power_that_leaves_records_and_not_the_slot_that_names_them";
    slots(test, &[Survival::Everything, Survival::WholeChanges], |block, synced, _| block.copy_from_slice(synced));
}

/// The block holds neither the old slot nor the new one. The other block has the slot before it, whose sync had ended.
#[test]
fn a_loss_of_power_that_tears_the_slot() {
    let kept = [Survival::Nothing, Survival::Everything, Survival::Sectors(SECTOR)];
    slots("a_loss_of_power_that_tears_the_slot", &kept, |block, _, random| random.fill(block));
}

#[test]
fn a_crash_while_the_tree_flushes_and_compacts() {
    let test = "a_crash_while_the_tree_flushes_and_compacts";
    campaign(test, 0..SEEDS, |seed, cuts| {
        let recording = recording(seed);
        let mut walk = recording.walk();
        while let Some(next) = walk.next_moment() {
            if let DiskEvent::Tree(after) = next {
                for (state, tree) in walk.tree.on_the_way_to(after).into_iter().enumerate() {
                    let tree = std::sync::Arc::new(tree);
                    for survival in [Survival::Nothing, Survival::Everything] {
                        let mut image = walk.machine.crash(survival, &mut Random::new(seed, 0)).image;
                        image.reboot();
                        let end = walk.model.synced()..=walk.model.made();
                        let expected =
                            Expected { model: &walk.model, end, loss: loss_of_power(&walk), same_boot: false };
                        cuts.cut(
                            walk.place,
                            &format_args!("{survival:?} survives, the tree in state {state}"),
                            image,
                            &tree,
                            &expected,
                        );
                    }
                }
            }
            walk.pass();
        }
    });
}

/// Or no failure could be repeated.
#[test]
fn the_same_seed_makes_the_same_calls() {
    let (first, other) = (transcript(&recording(0)), transcript(&recording(1)));
    assert!(first.len() as u64 > STEPS && first != other);
    let again = transcript(&Recording::new(0));
    let differs = first.iter().zip(&again).position(|(before, now)| before != now);
    if let Some(place) = differs {
        let show = |lines: &[String]| lines[place].chars().take(400).collect::<String>();
        panic!("event {place} is not what it was before:\n{}\n{}", show(&first), show(&again));
    }
    assert_eq!(first.len(), again.len(), "a script has gone another way than before");
}
