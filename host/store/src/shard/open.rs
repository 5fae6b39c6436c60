//! Opens a shard: replays the journal, tells a torn end from a loss, and begins a journal that is sound from its first byte.

use super::options::Options;
use super::recent::Recent;
use super::shared::{Gate, Poison, Shared, Signal, Written};
use super::stats::Counters;
use super::sync::{Durable, MarkWriter};
use super::tree::{self, Tree};
use super::{CommitSeq, ShardStore};
use crate::blob;
use crate::dir::{Start, lock};
use crate::disk::Disk;
use crate::error::{Context, FileError, OpenError};
use crate::journal::{FIRST_CHAIN, Mark, MarkFile, Position, Replayed, Writer, discard_next, list_segments, replay, rewrite, segment_path};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What opening a shard found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// Records replayed from the journal.
    pub replayed_records: u64,
    /// Bytes at the journal's end that were cut as torn: written at most, never synced, never acknowledged as durable.
    pub cut_bytes: u64,
    /// What this replica has lost, for people; empty when it has lost nothing. Not empty means: every actor of this shard ends, the
    /// shard vouches for nothing until it has rebuilt by exchange, and [`ShardStore::settle_loss`] is called once the new actors
    /// are durable. What can be read is what was once written, but perhaps not the last that was.
    pub lost: Vec<String>,
    /// Pinned rows there.
    pub pinned_rows: usize,
}

/// Where things are in a shard's directory.
struct Places {
    dir: PathBuf,
    journal: PathBuf,
    mark: PathBuf,
    tree: PathBuf,
}

impl ShardStore {
    /// Opens or creates the store in `dir`. After anything but a clean stop, all that is replayed is first made durable anew: what was
    /// read may be in the page cache only, if it was a failed sync that ended the last process.
    ///
    /// # Errors
    /// [`OpenError`] if another handle has the shard open or the disk refuses. Damage and loss are no errors: see
    /// [`Recovery::lost`].
    pub fn open(dir: impl AsRef<Path>, options: Options, disk: Arc<dyn Disk>, start: &Start) -> Result<(Self, Recovery), OpenError> {
        let dir = dir.as_ref().to_path_buf();
        let places = Places { journal: dir.join("journal"), mark: dir.join("mark"), tree: dir.join("tree"), dir };
        disk.create_dir(&places.journal).context("create", &places.journal)?;
        if let Some(parent) = places.dir.parent() {
            disk.sync_dir(parent).context("sync", parent)?;
        }
        let lock = lock(&places.dir)?;
        // A segment that was never finished holds nothing that is not elsewhere, and the room that it takes may be needed.
        discard_next(disk.as_ref(), &places.journal).context("clear", &places.journal)?;
        let mut lost = noted_loss(disk.as_ref(), &places)?;
        let mark = read_mark(disk.as_ref(), &places, start, &mut lost)?;
        // A flush syncs first, so before the first sync there is nothing in the tree to be missed.
        let known = mark.is_some_and(|mark| mark.is_none_or(|mark| mark.index > 0));
        let rows_bytes = options.cache_bytes / 4;
        let tree = open_tree(&places, options.cache_bytes - rows_bytes, known, &mut lost)?;
        if mark.flatten().is_some_and(|mark| tree.version() < mark.tree) && lost.is_empty() {
            lost.push("the tree is older than the mark: what it had taken over from the journal is gone".to_owned());
        }
        let mut memtable_bytes = 0;
        let mut apply = |row: rejoin_core::port::Row| memtable_bytes = tree.apply(&row.key, row.value.as_deref());
        let replayed = replay(disk.as_ref(), &places.journal, mark.flatten(), &mut apply)?;
        lost.extend(replayed.lost.iter().cloned());
        note_loss(disk.as_ref(), &places, &lost)?;
        // Lost or not, replayed rows go where they are durable: into the tree. Only after a clean stop they are known to be so. And as
        // at any flush journal and mark go first: a crash in between would otherwise find old records to apply to newer rows.
        if !start.clean || !lost.is_empty() {
            secure(disk.as_ref(), &places, mark.flatten(), &replayed)?;
        }
        // With little room the journal keeps them until there is more: a flush could take what a start needs.
        let cramped = disk.free_space(&places.journal).context("look at the free space of", &places.journal)? < options.free_space_floor;
        let keep = lost.is_empty() && (start.clean || cramped);
        if !keep {
            tree.rotate();
            tree.flush().map_err(|error| OpenError::Tree { path: places.tree.clone(), why: error.to_string() })?;
            memtable_bytes = 0;
        }
        let recovery =
            Recovery { replayed_records: replayed.records, cut_bytes: replayed.cut_bytes, lost, pinned_rows: replayed.pinned.len() };
        tracing::info!(dir = %places.dir.display(), records = recovery.replayed_records, cut = recovery.cut_bytes, "shard open");
        let kept_from = mark.flatten().map(|mark| mark.first_segment).filter(|_| keep);
        let (shared, writer) = begin(places, options, disk, lock, tree, &replayed, kept_from)?;
        let committed = CommitSeq(replayed.end.index);
        let recent = RefCell::new(Recent::new(rows_bytes));
        let store = Self {
            shared,
            writer,
            pinned: replayed.pinned,
            recent,
            young: RefCell::default(),
            memtable_bytes: Cell::new(memtable_bytes),
            committed,
            unsynced: 0,
        };
        Ok((store, recovery))
    }
}

