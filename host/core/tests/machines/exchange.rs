//! Exchanges: replicas that differ are made equal in the background, whatever happens to the messages.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::exchange::{ExchangeCommand, ExchangeConfig, MAX_WALK_BYTES, WalkCounts};
use rejoin_core::port::Space;
use rejoin_core::shard::event::Event;
use rejoin_proto::catalog::{Activation, BucketProps, Durability, Quorum};
use rejoin_proto::exchange::{
    Answer, Ask, BucketRanges, Differing, Digest, ExchangeAnswer, ExchangeAsk, HashRange, ObjectBatch, RangeHashes,
    Sum, WalkId, place_of,
};
use rejoin_proto::peer::{DataRequest, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{
    BucketId, Content, ErrorCode, FoldedBy, Hlc, LayoutRef, Object, PartitionId, PluginDigest, ProfileId, ReapEpoch,
};

use crate::support::cluster::Cluster;
use crate::support::store::Memory;
use crate::support::{delete, get, object_id, put, with};
use crate::trees::problems;

/// The pause between two ticks of a test, in milliseconds.
const STEP_MS: u64 = 50;

/// Two owners of everything, of which one is enough for a write.
fn two() -> Cluster {
    exchanging(2, BucketProps { n: 2, w: Quorum::Count(1), r: Quorum::Count(1), ..BucketProps::default() })
}

fn exchanging(nodes: usize, props: BucketProps) -> Cluster {
    let mut cluster = Cluster::with_config(nodes, props, |config| config.exchange = ExchangeConfig::default());
    pass(&mut cluster, 200);
    cluster
}

fn pass(cluster: &mut Cluster, ms: u64) {
    (0..ms.div_ceil(STEP_MS)).for_each(|_| cluster.pass(STEP_MS));
}

fn objects(cluster: &Cluster, at: usize) -> BTreeMap<Bytes, Bytes> {
    let rows = cluster.nodes[at].store.rows.iter().filter(|((space, _), _)| *space == Space::Objects);
    rows.map(|((_, key), row)| (key.clone(), row.clone())).collect()
}

fn are_equal(cluster: &Cluster) -> bool {
    (1..cluster.nodes.len()).all(|at| objects(cluster, at) == objects(cluster, 0))
}

/// What all walks have sent and received.
fn counts(cluster: &Cluster) -> WalkCounts {
    let status = cluster.nodes.iter().map(|node| node.shard.exchange_status());
    let mut sum = WalkCounts::default();
    for (.., pair) in status.flat_map(|status| status.pairs) {
        sum.sent += pair.counts.sent;
        sum.received += pair.counts.received;
    }
    sum
}

/// Writes keys at node 0 while the others are away.
fn write_apart(cluster: &mut Cluster, keys: std::ops::Range<u32>, request: u32) {
    (1..cluster.nodes.len()).for_each(|at| cluster.cut(at));
    for number in keys {
        cluster.put(0, put(&format!("k{number}"), &format!("v{number} {request}"), u128::from(request + number) + 1));
    }
    (1..cluster.nodes.len()).for_each(|at| cluster.heal(at));
}

fn check(cluster: &Cluster) {
    for at in 0..cluster.nodes.len() {
        assert_eq!(problems(cluster, at), [""; 0], "node {at}");
    }
}

#[test]
pub(crate) fn what_a_replica_has_missed_it_gets_without_a_read_and_hardly_more() {
    let mut cluster = two();
    for number in 0..3000 {
        cluster.put(0, put(&format!("k{number}"), "the same", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    let before = counts(&cluster);
    write_apart(&mut cluster, 0..300, 10_000);
    write_apart(&mut cluster, 5000..5100, 20_000);
    assert!(!are_equal(&cluster));
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    check(&cluster);
    let after = counts(&cluster);
    let moved = after.sent + after.received - before.sent - before.received;
    assert!((400..=440).contains(&moved), "{moved} objects were moved for 400 that differed");
}

#[test]
pub(crate) fn of_two_versions_only_the_newer_one_travels() {
    let mut cluster = two();
    for number in 0..2000 {
        cluster.put(0, put(&format!("k{number}"), "old", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    let before = counts(&cluster);
    cluster.cut(1);
    for number in 0..400_usize {
        let (key, at) = (format!("k{number}"), number % 2);
        cluster.put(at, put(&key, "new", 10_000 + number as u128));
    }
    cluster.heal(1);
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    check(&cluster);
    let after = counts(&cluster);
    let moved = after.sent + after.received - before.sent - before.received;
    assert!((400..=440).contains(&moved), "{moved} objects were moved for 400 that differed");
}

#[test]
pub(crate) fn two_owners_that_both_have_what_a_third_one_lacks_bring_it_once() {
    let mut cluster = exchanging(3, BucketProps { n: 3, w: Quorum::Count(1), ..BucketProps::default() });
    for number in 0..1000 {
        cluster.put(0, put(&format!("k{number}"), "old", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    let before = counts(&cluster);
    // Both others begin at once with the node that has the highest id.
    let away = (0..3).max_by_key(|at| cluster.nodes[*at].id).expect("three nodes");
    cluster.cut(away);
    for number in 0..600 {
        cluster.put((away + 1) % 3, put(&format!("k{}", 500 + number), &"new".repeat(100), 10_000 + number));
    }
    cluster.heal(away);
    pass(&mut cluster, 10_000);
    assert!(are_equal(&cluster));
    check(&cluster);
    let after = counts(&cluster);
    let moved = after.sent + after.received - before.sent - before.received;
    assert!((600..=660).contains(&moved), "{moved} objects were moved for 600 that differed");
}

#[test]
fn concurrent_versions_meet_whichever_weighs_more() {
    let mut cluster = two();
    cluster.cut(1);
    for number in 0..60_u32 {
        let key = format!("k{number}");
        (0..1 + number % 3).for_each(|n| drop(cluster.put(0, put(&key, "a", 1000 + u128::from(number * 10 + n)))));
        (0..1 + number % 4).for_each(|n| drop(cluster.put(1, put(&key, "b", 5000 + u128::from(number * 10 + n)))));
    }
    cluster.heal(1);
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster));
    check(&cluster);
}

#[test]
fn deletes_and_siblings_of_both_sides_meet() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "old", number + 1));
    }
    cluster.cut(1);
    for number in 0..200 {
        let key = format!("k{number}");
        let (at, request) = ((number % 2) as usize, 1000 + number);
        let context = cluster.get(at, get(&key)).context;
        match number % 3 {
            0 => drop(cluster.put(at, with(&context, delete(&key, request)))),
            1 => drop(cluster.put(at, with(&context, put(&key, "new", request)))),
            _ => (0..2).for_each(|at| drop(cluster.put(at, put(&key, "a sibling", request * 10 + at as u128)))),
        }
    }
    cluster.heal(1);
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    check(&cluster);
}

#[test]
fn an_empty_replica_is_filled() {
    let mut cluster = two();
    for number in 0..2500 {
        cluster.put(0, put(&format!("k{number}"), &"x".repeat(300), number + 1));
    }
    cluster.restart(1, false, Memory::default());
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster));
    check(&cluster);
    cluster.restart(0, false, Memory::default());
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster) && !objects(&cluster, 0).is_empty(), "whoever has begun the walks");
    check(&cluster);
}

