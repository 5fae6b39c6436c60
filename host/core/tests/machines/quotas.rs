//! Quotas: rates, and writes to full buckets.

use std::collections::BTreeMap;

use rejoin_core::quota::{Rate, Reached, whole};
use rejoin_core::shard::event::Event;
use rejoin_proto::ErrorCode;
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::PutOutcome;

use crate::support::cluster::Cluster;
use crate::support::{delete, get, object_id, put, with};

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
fn what_a_node_has_of_a_bucket_stands_for_the_whole() {
    assert_eq!([whole(30, 64, 256), whole(30, 256, 256), whole(30, 0, 256)], [120, 30, 0]);
    assert_eq!(whole(u64::MAX, 1, 65_536), u64::MAX);
}

/// A cluster whose bucket is full.
fn full() -> Cluster {
    let mut cluster = Cluster::new(3, BucketProps::default());
    for (request, key) in [(1, "a"), (2, "b")] {
        assert_eq!(cluster.put(0, put(key, "v", request)).outcome, PutOutcome::Stored);
    }
    let reached = Reached { whose: "tenant shop".into(), what: "objects stored", limit: 2, used: Some(2) };
    let event = Event::Full(BTreeMap::from([(object_id("").bucket, reached)]));
    (0..3).for_each(|at| cluster.event(at, event.clone()));
    cluster
}

#[test]
pub(crate) fn a_full_bucket_refuses_new_objects_and_siblings_and_nothing_is_written() {
    let mut cluster = full();
    for (request, key) in [(3, "c"), (4, "a")] {
        let before = cluster.stored(0, key);
        let asked = cluster.ask_put(0, put(key, "more", request));
        cluster.deliver();
        let error = cluster.error(asked);
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::QuotaExceeded, 1_000), "{error}");
        let figures = "quota exceeded: tenant shop may have 2 objects stored, and has about 2";
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
    let mut cluster = full();
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.put(0, with(&seen, put("a", "small", 3))).outcome, PutOutcome::Stored);
    assert_eq!(cluster.put(0, delete("b", 4)).outcome, PutOutcome::Stored);
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.put(0, with(&seen, delete("a", 5))).outcome, PutOutcome::Stored);
    // What is deleted is not there to be replaced.
    let seen = cluster.get(0, get("a")).context;
    assert_eq!(cluster.refused(0, with(&seen, put("a", "back", 6))), ErrorCode::QuotaExceeded);
}
