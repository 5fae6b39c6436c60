//! Runs cargo and rustc, and reads their output.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::{BuildError, Options};

const TARGET: &str = "wasm32-unknown-unknown";

/// A crate and its workspace.
pub(super) struct Crate {
    name: String,
    manifest: PathBuf,
    workspace: PathBuf,
    target_dir: PathBuf,
}

/// Fails unless the compiler that cargo would use in this directory has the target's standard library.
pub(super) fn require_wasm_target(dir: &Path) -> Result<(), BuildError> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(&rustc);
    command.current_dir(dir).args(["--print", "target-libdir", "--target", TARGET]);
    let output = run(command, &rustc.to_string_lossy())?;
    let libdir = String::from_utf8_lossy(&output.stdout);
    let installed = output.status.success() && Path::new(libdir.trim()).is_dir();
    if installed { Ok(()) } else { Err(BuildError::NoWasmTarget) }
}

/// The crate in a directory.
pub(super) fn describe(dir: &Path, options: &Options) -> Result<Crate, BuildError> {
    let mut command = cargo(dir, options);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = run(command, "cargo")?;
    if !output.status.success() {
        return Err(BuildError::Failed { output: String::from_utf8_lossy(&output.stderr).into_owned() });
    }
    crate_in(&output.stdout, dir).ok_or_else(|| BuildError::NoCrate { dir: dir.display().to_string() })
}

fn crate_in(metadata: &[u8], dir: &Path) -> Option<Crate> {
    let metadata: Value = serde_json::from_slice(metadata).ok()?;
    let manifest = dir.canonicalize().ok()?.join("Cargo.toml");
    let is_it = |package: &&Value| {
        package["manifest_path"]
            .as_str()
            .is_some_and(|path| Path::new(path).canonicalize().ok().as_ref() == Some(&manifest))
    };
    let package = metadata["packages"].as_array()?.iter().find(is_it)?;
    Some(Crate {
        name: package["name"].as_str()?.to_owned(),
        workspace: metadata["workspace_root"].as_str()?.into(),
        target_dir: metadata["target_directory"].as_str()?.into(),
        manifest,
    })
}

/// Builds the crate and returns the path of its core module.
pub(super) fn build(guest: &Crate, dir: &Path, options: &Options) -> Result<PathBuf, BuildError> {
    let mut command = cargo(dir, options);
    command.args([
        "build",
        "--lib",
        "--target",
        TARGET,
        "--message-format",
        "json-render-diagnostics",
        "--manifest-path",
    ]);
    command.arg(&guest.manifest).args(profile_flags(&guest.workspace));
    command.arg("--config").arg(remapped(&guest.workspace));
    command.arg("--target-dir").arg(options.target_dir.clone().unwrap_or_else(|| guest.target_dir.join("guest")));
    let output = run(command, "cargo")?;
    if !output.status.success() {
        return Err(BuildError::Failed { output: String::from_utf8_lossy(&output.stderr).into_owned() });
    }
    module_in(&output.stdout, &guest.manifest).ok_or_else(|| BuildError::NoModule { package: guest.name.clone() })
}

/// The module among the artefact messages: the one of this manifest.
fn module_in(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let ours = messages.filter(|message| message["reason"] == "compiler-artifact").filter(|message| {
        message["manifest_path"]
            .as_str()
            .is_some_and(|path| Path::new(path).canonicalize().ok().as_deref() == Some(manifest))
    });
    let files = ours.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    files
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
}

/// The workspace's own profile for guests, or settings that make a release build as small.
fn profile_flags(workspace: &Path) -> Vec<String> {
    let manifest = std::fs::read_to_string(workspace.join("Cargo.toml")).unwrap_or_default();
    if manifest.lines().any(|line| line.trim() == "[profile.guest]") {
        return vec!["--profile".into(), "guest".into()];
    }
    let settings = ["opt-level='s'", "lto=true", "codegen-units=1", "panic='abort'", "strip=true", "debug=false"];
    let config = settings.iter().flat_map(|setting| ["--config".to_owned(), format!("profile.release.{setting}")]);
    std::iter::once("--release".to_owned()).chain(config).collect()
}

/// Keeps this machine's paths out of the module: they are private, and would change its digest with every machine.
fn remapped(workspace: &Path) -> String {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
    // The last matching prefix wins, so a workspace inside of cargo's home gets the workspace's name.
    let flags = [(cargo_home.as_path(), "/cargo"), (workspace, "/guest")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    // A JSON list of strings is a TOML list of strings.
    format!("target.{TARGET}.rustflags={}", serde_json::json!(flags))
}

/// Cargo in a directory, without the variables of an outer cargo or a build for the host, which would change the module
/// or its path. (An incremental build gives other code.)
fn cargo(dir: &Path, options: &Options) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir);
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_INCREMENTAL",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_MAKEFLAGS",
    ] {
        command.env_remove(variable);
    }
    if options.offline {
        command.arg("--offline");
    }
    command
}

fn run(mut command: Command, tool: &str) -> Result<Output, BuildError> {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| BuildError::NoTool { tool: tool.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_the_messages() {
        let dir = tempfile::tempdir().expect("a directory");
        let manifest = dir.path().canonicalize().expect("it exists").join("Cargo.toml");
        std::fs::write(&manifest, "").expect("it is ours");
        let line = |path: &Path, file: &str| {
            serde_json::json!({"reason": "compiler-artifact", "manifest_path": path, "filenames": ["x.rlib", file]})
                .to_string()
        };
        let messages =
            [line(Path::new("/else/Cargo.toml"), "wrong.wasm"), "warning".into(), line(&manifest, "right.wasm")]
                .join("\n");
        assert_eq!(module_in(messages.as_bytes(), &manifest), Some("right.wasm".into()));
        assert_eq!(module_in(line(&manifest, "only.rlib").as_bytes(), &manifest), None);
    }

    #[test]
    fn a_path_with_quotes_and_blanks_is_still_one_flag() {
        let config = remapped(Path::new("/home/a \"b\"/c"));
        assert!(config.starts_with("target.wasm32-unknown-unknown.rustflags=[\"--remap-path-prefix="), "{config}");
        assert!(config.ends_with(r#""--remap-path-prefix=/home/a \"b\"/c=/guest"]"#), "{config}");
    }

    #[test]
    fn a_workspace_without_a_guest_profile_gets_one_by_flags() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(profile_flags(dir.path())[0], "--release");
        std::fs::write(dir.path().join("Cargo.toml"), "[profile.guest]\ninherits = \"release\"\n").expect("it is ours");
        assert_eq!(profile_flags(dir.path()), ["--profile", "guest"]);
    }
}
