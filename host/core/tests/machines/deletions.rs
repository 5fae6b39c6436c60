//! Deletions: disabled at once, restored until their time, reaped then, and never brought back by who was away.

use rejoin_core::control::{CatalogChange, CatalogEvent, plugin_record};
use rejoin_core::tenants::TenantNames;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{
    Activation, BucketPast, BucketProps, Deleted, MAX_PAST, MAX_PAST_PLUGINS, Quorum, Record, RecordBody, RecordKey,
};
use rejoin_proto::client::{Put, PutOutcome};
use rejoin_proto::{BucketId, ErrorCode, Hlc, Name, PluginDigest, TenantId};

use crate::support::catalog::Nodes;
use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, bucket, get, layout, name, object_id, put, tenant};

/// How long what is deleted can be restored in these tests.
const AFTER_MS: u64 = 5_000;

fn with_a_bucket(count: usize) -> Nodes {
    let mut nodes = Nodes::connected(count);
    nodes.change(0, 1, CatalogChange::BucketCreate(tenant(), name("cart"), BucketProps::default()));
    nodes.deliver();
    assert!(nodes.answer(1).is_ok());
    nodes
}

fn delete() -> CatalogChange {
    CatalogChange::BucketDelete(tenant(), name("cart"), AFTER_MS)
}

fn restore() -> CatalogChange {
    CatalogChange::BucketRestore(tenant(), name("cart"))
}

/// Lets time pass at one node.
fn pass(nodes: &mut Nodes, at: usize, ms: u64) {
    (nodes.now_us, nodes.wall_ms) = (nodes.now_us + ms * 1_000, nodes.wall_ms + ms);
    // What is to be seen to first comes first.
    (0..3).for_each(|_| nodes.event(at, CatalogEvent::Tick));
}

fn kept(nodes: &Nodes, at: usize) -> Record {
    nodes.all[at].get(&RecordKey::Bucket(tenant(), name("cart"))).expect("a record").clone()
}

fn is_reaped(nodes: &Nodes, at: usize) -> bool {
    matches!(kept(nodes, at).body, RecordBody::DeletedBucket { deleted: Deleted { reaped: true, .. }, .. })
}

fn create() -> CatalogChange {
    CatalogChange::BucketCreate(tenant(), name("cart"), BucketProps::default())
}

#[test]
pub(crate) fn a_bucket_is_reaped_at_its_time_and_its_name_is_free_then() {
    let mut nodes = with_a_bucket(2);
    nodes.change(0, 2, delete());
    nodes.deliver();
    let deleted = nodes.answer(2).expect("it is there");
    let RecordBody::DeletedBucket { id, deleted: Deleted { reap_ms, reaped }, .. } = &deleted.body else {
        panic!("{deleted:?}")
    };
    assert_eq!((*reap_ms, *reaped), (nodes.wall_ms + AFTER_MS, false));
    // Deleting it again moves nothing.
    nodes.change(1, 3, delete());
    nodes.deliver();
    assert_eq!(nodes.answer(3).expect("as it is"), deleted);
    nodes.change(1, 4, create());
    let error = nodes.answer(4).expect_err("it can still be restored");
    assert!(error.code == ErrorCode::Exists && error.message.contains("bucket restore cart"), "{error}");
    pass(&mut nodes, 0, AFTER_MS - 1);
    assert!(!is_reaped(&nodes, 0), "it can be restored until then");
    // Each node does it alone.
    nodes.cut(0, 1);
    pass(&mut nodes, 0, 1);
    pass(&mut nodes, 1, 0);
    assert!(is_reaped(&nodes, 0) && nodes.agree(), "and both make the same record");
    assert_eq!(nodes.kept[0], nodes.all[0].catalog(), "which is saved");
    for (call, change) in [(5, restore()), (6, delete())] {
        nodes.change(0, call, change);
        assert_eq!(nodes.answer(call).expect_err("it is gone").code, ErrorCode::NotFound);
    }
    let view = |nodes: &Nodes| ClusterView::new(layout(3), nodes.all[0].records());
    assert!(view(&nodes).is_reaped(*id) && view(&nodes).bucket(*id).is_none());
    assert!(view(&nodes).bucket_named(tenant(), &name("cart")).is_none());
}

