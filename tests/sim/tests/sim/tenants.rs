//! Two tenants in one simulated cluster. That none sees a byte of the other is checker 9, in every seed that has two.
//! Here is its other half: the answers that a tenant is given are the same with the neighbour on or off.
//!
//! Two runs of one seed are compared, with and without the neighbour's clients. So that only the neighbour can make a
//! difference, nothing else is left to chance between them: no faults, no lost messages, time enough for each call, and
//! every session has keys and a random stream of its own. The network's delays still differ, because both tenants draw
//! from one stream; so calls are compared by their place in their session and not by their time. What is compared is
//! what was asked, whether it was taken, and the values of the answer. Contexts are not: their counters are those of a
//! partition, which the tenants share. Neither are the kinds of values whose merge goes by stamps.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeMap;

use rejoin_test_sim::history::{Asked, Basis, Kind, Outcome, Run};
use rejoin_test_sim::options::{FaultOptions, NetworkOptions, Options, PerMillion};
use rejoin_test_sim::run;

/// A virtual second, in microseconds.
const SECOND: u64 = 1_000_000;
/// Sessions of both tenants. The first tenant has two, so that its own do not disturb each other either.
const SESSIONS: u16 = 8;
/// As many siblings as a key of one session can have before it is full.
const SIBLINGS: u16 = 200;

/// A quiet cluster of that seed.
fn options(seed: u64, neighbour: bool) -> Options {
    let mut options = Options::draw(seed);
    (options.tenants, options.apart, options.neighbour) = (2, true, neighbour);
    (options.faults, options.spares, options.change_copies) = (FaultOptions::default(), 0, false);
    (options.max_ops, options.max_retry_bytes, options.max_waiting) = (1024, 20 << 20, 1 << 18);
    (options.retry_window_ms, options.wasm, options.chaos_us) = (60_000, false, 25 * SECOND);
    let quiet = PerMillion::default();
    options.network = NetworkOptions {
        loss: quiet,
        unsent: quiet,
        bulk_stalls: quiet,
        duplicates: quiet,
        stragglers: quiet,
        ghosts: false,
        jitter_us: options.network.jitter_us.min(1_000),
        ..options.network
    };
    options.clients.sessions = SESSIONS;
    (options.clients.think_us, options.clients.deadline_ms) = (20_000, 3_000);
    (options.clients.ttl, options.clients.receipts) = (quiet, quiet);
    for bucket in &mut options.buckets {
        bucket.kind = if bucket.kind == Kind::Latest { Kind::Set } else { bucket.kind };
        bucket.plugin |= bucket.kind == Kind::Cart;
        let majority = bucket.n / 2 + 1;
        (bucket.r, bucket.w, bucket.pr, bucket.pw) = (majority, majority, 0, 0);
        (bucket.siblings, bucket.keys, bucket.sloppy) = (SIBLINGS, SESSIONS, false);
    }
    options
}

/// By session of the first tenant: what it has asked, and what it was told.
fn told(run: &Run) -> BTreeMap<u32, Vec<String>> {
    let mut told: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for call in run.calls.iter().filter(|call| call.session < u32::from(SESSIONS) && run.tenant_of(call.session) == 0) {
        assert_eq!(run.keys[call.key as usize].tenant, 0, "a session asks for keys of its tenant");
        let asked = match &call.asked {
            Asked::Get { r } => format!("get, {r:?}"),
            Asked::Undo { .. } => "undo".to_owned(),
            Asked::Put { value, basis, w, .. } => {
                let basis = match basis {
                    Basis::Blind => "blind",
                    Basis::After(_) => "after",
                    Basis::Create => "create",
                };
                format!("put {value:?} {basis}, {w:?}")
            }
        };
        let outcome = match &call.outcome {
            Outcome::Ok(answer) => {
                let mut values = answer.values.clone();
                values.sort();
                format!("{values:?}")
            }
            Outcome::Refused => "refused".into(),
            Outcome::Unknown(_) => "unknown".into(),
        };
        told.entry(call.session).or_default().push(format!("{asked} -> {outcome}"));
    }
    told
}

#[test]
fn a_tenants_answers_are_the_same_with_the_neighbour_on_or_off() {
    let (mut compared, mut neighbours, mut refused) = (0, 0, 0);
    for seed in 0..30 {
        let (with, without) = (run::with(options(seed, true), None), run::with(options(seed, false), None));
        for report in [&with, &without] {
            assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        }
        let of_neighbour = |run: &Run| {
            run.calls
                .iter()
                .filter(|call| call.session < u32::from(SESSIONS) && run.tenant_of(call.session) == 1)
                .count()
        };
        assert_eq!(of_neighbour(&without.run), 0);
        neighbours += of_neighbour(&with.run);
        let (with, without) = (told(&with.run), told(&without.run));
        assert_eq!(with.keys().collect::<Vec<_>>(), without.keys().collect::<Vec<_>>());
        for (session, with) in &with {
            let without = &without[session];
            // Delays differ, and so one of them has had time for a few calls more.
            let most = with.len().max(without.len());
            let both = with.len().min(without.len());
            assert!(both * 10 >= most * 8, "seed {seed}, session {session}: {} and {}", with.len(), without.len());
            for (at, (with, without)) in with.iter().zip(without).enumerate() {
                assert_eq!(with, without, "seed {seed}, session {session}, call {at}: with the neighbour and without");
                refused += usize::from(with.ends_with("refused"));
            }
            compared += both;
        }
    }
    println!(
        "{compared} answers of one tenant are the same beside {neighbours} calls of the other; {refused} refusals"
    );
    assert!(compared > 10_000 && neighbours > 10_000, "{compared} beside {neighbours}");
}

#[test]
fn seeds_with_two_tenants_keep_them_apart_and_refuse_contexts_of_the_other() {
    let seeds = (0..).filter(|seed| {
        let options = Options::draw(*seed);
        options.tenants == 2 && options.clients.foreign.0 > 0
    });
    let (mut crossed, mut elements) = (0, [0; 2]);
    for seed in seeds.take(12) {
        let report = run::seed(seed);
        assert!(report.findings.is_empty(), "seed {seed}: {:?}", report.findings);
        let run = &report.run;
        for call in &run.calls {
            let tenant = run.keys[call.key as usize].tenant;
            elements[usize::from(tenant)] += call.answer().map_or(0, |answer| answer.values.len());
            let Asked::Put { basis: Basis::After(basis), .. } = call.asked else { continue };
            crossed += usize::from(run.keys[run.calls[basis as usize].key as usize].tenant != tenant);
        }
    }
    println!("{crossed} writes with a context of the other tenant, none taken; values read by tenant: {elements:?}");
    assert!(crossed > 100 && elements.iter().all(|read| *read > 1_000), "{crossed}, {elements:?}");
}
