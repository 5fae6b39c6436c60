//! Whom a shard asks first, and what it tells of its requests to peers.

use rejoin_core::members::{Liveness, Requests};
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Get, PutOutcome};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, NodeId};

use crate::support::cluster::Cluster;
use crate::support::{get, node, put};

fn cluster(nodes: usize, w: Quorum) -> Cluster {
    Cluster::new(nodes, BucketProps { w, ..BucketProps::default() })
}

/// What a node has last told of its requests to another one.
pub(crate) fn told(cluster: &mut Cluster, by: usize, of: NodeId) -> Option<Requests> {
    cluster.pass(200);
    let told = cluster.requests.iter().rev().find(|(at, _)| *at == by).map(|(_, told)| told.clone());
    cluster.requests.clear();
    told?.into_iter().find(|(peer, _)| *peer == of).map(|(_, requests)| requests)
}

#[test]
pub(crate) fn a_node_that_is_down_stays_an_owner_and_counts() {
    let mut cluster = cluster(3, Quorum::Count(3));
    for at in 0..3 {
        let other = node((at + 1) % 3);
        cluster.event(at, Event::Liveness(other, Liveness::Down));
    }
    let reply = cluster.put(0, put("k", "v", 1));
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 3), "it was asked, and its answer counts");
    assert_eq!(cluster.stored(1, "k").entries.len(), 1);
}

#[test]
fn reads_ask_those_that_answer_first() {
    let mut cluster = cluster(5, Quorum::Majority);
    let owners = cluster.owners("k");
    let ids: Vec<NodeId> = owners.iter().map(|at| node(*at)).collect();
    cluster.event(owners[0], Event::Liveness(ids[1], Liveness::Suspect));
    let asked = |cluster: &mut Cluster| {
        cluster.ask_get(owners[0], get("k"));
        let reads = cluster.wire.iter().filter(|(.., envelope)| matches!(envelope.body, PeerBody::Read { .. }));
        let asked: Vec<NodeId> = reads.map(|(_, to, _)| *to).collect();
        cluster.deliver();
        asked
    };
    assert_eq!(asked(&mut cluster), [ids[2], ids[1]]);
    cluster.event(owners[0], Event::Liveness(ids[1], Liveness::Alive));
    assert_eq!(asked(&mut cluster), [ids[1], ids[2]]);
}

#[test]
fn a_request_is_forwarded_to_the_first_owner_that_answers() {
    let mut cluster = cluster(5, Quorum::Majority);
    let owners = cluster.owners("k");
    let (stranger, first, second) = (owners[4], node(owners[0]), node(owners[1]));
    let forwarded = |cluster: &mut Cluster| {
        cluster.ask_get(stranger, get("k"));
        let to = cluster.wire.back().map(|(_, to, _)| *to);
        cluster.deliver();
        to
    };
    assert_eq!(forwarded(&mut cluster), Some(first));
    cluster.event(stranger, Event::Liveness(first, Liveness::Suspect));
    assert_eq!(forwarded(&mut cluster), Some(second));
    for owner in &owners[1..3] {
        cluster.event(stranger, Event::Liveness(node(*owner), Liveness::Down));
    }
    assert_eq!(forwarded(&mut cluster), Some(first), "a suspect rather than one that is down");
}

#[test]
fn answers_open_requests_and_late_ones_are_told() {
    let mut cluster = cluster(3, Quorum::Majority);
    cluster.pass(1_000);
    cluster.requests.clear();
    let asked_us = cluster.now_ms * 1_000;
    cluster.ask_put(0, put("k", "v", 1));
    cluster.now_ms += 30;
    cluster.deliver_without(2);
    assert_eq!(cluster.replies.len(), 1, "W was reached without the third");
    let kept: Vec<_> = cluster.wire.drain(..).collect();
    let waiting = Requests { answered_after_us: None, waiting_since_us: Some(asked_us) };
    assert_eq!(
        told(&mut cluster, 0, node(1)),
        Some(Requests { answered_after_us: Some(30_000), waiting_since_us: None })
    );
    assert_eq!(told(&mut cluster, 0, node(2)), Some(waiting), "the operation has ended, and the answer is still owed");
    cluster.wire.extend(kept);
    cluster.deliver();
    let took_us = cluster.now_ms * 1_000 - asked_us;
    assert_eq!(
        told(&mut cluster, 0, node(2)),
        Some(Requests { answered_after_us: Some(took_us), waiting_since_us: None })
    );
    assert_eq!(told(&mut cluster, 0, node(2)), None, "nothing is open");
}

