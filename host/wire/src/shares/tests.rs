use std::task::{Context, Poll, Waker};

use super::queue::Queue;
use super::task::{Stage, State, Work};
use super::*;

const SECOND: u64 = 1_000_000;

/// Shares with a worker that nobody runs. They are measured, as if there were several flows.
fn shares() -> (ProcessorShares, ShareWorker) {
    let shares = ProcessorShares::new();
    shares.0.measures.store(true, Relaxed);
    let worker = shares.worker();
    (shares, worker)
}

fn share(of: &ProcessorShares, key: u64, weight: u32) -> Arc<Share> {
    let share = of.newcomer();
    share.charge_to(key, weight);
    share
}

fn takes(share: &Share, ns: u64) {
    share.flow().expect("it has one").taken.fetch_add(ns, Relaxed);
}

fn is_held(share: &Share) -> bool {
    share.held().is_some()
}

/// A task that counts how often it was polled, and wakes itself as often as it is told.
fn counting(share: &Arc<Share>, polls: &Arc<AtomicUsize>, again: usize) -> Work {
    let polls = polls.clone();
    share.task(std::future::poll_fn(move |cx| match polls.fetch_add(1, Relaxed) {
        seen if seen < again => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        _ => Poll::Ready(()),
    }))
}

fn poll(task: &mut Work) -> Poll<()> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn who_takes_more_than_its_share_is_held_back_and_nobody_else() {
    let (shares, _worker) = shares();
    let (greedy, modest) = (share(&shares, 1, 1), share(&shares, 2, 1));
    takes(&greedy, 40_000_000);
    takes(&modest, 1_000_000);
    shares.0.review(SECOND);
    assert!(is_held(&greedy) && !is_held(&modest) && shares.held_back() == 1);
    takes(&greedy, 20_000_000);
    takes(&modest, 40_000_000);
    shares.0.review(SECOND + REVIEW_US);
    assert!(!is_held(&greedy) && !is_held(&modest), "both take as much now");
}

#[test]
fn weights_are_shares_and_who_is_alone_is_not_held_back() {
    let (shares, _worker) = shares();
    let (heavy, light) = (share(&shares, 1, 9), share(&shares, 2, 1));
    takes(&heavy, 40_000_000);
    shares.0.review(SECOND);
    assert!(!is_held(&heavy), "nobody else is there");
    takes(&heavy, 40_000_000);
    takes(&light, 10_000_000);
    shares.0.review(SECOND + REVIEW_US);
    assert!(!is_held(&heavy), "it may take nine tenths");
    takes(&light, 60_000_000);
    shares.0.review(SECOND + 2 * REVIEW_US);
    assert!(is_held(&light) && !is_held(&heavy));
    shares.0.review(SECOND + 2 * REVIEW_US + 2 * ACTIVE_US);
    assert!(!is_held(&light), "all have been idle");
}

#[test]
fn little_work_is_not_held_back_however_it_is_shared_out() {
    let (shares, _worker) = shares();
    let (greedy, modest) = (share(&shares, 1, 1), share(&shares, 2, 1));
    takes(&greedy, BUSY_NS / 2);
    takes(&modest, 1);
    shares.0.review(SECOND);
    assert!(!is_held(&greedy));
}

#[test]
fn a_held_task_is_polled_by_a_worker_and_ends_where_it_was_spawned() {
    let (shares, worker) = shares();
    let (greedy, polls) = (share(&shares, 1, 1), Arc::new(AtomicUsize::new(0)));
    let mut task = counting(&greedy, &polls, 3);
    assert_eq!((poll(&mut task), polls.load(Relaxed)), (Poll::Pending, 1), "the runtime polls it");
    greedy.flow().expect("it has one").is_held.store(true, Relaxed);
    assert_eq!((poll(&mut task), polls.load(Relaxed)), (Poll::Pending, 1), "it is for a worker");
    let running = std::thread::spawn(move || worker.run());
    while polls.load(Relaxed) < 4 {
        std::thread::yield_now();
    }
    shares.stop();
    running.join().expect("no panic");
    assert_eq!(poll(&mut task), Poll::Ready(()));
}

