//! Histories that model checking found, told to the real core, as far as no other room has them.
//!
//! Where each is told:
//!
//! - Scenario 1: a write that its coordinator lost;
//!   `tenures::a_node_that_lost_an_acknowledged_write_takes_a_new_actor_and_destroys_nothing`, and here.
//! - Scenario 2: a fallback drops and mints again;
//!   `handoff::a_fallback_that_has_dropped_an_object_mints_as_a_new_actor`.
//! - Scenario 3: one owner has confirmed; the object has changed; versions differ;
//!   `handoff::an_object_is_kept_until_every_owner_has_confirmed_it` and those after it,
//!   `former_owners::of_two_nodes_that_take_each_other_for_the_owner_neither_drops_its_copy`.
//! - Scenario 4: a merge result that comes too late;
//!   `reads::a_merge_result_that_comes_after_its_inputs_were_overwritten_is_thrown_away`.
//! - Scenario 6: one dot under two values; folds that share dots;
//!   `tenures::a_cloned_disk_that_minted_the_same_dot_keeps_both_values_and_alarms`; `causality::stories`, and
//!   here.
//! - Scenario 7: a fold beside a tombstone; `reads::a_fold_beside_a_tombstone_does_not_undo_the_delete`, and
//!   here.
//! - Scenario 9: a layout changes, with a reader, a writer and an ex-owner that each see another step; n changes, or
//!   sloppy is turned off while fallbacks hold; `plans` tells these on real rings, `layouts` and `copies` step by step;
//!   `handoff::a_fallback_that_becomes_an_owner_keeps_its_copy_and_says_that_it_holds_nothing`, `former_owners`.
//! - Scenario 10: retries; `retries`.
//! - Scenario 11: 2 000 blind and stale puts;
//!   `limits::two_thousand_stale_writes_keep_an_object_small_and_lose_nothing`.
//! - Scenario 13: old disks; `tenures::a_handshake_tells_an_old_disk_what_its_actor_has_done` and those after it,
//!   and here.
//! - Scenario 14: the limit with a plugin that traps;
//!   `limits::at_the_limit_with_a_plugin_that_traps_full_contexts_get_through`.
//! - Scenario 15: foreign and forged contexts; stamps; clocks;
//!   `writes::contexts_of_another_key_or_made_up_are_refused_before_anything_is_written`,
//!   `faults::a_stamp_from_the_future_is_taken_with_an_alarm_and_moves_no_clock`, and here.

use std::collections::BTreeSet;

use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{Activation, BucketProps, Durability, Quorum};
use rejoin_proto::client::{Get, Put, PutOutcome};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{Hlc, PluginDigest};

use crate::support::cluster::Cluster;
use crate::support::{SKEW_MS, WALL_MS, delete, get, object_id, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

fn folding() -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: true,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: false,
    };
    BucketProps { plugin: Some(activation), ..BucketProps::default() }
}

fn all(get: Get) -> Get {
    Get { r: Some(Quorum::Count(3)), siblings: true, ..get }
}

/// What a reader of every owner is shown, in order.
fn shown(cluster: &mut Cluster, at: usize, key: &str) -> Vec<String> {
    shown_by(cluster, at, all(get(key)))
}

/// What a reader is shown, in order.
fn shown_by(cluster: &mut Cluster, at: usize, get: Get) -> Vec<String> {
    let read = cluster.get(at, get);
    let mut values: Vec<String> =
        read.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned()).collect();
    values.sort();
    values
}

/// Scenario 1, with the disk as it is: the coordinator's own fsync never came, the others' did, and the write was
/// acknowledged.
#[test]
pub(crate) fn an_acknowledged_write_survives_its_coordinators_crash_before_its_own_fsync() {
    let mut cluster = three();
    cluster.put(0, put("k", "zeroth", 1));
    let synced = cluster.nodes[0].store.clone();
    cluster.nodes[0].syncing = false;
    let first = cluster.put(0, put("k", "first", 2));
    assert_eq!((first.outcome, first.acked), (PutOutcome::Stored, 2));
    cluster.restart_heard(0, true, synced, false);
    // Another key of the partition takes the counter that was lost; a later one then seems to have come after the lost
    // write too.
    let partition = |key: &str| cluster.view.layout().partition(&object_id(key));
    let neighbour =
        (0..).map(|at| format!("key {at}")).find(|key| partition(key) == partition("k")).expect("few partitions");
    cluster.put(0, put(&neighbour, "x", 3));
    assert_eq!(cluster.put(0, put("k", "second", 4)).outcome, PutOutcome::Stored);
    assert_eq!(shown(&mut cluster, 1, "k"), ["first", "second", "zeroth"], "the acknowledged write is there");
}

