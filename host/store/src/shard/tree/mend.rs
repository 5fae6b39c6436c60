//! Takes damaged tables out of a tree, before it is opened and while it is open.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::{AbstractTree, AnyTree, Error, Memtable, Table};

use super::check::{damaged_tables, verify};
use super::lost::{Lost, LostRange};
use super::manifest::{Manifest, Ranges};
use super::salvage::{Damaged, salvage};
use super::{Open, Tree, entry, open_files};
use crate::disk::{PRIVATE, is_damage};

/// Damaged tables that are kept for people to look at; older ones go.
const KEPT: usize = 4;

/// Notes durably what is lost, before anything is done that would hide it.
pub(in crate::shard) type Note<'a> = &'a dyn Fn(&Lost) -> io::Result<()>;

/// A damaged table, and what is wrong with it.
pub(in crate::shard) type DamagedTable = (Damaged, String);

/// What a look at a tree has found before it is opened.
pub(in crate::shard) enum Found {
    /// It can be opened.
    Sound,
    /// It cannot be told which tables it has.
    Unsound(String),
    /// Some tables are damaged.
    Damaged(Manifest, Vec<DamagedTable>),
}

/// Looks at a tree that is there before it is opened. `copy` is the copy of its list of tables that is kept.
///
/// # Errors
/// What the operating system says for want of descriptors, memory or permission.
pub(in crate::shard) fn look_before_open(tree: &Path, lost: &Lost, copy: Option<&[u8]>) -> io::Result<Found> {
    let manifest = match Manifest::read(tree) {
        Ok(manifest) => manifest,
        Err(error) if is_damage(&error) => return Ok(Found::Unsound(error.to_string())),
        Err(error) => return Err(error),
    };
    let damaged = damaged_tables(tree, &manifest, &Ranges::of_copy(copy), lost.highest())?;
    Ok(if damaged.is_empty() { Found::Sound } else { Found::Damaged(manifest, damaged) })
}

/// Makes a copy of the list of tables the one that counts, if what the journal has given up since is in it: that is, up
/// to this version of the tree. Returns whether it does.
///
/// # Errors
/// What the operating system says.
pub(in crate::shard) fn restore(tree: &Path, copy: &[u8], at_least: u64) -> io::Result<bool> {
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

/// Takes damaged tables out of a tree that is not open. Returns what is to be said, one line a table.
///
/// # Errors
/// What the operating system says; the tree is then as it was.
pub(in crate::shard) fn mend_before_open(
    tree: &Path,
    manifest: Manifest,
    damaged: &[DamagedTable],
    lost: &mut Lost,
    note: Note<'_>,
    aside: &Path,
) -> Result<Vec<String>, Error> {
    let names = std::fs::read_dir(tree.join("tables"))?;
    let there = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    let listed = manifest.tables().map(|(_, entry)| entry.id);
    let mut number = there.chain(listed).max().unwrap_or_default();
    let mut next = || {
        number += 1;
        number
    };
    replace(tree, manifest, damaged, lost, note, &mut next, aside)
}

/// Makes the version that has sound tables, or none, in place of the damaged ones. `lost` names what they cost once
/// that is noted, also if what follows fails: nobody may read the new version without it.
fn replace(
    tree: &Path,
    mut manifest: Manifest,
    damaged: &[DamagedTable],
    lost: &mut Lost,
    note: Note<'_>,
    next: &mut dyn FnMut() -> u64,
    aside: &Path,
) -> Result<Vec<String>, Error> {
    let (mut said, mut ranges) = (Vec::new(), Vec::new());
    for (table, why) in damaged {
        let saved = salvage(&tree.join("tables"), table, next())?;
        put_in_place(&mut manifest, table.entry.id, saved.instead);
        said.push(told(table, why, &saved.lost));
        ranges.extend(saved.lost);
    }
    let mut more = lost.clone();
    more.extend(ranges);
    if more != *lost {
        note(&more)?;
        *lost = more;
    }
    manifest.id += 1;
    manifest.write(tree)?;
    for (table, _) in damaged {
        keep_aside(tree, table.entry.id, aside);
    }
    Ok(said)
}

fn put_in_place(manifest: &mut Manifest, id: u64, instead: Option<super::manifest::Entry>) {
    for runs in &mut manifest.levels {
        for run in runs.iter_mut() {
            if let Some(place) = run.iter().position(|entry| entry.id == id) {
                run.splice(place..=place, instead);
            }
        }
        runs.retain(|run| !run.is_empty());
    }
}

fn told(table: &Damaged, why: &str, lost: &[LostRange]) -> String {
    let id = table.entry.id;
    match lost {
        [] => format!("table {id} was damaged ({why}); all of its rows could be read and were written anew"),
        [one] => format!("table {id} is damaged ({why}); lost are the {one}"),
        [first, rest @ ..] => format!("table {id} is damaged ({why}); lost are the {first}, and {} further ranges", rest.len()),
    }
}

/// Keeps a damaged table under another name: the tree removes its own. What fails here costs nothing but the look at
/// it.
fn keep_aside(tree: &Path, id: u64, aside: &Path) {
    let kept = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(PRIVATE).create(aside)?;
        std::fs::hard_link(tree.join("tables").join(id.to_string()), aside.join(id.to_string()))?;
        let mut kept: Vec<u64> = std::fs::read_dir(aside)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        kept.sort_unstable();
        for old in kept.iter().rev().skip(KEPT) {
            std::fs::remove_file(aside.join(old.to_string()))?;
        }
        Ok(())
    };
    if let Err(error) = kept() {
        tracing::warn!(table = id, %error, "a damaged table could not be kept");
    }
}

