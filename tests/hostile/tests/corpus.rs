//! Every component of the corpus on the way of a push and of a call: it is refused or contained for its reason, and
//! neither the compiling process nor the host takes more than its limits of memory and time. The only test of this
//! program, since others would take memory at the same time.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::time::Duration;

use rejoin_merge::{CallLimits, CancelToken, ChildCompiler, CompileLimits, ModuleLimits};
use rejoin_test_hostile::cost::{Cost, of_compilers, of_thread};
use rejoin_test_hostile::{Bench, corpus};

/// The fewest components of a corpus that is worth its name.
const LEAST: usize = 40;
/// Half of the memory and time that a node gives a compiling process.
const COMPILE: CompileLimits = CompileLimits {
    memory_bytes: 256 << 20,
    cpu_seconds: 10,
    wall: Duration::from_secs(120),
    artefact_bytes: 16 << 20,
};
/// Fuel of a small merge. Only fuel ends a call: the clock is for a machine that stands still.
const CALL: CallLimits = CallLimits {
    fuel: 100_000_000,
    memory_bytes: 64 << 20,
    result_bytes: 1 << 20,
    max_siblings: 64,
    wall: Duration::from_secs(60),
};
/// What loading and a call may add to the memory of an instance: machine code, a result, a core dump's copies.
const BESIDE: u64 = 64 << 20;
/// Processor time of loading and a call: 80 ns for a unit of fuel, ten times the slowest.
const CALL_CPU: Duration = Duration::from_secs(8);
/// Lengths of ticks, by which the time of a process is rounded.
const ROUNDING: Duration = Duration::from_millis(500);

#[test]
fn each_hostile_component_is_refused_or_contained_for_its_reason_and_within_its_bounds() {
    let bench = Bench::default();
    let compiler = ChildCompiler { program: env!("CARGO_BIN_EXE_rejoin-test-compiler").into(), limits: COMPILE };
    let corpus = corpus::all();
    let names: BTreeSet<&str> = corpus.iter().map(|one| one.name.as_str()).collect();
    assert!(names.len() == corpus.len() && corpus.len() >= LEAST, "{} names of {}", names.len(), corpus.len());
    let (mut wrong, mut compiling, mut calling) = (Vec::new(), Cost::default(), Cost::default());
    for one in &corpus {
        let compile = || compiler.compile(&one.component, &ModuleLimits::default(), &CancelToken::default());
        let (compiled, compile) = of_compilers(compile);
        let (outcome, call) = of_thread(|| one.outcome.judge(&bench.host, compiled, &CALL));
        bench.assert_unharmed();
        if let Err(instead) = outcome {
            wrong.push(format!("{}: {:?}, but: {instead}", one.name, one.outcome));
        }
        let within = compile.resident <= COMPILE.memory_bytes
            && compile.cpu <= Duration::from_secs(COMPILE.cpu_seconds) + ROUNDING
            && call.resident <= CALL.memory_bytes as u64 + BESIDE
            && call.cpu <= CALL_CPU;
        if !within {
            wrong.push(format!("{}: compiling took {compile:?}, the call {call:?}", one.name));
        }
        (compiling, calling) = (compiling.max(compile), calling.max(call));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Some grow to 60 MiB, and some take long to compile: what is measured is theirs.
    let seen = compiling.resident > 4 << 20 && compiling.cpu > Duration::ZERO;
    assert!(
        seen && calling.resident > 30 << 20 && calling.cpu > Duration::from_millis(10),
        "{compiling:?} {calling:?}"
    );
}
