//! What makes the replicas of a partition agree: compare what is stored, and send what the other side lacks.
//!
//! In reading order: [`hash`] (what is compared), `trees` (the sums, in memory and on the disk), `recount` (leaves that
//! have to be read again), `own` (what this node has in a range), `lone` (one key that differs, from the sums), `walk`
//! (comparing with a peer), `state` (the walks of a shard), `pace` (how much they may do beside requests), `gaps` (what
//! a replica that has lost something lacks), `gains` (what a new owner takes). The messages are in
//! [`rejoin_proto::exchange`].

pub(crate) mod gains;
pub(crate) mod gaps;
pub mod hash;
pub(crate) mod lone;
pub(crate) mod own;
pub(crate) mod pace;
mod recount;
pub(crate) mod state;
mod trees;
pub(crate) mod walk;

pub use gaps::RebuildProgress;
pub(crate) use recount::Scanned;
pub use state::{ExchangeCommand, ExchangeConfig, ExchangeLoad, ExchangeStatus, PairStatus};
pub use trees::{MAX_LEAF_BYTES, MAX_LEAF_OBJECTS};
pub(crate) use trees::{OldRow, Trees};
pub use walk::{MAX_WALK_BYTES, WalkCounts};
