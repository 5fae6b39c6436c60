//! The parts under criterion, measured in CPU time of the process.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use rejoin_core::causal;
use rejoin_test_bench::{Absorb, CpuTime, Crowd, Journal, Merge, Objects, Rpc, SMALL, Sync, Tree, siblings};

const KIB: usize = 1024;
/// Writes before operations are measured: a few of each key.
const WRITTEN: u64 = 2_000;

fn messages(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("framed call, 64 under way");
    for bytes in [SMALL, KIB] {
        let rpc = Rpc::new(bytes, 64);
        group.bench_function(BenchmarkId::from_parameter(bytes), |bench| {
            bench.iter_custom(|calls| CpuTime::of(|| rpc.calls(calls)))
        });
    }
}

fn store(criterion: &mut Criterion<CpuTime>) {
    let mut tree = Tree::new(SMALL, false);
    criterion
        .bench_function("tree: insert", |bench| bench.iter_custom(|inserts| CpuTime::of(|| tree.inserts(inserts))));
    for (name, flushed) in [("tree: point read, in memory", false), ("tree: point read, flushed", true)] {
        let mut tree = Tree::new(SMALL, flushed);
        if !flushed {
            tree.inserts(200_000);
        }
        criterion.bench_function(name, |bench| bench.iter_custom(|reads| CpuTime::of(|| tree.reads(reads))));
    }
    for sync in [Sync::Written, Sync::Durable] {
        let mut journal = Journal::new(SMALL, 64, sync);
        let name = format!("journal: share of a batch of 64, {sync:?}").to_lowercase();
        criterion.bench_function(&name, |bench| bench.iter_custom(|records| CpuTime::of(|| journal.records(records))));
    }
}

fn encryption(criterion: &mut Criterion<CpuTime>) {
    for (name, encrypted) in [("in the clear", false), ("encrypted", true)] {
        let mut group = criterion.benchmark_group(format!("object {name}"));
        for bytes in [SMALL, KIB, 8 * KIB] {
            let mut objects = Objects::new(bytes, encrypted);
            group.bench_function(BenchmarkId::new("write", bytes), |bench| {
                bench.iter_custom(|writes| CpuTime::of(|| objects.writes(writes)))
            });
            group.bench_function(BenchmarkId::new("read", bytes), |bench| {
                bench.iter_custom(|reads| CpuTime::of(|| objects.reads(reads)))
            });
        }
        group.finish();
    }
}

fn core(criterion: &mut Criterion<CpuTime>) {
    let mut absorb = Absorb::new(SMALL);
    criterion
        .bench_function("absorb a write", |bench| bench.iter_custom(|writes| CpuTime::of(|| absorb.writes(writes))));
    let mut group = criterion.benchmark_group("sync, siblings");
    for count in [1, 3, 10, 32] {
        let [one, other] = siblings(count + 1, SMALL);
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter(|| causal::sync(black_box(&one), black_box(&other)))
        });
    }
}

/// Whole operations without disk and network: what the cores of three nodes do, with the messages between them encoded
/// and decoded.
fn operations(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("through the cores of 3 nodes");
    for name in ["put", "get"] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|count| {
                // Anew, because no row of the retry table is dropped in it.
                let mut crowd = Crowd::new(3);
                // Without the first writes of the keys.
                let _ = crowd.puts(WRITTEN);
                if name == "put" { crowd.puts(count).cpu } else { crowd.gets(count).cpu }
            })
        });
    }
    group.finish();
}

fn merges(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("merge of 3 carts, fresh instance, bytes each");
    for bytes in [SMALL, KIB, 16 * KIB] {
        let merge = Merge::new(3, bytes);
        group.bench_function(BenchmarkId::from_parameter(bytes), |bench| {
            bench.iter_custom(|merges| CpuTime::of(|| merge.fresh(merges)))
        });
    }
    group.finish();
    let merge = Merge::new(3, KIB);
    criterion.bench_function("merge of 3 carts, remembered", |bench| {
        bench.iter_custom(|merges| CpuTime::of(|| merge.remembered(merges)));
    });
}

fn measure() -> Criterion<CpuTime> {
    let quick = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    quick.sample_size(20).with_measurement(CpuTime)
}

criterion_group! { name = parts; config = measure(); targets = messages, store, encryption, core, operations, merges }
criterion_main!(parts);
