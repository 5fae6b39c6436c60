//! Disks that are full, damaged or broken, and clocks that are wrong.

use rejoin_core::port::{Space, Store};
use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome};
use rejoin_proto::peer::{PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{ErrorCode, Hlc, ReapEpoch};

use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{SKEW_MS, WALL_MS, delete, get, object_id, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

#[test]
pub(crate) fn a_full_disk_refuses_before_a_dot_leaves_and_goes_on_reading() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    cluster.nodes[0].store.writes = Writes::Full;
    let number = cluster.ask_put(0, put("k", "b", 2));
    assert!(cluster.wire.is_empty(), "nothing left the node");
    assert_eq!(cluster.error(number).code, ErrorCode::DiskFull);
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"a"[..]));
    cluster.nodes[0].store.writes = Writes::Work;
    let again = put("k", "b", 2);
    assert_eq!(cluster.put(0, again).outcome, PutOutcome::Stored, "what was refused is not remembered as done");
    assert_eq!(cluster.stored(1, "k").entries.len(), 2);
}

#[test]
pub(crate) fn a_replica_whose_disk_is_full_is_counted_out() {
    let mut cluster = three();
    cluster.nodes[1].store.writes = Writes::Full;
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    cluster.nodes[2].store.writes = Writes::Full;
    let number = cluster.ask_put(0, put("k", "b", 2));
    cluster.deliver();
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Unknown, 1), "not only at the deadline");
}

#[test]
pub(crate) fn a_store_that_is_behind_says_when_to_come_back() {
    let mut cluster = three();
    cluster.nodes[0].store.writes = Writes::Busy;
    let number = cluster.ask_put(0, put("k", "a", 1));
    let error = cluster.error(number);
    assert_eq!((error.code, error.retry_after_ms > 0), (ErrorCode::Overloaded, true));
}

#[test]
pub(crate) fn a_store_that_fails_stops_the_node_and_leaves_the_write_unknown() {
    let mut cluster = three();
    cluster.nodes[0].store.writes = Writes::Failed;
    let number = cluster.ask_put(0, put("k", "a", 1));
    assert!(cluster.wire.is_empty());
    let error = cluster.error(number);
    assert_eq!(error.code, ErrorCode::Unknown, "the record may be in the journal");
    assert!(!error.code.is_retryable(), "another node would write it a second time");
    assert_eq!(cluster.fatal.len(), 1);
}

#[test]
pub(crate) fn a_damaged_copy_is_an_error_and_never_absent() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    for node in [0, 1] {
        cluster.nodes[node].store.damaged.insert(object_id("k").store_key());
    }
    let number = cluster.ask_get(0, get("k"));
    cluster.deliver();
    let error = cluster.error(number);
    assert_eq!((error.code, error.needed), (ErrorCode::Unavailable, 2), "one good copy is no quorum");
    assert!(error.why.iter().any(|verdict| verdict.why.contains("cannot read its copy")));
    let read = cluster.get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    assert_eq!(read.value.as_deref(), Some(&b"a"[..]), "r = 1 asks the others when its own copy is damaged");
    let mut alone = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    alone.put(0, put("k", "a", 1));
    alone.nodes[0].store.damaged.insert(object_id("k").store_key());
    let number = alone.ask_get(0, get("k"));
    assert_eq!(alone.error(number).code, ErrorCode::Unavailable);
    assert!(alone.alarms.iter().any(|alarm| matches!(alarm, Alarm::Damaged { .. })));
}

fn damage(cluster: &mut Cluster, node: usize) {
    cluster.nodes[node].store.damaged.insert(object_id("k").store_key());
}

fn readable(cluster: &Cluster, node: usize) -> bool {
    cluster.nodes[node].store.get(Space::Objects, &object_id("k").store_key()).is_ok()
}

