//! `plugin bench`: what merges of a component take, on one thread of this process. No cluster is asked.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use rejoin_client::admin::BucketProps;
use rejoin_merge::laws::{CheckConfig, Law, Memoised, Sampler, check_law};
use rejoin_merge::{Compiler, Memo, ModuleLimits, PluginUnderTest, Sibling, Unmetered};

use crate::commands::{laws, object};
use crate::failure::{Exit, Failure};
use crate::merge_bench_args::MergeBenchArgs;
use crate::output::{Output, note};

const KEY: &[u8] = b"bench";
/// The values that the sampler draws of each size, and the sets of siblings that are merged in turn.
const SAMPLES: u64 = 64;
const INPUTS: usize = 32;
/// So many sets are merged with fuel, then without, and so on: the machine is as busy for the one as for the other.
const BATCH: usize = 4;
/// The largest size hint for the sampler. A value may have many bytes for each.
const LARGEST_HINT: u32 = 1 << 16;
/// The longest time that is measured, in nanoseconds. Longer ones count as this.
const LONGEST_NS: u64 = 600_000_000_000;
/// The memo, and how long its hits are measured.
const MEMO_BYTES: u64 = 64 << 20;
const MEMO_TIME: Duration = Duration::from_millis(200);
/// Random cases for each law.
const LAW_CASES: u32 = 50;

/// The output of `--json`. Times are of one merge, on one thread.
#[derive(Serialize, Debug)]
struct MergeBench {
    digest: String,
    name: Option<String>,
    version: Option<String>,
    rows: Vec<Row>,
    /// Null if the plugin has no sampler, or breaks a law.
    laws: Option<LawRate>,
}

/// The merges of one number of siblings of one size.
#[derive(Serialize, Debug)]
struct Row {
    siblings: u16,
    /// Of one value, on average.
    value_bytes: usize,
    /// Null if a merge failed.
    merge: Option<Merges>,
    /// Why a merge failed.
    failure: Option<String>,
}

#[derive(Clone, Copy, Serialize, Debug)]
struct Merges {
    merges: u64,
    /// Merges a second.
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    fuel_p50: u64,
    fuel_max: u64,
    memory_bytes: usize,
    result_bytes: usize,
    /// On an engine without fuel and epochs, and how much longer a merge takes with them.
    unmetered_p50_us: f64,
    metering_percent: f64,
    /// A merge that the memo remembers; null if it remembers none that large.
    memo_p50_us: Option<f64>,
}

/// How fast the laws are checked.
#[derive(Clone, Copy, Serialize, Debug)]
struct LawRate {
    cases: u32,
    merges: u64,
    seconds: f64,
    merges_per_second: f64,
}

/// Times in nanoseconds, three significant digits.
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("these bounds are sound"))
    }

    /// Calls it, and notes how long that took.
    fn of<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(LONGEST_NS);
        self.0.saturating_record(took.clamp(1, LONGEST_NS));
        result
    }

    fn us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

pub(crate) fn run(out: Output, compiler: &Compiler, args: &MergeBenchArgs) -> Result<(), Failure> {
    let most = args.siblings.iter().copied().max().unwrap_or_default();
    let props = BucketProps::default();
    let props = BucketProps { siblings: props.siblings.max(most), ..props };
    let component = laws::component(&args.file)?;
    let modules = ModuleLimits::for_bytes(args.module_bytes);
    let under_test = PluginUnderTest::load(&component, compiler, &modules, &props).map_err(laws::not_loaded)?;
    // It has just been compiled within limits.
    let unmetered = Unmetered::compile(&component, &modules).map_err(laws::not_loaded)?;
    note(laws::introduction(&under_test, &args.file));
    let sizes = sizes(&under_test, args)?;
    let seconds = args.seconds * (sizes.len() * args.siblings.len()) as u64;
    note(format!("merging for {seconds} s, each time in a fresh instance"));
    let mut rows = Vec::new();
    for values in &sizes {
        for siblings in &args.siblings {
            rows.push(row(&under_test, &unmetered, (values, *siblings), Duration::from_secs(args.seconds)));
        }
    }
    let metadata = under_test.plugin.metadata();
    let bench = MergeBench {
        digest: under_test.plugin.digest().to_string(),
        name: metadata.map(|metadata| metadata.name.clone()),
        version: metadata.map(|metadata| metadata.version.clone()),
        rows,
        laws: law_rate(&under_test),
    };
    print(out, &bench)?;
    if bench.rows.iter().any(|row| row.failure.is_some()) {
        let next = format!("`rejoin plugin test {}` says which values it does not merge", args.file.display());
        return Err(Failure::new(Exit::Negative, "not everything was merged").next(next));
    }
    Ok(())
}

