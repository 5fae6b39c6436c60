//! What the ready-made merges are for, one short story each, as a starting point for a service of your own.
//!
//! ```text
//! rejoin bucket create visits --merge counter     # and so on, see `stories`
//! merges --profile DIR/profile.toml counter
//! merges --profile DIR/profile.toml all
//! ```
//!
//! No story reads before it writes: an *operation* is applied by the node that coordinates it. [`stories`] has them,
//! [`merged`] has two merges of whole values. [`document`] is the story of a plugin that has to be pushed first:
//!
//! ```text
//! rejoin plugin build plugins/document
//! rejoin plugin push document.wasm                # prints the digest
//! rejoin bucket create notes --plugin DIGEST
//! merges --profile DIR/profile.toml document
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program talks to people")]

mod document;
mod merged;
mod stories;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use rejoin_client::Client;

const USAGE: &str = "usage: merges --profile FILE counter|set|metadata|leaderboard|last-writer|max|all|document";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [option, profile, story] = arguments.as_slice() else { return usage() };
    if option != "--profile" {
        return usage();
    }
    match run(&PathBuf::from(profile), story).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

async fn run(profile: &std::path::Path, story: &str) -> Result<()> {
    let client = Client::from_profile(profile).await.with_context(|| format!("connecting by {}", profile.display()))?;
    // A key of its own, so that a story can be told again.
    let key = format!("story-{:08x}", rand::random::<u32>());
    match story {
        "counter" => stories::counter(&client, &key).await,
        "set" => stories::set(&client, &key).await,
        "metadata" => stories::metadata(&client, &key).await,
        "leaderboard" => stories::leaderboard(&client, &key).await,
        "last-writer" => merged::last_writer(&client, &key).await,
        "max" => merged::max(&client, &key).await,
        "document" => document::document(&client, &key).await,
        "all" => {
            stories::counter(&client, &key).await?;
            stories::set(&client, &key).await?;
            stories::metadata(&client, &key).await?;
            stories::leaderboard(&client, &key).await?;
            merged::last_writer(&client, &key).await?;
            merged::max(&client, &key).await
        }
        other => bail!("there is no story of {other:?}; {USAGE}"),
    }
}