#[test]
pub(crate) fn a_copy_that_cannot_be_read_is_replaced_by_what_comes_in() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    cluster.put(2, put("k", "b", 2));
    damage(&mut cluster, 2);
    let read = cluster.get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    let all = Put { w: Some(Quorum::Count(3)), ..with(&read.context, put("k", "c", 3)) };
    assert_eq!(cluster.put(0, all).outcome, PutOutcome::Stored, "the damaged owner takes it");
    let ends = cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::TenureEnded { .. })).count();
    assert_eq!((readable(&cluster, 2), ends), (true, 1), "its actor's writes were in what is lost");
    assert_eq!(cluster.nodes[2].shard.counters().replaced, 1);
    assert_eq!(cluster.get(2, Get { r: Some(Quorum::Count(3)), ..get("k") }).value.as_deref(), Some(&b"c"[..]));
}

#[test]
pub(crate) fn a_damaged_copy_is_not_replaced_before_the_end_of_the_tenure_is_written() {
    let mut cluster = three();
    cluster.put(2, put("k", "a", 1));
    damage(&mut cluster, 2);
    cluster.nodes[2].store.writes = Writes::Full;
    let number = cluster.ask_put(0, Put { w: Some(Quorum::Count(3)), ..put("k", "b", 2) });
    cluster.deliver();
    assert_eq!((cluster.put_reply(number).outcome, readable(&cluster, 2)), (PutOutcome::Unknown, false));
    cluster.nodes[2].store.writes = Writes::Work;
    let written = cluster.nodes[2].store.written;
    assert_eq!(cluster.put(0, Put { w: Some(Quorum::Count(3)), ..put("k", "c", 3) }).outcome, PutOutcome::Stored);
    assert_eq!(cluster.nodes[2].store.written, written + 1, "the end and the new copy are one record");
    assert!(readable(&cluster, 2) && !cluster.nodes[2].shard.owes_ends());
}

#[test]
pub(crate) fn a_read_that_meets_a_damaged_copy_repairs_it() {
    // Here and at another owner; a read that fails for it repairs it too.
    for (node, r) in [(0, 2), (2, 2), (2, 3)] {
        let mut cluster = three();
        cluster.put(0, put("k", "a", 1));
        damage(&mut cluster, node);
        let number = cluster.ask_get(0, Get { r: Some(Quorum::Count(r)), ..get("k") });
        cluster.deliver();
        let found = matches!(cluster.reply(number), rejoin_proto::client::Reply::Get(_));
        assert_eq!((found, readable(&cluster, node)), (r == 2, true), "node {node}, r = {r}");
        assert_eq!(cluster.stored(node, "k"), cluster.stored(1, "k"));
    }
}

#[test]
pub(crate) fn a_coordinator_whose_copy_is_damaged_takes_what_the_others_have_and_writes() {
    let mut cluster = three();
    cluster.put(1, put("k", "a", 1));
    damage(&mut cluster, 0);
    assert_eq!(cluster.put(0, put("k", "b", 2)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.stored(0, "k").entries.len(), 2, "beside what the others had");
    // Nobody has anything else: the damaged copy may be all there is of an earlier write, and is not taken for an
    // absent one.
    let mut cluster = three();
    cluster.ask_put(0, put("k", "a", 1));
    cluster.wire.clear();
    damage(&mut cluster, 0);
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::Damaged);
    assert!(!readable(&cluster, 0));
}

