//! Plugins that are not deterministic: they are found out and quarantined, and no write is lost. A node that computes
//! wrongly is told of, and quarantines nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use rejoin_test_sim::campaign::failure;
use rejoin_test_sim::check::merges;
use rejoin_test_sim::history::Kind;
use rejoin_test_sim::options::{BucketOptions, Liar, Options, PerMillion};
use rejoin_test_sim::run::{self, Report};

const QUARANTINED: &str = "plugin quarantined";
const DIFFER: &str = "views differ";

/// A seed whose only bucket has sets with three copies, and many siblings of each.
fn with(seed: u64, liar: Liar) -> Report {
    let mut options = Options::draw(seed);
    let bucket = BucketOptions {
        kind: Kind::Set,
        n: 3,
        r: 2,
        w: 2,
        pr: 0,
        pw: 0,
        fsync: true,
        siblings: 32,
        plugin: true,
        keys: 4,
        sloppy: true,
    };
    options.buckets = vec![bucket];
    options.clients.blind = PerMillion(200_000);
    options.clients.creates = PerMillion(0);
    (options.exchange, options.wasm, options.liar) = (true, false, Some(liar));
    let mut report = run::with(options, None);
    // That its merges differ is what is wanted.
    report.findings.retain(|finding| finding.checker != merges::NAME);
    report
}

#[test]
fn a_plugin_that_is_not_deterministic_is_quarantined_and_loses_nothing() {
    for liar in [Liar::Calls, Liar::Nodes] {
        for seed in 0..6 {
            let report = with(seed, liar);
            assert!(report.findings.is_empty(), "{liar:?}: {}", failure(&report));
            assert!(report.marks.contains_key(QUARANTINED), "{liar:?}, seed {seed}: {:?}", report.marks);
        }
    }
}

#[test]
fn a_node_that_computes_wrongly_is_named_and_quarantines_nothing() {
    let mut named = 0;
    for seed in 0..6 {
        let report = with(seed, Liar::OneNode(1));
        assert!(report.findings.is_empty(), "{}", failure(&report));
        assert!(!report.marks.contains_key(QUARANTINED), "seed {seed}: {:?}", report.marks);
        named += u32::from(report.marks.contains_key(DIFFER));
    }
    assert!(named >= 4, "in {named} of 6 seeds");
}
