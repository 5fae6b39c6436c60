//! A store that was opened without room for a journal segment. It can be read, and begins its segment before the first
//! write for which there is room.

use std::sync::atomic::Ordering::Relaxed;

use rejoin_core::port::StoreFault;

use super::recovered::{BegunJournal, Recovered, ReplayedRows};
use super::shared::{Shared, Unsynced};
use super::signal::lock;
use crate::error::FileError;
use crate::io_cause::IoCause;
use crate::journal::Writer;
use crate::pinned::Pinned;

/// The state of a read-only store: the start that is still to be finished.
pub(super) struct ReadOnly(Recovered);

impl ReadOnly {
    pub(super) fn new(recovered: Recovered) -> Self {
        Self(recovered)
    }

    /// The writer of a read-only store, which refuses every change.
    pub(super) fn writer(recovered: &Recovered) -> Writer {
        let number = recovered.next_segment(ReplayedRows::Journal);
        Writer::without_room(recovered.journal.clone(), number, recovered.replayed.end)
    }

    /// Whether a stop now leaves the files as a clean stop does.
    pub(super) fn can_stop_cleanly(&self) -> Result<(), StoreFault> {
        if self.0.is_durable() {
            return Ok(());
        }
        Err(StoreFault::Failed(
            "there was never room to make the end of the journal durable: the next start does it".to_owned(),
        ))
    }

    /// Finishes the start: begins a segment and takes writes from now on.
    ///
    /// # Errors
    /// [`StoreFault::Full`] or [`StoreFault::Busy`]: the store stays read-only. [`StoreFault::Failed`]: the store has
    /// stopped.
    pub(super) fn finish_start(&self, shared: &Shared, pinned: &Pinned) -> Result<Writer, StoreFault> {
        let BegunJournal { writer, mark } = self.begin(shared, pinned).map_err(|error| match error.cause() {
            IoCause::NoRoom => {
                shared.set_full();
                StoreFault::Full
            }
            IoCause::OutOfResources => StoreFault::Busy,
            _ => shared.poison.set("begin a journal segment", &error),
        })?;
        let (end, segment) = (self.0.replayed.end, writer.number());
        *lock(&shared.unsynced) = Unsynced { committed: end, files: vec![writer.file()], segment, names: false };
        let mut durable = lock(&shared.durable);
        durable.first_segment = self.0.first_segment(ReplayedRows::Journal);
        (durable.newest_segment, durable.mark) = (segment, Some(mark));
        shared.counters.first_segment.store(durable.first_segment, Relaxed);
        drop(durable);
        shared.counters.last_segment.store(segment, Relaxed);
        shared.read_only.store(false, Relaxed);
        tracing::info!(dir = %shared.paths.dir.display(), "there is room again: writes are taken");
        Ok(writer)
    }

    /// The replayed rows are in the memtable. They stay in the journal until it is flushed.
    fn begin(&self, shared: &Shared, pinned: &Pinned) -> Result<BegunJournal, FileError> {
        let paths = &shared.paths;
        self.0.secure(paths)?;
        self.0.begin(&paths.mark, ReplayedRows::Journal, shared.tree.version(), pinned)
    }
}
