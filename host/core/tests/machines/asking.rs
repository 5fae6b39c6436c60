//! Whom a read asks, when it asks the others too, and copies that are compared by their digests.

use rejoin_core::members::Liveness;
use rejoin_core::shard::ReadLimits;
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome};
use rejoin_proto::peer::{PeerBody, PeerEnvelope};

use crate::contacts::unsent;
use crate::sloppy::{cut_owners, heal_owners, w, wait};
use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{get, object_id, put};

/// Nodes of which the first ones in a key's list own it. Of so many reads one asks all owners.
fn nodes(count: usize, all_one_in: u32) -> (Cluster, Vec<usize>) {
    let reads = ReadLimits { all_one_in, ..ReadLimits::default() };
    let cluster = Cluster::with_config(count, BucketProps::default(), |config| config.reads = reads);
    let owners = cluster.owners("k");
    (cluster, owners)
}

fn three() -> (Cluster, [usize; 3]) {
    let (cluster, owners) = nodes(3, 0);
    (cluster, [owners[0], owners[1], owners[2]])
}

/// The nodes that are asked for their copies by messages under way.
fn asked(cluster: &Cluster) -> Vec<usize> {
    let reads = cluster.wire.iter().filter(|(.., envelope)| matches!(envelope.body, PeerBody::Read { .. }));
    reads.map(|(_, to, _)| cluster.place(*to)).collect()
}

fn answers(cluster: &Cluster) -> Vec<&'static str> {
    cluster.wire.iter().map(|(.., envelope)| envelope.body.kind()).collect()
}

/// A write that one owner alone has.
fn put_at(cluster: &mut Cluster, at: usize, key: &str, value: &str) {
    let number = cluster.ask_put(at, w(1, put(key, value, 1)));
    cluster.wire.clear();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

/// A write that all owners but one have.
fn put_without(cluster: &mut Cluster, at: usize, late: usize) {
    let late = cluster.nodes[late].id;
    let number = cluster.ask_put(at, put("k", "milk", 1));
    cluster.wire.retain(|(_, to, _)| *to != late);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn a_read_asks_as_many_owners_as_it_needs() {
    let (mut cluster, [reader, second, third]) = three();
    cluster.put(reader, put("k", "milk", 1));
    let needs = |r, pr| Get { r: Some(Quorum::Count(r)), pr: Some(Quorum::Count(pr)), ..get("k") };
    for (read, expected) in [
        (get("k"), vec![second]),
        (needs(1, 0), vec![]),
        (needs(1, 2), vec![second]),
        (needs(3, 0), vec![second, third]),
        (needs(1, 3), vec![second, third]),
    ] {
        let number = cluster.ask_get(reader, read.clone());
        assert_eq!(asked(&cluster), expected, "{read:?}");
        cluster.deliver();
        let read = cluster.get_reply(number);
        assert_eq!((read.value.as_deref(), read.answered.len()), (Some(&b"milk"[..]), expected.len() + 1));
        assert_eq!(cluster.nodes[reader].shard.in_flight(), 0, "nobody is waited for");
    }
    let create = Put { basis: Basis::Create, ..put("new", "a", 2) };
    let creator = cluster.owners("new")[0];
    let number = cluster.ask_put(creator, create);
    assert_eq!(asked(&cluster).len(), 1);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

#[test]
fn an_owner_with_the_same_copy_sends_none_and_so_does_one_that_has_nothing_either() {
    let (mut cluster, [reader, ..]) = three();
    cluster.put(reader, put("k", "milk", 1));
    for (key, value) in [("k", Some(&b"milk"[..])), ("nothing", None)] {
        let reader = cluster.owners(key)[0];
        let number = cluster.ask_get(reader, get(key));
        cluster.deliver_one(|_, _, _| true);
        assert_eq!(answers(&cluster), ["read same"]);
        cluster.deliver();
        let read = cluster.get_reply(number);
        assert_eq!((read.value.as_deref(), read.answered.len()), (value, 2));
    }
}

#[test]
pub(crate) fn a_copy_that_differs_is_sent_and_all_owners_are_repaired() {
    let (mut cluster, [writer, reader, third]) = three();
    put_at(&mut cluster, writer, "k", "milk");
    let number = cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [writer]);
    cluster.deliver_one(|_, _, _| true);
    assert_eq!(answers(&cluster), ["read reply"]);
    cluster.deliver_one(|_, _, _| true);
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"milk"[..]));
    assert_eq!(asked(&cluster), [third], "once the reader has its answer");
    cluster.deliver();
    assert!(cluster.agrees("k", &[writer, reader, third]) && !cluster.stored(third, "k").is_empty());
    assert_eq!(cluster.nodes[reader].shard.in_flight(), 0);
}

