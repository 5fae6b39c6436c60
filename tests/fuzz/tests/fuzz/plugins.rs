//! Pushed components, and results of guests.

use std::sync::LazyLock;
use std::time::Duration;

use rejoin_merge::{CallLimits, MergeFault, ModuleLimits, Plugin, Refusal, Rejection, Sibling, TrapKind, digest_of};
use rejoin_test_hostile::{Bench, guests, siblings};

use crate::{fuzz, meter};

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::default);

/// Bytes of memory for looking at a component before it is compiled, beside a few times its own.
const SCAN_BYTES: usize = 64 << 10;

fn module_limits() -> ModuleLimits {
    ModuleLimits {
        bytes: 8 << 10,
        functions: 200,
        function_bytes: 4 << 10,
        modules: 4,
        initial_memory_bytes: 1 << 20,
        table_elements: 1_000,
        ..ModuleLimits::default()
    }
}

/// Little of everything. Only fuel decides: an answer that hangs on the wall clock would not be the same twice.
fn call_limits() -> CallLimits {
    CallLimits {
        fuel: 100_000,
        memory_bytes: 2 << 20,
        result_bytes: 100,
        max_siblings: 4,
        wall: Duration::from_secs(60),
    }
}

fn upload(bytes: &[u8]) {
    let (outcome, held) = meter::peak(|| BENCH.host.compile(bytes, &module_limits()));
    match outcome {
        Ok(plugin) => taken(bytes, &plugin),
        Err(rejection) => {
            let before_compiling = match &rejection {
                Rejection::TooLarge { bytes: count, limit } => {
                    assert!(*count == bytes.len() && count > limit);
                    true
                }
                Rejection::CoreModule => bytes.starts_with(b"\0asm\x01\0\0\0"),
                Rejection::NotAComponent { .. } => !bytes.starts_with(b"\0asm\x01\0\0\0"),
                Rejection::StructureLimit { count, limit, .. } => count > limit,
                Rejection::NoMerger { .. } => true,
                Rejection::Imports { .. } | Rejection::WrongInterface { .. } | Rejection::Uncompilable { .. } => false,
                Rejection::CannotStart { .. } | Rejection::BadMetadata { .. } => false,
                other => panic!("no fault of the host is to be met here: {other}"),
            };
            assert!(
                !before_compiling || held <= 8 * bytes.len() + SCAN_BYTES,
                "{held} bytes held to refuse {}: {rejection}",
                bytes.len()
            );
            assert!(!rejection.to_string().is_empty());
            let again = BENCH.host.compile(bytes, &module_limits());
            assert_eq!(
                again.map(|_| "taken").map_err(|rejection| rejection.to_string()),
                Err(rejection.to_string()),
                "one verdict"
            );
        }
    }
    BENCH.assert_unharmed();
}

/// What is taken is what was pushed, says of itself what may be printed, and answers within its limits, the same every
/// time.
fn taken(bytes: &[u8], plugin: &Plugin) {
    assert!(bytes.len() <= module_limits().bytes);
    assert_eq!(plugin.digest(), digest_of(bytes));
    for text in plugin.metadata().into_iter().flat_map(|metadata| [&metadata.name, &metadata.version]) {
        assert!((1..=64).contains(&text.len()) && !text.chars().any(char::is_control), "{text:?}");
    }
    let merge = || BENCH.host.merge(plugin, b"key", &siblings(), &call_limits());
    let outcome = merge();
    match &outcome {
        Ok(merged) => assert!(merged.value.len() <= 100 && merged.fuel_used <= 100_000),
        Err(fault) => assert!(fault.is_deterministic(), "{fault}"),
    }
    assert_eq!(merge(), outcome, "the same inputs, the same answer");
}

#[test]
fn uploads() {
    let card = "(call $card (i32.const 3000) (i32.const 4))";
    let seeds = vec![
        guests::first(),
        guests::counter(),
        guests::describing(card),
        guests::importing(),
        guests::without_merger(),
        guests::of_another_type(),
        guests::with_memory("1 4", "(drop (memory.grow (i32.const 2))) (call $answer (i32.const 0) (i32.const 90))"),
        guests::merging("(table 10 funcref) (func) (func)", "(call $answer (i32.const 4096) (i32.const 3))"),
    ];
    fuzz("uploads", seeds, upload);
}

