//! The files of the tree, as the rules see them.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use crate::code;

/// Names of files (by extension) that people write and the rules read.
const READ: &[&str] = &["rs", "toml", "md", "wit", "c", "h", "js", "sh", "yml"];

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the root, with `/` between the parts.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// Rust only: `text` without comments and literals.
    pub code: String,
    /// Rust only: `code` without what is compiled for tests alone.
    pub product: String,
}

impl File {
    /// A file of the given path and content. `product` follows the file alone; [`Tree::new`] knows also which files are
    /// test modules.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { code::code_only(text) } else { String::new() };
        let product = code::without_tests(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// Whether this is Rust source.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// The files of the tree, in the order of their paths, and the folders at its top.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The files that people write.
    pub files: Vec<File>,
    /// Folders at the top level that version control does not ignore.
    pub top: Vec<String>,
    /// The paths of the files that the rules do not read, such as licences and inputs of tests.
    pub others: BTreeSet<String>,
}

impl Tree {
    /// A tree of these files; modules that are declared under `#[cfg(test)]` in a file of their own lose their product
    /// code.
    #[must_use]
    pub fn new(mut files: Vec<File>, top: Vec<String>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let stems: BTreeSet<String> = files.iter().flat_map(test_module_stems).collect();
        for file in &mut files {
            let test = stems
                .iter()
                .any(|stem| file.path == format!("{stem}.rs") || file.path.starts_with(&format!("{stem}/")));
            if test {
                file.product.clear();
            }
        }
        Self { files, top, others: BTreeSet::new() }
    }

    /// Reads the tree at `root`, without what `.gitignore` names at the top, `.git` and build output.
    ///
    /// # Errors
    /// When a folder or a file cannot be read, or a file is not UTF-8.
    pub fn read(root: &Path) -> io::Result<Self> {
        let ignore = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let ignored: BTreeSet<&str> =
            ignore.lines().map(|line| line.trim().trim_matches('/')).chain([".git"]).collect();
        let (mut files, mut others, mut top) = (Vec::new(), BTreeSet::new(), Vec::new());
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ignored.contains(name.as_str()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                read_folder(&entry.path(), &name, &mut files, &mut others)?;
                top.push(name);
            } else {
                read_file(&entry.path(), name, &mut files, &mut others)?;
            }
        }
        top.sort();
        Ok(Self { others, ..Self::new(files, top) })
    }

    /// The file at `path`.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

fn read_folder(folder: &Path, path: &str, files: &mut Vec<File>, others: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{path}/{name}");
        if !entry.file_type()?.is_dir() {
            read_file(&entry.path(), path, files, others)?;
        } else if name != "target" && name != "node_modules" {
            read_folder(&entry.path(), &path, files, others)?;
        }
    }
    Ok(())
}

fn read_file(file: &Path, path: String, files: &mut Vec<File>, others: &mut BTreeSet<String>) -> io::Result<()> {
    let wanted = path == ".ci/run" || path.rsplit_once('.').is_some_and(|(_, extension)| READ.contains(&extension));
    if wanted {
        let text =
            fs::read_to_string(file).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        files.push(File::new(&path, &text));
    } else {
        others.insert(path);
    }
    Ok(())
}

/// Where the modules live that `file` declares only for tests: their paths without `.rs`, which are also the folders of
/// their children.
fn test_module_stems(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let home = match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        name => format!("{folder}/{}", name.trim_end_matches(".rs")),
    };
    code::test_modules(&file.code).into_iter().map(|module| format!("{home}/{module}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_in_its_own_file_is_no_product_code_and_neither_are_its_children() {
        let files = vec![
            File::new("a/src/lib.rs", "mod put;\n#[cfg(test)]\nmod model;"),
            File::new("a/src/model.rs", "fn f() {}"),
            File::new("a/src/model/deep.rs", "fn f() {}"),
            File::new("a/src/put.rs", "#[cfg(test)]\nmod tests;\nfn f() {}"),
            File::new("a/src/put/tests.rs", "fn f() {}"),
        ];
        let tree = Tree::new(files, Vec::new());
        let product: Vec<&str> =
            tree.rust().filter(|file| file.product.contains("fn f")).map(|file| file.path.as_str()).collect();
        assert_eq!(product, ["a/src/put.rs"]);
    }

    #[test]
    fn reading_a_tree_skips_what_is_ignored_and_finds_the_rest() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tree = Tree::read(root).unwrap();
        assert!(tree.find("src/files.rs").is_some() && tree.find("Cargo.toml").is_some());
        assert_eq!(tree.top, ["src", "tests"]);
        assert!(Tree::read(&root.join("no such folder")).is_err());
    }
}
