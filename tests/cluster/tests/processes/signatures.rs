//! A tenant that demands signatures takes no plugin without one, and nobody but its administrator says who signs.

use std::path::PathBuf;

use rejoin_client::admin::Scope;
use rejoin_test_cluster::Cluster;
use rejoin_test_cluster::cli::{self, Ran};
use rejoin_test_hostile::lawless;

/// A profile of a new token of the default tenant.
async fn profile(cluster: &Cluster, name: &str, scope: Scope) -> PathBuf {
    let token = cluster.client().await.admin().create_token(name, scope).await.unwrap();
    let profile = cluster.files.dir.join(format!("{name}.toml"));
    let text = std::fs::read_to_string(cluster.files.profile()).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("token")).map(|line| format!("{line}\n"));
    std::fs::write(&profile, kept.collect::<String>() + &format!("token = \"{}\"\n", token.text())).unwrap();
    profile
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_signed_where_a_tenant_says_so() {
    let cluster = Cluster::start(3).await;
    std::fs::write(cluster.files.dir.join("largest.wasm"), lawless::largest()).unwrap();
    std::fs::write(cluster.files.dir.join("sum.wasm"), lawless::sum()).unwrap();
    let (author, team) =
        (profile(&cluster, "author", Scope::PluginAuthor).await, profile(&cluster, "team", Scope::TenantAdmin).await);
    let by = |profile: &PathBuf, line: &[&str]| -> Ran { cli::rejoin(&cluster.files.dir, Some(profile), line, b"") };
    // One that is there already, from before anybody had to sign.
    let unsigned = by(&author, &["plugin", "push", "sum.wasm"]).done().text().trim().to_owned();
    by(&team, &["bucket", "create", "before", "--plugin", &unsigned]).done();
    for key in ["ours.pem", "theirs.pem"] {
        cluster.rejoin(&["plugin", "keygen", key]).said(0, "is secret");
    }

    // Whoever has an author's token cannot add a key of his own.
    let add = ["tenant", "signers", "default", "add", "ours.pem.pub"];
    by(&author, &add).said(5, "may not change who signs plugins: that takes a token of scope tenant-admin");
    let key = by(&team, &add).said(0, "takes only plugins that this key has signed").text().trim().to_owned();
    assert_eq!(by(&author, &["tenant", "signers", "default", "list"]).done().text().trim(), key);

    let push = ["plugin", "push", "largest.wasm"];
    by(&author, &push).said(7, &format!("takes only plugins that are signed with {key}"));
    // By another key, of another tenant, of another component.
    let sign = |key: &str, more: &[&str]| {
        cluster.rejoin(&[&["plugin", "sign", "largest.wasm", "--key", key][..], more].concat()).done();
    };
    sign("theirs.pem", &[]);
    by(&author, &push).said(7, "is signed with ed25519:");
    sign("ours.pem", &["--tenant", "other"]);
    by(&author, &push).said(7, "the signature is not one of");
    cluster.rejoin(&["plugin", "sign", "sum.wasm", "--key", "ours.pem", "-o", "largest.wasm.sig"]).done();
    by(&author, &push).said(7, "the signature is not one of");
    sign("ours.pem", &[]);
    let digest = by(&author, &push).said(0, &format!("signed with {key}")).text().trim().to_owned();
    // Nothing changes the second time, whoever pushes it.
    let record = || {
        let mut shown = by(&team, &["plugin", "show", &digest, "--json"]).done().json();
        // Not of the record: whether the nodes are ready.
        shown.as_object_mut().unwrap().remove("nodes");
        shown
    };
    let shown = record();
    by(&team, &push).done();
    assert_eq!(record(), shown);
    let from = &shown["provenance"];
    assert!(from["pushed_by"] == "author" && from["signer"] == key.as_str() && from["pushed_ms"].is_u64(), "{shown}");
    let text = by(&team, &["plugin", "show", &digest]).done().text().to_owned();
    assert!(text.contains(&format!("signed with  {key}")) && text.contains("by author at"), "{text}");

    // What was not signed is not activated anew, and what a bucket has goes on.
    by(&team, &["bucket", "create", "signed", "--plugin", &digest]).done();
    by(&team, &["bucket", "create", "after", "--plugin", &unsigned]).said(7, "is not signed");
    by(&team, &["plugin", "activate", "signed", &unsigned]).said(7, "is not signed");
    for value in ["1", "2"] {
        by(&team, &["put", "before", "k", value, "--blind"]).done();
    }
    assert_eq!(by(&team, &["get", "before", "k"]).done().text().trim(), "3");
    // Every node has the keys.
    for index in 0..3 {
        let signers = cluster.pinned(index).await.admin().signers().await.unwrap();
        assert!(signers.iter().map(ToString::to_string).eq([&*key]), "{signers:?}");
    }
    by(&team, &["tenant", "signers", "default", "remove", &key]).said(0, "nobody signs");
    by(&team, &["bucket", "create", "after", "--plugin", &unsigned]).done();
    let audited = cluster.rejoin(&["audit", "list"]).done().text().to_owned();
    assert!(audited.contains("tenant signers add") && audited.contains("tenant signers remove"), "{audited}");
}
