//! Real nodes on real sockets and real files: what the tests of this crate are set up with.
//!
//! In reading order: [`Files`] of a cluster, [`Process`] that runs one node of it, [`Cluster`] of such processes,
//! [`http`] for its admin ports, [`cli`] for the command line, [`guests`] for plugins, [`book`] for the commands that
//! documents show, [`load`] of clients beside a test, [`figures`] and `runs` for the programs that measure. Of two of
//! these all but the start is here, so that their tests run without the feature `measure`: [`peers`] and [`overload`].
#![forbid(unsafe_code)]

pub mod book;
pub mod cli;
mod cluster;
pub mod figures;
mod files;
pub mod guests;
pub mod http;
mod intruder;
pub mod load;
pub mod overload;
pub mod peers;
mod process;
mod runs;
mod wait;

pub use cluster::Cluster;
pub use files::{Files, Seat, cluster_id, name, own_loopback};
pub use intruder::Intruder;
pub use process::{Process, binary};
pub use wait::{eventually, within};