#[test]
pub(crate) fn one_key_that_differs_is_found_every_time() {
    let mut cluster = two();
    for round in 0..60 {
        write_apart(&mut cluster, round..round + 1, 1000 * round);
        pass(&mut cluster, 500);
        assert!(are_equal(&cluster), "round {round}");
    }
}

/// The bytes of a message of an exchange that carries no object, but for the roots.
fn bytes_to_find(envelope: &PeerEnvelope) -> usize {
    match &envelope.body {
        PeerBody::ExchangeAsk(ExchangeAsk { ask: Ask::Roots(_) | Ask::Objects { .. }, .. }) => 0,
        PeerBody::ExchangeAnswer(ExchangeAnswer { answer: Ok(Answer::Differ { partitions, .. }), .. }) => {
            partitions.len() * 15
        }
        PeerBody::ExchangeAnswer(ExchangeAnswer { answer: Ok(Answer::Found { batch, .. }), .. })
            if !batch.objects.is_empty() =>
        {
            0
        }
        PeerBody::ExchangeAsk(_) | PeerBody::ExchangeAnswer(_) => rejoin_proto::codec::encode(envelope).len(),
        _ => 0,
    }
}

#[test]
fn a_lone_difference_is_found_with_64_bytes_whoever_has_it() {
    let mut cluster = two();
    for number in 0..2000 {
        cluster.put(0, put(&format!("k{number}"), "the same", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    let mut named = 0;
    for round in 0..24_usize {
        // Old keys and new ones, at either node.
        let (at, number) = (round % 2, if round % 4 < 2 { round } else { 9000 + round });
        cluster.cut(1);
        cluster.put(at, put(&format!("k{number}"), "new", 10_000 + round as u128));
        cluster.wire.clear();
        cluster.heal(1);
        let (mut bytes, mut ms) = (0, 0);
        while ms < 900 {
            (cluster.now_ms, ms) = (cluster.now_ms + STEP_MS, ms + STEP_MS);
            (0..2).for_each(|at| cluster.event(at, Event::Tick));
            while let Some((_, _, envelope)) = cluster.wire.front() {
                bytes += bytes_to_find(envelope);
                cluster.deliver_one(|_, _, _| true);
            }
        }
        assert!(are_equal(&cluster), "round {round}");
        named += usize::from(bytes <= 64);
    }
    // One of 2^21 differences has no name.
    assert_eq!(named, 24);
    check(&cluster);
}

#[test]
pub(crate) fn names_that_several_differences_give_are_searched_for() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "the same", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    // The node with the lower id begins, and lacks what the other one has. With 8 partitions every eighth pair of
    // differences names some place in its partition.
    let at = usize::from(cluster.nodes[0].id < cluster.nodes[1].id);
    for round in 0..25 {
        cluster.cut(1);
        for number in 0..16 {
            let number = 1000 + round * 16 + number;
            cluster.put(at, put(&format!("k{number}"), "new", 10_000 + number));
        }
        cluster.heal(1);
        pass(&mut cluster, 900);
        assert!(are_equal(&cluster), "round {round}");
    }
    check(&cluster);
}

/// What node 0 asks first in a walk of a partition, when it is told that the peer's sums differ so much from its own.
fn first_question(cluster: &mut Cluster, partition: PartitionId, digest: Digest) -> Ask {
    cluster.event(0, Event::Exchange(ExchangeCommand::Start));
    for _ in 0..100 {
        cluster.now_ms += STEP_MS;
        cluster.event(0, Event::Tick);
        let asks: Vec<PeerEnvelope> = cluster.wire.drain(..).map(|(_, _, envelope)| envelope).collect();
        for envelope in asks {
            let PeerBody::ExchangeAsk(ExchangeAsk { walk, number, epoch, ask, .. }) = envelope.body else { continue };
            let differ = |roots: usize| Answer::Differ {
                considered: roots as u16,
                partitions: vec![Differing { partition, buckets: 1, digest }],
                refused: Vec::new(),
                incomplete: Vec::new(),
            };
            let (answer, asked) = match ask {
                Ask::Roots(roots) => (differ(roots.len()), None),
                // It has what it is brought.
                ask => (Answer::Taken { same: true }, Some(ask)),
            };
            let body = PeerBody::ExchangeAnswer(ExchangeAnswer { walk, number, epoch, answer: Ok(answer) });
            let from = cluster.nodes[1].id;
            cluster.event(0, Event::Peer(from, PeerEnvelope { layout: envelope.layout, trace: 0, body }));
            if let Some(asked) = asked {
                return asked;
            }
        }
    }
    panic!("no walk has begun");
}

#[test]
pub(crate) fn a_walk_that_changes_nothing_is_repeated_in_full() {
    let mut cluster = two();
    for number in 0..100 {
        cluster.put(0, put(&format!("k{number}"), "the same", number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    let id = object_id("k7");
    let (partition, key) = (cluster.view.layout().partition(&id), CausalKey::derive(b"secret"));
    let prefix = |key: &[u8]| place_of(key).expect("a key of the store").1;
    let own = objects(&cluster, 0)
        .iter()
        .filter(|(key, _)| prefix(key) >> 61 == u64::from(partition.0))
        .map(|(store_key, row)| Sum::of(key.hash_row(store_key, row).0, prefix(store_key), row.len(), 0, true))
        .fold(Sum::default(), |sum, row| sum.plus(row));
    // As if the peer had an older copy of a key that is equal: several differences may come to that.
    let named = Sum { hash: 1, places: prefix(&id.store_key()).reverse_bits(), ..Sum::default() };
    let lighter = Sum { weights: u64::MAX / 2, ..Sum::default() };
    let digest = own.plus(named).plus(lighter).digest();
    let first = first_question(&mut cluster, partition, digest);
    assert!(matches!(first, Ask::Objects { .. }), "{first:?}");
    let second = first_question(&mut cluster, partition, digest);
    assert!(matches!(second, Ask::Buckets(_)), "{second:?}");
}

#[test]
pub(crate) fn a_shard_has_few_walks_under_way() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster, 500);
    // Each of the 8 partitions of the node that has lost them is walked by itself. The other one begins none.
    cluster.event(1, Event::Exchange(ExchangeCommand::Pause));
    cluster.nodes[0].store.lose_all();
    let (mut most, limit) = (0, ExchangeConfig::default().max_walks);
    for _ in 0..200 {
        cluster.now_ms += STEP_MS;
        (0..2).for_each(|at| cluster.event(at, Event::Tick));
        while cluster.deliver_one(|_, _, _| true) {
            let load = cluster.nodes[0].shard.exchange_load();
            most = most.max(load.walks);
            assert!(load.walk_bytes <= MAX_WALK_BYTES, "{load:?}");
        }
    }
    assert_eq!(most, limit);
    assert!(are_equal(&cluster));
}

/// A small generator, so that a failure repeats.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % limit
    }
}

#[test]
fn messages_may_be_lost_doubled_and_late() {
    for seed in 1..=8 {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut cluster = two();
        write_apart(&mut cluster, 0..400, 0);
        for _ in 0..400 {
            cluster.now_ms += 20;
            (0..2).for_each(|at| cluster.event(at, Event::Tick));
            for _ in 0..chance.below(6) {
                if cluster.wire.is_empty() {
                    break;
                }
                let at = chance.below(cluster.wire.len());
                match chance.below(10) {
                    0 => drop(cluster.wire.remove(at)),
                    1 => cluster.wire.push_back(cluster.wire[at].clone()),
                    _ => {
                        let message = cluster.wire.remove(at).expect("it is there");
                        cluster.wire.push_front(message);
                        cluster.deliver_one(|_, _, _| true);
                    }
                }
            }
        }
        pass(&mut cluster, 20_000);
        assert!(are_equal(&cluster), "seed {seed}");
        check(&cluster);
    }
}

#[test]
fn a_walk_whose_peer_is_gone_begins_anew_when_it_is_back() {
    let mut cluster = two();
    write_apart(&mut cluster, 0..500, 0);
    for _ in 0..20 {
        cluster.now_ms += STEP_MS;
        (0..2).for_each(|at| cluster.event(at, Event::Tick));
        for _ in 0..3 {
            cluster.deliver_one(|_, _, _| true);
        }
        cluster.cut(1);
        cluster.heal(1);
    }
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster));
}

