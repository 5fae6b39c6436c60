//! The files that list the tree's tables. They are verified before the tree is opened, and rewritten without a damaged
//! table.
//!
//! lsm-tree 3.1 checks every block that it reads. It checks neither its version file, which lists the tables, nor the
//! length fields at the end of a table: one flipped bit there is a table passed over, a panic, or an allocation of many
//! gigabytes that ends the process. Both have checksums, which are verified here.
//!
//! ```text
//! current     version u64 ‖ XXH3-128 of the version file u128 ‖ 0
//! v7          an archive, whose section "tables" lists the tables of all levels
//! tables/12   an archive: … ‖ contents ‖ "SFA!" ‖ 1 ‖ 0 ‖ XXH3-128 of the contents u128 ‖ their place u64
//!             ‖ their length u64
//! copy        version u64 ‖ ranges u32 ‖ range … ‖ the version file
//! range       table u64 ‖ checksum u128 ‖ highest sequence number u64 ‖ first and last key, each behind its length u32
//! contents    "TOC!" ‖ sections u32 ‖ section … with place u64 ‖ length u64 ‖ length of the name u16 ‖ name
//! ```
//! Little endian throughout.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::disk::{Disk, OsDisk, replace};
use crate::error::{Context, FileError};
use crate::io_cause::IoCause;

/// The file that names the current version.
pub(super) const CURRENT: &str = "current";
/// The bytes of `current`.
const CURRENT_BYTES: usize = 25;
/// The bytes of an archive's trailer.
const TRAILER: usize = 38;
/// The beginning of an archive's trailer.
const MAGIC: &[u8; 6] = b"SFA!\x01\x00";
/// The bytes of a table in a version's list: id u64 ‖ 0 ‖ checksum u128 ‖ sequence number u64.
const ENTRY: usize = 33;
/// The section of a version that lists its tables.
const TABLES: &[u8] = b"tables";

/// A table as a version lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct TableEntry {
    pub(super) id: u64,
    /// XXH3-128 of the whole file.
    pub(super) checksum: u128,
    /// Added to the sequence numbers in the file.
    pub(super) seqno: u64,
}

/// The rows that a table can have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeyRange {
    /// The highest sequence number.
    pub(super) upto: u64,
    pub(super) first: Bytes,
    pub(super) last: Bytes,
}

/// The key ranges of tables, by number and checksum. They are kept beside the tree, because a missing table cannot tell
/// its own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(in crate::shard) struct TableRanges(BTreeMap<(u64, u128), KeyRange>);

impl TableRanges {
    /// The ranges in a copy of the list of tables; none if the copy is malformed.
    pub(super) fn of_copy(copy: Option<&[u8]>) -> Self {
        copy.and_then(|copy| Manifest::from_copy(copy).ok()).map(|(_, ranges)| ranges).unwrap_or_default()
    }

    pub(super) fn insert(&mut self, table: &TableEntry, range: KeyRange) {
        self.0.insert((table.id, table.checksum), range);
    }

    pub(super) fn get(&self, table: &TableEntry) -> Option<&KeyRange> {
        self.0.get(&(table.id, table.checksum))
    }
}

