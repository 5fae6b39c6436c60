//! Quotas at real nodes: one tenant is refused, and the other does not notice.

use std::time::Duration;

use rejoin_client::admin::{BucketProps, Quota};
use rejoin_client::{Bucket, Bytes, Client, ErrorKind};
use rejoin_test_shell::{Setup, World, simulate};

const ONE: Setup = Setup { seed: 1, nodes: &["n1"], more: "", latency_ms: (1, 1) };

/// An operator in a tenant of its own with that quota, and its bucket.
async fn tenant(world: &World, tenant: &str, quota: Quota) -> (Client, Bucket<Bytes>) {
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
        let quota = Quota { requests_per_second: Some(10), ..Quota::default() };
        let (greedy, of_greedy) = tenant(&world, "greedy", quota).await;
        let (_, of_modest) = tenant(&world, "modest", quota).await;
        let (mut taken, mut refused) = (0, 0);
        for key in 0..30_u32 {
            match of_greedy.put(key.to_string(), b"v".to_vec()).create().await {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
                    let figures = "tenant greedy may have 10 requests a second";
                    assert!(error.to_string().contains(figures), "{error}");
                    refused += 1;
                }
            }
        }
        assert!((10..=12).contains(&taken) && refused >= 18, "{taken} taken, {refused} refused");
        // What was refused was not written.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!of_greedy.get("29").await.unwrap().is_found());
        of_modest.put("k", b"v".to_vec()).create().await.unwrap();
        // A bucket's own rate, and the bytes of a request.
        let bytes = Quota { bytes_per_second: Some(10_000), ..Quota::default() };
        greedy.admin().set_quota(None, Quota::default()).await.unwrap();
        greedy.admin().set_quota(Some("b"), bytes).await.unwrap();
        of_greedy.put("large", vec![1; 9_000]).create().await.unwrap();
        let error = of_greedy.put("larger", vec![1; 9_000]).create().await.unwrap_err();
        assert!(error.to_string().contains("bucket b may have 10000 bytes a second"), "{error}");
    });
}

#[test]
fn a_tenant_has_no_more_connections_than_its_quota() {
    simulate(&ONE, |world| async move {
        let (client, _) = tenant(&world, "crowd", Quota { connections: Some(2), ..Quota::default() }).await;
        let token = client.admin().create_token("app", rejoin_client::admin::Scope::ReadWrite).await.unwrap();
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
fn a_full_tenant_is_refused_by_every_node_until_it_has_more_room() {
    simulate(&Setup { nodes: &["n1", "n2", "n3"], ..ONE }, |world| async move {
        let (client, bucket) = tenant(&world, "full", Quota { objects: Some(20), ..Quota::default() }).await;
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
        client.admin().set_quota(None, Quota { objects: Some(1_000), ..Quota::default() }).await.unwrap();
        // As soon as the nodes have looked again.
        while bucket.put("more", b"v".to_vec()).blind().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}
