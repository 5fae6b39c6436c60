//! Objects that the sums of two nodes have named ([`lone`](crate::exchange::lone)), or the list of a range: what is
//! fetched, what is brought, and what is searched for all the same.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{Answer, Ask, Digest, HashRange, KeyName, ObjectBatch, partition_of, place_of};
use rejoin_proto::{BucketId, ErrorCode, Object, ObjectId, PartitionId, ReapEpoch, codec};

use super::Shard;
use super::event::Effect;
use super::serving::MAX_SERVING;
use super::turn::{Turn, fault_code};
use super::walking::Step;
use crate::exchange::lone::{Lone, NamedRows, lone};
use crate::exchange::own::{OwnRow, ReadBudget};
use crate::exchange::state::{Served, Serving, ServingWork};
use crate::exchange::walk::{Differs, NAMES_AT_ONCE, Waits, Walk, Want};
use crate::port::StoreFault;

impl Shard {
    /// Ranges of a walk differ: names what alone makes them differ, and leaves the others to be compared.
    pub(super) fn go_on_with(&mut self, turn: &mut Turn<'_>, walk: &mut Walk, differ: Vec<Differs>) -> Step {
        let mut budget = ReadBudget::default();
        for (range, own, theirs) in differ {
            if !walk.parts.contains_key(&walk.partition(&range)) {
                continue;
            }
            if !walk.is_short() {
                walk.compare_later([range]);
            } else if let Err(fault) = self.name_or_compare(turn, walk, (range, own, theirs), &mut budget) {
                fault_code(turn, fault);
                return Step::Failed;
            }
        }
        self.spend_reading(turn.now, budget.read());
        Step::Next
    }

    fn name_or_compare(
        &self,
        turn: &Turn<'_>,
        walk: &mut Walk,
        (range, own, theirs): Differs,
        budget: &mut ReadBudget,
    ) -> Result<(), StoreFault> {
        if let Some(lone) = lone(&range, &own, theirs)
            && let NamedRows::Rows(rows) = self.trees.named_rows(turn.store, &lone.name, budget)?
            && rows.len() <= 1
        {
            settle_lone(walk, range, &lone, rows.first().map(|(row, _)| row));
        } else if own.count == 0 {
            walk.pull(range, &[]);
        } else if theirs == Digest::default() {
            walk.push(range);
        } else {
            walk.compare_later([range]);
        }
        Ok(())
    }

    /// Asks for objects of one bucket by their names.
    pub(super) fn ask_named(&mut self, turn: &mut Turn<'_>, walk: &mut Walk, wants: Vec<Want>, last: bool) -> Step {
        let partitions: BTreeSet<PartitionId> = wants.iter().map(|want| walk.partition(&want.name)).collect();
        let (Some(want), Some(&first)) = (wants.first(), partitions.first()) else { return Step::Next };
        let has_one_bucket = walk.parts.get(&first).is_some_and(|part| part.has_one_bucket);
        let bucket = Some(want.name.bucket).filter(|_| !has_one_bucket || partitions.len() > 1);
        let names = wants.iter().map(|want| KeyName::of(&want.name)).collect();
        self.exchanges.pacer.spend(turn.now.mono_us, self.config.exchange.piece_bytes as u64);
        walk.waits = Waits::Named(wants, last);
        self.ask(turn, walk, Some(first), Ask::Named { bucket, names, last });
        Step::Waits
    }

    /// Takes objects that were asked for by their names, and looks whether they are what the names were taken from.
    pub(super) fn found(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        epoch: ReapEpoch,
        (mut wants, last): (Vec<Want>, bool),
        (batch, considered, unreadable): (ObjectBatch, usize, bool),
    ) -> Step {
        let is_of = |want: &Want| want.name.bucket == batch.bucket;
        // An answer that does not go on would be asked for for ever.
        if considered == 0 || !wants.first().is_some_and(is_of) {
            return Step::Failed;
        }
        let left = wants.split_off(considered.min(wants.len()));
        let Some(found) = self.places_of(&batch) else { return Step::Failed };
        if self.take_batch(turn, walk, epoch, batch).is_err() {
            return Step::Failed;
        }
        let is_last = last && left.is_empty() && !unreadable;
        for want in &wants {
            let mut named = found.iter().filter(|(prefix, _)| want.name.holds(*prefix));
            let is_right = match want.proof {
                Some((_, expected)) => named.any(|(_, hash)| *hash == expected),
                None => named.next().is_some(),
            };
            if unreadable {
                walk.fail_range(&want.name);
            }
            if !is_right {
                walk.was_misnamed(want);
            }
        }
        left.into_iter().for_each(|want| walk.want(want));
        if is_last && walk.is_done() && !walk.has_failed() { Step::Ended } else { Step::Next }
    }

