//! Opens a shard: replays the journal, tells a torn end from a loss, and begins a segment that is sound from its first
//! byte.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rejoin_core::port::{Row, Space};

use super::durable::DurableState;
use super::files::{ShardPaths, read_loss, write_table_list};
use super::open_tree::{ExpectedTree, TreeDamage, open_tree};
use super::options::{MAX_SEGMENT_BYTES, Options};
use super::read_only::ReadOnly;
use super::recovered::{BegunJournal, Recovered, Recovery, ReplayedRows};
use super::reseal::Sealing;
use super::row_cache::RowCache;
use super::shared::{OpenedShard, Shared, Unsynced};
use super::spaces::{receipt_key, tree_key};
use super::tree::{self, Tree};
use super::{CommitSeq, ShardStore};
use crate::disk::Disk;
use crate::error::{Context, FileError, OpenError};
use crate::io_cause::IoCause;
use crate::journal::{FIRST_CHAIN, JournalDir, Mark, MarkFile, discard_next, list_segments, replay};
use crate::lock::lock_dir;
use crate::pinned::Pinned;
use crate::start::Start;

impl ShardStore {
    /// Opens or creates the store in `dir`. After anything but a clean stop, everything that is replayed is first made
    /// durable again: if a failed sync has ended the last process, it may be in the page cache only.
    ///
    /// On a disk without room for that, or for a journal segment, the store opens read-only: it writes nothing, and
    /// writes are refused until there is room ([`Recovery::read_only`]).
    ///
    /// # Errors
    /// [`OpenError`] if another handle has the shard open, or for an I/O error that is not damage. Damage and loss are
    /// no errors: see [`Recovery::lost`].
    pub fn open(
        dir: impl AsRef<Path>,
        options: Options,
        disk: Arc<dyn Disk>,
        start: &Start,
    ) -> Result<(Self, Recovery), OpenError> {
        let options = Options { segment_bytes: options.segment_bytes.min(MAX_SEGMENT_BYTES), ..options };
        let paths = ShardPaths::new(dir.as_ref().to_path_buf());
        disk.create_dir(&paths.journal).context("create", &paths.journal)?;
        if let Some(parent) = paths.dir.parent() {
            disk.sync_dir(parent).context("sync", parent)?;
        }
        let lock = lock_dir(&paths.dir)?;
        // An unfinished segment holds nothing that is not elsewhere, and the room that it takes may be needed.
        discard_next(disk.as_ref(), &paths.journal).context("clear", &paths.journal)?;
        let is_new = options.keys.is_some() && is_new(disk.as_ref(), &paths, start)?;
        let sealing = Sealing::open(disk.as_ref(), &paths, options.keys.as_ref(), is_new)?;
        let mut memtable = ReplayedMemtable::default();
        let (mut recovered, tree, damaged) = recover(&disk, &paths, &options, start, &mut memtable)?;
        let pinned = std::mem::take(&mut recovered.replayed.pinned);
        // With little room the rows stay in the journal: a flush could take what the start needs.
        let free = disk.free_space(&paths.journal).context("look at the free space of", &paths.journal)?;
        let has_older_rows = sealing.as_ref().is_some_and(|sealing| !sealing.is_done());
        let flush = (!recovered.is_durable() || has_older_rows) && free >= options.free_space_floor;
        let (rows, begun) = begin(&recovered, &paths, &tree, &pinned, flush)?;
        if rows == ReplayedRows::Tree {
            memtable = ReplayedMemtable::default();
        }
        if let Some(sealing) = &sealing {
            sealing.opened(rows == ReplayedRows::Journal || begun.is_none(), &paths.dir);
        }
        let recovery = recovered.recovery(pinned.len(), begun.is_none(), damaged);
        let Recovery { replayed_records: records, cut_bytes, read_only, .. } = recovery;
        tracing::info!(dir = %paths.dir.display(), records, cut_bytes, read_only, "shard open");
        let (writer, mark) = match begun {
            Some(BegunJournal { writer, mark }) => (writer, Some(mark)),
            None => (ReadOnly::writer(&recovered), None),
        };
        let (end, first_segment, segment) = (recovered.replayed.end, recovered.first_segment(rows), writer.number());
        let row_cache = RefCell::new(RowCache::new(options.cache_bytes / 4));
        let shared = Shared::new(OpenedShard {
            unsynced: Unsynced { committed: end, files: vec![writer.file()], segment, names: false },
            durable: DurableState {
                position: end,
                first_segment,
                tree: tree.version(),
                newest_segment: segment,
                slots: 0,
                mark,
            },
            disk,
            paths,
            options,
            lock,
            tree,
            sealing,
            read_only,
            removed: memtable.removed,
        });
        let store = Self {
            shared,
            writer,
            pinned,
            row_cache,
            write_buffer: RefCell::default(),
            tree_buffer: RefCell::default(),
            memtable_bytes: Cell::new(memtable.bytes),
            committed: CommitSeq(end.index),
            unsynced: 0,
            read_only: read_only.then(|| Box::new(ReadOnly::new(recovered))),
        };
        Ok((store, recovery))
    }
}

/// What a replay has put into the memtable.
#[derive(Default)]
struct ReplayedMemtable {
    bytes: u64,
    /// Removed object rows.
    removed: u64,
}

