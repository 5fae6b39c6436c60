//! What grows with what others do has an end: retries that wait, copies that cannot be read, actors of others.

use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{BucketProps, Durability};
use rejoin_proto::client::{PutOutcome, Reply};
use rejoin_proto::peer::{OpId, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{ActorId, Dot, ErrorCode, Object, ReapEpoch};

use crate::support::cluster::Cluster;
use crate::support::{get, object_id, put};

#[test]
pub(crate) fn sixteen_attempts_at_one_write_wait_for_it_and_no_more() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let first = cluster.ask_put(0, put("k", "a", 1));
    let retries: Vec<u64> = (0..20).map(|_| cluster.ask_put(0, put("k", "a", 1))).collect();
    let (turned_away, waiting): (Vec<u64>, Vec<u64>) = retries.into_iter().partition(|number| cluster.replies.contains_key(number));
    assert_eq!((waiting.len(), turned_away.len()), (15, 5), "with the first one sixteen wait");
    turned_away.into_iter().for_each(|number| assert_eq!(cluster.error(number).code, ErrorCode::Unknown));
    cluster.deliver();
    for number in waiting.into_iter().chain([first]) {
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    assert_eq!(cluster.stored(1, "k").entries.len(), 1);
}

#[test]
pub(crate) fn ten_thousand_copies_that_cannot_be_read_are_told_apart_and_no_more() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    let mut alarms = |key: usize| {
        let key = format!("k{key}");
        cluster.nodes[0].store.damaged.insert(object_id(&key).store_key());
        cluster.alarms.clear();
        assert_eq!(cluster.refused(0, put(&key, "a", 1)), ErrorCode::Damaged);
        cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::Damaged { .. })).count()
    };
    assert_eq!((0..10_000).map(&mut alarms).sum::<usize>(), 10_000);
    assert_eq!([alarms(0), alarms(9_999)], [0, 0], "those are known");
    assert_eq!([alarms(10_000), alarms(10_000)], [1, 1], "each read of one more counts as new");
}

#[test]
pub(crate) fn a_read_of_one_damaged_copy_more_ends_a_tenure_only_if_something_was_minted_since_the_last_end() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, durability: Durability::Os, ..BucketProps::default() });
    for key in (0..10_001).map(|at| format!("k{at}")) {
        cluster.nodes[0].store.damaged.insert(object_id(&key).store_key());
        cluster.refused(0, put(&key, "a", 1));
    }
    let layout = cluster.view.layout().clone();
    let one_more = layout.partition(&object_id("k10000"));
    let sound = (0..).map(|at| format!("sound{at}")).find(|key| layout.partition(&object_id(key)) == one_more).expect("a key");
    let ends_of_ten_reads = |cluster: &mut Cluster| {
        cluster.alarms.clear();
        (0..10).for_each(|_| assert_eq!(cluster.refused(0, put("k10000", "a", 1)), ErrorCode::Damaged));
        cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::TenureEnded { .. })).count()
    };
    assert_eq!(ends_of_ten_reads(&mut cluster), 0);
    assert_eq!(cluster.put(0, put(&sound, "b", 2)).outcome, PutOutcome::Stored);
    assert_eq!(ends_of_ten_reads(&mut cluster), 1);
    let start = cluster.nodes[0].shard.start();
    assert_eq!((ends_of_ten_reads(&mut cluster), cluster.nodes[0].shard.start()), (0, start));
}

/// The store keeps a row of each actor that is remembered: sixty-four per partition, whatever contexts say.
#[test]
pub(crate) fn sixty_four_actors_of_others_are_remembered_per_partition() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let peer = cluster.nodes[1].id;
    for round in 0..20u64 {
        let actors = (0..20).map(|at| Dot { actor: ActorId(1 + round * 20 + at), counter: 1 });
        let state = Object { context: actors.collect(), entries: Vec::new() };
        let (op, object) = (Some(OpId { shard: 0, number: round }), object_id("k"));
        let (epoch, durability) = (ReapEpoch::default(), Durability::Os);
        let body = PeerBody::Replicate(Replicate { op, object, bucket_version: 1, epoch, dot: None, durability, state });
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
    let (refused, under_way): (Vec<u64>, Vec<u64>) = writes.into_iter().partition(|number| cluster.replies.contains_key(number));
    assert_eq!((under_way.len(), refused.len()), (7, 5), "and what each request takes beside its value");
    let held = cluster.nodes[0].shard.in_flight_bytes();
    assert!((7 * MIB..8 * MIB).contains(&held), "{held}");
    for number in refused {
        let error = cluster.error(number);
        assert!(error.code == ErrorCode::Overloaded && error.retry_after_ms > 0 && error.message.contains("bytes"), "{error}");
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
