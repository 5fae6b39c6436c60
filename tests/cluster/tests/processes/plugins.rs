//! Plugins that are none, and plugins that do harm: refused at the push, or answered with all siblings and the reason.
//! The node is unharmed.

use std::time::Duration;

use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::{Cluster, eventually, guests as real, http, within};
use rejoin_test_hostile::{bombs, guests};

/// Pushes a component, and makes a bucket of the same name that merges with it.
async fn bucket(cluster: &Cluster, name: &str, component: Vec<u8>) {
    let props = BucketProps { fuel: 3_000_000, memory_bytes: 16 << 20, value_bytes: 1000, ..BucketProps::default() };
    cluster.bucket_merging_with(name, component, props).await;
    cluster.rejoin(&["put", name, "k", "one"]).done();
    cluster.rejoin(&["put", name, "k", "two", "--blind"]).done();
}

/// The merge must have failed for that reason, and the siblings must be there.
fn assert_faulty(cluster: &Cluster, name: &str, reason: &str) {
    let got = cluster.rejoin(&["get", name, "k", "--r", "3", "--json"]);
    let json = got.done().json();
    assert!(json["value"].is_null() && json["merged_by"].is_null(), "{json}");
    let mut values: Vec<&str> =
        json["siblings"].as_array().unwrap().iter().filter_map(|s| s["value"].as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["one", "two"], "{json}");
    let fault = json["merge_fault"].as_str().unwrap_or_default();
    assert!(fault.contains(reason), "{reason:?} is not why: {json}");
    cluster.rejoin(&["get", name, "k"]).said(1, "2 siblings that were not merged").said(1, reason);
}

