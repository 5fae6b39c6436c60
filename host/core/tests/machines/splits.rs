//! Splits of partitions, as shards carry them out. Who decides on them is tested in `ring`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::port::Space;
use rejoin_core::ring::RingView;
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Activation, BucketProps, Quorum};
use rejoin_proto::client::{Get, PutOutcome};
use rejoin_proto::exchange::{Ask, ExchangeAnswer, ExchangeAsk, WalkId};
use rejoin_proto::peer::{ActorNext, Holder, PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, Hlc, Layout, PartitionId, PluginDigest, ReapEpoch};

use crate::sloppy::{five, neighbour, w};
use crate::support::cluster::Cluster;
use crate::support::store::{Memory, Writes};
use crate::support::{WALL_MS, bucket, get, object_id, put};
use crate::trees::problems;

/// The next layout, of twice the partitions.
fn split(layout: &Layout) -> Layout {
    let mut next = layout.divided(layout.partitions() * 2);
    next.version += 1;
    next
}

/// A view of these live layouts, the newest last. Reads use the oldest. Closed: by all nodes.
fn view(generation: u64, live: &[&Layout], props: &BucketProps, closed: bool) -> Arc<ClusterView> {
    let live: Vec<Layout> = live.iter().map(|layout| (*layout).clone()).collect();
    let partitions = live.iter().map(Layout::partitions).max().expect("a layout");
    let all = live[0].nodes.iter().map(|node| node.id).filter(|_| closed);
    let (reads, sources, dead) = (live[0].name(), all.collect(), BTreeSet::new());
    let ring = RingView { live, reads, partitions, generation, closed, sources, dead };
    Arc::new(ClusterView::new(ring, &[bucket(props.clone())]))
}

/// Nodes get a view, and the cluster with them.
fn show(cluster: &mut Cluster, nodes: &[usize], next: Arc<ClusterView>) {
    nodes.iter().for_each(|at| cluster.event(*at, Event::View(next.clone())));
    cluster.view = next;
}

/// Nodes hear of a split: both layouts are live.
fn begin(cluster: &mut Cluster, nodes: &[usize], props: &BucketProps) {
    let first = crate::support::layout(cluster.nodes.len());
    show(cluster, nodes, view(2, &[&first, &split(&first)], props, false));
}

/// All nodes go through a split, to its end.
fn whole(cluster: &mut Cluster, props: &BucketProps) {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let first = crate::support::layout(all.len());
    let next = split(&first);
    begin(cluster, &all, props);
    cluster.deliver();
    show(cluster, &all, view(2, &[&first, &next], props, true));
    cluster.deliver();
    show(cluster, &all, view(3, &[&next], props, true));
    cluster.deliver();
}

/// A key of a partition that has another number than its halves.
fn key_with_other_halves(cluster: &Cluster) -> String {
    let is_one = |key: &String| cluster.view.layout().partition(&object_id(key)).0 > 3;
    (0..).map(|at| format!("key {at}")).find(is_one).expect("a key")
}

fn objects(store: &Memory) -> BTreeMap<Bytes, Bytes> {
    let of_space = store.rows.iter().filter(|((of, _), _)| *of == Space::Objects);
    of_space.map(|((_, key), row)| (key.clone(), row.clone())).collect()
}

fn exchanging(nodes: usize) -> Cluster {
    Cluster::with_config(nodes, BucketProps::default(), |config| {
        config.exchange = ExchangeConfig { interval_us: 200_000, ..ExchangeConfig::default() };
    })
}

fn pass(cluster: &mut Cluster) {
    (0..60).for_each(|_| cluster.pass(50));
}

