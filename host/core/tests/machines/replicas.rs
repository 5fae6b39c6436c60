//! A replica that is not what it was: an old disk that no peer could name, and an empty one in the place of a full one.

use rejoin_proto::ErrorCode;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Get, PutOutcome};

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{get, put, with};

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
