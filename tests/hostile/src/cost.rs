//! What work takes of the machine: resident memory and processor time. Memory is read from /proc, so only on Linux.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often the compiling processes are looked at.
const LOOK: Duration = Duration::from_millis(3);
/// Ticks a second of the times in proc(5).
const TICKS: u64 = 100;

/// What something took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cost {
    /// Bytes of resident memory, the most at one time.
    pub resident: u64,
    /// Time of a processor, of user and system.
    pub cpu: Duration,
}

impl Cost {
    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { resident: self.resident.max(other.resident), cpu: self.cpu.max(other.cpu) }
    }
}

/// What work on this thread takes: by how much this process grows meanwhile, and the time of the thread. Other threads
/// must be idle.
///
/// # Panics
/// If there is no /proc.
pub fn of_thread<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    // 5 makes what is resident now the most so far, see proc(5).
    std::fs::write("/proc/self/clear_refs", "5").expect("a process may clear its own peak");
    let status = Path::new("/proc/self/status");
    let (before, began) = (kilobytes(status, "VmRSS:"), thread_time());
    let result = work();
    let cpu = thread_time().saturating_sub(began);
    let grown = kilobytes(status, "VmHWM:").unwrap_or_default().saturating_sub(before.unwrap_or_default());
    (result, Cost { resident: grown << 10, cpu })
}

/// What the compiling processes take that work on this thread starts and waits for. Nobody else may start any.
///
/// # Panics
/// If there is no /proc.
pub fn of_compilers<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (ended, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = time_of_children();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                most.fetch_max(peak_of_compilers(), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        let _end = End(&ended);
        work()
    });
    (result, Cost { resident: most.into_inner(), cpu: time_of_children().saturating_sub(before) })
}

/// Ends the thread that looks, also if the work panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A line of a status file, in kilobytes. None if the process has ended.
fn kilobytes(status: &Path, line: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    text.lines().find_map(|text| text.strip_prefix(line))?.split_whitespace().next()?.parse().ok()
}

/// Fields of a stat file behind the name in parentheses, which may have blanks: the first is the state.
fn fields(stat: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(stat).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The time of all children that this process has waited for.
fn time_of_children() -> Duration {
    let fields = fields(Path::new("/proc/self/stat")).expect("this process has a stat file");
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).expect("it has times");
    Duration::from_millis((ticks(13) + ticks(14)) * 1_000 / TICKS)
}

/// The most resident bytes of a compiling process that this one has started. A process that is about to become one
/// still has the memory and the command line of this one, and does not count.
fn peak_of_compilers() -> u64 {
    let own = std::process::id().to_string();
    let peak = |process: &Path| {
        let parent = fields(&process.join("stat"))?.get(1).cloned()?;
        let compiles = || {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(rejoin_merge::CHILD_VERB)
        };
        if parent == own && compiles() { kilobytes(&process.join("status"), "VmHWM:") } else { None }
    };
    let processes = std::fs::read_dir("/proc").expect("there is a /proc");
    let peaks = processes.filter_map(|process| peak(&process.ok()?.path()));
    peaks.max().unwrap_or_default() << 10
}