/// Reads mark, tree and journal. Returns also a line about each damage of the tree whose cost is known.
fn recover(
    disk: &Arc<dyn Disk>,
    paths: &ShardPaths,
    options: &Options,
    start: &Start,
    memtable: &mut ReplayedMemtable,
) -> Result<(Recovered, Tree, Vec<String>), OpenError> {
    let mut lost = read_loss(disk.as_ref(), paths)?;
    let found = read_mark(disk.as_ref(), paths, start, &mut lost)?;
    let mark = found.mark();
    // A flush syncs the journal and the mark first, so before the first sync no tree need be there.
    let exists = !matches!(found, FoundMark::New) && mark.is_none_or(|mark| mark.index > 0);
    let expected = ExpectedTree { exists, version: mark.map(|mark| mark.tree) };
    let mut damage = TreeDamage { lost, damaged: Vec::new() };
    let tree = open_tree(disk.as_ref(), paths, options, expected, &mut damage)?;
    let TreeDamage { mut lost, damaged } = damage;
    if expected.version.is_some_and(|version| tree.version() < version) && lost.is_empty() {
        lost.push(
            "the tree is older than the mark: the rows that it had taken over from the journal are gone".to_owned(),
        );
    }
    // A leaf of a hash tree changes with every object of its range, and only its last row counts.
    let mut leaves = BTreeMap::new();
    let mut apply = |row: Row| match row.space {
        Space::Trees => drop(leaves.insert(tree_key(&row.key), row.value)),
        _ => {
            let key = if row.space == Space::Receipts { receipt_key(&row.key) } else { row.key };
            memtable.removed += u64::from(row.value.is_none());
            memtable.bytes = tree.apply(&key, row.value.as_deref());
        }
    };
    let replayed = replay(disk.as_ref(), &paths.journal, mark, start.unsynced_may_be_gone(), &mut apply)?;
    for (key, value) in leaves {
        memtable.bytes = tree.apply(&key, value.as_deref());
    }
    lost.extend(replayed.lost.iter().cloned());
    // The copy of the list must not name a table that was taken out.
    if !damaged.is_empty() {
        write_table_list(disk.as_ref(), paths, &tree);
    }
    let journal =
        JournalDir { disk: Arc::clone(disk), path: paths.journal.clone(), segment_bytes: options.segment_bytes };
    Ok((Recovered { journal, clean: start.clean, lost, mark, replayed }, tree, damaged))
}

/// Makes durable what was replayed and begins a segment, as far as there is room. The replayed rows are flushed, lost
/// or not, unless they are known to be durable where they are.
fn begin(
    recovered: &Recovered,
    paths: &ShardPaths,
    tree: &Tree,
    pinned: &Pinned,
    flush: bool,
) -> Result<(ReplayedRows, Option<BegunJournal>), OpenError> {
    if let Err(error) = recovered.secure(paths) {
        return Ok((ReplayedRows::Journal, none_if_no_room(error)?));
    }
    let rows = if flush { recovered.flush(paths, tree)? } else { ReplayedRows::Journal };
    recovered.copy_table_list(paths, tree, rows)?;
    let begun = recovered.begin(&paths.mark, rows, tree.version(), pinned);
    Ok((rows, begun.map(Some).or_else(none_if_no_room)?))
}

/// No segment is begun on a disk without room.
fn none_if_no_room(error: FileError) -> Result<Option<BegunJournal>, OpenError> {
    if error.cause() == IoCause::NoRoom { Ok(None) } else { Err(error.into()) }
}

/// The result of reading the mark.
enum FoundMark {
    /// The shard is new.
    New,
    /// The shard is not new, and its mark cannot be read.
    Unreadable,
    Mark(Mark),
}

impl FoundMark {
    fn mark(&self) -> Option<Mark> {
        if let Self::Mark(mark) = self { Some(*mark) } else { None }
    }
}

/// Whether the shard has no files of an earlier start.
fn is_new(disk: &dyn Disk, paths: &ShardPaths, start: &Start) -> Result<bool, FileError> {
    if !start.first {
        return Ok(false);
    }
    let segments = list_segments(disk, &paths.journal).context("list", &paths.journal)?;
    Ok(segments.is_empty() && !tree::exists(&paths.tree).context("look for", &paths.tree)?)
}

fn read_mark(
    disk: &dyn Disk,
    paths: &ShardPaths,
    start: &Start,
    lost: &mut Vec<String>,
) -> Result<FoundMark, OpenError> {
    match MarkFile::read(disk, &paths.mark) {
        Ok(Some(Some(mark))) => return Ok(FoundMark::Mark(mark)),
        Ok(Some(None)) => {
            lost.push("the journal's mark is damaged: the journal's end cannot be vouched for".to_owned())
        }
        Ok(None) => {
            if is_new(disk, paths, start)? {
                // The mark is made before the first segment, so that a segment without a mark is always a loss.
                let mark =
                    Mark { index: 0, chain: FIRST_CHAIN, first_segment: 1, tree: 0, newest_segment: 0, slots_from: 1 };
                MarkFile::replace(disk, &paths.mark, mark)?;
                return Ok(FoundMark::New);
            }
            lost.push("the shard's mark is missing: its files were removed, or never finished".to_owned());
        }
        // The journal is replayed as far as it can be read, and the mark is then replaced.
        Err(error) if IoCause::of(&error).is_damage() => {
            lost.push(format!("the journal's mark cannot be read: {error}"))
        }
        Err(error) => return Err(FileError::io("read", &paths.mark, error).into()),
    }
    Ok(FoundMark::Unreadable)
}