#[test]
pub(crate) fn a_name_that_is_used_again_means_another_bucket_and_nobody_brings_the_old_one_back() {
    let mut nodes = with_a_bucket(4);
    let first = nodes.bucket(0, "cart").0;
    // Two are away from now on: one knows the bucket, the other its deletion.
    (0..3).for_each(|at| nodes.cut(at, 3));
    nodes.change(0, 2, delete());
    nodes.deliver();
    (0..2).for_each(|at| nodes.cut(at, 2));
    pass(&mut nodes, 0, AFTER_MS);
    nodes.deliver();
    nodes.change(1, 3, create());
    nodes.deliver();
    let made = nodes.answer(3).expect("the name is free");
    let RecordBody::Bucket { id: second, past, .. } = &made.body else { panic!("{made:?}") };
    assert!(*second != first && second.place() == first.place() && past.buckets == [first]);
    let is_right = |nodes: &Nodes, at: usize| {
        let view = ClusterView::new(layout(3), nodes.all[at].records());
        assert!(view.is_reaped(first) && view.bucket(first).is_none(), "node {at}");
        let named = view.bucket_named(tenant(), &name("cart")).expect("the new one");
        assert_eq!((named.id, view.buckets().count()), (*second, 1), "node {at}");
    };
    is_right(&nodes, 0);
    for away in [2, 3] {
        (0..away).for_each(|at| nodes.connect(at, away));
        is_right(&nodes, away);
    }
    assert!(nodes.agree() && nodes.overruled.is_empty(), "{:?}", nodes.overruled);
    // The same again, until there is no telling them apart any more.
    let mut call = 10;
    for times in 1..=MAX_PAST {
        nodes.change(0, call, delete());
        nodes.deliver();
        assert!(nodes.answer(call).is_ok());
        pass(&mut nodes, 0, AFTER_MS);
        nodes.deliver();
        nodes.change(0, call + 1, create());
        nodes.deliver();
        match nodes.answer(call + 1) {
            Ok(record) => {
                let RecordBody::Bucket { id, past, .. } = &record.body else { panic!("{record:?}") };
                assert!(past.buckets.len() == times + 1 && !past.buckets.contains(id), "{record:?}");
            }
            Err(error) => {
                assert!(times == MAX_PAST && error.message.contains("use another name"), "{times}: {error}");
            }
        }
        call += 2;
    }
}

/// A node that was away may have kept the old bucket under any name.
#[test]
pub(crate) fn an_id_that_was_reaped_is_served_under_no_name() {
    let alive = bucket(BucketProps::default());
    let RecordBody::Bucket { id, props, .. } = alive.body.clone() else { panic!("a bucket") };
    let again = RecordBody::Bucket {
        id: BucketId(id.0 ^ 1),
        props,
        past: BucketPast { buckets: vec![id], ..BucketPast::default() },
    };
    let again = Record { body: again, version: 7, ..alive.clone() };
    let lost = Record { key: RecordKey::Bucket(tenant(), name("lost")), ..alive };
    let view = ClusterView::new(layout(3), &[again, lost]);
    assert!(view.is_reaped(id) && view.bucket(id).is_none());
    assert!(view.target(tenant(), &name("lost"), &"k".into()).is_err());
    assert_eq!(view.target(tenant(), &name("cart"), &"k".into()).expect("served").object.bucket, BucketId(id.0 ^ 1));
}

