//! Rules for every crate and for the top level of the repository.

use crate::files::{File, Tree};
use crate::workspace::{Crate, Workspace};

/// The folders at the top level.
const TOP: &[&str] = &[".cargo", ".ci", ".github", "examples", "guest-sdk", "host", "plugins", "tests"];

/// Crates (or folders of crates, with a closing `/`) that may hold unsafe code in a file that says why: loading
/// compiled plugins, the files under the store, and the exports that wit-bindgen writes into guests. Everywhere else it
/// is forbidden.
const MAY_BE_UNSAFE: &[&str] = &["host/merge", "host/store", "guest-sdk", "plugins/"];

/// The crates without the standard library.
const NO_STD: &[&str] = &["host/proto", "host/core"];

/// Folders at the top level that are not in `TOP`.
#[must_use]
pub fn unknown_folders(tree: &Tree) -> Vec<String> {
    let unknown = tree.top.iter().filter(|name| !TOP.contains(&name.as_str()));
    unknown.map(|name| format!("{name}/ is not one of the folders of the top level: {}", TOP.join(", "))).collect()
}

/// Crate roots that do not forbid unsafe code, outside `MAY_BE_UNSAFE`.
#[must_use]
pub fn unsafe_not_forbidden(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let may_be_unsafe = |dir: &str| {
        MAY_BE_UNSAFE.iter().any(|allowed| dir == *allowed || (allowed.ends_with('/') && dir.starts_with(allowed)))
    };
    let forbids = |file: &File| file.code.contains("#![forbid(unsafe_code)]");
    let strict = workspace.crates.iter().filter(|member| !may_be_unsafe(&member.dir));
    roots_without(strict, tree, forbids, "must begin with #![forbid(unsafe_code)]")
}

/// Roots of the pure crates that are not `#![no_std]`, or that bring the standard library back outside tests.
#[must_use]
pub fn standard_library(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let no_std = workspace.crates.iter().filter(|member| NO_STD.contains(&member.dir.as_str()));
    let bare = |file: &File| file.code.contains("#![no_std]") && !file.product.contains("extern crate std");
    roots_without(no_std, tree, bare, "must be #![no_std], without `extern crate std` outside tests")
}

/// Members without an entry under `[profile.dev.package]`. They would be compiled like a dependency, without line
/// numbers in backtraces.
#[must_use]
pub fn without_profile(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let manifest = tree.find("Cargo.toml").map_or("", |file| file.text.as_str());
    let section = manifest.split_once("\n[profile.dev.package]\n").map_or("", |(_, rest)| rest);
    let section = section.split("\n[").next().unwrap_or_default();
    let named =
        |member: &&Crate| section.lines().any(|line| line.starts_with(&format!("{} = {{ opt-level", member.name)));
    let missing = workspace.crates.iter().filter(|member| !named(member));
    missing.map(|member| format!("{} is missing under [profile.dev.package] of Cargo.toml", member.name)).collect()
}

/// Crate roots that do not begin with documentation of the crate.
#[must_use]
pub fn undocumented(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let documented = |file: &File| file.text.trim_start().starts_with("//! ");
    roots_without(
        workspace.crates.iter(),
        tree,
        documented,
        "must begin with crate documentation (//!): what it is and what it is not",
    )
}

/// Crates whose manifest does not take the lints of the workspace.
#[must_use]
pub fn without_lints(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let takes_them = |text: &str| {
        let mut lines = text.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
        lines.find(|line| !line.is_empty() && !line.starts_with('#')) == Some("workspace = true")
    };
    let lax = |member: &&Crate| {
        let manifest = tree.find(&format!("{}/Cargo.toml", member.dir));
        !manifest.is_some_and(|file| takes_them(&file.text))
    };
    let lax = workspace.crates.iter().filter(lax);
    lax.map(|member| format!("{}/Cargo.toml must say [lints] workspace = true", member.dir)).collect()
}

/// Crates without a line of code.
#[must_use]
pub fn empty_crates(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let is_code = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("#![") && line != "extern crate alloc;" && line != "fn main() {}"
    };
    let empty = |member: &&Crate| {
        let folder = format!("{}/", member.dir);
        let nested = |file: &&File| {
            workspace.crates.iter().any(|other| other.dir.starts_with(&folder) && inside(file, &other.dir))
        };
        let own = tree.rust().filter(|file| inside(file, &member.dir)).filter(|file| !nested(file));
        !own.flat_map(|file| file.code.lines()).any(is_code)
    };
    let empty = workspace.crates.iter().filter(empty);
    empty.map(|member| format!("{} is an empty crate: add a crate in the change that fills it", member.dir)).collect()
}

