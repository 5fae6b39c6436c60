//! A walk: one (partition, peer) that is compared and made equal, from the sums of its buckets down to single objects.
//!
//! A walk holds what is still to be compared, fetched and brought, and what it waits for. It asks one question at a
//! time. What it needs of this node (sums, rows, absorbing) is done by the shard.
//!
//! The peer answers each question without remembering the walk. So a walk whose peer is gone, or whose answer does not
//! come in time, is dropped, and the next one begins anew: what was absorbed until then is not sent again.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{Compared, HashRange, OtherCopy, RangeHashes, Sum, WalkId};
use rejoin_proto::{BucketId, NodeId, PartitionId};

use super::own::{Own, OwnRow, RangeScan, padded_hashes, part_width, shorten, shortened, sorted};
use crate::shard::event::ScanTicket;

/// The ranges of one question.
pub(crate) const RANGES_AT_ONCE: usize = 64;
/// Above so many ranges a walk goes deep before it goes on.
const MANY_RANGES: usize = 1024;
/// The bytes of an object's hash that are compared; of a sum half as many. They can be short, since a difference that
/// one walk does not see is found by the next, which multiplies by another salt.
const SHORT_WIDTH: u8 = 4;
/// The bytes when a node must know that it has everything.
const FULL_WIDTH: u8 = 16;

/// A range to fetch: all of it but the objects with these hashes.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) range: HashRange,
    /// Where to go on; empty at the beginning.
    pub(crate) from: Bytes,
    pub(crate) except: Bytes,
}

/// A range to bring: all of it but the objects with these hashes, of which those that are found are noted.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) range: HashRange,
    pub(crate) from: Bytes,
    /// Sorted, each with whether it was found here.
    pub(crate) except: Vec<([u8; 16], bool)>,
    /// Whether the peer lacked something so far.
    pub(crate) brought: bool,
}

/// What a walk waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// Its next question.
    Nothing,
    Buckets,
    Compare(Vec<(HashRange, Own)>),
    Wanted(Pull),
    /// Rows of a range to bring.
    Scan(ScanTicket, Push),
    /// Rows of a range that are too large to be read on the shard's turn.
    Look(ScanTicket, RangeScan),
    Taken,
}

/// What a walk has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WalkCounts {
    /// Objects that this node lacked, or had otherwise.
    pub received: u64,
    /// Objects that the peer lacked, or had otherwise.
    pub sent: u64,
    /// Bytes of rows that were received and sent.
    pub received_bytes: u64,
    /// Bytes of rows that were sent.
    pub sent_bytes: u64,
}

/// One walk.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) id: WalkId,
    pub(crate) peer: NodeId,
    pub(crate) partition: PartitionId,
    /// The number of the question that is open.
    pub(crate) number: u64,
    pub(crate) salt: u128,
    pub(crate) width: u8,
    pub(crate) waits: Waits,
    /// When it is dropped unless something happens.
    pub(crate) deadline_us: u64,
    /// Before that it asks for nothing that carries objects.
    pub(crate) not_before_us: u64,
    /// When the peer was first asked. What it had then this node has when the walk ends well.
    pub(crate) begun_us: u64,
    /// Whether the peer has everything that it has acknowledged.
    pub(crate) peer_is_complete: bool,
    /// Whether something could not be compared or brought: then nothing follows from its end.
    pub(crate) failed: bool,
    pub(crate) counts: WalkCounts,
    todo: Vec<HashRange>,
    pub(crate) pulls: VecDeque<Pull>,
    pub(crate) pushes: VecDeque<Push>,
    /// Single objects to bring.
    pub(crate) keys: BTreeSet<Bytes>,
}

impl WalkCounts {
    pub(crate) fn plus(self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            sent: self.sent + other.sent,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        }
    }
}

