//! The audit log of a node: what was asked of the control plane, by whom, and what came of it.
//!
//! Each record carries a hash over its entry and over the hash of the record before it ([`link`]). Whoever knows the
//! hash of the last record can check all of them: [`ChainWalk`] names the first one that was altered or removed.
//! Secrets are never in an entry.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::access::Scope;
use crate::codec::{self, DecodeError, Versioned};
use crate::error::ErrorCode;
use crate::id::Name;

/// The most bytes of an encoded entry.
pub const MAX_ENTRY_BYTES: usize = 4096;
/// The most bytes of a text in an entry. A longer one is cut.
pub const MAX_AUDIT_TEXT_BYTES: usize = 512;

/// The BLAKE3 hash of a record, or of the state of an object.
pub type AuditHash = [u8; 32];

/// What one record says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The node's wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    pub event: AuditEvent,
}

impl Versioned for AuditEntry {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "audit entry";
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AuditEvent {
    /// A command that is allowed and about to be carried out. It is written before anything is done.
    Asked(AuditCommand),
    /// What came of the command of an earlier record.
    Ended {
        /// The number of that record.
        asked: u64,
        /// What came of it.
        outcome: AuditOutcome,
    },
    /// A command that the token or certificate does not allow. Nothing was done.
    Denied {
        /// The command.
        command: AuditCommand,
        /// What it would take.
        why: String,
        /// How often the same was denied since it was last recorded, this time included.
        times: u32,
    },
}

/// A command to the control plane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditCommand {
    /// Who has sent it.
    pub by: AuditActor,
    /// The tenant that it is about.
    pub tenant: String,
    /// What it does, such as `token create`.
    pub verb: String,
    /// To what: a name, or the digest of a plugin.
    pub object: String,
    /// What else it says, for people.
    pub detail: String,
    /// The state of the object before, as this node knew it. `None` if there was none.
    pub before: Option<AuditHash>,
}

/// Who has sent a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditActor {
    /// The tenant of the token or certificate.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Whether it is a certificate and not a token.
    pub certificate: bool,
    /// Its scope.
    pub scope: Scope,
    /// The address that the client has connected from.
    pub from: String,
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AuditOutcome {
    /// It was done.
    Done {
        /// The state of the object now. `None` if there is none, or if the command has no object.
        after: Option<AuditHash>,
    },
    /// It was refused, and the client was told so.
    Refused {
        /// The kind of the error.
        code: ErrorCode,
        /// Its text.
        why: String,
    },
    /// The client's connection has ended before the answer: the command may have been done.
    Unanswered,
}

/// A text as an entry may have it: cut at [`MAX_AUDIT_TEXT_BYTES`].
#[must_use]
pub fn audit_text(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_AUDIT_TEXT_BYTES);
    text[..end].into()
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number: the first record of a node has 1, and each further one the next.
    pub number: u64,
    /// [`link`] of the record before it, its number and its entry.
    pub hash: AuditHash,
    /// An encoded [`AuditEntry`].
    pub entry: Bytes,
}

impl AuditRecord {
    /// What it says.
    ///
    /// # Errors
    /// Its entry was altered, or written by a newer release.
    pub fn entry(&self) -> Result<AuditEntry, DecodeError> {
        codec::decode(&self.entry)
    }
}

/// The hash of a record: over the hash of the one before it, its number and its entry.
#[must_use]
pub fn link(before: &AuditHash, number: u64, entry: &[u8]) -> AuditHash {
    let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 audit record");
    hasher.update(before).update(&number.to_le_bytes()).update(entry);
    *hasher.finalize().as_bytes()
}

/// Between which records a log lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditHead {
    /// The number of the first record that is kept. Older ones have made room.
    pub first: u64,
    /// The hash of the record before that one; zeros if it is the first of all.
    pub before: AuditHash,
    /// The number of the last record; one less than `first` if there is none.
    pub last: u64,
    /// The hash of the last record, or `before`.
    pub hash: AuditHash,
}

