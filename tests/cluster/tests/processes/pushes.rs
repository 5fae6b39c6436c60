//! Nodes check the laws of what is pushed: a counterexample blocks it, and nothing else is held up.

use serde_json::Value;

use rejoin_client::admin::Scope;
use rejoin_test_cluster::cli;
use rejoin_test_cluster::{Cluster, guests as real};
use rejoin_test_hostile::lawless;

async fn checking(more: &str) -> Cluster {
    Cluster::start_with(1, &format!("check_laws = true\n{more}")).await
}

fn write(cluster: &Cluster, name: &str, component: &[u8]) {
    std::fs::write(cluster.files.dir.join(format!("{name}.wasm")), component).unwrap();
}

fn listed(cluster: &Cluster) -> Vec<Value> {
    let json = cluster.rejoin(&["plugin", "list", "--json"]).done().json();
    json.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counterexample_blocks_a_push_and_can_be_run_again() {
    let cluster = checking("").await;
    write(&cluster, "first", &lawless::first());
    let pushed = cluster.rejoin(&["plugin", "push", "first.wasm", "--timeout", "30s"]);
    pushed.said(7, "the plugin breaks the law of permutation, so it was not stored");
    pushed.said(7, "the law of permutation is broken");
    assert!(pushed.text().lines().any(|line| line.contains("permutation") && line.contains("BROKEN")), "{pushed:?}");
    assert!(listed(&cluster).is_empty(), "nothing was stored");
    let again = ["plugin", "test", "first.wasm", "--replay", "first.counterexample.json"];
    cluster.rejoin(&again).said(1, "the plugin still breaks the law of permutation");
    cluster.rejoin(&["plugin", "run", "first.wasm", "--replay", "first.counterexample.json"]).done();

    let report = cluster.rejoin(&["plugin", "push", "first.wasm", "--json"]);
    report.said(7, "breaks the law of permutation");
    assert_eq!((&report.json()["held"], &report.json()["seed"]), (&Value::Bool(false), &Value::from(1)));

    write(&cluster, "largest", &lawless::largest());
    cluster.rejoin(&["plugin", "push", "largest.wasm"]).said(0, "laws held");
    let [plugin]: [Value; 1] = listed(&cluster).try_into().unwrap();
    assert!(plugin["name"] == "largest" && plugin["unchecked"].is_null(), "{plugin}");
    // The tenant has paid for the merges of both checks.
    let usage = cluster.rejoin(&["tenant", "usage", "default", "--json"]).done().json();
    let fuel = usage[0]["fuel"].as_u64().or(usage["fuel"].as_u64()).unwrap();
    assert!(fuel > 100_000, "{usage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_pushes_unchecked_and_that_is_said_for_ever() {
    let cluster = checking("").await;
    write(&cluster, "first", &lawless::first());
    let token = cluster.client().await.admin().create_token("team", Scope::TenantAdmin).await.unwrap();
    let profile = cluster.files.dir.join("team.toml");
    let text = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("token")).map(|line| format!("{line}\n"));
    std::fs::write(&profile, kept.collect::<String>() + &format!("token = \"{}\"\n", token.text())).unwrap();
    let unchecked = ["plugin", "push", "first.wasm", "--unchecked"];
    cli::rejoin(&cluster.files.dir, Some(&profile), &unchecked, b"").said(5, "may not push plugins unchecked");
    assert!(listed(&cluster).is_empty());

    let digest = cluster.rejoin(&unchecked).said(0, "its laws were not checked").text().to_owned();
    let shown = || cluster.rejoin(&["plugin", "list"]).done().text().to_owned();
    assert!(shown().contains("unchecked by root"), "{}", shown());
    cluster.rejoin(&["plugin", "delete", &digest, "--yes"]).done();
    cluster.rejoin(&["plugin", "restore", &digest]).done();
    assert!(shown().contains("unchecked by root"), "{}", shown());
    let audited = cluster.rejoin(&["audit", "list", "--verb", "plugin"]).done().text().to_owned();
    assert!(audited.contains("unchecked"), "{audited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_takes_too_long_ends_and_what_the_release_has_is_not_checked() {
    let cluster = checking("law_seconds = 1").await;
    write(&cluster, "slow", &rejoin_test_hostile::guests::slow(20_000_000));
    cluster.rejoin(&["plugin", "push", "slow.wasm"]).said(7, "checking its laws takes more than 1 s of a processor");
    write(&cluster, "cart", real::cart());
    cluster.rejoin(&["plugin", "push", "cart.wasm"]).done();
    let [plugin]: [Value; 1] = listed(&cluster).try_into().unwrap();
    assert!(plugin["name"] == "cart" && plugin["unchecked"].is_null(), "{plugin}");
}
