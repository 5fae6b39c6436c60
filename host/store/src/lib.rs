//! The storage engine of a node: committed changes survive a crash, and losses on the disk are reported.
//!
//! ```text
//! DataDir            one node's directory: lock, identity, clean-stop mark, control files, plugin modules
//!   audit/           the audit log: records that are bound to each other by hashes
//!   shard-000/       one ShardStore each: journal/ (hash-chained segments), mark (its witness), tree/ (lsm-tree)
//! ```
//!
//! The crate does no networking, knows nothing of objects, actors or plugins, and never decides what a loss means: it
//! reports, and the node acts. Reading order: `shard/mod.rs` (a write, a read, a commit), `shard/sync.rs`,
//! `shard/maintenance.rs`, `shard/open.rs` (a start), then `journal`, `shard/tree` and `sealed` (encryption).
//!
//! A [`ShardStore`] is the core's [`Store`](rejoin_core::port::Store). Changes are visible at once, are written to the
//! journal file by one [`ShardStore::commit`] per batch (kill -9 cannot lose them from there on), and become durable by
//! [`Syncer::sync`], from any thread, while the shard goes on. Flushes and compactions run where [`Maintenance`] runs.
//!
//! Three rules hold everywhere:
//! - The tree never holds rows that are not durable in the journal: a flush syncs the journal first. So the end of the
//!   journal is the end of the shard, and replay is "apply everything that is left, in order".
//! - Only records that no finished sync covers may be cut as torn. Everything else that is missing or damaged is
//!   *lost*: opening succeeds, [`Recovery::lost`] tells what, and each start repeats it until
//!   [`ShardStore::settle_loss`].
//! - A failed write or sync is never retried into success: the store is poisoned and every later call fails.
#![forbid(unsafe_code)]

mod audit;
mod blob;
mod dir;
mod disk;
mod error;
mod io_cause;
mod journal;
mod lock;
mod pinned;
mod sealed;
mod shard;
mod start;

pub use audit::{AuditFindings, AuditLog, AuditPart, Room};
pub use dir::{ControlFile, DataDir, FORMAT_VERSION, Identity, Inspection, Modules};
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::{FileError, OpenError};
pub use sealed::{Key, KeyId, Keys};
pub use shard::{
    CommitSeq, Descriptors, Maintenance, MaintenanceThread, Options, Recovery, ScanError, ScanLimit, ScanStep,
    SealedRows, ShardStore, Snapshot, Stats, StopMaintenance, StoreWatch, Syncer, UnreadableRange, WorkDone,
};
pub use start::Start;
