//! Tenants that wait for each other before a shard.

use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, Quota};
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Setup, simulate};

use crate::quotas::tenant;

const ONE: Setup = Setup { seed: 1, nodes: &["n1"], more: "shards = 1\ninbox = 16", latency_ms: (1, 1) };

/// The queue before a shard has few places, and one tenant offers hundreds of requests at once, again and again.
#[test]
fn a_tenant_that_floods_a_node_is_refused_and_another_one_finds_room() {
    simulate(&ONE, |world| async move {
        let (_, of_wild) = tenant(&world, "wild", Quota::default()).await;
        let (_, of_modest) = tenant(&world, "modest", Quota::default()).await;
        let mut flood = JoinSet::new();
        for task in 0..200_u32 {
            let bucket = of_wild.clone();
            flood.spawn(async move {
                let (mut done, mut refused) = (0, 0);
                for number in 0..20_u32 {
                    match bucket.put(format!("{task} {number}"), b"v".to_vec()).blind().await {
                        Ok(_) => done += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
                            let says = "requests of tenant wild, of ";
                            assert!(error.to_string().contains(says), "{error}");
                            assert_eq!(error.retry_after(), Some(Duration::from_millis(100)), "{error}");
                            refused += 1;
                        }
                    }
                }
                (done, refused)
            });
        }
        for key in 0..50_u32 {
            of_modest.put(key.to_string(), b"v".to_vec()).blind().await.expect("there is room for it");
        }
        let outcomes = flood.join_all().await;
        let sum = |of: fn(&(u32, u32)) -> u32| outcomes.iter().map(of).sum::<u32>();
        let (done, refused) = (sum(|(done, _)| *done), sum(|(_, refused)| *refused));
        assert!(done > 100 && refused > 100 && done + refused == 4_000, "{done} done, {refused} refused");
        of_wild.get("0 0").await.expect("there is room again");
    });
}

/// Each client talks to one node, which owns a third of the keys: the others wait at their owners.
#[test]
fn forwarded_requests_of_a_tenant_that_floods_leave_room_for_anothers_at_their_owners() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        for name in ["wild", "modest"] {
            tenant(&world, name, Quota::default()).await;
        }
        let world = &world;
        let pinned = |node, name| world.patiently(move || world.pinned_builder(node).tenant(name).attempts(1));
        let bucket = |client: &rejoin_client::Client| client.bucket::<Bytes>("b").unwrap();
        let of_modest = bucket(&pinned("n1", "modest").await);
        let mut flood = JoinSet::new();
        for node in ["n1", "n2", "n3"] {
            let of_wild = bucket(&pinned(node, "wild").await);
            for task in 0..200_u32 {
                let bucket = of_wild.clone();
                flood.spawn(async move {
                    let mut done = 0;
                    for number in 0..20_u32 {
                        match bucket.put(format!("{node} {task} {number}"), b"v".to_vec()).blind().await {
                            Ok(_) => done += 1,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
                        }
                    }
                    done
                });
            }
        }
        for key in 0..50_u32 {
            of_modest.put(key.to_string(), b"v".to_vec()).blind().await.expect("there is room for it everywhere");
        }
        let done: u32 = flood.join_all().await.into_iter().sum();
        assert!((100..12_000).contains(&done), "{done} of 12 000 were done");
    });
}

#[test]
fn an_operator_sets_the_weight_of_a_tenant() {
    simulate(&ONE, |world| async move {
        let (client, bucket) = tenant(&world, "heavy", Quota::default().weighing(5)).await;
        let quotas = client.admin().quotas().await.unwrap();
        assert_eq!(quotas.get(&None).and_then(|quota| quota.weight), Some(5));
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
        let refused = client.admin().set_quota(Some("b"), Quota::default().weighing(5)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadRequest, "{refused}");
        assert!(refused.to_string().contains("a weight is that of a whole tenant"), "{refused}");
        for weight in [0, 1_001] {
            let refused = client.admin().set_quota(None, Quota::default().weighing(weight)).await.unwrap_err();
            assert!(refused.to_string().contains("a weight is 1 to 1000"), "{refused}");
        }
    });
}

/// Nobody reads: the nodes merge by themselves, to compare what they would answer.
#[test]
fn merges_of_exchanges_are_charged_to_the_tenant_of_the_bucket() {
    let more = "[exchange]\nview_samples_per_minute = 600";
    simulate(&Setup { nodes: &["n1", "n2", "n3"], more, ..ONE }, |world| async move {
        let (busy, _) = tenant(&world, "busy", Quota::default()).await;
        let (idle, _) = tenant(&world, "idle", Quota::default()).await;
        let plugin = busy.admin().push_plugin("first", guests::first()).await.unwrap();
        let props = BucketProps { plugin: Some(plugin.activation()), ..BucketProps::default() };
        busy.admin().create_bucket("merged", props).await.unwrap();
        let bucket = busy.bucket::<Bytes>("merged").unwrap();
        for value in [b"a", b"b"] {
            bucket.put("k", value.to_vec()).blind().await.unwrap();
        }
        while busy.admin().usage().await.unwrap().fuel == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(idle.admin().usage().await.unwrap().fuel, 0);
    });
}
