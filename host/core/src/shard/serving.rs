//! Answers to the questions of walks that peers have begun. Each is answered by itself: nothing is remembered of a walk
//! but a scan that its answer waits for.

use alloc::vec::Vec;

use rejoin_proto::exchange::{
    Answer, Ask, BRANCHES, Compared, ExchangeAnswer, ExchangeAsk, HashRange, OtherCopy, RangeHashes, WalkId,
};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, LayoutRef, NodeId, PartitionId};

use super::Shard;
use super::event::{Effect, ScanTicket, ScannedRows};
use super::turn::{Turn, fault_code};
use crate::exchange::own::{
    FewRows, Own, OwnRow, RangeScan, ReadBudget, leading, part_width, shorten, shortened, sorted,
};
use crate::exchange::state::{Served, Serving, ServingWork};
use crate::port::StoreFault;

/// The most questions of peers that wait for a scan.
const MAX_SERVING: usize = 16;
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
        } else if !matches!(ask, Ask::Roots(_) | Ask::Ended) && !self.walked_by(turn.now.mono_us, partition, from) {
            Err(ErrorCode::Overloaded)
        } else {
            match ask {
                Ask::Roots(roots) => Ok(self.differing(turn, from, &roots)),
                Ask::Buckets => {
                    let shared = self.shared_buckets(partition, from).into_iter();
                    let known: Option<Vec<_>> = shared.map(|(id, version, sum)| Some((id, version, sum?))).collect();
                    let complete = self.gaps.is_complete(partition);
                    known.map(|sums| Answer::Buckets { complete, sums }).ok_or(ErrorCode::Overloaded)
                }
                Ask::Compare { salt, width, ranges } => {
                    let of = (from, (walk, number, partition));
                    match self.compare(turn, of, (salt, width), ranges) {
                        Ok(None) => return,
                        Ok(Some(answers)) => Ok(Answer::Compared(answers)),
                        Err(code) => Err(code),
                    }
                }
                Ask::Wanted { range, from: key, salt, width, except, max_bytes } => {
                    match self.check_range(from, partition, range) {
                        Ok(range) if except.len() <= MAX_EXCEPT_BYTES && self.exchanges.serving.len() < MAX_SERVING => {
                            let ticket = self.scan_ticket();
                            let mut job = self.batch_scan(&range, &key);
                            job.from = job.from.max(range.from());
                            job.max_bytes = job.max_bytes.min(max_bytes as usize);
                            let reserved = job.max_bytes as u64;
                            self.exchanges.pacer.spend(turn.now.mono_us, reserved);
                            let of = (walk, number, partition);
                            let work = ServingWork::Wanted { range, except, reserved };
                            let served = Served { peer: from, of, salt, width };
                            let serving = Serving { served, work };
                            self.exchanges.serving.insert(ticket, serving);
                            turn.effects.push(Effect::Scan(ticket, job));
                            return;
                        }
                        Ok(_) => Err(ErrorCode::Overloaded),
                        Err(code) => Err(code),
                    }
                }
                Ask::Objects(batch) => {
                    let sent = batch.objects.len();
                    let absorbed = self.absorb_batch(turn, partition, epoch, batch);
                    absorbed.map(|same| Answer::Taken { same: same.len() == sent })
                }
                Ask::Ended => {
                    self.exchanges.walked.remove(&(partition, from));
                    let complete = self.gaps.is_complete(partition);
                    self.exchanges.walked_with(turn.now.mono_us, partition, from, complete);
                    self.exchange_soon();
                    return;
                }
            }
        };
        let body = ExchangeAnswer { walk, number, epoch: self.epoch(), answer };
        self.send(turn, from, trace, PeerBody::ExchangeAnswer(body));
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
            match is_shared.then(|| self.shared_root(partition, peer)).flatten() {
                None => refused.push(partition),
                // Rule: whole roots are compared.
                Some(own) if own == theirs => self.exchanges.equal(turn.now.mono_us, partition, peer),
                Some(_) => partitions.push(partition),
            }
        }
        let considered_roots = roots.iter().take(usize::from(considered)).map(|(partition, _)| *partition);
        let incomplete = considered_roots.filter(|partition| !self.gaps.is_complete(*partition)).collect();
        Answer::Differ { considered, partitions, refused, incomplete }
    }

    /// A range of a peer's message, if it is one of the partition, and both own it.
    pub(super) fn check_range(
        &self,
        peer: NodeId,
        partition: PartitionId,
        range: HashRange,
    ) -> Result<HashRange, ErrorCode> {
        let range = range.checked().filter(|range| range.partition(self.trees.bits()) == Some(partition));
        let range = range.ok_or(ErrorCode::BadRequest)?;
        let bucket = self.view.bucket(range.bucket).ok_or(ErrorCode::VersionConflict)?;
        let owners = self.view.owners(partition, bucket.props.n);
        if owners.contains(self.config.node) && owners.contains(peer) { Ok(range) } else { Err(ErrorCode::StaleLayout) }
    }

    /// Compares ranges, as many as may be read on one turn. If the first one is too large for that, it is read off the
    /// turn, and the answer follows.
    fn compare(
        &mut self,
        turn: &mut Turn<'_>,
        (peer, of): (NodeId, (WalkId, u64, PartitionId)),
        (salt, width): (u128, u8),
        ranges: Vec<(HashRange, RangeHashes)>,
    ) -> Result<Option<Vec<Compared>>, ErrorCode> {
        let (mut answers, mut budget) = (Vec::new(), ReadBudget::default());
        for (range, theirs) in ranges.into_iter().take(MAX_RANGES) {
            let range = self.check_range(peer, of.2, range)?;
            let looked = match &theirs {
                RangeHashes::Parts(theirs) => self.compare_parts(turn, &range, (salt, width), theirs, &mut budget),
                RangeHashes::Objects(theirs) => self.compare_objects(turn, &range, (salt, width), theirs, &mut budget),
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
                    let served = Served { peer, of, salt, width };
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
            own => Looked::Answer(parts_compared(own, of, theirs)),
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
        let Served { peer, of: (walk, number, partition), salt, width } = serving.served;
        self.exchanges.pacer.give_back(reserved);
        let answer = match scanned {
            // The layout may have changed meanwhile.
            Ok(found) => self.check_range(peer, partition, range).and_then(|range| {
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
        RangeHashes::Parts(theirs) => parts_compared(Own::of_rows(&range, rows), of, theirs),
        RangeHashes::Objects(_) if has_more || rows.len() > COMPARED_ROWS => Compared::Many,
        RangeHashes::Objects(theirs) => objects_compared(&range, &rows, of, theirs),
    }
}

fn parts_compared(own: Own, (salt, width): (u128, u8), theirs: &[u8]) -> Compared {
    let part_bytes = usize::from(part_width(width));
    match own {
        Own::Unknown | Own::Spent | Own::Large => Compared::Unknown,
        Own::Rows(rows) => Compared::Objects(shortened(rows.iter().map(|row| row.hash), salt, width)),
        Own::Parts(own) => {
            let own = shortened(own.iter().map(|part| part.hash), salt, part_width(width));
            let differs = |at: &usize| {
                let part = at * part_bytes..(at + 1) * part_bytes;
                own.get(part.clone()) != theirs.get(part)
            };
            Compared::Parts((0..BRANCHES).filter(differs).fold(0, |all, at| all | 1 << at))
        }
    }
}

fn objects_compared(range: &HashRange, own: &[OwnRow], (salt, width): (u128, u8), theirs: &[u8]) -> Compared {
    let width = width.clamp(1, 16);
    let copy = |row: &OwnRow| (shorten(row.hash, salt, width), row.place(range), row.weight);
    let mut own: Vec<([u8; 16], u32, u64)> = own.iter().map(copy).collect();
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
    let others =
        others.map(|(short, place, weight)| OtherCopy { place: *place, hash: leading(short), weight: *weight });
    Compared::Objections { lacking: lacking.into(), others: others.collect() }
}
