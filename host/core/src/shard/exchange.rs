//! The shard's side of exchanges that it begins: which partitions are compared with whom and when, and the steps of the
//! walks. What it answers to others is [`serving`](super::serving).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use rand_core::Rng;

use rejoin_proto::exchange::{Answer, Ask, ExchangeAnswer, ExchangeAsk, HashRange, ObjectBatch, Sum, WalkId, place_of};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{BucketId, ErrorCode, NodeId, Object, ObjectId, PartitionId, ReapEpoch, codec};

use super::Shard;
use super::event::{Effect, ScanJob, ScanTicket, ScannedRows};
use super::turn::{Turn, fault_code};
use crate::exchange::own::{Own, ReadBudget};
use crate::exchange::pace::OBJECT_BYTES;
use crate::exchange::state::{AGAIN_US, AskedRoots, ExchangeCommand, ExchangeStatus, Rounds};
use crate::exchange::walk::{Pull, Push, Waits, Walk};
use crate::port::{Space, StoreFault};
use crate::view::shard_of;

/// The most roots of one question.
const MAX_ROOTS: usize = 1024;
/// How long an answer is waited for, in microseconds.
pub(super) const ANSWER_US: u64 = 5_000_000;

impl Shard {
    /// When the next step of an exchange is due.
    pub(super) fn next_exchange_us(&self) -> u64 {
        if self.serving { self.exchanges.next_us } else { u64::MAX }
    }

    /// Begins what is due: walks, comparisons of roots, and next steps of walks that had to wait.
    pub(super) fn exchange(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now.mono_us;
        if now_us < self.next_exchange_us() {
            return;
        }
        self.end_late(now_us);
        self.answer_waiting(turn);
        let ready: Vec<u64> =
            self.exchanges.walks.iter().filter(|(_, walk)| walk.is_ready(now_us)).map(|(n, _)| *n).collect();
        for number in ready {
            self.with_walk(turn, number, Self::next_step);
        }
        if !self.begins_none() {
            self.begin_walks(turn);
            self.begin_rounds(turn);
        }
        let (held, free) = (self.next_held_us(turn.now), self.exchanges.next_free_us(now_us));
        let walks = self.exchanges.walks.values().map(Walk::wakes_us);
        let paused = self.begins_none();
        let rounds = self.exchanges.peers.values().filter_map(|rounds| match &rounds.asked {
            Some(asked) => Some(asked.deadline_us),
            // The next walk begins when one has ended.
            None if paused || !rounds.differing.is_empty() => None,
            None => Some(rounds.next_us),
        });
        self.exchanges.next_us = walks.chain(rounds).chain(held).chain(free).min().unwrap_or(u64::MAX).max(now_us + 1);
    }

    /// Whether no walks are begun, and no roots compared.
    fn begins_none(&self) -> bool {
        self.exchanges.paused || self.config.exchange.max_walks == 0
    }

    /// Something has happened that may make a step due.
    pub(super) fn exchange_soon(&mut self) {
        self.exchanges.next_us = 0;
    }

    /// What an operator wants of the exchanges.
    pub(super) fn command_exchange(&mut self, command: ExchangeCommand) {
        self.exchanges.paused = command == ExchangeCommand::Pause;
        if command == ExchangeCommand::Start {
            self.exchanges.pairs.values_mut().for_each(|pair| pair.equal_us = None);
            self.exchanges.peers.values_mut().for_each(|rounds| rounds.next_us = 0);
        }
        self.exchange_soon();
    }

    /// What is known of the exchanges of this shard.
    #[must_use]
    pub fn exchange_status(&self) -> ExchangeStatus {
        let (leaves, unknown_leaves) = self.trees.size();
        let pairs = self.exchanges.pairs.iter();
        ExchangeStatus {
            paused: self.exchanges.paused,
            incomplete: self.gaps.partitions().collect(),
            rebuild: self.gaps.progress(),
            pairs: pairs.map(|(&(partition, peer), &status)| (partition, peer, status)).collect(),
            leaves,
            unknown_leaves,
            corrected_leaves: self.trees.corrected(),
        }
    }

