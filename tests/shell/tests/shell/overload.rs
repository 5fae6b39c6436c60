//! More than a node takes: it says so at once, and nothing hangs.

use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, Quorum};
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_shell::{Setup, simulate};
use rejoin_wire::Limits;

/// Administrative requests that one client may have under way, as in the node's `session.rs`.
const MAX_ADMIN_REQUESTS: usize = 32;

/// Of many reads at once, some are refused for load and the others answered; and all of them soon.
fn flood(more: &'static str) {
    simulate(&Setup { more, ..Setup::default() }, |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        let (mut reads, begun) = (JoinSet::new(), world.now());
        for key in 0..300_u32 {
            let read = bucket.get(key.to_string());
            reads.spawn(async move { read.await });
        }
        let outcomes = reads.join_all().await;
        let refused = outcomes
            .iter()
            .filter(|outcome| outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Overloaded))
            .count();
        let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(
            refused > 0 && answered > 0 && refused + answered == 300,
            "{refused} refused, {answered} answered: {outcomes:?}"
        );
        assert!(world.now() - begun < Duration::from_millis(100), "it took {:?}", world.now() - begun);
        bucket.get("k").await.expect("there is room again");
    });
}

#[test]
fn reads_that_find_the_inbox_full_are_refused_at_once() {
    flood("shards = 1\ninbox = 8");
}

/// As many writes at once, by a client that waits: the node refuses some, and none fails.
#[test]
fn a_client_that_waits_for_room_has_all_its_writes_done() {
    simulate(&Setup { more: "shards = 1\ninbox = 8", ..Setup::default() }, |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1).backpressure(true)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        let mut writes = JoinSet::new();
        for key in 0..300_u32 {
            let write = bucket.put(key.to_string(), b"v".to_vec()).blind().timeout(Duration::from_secs(30));
            writes.spawn(async move { write.await.map(drop) });
        }
        writes.join_all().await.into_iter().for_each(|written| written.unwrap());
        assert!(world.figure("n1", "rejoin_overloaded_total").await > 0.0, "the node has refused some");
    });
}

/// Few requests, and large ones, that wait for nodes which do not answer: what a shard works on is bounded by its bytes
/// too.
#[test]
fn writes_whose_bytes_a_shard_has_no_room_for_are_refused_at_once() {
    simulate(&Setup { more: "shards = 1\nin_flight_bytes = 1048576", ..Setup::default() }, |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        let mut writes = JoinSet::new();
        for key in 0..30_u32 {
            let write = bucket.put(key.to_string(), vec![7; 100_000]).blind().timeout(Duration::from_secs(1));
            writes.spawn(async move { write.await.expect_err("nobody else has it").kind() });
        }
        let outcomes = writes.join_all().await;
        let count = |kind| outcomes.iter().filter(|outcome| **outcome == kind).count();
        assert_eq!((count(ErrorKind::Unknown), count(ErrorKind::Overloaded)), (10, 20), "{outcomes:?}");
        world.heal("n1", "n2");
        world.heal("n1", "n3");
        let again = bucket.put("k", vec![7; 1_000_000]).blind().timeout(Duration::from_secs(5));
        again.await.expect("there is room again, also for one that takes nearly all of it");
    });
}

#[test]
fn reads_beyond_those_that_a_shard_works_on_are_refused_at_once() {
    flood("shards = 1\nin_flight = 8");
}

#[test]
fn an_operator_has_a_bounded_number_of_verbs_under_way() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let client = world.pinned("n1").await;
        // A change waits for the other nodes, which are there as far as this one knows.
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        let mut changes = JoinSet::new();
        for number in 0..MAX_ADMIN_REQUESTS + 8 {
            let (admin, world) = (client.admin(), world.clone());
            changes.spawn_local(async move {
                let begun = world.now();
                let made = admin.create_bucket(&format!("b{number}"), BucketProps::default()).await;
                (made.map_err(|error| error.kind()), world.now() - begun)
            });
        }
        let outcomes = changes.join_all().await;
        let soon = Duration::from_millis(20);
        let refused =
            outcomes.iter().filter(|(made, after)| *made == Err(ErrorKind::Overloaded) && *after < soon).count();
        let made = outcomes.iter().filter(|(made, after)| made.is_ok() && *after > soon).count();
        assert_eq!((made, refused), (MAX_ADMIN_REQUESTS, 8), "{outcomes:?}");
        client.admin().buckets().await.expect("their places are free again");
    });
}

/// A burst of large writes, and then of large reads, is more than the queue between two nodes holds, and less than the
/// nodes have room for.
#[test]
fn a_burst_of_large_requests_among_healthy_nodes_loses_no_message() {
    simulate(&Setup { nodes: &["n1", "n2"], ..Setup::default() }, |world| async move {
        const VALUE: usize = 6 << 20;
        let wait = Duration::from_secs(50);
        let client = world.pinned("n1").await;
        let two = Quorum::Count(2);
        let props = BucketProps { n: 2, r: two, w: two, value_bytes: VALUE as u32, ..BucketProps::default() };
        client.admin().create_bucket("large", props).await.unwrap();
        // A connection for each, so that only the queue between the nodes is short.
        let mut buckets = Vec::new();
        for _ in 0..8 {
            let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
            buckets.push(client.bucket::<Bytes>("large").unwrap());
        }
        assert!(buckets.len() * VALUE > Limits::default().queue_bytes.large);
        let mut calls = JoinSet::new();
        for (key, bucket) in buckets.iter().cloned().enumerate() {
            calls.spawn_local(async move {
                bucket.put(key.to_string(), vec![1; VALUE]).blind().timeout(wait).await.map(drop)
            });
        }
        calls.join_all().await.into_iter().for_each(|written| written.unwrap());
        // Each value comes from the other node too, in one burst.
        let mut calls = JoinSet::new();
        for (key, bucket) in buckets.into_iter().enumerate() {
            calls.spawn_local(async move {
                bucket.get(key.to_string()).timeout(wait).await.map(|read| assert!(read.is_found()))
            });
        }
        calls.join_all().await.into_iter().for_each(|read| read.unwrap());
        for node in ["n1", "n2"] {
            assert_eq!(world.figure(node, "rejoin_sends_dropped_total").await, 0.0, "{node}");
        }
    });
}
