//! Measures what it costs to be ready for slow owners: writes and reads in a cluster that relieves an owner as soon as
//! it is late, and in one that waits a minute before.
//!
//! `cargo build --release --workspace --bins --features measure && target/release/rejoin-bench-relief [SECONDS
//! [TURNS]]`, by default 5 s for each load and 5 turns. The two clusters run at the same time and take the loads in
//! turns, either of them first in every other turn; the other one is idle meanwhile.
#![forbid(unsafe_code)]

use std::time::Duration;

use rejoin_test_cluster::Cluster;
use rejoin_test_cluster::figures::{Table, cpu, say};

const NODES: usize = 3;
/// No owner is relieved before that.
const LATE: &str = "relief_min_ms = 60000\nrelief_max_ms = 60000";

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| match arguments.next().map(|text| text.parse::<u64>()) {
        None => default,
        Some(Ok(number)) if number > 0 => number,
        _ => panic!("not a number above 0: rejoin-bench-relief [SECONDS [TURNS]]"),
    };
    let (seconds, turns) = (number(5), number(5));
    let clusters =
        [("relief", Cluster::start(NODES).await), ("none for a minute", Cluster::start_with(NODES, LATE).await)];
    let mut table = Table::new(&["operation", "cluster", "rate /s", "p99", "CPU of servers"]);
    let mut sums = [[0.0; 2]; 2];
    for turn in 0..turns {
        for (kind, operation) in ["put", "get"].into_iter().enumerate() {
            for at in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (name, cluster) = &clusters[at];
                let (rate, p99_us, cpu_us) = load(cluster, operation, seconds);
                sums[kind][at] += cpu_us;
                let [rate, p99, cpu] =
                    [format!("{rate:.0}"), format!("{:.2} ms", p99_us / 1e3), format!("{cpu_us:.1} µs")];
                table.row(&[operation, *name, &rate, &p99, &cpu]);
            }
        }
    }
    table.print();
    for (kind, operation) in ["put", "get"].into_iter().enumerate() {
        say(&format!("{operation}: CPU with relief ÷ without: {:.3}", sums[kind][0] / sums[kind][1]));
    }
}

/// Rate, p99 and CPU time of the servers for each operation, in microseconds.
fn load(cluster: &Cluster, operation: &str, seconds: u64) -> (f64, f64, f64) {
    let before = servers(cluster);
    let seconds = seconds.to_string();
    let words =
        ["bench", operation, "--durability", "os", "--seconds", &seconds, "--keys", "1000", "--warm-up", "none"];
    let report = cluster.rejoin(&[&words[..], &["--json"]].concat()).done().json();
    let took = servers(cluster) - before;
    let of = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    let operations = of("rate") * seconds.parse::<f64>().unwrap_or(f64::NAN);
    let p99_us = report["latency"]["p99_us"].as_f64().unwrap_or(f64::NAN);
    (of("rate"), p99_us, took.as_secs_f64() * 1e6 / operations)
}

fn servers(cluster: &Cluster) -> Duration {
    (0..NODES).map(|node| cpu(cluster.pid(node))).sum()
}
