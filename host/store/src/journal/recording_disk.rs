//! A disk that records every write, for tests of the writer.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile, OsDisk};

/// A write: its offset and its bytes.
pub(super) type Write = (u64, Vec<u8>);

/// The real disk and a record of the writes.
#[derive(Clone, Default)]
pub(super) struct RecordingDisk {
    writes: Arc<Mutex<Vec<Write>>>,
    /// Writes of nothing but zeros fail for want of room.
    pub(super) no_room_for_zeros: bool,
}

impl RecordingDisk {
    /// The writes since the last call.
    pub(super) fn writes(&self) -> Vec<Write> {
        std::mem::take(&mut self.writes.lock().expect("no test panics with it"))
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(RecordingFile { file, disk: self.clone() })
    }
}

impl Disk for RecordingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(OsDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(OsDisk.open(path)?))
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
        OsDisk.free_space(dir)
    }
}

struct RecordingFile {
    file: Arc<dyn DiskFile>,
    disk: RecordingDisk,
}

impl DiskFile for RecordingFile {
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
        if self.disk.no_room_for_zeros && bytes.iter().all(|byte| *byte == 0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.writes.lock().expect("no test panics with it").push((offset, bytes.to_vec()));
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