/// The answer of node 0 to a question of node 1.
fn answer(cluster: &mut Cluster, layout: LayoutRef, epoch: ReapEpoch, partition: PartitionId, ask: Ask) -> ErrorCode {
    let (walk, partition_bits) = (WalkId { shard: 0, number: 77 }, cluster.view.partition_bits());
    let asked = ExchangeAsk { walk, number: 1, partition_bits, partition, epoch, ask };
    let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::ExchangeAsk(asked) };
    let from = cluster.nodes[1].id;
    cluster.wire.clear();
    cluster.event(0, Event::Peer(from, envelope));
    let sent = cluster.wire.pop_front().expect("an answer");
    let PeerBody::ExchangeAnswer(ExchangeAnswer { answer, .. }) = sent.2.body else { panic!("an answer") };
    answer.expect_err("it is refused")
}

fn brought(batch: ObjectBatch) -> Ask {
    Ask::Objects { batch, last: false }
}

/// An object for node 0, in its partition.
fn stray(cluster: &Cluster) -> (PartitionId, ObjectBatch) {
    let id = object_id("stray");
    let mut object = Object::default();
    let dot = rejoin_proto::Dot { actor: rejoin_proto::ActorId(5), counter: 1 };
    let write = rejoin_core::causal::Write {
        seen: Default::default(),
        dot,
        content: Content::Value("stray".into()),
        stamp: Default::default(),
        expires: None,
    };
    rejoin_core::causal::put(&mut object, write);
    let batch = ObjectBatch { bucket: id.bucket, bucket_version: 3, objects: vec![(id.key.clone(), object)] };
    (cluster.view.layout().partition(&id), batch)
}

