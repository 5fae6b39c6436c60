//! Measures Rejoin beside Redis and etcd, and how its costs grow, and writes a report of it.
//!
//! `cargo xtask bench-peers` builds it with `--release` and runs it; `rejoin bench` is the generator of all loads. Only
//! servers that this program has started are measured, and they end with it, also when it is told to end before its
//! time. A peer that is not installed is left out.

mod figures;
mod measure;
mod options;
mod page;
mod svg;
mod systems;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::binary;
use crate::figures::say;
use crate::peers::options::{Options, USAGE};
use crate::runs::program;

/// Measures what the arguments of this process ask for.
///
/// # Panics
/// If no thread can be started.
#[must_use]
#[tokio::main]
pub async fn main() -> ExitCode {
    program(USAGE, Options::parse, run).await
}

async fn run(options: Options) -> Result<(), String> {
    let began = Instant::now();
    let into = &options.into;
    let written = |path: &Path, why: std::io::Error| format!("{} cannot be written: {why}", path.display());
    std::fs::create_dir_all(into).map_err(|why| written(into, why))?;
    // On the disk of the report, and removed at the end.
    let work = tempfile::Builder::new().prefix("work-").tempdir_in(into).map_err(|why| written(into, why))?;
    let measured = measure::all(&binary(), work.path(), &options).await?;
    let write = |name: &str, text: &str| -> Result<PathBuf, String> {
        let path = into.join(name);
        std::fs::write(&path, text).map_err(|why| written(&path, why))?;
        Ok(path)
    };
    let json = write("peers.json", &format!("{:#}\n", page::document(&measured, &options)))?;
    let html = write("peers.html", &page::html(&measured, &options))?;
    say(page::table(&measured).trim_end());
    page::notes(&measured).iter().for_each(|note| say(note));
    say(&format!("{} and {} after {} s", html.display(), json.display(), began.elapsed().as_secs()));
    Ok(())
}