/// The values that are merged: those that were typed, or the sampler's, of each size that it can draw.
fn sizes(under_test: &PluginUnderTest, args: &MergeBenchArgs) -> Result<Vec<Vec<Vec<u8>>>, Failure> {
    if !args.values.is_empty() {
        return Ok(vec![args.values.iter().map(|text| object::value(text)).collect::<Result<_, _>>()?]);
    }
    if !under_test.plugin.exports().sample {
        return Err(Failure::usage("the plugin has no sampler")
            .next("give values to merge, or list Sampler in rejoin_guest::export!"));
    }
    let mut sizes: Vec<Vec<Vec<u8>>> = Vec::new();
    for bytes in &args.bytes {
        let values = drawn(under_test, *bytes as usize)?;
        // A sampler that draws no larger values gives the same for every size.
        if !sizes.contains(&values) {
            sizes.push(values);
        }
    }
    Ok(sizes)
}

/// Values of at least `bytes` on average, as far as the sampler draws such, by the smallest size hint that gives them.
fn drawn(under_test: &PluginUnderTest, bytes: usize) -> Result<Vec<Vec<u8>>, Failure> {
    let (mut too_small, mut hint) = (0, 1);
    let mut best = samples(under_test, hint).map_err(no_sample)?;
    while average(&best) < bytes && hint < LARGEST_HINT {
        // What is too much for the sampler's fuel is as large as it gets.
        let Ok(larger) = samples(under_test, hint * 2) else { break };
        let grows = average(&larger) > average(&best) || hint < 64;
        (too_small, hint, best) = (hint, hint * 2, larger);
        if !grows {
            break;
        }
    }
    while average(&best) >= bytes && hint - too_small > 1 {
        let middle = too_small + (hint - too_small) / 2;
        let values = samples(under_test, middle).map_err(no_sample)?;
        if average(&values) < bytes {
            too_small = middle;
        } else {
            (hint, best) = (middle, values);
        }
    }
    Ok(best)
}

fn samples(under_test: &PluginUnderTest, hint: u32) -> Result<Vec<Vec<u8>>, String> {
    (0..SAMPLES).map(|seed| under_test.sample(seed, hint)).collect()
}

fn no_sample(why: String) -> Failure {
    Failure::new(Exit::Negative, format!("the plugin's sampler gives no value: {why}"))
}

fn average(values: &[Vec<u8>]) -> usize {
    values.iter().map(Vec::len).sum::<usize>() / values.len().max(1)
}

/// Sets of siblings, each of other values.
fn inputs(values: &[Vec<u8>], siblings: u16) -> Vec<Vec<Sibling>> {
    let mut values = values.iter().cycle();
    let sibling =
        |(number, value): (u64, &Vec<u8>)| Sibling { value: value.clone().into(), stamp_ms: number, writer: number };
    (0..INPUTS).map(|_| (1..=u64::from(siblings)).zip(values.by_ref()).map(sibling).collect()).collect()
}

fn row(
    under_test: &PluginUnderTest,
    unmetered: &Unmetered,
    (values, siblings): (&[Vec<u8>], u16),
    time: Duration,
) -> Row {
    let inputs = inputs(values, siblings);
    let measured = measure(under_test, unmetered, &inputs, time);
    let (merge, failure) = match measured {
        Ok(merges) => (Some(merges), None),
        Err(failure) => (None, Some(failure)),
    };
    Row { siblings, value_bytes: average(values), merge, failure }
}

