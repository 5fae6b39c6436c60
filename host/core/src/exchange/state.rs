//! The exchanges of a shard: with whom it compares which partition next, the walks under way, and what is told of them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{Differing, ExchangeAsk, HashRange, RangeHashes, WalkId};
use rejoin_proto::peer::Offer;
use rejoin_proto::{LayoutRef, NodeId, PartitionId};

use super::gaps::RebuildProgress;
use super::own::RangeScan;
use super::pace::Pacer;
use super::walk::{PARTITIONS_AT_ONCE, Walk, WalkCounts};
use crate::shard::event::ScanTicket;

/// The pause after a walk that could not be ended, in microseconds.
pub(crate) const AGAIN_US: u64 = 1_000_000;

/// How a shard exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExchangeConfig {
    /// How long a partition that was equal to a peer's is not compared with that peer again, in microseconds.
    pub interval_us: u64,
    /// The most walks that a shard has begun and not ended. With 0 no peer is compared with.
    pub max_walks: usize,
    /// The bytes of objects that are sent, fetched and taken per second however late requests are.
    pub floor_bytes: u64,
    /// The same while there are no requests, and the most beside them.
    pub max_bytes: u64,
    /// How much longer than alone requests may take beside exchanges, in percent.
    pub slowdown_percent: u32,
    /// The bytes of objects of one message, unless one object alone is larger. Absorbing them takes a shard one turn.
    pub piece_bytes: usize,
    /// The mean time between two comparisons of views, in microseconds; 0: none.
    pub view_interval_us: u64,
    /// Whether exchanges are paused at the start, as by [`ExchangeCommand::Pause`], and comparisons of views.
    pub paused: bool,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        Self {
            interval_us: 10_000_000,
            max_walks: 4,
            floor_bytes: 2 << 20,
            max_bytes: 64 << 20,
            slowdown_percent: 50,
            piece_bytes: 32 << 10,
            view_interval_us: 10_000_000,
            paused: false,
        }
    }
}

/// What an operator may ask of a shard's exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeCommand {
    /// Begin no more walks, and hand over nothing that is held for others. Walks under way end, and questions of peers
    /// are answered.
    Pause,
    /// Go on, with every partition at once.
    Start,
}

/// What is known of a partition and a peer that both own.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PairStatus {
    /// When they were last found or made equal, in microseconds of [`Now::mono_us`](crate::shard::event::Now::mono_us).
    pub equal_us: Option<u64>,
    /// Whether they were found to differ since.
    pub differs: bool,
    /// Whether a walk is under way.
    pub walking: bool,
    /// Walks that could not be ended since they were last equal.
    pub failures: u32,
    /// What the walks have sent and received, since the shard was opened.
    pub counts: WalkCounts,
}

/// The exchanges of one shard.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ExchangeStatus {
    /// Whether no walks are begun.
    pub paused: bool,
    /// The partitions in which this replica may lack writes that it has acknowledged.
    pub incomplete: Vec<PartitionId>,
    /// How far their rebuild has come.
    pub rebuild: RebuildProgress,
    /// Each partition and peer that both own.
    pub pairs: Vec<(PartitionId, NodeId, PairStatus)>,
    /// The leaves of the hash trees.
    pub leaves: usize,
    /// Leaves that are to be counted anew.
    pub unknown_leaves: usize,
    /// Leaves whose objects did not come to their sum when they were read.
    pub corrected_leaves: u64,
}

/// What the walks of a shard take now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ExchangeLoad {
    /// Walks that it has begun and that are under way.
    pub walks: usize,
    /// The bytes of memory of the largest one, at most [`MAX_WALK_BYTES`](super::MAX_WALK_BYTES).
    pub walk_bytes: usize,
    /// Questions of peers for which it reads rows.
    pub serving: usize,
}

/// The comparison of roots with one peer.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) next_us: u64,
    pub(crate) asked: Option<AskedRoots>,
    /// Partitions that differ, and have to be walked.
    pub(crate) differing: VecDeque<ToWalk>,
}

/// A partition that differs, as the peer has told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToWalk {
    pub(crate) told: Differing,
    /// The number of the comparison. What one shard of the peer has told in one is walked together.
    pub(crate) round: u64,
}

