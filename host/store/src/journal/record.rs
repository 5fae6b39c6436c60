//! Encodes and decodes records.
//!
//! ```text
//! record    len u32 ‖ crc32c u32 ‖ index u64 ‖ chain u64 ‖ payload
//! payload   version u8 ‖ rows u32 ‖ row …
//! row       flags u8 ‖ key length u32 ‖ key ‖ [value length u32 ‖ value]
//! ```
//! Little endian. The checksum covers the whole record but itself.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use rejoin_core::port::{Row, Space};

/// Bytes in front of the payload.
pub(super) const HEAD: usize = 24;
/// Bytes in front of a payload's rows.
pub(super) const ROWS_HEAD: usize = 5;
/// The largest payload. One change is one object with all its siblings at most, and a few small rows.
pub(super) const MAX_PAYLOAD: usize = 1 << 30;
/// The largest key, which is the tree's; the smallest has one byte.
const MAX_KEY: usize = 65_535;
/// The payload's version.
const VERSION: u8 = 1;
/// Row flag: the row is pinned.
const PINNED: u8 = 1;
/// Row flag: the row has a value; without it the row is removed.
const VALUE: u8 = 2;
/// Row flag: the row is of a hash tree.
const TREES: u8 = 4;
/// Row flag: the row is of a receipt.
const RECEIPTS: u8 = 8;

/// The chain value after a record.
pub(super) fn link(chain: u64, index: u64, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, chain ^ index.rotate_left(32))
}

/// Whether a row may have this many bytes of key.
pub(crate) fn is_key_length(length: usize) -> bool {
    (1..=MAX_KEY).contains(&length)
}

/// The bytes that rows take in a payload.
pub(super) fn rows_len<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    ROWS_HEAD + rows.map(|row| 5 + row.key.len() + row.value.as_ref().map_or(0, |value| 4 + value.len())).sum::<usize>()
}

/// Appends a payload.
pub(super) fn encode_rows<'a>(
    buffer: &mut Vec<u8>,
    count: usize,
    rows: impl Iterator<Item = (Space, &'a [u8], Option<&'a [u8]>)>,
) {
    encode_count(buffer, count);
    rows.for_each(|(space, key, value)| encode_row(buffer, space, key, value));
}

/// Appends a payload's version and row count, which precede the rows.
pub(super) fn encode_count(buffer: &mut Vec<u8>, rows: usize) {
    buffer.push(VERSION);
    buffer.extend_from_slice(&word(rows));
}

/// Appends one row of a payload.
pub(super) fn encode_row(buffer: &mut Vec<u8>, space: Space, key: &[u8], value: Option<&[u8]>) {
    let of_space = match space {
        Space::Objects => 0,
        Space::Trees => TREES,
        Space::Pinned => PINNED,
        Space::Receipts => RECEIPTS,
    };
    buffer.push(of_space | if value.is_some() { VALUE } else { 0 });
    buffer.extend_from_slice(&word(key.len()));
    buffer.extend_from_slice(key);
    if let Some(value) = value {
        buffer.extend_from_slice(&word(value.len()));
        buffer.extend_from_slice(value);
    }
}

fn word(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a payload is at most 1 GiB").to_le_bytes()
}

/// Decodes a payload; `None` if it is malformed. The memory that it allocates is bounded by the payload's length.
pub(super) fn decode_rows(payload: &[u8]) -> Option<Vec<Row>> {
    let mut rest = payload;
    if take(&mut rest, 1)? != [VERSION] {
        return None;
    }
    let count = take_word(&mut rest)?;
    // A row takes five bytes at least, so a damaged count cannot ask for more memory than there are bytes.
    let mut rows = Vec::with_capacity(count.min(rest.len() / 5 + 1));
    for _ in 0..count {
        let flags = take(&mut rest, 1)?[0];
        let space = match flags & !VALUE {
            0 => Space::Objects,
            TREES => Space::Trees,
            PINNED => Space::Pinned,
            RECEIPTS => Space::Receipts,
            _ => return None,
        };
        let length = take_word(&mut rest).filter(|length| is_key_length(*length))?;
        let key = Bytes::copy_from_slice(take(&mut rest, length)?);
        let value = if flags & VALUE == 0 {
            None
        } else {
            let length = take_word(&mut rest)?;
            Some(Bytes::copy_from_slice(take(&mut rest, length)?))
        };
        rows.push(Row { space, key, value });
    }
    rest.is_empty().then_some(rows)
}