#[test]
fn nothing_moves_and_every_key_is_read_and_written_while_nodes_hear_of_a_split_one_after_another() {
    let (props, mut cluster) = (BucketProps::default(), exchanging(5));
    let keys: Vec<String> = (0..40).map(|at| format!("key {at}")).collect();
    for (number, key) in (1..).zip(&keys) {
        assert_eq!(cluster.put(0, put(key, "a", number)).outcome, PutOutcome::Stored);
    }
    pass(&mut cluster);
    let before: Vec<_> = cluster.nodes.iter().map(|node| objects(&node.store)).collect();
    let owners: Vec<_> = keys.iter().map(|key| cluster.owners(key)).collect();
    for hears in 0..5 {
        begin(&mut cluster, &[hears], &props);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(cluster.get(at % 5, get(key)).value, Some("a".into()), "{key} when {hears} has heard of it");
        }
    }
    whole(&mut cluster, &props);
    pass(&mut cluster);
    let after: Vec<_> = cluster.nodes.iter().map(|node| objects(&node.store)).collect();
    assert!(before == after, "no object is written");
    assert_eq!(keys.iter().map(|key| cluster.owners(key)).collect::<Vec<_>>(), owners);
    assert_eq!((0..5).map(|at| cluster.nodes[at].shard.holdings()).sum::<usize>(), 0);
    for (number, key) in (100..).zip(&keys) {
        assert_eq!(cluster.put(1, put(key, "b", number)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.stored(owners[usize::from(number as u8) - 100][0], key).entries.len(), 2);
    }
    pass(&mut cluster);
    for at in 0..5 {
        let status = cluster.nodes[at].shard.exchange_status();
        assert_eq!((status.unknown_leaves, problems(&cluster, at)), (0, vec![]), "node {at}");
        let is_equal =
            |partition: u16| status.pairs.iter().any(|(of, _, pair)| of.0 == partition && pair.equal_us.is_some());
        assert!((0..16).any(is_equal), "the halves are compared");
    }
}

#[test]
pub(crate) fn every_tenure_ends_with_a_split_and_none_comes_back() {
    let props = BucketProps::default();
    let mut cluster = Cluster::new(3, props.clone());
    for at in 0..20 {
        cluster.put(0, put(&format!("key {at}"), "a", at + 1));
    }
    let actors = |cluster: &Cluster| cluster.nodes[0].shard.actors();
    let minting = |cluster: &Cluster| {
        let rows = cluster.nodes[0].store.rows.keys();
        rows.filter(|(space, key)| *space == Space::Pinned && key[0] == b'a').count()
    };
    let (old, start) = (actors(&cluster), cluster.nodes[0].shard.start());
    assert!(old.len() > 4);
    let before = cluster.nodes[0].store.clone();
    whole(&mut cluster, &props);
    assert_eq!(minting(&cluster), 0, "an actor of two partitions mints no more");
    assert_ne!(cluster.nodes[0].shard.start(), start, "retries from before are not recognised");
    // Killed right after the split, before the first write; and before it, when only the ring was saved.
    for store in [cluster.nodes[0].store.clone(), before] {
        cluster.restart(0, false, store);
        assert_eq!(minting(&cluster), 0, "the end is durable");
        let store = cluster.nodes[0].store.clone();
        cluster.restart(0, false, store);
        assert_eq!(minting(&cluster), 0, "and is not forgotten");
    }
    for at in 0..20 {
        cluster.put(0, put(&format!("key {at}"), "b", 100 + at));
    }
    let is_new = |actor: &ActorNext| old.iter().all(|old| old.actor != actor.actor);
    let new: Vec<ActorNext> = actors(&cluster).into_iter().filter(is_new).collect();
    assert!(
        new.len() == minting(&cluster)
            && new.len() > 4
            && new.iter().all(|actor| old.iter().all(|old| old.actor != actor.actor))
    );
    assert!(new.iter().any(|actor| actor.partition.0 >= 8), "each in its half");
}

#[test]
fn a_full_disk_owes_the_split_and_takes_it_in_one_record_with_the_next_write() {
    let props = BucketProps::default();
    let mut cluster = Cluster::new(3, props.clone());
    cluster.put(0, put("k", "a", 1));
    let old = cluster.actor_of(0, "k").expect("it has minted").actor;
    cluster.nodes[0].store.writes = Writes::Full;
    whole(&mut cluster, &props);
    assert!(cluster.nodes[0].shard.owes_ends());
    assert_eq!(cluster.refused(0, put("k", "b", 2)), ErrorCode::DiskFull);
    // It ends here, and what was not written is owed again.
    let full = cluster.nodes[0].store.clone();
    cluster.restart(0, false, full);
    assert!(cluster.nodes[0].shard.owes_ends());
    cluster.nodes[0].store.writes = Writes::Work;
    assert_eq!(cluster.put(0, put("k", "b", 3)).outcome, PutOutcome::Stored);
    assert_ne!(cluster.actor_of(0, "k").expect("it has minted").actor, old);
    assert!(!cluster.nodes[0].shard.owes_ends());
    let actors = cluster.nodes[0].store.rows.keys().filter(|(space, key)| *space == Space::Pinned && key[0] == b'a');
    assert_eq!(actors.count(), 1, "the row of the old one is gone");
}