#[test]
pub(crate) fn an_exchange_of_another_epoch_is_refused() {
    let mut cluster = two();
    let (partition, batch) = stray(&cluster);
    let (layout, other) = (cluster.view.layout_name(), ReapEpoch { number: 1, proposer: 0 });
    assert_eq!(answer(&mut cluster, layout, other, partition, brought(batch)), ErrorCode::VersionConflict);
    assert!(objects(&cluster, 0).is_empty());
}

#[test]
pub(crate) fn an_exchange_of_another_layout_is_refused() {
    let mut cluster = two();
    let (partition, batch) = stray(&cluster);
    let layout = cluster.view.layout_name();
    let other = LayoutRef { version: layout.version + 1, ..layout };
    let refused = answer(&mut cluster, other, ReapEpoch::default(), partition, brought(batch));
    assert_eq!(refused, ErrorCode::StaleLayout);
    assert!(objects(&cluster, 0).is_empty());
}

#[test]
pub(crate) fn objects_under_another_version_of_their_bucket_are_refused() {
    let mut cluster = two();
    let (partition, batch) = stray(&cluster);
    let layout = cluster.view.layout_name();
    let batch = ObjectBatch { bucket_version: 4, ..batch };
    let refused = answer(&mut cluster, layout, ReapEpoch::default(), partition, brought(batch));
    assert_eq!(refused, ErrorCode::VersionConflict);
    assert!(objects(&cluster, 0).is_empty());
}

