//! The durable end of the journal, and the mark that records it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::journal::{Mark, MarkFile, Position};

/// The durable end of the journal. Its lock is held during a sync.
pub(super) struct DurableState {
    pub(super) position: Position,
    /// The index in the older slot of the mark: what a start can rely on after a power cut.
    pub(super) confirmed: u64,
    /// The first segment that is still needed.
    pub(super) first_segment: u64,
    /// The version of the tree that holds what the segments before that one held.
    pub(super) tree: u64,
    pub(super) mark: MarkWriter,
}

impl DurableState {
    /// Durably writes a mark for `end`, while `journal` makes the journal durable up to there.
    pub(super) fn write(&mut self, end: Position, journal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Self { first_segment, tree, .. } = *self;
        self.mark.write_beside(Mark { index: end.index, chain: end.chain, first_segment, tree }, journal)?;
        (self.confirmed, self.position) = (self.position.index, end);
        Ok(())
    }
}

/// Writes the mark, on a thread of its own or on the caller's.
pub(super) enum MarkWriter {
    /// The store is open to be read only: there is no journal to mark.
    Disabled,
    /// Writes after the journal's sync, on the caller's thread.
    Inline(MarkFile),
    /// Writes in parallel with the journal's sync. The thread ends when the sender is dropped.
    Thread(SyncSender<Mark>, Receiver<io::Result<()>>),
}

impl MarkWriter {
    pub(super) fn start(mut file: MarkFile, parallel: bool) -> io::Result<Self> {
        if !parallel {
            return Ok(Self::Inline(file));
        }
        let (requests, received) = sync_channel::<Mark>(1);
        let (results, result) = sync_channel(1);
        std::thread::Builder::new().name("rejoin-mark".to_owned()).spawn(move || {
            for mark in received {
                if results.send(file.write(mark)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::Thread(requests, result))
    }

    /// Durably writes the mark while `journal` runs. Both have ended when this returns.
    fn write_beside(&mut self, mark: Mark, journal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Disabled => Err(io::ErrorKind::StorageFull.into()),
            Self::Inline(file) => {
                journal()?;
                file.write(mark)
            }
            Self::Thread(requests, result) => {
                let ended = || io::Error::other("the thread that writes the mark has ended");
                requests.send(mark).map_err(|_| ended())?;
                let journal = journal();
                journal.and(result.recv().map_err(|_| ended())?)
            }
        }
    }
}
