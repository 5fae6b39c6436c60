//! Random histories of replicas: a fold anywhere must not change what any reader sees.
//!
//! Each history is played on two clusters at once. They get the same writes and exchanges, and one of them also folds.
//! A client writes the merge of what it has read and a new value, as one that edits does, so that its write stands for
//! what it replaces.

use crate::counterexample::readable;
use crate::history::world::{NAMES, World, actor_of};
use crate::memoised::Memoised;
use crate::merge::{Merge, Sampler, Sibling};
use crate::rng::Rng;
use crate::scenario::ScenarioError;
use crate::scenario::object::Object;

/// The key of the merges.
const KEY: &[u8] = b"k";
/// Seeds of values are below this, so that values repeat.
const SEEDS: u64 = 24;
/// The most replicas of one history.
const MAX_REPLICAS: usize = NAMES.len();
/// The name of a history in a [`ScenarioError`].
const NAME: &str = "a random history";
/// Values of so many seeds and sizes.
const MAX_SIZE: u64 = 6;

/// How many random histories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvergenceConfig {
    /// The same seed gives the same histories.
    pub seed: u64,
    /// Histories.
    pub histories: u32,
    /// Steps of one history.
    pub steps: usize,
}

impl Default for ConvergenceConfig {
    fn default() -> Self {
        Self { seed: 1, histories: 100, steps: 12 }
    }
}

/// The random histories that were right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConvergenceStats {
    /// Histories that were played to their end.
    pub histories: u32,
    /// Reads of siblings that were compared.
    pub reads: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Write { at: usize, seed: u64, size: u32, blind: bool },
    Sync { one: usize, other: usize },
    Fold { at: usize },
}

/// Plays random histories of two to six replicas with the sampler's values.
///
/// # Errors
/// A history, as short as it could be made, in which a fold changes what a reader sees.
pub fn check_convergence(
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: ConvergenceConfig,
) -> Result<ConvergenceStats, ScenarioError> {
    let mut stats = ConvergenceStats::default();
    // Of raw bytes most are refused, and a history of refusals says nothing.
    if !sampler.draws_valid_values() {
        return Ok(stats);
    }
    let (memoised, mut rng) = (Memoised::new(merge), Rng::new(config.seed));
    for _ in 0..config.histories {
        let steps = draw(&mut rng, config.steps);
        let mut played = Played::new(&memoised, sampler);
        match played.all(&steps) {
            Ok(()) => stats.histories += 1,
            Err(Ending::Unjudged) => {}
            Err(Ending::Wrong(_)) => return Err(shrunk(&memoised, sampler, steps)),
        }
        stats.reads += played.reads;
    }
    Ok(stats)
}

fn draw(rng: &mut Rng, count: usize) -> Vec<Step> {
    let replicas = 2 + rng.below(MAX_REPLICAS as u64 - 1);
    let mut steps = Vec::new();
    while steps.len() < count {
        let at = usize::try_from(rng.below(replicas)).unwrap_or(0);
        let other = usize::try_from(rng.below(replicas)).unwrap_or(0);
        steps.push(match rng.below(5) {
            0 | 1 => Step::Write {
                at,
                seed: rng.below(SEEDS),
                size: u32::try_from(rng.below(MAX_SIZE)).unwrap_or(1),
                blind: rng.one_in(4),
            },
            2 => Step::Fold { at },
            _ if at == other => continue,
            _ => Step::Sync { one: at, other },
        });
    }
    steps
}

/// Leaves out steps as long as the history goes wrong.
fn shrunk(merge: &dyn Merge, sampler: &dyn Sampler, mut steps: Vec<Step>) -> ScenarioError {
    let wrong = |steps: &[Step]| {
        let mut played = Played::new(merge, sampler);
        match played.all(steps) {
            Err(Ending::Wrong(what)) => Some(ScenarioError { scenario: Some(NAME), what, log: played.log }),
            _ => None,
        }
    };
    let mut index = 0;
    while index < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(index);
        if wrong(&fewer).is_some() {
            (steps, index) = (fewer, 0);
        } else {
            index += 1;
        }
    }
    wrong(&steps).unwrap_or(ScenarioError { scenario: Some(NAME), what: "it went wrong once".into(), log: Vec::new() })
}

enum Ending {
    /// A value could not be drawn, or a merge gave none: the law of totality judges that.
    Unjudged,
    Wrong(String),
}

struct Played<'a> {
    merge: &'a dyn Merge,
    sampler: &'a dyn Sampler,
    plain: World,
    folding: World,
    reads: u64,
    log: Vec<String>,
}

impl<'a> Played<'a> {
    fn new(merge: &'a dyn Merge, sampler: &'a dyn Sampler) -> Self {
        let (plain, folding) = (World::new(MAX_REPLICAS), World::new(MAX_REPLICAS));
        Self { merge, sampler, plain, folding, reads: 0, log: Vec::new() }
    }

