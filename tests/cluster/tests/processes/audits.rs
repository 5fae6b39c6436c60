//! The audit log of real nodes: listed, verified, and looked at after a kill and after a forgery.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use rejoin_client::admin::Scope;
use rejoin_test_cluster::{Cluster, eventually};

fn list(cluster: &Cluster, filters: &[&str]) -> Vec<Value> {
    let listed = cluster.rejoin(&[&["audit", "list", "--json"], filters].concat());
    listed.done().json().as_array().unwrap().clone()
}

/// The heads that `audit verify` prints.
fn heads(cluster: &Cluster) -> Vec<String> {
    let verified = cluster.rejoin(&["audit", "verify", "--json"]);
    let verified = verified.done().json();
    verified.as_array().unwrap().iter().map(|log| log["head"].as_str().unwrap().to_owned()).collect()
}

/// The only file of records of a node.
fn file(cluster: &Cluster, index: usize) -> PathBuf {
    cluster.data(index).join("audit/00000000000000000001.log")
}

/// Where the last record of a file ends: a header of 52 bytes, and each entry behind its length and 40 bytes more.
fn end_of_records(bytes: &[u8]) -> usize {
    let mut end = 52;
    while let Some(length) = bytes.get(end..end + 4).map(|length| u32::from_le_bytes(length.try_into().unwrap())) {
        if length == 0 {
            break;
        }
        end += 44 + length as usize;
    }
    end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_is_listed_with_who_asked_and_filtered() {
    let cluster = Cluster::start(3).await;
    let token = cluster.rejoin(&["token", "create", "app", "--scope", "read-only"]).done().text().to_owned();
    let root = cluster.rejoin(&["token", "root", "--secret", "secret"]).done().text().to_owned();
    let profile = std::fs::read_to_string(cluster.files.profile()).unwrap();
    std::fs::write(cluster.files.dir.join("app.toml"), profile.replace(&root, &token)).unwrap();
    eventually("every node knows the token", async || {
        let denied = cluster.rejoin(&["bucket", "create", "mine", "--profile", "app.toml"]);
        if denied.talk.contains("app (read-only) may not make buckets") { Ok(denied) } else { Err(denied) }
    })
    .await
    .said(5, "that takes a token of scope tenant-admin");
    cluster.rejoin(&["bucket", "create", "notes", "--n", "3"]).done();
    cluster.rejoin(&["bucket", "create", "notes"]).said(1, "notes");
    cluster.rejoin(&["tenant", "create", "shop"]).done();
    cluster.rejoin(&["token", "create", "team", "--scope", "tenant-admin", "--tenant", "shop"]).done();

    let all = list(&cluster, &[]);
    let outcomes: BTreeSet<&str> = all.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["denied", "done", "refused"].into(), "{all:?}");
    let made = all.iter().find(|entry| entry["object"] == "notes" && entry["outcome"] == "done").unwrap();
    assert!(made["by"]["name"] == "root" && made["by"]["scope"] == "operator", "{made}");
    assert!(made["before"].is_null() && made["after"].as_str().unwrap().len() == 64, "{made}");
    assert!(made["by"]["from"].as_str().unwrap().starts_with("127."), "{made}");
    let verbs = |filters: &[&str]| -> Vec<String> {
        list(&cluster, filters).iter().map(|entry| entry["verb"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(verbs(&["--verb", "tenant"]), ["tenant create"]);
    assert_eq!(verbs(&["--object", "notes", "--refused"]), ["bucket create"]);
    assert!(verbs(&["--by", "app"]).iter().all(|verb| verb == "bucket create"));
    assert_eq!(verbs(&["--tenant", "shop"]), ["token create"]);
    assert_eq!(verbs(&["--since", "1d"]).len(), all.len());
    let table = cluster.rejoin(&["audit", "list", "--verb", "token create"]);
    assert!(table.said(0, "keep the heads elsewhere").text().contains("scope tenant-admin"), "{table:?}");
    assert!(!table.text().contains(token.split(':').next_back().unwrap()), "{table:?}");
    cluster.rejoin(&["audit", "list", "--profile", "app.toml"]).said(5, "app (read-only)");

    // A node that is down is named, and the others are asked.
    let verified = cluster.rejoin(&["audit", "verify"]);
    let rows = verified.done().text().lines().filter(|line| line.contains("whole")).count();
    assert_eq!(rows, 3, "{verified:?}");
    cluster.rejoin(&["audit", "verify", "--head", &format!("n9:1:{}", "00".repeat(32))]).said(2, "no node n9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_has_recorded_every_command_that_it_answered() {
    let mut cluster = Cluster::start(1).await;
    let mut answered = Vec::new();
    for round in 0..3 {
        let of_round = format!("t-{round}-");
        let admin = cluster.pinned(0).await.admin();
        let asking = tokio::spawn(async move {
            let mut answered = Vec::new();
            for number in 0.. {
                let name = format!("t-{round}-{number}");
                match admin.create_token(&name, Scope::ReadOnly).await {
                    Ok(_) => answered.push(name),
                    Err(_) => break,
                }
            }
            answered
        });
        // Until some were answered, and so that one is under way.
        let admin = cluster.pinned(0).await.admin();
        eventually("commands are answered", async || match admin.tokens().await {
            // One of an earlier round may be there that was not answered.
            Ok(tokens) if tokens.iter().filter(|token| token.name.as_str().starts_with(&of_round)).count() > 5 => {
                Ok(())
            }
            other => Err(other),
        })
        .await;
        cluster.kill(0);
        let new = asking.await.unwrap();
        assert!(new.len() >= 5, "{new:?}");
        answered.extend(new);
        cluster.spawn(0);
        cluster.together().await;
        let listed = list(&cluster, &["--verb", "token create"]);
        let outcome = |name: &String| {
            let entry = listed.iter().find(|entry| entry["object"] == **name);
            entry.unwrap_or_else(|| panic!("{name} is missing in {listed:?}"))["outcome"].as_str().unwrap().to_owned()
        };
        assert!(answered.iter().all(|name| outcome(name) == "done"), "{listed:?}");
        // And every token that there is was asked for.
        let tokens = cluster.pinned(0).await.admin().tokens().await.unwrap();
        for token in tokens {
            let outcome = outcome(&token.name.to_string());
            assert!(["done", "unknown"].contains(&outcome.as_str()), "{}: {outcome}", token.name);
        }
        cluster.rejoin(&["audit", "verify"]).done();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_record_is_cut_at_the_start_and_said() {
    let mut cluster = Cluster::start(1).await;
    cluster.rejoin(&["tenant", "create", "shop"]).done();
    let [before]: [String; 1] = heads(&cluster).try_into().unwrap();
    cluster.kill(0);
    // As a crash leaves it: the beginning of a record behind the last one.
    let path = file(&cluster, 0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(end_of_records(&bytes));
    bytes.extend([100, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7]);
    std::fs::write(&path, bytes).unwrap();
    cluster.spawn(0);
    cluster.together().await;
    assert!(cluster.log(0).contains("has cut 15 bytes off the end"), "{}", cluster.log(0));
    let verified = cluster.rejoin(&["audit", "verify", "--head", &before]);
    assert!(verified.said(0, "has cut 15 bytes off the end").text().contains("whole"), "{verified:?}");
    assert_eq!(heads(&cluster), [before], "nothing that was recorded is gone");
    cluster.rejoin(&["tenant", "create", "more"]).done();
    cluster.rejoin(&["audit", "verify"]).done();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_log_is_found_while_the_node_runs_and_after_a_start() {
    let mut cluster = Cluster::start(3).await;
    for tenant in ["red", "green", "blue"] {
        cluster.rejoin(&["tenant", "create", tenant, "--node", &cluster.address(1).to_string()]).done();
    }
    let before = heads(&cluster);
    let known: Vec<&str> = before.iter().flat_map(|head| ["--head", head]).collect();
    let verify = |cluster: &Cluster, known: &[&str]| cluster.rejoin(&[&["audit", "verify"], known].concat());
    verify(&cluster, &known).said(0, "");

    // Another name for the tenant that was made second, which is record 3.
    let path = file(&cluster, 1);
    let whole = std::fs::read(&path).unwrap();
    let at = whole.windows(5).position(|window| window == b"green").unwrap();
    let forge = || {
        let mut forged = std::fs::read(&path).unwrap();
        forged[at..at + 5].copy_from_slice(b"brown");
        std::fs::write(&path, forged).unwrap();
    };
    forge();
    let expected = "the audit log of n2 is not whole: record 3 was altered";
    verify(&cluster, &[]).said(1, expected);
    cluster.rejoin(&["audit", "list"]).said(0, "the log of n2 is not whole: record 3 was altered");
    cluster.kill(1);
    cluster.spawn(1);
    cluster.together().await;
    assert!(cluster.log(1).contains("record 3 was altered"), "{}", cluster.log(1));
    verify(&cluster, &known).said(1, expected);
    let status = cluster.rejoin(&["status", "--node", &cluster.address(1).to_string()]);
    assert!(format!("{status:?}").contains("audit log: record 3 was altered"), "{status:?}");

    // A log that is taken away altogether begins anew: only who has kept its head can tell.
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1).join("audit")).unwrap();
    cluster.spawn(1);
    cluster.together().await;
    verify(&cluster, &[]).said(0, "");
    verify(&cluster, &known).said(1, "record 6 was there before and is gone; the last one is 0");
}