impl Walk {
    pub(crate) fn new(id: WalkId, peer: NodeId, partition: PartitionId, salt: u128, full: bool) -> Self {
        Self {
            id,
            peer,
            partition,
            number: 0,
            salt: salt | 1,
            width: if full { FULL_WIDTH } else { SHORT_WIDTH },
            waits: Waits::Nothing,
            deadline_us: 0,
            not_before_us: 0,
            begun_us: 0,
            peer_is_complete: false,
            failed: false,
            counts: WalkCounts::default(),
            todo: Vec::new(),
            pulls: VecDeque::new(),
            pushes: VecDeque::new(),
            keys: BTreeSet::new(),
        }
    }

    /// The peer has told the sums of its buckets: those that differ are compared. `own` has this node's.
    pub(crate) fn compare_buckets(
        &mut self,
        bits: u8,
        own: &[(BucketId, u64, Option<Sum>)],
        theirs: &[(BucketId, u64, Sum)],
    ) {
        for (bucket, version, sum) in own {
            let Some(sum) = sum else {
                self.failed = true;
                continue;
            };
            match theirs.iter().find(|(other, ..)| other == bucket) {
                Some((_, _, other)) if other.is_same(sum) => {}
                Some((_, other, _)) if other != version => self.failed = true,
                Some(_) => self.todo.push(HashRange::of_partition(*bucket, self.partition, bits)),
                None if sum.count > 0 => self.todo.push(HashRange::of_partition(*bucket, self.partition, bits)),
                None => {}
            }
        }
        // A bucket that this node does not know yet, or does not share.
        self.failed |= theirs.iter().any(|(bucket, ..)| !own.iter().any(|(known, ..)| known == bucket));
    }

    /// The next ranges to compare.
    pub(crate) fn next_ranges(&mut self) -> Vec<HashRange> {
        let most = if self.todo.len() > MANY_RANGES { 4 } else { RANGES_AT_ONCE };
        self.todo.split_off(self.todo.len().saturating_sub(most))
    }

    /// Puts ranges back that were not compared.
    pub(crate) fn compare_later(&mut self, ranges: impl IntoIterator<Item = HashRange>) {
        self.todo.extend(ranges);
    }

    /// Whether it compares shortened hashes.
    pub(crate) fn is_short(&self) -> bool {
        self.width == SHORT_WIDTH
    }

    /// Whether it waits for an answer of its peer.
    pub(crate) fn awaits_answer(&self) -> bool {
        !matches!(self.waits, Waits::Nothing | Waits::Scan(..) | Waits::Look(..))
    }

    /// Whether it waits for that scan.
    pub(crate) fn awaits_scan(&self, ticket: ScanTicket) -> bool {
        matches!(&self.waits, Waits::Scan(of, _) | Waits::Look(of, _) if *of == ticket)
    }

    /// Whether its next question is due.
    pub(crate) fn is_ready(&self, now_us: u64) -> bool {
        matches!(self.waits, Waits::Nothing) && self.not_before_us <= now_us
    }

    /// When something is due: its next question, or its end.
    pub(crate) fn wakes_us(&self) -> u64 {
        if matches!(self.waits, Waits::Nothing) { self.not_before_us } else { self.deadline_us }
    }

    /// Whether nothing is left to compare, fetch or bring.
    pub(crate) fn is_done(&self) -> bool {
        self.todo.is_empty() && self.pulls.is_empty() && self.pushes.is_empty() && self.keys.is_empty()
    }

    /// What is said of a range in a question.
    pub(crate) fn hashes_of(&self, own: &Own) -> Option<RangeHashes> {
        match own {
            Own::Rows(rows) => {
                Some(RangeHashes::Objects(shortened(rows.iter().map(|row| row.hash), self.salt, self.width)))
            }
            Own::Parts(parts) => {
                let width = part_width(self.width);
                Some(RangeHashes::Parts(shortened(parts.iter().map(|part| part.hash), self.salt, width)))
            }
            Own::Unknown | Own::Spent | Own::Large => None,
        }
    }

