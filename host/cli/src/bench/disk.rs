//! The time of one fdatasync on this disk, measured during a run: the rate of durable writes depends on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Rare enough not to slow the run.
const INTERVAL: Duration = Duration::from_millis(100);
const BYTES: usize = 4096;

/// A thread that writes and syncs a small file at intervals. Dropped, it is waited for, so that its file is gone also
/// when the run is interrupted.
pub(crate) struct Probe {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Vec<(Instant, Duration)>>>,
}

impl Probe {
    /// Starts in a directory on the disk to measure.
    ///
    /// # Errors
    /// No file can be made in the directory.
    pub(crate) fn start(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(format!("rejoin-bench-probe-{:08x}", rand::random::<u32>()));
        let failed = |why: io::Error| Failure::file(&path, "written and synced", &why);
        let file = TempFile { file: File::create_new(&path).map_err(failed)?, path: path.clone() };
        // The first sync also makes the allocation and the name of the file durable, so it is not measured.
        sync(&file.file).map_err(failed)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let mut took = Vec::new();
            loop {
                let begun = Instant::now();
                if sync(&file.file).is_ok() {
                    took.push((begun, begun.elapsed()));
                }
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return took;
                }
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }

    /// Stops. Returns the start and duration of each fdatasync.
    pub(crate) fn end(mut self) -> Vec<(Instant, Duration)> {
        self.join()
    }

    fn join(&mut self) -> Vec<(Instant, Duration)> {
        drop(self.stop.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.join();
    }
}

fn sync(file: &File) -> io::Result<()> {
    file.write_all_at(&[7; BYTES], 0)?;
    file.sync_data()
}

/// A file that is removed on drop.
struct TempFile {
    file: File,
    path: PathBuf,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // A leftover is 4 KiB, and its name says where it comes from.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_measures_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe::start(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let took = probe.end();
        assert!(!took.is_empty() && took.iter().all(|(_, took)| *took > Duration::ZERO));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(Probe::start(folder.path()).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "also where nobody asks for its times");
        assert!(Probe::start(&folder.path().join("nowhere")).is_err());
    }
}
