//! Quotas at real nodes: one tenant is refused, and the other does not notice.

use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, Limit, Quota, Scope};
use rejoin_client::{Bucket, Bytes, Client, ErrorKind};
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Setup, World, simulate};

const ONE: Setup = Setup { seed: 1, nodes: &["n1"], more: "", latency_ms: (1, 1) };

/// A hard limit.
fn most(limit: Limit, most: u64) -> Quota {
    Quota::default().with(limit, most)
}

/// An operator in a tenant of its own with that quota, and its bucket.
pub(crate) async fn tenant(world: &World, tenant: &str, quota: Quota) -> (Client, Bucket<Bytes>) {
    world.client().await.admin().create_tenant(tenant).await.unwrap();
    let client = world.patiently(|| world.builder().tenant(tenant).attempts(1)).await;
    client.admin().create_bucket("b", BucketProps { n: 1, ..BucketProps::default() }).await.unwrap();
    client.admin().set_quota(None, quota).await.unwrap();
    let bucket = client.bucket("b").unwrap();
    (client, bucket)
}

#[test]
fn a_tenant_above_its_rate_is_refused_and_another_one_is_not() {
    simulate(&ONE, |world| async move {
        let (greedy, of_greedy) = tenant(&world, "greedy", most(Limit::RequestsPerSecond, 10)).await;
        let (_, of_modest) = tenant(&world, "modest", Quota::default()).await;
        let (mut taken, mut refused) = (0, 0);
        for key in 0..30_u32 {
            match of_greedy.put(key.to_string(), b"v".to_vec()).create().await {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
                    let figures = "tenant greedy may have 10 requests a second";
                    assert!(error.to_string().contains(figures), "{error}");
                    assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(1)), "{error}");
                    refused += 1;
                }
            }
        }
        assert!((10..=15).contains(&taken) && taken + refused == 30, "{taken} taken, {refused} refused");
        let usage = greedy.admin().usage().await.unwrap();
        assert_eq!((usage.requests, usage.refused), (taken, refused));
        // What was refused was not written.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!of_greedy.get("29").await.unwrap().is_found());
        of_modest.put("k", b"v".to_vec()).create().await.unwrap();
        // A bucket's own rate, and the bytes of a request.
        greedy.admin().set_quota(None, Quota::default()).await.unwrap();
        greedy.admin().set_quota(Some("b"), most(Limit::BytesPerSecond, 10_000)).await.unwrap();
        of_greedy.put("large", vec![1; 9_000]).create().await.unwrap();
        let error = of_greedy.put("larger", vec![1; 9_000]).create().await.unwrap_err();
        assert!(error.to_string().contains("bucket b may have 10000 bytes a second"), "{error}");
    });
}

#[test]
fn a_tenant_has_no_more_connections_than_its_quota() {
    simulate(&ONE, |world| async move {
        let (client, _) = tenant(&world, "crowd", most(Limit::Connections, 2)).await;
        let token = client.admin().create_token("app", Scope::ReadWrite).await.unwrap();
        let connect = || async { world.builder().token(token.text()).connect().await };
        let (one, _two) = (connect().await.unwrap(), connect().await.unwrap());
        let error = connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        assert!(error.to_string().contains("tenant crowd may have 2 connections to this node"), "{error}");
        drop(one);
        // As soon as the node has noticed.
        world.patiently(|| world.builder().token(token.text())).await;
    });
}

