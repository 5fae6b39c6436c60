//! Answers to the questions of walks that peers have begun. Each is answered by itself: nothing is remembered of a walk
//! but a scan that its answer waits for.

use alloc::vec::Vec;

use rejoin_proto::exchange::{
    Answer, Ask, BRANCHES, Compared, ExchangeAnswer, ExchangeAsk, HashRange, OtherCopy, RangeHashes,
};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{ErrorCode, LayoutRef, NodeId, PartitionId};

use super::Shard;
use super::event::{Effect, ScanTicket, ScannedRows};
use super::exchange::READ_ROWS;
use super::turn::{Turn, fault_code};
use crate::exchange::own::{Own, OwnRow, leading, part_width, shorten, shortened, sorted};
use crate::exchange::state::Serving;
use crate::port::StoreFault;

/// The most questions of peers that wait for a scan.
const MAX_SERVING: usize = 16;
/// The most ranges of one question that are looked at.
const MAX_RANGES: usize = 256;
/// Where a peer has few objects in a range, and this node not more than so many, they are compared one by one.
const COMPARED_ROWS: u64 = 256;
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
        let ExchangeAsk { walk, number, partition, epoch, ask } = asked;
        let (layout, trace) = envelope;
        let answer = if layout != self.view.layout_name() || !self.is_own(partition) {
            // Rule: exchanges are of one layout.
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
                    let complete = self.is_complete(partition);
                    known.map(|sums| Answer::Buckets { complete, sums }).ok_or(ErrorCode::Overloaded)
                }
                Ask::Compare { salt, width, ranges } => self.compare(turn, (from, partition), (salt, width), ranges),
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
                            let serving = Serving { peer: from, of, range, salt, width, except, reserved };
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
                    let complete = self.is_complete(partition);
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
            match self.shared_root(partition, peer) {
                None => refused.push(partition),
                // Rule: whole roots are compared.
                Some(own) if own == theirs => self.exchanges.equal(turn.now.mono_us, partition, peer),
                Some(_) => partitions.push(partition),
            }
        }
        let considered_roots = roots.iter().take(usize::from(considered)).map(|(partition, _)| *partition);
        let incomplete = considered_roots.filter(|partition| !self.is_complete(*partition)).collect();
        Answer::Differ { considered, partitions, refused, incomplete }
    }

    /// A range of a peer's message, if it is one of the partition, and both own it.
    fn check_range(&self, peer: NodeId, partition: PartitionId, range: HashRange) -> Result<HashRange, ErrorCode> {
        let range = range.checked().filter(|range| range.partition(self.trees.bits()) == Some(partition));
        let range = range.ok_or(ErrorCode::BadRequest)?;
        let bucket = self.view.bucket(range.bucket).ok_or(ErrorCode::VersionConflict)?;
        let owners = self.view.owners(partition, bucket.props.n);
        if owners.contains(self.config.node) && owners.contains(peer) { Ok(range) } else { Err(ErrorCode::StaleLayout) }
    }

    fn compare(
        &mut self,
        turn: &mut Turn<'_>,
        (peer, partition): (NodeId, PartitionId),
        (salt, width): (u128, u8),
        ranges: Vec<(HashRange, RangeHashes)>,
    ) -> Result<Answer, ErrorCode> {
        let (mut answers, mut read) = (Vec::new(), 0);
        for (range, theirs) in ranges.into_iter().take(MAX_RANGES) {
            let range = self.check_range(peer, partition, range)?;
            let answer = match theirs {
                RangeHashes::Parts(theirs) => self.compare_parts(turn, &range, (salt, width), &theirs, &mut read),
                RangeHashes::Objects(theirs) => self.compare_objects(turn, &range, (salt, width), &theirs, &mut read),
            };
            answers.push(answer.map_err(|fault| fault_code(turn, fault))?);
            if read >= READ_ROWS {
                break;
            }
        }
        self.spend_reading(turn.now, read);
        Ok(Answer::Compared(answers))
    }

    fn compare_parts(
        &mut self,
        turn: &Turn<'_>,
        range: &HashRange,
        (salt, width): (u128, u8),
        theirs: &[u8],
        read: &mut usize,
    ) -> Result<Compared, StoreFault> {
        let part_bytes = usize::from(part_width(width));
        Ok(match self.trees.look(turn.store, range, read)? {
            Own::Unknown => Compared::Unknown,
            Own::Rows(rows) => Compared::Objects(shortened(rows.iter().map(|row| row.hash), salt, width)),
            Own::Parts(own) => {
                let own = shortened(own.iter().map(|part| part.hash), salt, part_width(width));
                let differs = |at: &usize| {
                    let part = at * part_bytes..(at + 1) * part_bytes;
                    own.get(part.clone()) != theirs.get(part)
                };
                Compared::Parts((0..BRANCHES).filter(differs).fold(0, |all, at| all | 1 << at))
            }
        })
    }

    fn compare_objects(
        &mut self,
        turn: &Turn<'_>,
        range: &HashRange,
        (salt, width): (u128, u8),
        theirs: &[u8],
        read: &mut usize,
    ) -> Result<Compared, StoreFault> {
        let width = width.clamp(1, 16);
        let Some(own) = self.trees.few_rows(turn.store, range, COMPARED_ROWS, read)? else { return Ok(Compared::Many) };
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
        Ok(Compared::Objections { lacking: lacking.into(), others: others.collect() })
    }

    /// The rows for a peer's question have been read.
    pub(super) fn serving_scanned(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: ScanTicket,
        scanned: Result<ScannedRows, StoreFault>,
    ) {
        let Some(serving) = self.exchanges.serving.remove(&ticket) else { return };
        let Serving { peer, of: (walk, number, partition), range, salt, width, except, reserved } = serving;
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
