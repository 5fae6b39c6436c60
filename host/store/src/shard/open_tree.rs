//! Opens a shard's tree: verifies it, takes damaged tables out, and replaces a tree whose list of tables cannot be
//! restored by an empty one.

use std::path::Path;

use super::files::{ShardPaths, read_lost_ranges, read_table_list, set_aside, write_lost_ranges};
use super::options::Options;
use super::tree::{self, DamagedTable, LostRanges, RepairContext, Tree, TreeCheck, TreeError};
use crate::disk::Disk;
use crate::error::{Context, OpenError};

/// How often a tree is checked and repaired before it is given up.
const CHECKS: usize = 3;

/// What the mark says of the tree.
#[derive(Clone, Copy)]
pub(super) struct ExpectedTree {
    /// There must be a tree: a journal segment was synced.
    pub(super) exists: bool,
    /// The version of the tree that holds what retired segments held.
    pub(super) version: Option<u64>,
}

/// What went wrong with a tree.
#[derive(Default)]
pub(super) struct TreeDamage {
    /// Losses of the whole tree.
    pub(super) lost: Vec<String>,
    /// Damage whose cost is known by key range, or that cost nothing.
    pub(super) damaged: Vec<String>,
}

/// Opens or creates the tree.
///
/// # Errors
/// [`OpenError`] for an error that is not damage, or if damage cannot be repaired for want of room.
pub(super) fn open_tree(
    disk: &dyn Disk,
    paths: &ShardPaths,
    options: &Options,
    expected: ExpectedTree,
    damage: &mut TreeDamage,
) -> Result<Tree, OpenError> {
    let path = &paths.tree;
    let cache_bytes = options.cache_bytes - options.cache_bytes / 4;
    let failed = |error: TreeError| OpenError::Tree { path: path.clone(), why: error.to_string() };
    let mut ranges = match read_lost_ranges(disk, paths) {
        Err(error) if error.cause().is_damage() => {
            damage.lost.push("the list of what was lost with damaged tables is itself damaged".to_owned());
            LostRanges::default()
        }
        ranges => ranges?,
    };
    tree::clear_strays(path, &paths.quarantine()).context("clear", path)?;
    let existed = tree::exists(path).context("look for", path)?;
    let open = |ranges: LostRanges| Tree::open(path, cache_bytes, options.descriptors.clone(), ranges);
    let mut last = None;
    let mut unsound = (expected.exists && !existed).then(|| "the tree is missing".to_owned());
    // A tree that was sound when it was checked may not be when it is opened.
    for _ in 0..CHECKS {
        if unsound.is_none() && existed {
            unsound = repair(disk, paths, expected.version.unwrap_or_default(), &mut ranges, &mut damage.damaged)?;
        }
        if unsound.is_some() {
            break;
        }
        match open(ranges.clone()) {
            Ok(tree) => return Ok(tree),
            // A tree that did not exist cannot be damaged.
            Err(error) if !existed || !error.cause().is_damage() => return Err(failed(error)),
            Err(error) => {
                tracing::error!(dir = %paths.dir.display(), %error, "the tree is damaged");
                last = Some(error);
            }
        }
    }
    match (unsound, last) {
        // The journal has everything: no segment was retired yet.
        (Some(why), _) if existed && expected.version == Some(0) => damage.damaged.push(why),
        (Some(why), _) => damage.lost.push(why),
        // The check finds the tree sound. Nothing is given up for an error that is not understood.
        (None, Some(error)) => return Err(failed(error)),
        (None, None) => {}
    }
    let kept = set_aside(paths)?;
    if damage.lost.is_empty() {
        damage.damaged.extend(kept)
    } else {
        damage.lost.extend(kept)
    }
    // Everything counts as lost, so the list of ranges has no more to say.
    open(LostRanges::default()).map_err(failed)
}

/// Takes what is damaged out of a closed tree. Returns the reason if its list of tables cannot be restored.
fn repair(
    disk: &dyn Disk,
    paths: &ShardPaths,
    version: u64,
    ranges: &mut LostRanges,
    damaged: &mut Vec<String>,
) -> Result<Option<String>, OpenError> {
    let path = &paths.tree;
    let mut report = |what: String| {
        tracing::error!(dir = %paths.dir.display(), what, "the tree was damaged");
        damaged.push(what);
    };
    let copy = read_table_list(disk, paths)?;
    let mut check = tree::check_before_open(path, ranges, copy.as_deref()).context("read", path)?;
    if let TreeCheck::Unsound(why) = &check
        && let Some(copy) = &copy
        && tree::restore(path, copy, version).map_err(|error| not_restored(path, error))?
    {
        report(format!("the tree's list of tables was damaged ({why}); a copy of it has taken its place"));
        check = tree::check_before_open(path, ranges, Some(copy)).context("read", path)?;
    }
    match check {
        TreeCheck::Sound => Ok(None),
        TreeCheck::Unsound(why) => Ok(Some(format!("the tree is damaged: {why}"))),
        TreeCheck::Damaged(manifest, tables) => {
            let save_lost = |lost: &LostRanges| write_lost_ranges(disk, paths, lost);
            let context = RepairContext { save_lost: &save_lost, quarantine: &paths.quarantine() };
            let lines = tree::repair_before_open(path, manifest, &tables, ranges, &context);
            lines.map_err(|error| not_repaired(path, &first(&tables), &error))?.into_iter().for_each(report);
            Ok(None)
        }
    }
}

fn first(tables: &[DamagedTable]) -> String {
    tables.first().map(|table| format!("table {} is damaged ({})", table.id(), table.why())).unwrap_or_default()
}

fn not_restored(path: &Path, error: TreeError) -> OpenError {
    match error {
        TreeError::File(error) => error.into(),
        TreeError::Lsm(error) => OpenError::Tree { path: path.to_path_buf(), why: error.to_string() },
    }
}

/// The tree is damaged, and its repair could not be written.
fn not_repaired(path: &Path, damage: &str, error: &TreeError) -> OpenError {
    let why = format!(
        "{damage}, and what can be read of it cannot be written anew: {error}; make room on the disk and start again"
    );
    OpenError::Tree { path: path.to_path_buf(), why }
}
