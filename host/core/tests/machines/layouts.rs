//! Changes of layouts, as shards carry them out: whom requests ask while several layouts are live, and what new owners
//! take before they count. The steps are given by hand; who decides them is tested in `ring`.

use std::collections::BTreeSet;
use std::sync::Arc;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::ring::RingView;
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::{Get, Put, PutOutcome, Reply, StartId};
use rejoin_proto::{ErrorCode, Layout, LayoutRef};

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{bucket, get, node, put};

const NODES: usize = 5;

/// A layout of five nodes in which every partition has these owners.
pub(crate) fn owned(version: u64, owners: &[usize]) -> Layout {
    let layout = crate::support::layout(NODES);
    let place = |at: &usize| layout.nodes.iter().position(|known| known.id == node(*at)).expect("a node") as u16;
    let list: Vec<u16> = owners.iter().map(place).collect();
    Layout { version, owners: vec![list; layout.owners.len()], ..layout }
}

/// A bucket whose quorums meet, without fallbacks.
fn strict() -> BucketProps {
    BucketProps { sloppy: false, ..BucketProps::default() }
}

/// Five nodes that begin with a layout.
fn beginning_with(layout: &Layout) -> Cluster {
    Cluster::in_ring(NODES, layout.clone(), strict(), |config| {
        config.exchange = ExchangeConfig { interval_us: 200_000, ..ExchangeConfig::default() };
    })
}

/// A step of a change: the live layouts, of which reads use the oldest.
pub(crate) fn step(generation: u64, live: &[&Layout], closed: &[usize]) -> RingView {
    let sources: BTreeSet<_> = closed.iter().map(|at| node(*at)).collect();
    let live: Vec<Layout> = live.iter().map(|layout| (*layout).clone()).collect();
    let reads = live[0].name();
    let partitions = live.iter().map(Layout::partitions).max().expect("a layout");
    RingView { live, reads, partitions, generation, closed: !sources.is_empty(), sources, dead: BTreeSet::new() }
}

/// Some nodes are in a step.
fn show(cluster: &mut Cluster, nodes: &[usize], ring: &RingView) {
    let view = Arc::new(ClusterView::new(ring, &[bucket(strict())]));
    nodes.iter().for_each(|at| cluster.event(*at, Event::View(view.clone())));
}

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

pub(crate) fn pass(cluster: &mut Cluster) {
    (0..60).for_each(|_| cluster.pass(50));
}

pub(crate) fn r(count: u8, get: Get) -> Get {
    Get { r: Some(Quorum::Count(count)), ..get }
}

fn read(cluster: &mut Cluster, at: usize) -> Result<Option<bytes::Bytes>, ErrorCode> {
    let number = cluster.ask_get(at, r(2, get("k")));
    cluster.deliver();
    match cluster.reply(number) {
        Reply::Get(reply) => Ok(reply.value),
        Reply::Error(error) => Err(error.code),
        other => panic!("a read is not answered so: {other:?}"),
    }
}

/// The nodes that say that they have taken what they gain by a layout.
pub(crate) fn exchanged(cluster: &Cluster, layout: &Layout) -> BTreeSet<usize> {
    let name: LayoutRef = layout.name();
    cluster.exchanged.iter().filter(|(_, of)| *of == name).map(|(at, _)| *at).collect()
}

/// A write that nodes 0 and 2 have acknowledged, and node 1 has not seen.
fn write_without_node_1(cluster: &mut Cluster) {
    cluster.cut(1);
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    cluster.join(1, 0);
    [2, 3, 4].iter().for_each(|other| cluster.join(1, *other));
}

#[test]
fn a_write_needs_its_quorum_in_each_live_layout() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[]));
    cluster.cut(3);
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    assert_eq!([1, 2, 4].map(|at| cluster.stored(at, "k").entries.len()), [1; 3]);
    cluster.cut(4);
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::Unavailable, "node 2 is one of two in the newest");
}

#[test]
pub(crate) fn a_read_needs_nobody_who_is_an_owner_in_the_newest_layout_only() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[]));
    assert_eq!(read(&mut cluster, 3), Ok(Some("a".into())), "a new owner coordinates, and counts for nothing");
    cluster.cut(3);
    cluster.cut(4);
    assert_eq!(read(&mut cluster, 0), Ok(Some("a".into())));
    cluster.cut(1);
    assert_eq!(read(&mut cluster, 0), Ok(Some("a".into())));
    cluster.cut(2);
    assert_eq!(read(&mut cluster, 0), Err(ErrorCode::Unavailable));
}