/// A version of the tree: its tables by level and run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::shard) struct Manifest {
    pub(super) id: u64,
    pub(super) levels: Vec<Vec<Vec<TableEntry>>>,
    /// The sections of the version file, in order.
    sections: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Manifest {
    /// Reads the current version.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`], [`ErrorKind::NotFound`] or [`ErrorKind::UnexpectedEof`] if the files are not what
    /// was written; else what the operating system says.
    pub(super) fn read(tree: &Path) -> io::Result<Self> {
        let (id, sum) = Self::current(tree)?;
        let name = version_name(id);
        let bytes = std::fs::read(tree.join(&name)).map_err(|error| named(&name, &error))?;
        if xxh3_128(&bytes) != sum {
            return Err(bad(&name, "has not the checksum that current names"));
        }
        Self::decode(id, &bytes, &name)
    }

    /// The number of the current version.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub(super) fn current_id(tree: &Path) -> io::Result<u64> {
        Self::current(tree).map(|(id, _)| id)
    }

    fn current(tree: &Path) -> io::Result<(u64, u128)> {
        let bytes = std::fs::read(tree.join(CURRENT)).map_err(|error| named(CURRENT, &error))?;
        let bytes: [u8; CURRENT_BYTES] = bytes.try_into().map_err(|_| bad(CURRENT, "is not what was written"))?;
        let mut rest = &bytes[..];
        let (id, sum) = (u64::from_le_bytes(take(&mut rest)?), u128::from_le_bytes(take(&mut rest)?));
        if rest == [0] { Ok((id, sum)) } else { Err(bad(CURRENT, "is not what was written")) }
    }

    fn decode(id: u64, bytes: &[u8], name: &str) -> io::Result<Self> {
        let mut sections = Vec::new();
        for (section, place) in contents(bytes, name)? {
            sections.push((
                section,
                bytes.get(place).ok_or_else(|| bad(name, "has contents that are not there"))?.to_vec(),
            ));
        }
        let tables =
            sections.iter().find(|(section, _)| section == TABLES).ok_or_else(|| bad(name, "lists no tables"))?;
        Ok(Self { id, levels: decode_levels(&tables.1)?, sections })
    }

    /// The tables with their levels.
    pub(super) fn tables(&self) -> impl Iterator<Item = (usize, TableEntry)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(level, runs)| runs.iter().flatten().map(move |entry| (level, *entry)))
    }

    /// Durably makes it the current version. Tables that it does not list stay on the disk until the tree is opened.
    ///
    /// # Errors
    /// [`FileError::Io`]; until `current` is replaced, the version before it is the current one.
    pub(super) fn write(&self, tree: &Path) -> Result<(), FileError> {
        let (path, bytes) = (tree.join(version_name(self.id)), self.encode());
        // Nobody reads the version file before `current` names it, so it can be written under its own name.
        let file = OsDisk.create(&path).context("create", &path)?;
        file.write_at(&bytes, 0).context("write", &path)?;
        file.sync_data().context("sync", &path)?;
        let mut current = self.id.to_le_bytes().to_vec();
        current.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        current.push(0);
        OsDisk.sync_dir(tree).context("sync", tree)?;
        // lsm-tree has no file of that name. What a crash leaves of it is removed with the unlisted tables.
        replace(&OsDisk, &tree.join(CURRENT), &tree.join(BESIDE), |file| file.write_at(&current, 0)).map(drop)
    }

    /// The version file with another number and other tables.
    pub(super) fn with(&self, id: u64, levels: Vec<Vec<Vec<TableEntry>>>) -> Self {
        Self { id, levels, sections: self.sections.clone() }
    }

    /// Encodes a copy to be kept outside the tree, with the key ranges of the tables.
    pub(super) fn to_copy(&self, ranges: &TableRanges) -> Vec<u8> {
        let mut bytes = self.id.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(ranges.0.len() as u32).to_le_bytes());
        for ((id, checksum), KeyRange { upto, first, last }) in &ranges.0 {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&checksum.to_le_bytes());
            bytes.extend_from_slice(&upto.to_le_bytes());
            for key in [first, last] {
                bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
                bytes.extend_from_slice(key);
            }
        }
        bytes.extend_from_slice(&self.encode());
        bytes
    }

    /// Decodes a copy.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub(super) fn from_copy(mut copy: &[u8]) -> io::Result<(Self, TableRanges)> {
        let id = u64::from_le_bytes(take(&mut copy)?);
        let tables = u32::from_le_bytes(take(&mut copy)?);
        let mut ranges = TableRanges::default();
        for _ in 0..tables {
            let table = (u64::from_le_bytes(take(&mut copy)?), u128::from_le_bytes(take(&mut copy)?));
            let upto = u64::from_le_bytes(take(&mut copy)?);
            let mut key = || {
                let length = u32::from_le_bytes(take(&mut copy)?);
                slice(&mut copy, length as usize).map(Bytes::copy_from_slice)
            };
            let (first, last) = (key()?, key()?);
            ranges.0.insert(table, KeyRange { upto, first, last });
        }
        Ok((Self::decode(id, copy, "the copy of the list of tables")?, ranges))
    }

    fn encode(&self) -> Vec<u8> {
        let (mut bytes, mut toc) = (Vec::new(), b"TOC!".to_vec());
        toc.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        for (name, content) in &self.sections {
            let place = bytes.len() as u64;
            if name == TABLES {
                encode_levels(&mut bytes, &self.levels);
            } else {
                bytes.extend_from_slice(content);
            }
            toc.extend_from_slice(&place.to_le_bytes());
            toc.extend_from_slice(&(bytes.len() as u64 - place).to_le_bytes());
            toc.extend_from_slice(&(name.len() as u16).to_le_bytes());
            toc.extend_from_slice(name);
        }
        let place = bytes.len() as u64;
        bytes.extend_from_slice(&toc);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&xxh3_128(&toc).to_le_bytes());
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&(toc.len() as u64).to_le_bytes());
        bytes
    }
}