/// An acknowledgement is a node's word; the same word twice is not a second node's.
#[test]
pub(crate) fn an_acknowledgement_that_comes_twice_counts_once() {
    let mut cluster = three();
    let number = cluster.ask_put(0, Put { w: Some(Quorum::Count(3)), ..put("k", "a", 1) });
    cluster.deliver_without(2);
    let again = cluster.wire.iter().position(|(_, _, envelope)| matches!(envelope.body, PeerBody::Replicate(_)));
    let (_, _, envelope) = cluster.wire.remove(again.expect("the write for node 2")).expect("it was found");
    let PeerBody::Replicate(message) = &envelope.body else { panic!("a replicate") };
    let op = message.op.expect("an answer is wanted");
    let outcome = Ok(rejoin_proto::peer::Absorbed::Stored);
    let body = PeerBody::Replicated { op, layout: envelope.layout, bucket_version: 3, outcome, held: None };
    let from = cluster.nodes[1].id;
    cluster.event(0, Event::Peer(from, rejoin_proto::peer::PeerEnvelope { body, ..envelope }));
    assert!(!cluster.replies.contains_key(&number), "two of three owners have it, and three were asked for");
}

/// The writer had seen a value; the owner that takes the write had not. When the value arrives there late, it is still
/// overwritten.
#[test]
pub(crate) fn what_a_writer_has_replaced_stays_replaced_where_it_arrives_later() {
    let mut cluster = three();
    let number = cluster.ask_put(0, Put { w: Some(Quorum::Count(2)), ..put("k", "old", 1) });
    let late = cluster.nodes[2].id;
    let held: Vec<_> = cluster.wire.iter().filter(|(_, to, _)| *to == late).cloned().collect();
    cluster.wire.retain(|(_, to, _)| *to != late);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    let read = cluster.get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    cluster.put(2, with(&read.context, delete("k", 2)));
    cluster.wire.extend(held);
    cluster.deliver();
    for node in 0..3 {
        assert_eq!(shown(&mut cluster, node, "k"), [""; 0], "nothing deleted comes back");
    }
}

/// Two blind writes at one node: neither writer has seen the other's, and neither's context says so.
#[test]
pub(crate) fn a_writers_context_takes_no_sibling_away() {
    let mut cluster = three();
    cluster.put(0, put("k", "theirs", 1));
    let mine = cluster.put(1, put("k", "mine", 2));
    cluster.put(1, with(&mine.context, put("k", "mine too", 3)));
    assert_eq!(shown(&mut cluster, 2, "k"), ["mine too", "theirs"]);
}

/// Scenario 7, with an owner that was away with the deleted value all the while.
#[test]
pub(crate) fn a_deleted_value_stays_deleted_when_an_owner_brings_it_back_after_a_fold() {
    let mut cluster = Cluster::new(3, folding());
    cluster.put(2, put("k", "old", 1));
    let read = cluster.get(0, all(get("k")));
    cluster.cut(2);
    cluster.put(0, with(&read.context, delete("k", 2)));
    cluster.put(0, put("k", "new", 3));
    cluster.put(1, put("k", "more", 4));
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"more,new"[..]));
    assert_eq!(cluster.stored(0, "k").entries.len(), 1, "folded, and the tombstone with it");
    cluster.heal(2);
    let number = cluster.ask_get(0, get("k"));
    cluster.deliver_without(1);
    let read = cluster.get_reply(number);
    assert_eq!(read.value.as_deref(), Some(&b"more,new"[..]), "nothing deleted comes back");
    cluster.deliver();
    assert!(cluster.agrees("k", &[0, 1, 2]));
}

