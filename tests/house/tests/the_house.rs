//! The rules of the house, over the real tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use rejoin_test_house::files::Tree;
use rejoin_test_house::workspace::Workspace;
use rejoin_test_house::{builds, crates, directions, documents, layout, rules, sbom};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tree() -> Tree {
    let tree = Tree::read(&root()).expect("the tree can be read");
    assert!(tree.rust().count() > 20, "the tree was not found: only {} Rust files", tree.rust().count());
    tree
}

fn workspace() -> Workspace {
    let workspace = Workspace::read(&root()).expect("cargo describes the workspace");
    assert!(
        workspace.find("rejoin-core").is_some() && workspace.crates.len() > 10,
        "the workspace was not found: {workspace:?}"
    );
    workspace
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problem(s):\n  {}", problems.len(), problems.join("\n  "));
}

#[test]
fn every_edge_between_crates_is_allowed() {
    none(&directions::wrong_edges(&workspace()));
}

#[test]
fn no_crate_depends_indirectly_on_a_forbidden_one() {
    none(&directions::wrong_reach(&workspace()));
}

#[test]
fn only_merge_knows_wasmtime_and_only_the_store_knows_lsm_tree() {
    none(&directions::wrong_engines(&workspace()));
}

#[test]
fn every_crate_is_in_the_table_of_crates() {
    none(&directions::unknown_crates(&workspace()));
}

#[test]
fn the_top_level_has_only_its_own_folders() {
    none(&crates::unknown_folders(&tree()));
}

#[test]
fn no_crate_is_empty() {
    none(&crates::empty_crates(&workspace(), &tree()));
}

#[test]
fn every_crate_begins_with_its_documentation() {
    none(&crates::undocumented(&workspace(), &tree()));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    none(&crates::without_lints(&workspace(), &tree()));
}

#[test]
fn proto_and_core_do_without_the_standard_library() {
    none(&crates::standard_library(&workspace(), &tree()));
}

#[test]
fn unsafe_code_is_forbidden_in_all_but_a_few_crates() {
    none(&crates::unsafe_not_forbidden(&workspace(), &tree()));
}

#[test]
fn a_file_with_unsafe_code_says_why() {
    none(&rules::unexplained_unsafe(&tree()));
}

#[test]
fn nothing_is_left_unfinished() {
    none(&rules::unfinished(&tree()));
}

#[test]
fn the_core_has_no_hash_order() {
    none(&rules::hash_order(&tree()));
}

#[test]
fn the_core_has_no_clock_and_no_operating_system() {
    none(&rules::outside_world(&tree()));
}

#[test]
fn the_host_unwraps_only_in_tests() {
    none(&rules::unwraps(&tree()));
}

#[test]
fn the_product_contains_no_mutants() {
    none(&rules::mutants(&tree()));
}

#[test]
fn files_stay_short_enough_to_read() {
    none(&rules::long_files(&tree()));
}

#[test]
fn plugins_stay_within_their_lines() {
    none(&rules::long_plugins(&tree()));
}

#[test]
fn documents_lead_to_files_headings_and_functions_that_are_there() {
    none(&documents::broken_links(&tree()));
}

#[test]
fn documents_name_files_that_are_there() {
    none(&documents::missing_files(&tree()));
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The unit graph is an unstable output of cargo. Nothing is compiled with this variable.
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root()).env("RUSTC_BOOTSTRAP", "1");
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The unit graph of the first `cargo build --workspace` that a verb of xtask runs.
fn unit_graph(verb: &str) -> String {
    let plan = cargo(&["run", "--quiet", "--offline", "--package", "xtask", "--", verb, "--dry-run"]);
    let build = plan.lines().find(|line| line.starts_with("cargo build --workspace")).expect("a build");
    let mut arguments: Vec<&str> = build.split(' ').skip(1).collect();
    arguments.extend(["--offline", "--unit-graph", "-Z", "unstable-options"]);
    cargo(&arguments)
}

#[test]
fn the_tests_use_everything_that_the_demo_has_built() {
    let wasted = builds::built_twice(&unit_graph("demo"), &unit_graph("test")).expect("unit graphs");
    assert!(
        wasted.is_empty(),
        "`cargo xtask test` would build again, with other features, what the demo had built: {wasted:?}"
    );
}

#[test]
fn the_bill_of_materials_lists_what_is_linked_into_the_binary_and_nothing_else() {
    let xtask = ["run", "--quiet", "--offline", "--package", "xtask", "--", "sbom"];
    let text = cargo(&xtask);
    let document = serde_json::from_str(&text).expect("JSON");
    none(&sbom::malformed(&document));
    let build = ["build", "--release", "--locked", "--offline", "-p", "rejoin", "--bin", "rejoin"];
    let graph = cargo(&[&build[..], &["--unit-graph", "-Z", "unstable-options"]].concat());
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    none(&sbom::differences(&document, &graph, &lock).expect("a unit graph"));
    assert!(text.matches("\"required\"").count() > 200, "{text}");
    assert_eq!(text, cargo(&xtask), "the same sources give the same document");
}

#[test]
fn comments_have_at_most_120_columns() {
    none(&layout::wide_comments(&tree()));
}

#[test]
fn imports_have_one_order() {
    none(&layout::unordered_imports(&tree()));
}

#[test]
fn the_readme_stays_short() {
    none(&documents::long_readme(&tree()));
}

#[test]
fn the_workflow_runs_the_steps_of_the_repository() {
    let tree = tree();
    let workflow = tree.find(".github/workflows/ci.yml").expect("the workflow of CI");
    assert!(workflow.text.contains("run: .ci/run"), "CI must run .ci/run, so that its steps can be run anywhere");
}

#[test]
fn the_table_of_limits_names_what_the_code_has() {
    none(&documents::unknown_limits(&tree()));
}

#[test]
fn every_crate_has_its_optimisation_in_the_profile() {
    none(&crates::without_profile(&workspace(), &tree()));
}
