//! The laws that are checked again on a merge that was run, on plugins that break one each.

use std::sync::mpsc::channel;

use rejoin_merge::laws::Law;
use rejoin_merge::{
    CallLimits, Memo, MergeFault, PluginCall, Pool, PoolConfig, SampledLaws, SampledMerge, Sibling, TenantShare,
    job_fuel,
};
use rejoin_test_hostile::{Bench, guests, lawless};

/// Siblings of one byte each, written one after the other.
fn digits(digits: &str) -> Vec<Sibling> {
    let sibling = |(at, digit): (u64, char)| Sibling { value: digit.to_string().into(), stamp_ms: at, writer: at };
    (1..).zip(digits.chars()).map(sibling).collect()
}

/// Merges siblings, and checks the laws on that.
fn checked(bench: &Bench, component: &[u8], siblings: Vec<Sibling>) -> SampledLaws {
    let (plugin, limits) = (bench.plugin(component), CallLimits::default());
    let value = bench.host.merge(&plugin, b"k", &siblings, &limits).expect("it merges").value;
    let found = bench.host.check_again(&plugin, &SampledMerge { key: "k".into(), siblings, value }, &limits);
    bench.assert_unharmed();
    found
}

#[test]
fn a_law_that_is_broken_is_found_where_the_siblings_show_it_and_nowhere_else() {
    let bench = Bench::default();
    let cases: [(Vec<u8>, &str, &[Law]); 8] = [
        (lawless::largest(), "173", &[]),
        (lawless::largest(), "71", &[]),
        (lawless::first(), "123", &[Law::Permutation]),
        (lawless::first(), "111", &[]),
        (lawless::sum(), "12", &[Law::Idempotence, Law::Absorption]),
        (lawless::rock_paper_scissors(), "124", &[Law::Bracketing]),
        // Rare siblings: as long as there are five, it is right.
        (lawless::first_five(), "01234", &[]),
        (lawless::first_five(), "0123456", &[Law::Permutation, Law::Bracketing, Law::Absorption]),
    ];
    for (component, siblings, broken) in cases {
        let found = checked(&bench, &component, digits(siblings));
        let laws: Vec<Law> = found.violations.iter().map(|violation| violation.law).collect();
        assert_eq!(laws, broken, "{siblings}: {found:?}");
        assert!(found.violations.iter().all(|violation| violation.confirmed), "{found:?}");
        for violation in &found.violations {
            match violation.law {
                Law::Idempotence => assert!(violation.siblings.len() == 2, "its result, twice"),
                _ => assert_eq!(violation.siblings, digits(siblings)),
            }
        }
    }
    // Clocks that agree are rare too.
    let mut equal = digits("12");
    equal[1].stamp_ms = 1;
    assert!(checked(&bench, &lawless::last_writer(), digits("12")).violations.is_empty());
    let found = checked(&bench, &lawless::last_writer(), equal);
    assert_eq!(found.violations[0].law, Law::Permutation, "{found:?}");
}

#[test]
fn a_result_that_varies_is_the_machines_fault_and_no_other_law_is_judged_by_it() {
    let bench = Bench::default();
    // What was stored as the result is not what the merge returns, so no equation holds of a sound plugin either.
    for component in [lawless::largest(), lawless::sum()] {
        let plugin = bench.plugin(&component);
        let merge = SampledMerge { key: "k".into(), siblings: digits("123"), value: "1".into() };
        let found = bench.host.check_again(&plugin, &merge, &CallLimits::default());
        let laws: Vec<(Law, bool)> = found.violations.iter().map(|one| (one.law, one.confirmed)).collect();
        assert_eq!((laws, found.judged), (vec![(Law::Replay, true)], 1));
    }
}

#[test]
fn what_ends_for_want_of_fuel_is_not_judged_and_breaks_nothing() {
    let bench = Bench::default();
    let plugin = bench.plugin(&lawless::first());
    let merge = SampledMerge { key: "k".into(), siblings: digits("12"), value: "1".into() };
    let found = bench.host.check_again(&plugin, &merge, &CallLimits { fuel: 10, ..CallLimits::default() });
    assert_eq!(found, SampledLaws::default());
}

