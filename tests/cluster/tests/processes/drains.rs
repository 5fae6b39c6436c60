//! A node that is asked to stop ends what it has begun: nobody is left in doubt. SIGHUP does not stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rejoin_client::admin::{BucketProps, Durability};
use rejoin_client::{Bytes, Client, ErrorKind};
use rejoin_test_cluster::{Cluster, Intruder, eventually, http};

/// What the writers of a run have seen.
#[derive(Default)]
struct Seen {
    written: AtomicU64,
    refused: AtomicU64,
    unknown: std::sync::Mutex<Vec<String>>,
}

/// Writes its own keys until it is told to stop. Whatever was refused was not written; nothing may be in doubt.
async fn write(client: Client, writer: u64, copies: u8, over: Arc<AtomicBool>, seen: Arc<Seen>) {
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    let mut number = 0_u64;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{writer}/{number}");
        match bucket.put(&key, key.clone().into_bytes()).blind().w(copies).await {
            Ok(_) => drop(seen.written.fetch_add(1, Ordering::Relaxed)),
            Err(error) if error.kind() == ErrorKind::Unknown => seen.unknown.lock().unwrap().push(error.to_string()),
            // At w = 3 a node that is away makes writes unavailable, which says that nothing was written.
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                seen.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// A client that is let in, says nothing more, and does not close when it is told to.
async fn hold_on(cluster: &Cluster, index: usize) -> (Intruder, Vec<(quinn::SendStream, quinn::RecvStream)>) {
    let ca = cluster.files.ca.cert_pem().to_owned();
    let intruder = Intruder::dial(cluster.address(index), &ca, "rejoin-client/1", None).await.unwrap();
    let mut streams = intruder.greet().await;
    let hello = rejoin_proto::client::ClientHello {
        protocol: rejoin_proto::client::PROTOCOL,
        token: rejoin_node::root_token(cluster.files.secret.as_bytes()),
        tenant: None,
        client: "holds on".into(),
    };
    let hello = rejoin_proto::codec::encode(&hello);
    let frame = [&u32::try_from(hello.len()).unwrap().to_le_bytes()[..], &[0; 8], &hello].concat();
    streams[0].0.write_all(&frame).await.unwrap();
    let connected = async || match http::metric(cluster.admin(index), "rejoin_clients_connected") {
        count if count >= 1.0 => Ok(()),
        count => Err(count),
    };
    eventually("it is let in", connected).await;
    (intruder, streams)
}

/// Stops each node in turn under writers, who go on until it has stopped. `held`: one client of it holds on.
async fn stops_under_load(copies: u8, held: bool) {
    let mut cluster = Cluster::start_with(3, if held { "drain_ms = 1500" } else { "" }).await;
    // Without syncs: a disk that takes longer for one than the drain would leave doubts that are none of the stop's.
    cluster.bucket("plain", BucketProps { durability: Durability::Os, ..BucketProps::default() }).await;
    for round in 0..4_usize {
        let index = round % 3;
        let _holding = if held { Some(hold_on(&cluster, index).await) } else { None };
        let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..12 {
            let writer = round as u64 * 12 + writer;
            writers.spawn(write(cluster.client().await, writer, copies, over.clone(), seen.clone()));
        }
        eventually("writes go on", async || match seen.written.load(Ordering::Relaxed) {
            written if written > 200 => Ok(()),
            written => Err(written),
        })
        .await;
        let process = cluster.take(index);
        let stopped = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
        assert!(stopped.success(), "{}", cluster.log(index));
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        let unknown = seen.unknown.lock().unwrap().clone();
        let counts = (seen.written.load(Ordering::Relaxed), seen.refused.load(Ordering::Relaxed));
        assert!(unknown.is_empty(), "{} of {counts:?} writes are in doubt: {:?}", unknown.len(), unknown.first());
        assert_eq!(
            cluster.log(index).contains("stopping with requests still under way"),
            held,
            "{}",
            cluster.log(index)
        );
        cluster.spawn(index);
        cluster.together().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_a_quorum_is_in_doubt_when_nodes_are_stopped_in_turn() {
    stops_under_load(2, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_of_all_copies_is_in_doubt_either() {
    stops_under_load(3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_holds_on_does_not_keep_the_peers_from_being_told() {
    stops_under_load(3, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_does_not_stop_a_node_and_a_client_that_holds_on_does_not_keep_it() {
    let mut cluster = Cluster::start_with(1, "drain_ms = 300").await;
    let process = cluster.take(0);
    for _ in 0..3 {
        process.hang_up();
    }
    let said = async || {
        let log = cluster.log(0);
        if log.contains("the certificate files are the ones in use") { Ok(()) } else { Err(log) }
    };
    eventually("it says what it did", said).await;
    assert_eq!(http::get(cluster.admin(0), "/health").unwrap().0, 200);
    let _holding = hold_on(&cluster, 0).await;
    let stopped = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
    assert!(stopped.success(), "{}", cluster.log(0));
    assert!(cluster.log(0).contains("stopping with requests still under way"), "{}", cluster.log(0));
}
