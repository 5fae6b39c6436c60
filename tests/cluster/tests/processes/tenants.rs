//! Tenants and tokens at real processes.

use std::time::{Duration, Instant};

use rejoin_client::admin::{BucketProps, Scope};
use rejoin_client::{Bytes, ErrorKind};
use rejoin_proto::client::{ClientHello, HelloReply, PROTOCOL};
use rejoin_proto::codec;
use rejoin_test_cluster::load::{fill, has_room, taken};
use rejoin_test_cluster::{Cluster, eventually};
use rejoin_wire::{Class, Connection, Endpoint, Identity, Limits};

/// How long the end of a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects to a node with a token, and then says nothing.
async fn idle(cluster: &Cluster, index: usize, token: &str) -> (Endpoint, Connection) {
    let identity = Identity::client(cluster.files.ca.cert_pem(), None).unwrap();
    let endpoint = Endpoint::for_dialling(identity, Limits::default()).unwrap();
    let connection = endpoint.connect_client(cluster.address(index)).await.unwrap();
    let hello = ClientHello { protocol: PROTOCOL, token: token.into(), tenant: None, client: "idle".into() };
    connection.sender().send(Class::Control, 0, codec::encode(&hello).into()).await.unwrap();
    let answer = codec::decode(&connection.recv().await.unwrap().body).unwrap();
    assert!(matches!(answer, HelloReply::Welcome(_)), "{answer:?}");
    (endpoint, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_its_idle_connections_at_every_node() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.pinned(0).await.admin();
    let (token, kept) = ("app", "kept");
    let (token, kept) = (
        admin.create_token(token, Scope::ReadWrite).await.unwrap(),
        admin.create_token(kept, Scope::ReadWrite).await.unwrap(),
    );
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for index in 0..3 {
        ending.push(idle(&cluster, index, token.text()).await);
        staying.push(idle(&cluster, index, kept.text()).await);
    }
    let begun = Instant::now();
    admin.revoke_token("app").await.unwrap();
    for (_, connection) in &ending {
        let why = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it ends").to_string();
        assert!(why.contains("the token was revoked"), "{why}");
    }
    println!("the connections at three nodes ended within {} ms of the request to revoke", begun.elapsed().as_millis());
    assert!(staying.iter().all(|(_, connection)| connection.close_reason().is_none()));
    for index in 0..3 {
        let error = cluster.builder(index).token(token.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_a_cluster_and_restarts_keep_them_apart() {
    let mut cluster = Cluster::start(3).await;
    let operator = cluster.client().await.admin();
    let mut tokens = Vec::new();
    for tenant in ["red", "blue"] {
        assert!(operator.create_tenant(tenant).await.unwrap().behind.is_empty());
        let admin = cluster.builder(0).tenant(tenant).connect().await.unwrap().admin();
        admin.create_bucket("notes", BucketProps::default()).await.unwrap();
        let token = admin.create_token("app", Scope::ReadWrite).await.unwrap();
        assert!(token.behind().is_empty(), "every node has it");
        let client = cluster.builder(1).token(token.text()).connect().await.unwrap();
        let bucket = client.bucket::<Bytes>("notes").unwrap();
        bucket.put("k", tenant.as_bytes().to_vec()).create().await.unwrap();
        tokens.push((tenant, token.text().to_owned()));
    }
    for index in 0..3 {
        cluster.kill(index);
        cluster.spawn(index);
    }
    cluster.together().await;
    for (tenant, token) in tokens {
        let client = cluster.builder(2).token(token).connect().await.unwrap();
        assert_eq!(client.tenant(), tenant);
        let read = client.bucket::<Bytes>("notes").unwrap().get("k").await.unwrap();
        assert_eq!(read.value.as_deref(), Some(tenant.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_bucket_frees_every_disk_and_its_name_is_used_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    fill(&bucket, 600).await;
    let plan = cluster.rejoin(&["bucket", "delete", "plain", "--dry-run", "--json"]).done().json();
    assert!(plan["objects"] == 1_800 && plan["reap_ms"].is_null(), "{plan}");
    assert!(plan["bytes"].as_u64().is_some_and(|bytes| bytes > 1_800 * 20_000), "{plan}");
    cluster.rejoin(&["bucket", "delete", "plain"]).said(2, "--yes is missing");
    let full: Vec<u64> = (0..3).map(|index| taken(&cluster.data(index))).collect();
    assert!(full.iter().all(|bytes| *bytes > 600 * 20_000), "{full:?}");
    // One node is away when it is deleted, reaped and made again.
    drop(cluster.take(2));
    let deleted = cluster.rejoin(&["bucket", "delete", "plain", "--yes", "--after", "1s", "--json"]).done().json();
    assert!(deleted["reap_ms"].is_u64(), "{deleted}");
    let begun = Instant::now();
    for index in 0..2 {
        has_room(&cluster, index).await;
    }
    println!("two disks of {full:?} bytes were free {:?} after the deletion", begun.elapsed());
    cluster.rejoin(&["bucket", "create", "plain"]).done();
    cluster.rejoin(&["put", "plain", "k", "new"]).done();
    cluster.spawn(2);
    cluster.together().await;
    has_room(&cluster, 2).await;
    let third = cluster.pinned(2).await.bucket::<Bytes>("plain").unwrap();
    assert_eq!(third.get("k").await.unwrap().value.as_deref(), Some(&b"new"[..]));
    for key in (0..600_u64).step_by(50) {
        assert!(!third.get(key.to_be_bytes()).await.unwrap().is_found(), "{key}");
    }
    let usage = cluster.rejoin(&["tenant", "usage", "default", "--json"]).done().json();
    assert!(usage[0]["stored_objects"] == 3 && usage[0]["nodes"] == 3, "{usage}");
    let seen = third.get("k").await.unwrap();
    third.delete("k").context(&seen.context).await.unwrap();
    eventually("a deleted object counts no more, and its tombstone's bytes do", async || {
        let usage = cluster.rejoin(&["tenant", "usage", "default", "--json"]).done().json();
        let has_bytes = usage[0]["stored_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        if usage[0]["stored_objects"] == 0 && has_bytes { Ok(()) } else { Err(usage) }
    })
    .await;
}
