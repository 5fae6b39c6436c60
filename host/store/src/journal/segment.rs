//! One segment file: its name, its header with the snapshot of the pinned rows, and where its records begin.

use std::io;
use std::path::{Path, PathBuf};

use super::record::{ROWS_HEAD, decode_rows, encode_count, read_u32, read_u64};
use crate::disk::{Disk, if_found};
use crate::pinned::{Key, Pinned};

/// What a segment begins with; the last digits are its version.
const MAGIC: &[u8; 8] = b"RJSEGM01";
/// Bytes in front of the snapshot: magic, number, first index, chain, snapshot length, snapshot checksum, header
/// checksum.
const HEAD: usize = 48;

/// Where the rows of the snapshot begin: behind the header, and the snapshot's version and count.
pub(super) const ROWS: usize = HEAD + ROWS_HEAD;

/// Where a segment is.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.seg"))
}

/// The numbers of the segments in a directory, in order.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let names = if_found(disk.list(dir))?.unwrap_or_default();
    let number = |name: &String| u64::from_str_radix(name.strip_suffix(".seg").filter(|stem| stem.len() == 16)?, 16).ok();
    Ok(names.iter().filter_map(number).collect())
}

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The number in the file's name.
    pub(super) number: u64,
    /// The index of the first record.
    pub(super) first_index: u64,
    /// The chain before it.
    pub(super) chain: u64,
    snapshot_len: u64,
    snapshot_check: u32,
}

/// The rows of a snapshot as they were copied: in no order, and of a key's rows the last one counts.
#[derive(Clone, Copy, Default)]
pub(super) struct Copied {
    /// How many.
    pub(super) rows: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The checksum of these.
    pub(super) check: u32,
}

impl Header {
    /// What a segment begins with: all of it up to the snapshot's rows, which are in the file already.
    pub(super) fn encode(number: u64, first_index: u64, chain: u64, copied: Copied) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        encode_count(&mut bytes, copied.rows);
        let rows = usize::try_from(copied.bytes).expect("what was written from memory has a length");
        let check = crc32c::crc32c_combine(crc32c::crc32c(&bytes[HEAD..]), copied.check, rows);
        let length = ROWS_HEAD as u64 + copied.bytes;
        bytes[..8].copy_from_slice(MAGIC);
        for (slot, word) in [number, first_index, chain, length].iter().enumerate() {
            bytes[8 + slot * 8..16 + slot * 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&check.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..44]);
        bytes[44..48].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The header at the front of these bytes, `None` if it is damaged, of another segment or not yet written.
    pub(super) fn decode(bytes: &[u8], number: u64) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        if &head[..8] != MAGIC || read_u32(head, 44) != crc32c::crc32c(&head[..44]) {
            return None;
        }
        let word = |slot: usize| read_u64(head, 8 + slot * 8);
        let header =
            Self { number: word(0), first_index: word(1), chain: word(2), snapshot_len: word(3), snapshot_check: read_u32(head, 40) };
        (header.number == number && header.first_index > 0).then_some(header)
    }

    /// Reads only the header of a segment file.
    pub(super) fn read(disk: &dyn Disk, path: &Path, number: u64) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        let read = disk.open(path)?.read_at(&mut head, 0)?;
        Ok(Self::decode(&head[..read], number))
    }

    /// Where the records begin.
    pub(super) fn records(&self) -> usize {
        HEAD.saturating_add(usize::try_from(self.snapshot_len).unwrap_or(usize::MAX))
    }

    /// The pinned rows at the segment's beginning, `None` if they are damaged.
    pub(super) fn snapshot(&self, segment: &[u8]) -> Option<Pinned> {
        let bytes = segment.get(HEAD..self.records())?;
        if crc32c::crc32c(bytes) != self.snapshot_check {
            return None;
        }
        let mut pinned = Pinned::new();
        for row in decode_rows(bytes)? {
            match row.value {
                Some(value) => drop(pinned.insert(Key::from_slice(&row.key), value)),
                // It was copied, and then removed before the segment was in use.
                None => drop(pinned.remove(row.key.as_ref())),
            }
        }
        Some(pinned)
    }
}
