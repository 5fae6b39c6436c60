//! Plugins that misbehave when they run: each gets its own fault, and the host and other plugins are not affected.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rejoin_merge::{CallLimits, HostConfig, MergeFault, Refusal, TRANSCRIPT_CASES, TrapKind};
use rejoin_proto::catalog::{BucketProps, fuel_for};
use rejoin_test_hostile::{Bench, guests, siblings};

fn limits() -> CallLimits {
    CallLimits { fuel: 20_000_000, ..CallLimits::default() }
}

#[test]
fn traps_are_told_apart() {
    let bench = Bench::default();
    for (more, body, kind) in [
        ("", "(unreachable)", TrapKind::Unreachable),
        ("", "(i32.div_u (i32.const 1) (i32.sub (local.get $count) (local.get $count)))", TrapKind::Arithmetic),
        ("", "(i32.load (i32.const 70000))", TrapKind::OutOfBounds),
        ("", "(i32.load (i32.const -4))", TrapKind::OutOfBounds),
        ("(table 1 funcref)", "(call_indirect (result i32) (i32.const 0))", TrapKind::BadCall),
        (
            "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))",
            "(call $down (i32.const 0))",
            TrapKind::StackOverflow,
        ),
    ] {
        assert_eq!(bench.fault(&guests::merging(more, body), &limits()), MergeFault::Trapped(kind), "{body}");
    }
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let bench = Bench::default();
    for guest in [guests::endless(), guests::with_realloc("(loop $again (br $again)) (unreachable)")] {
        assert_eq!(bench.fault(&guest, &limits()), MergeFault::OutOfFuel { limit: limits().fuel });
    }
}

#[test]
fn without_a_fuel_limit_the_clock_still_ends_it() {
    let bench = Bench::default();
    let limits = CallLimits { fuel: u64::MAX, wall: Duration::from_millis(30), ..CallLimits::default() };
    let fault = bench.fault(&guests::endless(), &limits);
    assert_eq!(fault, MergeFault::OutOfTime { limit: limits.wall });
    assert!(!fault.is_deterministic());
}

#[test]
fn memory_over_the_limit_traps_and_is_never_seen_to_fail() {
    let bench = Bench::default();
    let limits = CallLimits { memory_bytes: 4 << 20, ..limits() };
    let greedy = guests::merging("", "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)");
    // Would answer if it were told that it may not grow.
    let curious = guests::merging(
        "",
        "(if (result i32) (i32.eq (memory.grow (i32.const 60000)) (i32.const -1))
           (then (call $answer (i32.const 0) (i32.const 1))) (else (unreachable)))",
    );
    let bounded =
        guests::with_memory("1 2", "(drop (memory.grow (i32.const 5))) (call $answer (i32.const 0) (i32.const 1))");
    let born_large = guests::with_memory("80", "(unreachable)");
    for guest in [greedy, curious, bounded, born_large] {
        assert_eq!(bench.fault(&guest, &limits), MergeFault::TooMuchMemory { limit: limits.memory_bytes });
    }
}

#[test]
fn growing_within_the_limit_is_fine() {
    let grows = guests::merging(
        "",
        "(i32.store8 (i32.const 2000) (i32.add (i32.const 48) (memory.grow (i32.const 8)))) (call $answer (i32.const \
            2000) (i32.const 1))",
    );
    assert_eq!(Bench::default().outcome(&grows, &limits()).expect("it may grow").value, "1");
}

#[test]
fn a_result_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let bench = Bench::default();
    for (bytes, fits) in [(1 << 20, true), ((1 << 20) + 1, false), (3 << 20, false)] {
        let guest = guests::with_memory("64", &format!("(call $answer (i32.const 0) (i32.const {bytes}))"));
        let outcome = bench.outcome(&guest, &limits());
        if fits {
            assert_eq!(outcome.expect("it fits").value.len(), bytes);
        } else {
            assert_eq!(outcome, Err(MergeFault::ResultTooLarge { limit: 1 << 20 }), "{bytes}");
        }
    }
}

