//! Quotas: rates, and writes to full buckets.

use std::collections::BTreeMap;

use rejoin_core::control::{CatalogChange, CatalogEvent, plugin_record};
use rejoin_core::quota::{Rate, Reached, reached, whole};
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::quota::{Amounts, Limit, MAX_WEIGHT, Quota};
use rejoin_proto::{ErrorCode, Hlc, PluginDigest, TenantId};

use crate::support::catalog::Nodes;
use crate::support::cluster::Cluster;
use crate::support::{bucket, delete, get, layout, name, object_id, put, tenant, with};

const SECOND_US: u64 = 1_000_000;

#[test]
pub(crate) fn a_rate_lets_through_what_it_says_and_tells_when_to_come_back() {
    let (mut rate, mut now_us, mut taken) = (Rate::default(), 5 * SECOND_US, 0);
    let end_us = now_us + 10 * SECOND_US;
    while now_us < end_us {
        match rate.take(now_us, 100, 1) {
            Ok(()) => taken += 1,
            Err(wait_ms) => {
                assert!((1..=10).contains(&wait_ms), "{wait_ms}");
                // A microsecond too early is too early.
                let mut early = rate;
                assert!(early.take(now_us + u64::from(wait_ms) * 1_000 - 1_001, 100, 1).is_err());
                now_us += u64::from(wait_ms) * 1_000;
            }
        }
    }
    assert!((1_095..=1_105).contains(&taken), "a burst of 100, then 100 a second: {taken}");
    // What was not used for long is one burst, not more.
    let later = now_us + 1_000 * SECOND_US;
    assert_eq!((0..1_000).filter(|_| rate.take(later, 100, 1).is_ok()).count(), 100);
}

#[test]
fn a_request_that_is_larger_than_a_burst_waits_for_a_full_one_and_passes() {
    let (mut rate, now_us) = (Rate::default(), SECOND_US);
    assert_eq!(rate.take(now_us, 1_000, 5_000), Ok(()));
    let wait_ms = rate.take(now_us, 1_000, 1).expect_err("five seconds' worth is gone");
    assert_eq!(wait_ms, 4_001);
    assert_eq!(rate.take(now_us + 5 * SECOND_US, 1_000, 5_000), Ok(()));
    assert!(Rate::default().take(u64::MAX / 2, 1, u64::MAX).is_ok());
}

#[test]
pub(crate) fn what_was_used_before_it_was_counted_is_owed() {
    let (mut rate, now_us) = (Rate::default(), 7 * SECOND_US);
    assert_eq!(rate.check(now_us), Ok(()));
    // Half a second's worth, twice: the burst is used up.
    rate.owe(now_us, 1_000, 500);
    assert_eq!(rate.check(now_us), Ok(()));
    rate.owe(now_us, 1_000, 500);
    assert_eq!(rate.check(now_us), Err(1));
    rate.owe(now_us, 1_000, 3_000);
    let wait_ms = rate.check(now_us).expect_err("three seconds are owed");
    assert_eq!(wait_ms, 3_001);
    assert_eq!(rate.check(now_us + u64::from(wait_ms) * 1_000), Ok(()));
    rate.owe(u64::MAX, 1, u64::MAX);
    assert!(rate.check(0).is_err());
}

#[test]
fn a_limit_is_reached_by_as_much_as_it_says() {
    let quota = Quota::default().with(Limit::Objects, 10).warn(Limit::Objects, 8).warn(Limit::InFlight, 3);
    let seen = |objects, in_flight| {
        let mut used = Amounts::default();
        used.set(Limit::Objects, Some(objects));
        used.set(Limit::InFlight, in_flight);
        reached(&quota, &used).collect::<Vec<_>>()
    };
    assert_eq!(seen(7, None), []);
    assert_eq!(seen(8, Some(2)), [(Limit::Objects, false, 8, 8)]);
    let all = [(Limit::Objects, true, 10, 12), (Limit::Objects, false, 8, 12), (Limit::InFlight, false, 3, 3)];
    assert_eq!(seen(12, Some(3)), all);
}

#[test]
fn what_a_node_has_of_a_bucket_stands_for_the_whole() {
    assert_eq!([whole(30, 64, 256), whole(30, 256, 256), whole(30, 0, 256)], [120, 30, 0]);
    assert_eq!(whole(u64::MAX, 1, 65_536), u64::MAX);
}

/// A cluster whose bucket is full.
fn full(limit: Limit) -> Cluster {
    let mut cluster = Cluster::new(3, BucketProps::default());
    for (request, key) in [(1, "a"), (2, "b")] {
        assert_eq!(cluster.put(0, put(key, "v", request)).outcome, PutOutcome::Stored);
    }
    let reached = Reached { whose: "tenant shop".into(), limit, most: 2, used: Some(2) };
    let event = Event::Full(BTreeMap::from([(object_id("").bucket, reached)]));
    (0..3).for_each(|at| cluster.event(at, event.clone()));
    cluster
}

