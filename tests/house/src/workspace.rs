//! The workspace as `cargo metadata` describes it: crates, where they live, and the edges between them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// When an edge is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The crate itself needs it.
    Normal,
    /// Only its tests, examples and benches need it.
    Dev,
    /// Only its build script needs it.
    Build,
}

/// One declared dependency, on a crate of the workspace or on a foreign one.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The package depended on, under its real name (not a rename).
    pub to: String,
    /// When it is needed.
    pub kind: Kind,
}

/// A member of the workspace.
#[derive(Clone, Debug)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Folder, relative to the workspace root, with `/` between the parts.
    pub dir: String,
    /// Library and binary roots (`src/lib.rs`, `src/main.rs`), relative to the workspace root.
    pub roots: Vec<String>,
    /// Everything its manifest depends on, for every target platform.
    pub edges: Vec<Edge>,
}

/// All members, in the order of their folders.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// The members.
    pub crates: Vec<Crate>,
}

impl Workspace {
    /// Asks cargo about the workspace at `root`. Offline, and without resolving dependencies, so that it is quick and
    /// never writes.
    ///
    /// # Errors
    /// When cargo cannot be started, refuses, or prints something else than the metadata format 1.
    pub fn read(root: &Path) -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cargo metadata could not be started: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads metadata of format 1.
    ///
    /// # Errors
    /// When `json` is not that.
    pub fn parse(json: &str) -> Result<Self, String> {
        let metadata: Metadata =
            serde_json::from_str(json).map_err(|error| format!("cargo metadata is not understood: {error}"))?;
        let root = metadata.workspace_root;
        let mut crates: Vec<Crate> = metadata.packages.into_iter().map(|package| package.into_crate(&root)).collect();
        crates.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(Self { crates })
    }

    /// The member called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Crate> {
        self.crates.iter().find(|member| member.name == name)
    }

    /// The members that `name` needs, directly or through others, without what only tests need.
    #[must_use]
    pub fn reach(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![name];
        while let Some(member) = open.pop().and_then(|next| self.find(next)) {
            for edge in member.edges.iter().filter(|edge| edge.kind != Kind::Dev) {
                if let Some(target) = self.find(&edge.to)
                    && seen.insert(target.name.as_str())
                {
                    open.push(&target.name);
                }
            }
        }
        seen
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

impl Package {
    fn into_crate(self, root: &str) -> Crate {
        let manifest = relative(&self.manifest_path, root);
        let dir = manifest.strip_suffix("Cargo.toml").unwrap_or(&manifest).trim_end_matches('/').to_owned();
        let product = |target: &&Target| target.kind.iter().any(|kind| kind == "bin" || kind.ends_with("lib"));
        let roots = self.targets.iter().filter(product).map(|target| relative(&target.src_path, root)).collect();
        let edges = self.dependencies.into_iter().map(Dependency::into_edge).collect();
        Crate { name: self.name, dir, roots, edges }
    }
}

impl Dependency {
    fn into_edge(self) -> Edge {
        let kind = match self.kind.as_deref() {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        };
        Edge { to: self.name, kind }
    }
}

/// A path below the root, without `..`: a target may be source of another crate.
fn relative(path: &str, root: &str) -> String {
    let path = path.strip_prefix(root).unwrap_or(path).replace('\\', "/");
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_CRATES: &str = r#"{
        "workspace_root": "/w",
        "packages": [
            {"name": "b", "manifest_path": "/w/host/b/Cargo.toml", "dependencies": [
                {"name": "a", "kind": null}, {"name": "serde", "kind": "dev"}],
             "targets": [{"kind": ["lib"], "src_path": "/w/host/c/../b/src/lib.rs"}, {"kind": ["test"], "src_path": "/w/host/b/tests/t.rs"}]},
            {"name": "a", "manifest_path": "/w/host/a/Cargo.toml", "dependencies": [],
             "targets": [{"kind": ["cdylib", "rlib"], "src_path": "/w/host/a/src/lib.rs"}]}
        ]}"#;

    #[test]
    fn metadata_becomes_crates_with_folders_roots_and_edges() {
        let workspace = Workspace::parse(TWO_CRATES).unwrap();
        let b = workspace.find("b").unwrap();
        assert_eq!((b.dir.as_str(), b.roots.as_slice()), ("host/b", ["host/b/src/lib.rs".to_owned()].as_slice()));
        assert_eq!(
            b.edges.iter().map(|edge| (edge.to.as_str(), edge.kind)).collect::<Vec<_>>(),
            [("a", Kind::Normal), ("serde", Kind::Dev)]
        );
        assert_eq!(workspace.find("a").unwrap().roots, ["host/a/src/lib.rs"]);
        assert_eq!(workspace.reach("b").into_iter().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn what_is_not_metadata_is_refused_with_the_reason() {
        assert!(Workspace::parse("{}").unwrap_err().contains("not understood"));
    }
}
