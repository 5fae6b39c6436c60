//! Checks every law on many cases.

use std::time::Duration;

use crate::cases::{Case, CaseError};
use crate::corpus::Corpus;
use crate::counterexample::Counterexample;
use crate::fixed;
use crate::judge::{Trial, Verdict, Violation};
use crate::largest::{self, BucketLimits};
use crate::laws::Law;
use crate::memoised::Memoised;
use crate::merge::{Merge, Sampler};
use crate::progress::Progress;
use crate::rng::Rng;
use crate::samples::RememberedSamples;
use crate::shrink::{FailingCase, ShrinkBudget, shrink};
use crate::small_scope::check_small_scope;

/// How a law is checked, as proptest's `Config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckConfig {
    /// The same seed gives the same cases.
    pub seed: u64,
    /// Random cases for each law.
    pub cases: u32,
    /// The largest size hint for the sampler; cases grow up to it.
    pub size: u32,
    /// Whether values, stamps and writers repeat. Most faults show only then; it can be turned off to show that, and
    /// turns all but random cases off.
    pub collide: bool,
    /// The limits of the bucket for [`Law::Limits`], which is skipped without them.
    pub bucket: Option<BucketLimits>,
    /// The most siblings of one merge, as the bucket allows.
    pub siblings: usize,
    /// The most time to shrink a counterexample. The smallest one found by then is kept.
    pub shrink: Duration,
    /// Whether every law is also checked on cases that random ones rarely hit. It can be turned off to show that they
    /// do.
    pub fixed: bool,
    /// All triples of so many of the smallest values are checked.
    pub smallest: usize,
    /// The most time for that. The report says how far it came.
    pub exhaust: Duration,
    /// The most time for the recorded siblings of [`check_recorded`](crate::check_recorded), for each law.
    pub recorded: Duration,
}

impl CheckConfig {
    /// Random cases of a few siblings and nothing else, as most property tests have them. For comparison.
    #[must_use]
    pub fn only_random() -> Self {
        Self { siblings: 5, fixed: false, smallest: 0, ..Self::default() }
    }
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            cases: 300,
            size: 12,
            collide: true,
            bucket: None,
            siblings: 32,
            shrink: Duration::from_secs(20),
            fixed: true,
            smallest: 100,
            exhaust: Duration::from_secs(5),
            recorded: Duration::from_secs(10),
        }
    }
}

/// What a law that held was checked on. If [`judged`](Self::judged) is 0, nothing is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LawStats {
    /// The law that held.
    pub law: Law,
    /// Random cases.
    pub cases: u32,
    /// Random cases in which there was something to judge: not those that the merge refused, or that have too few
    /// siblings.
    pub judged: u32,
    /// Random cases in which two siblings had equal values. With few of them a check finds little.
    pub collisions: u32,
    /// Judged cases of [`Law::Limits`] whose result was too large. A cluster keeps such siblings unmerged.
    pub too_large: u32,
    /// The most bytes of the siblings of one case.
    pub bytes: usize,
    /// Fixed cases, which every law is checked on as well: all triples of the smallest values, as many siblings as
    /// there may be, large values, garbage beside valid values, unknown members, single changed bytes. They are counted
    /// here only.
    pub fixed: u32,
}

/// Checks every law, and all triples of the smallest values. [`Law::Limits`] is skipped unless the config has the
/// limits of a bucket.
///
/// # Errors
/// A shrunk [`Counterexample`] to the first law that does not hold.
pub fn check(
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: CheckConfig,
) -> Result<Vec<LawStats>, Box<Counterexample>> {
    let (memoised, samples) = (Memoised::new(merge), RememberedSamples::new(sampler));
    let tried = Law::ALL.into_iter().filter(|law| *law != Law::Limits || config.bucket.is_some());
    let stats = tried.map(|law| check_law(law, &memoised, &samples, config)).collect::<Result<Vec<_>, _>>()?;
    check_small_scope(merge, &samples, config, &mut |_| {})?;
    Ok(stats)
}

/// Checks one law.
///
/// # Errors
/// A shrunk [`Counterexample`]. A sampler that gives no value, or always the same, is a counterexample too.
pub fn check_law(
    law: Law,
    merge: &dyn Merge,
    sampler: &dyn Sampler,
    config: CheckConfig,
) -> Result<LawStats, Box<Counterexample>> {
    check_law_with_progress(law, merge, sampler, config, &mut |_| {})
}

