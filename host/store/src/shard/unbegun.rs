//! The part of a start that needs room: what was replayed is made durable, and a new segment is begun. Where there is
//! none the store opens without it, touches nothing that is on the disk, and does this before its first write.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use lsm_tree::Error;

use rejoin_core::port::StoreFault;

use super::ShardStore;
use super::open::{Places, Recovery, note_loss};
use super::options::Options;
use super::shared::{Gate, Poison, Shared, Signal, Suspects, Trouble, Written, lock, note_version, noted_version};
use super::stats::Counters;
use super::sync::{Durable, MarkWriter, spare_descriptor};
use super::tree::Tree;
use crate::disk::{Disk, is_short, no_room};
use crate::error::{Context, FileError, OpenError};
use crate::journal::{Mark, MarkFile, Position, Replayed, Writer, rewrite, segment_path};
use crate::pinned::Pinned;

/// A start that has read everything and not yet written anything.
pub(super) struct Unbegun {
    places: Places,
    segment_bytes: u64,
    /// The last stop was clean.
    clean: bool,
    lost: Vec<String>,
    mark: Option<Mark>,
    replayed: Replayed,
    /// What was replayed stays in the journal for now.
    keep: bool,
}

/// A journal that goes on.
pub(super) struct Begun {
    pub(super) writer: Writer,
    pub(super) mark: MarkFile,
}

impl Unbegun {
    pub(super) fn new(
        places: Places,
        segment_bytes: u64,
        clean: bool,
        lost: Vec<String>,
        mark: Option<Mark>,
        replayed: Replayed,
        cramped: bool,
    ) -> Self {
        let keep = cramped || clean && lost.is_empty();
        Self { places, segment_bytes, clean, lost, mark, replayed, keep }
    }

    /// Where the journal ends.
    pub(super) fn end(&self) -> Position {
        self.replayed.end
    }

    /// Where the mark is.
    pub(super) fn mark(&self) -> &Path {
        &self.places.mark
    }

    /// What is said of the start.
    pub(super) fn recovery(&self, pinned_rows: usize, read_only: bool, damaged: Vec<String>) -> Recovery {
        let Replayed { records, cut_bytes, .. } = self.replayed;
        tracing::info!(dir = %self.places.dir.display(), records, cut = cut_bytes, read_only, "shard open");
        Recovery { replayed_records: records, cut_bytes, lost: self.lost.clone(), pinned_rows, damaged, read_only }
    }

    /// Whether a stop without ever having begun leaves what a clean stop left.
    pub(super) fn is_as_it_was_left(&self) -> Result<(), StoreFault> {
        if self.clean && self.lost.is_empty() {
            return Ok(());
        }
        Err(StoreFault::Failed("there was never room to make the end of the journal durable: the next start does it".to_owned()))
    }

    /// Goes as far as there is room. Lost or not, replayed rows go where they are durable: into the tree. Only after a
    /// clean stop they are known to be so. And as at any flush journal and mark go first: a crash in between would
    /// otherwise find old records to apply to newer rows.
    pub(super) fn begin_at_start(
        &mut self,
        disk: &Arc<dyn Disk>,
        tree: &Tree,
        pinned: &Pinned,
        memtable_bytes: &mut u64,
    ) -> Result<Option<Begun>, OpenError> {
        if let Err(error) = self.secure(disk.as_ref()) {
            return none_if_no_room(error);
        }
        if !self.keep {
            tree.rotate();
            match tree.flush() {
                Ok(_) => *memtable_bytes = 0,
                Err(Error::Io(error)) if no_room(&error) => {
                    self.keep = true;
                    // What the flush has left is only in the way. What cannot be removed now goes at the next start.
                    let _ = tree.sweep();
                }
                Err(error) => return Err(OpenError::Tree { path: self.places.tree.clone(), why: error.to_string() }),
            }
        }
        if !self.keep || noted_version(disk.as_ref(), &self.places.dir)?.is_none() {
            // A copy that could not be made costs nothing until the list is damaged.
            let _ = note_version(disk.as_ref(), &self.places.dir, tree);
        }
        self.begin(disk, tree.version(), pinned).map(Some).or_else(none_if_no_room)
    }

    /// Makes durable what was lost, the journal's unsynced end, and that the mark says so.
    fn secure(&self, disk: &dyn Disk) -> Result<(), FileError> {
        note_loss(disk, &self.places, &self.lost)?;
        if self.clean && self.lost.is_empty() {
            return Ok(());
        }
        rewrite(disk, &self.places.journal, &self.replayed.unsynced)?;
        // Without a mark a loss is noted already, and stays noted.
        let Some(mark) = self.mark.filter(|_| !self.replayed.unsynced.is_empty()) else { return Ok(()) };
        let Position { index, chain } = self.replayed.end;
        MarkFile::replace(disk, &self.places.mark, Mark { index, chain, ..mark }).context("replace", &self.places.mark)?;
        Ok(())
    }

