//! `cargo xtask sbom`: what the `rejoin` binary is made of, as CycloneDX 1.6 in JSON.
//!
//! Cargo says which packages are built for this machine, `Cargo.lock` has their checksums. The same sources give the
//! same bytes: there is no time, no random number and no path of this machine in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::json::Json;
use crate::steps::{cargo_path, command};

/// The binary, and the plugins that it embeds as WebAssembly, as `host/cli/build.rs` has them.
const BINARY: &str = "rejoin";
const PLUGIN: &str = "rejoin-plugin-";
const EMBEDDED: [&str; 8] = ["cart", "counter", "highest", "last-writer", "leaderboard", "metadata", "session", "set"];

/// A package: its name and its version.
type Id = (String, String);

/// A package of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    licence: String,
    /// It is of this workspace.
    is_local: bool,
}

/// The packages of `cargo tree`, and on which others each depends.
#[derive(Debug, Default)]
struct Tree {
    packages: BTreeMap<Id, Package>,
    edges: BTreeMap<Id, BTreeSet<Id>>,
}

/// The document for the binary that would be built now, on this machine.
///
/// # Errors
/// When cargo or rustc cannot be run, or `Cargo.lock` cannot be read.
pub(crate) fn document(root: &Path) -> Result<String, String> {
    let compiler = ask(root, &"rustc".into(), &["-vV"])?;
    let field = |key: &str| {
        let line = compiler.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.map(str::to_owned).ok_or_else(|| format!("rustc -vV does not say its {key}"))
    };
    let (host, release) = (field("host")?, field("release")?);
    let text = |package: &str, target: &str, edges: &str| {
        let format = ["--prefix", "depth", "-f", "{p}|{l}"];
        let what = ["tree", "--locked", "-p", package, "--target", target, "-e", edges];
        ask(root, &cargo_path(), &[&what[..], &format].concat())
    };
    let linked = Tree::read(&text(BINARY, &host, "normal,no-proc-macro")?);
    let plugins = EMBEDDED.iter().map(|plugin| {
        let package = format!("{PLUGIN}{plugin}");
        text(&package, crate::setup::WASM, "normal,no-proc-macro")
    });
    let embedded = Tree::read(&plugins.collect::<Result<String, String>>()?);
    let built = Tree::read(&text(BINARY, &host, "normal,build")?);
    let lock = std::fs::read_to_string(root.join("Cargo.lock"))
        .map_err(|error| format!("Cargo.lock could not be read: {error}"))?;
    describe((&linked, &embedded, &built), &checksums(&lock), (&host, &release)).map(|json| format!("{json}\n"))
}

fn ask(root: &Path, program: &std::ffi::OsString, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let output = command(program, root).args(arguments).output();
    let output = output.map_err(|error| format!("{} could not be started: {error}", shown()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{} failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Tree {
    /// Reads what `cargo tree --prefix depth -f '{p}|{l}'` prints. A package whose dependencies were printed before
    /// ends with `(*)`.
    fn read(text: &str) -> Self {
        let (mut tree, mut above) = (Self::default(), Vec::<Id>::new());
        for line in text.lines() {
            let line = line.strip_suffix(" (*)").unwrap_or(line);
            let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let Ok(depth) = line[..line.len() - name.len()].parse::<usize>() else { continue };
            let Some((package, licence)) = name.split_once('|') else { continue };
            let mut words = package.split(' ');
            let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
            let id = (name.to_owned(), version.trim_start_matches('v').to_owned());
            above.truncate(depth);
            if let Some(parent) = above.last() {
                tree.edges.entry(parent.clone()).or_default().insert(id.clone());
            }
            let is_local = package.contains("(/") || package.contains(":\\");
            tree.packages.insert(id.clone(), Package { licence: licence.trim().to_owned(), is_local });
            above.push(id);
        }
        tree
    }
}

/// The checksums of `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|rest| rest.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), checksum);
        }
    }
    found
}

fn reference((name, version): &Id, package: &Package) -> String {
    match package.is_local {
        true => format!("rejoin-workspace/{name}@{version}"),
        false => format!("pkg:cargo/{name}@{version}"),
    }
}

