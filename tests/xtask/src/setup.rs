//! What the machine must have, each lack with one line that says what to do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::steps::{cargo_path, command};

/// The target of the guests, and of the builds that prove that proto and core need no operating system.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// Checks for a C compiler, and adds the wasm target through rustup when it is missing.
///
/// # Errors
/// One line that says what is missing and how to get it.
pub(crate) fn check_and_add(root: &Path) -> Result<(), String> {
    c_compiler(root, &std::env::var_os("CC").unwrap_or_else(|| "cc".into()))?;
    if has_target(root, WASM)? {
        return Ok(());
    }
    eprintln!("xtask: adding the target {WASM} …");
    add_target(root, &"rustup".into(), WASM)
}

/// Whether `cargo deny` can be run.
pub(crate) fn has_cargo_deny() -> bool {
    quiet(&cargo_path(), &["deny", "--version"], Path::new("."))
}

/// Where cargo puts the program `name`, wherever the environment or a configuration file sends the build.
///
/// # Errors
/// When cargo does not say.
pub(crate) fn binary(root: &Path, name: &str) -> Result<PathBuf, String> {
    Ok(target(root)?.join("debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// Where cargo puts the program `name` with `--release`.
///
/// # Errors
/// When cargo does not say.
pub(crate) fn released(root: &Path, name: &str) -> Result<PathBuf, String> {
    Ok(target(root)?.join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// Where cargo builds to.
///
/// # Errors
/// When cargo does not say.
pub(crate) fn target(root: &Path) -> Result<PathBuf, String> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = command(&cargo_path(), root)
        .args(arguments)
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    target_directory(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        format!("cargo metadata does not say where it builds to: {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}

fn target_directory(metadata: &str) -> Option<PathBuf> {
    let (_, rest) = metadata.split_once("\"target_directory\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path.replace("\\\\", "\\")))
}

fn c_compiler(root: &Path, compiler: &OsString) -> Result<(), String> {
    // CC may hold arguments too ("ccache cc"); the first word is the program.
    let words = compiler.to_string_lossy();
    let program = words.split_whitespace().next().unwrap_or("cc");
    if quiet(&program.into(), &["--version"], root) {
        return Ok(());
    }
    Err(format!(
        "no C compiler: `{program} --version` does not run, and ring and blake3 are built with one; install it \
         (Debian: apt-get install gcc libc6-dev, Fedora: dnf install gcc, macOS: xcode-select --install) or name yours \
         in CC"
    ))
}

/// Whether the compiler of this workspace has the standard library of `target`.
fn has_target(root: &Path, target: &str) -> Result<bool, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = command(&rustc, root)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .map_err(|error| format!("rustc could not be started ({error}): install Rust through https://rustup.rs"))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // The folder is printed whether or not it exists; it holds the libraries only once the target is installed.
    let installed = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    Ok(output.status.success() && installed)
}

fn add_target(root: &Path, rustup: &OsString, target: &str) -> Result<(), String> {
    let output = command(rustup, root).args(["target", "add", target]).output().map_err(|error| {
        format!(
            "the target {target} is missing and rustup could not be started ({error}): install Rust through \
            https://rustup.rs"
        )
    })?;
    if output.status.success() && has_target(root, target)? {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.lines().rev().find(|line| line.contains("error")).unwrap_or("rustup gave no reason").trim();
    Err(format!(
        "the target {target} is refused ({reason}): run `rustup target add {target}` where the network allows it, then \
            try again"
    ))
}

/// Whether a program runs and succeeds.
pub(crate) fn quiet(program: &OsString, arguments: &[&str], root: &Path) -> bool {
    let mut command = command(program, root);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn a_missing_c_compiler_gives_one_line_that_says_what_to_do() {
        let reason = c_compiler(here(), &"no-such-cc -O2".into()).unwrap_err();
        assert!(
            reason.starts_with("no C compiler: `no-such-cc --version`")
                && reason.contains("install")
                && !reason.contains('\n')
        );
        assert_eq!(c_compiler(here(), &std::env::var_os("CC").unwrap_or_else(|| "cc".into())), Ok(()));
    }

    #[test]
    fn the_binary_is_where_cargo_builds_to() {
        assert_eq!(target_directory(r#"{"x":1,"target_directory":"/t/here","y":2}"#), Some(PathBuf::from("/t/here")));
        assert_eq!(target_directory(r#"{"target_directory":"C:\\t"}"#), Some(PathBuf::from(r"C:\t")));
        assert_eq!(target_directory("error"), None);
        assert!(binary(here(), "rejoin").unwrap().ends_with(format!("debug/rejoin{}", std::env::consts::EXE_SUFFIX)));
    }

    #[test]
    fn a_target_that_is_not_installed_is_noticed() {
        assert_eq!(has_target(here(), "wasm32-unknown-nonsense"), Ok(false));
        assert_eq!(has_target(here(), WASM), Ok(true));
    }

    #[test]
    fn a_refused_target_and_a_missing_rustup_give_one_line_each() {
        let refused = add_target(here(), &"false".into(), "wasm32-unknown-nonsense").unwrap_err();
        assert!(refused.contains("is refused (rustup gave no reason)") && !refused.contains('\n'), "{refused}");
        let missing = add_target(here(), &"no-such-rustup".into(), WASM).unwrap_err();
        assert!(missing.contains("https://rustup.rs") && !missing.contains('\n'), "{missing}");
    }
}
