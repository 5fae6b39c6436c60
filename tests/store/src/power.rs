//! A disk whose power can fail: what was not synced is gone, or there in part, sector by sector, as the disk pleases.

use rejoin_store::{Disk, DiskFile, OsDisk};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What of a file is on the platter.
type Platter = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
struct Names {
    /// As the process sees them.
    live: BTreeMap<PathBuf, Platter>,
    /// As they would be found after a power failure.
    durable: BTreeMap<PathBuf, Platter>,
}

/// The real disk, with a memory of what of it is durable. It must see a directory from its first file on.
#[derive(Clone, Default)]
pub struct PowerDisk {
    names: Arc<Mutex<Names>>,
}

impl PowerDisk {
    /// Cuts the power: `keep(n)` decides, below n, what survives of what was never synced.
    pub fn fail(&self, keep: &mut dyn FnMut(u64) -> u64) {
        let mut names = self.names.lock().unwrap();
        let Names { live, durable } = &*names;
        let mut found = Vec::new();
        for (path, platter) in durable {
            // An unsynced name may have reached the disk too.
            let platter = live.get(path).filter(|_| keep(2) == 0).unwrap_or(platter);
            let seen = live.iter().find(|(_, other)| Arc::ptr_eq(other, platter)).and_then(|(path, _)| std::fs::read(path).ok());
            let bytes = mixed(&platter.lock().unwrap(), seen.as_deref(), keep);
            found.push((path.clone(), bytes));
        }
        for (path, platter) in live {
            if !durable.contains_key(path) && keep(2) == 0 {
                let seen = std::fs::read(path).ok();
                found.push((path.clone(), mixed(&platter.lock().unwrap(), seen.as_deref(), keep)));
            }
        }
        live.keys().for_each(|path| drop(std::fs::remove_file(path)));
        *names = Names::default();
        for (path, bytes) in found {
            std::fs::write(&path, &bytes).unwrap();
            let platter = Arc::new(Mutex::new(bytes));
            names.live.insert(path.clone(), Arc::clone(&platter));
            names.durable.insert(path, platter);
        }
    }
}

/// Sectors of what was synced and of what was seen.
fn mixed(synced: &[u8], seen: Option<&[u8]>, keep: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
    let mut bytes = synced.to_vec();
    let Some(seen) = seen else { return bytes };
    if seen.len() > bytes.len() {
        bytes.resize(seen.len(), 0);
    }
    for (old, new) in bytes.chunks_mut(512).zip(seen.chunks(512)) {
        if old[..new.len()] != *new && keep(2) == 0 {
            old[..new.len()].copy_from_slice(new);
        }
    }
    bytes
}

impl Disk for PowerDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OsDisk.create(path)?;
        let platter = Arc::clone(self.names.lock().unwrap().live.entry(path.to_path_buf()).or_default());
        Ok(Arc::new(PowerFile { file, platter }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OsDisk.open(path)?;
        let platter = Arc::clone(self.names.lock().unwrap().live.get(path).expect("a file that the disk knows"));
        Ok(Arc::new(PowerFile { file, platter }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)?;
        let mut names = self.names.lock().unwrap();
        let platter = names.live.remove(from).expect("a file that the disk knows");
        names.live.insert(to.to_path_buf(), platter);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)?;
        self.names.lock().unwrap().live.remove(path);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names.lock().unwrap();
        let Names { live, durable } = &mut *names;
        durable.retain(|path, _| path.parent() != Some(dir));
        let here = live.iter().filter(|(path, _)| path.parent() == Some(dir));
        durable.extend(here.map(|(path, platter)| (path.clone(), Arc::clone(platter))));
        Ok(())
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_space(dir)
    }
}

struct PowerFile {
    file: Arc<dyn DiskFile>,
    platter: Platter,
}

impl DiskFile for PowerFile {
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
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut bytes = vec![0; self.file.length()? as usize];
        self.file.read_at(&mut bytes, 0)?;
        *self.platter.lock().unwrap() = bytes;
        Ok(())
    }
}
