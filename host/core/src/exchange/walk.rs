//! A walk: partitions that are compared with a peer and made equal, from their sums down to single objects.
//!
//! A walk holds what is still to be compared, fetched and brought, and what it waits for. It asks one question at a
//! time. What it needs of this node (sums, rows, absorbing) is done by the shard.
//!
//! Most walks compare *shortened* hashes, of many partitions at once, and name keys that alone make sums differ
//! ([`lone`](super::lone)). A walk *in full* is of one partition. It compares whole hashes, and takes nothing on trust.
//!
//! The peer answers each question without remembering the walk. So a walk whose peer is gone, or whose answer does not
//! come in time, is dropped, and the next one begins anew: what was absorbed until then is not sent again.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;

use rejoin_proto::exchange::{
    Compared, Digest, HashRange, OtherCopy, PartitionBuckets, RangeHashes, Sum, WalkId, partition_of, place_of,
};
use rejoin_proto::{BucketId, NodeId, PartitionId};

use super::own::{Own, OwnRow, RangeScan, padded_hashes, part_width, salt_of, shorten, shortened, sorted};
use crate::shard::event::ScanTicket;

/// The most partitions of one walk. They share its questions, and are walked with no other node meanwhile.
pub(crate) const PARTITIONS_AT_ONCE: usize = 32;
/// What a walk may take of memory. What is still to be compared, fetched and brought is bounded by what one answer
/// adds.
pub const MAX_WALK_BYTES: usize = 1 << 20;
/// The ranges of one question.
pub(crate) const RANGES_AT_ONCE: usize = 64;
/// Above so many ranges a walk goes deep before it goes on.
const MANY_RANGES: usize = 1024;
/// The most names of one question.
pub(crate) const NAMES_AT_ONCE: usize = 128;
/// Fewer objects to fetch or to bring wait until there is nothing to be compared, so that they share messages.
const MANY_OBJECTS: usize = 256;
/// The bytes of an object's hash that are compared; of a sum two. They can be few, since a difference that one walk
/// does not see is found by the next, which multiplies by another salt.
const SHORT_WIDTH: u8 = 3;
/// The bytes when a node must know that it has everything.
const FULL_WIDTH: u8 = 16;

/// Whether hashes of that width are shortened.
pub(crate) fn is_short(width: u8) -> bool {
    width < FULL_WIDTH
}

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

/// An object of the peer that is to be fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub(crate) name: HashRange,
    /// The key in the store, if this node has a copy too.
    pub(crate) own: Option<Bytes>,
    /// Of a name that sums have given: their range, and the trailing bits of the hash that the object must have.
    pub(crate) proof: Option<(HashRange, u32)>,
}

/// A range whose sums differ, with this node's sum and the digest of the peer's.
pub(crate) type Differs = (HashRange, Sum, Digest);

/// What a walk waits for.
#[derive(Debug)]
pub(crate) enum Waits {
    /// Its next question.
    Nothing,
    Buckets(Vec<PartitionId>),
    Compare(Vec<(HashRange, Own)>),
    Wanted(Pull),
    /// Objects with names; and whether the walk ends with them.
    Named(Vec<Want>, bool),
    /// Rows of a range to bring.
    Scan(ScanTicket, Push),
    /// Rows of a range that are too large to be read on the shard's turn.
    Look(ScanTicket, RangeScan),
    /// That objects of these partitions are absorbed; and whether the walk ends with them.
    Taken(BTreeSet<PartitionId>, bool),
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

/// A partition of a walk.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Whether the peer has everything that it has acknowledged, as far as it was asked.
    pub(crate) peer_is_complete: bool,
    /// Whether something could not be compared or brought: then nothing follows from the end of the walk.
    pub(crate) failed: bool,
    /// Whether both have objects of one bucket only.
    pub(crate) has_one_bucket: bool,
    /// By how much the sums differed when the walk began: the trailing bits.
    pub(crate) difference: Option<u32>,
    pub(crate) counts: WalkCounts,
}

