//! Seeds and nodes that do not answer, and how long callers wait for them.

use std::time::Duration;

use tokio::net::UdpSocket;

use rejoin_client::{Bucket, Client, ErrorKind, Json};

use crate::fake::{Cluster, React};

/// Longer than any test runs: a call that waits this long for a silent node fails its test.
const FOR_EVER: Duration = Duration::from_secs(600);

/// A test that runs longer waits for a silent node.
async fn in_time<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what.into_future()).await.expect("it waits for what does not answer")
}

/// An address that receives packets and never answers.
async fn silent() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn stock(client: &Client) -> Bucket<Json<u32>> {
    client.bucket("stock").unwrap()
}

#[tokio::test]
async fn silent_seeds_do_not_keep_the_next_one_from_being_asked() {
    let cluster = Cluster::start(1).await;
    let (first, second) = (silent().await, silent().await);
    let seeds = [first.1, second.1, cluster.addresses[0].to_string()];
    let client = in_time(cluster.builder().connect_timeout(FOR_EVER).seeds(seeds).connect()).await.unwrap();
    assert_eq!(client.node(), "n1");
}

#[tokio::test]
async fn the_time_out_bounds_connecting_too() {
    let cluster = Cluster::start(1).await;
    let quiet = silent().await;
    let builder =
        cluster.builder().connect_timeout(FOR_EVER).timeout(Duration::from_millis(200)).seeds([quiet.1.clone()]);
    let error = in_time(builder.connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains(&quiet.1), "{error}");
}

#[tokio::test]
async fn seeds_that_are_no_address_or_are_not_known_to_the_resolver_are_passed_over() {
    let cluster = Cluster::start(1).await;
    let good = cluster.addresses[0].to_string();
    for bad in ["no such address", "no-such-host.invalid:7400", "127.0.0.1"] {
        let client = in_time(cluster.builder().seeds([bad.to_string(), good.clone()]).connect()).await.unwrap();
        assert_eq!(client.node(), "n1");
    }
    let named = good.replace("127.0.0.1", "localhost");
    assert_eq!(in_time(cluster.builder().seeds([named]).connect()).await.unwrap().node(), "n1");
    let error = in_time(cluster.builder().seeds(["no-such-host.invalid:7400", "nothing"]).connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("no-such-host.invalid") && error.to_string().contains("nothing"), "{error}");
    // A refusal is more specific than silence.
    let builder = cluster.builder().token("app:wrong").seeds(["no-such-host.invalid:7400".to_string(), good]);
    assert_eq!(in_time(builder.connect()).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// Whatever arrives at the dead node's address comes from the task that probes it: while that waits, reads go
/// elsewhere.
#[tokio::test]
async fn a_dead_node_is_probed_behind_the_callers_back() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.builder().connect_timeout(FOR_EVER).connect().await.unwrap();
    let dead = cluster.owners("stock", "k")[0].clone();
    let at: usize = dead.trim_start_matches('n').parse().unwrap();
    cluster.kill(&dead).await;
    let address = cluster.addresses[at - 1];
    let quiet = in_time(async {
        loop {
            match UdpSocket::bind(address).await {
                Ok(socket) => return socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let quiet = quiet.await;
    let stock = stock(&client);
    assert_eq!(in_time(stock.get("k").timeout(Duration::from_secs(2))).await.unwrap().value, Some(5));
    let mut datagram = [0; 2_000];
    for _ in 0..8 {
        in_time(quiet.recv_from(&mut datagram)).await.unwrap();
        assert_eq!(in_time(stock.get("k").timeout(FOR_EVER)).await.unwrap().value, Some(5));
    }
    assert!(cluster.seen().iter().all(|seen| seen.node != dead));
}

#[tokio::test]
async fn a_node_that_answers_its_probe_is_asked_again() {
    let cluster = Cluster::start(3).await;
    let stock = stock(&cluster.client().await);
    let owner = cluster.owners("stock", "k")[0].clone();
    cluster.react([React::Silence]);
    assert_eq!(stock.get("k").timeout(Duration::from_millis(600)).await.unwrap().value, Some(5));
    assert_ne!(cluster.seen().pop().unwrap().node, owner);
    in_time(async {
        while cluster.seen().pop().unwrap().node != owner {
            stock.get("k").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_time_of_nothing_is_refused_and_an_endless_one_is_taken() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let (stock, nothing, endless) = (stock(&client), Duration::ZERO, Duration::MAX);
    for (builder, kind) in [
        (cluster.builder().timeout(nothing), Some(ErrorKind::Config)),
        (cluster.builder().connect_timeout(nothing), Some(ErrorKind::Config)),
        (cluster.builder().timeout(endless).connect_timeout(endless), None),
    ] {
        assert_eq!(in_time(builder.connect()).await.err().map(|error| error.kind()), kind);
    }
    let asked = cluster.seen().len();
    let zeros = [
        stock.get("k").timeout(nothing).await.map(drop),
        stock.get("k").hedge(nothing).await.map(drop),
        stock.put("k", 1).blind().timeout(nothing).await.map(drop),
        stock.put("k", 1).blind().ttl(nothing).await.map(drop),
        stock.delete("k").blind().timeout(nothing).await.map(drop),
        stock.update("k", |old| old.unwrap_or(0)).timeout(nothing).await.map(drop),
        client.admin().timeout(nothing).buckets().await.map(drop),
        client.admin().timeout(nothing).revoke_token("t").await.map(drop),
    ];
    for refused in zeros {
        let error = refused.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("no time at all"), "{error}");
    }
    let error = stock.update("k", |old| old.unwrap_or(0)).ttl(nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(cluster.puts().is_empty() && cluster.seen().len() == asked + 1, "only the update's read was sent");
    in_time(stock.get("k").timeout(endless).hedge(endless)).await.unwrap();
    in_time(stock.put("k", 1).blind().timeout(endless).ttl(endless)).await.unwrap();
    in_time(stock.update("k", |old| old.unwrap_or(0)).timeout(endless).ttl(endless)).await.unwrap();
    in_time(client.admin().timeout(endless).buckets()).await.unwrap();
}
