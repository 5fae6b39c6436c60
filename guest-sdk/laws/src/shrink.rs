//! Makes a failing case smaller while it keeps failing the same way.

use crate::cases::{Case, Input};
use crate::laws::{Law, Violation};
use crate::merge::{Merge, Sampler, Sibling};

/// How often a smaller case may be tried: enough for the cases of this crate, and an end for slow merges.
const ATTEMPTS: usize = 2_000;

/// What a case that still fails looks like.
pub(crate) struct Failing {
    pub(crate) case: Case,
    pub(crate) siblings: Vec<Sibling>,
    pub(crate) violation: Violation,
}

/// The smallest failing case that greedy steps lead to.
pub(crate) fn shrink(law: Law, merge: &dyn Merge, sampler: &dyn Sampler, start: Failing) -> Failing {
    let mut best = start;
    let mut attempts = 0;
    'smaller: loop {
        for candidate in smaller(&best.case) {
            attempts += 1;
            if attempts > ATTEMPTS {
                return best;
            }
            if let Some(failing) = still_fails(law, merge, sampler, candidate, &best) {
                best = failing;
                continue 'smaller;
            }
        }
        return best;
    }
}

/// A smaller case counts only if it fails as the larger one did: answers that differ must not turn into a refusal.
fn still_fails(law: Law, merge: &dyn Merge, sampler: &dyn Sampler, case: Case, best: &Failing) -> Option<Failing> {
    let siblings = case.build(merge, sampler).ok()?;
    let violation = law.hold(merge, &case.key, &siblings).err()?;
    let refused = |violation: &Violation| violation.left.is_err() || violation.right.is_err();
    (refused(&violation) == refused(&best.violation)).then_some(Failing { case, siblings, violation })
}

/// Every case that is one step smaller, the largest steps first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
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
    if input.stamp_ms > 0 {
        inputs.push(Input { stamp_ms: 0, ..input.clone() });
    }
    if input.writer > 1 {
        inputs.push(Input { writer: 1, ..input.clone() });
    }
    inputs
}