/// Appends a record of these rows and returns the chain value after it.
pub(super) fn encode(buffer: &mut Vec<u8>, index: u64, chain: u64, rows: &[Row]) -> u64 {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD]);
    encode_rows(buffer, rows.len(), rows.iter().map(|row| (row.space, row.key.as_ref(), row.value.as_deref())));
    let payload = start + HEAD;
    let chain = link(chain, index, &buffer[payload..]);
    let length = u32::try_from(buffer.len() - payload).expect("a payload is at most 1 GiB");
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 8..start + 16].copy_from_slice(&index.to_le_bytes());
    buffer[start + 16..start + 24].copy_from_slice(&chain.to_le_bytes());
    let check = checksum(&buffer[start..]);
    buffer[start + 4..start + 8].copy_from_slice(&check.to_le_bytes());
    chain
}

/// A record as it stands in a segment, not yet verified.
pub(super) struct RawRecord<'a> {
    pub(super) index: u64,
    /// The chain value that it claims to lead to.
    pub(super) chain: u64,
    /// The whole record, head included.
    pub(super) bytes: &'a [u8],
}

impl RawRecord<'_> {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEAD..]
    }

    /// Whether the checksum matches.
    pub(super) fn intact(&self) -> bool {
        read_u32(self.bytes, 4) == checksum(self.bytes)
    }
}

/// The record at an offset, if its length is plausible. Its checksum is not verified.
pub(super) fn at(segment: &[u8], offset: usize) -> Option<RawRecord<'_>> {
    let rest = segment.get(offset..)?;
    let head = rest.get(..HEAD)?;
    let length = read_u32(head, 0) as usize;
    if length == 0 || length > MAX_PAYLOAD {
        return None;
    }
    let bytes = rest.get(..HEAD + length)?;
    Some(RawRecord { index: read_u64(head, 8), chain: read_u64(head, 16), bytes })
}

/// The checksum of a record: all of it but the checksum's own four bytes.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

/// Panics if the offset is not within `bytes`.
pub(super) fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

/// Panics if the offset is not within `bytes`.
pub(super) fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_word(rest: &mut &[u8]) -> Option<usize> {
    take(rest, 4).map(|bytes| read_u32(bytes, 0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_core::port::Change;

    fn change() -> Change {
        let mut change = Change::default();
        change.put(Space::Objects, "key", "value").remove(Space::Objects, "gone").put(Space::Pinned, "actor", "");
        change.put(Space::Trees, "leaf", "sum").remove(Space::Trees, "gone");
        change.put(Space::Receipts, "receipt", "inputs").remove(Space::Receipts, "gone");
        change
    }

    #[test]
    fn a_record_reads_back() {
        let mut buffer = Vec::new();
        let chain = encode(&mut buffer, 7, 99, &change().rows);
        let found = at(&buffer, 0).expect("a record");
        assert!(found.intact() && found.index == 7 && found.chain == chain);
        assert_eq!(link(99, 7, found.payload()), chain);
        assert_eq!(decode_rows(found.payload()).expect("rows"), change().rows);
        assert_eq!(found.payload().len(), rows_len(change().rows.iter()));
    }

    #[test]
    fn a_row_that_the_tree_could_not_take_is_none() {
        let of = |length: usize| {
            let mut payload = Vec::new();
            encode_rows(&mut payload, 1, [(Space::Objects, &vec![7; length][..], None)].into_iter());
            decode_rows(&payload)
        };
        assert!(of(1).is_some() && of(65_535).is_some());
        assert!(of(0).is_none() && of(65_536).is_none());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut buffer = Vec::new();
        encode(&mut buffer, 7, 99, &change().rows);
        for bit in 0..buffer.len() * 8 {
            let mut bytes = buffer.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(at(&bytes, 0).is_none_or(|found| !found.intact()), "bit {bit}");
        }
        for length in 0..buffer.len() {
            assert!(at(&buffer[..length], 0).is_none());
            assert!(length <= HEAD || decode_rows(&buffer[HEAD..length]).is_none());
        }
    }
}
