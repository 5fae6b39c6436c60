//! What grows with what others do has an end: retries that wait, copies that cannot be read, actors of others.

use std::collections::BTreeSet;

use rejoin_core::port::Space;
use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{BucketProps, Durability, Quorum};
use rejoin_proto::client::{Put, PutOutcome, Reply};
use rejoin_proto::peer::{OpId, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{ActorId, Dot, ErrorCode, Object, ReapEpoch};

use crate::support::cluster::Cluster;
use crate::support::{get, object_id, put, with};

#[test]
pub(crate) fn sixteen_attempts_at_one_write_wait_for_it_and_no_more() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let first = cluster.ask_put(0, put("k", "a", 1));
    let retries: Vec<u64> = (0..20).map(|_| cluster.ask_put(0, put("k", "a", 1))).collect();
    let (turned_away, waiting): (Vec<u64>, Vec<u64>) =
        retries.into_iter().partition(|number| cluster.replies.contains_key(number));
    assert_eq!((waiting.len(), turned_away.len()), (15, 5), "with the first one sixteen wait");
    turned_away.into_iter().for_each(|number| assert_eq!(cluster.error(number).code, ErrorCode::Unknown));
    cluster.deliver();
    for number in waiting.into_iter().chain([first]) {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    assert_eq!(cluster.stored(1, "k").entries.len(), 1);
}

fn alarms_of_damage(cluster: &Cluster) -> usize {
    cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::Damaged { .. })).count()
}

fn ends(cluster: &Cluster) -> usize {
    cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::TenureEnded { .. })).count()
}

/// Other keys of the partition of a key.
fn neighbours(cluster: &Cluster, key: &str, count: usize) -> Vec<String> {
    let layout = cluster.view.layout();
    let partition = layout.partition(&object_id(key));
    let keys = (0..).map(|at| format!("neighbour {at}"));
    keys.filter(|key| layout.partition(&object_id(key)) == partition).take(count).collect()
}

#[test]
pub(crate) fn ten_thousand_copies_that_cannot_be_read_are_told_apart_and_no_more() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    let mut alarms = |key: usize| {
        let key = format!("k{key}");
        cluster.nodes[0].store.damaged.insert(object_id(&key).store_key());
        cluster.alarms.clear();
        assert_eq!(cluster.refused(0, put(&key, "a", 1)), ErrorCode::Damaged);
        alarms_of_damage(&cluster)
    };
    assert_eq!((0..10_000).map(&mut alarms).sum::<usize>(), 10_000);
    assert_eq!([alarms(0), alarms(9_999)], [0, 0], "those are known");
    assert_eq!([alarms(10_000), alarms(10_001)], [0, 0], "and more are not reported one by one");
}

/// Reads of copies that are not told apart cost nothing. What takes the place of one ends the tenure before it.
#[test]
pub(crate) fn damaged_copies_that_are_not_told_apart_end_a_tenure_when_replaced() {
    let mut cluster = Cluster::new(3, BucketProps { durability: Durability::Os, ..BucketProps::default() });
    assert_eq!(cluster.put(0, put("k10000", "before", 1)).outcome, PutOutcome::Stored);
    for key in (0..10_000).map(|at| format!("k{at}")) {
        cluster.nodes[0].store.damaged.insert(object_id(&key).store_key());
        cluster.ask_get(0, get(&key));
        cluster.deliver();
    }
    let sound = neighbours(&cluster, "k10000", 1).remove(0);
    assert_eq!(cluster.put(0, put(&sound, "minted", 2)).outcome, PutOutcome::Stored);
    cluster.nodes[0].store.damaged.insert(object_id("k10000").store_key());
    cluster.alarms.clear();
    for round in 0..10 {
        // Nobody is there whose copy could take its place.
        cluster.cut(0);
        let one = Put { w: Some(Quorum::Count(1)), ..put("k10000", "refused", 3) };
        assert_eq!(cluster.refused(0, one), ErrorCode::Damaged);
        cluster.heal(0);
        assert_eq!(cluster.put(0, put(&sound, "minted", 10 + round)).outcome, PutOutcome::Stored);
    }
    assert_eq!((ends(&cluster), alarms_of_damage(&cluster)), (0, 0));
    let written = cluster.nodes[0].store.written;
    assert_eq!(cluster.put(0, put("k10000", "after", 4)).outcome, PutOutcome::Stored);
    assert_eq!(ends(&cluster), 1, "its actor's writes were in what is lost");
    assert_eq!(
        cluster.nodes[0].store.written - written,
        2,
        "the end and what replaces the copy are one record, the write is the other"
    );
    assert_eq!(cluster.stored(0, "k10000").entries.len(), 2, "beside what the others had");
}

