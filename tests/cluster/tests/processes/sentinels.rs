//! A plugin that breaks a law only on rare siblings is found by the merges of the cluster itself.

use std::time::Duration;

use rejoin_client::Bytes;
use rejoin_test_cluster::{Cluster, eventually, http};
use rejoin_test_hostile::lawless;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_breaks_a_law_on_rare_siblings_is_alarmed_and_quarantined() {
    let cluster = Cluster::start_with(1, "check_laws = true\nsentinel_every = 1").await;
    let dir = cluster.files.dir.clone();
    // It takes the largest of five digits: more siblings than that are rare.
    std::fs::write(dir.join("largest.wasm"), lawless::first_five()).unwrap();
    let pushed = cluster.rejoin(&["plugin", "push", "largest.wasm", "--unchecked"]);
    let digest = pushed.done().text().trim().to_owned();
    cluster.rejoin(&["bucket", "create", "scores", "--plugin", &digest, "--n", "1"]).done();
    let bucket = cluster.client().await.bucket::<Bytes>("scores").unwrap();
    let write = async |key: &str, digits: u8| {
        for digit in 0..digits {
            bucket.put(key, vec![b'0' + digit]).blind().await.unwrap();
        }
    };
    let sampled =
        |outcome: &str| http::metric(cluster.admin(0), &format!("rejoin_law_samples_total{{outcome=\"{outcome}\"}}"));
    // Ordinary conflicts hold.
    for key in ["a", "b", "c"] {
        write(key, 2).await;
        assert!(bucket.get(key).await.unwrap().value.is_some());
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    eventually("three merges were checked", async || {
        let held = sampled("held");
        if held >= 3.0 { Ok(()) } else { Err(held) }
    })
    .await;
    let none = cluster.rejoin(&["conflict", "violations", "scores"]);
    none.said(0, "no merge of bucket scores that was checked again has broken a law");

    // Then there are seven siblings, in bucket after bucket of keys.
    let mut quarantined = false;
    for number in 0..20 {
        let key = format!("rare{number}");
        write(&key, 7).await;
        quarantined = bucket.get(key.as_str()).await.unwrap().value.is_none();
        if quarantined {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert!(quarantined, "{} held", sampled("held"));
    // The data stays, as siblings.
    write("last", 7).await;
    let read = bucket.get("last").await.unwrap();
    let why = read.merge_fault.as_deref().unwrap_or_default();
    assert!(read.siblings.len() == 7 && why.contains("quarantined"), "{read:?}");
    let status = cluster.rejoin(&["status", "--json"]).json()["warnings"].to_string();
    assert!(status.contains("is quarantined: merges of 3 keys broke a law"), "{status}");
    assert!(status.contains("the merge of bucket scores of tenant default breaks the law of"), "{status}");
    let (_, health) = http::get(cluster.admin(0), "/health").unwrap();
    assert!(health.contains("breaks the law of"), "{health}");
    assert!(cluster.log(0).contains("a merge breaks a law"));
    assert!(http::metric(cluster.admin(0), "rejoin_law_violations_total") >= 3.0);

    // The author gets the siblings, and runs them at home.
    let violations = ["conflict", "violations", "scores", "--output", "found.json", "--json"];
    let found = cluster.rejoin(&violations).done().json();
    let found = found.as_array().unwrap();
    assert!(found.iter().all(|one| one["plugin"] == digest.as_str() && one["confirmed"] == true), "{found:?}");
    cluster.rejoin(&["plugin", "run", "largest.wasm", "--replay", "found.json"]).done();
    cluster.rejoin(&["plugin", "test", "largest.wasm", "--replay", "found.json"]).said(1, "still breaks the law of");

    // A release is taken at its word: what was known is no new evidence.
    cluster.rejoin(&["plugin", "release", &digest]).done();
    eventually("merges are run again", async || {
        let read = bucket.get("last").await.unwrap();
        if read.value.is_some() { Ok(()) } else { Err(read) }
    })
    .await;
}
