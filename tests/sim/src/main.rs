//! `rejoin-sim`: runs seeds, and shows what happened in one.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what was asked for goes to stdout")]

use std::num::NonZero;
use std::ops::Range;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use rejoin_test_sim::campaign;
use rejoin_test_sim::options::{Options, PerMillion};

use rejoin_test_sim::run;
use rejoin_test_sim::swarm::{self, Setup};
use rejoin_test_sim::trace::Filter;

/// The allocator of the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the whole cluster in one thread, from a seed.
#[derive(Parser)]
#[command(name = "rejoin-sim")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run every seed of a range, and print those that fail.
    Run {
        /// The seeds, as FIRST..END; END itself is not run.
        #[arg(long, value_parser = range)]
        seeds: Range<u64>,
        /// Threads [default: as many as the machine has].
        #[arg(long)]
        jobs: Option<usize>,
        /// Print one line of JSON at the end instead of words.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed and print what happened, line by line.
    Replay {
        /// The seed.
        seed: u64,
        /// Only what is about this key, by its number.
        #[arg(long)]
        key: Option<u32>,
        /// Only what happens at this node, by its number.
        #[arg(long)]
        node: Option<u8>,
        /// From this virtual time on, in seconds.
        #[arg(long, default_value_t = 0.0)]
        from: f64,
        /// Up to this virtual time, in seconds.
        #[arg(long, default_value_t = 1e9)]
        to: f64,
    },
    /// Run the membership machines alone, and print what they find out and what it costs: one line for each size of
    /// the cluster and each share of lost datagrams.
    Members {
        /// Nodes [default: 3 to 1000].
        #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(3..=1000))]
        nodes: Vec<u64>,
        /// Lost datagrams, in percent [default: 0, 1, 5 and 20].
        #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(0..=90))]
        loss: Vec<u32>,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print what a seed stands for.
    Options {
        /// The seed.
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Args::parse().verb {
        Verb::Run { seeds, jobs, json } => run_seeds(seeds, jobs, json),
        Verb::Replay { seed, key, node, from, to } => {
            let micros = |seconds: f64| (seconds * 1e6) as u64;
            replay(seed, Filter { key, node, from_us: micros(from), to_us: micros(to) })
        }
        Verb::Members { nodes, loss, seed } => members(&nodes, &loss, seed),
        Verb::Options { seed } => {
            println!("{:#?}", Options::draw(seed));
            ExitCode::SUCCESS
        }
    }
}

fn run_seeds(seeds: Range<u64>, jobs: Option<usize>, json: bool) -> ExitCode {
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    let summary = campaign::run(seeds.clone(), jobs, |report| {
        if !report.findings.is_empty() {
            eprint!("{}", campaign::failure(report));
        }
    });
    if json {
        let mut line = serde_json::json!(summary);
        line["range"] = format!("{}..{}", seeds.start, seeds.end).into();
        println!("{line}");
    } else {
        println!("{summary}");
    }
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn members(nodes: &[u64], loss: &[u32], seed: u64) -> ExitCode {
    let sizes = if nodes.is_empty() { swarm::SIZES.to_vec() } else { nodes.to_vec() };
    let losses = if loss.is_empty() {
        swarm::LOSSES.to_vec()
    } else {
        loss.iter().map(|percent| PerMillion(percent * 10_000)).collect()
    };
    println!("{}", swarm::HEADS);
    for loss in losses {
        for &nodes in &sizes {
            println!("{}", swarm::run(Setup { nodes, known: nodes, loss, seed }));
        }
    }
    ExitCode::SUCCESS
}

fn replay(seed: u64, filter: Filter) -> ExitCode {
    let report = run::traced(seed, filter);
    for line in &report.lines {
        println!("{line}");
    }
    println!(
        "{} operations in {} virtual seconds, digest {:016x}",
        report.operations,
        report.virtual_us / 1_000_000,
        report.digest
    );
    if report.findings.is_empty() {
        println!("nothing was found fault with");
        return ExitCode::SUCCESS;
    }
    print!("{}", campaign::failure(&report));
    ExitCode::FAILURE
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds: write it as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let (first, end) = (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    if first < end { Ok(first..end) } else { Err(wrong()) }
}
