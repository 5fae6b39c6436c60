//! The high-water mark: how far the journal has been synced, kept outside it, so that a journal that lost its end cannot look whole.

use super::record::{read_u32, read_u64};
use crate::disk::{Disk, DiskFile, if_found, read_all};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A slot's distance: a block each, so that writing one cannot tear the other.
const SLOT: u64 = 4096;
/// A slot's bytes.
const LEN: usize = 48;
/// What a slot begins with; the last digit is its version.
const MAGIC: &[u8; 8] = b"RJMARK01";

/// What one slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// Which write of the mark this is; the higher of two slots counts.
    generation: u64,
    /// The last record that is durable once this mark is.
    pub(crate) index: u64,
    /// The chain after that record.
    pub(crate) chain: u64,
    /// The first segment that is still needed.
    pub(crate) first_segment: u64,
}

impl Mark {
    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        for (slot, word) in [self.generation, self.index, self.chain, self.first_segment].iter().enumerate() {
            bytes[8 + slot * 8..16 + slot * 8].copy_from_slice(&word.to_le_bytes());
        }
        let check = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LEN)?;
        if &bytes[..8] != MAGIC || read_u32(bytes, 40) != crc32c::crc32c(&bytes[..40]) {
            return None;
        }
        let word = |slot: usize| read_u64(bytes, 8 + slot * 8);
        Some(Self { generation: word(0), index: word(1), chain: word(2), first_segment: word(3) })
    }
}

/// The open mark file.
pub(crate) struct MarkFile {
    file: Arc<dyn DiskFile>,
    /// What was last written.
    last: Mark,
}

impl MarkFile {
    /// What the file says: `Ok(None)` if there is no file, `Ok(Some(None))` if no slot of it can be read.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Option<Mark>>> {
        let Some(file) = if_found(disk.open(path))? else { return Ok(None) };
        let bytes = read_all(file.as_ref())?;
        let slots = [0, SLOT as usize].into_iter().filter_map(|start| Mark::decode(bytes.get(start..)?));
        Ok(Some(slots.max_by_key(|mark| mark.generation)))
    }

    /// Creates or replaces the file, durably and atomically, by one that says this.
    pub(crate) fn replace(disk: &dyn Disk, path: &Path, index: u64, chain: u64, first_segment: u64) -> io::Result<Self> {
        let last = Mark { generation: 1, index, chain, first_segment };
        let beside = path.with_extension("new");
        let file = disk.create(&beside)?;
        file.preallocate(2 * SLOT)?;
        file.write_at(&last.encode(), SLOT)?;
        file.sync_data()?;
        disk.rename(&beside, path)?;
        if let Some(parent) = path.parent() {
            disk.sync_dir(parent)?;
        }
        Ok(Self { file, last })
    }

    /// Durably writes a mark over the older slot.
    pub(crate) fn write(&mut self, index: u64, chain: u64, first_segment: u64) -> io::Result<()> {
        let mark = Mark { generation: self.last.generation + 1, index, chain, first_segment };
        self.file.write_at(&mark.encode(), mark.generation % 2 * SLOT)?;
        self.file.sync_data()?;
        self.last = mark;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_torn_write_leaves_the_mark_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mark");
        let mut mark = MarkFile::replace(&OsDisk, &path, 5, 55, 1).expect("a mark");
        mark.write(6, 66, 1).expect("written");
        mark.write(7, 77, 2).expect("written");
        let read = || MarkFile::read(&OsDisk, &path).expect("readable").expect("there");
        assert_eq!(read().map(|mark| (mark.index, mark.chain, mark.first_segment)), Some((7, 77, 2)));
        let mut bytes = std::fs::read(&path).expect("bytes");
        let newest = (mark.last.generation % 2 * SLOT) as usize;
        bytes[newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read().map(|mark| mark.index), Some(6));
        bytes[SLOT as usize - newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read(), None);
    }
}
