//! Versions of a plugin as a team uses them: pushed, activated and rolled back by commands, while every node answers.

use std::time::{Duration, Instant};

use serde_json::Value;

use rejoin_client::ErrorKind;
use rejoin_client::admin::{BucketProps, PluginDigest, PluginState, activation};
use rejoin_test_cluster::{Cluster, eventually, http};
use rejoin_test_hostile::guests;

/// Within this a rollback is seen everywhere.
const SEEN: Duration = Duration::from_secs(5);

/// Pushes version 1 or 2 of `pick` at the first node: they answer with the first and the second of two siblings.
/// Returns the digest.
fn push(cluster: &Cluster, version: u8) -> String {
    let (file, node) = (format!("pick{version}.wasm"), cluster.address(0).to_string());
    std::fs::write(cluster.files.dir.join(&file), guests::picking(version, u32::from(version) - 1)).unwrap();
    let pushed = cluster.rejoin(&["plugin", "push", &file, "--node", &node]);
    pushed.said(0, &format!("pushed pick {version}")).text().to_owned()
}

fn write_siblings(cluster: &Cluster) {
    cluster.rejoin(&["put", "carts", "k", "one", "--w", "3"]).done();
    cluster.rejoin(&["put", "carts", "k", "two", "--blind", "--w", "3"]).done();
}

fn read(cluster: &Cluster, index: usize) -> Value {
    let node = cluster.address(index).to_string();
    cluster.rejoin(&["get", "carts", "k", "--node", &node, "--json"]).done().json()
}

/// Waits until that node merges with that plugin. Returns what it makes of the siblings.
async fn view(cluster: &Cluster, index: usize, digest: &str) -> Value {
    let look = async || {
        let seen = read(cluster, index);
        if seen["merged_by"]["digest"] == digest { Ok(seen["value"].clone()) } else { Err(seen) }
    };
    eventually("a node merges with the plugin", look).await
}

/// As [`view`], of three nodes, which must make the same of them.
async fn views(cluster: &Cluster, digest: &str) -> Value {
    let first = view(cluster, 0, digest).await;
    for index in 1..3 {
        assert_eq!(view(cluster, index, digest).await, first, "n{}", index + 1);
    }
    first
}

