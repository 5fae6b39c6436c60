//! The shard's side of exchanges that it begins: which partitions are compared with whom and when. The steps of the
//! walks are in [`walking`](super::walking), what it answers to others in [`serving`](super::serving).

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use rand_core::Rng;

use rejoin_proto::exchange::{Answer, Ask, ExchangeAnswer, ExchangeAsk, Sum, WalkId};
use rejoin_proto::{BucketId, ErrorCode, NodeId, PartitionId};

use super::Shard;
use super::turn::Turn;
use super::walking::Step;
use crate::exchange::state::{
    AGAIN_US, AskedRoots, ExchangeCommand, ExchangeLoad, ExchangeStatus, GivenUp, Rounds, ToWalk, WalkedBy,
};
use crate::exchange::walk::{Part, Walk};
use crate::view::{Bucket, shard_of};

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
        self.tell_given_up(turn);
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

    /// What its walks take now.
    #[must_use]
    pub fn exchange_load(&self) -> ExchangeLoad {
        let walks = self.exchanges.walks.values();
        ExchangeLoad {
            walks: walks.len(),
            walk_bytes: walks.map(Walk::bytes).max().unwrap_or_default(),
            serving: self.exchanges.serving.len(),
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
        self.exchanges.given_up.retain(|given_up| given_up.peer != peer);
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
        self.exchanges.walked.clear();
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
    pub(super) fn walked_by(&mut self, now_us: u64, partition: PartitionId, peer: NodeId, walk: WalkId) -> bool {
        // Rule: one walk at a time.
        if self.exchanges.is_walked_by(partition, now_us, |other| other != peer) {
            return false;
        }
        let own = self.exchanges.walks.iter().find(|(_, walk)| walk.parts.contains_key(&partition));
        if let Some((&number, walk)) = own {
            let has_found_another = walk.peer != peer && walk.is_met;
            if self.config.node < peer || has_found_another {
                return false;
            }
            if let Some(walk) = self.exchanges.walks.remove(&number) {
                self.walk_ended(&walk, false, now_us);
            }
        }
        if let Some(rounds) = self.exchanges.peers.get_mut(&peer) {
            rounds.differing.retain(|differing| differing.told.partition != partition);
        }
        self.exchanges.walked.insert((partition, peer), WalkedBy { walk, until_us: now_us + ANSWER_US });
        true
    }

    /// A peer's walk has ended well, but for the partitions that failed.
    pub(super) fn walk_of_peer_ended(&mut self, now_us: u64, peer: NodeId, walk: WalkId, failed: &[PartitionId]) {
        let walked = self.exchanges.walked.iter();
        let is_of = |((_, of), walked): &(&(PartitionId, NodeId), &WalkedBy)| *of == peer && walked.walk == walk;
        let partitions: Vec<PartitionId> = walked.filter(is_of).map(|((partition, _), _)| *partition).collect();
        for partition in partitions {
            self.exchanges.walked.remove(&(partition, peer));
            if !failed.contains(&partition) {
                let complete = self.gaps.is_complete(partition);
                self.exchanges.walked_with(now_us, partition, peer, complete);
            }
        }
        self.exchange_soon();
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
            // Rule: walks are few. Each of them takes memory, and moves a message of objects.
            while self.connections.can_ask(peer) && self.exchanges.walks.len() < self.exchanges.config.max_walks {
                let full = self.to_walk_in_full(peer);
                let next = self.exchanges.next_to_walk(peer, now_us, |to| full.contains(&to.told.partition));
                let Some(first) = next.first() else { break };
                self.begin_walk(turn, peer, full.contains(&first.told.partition), &next);
            }
        }
    }

    /// The partitions that differ and are walked in full.
    fn to_walk_in_full(&self, peer: NodeId) -> BTreeSet<PartitionId> {
        let Some(rounds) = self.exchanges.peers.get(&peer) else { return BTreeSet::new() };
        let in_full = |to_walk: &&ToWalk| self.walks_in_full(peer, to_walk);
        rounds.differing.iter().filter(in_full).map(|to_walk| to_walk.told.partition).collect()
    }

    /// Whether a partition is walked by itself, and whole hashes are compared.
    fn walks_in_full(&self, peer: NodeId, to_walk: &ToWalk) -> bool {
        let partition = to_walk.told.partition;
        // Rule: gaps are walked in full. A difference that short sums hide would be taken for none.
        if !self.has_all(partition) {
            return true;
        }
        let fruitless = self.exchanges.fruitless.get(&(partition, peer)).copied();
        // Rule: fruitless walks are repeated in full. One that believed a wrong name would believe it again.
        fruitless.is_some_and(|fruitless| self.difference(peer, to_walk) == Some(fruitless))
    }

    /// By how much the sums of a partition differ, if this node's is known.
    fn difference(&self, peer: NodeId, to_walk: &ToWalk) -> Option<u32> {
        let (_, own) = self.shared_sum(to_walk.told.partition, peer)?;
        Some(to_walk.told.digest.hash.wrapping_sub(own.digest().hash))
    }

    fn begin_walk(&mut self, turn: &mut Turn<'_>, peer: NodeId, full: bool, partitions: &[ToWalk]) {
        let now_us = turn.now.mono_us;
        let id = self.exchanges.name(self.config.shard);
        let mut walk = Walk::new(id, peer, self.trees.bits(), full);
        (walk.begun_us, walk.deadline_us) = (now_us, now_us + ANSWER_US);
        for to_walk in partitions {
            let partition = to_walk.told.partition;
            let difference = self.difference(peer, to_walk).filter(|_| !full);
            walk.parts.insert(partition, Part { difference, ..Part::default() });
            self.exchanges.pair(partition, peer).walking = true;
        }
        self.exchanges.walks.insert(id.number, walk);
        self.with_walk(turn, id.number, |shard, turn, walk| shard.first_step(turn, walk, partitions));
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
        let mut is_urgent = false;
        while roots.len() < MAX_ROOTS
            && let Some(partition) = left.pop_front()
        {
            // One whose leaves are being counted is compared later.
            match self.shared_sum(partition, peer) {
                Some((_, sum)) => roots.push((partition, sum.hash)),
                None => is_urgent |= !self.has_all(partition),
            }
        }
        let interval_us = self.exchanges.config.interval_us;
        let spread_us = self.rng.next_u64() % (interval_us / 8).max(1);
        let id = self.exchanges.name(self.config.shard);
        let rounds = self.exchanges.peers.entry(peer).or_default();
        // A replica that lacks something does not wait for the next round.
        rounds.next_us = now_us + if is_urgent { AGAIN_US } else { interval_us / 2 + spread_us };
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
            Ok(good) => {
                walk.is_met = true;
                shard.walk_answered(turn, walk, answer.epoch, good)
            }
            Err(ErrorCode::Overloaded) if !walk.is_met => Step::PutOff,
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
            if let Some(&told) = partitions.iter().find(|differing| differing.partition == partition) {
                self.exchanges.pair(partition, peer).differs = true;
                let to_walk = ToWalk { told, round: asked.walk.number };
                self.exchanges.peers.entry(peer).or_default().differing.push_back(to_walk);
            } else {
                self.exchanges.equal(now_us, partition, peer);
                self.exchanges.fruitless.remove(&(partition, peer));
                self.gain_met(partition, peer, asked.walk.number);
                self.gap_met(turn, partition, peer, !incomplete.contains(&partition), asked.asked_us);
            }
        }
        let left: Vec<PartitionId> = left.iter().copied().chain(asked.left).collect();
        if considered > 0 && !left.is_empty() {
            self.ask_roots(turn, peer, left);
        }
    }

    /// The peer does not take a walk of a partition now, because another one is under way there: roots are compared
    /// again later. Not by all who wait at the same time.
    pub(super) fn put_off(&mut self, walk: &mut Walk, partition: PartitionId, now_us: u64) {
        let later_us = AGAIN_US + self.rng.next_u64() % AGAIN_US;
        self.exchanges.pair(partition, walk.peer).walking = false;
        if let Some(rounds) = self.exchanges.peers.get_mut(&walk.peer) {
            rounds.next_us = rounds.next_us.min(now_us + later_us);
        }
        walk.leave_out(partition);
    }

    /// Tells peers of walks that were given up. Until then they do nothing about their partitions. One that cannot be
    /// told now goes on after [`ANSWER_US`].
    fn tell_given_up(&mut self, turn: &mut Turn<'_>) {
        for GivenUp { peer, walk, number, partitions: failed } in core::mem::take(&mut self.exchanges.given_up) {
            if let Some(&partition) = failed.first().filter(|_| self.connections.can_ask(peer)) {
                self.send_ask(turn, peer, (walk, number, partition), Ask::Ended { failed });
            }
        }
    }

    /// A walk has ended, well or not.
    pub(super) fn walk_ended(&mut self, walk: &Walk, well: bool, now_us: u64) {
        let peer = walk.peer;
        if !well && walk.number > 0 {
            let partitions = walk.parts.keys().copied().collect();
            self.exchanges.given_up.push(GivenUp { peer, walk: walk.id, number: walk.number + 1, partitions });
            self.exchange_soon();
        }
        for (&partition, part) in &walk.parts {
            let well = well && !part.failed;
            if well {
                let complete = self.has_all(partition);
                self.exchanges.walked_with(now_us, partition, peer, complete);
            } else if let Some(rounds) = self.exchanges.peers.get_mut(&peer) {
                rounds.next_us = rounds.next_us.min(now_us + AGAIN_US);
            }
            self.exchanges.walked_off(partition, peer, part.difference);
            let pair = self.exchanges.pair(partition, peer);
            pair.walking = false;
            pair.failures += u32::from(!well);
            pair.counts = pair.counts.plus(&part.counts);
        }
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
        let widest = self.view.most_copies().unwrap_or_default();
        let widest = if self.gaps.gains.has(partition) { u8::MAX } else { widest };
        self.shares(partition, peer, widest)
    }

    /// Whether both nodes own a partition in a bucket with `n` copies.
    pub(super) fn shares(&self, partition: PartitionId, peer: NodeId, n: u8) -> bool {
        let owners = self.view.owners(partition, n);
        owners.contains(self.config.node) && owners.contains(peer)
    }

    /// Whether both nodes own what a bucket has in a partition.
    pub(super) fn shares_bucket(&self, partition: PartitionId, peer: NodeId, bucket: &Bucket) -> bool {
        let owners = self.view.owners_of(partition, bucket);
        owners.contains(self.config.node) && owners.contains(peer)
    }

    /// The sum of a partition over the buckets of which both own it, and how many of them have objects here; `None`
    /// while some leaf of them is unknown.
    pub(super) fn shared_sum(&self, partition: PartitionId, peer: NodeId) -> Option<(usize, Sum)> {
        if !self.trees.is_discovered() {
            return None;
        }
        let shared = self.shared_buckets(partition, peer);
        let plus = |sum: Sum, (_, _, root): &(BucketId, u64, Option<Sum>)| Some(sum.plus((*root)?));
        Some((shared.len(), shared.iter().try_fold(Sum::default(), plus)?))
    }

    /// The buckets with objects in a partition that both own: version and sum of each, `None` for one that is unknown.
    pub(super) fn shared_buckets(&self, partition: PartitionId, peer: NodeId) -> Vec<(BucketId, u64, Option<Sum>)> {
        let mut shared = Vec::new();
        for (id, root) in self.trees.roots(partition) {
            // One that the catalog does not have, or not any more, is not exchanged.
            let Some(bucket) = self.view.bucket(id) else { continue };
            if self.shares_bucket(partition, peer, bucket) {
                let sum = (root.unknown == 0 && self.trees.is_discovered()).then_some(root.sum);
                shared.push((id, bucket.version, sum));
            }
        }
        shared
    }
}

/// Where the key begins in a key of the store, behind bucket and hash.
pub(super) const KEY_AT: usize = 24;
