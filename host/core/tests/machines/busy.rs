//! Owners that do not take a write at the moment, and do soon.

use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Get, PutOutcome};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{Content, ErrorCode};

use crate::contacts::told;
use crate::sloppy::{five, five_with, holders, w};
use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{DEADLINE_US, get, node, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

/// The stores of these nodes take writes from now on, or do not for a while.
fn set(cluster: &mut Cluster, nodes: &[usize], writes: Writes) {
    nodes.iter().for_each(|at| cluster.nodes[*at].store.writes = writes);
}

/// Lets time pass, one millisecond after the other.
fn pass_slowly(cluster: &mut Cluster, ms: u64) {
    (0..ms).for_each(|_| cluster.pass(1));
}

fn sent_again(cluster: &Cluster, at: usize) -> u64 {
    cluster.nodes[at].shard.counters().writes_sent_again
}

#[test]
pub(crate) fn a_write_outlives_owners_that_are_busy_for_a_moment() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    pass_slowly(&mut cluster, 19);
    assert_eq!((sent_again(&cluster, 0), cluster.replies.len()), (0, 0), "there is a pause");
    pass_slowly(&mut cluster, 21);
    assert_eq!((sent_again(&cluster, 0), cluster.replies.len()), (2, 0), "they are busy still");
    set(&mut cluster, &[1, 2], Writes::Work);
    // What is sent again is acknowledged from the disk, too.
    cluster.nodes[1].syncing = false;
    cluster.nodes[2].syncing = false;
    pass_slowly(&mut cluster, 80);
    assert!(cluster.agrees("k", &[0, 1, 2]));
    assert!(!cluster.replies.contains_key(&number), "no other disk has it");
    cluster.nodes[1].syncing = true;
    cluster.sync(1);
    cluster.deliver();
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 2));
    cluster.nodes[2].syncing = true;
    cluster.sync(2);
    cluster.pass(1_000);
    assert_eq!(sent_again(&cluster, 0), 4, "nobody is asked when the write has ended");
}

#[test]
fn only_the_deadline_ends_a_write_whose_owners_stay_busy_and_they_are_asked_seldom() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    pass_slowly(&mut cluster, DEADLINE_US / 1000 - 1);
    assert!(!cluster.replies.contains_key(&number));
    // 40, 80 and 160 ms at most, and 320 from then on; half of it at least.
    assert!((8..=18).contains(&sent_again(&cluster, 0)), "{}", sent_again(&cluster, 0));
    cluster.pass(1);
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Unknown, 1));
    set(&mut cluster, &[1, 2], Writes::Work);
    let sent = sent_again(&cluster, 0);
    pass_slowly(&mut cluster, 400);
    assert_eq!(sent_again(&cluster, 0), sent);
}

#[test]
fn many_writes_are_sent_again_few_at_once_and_not_all_at_the_same_time() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let numbers: Vec<u64> = (0..100).map(|at| cluster.ask_put(0, put(&format!("k{at}"), "v", at))).collect();
    cluster.deliver();
    set(&mut cluster, &[1, 2], Writes::Work);
    let mut most = 0;
    let mut moments = 0;
    while cluster.nodes[0].shard.in_flight() > 0 {
        let before = sent_again(&cluster, 0);
        cluster.pass(1);
        let now = sent_again(&cluster, 0) - before;
        most = most.max(now);
        moments += u64::from(now > 0);
        assert!(cluster.now_ms < 200, "in time");
    }
    assert!(most <= 16 && moments >= 10, "{most} at once, at {moments} times");
    numbers.into_iter().for_each(|number| assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored));
}

#[test]
fn a_shard_that_has_more_to_send_again_is_due_soon() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    for at in 0..100 {
        cluster.ask_put(0, put(&format!("k{at}"), "v", at));
    }
    cluster.deliver();
    cluster.now_ms += 40;
    for sent in [16, 32] {
        cluster.event(0, Event::Tick);
        assert_eq!(sent_again(&cluster, 0), sent);
        cluster.now_ms += 1;
        assert!(cluster.nodes[0].shard.next_wake_us() < cluster.now_ms * 1000, "small ones take no time");
    }
}

/// They have to read and join what they refuse, and their flushes are behind already.
#[test]
fn busy_nodes_are_sent_so_many_bytes_a_second() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let large = "v".repeat(1 << 20);
    for at in 0..4 {
        cluster.ask_put(0, put(&format!("k{at}"), &large, at));
    }
    cluster.deliver();
    cluster.now_ms += 40;
    // A mebibyte takes a 128th of a second, somewhat less than 8 ms.
    for (ms, sent) in [(0, 1), (7, 1), (1, 2), (7, 2), (1, 3)] {
        cluster.now_ms += ms;
        cluster.event(0, Event::Tick);
        assert_eq!(sent_again(&cluster, 0), sent, "at {} ms", cluster.now_ms);
    }
}

/// The copy may have come further while the owners were busy.
#[test]
fn what_is_sent_again_is_the_object_of_now_and_it_acknowledges_the_write_that_waits() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let first = cluster.ask_put(0, put("k", "a", 1));
    let beside = cluster.ask_put(0, put("k", "b", 2));
    let all = cluster.get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    let over = cluster.ask_put(0, with(&all.context, put("k", "c", 3)));
    cluster.deliver();
    assert!(cluster.replies.is_empty());
    set(&mut cluster, &[1, 2], Writes::Work);
    pass_slowly(&mut cluster, 40);
    for number in [first, beside, over] {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    assert!(cluster.agrees("k", &[0, 1, 2]));
    let values: Vec<Content> = cluster.stored(1, "k").entries.into_iter().map(|entry| entry.content).collect();
    assert_eq!(values, [Content::Value("c".into())]);
}

