//! Links that are cut and heal.

use std::time::Duration;

use rejoin_client::ErrorKind;
use rejoin_test_shell::{Setup, World, simulate};

/// A peer from which nothing comes for this long is down, as the node has it, counted anew from what is sent after that for the first time.
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
        assert!(world.now() - asked < Duration::from_secs(2), "what cannot succeed is said after the retries, not at the deadline");
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
        // Who is not heard goes on hearing the other, until that has given up.
        assert!(one > two && one <= two + silence, "{one:?} after {two:?}");
        turmoil::repair_oneway("n1", "n2");
        let (one, two) = tokio::join!(connected(&world, "n1", 2), connected(&world, "n2", 2));
        assert!(one <= MET_AGAIN && two <= MET_AGAIN, "{one:?} and {two:?}");
    });
}