    /// A peer is connected: it may have missed something, and this node too.
    pub(super) fn exchange_with(&mut self, peer: NodeId, now_us: u64) {
        let rounds = self.exchanges.peers.entry(peer).or_default();
        // One of the two begins.
        let later_us = if self.config.node < peer { 0 } else { AGAIN_US };
        (rounds.next_us, rounds.asked) = (now_us + later_us, None);
        self.exchanges.pairs.iter_mut().filter(|((_, of), _)| *of == peer).for_each(|(_, pair)| pair.equal_us = None);
        self.exchange_soon();
    }

    /// A peer is gone, and with it its answers.
    pub(super) fn exchange_lost(&mut self, peer: NodeId) {
        self.exchanges.peers.remove(&peer);
        let gone: Vec<u64> =
            self.exchanges.walks.iter().filter(|(_, walk)| walk.peer == peer).map(|(number, _)| *number).collect();
        for number in gone {
            if let Some(walk) = self.exchanges.walks.remove(&number) {
                self.walk_ended(&walk, false, 0);
            }
        }
        self.exchanges.serving.retain(|_, serving| serving.served.peer != peer);
        self.exchanges.held.retain(|held| held.peer != peer);
        self.exchanges.walked.retain(|(_, of), _| *of != peer);
    }

    /// What is under way is void: it was about another layout.
    pub(super) fn end_exchanges(&mut self, now_us: u64) {
        for walk in core::mem::take(&mut self.exchanges.walks).into_values() {
            self.walk_ended(&walk, false, now_us);
        }
        self.exchanges.peers.values_mut().for_each(|rounds| {
            (rounds.asked, rounds.next_us) = (None, now_us);
            rounds.differing.clear();
        });
        self.exchanges.serving.clear();
        self.exchange_soon();
    }

    /// Compares roots with all peers as soon as that may come to something.
    pub(super) fn exchange_all_soon(&mut self) {
        if !self.gaps.gains.are_closed() {
            self.exchanges.peers.values_mut().for_each(|rounds| rounds.next_us = 0);
            self.exchange_soon();
        }
    }

    /// A question could not be sent.
    pub(super) fn exchange_not_sent(&mut self, turn: &Turn<'_>, asked: &ExchangeAsk) {
        if let Some(walk) = self.exchanges.walks.remove(&asked.walk.number) {
            self.walk_ended(&walk, false, turn.now.mono_us);
        }
        for rounds in self.exchanges.peers.values_mut() {
            if rounds.asked.take_if(|roots| roots.walk == asked.walk).is_some() {
                rounds.next_us = turn.now.mono_us + AGAIN_US;
            }
        }
        self.exchange_soon();
    }

    /// A peer walks a partition with this node: nothing is begun about it from here meanwhile. If both have begun, the
    /// walk of the node with the lower id goes on. Returns whether the peer's does.
    ///
    /// A partition that is walked with one peer is not walked with another one: both would bring the same objects. The
    /// other one is put off, and compares roots again. A walk that has found its peer is not given up for another.
    pub(super) fn walked_by(&mut self, now_us: u64, partition: PartitionId, peer: NodeId) -> bool {
        // Rule: one walk at a time.
        if self.exchanges.is_walked_by(partition, now_us, |other| other != peer) {
            return false;
        }
        let own = self.exchanges.walks.iter().find(|(_, walk)| walk.partition == partition);
        if let Some((&number, walk)) = own {
            let has_found_another = walk.peer != peer && !matches!(walk.waits, Waits::Buckets);
            if self.config.node < peer || has_found_another {
                return false;
            }
            if let Some(walk) = self.exchanges.walks.remove(&number) {
                self.walk_ended(&walk, false, now_us);
            }
        }
        if let Some(rounds) = self.exchanges.peers.get_mut(&peer) {
            rounds.differing.retain(|differing| *differing != partition);
        }
        self.exchanges.walked.insert((partition, peer), now_us + ANSWER_US);
        true
    }

