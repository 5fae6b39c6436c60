//! All histories of a few operations on a few replicas, the shortest first.

use std::time::{Duration, Instant};

use crate::history::intent::Intent;
use crate::history::linear::Judge;
use crate::history::world::{Actions, Step, World};
use crate::memoised::Memoised;
use crate::merge::Merge;
use crate::progress::Progress;
use crate::scenario::ScenarioError;

/// The most replicas of a history.
const MAX_REPLICAS: usize = 4;
/// The most operations of a history, and the most in a vocabulary.
const MAX_OPERATIONS: usize = 8;
const MAX_VOCABULARY: usize = 64;
/// The name of a history in a [`ScenarioError`].
const NAME: &str = "a history against its specification";
/// A report on the progress after so many histories.
const REPORT_EVERY: u64 = 256;

/// How long histories are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryConfig {
    /// Replicas, 4 at most.
    pub replicas: usize,
    /// Operations of one history, 8 at most.
    pub operations: usize,
    /// Whether replicas also fold as soon as they have exchanged what they have, as those of a self-causal plugin do.
    pub folds: bool,
    /// The most time. The result says how far it came.
    pub time: Duration,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { replicas: 3, operations: 4, folds: true, time: Duration::from_secs(20) }
    }
}

/// The histories that were right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HistoryStats {
    /// All histories of so many operations were tried.
    pub operations: usize,
    /// The histories that were tried, longer ones included.
    pub histories: u64,
    /// Merges that this took.
    pub merges: u64,
}

