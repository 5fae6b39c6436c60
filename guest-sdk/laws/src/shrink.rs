//! Makes a failing case smaller as long as it keeps failing in the same way.

use std::time::{Duration, Instant};

use crate::cases::{Case, Input};
use crate::elements::elements;
use crate::judge::{Trial, Verdict, Violation};
use crate::laws::Law;
use crate::merge::{Merge, Sampler, Sibling};
use crate::progress::Progress;

/// The most attempts on small cases: enough for the cases of this crate, and an end for slow merges.
const ATTEMPTS: usize = 2_000;
/// The most attempts on the largest siblings, each of which may use all of a merge's fuel.
const LARGE_ATTEMPTS: usize = 60;
/// Valid values are cut only while they have more bytes than this together: smaller ones are readable as the sampler
/// draws them.
const READABLE_BYTES: usize = 256;

/// A case that breaks a law.
pub(crate) struct FailingCase {
    pub(crate) case: Case,
    pub(crate) trial: Trial,
    pub(crate) violation: Violation,
}

/// How many attempts and how much time are left, and the progress callback.
pub(crate) struct ShrinkBudget<'a> {
    law: Law,
    attempts: usize,
    most: usize,
    budget: Duration,
    until: Option<Instant>,
    reported: bool,
    watch: &'a mut dyn FnMut(Progress),
}

impl<'a> ShrinkBudget<'a> {
    pub(crate) fn new(law: Law, budget: Duration, watch: &'a mut dyn FnMut(Progress)) -> Self {
        let most = if law == Law::Limits { LARGE_ATTEMPTS } else { ATTEMPTS };
        Self { law, attempts: 0, most, budget, until: Instant::now().checked_add(budget), reported: false, watch }
    }

    /// Takes one attempt from the budget, if one is left.
    fn may_try(&mut self, best: &Trial) -> bool {
        if self.attempts >= self.most {
            return false;
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            if !std::mem::replace(&mut self.reported, true) {
                (self.watch)(Progress::OutOfTime { law: self.law, budget: self.budget });
            }
            return false;
        }
        (self.watch)(Progress::Shrinking {
            law: self.law,
            attempts: self.attempts,
            siblings: best.siblings.len(),
            bytes: bytes(best),
        });
        self.attempts += 1;
        true
    }
}

/// The smallest failing case that greedy steps lead to: first fewer siblings and other samples, then fewer elements of
/// long values, then fewer bytes.
pub(crate) fn shrink(
    law: Law,
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    start: FailingCase,
    mut budget: ShrinkBudget<'_>,
) -> FailingCase {
    let mut best = start;
    while let Some(found) = smaller(&best.case).into_iter().find_map(|candidate| {
        if !budget.may_try(&best.trial) {
            return None;
        }
        let trial = candidate.build(merge, sampler).ok()?;
        let violation = still_broken(law, merge, &trial, &best.violation)?;
        Some(FailingCase { case: candidate, trial, violation })
    }) {
        best = found;
    }
    if !best.trial.valid {
        return trimmed(law, merge, best, &mut budget);
    }
    // Values without some of their elements may be invalid, which only these laws leave out of account.
    let compares = !matches!(law, Law::Totality | Law::Limits)
        && matches!(best.violation, Violation::Differ { .. } | Violation::Grown { .. });
    if compares { cut(law, merge, best, &mut budget) } else { best }
}

/// Bytes of all values.
fn bytes(trial: &Trial) -> usize {
    trial.siblings.iter().map(|sibling| sibling.value.len()).sum()
}

/// Leaves out elements of long valid values, and then parts of their bytes, as long as the merge accepts what is left.
/// The values are then no longer known to be valid.
fn cut(law: Law, merge: &dyn Merge, mut best: FailingCase, budget: &mut ShrinkBudget<'_>) -> FailingCase {
    let mut index = 0;
    while index < best.trial.siblings.len() && bytes(&best.trial) > READABLE_BYTES {
        let value = &best.trial.siblings[index].value;
        let found = elements(value);
        let ranges = if found.is_empty() { halves(value.len()) } else { found };
        let smaller = ranges.into_iter().find_map(|range| {
            if !budget.may_try(&best.trial) {
                return None;
            }
            let mut trial = best.trial.clone();
            trial.siblings[index].value.drain(range);
            trial.valid = false;
            let is_accepted = accepts(merge, &trial.key, &trial.siblings[index]);
            let violation = is_accepted.then(|| still_broken(law, merge, &trial, &best.violation)).flatten()?;
            Some((trial, violation))
        });
        match smaller {
            Some((trial, violation)) => (best.trial, best.violation) = (trial, violation),
            None => index += 1,
        }
    }
    best
}

