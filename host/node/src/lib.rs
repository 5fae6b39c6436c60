//! Where the parts meet: shards, sessions, peers, admission, the admin port and metrics.
//!
//! What is here: everything with a clock, a thread or a socket. What is not: decisions (`rejoin-core`), files
//! (`rejoin-store`), plugins (`rejoin-merge`), frames (`rejoin-wire`).
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = rejoin_node::Config::load("node.toml".as_ref())?;
//! let node = rejoin_node::Node::start(config).await?;
//! println!("{} serves on {}", node.name(), node.address());
//! let why = node.failed().await;
//! eprintln!("the node has stopped: {why}");
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: `node` (start and stop), [`config`], `bootstrap` (the list of nodes), `open` (what is found on the
//! disk), `run` (threads and tasks), `driver` (one shard's loop), `syncing`, `peers`, `session`, `operator`, `catalog`,
//! `certificates`, `leaving` (a graceful stop), `modules`, `merging`, `http`, `metrics`, `problems`, `faults`,
//! [`token`], [`platform`], [`clock`].
#![forbid(unsafe_code)]

mod admin;
mod bootstrap;
mod catalog;
mod certificates;
pub mod clock;
pub mod config;
mod driver;
mod faults;
mod http;
mod leaving;
mod merging;
mod metrics;
mod modules;
mod node;
mod open;
mod operator;
mod parts;
mod peers;
pub mod platform;
mod problems;
mod run;
mod session;
mod syncing;
pub mod token;

pub use config::{BootstrapNode, Config, ConfigError};
pub use node::{Node, StartError, StopError};
pub use platform::Platform;
/// What the `main` of a program does that compiles plugins for its nodes.
pub use rejoin_merge::{child_main, is_child};
pub use token::{Secret, root_token};
