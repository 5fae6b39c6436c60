//! Real nodes that stand in for owners which do not answer.

use std::time::Duration;

use rejoin_client::Bytes;
use rejoin_client::admin::Liveness;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_test_shell::{Setup, simulate};

use crate::members::thinks;

/// The longest time of a write whose owners answer.
const USUAL: Duration = Duration::from_millis(60);

#[test]
fn the_configuration_says_how_long_a_write_waits_for_a_node_before_a_fallback_is_asked_too() {
    let setup = Setup { more: "relief_min_ms = 300\nrelief_max_ms = 400", ..Setup::default() };
    simulate(&setup, |world| async move {
        let client = world.client().await;
        let props = BucketProps { n: 2, w: Quorum::Count(2), ..BucketProps::default() };
        client.admin().create_bucket("two", props).await.unwrap();
        thinks(&world, "n1", "n3", Liveness::Alive).await;
        world.cut("n1", "n3");
        thinks(&world, "n1", "n3", Liveness::Suspect).await;
        // Of three nodes two own a key: n1 waits for n3 with some keys, and for n2 with the others.
        let bucket = world.pinned("n1").await.bucket::<Bytes>("two").unwrap();
        for key in 0..30 {
            let begun = world.now();
            let stored = bucket.put(key.to_string(), b"v".to_vec()).blind().await.unwrap();
            let took = world.now() - begun;
            assert_eq!(stored.acked, 2);
            if took > USUAL {
                let expected = Duration::from_millis(300)..Duration::from_millis(300) + USUAL;
                assert!(expected.contains(&took), "{took:?}");
                return;
            }
        }
        panic!("no key has n1 and n3 as its owners");
    });
}
