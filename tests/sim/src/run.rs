//! One seed from its options to its verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::{self, Finding};
use crate::history::Run;
use crate::options::Options;
use crate::plugins;
use crate::record::CLASH;
use crate::trace::{Filter, Line};
use crate::world::World;

/// The name under which it is told that what was healed did not come together.
pub const LIVENESS: &str = "liveness";
/// The name under which it is told that an invariant of the core has stopped it.
pub const PANIC: &str = "panic";

/// The name under which it is told that nodes have shown a catalog that must not be.
pub const CATALOG: &str = "catalog";

/// The name under which it is told that a disk that went back was not found out.
pub const CLASHES: &str = "clashes";

/// What came of a seed.
#[derive(Debug)]
pub struct Report {
    /// What it stood for.
    pub options: Options,
    /// What must not be; empty for a sound run.
    pub findings: Vec<Finding>,
    /// Calls of clients that have ended.
    pub operations: u64,
    /// Virtual time that has passed, in microseconds.
    pub virtual_us: u64,
    /// Of everything that happened, in order.
    pub digest: u64,
    /// How much that was.
    pub events: u64,
    /// What happened how often: faults that took effect, and what the cores said.
    pub marks: BTreeMap<&'static str, u64>,
    /// The lines that were asked for.
    pub lines: Vec<Line>,
    /// The record, for who wants to look further.
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
    // An invariant of the core that breaks stops its node; here it ends the run, with all that led to it.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.run_until(options.chaos_us);
        world.settle()
    }));
    let mut findings: Vec<Finding> = match outcome {
        Ok(problems) => problems.into_iter().map(|evidence| Finding { checker: LIVENESS, key: None, evidence }).collect(),
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
    let marks = std::mem::take(&mut world.recorder.marks);
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
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".into())
}
