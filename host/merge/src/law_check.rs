//! Checks every law on a component, under the limits of a bucket.

use std::collections::BTreeSet;
use std::time::Duration;

use rejoin_laws::{
    BucketLimits, CheckConfig, ConvergenceConfig, ConvergenceStats, Counterexample, HistoryConfig, HistoryStats, Law,
    LawStats, Memoised, Progress, RememberedSamples, SampleStats, ScenarioError, SmallScope, Trial, Violation,
    WithFixtures, check_classics, check_convergence, check_histories, check_law_with_progress, check_recorded,
    check_small_scope, sample_stats,
};
use rejoin_proto::catalog::BucketProps;

use crate::compile::{CancelToken, Compiler};
use crate::coverage::Covered;
use crate::fault::{HostError, Rejection};
use crate::host::{Host, HostConfig};
use crate::intent::{ComponentIntent, IntentError, IntentFile};
use crate::limits::{CallLimits, ModuleLimits};
use crate::under_test::{PluginUnderTest, UnderLimits};

/// Recorded values of up to so many bytes are drawn among those of the sampler; larger ones would make every case slow.
const DRAWN_BYTES: usize = 16 << 10;
/// Long enough that only fuel ends a call, however busy the machine is.
const WALL: Duration = Duration::from_secs(300);

/// The result of checking one law.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawOutcome {
    /// The law that was checked.
    pub law: Law,
    /// What it was checked on, or what breaks it.
    pub result: Result<LawStats, Box<Counterexample>>,
}

/// What a component is checked on.
#[derive(Clone, Debug, Default)]
pub struct LawOptions {
    /// The cases of the laws, and the small scope.
    pub config: CheckConfig,
    /// Valid values of the team, or recorded from a bucket, that are checked among those of the sampler.
    pub fixtures: Vec<Vec<u8>>,
    /// Siblings that a bucket has had. Each law is checked on each set of them, and their values of up to 16 KiB are
    /// fixtures too, unless they are all the same and would be all that is drawn.
    pub recorded: Vec<Trial>,
    /// The limits under which the bucket's plugin merges them, see [`CallLimits::of_bucket`]. `None`: those of all
    /// other siblings.
    pub recorded_limits: Option<CallLimits>,
    /// The random histories of the sampler's values.
    pub convergence: ConvergenceConfig,
    /// What the plugin's operations mean, if its author says so.
    pub intent: Option<IntentFile>,
    /// The histories of these operations. Whether replicas fold is the plugin's to say.
    pub histories: HistoryConfig,
}

/// What was found beyond the laws.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// What the sampler draws.
    pub samples: SampleStats,
    /// The small scope, if no law was broken before.
    pub small_scope: Option<SmallScope>,
    /// The random histories, if no law was broken before.
    pub convergence: Option<Result<ConvergenceStats, ScenarioError>>,
    /// The histories of the intent, if there is one and no law was broken before.
    pub histories: Option<Result<HistoryStats, ScenarioError>>,
    /// The classic histories of the intent, as `histories`: how many were played.
    pub classics: Option<Result<usize, ScenarioError>>,
    /// The scenarios of the intent, as `histories`: how many were played.
    pub scenarios: Option<Result<usize, ScenarioError>>,
    /// The recorded siblings, if there were any.
    pub recorded: Option<RecordedStats>,
    /// The merges that were run.
    pub merges: u64,
}

/// The recorded siblings that a plugin was checked on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecordedStats {
    /// Sets of siblings.
    pub sets: u32,
    /// Siblings of all sets.
    pub siblings: u32,
    /// How often a law that held has judged a set.
    pub judged: u32,
    /// How often a law that held had no time for a set.
    pub left: u32,
}

