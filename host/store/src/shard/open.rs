//! Opens a shard: replays the journal, tells a torn end from a loss, and begins a journal that is sound from its first
//! byte.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::Options;
use super::recent::Recent;
use super::shared::{aside, note_lost, note_version, noted_lost, noted_version};
use super::sync::MarkWriter;
use super::tree::{self, Lost, Tree};
use super::unbegun::Unbegun;
use super::{CommitSeq, ShardStore};
use crate::blob;
use crate::dir::{Start, lock};
use crate::disk::{Disk, is_damage};
use crate::error::{Context, FileError, OpenError};
use crate::journal::{FIRST_CHAIN, Mark, MarkFile, discard_next, list_segments, replay};

/// What opening a shard found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// Records replayed from the journal.
    pub replayed_records: u64,
    /// Bytes at the journal's end that were cut as torn: written at most, never synced, never acknowledged as durable.
    pub cut_bytes: u64,
    /// What this replica has lost, for people; empty when it has lost nothing. Not empty means: every actor of this
    /// shard ends, the shard vouches for nothing until it has rebuilt by exchange, and [`ShardStore::settle_loss`] is
    /// called once the new actors are durable. What can be read is what was once written, but perhaps not the last that
    /// was.
    pub lost: Vec<String>,
    /// Pinned rows there.
    pub pinned_rows: usize,
    /// Damaged tables that were taken out of the tree, for people. The keys lost with them read as damaged until they
    /// are written anew, so no actor has to end for them.
    pub damaged: Vec<String>,
    /// There was no room to begin a journal segment: nothing is written until there is.
    pub read_only: bool,
}

/// Where things are in a shard's directory.
pub(super) struct Places {
    pub(super) dir: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) mark: PathBuf,
    pub(super) tree: PathBuf,
}

impl ShardStore {
    /// Opens or creates the store in `dir`. After anything but a clean stop, all that is replayed is first made durable
    /// anew: what was read may be in the page cache only, if it was a failed sync that ended the last process.
    ///
    /// Where there is no room for that, or for a journal segment, the store is opened all the same: it writes nothing,
    /// reads go on, and writes are refused until there is room ([`Recovery::read_only`]).
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
        // A segment that was never finished holds nothing that is not elsewhere, and the room that it takes may be
        // needed.
        discard_next(disk.as_ref(), &places.journal).context("clear", &places.journal)?;
        let mut lost = noted_loss(disk.as_ref(), &places)?;
        let mark = read_mark(disk.as_ref(), &places, start, &mut lost)?;
        // A flush syncs first, so before the first sync there is nothing in the tree to be missed.
        let known = mark.is_some_and(|mark| mark.is_none_or(|mark| mark.index > 0));
        let rows_bytes = options.cache_bytes / 4;
        let (tree, damage) = open_tree(disk.as_ref(), &places, &options, known, mark.flatten().map(|mark| mark.tree), &mut lost)?;
        if mark.flatten().is_some_and(|mark| tree.version() < mark.tree) && lost.is_empty() {
            lost.push("the tree is older than the mark: what it had taken over from the journal is gone".to_owned());
        }
        let mut memtable_bytes = 0;
        let mut apply = |row: rejoin_core::port::Row| memtable_bytes = tree.apply(&row.key, row.value.as_deref());
        let mut replayed = replay(disk.as_ref(), &places.journal, mark.flatten(), &mut apply)?;
        lost.extend(replayed.lost.iter().cloned());
        let pinned = std::mem::take(&mut replayed.pinned);
        // With little room the journal keeps its rows until there is more: a flush could take what a start needs.
        let cramped = disk.free_space(&places.journal).context("look at the free space of", &places.journal)? < options.free_space_floor;
        // The copy of the list must not name a table that was taken out.
        if !damage.is_empty()
            && let Err(error) = note_version(disk.as_ref(), &places.dir, &tree)
        {
            tracing::warn!(dir = %places.dir.display(), %error, "no copy is kept of the tree's list of tables");
        }
        let mut rest = Unbegun::new(places, options.segment_bytes, start.clean, lost, mark.flatten(), replayed, cramped);
        let begun = rest.begin_at_start(&disk, &tree, &pinned, &mut memtable_bytes)?;
        let recovery = rest.recovery(pinned.len(), begun.is_none(), damage);
        let committed = CommitSeq(rest.end().index);
        let read_only = begun.is_none();
        let writer_and_mark = match begun {
            Some(begun) => (begun.writer, MarkWriter::start(begun.mark, options.parallel_mark).context("start a thread for", rest.mark())?),
            None => (rest.no_writer(&disk), MarkWriter::Nowhere),
        };
        let shared = rest.share(options, disk, lock, tree, &writer_and_mark.0, writer_and_mark.1, read_only);
        let store = Self {
            shared,
            writer: writer_and_mark.0,
            pinned,
            recent: RefCell::new(Recent::new(rows_bytes)),
            young: RefCell::default(),
            memtable_bytes: Cell::new(memtable_bytes),
            committed,
            unsynced: 0,
            unbegun: read_only.then(|| Box::new(rest)),
        };
        Ok((store, recovery))
    }
}