/// The second half of so many bytes, the first half, and so on with quarters and eighths.
fn halves(len: usize) -> Vec<std::ops::Range<usize>> {
    let part = |parts: usize| {
        let step = len.div_ceil(parts).max(1);
        (0..len).step_by(step).map(move |start| start..len.min(start + step)).rev()
    };
    [2, 4, 8].into_iter().flat_map(part).collect()
}

/// Whether the merge and the validator take a value.
fn accepts(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> bool {
    merge.merge(key, &[sibling.clone(), sibling.clone()]).is_ok()
        && merge.validate(key, &sibling.value).is_none_or(|valid| valid.is_ok())
}

/// The violation of a smaller trial, if it is of the same kind.
fn still_broken(law: Law, merge: &dyn Merge, trial: &Trial, before: &Violation) -> Option<Violation> {
    match law.judge(merge, trial) {
        Verdict::Broken(violation) if violation.is_like(before) => Some(violation),
        _ => None,
    }
}

/// Removes bytes from the values, halves first.
fn trimmed(law: Law, merge: &dyn Merge, mut best: FailingCase, budget: &mut ShrinkBudget<'_>) -> FailingCase {
    for index in 0..best.trial.siblings.len() {
        let mut step = best.trial.siblings[index].value.len().div_ceil(2);
        while step > 0 {
            let mut at = 0;
            while at < best.trial.siblings[index].value.len() && budget.may_try(&best.trial) {
                let mut trial = best.trial.clone();
                let end = trial.siblings[index].value.len().min(at + step);
                trial.siblings[index].value.drain(at..end);
                match still_broken(law, merge, &trial, &best.violation) {
                    Some(violation) => (best.trial, best.violation) = (trial, violation),
                    None => at += step,
                }
            }
            step /= 2;
        }
    }
    best
}

/// All cases that are one step smaller, the largest steps first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    if case.inputs.len() > 5 {
        let (head, tail) = case.inputs.split_at(case.inputs.len() / 2);
        cases.extend([head, tail].map(|half| Case { key: case.key.clone(), inputs: half.to_vec() }));
    }
    if case.inputs.len() > 2 {
        for index in 0..case.inputs.len() {
            let mut inputs = case.inputs.clone();
            inputs.remove(index);
            cases.push(Case { key: case.key.clone(), inputs });
        }
    }
    if !case.key.is_empty() {
        cases.push(Case { key: Vec::new(), inputs: case.inputs.clone() });
    }
    for (index, input) in case.inputs.iter().enumerate() {
        for simpler in simpler(input) {
            let mut inputs = case.inputs.clone();
            inputs[index] = simpler;
            cases.push(Case { key: case.key.clone(), inputs });
        }
    }
    cases
}

