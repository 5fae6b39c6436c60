//! What a file may say: each rule takes the tree and returns its problems as `path:line: what, and what to do`.

use crate::code::{has_word, lines_where};
use crate::files::{File, Tree};

/// The longest file, in lines. The usual one has 100 to 300.
pub const FILE_LINES: usize = 800;

/// The longest plugin, in lines of code: blank lines, comments and tests do not count.
pub const PLUGIN_LINES: usize = 150;

/// The folders of the crates that decide: no clock, no hash order, no operating system.
const PURE: &[&str] = &["host/core/src/", "host/proto/src/"];

/// Unfinished work: notes to self, stubs, tests that are switched off and examples that are not compiled.
#[must_use]
pub fn unfinished(tree: &Tree) -> Vec<String> {
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let switched_off = concat!("#[ig", "nore");
    let not_compiled = |line: &str| {
        line.split_once(concat!("`", "``"))
            .is_some_and(|(_, language)| language.split(',').any(|word| word.trim() == "ignore"))
    };
    let mut problems = Vec::new();
    for file in &tree.files {
        let said = |line: &str| notes.iter().any(|note| has_word(line, note));
        report(
            &mut problems,
            file,
            &file.text,
            said,
            "unfinished work is an issue, not a note in a file: do it or open one",
        );
        let stub = |line: &str| has_word(line, "todo!") || has_word(line, "unimplemented!") || line.contains("todo!(");
        report(&mut problems, file, &file.code, stub, "a stub: build the part or leave it out");
        report(
            &mut problems,
            file,
            &file.code,
            |line| line.contains(switched_off),
            "a test that is switched off proves nothing",
        );
        if file.is_rust() {
            report(
                &mut problems,
                file,
                &file.text,
                not_compiled,
                "an example that is not compiled: use no_run, or text if it is no Rust",
            );
        }
    }
    problems
}

/// Types in the pure crates whose iteration order differs from run to run.
#[must_use]
pub fn hash_order(tree: &Tree) -> Vec<String> {
    let hashed = |line: &str| ["HashMap", "HashSet", "RandomState"].iter().any(|word| has_word(line, word));
    pure(tree, hashed, "hash order differs from run to run: use BTreeMap or BTreeSet")
}

/// Clocks, threads and files in the pure crates.
#[must_use]
pub fn outside_world(tree: &Tree) -> Vec<String> {
    let names = ["SystemTime", "Instant"];
    let paths = ["std::time", "std::fs", "std::net", "std::thread", "std::env", "std::io", "std::process"];
    let reaches =
        |line: &str| names.iter().any(|name| has_word(line, name)) || paths.iter().any(|path| line.contains(path));
    pure(tree, reaches, "time, files, threads and the network are arguments, events and ports here")
}

/// `.unwrap()` in the product code of the host.
#[must_use]
pub fn unwraps(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| file.path.starts_with("host/") && file.path.contains("/src/")) {
        let why = "unwrap says nothing when it stops a node: return an error, or expect with the invariant that would \
            be broken";
        report(&mut problems, file, &file.product, |line| line.contains(".unwrap()"), why);
    }
    problems
}

/// Product code that asks whether a rule is broken: mutants are spliced into a copy of the core, and stay under
/// `tests/`.
#[must_use]
pub fn mutants(tree: &Tree) -> Vec<String> {
    let asks = |line: &str| line.contains("broken!(") || line.contains("rejoin_test_twin");
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| !file.path.starts_with("tests/")) {
        report(&mut problems, file, &file.code, asks, "the product has no code for breaking itself: see tests/twin");
    }
    problems
}

/// Files that use `unsafe` without a comment that says why.
#[must_use]
pub fn unexplained_unsafe(tree: &Tree) -> Vec<String> {
    let explains =
        |file: &File| file.text.lines().any(|line| line.trim_start().starts_with("//") && has_word(line, "unsafe"));
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| !explains(file)) {
        let why = "a file with unsafe code says in a comment (with the word unsafe) why it needs it";
        report(&mut problems, file, &file.code, |line| has_word(line, "unsafe"), why);
    }
    problems
}

/// Files that are too long to be read in one sitting.
#[must_use]
pub fn long_files(tree: &Tree) -> Vec<String> {
    let long = tree.rust().map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > FILE_LINES);
    long.map(|(file, lines)| {
        format!("{}: {lines} lines, at most {FILE_LINES}: split it by what its parts know", file.path)
    })
    .collect()
}

/// Plugins that are longer than what they are meant to show.
#[must_use]
pub fn long_plugins(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.starts_with("plugins/")) {
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let lines = match file.path.rsplit_once('/') {
            Some((_, "cart.c" | "abilities.c" | "cart.js")) if !file.path.contains("/generated/") => {
                file.text.lines().filter(is_code).count()
            }
            Some((folder, "lib.rs")) if folder.ends_with("/src") => file.product.lines().filter(is_code).count(),
            _ => 0,
        };
        if lines > PLUGIN_LINES {
            problems.push(format!(
                "{}: {lines} lines of code, at most {PLUGIN_LINES}: a plugin shows how little is needed",
                file.path
            ));
        }
    }
    problems
}

fn pure(tree: &Tree, bad: impl Fn(&str) -> bool, why: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| PURE.iter().any(|folder| file.path.starts_with(folder))) {
        report(&mut problems, file, &file.product, &bad, why);
    }
    problems
}

