//! Views of equal copies are compared, and a plugin that is not deterministic is quarantined: not by one claim, and not
//! by one node that computes wrongly.

use bytes::Bytes;

use rejoin_core::control::plugin_record;
use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::shard::Counters;
use rejoin_core::shard::event::{Alarm, Event, MergeJob, Merged, PluginError};
use rejoin_proto::catalog::{Activation, BucketProps, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{Hlc, PluginDigest, ProfileId};

use crate::support::cluster::Cluster;
use crate::support::{bucket, get, merge, name, put, tenant};

const PLUGIN: PluginDigest = PluginDigest([1; 32]);
/// The mean time between two comparisons of a node.
const VIEWS_MS: u64 = 200;

fn props(n: u8) -> BucketProps {
    let (since, plugin) = (Hlc::default(), PLUGIN);
    let activation = Activation { plugin, self_causal: false, since, replaces: false, validates: false };
    BucketProps { plugin: Some(activation), n, w: Quorum::Count(1), ..BucketProps::default() }
}

/// As many owners of a key with two siblings, and what their plugins make of them is up to the test.
fn conflict(n: u8) -> Cluster {
    let mut cluster = Cluster::with_config(usize::from(n), props(n), |config| {
        config.exchange = ExchangeConfig { view_interval_us: VIEWS_MS * 1000, ..ExchangeConfig::default() };
    });
    cluster.plugin = None;
    for (request, value) in [(1, "a"), (2, "b")] {
        assert_eq!(cluster.put(0, put("k", value, request)).outcome, PutOutcome::Stored);
    }
    cluster
}

type Result = std::result::Result<Bytes, PluginError>;

/// Lets time pass, in which a plugin runs at the nodes.
fn pass(cluster: &mut Cluster, ms: u64, mut plugin: impl FnMut(usize, &MergeJob) -> Result) {
    for _ in 0..ms / 20 {
        cluster.pass(20);
        settle(cluster, &mut plugin);
    }
}

fn settle(cluster: &mut Cluster, plugin: &mut impl FnMut(usize, &MergeJob) -> Result) {
    loop {
        cluster.deliver();
        let Some((at, ticket, job)) = cluster.merges.pop_front() else { return };
        let merged = plugin(at, &job).map(|value| Merged { value, shown: None, profile: ProfileId(7), fuel_used: 7 });
        cluster.event(at, Event::Merged(ticket, merged));
    }
}

fn union(job: &MergeJob) -> Bytes {
    merge::words(job.siblings.iter().map(|sibling| &sibling.value))
}

/// The union with a word that should not be there.
fn wrong(job: &MergeJob, word: &str) -> Bytes {
    merge::words([union(job), word.to_owned().into()])
}

fn counters(cluster: &Cluster) -> Counters {
    cluster.nodes.iter().map(|node| node.shard.counters()).fold(Counters::default(), |sum, of| Counters {
        views_compared: sum.views_compared + of.views_compared,
        views_different: sum.views_different + of.views_different,
        quarantines: sum.quarantines + of.quarantines,
        ..sum
    })
}

/// The nodes that stand alone with what they make, as the alarms name them.
fn alone(cluster: &Cluster) -> Vec<String> {
    let node = |alarm: &Alarm| match alarm {
        Alarm::ViewsDiffer { node, .. } => Some(node.to_string()),
        _ => None,
    };
    let mut nodes: Vec<String> = cluster.alarms.iter().filter_map(node).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

#[test]
fn equal_views_are_compared_and_nothing_follows() {
    let mut cluster = conflict(3);
    let mut fresh = 0;
    pass(&mut cluster, 5_000, |_, job| {
        fresh += u32::from(job.fresh);
        Ok(union(job))
    });
    let counters = counters(&cluster);
    assert!(counters.views_compared >= 10 && fresh >= 20, "{counters:?}, {fresh} runs");
    assert_eq!((counters.views_different, cluster.alarms.len(), cluster.quarantines.len()), (0, 0, 0));
    assert_eq!(cluster.stored(0, "k").entries.len(), 2, "a comparison folds nothing");
}

#[test]
fn a_pace_of_zero_and_a_paused_exchange_compare_nothing() {
    for (view_interval_us, paused) in [(0, false), (1_000, true)] {
        let mut cluster = Cluster::with_config(3, props(3), |config| {
            config.exchange = ExchangeConfig { view_interval_us, paused, ..ExchangeConfig::default() };
        });
        (1..3).for_each(|request| drop(cluster.put(0, put("k", &request.to_string(), request))));
        cluster.plugin = None;
        pass(&mut cluster, 2_000, |_, _| panic!("nothing is to be merged"));
    }
}

#[test]
pub(crate) fn a_plugin_that_varies_from_call_to_call_is_quarantined_by_whoever_sees_it() {
    let mut cluster = conflict(2);
    let mut calls = 0;
    pass(&mut cluster, 5_000, |_, job| {
        calls += 1;
        Ok(wrong(job, &format!("x{}", calls % 3)))
    });
    let (_, plugin, why) = cluster.quarantines.first().expect("two owners are enough");
    assert_eq!(*plugin, PLUGIN);
    assert!(why.contains("ran the merge of the same siblings again") && why.contains("bucket cart"), "{why}");
    assert!(cluster.alarms.iter().any(|alarm| matches!(alarm, Alarm::NotDeterministic { plugin: PLUGIN, .. })));
    assert!(alone(&cluster).is_empty(), "no node is blamed");
}

#[test]
pub(crate) fn a_plugin_that_varies_from_node_to_node_is_quarantined_when_no_single_node_explains_it() {
    let mut cluster = conflict(3);
    pass(&mut cluster, 5_000, |at, job| Ok(wrong(job, &format!("n{at}"))));
    let (_, plugin, why) = cluster.quarantines.first().expect("three owners have three views");
    assert!(*plugin == PLUGIN && why.contains("that no single node explains"), "{why}");
    assert_eq!(cluster.stored(0, "k").entries.len(), 2, "no sibling is gone");
}

#[test]
pub(crate) fn one_node_that_computes_wrongly_or_lies_is_named_and_quarantines_nothing() {
    for bad in 0..3 {
        let mut cluster = conflict(3);
        pass(&mut cluster, 10_000, |at, job| Ok(if at == bad { wrong(job, "x") } else { union(job) }));
        assert!(counters(&cluster).views_different > 5);
        assert!(cluster.quarantines.is_empty(), "node {bad}: {:?}", cluster.quarantines);
        assert_eq!(alone(&cluster), [format!("n{bad}")], "whoever compares");
    }
}

/// With two owners nobody can say which of them is wrong.
#[test]
pub(crate) fn one_claim_of_one_peer_is_told_and_quarantines_nothing() {
    let mut cluster = conflict(2);
    pass(&mut cluster, 10_000, |at, job| Ok(wrong(job, &format!("n{at}"))));
    assert!(counters(&cluster).views_different > 5);
    assert!(cluster.quarantines.is_empty(), "{:?}", cluster.quarantines);
    assert_eq!(alone(&cluster), ["n0", "n1"], "each names the other");
    let told: Vec<String> = cluster.alarms.iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|line| line.contains("of 2 owners") && line.contains("either node may")), "{told:?}");
    // Nothing is lost, and reads go on with what each node merges.
    assert_eq!([0, 1].map(|at| cluster.stored(at, "k").entries.len()), [2, 2]);
}

