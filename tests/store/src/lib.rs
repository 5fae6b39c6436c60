//! Shared parts of the store's tests: a disk in memory that records calls and fails, scripts, a model of what the store
//! promises, and the checks after a crash. Nothing here uses the store's own formats, except to damage them.
//!
//! Reading order: [`script`], [`MemoryDisk`], [`Model`], [`Recording`] and [`Cursor`], [`verify`](verify()),
//! [`campaign`].
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod attempt;
mod campaign;
mod faults;
mod machine;
mod model;
mod node;
mod random;
mod recording;
mod script;
mod transcript;
mod tree;
mod verify;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::{Disk, OpenError, Options, OsDisk, Recovery, ShardStore, Start};

pub use attempt::{Attempt, Stopped, passes};
pub use campaign::{Cuts, campaign, recording, scratch};
pub use faults::{FaultDisk, Faults, Gate};
pub use machine::{
    Call, Content, Crash, DiskEvent, Fault, FileChange, Image, Machine, MemoryDisk, Noise, SECTOR, Survival, sealed,
};
pub use model::{Model, Rows};
pub use node::{Node, SHARD, keys_of};
pub use random::Random;
pub use recording::{Cursor, Event, Promise, Recording, STEPS, Witness};
pub use script::{Step, script};
pub use transcript::transcript;
pub use tree::Tree;
pub use verify::{Expected, Loss, Outcome, verify};

/// The bytes of a segment's two slots, in front of its header: each has half of them.
pub const FRONT: usize = 8192;

/// Options with small limits, so that a test reaches them.
pub fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        memtable_bytes: 128 << 10,
        write_buffer_rows: 16,
        free_space_floor: 0,
        cache_bytes: 1 << 20,
        ..Options::default()
    }
}

/// Opens a shard on the real disk.
pub fn open(dir: &Path, start: Start) -> (ShardStore, Recovery) {
    open_on(dir, Arc::new(OsDisk), start).unwrap()
}

/// Opens a shard with [`small`] limits on this disk.
pub fn open_on(dir: &Path, disk: Arc<dyn Disk>, start: Start) -> Result<(ShardStore, Recovery), OpenError> {
    ShardStore::open(dir, small(), disk, &start)
}

/// A change of one row.
pub fn put(space: Space, key: &str, value: &str) -> Change {
    let mut change = Change::default();
    change.put(space, key.as_bytes().to_vec(), value.as_bytes().to_vec());
    change
}

/// The text under a key.
pub fn get(store: &ShardStore, space: Space, key: &str) -> Option<String> {
    store.get(space, key.as_bytes()).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// All rows of a space.
pub fn rows(store: &ShardStore, space: Space) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: bytes::Bytes| {
        rows.push((String::from_utf8(key.to_vec()).unwrap(), String::from_utf8(value.to_vec()).unwrap()));
        ControlFlow::Continue(())
    };
    store.scan(space, b"", None, &mut visit).unwrap();
    rows
}

/// The journal's segments, in order.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// Copies a directory recursively.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One past the last byte that is not zero.
pub fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Changes a file in place.
pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// CRC-32C, bit by bit.
#[must_use]
pub fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}
