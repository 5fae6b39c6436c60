//! Remembers: what a node was told survives a crash, and what the disk lost is said aloud.
//!
//! ```text
//! DataDir            one node's directory: lock, identity, clean-stop mark, control files, plugin modules
//!   shard-000/       one ShardStore each: journal/ (hash-chained segments), mark (high-water mark), tree/ (lsm-tree)
//! ```
//!
//! A [`ShardStore`] is the core's [`Store`](rejoin_core::port::Store). Changes are visible at once, are written to the
//! journal file by one [`ShardStore::commit`] per batch (kill -9 cannot lose them from there on), and become durable by
//! [`Syncer::sync`], from any thread, while the shard goes on. Flushes and compactions run where [`Maintenance`] runs.
//!
//! Three rules the whole crate leans on:
//! - The tree never holds what the journal has not got durably: a flush syncs the journal first. So what is left of the
//!   journal decides how far the shard has come, and replay is "apply all that is left, in order".
//! - Only what lies after the high-water mark may be cut as torn. Everything else that is missing or damaged is *loss*:
//!   opening succeeds, [`Recovery::lost`] says what, and it is said again at each start until
//!   [`ShardStore::settle_loss`].
//! - A failed write or sync is never retried into success: the store is poisoned and every later call fails.
#![forbid(unsafe_code)]

mod blob;
mod dir;
mod disk;
mod error;
mod journal;
mod pinned;
mod shard;

pub use dir::{ControlFile, DataDir, FORMAT_VERSION, Found, Identity, Modules, Start};
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::{FileError, OpenError};
pub use shard::{
    CommitSeq, Descriptors, Maintenance, MaintenanceThread, Options, Recovery, ShardStore, Stats, StopMaintenance, StoreWatch, Syncer,
    WorkDone,
};