#[test]
fn operations_of_earlier_generations_are_told_to_have_ended_when_they_have() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    let (put, get) = (cluster.ask_put(0, put("k", "a", 1)), cluster.ask_get(1, r(3, get("k"))));
    cluster.settled.clear();
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[]));
    assert_eq!(cluster.settled, [(2, 2), (3, 2), (4, 2)], "those with nothing under way");
    // A later one is not waited for.
    let later = cluster.ask_get(2, r(3, crate::support::get("k")));
    cluster.deliver();
    assert_eq!(cluster.put_reply(put).outcome, PutOutcome::Stored);
    cluster.get_reply(get);
    cluster.get_reply(later);
    assert!(cluster.settled.contains(&(0, 2)) && cluster.settled.contains(&(1, 2)));
    assert_eq!(cluster.settled.len(), 5, "once each");
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &ALL));
    assert_eq!(cluster.settled.len(), 5, "the same generation");
}

#[test]
pub(crate) fn owners_that_have_all_lost_their_disks_meet_the_older_ones_before_these_are_retired() {
    for (n, older, newer) in [(1, &[1][..], &[0][..]), (2, &[1, 2], &[0, 3])] {
        let (first, second) = (owned(1, older), owned(2, newer));
        let props = BucketProps { n, ..strict() };
        let mut cluster = Cluster::in_ring(NODES, first.clone(), props.clone(), |config| {
            config.exchange = ExchangeConfig { interval_us: 200_000, ..ExchangeConfig::default() };
        });
        let show = |cluster: &mut Cluster, ring: &RingView| {
            cluster.view = Arc::new(ClusterView::new(ring, &[bucket(props.clone())]));
            let view = cluster.view.clone();
            ALL.iter().for_each(|at| cluster.event(*at, Event::View(view.clone())));
        };
        assert_eq!(cluster.put(1, put("k", "a", 1)).outcome, PutOutcome::Stored);
        show(&mut cluster, &step(2, &[&first, &second], &ALL));
        pass(&mut cluster);
        assert!(newer.iter().all(|at| exchanged(&cluster, &second).contains(at)), "{n} copies");
        // Reads move to the newest layout, all whose owners have new disks.
        for &at in newer {
            cluster.restart(at, true, Memory::default());
            cluster.event(at, Event::Replaced);
        }
        let apart = || newer.iter().flat_map(|new| older.iter().map(move |old| (*new, *old)));
        apart().for_each(|(new, old)| cluster.sever(new, old));
        cluster.settled.clear();
        show(&mut cluster, &RingView { reads: second.name(), ..step(3, &[&first, &second], &ALL) });
        pass(&mut cluster);
        let moved = |cluster: &Cluster| newer.iter().filter(|at| cluster.settled.contains(&(**at, 3))).count();
        assert_eq!(moved(&cluster), 0, "{n} copies: the first layout could be retired: {:?}", cluster.settled);
        apart().for_each(|(new, old)| cluster.join(new, old));
        pass(&mut cluster);
        assert_eq!(moved(&cluster), newer.len(), "{n} copies");
        assert!(newer.iter().all(|at| cluster.stored(*at, "k").entries.len() == 1), "{n} copies");
    }
}

#[test]
fn a_dead_older_owner_keeps_no_layout_live() {
    let (first, second) = (owned(1, &[1]), owned(2, &[0]));
    let props = BucketProps { n: 1, ..strict() };
    let mut cluster = Cluster::in_ring(NODES, first.clone(), props.clone(), |_| {});
    let show = |cluster: &mut Cluster, ring: &RingView| {
        let view = Arc::new(ClusterView::new(ring, &[bucket(props.clone())]));
        cluster.event(0, Event::View(view));
    };
    show(&mut cluster, &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    cluster.event(0, Event::Replaced);
    cluster.cut(1);
    cluster.settled.clear();
    let moved = RingView { reads: second.name(), ..step(3, &[&first, &second], &ALL) };
    show(&mut cluster, &moved);
    assert_eq!(cluster.settled, []);
    show(&mut cluster, &RingView { dead: BTreeSet::from([node(1)]), ..moved });
    assert_eq!(cluster.settled, [(0, 3)]);
}

#[test]
fn a_node_says_nothing_of_earlier_operations_before_it_serves() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    // It may have lost its catalog, and know no bucket of which it has to have something.
    let store = cluster.nodes[4].store.clone();
    cluster.start_without_serving(4, store);
    cluster.settled.clear();
    show(&mut cluster, &[4], &step(2, &[&first, &second], &[]));
    assert_eq!(cluster.settled, []);
    cluster.event(4, Event::Tick);
    assert_eq!(cluster.settled, []);
    cluster.event(4, Event::Serving { met_all: true });
    cluster.event(4, Event::Tick);
    assert_eq!(cluster.settled, [(4, 2)]);
}

