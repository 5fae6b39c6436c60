//! Answers to the questions of walks that peers have begun. Each is answered by itself: nothing is remembered of a walk
//! but a scan that its answer waits for.

use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{
    Answer, Ask, BRANCHES, BucketRanges, Compared, Differing, ExchangeAnswer, ExchangeAsk, HashRange, ObjectBatch,
    OtherCopy, PartitionBuckets, RangeHashes, WalkId, partition_of,
};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, LayoutRef, NodeId, ObjectId, PartitionId};

use super::Shard;
use super::event::{Effect, ScanTicket, ScannedRows};
use super::exchange::ANSWER_US;
use super::turn::{Turn, fault_code};
use crate::exchange::own::{
    FewRows, Own, OwnRow, RangeScan, ReadBudget, part_width, parts_of, salt_of, shorten, shortened, sorted,
};
use crate::exchange::state::{Served, Serving, ServingWork};
use crate::exchange::walk::{PARTITIONS_AT_ONCE, is_short};
use crate::port::StoreFault;

/// The most questions of peers that wait for a scan.
pub(super) const MAX_SERVING: usize = 16;
/// The most ranges of one question that are looked at.
const MAX_RANGES: usize = 256;
/// Where a peer has few objects in a range, and this node not more than so many, they are compared one by one.
pub(super) const COMPARED_ROWS: usize = 256;
/// The most bytes of given hashes that are looked at.
const MAX_EXCEPT_BYTES: usize = 64 << 10;

impl Shard {
    /// Answers a question of a peer's walk.
    pub(super) fn exchange_asked(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        envelope: (LayoutRef, u64),
        asked: ExchangeAsk,
    ) {
        let ExchangeAsk { walk, number, partition_bits, partition, epoch, ask } = asked;
        let (layout, trace) = envelope;
        let is_same_ring = layout == self.view.layout_name() && partition_bits == self.view.partition_bits();
        let answer = if !is_same_ring || !self.is_own(partition) {
            // Rule: exchanges are of one layout.
            Err(ErrorCode::StaleLayout)
        } else if !matches!(ask, Ask::Roots(_)) && !self.shares(partition, from, u8::MAX) {
            // What an ex-owner has left says nothing.
            Err(ErrorCode::StaleLayout)
        } else if epoch != self.epoch() {
            // Rule: exchanges are of one epoch.
            Err(ErrorCode::VersionConflict)
        } else {
            self.exchanges.goes_on(from, walk, turn.now.mono_us + ANSWER_US);
            match self.answer_to(turn, (from, walk, number), partition, ask) {
                Ok(None) => return,
                Ok(Some(answer)) => Ok(answer),
                Err(code) => Err(code),
            }
        };
        let body = ExchangeAnswer { walk, number, epoch: self.epoch(), answer };
        self.send(turn, from, trace, PeerBody::ExchangeAnswer(body));
    }

    /// The answer to a question that is about something of a partition; `None` if it follows later, or there is none.
    fn answer_to(
        &mut self,
        turn: &mut Turn<'_>,
        (from, walk, number): (NodeId, WalkId, u64),
        partition: PartitionId,
        ask: Ask,
    ) -> Result<Option<Answer>, ErrorCode> {
        let (now_us, of) = (turn.now.mono_us, (walk, number));
        match ask {
            Ask::Roots(roots) => Ok(Some(self.differing(turn, from, &roots))),
            Ask::Buckets(partitions) => {
                let partitions = partitions.into_iter().take(PARTITIONS_AT_ONCE);
                let told = partitions.map(|partition| self.buckets_of(now_us, partition, from, walk)).collect();
                Ok(Some(Answer::Buckets(told)))
            }
            Ask::Compare { width, ranges } => {
                let answers = self.compare(turn, Served { peer: from, of, width }, ranges)?;
                Ok(answers.map(Answer::Compared))
            }
            Ask::Wanted { range, from: key, width, except, max_bytes } => {
                let range = self.check_range(from, range)?;
                if partition_of(range.start, self.trees.bits()) != partition {
                    return Err(ErrorCode::BadRequest);
                }
                let is_busy = except.len() > MAX_EXCEPT_BYTES || self.exchanges.serving.len() >= MAX_SERVING;
                if is_busy || !self.walked_by(now_us, partition, from, walk) {
                    return Err(ErrorCode::Overloaded);
                }
                let ticket = self.scan_ticket();
                let mut job = self.batch_scan(&range, &key);
                job.from = job.from.max(range.from());
                job.max_bytes = job.max_bytes.min(max_bytes as usize);
                let reserved = job.max_bytes as u64;
                self.exchanges.pacer.spend(now_us, reserved);
                let work = ServingWork::Wanted { range, except, reserved };
                let serving = Serving { served: Served { peer: from, of, width }, work };
                self.exchanges.serving.insert(ticket, serving);
                turn.effects.push(Effect::Scan(ticket, job));
                Ok(None)
            }
            Ask::Named { bucket, names, last } => {
                let served = Served { peer: from, of, width: 0 };
                self.serve_named(turn, served, partition, (bucket, names, last))
            }
            Ask::Objects { batch, last } => self.take_of_walk(turn, (from, walk), partition, (batch, last)).map(Some),
            Ask::Ended { failed } => {
                self.walk_of_peer_ended(now_us, from, walk, &failed);
                Ok(None)
            }
        }
    }

