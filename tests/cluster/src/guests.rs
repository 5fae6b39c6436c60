//! Plugins for tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rejoin_merge::build::{self, Options};

/// Where the workspace is.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The component of a plugin of the tree, built from its source as `rejoin plugin build` does it.
///
/// # Panics
/// If it does not build; the message says why.
#[must_use]
pub fn built(plugin: &str) -> Vec<u8> {
    let dir = workspace().join("plugins").join(plugin);
    build::guest(&dir, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The cart's component. Built once a process.
///
/// # Panics
/// As [`built`].
pub fn cart() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("cart"))
}
