//! A node: its disks, which outlive a process, and the state of the running process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rejoin_core::control::{Catalog, CatalogEvent, Control};
use rejoin_core::members::Members;
use rejoin_core::node::batch::{GroupCommit, Input};
use rejoin_core::node::identity::Disks;
use rejoin_core::node::links::Links;
use rejoin_core::port::CommitSeq;
use rejoin_core::ring::RingControl;
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::client::StartId;
use rejoin_proto::peer::ActorNext;
use rejoin_proto::{ActorId, Layout, NodeId, Ring};

use super::chaos::Death;
use super::leaving::Leaving;
use crate::disk::Disk;
use crate::history::NodeIndex;

/// The state file, which says how the last process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The boot id of the machine when that process started.
    pub(super) boot: u64,
    pub(super) clean: bool,
    pub(super) renewal_owed: bool,
}

/// An old copy of all of a node's disks.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) disks: Vec<Disk>,
    pub(super) state: State,
    pub(super) ids: Option<Disks>,
    pub(super) catalog: Catalog,
    /// The actors of that time, with their next counters.
    pub(super) actors: Vec<ActorNext>,
    /// The number of puts until then.
    pub(super) puts: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disks: Vec<Disk>,
    /// `None` before the first start, and after a wipe.
    pub(super) state: Option<State>,
    /// The disk ids that it remembers; `None` as with `state`.
    pub(super) ids: Option<Disks>,
    /// The saved catalog.
    pub(super) catalog: Catalog,
    /// The saved ring. It stays as it is when the disks of the shards are replaced.
    pub(super) ring: Ring,
    /// The newest layout of its view before the last change of that.
    pub(super) earlier_layout: Option<Layout>,
    pub(super) backup: Option<Backup>,
    /// Whether its store has reported a loss.
    pub(super) reported_loss: bool,
    /// The machine's boot id.
    pub(super) boot: u64,
    /// Counts the starts.
    pub(super) life: u32,
    pub(super) running: Option<Running>,
    /// The error of its wall clock.
    pub(super) skew_ms: i64,
    /// The time of a batch, in microseconds.
    pub(super) service_us: u64,
    /// The mean time of a sync, in microseconds.
    pub(super) sync_us: u64,
    /// The crash planned for the middle of its next batch.
    pub(super) doom: Option<Death>,
    /// The highest counter that each of its actors has minted.
    pub(super) minted: Vec<(ActorId, u64)>,
    /// Puts that it has coordinated.
    pub(super) puts: u64,
}

/// The time of a batch on a healthy node, in microseconds.
pub(super) const SERVICE_US: u64 = 20;
/// The mean time of a sync on a healthy disk, in microseconds.
pub(super) const SYNC_US: u64 = 500;

impl Node {
    pub(super) fn new(id: NodeId, shards: u16, catalog: Catalog, ring: Ring) -> Self {
        Self {
            id,
            disks: vec![Disk::default(); usize::from(shards)],
            state: None,
            ids: None,
            catalog,
            ring,
            earlier_layout: None,
            backup: None,
            reported_loss: false,
            boot: 1,
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
        self.running.as_ref().is_some_and(|running| running.links.is_serving())
    }

    /// Whether it takes requests and is not stopping.
    pub(super) fn takes_clients(&self) -> bool {
        self.is_serving() && self.running.as_ref().is_some_and(|running| running.leaving.is_none())
    }

    /// Whether it serves, and no end of a tenure is owed.
    pub(super) fn has_met_its_peers(&self) -> bool {
        let shards = self.running.iter().flat_map(|running| &running.shards);
        self.is_serving() && !shards.into_iter().any(|task| task.batch.shard().owes_ends())
    }

    /// Whether there is no room on its disk.
    pub(super) fn is_full(&self) -> bool {
        self.disks.iter().any(|disk| disk.trouble.full)
    }

    /// Whether its data directory was replaced, and it knows.
    pub(super) fn is_replaced(&self) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.replaced.is_some())
    }
}

/// A running process.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shards: Vec<ShardTask>,
    /// The start ids of the shards, and the one that is made of them.
    pub(super) starts: Vec<u64>,
    pub(super) start: StartId,
    pub(super) links: Links,
    /// The earliest wake of the links that is planned, `u64::MAX` if none.
    pub(super) links_wake_us: u64,
    pub(super) members: Members,
    /// The earliest wake of the membership that is planned, `u64::MAX` if none.
    pub(super) members_wake_us: u64,
    /// Connections that are open as far as this end knows.
    pub(super) open: BTreeMap<u32, Open>,
    pub(super) control: ControlTask,
    /// The ring's machine, if layouts change in this run.
    pub(super) ring: Option<RingTask>,
    /// The latest view that the shards were given.
    pub(super) view: Arc<ClusterView>,
    /// Whether it has served since all of its peers were met.
    pub(super) met_all: bool,
    /// Whether it is about to stop.
    pub(super) leaving: Option<Leaving>,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) peer: NodeIndex,
    /// When the last packet of the other end arrived.
    pub(super) heard_us: u64,
}

/// The task that owns the catalog, with its queue.
#[derive(Debug)]
pub(super) struct ControlTask {
    pub(super) control: Control,
    /// Each with the connection whose links are told when it is handled.
    pub(super) queue: VecDeque<(CatalogEvent, Option<u32>)>,
    /// The save under way, with the connection of its event.
    pub(super) saving: Option<Option<u32>>,
    /// When the save under way ends.
    pub(super) busy_until_us: u64,
    /// The earliest turn that is planned, `u64::MAX` if none.
    pub(super) wake_us: u64,
}

/// The ring's machine.
#[derive(Debug)]
pub(super) struct RingTask {
    pub(super) control: RingControl,
    /// The earliest wake that is planned, `u64::MAX` if none.
    pub(super) wake_us: u64,
}

impl ControlTask {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self {
            control: Control::new(catalog),
            queue: VecDeque::new(),
            saving: None,
            busy_until_us: 0,
            wake_us: u64::MAX,
        }
    }
}

/// A shard with its queues.
#[derive(Debug)]
pub(super) struct ShardTask {
    pub(super) batch: GroupCommit,
    /// Inputs that are handled ahead of the requests.
    pub(super) inputs: Vec<Input>,
    pub(super) requests: Vec<Event>,
    /// When the batch under way ends.
    pub(super) busy_until_us: u64,
    /// The earliest wake that is planned, `u64::MAX` if none.
    pub(super) wake_us: u64,
    pub(super) syncing: bool,
    /// Another sync was asked for since the one under way began.
    pub(super) sync_again: bool,
    /// The view that the shard had in its last batch, and those that it was given since. Kept where versions change.
    pub(super) views: Vec<Arc<ClusterView>>,
}

impl ShardTask {
    pub(super) fn new(shard: Shard, synced: u64, max_waiting: usize) -> Self {
        Self {
            batch: GroupCommit::new(shard, CommitSeq(synced), max_waiting),
            inputs: Vec::new(),
            requests: Vec::new(),
            busy_until_us: 0,
            wake_us: u64::MAX,
            syncing: false,
            sync_again: false,
            views: Vec::new(),
        }
    }
}
