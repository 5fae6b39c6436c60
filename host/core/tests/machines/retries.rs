//! The request-id table: a retried write is done once, or answered *unknown*, never twice.

use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{Activation, BucketProps, Durability};
use rejoin_proto::client::{Put, PutOutcome, StartId};
use rejoin_proto::{ErrorCode, Hlc, PluginDigest};

use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, delete, get, put, with};

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
    let activation =
        Activation { plugin: PluginDigest([1; 32]), self_causal: true, since: Hlc::from_ms(WALL_MS), replaces: false, validates: false };
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

#[test]
pub(crate) fn rows_go_when_their_time_is_over_and_a_full_table_refuses_before_it_writes() {
    let mut cluster = Cluster::with_config(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() }, |config| {
        config.max_retry_rows = 10;
    });
    (0..10).for_each(|request| assert_eq!(cluster.put(0, put("k", "a", request)).outcome, PutOutcome::Stored));
    assert_eq!(cluster.refused(0, put("k", "b", 10)), ErrorCode::Overloaded);
    assert_eq!(values(&cluster, 0), 10);
    let rows = |cluster: &Cluster| cluster.nodes[0].store.rows.keys().filter(|(_, key)| key[0] == b'r').count();
    assert_eq!(rows(&cluster), 10);
    cluster.pass(120_001);
    assert_eq!(rows(&cluster), 0, "their removal is written too");
    assert_eq!(cluster.put(0, put("k", "b", 11)).outcome, PutOutcome::Stored);
}

/// A clock that was ahead for a while leaves rows that last; those that come after it must still go in their time.
#[test]
pub(crate) fn rows_of_a_clock_that_jumped_do_not_hold_up_the_others() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    cluster.now_ms = 1_000_000_000;
    cluster.put(0, put("k", "from the future", 1));
    cluster.now_ms = 10;
    cluster.put(0, put("k", "now", 2));
    let mut effects = Vec::new();
    let now = rejoin_core::shard::event::Now { mono_us: 2_000_000_000_000, wall_ms: WALL_MS + 130_000 };
    let node = &mut cluster.nodes[0];
    node.shard.handle(now, Event::Tick, &mut node.store, &mut effects);
    assert_eq!(node.store.rows.keys().filter(|(_, key)| key[0] == b'r').count(), 1);
}

/// Requests wait while rows are dropped: so it is a few at a time, and soon again.
#[test]
pub(crate) fn many_rows_whose_time_is_over_go_a_few_at_a_time() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() });
    let mut write = |request: u128| cluster.put(0, put(&request.to_string(), "a", request)).outcome;
    assert!((0..300).all(|request| write(request) == PutOutcome::Stored));
    let node = &mut cluster.nodes[0];
    let (mut mono_us, mut left) = (2_000_000_000_000, Vec::new());
    for _ in 0..2 {
        let now = rejoin_core::shard::event::Now { mono_us, wall_ms: WALL_MS + 10_000_000 };
        node.shard.handle(now, Event::Tick, &mut node.store, &mut Vec::new());
        left.push(node.store.rows.keys().filter(|(_, key)| key[0] == b'r').count());
        mono_us = node.shard.next_wake_us();
    }
    assert_eq!(left, [300 - 256, 0]);
    assert!(mono_us > 2_000_000_001_000, "and then at leisure: {mono_us}");
}
