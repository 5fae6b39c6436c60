//! The commands that the documents show are run as they stand, from the first to the last.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rejoin_test_cluster::book::{sh_blocks, type_in};
use rejoin_test_cluster::{binary, guests::workspace, own_loopback};

fn blocks(document: &str, at_least: usize) -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join(document)).unwrap();
    let blocks = sh_blocks(&text);
    assert!(blocks.len() >= at_least, "{document} has lost its commands: {blocks:?}");
    blocks
}

/// The commands of a page that names ports of 127.0.0.1, on an address of their own: the tests here run at once, and
/// something else on the machine may use these ports.
fn blocks_elsewhere(document: &str, at_least: usize, ip: Ipv4Addr) -> Vec<String> {
    let blocks = blocks(document, at_least);
    blocks.into_iter().map(|block| block.replace("127.0.0.1", &ip.to_string())).collect()
}

#[test]
fn the_runbook_starts_a_cluster_and_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let ran = type_in(&blocks_elsewhere("host/cli/book/start-a-cluster.md", 8, own_loopback()), dir.path(), "");
    let log = |node: &str| std::fs::read_to_string(dir.path().join(format!("{node}.log"))).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}\n{}\n{}\n{}\n{}", ran.text(), ran.talk, log("n1"), log("n2"), log("n3"));
    assert!(ran.text().contains("world") && ran.text().contains("n3 is down"), "what was put was got: {}", ran.text());
    for node in ["n1", "n2", "n3"] {
        assert!(log(node).contains("has stopped"), "{node} was not stopped cleanly: {}", log(node));
    }
}

/// The page goes on with the cluster of the runbook, before that is stopped.
#[test]
fn a_running_cluster_is_changed_as_the_book_says() {
    let dir = tempfile::tempdir().unwrap();
    let ip = own_loopback();
    let mut start = blocks_elsewhere("host/cli/book/start-a-cluster.md", 8, ip);
    start.pop();
    let change = blocks_elsewhere("host/cli/book/change-a-cluster.md", 8, ip);
    let ran = type_in(&[start, change].concat(), dir.path(), "");
    let log = |node: &str| std::fs::read_to_string(dir.path().join(format!("{node}.log"))).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}\n{}\n{}\n{}\n{}", ran.text(), ran.talk, log("n1"), log("n4"), log("n5"));
    for shown in [
        "n4 is unassigned",
        "n3 is declared dead",
        "layout 8 is applied",
        "water the roses",
        "bucket plants: n = 3, strict",
        "256 partitions become 512",
        "layout 9: 512 partitions",
    ] {
        assert!(ran.text().contains(shown), "{shown} is missing in\n{}", ran.text());
    }
}

#[test]
fn a_cluster_is_shared_as_the_book_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut start = blocks_elsewhere("host/cli/book/start-a-cluster.md", 8, own_loopback());
    start.pop();
    let share = blocks("host/cli/book/share-a-cluster.md", 5);
    let ran = type_in(&[start, share].concat(), dir.path(), "");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.talk);
    for shown in ["world", "the shop's"] {
        assert!(ran.text().contains(shown), "{shown} is missing in\n{}", ran.text());
    }
    for said in [
        "token reports (read-only) may not write: that takes a token of scope read-write",
        "token reports (read-only) may not show nodes and layouts: that takes a token of scope operator",
        "token reports revoked",
    ] {
        assert!(ran.talk.contains(said), "{said} is missing in\n{}", ran.talk);
    }
}

#[test]
fn a_cluster_is_audited_as_the_book_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut start = blocks_elsewhere("host/cli/book/start-a-cluster.md", 8, own_loopback());
    start.pop();
    let ran = type_in(&[start, blocks("host/cli/book/audit-a-cluster.md", 4)].concat(), dir.path(), "");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.talk);
    for shown in ["token shop/team at 127.", "denied: token team (tenant-admin) may not", "\"verb\":\"bucket create\""]
    {
        assert!(ran.text().contains(shown), "{shown} is missing in\n{}", ran.text());
    }
    let heads = std::fs::read_to_string(dir.path().join("heads.args")).unwrap();
    assert_eq!(heads.lines().filter(|line| line.starts_with("--head n")).count(), 3, "{heads}");
}

