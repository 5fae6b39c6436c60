//! A segment file: its name, its header behind the [slots](super::slot), and the snapshot of the pinned rows in front
//! of its records.

use std::io;
use std::path::{Path, PathBuf};

use super::position::Position;
use super::record::{ROWS_HEAD, decode_rows, encode_count, read_u32, read_u64};
use super::slot::FRONT;
use crate::disk::{Disk, if_found};
use crate::pinned::{Key, Pinned};

/// The magic number; its last digits are the version.
const MAGIC: &[u8; 8] = b"RJSEGM02";
/// Bytes between the slots and the snapshot: magic, number, first index, chain, snapshot length, snapshot checksum,
/// header checksum.
const HEAD: usize = 48;

/// The offset of the snapshot's rows: behind the slots, the header, and the snapshot's version and row count.
pub(super) const ROWS: usize = FRONT + HEAD + ROWS_HEAD;

/// The path of a segment.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.seg"))
}

/// The numbers of the segments in a directory, in order.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = if_found(disk.list(dir))?.unwrap_or_default();
    let number =
        |name: &String| u64::from_str_radix(name.strip_suffix(".seg").filter(|stem| stem.len() == 16)?, 16).ok();
    Ok(names.iter().filter_map(number).collect())
}

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The number in the file's name.
    pub(super) number: u64,
    /// The index of the first record.
    pub(super) first_index: u64,
    /// The chain value before it.
    pub(super) chain: u64,
    snapshot_len: u64,
    snapshot_check: u32,
}

/// The extent of a snapshot's rows. They stand in the order in which they were copied; the last row of a key counts.
#[derive(Clone, Copy, Default)]
pub(super) struct SnapshotRows {
    pub(super) rows: usize,
    pub(super) bytes: u64,
    /// CRC-32C of the bytes.
    pub(super) check: u32,
}

impl Header {
    /// Encodes everything between the slots and the snapshot's rows, which are in the file already. The segment's
    /// records begin after `at`.
    pub(super) fn encode(number: u64, at: Position, copied: SnapshotRows) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        encode_count(&mut bytes, copied.rows);
        let rows = usize::try_from(copied.bytes).expect("what was written from memory has a length");
        let check = crc32c::crc32c_combine(crc32c::crc32c(&bytes[HEAD..]), copied.check, rows);
        let length = ROWS_HEAD as u64 + copied.bytes;
        bytes[..8].copy_from_slice(MAGIC);
        for (slot, word) in [number, at.index + 1, at.chain, length].iter().enumerate() {
            bytes[8 + slot * 8..16 + slot * 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&check.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Decodes the header from the bytes behind the slots; `None` if it is damaged, belongs to another segment, or was
    /// never written.
    pub(super) fn decode(bytes: &[u8], number: u64) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        if &head[..8] != MAGIC || read_u32(head, 44) != crc32c::crc32c(&head[..44]) {
            return None;
        }
        let word = |slot: usize| read_u64(head, 8 + slot * 8);
        let header = Self {
            number: word(0),
            first_index: word(1),
            chain: word(2),
            snapshot_len: word(3),
            snapshot_check: read_u32(head, 40),
        };
        (header.number == number && header.first_index > 0).then_some(header)
    }

    /// Reads the header of a segment file, and nothing else of it; `None` if it is damaged or was never written.
    pub(super) fn read(disk: &dyn Disk, path: &Path, number: u64) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        let read = disk.open(path)?.read_at(&mut head, FRONT as u64)?;
        Ok(Self::decode(&head[..read], number))
    }

    /// The offset of the first record.
    pub(super) fn records(&self) -> usize {
        (FRONT + HEAD).saturating_add(usize::try_from(self.snapshot_len).unwrap_or(usize::MAX))
    }

    /// The pinned rows at the beginning of the segment, `None` if they are damaged.
    pub(super) fn snapshot(&self, segment: &[u8]) -> Option<Pinned> {
        let bytes = segment.get(FRONT + HEAD..self.records())?;
        if crc32c::crc32c(bytes) != self.snapshot_check {
            return None;
        }
        let mut pinned = Pinned::new();
        for row in decode_rows(bytes)? {
            match row.value {
                Some(value) => drop(pinned.insert(Key::from_slice(&row.key), value)),
                // The row was copied and then removed, before the segment was in use.
                None => drop(pinned.remove(row.key.as_ref())),
            }
        }
        Some(pinned)
    }
}
