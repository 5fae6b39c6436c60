//! Checks every law on a component, under the limits of a bucket.

use std::time::Duration;

use rejoin_laws::{
    BucketLimits, CheckConfig, Counterexample, Law, LawStats, Progress, Violation, check_law_with_progress,
};
use rejoin_proto::catalog::BucketProps;

use crate::compile::{CancelToken, Compiler};
use crate::fault::{HostError, Rejection};
use crate::host::{Host, HostConfig};
use crate::limits::{CallLimits, ModuleLimits};
use crate::under_test::PluginUnderTest;

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
        self.outcomes.iter().any(has)
    }

    /// The cases of [`Law::Limits`] whose result was larger than the bucket takes.
    #[must_use]
    pub fn too_large(&self) -> u32 {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok()).map(|stats| stats.too_large).sum()
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
        let limits = CallLimits {
            fuel: props.fuel,
            memory_bytes: props.memory_bytes as usize,
            result_bytes: props.value_bytes as usize,
            max_siblings: usize::from(props.siblings),
            wall: WALL,
        };
        let host = || Host::new(HostConfig { instances: 1, ..HostConfig::default() });
        let (host, other) = (host()?, host()?);
        let compiled = compiler.compile(&host, component, modules, &CancelToken::default())?;
        let (plugin, twin) = (host.load(&compiled)?, other.load(&compiled)?);
        Ok(Self::new(host, plugin, limits).and_elsewhere(other, twin))
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
    let siblings = usize::from(props.siblings);
    let bucket = BucketLimits { siblings, value_bytes: props.value_bytes as usize, object_bytes: props.object_bytes() };
    let config = CheckConfig { bucket: Some(bucket), siblings, ..config };
    let mut outcomes = Vec::new();
    for law in Law::ALL {
        let is_total =
            || !outcomes.iter().any(|outcome: &LawOutcome| outcome.law == Law::Totality && outcome.result.is_err());
        // A merge that fails on small values would fail on large ones for the same reason.
        if law == Law::Limits && !is_total() {
            break;
        }
        let result = check_law_with_progress(law, under_test, under_test, config, watch);
        let result = result.map_err(|found| with_faulty_sibling(under_test, found));
        let no_sample = matches!(&result, Err(found) if matches!(found.violation, Violation::NoSample { .. }));
        outcomes.push(LawOutcome { law, result });
        if no_sample {
            break;
        }
    }
    LawReport { outcomes, most_fuel: under_test.most_fuel(), fuel: under_test.fuel() }
}

/// Adds to a failed merge which sibling makes it fail. A failure of a validator already names its value.
fn with_faulty_sibling(under_test: &PluginUnderTest, mut found: Box<Counterexample>) -> Box<Counterexample> {
    if let Violation::NoAnswer { siblings, failure } = &mut found.violation
        && siblings.len() > 1
    {
        *failure = under_test.with_faulty_sibling(&found.trial.key, siblings, failure.clone());
    }
    found
}