#[test]
pub(crate) fn a_restoration_wins_over_a_reaping_that_did_not_know_of_it() {
    let mut nodes = with_a_bucket(3);
    let id = nodes.bucket(0, "cart").0;
    nodes.change(0, 2, delete());
    nodes.deliver();
    nodes.cut(0, 2);
    nodes.cut(1, 2);
    nodes.change(0, 3, restore());
    nodes.deliver();
    assert!(nodes.answer(3).is_ok());
    pass(&mut nodes, 2, AFTER_MS);
    assert!(is_reaped(&nodes, 2), "it has not heard of it");
    nodes.connect(0, 2);
    assert!(nodes.agree() && nodes.bucket(2, "cart").0 == id);
    pass(&mut nodes, 0, AFTER_MS);
    assert!(!is_reaped(&nodes, 0));
    // And a node that was away when it was deleted does not bring it back.
    nodes.cut(0, 2);
    nodes.change(0, 4, delete());
    nodes.deliver();
    pass(&mut nodes, 0, AFTER_MS);
    nodes.connect(0, 2);
    assert!(nodes.agree() && is_reaped(&nodes, 2));
}

/// A racing bucket of the name, which was never deleted, is kept as every loser is.
#[test]
fn a_deletion_takes_only_the_bucket_that_it_names() {
    let mut nodes = Nodes::new(2);
    for (at, siblings) in [(0, 10), (1, 20)] {
        let props = BucketProps { siblings, ..BucketProps::default() };
        nodes.change(at, at as u64, CatalogChange::BucketCreate(tenant(), name("cart"), props));
    }
    let (deleted, other) = (nodes.bucket(0, "cart").0, nodes.bucket(1, "cart").0);
    nodes.change(0, 2, delete());
    nodes.connect(0, 1);
    assert!(nodes.agree());
    assert_eq!(nodes.bucket(0, &format!("cart.lost-{other}")).0, other);
    assert!(matches!(kept(&nodes, 1).body, RecordBody::DeletedBucket { id, .. } if id == deleted));
}

#[test]
pub(crate) fn a_deleted_bucket_and_all_buckets_of_a_deleted_tenant_are_not_served() {
    let deleted = |reaped| Deleted { reap_ms: WALL_MS + AFTER_MS, reaped };
    let alive = bucket(BucketProps::default());
    let RecordBody::Bucket { id, props, past } = alive.body.clone() else { panic!("a bucket") };
    let body =
        |reaped| RecordBody::DeletedBucket { id, props: props.clone(), past: past.clone(), deleted: deleted(reaped) };
    let gone = |reaped| Record { body: body(reaped), version: 4, ..alive.clone() };
    let of = |body| Record { key: RecordKey::Tenant(tenant()), version: 2, stamp: Hlc::default(), body };
    let owner = || RecordBody::DeletedTenant { name: name("shop"), deleted: deleted(false) };
    let reaped_owner = of(RecordBody::DeletedTenant { name: name("shop"), deleted: deleted(true) });
    let view = |records: &[Record]| ClusterView::new(layout(3), records);
    let served = |view: &ClusterView| view.target(tenant(), &name("cart"), &"k".into());
    assert!(served(&view(std::slice::from_ref(&alive))).is_ok());
    for (records, is_kept) in [
        (vec![gone(false)], true),
        (vec![gone(true)], false),
        (vec![alive.clone(), of(owner())], true),
        (vec![alive.clone(), reaped_owner], false),
    ] {
        let view = view(&records);
        assert_eq!(served(&view).expect_err("it is deleted").code, ErrorCode::NotFound, "{records:?}");
        // Until it is reaped its copies are kept equal, so that it can be restored.
        assert_eq!((view.bucket(id).is_some(), view.is_reaped(id)), (is_kept, !is_kept), "{records:?}");
    }
}

