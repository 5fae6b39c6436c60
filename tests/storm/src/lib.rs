//! Five real `rejoin serve` processes in three zones, under faults that are drawn from a seed, while several clients
//! write sets, carts and deletes. Afterwards everything is healed, the owners must agree, and the checkers of the
//! simulator judge the recorded history.
//!
//! In reading order: [`plan`] draws the faults. [`ground`] makes the place for the nodes: network namespaces, disks and
//! wall clocks of their own, as far as the machine allows. [`nodes`] runs the processes and applies faults to them.
//! [`clients`] puts load on the cluster and records every call. [`atlas`] refuses to wipe a disk that has the only copy
//! of an acknowledged write. [`healing`] waits until all owners show the same. [`storm`] runs all of it, and
//! [`verdict`] says how it ended.
#![forbid(unsafe_code)]

pub mod atlas;
pub mod clients;
pub mod ground;
pub mod healing;
pub mod nodes;
pub mod plan;
pub mod recording;
pub mod storm;
pub mod verdict;

/// The nodes of the cluster.
pub const NODES: u8 = 5;
/// The zones that they are spread over.
pub const ZONES: u8 = 3;
