//! Starts and ends of a node: the state file, and the disk after a kill, a stop or a power loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_core::Rng as _;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::layouts::LiveLayouts;
use rejoin_core::members::{self, MemberEvent, Members};
use rejoin_core::node::identity::Disks;
use rejoin_core::node::links::{self, LinkEvent, Links};
use rejoin_core::ring::RingEvent;
use rejoin_core::shard::event::Event;
use rejoin_core::shard::{Config, ReadLimits, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::ClusterId;
use rejoin_proto::client::PROTOCOL;
use rejoin_proto::peer::{ClusterParams, DiskId};

use super::batch::combined;
use super::chaos::Death;
use super::node::{ControlTask, RingTask, Running, ShardTask, State};
use super::{Occurrence, Parcel, World};
use crate::history::{Loss, NodeIndex};
use crate::options::{MS, SECOND};
use crate::rng::{Rng, Stream};

/// How long a starting node waits for peers that it has reached.
const LONGEST_START_US: u64 = 10 * SECOND;
/// The byte budget of a shard for each request that it may take: less than some values and copies need.
const OP_BYTES: usize = 1024;
/// How often partitions are compared.
const EXCHANGE_US: u64 = 2 * SECOND;
/// The mean time between two comparisons of views by a shard.
const VIEWS_US: u64 = 500 * MS;
/// Of so many reads one asks all owners: more often than in a real cluster, so that a run sees many repairs.
const READS_OF_ALL: u32 = 8;
/// When a start that has failed is tried again.
const AGAIN_US: u64 = 300 * MS;

impl World {
    /// Starts a node on its disk.
    pub(super) fn boot(&mut self, at: NodeIndex) {
        if self.nodes[usize::from(at)].running.is_some() {
            return;
        }
        let node = &mut self.nodes[usize::from(at)];
        node.life += 1;
        node.doom = None;
        let life = node.life;
        let gone = node.state.is_some_and(|last| last.renewal_owed || (!last.clean && last.boot != node.boot));
        let clean = node.state.is_none_or(|last| last.clean);
        node.state = Some(State { boot: node.boot, clean: false, renewal_owed: gone });
        let lost = gone || node.reported_loss;
        self.note(at, || {
            format!(
                "starts (life {life}{}{})",
                if clean { ", clean" } else { "" },
                if lost { ", may have lost writes" } else { "" }
            )
        });
        if self.options.faults.kill > 0 && !self.network.calm && self.faults.percent(3) {
            // Killed between the state file and the first shard: what was owed stays owed.
            return self.plan_in(AGAIN_US, Occurrence::Boot { node: at, life });
        }
        let ring = self.open_ring(at);
        let Some(tasks) = self.open_shards(at, clean, lost, ring.as_ref()) else {
            self.note(at, || "cannot start: its disk takes no writes".into());
            return self.plan_in(AGAIN_US, Occurrence::Boot { node: at, life });
        };
        let node = &mut self.nodes[usize::from(at)];
        if !tasks.iter().any(|task| task.batch.shard().owes_ends()) {
            node.reported_loss = false;
            node.state = node.state.map(|state| State { renewal_owed: false, ..state });
            self.check_trees(at);
        }
        self.run(at, tasks, ring);
    }

    /// The shards are open: the links begin to meet the other nodes.
    fn run(&mut self, at: NodeIndex, mut tasks: Vec<ShardTask>, ring: Option<RingTask>) {
        let view = self.ring_view(ring.as_ref());
        let (now, options) = (self.clock(at), &self.options);
        let node = &mut self.nodes[usize::from(at)];
        let starts: Vec<u64> = tasks.iter().map(|task| task.batch.shard().start()).collect();
        let start = combined(&starts);
        let others = (0..options.nodes).filter(|peer| *peer != at).map(|peer| self.keys.of(peer));
        let params = ClusterParams {
            protocol: PROTOCOL,
            cluster: ClusterId(1),
            secret_check: 1,
            origin: self.keys.layout().name(),
            max_skew_ms: options.max_skew_ms,
        };
        let config = links::Config {
            node: node.id,
            peers: others.map(|of| (of.id, of.name.clone())).collect(),
            params,
            layouts: LiveLayouts::new(view.live.clone(), view.reads).range(),
            shards: options.shards,
            grace_us: options.start_grace_us,
            // A node that is alone serves early: starts that have met nobody are to be tested.
            minority_us: options.start_grace_us,
            longest_start_us: options.start_grace_us.max(LONGEST_START_US),
            timing: links::Timing::default(),
        };
        let rng = Rng::raw(options.seed, Stream::Shard(at, node.life, u16::MAX));
        let ids = node.ids.clone().expect("made when the shards were opened");
        let links = Links::new(config, ids, now, rng);
        let peers = (0..options.nodes).filter(|peer| *peer != at).map(|peer| self.keys.node(peer)).collect();
        let config =
            members::Config { node: self.keys.node(at), peers, start: now.wall_ms, timing: members::Timing::default() };
        let rng = Rng::raw(options.seed, Stream::Member(u64::from(at) << 32 | u64::from(node.life)));
        let members = Members::new(config, now.mono_us, rng);
        let view = Arc::new(ClusterView::new(view, &node.catalog.records));
        tasks.iter_mut().for_each(|task| task.views.push(Arc::clone(&view)));
        node.running = Some(Running {
            shards: tasks,
            starts,
            start,
            links,
            links_wake_us: u64::MAX,
            members,
            members_wake_us: u64::MAX,
            open: BTreeMap::new(),
            control: ControlTask::new(node.catalog.clone()),
            ring,
            view,
            met_all: false,
            leaving: None,
        });
        if let Some(view) = self.nodes[usize::from(at)].running.as_ref().map(|running| Arc::clone(&running.view)) {
            self.versions_seen(at, &view);
        }
        self.tell_all(at, &Event::Start(start));
        self.link_event(at, LinkEvent::Tick);
        self.member_event(at, MemberEvent::Tick);
        if self.has_changes() {
            self.ring_event(at, RingEvent::Tick);
        }
    }

    /// Compares the stored hash trees of a node with its objects.
    pub(super) fn check_trees(&mut self, at: NodeIndex) {
        for (shard, disk) in self.nodes[usize::from(at)].disks.iter().enumerate() {
            let problems = disk.tree_problems(&self.causal_key).into_iter();
            self.recorder.trees.extend(problems.map(|problem| format!("n{at}, shard {shard}: {problem}")));
        }
    }

    fn open_shards(
        &mut self,
        at: NodeIndex,
        clean: bool,
        lost: bool,
        ring: Option<&RingTask>,
    ) -> Option<Vec<ShardTask>> {
        let view = self.ring_view(ring);
        let options = &self.options;
        let node = &mut self.nodes[usize::from(at)];
        if node.ids.is_none() {
            node.ids =
                Some(Disks::new(DiskId(Rng::raw(options.seed, Stream::Shard(at, node.life, u16::MAX - 1)).next_u64())));
        }
        let replaced = node.is_replaced();
        let view = Arc::new(ClusterView::new(view, &node.catalog.records));
        let mut tasks = Vec::with_capacity(node.disks.len());
        for (index, disk) in (0..).zip(&mut node.disks) {
            if !clean {
                // The replayed tail is made durable before anything else.
                disk.sync(disk.written());
            }
            let config = Config {
                node: node.id,
                shard: index,
                shards: options.shards,
                exchange: ExchangeConfig {
                    interval_us: EXCHANGE_US,
                    view_interval_us: VIEWS_US,
                    max_walks: if options.exchange { ExchangeConfig::default().max_walks } else { 0 },
                    ..ExchangeConfig::default()
                },
                contexts: self.contexts.clone(),
                causal_key: self.causal_key.clone(),
                max_skew_ms: options.max_skew_ms,
                retry_window_ms: options.retry_window_ms,
                max_retry_bytes: options.max_retry_bytes,
                max_receipt_bytes: options.max_receipt_bytes,
                max_ops: options.max_ops,
                max_op_bytes: options.max_ops * OP_BYTES,
                lost,
                rows_lost: node.reported_loss,
                replaced,
                handoff: Default::default(),
                reads: ReadLimits { all_one_in: READS_OF_ALL, ..ReadLimits::default() },
            };
            let rng = Rng::raw(options.seed, Stream::Shard(at, node.life, index));
            let opened = Shard::open(config, Arc::clone(&view), rng, disk);
            let (Ok(shard), Ok(written)) = (opened, disk.commit()) else {
                disk.kill(0);
                return None;
            };
            disk.sync(written);
            tasks.push(ShardTask::new(shard, written, options.max_waiting));
        }
        Some(tasks)
    }

    /// The store has failed for good: the node stops promising at once, and its process ends.
    pub(super) fn fail(&mut self, at: NodeIndex, why: &str) {
        self.note(at, || format!("FAILS: {why}"));
        self.die(at, Death::Kill, None);
    }

    /// Ends a node. `torn`: in the middle of writing a batch of that shard.
    pub(super) fn die(&mut self, at: NodeIndex, death: Death, torn: Option<u16>) {
        let node = &mut self.nodes[usize::from(at)];
        node.doom = None;
        if node.running.take().is_none() {
            return;
        }
        for (index, disk) in (0..).zip(&mut node.disks) {
            if torn == Some(index) && disk.unwritten() > 0 {
                self.recorder.mark("end in the middle of a batch");
            }
            let of_batch = if torn == Some(index) { self.faults.below(disk.unwritten() + 1) } else { 0 };
            disk.kill(of_batch);
            disk.trouble.failing = false;
        }
        (0..self.options.shards).for_each(|shard| self.record_puts(at, shard));
        let down_us = match death {
            Death::Kill => {
                self.recorder.mark("kill");
                self.note(at, || "is KILLED".into());
                let mean_us = if self.faults.percent(60) { 200 * MS } else { 3 * SECOND };
                20 * MS + self.faults.exponential(mean_us)
            }
            Death::Power => {
                self.lose_power(at);
                100 * MS + self.faults.exponential(2 * SECOND)
            }
        };
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(down_us, Occurrence::Boot { node: at, life });
    }

    /// Unsynced changes are lost from some point on: all, some or none, as the atlas allows.
    fn lose_power(&mut self, at: NodeIndex) {
        self.nodes[usize::from(at)].boot += 1;
        let mut lost = 0;
        for shard in 0..self.options.shards {
            let disk = &self.nodes[usize::from(at)].disks[usize::from(shard)];
            let (synced, written) = (disk.synced(), disk.written());
            let wish = if self.faults.percent(60) { synced } else { self.faults.between(synced, written) };
            // The earliest point from there on that keeps every acknowledged write on some disk.
            let cut = (wish..=written).find(|cut| self.may_cut(at, shard, *cut)).unwrap_or(written);
            self.nodes[usize::from(at)].disks[usize::from(shard)].cut(cut);
            lost += written - cut;
        }
        if lost > 0 {
            self.recorder.mark("power lost with writes");
            self.recorder.run.losses.push(Loss {
                node: at,
                at_us: self.now_us,
                synced: false,
                wiped: false,
                known_us: None,
            });
        }
        self.note(at, || format!("LOSES POWER, and {lost} changes that were not durable"));
    }

    fn may_cut(&self, at: NodeIndex, shard: u16, cut: u64) -> bool {
        let disk = &self.nodes[usize::from(at)].disks[usize::from(shard)];
        disk.objects_after_cut(cut).iter().all(|(key, left)| self.may_forget(at, shard, key, left.as_deref()))
    }

    /// Whether the atlas lets a disk forget what it holds under a key, down to `left`.
    pub(super) fn may_forget(&self, at: NodeIndex, shard: u16, store_key: &[u8], left: Option<&[u8]>) -> bool {
        let disk = |node: NodeIndex| &self.nodes[usize::from(node)].disks[usize::from(shard)];
        let others = (0..self.options.nodes).filter(|node| *node != at).filter_map(|node| disk(node).object(store_key));
        // A copy in an unreadable block counts too: the block may become readable, and the write would be gone.
        let now = disk(at).object_on_disk(store_key).map(|bytes| &bytes[..]);
        self.atlas.allows(self.keys.of_store_key(store_key), now, left, others.map(|bytes| &bytes[..]))
    }

    /// A clean stop: everything is durable, and the state file says so.
    pub(super) fn stop(&mut self, at: NodeIndex) {
        let running = self.nodes[usize::from(at)].running.as_ref();
        let open: Vec<(u32, NodeIndex)> = running
            .map(|running| running.open.iter().map(|(number, open)| (*number, open.peer)).collect())
            .unwrap_or_default();
        for (connection, peer) in open {
            self.post_parcel(at, peer, connection, Parcel::Closed(None), true);
        }
        let node = &mut self.nodes[usize::from(at)];
        let Some(running) = node.running.take() else { return };
        node.doom = None;
        for disk in &mut node.disks {
            disk.sync(disk.written());
        }
        let renewal_owed = running.shards.iter().any(|task| task.batch.shard().owes_ends());
        node.state = node.state.map(|state| State { clean: true, renewal_owed, ..state });
        let life = node.life;
        self.note(at, || "stops".into());
        let down_us = 20 * MS + self.faults.exponential(500 * MS);
        self.plan_in(down_us, Occurrence::Boot { node: at, life });
    }
}
