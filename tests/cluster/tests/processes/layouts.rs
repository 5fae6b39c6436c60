//! Nodes that join a running cluster, and changes of its layout, by the commands of the book.

use serde_json::Value;

use rejoin_client::Bytes;
use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::{Cluster, eventually, http};

/// A node in the answer to `layout show --json`.
fn shown<'a>(show: &'a Value, node: &str) -> Option<&'a Value> {
    show["nodes"].as_array().unwrap().iter().find(|shown| shown["node"] == node)
}

fn show(cluster: &Cluster) -> Value {
    cluster.rejoin(&["layout", "show", "--json"]).done().json()
}

/// Waits until a node is shown with that standing, whoever answers.
async fn standing(cluster: &Cluster, node: &str, expected: &str) {
    eventually("the node is shown", async || {
        let show = show(cluster);
        match shown(&show, node).is_some_and(|shown| shown["standing"] == expected && shown["up"] == true) {
            true => Ok(()),
            false => Err(show.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_is_unassigned_forwards_requests_and_can_be_planned() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    for key in 0..50_u8 {
        bucket.put([key], vec![key]).create().w(3).await.unwrap();
    }
    let n4 = cluster.join("n4").await;
    let through = cluster.pinned(n4).await.bucket::<Bytes>("plain").unwrap();
    for key in 0..50_u8 {
        assert_eq!(through.get([key]).await.unwrap().value, Some(vec![key]), "forwarded to an owner");
        through.put([100 + key], vec![key]).create().await.unwrap();
    }
    standing(&cluster, "n4", "unassigned").await;
    let text = cluster.rejoin(&["layout", "show"]).done().text().to_owned();
    assert!(text.contains("n4 is unassigned: `rejoin layout assign n4"), "{text}");

    cluster.rejoin(&["layout", "plan"]).said(2, "nothing is staged: stage a change with `rejoin layout assign NODE`");
    cluster.rejoin(&["layout", "revert"]).said(2, "nothing is staged");
    cluster.rejoin(&["layout", "assign", "n9"]).said(2, "no node n9 is known: start it with `join = [...]`");
    cluster.rejoin(&["layout", "remove", "n4"]).said(2, "node n4 is not in the layout");
    cluster.rejoin(&["layout", "skip", "n2"]).said(2, "rejoin layout skip n2 --yes");
    cluster.rejoin(&["layout", "skip", "n2", "--yes"]).said(2, "no change of layout is under way");
    let apply = ["layout", "apply", "--version", "2", "--plan", "nonsense"];
    cluster.rejoin(&apply).said(2, "rejoin layout plan");
    cluster.rejoin(&["layout", "assign", "n4", "--zone", "default", "--capacity", "1"]).done();
    let plan = cluster.rejoin(&["layout", "plan", "--json"]).done().json();
    assert_eq!((&plan["version"], &plan["copies_moved"]), (&2.into(), &192.into()), "{plan}");
    assert_eq!(plan["copies_moved"], plan["copies_moved_at_least"]);
    assert!(plan["nodes"].as_array().unwrap().iter().all(|node| node["then"] == 192), "{plan}");
    // Every node gives the same plan once it has heard of what is staged.
    for index in 0..4 {
        let address = cluster.address(index).to_string();
        eventually("every node makes the same plan", async || {
            let ran = cluster.rejoin(&["layout", "plan", "--json", "--node", &address]);
            match ran.code == Some(0) && ran.json()["plan"] == plan["plan"] {
                true => Ok(()),
                false => Err(ran),
            }
        })
        .await;
    }
    let text = cluster.rejoin(&["layout", "plan"]).done().text().to_owned();
    let hash = plan["plan"].as_str().unwrap();
    assert!(text.contains(&format!("rejoin layout apply --version 2 --plan {hash}")), "{text}");
    cluster.rejoin(&["layout", "apply", "--version", "2", "--plan", "00000000000000ff"]).said(6, "not what was shown");
    cluster.rejoin(&["node", "drain", "n1"]).done();
    let show = show(&cluster);
    assert_eq!(shown(&show, "n1").unwrap()["staged"]["capacity"], 0);
    cluster.rejoin(&["layout", "assign", "--n", "2", "--zones", "any"]).done();
    cluster.rejoin(&["layout", "revert"]).done();
    cluster.rejoin(&["layout", "plan"]).said(2, "nothing is staged");

    // It keeps the ring, and is the same node after a kill, under another address.
    cluster.kill(n4);
    let other = rejoin_test_cluster::Seat::on_loopback(cluster.files.nodes[n4].0.clone(), None);
    (cluster.files.nodes[n4].1, cluster.files.nodes[n4].2) = (other.address, other.admin);
    let config = cluster.files.config(n4);
    let config: String =
        config.lines().filter(|line| !line.starts_with("join")).map(|line| format!("{line}\n")).collect();
    std::fs::write(cluster.files.config_path(n4), config).unwrap();
    cluster.spawn(n4);
    eventually("the new address is shown", async || {
        let show = self::show(&cluster);
        let n4 = shown(&show, "n4").unwrap();
        match n4["address"] == other.address.to_string() && n4["up"] == true {
            true => Ok(()),
            false => Err(show.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_restarts_with_another_address_is_found_under_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster.kill(1);
    let old = cluster.address(1).to_string();
    let other = rejoin_test_cluster::Seat::on_loopback(cluster.files.nodes[1].0.clone(), None);
    let config = cluster.files.config(1).replace(&old, &other.address.to_string());
    std::fs::write(cluster.files.config_path(1), config).unwrap();
    cluster.files.nodes[1].1 = other.address;
    cluster.spawn(1);
    cluster.together().await;
    // The others find it again, too, when its process ends and another one begins: nobody dials the old address.
    cluster.kill(0);
    cluster.spawn(0);
    cluster.together().await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    for key in 0..20_u8 {
        bucket.put([key], vec![key]).create().w(3).await.unwrap();
    }
    let shown = show(&cluster);
    assert_eq!(self::shown(&shown, "n2").unwrap()["address"], other.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_join_says_why_and_goes_on_asking_if_that_may_help() {
    let mut cluster = Cluster::prepare(3, "");
    let n4 = cluster.add("n4");
    cluster.spawn(n4);
    let asked = async |cluster: &Cluster, words: &str| match cluster.log(n4) {
        log if log.contains(words) => Ok(()),
        log => Err(log),
    };
    let tried = cluster.address(0).to_string();
    eventually("it says whom it has asked", async || asked(&cluster, "no node of `join` lets this one in yet").await)
        .await;
    assert!(cluster.log(n4).contains(&tried), "{}", cluster.log(n4));
    (0..3).for_each(|index| cluster.spawn(index));
    standing(&cluster, "n4", "unassigned").await;
    // The others may list it before it has met all of them, and serves.
    eventually("it is well", async || match http::get(cluster.admin(n4), "/health").unwrap() {
        (200, _) => Ok(()),
        (_, text) => Err(text),
    })
    .await;
    // From here on it cannot.
    cluster.kill(n4);
    std::fs::remove_dir_all(cluster.data(n4)).unwrap();

    std::fs::write(cluster.files.dir.join("other-secret"), "another secret of that cluster").unwrap();
    let config = cluster.files.config(n4);
    let refused = async |cluster: &mut Cluster, text: String, words: &str| {
        std::fs::write(cluster.files.config_path(n4), text).unwrap();
        cluster.spawn(n4);
        let status = cluster.take(n4).ended();
        assert_eq!(status.code(), Some(2), "{}", cluster.log(n4));
        assert!(cluster.log(n4).contains(words), "{}", cluster.log(n4));
        assert!(!cluster.data(n4).exists(), "it leaves nothing behind");
    };
    refused(&mut cluster, config.replace("\"secret\"", "\"other-secret\""), "the cluster's secret differs").await;
    let both = format!("{config}[[bootstrap]]\nname = \"n4\"\naddress = \"127.0.0.1:7400\"\n");
    refused(&mut cluster, both, "join: a node either begins a cluster, by a [[bootstrap]] list, or joins").await;
    let listen = cluster.address(n4).to_string();
    let anywhere = config.replace(&format!("listen = \"{listen}\""), "listen = \"0.0.0.0:0\"");
    refused(&mut cluster, anywhere.replace("dev_faults = true", "dev_faults = false"), "write `address` too").await;
    let neither: String =
        config.lines().filter(|line| !line.starts_with("join")).map(|line| format!("{line}\n")).collect();
    refused(&mut cluster, neither, "neither a [[bootstrap]] list").await;
    let other = Cluster::start(1).await;
    let stranger = config.replace(&tried, &other.address(0).to_string());
    refused(&mut cluster, stranger, "it cannot join the cluster at").await;
}