/// Makes the journal's unsynced end durable, and the mark say so.
fn secure(disk: &dyn Disk, places: &Places, mark: Option<Mark>, replayed: &Replayed) -> Result<(), FileError> {
    rewrite(disk, &places.journal, &replayed.unsynced)?;
    // Without a mark a loss is noted already, and stays noted.
    let Some(mark) = mark.filter(|_| !replayed.unsynced.is_empty()) else { return Ok(()) };
    let Position { index, chain } = replayed.end;
    MarkFile::replace(disk, &places.mark, Mark { index, chain, ..mark }).context("replace", &places.mark)?;
    Ok(())
}

/// Begins the next segment, durably, then the mark that names it, and only then removes what is no longer needed.
fn begin(
    places: Places,
    options: Options,
    disk: Arc<dyn Disk>,
    lock: std::fs::File,
    tree: Tree,
    replayed: &Replayed,
    kept_from: Option<u64>,
) -> Result<(Arc<Shared>, Writer), OpenError> {
    let Places { dir, journal, mark, .. } = places;
    let number = replayed.segments.last().map_or(1, |last| last + 1).max(kept_from.unwrap_or(1));
    let path = segment_path(&journal, number);
    let begun = Writer::begin(Arc::clone(&disk), journal.clone(), options.segment_bytes, number, replayed.end, &replayed.pinned);
    let writer = begun.context("create", &path)?;
    writer.file().sync_data().context("sync", &path)?;
    disk.sync_dir(&journal).context("sync", &journal)?;
    let first_segment = kept_from.unwrap_or(number);
    let end = replayed.end;
    let says = Mark { index: end.index, chain: end.chain, first_segment, tree: tree.version() };
    let mark_file = MarkFile::replace(disk.as_ref(), &mark, says).context("replace", &mark)?;
    for old in replayed.segments.iter().filter(|old| **old < first_segment) {
        let path = segment_path(&journal, *old);
        disk.remove(&path).context("remove", &path)?;
    }
    let mark_writer = MarkWriter::start(mark_file, options.parallel_mark).context("start a thread for", &mark)?;
    let counters = Counters::default();
    counters.first_segment.store(first_segment, Relaxed);
    counters.last_segment.store(number, Relaxed);
    counters.l0_runs.store(tree.l0_runs(), Relaxed);
    let shared = Shared {
        signal: Signal::new(options.on_work.clone()),
        written: Mutex::new(Written { committed: end, files: vec![writer.file()], names: false }),
        durable: Mutex::new(Durable { position: end, first_segment, tree: says.tree, mark: mark_writer }),
        gate: Mutex::new(Gate::default()),
        running: Mutex::new(()),
        full: AtomicBool::new(false),
        poison: Poison::default(),
        disk,
        dir,
        journal,
        options,
        tree,
        counters,
        _lock: lock,
    };
    // The space, and what the tree has left to compact, are to be looked at soon.
    shared.signal.work_is_due();
    Ok((Arc::new(shared), writer))
}