/// A page that goes on with the cluster of the runbook. Gives the directory, and how it went.
fn goes_on(page: &str, at_least: usize) -> (tempfile::TempDir, rejoin_test_cluster::cli::Ran) {
    let dir = tempfile::tempdir().unwrap();
    let ip = own_loopback();
    let mut start = blocks_elsewhere("host/cli/book/start-a-cluster.md", 8, ip);
    start.pop();
    let ran = type_in(&[start, blocks_elsewhere(page, at_least, ip)].concat(), dir.path(), "");
    let log = |node: &str| std::fs::read_to_string(dir.path().join(format!("{node}.log"))).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}\n{}\n{}\n{}", ran.text(), ran.talk, log("n1"), log("n3"));
    (dir, ran)
}

#[test]
fn ready_made_merges_do_what_the_book_says() {
    let (_, ran) = goes_on("host/cli/book/ready-made-merges.md", 2);
    assert!(ran.text().trim_end().ends_with("42false1[\"rust\"]"), "{}", ran.text());
}

#[test]
fn a_merge_is_explained_replayed_and_undone_as_the_book_says() {
    let (_, ran) = goes_on("host/cli/book/undo-a-merge.md", 4);
    for said in ["end as they did", "1 folds would be undone, 0 skipped", "1 folds undone"] {
        assert!(ran.talk.contains(said), "{said} is missing in\n{}", ran.talk);
    }
    assert!(ran.text().contains("folded by"), "{}", ran.text());
}

#[test]
fn a_token_is_rotated_as_the_book_says() {
    let (_, ran) = goes_on("host/cli/book/rotate-tokens.md", 3);
    assert!(ran.text().contains("valid, its old secret for 23 h") || ran.text().contains("for 1 d"), "{}", ran.text());
}

#[test]
fn a_certificate_is_renewed_as_the_book_says() {
    let (dir, _) = goes_on("host/cli/book/rotate-certificates.md", 3);
    let log = std::fs::read_to_string(dir.path().join("n1.log")).unwrap();
    assert!(log.contains("certificates are in use"), "{log}");
}

#[test]
fn the_authority_is_replaced_as_the_book_says() {
    let (dir, ran) = goes_on("host/cli/book/rotate-the-authority.md", 5);
    assert!(ran.text().trim_end().ends_with("world"), "{}", ran.text());
    let ca = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 1, "{ca}");
}

#[test]
fn the_secret_is_replaced_as_the_book_says() {
    let (dir, ran) = goes_on("host/cli/book/rotate-the-secret.md", 6);
    assert!(ran.text().trim_end().ends_with("with a context of before"), "{}", ran.text());
    let secret = std::fs::read_to_string(dir.path().join("cluster-secret")).unwrap();
    assert!(secret.starts_with("rejoin cluster secrets\nuse ") && !secret.contains("accept"), "{secret}");
}

#[test]
fn the_disk_is_encrypted_as_the_book_says() {
    let (dir, ran) = goes_on("host/cli/book/encrypt-the-disk.md", 6);
    assert!(ran.text().trim_end().ends_with("n3 is down"), "{}", ran.text());
    for said in ["is needed no more by this node", "no key is needed"] {
        assert!(ran.text().contains(said), "{said} is missing in\n{}", ran.text());
    }
    let log = std::fs::read_to_string(dir.path().join("n2.log")).unwrap();
    assert!(log.contains("all rows were written anew"), "{log}");
}

/// A directory that looks like the root of a built clone.
fn clone_in(dir: &Path) {
    for entry in std::fs::read_dir(workspace()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "target" {
            symlink(entry.path().canonicalize().unwrap(), dir.join(entry.file_name())).unwrap();
        }
    }
    std::fs::create_dir(dir.join("target")).unwrap();
    symlink(binary().parent().unwrap(), dir.join("target/debug")).unwrap();
}