/// Its process ends before it hears of the split, and its disk is an old one. The only peer that knows has seen the
/// later counter after the split, under the number of a half.
#[test]
pub(crate) fn an_old_disk_from_before_a_split_is_told_what_its_actor_has_done() {
    let props = BucketProps::default();
    let mut cluster = Cluster::new(3, props.clone());
    let key = key_with_other_halves(&cluster);
    cluster.put(0, put(&key, "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.cut(1);
    assert_eq!(cluster.put(0, put(&key, "b", 2)).outcome, PutOutcome::Stored);
    let before = cluster.view.clone();
    cluster.cut(0);
    begin(&mut cluster, &[1, 2], &props);
    cluster.join(1, 2);
    cluster.deliver();
    assert_eq!(cluster.get(1, get(&key)).siblings.len(), 2, "node 2 had it");
    cluster.restart(2, false, Memory::default());
    cluster.view = before;
    cluster.restart(0, false, old);
    assert_eq!(cluster.actor_of(0, &key), None, "node 1 has seen counter 2");
}

/// The same, but it knows of the split when it starts: its ring was saved, and then its process ended. And it ends once
/// more before it meets anybody.
#[test]
pub(crate) fn a_disk_from_before_a_split_is_found_out_when_it_has_ended_its_actors() {
    let props = BucketProps::default();
    let mut cluster = Cluster::new(3, props.clone());
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "b", 2));
    begin(&mut cluster, &[0, 1, 2], &props);
    cluster.deliver();
    assert_eq!(cluster.put(0, put("k", "c", 3)).outcome, PutOutcome::Stored);
    let (incomplete, sound) =
        (cluster.nodes[0].shard.exchange_status().incomplete.len(), cluster.nodes[0].store.clone());
    assert_eq!(incomplete, 0);
    cluster.restart(0, false, sound);
    assert_eq!(cluster.nodes[0].shard.exchange_status().incomplete.len(), 0, "this one is no old disk");
    cluster.restart_heard(0, false, old, false);
    let split = cluster.nodes[0].store.clone();
    cluster.restart(0, false, split);
    assert_eq!(
        cluster.nodes[0].shard.exchange_status().incomplete.len(),
        16,
        "it lacks two writes that it has acknowledged"
    );
}

/// A hello of before the split is answered after it.
#[test]
pub(crate) fn an_objection_to_an_actor_of_before_a_split_is_heard_after_it() {
    let props = BucketProps::default();
    let mut cluster = Cluster::new(3, props.clone());
    let key = key_with_other_halves(&cluster);
    cluster.put(0, put(&key, "a", 1));
    let announced = cluster.actor_of(0, &key).expect("it has minted");
    begin(&mut cluster, &[0], &props);
    let object = |cluster: &mut Cluster, counter| {
        let (from, layout) = (cluster.nodes[1].id, cluster.view.layout_name());
        let body = PeerBody::Observed { actor: announced, counter };
        cluster.event(0, Event::Peer(from, PeerEnvelope { layout, trace: 0, body }));
        cluster.nodes[0].shard.exchange_status().incomplete.len()
    };
    assert_eq!(object(&mut cluster, announced.next - 1), 0, "it has used that counter");
    assert_eq!(object(&mut cluster, announced.next), 16, "its disk is an old one");
}

#[test]
pub(crate) fn a_write_that_is_under_way_mints_for_the_half_of_its_key() {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: true,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: true,
    };
    let props = BucketProps { plugin: Some(activation), ..BucketProps::default() };
    let mut cluster = Cluster::new(3, props.clone());
    cluster.validator = None;
    let key = (0..).map(|at| format!("key {at}")).find(|key| {
        let halves = cluster.view.layout().divided(16);
        halves.partition(&object_id(key)).0 == 5
    });
    let key = key.expect("a key");
    let number = cluster.ask_put(0, put(&key, "word", 1));
    whole(&mut cluster, &props);
    let (node, ticket, _) = cluster.validations.pop_front().expect("the value is validated meanwhile");
    cluster.event(node, Event::Validated(ticket, Ok(())));
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    let partitions: Vec<_> = cluster.nodes[node].shard.actors().iter().map(|actor| actor.partition).collect();
    assert_eq!(partitions, [PartitionId(5)]);
}

