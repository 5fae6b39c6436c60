//! The part of a node that opens its directory and its one shard, as `rejoin-node` does.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_proto::id::{ClusterId, NodeId};
use rejoin_store::{DataDir, Identity, Key, Keys, OpenError, Options, Recovery, ShardStore, Start};

use crate::{MemoryDisk, Rows};

/// The owner of the directory.
const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), shards: 1 };
/// The shard's directory, relative to the node's.
pub const SHARD: &str = "shard-000";

/// Limits so small that a few changes fill a segment and some more a memtable. Everything runs on the caller's thread.
#[must_use]
pub(crate) fn tiny() -> Options {
    Options {
        segment_bytes: 2 << 10,
        memtable_bytes: 6 << 10,
        write_buffer_rows: 7,
        reclaim_rows: 4,
        cache_bytes: 64 << 10,
        free_space_floor: 1 << 20,
        ..Options::default()
    }
}

/// The keys of a start of this number, which has those of all starts before: it seals with a key that none of them has
/// used.
#[must_use]
pub fn keys_of(start: u8) -> Keys {
    Keys::new(Key::new([start; 32]), (0..start).map(|before| Key::new([before; 32])))
}

/// An open directory with its shard.
pub struct Node {
    /// The directory.
    pub data: DataDir,
    /// The shard.
    pub store: ShardStore,
    /// How the start found the directory.
    pub start: Start,
    /// How it found the shard.
    pub recovery: Recovery,
}

impl Node {
    /// Opens the directory and the shard, without keys.
    ///
    /// # Errors
    /// What the store says.
    pub fn open(root: &Path, disk: &MemoryDisk) -> Result<Self, OpenError> {
        Self::open_with(root, disk, None)
    }

    /// Opens the directory and the shard with these keys.
    ///
    /// # Errors
    /// What the store says.
    pub fn open_with(root: &Path, disk: &MemoryDisk, keys: Option<Keys>) -> Result<Self, OpenError> {
        let (data, start) = DataDir::open_on(root, IDENTITY, Arc::new(disk.clone()))?;
        DataDir::check_keys(root, IDENTITY.shards, disk, keys.as_ref())?;
        let options = Options { keys: keys.map(Arc::new), ..tiny() };
        let (store, recovery) = ShardStore::open(data.shard_dir(0), options, Arc::new(disk.clone()), &start)?;
        Ok(Self { data, store, start, recovery })
    }

    /// Whether the start calls for new actors.
    #[must_use]
    pub fn needs_new_actors(&self) -> bool {
        self.start.unsynced_may_be_gone() || !self.recovery.lost.is_empty()
    }

    /// Makes new actors durable and settles the loss, as a node does before it takes writes.
    pub fn renew_actors(&mut self) {
        self.store.commit().unwrap();
        self.store.syncer().sync().unwrap();
        self.store.settle_loss().unwrap();
    }

    /// All rows.
    ///
    /// # Errors
    /// What the store says.
    pub fn rows(&self) -> Result<Rows, StoreFault> {
        let mut rows = Rows::new();
        for space in [Space::Objects, Space::Pinned] {
            let mut visit = |key: &[u8], value| {
                let before = rows.insert((space, bytes::Bytes::copy_from_slice(key)), value);
                assert_eq!(before, None, "a scan visits a row once");
                ControlFlow::Continue(())
            };
            self.store.scan(space, b"", None, &mut visit)?;
        }
        Ok(rows)
    }
}
