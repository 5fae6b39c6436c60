//! Which crate may depend on which.
//!
//! The table is the picture of ARCHITECTURE.md: an edge between host crates is allowed where the picture has a path. It
//! holds for normal, build and dev dependencies alike, since a dev edge also drags a crate into every build of the
//! tests.

use crate::workspace::{Crate, Kind, Workspace};

/// The host crates, and the members that each may depend on.
const HOST: &[(&str, &[&str])] = &[
    ("rejoin-proto", &[]),
    ("rejoin-core", &["rejoin-proto"]),
    ("rejoin-store", &["rejoin-core", "rejoin-proto"]),
    ("rejoin-merge", &["rejoin-proto", "rejoin-laws"]),
    ("rejoin-wire", &["rejoin-proto"]),
    ("rejoin-client", &["rejoin-wire", "rejoin-proto"]),
    ("rejoin-node", &["rejoin-store", "rejoin-core", "rejoin-merge", "rejoin-wire", "rejoin-proto"]),
    (
        "rejoin",
        &["rejoin-node", "rejoin-client", "rejoin-merge", "rejoin-store", "rejoin-core", "rejoin-wire", "rejoin-proto"],
    ),
];

/// Members that a crate must not depend on, not even indirectly.
const NEVER_REACHED: &[(&str, &[&str])] = &[
    ("rejoin-client", &["rejoin-core", "rejoin-store", "rejoin-merge", "rejoin-node"]),
    ("rejoin-core", &["rejoin-merge", "rejoin-wire", "rejoin-store"]),
    ("rejoin-merge", &["rejoin-core", "rejoin-wire", "rejoin-store"]),
    ("rejoin-wire", &["rejoin-core", "rejoin-merge", "rejoin-store"]),
];

/// Foreign crates that only one member may depend on. Test crates may, to compare results.
const ENGINES: &[(&str, &str)] =
    &[("wasmtime", "rejoin-merge"), ("wasmparser", "rejoin-merge"), ("lsm-tree", "rejoin-store")];

/// Dependencies between members that the table does not allow.
#[must_use]
pub fn wrong_edges(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for from in &workspace.crates {
        for edge in &from.edges {
            let Some(to) = workspace.find(&edge.to) else { continue };
            if !allowed(from, to, edge.kind) {
                problems.push(format!(
                    "{} -> {} ({:?}) is not allowed: move the shared code into a crate that both may depend on, or \
                        argue for the edge in \
                     ARCHITECTURE.md and add it to tests/house/src/directions.rs",
                    from.name, to.name, edge.kind
                ));
            }
        }
    }
    problems
}

/// Crates that depend, directly or not, on one of `NEVER_REACHED`.
#[must_use]
pub fn wrong_reach(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, never) in NEVER_REACHED {
        let reach = workspace.reach(from);
        problems.extend(
            never
                .iter()
                .filter(|to| reach.contains(*to))
                .map(|to| format!("{from} reaches {to}, which it must never pull in")),
        );
    }
    problems
}

/// Members that depend on a foreign crate of `ENGINES` that belongs to another member.
#[must_use]
pub fn wrong_engines(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for member in workspace.crates.iter().filter(|member| !member.dir.starts_with("tests/")) {
        for (engine, owner) in ENGINES {
            if member.name != *owner && member.edges.iter().any(|edge| edge.to == *engine) {
                problems.push(format!("{} depends on {engine}, which only {owner} may do", member.name));
            }
        }
    }
    problems
}

/// Members outside the known folders, and host crates that `HOST` does not list.
#[must_use]
pub fn unknown_crates(workspace: &Workspace) -> Vec<String> {
    let known = |member: &Crate| match folder(member) {
        Folder::Host => HOST.iter().any(|(name, _)| *name == member.name),
        Folder::Unknown => false,
        _ => true,
    };
    let strangers = workspace.crates.iter().filter(|member| !known(member));
    strangers
        .map(|member| {
            format!(
                "{} in {} is not in the table of crates: see tests/house/src/directions.rs",
                member.name, member.dir
            )
        })
        .collect()
}

