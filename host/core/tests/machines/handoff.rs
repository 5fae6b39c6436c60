//! Handoff: a fallback hands what it holds over to the owners, and drops only what all of them have.

use std::sync::Arc;

use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Quorum, Record};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::peer::PeerBody;

use crate::layouts::owned;
use crate::sloppy::{cut_owners, five, heal_owners, holders, neighbour, w, without_the_third};
use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{bucket, get, object_id, put, with};

/// Lets so much time pass that a pass over every partition is done twice.
pub(crate) fn drain(cluster: &mut Cluster) {
    for _ in 0..40 {
        cluster.pass(100);
    }
}

/// Asserts that a fallback has handed all over: the owners have the key, and it has nothing.
fn assert_empty(cluster: &Cluster, nodes: &[usize], key: &str) {
    assert_eq!(cluster.nodes[nodes[3]].shard.holdings(), 0);
    assert!(cluster.stored(nodes[3], key).is_empty());
    assert!(cluster.agrees(key, &nodes[..3]) && !cluster.stored(nodes[0], key).is_empty());
}

/// A key that was written while its third owner was away. The owner is back, and nothing was handed over yet.
fn held() -> (Cluster, Vec<usize>) {
    let (mut cluster, nodes) = without_the_third();
    cluster.put(nodes[0], w(3, put("k", "a", 1)));
    assert!(!cluster.stored(nodes[3], "k").is_empty());
    cluster.heal(nodes[2]);
    (cluster, nodes)
}

/// Lets the fallback walk until its offers are on the wire.
fn offered(cluster: &mut Cluster, fallback: usize) {
    for _ in 0..20 {
        cluster.now_ms += 100;
        cluster.event(fallback, Event::Tick);
        if cluster.wire.iter().any(|(.., envelope)| matches!(envelope.body, PeerBody::Offer(_))) {
            return;
        }
    }
    panic!("nothing is offered");
}

#[test]
fn a_fallback_is_empty_once_its_owners_are_back() {
    let (mut cluster, nodes) = held();
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
    assert!(cluster.get(nodes[0], get(&neighbour(&cluster))).unreachable.is_empty());
    cluster.cut(nodes[3]);
    let read = cluster.get(nodes[0], get(&neighbour(&cluster)));
    assert!(read.unreachable.is_empty(), "its peers know that it holds nothing any more");
}

#[test]
fn nothing_is_handed_over_while_exchanges_are_paused() {
    use rejoin_core::exchange::ExchangeCommand;
    let (mut cluster, nodes) = held();
    cluster.event(nodes[3], Event::Exchange(ExchangeCommand::Pause));
    drain(&mut cluster);
    assert_eq!(cluster.nodes[nodes[3]].shard.counters().objects_offered, 0);
    assert!(cluster.nodes[nodes[3]].shard.holdings() > 0);
    cluster.event(nodes[3], Event::Exchange(ExchangeCommand::Start));
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}

#[test]
fn many_objects_are_handed_over_in_batches() {
    let (mut cluster, nodes) = without_the_third();
    let keys: Vec<String> = (0..600).map(|at| format!("key {at}")).collect();
    let of_k = |cluster: &Cluster, key: &str| cluster.owners(key) == cluster.owners("k");
    for (at, key) in (10..).zip(&keys) {
        let coordinator = cluster.owners(key).into_iter().find(|node| *node != nodes[2]).expect("another owner");
        cluster.put(coordinator, w(3, put(key, "v", at)));
    }
    cluster.heal(nodes[2]);
    for at in 0..5 {
        let is_held = |key: &&String| !cluster.owners(key).contains(&at) && !cluster.stored(at, key).is_empty();
        let (count, held) = (keys.iter().filter(is_held).count() as u64, cluster.nodes[at].shard.held());
        assert_eq!((held.objects, held.partitions.len()), (count, cluster.nodes[at].shard.holdings()), "node {at}");
    }
    for _ in 0..200 {
        cluster.pass(50);
    }
    assert!((0..5).all(|at| cluster.nodes[at].shard.held() == Default::default()));
    for key in keys.iter().filter(|key| of_k(&cluster, key)) {
        assert_empty(&cluster, &nodes, key);
    }
    assert!((0..5).all(|at| cluster.nodes[at].shard.holdings() == 0));
    let dropped: u64 = cluster.nodes.iter().map(|node| node.shard.counters().objects_dropped).sum();
    assert!(dropped > 300, "{dropped}");
}

