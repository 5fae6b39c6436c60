//! Tries every law on many cases.

use crate::cases::{self, Case};
use crate::counterexample::Counterexample;
use crate::laws::{self, Law, Violation};
use crate::merge::{Merge, Sampler};
use crate::rng::Rng;
use crate::shrink::{Failing, shrink};

/// How hard to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Where the cases come from: the same seed, the same cases.
    pub seed: u64,
    /// How many cases each law is tried on.
    pub cases: u32,
    /// The largest hint the sampler is given; cases grow up to it.
    pub size: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self { seed: 1, cases: 300, size: 12 }
    }
}

/// What was tried when nothing was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The laws that held.
    pub laws: Vec<Law>,
    /// On how many cases each.
    pub cases: u32,
    /// Cases in which two siblings had equal values. A run with few of them has not looked hard.
    pub collisions: u32,
}

/// Tries every law.
///
/// # Errors
/// A [`Counterexample`] to the first law that does not hold, made as small as could be.
pub fn check(merge: &dyn Merge, sampler: &dyn Sampler, effort: Effort) -> Result<Report, Box<Counterexample>> {
    let mut report = Report { laws: Vec::new(), cases: effort.cases, collisions: 0 };
    for law in laws::ALL {
        report.collisions = check_law(law, merge, sampler, effort)?;
        report.laws.push(law);
    }
    Ok(report)
}

/// Tries one law, and says in how many cases two siblings had equal values.
///
/// # Errors
/// A [`Counterexample`], made as small as could be. A sampler without a value is one too.
pub fn check_law(law: Law, merge: &dyn Merge, sampler: &dyn Sampler, effort: Effort) -> Result<u32, Box<Counterexample>> {
    let mut rng = Rng::new(effort.seed);
    let mut collisions = 0;
    for number in 0..effort.cases {
        // Small cases first: what fails there needs no shrinking.
        let size = (u64::from(effort.size) * u64::from(number + 1)).div_ceil(u64::from(effort.cases));
        let case = cases::draw(&mut rng, u32::try_from(size).unwrap_or(effort.size));
        let siblings = match case.build(merge, sampler) {
            Ok(siblings) => siblings,
            Err(reason) => return Err(unbuildable(law, case, reason, effort.seed)),
        };
        let equal = siblings.iter().enumerate().any(|(index, one)| siblings[..index].iter().any(|other| other.value == one.value));
        collisions += u32::from(equal);
        if let Err(violation) = law.hold(merge, &case.key, &siblings) {
            let Failing { case, siblings, violation } = shrink(law, merge, sampler, Failing { case, siblings, violation });
            return Err(Box::new(Counterexample { law, key: case.key.clone(), siblings, violation, case, seed: effort.seed }));
        }
    }
    Ok(collisions)
}

fn unbuildable(law: Law, case: Case, reason: String, seed: u64) -> Box<Counterexample> {
    let violation = Violation { equation: "the siblings cannot be made".into(), left: Err(reason.clone()), right: Err(reason) };
    Box::new(Counterexample { law, key: case.key.clone(), siblings: Vec::new(), violation, case, seed })
}
