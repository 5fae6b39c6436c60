//! What the documents name must be there: files, headings, and the functions that ARCHITECTURE.md leads to.

use std::collections::BTreeSet;

use crate::code::has_word;
use crate::files::{File, Tree};

/// A link of a document: `[text](target#heading)`.
#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    line: usize,
    text: &'a str,
    target: &'a str,
    heading: Option<&'a str>,
}

/// Links that lead to no file or heading of the tree, and code links ([`function`](file) ``) to a file without that
/// function.
#[must_use]
pub fn broken_links(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for document in documents(tree) {
        for link in links(&document.text).into_iter().filter(|link| !link.target.contains("://")) {
            if let Some(why) = broken(tree, document, &link) {
                problems.push(format!("{}:{}: [{}]({}): {why}", document.path, link.line, link.text, link.target));
            }
        }
    }
    problems
}

/// Files that a document names in backticks, and that are not there.
#[must_use]
pub fn missing_files(tree: &Tree) -> Vec<String> {
    let tops = ["host/", "tests/", "guest-sdk/", "plugins/", "examples/"];
    let mut problems = Vec::new();
    for document in documents(tree) {
        for (number, line) in document.text.lines().enumerate() {
            // What stands between two backticks is every other part.
            let named = line.split('`').skip(1).step_by(2).filter(|name| tops.iter().any(|top| name.starts_with(top)));
            // A pattern such as `tests/*` names no single file.
            let missing = named.filter(|name| !name.contains('*') && !exists(tree, name.trim_end_matches('/')));
            problems
                .extend(missing.map(|name| format!("{}:{}: `{name}` is not in the tree", document.path, number + 1)));
        }
    }
    problems
}

/// The page of the limits.
const LIMITS: &str = "host/cli/book/internals/limits.md";

/// Constants, keys and files that the table of limits names as the place of a limit, and that the code does not have.
#[must_use]
pub fn unknown_limits(tree: &Tree) -> Vec<String> {
    let Some(page) = tree.find(LIMITS) else { return vec![format!("{LIMITS} is missing")] };
    let names = |name: &str| tree.rust().any(|file| file.code.lines().any(|line| has_word(line, name)));
    let is_file = |name: &str| tree.rust().any(|file| file.path.ends_with(&format!("/{name}")));
    let mut problems = Vec::new();
    let rows = page.text.lines().enumerate().filter(|(_, line)| line.starts_with('|')).skip(2);
    for (number, row) in rows {
        let place = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for name in place.split('`').skip(1).step_by(2) {
            let last = name.rsplit([':', ' ', '-']).next().unwrap_or(name);
            let known = if name.ends_with(".rs") { is_file(name) } else { names(last) };
            if !known {
                problems.push(format!("{LIMITS}:{}: the code has no `{name}`", number + 1));
            }
        }
    }
    problems
}

/// The most lines of README.md.
const README_LINES: usize = 250;

/// A README.md that nobody reads to its end.
#[must_use]
pub fn long_readme(tree: &Tree) -> Vec<String> {
    let lines = tree.find("README.md").map_or(0, |readme| readme.text.lines().count());
    match lines {
        1..=README_LINES => Vec::new(),
        lines => vec![format!("README.md has {lines} lines, 1 to {README_LINES} are wanted: move details to the book")],
    }
}

/// Documents that describe the tree as it is. The changelog names what was.
fn documents(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files.iter().filter(|file| file.path.ends_with(".md") && file.path != "CHANGELOG.md")
}

