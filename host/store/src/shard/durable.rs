//! The durable end of the journal, and the mark that vouches for it.

use std::io;

use crate::journal::{Mark, MarkFile, Position, SyncSlot};

/// The durable end of the journal. Its lock is held during a sync.
pub(super) struct DurableState {
    /// What the last sync that has ended covers.
    pub(super) position: Position,
    /// The first segment that is still needed.
    pub(super) first_segment: u64,
    /// The version of the tree that holds what the segments before that one held.
    pub(super) tree: u64,
    /// The newest segment that was synced. The mark names it durably.
    pub(super) newest_segment: u64,
    /// The number of slots that were written, so that each is written in its turn.
    pub(super) slots: u64,
    /// `None` while the store is open to be read only: there is no journal to mark.
    pub(super) mark: Option<MarkFile>,
}

impl DurableState {
    /// The slot for a sync of everything up to `end`, and its turn. It goes to the open segment, which has this number.
    pub(super) fn next_slot(&mut self, segment: u64, end: Position) -> (SyncSlot, u64) {
        self.slots += 1;
        (SyncSlot { segment, confirmed: self.position.index, end }, self.slots)
    }

    /// Notes that a sync has ended that covers everything up to `end`, the last of it in this segment. The mark is
    /// synced if it has not named the segment before: from then on there is something to lose with it.
    pub(super) fn synced(&mut self, segment: u64, end: Position) -> io::Result<()> {
        self.position = end;
        let is_new = segment > self.newest_segment;
        self.newest_segment = segment.max(self.newest_segment);
        self.write_mark()?;
        if is_new { self.sync_mark() } else { Ok(()) }
    }

    /// Durably marks another segment as the first that is needed, now that version `tree` of the tree holds what the
    /// ones before it held. Returns the old one.
    pub(super) fn retire(&mut self, first: u64, tree: u64) -> io::Result<u64> {
        let old = std::mem::replace(&mut self.first_segment, first);
        self.tree = tree;
        self.write_mark()?;
        self.sync_mark()?;
        Ok(old)
    }

    /// Makes the mark durable: until then, a start after a power cut takes missing records of the last sync for some
    /// whose sync had not ended.
    pub(super) fn sync_mark(&mut self) -> io::Result<()> {
        self.mark.as_mut().map_or(Ok(()), MarkFile::sync)
    }

    fn write_mark(&mut self) -> io::Result<()> {
        let Self { position: Position { index, chain }, first_segment, tree, newest_segment, .. } = *self;
        let mark = self.mark.as_mut().ok_or(io::ErrorKind::StorageFull)?;
        // What older segments' slots say, the mark says itself.
        mark.write(Mark { index, chain, first_segment, tree, newest_segment, slots_from: newest_segment })
    }
}
