//! What one cargo command would build, compared with another: `cargo xtask test` must use everything that the demo has
//! built.
//!
//! Cargo resolves features for the packages and targets that a command selects. A command that selects less can give a
//! dependency fewer features, and everything above it is then built twice. Cargo's unit graph says what would be built.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::Value;

/// What a command would build: `cargo build --unit-graph`.
#[derive(Deserialize)]
struct Graph {
    units: Vec<Unit>,
}

#[derive(Deserialize)]
struct Unit {
    pkg_id: String,
    target: Target,
    profile: BTreeMap<String, Value>,
    platform: Option<String>,
    mode: String,
    features: Vec<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    index: usize,
    extern_crate_name: String,
}

/// The packages that `first` would build and `second` could not use, since the same unit is not in it: with the same
/// features and profile, above the same dependencies. Both are unit graphs in JSON.
///
/// # Errors
/// When one is no unit graph.
pub fn built_twice(first: &str, second: &str) -> Result<BTreeSet<String>, String> {
    let (first, second) = (read(first)?, read(second)?);
    let usable: BTreeSet<u64> = identities(&second).into_iter().collect();
    let wasted = first.units.iter().zip(identities(&first)).filter(|(_, identity)| !usable.contains(identity));
    Ok(wasted.map(|(unit, _)| unit.pkg_id.rsplit('/').next().unwrap_or_default().to_owned()).collect())
}

fn read(json: &str) -> Result<Graph, String> {
    let graph: Graph = serde_json::from_str(json).map_err(|why| format!("this is no unit graph: {why}"))?;
    let bound = graph.units.len();
    if graph.units.iter().flat_map(|unit| &unit.dependencies).any(|dependency| dependency.index >= bound) {
        return Err("this is no unit graph: a dependency is not in it".to_owned());
    }
    Ok(graph)
}

/// For each unit a number that is the same for units that cargo would take for the same.
fn identities(graph: &Graph) -> Vec<u64> {
    let mut known = vec![None; graph.units.len()];
    (0..graph.units.len()).map(|unit| identity(graph, unit, &mut known)).collect()
}

fn identity(graph: &Graph, index: usize, known: &mut [Option<u64>]) -> u64 {
    if let Some(identity) = known[index] {
        return identity;
    }
    let unit = &graph.units[index];
    let mut hasher = DefaultHasher::new();
    (&unit.pkg_id, &unit.target.name, &unit.target.kind).hash(&mut hasher);
    (&unit.mode, &unit.platform, &unit.features).hash(&mut hasher);
    // `cargo test` calls the same profile by another name.
    let settings = unit.profile.iter().filter(|(key, _)| *key != "name");
    settings.for_each(|(key, value)| (key, value.to_string()).hash(&mut hasher));
    let mut below: Vec<(u64, &str)> = Vec::new();
    for dependency in &unit.dependencies {
        below.push((identity(graph, dependency.index, known), &dependency.extern_crate_name));
    }
    below.sort_unstable();
    below.hash(&mut hasher);
    let identity = hasher.finish();
    known[index] = Some(identity);
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of `a` above `b`, where `b` has these features and this optimisation.
    fn graph(profile: &str, features: &str, opt: &str) -> String {
        format!(
            r#"{{"units": [
                {{"pkg_id": "registry+x/a@1.0.0", "target": {{"name": "a", "kind": ["lib"]}}, "profile": {{"name": "{profile}"}},
                  "platform": null, "mode": "build", "features": [], "dependencies": [{{"index": 1, "extern_crate_name": "b"}}]}},
                {{"pkg_id": "registry+x/b@2.0.0", "target": {{"name": "b", "kind": ["lib"]}},
                  "profile": {{"name": "{profile}", "opt_level": "{opt}"}},
                  "platform": null, "mode": "build", "features": [{features}], "dependencies": []}}
            ]}}"#
        )
    }

    #[test]
    fn the_same_build_is_used_whatever_its_profile_is_called() {
        let (first, second) = (graph("dev", "", "2"), graph("test", "", "2"));
        assert_eq!(built_twice(&first, &second), Ok(BTreeSet::new()));
    }

    #[test]
    fn another_feature_or_setting_wastes_a_package_and_all_above_it() {
        for second in [graph("dev", r#""std""#, "2"), graph("dev", "", "1")] {
            let wasted = built_twice(&graph("dev", "", "2"), &second).unwrap();
            assert_eq!(wasted.into_iter().collect::<Vec<_>>(), ["a@1.0.0", "b@2.0.0"]);
        }
    }

    #[test]
    fn what_is_no_unit_graph_is_refused() {
        let dangling = graph("dev", "", "2").replace("\"index\": 1", "\"index\": 7");
        for bad in ["", "{}", &dangling] {
            assert!(built_twice(bad, &graph("dev", "", "2")).unwrap_err().contains("no unit graph"), "{bad}");
        }
    }
}