#[derive(PartialEq, Eq)]
enum Folder {
    Host,
    Guest,
    Plugin,
    Test,
    Example,
    Unknown,
}

fn folder(member: &Crate) -> Folder {
    match member.dir.split('/').next() {
        Some("host") => Folder::Host,
        Some("guest-sdk") => Folder::Guest,
        Some("plugins") => Folder::Plugin,
        Some("tests") => Folder::Test,
        Some("examples") => Folder::Example,
        _ => Folder::Unknown,
    }
}

fn allowed(from: &Crate, to: &Crate, kind: Kind) -> bool {
    match folder(from) {
        Folder::Host => HOST.iter().any(|(name, targets)| *name == from.name && targets.contains(&to.name.as_str())),
        Folder::Guest => from.name == "rejoin-guest" && to.name == "rejoin-laws",
        Folder::Plugin => folder(to) == Folder::Guest,
        // These two build and check everything else, so they must build when nothing else does.
        Folder::Test if from.name == "xtask" || from.dir == "tests/house" => false,
        // Other tests use the hostile modules and the twin of the core. The storm runs processes as tests/cluster does,
        // and the checkers of the simulator judge it. No test crate depends on any other one.
        Folder::Test => {
            let is_shared = ["rejoin-test-hostile", "rejoin-test-twin"].contains(&to.name.as_str());
            let of_storm = ["rejoin-test-cluster", "rejoin-test-sim"].contains(&to.name.as_str());
            is_shared
                || (from.dir == "tests/storm" && of_storm)
                || matches!(folder(to), Folder::Host | Folder::Guest | Folder::Plugin)
        }
        // What a service team starts from: the client, and the in-memory cluster in its own tests.
        // A service edits its values with the same code that its plugin merges them with.
        Folder::Example => {
            to.name == "rejoin-client"
                || folder(to) == Folder::Plugin
                || (to.name == "rejoin-node" && kind == Kind::Dev)
        }
        Folder::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Edge;

    fn member(name: &str, dir: &str, edges: &[(&str, Kind)]) -> Crate {
        let edges = edges.iter().map(|(to, kind)| Edge { to: (*to).to_owned(), kind: *kind }).collect();
        Crate { name: name.to_owned(), dir: dir.to_owned(), roots: Vec::new(), edges }
    }

    /// The host crates without edges, and `changed` in place of (or beside) the member of that name.
    fn house_with(changed: Crate) -> Workspace {
        let crates = [
            ("rejoin-proto", "host/proto"),
            ("rejoin-core", "host/core"),
            ("rejoin-store", "host/store"),
            ("rejoin-merge", "host/merge"),
            ("rejoin-wire", "host/wire"),
            ("rejoin-client", "host/client"),
            ("rejoin-node", "host/node"),
            ("rejoin", "host/cli"),
            ("rejoin-guest", "guest-sdk"),
            ("rejoin-laws", "guest-sdk/laws"),
            ("rejoin-plugin-cart", "plugins/cart"),
            ("rejoin-test-cluster", "tests/cluster"),
        ];
        let mut crates: Vec<Crate> =
            crates.iter().filter(|(name, _)| *name != changed.name).map(|(name, dir)| member(name, dir, &[])).collect();
        crates.push(changed);
        Workspace { crates }
    }

    fn refused(name: &str, dir: &str, to: &str, kind: Kind) -> bool {
        !wrong_edges(&house_with(member(name, dir, &[(to, kind)]))).is_empty()
    }

    #[test]
    fn core_merge_and_wire_may_not_see_each_other() {
        let crates = [("rejoin-core", "host/core"), ("rejoin-merge", "host/merge"), ("rejoin-wire", "host/wire")];
        for (from, dir) in crates {
            for (to, _) in crates.iter().filter(|(to, _)| *to != from) {
                for kind in [Kind::Normal, Kind::Dev, Kind::Build] {
                    assert!(refused(from, dir, to, kind), "{from} -> {to} as {kind:?} was let through");
                }
            }
        }
    }

    #[test]
    fn edges_of_the_picture_pass_and_edges_against_it_do_not() {
        assert!(!refused("rejoin-store", "host/store", "rejoin-core", Kind::Normal));
        assert!(!refused("rejoin", "host/cli", "rejoin-merge", Kind::Normal));
        assert!(!refused("rejoin-merge", "host/merge", "rejoin-laws", Kind::Normal));
        assert!(refused("rejoin-proto", "host/proto", "rejoin-core", Kind::Dev));
        assert!(refused("rejoin-core", "host/core", "rejoin-store", Kind::Normal));
        assert!(refused("rejoin-core", "host/core", "rejoin-plugin-cart", Kind::Dev));
    }

    #[test]
    fn guests_and_plugins_may_not_name_a_host_crate() {
        for kind in [Kind::Normal, Kind::Dev, Kind::Build] {
            assert!(refused("rejoin-guest", "guest-sdk", "rejoin-proto", kind));
            assert!(refused("rejoin-laws", "guest-sdk/laws", "rejoin-guest", kind));
            assert!(refused("rejoin-plugin-cart", "plugins/cart", "rejoin-proto", kind));
            assert!(!refused("rejoin-plugin-cart", "plugins/cart", "rejoin-guest", kind));
        }
    }

    #[test]
    fn tests_depend_on_the_house_but_nothing_depends_on_tests() {
        assert!(!refused("rejoin-test-laws", "tests/laws", "rejoin-plugin-cart", Kind::Normal));
        assert!(refused("rejoin-test-laws", "tests/laws", "rejoin-test-cluster", Kind::Normal));
        assert!(!refused("rejoin-test-storm", "tests/storm", "rejoin-test-cluster", Kind::Normal));
        assert!(!refused("rejoin-test-cluster", "tests/cluster", "rejoin-test-hostile", Kind::Normal));
        assert!(refused("rejoin-node", "host/node", "rejoin-test-cluster", Kind::Dev));
        assert!(refused("xtask", "tests/xtask", "rejoin-proto", Kind::Normal));
        assert!(refused("rejoin-test-house", "tests/house", "rejoin-proto", Kind::Dev));
    }

    #[test]
    fn an_example_sees_the_client_and_in_its_tests_the_node() {
        assert!(!refused("shop", "examples/shop", "rejoin-client", Kind::Normal));
        assert!(!refused("shop", "examples/shop", "rejoin-node", Kind::Dev));
        assert!(refused("shop", "examples/shop", "rejoin-node", Kind::Normal));
        assert!(refused("shop", "examples/shop", "rejoin-core", Kind::Dev));
    }

    #[test]
    fn a_client_that_reaches_the_core_through_another_crate_is_found() {
        let mut workspace = house_with(member("rejoin-wire", "host/wire", &[("rejoin-core", Kind::Normal)]));
        assert_eq!(wrong_reach(&workspace), ["rejoin-wire reaches rejoin-core, which it must never pull in"]);
        workspace.crates.retain(|member| member.name != "rejoin-client");
        workspace.crates.push(member("rejoin-client", "host/client", &[("rejoin-wire", Kind::Normal)]));
        assert!(wrong_reach(&workspace).iter().any(|problem| problem.starts_with("rejoin-client reaches rejoin-core")));
    }

    #[test]
    fn wasmtime_outside_merge_and_lsm_tree_outside_store_are_found() {
        let bad =
            house_with(member("rejoin-node", "host/node", &[("wasmtime", Kind::Normal), ("lsm-tree", Kind::Dev)]));
        assert_eq!(wrong_engines(&bad).len(), 2);
        assert!(
            wrong_engines(&house_with(member("rejoin-merge", "host/merge", &[("wasmtime", Kind::Normal)]))).is_empty()
        );
    }

    #[test]
    fn a_crate_in_an_unknown_folder_or_under_an_unknown_name_is_found() {
        assert_eq!(unknown_crates(&house_with(member("rejoin-utils", "host/utils", &[]))).len(), 1);
        assert_eq!(unknown_crates(&house_with(member("tool", "tools/tool", &[]))).len(), 1);
        assert!(unknown_crates(&house_with(member("rejoin-test-sim", "tests/sim", &[]))).is_empty());
    }
}
