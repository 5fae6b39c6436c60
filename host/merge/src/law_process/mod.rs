//! Checks the laws of a component in a process of its own, within limits of memory and time: what a node does when a
//! plugin is pushed.
//!
//! The process is the node's own program with another verb, like the one that compiles (`compile`), and gives way to
//! the node. It checks what `plugin test` checks, with the same engine profile and the same limits of a call, so both
//! make the same report. It writes its progress and the report to a pipe, of which the node reads a bounded number of
//! bytes.
//!
//! Reading order: `child` is the process, `parent` runs it, `wire` is their protocol, `queue` has the threads that wait
//! for it.

mod child;
mod parent;
mod queue;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use rejoin_laws::{CheckConfig, HistoryConfig, Progress, Trial};
use rejoin_proto::catalog::BucketProps;

use crate::compile::{ChildCompiler, Compiler};
use crate::intent::IntentFile;
use crate::law_check::{LawOptions, LoadError, check_laws_with_options};
use crate::law_report::LawTest;
use crate::limits::{CallLimits, ModuleLimits};
use crate::under_test::PluginUnderTest;

pub(crate) use child::work;
pub use queue::{LawQueue, PendingLaws};

/// The most time to shrink each counterexample: whoever pushes waits, and `plugin test` gives it longer.
const SHRINK: Duration = Duration::from_secs(5);
/// The longest time for all triples of the smallest values. `plugin test` takes more, as its user wants.
const EXHAUST: Duration = Duration::from_secs(15);
/// The longest time for all histories of an intent's operations, as that of all triples.
const HISTORIES: Duration = Duration::from_secs(30);
/// The longest time for the siblings of a bucket under one law, so that large ones do not take all of the process's.
const RECORDED: Duration = Duration::from_secs(10);

/// What a component is checked on beside the values of its own sampler.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LawInputs {
    /// What its operations mean: an [`IntentFile`].
    pub intent: Option<Bytes>,
    /// Siblings that a bucket has had.
    pub recorded: Vec<Trial>,
    /// The limits that the bucket gives a merge of them. `None`: those of a bucket as it is made.
    pub recorded_limits: Option<CallLimits>,
    /// Valid values of the team, see [`LawOptions::fixtures`].
    pub fixtures: Vec<Bytes>,
}

/// A program that checks laws when it is started with the verb, and its limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawProcess {
    /// The program, whose `main` calls [`child_main`](crate::child_main). By default the running program.
    pub program: PathBuf,
    /// The limits of one check.
    pub limits: LawLimits,
}

impl Default for LawProcess {
    fn default() -> Self {
        Self { program: ChildCompiler::default().program, limits: LawLimits::default() }
    }
}

/// The limits of checking the laws of one component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LawLimits {
    /// Bytes of memory of the process.
    pub memory_bytes: u64,
    /// Processor time, in whole seconds.
    pub cpu_seconds: u64,
    /// The wall-clock limit. Generous, since the process gives way to all others.
    pub wall: Duration,
}

impl Default for LawLimits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, cpu_seconds: 240, wall: Duration::from_secs(1200) }
    }
}

/// Where laws are checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LawRunner {
    /// In this process, without limits of memory and time: for tests.
    InProcess,
    /// In a child process, with limits.
    Child(LawProcess),
}

/// How far a check has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LawProgress {
    /// The law that is checked.
    pub law: String,
    /// The number of the case.
    pub case: u32,
    /// The number of cases of this law. 0: it is not known.
    pub cases: u32,
}

/// Why the laws of a component were not checked to their end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LawError {
    /// The component is no plugin.
    #[error("{0}")]
    Rejected(String),
    /// The check exceeds a limit.
    #[error(
        "checking its laws takes more than {limit}: make the merge use less fuel, or the sampler's values smaller \
            (`rejoin plugin test` checks without this limit)"
    )]
    TooCostly {
        /// The limit, with its unit.
        limit: String,
    },
    /// The node was stopped, or lacked a resource.
    #[error("its laws were not checked: {reason}. Push it again")]
    NotTried {
        /// The reason.
        reason: String,
    },
}

impl LawRunner {
    /// Checks the laws of a component, with the limits of a bucket with default properties.
    ///
    /// # Errors
    /// A [`LawError`] if they were not checked to their end. A broken law is no error.
    pub(crate) fn check(
        &self,
        (component, inputs): (&[u8], &LawInputs),
        modules: &ModuleLimits,
        cancel: &crate::compile::CancelToken,
        watch: &mut dyn FnMut(LawProgress),
    ) -> Result<LawTest, LawError> {
        match self {
            Self::InProcess => check_here((component, inputs), modules, watch),
            Self::Child(process) => process.check((component, inputs), modules, cancel, watch),
        }
    }
}

/// Checks the laws in this process.
fn check_here(
    (component, inputs): (&[u8], &LawInputs),
    modules: &ModuleLimits,
    watch: &mut dyn FnMut(LawProgress),
) -> Result<LawTest, LawError> {
    let props = BucketProps::default();
    let rejected = |why: &dyn std::fmt::Display| LawError::Rejected(why.to_string());
    let intent = inputs.intent.as_deref().map(IntentFile::parse).transpose().map_err(|why| rejected(&why))?;
    let options = LawOptions {
        config: CheckConfig { shrink: SHRINK, exhaust: EXHAUST, recorded: RECORDED, ..CheckConfig::default() },
        fixtures: inputs.fixtures.iter().map(|value| value.to_vec()).collect(),
        recorded: inputs.recorded.clone(),
        recorded_limits: inputs.recorded_limits,
        intent,
        histories: HistoryConfig { time: HISTORIES, ..HistoryConfig::default() },
        ..LawOptions::default()
    };
    let loaded = PluginUnderTest::load(component, &Compiler::InProcess, modules, &props);
    let under_test = loaded.map_err(|error| match error {
        LoadError::Rejected(why) => LawError::Rejected(why.to_string()),
        LoadError::Host(why) => LawError::NotTried { reason: why.to_string() },
    })?;
    let report = check_laws_with_options(&under_test, &props, &options, &mut |progress| {
        if let Some(progress) = shown(progress) {
            watch(progress);
        }
    });
    let report = report.map_err(|why| rejected(&why))?;
    Ok(LawTest::new(&under_test, options.config.seed, &report))
}

fn shown(progress: Progress) -> Option<LawProgress> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    match progress {
        Progress::Checking { law, case, cases } => Some(LawProgress { law: law.name().into(), case, cases }),
        Progress::Exhausting { values, of } => {
            Some(LawProgress { law: "triples".into(), case: count(values), cases: count(of) })
        }
        // How many there are shows only in the end.
        Progress::Histories { histories, .. } => {
            let case = u32::try_from(histories).unwrap_or(u32::MAX);
            Some(LawProgress { law: "histories".into(), case, cases: 0 })
        }
        _ => None,
    }
}
