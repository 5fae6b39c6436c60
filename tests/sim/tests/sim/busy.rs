//! Stores that are behind their flushes for a moment, several at once among them: that makes writes late, and none of
//! unknown fate. Nothing else goes wrong in these runs.

use rejoin_test_sim::history::{Asked, Outcome};
use rejoin_test_sim::options::{FaultOptions, NetworkOptions, Options, PerMillion};
use rejoin_test_sim::run;

/// A virtual second, in microseconds.
const SECOND: u64 = 1_000_000;
/// A write that took so long has met a busy store: the network and the disks of these runs take less.
const LATE_US: u64 = 40_000;

/// A cluster of that seed whose stores alone have faults.
fn options(seed: u64) -> Options {
    let mut options = Options::draw(seed);
    (options.spares, options.change_copies) = (0, false);
    options.faults = FaultOptions { busy: SECOND / 4, ..FaultOptions::default() };
    (options.max_ops, options.max_retry_bytes, options.max_waiting) = (1024, 20 << 20, 1 << 18);
    (options.wasm, options.chaos_us) = (false, 20 * SECOND);
    let quiet = PerMillion::default();
    options.network = NetworkOptions {
        loss: quiet,
        unsent: quiet,
        bulk_stalls: quiet,
        duplicates: quiet,
        stragglers: quiet,
        ghosts: false,
        jitter_us: options.network.jitter_us.min(1_000),
        ..options.network
    };
    (options.clients.think_us, options.clients.deadline_ms) = (20_000, 3_000);
    for bucket in &mut options.buckets {
        let majority = bucket.n / 2 + 1;
        (bucket.r, bucket.w, bucket.pr, bucket.pw) = (majority, majority, 0, 0);
    }
    options
}

#[test]
fn stores_that_are_busy_for_a_moment_leave_no_write_unknown() {
    let (mut stored, mut late, mut several) = (0, 0, 0);
    for seed in 0..12 {
        let report = run::with(options(seed), None);
        assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        several += report.marks.get("busy stores").copied().unwrap_or_default();
        let puts = report.run.calls.iter().filter(|call| matches!(call.asked, Asked::Put { .. }));
        for (at, call) in puts.enumerate() {
            let is_unknown = matches!(call.outcome, Outcome::Unknown(_));
            assert!(!is_unknown, "seed {seed}: put {at}, asked after {} us, is of unknown fate", call.invoked_us);
            let is_stored = call.answer().is_some();
            stored += u64::from(is_stored);
            late += u64::from(is_stored && call.ended_us - call.invoked_us >= LATE_US);
        }
    }
    println!("{stored} writes were stored, {late} of them late; {several} times several stores were busy");
    assert!(stored > 10_000 && late > 100 && several > 100, "{stored} stored, {late} late, {several}");
}
