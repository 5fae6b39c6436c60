//! Measures what hash trees cost a write: the cores of three nodes, paired with the same ones without trees.
//!
//! `cargo build --release --workspace --bins --features measure && target/release/rejoin-bench-trees [WRITES
//! [ROUNDS]]`, by default 4 000 writes of 100 bytes in each of 20 rounds. No disk and no network, but messages are
//! encoded, sent and decoded. The product has no switch for trees. Here the core is the [twin](rejoin_core::mutants),
//! in which two rules of trees are broken together: then nothing of a write touches a tree.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the figures are what was asked for")]
// The modules of `tests/bench`, compiled against the twin. Only a part of what they have is used here.

use std::process::ExitCode;

use rejoin_core::mutants::{Rule, without};

#[allow(dead_code, unreachable_pub, reason = "only the time is used")]
#[path = "../../../bench/src/cpu.rs"]
mod cpu;
#[allow(dead_code, unreachable_pub, reason = "only writes are used")]
#[path = "../../../bench/src/crowd.rs"]
mod crowd;
#[allow(dead_code, unreachable_pub, reason = "only its nodes are used")]
#[path = "../../../bench/src/layouts.rs"]
mod layouts;
#[allow(dead_code, reason = "its objects are counted by tests of tests/bench")]
#[path = "../../../bench/src/memory.rs"]
mod memory;

use self::cpu::CpuTime;
use self::crowd::Crowd;

const SMALL: usize = 100;
const NODES: usize = 3;

/// As in `tests/bench`: bytes that do not compress well.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap_or_default()).collect()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| match arguments.next().map(|text| text.parse()) {
        None => Some(default),
        Some(Ok(number)) if number > 0 => Some(number),
        Some(_) => None,
    };
    let (Some(writes), Some(rounds)) = (number(4_000), number(20)) else {
        eprintln!("not a number above 0: rejoin-bench-trees [WRITES [ROUNDS]]");
        return ExitCode::from(2);
    };
    let bare = |work: &mut dyn FnMut()| {
        without(Rule::LeavesAreWrittenWithTheirObjects, || without(Rule::WholeRootsAreCompared, work));
    };
    let (mut with_trees, mut none) = (Crowd::new(NODES), Crowd::new(NODES));
    // The first writes of the keys make the leaves.
    let _ = with_trees.puts(writes);
    bare(&mut || {
        let _ = none.puts(writes);
    });
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        times[0].push(with_trees.puts(writes).cpu);
        bare(&mut || times[1].push(none.puts(writes).cpu));
    }
    println!("| a write of three nodes' cores | CPU, median round | least |");
    println!("|---|---|---|");
    let [trees_us, none_us] = times.map(|mut times| {
        times.sort_unstable();
        [times.len() / 2, 0].map(|at| times[at].as_secs_f64() * 1e6 / writes as f64)
    });
    println!("| with trees | {:.2} µs | {:.2} µs |", trees_us[0], trees_us[1]);
    println!("| without | {:.2} µs | {:.2} µs |", none_us[0], none_us[1]);
    println!(
        "trees: {:.2} µs of a write, {:+.1} %",
        trees_us[0] - none_us[0],
        100.0 * (trees_us[0] / none_us[0] - 1.0)
    );
    ExitCode::SUCCESS
}
