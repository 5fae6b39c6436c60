//! Versions of a plugin on whole clusters: what the runs of a few seeds must have met, so that the checkers have
//! something to look at. Other seeds are run with the whole swarm.

use std::collections::BTreeMap;

use rejoin_test_sim::history::Kind;
use rejoin_test_sim::options::{Options, PerMillion, VersionOptions};
use rejoin_test_sim::run;

/// A virtual second, in microseconds.
const SECOND: u64 = 1_000_000;

/// Runs seeds with one kind of values and versions that change, and adds up what was met.
fn met(kind: Kind, seeds: std::ops::Range<u64>, versions: &VersionOptions) -> BTreeMap<&'static str, u64> {
    let mut marks = BTreeMap::new();
    for seed in seeds {
        let mut options = Options::draw(seed);
        options.buckets.truncate(1);
        (options.buckets[0].kind, options.buckets[0].plugin, options.buckets[0].keys) = (kind, true, 8);
        (options.faults.version, options.versions) = (SECOND, versions.clone());
        (options.clients.blind, options.wasm) = (PerMillion(500_000), false);
        (options.chaos_us, options.max_receipt_bytes) = (15 * SECOND, 4 << 20);
        let report = run::with(options, None);
        assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        report.marks.into_iter().for_each(|(mark, times)| *marks.entry(mark).or_default() += times);
    }
    marks
}

fn versions() -> VersionOptions {
    VersionOptions {
        bad: PerMillion(0),
        canaries: PerMillion(500_000),
        shadows: PerMillion(300_000),
        fold_delay_ms: 500,
        late: PerMillion(300_000),
        late_us: SECOND,
    }
}

#[test]
fn what_a_bad_version_has_folded_is_undone_in_sets_and_carts() {
    for kind in [Kind::Set, Kind::Cart] {
        let marks = met(kind, 0..6, &VersionOptions { bad: PerMillion(700_000), ..versions() });
        for mark in ["bad version", "rollback", "merge by the bad version", "fold by the bad version", "fold undone"] {
            assert!(marks.get(mark).is_some_and(|times| *times > 0), "{mark} was not met: {marks:?}");
        }
    }
}

#[test]
fn shadows_differ_and_nodes_are_not_ready() {
    let marks = met(Kind::Set, 10..16, &versions());
    let wanted = ["version changed", "shadow: different", "shadow: equal", "merge by a node that is not ready"];
    for mark in wanted {
        assert!(marks.get(mark).is_some_and(|times| *times > 0), "{mark} was not met: {marks:?}");
    }
    assert!(!marks.contains_key("merge by the bad version"), "it was a shadow only: {marks:?}");
}
