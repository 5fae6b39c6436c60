//! Cost of each part of an operation: messages, tree, journal, join, merge.
//!
//! A part repeats its work as often as the caller asks; the caller measures. Criterion does so in
//! `cargo bench -p rejoin-test-bench --features measure`, and `rejoin-bench-distance` (`cargo xtask bench`) puts the
//! parts beside whole operations of a cluster. Both count CPU time of the process, user and system and all its threads
//! together: on a shared machine it says more than the clock on the wall.
#![forbid(unsafe_code)]

mod absorb;
mod cpu;
mod crowd;
mod journal;
pub mod layouts;
#[cfg(feature = "measure")]
mod measurement;
mod memory;
mod merge;
mod object;
mod rpc;
mod tree;

pub use absorb::{Absorb, siblings};
pub use cpu::CpuTime;
pub use crowd::{Cost, Crowd};
pub use journal::{Journal, Sync};
pub use merge::Merge;
pub use object::Objects;
pub use rpc::Rpc;
pub use tree::Tree;

/// Bytes of a small value, the same as in the figures of the README.
pub const SMALL: usize = 100;

/// Bytes that do not compress well.
#[must_use]
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap_or_default()).collect()
}
