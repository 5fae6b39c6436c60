//! The actor rule: no dot is minted twice, whatever a disk forgets.

use rejoin_core::port::Space;
use rejoin_core::shard::event::{Alarm, Event};
use rejoin_proto::catalog::{BucketProps, Durability, Quorum};
use rejoin_proto::client::{Get, Put, PutOutcome};
use rejoin_proto::peer::{Absorbed, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{ActorId, Dot, ErrorCode, Object, ReapEpoch, VersionVector};

use crate::support::cluster::{Cluster, contexts};
use crate::support::store::{Memory, Writes};
use crate::support::{get, object_id, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

fn actor(cluster: &Cluster, node: usize) -> Option<ActorId> {
    cluster.actor_of(node, "k").map(|actor| actor.actor)
}

fn ended(cluster: &Cluster) -> usize {
    cluster.alarms.iter().filter(|alarm| matches!(alarm, Alarm::TenureEnded { .. })).count()
}

fn contents(cluster: &Cluster, node: usize) -> usize {
    cluster.stored(node, "k").entries.len()
}

#[test]
pub(crate) fn a_restart_goes_on_with_the_actor_and_its_counter() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let before = cluster.actor_of(0, "k").expect("an actor");
    let disk = cluster.nodes[0].store.clone();
    cluster.restart(0, false, disk);
    assert_eq!(cluster.actor_of(0, "k"), Some(before));
    cluster.put(0, put("k", "b", 2));
    assert_eq!(cluster.actor_of(0, "k").map(|actor| (actor.actor, actor.next)), Some((before.actor, before.next + 1)));
}

/// Scenario 1. Nobody tells the node that has lost its write what its peers have seen: it must find out by itself.
#[test]
pub(crate) fn a_node_that_lost_an_acknowledged_write_takes_a_new_actor_and_destroys_nothing() {
    let mut cluster = three();
    cluster.put(0, put("k", "zeroth", 9));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "first", 1));
    let before = actor(&cluster, 0);
    cluster.restart_heard(0, true, old, false);
    let number = cluster.ask_put(0, put("k", "second", 2));
    assert_ne!(actor(&cluster, 0), before);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert_eq!((contents(&cluster, 1), contents(&cluster, 2)), (3, 3), "the first write survives");
}

#[test]
pub(crate) fn every_actor_and_the_start_end_when_data_may_be_lost() {
    let mut cluster = three();
    (0..20).for_each(|at| assert_eq!(cluster.put(0, put(&format!("key {at}"), "a", at)).outcome, PutOutcome::Stored));
    let (actors, start) = (cluster.nodes[0].shard.actors(), cluster.nodes[0].shard.start());
    assert!(actors.len() > 4, "many partitions have one");
    let disk = cluster.nodes[0].store.clone();
    cluster.restart(0, true, disk.clone());
    assert_eq!(cluster.nodes[0].shard.actors(), []);
    assert_ne!(cluster.nodes[0].shard.start(), start, "retries from before are not recognised");
    let after = cluster.nodes[0].store.clone();
    cluster.restart(0, false, after);
    assert_eq!(cluster.nodes[0].shard.actors(), [], "the end was durable");
}

/// Scenario 13: an old disk, brought back without a word.
#[test]
pub(crate) fn a_handshake_tells_an_old_disk_what_its_actor_has_done() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    let before = actor(&cluster, 0);
    cluster.put(0, put("k", "b", 2));
    cluster.restart(0, false, old);
    assert_eq!(actor(&cluster, 0), None, "its peers had seen counter 2");
    assert!(ended(&cluster) > 0);
    cluster.put(0, put("k", "c", 3));
    assert_ne!(actor(&cluster, 0), before);
    assert_eq!(contents(&cluster, 1), 3);
}

#[test]
pub(crate) fn what_was_observed_survives_the_observers_restart() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "b", 2));
    cluster.pass(1001);
    for peer in [1, 2] {
        let disk = cluster.nodes[peer].store.clone();
        cluster.restart(peer, false, disk);
    }
    assert_eq!(ended(&cluster), 0);
    cluster.restart(0, false, old);
    assert!(ended(&cluster) > 0, "the peers still know");
}

