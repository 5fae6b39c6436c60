//! Tries every law on many cases.

use std::time::Duration;

use crate::cases::{Case, CaseError};
use crate::counterexample::Counterexample;
use crate::fixed;
use crate::judge::{Trial, Verdict, Violation};
use crate::largest::{self, BucketLimits};
use crate::laws::Law;
use crate::merge::{Merge, Sampler};
use crate::progress::Progress;
use crate::rng::Rng;
use crate::shrink::{FailingCase, ShrinkBudget, shrink};

/// How hard to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckConfig {
    /// Where the cases come from: the same seed, the same cases.
    pub seed: u64,
    /// How many cases each law is tried on.
    pub cases: u32,
    /// The largest hint the sampler is given; cases grow up to it.
    pub size: u32,
    /// Whether values, stamps and writers repeat. Without that most faults hide; it is here so that this can be shown.
    pub collide: bool,
    /// What a bucket takes, for the law of limits. It is tried only if this is given.
    pub largest: Option<BucketLimits>,
    /// The most siblings that a merge is given, as a bucket allows.
    pub siblings: usize,
    /// For how long a counterexample is made smaller at most. What was found by then is kept.
    pub shrink: Duration,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self { seed: 1, cases: 300, size: 12, collide: true, largest: None, siblings: 32, shrink: Duration::from_secs(20) }
    }
}

/// A law that held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LawStats {
    /// The law.
    pub law: Law,
    /// On how many cases it was tried.
    pub cases: u32,
    /// In how many of them there was something to judge: not where the merge refused garbage, or a case was too small.
    pub judged: u32,
    /// In how many of them two siblings had equal values. A run with few of them has not looked hard.
    pub collisions: u32,
    /// The most bytes that one merge was given.
    pub bytes: usize,
    /// On how many cases it was tried beside those that were drawn: all triples of the smallest values, as many
    /// siblings as there may be, a few large values, garbage beside valid values, unknown members. They are counted
    /// here only.
    pub fixed: u32,
}

/// Tries every law, and says how. [`Law::Limits`] is left out unless the config says what the largest siblings are.
///
/// # Errors
/// A [`Counterexample`] to the first law that does not hold, made as small as could be.
pub fn check(merge: &dyn Merge, sampler: &dyn Sampler, config: CheckConfig) -> Result<Vec<LawStats>, Box<Counterexample>> {
    let tried = Law::ALL.into_iter().filter(|law| *law != Law::Limits || config.largest.is_some());
    tried.map(|law| check_law(law, merge, sampler, config)).collect()
}

/// Tries one law.
///
/// # Errors
/// A [`Counterexample`], made as small as could be. A sampler without a value, or with one only, is one too.
pub fn check_law(law: Law, merge: &dyn Merge, sampler: &dyn Sampler, config: CheckConfig) -> Result<LawStats, Box<Counterexample>> {
    check_law_with_progress(law, merge, sampler, config, &mut |_| {})
}

/// As [`check_law`], and tells how far it has come.
///
/// # Errors
/// As [`check_law`].
pub fn check_law_with_progress(
    law: Law,
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: CheckConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<LawStats, Box<Counterexample>> {
    let mut tried = LawStats { law, cases: 0, judged: 0, collisions: 0, bytes: 0, fixed: 0 };
    let has_fixed = law != Law::Limits && config.collide;
    let fixed = if has_fixed { fixed::draw(config.seed, sampler, config.siblings) } else { Vec::new() };
    let fixed_cases = u32::try_from(fixed.len()).unwrap_or(u32::MAX);
    let total = if law == Law::Limits { 2 } else { config.cases.saturating_add(fixed_cases) };
    let nothing = |violation| {
        let trial = Trial { key: Vec::new(), siblings: Vec::new(), valid: true };
        Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }))
    };
    if let Some(violation) = always_the_same(sampler) {
        return nothing(violation);
    }
    // Small cases first: what fails there needs no shrinking.
    let drawn = cases(law, sampler, config).map(|case| (case, true));
    for (number, (case, is_drawn)) in (1..).zip(drawn.chain(fixed.into_iter().map(|case| (case, false)))) {
        watch(Progress::Checking { law, case: number, cases: total });
        *(if is_drawn { &mut tried.cases } else { &mut tried.fixed }) += 1;
        let (case, trial) = match built(law, merge, sampler, case) {
            Ok(Some(built)) => built,
            Ok(None) => continue,
            Err(violation) => return nothing(violation),
        };
        tried.bytes = tried.bytes.max(trial.siblings.iter().map(|sibling| sibling.value.len()).sum());
        tried.collisions += u32::from(is_drawn && collides(&trial));
        match law.judge(merge, &trial) {
            Verdict::Held => tried.judged += u32::from(is_drawn),
            Verdict::Unjudged => {}
            Verdict::Broken(violation) => {
                let budget = ShrinkBudget::new(law, config.shrink, watch);
                let FailingCase { trial, violation, .. } = shrink(law, merge, sampler, FailingCase { case, trial, violation }, budget);
                return Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }));
            }
        }
    }
    Ok(tried)
}

/// A sampler that draws one value only leaves every law untried, and would pass as if all held.
fn always_the_same(sampler: &dyn Sampler) -> Option<Violation> {
    if !sampler.draws_valid_values() {
        return None;
    }
    let first = sampler.sample(0, 0).ok()?;
    let others = (0..16).flat_map(|seed| [0, 1, 4, 12].map(|size| (seed, size)));
    let differs = |(seed, size): (u64, u32)| sampler.sample(seed, size).map_or(true, |value| value != first);
    let reason = "it gives the same value for all seeds and sizes, on which no law can fail";
    (!others.into_iter().any(differs)).then(|| Violation::NoSample { seed: 0, size: 12, reason: reason.into() })
}

fn cases(law: Law, sampler: &dyn Sampler, config: CheckConfig) -> Box<dyn Iterator<Item = Case>> {
    let mut rng = Rng::new(config.seed);
    match (law, config.largest) {
        (Law::Limits, Some(largest)) => Box::new(largest::draw(&mut rng, sampler, &largest).into_iter()),
        (Law::Limits, None) => Box::new(std::iter::empty()),
        _ => Box::new((0..config.cases).map(move |number| {
            // Small cases first: what fails there needs no shrinking.
            let size = (u64::from(config.size) * u64::from(number + 1)).div_ceil(u64::from(config.cases));
            let mut case = Case::draw(&mut rng, u32::try_from(size).unwrap_or(config.size), config.collide);
            // Garbage later: what fails on valid values is better shown on them.
            if law != Law::Totality && number < config.cases / 2 {
                case.inputs.iter_mut().for_each(|input| input.damage = None);
            }
            case
        })),
    }
}

/// The case with its siblings; none if a merge that the case needs gives no answer, which only totality judges, on that
/// very merge.
fn built(law: Law, merge: &dyn Merge, sampler: &dyn Sampler, case: Case) -> Result<Option<(Case, Trial)>, Violation> {
    match case.build(merge, sampler) {
        Ok(trial) => Ok(Some((case, trial))),
        Err(CaseError::MergeFailed(pair)) if law == Law::Totality => built(law, merge, sampler, pair),
        Err(CaseError::MergeFailed(_)) => Ok(None),
        Err(CaseError::NoSample { seed, size, reason }) => Err(Violation::NoSample { seed, size, reason }),
    }
}

fn collides(trial: &Trial) -> bool {
    let siblings = &trial.siblings;
    siblings.iter().enumerate().any(|(index, one)| siblings[..index].iter().any(|other| other.value == one.value))
}
