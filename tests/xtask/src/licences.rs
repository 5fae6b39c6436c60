//! The licences and sources of all dependencies, against deny.toml: what is left of cargo-deny where it is not
//! installed.

use std::collections::BTreeSet;
use std::path::Path;

use crate::spdx;
use crate::steps::{cargo_path, command};

/// Checks every crate that is linked into something we build, on any platform.
///
/// # Errors
/// When a crate's licence is not allowed, one does not come from crates.io, or cargo or deny.toml cannot be read.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).map_err(|error| format!("{name} could not be read: {error}"))
    };
    let allowed = allow_list(&read("deny.toml")?)?;
    let tree = cargo_tree(root)?;
    let crates = dependencies(&tree);
    let mut problems = offenders(&crates, &allowed);
    problems.extend(strange_sources(&read("Cargo.lock")?));
    if problems.is_empty() {
        eprintln!(
            "xtask: licences … {} crates, all within the allow list of deny.toml and from crates.io",
            crates.len()
        );
        return Ok(());
    }
    Err(format!("licences: {} problem(s)\n  {}", problems.len(), problems.join("\n  ")))
}

fn cargo_tree(root: &Path) -> Result<String, String> {
    let arguments =
        ["tree", "--workspace", "--target", "all", "-e", "normal,build", "--prefix", "none", "-f", "{p}|{l}"];
    let output = command(&cargo_path(), root)
        .args(arguments)
        .output()
        .map_err(|error| format!("cargo tree could not be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The strings of `allow = [...]` under `[licenses]`.
fn allow_list(deny: &str) -> Result<Vec<String>, String> {
    let mut lines = deny.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.by_ref().find(|line| *line == "[licenses]").ok_or("deny.toml has no [licenses]")?;
    let section: String = lines.take_while(|line| !line.starts_with('[')).collect::<Vec<_>>().join(" ");
    let list = section.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).map(|(list, _)| list);
    let list = list.ok_or("deny.toml has no `allow = [...]` under [licenses]")?;
    // Between quotes is every second part.
    let names: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    if names.is_empty() { Err("the list of allowed licences in deny.toml is empty".to_owned()) } else { Ok(names) }
}

/// The foreign crates of the tree, as (name and version, licence expression). Ours show their path, and are not asked.
fn dependencies(tree: &str) -> BTreeSet<(&str, &str)> {
    let lines = tree.lines().filter_map(|line| line.trim_end_matches("(*)").trim_end().split_once('|'));
    lines
        .filter(|(name, _)| !name.contains("(/") && !name.contains(":\\"))
        .map(|(name, licence)| (name, licence.trim()))
        .collect()
}

fn offenders(crates: &BTreeSet<(&str, &str)>, allowed: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, licence) in crates {
        match spdx::satisfied(licence, allowed) {
            Ok(true) => {}
            Ok(false) => problems.push(format!("{name}: `{licence}` is not allowed by deny.toml")),
            Err(reason) => problems.push(format!("{name}: `{licence}` is not a licence expression: {reason}")),
        }
    }
    problems
}

fn strange_sources(lock: &str) -> Vec<String> {
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    let strange =
        sources.into_iter().filter(|source| *source != "\"registry+https://github.com/rust-lang/crates.io-index\"");
    strange.map(|source| format!("Cargo.lock: {source} is not crates.io")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "a v1.0.0|MIT OR Apache-2.0\na v1.0.0|MIT OR Apache-2.0 (*)\n\nours v0.1.0 \
        (/home/me/ours)|Secret\nb v2.0.0 (proc-macro)|GPL-3.0-only\nc v3.0.0|\n";

    #[test]
    fn crates_are_listed_once_and_ours_are_not_asked() {
        let names: Vec<&str> = dependencies(TREE).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a v1.0.0", "b v2.0.0 (proc-macro)", "c v3.0.0"]);
    }

    #[test]
    fn a_licence_outside_the_list_and_a_missing_one_are_offenders() {
        let problems = offenders(&dependencies(TREE), &["MIT".to_owned()]);
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].starts_with("b v2.0.0 (proc-macro): `GPL-3.0-only`") && problems[1].starts_with("c v3.0.0: ``")
        );
    }

    #[test]
    fn the_allow_list_is_that_of_the_licenses_section() {
        let deny = "[bans]\nallow = [\"x\"]\n[licenses]\n# allow = [\"y\"]\nallow = [\n  \"MIT\", # why\n  \
            \"ISC\",\n]\n[sources]\n";
        assert_eq!(allow_list(deny), Ok(vec!["MIT".to_owned(), "ISC".to_owned()]));
        assert!(allow_list("[licenses]\nallow = []").is_err() && allow_list("[bans]\nallow = [\"MIT\"]").is_err());
    }

    #[test]
    fn a_crate_from_elsewhere_is_found() {
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert!(strange_sources(good).is_empty());
        assert_eq!(strange_sources(&format!("{good}source = \"git+https://example.org/x\"\n")).len(), 1);
    }
}
