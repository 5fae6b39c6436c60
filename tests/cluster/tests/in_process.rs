//! Three real nodes in one process: put, get and delete by quorum over QUIC, and a clean restart.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, Client};
use rejoin_node::{Config, Node};
use rejoin_test_cluster::{Files, cluster_id};

async fn start(files: &Files) -> Vec<Node> {
    let mut nodes = Vec::new();
    for index in 0..files.nodes.len() {
        nodes.push(Node::start(Config::load(&files.config_path(index)).unwrap()).await.unwrap());
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_read_on_every_node_and_after_a_clean_restart() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path(), cluster_id(1), 3);
    let nodes = start(&files).await;
    let client = Client::from_profile(files.profile()).await.unwrap();
    client.admin().create_bucket("plain", BucketProps::default()).await.unwrap();
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    let written = bucket.put("k", b"one".to_vec()).create().await.unwrap();
    assert!(written.acked >= 2);
    let refused = bucket.put("k", b"two".to_vec()).create().await.unwrap_err();
    assert_eq!(refused.kind(), rejoin_client::ErrorKind::Exists);
    bucket.put("k", b"three".to_vec()).context(&written.context).await.unwrap();
    drop((bucket, client));
    for node in nodes {
        node.stop().await.unwrap();
    }

    let nodes = start(&files).await;
    let client = Client::from_profile(files.profile()).await.unwrap();
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    let read = bucket.get("k").r(3).await.unwrap();
    assert_eq!(read.value.as_deref(), Some(&b"three"[..]));
    assert_eq!(read.answered.len(), 3);
    bucket.delete("k").context(&read.context).await.unwrap();
    assert!(!bucket.get("k").await.unwrap().is_found());
    for node in nodes {
        node.stop().await.unwrap();
    }
}
