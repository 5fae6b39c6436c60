//! `bench`: figures of this machine, never a pass or a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;

/// How long each run is, in seconds.
const SECONDS: &str = "10";

/// The parts and the whole, and how far the one is from the other.
///
/// # Errors
/// The binaries are not there, or do not run.
pub(crate) fn distance(root: &Path) -> Result<(), String> {
    let rejoin = released(root)?;
    let distance = rejoin.with_file_name("rejoin-bench-distance");
    run(Command::new(&distance).arg(&rejoin).arg(SECONDS))
}

/// The `rejoin` that was built with `--release`.
fn released(root: &Path) -> Result<PathBuf, String> {
    let release = setup::released(root, "rejoin")?;
    if release.is_file() { Ok(release) } else { Err(format!("{} was not built", release.display())) }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|why| format!("{command:?} could not be started: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}
