//! The pool under plugins that hold its threads: it stays bounded, and every job is answered.

use std::sync::mpsc::{Receiver, Sender, channel};

use rejoin_merge::{
    ArtefactCache, CallLimits, CompileQueue, Compiler, Memo, MergeFault, ModuleLimits, Overloaded, Plugin, PluginCall,
    Pool, PoolConfig, QueueConfig, QueueOf, Rejection, TenantShare,
};
use rejoin_test_hostile::{Bench, guests, siblings};

/// A call of bucket 1.
fn call(plugin: &Plugin) -> PluginCall {
    let (tenant, limits) = (TenantShare::default(), CallLimits::default());
    PluginCall { bucket: 1, tenant, plugin: plugin.clone(), limits, fresh: false }
}

struct Held {
    release: Sender<()>,
    answers: Receiver<(u32, Result<(), MergeFault>)>,
    send: Sender<(u32, Result<(), MergeFault>)>,
}

/// A pool of one thread that is held: the job on it has merged, and waits in its callback.
fn held(bench: &Bench, queue: usize) -> (Pool, Held) {
    let pool = Pool::new(
        bench.host.clone(),
        Memo::new(0),
        PoolConfig {
            threads: 1,
            queue,
            tenant_threads: 1,
            tenant_queue: queue,
            bucket_threads: 1,
            bucket_queue: queue,
        },
    )
    .expect("one thread");
    let (release, wait) = channel::<()>();
    let (send, answers) = channel();
    let (started, is_started) = channel();
    let done = move |_| {
        started.send(()).expect("the test waits");
        // Ends with the release or with the test.
        wait.recv().ok();
    };
    pool.merge(call(bench.good()), "k".into(), siblings(), || true, done).expect("the queue is empty");
    is_started.recv().expect("the thread runs it");
    (pool, Held { release, answers, send })
}

fn submit(pool: &Pool, bench: &Bench, held: &Held, number: u32) -> Result<(), Overloaded> {
    let send = held.send.clone();
    let done = move |outcome: Result<_, MergeFault>| send.send((number, outcome.map(|_| ()))).expect("the test waits");
    pool.merge(call(bench.good()), "k".into(), siblings(), || true, done)
}

#[test]
fn a_full_queue_is_an_error_and_what_waits_is_answered() {
    let bench = Bench::default();
    let (pool, held) = held(&bench, 2);
    assert_eq!((submit(&pool, &bench, &held, 1), submit(&pool, &bench, &held, 2)), (Ok(()), Ok(())));
    assert_eq!(pool.waiting(), 2);
    assert_eq!(submit(&pool, &bench, &held, 3), Err(Overloaded { waiting: 2, of: QueueOf::All }));
    held.release.send(()).expect("the job waits for it");
    assert_eq!([held.answers.recv(), held.answers.recv()], [Ok((1, Ok(()))), Ok((2, Ok(())))]);
    submit(&pool, &bench, &held, 4).expect("there is room again");
    assert_eq!(held.answers.recv(), Ok((4, Ok(()))));
}

#[test]
fn what_waits_when_the_pool_stops_is_told_so() {
    let bench = Bench::default();
    let (pool, held) = held(&bench, 8);
    submit(&pool, &bench, &held, 1).expect("there is room");
    drop(pool);
    assert_eq!(held.answers.recv(), Ok((1, Err(MergeFault::Stopped))));
    held.release.send(()).expect("the job still waits for it");
}

#[test]
fn a_callback_that_panics_takes_no_thread_with_it() {
    let bench = Bench::default();
    let (pool, held) = held(&bench, 8);
    let panics = |_| panic!("a caller's mistake, on purpose");
    pool.merge(call(bench.good()), "k".into(), siblings(), || true, panics).expect("there is room");
    submit(&pool, &bench, &held, 1).expect("there is room");
    held.release.send(()).expect("the job waits for it");
    assert_eq!(held.answers.recv(), Ok((1, Ok(()))));
}