    /// What this node has in a partition, if the peer may walk it now.
    fn buckets_of(
        &mut self,
        now_us: u64,
        partition: PartitionId,
        peer: NodeId,
        walk: WalkId,
    ) -> Option<PartitionBuckets> {
        let is_shared = self.is_own(partition) && self.shares(partition, peer, u8::MAX);
        if !is_shared || !self.walked_by(now_us, partition, peer, walk) {
            return None;
        }
        let shared = self.shared_buckets(partition, peer).into_iter();
        let sums = shared.map(|(id, version, sum)| Some((id, version, sum?.told()))).collect::<Option<Vec<_>>>()?;
        Some(PartitionBuckets { complete: self.gaps.is_complete(partition), sums })
    }

    /// Absorbs the objects that a walk brings, of which the first is of that partition.
    fn take_of_walk(
        &mut self,
        turn: &mut Turn<'_>,
        (from, walk): (NodeId, WalkId),
        partition: PartitionId,
        (batch, last): (ObjectBatch, bool),
    ) -> Result<Answer, ErrorCode> {
        let now_us = turn.now.mono_us;
        let bucket = self.view.bucket(batch.bucket).ok_or(ErrorCode::VersionConflict)?;
        let (tenant, id) = (bucket.tenant, bucket.id);
        let of = |key: &Bytes| self.view.layout().partition(&ObjectId { tenant, bucket: id, key: key.clone() });
        let mut partitions: Vec<PartitionId> = batch.objects.iter().map(|(key, _)| of(key)).collect();
        partitions.dedup();
        if partitions.first().is_some_and(|first| *first != partition) {
            return Err(ErrorCode::StaleLayout);
        }
        let own: Vec<PartitionId> = partitions.into_iter().filter(|partition| self.is_own(*partition)).collect();
        let mut walked = own.into_iter().map(|partition| self.walked_by(now_us, partition, from, walk));
        // All are asked. What is brought along with others is taken, whoever walks its partition.
        if !walked.by_ref().fold(false, |any, walked| any | walked) {
            return Err(ErrorCode::Overloaded);
        }
        let sent = batch.objects.len();
        let epoch = self.epoch();
        let same = self.absorb_batch(turn, epoch, batch)?.len() == sent;
        if last && same {
            self.walk_of_peer_ended(now_us, from, walk, &[]);
        }
        Ok(Answer::Taken { same })
    }

    /// Compares roots. Partitions of another shard of this node are left for another question.
    fn differing(&mut self, turn: &Turn<'_>, peer: NodeId, roots: &[(PartitionId, u128)]) -> Answer {
        let (mut considered, mut partitions, mut refused) = (0, Vec::new(), Vec::new());
        for &(partition, theirs) in roots {
            if !self.is_own(partition) {
                break;
            }
            considered += 1;
            // Rule: only owners compare. An ex-owner may have handed over what it had.
            let is_shared = self.shares(partition, peer, u8::MAX);
            match is_shared.then(|| self.shared_sum(partition, peer)).flatten() {
                None => refused.push(partition),
                // Rule: whole roots are compared.
                Some((_, own)) if own.hash == theirs => self.exchanges.equal(turn.now.mono_us, partition, peer),
                Some((buckets, own)) => {
                    let buckets = u8::try_from(buckets).unwrap_or(u8::MAX);
                    partitions.push(Differing { partition, buckets, digest: own.digest() });
                }
            }
        }
        let considered_roots = roots.iter().take(usize::from(considered)).map(|(partition, _)| *partition);
        let incomplete = considered_roots.filter(|partition| !self.gaps.is_complete(*partition)).collect();
        Answer::Differ { considered, partitions, refused, incomplete }
    }