/// Old contexts name the actors of many ended tenures. The quiet actor that its node mints with is not forgotten for
/// them, whether its peers have heard of it by a write or, after a restart of theirs, by its node's hello.
#[test]
pub(crate) fn an_old_disk_is_objected_to_whatever_ended_actors_old_contexts_name() {
    for restarted in [false, true] {
        let mut cluster = three();
        cluster.put(0, put("k", "a", 1));
        let old = cluster.nodes[0].store.clone();
        cluster.put(0, put("k", "b", 2));
        cluster.pass(1001);
        for peer in [1, 2].into_iter().filter(|_| restarted) {
            let disk = cluster.nodes[peer].store.clone();
            cluster.restart(peer, false, disk);
        }
        let (object, layout) = (object_id(&neighbour(&cluster)), cluster.view.layout_name());
        for round in 0..20u64 {
            let actors = (0..20).map(|at| Dot { actor: ActorId(1 + round * 20 + at), counter: 1 });
            for (from, to) in [(1, 2), (2, 1)] {
                let state = Object { context: actors.clone().collect(), entries: Vec::new() };
                let (epoch, durability, object) = (ReapEpoch::default(), Durability::Os, object.clone());
                let body = PeerBody::Replicate(Replicate {
                    op: None,
                    object,
                    bucket_version: 1,
                    epoch,
                    dot: None,
                    durability,
                    state: state.into(),
                });
                let from = cluster.nodes[from].id;
                cluster.event(to, Event::Peer(from, PeerEnvelope { layout, trace: 0, body }));
            }
            cluster.pass(1001);
        }
        assert_eq!(ended(&cluster), 0);
        cluster.restart(0, false, old);
        assert!(ended(&cluster) > 0 && actor(&cluster, 0).is_none(), "its peers still know; restarted: {restarted}");
    }
}

#[test]
pub(crate) fn what_a_full_disk_did_not_take_is_written_down_when_there_is_room() {
    use crate::support::store::Writes;
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let observed = |cluster: &Cluster| cluster.nodes[1].store.rows.keys().filter(|(_, key)| key[0] == b'o').count();
    cluster.nodes[1].store.writes = Writes::Full;
    cluster.pass(1001);
    assert_eq!(observed(&cluster), 0);
    cluster.nodes[1].store.writes = Writes::Work;
    cluster.pass(1001);
    assert_eq!(observed(&cluster), 1);
}

#[test]
pub(crate) fn a_clients_context_that_has_seen_more_ends_the_tenure_before_the_mint() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let used = cluster.actor_of(0, "k").expect("an actor");
    let ahead: VersionVector = [Dot { actor: used.actor, counter: used.next }].into_iter().collect();
    let token = contexts().seal(&object_id("k"), &ahead);
    assert_eq!(cluster.put(0, with(&token, put("k", "b", 2))).outcome, PutOutcome::Stored);
    assert_ne!(actor(&cluster, 0), Some(used.actor));
    let below: VersionVector = [Dot { actor: actor(&cluster, 0).expect("an actor"), counter: 1 }].into_iter().collect();
    let token = contexts().seal(&object_id("k"), &below);
    cluster.put(0, with(&token, put("k", "c", 3)));
    assert_eq!(ended(&cluster), 1, "a counter that was used is no alarm");
}

#[test]
pub(crate) fn an_object_or_an_answer_that_has_seen_more_ends_the_tenure_too() {
    for by_answer in [false, true] {
        let mut cluster = three();
        cluster.put(0, put("k", "a", 1));
        let used = cluster.actor_of(0, "k").expect("an actor");
        let ahead: VersionVector = [Dot { actor: used.actor, counter: used.next + 1 }].into_iter().collect();
        cluster.ask_put(0, Put { w: Some(Quorum::Count(3)), ..put("k", "b", 2) });
        let (from, _, envelope) = cluster.wire.pop_front().expect("a replicate");
        let PeerBody::Replicate(mut message) = envelope.body.clone() else { panic!("a replicate") };
        let (peer, id) = (cluster.nodes[1].id, cluster.nodes[0].id);
        assert_eq!(from, id);
        let op = message.op.take().expect("an answer is wanted");
        let body = if by_answer {
            let outcome = Ok(Absorbed::Superseded(ahead));
            PeerBody::Replicated { op, layout: envelope.layout, bucket_version: 3, outcome, held: None }
        } else {
            let mut state = message.state.into_object();
            state.context.join(&ahead);
            message.state = state.into();
            PeerBody::Replicate(message)
        };
        cluster.event(0, Event::Peer(peer, PeerEnvelope { body, ..envelope }));
        assert_eq!(ended(&cluster), 1, "by answer: {by_answer}");
        assert_ne!(actor(&cluster, 0), Some(used.actor));
    }
}

