//! Scans of a shard's objects at a fixed position, off the shard's turn.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use rejoin_core::port::{CommitSeq, StoreFault};

use super::failures::ReadPosition;
use super::shared::Shared;
use super::spaces::objects_end;
use super::tree::{ScanLimit, ScanStep, TreeSnapshot};

/// A shard's object rows at one position. Its steps block on the disk and run on any thread; the shard, its flushes,
/// compactions and repairs go on meanwhile and do not change what the snapshot reads.
///
/// While a snapshot is open, compactions keep every row that is overwritten. So it should be closed when a scan pauses
/// for long; a later snapshot can go on at the same key. Like a [`Syncer`](crate::Syncer) it keeps the shard's
/// directory locked.
pub struct Snapshot {
    shared: Arc<Shared>,
    view: TreeSnapshot,
    position: CommitSeq,
}

/// A step of a scan has failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Maintenance has given the snapshot up, since the room of overwritten rows was needed.
    #[error("the disk is full and the snapshot was given up: open a new one and go on where this one stopped")]
    Expired,
    /// [`StoreFault::Busy`]: the system is out of descriptors or memory; try the step again. [`StoreFault::Damaged`]: a
    /// read has failed and the damaged block was not found; try the step again later. [`StoreFault::Failed`]: the store
    /// has stopped.
    #[error(transparent)]
    Fault(#[from] StoreFault),
}

impl Snapshot {
    pub(super) fn new(shared: Arc<Shared>, position: CommitSeq) -> Self {
        let view = shared.tree.snapshot();
        Self { shared, view, position }
    }

    /// The last change that the snapshot has. It need not be committed yet.
    #[must_use]
    pub fn position(&self) -> CommitSeq {
        self.position
    }

    /// Reads rows in key order between two bounds, up to a limit. Go on with [`ScanStep::next`] as `from`, until it is
    /// `None`. Rows that cannot be read do not end the scan: [`ScanStep::unreadable`] has their key ranges. Not bounded
    /// is the number of removed rows that a step passes.
    ///
    /// # Errors
    /// [`ScanError`]; the step has returned nothing and can be tried again unless the snapshot has expired or the store
    /// has stopped.
    pub fn step(&self, from: &Bound<Bytes>, to: &Bound<Bytes>, limit: ScanLimit) -> Result<ScanStep, ScanError> {
        self.shared.poison.check()?;
        if self.view.is_expired() {
            return Err(ScanError::Expired);
        }
        let to = &objects_end(to.clone());
        if is_empty(from, to) {
            return Ok(ScanStep::default());
        }
        let step = self.shared.tree.step(&self.view, from, to, limit);
        // A compaction may have dropped rows of the snapshot once it had expired.
        if self.view.is_expired() {
            return Err(ScanError::Expired);
        }
        let mut step = step.map_err(|fault| self.shared.read_fault(fault, ReadPosition::After(from.clone())))?;
        if step.unreadable.iter().any(|range| range.lost_upto.is_none()) {
            self.shared.report_damage(ReadPosition::After(from.clone()));
        }
        // After the report: a table with a row that does not open is sound.
        if let Some(sealing) = &self.shared.sealing {
            sealing.unseal_step(&mut step);
        }
        Ok(step)
    }
}

fn is_empty(from: &Bound<Bytes>, to: &Bound<Bytes>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}
