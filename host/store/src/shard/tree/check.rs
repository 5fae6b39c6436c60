//! Verifies tables and removes files that no version lists.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lsm_tree::{AbstractTree, Cache, Checksum, DescriptorTable, SeqNo, Table};
use xxhash_rust::xxh3::Xxh3Default;

use super::Tree;
use super::error::TreeError;
use super::manifest::{KeyRange, Manifest, TableEntry, TableRanges, contents_of, version_name};
use super::salvage::DamagedTable;
use crate::disk::PRIVATE;
use crate::io_cause::IoCause;

/// How far the sequence numbers of a table with unknown ones can be above all others: more than a memtable has rows.
const UNKNOWN_ABOVE: SeqNo = 1 << 40;

/// The tables of a version that cannot be opened. Opening a table reads all of it but its rows. `ranges` has the key
/// ranges of tables that cannot tell their own.
///
/// # Errors
/// What the operating system says for want of descriptors, memory or permission.
pub(super) fn damaged_tables(
    tree: &Path,
    manifest: &Manifest,
    ranges: &TableRanges,
    lost_upto: Option<SeqNo>,
) -> io::Result<Vec<DamagedTable>> {
    let (mut found, mut highest) = (Vec::new(), lost_upto.unwrap_or_default());
    for (level, entry) in manifest.tables() {
        match open_table(tree, level, entry)? {
            Ok(seqno) => highest = highest.max(seqno),
            Err(why) => found.push((level, entry, why)),
        }
    }
    let unknown = highest.saturating_add(UNKNOWN_ABOVE);
    let damaged = |(level, entry, why)| {
        let (upto, between) = match ranges.get(&entry) {
            Some(KeyRange { upto, first, last }) => {
                (*upto, (Bound::Included(first.clone()), Bound::Included(last.clone())))
            }
            None => (unknown, (Bound::Unbounded, Bound::Unbounded)),
        };
        DamagedTable { entry, level, upto, between, why }
    };
    Ok(found.into_iter().map(damaged).collect())
}

/// Opens a table as lsm-tree would. Returns its highest sequence number, or the damage.
fn open_table(tree: &Path, level: usize, entry: TableEntry) -> io::Result<Result<SeqNo, String>> {
    let name = format!("tables/{}", entry.id);
    let path = tree.join(&name);
    // lsm-tree would trust the lengths in the trailer.
    let end = File::open(&path).and_then(|file| contents_of(&file, &name));
    if let Err(error) = end {
        return damage_or(error);
    }
    let open = || {
        let (cache, descriptors) = (Arc::new(Cache::with_capacity_bytes(0)), Arc::new(DescriptorTable::new(1)));
        let checksum = Checksum::from_raw(entry.checksum);
        Table::recover(path, checksum, entry.seqno, u64::MAX, cache, Some(descriptors), level == 0, level <= 1)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(table)) => Ok(Ok(table.get_highest_seqno())),
        Ok(Err(lsm_tree::Error::Io(error))) => damage_or(error),
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => Ok(Err("its metadata is inconsistent".to_owned())),
    }
}

fn damage_or<T>(error: io::Error) -> io::Result<Result<T, String>> {
    if IoCause::of(&error).is_damage() { Ok(Err(error.to_string())) } else { Err(error) }
}

/// Reads a whole table. Returns the damage, if there is any.
///
/// # Errors
/// What the operating system says for want of descriptors, memory or permission.
pub(super) fn verify(tree: &Path, entry: TableEntry) -> io::Result<Option<String>> {
    let read = || -> io::Result<u128> {
        let mut file = File::open(tree.join("tables").join(entry.id.to_string()))?;
        let (mut sum, mut buffer) = (Xxh3Default::new(), vec![0; 1 << 18]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(sum.digest128()),
                Ok(read) => sum.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    match read() {
        Ok(sum) if sum == entry.checksum => Ok(None),
        Ok(_) => Ok(Some("its checksum is wrong".to_owned())),
        Err(error) if IoCause::of(&error).is_damage() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The result of a sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Sweep {
    /// Unlisted files with so many bytes in all were removed.
    Removed(u64),
    /// The current version on the disk is not the one in memory, so it is not known what lsm-tree's last write has
    /// done.
    Unclear,
}

impl Tree {
    /// Removes what a failed flush or compaction has left: tables that the current version does not list.
    ///
    /// # Errors
    /// What the operating system says.
    pub(in crate::shard) fn sweep(&self) -> Result<Sweep, TreeError> {
        // A read under way may still need a table of the version before.
        let open = self.exclusive();
        let version = open.tree.current_version();
        if Manifest::current_id(&self.path)? != version.id() {
            return Ok(Sweep::Unclear);
        }
        let listed = version.iter_tables().map(Table::id).collect();
        Ok(Sweep::Removed(remove_others(&self.path, version.id(), &listed)?))
    }
}

/// Removes the files of a closed tree that its version does not list; none if the version cannot be read. Returns the
/// bytes removed.
///
/// # Errors
/// What the operating system says.
pub(crate) fn remove_unlisted(tree: &Path) -> io::Result<u64> {
    match Manifest::read(tree) {
        Ok(manifest) => remove_others(tree, manifest.id, &manifest.tables().map(|(_, entry)| entry.id).collect()),
        Err(_) => Ok(0),
    }
}

/// Moves files out of a tree's `tables` directory that are not tables, such as a backup that somebody made: lsm-tree
/// does not open a tree with such a file.
///
/// # Errors
/// What the operating system says.
pub(in crate::shard) fn clear_strays(tree: &Path, quarantine: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(tree.join("tables")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_table = name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()) && !entry.file_type()?.is_dir();
        if !is_table {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(quarantine)?;
            std::fs::rename(entry.path(), quarantine.join(&name))?;
            tracing::warn!(path = %entry.path().display(), to = %quarantine.display(), "moved a file that is not a \
                table out of the tree");
        }
    }
    Ok(())
}

fn remove_others(tree: &Path, version: u64, listed: &BTreeSet<u64>) -> io::Result<u64> {
    let tables = remove_where(&tree.join("tables"), |name| name.parse().is_ok_and(|id| !listed.contains(&id)))?;
    let own = version_name(version);
    let version_file = |name: &str| name.strip_prefix('v').is_some_and(|id| id.parse::<u64>().is_ok());
    let files = remove_where(tree, |name| {
        name.starts_with(".tmp") || name.ends_with(".new") || version_file(name) && name != own
    })?;
    Ok(tables + files)
}

fn remove_where(dir: &Path, goes: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&goes) {
            let length = entry.metadata().map_or(0, |metadata| metadata.len());
            std::fs::remove_file(entry.path())?;
            tracing::info!(path = %entry.path().display(), length, "removed a file that the tree does not list");
            bytes += length;
        }
    }
    Ok(bytes)
}
