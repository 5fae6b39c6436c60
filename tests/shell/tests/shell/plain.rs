//! In fair weather and in a storm: what was put is read.

use rejoin_client::Bytes;
use rejoin_client::admin::{BucketProps, Durability};
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Setup, Weather, simulate};

#[test]
fn what_was_put_at_one_node_is_read_at_every_other() {
    simulate(&Setup::default(), |world| async move {
        let written = world.plain().await.put("k", b"one".to_vec()).blind().await.unwrap();
        for node in ["n1", "n2", "n3"] {
            let read = world.pinned_plain(node).await.get("k").await.unwrap();
            assert_eq!((read.value.as_deref(), &read.context), (Some(&b"one"[..]), &written.context), "at {node}");
        }
    });
}

#[test]
fn datagrams_that_are_lost_doubled_and_overtake_each_other_change_nothing() {
    for seed in 1..=3 {
        simulate(&Setup { seed, latency_ms: (1, 40), ..Setup::default() }, |world| async move {
            let bucket = world.plain().await;
            world.network.set(Weather { lost: 100, doubled: 100 });
            let value = |key: u32| vec![key as u8; 1 << (key % 16)];
            for key in 0..60_u32 {
                bucket.put(key.to_string(), value(key)).create().await.unwrap();
                assert_eq!(
                    bucket.get(key.to_string()).await.unwrap().value,
                    Some(value(key)),
                    "one reads what one wrote"
                );
            }
            let [lost, _, doubled] = world.network.fate();
            assert!(lost > 50 && doubled > 50, "no storm: {lost} datagrams lost, {doubled} doubled");
            world.network.set(Weather::default());
            for node in ["n1", "n2", "n3"] {
                let bucket = world.pinned_plain(node).await;
                for key in 0..60_u32 {
                    assert_eq!(bucket.get(key.to_string()).r(3).await.unwrap().value, Some(value(key)));
                }
            }
        });
    }
}

#[test]
fn what_nobody_waits_to_have_synced_is_synced_by_and_by() {
    simulate(&Setup { more: "shards = 1", ..Setup::default() }, |world| async move {
        let client = world.pinned("n1").await;
        let props = BucketProps { durability: Durability::Os, ..BucketProps::default() };
        client.admin().create_bucket("unsynced", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("unsynced").unwrap();
        let before = world.figure("n2", "rejoin_journal_syncs_total").await;
        for key in 0..4_u32 {
            bucket.put(key.to_string(), vec![1; 1_000_000]).blind().w(3).await.unwrap();
        }
        assert_eq!(
            world.figure("n2", "rejoin_journal_syncs_total").await,
            before,
            "four million bytes are not yet 4 MiB"
        );
        bucket.put("4", vec![1; 1_000_000]).blind().w(3).await.unwrap();
        assert_eq!(world.figure("n2", "rejoin_journal_syncs_total").await, before + 1.0);
    });
}

/// Each shard of a coordinator forgets how to recognise retries of what it has answered, long before their window is
/// over.
#[test]
fn answered_writes_are_settled_by_the_client() {
    simulate(&Setup { more: "shards = 2", ..Setup::default() }, |world| async move {
        world.plain().await;
        let bucket = world.client().await.bucket::<Bytes>("plain").unwrap();
        for key in 0..400_u32 {
            bucket.put(key.to_string(), b"v".to_vec()).blind().await.unwrap();
        }
        let mut settled = 0.0;
        for node in ["n1", "n2", "n3"] {
            settled += world.figure(node, "rejoin_retries_settled_total").await;
        }
        // Of each node's, the last sixty-three may wait for more.
        assert!((400.0 - 3.0 * 63.0..=400.0).contains(&settled), "{settled}");
    });
}

#[test]
fn a_plugin_pushed_at_one_node_merges_at_every_other() {
    simulate(&Setup::default(), |world| async move {
        let client = world.pinned("n1").await;
        let plugin = client.admin().push_plugin("first", guests::first()).await.unwrap();
        let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("merged", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("merged").unwrap();
        for value in [b"one", b"two"] {
            bucket.put("k", value.to_vec()).blind().await.unwrap();
        }
        for node in ["n1", "n2", "n3"] {
            let read = world.pinned(node).await.bucket::<Bytes>("merged").unwrap().get("k").siblings().await.unwrap();
            assert_eq!((read.value.as_deref(), read.siblings.len()), (Some(&b"one"[..]), 2), "at {node}: {read:?}");
        }
    });
}