    fn all(&mut self, steps: &[Step]) -> Result<(), Ending> {
        for step in steps {
            self.step(*step)?;
        }
        for at in 0..MAX_REPLICAS {
            self.read(at)?;
        }
        let (plain, folding) = (self.plain.joined(), self.folding.joined());
        self.log.push("all replicas exchange what they have".into());
        self.compare(&plain, &folding, "a read anywhere").map(drop)
    }

    fn step(&mut self, step: Step) -> Result<(), Ending> {
        match step {
            Step::Write { at, seed, size, blind } => self.write(at, seed, size, blind)?,
            Step::Sync { one, other } => {
                for world in [&mut self.plain, &mut self.folding] {
                    let joined = world.replicas[one].object.sync(&world.replicas[other].object);
                    world.replicas[one].object = joined.clone();
                    world.replicas[other].object = joined;
                }
                self.log.push(format!("{} and {} synchronise", NAMES[one], NAMES[other]));
            }
            Step::Fold { at } => {
                let object = self.folding.replicas[at].object.clone();
                if let Some(merged) = self.view(&object)? {
                    self.log.push(format!("{} folds its siblings to {}", NAMES[at], readable(&merged)));
                    self.folding.replicas[at].object = object.fold(merged);
                }
            }
        }
        Ok(())
    }

    /// A client writes a value: over what it has read and merged with it, or beside all that is there.
    fn write(&mut self, at: usize, seed: u64, size: u32, blind: bool) -> Result<(), Ending> {
        let drawn = self.sampler.sample(seed, size).map_err(|_| Ending::Unjudged)?;
        let seen = if blind { None } else { self.read(at)? };
        let now_ms = self.plain.now_ms + 1;
        let actor = actor_of(at);
        let sibling = |value: Vec<u8>| Sibling { value, stamp_ms: now_ms, writer: actor };
        let value = match seen {
            None => drawn,
            Some(seen) => self.merged(&[sibling(seen), sibling(drawn)])?,
        };
        self.log.push(format!(
            "{} at {}: {}",
            if blind { "a blind write" } else { "an edit" },
            NAMES[at],
            readable(&value)
        ));
        for world in [&mut self.plain, &mut self.folding] {
            world.now_ms = now_ms;
            let replica = &mut world.replicas[at];
            replica.counter += 1;
            let context = if blind { Default::default() } else { replica.object.context.clone() };
            replica.object.put(&context, (actor, replica.counter), Some(value.clone()), now_ms);
        }
        Ok(())
    }

    fn merged(&self, siblings: &[Sibling]) -> Result<Vec<u8>, Ending> {
        self.merge.merge(KEY, siblings).map_err(|_| Ending::Unjudged)
    }

    /// What a reader of the object is shown. A single value is shown in its canonical form, so that it can be compared.
    fn view(&self, object: &Object) -> Result<Option<Vec<u8>>, Ending> {
        let mut siblings = object.all_siblings();
        if let [one] = siblings.as_slice() {
            siblings.push(one.clone());
        }
        if siblings.is_empty() { Ok(None) } else { self.merged(&siblings).map(Some) }
    }

    /// Reads at a replica of both clusters.
    fn read(&mut self, at: usize) -> Result<Option<Vec<u8>>, Ending> {
        let (plain, folding) = (self.plain.replicas[at].object.clone(), self.folding.replicas[at].object.clone());
        self.compare(&plain, &folding, &format!("a read at {}", NAMES[at]))
    }

    fn compare(&mut self, plain: &Object, folding: &Object, what: &str) -> Result<Option<Vec<u8>>, Ending> {
        self.reads += 1;
        let (plain, folding) = (self.view(plain)?, self.view(folding)?);
        if plain == folding {
            return Ok(plain);
        }
        let shown = |value: &Option<Vec<u8>>| value.as_deref().map_or("nothing".into(), readable);
        Err(Ending::Wrong(format!("{what} gives {}, and without folds {}", shown(&folding), shown(&plain))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::MergeResult;

    struct Digits;

    impl Sampler for Digits {
        fn sample(&self, seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![b'0' + (seed % 6) as u8])
        }
    }

    struct By(fn(&[Sibling]) -> Option<&Sibling>);

    impl Merge for By {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            (self.0)(siblings).map(|one| one.value.clone()).ok_or_else(|| "nothing".into())
        }
    }

    #[test]
    fn lattices_converge_wherever_they_are_folded() {
        let largest = By(|siblings| siblings.iter().max_by_key(|one| &one.value));
        let latest = By(|siblings| siblings.iter().max_by_key(|one| (one.stamp_ms, &one.value)));
        for merge in [largest, latest] {
            let stats = check_convergence(&merge, &Digits, ConvergenceConfig::default())
                .unwrap_or_else(|wrong| panic!("{wrong}"));
            assert!(stats.histories == 100 && stats.reads > 500, "{stats:?}");
        }
    }

    #[test]
    fn a_merge_that_folds_change_is_found_and_its_history_is_short() {
        let first = By(|siblings| siblings.iter().min_by_key(|one| (one.writer, &one.value)));
        let wrong = check_convergence(&first, &Digits, ConvergenceConfig::default()).expect_err("the writer changes");
        assert!(wrong.what.contains("and without folds") && wrong.log.len() <= 6, "{wrong}");
    }
}