impl AuditHead {
    /// That of a log in which nothing was ever recorded.
    pub const EMPTY: Self = Self { first: 1, before: [0; 32], last: 0, hash: [0; 32] };
}

/// Asks for a part of a node's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditRequest {
    /// The number of the first record that is wanted. Older ones than are kept are left out.
    pub from: u64,
}

/// A part of a node's log, as it is on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditPage {
    /// The answering node.
    pub node: Name,
    /// Between which records its log lies.
    pub head: AuditHead,
    /// Records, in the order of the disk. They are not checked.
    pub records: Vec<AuditRecord>,
    /// Why what follows them in their file cannot be read.
    pub broken: Option<String>,
    /// The number from which to ask for more; `None`: there is no more.
    pub next: Option<u64>,
    /// What the node found wrong with its log when it started.
    pub notes: Vec<String>,
}

/// What is wrong with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainFault {
    /// Records are missing.
    #[error("{} removed", records(*first, *last))]
    Removed {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// The hash of a record is not that of its content and of the record before it.
    #[error("record {number} was altered, or the one before it")]
    Altered {
        /// The record.
        number: u64,
    },
    /// A record stands behind one with the same or a larger number.
    #[error("record {number} is out of its place")]
    Misplaced {
        /// The record.
        number: u64,
    },
    /// The last record is another one than was noted when it was written.
    #[error("the records up to {number} were written anew: the last one has another hash than was noted")]
    Rewritten {
        /// The last record.
        number: u64,
    },
}

fn records(first: u64, last: u64) -> impl fmt::Display {
    match first == last {
        true => alloc::format!("record {first} was"),
        false => alloc::format!("records {first} to {last} were"),
    }
}

/// Walks through a log and checks each record against the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainWalk {
    next: u64,
    hash: AuditHash,
}

impl ChainWalk {
    /// A walk that begins with the record of that number, behind the one with that hash.
    #[must_use]
    pub fn new(first: u64, before: AuditHash) -> Self {
        Self { next: first, hash: before }
    }

    /// The number of the record that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The hash of the record before that one.
    #[must_use]
    pub fn hash(&self) -> AuditHash {
        self.hash
    }

    /// Takes the next record. After a fault the walk goes on behind it.
    ///
    /// # Errors
    /// What is wrong with it, or missing before it.
    pub fn step(&mut self, record: &AuditRecord) -> Result<(), ChainFault> {
        let AuditRecord { number, hash, entry } = record;
        if *number < self.next {
            return Err(ChainFault::Misplaced { number: *number });
        }
        let (expected, before) = (self.next, self.hash);
        (self.next, self.hash) = (number.saturating_add(1), *hash);
        if *number > expected {
            return Err(ChainFault::Removed { first: expected, last: number - 1 });
        }
        if link(&before, *number, entry) == *hash { Ok(()) } else { Err(ChainFault::Altered { number: *number }) }
    }