/// More keys of a lost range than are told apart: neither a read nor a write of one more costs its partition an actor,
/// or the log a line.
#[test]
pub(crate) fn a_lost_range_ends_a_partitions_tenure_once_however_many_keys_it_has() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() });
    let mut more = neighbours(&cluster, "more", 1001);
    let sound = more.pop().expect("a key");
    let partition = |cluster: &Cluster, key: &str| cluster.view.layout().partition(&object_id(key));
    assert_eq!(cluster.put(0, put(&sound, "before", 1)).outcome, PutOutcome::Stored);
    cluster.nodes[0].store.lose_all();
    let keys: Vec<String> = (0..10_100).map(|at| format!("k{at}")).collect();
    for key in &keys {
        cluster.ask_get(0, get(key));
    }
    let partitions: BTreeSet<_> = keys.iter().map(|key| partition(&cluster, key)).collect();
    assert_eq!(alarms_of_damage(&cluster), partitions.len(), "one for each partition");
    assert_eq!(ends(&cluster), 1, "of the one partition that had an actor");
    let start = cluster.nodes[0].shard.start();
    cluster.alarms.clear();
    let mut context = cluster.put(0, put(&sound, "after", 2)).context;
    for (round, key) in (10..).zip(&more) {
        context = cluster.put(0, with(&context, put(&sound, "goes on", round))).context;
        cluster.ask_get(0, get(key));
    }
    assert_eq!((ends(&cluster), alarms_of_damage(&cluster), cluster.nodes[0].shard.start()), (0, 0, start));
    // Another loss takes what the new actor has written.
    cluster.nodes[0].store.lose_all();
    cluster.ask_get(0, get(&sound));
    cluster.ask_get(0, get("more"));
    assert_eq!((ends(&cluster), alarms_of_damage(&cluster)), (1, 1));
}

/// The store keeps a row of each actor that is remembered: sixty-four per partition, whatever contexts say.
#[test]
pub(crate) fn sixty_four_actors_of_others_are_remembered_per_partition() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let peer = cluster.nodes[1].id;
    for round in 0..20u64 {
        let actors = (0..20).map(|at| Dot { actor: ActorId(1 + round * 20 + at), counter: 1 });
        let state = Object { context: actors.collect(), entries: Vec::new() }.into();
        let (op, object) = (Some(OpId { shard: 0, number: round }), object_id("k"));
        let (epoch, durability) = (ReapEpoch::default(), Durability::Os);
        let body =
            PeerBody::Replicate(Replicate { op, object, bucket_version: 1, epoch, dot: None, durability, state });
        cluster.event(0, Event::Peer(peer, PeerEnvelope { layout: cluster.view.layout_name(), trace: 0, body }));
        cluster.pass(1001);
    }
    let rows = cluster.nodes[0].store.rows.keys().filter(|(_, key)| key[0] == b'o').count();
    assert_eq!(rows, 64);
    assert_eq!(cluster.stored(0, "k").context.len(), 400, "the object itself forgets nothing");
}

const MIB: usize = 1 << 20;

/// Three nodes whose requests hold eight mebibytes at most.
fn eight_mebibytes() -> Cluster {
    Cluster::with_config(3, BucketProps::default(), |config| config.max_op_bytes = 8 * MIB)
}

#[test]
pub(crate) fn requests_under_way_hold_no_more_bytes_than_they_may() {
    let mut cluster = eight_mebibytes();
    let big = "x".repeat(MIB);
    // Writes: their values, until the quorum has them.
    let writes: Vec<u64> = (0..12).map(|at| cluster.ask_put(0, put(&format!("k{at}"), &big, at))).collect();
    let (refused, under_way): (Vec<u64>, Vec<u64>) =
        writes.into_iter().partition(|number| cluster.replies.contains_key(number));
    assert_eq!((under_way.len(), refused.len()), (7, 5), "and what each request takes beside its value");
    let held = cluster.nodes[0].shard.in_flight_bytes();
    assert!((7 * MIB..8 * MIB).contains(&held), "{held}");
    for number in refused {
        let error = cluster.error(number);
        assert!(
            error.code == ErrorCode::Overloaded && error.retry_after_ms > 0 && error.message.contains("bytes"),
            "{error}"
        );
    }
    cluster.deliver();
    under_way.into_iter().for_each(|number| assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored));
    assert_eq!(cluster.nodes[0].shard.in_flight_bytes(), 0);
    // Reads: what they have of the object, from the first copy on. Nobody else answers.
    let reads: Vec<u64> = (0..12).map(|at| cluster.ask_get(0, get(&format!("k{}", at % 7)))).collect();
    let held = cluster.nodes[0].shard.in_flight_bytes();
    assert!((7 * MIB..8 * MIB).contains(&held), "{held}");
    let refused = reads.iter().filter(|number| cluster.replies.contains_key(number)).count();
    assert_eq!(refused, 5);
    cluster.deliver();
    let found = reads.into_iter().filter(|&number| matches!(cluster.reply(number), Reply::Get(_))).count();
    assert_eq!((found, cluster.nodes[0].shard.in_flight_bytes()), (7, 0));
}

