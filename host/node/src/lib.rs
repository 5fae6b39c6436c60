//! Where the parts meet: shards, sessions, peers, admission, the admin port and metrics.
//!
//! This crate has everything with a clock, a thread or a socket. Decisions are in `rejoin-core`, files in
//! `rejoin-store`, the plugin engine in `rejoin-merge`, and frames in `rejoin-wire`.
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
//! In reading order: `node` (start and stop), [`config`] and `config_file`, `bootstrap` (the list of nodes), `open`
//! (what is on the disk), `context` (the state that tasks share), `messages` (what tasks send each other), `driver` (a
//! shard's loop), `syncing`, `scanning`, `peers`, `members`, `session` (a client), `operator`, `catalog`, `audit` and
//! `audited`, `certificates` and `renewal`, `drain` (a graceful stop), `plugins` and `plugin_table`, `transcripts`,
//! `merging` and `applying`, `aside` (what would block a loop), `http`, `admin_access` and `metrics`, `problems`,
//! `faults`, [`token`] and `secret`, `encryption`, [`platform`] and [`loops`], [`clock`].
#![forbid(unsafe_code)]

mod admin;
mod admin_access;
mod applying;
mod aside;
mod audit;
mod audited;
mod backlog;
mod bootstrap;
mod buckets;
mod caller;
mod catalog;
mod certificates;
pub mod clock;
pub mod config;
pub mod config_encryption;
pub mod config_exchange;
mod config_file;
pub mod config_members;
mod conflicts;
mod context;
mod control_files;
mod drain;
mod driver;
mod encryption;
mod engine;
mod error;
mod failure_log;
mod faults;
mod frames;
mod http;
mod joining;
mod lag;
mod law_checks;
mod law_siblings;
mod layouts;
mod lock;
pub mod loops;
mod members;
mod merging;
mod messages;
mod metering;
mod metrics;
mod node;
mod open;
mod operator;
mod peer_table;
mod peers;
pub mod platform;
mod plugin_figures;
mod plugin_table;
mod plugins;
mod problems;
mod quotas;
mod readiness;
mod receipts;
mod renewal;
mod requests;
mod ring;
mod run;
mod scanning;
mod secret;
mod sentinel;
mod session;
mod sessions;
mod shadowing;
mod share_threads;
mod signing;
mod sizes;
mod syncing;
pub mod token;
mod transcripts;
mod view;

/// A Grafana dashboard of the metrics of nodes, as JSON to be imported.
pub const DASHBOARD: &str = include_str!("../dashboard.json");

pub use config::{BootstrapNode, Config, ConfigError};
pub use encryption::{BadKeys, EncryptionKeys};
pub use error::{StartError, StopError};
pub use loops::LoopThreads;
pub use node::Node;
pub use platform::Platform;
/// For the `main` of a program whose nodes compile plugins in child processes.
pub use rejoin_merge::{child_main, is_child};
pub use secret::{BadSecret, Secret};
pub use token::root_token;