#[test]
fn strange_questions_are_refused_and_change_nothing() {
    let mut cluster = two();
    let (partition, batch) = stray(&cluster);
    let bucket = batch.bucket;
    let other = PartitionId((partition.0 + 1) % 8);
    let range = |start, depth| HashRange { bucket, start, depth };
    let compare = |range: HashRange| {
        let ranges = vec![(range.into(), RangeHashes::Objects(Bytes::new()))];
        Ask::Compare { width: 4, ranges: vec![BucketRanges { bucket: range.bucket, ranges }] }
    };
    let wanted = |range: HashRange, except: usize| Ask::Wanted {
        range,
        from: Bytes::new(),
        width: 4,
        except: vec![0; except].into(),
        max_bytes: u32::MAX,
    };
    let own = HashRange::of_partition(bucket, partition, 3);
    let strangers = [
        (other, brought(batch.clone())),
        (partition, brought(ObjectBatch { bucket: BucketId(9), ..batch })),
        (partition, compare(range(0, 0))),
        (partition, compare(range(1, 3))),
        (partition, compare(range(0, 200))),
        (partition, compare(HashRange { bucket: BucketId(9), ..own })),
        (other, wanted(own, 0)),
        (partition, wanted(own, 10 << 20)),
        (PartitionId(8), Ask::Buckets(vec![partition])),
    ];
    let layout = cluster.view.layout_name();
    for (partition, ask) in strangers {
        let said = format!("{ask:?}");
        answer(&mut cluster, layout, ReapEpoch::default(), partition, ask);
        assert!(objects(&cluster, 0).is_empty(), "{said:.100}");
    }
    // Widths that no walk has.
    for width in [0, 255, 1] {
        let ranges = vec![
            (own.into(), RangeHashes::Objects(Bytes::from_static(b"a hash and a half"))),
            (own.into(), RangeHashes::Parts(Bytes::from_static(b"too short"))),
        ];
        let ranges = vec![BucketRanges { bucket, ranges }];
        let asked = ExchangeAsk {
            walk: WalkId { shard: 0, number: 1 },
            number: 1,
            partition_bits: cluster.view.partition_bits(),
            partition,
            epoch: ReapEpoch::default(),
            ask: Ask::Compare { width, ranges },
        };
        let from = cluster.nodes[1].id;
        let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::ExchangeAsk(asked) };
        cluster.event(0, Event::Peer(from, envelope));
    }
}

#[test]
fn answers_that_were_not_asked_for_and_wrong_ones_do_nothing() {
    let mut cluster = two();
    let (_, batch) = stray(&cluster);
    write_apart(&mut cluster, 0..50, 0);
    let (layout, from) = (cluster.view.layout_name(), cluster.nodes[1].id);
    // Every open question of node 0 is answered by what it did not ask for.
    for _ in 0..40 {
        cluster.now_ms += 200;
        cluster.event(0, Event::Tick);
        let asked: Vec<ExchangeAsk> = cluster
            .wire
            .drain(..)
            .filter_map(|(_, _, envelope)| match envelope.body {
                PeerBody::ExchangeAsk(asked) => Some(asked),
                _ => None,
            })
            .collect();
        for ExchangeAsk { walk, number, .. } in asked {
            let batch = batch.clone();
            let wrong = Answer::Objects { batch, next: Some(Bytes::new()), unreadable: false };
            let body = ExchangeAnswer { walk, number, epoch: ReapEpoch::default(), answer: Ok(wrong) };
            let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::ExchangeAnswer(body) };
            cluster.event(0, Event::Peer(from, envelope));
        }
    }
    assert!(!objects(&cluster, 0).contains_key(&object_id("stray").store_key()[..]));
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster));
}