#[test]
fn a_pool_checks_beside_its_threads_and_tells_what_it_took() {
    let bench = Bench::default();
    let shares =
        PoolConfig { threads: 1, queue: 4, tenant_threads: 1, tenant_queue: 4, bucket_threads: 1, bucket_queue: 4 };
    let pool = Pool::new(bench.host.clone(), Memo::new(0), shares).expect("threads");
    let call = PluginCall {
        bucket: 1,
        tenant: TenantShare::default(),
        plugin: bench.plugin(&lawless::sum()),
        limits: CallLimits::default(),
        fresh: false,
    };
    let (send, told) = channel();
    let (release, wait) = channel::<()>();
    let hold = move |_| {
        wait.recv().ok();
    };
    pool.merge(call.clone(), "k".into(), digits("12"), || true, hold).expect("the only thread is held from now on");
    let merge = || SampledMerge { key: "k".into(), siblings: digits("12"), value: "3".into() };
    let done = move |found: Result<SampledLaws, MergeFault>| send.send((found, job_fuel())).expect("the test waits");
    pool.check_again(call.clone(), merge(), done).expect("there is room");
    let (found, fuel) = told.recv().expect("another thread checks it");
    assert_eq!(found.expect("it was run").violations.len(), 2);
    assert!(fuel > 0);
    drop(release);
    // The queue is bounded, for a tenant and for all.
    let ((release, wait), (started, is_started)) = (channel::<()>(), channel());
    let hold = move |_| {
        started.send(()).expect("the test waits");
        wait.recv().ok();
    };
    pool.check_again(call.clone(), merge(), hold).expect("it is idle");
    is_started.recv().expect("it has run, and holds the thread");
    let waiting = (0..1_000).take_while(|_| pool.check_again(call.clone(), merge(), |_| ()).is_ok()).count();
    assert_eq!(waiting, 16);
    drop(release);
}

#[test]
fn what_waits_to_be_checked_is_bounded_in_bytes_and_its_room_is_given_back() {
    let bench = Bench::default();
    let pool = Pool::new(bench.host.clone(), Memo::new(0), PoolConfig::default()).expect("threads");
    let plugin = bench.plugin(&lawless::largest());
    let call = |tenant| PluginCall {
        bucket: tenant,
        tenant: TenantShare { tenant, weight: 1 },
        plugin: plugin.clone(),
        limits: CallLimits::default(),
        fresh: false,
    };
    let small = SampledMerge { key: "k".into(), siblings: digits("12"), value: "2".into() };
    let large = SampledMerge { value: vec![b'2'; 3 << 20].into(), ..small.clone() };
    let ((release, wait), (started, is_started)) = (channel::<()>(), channel());
    let hold = move |_| {
        started.send(()).expect("the test waits");
        wait.recv().ok();
    };
    pool.check_again(call(0), small.clone(), hold).expect("it is idle");
    is_started.recv().expect("it has run, and holds the thread");
    // Each of another tenant, so that only the bytes of all are in the way.
    let (send, told) = channel();
    let waiting = (1..99).take_while(|tenant| {
        let send = send.clone();
        let done = move |_| send.send(()).expect("the test waits");
        pool.check_again(call(*tenant), large.clone(), done).is_ok()
    });
    let waiting = waiting.count();
    assert_eq!(waiting, 5, "of 3 MiB each");
    assert!(pool.check_again(call(99), small, |_| ()).is_ok(), "a small one fits beside them");
    drop(release);
    (0..waiting).for_each(|_| told.recv().expect("it is checked"));
    pool.check_again(call(100), large, |_| ()).expect("there is room again");
}

#[test]
fn every_call_of_a_job_is_counted_and_what_is_remembered_is_not() {
    let bench = Bench::default();
    let pool = Pool::inline(bench.host.clone(), Memo::new(1 << 20));
    let call = |component: &[u8]| PluginCall {
        bucket: 1,
        tenant: TenantShare::default(),
        plugin: bench.plugin(component),
        limits: CallLimits { fuel: 1_000_000, ..CallLimits::default() },
        fresh: false,
    };
    let (send, told) = channel();
    let validate = |value: &'static str| {
        let send = send.clone();
        let done =
            move |answer: Result<(), MergeFault>| send.send((answer.is_ok(), job_fuel())).expect("the test waits");
        pool.validate(call(&guests::validating()), "k".into(), value.into(), || true, done).expect("it is run");
        told.recv().expect("at once")
    };
    let (good, fuel) = validate("good");
    assert!(good && fuel > 0);
    assert!(matches!(validate("!bad"), (false, fuel) if fuel > 0), "a refusal is work too");
    assert!(matches!(validate("?trap"), (false, fuel) if fuel > 0), "and so is a trap");
    assert!(matches!(validate("~loop"), (false, fuel) if fuel > 990_000), "all of it");
    assert_eq!(validate("!bad"), (false, 0), "it is remembered");
    let show = |component: &[u8]| {
        let send = send.clone();
        let done = move |shown: Result<_, MergeFault>| send.send((shown.is_ok(), job_fuel())).expect("the test waits");
        pool.show(call(component), "5".into(), || true, done).expect("it is run");
        told.recv().expect("at once")
    };
    assert!(matches!(show(&lawless::largest()), (true, fuel) if fuel > 0));
    assert_eq!(show(&lawless::largest()), (true, 0));
    let merge = |component: &[u8]| {
        let send = send.clone();
        let done = move |merged: Result<rejoin_merge::Merged, MergeFault>| {
            send.send((merged.is_ok(), job_fuel())).expect("the test waits");
        };
        pool.merge(call(component), "k".into(), digits("15"), || true, done).expect("it is run");
        told.recv().expect("at once")
    };
    // A merge that traps is run again to find the sibling that it traps on: all of that counts.
    let plain = merge(&lawless::largest()).1;
    assert!(matches!(merge(&lawless::trapping()), (false, fuel) if fuel > plain), "{plain}");
    assert_eq!(job_fuel(), 0, "outside of a job");
}
