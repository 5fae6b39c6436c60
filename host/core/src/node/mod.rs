//! The decisions of a node around its shards: sans-IO machines that the node's tasks and the simulator both run.
//!
//! A task of the node reads a clock, a socket or a disk, hands the result to a machine, and does what the machine asks
//! for. It decides nothing by itself, so the simulator tests the decisions of the real node. The model is quinn-proto's
//! `Connection`.
//!
//! - [`batch`]: group commit of one shard, and when its effects may leave the node.
//! - [`links`]: the connections to the other nodes, and when a starting node begins to serve.
//! - [`actors`]: the actors that nodes announce in their hellos.
//! - [`clocks`]: wrong wall clocks.
//! - [`identity`]: disk ids, by which a replaced data directory is noticed.
//! - [`route`]: the receiver of a peer's message within the node.

pub mod actors;
pub mod batch;
pub mod clocks;
pub mod identity;
pub mod links;
pub mod route;
mod sync_queue;

pub use sync_queue::MAX_WAITING;
