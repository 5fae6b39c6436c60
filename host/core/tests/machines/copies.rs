//! Changes of a bucket's copies, as shards carry them out: another n, and a bucket that turns strict. They are changes
//! of layout, and so the steps are given by hand as in `layouts`. Together with those tests this is scenario 9.

use std::collections::BTreeSet;
use std::sync::Arc;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::ring::RingView;
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::PutOutcome;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{BucketCopies, ErrorCode, Layout};

use crate::layouts::{exchanged, owned, pass, r, step};
use crate::sloppy::w;
use crate::support::cluster::Cluster;
use crate::support::{bucket, get, node, object_id, put};

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

/// The layout in which nodes 0 to 4 own everything in that order, with these copies of the bucket.
fn with(version: u64, n: u8, sloppy: bool) -> Layout {
    let copies = BucketCopies { bucket: object_id("").bucket, change: version as u32, n, sloppy };
    Layout { copies: vec![copies], ..owned(version, &ALL) }
}

/// Five nodes that begin with a layout. What the bucket was made with counts for nothing any more.
fn beginning_with(layout: &Layout) -> Cluster {
    Cluster::in_ring(5, layout.clone(), BucketProps::default(), |config| {
        config.exchange = ExchangeConfig { interval_us: 200_000, ..ExchangeConfig::default() };
    })
}

fn show(cluster: &mut Cluster, nodes: &[usize], ring: &RingView) {
    let view = Arc::new(ClusterView::new(ring, &[bucket(BucketProps::default())]));
    nodes.iter().for_each(|at| cluster.event(*at, Event::View(view.clone())));
}

fn read(cluster: &mut Cluster, at: usize) -> Option<bytes::Bytes> {
    cluster.get(at, get("k")).value
}

fn stored(cluster: &Cluster, nodes: &[usize]) -> Vec<usize> {
    nodes.iter().copied().filter(|at| !cluster.stored(*at, "k").is_empty()).collect()
}

#[test]
pub(crate) fn a_write_needs_its_quorum_by_the_copies_of_each_live_layout() {
    let (three, one) = (with(1, 3, false), with(2, 1, false));
    let mut cluster = beginning_with(&three);
    show(&mut cluster, &ALL, &step(2, &[&three, &one], &[]));
    cluster.cut(1);
    let reply = cluster.put(0, put("k", "a", 1));
    assert_eq!((reply.outcome, reply.acked, reply.needed), (PutOutcome::Stored, 2, 2), "two of three, and one of one");
    cluster.cut(2);
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::Unavailable, "one of three is no quorum");
    let (three, five) = (with(1, 3, false), with(2, 5, false));
    let mut cluster = beginning_with(&three);
    show(&mut cluster, &ALL, &step(2, &[&three, &five], &[]));
    cluster.cut(0);
    cluster.cut(4);
    assert_eq!(cluster.put(1, put("k", "a", 1)).outcome, PutOutcome::Stored, "two of three, and three of five");
    assert_eq!(stored(&cluster, &ALL), [1, 2, 3]);
    cluster.cut(3);
    assert_eq!(cluster.refused(1, put("k", "b", 2)), ErrorCode::Unavailable, "two of five are no quorum");
}

#[test]
fn reads_need_the_quorum_of_the_older_copies_until_they_move() {
    let (one, three) = (with(1, 1, false), with(2, 3, false));
    let mut cluster = beginning_with(&one);
    assert_eq!(cluster.put(0, put("k", "a", 1)).acked, 1);
    show(&mut cluster, &ALL, &step(2, &[&one, &three], &[]));
    assert_eq!(read(&mut cluster, 1), Some("a".into()), "a new owner asks the only old one");
    cluster.cut(1);
    cluster.cut(2);
    assert_eq!(read(&mut cluster, 0), Some("a".into()), "which needs nobody");
}