/// The request was begun anew meanwhile, or the answer is a late one of another time.
#[test]
pub(crate) fn an_answer_about_another_copy_counts_for_nothing() {
    let (mut cluster, [reader, second, _]) = three();
    cluster.put(reader, put("k", "milk", 1));
    let number = cluster.ask_get(reader, get("k"));
    let PeerBody::Read { op, .. } = cluster.wire[0].2.body else { panic!("a read: {:?}", cluster.wire) };
    let body = PeerBody::ReadSame { op, epoch: Default::default(), digest: [9; 16], complete: true };
    let envelope = PeerEnvelope { layout: cluster.view.layout_name(), trace: 0, body };
    let from = cluster.nodes[second].id;
    cluster.event(reader, Event::Peer(from, envelope));
    assert!(!cluster.replies.contains_key(&number));
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).answered.len(), 2);
}

#[test]
pub(crate) fn a_read_whose_owner_is_late_asks_the_others() {
    let (mut cluster, [reader, late, third]) = three();
    cluster.put(reader, put("k", "milk", 1));
    let number = cluster.ask_get(reader, get("k"));
    wait(&mut cluster, reader, 199);
    assert_eq!(asked(&cluster), [late], "nothing is known of its answers");
    wait(&mut cluster, reader, 1);
    assert_eq!(asked(&cluster), [late, third]);
    wait(&mut cluster, reader, 300);
    assert_eq!(asked(&cluster), [late, third], "nobody is asked twice");
    cluster.deliver_without(late);
    assert_eq!(cluster.get_reply(number).answered.len(), 2);
    assert_eq!(cluster.nodes[reader].shard.counters().reads_hedged, 1);
    cluster.deliver();
    assert_eq!(cluster.nodes[reader].shard.in_flight(), 0);
}

#[test]
fn an_owner_is_given_the_time_that_its_answers_take_and_a_suspected_one_little() {
    let (mut cluster, [reader, second, third]) = three();
    cluster.put(reader, put("k", "milk", 1));
    (0..20).for_each(|_| drop(cluster.get(reader, get("k"))));
    let number = cluster.ask_get(reader, get("k"));
    wait(&mut cluster, reader, 4);
    assert_eq!(asked(&cluster), [second]);
    wait(&mut cluster, reader, 1);
    assert_eq!(asked(&cluster), [second, third], "its answers came at once, and this is the least time");
    cluster.deliver();
    cluster.get_reply(number);

    let (mut cluster, [reader, second, third]) = three();
    let suspect = cluster.nodes[second].id;
    cluster.put(reader, put("k", "milk", 1));
    let number = cluster.ask_get(reader, get("k"));
    wait(&mut cluster, reader, 10);
    assert_eq!(asked(&cluster), [second]);
    cluster.event(reader, Event::Liveness(suspect, Liveness::Suspect));
    wait(&mut cluster, reader, 0);
    assert_eq!(asked(&cluster), [second, third]);
    cluster.deliver();
    cluster.get_reply(number);
    cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [third], "a suspected node is asked last");
}

#[test]
fn the_nearest_owners_are_asked() {
    let (mut cluster, [reader, second, third]) = three();
    cluster.put(reader, put("k", "milk", 1));
    cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [second]);
    cluster.now_ms += 50;
    cluster.deliver();
    cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [third], "the other one takes long");
    cluster.deliver();
    // A peer that comes back is not what it was.
    cluster.sever(reader, second);
    cluster.join(reader, second);
    cluster.deliver();
    cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [second]);
}

/// What makes the answer of the one owner that a read has asked no answer.
const FAILURES: [fn(&mut Cluster, usize, usize); 5] = [
    unsent,
    Cluster::sever,
    |cluster, reader, second| {
        let silent = cluster.nodes[second].id;
        cluster.wire.clear();
        cluster.event(reader, Event::Liveness(silent, Liveness::Down));
    },
    |cluster, _, second| {
        cluster.nodes[second].store.damaged.insert(object_id("k").store_key());
        cluster.deliver_one(|_, _, _| true);
        cluster.deliver_one(|_, _, _| true);
    },
    |cluster, _, second| {
        // It is asked again on its new disk, where it has nothing and says that this proves nothing.
        let (by, _, read) = cluster.wire.pop_front().expect("a read");
        cluster.nodes[second].config.replaced = true;
        reopen(cluster, second);
        cluster.event(second, Event::Peer(by, read));
        cluster.deliver_one(|_, _, body| matches!(body, PeerBody::ReadReply { .. }));
    },
];

