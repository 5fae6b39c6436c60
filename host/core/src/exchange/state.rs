//! The exchanges of a shard: with whom it compares which partition next, the walks under way, and what is told of them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::exchange::{HashRange, WalkId};
use rejoin_proto::{NodeId, PartitionId};

use super::gaps::RebuildProgress;
use super::walk::{Walk, WalkCounts};
use crate::shard::event::ScanTicket;

/// How a shard exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExchangeConfig {
    /// How long a partition that was equal to a peer's is not compared with that peer again, in microseconds.
    pub interval_us: u64,
    /// The most walks that a shard has begun and not ended.
    pub max_walks: usize,
    /// The bytes of objects that are sent and fetched per second while requests are under way.
    pub floor_bytes: u64,
    /// The same while there are none.
    pub max_bytes: u64,
    /// Whether exchanges are paused at the start. Questions of peers are answered all the same.
    pub paused: bool,
}

impl Default for ExchangeConfig {
    fn default() -> Self {
        Self { interval_us: 10_000_000, max_walks: 4, floor_bytes: 2 << 20, max_bytes: 64 << 20, paused: false }
    }
}

/// What an operator may ask of a shard's exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeCommand {
    /// Begin no more walks. Those under way end.
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

/// The comparison of roots with one peer.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) next_us: u64,
    pub(crate) asked: Option<AskedRoots>,
    /// Partitions that differ, and have to be walked.
    pub(crate) differing: VecDeque<PartitionId>,
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
    pub(crate) peer: NodeId,
    pub(crate) walk: WalkId,
    pub(crate) number: u64,
    pub(crate) partition: PartitionId,
    pub(crate) range: HashRange,
    pub(crate) salt: u128,
    pub(crate) width: u8,
    pub(crate) except: Bytes,
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
    /// Partitions that peers walk with this node, and until when nothing is done about them from here.
    pub(crate) walked: BTreeMap<(PartitionId, NodeId), u64>,
    pub(crate) next_walk: u64,
    /// Bytes that may be sent and fetched now. Below zero after more than that.
    tokens: i64,
    refilled_us: u64,
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
            next_walk,
            tokens: 0,
            refilled_us: 0,
            next_us: 0,
        }
    }

    /// A name for a walk.
    pub(crate) fn name(&mut self, shard: u16) -> WalkId {
        self.next_walk += 1;
        WalkId { shard, number: self.next_walk }
    }

    /// When the next bytes may be sent or fetched. With requests under way they are fewer, but never fewer than the
    /// floor.
    pub(crate) fn may_send_at(&mut self, now_us: u64, requests: usize) -> u64 {
        let rate = (self.config.max_bytes / (1 + requests as u64)).max(self.config.floor_bytes).max(1);
        let passed_us = now_us.saturating_sub(self.refilled_us).min(1_000_000);
        let refill = i64::try_from(u128::from(rate) * u128::from(passed_us) / 1_000_000).unwrap_or(i64::MAX);
        // Not more than a tenth of a second's bytes at once.
        let most = i64::try_from(rate / 10).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(refill).min(most.max(1));
        self.refilled_us = now_us;
        if self.tokens > 0 {
            return now_us;
        }
        let missing = self.tokens.unsigned_abs() + 1;
        now_us + u64::try_from(u128::from(missing) * 1_000_000 / u128::from(rate)).unwrap_or(u64::MAX).max(1_000)
    }

    /// Bytes were sent or fetched.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
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