    /// Begins the next segment, durably, then the mark that names it, and only then removes what is no longer needed.
    fn begin(&self, disk: &Arc<dyn Disk>, tree: u64, pinned: &Pinned) -> Result<Begun, FileError> {
        let (journal, end) = (&self.places.journal, self.replayed.end);
        let writer = self.begin_segment(disk, pinned)?;
        // From here on the mark may name the segment, whatever is said of its replacement.
        let says = Mark { index: end.index, chain: end.chain, first_segment: self.first_segment(), tree };
        let mark = MarkFile::replace(disk.as_ref(), &self.places.mark, says).context("replace", &self.places.mark)?;
        for old in self.replayed.segments.iter().filter(|old| **old < self.first_segment()) {
            // A file that stays is removed at the next start: the mark says that it is not needed.
            let path = segment_path(journal, *old);
            if let Err(error) = disk.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a journal segment that is no longer needed");
            }
        }
        Ok(Begun { writer, mark })
    }

    fn begin_segment(&self, disk: &Arc<dyn Disk>, pinned: &Pinned) -> Result<Writer, FileError> {
        let (journal, path) = (&self.places.journal, segment_path(&self.places.journal, self.number()));
        let (bytes, end) = (self.segment_bytes, self.replayed.end);
        let writer = Writer::begin(Arc::clone(disk), journal.clone(), bytes, self.number(), end, pinned).context("create", &path)?;
        let synced = writer.file().sync_data().context("sync", &path);
        let synced = synced.and_then(|()| disk.sync_dir(journal).context("sync", journal));
        if let Err(error) = synced {
            // A segment that no mark names is only in the way.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(writer)
    }

    /// The number of the segment that is begun.
    fn number(&self) -> u64 {
        let kept = self.mark.map_or(1, |mark| mark.first_segment);
        self.replayed.segments.last().map_or(1, |last| last + 1).max(if self.keep { kept } else { 1 })
    }

    /// The first segment that is still needed.
    fn first_segment(&self) -> u64 {
        let kept = self.mark.map(|mark| mark.first_segment).or(self.replayed.segments.first().copied());
        kept.filter(|_| self.keep).unwrap_or_else(|| self.number())
    }

    /// Where the writer stands while nothing is begun.
    pub(super) fn no_writer(&self, disk: &Arc<dyn Disk>) -> Writer {
        let Self { places, segment_bytes, replayed, .. } = self;
        Writer::unbegun(Arc::clone(disk), places.journal.clone(), *segment_bytes, self.number(), replayed.end)
    }

    /// What the handles of the store share.
    #[allow(clippy::too_many_arguments, reason = "each is a part of it")]
    pub(super) fn share(
        &self,
        options: Options,
        disk: Arc<dyn Disk>,
        lock: File,
        tree: Tree,
        writer: &Writer,
        mark: MarkWriter,
        read_only: bool,
    ) -> Arc<Shared> {
        let (end, first_segment) = (self.replayed.end, self.first_segment());
        let counters = Counters::default();
        counters.first_segment.store(first_segment, Relaxed);
        counters.last_segment.store(writer.number(), Relaxed);
        counters.l0_runs.store(tree.l0_runs(), Relaxed);
        counters.lost_ranges.store(tree.lost().ranges().len() as u64, Relaxed);
        let shared = Shared {
            signal: Signal::new(options.on_work.clone()),
            written: Mutex::new(Written { committed: end, files: vec![writer.file()], names: false }),
            durable: Mutex::new(Durable { position: end, first_segment, tree: tree.version(), mark }),
            gate: Mutex::new(Gate::default()),
            running: Mutex::new(()),
            full: AtomicBool::new(read_only),
            read_only: AtomicBool::new(read_only),
            suspects: Mutex::new(Suspects::default()),
            trouble: Mutex::new(Trouble::default()),
            poison: Poison::default(),
            disk,
            dir: PathBuf::clone(&self.places.dir),
            journal: self.places.journal.clone(),
            options,
            tree,
            counters,
            spare: Mutex::new(spare_descriptor()),
            _lock: lock,
        };
        if read_only {
            let dir = shared.dir.display();
            tracing::error!(%dir, "the disk is full: the store is open to be read, writes are refused until there is room");
        }
        // The space, and what the tree has left to compact, are to be looked at soon.
        shared.signal.work_is_due();
        Arc::new(shared)
    }
}

impl ShardStore {
    /// Does what the start left undone, now that there is room.
    pub(super) fn begin_now(&mut self) -> Result<(), StoreFault> {
        let Some(unbegun) = &mut self.unbegun else { return Ok(()) };
        let shared = &self.shared;
        // What was replayed is in memory: it stays in the journal until it is flushed like anything else.
        unbegun.keep = true;
        let begun =
            unbegun.secure(shared.disk.as_ref()).and_then(|()| unbegun.begin(&shared.disk, shared.tree.version(), &self.pinned)).and_then(
                |begun| Ok((begun.writer, MarkWriter::start(begun.mark, shared.options.parallel_mark).context("start", unbegun.mark())?)),
            );
        let (writer, mark) = match begun {
            Ok(begun) => begun,
            Err(error) if error.source_error().is_some_and(no_room) => {
                shared.set_full();
                return Err(StoreFault::Full);
            }
            Err(error) if error.source_error().is_some_and(is_short) => return Err(StoreFault::Busy),
            Err(error) => return Err(shared.poison.set("begin a journal segment", &error)),
        };
        *lock(&shared.written) = Written { committed: unbegun.end(), files: vec![writer.file()], names: false };
        let mut durable = lock(&shared.durable);
        (durable.first_segment, durable.mark) = (unbegun.first_segment(), mark);
        drop(durable);
        shared.counters.first_segment.store(unbegun.first_segment(), Relaxed);
        shared.counters.last_segment.store(writer.number(), Relaxed);
        shared.read_only.store(false, Relaxed);
        self.writer = writer;
        self.unbegun = None;
        tracing::info!(dir = %self.shared.dir.display(), "there is room again: writes are taken");
        Ok(())
    }
}

/// Nothing is begun where there is no room.
fn none_if_no_room(error: FileError) -> Result<Option<Begun>, OpenError> {
    if error.source_error().is_some_and(no_room) { Ok(None) } else { Err(error.into()) }
}