/// A key that nobody has ever written falls among those that the coordinator has lost. That must not lock it.
#[test]
pub(crate) fn a_new_key_of_a_lost_range_is_written_at_its_coordinator() {
    for (at, basis) in [Basis::Create, Basis::Blind].into_iter().enumerate() {
        let mut cluster = three();
        cluster.put(0, put("old", "a", 1));
        cluster.nodes[0].store.lose_all();
        let new = || Put { basis: basis.clone(), ..put("k", "b", 2) };
        assert_eq!(cluster.put(0, new()).outcome, PutOutcome::Stored);
        assert_eq!(cluster.put(0, delete(&format!("deleted{at}"), 3)).outcome, PutOutcome::Stored, "a delete too");
        assert_eq!(cluster.nodes[0].shard.counters().replaced, 2);
        for node in 0..3 {
            assert_eq!(cluster.get(node, get("k")).value.as_deref(), Some(&b"b"[..]));
        }
        assert!(cluster.agrees("k", &[0, 1, 2]), "it is whole at every owner");
        // What the others have is neither replaced nor hidden from a create.
        assert_eq!(cluster.refused(0, Put { basis: Basis::Create, ..put("old", "c", 4) }), ErrorCode::Exists);
        assert_eq!(cluster.put(0, put("old", "c", 5)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.stored(0, "old").entries.len(), 2, "beside what the others had");
    }
}

/// The actor that had written the key has ended in the same record, or before: its writes may be in what is lost.
#[test]
pub(crate) fn a_lost_copy_is_not_written_over_before_the_end_of_the_tenure_is_written() {
    let mut cluster = three();
    cluster.ask_put(0, put("k", "a", 1));
    cluster.wire.clear();
    let before = cluster.nodes[0].shard.actors();
    cluster.nodes[0].store.lose_all();
    cluster.nodes[0].store.writes = Writes::Full;
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::DiskFull);
    assert!(!readable(&cluster, 0) && cluster.nodes[0].shard.owes_ends());
    cluster.nodes[0].store.writes = Writes::Work;
    let written = cluster.nodes[0].store.written;
    assert_eq!(cluster.put(0, put("k", "c", 3)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.nodes[0].store.written, written + 1, "the end and the new copy are one record");
    assert_ne!(cluster.nodes[0].shard.actors(), before);
    assert!(readable(&cluster, 0) && !cluster.nodes[0].shard.owes_ends());
}

/// Whoever cannot say what it has proves nothing.
#[test]
pub(crate) fn a_lost_copy_is_not_given_up_while_too_few_others_can_say_what_they_have() {
    let mut cluster = three();
    cluster.nodes[0].store.lose_all();
    cluster.nodes[1].store.lose_all();
    assert_eq!(cluster.refused(0, put("k", "a", 1)), ErrorCode::Unavailable);
    assert!(!readable(&cluster, 0));
    // An owner that has lost everything has nothing to say either.
    let mut cluster = three();
    cluster.nodes[0].store.lose_all();
    cluster.event(1, Event::Replaced);
    assert_eq!(cluster.refused(0, put("k", "a", 1)), ErrorCode::Unavailable);
    assert!(!readable(&cluster, 0));
}

/// One node has the only copy, or the coordinator alone may have acknowledged: nobody knows what was lost. A put or a
/// delete makes the key whole again, and a create cannot promise that there was nothing.
#[test]
pub(crate) fn a_lost_copy_that_may_be_the_only_one_is_written_over_but_by_creates() {
    let one = |n| BucketProps { n, w: Quorum::Count(1), r: Quorum::Count(1), ..BucketProps::default() };
    for nodes in [1, 3] {
        let mut cluster = Cluster::new(nodes, one(u8::try_from(nodes).expect("few")));
        // Acknowledged, and nobody else has it yet.
        let mut lost = |key| {
            let number = cluster.ask_put(0, put(key, "lost", 1));
            cluster.wire.clear();
            cluster.put_reply(number).context
        };
        let [context, _, seen] = ["k", "deleted", "seen"].map(&mut lost);
        cluster.nodes[0].store.lose_all();
        let number = cluster.ask_get(0, get("k"));
        if nodes == 1 {
            assert_eq!(cluster.error(number).code, ErrorCode::Unavailable, "never absent");
        }
        cluster.deliver();
        let number = cluster.ask_put(0, Put { basis: Basis::Create, ..put("k", "created", 3) });
        cluster.deliver();
        let error = cluster.error(number);
        assert_eq!(error.code, if nodes == 1 { ErrorCode::Unavailable } else { ErrorCode::Damaged });
        assert_eq!(cluster.put(0, put("k", "b", 4)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.put(0, delete("deleted", 5)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.put(0, with(&seen, put("seen", "c", 6))).outcome, PutOutcome::Stored);
        assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"b"[..]));
        assert_eq!(cluster.get(0, get("seen")).value.as_deref(), Some(&b"c"[..]));
        assert_eq!(cluster.get(0, get("deleted")).value, None);
        // What only this copy knew of the earlier write is gone with it, and its context still opens the key.
        assert_eq!(cluster.put(0, with(&context, put("k", "d", 7))).outcome, PutOutcome::Stored);
    }
    // A copy that is there and damaged may be read again, and keeps its place.
    let mut alone = Cluster::new(1, one(1));
    alone.put(0, put("k", "a", 1));
    damage(&mut alone, 0);
    assert_eq!(alone.refused(0, put("k", "b", 2)), ErrorCode::Damaged);
    alone.nodes[0].store.damaged.clear();
    assert_eq!(alone.get(0, get("k")).value.as_deref(), Some(&b"a"[..]));
}

#[test]
pub(crate) fn an_object_that_does_not_decode_is_damaged_too() {
    let mut alone = Cluster::new(1, BucketProps { n: 1, ..BucketProps::default() });
    alone.put(0, put("k", "a", 1));
    for row in alone.nodes[0].store.rows.values_mut().filter(|row| row.len() > 30) {
        *row = row.slice(..row.len() - 1);
    }
    let number = alone.ask_get(0, get("k"));
    assert_eq!(alone.error(number).code, ErrorCode::Unavailable);
}

#[test]
pub(crate) fn a_stamp_from_the_future_is_taken_with_an_alarm_and_moves_no_clock() {
    let mut cluster = three();
    cluster.ask_put(0, put("k", "a", 1));
    let (from, _, envelope) = cluster.wire.pop_front().expect("a replicate");
    let PeerBody::Replicate(message) = envelope.body.clone() else { panic!("a replicate") };
    let stamped = |ms| Hlc::from_ms(WALL_MS + ms);
    let to = cluster.wire[0].1;
    let with_stamp = |stamp| {
        let mut state = message.state.clone().into_object();
        state.entries[0].stamp = stamp;
        PeerBody::Replicate(Replicate { state: state.into(), ..message.clone() })
    };
    let (to, near) = (cluster.place(to), with_stamp(stamped(SKEW_MS)));
    cluster.event(to, Event::Peer(from, PeerEnvelope { body: near, ..envelope.clone() }));
    assert!(cluster.alarms.is_empty(), "within what clocks may differ by");
    let far = with_stamp(stamped(10 * SKEW_MS));
    cluster.event(to, Event::Peer(from, PeerEnvelope { body: far, ..envelope }));
    assert!(matches!(cluster.alarms[0], Alarm::FutureStamp { ahead_ms, .. } if ahead_ms == 10 * SKEW_MS));
    cluster.deliver();
    cluster.put(to, put("k", "b", 2));
    let newest = cluster
        .stored(to, "k")
        .entries
        .iter()
        .map(|entry| entry.stamp.ms())
        .filter(|&ms| ms < WALL_MS + 2 * SKEW_MS)
        .max();
    assert_eq!(newest, Some(WALL_MS + SKEW_MS), "ahead by what may be, not by what may not");
}

#[test]
pub(crate) fn an_object_of_an_older_reap_epoch_would_be_refused_and_one_of_a_newer_is_taken() {
    let mut cluster = three();
    cluster.ask_put(0, put("k", "a", 1));
    for (_, _, envelope) in &mut cluster.wire {
        if let PeerBody::Replicate(message) = &mut envelope.body {
            message.epoch = ReapEpoch { number: 1, proposer: 1 };
        }
    }
    cluster.deliver();
    assert_eq!(cluster.stored(1, "k").entries.len(), 1);
}

#[test]
pub(crate) fn too_many_requests_are_answered_promptly() {
    let mut cluster = Cluster::with_config(3, BucketProps::default(), |config| config.max_ops = 2);
    let (one, two) = (cluster.ask_put(0, put("a", "a", 1)), cluster.ask_put(0, put("b", "a", 2)));
    let three = cluster.ask_put(0, put("c", "a", 3));
    let error = cluster.error(three);
    assert_eq!((error.code, error.retry_after_ms > 0), (ErrorCode::Overloaded, true));
    cluster.deliver();
    assert_eq!(cluster.put_reply(one).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put_reply(two).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(0, put("c", "a", 3)).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn reads_that_only_wait_for_a_paused_owner_take_no_requests_place() {
    let mut cluster = Cluster::with_config(3, BucketProps::default(), |config| config.max_ops = 2);
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    // Node 2 is connected and says nothing.
    for _ in 0..20 {
        let number = cluster.ask_get(0, crate::support::get("k"));
        cluster.deliver_without(2);
        assert_eq!(cluster.get_reply(number).siblings.len(), 1);
    }
    let in_flight = cluster.nodes[0].shard.in_flight();
    assert!((1..=4).contains(&in_flight), "{in_flight} wait for the paused one, and no more than the bound");
    // One of those reads still lingers, and both places are free for writes.
    let (one, two) = (cluster.ask_put(0, put("k", "b", 2)), cluster.ask_put(0, put("k", "c", 3)));
    cluster.deliver_without(2);
    assert_eq!(
        (cluster.put_reply(one).outcome, cluster.put_reply(two).outcome),
        (PutOutcome::Stored, PutOutcome::Stored)
    );
}

#[test]
pub(crate) fn a_node_that_does_not_serve_yet_mints_nothing() {
    use rejoin_core::shard::{Shard, event::Effect};
    use rejoin_proto::client::Reply;
    let cluster = three();
    let mut store = crate::support::store::Memory::default();
    let rng = <rand_xoshiro::Xoshiro256PlusPlus as rand_core::SeedableRng>::seed_from_u64(1);
    let mut shard =
        Shard::open(cluster.nodes[0].config.clone(), cluster.view.clone(), rng, &mut store).expect("a shard");
    let request = rejoin_core::shard::event::ClientRequest {
        reply_to: rejoin_core::shard::event::ReplyTo { connection: 1, request: 1 },
        tenant: crate::support::tenant(),
        layout: cluster.view.layout_name(),
        trace: 0,
        arrived_us: 0,
        deadline_us: 1_000_000,
        request: rejoin_proto::peer::DataRequest::Put(put("k", "a", 1)),
    };
    let mut effects = Vec::new();
    shard.handle(crate::support::at(0), Event::Client(request), &mut store, &mut effects);
    let [Effect::Reply { reply: Reply::Error(error), .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(error.code, ErrorCode::NotServing);
    assert_eq!(shard.actors(), []);
}

/// A node that is about to stop may get another connection before it does: both sides had dialled. A write that waited
/// for it would be in doubt when it stops.
#[test]
pub(crate) fn a_peer_that_is_leaving_is_asked_nothing_though_it_connects_once_more() {
    let mut cluster = Cluster::new(3, BucketProps { w: Quorum::Count(3), ..BucketProps::default() });
    let peer = cluster.nodes[2].id;
    cluster.event(0, Event::PeerLeaving(peer));
    assert_eq!(cluster.refused(0, put("k", "a", 1)), ErrorCode::Unavailable);
    cluster.event(0, Event::PeerUp(peer));
    assert_eq!(cluster.refused(0, put("k", "a", 2)), ErrorCode::Unavailable, "it is still about to stop");
    cluster.event(0, Event::PeerDown(peer));
    cluster.event(0, Event::PeerUp(peer));
    assert_eq!(cluster.put(0, put("k", "a", 3)).outcome, PutOutcome::Stored, "it is back");
}