    /// Compares the end with what was noted when the last record was written.
    ///
    /// # Errors
    /// Records are missing at the end, or the last one is not that one.
    pub fn end(&self, head: &AuditHead) -> Result<(), ChainFault> {
        if self.next <= head.last {
            return Err(ChainFault::Removed { first: self.next, last: head.last });
        }
        if self.next == head.last.saturating_add(1) && self.hash != head.hash {
            return Err(ChainFault::Rewritten { number: head.last });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of so many records.
    fn log(records: u64) -> (AuditHead, Vec<AuditRecord>) {
        let mut head = AuditHead::EMPTY;
        let mut all = Vec::new();
        for number in 1..=records {
            let entry = Bytes::from(alloc::format!("entry {number}"));
            let hash = link(&head.hash, number, &entry);
            (head.last, head.hash) = (number, hash);
            all.push(AuditRecord { number, hash, entry });
        }
        (head, all)
    }

    /// What a walk finds first.
    fn first_fault(head: &AuditHead, records: &[AuditRecord]) -> Option<ChainFault> {
        let mut walk = ChainWalk::new(head.first, head.before);
        let found = records.iter().find_map(|record| walk.step(record).err());
        found.or_else(|| walk.end(head).err())
    }

    #[test]
    fn a_whole_log_has_no_fault() {
        for records in 0..9 {
            let (head, all) = log(records);
            assert_eq!(first_fault(&head, &all), None);
        }
    }

    #[test]
    fn every_removed_record_is_named() {
        let (head, all) = log(8);
        for first in 0..8 {
            for end in first + 1..=8 {
                let mut left = all.clone();
                left.drain(first..end);
                let (first, last) = (first as u64 + 1, end as u64);
                assert_eq!(first_fault(&head, &left), Some(ChainFault::Removed { first, last }));
            }
        }
    }

    #[test]
    fn every_altered_record_is_named_and_every_swapped_pair_is_found() {
        let (head, all) = log(8);
        for at in 0..8 {
            let number = at as u64 + 1;
            let mut other = all.clone();
            other[at].entry = Bytes::from_static(b"something else");
            assert_eq!(first_fault(&head, &other), Some(ChainFault::Altered { number }));
            let mut other = all.clone();
            other[at].hash[0] ^= 1;
            assert_eq!(first_fault(&head, &other), Some(ChainFault::Altered { number }));
            for with in at + 1..8 {
                let mut other = all.clone();
                other.swap(at, with);
                let last = with as u64;
                assert_eq!(first_fault(&head, &other), Some(ChainFault::Removed { first: number, last }));
                // With their numbers swapped back, the contents are not those of the numbers.
                (other[at].number, other[with].number) = (number, with as u64 + 1);
                assert_eq!(first_fault(&head, &other), Some(ChainFault::Altered { number }));
            }
        }
    }

    #[test]
    fn an_alteration_that_is_hashed_anew_shows_at_the_next_record_and_at_the_end() {
        let (head, all) = log(8);
        for at in 0..8 {
            let mut other = all.clone();
            other[at].entry = Bytes::from_static(b"something else");
            let before = if at == 0 { head.before } else { other[at - 1].hash };
            other[at].hash = link(&before, at as u64 + 1, &other[at].entry);
            let expected = match at {
                7 => ChainFault::Rewritten { number: 8 },
                _ => ChainFault::Altered { number: at as u64 + 2 },
            };
            assert_eq!(first_fault(&head, &other), Some(expected));
            // And so is everything behind it: then only what was noted of the end tells.
            for next in at + 1..8 {
                let before = other[next - 1].hash;
                other[next].hash = link(&before, next as u64 + 1, &other[next].entry);
            }
            assert_eq!(first_fault(&head, &other), Some(ChainFault::Rewritten { number: 8 }));
        }
    }

    #[test]
    fn a_record_that_stands_twice_is_out_of_its_place() {
        let (head, mut all) = log(4);
        all.insert(3, all[1].clone());
        assert_eq!(first_fault(&head, &all), Some(ChainFault::Misplaced { number: 2 }));
    }

    #[test]
    fn faults_are_told_in_words() {
        let told = |fault: ChainFault| alloc::format!("{fault}");
        assert_eq!(told(ChainFault::Removed { first: 3, last: 3 }), "record 3 was removed");
        assert_eq!(told(ChainFault::Removed { first: 3, last: 5 }), "records 3 to 5 were removed");
    }

    #[test]
    fn the_largest_entry_is_within_its_bound() {
        let long = "ä".repeat(400);
        let text = || audit_text(&long);
        assert_eq!(text().len(), MAX_AUDIT_TEXT_BYTES);
        let by = AuditActor {
            tenant: text(),
            name: text(),
            certificate: true,
            scope: Scope::Operator,
            from: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".into(),
        };
        let command = AuditCommand {
            by,
            tenant: text(),
            verb: "bucket create".into(),
            object: text(),
            detail: text(),
            before: Some([9; 32]),
        };
        let event = AuditEvent::Denied { command, why: text(), times: u32::MAX };
        let bytes = codec::encode(&AuditEntry { at_ms: u64::MAX, event });
        assert!(bytes.len() <= MAX_ENTRY_BYTES, "{}", bytes.len());
    }
}
