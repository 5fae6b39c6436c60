//! What rustfmt does not do: comments of at most 120 columns, and one order of imports.

use crate::files::{File, Tree};

/// The columns of a comment, and of any line that holds one.
const COLUMNS: usize = 120;

/// Comments that are wider than 120 columns.
#[must_use]
pub fn wide_comments(tree: &Tree) -> Vec<String> {
    problems(tree, wide_lines, &format!("a comment of more than {COLUMNS} columns: wrap it"))
}

/// Imports at the top level of a file that are not in the order std, foreign crates, crates of the workspace, this
/// crate.
#[must_use]
pub fn unordered_imports(tree: &Tree) -> Vec<String> {
    let why = "this import stands too late: std, alloc and core come first, then foreign crates, then crates of the \
               workspace, then crate, self and super";
    problems(tree, unordered, why)
}

/// The lines that `find` names in any file, with what is wrong.
fn problems(tree: &Tree, find: fn(&File) -> Vec<usize>, why: &str) -> Vec<String> {
    let of_file = |file| find(file).into_iter().map(move |line| format!("{}:{line}: {why}", file.path));
    tree.rust().flat_map(of_file).collect()
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
        let find = |text: &str| problems(&tree(text), wide_lines, "wide");
        assert_eq!(find(&comment(COLUMNS)), [""; 0]);
        assert_eq!(find(&comment(COLUMNS + 1)), ["a.rs:2: wide"]);
        assert_eq!(find(&format!("let a = 1; // {}\n", "x".repeat(COLUMNS))).len(), 1);
        assert_eq!(find(&format!("let a = \"https://{}\";\n", "x".repeat(COLUMNS))), [""; 0]);
    }

    #[test]
    fn imports_out_of_order_are_found_on_their_line() {
        let find = |text: &str| unordered(&File::new("a.rs", text));
        let good = "use std::fs;\n\nuse ::bytes::Bytes;\n\nuse rejoin_proto::Key;\n\nuse super::a;\nuse crate::b;\nmod \
            c {\n    use std::io;\n}\n";
        assert_eq!(find(good), [0; 0]);
        assert_eq!(find("use bytes::Bytes;\nuse std::fs;\n"), [2]);
        assert_eq!(find("use rejoin_core::a;\nuse tokio::b;\nuse crate::c;\nuse alloc::d;\n"), [2, 4]);
    }
}