#[test]
pub(crate) fn a_write_on_an_old_disk_is_not_swallowed_by_what_a_read_shows() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "b", 2));
    // The old disk comes back while no peer can object; then a create reads from them.
    cluster.cut(0);
    cluster.restart(0, false, old);
    let read = cluster.get(0, get("k"));
    assert_eq!(read.siblings.len(), 2);
    cluster.put(0, with(&read.context, put("k", "c", 3)));
    assert_eq!((contents(&cluster, 0), contents(&cluster, 1)), (1, 1));
}

#[test]
pub(crate) fn a_copy_that_cannot_be_read_ends_the_tenure_once() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let before = actor(&cluster, 0);
    cluster.nodes[0].store.damaged.insert(object_id("k").store_key());
    // Nobody is there whose copy could take its place.
    cluster.cut(0);
    let one = |put| Put { w: Some(Quorum::Count(1)), ..put };
    let neighbour = neighbour(&cluster);
    for round in 0..10 {
        assert_eq!(cluster.refused(0, one(put("k", "b", 10 + round))), ErrorCode::Damaged);
        cluster.put(0, one(put(&neighbour, "goes on", 20 + round)));
    }
    assert_eq!(ended(&cluster), 1, "a damaged key that is often read must not cost an actor each time");
    assert_ne!(actor(&cluster, 0), before);
    cluster.nodes[0].store.damaged.clear();
    cluster.put(0, one(put("k", "c", 30)));
    cluster.nodes[0].store.damaged.insert(object_id("k").store_key());
    assert_eq!(cluster.refused(0, one(put("k", "d", 31))), ErrorCode::Damaged);
    assert_eq!(ended(&cluster), 2, "damaged anew, with writes of the new actor in it");
}

/// Another key of the partition of `k`.
fn neighbour(cluster: &Cluster) -> String {
    let layout = cluster.view.layout();
    let partition = layout.partition(&object_id("k"));
    let mut keys = (0..).map(|at| format!("neighbour {at}"));
    keys.find(|key| layout.partition(&object_id(key)) == partition).expect("some key falls there")
}

fn rows(cluster: &Cluster, node: usize, kind: u8) -> usize {
    let pinned = cluster.nodes[node].store.rows.keys().filter(|(space, key)| *space == Space::Pinned && key[0] == kind);
    pinned.count()
}

/// A node whose disk has gone back behind two writes that its peers have seen, and takes no writes. They object, so the
/// tenure has ended; the end could not be written down.
fn an_old_disk_that_takes_no_writes(writes: Writes) -> (Cluster, String) {
    let mut cluster =
        Cluster::new(3, BucketProps { r: Quorum::Count(1), w: Quorum::Count(1), ..BucketProps::default() });
    let neighbour = neighbour(&cluster);
    cluster.put(0, put("k", "a", 1));
    let mut old = cluster.nodes[0].store.clone();
    cluster.put(0, put(&neighbour, "x", 2));
    let read = cluster.get(1, get(&neighbour));
    cluster.put(1, with(&read.context, put(&neighbour, "y", 3)));
    old.writes = writes;
    cluster.restart(0, false, old);
    assert!(ended(&cluster) > 0, "the peers object");
    assert_eq!((actor(&cluster, 0), rows(&cluster, 0, b'a')), (None, 1), "the end is in memory only");
    (cluster, neighbour)
}

