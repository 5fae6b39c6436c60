//! Compares whole operations with the sum of their parts, measured in one run on one machine:
//! `rejoin-bench-distance REJOIN [SECONDS]`, where REJOIN is the `rejoin` binary. `cargo xtask bench` builds both and
//! runs it.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;

use rejoin_test_bench::{CpuTime, Journal, Rpc, SMALL, Sync, Tree};

/// Units of work per measurement, and measurements per part. The median counts.
const WORK: u64 = 50_000;
const TIMES: usize = 5;

/// CPU microseconds per unit of each part.
struct Parts {
    call: f64,
    insert: f64,
    read: f64,
    written: f64,
    durable: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (rejoin, seconds) = match arguments.as_slice() {
        [rejoin] => (rejoin, "10"),
        [rejoin, seconds] => (rejoin, seconds.as_str()),
        _ => return complain("usage: rejoin-bench-distance REJOIN [SECONDS]"),
    };
    eprintln!("measuring the parts");
    let parts = Parts::measured();
    let put = 3.0 * (parts.call + parts.insert);
    // A read asks three owners and waits for two answers. The budget counts these two.
    let get = 3.0 * parts.call + 2.0 * parts.read;
    let mut rows = Vec::new();
    for (mode, durability, sum) in
        [("put", "fsync", put + 3.0 * parts.durable), ("put", "os", put + 3.0 * parts.written), ("get", "os", get)]
    {
        eprintln!("measuring {mode}, {durability}, for {seconds} s");
        match whole(rejoin, &[mode, "--durability", durability, "--seconds", seconds]) {
            Ok(report) => rows.push(row(mode, durability, sum, &report)),
            Err(why) => return complain(&why),
        }
    }
    print(&parts.table());
    print(
        "\n| operation | rate /s | p50 | p99 | p99.9 | CPU of servers | CPU with client | sum of the parts | ratio |",
    );
    print("|---|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(|row| print(row));
    ExitCode::SUCCESS
}

impl Parts {
    fn measured() -> Self {
        let rpc = Rpc::new(SMALL, 64);
        let mut tree = Tree::new(SMALL, false);
        let insert = median(WORK, |work| tree.inserts(work));
        let read = median(WORK, |work| tree.reads(work));
        let mut journals = [Sync::Written, Sync::Durable].map(|sync| Journal::new(SMALL, 64, sync));
        let [written, durable] = &mut journals;
        Self {
            call: median(WORK, |work| rpc.calls(work)),
            insert,
            read,
            written: median(WORK, |work| written.records(work)),
            durable: median(WORK, |work| durable.records(work)),
        }
    }

    fn table(&self) -> String {
        let line = |name: &str, us: f64| format!("| {name} | {us:.2} µs |");
        [
            "| part, 100 bytes | CPU |".to_owned(),
            "|---|---|".to_owned(),
            line("framed call over QUIC, both sides, 64 under way", self.call),
            line("insert into the tree", self.insert),
            line("point read of the tree, in memory", self.read),
            line("share of a journal batch of 64, written", self.written),
            line("share of a journal batch of 64, synced", self.durable),
        ]
        .join("\n")
    }
}

/// CPU microseconds of one unit of work.
fn median(work: u64, mut does: impl FnMut(u64)) -> f64 {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| CpuTime::of(|| does(work))).collect();
    times.sort_unstable();
    times[TIMES / 2].as_secs_f64() * 1e6 / work as f64
}

/// A run of `rejoin bench` on a cluster of three processes of its own.
fn whole(rejoin: &str, arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(rejoin);
    command.arg("bench").args(arguments).args(["--dev", "3", "--json"]);
    let output = command.output().map_err(|why| format!("{rejoin} could not be started: {why}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|why| format!("{command:?} gave no JSON: {why}"))
}

fn row(mode: &str, durability: &str, sum: f64, report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let latency = |name: &str| number(&report["latency"][name]) / 1e3;
    let (client, servers) = (number(&report["client_cpu_us"]), number(&report["server_cpu_us"]));
    let all = client + servers;
    let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(latency);
    let rate = number(&report["rate"]);
    format!(
        "| {mode}, {durability} | {rate:.0} | {p50:.2} ms | {p99:.2} ms | {p999:.2} ms | {servers:.1} µs | {all:.1} µs \
            | {sum:.1} µs | {:.1} |",
        all / sum
    )
}

fn complain(why: &str) -> ExitCode {
    eprintln!("rejoin-bench-distance: {why}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the table is what was asked for; all talk goes to stderr")]
fn print(text: &str) {
    println!("{text}");
}