fn broken(tree: &Tree, document: &File, link: &Link<'_>) -> Option<&'static str> {
    let path = if link.target.is_empty() { document.path.clone() } else { resolved(&document.path, link.target) };
    if !exists(tree, &path) {
        return Some("there is no such file");
    }
    let file = tree.find(&path)?;
    if link.heading.is_some_and(|heading| !headings(&file.text).contains(heading)) {
        return Some("the document has no such heading");
    }
    let name = link.text.strip_prefix('`').and_then(|text| text.strip_suffix('`'));
    let function = name.map(|name| name.rsplit("::").next().unwrap_or(name))?;
    let is_there = !file.is_rust() || file.code.lines().any(|line| has_word(line, function));
    (!is_there).then_some("the file has no such name: follow the code, or the document leads a reader astray")
}

/// A file, or a folder of files.
fn exists(tree: &Tree, path: &str) -> bool {
    let folder = format!("{path}/");
    let mut paths = tree.files.iter().map(|file| &file.path).chain(&tree.others);
    paths.any(|known| known == path || known.starts_with(&folder))
}

/// `target` as seen from the folder of `document`, relative to the root.
fn resolved(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The names that a browser gives to a document's headings.
fn headings(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut headings = BTreeSet::new();
    for line in text.lines() {
        code ^= line.starts_with("```");
        if line.starts_with('#') && !code {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-').collect::<String>();
            headings.insert(kept.replace(' ', "-"));
        }
    }
    headings
}

fn links(text: &str) -> Vec<Link<'_>> {
    let (mut links, mut code) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        code ^= line.starts_with("```");
        let mut rest = if code { "" } else { line };
        while let Some((before, after)) = rest.split_once("](") {
            let Some((target, further)) = after.split_once(')') else { break };
            let text = before.rsplit_once('[').map_or(before, |(_, text)| text);
            let (target, heading) =
                target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
            links.push(Link { line: number + 1, text, target, heading });
            rest = further;
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(document: &str) -> Tree {
        let files = vec![
            File::new("A.md", document),
            File::new("host/a/book/b.md", "# B\n\n## What it does: all\n\n[up](../src/c.rs) [a](../../../A.md)\n"),
            File::new("host/a/src/c.rs", "pub fn seal_it() {}\n// named_here only in a comment\n"),
        ];
        Tree::new(files, Vec::new())
    }

    #[test]
    fn links_to_files_headings_and_functions_that_are_there_pass() {
        let good = "[b](host/a/book/b.md#what-it-does-all), [`Shard::seal_it`](host/a/src/c.rs), \
            [x](https://example.org/y), [me](#top)\n# Top\n";
        assert_eq!(broken_links(&tree(good)), [""; 0]);
        assert_eq!(broken_links(&tree("```\n[b](nowhere.md)\n```\n")), [""; 0]);
    }

    #[test]
    fn what_leads_nowhere_is_found_on_its_line() {
        for (bad, why) in [
            ("[b](host/a/book/c.md)", "no such file"),
            ("[b](host/a/book/b.md#what-it-did)", "no such heading"),
            ("[b](#nowhere)", "no such heading"),
            ("[`open_it`](host/a/src/c.rs)", "no such name"),
            ("[`named_here`](host/a/src/c.rs)", "no such name"),
        ] {
            let problems = broken_links(&tree(&format!("text\n{bad}\n")));
            assert!(
                problems.len() == 1 && problems[0].starts_with("A.md:2: ") && problems[0].contains(why),
                "{bad}: {problems:?}"
            );
        }
    }

    #[test]
    fn limits_that_the_code_does_not_have_are_found() {
        let page = "| what | bound | where |\n|---|---|---|\n| key | 1 | `MAX_KEY`, core `hash.rs` |\n| value | 2 | \
            bucket `value_bytes` |\n";
        let find = |code: &str| {
            let files = vec![File::new(LIMITS, page), File::new("host/core/src/hash.rs", code)];
            unknown_limits(&Tree::new(files, Vec::new()))
        };
        assert_eq!(find("const MAX_KEY: usize = 1;\nstruct A { value_bytes: u32 }\n"), [""; 0]);
        assert_eq!(find("const MAX_KEY: usize = 1;\n"), [format!("{LIMITS}:4: the code has no `value_bytes`")]);
        assert_eq!(unknown_limits(&Tree::default()).len(), 1);
    }

    #[test]
    fn a_long_readme_and_a_missing_one_are_found() {
        let readme = |lines| long_readme(&Tree::new(vec![File::new("README.md", &"x\n".repeat(lines))], Vec::new()));
        assert_eq!(readme(README_LINES), [""; 0]);
        assert_eq!((readme(README_LINES + 1).len(), long_readme(&Tree::default()).len()), (1, 1));
    }

    #[test]
    fn files_that_are_named_must_be_there() {
        assert_eq!(
            missing_files(&tree("`host/a/src/c.rs`, `host/a`, `host/a/book/`, `seal_it`, `target/x`\n")),
            [""; 0]
        );
        let problems = missing_files(&tree("\n`host/a/src/d.rs`\n"));
        assert_eq!(problems, ["A.md:2: `host/a/src/d.rs` is not in the tree"]);
    }
}
