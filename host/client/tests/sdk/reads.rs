//! Reads: routing, retries, hedging, and a layout that changes.

use std::time::{Duration, Instant};

use rejoin_client::{Bucket, Client, ErrorKind, Json, Tls};
use rejoin_proto::ErrorCode;

use crate::fake::{Cluster, React, TOKEN, refused};

fn stock(client: &Client) -> Bucket<Json<u32>> {
    client.bucket("stock").unwrap()
}

#[tokio::test]
async fn a_read_goes_to_the_first_owner() {
    let cluster = Cluster::start(4).await;
    let stock = stock(&cluster.client().await);
    for key in ["a", "b", "c", "d", "e"] {
        let object = stock.get(key).r(2).siblings().await.unwrap();
        assert_eq!((object.value, object.answered.len()), (Some(5), 1));
        assert_eq!(cluster.seen().pop().unwrap().node, cluster.owners("stock", key)[0]);
    }
}

#[tokio::test]
async fn a_read_that_fails_goes_to_the_next_owner() {
    let cluster = Cluster::start(3).await;
    let stock = stock(&cluster.client().await);
    cluster.react([React::Close, refused(ErrorCode::Overloaded)]);
    assert_eq!(stock.get("k").await.unwrap().value, Some(5));
    let nodes: Vec<String> = cluster.seen().into_iter().map(|seen| seen.node).collect();
    assert_eq!(nodes, cluster.owners("stock", "k"));
    let trace = cluster.seen()[0].request.trace;
    assert!(trace != 0 && cluster.seen().iter().all(|seen| seen.request.trace == trace), "one trace for all attempts");
}

#[tokio::test]
async fn attempts_are_bounded_and_some_refusals_are_final() {
    let cluster = Cluster::start(3).await;
    let stock = stock(&cluster.client().await);
    cluster.react((0..3).map(|_| refused(ErrorCode::Unavailable)));
    let error = stock.get("k").await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable(), cluster.seen().len()), (ErrorKind::Unavailable, true, 3));
    cluster.react([refused(ErrorCode::NotFound)]);
    assert_eq!(stock.get("k").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(cluster.seen().len(), 4);
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let dead = cluster.owners("stock", "k")[0].clone();
    cluster.kill(&dead).await;
    let stock = stock(&client);
    assert_eq!(stock.get("k").await.unwrap().value, Some(5));
    let begun = Instant::now();
    assert_eq!(stock.get("k").await.unwrap().value, Some(5));
    assert!(
        begun.elapsed() < Duration::from_millis(650),
        "the second read does not wait for the dead node: {:?}",
        begun.elapsed()
    );
    assert!(cluster.seen().iter().all(|seen| seen.node != dead));
}

#[tokio::test]
async fn a_hedged_read_takes_the_faster_node() {
    let cluster = Cluster::start(3).await;
    let stock = stock(&cluster.client().await);
    cluster.react([React::Silence]);
    let begun = Instant::now();
    assert_eq!(stock.get("k").hedge(Duration::from_millis(30)).await.unwrap().value, Some(5));
    assert!(begun.elapsed() < Duration::from_secs(2), "it did not wait for the silent node");
    let nodes: Vec<String> = cluster.seen().into_iter().map(|seen| seen.node).collect();
    assert_eq!(nodes, cluster.owners("stock", "k")[..2]);
}

#[tokio::test]
async fn a_stale_layout_is_replaced_before_the_next_attempt() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let stock = stock(&client);
    let before = cluster.owners("stock", "k")[0].clone();
    cluster.turn_layout();
    cluster.react([refused(ErrorCode::StaleLayout)]);
    assert_eq!(stock.get("k").await.unwrap().value, Some(5));
    assert_eq!(client.layout_version(), 2);
    let nodes: Vec<String> = cluster.seen().into_iter().map(|seen| seen.node).collect();
    assert_eq!(nodes, [before, cluster.owners("stock", "k")[0].clone()]);
}

#[tokio::test]
async fn a_newer_layout_is_learned_from_any_answer() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let stock = stock(&client);
    cluster.turn_layout();
    let reads = async {
        while client.layout_version() < 2 {
            stock.get("k").await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reads).await.expect("the layout is learned while reading");
    stock.get("k").await.unwrap();
    assert_eq!(cluster.seen().pop().unwrap().node, cluster.owners("stock", "k")[0]);
}

#[tokio::test]
async fn a_pinned_client_asks_one_node_only() {
    let cluster = Cluster::start(3).await;
    let client = cluster.builder().seeds([cluster.addresses[1].to_string()]).pinned().connect().await.unwrap();
    assert_eq!(client.node(), "n2");
    let stock = stock(&client);
    for key in ["a", "b", "c", "d", "e", "f"] {
        stock.get(key).await.unwrap();
    }
    assert!(cluster.seen().iter().all(|seen| seen.node == "n2"));
}

#[tokio::test]
async fn a_time_out_is_kept_and_says_that_nothing_came() {
    let cluster = Cluster::start(1).await;
    let stock = stock(&cluster.client().await);
    cluster.react((0..3).map(|_| React::Silence));
    let begun = Instant::now();
    let error = stock.get("k").timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_error_of_a_read_is_the_most_telling_one_of_its_attempts() {
    let cluster = Cluster::start(3).await;
    let stock = stock(&cluster.client().await);
    cluster.react([refused(ErrorCode::Unavailable), React::Close, refused(ErrorCode::Stopping)]);
    assert_eq!(stock.get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    cluster.react([React::Close, refused(ErrorCode::Damaged), refused(ErrorCode::Stopping)]);
    assert_eq!(stock.get("l").await.unwrap_err().kind(), ErrorKind::Damaged);
    // Either node of a hedged read may answer.
    let client = cluster.builder().attempts(1).connect().await.unwrap();
    cluster.react([React::Silence, refused(ErrorCode::Denied)]);
    let hedged = client.bucket::<Json<u32>>("stock").unwrap().get("m").hedge(Duration::from_millis(30));
    assert_eq!(hedged.timeout(Duration::from_millis(400)).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn set_ups_that_cannot_work_are_refused_clearly() {
    let cluster = Cluster::start(1).await;
    let kind = |result: rejoin_client::Result<Client>| result.unwrap_err().kind();
    assert_eq!(kind(cluster.builder().token("app:wrong").connect().await), ErrorKind::Denied);
    assert_eq!(kind(cluster.builder().tls(Tls::pem("no certificate")).connect().await), ErrorKind::Config);
    assert_eq!(kind(cluster.builder().seeds(["no address"]).connect().await), ErrorKind::Config);
    assert_eq!(kind(cluster.builder().seeds(Vec::<String>::new()).connect().await), ErrorKind::Config);
    assert_eq!(kind(Client::builder().seeds(["127.0.0.1:1"]).token(TOKEN).connect().await), ErrorKind::Config);
    assert_eq!(kind(cluster.builder().seeds(["127.0.0.1:9"]).connect().await), ErrorKind::Unreachable);
    let foreign = Cluster::start(1).await;
    assert_eq!(kind(cluster.builder().tls(Tls::pem(foreign.ca_pem.clone())).connect().await), ErrorKind::Untrusted);
    assert_eq!(cluster.client().await.bucket::<Json<u32>>("no such name!").unwrap_err().kind(), ErrorKind::Config);
}
