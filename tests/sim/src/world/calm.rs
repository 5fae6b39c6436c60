//! The liveness phase: all faults end, and then all owners must agree in bounded virtual time.
//!
//! First they must come to agree by themselves, without a read, and replicas that have lost something must be rebuilt.
//! Then every key is read from all of its owners: each read must succeed, and what the reads fold the owners must agree
//! about again. In runs without exchanges the reads alone bring them together.

use rejoin_core::exchange::{ExchangeConfig, MAX_WALK_BYTES};
use rejoin_proto::{Object, codec};

use super::node::{SERVICE_US, SYNC_US};
use super::{Occurrence, World};
use crate::history::{Bound, Final, KeyId, NodeIndex, Outcome, Run};
use crate::options::SECOND;
use crate::workload::{self, Session};

/// The most questions of peers' walks for which a shard reads rows at once.
const MOST_SERVED: usize = 16;
/// The time after the last fault in which all nodes must serve and be connected, and all old calls and messages end.
const SETTLED_US: u64 = 120 * SECOND;
/// The time after that in which changes of layout must end.
const CHANGED_US: u64 = 120 * SECOND;
/// The time after that in which every node must come to take every other one for alive.
const TRUSTED_US: u64 = 30 * SECOND;
/// The time after that in which every leaf of every hash tree must be known.
const COUNTED_US: u64 = 30 * SECOND;
/// The time after that in which every fallback must have handed over what it holds.
const DRAINED_US: u64 = 60 * SECOND;
/// The time limit of one round of reads.
const ROUND_US: u64 = 60 * SECOND;
/// The time in which exchanges must bring all owners together.
const AGREED_US: u64 = 120 * SECOND;
/// Without exchanges all owners must agree after so many rounds of reads: the first joins what is there, the second
/// folds what a plugin makes of that.
const ROUNDS: u32 = 4;
/// Keys that are read at the same time: fewer than the fewest requests that a shard is allowed.
const READERS: u16 = 4;
/// Shards that take fewer requests than that also hold so few bytes that two reads may not fit.
const FEW_OPS: usize = 64;

