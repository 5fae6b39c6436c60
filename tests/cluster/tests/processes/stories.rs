//! What the product is for, from end to end: the demos, the example service, a forwarded request, an update that is
//! tried again.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rejoin_client::Bytes;
use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::{Cluster, binary, cli, eventually, http};

#[test]
fn the_demo_of_a_split_tells_its_story_and_leaves_nothing_behind() {
    let out = demo("partition", 3);
    assert!(out.matches('✓').count() >= 6 && out.contains("merged by plugin cart"), "{out}");
}

#[test]
fn the_demo_of_handoff_tells_its_story_and_leaves_nothing_behind() {
    // The last node is started three times.
    let out = demo("handoff", 6);
    assert!(out.matches('✓').count() >= 5 && out.contains("it is rebuilt"), "{out}");
}

#[test]
fn the_demo_of_growth_tells_its_story_and_leaves_nothing_behind() {
    let out = demo("grow", 5);
    assert!(out.matches('✓').count() >= 4 && out.contains("none has failed"), "{out}");
}

#[test]
fn the_demo_of_tenants_tells_its_story_and_leaves_nothing_behind() {
    let out = demo("tenants", 3);
    assert!(out.matches('✓').count() >= 12 && out.contains("quota exceeded: tenant games"), "{out}");
}

/// Runs a demo to its good end, and checks that its files and processes are gone. Returns what it has printed.
fn demo(story: &str, started: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["demo", story]).env("TMPDIR", dir.path()).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{talk}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files are gone");
    let processes: Vec<u32> = out.lines().filter_map(process_of).collect();
    assert_eq!(processes.len(), started, "it names its processes: {out}");
    for id in processes {
        assert!(!is_rejoin(id), "process {id} is still there");
    }
    out.into_owned()
}

/// The id in a line such as `n1 is process 4711, on 127.0.0.1:7401` or `n4 is process 4712 now`.
fn process_of(line: &str) -> Option<u32> {
    line.split_once(" is process ")?.1.split([',', ' ']).next()?.parse().ok()
}

fn is_rejoin(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.trim() == "rejoin")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_share_a_cart_as_the_example_service_shows() {
    let cluster = Cluster::start(3).await;
    let plugin = cluster.cart().await;
    let profile = cluster.files.profile();
    let run = |arguments: &[&str]| cli::cart_service(&cluster.files.dir, &profile, arguments);
    for _ in 0..2 {
        let ran = run(&["tour"]);
        assert!(ran.done().text().contains("2 siblings were kept, and cart merged them"), "{}", ran.text());
    }
    run(&["add", "ann", "apples", "3"]).done();
    run(&["add", "ann", "pears"]).done();
    run(&["remove", "ann", "apples"]).done();
    let shown = run(&["show", "ann"]);
    assert!(shown.done().text().contains("pears") && !shown.text().contains("apples"), "{}", shown.text());
    assert_eq!(run(&["dance"]).code, Some(2));
    assert_eq!(plugin.name.as_str(), "cart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_owns_nothing_of_a_key_forwards_once_to_one_that_does() {
    let cluster = Cluster::start(5).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let forwards = || (0..5).map(|index| http::metric(cluster.admin(index), "rejoin_forwards_total")).sum::<f64>();
    let before = forwards();
    // Each of five nodes is asked about each key, and three own it: two in five requests are forwarded.
    let (keys, mut asked) = (10, 0.0);
    for index in 0..5 {
        let bucket = cluster.pinned(index).await.bucket::<Bytes>("plain").unwrap();
        for key in 0..keys {
            let key = format!("key{key}");
            if index == 0 {
                bucket.put(&key, key.clone().into_bytes()).create().w(3).await.unwrap();
            } else {
                let object = bucket.get(&key).r(3).await.unwrap();
                assert_eq!((object.value.as_deref(), object.answered.len()), (Some(key.as_bytes()), 3));
            }
            asked += 1.0;
        }
    }
    assert!((forwards() - before - asked * 2.0 / 5.0).abs() < 0.5, "{} of {asked}", forwards() - before);
    // A client that knows the layout needs no forwarding.
    let (routed, before) = (cluster.client().await.bucket::<Bytes>("plain").unwrap(), forwards());
    for key in 0..keys {
        assert!(routed.get(format!("key{key}")).await.unwrap().is_found());
    }
    assert!((forwards() - before).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_what_it_missed_without_a_read() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster.kill(2);
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    let written =
        eventually("two of three take the write", async || bucket.put("k", b"v".to_vec()).blind().await).await;
    assert_eq!((written.acked, written.needed), (2, 2));
    cluster.spawn(2);
    cluster.together().await;
    let own = cluster.pinned(2).await.bucket::<Bytes>("plain").unwrap();
    // With r = 1 an owner answers from its own copy, and asks nobody.
    let has_it = async || match own.get("k").r(1).await {
        Ok(object) if object.is_found() => Ok(()),
        other => Err(other),
    };
    eventually("the exchange brings it", has_it).await;
}
