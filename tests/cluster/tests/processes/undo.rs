//! Folds by a bad merge: explained, exported and replayed without the cluster, and undone.

use std::time::Duration;

use serde_json::Value;

use rejoin_test_cluster::cli;
use rejoin_test_cluster::{Cluster, within};

const BAD: &str = "rejoin-plugin-highest";

/// The values of a key, sorted.
fn values(cluster: &Cluster, key: &str) -> Vec<String> {
    let json = cluster.rejoin(&["get", "clicks", key, "--r", "3", "--siblings", "--json"]).json();
    let siblings = json["siblings"].as_array().cloned().unwrap_or_default();
    let mut values: Vec<String> = siblings.iter().map(|one| one["value"].as_str().unwrap().to_owned()).collect();
    values.sort();
    values
}

fn explained(cluster: &Cluster, key: &str) -> Value {
    cluster.rejoin(&["explain", "clicks", key, "--json"]).done().json()
}

/// Waits until every node has the folded value.
async fn folded(cluster: &Cluster, key: &str) {
    within(Duration::from_secs(20), "a fold at every node", async || {
        let json = explained(cluster, key);
        let has_fold = |node: &Value| {
            node["entries"].as_array().is_some_and(|entries| entries.len() == 1 && entries[0]["folded_by"].is_string())
        };
        if json["nodes"].as_array().unwrap().iter().all(has_fold) { Ok(()) } else { Err(json) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bad_merge_has_folded_is_explained_replayed_and_undone_and_nothing_is_lost() {
    let cluster = Cluster::start(3).await;
    // The component comes with another bucket. The first plugin of a bucket folds at once.
    cluster.rejoin(&["bucket", "create", "other", "--merge", "max"]).done();
    cluster.rejoin(&["bucket", "create", "clicks"]).done();
    cluster.rejoin(&["plugin", "activate", "clicks", BAD]).done();
    cluster.rejoin(&["status", "--wait-healthy"]).done();
    let keys = ["plain", "over", "beside"];
    for key in keys {
        cluster.rejoin(&["put", "clicks", key, "3"]).done();
        cluster.rejoin(&["put", "clicks", key, "4", "--blind"]).done();
        assert_eq!(cluster.rejoin(&["get", "clicks", key, "--r", "3"]).done().text(), "4");
        folded(&cluster, key).await;
    }

    let json = explained(&cluster, "plain");
    assert_eq!(json["owners"].as_array().unwrap().len(), 3, "{json}");
    let receipts = json["receipts"].as_array().unwrap();
    assert!(!receipts.is_empty() && receipts.iter().all(|receipt| receipt["inputs"] == 2), "{json}");
    assert!(receipts.iter().any(|receipt| receipt["live"] == true && receipt["fuel"].as_u64() > Some(0)), "{json}");
    let shown = |key| cluster.rejoin(&["explain", "clicks", key]).done().text().to_owned();
    assert!(shown("plain").contains("folded by") && shown("nothing").contains("nothing"), "{}", shown("nothing"));
    cluster.rejoin(&["explain", "nobody", "k"]).said(1, "there is no bucket nobody");

    // The bundle has all that a laptop needs.
    let dir = &cluster.files.dir;
    cluster.rejoin(&["conflict", "export", "clicks", "plain", "-o", "plain.merges"]).done();
    let alone = |arguments: &[&str]| cli::rejoin(dir, None, arguments, b"");
    let replayed = alone(&["plugin", "replay", "plain.merges", "--json"]).done().json();
    let merges = replayed.as_array().unwrap();
    assert!(!merges.is_empty() && merges.iter().all(|merge| merge["equal"] == true), "{replayed}");
    assert!(merges.iter().all(|merge| merge["siblings"] == 2 && merge["fuel"].as_u64() > Some(0)), "{replayed}");
    assert!(merges.iter().any(|merge| merge["fuel"] == merge["expected_fuel"]), "the fuel of the fold: {replayed}");
    alone(&["plugin", "replay", "plain.merges"]).said(0, "end as they did");
    let mut bytes = std::fs::read(dir.join("plain.merges")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(dir.join("damaged.merges"), bytes).unwrap();
    alone(&["plugin", "replay", "damaged.merges"]).said(2, "the bundle is damaged");
    alone(&["plugin", "replay", "profile.toml"]).said(2, "no bundle of merges");
    cluster.rejoin(&["conflict", "export", "clicks", "nothing"]).said(1, "no merges to export");

    let undo = ["plugin", "undo", "clicks", "--plugin", BAD];
    cluster.rejoin(&undo).said(2, "rejoin plugin rollback clicks");
    cluster.rejoin(&["plugin", "rollback", "clicks"]).done();
    cluster.rejoin(&["status", "--wait-healthy"]).done();
    // One key is written over by a client that has seen the fold, and beside another one stands a new write.
    let context = cluster.rejoin(&["get", "clicks", "over", "--json"]).done().json()["context"].clone();
    cluster.rejoin(&["put", "clicks", "over", "9", "--context", context.as_str().unwrap(), "--w", "3"]).done();
    cluster.rejoin(&["put", "clicks", "beside", "5", "--blind", "--w", "3"]).done();

    cluster.rejoin(&[&undo[..], &["--dry-run"]].concat()).said(0, "2 folds would be undone, 1 skipped");
    // "plain" in base64.
    let one = cluster.rejoin(&[&undo[..], &["--dry-run", "--json", "--key-base64", "cGxhaW4="]].concat()).done().json();
    assert_eq!(
        (&one[0]["key"], &one[0]["key_base64"], one.as_array().map(Vec::len)),
        (&"plain".into(), &"cGxhaW4=".into(), Some(1))
    );
    assert_eq!(values(&cluster, "plain"), ["4"], "nothing was written");
    let undone = cluster.rejoin(&undo).said(0, "2 folds undone, 1 skipped, 0 failed").text().to_owned();
    assert!(undone.contains("written or folded again since"), "{undone}");
    assert_eq!(values(&cluster, "plain"), ["3", "4"]);
    assert_eq!(values(&cluster, "beside"), ["3", "4", "5"]);
    assert_eq!(values(&cluster, "over"), ["9"], "what was replaced does not come back");
    cluster.rejoin(&undo).said(0, "0 folds undone, 3 skipped");
    let audit = cluster.rejoin(&["audit", "list", "--json"]).done().json();
    let asked = |record: &Value| record["verb"] == "plugin undo" && record["object"] == "clicks";
    assert!(audit.as_array().unwrap().iter().any(asked), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_failed_is_replayed_and_receipts_outlive_a_kill() {
    let mut cluster = Cluster::start(3).await;
    cluster.rejoin(&["bucket", "create", "clicks", "--merge", "max", "--fold-undo", "1d"]).done();
    cluster.rejoin(&["put", "clicks", "k", "3"]).done();
    cluster.rejoin(&["put", "clicks", "k", "4", "--blind"]).done();
    cluster.rejoin(&["get", "clicks", "k", "--r", "3"]).done();
    folded(&cluster, "k").await;
    let receipts = |cluster: &Cluster| explained(cluster, "k")["receipts"].as_array().unwrap().len();
    let before = receipts(&cluster);
    assert!(before > 0);
    (0..3).for_each(|index| cluster.kill(index));
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.rejoin(&["status", "--wait-healthy"]).done();
    assert_eq!(receipts(&cluster), before);
    // Of a bucket without failures the nodes say so only together.
    cluster.rejoin(&["conflict", "list", "clicks"]).said(0, "no merge of bucket clicks has failed");
    cluster.kill(2);
    cluster.rejoin(&["conflict", "list", "clicks"]).said(4, "n3 cannot be asked");
    cluster.rejoin(&["conflict", "violations", "clicks", "--json"]).said(4, "not every node could be asked");
    cluster.spawn(2);
    cluster.rejoin(&["status", "--wait-healthy"]).done();

    cluster.rejoin(&["put", "clicks", "starved", "3"]).done();
    cluster.rejoin(&["put", "clicks", "starved", "4", "--blind"]).done();
    // Only now, since the values are validated with it as well.
    cluster.rejoin(&["bucket", "set", "clicks", "--fuel", "1000"]).done();
    cluster.rejoin(&["get", "clicks", "starved", "--r", "3"]).said(1, "fuel");
    let shown = cluster.rejoin(&["explain", "clicks", "starved"]).done().text().to_owned();
    assert!(shown.contains("units of fuel"), "{shown}");
    cluster.rejoin(&["conflict", "export", "clicks", "starved"]).said(0, "failed merges");
    cluster.rejoin(&["conflict", "export", "clicks", "starved"]).said(2, "is not overwritten");
    let replayed = cli::rejoin(&cluster.files.dir, None, &["plugin", "replay", "clicks.starved.merges", "--json"], b"");
    let replayed = replayed.done().json();
    let failures: Vec<&Value> =
        replayed.as_array().unwrap().iter().filter(|merge| merge["source"] == "failure").collect();
    assert!(!failures.is_empty() && failures.iter().all(|merge| merge["equal"] == true), "{replayed}");
    assert!(failures[0]["expected"]["failure"].as_str().unwrap().contains("1000 units of fuel"), "{replayed}");
}