/// Reads the mark. `None`: the shard is new; `Some(None)`: it is not, but the mark says nothing.
fn read_mark(disk: &dyn Disk, places: &Places, start: &Start, lost: &mut Vec<String>) -> Result<Option<Option<Mark>>, OpenError> {
    match MarkFile::read(disk, &places.mark) {
        Ok(Some(Some(mark))) => return Ok(Some(Some(mark))),
        Ok(Some(None)) => lost.push("the journal's high-water mark is damaged: the journal's end cannot be vouched for".to_owned()),
        Ok(None) => {
            let segments = list_segments(disk, &places.journal).context("list", &places.journal)?;
            if segments.is_empty() && start.first && !tree::exists(&places.tree).context("look for", &places.tree)? {
                // The mark comes before the first segment, so that a segment without a mark is always a loss.
                let nothing = Mark { index: 0, chain: FIRST_CHAIN, first_segment: 1, tree: 0 };
                MarkFile::replace(disk, &places.mark, nothing).context("create", &places.mark)?;
                return Ok(None);
            }
            lost.push("the shard's high-water mark is missing: its files were removed, or never finished".to_owned());
        }
        // What can be read of the journal is replayed; the mark is then replaced by a sound one.
        Err(error) if is_damage(&error) => lost.push(format!("the journal's high-water mark cannot be read: {error}")),
        Err(error) => return Err(FileError::io("read", &places.mark, error).into()),
    }
    Ok(Some(None))
}

/// Opens the tree, which has what the journal has given up in this version of it, and says which tables were damaged.
/// One of which it cannot be told what tables it has is set aside, whole, and an empty one takes its place.
fn open_tree(
    disk: &dyn Disk,
    places: &Places,
    options: &Options,
    known: bool,
    taken_over: Option<u64>,
    lost: &mut Vec<String>,
) -> Result<(Tree, Vec<String>), OpenError> {
    let path = &places.tree;
    let cache_bytes = options.cache_bytes - options.cache_bytes / 4;
    let failed = |error: &dyn std::fmt::Display| OpenError::Tree { path: path.clone(), why: error.to_string() };
    let mut ranges = match noted_lost(disk, &places.dir) {
        Err(error) if error.is_damage() => {
            lost.push("the list of what was lost with damaged tables is itself damaged".to_owned());
            Lost::default()
        }
        noted => noted?,
    };
    tree::clear_strays(path, &aside(&places.dir)).context("clear", path)?;
    let existed = tree::exists(path).context("look for", path)?;
    let open = |ranges: Lost| Tree::open(path, cache_bytes, options.descriptors.clone(), ranges);
    let (mut damage, mut last) = (Vec::new(), None);
    let mut unsound = (known && !existed).then(|| "the tree is missing".to_owned());
    // What was sound at the look may not be when it is opened.
    for _ in 0..LOOKS {
        if unsound.is_none() && existed {
            unsound = mended(disk, places, taken_over.unwrap_or_default(), &mut ranges, &mut damage)?;
        }
        if unsound.is_some() {
            break;
        }
        match open(ranges.clone()) {
            Ok(tree) => return Ok((tree, damage)),
            // Of a tree that was not there nothing can be damaged.
            Err(error) if !existed || !tree::shows_damage(&error) => return Err(failed(&error)),
            Err(error) => {
                tracing::error!(dir = %places.dir.display(), %error, "the tree is damaged");
                last = Some(error);
            }
        }
    }
    match (unsound, last) {
        // The tree's first version has taken nothing over: the journal has everything.
        (Some(why), _) if existed && taken_over == Some(0) => damage.push(why),
        (Some(why), _) => lost.push(why),
        // The look finds it sound: nothing is given up for what is not understood.
        (None, Some(error)) => return Err(failed(&error)),
        (None, None) => {}
    }
    set_aside(places)?.into_iter().for_each(|what| if lost.is_empty() { damage.push(what) } else { lost.push(what) });
    // Everything counts as lost, which is more than the list says.
    Ok((open(Lost::default()).map_err(|error| failed(&error))?, damage))
}