/// A walk that a peer has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalkedBy {
    pub(crate) walk: WalkId,
    /// Until then nothing is done about the partition from here.
    pub(crate) until_us: u64,
}

/// A walk that did not end well, of which its peer is to be told.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) peer: NodeId,
    pub(crate) walk: WalkId,
    /// The number of the message.
    pub(crate) number: u64,
    pub(crate) partitions: Vec<PartitionId>,
}

/// Roots that a peer has been asked to compare.
#[derive(Debug)]
pub(crate) struct AskedRoots {
    pub(crate) walk: WalkId,
    pub(crate) asked_us: u64,
    pub(crate) deadline_us: u64,
    pub(crate) partitions: Vec<PartitionId>,
    /// Partitions that did not fit.
    pub(crate) left: Vec<PartitionId>,
}

/// A peer's question that waits for a scan.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) served: Served,
    pub(crate) work: ServingWork,
}

/// Whose question it is, and how hashes are shortened in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) peer: NodeId,
    /// The walk, and the number of its question.
    pub(crate) of: (WalkId, u64),
    pub(crate) width: u8,
}

/// What the rows are read for.
#[derive(Debug)]
pub(crate) enum ServingWork {
    /// To send those whose hashes are not among `except`.
    Wanted {
        range: HashRange,
        except: Bytes,
        /// The bytes that the pacer has been told of.
        reserved: u64,
    },
    /// To compare them: they are too large to be read on the shard's turn.
    Compare(RangeScan, RangeHashes),
}

/// A peer's question about objects that has to wait.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) peer: NodeId,
    pub(crate) layout: LayoutRef,
    pub(crate) trace: u64,
    pub(crate) body: HeldBody,
}

#[derive(Debug)]
pub(crate) enum HeldBody {
    Exchange(ExchangeAsk),
    Offer(Offer),
}

/// The state of a shard's exchanges.
#[derive(Debug)]
pub(crate) struct Exchanges {
    pub(crate) config: ExchangeConfig,
    pub(crate) paused: bool,
    pub(crate) walks: BTreeMap<u64, Walk>,
    pub(crate) peers: BTreeMap<NodeId, Rounds>,
    pub(crate) pairs: BTreeMap<(PartitionId, NodeId), PairStatus>,
    pub(crate) serving: BTreeMap<ScanTicket, Serving>,
    /// Partitions that peers walk with this node.
    pub(crate) walked: BTreeMap<(PartitionId, NodeId), WalkedBy>,
    pub(crate) given_up: Vec<GivenUp>,
    /// What the sums differed by when a walk with shortened hashes began that has ended since.
    pub(crate) fruitless: BTreeMap<(PartitionId, NodeId), u32>,
    /// Questions about objects that wait until this shard may work on them, in the order in which they came.
    pub(crate) held: VecDeque<Held>,
    pub(crate) pacer: Pacer,
    pub(crate) next_walk: u64,
    /// When something is due.
    pub(crate) next_us: u64,
}

impl Exchanges {
    pub(crate) fn new(config: ExchangeConfig, next_walk: u64) -> Self {
        Self {
            config,
            paused: config.paused,
            walks: BTreeMap::new(),
            peers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            serving: BTreeMap::new(),
            walked: BTreeMap::new(),
            given_up: Vec::new(),
            fruitless: BTreeMap::new(),
            held: VecDeque::new(),
            pacer: Pacer::new(&config),
            next_walk,
            next_us: 0,
        }
    }

    /// Partitions are split. Both halves are compared anew; what was sent and received stays counted.
    pub(crate) fn split(&mut self, more: u8) {
        let pairs = core::mem::take(&mut self.pairs).into_iter();
        let first = |partition: PartitionId| partition.parts(more).next().unwrap_or(partition);
        let counted = |pair: PairStatus| PairStatus { counts: pair.counts, ..PairStatus::default() };
        self.pairs = pairs.map(|((partition, peer), pair)| ((first(partition), peer), counted(pair))).collect();
        self.walked.clear();
        // What a peer has of them goes by the partitions of before.
        self.given_up.clear();
        self.fruitless.clear();
    }

    /// A name for a walk.
    pub(crate) fn name(&mut self, shard: u16) -> WalkId {
        self.next_walk += 1;
        WalkId { shard, number: self.next_walk }
    }