/// A plugin that behaves well still merges on every node.
fn assert_unharmed(cluster: &Cluster) {
    for index in 0..3 {
        let node = cluster.address(index).to_string();
        let json = cluster.rejoin(&["get", "good", "k", "--node", &node, "--json"]).done().json();
        assert!(json["value"] == "one" || json["value"] == "two", "{json}");
        assert!(json["merged_by"]["digest"].is_string(), "{json}");
        assert_eq!(http::get(cluster.admin(index), "/health").unwrap().0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plugin_is_rejected_at_the_push_with_the_reason() {
    let cluster = Cluster::start(3).await;
    bucket(&cluster, "good", guests::first()).await;
    let core = [0, b'a', b's', b'm', 1, 0, 0, 0];
    let cut = &real::cart()[..real::cart().len() / 2];
    let down = "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (local.get 0))))";
    for (name, bytes, words) in [
        ("overflowing", guests::merging(down, "(call $down (i32.const 0))"), "overflows its stack"),
        ("no-component", b"#!/bin/sh".to_vec(), "this is no WebAssembly component"),
        ("empty", Vec::new(), "this is no WebAssembly component"),
        ("core-module", core.to_vec(), "this is a core WebAssembly module, not a component"),
        ("cut", cut.to_vec(), "component"),
        ("imports", guests::importing(), "the component imports \"clock\""),
        ("no-merger", guests::without_merger(), "does not export rejoin:plugin/merger@0.1"),
        ("endless-start", guests::endless_start(), "the component cannot be started"),
        ("too-large", vec![0; (2 << 20) + 1], "2097152"),
    ] {
        let file = format!("{name}.wasm");
        std::fs::write(cluster.files.dir.join(&file), bytes).unwrap();
        cluster.rejoin(&["plugin", "push", &file]).said(7, words);
    }
    let known = cluster.rejoin(&["plugin", "list", "--json"]).done().json();
    assert_eq!(known.as_array().unwrap().len(), 1, "only the good one is there: {known}");
    cluster.rejoin(&["bucket", "create", "b", "--plugin", &"00".repeat(32)]).said(1, "plugin");
    // There is no quarantine to be ended; the transcript is recorded anew.
    let digest = known[0]["digest"].as_str().unwrap();
    let released = cluster.rejoin(&["plugin", "release", digest, "--json"]).done().json();
    assert!(released["digest"] == digest && released["quarantined"].is_null(), "{released}");
    assert!(released["transcripts"].is_null(), "{released}");
    eventually("it is listed as before", async || {
        let listed = cluster.rejoin(&["plugin", "list", "--json"]).done().json();
        if listed == known { Ok(()) } else { Err(listed) }
    })
    .await;
    cluster.rejoin(&["plugin", "release", &"00".repeat(32)]).said(1, "there is no plugin");
    cluster.rejoin(&["plugin", "release", "a-name"]).said(2, "rejoin plugin list");
    assert_unharmed(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_traps_loops_grows_or_returns_too_much_leaves_all_siblings_and_says_why() {
    let cluster = Cluster::start(3).await;
    bucket(&cluster, "good", guests::first()).await;
    let greedy = "(loop $again (drop (memory.grow (i32.const 1))) (br $again)) (unreachable)";
    for (name, component, words) in [
        ("traps", guests::merging("", "(unreachable)"), "): the plugin trapped: it panicked or aborted"),
        ("loops", guests::endless(), "the plugin used up its 3000000 units of fuel"),
        ("grows", guests::merging("", greedy), "the plugin wanted more than its 16777216 bytes of memory"),
        (
            "floods",
            guests::with_memory("8", "(call $answer (i32.const 0) (i32.const 400000))"),
            "the plugin's result is larger than",
        ),
        ("lies", guests::merging("", "(call $answer (i32.const -8) (i32.const 16))"), "the plugin"),
    ] {
        bucket(&cluster, name, component).await;
        assert_faulty(&cluster, name, words);
        assert_unharmed(&cluster);
    }
    // Each failure is in the inbox of its bucket, until somebody resolves it.
    let listed = |name: &str| cluster.rejoin(&["conflict", "list", name, "--json"]).done().json();
    for (name, reason) in [("loops", "fuel"), ("grows", "memory"), ("traps", "panicked")] {
        let conflicts = listed(name);
        let of = &conflicts[0];
        assert!(of["key"] == "k" && of["siblings"] == 2 && of["reason"].as_str().unwrap().contains(reason), "{of}");
    }
    assert_eq!(listed("good"), serde_json::json!([]));
    cluster.rejoin(&["conflict", "list", "nobody"]).said(1, "there is no bucket nobody");
    cluster.rejoin(&["conflict", "show", "good", "k"]).said(1, "there is no conflict");
    let shown = cluster.rejoin(&["conflict", "show", "loops", "k"]);
    assert!(shown.said(0, "fuel").text().contains("one"), "{shown:?}");
    let first = cluster.rejoin(&["conflict", "show", "loops", "k", "--json"]).done().json();
    let resolve = |more: &[&str]| cluster.rejoin(&[&["conflict", "resolve", "loops", "k"], more].concat());
    resolve(&["--keep", "3"]).said(2, "there are siblings 1 to 2");
    resolve(&["--keep", "1", "--context", "other"]).said(6, "other siblings");
    resolve(&["--keep", "1", "--context", first["context"].as_str().unwrap()]).done();
    assert_eq!(cluster.rejoin(&["get", "loops", "k"]).done().text(), first["siblings"][0]["value"].as_str().unwrap());
    assert_eq!(listed("loops"), serde_json::json!([]));
    resolve(&["--keep", "1"]).said(1, "has one value");
    cluster.rejoin(&["conflict", "resolve", "grows", "k", "--value", "both"]).done();
    assert_eq!(cluster.rejoin(&["get", "grows", "k"]).done().text(), "both");
    // What one's plugin does not merge, one merges oneself, with the context of the read.
    let context = cluster.rejoin(&["get", "traps", "k", "--json"]).json()["context"].as_str().unwrap().to_owned();
    cluster.rejoin(&["put", "traps", "k", "both", "--context", &context]).done();
    assert_eq!(cluster.rejoin(&["get", "traps", "k"]).done().text(), "both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lacks_a_module_fetches_it_by_its_digest_before_it_merges() {
    let mut cluster = Cluster::start(3).await;
    bucket(&cluster, "good", guests::first()).await;
    let stopped = cluster.take(2).stop();
    assert!(stopped.success(), "{stopped}");
    let modules = cluster.files.dir.join("n3.data/modules");
    let before = std::fs::read_dir(&modules).unwrap().count();
    assert!(before > 0, "the plugin is on the disk of every node");
    std::fs::remove_dir_all(&modules).unwrap();
    std::fs::create_dir(&modules).unwrap();
    cluster.spawn(2);
    let node = cluster.address(2).to_string();
    drop(cluster.pinned(2).await);
    // At once: whether it has the module by now is not the reader's concern.
    let json = cluster.rejoin(&["get", "good", "k", "--r", "1", "--node", &node, "--json"]).done().json();
    assert!(json["merge_fault"].is_null() && !json["value"].is_null(), "{json}");
    cluster.together().await;
    assert_eq!(std::fs::read_dir(&modules).unwrap().count(), before, "it was fetched, and kept");
    assert!(cluster.log(2).contains("plugin fetched"), "{}", cluster.log(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_could_not_be_stored_is_not_kept_in_memory() {
    let cluster = Cluster::start(1).await;
    let ready = || http::metric(cluster.admin(0), "rejoin_plugins_ready");
    let push = |component: Vec<u8>| {
        std::fs::write(cluster.files.dir.join("pushed.wasm"), component).unwrap();
        cluster.rejoin(&["plugin", "push", "pushed.wasm"])
    };
    push(guests::first()).done();
    assert_eq!(ready(), 1.0);
    // A file where the directory was: nothing can be stored in it, by root neither.
    let modules = cluster.data(0).join("modules");
    std::fs::rename(&modules, cluster.data(0).join("aside")).unwrap();
    std::fs::write(&modules, "").unwrap();
    for _ in 0..2 {
        push(guests::endless()).said(4, "the plugin could not be stored");
        assert_eq!(ready(), 1.0, "the plugin that was refused is still in memory");
    }
    std::fs::remove_file(&modules).unwrap();
    std::fs::rename(cluster.data(0).join("aside"), &modules).unwrap();
    push(guests::endless()).done();
    assert_eq!(ready(), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_that_no_bucket_merges_with_do_not_pile_up_in_memory() {
    let mut cluster = Cluster::start(1).await;
    let props = BucketProps { n: 1, ..BucketProps::default() };
    cluster.bucket_merging_with("good", guests::first(), props.clone()).await;
    let admin = cluster.client().await.admin();
    let mut pushed = Vec::new();
    for rounds in 1..=12 {
        pushed.push(admin.push_plugin("idle", guests::slow(rounds)).await.unwrap());
    }
    let ready = |cluster: &Cluster| http::metric(cluster.admin(0), "rejoin_plugins_ready");
    assert_eq!(ready(&cluster), 9.0, "one that a bucket merges with, and eight others");
    assert!(cluster.take(0).stop().success());
    cluster.spawn(0);
    drop(cluster.pinned(0).await);
    // The first of them is not in memory, before the restart or after it.
    let plugin = Some(pushed[0].activation());
    let admin = cluster.client().await.admin();
    admin.create_bucket("later", BucketProps { plugin, ..props }).await.unwrap();
    for name in ["later", "good"] {
        cluster.rejoin(&["put", name, "k", "one"]).done();
        cluster.rejoin(&["put", name, "k", "two", "--blind"]).done();
        let json = cluster.rejoin(&["get", name, "k", "--json"]).done().json();
        assert!(json["merged_by"]["digest"].is_string(), "{json}");
    }
    assert!(ready(&cluster) <= 10.0, "two that buckets merge with, and eight others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_plugin_does_not_take_is_refused_before_anything_is_written() {
    let mut cluster = Cluster::start(3).await;
    let props = BucketProps { fuel: 3_000_000, ..BucketProps::default() };
    let plugin = cluster.bucket_merging_with("judged", guests::validating(), props).await;
    assert!(plugin.validates && plugin.activation().validates);
    cluster.rejoin(&["put", "judged", "k", "good"]).done();
    for index in 0..3 {
        let node = cluster.address(index).to_string();
        for (value, how, words) in [
            (
                "!one",
                "--blind",
                "does not take the value: the plugin refused: a value is malformed; nothing was written",
            ),
            ("#two", "--blind", "a value is in a form that this version does not support"),
            ("?three", "--blind", "does not take the value: the plugin trapped"),
            ("~four", "--blind", "does not take the value: the plugin used up its 3000000 units of fuel"),
        ] {
            cluster.rejoin(&["put", "judged", "k", value, how, "--node", &node]).said(2, words);
        }
        cluster.rejoin(&["put", "judged", "new", "!", "--node", &node]).said(2, "nothing was written");
        cluster.rejoin(&["get", "judged", "new", "--node", &node]).said(1, "");
    }
    let read = cluster.rejoin(&["get", "judged", "k", "--r", "3", "--json"]).done().json();
    assert_eq!((&read["value"], read["siblings"].as_array().map(Vec::len)), (&"good".into(), Some(1)), "{read}");
    assert!(http::get(cluster.admin(0), "/metrics").unwrap().1.contains("rejoin_values_refused_total"));
    // A delete writes no value, and a bucket that merges with another plugin asks nobody.
    cluster.rejoin(&["delete", "judged", "k", "--blind"]).done();
    bucket(&cluster, "good", guests::first()).await;
    cluster.rejoin(&["put", "good", "k", "!", "--blind"]).done();

    // A node that does not have the plugin refuses for now, and loses nothing.
    assert!(cluster.take(2).stop().success());
    let modules = cluster.files.dir.join("n3.data/modules");
    std::fs::remove_dir_all(&modules).unwrap();
    std::fs::create_dir(&modules).unwrap();
    cluster.spawn(2);
    let node = cluster.address(2).to_string();
    drop(cluster.pinned(2).await);
    cluster.rejoin(&["put", "judged", "k", "later", "--blind", "--node", &node]).done();
    cluster.rejoin(&["put", "judged", "k", "!", "--blind", "--node", &node]).said(2, "nothing was written");
}

/// What a put with such a value cost: the next merge failed, or a reader that takes the last of two names lost an
/// acknowledged add.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_cart_does_not_block_its_key() {
    let cluster = Cluster::start(3).await;
    cluster.cart().await;
    let good = r#"{"clock":{"ann":1},"items":{"figs":{"ann:1":1}}}"#;
    cluster.rejoin(&["put", "cart", "k", good]).done();
    for bad in [
        r#"{"clock":{"bob":2},"items":{"x":{"bob:1":1},"x":{"bob:2":1}}}"#,
        r#"{"clock":{"bob":1.0},"items":{}}"#,
        r#"[{},{}]"#,
        "{\"clock\":{\"bob\":1},\"items\":{}} ,",
        "no cart",
        "",
        "\u{feff}{\"clock\":{},\"items\":{}}",
        r#"{"clock":{"bob":9007199254740993},"items":{}}"#,
        r#"{"clock":{"bob":-0},"items":{}}"#,
    ] {
        cluster.rejoin(&["put", "cart", "k", bad, "--blind"]).said(2, "a value is malformed; nothing was written");
    }
    cluster.rejoin(&["put", "cart", "k", r#"{"clock":{"bob":1},"items":{"figs":{"bob:1":2}}}"#, "--blind"]).done();
    let read = cluster.rejoin(&["get", "cart", "k", "--r", "3", "--json"]).done().json();
    assert_eq!(read["value"], r#"{"clock":{"ann":1,"bob":1},"items":{"figs":{"ann:1":1,"bob:1":2}}}"#, "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_components_that_are_expensive_to_compile_are_refused_and_the_node_goes_on() {
    let cluster = Cluster::start(3).await;
    bucket(&cluster, "good", guests::first()).await;
    for (name, bytes, words) in [
        ("instances", bombs::nested_instances(40), "instances, counted as often as they are made"),
        ("passed", bombs::passed_instances(20), "components that are passed to components"),
        ("types", bombs::deep_types(600_000), "types of components within types"),
        ("params", bombs::params(1_000), "parameters of one function"),
        ("locals", bombs::locals(50_000), "locals of one function"),
        ("blocks", bombs::deep_blocks(20_000), "blocks within one another"),
        ("joins", bombs::joins(1_500, 2_500), "blocks of one function times its locals"),
        ("names", bombs::import_name("a\u{1b}[31m\u{202e}b"), r"u{1b}[31m"),
    ] {
        let file = format!("{name}.wasm");
        std::fs::write(cluster.files.dir.join(&file), bytes).unwrap();
        cluster.rejoin(&["plugin", "push", &file]).said(7, words);
    }
    assert_unharmed(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_merges_with_what_it_has_compiled_before() {
    let mut cluster = Cluster::start(3).await;
    bucket(&cluster, "good", guests::first()).await;
    let compiled = cluster.files.dir.join("n3.data/compiled");
    within(Duration::from_secs(20), "the third node has compiled the plugin", async || {
        let files = std::fs::read_dir(&compiled).map_err(|error| error.to_string())?.count();
        if files > 1 { Ok(()) } else { Err(format!("{files} files")) }
    })
    .await;
    let stopped = cluster.take(2).stop();
    assert!(stopped.success(), "{stopped}");
    let config = cluster.files.config_path(2);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("compile_program = \"/bin/false\"\n{text}")).unwrap();
    cluster.spawn(2);
    let node = cluster.address(2).to_string();
    drop(cluster.pinned(2).await);
    let json = cluster.rejoin(&["get", "good", "k", "--r", "1", "--node", &node, "--json"]).done().json();
    assert!(json["merge_fault"].is_null() && !json["value"].is_null(), "it had to compile it again: {json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_merges_are_counted_by_reason_and_logged_with_bucket_key_and_plugin() {
    let cluster = Cluster::start(1).await;
    let props = BucketProps { n: 1, ..BucketProps::default() };
    let plugin = cluster.bucket_merging_with("loops", guests::endless(), props).await;
    cluster.rejoin(&["put", "loops", "k", "one"]).done();
    cluster.rejoin(&["put", "loops", "k", "two", "--blind"]).done();
    let json = cluster.rejoin(&["get", "loops", "k", "--json"]).done().json();
    let fault = json["merge_fault"].as_str().unwrap_or_default();
    assert!(fault.contains("units of fuel"), "with the defaults, the fuel decides and not the clock: {json}");
    let metrics = http::get(cluster.admin(0), "/metrics").unwrap().1;
    assert!(metrics.contains("rejoin_merge_failures_total{reason=\"out_of_fuel\"} 1"), "{metrics}");
    let log = cluster.log(0);
    let line = log.lines().find(|line| line.contains("a merge gave no result")).unwrap_or_else(|| panic!("{log}"));
    for words in ["bucket=loops", "key=", "out_of_fuel", &plugin.digest.to_string()] {
        assert!(line.contains(words), "{words}: {line}");
    }
}
