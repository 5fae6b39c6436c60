//! The request-id table: a retried write is done once, or answered *unknown*, never twice.

use rejoin_core::shard::Config;
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{Activation, BucketProps, Durability};
use rejoin_proto::client::{Put, PutOutcome, Receipt, StartId};
use rejoin_proto::{ErrorCode, Hlc, PluginDigest};

use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, WINDOW_MS, delete, get, put, with};

fn again(cluster: &Cluster, put: Put) -> Put {
    Put { attempt: 1, start: StartId(cluster.nodes[0].shard.start()), ..put }
}

fn values(cluster: &Cluster, node: usize) -> usize {
    cluster.stored(node, "k").entries.len()
}

#[test]
pub(crate) fn a_retry_after_an_overwrite_or_a_delete_is_not_done_again() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.put(0, put("k", "first", 1));
    let read = cluster.get(0, get("k"));
    cluster.put(1, with(&read.context, put("k", "second", 2)));
    let retry = again(&cluster, put("k", "first", 1));
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"second"[..]));
    let read = cluster.get(0, get("k"));
    cluster.put(2, with(&read.context, delete("k", 3)));
    let retry = again(&cluster, put("k", "first", 1));
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(0, get("k")).value, None, "the delete has seen the first attempt and stands");
    assert_eq!(cluster.nodes[0].shard.counters().retries_recognised, 2);
}

#[test]
pub(crate) fn a_retry_after_a_fold_is_not_done_again() {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: true,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: false,
    };
    let mut cluster = Cluster::new(3, BucketProps { plugin: Some(activation), ..BucketProps::default() });
    cluster.put(0, put("k", "a", 1));
    cluster.put(1, put("k", "b", 2));
    cluster.get(0, get("k"));
    assert_eq!(values(&cluster, 0), 1, "folded");
    let retry = again(&cluster, put("k", "a", 1));
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert_eq!(values(&cluster, 0), 1);
}

#[test]
pub(crate) fn a_retry_brings_to_its_quorum_what_the_first_attempt_left_behind() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let number = cluster.ask_put(0, put("k", "a", 1));
    cluster.wire.clear();
    cluster.pass(1000);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Unknown);
    assert_eq!(values(&cluster, 1), 0);
    let retry = again(&cluster, put("k", "a", 1));
    let reply = cluster.put(0, retry);
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 2));
    assert_eq!((values(&cluster, 0), values(&cluster, 1), values(&cluster, 2)), (1, 1, 1));
}

#[test]
pub(crate) fn a_retry_of_what_is_still_under_way_waits_with_it() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let first = cluster.ask_put(0, put("k", "a", 1));
    let retry = again(&cluster, put("k", "a", 1));
    let second = cluster.ask_put(0, retry);
    cluster.deliver();
    assert_eq!(cluster.put_reply(first), cluster.put_reply(second));
    assert_eq!(values(&cluster, 0), 1);
}

#[test]
pub(crate) fn a_retry_at_another_node_or_start_is_unknown_and_writes_nothing() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.put(0, put("k", "a", 1));
    let retry = again(&cluster, put("k", "a", 1));
    assert_eq!(cluster.refused(1, retry), ErrorCode::Unknown);
    let stale = Put { attempt: 1, start: StartId(5), ..put("k", "b", 2) };
    assert_eq!(cluster.refused(0, stale), ErrorCode::Unknown);
    assert_eq!(values(&cluster, 0), 1);
    cluster.event(0, Event::Start(StartId(6)));
    let renewed = Put { attempt: 1, start: StartId(5), ..put("k", "c", 3) };
    assert_eq!(cluster.refused(0, renewed), ErrorCode::Unknown);
}

#[test]
pub(crate) fn a_clean_restart_keeps_the_table_and_the_start() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.put(0, put("k", "a", 1));
    let retry = again(&cluster, put("k", "a", 1));
    let start = cluster.nodes[0].shard.start();
    let disk = cluster.nodes[0].store.clone();
    cluster.restart(0, false, disk);
    assert_eq!(cluster.nodes[0].shard.start(), start);
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert_eq!(values(&cluster, 0), 1);
    let never = again(&cluster, put("k", "never came", 2));
    assert_eq!(cluster.put(0, never).outcome, PutOutcome::Stored, "a retry whose first attempt never came is done");
    assert_eq!(values(&cluster, 0), 2);
}

#[test]
pub(crate) fn one_request_id_under_two_keys_is_two_writes() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    for key in 0..40 {
        let key = format!("key {key}");
        assert_eq!(cluster.put(0, put(&key, "a", 1)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.stored(0, &key).entries.len(), 1, "{key}: acknowledged and never written");
    }
}

