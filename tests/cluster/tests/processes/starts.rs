//! Nodes and clusters that cannot start say why in one clear line, with exit code 2, and touch nothing.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rejoin_test_cluster::{Cluster, cli, eventually, http, name};
use rejoin_wire::Validity;

/// A start that must fail, and leave everything as it was, to the byte.
#[track_caller]
fn refused(cluster: &Cluster, config: &str, words: &str) {
    std::fs::write(cluster.files.dir.join("changed.toml"), config).unwrap();
    let before = all(&cluster.files.dir);
    refused_by_a_running_node(cluster, config, words);
    let after = all(&cluster.files.dir);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "{words}");
    assert!(after == before, "{words}: a file has changed");
}

/// Everything below a directory, with the content of files.
fn all(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all(&path));
            found.insert(path, Vec::new());
        } else {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// As [`refused`], while a node runs in the directory and writes to it.
#[track_caller]
fn refused_by_a_running_node(cluster: &Cluster, config: &str, words: &str) {
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
    for bytes in ["4611686018427387904", "1"] {
        let changed = good.replace("segment_bytes = 4194304", &format!("segment_bytes = {bytes}"));
        refused(&cluster, &changed, "segment_bytes: must be 65536 to 1073741824");
    }
    let off_loopback = good.replacen(&cluster.address(0).ip().to_string(), "192.0.2.1", 1);
    refused(&cluster, &off_loopback, "dev_faults: is for demonstrations and tests");
    let (head, _) = good.split_once("[[bootstrap]]").unwrap();
    refused(&cluster, head, "the configuration has neither a [[bootstrap]] list");
    let other = good.replacen("[[bootstrap]]\nname = \"n1\"", "[[bootstrap]]\nname = \"n7\"", 1);
    refused(&cluster, &other, "the [[bootstrap]] list does not name this node, n1");
    let ran = cli::rejoin(&cluster.files.dir, None, &["serve", "--config", "no-such.toml"], b"");
    ran.said(2, "cannot read the configuration no-such.toml");
}

#[test]
fn a_list_of_nodes_that_no_cluster_can_work_with_is_refused() {
    let cluster = Cluster::prepare(2, "");
    let good = cluster.files.config(0);
    let (own, other) = (cluster.address(0).to_string(), cluster.address(1).to_string());
    let (head, list) = good.split_once("[[bootstrap]]").unwrap();
    let listed = |from: &str, to: &str| format!("{head}[[bootstrap]]{}", list.replacen(from, to, 1));
    refused(&cluster, &listed(&other, &own), "is also the address of n1; write for each node");
    refused(&cluster, &listed("\"n2\"", "\"n1\""), "node n1 stands in the list twice");
    refused(
        &cluster,
        &listed(&other, "0.0.0.0:7400"),
        "bootstrap[1].address: 0.0.0.0:7400 is every address of a machine",
    );
    refused(
        &cluster,
        &listed(&other, "[::]:7400"),
        "none that can be dialled; write the address at which the others reach n2",
    );
    refused(&cluster, &listed(&other, "127.0.0.1:0"), "127.0.0.1:0 has port 0; write the port");
    refused(&cluster, &listed(&other, "n2.example"), "the port is missing: write HOST:PORT");
    refused(
        &cluster,
        &listed(&own, "192.0.2.1:7400"),
        &format!("listen: {own} is not where the [[bootstrap]] list says this node is; write"),
    );
    refused(
        &cluster,
        &listed(&own, &own.replace(":7400", ":7401")),
        "is not where the [[bootstrap]] list says this node is; write",
    );
    refused(
        &cluster,
        &good.replacen(&format!("listen = \"{own}\""), "listen = \"nowhere.invalid:7400\"", 1),
        "is for demonstrations",
    );
    let open = good.replace("dev_faults = true", "");
    refused(
        &cluster,
        &open.replacen(&format!("listen = \"{own}\""), "listen = \"nowhere.invalid:7400\"", 1),
        "listen = nowhere.invalid:7400",
    );
}

#[test]
fn a_first_start_that_fails_leaves_no_directory_and_a_foreign_one_untouched() {
    let cluster = Cluster::prepare(1, "");
    let good = cluster.files.config(0);
    let below = |path: &str| good.replace("n1.data", path);
    // Fails only when the data has been opened: a shard's directory cannot be made where a file is.
    std::fs::create_dir(cluster.files.dir.join("mount")).unwrap();
    std::fs::create_dir(cluster.files.dir.join("mount/lost+found")).unwrap();
    std::fs::write(cluster.files.dir.join("mount/modules"), "a file of somebody else's").unwrap();
    refused(&cluster, &below("mount"), "modules");
    std::fs::write(cluster.files.dir.join("file"), "x").unwrap();
    refused(&cluster, &below("file"), "file");
    refused(&cluster, &below("file/deep/n1"), "file");
    refused(&cluster, &below(&format!("new/deep/{}", "x".repeat(300))), "xxx");
    std::fs::create_dir(cluster.files.dir.join("strange")).unwrap();
    std::fs::write(cluster.files.dir.join("strange/STATE"), "x").unwrap();
    refused(&cluster, &below("strange"), "it has STATE but no VERSION file");
}

#[test]
fn certificates_that_nobody_takes_are_refused_at_the_start_with_their_dates() {
    let cluster = Cluster::prepare(1, "");
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    for (valid, words) in [
        (Validity::days(now - 10 * day, 5), "n1.pem: it has expired on "),
        (Validity::days(now - 10 * day, 5), "`rejoin cert node n1 --renew` makes another"),
        (Validity::days(now + 10 * day, 5), "n1.pem: it holds only from "),
    ] {
        let issued = cluster.files.ca.issue_node(&name("n1"), &[], valid).unwrap();
        std::fs::write(cluster.files.dir.join("n1.pem"), issued.cert_pem).unwrap();
        std::fs::write(cluster.files.dir.join("n1.key"), issued.key_pem).unwrap();
        refused(&cluster, &cluster.files.config(0), words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_files_with_and_without_their_line_end_are_one_secret() {
    let mut cluster = Cluster::prepare(3, "");
    for (index, end) in ["", "\n", "\r\n"].into_iter().enumerate() {
        let file = format!("secret{index}");
        std::fs::write(cluster.files.dir.join(&file), format!("{}{end}", cluster.files.secret)).unwrap();
        let config = cluster.files.config(index).replace("\"secret\"", &format!("{file:?}"));
        std::fs::write(cluster.files.config_path(index), config).unwrap();
        cluster.spawn(index);
    }
    // One root token, made of the form without a line end, is taken by all; and a context of one node by the others.
    cluster.together().await;
    cluster.bucket("plain", rejoin_client::admin::BucketProps::default()).await;
    let mut context = None;
    for index in 0..3 {
        let bucket = cluster.pinned(index).await.bucket::<rejoin_client::Bytes>("plain").unwrap();
        let put = bucket.put("k", vec![index as u8]);
        let written = match &context {
            None => put.create().await,
            Some(context) => put.context(context).w(3).await,
        };
        context = Some(written.unwrap().context);
        let roots = cluster.rejoin(&["token", "root", "--secret", &format!("secret{index}")]);
        assert_eq!(roots.done().text(), rejoin_node::root_token(cluster.files.secret.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_layout_that_contradicts_the_file_is_said() {
    let mut cluster = Cluster::start(2).await;
    assert!(!cluster.rejoin(&["status"]).done().talk.contains("warning"), "nothing to say");
    assert!(cluster.take(0).stop().success(), "{}", cluster.log(0));
    let other = cluster.address(1).to_string();
    let changed = cluster.files.config(0).replace(&other, "127.0.0.1:7999");
    std::fs::write(cluster.files.config_path(0), format!("{changed}zone = \"east\"\n")).unwrap();
    cluster.spawn(0);
    cluster.together().await;
    let address =
        format!("the address of node n2 is 127.0.0.1:7999 in the [[bootstrap]] list, and {other} in the kept layout");
    let zone = "the zone of node n2 is east in the [[bootstrap]] list, and default in the kept layout";
    let node = cluster.address(0).to_string();
    let health = eventually("health answers", async || http::get(cluster.admin(0), "/health")).await;
    for words in [address.as_str(), zone, "make the list say the same"] {
        assert!(cluster.log(0).contains(words), "{words}: {}", cluster.log(0));
        cluster.rejoin(&["status", "--node", &node]).said(0, words);
        assert!(health.0 == 200 && health.1.contains(words), "{words}: {health:?}");
        let json = cluster.rejoin(&["status", "--json", "--node", &node]).done().json();
        assert!(json["warnings"].to_string().contains(&words.replace('"', "\\\"")), "{json}");
    }
}

#[test]
fn an_identity_that_does_not_fit_is_refused() {
    let (cluster, other) = (Cluster::prepare(2, ""), Cluster::prepare(1, ""));
    let good = cluster.files.config(0);
    let elsewhere = |file: &str| other.files.dir.join(file).display().to_string();
    refused(
        &cluster,
        &good.replace("\"n1.pem\"", "\"n2.pem\"").replace("\"n1.key\"", "\"n2.key\""),
        "and this node is n1",
    );
    refused(&cluster, &good.replace("\"n1.key\"", "\"n2.key\""), "the private key does not belong to the certificate");
    let foreign = good
        .replace("\"n1.pem\"", &format!("{:?}", elsewhere("n1.pem")))
        .replace("\"n1.key\"", &format!("{:?}", elsewhere("n1.key")));
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
    refused(
        &spare,
        &spare.files.config(0),
        &format!("{} is in use by another program; stop it or choose another port", spare.address(0)),
    );
    drop(udp);
    refused(&spare, &spare.files.config(0), &format!("admin = {}", spare.admin(0)));
    drop(tcp);

    let moved =
        |config: String| config.replace(&cluster.address(0).ip().to_string(), &spare.address(0).ip().to_string());
    refused_by_a_running_node(
        &cluster,
        &moved(cluster.files.config(0)),
        "is in use by another process: stop that node first",
    );
    assert_eq!(cluster.rejoin(&["status"]).done().code, Some(0), "who has it goes on");

    let theirs = spare.files.config(0).replace("\"n1.data\"", &format!("{:?}", data(&cluster)));
    drop(cluster_stopped(cluster, |cluster| {
        refused(
            &spare,
            &theirs,
            &format!("belongs to cluster {}, not to {}", cluster.files.ca.cluster(), spare.files.ca.cluster()),
        );
        let version = cluster.files.dir.join("n1.data/VERSION");
        rewrite_format(&version, 3, 2);
        refused(
            cluster,
            &cluster.files.config(0),
            "has data format 2, this release knows none before 3: start the release of rejoin that has written it",
        );
        rewrite_format(&version, 2, 9);
        refused(
            cluster,
            &cluster.files.config(0),
            "has data format 9, this release knows up to 4: start a newer release of rejoin on it",
        );
    }));
}

/// Stops the only node, and looks at what it has left.
fn cluster_stopped(mut cluster: Cluster, look: impl FnOnce(&Cluster)) -> Cluster {
    assert!(cluster.take(0).stop().success(), "{}", cluster.log(0));
    look(&cluster);
    cluster
}

/// What another release would have left.
fn rewrite_format(path: &Path, from: u32, to: u32) {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, content) = text.split_once('\n').unwrap();
    let content = content.replace(&format!("format {from}\n"), &format!("format {to}\n"));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_clients_find_each_other_by_host_names() {
    let mut cluster = Cluster::prepare(3, "");
    let free: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let names: Vec<String> =
        free.iter().map(|socket| format!("localhost:{}", socket.local_addr().unwrap().port())).collect();
    drop(free);
    let renamed = |mut text: String| {
        (0..3).for_each(|index| {
            text = text.replace(&format!("\"{}\"", cluster.address(index)), &format!("\"{}\"", names[index]))
        });
        text
    };
    let texts: Vec<String> = (0..3).map(|index| renamed(cluster.files.config(index))).collect();
    let profile = renamed(std::fs::read_to_string(cluster.files.profile()).unwrap());
    std::fs::write(cluster.files.profile(), profile).unwrap();
    for (index, text) in texts.iter().enumerate() {
        assert!(!text.contains(&format!("address = \"{}", cluster.address(0))), "{text}");
        std::fs::write(cluster.files.config_path(index), text).unwrap();
        cluster.spawn(index);
    }
    let client =
        eventually("a client is let in", async || rejoin_client::Client::from_profile(cluster.files.profile()).await)
            .await;
    let all_up = async || match client.admin().status().await {
        Ok(status) if status.nodes.iter().all(|node| node.up) => Ok(status),
        other => Err(other),
    };
    let status = eventually("the nodes find each other", all_up).await;
    let mut shown: Vec<String> = status.nodes.iter().map(|node| node.address.to_string()).collect();
    shown.sort();
    let mut expected = names.clone();
    expected.sort();
    assert_eq!(shown, expected);
    client.admin().create_bucket("plain", rejoin_client::admin::BucketProps::default()).await.unwrap();
    let bucket = client.bucket::<rejoin_client::Bytes>("plain").unwrap();
    for key in 0..20_u8 {
        // Goes to the owner of each key, at its address in the layout.
        bucket.put([key], vec![key]).create().w(3).await.unwrap();
    }
    let ran = cluster.rejoin(&["status", "--node", &names[1]]);
    assert!(ran.done().text().contains(&names[2]), "{ran:?}");
}

/// The nodes of a cluster were given lists of nodes, or secrets, that differ: no two halves take writes side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_were_set_up_differently_refuse_each_other_and_say_how() {
    for (change, words) in [
        (("[[bootstrap]]\nname = \"n2\"", "[[bootstrap]]\nzone = \"east\"\nname = \"n2\""), "the first layout differs"),
        (("secret = \"secret\"", "secret = \"other-secret\""), "the cluster's secret differs"),
        (("dev_faults = true", "dev_faults = true\nmax_skew_ms = 1234"), "max_skew_ms differs"),
    ] {
        let mut cluster = Cluster::prepare(3, "");
        std::fs::write(cluster.files.dir.join("other-secret"), "another secret of that cluster").unwrap();
        let path = cluster.files.config_path(2);
        std::fs::write(&path, cluster.files.config(2).replace(change.0, change.1)).unwrap();
        (0..3).for_each(|index| cluster.spawn(index));

        let unwell = async |index: usize, name: &str| {
            let (status, text) = http::get(cluster.admin(index), "/health").map_err(|error| error.to_string())?;
            let told = status == 503 && text.contains(words) && text.contains(name);
            if told { Ok(()) } else { Err(format!("{status} {text}")) }
        };
        for (index, other) in [(0, "n3"), (1, "n3"), (2, "n1"), (2, "n2")] {
            eventually("both sides are named by /health", async || unwell(index, other).await).await;
        }
        // The two that agree serve, and show it; the third one lets nobody in.
        for index in 0..2 {
            let status = cluster.pinned(index).await.admin().status().await.unwrap();
            assert!(status.problems.iter().any(|problem| problem.contains(words)), "{:?}", status.problems);
        }
        let (_, text) = http::get(cluster.admin(2), "/health").unwrap();
        assert!(text.contains("not serving"), "{text}");
        assert!(cluster.log(2).contains(words));
        refused_by_the_third(&cluster, words).await;
    }
}

/// A client of the node that does not serve hears at once why, and a client of all nodes does without it.
async fn refused_by_the_third(cluster: &Cluster, words: &str) {
    let wait = Duration::from_secs(60);
    let refused = cluster.builder(2).connect_timeout(wait).timeout(wait).connect().await.unwrap_err();
    assert_eq!(refused.kind(), rejoin_client::ErrorKind::NotServing, "{refused}");
    assert!(refused.to_string().contains("n3 does not serve") && refused.to_string().contains(words), "{refused}");
    cluster.rejoin(&["status", "--node", &cluster.address(2).to_string()]).said(4, words);

    let seeds = [2, 0, 1].map(|index| cluster.address(index).to_string());
    let all = rejoin_client::Profile::load(cluster.files.profile()).unwrap().builder().seeds(seeds);
    let client = all.connect_timeout(wait).timeout(wait).connect().await.unwrap();
    client.admin().create_bucket("plain", rejoin_client::admin::BucketProps::default()).await.unwrap();
    let bucket = client.bucket::<rejoin_client::Bytes>("plain").unwrap();
    for key in 0..12_u8 {
        bucket.put([key], vec![key]).create().await.unwrap();
    }
}
