//! Looks at the files that the tree trusts when it is opened, before it does.
//!
//! lsm-tree 3.1 checks every block that it reads, but neither its version file, which says what tables there are, nor the length fields
//! at the end of a table: one flipped bit there becomes a table that is passed over, a panic, or an allocation of many gigabytes that
//! ends the process. Both can be proved from what is written in them.
//!
//! ```text
//! current     version u64 ‖ XXH3-128 of the version file u128 ‖ 0                                      little endian, as all here
//! v7          an archive, whose section "tables" lists the tables of all levels
//! tables/12   an archive: … ‖ contents ‖ "SFA!" ‖ 1 ‖ 0 ‖ XXH3-128 of the contents u128 ‖ their place u64 ‖ their length u64
//! contents    "TOC!" ‖ sections u32 ‖ section … with place u64 ‖ length u64 ‖ length of the name u16 ‖ name
//! ```

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

/// The bytes of `current`.
const CURRENT: usize = 25;
/// The bytes of an archive's end.
const TRAILER: u64 = 38;
/// What a table takes in a version's list: id u64 ‖ 0 ‖ checksum u128 ‖ sequence number u64.
const ENTRY: usize = 33;

/// What is wrong with the tree at a path, for people; `None` if it may be opened.
///
/// # Errors
/// What the operating system says when a file is there and cannot be read.
pub(in crate::shard) fn unsound(path: &Path) -> io::Result<Option<String>> {
    match check(path) {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn check(path: &Path) -> io::Result<()> {
    let current = std::fs::read(path.join("current"))?;
    let broken = || bad("current", "is not what was written");
    let current: [u8; CURRENT] = current.try_into().map_err(|_| broken())?;
    let mut rest = &current[..];
    let (id, sum) = (u64::from_le_bytes(take(&mut rest)?), u128::from_le_bytes(take(&mut rest)?));
    if rest != [0] {
        return Err(broken());
    }
    let name = format!("v{id}");
    let version = std::fs::read(path.join(&name)).map_err(|error| named(&name, &error))?;
    if xxh3_128(&version) != sum {
        return Err(bad(&name, "has not the checksum that current names"));
    }
    for table in tables(&version, &name)? {
        let name = format!("tables/{table}");
        let file = File::open(path.join(&name)).map_err(|error| named(&name, &error))?;
        contents(&file, file.metadata()?.len(), &name)?;
    }
    Ok(())
}

/// The tables that a version lists.
fn tables(version: &[u8], name: &str) -> io::Result<Vec<u64>> {
    let contents = contents(version, version.len() as u64, name)?;
    let mut rest = &contents[4..];
    let sections = u32::from_le_bytes(take(&mut rest)?);
    for _ in 0..sections {
        let (place, length) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        let letters = u16::from_le_bytes(take(&mut rest)?);
        if slice(&mut rest, letters.into())? == b"tables" {
            let end = place.saturating_add(length).min(version.len() as u64);
            return list(&version[place.min(end) as usize..end as usize]);
        }
    }
    Err(bad(name, "lists no tables"))
}

/// Reads `levels u8 ‖ level …`, a level being `runs u8 ‖ run …`, a run `tables u32 ‖ entry …`.
fn list(mut rest: &[u8]) -> io::Result<Vec<u64>> {
    let mut tables = Vec::new();
    let [levels] = take(&mut rest)?;
    for _ in 0..levels {
        let [runs] = take(&mut rest)?;
        for _ in 0..runs {
            for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
                let mut entry = slice(&mut rest, ENTRY)?;
                tables.push(u64::from_le_bytes(take(&mut entry)?));
            }
        }
    }
    Ok(tables)
}

/// The contents at an archive's end, which the bytes behind them vouch for.
fn contents(archive: &(impl ReadAt + ?Sized), length: u64, name: &str) -> io::Result<Vec<u8>> {
    let end = length.checked_sub(TRAILER).ok_or_else(|| bad(name, "is too short"))?;
    let trailer = archive.read(end, TRAILER as usize)?;
    let Some(mut rest) = trailer.strip_prefix(b"SFA!\x01\x00") else { return Err(bad(name, "has no end")) };
    let sum = u128::from_le_bytes(take(&mut rest)?);
    let (place, size) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
    if place.checked_add(size) != Some(end) {
        return Err(bad(name, "has its contents elsewhere than it says"));
    }
    let contents = archive.read(place, size as usize)?;
    if xxh3_128(&contents) != sum || !contents.starts_with(b"TOC!") {
        return Err(bad(name, "has contents that are not what was written"));
    }
    Ok(contents)
}

/// Bytes on the disk or in memory.
trait ReadAt {
    /// Reads exactly so many bytes, which are known to be there.
    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>>;
}

impl ReadAt for File {
    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }
}

impl ReadAt for [u8] {
    fn read(&self, place: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut rest = usize::try_from(place).ok().and_then(|place| self.get(place..)).unwrap_or_default();
        slice(&mut rest, length).map(<[u8]>::to_vec)
    }
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
    io::Error::new(error.kind(), format!("{name}: {error}"))
}
