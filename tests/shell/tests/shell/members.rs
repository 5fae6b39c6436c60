//! What real nodes think of each other while links between them are cut.

use std::time::Duration;

use rejoin_client::admin::{Doubt, Liveness, MemberView};
use rejoin_test_shell::{Setup, World, simulate};

/// What a node thinks of another one.
async fn view(world: &World, by: &str, of: &str) -> MemberView {
    let members = world.pinned(by).await.admin().members().await.unwrap();
    members.into_iter().find(|member| member.node.as_str() == of).unwrap()
}

/// Waits until a node thinks so of another one.
pub(crate) async fn thinks(world: &World, by: &str, of: &str, liveness: Liveness) -> MemberView {
    loop {
        let view = view(world, by, of).await;
        if view.liveness == liveness {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_node_that_one_other_cannot_reach_is_suspected_there_before_the_connection_ends_and_nowhere_else() {
    simulate(&Setup::default(), |world| async move {
        world.plain().await;
        for (by, of) in [("n1", "n2"), ("n3", "n2"), ("n2", "n1")] {
            thinks(&world, by, of, Liveness::Alive).await;
        }
        world.cut("n1", "n2");
        let suspect = thinks(&world, "n1", "n2", Liveness::Suspect).await;
        assert_eq!(suspect.doubt, Some(Doubt::Probes), "{suspect:?}");
        assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0, "the connection is still there");
        assert_eq!(world.figure("n1", "rejoin_peers_suspect").await, 1.0);
        let down = thinks(&world, "n1", "n2", Liveness::Down).await;
        assert!(matches!(down.doubt, Some(Doubt::Probes | Doubt::NotConnected)), "{down:?}");
        // n3 reaches both, and has told n1 so.
        assert_eq!(view(&world, "n3", "n2").await.liveness, Liveness::Alive);
        assert_eq!(view(&world, "n1", "n2").await.gossip, Liveness::Alive);
        // Nobody is removed: the write of a client at n3 still goes to all three.
        let bucket = world.pinned_plain("n3").await;
        let stored = bucket.put("k", b"v".to_vec()).blind().w(3).await.unwrap();
        assert_eq!(stored.acked, 3);
        world.heal("n1", "n2");
        thinks(&world, "n1", "n2", Liveness::Alive).await;
        thinks(&world, "n2", "n1", Liveness::Alive).await;
    });
}

#[test]
fn the_table_members_of_the_configuration_says_when_a_peer_is_down() {
    let setup = Setup { more: "[members]\ndown_phi = 50", ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        thinks(&world, "n1", "n2", Liveness::Alive).await;
        world.cut("n1", "n2");
        // By the defaults it is down before the connection ends.
        while world.figure("n1", "rejoin_peers_connected").await > 1.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(view(&world, "n1", "n2").await.liveness, Liveness::Suspect);
        thinks(&world, "n1", "n2", Liveness::Down).await;
    });
}
