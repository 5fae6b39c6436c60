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
    cluster.rejoin(&["plugin", "push", "slow.wasm"]).said(7, "checking its laws takes more than ");
    write(&cluster, "cart", real::cart());
    cluster.rejoin(&["plugin", "push", "cart.wasm"]).done();
    let [plugin]: [Value; 1] = listed(&cluster).try_into().unwrap();
    assert!(plugin["name"] == "cart" && plugin["unchecked"].is_null(), "{plugin}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_is_shipped_is_checked_by_the_node() {
    let cluster = checking("").await;
    write(&cluster, "highest", &real::built("highest"));
    let intent = |name: &str, text: &[u8]| std::fs::write(cluster.files.dir.join(name), text).unwrap();
    // As a register it is wrong: what was folded keeps a number that a later write has replaced.
    intent(
        "map.json",
        br#"{"format":1,"specification":"map","operations":[{"set":"","to":"9"},{"set":"","to":"10"}]}"#,
    );
    let push = |intent: &str| cluster.rejoin(&["plugin", "push", "highest.wasm", "--intent", intent]);
    let wrong = push("map.json");
    wrong.said(7, "a history of operations ends otherwise than it should").said(7, "so it was not stored");
    wrong.said(7, "the content is \"10\", and should be \"9\"").said(7, "let values carry what their writers had seen");
    assert!(listed(&cluster).is_empty(), "nothing was stored");
    // At home it is the same.
    let at_home = cluster.rejoin(&["plugin", "test", "highest.wasm", "--intent", "map.json"]);
    at_home.said(1, "the content is \"10\", and should be \"9\"");

    intent("right.json", &std::fs::read(real::workspace().join("plugins/highest/intent.json")).unwrap());
    push("right.json").said(0, "histories of operations end as they should").said(0, "laws held");
    assert_eq!(listed(&cluster).len(), 1);
    intent("none.json", b"{}");
    push("none.json").said(2, "this is no intent");
    // It has a text for operations, and the plugin has none.
    let operator = br#"{"format":1,"specification":"set","operations":[{"add":"x"}],"operator":{"add":"{name}"}}"#;
    intent("operator.json", operator);
    push("operator.json").said(7, "list Operator in rejoin_guest::export!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_are_checked_on_siblings_of_a_bucket_and_of_no_other_tenant() {
    let cluster = checking("").await;
    // It reads digits up to 7, and its sampler draws no others.
    write(&cluster, "largest", &lawless::largest());
    let put = |key: &str, value: &str| {
        cluster.rejoin(&["put", "scores", key, value, "--blind"]).done();
    };
    cluster.rejoin(&["bucket", "create", "scores", "--n", "1"]).done();
    put("ann", "8");
    put("ann", "9");
    put("whole", "8");
    let push = |more: &[&str]| {
        let arguments = ["plugin", "push", "largest.wasm", "--siblings-of", "scores"];
        cluster.rejoin(&[&arguments[..], more].concat())
    };
    let refused = push(&[]);
    refused.said(7, "the plugin breaks the law of totality").said(7, "so it was not stored");
    refused.said(7, "1 set of siblings of bucket scores, with 2 values, were among the cases");
    assert!(listed(&cluster).is_empty(), "nothing was stored");
    let again = ["plugin", "test", "largest.wasm", "--replay", "largest.counterexample.json"];
    cluster.rejoin(&again).said(1, "the plugin still breaks the law of totality");
    let report = push(&["--json"]).json();
    assert_eq!((&report["recorded"]["sets"], &report["recorded"]["siblings"]), (&Value::from(1), &Value::from(2)));

    // A bucket of that name of another tenant is another one.
    cluster.rejoin(&["tenant", "create", "blue"]).done();
    cluster.rejoin(&["bucket", "create", "scores", "--n", "1", "--tenant", "blue"]).done();
    push(&["--tenant", "blue"]).said(0, "the node has no siblings of bucket scores").said(0, "laws held");
    let nowhere = cluster.rejoin(&["plugin", "push", "largest.wasm", "--siblings-of", "nowhere"]);
    nowhere.said(1, "there is no bucket nowhere");

    // Siblings that it reads are no obstacle; those of before are looked for anew.
    cluster.rejoin(&["conflict", "resolve", "scores", "ann", "--value", "7"]).done();
    put("bob", "5");
    put("bob", "6");
    push(&[]).said(0, "1 set of siblings of bucket scores, with 2 values, were among the cases");
    assert_eq!(listed(&cluster).len(), 1);
    let audited = cluster.rejoin(&["audit", "list", "--verb", "plugin"]).done().text().to_owned();
    assert!(audited.contains("siblings of scores"), "{audited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_of_a_bucket_is_as_much_as_the_node_allows() {
    let cluster = checking("law_sibling_sets = 3").await;
    write(&cluster, "largest", &lawless::largest());
    cluster.rejoin(&["bucket", "create", "scores", "--n", "1"]).done();
    for key in ["a", "b", "c", "d", "e"] {
        for value in ["1", "2"] {
            cluster.rejoin(&["put", "scores", key, value, "--blind"]).done();
        }
    }
    let push = cluster.rejoin(&["plugin", "push", "largest.wasm", "--siblings-of", "scores"]);
    push.said(0, "3 sets of siblings of bucket scores, with 6 values, were among the cases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_the_team_are_sent_with_a_push_and_checked_as_at_home() {
    let cluster = checking("law_fixtures = 2").await;
    // It reads digits up to 7, and its sampler draws no others: on these it breaks no law.
    write(&cluster, "largest", &lawless::largest());
    let values = cluster.files.dir.join("values");
    std::fs::create_dir(&values).unwrap();
    let push = |more: &[&str]| cluster.rejoin(&[&["plugin", "push", "largest.wasm"][..], more].concat());
    let with_values = ["--fixture", "values"];
    push(&with_values).said(2, "there are no files in values").said(2, "a directory of such files");
    push(&["--fixture", "gone"]).said(2, "gone cannot be read");
    push(&["--fixture", "values", "--unchecked"]).said(2, "cannot be used with");
    std::fs::write(cluster.files.dir.join("huge"), vec![b'7'; (4 << 20) + 1]).unwrap();
    push(&["--fixture", "huge"]).said(2, "with huge the fixtures have more than the 4194304 bytes of a push");
    let audited = || cluster.rejoin(&["audit", "list", "--verb", "plugin"]).done().text().to_owned();
    assert!(!audited().contains("plugin push"), "nothing was sent: {}", audited());

    std::fs::write(values.join("old"), b"9").unwrap();
    std::fs::write(values.join("new"), b"5").unwrap();
    let refused = push(&with_values);
    refused.said(7, "the plugin breaks the law of totality").said(7, "so it was not stored");
    refused.said(7, "2 fixtures were among the cases").said(7, "the law of totality is broken");
    assert!(listed(&cluster).is_empty(), "nothing was stored");
    let found = || {
        let json = std::fs::read(cluster.files.dir.join("largest.counterexample.json")).unwrap();
        serde_json::from_slice::<Value>(&json).unwrap()
    };
    let at_the_push = found();
    let again = ["plugin", "test", "largest.wasm", "--replay", "largest.counterexample.json"];
    cluster.rejoin(&again).said(1, "the plugin still breaks the law of totality");
    cluster.rejoin(&["plugin", "test", "largest.wasm", "--fixture", "values"]).said(1, "the law of totality");
    assert_eq!(found()["counterexamples"], at_the_push["counterexamples"], "at home it is the same");

    std::fs::write(values.join("third"), b"6").unwrap();
    let many = push(&with_values);
    many.said(7, "3 fixtures of 3 bytes were sent, and this node takes 2").said(7, "`law_fixtures`");
    std::fs::remove_file(values.join("old")).unwrap();
    push(&with_values).said(0, "2 fixtures were among the cases").said(0, "laws held");
    assert_eq!(listed(&cluster).len(), 1);
    assert!(audited().contains("2 fixtures"), "{}", audited());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_checks_no_laws_says_so_to_whoever_asks_for_more() {
    let cluster = Cluster::start_with(1, "check_laws = false").await;
    write(&cluster, "largest", &lawless::largest());
    cluster.rejoin(&["bucket", "create", "scores", "--n", "1"]).done();
    let push = ["plugin", "push", "largest.wasm", "--siblings-of", "scores"];
    cluster.rejoin(&push).said(2, "this node checks no laws (`check_laws` is false)");
    assert!(listed(&cluster).is_empty(), "nothing was stored");
    cluster.rejoin(&push[..3]).said(0, "its laws were not checked");
}
