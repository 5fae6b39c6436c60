//! A replica that is not what it was: an old disk that no peer could name, and an empty one in the place of a full one.

use rejoin_core::shard::event::Event;
use rejoin_proto::ErrorCode;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Get, Put, PutOutcome};
use rejoin_proto::peer::PeerBody;

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{get, object_id, put, with};

fn three() -> Cluster {
    Cluster::new(3, BucketProps::default())
}

#[test]
pub(crate) fn a_start_that_has_not_met_every_peer_takes_new_actors() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    let before = cluster.actor_of(0, "k").expect("an actor");
    cluster.put(0, put("k", "b", 2));
    cluster.start_alone(0, old);
    assert_eq!(cluster.actor_of(0, "k"), None, "a peer might have seen counter 2");
    let disk = cluster.nodes[0].store.clone();
    cluster.restart(0, false, disk);
    assert_eq!(cluster.actor_of(0, "k"), None, "the end was written");
    cluster.put(0, put("k", "c", 3));
    assert_ne!(cluster.actor_of(0, "k").map(|actor| actor.actor), Some(before.actor));
    assert_eq!(cluster.stored(1, "k").entries.len(), 3, "nothing took the place of another write");
}

#[test]
pub(crate) fn superseded_by_later_writes_of_the_minting_actor_is_no_acknowledgement() {
    let mut cluster = three();
    let mut context = cluster.put(0, put("k", "a", 1)).context;
    let old = cluster.nodes[0].store.clone();
    for number in 2..5 {
        context = cluster.put(0, with(&context, put("k", "later", number))).context;
    }
    cluster.restart_heard(0, false, old, false);
    let reply = cluster.put(0, put("k", "on an old disk", 9));
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Unknown, 1), "both peers have dropped it");
    let retried = cluster.put(0, put("k", "under a new actor", 10));
    assert_eq!(retried.outcome, PutOutcome::Stored, "the tenure has ended");
}

/// While a write waits for its owners, a damaged copy of another key ends the tenure that it was minted in.
#[test]
fn superseded_counts_although_the_tenure_has_ended_for_another_reason() {
    let mut cluster = three();
    let layout = cluster.view.layout().clone();
    let partition = |key: &str| layout.partition(&object_id(key));
    let other = (0..)
        .map(|at| format!("other {at}"))
        .find(|key| partition(key) == partition("k"))
        .expect("there are many keys");
    let (coordinator, owner) = (cluster.nodes[0].id, cluster.nodes[1].id);
    let number = cluster.ask_put(0, put("k", "a", 1));
    let (_, _, replicate) =
        cluster.wire.iter().find(|(_, to, _)| *to == owner).cloned().expect("it is sent to all owners");
    cluster.event(1, Event::Peer(coordinator, replicate.clone()));
    cluster.wire.clear();
    // The owner's answer is lost, and the write is overwritten there before it comes a second time.
    let alone = |put: Put| Put { w: Some(Quorum::Count(1)), ..put };
    let read = cluster.ask_get(1, Get { r: Some(Quorum::Count(1)), ..get("k") });
    let context = cluster.get_reply(read).context;
    let overwrite = cluster.ask_put(1, alone(with(&context, put("k", "b", 2))));
    assert_eq!(cluster.put_reply(overwrite).outcome, PutOutcome::Stored);
    cluster.wire.clear();
    cluster.nodes[0].store.damaged.insert(object_id(&other).store_key());
    cluster.ask_get(0, get(&other));
    assert_eq!(cluster.actor_of(0, "k"), None, "the tenure has ended");
    cluster.event(1, Event::Peer(coordinator, replicate));
    cluster.deliver_one(|from, _, body| from == owner && matches!(body, PeerBody::Replicated { .. }));
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn an_empty_disk_in_the_place_of_a_full_one_does_not_count_towards_r() {
    let mut cluster = three();
    let number = cluster.ask_put(0, put("k", "a", 1));
    cluster.deliver_without(2);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    cluster.wire.clear();
    cluster.nodes[0].config.replaced = true;
    cluster.restart(0, false, Memory::default());

    // Node 1 has the only copy, and is away: two empty answers are not an answer.
    cluster.cut(1);
    for reader in [0, 2] {
        let number = cluster.ask_get(reader, get("k"));
        cluster.deliver();
        assert_eq!(cluster.error(number).code, ErrorCode::Unavailable);
    }
    let number = cluster.ask_get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value, None, "node 2 has answered, and r = 1 asks no more");

    cluster.heal(1);
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"a"[..]));
    cluster.deliver();
    assert_eq!(cluster.stored(0, "k").entries.len(), 1, "it is repaired all the same");
}