/// The state of version 2 at the third node.
fn state_at_the_third(cluster: &Cluster) -> String {
    let shown = cluster.rejoin(&["plugin", "show", "pick@2", "--json"]).done().json();
    let nodes = shown["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["node"] == "n3").unwrap()["state"].as_str().unwrap().to_owned()
}

async fn third_is(cluster: &Cluster, state: &str) {
    let look = async || match state_at_the_third(cluster) {
        seen if seen == state => Ok(()),
        other => Err(other),
    };
    eventually("the third node has the plugin in that state", look).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_activated_and_rolled_back_and_every_node_follows() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (push(&cluster, 1), push(&cluster, 2));
    cluster.rejoin(&["bucket", "create", "carts"]).said(0, "the bucket has no merge plugin");
    let activated = cluster.rejoin(&["plugin", "activate", "carts", "pick@1"]);
    activated.said(0, "bucket carts changed, version 2");
    activated.said(0, "pick@1 merges carts now, on every node that has the change");
    write_siblings(&cluster);
    let first = views(&cluster, &one).await;

    let ready = cluster.rejoin(&["plugin", "list"]).done().text().to_owned();
    assert_eq!(ready.matches("3 ready").count(), 2, "{ready}");
    cluster.rejoin(&["plugin", "activate", "carts", "pick@2"]).said(0, "pick@2 merges carts now");
    let second = views(&cluster, &two).await;
    assert!(first != second && [&first, &second].iter().all(|view| *view == "one" || *view == "two"), "{first}");
    cluster.rejoin(&["plugin", "activate", "carts", "pick@2"]).said(0, "bucket carts has it already");

    let began = Instant::now();
    let back = cluster.rejoin(&["plugin", "rollback", "carts"]);
    assert_eq!(views(&cluster, &one).await, first);
    assert!(began.elapsed() < SEEN, "{:?}", began.elapsed());
    back.said(0, "bucket carts changed, version 4").said(0, "pick@1 merges carts now");
    // A rollback is taken back by the next one, and may name an earlier version; nothing was lost meanwhile.
    cluster.rejoin(&["plugin", "rollback", "carts"]).said(0, "pick@2 merges carts now");
    assert_eq!(views(&cluster, &two).await, second);
    cluster.rejoin(&["plugin", "rollback", "carts", "--to", "pick@1"]).said(0, "pick@1 merges carts now");
    assert_eq!(views(&cluster, &one).await, first);
    let shown = cluster.rejoin(&["bucket", "show", "carts", "--json"]).done().json();
    assert_eq!((&shown["plugin"], shown["past_plugins"].as_array().unwrap().len()), (&Value::from(one), 5), "{shown}");
    cluster.rejoin(&["plugin", "activate", "carts", "none"]).said(0, "no plugin merges carts now");
    assert_eq!(read(&cluster, 1)["siblings"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_computes_otherwise_is_named_and_merges_nothing_with_it() {
    let mut cluster = Cluster::start(3).await;
    let one = push(&cluster, 1);
    cluster.rejoin(&["bucket", "create", "carts", "--plugin", &one]).done();
    write_siblings(&cluster);
    let first = views(&cluster, &one).await;
    http::post(cluster.admin(2), "/faults/engine/wrong");
    let two = push(&cluster, 2);
    third_is(&cluster, "differs").await;

    let refused = cluster.rejoin(&["plugin", "activate", "carts", "pick@2"]);
    refused.said(7, "n3 (differs) cannot run the plugin: n3 does not run plugin").said(7, "--force");
    cluster.rejoin(&["bucket", "set", "carts", "--plugin", &two]).said(7, "n3 (differs)");
    cluster.rejoin(&["bucket", "create", "others", "--plugin", &two]).said(7, "n3 (differs)");
    assert_eq!(views(&cluster, &one).await, first, "the bucket has what it had");
    let listed = cluster.rejoin(&["plugin", "list"]).done().text().to_owned();
    assert!(listed.contains("2 ready, n3 differs") && listed.contains("3 ready"), "{listed}");
    let (health, said) = http::get(cluster.admin(2), "/health").unwrap();
    // What a tenant pushes does not take a node out of service.
    assert!(health == 200 && said.contains("warning: n3 does not run plugin"), "{said}");
    let third = cluster.address(2).to_string();
    cluster.rejoin(&["status", "--node", &third]).said(0, "warning: n3 does not run plugin");
    assert!(cluster.log(2).contains("n3 does not run plugin"), "{}", cluster.log(2));
    for (index, differing) in [(0, 0.0), (1, 0.0), (2, 1.0)] {
        assert_eq!(http::metric(cluster.admin(index), "rejoin_plugins_differing"), differing);
    }

    // By force: the others merge, and the third keeps the siblings.
    cluster.rejoin(&["plugin", "activate", "carts", "pick@2", "--force"]).said(0, "pick@2 merges carts now");
    let second = view(&cluster, 0, &two).await;
    let kept = async || {
        let seen = read(&cluster, 2);
        let why = seen["merge_fault"].as_str().unwrap_or_default().to_owned();
        if why.contains("n3 does not run plugin") { Ok(seen) } else { Err(seen) }
    };
    let seen = eventually("the third node keeps the siblings", kept).await;
    assert!(seen["value"].is_null() && seen["siblings"].as_array().unwrap().len() == 2, "{seen}");
    cluster.rejoin(&["plugin", "rollback", "carts"]).said(0, "pick@1 merges carts now");
    assert_eq!(views(&cluster, &one).await, first);
    cluster.rejoin(&["plugin", "rollback", "carts"]).said(7, "n3 (differs)");

    // Without the third node it is activated, and that one compares again before it merges.
    assert!(cluster.take(2).stop().success());
    let activated = cluster.rejoin(&["plugin", "activate", "carts", "pick@2"]);
    activated.said(0, "n3 cannot be reached").said(0, "pick@2 merges carts now");
    cluster.spawn(2);
    cluster.together().await;
    third_is(&cluster, "ready").await;
    assert_eq!(views(&cluster, &two).await, second);
    assert_eq!(http::get(cluster.admin(2), "/health").unwrap().0, 200);
}

/// A client of the SDK activates what was pushed a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_waits_until_the_nodes_are_ready_and_names_those_that_will_not_be() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client().await.admin();
    cluster.rejoin(&["bucket", "create", "carts"]).done();
    write_siblings(&cluster);
    let one: PluginDigest = push(&cluster, 1).parse().unwrap();
    admin.activate_plugin("carts", Some(one)).await.unwrap();
    let readiness = admin.plugin_readiness(Some(one)).await.unwrap();
    let is_ready = readiness.of(&one).all(|(_, state)| *state == PluginState::Ready);
    assert!(is_ready && readiness.answers.len() == 3, "{readiness:?}");
    views(&cluster, &one.to_string()).await;

    http::post(cluster.admin(2), "/faults/engine/wrong");
    let two: PluginDigest = push(&cluster, 2).parse().unwrap();
    for refused in [
        admin.activate_plugin("carts", Some(two)).await.expect_err("the third node differs"),
        admin.activate_canary("carts", Some(two), 10).await.expect_err("the third node differs"),
    ] {
        let said = refused.to_string();
        assert_eq!(refused.kind(), ErrorKind::PluginRejected, "{said}");
        assert!(said.contains("n3 (differs) cannot run the plugin: n3 does not run plugin"), "{said}");
        assert!(said.contains("`activate_plugin_at_once`"), "{said}");
    }
    // So does the cluster itself, of a client that asks nobody.
    let now = admin.bucket("carts").await.unwrap();
    let hasty = BucketProps { plugin: Some(activation(two)), ..now.props };
    for refused in [
        admin.set_bucket("carts", now.version, hasty.clone()).await.expect_err("the third node differs"),
        admin.create_bucket("others", hasty).await.expect_err("the third node differs"),
        admin.shadow_plugin("carts", Some((two, 100))).await.expect_err("the third node differs"),
    ] {
        let said = refused.to_string();
        assert_eq!(refused.kind(), ErrorKind::PluginRejected, "{said}");
        assert!(said.contains("n3 (differs) cannot run plugin") && said.contains("n3 does not run plugin"), "{said}");
    }
    // What cannot be is not waited for.
    let unknown = admin.activate_plugin("carts", Some(PluginDigest([9; 32]))).await.expect_err("nobody has pushed it");
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
    let all = admin.activate_canary("carts", Some(two), 100).await.expect_err("that is no share");
    assert_eq!(all.kind(), ErrorKind::BadRequest, "{all}");
    let kept = admin.bucket("carts").await.unwrap().props;
    assert_eq!((kept.plugin.map(|of| of.plugin), kept.canary), (Some(one), None), "the bucket has what it had");
    // What merges keys already is not asked about again.
    admin.activate_canary_at_once("carts", Some(two), 10).await.unwrap();
    let activated = admin.activate_plugin("carts", Some(two)).await.unwrap();
    assert_eq!(activated.props.plugin.map(|of| of.plugin), Some(two));
}

/// The faulty node is the first to record: then all others are said to differ, until the plugin is released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_has_the_sound_nodes_record_what_a_faulty_one_has_recorded_first() {
    let cluster = Cluster::start(3).await;
    http::post(cluster.admin(0), "/faults/engine/wrong");
    let digest = push(&cluster, 1);
    let are = async |wanted: [&str; 3]| {
        let look = async || {
            let shown = cluster.rejoin(&["plugin", "show", "pick", "--json"]).done().json();
            let nodes = shown["nodes"].as_array().unwrap();
            let states: Vec<&str> = nodes.iter().filter_map(|node| node["state"].as_str()).collect();
            if states == wanted { Ok(()) } else { Err(shown) }
        };
        eventually("the nodes have the plugin in these states", look).await;
    };
    are(["ready", "differs", "differs"]).await;
    let (_, said) = http::get(cluster.admin(1), "/health").unwrap();
    assert!(said.contains(&format!("rejoin plugin release {digest}")), "{said}");
    // A bucket has it, so it could not be deleted.
    cluster.rejoin(&["bucket", "create", "carts"]).done();
    cluster.rejoin(&["plugin", "activate", "carts", "pick", "--force"]).done();
    cluster.rejoin(&["plugin", "release", &digest]).done();
    are(["differs", "ready", "ready"]).await;
}

/// As in a rolling upgrade: a node with another engine has nothing to compare with, and records its own transcript,
/// with which the next one with that engine compares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_engines_record_a_transcript_each() {
    let cluster = Cluster::start(3).await;
    http::post(cluster.admin(1), "/faults/engine/other");
    http::post(cluster.admin(2), "/faults/engine/other");
    push(&cluster, 1);
    let both = async || {
        let shown = cluster.rejoin(&["plugin", "show", "pick", "--json"]).done().json();
        let transcripts = shown["transcripts"].as_array().unwrap();
        let ready = shown["nodes"].as_array().unwrap().iter().filter(|node| node["state"] == "ready").count();
        if (transcripts.len(), ready) == (2, 3) { Ok(transcripts.clone()) } else { Err(shown) }
    };
    let transcripts = eventually("there are two transcripts, and all nodes are ready", both).await;
    assert_eq!(transcripts[0]["hash"], transcripts[1]["hash"], "both engines are the same one");
    assert_ne!(transcripts[0]["profile"], transcripts[1]["profile"]);
    cluster.rejoin(&["bucket", "create", "carts"]).done();
    cluster.rejoin(&["plugin", "activate", "carts", "pick"]).said(0, "pick@1 merges carts now");
    (0..3).for_each(|index| assert_eq!(http::get(cluster.admin(index), "/health").unwrap().0, 200));
}
