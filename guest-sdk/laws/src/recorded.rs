//! Siblings that a cluster has had: each law is checked on every set of them, as they were.

use std::time::{Duration, Instant};

use crate::check::CheckConfig;
use crate::counterexample::Counterexample;
use crate::judge::{Trial, Verdict, Violation};
use crate::laws::Law;
use crate::merge::Merge;
use crate::progress::Progress;

/// Checks a law on recorded siblings. Returns how many sets it could judge. [`Law::Limits`] has siblings of its own.
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
/// assert_eq!(check(Law::Absorption), Ok(1), "a result that comes first stays");
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
) -> Result<u32, Box<Counterexample>> {
    let cases = u32::try_from(recorded.len()).unwrap_or(u32::MAX);
    let mut judged = 0;
    for (case, trial) in (1..).zip(recorded.iter().filter(|_| law != Law::Limits)) {
        watch(Progress::Checking { law, case, cases });
        match law.judge(merge, trial) {
            Verdict::Held | Verdict::TooLarge => judged += 1,
            Verdict::Unjudged => {}
            Verdict::Broken(violation) => {
                let (trial, violation) = fewer(law, merge, (trial.clone(), violation), config.shrink);
                return Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }));
            }
        }
    }
    Ok(judged)
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

    /// Takes the largest value, but drops all beyond the second sibling.
    struct TwoOnly;

    impl Merge for TwoOnly {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            Ok(siblings.iter().take(2).map(|one| one.value.clone()).max().unwrap_or_default())
        }
    }

    fn set(values: &[&str]) -> Trial {
        let sibling = |value: &&str| Sibling { value: value.as_bytes().to_vec(), stamp_ms: 1, writer: 1 };
        Trial { key: b"k".to_vec(), siblings: values.iter().map(sibling).collect(), valid: true }
    }

    #[test]
    fn every_set_is_judged_and_the_first_that_breaks_a_law_is_made_smaller() {
        let config = CheckConfig::default();
        let check = |law, recorded: &[Trial]| check_recorded(law, &TwoOnly, recorded, config, &mut |_| {});
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
