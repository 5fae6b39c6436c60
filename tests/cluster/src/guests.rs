//! Plugins for tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rejoin_merge::build::{self, Options};

/// Where the workspace is.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cart's component, built from its source as `rejoin plugin build` does it. Once a process.
///
/// # Panics
/// If it does not build; the message says why.
pub fn cart() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        build::guest(&workspace().join("plugins/cart"), &Options::default()).unwrap_or_else(|error| panic!("{error}"))
    })
}