#[test]
fn a_tenant_has_no_more_requests_under_way_than_its_quota() {
    simulate(&ONE, |world| async move {
        let (client, bucket) = tenant(&world, "eager", most(Limit::InFlight, 2)).await;
        let mut writes = JoinSet::new();
        for key in 0..20_u32 {
            let write = bucket.put(key.to_string(), b"v".to_vec()).blind();
            writes.spawn(async move { write.await });
        }
        let (mut taken, mut refused) = (0, 0);
        while let Some(written) = writes.join_next().await {
            match written.unwrap() {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
                    assert!(error.to_string().contains("2 requests under way at this node"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(taken >= 2 && refused >= 1, "{taken} taken, {refused} refused");
        // They are counted until they are answered, and no longer.
        let usage = client.admin().usage().await.unwrap();
        assert_eq!((usage.in_flight, usage.requests), (0, taken));
        bucket.put("k", b"v".to_vec()).blind().await.unwrap();
    });
}

#[test]
fn a_full_tenant_is_refused_by_every_node_until_it_has_more_room() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        let (client, bucket) = tenant(&world, "full", most(Limit::Objects, 20)).await;
        for key in 0..20_u32 {
            bucket.put(key.to_string(), b"v".to_vec()).create().await.unwrap();
        }
        let mut written = 20_u32;
        let error = loop {
            match bucket.put(written.to_string(), b"v".to_vec()).create().await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        assert!(error.to_string().contains("tenant full may have 20 objects stored"), "{error}");
        bucket.get("3").await.unwrap();
        let seen = bucket.get("4").await.unwrap();
        bucket.put("4", b"w".to_vec()).context(&seen.context).await.unwrap();
        client.admin().set_quota(None, most(Limit::Objects, 1_000)).await.unwrap();
        // As soon as the nodes have looked again.
        while bucket.put("more", b"v".to_vec()).blind().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_tenant_that_owes_fuel_reads_siblings_until_it_has_paid() {
    simulate(&ONE, |world| async move {
        let (client, _) = tenant(&world, "slow", Quota::default()).await;
        let plugin = client.admin().push_plugin("slow", guests::slow(20_000)).await.unwrap();
        let props = BucketProps { n: 1, plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("merged", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("merged").unwrap();
        for key in ["a", "b"] {
            for value in [b"one", b"two"] {
                bucket.put(key, value.to_vec()).blind().await.unwrap();
            }
        }
        assert!(bucket.get("a").await.unwrap().value.is_some());
        let used = client.admin().usage().await.unwrap().fuel;
        assert!((100_000..1_000_000).contains(&used), "{used} of 20 000 rounds");
        // What is remembered costs nothing.
        assert!(bucket.get("a").await.unwrap().value.is_some());
        assert_eq!(client.admin().usage().await.unwrap().fuel, used);
        client.admin().set_quota(None, most(Limit::FuelPerSecond, used / 4)).await.unwrap();
        assert!(bucket.get("b").await.unwrap().value.is_some(), "nothing is owed yet");
        for value in [b"one", b"two"] {
            bucket.put("c", value.to_vec()).blind().await.unwrap();
        }
        let owing = bucket.get("c").await.unwrap();
        let why = owing.merge_fault.as_deref().unwrap_or_default();
        assert!(owing.value.is_none() && owing.siblings.len() == 2, "{owing:?}");
        assert!(
            why.contains("quota exceeded: tenant slow may have") && why.contains("units of fuel a second"),
            "{why}"
        );
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(bucket.get("c").await.unwrap().value.is_some(), "it has paid");
    });
}

#[test]
fn a_soft_limit_warns_and_refuses_nothing_and_usage_is_told() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        let quota = Quota::default().warn(Limit::Bytes, 1_000).with(Limit::Bytes, 1 << 40);
        let (client, bucket) = tenant(&world, "warned", quota).await;
        client.admin().create_bucket("c", BucketProps::default()).await.unwrap();
        client.admin().set_quota(Some("c"), Quota::default().warn(Limit::Objects, 10)).await.unwrap();
        let other = client.bucket::<Bytes>("c").unwrap();
        for key in 0..30_u32 {
            bucket.put(key.to_string(), vec![7; 500]).create().await.unwrap();
            other.put(key.to_string(), b"v".to_vec()).create().w(3).await.unwrap();
        }
        let usage = loop {
            let usage = client.admin().usage().await.unwrap();
            if usage.reached.len() >= 2 {
                break usage;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let mut reached: Vec<_> =
            usage.reached.iter().map(|of| (of.bucket.clone(), of.limit, of.hard, of.most)).collect();
        reached.sort();
        let c = Some(rejoin_test_shell::name("c"));
        assert_eq!(reached, [(None, Limit::Bytes, false, 1_000), (c, Limit::Objects, false, 10)]);
        assert_eq!((usage.nodes, usage.requests, usage.refused), (3, 60, 0));
        assert!(usage.bytes_in > 15_000 && usage.bytes_out > 1_000, "{usage:?}");
        let of_buckets: Vec<u64> = usage.buckets.values().map(|stored| stored.objects).collect();
        assert!(usage.stored().bytes > 15_000 && of_buckets.iter().sum::<u64>() == 30 + 3 * 30, "{usage:?}");
        for figure in ["soft_limits_reached", "stored_bytes", "requests_total", "bytes_in_total"] {
            let mut sum = 0.0;
            for node in ["n1", "n2", "n3"] {
                sum += world.figure(node, &format!("rejoin_tenant_{figure}")).await;
            }
            assert!(sum >= 1.0, "{figure}: {sum}");
        }
        let text = world.node("n1").metrics().await;
        assert!(text.contains("rejoin_tenant_hard_limits_reached{tenant=\"warned\"} 0"), "{text}");
        // Ended limits are reached no more.
        client.admin().set_quota(None, Quota::default()).await.unwrap();
        client.admin().set_quota(Some("c"), Quota::default()).await.unwrap();
        while !client.admin().usage().await.unwrap().reached.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}
