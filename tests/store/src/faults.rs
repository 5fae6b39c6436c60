//! A disk that fails, fills up or holds on when it is told to; otherwise the real one.

use rejoin_store::{Disk, DiskFile, OsDisk};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

/// Holds callers back until it is opened, and says how many wait.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    /// From now on callers wait.
    pub fn close(&self) {
        self.state.lock().unwrap().0 = true;
    }

    /// Lets all callers go.
    pub fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Waits until so many callers wait.
    pub fn wait_for(&self, waiting: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.1 < waiting).unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.0).unwrap();
        state.1 -= 1;
    }
}

/// What is wrong with the disk.
#[derive(Default)]
pub struct Faults {
    /// Syncs of files fail.
    pub fail_sync: AtomicBool,
    /// Writes fail.
    pub fail_write: AtomicBool,
    /// There is no room.
    pub full: AtomicBool,
    /// Syncs wait here.
    pub syncs: Gate,
}

/// The real disk with faults.
#[derive(Clone, Default)]
pub struct FaultDisk {
    /// What is wrong with it.
    pub faults: Arc<Faults>,
}

impl FaultDisk {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile { file, faults: Arc::clone(&self.faults) })
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(OsDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(OsDisk.open(path)?))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        if self.faults.full.load(SeqCst) { Ok(0) } else { OsDisk.free_space(dir) }
    }
}

struct FaultFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        if self.faults.full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.file.preallocate(length) }
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.faults.fail_write.load(SeqCst) {
            Err(io::Error::other("a fault in the test disk"))
        } else {
            self.file.write_at(bytes, offset)
        }
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.syncs.pass();
        if self.faults.fail_sync.load(SeqCst) { Err(io::Error::other("a fault in the test disk")) } else { self.file.sync_data() }
    }
}