#[test]
fn a_result_that_is_none_is_refused() {
    let bench = Bench::default();
    for body in [
        "(call $answer (i32.const 65000) (i32.const 65000))",
        "(call $answer (i32.const -8) (i32.const 16))",
        "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)",
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 9)) (i32.const 1024)",
        "(i32.const -4)",
        "(i32.const 1025)",
    ] {
        let fault = bench.fault(&guests::merging("", body), &limits());
        assert!(
            matches!(
                fault,
                MergeFault::BadResult { .. } | MergeFault::Trapped(TrapKind::CallingConvention | TrapKind::OutOfBounds)
            ),
            "{body}: {fault:?}"
        );
    }
    for realloc in ["(i32.const -64)", "(i32.const 65530)", "(i32.const 3)"] {
        let fault = bench.fault(&guests::with_realloc(realloc), &limits());
        assert!(
            matches!(
                fault,
                MergeFault::BadResult { .. } | MergeFault::Trapped(TrapKind::CallingConvention | TrapKind::OutOfBounds)
            ),
            "{realloc}: {fault:?}"
        );
    }
}

#[test]
fn too_many_siblings_are_not_tried() {
    let bench = Bench::default();
    let limits = CallLimits { max_siblings: 1, ..limits() };
    let fault = bench.host.merge(bench.good(), b"k", &siblings(), &limits).expect_err("two are one too many");
    assert_eq!(fault, MergeFault::TooManySiblings { count: 2, limit: 1 });
}

#[test]
fn an_ability_that_is_not_there_is_said_to_be_missing() {
    let bench = Bench::default();
    assert_eq!(bench.host.show(bench.good(), b"x", &limits()), Err(MergeFault::NotExported { interface: "presenter" }));
    assert_eq!(bench.host.sample(bench.good(), 1, 1, &limits()), Err(MergeFault::NotExported { interface: "sampler" }));
}

#[test]
fn every_call_gets_a_fresh_instance() {
    let bench = Bench::default();
    let counter = bench.plugin(&guests::counter());
    for _ in 0..50 {
        let merged = bench.host.merge(&counter, b"k", &siblings(), &limits()).expect("it behaves well");
        assert_eq!(&merged.value[..], [1, 1], "an earlier call's globals and memory are still there");
    }
}

#[test]
fn a_not_a_number_has_one_form() {
    let guest = guests::merging(
        "",
        "(f32.store (i32.const 2000) (f32.div (f32.convert_i32_u (i32.sub (local.get $count) (i32.const 2))) \
            (f32.const 0)))
         (f32.store (i32.const 2004) (f32.sqrt (f32.const -1)))
         (call $answer (i32.const 2000) (i32.const 8))",
    );
    let merged = Bench::default().outcome(&guest, &limits()).expect("it behaves well");
    assert_eq!(&merged.value[..], [0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f]);
}

#[test]
fn when_every_instance_is_in_use_the_answer_is_busy() {
    let bench = Bench::new(HostConfig { instances: 1, ..HostConfig::default() });
    let endless = bench.plugin(&guests::endless());
    let long = CallLimits { fuel: u64::MAX, wall: Duration::from_secs(1), ..CallLimits::default() };
    std::thread::scope(|scope| {
        // The holder meets the other's instance at times, and comes again until it has its own.
        let hold = || {
            std::iter::repeat_with(|| bench.host.merge(&endless, b"k", &siblings(), &long))
                .find(|outcome| *outcome != Err(MergeFault::Busy))
        };
        let holder = scope.spawn(hold);
        let mut answers = std::iter::from_fn(|| {
            (!holder.is_finished()).then(|| bench.host.merge(bench.good(), b"k", &siblings(), &limits()))
        });
        assert!(answers.any(|answer| answer == Err(MergeFault::Busy)), "the one instance was never in use");
        let held = holder.join().expect("a thread that only merges");
        assert_eq!(held, Some(Err(MergeFault::OutOfTime { limit: long.wall })));
    });
    bench.assert_unharmed();
}

#[test]
fn a_plugin_that_decides_by_order_is_refuted_on_the_component() {
    struct Letters;
    impl rejoin_laws::Sampler for Letters {
        fn sample(&self, seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Ok(vec![b'a' + (seed % 3) as u8])
        }
    }
    let bench = Bench::default();
    let under_test = rejoin_merge::PluginUnderTest::new(bench.host.clone(), bench.good().clone(), limits());
    let found = rejoin_laws::check(&under_test, &Letters, rejoin_laws::CheckConfig::default())
        .expect_err("the first sibling wins");
    assert_eq!(found.law, rejoin_laws::Law::Permutation);
}