#[test]
pub(crate) fn a_write_by_an_older_layout_is_refused_where_that_is_closed() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &[1, 2, 3, 4], &step(2, &[&first, &second], &[]));
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored, "they have not closed it yet");
    show(&mut cluster, &[1, 2, 3, 4], &step(2, &[&first, &second], &[1, 2, 3, 4]));
    let number = cluster.ask_put(0, put("other", "b", 2));
    cluster.deliver();
    assert!(!cluster.replies.contains_key(&number), "it waits for the newer layout");
    assert!([1, 2].iter().all(|at| cluster.stored(*at, "other").is_empty()));
    show(&mut cluster, &[0], &step(2, &[&first, &second], &ALL));
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored, "under the same dot, by both");
    assert_eq!([1, 2, 3, 4].map(|at| cluster.stored(at, "other").entries.len()), [1; 4]);
    assert_eq!(cluster.put(0, put("k", "c", 3)).outcome, PutOutcome::Stored);
}

#[test]
fn a_write_by_a_layout_that_a_new_owner_has_not_heard_of_is_taken_by_it() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &[0], &step(2, &[&first, &second], &[]));
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    assert_eq!([1, 2, 3, 4].map(|at| cluster.stored(at, "k").entries.len()), [1; 4]);
}

#[test]
pub(crate) fn a_read_by_a_retired_layout_is_refused_by_who_still_owns_the_key() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[2, 3, 4]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    show(&mut cluster, &[0], &step(2, &[&first], &ALL));
    show(&mut cluster, &[1, 2, 3, 4], &step(3, &[&second], &ALL));
    let (of_3, of_2) = (cluster.nodes[3].id, cluster.nodes[2].id);
    let number = cluster.ask_put(3, put("k", "b", 1));
    cluster.wire.retain(|(from, to, _)| !(*from == of_3 && *to == of_2));
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    let number = cluster.ask_get(0, r(2, get("k")));
    cluster.deliver();
    assert!(!cluster.replies.contains_key(&number), "nodes 0 and 2 have not seen the write");
    assert_eq!(read(&mut cluster, 1), Ok(Some("b".into())));
    show(&mut cluster, &[0], &step(3, &[&second], &ALL));
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value, Some("b".into()), "by the newer layout, through an owner of now");
}

#[test]
pub(crate) fn a_partition_is_taken_from_every_older_owner_that_has_closed() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 4]));
    let mut cluster = beginning_with(&first);
    write_without_node_1(&mut cluster);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[]));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &second), BTreeSet::new(), "nothing is closed");
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[1]));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &second), BTreeSet::from([0, 1, 2]), "those that gain nothing");
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &second), BTreeSet::from(ALL));
    assert_eq!([3, 4].map(|at| cluster.stored(at, "k").entries.len()), [1; 2]);
    show(&mut cluster, &ALL, &step(3, &[&second], &ALL));
    assert_eq!(read(&mut cluster, 3), Ok(Some("a".into())));
}

#[test]
pub(crate) fn an_older_owner_that_is_declared_dead_is_not_waited_for() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 4]));
    let mut cluster = beginning_with(&first);
    write_without_node_1(&mut cluster);
    cluster.cut(0);
    let closed = step(2, &[&first, &second], &[1, 2, 3, 4]);
    show(&mut cluster, &[1, 2, 3, 4], &closed);
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &second), BTreeSet::from([1, 2]), "the new owners wait for node 0");
    let dead = RingView { dead: BTreeSet::from([node(0)]), ..closed };
    show(&mut cluster, &[1, 2, 3, 4], &dead);
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &second), BTreeSet::from([1, 2, 3, 4]));
    assert_eq!([3, 4].map(|at| cluster.stored(at, "k").entries.len()), [1; 2], "from node 2");
}

