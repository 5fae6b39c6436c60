//! What rustfmt does not do: comments of at most 120 columns, and one order of imports.
//!
//! Files that are older than a rule are in its list (`wide_comments.txt`, `unordered_imports.txt`). A list can only
//! shrink: a file that keeps the rule must be taken out of it.

use std::collections::BTreeSet;

use crate::files::{File, Tree};

/// The columns of a comment, and of any line that holds one.
const COLUMNS: usize = 120;

/// Files with wider comments than the rule allows.
const WIDE: &str = include_str!("wide_comments.txt");

/// Files with imports in another order.
const UNORDERED: &str = include_str!("unordered_imports.txt");

/// Comments that are wider than 120 columns.
#[must_use]
pub fn wide_comments(tree: &Tree) -> Vec<String> {
    let why = format!("a comment of more than {COLUMNS} columns: wrap it");
    apart_from(WIDE, tree, |file| wide_lines(file).into_iter().map(|line| (line, why.clone())).collect())
}

/// Imports at the top level of a file that are not in the order std, foreign crates, crates of the workspace, this
/// crate.
#[must_use]
pub fn unordered_imports(tree: &Tree) -> Vec<String> {
    let why = "this import stands too late: std, alloc and core come first, then foreign crates, then crates of the \
               workspace, then crate, self and super";
    apart_from(UNORDERED, tree, |file| unordered(file).into_iter().map(|line| (line, why.to_owned())).collect())
}

/// The problems of the files that `list` does not name, and the files that it names in vain.
fn apart_from(list: &str, tree: &Tree, find: impl Fn(&File) -> Vec<(usize, String)>) -> Vec<String> {
    let mut named: BTreeSet<&str> = list.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut problems = Vec::new();
    for file in tree.rust() {
        let found = find(file);
        if found.is_empty() || !named.remove(file.path.as_str()) {
            problems.extend(found.into_iter().map(|(line, why)| format!("{}:{line}: {why}", file.path)));
        }
    }
    problems.extend(named.into_iter().map(|path| format!("{path} keeps the rule or is gone: take it out of the list")));
    problems
}

/// The numbers of the lines with a comment that goes beyond the last column.
fn wide_lines(file: &File) -> Vec<usize> {
    let mut wide = Vec::new();
    for (number, (line, code)) in file.text.lines().zip(file.code.lines()).enumerate() {
        // In `code` a comment is blank, and so is the text between the quotes of a literal.
        let is_comment = line.trim_start().starts_with("//") || line.contains(" // ");
        let beyond = line.chars().count() > COLUMNS && code.trim_end().chars().count() < COLUMNS;
        if is_comment && beyond {
            wide.push(number + 1);
        }
    }
    wide
}

/// The numbers of the lines with an import of an earlier kind than the one before it.
fn unordered(file: &File) -> Vec<usize> {
    let mut highest = 0;
    let mut unordered = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        let Some(kind) = line.strip_prefix("use ").map(kind_of) else { continue };
        if kind < highest {
            unordered.push(number + 1);
        }
        highest = highest.max(kind);
    }
    unordered
}

fn kind_of(path: &str) -> u8 {
    let path = path.trim_start_matches("::");
    let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    match name {
        "std" | "alloc" | "core" => 0,
        "crate" | "self" | "super" => 3,
        name if name.starts_with("rejoin") => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::new(vec![File::new("a.rs", text)], Vec::new())
    }

    fn comment(columns: usize) -> String {
        format!("fn a() {{}}\n{:x<columns$}\n", "    // ")
    }

    #[test]
    fn wide_comments_are_found_and_wide_literals_are_not() {
        let find = |text: &str| {
            apart_from("", &tree(text), |file| wide_lines(file).into_iter().map(|line| (line, String::new())).collect())
        };
        assert_eq!(find(&comment(COLUMNS)), [""; 0]);
        assert_eq!(find(&comment(COLUMNS + 1)), ["a.rs:2: "]);
        assert_eq!(find(&format!("let a = 1; // {}\n", "x".repeat(COLUMNS))).len(), 1);
        assert_eq!(find(&format!("let a = \"https://{}\";\n", "x".repeat(COLUMNS))), [""; 0]);
    }

    #[test]
    fn imports_out_of_order_are_found_on_their_line() {
        let find = |text: &str| unordered(&File::new("a.rs", text));
        let good = "use std::fs;\n\nuse ::bytes::Bytes;\n\nuse rejoin_proto::Key;\n\nuse super::a;\nuse crate::b;\nmod c {\n    use std::io;\n}\n";
        assert_eq!(find(good), [0; 0]);
        assert_eq!(find("use bytes::Bytes;\nuse std::fs;\n"), [2]);
        assert_eq!(find("use rejoin_core::a;\nuse tokio::b;\nuse crate::c;\nuse alloc::d;\n"), [2, 4]);
    }

    #[test]
    fn a_list_excuses_its_files_until_they_keep_the_rule() {
        let find = |list: &str, text: &str| {
            apart_from(list, &tree(text), |file| {
                unordered(file).into_iter().map(|line| (line, "late".to_owned())).collect()
            })
        };
        let bad = "use crate::b;\nuse std::fs;\n";
        assert_eq!(find("", bad), ["a.rs:2: late"]);
        assert_eq!(find("a.rs\n", bad), [""; 0]);
        assert_eq!(find("a.rs\n", "use std::fs;\n"), ["a.rs keeps the rule or is gone: take it out of the list"]);
        assert_eq!(find("a.rs\nb.rs\n", bad).len(), 1);
    }
}