#[test]
fn a_busy_owner_is_relieved_by_a_fallback_only_when_it_stays_busy() {
    for stays in [false, true] {
        let (mut cluster, nodes) = five();
        // Answers of the owners are quick.
        for request in 1..=20 {
            assert_eq!(cluster.put(nodes[0], w(3, put("before", "v", request))).outcome, PutOutcome::Stored);
        }
        set(&mut cluster, &nodes[2..4], Writes::Busy);
        let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 100)));
        cluster.deliver();
        pass_slowly(&mut cluster, 95);
        assert_eq!(
            (holders(&cluster).len(), cluster.replies.len()),
            (0, 0),
            "other slow nodes are given that time, too"
        );
        if !stays {
            set(&mut cluster, &nodes[2..3], Writes::Work);
        }
        pass_slowly(&mut cluster, 600);
        let reply = cluster.put_reply(number);
        assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 3));
        // The first fallback is busy as well, and the second one has taken its place.
        assert_eq!(holders(&cluster), if stays { vec![nodes[4]] } else { vec![] }, "stays busy: {stays}");
    }
}

#[test]
fn a_busy_owner_counts_when_a_fallback_was_asked_in_its_place() {
    let (mut cluster, nodes) = five();
    set(&mut cluster, &nodes[1..], Writes::Busy);
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 1)));
    cluster.deliver();
    pass_slowly(&mut cluster, 600);
    assert!(!cluster.replies.contains_key(&number), "owners and fallbacks are busy");
    set(&mut cluster, &nodes[1..3], Writes::Work);
    pass_slowly(&mut cluster, 320);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert_eq!(holders(&cluster), [0; 0]);
}

#[test]
fn a_strict_bucket_waits_for_its_busy_owners() {
    let (mut cluster, nodes) = five_with(BucketProps { sloppy: false, ..BucketProps::default() });
    set(&mut cluster, &nodes[1..3], Writes::Busy);
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 1)));
    cluster.deliver();
    pass_slowly(&mut cluster, 600);
    set(&mut cluster, &nodes[1..3], Writes::Work);
    pass_slowly(&mut cluster, 320);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert_eq!(holders(&cluster), [0; 0]);
}

#[test]
fn a_busy_owner_owes_no_answer_while_it_has_its_pause() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    for _ in 0..4 {
        let now_us = (cluster.now_ms + 200) * 1000;
        let told = told(&mut cluster, 0, node(1)).expect("it has answered");
        // It may have been asked again on this turn.
        assert!(told.waiting_since_us.is_none_or(|since_us| since_us == now_us), "{told:?}");
        assert_eq!(told.answered_after_us, Some(0), "each answer is one to the last question");
    }
    assert!(!cluster.replies.contains_key(&number));
}

#[test]
fn a_busy_owner_whose_connection_is_lost_is_not_waited_for() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    cluster.cut(1);
    cluster.heal(1);
    assert!(!cluster.replies.contains_key(&number), "the other one may still take it");
    cluster.cut(2);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Unknown);
    pass_slowly(&mut cluster, 100);
    assert_eq!(sent_again(&cluster, 0), 0);
}

#[test]
fn a_busy_owner_that_is_about_to_stop_is_not_asked_again() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    [1, 2].iter().for_each(|at| cluster.event(0, Event::PeerLeaving(node(*at))));
    pass_slowly(&mut cluster, 40);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Unknown, "long before its deadline");
    assert_eq!(sent_again(&cluster, 0), 0);
}

#[test]
fn an_answer_that_comes_twice_makes_one_message() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    cluster.ask_put(0, put("k", "v", 1));
    while cluster.deliver_one(|_, _, body| matches!(body, PeerBody::Replicate(_))) {}
    let answers: Vec<_> = cluster.wire.iter().cloned().collect();
    cluster.wire.extend(answers);
    cluster.deliver();
    pass_slowly(&mut cluster, 40);
    assert_eq!(sent_again(&cluster, 0), 2);
}

/// Its own store is asked before anything is minted, so that is a refusal, and nothing was written.
#[test]
fn a_busy_coordinator_refuses_and_does_not_mint() {
    let mut cluster = three();
    set(&mut cluster, &[0], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    let error = cluster.error(number);
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::Overloaded, 100));
    assert!(cluster.wire.is_empty() && cluster.stored(0, "k").is_empty());
}

#[test]
fn a_coordinator_that_cannot_read_its_copy_at_the_moment_sends_it_later() {
    let mut cluster = three();
    set(&mut cluster, &[1, 2], Writes::Busy);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver();
    set(&mut cluster, &[1, 2], Writes::Work);
    cluster.nodes[0].store.is_short = true;
    pass_slowly(&mut cluster, 45);
    assert_eq!((sent_again(&cluster, 0), cluster.replies.contains_key(&number)), (0, false));
    cluster.nodes[0].store.is_short = false;
    pass_slowly(&mut cluster, 80);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}
