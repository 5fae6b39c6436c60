//! The mark: a witness outside the journal, so that a journal that has lost its end, or a whole segment, cannot look
//! whole.
//!
//! It is written when a sync of the journal has ended, so it is never ahead of the journal. It is synced where it says
//! something that the slots of the open segment cannot: which segment is the newest, which is the first, which version
//! of the tree there must be. In between, the end of a process takes nothing of it, and a power cut leaves what it said
//! at its last sync.
//!
//! The file has two slots. One of them is durable; the other is overwritten until it has been synced.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::record::{read_u32, read_u64};
use crate::disk::{Disk, DiskFile, if_found, read_all, replace};
use crate::error::FileError;

/// The distance between the slots: each has a block of its own, so that writing one cannot tear the other.
const SLOT: u64 = 4096;
/// Bytes of a slot.
const LEN: usize = 72;
/// The offset of a slot's checksum.
const CHECK: usize = 64;
/// The magic number; its last digits are the version.
const MAGIC: &[u8; 8] = b"RJMARK02";

/// The content of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// The last record that a sync that has ended covers.
    pub(crate) index: u64,
    /// The chain value after that record.
    pub(crate) chain: u64,
    /// The first segment that is still needed.
    pub(crate) first_segment: u64,
    /// The version of the tree that holds what the segments before that one held. An older tree has lost it.
    pub(crate) tree: u64,
    /// The newest segment that was synced, so that it must be there; 0 if there is none.
    pub(crate) newest_segment: u64,
    /// The first segment whose slots count. A start that cuts a torn end makes those of all earlier segments void: they
    /// may name records that are gone.
    pub(crate) slots_from: u64,
}

/// A slot with the number of its write. The slot with the higher number is the newer one.
#[derive(Clone, Copy)]
struct Slot {
    generation: u64,
    mark: Mark,
}

impl Slot {
    fn encode(&self) -> [u8; LEN] {
        let Self { generation, mark: Mark { index, chain, first_segment, tree, newest_segment, slots_from } } = *self;
        let words = [generation, index, chain, first_segment, tree, newest_segment, slots_from];
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        for (place, word) in words.iter().enumerate() {
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
        let mark = Mark {
            index: word(1),
            chain: word(2),
            first_segment: word(3),
            tree: word(4),
            newest_segment: word(5),
            slots_from: word(6),
        };
        Some(Self { generation: word(0), mark })
    }
}

/// The open mark file.
pub(crate) struct MarkFile {
    file: Arc<dyn DiskFile>,
    /// The number of the last write.
    generation: u64,
    /// The slot that is written next: never the one that is durable.
    slot: u64,
    /// Something was written since the last sync.
    unsynced: bool,
}

impl MarkFile {
    /// Reads the file: `Ok(None)` if there is none, `Ok(Some(None))` if neither slot is intact.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Option<Mark>>> {
        let Some(file) = if_found(disk.open(path))? else { return Ok(None) };
        let bytes = read_all(file.as_ref())?;
        let slots = [0, SLOT as usize].into_iter().filter_map(|start| Slot::decode(bytes.get(start..)?));
        Ok(Some(slots.max_by_key(|slot| slot.generation).map(|slot| slot.mark)))
    }

    /// Durably and atomically replaces the file, or creates it. The records up to `mark` must be durable.
    pub(crate) fn replace(disk: &dyn Disk, path: &Path, mark: Mark) -> Result<Self, FileError> {
        let first = Slot { generation: 1, mark };
        let file = replace(disk, path, &path.with_extension("new"), |file| {
            file.preallocate(2 * SLOT)?;
            file.write_at(&first.encode(), SLOT)
        })?;
        Ok(Self { file, generation: first.generation, slot: 0, unsynced: false })
    }

    /// Writes a mark, which survives the end of the process; a power cut may leave what was synced last. The records up
    /// to it must be durable.
    ///
    /// # Errors
    /// What the disk says; part of it may then have been written.
    pub(crate) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let slot = Slot { generation: self.generation + 1, mark };
        self.file.write_at(&slot.encode(), self.slot * SLOT)?;
        (self.generation, self.unsynced) = (slot.generation, true);
        Ok(())
    }

    /// Makes the last mark durable. Costs nothing if it is.
    ///
    /// # Errors
    /// What the disk says; the last mark is then in doubt.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            (self.slot, self.unsynced) = (1 - self.slot, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn a_torn_write_leaves_the_mark_that_was_synced_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mark");
        let says = |index| Mark {
            index,
            chain: index * 11,
            first_segment: index / 3,
            tree: index * 2,
            newest_segment: index / 2,
            slots_from: index / 4,
        };
        let mut mark = MarkFile::replace(&OsDisk, &path, says(5)).expect("a mark");
        let read = || MarkFile::read(&OsDisk, &path).expect("readable").expect("there");
        let tear = |slot: u64| {
            let mut bytes = std::fs::read(&path).expect("bytes");
            bytes[(slot * SLOT) as usize + 20] ^= 1;
            std::fs::write(&path, &bytes).expect("written");
        };
        assert_eq!(read(), Some(says(5)));
        for index in 6..9 {
            mark.write(says(index)).expect("written");
            assert_eq!(read(), Some(says(index)));
        }
        tear(mark.slot);
        assert_eq!(read(), Some(says(5)), "none of the later ones was synced");
        mark.write(says(9)).expect("written");
        mark.sync().expect("synced");
        for index in 10..13 {
            mark.write(says(index)).expect("written");
        }
        tear(mark.slot);
        assert_eq!(read(), Some(says(9)), "it was synced");
        tear(1 - mark.slot);
        assert_eq!(read(), None);
    }
}