/// Tries every history of up to `config.operations` operations: any operation at any replica, and between two
/// operations no exchange or one of any two replicas. After each history all readers are asked, as the replicas are,
/// and once all have exchanged what they have.
///
/// Replicas are interchangeable, so only histories that use them in order are tried.
///
/// # Errors
/// A shortest history after which a reader sees what no order of its operations explains, or one that fails.
pub fn check_histories(
    merge: &dyn Merge,
    intent: &dyn Intent,
    config: HistoryConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<HistoryStats, ScenarioError> {
    let (memoised, judge) = (Memoised::new(merge), Judge::new(intent));
    if judge.operations().is_empty() || judge.operations().len() > MAX_VOCABULARY {
        let what =
            format!("an intent has 1 to {MAX_VOCABULARY} operations, and this one has {}", judge.operations().len());
        return Err(ScenarioError { scenario: Some(NAME), what, log: Vec::new() });
    }
    let replicas = config.replicas.clamp(1, MAX_REPLICAS);
    let mut search = Search {
        actions: Actions::new(&memoised, intent, judge.operations()),
        judge: &judge,
        replicas,
        folds: false,
        steps: Vec::new(),
        histories: 0,
        until: Instant::now().checked_add(config.time),
        is_over: false,
        operations: 0,
        watch,
    };
    let mut stats = HistoryStats::default();
    for operations in 1..=config.operations.min(MAX_OPERATIONS) {
        search.operations = operations;
        for folds in [false, true] {
            if folds && !config.folds {
                continue;
            }
            search.folds = folds;
            search.extend(&World::new(replicas), 0, operations)?;
        }
        if search.is_over {
            break;
        }
        stats.operations = operations;
    }
    stats.histories = search.histories;
    stats.merges = memoised.runs();
    Ok(stats)
}

struct Search<'a, 'w> {
    actions: Actions<'a>,
    judge: &'a Judge<'a>,
    replicas: usize,
    folds: bool,
    steps: Vec<Step>,
    histories: u64,
    until: Option<Instant>,
    is_over: bool,
    operations: usize,
    watch: &'w mut dyn FnMut(Progress),
}

impl Search<'_, '_> {
    /// Tries all that can follow: an exchange or none, then an operation, until no operation is left. `used` replicas
    /// have been used so far; the next new one is the next in order.
    fn extend(&mut self, world: &World, used: usize, left: usize) -> Result<(), ScenarioError> {
        if left == 0 {
            return self.judge(world, used);
        }
        self.is_over = self.is_over || self.until.is_some_and(|until| Instant::now() >= until);
        if self.is_over {
            return Ok(());
        }
        self.operate(world, used, left)?;
        let reachable = (used + 1).min(self.replicas);
        for other in 1..reachable {
            // A new replica may meet any that was used before.
            for one in 0..other {
                if used == 0 || world.replicas[one].object == world.replicas[other].object {
                    continue;
                }
                let (mut next, before) = (world.clone(), self.steps.len());
                self.take(&mut next, Step::Sync { one, other })?;
                if self.folds {
                    self.take(&mut next, Step::Fold { at: one })?;
                    self.take(&mut next, Step::Fold { at: other })?;
                }
                self.operate(&next, used.max(other + 1), left)?;
                self.steps.truncate(before);
            }
        }
        Ok(())
    }

    /// Tries each operation at each replica.
    fn operate(&mut self, world: &World, used: usize, left: usize) -> Result<(), ScenarioError> {
        for at in 0..(used + 1).min(self.replicas) {
            for operation in 0..self.judge.operations().len() {
                let (mut next, before) = (world.clone(), self.steps.len());
                let operation = u8::try_from(operation).unwrap_or(u8::MAX);
                self.take(&mut next, Step::Apply { at, operation })?;
                self.extend(&next, used.max(at + 1), left - 1)?;
                self.steps.truncate(before);
            }
        }
        Ok(())
    }

    fn take(&mut self, world: &mut World, step: Step) -> Result<(), ScenarioError> {
        self.steps.push(step);
        let taken = self.actions.step(world, step);
        taken.map_err(|what| self.failed(&what, &[]))
    }

    fn judge(&mut self, world: &World, used: usize) -> Result<(), ScenarioError> {
        self.histories += 1;
        if self.histories.is_multiple_of(REPORT_EVERY) {
            (self.watch)(Progress::Histories { histories: self.histories, operations: self.operations });
        }
        for (at, replica) in world.replicas[..used].iter().enumerate() {
            let what = self
                .actions
                .view(&replica.object)
                .map_or_else(Some, |value| self.judge.fault(&world.done, replica.seen, value.as_deref()));
            if let Some(what) = what {
                return Err(self.failed(&format!("a read at {}: {what}", crate::history::world::NAMES[at]), &[]));
            }
        }
        let all = world.replicas.iter().fold(0, |bits, replica| bits | replica.seen);
        let value = self.actions.view(&world.joined());
        match value.map_or_else(Some, |value| self.judge.fault(&world.done, all, value.as_deref())) {
            None => Ok(()),
            Some(what) => {
                let exchange: Vec<Step> = (1..used).map(|other| Step::Sync { one: 0, other }).collect();
                Err(self.failed(&format!("a read once all replicas have exchanged what they have: {what}"), &exchange))
            }
        }
    }

    fn failed(&self, what: &str, more: &[Step]) -> ScenarioError {
        let steps = [&self.steps[..], more].concat();
        ScenarioError { scenario: Some(NAME), ..self.actions.replay(self.replicas, &steps, what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::intent::{Facts, OperationDot};
    use crate::merge::{MergeResult, Sibling};

    /// Takes the value that was written last.
    struct LastWriter;

    impl Merge for LastWriter {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let last = siblings.iter().max_by_key(|one| (one.stamp_ms, &one.value));
            last.map(|one| one.value.clone()).ok_or_else(|| "nothing".into())
        }
    }

    /// Writes a letter over another, or beside it.
    struct Letters {
        keeps: bool,
    }

    impl Intent for Letters {
        fn operations(&self) -> Vec<String> {
            ["a", "b"].map(String::from).to_vec()
        }

        fn apply(&self, state: Option<&[u8]>, operation: &str, _dot: OperationDot) -> Result<Vec<u8>, String> {
            let mut letters = if self.keeps { state.unwrap_or_default().to_vec() } else { Vec::new() };
            letters.extend(operation.as_bytes());
            letters.sort_unstable();
            letters.dedup();
            Ok(letters)
        }

        fn facts(&self, value: &[u8]) -> Result<Facts, String> {
            Ok(value.iter().map(|letter| (char::from(*letter).to_string(), String::new())).collect())
        }

        fn specification(&self, operations: &[&str]) -> Facts {
            let last = operations.len().saturating_sub(1);
            let kept = if self.keeps { operations } else { &operations[last.min(operations.len())..] };
            kept.iter().map(|letter| ((*letter).to_owned(), String::new())).collect()
        }
    }

    fn check(intent: &Letters, config: HistoryConfig) -> Result<HistoryStats, ScenarioError> {
        check_histories(&LastWriter, intent, config, &mut |_| {})
    }

    #[test]
    fn the_last_writer_wins_a_register() {
        let config = HistoryConfig { operations: 3, ..HistoryConfig::default() };
        let stats = check(&Letters { keeps: false }, config).expect("the last writer is one of those that may be last");
        assert_eq!(stats.operations, 3);
        assert!(stats.histories > 500 && stats.merges < stats.histories, "{stats:?}");
    }

    #[test]
    fn the_last_writer_loses_members_of_a_set_in_the_shortest_history() {
        let wrong = check(&Letters { keeps: true }, HistoryConfig::default()).expect_err("one letter is lost");
        assert_eq!(
            wrong.what,
            r#"a read once all replicas have exchanged what they have: a is absent, and should be """#
        );
        assert_eq!(wrong.log.len(), 3, "two operations and an exchange: {wrong}");
        assert!(wrong.to_string().contains("1. a at east: nothing becomes \"a\""), "{wrong}");
    }

    #[test]
    fn the_time_ends_it_and_is_told() {
        let config = HistoryConfig { time: Duration::ZERO, ..HistoryConfig::default() };
        let stats = check(&Letters { keeps: true }, config).expect("nothing was tried");
        assert_eq!((stats.operations, stats.histories), (0, 0));
    }
}
