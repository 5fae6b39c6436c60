//! Real nodes that stand in for owners which do not answer, and reads that ask others.

use std::time::Duration;

use rejoin_client::Bytes;
use rejoin_client::admin::Liveness;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_test_shell::{Setup, simulate};

use crate::members::thinks;

/// The longest time of a request whose owners answer.
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

#[test]
fn a_read_whose_owner_does_not_answer_asks_another_one_soon() {
    let setup = Setup { more: "hedge_min_ms = 100\nhedge_max_ms = 150\nrepair_one_in = 0", ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        let bucket = world.pinned_plain("n1").await;
        for key in 0..10 {
            bucket.put(key.to_string(), b"v".to_vec()).blind().await.unwrap();
        }
        thinks(&world, "n1", "n3", Liveness::Alive).await;
        world.cut("n1", "n3");
        let mut slow = 0;
        for key in 0..10 {
            let begun = world.now();
            let object = bucket.get(key.to_string()).await.unwrap();
            let took = world.now() - begun;
            assert_eq!(object.answered.len(), 2);
            assert!(took < Duration::from_millis(150) + USUAL, "{took:?}");
            slow += u32::from(took > USUAL);
        }
        assert!(slow > 0, "n3 is the second owner of no key");
        assert!(world.figure("n1", "rejoin_reads_hedged_total").await >= f64::from(slow));
    });
}
