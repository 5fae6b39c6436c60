//! The store's input from its disk: records, damaged files, small files.

mod files;
mod ram;
mod records;
mod segments;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ram::Ram;

use rejoin_core::port::{Change, Space, Store};
use rejoin_store::{Options, Recovery, ShardStore, Start};

/// Small limits: a segment for every few records.
fn options() -> Options {
    Options { segment_bytes: 2 << 10, free_space_floor: 0, cache_bytes: 1 << 20, ..Options::default() }
}

/// A shard that was closed cleanly: its rows, the files of its journal, and its tree on the real disk.
struct Base {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    disk: Ram,
    dir: tempfile::TempDir,
}

/// Ten records, pinned rows among them, in some segments. Each value tells its key and how often that was written.
static BASE: LazyLock<Base> = LazyLock::new(|| {
    let (dir, disk, mut rows) = (tempfile::tempdir().unwrap(), Ram::default(), BTreeMap::new());
    let shard = dir.path().join("shard");
    std::fs::create_dir(&shard).unwrap();
    let (mut store, _) = ShardStore::open(&shard, options(), Arc::new(disk.clone()), &Start::FIRST).unwrap();
    for at in 0..10u32 {
        let (space, key) = if at % 3 == 2 {
            (Space::Pinned, format!("pinned {}", at % 4))
        } else {
            (Space::Objects, format!("key {}", at % 4))
        };
        let value = format!("{key} as of {at} {}", "and more ".repeat(60));
        let mut change = Change::default();
        change.put(space, key.clone().into_bytes(), value.clone().into_bytes());
        store.write(change).unwrap();
        store.commit().unwrap();
        rows.insert(row(space, key.as_bytes()), value.into_bytes());
    }
    store.close().unwrap();
    Base { rows, disk: disk.below(&shard), dir }
});

/// A row's place: its space, then its key.
fn row(space: Space, key: &[u8]) -> Vec<u8> {
    let space = match space {
        Space::Objects => 0,
        Space::Pinned => 1,
        Space::Trees => 4,
        Space::Receipts => 8,
    };
    [&[space], key].concat()
}

/// A copy of the base as it is found after a clean stop, with whatever has happened to its files. The folder lives as
/// long as the store.
struct Opened {
    store: ShardStore,
    recovery: Recovery,
    disk: Ram,
    dir: tempfile::TempDir,
}

impl Opened {
    /// Opens a copy of the base on these files.
    fn on(disk: &Ram) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("shard");
        copy(&BASE.dir.path().join("shard"), &shard);
        Self::open(dir, disk.above(&shard))
    }

    fn open(dir: tempfile::TempDir, disk: Ram) -> Self {
        let (store, recovery) =
            ShardStore::open(dir.path().join("shard"), options(), Arc::new(disk.clone()), &Start::CLEAN).unwrap();
        Self { store, recovery, disk, dir }
    }

    /// Stops and starts it.
    fn again(self) -> Self {
        self.store.close().unwrap();
        Self::open(self.dir, self.disk)
    }

    /// Everything there is.
    fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut rows = BTreeMap::new();
        for space in [Space::Objects, Space::Pinned, Space::Trees, Space::Receipts] {
            let mut visit = |key: &[u8], value: bytes::Bytes| {
                rows.insert(row(space, key), value.to_vec());
                ControlFlow::Continue(())
            };
            self.store.scan(space, b"", None, &mut visit).unwrap();
        }
        rows
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(path, to.join(name)).unwrap();
        }
    }
}