#[test]
pub(crate) fn what_a_fallback_holds_is_held_in_both_halves_and_handed_over() {
    let props = BucketProps::default();
    let (mut cluster, nodes) = five();
    let (owners, fallback) = (&nodes[..3], nodes[3]);
    owners.iter().for_each(|owner| cluster.cut(*owner));
    cluster.put(fallback, w(1, put("k", "a", 1)));
    assert_eq!(cluster.nodes[fallback].shard.holdings(), 1);
    let before = cluster.nodes[fallback].store.clone();
    whole(&mut cluster, &props);
    assert_eq!(cluster.nodes[fallback].shard.holdings(), 2, "either half may have it");
    for store in [cluster.nodes[fallback].store.clone(), before] {
        cluster.restart(fallback, false, store);
        assert_eq!(cluster.nodes[fallback].shard.holdings(), 2, "after a kill too");
        owners.iter().for_each(|owner| cluster.cut(*owner));
    }
    // Another node knows of it by what it was told before the split, and finds the write.
    assert_eq!(cluster.get(nodes[4], Get { r: Some(Quorum::Count(1)), ..get("k") }).value, Some("a".into()));
    owners.iter().for_each(|owner| cluster.heal(*owner));
    crate::handoff::drain(&mut cluster);
    assert_eq!(cluster.nodes[fallback].shard.holdings(), 0);
    assert!(cluster.stored(fallback, "k").is_empty() && cluster.agrees("k", owners));
}

#[test]
pub(crate) fn what_is_said_of_partitions_of_another_number_is_understood() {
    let props = BucketProps::default();
    let (mut cluster, nodes) = five();
    let key = neighbour(&cluster);
    let (reader, holder) = (nodes[0], cluster.nodes[nodes[3]].id);
    let layout = cluster.view.layout_name();
    let say = |cluster: &mut Cluster, bits: u8, partition: u16, version: u64, holds: bool| {
        let holders = vec![Holder { node: holder, version, holds }];
        let body = PeerBody::Holdings { partition_bits: bits, partition: PartitionId(partition), holders };
        let from = cluster.nodes[nodes[1]].id;
        cluster.event(reader, Event::Peer(from, PeerEnvelope { layout, trace: 0, body }));
        cluster.wire.clear();
    };
    let asked = |cluster: &mut Cluster| {
        cluster.ask_get(reader, get(&key));
        let is_asked = |body: &PeerBody| matches!(body, PeerBody::Read { as_fallback: true, .. });
        let asked = cluster.wire.iter().any(|(_, to, envelope)| *to == holder && is_asked(&envelope.body));
        cluster.deliver();
        asked
    };
    let whole_partition = cluster.view.layout().partition(&object_id(&key)).0;
    let half = cluster.view.layout().divided(16).partition(&object_id(&key)).0;
    assert!(!asked(&mut cluster));
    // From a node that has heard of a split: the half is in this node's partition.
    say(&mut cluster, 4, half, 1 << 50, true);
    assert!(asked(&mut cluster));
    say(&mut cluster, 4, half ^ 1, 2 << 50, false);
    assert!(asked(&mut cluster), "what is not held in one half may be in the other one");
    say(&mut cluster, 3, whole_partition, 3 << 50, false);
    assert!(!asked(&mut cluster));
    // And the other way round: both halves.
    begin(&mut cluster, &[0, 1, 2, 3, 4], &props);
    cluster.wire.clear();
    say(&mut cluster, 3, whole_partition, 4 << 50, true);
    assert!(asked(&mut cluster));
    // Numbers that no ring has.
    say(&mut cluster, 200, whole_partition, 5 << 50, true);
}

