//! Buckets that ask for acknowledgements from several zones: which answers are enough, and which fallbacks are asked.

use rejoin_core::members::Liveness;
use rejoin_core::shard::event::Event;
use rejoin_proto::ErrorCode;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::PutOutcome;

use crate::sloppy::{holders, wait};
use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{layout, name, node, put};

/// A node for each of `zones`, in the order in which every partition prefers them. The first `n` are owners, and writes
/// need two acknowledgements, from two zones.
fn cluster(n: u8, zones: &[&str]) -> Cluster {
    let mut layout = layout(zones.len());
    let places: Vec<usize> = (0..zones.len())
        .map(|at| layout.nodes.iter().position(|other| other.id == node(at)).expect("one of the nodes"))
        .collect();
    places.iter().zip(zones).for_each(|(place, zone)| layout.nodes[*place].zone = name(zone));
    let list: Vec<u16> = places.into_iter().map(|place| place as u16).collect();
    layout.owners.iter_mut().for_each(|owners| owners.clone_from(&list));
    let props = BucketProps { n, w: Quorum::Count(2), zones: 2, ..BucketProps::default() };
    Cluster::with_layout(layout, props, |_| {})
}

fn outcome(cluster: &mut Cluster, number: u64) -> PutOutcome {
    cluster.deliver();
    cluster.put_reply(number).outcome
}

#[test]
fn a_write_is_acknowledged_when_the_nodes_that_have_it_are_of_as_many_zones_as_it_asks_for() {
    let mut cluster = cluster(3, &["a", "a", "b"]);
    let number = cluster.ask_put(0, put("k", "v", 1));
    cluster.deliver_without(2);
    assert!(!cluster.replies.contains_key(&number), "two nodes of one zone have it");
    assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored);
}

#[test]
fn a_write_is_refused_before_it_is_minted_where_too_few_zones_are_in_reach() {
    let mut cluster = cluster(3, &["a", "a", "b", "a", "b"]);
    cluster.cut(2);
    cluster.cut(4);
    assert_eq!(cluster.refused(0, put("k", "v", 1)), ErrorCode::Unavailable);
    assert!(cluster.actor_of(0, "k").is_none());
}

#[test]
fn a_suspected_node_stands_in_if_no_other_one_is_of_the_missing_zone() {
    let mut cluster = cluster(3, &["a", "a", "b", "a", "b"]);
    cluster.cut(2);
    cluster.event(0, Event::Liveness(node(4), Liveness::Suspect));
    let number = cluster.ask_put(0, put("k", "v", 1));
    assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored);
    assert_eq!(holders(&cluster), [4]);
}

#[test]
fn a_suspected_node_comes_last_where_zones_enough_are_in_reach() {
    let mut cluster = cluster(3, &["a", "b", "c", "c", "a"]);
    cluster.cut(2);
    cluster.event(0, Event::Liveness(node(3), Liveness::Suspect));
    let number = cluster.ask_put(0, put("k", "v", 1));
    assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored);
    assert_eq!(holders(&cluster), [4]);
}

#[test]
fn a_node_that_stands_in_asks_one_of_another_zone_than_its_own() {
    let mut cluster = cluster(2, &["a", "b", "a", "a", "b"]);
    cluster.cut(0);
    cluster.cut(1);
    let number = cluster.ask_put(3, put("k", "v", 1));
    assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored);
    assert_eq!(holders(&cluster), [3, 4]);
}

#[test]
pub(crate) fn an_owner_that_refuses_or_is_late_is_replaced_by_a_node_of_the_zone_that_is_missing() {
    for is_late in [false, true] {
        let mut cluster = cluster(2, &["a", "b", "a", "b"]);
        if !is_late {
            cluster.nodes[1].store.writes = Writes::Full;
        }
        let number = cluster.ask_put(0, put("k", "v", 1));
        if is_late {
            wait(&mut cluster, 0, 600);
            cluster.deliver_without(1);
        }
        assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored, "late: {is_late}");
        assert_eq!(holders(&cluster), [3]);
    }
}

#[test]
fn a_late_owner_is_replaced_by_a_node_of_a_zone_that_has_not_answered() {
    let mut cluster = cluster(3, &["a", "b", "c", "a", "b"]);
    let number = cluster.ask_put(0, put("k", "v", 1));
    // The third owner is expected to answer: the write will have its zones, and waits for one more node.
    cluster.event(0, Event::Liveness(node(1), Liveness::Suspect));
    wait(&mut cluster, 0, 150);
    cluster.deliver_without(2);
    assert_eq!(holders(&cluster), [4]);
    assert_eq!(outcome(&mut cluster, number), PutOutcome::Stored);
}
