//! The bill of materials (`cargo xtask sbom`), compared with what cargo would link into the binary and with Cargo.lock.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// A package: its name and its version.
type Id = (String, String);

/// What a build would compile: `cargo build --unit-graph`.
#[derive(Deserialize)]
struct Graph {
    units: Vec<Unit>,
    roots: Vec<usize>,
}

#[derive(Deserialize)]
struct Unit {
    pkg_id: String,
    target: Target,
    mode: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    index: usize,
}

/// Required fields that a document lacks, references that lead nowhere, and names that stand twice.
#[must_use]
pub fn malformed(document: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wants = |place: &str, found: bool| {
        if !found {
            problems.push(format!("{place} is missing or wrong"));
        }
    };
    wants("bomFormat", document["bomFormat"] == "CycloneDX");
    wants("specVersion", document["specVersion"] == "1.6");
    wants("version", document["version"].as_u64().is_some_and(|version| version > 0));
    let main = &document["metadata"]["component"];
    wants("metadata.component", main["type"] == "application" && main["name"] == "rejoin" && is_text(&main["bom-ref"]));
    let components = list(&document["components"]);
    wants("components", !components.is_empty());
    let mut known = BTreeSet::from([main["bom-ref"].as_str().unwrap_or_default()]);
    for component in components {
        let reference = component["bom-ref"].as_str().unwrap_or_default();
        let place = |field: &str| format!("{field} of component {:?} ({reference:?})", component["name"]);
        for field in ["type", "name", "version", "bom-ref"] {
            wants(&place(field), is_text(&component[field]));
        }
        wants(&place("scope"), ["required", "excluded"].contains(&component["scope"].as_str().unwrap_or_default()));
        let licence = &component["licenses"][0]["expression"];
        wants(&place("licenses"), is_text(licence) && !licence.as_str().unwrap_or_default().contains('/'));
        let is_foreign = reference.starts_with("pkg:cargo/");
        let hash = &component["hashes"][0];
        let is_hash = hash["content"].as_str().is_some_and(|hash| hash.len() == 64);
        wants(&place("hashes"), !is_foreign || (hash["alg"] == "SHA-256" && is_hash));
        wants(&place("purl"), !is_foreign || component["purl"] == component["bom-ref"]);
        wants(&place("a bom-ref of its own"), known.insert(reference));
    }
    for dependency in list(&document["dependencies"]) {
        let refers = std::iter::once(&dependency["ref"]).chain(list(&dependency["dependsOn"]));
        for reference in refers {
            let reference = reference.as_str().unwrap_or_default();
            wants(&format!("the component {reference:?} that `dependencies` names"), known.contains(reference));
        }
    }
    problems
}

/// Packages that a build links into its root, and that the document does not list as required; those that it lists so
/// and that are not linked, unless they are part of an embedded plugin; and checksums that are not those of
/// Cargo.lock.
///
/// # Errors
/// The graph is none.
pub fn differences(document: &Value, graph: &str, lock: &str) -> Result<Vec<String>, String> {
    let graph: Graph = serde_json::from_str(graph).map_err(|why| format!("this is no unit graph: {why}"))?;
    let linked = linked(&graph)?;
    let locked = checksums(lock);
    let mut problems = Vec::new();
    let mut listed = BTreeSet::new();
    for component in list(&document["components"]) {
        let text = |field: &str| component[field].as_str().unwrap_or_default().to_owned();
        let id = (text("name"), text("version"));
        if let Some(hash) = component["hashes"][0]["content"].as_str()
            && locked.get(&id).map(String::as_str) != Some(hash)
        {
            problems.push(format!("{} {}: the checksum is not that of Cargo.lock", id.0, id.1));
        }
        if component["scope"] == "required" {
            let part = component["properties"][0]["value"].as_str().unwrap_or_default();
            let is_embedded = part.contains("the embedded plugins");
            if !is_embedded && !linked.contains(&id) {
                problems.push(format!("{} {} is listed, and is not linked", id.0, id.1));
            }
            listed.insert(id);
        }
    }
    let main = &document["metadata"]["component"];
    let root = |(name, version): &&Id| main["name"] == **name && main["version"] == **version;
    let missing = linked.iter().filter(|id| !root(id) && !listed.contains(*id));
    problems.extend(missing.map(|(name, version)| format!("{name} {version} is linked, and is not listed")));
    Ok(problems)
}