/// One walk.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) id: WalkId,
    pub(crate) peer: NodeId,
    pub(crate) parts: BTreeMap<PartitionId, Part>,
    /// The number of the question that is open.
    pub(crate) number: u64,
    pub(crate) salt: u128,
    pub(crate) width: u8,
    pub(crate) waits: Waits,
    /// When it is dropped unless something happens.
    pub(crate) deadline_us: u64,
    /// Before that it asks for nothing that carries objects.
    pub(crate) not_before_us: u64,
    /// When it was begun. What the peer had then this node has when the walk ends well.
    pub(crate) begun_us: u64,
    /// Whether the peer has answered.
    pub(crate) is_met: bool,
    bits: u8,
    /// Partitions of which the sums of the buckets are to be asked for.
    pub(crate) unopened: Vec<PartitionId>,
    todo: Vec<HashRange>,
    pub(crate) pulls: VecDeque<Pull>,
    pub(crate) pushes: VecDeque<Push>,
    wants: Vec<Want>,
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
    /// A walk of a ring with 2^`bits` partitions.
    pub(crate) fn new(id: WalkId, peer: NodeId, bits: u8, full: bool) -> Self {
        Self {
            id,
            peer,
            parts: BTreeMap::new(),
            number: 0,
            salt: salt_of(id),
            width: if full { FULL_WIDTH } else { SHORT_WIDTH },
            waits: Waits::Nothing,
            deadline_us: 0,
            not_before_us: 0,
            begun_us: 0,
            is_met: false,
            bits,
            unopened: Vec::new(),
            todo: Vec::new(),
            pulls: VecDeque::new(),
            pushes: VecDeque::new(),
            wants: Vec::new(),
            keys: BTreeSet::new(),
        }
    }

    /// The partition of a range.
    pub(crate) fn partition(&self, range: &HashRange) -> PartitionId {
        partition_of(range.start, self.bits)
    }

    /// The partition of a key in the store.
    pub(crate) fn partition_of(&self, store_key: &[u8]) -> PartitionId {
        partition_of(place_of(store_key).map_or(0, |(_, prefix)| prefix), self.bits)
    }

    /// Nothing follows from the end of the walk for a partition.
    pub(crate) fn fail(&mut self, partition: PartitionId) {
        if let Some(part) = self.parts.get_mut(&partition) {
            part.failed = true;
        }
    }

    pub(crate) fn fail_range(&mut self, range: &HashRange) {
        self.fail(self.partition(range));
    }

    /// Whether something failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.parts.values().any(|part| part.failed)
    }

    /// Counts objects of a partition that were sent or received.
    pub(crate) fn count(&mut self, partition: PartitionId, counts: &WalkCounts) {
        if let Some(part) = self.parts.get_mut(&partition) {
            part.counts = part.counts.plus(counts);
        }
    }

    /// A partition is not walked.
    pub(crate) fn leave_out(&mut self, partition: PartitionId) {
        let bits = self.bits;
        let is_other = |prefix: u64| partition_of(prefix, bits) != partition;
        self.parts.remove(&partition);
        self.unopened.retain(|unopened| *unopened != partition);
        self.todo.retain(|range| is_other(range.start));
        self.pulls.retain(|pull| is_other(pull.range.start));
        self.pushes.retain(|push| is_other(push.range.start));
        self.wants.retain(|want| is_other(want.name.start));
        self.keys.retain(|key| place_of(key).is_none_or(|(_, prefix)| is_other(prefix)));
    }

    /// The peer has told the sums of its buckets. `own` has this node's. Returns the ranges that differ.
    pub(crate) fn compare_buckets(
        &mut self,
        partition: PartitionId,
        own: &[(BucketId, u64, Option<Sum>)],
        theirs: &PartitionBuckets,
    ) -> Vec<Differs> {
        let (mut differ, mut failed) = (Vec::new(), false);
        let range = |bucket| HashRange::of_partition(bucket, partition, self.bits);
        for (bucket, version, sum) in own {
            let Some(sum) = sum else {
                failed = true;
                continue;
            };
            match theirs.sums.iter().find(|(other, ..)| other == bucket) {
                Some((_, _, other)) if other.is_same(sum) => {}
                Some((_, other, _)) if other != version => failed = true,
                Some((_, _, other)) => differ.push((range(*bucket), *sum, other.digest())),
                None if sum.count > 0 => differ.push((range(*bucket), *sum, Digest::default())),
                None => {}
            }
        }
        // A bucket that this node does not know yet, or does not share.
        failed |= theirs.sums.iter().any(|(bucket, ..)| !own.iter().any(|(known, ..)| known == bucket));
        if let Some(part) = self.parts.get_mut(&partition) {
            part.failed |= failed;
            part.peer_is_complete = theirs.complete;
        }
        differ
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
        is_short(self.width)
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

    /// The bytes of memory that it takes, without what each allocation adds.
    pub(crate) fn bytes(&self) -> usize {
        let ranges = self.todo.len() * size_of::<HashRange>();
        let wants = self.wants.iter().map(|want| size_of::<Want>() + want.own.as_ref().map_or(0, Bytes::len));
        let keys = self.keys.iter().map(|key| size_of::<Bytes>() + key.len());
        let pulls = self.pulls.iter().map(|pull| size_of::<Pull>() + pull.except.len());
        let pushes =
            self.pushes.iter().map(|push| size_of::<Push>() + push.except.len() * size_of::<([u8; 16], bool)>());
        let asked = match &self.waits {
            Waits::Compare(asked) => asked.iter().map(|(_, own)| own.bytes()).sum(),
            Waits::Named(wants, _) => wants.len() * size_of::<Want>(),
            _ => 0,
        };
        ranges + wants.chain(keys).chain(pulls).chain(pushes).sum::<usize>() + asked
    }

    /// Whether nothing is left to compare, fetch or bring.
    pub(crate) fn is_done(&self) -> bool {
        self.has_only_keys() && self.keys.is_empty()
    }

    /// Whether nothing is left but single objects to bring.
    fn has_only_keys(&self) -> bool {
        self.unopened.is_empty()
            && self.todo.is_empty()
            && self.pulls.is_empty()
            && self.pushes.is_empty()
            && self.wants.is_empty()
    }

    /// Whether it goes on comparing before it fetches and brings single objects.
    pub(crate) fn gathers(&self) -> bool {
        self.is_short() && !self.todo.is_empty() && self.wants.len() < MANY_OBJECTS && self.keys.len() < MANY_OBJECTS
    }

    /// An object of the peer is to be fetched.
    pub(crate) fn want(&mut self, want: Want) {
        self.wants.push(want);
    }

    /// The next objects to fetch, of one bucket; and whether the walk ends with them, if they are what they seem to be.
    pub(crate) fn next_wants(&mut self) -> (Vec<Want>, bool) {
        let Some(bucket) = self.wants.last().map(|want| want.name.bucket) else { return (Vec::new(), false) };
        let other = |want: &Want| want.name.bucket != bucket;
        let from = self.wants.iter().rposition(other).map_or(0, |at| at + 1);
        let wants = self.wants.split_off(from.max(self.wants.len().saturating_sub(NAMES_AT_ONCE)));
        let own = wants.iter().filter_map(|want| want.own.as_ref()).filter(|own| self.keys.contains(*own)).count();
        let last = self.has_only_keys() && self.keys.len() == own && !self.has_failed();
        (wants, last)
    }

    /// An object that was fetched is not what its name was taken from: it was no lone difference.
    pub(crate) fn was_misnamed(&mut self, want: &Want) {
        match &want.proof {
            // Rule: wrong names are searched for.
            Some((range, _)) => {
                if let Some(own) = &want.own {
                    self.keys.remove(own);
                }
                self.compare_later([*range]);
            }
            // The peer has changed it meanwhile.
            None => self.fail_range(&want.name),
        }
    }

    /// What is said of a range in a question.
    pub(crate) fn hashes_of(&self, own: &Own) -> Option<RangeHashes> {
        match own {
            Own::Rows(rows) => {
                Some(RangeHashes::Objects(shortened(rows.iter().map(OwnRow::hash), self.salt, self.width)))
            }
            Own::Parts(parts) => {
                let width = part_width(self.width);
                Some(RangeHashes::Parts(shortened(parts.iter().map(|part| part.hash), self.salt, width)))
            }
            Own::Unknown | Own::Spent | Own::Large => None,
        }
    }

    /// The peer has compared a range. Returns its parts that differ.
    pub(crate) fn compared(&mut self, range: HashRange, own: Own, answer: Compared) -> Vec<Differs> {
        match (own, answer) {
            (Own::Parts(own), Compared::Parts { differ, digests }) => {
                let parts = (0..range.parts()).filter(|at| differ & 1 << at != 0).map(|at| (range.part(at), own[at]));
                if !self.is_short() {
                    self.todo.extend(parts.map(|(part, _)| part));
                } else if range.part(0) == range || digests.len() != differ.count_ones() as usize {
                    // Nothing is below single hashes.
                    self.fail_range(&range);
                } else {
                    return parts.zip(digests).map(|((part, own), theirs)| (part, own, theirs)).collect();
                }
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
                if self.is_short() {
                    self.want_others(&range, &objected, &others);
                } else if !others.is_empty() {
                    self.pull(range, &rows);
                }
            }
            (Own::Rows(rows), Compared::Many) => {
                self.pull(range, &rows);
                self.keys.extend(rows.into_iter().map(|row| row.store_key));
            }
            // It is not known yet, or no answer to what was asked.
            _ => self.fail_range(&range),
        }
        Vec::new()
    }

    /// Copies of the peer in a range are to be fetched, but for those that are older than what is brought.
    fn want_others(&mut self, range: &HashRange, brought: &[&OwnRow], others: &[OtherCopy]) {
        for other in others {
            let own = brought.iter().find(|row| row.place(range) == other.place);
            if own.is_none_or(|own| self.wants_it(own.sum.weights.cmp(&other.weight))) {
                let own = own.map(|own| own.store_key.clone());
                self.want(Want { name: range.at_place(other.place), own, proof: None });
            }
        }
    }

    /// Whether a copy of the peer is fetched, when the copy of the key here, which is brought, weighs so much against
    /// it. Of two copies of which neither has seen all of the other the peer's may be left out too: the peer joins
    /// them, answers that it has another copy than it was sent, and the next walk fetches that.
    pub(crate) fn wants_it(&self, own: Ordering) -> bool {
        // Rule: newer copies are brought. A node that must know that it has everything takes the older ones too.
        own.is_le() || !self.is_short()
    }

    /// Fetches what the peer has of a range, but for this node's own copies.
    pub(crate) fn pull(&mut self, range: HashRange, rows: &[OwnRow]) {
        let except = shortened(rows.iter().map(OwnRow::hash), self.salt, self.width);
        self.pulls.push_back(Pull { range, from: Bytes::new(), except });
    }

    /// Brings all that this node has of a range.
    pub(crate) fn push(&mut self, range: HashRange) {
        self.pushes.push_back(Push { range, from: Bytes::new(), except: Vec::new(), brought: false });
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