#[test]
fn a_validator_takes_refuses_or_fails_and_harms_nobody() {
    let bench = Bench::default();
    let plugin = bench.plugin(&guests::validating());
    assert!(plugin.exports().validate);
    let validate = |value: &[u8]| bench.host.validate(&plugin, b"k", value, &limits());
    assert_eq!(validate(b"good"), Ok(()));
    assert_eq!(validate(b""), Ok(()));
    assert_eq!(validate(b"!"), Err(MergeFault::Refused(Refusal::Malformed)));
    assert_eq!(validate(b"#"), Err(MergeFault::Refused(Refusal::Unsupported)));
    assert_eq!(validate(b"?"), Err(MergeFault::Trapped(TrapKind::Unreachable)));
    assert_eq!(validate(b"~"), Err(MergeFault::OutOfFuel { limit: limits().fuel }));
    let without = bench.host.validate(bench.good(), b"k", b"v", &limits());
    assert_eq!(without, Err(MergeFault::NotExported { interface: "validator" }));
    bench.assert_unharmed();
}

/// The budget of a node for small siblings, and its wall clock. How long a unit lasts is for `rejoin-fuel` to measure;
/// here the fuel must only be the first to end.
#[test]
fn however_the_fuel_of_a_small_merge_is_burnt_it_ends_before_the_clock_decides() {
    let bench = Bench::default();
    let fuel = fuel_for(BucketProps::default().fuel, 100 << 10);
    let limits = CallLimits { fuel, wall: Duration::from_secs(20), ..CallLimits::default() };
    for (name, guest) in rejoin_test_hostile::costly::all() {
        assert_eq!(bench.fault(&guest, &limits), MergeFault::OutOfFuel { limit: limits.fuel }, "{name}");
    }
}

#[test]
fn a_transcript_is_the_same_on_every_host_and_bounded_whatever_a_plugin_does() {
    let (bench, other) = (Bench::default(), Bench::new(HostConfig { instances: 2, ..HostConfig::default() }));
    let greedy = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
    let all = [
        guests::picking(1, 0),
        guests::picking(2, 1),
        guests::validating(),
        guests::refusing(),
        guests::endless(),
        guests::merging("", "(unreachable)"),
        guests::merging("", greedy),
        guests::merging("", "(call $answer (i32.const -8) (i32.const 16))"),
    ];
    let mut hashes = BTreeSet::new();
    for component in &all {
        let began = Instant::now();
        let transcript = bench.host.transcript(&bench.plugin(component)).expect("a verdict").expect("a transcript");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(other.host.transcript(&other.plugin(component)), Ok(Some(transcript)));
        assert_eq!((transcript.profile, transcript.cases), (bench.host.profile(), TRANSCRIPT_CASES));
        hashes.insert(transcript.hash);
        bench.assert_unharmed();
    }
    assert_eq!(hashes.len(), all.len(), "what answers otherwise has another transcript");
    // One unit of fuel more is another transcript, although the answers are the same.
    let of = |rounds| bench.host.transcript(&bench.plugin(&guests::slow(rounds))).expect("a verdict");
    assert!(of(100).is_some() && of(100) == of(100) && of(100) != of(101));
}

/// Where the stack is deeper it may get an answer. A hash of either would make one of two sound machines a faulty one.
#[test]
fn a_plugin_that_overflows_its_stack_has_no_transcript_to_be_compared() {
    let bench = Bench::default();
    let down = "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))";
    let overflows = guests::merging(down, "(call $down (i32.const 0))");
    assert_eq!(bench.host.transcript(&bench.plugin(&overflows)), Ok(None));
    bench.assert_unharmed();
}

#[test]
fn a_host_without_room_gives_no_transcript() {
    let bench = Bench::new(HostConfig { instances: 1, ..HostConfig::default() });
    let (good, endless) = (bench.plugin(&guests::first()), bench.plugin(&guests::endless()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(bench.host.merge(&endless, b"k", &siblings(), &limits()));
            }
        });
        let fault = (0..100_000).find_map(|_| bench.host.transcript(&good).err());
        done.store(true, Ordering::Relaxed);
        assert_eq!(fault, Some(MergeFault::Busy));
    });
    assert!(matches!(bench.host.transcript(&good), Ok(Some(_))), "it is tried again");
}
