//! What a start has read from a shard's files, and the steps that make it durable and begin a new segment.
//!
//! Nothing on the disk is changed before these steps, and each of them may fail for want of room: then the store opens
//! to be read only ([`ReadOnly`](super::read_only::ReadOnly)).

use std::path::Path;

use super::files::{ShardPaths, read_table_list, write_loss, write_table_list};
use super::tree::Tree;
use crate::error::{Context, FileError, OpenError};
use crate::io_cause::IoCause;
use crate::journal::{JournalDir, Mark, MarkFile, Replayed, Writer, rewrite, segment_path};
use crate::pinned::Pinned;

/// What opening a shard found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// Records replayed from the journal.
    pub replayed_records: u64,
    /// Bytes at the journal's end that were cut as torn: no sync that had ended covers them.
    pub cut_bytes: u64,
    /// What this replica has lost, for people; empty if nothing. If it is not empty, every actor of this shard ends,
    /// the shard vouches for nothing until it has been rebuilt by exchange, and
    /// [`ShardStore::settle_loss`](crate::ShardStore::settle_loss) is called once the new actors are durable. Every row
    /// that can be read was once written, but perhaps not last.
    pub lost: Vec<String>,
    /// The number of pinned rows.
    pub pinned_rows: usize,
    /// Damaged tables that were taken out of the tree, for people. Their lost keys read as lost until they are written
    /// anew, so no actor has to end because of them.
    pub damaged: Vec<String>,
    /// There was no room to begin a journal segment: writes are refused until there is.
    pub read_only: bool,
}

/// Where the replayed rows are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReplayedRows {
    /// Flushed to the tree: the old segments are no longer needed.
    Tree,
    /// In the old segments, until the memtable is flushed.
    Journal,
}

/// A shard that was read and not yet written to.
pub(super) struct Recovered {
    pub(super) journal: JournalDir,
    /// The last stop was clean.
    pub(super) clean: bool,
    pub(super) lost: Vec<String>,
    /// `None` if it cannot be read, which is a loss, or if the shard is new.
    pub(super) mark: Option<Mark>,
    pub(super) replayed: Replayed,
}

/// A journal with a new segment.
pub(super) struct BegunJournal {
    pub(super) writer: Writer,
    pub(super) mark: MarkFile,
}

impl Recovered {
    /// Whether everything that was replayed is known to be durable.
    pub(super) fn is_durable(&self) -> bool {
        self.clean && self.lost.is_empty()
    }

    pub(super) fn recovery(&self, pinned_rows: usize, read_only: bool, damaged: Vec<String>) -> Recovery {
        let Replayed { records, cut_bytes, .. } = self.replayed;
        Recovery { replayed_records: records, cut_bytes, lost: self.lost.clone(), pinned_rows, damaged, read_only }
    }

    /// Saves the losses, rewrites the unconfirmed end of the journal, and moves the mark to the end. From then on the
    /// slots of the segments that there are do not count: they may name records that were cut.
    pub(super) fn secure(&self, paths: &ShardPaths) -> Result<(), FileError> {
        let disk = self.journal.disk.as_ref();
        write_loss(disk, paths, &self.lost)?;
        if self.is_durable() {
            return Ok(());
        }
        rewrite(disk, &paths.journal, &self.replayed.unsynced)?;
        let end = self.replayed.end;
        // Without a mark there is a loss, which is saved and stays so.
        let Some(mark) = self.mark else { return Ok(()) };
        let slots_from = self.replayed.segments.last().map_or(mark.slots_from, |last| last + 1);
        MarkFile::replace(disk, &paths.mark, Mark { index: end.index, chain: end.chain, slots_from, ..mark }).map(drop)
    }

    /// Flushes the replayed rows, after journal and mark as at any flush: if the process ended in between, the next
    /// replay would apply older rows over newer ones. Returns where the rows are kept.
    pub(super) fn flush(&self, paths: &ShardPaths, tree: &Tree) -> Result<ReplayedRows, OpenError> {
        tree.rotate();
        match tree.flush() {
            Ok(_) => Ok(ReplayedRows::Tree),
            Err(error) if error.cause() == IoCause::NoRoom => {
                // What the flush has left takes room. If it cannot be removed now, the next start does it.
                let _ = tree.sweep();
                Ok(ReplayedRows::Journal)
            }
            Err(error) => Err(OpenError::Tree { path: paths.tree.clone(), why: error.to_string() }),
        }
    }

    /// Copies the list of tables if a flush has changed it or there is no copy.
    pub(super) fn copy_table_list(&self, paths: &ShardPaths, tree: &Tree, rows: ReplayedRows) -> Result<(), FileError> {
        let disk = self.journal.disk.as_ref();
        if rows == ReplayedRows::Tree || read_table_list(disk, paths)?.is_none() {
            write_table_list(disk, paths, tree);
        }
        Ok(())
    }

    /// Begins the next segment, then durably names it in the mark, and only then removes segments that are no longer
    /// needed. `tree` is the version of the tree.
    pub(super) fn begin(
        &self,
        mark: &Path,
        rows: ReplayedRows,
        tree: u64,
        pinned: &Pinned,
    ) -> Result<BegunJournal, FileError> {
        let (disk, end) = (self.journal.disk.as_ref(), self.replayed.end);
        let writer = self.begin_segment(rows, pinned)?;
        // From here on the mark may name the segment, even if replacing it fails.
        let (first_segment, number) = (self.first_segment(rows), writer.number());
        let begun = Mark {
            index: end.index,
            chain: end.chain,
            first_segment,
            tree,
            newest_segment: number,
            slots_from: number,
        };
        let mark = MarkFile::replace(disk, mark, begun)?;
        for old in self.replayed.segments.iter().filter(|old| **old < first_segment) {
            // A file that stays is removed at the next start: the mark does not need it.
            let path = segment_path(&self.journal.path, *old);
            if let Err(error) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a journal segment that is no longer \
                    needed");
            }
        }
        Ok(BegunJournal { writer, mark })
    }

    fn begin_segment(&self, rows: ReplayedRows, pinned: &Pinned) -> Result<Writer, FileError> {
        let JournalDir { disk, path: dir, .. } = &self.journal;
        let number = self.next_segment(rows);
        let path = segment_path(dir, number);
        let writer = Writer::begin(self.journal.clone(), number, self.replayed.end, pinned).context("create", &path)?;
        let synced = writer.file().sync_data().context("sync", &path);
        if let Err(error) = synced.and_then(|()| disk.sync_dir(dir).context("sync", dir)) {
            // No mark names the segment, so it only takes room.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(writer)
    }

    /// The number of the segment that is begun.
    pub(super) fn next_segment(&self, rows: ReplayedRows) -> u64 {
        let marked = self.mark.filter(|_| rows == ReplayedRows::Journal).map_or(1, |mark| mark.first_segment);
        self.replayed.segments.last().map_or(1, |last| last + 1).max(marked)
    }

    /// The first segment that is still needed.
    pub(super) fn first_segment(&self, rows: ReplayedRows) -> u64 {
        match rows {
            ReplayedRows::Tree => self.next_segment(rows),
            ReplayedRows::Journal => {
                let first = self.mark.map(|mark| mark.first_segment).or(self.replayed.segments.first().copied());
                first.unwrap_or_else(|| self.next_segment(rows))
            }
        }
    }
}