/// The node is started again without a peer in reach, and asked to write the key that it had written last: the dot must
/// be a new one.
fn nothing_is_minted_twice(mut cluster: Cluster, neighbour: &str) {
    cluster.nodes[0].store.writes = Writes::Work;
    let disk = cluster.nodes[0].store.clone();
    cluster.restart_heard(0, false, disk, false);
    let number = cluster.ask_put(0, put(neighbour, "new", 77));
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert!(!cluster.alarms.iter().any(|alarm| matches!(alarm, Alarm::OneDotTwoValues { .. })), "{:?}", cluster.alarms);
    cluster.pass(1);
    let values = cluster.get(1, Get { r: Some(Quorum::Count(2)), ..get(neighbour) }).siblings;
    assert!(values.iter().any(|sibling| sibling.value == "new"), "acknowledged, and lost: {values:?}");
}

#[test]
pub(crate) fn an_end_that_a_full_or_busy_disk_did_not_take_is_written_when_it_can_be() {
    for writes in [Writes::Full, Writes::Busy] {
        let (mut cluster, neighbour) = an_old_disk_that_takes_no_writes(writes);
        assert!(cluster.nodes[0].shard.owes_ends());
        let start = cluster.nodes[0].shard.start();
        cluster.nodes[0].store.writes = Writes::Work;
        cluster.pass(1_001);
        assert_eq!(rows(&cluster, 0, b'a'), 0, "upkeep has written it");
        assert!(!cluster.nodes[0].shard.owes_ends());
        let disk = cluster.nodes[0].store.clone();
        cluster.restart_heard(0, false, disk, false);
        assert_eq!(cluster.nodes[0].shard.start(), start, "so is the start id that goes with it");
        nothing_is_minted_twice(cluster, &neighbour);
    }
}

#[test]
pub(crate) fn nothing_is_minted_for_a_partition_whose_end_is_owed() {
    let (mut cluster, neighbour) = an_old_disk_that_takes_no_writes(Writes::Full);
    assert_eq!(cluster.refused(0, put(&neighbour, "b", 10)), ErrorCode::DiskFull);
    // A further reason to end what has ended is not a further end, and does not make the first one forgotten.
    let before = ended(&cluster);
    let seen = VersionVector::from_iter([Dot { actor: ActorId(9), counter: 4 }]);
    let token = contexts().seal(&object_id(&neighbour), &seen);
    assert_eq!(cluster.refused(0, with(&token, put(&neighbour, "b", 11))), ErrorCode::DiskFull);
    assert_eq!(ended(&cluster), before);
    cluster.nodes[0].store.writes = Writes::Work;
    // The first change that is taken brings the end with it, whatever it is about.
    let far = (0..).map(|at| format!("far {at}")).find(|key| {
        let layout = cluster.view.layout();
        layout.partition(&object_id(key)) != layout.partition(&object_id("k"))
    });
    cluster.put(0, put(&far.expect("some key falls elsewhere"), "c", 12));
    assert!(!cluster.nodes[0].shard.owes_ends());
    nothing_is_minted_twice(cluster, &neighbour);
}

/// The end was never written, because the process was killed first. What the peers have seen was.
#[test]
pub(crate) fn a_start_ends_an_actor_of_which_more_was_observed() {
    let (mut cluster, neighbour) = an_old_disk_that_takes_no_writes(Writes::Full);
    let lost_end: Vec<_> =
        cluster.nodes[0].store.rows.clone().into_iter().filter(|((_, key), _)| matches!(key[0], b'a' | b's')).collect();
    cluster.nodes[0].store.writes = Writes::Work;
    cluster.pass(1_001);
    assert!(rows(&cluster, 0, b'o') > 0);
    cluster.nodes[0].store.rows.extend(lost_end);
    assert_eq!(rows(&cluster, 0, b'a'), 1);
    nothing_is_minted_twice(cluster, &neighbour);
}

