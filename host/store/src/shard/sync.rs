//! Makes commits durable: the journal files and the high-water mark, both syncs in parallel.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rejoin_core::port::StoreFault;

use super::CommitSeq;
use super::shared::{Shared, lock};
use crate::disk::is_short;
use crate::journal::{Mark, MarkFile, Position};

/// The pause before a sync is tried again for which the system had no descriptor or memory.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// How often.
const SHORT_TRIES: usize = 5;

/// A descriptor that is there to be given up.
pub(super) fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

/// A handle that makes commits durable. Cheap to clone, and used from another thread while the shard goes on
/// committing.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes everything durable that was committed before the call, and returns up to where the journal now is durable.
    /// Calls at the same time queue; each serves all that was committed when its turn came.
    ///
    /// # Errors
    /// [`StoreFault::Busy`]: the system is out of descriptors or memory; to be called again. [`StoreFault::Failed`]:
    /// the disk failed. The store is poisoned; a later call never succeeds.
    pub fn sync(&self) -> Result<CommitSeq, StoreFault> {
        self.shared.sync()
    }
}

/// What is durable, and the mark that says so.
pub(super) struct Durable {
    /// The end of what is durable.
    pub(super) position: Position,
    /// The first segment that is still needed.
    pub(super) first_segment: u64,
    /// The version of the tree that has what the segments before that one held.
    pub(super) tree: u64,
    /// The mark.
    pub(super) mark: MarkWriter,
}

impl Durable {
    /// Writes the mark durably, with this as the end of the journal, while `journal` makes that true.
    fn write(&mut self, end: Position, journal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Self { first_segment, tree, .. } = *self;
        self.mark.write_beside(Mark { index: end.index, chain: end.chain, first_segment, tree }, journal)?;
        self.position = end;
        Ok(())
    }
}

impl Shared {
    /// See [`Syncer::sync`].
    pub(super) fn sync(&self) -> Result<CommitSeq, StoreFault> {
        let mut durable = lock(&self.durable);
        // Asked only now: the sync that this one queued behind may have failed.
        self.poison.check()?;
        let (goal, files, names) = {
            let mut written = lock(&self.written);
            // A new segment's header is unsynced even when all records are: the mark may soon name it as the first.
            if written.committed == durable.position && written.files.len() == 1 && !written.names {
                return Ok(CommitSeq(durable.position.index));
            }
            (written.committed, written.files.clone(), std::mem::take(&mut written.names))
        };
        let started = Instant::now();
        let mut short = false;
        let journal = || {
            files.iter().try_for_each(|file| file.sync_data())?;
            let synced = if names { self.sync_names() } else { Ok(()) };
            short = synced.as_ref().is_err_and(is_short);
            synced
        };
        if let Err(error) = durable.write(goal, journal) {
            if !short {
                return Err(self.poison.set("sync the journal", &error));
            }
            // Nothing has failed on the disk: the directory could not be opened. The names are as unsynced as they
            // were.
            lock(&self.written).names = true;
            tracing::error!(dir = %self.journal.display(), %error, "a sync waits: the system is out of descriptors or memory");
            return Err(StoreFault::Busy);
        }
        // All files but the last were complete when they were synced, or are listed again once they are the last.
        lock(&self.written).files.drain(..files.len() - 1);
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters.sync_micros.fetch_add(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        Ok(CommitSeq(goal.index))
    }

    /// Syncs the names in the journal's directory. It has to be opened for that: where the system has no descriptor
    /// left, the spare one is given up for it.
    fn sync_names(&self) -> io::Result<()> {
        let mut result = self.disk.sync_dir(&self.journal);
        for _ in 0..SHORT_TRIES {
            if !result.as_ref().is_err_and(is_short) {
                break;
            }
            let mut spare = lock(&self.spare);
            drop(spare.take());
            result = self.disk.sync_dir(&self.journal);
            *spare = spare_descriptor();
            drop(spare);
            if result.as_ref().is_err_and(is_short) {
                std::thread::sleep(SHORT_PAUSE);
            }
        }
        result
    }

    /// Durably says that segments before `first` are no longer needed now that the tree has this version, and removes
    /// them.
    pub(super) fn retire(&self, first: u64, tree: u64) -> Result<(), StoreFault> {
        let mut durable = lock(&self.durable);
        self.poison.check()?;
        if first <= durable.first_segment {
            return Ok(());
        }
        let old = std::mem::replace(&mut durable.first_segment, first);
        durable.tree = tree;
        let end = durable.position;
        durable.write(end, || Ok(())).map_err(|error| self.poison.set("write the mark", &error))?;
        drop(durable);
        self.counters.first_segment.store(first, Relaxed);
        for number in old..first {
            // A file that stays is removed at the next start: the mark says that it is not needed.
            let path = crate::journal::segment_path(&self.journal, number);
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a journal segment that is no longer needed");
            }
        }
        Ok(())
    }
}

/// Writes the mark, on a thread of its own or in turn.
pub(super) enum MarkWriter {
    /// There was no room to begin with: nothing is written that it would tell of.
    Nowhere,
    /// After the journal, on the caller's thread.
    InTurn(MarkFile),
    /// Beside it. The thread ends when the sender is dropped.
    Beside(SyncSender<Mark>, Receiver<io::Result<()>>),
}

impl MarkWriter {
    /// A writer of this file.
    pub(super) fn start(mut file: MarkFile, parallel: bool) -> io::Result<Self> {
        if !parallel {
            return Ok(Self::InTurn(file));
        }
        let (ask, asked) = sync_channel::<Mark>(1);
        let (answer, answered) = sync_channel(1);
        std::thread::Builder::new().name("rejoin-mark".to_owned()).spawn(move || {
            for mark in asked {
                if answer.send(file.write(mark)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::Beside(ask, answered))
    }

    /// Writes the mark durably while `journal` runs. Both have ended when this returns.
    fn write_beside(&mut self, mark: Mark, journal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Nowhere => Err(io::ErrorKind::StorageFull.into()),
            Self::InTurn(file) => {
                journal()?;
                file.write(mark)
            }
            Self::Beside(ask, answered) => {
                let gone = || io::Error::other("the thread that writes the mark has ended");
                ask.send(mark).map_err(|_| gone())?;
                let journal = journal();
                journal.and(answered.recv().map_err(|_| gone())?)
            }
        }
    }
}
