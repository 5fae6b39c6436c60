//! Measures a cluster that is offered far more than it can do: what is still answered in time, how soon the rest is
//! refused, what memory it takes, and how soon it is over.
//!
//! `cargo xtask overload [--seconds S] [--times T] [--processes P] [--clients C]` builds it with `--release` and runs
//! it. Three nodes in processes of their own are asked for their peak by the 64 clients that `rejoin bench` has by
//! default. Then a probe writes at a twentieth of the peak, all the time, and beside it `--times` the peak is offered
//! for a while by several generator processes in an open loop. An answer is in time within a second of when its
//! operation was due. The probe shows when it is over: from the first second in which nothing of it fails and its p99
//! is at most twice that of before.

use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;

use crate::figures::{Table, say};
use crate::runs::{number, program};
use crate::{Cluster, binary, runs};

const NODES: usize = 3;
const USAGE: &str = "rejoin-bench-overload [--seconds S] [--times T] [--processes P] [--clients C]";
/// How long after it was due an operation has to be answered.
const DEADLINE: &str = "1s";
/// The part of the peak that the probe writes.
const PROBE_SHARE: f64 = 20.0;
/// Seconds of the probe alone before, and afterwards.
const BEFORE: u64 = 5;
const AFTER: u64 = 20;
/// How long the probe may take until it is connected and writes.
const CONNECTS: Duration = Duration::from_secs(1);
/// Beyond that times the p99 of before it is not over.
const RECOVERED: u64 = 2;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Options {
    seconds: u64,
    times: u64,
    processes: u64,
    clients: u64,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, String> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from) as u64;
        let mut options = Self { seconds: 10, times: 10, processes: processors.clamp(2, 16), clients: 8_192 };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = |from: u64, to: u64| number(word, value, from, to);
            match word.as_str() {
                "--seconds" => options.seconds = number(1, 600)?,
                "--times" => options.times = number(1, 100)?,
                "--processes" => options.processes = number(1, 64)?,
                "--clients" => options.clients = number(64, 65_536)?,
                _ => return Err(format!("there is no option {word}")),
            }
        }
        Ok(options)
    }
}

/// Measures as the arguments of this process ask for.
///
/// # Panics
/// If the cluster does not start.
#[must_use]
#[tokio::main]
pub async fn main() -> ExitCode {
    program(USAGE, Options::parse, run).await
}

async fn run(options: Options) -> Result<(), String> {
    let cluster = Cluster::start(NODES).await;
    let peak = of(&bench(&cluster, &["--seconds", &options.seconds.to_string()]).await?, "rate");
    if peak.is_nan() || peak <= 0.0 {
        return Err("the cluster has done nothing as fast as it goes: nothing is known of an overload".to_owned());
    }
    say(&format!("peak: {peak:.0} writes a second in a closed loop"));
    let probe = async {
        let seconds = (BEFORE + options.seconds + AFTER).to_string();
        let rate = rate(peak / PROBE_SHARE);
        bench(&cluster, &["--rate", &rate, "--seconds", &seconds, "--deadline", DEADLINE, "--warm-up", "none"]).await
    };
    let load = async {
        tokio::time::sleep(CONNECTS + Duration::from_secs(BEFORE)).await;
        overload(&cluster, options, peak).await
    };
    let (probe, load) = tokio::try_join!(probe, load)?;
    report(peak, &load);
    over(&probe, &load, options.seconds);
    Ok(())
}

/// Writes without a sync, with what is known of the servers.
async fn bench(cluster: &Cluster, more: &[&str]) -> Result<Value, String> {
    let pids: Vec<String> = (0..NODES).map(|node| cluster.pid(node).to_string()).collect();
    let mut command = Command::new(binary());
    command.args(["bench", "put", "--durability", "os", "--json"]).args(more);
    command.args(pids.iter().flat_map(|pid| ["--pid", pid.as_str()]));
    command.env("REJOIN_PROFILE", cluster.files.profile());
    // All of an overload may fail (4), and the report says so.
    runs::report(&mut command, &[0, 4]).await
}

async fn overload(cluster: &Cluster, options: Options, peak: f64) -> Result<Value, String> {
    let rate = rate(peak * options.times as f64);
    let [seconds, processes, clients] = [options.seconds, options.processes, options.clients].map(|n| n.to_string());
    let load = ["--rate", &rate, "--seconds", &seconds, "--processes", &processes, "--clients", &clients];
    // As many connections as processes: one client's connection is not what is to be overloaded.
    let more = ["--keys", "100000", "--connections", &processes, "--deadline", DEADLINE, "--warm-up", "none"];
    bench(cluster, &[&load[..], &more].concat()).await
}

/// A rate that `rejoin bench` takes.
fn rate(rate: f64) -> String {
    (rate.round() as u32).clamp(1, 10_000_000).to_string()
}

fn of(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or(f64::NAN)
}

