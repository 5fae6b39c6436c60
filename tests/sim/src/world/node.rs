//! A node: what its disk keeps from life to life, and what a running process has beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{DurableTicket, Event};
use rejoin_core::view::ClusterView;
use rejoin_proto::client::StartId;
use rejoin_proto::peer::{ActorNext, PeerEnvelope};
use rejoin_proto::{ActorId, NodeId};

use super::chaos::Death;
use crate::disk::Disk;
use crate::history::NodeIndex;

/// The small file that says how the last process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Of the machine, when that process began.
    pub(super) boot: u64,
    pub(super) clean: bool,
    pub(super) renewal_owed: bool,
}

/// An old copy of all of a node's disks.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) disks: Vec<Disk>,
    pub(super) state: State,
    /// The actors of that time and the counters they would use next.
    pub(super) actors: Vec<ActorNext>,
    /// Puts until then.
    pub(super) puts: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disks: Vec<Disk>,
    /// `None` before the first start, and after a wipe.
    pub(super) state: Option<State>,
    pub(super) backup: Option<Backup>,
    /// A store's own word that it has lost something.
    pub(super) reported_loss: bool,
    /// The machine's boot.
    pub(super) boot: u64,
    /// What it knows of layout and catalog.
    pub(super) view: Arc<ClusterView>,
    /// Counts the starts.
    pub(super) life: u32,
    pub(super) running: Option<Running>,
    /// How far its wall clock is off.
    pub(super) skew_ms: i64,
    /// What a batch takes, in microseconds.
    pub(super) service_us: u64,
    /// What a sync takes on average, in microseconds.
    pub(super) sync_us: u64,
    /// How it is to end in the middle of its next batch.
    pub(super) doom: Option<Death>,
    /// The highest counter that each of its actors has minted.
    pub(super) minted: Vec<(ActorId, u64)>,
    /// Puts that it has coordinated.
    pub(super) puts: u64,
}

/// What a batch takes on a healthy node.
pub(super) const SERVICE_US: u64 = 20;
/// What a sync takes on a healthy disk.
pub(super) const SYNC_US: u64 = 500;

impl Node {
    pub(super) fn new(id: NodeId, shards: u16, view: Arc<ClusterView>) -> Self {
        Self {
            id,
            disks: vec![Disk::default(); usize::from(shards)],
            state: None,
            backup: None,
            reported_loss: false,
            boot: 1,
            view,
            life: 0,
            running: None,
            skew_ms: 0,
            service_us: SERVICE_US,
            sync_us: SYNC_US,
            doom: None,
            minted: Vec::new(),
            puts: 0,
        }
    }

    /// Whether it runs and takes requests.
    pub(super) fn is_serving(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.serving)
    }
}

/// A running process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shards: Vec<Post>,
    /// The start ids of the shards, and the one that is made of them.
    pub(super) starts: Vec<u64>,
    pub(super) start: StartId,
    pub(super) serving: bool,
    /// Per peer: whether it has said that it is ready.
    pub(super) settled: Vec<bool>,
    /// Per peer: the connection whose hello the shards are looking at, and how many of them have not yet.
    pub(super) hearing: Vec<(u32, u16)>,
}

/// What a shard is told, before its work.
#[derive(Debug)]
pub(super) enum Notice {
    Event(Box<Event>),
    PeerUp { peer: NodeIndex, connection: u32, actors: Vec<ActorNext> },
    Synced(u64),
}

/// A shard and the desk in front of it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) shard: Shard,
    pub(super) notices: Vec<Notice>,
    pub(super) works: Vec<Event>,
    /// Until then it is at its last batch.
    pub(super) busy_until_us: u64,
    /// The earliest wake that is planned, `u64::MAX` if none.
    pub(super) wake_us: u64,
    pub(super) synced: u64,
    pub(super) syncing: bool,
    /// Another sync was asked for since the one under way began.
    pub(super) sync_again: bool,
    /// Messages that wait for the disk.
    pub(super) held: VecDeque<(u64, NodeIndex, Box<PeerEnvelope>)>,
    /// Requests that want to hear of it.
    pub(super) waiting: VecDeque<(u64, DurableTicket)>,
}

impl Post {
    pub(super) fn new(shard: Shard, synced: u64) -> Self {
        Self {
            shard,
            notices: Vec::new(),
            works: Vec::new(),
            busy_until_us: 0,
            wake_us: u64::MAX,
            synced,
            syncing: false,
            sync_again: false,
            held: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether something waits for a sync that has not been.
    pub(super) fn needs_sync(&self) -> bool {
        let held = self.held.back().map(|(seq, ..)| *seq);
        let waiting = self.waiting.back().map(|(seq, _)| *seq);
        held.max(waiting).is_some_and(|seq| seq > self.synced)
    }
}
