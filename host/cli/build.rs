//! Builds the ready-made merges to core WebAssembly modules, which the binary embeds, so that `bucket create --merge`,
//! `rejoin dev` and `rejoin demo` need no compiler.
//!
//! It runs a second cargo with its own target directory: the outer cargo locks the other one until this script ends.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";
/// Each group is built at once, with the same features of their dependencies as each alone: those with the feature
/// `json` of the SDK, and those without.
const PLUGINS: [&[&str]; 2] =
    [&["cart", "counter", "leaderboard", "metadata", "session", "set"], &["highest", "last-writer"]];
const WATCHED: &[&str] = &[
    "guest-sdk/src",
    "guest-sdk/wit",
    "guest-sdk/Cargo.toml",
    "guest-sdk/laws/src",
    "guest-sdk/laws/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    let result = root().and_then(|root| {
        let watch = |path: &str| say("rerun-if-changed", &root.join(path).display().to_string());
        WATCHED.iter().for_each(|path| watch(path));
        PLUGINS.iter().flat_map(|group| *group).for_each(|plugin| {
            watch(&format!("plugins/{plugin}/src"));
            watch(&format!("plugins/{plugin}/Cargo.toml"));
        });
        let out = PathBuf::from(variable("OUT_DIR")?);
        require_target(&root)?;
        PLUGINS.iter().try_for_each(|group| {
            let built = build(&root, &target_dir(&out), group)?;
            group.iter().try_for_each(|plugin| {
                let module = built.join(format!("rejoin_plugin_{}.wasm", plugin.replace('-', "_")));
                copy_if_new(&module, &out.join(format!("{plugin}.core.wasm")))
            })
        })
    });
    if let Err(why) = result {
        say("error", &why);
    }
}

fn say(key: &str, value: &str) {
    println!("cargo::{key}={}", value.replace('\n', " / "));
}

fn variable(name: &str) -> Result<OsString, String> {
    std::env::var_os(name).ok_or_else(|| format!("cargo has not set {name}: build with cargo"))
}

/// The workspace, two directories above this package.
fn root() -> Result<PathBuf, String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    here.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| format!("{} lies in no workspace", here.display()))
}

/// The directory `guest` beside those of the profiles, which is kept between builds and shared with `rejoin plugin
/// build`; `OUT_DIR` if the target directory has another structure.
fn target_dir(out: &Path) -> PathBuf {
    let build = out.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "build"));
    build.and_then(|build| build.ancestors().nth(2)).unwrap_or(out).join("guest")
}

fn require_target(root: &Path) -> Result<(), String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).current_dir(root).args(["--print", "target-libdir", "--target", TARGET]).output();
    let output = output.map_err(|why| format!("{} cannot be run: {why}", rustc.display()))?;
    let libraries = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let installed =
        output.status.success() && std::fs::read_dir(libraries).is_ok_and(|mut entries| entries.next().is_some());
    if installed {
        Ok(())
    } else {
        Err(format!("the {TARGET} target is not installed: run `rustup target add {TARGET}`"))
    }
}

/// Builds plugins. Returns the directory of the modules.
fn build(root: &Path, target_dir: &Path, plugins: &[&str]) -> Result<PathBuf, String> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(root).args(["build", "--lib", "--profile", "guest", "--target", TARGET, "--target-dir"]);
    cargo.arg(target_dir).stdin(Stdio::null());
    cargo.args(plugins.iter().flat_map(|plugin| ["-p".to_owned(), format!("rejoin-plugin-{plugin}")]));
    // Variables of the outer cargo (or clippy) configure the host build, not the guest.
    let keep = ["CARGO", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY"];
    let ours = |name: &str| {
        (name.starts_with("CARGO")
            && !keep.contains(&name)
            && !name.starts_with("CARGO_REGISTRIES_")
            && !name.starts_with("CARGO_SOURCE_"))
            || [
                "RUSTFLAGS",
                "RUSTC_WORKSPACE_WRAPPER",
                "MAKEFLAGS",
                "MFLAGS",
                "CLIPPY_ARGS",
                "TARGET",
                "HOST",
                "PROFILE",
            ]
            .contains(&name)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remapped(root));
    let output = cargo.output().map_err(|why| format!("cargo cannot be run: {why}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().filter(|line| line.contains("error")).collect::<Vec<_>>().join("\n");
        return Err(format!(
            "a plugin of {} does not build: {why}; see `cargo build -p rejoin-plugin-NAME --target {TARGET}`",
            plugins.join(", ")
        ));
    }
    Ok(target_dir.join(TARGET).join("guest"))
}

/// Keeps the paths of this machine out of the module. The same flags as `rejoin plugin build`, so that both give the
/// same bytes; a test compares them.
fn remapped(root: &Path) -> String {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
    let flags = [(cargo_home.as_path(), "/cargo"), (root, "/guest")];
    flags.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).join("\x1f")
}

fn copy_if_new(from: &Path, to: &Path) -> Result<(), String> {
    let module = std::fs::read(from).map_err(|why| format!("{} cannot be read: {why}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == module) {
        return Ok(());
    }
    std::fs::write(to, module).map_err(|why| format!("{} cannot be written: {why}", to.display()))
}
