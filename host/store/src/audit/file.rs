//! The bytes of one file of the audit log: a header, and behind it records without gaps. Zeros behind the last record
//! are room.
//!
//! ```text
//! header   "rejoinA1"  first: u64  before: 32 bytes  crc32c of those: u32
//! record   length of the entry: u32  number: u64  hash: 32 bytes  entry
//! ```

use bytes::Bytes;

use rejoin_proto::audit::{AuditHash, AuditRecord, MAX_ENTRY_BYTES};

const MAGIC: &[u8; 8] = b"rejoinA1";
/// The bytes of a header.
pub(super) const HEADER: usize = 8 + 8 + 32 + 4;
/// The bytes of a record beside its entry.
pub(super) const FRAME: usize = 4 + 8 + 32;

/// Where a file begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The number of its first record.
    pub(super) first: u64,
    /// The hash of the record before that one.
    pub(super) before: AuditHash,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.first.to_le_bytes(), &self.before].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// `None` if the bytes do not begin with a header.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, check) = bytes.get(..HEADER)?.split_at(HEADER - 4);
        let rest = content.strip_prefix(MAGIC)?;
        if check != crc32c::crc32c(content).to_le_bytes() {
            return None;
        }
        let (first, before) = rest.split_at(8);
        Some(Self { first: u64::from_le_bytes(first.try_into().ok()?), before: before.try_into().ok()? })
    }
}

/// The bytes of a record.
pub(super) fn encode(record: &AuditRecord) -> Vec<u8> {
    let length = u32::try_from(record.entry.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &record.number.to_le_bytes(), &record.hash, &record.entry].concat()
}

/// The records of a file, one after the other, as they stand there. They are not checked against each other.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    broken: Option<&'static str>,
}

impl<'a> Records<'a> {
    /// Those behind the header.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: HEADER.min(bytes.len()), broken: None }
    }

    /// Where the last record that was taken ends.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Why there are no more, if the file does not simply end.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    fn broken_by(&mut self, why: &'static str) -> Option<AuditRecord> {
        self.broken = Some(why);
        None
    }
}

impl Iterator for Records<'_> {
    type Item = AuditRecord;

    fn next(&mut self) -> Option<AuditRecord> {
        let rest = &self.bytes[self.at..];
        // A record begins with a length that is not zero: zeros are room, and only zeros are.
        if self.broken.is_some() || (rest.iter().take(4).all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0)) {
            return None;
        }
        let Some((frame, behind)) = rest.split_at_checked(FRAME) else {
            return self.broken_by("the file ends within a record");
        };
        let length = frame[..4].try_into().map_or(0, u32::from_le_bytes) as usize;
        if !(1..=MAX_ENTRY_BYTES).contains(&length) {
            return self.broken_by("the length of a record is not one that was ever written");
        }
        let Some(entry) = behind.get(..length) else {
            return self.broken_by("the file ends within a record");
        };
        let number = frame[4..12].try_into().map_or(0, u64::from_le_bytes);
        let mut hash = [0; 32];
        hash.copy_from_slice(&frame[12..]);
        self.at += FRAME + length;
        Some(AuditRecord { number, hash, entry: Bytes::copy_from_slice(entry) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> AuditRecord {
        AuditRecord { number, hash: [number as u8; 32], entry: Bytes::from(vec![1; number as usize]) }
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_not_otherwise() {
        let header = Header { first: 813, before: [7; 32] };
        let bytes = header.encode();
        assert_eq!((bytes.len(), Header::decode(&bytes)), (HEADER, Some(header)));
        for at in 0..HEADER {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(Header::decode(&other), None, "byte {at}");
            assert_eq!(Header::decode(&bytes[..at]), None);
        }
    }

    #[test]
    fn records_are_read_up_to_the_room_behind_them() {
        let all: Vec<AuditRecord> = (1..5).map(record).collect();
        let mut bytes = Header { first: 1, before: [0; 32] }.encode();
        all.iter().for_each(|record| bytes.extend(encode(record)));
        let end = bytes.len();
        for room in [0, 1, 100] {
            bytes.resize(end + room, 0);
            let mut records = Records::new(&bytes);
            assert_eq!(records.by_ref().collect::<Vec<_>>(), all);
            assert_eq!((records.at(), records.broken()), (end, None));
        }
        for cut in end - 4 - FRAME + 1..end {
            let mut records = Records::new(&bytes[..cut]);
            assert_eq!(records.by_ref().count(), 3);
            assert_eq!((records.at(), records.broken().is_some()), (end - 4 - FRAME, true));
        }
    }
}
