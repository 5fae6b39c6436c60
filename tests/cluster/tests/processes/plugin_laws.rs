//! `rejoin plugin new` and `plugin test` as a plugin's author types them. No cluster is needed.

use std::path::Path;

use serde_json::{Value, json};

use rejoin_test_cluster::binary;
use rejoin_test_cluster::cli::{self, Ran};
use rejoin_test_cluster::guests::{self, workspace};
use rejoin_test_hostile::lawless;

fn rejoin(dir: &Path, arguments: &[&str]) -> Ran {
    cli::rejoin(dir, None, &[&["plugin"], arguments].concat(), b"")
}

fn json_of(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_plugin_that_obeys_the_laws_is_told_so_law_by_law() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cart.wasm"), guests::cart()).unwrap();
    let ran = rejoin(dir.path(), &["test", "cart.wasm", "--cases", "40", "--smallest", "9"]);
    ran.said(0, "no law was broken")
        .said(0, "next: `rejoin plugin push cart.wasm`")
        .said(0, "values of the plugin's own sampler")
        .said(0, "the laws hold for all 729 triples of the 9 smallest values")
        .said(0, "random histories of replicas end alike")
        .said(0, "say with --intent what operations mean");
    let rows: Vec<Vec<&str>> = ran.text().lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!((rows.len(), rows[0].as_slice()), (9, ["LAW", "VERDICT", "CASES"].as_slice()), "{}", ran.text());
    assert!(rows[1..].iter().all(|row| row[1] == "held"), "{}", ran.text());
    ran.said(0, "warning: the largest siblings of a bucket merge to more than the 1048576 bytes");
    assert_eq!((rows[1][0], rows[1][2], rows[8][0], rows[8][2]), ("totality", "40", "limits", "2"), "{}", ran.text());

    let arguments = ["test", "cart.wasm", "--cases", "10", "--smallest", "0", "--seed", "7", "--json"];
    let shape = rejoin(dir.path(), &arguments).done().json();
    let mut fields: Vec<&str> = shape.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let documented = [
        "all_fuel",
        "counterexamples",
        "coverage",
        "digest",
        "file",
        "fuel",
        "held",
        "histories",
        "laws",
        "merges",
        "most_fuel",
        "name",
        "recorded",
        "sampler",
        "samples",
        "seed",
        "small_scope",
        "version",
    ];
    assert_eq!(fields, documented);
    assert_eq!(
        (&shape["held"], &shape["sampler"], &shape["seed"], &shape["file"]),
        (&json!(true), &json!(true), &json!(7), &Value::Null)
    );
    assert_eq!(
        (&shape["name"], &shape["laws"][0]["law"], &shape["laws"][0]["cases"]),
        (&json!("cart"), &json!("totality"), &json!(10))
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn what_breaks_a_law_is_explained_kept_and_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let write = |bytes: Vec<u8>| std::fs::write(dir.path().join("score.wasm"), bytes).unwrap();
    write(lawless::sum());
    let ran = rejoin(dir.path(), &["test", "score.wasm"]);
    ran.said(1, "the plugin breaks the law of idempotence, of absorption");
    ran.said(1, "the law of idempotence is broken on").said(1, "looking for less");
    let hurried =
        rejoin(dir.path(), &["test", "score.wasm", "--shrink-time", "1ms", "--counterexample", "hurried.json"]);
    hurried.said(1, "the plugin breaks the law of idempotence");
    assert_eq!(json_of(&dir.path().join("hurried.json"))["counterexamples"][0]["law"], "idempotence");
    rejoin(dir.path(), &["test", "score.wasm", "--replay", "hurried.json"])
        .said(1, "still breaks the law of idempotence");
    ran.said(1, "what to do: join sets or take maxima").said(1, "--replay score.counterexample.json`");
    assert!(ran.text().contains("idempotence  BROKEN") && ran.text().contains("bracketing   held"), "{}", ran.text());

    let kept = json_of(&dir.path().join("score.counterexample.json"));
    assert_eq!((&kept["format"], &kept["counterexamples"][0]["law"]), (&json!(1), &json!("idempotence")));
    let sibling = &kept["counterexamples"][1]["siblings"][1];
    assert!(sibling["shown"].is_u64() && sibling["base64"].is_string(), "a digit as the plugin shows it: {sibling}");

    let replay = ["test", "score.wasm", "--replay", "score.counterexample.json"];
    rejoin(dir.path(), &replay).said(1, "the plugin still breaks the law of idempotence, of absorption");
    write(lawless::largest());
    let mended = rejoin(dir.path(), &replay);
    mended.said(0, "what broke a law breaks none now").said(0, "was found on another component");
    assert_eq!(rejoin(dir.path(), &[&replay[..], &["--json"]].concat()).done().json()["held"], true);
    // One that refuses everything has not been mended.
    write(lawless::refusing());
    rejoin(dir.path(), &replay).said(1, "still breaks");

    write(lawless::first());
    rejoin(dir.path(), &["test", "score.wasm", "--counterexample", "kept.json", "--json"])
        .said(1, "the law of permutation");
    assert_eq!(json_of(&dir.path().join("kept.json"))["counterexamples"][0]["law"], "permutation");
}

#[test]
fn what_is_not_what_it_should_be_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("cart.wasm", guests::cart());
    write("clock.wasm", &rejoin_test_hostile::guests::importing());
    write("mute.wasm", &rejoin_test_hostile::guests::without_merger());
    write("text.wasm", b"no component");
    write("first.wasm", &rejoin_test_hostile::guests::first());
    write("refuses.wasm", &rejoin_test_hostile::guests::refusing());
    rejoin(dir.path(), &["test", "refuses.wasm", "--cases", "10"])
        .said(1, "no law has judged a case")
        .said(1, "list Sampler");
    rejoin(dir.path(), &["test", "cart.wasm", "--module-bytes", "1000"]).said(7, "1000 are allowed");
    rejoin(dir.path(), &["test", "no-such.wasm"]).said(2, "no-such.wasm cannot be read");
    rejoin(dir.path(), &["test", "."]).said(2, "next: `rejoin plugin build .`");
    rejoin(dir.path(), &["test", "text.wasm"]).said(7, "no WebAssembly component");
    rejoin(dir.path(), &["test", "clock.wasm"]).said(7, "a plugin may import nothing");
    rejoin(dir.path(), &["test", "mute.wasm"]).said(7, "list Merger in rejoin_guest::export!");
    rejoin(dir.path(), &["test", "first.wasm"])
        .said(1, "it has no sampler")
        .said(1, "list Sampler in rejoin_guest::export!");

    let fixture = json_of(&dir.path().join("first.counterexample.json"));
    let replay = |change: &dyn Fn(&mut Value)| {
        let mut fixture = fixture.clone();
        change(&mut fixture);
        write("other.json", fixture.to_string().as_bytes());
        rejoin(dir.path(), &["test", "cart.wasm", "--replay", "other.json"])
    };
    replay(&|_| {}).said(0, "breaks none now");
    replay(&|json| json["format"] = json!(9)).said(2, "format 9");
    replay(&|json| json["plugin"]["name"] = json!("session")).said(2, "name the file of session");
    replay(&|json| json["plugin"]["digest"] = json!("x")).said(2, "no plugin's digest");
    rejoin(dir.path(), &["test", "cart.wasm", "--replay", "cart.wasm"]).said(2, "this is no counterexample");
    rejoin(dir.path(), &["test", "cart.wasm", "--replay", "gone.json"]).said(2, "gone.json cannot be read");
}