#[test]
pub(crate) fn a_write_that_was_done_and_whose_copy_is_gone_is_unknown() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.put(0, put("k", "a", 1));
    let key = crate::support::object_id("k").store_key();
    let space = rejoin_core::port::Space::Objects;
    cluster.nodes[0].store.rows.remove(&(space, key.into()));
    let retry = again(&cluster, put("k", "a", 1));
    assert_eq!(cluster.refused(0, retry), ErrorCode::Unknown);
}

/// One node, one copy, no disk to wait for.
fn alone(change: impl Fn(&mut Config)) -> Cluster {
    Cluster::with_config(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() }, change)
}

fn rows(cluster: &Cluster) -> usize {
    cluster.nodes[0].store.rows.keys().filter(|(_, key)| key[0] == b'r').count()
}

/// Lets a node run for that long, as its shell does: with a look at least once a second.
fn run(cluster: &mut Cluster, ms: u64) {
    (0..ms / 1000).for_each(|_| cluster.pass(1000));
    cluster.pass(ms % 1000);
}

#[test]
pub(crate) fn rows_go_when_their_time_is_over_and_a_full_table_refuses_before_it_writes() {
    let mut cluster = alone(|config| config.max_retry_bytes = 2_000);
    let mut taken = 0;
    while cluster.nodes[0].shard.retry_bytes() < 2_000 {
        assert_eq!(cluster.put(0, put("k", "a", taken)).outcome, PutOutcome::Stored);
        taken += 1;
    }
    assert!((7..13).contains(&taken), "{taken} rows of less than three hundred bytes");
    assert_eq!(cluster.refused(0, put("k", "b", 100)), ErrorCode::Overloaded);
    assert_eq!((values(&cluster, 0), rows(&cluster)), (taken as usize, taken as usize));
    run(&mut cluster, WINDOW_MS);
    assert_eq!(rows(&cluster), taken as usize, "not before their time");
    run(&mut cluster, WINDOW_MS / 2);
    assert_eq!((rows(&cluster), cluster.nodes[0].shard.retry_bytes()), (0, 0), "their removal is written too");
    assert_eq!(cluster.put(0, put("k", "b", 101)).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn a_step_of_the_wall_clock_makes_no_retry_a_second_write() {
    for step_ms in [600_000_i64, -600_000] {
        let mut cluster = Cluster::new(3, BucketProps::default());
        cluster.put(0, put("k", "first", 1));
        let read = cluster.get(1, get("k"));
        cluster.put(1, with(&read.context, delete("k", 2)));
        // A virtual machine resumes, or a board without a battery learns the time.
        let ahead_ms = cluster.nodes[0].ahead_ms.wrapping_add_signed(step_ms);
        cluster.nodes[0].ahead_ms = ahead_ms;
        run(&mut cluster, 20_000);
        let retry = again(&cluster, put("k", "first", 1));
        assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
        assert_eq!(cluster.get(1, get("k")).value, None, "the deleted value is back after a step of {step_ms} ms");
        run(&mut cluster, 2 * WINDOW_MS);
        assert_eq!(rows(&cluster), 0, "and its row went in its time");
    }
}

/// Whatever waited before the node while it was paused is heard before anything is forgotten.
#[test]
pub(crate) fn a_pause_longer_than_the_window_forgets_no_row() {
    let mut cluster = alone(|_| {});
    cluster.put(0, put("k", "a", 1));
    cluster.pass(10 * WINDOW_MS);
    let retry = again(&cluster, put("k", "a", 1));
    assert_eq!(cluster.put(0, retry).outcome, PutOutcome::Stored);
    assert_eq!(values(&cluster, 0), 1);
}

/// The monotonic clock of one process says nothing about that of the next, and nobody knows how long the node was down.
#[test]
pub(crate) fn a_restart_gives_every_row_its_time_again_and_each_goes_in_the_end() {
    let mut cluster = alone(|_| {});
    cluster.put(0, put("old", "a", 1));
    run(&mut cluster, WINDOW_MS / 2);
    cluster.put(0, put("k", "a", 2));
    for _ in 0..3 {
        run(&mut cluster, WINDOW_MS / 4);
        let disk = cluster.nodes[0].store.clone();
        cluster.now_ms = 5;
        cluster.restart(0, false, disk);
    }
    let retry = again(&cluster, put("k", "a", 2));
    cluster.put(0, retry);
    assert_eq!((values(&cluster, 0), rows(&cluster)), (1, 2), "recognised");
    run(&mut cluster, WINDOW_MS);
    assert!(rows(&cluster) >= 1, "the later one is kept for a window after the last start");
    run(&mut cluster, WINDOW_MS / 2);
    assert_eq!(rows(&cluster), 0);
}

#[test]
pub(crate) fn a_receipt_frees_the_row_of_its_own_write_and_no_other() {
    let mut cluster = alone(|_| {});
    let receipts: Vec<Receipt> =
        (1..=8).map(|request| cluster.put(0, put("k", "a", request)).receipt.expect("one")).collect();
    let full = cluster.nodes[0].shard.retry_bytes();
    let stranger = Receipt { id: receipts[0].id ^ 1, ..receipts[0] };
    let elsewhere = Receipt { partition: rejoin_proto::PartitionId(receipts[0].partition.0 ^ 1), ..receipts[0] };
    cluster.event(0, Event::Settled(vec![stranger, elsewhere]));
    run(&mut cluster, 2_000);
    assert_eq!((rows(&cluster), cluster.nodes[0].shard.retry_bytes()), (8, full));
    // Named twice, it is freed once.
    cluster.event(0, Event::Settled(vec![receipts[0], receipts[0], receipts[1]]));
    let written = cluster.nodes[0].store.written;
    assert_eq!(cluster.put(0, put("k", "b", 20)).outcome, PutOutcome::Stored);
    assert_eq!((rows(&cluster), cluster.nodes[0].store.written), (7, written + 1), "with the next write");
    let seven = cluster.nodes[0].shard.retry_bytes();
    assert!(seven < full && seven.abs_diff(full / 8 * 7) < 32, "{seven} of {full}");
    cluster.event(0, Event::Settled(receipts));
    run(&mut cluster, 2_000);
    let one = cluster.nodes[0].shard.retry_bytes();
    assert!(rows(&cluster) == 1 && one.abs_diff(full / 8) < 32, "or with the next look: {one} of {full}");
    assert_eq!(cluster.nodes[0].shard.counters().retries_settled, 8);
    let retry = again(&cluster, put("k", "b", 20));
    cluster.put(0, retry);
    assert_eq!(values(&cluster, 0), 9, "what was not settled is recognised");
}

/// What was not written is not forgotten: a row that a full disk keeps is freed when there is room.
#[test]
pub(crate) fn a_full_disk_loses_no_receipt_and_no_count() {
    use crate::support::store::Writes;
    let mut cluster = alone(|_| {});
    let receipt = cluster.put(0, put("k", "a", 1)).receipt.expect("one");
    let one = cluster.nodes[0].shard.retry_bytes();
    cluster.nodes[0].store.writes = Writes::Full;
    cluster.event(0, Event::Settled(vec![receipt]));
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::DiskFull);
    run(&mut cluster, 2_000);
    assert_eq!((rows(&cluster), cluster.nodes[0].shard.retry_bytes()), (1, one));
    cluster.nodes[0].store.writes = Writes::Work;
    run(&mut cluster, 2_000);
    assert_eq!((rows(&cluster), cluster.nodes[0].shard.retry_bytes()), (0, 0));
}

/// A receipt is of use only to the node that has coordinated the write.
#[test]
pub(crate) fn receipts_are_given_by_coordinators_for_writes_that_have_succeeded() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let number = cluster.ask_put(0, put("k", "a", 1));
    cluster.wire.clear();
    cluster.pass(1000);
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.receipt), (PutOutcome::Unknown, None));
    let mut two = Cluster::new(2, BucketProps { n: 1, ..BucketProps::default() });
    let (owner, key) = (two.owners("k")[0], "k");
    assert!(two.put(owner, put(key, "a", 1)).receipt.is_some());
    assert_eq!(two.put(1 - owner, put(key, "b", 2)).receipt, None, "it was forwarded");
}

