//! Fault injection for demonstrations and tests (`dev_faults`): cut connections, journal writes and syncs that block,
//! and an engine that seems to compute wrongly, or to be one of another release.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::RuntimeFlavor;

use rejoin_proto::NodeId;
use rejoin_store::{Disk, DiskFile};

use crate::lock::lock;

/// The present faults. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    cut: BTreeSet<NodeId>,
    hold_sync: bool,
    hold_journal: bool,
    held: usize,
    engine: SeemingEngine,
}

/// A disk operation that can be blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeldOperation {
    Sync,
    JournalWrite,
}

thread_local! {
    /// Whether this thread, although it is within a runtime, is there to be blocked.
    static IS_FOR_BLOCKING: Cell<bool> = const { Cell::new(false) };
}

/// Does work that may be blocked, on a thread for blocking work.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    IS_FOR_BLOCKING.set(true);
    let done = work();
    IS_FOR_BLOCKING.set(false);
    done
}

/// What the engine that runs plugins seems to be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum SeemingEngine {
    /// What it is.
    #[default]
    Own,
    /// One that computes otherwise.
    Wrong,
    /// That of another release.
    Other,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    pub(crate) fn cut(&self, peer: NodeId) {
        self.state().cut.insert(peer);
    }

    pub(crate) fn heal(&self) {
        self.state().cut.clear();
    }

    pub(crate) fn is_cut(&self, peer: NodeId) -> bool {
        self.state().cut.contains(&peer)
    }

    pub(crate) fn hold(&self, what: HeldOperation) {
        match what {
            HeldOperation::Sync => self.state().hold_sync = true,
            HeldOperation::JournalWrite => self.state().hold_journal = true,
        }
    }

    pub(crate) fn release(&self) {
        let mut state = self.state();
        (state.hold_sync, state.hold_journal) = (false, false);
        drop(state);
        self.0.released.notify_all();
    }

    /// Whether a write to a journal would be blocked now.
    pub(crate) fn holds_journal(&self) -> bool {
        self.state().hold_journal
    }

    /// How many disk operations are blocked.
    pub(crate) fn held(&self) -> usize {
        self.state().held
    }

    /// What the engine seems to be, by the transcripts of plugins that are loaded from now on.
    pub(crate) fn seem(&self, engine: SeemingEngine) {
        self.state().engine = engine;
    }

    pub(crate) fn engine(&self) -> SeemingEngine {
        self.state().engine
    }

    fn wait(&self, holds: fn(&State) -> bool) {
        if !holds(&self.state()) {
            return;
        }
        // The release comes over the network, and its tasks may be on this very thread. On the thread of a loop nothing
        // is blocked: the shards' drivers do their batches elsewhere from when they see that something is.
        match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(_) if IS_FOR_BLOCKING.get() => self.wait_here(holds),
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| self.wait_here(holds)),
            Ok(_) => {}
            Err(_) => self.wait_here(holds),
        }
    }

    fn wait_here(&self, holds: fn(&State) -> bool) {
        let mut state = self.state();
        state.held += 1;
        while holds(&state) {
            state = self.0.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held -= 1;
    }
}

/// A disk whose journal writes and syncs block while [`Faults`] says so.
pub(crate) struct FaultDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) faults: Faults,
}

struct FaultFile {
    faults: Faults,
    file: Arc<dyn DiskFile>,
}

impl FaultDisk {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile { faults: self.faults.clone(), file })
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.wrap(file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.wrap(file))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_space(dir)
    }
}

impl DiskFile for FaultFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.file.preallocate(length)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.wait(|state| state.hold_journal);
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.wait(|state| state.hold_sync);
        self.file.sync_data()
    }
}