    /// The peer has compared a range.
    pub(crate) fn compared(&mut self, range: HashRange, own: Own, answer: Compared) {
        match (own, answer) {
            (Own::Parts(_), Compared::Parts(differ)) => {
                self.todo.extend((0..range.parts()).filter(|at| differ & 1 << at != 0).map(|at| range.part(at)));
            }
            // They have few, and this node many.
            (Own::Parts(_), Compared::Objects(theirs)) => {
                let except = sorted(&theirs, self.width).into_iter().map(|hash| (hash, false)).collect();
                self.pushes.push_back(Push { range, from: Bytes::new(), except, brought: false });
            }
            (Own::Rows(rows), Compared::Objections { lacking, others }) => {
                let is_lacking = |at: &usize| lacking.get(at / 8).is_some_and(|byte| byte & 1 << (at % 8) != 0);
                let objected: Vec<&OwnRow> = (0..rows.len()).filter(is_lacking).map(|at| &rows[at]).collect();
                self.keys.extend(objected.iter().map(|row| row.store_key.clone()));
                let (older, wanted): (Vec<OtherCopy>, Vec<OtherCopy>) =
                    others.into_iter().partition(|other| self.is_older(&range, &objected, other));
                if !wanted.is_empty() {
                    self.pull(range, &rows, &older);
                }
            }
            (Own::Rows(rows), Compared::Many) => {
                self.pull(range, &rows, &[]);
                self.keys.extend(rows.into_iter().map(|row| row.store_key));
            }
            // It is not known yet, or no answer to what was asked.
            _ => self.failed = true,
        }
    }

    /// Whether a copy of the peer need not be fetched, because the copy of the key here, which is brought, has seen
    /// more. Of two copies of which neither has seen all of the other the peer's may be left out too: the peer joins
    /// them, answers that it has another copy than it was sent, and the next walk fetches that.
    fn is_older(&self, range: &HashRange, brought: &[&OwnRow], other: &OtherCopy) -> bool {
        // Rule: newer copies are brought. A node that must know that it has everything takes the older ones too.
        self.is_short() && brought.iter().any(|row| row.place(range) == other.place && row.weight > other.weight)
    }

    /// Fetches what the peer has of a range, but for this node's own copies and those of the peer that are `older`.
    fn pull(&mut self, range: HashRange, rows: &[OwnRow], older: &[OtherCopy]) {
        let own = shortened(rows.iter().map(|row| row.hash), self.salt, self.width);
        let mut except = Vec::from(own);
        older.iter().for_each(|other| except.extend_from_slice(&other.hash.to_be_bytes()));
        self.pulls.push_back(Pull { range, from: Bytes::new(), except: except.into() });
    }

    /// Takes the rows of a range that the peer lacks; notes those that it has.
    pub(crate) fn lacking(&self, push: &mut Push, rows: Vec<(Bytes, Bytes, u128)>) -> Vec<(Bytes, Bytes)> {
        let mut lacking = Vec::new();
        for (key, row, hash) in rows {
            let short = shorten(hash, self.salt, self.width);
            match push.except.iter_mut().find(|(known, found)| *known == short && !*found) {
                Some((_, found)) => *found = true,
                None => lacking.push((key, row)),
            }
        }
        push.brought |= !lacking.is_empty();
        lacking
    }

    /// A range is brought. What the peer has of it, and this node was not found to have, may be older versions of what
    /// was brought: the range is compared again. If nothing was, and in a walk that ends a gap, it is fetched.
    pub(crate) fn pushed(&mut self, push: &Push) {
        if push.except.iter().any(|(_, found)| !found) {
            if push.brought && self.is_short() {
                return self.todo.push(push.range);
            }
            let found = push.except.iter().filter(|(_, found)| *found).map(|(hash, _)| hash);
            let except = padded_hashes(found, self.width);
            self.pulls.push_back(Pull { range: push.range, from: Bytes::new(), except });
        }
    }
}