#[test]
fn an_answer_that_never_comes_is_given_up_and_that_is_told_once() {
    let mut cluster = cluster(3, Quorum::Count(3));
    cluster.pass(1_000);
    cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver_without(2);
    cluster.wire.clear();
    let mut last = None;
    while let Some(requests) = told(&mut cluster, 0, node(2)) {
        last = Some(requests);
        assert!(cluster.now_ms < 10_000, "it is told for ever");
    }
    assert_eq!(last, Some(Requests::default()));
    assert!(cluster.now_ms > 5_000, "the deadline alone does not end it");
}

/// Takes the first message to a node off the wire and tells its sender that it was not sent.
pub(crate) fn unsent(cluster: &mut Cluster, from: usize, to: usize) {
    let at = cluster.wire.iter().position(|(by, peer, _)| (*by, *peer) == (node(from), node(to))).expect("a message");
    let (_, peer, envelope) = cluster.wire.remove(at).expect("it was found");
    cluster.event(from, Event::NotSent(peer, Box::new(envelope.body)));
}

#[test]
pub(crate) fn what_could_not_be_sent_is_not_waited_for() {
    let mut cluster = cluster(3, Quorum::Count(3));
    let number = cluster.ask_put(0, put("k", "v", 1));
    unsent(&mut cluster, 0, 2);
    let reply = cluster.put_reply(number);
    assert_eq!(
        (reply.outcome, reply.needed),
        (PutOutcome::Unknown, 3),
        "W cannot be reached, and that is said at once"
    );
    cluster.deliver();
    // A read that has enough without it goes on, and one that has not ends.
    let number = cluster.ask_get(0, get("k"));
    unsent(&mut cluster, 0, 2);
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).answered.len(), 2);
    let number = cluster.ask_get(0, Get { r: Some(Quorum::Count(3)), ..get("k") });
    unsent(&mut cluster, 0, 1);
    let error = cluster.error(number);
    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
}

/// The answers of reads carry values, so they are those that find no room.
#[test]
fn an_answer_that_could_not_be_sent_is_not_waited_for() {
    let mut three = cluster(3, Quorum::Count(3));
    three.put(0, put("k", "v", 1));
    let number = three.ask_get(0, Get { r: Some(Quorum::Count(3)), ..get("k") });
    while three.deliver_one(|_, _, body| matches!(body, PeerBody::Read { .. })) {}
    unsent(&mut three, 1, 0);
    three.deliver();
    let error = three.error(number);
    assert_eq!((error.code, three.now_ms), (ErrorCode::Unavailable, 0), "{error:?}");
    assert!(error.to_string().contains("overloaded"), "{error}");

    let mut five = cluster(5, Quorum::Majority);
    let owners = five.owners("k");
    five.put(owners[0], put("k", "v", 1));
    let number = five.ask_get(owners[4], get("k"));
    while five.deliver_one(|_, _, body| !matches!(body, PeerBody::ForwardReply { .. })) {}
    unsent(&mut five, owners[0], owners[4]);
    five.deliver();
    assert_eq!(five.error(number).code, ErrorCode::Overloaded);
}

#[test]
fn a_request_that_could_not_be_forwarded_may_be_tried_again() {
    let mut cluster = cluster(5, Quorum::Majority);
    let owners = cluster.owners("k");
    let number = cluster.ask_put(owners[4], put("k", "v", 1));
    for owner in &owners[..3] {
        assert!(!cluster.replies.contains_key(&number));
        unsent(&mut cluster, owners[4], *owner);
    }
    let error = cluster.error(number);
    assert_eq!(error.code, ErrorCode::Overloaded, "nothing was done: {error:?}");
    assert!(cluster.wire.is_empty());
}