#[test]
fn a_plugin_that_a_bucket_uses_is_not_deleted() {
    let digest = PluginDigest([5; 32]);
    let mut nodes = with_a_bucket(1);
    let push = || CatalogChange::PluginAdd(tenant(), digest, plugin_record(name("cart"), "1".into(), 9, false, false));
    nodes.change(0, 2, push());
    let plugin =
        Activation { plugin: digest, self_causal: false, since: Hlc::default(), replaces: false, validates: false };
    let props = BucketProps { plugin: Some(plugin), ..BucketProps::default() };
    nodes.change(0, 3, CatalogChange::BucketSet(tenant(), name("cart"), 1, props));
    let delete_plugin = || CatalogChange::PluginDelete(tenant(), digest, AFTER_MS);
    let refused = |nodes: &mut Nodes, call| {
        nodes.change(0, call, delete_plugin());
        let error = nodes.answer(call).expect_err("it is used");
        assert!(error.code == ErrorCode::BadRequest && error.message.contains("bucket cart"), "{error}");
    };
    refused(&mut nodes, 4);
    nodes.change(0, 5, delete());
    refused(&mut nodes, 6);
    // That of another tenant is another one.
    nodes.change(0, 7, CatalogChange::PluginDelete(TenantId(1), digest, AFTER_MS));
    assert_eq!(nodes.answer(7).expect_err("it has none").code, ErrorCode::NotFound);
    pass(&mut nodes, 0, AFTER_MS);
    nodes.change(0, 8, delete_plugin());
    assert!(nodes.answer(8).is_ok());
    for (call, change) in [
        (9, CatalogChange::PluginRelease(tenant(), digest)),
        (
            11,
            CatalogChange::BucketCreate(
                tenant(),
                name("other"),
                BucketProps { plugin: Some(plugin), ..BucketProps::default() },
            ),
        ),
    ] {
        nodes.change(0, call, change);
        assert_eq!(nodes.answer(call).expect_err("it is deleted").code, ErrorCode::NotFound);
    }
    let restore_plugin = || CatalogChange::PluginRestore(tenant(), digest);
    nodes.change(0, 12, restore_plugin());
    assert!(matches!(nodes.answer(12).expect("in time").body, RecordBody::Plugin(_)));
    nodes.change(0, 13, delete_plugin());
    assert!(nodes.answer(13).is_ok());
    pass(&mut nodes, 0, AFTER_MS);
    nodes.change(0, 14, restore_plugin());
    assert_eq!(nodes.answer(14).expect_err("it is gone").code, ErrorCode::NotFound);
    nodes.change(0, 10, push());
    assert!(matches!(nodes.answer(10).expect("pushed again").body, RecordBody::Plugin(_)));
}

#[test]
fn that_a_plugin_was_pushed_unchecked_is_said_for_ever() {
    let digest = PluginDigest([5; 32]);
    let mut nodes = with_a_bucket(1);
    let checked = || plugin_record(name("cart"), "1".into(), 9, false, false);
    let unchecked = |token: &str| {
        let mut record = checked();
        record.unchecked = Some(name(token));
        record
    };
    let by = |nodes: &mut Nodes, call, body| {
        nodes.change(0, call, CatalogChange::PluginAdd(tenant(), digest, body));
        let record = nodes.answer(call).expect("pushed");
        let RecordBody::Plugin(plugin) = record.body else { panic!("{record:?}") };
        (record.version, plugin.unchecked)
    };
    assert_eq!(by(&mut nodes, 2, checked()), (1, None));
    assert_eq!(by(&mut nodes, 3, unchecked("root")), (2, Some(name("root"))));
    assert_eq!(by(&mut nodes, 4, unchecked("other")), (2, Some(name("root"))));
    assert_eq!(by(&mut nodes, 5, checked()), (2, Some(name("root"))), "a check later takes nothing back");
    nodes.change(0, 6, CatalogChange::PluginDelete(tenant(), digest, AFTER_MS));
    assert!(nodes.answer(6).is_ok());
    let (version, unchecked) = by(&mut nodes, 7, checked());
    assert_eq!((version, unchecked), (5, Some(name("root"))), "nor does a deletion");
}

