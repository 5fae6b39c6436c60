//! What grows with what others do has an end: retries that wait, copies that cannot be read, actors of others.

use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{BucketProps, Durability};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::peer::{OpId, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{ActorId, Dot, ErrorCode, Object, ReapEpoch};

use crate::support::cluster::Cluster;
use crate::support::{object_id, put};

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
