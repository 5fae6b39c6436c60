//! Scripts of calls to a store, drawn from a seed.

use rejoin_core::port::{Change, Space};

use crate::Random;

/// A step of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A change is made.
    Write(Change),
    /// What was made is committed.
    Commit,
    /// What was committed is synced.
    Sync,
    /// Maintenance has its turn: flush, compaction, segments retired.
    Maintain,
    /// The process is killed and started again.
    Kill,
    /// The process stops cleanly and is started again.
    Stop,
    /// The power fails, and the machine is started again.
    PowerCut,
}

/// Keys of objects: few enough to be overwritten often.
const OBJECTS: u64 = 40;
/// Keys of each kind of pinned row.
const PINNED: u64 = 6;

/// A script of so many steps.
#[must_use]
pub fn script(seed: u64, steps: u64) -> Vec<Step> {
    let mut random = Random::new(seed, 1);
    (0..steps)
        .map(|step| match random.below(1000) {
            0..480 => Step::Write(change(step, &mut random)),
            480..740 => Step::Commit,
            740..880 => Step::Sync,
            880..970 => Step::Maintain,
            970..982 => Step::Kill,
            982..992 => Step::Stop,
            _ => Step::PowerCut,
        })
        .collect()
}

/// A change as a core writes it: objects, tombstones and removed rows, and with most of them a row of an actor, a retry
/// or an observed counter.
fn change(step: u64, random: &mut Random) -> Change {
    let mut change = Change::default();
    for row in 0..=random.below(3) {
        let key = format!("object {:02}", random.below(OBJECTS));
        match random.below(8) {
            0 => drop(change.remove(Space::Objects, key)),
            1 => drop(change.put(Space::Objects, key, format!("{step}.{row} tombstone"))),
            _ => drop(change.put(Space::Objects, key, value(step, row, random))),
        }
    }
    for kind in ["actor", "retry", "seen"] {
        let key = format!("{kind} {}", random.below(PINNED));
        match random.below(6) {
            0..3 => drop(change.put(Space::Pinned, key, format!("{step} {kind}"))),
            3 => drop(change.remove(Space::Pinned, key)),
            _ => {}
        }
    }
    change
}

/// A value that no other step writes: mostly small, sometimes of several sectors.
fn value(step: u64, row: u64, random: &mut Random) -> String {
    let length = if random.one_in(12) { random.below(2500) } else { random.below(160) };
    format!("{step}.{row} {}", "v".repeat(length as usize))
}
