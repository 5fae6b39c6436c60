//! Nodes and clusters that cannot start say why in one clear line, with exit code 2, and touch nothing.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use rejoin_test_cluster::{Cluster, cli};

/// A start that must fail.
fn refused(cluster: &Cluster, config: &str, words: &str) {
    let path = cluster.files.dir.join("changed.toml");
    std::fs::write(&path, config).unwrap();
    let ran = cli::rejoin(&cluster.files.dir, None, &["serve", "--config", "changed.toml"], b"");
    ran.said(2, words);
    assert_eq!(ran.talk.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one line says it: {ran:?}");
    assert!(ran.out.is_empty(), "{ran:?}");
}

#[test]
fn a_configuration_that_is_wrong_is_named_by_its_key() {
    let cluster = Cluster::prepare(1, "");
    let good = cluster.files.config(0);
    refused(&cluster, &format!("shrads = 2\n{good}"), "shrads: there is no such key; did you mean shards?");
    refused(&cluster, &format!("{good}adress = \"x\"\n"), "did you mean address?");
    refused(&cluster, &format!("shards = 3\n{good}"), "shards: must be a power of two");
    refused(&cluster, &good.replace("listen = ", "listen = 7 #"), "listen: ");
    refused(&cluster, &format!("{good}]"), "the file: ");
    refused(&cluster, &good.replace("n1.key", "gone.key"), "gone.key");
    refused(&cluster, &good.replace("\"ca.pem\"", "\"secret\""), "the CA certificate cannot be read");
    let off_loopback = good.replacen(&cluster.address(0).ip().to_string(), "192.0.2.1", 1);
    refused(&cluster, &off_loopback, "dev_faults: is for demonstrations and tests");
    let (head, _) = good.split_once("[[bootstrap]]").unwrap();
    refused(&cluster, head, "this is a first start and the configuration has no [[bootstrap]] list");
    let other = good.replacen("[[bootstrap]]\nname = \"n1\"", "[[bootstrap]]\nname = \"n7\"", 1);
    refused(&cluster, &other, "the [[bootstrap]] list does not name this node, n1");
    let ran = cli::rejoin(&cluster.files.dir, None, &["serve", "--config", "no-such.toml"], b"");
    ran.said(2, "cannot read the configuration no-such.toml");
}

#[test]
fn an_identity_that_does_not_fit_is_refused() {
    let (cluster, other) = (Cluster::prepare(2, ""), Cluster::prepare(1, ""));
    let good = cluster.files.config(0);
    let elsewhere = |file: &str| other.files.dir.join(file).display().to_string();
    refused(&cluster, &good.replace("\"n1.pem\"", "\"n2.pem\"").replace("\"n1.key\"", "\"n2.key\""), "and this node is n1");
    refused(&cluster, &good.replace("\"n1.key\"", "\"n2.key\""), "the private key does not belong to the certificate");
    let foreign =
        good.replace("\"n1.pem\"", &format!("{:?}", elsewhere("n1.pem"))).replace("\"n1.key\"", &format!("{:?}", elsewhere("n1.key")));
    refused(&cluster, &foreign, "the certificate is of cluster");
    std::fs::write(cluster.files.dir.join("short"), "secret").unwrap();
    refused(&cluster, &good.replace("\"secret\"", "\"short\""), "fewer than 16 bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_or_a_data_directory_that_somebody_else_uses_is_named() {
    let cluster = Cluster::start(1).await;
    let spare = Cluster::prepare(1, "");
    let data = |cluster: &Cluster| cluster.files.dir.join("n1.data").display().to_string();

    let (udp, tcp) = (UdpSocket::bind(spare.address(0)).unwrap(), TcpListener::bind(spare.admin(0)).unwrap());
    refused(&spare, &spare.files.config(0), &format!("{} is in use by another program; stop it or choose another port", spare.address(0)));
    drop(udp);
    refused(&spare, &spare.files.config(0), &format!("admin = {}", spare.admin(0)));
    drop(tcp);

    let moved = |config: String| config.replace(&cluster.address(0).ip().to_string(), &spare.address(0).ip().to_string());
    refused(&cluster, &moved(cluster.files.config(0)), "is in use by another process: stop that node first");
    assert_eq!(cluster.rejoin(&["status"]).done().code, Some(0), "who has it goes on");

    let theirs = spare.files.config(0).replace("\"n1.data\"", &format!("{:?}", data(&cluster)));
    drop(cluster_stopped(cluster, |cluster| {
        refused(&spare, &theirs, &format!("belongs to cluster {}, not to {}", cluster.files.ca.cluster(), spare.files.ca.cluster()));
        rewrite_format(&cluster.files.dir.join("n1.data/VERSION"), 9);
        refused(cluster, &cluster.files.config(0), "has data format 9, this release knows up to 1: start a newer release of rejoin on it");
    }));
}

/// Stops the only node, and looks at what it has left.
fn cluster_stopped(mut cluster: Cluster, look: impl FnOnce(&Cluster)) -> Cluster {
    assert!(cluster.take(0).stop().success(), "{}", cluster.log(0));
    look(&cluster);
    cluster
}

/// What a newer release would have left.
fn rewrite_format(path: &Path, format: u32) {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, content) = text.split_once('\n').unwrap();
    let content = content.replace("format 1\n", &format!("format {format}\n"));
    let head = format!("rejoin-file 1 {} {:08x}", content.len(), crc32c::crc32c(content.as_bytes()));
    std::fs::write(path, format!("{head}\n{content}")).unwrap();
}

#[test]
fn a_development_cluster_says_which_port_is_taken_and_what_a_directory_holds() {
    let dir = tempfile::tempdir().unwrap();
    let busy = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let base = (port - 2).to_string();
    let dev = |arguments: &[&str]| cli::rejoin(dir.path(), None, &[&["dev"], arguments].concat(), b"");
    let ran = dev(&["--nodes", "3", "--base-port", &base]);
    ran.said(2, &format!("UDP 127.0.0.1:{port} cannot be used: it is in use by another program"));
    ran.said(2, "choose other ports with --base-port");
    std::fs::write(dir.path().join("mine"), "x").unwrap();
    dev(&["--data", "."]).said(2, "is not empty, and holds no cluster of `rejoin dev`");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was left");
}