/// The object with a fold of its value under another plugin.
fn folded(object: &Object, plugin: u8, value: &'static str) -> Object {
    let mut object = object.clone();
    object.entries[0].content = Content::Value(value.into());
    object.entries[0].folded_by = Some(FoldedBy { plugin: PluginDigest([plugin; 32]), profile: ProfileId(1) });
    object
}

#[test]
pub(crate) fn two_folds_of_equal_dots_by_two_plugins_meet() {
    let mut cluster = two();
    let (_, batch) = stray(&cluster);
    let layout = cluster.view.layout_name();
    for (at, value) in [(0, "by the old one"), (1, "by the new one")] {
        let message = Replicate {
            op: None,
            object: object_id("stray"),
            bucket_version: 3,
            epoch: ReapEpoch::default(),
            dot: None,
            durability: Durability::Os,
            state: folded(&batch.objects[0].1, at as u8, value).into(),
        };
        let from = cluster.nodes[1 - at].id;
        let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::Replicate(message) };
        cluster.event(at, Event::Peer(from, envelope));
    }
    assert_eq!(cluster.stored(0, "stray").context, cluster.stored(1, "stray").context);
    assert!(!are_equal(&cluster));
    // They are compared again when the interval is over.
    pass(&mut cluster, 30_000);
    assert!(are_equal(&cluster));
    check(&cluster);
}

#[test]
fn a_self_causal_bucket_folds_what_meets_in_an_exchange() {
    let activation = |self_causal| Activation {
        plugin: PluginDigest([7; 32]),
        self_causal,
        since: Hlc::from_ms(1),
        replaces: false,
        validates: false,
    };
    for (self_causal, siblings) in [(true, 1), (false, 2)] {
        let plugin = Some(activation(self_causal));
        let quorum = Quorum::Count(1);
        let mut cluster = exchanging(2, BucketProps { n: 2, w: quorum, r: quorum, plugin, ..BucketProps::default() });
        cluster.cut(1);
        cluster.put(0, put("k", "milk", 1));
        cluster.put(1, put("k", "bread", 2));
        cluster.heal(1);
        pass(&mut cluster, 30_000);
        assert!(are_equal(&cluster));
        assert_eq!(cluster.stored(0, "k").entries.len(), siblings);
        check(&cluster);
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_brought_by_an_exchange() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster, 500);
    cluster.nodes[0].store.damaged.insert(object_id("k7").store_key());
    // The other owner is away, so nothing else can bring it.
    cluster.cut(1);
    cluster.ask_get(0, get("k7"));
    cluster.pass(2000);
    cluster.heal(1);
    pass(&mut cluster, 3000);
    assert!(cluster.nodes[0].store.damaged.is_empty());
    assert!(are_equal(&cluster));
    pass(&mut cluster, 3000);
    check(&cluster);
}

#[test]
pub(crate) fn a_leaf_that_its_objects_do_not_come_to_is_counted_anew() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster, 500);
    // A row is gone, and nobody was told.
    cluster.nodes[1].store.rows.remove(&(Space::Objects, object_id("k7").store_key().into()));
    write_apart(&mut cluster, 0..200, 1000);
    pass(&mut cluster, 5000);
    assert!(are_equal(&cluster));
    check(&cluster);
}

#[test]
fn an_idle_exchange_costs_one_message_to_each_peer_and_its_answer() {
    let mut cluster = two();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster, 30_000);
    let (mut asked, mut ms) = (0, 0);
    while ms < 60_000 {
        (cluster.now_ms, ms) = (cluster.now_ms + 100, ms + 100);
        (0..2).for_each(|at| cluster.event(at, Event::Tick));
        let is_ask = |(_, _, envelope): &&(_, _, PeerEnvelope)| matches!(envelope.body, PeerBody::ExchangeAsk(_));
        asked += cluster.wire.iter().filter(is_ask).count();
        cluster.deliver();
    }
    assert!((4..=14).contains(&asked), "{asked} rounds in a minute");
}

