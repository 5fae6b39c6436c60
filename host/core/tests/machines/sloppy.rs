//! Sloppy quorums: fallbacks in the place of owners, and what a read makes of them.

use rejoin_core::members::Liveness;
use rejoin_core::shard::event::Event;
use rejoin_proto::ErrorCode;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Basis, Get, GetReply, Put, PutOutcome, StartId};
use rejoin_proto::peer::PeerBody;

use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{delete, get, name, object_id, put, with};

/// Five nodes, of which the first three in a key's list own it.
pub(crate) fn five() -> (Cluster, Vec<usize>) {
    five_with(BucketProps::default())
}

pub(crate) fn five_with(props: BucketProps) -> (Cluster, Vec<usize>) {
    let cluster = Cluster::new(5, props);
    let nodes = cluster.owners("k");
    (cluster, nodes)
}

/// The same, with the third owner away.
pub(crate) fn without_the_third() -> (Cluster, Vec<usize>) {
    let (mut cluster, nodes) = five();
    cluster.cut(nodes[2]);
    (cluster, nodes)
}

/// All owners go away.
pub(crate) fn cut_owners(cluster: &mut Cluster, nodes: &[usize]) {
    nodes[..3].iter().for_each(|owner| cluster.cut(*owner));
}

/// All owners are back.
pub(crate) fn heal_owners(cluster: &mut Cluster, nodes: &[usize]) {
    nodes[..3].iter().for_each(|owner| cluster.heal(*owner));
}

pub(crate) fn w(count: u8, put: Put) -> Put {
    Put { w: Some(Quorum::Count(count)), ..put }
}

fn r(count: u8, get: Get) -> Get {
    Get { r: Some(Quorum::Count(count)), ..get }
}

/// Cuts a node from all others but one.
fn cut_but_from(cluster: &mut Cluster, node: usize, friend: usize) {
    (0..cluster.nodes.len())
        .filter(|other| *other != node && *other != friend)
        .for_each(|other| cluster.sever(node, other));
}

pub(crate) fn holders(cluster: &Cluster) -> Vec<usize> {
    (0..cluster.nodes.len()).filter(|at| cluster.nodes[*at].shard.holdings() > 0).collect()
}

/// Another key of the partition of "k".
pub(crate) fn neighbour(cluster: &Cluster) -> String {
    let partition = |key: &str| cluster.view.layout().partition(&object_id(key));
    (0..).map(|at| format!("key {at}")).find(|key| partition(key) == partition("k")).expect("few partitions")
}

fn value(reply: &GetReply) -> Option<&[u8]> {
    reply.value.as_deref()
}

#[test]
fn a_fallback_takes_a_write_in_the_place_of_an_owner_that_is_away() {
    let (mut cluster, nodes) = without_the_third();
    let reply = cluster.put(nodes[0], w(3, put("k", "a", 1)));
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 3));
    assert_eq!(holders(&cluster), [nodes[3]], "the next node of the walk, and it knows that it is no owner");
    assert!(cluster.agrees("k", &[nodes[0], nodes[1], nodes[3]]));
}

#[test]
pub(crate) fn a_strict_bucket_uses_no_fallback_and_answers_before_anything_is_minted() {
    let (mut cluster, nodes) = five_with(BucketProps { sloppy: false, ..BucketProps::default() });
    cluster.cut(nodes[2]);
    assert_eq!(cluster.refused(nodes[0], w(3, put("k", "a", 1))), ErrorCode::Unavailable);
    assert!(cluster.wire.is_empty() && cluster.actor_of(nodes[0], "k").is_none());
    cluster.cut(nodes[0]);
    cluster.cut(nodes[1]);
    assert_eq!(cluster.refused(nodes[3], w(1, put("k", "a", 2))), ErrorCode::Unavailable);
    assert_eq!(holders(&cluster), [0; 0]);
}

#[test]
fn a_node_does_not_take_what_it_does_not_own_in_a_bucket_that_it_knows_to_be_strict() {
    let (mut cluster, nodes) = without_the_third();
    let strict = crate::support::bucket(BucketProps { sloppy: false, ..BucketProps::default() });
    let view = rejoin_core::view::ClusterView::new(
        cluster.view.layout().clone(),
        &[rejoin_proto::catalog::Record { version: 4, ..strict }],
    );
    cluster.event(nodes[3], Event::View(std::sync::Arc::new(view)));
    assert_eq!(cluster.put(nodes[0], w(3, put("k", "a", 1))).outcome, PutOutcome::Stored, "the next one takes it");
    assert_eq!(holders(&cluster), [nodes[4]]);
}