impl World {
    /// Puts everything right and waits until all owners of every key agree. Returns what did not come to pass.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        self.put_right();
        let until_us = self.now_us + SETTLED_US;
        if !self.run_while(until_us, Self::is_quiet) {
            return vec![format!("{} s after the last fault: {}", SETTLED_US / SECOND, self.unquiet())];
        }
        let until_us = self.now_us + CHANGED_US;
        if self.has_changes() && !self.run_while(until_us, |world| world.unfinished_change().is_none()) {
            return self.unfinished_change().into_iter().collect();
        }
        self.settle_owners();
        let until_us = self.now_us + TRUSTED_US;
        if !self.run_while(until_us, |world| world.suspicions().is_empty()) {
            return vec![format!(
                "{} s after all nodes were connected: (by, of) {:?} are suspected",
                TRUSTED_US / SECOND,
                self.suspicions()
            )];
        }
        let until_us = self.now_us + COUNTED_US;
        if !self.run_while(until_us, Self::has_whole_trees) {
            return vec![format!("{} s after the last fault hash trees have unknown leaves", COUNTED_US / SECOND)];
        }
        let until_us = self.now_us + DRAINED_US;
        if !self.run_while(until_us, |world| world.held_elsewhere().is_none()) {
            return self.held_elsewhere().into_iter().collect();
        }
        for _ in 0..READERS {
            self.sessions.push(Session::new(self.sessions.len() as u32));
        }
        let mut problems = self.mend_versions();
        if !problems.is_empty() {
            return problems;
        }
        for round in 1..=ROUNDS {
            if self.options.exchange {
                problems.extend(self.agree().map(|apart| format!("without a read {apart}")));
            }
            problems.extend(self.read_everything(round));
            if self.options.exchange {
                problems.extend(self.agree().map(|apart| format!("after a round of reads {apart}")));
                return problems;
            }
            if !problems.is_empty() || self.disagreement().is_none() {
                return problems;
            }
        }
        problems.extend(self.disagreement());
        problems
    }

    /// Waits until the owners of every key agree, and no replica lacks anything. Returns what is not so in the end.
    pub(super) fn agree(&mut self) -> Option<String> {
        let until_us = self.now_us + AGREED_US;
        while let Some(apart) = self.disagreement().or_else(|| self.gap()) {
            if self.now_us >= until_us {
                return Some(apart);
            }
            self.run_until(self.now_us + SECOND / 2);
        }
        None
    }

    fn put_right(&mut self) {
        self.trace.line(self.now_us, None, None, || "CALM: everything is put right".into());
        (self.open, self.network.calm, self.plugin_trouble) = (false, true, 0);
        self.versions.undos.clear();
        let nodes = self.options.nodes;
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            while self.network.is_cut(from, to) {
                self.mend(from, to);
            }
        }
        for at in 0..nodes {
            self.set_clock(at, 0);
            let node = &mut self.nodes[usize::from(at)];
            (node.service_us, node.sync_us, node.doom) = (SERVICE_US, SYNC_US, None);
            node.disks.iter_mut().for_each(|disk| disk.trouble = Default::default());
            let life = node.life;
            self.plan_in(SECOND, Occurrence::Boot { node: at, life });
        }
    }

    /// Whether all nodes serve and know one another, and nothing of the chaos is under way.
    fn is_quiet(&self) -> bool {
        let idle = self.sessions.iter().all(|session| session.pending.is_none());
        idle && self.network.under_way == 0
            && self.nodes.iter().all(super::node::Node::takes_clients)
            && self.is_connected()
            && self.catalogs_are_equal()
            && !self.is_working()
    }

    /// Whether every node holds a connection to every other one, of which the other one knows: a call that uses one
    /// that is dead is lost with it.
    fn is_connected(&self) -> bool {
        let nodes = self.options.nodes;
        let pairs = (0..nodes).flat_map(|at| (0..nodes).map(move |peer| (at, peer))).filter(|(at, peer)| at != peer);
        pairs.into_iter().all(|(at, peer)| {
            let (held, other) = (self.held(at, peer), self.nodes[usize::from(peer)].running.as_ref());
            other.is_some_and(|other| other.open.contains_key(&held))
        })
    }

    /// A node that has an object which it does not own, or says that it does.
    fn held_elsewhere(&self) -> Option<String> {
        for (at, node) in (0..).zip(&self.nodes) {
            let tasks = node.running.iter().flat_map(|running| &running.shards);
            let held: usize = tasks.map(|task| task.batch.shard().holdings()).sum();
            let mut keys = node.disks.iter().flat_map(|disk| disk.object_keys());
            let stray = keys.find(|key| !self.keys.place(self.keys.of_store_key(key)).owners.contains(&at));
            if let Some(key) = stray {
                let key = self.keys.of_store_key(key);
                return Some(format!("n{at} still has an object of k{key}, whose owners are all in reach"));
            }
            if held > 0 {
                return Some(format!("n{at} still says that it holds something of {held} partitions, and has nothing"));
            }
        }
        None
    }

    fn catalogs_are_equal(&self) -> bool {
        let mut digests =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| running.control.control.digest());
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }

    fn has_whole_trees(&self) -> bool {
        self.nodes.iter().flat_map(|node| &node.disks).all(crate::disk::Disk::has_whole_trees)
    }

    /// A replica that is not rebuilt.
    fn gap(&self) -> Option<String> {
        let running = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.running.as_ref()?)));
        let mut shards = running.flat_map(|(at, running)| running.shards.iter().map(move |task| (at, task)));
        shards.find_map(|(at, task)| {
            let incomplete = task.batch.shard().exchange_status().incomplete;
            (!incomplete.is_empty()).then(|| format!("n{at} is not rebuilt in partitions {incomplete:?}"))
        })
    }

    /// Whether a replica may lack something of a key.
    fn has_gap(&self, place: &crate::keys::Place, owner: NodeIndex) -> bool {
        self.nodes[usize::from(owner)].running.as_ref().is_some_and(|running| {
            let partition = running.view.layout().partition(&place.object);
            let shard = running.shards[usize::from(place.shard)].batch.shard();
            shard.exchange_status().incomplete.contains(&partition)
        })
    }

    /// Whether a shard has requests under way.
    fn is_working(&self) -> bool {
        let mut tasks = self.nodes.iter().filter_map(|node| node.running.as_ref()).flat_map(|running| &running.shards);
        tasks.any(|task| task.batch.shard().in_flight() > 0)
    }

    fn unquiet(&self) -> String {
        let waiting = self.sessions.iter().filter(|session| session.pending.is_some()).count();
        let away: Vec<usize> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].takes_clients()).collect();
        let (connected, working, messages) = (self.is_connected(), self.is_working(), self.network.under_way);
        let equal = self.catalogs_are_equal();
        format!(
            "{waiting} sessions wait, nodes {away:?} take no clients, all connected: {connected}, catalogs equal: {equal}, requests under way: {working}, messages: {messages}"
        )
    }

    /// Reads every key from all owners. Every read must succeed.
    pub(super) fn read_everything(&mut self, round: u32) -> Vec<String> {
        let readers = self.sessions.len() - usize::from(READERS);
        let keys: Vec<KeyId> = (0..self.keys.places.len() as KeyId).collect();
        let first = self.recorder.run.calls.len();
        // An owner that may have lost its copy has no answer. The read repairs it if another owner has the object.
        let may_be_lost = |place: &crate::keys::Place, owner: NodeIndex| {
            self.nodes[usize::from(owner)].disks[usize::from(place.shard)].lost_upto(&place.store_key).is_some()
        };
        let lost: Vec<bool> =
            self.keys.places.iter().map(|place| place.owners.iter().any(|owner| may_be_lost(place, *owner))).collect();
        // Shards that may hold few bytes are asked one thing at a time: whatever is alone must be served.
        let at_once = if self.options.max_ops < FEW_OPS { 1 } else { usize::from(READERS) };
        for some in keys.chunks(at_once) {
            for (reader, key) in (readers as u16..).zip(some) {
                let n = self.keys.place(*key).owners.len() as u8;
                let ask = workload::get(*key, Some(n), &self.keys);
                let Some(node) = self.some_node() else { return vec!["no node takes requests".into()] };
                self.ask(reader, node, ask);
            }
            let until_us = self.now_us + ROUND_US;
            self.run_while(until_us, |world| world.sessions.iter().all(|session| session.pending.is_none()));
        }
        let until_us = self.now_us + ROUND_US;
        self.run_while(until_us, |world| !world.is_working() && world.network.under_way == 0);
        let calls = self.recorder.run.calls.iter().enumerate().skip(first);
        // A replica that has lost something is repaired by these reads like any other, and they do not count it.
        let counts_all = |key: KeyId| {
            let place = self.keys.place(key);
            !lost[key as usize] && place.owners.iter().all(|owner| !self.has_gap(place, *owner))
        };
        let failed = calls.filter(|(_, call)| !matches!(call.outcome, Outcome::Ok(_)) && counts_all(call.key));
        failed
            .map(|(id, call)| {
                format!("round {round}: read c{id} of k{} at n{} ended with {:?}", call.key, call.node, call.outcome)
            })
            .collect()
    }

    /// A key of which two owners hold different objects.
    fn disagreement(&self) -> Option<String> {
        let copy = |place: &crate::keys::Place, node: NodeIndex| {
            self.nodes[usize::from(node)].disks[usize::from(place.shard)].object(&place.store_key).cloned()
        };
        let apart = |place: &&crate::keys::Place| {
            place.owners.windows(2).any(|pair| copy(place, pair[0]) != copy(place, pair[1]))
        };
        let place = self.keys.places.iter().find(apart)?;
        let copies = place
            .owners
            .iter()
            .map(|node| format!("n{node}: {:?}", copy(place, *node).map(|bytes| codec::decode::<Object>(&bytes))));
        Some(format!("the owners of {:?} differ: {}", place.name, copies.collect::<Vec<_>>().join("; ")))
    }

    /// The record, with what the owners hold in the end.
    pub(crate) fn finish(&mut self) -> Run {
        (0..self.options.nodes).for_each(|at| self.check_trees(at));
        let mut run = std::mem::take(&mut self.recorder.run);
        for (key, place) in (0..).zip(&self.keys.places) {
            for &node in &place.owners {
                let disk = &self.nodes[usize::from(node)].disks[usize::from(place.shard)];
                let stored = disk.object(&place.store_key).map(|bytes| codec::decode::<Object>(bytes));
                run.finals.push(Final { key, node, object: stored.map_or(Some(Object::default()), Result::ok) });
            }
        }
        let limit = 2 * self.options.max_ops as u64;
        run.bounds.push(Bound { what: "requests under way in a shard", most: self.recorder.most_under_way, limit });
        let (most, walks) = (self.recorder.most_walking, ExchangeConfig::default().max_walks);
        let bound = |what, most: usize, limit: usize| Bound { what, most: most as u64, limit: limit as u64 };
        run.bounds.extend([
            bound("walks under way in a shard", most.walks, walks),
            bound("bytes of memory of a walk", most.walk_bytes, MAX_WALK_BYTES),
            bound("questions of walks that wait for rows in a shard", most.serving, MOST_SERVED),
        ]);
        if self.options.faults.version > 0 {
            let (most, limit) = (self.recorder.most_receipt_bytes, self.options.max_receipt_bytes);
            run.bounds.push(Bound { what: "bytes of receipts in a shard", most, limit });
        }
        let walls = (0..self.options.nodes).map(|at| self.wall_ms(at));
        run.wall_ms = walls.fold((u64::MAX, self.latest_wall_ms), |(low, high), wall| (low.min(wall), high.max(wall)));
        run
    }
}
