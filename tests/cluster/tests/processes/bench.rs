//! `rejoin bench` on real processes: what it says it did was done. Times are never looked at.

use std::path::Path;

use serde_json::{Value, json};

use rejoin_test_cluster::{Cluster, cli, http};

const LOAD: [&str; 8] = ["--operations", "300", "--clients", "8", "--warm-up", "none", "--json", "--keys"];

/// The counters of all shards of all nodes together.
fn counted(cluster: &Cluster, nodes: usize, counter: &str) -> u64 {
    let mut sum = 0;
    for index in 0..nodes {
        let (_, page) = http::get(cluster.admin(index), "/metrics").unwrap();
        let values = page
            .lines()
            .filter(|line| line.starts_with(&format!("{counter}{{")))
            .filter_map(|line| line.rsplit_once(' '));
        sum += values.map(|(_, value)| value.parse::<u64>().unwrap()).sum::<u64>();
    }
    sum
}

fn all_done(report: &Value) {
    assert_eq!((&report["operations"], &report["errors"]), (&json!(300), &json!({})), "{report}");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(
        rows.iter().map(|row| row["operations"].as_u64().unwrap()).sum::<u64>(),
        300,
        "every operation stands in its second"
    );
    for quantile in ["p50_us", "p99_us", "p999_us", "max_us"] {
        assert!(report["latency"][quantile].as_u64().unwrap() > 0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_does_what_its_name_says_and_counts_it() {
    let cluster = Cluster::start(3).await;
    let admin: Vec<String> = (0..3).map(|index| cluster.admin(index).to_string()).collect();
    let run = |mode: &str, keys: &str, more: &[&str]| {
        let metrics = admin.iter().flat_map(|admin| ["--metrics", admin.as_str()]);
        let line: Vec<&str> =
            ["bench", mode].into_iter().chain(LOAD).chain([keys]).chain(metrics).chain(more.iter().copied()).collect();
        let report = cluster.rejoin(&line).done().json();
        all_done(&report);
        report
    };

    let put = run("put", "16", &[]);
    assert_eq!(
        (&put["durability"], &put["read_latency"], &put["connections"]),
        (&json!("fsync"), &Value::Null, &json!(1))
    );
    assert_eq!(counted(&cluster, 3, "rejoin_puts_total"), 300);
    assert!(put["journal_sync_us"].as_f64().unwrap() > 0.0, "the nodes have synced what they acknowledged: {put}");
    assert_eq!(cluster.rejoin(&["bucket", "show", "bench-plain-fsync", "--json"]).done().json()["durability"], "fsync");

    run("put", "16", &["--durability", "os", "--connections", "3"]);
    assert_eq!(counted(&cluster, 3, "rejoin_puts_total"), 600);
    assert_eq!(cluster.rejoin(&["bucket", "show", "bench-plain-os", "--json"]).done().json()["durability"], "os");

    let get = run("get", "20", &["--durability", "os"]);
    assert_eq!(get["write_latency"], Value::Null);
    assert_eq!(counted(&cluster, 3, "rejoin_gets_total"), 300);
    assert_eq!(counted(&cluster, 3, "rejoin_puts_total"), 620, "every key was written once before");
    assert_eq!(counted(&cluster, 3, "rejoin_siblings_read_total"), 300, "and was found, alone");

    let mixed = run("mixed", "20", &["--durability", "os", "--reads", "70"]);
    let gets = counted(&cluster, 3, "rejoin_gets_total") - 300;
    let puts = counted(&cluster, 3, "rejoin_puts_total") - 640;
    assert!(gets + puts == 300 && gets > 150 && puts > 30, "{gets} reads and {puts} writes of 70 in 100");
    assert_eq!(mixed["reads_percent"], 70);

    let conflict = run("conflict", "3", &["--durability", "os"]);
    assert!(conflict["reads_merged"].as_u64().unwrap() > 10, "{conflict}");
    let marked: u64 = conflict["rows"].as_array().unwrap().iter().map(|row| row["merges"].as_u64().unwrap()).sum();
    assert_eq!(
        marked,
        counted(&cluster, 3, "rejoin_merges_total"),
        "merges are marked in the seconds in which they were"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_counted_by_its_kind_and_nothing_done_is_a_failure() {
    let mut cluster = Cluster::start(3).await;
    cluster.rejoin(&["bench", "put", "--operations", "8", "--clients", "8", "--warm-up", "none"]).said(0, "").done();
    let other = ["bench", "put", "--bucket", "bench-plain-fsync", "--durability", "os"];
    cluster.rejoin(&other).said(2, "bucket bench-plain-fsync does not fit this run");
    cluster.kill(1);
    cluster.kill(2);
    let line =
        ["bench", "put", "--operations", "20", "--clients", "4", "--warm-up", "none", "--timeout", "3s", "--json"];
    let ran = cluster.rejoin(&line);
    let report = ran.said(4, "no operation succeeded").json();
    let errors = report["errors"].as_object().unwrap();
    assert_eq!(errors.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 20, "{report}");
    assert!(errors.contains_key("Unavailable") || errors.contains_key("Unknown"), "{report}");
    assert_eq!((&report["operations"], &report["latency"]), (&json!(0), &Value::Null));
}

#[test]
fn a_private_cluster_is_measured_from_all_sides_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut line = vec!["bench", "put", "--dev", "2", "--rate", "400", "--json"];
    line.extend(["--operations", "300", "--clients", "8", "--warm-up", "100ms"]);
    let mut command = std::process::Command::new(rejoin_test_cluster::binary());
    // Where the cluster's directory goes, and nothing else does.
    let output = command.args(line).env("TMPDIR", folder.path()).env_remove("REJOIN_PROFILE").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    all_done(&report);
    assert_eq!(report["rate_wanted"], 400);
    assert!(
        report["server_cpu_us"].as_f64().unwrap() > 0.0 && report["client_cpu_us"].as_f64().unwrap() > 0.0,
        "{report}"
    );
    assert!(report["fdatasync"]["p50_us"].as_u64().unwrap() > 0, "{report}");
    assert!(report["rows"][0]["flushes"].is_u64(), "{report}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn two_generators_do_a_load_together_and_what_becomes_of_it_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut line = vec!["bench", "mixed", "--dev", "1", "--rate", "200", "--deadline", "2m", "--json", "--restart"];
    line.extend(["--operations", "300", "--clients", "8", "--keys", "17", "--warm-up", "100ms", "--processes", "2"]);
    let mut command = std::process::Command::new(rejoin_test_cluster::binary());
    let output = command.args(line).env("TMPDIR", folder.path()).env_remove("REJOIN_PROFILE").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    all_done(&report);
    assert_eq!((&report["processes"], &report["clients"], &report["keys"]), (&json!(2), &json!(8), &json!(17)));
    let (offered, goodput) = (report["offered"].as_f64().unwrap(), report["goodput"].as_f64().unwrap());
    assert!((offered - 200.0).abs() < 0.1, "all of it was sent: {report}");
    assert!(goodput <= offered && report["late"].is_u64(), "{report}");
    for nothing in ["refused", "unknown", "timed_out", "never_begun"] {
        assert_eq!(report[nothing], 0, "{report}");
    }
    assert!(report["begin_delay"]["max_us"].as_u64().unwrap() > 0 && report["keeps_up"].is_boolean(), "{report}");
    assert!(report["client_cpu_us"].as_f64().unwrap() > 0.0, "the CPU time of both is counted: {report}");
    let memory = &report["memory"][0];
    let of = |name: &str| memory[name].as_u64().unwrap();
    assert!(of("top_bytes") >= of("before_bytes").max(of("after_bytes")) && of("before_bytes") > 1 << 20, "{report}");
    assert!(report["disk_bytes"].as_u64().unwrap() > 4096 && report["restart_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_run_that_cannot_begin_says_why() {
    let run = |line: &[&str]| cli::rejoin(Path::new("."), None, line, b"");
    run(&["bench", "put"]).said(2, "no profile");
    run(&["bench", "put", "--keys", "3"]).said(2, "too few for 64 clients");
    run(&["bench", "get", "--redis", "127.0.0.1:1", "--clients", "1"]).said(3, "Redis at 127.0.0.1:1");
    run(&["bench", "get", "--etcd", "127.0.0.1:1", "--clients", "1"]).said(3, "etcd at 127.0.0.1:1");
    run(&["bench", "put", "--redis", "127.0.0.1:1", "--processes", "2"]).said(1, "a generator process has ended");
    run(&["bench", "put", "--generator", "a-", "--redis", "127.0.0.1:1"]).said(3, "Redis at 127.0.0.1:1");
    run(&["bench", "put", "--dev", "1", "--pid", "1"]).said(2, "cannot be used with");
    run(&["bench", "put", "--redis", "127.0.0.1:1", "--disk", "no/such/dir"]).said(3, "Redis at");
}