#[test]
pub(crate) fn a_fallback_counts_towards_w_and_not_towards_pw() {
    let (mut cluster, nodes) = without_the_third();
    let strict = Put { pw: Some(Quorum::Count(3)), ..put("k", "a", 1) };
    assert_eq!(cluster.refused(nodes[0], strict), ErrorCode::Unavailable);
    let two = Put { pw: Some(Quorum::Count(2)), ..w(3, put("k", "a", 2)) };
    assert_eq!(cluster.put(nodes[0], two).outcome, PutOutcome::Stored);
}

#[test]
fn an_owner_that_refuses_is_replaced_and_so_is_a_fallback_that_does() {
    let (mut cluster, nodes) = five();
    cluster.nodes[nodes[2]].store.writes = Writes::Full;
    cluster.nodes[nodes[3]].store.writes = Writes::Full;
    let reply = cluster.put(nodes[0], w(3, put("k", "a", 1)));
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 3));
    assert_eq!(holders(&cluster), [nodes[4]]);
}

#[test]
fn an_owner_whose_connection_is_lost_during_a_write_is_replaced() {
    let (mut cluster, nodes) = five();
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 1)));
    cluster.cut(nodes[2]);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

/// Lets time pass at one node. Nothing is delivered.
pub(crate) fn wait(cluster: &mut Cluster, at: usize, ms: u64) {
    cluster.now_ms += ms;
    cluster.event(at, Event::Tick);
}

#[test]
pub(crate) fn a_late_owner_is_relieved_by_a_fallback_in_time_and_gets_the_write_all_the_same() {
    let (mut cluster, nodes) = five();
    let asks = |cluster: &Cluster, at: usize| cluster.wire.iter().any(|(_, to, _)| *to == cluster.nodes[at].id);
    // Answers of the owner are quick.
    for request in 1..=20 {
        assert_eq!(cluster.put(nodes[0], w(3, put("k", "before", request))).outcome, PutOutcome::Stored);
    }
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 100)));
    cluster.deliver_without(nodes[2]);
    wait(&mut cluster, nodes[0], 50);
    assert!(!asks(&cluster, nodes[3]), "not late yet");
    wait(&mut cluster, nodes[0], 60);
    assert!(asks(&cluster, nodes[3]), "it usually answers sooner");
    // The fallback is late as well; nobody is asked twice.
    wait(&mut cluster, nodes[0], 500);
    assert!(asks(&cluster, nodes[4]), "half of the time that is left is over");
    cluster.deliver_without(nodes[2]);
    let reply = cluster.put_reply(number);
    assert_eq!((reply.outcome, reply.acked), (PutOutcome::Stored, 3), "two owners and a fallback");
    cluster.deliver();
    assert!(cluster.agrees("k", &nodes), "the owner was only late");
}