#[test]
pub(crate) fn a_gap_is_one_in_both_halves_until_both_are_rebuilt() {
    let props = BucketProps::default();
    let mut cluster = exchanging(3);
    for number in 0..50 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    cluster.cut(0);
    cluster.nodes[0].store.lose_all();
    cluster.pass(1000);
    let incomplete = |cluster: &Cluster| cluster.nodes[0].shard.exchange_status().incomplete.len();
    assert_eq!(incomplete(&cluster), 8);
    let before = cluster.nodes[0].store.clone();
    whole(&mut cluster, &props);
    assert_eq!(incomplete(&cluster), 16);
    for store in [cluster.nodes[0].store.clone(), before] {
        cluster.restart(0, false, store);
        cluster.cut(0);
        assert_eq!(incomplete(&cluster), 16, "after a kill too");
    }
    cluster.heal(0);
    pass(&mut cluster);
    assert_eq!(incomplete(&cluster), 0);
}

#[test]
pub(crate) fn leaves_stay_but_those_that_are_whole_partitions() {
    for (keys, divided) in [(300_u32, 8), (2000, 0)] {
        let props = BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() };
        let mut cluster = Cluster::new(1, props.clone());
        cluster.pass(1);
        for number in 0..keys {
            cluster.put(0, put(&format!("k{number}"), "v", u128::from(number) + 1_u128));
        }
        (0..4).for_each(|_| cluster.pass(300));
        let leaves = |cluster: &Cluster| cluster.nodes[0].shard.exchange_status();
        assert_eq!((problems(&cluster, 0), leaves(&cluster).unknown_leaves), (vec![], 0));
        let before = cluster.nodes[0].store.clone();
        cluster.scanning = false;
        whole(&mut cluster, &props);
        assert_eq!(leaves(&cluster).unknown_leaves, 2 * divided, "{keys} keys: the sums of both halves are not known");
        assert_eq!(problems(&cluster, 0), [""; 0], "and all objects are counted still");
        cluster.put(0, put("meanwhile", "v", 100_000));
        assert_eq!(problems(&cluster, 0), [""; 0]);
        cluster.scanning = true;
        while cluster.answer_scan() {}
        (0..20).for_each(|_| cluster.pass(300));
        assert_eq!((problems(&cluster, 0), leaves(&cluster).unknown_leaves), (vec![], 0));
        assert_eq!(leaves(&cluster).corrected_leaves, 0);
        // A start on what was stored before the split comes to the same.
        let after = leaves(&cluster).leaves;
        cluster.restart(0, false, before);
        assert_eq!(leaves(&cluster).unknown_leaves, 2 * divided, "{keys} keys");
        (0..20).for_each(|_| cluster.pass(300));
        assert_eq!((problems(&cluster, 0), leaves(&cluster).unknown_leaves), (vec![], 0));
        assert!(leaves(&cluster).leaves.abs_diff(after) <= 1);
        for number in 0..keys {
            cluster.put(0, put(&format!("k{number}"), "w", u128::from(number) + 200_000_u128));
        }
        assert_eq!(problems(&cluster, 0), [""; 0]);
    }
}

#[test]
pub(crate) fn a_question_about_partitions_of_another_number_is_refused() {
    let (props, mut cluster) = (BucketProps::default(), exchanging(3));
    cluster.put(0, put("k", "a", 1));
    // The newest layout is one that did not know of the split: its name is the same before and after.
    let first = crate::support::layout(3);
    let mut ring = RingView::settled(first);
    ring.partitions = 16;
    let next = Arc::new(ClusterView::new(ring, &[bucket(props)]));
    cluster.event(1, Event::View(next));
    cluster.wire.clear();
    let layout = cluster.view.layout_name();
    for (bits, expected) in [(3, Some(ErrorCode::StaleLayout)), (4, None)] {
        let walk = WalkId { shard: 0, number: 77 };
        let (partition, epoch, ask) = (PartitionId(1), ReapEpoch::default(), Ask::Roots(vec![(PartitionId(1), 0)]));
        let asked = ExchangeAsk { walk, number: 1, partition_bits: bits, partition, epoch, ask };
        let from = cluster.nodes[0].id;
        let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::ExchangeAsk(asked) };
        cluster.event(1, Event::Peer(from, envelope));
        let answer = cluster.wire.iter().find_map(|(.., envelope)| match &envelope.body {
            PeerBody::ExchangeAnswer(ExchangeAnswer { walk: of, answer, .. }) if *of == walk => Some(answer.clone()),
            _ => None,
        });
        assert_eq!(answer.expect("an answer").err(), expected, "of 2^{bits} partitions");
        cluster.wire.clear();
    }
}