#[test]
fn others_get_their_turn_beside_endless_plugins() {
    let bench = Bench::default();
    let endless = bench.plugin(&guests::endless());
    let pool = Pool::new(
        bench.host.clone(),
        Memo::new(1 << 20),
        PoolConfig { threads: 2, queue: 64, tenant_threads: 2, tenant_queue: 64, bucket_threads: 2, bucket_queue: 64 },
    )
    .expect("two threads");
    let limits = CallLimits { fuel: 5_000_000, ..CallLimits::default() };
    let (send, answers) = channel();
    for number in 0..20_u8 {
        let plugin = if number % 2 == 0 { endless.clone() } else { bench.good().clone() };
        let send = send.clone();
        let done = move |outcome: Result<_, MergeFault>| {
            send.send((number, outcome.map(|merged: rejoin_merge::Merged| merged.value))).expect("the test waits")
        };
        // Another key each, or the memo would remember the first fault.
        let tenant = TenantShare::default();
        let call = PluginCall { bucket: u64::from(number % 2), tenant, plugin, limits, fresh: false };
        pool.merge(call, vec![number].into(), siblings(), || true, done).expect("room for all");
    }
    drop(send);
    for (number, outcome) in answers {
        let expected =
            if number % 2 == 0 { Err(MergeFault::OutOfFuel { limit: limits.fuel }) } else { Ok("one".into()) };
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_fault_is_remembered_if_every_node_would_meet_it() {
    let bench = Bench::default();
    let endless = bench.plugin(&guests::endless());
    let memo = Memo::new(1 << 20);
    let limits = CallLimits { fuel: 1_000_000, ..CallLimits::default() };
    for _ in 0..3 {
        let fault = memo.merge(&bench.host, &endless, b"k", &siblings(), &limits).expect_err("it never ends");
        assert_eq!(fault, MergeFault::OutOfFuel { limit: limits.fuel });
    }
    assert_eq!(memo.hits_and_misses(), (2, 1));
    let more = CallLimits { fuel: 2_000_000, ..limits };
    assert_eq!(
        memo.merge(&bench.host, &endless, b"k", &siblings(), &more),
        Err(MergeFault::OutOfFuel { limit: more.fuel }),
        "with more it is tried again"
    );
    let hasty = CallLimits { fuel: u64::MAX, wall: std::time::Duration::from_millis(20), ..limits };
    for _ in 0..3 {
        assert!(matches!(
            memo.merge(&bench.host, &endless, b"k", &siblings(), &hasty),
            Err(MergeFault::OutOfTime { .. })
        ));
    }
    assert_eq!(memo.hits_and_misses(), (4, 3), "what the clock has stopped is not begun again at once");
}

#[test]
fn a_merge_that_nobody_waits_for_any_more_is_not_begun() {
    let bench = Bench::default();
    let pool = Pool::inline(bench.host.clone(), Memo::new(0));
    for (wanted, begun) in [(true, true), (false, false)] {
        let (send, answer) = channel();
        let done = move |outcome: Result<_, MergeFault>| send.send(outcome.map(drop)).expect("the test waits");
        pool.merge(call(bench.good()), "k".into(), siblings(), move || wanted, done).expect("there is room");
        let outcome = answer.recv().expect("it is answered");
        assert_eq!(outcome, if begun { Ok(()) } else { Err(MergeFault::TooLate) });
    }
}

#[test]
fn a_bucket_with_slow_merges_leaves_a_thread_and_places_to_the_others() {
    let bench = Bench::default();
    let endless = bench.plugin(&guests::endless());
    let config =
        PoolConfig { threads: 3, queue: 16, tenant_threads: 2, tenant_queue: 16, bucket_threads: 1, bucket_queue: 4 };
    let pool = Pool::new(bench.host.clone(), Memo::new(0), config).expect("three threads");
    // It ends with the test, which waits for nothing of this bucket: what it holds, it holds for all of the test.
    let limits = CallLimits { fuel: u64::MAX, wall: std::time::Duration::from_secs(20), ..CallLimits::default() };
    let slow = |key: u8| {
        pool.merge(
            PluginCall { bucket: 7, tenant: TenantShare::default(), plugin: endless.clone(), limits, fresh: false },
            vec![key].into(),
            siblings(),
            || true,
            |_| (),
        )
    };
    let refused = (0..12).filter_map(|key| slow(key).err()).next_back();
    assert_eq!(
        refused,
        Some(Overloaded { waiting: 4, of: QueueOf::Bucket }),
        "its own places are taken, and no others"
    );
    let (send, answers) = channel();
    for _ in 0..20 {
        let send = send.clone();
        let done = move |outcome: Result<_, MergeFault>| send.send(outcome.map(drop)).expect("the test waits");
        pool.merge(call(bench.good()), "k".into(), siblings(), || true, done).expect("another bucket has its places");
        assert_eq!(answers.recv(), Ok(Ok(())));
    }
    assert!(pool.waiting() >= 3, "the slow bucket's first merge still runs, and those behind it wait");
}

#[test]
fn a_tenant_with_slow_merges_in_many_buckets_leaves_a_thread_and_places_to_the_others() {
    let bench = Bench::default();
    let endless = bench.plugin(&guests::endless());
    let config =
        PoolConfig { threads: 3, queue: 16, tenant_threads: 3, tenant_queue: 6, bucket_threads: 2, bucket_queue: 4 };
    let pool = Pool::new(bench.host.clone(), Memo::new(0), config).expect("three threads");
    let limits = CallLimits { fuel: u64::MAX, wall: std::time::Duration::from_secs(20), ..CallLimits::default() };
    let wild = TenantShare { tenant: 7, weight: 1 };
    let slow = |bucket: u64| {
        let call = PluginCall { bucket, tenant: wild, plugin: endless.clone(), limits, fresh: false };
        pool.merge(call, bucket.to_le_bytes().to_vec().into(), siblings(), || true, |_| ())
    };
    let refused = (100..112).filter_map(|bucket| slow(bucket).err()).next_back();
    assert_eq!(
        refused,
        Some(Overloaded { waiting: 6, of: QueueOf::Tenant }),
        "its own places are taken, and no others"
    );
    let (send, answers) = channel();
    for _ in 0..20 {
        let send = send.clone();
        let done = move |outcome: Result<_, MergeFault>| send.send(outcome.map(drop)).expect("the test waits");
        pool.merge(call(bench.good()), "k".into(), siblings(), || true, done).expect("another tenant has its places");
        assert_eq!(answers.recv(), Ok(Ok(())));
    }
    assert!(pool.waiting() >= 4, "the slow merges still run, and those behind them wait");
}

#[test]
fn what_is_shown_is_remembered() {
    let bench = Bench::default();
    let (shows, memo) = (bench.plugin(&rejoin_test_hostile::lawless::largest()), Memo::new(1 << 20));
    for _ in 0..3 {
        let shown = memo.show(&bench.host, &shows, &"5".into(), &CallLimits::default());
        assert_eq!(shown.as_deref(), Ok(&b"5"[..]));
    }
    assert_eq!(memo.hits_and_misses(), (2, 1));
    let tight = CallLimits { fuel: 10, ..CallLimits::default() };
    for _ in 0..2 {
        assert_eq!(memo.show(&bench.host, &shows, &"5".into(), &tight), Err(MergeFault::OutOfFuel { limit: 10 }));
    }
    assert_eq!(memo.hits_and_misses(), (3, 2), "a presenter that fails is not run again at once either");
}

#[test]
fn a_storm_of_components_of_one_tenant_holds_another_ones_up_by_one_at_most() {
    let bench = Bench::default();
    let config = QueueConfig { threads: 1, queue: 32, tenant_queue: 8 };
    let queue = CompileQueue::new(bench.host.clone(), Compiler::InProcess, None, config).expect("one thread");
    let (release, wait) = channel::<()>();
    let (started, is_started) = channel();
    let hold = move |_| {
        started.send(()).expect("the test waits");
        wait.recv().ok();
    };
    let (storm, modest) = (TenantShare { tenant: 1, weight: 1 }, TenantShare { tenant: 2, weight: 1 });
    let limits = ModuleLimits::default();
    let _first = queue.compile(storm, guests::first().into(), limits, hold).expect("there is room");
    is_started.recv().expect("the thread runs it");
    let (send, compiled) = channel();
    let ask = |tenant: TenantShare| {
        let send = send.clone();
        let done = move |outcome: Result<Plugin, Rejection>| {
            outcome.expect("a plugin");
            send.send(tenant.tenant).expect("the test waits");
        };
        queue.compile(tenant, guests::first().into(), limits, done)
    };
    let waiting: Vec<_> = (0..8).map(|_| ask(storm).expect("its places")).collect();
    let refused = ask(storm).expect_err("it has no more places");
    assert!(refused.to_string().contains("8 components of this tenant are waiting"), "{refused}");
    let _pushed = ask(modest).expect("another tenant has a place");
    release.send(()).expect("the job waits for it");
    let order: Vec<u64> = compiled.iter().take(9).collect();
    assert_eq!(order.iter().position(|tenant| *tenant == 2), Some(0), "before all others that wait: {order:?}");
    drop(waiting);
}

#[test]
fn what_waits_to_be_compiled_when_the_queue_stops_is_told_so() {
    let bench = Bench::default();
    let queue = CompileQueue::new(
        bench.host.clone(),
        Compiler::InProcess,
        None,
        QueueConfig { threads: 1, queue: 1, tenant_queue: 1 },
    )
    .expect("one thread");
    let (release, wait) = channel::<()>();
    let (started, is_started) = channel();
    let hold = move |_| {
        started.send(()).expect("the test waits");
        wait.recv().ok();
    };
    let _first = queue
        .compile(TenantShare::default(), guests::first().into(), ModuleLimits::default(), hold)
        .expect("there is room");
    is_started.recv().expect("the thread runs it");
    let (send, compiled) = channel();
    let ask = || {
        let send = send.clone();
        queue.compile(TenantShare::default(), guests::first().into(), ModuleLimits::default(), move |outcome| {
            send.send(outcome).expect("the test waits")
        })
    };
    let waits = ask().expect("there is room for one");
    assert!(matches!(ask(), Err(Rejection::NotTried { reason }) if reason.contains("waiting")), "and for one only");
    // Nobody waits for it any more: its place is another's.
    drop(waits);
    let _waits = ask().expect("there is room again");
    drop(queue);
    assert!(matches!(compiled.recv(), Ok(Err(Rejection::NotTried { .. }))));
    release.send(()).expect("the job still waits for it");
}

#[test]
fn a_plugin_that_is_loaded_again_is_run_again_only_once_its_transcript_is_forgotten() {
    let (bench, dir) = (Bench::default(), tempfile::tempdir().expect("a directory"));
    let cache = ArtefactCache::open(dir.path(), 64 << 20, &bench.host).expect("a cache");
    let queue = CompileQueue::inline(bench.host.clone(), Compiler::InProcess, Some(cache));
    let load = || {
        let (send, loaded) = channel();
        let done = move |outcome| send.send(outcome).expect("the test waits");
        let _done =
            queue.compile(TenantShare::default(), guests::first().into(), ModuleLimits::default(), done).expect("room");
        loaded.recv().expect("it is answered").expect("a plugin")
    };
    let first = load();
    assert!(first.transcript().is_some());
    assert_eq!((load().transcript(), queue.transcripts_made()), (first.transcript(), 1), "it is known");
    queue.forget_transcript(&first.digest());
    assert_eq!((load().transcript(), queue.transcripts_made()), (first.transcript(), 2), "it is made again");
}