#[test]
fn a_suspected_owner_is_given_less_time_and_a_short_request_does_not_wait_for_long() {
    let (mut cluster, nodes) = five();
    let silent = cluster.nodes[nodes[2]].id;
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 1)));
    cluster.deliver_without(nodes[2]);
    wait(&mut cluster, nodes[0], 200);
    cluster.deliver_without(nodes[2]);
    assert!(!cluster.replies.contains_key(&number), "nothing is known of its answers yet");
    cluster.event(nodes[0], Event::Liveness(silent, Liveness::Suspect));
    wait(&mut cluster, nodes[0], 0);
    cluster.deliver_without(nodes[2]);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_late_owner_is_not_replaced_where_a_fallback_would_not_count() {
    let owners = Put { pw: Some(Quorum::Count(3)), ..w(2, put("k", "a", 1)) };
    let strict = BucketProps { sloppy: false, ..BucketProps::default() };
    for (props, put) in [(BucketProps::default(), owners), (strict, w(3, put("k", "b", 2)))] {
        let (mut cluster, nodes) = five_with(props);
        let number = cluster.ask_put(nodes[0], put);
        cluster.deliver_without(nodes[2]);
        wait(&mut cluster, nodes[0], 900);
        cluster.deliver_without(nodes[2]);
        assert_eq!(holders(&cluster), [0; 0]);
        cluster.deliver();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
}

#[test]
fn an_owner_that_has_been_silent_for_long_is_asked_along_with_a_fallback() {
    let (mut cluster, nodes) = five();
    let silent = cluster.nodes[nodes[2]].id;
    // During the write.
    let number = cluster.ask_put(nodes[0], w(3, put("k", "a", 1)));
    cluster.deliver_without(nodes[2]);
    assert!(!cluster.replies.contains_key(&number));
    cluster.event(nodes[0], Event::Liveness(silent, Liveness::Suspect));
    assert!(!cluster.wire.iter().any(|(_, to, _)| *to == cluster.nodes[nodes[3]].id), "late is not silent");
    cluster.event(nodes[0], Event::Liveness(silent, Liveness::Down));
    cluster.deliver_without(nodes[2]);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    // Before it.
    let number = cluster.ask_put(nodes[0], w(3, put("k", "b", 2)));
    let asked = cluster.wire.iter().filter(|(.., envelope)| matches!(envelope.body, PeerBody::Replicate(_))).count();
    assert_eq!(asked, 4, "the first one's message is still on its way, and the second goes to all three");
    cluster.deliver_without(nodes[2]);
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_fallback_coordinates_where_no_owner_is_in_reach() {
    let (mut cluster, nodes) = five();
    cut_owners(&mut cluster, &nodes);
    let first = cluster.put(nodes[3], w(2, put("k", "a", 1)));
    assert_eq!((first.outcome, first.acked), (PutOutcome::Stored, 2));
    let actor = cluster.actor_of(nodes[3], "k").expect("it mints as itself");
    cluster.put(nodes[3], w(2, with(&first.context, put("k", "b", 2))));
    assert_eq!(cluster.actor_of(nodes[3], "k").map(|next| next.actor), Some(actor.actor));
    for node in [nodes[3], nodes[4]] {
        assert_eq!(value(&cluster.get(node, r(2, get("k")))), Some(&b"b"[..]), "both copies count towards R");
    }
    let number = cluster.ask_get(nodes[4], Get { pr: Some(Quorum::Count(1)), ..get("k") });
    cluster.deliver();
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable, "and none towards PR");
}

/// The first attempt was forwarded to an owner, whose answer was lost. Where that owner is not in reach any more,
/// nobody can tell whether it was done.
#[test]
fn a_node_that_stands_in_does_not_repeat_what_it_had_forwarded() {
    let (mut cluster, nodes) = five();
    let start = StartId(cluster.nodes[nodes[3]].shard.start());
    let first = Put { start, ..put("k", "a", 1) };
    let number = cluster.ask_put(nodes[3], first.clone());
    cluster.deliver_one(|_, _, body| matches!(body, PeerBody::Forward(_)));
    assert!(!cluster.stored(nodes[0], "k").is_empty());
    cut_owners(&mut cluster, &nodes);
    assert_eq!(cluster.error(number).code, ErrorCode::Unknown);
    assert_eq!(cluster.refused(nodes[3], w(1, Put { attempt: 1, ..first })), ErrorCode::Unknown);
    assert!(cluster.stored(nodes[3], "k").is_empty());
    // What it has coordinated itself it recognises.
    let own = Put { start, ..put("k", "b", 2) };
    let stored = cluster.put(nodes[3], w(1, own.clone()));
    let again = cluster.put(nodes[3], w(1, Put { attempt: 1, ..own }));
    assert_eq!((again.outcome, again.context), (PutOutcome::Stored, stored.context));
    assert_eq!(cluster.stored(nodes[3], "k").entries.len(), 1);
}

/// The value was written while its owners were away, and has not been handed over yet.
fn written_at_a_fallback() -> (Cluster, Vec<usize>) {
    let (mut cluster, nodes) = five();
    cut_owners(&mut cluster, &nodes);
    cluster.put(nodes[3], w(1, put("k", "a", 1)));
    // The other fallback has nothing.
    cluster.restart(nodes[4], false, Default::default());
    heal_owners(&mut cluster, &nodes);
    (cluster, nodes)
}

#[test]
pub(crate) fn nothing_is_not_found_before_the_fallbacks_have_been_asked() {
    let (mut cluster, nodes) = written_at_a_fallback();
    assert_eq!(value(&cluster.get(nodes[0], r(1, get("k")))), Some(&b"a"[..]), "its own copy has nothing");
    let (mut cluster, nodes) = written_at_a_fallback();
    let number = cluster.ask_get(nodes[0], get("k"));
    cluster.deliver_without(nodes[3]);
    assert!(!cluster.replies.contains_key(&number), "R owners have nothing, and a fallback may have something");
    cluster.deliver();
    assert_eq!(value(&cluster.get_reply(number)), Some(&b"a"[..]));
    assert!(cluster.agrees("k", &nodes[..4]), "read repair goes to the owners");
}

#[test]
fn a_fallback_that_cannot_be_asked_is_named_beside_what_was_not_found() {
    let (mut cluster, nodes) = written_at_a_fallback();
    let away = name(&format!("n{}", nodes[3]));
    let number = cluster.ask_get(nodes[0], get("k"));
    cluster.deliver_without(nodes[3]);
    cluster.cut(nodes[3]);
    cluster.deliver();
    let reply = cluster.get_reply(number);
    assert_eq!((value(&reply), &reply.unreachable[..]), (None, &[away.clone()][..]), "it was lost during the read");
    for count in [1, 2] {
        let reply = cluster.get(nodes[0], r(count, get("k")));
        assert_eq!((value(&reply), &reply.unreachable[..]), (None, &[away.clone()][..]), "r = {count}");
    }
}

#[test]
fn one_owner_answers_alone_where_it_has_a_value_or_nobody_else_may_have_one() {
    let (mut cluster, nodes) = written_at_a_fallback();
    cluster.get(nodes[0], get("k"));
    for key in ["k", "of another partition"] {
        let owner = cluster.owners(key)[0];
        let holds =
            cluster.view.layout().partition(&object_id(key)) == cluster.view.layout().partition(&object_id("k"));
        let number = cluster.ask_get(owner, r(1, get(key)));
        assert!(cluster.wire.is_empty(), "{key}, held by a fallback: {holds}");
        cluster.get_reply(number);
    }
    // A deleted value is none.
    let read = cluster.get(nodes[0], get("k"));
    cluster.put(nodes[0], with(&read.context, delete("k", 9)));
    cluster.ask_get(nodes[0], r(1, get("k")));
    assert!(!cluster.wire.is_empty());
}

#[test]
pub(crate) fn a_fallback_that_has_nothing_does_not_count_towards_r() {
    let (mut cluster, nodes) = five();
    let other = neighbour(&cluster);
    cluster.put(nodes[0], put("k", "a", 1));
    cluster.cut(nodes[2]);
    cluster.put(nodes[0], w(3, put(&other, "b", 2)));
    assert_eq!(holders(&cluster), [nodes[3]]);
    let number = cluster.ask_get(nodes[0], r(3, get("k")));
    cluster.deliver();
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable);
    assert_eq!(value(&cluster.get(nodes[0], r(3, get(&other)))), Some(&b"b"[..]), "one that has a copy does");
}

