//! Plugins on trial: which keys a canary merges, when what it merges is stored, and what a bucket's record says.

use rejoin_core::control::{CatalogChange, plugin_record};
use rejoin_core::shard::event::{Event, PluginError, ValidateJob};
use rejoin_core::trials::is_in_share;
use rejoin_proto::catalog::{Activation, BucketProps, Quorum, Record, RecordBody};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome};
use rejoin_proto::fault::{MergeFault, Refusal};
use rejoin_proto::trial::{Canary, Shadow};
use rejoin_proto::{BucketId, ErrorCode, Hlc, Object, PluginDigest};

use crate::support::catalog::Nodes;
use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, get, name, object_id, put, tenant};

const ACTIVE: PluginDigest = PluginDigest([1; 32]);
const CANARY: PluginDigest = PluginDigest([2; 32]);
const PERCENT: u8 = 30;

fn version(plugin: PluginDigest, self_causal: bool, validates: bool) -> Activation {
    Activation { plugin, self_causal, since: Hlc::from_ms(WALL_MS), replaces: plugin == CANARY, validates }
}

fn tried(self_causal: bool, validates: bool) -> BucketProps {
    BucketProps {
        plugin: Some(version(ACTIVE, self_causal, validates)),
        canary: Some(Canary { plugin: version(CANARY, self_causal, validates), percent: PERCENT }),
        w: Quorum::Count(1),
        fold_delay_ms: 10_000,
        ..BucketProps::default()
    }
}

fn is_canarys(key: &str) -> bool {
    let id = object_id(key);
    is_in_share(id.bucket, id.hash(), PERCENT)
}

/// A key that the canary merges, and one that it does not.
fn both() -> [String; 2] {
    let of = |canary| (0..).map(|at| format!("k{at}")).find(|key| is_canarys(key) == canary).expect("there are both");
    [of(true), of(false)]
}