fn report(problems: &mut Vec<String>, file: &File, text: &str, bad: impl Fn(&str) -> bool, why: &str) {
    problems.extend(lines_where(text, &bad).map(|line| format!("{}:{line}: {why}", file.path)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::new(vec![File::new(path, text)], Vec::new())
    }

    #[test]
    fn a_mutant_in_the_product_is_found() {
        for bad in ["if !broken!(AcksWaitForTheDisk) {\n", "use rejoin_test_twin::mutants::Rule;\n"] {
            assert_eq!(mutants(&tree("host/core/src/shard/mod.rs", bad)).len(), 1, "{bad}");
            assert_eq!(mutants(&tree("tests/mutants/tests/core.rs", bad)), [""; 0]);
        }
    }

    #[test]
    fn notes_stubs_and_switched_off_tests_are_found_on_their_line() {
        let bad = [
            ("a.rs", concat!("fn a() {\n    // TO", "DO: later\n}\n")),
            ("a.md", concat!("one\nFIX", "ME two\n")),
            ("a.rs", "fn a() {\n    todo!()\n}\n"),
            ("a.rs", "fn a() {\n    unimplemented!(\"b\")\n}\n"),
            ("a.rs", concat!("#[test]\n#[ig", "nore = \"slow\"]\nfn a() {}\n")),
            ("a.rs", concat!("//! a\n//! `", "``rust,ignore\n")),
        ];
        for (path, text) in bad {
            let problems = unfinished(&tree(path, text));
            assert!(
                problems.len() == 1 && problems[0].starts_with(&format!("{path}:2: ")),
                "{text:?} gave {problems:?}"
            );
        }
        assert!(unfinished(&tree("a.rs", "//! ```no_run\nlet s = \"todo!()\"; // ignore, MASTODON")).is_empty());
    }

    #[test]
    fn hash_maps_in_the_core_are_found_and_elsewhere_they_are_not() {
        let text = "use alloc::vec::Vec;\nuse std::collections::HashMap;\n";
        assert_eq!(hash_order(&tree("host/core/src/a.rs", text)).len(), 1);
        assert_eq!(hash_order(&tree("host/proto/src/a.rs", "type A = hashbrown::HashSet<u8>;")).len(), 1);
        assert!(hash_order(&tree("host/node/src/a.rs", text)).is_empty());
        assert!(hash_order(&tree("host/core/src/a.rs", "// no HashMap here\n")).is_empty());
    }

    #[test]
    fn clocks_and_files_in_the_core_are_found() {
        for text in
            ["let now = Instant::now();", "use std::time::Duration;", "fn a(t: SystemTime) {}", "std::fs::read(p)?;"]
        {
            assert_eq!(outside_world(&tree("host/core/src/a.rs", text)).len(), 1, "{text}");
            assert!(outside_world(&tree("host/store/src/a.rs", text)).is_empty());
        }
        assert!(outside_world(&tree("host/core/src/a.rs", "use core::time::Duration;")).is_empty());
    }

    #[test]
    fn unwraps_in_the_host_are_found_but_not_those_of_tests() {
        let bad = "fn a() {\n    b().unwrap();\n}\n#[cfg(test)]\nmod tests {\n    fn c() { d().unwrap() }\n}\n";
        let problems = unwraps(&tree("host/node/src/a.rs", bad));
        assert!(problems.len() == 1 && problems[0].starts_with("host/node/src/a.rs:2: "), "{problems:?}");
        assert!(unwraps(&tree("host/node/tests/a.rs", bad)).is_empty());
        assert!(unwraps(&tree("host/node/src/a.rs", "a.unwrap_or(1); // .unwrap()\n")).is_empty());
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        assert_eq!(unexplained_unsafe(&tree("a.rs", "fn a() {\n    unsafe { b() }\n}\n")).len(), 1);
        assert!(
            unexplained_unsafe(&tree("a.rs", "//! Needs unsafe: compiled plugins are mapped.\nunsafe fn a() {}"))
                .is_empty()
        );
        assert!(unexplained_unsafe(&tree("a.rs", "#![forbid(unsafe_code)]\n")).is_empty());
    }

    #[test]
    fn files_and_plugins_over_their_limit_are_found() {
        assert_eq!(long_files(&tree("a.rs", &"\n".repeat(FILE_LINES + 1))).len(), 1);
        assert!(long_files(&tree("a.rs", &"\n".repeat(FILE_LINES))).is_empty());
        let full = "fn a() {}\n".repeat(PLUGIN_LINES);
        let with_comments = format!("//! x\n\n{full}#[cfg(test)]\nmod tests {{\n    fn b() {{}}\n}}\n");
        assert!(long_plugins(&tree("plugins/cart/src/lib.rs", &with_comments)).is_empty());
        assert_eq!(long_plugins(&tree("plugins/cart/src/lib.rs", &format!("{full}fn b() {{}}\n"))).len(), 1);
        let full = format!("// x\n\n{}", "f();\n".repeat(PLUGIN_LINES));
        for path in ["plugins/cart-c/cart.c", "plugins/cart-js/cart.js"] {
            assert!(long_plugins(&tree(path, &full)).is_empty(), "{path}");
            assert_eq!(long_plugins(&tree(path, &format!("{full}g();\n"))).len(), 1, "{path}");
        }
        assert!(long_plugins(&tree("plugins/cart-c/generated/cart.c", &format!("{full}g();\n"))).is_empty());
    }
}