/// The packages of the libraries below the roots. What only runs at build time is no part of them.
fn linked(graph: &Graph) -> Result<BTreeSet<Id>, String> {
    let (mut found, mut seen, mut ahead) = (BTreeSet::new(), BTreeSet::new(), graph.roots.clone());
    while let Some(index) = ahead.pop() {
        let unit = graph.units.get(index).ok_or("this is no unit graph: a unit is not in it")?;
        let runs_here = ["proc-macro", "custom-build"].iter().any(|kind| unit.target.kind.iter().any(|of| of == kind));
        if runs_here || unit.mode != "build" || !seen.insert(index) {
            continue;
        }
        found.insert(id_of(&unit.pkg_id)?);
        ahead.extend(unit.dependencies.iter().map(|dependency| dependency.index));
    }
    Ok(found)
}

/// `…#name@version`, or `…/name#version`.
fn id_of(package: &str) -> Result<Id, String> {
    let (place, id) = package.rsplit_once('#').ok_or_else(|| format!("{package} is no package id"))?;
    let (name, version) = id.split_once('@').unwrap_or((place.rsplit('/').next().unwrap_or(place), id));
    Ok((name.to_owned(), version.to_owned()))
}

/// The checksums of Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let mut found = BTreeMap::new();
    let (mut name, mut version) = (String::new(), String::new());
    for line in lock.lines() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches('"').to_owned();
        match key {
            "name" => name = value,
            "version" => version = value,
            "checksum" => drop(found.insert((name.clone(), version.clone()), value)),
            _ => {}
        }
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn component(name: &str, scope: &str, part: &str) -> Value {
        let purl = format!("pkg:cargo/{name}@1.0.0");
        json!({
            "type": "library", "bom-ref": purl, "name": name, "version": "1.0.0", "scope": scope, "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": "0".repeat(64)}],
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
            "properties": [{"name": "rejoin:part-of", "value": part}],
        })
    }

    fn document() -> Value {
        json!({
            "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
            "metadata": {"component": {"type": "application", "bom-ref": "main", "name": "rejoin", "version": "0.1.0"}},
            "components": [
                component("a", "required", "the binary"),
                component("m", "excluded", "the build"),
                component("g", "required", "the embedded plugins"),
            ],
            "dependencies": [{"ref": "main", "dependsOn": ["pkg:cargo/a@1.0.0"]}],
        })
    }

    /// The binary above `a` and the procedural macro `m`.
    fn graph() -> String {
        let unit = |id: &str, kind: &str, below: Value| {
            let target = json!({"kind": [kind]});
            json!({"pkg_id": id, "target": target, "mode": "build", "dependencies": below})
        };
        json!({
            "roots": [0],
            "units": [
                unit("path+file:///x/host/cli#rejoin@0.1.0", "bin", json!([{"index": 1}, {"index": 2}])),
                unit("registry+https://y#a@1.0.0", "lib", json!([])),
                unit("registry+https://y#m@1.0.0", "proc-macro", json!([])),
            ],
        })
        .to_string()
    }

    fn lock() -> String {
        let package = |name| format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nchecksum = \"{:064}\"\n", 0);
        ["a", "m", "g"].map(package).concat()
    }

    #[test]
    fn a_good_document_has_no_problem() {
        assert_eq!(malformed(&document()), [""; 0]);
        assert_eq!(differences(&document(), &graph(), &lock()), Ok(Vec::new()));
    }

    #[test]
    fn what_a_document_lacks_is_named() {
        type Change = fn(&mut Value);
        let broken: [(&str, Change); 6] = [
            ("specVersion", |document| document["specVersion"] = json!("0.9")),
            ("metadata.component", |document| document["metadata"] = json!({})),
            ("licenses of component", |document| document["components"][0]["licenses"] = json!([])),
            ("hashes of component", |document| document["components"][0]["hashes"][0]["content"] = json!("00")),
            ("a bom-ref of its own", |document| document["components"][1]["bom-ref"] = json!("pkg:cargo/a@1.0.0")),
            ("that `dependencies` names", |document| document["dependencies"][0]["ref"] = json!("nobody")),
        ];
        for (words, change) in broken {
            let mut document = document();
            change(&mut document);
            let problems = malformed(&document);
            assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:?}");
        }
    }

    #[test]
    fn packages_that_are_missing_or_too_many_and_other_checksums_are_named() {
        let mut without = document();
        without["components"].as_array_mut().unwrap().remove(0);
        assert_eq!(differences(&without, &graph(), &lock()).unwrap(), ["a 1.0.0 is linked, and is not listed"]);
        let mut more = document();
        more["components"][1]["scope"] = json!("required");
        assert_eq!(differences(&more, &graph(), &lock()).unwrap(), ["m 1.0.0 is listed, and is not linked"]);
        let other = lock().replacen(&"0".repeat(64), &"1".repeat(64), 1);
        let said = differences(&document(), &graph(), &other).unwrap();
        assert_eq!(said, ["a 1.0.0: the checksum is not that of Cargo.lock"]);
    }
}