#[test]
fn a_new_crate_builds_and_obeys_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    let sdk = workspace().join("guest-sdk").display().to_string();
    let made = rejoin(dir.path(), &["new", "high-scores", "--sdk", &sdk]);
    assert_eq!(made.said(0, "next: `rejoin plugin build high-scores`").text(), "high-scores");
    rejoin(dir.path(), &["new", "high-scores", "--sdk", &sdk]).said(2, "exists already");
    rejoin(dir.path(), &["new", "other", "--sdk", "."]).said(2, "does not hold the SDK");
    // What it depends on is locked as in the workspace, was fetched with it, and for the most part built with it.
    let target = binary().parent().and_then(Path::parent).unwrap().display().to_string();
    std::fs::create_dir(dir.path().join(".cargo")).unwrap();
    std::fs::write(dir.path().join(".cargo/config.toml"), format!("build.target-dir = {target:?}\n")).unwrap();
    std::fs::copy(workspace().join("Cargo.lock"), dir.path().join("high-scores/Cargo.lock")).unwrap();
    let built = rejoin(dir.path(), &["build", "high-scores", "--offline", "--json"]).done().json();
    assert_eq!((&built["name"], &built["version"]), (&json!("high-scores"), &json!("0.1.0")));
    rejoin(dir.path(), &["test", "high-scores.wasm"]).said(0, "no law was broken");
    let intent = ["test", "high-scores.wasm", "--intent", "high-scores/intent.json", "--history-time", "20s"];
    rejoin(dir.path(), &intent).said(0, "histories of operations end as they should").said(0, "3 classic ones");
    let fixtures = dir.path().join("values");
    std::fs::create_dir(&fixtures).unwrap();
    rejoin(dir.path(), &["test", "high-scores.wasm", "--fixture", "values"]).said(2, "there are no files");
    std::fs::write(fixtures.join("a"), b"007").unwrap();
    // A value of the team that the plugin refuses.
    let refused = ["test", "high-scores.wasm", "--fixture", "values", "--counterexample", "refused.json"];
    rejoin(dir.path(), &refused).said(1, "the law of totality").said(1, "007");
    std::fs::write(fixtures.join("a"), b"7007").unwrap();
    rejoin(dir.path(), &["test", "high-scores.wasm", "--fixture", "values"]).said(0, "no law was broken");
    // As a register it is wrong: what was folded keeps a number that a later write has replaced.
    let text = br#"{"format":1,"specification":"map","operations":[{"set":"","to":"9"},{"set":"","to":"10"}]}"#;
    std::fs::write(dir.path().join("map.json"), text).unwrap();
    rejoin(dir.path(), &["test", "high-scores.wasm", "--intent", "map.json"])
        .said(1, "a history of operations ends otherwise than it should")
        .said(1, "the content is \"10\", and should be \"9\"");
    std::fs::write(dir.path().join("map.json"), b"{}").unwrap();
    rejoin(dir.path(), &["test", "high-scores.wasm", "--intent", "map.json"]).said(2, "this is no intent");
}