/// Scenario 2: a fallback mints, hands over, drops, and mints again: under another actor, or its next write would carry
/// a dot that the owners have seen replaced.
#[test]
pub(crate) fn a_fallback_that_has_dropped_an_object_mints_as_a_new_actor() {
    let (mut cluster, nodes) = five();
    cut_owners(&mut cluster, &nodes);
    let first = cluster.put(nodes[3], w(1, put("k", "a", 1)));
    let actor = cluster.actor_of(nodes[3], "k").expect("it has minted").actor;
    heal_owners(&mut cluster, &nodes);
    drain(&mut cluster);
    assert!(cluster.actor_of(nodes[3], "k").is_none(), "the end is in the record of the drop");
    // A restart finds none either.
    let store = cluster.nodes[nodes[3]].store.clone();
    cluster.restart(nodes[3], false, store);
    cluster.put(nodes[0], with(&first.context, put("k", "b", 2)));
    cut_owners(&mut cluster, &nodes);
    cluster.put(nodes[3], w(1, put("k", "c", 3)));
    assert_ne!(cluster.actor_of(nodes[3], "k").expect("it has minted").actor, actor);
    heal_owners(&mut cluster, &nodes);
    drain(&mut cluster);
    let read =
        cluster.get(nodes[0], rejoin_proto::client::Get { r: Some(Quorum::Count(3)), siblings: true, ..get("k") });
    assert_eq!(read.siblings.len(), 2, "both writes are there");
    assert!((0..5).all(|at| cluster.nodes[at].shard.holdings() == 0));
}

/// Scenario 3: one of the owners has confirmed.
#[test]
pub(crate) fn an_object_is_kept_until_every_owner_has_confirmed_it() {
    let (mut cluster, nodes) = held();
    cluster.cut(nodes[1]);
    drain(&mut cluster);
    assert!(
        cluster.agrees("k", &[nodes[0], nodes[2], nodes[3]]),
        "it is brought to the owners that are there, and kept"
    );
    // An owner that has no room confirms nothing.
    let (mut cluster, nodes) = held();
    cluster.nodes[nodes[2]].store.writes = Writes::Full;
    drain(&mut cluster);
    assert!(!cluster.stored(nodes[3], "k").is_empty() && cluster.stored(nodes[2], "k").is_empty());
    cluster.nodes[nodes[2]].store.writes = Writes::Work;
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}

/// Scenario 3: the object has changed since it was offered.
#[test]
pub(crate) fn an_object_that_has_changed_since_it_was_offered_is_kept() {
    let (mut cluster, nodes) = held();
    offered(&mut cluster, nodes[3]);
    // All owners confirm it. Before the fallback acts on that, it gets the next write for an owner that is away again.
    cluster.deliver();
    cluster.event(nodes[0], Event::PeerDown(cluster.nodes[nodes[2]].id));
    let number = cluster.ask_put(nodes[0], w(3, put("k", "b", 2)));
    let holder = cluster.nodes[nodes[3]].id;
    assert!(cluster.deliver_one(|_, to, body| to == holder && matches!(body, PeerBody::Replicate(_))));
    cluster.event(nodes[3], Event::Tick);
    assert_eq!(cluster.stored(nodes[3], "k").entries.len(), 2, "what was confirmed was another state of it");
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    cluster.join(nodes[0], nodes[2]);
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
    assert_eq!(cluster.stored(nodes[2], "k").entries.len(), 2);
}

fn later_view(cluster: &Cluster, props: BucketProps) -> Arc<ClusterView> {
    Arc::new(ClusterView::new(cluster.view.layout().clone(), &[Record { version: 9, ..bucket(props) }]))
}

/// Scenario 3: owners confirm by a bucket version that the holder does not have, or has left behind.
#[test]
pub(crate) fn a_confirmation_of_another_version_is_void() {
    // The owners are ahead.
    let (mut cluster, nodes) = held();
    let view = later_view(&cluster, BucketProps::default());
    nodes[..3].iter().for_each(|owner| cluster.event(*owner, Event::View(view.clone())));
    drain(&mut cluster);
    assert!(!cluster.stored(nodes[3], "k").is_empty());
    // The holder learns of the newer version while the confirmations by the old one are on their way.
    let (mut cluster, nodes) = held();
    offered(&mut cluster, nodes[3]);
    while cluster.deliver_one(|_, _, body| matches!(body, PeerBody::Offer(_) | PeerBody::Replicate(_))) {}
    cluster.event(nodes[3], Event::View(view.clone()));
    cluster.deliver();
    cluster.event(nodes[3], Event::Tick);
    assert!(!cluster.stored(nodes[3], "k").is_empty());
    (0..5).for_each(|at| cluster.event(at, Event::View(view.clone())));
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}