    /// Drops walks and rounds whose peers do not answer.
    fn end_late(&mut self, now_us: u64) {
        let late: Vec<u64> = self
            .exchanges
            .walks
            .iter()
            .filter(|(_, walk)| walk.deadline_us <= now_us)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            if let Some(walk) = self.exchanges.walks.remove(&number) {
                self.walk_ended(&walk, false, now_us);
            }
        }
        for rounds in self.exchanges.peers.values_mut() {
            if rounds.asked.take_if(|asked| asked.deadline_us <= now_us).is_some() {
                rounds.next_us = now_us + AGAIN_US;
            }
        }
    }

    /// Begins walks of partitions that differ.
    fn begin_walks(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now.mono_us;
        let peers: Vec<NodeId> = self.exchanges.peers.keys().copied().collect();
        for peer in peers {
            while self.connections.can_ask(peer)
                && self.exchanges.walks.len() < self.exchanges.config.max_walks
                && let Some(partition) = self.exchanges.next_differing(peer, now_us)
            {
                let id = self.exchanges.name(self.config.shard);
                // 64 bits are enough to move every bit of a hash, and take fewer bytes.
                let salt = u128::from(self.rng.next_u64());
                // Rule: gaps are walked in full. A difference that short sums hide would be taken for none.
                let mut walk = Walk::new(id, peer, partition, salt, !self.has_all(partition));
                walk.begun_us = now_us;
                walk.deadline_us = now_us + ANSWER_US;
                walk.waits = Waits::Buckets;
                self.exchanges.pair(partition, peer).walking = true;
                self.ask(turn, &mut walk, Ask::Buckets);
                self.exchanges.walks.insert(id.number, walk);
            }
        }
    }

    /// Asks peers to compare roots: one message to each, about all partitions that are due.
    fn begin_rounds(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now.mono_us;
        let due = |(_, rounds): &(&NodeId, &Rounds)| {
            rounds.asked.is_none() && rounds.differing.is_empty() && rounds.next_us <= now_us
        };
        let peers: Vec<NodeId> = self.exchanges.peers.iter().filter(due).map(|(peer, _)| *peer).collect();
        for peer in peers {
            if self.connections.can_ask(peer) {
                let partitions = self.due_partitions(peer, now_us);
                self.ask_roots(turn, peer, partitions);
            } else {
                self.exchanges.peers.entry(peer).or_default().next_us = now_us + AGAIN_US;
            }
        }
    }

    /// The partitions that both own and that are due, in order.
    fn due_partitions(&self, peer: NodeId, now_us: u64) -> Vec<PartitionId> {
        // A little early, so that a round takes all that come due at about the same time.
        let interval_us = self.exchanges.config.interval_us;
        let before_us = (now_us + interval_us / 4).saturating_sub(interval_us);
        let is_due = |partition: &PartitionId| {
            let pair = self.exchanges.pairs.get(&(*partition, peer)).copied().unwrap_or_default();
            let is_old = pair.equal_us.is_none_or(|equal_us| equal_us <= before_us);
            let is_wanted = is_old || !self.gaps.is_complete(*partition) || self.gaps.gains.wants(*partition, peer);
            is_wanted && !self.exchanges.is_walked(*partition, now_us)
        };
        self.own_partitions().filter(|partition| self.shares_any(*partition, peer)).filter(is_due).collect()
    }

    fn ask_roots(&mut self, turn: &mut Turn<'_>, peer: NodeId, partitions: Vec<PartitionId>) {
        let now_us = turn.now.mono_us;
        let (mut roots, mut left) = (Vec::new(), VecDeque::from(partitions));
        while roots.len() < MAX_ROOTS
            && let Some(partition) = left.pop_front()
        {
            // One whose leaves are being counted is compared later.
            if let Some(root) = self.shared_root(partition, peer) {
                roots.push((partition, root));
            }
        }
        let interval_us = self.exchanges.config.interval_us;
        let spread_us = self.rng.next_u64() % (interval_us / 8).max(1);
        let id = self.exchanges.name(self.config.shard);
        let rounds = self.exchanges.peers.entry(peer).or_default();
        rounds.next_us = now_us + interval_us / 2 + spread_us;
        let Some(&(first, _)) = roots.first() else { return };
        let partitions = roots.iter().map(|(partition, _)| *partition).collect();
        rounds.asked = Some(AskedRoots {
            walk: id,
            asked_us: now_us,
            deadline_us: now_us + ANSWER_US,
            partitions,
            left: left.into_iter().collect(),
        });
        self.send_ask(turn, peer, (id, 0, first), Ask::Roots(roots));
    }

    /// A peer has answered a question.
    pub(super) fn exchange_answered(&mut self, turn: &mut Turn<'_>, from: NodeId, answer: ExchangeAnswer) {
        self.exchange_soon();
        let roots = self
            .exchanges
            .peers
            .get_mut(&from)
            .and_then(|rounds| rounds.asked.take_if(|asked| asked.walk == answer.walk));
        if let Some(asked) = roots {
            return self.roots_answered(turn, from, asked, answer.answer);
        }
        let number = answer.walk.number;
        let is_awaited = |walk: &&mut Walk| walk.peer == from && walk.number == answer.number && walk.awaits_answer();
        if self.exchanges.walks.get_mut(&number).filter(is_awaited).is_none() {
            return;
        }
        self.with_walk(turn, number, |shard, turn, walk| match answer.answer {
            Ok(good) => shard.walk_answered(turn, walk, answer.epoch, good),
            Err(ErrorCode::Overloaded) if matches!(walk.waits, Waits::Buckets) => Step::PutOff,
            Err(_) => Step::Failed,
        });
    }

    fn roots_answered(
        &mut self,
        turn: &mut Turn<'_>,
        peer: NodeId,
        asked: AskedRoots,
        answer: Result<Answer, ErrorCode>,
    ) {
        let now_us = turn.now.mono_us;
        let Ok(Answer::Differ { considered, partitions, refused, incomplete }) = answer else {
            self.exchanges.peers.entry(peer).or_default().next_us = now_us + AGAIN_US;
            return;
        };
        let (done, left) = asked.partitions.split_at(usize::from(considered).min(asked.partitions.len()));
        for &partition in done {
            if refused.contains(&partition) {
                continue;
            }
            if partitions.contains(&partition) {
                self.exchanges.pair(partition, peer).differs = true;
                self.exchanges.peers.entry(peer).or_default().differing.push_back(partition);
            } else {
                self.exchanges.equal(now_us, partition, peer);
                self.gain_met(partition, peer, asked.walk.number);
                self.gap_met(turn, partition, peer, !incomplete.contains(&partition), asked.asked_us);
            }
        }
        let left: Vec<PartitionId> = left.iter().copied().chain(asked.left).collect();
        if considered > 0 && !left.is_empty() {
            self.ask_roots(turn, peer, left);
        }
    }

    /// Runs a step of a walk.
    fn with_walk(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        step: impl FnOnce(&mut Self, &mut Turn<'_>, &mut Walk) -> Step,
    ) {
        let Some(mut walk) = self.exchanges.walks.remove(&number) else { return };
        let mut next = step(self, turn, &mut walk);
        while matches!(next, Step::Next) {
            next = self.next_step(turn, &mut walk);
        }
        match next {
            Step::Waits | Step::Next => drop(self.exchanges.walks.insert(number, walk)),
            Step::Ended => {
                self.walk_ended(&walk, true, turn.now.mono_us);
                self.gain_met(walk.partition, walk.peer, walk.id.number);
                self.gap_met(turn, walk.partition, walk.peer, walk.peer_is_complete, walk.begun_us);
            }
            Step::Failed => self.walk_ended(&walk, false, turn.now.mono_us),
            Step::PutOff => self.walk_put_off(&walk, turn.now.mono_us),
        }
        self.exchange_soon();
    }

    /// The peer does not take a walk now, because another one is under way there: roots are compared again later. Not
    /// by all who wait at the same time.
    fn walk_put_off(&mut self, walk: &Walk, now_us: u64) {
        let later_us = AGAIN_US + self.rng.next_u64() % AGAIN_US;
        self.exchanges.pair(walk.partition, walk.peer).walking = false;
        if let Some(rounds) = self.exchanges.peers.get_mut(&walk.peer) {
            rounds.next_us = rounds.next_us.min(now_us + later_us);
        }
    }

    fn walk_ended(&mut self, walk: &Walk, well: bool, now_us: u64) {
        let (partition, peer) = (walk.partition, walk.peer);
        if well {
            let complete = self.has_all(partition);
            self.exchanges.walked_with(now_us, partition, peer, complete);
        } else if let Some(rounds) = self.exchanges.peers.get_mut(&peer) {
            rounds.next_us = rounds.next_us.min(now_us + AGAIN_US);
        }
        let pair = self.exchanges.pair(partition, peer);
        pair.walking = false;
        pair.failures += u32::from(!well);
        pair.counts = pair.counts.plus(&walk.counts);
    }

    /// The next question of a walk, or its end.
    fn next_step(&mut self, turn: &mut Turn<'_>, walk: &mut Walk) -> Step {
        walk.waits = Waits::Nothing;
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
            let (salt, width, max_bytes) = (walk.salt, walk.width, u32::try_from(piece_bytes).unwrap_or(u32::MAX));
            self.ask(turn, walk, Ask::Wanted { range, from, salt, width, except, max_bytes });
            return Step::Waits;
        }
        // What both have is fetched first: often the join is what the peer has, and need not be brought.
        if !walk.keys.is_empty() {
            return self.bring_keys(turn, walk);
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
                (None, _) => walk.failed = true,
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
        match (walk.is_done(), walk.failed) {
            (false, _) => Step::Next,
            (true, true) => Step::Failed,
            (true, false) => {
                self.ask(turn, walk, Ask::Ended);
                Step::Ended
            }
        }
    }

    /// An answer that a walk has waited for.
    fn walk_answered(&mut self, turn: &mut Turn<'_>, walk: &mut Walk, epoch: ReapEpoch, answer: Answer) -> Step {
        match (core::mem::replace(&mut walk.waits, Waits::Nothing), answer) {
            (Waits::Buckets, Answer::Buckets { complete, sums }) => {
                walk.peer_is_complete = complete;
                let mut own = self.shared_buckets(walk.partition, walk.peer);
                for (id, ..) in &sums {
                    // One of which this node has no object.
                    let known = self.view.bucket(*id).filter(|_| !own.iter().any(|(known, ..)| known == id));
                    if let Some(bucket) = known.filter(|bucket| self.shares(walk.partition, walk.peer, bucket.props.n))
                    {
                        own.push((*id, bucket.version, Some(Sum::default())));
                    }
                }
                walk.compare_buckets(self.trees.bits(), &own, &sums);
                Step::Next
            }
            (Waits::Compare(asked), Answer::Compared(answers)) if !answers.is_empty() => {
                let mut answers = answers.into_iter();
                for (range, own) in asked {
                    match answers.next() {
                        Some(answer) => walk.compared(range, own, answer),
                        None => walk.compare_later([range]),
                    }
                }
                Step::Next
            }
            (Waits::Wanted(pull), Answer::Objects { batch, next, unreadable }) => {
                walk.failed |= unreadable;
                self.take(turn, walk, epoch, pull, (batch, next))
            }
            (Waits::Taken, Answer::Taken { same }) => {
                // What differs still is for the next walk, soon. A gap may end all the same: its walks fetch first.
                walk.failed |= !same && walk.is_short();
                Step::Next
            }
            // No answer to what was asked.
            _ => Step::Failed,
        }
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
        if batch.bucket != pull.range.bucket {
            return Step::Failed;
        }
        walk.counts.received += batch.objects.len() as u64;
        let bytes: usize =
            batch.objects.iter().map(|(key, object)| key.len() + crate::causal::value_bytes(object)).sum();
        walk.counts.received_bytes += bytes as u64;
        self.exchanges.pacer.give_back(self.config.exchange.piece_bytes as u64);
        let Ok(absorbed) = self.absorb_batch(turn, walk.partition, epoch, batch) else { return Step::Failed };
        for same in &absorbed {
            walk.keys.remove(same);
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

    /// Absorbs a peer's objects. All must be of the partition, and of a bucket of which this node is an owner there.
    /// Returns the keys in the store of those that are here now as the peer has them.
    pub(super) fn absorb_batch(
        &mut self,
        turn: &mut Turn<'_>,
        partition: PartitionId,
        epoch: ReapEpoch,
        batch: ObjectBatch,
    ) -> Result<Vec<Bytes>, ErrorCode> {
        let Some(bucket) = self.view.bucket(batch.bucket).cloned() else { return Err(ErrorCode::VersionConflict) };
        // Rule: batches name their version.
        if bucket.version != batch.bucket_version {
            return Err(ErrorCode::VersionConflict);
        }
        if !self.view.owners(partition, bucket.props.n).contains(self.config.node) {
            return Err(ErrorCode::StaleLayout);
        }
        let sizes = batch.objects.iter().map(|(key, object)| key.len() + crate::causal::value_bytes(object));
        self.spend_moved(turn.now, sizes);
        let bytes = |(key, object): &(Bytes, Object)| (key.len() + crate::causal::value_bytes(object)) as u64;
        self.gaps.took(partition, batch.objects.len() as u64, batch.objects.iter().map(bytes).sum());
        let mut same = Vec::new();
        for (key, object) in batch.objects {
            let id = ObjectId { tenant: bucket.tenant, bucket: bucket.id, key };
            if self.view.layout().partition(&id) != partition {
                return Err(ErrorCode::StaleLayout);
            }
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
                Err(StoreFault::Damaged(_) | StoreFault::Lost { .. }) => walk.failed = true,
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
            // What cannot be read here the peer may have or not.
            walk.failed |= !found.unreadable.is_empty();
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
        walk.failed |= batch.objects.len() < rows.len();
        let bytes: usize = rows.iter().map(|(_, row)| row.len()).sum();
        walk.counts.sent += batch.objects.len() as u64;
        walk.counts.sent_bytes += bytes as u64;
        self.spend_moved(turn.now, rows.iter().map(|(_, row)| row.len()));
        walk.waits = Waits::Taken;
        self.ask(turn, walk, Ask::Objects(batch));
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

    pub(super) fn ask(&self, turn: &mut Turn<'_>, walk: &mut Walk, ask: Ask) {
        walk.number += 1;
        self.send_ask(turn, walk.peer, (walk.id, walk.number, walk.partition), ask);
    }

    fn send_ask(&self, turn: &mut Turn<'_>, to: NodeId, of: (WalkId, u64, PartitionId), ask: Ask) {
        let ((walk, number, partition), partition_bits) = (of, self.view.partition_bits());
        let asked = ExchangeAsk { walk, number, partition_bits, partition, epoch: self.epoch(), ask };
        self.send(turn, to, 0, PeerBody::ExchangeAsk(asked));
    }

    /// The partitions of this shard.
    pub(super) fn own_partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let partitions = self.view.layout().partitions();
        let all = (0..partitions).map(|at| PartitionId(u16::try_from(at).unwrap_or(u16::MAX)));
        all.filter(move |partition| self.is_own(*partition))
    }

    /// Whether a partition is one of this shard's.
    pub(super) fn is_own(&self, partition: PartitionId) -> bool {
        let partitions = self.view.layout().partitions();
        u32::from(partition.0) < partitions && shard_of(partition, partitions, self.config.shards) == self.config.shard
    }

    /// Whether both nodes own a partition in some bucket. One that this node gains may be in buckets that it does not
    /// know yet.
    fn shares_any(&self, partition: PartitionId, peer: NodeId) -> bool {
        let widest = self.view.buckets().map(|bucket| bucket.props.n).max().unwrap_or_default();
        let widest = if self.gaps.gains.has(partition) { u8::MAX } else { widest };
        self.shares(partition, peer, widest)
    }

    /// Whether both nodes own a partition in a bucket with `n` copies.
    pub(super) fn shares(&self, partition: PartitionId, peer: NodeId, n: u8) -> bool {
        let owners = self.view.owners(partition, n);
        owners.contains(self.config.node) && owners.contains(peer)
    }

    /// The sum of a partition over the buckets of which both own it; `None` while some leaf of them is unknown.
    pub(super) fn shared_root(&self, partition: PartitionId, peer: NodeId) -> Option<u128> {
        if !self.trees.is_discovered() {
            return None;
        }
        let mut sum = 0_u128;
        for (_, _, root) in self.shared_buckets(partition, peer) {
            sum = sum.wrapping_add(root?.hash);
        }
        Some(sum)
    }

    /// The buckets with objects in a partition that both own: version and sum of each, `None` for one that is unknown.
    pub(super) fn shared_buckets(&self, partition: PartitionId, peer: NodeId) -> Vec<(BucketId, u64, Option<Sum>)> {
        let mut shared = Vec::new();
        for (id, root) in self.trees.roots(partition) {
            // One that the catalog does not have, or not any more, is not exchanged.
            let Some(bucket) = self.view.bucket(id) else { continue };
            if self.shares(partition, peer, bucket.props.n) {
                let sum = (root.unknown == 0 && self.trees.is_discovered()).then_some(root.sum);
                shared.push((id, bucket.version, sum));
            }
        }
        shared
    }
}

/// What follows a step of a walk.
pub(super) enum Step {
    /// Its next question.
    Next,
    /// It waits for an answer, for rows, or until it may send.
    Waits,
    /// It has ended well.
    Ended,
    Failed,
    /// Another time.
    PutOff,
}

/// Where the key begins in a key of the store, behind bucket and hash.
pub(super) const KEY_AT: usize = 24;
