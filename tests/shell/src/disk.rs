//! Files of the machine that are never synced.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rejoin_store::{Disk, DiskFile, OsDisk};

/// The machine's files without their syncs. In a simulation nodes are killed and the machine is not, and what was
/// written outlives that; a sync would only make the test wait for the real disk.
pub(crate) struct PageCache;

struct Unsynced(Arc<dyn DiskFile>);

fn unsynced(file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
    Arc::new(Unsynced(file))
}

impl Disk for PageCache {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.create(path).map(unsynced)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.open(path).map(unsynced)
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
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_space(dir)
    }
}

impl DiskFile for Unsynced {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.0.preallocate(length)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