impl Tree {
    /// Reads the tables that are suspected, and takes out those that are damaged. Returns what is to be said, one line
    /// a table.
    ///
    /// # Errors
    /// What the operating system says; the tree is then as it was.
    pub(in crate::shard) fn mend(&self, suspect: &Suspect<'_>, note: Note<'_>, aside: &Path) -> Result<Vec<String>, Error> {
        self.reconcile()?;
        let damaged = self.damaged(suspect)?;
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let (tree, mut lost) = {
            let open = self.shared();
            (open.tree.clone(), open.lost.clone())
        };
        let manifest = self.manifest();
        let mut next = || tree.get_next_table_id();
        let said = replace(&self.path, manifest, &damaged, &mut lost, note, &mut next, aside);
        self.exclusive().lost = lost.clone();
        let said = said?;
        if let Err(error) = self.open_anew(lost) {
            // The version on the disk is the one that counts: the damaged files may be gone. `reconcile` opens it
            // before anything else is written.
            said.iter().for_each(|what| tracing::error!(tree = %self.path.display(), what, "a table of the tree is damaged"));
            return Err(error);
        }
        Ok(said)
    }

    fn damaged(&self, suspect: &Suspect<'_>) -> io::Result<Vec<DamagedTable>> {
        let version = self.shared().tree.current_version();
        let mut damaged = Vec::new();
        for (level, runs) in version.iter_levels().enumerate() {
            for table in runs.iter().flat_map(|run| suspect.of(run.iter())) {
                let entry = entry(table);
                if let Some(why) = verify(&self.path, entry)? {
                    let key = |key: &[u8]| Bound::Included(Bytes::copy_from_slice(key));
                    let range = &table.metadata.key_range;
                    let between = (key(range.min()), key(range.max()));
                    damaged.push((Damaged { entry, level, upto: table.get_highest_seqno(), between }, why));
                }
            }
        }
        Ok(damaged)
    }

    /// Goes on from the version that counts on the disk, if that is another one than in memory: a flush or compaction
    /// has failed after it had made it count.
    ///
    /// # Errors
    /// What the operating system says; nothing may be written to the tree then.
    pub(in crate::shard) fn reconcile(&self) -> Result<(), Error> {
        let (id, lost) = {
            let open = self.shared();
            (open.tree.current_version().id(), open.lost.clone())
        };
        match Manifest::current_id(&self.path) {
            Ok(current) if current == id => return Ok(()),
            Ok(_) => {}
            // It is damaged, and written anew by whatever is done next.
            Err(error) if is_damage(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        tracing::warn!(tree = %self.path.display(), "the tree goes on from the version on the disk");
        self.open_anew(lost)
    }

    /// Opens the files as they are now, and puts the tree in the place of the one that is open.
    fn open_anew(&self, lost: Lost) -> Result<(), Error> {
        let mut open = self.exclusive();
        let (tree, manifest) = open_files(&self.path, self.cache_bytes, &self.descriptors, (&self.seqno, &self.visible))?;
        // What is in memory goes along, with its sequence numbers.
        open.sealed.iter().for_each(|memtable| copy(memtable, &tree));
        let sealed = tree.rotate_memtable().into_iter().collect();
        copy(&open.tree.active_memtable(), &tree);
        self.descriptors.forget(&open.tree);
        *open = Open { tree, manifest, sealed, lost };
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

/// Which tables are suspected of being damaged.
pub(in crate::shard) enum Suspect<'a> {
    /// Those that may have one of these keys.
    Keys(&'a BTreeSet<Bytes>),
    /// In every run the first one that may have a key behind this bound: there a scan has met damage.
    Behind(&'a Bound<Bytes>),
    /// Those with these numbers.
    Tables(&'a [u64]),
}

impl Suspect<'_> {
    /// Those of a run, whose tables are in the order of their keys.
    fn of<'a>(&self, run: impl Iterator<Item = &'a Table>) -> Vec<&'a Table> {
        let reaches = |table: &&Table, bound: &Bound<Bytes>| match bound {
            Bound::Included(key) => &table.metadata.key_range.max()[..] >= key,
            Bound::Excluded(key) => &table.metadata.key_range.max()[..] > key,
            Bound::Unbounded => true,
        };
        let mut run = run;
        match self {
            Self::Keys(keys) => run.filter(|table| keys.iter().any(|key| table.metadata.key_range.contains_key(key))).collect(),
            Self::Behind(bound) => run.find(|table| reaches(table, bound)).into_iter().collect(),
            Self::Tables(tables) => run.filter(|table| tables.contains(&table.id())).collect(),
        }
    }
}
