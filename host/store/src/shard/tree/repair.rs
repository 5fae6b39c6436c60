//! Takes damaged tables out of a tree, before it is opened and while it is open.
//!
//! The order of the steps is what makes a crash harmless: the readable rows are in a new table, and the lost ranges are
//! durable, before a version without the damaged table becomes the current one.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::{AbstractTree, AnyTree, Memtable, Table};

use super::check::{damaged_tables, verify};
use super::error::TreeError;
use super::lost_ranges::{LostRange, LostRanges};
use super::manifest::{Manifest, TableEntry, TableRanges};
use super::salvage::{DamagedTable, salvage};
use super::{OpenTree, Tree, entry, open_files};
use crate::disk::PRIVATE;
use crate::error::FileError;
use crate::io_cause::IoCause;

/// Damaged tables that are kept in quarantine; older ones are removed.
const MAX_QUARANTINED: usize = 4;

/// Makes a list of lost ranges durable.
pub(in crate::shard) type SaveLost<'a> = &'a dyn Fn(&LostRanges) -> Result<(), FileError>;

/// Where a repair keeps what it takes out, and how it saves what is lost.
pub(in crate::shard) struct RepairContext<'a> {
    pub(in crate::shard) save_lost: SaveLost<'a>,
    /// The directory for damaged tables, for people to look at.
    pub(in crate::shard) quarantine: &'a Path,
}

/// The state of a tree before it is opened.
pub(in crate::shard) enum TreeCheck {
    Sound,
    /// The list of tables is damaged.
    Unsound(String),
    /// Some tables are damaged.
    Damaged(Manifest, Vec<DamagedTable>),
}

/// Checks a closed tree. `copy` is the copy of its list of tables.
///
/// # Errors
/// Every error that is not [damage](IoCause::is_damage).
pub(in crate::shard) fn check_before_open(
    tree: &Path,
    lost: &LostRanges,
    copy: Option<&[u8]>,
) -> io::Result<TreeCheck> {
    let manifest = match Manifest::read(tree) {
        Ok(manifest) => manifest,
        Err(error) if IoCause::of(&error).is_damage() => return Ok(TreeCheck::Unsound(error.to_string())),
        Err(error) => return Err(error),
    };
    let damaged = damaged_tables(tree, &manifest, &TableRanges::of_copy(copy), lost.highest())?;
    Ok(if damaged.is_empty() { TreeCheck::Sound } else { TreeCheck::Damaged(manifest, damaged) })
}

/// Restores the list of tables from a copy, unless the copy is older than version `at_least`: rows that the journal has
/// retired since would be missing. Returns whether it was restored.
///
/// # Errors
/// What the operating system says.
pub(in crate::shard) fn restore(tree: &Path, copy: &[u8], at_least: u64) -> Result<bool, TreeError> {
    let Ok((mut manifest, _)) = Manifest::from_copy(copy) else { return Ok(false) };
    if manifest.id < at_least {
        return Ok(false);
    }
    let names = std::fs::read_dir(tree)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter_map(|name| name.strip_prefix('v')?.parse::<u64>().ok()).max();
    manifest.id = newest.unwrap_or_default().max(manifest.id) + 1;
    manifest.write(tree)?;
    Ok(true)
}

/// Takes damaged tables out of a closed tree. Returns a line about each, for people.
///
/// # Errors
/// [`TreeError`]; the tree is then as it was.
pub(in crate::shard) fn repair_before_open(
    tree: &Path,
    manifest: Manifest,
    damaged: &[DamagedTable],
    lost: &mut LostRanges,
    context: &RepairContext<'_>,
) -> Result<Vec<String>, TreeError> {
    let names = std::fs::read_dir(tree.join("tables"))?;
    let there = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let listed = manifest.tables().map(|(_, entry)| entry.id);
    let mut number = there.chain(listed).max().unwrap_or_default();
    let mut next = || {
        number += 1;
        number
    };
    let (manifest, more, lines) = salvage_all(tree, manifest, damaged, &mut next)?;
    publish(tree, &manifest, damaged, (lost, more), context)?;
    Ok(lines)
}

