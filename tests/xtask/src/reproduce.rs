//! `cargo xtask release` builds the binary so that its bytes depend on nothing but the sources, the toolchain and the C
//! compiler; `cargo xtask reproduce` does so twice, in two directories, and compares.
//!
//! Cargo and rustc put no time into a binary. What is left are paths: of the sources, of cargo's registry and of the
//! target directory, in messages of panics and in debug information. They are replaced, for rustc and for the C
//! compiler.

use std::path::{Path, PathBuf};

use crate::steps::{Step, cargo_with, command};

/// The build of the binary for release, of the sources at `root` into `target`.
pub(crate) fn build(root: &Path, target: &Path) -> Step {
    let arguments = ["build", "--release", "--locked", "-p", "rejoin", "--bin", "rejoin"];
    cargo_with("the build", arguments.map(str::to_owned).to_vec(), environment(root, target))
}

/// The variables that make a build the same everywhere.
fn environment(root: &Path, target: &Path) -> Vec<(&'static str, String)> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
    // The last one that fits counts, so the longer paths come last.
    let mut paths = [(cargo.as_path(), "/cargo"), (root, "/rejoin"), (target, "/target")];
    paths.sort_by_key(|(path, _)| path.as_os_str().len());
    let flags = |flag: &str, between: &str| {
        let flags: Vec<String> = paths.iter().map(|(from, to)| format!("{flag}={}={to}", from.display())).collect();
        flags.join(between)
    };
    vec![
        ("CARGO_TARGET_DIR", target.display().to_string()),
        ("CARGO_INCREMENTAL", "0".to_owned()),
        // Between the flags stands a byte that no path has.
        ("CARGO_ENCODED_RUSTFLAGS", flags("--remap-path-prefix", "\x1f")),
        ("CFLAGS", flags("-ffile-prefix-map", " ")),
        ("SOURCE_DATE_EPOCH", "0".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("LC_ALL", "C".to_owned()),
    ]
}

/// Copies the sources into two directories below `work`, of different names and depths, builds in both, and compares
/// the binaries. What was in `work` is removed.
///
/// # Errors
/// A build fails, or the binaries differ: says where.
pub(crate) fn check(root: &Path, work: &Path) -> Result<(), String> {
    if work.exists() {
        std::fs::remove_dir_all(work).map_err(|why| format!("{} could not be removed: {why}", work.display()))?;
    }
    let places = [work.join("a"), work.join("another/place/further/down")];
    let mut binaries = Vec::new();
    for place in &places {
        let (sources, target) = (place.join("sources"), place.join("target"));
        copy(root, &sources)?;
        let Step::Command(run) = build(&sources, &target) else { return Err("the build is no command".into()) };
        eprintln!("xtask: … {}", place.display());
        run.run(&sources)?;
        let binary = target.join("release").join(format!("rejoin{}", std::env::consts::EXE_SUFFIX));
        binaries.push((std::fs::read(&binary).map_err(|why| format!("{}: {why}", binary.display()))?, binary));
    }
    let [(first, one), (second, other)] = &binaries[..] else { return Err("there are no two builds".into()) };
    match difference(first, second) {
        None => {
            eprintln!("xtask: both builds gave the same {} bytes", first.len());
            Ok(())
        }
        Some(why) => Err(format!("{} and {} differ: {why}", one.display(), other.display())),
    }
}

/// Where two files differ first.
fn difference(first: &[u8], second: &[u8]) -> Option<String> {
    let at = first.iter().zip(second).position(|(a, b)| a != b);
    if at.is_none() && first.len() == second.len() {
        return None;
    }
    let at = at.unwrap_or(first.len().min(second.len()));
    let around = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(32).min(bytes.len())..(at + 32).min(bytes.len())];
        part.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect::<String>()
    };
    let (one, other) = (around(first), around(second));
    Some(format!("{} and {} bytes, at byte {at} ({one:?} and {other:?})", first.len(), second.len()))
}

/// Copies what git knows of the tree, as it is now.
fn copy(root: &Path, to: &Path) -> Result<(), String> {
    let mut listing = command(&"git".into(), root);
    listing.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = listing.output().map_err(|why| format!("git could not be started: {why}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root.join(name), to.join(name));
        if !from.is_file() {
            // Removed, and not committed yet.
            continue;
        }
        let copied = to.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::copy(&from, &to));
        copied.map_err(|why| format!("{name} could not be copied to {}: {why}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_machine_is_replaced_for_both_compilers_the_longest_last() {
        let all = environment(Path::new("/home/me/rejoin"), Path::new("/home/me/rejoin/target"));
        let value = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()).unwrap();
        let (rust, c) = (value("CARGO_ENCODED_RUSTFLAGS"), value("CFLAGS"));
        assert!(rust.ends_with("\x1f--remap-path-prefix=/home/me/rejoin/target=/target"), "{rust}");
        assert!(c.ends_with(" -ffile-prefix-map=/home/me/rejoin/target=/target"), "{c}");
        for (from, to) in [("/home/me/rejoin", "/rejoin"), ("/home/me/rejoin/target", "/target")] {
            assert!(rust.contains(&format!("--remap-path-prefix={from}={to}")));
            assert!(c.contains(&format!("-ffile-prefix-map={from}={to}")));
        }
        assert!(rust.contains("=/cargo") && c.contains("=/cargo"));
    }

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(difference(b"the same", b"the same"), None);
        let said = difference(b"built in /home/a", b"built in /home/b").unwrap();
        assert!(said.contains("at byte 15 (\"built.in./home/a\" and \"built.in./home/b\")"), "{said}");
        assert!(difference(b"long", b"longer").unwrap().starts_with("4 and 6 bytes, at byte 4"));
    }

    #[test]
    fn the_sources_are_copied_without_what_git_ignores() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let to = std::env::temp_dir().join(format!("rejoin-xtask-copy-{}", std::process::id()));
        copy(&root, &to).unwrap();
        let found = to.join("Cargo.lock").is_file() && to.join("host/cli/src/main.rs").is_file();
        let ignored = to.join("target").exists();
        std::fs::remove_dir_all(&to).unwrap();
        assert!(found && !ignored);
    }
}