    /// The prefix of the key hash of each object, and the trailing bits of its causal hash.
    fn places_of(&self, batch: &ObjectBatch) -> Option<Vec<(u64, u32)>> {
        let tenant = self.view.bucket(batch.bucket)?.tenant;
        let place = |(key, object): &(Bytes, Object)| {
            let store_key = ObjectId { tenant, bucket: batch.bucket, key: key.clone() }.store_key();
            let hash = self.config.causal_key.hash_row(&store_key, &codec::encode(object)).0;
            Some((place_of(&store_key)?.1, hash as u32))
        };
        batch.objects.iter().map(place).collect()
    }

    /// Answers a question for objects by their names. If the first one is too large to be read on the shard's turn, it
    /// is read off the turn, and the answer follows.
    pub(super) fn serve_named(
        &mut self,
        turn: &mut Turn<'_>,
        served: Served,
        partition: PartitionId,
        (bucket, names, last): (Option<BucketId>, Vec<KeyName>, bool),
    ) -> Result<Option<Answer>, ErrorCode> {
        let (peer, (walk, _), now_us) = (served.peer, served.of, turn.now.mono_us);
        let bucket = match (bucket, &self.shared_buckets(partition, peer)[..]) {
            (Some(bucket), _) | (None, &[(bucket, ..)]) => bucket,
            (None, _) => return Err(ErrorCode::VersionConflict),
        };
        let (mut rows, mut bytes, mut budget) = (Vec::new(), 0, ReadBudget::default());
        let (mut considered, mut unreadable, mut is_whole) = (0_u16, false, names.len() <= NAMES_AT_ONCE);
        for name in names.iter().take(NAMES_AT_ONCE) {
            let range = name.range(bucket).ok_or(ErrorCode::BadRequest)?;
            let range = self.check_range(peer, range)?;
            if !self.walked_by(now_us, partition_of(range.start, self.trees.bits()), peer, walk) {
                (considered, is_whole) = (considered + 1, false);
                continue;
            }
            let found = self.trees.named_rows(turn.store, &range, &mut budget);
            match found.map_err(|fault| fault_code(turn, fault))? {
                NamedRows::Rows(found) => {
                    bytes += found.iter().map(|(_, row)| row.len()).sum::<usize>();
                    rows.extend(found.into_iter().map(|(row, value)| (row.store_key, value)));
                }
                NamedRows::Unclear => unreadable = true,
                NamedRows::Large if considered == 0 => return self.serve_large(turn, served, range).map(|()| None),
                NamedRows::Large | NamedRows::Spent => break,
            }
            considered += 1;
            if bytes >= self.config.exchange.piece_bytes || budget.is_spent() {
                break;
            }
        }
        self.spend_moved(turn.now, rows.iter().map(|(_, row)| row.len()));
        let batch = self.batch(bucket, &rows).ok_or(ErrorCode::VersionConflict)?;
        unreadable |= batch.objects.len() < rows.len();
        if last && is_whole && usize::from(considered) == names.len() && !unreadable {
            self.walk_of_peer_ended(now_us, peer, walk, &[]);
        }
        Ok(Some(Answer::Found { batch, considered, unreadable }))
    }

    /// Reads the objects with a name off the turn.
    fn serve_large(&mut self, turn: &mut Turn<'_>, served: Served, range: HashRange) -> Result<(), ErrorCode> {
        if self.exchanges.serving.len() >= MAX_SERVING {
            return Err(ErrorCode::Overloaded);
        }
        let ticket = self.scan_ticket();
        let job = self.batch_scan(&range, &Bytes::new());
        let reserved = job.max_bytes as u64;
        self.exchanges.pacer.spend(turn.now.mono_us, reserved);
        let work = ServingWork::Wanted { range, except: Bytes::new(), reserved };
        self.exchanges.serving.insert(ticket, Serving { served, work });
        turn.effects.push(Effect::Scan(ticket, job));
        Ok(())
    }
}

/// What alone makes a range differ is fetched or brought, whichever weighs more. `own` is this node's copy.
fn settle_lone(walk: &mut Walk, range: HashRange, lone: &Lone, own: Option<&OwnRow>) {
    let (key, hash) = match own {
        Some(own) => (Some(own.store_key.clone()), own.sum.digest().hash),
        None => (None, 0),
    };
    let expected = lone.hash.wrapping_add(hash);
    let theirs_is_missing = own.is_some() && expected == 0;
    if !theirs_is_missing && (own.is_none() || walk.wants_it(0_i32.cmp(&lone.weight))) {
        walk.want(Want { name: lone.name, own: key.clone(), proof: Some((range, expected)) });
    }
    // What is fetched first need not be brought, if it is newer.
    walk.keys.extend(key);
}
