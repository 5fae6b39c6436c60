//! What the size of a cluster costs: copies that a change of the layout moves, time to plan one, messages, bytes and
//! CPU time of an operation. No disk and no network.
//!
//! `rejoin-bench-clusters [moves|solver|operations]`, all of them without an argument.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the tables are what was asked for")]

use std::process::ExitCode;
use std::time::Instant;

use rejoin_test_bench::layouts::{node, solved, typical};
use rejoin_test_bench::{Cost, CpuTime, Crowd};

const SIZES: [usize; 6] = [3, 10, 30, 100, 300, 1_000];
/// Operations of each kind and size. They alternate between the sizes, so that a busy machine slows all of them down.
const OPERATIONS: u64 = 4_000;
const ROUNDS: usize = 10;

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    if !["", "moves", "solver", "operations"].contains(&what.as_str()) {
        eprintln!("{what:?} is none of moves, solver and operations");
        return ExitCode::from(2);
    }
    let is_wanted = |part: &str| what.is_empty() || what == part;
    if is_wanted("moves") {
        moves();
    }
    if is_wanted("solver") {
        solver();
    }
    if is_wanted("operations") {
        operations();
    }
    ExitCode::SUCCESS
}

fn moves() {
    println!("| change, n = 3, 256 partitions | copies moved | shares demand | leaving nodes and zones demand |");
    println!("|---|---|---|---|");
    for change in typical() {
        let moves = change.moves();
        println!("| {} | {} | {} | {} |", change.what, moves.moved, moves.shares, moves.places);
    }
    println!();
}

fn solver() {
    println!("| nodes | partitions | first layout, CPU | one node leaves, CPU | on the wall |");
    println!("|---|---|---|---|---|");
    for partitions in [256, 4_096] {
        for count in SIZES {
            let nodes: Vec<_> = (0..=count).map(|at| node(at, 3, [2, 3, 4][at % 3])).collect();
            let (mut first, mut next) = (None, None);
            let first_cpu = CpuTime::of(|| first = Some(solved(nodes.clone(), partitions, None).layout));
            let began = Instant::now();
            let next_cpu = CpuTime::of(|| next = Some(solved(nodes[..count].to_vec(), partitions, first.as_ref())));
            let (first_s, next_s) = (first_cpu.as_secs_f64(), next_cpu.as_secs_f64());
            let wall_s = began.elapsed().as_secs_f64();
            println!("| {count} | {partitions} | {first_s:.3} s | {next_s:.3} s | {wall_s:.3} s |");
        }
    }
    println!();
}

fn operations() {
    let mut crowds: Vec<Crowd> = SIZES.map(Crowd::new).into();
    // Without the first writes of the keys.
    for crowd in &mut crowds {
        let _ = crowd.puts(OPERATIONS);
    }
    let mut costs: Vec<Vec<[Cost; 2]>> = vec![Vec::new(); crowds.len()];
    for _ in 0..ROUNDS {
        for (crowd, costs) in crowds.iter_mut().zip(&mut costs) {
            costs.push([crowd.puts(OPERATIONS), crowd.gets(OPERATIONS)]);
        }
    }
    println!("| nodes | PUT: messages | bytes | CPU | GET: messages | bytes | CPU |");
    println!("|---|---|---|---|---|---|---|");
    for (size, costs) in SIZES.iter().zip(&costs) {
        let [put, get] = [0, 1].map(|kind| line(costs.iter().map(|pair| pair[kind])));
        println!("| {size} | {put} | {get} |");
    }
}

/// The median round, for one operation.
fn line(costs: impl Iterator<Item = Cost>) -> String {
    let mut costs: Vec<Cost> = costs.collect();
    costs.sort_by_key(|cost| cost.cpu);
    let Cost { messages, bytes, cpu } = costs[costs.len() / 2];
    let each = |sum: f64| sum / OPERATIONS as f64;
    let (messages, bytes) = (each(messages as f64), each(bytes as f64));
    format!("{messages:.2} | {bytes:.0} | {:.2} µs", each(cpu.as_secs_f64() * 1e6))
}
