//! Objects that change owners: a node that has them and does not own them any more holds them, and hands them over.

use std::sync::Arc;

use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Quorum, Record};

use crate::handoff::drain;
use crate::sloppy::{five, holders, w, without_the_third};
use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{bucket, get, put};

/// The view in which the bucket has so many copies.
fn with_copies(cluster: &Cluster, version: u64, n: u8) -> ClusterView {
    let props = BucketProps { n, w: Quorum::Count(n.min(3)), ..BucketProps::default() };
    ClusterView::new(cluster.view.layout().clone(), &[Record { version, ..bucket(props) }])
}

/// The view of a layout in which the second owner of each partition has become the first, and the first the last.
fn moved(cluster: &Cluster) -> ClusterView {
    let mut layout = cluster.view.layout().clone();
    layout.version += 1;
    layout.owners.iter_mut().for_each(|list| list.rotate_left(1));
    ClusterView::new(layout, &[bucket(BucketProps::default())])
}

/// A key that its three owners have.
fn written() -> (Cluster, Vec<usize>) {
    let (mut cluster, nodes) = five();
    cluster.put(nodes[0], w(3, put("k", "a", 1)));
    (0..4).for_each(|_| cluster.pass(300));
    (cluster, nodes)
}

/// Asserts that `former` has handed all over, and that `owners` have it.
fn assert_handed_over(cluster: &mut Cluster, former: usize, owners: &[usize]) {
    assert_eq!(holders(cluster), [former], "it says that it holds what it has");
    drain(cluster);
    assert_eq!(holders(cluster), [0; 0]);
    assert!(cluster.stored(former, "k").is_empty(), "it is empty");
    assert!(!cluster.stored(owners[0], "k").is_empty() && cluster.agrees("k", owners), "the owners have it");
}

#[test]
pub(crate) fn a_node_that_is_no_owner_any_more_holds_what_it_has_and_hands_it_over() {
    let (mut cluster, nodes) = written();
    cluster.show(with_copies(&cluster, 9, 2));
    assert_handed_over(&mut cluster, nodes[2], &nodes[..2]);
    let (mut cluster, nodes) = written();
    cluster.show(moved(&cluster));
    assert_handed_over(&mut cluster, nodes[0], &nodes[1..4]);
}

#[test]
fn what_only_a_former_owner_has_is_found() {
    let (mut cluster, nodes) = five();
    let number = cluster.ask_put(nodes[2], w(1, put("k", "a", 1)));
    cluster.wire.clear();
    cluster.put_reply(number);
    cluster.show(with_copies(&cluster, 9, 2));
    cluster.deliver();
    assert_eq!(cluster.get(nodes[1], get("k")).value.as_deref(), Some(&b"a"[..]));
}

#[test]
fn a_change_that_leaves_a_node_an_owner_makes_it_no_holder() {
    let (mut cluster, _) = written();
    for n in [5, 3] {
        cluster.show(with_copies(&cluster, 10 + u64::from(n), n));
        assert_eq!(holders(&cluster), [0; 0], "{n} copies");
    }
}

#[test]
pub(crate) fn a_node_that_became_a_former_owner_while_it_was_down_holds_what_it_has_from_its_start_on() {
    for lost in [false, true] {
        let (mut cluster, nodes) = written();
        let store = cluster.nodes[nodes[2]].store.clone();
        cluster.cut(nodes[2]);
        cluster.view = Arc::new(with_copies(&cluster, 9, 2));
        for other in nodes.iter().filter(|at| **at != nodes[2]) {
            cluster.event(*other, Event::View(cluster.view.clone()));
        }
        // After a loss the trees are counted anew, and until then say nothing.
        cluster.nodes[nodes[2]].config.rows_lost = lost;
        cluster.restart(nodes[2], lost, store);
        if lost {
            assert_eq!(holders(&cluster), [0; 0]);
            cluster.event(nodes[2], Event::Tick);
        }
        assert_handed_over(&mut cluster, nodes[2], &nodes[..2]);
    }
}

/// Scenario 3: two nodes with different layouts, each of which takes the other for the owner, hand over to each other.
#[test]
pub(crate) fn of_two_nodes_that_take_each_other_for_the_owner_neither_drops_its_copy() {
    let one = BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() };
    let mut cluster = Cluster::new(2, one.clone());
    let [owner, other] = cluster.owners("k")[..] else { panic!("two nodes") };
    cluster.put(owner, put("k", "a", 1));
    cluster.cut(owner);
    cluster.put(other, put("k", "b", 2));
    let mut layout = cluster.view.layout().clone();
    layout.version += 1;
    layout.owners.iter_mut().for_each(|list| list.rotate_left(1));
    let newer = ClusterView::new(layout, &[bucket(one)]);
    cluster.event(owner, Event::View(Arc::new(newer.clone())));
    cluster.heal(owner);
    drain(&mut cluster);
    assert_eq!(holders(&cluster), [0, 1], "each holds what the other owns by its own layout");
    assert!(!cluster.stored(owner, "k").is_empty() && !cluster.stored(other, "k").is_empty());
    cluster.show(newer);
    drain(&mut cluster);
    assert_eq!(holders(&cluster), [0; 0]);
    assert!(cluster.stored(owner, "k").is_empty());
    assert_eq!(cluster.stored(other, "k").entries.len(), 2, "both writes are there");
}

/// The walk of a partition has gone past a bucket that this node owns, when the node ceases to own it.
#[test]
pub(crate) fn a_walk_that_has_gone_past_what_is_held_now_does_not_end_the_holding() {
    let (mut cluster, nodes) = without_the_third();
    cluster.put(nodes[0], w(3, put("k", "a", 1)));
    (0..4).for_each(|_| cluster.pass(300));
    cluster.heal(nodes[2]);
    assert_eq!(holders(&cluster), [nodes[3]]);
    cluster.scanning = false;
    cluster.show(with_copies(&cluster, 9, 5));
    cluster.now_ms += 2_000;
    cluster.event(nodes[3], Event::Tick);
    assert!(cluster.answer_scan(), "the first row is one that it owns now");
    cluster.show(with_copies(&cluster, 10, 3));
    while cluster.answer_scan() {}
    assert_eq!(holders(&cluster), [nodes[3]]);
    cluster.scanning = true;
    cluster.deliver();
    assert_handed_over(&mut cluster, nodes[3], &nodes[..3]);
}

#[test]
fn a_former_owner_whose_disk_is_full_says_that_it_holds_something_as_soon_as_there_is_room() {
    let (mut cluster, nodes) = written();
    cluster.nodes[nodes[2]].store.writes = Writes::Full;
    cluster.show(with_copies(&cluster, 9, 2));
    cluster.pass(2_000);
    assert_eq!(holders(&cluster), [0; 0]);
    cluster.nodes[nodes[2]].store.writes = Writes::Work;
    cluster.now_ms += 2_000;
    cluster.event(nodes[2], Event::Tick);
    assert_handed_over(&mut cluster, nodes[2], &nodes[..2]);
}