fn report(peak: f64, load: &Value) {
    let (offered, goodput) = (of(load, "offered"), of(load, "goodput"));
    let mut table = Table::new(&["figure", "value"]);
    table.row(&["wanted", &format!("{} writes a second", load["rate_wanted"])]);
    let kept = if load["keeps_up"] == true { "" } else { ": the generators cannot keep up with what was wanted" };
    table.row(&["offered", &format!("{offered:.0} a second, {:.1} times the peak{kept}", offered / peak)]);
    table.row(&["goodput", &format!("{goodput:.0} a second within {DEADLINE}, {:.2} of the peak", goodput / peak)]);
    let refused = |quantile: &str| millis(&load["refused_latency"][quantile]);
    let refusals = format!("{} (p50 {}, p99 {})", load["refused"], refused("p50_us"), refused("p99_us"));
    table.row(&["refused", &refusals]);
    for (name, figure) in
        [("late", "late"), ("unknown", "unknown"), ("timed out", "timed_out"), ("not sent", "never_begun")]
    {
        table.row(&[name, &load[figure].to_string()]);
    }
    for (node, memory) in load["memory"].as_array().into_iter().flatten().enumerate() {
        let mebibytes = |name: &str| format!("{:.0} MiB", of(memory, name) / 1_048_576.0);
        let [before, top, after] = ["before_bytes", "top_bytes", "after_bytes"].map(mebibytes);
        let memory = format!("{before} before, {top} at the top, {after} after");
        table.row(&[format!("memory of node {}", node + 1), memory]);
    }
    table.print();
}

fn millis(us: &Value) -> String {
    us.as_f64().map_or_else(|| "-".to_owned(), |us| format!("{:.2} ms", us / 1e3))
}

/// Says when the probe has found everything as before.
fn over(probe: &Value, load: &Value, seconds: u64) {
    let began = |report: &Value| report["began_unix_ms"].as_u64().unwrap_or(0);
    let from_ms = began(load).saturating_sub(began(probe));
    let until_ms = from_ms + seconds * 1_000;
    let rows: Vec<Row> = probe["rows"].as_array().into_iter().flatten().map(Row::of).collect();
    let Some(before) = before_us(&rows, from_ms) else {
        return say("the probe has no second before the overload: nothing tells when it is over");
    };
    let before_ms = before as f64 / 1e3;
    say(&match recovered_ms(&rows, until_ms, before * RECOVERED) {
        Some(ms) => {
            format!("the probe's p99 ({before_ms:.2} ms before) is within {RECOVERED} times that {ms} ms after the end")
        }
        None => {
            let left_ms = rows.last().map_or(0, |row| (row.second + 1) * 1_000).saturating_sub(until_ms);
            format!(
                "the probe's p99 ({before_ms:.2} ms before) is not within {RECOVERED} times that in the {left_ms} ms \
                 that it went on after the end"
            )
        }
    });
    let begun = of(probe, "never_begun");
    if begun > 0.0 {
        say(&format!("{begun} writes of the probe were not sent: its generator did not get the processor"));
    }
}

/// A second of the probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    second: u64,
    operations: u64,
    errors: u64,
    p99_us: u64,
}

impl Row {
    fn of(row: &Value) -> Self {
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        Self {
            second: number("second"),
            operations: number("operations"),
            errors: number("errors"),
            p99_us: number("p99_us"),
        }
    }
}

/// The median of the p99 of the whole seconds before that time.
fn before_us(rows: &[Row], from_ms: u64) -> Option<u64> {
    let whole = rows.iter().filter(|row| (row.second + 1) * 1_000 <= from_ms && row.operations > 0);
    let mut before: Vec<u64> = whole.map(|row| row.p99_us).collect();
    before.sort_unstable();
    before.get(before.len() / 2).copied()
}

/// How long after the end the first whole second began in which the probe did not fail and was not slower than that. 0
/// if the second in which the load ended was such a one already.
fn recovered_ms(rows: &[Row], until_ms: u64, most_us: u64) -> Option<u64> {
    let good = |row: &&Row| row.errors == 0 && row.operations > 0 && row.p99_us <= most_us;
    let first = rows.iter().filter(|row| (row.second + 1) * 1_000 > until_ms).find(good)?;
    Some((first.second * 1_000).saturating_sub(until_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_or_refused_with_what_can_be() {
        let plain = parsed("").unwrap();
        assert_eq!((plain.seconds, plain.times), (10, 10));
        assert!((2..=16).contains(&plain.processes) && plain.clients >= 4_096);
        let all = parsed("--seconds 3 --times 2 --processes 4 --clients 100").unwrap();
        assert_eq!(all, Options { seconds: 3, times: 2, processes: 4, clients: 100 });
        for (line, reason) in [
            ("--times 0", "--times 0: give a number from 1 to 100"),
            ("--processes 65", "from 1 to 64"),
            ("--clients", "--clients needs a value"),
            ("--keys 3", "there is no option --keys"),
        ] {
            assert!(parsed(line).expect_err(line).contains(reason), "{line}");
        }
    }

    #[test]
    fn it_is_over_with_the_first_good_second_after_the_end() {
        let row = |second, errors, p99_us| Row { second, operations: 5, errors, p99_us };
        let rows = [
            row(0, 0, 900),
            row(1, 0, 1_000),
            row(2, 0, 1_100),
            row(3, 0, 50_000),
            row(4, 9, 1_000),
            row(5, 0, 2_001),
            row(6, 0, 2_000),
        ];
        // The load runs from 3.0 s to 4.5 s.
        assert_eq!(before_us(&rows, 3_000), Some(1_000));
        assert_eq!(before_us(&rows, 999), None);
        assert_eq!(recovered_ms(&rows, 4_500, 2_000), Some(1_500), "second 4 has failures, second 5 is too slow");
        assert_eq!(recovered_ms(&rows, 6_900, 2_000), Some(0));
        assert_eq!(recovered_ms(&rows, 4_500, 900), None);
        let silent = [Row { operations: 0, ..row(7, 0, 0) }];
        assert_eq!(recovered_ms(&silent, 0, 2_000), None, "a second without an answer is not a good one");
    }

    #[test]
    fn rates_are_those_that_the_generator_takes() {
        assert_eq!([0.2, 1_234.5, 1e9].map(rate), ["1", "1235", "10000000"]);
    }
}