#[test]
pub(crate) fn a_full_bucket_refuses_new_objects_and_siblings_and_nothing_is_written() {
    let mut cluster = full(Limit::Bytes);
    for (request, key) in [(3, "c"), (4, "a")] {
        let before = cluster.stored(0, key);
        let asked = cluster.ask_put(0, put(key, "more", request));
        cluster.deliver();
        let error = cluster.error(asked);
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::QuotaExceeded, 1_000), "{error}");
        let figures = "quota exceeded: tenant shop may have 2 bytes stored, and has about 2";
        assert!(error.message.contains(figures), "{error}");
        for at in 0..3 {
            assert_eq!(cluster.stored(at, key), before, "node {at}");
        }
    }
    // A context of nothing replaces nothing.
    let nothing = cluster.get(0, get("c")).context;
    assert_eq!(cluster.refused(0, with(&nothing, put("c", "new", 5))), ErrorCode::QuotaExceeded);
    assert_eq!(cluster.get(0, get("a")).value.as_deref(), Some(&b"v"[..]), "reads go on");
    (0..3).for_each(|at| cluster.event(at, Event::Full(BTreeMap::new())));
    assert_eq!(cluster.put(0, put("c", "v", 6)).outcome, PutOutcome::Stored);
}

#[test]
pub(crate) fn a_full_bucket_takes_deletes_and_writes_that_replace_everything() {
    let mut cluster = full(Limit::Bytes);
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.put(0, with(&seen, put("a", "small", 3))).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(0, delete("b", 4)).outcome, PutOutcome::Stored);
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.put(0, with(&seen, delete("a", 5))).outcome, PutOutcome::Stored);
    // What is deleted is not there to be replaced.
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.refused(0, with(&seen, put("a", "back", 6))), ErrorCode::QuotaExceeded);
}

/// What is deleted is no object, although its tombstone is kept.
#[test]
pub(crate) fn a_bucket_with_all_its_objects_takes_every_write_to_one_of_them() {
    let mut cluster = full(Limit::Objects);
    assert_eq!(cluster.refused(0, put("c", "v", 3)), ErrorCode::QuotaExceeded);
    assert_eq!(cluster.put(0, put("a", "a sibling", 4)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(0, delete("b", 5)).outcome, PutOutcome::Stored);
    let seen = cluster.get(0, get("b")).context;
    assert_eq!(cluster.put(0, with(&seen, delete("b", 6))).outcome, PutOutcome::Stored);
    let seen = cluster.get(0, get("b")).context;
    assert_eq!(cluster.refused(0, with(&seen, put("b", "again", 7))), ErrorCode::QuotaExceeded);
    assert_eq!(cluster.refused(0, put("d", "v", 8)), ErrorCode::QuotaExceeded);
    assert_eq!(cluster.put(0, put("a", "one more", 9)).outcome, PutOutcome::Stored);
}

#[test]
fn objects_that_are_deleted_are_counted_no_more_and_their_bytes_are() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.pass(1);
    let usage = |cluster: &Cluster, at: usize| cluster.nodes[at].shard.usage()[&object_id("").bucket];
    for (request, key) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(cluster.put(0, put(key, "v", request)).outcome, PutOutcome::Stored);
    }
    assert_eq!(cluster.put(0, delete("b", 4)).outcome, PutOutcome::Stored, "it leaves a sibling: it has seen nothing");
    for at in 0..3 {
        let sum = usage(&cluster, at);
        assert_eq!((sum.count, sum.live), (3, 3), "node {at}");
    }
    for (request, key) in [(5, "b"), (6, "c")] {
        let seen = cluster.get(0, get(key)).context;
        assert_eq!(cluster.put(0, with(&seen, delete(key, request))).outcome, PutOutcome::Stored);
    }
    let sums: Vec<_> = (0..3).map(|at| usage(&cluster, at)).collect();
    for sum in &sums {
        assert_eq!((sum.count, sum.live), (3, 1));
        assert!(sum.bytes > 3 * 10, "tombstones have bytes: {}", sum.bytes);
    }
    // The figures are those of the store, and come back with it.
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    assert_eq!(usage(&cluster, 0), sums[0]);
}