fn simpler(input: &Input) -> Vec<Input> {
    let mut inputs = Vec::new();
    if input.seeds.len() > 1 {
        for seed in &input.seeds {
            inputs.push(Input { seeds: vec![*seed], ..input.clone() });
        }
    }
    for size in [0, input.size / 2, input.size.saturating_sub(1)] {
        if size < input.size {
            inputs.push(Input { size, ..input.clone() });
        }
    }
    for (index, seed) in input.seeds.iter().enumerate() {
        for lower in [0, seed / 2, seed.saturating_sub(1)] {
            if lower < *seed {
                let mut seeds = input.seeds.clone();
                seeds[index] = lower;
                inputs.push(Input { seeds, ..input.clone() });
            }
        }
    }
    if input.damage.is_some() {
        inputs.push(Input { damage: None, ..input.clone() });
    }
    if input.stamp_ms > 0 {
        inputs.push(Input { stamp_ms: 0, ..input.clone() });
    }
    if input.writer > 1 {
        inputs.push(Input { writer: 1, ..input.clone() });
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{MergeError, MergeResult, Sibling};

    /// Breaks on what is longer than three bytes, and refuses the rest.
    struct Brittle;

    impl Merge for Brittle {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let bytes: usize = siblings.iter().map(|sibling| sibling.value.len()).sum();
            Err(if bytes > 3 { MergeError::Trapped("too long".into()) } else { "too short".into() })
        }
    }

    struct Zeros;

    impl Sampler for Zeros {
        fn sample(&self, _seed: u64, size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![0; size as usize])
        }
    }

    #[test]
    fn what_breaks_is_not_made_so_small_that_it_is_refused() {
        let input = Input { seeds: vec![5], size: 40, damage: None, stamp_ms: 9, writer: 7 };
        let case = Case { key: b"key".to_vec(), inputs: vec![input.clone(), input.clone(), input] };
        let trial = case.build(&Brittle, &Zeros).expect("zeros are always there");
        let Verdict::Broken(violation) = Law::Totality.judge(&Brittle, &trial) else { panic!("it breaks") };
        let mut told = Vec::new();
        let mut watch = |progress| told.push(progress);
        let budget = ShrinkBudget::new(Law::Totality, Duration::MAX, &mut watch);
        let small = shrink(Law::Totality, &Brittle, &Zeros, FailingCase { case, trial, violation }, budget);
        assert!(matches!(told[0], Progress::Shrinking { attempts: 0, siblings: 3, bytes: 120, .. }), "{:?}", told[0]);
        let Violation::NoAnswer { siblings, failure } = &small.violation else { panic!("it still breaks") };
        assert_eq!(*failure, MergeError::Trapped("too long".into()));
        assert!(
            siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>() == 4 && small.trial.key.is_empty(),
            "{siblings:?}"
        );
    }

    /// Keeps the list that is the first in line: the order decides.
    struct FirstList;

    impl Merge for FirstList {
        fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
            if siblings.iter().any(|sibling| !sibling.value.starts_with(b"[") || !sibling.value.ends_with(b"]")) {
                return Err("no list".into());
            }
            siblings.first().map(|sibling| sibling.value.clone()).ok_or_else(|| "nothing".into())
        }
    }

    /// Long lists only, as recorded values are.
    struct Recorded;

    impl Sampler for Recorded {
        fn sample(&self, seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Ok(format!("[{}]", vec![format!("{:04}", 1000 + seed % 2); 200].join(",")).into_bytes())
        }
    }

    #[test]
    fn long_values_lose_elements_and_stay_what_the_merge_takes() {
        let input = |seed| Input { seeds: vec![seed], size: 0, damage: None, stamp_ms: 0, writer: 1 };
        let case = Case { key: Vec::new(), inputs: vec![input(0), input(1)] };
        let trial = case.build(&FirstList, &Recorded).expect("lists are always there");
        let Verdict::Broken(violation) = Law::Permutation.judge(&FirstList, &trial) else { panic!("it breaks") };
        let mut watch = |_| {};
        let budget = ShrinkBudget::new(Law::Permutation, Duration::MAX, &mut watch);
        let small = shrink(Law::Permutation, &FirstList, &Recorded, FailingCase { case, trial, violation }, budget);
        assert!(bytes(&small.trial) <= READABLE_BYTES && !small.trial.valid, "{} bytes", bytes(&small.trial));
        assert!(small.trial.siblings.iter().all(|one| accepts(&FirstList, b"", one)));
        assert!(matches!(Law::Permutation.judge(&FirstList, &small.trial), Verdict::Broken(_)));
    }

    #[test]
    fn what_was_found_is_kept_when_the_time_is_over() {
        let input = Input { seeds: vec![5], size: 40, damage: None, stamp_ms: 9, writer: 7 };
        let case = Case { key: b"key".to_vec(), inputs: vec![input.clone(), input] };
        let trial = case.build(&Brittle, &Zeros).expect("zeros are always there");
        let Verdict::Broken(violation) = Law::Totality.judge(&Brittle, &trial) else { panic!("it breaks") };
        let mut told = Vec::new();
        let mut watch = |progress| told.push(progress);
        let budget = ShrinkBudget::new(Law::Totality, Duration::ZERO, &mut watch);
        let kept =
            shrink(Law::Totality, &Brittle, &Zeros, FailingCase { case, trial: trial.clone(), violation }, budget);
        assert_eq!(
            (kept.trial, told),
            (trial, vec![Progress::OutOfTime { law: Law::Totality, budget: Duration::ZERO }])
        );
    }
}