#[test]
fn a_bucket_names_the_plugins_that_it_had_before_also_when_it_is_restored() {
    let (first, second) = (PluginDigest([5; 32]), PluginDigest([6; 32]));
    let mut nodes = with_a_bucket(1);
    for (call, digest, version) in [(2, first, "1"), (3, second, "2")] {
        let record = plugin_record(name("cart"), version.into(), 9, false, false);
        nodes.change(0, call, CatalogChange::PluginAdd(tenant(), digest, record));
    }
    let (mut version, mut call) = (1, 10);
    let mut set = |nodes: &mut Nodes, digest: Option<PluginDigest>, siblings| {
        let plugin = digest.map(|plugin| Activation {
            plugin,
            self_causal: false,
            since: Hlc::default(),
            replaces: false,
            validates: false,
        });
        let props = BucketProps { plugin, siblings, ..BucketProps::default() };
        nodes.change(0, call, CatalogChange::BucketSet(tenant(), name("cart"), version, props));
        (version, call) = (version + 1, call + 1);
        nodes.answer(call - 1).expect("it is set")
    };
    let before = |record: &Record| match &record.body {
        RecordBody::Bucket { past, .. } => past.plugins.iter().map(|past| past.plugin.map(|of| of.plugin)).collect(),
        other => panic!("a bucket was expected, not {other:?}"),
    };
    for (digest, siblings, expected) in [
        (Some(first), 9, vec![None]),
        (Some(first), 10, vec![None]),
        (Some(second), 10, vec![None, Some(first)]),
        (Some(first), 10, vec![None, Some(first), Some(second)]),
        (None, 10, vec![None, Some(first), Some(second), Some(first)]),
    ] {
        let found: Vec<Option<PluginDigest>> = before(&set(&mut nodes, digest, siblings));
        assert_eq!(found, expected);
    }
    for turn in 0..MAX_PAST_PLUGINS {
        set(&mut nodes, Some(if turn % 2 == 0 { first } else { second }), 10);
    }
    let last = set(&mut nodes, None, 10);
    let found = before(&last);
    assert_eq!((found.len(), found.first(), found.last()), (MAX_PAST_PLUGINS, Some(&Some(first)), Some(&Some(second))));

    nodes.change(0, 1000, delete());
    assert!(nodes.answer(1000).is_ok());
    nodes.change(0, 1001, CatalogChange::BucketRestore(tenant(), name("cart")));
    assert_eq!(before(&nodes.answer(1001).expect("in time")), found);
    nodes.change(0, 1002, delete());
    assert!(nodes.answer(1002).is_ok());
    pass(&mut nodes, 0, AFTER_MS);
    nodes.change(0, 1003, CatalogChange::BucketCreate(tenant(), name("cart"), BucketProps::default()));
    assert_eq!(before(&nodes.answer(1003).expect("the name is free")), Vec::new(), "it is another bucket");
}

#[test]
pub(crate) fn a_tenant_is_deleted_and_restored_and_its_name_is_that_of_another_one_later() {
    let mut nodes = Nodes::connected(2);
    let shop: fn() -> Name = || name("shop");
    nodes.change(0, 1, CatalogChange::TenantCreate(shop()));
    nodes.change(0, 2, CatalogChange::TenantDelete(shop(), AFTER_MS));
    nodes.deliver();
    nodes.change(1, 3, CatalogChange::TenantRestore(shop()));
    nodes.deliver();
    assert!(matches!(nodes.answer(3).expect("in time").body, RecordBody::Tenant { .. }) && nodes.agree());
    nodes.change(0, 4, create());
    nodes.change(0, 5, CatalogChange::TenantDelete(shop(), AFTER_MS));
    nodes.deliver();
    nodes.change(0, 6, CatalogChange::TenantCreate(shop()));
    assert_eq!(nodes.answer(6).expect_err("it can be restored").code, ErrorCode::Exists);
    pass(&mut nodes, 0, AFTER_MS);
    nodes.deliver();
    let names = |nodes: &Nodes| TenantNames::new(nodes.all[0].records());
    let reap_ms = nodes.wall_ms;
    assert_eq!((names(&nodes).get(&shop()), names(&nodes).since_ms(&shop())), (tenant(), 0));
    nodes.change(0, 7, CatalogChange::TenantRestore(shop()));
    assert_eq!(nodes.answer(7).expect_err("it is reaped").code, ErrorCode::NotFound);
    nodes.change(1, 8, CatalogChange::TenantCreate(shop()));
    nodes.deliver();
    assert!(nodes.answer(8).is_ok() && nodes.agree());
    let next = names(&nodes).get(&shop());
    assert!(next != tenant() && names(&nodes).since_ms(&shop()) == reap_ms);
    assert_eq!(names(&nodes).get(&name("other")), TenantId::from_name(&name("other")));
    // What the first one had is not the next one's, and is removed.
    let view = ClusterView::new(layout(3), nodes.all[0].records());
    assert!(view.tenant_named(&shop()) == next && view.tenant_name(next) == Some(&shop()));
    assert_eq!((view.tenant_name(tenant()), view.buckets().count(), view.reaps()), (None, 0, true));
    nodes.change(0, 9, CatalogChange::BucketCreate(next, name("cart"), BucketProps::default()));
    nodes.change(0, 10, CatalogChange::TenantDelete(shop(), 0));
    nodes.deliver();
    assert!(nodes.answer(10).is_ok());
    pass(&mut nodes, 0, 0);
    nodes.change(0, 11, CatalogChange::TenantCreate(shop()));
    nodes.deliver();
    assert_eq!(nodes.answer(11).expect("again").key, RecordKey::Tenant(TenantId::of_incarnation(&shop(), 2)));
}