/// Two writes of a key at two nodes that do not hear of each other.
fn apart(cluster: &mut Cluster, key: &str, request: u128) {
    for node in 0..2 {
        let number = cluster.ask_put(node, put(key, &format!("v{node}"), request + node as u128));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
}

fn all(key: &str) -> Get {
    Get { r: Some(Quorum::Count(3)), ..get(key) }
}

#[test]
fn a_share_is_of_the_keys_and_grows_without_losing_any() {
    let bucket = BucketId(77);
    let hash = |at: u64| rejoin_proto::ObjectId { bucket, ..object_id(&format!("key-{at}")) }.hash();
    for percent in [1, 10, 50, 99] {
        let count = (0..10_000).filter(|at| is_in_share(bucket, hash(*at), percent)).count();
        let wanted = usize::from(percent) * 100;
        assert!(count.abs_diff(wanted) < 200, "{percent} %: {count} of 10000");
    }
    for at in 0..10_000 {
        let first = (1..=100).find(|percent| is_in_share(bucket, hash(at), *percent)).expect("all are in 100 %");
        assert!((first..=100).all(|percent| is_in_share(bucket, hash(at), percent)));
        assert!(!is_in_share(bucket, hash(at), 0));
        // The partition is in the leading bits: a key keeps its plugin when the partitions are split.
        assert_eq!(is_in_share(bucket, hash(at), 50), is_in_share(bucket, hash(at) ^ (0xffff << 112), 50));
    }
    let other = (0..10_000).filter(|at| is_in_share(bucket, hash(*at), 50) == is_in_share(BucketId(78), hash(*at), 50));
    assert!((4_000..6_000).contains(&other.count()), "another bucket's share is another one");
}

#[test]
pub(crate) fn a_canary_merges_its_share_of_the_keys_at_every_node() {
    let mut cluster = Cluster::new(3, tried(false, false));
    let mut by_canary = 0;
    for at in 0..60 {
        let key = format!("k{at}");
        apart(&mut cluster, &key, 10 * at);
        let wanted = if is_canarys(&key) { CANARY } else { ACTIVE };
        for node in 0..3 {
            let merged_by = cluster.get(node, all(&key)).merged_by.map(|by| by.digest);
            assert_eq!(merged_by, Some(wanted), "{key} at {node}");
        }
        by_canary += usize::from(wanted == CANARY);
    }
    assert!((5..40).contains(&by_canary), "{by_canary} of 60");
}

#[test]
pub(crate) fn what_a_canary_merges_is_stored_only_at_the_limit_until_its_delay_is_over() {
    let [canarys, actives] = both();
    let mut cluster = Cluster::new(3, tried(true, false));
    for (request, key) in [(10, &canarys), (20, &actives)] {
        apart(&mut cluster, key, request);
        cluster.get(0, all(key));
    }
    assert_eq!(cluster.stored(0, &actives).entries.len(), 1, "its plugin is no new one");
    assert_eq!(cluster.stored(0, &canarys).entries.len(), 2, "it can be taken back");
    cluster.pass(10_000);
    cluster.get(0, all(&canarys));
    let folded = cluster.stored(0, &canarys);
    assert_eq!(folded.entries.len(), 1);
    assert_eq!(folded.entries[0].folded_by.map(|by| by.plugin), Some(CANARY));
    // At the limit it is stored at once.
    let mut cluster = Cluster::new(3, BucketProps { siblings: 2, ..tried(false, false) });
    for request in 1..=3 {
        let stored = cluster.put(0, put(&canarys, &format!("v{request}"), request)).outcome;
        assert_eq!(stored, PutOutcome::Stored);
    }
    let object = cluster.stored(0, &canarys);
    assert!(object.entries.iter().any(|entry| entry.folded_by.is_some_and(|by| by.plugin == CANARY)), "{object:?}");
}

/// The new version refuses what the old one takes.
fn strict(job: &ValidateJob) -> Result<(), PluginError> {
    if job.plugin == CANARY { Err(MergeFault::Refused(Refusal::Malformed).into()) } else { Ok(()) }
}

#[test]
pub(crate) fn a_value_must_please_both_versions_while_a_canary_runs() {
    let mut cluster = Cluster::new(3, tried(false, true));
    cluster.validator = Some(strict);
    for (request, key) in (1..).zip(both()) {
        assert_eq!(cluster.refused(0, put(&key, "v", request)), ErrorCode::InvalidValue);
        assert_eq!(cluster.stored(0, &key), Object::default());
        let operation = Put { basis: Basis::Operation, ..put(&key, "v", 10 + request) };
        // An operation's result is validated by the version that has made it, with the plugin's own call.
        let is_judged = !is_canarys(&key);
        match is_judged {
            true => assert_eq!(cluster.refused(0, operation), ErrorCode::InvalidValue),
            false => assert_eq!(cluster.put(0, operation).outcome, PutOutcome::Stored),
        }
    }
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
fn each_version_is_asked_once_and_an_answer_counts_once() {
    let mut cluster = Cluster::new(3, tried(false, true));
    cluster.validator = None;
    let number = cluster.ask_put(0, put("k", "v", 1));
    let (node, first, job) = cluster.validations.pop_front().expect("the active version is asked");
    assert_eq!((job.plugin, cluster.validations.len()), (ACTIVE, 0));
    cluster.event(node, Event::Validated(first, Ok(())));
    cluster.event(node, Event::Validated(first, Ok(())));
    let (node, second, job) = cluster.validations.pop_front().expect("then the canary");
    assert_eq!((job.plugin, cluster.stored(0, "k")), (CANARY, Object::default()));
    cluster.event(node, Event::Validated(second, Ok(())));
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert!(cluster.validations.is_empty());
}

/// A catalog with three plugins and a bucket that merges with the first of them.
fn catalog() -> Nodes {
    let mut nodes = Nodes::connected(2);
    for (call, digest) in [(1, 1), (2, 2), (3, 3)] {
        let record = plugin_record(name("cart"), digest.to_string(), 9, true, false);
        nodes.change(0, call, CatalogChange::PluginAdd(tenant(), PluginDigest([digest; 32]), record));
    }
    let props = BucketProps { plugin: Some(version(ACTIVE, false, false)), ..BucketProps::default() };
    nodes.change(0, 4, CatalogChange::BucketCreate(tenant(), name("cart"), props));
    nodes.deliver();
    nodes.answer(4).expect("made");
    nodes
}

/// Changes the bucket's properties. Returns them as they are then.
fn set(nodes: &mut Nodes, call: u64, at: u64, change: impl FnOnce(&mut BucketProps)) -> BucketProps {
    nodes.wall_ms += 1_000;
    let record = |nodes: &Nodes| {
        let key = rejoin_proto::catalog::RecordKey::Bucket(tenant(), name("cart"));
        nodes.all[0].get(&key).expect("the bucket").clone()
    };
    let mut props = of(record(nodes));
    change(&mut props);
    nodes.change(0, call, CatalogChange::BucketSet(tenant(), name("cart"), at, props));
    nodes.deliver();
    of(nodes.answer(call).expect("set"))
}

fn of(record: Record) -> BucketProps {
    match record.body {
        RecordBody::Bucket { props, .. } => props,
        other => panic!("a bucket was expected, not {other:?}"),
    }
}

fn canary(percent: u8) -> Option<Canary> {
    Some(Canary { plugin: Activation { replaces: false, ..version(CANARY, false, false) }, percent })
}

#[test]
pub(crate) fn a_canary_replaces_another_plugin_and_ends_when_that_is_changed() {
    let mut nodes = catalog();
    let first = set(&mut nodes, 5, 1, |props| props.canary = canary(10));
    let made = first.canary.expect("a canary");
    assert!(made.plugin.replaces && made.plugin.self_causal && made.percent == 10, "as the card says: {made:?}");
    let grown = set(&mut nodes, 6, 2, |props| props.canary = canary(50)).canary.expect("a canary");
    assert_eq!((grown.percent, grown.plugin.plugin, grown.plugin.replaces), (50, CANARY, true));
    let kept = set(&mut nodes, 7, 3, |props| props.siblings = 9).canary;
    assert_eq!(kept, Some(grown));
    let promoted = set(&mut nodes, 8, 4, |props| props.plugin = Some(version(CANARY, false, false)));
    assert_eq!((promoted.canary, promoted.plugin.map(|active| active.replaces)), (None, Some(true)));
    // A change to a third plugin, or to none, ends it too.
    set(&mut nodes, 9, 5, |props| props.plugin = Some(version(ACTIVE, false, false)));
    set(&mut nodes, 10, 6, |props| props.canary = canary(10));
    let third = set(&mut nodes, 11, 7, |props| props.plugin = Some(version(PluginDigest([3; 32]), false, false)));
    assert_eq!(third.canary, None);
    for (call, wanted) in [(12, canary(0)), (13, canary(100))] {
        let props = BucketProps { canary: wanted, ..third.clone() };
        nodes.change(0, call, CatalogChange::BucketSet(tenant(), name("cart"), 8, props));
        assert_eq!(nodes.answer(call).expect_err("no share").code, ErrorCode::BadRequest);
    }
    let alone = BucketProps { plugin: None, canary: canary(10), ..third };
    nodes.change(0, 14, CatalogChange::BucketSet(tenant(), name("cart"), 8, alone));
    assert_eq!(nodes.answer(14).expect_err("beside nothing").code, ErrorCode::BadRequest);
}

#[test]
pub(crate) fn what_a_canary_gains_is_stored_only_when_its_delay_is_over_anew() {
    let mut nodes = catalog();
    let made = set(&mut nodes, 5, 1, |props| props.canary = canary(10)).canary.expect("a canary");
    let props = set(&mut nodes, 6, 2, |props| props.canary = canary(50));
    let grown = props.canary.expect("a canary").plugin;
    assert!(grown.since > made.plugin.since, "{grown:?} after {made:?}");
    let (begun_ms, delay_ms) = (made.plugin.since.ms(), props.fold_delay_ms);
    assert!(!props.folds_at_once(&grown, begun_ms + delay_ms), "of these keys it merges some since a moment");
    assert!(props.folds_at_once(&grown, grown.since.ms() + delay_ms));
    // It gains no keys with a smaller share, or with another change.
    let less = set(&mut nodes, 7, 3, |props| props.canary = canary(20)).canary.expect("a canary");
    let same = set(&mut nodes, 8, 4, |props| props.siblings = 9).canary.expect("a canary");
    assert_eq!((less.percent, less.plugin, same), (20, grown, less));
}

#[test]
pub(crate) fn what_a_canary_gives_back_is_stored_only_when_the_delay_is_over() {
    let mut nodes = catalog();
    let active = |props: &BucketProps| props.plugin.expect("it merges");
    let first = set(&mut nodes, 5, 1, |props| props.canary = canary(50));
    assert!(!active(&first).replaces);
    let grown = set(&mut nodes, 6, 2, |props| props.canary = canary(60));
    assert_eq!(active(&grown), active(&first), "the other one gains keys");
    let less = set(&mut nodes, 7, 3, |props| props.canary = canary(20));
    let (back, delay_ms) = (active(&less), less.fold_delay_ms);
    assert!(back.since > active(&first).since && back.plugin == ACTIVE);
    assert!(!less.folds_at_once(&back, back.since.ms() + delay_ms - 1));
    assert!(less.folds_at_once(&back, back.since.ms() + delay_ms));
    let none = set(&mut nodes, 8, 4, |props| props.canary = None);
    assert!(active(&none).since > back.since, "the rest comes back");
    assert_eq!(active(&set(&mut nodes, 9, 5, |props| props.siblings = 9)), active(&none));
}

#[test]
fn a_shadow_ends_when_it_becomes_the_plugin_and_stays_beside_others() {
    let mut nodes = catalog();
    let shadow = Shadow { plugin: CANARY, since: Hlc::default(), percent: 100 };
    let first = set(&mut nodes, 5, 1, |props| props.shadow = Some(shadow)).shadow.expect("a shadow");
    assert!(first.since > Hlc::default());
    let less = set(&mut nodes, 6, 2, |props| props.shadow = Some(Shadow { percent: 5, ..shadow })).shadow;
    assert_eq!(less, Some(Shadow { percent: 5, ..first }), "it is run since then");
    let third = set(&mut nodes, 7, 3, |props| props.plugin = Some(version(PluginDigest([3; 32]), false, false)));
    assert_eq!(third.shadow, less);
    assert_eq!(set(&mut nodes, 8, 4, |props| props.plugin = Some(version(CANARY, false, false))).shadow, None);
    let same = BucketProps { shadow: Some(shadow), plugin: Some(version(CANARY, false, false)), ..third };
    nodes.change(0, 9, CatalogChange::BucketSet(tenant(), name("cart"), 5, same));
    assert_eq!(nodes.answer(9).expect_err("it merges already").code, ErrorCode::BadRequest);
}

#[test]
pub(crate) fn a_plugin_that_is_on_trial_is_not_deleted() {
    let mut nodes = catalog();
    let shadow = Shadow { plugin: PluginDigest([3; 32]), since: Hlc::default(), percent: 100 };
    set(&mut nodes, 5, 1, |props| (props.canary, props.shadow) = (canary(10), Some(shadow)));
    for (call, plugin, what) in [(6, CANARY, "canary of bucket cart"), (7, shadow.plugin, "shadow of bucket cart")] {
        nodes.change(0, call, CatalogChange::PluginDelete(tenant(), plugin, 1_000));
        let refused = nodes.answer(call).expect_err("it is used");
        assert!(refused.code == ErrorCode::BadRequest && refused.message.contains(what), "{refused}");
    }
    set(&mut nodes, 8, 2, |props| (props.canary, props.shadow) = (None, None));
    nodes.change(0, 9, CatalogChange::PluginDelete(tenant(), CANARY, 1_000));
    nodes.deliver();
    assert!(nodes.answer(9).is_ok());
}