/// Requests wait while rows are dropped: so it is a few at a time, and soon again.
#[test]
pub(crate) fn many_rows_whose_time_is_over_go_a_few_at_a_time() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() });
    let mut write = |request: u128| cluster.put(0, put(&request.to_string(), "a", request)).outcome;
    assert!((0..300).all(|request| write(request) == PutOutcome::Stored));
    let node = &mut cluster.nodes[0];
    let (mut mono_us, mut left) = (0, vec![(0, 300)]);
    while left.last().is_some_and(|&(_, rows)| rows > 0) {
        mono_us = node.shard.next_wake_us().max(mono_us);
        let now = rejoin_core::shard::event::Now { mono_us, wall_ms: WALL_MS };
        node.shard.handle(now, Event::Tick, &mut node.store, &mut Vec::new());
        let rows = node.store.rows.keys().filter(|(_, key)| key[0] == b'r').count();
        if left.last().is_none_or(|&(_, before)| before != rows) {
            left.push((mono_us, rows));
        }
    }
    assert_eq!(left.iter().map(|&(_, rows)| rows).collect::<Vec<_>>(), [300, 300 - 256, 0]);
    assert!(left[2].0 - left[1].0 <= 1_000, "soon again");
    assert!(node.shard.next_wake_us() > mono_us + 1_000, "and then at leisure");
}
