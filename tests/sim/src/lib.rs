//! The whole cluster in one thread: the real core under virtual time, network and disks, all of it drawn from one seed.
//!
//! A [seed](run::seed) is a run: its [options], its faults and its clients follow from it, and so does every message.
//! After the chaos everything is healed and must come together; then the [record](history) of the run goes to the
//! checkers.
//!
//! What is real: `rejoin-core` and `rejoin-proto`, the merges of `plugins/cart`, and for a share of the seeds the whole
//! of `rejoin-merge`. What is simulated, by the rules of the real parts: the node's driver and its connections
//! (`world`), the store (`disk`), the network (`network`) and the clients (`workload`). The `atlas` keeps faults from
//! asking for the impossible.

#![forbid(unsafe_code)]

mod atlas;
pub mod campaign;
pub mod check;
mod describe;
mod disk;
pub mod history;
mod keys;
mod network;
pub mod options;
mod plugins;
mod record;
pub mod rng;
pub mod run;
pub mod swarm;
pub mod trace;
mod trees;
mod workload;
mod world;

pub use plugins::of as native;
