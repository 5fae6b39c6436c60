//! Compares merges of the tree's plugins in the nodes' engine and in wasmi, byte for byte.
//!
//! `cargo run --release -p rejoin-test-laws --bin rejoin-engines -- 10000000` compares so many merges, a share of each
//! plugin, and says after each plugin how many were equal.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it finds is what it prints")]

use std::process::ExitCode;
use std::time::Instant;

use rejoin_test_laws::component;
use rejoin_test_laws::second_engine::compare;

/// The plugins that are compared.
const PLUGINS: [&str; 3] = ["highest", "session", "cart"];

fn main() -> ExitCode {
    let merges = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse::<usize>());
    let Ok(merges) = merges else {
        eprintln!("usage: rejoin-engines [MERGES]");
        return ExitCode::from(2);
    };
    for plugin in PLUGINS {
        let bytes = component::built(plugin);
        let (began, under_test) = (Instant::now(), component::on_a_host(&bytes));
        let (compared, differs) = compare(&bytes, &under_test, 1, merges.div_ceil(PLUGINS.len()));
        if let Some(call) = differs {
            println!("{plugin}: this merge differs: {call:?}");
            return ExitCode::FAILURE;
        }
        println!("{plugin}: {compared} merges are equal, in {:.0} s", began.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}
