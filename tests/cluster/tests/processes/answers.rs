//! Requests that cannot be served: each is answered with a code for scripts and words for people, and nothing is done.

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_cluster::Cluster;

/// A cluster with two buckets and a value that must stay as it is.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster.bucket("small", BucketProps { value_bytes: 100, ..BucketProps::default() }).await;
    cluster.rejoin(&["put", "plain", "k", "as it was"]).done();
    cluster.rejoin(&["put", "plain", "other", "of another key"]).done();
    cluster
}

fn context(cluster: &Cluster, key: &str) -> String {
    let got = cluster.rejoin(&["get", "plain", key, "--json"]);
    got.done().json()["context"].as_str().expect("a context").to_owned()
}

fn assert_untouched(cluster: &Cluster) {
    let got = cluster.rejoin(&["get", "plain", "k", "--r", "3", "--siblings", "--json"]);
    assert_eq!(got.done().json()["value"], "as it was");
    assert_eq!(got.json()["siblings"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_nobody_made_is_named_with_the_command_that_makes_it() {
    let cluster = cluster().await;
    let words = "there is no bucket nowhere: make it with `rejoin bucket create nowhere`";
    cluster.rejoin(&["get", "nowhere", "k"]).said(1, words);
    cluster.rejoin(&["put", "nowhere", "k", "v"]).said(1, words);
    cluster.rejoin(&["delete", "nowhere", "k", "--blind"]).said(1, words);
    cluster.rejoin(&["bucket", "show", "nowhere"]).said(1, "nowhere");
    cluster.rejoin(&["bucket", "create", "plain"]).said(1, "there is a bucket plain already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_is_not_of_this_key_is_refused_whoever_made_it() {
    let cluster = cluster().await;
    let foreign = "the context does not belong to this key of this cluster";
    let other = context(&cluster, "other");
    cluster.rejoin(&["put", "plain", "k", "x", "--context", &other]).said(2, foreign);
    cluster.rejoin(&["delete", "plain", "k", "--context", &other]).said(2, foreign);

    // Forged: one of every few characters of a good one is changed.
    let good = context(&cluster, "k");
    for at in (0..good.len()).step_by(5) {
        let mut forged = good.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        let ran = cluster.rejoin(&["put", "plain", "k", "x", "--context", &forged]);
        assert!(ran.code == Some(2) && ran.talk.contains("the context "), "{at}: {ran:?}");
    }
    for malformed in ["no context!", "AAAA", &good[..good.len() - 4], "\u{e9}"] {
        let ran = cluster.rejoin(&["put", "plain", "k", "x", "--context", malformed]);
        assert!(ran.code == Some(2) && ran.talk.contains("context"), "{malformed}: {ran:?}");
    }
    cluster
        .rejoin(&["put", "plain", "k", "x", "--context", "no context!"])
        .said(2, "the context is malformed: pass it on exactly as it was received");
    assert_untouched(&cluster);

    // Another cluster's context for the same bucket and key.
    let elsewhere = Cluster::start(1).await;
    elsewhere.bucket("plain", BucketProps { n: 1, ..BucketProps::default() }).await;
    elsewhere.rejoin(&["put", "plain", "k", "x"]).done();
    cluster.rejoin(&["put", "plain", "k", "x", "--context", &context(&elsewhere, "k")]).said(2, "context");
    assert_untouched(&cluster);
    // And the good one is still good.
    cluster.rejoin(&["put", "plain", "k", "as it was", "--context", &good]).done();
    assert_untouched(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_its_size_and_the_limit() {
    let cluster = cluster().await;
    cluster.rejoin(&["put", "small", "k", &"v".repeat(100)]).done();
    cluster
        .rejoin(&["put", "small", "l", &"v".repeat(101)])
        .said(2, "the value has 101 bytes, bucket small takes 100 at most");
    std::fs::write(cluster.files.dir.join("large"), vec![7; (1 << 20) + 1]).unwrap();
    cluster
        .rejoin(&["put", "plain", "l", "@large"])
        .said(2, "the value has 1048577 bytes, bucket plain takes 1048576 at most");
    cluster.rejoin(&["put", "plain", &"k".repeat(1025), "v"]).said(2, "the key has 1025 bytes");
    cluster.rejoin(&["put", "plain", "", "v"]).said(2, "the key is empty");
    cluster
        .rejoin(&["bucket", "create", "huge", "--value-bytes", "16777217"])
        .said(2, "value_bytes must be 1 to 16777216");

    // Whatever a client says, the node looks itself: this value is larger than any message may be.
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    let error = bucket.put("l", vec![7; 40 << 20]).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    for key in ["l", &"k".repeat(1024)] {
        assert!(!bucket.get(key).r(3).await.unwrap().is_found());
    }
    assert_untouched(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_in_three_writes_nothing_and_says_who_was_missing() {
    let mut cluster = cluster().await;
    cluster.kill(1);
    cluster.kill(2);
    // Until the silence is noticed a write may be sent and not be answered: unknown. After that it is refused before
    // anything is written.
    let node = cluster.address(0).to_string();
    let refused = rejoin_test_cluster::eventually("the others are noticed to be gone", async || {
        let ran = cluster.rejoin(&["put", "plain", "x", "v", "--blind", "--node", &node, "--timeout", "700ms"]);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        if ran.talk.contains("unknown") { Err(ran) } else { Ok(ran) }
    })
    .await;
    refused.said(4, "too few replicas of the key can be reached; nothing was written (1 of 2 needed); ");
    refused
        .said(4, "n2: not connected")
        .said(4, "n3: not connected")
        .said(4, "next: `rejoin status` shows which nodes are up");
    cluster.rejoin(&["get", "plain", "k", "--node", &node]).said(4, "(1 of 2 needed)");
    let status = cluster.rejoin(&["status", "--node", &node]);
    status.said(1, "the cluster is not whole: not reached by n1: n2, n3");
    assert!(status.text().contains("some keys can be neither read nor written now"), "{status:?}");
    let got = cluster.rejoin(&["get", "plain", "k", "--r", "1", "--node", &node]);
    assert_eq!(got.done().text(), "as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_wants_every_owner_is_refused_or_unknown_while_one_is_down() {
    let mut cluster = cluster().await;
    cluster.kill(2);
    let node = cluster.address(0).to_string();
    let put = |key: &str| {
        cluster.rejoin(&["put", "plain", key, "v", "--blind", "--w", "3", "--node", &node, "--timeout", "1s", "--json"])
    };
    // The connection to the dead node has not timed out yet: the write is on two owners, and the third may have it.
    let first = put("x");
    first.said(4, "it may or may not have been written");
    let outcome = first.json();
    assert_eq!(
        (&outcome["outcome"], &outcome["acked"], &outcome["needed"]),
        (&"unknown".into(), &2.into(), &3.into()),
        "{first:?}"
    );
    let later = rejoin_test_cluster::eventually("the third is noticed to be gone", async || {
        let ran = put("y");
        assert_eq!(ran.code, Some(4), "{ran:?}");
        if ran.talk.contains("n3: not connected") { Ok(ran) } else { Err(ran) }
    });
    later.await.said(4, "(2 of 3 needed)");
    cluster.rejoin(&["put", "plain", "z", "v", "--node", &node]).done();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_too_much_to_do_says_so_at_once_and_when_to_come_again() {
    let cluster = Cluster::start_with(3, "inbox = 1\nin_flight = 1\nshards = 1").await;
    cluster.bucket("plain", BucketProps::default()).await;
    let client = cluster.builder(0).attempts(1).connect().await.unwrap();
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    // With its disk held back, the first write keeps the node's only place.
    rejoin_test_cluster::http::post(cluster.admin(0), "/faults/hold/fsync");
    rejoin_test_cluster::http::post(cluster.admin(1), "/faults/hold/fsync");
    let first = tokio::spawn(std::future::IntoFuture::into_future(bucket.put("first", b"v".to_vec()).blind()));
    rejoin_test_cluster::eventually("the first write is under way", async || {
        match rejoin_test_cluster::http::held(cluster.admin(0)) {
            0 => Err("nothing is held"),
            held => Ok(held),
        }
    })
    .await;
    let began = std::time::Instant::now();
    let error = bucket.put("second", b"v".to_vec()).blind().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(error.is_retryable() && error.retry_after().is_some(), "{error:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "it took {:?} to say no", began.elapsed());
    assert!(!first.is_finished(), "{:?}", first.await);
    rejoin_test_cluster::http::post(cluster.admin(0), "/faults/release");
    rejoin_test_cluster::http::post(cluster.admin(1), "/faults/release");
    first.await.unwrap().unwrap();
    // There is room again, and the SDK comes again by itself where the first try finds none.
    let patient = cluster.builder(0).connect().await.unwrap().bucket::<Bytes>("plain").unwrap();
    patient.put("second", b"v".to_vec()).create().await.unwrap();
}
