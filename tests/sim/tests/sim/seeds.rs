//! What every run of CI does: two hundred seeds, and whether a seed is a run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::num::NonZero;
use std::sync::Mutex;

use rejoin_test_sim::campaign::{self, failure};
use rejoin_test_sim::run;
use rejoin_test_sim::trace::Filter;

#[test]
fn two_hundred_seeds_come_together_and_lose_nothing() {
    let failures = Mutex::new(String::new());
    let jobs = std::thread::available_parallelism().map_or(1, NonZero::get);
    let summary = campaign::run(0..200, jobs, |report| {
        if !report.findings.is_empty() {
            failures.lock().unwrap().push_str(&failure(report));
        }
    });
    println!("{summary}");
    assert!(summary.failed.is_empty(), "{}", failures.into_inner().unwrap());
    assert!(summary.operations > 400_000, "the clients have done something: {summary}");
    // What is said to be borne has happened.
    for what in [
        "kill",
        "end in the middle of a batch",
        "power lost with writes",
        "wipe",
        "old copy",
        "objection",
        "reported loss",
        "damage found",
        "busy stores",
        "tenure ended",
        "stamp of the future",
        "version changed",
        "fold by the bad version",
        "fold undone",
        "shadow: different",
        "merge by a node that is not ready",
    ] {
        assert!(summary.marks.contains_key(what), "{what} did not happen: {:?}", summary.marks);
    }
}

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for seed in [3, 17, 40] {
        let (first, second) = (run::traced(seed, Filter::default()), run::traced(seed, Filter::default()));
        assert_eq!((first.digest, first.events), (second.digest, second.events), "seed {seed}");
        let differs = first.lines.iter().zip(&second.lines).find(|(a, b)| a != b);
        assert!(differs.is_none() && first.lines.len() == second.lines.len(), "seed {seed}: {differs:?}");
        assert_eq!(run::seed(seed).digest, first.digest, "looking on changes nothing");
    }
    let digests: Vec<u64> = (100..112).map(|seed| run::seed(seed).digest).collect();
    let again: Vec<u64> = (100..112).map(|seed| run::seed(seed).digest).collect();
    assert_eq!(digests, again);
    let mut different = digests;
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 12, "and another seed another one");
}

/// Power was lost where the only copy of an acknowledged write stood in a block that could not be read for a while: the
/// atlas must count it.
#[test]
fn a_block_that_cannot_be_read_is_no_leave_to_forget_it() {
    let report = run::seed(100_551);
    assert!(report.findings.is_empty(), "{}", failure(&report));
}

#[test]
fn a_trace_can_be_read_and_filtered() {
    let filter = Filter { key: Some(0), node: Some(1), from_us: 0, to_us: 20_000_000 };
    let report = run::traced(17, filter);
    assert!(!report.lines.is_empty());
    for line in &report.lines {
        assert!(
            line.key.is_none_or(|key| key == 0) && line.node.is_none_or(|node| node == 1) && line.at_us <= 20_000_000,
            "{line}"
        );
    }
    let text = report.lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("connected to n") && text.contains(" k0 "), "{text}");
}
