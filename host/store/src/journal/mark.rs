//! The high-water mark: how far the journal was synced. It is kept outside the journal, so that a journal that has lost
//! its end cannot look whole.
//!
//! The file has two slots that are written in turn. The mark is written in parallel with the journal's sync, so the
//! newer slot may be ahead of the journal after a power cut. The older slot never is: its sync had ended, both halves
//! of it, before the newer slot was written.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::record::{read_u32, read_u64};
use crate::disk::{Disk, DiskFile, if_found, read_all, replace};
use crate::error::FileError;

/// The distance between the slots: each has a block of its own, so that writing one cannot tear the other.
const SLOT: u64 = 4096;
/// Bytes of a slot.
const LEN: usize = 56;
/// The offset of a slot's checksum.
const CHECK: usize = 48;
/// The magic number; its last digits are the version.
const MAGIC: &[u8; 8] = b"RJMARK01";

/// The content of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// The last record that is durable once the sync that writes this mark has ended.
    pub(crate) index: u64,
    /// The chain value after that record.
    pub(crate) chain: u64,
    /// The first segment that is still needed.
    pub(crate) first_segment: u64,
    /// The version of the tree that holds what the segments before that one held. An older tree has lost it.
    pub(crate) tree: u64,
}

/// Both slots of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Marks {
    pub(crate) newest: Mark,
    /// The last record that is known to be durable: the older slot's index. The newest one's if the older slot cannot
    /// be read, or is not the one written right before.
    pub(crate) confirmed: u64,
}

/// A slot with the number of its write. The slot with the higher number is the newer one.
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
        Some(Self {
            generation: word(0),
            mark: Mark { index: word(1), chain: word(2), first_segment: word(3), tree: word(4) },
        })
    }
}

/// The open mark file.
pub(crate) struct MarkFile {
    file: Arc<dyn DiskFile>,
    /// The number of the last write.
    generation: u64,
}

impl MarkFile {
    /// Reads the file: `Ok(None)` if there is none, `Ok(Some(None))` if neither slot is intact.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Option<Marks>>> {
        let Some(file) = if_found(disk.open(path))? else { return Ok(None) };
        let bytes = read_all(file.as_ref())?;
        let mut slots: Vec<Slot> =
            [0, SLOT as usize].into_iter().filter_map(|start| Slot::decode(bytes.get(start..)?)).collect();
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.generation));
        let Some(Slot { generation, mark: newest }) = slots.first().copied() else { return Ok(Some(None)) };
        let older = slots.get(1).filter(|older| older.generation + 1 == generation);
        let confirmed = older.map_or(newest.index, |older| older.mark.index.min(newest.index));
        Ok(Some(Some(Marks { newest, confirmed })))
    }

    /// Durably and atomically replaces the file, or creates it. The records up to `mark` must be durable: no older slot
    /// is left.
    pub(crate) fn replace(disk: &dyn Disk, path: &Path, mark: Mark) -> Result<Self, FileError> {
        let first = Slot { generation: 1, mark };
        let file = replace(disk, path, &path.with_extension("new"), |file| {
            file.preallocate(2 * SLOT)?;
            file.write_at(&first.encode(), SLOT)
        })?;
        Ok(Self { file, generation: first.generation })
    }

    /// Durably overwrites the older slot.
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
    fn a_torn_write_leaves_the_mark_before_it_and_only_the_older_slot_is_confirmed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mark");
        let says = |index| Mark { index, chain: index * 11, first_segment: index / 3, tree: index * 2 };
        let mut mark = MarkFile::replace(&OsDisk, &path, says(5)).expect("a mark");
        let read = || MarkFile::read(&OsDisk, &path).expect("readable").expect("there");
        assert_eq!(read(), Some(Marks { newest: says(5), confirmed: 5 }), "what is replaced was durable before");
        mark.write(says(6)).expect("written");
        mark.write(says(7)).expect("written");
        assert_eq!(read(), Some(Marks { newest: says(7), confirmed: 6 }));
        let mut bytes = std::fs::read(&path).expect("bytes");
        let newest = (mark.generation % 2 * SLOT) as usize;
        bytes[newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(
            read(),
            Some(Marks { newest: says(6), confirmed: 6 }),
            "its sync had ended before the torn one began"
        );
        bytes[SLOT as usize - newest + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(read(), None);
    }
}
