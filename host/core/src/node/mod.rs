//! What a node decides around its shards: sans-IO machines that the node's tasks and the simulator both run.
//!
//! A task of the node reads a clock, a socket or a disk, hands what it found to a machine, and does what the machine
//! asks for. It decides nothing by itself, so the simulator exercises the decisions of the real node. The model is
//! quinn-proto's `Connection`.
//!
//! - [`batch`]: one shard behind its journal. Events go in; after the commit comes out what may leave the node.
//! - [`links`]: the connections to the other nodes, and when a starting node begins to serve.
//! - [`clocks`]: whose wall clock is wrong.
//! - [`identity`]: what a node remembers of its own disk and of the disks of its peers.
//! - [`route`]: to which shard a peer's message goes.

pub mod batch;
pub mod clocks;
pub mod identity;
pub mod links;
pub mod route;
mod sync_queue;

pub use sync_queue::MAX_WAITING;
