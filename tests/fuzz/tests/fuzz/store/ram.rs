//! A disk in memory, so that thousands of starts cost no sync.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rejoin_store::{Disk, DiskFile};

/// Files by path. A clone is the same disk; [`Ram::below`] and [`Ram::above`] make another one.
#[derive(Clone, Default)]
pub(super) struct Ram(Arc<Mutex<BTreeMap<PathBuf, Arc<RamFile>>>>);

#[derive(Default)]
struct RamFile(Mutex<Vec<u8>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ram {
    /// A copy of the files in a folder and below it, under paths relative to it.
    pub(super) fn below(&self, dir: &Path) -> Self {
        let files = self
            .list_all()
            .into_iter()
            .filter_map(|(path, bytes)| Some((path.strip_prefix(dir).ok()?.to_path_buf(), bytes)));
        Self::of(files)
    }

    /// A copy of all files, put into a folder.
    pub(super) fn above(&self, dir: &Path) -> Self {
        Self::of(self.list_all().into_iter().map(|(path, bytes)| (dir.join(path), bytes)))
    }

    fn of(files: impl Iterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        Self(Arc::new(Mutex::new(files.map(|(path, bytes)| (path, Arc::new(RamFile(Mutex::new(bytes))))).collect())))
    }

    /// All files.
    pub(super) fn list_all(&self) -> Vec<(PathBuf, Vec<u8>)> {
        lock(&self.0).iter().map(|(path, file)| (path.clone(), lock(&file.0).clone())).collect()
    }

    /// The content of a file.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        lock(&lock(&self.0)[path.as_ref()].0).clone()
    }

    /// Replaces a file.
    pub(super) fn write(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        lock(&self.0).insert(path.as_ref().to_path_buf(), Arc::new(RamFile(Mutex::new(bytes.to_vec()))));
    }
}

impl Disk for Ram {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.write(path, b"");
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        lock(&self.0)
            .get(path)
            .cloned()
            .map(|file| file as Arc<dyn DiskFile>)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| {
            (path.parent() == Some(dir)).then(|| path.file_name()?.to_str().map(str::to_owned)).flatten()
        };
        Ok(lock(&self.0).keys().filter_map(name).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl DiskFile for RamFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let length = bytes.len().max(length as usize);
        bytes.resize(length, 0);
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        lock(&self.0).resize(length as usize, 0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.preallocate(offset + bytes.len() as u64)?;
        lock(&self.0)[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = content.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
