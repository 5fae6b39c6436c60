//! The high-water mark: how far the journal has been synced, kept outside it, so that a journal that lost its end
//! cannot look whole.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::record::{read_u32, read_u64};
use crate::disk::{Disk, DiskFile, if_found, read_all};

/// A slot's distance: a block each, so that writing one cannot tear the other.
const SLOT: u64 = 4096;
/// A slot's bytes.
const LEN: usize = 56;
/// Where a slot's checksum is.
const CHECK: usize = 48;
/// What a slot begins with; the last digit is its version.
const MAGIC: &[u8; 8] = b"RJMARK01";

/// What the mark says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// The last record that is durable once this mark is.
    pub(crate) index: u64,
    /// The chain after that record.
    pub(crate) chain: u64,
    /// The first segment that is still needed.
    pub(crate) first_segment: u64,
    /// The version of the tree that has what the segments before that one held: an older tree has lost it.
    pub(crate) tree: u64,
}

/// A slot: the mark, and which write of it this is. The higher of two slots counts.
#[derive(Clone, Copy)]
struct Slot {
    generation: u64,
    mark: Mark,
}

impl Slot {
    fn encode(&self) -> [u8; LEN] {
        let Self { generation, mark: Mark { index, chain, first_segment, tree } } = *self;
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        for (place, word) in [generation, index, chain, first_segment, tree].iter().enumerate() {
            bytes[8 + place * 8..16 + place * 8].copy_from_slice(&word.to_le_bytes());
        }
        let check = crc32c::crc32c(&bytes[..CHECK]);
        bytes[CHECK..CHECK + 4].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LEN)?;
        if &bytes[..8] != MAGIC || read_u32(bytes, CHECK) != crc32c::crc32c(&bytes[..CHECK]) {
            return None;
        }
        let word = |place: usize| read_u64(bytes, 8 + place * 8);
        Some(Self { generation: word(0), mark: Mark { index: word(1), chain: word(2), first_segment: word(3), tree: word(4) } })
    }
}

/// The open mark file.
pub(crate) struct MarkFile {
    file: Arc<dyn DiskFile>,
    /// Which write was the last.
    generation: u64,
}

impl MarkFile {
    /// What the file says: `Ok(None)` if there is no file, `Ok(Some(None))` if no slot of it can be read.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Option<Mark>>> {
        let Some(file) = if_found(disk.open(path))? else { return Ok(None) };
        let bytes = read_all(file.as_ref())?;
        let slots = [0, SLOT as usize].into_iter().filter_map(|start| Slot::decode(bytes.get(start..)?));
        Ok(Some(slots.max_by_key(|slot| slot.generation).map(|slot| slot.mark)))
    }

    /// Creates or replaces the file, durably and atomically, by one that says this.
    pub(crate) fn replace(disk: &dyn Disk, path: &Path, mark: Mark) -> io::Result<Self> {
        let first = Slot { generation: 1, mark };
        let beside = path.with_extension("new");
        let file = disk.create(&beside)?;
        file.preallocate(2 * SLOT)?;
        file.write_at(&first.encode(), SLOT)?;
        file.sync_data()?;
        disk.rename(&beside, path)?;
        if let Some(parent) = path.parent() {
            disk.sync_dir(parent)?;
        }
        Ok(Self { file, generation: first.generation })
    }

    /// Durably writes a mark over the older slot.
    pub(crate) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let slot = Slot { generation: self.generation + 1, mark };
        self.file.write_at(&slot.encode(), slot.generation % 2 * SLOT)?;
        self.file.sync_data()?;
        self.generation = slot.generation;
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
        let says = |index| Mark { index, chain: index * 11, first_segment: index / 3, tree: index * 2 };
        let mut mark = MarkFile::replace(&OsDisk, &path, says(5)).expect("a mark");
        mark.write(says(6)).expect("written");
        mark.write(says(7)).expect("written");
        let read = || MarkFile::read(&OsDisk, &path).expect("readable").expect("there");
        assert_eq!(read(), Some(says(7)));
        let mut bytes = std::fs::read(&path).expect("bytes");
        let newest = (mark.generation % 2 * SLOT) as usize;
        bytes[newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read(), Some(says(6)));
        bytes[SLOT as usize - newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read(), None);
    }
}
