//! Which crate may depend on which.
//!
//! The table is the picture of ARCHITECTURE.md: an edge between host crates is allowed where the picture has a path. It
//! holds for normal, build and dev dependencies alike, since a dev edge also drags a crate into every build of the
//! tests.

use crate::workspace::{Crate, Kind, Workspace};

/// The host crates, and every crate of the workspace that each may name.
const HOST: &[(&str, &[&str])] = &[
    ("rejoin-proto", &[]),
    ("rejoin-core", &["rejoin-proto"]),
    ("rejoin-store", &["rejoin-core", "rejoin-proto"]),
    ("rejoin-merge", &["rejoin-proto", "rejoin-laws"]),
    ("rejoin-wire", &["rejoin-proto"]),
    ("rejoin-client", &["rejoin-wire", "rejoin-proto"]),
    ("rejoin-node", &["rejoin-store", "rejoin-core", "rejoin-merge", "rejoin-wire", "rejoin-proto"]),
    ("rejoin", &["rejoin-node", "rejoin-client", "rejoin-merge", "rejoin-store", "rejoin-core", "rejoin-wire", "rejoin-proto"]),
];

/// What a crate must not reach even through others.
const NEVER_REACHED: &[(&str, &[&str])] = &[
    ("rejoin-client", &["rejoin-core", "rejoin-store", "rejoin-merge", "rejoin-node"]),
    ("rejoin-core", &["rejoin-merge", "rejoin-wire", "rejoin-store"]),
    ("rejoin-merge", &["rejoin-core", "rejoin-wire", "rejoin-store"]),
    ("rejoin-wire", &["rejoin-core", "rejoin-merge", "rejoin-store"]),
];

/// Foreign crates that only one room knows. Test crates are free to use them as a second opinion.
const ENGINES: &[(&str, &str)] = &[("wasmtime", "rejoin-merge"), ("wasmparser", "rejoin-merge"), ("lsm-tree", "rejoin-store")];

/// Edges between members that the house does not have.
#[must_use]
pub fn wrong_edges(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for from in &workspace.crates {
        for edge in &from.edges {
            let Some(to) = workspace.find(&edge.to) else { continue };
            if !allowed(from, to, edge.kind) {
                problems.push(format!(
                    "{} -> {} ({:?}) is no edge of the house: move what is shared into a crate that both may name, or argue the edge in \
                     ARCHITECTURE.md and add it to tests/house/src/directions.rs",
                    from.name, to.name, edge.kind
                ));
            }
        }
    }
    problems
}

/// Crates that reach, through whatever path, one that they must never pull in.
#[must_use]
pub fn wrong_reach(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, never) in NEVER_REACHED {
        let reach = workspace.reach(from);
        problems
            .extend(never.iter().filter(|to| reach.contains(*to)).map(|to| format!("{from} reaches {to}, which it must never pull in")));
    }
    problems
}

/// Crates that name a foreign crate which belongs to another room.
#[must_use]
pub fn wrong_engines(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for member in workspace.crates.iter().filter(|member| !member.dir.starts_with("tests/")) {
        for (engine, room) in ENGINES {
            if member.name != *room && member.edges.iter().any(|edge| edge.to == *engine) {
                problems.push(format!("{} depends on {engine}, which only {room} may know", member.name));
            }
        }
    }
    problems
}

/// Members that live in no room of the house, or bear a name the table does not know.
#[must_use]
pub fn homeless(workspace: &Workspace) -> Vec<String> {
    let known = |member: &Crate| match room(member) {
        Room::Host => HOST.iter().any(|(name, _)| *name == member.name),
        Room::Nowhere => false,
        _ => true,
    };
    let strangers = workspace.crates.iter().filter(|member| !known(member));
    strangers
        .map(|member| format!("{} in {} is no crate of the house: see tests/house/src/directions.rs", member.name, member.dir))
        .collect()
}

#[derive(PartialEq, Eq)]
enum Room {
    Host,
    Guest,
    Plugin,
    Test,
    Example,
    Nowhere,
}

fn room(member: &Crate) -> Room {
    match member.dir.split('/').next() {
        Some("host") => Room::Host,
        Some("guest-sdk") => Room::Guest,
        Some("plugins") => Room::Plugin,
        Some("tests") => Room::Test,
        Some("examples") => Room::Example,
        _ => Room::Nowhere,
    }
}

fn allowed(from: &Crate, to: &Crate, kind: Kind) -> bool {
    match room(from) {
        Room::Host => HOST.iter().any(|(name, targets)| *name == from.name && targets.contains(&to.name.as_str())),
        Room::Guest => from.name == "rejoin-guest" && to.name == "rejoin-laws",
        Room::Plugin => room(to) == Room::Guest,
        // These two judge and build everything else, so they must build when nothing else does.
        Room::Test if from.name == "xtask" || from.dir == "tests/house" => false,
        // The hostile modules and the twin of the core are lent to other tests; otherwise a test crate stands alone.
        Room::Test => {
            let is_lent = ["rejoin-test-hostile", "rejoin-test-twin"].contains(&to.name.as_str());
            is_lent || matches!(room(to), Room::Host | Room::Guest | Room::Plugin)
        }
        // What a service team starts from: the client, and the in-memory cluster in its own tests.
        // A service edits its values with the same code that its plugin merges them with.
        Room::Example => to.name == "rejoin-client" || room(to) == Room::Plugin || (to.name == "rejoin-node" && kind == Kind::Dev),
        Room::Nowhere => false,
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

    /// The rooms without edges, and `changed` in place of (or beside) the member of that name.
    fn house_with(changed: Crate) -> Workspace {
        let rooms = [
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
            rooms.iter().filter(|(name, _)| *name != changed.name).map(|(name, dir)| member(name, dir, &[])).collect();
        crates.push(changed);
        Workspace { crates }
    }

    fn refused(name: &str, dir: &str, to: &str, kind: Kind) -> bool {
        !wrong_edges(&house_with(member(name, dir, &[(to, kind)]))).is_empty()
    }

    #[test]
    fn core_merge_and_wire_may_not_see_each_other() {
        let rooms = [("rejoin-core", "host/core"), ("rejoin-merge", "host/merge"), ("rejoin-wire", "host/wire")];
        for (from, dir) in rooms {
            for (to, _) in rooms.iter().filter(|(to, _)| *to != from) {
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
        let bad = house_with(member("rejoin-node", "host/node", &[("wasmtime", Kind::Normal), ("lsm-tree", Kind::Dev)]));
        assert_eq!(wrong_engines(&bad).len(), 2);
        assert!(wrong_engines(&house_with(member("rejoin-merge", "host/merge", &[("wasmtime", Kind::Normal)]))).is_empty());
    }

    #[test]
    fn a_crate_in_no_room_or_under_an_unknown_name_is_found() {
        assert_eq!(homeless(&house_with(member("rejoin-utils", "host/utils", &[]))).len(), 1);
        assert_eq!(homeless(&house_with(member("tool", "tools/tool", &[]))).len(), 1);
        assert!(homeless(&house_with(member("rejoin-test-sim", "tests/sim", &[]))).is_empty());
    }
}
