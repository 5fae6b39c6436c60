//! Links that are cut and heal.

use std::time::Duration;

use rejoin_client::admin::{BucketInfo, BucketProps, Quorum};
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_shell::{Setup, World, simulate};

/// A peer from which nothing comes for this long is down, as the node has it, counted anew from what is sent after that
/// for the first time.
const PEER_IDLE: Duration = Duration::from_secs(4);
/// How often a quiet peer is sent something.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// From a healed link to a connection: what is left of an attempt to dial, the longest pause after it, and a handshake.
const MET_AGAIN: Duration = Duration::from_secs(5 + 3 + 1);

/// Waits until a node is connected to so many others, and says how long that took.
async fn connected(world: &World, node: &str, others: usize) -> Duration {
    let begun = world.now();
    while world.figure(node, "rejoin_peers_connected").await != others as f64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.now() - begun
}

#[test]
fn a_short_cut_is_waited_out_and_costs_no_connection() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let bucket = world.pinned_plain("n1").await;
        world.cut("n1", "n2");
        let until = world.now() + PEER_IDLE / 2;
        while world.now() < until {
            bucket.put("k", b"during".to_vec()).blind().timeout(Duration::from_millis(300)).await.unwrap();
            assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        world.heal("n1", "n2");
        // QUIC sends again by itself what the cut has swallowed.
        let all = bucket.put("k", b"after".to_vec()).blind().w(3).timeout(PEER_IDLE).await.unwrap();
        assert_eq!(all.acked, 3);
        assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0);
    });
}

#[test]
fn a_long_cut_ends_the_connections_writes_go_on_elsewhere_and_a_healed_link_brings_both_sides_together() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        let (alone, others) = (world.pinned_plain("n1").await, world.pinned_plain("n2").await);
        alone.put("k", b"before".to_vec()).blind().await.unwrap();
        world.cut("n1", "n2");
        world.cut("n1", "n3");
        let noticed = connected(&world, "n1", 0).await;
        assert!(noticed <= PEER_IDLE + KEEP_ALIVE + Duration::from_millis(100), "it took {noticed:?}");

        let asked = world.now();
        let refused = alone.put("k", b"nowhere".to_vec()).blind().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(
            world.now() - asked < Duration::from_secs(2),
            "what cannot succeed is said after the retries, not at the deadline"
        );
        let seen = others.get("k").await.unwrap();
        others.put("k", b"during".to_vec()).context(&seen.context).await.unwrap();

        world.heal("n1", "n2");
        world.heal("n1", "n3");
        let met = connected(&world, "n1", 2).await;
        assert!(met <= MET_AGAIN, "it took {met:?}");
        assert_eq!(alone.get("k").await.unwrap().value.as_deref(), Some(&b"during"[..]));
        assert_eq!(alone.put("k", b"after".to_vec()).blind().w(3).await.unwrap().acked, 3);
    });
}

#[test]
fn a_link_that_is_cut_one_way_only_is_no_connection() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        turmoil::partition_oneway("n1", "n2");
        let (one, two) = tokio::join!(connected(&world, "n1", 1), connected(&world, "n2", 1));
        let silence = PEER_IDLE + KEEP_ALIVE + Duration::from_millis(100);
        assert!(two <= silence, "{two:?}");
        // Who is not heard goes on hearing the other, until that has given up. Its own time begins anew with the next
        // probe that it sends: if the cut has left its congestion window full (of a probe for larger datagrams), that
        // is one whose pause has doubled since the cut began.
        assert!(one > two && one <= 2 * two + silence, "{one:?} after {two:?}");
        turmoil::repair_oneway("n1", "n2");
        let (one, two) = tokio::join!(connected(&world, "n1", 2), connected(&world, "n2", 2));
        assert!(one <= MET_AGAIN && two <= MET_AGAIN, "{one:?} and {two:?}");
    });
}

/// Each side of a cut makes a bucket of one name, with another n, and both take writes. Neither is read under the
/// other's n afterwards.
#[test]
fn a_bucket_made_on_both_sides_of_a_cut_loses_no_write_and_changes_no_n() {
    simulate(&Setup { nodes: &["n1", "n2"], ..Setup::default() }, |world| async move {
        world.plain().await;
        world.cut("n1", "n2");
        connected(&world, "n1", 0).await;
        connected(&world, "n2", 0).await;
        let mut sides = Vec::new();
        for (node, other, n) in [("n1", "n2", 1), ("n2", "n1", 2)] {
            let client = world.pinned(node).await;
            let props = BucketProps { n, r: Quorum::Count(1), w: Quorum::Count(1), ..BucketProps::default() };
            let made = client.admin().create_bucket("b", props).await.unwrap();
            assert_eq!(
                made.behind.iter().map(|node| node.as_str()).collect::<Vec<_>>(),
                [other],
                "the answer names who has not heard of it"
            );
            let (bucket, mut written) = (client.bucket::<Bytes>("b").unwrap(), Vec::new());
            for key in (0..20).map(|key| format!("{node}-{key}")) {
                match bucket.put(&key[..], key.clone().into_bytes()).create().await {
                    Ok(_) => written.push(key),
                    // With one copy, the other side's keys cannot be reached from here.
                    Err(error) => assert!(n == 1 && error.kind() == ErrorKind::Unavailable, "{error}"),
                }
            }
            assert!(written.len() > 2, "{node}");
            sides.push((made, written));
        }
        world.heal("n1", "n2");
        let admin = world.pinned("n2").await.admin();
        let made = |id| move |bucket: &BucketInfo| bucket.id == id;
        let known = loop {
            let known = admin.buckets().await.unwrap();
            if sides.iter().all(|(side, _)| known.iter().any(made(side.id))) {
                break known;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        connected(&world, "n1", 1).await;
        for (side, written) in &sides {
            let now = known.iter().find(|bucket| bucket.id == side.id).expect("both are known");
            assert_eq!(now.props.n, side.props.n);
            assert!(now.name.as_str() == "b" || now.name.as_str().starts_with("b.lost-"), "{}", now.name);
            let bucket = world.pinned("n2").await.bucket::<Bytes>(now.name.as_str()).unwrap();
            for key in written {
                let read = bucket.get(&key[..]).r(side.props.n).await.unwrap();
                assert_eq!(read.value.as_deref(), Some(key.as_bytes()), "{key} in {}", now.name);
            }
        }
    });
}
