//! The steps of the walks that this shard has begun. What is done about objects that have names is in
//! [`naming`](super::naming).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{
    Answer, Ask, Compared, ExchangeAsk, HashRange, ObjectBatch, PartitionBuckets, Sum, WalkId, place_of,
};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{BucketId, ErrorCode, NodeId, Object, ObjectId, PartitionId, ReapEpoch, codec};

use super::Shard;
use super::event::{Effect, ScanJob, ScanTicket, ScannedRows};
use super::exchange::{ANSWER_US, KEY_AT};
use super::turn::{Turn, fault_code};
use crate::exchange::own::{Own, ReadBudget};
use crate::exchange::pace::OBJECT_BYTES;
use crate::exchange::state::ToWalk;
use crate::exchange::walk::{Differs, Pull, Push, Waits, Walk, WalkCounts};
use crate::port::{Space, StoreFault};

/// What follows a step of a walk.
pub(super) enum Step {
    /// Its next question.
    Next,
    /// It waits for an answer, for rows, or until it may send.
    Waits,
    /// It has ended well, but for the partitions that failed.
    Ended,
    Failed,
    /// Another time.
    PutOff,
}

impl Shard {
    /// Runs a step of a walk.
    pub(super) fn with_walk(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        step: impl FnOnce(&mut Self, &mut Turn<'_>, &mut Walk) -> Step,
    ) {
        let Some(mut walk) = self.exchanges.walks.remove(&number) else { return };
        let now_us = turn.now.mono_us;
        let mut next = step(self, turn, &mut walk);
        while matches!(next, Step::Next) {
            next = self.next_step(turn, &mut walk);
        }
        match next {
            Step::Waits | Step::Next => drop(self.exchanges.walks.insert(number, walk)),
            Step::Ended => {
                self.walk_ended(&walk, true, now_us);
                for (&partition, part) in walk.parts.iter().filter(|(_, part)| !part.failed) {
                    self.gain_met(partition, walk.peer, walk.id.number);
                    self.gap_met(turn, partition, walk.peer, part.peer_is_complete, walk.begun_us);
                }
            }
            Step::Failed => self.walk_ended(&walk, false, now_us),
            Step::PutOff => {
                let partitions: Vec<PartitionId> = walk.parts.keys().copied().collect();
                partitions.into_iter().for_each(|partition| self.put_off(&mut walk, partition, now_us));
            }
        }
        self.exchange_soon();
    }

    /// Where a walk begins: with what the peer has told of each partition, or with the sums of its buckets.
    pub(super) fn first_step(&mut self, turn: &mut Turn<'_>, walk: &mut Walk, partitions: &[ToWalk]) -> Step {
        let mut differ = Vec::new();
        for to_walk in partitions {
            let (told, bits) = (&to_walk.told, self.trees.bits());
            let own = self.shared_buckets(told.partition, walk.peer);
            match own[..] {
                [(bucket, _, Some(sum))] if walk.is_short() && told.buckets <= 1 => {
                    if let Some(part) = walk.parts.get_mut(&told.partition) {
                        part.has_one_bucket = true;
                    }
                    differ.push((HashRange::of_partition(bucket, told.partition, bits), sum, told.digest));
                }
                _ => walk.unopened.push(told.partition),
            }
        }
        self.go_on_with(turn, walk, differ)
    }

    /// The next question of a walk, or its end.
    pub(super) fn next_step(&mut self, turn: &mut Turn<'_>, walk: &mut Walk) -> Step {
        walk.waits = Waits::Nothing;
        if !walk.unopened.is_empty() {
            let partitions = core::mem::take(&mut walk.unopened);
            walk.deadline_us = turn.now.mono_us + ANSWER_US;
            walk.waits = Waits::Buckets(partitions.clone());
            let first = partitions.first().copied();
            self.ask(turn, walk, first, Ask::Buckets(partitions));
            return Step::Waits;
        }
        walk.not_before_us = self.may_work_at(turn.now);
        walk.deadline_us = walk.not_before_us + ANSWER_US;
        if walk.not_before_us > turn.now.mono_us {
            return Step::Waits;
        }
        if let Some(pull) = walk.pulls.pop_front() {
            let (range, from, except) = (pull.range, pull.from.clone(), pull.except.clone());
            walk.waits = Waits::Wanted(pull);
            let piece_bytes = self.config.exchange.piece_bytes;
            self.exchanges.pacer.spend(turn.now.mono_us, piece_bytes as u64);
            let (width, max_bytes) = (walk.width, u32::try_from(piece_bytes).unwrap_or(u32::MAX));
            let partition = walk.partition(&range);
            self.ask(turn, walk, Some(partition), Ask::Wanted { range, from, width, except, max_bytes });
            return Step::Waits;
        }
        if !walk.gathers() {
            // What both have is fetched first: often the join is what the peer has, and need not be brought.
            let (wants, last) = walk.next_wants();
            if !wants.is_empty() {
                return self.ask_named(turn, walk, wants, last);
            }
            if !walk.keys.is_empty() {
                return self.bring_keys(turn, walk);
            }
        }
        if let Some(push) = walk.pushes.pop_front() {
            let ticket = self.scan_ticket();
            let job = self.batch_scan(&push.range, &push.from);
            walk.waits = Waits::Scan(ticket, push);
            turn.effects.push(Effect::Scan(ticket, job));
            return Step::Waits;
        }
        self.compare_next(turn, walk)
    }

    fn compare_next(&mut self, turn: &mut Turn<'_>, walk: &mut Walk) -> Step {
        let (mut asked, mut ranges, mut budget) = (Vec::new(), Vec::new(), ReadBudget::default());
        let mut todo = walk.next_ranges().into_iter();
        for range in todo.by_ref() {
            let own = match self.trees.look(turn.store, &range, &mut budget) {
                Ok(own) => own,
                Err(fault) => {
                    fault_code(turn, fault);
                    return Step::Failed;
                }
            };
            match (walk.hashes_of(&own), own) {
                (Some(hashes), own) => {
                    ranges.push((range, hashes));
                    asked.push((range, own));
                }
                (None, Own::Large) if ranges.is_empty() => {
                    walk.compare_later(todo);
                    return self.look_off_turn(turn, walk, range);
                }
                (None, Own::Large | Own::Spent) => {
                    walk.compare_later([range]);
                    break;
                }
                (None, _) => walk.fail_range(&range),
            }
            if budget.is_spent() {
                break;
            }
        }
        walk.compare_later(todo);
        self.spend_reading(turn.now, budget.read());
        if !ranges.is_empty() {
            return self.ask_compare(turn, walk, asked, ranges);
        }
        if !walk.is_done() {
            return Step::Next;
        }
        let failed: Vec<PartitionId> =
            walk.parts.iter().filter(|(_, part)| part.failed).map(|(partition, _)| *partition).collect();
        if walk.parts.is_empty() {
            return Step::PutOff;
        }
        let first = walk.parts.keys().next().copied();
        self.ask(turn, walk, first, Ask::Ended { failed });
        Step::Ended
    }

    /// An answer that a walk has waited for.
    pub(super) fn walk_answered(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        epoch: ReapEpoch,
        answer: Answer,
    ) -> Step {
        match (core::mem::replace(&mut walk.waits, Waits::Nothing), answer) {
            (Waits::Buckets(partitions), Answer::Buckets(answers)) if answers.len() == partitions.len() => {
                let mut differ = Vec::new();
                for (partition, answer) in partitions.into_iter().zip(answers) {
                    match answer {
                        Some(theirs) => differ.extend(self.buckets_told(walk, partition, &theirs)),
                        None => self.put_off(walk, partition, turn.now.mono_us),
                    }
                }
                self.go_on_with(turn, walk, differ)
            }
            (Waits::Compare(asked), Answer::Compared(answers)) if !answers.is_empty() => {
                let (mut answers, mut differ, mut refused) = (answers.into_iter(), Vec::new(), BTreeSet::new());
                for (range, own) in asked {
                    match answers.next() {
                        Some(Compared::Refused) => drop(refused.insert(walk.partition(&range))),
                        Some(answer) => differ.extend(walk.compared(range, own, answer)),
                        None => walk.compare_later([range]),
                    }
                }
                refused.into_iter().for_each(|partition| self.put_off(walk, partition, turn.now.mono_us));
                self.go_on_with(turn, walk, differ)
            }
            (Waits::Wanted(pull), Answer::Objects { batch, next, unreadable }) => {
                if unreadable {
                    walk.fail_range(&pull.range);
                }
                self.take(turn, walk, epoch, pull, (batch, next))
            }
            (Waits::Named(wants, last), Answer::Found { batch, considered, unreadable }) => {
                self.found(turn, walk, epoch, (wants, last), (batch, considered.into(), unreadable))
            }
            // The first one had to be read off the peer's turn.
            (Waits::Named(wants, _), Answer::Objects { batch, next: _, unreadable }) => {
                self.found(turn, walk, epoch, (wants, false), (batch, 1, unreadable))
            }
            (Waits::Taken(partitions, last), Answer::Taken { same }) => {
                // What differs still is for the next walk, soon. A gap may end all the same: its walks fetch first.
                if !same && walk.is_short() {
                    partitions.into_iter().for_each(|partition| walk.fail(partition));
                }
                if last && same { Step::Ended } else { Step::Next }
            }
            // No answer to what was asked.
            _ => Step::Failed,
        }
    }

    /// The peer has told the sums of a partition's buckets. Returns the ranges that differ.
    fn buckets_told(&self, walk: &mut Walk, partition: PartitionId, theirs: &PartitionBuckets) -> Vec<Differs> {
        let mut own = self.shared_buckets(partition, walk.peer);
        for (id, ..) in &theirs.sums {
            // One of which this node has no object.
            let known = self.view.bucket(*id).filter(|_| !own.iter().any(|(known, ..)| known == id));
            if let Some(bucket) = known.filter(|bucket| self.shares_bucket(partition, walk.peer, bucket)) {
                own.push((*id, bucket.version, Some(Sum::default())));
            }
        }
        walk.compare_buckets(partition, &own, theirs)
    }

    /// Absorbs objects that the peer has sent, and goes on with the range.
    fn take(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        epoch: ReapEpoch,
        pull: Pull,
        (batch, next): (ObjectBatch, Option<Bytes>),
    ) -> Step {
        if batch.bucket != pull.range.bucket || self.take_batch(turn, walk, epoch, batch).is_err() {
            return Step::Failed;
        }
        match next {
            None => Step::Next,
            // An answer that does not go on would be asked for for ever.
            Some(next) if next > pull.from && next > pull.range.from() => {
                walk.pulls.push_front(Pull { from: next, ..pull });
                Step::Next
            }
            Some(_) => Step::Failed,
        }
    }

    /// Absorbs objects that the peer has sent. Those that are here now as the peer has them need not be brought.
    pub(super) fn take_batch(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        epoch: ReapEpoch,
        batch: ObjectBatch,
    ) -> Result<(), ErrorCode> {
        let bucket = self.view.bucket(batch.bucket).ok_or(ErrorCode::VersionConflict)?;
        let tenant = bucket.tenant;
        for (key, object) in &batch.objects {
            let id = ObjectId { tenant, bucket: batch.bucket, key: key.clone() };
            let received_bytes = (key.len() + crate::causal::value_bytes(object)) as u64;
            let counts = WalkCounts { received: 1, received_bytes, ..WalkCounts::default() };
            walk.count(self.view.layout().partition(&id), &counts);
        }
        self.exchanges.pacer.give_back(self.config.exchange.piece_bytes as u64);
        for same in self.absorb_batch(turn, epoch, batch)? {
            walk.keys.remove(&same);
        }
        Ok(())
    }

    /// Absorbs a peer's objects. All must be of partitions of this shard, and of a bucket of which this node is an
    /// owner there. Returns the keys in the store of those that are here now as the peer has them.
    pub(super) fn absorb_batch(
        &mut self,
        turn: &mut Turn<'_>,
        epoch: ReapEpoch,
        batch: ObjectBatch,
    ) -> Result<Vec<Bytes>, ErrorCode> {
        let Some(bucket) = self.view.bucket(batch.bucket).cloned() else { return Err(ErrorCode::VersionConflict) };
        // Rule: batches name their version.
        if bucket.version != batch.bucket_version {
            return Err(ErrorCode::VersionConflict);
        }
        let sizes = batch.objects.iter().map(|(key, object)| key.len() + crate::causal::value_bytes(object));
        self.spend_moved(turn.now, sizes);
        let (mut same, mut checked) = (Vec::new(), None);
        for (key, object) in batch.objects {
            let id = ObjectId { tenant: bucket.tenant, bucket: bucket.id, key };
            let partition = self.view.layout().partition(&id);
            if checked != Some(partition) {
                let owners = self.view.owners_of(partition, &bucket);
                if !self.is_own(partition) || !owners.contains(self.config.node) {
                    return Err(ErrorCode::StaleLayout);
                }
                checked = Some(partition);
            }
            self.gaps.took(partition, 1, (id.key.len() + crate::causal::value_bytes(&object)) as u64);
            let copy = self.absorb(turn, &id, epoch, &object)?;
            if copy.object == object {
                same.push(id.store_key().into());
            } else {
                self.fold_exchanged(turn, &bucket, &id, &copy.object);
            }
        }
        Ok(same)
    }

    /// Brings single objects that the peer lacks.
    fn bring_keys(&mut self, turn: &mut Turn<'_>, walk: &mut Walk) -> Step {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut of: Option<BucketId> = None;
        while bytes < self.config.exchange.piece_bytes
            && rows.len() < self.piece_rows()
            && let Some(key) = walk.keys.first()
        {
            let Some((bucket, _)) = place_of(key) else { return Step::Failed };
            if *of.get_or_insert(bucket) != bucket {
                break;
            }
            match turn.store.get(Space::Objects, key) {
                Ok(Some(row)) => {
                    bytes += row.len();
                    rows.push((key.clone(), row));
                }
                Ok(None) => {}
                Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => walk.fail(walk.partition_of(key)),
                Err(fault) => {
                    fault_code(turn, fault);
                    return Step::Failed;
                }
            }
            walk.keys.pop_first();
        }
        self.bring(turn, walk, of, &rows)
    }

    /// The rows of a range that is to be brought.
    pub(super) fn walk_scanned(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: ScanTicket,
        scanned: Result<ScannedRows, StoreFault>,
    ) {
        let waits = |(_, walk): &(&u64, &Walk)| walk.awaits_scan(ticket);
        let Some(number) = self.exchanges.walks.iter().find(waits).map(|(number, _)| *number) else { return };
        self.with_walk(turn, number, |shard, turn, walk| {
            let Ok(found) = scanned else { return Step::Failed };
            let mut push = match core::mem::replace(&mut walk.waits, Waits::Nothing) {
                Waits::Scan(_, push) => push,
                Waits::Look(ticket, scan) => return shard.looked(turn, walk, (ticket, scan), found),
                _ => return Step::Failed,
            };
            if !found.unreadable.is_empty() {
                // What cannot be read here the peer may have or not.
                walk.fail_range(&push.range);
            }
            let hash = |(key, row): (Bytes, Bytes)| {
                let hash = shard.config.causal_key.hash_row(&key, &row).0;
                (key, row, hash)
            };
            let rows = found.rows.into_iter().map(hash).collect();
            let lacking = walk.lacking(&mut push, rows);
            let bucket = push.range.bucket;
            match found.next {
                Some(next) => walk.pushes.push_front(Push { from: next, ..push }),
                None => walk.pushed(&push),
            }
            shard.bring(turn, walk, Some(bucket), &lacking)
        });
    }

    /// A scan for the objects of one message.
    pub(super) fn batch_scan(&self, range: &HashRange, from: &Bytes) -> ScanJob {
        let from = if from.is_empty() { range.from() } else { from.clone() };
        ScanJob { from, to: range.to(), max_rows: self.piece_rows(), max_bytes: self.config.exchange.piece_bytes }
    }

    /// The most rows that are looked at for one message.
    fn piece_rows(&self) -> usize {
        (self.config.exchange.piece_bytes / OBJECT_BYTES as usize).max(1)
    }

    /// Sends rows of one bucket to the peer.
    fn bring(
        &mut self,
        turn: &mut Turn<'_>,
        walk: &mut Walk,
        bucket: Option<BucketId>,
        rows: &[(Bytes, Bytes)],
    ) -> Step {
        let Some(bucket) = bucket.filter(|_| !rows.is_empty()) else { return Step::Next };
        let Some(batch) = self.batch(bucket, rows) else { return Step::Failed };
        let partitions: BTreeSet<PartitionId> = rows.iter().map(|(key, _)| walk.partition_of(key)).collect();
        for (key, row) in rows {
            let counts = WalkCounts { sent: 1, sent_bytes: row.len() as u64, ..WalkCounts::default() };
            walk.count(walk.partition_of(key), &counts);
        }
        if batch.objects.len() < rows.len() {
            partitions.iter().for_each(|partition| walk.fail(*partition));
        }
        self.spend_moved(turn.now, rows.iter().map(|(_, row)| row.len()));
        let last = walk.is_done() && !walk.has_failed();
        let first = rows.first().map(|(key, _)| walk.partition_of(key));
        walk.waits = Waits::Taken(partitions, last);
        self.ask(turn, walk, first, Ask::Objects { batch, last });
        Step::Waits
    }

    /// Rows as a message has them; `None` if the bucket is not known. Rows that cannot be decoded are left out.
    pub(super) fn batch(&self, bucket: BucketId, rows: &[(Bytes, Bytes)]) -> Option<ObjectBatch> {
        let bucket_version = self.view.bucket(bucket)?.version;
        let decoded = |(key, row): &(Bytes, Bytes)| {
            let object: Object = codec::decode(row).ok()?;
            Some((key.slice(KEY_AT.min(key.len())..), object))
        };
        Some(ObjectBatch { bucket, bucket_version, objects: rows.iter().filter_map(decoded).collect() })
    }

    /// Asks a question, which begins with something of that partition.
    pub(super) fn ask(&self, turn: &mut Turn<'_>, walk: &mut Walk, partition: Option<PartitionId>, ask: Ask) {
        walk.number += 1;
        self.send_ask(turn, walk.peer, (walk.id, walk.number, partition.unwrap_or(PartitionId(0))), ask);
    }

    /// Sends a question of a walk by its number in that, which begins with something of that partition.
    pub(super) fn send_ask(
        &self,
        turn: &mut Turn<'_>,
        to: NodeId,
        (walk, number, partition): (WalkId, u64, PartitionId),
        ask: Ask,
    ) {
        let partition_bits = self.view.partition_bits();
        let asked = ExchangeAsk { walk, number, partition_bits, partition, epoch: self.epoch(), ask };
        self.send(turn, to, 0, PeerBody::ExchangeAsk(asked));
    }
}