#[test]
fn new_owners_take_everything_before_more_copies_are_read() {
    for (from, to) in [(1, 3), (3, 5)] {
        let (older, newer) = (with(1, from, false), with(2, to, false));
        let mut cluster = beginning_with(&older);
        // The last of the older owners is away: it has not seen the write.
        let away = usize::from(from) - 1;
        if away > 0 {
            cluster.cut(away);
        }
        assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
        (0..5).filter(|other| *other != away).for_each(|other| cluster.join(away, other));
        show(&mut cluster, &ALL, &step(2, &[&older, &newer], &[0, 1, 2, 3]));
        pass(&mut cluster);
        // All but node 4 itself.
        let owners: BTreeSet<usize> = (0..usize::from(to).min(4)).collect();
        let done = exchanged(&cluster, &newer);
        assert!(done.is_disjoint(&owners), "{from} to {to}: node 4 has not closed the older layout, {done:?}");
        show(&mut cluster, &ALL, &step(2, &[&older, &newer], &ALL));
        pass(&mut cluster);
        assert_eq!(exchanged(&cluster, &newer), BTreeSet::from(ALL), "{from} to {to}");
        assert_eq!(stored(&cluster, &ALL).len(), usize::from(to), "{from} to {to}");
        show(&mut cluster, &ALL, &step(3, &[&newer], &ALL));
        // A quorum of those that have not taken part in the write.
        cluster.cut(0);
        assert_eq!(read(&mut cluster, usize::from(to) - 1), Some("a".into()), "{from} to {to}");
    }
}

#[test]
pub(crate) fn fewer_owners_take_what_the_others_have_before_they_are_read_alone() {
    let (three, one) = (with(1, 3, false), with(2, 1, false));
    let mut cluster = beginning_with(&three);
    cluster.cut(0);
    assert_eq!(cluster.put(1, put("k", "a", 1)).outcome, PutOutcome::Stored);
    (1..5).for_each(|other| cluster.join(0, other));
    assert_eq!(stored(&cluster, &ALL), [1, 2]);
    show(&mut cluster, &ALL, &step(2, &[&three, &one], &[0]));
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &one).contains(&0), "the others have not closed the older layout");
    show(&mut cluster, &ALL, &step(2, &[&three, &one], &ALL));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &one), BTreeSet::from(ALL));
    show(&mut cluster, &ALL, &step(3, &[&one], &ALL));
    cluster.cut(1);
    cluster.cut(2);
    assert_eq!(read(&mut cluster, 0), Some("a".into()), "the only owner has it");
    [1, 2].iter().for_each(|back| cluster.heal(*back));
    (0..40).for_each(|_| cluster.pass(300));
    assert_eq!(stored(&cluster, &ALL), [0], "those that are owners no more have handed over what they had");
    assert!((0..5).all(|at| cluster.nodes[at].shard.holdings() == 0));
}

/// A write to a sloppy bucket that node 0 and two fallbacks have, and the other two owners have not.
fn held(sloppy: &Layout) -> Cluster {
    let mut cluster = beginning_with(sloppy);
    [1, 2].iter().for_each(|away| cluster.cut(*away));
    assert_eq!(cluster.put(0, w(3, put("k", "a", 1))).outcome, PutOutcome::Stored);
    assert_eq!(stored(&cluster, &ALL), [0, 3, 4]);
    // And node 0 goes before it could tell anybody.
    cluster.cut(0);
    cluster
}

/// Nodes 1 and 2 are back, and reach those of the others.
fn back(cluster: &mut Cluster, others: &[usize]) {
    cluster.join(1, 2);
    for &other in others {
        [1, 2].iter().for_each(|back| cluster.join(*back, other));
    }
}

