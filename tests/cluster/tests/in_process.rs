//! Three real nodes in one process: put, get and delete by quorum over QUIC, and a clean restart.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::net::{SocketAddr, UdpSocket};

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, Client};
use rejoin_node::{Config, LoopThreads, Node, Platform};
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

/// Lets other tasks run until a UDP port is free.
async fn free(address: SocketAddr) {
    for _ in 0..100_000 {
        if UdpSocket::bind(address).is_ok() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{address} stays in use");
}

/// Nodes with one, two and three loops: connections and shards are on different ones, and the loops end with the node.
#[tokio::test]
async fn nodes_on_several_loops_serve_stop_and_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path(), cluster_id(2), 3);
    for round in 0..2_u8 {
        let mut nodes = Vec::new();
        for index in 0..3_u16 {
            let loops = LoopThreads::start(index + 1, false).unwrap();
            let config = Config::load(&files.config_path(usize::from(index))).unwrap();
            // The port of a node that has stopped is free once its endpoint's task has run once more.
            free(files.nodes[usize::from(index)].1).await;
            let platform = Platform { loops: loops.loops(), ..Platform::machine() };
            nodes.push((Node::start_on(platform, config).await.unwrap(), loops));
        }
        let client = Client::from_profile(files.profile()).await.unwrap();
        if round == 0 {
            client.admin().create_bucket("plain", BucketProps::default()).await.unwrap();
        }
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        // Large enough for a batch of its own.
        bucket.put("large", vec![round; 1 << 20]).blind().await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for key in 0..64_u8 {
            let (bucket, name) = (bucket.clone(), format!("k{key}"));
            calls.spawn(async move {
                let read = bucket.get(&name).r(3).await.unwrap();
                let before = [round.wrapping_sub(1), key];
                assert_eq!(read.value.as_deref(), (round > 0).then_some(&before[..]));
                assert_eq!(read.answered.len(), 3);
                bucket.put(&name, vec![round, key]).context(&read.context).await.unwrap();
            });
        }
        calls.join_all().await;
        assert!(bucket.get("large").await.unwrap().is_found());
        drop((bucket, client));
        for (node, loops) in nodes {
            node.stop().await.unwrap();
            drop(loops);
        }
    }
}