/// Nothing was written down at all; but a read repair had brought the copy up to date before the disk went back in its
/// small rows.
#[test]
pub(crate) fn a_stored_copy_that_has_seen_more_ends_the_tenure() {
    let mut cluster =
        Cluster::new(3, BucketProps { r: Quorum::Count(1), w: Quorum::Count(1), ..BucketProps::default() });
    cluster.put(0, put("k", "a", 1));
    let used = cluster.actor_of(0, "k").expect("an actor");
    let rows_then = cluster.nodes[0].store.rows.clone();
    for number in 2..6 {
        let read = cluster.get(0, get("k"));
        cluster.put(0, with(&read.context, put("k", &format!("v{number}"), number)));
    }
    let mut disk = cluster.nodes[0].store.clone();
    disk.rows.retain(|(space, _), _| *space == Space::Objects);
    disk.rows.extend(rows_then.into_iter().filter(|((space, _), _)| *space == Space::Pinned));
    cluster.restart_heard(0, false, disk, false);
    assert_eq!(cluster.put(0, put("k", "new", 77)).outcome, PutOutcome::Stored);
    assert_ne!(actor(&cluster, 0), Some(used.actor));
    assert_eq!(contents(&cluster, 1), 2, "the new value stands beside the one it has not seen");
}

#[test]
pub(crate) fn a_start_on_a_full_disk_reads_and_owes_what_it_cannot_write() {
    for writes in [Writes::Full, Writes::Busy] {
        let mut cluster = three();
        cluster.put(0, put("k", "a", 1));
        let mut disk = cluster.nodes[0].store.clone();
        disk.writes = writes;
        cluster.restart(0, true, disk);
        assert_eq!((actor(&cluster, 0), rows(&cluster, 0, b'a')), (None, 1));
        assert!(cluster.nodes[0].shard.owes_ends(), "the next start must be told again that data was lost");
        assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"a"[..]));
        cluster.nodes[0].store.writes = Writes::Work;
        cluster.pass(1_001);
        assert_eq!(rows(&cluster, 0, b'a'), 0);
        assert!(!cluster.nodes[0].shard.owes_ends());
    }
}

/// A context shows that the copy of a key is older than its actor, and the actor has used the counters again since: no
/// peer objects, and nothing of the end can be written. The shell alone can tell the next start.
#[test]
pub(crate) fn an_end_that_only_a_client_knew_of_is_owed_across_a_stop() {
    for told in [true, false] {
        let mut cluster =
            Cluster::new(3, BucketProps { r: Quorum::Count(1), w: Quorum::Count(1), ..BucketProps::default() });
        let neighbour = neighbour(&cluster);
        cluster.put(0, put(&neighbour, "x", 1));
        let old = cluster.nodes[0].store.clone();
        cluster.put(0, put("k", "acknowledged", 2));
        cluster.restart_heard(0, false, old, false);
        (3..6).for_each(|number| assert_eq!(cluster.put(0, put(&neighbour, "y", number)).outcome, PutOutcome::Stored));
        let used = actor(&cluster, 0);
        let token = contexts().seal(&object_id("k"), &cluster.stored(1, "k").context);
        cluster.nodes[0].store.writes = Writes::Full;
        assert_eq!(cluster.refused(0, with(&token, put("k", "refused", 6))), ErrorCode::DiskFull);
        assert_eq!((ended(&cluster), rows(&cluster, 0, b'a')), (1, 1), "the end is in memory only");
        let owes_ends = cluster.nodes[0].shard.owes_ends();
        let mut disk = cluster.nodes[0].store.clone();
        disk.writes = Writes::Work;
        cluster.restart(0, told && owes_ends, disk);
        assert_eq!((ended(&cluster), actor(&cluster, 0) == used), (1, !told), "no peer objects");
        assert_eq!(cluster.put(0, put("k", "new", 7)).outcome, PutOutcome::Stored);
        assert_eq!(
            contents(&cluster, 1),
            if told { 2 } else { 1 },
            "the actor that came back destroys what was acknowledged"
        );
    }
}