#[test]
pub(crate) fn what_was_taken_for_one_layout_is_taken_again_for_the_next() {
    let (first, second, third) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 2]), owned(3, &[3, 1, 4]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[0, 1]));
    pass(&mut cluster);
    show(&mut cluster, &ALL, &step(3, &[&first, &second, &third], &[2]));
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &third).contains(&3), "nodes 0 and 1 have not closed the second layout");
    show(&mut cluster, &ALL, &step(3, &[&first, &second, &third], &ALL));
    pass(&mut cluster);
    assert_eq!(exchanged(&cluster, &third), BTreeSet::from(ALL));
    assert_eq!(exchanged(&cluster, &second), BTreeSet::from([0, 1, 2, 4]));
}

#[test]
pub(crate) fn what_was_taken_is_on_the_disk_before_that_is_said() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 2]));
    let mut cluster = beginning_with(&first);
    write_without_node_1(&mut cluster);
    cluster.nodes[3].syncing = false;
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    assert_eq!(cluster.stored(3, "k").entries.len(), 1);
    assert!(!exchanged(&cluster, &second).contains(&3));
    cluster.nodes[3].syncing = true;
    cluster.sync(3);
    assert!(exchanged(&cluster, &second).contains(&3));
}

#[test]
fn what_was_taken_before_a_kill_is_not_taken_again() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 2]));
    let mut cluster = beginning_with(&first);
    write_without_node_1(&mut cluster);
    cluster.cut(2);
    let closed = step(2, &[&first, &second], &ALL);
    show(&mut cluster, &ALL, &closed);
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &second).contains(&3), "node 2 is away");
    let store = cluster.nodes[3].store.clone();
    cluster.view = Arc::new(ClusterView::new(&closed, &[bucket(strict())]));
    cluster.restart(3, false, store);
    cluster.cut(0);
    cluster.cut(1);
    cluster.join(2, 3);
    pass(&mut cluster);
    assert!(exchanged(&cluster, &second).contains(&3), "nodes 0 and 1 were met in the last run");
    // It says so again after each start: the ring asks anew.
    cluster.exchanged.clear();
    let store = cluster.nodes[3].store.clone();
    cluster.restart(3, false, store);
    cluster.pass(50);
    assert!(exchanged(&cluster, &second).contains(&3));
}

#[test]
pub(crate) fn a_new_owner_does_not_count_for_readers_that_are_ahead_of_it() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 4]));
    let mut cluster = beginning_with(&first);
    write_without_node_1(&mut cluster);
    cluster.cut(3);
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    // Node 3 was skipped, and has not heard of the end of the change.
    show(&mut cluster, &[1, 4], &step(3, &[&second], &ALL));
    cluster.join(1, 3);
    cluster.cut(4);
    assert_eq!(read(&mut cluster, 1), Err(ErrorCode::Unavailable), "node 3 has not taken the partition");
}

#[test]
pub(crate) fn a_node_that_a_change_has_skipped_does_not_count_until_it_is_rebuilt() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 4]));
    let mut cluster = beginning_with(&first);
    cluster.cut(3);
    write_without_node_1(&mut cluster);
    cluster.cut(3);
    show(&mut cluster, &[0, 1, 2, 4], &step(2, &[&first, &second], &ALL));
    pass(&mut cluster);
    assert!(exchanged(&cluster, &second).contains(&4) && cluster.stored(4, "k").entries.len() == 1);
    show(&mut cluster, &ALL, &step(3, &[&second], &ALL));
    // Whatever node 1 has taken meanwhile, node 3 has nothing, and does not know the write.
    assert!(cluster.stored(3, "k").is_empty());
    cluster.cut(4);
    cluster.join(1, 3);
    let number = cluster.ask_get(3, r(1, get("k")));
    let of_3 = cluster.nodes[3].id;
    cluster.wire.retain(|(from, _, _)| *from != of_3);
    assert!(!cluster.replies.contains_key(&number), "its own empty copy is no answer");
    pass(&mut cluster);
    cluster.replies.clear();
    [1, 3].iter().for_each(|at| cluster.join(*at, 4));
    pass(&mut cluster);
    assert!(cluster.nodes[3].shard.exchange_status().incomplete.is_empty());
    cluster.cut(4);
    assert_eq!(read(&mut cluster, 3), Ok(Some("a".into())));
}

