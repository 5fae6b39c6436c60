//! The bytes in which a panicking guest leaves its message for the host. Guest and host both use this module, so that
//! there is one definition of them.
//!
//! A record is a mark of 16 bytes, the length of the text and its FNV-1a hash (32 bits each, little-endian), and the
//! text: UTF-8, the location, `: ` and the message. A record is never part of a value, since a call that traps returns
//! nothing.

/// The mark, as two numbers: written as one constant of 16 bytes it would stand in the guest's data as well.
const MARK: [u64; 2] = [0x9d1c_63e5_a8f0_274b, 0x36b7_f95e_0c82_d1a4];
const HEADER_BYTES: usize = 24;
/// The most bytes of a text; a longer one is cut.
pub const TEXT_BYTES: usize = 1000;
/// Bytes of a whole record.
pub const RECORD_BYTES: usize = HEADER_BYTES + TEXT_BYTES;

/// The 16 bytes with which every record begins.
#[must_use]
pub fn mark() -> [u8; 16] {
    let mut mark = [0; 16];
    mark[..8].copy_from_slice(&MARK[0].to_le_bytes());
    mark[8..].copy_from_slice(&MARK[1].to_le_bytes());
    mark
}

/// The record of a text, of which [`TEXT_BYTES`] are kept. Allocates nothing.
#[must_use]
pub fn encode(text: &[u8]) -> [u8; RECORD_BYTES] {
    let text = &text[..text.len().min(TEXT_BYTES)];
    let mut record = [0; RECORD_BYTES];
    record[..16].copy_from_slice(&mark());
    // Lossless: a text has at most TEXT_BYTES.
    record[16..20].copy_from_slice(&(text.len() as u32).to_le_bytes());
    record[20..HEADER_BYTES].copy_from_slice(&hash(text).to_le_bytes());
    record[HEADER_BYTES..HEADER_BYTES + text.len()].copy_from_slice(text);
    record
}

/// The text of the record at the start of `memory`; `None` if there is no whole record.
#[must_use]
pub fn decode(memory: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| memory.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let len = usize::try_from(word(16)?).ok().filter(|len| *len <= TEXT_BYTES)?;
    let text = memory.get(HEADER_BYTES..HEADER_BYTES + len)?;
    (memory.starts_with(&mark()) && word(20)? == hash(text)).then_some(text)
}

fn hash(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let record = encode(b"src/lib.rs:3:4: no");
        assert_eq!(decode(&record), Some(&b"src/lib.rs:3:4: no"[..]));
        let whole = HEADER_BYTES + b"src/lib.rs:3:4: no".len();
        assert_eq!((0..whole).find(|cut| decode(&record[..*cut]).is_some()), None);
        for at in 0..whole {
            let mut damaged = record;
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
    }
}