/// How often a tree is looked at and mended before it is given up.
const LOOKS: usize = 3;

/// Takes what is damaged out of a tree. Returns why that cannot be done, if it cannot be told what tables it has.
fn mended(
    disk: &dyn Disk,
    places: &Places,
    taken_over: u64,
    ranges: &mut Lost,
    damage: &mut Vec<String>,
) -> Result<Option<String>, OpenError> {
    let path = &places.tree;
    let mut say = |what: String| {
        tracing::error!(dir = %places.dir.display(), what, "the tree was damaged");
        damage.push(what);
    };
    let copy = noted_version(disk, &places.dir)?;
    let mut found = tree::look_before_open(path, ranges, copy.as_deref()).context("read", path)?;
    if let tree::Found::Unsound(why) = &found
        && let Some(copy) = &copy
        && tree::restore(path, copy, taken_over).context("restore", path)?
    {
        say(format!("the tree's list of tables was damaged ({why}); a copy of it has taken its place"));
        found = tree::look_before_open(path, ranges, Some(copy)).context("read", path)?;
    }
    match found {
        tree::Found::Sound => Ok(None),
        tree::Found::Unsound(why) => Ok(Some(format!("the tree is damaged: {why}"))),
        tree::Found::Damaged(manifest, tables) => {
            let note = |lost: &Lost| note_lost(disk, &places.dir, lost);
            let mended = tree::mend_before_open(path, manifest, &tables, ranges, &note, &aside(&places.dir));
            mended.map_err(|error| not_mended(path, &tables, &error))?.into_iter().for_each(say);
            Ok(None)
        }
    }
}

/// A table is damaged, and what can be read of it could not be written anew.
fn not_mended(path: &Path, tables: &[tree::DamagedTable], error: &lsm_tree::Error) -> OpenError {
    let first = tables.first().map(|(table, why)| format!("table {} is damaged ({why})", table.id())).unwrap_or_default();
    let why = format!("{first}, and what can be read of it cannot be written anew: {error}; make room on the disk and start again");
    OpenError::Tree { path: path.to_path_buf(), why }
}

/// Where a tree is kept that could not be opened, for people to look at, as long as there is room.
const SET_ASIDE: &str = "tree.damaged";

/// Removes what is kept of a damaged tree.
pub(super) fn remove_set_aside(dir: &Path) {
    match std::fs::remove_dir_all(dir.join(SET_ASIDE)) {
        Ok(()) => tracing::warn!(dir = %dir.display(), "removed what was kept of a damaged tree"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "what was kept of a damaged tree could not be removed"),
    }
}

fn set_aside(places: &Places) -> Result<Option<String>, OpenError> {
    let path = &places.tree;
    if path.exists() {
        // One is enough to look at.
        remove_set_aside(&places.dir);
        let aside = places.dir.join(SET_ASIDE);
        std::fs::rename(path, &aside).context("set aside", path)?;
        return Ok(Some(format!("what was left of the tree was set aside as {}", aside.display())));
    }
    Ok(None)
}

/// Where the note of an unsettled loss is.
fn note(dir: &Path) -> PathBuf {
    dir.join("lost")
}

/// What an earlier start lost and nobody has settled. A damaged note is itself a loss.
fn noted_loss(disk: &dyn Disk, places: &Places) -> Result<Vec<String>, OpenError> {
    match blob::read(disk, &note(&places.dir)) {
        Ok(content) => Ok(String::from_utf8_lossy(&content.unwrap_or_default()).lines().map(str::to_owned).collect()),
        Err(error) if error.is_damage() => Ok(vec!["the note of an earlier loss is damaged".to_owned()]),
        Err(error) => Err(error.into()),
    }
}

/// Notes a loss durably before anything is done that would hide it.
pub(super) fn note_loss(disk: &dyn Disk, places: &Places, lost: &[String]) -> Result<(), FileError> {
    if lost.is_empty() {
        return Ok(());
    }
    for what in lost {
        tracing::error!(dir = %places.dir.display(), what, "this replica has lost something");
    }
    blob::write(disk, &note(&places.dir), lost.join("\n").as_bytes())
}

/// Removes the note.
pub(super) fn forget_loss(disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
    blob::remove(disk, &note(dir))
}
