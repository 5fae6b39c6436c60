//! Nodes that are killed and started again.

use std::time::Duration;

use rejoin_test_shell::{Setup, simulate};

#[test]
fn a_node_that_is_killed_and_started_again_is_found_long_before_it_would_have_been_missed() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        for victim in ["n1", "n2", "n3"] {
            let other = if victim == "n1" { "n2" } else { "n1" };
            let bucket = world.pinned_plain(other).await;
            bucket.put(victim, b"before".to_vec()).blind().w(3).await.unwrap();
            world.kill(victim);
            world.start(victim);
            let begun = world.now();
            while bucket.put(victim, b"after".to_vec()).blind().w(3).timeout(Duration::from_millis(100)).await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // A packet of its peers', a second at most, then a reset, a pause and a handshake. Silence alone takes
            // four.
            let found = world.now() - begun;
            assert!(found < Duration::from_secs(2), "{victim} was found after {found:?}");
        }
    });
}

#[test]
fn what_was_acknowledged_is_there_after_every_node_was_killed_at_once() {
    simulate(&Setup::default(), |world| async move {
        let bucket = world.plain().await;
        for key in 0..30_u32 {
            bucket.put(key.to_string(), key.to_le_bytes().to_vec()).create().await.unwrap();
        }
        for node in ["n1", "n2", "n3"] {
            world.kill(node);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for node in ["n1", "n2", "n3"] {
            world.start(node);
        }
        let bucket = world.pinned_plain("n2").await;
        for key in 0..30_u32 {
            assert_eq!(bucket.get(key.to_string()).await.unwrap().value, Some(key.to_le_bytes().to_vec()));
        }
    });
}