/// Opens a node again, of which its peers do not hear.
fn reopen(cluster: &mut Cluster, at: usize) {
    let view = cluster.view.clone();
    cluster.nodes[at].reopen(&view, Memory::default());
    cluster.event(at, Event::Serving { met_all: true });
    cluster.wire.clear();
}

#[test]
pub(crate) fn a_read_whose_owner_fails_asks_the_others_at_once() {
    for (at, fails) in FAILURES.iter().enumerate() {
        let (mut cluster, [reader, second, third]) = three();
        cluster.put(reader, put("k", "milk", 1));
        let number = cluster.ask_get(reader, get("k"));
        assert_eq!(asked(&cluster), [second]);
        fails(&mut cluster, reader, second);
        assert_eq!(asked(&cluster), [third], "failure {at}");
        cluster.deliver();
        let read = cluster.get_reply(number);
        assert_eq!((read.value.as_deref(), read.answered.len()), (Some(&b"milk"[..]), 2), "failure {at}");
        assert_eq!(cluster.now_ms, 0);
    }
}

#[test]
fn where_this_node_cannot_read_its_copy_two_others_are_asked_for_theirs() {
    let (mut cluster, [reader, second, third]) = three();
    cluster.put(reader, put("k", "milk", 1));
    cluster.nodes[reader].store.damaged.insert(object_id("k").store_key());
    let number = cluster.ask_get(reader, get("k"));
    assert_eq!(asked(&cluster), [second, third]);
    (0..2).for_each(|_| assert!(cluster.deliver_one(|_, _, body| matches!(body, PeerBody::Read { .. }))));
    assert_eq!(answers(&cluster), ["read reply"; 2], "there is nothing to compare with");
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).answered.len(), 2);
    assert!(cluster.agrees("k", &[reader, second, third]), "and its own is repaired");
}

#[test]
pub(crate) fn a_share_of_reads_repairs_owners_that_no_read_needs() {
    let (mut cluster, owners) = nodes(3, 1);
    put_without(&mut cluster, owners[0], owners[2]);
    let number = cluster.ask_get(owners[0], get("k"));
    assert_eq!(asked(&cluster), [owners[1]]);
    (0..2).for_each(|_| assert!(cluster.deliver_one(|_, _, _| true)));
    cluster.get_reply(number);
    assert_eq!(asked(&cluster), [owners[2]], "once the reader has its answer");
    cluster.deliver();
    assert!(cluster.agrees("k", &owners));
    assert_eq!(cluster.nodes[owners[0]].shard.counters().read_repairs, 1);

    let (mut cluster, owners) = nodes(3, 4);
    cluster.put(owners[0], put("k", "milk", 1));
    let mut all = 0;
    for _ in 0..200 {
        cluster.ask_get(owners[0], get("k"));
        (0..2).for_each(|_| assert!(cluster.deliver_one(|_, _, _| true)));
        all += asked(&cluster).len();
        cluster.deliver();
    }
    assert!((25..80).contains(&all), "{all} of 200");

    let (mut cluster, [reader, _, third]) = three();
    put_without(&mut cluster, reader, third);
    (0..50).for_each(|_| drop(cluster.get(reader, get("k"))));
    assert!(cluster.stored(third, "k").is_empty(), "none");
}

#[test]
fn where_a_fallback_holds_something_all_are_asked() {
    let (mut cluster, nodes) = nodes(5, 0);
    cut_owners(&mut cluster, &nodes);
    cluster.put(nodes[3], w(1, put("k", "a", 1)));
    // The other fallback has nothing.
    cluster.restart(nodes[4], false, Memory::default());
    heal_owners(&mut cluster, &nodes);
    let number = cluster.ask_get(nodes[0], get("k"));
    let found = asked(&cluster);
    assert!(nodes[1..4].iter().all(|node| found.contains(node)), "{found:?}");
    cluster.deliver_without(nodes[3]);
    assert!(!cluster.replies.contains_key(&number), "nothing is not found before the fallback has answered");
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a"[..]));
}

#[test]
pub(crate) fn where_a_holder_cannot_be_reached_all_are_asked() {
    let (mut cluster, nodes) = nodes(5, 0);
    cut_owners(&mut cluster, &nodes);
    cluster.put(nodes[3], w(1, put("k", "a", 1)));
    // The other fallback has nothing.
    cluster.restart(nodes[4], false, Memory::default());
    heal_owners(&mut cluster, &nodes);
    cluster.cut(nodes[3]);
    let number = cluster.ask_get(nodes[0], get("k"));
    let found = asked(&cluster);
    assert!(nodes[1..3].iter().all(|node| found.contains(node)), "{found:?}");
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).unreachable.len(), 1);
}
