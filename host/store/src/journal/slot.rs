//! The two slots at the front of a segment: how far a sync that writes there has come. A commit writes its records
//! behind and a slot in front, and one sync of the file covers both.
//!
//! Each slot has a block of its own, and the slots are written in turn. So a write that is torn leaves the slot before
//! it, whose sync had ended.

use std::io;
use std::path::Path;

use super::position::{FIRST_CHAIN, Position};
use super::record::{read_u32, read_u64};
use crate::disk::{Disk, DiskFile};
use crate::io_cause::IoCause;

/// Bytes of a slot's block, which is written whole: a block that is not in the page cache need not be read for that.
const BLOCK: usize = 4096;
/// Bytes in front of a segment's header.
pub(super) const FRONT: usize = 2 * BLOCK;
/// Bytes of a slot.
const LEN: usize = 44;
/// The offset of a slot's checksum.
const CHECK: usize = 40;
/// The magic number; its last digits are the version.
const MAGIC: &[u8; 8] = b"RJSLOT01";

/// The content of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SyncSlot {
    /// The number of the segment that it stands in.
    pub(crate) segment: u64,
    /// The last record that is covered by a sync that had ended before this slot was written.
    pub(crate) confirmed: u64,
    /// What the sync that covers this slot covers too.
    pub(crate) end: Position,
}

impl SyncSlot {
    /// Both slots of a segment in which nothing was synced yet. They say nothing of earlier segments.
    pub(super) fn front(segment: u64) -> Vec<u8> {
        let none = Self { segment, confirmed: 0, end: Position { index: 0, chain: FIRST_CHAIN } };
        none.encode().repeat(FRONT / BLOCK)
    }

    fn encode(&self) -> [u8; BLOCK] {
        let Self { segment, confirmed, end: Position { index, chain } } = *self;
        let mut bytes = [0; BLOCK];
        bytes[..8].copy_from_slice(MAGIC);
        for (place, word) in [segment, confirmed, index, chain].iter().enumerate() {
            bytes[8 + place * 8..16 + place * 8].copy_from_slice(&word.to_le_bytes());
        }
        let check = crc32c::crc32c(&bytes[..CHECK]);
        bytes[CHECK..LEN].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Decodes a slot; `None` if it is damaged, stands in another segment's file, or was never written.
    fn decode(bytes: &[u8], segment: u64) -> Option<Self> {
        let bytes = bytes.get(..LEN)?;
        if &bytes[..8] != MAGIC || read_u32(bytes, CHECK) != crc32c::crc32c(&bytes[..CHECK]) {
            return None;
        }
        let word = |place: usize| read_u64(bytes, 8 + place * 8);
        let end = Position { index: word(2), chain: word(3) };
        Some(Self { segment: word(0), confirmed: word(1), end }).filter(|slot| slot.segment == segment)
    }

    /// Writes the slot whose turn it is. It is durable once the file is synced.
    ///
    /// # Errors
    /// What the disk says; part of it may then have been written.
    pub(crate) fn write(&self, file: &dyn DiskFile, turn: u64) -> io::Result<()> {
        file.write_at(&self.encode(), turn % 2 * BLOCK as u64)
    }

    /// Reads the slots of a segment that are intact.
    ///
    /// # Errors
    /// Every error that is not [damage](IoCause::is_damage).
    pub(super) fn read(disk: &dyn Disk, path: &Path, segment: u64) -> io::Result<Vec<Self>> {
        let (file, mut slots) = (disk.open(path)?, Vec::new());
        for block in 0..FRONT / BLOCK {
            let mut bytes = [0; LEN];
            match file.read_at(&mut bytes, (block * BLOCK) as u64) {
                Ok(read) => slots.extend(Self::decode(&bytes[..read], segment)),
                Err(error) if IoCause::of(&error).is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;

    #[test]
    fn slots_are_written_in_turn_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("segment");
        let file = OsDisk.create(&path).expect("a file");
        let read = || SyncSlot::read(&OsDisk, &path, 3).expect("readable");
        let says = |index| SyncSlot { segment: 3, confirmed: index - 1, end: Position { index, chain: index * 11 } };
        assert_eq!(read(), [], "a file that is too short has none");
        file.write_at(&SyncSlot::front(3), 0).expect("written");
        assert_eq!(read().iter().map(|slot| slot.end.index).collect::<Vec<_>>(), [0, 0]);
        for index in 5..9 {
            says(index).write(file.as_ref(), index).expect("written");
        }
        assert_eq!(read(), [says(8), says(7)]);
        assert_eq!(SyncSlot::read(&OsDisk, &path, 4).expect("readable"), [], "of another segment");
        let written = std::fs::read(&path).expect("bytes");
        assert_eq!(written.len(), FRONT);
        for bit in 0..LEN * 8 {
            let mut bytes = written.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(read(), [says(7)], "bit {bit}");
        }
    }
}
