//! What the shard, its syncer and its maintenance share.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use rejoin_core::port::StoreFault;

use super::options::Options;
use super::stats::{Counters, Stats};
use super::sync::Durable;
use super::tree::{Lost, ReadFault, Tree};
use crate::blob;
use crate::disk::{Disk, DiskFile};
use crate::error::FileError;
use crate::journal::Position;

/// Shared by all handles of one shard's store. The directory's lock goes with the last of them.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    /// The shard's directory.
    pub(super) dir: PathBuf,
    /// The journal's directory.
    pub(super) journal: PathBuf,
    pub(super) options: Options,
    pub(super) tree: Tree,
    pub(super) poison: Poison,
    /// What is in the journal file.
    pub(super) written: Mutex<Written>,
    /// What is durable. Held during a sync: syncs queue here, and each serves all who committed before it.
    pub(super) durable: Mutex<Durable>,
    pub(super) gate: Mutex<Gate>,
    /// One maintenance run at a time.
    pub(super) running: Mutex<()>,
    /// Writes are refused for want of room.
    pub(super) full: AtomicBool,
    /// There was no room to begin a journal segment at the start, and there is none yet.
    pub(super) read_only: AtomicBool,
    /// Where damage was met by a read.
    pub(super) suspects: Mutex<Suspects>,
    /// What goes wrong in the background, and when it is tried again.
    pub(super) trouble: Mutex<Trouble>,
    pub(super) signal: Signal,
    pub(super) counters: Counters,
    /// Given up where a sync needs a descriptor and there is none.
    pub(super) spare: Mutex<Option<File>>,
    pub(super) _lock: File,
}

/// What has been written and not yet synced.
pub(super) struct Written {
    /// The end of the journal.
    pub(super) committed: Position,
    /// The files with unsynced bytes; the last is the one being written.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// Whether the journal directory has a new name.
    pub(super) names: bool,
}

/// Keeps sealing a memtable apart from flushing: a flush takes every sealed memtable, and only those may be there whose
/// records were synced before it began.
#[derive(Default)]
pub(super) struct Gate {
    /// A flush is under way.
    pub(super) flushing: bool,
    /// A sealed memtable waits: once it is flushed, segments before this one are no longer needed.
    pub(super) sealed: Option<u64>,
}

impl Shared {
    pub(super) fn stats(&self) -> Stats {
        self.counters.read(self.full.load(Relaxed), self.read_only.load(Relaxed))
    }

    /// What a fault of the tree on reading is for the core. Damage that is new is looked into by maintenance.
    pub(super) fn read_fault(&self, fault: ReadFault, place: Place<'_>) -> StoreFault {
        match fault {
            ReadFault::Lost { upto, what } => StoreFault::Lost { upto, what },
            ReadFault::Unreadable(why) => {
                lock(&self.suspects).add(place);
                self.signal.work_is_due();
                StoreFault::Damaged(format!("the tree cannot be read: {why}"))
            }
            ReadFault::Short(why) => {
                if self.counters.short.fetch_add(1, Relaxed).is_power_of_two() {
                    tracing::error!(dir = %self.dir.display(), why, "a read was refused: the system is out of descriptors or memory");
                }
                StoreFault::Busy
            }
        }
    }

    /// Notes durably which keys are lost.
    pub(super) fn note_lost(&self, lost: &Lost) -> io::Result<()> {
        note_lost(self.disk.as_ref(), &self.dir, lost)
    }

    /// Where damaged tables are kept for people to look at.
    pub(super) fn aside(&self) -> PathBuf {
        aside(&self.dir)
    }

    /// What is wrong with this store at the moment, for people, one line each; none if nothing is.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (dir, floor) = (self.dir.display(), self.options.free_space_floor);
        if self.full.load(Relaxed) || self.read_only.load(Relaxed) {
            let free = self.disk.free_space(&self.dir).map_or_else(|error| error.to_string(), |free| format!("{free} bytes"));
            let begun = if self.read_only.load(Relaxed) { ", and there was no room to start with" } else { "" };
            problems.push(format!(
                "the disk of {dir} is full ({free} free, {floor} are kept free{begun}): writes are refused until there is room, reads go on"
            ));
        }
        problems.extend(lock(&self.trouble).lines().map(|line| format!("{dir}: {line}")));
        let lost = self.tree.lost();
        problems.extend(lost.ranges().iter().take(SHOWN_RANGES).map(|range| format!("{dir}: lost with a damaged table are the {range}")));
        if let Some(more) = lost.ranges().len().checked_sub(SHOWN_RANGES).filter(|more| *more > 0) {
            problems.push(format!("{dir}: {more} further ranges of keys are lost"));
        }
        problems
    }

    /// How many segments there are, up to this one.
    pub(super) fn live_segments(&self, last: u64) -> u64 {
        (last + 1).saturating_sub(self.counters.first_segment.load(Relaxed))
    }

    /// From now on writes are refused, until maintenance finds room.
    pub(super) fn set_full(&self) {
        if !self.full.swap(true, Relaxed) {
            tracing::error!(dir = %self.dir.display(), "the disk is full: writes are refused until there is room, reads go on");
            self.signal.work_is_due();
        }
    }
}

/// Lost ranges that are shown one by one.
const SHOWN_RANGES: usize = 5;
/// Keys at which damage was met that are remembered.
const MOST_SUSPECTS: usize = 64;

/// The file that lists the lost ranges.
const LOST: &str = "damaged";

