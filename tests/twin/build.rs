//! Writes the twin: a copy of `host/core/src` in which every file of `mutants/` has been spliced.

#[path = "src/splice.rs"]
mod splice;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use splice::Mutant;

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let (core, mutants) = (here.join("../../host/core/src"), here.join("mutants"));
    for watched in [&core, &mutants, &here.join("build.rs"), &here.join("src/splice.rs")] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let mut sources = BTreeMap::new();
    read_sources(&core, &core, &mut sources);
    let mutants = read_mutants(&mutants);
    let twin = splice::all(&sources, &mutants).unwrap_or_else(|problems| {
        panic!("the mutants in tests/twin/mutants do not fit host/core/src any more:\n{}", problems.join("\n"))
    });
    let root = out.join("src");
    // A file that the core no longer has must not stay behind.
    let _ = fs::remove_dir_all(&root);
    for (file, text) in twin {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("OUT_DIR can be written");
        fs::write(path, text).expect("OUT_DIR can be written");
    }
    fs::write(out.join("rules.rs"), splice::rules(&mutants)).expect("OUT_DIR can be written");
}

fn read_sources(root: &Path, folder: &Path, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("the core has a source folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            read_sources(root, &path, sources);
        } else {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            sources.insert(name, fs::read_to_string(&path).expect("source is UTF-8"));
        }
    }
}

fn read_mutants(folder: &Path) -> Vec<Mutant> {
    let entries = fs::read_dir(folder).expect("the folder of the mutants is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a mutant is UTF-8");
        let mutant = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Mutant { name, ..mutant }
    };
    paths.iter().map(read).collect()
}