#[test]
fn every_command_of_the_readme_works() {
    let dir = tempfile::tempdir().unwrap();
    clone_in(dir.path());
    let ran = type_in(&blocks("README.md", 5), dir.path(), "");
    let log = std::fs::read_to_string(dir.path().join("target/try.log")).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}\n{}\n{log}", ran.text(), ran.talk);
    for shown in ["feed the cat, call Bob", "apples", "pears", "self-causal"] {
        assert!(ran.text().contains(shown), "{shown:?} is missing: {}", ran.text());
    }
}

/// A page about a language, where its tools are: its commands, run in the root of a built clone.
fn of_a_language(
    page: &str,
    at_least: usize,
    tools: &[&str],
) -> Option<(tempfile::TempDir, rejoin_test_cluster::cli::Ran)> {
    let lacks = |tool: &&&str| !Command::new(tool).arg("--version").output().is_ok_and(|ran| ran.status.success());
    if let Some(tool) = tools.iter().find(lacks) {
        let _ = writeln!(std::io::stderr(), "skipped: the commands of {page}: `{tool} --version` does not run");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    clone_in(dir.path());
    let ran = type_in(&blocks(page, at_least), dir.path(), "");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.talk);
    Some((dir, ran))
}

#[test]
fn a_plugin_in_c_is_built_and_tested_as_the_book_says() {
    let Some((dir, ran)) = of_a_language("host/cli/book/write-a-plugin-in-c.md", 2, &["clang", "wasm-ld"]) else {
        return;
    };
    assert!(ran.talk.contains("no law was broken"), "{}", ran.talk);
    assert!(dir.path().join("target/cart-c.component.wasm").is_file(), "{}", ran.talk);
}

/// The packages come from the registry of npm. Where `cargo xtask guests` could not reach it, neither could this test.
#[test]
fn a_plugin_in_javascript_is_built_as_the_book_says() {
    let packages = binary().parent().and_then(Path::parent).unwrap().join("guests/cart-js/node_modules");
    if !packages.is_dir() {
        let _ = writeln!(std::io::stderr(), "skipped: the commands about JavaScript: run `cargo xtask guests` first");
        return;
    }
    let page = "host/cli/book/write-a-plugin-in-javascript.md";
    let Some((dir, ran)) = of_a_language(page, 1, &["node", "npm"]) else { return };
    assert!(dir.path().join("target/cart-js/cart.wasm").is_file(), "{}", ran.talk);
}

/// What the pages about languages show is what the tree has.
#[test]
fn the_code_that_the_pages_about_languages_show_is_that_of_the_tree() {
    let read = |file: &str| std::fs::read_to_string(workspace().join(file)).unwrap();
    for (page, fence, source) in [
        ("host/cli/book/write-a-plugin-in-c.md", "```c\n", "plugins/cart-c/cart.c"),
        ("host/cli/book/write-a-plugin-in-javascript.md", "```js\n", "plugins/cart-js/cart.js"),
    ] {
        let page = read(page);
        let code = page.split(fence).nth(1).and_then(|rest| rest.split("```").next()).expect("it shows code");
        assert!(read(source).contains(code.trim_end()), "{source} has other code than the book shows");
    }
}

/// What `plugin new` begins with is compiled and tested; what the documents show is that.
#[test]
fn the_plugin_that_the_documents_show_is_the_one_of_the_tree() {
    let read = |file: &str| std::fs::read_to_string(workspace().join(file)).unwrap();
    let source = read("plugins/highest/src/lib.rs");
    let code = &source[source.find("use rejoin_guest").unwrap()..];
    let merge = &source[source.find("impl Merger").unwrap()..];
    let merge = &merge[..merge.find("\n}\n").unwrap() + 3];
    for (document, code) in [("README.md", merge), ("host/cli/book/write-a-plugin.md", code)] {
        let shown = read(document).contains(&format!("```rust\n{code}```"));
        assert!(shown, "{document} shows another plugin than plugins/highest");
    }
}

#[test]
fn a_command_that_fails_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = sh_blocks("```sh\ntrue\n```\n```sh\nrejoin get no bucket\n```\n```sh\necho not reached\n```\n");
    let ran = type_in(&blocks, dir.path(), "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.out.is_empty(), "{ran:?}");
}