/// Merges for about that time, once each at least.
///
/// # Errors
/// Why a merge failed.
fn measure(
    under_test: &PluginUnderTest,
    unmetered: &Unmetered,
    inputs: &[Vec<Sibling>],
    time: Duration,
) -> Result<Merges, String> {
    let mut fuel = Histogram::<u64>::new(3).map_err(|why| why.to_string())?;
    let (mut memory_bytes, mut result_bytes, mut limits) = (0, 0, under_test.limits);
    // Equal siblings use equal fuel, so one merge of each says all. Only what ends with fuel is merged without.
    for input in inputs {
        let single = under_test.merge_once(KEY, input);
        let value = single.result.map_err(|fault| fault.to_string())?;
        fuel.record(single.used.fuel).map_err(|why| why.to_string())?;
        limits.fuel = limits.fuel.max(single.limits.fuel);
        memory_bytes = memory_bytes.max(single.used.memory_bytes);
        result_bytes = result_bytes.max(value.len());
    }
    let (mut metered, mut bare) = (Times::new(), Times::new());
    let began = Instant::now();
    let mut batches = inputs.chunks(BATCH).cycle();
    while began.elapsed() < time || metered.0.is_empty() {
        let batch = batches.next().unwrap_or_default();
        for input in batch {
            let merged = metered.of(|| under_test.host.merge(&under_test.plugin, KEY, input, &limits));
            merged.map_err(|fault| fault.to_string())?;
        }
        for input in batch {
            bare.of(|| unmetered.merge(KEY, input, &limits)).map_err(|fault| fault.to_string())?;
        }
    }
    let (p50_us, unmetered_p50_us) = (metered.us(0.5), bare.us(0.5));
    Ok(Merges {
        merges: metered.0.len(),
        rate: 1e9 / metered.0.mean().max(1.0),
        p50_us,
        p99_us: metered.us(0.99),
        fuel_p50: fuel.value_at_quantile(0.5),
        fuel_max: fuel.max(),
        memory_bytes,
        result_bytes,
        unmetered_p50_us,
        metering_percent: (p50_us / unmetered_p50_us - 1.0) * 100.0,
        memo_p50_us: remembered(under_test, inputs),
    })
}

/// How long the memo takes for a merge that it remembers.
fn remembered(under_test: &PluginUnderTest, inputs: &[Vec<Sibling>]) -> Option<f64> {
    let (memo, mut times) = (Memo::new(MEMO_BYTES), Times::new());
    let PluginUnderTest { host, plugin, limits, .. } = under_test;
    let input = inputs.first()?;
    memo.merge(host, plugin, KEY, input, limits).ok()?;
    let began = Instant::now();
    while began.elapsed() < MEMO_TIME {
        times.of(|| memo.merge(host, plugin, KEY, input, limits)).ok()?;
    }
    (memo.hits_and_misses().1 == 1).then(|| times.us(0.5))
}

/// Checks each law on random cases, as `plugin test` does, and says how many merges that ran a second.
fn law_rate(under_test: &PluginUnderTest) -> Option<LawRate> {
    if !under_test.plugin.exports().sample {
        return None;
    }
    let merge = Memoised::new(under_test);
    let config = CheckConfig { cases: LAW_CASES, ..CheckConfig::only_random() };
    let began = Instant::now();
    let mut cases = 0;
    for law in Law::ALL {
        match check_law(law, &merge, under_test, config) {
            Ok(stats) => cases += stats.cases,
            Err(_) => {
                note(format!("the law of {law} is broken, so its checks were not measured: `rejoin plugin test`"));
                return None;
            }
        }
    }
    let (merges, seconds) = (merge.runs(), began.elapsed().as_secs_f64());
    Some(LawRate { cases, merges, seconds, merges_per_second: merges as f64 / seconds.max(1e-9) })
}

