//! Copies of the tree's files. lsm-tree makes its own calls to the real file system, so its states are looked at from
//! outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The tree's directory at some moment: every file by its name below it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tree {
    /// The files.
    pub files: BTreeMap<String, Arc<[u8]>>,
}

/// The name of the file that says which version counts.
const CURRENT: &str = "current";

impl Tree {
    /// Reads a directory; no files if there is none.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let names = names(path).into_keys();
        Self { files: names.map(|name| (name.clone(), std::fs::read(path.join(name)).unwrap().into())).collect() }
    }

    /// Whether the directory still holds this. The tree never writes into a file that it has finished, so names and
    /// lengths tell, and the version that counts.
    #[must_use]
    pub fn is_still_at(&self, path: &Path) -> bool {
        let there = names(path);
        let same = self.files.len() == there.len()
            && self
                .files
                .iter()
                .zip(&there)
                .all(|((name, bytes), (other, length))| name == other && bytes.len() as u64 == *length);
        let current = self
            .files
            .get(CURRENT)
            .is_none_or(|bytes| std::fs::read(path.join(CURRENT)).is_ok_and(|there| there[..] == bytes[..]));
        same && current
    }

    /// Writes the files into an empty directory.
    pub fn write(&self, path: &Path) {
        for (name, bytes) in &self.files {
            let path = path.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        if !self.files.is_empty() {
            std::fs::create_dir_all(path.join("tables")).unwrap();
        }
    }

    /// The directories between this and the one `after` it that a crash may leave: the new files in the order in which
    /// the tree writes them, the last one cut at some places; then the new version counts; then the old files go.
    #[must_use]
    pub fn on_the_way_to(&self, after: &Self) -> Vec<Self> {
        let mut states = Vec::new();
        let mut now = self.clone();
        let mut new: Vec<_> =
            after.files.iter().filter(|(name, _)| *name != CURRENT && !self.files.contains_key(*name)).collect();
        // Tables come before the version that names them.
        new.sort_by_key(|(name, _)| (!name.starts_with("tables/"), (*name).clone()));
        for (name, bytes) in new {
            for length in [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
                let mut cut = now.clone();
                cut.files.insert(name.clone(), bytes[..length].into());
                states.push(cut);
            }
            now.files.insert(name.clone(), Arc::clone(bytes));
            states.push(now.clone());
        }
        if let Some(current) = after.files.get(CURRENT) {
            now.files.insert(CURRENT.to_owned(), Arc::clone(current));
            states.push(now.clone());
        }
        for gone in self.files.keys().filter(|name| !after.files.contains_key(*name)) {
            now.files.remove(gone);
            states.push(now.clone());
        }
        states
    }
}

/// The names and lengths of all files below a directory.
fn names(path: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(path) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            found.extend(names(&entry.path()).into_iter().map(|(below, length)| (format!("{name}/{below}"), length)));
        } else {
            found.insert(name, metadata.len());
        }
    }
    found
}