#[test]
fn a_create_finds_what_a_fallback_has() {
    let (mut cluster, nodes) = written_at_a_fallback();
    let create = Put { basis: Basis::Create, ..put("k", "b", 7) };
    assert_eq!(cluster.refused(nodes[0], create), ErrorCode::Exists);
}

#[test]
pub(crate) fn read_repair_makes_no_copy_at_a_fallback() {
    let (mut cluster, nodes) = five();
    let other = neighbour(&cluster);
    cluster.cut(nodes[2]);
    cluster.put(nodes[0], w(3, put(&other, "b", 2)));
    let number = cluster.ask_put(nodes[0], w(1, put("k", "a", 1)));
    cluster.wire.clear();
    cluster.put_reply(number);
    cluster.get(nodes[1], r(2, get("k")));
    assert!(cluster.agrees("k", &nodes[..2]));
    assert!(cluster.stored(nodes[3], "k").is_empty(), "a fallback that was asked and had nothing");
    // Neither where a fallback coordinates the read.
    cluster.cut(nodes[0]);
    cluster.cut(nodes[1]);
    cluster.get(nodes[3], r(1, get(&other)));
    assert!(cluster.stored(nodes[4], &other).is_empty());
}

#[test]
pub(crate) fn what_a_fallback_holds_is_known_to_nodes_that_it_does_not_reach() {
    let (mut cluster, nodes) = five();
    let [owner, friend, holder] = [nodes[1], nodes[0], nodes[3]];
    cut_but_from(&mut cluster, holder, friend);
    cluster.cut(nodes[2]);
    cluster.join(friend, nodes[4]);
    cluster.put(friend, w(3, put("k", "a", 1)));
    assert_eq!(holders(&cluster), [holder]);
    let unreachable = cluster.get(owner, Get { r: Some(Quorum::Count(1)), ..get(&neighbour(&cluster)) }).unreachable;
    assert_eq!(unreachable, [name(&format!("n{holder}"))]);
}

#[test]
fn a_bucket_that_asks_for_more_zones_than_there_are_says_so() {
    let (mut cluster, nodes) = five_with(BucketProps { zones: 2, ..BucketProps::default() });
    let number = cluster.ask_put(nodes[0], put("k", "a", 1));
    let error = cluster.error(number);
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("more zones than the layout has"), "{error}");
}