/// Scenario 9: a bucket turns strict while fallbacks hold some of it.
#[test]
fn a_bucket_that_turns_strict_is_still_handed_over_and_found_meanwhile() {
    let (mut cluster, nodes) = five();
    cut_owners(&mut cluster, &nodes);
    cluster.put(nodes[3], w(1, put("k", "a", 1)));
    heal_owners(&mut cluster, &nodes);
    let view = later_view(&cluster, BucketProps { sloppy: false, ..BucketProps::default() });
    (0..5).for_each(|at| cluster.event(at, Event::View(view.clone())));
    assert_eq!(cluster.get(nodes[0], get("k")).value.as_deref(), Some(&b"a"[..]));
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}

#[test]
fn a_walk_that_a_restart_interrupts_begins_again_and_loses_nothing() {
    for victim in [3, 2] {
        let (mut cluster, nodes) = held();
        offered(&mut cluster, nodes[3]);
        while cluster.deliver_one(|_, _, body| matches!(body, PeerBody::Offer(_))) {}
        let store = cluster.nodes[nodes[victim]].store.clone();
        cluster.restart(nodes[victim], false, store);
        assert!(!cluster.stored(nodes[3], "k").is_empty());
        assert_eq!(cluster.nodes[nodes[3]].shard.holdings(), 1, "the row survives");
        drain(&mut cluster);
        assert_empty(&cluster, &nodes, "k");
    }
}

#[test]
fn a_message_of_the_walk_that_is_lost_is_made_up_for() {
    let (mut cluster, nodes) = held();
    offered(&mut cluster, nodes[3]);
    cluster.wire.clear();
    cluster.pass(1_000);
    assert!(!cluster.stored(nodes[3], "k").is_empty());
    cluster.pass(5_000);
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}

#[test]
fn a_fallback_that_becomes_an_owner_keeps_its_copy_and_says_that_it_holds_nothing() {
    let (mut cluster, nodes) = held();
    let mut props = BucketProps { n: 5, ..BucketProps::default() };
    props.w = Quorum::Count(3);
    let view = later_view(&cluster, props);
    (0..5).for_each(|at| cluster.event(at, Event::View(view.clone())));
    drain(&mut cluster);
    assert_eq!(cluster.nodes[nodes[3]].shard.holdings(), 0);
    assert!(!cluster.stored(nodes[3], "k").is_empty());
}

#[test]
pub(crate) fn a_fallback_that_becomes_an_owner_in_the_place_of_one_that_is_away_holds_nothing_any_more() {
    // Nodes 3 and 4 own other partitions only.
    let owning = |version, owners: &[usize]| {
        let mut layout = owned(version, &[2, 3, 4]);
        let partition = layout.partition(&object_id("k"));
        layout.owners[usize::from(partition.0)] = owned(version, owners).owners.swap_remove(0);
        layout
    };
    let mut cluster = Cluster::in_ring(5, owning(1, &[0, 1, 2]), BucketProps::default(), |_| {});
    cluster.cut(2);
    cluster.put(0, w(3, put("k", "a", 1)));
    drain(&mut cluster);
    let [fallback] = holders(&cluster)[..] else { panic!("one stands in for the third owner") };
    // The same two are the others now, and nothing is left to be offered to them.
    let view = Arc::new(ClusterView::new(owning(2, &[0, 1, fallback]), &[bucket(BucketProps::default())]));
    (0..5).for_each(|at| cluster.event(at, Event::View(view.clone())));
    drain(&mut cluster);
    assert_eq!(holders(&cluster), [0; 0]);
    assert!(!cluster.stored(fallback, "k").is_empty());
}

#[test]
pub(crate) fn what_cannot_be_read_stays_held_until_it_can_be() {
    let (mut cluster, nodes) = held();
    let key = object_id("k").store_key();
    cluster.nodes[nodes[3]].store.damaged.insert(key.clone());
    drain(&mut cluster);
    assert_eq!(cluster.nodes[nodes[3]].shard.holdings(), 1);
    cluster.nodes[nodes[3]].store.damaged.remove(&key);
    drain(&mut cluster);
    assert_empty(&cluster, &nodes, "k");
}
