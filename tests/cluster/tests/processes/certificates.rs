//! Certificates that end are announced, renewed without a restart, and refused with a reason on both sides once they
//! have ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rejoin_proto::NodeId;
use rejoin_test_cluster::{Cluster, Intruder, cli, eventually, http, name};
use rejoin_wire::{Endpoint, Error, Identity, Limits};
use rejoin_wire::{Validity, cert::Issued};

const DAY: u64 = 86_400;

/// Puts a certificate in place of a node's, under the names that the configuration and `rejoin cert` expect.
fn put(cluster: &Cluster, node: &str, issued: &Issued) {
    let file = |name: String, text: &str| std::fs::write(cluster.files.dir.join(name), text).unwrap();
    file(format!("{node}.pem"), &issued.cert_pem);
    file(format!("{node}.key"), &issued.key_pem);
    file(format!("{node}-key.pem"), &issued.key_pem);
}

/// The last second of the certificate that a node shows to who dials it now.
async fn shown(cluster: &Cluster, index: usize) -> u64 {
    let identity = Identity::client(cluster.files.ca.cert_pem(), None).unwrap();
    let endpoint = Endpoint::for_dialling(identity, Limits::default()).unwrap();
    let connection = endpoint.connect_client(cluster.address(index)).await.unwrap();
    connection.certificate_validity().unwrap().until
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_soon_is_said_and_renewed_without_a_restart() {
    let mut cluster = Cluster::prepare(2, "");
    let now = SystemTime::now();
    put(
        &cluster,
        "n1",
        &cluster.files.ca.issue_node(&name("n1"), &["10.9.8.7".into()], Validity::days(now, 12)).unwrap(),
    );
    std::fs::write(cluster.files.dir.join("ca-key.pem"), cluster.files.ca.key_pem()).unwrap();
    (0..2).for_each(|index| cluster.spawn(index));
    cluster.together().await;
    let status = |index: usize| {
        cluster.rejoin(&["status", "--json", "--node", &cluster.address(index).to_string()]).done().json()
    };
    let warned = "n1.pem: it ends on ";
    let remedy = " days; `rejoin cert node n1 --renew` makes another";
    for words in [warned, remedy] {
        assert!(status(0)["warnings"].to_string().contains(words), "{}", status(0));
        assert!(http::get(cluster.admin(0), "/health").unwrap().1.contains(words));
        eventually(
            "the log says so",
            async || if cluster.log(0).contains(words) { Ok(()) } else { Err(cluster.log(0)) },
        )
        .await;
    }
    assert!(status(1)["warnings"].to_string().contains("the certificate of node n1 ends on "), "{}", status(1));
    let until = http::metric(cluster.admin(0), "rejoin_certificate_until_seconds{which=\"node\"}");
    let today = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(until as u64 >= today + 11 * DAY && until as u64 <= today + 13 * DAY, "{until}");
    assert_eq!(status(0)["certificate_until_ms"].as_u64(), Some(until as u64 * 1_000));

    let renew = |arguments: &[&str]| {
        cli::rejoin(&cluster.files.dir, None, &[&["cert", "node", "n1", "--renew"], arguments].concat(), b"")
    };
    renew(&["--host", "x"]).said(2, "the names in the certificate stay as they are");
    renew(&["--days", "400"]).done();
    cluster.hang_up(0);
    eventually("it says so", async || {
        if cluster.log(0).contains("the new certificates are in use") { Ok(()) } else { Err(cluster.log(0)) }
    })
    .await;
    assert!(shown(&cluster, 0).await > today + 399 * DAY);
    assert!(!status(0)["warnings"].to_string().contains("n1.pem"), "{}", status(0));

    // A file that is not this node's is not used, and said; a right one is found without being pointed at.
    let other = cluster.files.ca.issue_node(&name("n7"), &[], Validity::days(now, 300)).unwrap();
    std::fs::write(cluster.files.dir.join("n1.pem"), &other.cert_pem).unwrap();
    std::fs::write(cluster.files.dir.join("n1.key"), &other.key_pem).unwrap();
    cluster.hang_up(0);
    let refused = async || {
        if cluster.log(0).contains("the certificate files are not used: ") { Ok(()) } else { Err(cluster.log(0)) }
    };
    eventually("it says so", refused).await;
    assert!(status(0)["warnings"].to_string().contains("the certificates on the disk are not in use"), "{}", status(0));
    assert!(shown(&cluster, 0).await > today + 399 * DAY);
    put(&cluster, "n1", &cluster.files.ca.issue_node(&name("n1"), &[], Validity::days(now, 500)).unwrap());
    let found = async || match shown(&cluster, 0).await {
        until if until > today + 499 * DAY => Ok(()),
        until => Err(until),
    };
    eventually("the new files are found", found).await;
    assert!(status(0)["warnings"].as_array().unwrap().is_empty(), "{}", status(0));
    // Whoever was connected still is, and new connections between nodes are made under the new certificate.
    cluster.kill(1);
    cluster.spawn(1);
    cluster.together().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_is_named_on_both_sides() {
    let cluster = Cluster::start(1).await;
    let past = Validity::days(SystemTime::now() - Duration::from_secs(20 * DAY), 5);
    let old = cluster.files.ca.issue_node(&name("n2"), &[], past).unwrap();
    let identity = Identity::node(cluster.files.ca.cert_pem(), &old.cert_pem, &old.key_pem).unwrap();
    let expired = Endpoint::bind("127.0.0.1:0".parse().unwrap(), identity, Limits::default()).unwrap();

    let error = expired.connect_peer(cluster.address(0), &name("n1")).await.unwrap_err();
    assert!(matches!(error, Error::CertificateRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("it has expired, or one of the two machines has a wrong clock"), "{error}");
    let log = async || {
        if cluster.log(0).contains("it has to be renewed with `rejoin cert`") { Ok(()) } else { Err(cluster.log(0)) }
    };
    eventually("the node says so too", log).await;

    let client = Identity::client(cluster.files.ca.cert_pem(), None).unwrap();
    let client = Endpoint::for_dialling(client, Limits::default()).unwrap();
    let error = client.connect_client(expired.local_addr()).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }) && error.to_string().contains("it has to be renewed"), "{error}");

    let foreign =
        rejoin_wire::cert::ClusterCa::create(cluster.files.ca.cluster(), Validity::days(SystemTime::now(), 5)).unwrap();
    let issued = foreign.issue_node(&name("n2"), &[], Validity::days(SystemTime::now(), 5)).unwrap();
    let identity = Identity::node(foreign.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    drop(Intruder::dial(cluster.address(0), cluster.files.ca.cert_pem(), "rejoin-peer/1", Some(&issued)).await);
    let log = async || if cluster.log(0).contains("BadSignature") { Ok(()) } else { Err(cluster.log(0)) };
    eventually("the node says so too", log).await;
    let stranger = Endpoint::bind("127.0.0.1:0".parse().unwrap(), identity, Limits::default()).unwrap();
    let error = client.connect_client(stranger.local_addr()).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_different_authorities_name_each_other_once_until_they_connect() {
    let mut cluster = Cluster::prepare(2, "");
    let now = SystemTime::now();
    // Once both serve, the one with the lower id dials.
    let id = |index: usize| NodeId::from_name(&name(["n1", "n2"][index]));
    let (dialler, other) = if id(0) < id(1) { (0, 1) } else { (1, 0) };
    let of_other = ["n1", "n2"][other];
    let foreign = rejoin_wire::cert::ClusterCa::create(cluster.files.ca.cluster(), Validity::days(now, 50)).unwrap();
    put(&cluster, of_other, &foreign.issue_node(&name(of_other), &[], Validity::days(now, 50)).unwrap());
    std::fs::write(cluster.files.dir.join("foreign.pem"), foreign.cert_pem()).unwrap();
    let good = cluster.files.config(other);
    std::fs::write(cluster.files.config_path(other), good.replace("\"ca.pem\"", "\"foreign.pem\"")).unwrap();
    (0..2).for_each(|index| cluster.spawn(index));
    let unwell = async |index: usize, words: &str| match http::get(cluster.admin(index), "/health") {
        Ok((503, text)) if text.contains(words) => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    for (index, words) in [(0, "n1 and n2 cannot connect: "), (1, "n2 and n1 cannot connect: ")] {
        eventually("/health names the other side", async || unwell(index, words).await).await;
    }
    let status = cluster.rejoin(&["status", "--json", "--node", &cluster.address(dialler).to_string()]);
    assert!(status.said(1, "").json()["problems"].to_string().contains(" cannot connect: "), "{status:?}");

    // Another reason is another problem; the same one is said once, however often the peer is dialled.
    let past = Validity::days(now - Duration::from_secs(20 * DAY), 5);
    let old = cluster.files.ca.issue_node(&name(of_other), &[], past).unwrap();
    cluster.kill(other);
    let identity = Identity::node(cluster.files.ca.cert_pem(), &old.cert_pem, &old.key_pem).unwrap();
    let expired = Endpoint::bind(cluster.address(other), identity, Limits::default()).unwrap();
    let told = async || match http::get(cluster.admin(dialler), "/health") {
        Ok((503, text)) if text.contains("certificate expired") => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    eventually("an expired certificate is another problem", told).await;
    let again = async || if expired.stats().failed >= 3 { Ok(()) } else { Err(expired.stats()) };
    eventually("it is dialled again", again).await;
    expired.close(rejoin_wire::CloseCode::DONE, "the test is done with it").await;
    drop(expired);
    put(&cluster, of_other, &cluster.files.ca.issue_node(&name(of_other), &[], Validity::days(now, 50)).unwrap());
    std::fs::write(cluster.files.config_path(other), good).unwrap();
    cluster.spawn(other);
    cluster.together().await;
    let well = async || match http::get(cluster.admin(dialler), "/health") {
        Ok((200, _)) => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    eventually("all is well", well).await;
    let log = cluster.log(dialler);
    assert_eq!(
        log.lines().filter(|line| line.contains(" cannot connect: ")).count(),
        2,
        "one line for each reason: {log}"
    );
}
