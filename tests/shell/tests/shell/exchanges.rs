//! Exchanges between real nodes.

use rejoin_test_shell::{Setup, simulate};

#[test]
fn the_table_exchange_of_the_configuration_paces_the_shards() {
    let setup = Setup { more: "[exchange]\npaused = true", ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        for node in ["n1", "n2", "n3"] {
            let status = world.pinned(node).await.admin().exchange().await.unwrap();
            assert!(status.paused, "{status:?}");
        }
    });
}