#[test]
pub(crate) fn a_bucket_turns_strict_when_its_owners_have_what_fallbacks_hold() {
    let (sloppy, strict) = (with(1, 3, true), with(2, 3, false));
    let mut cluster = held(&sloppy);
    back(&mut cluster, &[4]);
    let closed = step(2, &[&sloppy, &strict], &ALL);
    let view = RingView { dead: BTreeSet::from([node(0)]), ..closed };
    show(&mut cluster, &[1, 2, 3, 4], &view);
    pass(&mut cluster);
    let done = exchanged(&cluster, &strict);
    assert!(!done.contains(&3), "node 3 reaches no owner: {done:?}");
    [1, 2].iter().for_each(|owner| cluster.join(3, *owner));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &strict), BTreeSet::from([1, 2, 3, 4]), "node 0 is declared dead");
    assert_eq!(stored(&cluster, &ALL), ALL);
    show(&mut cluster, &[1, 2, 3, 4], &step(3, &[&strict], &ALL));
    [3, 4].iter().for_each(|fallback| cluster.cut(*fallback));
    assert_eq!(read(&mut cluster, 1), Some("a".into()), "two owners, and no fallback");
}

#[test]
fn a_fallback_that_is_killed_hands_over_after_its_restart_before_it_says_so() {
    let (sloppy, strict) = (with(1, 3, true), with(2, 3, false));
    let mut cluster = held(&sloppy);
    back(&mut cluster, &[4]);
    let closed = step(2, &[&sloppy, &strict], &ALL);
    let view = RingView { dead: BTreeSet::from([node(0)]), ..closed };
    show(&mut cluster, &[1, 2, 3, 4], &view);
    pass(&mut cluster);
    cluster.view = Arc::new(ClusterView::new(&view, &[bucket(BucketProps::default())]));
    let store = cluster.nodes[3].store.clone();
    cluster.start_alone(3, store);
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &strict).contains(&3), "it reaches no owner still");
    [1, 2].iter().for_each(|owner| cluster.join(3, *owner));
    pass(&mut cluster);
    assert!(exchanged(&cluster, &strict).contains(&3));
    // And again after each start, for the ring asks anew.
    cluster.exchanged.clear();
    let store = cluster.nodes[3].store.clone();
    cluster.start_alone(3, store);
    [1, 2].iter().for_each(|owner| cluster.join(3, *owner));
    pass(&mut cluster);
    assert!(exchanged(&cluster, &strict).contains(&3));
}

#[test]
fn a_node_that_does_not_know_the_bucket_yet_waits_with_its_exchange() {
    let (one, three) = (with(1, 1, false), with(2, 3, false));
    let mut cluster = beginning_with(&one);
    assert_eq!(cluster.put(0, put("k", "a", 1)).acked, 1);
    let closed = step(2, &[&one, &three], &ALL);
    show(&mut cluster, &[0, 1, 3, 4], &closed);
    cluster.event(2, Event::View(Arc::new(ClusterView::new(&closed, &[]))));
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &three).contains(&2));
    show(&mut cluster, &[2], &closed);
    (0..2).for_each(|_| pass(&mut cluster));
    assert_eq!(exchanged(&cluster, &three), BTreeSet::from(ALL));
    assert_eq!(stored(&cluster, &ALL), [0, 1, 2]);
}

