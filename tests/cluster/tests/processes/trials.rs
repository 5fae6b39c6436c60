//! Plugins on trial: a version that differs on purpose is seen as a shadow, explained by `plugin diff`, tried on half
//! of the keys, and taken back.

use std::collections::BTreeSet;

use serde_json::Value;

use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::{Cluster, eventually, http};
use rejoin_test_hostile::guests;

const KEYS: usize = 24;

/// The plugin that answers with the last sibling.
fn last() -> Vec<u8> {
    let at = "(local.get $siblings) (i32.mul (i32.const 24) (i32.sub (local.get $count) (i32.const 1)))";
    guests::with_memory("128", &format!("(call $answer (i32.load (i32.add {at})) (i32.load offset=4 (i32.add {at})))"))
}

fn key(at: usize) -> String {
    format!("k{at}")
}

/// Who merges each key, as every node says.
fn merged_by(cluster: &Cluster) -> Vec<String> {
    let of = |key: String| {
        let by = |index: usize| {
            let node = cluster.address(index).to_string();
            let json = cluster.rejoin(&["get", "notes", &key, "--node", &node, "--json"]).done().json();
            json["merged_by"]["digest"].as_str().unwrap_or_default().to_owned()
        };
        let said: BTreeSet<String> = (0..3).map(by).collect();
        assert_eq!(said.len(), 1, "all nodes agree about {key}: {said:?}");
        said.into_iter().next().unwrap()
    };
    (0..KEYS).map(|at| of(key(at))).collect()
}

fn count(report: &Value, what: &str) -> u64 {
    report["nodes"].as_array().unwrap().iter().map(|node| node[what].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_differs_is_shadowed_explained_tried_on_half_of_the_keys_and_taken_back() {
    let cluster = Cluster::start(3).await;
    let active = cluster.bucket_merging_with("notes", guests::first(), BucketProps::default()).await;
    let active = active.digest.to_string();
    std::fs::write(cluster.files.dir.join("last.wasm"), last()).unwrap();
    let other = cluster.rejoin(&["plugin", "push", "last.wasm"]).done().text().to_owned();
    let run = |arguments: &[&str]| cluster.rejoin(arguments);
    let shown = || run(&["bucket", "show", "notes", "--json"]).done().json();

    run(&["plugin", "shadow", "notes"]).said(0, "has no shadow");
    run(&["plugin", "shadow", "notes", &active]).said(2, "merges the bucket already");
    run(&["plugin", "shadow", "notes", "last"]).said(0, "are compared with last");
    assert_eq!(
        (&shown()["shadow"]["plugin"], &shown()["shadow"]["percent"]),
        (&Value::from(other.as_str()), &100.into())
    );
    run(&["plugin", "delete", &other, "--yes"]).said(2, "is the shadow of bucket notes");
    for at in 0..KEYS {
        run(&["put", "notes", &key(at), "one"]).done();
        run(&["put", "notes", &key(at), "two", "--blind"]).done();
    }
    assert_eq!(merged_by(&cluster), vec![active.clone(); KEYS], "a shadow answers nobody");
    let report = eventually("the shadow is compared on the merges", async || {
        let report = run(&["plugin", "shadow", "notes", "--json"]).done().json();
        if count(&report, "different") >= KEYS as u64 / 2 { Ok(report) } else { Err(report) }
    })
    .await;
    let sample = &report["samples"][0];
    let made: BTreeSet<&str> =
        [&sample["made"], &sample["shadow"]].iter().filter_map(|made| made["value"]["shown"].as_str()).collect();
    assert_eq!(made, BTreeSet::from(["one", "two"]), "{sample}");
    assert_eq!(count(&report, "equal"), 0, "{report}");
    let counts = run(&["plugin", "shadow", "notes", "--counts", "--json"]).done().json();
    assert!(count(&counts, "different") > 0 && counts["samples"] == serde_json::json!([]), "{counts}");
    let figures: String = (0..3).map(|node| http::get(cluster.admin(node), "/metrics").unwrap().1).collect();
    for metric in ["rejoin_plugin_merges_total", "rejoin_plugin_shadow_total", "rejoin_plugin_fuel{"] {
        assert!(figures.contains(metric), "{metric}");
    }

    run(&["plugin", "diff", "notes", "notes", "notes"]).said(0, "both make the same of all");
    run(&["plugin", "diff", "notes", "notes", "last"]).said(1, "they make not the same of");
    let diff = run(&["plugin", "diff", "notes", &active, &other, "--limit", "5", "--json"]).json();
    let case = &diff["different"][0];
    assert!(diff["compared"] == 5 && diff["different"].as_array().unwrap().len() == 5, "{diff}");
    assert!(case["a"]["fuel"].as_u64().unwrap() > 0 && case["siblings"].as_array().unwrap().len() == 2, "{case}");
    assert_ne!(case["a"]["value"], case["b"]["value"]);
    run(&["plugin", "fetch", "last", "-o", "fetched.wasm"]).done();
    assert!(std::fs::read(cluster.files.dir.join("fetched.wasm")).unwrap() == last());

    run(&["plugin", "shadow", "notes", "none"]).done();
    assert!(shown()["shadow"].is_null());
    run(&["plugin", "activate", "notes", "--partitions", "50"]).said(1, "has no canary");
    run(&["plugin", "activate", "notes", "last", "--partitions", "50"]).said(0, "merges 50 % of the keys");
    let tried = merged_by(&cluster);
    let by_canary = tried.iter().filter(|by| **by == other).count();
    assert!((1..KEYS).contains(&by_canary) && tried.iter().all(|by| *by == other || *by == active), "{tried:?}");
    run(&["plugin", "delete", &other, "--yes"]).said(2, "is the canary of bucket notes");
    run(&["plugin", "activate", "notes", "--partitions", "90"]).done();
    let more = merged_by(&cluster);
    let kept = tried.iter().zip(&more).filter(|(before, _)| **before == other).all(|(_, now)| *now == other);
    assert!(kept && shown()["canary"]["percent"] == 90, "a greater share has all of a smaller one");
    run(&["plugin", "rollback", "notes"]).done();
    assert!(shown()["canary"].is_null() && shown()["plugin"] == active.as_str());
    assert_eq!(merged_by(&cluster), vec![active.clone(); KEYS]);

    run(&["plugin", "activate", "notes", "last", "--partitions", "10"]).done();
    run(&["plugin", "activate", "notes", "last"]).said(0, "merges notes now");
    assert!(shown()["canary"].is_null());
    assert_eq!(merged_by(&cluster), vec![other; KEYS]);
}