/// Salvages damaged tables. Returns the next version, which has the new tables in their place, what is lost, and a line
/// about each.
fn salvage_all(
    tree: &Path,
    mut manifest: Manifest,
    damaged: &[DamagedTable],
    next: &mut dyn FnMut() -> u64,
) -> Result<(Manifest, Vec<LostRange>, Vec<String>), TreeError> {
    let (mut lines, mut lost) = (Vec::new(), Vec::new());
    for table in damaged {
        let salvaged = salvage(&tree.join("tables"), table, next())?;
        put_in_place(&mut manifest, table.entry.id, salvaged.replacement);
        lines.push(line(table, &salvaged.lost));
        lost.extend(salvaged.lost);
    }
    manifest.id += 1;
    Ok((manifest, lost, lines))
}

/// Makes the next version the current one. `lost` has `more` once that is saved, also if a later step fails: nobody may
/// read the new version without it.
fn publish(
    tree: &Path,
    manifest: &Manifest,
    damaged: &[DamagedTable],
    (lost, more): (&mut LostRanges, Vec<LostRange>),
    context: &RepairContext<'_>,
) -> Result<(), TreeError> {
    let mut all = lost.clone();
    all.extend(more);
    if all != *lost {
        (context.save_lost)(&all)?;
        *lost = all;
    }
    manifest.write(tree)?;
    damaged.iter().for_each(|table| quarantine(tree, table.id(), context.quarantine));
    Ok(())
}

pub(super) fn put_in_place(manifest: &mut Manifest, id: u64, replacement: Option<TableEntry>) {
    for runs in &mut manifest.levels {
        for run in runs.iter_mut() {
            if let Some(place) = run.iter().position(|entry| entry.id == id) {
                run.splice(place..=place, replacement);
            }
        }
        runs.retain(|run| !run.is_empty());
    }
}

fn line(table: &DamagedTable, lost: &[LostRange]) -> String {
    let (id, why) = (table.id(), table.why());
    match lost {
        [] => format!("table {id} was damaged ({why}); all of its rows could be read and were written anew"),
        [one] => format!("table {id} is damaged ({why}); lost are the {one}"),
        [first, rest @ ..] => {
            format!("table {id} is damaged ({why}); lost are the {first}, and {} further ranges", rest.len())
        }
    }
}

/// Keeps a damaged table under another name, since lsm-tree removes the file. A failure costs nothing but the look at
/// it.
fn quarantine(tree: &Path, id: u64, dir: &Path) {
    let kept = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(PRIVATE).create(dir)?;
        std::fs::hard_link(tree.join("tables").join(id.to_string()), dir.join(id.to_string()))?;
        let mut kept: Vec<u64> =
            std::fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        kept.sort_unstable();
        for old in kept.iter().rev().skip(MAX_QUARANTINED) {
            std::fs::remove_file(dir.join(old.to_string()))?;
        }
        Ok(())
    };
    if let Err(error) = kept() {
        tracing::warn!(table = id, %error, "a damaged table could not be kept in quarantine");
    }
}

impl Tree {
    /// Verifies the suspect tables, and takes out those that are damaged. Returns a line about each, for people.
    ///
    /// # Errors
    /// [`TreeError`]. Either the tree is as it was, or [`Tree::reconcile`] opens the repaired one.
    pub(in crate::shard) fn repair(
        &self,
        suspects: &SuspectTables<'_>,
        context: &RepairContext<'_>,
    ) -> Result<Vec<String>, TreeError> {
        self.reconcile()?;
        let damaged = self.damaged(suspects)?;
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let (tree, lost) = {
            let open = self.shared();
            (open.tree.clone(), Arc::clone(&open.lost))
        };
        let mut lost = LostRanges::clone(&lost);
        let mut next = || tree.get_next_table_id();
        let (manifest, more, lines) = salvage_all(&self.path, self.manifest(), &damaged, &mut next)?;
        let published = publish(&self.path, &manifest, &damaged, (&mut lost, more), context);
        self.set_lost(lost.clone());
        published?;
        if let Err(error) = self.reopen(lost.into()) {
            // The version on the disk is the current one: the damaged files may be gone. `reconcile` opens it before
            // anything else is written.
            lines
                .iter()
                .for_each(|what| tracing::error!(tree = %self.path.display(), what, "a table of the tree is damaged"));
            return Err(error);
        }
        Ok(lines)
    }