#[test]
pub(crate) fn copies_that_differ_are_not_compared() {
    let mut cluster = conflict(3);
    // Each node has a third sibling of its own, and none hears of another.
    let number = |at: usize| 10 + at as u128;
    for at in 0..3 {
        let request = cluster.ask_put(at, put("k", &format!("only here {at}"), number(at)));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(request).outcome, PutOutcome::Stored);
    }
    // Their exchange would make them equal.
    for _ in 0..200 {
        cluster.now_ms += 20;
        (0..3).for_each(|at| cluster.event(at, Event::Tick));
        cluster
            .wire
            .retain(|(_, _, envelope)| matches!(envelope.body, PeerBody::ViewAsk(_) | PeerBody::ViewAnswer { .. }));
        settle(&mut cluster, &mut |_, job| Ok(union(job)));
    }
    let counters = counters(&cluster);
    assert_eq!((counters.views_compared, counters.views_different), (0, 0));
    assert!(cluster.quarantines.is_empty() && alone(&cluster).is_empty());
}

#[test]
fn failures_and_values_with_a_time_to_live_are_not_compared() {
    let mut cluster = conflict(3);
    pass(&mut cluster, 5_000, |at, job| if at == 0 { Ok(union(job)) } else { Err(PluginError::TimedOut) });
    assert_eq!(counters(&cluster).views_compared, 0);
    let mut cluster = conflict(3);
    let mut third = put("k", "c", 3);
    third.ttl_ms = Some(60_000);
    cluster.put(0, third);
    pass(&mut cluster, 5_000, |_, _| panic!("a clock decides what there is to merge"));
}

/// A plugin's record, quarantined or not.
fn record(quarantined: bool) -> Record {
    let mut plugin = plugin_record(name("words"), "1".into(), 9, false, false);
    plugin.quarantined = quarantined.then(|| "it was seen to vary".into());
    let (key, body) = (RecordKey::Plugin(tenant(), PLUGIN), RecordBody::Plugin(plugin));
    Record { key, version: 2, stamp: Hlc::default(), body }
}

#[test]
pub(crate) fn a_quarantined_plugin_is_not_run_and_readers_get_all_siblings_and_the_reason() {
    let mut cluster = conflict(3);
    let of = |siblings| BucketProps { siblings, ..props(3) };
    cluster.records(&[bucket(of(2)), record(true)]);
    let read = cluster.get(0, get("k"));
    assert_eq!((read.value, read.siblings.len(), read.merged_by), (None, 2, None));
    let why = read.merge_fault.expect("a reason");
    assert!(why.contains("is quarantined") && why.contains("it was seen to vary") && why.contains("release"), "{why}");
    // At the limit nothing is folded: a write that adds a sibling is refused, one with the full context is taken.
    assert_eq!(cluster.refused(0, put("k", "c", 3)), rejoin_proto::ErrorCode::TooManySiblings);
    pass(&mut cluster, 3_000, |_, _| panic!("a quarantined plugin was run"));
    assert_eq!(cluster.stored(0, "k").entries.len(), 2);

    cluster.records(&[bucket(of(2)), record(false)]);
    cluster.plugin = Some(merge::union);
    let read = cluster.get(0, get("k"));
    assert_eq!((read.value.as_deref(), read.merge_fault), (Some(&b"a,b"[..]), None));
}
