//! Tries every law on a component, as a bucket with the default properties would run it.

use std::time::Duration;

use rejoin_laws::{BucketLimits, CheckConfig, Counterexample, Law, LawStats, Progress, Violation, check_law_with_progress};
use rejoin_proto::catalog::BucketProps;

use crate::compile::{CancelToken, Compiler};
use crate::fault::{HostError, Rejection};
use crate::host::{Host, HostConfig};
use crate::limits::{CallLimits, ModuleLimits};
use crate::under_test::PluginUnderTest;

/// So long that only fuel decides, however busy the machine is.
const WALL: Duration = Duration::from_secs(300);

/// One law, and whether it held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawOutcome {
    /// The law.
    pub law: Law,
    /// On what it was tried, or what breaks it.
    pub result: Result<LawStats, Box<Counterexample>>,
}

/// What the laws say of a component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawReport {
    /// The laws, in the order in which they were tried. A sampler that fails ends it; limits are tried of a total merge
    /// only.
    pub outcomes: Vec<LawOutcome>,
    /// The most fuel that one merge has taken.
    pub most_fuel: u64,
    /// The fuel that one merge of the largest siblings may take.
    pub fuel: u64,
}

/// Why a component cannot be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no engine to run it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It is no plugin.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl LawReport {
    /// What breaks a law, in the order of the laws.
    pub fn counterexamples(&self) -> impl Iterator<Item = &Counterexample> {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err().map(AsRef::as_ref))
    }
}

impl PluginUnderTest {
    /// Loads a component on two hosts, with the limits that a bucket with these properties gives a merge.
    ///
    /// # Errors
    /// [`LoadError`] if the component is no plugin, or an engine cannot be started.
    pub fn load(component: &[u8], compiler: &Compiler, props: &BucketProps) -> Result<Self, LoadError> {
        let limits = CallLimits {
            fuel: props.fuel,
            memory_bytes: props.memory_bytes as usize,
            result_bytes: props.memory_bytes as usize,
            max_siblings: usize::from(props.siblings),
            wall: WALL,
        };
        let host = || Host::new(HostConfig { instances: 1, ..HostConfig::default() });
        let (host, other) = (host()?, host()?);
        let compiled = compiler.compile(&host, component, &ModuleLimits::default(), &CancelToken::default())?;
        let (plugin, twin) = (host.load(&compiled)?, other.load(&compiled)?);
        Ok(Self::new(host, plugin, limits).and_elsewhere(other, twin))
    }
}

/// Tries every law. The law of limits is tried on the largest siblings that the properties allow, as far as the
/// plugin's sampler draws them.
#[must_use]
pub fn check_laws(under_test: &PluginUnderTest, props: &BucketProps, config: CheckConfig) -> LawReport {
    check_laws_with_progress(under_test, props, config, &mut |_| {})
}

/// As [`check_laws`], and tells how far it has come.
#[must_use]
pub fn check_laws_with_progress(
    under_test: &PluginUnderTest,
    props: &BucketProps,
    config: CheckConfig,
    watch: &mut dyn FnMut(Progress),
) -> LawReport {
    let largest =
        BucketLimits { siblings: usize::from(props.siblings), value_bytes: props.value_bytes as usize, object_bytes: props.object_bytes() };
    let config = CheckConfig { largest: Some(largest), siblings: usize::from(props.siblings), ..config };
    let mut outcomes = Vec::new();
    for law in Law::ALL {
        // What breaks on small values says nothing about large ones.
        if law == Law::Limits && outcomes.iter().any(|outcome: &LawOutcome| outcome.law == Law::Totality && outcome.result.is_err()) {
            break;
        }
        let result =
            check_law_with_progress(law, under_test, under_test, config, watch).map_err(|found| with_faulty_sibling(under_test, found));
        let no_sample = matches!(&result, Err(found) if matches!(found.violation, Violation::NoSample { .. }));
        outcomes.push(LawOutcome { law, result });
        if no_sample {
            break;
        }
    }
    LawReport { outcomes, most_fuel: under_test.most_fuel(), fuel: under_test.fuel() }
}

/// A merge that was not answered is told with the sibling to which that is due. A validator's failure says itself what
/// it was given.
fn with_faulty_sibling(under_test: &PluginUnderTest, mut found: Box<Counterexample>) -> Box<Counterexample> {
    if let Violation::NoAnswer { siblings, failure } = &mut found.violation
        && siblings.len() > 1
    {
        *failure = under_test.with_faulty_sibling(&found.trial.key, siblings, failure.clone());
    }
    found
}
