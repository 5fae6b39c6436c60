//! Buckets with ready-made merges, their operations and questions, as a service team uses them.

use std::time::Duration;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_cluster::{Cluster, cli, eventually, guests, http};

/// The bucket of each merge in the example's stories.
const BUCKETS: [(&str, &str); 8] = [
    ("visits", "counter"),
    ("tags", "set"),
    ("files", "metadata"),
    ("scores", "leaderboard"),
    ("pages", "last-writer"),
    ("versions", "max"),
    ("carts", "cart"),
    ("sessions", "session"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_names_a_ready_made_merge_and_the_examples_tell_their_stories() {
    let cluster = Cluster::start(3).await;
    for (bucket, merge) in BUCKETS {
        cluster
            .rejoin(&["bucket", "create", bucket, "--merge", merge])
            .said(0, &format!("the merge {merge} is plugin"));
    }
    // The embedded component is pushed like any other: it is listed, and the same one is not there twice.
    cluster.rejoin(&["bucket", "create", "more-tags", "--merge", "set"]).done();
    let plugins = cluster.rejoin(&["plugin", "list", "--json"]).done().json();
    assert_eq!(plugins.as_array().unwrap().len(), BUCKETS.len(), "{plugins}");
    cluster.rejoin(&["bucket", "create", "b", "--merge", "bag"]).said(2, "leaderboard");
    // A bucket can be given one later.
    cluster.rejoin(&["bucket", "create", "plain"]).done();
    cluster.rejoin(&["bucket", "set", "plain", "--merge", "max"]).done();
    let shown = cluster.rejoin(&["bucket", "show", "plain", "--json"]).done().json();
    assert!(plugins.as_array().unwrap().iter().any(|plugin| plugin["digest"] == shown["plugin"]), "{shown}");
    let profile = cluster.files.profile();
    for _ in 0..2 {
        let told = cli::merges(&cluster.files.dir, &profile, &["all"]);
        assert_eq!(told.done().text().lines().count(), 6, "{}", told.text());
    }
    cli::merges(&cluster.files.dir, &profile, &["bag"]).said(1, "there is no story");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_and_questions_of_the_command_line_reach_the_plugin() {
    let cluster = Cluster::start(3).await;
    cluster.rejoin(&["bucket", "create", "tags", "--merge", "set"]).done();
    cluster.rejoin(&["query", "tags", "a"]).said(1, "rejoin apply tags a OPERATION");
    cluster.rejoin(&["apply", "tags", "a", r#"{"add":["x","y"]}"#, "--w", "3"]).said(0, "stored, 3 of 3");
    let written = cluster.rejoin(&["apply", "tags", "a", r#"{"remove":["x"]}"#, "--w", "3", "--json"]).done().json();
    assert!(written["outcome"] == "stored" && written["acked"] == 3, "{written}");
    assert_eq!(cluster.rejoin(&["query", "tags", "a", r#"{"has":"y"}"#]).done().text(), "true");
    assert_eq!(cluster.rejoin(&["get", "tags", "a", "--show"]).done().text(), r#"["y"]"#);
    let answer = cluster.rejoin(&["query", "tags", "a", "\"count\"", "--json"]).done().json();
    assert!(answer["found"] == true && answer["answer"] == "1", "{answer}");
    // What the plugin refuses is not written, whichever way it comes.
    let refused = "the plugin refused: a value is malformed";
    cluster.rejoin(&["apply", "tags", "a", "x"]).said(2, refused).said(2, "nothing was written");
    cluster.rejoin(&["put", "tags", "b", "x"]).said(2, refused);
    cluster.rejoin(&["query", "tags", "a", "\"sum\""]).said(2, refused);
    cluster.rejoin(&["get", "tags", "b"]).said(1, "no value");
    assert_eq!(cluster.rejoin(&["query", "tags", "a"]).done().text(), r#"["y"]"#);
    // Without a plugin, or with one that has no operations.
    cluster.rejoin(&["bucket", "create", "plain"]).done();
    cluster.rejoin(&["apply", "plain", "a", "1"]).said(2, "--merge NAME");
    cluster.rejoin(&["bucket", "create", "pages", "--merge", "last-writer"]).done();
    cluster.rejoin(&["put", "pages", "a", "text"]).done();
    cluster.rejoin(&["apply", "pages", "a", "1"]).said(2, "the plugin has no operator");
    cluster.rejoin(&["query", "pages", "a", "1"]).said(2, "the plugin has no operator");
    assert_eq!(cluster.rejoin(&["get", "pages", "a", "--show"]).done().text(), "\"text\"");
    cluster.rejoin(&["put", "plain", "a", "text"]).done();
    cluster.rejoin(&["get", "plain", "a", "--show"]).said(1, "no plugin that shows");
}

/// Each of three nodes applies increments of one key at the same time, several at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_or_counted_twice_while_all_nodes_take_them() {
    const EACH: usize = 20;
    let mut cluster = Cluster::start(3).await;
    cluster.rejoin(&["bucket", "create", "visits", "--merge", "counter"]).done();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..3 {
        let visits = cluster.pinned(index).await.bucket::<Bytes>("visits").unwrap();
        for _ in 0..EACH {
            let visits = visits.clone();
            tasks.spawn(async move { visits.apply("home", "1").await });
        }
    }
    let mut stored = 0;
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(_) => stored += 1,
            // Nothing was written: too many were waiting.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
        }
    }
    assert!(stored > EACH, "{stored}");
    let total = |cluster: &Cluster| cluster.rejoin(&["query", "visits", "home", "--r", "3"]).done().text().to_owned();
    assert_eq!(total(&cluster), stored.to_string());
    // Also after a node has been killed and has come back.
    cluster.kill(0);
    cluster.spawn(0);
    cluster.together().await;
    let visits = cluster.pinned(0).await.bucket::<Bytes>("visits").unwrap();
    visits.apply("home", "-3").w(3).await.unwrap();
    assert_eq!(total(&cluster), (stored - 3).to_string());
}

/// Two editors of Yjs, each on one side of a cut; `tests/laws/src/ready.rs` says what their updates are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_edited_on_both_sides_of_a_cut_has_both_edits() {
    const NOTE: &[u8] = b"\x01\x01\x03\x00\x04\x01\x04note\x08feed cat\x00";
    const THE: &[u8] = b"\x01\x01\x01\x00\xc4\x03\x04\x03\x05\x04the \x00";
    const CALL: &[u8] = b"\x01\x01\x02\x00\xc4\x03\x03\x03\x04\x04call\x01\x03\x01\x00\x04";
    let cluster = Cluster::start(3).await;
    let plugin = cluster.bucket_merging_with("notes", guests::built("document"), BucketProps::default()).await;
    // A node that is cut off could not fetch it.
    let admin = cluster.client().await.admin();
    admin.wait_until_ready(plugin.digest, Duration::from_secs(60), |_| {}).await.unwrap();
    // The example tells it without a cut: both are offline for a while.
    let told = cli::merges(&cluster.files.dir, &cluster.files.profile(), &["document"]);
    assert!(told.done().text().contains("\"call the cat\""), "{}", told.text());

    let east = cluster.pinned(0).await.bucket::<Bytes>("notes").unwrap();
    let west = cluster.pinned(2).await.bucket::<Bytes>("notes").unwrap();
    east.apply("cat", NOTE).w(3).await.unwrap();
    for (at, peer) in [(0, "n3"), (1, "n3"), (2, "n1"), (2, "n2")] {
        http::post(cluster.admin(at), &format!("/faults/cut/{peer}"));
    }
    east.apply("cat", THE).w(1).await.unwrap();
    west.apply("cat", CALL).w(1).await.unwrap();
    for at in 0..3 {
        http::post(cluster.admin(at), "/faults/heal");
    }
    let look = async || {
        let shown = cluster.rejoin(&["get", "notes", "cat", "--show", "--r", "3"]);
        if shown.code == Some(0) && shown.text() == r#"{"note":"call the cat"}"# { Ok(()) } else { Err(shown) }
    };
    eventually("a reader is shown both edits", look).await;
}