fn licences(expression: &str) -> Json {
    // The old form of OR is not one of SPDX.
    let expression = expression.replace(" / ", "/").replace('/', " OR ");
    Json::List(vec![Json::Object(vec![("expression", Json::Text(expression))])])
}

fn property(name: &str, value: &str) -> Json {
    Json::Object(vec![("name", Json::text(name)), ("value", Json::text(value))])
}

fn describe(
    (linked, embedded, built): (&Tree, &Tree, &Tree),
    checksums: &BTreeMap<Id, String>,
    (host, release): (&str, &str),
) -> Result<Json, String> {
    let mut all: BTreeMap<&Id, &Package> = BTreeMap::new();
    for tree in [built, embedded, linked] {
        all.extend(&tree.packages);
    }
    let (root, binary) = linked
        .packages
        .iter()
        .find(|((name, _), _)| name == BINARY)
        .ok_or_else(|| format!("cargo tree does not name {BINARY}"))?;
    let refer = |id: &Id| all.get(id).map(|package| reference(id, package)).unwrap_or_default();
    let component = |(id, package): (&&Id, &&Package)| -> Result<Json, String> {
        let (name, version) = id;
        let parts = [(linked, "the binary"), (embedded, "the embedded plugins"), (built, "the build")];
        let parts: Vec<&str> =
            parts.iter().filter(|(tree, _)| tree.packages.contains_key(*id)).map(|(_, part)| *part).collect();
        let is_shipped = linked.packages.contains_key(*id) || embedded.packages.contains_key(*id);
        let mut members = vec![
            ("type", Json::text("library")),
            ("bom-ref", Json::Text(reference(id, package))),
            ("name", Json::text(name)),
            ("version", Json::text(version)),
            ("scope", Json::text(if is_shipped { "required" } else { "excluded" })),
        ];
        if !package.is_local {
            let checksum =
                checksums.get(*id).ok_or_else(|| format!("Cargo.lock has no checksum of {name} {version}"))?;
            let hash = vec![("alg", Json::text("SHA-256")), ("content", Json::text(checksum))];
            members.push(("hashes", Json::List(vec![Json::Object(hash)])));
        }
        if !package.licence.is_empty() {
            members.push(("licenses", licences(&package.licence)));
        }
        if !package.is_local {
            members.push(("purl", Json::Text(reference(id, package))));
        }
        members.push(("properties", Json::List(vec![property("rejoin:part-of", &parts.join(", "))])));
        Ok(Json::Object(members))
    };
    let others = all.iter().filter(|(id, _)| **id != root).map(component);
    let mut components: Vec<Json> = others.collect::<Result<_, _>>()?;
    let standard = format!("pkg:generic/rust-std@{release}");
    components.push(Json::Object(vec![
        ("type", Json::text("library")),
        ("bom-ref", Json::text(&standard)),
        ("name", Json::text("rust-std")),
        ("version", Json::text(release)),
        ("scope", Json::text("required")),
        ("licenses", licences("MIT OR Apache-2.0")),
        ("purl", Json::text(&standard)),
        ("properties", Json::List(vec![property("rejoin:part-of", "the binary, the embedded plugins")])),
    ]));
    let depends = |id: &Id| {
        let of = |tree: &Tree| tree.edges.get(id).cloned().unwrap_or_default();
        let mut below: BTreeSet<String> =
            [built, embedded, linked].iter().flat_map(|tree| of(tree)).map(|id| refer(&id)).collect();
        if id == root {
            below.extend(embedded.packages.keys().filter(|(name, _)| name.starts_with(PLUGIN)).map(&refer));
            below.insert(standard.clone());
        }
        let below = below.into_iter().map(Json::Text).collect();
        Json::Object(vec![("ref", Json::Text(refer(id))), ("dependsOn", Json::List(below))])
    };
    let mut dependencies: Vec<Json> = all.keys().map(|id| depends(id)).collect();
    let nothing = ("dependsOn", Json::List(Vec::new()));
    dependencies.push(Json::Object(vec![("ref", Json::text(&standard)), nothing]));
    let main = vec![
        ("type", Json::text("application")),
        ("bom-ref", Json::Text(reference(root, binary))),
        ("name", Json::text(BINARY)),
        ("version", Json::text(&root.1)),
        ("licenses", licences(&binary.licence)),
    ];
    let tool = vec![("type", Json::text("application")), ("name", Json::text("cargo xtask sbom"))];
    let metadata = vec![
        ("tools", Json::Object(vec![("components", Json::List(vec![Json::Object(tool)]))])),
        ("component", Json::Object(main)),
        ("properties", Json::List(vec![property("rejoin:target", host), property("rejoin:rustc", release)])),
    ];
    Ok(Json::Object(vec![
        ("$schema", Json::text("http://cyclonedx.org/schema/bom-1.6.schema.json")),
        ("bomFormat", Json::text("CycloneDX")),
        ("specVersion", Json::text("1.6")),
        ("version", Json::Number(1)),
        ("metadata", Json::Object(metadata)),
        ("components", Json::List(components)),
        ("dependencies", Json::List(dependencies)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0rejoin v0.1.0 (/home/me/host/cli)|MIT\n1a v1.0.0|MIT/Apache-2.0\n2b v2.0.0|ISC\n\
        1b v2.0.0|ISC (*)\n1m v3.0.0 (proc-macro)|MIT\n2b v1.0.0|ISC\n";
    const EMBEDDED_TREE: &str = "0rejoin-plugin-cart v0.1.0 (/home/me/plugins/cart)|MIT\n1b v2.0.0|ISC\n";

    fn id(name: &str, version: &str) -> Id {
        (name.into(), version.into())
    }

    fn lock(names: &[(&str, &str)]) -> String {
        let package = |(name, version): &(&str, &str)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nchecksum = \"00{name}\"\n\n")
        };
        names.iter().map(package).collect()
    }

    #[test]
    fn a_tree_is_read_with_its_edges_and_repeated_packages() {
        let tree = Tree::read(TREE);
        assert_eq!(tree.packages.len(), 5);
        let below = |name: &str, version: &str| tree.edges.get(&id(name, version)).cloned().unwrap_or_default();
        let expected = [id("a", "1.0.0"), id("b", "2.0.0"), id("m", "3.0.0")];
        assert_eq!(below("rejoin", "0.1.0"), expected.into());
        assert_eq!((below("a", "1.0.0"), below("m", "3.0.0")), ([id("b", "2.0.0")].into(), [id("b", "1.0.0")].into()));
        assert!(tree.packages[&id("rejoin", "0.1.0")].is_local && !tree.packages[&id("m", "3.0.0")].is_local);
    }

    #[test]
    fn what_only_builds_is_excluded_and_what_has_no_checksum_is_refused() {
        let linked = Tree::read("0rejoin v0.1.0 (/x)|MIT\n1a v1.0.0|MIT/Apache-2.0\n2b v2.0.0|ISC\n");
        let (embedded, built) = (Tree::read(EMBEDDED_TREE), Tree::read(TREE));
        let all = [("a", "1.0.0"), ("b", "2.0.0"), ("b", "1.0.0"), ("m", "3.0.0")];
        let describe = |lock: &str| describe((&linked, &embedded, &built), &checksums(lock), ("here", "1.0.0"));
        let text = describe(&lock(&all)).unwrap().to_string();
        let scope = |purl: &str| {
            let (_, rest) = text.split_once(&format!("\"bom-ref\": \"{purl}\"")).expect(purl);
            rest.split_once("\"scope\": \"")
                .and_then(|(_, rest)| rest.split_once('"'))
                .map(|(scope, _)| scope.to_owned())
        };
        for (purl, expected) in [
            ("pkg:cargo/a@1.0.0", "required"),
            ("pkg:cargo/b@2.0.0", "required"),
            ("pkg:cargo/b@1.0.0", "excluded"),
            ("pkg:cargo/m@3.0.0", "excluded"),
            ("rejoin-workspace/rejoin-plugin-cart@0.1.0", "required"),
        ] {
            assert_eq!(scope(purl).as_deref(), Some(expected), "{purl}");
        }
        assert!(text.contains("\"expression\": \"MIT OR Apache-2.0\"") && !text.contains("/home/me"), "{text}");
        assert_eq!(text, describe(&lock(&all)).unwrap().to_string(), "the same again");
        let refused = describe(&lock(&all[1..])).unwrap_err();
        assert!(refused.contains("no checksum of a 1.0.0"), "{refused}");
    }
}
