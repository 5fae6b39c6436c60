//! One seed from its options to its verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::{self, Finding};
use crate::history::Run;
use crate::options::Options;
use crate::plugins;
use crate::record::{CLASH, QUARANTINED, VIEWS_DIFFER};
use crate::trace::{Filter, Line};
use crate::world::World;

/// The checker's name in a finding: the cluster did not come together after the faults.
pub const LIVENESS: &str = "liveness";
/// The checker's name in a finding: an assertion of the core has failed.
pub const PANIC: &str = "panic";

/// The checker's name in a finding: the catalogs of nodes contradict each other.
pub const CATALOG: &str = "catalog";

/// The checker's name in a finding: a stored hash tree is not what its objects come to.
pub const TREES: &str = "trees";

/// The checker's name in a finding: a disk went back, and nobody has noticed.
pub const CLASHES: &str = "clashes";

/// The checker's name in a finding: a good plugin was found not to be deterministic.
pub const VIEWS: &str = "views";

/// The most findings about hash trees that are reported.
const MOST_TREES: usize = 5;

/// The report of one seed.
#[derive(Debug)]
pub struct Report {
    /// The options that were drawn from it.
    pub options: Options,
    /// The findings; empty for a sound run.
    pub findings: Vec<Finding>,
    /// Calls of clients that have ended.
    pub operations: u64,
    /// Virtual time that has passed, in microseconds.
    pub virtual_us: u64,
    /// The digest of all events in order.
    pub digest: u64,
    /// The number of events.
    pub events: u64,
    /// How often each fault took effect, and each alarm was raised.
    pub marks: BTreeMap<&'static str, u64>,
    /// The lines that were asked for.
    pub lines: Vec<Line>,
    /// The record of the run.
    pub run: Run,
}

/// Runs a seed.
#[must_use]
pub fn seed(seed: u64) -> Report {
    with(Options::draw(seed), None)
}

/// Runs a seed and keeps the lines that pass the filter.
#[must_use]
pub fn traced(seed: u64, filter: Filter) -> Report {
    with(Options::draw(seed), Some(filter))
}

/// Runs with these options, whatever their seed would have drawn.
#[must_use]
pub fn with(options: Options, filter: Option<Filter>) -> Report {
    let mut world = World::new(options.clone(), filter);
    // A failed assertion stops a real node. Here it ends the run, with the trace that led to it.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.run_until(options.chaos_us);
        world.settle()
    }));
    let mut findings: Vec<Finding> = match outcome {
        Ok(problems) => {
            problems.into_iter().map(|evidence| Finding { checker: LIVENESS, key: None, evidence }).collect()
        }
        Err(panic) => vec![Finding { checker: PANIC, key: None, evidence: words_of(&*panic) }],
    };
    let run = world.finish();
    let (operations, virtual_us) = (world.recorder.ended, world.now_us());
    let (digest, events) = (world.trace.digest(), world.trace.events());
    // What the owners hold is judged as the end of a run that came to one.
    if findings.is_empty() {
        findings.extend(check::all(&run, plugins::of));
    }
    let strange = std::mem::take(&mut world.recorder.catalog);
    findings.extend(strange.into_iter().map(|evidence| Finding { checker: CATALOG, key: None, evidence }));
    let wrong = std::mem::take(&mut world.recorder.trees);
    findings.extend(wrong.into_iter().take(MOST_TREES).map(|evidence| Finding { checker: TREES, key: None, evidence }));
    let marks = std::mem::take(&mut world.recorder.marks);
    for mark in [QUARANTINED, VIEWS_DIFFER] {
        if let (Some(times), None) = (marks.get(mark), options.liar) {
            findings.push(Finding { checker: VIEWS, key: None, evidence: format!("{mark}, {times} times") });
        }
    }
    if let Some(times) = marks.get(CLASH) {
        findings.push(Finding {
            checker: CLASHES,
            key: None,
            evidence: format!("the cores have found one dot under two values {times} times"),
        });
    }
    Report { options, findings, operations, virtual_us, digest, events, marks, lines: world.into_lines(), run }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".into())
}
