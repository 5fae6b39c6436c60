//! The tools of the carts in C and in JavaScript: what the machine lacks, and the packages of npm.
//!
//! Nothing else needs these tools, so a lack is said and is no failure. `tests/laws/src/languages.rs` builds the carts.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::setup::quiet;
use crate::steps::command;

/// The programs that a cart is built with, and how Debian calls them.
const TOOLS: [(&str, [&str; 2], &str); 2] =
    [("C", ["clang", "wasm-ld"], "clang lld"), ("JavaScript", ["node", "npm"], "nodejs npm")];

/// A line for each cart that cannot be built here.
pub(crate) fn missing(root: &Path) -> Vec<String> {
    let line = |(language, programs, packages): (&str, [&str; 2], &str)| {
        let lacks = programs.into_iter().find(|program| !quiet(&program.into(), &["--version"], root))?;
        Some(format!("the cart in {language}: `{lacks} --version` does not run (Debian: apt-get install {packages})"))
    };
    TOOLS.into_iter().filter_map(line).collect()
}

/// Installs the packages of the cart in JavaScript below the target directory, as its lock file names them. Without
/// node and npm nothing is done, and where the registry cannot be reached it is said that the cart is skipped.
pub(crate) fn install(root: &Path, target: &Path) {
    if missing(root).iter().any(|line| line.contains("JavaScript")) {
        return;
    }
    if let Err(why) = npm_ci(root, &target.join("guests/cart-js"), &"npm".into()) {
        eprintln!("xtask: skipped: the cart in JavaScript: {why}");
    }
}

/// Leaves `node_modules` alone if it was installed for the same lock file.
fn npm_ci(root: &Path, place: &Path, npm: &OsString) -> Result<(), String> {
    let source = root.join("plugins/cart-js");
    let read = |path: PathBuf| fs::read(&path).map_err(|why| format!("{}: {why}", path.display()));
    let lock = read(source.join("package-lock.json"))?;
    // Written last, so that it stands for an installation that has ended.
    let installed = place.join("installed-lock.json");
    if fs::read(&installed).is_ok_and(|last| last == lock) {
        return Ok(());
    }
    let manifest = read(source.join("package.json"))?;
    let write = |name: &str, bytes: &[u8]| {
        fs::write(place.join(name), bytes).map_err(|why| format!("{}: {why}", place.join(name).display()))
    };
    fs::create_dir_all(place).map_err(|why| format!("{}: {why}", place.display()))?;
    let _ = fs::remove_file(&installed);
    write("package.json", &manifest)?;
    write("package-lock.json", &lock)?;
    let mut command = command(npm, place);
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).stdin(Stdio::null());
    let output = command.output().map_err(|why| format!("npm could not be started: {why}"))?;
    if !output.status.success() {
        // What npm leaves behind is not to be taken for an installation.
        let _ = fs::remove_dir_all(place.join("node_modules"));
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().find(|line| line.contains("code")).unwrap_or("npm gave no reason").trim();
        return Err(format!("`npm ci` fails ({reason}): are the registry of npm and a cache of it out of reach?"));
    }
    write("installed-lock.json", &lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn every_lack_names_its_language_a_program_and_a_package() {
        for line in missing(&root()) {
            assert!(line.starts_with("the cart in ") && line.contains("apt-get install"), "{line}");
        }
    }

    #[test]
    fn an_installation_that_fails_leaves_nothing_that_looks_like_one() {
        let place = std::env::temp_dir().join(format!("rejoin-xtask-{}", std::process::id()));
        fs::create_dir_all(place.join("node_modules")).unwrap();
        let refused = npm_ci(&root(), &place, &"false".into()).unwrap_err();
        assert!(refused.contains("npm gave no reason") && !refused.contains('\n'), "{refused}");
        assert!(!place.join("node_modules").exists() && !place.join("installed-lock.json").exists());
        assert_eq!(npm_ci(&root(), &place, &"true".into()), Ok(()));
        // The second time nothing is run.
        assert_eq!(npm_ci(&root(), &place, &"false".into()), Ok(()));
        fs::remove_dir_all(&place).unwrap();
    }
}