    /// A range of a peer's message, if it is one of a partition of this shard, and both own it.
    pub(super) fn check_range(&self, peer: NodeId, range: HashRange) -> Result<HashRange, ErrorCode> {
        let range = range.checked().ok_or(ErrorCode::BadRequest)?;
        let partition = range.partition(self.trees.bits()).ok_or(ErrorCode::BadRequest)?;
        let bucket = self.view.bucket(range.bucket).ok_or(ErrorCode::VersionConflict)?;
        let is_shared = self.shares_bucket(partition, peer, bucket) && self.is_own(partition);
        if is_shared { Ok(range) } else { Err(ErrorCode::StaleLayout) }
    }

    /// Compares ranges, as many as may be read on one turn. If the first one is too large for that, it is read off the
    /// turn, and the answer follows.
    fn compare(
        &mut self,
        turn: &mut Turn<'_>,
        served: Served,
        ranges: Vec<BucketRanges>,
    ) -> Result<Option<Vec<Compared>>, ErrorCode> {
        let (mut answers, mut budget) = (Vec::new(), ReadBudget::default());
        let Served { peer, of: (walk, _), width } = served;
        let of = (salt_of(walk), width);
        let ranges = ranges.into_iter().flat_map(|BucketRanges { bucket, ranges }| {
            ranges.into_iter().map(move |(bits, theirs)| (bits.of(bucket), theirs))
        });
        for (range, theirs) in ranges.take(MAX_RANGES) {
            let range = self.check_range(peer, range)?;
            if !self.walked_by(turn.now.mono_us, partition_of(range.start, self.trees.bits()), peer, walk) {
                answers.push(Compared::Refused);
                continue;
            }
            let looked = match &theirs {
                RangeHashes::Parts(theirs) => self.compare_parts(turn, &range, of, theirs, &mut budget),
                RangeHashes::Objects(theirs) => self.compare_objects(turn, &range, of, theirs, &mut budget),
            };
            match looked.map_err(|fault| fault_code(turn, fault))? {
                Looked::Answer(answer) => answers.push(answer),
                Looked::Large if answers.is_empty() => {
                    if self.exchanges.serving.len() >= MAX_SERVING {
                        return Err(ErrorCode::Overloaded);
                    }
                    let (ticket, scan) = (self.scan_ticket(), RangeScan::new(range));
                    turn.effects.push(Effect::Scan(ticket, scan.job(None)));
                    let work = ServingWork::Compare(scan, theirs);
                    self.exchanges.serving.insert(ticket, Serving { served, work });
                    return Ok(None);
                }
                // To be asked for again.
                Looked::Large | Looked::Spent => break,
            }
            if budget.is_spent() {
                break;
            }
        }
        self.spend_reading(turn.now, budget.read());
        Ok(Some(answers))
    }

    fn compare_parts(
        &mut self,
        turn: &Turn<'_>,
        range: &HashRange,
        of: (u128, u8),
        theirs: &[u8],
        budget: &mut ReadBudget,
    ) -> Result<Looked, StoreFault> {
        Ok(match self.trees.look(turn.store, range, budget)? {
            Own::Spent => Looked::Spent,
            Own::Large => Looked::Large,
            own => Looked::Answer(parts_compared(range, own, of, theirs)),
        })
    }

    fn compare_objects(
        &mut self,
        turn: &Turn<'_>,
        range: &HashRange,
        of: (u128, u8),
        theirs: &[u8],
        budget: &mut ReadBudget,
    ) -> Result<Looked, StoreFault> {
        Ok(match self.trees.few_rows(turn.store, range, COMPARED_ROWS, budget)? {
            FewRows::Spent => Looked::Spent,
            FewRows::Large => Looked::Large,
            FewRows::Many => Looked::Answer(Compared::Many),
            FewRows::Rows(own) => Looked::Answer(objects_compared(range, &own, of, theirs)),
        })
    }