/// As [`check_law`], with reports on the progress.
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
    let mut tried = LawStats { law, cases: 0, judged: 0, collisions: 0, bytes: 0, fixed: 0, too_large: 0 };
    let has_fixed = law != Law::Limits && config.collide && config.fixed;
    // A bucket gives no larger values to its plugin.
    let most = config.bucket.map_or(usize::MAX, |bucket| bucket.value_bytes);
    let fixed = if has_fixed { fixed::draw(config.seed, sampler, config.siblings, most) } else { Vec::new() };
    let fixed_cases = u32::try_from(fixed.len()).unwrap_or(u32::MAX);
    let total = if law == Law::Limits { 2 } else { config.cases.saturating_add(fixed_cases) };
    let nothing = |violation| {
        let trial = Trial { key: Vec::new(), siblings: Vec::new(), valid: true };
        Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }))
    };
    if let Some(violation) = always_the_same(sampler) {
        return nothing(violation);
    }
    let mut corpus = Corpus::new(config.seed);
    // Small cases first: a counterexample among them needs little shrinking.
    let drawn = cases(law, sampler, config).map(|case| (case, true));
    for (number, (case, is_drawn)) in (1..).zip(drawn.chain(fixed.into_iter().map(|case| (case, false)))) {
        watch(Progress::Checking { law, case: number, cases: total });
        *(if is_drawn { &mut tried.cases } else { &mut tried.fixed }) += 1;
        let case = if is_drawn && law != Law::Limits { corpus.instead_of(case) } else { case };
        let (case, trial) = match built(law, merge, sampler, case) {
            Ok(Some(built)) => built,
            Ok(None) => continue,
            Err(violation) => return nothing(violation),
        };
        tried.bytes = tried.bytes.max(trial.siblings.iter().map(|sibling| sibling.value.len()).sum());
        tried.collisions += u32::from(is_drawn && collides(&trial));
        let verdict = law.judge(merge, &trial);
        if is_drawn && merge.has_reached_new_code() {
            corpus.keep(&case);
        }
        match verdict {
            Verdict::Held => tried.judged += u32::from(is_drawn),
            Verdict::TooLarge => {
                tried.judged += 1;
                tried.too_large += 1;
            }
            Verdict::Unjudged => {}
            Verdict::Broken(violation) => {
                let budget = ShrinkBudget::new(law, config.shrink, watch);
                let FailingCase { trial, violation, .. } =
                    shrink(law, merge, sampler, FailingCase { case, trial, violation }, budget);
                return Err(Box::new(Counterexample { law, trial, violation, seed: config.seed }));
            }
        }
    }
    Ok(tried)
}

/// With a sampler that draws one value only, every law would hold without having been checked.
fn always_the_same(sampler: &dyn Sampler) -> Option<Violation> {
    if !sampler.draws_valid_values() {
        return None;
    }
    let first = sampler.sample(0, 0).ok()?;
    let others = (0..16).flat_map(|seed| [0, 1, 4, 12].map(|size| (seed, size)));
    let differs = |(seed, size): (u64, u32)| sampler.sample(seed, size).map_or(true, |value| value != first);
    let reason = "it gives the same value for all seeds and sizes, so no law can fail";
    (!others.into_iter().any(differs)).then(|| Violation::NoSample { seed: 0, size: 12, reason: reason.into() })
}

fn cases(law: Law, sampler: &dyn Sampler, config: CheckConfig) -> Box<dyn Iterator<Item = Case>> {
    let mut rng = Rng::new(config.seed);
    match (law, config.bucket) {
        (Law::Limits, Some(limits)) => Box::new(largest::draw(&mut rng, sampler, &limits).into_iter()),
        (Law::Limits, None) => Box::new(std::iter::empty()),
        _ => Box::new((0..config.cases).map(move |number| {
            let size = (u64::from(config.size) * u64::from(number + 1)).div_ceil(u64::from(config.cases));
            let size = u32::try_from(size).unwrap_or(config.size);
            let mut case = Case::draw_up_to(&mut rng, size, config.collide, config.siblings);
            // Damaged values later: a fault that valid values show is better shown on those.
            if law != Law::Totality && number < config.cases / 2 {
                case.inputs.iter_mut().for_each(|input| input.damage = None);
            }
            case
        })),
    }
}

/// The case with its siblings. `None` if a merge that the case needs fails: only totality judges that, on the failed
/// merge as a case of its own.
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