/// A plugin that returns what it is told: the first sibling is the pointer that it returns and the twelve bytes that
/// stand at [`ANSWER`].
static PUPPET: LazyLock<Plugin> = LazyLock::new(|| {
    let body = "
        (local $told i32)
        (local.set $told (i32.load (local.get $siblings)))
        (i64.store (i32.const 1024) (i64.load offset=4 (local.get $told)))
        (i32.store (i32.const 1032) (i32.load offset=12 (local.get $told)))
        (i32.load (local.get $told))";
    BENCH.plugin(&guests::merging("", body))
});

/// Where the puppet puts its answer.
const ANSWER: usize = 1024;
/// Up to here its memory is known: the answer, and zeros.
const KNOWN: usize = 4096;
/// All of its memory.
const MEMORY: usize = 64 << 10;

/// What the answer at a pointer means in the component model: `result<list<u8>, fault>`, in a memory that is known up
/// to `KNOWN`. `None` where that cannot be said.
fn meaning(memory: &[u8], at: usize, limit: usize) -> Option<Result<Vec<u8>, MergeFault>> {
    let word = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().unwrap()) as usize;
    let bad = || Some(Err(MergeFault::BadResult { reason: String::new() }));
    if !at.is_multiple_of(4) || at + 12 > MEMORY {
        return bad();
    }
    if at + 12 > KNOWN {
        return None;
    }
    match (memory[at], memory[at + 4]) {
        (0, _) => {
            let (from, len) = (word(at + 4), word(at + 8));
            match (from.checked_add(len).is_some_and(|end| end <= MEMORY), len > limit) {
                (false, _) => bad(),
                (true, true) => Some(Err(MergeFault::ResultTooLarge { limit })),
                (true, false) => {
                    memory.get(from..from + len).filter(|_| from + len <= KNOWN).map(|value| Ok(value.to_vec()))
                }
            }
        }
        (1, 0) => Some(Err(MergeFault::Refused(Refusal::Malformed))),
        (1, 1) => Some(Err(MergeFault::Refused(Refusal::Unsupported))),
        (1, 2) => Some(Err(MergeFault::Refused(Refusal::TooLarge))),
        _ => bad(),
    }
}

fn result(bytes: &[u8]) {
    let mut told = bytes.to_vec();
    told.resize(bytes.len().clamp(16, 64), 0);
    let mut memory = vec![0; KNOWN];
    memory[ANSWER..ANSWER + 12].copy_from_slice(&told[4..16]);
    let at = u32::from_le_bytes(told[..4].try_into().unwrap()) as usize;
    let inputs = [Sibling { value: told.into(), stamp_ms: 1, writer: 1 }];
    let (outcome, held) = meter::peak(|| BENCH.host.merge(&PUPPET, b"k", &inputs, &call_limits()));
    assert!(held < 256 << 10, "{held} bytes held for a result of at most 100");
    let outcome = outcome.map(|merged| merged.value.to_vec());
    assert!(outcome.as_ref().map_or_else(MergeFault::is_deterministic, |value| value.len() <= 100));
    match (outcome, meaning(&memory, at, 100)) {
        (_, None) => {}
        // A list that is too long and outside as well may be refused for either.
        (Err(MergeFault::ResultTooLarge { .. }), Some(Err(MergeFault::BadResult { .. }))) => {}
        (Err(MergeFault::BadResult { .. }), Some(Err(MergeFault::BadResult { .. }))) => {}
        (
            Err(MergeFault::Trapped(TrapKind::CallingConvention | TrapKind::OutOfBounds)),
            Some(Err(MergeFault::BadResult { .. })),
        ) => {}
        (found, Some(expected)) => assert_eq!(found, expected),
    }
    BENCH.assert_unharmed();
}

#[test]
fn results() {
    let told = |at: u32, answer: [u32; 3]| {
        [at, answer[0], answer[1], answer[2]].iter().flat_map(|word| word.to_le_bytes()).collect()
    };
    let seeds = vec![
        told(1024, [0, 1024, 12]),
        told(1024, [0, 0, 100]),
        told(1024, [0, 65_500, 36]),
        told(1024, [1, 2, 0]),
        told(1028, [7, 0, 1024]),
        told(0, [9, 9, 9]),
    ];
    fuzz("results", seeds, result);
}