/// The name under which [`Manifest::write`] prepares `current`.
const BESIDE: &str = "current.new";

/// The name of a version's file.
pub(super) fn version_name(id: u64) -> String {
    format!("v{id}")
}

/// Decodes `levels u8 ‖ level …`, a level being `runs u8 ‖ run …`, a run `tables u32 ‖ entry …`.
fn decode_levels(mut rest: &[u8]) -> io::Result<Vec<Vec<Vec<TableEntry>>>> {
    let [levels] = take(&mut rest)?;
    (0..levels)
        .map(|_| {
            let [runs] = take(&mut rest)?;
            (0..runs)
                .map(|_| {
                    let tables = u32::from_le_bytes(take(&mut rest)?);
                    (0..tables).map(|_| decode_entry(slice(&mut rest, ENTRY)?)).collect()
                })
                .collect()
        })
        .collect()
}

fn decode_entry(mut entry: &[u8]) -> io::Result<TableEntry> {
    let id = u64::from_le_bytes(take(&mut entry)?);
    let [_kind] = take(&mut entry)?;
    Ok(TableEntry {
        id,
        checksum: u128::from_le_bytes(take(&mut entry)?),
        seqno: u64::from_le_bytes(take(&mut entry)?),
    })
}

fn encode_levels(bytes: &mut Vec<u8>, levels: &[Vec<Vec<TableEntry>>]) {
    bytes.push(levels.len() as u8);
    for runs in levels {
        bytes.push(runs.len() as u8);
        for run in runs {
            bytes.extend_from_slice(&(run.len() as u32).to_le_bytes());
            for TableEntry { id, checksum, seqno } in run {
                bytes.extend_from_slice(&id.to_le_bytes());
                bytes.push(0);
                bytes.extend_from_slice(&checksum.to_le_bytes());
                bytes.extend_from_slice(&seqno.to_le_bytes());
            }
        }
    }
}

/// The sections of an archive and their places. The trailer's checksum covers them.
pub(super) fn contents(archive: &[u8], name: &str) -> io::Result<Vec<(Vec<u8>, Range<usize>)>> {
    let end = archive.len().checked_sub(TRAILER).ok_or_else(|| bad(name, "is too short"))?;
    let contents = trailing_contents(&archive[end..], end as u64, name)?;
    let toc = usize::try_from(contents.start).ok().and_then(|start| archive.get(start..end));
    sections(toc.unwrap_or_default(), &contents, name)
}

/// As [`contents`], reading only the end of the file.
pub(super) fn contents_of(file: &File, name: &str) -> io::Result<Vec<(Vec<u8>, Range<usize>)>> {
    use std::os::unix::fs::FileExt;
    let end = file.metadata()?.len().checked_sub(TRAILER as u64).ok_or_else(|| bad(name, "is too short"))?;
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, end)?;
    let contents = trailing_contents(&trailer, end, name)?;
    let mut toc = vec![0; (end - contents.start) as usize];
    file.read_exact_at(&mut toc, contents.start)?;
    sections(&toc, &contents, name)
}