#[test]
pub(crate) fn a_tenant_pushes_no_more_plugins_than_its_quota_allows() {
    let mut nodes = Nodes::connected(2);
    let push = |of: TenantId, digest: u8, bytes| {
        let body = plugin_record(name("cart"), "1".into(), bytes, false, false);
        CatalogChange::PluginAdd(of, PluginDigest([digest; 32]), body)
    };
    let quota = Quota::default().with(Limit::Plugins, 2).with(Limit::PluginBytes, 100);
    nodes.change(0, 1, CatalogChange::QuotaSet(tenant(), None, Box::new(quota)));
    nodes.deliver();
    nodes.change(0, 2, push(tenant(), 1, 60));
    nodes.change(0, 3, push(tenant(), 2, 41));
    let error = nodes.answer(3).expect_err("101 bytes");
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::QuotaExceeded, 0), "{error}");
    assert!(error.message.contains("100 bytes of plugins, and has about 60"), "{error}");
    nodes.change(0, 4, push(tenant(), 2, 40));
    nodes.deliver();
    // One that is there already is no more.
    nodes.change(1, 5, push(tenant(), 1, 60));
    nodes.change(1, 6, push(tenant(), 3, 0));
    assert!(nodes.answer(6).expect_err("the third").message.contains("may have 2 plugins"));
    nodes.change(1, 7, push(TenantId(9), 3, 1_000));
    nodes.change(1, 8, CatalogChange::PluginDelete(tenant(), PluginDigest([1; 32]), 9_000));
    nodes.change(1, 9, push(tenant(), 3, 60));
    nodes.deliver();
    assert!([2, 4, 5, 7, 8, 9].into_iter().all(|call| nodes.answer(call).is_ok()));
}

#[test]
fn a_quota_is_of_a_bucket_that_is_there_and_has_only_limits_that_hold() {
    let mut nodes = Nodes::connected(1);
    nodes.change(0, 1, CatalogChange::BucketCreate(tenant(), name("cart"), BucketProps::default()));
    let bucket = nodes.bucket(0, "cart").0;
    let (objects, plugins) = (Quota::default().with(Limit::Objects, 1), Quota::default().with(Limit::Plugins, 1));
    let siblings = Quota::default().warn(Limit::Siblings, 3);
    let plugins = plugins.weighing(MAX_WEIGHT);
    for (call, (of, quota, code)) in (2..).zip([
        (Some("none"), objects, Some(ErrorCode::NotFound)),
        (Some("cart"), plugins, Some(ErrorCode::BadRequest)),
        (None, siblings, Some(ErrorCode::BadRequest)),
        (Some("cart"), objects.weighing(2), Some(ErrorCode::BadRequest)),
        (None, plugins.weighing(0), Some(ErrorCode::BadRequest)),
        (None, plugins.weighing(MAX_WEIGHT + 1), Some(ErrorCode::BadRequest)),
        (Some("cart"), objects, None),
        (None, plugins, None),
    ]) {
        nodes.change(0, call, CatalogChange::QuotaSet(tenant(), of.map(name), Box::new(quota)));
        assert_eq!(nodes.answer(call).err().map(|error| error.code), code, "{of:?} {quota:?}");
    }
    let view = ClusterView::new(layout(1), nodes.all[0].records());
    assert_eq!(view.quota((tenant(), Some(bucket))), Some(&objects));
    assert_eq!((view.quota((tenant(), None)), view.quotas().count()), (Some(&plugins), 2));
    assert_eq!((view.weight(tenant()), view.weight(TenantId(0))), (MAX_WEIGHT, 1));
    // It ends with its bucket: the next of the name has none.
    nodes.change(0, 20, CatalogChange::BucketDelete(tenant(), name("cart"), 0));
    nodes.event(0, CatalogEvent::Tick);
    nodes.change(0, 21, CatalogChange::BucketCreate(tenant(), name("cart"), BucketProps::default()));
    let view = ClusterView::new(layout(1), nodes.all[0].records());
    let again = view.bucket_named(tenant(), &name("cart")).expect("made again").id;
    assert!(again != bucket && view.quota((tenant(), Some(again))).is_none());
}

#[test]
pub(crate) fn siblings_above_the_quota_are_refused_before_the_buckets_own_limit() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let quota = |of, most| {
        let body = RecordBody::Quota(Box::new(Quota::default().with(Limit::Siblings, most)));
        Record { key: RecordKey::Quota(tenant(), of), version: 1, stamp: Hlc::default(), body }
    };
    let (own, all) = (quota(Some(object_id("").bucket), 3), quota(None, 2));
    cluster.records(&[bucket(BucketProps::default()), own.clone()]);
    (1..=3).for_each(|request| assert_eq!(cluster.put(0, put("a", "v", request)).outcome, PutOutcome::Stored));
    let asked = cluster.ask_put(0, put("a", "v", 4));
    cluster.deliver();
    let error = cluster.error(asked);
    assert_eq!(error.code, ErrorCode::QuotaExceeded, "{error}");
    assert!(error.message.contains("bucket cart may have 3 siblings of an object"), "{error}");
    // The tenant's counts too, and a write that has seen them all passes.
    cluster.records(&[bucket(BucketProps::default()), own, all]);
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.put(0, with(&seen, put("a", "one", 5))).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(0, put("a", "two", 6)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.refused(0, put("a", "three", 7)), ErrorCode::QuotaExceeded);
}
