//! Measures how long a unit of fuel lasts, for the slowest guests: `cargo run -p rejoin-test-hostile --bin
//! rejoin-fuel`.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rejoin_merge::CallLimits;
use rejoin_test_hostile::{Bench, costly, siblings};

/// Enough for the longest start-up of a guest and some time beside it.
const FUEL: u64 = 400_000_000;

fn main() {
    let bench = Bench::default();
    let default = CallLimits::default().fuel;
    let limits = CallLimits { fuel: FUEL, wall: Duration::from_secs(600), ..CallLimits::default() };
    let mut rows = String::new();
    for (name, guest) in costly::all() {
        let plugin = bench.plugin(&guest);
        let began = Instant::now();
        let outcome = bench.host.merge(&plugin, b"k", &siblings(), &limits).map(|merged| merged.fuel_used);
        let nanos = began.elapsed().as_nanos() as f64 / FUEL as f64;
        let seconds = nanos * default as f64 / 1e9;
        rows += &format!("{name:28} {nanos:8.3} ns a unit  {seconds:8.2} s for a bucket's {default}  {outcome:?}\n");
    }
    std::io::Write::write_all(&mut std::io::stdout(), rows.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
}