/// One request is taken however large it is, if it is alone.
#[test]
pub(crate) fn an_object_larger_than_the_budget_is_read_and_written_alone() {
    let mut cluster = Cluster::with_config(3, BucketProps::default(), |config| config.max_op_bytes = 1000);
    let big = "x".repeat(MIB);
    assert_eq!(cluster.put(0, put("k", &big, 1)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(0, get("k")).value.map(|value| value.len()), Some(MIB));
    let (one, two) = (cluster.ask_put(0, put("k", &big, 2)), cluster.ask_put(0, put("k", "small", 3)));
    assert_eq!(cluster.error(two).code, ErrorCode::Overloaded);
    cluster.deliver();
    assert_eq!(cluster.put_reply(one).outcome, PutOutcome::Stored);
}

/// A thousand reads of a mebibyte each, answered, that wait for an owner which is slow: they keep one copy each, and
/// give way.
#[test]
pub(crate) fn answered_reads_that_wait_for_a_late_owner_hold_no_copies_of_others_and_give_way() {
    let mut cluster = eight_mebibytes();
    let (big, silent) = ("x".repeat(MIB), cluster.nodes[2].id);
    cluster.put(0, put("k", &big, 1));
    for round in 1..1000_usize {
        let number = cluster.ask_get(0, get("k"));
        while cluster.deliver_one(|from, to, _| from != silent && to != silent) {}
        cluster.wire.retain(|(_, to, _)| *to != silent);
        assert!(matches!(cluster.reply(number), Reply::Get(_)), "no read is refused for one that has its answer");
        let (waiting, held) = (cluster.nodes[0].shard.in_flight(), cluster.nodes[0].shard.in_flight_bytes());
        assert_eq!(waiting, round.min(7), "each holds one mebibyte, and the oldest gives way");
        assert!(held <= 8 * MIB, "{held}");
    }
    cluster.pass(1000);
    assert_eq!((cluster.nodes[0].shard.in_flight(), cluster.nodes[0].shard.in_flight_bytes()), (0, 0));
}

/// A read that is answered, and waits for the third node.
fn linger(cluster: &mut Cluster, key: &str) {
    let number = cluster.ask_get(0, get(key));
    cluster.deliver_without(2);
    cluster.get_reply(number);
    cluster.wire.clear();
}

/// Values are parts of the row that they came in.
#[test]
fn a_small_value_does_not_keep_the_large_one_that_it_stood_beside() {
    let mut cluster = Cluster::new(3, BucketProps { w: Quorum::Count(1), ..BucketProps::default() });
    cluster.put(0, put("k", &"large".repeat(100_000), 1));
    let seen = cluster.get(0, get("k")).context;
    for (node, write) in [(0, put("k", "beside", 2)), (1, with(&seen, put("k", "instead", 3)))] {
        let number = cluster.ask_put(node, write);
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    linger(&mut cluster, "k");
    let held = cluster.nodes[0].shard.in_flight_bytes();
    assert!((1..10_000).contains(&held), "the read is still there, with small values: {held}");
    let store = &mut cluster.nodes[0].store;
    store.changes.clear();
    let row = store.rows.remove(&(Space::Objects, object_id("k").store_key().into())).expect("a row");
    assert!(row.len() > 500_000 && row.is_unique());
}

#[test]
fn answered_reads_give_their_places_to_new_requests() {
    const PLACES: usize = 1 << 16;
    let mut cluster = Cluster::with_config(3, BucketProps::default(), |config| config.max_ops = 2 * PLACES);
    cluster.put(0, put("k", "a", 1));
    (0..PLACES).for_each(|_| linger(&mut cluster, "k"));
    assert_eq!(cluster.nodes[0].shard.in_flight(), PLACES);
    assert_eq!(cluster.put(0, put("k", "b", 2)).outcome, PutOutcome::Stored);
}