#[test]
fn who_has_nobody_beside_it_is_not_measured() {
    let shares = ProcessorShares::new();
    // Nothing is compared meanwhile, however slow the machine is.
    shares.0.next_review_us.store(u64::MAX, Relaxed);
    let worker = shares.worker();
    let taken = |share: &Share| share.flow().expect("it has one").taken.load(Relaxed);
    let (alone, newcomer, polls) = (share(&shares, 1, 1), shares.newcomer(), Arc::new(AtomicUsize::new(0)));
    let mut task = counting(&alone, &polls, 9);
    assert_eq!((poll(&mut task), polls.load(Relaxed), taken(&alone)), (Poll::Pending, 1, 0));
    let mut handshake = counting(&newcomer, &polls, 0);
    assert_eq!(poll(&mut handshake), Poll::Ready(()));
    assert!(taken(&newcomer) > 0, "newcomers are");

    let other = share(&shares, 2, 1);
    // Woken by the waker that it had when it was not measured.
    assert_eq!((poll(&mut task), polls.load(Relaxed)), (Poll::Pending, 3));
    let measured = taken(&alone);
    assert!(measured > 0);
    alone.flow().expect("it has one").is_held.store(true, Relaxed);
    assert_eq!((poll(&mut task), polls.load(Relaxed)), (Poll::Pending, 3), "it is for a worker");
    drop((other, worker));
    shares.stop();
    while poll(&mut task).is_pending() {}
    assert_eq!(polls.load(Relaxed), 10);
}

#[test]
fn measuring_ends_when_the_others_are_gone_and_begins_with_many_newcomers() {
    let shares = ProcessorShares::new();
    let (_worker, newcomer) = (shares.worker(), shares.newcomer());
    let measures = || shares.0.measures.load(Relaxed);
    let alone = share(&shares, 1, 1);
    assert!(!measures());
    let other = share(&shares, 2, 1);
    assert!(measures());
    takes(&alone, 40_000_000);
    takes(&other, 1_000_000);
    shares.0.review(SECOND);
    assert!(measures() && is_held(&alone));
    drop(other);
    shares.0.review(SECOND + REVIEW_US);
    assert!(!measures() && !is_held(&alone) && shares.held_back() == 0);
    takes(&newcomer, FEW_NS);
    shares.0.review(SECOND + 2 * REVIEW_US);
    assert!(measures());
    shares.0.review(SECOND + 3 * REVIEW_US);
    assert!(!measures(), "what was taken before counts half as much");
}

#[test]
fn what_waits_for_a_worker_at_the_end_is_given_back() {
    let (shares, _worker) = shares();
    let (greedy, polls) = (share(&shares, 1, 1), Arc::new(AtomicUsize::new(0)));
    greedy.flow().expect("it has one").is_held.store(true, Relaxed);
    let mut task = counting(&greedy, &polls, 0);
    assert_eq!((poll(&mut task), polls.load(Relaxed)), (Poll::Pending, 0));
    shares.stop();
    assert_eq!(poll(&mut task), Poll::Ready(()));
}

#[test]
fn workers_take_turns_between_flows_by_their_weights() {
    let (shares, _worker) = shares();
    let (one, three) = (share(&shares, 1, 1), share(&shares, 2, 3));
    let mut queue = Queue::default();
    let task = |share: &Arc<Share>| {
        let state = State { stage: Stage::Queued, work: None, outer: None };
        Arc::new(Task { share: share.clone(), state: Mutex::new(state) })
    };
    let mut served = [0, 0];
    for _ in 0..40 {
        for (key, share) in [(1, &one), (2, &three)] {
            while queue.waiting.get(&Some(key)).is_none_or(|waiting| waiting.tasks.len() < 2) {
                queue.push(Some(key), task(share));
            }
        }
        let (key, _) = queue.pop().expect("both wait");
        let (at, weight) = if key == Some(1) { (0, 1) } else { (1, 3) };
        served[at] += 1;
        queue.charge(key, weight, 10_000);
    }
    assert_eq!(served, [10, 30]);
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    let (shares, worker) = shares();
    let greedy = share(&shares, 1, 1);
    greedy.flow().expect("it has one").is_held.store(true, Relaxed);
    let mut bad = greedy.task(async { panic!("as the test wants it") });
    assert_eq!(poll(&mut bad), Poll::Pending);
    let polls = Arc::new(AtomicUsize::new(0));
    let mut good = counting(&greedy, &polls, 0);
    assert_eq!(poll(&mut good), Poll::Pending);
    let running = std::thread::spawn(move || worker.run());
    while polls.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    shares.stop();
    running.join().expect("no panic");
    assert_eq!((poll(&mut bad), poll(&mut good)), (Poll::Ready(()), Poll::Ready(())));
}