fn inside(file: &File, dir: &str) -> bool {
    file.path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn roots_without<'a>(
    crates: impl Iterator<Item = &'a Crate>,
    tree: &Tree,
    holds: impl Fn(&File) -> bool,
    must: &str,
) -> Vec<String> {
    let mut problems = Vec::new();
    for root in crates.flat_map(|member| &member.roots) {
        if !tree.find(root).is_some_and(&holds) {
            problems.push(format!("{root} {must}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dir: &str, files: &[(&str, &str)]) -> (Workspace, Tree) {
        let member = Crate {
            name: "a".to_owned(),
            dir: dir.to_owned(),
            roots: vec![format!("{dir}/src/lib.rs")],
            edges: Vec::new(),
        };
        let files = files.iter().map(|(path, text)| File::new(&format!("{dir}/{path}"), text)).collect();
        (Workspace { crates: vec![member] }, Tree::new(files, Vec::new()))
    }

    #[test]
    fn a_crate_without_an_optimisation_is_found() {
        let (workspace, _) = one("host/a", &[]);
        let find = |profile: &str| {
            let manifest = format!(
                "[workspace]\n\n[profile.dev.package]\n{profile}\n[profile.release]\na = {{ opt-level = 3 }}\n"
            );
            without_profile(&workspace, &Tree::new(vec![File::new("Cargo.toml", &manifest)], Vec::new()))
        };
        assert_eq!(find("a = { opt-level = 1 }\n"), [""; 0]);
        assert_eq!((find("ab = { opt-level = 1 }\n").len(), find("").len()), (1, 1));
    }

    #[test]
    fn a_new_folder_at_the_top_is_found() {
        let tree = Tree::new(Vec::new(), vec!["host".to_owned(), "tools".to_owned()]);
        assert_eq!(unknown_folders(&tree).len(), 1);
    }

    #[test]
    fn a_root_that_does_not_forbid_unsafe_is_found_unless_its_crate_is_excused() {
        let (workspace, tree) = one("host/node", &[("src/lib.rs", "//! x\n// #![forbid(unsafe_code)]\n")]);
        assert_eq!(unsafe_not_forbidden(&workspace, &tree).len(), 1);
        let (workspace, tree) = one("host/node", &[("src/lib.rs", "//! x\n#![forbid(unsafe_code)]\n")]);
        assert!(unsafe_not_forbidden(&workspace, &tree).is_empty());
        for (dir, excused) in
            [("host/merge", true), ("plugins/cart", true), ("guest-sdk", true), ("guest-sdk/laws", false)]
        {
            let (workspace, tree) = one(dir, &[("src/lib.rs", "//! x\n")]);
            assert_eq!(unsafe_not_forbidden(&workspace, &tree).is_empty(), excused, "{dir}");
        }
    }

    #[test]
    fn a_core_with_the_standard_library_is_found() {
        for text in ["//! x\nuse core::fmt;", "#![no_std]\nextern crate std;"] {
            let (workspace, tree) = one("host/core", &[("src/lib.rs", text)]);
            assert_eq!(standard_library(&workspace, &tree).len(), 1, "{text}");
        }
        let (workspace, tree) = one("host/core", &[("src/lib.rs", "#![no_std]\n#[cfg(test)]\nextern crate std;\n")]);
        assert!(standard_library(&workspace, &tree).is_empty());
    }

    #[test]
    fn a_root_without_documentation_is_found() {
        let (workspace, tree) = one("host/node", &[("src/lib.rs", "// not a doc comment\nmod a;")]);
        assert_eq!(undocumented(&workspace, &tree).len(), 1);
        let (workspace, tree) = one("host/node", &[("src/lib.rs", "//! The node.\nmod a;")]);
        assert!(undocumented(&workspace, &tree).is_empty());
    }

    #[test]
    fn a_manifest_without_the_lints_of_the_workspace_is_found() {
        for text in ["[package]\n", "[lints.rust]\nworkspace = true\n", "[lints]\n[dependencies]\nworkspace = true"] {
            let (workspace, tree) = one("host/node", &[("Cargo.toml", text)]);
            assert_eq!(without_lints(&workspace, &tree).len(), 1, "{text}");
        }
        let (workspace, tree) = one("host/node", &[("Cargo.toml", "[lints]\nworkspace = true\n")]);
        assert!(without_lints(&workspace, &tree).is_empty());
    }

    #[test]
    fn an_empty_crate_is_found_even_beside_a_nested_one() {
        let (workspace, tree) = one("host/sim", &[("src/lib.rs", "//! Soon.\n#![no_std]\n")]);
        assert_eq!(empty_crates(&workspace, &tree).len(), 1);
        let (mut workspace, tree) = one("guest", &[("src/lib.rs", "//! x\n"), ("laws/src/lib.rs", "fn f() {}")]);
        workspace.crates.push(Crate {
            name: "b".to_owned(),
            dir: "guest/laws".to_owned(),
            roots: Vec::new(),
            edges: Vec::new(),
        });
        assert_eq!(
            empty_crates(&workspace, &tree),
            ["guest is an empty crate: add a crate in the change that fills it"]
        );
        let (workspace, tree) = one("tests/laws", &[("src/lib.rs", "//! x\n"), ("tests/a.rs", "fn f() {}")]);
        assert!(empty_crates(&workspace, &tree).is_empty());
    }
}
