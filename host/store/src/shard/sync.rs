//! Makes commits durable: the journal files and the high-water mark, both syncs in parallel.

use super::CommitSeq;
use super::shared::{Shared, lock};
use crate::journal::{Mark, MarkFile, Position};
use rejoin_core::port::StoreFault;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

/// A handle that makes commits durable. Cheap to clone, and used from another thread while the shard goes on committing.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes everything durable that was committed before the call, and returns up to where the journal now is durable. Calls at the
    /// same time queue; each serves all that was committed when its turn came.
    ///
    /// # Errors
    /// [`StoreFault::Failed`]: the disk failed. The store is poisoned; a later call never succeeds.
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
        let journal = || {
            files.iter().try_for_each(|file| file.sync_data())?;
            if names { self.disk.sync_dir(&self.journal) } else { Ok(()) }
        };
        durable.write(goal, journal).map_err(|error| self.poison.set("sync the journal", &error))?;
        // All files but the last were complete when they were synced, or are listed again once they are the last.
        lock(&self.written).files.drain(..files.len() - 1);
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters.sync_micros.fetch_add(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        Ok(CommitSeq(goal.index))
    }

    /// Durably says that segments before `first` are no longer needed now that the tree has this version, and removes them.
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
