//! Tries every law on a component, as a bucket with the default properties would run it.

use std::time::Duration;

use rejoin_laws::{Counterexample, Effort, Largest, Law, Progress, Tried, Violation, check_law_watched};
use rejoin_proto::catalog::BucketProps;

use crate::compile::{Cancel, Compiler};
use crate::fault::{HostError, Rejection};
use crate::host::{Host, HostConfig};
use crate::limits::{CallLimits, ModuleLimits};
use crate::subject::Subject;

/// So long that only fuel decides, however busy the machine is.
const WALL: Duration = Duration::from_secs(300);

/// One law, and whether it held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The law.
    pub law: Law,
    /// On what it was tried, or what breaks it.
    pub result: Result<Tried, Box<Counterexample>>,
}

/// What the laws say of a component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Examination {
    /// The laws, in the order in which they were tried. A sampler that fails ends it; limits are tried of a total merge
    /// only.
    pub outcomes: Vec<Outcome>,
    /// The most fuel that one merge has taken.
    pub most_fuel: u64,
    /// The fuel that one merge of the largest siblings may take.
    pub fuel: u64,
}

/// Why a component cannot be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotExamined {
    /// There is no engine to run it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It is no plugin.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl Examination {
    /// What breaks a law, in the order of the laws.
    pub fn counterexamples(&self) -> impl Iterator<Item = &Counterexample> {
        self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err().map(AsRef::as_ref))
    }
}

/// Loads a component on two hosts, with the limits that the properties give a merge.
///
/// Results may have any length here: what is too long is for [`Law::Growth`] to say, and no merge of large values can
/// help being large.
///
/// # Errors
/// [`NotExamined`] if it is no plugin, or no engine can be started.
pub fn subject(component: &[u8], compiler: &Compiler, props: &BucketProps) -> Result<Subject, NotExamined> {
    let limits = CallLimits {
        fuel: props.fuel,
        memory_bytes: props.memory_bytes as usize,
        result_bytes: props.memory_bytes as usize,
        max_siblings: usize::from(props.siblings),
        wall: WALL,
    };
    let host = || Host::new(HostConfig { instances: 1, ..HostConfig::default() });
    let (host, other) = (host()?, host()?);
    let compiled = host.compile_by(compiler, component, &ModuleLimits::default(), &Cancel::default())?;
    let (plugin, twin) = (host.load(&compiled)?, other.load(&compiled)?);
    Ok(Subject::new(host, plugin, limits).and_elsewhere(other, twin))
}

/// Tries every law. The law of limits is tried on the largest siblings that the properties allow, as far as the
/// plugin's sampler draws them.
#[must_use]
pub fn examine(subject: &Subject, props: &BucketProps, effort: Effort) -> Examination {
    examine_watched(subject, props, effort, &mut |_| {})
}

/// As [`examine`], and tells how far it has come.
#[must_use]
pub fn examine_watched(subject: &Subject, props: &BucketProps, effort: Effort, watch: &mut dyn FnMut(Progress)) -> Examination {
    let largest =
        Largest { siblings: usize::from(props.siblings), value_bytes: props.value_bytes as usize, object_bytes: props.object_bytes() };
    let effort = Effort { largest: Some(largest), siblings: usize::from(props.siblings), ..effort };
    let mut outcomes = Vec::new();
    for law in rejoin_laws::laws::ALL {
        // What breaks on small values says nothing about large ones.
        if law == Law::Limits && outcomes.iter().any(|outcome: &Outcome| outcome.law == Law::Totality && outcome.result.is_err()) {
            break;
        }
        let result = check_law_watched(law, subject, subject, effort, watch).map_err(|found| explained(subject, found));
        let no_sample = matches!(&result, Err(found) if matches!(found.violation, Violation::NoSample { .. }));
        outcomes.push(Outcome { law, result });
        if no_sample {
            break;
        }
    }
    Examination { outcomes, most_fuel: subject.most_fuel(), fuel: subject.fuel() }
}

/// A merge that was not answered is told with the sibling to which that is due. A validator's failure says itself what
/// it was given.
fn explained(subject: &Subject, mut found: Box<Counterexample>) -> Box<Counterexample> {
    if let Violation::NoAnswer { siblings, failure } = &mut found.violation
        && siblings.len() > 1
    {
        *failure = subject.explained(&found.trial.key, siblings, failure.clone());
    }
    found
}
