//! Makes components of guest crates: cargo builds the core module, and this process makes the component. It needs no
//! other tool.

mod bindgen;
mod cargo;

use std::path::{Path, PathBuf};

use wit_component::ComponentEncoder;

/// The options of a build.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The target directory; by default `guest` in the workspace's target directory, whose own lock an outer cargo may
    /// hold.
    pub target_dir: Option<PathBuf>,
    /// Passes `--offline` to cargo.
    pub offline: bool,
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The directory has no Cargo.toml.
    #[error("{dir} holds no Cargo.toml: name the directory of a guest crate")]
    NoCrate {
        /// The directory.
        dir: String,
    },
    /// Cargo or rustc cannot be run.
    #[error("{tool} cannot be run: {source}. Install Rust from https://rustup.rs")]
    NoTool {
        /// The program.
        tool: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The compiler has no WebAssembly target.
    #[error("the wasm32-unknown-unknown target is not installed: run `rustup target add wasm32-unknown-unknown`")]
    NoWasmTarget,
    /// The guest does not build.
    #[error("the guest does not build:\n{output}")]
    Failed {
        /// The output of cargo.
        output: String,
    },
    /// The crate has no `cdylib` library.
    #[error("{package} makes no WebAssembly module: add `[lib] crate-type = [\"cdylib\", \"rlib\"]` to its Cargo.toml")]
    NoModule {
        /// The crate.
        package: String,
    },
    /// The module cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The module does not implement the plugin interfaces.
    #[error(
        "the module cannot be made a component: {reason}. Does the crate call rejoin_guest::export!, and does nothing \
            in it need an import?"
    )]
    NotAGuest {
        /// What is missing or surplus.
        reason: String,
    },
}

/// Builds the guest crate in a directory and returns the component. Takes seconds to minutes, and prints nothing.
///
/// The profile `guest` is used if the workspace has one, and `release` with settings for small modules otherwise.
///
/// # Errors
/// [`BuildError`], with the output of cargo if the guest does not build.
pub fn guest(dir: &Path, options: &Options) -> Result<Vec<u8>, BuildError> {
    componentize(&core_module(dir, options)?)
}

/// Builds the guest crate in a directory and returns its core module, from which [`componentize`] makes the component.
///
/// # Errors
/// As [`guest`].
pub fn core_module(dir: &Path, options: &Options) -> Result<Vec<u8>, BuildError> {
    if !dir.join("Cargo.toml").is_file() {
        return Err(BuildError::NoCrate { dir: dir.display().to_string() });
    }
    cargo::require_wasm_target(dir)?;
    let crate_of = cargo::describe(dir, options)?;
    let path = cargo::build(&crate_of, dir, options)?;
    std::fs::read(&path).map_err(|source| BuildError::Unreadable { path: path.display().to_string(), source })
}

/// Makes a component of a core module with embedded interface types, as guests built with `rejoin-guest` have. Imports
/// that wasm-bindgen has left in it become functions that trap ([`trapping_imports`]).
///
/// # Errors
/// [`BuildError::NotAGuest`] if the types are missing, or the module's imports and exports do not match them.
pub fn componentize(core: &[u8]) -> Result<Vec<u8>, BuildError> {
    let bare = bindgen::without_imports(core);
    let core = bare.as_deref().unwrap_or(core);
    let component = ComponentEncoder::default().validate(true).module(core).and_then(|mut encoder| encoder.encode());
    component.map_err(|error| BuildError::NotAGuest { reason: format!("{error:#}") })
}

/// The imports of a core module that become functions that trap in its component: what wasm-bindgen has left in it.
/// Their names are whatever the module says. A component has none.
#[must_use]
pub fn trapping_imports(file: &[u8]) -> Vec<String> {
    if wasmparser::Parser::is_core_wasm(file) { bindgen::names(file) } else { Vec::new() }
}

/// The component in a file. Makes it of a core module, as `cargo build --target wasm32-unknown-unknown` writes it, if
/// the file has one.
///
/// # Errors
/// As [`componentize`]. Other bytes are returned unchanged, for [`Host::compile`](crate::Host::compile) to refuse.
pub fn component_in(file: Vec<u8>) -> Result<Vec<u8>, BuildError> {
    if wasmparser::Parser::is_core_wasm(&file) { componentize(&file) } else { Ok(file) }
}