fn print(out: Output, bench: &MergeBench) -> Result<(), Failure> {
    if out.json {
        return out.json(bench);
    }
    let us = |time: f64| format!("{time:.1} µs");
    let row = |row: &Row| {
        let mut cells = vec![row.siblings.to_string(), row.value_bytes.to_string()];
        match (&row.merge, &row.failure) {
            (Some(merge), _) => cells.extend([
                format!("{:.0}", merge.rate),
                us(merge.p50_us),
                us(merge.p99_us),
                merge.fuel_p50.to_string(),
                us(merge.unmetered_p50_us),
                format!("{:.0} %", merge.metering_percent),
                merge.memo_p50_us.map_or_else(|| "-".to_owned(), us),
            ]),
            (None, failure) => cells.push(failure.clone().unwrap_or_default()),
        }
        cells
    };
    let header =
        ["siblings", "bytes each", "merges/s", "p50", "p99", "fuel p50", "p50 without fuel", "fuel costs", "memo hit"];
    out.table(&header, bench.rows.iter().map(row).collect())?;
    if let Some(laws) = &bench.laws {
        let LawRate { cases, merges, seconds, merges_per_second } = laws;
        note(format!("laws: {cases} cases ran {merges} merges in {seconds:.1} s, {merges_per_second:.0} a second"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, PluginCommand};

    const QUIET: Output = Output { json: false, color: false };

    fn args(line: &[&str]) -> MergeBenchArgs {
        let cli = Cli::try_parse_from(["rejoin", "plugin", "bench"].iter().chain(line)).expect("a command line");
        let Command::Plugin(PluginCommand::Bench(args)) = cli.command else { panic!("another command") };
        args
    }

    fn under_test(merge: &crate::ready::ReadyMerge) -> (PluginUnderTest, Unmetered) {
        let component = merge.component().expect("a component");
        let modules = ModuleLimits::default();
        let loaded = PluginUnderTest::load(&component, &Compiler::InProcess, &modules, &BucketProps::default())
            .expect("a plugin");
        (loaded, Unmetered::compile(&component, &modules).expect("a plugin"))
    }

    fn file(dir: &Path, merge: &crate::ready::ReadyMerge) -> String {
        let file = dir.join("plugin.wasm");
        std::fs::write(&file, merge.component().expect("a component")).expect("it is ours");
        file.display().to_string()
    }

    #[test]
    fn a_merge_without_fuel_gives_the_same_bytes_and_both_are_measured() {
        let (under_test, unmetered) = under_test(&crate::ready::SET);
        let values = drawn(&under_test, 200).expect("sets of that size");
        assert!((200..2_000).contains(&average(&values)), "{}", average(&values));
        let inputs = inputs(&values, 3);
        assert!(inputs.len() == INPUTS && inputs[0] != inputs[1]);
        for input in &inputs {
            let with = under_test.merge_once(KEY, input).result.expect("it merges");
            assert_eq!(unmetered.merge(KEY, input, &under_test.limits).expect("it merges"), with);
        }
        let merges = measure(&under_test, &unmetered, &inputs, Duration::from_millis(50)).expect("they merge");
        assert!(merges.merges > 0 && merges.fuel_p50 > 1_000 && merges.p50_us <= merges.p99_us, "{merges:?}");
        assert!(merges.memo_p50_us.expect("it is remembered") < merges.p50_us, "{merges:?}");
    }

    #[test]
    fn a_sampler_of_small_values_gives_one_size() {
        let (under_test, _) = under_test(&crate::ready::MAX);
        let sizes = sizes(&under_test, &args(&["max.wasm"])).expect("numbers");
        assert!(sizes.len() == 1 && average(&sizes[0]) < 100, "{sizes:?}");
        let rate = law_rate(&under_test).expect("it is lawful");
        assert!(rate.cases >= LAW_CASES && rate.merges > 0, "{rate:?}");
    }

    #[test]
    fn typed_values_are_merged_and_what_is_refused_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = file(dir.path(), &crate::ready::MAX);
        let bench = |values: &[&str]| {
            let line = [&[file.as_str(), "--siblings", "2,3", "--seconds", "1"][..], values].concat();
            run(QUIET, &Compiler::InProcess, &args(&line))
        };
        bench(&["7", "9"]).expect("numbers");
        let failure = bench(&["7", "many"]).expect_err("it is no number");
        assert_eq!(failure.exit, Exit::Negative);
    }
}