#[test]
pub(crate) fn the_objects_of_a_reaped_bucket_are_removed_from_every_node() {
    let mut cluster = Cluster::new(5, BucketProps::default());
    for at in 0..400_u128 {
        let key = format!("key {at}");
        let owner = cluster.owners(&key)[0];
        assert_eq!(cluster.put(owner, put(&key, "v", at)).outcome, PutOutcome::Stored);
    }
    // One that is held by a node that does not own it.
    let all = cluster.owners("held");
    let (owners, holder) = (&all[..3], all[3]);
    owners.iter().for_each(|owner| cluster.cut(*owner));
    cluster.put(holder, Put { w: Some(Quorum::Count(1)), ..put("held", "v", 900) });
    owners.iter().for_each(|owner| cluster.heal(*owner));

    let alive = bucket(BucketProps::default());
    let RecordBody::Bucket { id, props, past } = alive.body.clone() else { panic!("a bucket") };
    let gone = |version, reaped| {
        let deleted = Deleted { reap_ms: WALL_MS, reaped };
        let body = RecordBody::DeletedBucket { id, props: props.clone(), past: past.clone(), deleted };
        Record { body, version, ..alive.clone() }
    };
    cluster.records(&[gone(4, false)]);
    let objects = |cluster: &Cluster| -> u64 {
        cluster.nodes.iter().map(|node| node.shard.usage().get(&id).map_or(0, |sum| sum.count)).sum()
    };
    (0..20).for_each(|_| cluster.pass(100));
    assert!(objects(&cluster) >= 3 * 400, "a deleted bucket keeps everything");
    let asked = cluster.ask_get(0, get("key 1"));
    cluster.deliver();
    assert_eq!(cluster.error(asked).code, ErrorCode::NotFound);

    cluster.records(&[gone(5, true)]);
    (0..200).for_each(|_| cluster.pass(100));
    assert_eq!(objects(&cluster), 0);
    for at in 0..5 {
        assert!((0..400).all(|key| cluster.stored(at, &format!("key {key}")).is_empty()), "node {at}");
        assert_eq!(cluster.nodes[at].shard.holdings(), 0, "node {at} holds nothing of it");
    }
    assert_eq!(object_id("k").bucket, id);

    // Restored after all by a node that had not heard: the bucket is empty, and takes writes.
    cluster.records(&[Record { version: 6, ..alive }]);
    let owner = cluster.owners("key 1")[0];
    assert_eq!(cluster.put(owner, put("key 1", "new", 901)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(owner, get("key 1")).value.as_deref(), Some(&b"new"[..]));
}
