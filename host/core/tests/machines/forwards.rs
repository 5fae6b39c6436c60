//! Requests at a node that does not own the key: to whom they are forwarded, and what becomes of a slow owner.

use rejoin_core::members::Liveness;
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{Get, Put, PutOutcome};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, NodeId};

use crate::contacts::unsent;
use crate::sloppy::{five, wait};
use crate::support::cluster::Cluster;
use crate::support::{get, node, put};

/// The nodes to which requests are on their way.
fn forwarded(cluster: &Cluster) -> Vec<NodeId> {
    let is_forward = |body: &PeerBody| matches!(body, PeerBody::Forward(_));
    cluster.wire.iter().filter(|(.., envelope)| is_forward(&envelope.body)).map(|(_, to, _)| *to).collect()
}

/// Five nodes, of which the last two own nothing of a key that is written.
fn written() -> (Cluster, Vec<usize>) {
    let (mut cluster, nodes) = five();
    cluster.put(nodes[0], put("k", "a", 1));
    (cluster, nodes)
}

#[test]
pub(crate) fn a_read_that_was_forwarded_to_a_slow_owner_is_forwarded_to_the_next_one_too() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_get(nodes[4], get("k"));
    wait(&mut cluster, nodes[4], 400);
    assert_eq!(forwarded(&cluster), [node(nodes[0])], "nothing is known of its answers yet");
    wait(&mut cluster, nodes[4], 150);
    assert_eq!(forwarded(&cluster), [nodes[0], nodes[1]].map(node));
    cluster.deliver_without(nodes[0]);
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a"[..]), "long before the deadline");
    cluster.deliver();
    assert!(cluster.replies.is_empty(), "the late answer is no second one");
}

#[test]
fn the_answer_of_a_slow_owner_counts_if_it_comes_first() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_get(nodes[4], get("k"));
    let slow = node(nodes[0]);
    cluster.event(nodes[4], Event::Liveness(slow, Liveness::Down));
    assert_eq!(forwarded(&cluster), [nodes[0], nodes[1]].map(node), "at once where it is taken for down");
    cluster.deliver_without(nodes[1]);
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a"[..]));
}

#[test]
fn a_read_that_no_owner_answers_ends_at_its_deadline() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_get(nodes[4], get("k"));
    (0..9).for_each(|_| wait(&mut cluster, nodes[4], 100));
    assert_eq!(forwarded(&cluster).len(), 3, "each owner is asked once");
    assert!(!cluster.replies.contains_key(&number));
    wait(&mut cluster, nodes[4], 150);
    assert_eq!(cluster.error(number).code, ErrorCode::TimedOut);
}

#[test]
fn a_read_whose_owner_is_lost_is_forwarded_to_the_next_one() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_get(nodes[4], get("k"));
    cluster.cut(nodes[0]);
    assert_eq!(forwarded(&cluster), [node(nodes[1])]);
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a"[..]));
    let number = cluster.ask_get(nodes[4], get("k"));
    cluster.cut(nodes[1]);
    cluster.cut(nodes[2]);
    assert_eq!(cluster.error(number).code, ErrorCode::TimedOut, "none is left");
}

/// The owner that was asked may have minted a dot. A second one would mint another.
#[test]
fn a_write_is_forwarded_to_one_owner_however_slow_it_is() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_put(nodes[4], put("k", "b", 2));
    let slow = node(nodes[0]);
    for liveness in [Liveness::Suspect, Liveness::Down] {
        cluster.event(nodes[4], Event::Liveness(slow, liveness));
        wait(&mut cluster, nodes[4], 300);
        assert_eq!(forwarded(&cluster), [slow]);
    }
    cluster.cut(nodes[0]);
    assert_eq!((forwarded(&cluster), cluster.error(number).code), (vec![], ErrorCode::Unknown));
}

/// An owner that has refused has done nothing.
#[test]
pub(crate) fn what_an_owner_refuses_that_is_starting_goes_to_the_next_one() {
    let (mut cluster, nodes) = written();
    for at in &nodes[..2] {
        let store = cluster.nodes[*at].store.clone();
        cluster.start_without_serving(*at, store);
    }
    let get = |key| Get { r: Some(Quorum::Count(1)), ..get(key) };
    let (reads, writes) = (
        cluster.ask_get(nodes[4], get("k")),
        cluster.ask_put(nodes[4], Put { w: Some(Quorum::Count(1)), ..put("k", "b", 2) }),
    );
    assert_eq!(forwarded(&cluster), [node(nodes[0]); 2]);
    cluster.deliver();
    assert_eq!(cluster.get_reply(reads).value.as_deref(), Some(&b"a"[..]));
    assert_eq!(cluster.put_reply(writes).outcome, PutOutcome::Stored);
    let store = cluster.nodes[nodes[2]].store.clone();
    cluster.start_without_serving(nodes[2], store);
    let number = cluster.ask_put(nodes[4], put("k", "c", 3));
    cluster.deliver();
    assert_eq!(cluster.error(number).code, ErrorCode::NotServing, "all have refused it");
}

#[test]
fn what_was_not_sent_to_an_owner_goes_to_the_next_one() {
    let (mut cluster, nodes) = written();
    let (reads, writes) = (cluster.ask_get(nodes[4], get("k")), cluster.ask_put(nodes[4], put("k", "b", 2)));
    unsent(&mut cluster, nodes[4], nodes[0]);
    unsent(&mut cluster, nodes[4], nodes[0]);
    assert_eq!(forwarded(&cluster), [node(nodes[1]); 2]);
    cluster.deliver();
    assert_eq!(cluster.put_reply(writes).outcome, PutOutcome::Stored);
    cluster.get_reply(reads);
}

#[test]
fn an_error_of_one_owner_waits_for_the_answer_of_another() {
    let (mut cluster, nodes) = written();
    let number = cluster.ask_get(nodes[4], get("k"));
    // Its answer finds no room, and it says so.
    while cluster.deliver_one(|_, _, body| !matches!(body, PeerBody::ForwardReply { .. })) {}
    cluster.event(nodes[4], Event::Liveness(node(nodes[0]), Liveness::Down));
    unsent(&mut cluster, nodes[0], nodes[4]);
    assert!(cluster.deliver_one(|_, _, body| matches!(body, PeerBody::ForwardReply { .. })));
    assert!(!cluster.replies.contains_key(&number));
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a"[..]));
}
