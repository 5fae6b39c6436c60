//! Records with the right checksum, index and chain and an arbitrary payload, as a newer release or a bug would write
//! them.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BASE, Opened};
use crate::{fuzz, meter};

/// Bytes of the slots in front of a segment's header, of the header, and in front of a record's payload.
const SLOTS: usize = 2 * 4096;
const SEGMENT_HEAD: usize = 48;
const RECORD_HEAD: usize = 24;
/// What opening a shard of this size takes, whatever is in its journal.
const BASE_BYTES: usize = 8 << 20;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The last segment, where its records end, and index and chain of the last one.
fn end() -> (PathBuf, Vec<u8>, u64, u64) {
    let (path, mut segment) =
        BASE.disk.list_all().into_iter().rfind(|(path, _)| path.extension().is_some_and(|it| it == "seg")).unwrap();
    let (mut index, mut chain) = (u64_at(&segment, SLOTS + 16) - 1, u64_at(&segment, SLOTS + 24));
    let mut at = SLOTS + SEGMENT_HEAD + u64_at(&segment, SLOTS + 32) as usize;
    while segment.len() >= at + RECORD_HEAD && u32_at(&segment, at) > 0 {
        (index, chain) = (u64_at(&segment, at + 8), u64_at(&segment, at + 16));
        at += RECORD_HEAD + u32_at(&segment, at) as usize;
    }
    segment.truncate(at);
    (path, segment, index, chain)
}

/// A record as the format says, of any payload.
fn forge(segment: &mut Vec<u8>, index: u64, chain: u64, payload: &[u8]) {
    let chain = xxh3_64_with_seed(payload, chain ^ index.rotate_left(32));
    let mut record = (payload.len() as u32).to_le_bytes().to_vec();
    let covered = [&record[..], &index.to_le_bytes(), &chain.to_le_bytes(), payload].concat();
    record.extend_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    record.extend_from_slice(&covered[4..]);
    segment.extend_from_slice(&record);
}

/// A row as it is read at leisure: its key and, if it is not removed, its value.
type Row = (Vec<u8>, Option<Vec<u8>>);

/// The rows that a payload spells out, if it is one.
fn meaning(payload: &[u8]) -> Option<Vec<Row>> {
    let mut rest = payload;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    (take(1)? == [1]).then_some(())?;
    let count = u32_at(take(4)?, 0);
    let mut rows = Vec::new();
    for _ in 0..count {
        let flags = take(1)?[0];
        let length = u32_at(take(4)?, 0) as usize;
        let key = take(length).filter(|key| (1..=65_535).contains(&key.len()))?.to_vec();
        let value = match flags {
            0 | 1 | 4 | 8 => None,
            2 | 3 | 6 | 10 => {
                let length = u32_at(take(4)?, 0) as usize;
                Some(take(length)?.to_vec())
            }
            _ => return None,
        };
        rows.push(([&[flags & !2], &key[..]].concat(), value));
    }
    take(1).is_none().then_some(rows)
}

fn property(payload: &[u8]) {
    let (path, mut segment, index, chain) = end();
    forge(&mut segment, index + 1, chain, payload);
    let disk = BASE.disk.above("".as_ref());
    disk.write(&path, &segment);
    let (opened, held) = meter::peak(|| Opened::on(&disk));
    assert!(held <= BASE_BYTES + 16 * payload.len(), "{held} bytes held for a record of {}", payload.len());
    let recovery = &opened.recovery;
    assert_eq!(recovery.lost, Vec::<String>::new(), "it was never synced, so nothing is lost with it");
    let mut expected = BASE.rows.clone();
    match meaning(payload) {
        Some(rows) => {
            assert_eq!((recovery.replayed_records, recovery.cut_bytes), (index + 1, 0));
            for (key, value) in rows {
                match value {
                    Some(value) => drop(expected.insert(key, value)),
                    None => drop(expected.remove(&key)),
                }
            }
        }
        None => assert!(recovery.replayed_records == index && (recovery.cut_bytes > 0 || payload.is_empty())),
    }
    assert_eq!(opened.rows(), expected);
}

/// A payload of rows: flags, key, value.
fn payload(rows: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    for (flags, key, value) in rows {
        bytes.push(*flags);
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        if flags & 2 != 0 {
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        }
    }
    bytes
}

#[test]
fn records() {
    let seeds = vec![
        payload(&[(2, b"key 1", b"replaced"), (3, b"pinned 0", b"replaced"), (0, b"key 2", b"")]),
        payload(&[(2, b"new", b""), (1, b"pinned 1", b""), (2, b"new", &[7; 300]), (2, b"k", b"v")]),
        payload(&[(6, b"leaf", b"sums"), (4, b"no leaf", b""), (7, b"in two spaces", b"")]),
        payload(&[(6, b"leaf", b"sums"), (4, b"no leaf", b""), (2, b"leaf", b"of an object")]),
        payload(&[]),
    ];
    fuzz("records", seeds, property);
}
