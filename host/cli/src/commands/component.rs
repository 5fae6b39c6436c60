//! Failures and names that `plugin build` and `plugin test` share.

use std::path::Path;

use rejoin_merge::{Rejection, build};

use crate::failure::{Exit, Failure};

/// A component that a node would refuse.
pub(crate) fn rejected(why: &Rejection) -> Failure {
    Failure::new(Exit::Rejected, why)
}

/// A guest crate or core module from which no component could be made.
pub(crate) fn not_built(why: &build::BuildError) -> Failure {
    let exit = if matches!(why, build::BuildError::NotAGuest { .. }) { Exit::Rejected } else { Exit::Usage };
    Failure::new(exit, why)
}

/// The name of a plugin that does not give its own: that of its file.
pub(crate) fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(|| "plugin".into(), |stem| stem.to_string_lossy().into_owned())
}