/// Scenario 6: two owners fold what they happen to have, so that each fold has a write that the other has too.
#[test]
pub(crate) fn folds_that_overlap_raise_no_alarm_and_the_owners_agree() {
    let mut cluster = Cluster::new(3, BucketProps { w: Quorum::Count(1), r: Quorum::Count(2), ..folding() });
    for (node, value) in ["a", "b", "c"].iter().enumerate() {
        let number = cluster.ask_put(node, put("k", value, node as u128));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    for (reader, away) in [(0, 2), (2, 0)] {
        let number = cluster.ask_get(reader, get("k"));
        cluster.deliver_without(away);
        assert!(cluster.get_reply(number).value.is_some());
        cluster.wire.clear();
        // The owner that did not answer is told of nothing: the read ends at its deadline, and folds what it has.
        cluster.pass(1000);
        cluster.wire.clear();
    }
    assert_eq!(
        (cluster.stored(0, "k").entries.len(), cluster.stored(2, "k").entries.len()),
        (1, 1),
        "each has folded two of three"
    );
    for node in [1, 0] {
        assert_eq!(
            shown(&mut cluster, node, "k").join(",").split(',').collect::<BTreeSet<_>>(),
            BTreeSet::from(["a", "b", "c"])
        );
    }
    assert_eq!(cluster.alarms, []);
    assert!(cluster.agrees("k", &[0, 1, 2]));
}

/// Scenario 13: an old disk asked to write before anybody could tell it what it is. Its next dot is one that is in use.
#[test]
pub(crate) fn an_old_disk_is_told_before_it_takes_its_first_write() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "b", 2));
    let number = cluster.restart_asked(0, old, put("k", "c", 3));
    cluster.deliver();
    assert!(
        cluster.alarms.iter().all(|alarm| !matches!(alarm, Alarm::OneDotTwoValues { .. })),
        "a dot was minted twice"
    );
    assert!(
        cluster.replies.remove(&number).is_some_and(|reply| matches!(reply, rejoin_proto::client::Reply::Error(_)))
    );
    assert_eq!(cluster.put(0, put("k", "d", 4)).outcome, PutOutcome::Stored);
    // The old disk itself does not count until it is rebuilt.
    let two = Get { r: Some(Quorum::Count(2)), ..all(get("k")) };
    assert_eq!(shown_by(&mut cluster, 1, two), ["a", "b", "d"]);
}

/// Scenario 15: at a node whose clock is ahead by less than clocks may differ, a value has expired that others still
/// show.
#[test]
pub(crate) fn a_clock_that_is_ahead_drops_nothing_that_others_still_show() {
    let mut cluster = three();
    cluster.nodes[1].ahead_ms = SKEW_MS;
    cluster.put(0, Put { ttl_ms: Some(5000), ..put("k", "short", 1) });
    cluster.put(1, put("k", "long", 2));
    assert_eq!(shown(&mut cluster, 0, "k"), ["long", "short"], "by its own clock it has not expired");
    cluster.pass(5000);
    assert_eq!(shown(&mut cluster, 0, "k"), ["long"]);
}

/// Sessions that add to one set, each with what it has read, at different owners and without knowing of one another; as
/// they are at the end of a partition, or in the time that a write takes in a healthy cluster. Returns (acknowledged,
/// lost).
pub(crate) fn concurrent_adds(partitioned: bool) -> (usize, usize) {
    let props = BucketProps {
        w: Quorum::Count(if partitioned { 1 } else { 2 }),
        durability: Durability::Os,
        ..BucketProps::default()
    };
    let mut cluster = Cluster::new(3, props);
    let (mut acknowledged, mut lost) = (0, 0);
    for round in 0..100u128 {
        let key = format!("set {round}");
        cluster.now_ms += 1;
        cluster.put(0, put(&key, "start", round * 10));
        let read = cluster.get(0, get(&key));
        if partitioned {
            (0..3).for_each(|node| cluster.cut(node));
        }
        let adds: Vec<String> = (0..3).map(|node| format!("start,{node}")).collect();
        let asked: Vec<u64> = (0..3)
            .map(|node| {
                cluster.now_ms += 1;
                cluster.ask_put(node, with(&read.context, put(&key, &adds[node], round * 10 + node as u128 + 1)))
            })
            .collect();
        cluster.deliver();
        let stored = asked.iter().filter(|&&number| cluster.put_reply(number).outcome == PutOutcome::Stored).count();
        if partitioned {
            (0..3).for_each(|node| cluster.heal(node));
        }
        let kept = shown(&mut cluster, 1, &key);
        acknowledged += stored;
        lost += adds.iter().filter(|add| !kept.contains(add)).count();
    }
    (acknowledged, lost)
}

#[test]
fn no_concurrent_acknowledged_add_is_lost() {
    for partitioned in [false, true] {
        assert_eq!(concurrent_adds(partitioned), (300, 0), "partitioned: {partitioned}");
    }
}
