//! The real disk with faults that a test switches on: failing calls, no room, blocked syncs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use rustix::io::Errno;

use rejoin_store::{Disk, DiskFile, OsDisk};

/// Blocks callers while it is closed, and counts them.
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

/// The present faults.
#[derive(Default)]
pub struct Faults {
    /// Syncs of files fail.
    pub fail_sync: AtomicBool,
    /// Writes fail.
    pub fail_write: AtomicBool,
    /// There is no room.
    pub full: AtomicBool,
    /// There is no memory to reserve room with.
    pub no_memory: AtomicBool,
    /// The call with this number, counted from 0, fails with this error.
    pub once: Mutex<Option<(u64, Errno)>>,
    /// The number of calls so far.
    pub calls: AtomicU64,
    /// The disk cannot read this file.
    pub unreadable: Mutex<Option<PathBuf>>,
    /// Syncs wait here.
    pub syncs: Gate,
}

impl Faults {
    /// Counts a call, and fails it if it is the one.
    fn count(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, SeqCst);
        match *self.once.lock().unwrap() {
            Some((which, errno)) if which == call => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

/// The real disk with faults.
#[derive(Clone, Default)]
pub struct FaultDisk {
    /// Its faults.
    pub faults: Arc<Faults>,
}

impl FaultDisk {
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile { path: path.to_path_buf(), file, faults: Arc::clone(&self.faults) })
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.count()?;
        Ok(self.wrap(path, OsDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.count()?;
        Ok(self.wrap(path, OsDisk.open(path)?))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.faults.count()?;
        OsDisk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.count()?;
        OsDisk.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.count()?;
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.count()?;
        OsDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.count()?;
        OsDisk.sync_dir(dir)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.faults.count()?;
        if self.faults.full.load(SeqCst) { Ok(0) } else { OsDisk.free_space(dir) }
    }
}

struct FaultFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultFile {
    fn length(&self) -> io::Result<u64> {
        self.faults.count()?;
        self.file.length()
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        if self.faults.no_memory.load(SeqCst) {
            return Err(Errno::NOMEM.into());
        }
        if self.faults.full.load(SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            self.file.preallocate(length)
        }
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
        self.faults.count()?;
        let unreadable = self.faults.unreadable.lock().unwrap().as_ref() == Some(&self.path);
        if unreadable { Err(Errno::IO.into()) } else { self.file.read_at(bytes, offset) }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.syncs.pass();
        if self.faults.fail_sync.load(SeqCst) {
            Err(io::Error::other("a fault in the test disk"))
        } else {
            self.file.sync_data()
        }
    }
}