#[test]
pub(crate) fn large_objects_are_compared_off_the_shards_turn() {
    let mut cluster = two();
    for number in 0..24 {
        cluster.put(0, put(&format!("k{number}"), &"x".repeat(1 << 20), number + 1));
    }
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
    cluster.cut(1);
    for number in 0..6 {
        cluster.put(number % 2, put(&format!("k{number}"), &"y".repeat(1 << 20), 100 + number as u128));
    }
    cluster.nodes.iter().for_each(|node| node.store.scanned_bytes.set(0));
    cluster.heal(1);
    pass(&mut cluster, 10_000);
    let scanned = cluster.nodes.iter().map(|node| node.store.scanned_bytes.get());
    assert_eq!(scanned.sum::<usize>(), 0, "bytes that were read on a turn");
    assert!(are_equal(&cluster));
    check(&cluster);
}

/// Reads come to these nodes, one each millisecond. Each has waited there for a millisecond, and for 20 while node 1
/// gets objects.
fn reads(cluster: &mut Cluster, nodes: &[usize], ms: u64) {
    let (mut rows, mut slow_until_ms) = (cluster.nodes[1].store.rows.len(), 0);
    for _ in 0..ms {
        if core::mem::replace(&mut rows, cluster.nodes[1].store.rows.len()) != rows {
            slow_until_ms = cluster.now_ms + 60;
        }
        let waited_ms = if cluster.now_ms < slow_until_ms { 20 } else { 1 };
        for &at in nodes {
            let since_us = cluster.now_ms.saturating_sub(waited_ms) * 1000;
            cluster.ask_since(at, DataRequest::Get(get("k0")), since_us);
        }
        cluster.pass(1);
    }
    cluster.replies.clear();
}

/// An empty replica is filled while reads come to these nodes, which that delays. Returns how many of the 3 000 objects
/// it gets in three seconds.
fn rebuilt_beside_late_reads(nodes: impl Fn(&Cluster) -> Vec<usize>) -> usize {
    let slowly = ExchangeConfig { floor_bytes: 64 << 10, ..ExchangeConfig::default() };
    let props = BucketProps { n: 2, w: Quorum::Count(1), r: Quorum::Count(1), ..BucketProps::default() };
    let mut cluster = Cluster::with_config(2, props, |config| config.exchange = slowly);
    cluster.cut(1);
    for number in 0..3000 {
        cluster.put(0, put(&format!("k{number}"), &"x".repeat(1000), number + 1));
    }
    let nodes = nodes(&cluster);
    // Behind the silence of exchanges, so that they have time for what they do.
    pass(&mut cluster, 1000);
    reads(&mut cluster, &nodes, 500);
    cluster.heal(1);
    reads(&mut cluster, &nodes, 3000);
    let rebuilt = objects(&cluster, 1).len();
    pass(&mut cluster, 10_000);
    assert!(are_equal(&cluster), "without reads it is soon at its end");
    check(&cluster);
    rebuilt
}

#[test]
pub(crate) fn exchanges_give_way_to_requests_that_they_delay() {
    let rebuilt = rebuilt_beside_late_reads(|_| vec![0, 1]);
    assert!((50..=500).contains(&rebuilt), "{rebuilt} objects");
}

#[test]
pub(crate) fn a_node_whose_requests_are_late_takes_few_objects_of_one_that_has_none() {
    // The walks are begun by the node with the lower id.
    let rebuilt = rebuilt_beside_late_reads(|cluster| vec![usize::from(cluster.nodes[0].id < cluster.nodes[1].id)]);
    assert!((50..=500).contains(&rebuilt), "{rebuilt} objects");
}

#[test]
fn paused_exchanges_begin_nothing_and_answer_others() {
    let mut cluster = two();
    let command = |pause| match pause {
        true => ExchangeCommand::Pause,
        false => ExchangeCommand::Start,
    };
    (0..2).for_each(|at| cluster.event(at, Event::Exchange(command(true))));
    write_apart(&mut cluster, 0..50, 0);
    pass(&mut cluster, 30_000);
    assert!(!are_equal(&cluster) && cluster.nodes[0].shard.exchange_status().paused);
    cluster.event(1, Event::Exchange(command(false)));
    pass(&mut cluster, 3000);
    assert!(are_equal(&cluster));
}
