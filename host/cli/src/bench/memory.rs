//! The resident memory of the server processes, before, during and after a run, and the disk space of their data.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;

const INTERVAL: Duration = Duration::from_millis(100);
/// The unit of `st_blocks`, whatever the blocks of the file system are.
const BLOCK_BYTES: u64 = 512;

/// The resident memory of one process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Memory {
    pub(crate) pid: u32,
    /// When the run began.
    pub(crate) before_bytes: u64,
    /// The most that was seen, ten times a second.
    pub(crate) top_bytes: u64,
    /// After the last answer.
    pub(crate) after_bytes: u64,
}

/// A thread that looks at the memory of processes at intervals.
pub(crate) struct MemoryWatch {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Memory>>,
}

impl MemoryWatch {
    /// Starts with these processes.
    ///
    /// # Errors
    /// A process does not exist, or the system has no `/proc`.
    pub(crate) fn start(pids: &[u32]) -> Result<Self, Failure> {
        let mut seen = Vec::new();
        for pid in pids {
            let bytes = resident(*pid).ok_or_else(|| {
                Failure::usage(format!("the memory of process {pid} cannot be read from /proc/{pid}/status"))
            })?;
            seen.push(Memory { pid: *pid, before_bytes: bytes, top_bytes: bytes, after_bytes: bytes });
        }
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("memory".into()).spawn(move || {
            loop {
                let over = stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
                seen.iter_mut().for_each(look);
                if over {
                    return seen;
                }
            }
        });
        let thread = thread.map_err(|why| Failure::usage(format!("no thread can be started: {why}")))?;
        Ok(Self { stop, thread })
    }

    /// Looks once more, and stops. A process that has ended meanwhile keeps what was seen last.
    pub(crate) fn end(self) -> Vec<Memory> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn look(memory: &mut Memory) {
    if let Some(bytes) = resident(memory.pid) {
        memory.after_bytes = bytes;
        memory.top_bytes = memory.top_bytes.max(bytes);
    }
}

fn resident(pid: u32) -> Option<u64> {
    parsed(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The line `VmRSS:    1234 kB` of proc(5).
fn parsed(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The space that the files below a directory take on the disk, in bytes. What vanishes meanwhile is not counted.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_found_in_its_line() {
        assert_eq!(parsed("Name:\trejoin\nVmPeak:\t  900 kB\nVmRSS:\t   12 kB\nRssAnon:\t 3 kB\n"), Some(12 * 1024));
        assert_eq!((parsed("Name:\tkthreadd\n"), parsed("VmRSS:\tmuch kB\n")), (None, None));
    }

    #[test]
    fn memory_that_is_taken_during_a_run_is_its_top() {
        let watch = MemoryWatch::start(&[std::process::id()]).unwrap();
        // Kept until the watch has looked for the last time.
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        let memory = watch.end();
        assert_eq!(memory.len(), 1);
        let Memory { before_bytes, top_bytes, after_bytes, .. } = memory[0];
        assert!(before_bytes > 0 && top_bytes >= after_bytes.max(before_bytes), "{memory:?}");
        assert!(top_bytes >= before_bytes + (32 << 20), "{memory:?} beside {} bytes", taken.len());
        assert!(MemoryWatch::start(&[u32::MAX]).is_err());
    }

    #[test]
    fn the_space_of_all_files_below_a_directory_is_summed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(disk_bytes(folder.path()), 0);
        fs::create_dir(folder.path().join("inner")).unwrap();
        // Not zeros: some file systems do not store them.
        let written: Vec<u8> =
            (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(folder.path().join("inner/file"), &written).unwrap();
        fs::File::open(folder.path().join("inner/file")).unwrap().sync_all().unwrap();
        assert!(disk_bytes(folder.path()) >= 200_000);
        assert_eq!(disk_bytes(&folder.path().join("nowhere")), 0);
    }
}
