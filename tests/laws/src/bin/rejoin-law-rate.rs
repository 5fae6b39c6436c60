//! Measures how fast the law checker merges on components: `cargo build --workspace --bins &&
//! target/debug/rejoin-law-rate`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::time::Instant;

use rejoin_laws::{Merge, Sampler, Sibling};
use rejoin_merge::{Compiler, ModuleLimits, PluginUnderTest};
use rejoin_proto::catalog::BucketProps;
use rejoin_test_laws::component;

const MERGES: u64 = 100_000;

fn main() {
    let mut rows = String::new();
    for (name, bytes) in [("highest", component::built("highest")), ("cart", component::built("cart"))] {
        let loaded =
            PluginUnderTest::load(&bytes, &Compiler::InProcess, &ModuleLimits::default(), &BucketProps::default());
        let under_test = loaded.unwrap_or_else(|why| panic!("{why}"));
        let sample = |seed| under_test.sample(seed, 4).unwrap_or_else(|why| panic!("{why}"));
        let values: Vec<Vec<u8>> = (0..60).map(sample).collect();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        for number in 0..MERGES {
            let sibling = |nth: u64| {
                let value = values[((number * 7 + nth * 13) % 60) as usize].clone();
                Sibling { value, stamp_ms: 1_000 + nth, writer: nth }
            };
            let merged = under_test.merge(b"k", &[sibling(0), sibling(1), sibling(2)]);
            assert!(merged.is_ok(), "{merged:?}");
        }
        let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        rows += &format!("{name:8} {MERGES} merges of three: {cpu:6.2} s of processor time, {wall:6.2} s in all\n");
    }
    std::io::stdout().write_all(rows.as_bytes()).unwrap_or_else(|why| panic!("{why}"));
}

/// The processor time of this thread. Linux counts it in nanoseconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
