//! Siblings that a cluster has had: each law is checked on every set of them, as they were.

use std::time::{Duration, Instant};

use crate::check::CheckConfig;
use crate::counterexample::Counterexample;
use crate::judge::{Trial, Verdict, Violation};
use crate::laws::Law;
use crate::merge::{Merge, MergeError};
use crate::progress::Progress;

/// What came of recorded siblings under a law that held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecordedCount {
    /// Sets that the law could judge.
    pub judged: u32,
    /// Sets for which there was no time.
    pub left: u32,
}

/// Checks a law on recorded siblings, for at most `config.recorded`. [`Law::Limits`] has siblings of its own, and those
/// whose result is too large for the bucket are not judged.
///
/// ```
/// use rejoin_laws::{CheckConfig, Law, Merge, MergeResult, Sibling, Trial, check_recorded};
///
/// struct First;
/// impl Merge for First {
///     fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
///         siblings.first().map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing to merge".into())
///     }
/// }
/// let sibling = |value: &[u8]| Sibling { value: value.to_vec(), stamp_ms: 1, writer: 1 };
/// let siblings = vec![sibling(b"a"), sibling(b"a"), sibling(b"b")];
/// let recorded = [Trial { key: b"k".to_vec(), siblings, valid: true }];
/// let check = |law| check_recorded(law, &First, &recorded, CheckConfig::default(), &mut |_| {});
/// let held = check(Law::Absorption).expect("a result that comes first stays");
/// assert_eq!((held.judged, held.left), (1, 0));
/// let found = check(Law::Permutation).expect_err("it depends on the order");
/// assert_eq!(found.trial.siblings.len(), 2, "one that is not needed is left out");
/// ```
///
/// # Errors
/// A [`Counterexample`], without the siblings that it does not need.
pub fn check_recorded(
    law: Law,
    merge: &dyn Merge,
    recorded: &[Trial],
    config: CheckConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<RecordedCount, Box<Counterexample>> {
    let cases = u32::try_from(recorded.len()).unwrap_or(u32::MAX);
    let until = Instant::now().checked_add(config.recorded);
    let mut count = RecordedCount::default();
    for (case, trial) in (1..).zip(recorded.iter().filter(|_| law != Law::Limits)) {
        if until.is_some_and(|until| Instant::now() >= until) {
            count.left += 1;
            continue;
        }
        watch(Progress::Checking { law, case, cases });
        match law.judge(merge, trial) {
            Verdict::Held | Verdict::TooLarge => count.judged += 1,
            // A cluster keeps such siblings, and shows them to readers: the merge is not wrong.
            Verdict::Broken(Violation::NoAnswer { failure: MergeError::TooLarge(_), .. }) | Verdict::Unjudged => {}
            Verdict::Broken(violation) => {
                let (trial, violation) = fewer(law, merge, (trial.clone(), violation), config.shrink);
                return Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }));
            }
        }
    }
    Ok(count)
}

/// Leaves out siblings as long as the law is still broken in the same way.
fn fewer(
    law: Law,
    merge: &dyn Merge,
    (mut trial, mut violation): (Trial, Violation),
    budget: Duration,
) -> (Trial, Violation) {
    let until = Instant::now().checked_add(budget);
    let mut at = 0;
    while at < trial.siblings.len() && trial.siblings.len() > 2 && until.is_none_or(|until| Instant::now() < until) {
        let mut smaller = trial.clone();
        smaller.siblings.remove(at);
        match law.judge(merge, &smaller) {
            Verdict::Broken(found) if found.is_like(&violation) => (trial, violation) = (smaller, found),
            _ => at += 1,
        }
    }
    (trial, violation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{MergeResult, Sibling};
    use std::collections::BTreeSet;

    /// Takes the largest value, but drops all beyond the second sibling.
    struct TwoOnly;

    impl Merge for TwoOnly {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            Ok(siblings.iter().take(2).map(|one| one.value.clone()).max().unwrap_or_default())
        }
    }

    /// The letters of all siblings, of which a value may have two.
    struct Short;

    impl Merge for Short {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let letters: BTreeSet<u8> = siblings.iter().flat_map(|one| one.value.iter().copied()).collect();
            if letters.len() > 2 {
                return Err(MergeError::TooLarge("a value has two letters".into()));
            }
            Ok(letters.into_iter().collect())
        }
    }

    fn set(values: &[&str]) -> Trial {
        let sibling = |value: &&str| Sibling { value: value.as_bytes().to_vec(), stamp_ms: 1, writer: 1 };
        Trial { key: b"k".to_vec(), siblings: values.iter().map(sibling).collect(), valid: true }
    }

    #[test]
    fn every_set_is_judged_and_the_first_that_breaks_a_law_is_made_smaller() {
        let config = CheckConfig { recorded: Duration::from_secs(600), ..CheckConfig::default() };
        let tried = |law, recorded: &[Trial]| check_recorded(law, &TwoOnly, recorded, config, &mut |_| {});
        let check = |law, recorded: &[Trial]| tried(law, recorded).map(|count| count.judged);
        let small = [set(&["a", "b"]), set(&["b", "c"])];
        assert_eq!(check(Law::Permutation, &small), Ok(2));
        assert_eq!(check(Law::Bracketing, &small), Ok(0), "two siblings have no groups");
        assert_eq!(check(Law::Permutation, &[]), Ok(0));
        let wide = [small[0].clone(), set(&["a", "b", "c", "d", "e"])];
        let found = check(Law::Permutation, &wide).expect_err("what comes third is lost");
        assert_eq!((found.law, found.trial.siblings.len()), (Law::Permutation, 3));
        assert!(matches!(found.replay(&TwoOnly), Verdict::Broken(_)));
        assert_eq!(check(Law::Limits, &wide), Ok(0), "it has siblings of its own");
    }

    #[test]
    fn siblings_whose_result_is_too_large_break_no_law() {
        let config = CheckConfig { recorded: Duration::from_secs(600), ..CheckConfig::default() };
        let recorded = [set(&["a", "b", "c"]), set(&["a", "b"])];
        for law in [Law::Totality, Law::Permutation, Law::Absorption, Law::Growth, Law::Replay] {
            let held = check_recorded(law, &Short, &recorded, config, &mut |_| {});
            assert_eq!(held, Ok(RecordedCount { judged: 1, left: 0 }), "{law}");
        }
    }

    #[test]
    fn sets_for_which_there_is_no_time_are_counted() {
        let config = CheckConfig { recorded: Duration::ZERO, ..CheckConfig::default() };
        let recorded = [set(&["a", "b"]), set(&["a", "b", "c"])];
        let mut told = 0;
        let held = check_recorded(Law::Permutation, &TwoOnly, &recorded, config, &mut |_| told += 1);
        assert_eq!((held, told), (Ok(RecordedCount { judged: 0, left: 2 }), 0));
    }

    #[test]
    fn progress_is_told_set_by_set() {
        let mut told = Vec::new();
        let mut watch = |progress| {
            if let Progress::Checking { law, case, cases } = progress {
                told.push((law, case, cases));
            }
        };
        let recorded = [set(&["a", "b"]), set(&["a", "c"])];
        check_recorded(Law::Growth, &TwoOnly, &recorded, CheckConfig::default(), &mut watch).expect("it holds");
        assert_eq!(told, [(Law::Growth, 1, 2), (Law::Growth, 2, 2)]);
    }
}