    /// Whether a partition is being walked with some peer, whoever has begun.
    pub(crate) fn is_walked(&self, partition: PartitionId, now_us: u64) -> bool {
        self.walks.values().any(|walk| walk.parts.contains_key(&partition))
            || self.is_walked_by(partition, now_us, |_| true)
    }

    /// Whether such a peer walks a partition with this node.
    pub(crate) fn is_walked_by(&self, partition: PartitionId, now_us: u64, which: impl Fn(NodeId) -> bool) -> bool {
        let of = (partition, NodeId(0))..=(partition, NodeId(u64::MAX));
        self.walked.range(of).any(|((_, peer), walked)| which(*peer) && walked.until_us > now_us)
    }

    /// The next partitions to walk with a peer, which nobody walks with this node: one that is to be walked in full, or
    /// several that are not.
    pub(crate) fn next_to_walk(&mut self, peer: NodeId, now_us: u64, in_full: impl Fn(&ToWalk) -> bool) -> Vec<ToWalk> {
        let Some(rounds) = self.peers.get(&peer) else { return Vec::new() };
        let is_free = |to_walk: &&ToWalk| !self.is_walked(to_walk.told.partition, now_us);
        let mut next: Vec<ToWalk> = Vec::new();
        for to_walk in rounds.differing.iter().filter(is_free) {
            let full = in_full(to_walk);
            let fits = next.first().is_none_or(|first| first.round == to_walk.round && !full);
            if fits {
                next.push(*to_walk);
            }
            if full && next.len() == 1 || next.len() == PARTITIONS_AT_ONCE {
                break;
            }
        }
        if let Some(rounds) = self.peers.get_mut(&peer) {
            let is_left = |to_walk: &ToWalk| next.iter().all(|next| next.told.partition != to_walk.told.partition);
            rounds.differing.retain(is_left);
        }
        next
    }

    /// A peer's walk goes on: all of its partitions stay its own.
    pub(crate) fn goes_on(&mut self, peer: NodeId, walk: WalkId, until_us: u64) {
        let of_walk = |((_, of), walked): &(&(PartitionId, NodeId), &mut WalkedBy)| *of == peer && walked.walk == walk;
        self.walked.iter_mut().filter(of_walk).for_each(|(_, walked)| walked.until_us = until_us);
    }

    /// When a partition that differs can be walked at the latest, unless a walk ends before.
    pub(crate) fn next_free_us(&self, now_us: u64) -> Option<u64> {
        let waits = self.peers.values().any(|rounds| !rounds.differing.is_empty());
        self.walked.values().map(|walked| walked.until_us).filter(|until_us| waits && *until_us > now_us).min()
    }

    /// A partition was walked to the end with a peer. What it lacked of others it may have by now: their roots are
    /// compared again, before it is walked with one of them. While this replica is not complete, all are.
    pub(crate) fn walked_with(&mut self, now_us: u64, partition: PartitionId, peer: NodeId, complete: bool) {
        self.equal(now_us, partition, peer);
        for (other, rounds) in &mut self.peers {
            let pair = self.pairs.get(&(partition, *other)).copied().unwrap_or_default();
            rounds.differing.retain(|differing| differing.told.partition != partition);
            if !complete || pair.differs || pair.equal_us.is_none() {
                rounds.next_us = rounds.next_us.min(now_us + AGAIN_US);
            }
        }
    }

    /// A walk of a partition has ended that began with shortened hashes and that difference, or in full.
    pub(crate) fn walked_off(&mut self, partition: PartitionId, peer: NodeId, difference: Option<u32>) {
        match difference {
            Some(difference) => drop(self.fruitless.insert((partition, peer), difference)),
            None => drop(self.fruitless.remove(&(partition, peer))),
        }
    }

    pub(crate) fn pair(&mut self, partition: PartitionId, peer: NodeId) -> &mut PairStatus {
        self.pairs.entry((partition, peer)).or_default()
    }

    /// A partition is equal to a peer's.
    pub(crate) fn equal(&mut self, now_us: u64, partition: PartitionId, peer: NodeId) {
        let pair = self.pair(partition, peer);
        (pair.equal_us, pair.differs, pair.failures) = (Some(now_us), false, 0);
    }
}
