//! Seven real `rejoin serve` processes in three zones, five of them members at first, under faults and changes of the
//! layout that are drawn from a seed, while several clients write sets, carts and deletes. Afterwards everything is
//! healed, the owners must agree, and the checkers of the simulator judge the recorded history.
//!
//! In reading order: [`plan`] draws the faults, [`changes`] the changes of the layout. [`ground`] makes the place for
//! the nodes: network namespaces, disks and wall clocks of their own, as far as the machine allows. [`nodes`] runs the
//! processes and applies faults to them, [`operator`] carries changes out. [`clients`] puts load on the cluster and
//! records every call. [`atlas`] refuses to wipe a disk that has the only copy of an acknowledged write, and [`health`]
//! knows which nodes were certainly well. [`healing`] waits until all owners show the same. [`storm`] runs all of it,
//! and [`verdict`] says how it ended.
#![forbid(unsafe_code)]

pub mod atlas;
pub mod changes;
pub mod clients;
pub mod ground;
pub mod healing;
pub mod health;
pub mod nodes;
pub mod operator;
pub mod plan;
pub mod recording;
pub mod ring;
pub mod storm;
pub mod verdict;

/// The nodes.
pub const NODES: u8 = 7;
/// Of these, so many are members of the first layout. The others join.
pub const MEMBERS: u8 = 5;
/// The zones that they are spread over.
pub const ZONES: u8 = 3;