#[test]
pub(crate) fn an_ex_owner_is_not_taken_from() {
    let (first, second, third) = (owned(1, &[0, 1, 2]), owned(2, &[4, 1, 2]), owned(3, &[3, 1, 2]));
    let mut cluster = beginning_with(&first);
    // Where the first layout is retired, its owner 0 may have handed over all it had.
    show(&mut cluster, &[0, 1, 2, 4], &step(3, &[&second, &third], &ALL));
    show(&mut cluster, &[3], &step(3, &[&first, &second, &third], &ALL));
    pass(&mut cluster);
    assert!(!exchanged(&cluster, &third).contains(&3));
    show(&mut cluster, &[3], &step(3, &[&second, &third], &ALL));
    pass(&mut cluster);
    assert!(exchanged(&cluster, &third).contains(&3));
}

#[test]
pub(crate) fn a_retry_at_a_new_owner_that_forwarded_the_first_attempt_is_unknown() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 2]));
    let mut cluster = beginning_with(&first);
    let start = StartId(cluster.nodes[3].shard.start());
    let attempt = Put { start, ..put("k", "a", 1) };
    assert_eq!(cluster.put(3, attempt.clone()).outcome, PutOutcome::Stored, "node 0 has done it");
    show(&mut cluster, &ALL, &step(2, &[&first, &second], &[]));
    assert_eq!(cluster.refused(3, Put { attempt: 1, ..attempt }), ErrorCode::Unknown);
    assert_eq!(cluster.stored(0, "k").entries.len(), 1, "once");
}

#[test]
pub(crate) fn a_retry_at_an_owner_by_the_loser_of_a_race_is_unknown() {
    let (first, mut gaining) = (owned(1, &[0, 1, 2]), [3, 4]);
    gaining.sort_by_key(|new| owned(2, &[*new, 1, 2]).name());
    let [loser, winner] = gaining.map(|new| owned(2, &[new, 1, 2]));
    let gained = gaining[0];
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &ALL, &step(2, &[&first, &winner], &[]));
    let start = StartId(cluster.nodes[gained].shard.start());
    let attempt = Put { start, ..put("k", "a", 1) };
    assert_eq!(cluster.put(gained, attempt.clone()).outcome, PutOutcome::Stored, "an owner has done it");
    let stored = cluster.stored(1, "k");
    // The newest layout stays the same.
    show(&mut cluster, &ALL, &step(2, &[&first, &loser, &winner], &[]));
    assert_eq!(cluster.refused(gained, Put { attempt: 1, ..attempt }), ErrorCode::Unknown);
    assert_eq!(cluster.stored(1, "k"), stored, "once");
}

#[test]
fn a_request_that_an_ex_owner_was_asked_to_do_goes_to_an_owner_of_now() {
    let (first, second) = (owned(1, &[0, 1, 2]), owned(2, &[3, 1, 2]));
    let mut cluster = beginning_with(&first);
    show(&mut cluster, &[0, 1, 2, 3], &step(2, &[&first, &second], &[0, 1, 2, 3]));
    pass(&mut cluster);
    // Node 4 owns nothing, and is behind.
    show(&mut cluster, &[0, 1, 2, 3], &step(3, &[&second], &ALL));
    assert_eq!(cluster.put(4, put("k", "a", 1)).outcome, PutOutcome::Stored, "node 0 is no owner, and node 1 is");
    assert_eq!(read(&mut cluster, 4), Ok(Some("a".into())));
    assert_eq!(cluster.stored(1, "k").entries.len(), 1, "once");
    // Both others are away: what node 0 refuses waits for nothing that could come.
    [1, 2].iter().for_each(|away| cluster.cut(*away));
    assert_eq!(cluster.refused(4, put("k", "b", 2)), ErrorCode::StaleLayout);
    show(&mut cluster, &[4], &step(3, &[&second], &ALL));
    assert_eq!(cluster.refused(4, put("k", "c", 3)), ErrorCode::Unavailable, "node 3 is one of three");
}
