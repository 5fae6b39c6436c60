//! Quotas at real nodes: one tenant is refused, and the other does not notice.

use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::admin::{BucketProps, Limit, Quota, Scope};
use rejoin_client::{Bucket, Bytes, Client, ErrorKind};
use rejoin_test_hostile::{guests, lawless};
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
    // What the sentinel takes is looked at elsewhere.
    simulate(&Setup { more: "sentinel_every = 0", ..ONE }, |world| async move {
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

/// Writes a pair of siblings under a key.
async fn conflict(bucket: &Bucket<Bytes>, key: &str, values: [&'static [u8]; 2]) {
    for value in values {
        bucket.put(key, value.to_vec()).blind().await.unwrap();
    }
}

#[test]
fn a_validation_costs_fuel_and_a_tenant_that_owes_some_is_told_so() {
    simulate(&Setup { more: "sentinel_every = 0", ..ONE }, |world| async move {
        let (client, _) = tenant(&world, "strict", Quota::default()).await;
        let plugin = client.admin().push_plugin("strict", guests::validating()).await.unwrap();
        let props = BucketProps { n: 1, fuel: 1_000_000, plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("checked", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("checked").unwrap();
        let fuel = async || client.admin().usage().await.unwrap().fuel;
        let before = fuel().await;
        bucket.put("a", b"good".to_vec()).create().await.unwrap();
        let after = fuel().await;
        assert!(after > before, "{before} to {after}");
        // One that loops costs all that it had, although it gives no answer.
        assert!(bucket.put("b", b"~".to_vec()).create().await.is_err());
        let looped = fuel().await;
        assert!(looped - after > 900_000, "{after} to {looped}");
        client.admin().set_quota(None, most(Limit::FuelPerSecond, 1_000)).await.unwrap();
        // The first that is charged to the new quota is not owed yet.
        assert!(bucket.put("c", b"~~".to_vec()).create().await.is_err());
        let error = bucket.put("d", b"good".to_vec()).create().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        let told = error.to_string();
        assert!(
            told.contains("quota exceeded: tenant strict may have") && told.contains("nothing was written"),
            "{told}"
        );
        // What is there is read all the same.
        assert_eq!(bucket.get("a").await.unwrap().value.as_deref(), Some(&b"good"[..]));
        assert!(!bucket.get("d").await.unwrap().is_found());
        client.admin().set_quota(None, Quota::default()).await.unwrap();
        bucket.put("d", b"good".to_vec()).create().await.unwrap();
    });
}

#[test]
fn showing_a_value_costs_fuel_and_without_any_it_is_read_as_it_is() {
    simulate(&Setup { more: "sentinel_every = 0", ..ONE }, |world| async move {
        let (client, _) = tenant(&world, "shown", Quota::default()).await;
        let plugin = client.admin().push_plugin("shown", lawless::largest()).await.unwrap();
        let props = BucketProps { n: 1, plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("digits", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("digits").unwrap();
        for (key, value) in [("a", b"1"), ("b", b"2")] {
            bucket.put(key, value.to_vec()).create().await.unwrap();
        }
        let fuel = async || client.admin().usage().await.unwrap().fuel;
        let before = fuel().await;
        assert!(bucket.get("a").show().await.unwrap().shown.is_some());
        let after = fuel().await;
        assert!(after > before, "{before} to {after}");
        assert!(bucket.get("a").show().await.unwrap().shown.is_some());
        assert_eq!(fuel().await, after, "what is remembered costs nothing");
        client.admin().set_quota(None, most(Limit::FuelPerSecond, 1)).await.unwrap();
        conflict(&bucket, "c", [b"3", b"4"]).await;
        assert!(bucket.get("c").await.unwrap().value.is_some(), "nothing is owed yet");
        let plain = bucket.get("b").show().await.unwrap();
        assert!(plain.value.as_deref() == Some(&b"2"[..]) && plain.shown.is_none(), "{plain:?}");
    });
}

#[test]
fn a_shadow_that_traps_costs_its_tenant_what_it_has_used() {
    simulate(&Setup { more: "sentinel_every = 0", ..ONE }, |world| async move {
        let (client, _) = tenant(&world, "shadowed", Quota::default()).await;
        let plugin = client.admin().push_plugin("largest", lawless::largest()).await.unwrap();
        let shadow = client.admin().push_plugin("trapping", lawless::trapping()).await.unwrap();
        let props = BucketProps { n: 1, plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("digits", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("digits").unwrap();
        let fuel = async || client.admin().usage().await.unwrap().fuel;
        let merge = async |key: &str| {
            let before = fuel().await;
            conflict(&bucket, key, [b"1", b"5"]).await;
            assert_eq!(bucket.get(key).await.unwrap().value.as_deref(), Some(&b"5"[..]));
            before
        };
        let before = merge("a").await;
        let alone = fuel().await - before;
        client.admin().shadow_plugin("digits", Some((shadow.digest, 100))).await.unwrap();
        let before = merge("b").await;
        // The shadow runs once the reader has the answer.
        for _ in 0..100 {
            if client.admin().shadow_counts("digits").await.unwrap().answers[0].counts.faulted > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let counts = client.admin().shadow_counts("digits").await.unwrap().answers[0].counts;
        assert_eq!((counts.faulted, counts.skipped), (1, 0));
        let both = fuel().await - before;
        assert!(alone > 0 && 2 * both > 3 * alone, "{both} with a shadow that traps, {alone} without");
    });
}

#[test]
fn the_sentinel_is_on_the_tenants_fuel_and_leaves_one_alone_that_owes_some() {
    simulate(&Setup { more: "sentinel_every = 1\nsentinel_threshold = 2", ..ONE }, |world| async move {
        let (client, _) = tenant(&world, "watched", Quota::default()).await;
        let plugin = client.admin().push_plugin("sum", lawless::sum()).await.unwrap();
        let props = BucketProps { n: 1, plugin: Some(plugin.activation()), ..BucketProps::default() };
        client.admin().create_bucket("sums", props).await.unwrap();
        let bucket = client.bucket::<Bytes>("sums").unwrap();
        let fuel = async || client.admin().usage().await.unwrap().fuel;
        conflict(&bucket, "a", [b"1", b"2"]).await;
        assert_eq!(bucket.get("a").await.unwrap().value.as_deref(), Some(&b"3"[..]));
        // One merge, and five or more that check it.
        let first = fuel().await;
        conflict(&bucket, "b", [b"1", b"2"]).await;
        assert!(bucket.get("b").await.unwrap().value.is_some());
        let alone = fuel().await - first;
        assert!(first > 5 * alone && alone > 0, "{first} with a check and {alone} within a second of it");
        let found = client.admin().law_violations("sums").await.unwrap().answers;
        let laws: Vec<&str> = found.iter().map(|one| one.law.as_str()).collect();
        assert_eq!(laws, ["idempotence", "absorption"]);
        assert!(found.iter().all(|one| one.key == "a" && one.confirmed && one.siblings.len() == 2), "{found:?}");
        let warned = world.client().await.admin().status().await.unwrap().warnings;
        let alarm = "the merge of bucket sums of tenant watched breaks the law of idempotence";
        assert!(warned.iter().any(|line| line.contains(alarm)), "{warned:?}");
        // A tenant that owes fuel is not checked: the merge that is not owed yet breaks laws, and nobody looks.
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.admin().set_quota(None, most(Limit::FuelPerSecond, 1)).await.unwrap();
        conflict(&bucket, "c", [b"1", b"2"]).await;
        assert!(bucket.get("c").await.unwrap().value.is_some(), "nothing is owed yet");
        assert!(client.admin().law_violations("sums").await.unwrap().answers.iter().all(|one| one.key == "a"));
        client.admin().set_quota(None, Quota::default()).await.unwrap();
        // At two keys it is quarantined, and readers get all siblings.
        tokio::time::sleep(Duration::from_secs(2)).await;
        conflict(&bucket, "d", [b"1", b"2"]).await;
        assert!(bucket.get("d").await.unwrap().value.is_some());
        conflict(&bucket, "e", [b"1", b"2"]).await;
        while bucket.get("e").await.unwrap().value.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let read = bucket.get("e").await.unwrap();
        let why = read.merge_fault.as_deref().unwrap_or_default();
        assert!(read.siblings.len() == 2 && why.contains("quarantined"), "{read:?}");
        let listed = client.admin().plugins().await.unwrap();
        let quarantined = listed[0].quarantined.as_deref().unwrap_or_default();
        assert!(quarantined.contains("merges of 2 keys broke a law"), "{quarantined}");
        // Released, it merges again: the keys that were known then are no new evidence.
        client.admin().release_plugin(plugin.digest).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        while bucket.get("e").await.unwrap().value.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // No other tenant sees any of it.
        let (other, _) = tenant(&world, "other", Quota::default()).await;
        assert_eq!(other.admin().law_violations("sums").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(other.admin().law_violations("b").await.unwrap().answers.is_empty());
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