/// Reads the list of what is lost.
pub(super) fn noted_lost(disk: &dyn Disk, dir: &Path) -> Result<Lost, FileError> {
    let path = dir.join(LOST);
    let text = blob::read(disk, &path)?.unwrap_or_default();
    Lost::decode(&text).ok_or_else(|| FileError::Damaged { path, why: "it is no list of key ranges".to_owned() })
}

/// Writes the list durably.
pub(super) fn note_lost(disk: &dyn Disk, dir: &Path, lost: &Lost) -> io::Result<()> {
    blob::write(disk, &dir.join(LOST), lost.encode().as_bytes()).map_err(FileError::into_io)
}

/// The copy of the tree's list of tables.
const VERSION: &str = "tables";

/// Keeps a copy of the tree's list of tables.
pub(super) fn note_version(disk: &dyn Disk, dir: &Path, tree: &Tree) -> io::Result<()> {
    blob::write(disk, &dir.join(VERSION), &tree.copy_of_manifest()).map_err(FileError::into_io)
}

/// The copy that is kept; none if there is none, or it is damaged.
///
/// # Errors
/// [`FileError`] if it is not known whether there is a sound one.
pub(super) fn noted_version(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match blob::read(disk, &dir.join(VERSION)) {
        Err(error) if error.is_damage() => Ok(None),
        copy => copy,
    }
}

/// Where damaged tables are kept for people to look at.
pub(super) fn aside(dir: &Path) -> PathBuf {
    dir.join("quarantine")
}

/// Where a read was when it met a fault.
pub(super) enum Place<'a> {
    /// At a key.
    Key(&'a [u8]),
    /// Behind the last key that a scan has visited, or at its beginning.
    Behind(Bound<Bytes>),
}

/// Where reads have met damage.
#[derive(Default)]
pub(super) struct Suspects {
    /// At these keys. Of more than some the others are met again when they are read again.
    pub(super) keys: BTreeSet<Bytes>,
    /// By a scan that had come to this bound.
    pub(super) behind: Option<Bound<Bytes>>,
}

impl Suspects {
    fn add(&mut self, place: Place<'_>) {
        match place {
            Place::Key(key) if self.keys.len() < MOST_SUSPECTS => drop(self.keys.insert(Bytes::copy_from_slice(key))),
            Place::Key(_) => {}
            Place::Behind(bound) => self.behind = Some(bound),
        }
    }
}

/// What goes wrong in the background.
#[derive(Default)]
pub(super) struct Trouble {
    pub(super) flush: Backoff,
    pub(super) compaction: Backoff,
    pub(super) mending: Backoff,
}

impl Trouble {
    /// Whether anything has failed and is to be tried again.
    pub(super) fn any(&self) -> bool {
        [&self.flush, &self.compaction, &self.mending].iter().any(|backoff| backoff.why.is_some())
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let all = [("flushes", &self.flush), ("compactions", &self.compaction), ("looking into damage", &self.mending)];
        all.into_iter().filter_map(|(what, backoff)| Some(format!("{what}: {}", backoff.why.as_ref()?)))
    }
}

/// When something that has failed is tried again: after a second, then twice as long each time, up to about a minute.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
    why: Option<String>,
}

impl Backoff {
    /// What is left of the pause.
    pub(super) fn left(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// It has failed once more.
    pub(super) fn failed(&mut self, why: String) {
        let pause = Duration::from_secs(1 << self.failures.min(MOST_DOUBLINGS));
        self.failures += 1;
        (self.until, self.why) = (Some(Instant::now() + pause), Some(why));
    }

    /// It cannot be tried at the moment; whether it can is looked at each time. Returns whether it could before.
    pub(super) fn waits(&mut self, why: String) -> bool {
        self.until = None;
        self.why.replace(why).is_none()
    }

    /// How often it has failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It has worked, or there is nothing to do.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
}

/// A pause is at most 2⁶ seconds.
const MOST_DOUBLINGS: u32 = 6;

/// Why the store has stopped for good, once it has.
#[derive(Default)]
pub(super) struct Poison(OnceLock<String>);

impl Poison {
    /// Fails if the store has stopped.
    pub(super) fn check(&self) -> Result<(), StoreFault> {
        self.0.get().map_or(Ok(()), |why| Err(StoreFault::Failed(why.clone())))
    }

    /// Stops the store for good; the first reason stays.
    pub(super) fn set(&self, tried: &str, error: &dyn Display) -> StoreFault {
        let why = self.0.get_or_init(|| {
            tracing::error!(%error, "the store has failed: cannot {tried}");
            format!("cannot {tried}: {error}; what was not yet acknowledged is in doubt, restart the node once the disk is sound")
        });
        StoreFault::Failed(why.clone())
    }
}

/// Wakes whoever does the maintenance.
#[derive(Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
    on_work: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct SignalState {
    due: bool,
    stopped: bool,
}

impl Signal {
    pub(super) fn new(on_work: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        Self { on_work, ..Self::default() }
    }

    /// There is work.
    pub(super) fn work_is_due(&self) {
        lock(&self.state).due = true;
        self.changed.notify_all();
        if let Some(on_work) = &self.on_work {
            on_work();
        }
    }

    /// No more work is to be done.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// Waits for work, at most so long. Returns false once stopped.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let state = lock(&self.state);
        let idle = |state: &mut SignalState| !state.due && !state.stopped;
        let (mut state, _) = self.changed.wait_timeout_while(state, at_most, idle).unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        !state.stopped
    }
}

/// Locks. A thread that panicked with the lock held leaves plain values behind, whole ones; whether the store may go on
/// is decided by [`Poison`] alone.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