/// Reads the mark. `None`: the shard is new; `Some(None)`: it is not, but the mark says nothing.
fn read_mark(disk: &dyn Disk, places: &Places, start: &Start, lost: &mut Vec<String>) -> Result<Option<Option<Mark>>, OpenError> {
    match MarkFile::read(disk, &places.mark) {
        Ok(Some(Some(mark))) => return Ok(Some(Some(mark))),
        Ok(Some(None)) => lost.push("the journal's high-water mark is damaged: the journal's end cannot be vouched for".to_owned()),
        Ok(None) => {
            let segments = list_segments(disk, &places.journal).context("list", &places.journal)?;
            if segments.is_empty() && !tree::exists(&places.tree) && start.first {
                // The mark comes before the first segment, so that a segment without a mark is always a loss.
                let nothing = Mark { index: 0, chain: FIRST_CHAIN, first_segment: 1, tree: 0 };
                MarkFile::replace(disk, &places.mark, nothing).context("create", &places.mark)?;
                return Ok(None);
            }
            lost.push("the shard's high-water mark is missing: its files were removed, or never finished".to_owned());
        }
        // What can be read of the journal is replayed; the mark is then replaced by a sound one.
        Err(error) => lost.push(format!("the journal's high-water mark cannot be read: {error}")),
    }
    Ok(Some(None))
}

/// Opens the tree. A damaged one is set aside, whole, and an empty one takes its place.
fn open_tree(places: &Places, cache_bytes: u64, known: bool, lost: &mut Vec<String>) -> Result<Tree, OpenError> {
    let path = &places.tree;
    let failed = |error: &dyn std::fmt::Display| OpenError::Tree { path: path.clone(), why: error.to_string() };
    let exists = tree::exists(path);
    let unsound = if exists { tree::unsound(path).context("read", path)? } else { None };
    if known && !exists {
        lost.push("the tree is missing".to_owned());
    } else if let Some(why) = unsound {
        lost.push(format!("the tree is damaged: {why}"));
    } else {
        match Tree::open(path, cache_bytes) {
            Ok(tree) => return Ok(tree),
            Err(error) if !tree::is_damage(&error) => return Err(failed(&error)),
            Err(error) => lost.push(format!("the tree is damaged: {error}")),
        }
    }
    if path.exists() {
        let free = (1..).map(|n| places.dir.join(format!("tree.damaged-{n}"))).find(|aside| !aside.exists());
        let aside = free.expect("there is a number that is not taken");
        std::fs::rename(path, &aside).context("set aside", path)?;
        lost.push(format!("what was left of the tree was set aside as {}", aside.display()));
    }
    Tree::open(path, cache_bytes).map_err(|error| failed(&error))
}

/// Where the note of an unsettled loss is.
fn note(dir: &Path) -> PathBuf {
    dir.join("lost")
}

/// What an earlier start lost and nobody has settled. A damaged note is itself a loss.
fn noted_loss(disk: &dyn Disk, places: &Places) -> Result<Vec<String>, OpenError> {
    match blob::read(disk, &note(&places.dir)) {
        Ok(content) => Ok(String::from_utf8_lossy(&content.unwrap_or_default()).lines().map(str::to_owned).collect()),
        Err(FileError::Damaged { .. }) => Ok(vec!["the note of an earlier loss is damaged".to_owned()]),
        Err(error) => Err(error.into()),
    }
}

/// Notes a loss durably before anything is done that would hide it.
fn note_loss(disk: &dyn Disk, places: &Places, lost: &[String]) -> Result<(), OpenError> {
    if lost.is_empty() {
        return Ok(());
    }
    for what in lost {
        tracing::error!(dir = %places.dir.display(), what, "this replica has lost something");
    }
    Ok(blob::write(disk, &note(&places.dir), lost.join("\n").as_bytes())?)
}

/// Removes the note.
pub(super) fn forget_loss(disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
    blob::remove(disk, &note(dir))
}
