//! Whether a table is what was written, and which files no version lists.

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
use super::manifest::{Entry, KeyRange, Manifest, Ranges, contents_of, version_name};
use super::salvage::Damaged;
use crate::disk::{PRIVATE, is_damage};

/// By how much the sequence numbers of a table that does not tell them can be above all others: more than a memtable
/// has rows.
const UNKNOWN_ABOVE: SeqNo = 1 << 40;

/// What is wrong with the tables that a version lists, as far as opening them shows it: all but the rows themselves is
/// read. `ranges` says which rows they had where they do not say it themselves.
///
/// # Errors
/// What the operating system says for want of descriptors, memory or permission.
pub(super) fn damaged_tables(
    tree: &Path,
    manifest: &Manifest,
    ranges: &Ranges,
    lost_upto: Option<SeqNo>,
) -> io::Result<Vec<(Damaged, String)>> {
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
            Some(KeyRange { upto, first, last }) => (*upto, (Bound::Included(first.clone()), Bound::Included(last.clone()))),
            None => (unknown, (Bound::Unbounded, Bound::Unbounded)),
        };
        (Damaged { entry, level, upto, between }, why)
    };
    Ok(found.into_iter().map(damaged).collect())
}

/// Opens a table as the tree would. Returns its highest sequence number, or what is wrong with it.
fn open_table(tree: &Path, level: usize, entry: Entry) -> io::Result<Result<SeqNo, String>> {
    let name = format!("tables/{}", entry.id);
    let path = tree.join(&name);
    // The tree would believe the lengths at the end of it.
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
        Err(_) => Ok(Err("the facts in it do not go together".to_owned())),
    }
}

fn damage_or<T>(error: io::Error) -> io::Result<Result<T, String>> {
    if is_damage(&error) { Ok(Err(error.to_string())) } else { Err(error) }
}

/// Reads a whole table. Returns what is wrong with it, if anything is.
///
/// # Errors
/// What the operating system says for want of descriptors, memory or permission.
pub(super) fn verify(tree: &Path, entry: Entry) -> io::Result<Option<String>> {
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
        Ok(_) => Ok(Some("it has not the checksum that it was written with".to_owned())),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What a sweep found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Sweep {
    /// Files were removed, if there were any: so many bytes.
    Removed(u64),
    /// Another version counts on the disk than in memory: it is not known what the tree's last write has done.
    Unclear,
}

impl Tree {
    /// Removes what a failed flush or compaction has left: tables that the version which counts does not list.
    ///
    /// # Errors
    /// What the operating system says.
    pub(in crate::shard) fn sweep(&self) -> io::Result<Sweep> {
        // No read may be under way that still wants a table of the version before.
        let open = self.exclusive();
        let version = open.tree.current_version();
        if Manifest::current_id(&self.path)? != version.id() {
            return Ok(Sweep::Unclear);
        }
        let listed = version.iter_tables().map(Table::id).collect();
        remove_others(&self.path, version.id(), &listed).map(Sweep::Removed)
    }
}

/// Removes, before a tree is opened, what its version does not list. Nothing is removed where the version cannot be
/// read. Returns how many bytes went.
///
/// # Errors
/// What the operating system says.
pub(crate) fn remove_unlisted(tree: &Path) -> io::Result<u64> {
    match Manifest::read(tree) {
        Ok(manifest) => remove_others(tree, manifest.id, &manifest.tables().map(|(_, entry)| entry.id).collect()),
        Err(_) => Ok(0),
    }
}

/// Moves out of the way what lies among a tree's tables and is none, such as a backup that somebody made: the tree does
/// not open beside it.
///
/// # Errors
/// What the operating system says.
pub(in crate::shard) fn clear_strays(tree: &Path, aside: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(tree.join("tables")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_table = name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()) && !entry.file_type()?.is_dir();
        if !is_table {
            DirBuilder::new().recursive(true).mode(PRIVATE).create(aside)?;
            std::fs::rename(entry.path(), aside.join(&name))?;
            tracing::warn!(path = %entry.path().display(), to = %aside.display(), "moved aside what is no table of the tree");
        }
    }
    Ok(())
}

fn remove_others(tree: &Path, version: u64, listed: &BTreeSet<u64>) -> io::Result<u64> {
    let tables = remove_where(&tree.join("tables"), |name| name.parse().is_ok_and(|id| !listed.contains(&id)))?;
    let own = version_name(version);
    let version_file = |name: &str| name.strip_prefix('v').is_some_and(|id| id.parse::<u64>().is_ok());
    let files = remove_where(tree, |name| name.starts_with(".tmp") || name.ends_with(".new") || version_file(name) && name != own)?;
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