/// A hello is read some time after it was written. What has happened in between is no sign of an old disk.
#[test]
pub(crate) fn a_stale_announcement_does_not_end_a_sound_tenure() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let (zero, two) = (cluster.nodes[0].id, cluster.nodes[2].id);
    cluster.event(0, Event::PeerDown(two));
    cluster.event(2, Event::PeerDown(zero));
    // Node 0 writes its hello, and goes on: a write reaches node 1, and one that follows from it node 2, before that
    // one has the hello.
    let announced = cluster.nodes[0].shard.actors();
    let read = cluster.get(0, get("k"));
    cluster.put(0, with(&read.context, put("k", "b", 2)));
    let read = cluster.get(1, get("k"));
    cluster.put(1, with(&read.context, put("k", "c", 3)));
    let (before, start) = (cluster.actor_of(0, "k"), cluster.nodes[0].shard.start());
    cluster.event(2, Event::PeerActors(zero, announced));
    assert!(
        cluster.wire.iter().any(|(_, _, envelope)| matches!(envelope.body, PeerBody::Observed { .. })),
        "node 2 objects"
    );
    cluster.deliver();
    assert_eq!((cluster.actor_of(0, "k"), cluster.nodes[0].shard.start(), ended(&cluster)), (before, start, 0));
}

#[test]
pub(crate) fn a_cloned_disk_that_minted_the_same_dot_keeps_both_values_and_alarms() {
    let mut cluster = three();
    cluster.put(0, put("warm", "x", 1));
    cluster.put(0, put("k", "a", 2));
    let mut twin = three();
    twin.put(0, put("warm", "x", 1));
    twin.put(0, put("k", "b", 2));
    assert_eq!(actor(&cluster, 0), actor(&twin, 0), "the same seed stands for the same disk");
    let state = twin.stored(1, "k");
    cluster.ask_put(0, put("k", "c", 3));
    let (from, _, envelope) = cluster.wire.pop_front().expect("a replicate");
    let PeerBody::Replicate(mut message) = envelope.body.clone() else { panic!("a replicate") };
    (message.state, message.op) = (state.into(), None);
    let envelope = PeerEnvelope { body: PeerBody::Replicate(message), ..envelope };
    cluster.event(1, Event::Peer(from, envelope));
    assert!(cluster.alarms.iter().any(|alarm| matches!(alarm, Alarm::OneDotTwoValues { .. })));
    assert_eq!(contents(&cluster, 1), 2);
}

#[test]
pub(crate) fn a_stray_objection_changes_nothing() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let announced = cluster.actor_of(0, "k").expect("an actor");
    let mut stranger = announced;
    stranger.actor = ActorId(1);
    let (peer, layout) = (cluster.nodes[1].id, cluster.view.layout_name());
    for (actor, counter) in [(announced, announced.next - 1), (stranger, 99)] {
        let body = PeerBody::Observed { actor, counter };
        cluster.event(0, Event::Peer(peer, PeerEnvelope { layout, trace: 0, body }));
    }
    assert_eq!(cluster.actor_of(0, "k"), Some(announced));
}

#[test]
pub(crate) fn a_new_disk_is_a_new_node() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let start = cluster.nodes[0].shard.start();
    cluster.restart(0, false, Memory::default());
    assert_ne!(cluster.nodes[0].shard.start(), start);
    cluster.put(0, put("k", "b", 2));
    assert_eq!(contents(&cluster, 1), 2);
}

/// Operations are numbered in memory only, and an acknowledgement that waits for a slow disk outlives the process that
/// it is for.
#[test]
pub(crate) fn an_answer_to_what_was_asked_before_a_restart_answers_nothing_after_it() {
    let mut cluster = three();
    cluster.nodes[1].syncing = false;
    cluster.nodes[2].syncing = false;
    cluster.ask_put(0, put("k", "before", 1));
    cluster.deliver();
    let disk = cluster.nodes[0].store.clone();
    cluster.restart(0, false, disk);
    let number = cluster.ask_put(0, put("other", "after", 2));
    cluster.wire.clear();
    for owner in [1, 2] {
        cluster.nodes[owner].syncing = true;
        cluster.sync(owner);
    }
    cluster.deliver();
    assert_eq!((contents_of(&cluster, 1, "other"), contents_of(&cluster, 2, "other")), (0, 0));
    assert!(
        !cluster.replies.contains_key(&number),
        "nobody but the coordinator has the write, and it was acknowledged"
    );
}

fn contents_of(cluster: &Cluster, node: usize, key: &str) -> usize {
    cluster.stored(node, key).entries.len()
}
