//! Campaigns: many seeds on several threads, and their report.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use serde::Serialize;

use crate::run::{self, Report};

/// The report of a campaign.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Summary {
    /// Number of seeds.
    pub seeds: u64,
    /// Number of calls that have ended.
    pub operations: u64,
    /// Virtual time, in microseconds, of all seeds together.
    pub virtual_us: u64,
    /// Events of all seeds.
    pub events: u64,
    /// The seeds with findings.
    pub failed: Vec<u64>,
    /// How often each mark was made, over all seeds.
    pub marks: BTreeMap<&'static str, u64>,
    /// Real time, in seconds.
    pub seconds: f64,
    /// Processor time, in seconds. It does not depend on the load of the machine.
    pub cpu_seconds: f64,
    /// Threads.
    pub jobs: usize,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.virtual_us += report.virtual_us;
        self.events += report.events;
        report.marks.iter().for_each(|(what, times)| *self.marks.entry(what).or_default() += times);
        if !report.findings.is_empty() {
            self.failed.push(report.options.seed);
        }
    }

    /// Client operations for each second of processor time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.cpu_seconds
    }

    /// Virtual seconds per second of processor time.
    #[must_use]
    pub fn times_real_time(&self) -> f64 {
        self.virtual_us as f64 / 1e6 / self.cpu_seconds
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (million, rate, times) = (self.operations as f64 / 1e6, self.rate(), self.times_real_time());
        let Self { seeds, seconds, cpu_seconds, jobs, failed, .. } = self;
        write!(
            f,
            "{seeds} seeds, {million:.2} million operations in {seconds:.1} s on {jobs} threads, {cpu_seconds:.1} s of a core: "
        )?;
        write!(f, "{rate:.0} operations a second and {times:.0} × real time a core; {} seeds failed", failed.len())
    }
}

/// Processor time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Runs seeds on so many threads. `each` is called for every seed, in no order.
///
/// # Panics
/// If a thread panics outside of a run. Panics of a run are findings.
pub fn run(seeds: Range<u64>, jobs: usize, each: impl Fn(&Report) + Sync) -> Summary {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Summary::default()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        sum.lock().expect("nobody panics with it").cpu_seconds += cpu_seconds();
                        return;
                    }
                    let report = run::seed(seed);
                    each(&report);
                    sum.lock().expect("nobody panics with it").add(&report);
                }
            });
        }
    });
    let mut sum = sum.into_inner().expect("nobody panics with it");
    sum.failed.sort_unstable();
    Summary { seconds: began.elapsed().as_secs_f64(), jobs, ..sum }
}

/// The text about a failed seed, complete for a reader who has nothing else.
#[must_use]
pub fn failure(report: &Report) -> String {
    let options = serde_json::to_string(&report.options).unwrap_or_default();
    let mut text = format!("seed {} failed\n  commit   {}\n  options  {options}\n", report.options.seed, commit());
    for finding in &report.findings {
        let key = finding.key.map_or_else(String::new, |key| format!(" (key {key})"));
        text += &format!("  {}{key}: {}\n", finding.checker, finding.evidence);
    }
    let key =
        report.findings.iter().find_map(|finding| finding.key).map_or_else(String::new, |key| format!(" --key {key}"));
    text + &format!("  replay   cargo xtask sim --replay {}{key}\n", report.options.seed)
}

/// The commit of the tree, as git says now.
fn commit() -> String {
    let dir = env!("CARGO_MANIFEST_DIR");
    let output = std::process::Command::new("git").args(["-C", dir, "rev-parse", "HEAD"]).output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
