//! A cart service on the Rejoin SDK, as a starting point for a service of your own.
//!
//! ```text
//! cart-service --profile DIR/profile.toml show ann
//! cart-service --profile DIR/profile.toml add ann apples 3
//! cart-service --profile DIR/profile.toml remove ann apples
//! cart-service --profile DIR/profile.toml tour
//! ```
//!
//! `rejoin dev` starts a cluster with a bucket `cart` that the cart plugin merges, and writes such a profile.
//! [`service`] is the service, [`tour`] shows what happens when two devices change one cart at the same time.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line program talks to people")]

mod command;
mod service;
mod tour;

use std::process::ExitCode;

use anyhow::{Context, Result};
use command::{Args, Command};
use service::{CartService, print};

use rejoin_client::Client;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n\n{}", command::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let client = Client::from_profile(&args.profile)
        .await
        .with_context(|| format!("connecting by {}", args.profile.display()))?;
    let carts = CartService::new(&client, &args.bucket, "shell")?;
    match args.command {
        Command::Show { user } => print(&user, &carts.show(&user).await?),
        Command::Add { user, item, quantity } => print(&user, &carts.add(&user, &item, quantity).await?),
        Command::Remove { user, item } => print(&user, &carts.remove(&user, &item).await?),
        Command::Tour => tour::run(&client, &args.bucket).await?,
    }
    Ok(())
}
