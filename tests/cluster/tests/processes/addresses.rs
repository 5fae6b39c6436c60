//! Nodes at IPv6 addresses, under host names, and under another address than before.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};
use std::time::Duration;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, Client};
use rejoin_test_cluster::{Cluster, Seat, eventually, name, within};

/// Files of three nodes at an address; `None` if this machine does not have it.
fn prepare(ip: IpAddr) -> Option<Cluster> {
    let seats: Option<Vec<Seat>> = (1..=3).map(|at| Seat::at(name(&format!("n{at}")), ip)).collect();
    Some(Cluster::prepare_at(seats?, ""))
}

/// Writes the configuration of a node, and the profile, with a host name in the place of each node's IP address.
fn name_the_host(cluster: &Cluster, index: usize, host: &str) {
    for path in [cluster.files.config_path(index), cluster.files.profile()] {
        let mut text = std::fs::read_to_string(&path).unwrap();
        for (_, address, _) in &cluster.files.nodes {
            text = text.replace(&format!("\"{address}\""), &format!("\"{host}:{}\"", address.port()));
        }
        std::fs::write(path, text).unwrap();
    }
}

/// The cluster starts, a node joins it, and the command line and the SDK reach every node. `host`: what the nodes are
/// called by instead of their IP address.
async fn works_in_full(mut cluster: Cluster, host: Option<&str>) {
    let ip = cluster.address(0).ip();
    let give_name = |cluster: &Cluster, index| host.into_iter().for_each(|host| name_the_host(cluster, index, host));
    (0..3).for_each(|index| give_name(&cluster, index));
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.together().await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster.rejoin(&["put", "plain", "k", "one"]).done();

    let n4 = cluster.add_at(Seat::at(name("n4"), ip).unwrap());
    give_name(&cluster, n4);
    cluster.spawn(n4);
    cluster.pinned(n4).await;
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    cluster.rejoin(&["layout", "remove", "n1"]).done();
    let plan = cluster.rejoin(&["layout", "plan", "--json"]).done().json();
    let (version, hash) = (plan["version"].to_string(), plan["plan"].as_str().unwrap());
    cluster.rejoin(&["layout", "apply", "--version", &version, "--plan", hash]).done();
    // `--node` takes addresses of both kinds.
    let at = |index: usize| {
        host.map_or(cluster.address(index).to_string(), |host| format!("{host}:{}", cluster.address(index).port()))
    };
    let shown = within(Duration::from_secs(60), "the change ends", async || {
        let show = cluster.rejoin(&["layout", "show", "--json", "--node", &at(n4)]).done().json();
        if show["change"].is_null() { Ok(show) } else { Err(show.to_string()) }
    })
    .await;
    let nodes = shown["nodes"].as_array().unwrap();
    let of_n4 = nodes.iter().find(|node| node["node"] == "n4").unwrap();
    assert_eq!(of_n4["address"], at(n4), "{shown}");
    // The client learns the new layout from a reply, and goes to the new owner.
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    for key in 0..20_u8 {
        bucket.put([key], vec![key]).create().w(3).await.unwrap();
    }
    let own = cluster.pinned(n4).await.bucket::<Bytes>("plain").unwrap().get("k").r(1).await.unwrap();
    assert_eq!((own.value.as_deref(), &own.answered[..]), (Some(&b"one"[..]), &["n4".to_owned()][..]));
    assert_eq!(cluster.take(0).stop().code(), Some(0));
    // The others find a node again that was killed.
    cluster.kill(1);
    cluster.spawn(1);
    cluster.together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_on_ipv6_works_in_full() {
    match prepare(Ipv6Addr::LOCALHOST.into()) {
        Some(cluster) => works_in_full(cluster, None).await,
        None => eprintln!("SKIPPED: this machine has no IPv6 loopback address, so no cluster can run on [::1]"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_host_names_works_in_full() {
    let ip = ("localhost", 0).to_socket_addrs().unwrap().next().unwrap().ip();
    works_in_full(prepare(ip).unwrap(), Some("localhost")).await;
}

/// A read of one copy, by the node that the client prefers for the key.
async fn asked(client: &Client, key: u8) -> Vec<String> {
    client.bucket::<Bytes>("plain").unwrap().get([key]).r(1).await.unwrap().answered
}

/// A read with r = 1 is answered by the owner that the client asks, so the answer tells whom it has asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_to_the_new_address_of_a_node_without_a_new_layout() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let client = cluster.client().await;
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    for key in 0..30_u8 {
        bucket.put([key], vec![key]).create().w(3).await.unwrap();
    }
    let mut preferred = None;
    for key in 0..30_u8 {
        if asked(&client, key).await == ["n2"] {
            preferred = Some(key);
        }
    }
    let key = preferred.expect("a key that n2 is asked for first");

    cluster.kill(1);
    let (old, other) = (cluster.address(1), Seat::on_loopback(name("n2"), None));
    let config = cluster.files.config(1).replace(&old.to_string(), &other.address.to_string());
    std::fs::write(cluster.files.config_path(1), config).unwrap();
    cluster.files.nodes[1].1 = other.address;
    cluster.spawn(1);
    cluster.together().await;
    eventually("the client asks n2 at its new address", async || match asked(&client, key).await {
        answered if answered == ["n2"] => Ok(()),
        answered => Err(answered),
    })
    .await;
    // Who connects now is told at once.
    let late = cluster.client().await;
    assert_eq!(asked(&late, key).await, ["n2"]);
}
