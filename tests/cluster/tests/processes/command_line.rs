//! The command line from end to end: shapes of `--json`, exit codes, values from anywhere, and a development cluster's
//! life.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use rejoin_client::Bytes;
use rejoin_client::admin::BucketProps;
use rejoin_test_cluster::cli::{self, Ran};
use rejoin_test_cluster::{Cluster, binary, eventually, guests, http};

/// The fields of an object, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

const GOT: [&str; 12] = [
    "bucket",
    "context",
    "found",
    "key",
    "key_base64",
    "merge_fault",
    "merged_by",
    "shown",
    "siblings",
    "unreachable",
    "value",
    "value_base64",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_put_and_delete_print_what_scripts_rely_on() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let run = |arguments: &[&str]| cluster.rejoin(arguments);

    let missing = run(&["get", "plain", "k", "--json"]);
    let json = missing.said(1, "").json();
    assert_eq!(fields(&json), GOT);
    assert_eq!((&json["found"], &json["value"], &json["siblings"]), (&json!(false), &Value::Null, &json!([])));
    run(&["get", "plain", "k"]).said(1, "plain/k has no value");

    let put = run(&["put", "plain", "k", "one", "--json"]).done().json();
    assert_eq!(fields(&put), ["acked", "context", "needed", "outcome"]);
    assert_eq!((&put["outcome"], &put["needed"]), (&json!("stored"), &json!(2)));
    let context = put["context"].as_str().unwrap();
    assert!(
        context.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
        "safe in headers and shells: {context}"
    );
    run(&["put", "plain", "k", "two"]).said(1, "next: `rejoin get plain k` gives its context");
    run(&["put", "plain", "k", "two", "--context", context]).done();
    run(&["put", "plain", "k", "three", "--context", context, "--w", "3"]).done();

    let got = run(&["get", "plain", "k", "--json", "--r", "3"]).done().json();
    assert_eq!(fields(&got), GOT);
    assert_eq!(
        (&got["bucket"], &got["key"], &got["found"], &got["value"]),
        (&json!("plain"), &json!("k"), &json!(true), &Value::Null)
    );
    let siblings = got["siblings"].as_array().unwrap();
    assert_eq!(siblings.len(), 2);
    for sibling in siblings {
        assert_eq!(fields(sibling), ["stamp_ms", "value", "value_base64", "writer"]);
        assert!(sibling["stamp_ms"].as_u64().unwrap() > 1_600_000_000_000);
    }
    let mut values: Vec<&str> = siblings.iter().filter_map(|sibling| sibling["value"].as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["three", "two"]);
    let unmerged = run(&["get", "plain", "k"]);
    unmerged.said(1, "2 siblings that were not merged").said(1, "--siblings");
    assert_eq!(unmerged.text(), "", "siblings are no value");
    let mut lines: Vec<String> =
        run(&["get", "plain", "k", "--siblings"]).done().text().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["three", "two"]);

    run(&["delete", "plain", "k"]).said(2, "a delete says what it deletes");
    run(&["delete", "plain", "k", "--context", got["context"].as_str().unwrap(), "--json"]).done();
    run(&["get", "plain", "k"]).said(1, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_key_and_value_can_be_typed_and_errors_are_json_where_that_is_wanted() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    for value in ["@home", "-", "--x", ""] {
        cluster.rejoin(&["put", "plain", "--key-base64", "/wAt", "--value", value, "--blind"]).done();
        let got = cluster.rejoin(&["get", "plain", "--key-base64", "/wAt", "--json"]).done().json();
        cluster
            .rejoin(&["delete", "plain", "--key-base64", "/wAt", "--context", got["context"].as_str().unwrap()])
            .done();
        assert_eq!((&got["value"], &got["key"], &got["key_base64"]), (&json!(value), &Value::Null, &json!("/wAt")));
    }
    cluster
        .rejoin(&["get", "plain", "--key-base64", "/wAt"])
        .said(1, "`rejoin put plain --key-base64 /wAt --value VALUE` writes one");
    cluster.rejoin(&["get", "plain", "--", "-k"]).said(1, "`rejoin put plain -- -k VALUE` writes one");
    cluster.rejoin(&["put", "plain", "--", "-k", "v"]).done();
    assert_eq!(cluster.rejoin(&["get", "plain", "--", "-k"]).done().text(), "v");
    cluster.rejoin(&["get", "plain", "--key-base64", "no base64"]).said(2, "no base64");
    cluster.rejoin(&["get", "plain", "k", "--key-base64", "/wAt"]).said(2, "cannot be used with");

    let ran = cluster.rejoin(&["get", "nowhere", "k", "--json"]);
    let error: Value = serde_json::from_str(ran.talk.trim()).unwrap_or_else(|why| panic!("{why}: {ran:?}"));
    assert_eq!((ran.code, &error["exit"]), (Some(1), &json!(1)));
    assert!(error["error"].as_str().unwrap().contains("there is no bucket nowhere") && ran.out.is_empty(), "{ran:?}");

    let made = cluster.rejoin(&["bucket", "create", "five", "--n", "5"]);
    assert!(
        made.done().talk.contains("n = 5 and the cluster has 3 nodes") && made.talk.contains("no merge plugin"),
        "{}",
        made.talk
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_come_from_the_line_a_file_or_stdin_and_come_back_byte_for_byte() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(cluster.files.dir.join("value"), &bytes).unwrap();
    cluster.rejoin(&["put", "plain", "file", "@value"]).done();
    assert_eq!(cluster.rejoin(&["get", "plain", "file"]).done().out, bytes);
    let json = cluster.rejoin(&["get", "plain", "file", "--json"]).done().json();
    assert!(json["value"].is_null() && json["value_base64"].is_string(), "it is no text: {json}");
    let profile = cluster.files.profile();
    let stdin = cli::rejoin(&cluster.files.dir, Some(&profile), &["put", "plain", "stdin", "-"], &bytes);
    stdin.done();
    assert_eq!(cluster.rejoin(&["get", "plain", "stdin"]).done().out, bytes);
    cluster.rejoin(&["put", "plain", "no", "@no-such-file"]).said(2, "no-such-file");
    cluster.rejoin(&["put", "plain", "empty", ""]).done();
    assert_eq!(cluster.rejoin(&["get", "plain", "empty"]).done().out, b"");
    let node = cluster.address(1).to_string();
    let status = cluster.rejoin(&["status", "--node", &node]);
    assert!(status.done().text().contains("can lose 1 node without losing reads or writes"), "{status:?}");
    let status = cluster.rejoin(&["status", "--node", &node, "--json"]).done().json();
    assert_eq!((&status["node"], status["nodes"].as_array().unwrap().len()), (&json!("n2"), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_says_what_it_thinks_of_every_other_and_a_killed_one_is_named_with_the_reason() {
    let mut cluster = Cluster::start(3).await;
    let list = |cluster: &Cluster| cluster.rejoin(&["node", "list", "--json"]).done().json();
    let by =
        |list: &Value, node: &str| list.as_array().unwrap().iter().find(|asked| asked["node"] == node).unwrap().clone();
    let view = |list: &Value, node: &str, of: &str| {
        by(list, node)["members"]
            .as_array()
            .unwrap()
            .iter()
            .find(|member| member["node"] == of)
            .cloned()
            .unwrap_or_default()
    };
    eventually("all are alive", async || {
        let list = list(&cluster);
        let pairs = [("n1", "n2"), ("n1", "n3"), ("n2", "n1"), ("n2", "n3"), ("n3", "n1"), ("n3", "n2")];
        if pairs.iter().all(|(node, of)| view(&list, node, of)["liveness"] == "alive") { Ok(()) } else { Err(list) }
    })
    .await;
    let table = cluster.rejoin(&["node", "list"]);
    let text = table.done().text();
    assert!(text.contains("LAST PROBE") && text.contains("alive"), "{text}");
    cluster.kill(2);
    let listed = eventually("both others take it for down", async || {
        let list = list(&cluster);
        if ["n1", "n2"].iter().all(|node| view(&list, node, "n3")["liveness"] == "down") { Ok(list) } else { Err(list) }
    })
    .await;
    assert_eq!(view(&listed, "n1", "n2")["liveness"], "alive", "{listed}");
    let why = view(&listed, "n1", "n3")["reason"].clone();
    assert!(["not_connected", "probes", "gossip"].iter().any(|reason| why == *reason), "{listed}");
    assert!(by(&listed, "n3")["error"].is_string(), "it cannot be asked, and that is said: {listed}");
    let table = cluster.rejoin(&["node", "list"]);
    table.done();
    assert!(format!("{table:?}").contains("n3 was not asked"), "{table:?}");
    let alone = cluster.rejoin(&["node", "list", "--json", "--node", &cluster.address(1).to_string()]).done().json();
    assert_eq!((alone.as_array().unwrap().len(), &alone[0]["node"]), (1, &json!("n2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_is_watched_to_its_end_paused_and_started_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster.kill(2);
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    for key in 0..50_u32 {
        let key = key.to_string();
        eventually("two of three take the write", async || bucket.put(&key, b"v".to_vec()).blind().await).await;
    }
    cluster.spawn(2);
    cluster.together().await;
    let watched = cluster.rejoin(&["exchange", "status", "--watch"]);
    assert!(watched.done().text().contains("ALL EQUAL") && watched.text().contains("n3"), "{watched:?}");
    let own = cluster.pinned(2).await.bucket::<Bytes>("plain").unwrap();
    eventually("the node that was away has every key itself, and nobody has read them", async || {
        let asked = cluster.rejoin(&["exchange", "status", "--json"]).done().json();
        // Either side may have begun the walks that brought them.
        let brought = |asked: &Value| {
            let count = |pair: &Value| match (asked["node"] == "n3", pair["with"] == "n3") {
                (true, _) => pair["received"].as_u64(),
                (false, true) => pair["sent"].as_u64(),
                (false, false) => None,
            };
            asked["pairs"].as_array().unwrap().iter().filter_map(count).sum::<u64>()
        };
        let sum: u64 = asked.as_array().unwrap().iter().map(brought).sum();
        if sum >= 50 { Ok(()) } else { Err(sum) }
    })
    .await;
    for key in 0..50_u32 {
        assert!(own.get(key.to_string()).r(1).await.unwrap().is_found(), "key {key}");
    }

    let paused = |cluster: &Cluster| {
        let asked = cluster.rejoin(&["exchange", "status", "--json"]).done().json();
        let paused = asked.as_array().unwrap().iter().filter(|asked| asked["paused"] == true);
        let mut names: Vec<String> = paused.map(|asked| asked["node"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let said = cluster.rejoin(&["exchange", "pause", "--node", &cluster.address(1).to_string()]);
    assert_eq!(said.done().text().trim(), "paused on n2");
    assert_eq!(paused(&cluster), ["n2"]);
    let said = cluster.rejoin(&["exchange", "pause"]);
    assert!(said.done().text().starts_with("paused on ") && said.text().matches(", ").count() == 2, "{said:?}");
    let status = cluster.rejoin(&["exchange", "status"]);
    assert!(status.done().text().contains("the exchange of n2 is paused"), "{status:?}");
    assert_eq!(paused(&cluster), ["n1", "n2", "n3"]);
    cluster.rejoin(&["exchange", "start"]).done();
    assert!(paused(&cluster).is_empty());
    let sent = |index| http::metric(cluster.admin(index), "rejoin_exchange_sent_total");
    let received = http::metric(cluster.admin(2), "rejoin_exchange_received_total");
    assert!(sent(0) + sent(1) + received >= 50.0);
    cluster.kill(1);
    cluster.rejoin(&["exchange", "pause"]).said(3, "not every node was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_built_pushed_and_merges_what_two_writers_wrote() {
    let cluster = Cluster::start(3).await;
    let run = |arguments: &[&str]| cluster.rejoin(arguments);
    let source = guests::workspace().join("plugins/cart").display().to_string();
    let built = run(&["plugin", "build", &source, "-o", "cart.wasm", "--json"]).done().json();
    let digest = built["digest"].as_str().unwrap();
    assert_eq!(run(&["plugin", "push", "cart.wasm"]).done().text(), digest);
    let listed = run(&["plugin", "list", "--json"]).done().json();
    assert_eq!((&listed[0]["digest"], &listed[0]["name"]), (&json!(digest), &json!("cart")));
    run(&[
        "bucket",
        "create",
        "carts",
        "--plugin",
        digest,
        "--n",
        "3",
        "--r",
        "2",
        "--w",
        "quorum",
        "--durability",
        "os",
        "--strict",
    ])
    .done();
    let shown = eventually("the others hear of it", async || match run(&["bucket", "show", "carts", "--json"]) {
        Ran { code: Some(0), out, .. } => Ok(serde_json::from_slice::<Value>(&out).unwrap()),
        other => Err(other),
    })
    .await;
    assert_eq!(
        (&shown["plugin"], &shown["durability"], &shown["sloppy"]),
        (&json!(digest), &json!("os"), &json!(false))
    );
    assert_eq!(shown["validates"], json!(true), "the cart has a validator");
    let table = run(&["bucket", "list"]);
    let rows: Vec<Vec<&str>> = table.done().text().lines().map(|line| line.split_whitespace().collect()).collect();
    let last_two = |row: usize| rows[row][rows[row].len() - 2..].to_vec();
    assert_eq!([last_two(0), last_two(1)], [["VALIDATES", "STATE"], ["yes", "valid"]], "{table:?}");
    let properties = run(&["bucket", "show", "carts"]);
    let said = |line: &str| line.split_whitespace().collect::<Vec<_>>() == ["validates", "yes"];
    assert!(properties.done().text().lines().any(said), "{properties:?}");
    cluster.together().await;

    run(&["put", "carts", "ann", r#"{"clock":{"ann":1},"items":{"apples":{"ann:1":3}}}"#]).done();
    run(&["put", "carts", "ann", r#"{"clock":{"bob":1},"items":{"pears":{"bob:1":1}}}"#, "--blind"]).done();
    let merged = run(&["get", "carts", "ann", "--json"]).done().json();
    let value = merged["value"].as_str().unwrap();
    assert!(value.contains("apples") && value.contains("pears"), "{value}");
    assert_eq!(merged["merged_by"], json!({"name": "cart", "digest": digest}));
    assert!(merged["merge_fault"].is_null() && merged["shown"].is_string(), "{merged}");

    assert_eq!(run(&["bucket", "set", "carts", "--version", "1", "--w", "1", "--json"]).done().json()["version"], 2);
    run(&["bucket", "set", "carts", "--version", "1", "--w", "3"]).said(6, "bucket carts is at version 2, not 1");
    assert_eq!(run(&["bucket", "list", "--json"]).done().json()[0]["w"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_shown_once_and_withdrawn() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    let token = cluster.rejoin(&["token", "create", "app"]).said(0, "it cannot be shown again").text().to_owned();
    let root = cluster.rejoin(&["token", "root", "--secret", "secret"]).done().text().to_owned();
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    assert!(profile.contains(&root));
    std::fs::write(cluster.files.dir.join("app.toml"), profile.replace(&root, &token)).unwrap();
    let app = |arguments: &[&str]| cluster.rejoin(&[arguments, &["--profile", "app.toml"]].concat());
    eventually("every node knows the token", async || match app(&["get", "plain", "k"]) {
        Ran { code: Some(1), .. } => Ok(()),
        other => Err(other),
    })
    .await;
    app(&["put", "plain", "k", "v"]).done();
    app(&["bucket", "create", "more"])
        .said(5, "token app (read-write) may not make buckets: that takes a token of scope tenant-admin");
    let listed = cluster.rejoin(&["token", "list", "--json"]).done().json();
    assert!(listed[0]["last_used_ms"].is_u64(), "{listed}");
    let listed = listed.to_string();
    assert!(listed.contains("\"scope\":\"read-write\"") && !listed.contains("hash") && !listed.contains("token\":"));
    cluster.rejoin(&["token", "revoke", "app"]).done();
    eventually("no node takes it", async || match app(&["get", "plain", "k"]) {
        Ran { code: Some(5), talk, .. } if talk.contains("rejoin token create NAME") => Ok(()),
        other => Err(other),
    })
    .await;
    cluster.rejoin(&["token", "revoke", "nobody"]).said(1, "nobody");
    cluster.rejoin(&["token", "create", "root"]).said(1, "choose another name");
}

#[test]
fn usage_and_unreachable_clusters_have_codes_of_their_own() {
    let cluster = Cluster::prepare(1, "");
    cluster.rejoin(&["get", "plain"]).said(2, "Usage");
    cluster.rejoin(&["dance"]).said(2, "unrecognized subcommand");
    cli::rejoin(&cluster.files.dir, None, &["status"], b"").said(2, "no profile");
    cluster.rejoin(&["status", "--profile", "no-such.toml"]).said(2, "no-such.toml");
    cluster.rejoin(&["status"]).said(3, "next: start the nodes, or check the seeds in the profile");
    cluster.rejoin(&["status", "--wait-healthy", "--wait-for", "100ms"]).said(3, "not healthy after");
}

/// A `rejoin dev` that ends with the test.
struct Dev(Child);

impl Dev {
    fn start(dir: &std::path::Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.current_dir(dir).arg("dev").args(arguments).env("TMPDIR", dir).stdin(Stdio::null());
        command
            .stdout(std::fs::File::create(dir.join("out")).unwrap())
            .stderr(std::fs::File::create(dir.join("talk")).unwrap());
        Self(command.spawn().unwrap())
    }

    /// What it prints once it is up.
    async fn ready(&mut self, dir: &std::path::Path) -> Value {
        eventually("the cluster is up", async || {
            assert_eq!(self.0.try_wait().unwrap(), None, "{}", std::fs::read_to_string(dir.join("talk")).unwrap());
            serde_json::from_slice(&std::fs::read(dir.join("out")).unwrap())
        })
        .await
    }

    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port with free ones above it, below those that systems give out.
fn base_port() -> String {
    let start = 20_000 + (std::process::id() % 400) as u16 * 20;
    let free = |base: &u16| {
        (1..=3).all(|i| {
            std::net::UdpSocket::bind(("127.0.0.1", base + i)).is_ok()
                && std::net::TcpListener::bind(("127.0.0.1", base + 100 + i)).is_ok()
        })
    };
    (start..30_000).step_by(20).find(free).expect("free ports").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_development_cluster_cleans_up_after_itself_or_keeps_everything_if_told() {
    let (dir, base) = (tempfile::tempdir().unwrap(), base_port());
    let port: u16 = base.parse().unwrap();
    let mut dev = Dev::start(dir.path(), &["--base-port", &base, "--json"]);
    let ready = dev.ready(dir.path()).await;
    let addresses: Vec<String> = (1..=3).map(|i| format!("127.0.0.1:{}", port + i)).collect();
    let listed: Vec<&str> =
        ready["nodes"].as_array().unwrap().iter().filter_map(|node| node["address"].as_str()).collect();
    assert_eq!(listed, addresses);
    assert_eq!(ready["nodes"][0]["admin"], json!(format!("127.0.0.1:{}", port + 101)));
    let profile = std::path::PathBuf::from(ready["profile"].as_str().unwrap());
    let run = |profile: &std::path::Path, arguments: &[&str]| cli::rejoin(dir.path(), Some(profile), arguments, b"");
    run(&profile, &["put", "cart", "ann", r#"{"clock":{"ann":1},"items":{"tea":{"ann:1":1}}}"#]).done();
    dev.interrupt();
    assert!(!profile.parent().unwrap().exists(), "what it made is gone");

    for start in 0..2 {
        let mut dev = Dev::start(dir.path(), &["--data", "kept", "--base-port", &base, "--json"]);
        dev.ready(dir.path()).await;
        let profile = dir.path().join("kept/profile.toml");
        if start == 0 {
            run(&profile, &["put", "cart", "ann", r#"{"clock":{"ann":1},"items":{"tea":{"ann:1":1}}}"#]).done();
        }
        assert!(run(&profile, &["get", "cart", "ann"]).done().text().contains("tea"));
        dev.interrupt();
    }
    cli::rejoin(dir.path(), None, &["dev", "--data", "kept", "--nodes", "5"], b"")
        .said(2, "holds a cluster of 3 nodes");
}

/// The one line that a failed command prints on stderr with `--json`.
#[track_caller]
fn json_error(ran: &Ran, code: i32, words: &str) -> Value {
    let error: Value = serde_json::from_str(ran.talk.trim()).unwrap_or_else(|why| panic!("no JSON ({why}): {ran:?}"));
    assert_eq!(fields(&error), ["error", "exit", "next"]);
    assert!(ran.code == Some(code) && error["exit"] == json!(code) && ran.out.is_empty(), "{ran:?}");
    assert!(error["error"].as_str().unwrap().contains(words), "{words}: {error}");
    error
}

#[test]
fn what_cannot_be_parsed_or_read_is_told_programs_in_json() {
    let cluster = Cluster::prepare(1, "");
    let dir = &cluster.files.dir;
    let run = |line: &[&str]| cli::rejoin(dir, None, line, b"");
    let mistyped: [(&[&str], &str); 11] = [
        (&["get", "--json", "--nope", "b", "k"], "unexpected argument '--nope'"),
        (&["get", "b", "k", "--nope", "--json"], "unexpected argument '--nope'"),
        (&["get", "--json"], "required arguments were not provided: <BUCKET>"),
        (&["get", "b", "k", "--timeout", "soon", "--json"], "invalid value 'soon'"),
        (&["get", "b", "k", "--timeout", "--json"], "--timeout"),
        (&["get", "b", "k", "--key-base64", "/wAt", "--json"], "cannot be used with"),
        (&["frobnicate", "--json"], "unrecognized subcommand 'frobnicate'"),
        (&["--json"], "subcommand"),
        (&["bucket", "--json"], "subcommand"),
        (&["--json", "bucket"], "subcommand"),
        (&["status", "--json=yes"], "unexpected value 'yes'"),
    ];
    for (line, words) in mistyped {
        let error = json_error(&run(line), 2, words);
        assert!(
            error["next"].as_str().is_some_and(|next| next.contains("rejoin") || next.contains("--help")),
            "{error}"
        );
    }
    run(&["get", "b", "--", "k", "--json"]).said(2, "error: unexpected argument '--json'");
    for (line, words) in
        [(["get", "--json", "--help"], "Usage: rejoin get"), (["--json", "--version", "-h"], "rejoin ")]
    {
        assert!(run(&line).done().text().contains(words), "{line:?}");
    }
    // Files: a configuration, a profile, and what TLS needs.
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    json_error(&run(&["serve", "--json", "--config", "none.toml"]), 2, "cannot read the configuration none.toml");
    write("bad.toml", "shrads = 2");
    json_error(&run(&["serve", "--json", "--config", "bad.toml"]), 2, "shrads: there is no such key");
    json_error(&run(&["status", "--json", "--profile", "none.toml"]), 2, "none.toml");
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    write("no-ca.toml", &profile.replace("ca.pem", "gone.pem"));
    json_error(&run(&["status", "--json", "--profile", "no-ca.toml"]), 2, "gone.pem");
    write("spoilt.pem", "no certificate");
    write("spoilt-ca.toml", &profile.replace("ca.pem", "spoilt.pem"));
    json_error(&run(&["status", "--json", "--profile", "spoilt-ca.toml"]), 2, "certificate");
    write("spoilt.toml", &cluster.files.config(0).replace("\"n1.pem\"", "\"spoilt.pem\""));
    let ran = run(&["serve", "--json", "--config", "spoilt.toml"]);
    json_error(&ran, 2, "certificate");
}
