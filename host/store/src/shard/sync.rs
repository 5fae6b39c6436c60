//! Makes commits durable: syncs the journal, with a slot that says how far, and then writes the mark. Retires segments.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rejoin_core::port::StoreFault;

use super::CommitSeq;
use super::shared::{Shared, spare_descriptor};
use super::signal::lock;
use crate::io_cause::IoCause;

/// The pause before a sync of the directory is tried again that the system had no descriptor or memory for.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How often it is tried again.
const RETRIES: usize = 5;

/// A handle that makes commits durable, from another thread than the one that commits. Cheap to clone.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes everything durable that was committed before the call, and returns the last durable commit. Concurrent
    /// calls queue; each covers everything that was committed when its turn came.
    ///
    /// # Errors
    /// [`StoreFault::Busy`]: the system is out of descriptors or memory; call again. [`StoreFault::Failed`]: the disk
    /// has failed, and no later call succeeds.
    pub fn sync(&self) -> Result<CommitSeq, StoreFault> {
        self.shared.sync()
    }
}

impl Shared {
    /// See [`Syncer::sync`].
    pub(super) fn sync(&self) -> Result<CommitSeq, StoreFault> {
        let mut durable = lock(&self.durable);
        // Checked with the lock held: the sync that this one has queued behind may have failed.
        self.poison.check()?;
        let (goal, segment, files, names) = {
            let mut unsynced = lock(&self.unsynced);
            // With a new segment there is more to sync than records: the mark may soon name its header as the first.
            if unsynced.committed == durable.position && unsynced.files.len() == 1 && !unsynced.names {
                return Ok(CommitSeq(durable.position.index));
            }
            let names = std::mem::take(&mut unsynced.names);
            (unsynced.committed, unsynced.segment, unsynced.files.clone(), names)
        };
        let started = Instant::now();
        let (slot, turn) = durable.next_slot(segment, goal);
        // The slot's sync is that of the records.
        let written = files.last().map_or(Ok(()), |open| slot.write(open.as_ref(), turn));
        let synced = written.and_then(|()| files.iter().try_for_each(|file| file.sync_data()));
        synced.map_err(|error| self.poison.set("sync the journal", &error))?;
        match if names { self.sync_names() } else { Ok(()) } {
            Ok(()) => {}
            Err(error) if is_out_of_resources(&error) => {
                // The disk has not failed. The next sync syncs the names.
                lock(&self.unsynced).names = true;
                let dir = self.paths.journal.display();
                tracing::error!(%dir, %error, "a sync waits: the system is out of descriptors or memory");
                return Err(StoreFault::Busy);
            }
            Err(error) => return Err(self.poison.set("sync the journal", &error)),
        }
        durable.synced(segment, goal).map_err(|error| self.poison.set("write the mark", &error))?;
        // All files but the last are complete and synced. The next segment is listed again once it is the open one.
        lock(&self.unsynced).files.drain(..files.len() - 1);
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters.sync_micros.fetch_add(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
        Ok(CommitSeq(goal.index))
    }

    /// Syncs the journal's directory. That has to open it: if the system has no descriptor left, the spare one is
    /// closed first.
    fn sync_names(&self) -> io::Result<()> {
        let mut result = self.disk.sync_dir(&self.paths.journal);
        for _ in 0..RETRIES {
            if !result.as_ref().is_err_and(is_out_of_resources) {
                break;
            }
            let mut spare = lock(&self.spare);
            drop(spare.take());
            result = self.disk.sync_dir(&self.paths.journal);
            *spare = spare_descriptor();
            drop(spare);
            if result.as_ref().is_err_and(is_out_of_resources) {
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        result
    }

    /// Removes the segments before `first`, whose rows are in version `tree` of the tree. The mark names `first` before
    /// that.
    pub(super) fn retire(&self, first: u64, tree: u64) -> Result<(), StoreFault> {
        let mut durable = lock(&self.durable);
        self.poison.check()?;
        if first <= durable.first_segment {
            return Ok(());
        }
        let old = durable.retire(first, tree).map_err(|error| self.poison.set("write the mark", &error))?;
        drop(durable);
        self.counters.first_segment.store(first, Relaxed);
        for number in old..first {
            // A file that stays is removed at the next start: the mark says that it is not needed.
            let path = crate::journal::segment_path(&self.paths.journal, number);
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a journal segment that is no longer \
                    needed");
            }
        }
        Ok(())
    }

    /// Makes the mark durable, and with it the end of the last sync: see `DurableState::sync_mark`.
    pub(super) fn confirm(&self) -> Result<(), StoreFault> {
        let mut durable = lock(&self.durable);
        self.poison.check()?;
        durable.sync_mark().map_err(|error| self.poison.set("sync the mark", &error))
    }
}

fn is_out_of_resources(error: &io::Error) -> bool {
    IoCause::of(error) == IoCause::OutOfResources
}
