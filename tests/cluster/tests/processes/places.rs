//! Who has no token, or one token alone, cannot take the places of others.

use quinn::ConnectionError;

use rejoin_client::ErrorKind;
use rejoin_client::admin::Scope;
use rejoin_proto::client::{ClientHello, PROTOCOL};
use rejoin_proto::codec;
use rejoin_test_cluster::{Cluster, Intruder, eventually, http};
use rejoin_wire::CloseCode;

const CLIENT: &str = "rejoin-client/1";

async fn intruder(cluster: &Cluster) -> (Intruder, Vec<(quinn::SendStream, quinn::RecvStream)>) {
    let intruder = Intruder::dial(cluster.address(0), cluster.files.ca.cert_pem(), CLIENT, None).await.unwrap();
    let streams = intruder.greet().await;
    (intruder, streams)
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &[0; 8], body].concat()
}

fn assert_closed(error: &ConnectionError, code: CloseCode) {
    let ConnectionError::ApplicationClosed(close) = error else { panic!("not closed with {code}: {error:?}") };
    assert_eq!(close.error_code.into_inner(), u64::from(code.0), "{close:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_keep_neither_peers_nor_clients_out() {
    let mut cluster = Cluster::start_with(2, "max_clients = 8\nmax_new_clients = 4\nhello_ms = 60000").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(intruder(&cluster).await);
    }
    // A peer that starts anew finds its place, and clients with a token theirs, also more than there are places for new
    // ones.
    cluster.kill(1);
    cluster.spawn(1);
    cluster.together().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(cluster.builder(0).connect().await.unwrap());
    }
    for client in &clients {
        client.admin().status().await.unwrap();
    }
    let gone = silent.iter().filter(|(intruder, _)| intruder.connection.close_reason().is_some()).count();
    assert!(gone >= 16, "{gone} of 20 have given way");
    for (intruder, _) in silent.iter().take(16) {
        assert_closed(&intruder.ended().await, CloseCode::BUSY);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_hello_a_client_may_say_little() {
    let cluster = Cluster::start_with(1, "hello_ms = 400").await;
    let (large, mut streams) = intruder(&cluster).await;
    streams[0].0.write_all(&frame(&vec![0; 17 << 10])[..1000]).await.unwrap();
    assert_closed(&large.ended().await, CloseCode::FRAME_TOO_LARGE);

    // A request before the hello is not looked at; who says nothing goes within the configured time.
    let (early, mut streams) = intruder(&cluster).await;
    streams[1].0.write_all(&frame(b"a request")).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = early.ended().await else { panic!("it was not closed") };
    assert_eq!(close.reason, "no hello");

    let hello = ClientHello { protocol: PROTOCOL, token: "x".repeat(3_000), tenant: None, client: String::new() };
    let (denied, mut streams) = intruder(&cluster).await;
    streams[0].0.write_all(&frame(&codec::encode(&hello))).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = denied.ended().await else { panic!("it was not closed") };
    assert_eq!(close.reason, "refused");
    assert_eq!(http::get(cluster.admin(0), "/health").unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_does_not_take_the_places_of_others() {
    let cluster = Cluster::start_with(1, "clients_per_token = 3").await;
    let admin = cluster.pinned(0).await;
    let token = admin.admin().create_token("app", Scope::ReadWrite).await.unwrap();
    let connect = async || cluster.builder(0).token(token.text()).connect().await;
    let mut open = vec![connect().await.unwrap(), connect().await.unwrap(), connect().await.unwrap()];
    let error = connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(error.to_string().contains("token app has 3 connections to this node, which is the limit"), "{error}");
    assert!(
        admin.admin().status().await.is_ok() && cluster.builder(0).connect().await.is_ok(),
        "other tokens have their own"
    );
    open.pop();
    eventually("a place comes back", connect).await;
}