/// The table of contents of an archive.
struct Contents {
    start: u64,
    sum: u128,
}

fn trailing_contents(trailer: &[u8], end: u64, name: &str) -> io::Result<Contents> {
    let Some(mut rest) = trailer.strip_prefix(MAGIC) else { return Err(bad(name, "has no end")) };
    let sum = u128::from_le_bytes(take(&mut rest)?);
    let (start, size) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
    // Only the bytes between the table of contents and the trailer are read, so a wrong length cannot ask for more than
    // the file has.
    if start.checked_add(size) == Some(end) {
        Ok(Contents { start, sum })
    } else {
        Err(bad(name, "has its contents elsewhere than it says"))
    }
}

fn sections(toc: &[u8], contents: &Contents, name: &str) -> io::Result<Vec<(Vec<u8>, Range<usize>)>> {
    if xxh3_128(toc) != contents.sum || !toc.starts_with(b"TOC!") {
        return Err(bad(name, "has contents that are not what was written"));
    }
    let mut rest = &toc[4..];
    let sections = u32::from_le_bytes(take(&mut rest)?);
    let mut found = Vec::new();
    for _ in 0..sections {
        let (place, length) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let letters = u16::from_le_bytes(take(&mut rest)?);
        let section = slice(&mut rest, letters.into())?.to_vec();
        let end = place.checked_add(length).filter(|end| *end <= contents.start);
        let end = end.ok_or_else(|| bad(name, "has contents that are not there"))?;
        found.push((section, place as usize..end as usize));
    }
    Ok(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(slice(rest, N)?);
    Ok(bytes)
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> io::Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or(ErrorKind::UnexpectedEof)?;
    *rest = tail;
    Ok(head)
}

fn bad(name: &str, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{name} {why}"))
}

fn named(name: &str, error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        // The cause is told by the number, which a new error would not have.
        Some(number) if IoCause::of(error) != IoCause::WrongContent => io::Error::from_raw_os_error(number),
        _ => io::Error::new(error.kind(), format!("{name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsm_tree::{AbstractTree, Config, SequenceNumberCounter};

    #[test]
    fn a_version_is_read_and_written_byte_by_byte_as_the_tree_writes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            Config::new(dir.path(), SequenceNumberCounter::default(), SequenceNumberCounter::default())
                .open()
                .expect("a tree")
        };
        let tree = open();
        for number in 0..3_u64 {
            tree.insert(format!("key {number}"), "value", number);
            tree.flush_active_memtable(0).expect("flushed");
        }
        let manifest = Manifest::read(dir.path()).expect("a version");
        let listed: Vec<_> = manifest.tables().map(|(level, entry)| (level, entry.id, entry.checksum)).collect();
        let there: Vec<_> =
            tree.current_version().iter_tables().map(|table| (0, table.id(), table.checksum().into_u128())).collect();
        assert_eq!((manifest.id, listed.len()), (tree.current_version().id(), 3));
        assert_eq!(listed, there);
        let path = dir.path().join(version_name(manifest.id));
        assert_eq!(manifest.encode(), std::fs::read(&path).expect("bytes"));
        let mut next = Manifest { id: manifest.id + 1, ..manifest.clone() };
        next.levels[0].iter_mut().for_each(|run| run.retain(|entry| entry.id != 1));
        next.levels[0].retain(|run| !run.is_empty());
        next.write(dir.path()).expect("written");
        drop(tree);
        let tree = open();
        assert_eq!((tree.current_version().id(), tree.table_count()), (next.id, 2));
        assert!(
            tree.get("key 1", 100).expect("readable").is_none() && tree.get("key 2", 100).expect("readable").is_some()
        );
        assert!(!path.exists(), "the tree removes the version before it");
    }
}