impl Findings {
    /// The histories that ended otherwise than they should.
    pub fn wrong_histories(&self) -> impl Iterator<Item = &ScenarioError> {
        let convergence = self.convergence.as_ref().and_then(|result| result.as_ref().err());
        let histories = self.histories.as_ref().and_then(|result| result.as_ref().err());
        let classics = self.classics.as_ref().and_then(|result| result.as_ref().err());
        let scenarios = self.scenarios.as_ref().and_then(|result| result.as_ref().err());
        [convergence, histories, classics, scenarios].into_iter().flatten()
    }
}

/// The results of checking the laws on a component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawReport {
    /// In the order of [`Law::ALL`]. The list ends early if the sampler fails, and has no [`Law::Limits`] if totality
    /// is broken.
    pub outcomes: Vec<LawOutcome>,
    /// The most fuel that one merge has used.
    pub most_fuel: u64,
    /// The fuel that a merge of the largest siblings gets.
    pub fuel: u64,
    /// What was found beyond the laws.
    pub findings: Findings,
}

/// Why a component cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The engine cannot be started.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The component is no plugin.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl LawReport {
    /// The counterexamples, in the order of the laws.
    pub fn counterexamples(&self) -> impl Iterator<Item = &Counterexample> {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err().map(AsRef::as_ref))
    }

    /// Whether any law has judged a result. If none has, the plugin refused every value that it was given, and nothing
    /// is known of its merge. Totality does not count: refusing garbage obeys it.
    #[must_use]
    pub fn has_judged(&self) -> bool {
        let has = |outcome: &LawOutcome| match &outcome.result {
            Ok(stats) => stats.judged > 0 && outcome.law != Law::Totality,
            Err(_) => true,
        };
        self.outcomes.iter().any(has) || self.findings.recorded.is_some_and(|recorded| recorded.judged > 0)
    }

    /// The cases of [`Law::Limits`] whose result was larger than the bucket takes.
    #[must_use]
    pub fn too_large(&self) -> u32 {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok()).map(|stats| stats.too_large).sum()
    }
}

impl CallLimits {
    /// The limits that a bucket with these properties gives a merge whose laws are checked: only fuel ends it, not
    /// time.
    #[must_use]
    pub fn of_bucket(props: &BucketProps) -> Self {
        Self {
            fuel: props.fuel,
            memory_bytes: props.memory_bytes as usize,
            result_bytes: props.value_bytes as usize,
            max_siblings: usize::from(props.siblings),
            wall: WALL,
        }
    }
}

impl PluginUnderTest {
    /// Loads a component on two hosts, with the limits that a bucket with these properties and a node with these limits
    /// of a module give it.
    ///
    /// # Errors
    /// [`LoadError`] if the component is no plugin, or an engine cannot be started.
    pub fn load(
        component: &[u8],
        compiler: &Compiler,
        modules: &ModuleLimits,
        props: &BucketProps,
    ) -> Result<Self, LoadError> {
        let limits = CallLimits::of_bucket(props);
        let host = || Host::new(HostConfig { instances: 1, ..HostConfig::default() });
        let (host, other) = (host()?, host()?);
        let compiled = compiler.compile(&host, component, modules, &CancelToken::default())?;
        let (plugin, twin) = (host.load(&compiled)?, other.load(&compiled)?);
        let covered = Covered::new(&host, compiler, component, modules);
        Ok(Self::new(host, plugin, limits).and_elsewhere(other, twin).and_covered(covered))
    }
}

/// Checks every law. [`Law::Limits`] is checked on the largest siblings that the properties allow, as far as the
/// plugin's sampler draws them.
#[must_use]
pub fn check_laws(under_test: &PluginUnderTest, props: &BucketProps, config: CheckConfig) -> LawReport {
    check_laws_with_progress(under_test, props, config, &mut |_| {})
}

/// As [`check_laws`], with reports on the progress.
#[must_use]
pub fn check_laws_with_progress(
    under_test: &PluginUnderTest,
    props: &BucketProps,
    config: CheckConfig,
    watch: &mut dyn FnMut(Progress),
) -> LawReport {
    report(under_test, props, &LawOptions { config, ..LawOptions::default() }, None, watch)
}

