//! The changes of the layout in a storm, drawn from its seed. Which node a change is about is found out when it is due,
//! since that depends on what was possible before.

use std::fmt;

use rejoin_test_sim::rng::{Rng, Stream};

use crate::ZONES;

/// The first change, the least time between two, and the mean of what comes on top.
const FIRST_MS: u64 = 1_500;
const LEAST_MS: u64 = 8_000;
const EVERY_MS: u64 = 4_000;
/// The time at the end in which no change begins.
const LAST_MS: u64 = 8_000;
/// The largest capacity.
const CAPACITY: u64 = 3;

/// The name of the kind of [`Change::Split`].
pub const SPLITS: &str = "splits";

/// A change of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A node that is no member becomes one.
    Join,
    /// A member leaves.
    Leave,
    /// A member gives up what it has, and stays a member without capacity.
    Drain,
    /// A member dies for good, and another node takes its place.
    Replace,
    /// A member has another capacity.
    Weigh(u32),
    /// A member is in another zone.
    Move(u8),
    /// There are twice as many partitions.
    Split(Beside),
}

/// What goes on beside a split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// Nothing: faults end before it, and none begins before it is carried out.
    Nothing,
    /// Members are killed while it is under way, beside whatever else goes on.
    Kills,
}

/// A change with its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// When it begins, since the beginning of the storm.
    pub at_ms: u64,
    /// The change.
    pub change: Change,
    /// Chooses among the nodes that it may be about.
    pub pick: u64,
}

impl Change {
    /// The name of its kind.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Join => "joins",
            Self::Leave => "leaves",
            Self::Drain => "drains",
            Self::Replace => "replacements",
            Self::Weigh(_) => "weights",
            Self::Move(_) => "moves of zone",
            Self::Split(_) => SPLITS,
        }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.1} s  ", self.at_ms as f64 / 1e3)?;
        match self.change {
            Change::Join => f.write_str("a node joins"),
            Change::Leave => f.write_str("a node leaves"),
            Change::Drain => f.write_str("a node is drained"),
            Change::Replace => f.write_str("a node dies for good and is replaced"),
            Change::Weigh(capacity) => write!(f, "a node has capacity {capacity}"),
            Change::Move(zone) => write!(f, "a node is in zone z{}", zone + 1),
            Change::Split(Beside::Nothing) => f.write_str("the partitions are split, without faults"),
            Change::Split(Beside::Kills) => f.write_str("the partitions are split, and members are killed meanwhile"),
        }
    }
}

/// Draws the changes of a storm of that length. They come in rounds of one of each kind, of which the first two have a
/// split too: one alone, one with kills. There are no more: partitions are never joined again. The first change is a
/// join.
#[must_use]
pub fn draw(seed: u64, length_ms: u64) -> Vec<Due> {
    let mut rng = Rng::new(seed, Stream::Plugins);
    let mut splits = [Beside::Nothing, Beside::Kills];
    // Two minutes have only the first.
    let first = rng.index(splits.len());
    splits.rotate_left(first);
    let mut splits = splits.into_iter();
    let (mut steps, mut round, mut at_ms) = (Vec::new(), Vec::new(), FIRST_MS);
    while at_ms + LAST_MS < length_ms {
        if round.is_empty() {
            round = one_of_each(&mut rng, splits.next());
            if steps.is_empty() {
                round.sort_by_key(|change| *change == Change::Join);
            }
        }
        let change = round.pop().unwrap_or(Change::Join);
        steps.push(Due { at_ms, change, pick: rng.below(1 << 32) });
        at_ms += LEAST_MS + rng.exponential(EVERY_MS).min(2 * EVERY_MS);
    }
    steps
}

fn one_of_each(rng: &mut Rng, split: Option<Beside>) -> Vec<Change> {
    let (capacity, zone) = (rng.between(1, CAPACITY) as u32, rng.below(ZONES.into()) as u8);
    let mut kinds =
        vec![Change::Join, Change::Leave, Change::Drain, Change::Replace, Change::Weigh(capacity), Change::Move(zone)];
    kinds.extend(split.map(Change::Split));
    for at in (1..kinds.len()).rev() {
        kinds.swap(at, rng.index(at + 1));
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_minutes_have_every_kind_and_a_longer_storm_begins_as_a_shorter_one() {
        for seed in 0..50 {
            let changes = draw(seed, 120_000);
            let kinds: std::collections::BTreeSet<_> = changes.iter().map(|due| due.change.kind()).collect();
            assert_eq!(kinds.len(), 7, "seed {seed}: {changes:?}");
            assert_eq!(changes[0].change, Change::Join);
            assert!(draw(seed, 300_000).starts_with(&changes));
        }
        assert_ne!(draw(1, 120_000), draw(2, 120_000));
    }

    #[test]
    fn a_storm_splits_once_alone_and_once_with_kills_however_long_it_is() {
        let splits = |seed, length_ms| -> Vec<Change> {
            let changes = draw(seed, length_ms).into_iter().map(|due| due.change);
            changes.filter(|change| matches!(change, Change::Split(_))).collect()
        };
        let first = |beside| (0..50).filter(|seed| splits(*seed, 120_000)[0] == Change::Split(beside)).count();
        assert!(first(Beside::Nothing) > 10 && first(Beside::Kills) > 10, "two minutes have either");
        for seed in 0..50 {
            let hour = splits(seed, 3_600_000);
            assert!(hour.len() == 2 && hour[0] != hour[1], "seed {seed}: {hour:?}");
        }
    }
}
