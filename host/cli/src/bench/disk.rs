//! How long the disk takes for one fdatasync, measured beside a run: without it a durable rate says nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Seldom enough that it takes nothing from the run.
const EVERY: Duration = Duration::from_millis(100);
const BYTES: usize = 4096;

/// A thread that writes and syncs a small file now and then.
pub(crate) struct Probe {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<(Instant, Duration)>>,
}

impl Probe {
    /// Starts in a directory on the disk in question.
    ///
    /// # Errors
    /// No file can be made there.
    pub(crate) fn start(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(format!("rejoin-bench-probe-{:08x}", rand::random::<u32>()));
        let failed = |why: io::Error| Failure::file(&path, "written and synced", &why);
        let file = Removed { file: File::create_new(&path).map_err(failed)?, path: path.clone() };
        // The first sync makes the file's room and name durable too; those that count after it do not.
        sync(&file.file).map_err(failed)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            let mut took = Vec::new();
            loop {
                let begun = Instant::now();
                if sync(&file.file).is_ok() {
                    took.push((begun, begun.elapsed()));
                }
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return took;
                }
            }
        });
        Ok(Self { stop, thread: thread.map_err(failed)? })
    }

    /// When each fdatasync began, and how long it took.
    pub(crate) fn end(self) -> Vec<(Instant, Duration)> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn sync(file: &File) -> io::Result<()> {
    file.write_all_at(&[7; BYTES], 0)?;
    file.sync_data()
}

/// A file that goes with its last use.
struct Removed {
    file: File,
    path: PathBuf,
}

impl Drop for Removed {
    fn drop(&mut self) {
        // One that stays is four kilobytes under a name that says whose it is.
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
        assert!(Probe::start(&folder.path().join("nowhere")).is_err());
    }
}