/// As [`check_laws`], with values of the team and the meaning of operations. Histories are tried only if no law is
/// broken.
///
/// # Errors
/// [`IntentError`] if the intent needs an ability that the plugin does not export.
pub fn check_laws_with_options(
    under_test: &PluginUnderTest,
    props: &BucketProps,
    options: &LawOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<LawReport, IntentError> {
    let intent = options.intent.as_ref().map(|file| ComponentIntent::new(under_test, file)).transpose()?;
    Ok(report(under_test, props, options, intent.as_ref(), watch))
}

fn report(
    under_test: &PluginUnderTest,
    props: &BucketProps,
    options: &LawOptions,
    intent: Option<&ComponentIntent<'_>>,
    watch: &mut dyn FnMut(Progress),
) -> LawReport {
    let siblings = usize::from(props.siblings);
    let bucket = BucketLimits { siblings, value_bytes: props.value_bytes as usize, object_bytes: props.object_bytes() };
    let config = CheckConfig { bucket: Some(bucket), siblings, ..options.config };
    let own = under_test.under(under_test.limits);
    let merge = Memoised::new(under_test);
    let in_bucket = under_test.under(options.recorded_limits.unwrap_or(under_test.limits));
    let recorded_merge = Memoised::new(&in_bucket);
    let recorded = within(&options.recorded, in_bucket.max_siblings());
    let sampler = WithFixtures::new(under_test, fixtures(options, under_test.plugin.exports().sample));
    let sampler = RememberedSamples::new(&sampler);
    let (mut outcomes, mut judged, mut left) = (Vec::new(), 0_u32, 0_u32);
    for law in Law::ALL {
        let is_total =
            || !outcomes.iter().any(|outcome: &LawOutcome| outcome.law == Law::Totality && outcome.result.is_err());
        // A merge that fails on small values would fail on large ones for the same reason.
        if law == Law::Limits && !is_total() {
            break;
        }
        let result = check_law_with_progress(law, &merge, &sampler, config, watch);
        let result = result.map_err(|found| with_faulty_sibling(own, found)).and_then(|stats| {
            let found = check_recorded(law, &recorded_merge, &recorded, config, watch);
            let of_law = found.map_err(|found| with_faulty_sibling(in_bucket, found))?;
            // Totality is no judgement of a result, see `LawReport::has_judged`.
            judged = judged.saturating_add(if law == Law::Totality { 0 } else { of_law.judged });
            left = left.saturating_add(of_law.left);
            Ok(stats)
        });
        let no_sample = matches!(&result, Err(found) if matches!(found.violation, Violation::NoSample { .. }));
        outcomes.push(LawOutcome { law, result });
        if no_sample {
            break;
        }
    }
    let mut findings = Findings {
        samples: sample_stats(&sampler),
        recorded: counted(&recorded, (judged, left)),
        ..Findings::default()
    };
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        match check_small_scope(&merge, &sampler, config, watch) {
            Ok(scope) => findings.small_scope = Some(scope),
            Err(found) => {
                let found = with_faulty_sibling(own, found);
                let broken = outcomes.iter_mut().find(|outcome| outcome.law == found.law);
                if let Some(outcome) = broken {
                    outcome.result = Err(found);
                }
            }
        }
    }
    // Whatever breaks a law ends histories otherwise, too, and a counterexample says more about it.
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        if config.collide {
            findings.convergence = Some(check_convergence(&merge, &sampler, options.convergence));
        }
        if let Some(intent) = intent {
            let folds = under_test.plugin.metadata().is_some_and(|metadata| metadata.self_causal);
            let histories = HistoryConfig { folds, ..options.histories };
            findings.histories = Some(check_histories(&merge, intent, histories, watch));
            findings.classics = Some(check_classics(&merge, intent));
            findings.scenarios = intent.play_scenarios(&merge);
        }
    }
    findings.merges = merge.runs() + recorded_merge.runs();
    LawReport { outcomes, most_fuel: under_test.most_fuel(), fuel: under_test.fuel(), findings }
}