    /// The rows for a peer's question have been read.
    pub(super) fn serving_scanned(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: ScanTicket,
        scanned: Result<ScannedRows, StoreFault>,
    ) {
        let Some(serving) = self.exchanges.serving.remove(&ticket) else { return };
        let (range, except, reserved) = match serving.work {
            ServingWork::Wanted { range, except, reserved } => (range, except, reserved),
            ServingWork::Compare(scan, theirs) => {
                return self.compare_scanned(turn, ticket, (serving.served, scan, theirs), scanned);
            }
        };
        let Served { peer, of: (walk, number), width } = serving.served;
        let salt = salt_of(walk);
        self.exchanges.pacer.give_back(reserved);
        let answer = match scanned {
            // The layout may have changed meanwhile.
            Ok(found) => self.check_range(peer, range).and_then(|range| {
                let except = sorted(&except, width);
                let is_wanted = |(key, row): &(bytes::Bytes, bytes::Bytes)| {
                    let hash = self.config.causal_key.hash_row(key, row).0;
                    except.binary_search(&shorten(hash, salt, width)).is_err()
                };
                let (rows, unreadable) =
                    (found.rows.into_iter().filter(is_wanted).collect::<Vec<_>>(), found.unreadable);
                self.spend_moved(turn.now, rows.iter().map(|(_, row)| row.len()));
                let batch = self.batch(range.bucket, &rows).ok_or(ErrorCode::VersionConflict)?;
                let unreadable = !unreadable.is_empty() || batch.objects.len() < rows.len();
                Ok(Answer::Objects { batch, next: found.next, unreadable })
            }),
            Err(fault) => Err(fault_code(turn, fault)),
        };
        let body = ExchangeAnswer { walk, number, epoch: self.epoch(), answer };
        self.send(turn, peer, 0, PeerBody::ExchangeAnswer(body));
    }
}

/// What comes of looking at one range of a question.
enum Looked {
    Answer(Compared),
    /// More was read before on this turn than leaves room for it.
    Spent,
    /// It cannot be read on a turn.
    Large,
}

/// Compares all rows of a range, which were read off the turn.
pub(super) fn compared(scan: RangeScan, of: (u128, u8), theirs: &RangeHashes) -> Compared {
    let (range, has_more) = (scan.range, scan.has_more);
    let rows = scan.into_rows();
    match theirs {
        RangeHashes::Parts(_) if has_more => Compared::Unknown,
        RangeHashes::Parts(theirs) => parts_compared(&range, Own::of_rows(&range, rows), of, theirs),
        RangeHashes::Objects(_) if has_more || rows.len() > COMPARED_ROWS => Compared::Many,
        RangeHashes::Objects(theirs) => objects_compared(&range, &rows, of, theirs),
    }
}

fn parts_compared(range: &HashRange, own: Own, (salt, width): (u128, u8), theirs: &[u8]) -> Compared {
    let own = match own {
        Own::Unknown | Own::Spent | Own::Large => return Compared::Unknown,
        // With shortened hashes the sums of the parts say more, and take as many bytes.
        Own::Rows(rows) if is_short(width) && !rows.is_empty() => parts_of(range, &rows),
        Own::Rows(rows) => return Compared::Objects(shortened(rows.iter().map(OwnRow::hash), salt, width)),
        Own::Parts(own) => own,
    };
    let short = shortened(own.iter().map(|part| part.hash), salt, part_width(width));
    let part_bytes = usize::from(part_width(width));
    let differs = |at: &usize| {
        let part = at * part_bytes..(at + 1) * part_bytes;
        short.get(part.clone()) != theirs.get(part)
    };
    let parts: Vec<usize> = (0..BRANCHES).filter(differs).collect();
    let digests = parts.iter().filter(|_| is_short(width)).map(|at| own[*at].digest()).collect();
    Compared::Parts { differ: parts.iter().fold(0, |all, at| all | 1 << at), digests }
}

fn objects_compared(range: &HashRange, own: &[OwnRow], (salt, width): (u128, u8), theirs: &[u8]) -> Compared {
    let width = width.clamp(1, 16);
    let copy = |row: &OwnRow| (shorten(row.hash(), salt, width), row.place(range), row.sum.weights);
    let mut own: Vec<([u8; 16], u16, u64)> = own.iter().map(copy).collect();
    own.sort_unstable();
    let given = sorted(theirs, width);
    let mut lacking = alloc::vec![0_u8; (theirs.len() / usize::from(width)).div_ceil(8)];
    for (at, hash) in theirs.chunks_exact(usize::from(width)).enumerate() {
        let [hash] = sorted(hash, width)[..] else { continue };
        if own.binary_search_by_key(&hash, |(short, ..)| *short).is_err() {
            lacking[at / 8] |= 1 << (at % 8);
        }
    }
    let others = own.iter().filter(|(short, ..)| given.binary_search(short).is_err());
    let others = others.map(|(_, place, weight)| OtherCopy { place: *place, weight: *weight });
    Compared::Objections { lacking: lacking.into(), others: others.collect() }
}