    fn damaged(&self, suspects: &SuspectTables<'_>) -> io::Result<Vec<DamagedTable>> {
        let version = self.shared().tree.current_version();
        let mut damaged = Vec::new();
        for (level, runs) in version.iter_levels().enumerate() {
            for table in runs.iter().flat_map(|run| suspects.of(run.iter())) {
                let entry = entry(table);
                if let Some(why) = verify(&self.path, entry)? {
                    let key = |key: &[u8]| Bound::Included(Bytes::copy_from_slice(key));
                    let range = &table.metadata.key_range;
                    let between = (key(range.min()), key(range.max()));
                    damaged.push(DamagedTable { entry, level, upto: table.get_highest_seqno(), between, why });
                }
            }
        }
        Ok(damaged)
    }

    /// Opens the current version of the disk if the one in memory is another: a flush or compaction has failed after it
    /// had published its result.
    ///
    /// # Errors
    /// [`TreeError`]; nothing may be written to the tree then.
    pub(in crate::shard) fn reconcile(&self) -> Result<(), TreeError> {
        let (id, lost) = {
            let open = self.shared();
            (open.tree.current_version().id(), Arc::clone(&open.lost))
        };
        match Manifest::current_id(&self.path) {
            Ok(current) if current == id => return Ok(()),
            Ok(_) => {}
            // `current` is damaged. The next flush or compaction rewrites it.
            Err(error) if IoCause::of(&error).is_damage() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        tracing::warn!(tree = %self.path.display(), "the tree goes on from the version on the disk");
        self.reopen(lost)
    }

    /// Opens the files as they are now, in place of the open tree.
    pub(super) fn reopen(&self, lost: Arc<LostRanges>) -> Result<(), TreeError> {
        let mut open = self.exclusive();
        let (tree, manifest) =
            open_files(&self.path, self.cache_bytes, &self.descriptors, (&self.seqno, &self.visible))?;
        // The memtables are carried over with their sequence numbers, so that snapshots stay valid.
        open.sealed.iter().for_each(|memtable| copy(memtable, &tree));
        let sealed = tree.rotate_memtable().into_iter().collect();
        copy(&open.tree.active_memtable(), &tree);
        self.descriptors.forget(&open.tree);
        *open = OpenTree { tree, manifest, sealed, lost };
        Ok(())
    }
}

fn copy(memtable: &Arc<Memtable>, tree: &AnyTree) {
    for row in memtable.iter() {
        let (key, seqno) = (row.key.user_key.clone(), row.key.seqno);
        if row.is_tombstone() {
            tree.remove(key, seqno);
        } else {
            tree.insert(key, row.value, seqno);
        }
    }
}

/// The tables that may be damaged.
pub(in crate::shard) enum SuspectTables<'a> {
    /// Tables that may have one of these keys.
    Keys(&'a BTreeSet<Bytes>),
    /// In every run the first table that may have a key behind this bound, where a scan has met damage.
    Behind(&'a Bound<Bytes>),
    /// Tables with these numbers.
    Tables(&'a [u64]),
}

impl SuspectTables<'_> {
    /// The suspects of a run, whose tables are in key order.
    fn of<'a>(&self, run: impl Iterator<Item = &'a Table>) -> Vec<&'a Table> {
        let reaches = |table: &&Table, bound: &Bound<Bytes>| match bound {
            Bound::Included(key) => &table.metadata.key_range.max()[..] >= key,
            Bound::Excluded(key) => &table.metadata.key_range.max()[..] > key,
            Bound::Unbounded => true,
        };
        let mut run = run;
        match self {
            Self::Keys(keys) => {
                run.filter(|table| keys.iter().any(|key| table.metadata.key_range.contains_key(key))).collect()
            }
            Self::Behind(bound) => run.find(|table| reaches(table, bound)).into_iter().collect(),
            Self::Tables(tables) => run.filter(|table| tables.contains(&table.id())).collect(),
        }
    }
}