/// Adds to a failed merge which sibling makes it fail. A failure of a validator already names its value.
fn with_faulty_sibling(under: UnderLimits<'_>, mut found: Box<Counterexample>) -> Box<Counterexample> {
    if let Violation::NoAnswer { siblings, failure } = &mut found.violation
        && siblings.len() > 1
    {
        *failure = under.with_faulty_sibling(&found.trial.key, siblings, failure.clone());
    }
    found
}

/// The recorded sets as a bucket may have them that gives its plugin so many siblings at the most.
fn within(recorded: &[Trial], siblings: usize) -> Vec<Trial> {
    let cut = |trial: &Trial| {
        let mut trial = trial.clone();
        trial.siblings.truncate(siblings);
        trial
    };
    recorded.iter().map(cut).filter(|trial| trial.siblings.len() > 1).collect()
}

/// The values that are drawn among those of the sampler, if the plugin has one: the team's, and recorded ones that are
/// not large.
fn fixtures(options: &LawOptions, has_sampler: bool) -> Vec<Vec<u8>> {
    let recorded = options.recorded.iter().flat_map(|trial| &trial.siblings).map(|sibling| &sibling.value);
    let mut small: BTreeSet<&Vec<u8>> = recorded.filter(|value| value.len() <= DRAWN_BYTES).collect();
    // Without a sampler they would be all that is drawn, and of one value no law says anything.
    if !has_sampler && small.len() < 2 {
        small.clear();
    }
    options.fixtures.iter().chain(small).cloned().collect()
}

fn counted(recorded: &[Trial], (judged, left): (u32, u32)) -> Option<RecordedStats> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let siblings: usize = recorded.iter().map(|trial| trial.siblings.len()).sum();
    let sets = count(recorded.len());
    (!recorded.is_empty()).then(|| RecordedStats { sets, siblings: count(siblings), judged, left })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_laws::Sibling;

    fn set(lengths: &[usize]) -> Trial {
        let sibling = |length: &usize| Sibling { value: vec![b'x'; *length], stamp_ms: 1, writer: 1 };
        Trial { key: b"k".to_vec(), siblings: lengths.iter().map(sibling).collect(), valid: true }
    }

    #[test]
    fn recorded_siblings_are_cut_to_what_a_bucket_allows_and_large_values_are_not_drawn() {
        let recorded = vec![set(&[1, 2, 3]), set(&[2, DRAWN_BYTES + 1])];
        let cut = within(&recorded, 2);
        assert_eq!(cut.iter().map(|trial| trial.siblings.len()).collect::<Vec<_>>(), [2, 2]);
        assert!(within(&recorded, 1).is_empty(), "one is nothing to merge");
        let options = LawOptions { fixtures: vec![vec![b'y'; DRAWN_BYTES + 1]], recorded, ..LawOptions::default() };
        let lengths = |options, has_sampler| fixtures(options, has_sampler).iter().map(Vec::len).collect::<Vec<_>>();
        for has_sampler in [true, false] {
            let drawn = lengths(&options, has_sampler);
            assert_eq!(drawn, [DRAWN_BYTES + 1, 1, 2, 3], "the team's own are, and each value once");
        }
        let same = LawOptions { recorded: vec![set(&[2, 2]), set(&[2, 2, 2])], ..LawOptions::default() };
        assert_eq!((lengths(&same, true), lengths(&same, false)), (vec![2], vec![]), "nothing is drawn of one value");
        assert_eq!(counted(&cut, (7, 3)), Some(RecordedStats { sets: 2, siblings: 4, judged: 7, left: 3 }));
        assert_eq!(counted(&[], (0, 0)), None);
    }
}
