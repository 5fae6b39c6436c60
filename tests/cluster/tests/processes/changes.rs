//! Changes of the layout on real processes, under readers and writers: no request fails, and no write is lost.

use std::time::Duration;

use serde_json::Value;

use rejoin_client::Bytes;
use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::load::{Load, fill, has_room, noise, taken, value};
use rejoin_test_cluster::{Cluster, eventually};

fn apply(cluster: &Cluster, ask: &[&str]) -> Value {
    let with = |words: &[&str]| cluster.rejoin(&[words, ask].concat());
    let plan = with(&["layout", "plan", "--json"]).done().json();
    let (version, hash) = (plan["version"].to_string(), plan["plan"].as_str().unwrap());
    with(&["layout", "apply", "--version", &version, "--plan", hash]).done();
    plan
}

/// Waits until no change is under way, as the node at that address sees it.
async fn settled(cluster: &Cluster, index: usize) {
    let address = cluster.address(index).to_string();
    rejoin_test_cluster::within(Duration::from_secs(60), "the change ends", async || {
        let show = cluster.rejoin(&["layout", "show", "--json", "--node", &address]).done().json();
        match show["change"].is_null() {
            true => Ok(()),
            false => Err(show.to_string()),
        }
    })
    .await;
}

/// Waits until a node holds nothing that it does not own.
async fn drained(cluster: &Cluster, index: usize) {
    let admin = cluster.pinned(index).await.admin();
    rejoin_test_cluster::within(Duration::from_secs(60), "it hands over what it has", async || {
        match admin.exchange().await.unwrap().holdings {
            0 => Ok(()),
            count => Err(count),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_become_four_and_one_of_the_first_leaves_while_clients_go_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let (load, tasks) = Load::begin(&cluster).await;
    let n4 = cluster.join("n4").await;
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    let plan = apply(&cluster, &[]);
    assert_eq!(plan["copies_moved"], 192, "{plan}");
    settled(&cluster, 0).await;
    settled(&cluster, n4).await;
    // The new node's own copies, without anybody else's.
    let (mut own, bucket) = (0, cluster.pinned(n4).await.bucket::<Bytes>("plain").unwrap());
    let written = load.written();
    for key in written {
        let read = bucket.get(key.to_be_bytes()).r(1).await.unwrap();
        if read.answered == ["n4"] {
            assert_eq!(read.value, Some(value(key)), "{key} is missing at n4");
            own += 1;
        }
    }
    assert!(own > 100, "{own}");

    cluster.rejoin(&["layout", "remove", "n1"]).done();
    apply(&cluster, &[]);
    settled(&cluster, 1).await;
    drained(&cluster, 0).await;
    let status = cluster.take(0).stop();
    assert_eq!(status.code(), Some(0));
    load.goes_on("the clients go on without it", 100).await;
    load.end(tasks, &cluster, 2).await;
    let show =
        cluster.rejoin(&["layout", "history", "--json", "--node", &cluster.address(2).to_string()]).done().json();
    assert_eq!(show.as_array().unwrap().len(), 2, "{show}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_replaced_once_it_is_skipped_and_does_not_come_back_with_its_data() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let n4 = cluster.join("n4").await;
    // Before the clients begin: the outcome of a write that its coordinator took with it is not known.
    cluster.kill(2);
    let (load, tasks) = Load::begin(&cluster).await;
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    cluster.rejoin(&["layout", "remove", "n3"]).done();
    let told = eventually("n3 is known to be down", async || {
        let ran = cluster.rejoin(&["layout", "plan"]);
        if ran.talk.contains("node n3 is down") { Ok(ran) } else { Err(ran) }
    })
    .await;
    assert!(told.talk.contains("`rejoin layout skip n3`"), "{told:?}");
    apply(&cluster, &[]);
    let stuck = eventually("it says whom it waits for", async || {
        let ran = cluster.rejoin(&["layout", "show"]);
        if ran.text().contains("n3 is down: start it, or `rejoin layout skip n3`") { Ok(ran) } else { Err(ran) }
    })
    .await;
    assert!(stuck.text().contains("step 1 of 4, acknowledge"), "{stuck:?}");
    cluster.rejoin(&["layout", "skip", "n1", "--yes"]).said(2, "node n1 answers");
    cluster.rejoin(&["layout", "skip", "n3", "--yes"]).done();
    settled(&cluster, 0).await;
    settled(&cluster, n4).await;
    load.end(tasks, &cluster, n4).await;
    cluster.spawn(2);
    eventually("n3 is refused", async || match cluster.log(2) {
        log if log.contains("was declared dead and removed") => Ok(()),
        log => Err(log),
    })
    .await;
    drop(cluster.take(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_that_comes_back_empty_waits_for_its_removal_and_is_let_in_then() {
    let mut cluster = Cluster::start(4).await;
    // The change waits for n3, which is only down, when n4 is declared dead.
    cluster.kill(2);
    cluster.kill(3);
    cluster.rejoin(&["layout", "remove", "n4"]).done();
    eventually("n4 is known to be down", async || {
        let ran = cluster.rejoin(&["layout", "plan"]);
        if ran.talk.contains("node n4 is down") { Ok(()) } else { Err(ran) }
    })
    .await;
    apply(&cluster, &[]);
    eventually("whoever is asked knows that n4 is down", async || {
        let ran = cluster.rejoin(&["layout", "skip", "n4", "--yes"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran) }
    })
    .await;
    std::fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.files.joins(3);
    cluster.spawn(3);
    eventually("n4 waits", async || match cluster.log(3) {
        log if log.contains("an operator has declared this node dead") => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(!cluster.data(3).exists(), "nothing is noted yet");
    cluster.spawn(2);
    settled(&cluster, 0).await;
    // Also with what it has noted since.
    for _ in 0..2 {
        // It serves, so the others have taken its hello.
        cluster.pinned(3).await;
        eventually("n4 is there, and no member", async || {
            let show = cluster.rejoin(&["layout", "show", "--json"]).done().json();
            let nodes = show["nodes"].as_array().unwrap();
            match nodes.iter().any(|n4| n4["node"] == "n4" && n4["standing"] == "unassigned" && n4["up"] == true) {
                true => Ok(()),
                false => Err(show.to_string()),
            }
        })
        .await;
        cluster.kill(3);
        cluster.spawn(3);
    }
    cluster.pinned(3).await;
    assert!(!cluster.log(3).contains("was declared dead and removed"), "{}", cluster.log(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_on_after_a_new_owner_and_an_old_one_were_killed() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let (load, tasks) = Load::begin(&cluster).await;
    load.stop();
    let n4 = cluster.join("n4").await;
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    apply(&cluster, &[]);
    for index in [n4, 0, n4] {
        cluster.kill(index);
        cluster.spawn(index);
        cluster.pinned(index).await;
    }
    settled(&cluster, 1).await;
    load.end(tasks, &cluster, n4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_holds_nothing_any_more_frees_its_disk_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    fill(&bucket, 600).await;
    let n4 = cluster.join("n4").await;
    let full = taken(&cluster.data(0));
    assert!(full > 600 * 20_000, "{full} bytes");
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    cluster.rejoin(&["node", "drain", "n1"]).done();
    apply(&cluster, &[]);
    settled(&cluster, 0).await;
    drained(&cluster, 0).await;
    let left = has_room(&cluster, 0).await;
    eprintln!("a node of {full} bytes that has handed over everything takes {left} bytes");
    let shown = cluster.rejoin(&["layout", "show", "--json"]).done().json();
    assert!(shown["change"].is_null(), "{shown}");
    for key in (0..600_u64).step_by(7) {
        let read = bucket.get(key.to_be_bytes()).await.unwrap();
        assert_eq!(read.value, Some(noise(key)));
    }
    drop(cluster.take(n4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_split_under_load_and_a_node_that_joins_afterwards_takes_its_share_of_them() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let (load, tasks) = Load::begin(&cluster).await;
    cluster.rejoin(&["layout", "split"]).done();
    cluster.rejoin(&["layout", "assign", "n1", "--capacity", "2"]).said(2, "a split is staged");
    cluster.rejoin(&["layout", "revert"]).done();
    cluster.rejoin(&["layout", "assign", "n1", "--capacity", "2"]).done();
    cluster.rejoin(&["layout", "split"]).said(2, "other changes are staged");
    cluster.rejoin(&["layout", "revert"]).done();
    cluster.rejoin(&["layout", "split"]).done();
    let text = cluster.rejoin(&["layout", "plan"]).done().text().to_owned();
    assert!(text.contains("256 partitions become 512: each part keeps the owners of the whole"), "{text}");
    assert!(text.contains("0 copies of partitions move"), "{text}");
    let plan = apply(&cluster, &[]);
    assert_eq!(
        (&plan["partitions_before"], &plan["partitions"], &plan["copies_moved"]),
        (&256.into(), &512.into(), &0.into())
    );
    for index in 0..3 {
        settled(&cluster, index).await;
        let address = cluster.address(index).to_string();
        let show = cluster.rejoin(&["layout", "show", "--json", "--node", &address]).done().json();
        assert_eq!((&show["partitions"], show["live"].as_array().unwrap().len()), (&512.into(), 1), "{show}");
    }
    cluster.rejoin(&["layout", "history"]).done();
    let history = cluster.rejoin(&["layout", "history", "--json"]).done().json();
    assert_eq!((&history[0]["split"], &history[0]["copies_moved"]), (&512.into(), &0.into()), "{history}");
    let n4 = cluster.join("n4").await;
    cluster.rejoin(&["layout", "assign", "n4"]).done();
    let plan = apply(&cluster, &[]);
    assert_eq!((&plan["copies_moved"], &plan["partitions"]), (&384.into(), &512.into()), "{plan}");
    settled(&cluster, 0).await;
    settled(&cluster, n4).await;
    load.end(tasks, &cluster, n4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_ends_after_nodes_were_killed_in_the_middle_of_it_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let (load, tasks) = Load::begin(&cluster).await;
    // It does not hear of the split before it is back.
    cluster.kill(1);
    cluster.rejoin(&["layout", "split"]).done();
    apply(&cluster, &[]);
    eventually("the split waits for n2", async || {
        let ran = cluster.rejoin(&["layout", "show"]);
        match ran.text().contains("n2 is down: start it") && ran.text().contains("step 1 of 4, acknowledge") {
            true => Ok(()),
            false => Err(ran),
        }
    })
    .await;
    cluster.rejoin(&["layout", "split"]).said(4, "a change of layout is under way");
    // This one has heard of it, and the layout of before is live still.
    cluster.kill(0);
    cluster.spawn(1);
    cluster.pinned(1).await;
    cluster.kill(1);
    cluster.spawn(0);
    cluster.spawn(1);
    for index in 0..3 {
        cluster.pinned(index).await;
        settled(&cluster, index).await;
    }
    cluster.together().await;
    load.goes_on("the clients go on", 100).await;
    load.end_with_failures(tasks, &cluster, 1).await;
    let show = cluster.rejoin(&["layout", "show", "--json"]).done().json();
    assert_eq!(show["partitions"], 512, "{show}");
}

/// Waits until the copies of the bucket do not change any more, as the node at that address sees it.
async fn has_copies(cluster: &Cluster, index: usize, n: u8) {
    let address = cluster.address(index).to_string();
    rejoin_test_cluster::within(Duration::from_secs(60), "the copies have changed", async || {
        let ran = cluster.rejoin(&["bucket", "show", "plain", "--json", "--node", &address]);
        if ran.code != Some(0) {
            return Err(ran.talk);
        }
        let show = ran.json();
        match show["change"].is_null() && show["n"] == n {
            true => Ok(()),
            false => Err(show.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_goes_from_three_copies_to_five_and_to_two_and_turns_strict_while_clients_go_on() {
    let mut cluster = Cluster::start(5).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let (load, tasks) = Load::begin(&cluster).await;
    let set = |words: &[&str]| cluster.rejoin(&[&["bucket", "set", "plain"], words].concat());
    set(&["--n", "5"]).said(0, "`rejoin bucket show plain` says how far they have come");
    has_copies(&cluster, 0, 5).await;
    has_copies(&cluster, 4, 5).await;
    // Each node has every key, and answers for itself.
    let written = load.written();
    for index in 0..5 {
        let bucket = cluster.pinned(index).await.bucket::<Bytes>("plain").unwrap();
        for key in written.iter().copied().step_by(7) {
            let read = bucket.get(key.to_be_bytes()).r(1).await.unwrap();
            assert_eq!((read.value, read.answered.len()), (Some(value(key)), 1), "{key} at node {index}");
        }
    }
    set(&["--n", "4", "--r", "3"]).said(2, "by themselves: give the other properties in a command of their own");
    set(&["--r", "3"]).done();
    set(&["--n", "2"]).said(2, "bucket plain has r = 3, which 2 copies could never reach: set it first, with");
    set(&["--r", "quorum"]).done();
    let version = cluster.rejoin(&["bucket", "show", "plain", "--json"]).done().json()["version"].clone();
    assert_eq!(version, 4, "every change counts");
    set(&["--n", "2"]).done();
    has_copies(&cluster, 2, 2).await;
    set(&["--strict", "--version", "4"]).said(6, "bucket plain is at version 5, not 4");
    set(&["--strict"]).done();
    has_copies(&cluster, 3, 2).await;
    for index in 0..5 {
        settled(&cluster, index).await;
        drained(&cluster, index).await;
    }
    load.end(tasks, &cluster, 4).await;
    let history = cluster.rejoin(&["layout", "history"]).done().text().to_owned();
    assert!(history.contains("bucket plain: n = 5") && history.contains("bucket plain: n = 2, strict"), "{history}");

    // A node that is away is waited for, and the command that would go on without it is shown.
    cluster.kill(4);
    cluster.rejoin(&["bucket", "set", "plain", "--n", "3"]).done();
    let expected = ["bucket plain: n = 2 becomes 3", "step 1 of 4, acknowledge", "rejoin layout skip n5"];
    eventually("the step is shown, and what would unblock it", async || {
        let text = cluster.rejoin(&["bucket", "show", "plain"]).done().text().to_owned();
        if expected.iter().all(|words| text.contains(words)) { Ok(()) } else { Err(text) }
    })
    .await;
    let text = cluster.rejoin(&["layout", "show"]).done().text().to_owned();
    assert!(text.contains("bucket plain: n = 2 becomes 3"), "{text}");
    cluster.spawn(4);
    has_copies(&cluster, 0, 3).await;
}

/// Whatever is killed, the change ends, and nothing that was acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_change_although_every_node_is_killed_once() {
    let mut cluster = Cluster::start(5).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    for key in 0..200_u64 {
        bucket.put(key.to_be_bytes(), value(key)).create().await.unwrap();
    }
    for (n, victims) in [(5, [0, 1]), (1, [2, 3]), (3, [4, 0])] {
        let at = cluster.address(victims[0]).to_string();
        cluster.rejoin(&["bucket", "set", "plain", "--n", &n.to_string(), "--node", &at]).done();
        for victim in victims {
            cluster.kill(victim);
            cluster.spawn(victim);
        }
        cluster.together().await;
        has_copies(&cluster, victims[1], n).await;
        let bucket = cluster.pinned(victims[0]).await.bucket::<Bytes>("plain").unwrap();
        for key in 0..200_u64 {
            assert_eq!(bucket.get(key.to_be_bytes()).await.unwrap().value, Some(value(key)), "{key} at n = {n}");
        }
    }
}

/// The bytes that a plan names are those of the partitions that move, which the answering node need not own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_names_the_bytes_of_what_moves() {
    let mut cluster = Cluster::start(4).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    // A few large values, so that partitions differ.
    let value = |key: u64| noise(key).repeat(1 + key as usize % 7);
    for key in 0..40_u64 {
        bucket.put(key.to_be_bytes(), value(key)).create().w(3).await.unwrap();
    }
    let n5 = cluster.join("n5").await;
    cluster.rejoin(&["layout", "assign", "n5"]).done();
    let plan = apply(&cluster, &[]);
    settled(&cluster, n5).await;
    let (own, mut taken) = (cluster.pinned(n5).await.bucket::<Bytes>("plain").unwrap(), 0);
    for key in 0..40_u64 {
        let read = own.get(key.to_be_bytes()).r(1).await.unwrap();
        assert_eq!(read.value, Some(value(key)));
        if read.answered == ["n5"] {
            taken += value(key).len() as u64;
        }
    }
    let nodes = plan["nodes"].as_array().unwrap();
    let named = nodes.iter().find(|node| node["node"] == "n5").unwrap()["bytes_taken"].as_u64().unwrap();
    assert!(taken > 0 && named.abs_diff(taken) < taken / 50, "{named} bytes were named, {taken} were taken: {plan}");
}