#[test]
fn a_bucket_turns_strict_although_fallbacks_go_on_to_stand_in_for_a_dead_owner() {
    let (sloppy, strict) = (with(1, 3, true), with(2, 3, false));
    let mut cluster = held(&sloppy);
    back(&mut cluster, &[3, 4]);
    let closed = step(2, &[&sloppy, &strict], &ALL);
    show(&mut cluster, &[1, 2, 3, 4], &RingView { dead: BTreeSet::from([node(0)]), ..closed });
    for number in 2..30 {
        assert_eq!(cluster.put(1, put("k", "b", number)).outcome, PutOutcome::Stored);
        cluster.pass(200);
    }
    let on_hand = |at: usize| cluster.stored(at, "k").entries.len();
    assert!(on_hand(3).max(on_hand(4)) > 20, "they take the writes for it");
    assert_eq!(exchanged(&cluster, &strict), BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn an_owner_that_is_away_is_waited_for_before_a_bucket_turns_strict() {
    let (sloppy, strict) = (with(1, 3, true), with(2, 3, false));
    let mut cluster = held(&sloppy);
    back(&mut cluster, &[3, 4]);
    show(&mut cluster, &[1, 2, 3, 4], &step(2, &[&sloppy, &strict], &ALL));
    (0..3).for_each(|_| pass(&mut cluster));
    assert_eq!(stored(&cluster, &ALL), ALL, "what can be handed over is");
    assert_eq!(exchanged(&cluster, &strict), BTreeSet::new(), "node 0 may have more");
}

#[test]
fn a_fallback_that_becomes_an_owner_is_met_before_its_bucket_is_strict() {
    // Nodes 3 and 4 own other partitions only. One of them stands in, and becomes an owner along with two that have
    // nothing.
    let with_owners = |layout: Layout, owners: &[usize]| {
        let at = usize::from(layout.partition(&object_id("k")).0);
        let mut lists = layout.owners.clone();
        lists[at].clone_from(&owned(1, owners).owners[at]);
        Layout { owners: lists, ..layout }
    };
    let sloppy = with_owners(with(1, 3, true), &[0, 1, 2]);
    let mut cluster = beginning_with(&sloppy);
    [1, 2].iter().for_each(|away| cluster.cut(*away));
    assert_eq!(cluster.put(0, w(2, put("k", "a", 1))).outcome, PutOutcome::Stored);
    let holder = if stored(&cluster, &[4]).is_empty() { 3 } else { 4 };
    let strict = with_owners(with(2, 3, false), &[1, 2, holder]);
    cluster.cut(0);
    back(&mut cluster, &[3, 4]);
    let closed = step(2, &[&sloppy, &strict], &ALL);
    show(&mut cluster, &[1, 2, 3, 4], &RingView { dead: BTreeSet::from([node(0)]), ..closed });
    (0..2).for_each(|_| pass(&mut cluster));
    assert_eq!(exchanged(&cluster, &strict), BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(stored(&cluster, &[1, 2]), [1, 2], "they have met node {holder}, which hands nothing over");
}

#[test]
pub(crate) fn a_fallback_counts_for_nothing_while_an_older_layout_is_strict() {
    let (strict, sloppy) = (with(1, 3, false), with(2, 3, true));
    let mut cluster = beginning_with(&strict);
    cluster.cut(2);
    show(&mut cluster, &ALL, &step(2, &[&strict, &sloppy], &[]));
    assert_eq!(cluster.refused(0, w(3, put("k", "a", 1))), ErrorCode::Unavailable);
    assert_eq!(cluster.put(0, put("k", "b", 2)).outcome, PutOutcome::Stored, "two owners are enough");
    show(&mut cluster, &ALL, &step(3, &[&sloppy], &ALL));
    assert_eq!(cluster.put(0, w(3, put("k", "c", 3))).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn an_owner_that_a_change_of_copies_has_skipped_does_not_count_for_readers_that_are_ahead_of_it() {
    let three = with(1, 3, false);
    let two = Layout { owners: owned(2, &[0, 2, 1, 3, 4]).owners, ..with(2, 2, false) };
    let mut cluster = beginning_with(&three);
    cluster.cut(0);
    assert_eq!(cluster.put(1, put("k", "a", 1)).outcome, PutOutcome::Stored);
    let closed = step(2, &[&three, &two], &ALL);
    show(&mut cluster, &[1, 2, 3, 4], &RingView { dead: BTreeSet::from([node(0)]), ..closed.clone() });
    pass(&mut cluster);
    show(&mut cluster, &[1, 2, 3, 4], &step(3, &[&two], &ALL));
    // It is back, and has heard of nothing.
    (1..5).for_each(|other| cluster.join(0, other));
    let number = cluster.ask_get(2, r(2, get("k")));
    cluster.deliver();
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable, "it knows no layout of two copies");
    // It has heard of the change, and that it was skipped. Nobody has met it yet.
    show(&mut cluster, &[0], &RingView { dead: BTreeSet::from([node(0)]), ..closed });
    let number = cluster.ask_get(2, r(2, get("k")));
    assert!(cluster.deliver_one(|_, to, body| to == node(0) && matches!(body, PeerBody::Read { .. })));
    assert!(cluster.deliver_one(|from, _, body| from == node(0) && matches!(body, PeerBody::ReadReply { .. })));
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable, "it has not taken what the others have");
}
