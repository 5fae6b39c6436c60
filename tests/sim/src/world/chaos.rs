//! Faults: when each class strikes, and how each fault ends.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use rejoin_core::control::{Catalog, CatalogChange, CatalogEvent, Wait};
use rejoin_proto::catalog::{BucketProps, RecordBody, RecordKey};
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::peer::ActorNext;
use rejoin_proto::{ActorId, Name};

use super::node::{Backup, SERVICE_US, SYNC_US};
use super::versions::Stage;
use super::{Occurrence, World};
use crate::disk::Disk;
use crate::history::{Loss, NodeIndex};
use crate::options::{FaultOptions, MS, SECOND};
use crate::rng::Rng;

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Death {
    /// A kill of the process.
    Kill,
    /// A power loss of the machine.
    Power,
}

/// A class of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Partition,
    OneWay,
    Flap,
    Reset,
    Kill,
    Power,
    Stop,
    Wipe,
    OldCopy,
    Loss,
    BadBlock,
    Clock,
    SlowNode,
    SlowDisk,
    FullDisk,
    Busy,
    Failing,
    Plugin,
    Catalog,
    Race,
    Crammed,
    LostRange,
    Layout,
    Bridge,
    Version,
}

/// The end of a fault.
#[derive(Debug)]
pub(super) enum Heal {
    Links(Vec<(NodeIndex, NodeIndex)>),
    /// A flapping link is cut again, `times` more.
    Flap {
        a: NodeIndex,
        b: NodeIndex,
        times: u64,
    },
    Node(NodeIndex),
    Disk(NodeIndex),
    Room(NodeIndex),
    /// A node with a full disk is killed `kills` times more, then there is room.
    Crammed {
        at: NodeIndex,
        kills: u64,
    },
    Store(NodeIndex),
    Blocks(NodeIndex),
    Plugins,
}

/// A row of an observed counter, in the core's frozen encoding.
#[derive(Serialize, Deserialize)]
struct ObservedRow(u64);

impl Versioned for ObservedRow {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "observed row";
}

/// The classes that are on, with the mean time between two.
fn classes(faults: &FaultOptions) -> Vec<(Class, u64)> {
    let all = [
        (Class::Partition, faults.partition),
        (Class::OneWay, faults.one_way),
        (Class::Flap, faults.flap),
        (Class::Reset, faults.reset),
        (Class::Kill, faults.kill),
        (Class::Power, faults.power),
        (Class::Stop, faults.stop),
        (Class::Wipe, faults.wipe),
        (Class::OldCopy, faults.old_copy),
        (Class::Loss, faults.loss),
        (Class::BadBlock, faults.bad_block),
        (Class::Clock, faults.clock),
        (Class::SlowNode, faults.slow_node),
        (Class::SlowDisk, faults.slow_disk),
        (Class::FullDisk, faults.full_disk),
        (Class::Busy, faults.busy),
        (Class::Failing, faults.failing),
        (Class::Plugin, faults.plugin),
        (Class::Catalog, faults.catalog),
        (Class::Race, faults.race),
        (Class::Crammed, faults.crammed),
        (Class::LostRange, faults.lost_range),
        (Class::Layout, faults.layout),
        (Class::Bridge, faults.bridge),
        (Class::Version, faults.version),
    ];
    all.into_iter().filter(|(_, every_us)| *every_us > 0).collect()
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for (class, every_us) in classes(&self.options.faults) {
            let first_us = self.faults.exponential(every_us);
            self.plan_in(first_us, Occurrence::Fault(class));
        }
    }

    pub(super) fn fault_due(&mut self, class: Class) {
        if self.network.calm {
            return;
        }
        let every = classes(&self.options.faults).into_iter().find(|(of, _)| *of == class);
        let again_us = every.map_or(SECOND, |(_, every_us)| self.faults.exponential(every_us));
        self.plan_in(again_us + 1, Occurrence::Fault(class));
        // While a node with an old disk meets its peers, none of them may lose the observed counters of that node, or
        // nobody could find it out. Kills and failed writes lose none, and a store that loses objects keeps its pinned
        // rows.
        let forgets = matches!(class, Class::Power | Class::Wipe | Class::OldCopy);
        if !forgets || !self.old_disks_are_met() {
            self.trace.event(self.now_us, 255, class as u64);
            self.strike(class);
        }
    }

    pub(super) fn any_node(&mut self) -> NodeIndex {
        self.faults.index(self.nodes.len()) as NodeIndex
    }

    /// The duration of a passing fault: mostly short, sometimes longer than the idle time of connections.
    fn a_while(&mut self) -> u64 {
        let mean = *self.faults.pick(&[50 * MS, 500 * MS, 3 * SECOND]);
        10 * MS + self.faults.exponential(mean)
    }

    fn strike(&mut self, class: Class) {
        let at = self.any_node();
        match class {
            Class::Partition => self.partition(),
            Class::OneWay => self.one_way(at),
            Class::Flap => {
                let (b, times) = (self.another(at), self.faults.between(3, 12));
                self.heal(Heal::Flap { a: at, b, times });
            }
            Class::Reset => {
                let peer = self.another(at);
                self.reset(at, peer);
            }
            Class::Kill | Class::Power => self.kill(at, if class == Class::Kill { Death::Kill } else { Death::Power }),
            Class::Stop => self.leave(at),
            Class::Wipe => self.wipe(at),
            Class::OldCopy => self.old_copy(at),
            Class::Loss => self.lose(at),
            Class::BadBlock => self.bad_block(at),
            Class::Clock => self.jump(at),
            Class::SlowNode => {
                self.nodes[usize::from(at)].service_us = *self.faults.pick(&[MS, 5 * MS, 50 * MS]);
                self.for_a_while(at, "is slow", Heal::Node(at));
            }
            Class::SlowDisk => {
                self.nodes[usize::from(at)].sync_us = *self.faults.pick(&[20 * MS, 200 * MS, 3 * SECOND]);
                self.for_a_while(at, "has a slow disk", Heal::Disk(at));
            }
            Class::FullDisk => {
                self.trouble(at, |disk| disk.trouble.full = true);
                self.for_a_while(at, "has a full disk", Heal::Room(at));
            }
            Class::Busy => self.busy(at),
            Class::Failing => {
                let shard = self.faults.index(usize::from(self.options.shards));
                self.nodes[usize::from(at)].disks[shard].trouble.failing = true;
            }
            Class::Plugin => {
                self.plugin_trouble = *self.faults.pick(&[20, 50, 100]);
                let us = self.a_while();
                self.plan_in(us, Occurrence::Heal(Heal::Plugins));
            }
            Class::Catalog => self.change_catalog(at),
            Class::Race => self.race(at),
            Class::Crammed => self.cram(at),
            Class::LostRange => self.lose_range(at),
            Class::Bridge => self.bridge(),
            Class::Version => self.change_version(at),
            Class::Layout => {
                if self.options.faults.bridge > 0 && self.faults.percent(50) {
                    self.bridge();
                }
                self.change_layout(at);
                if self.faults.percent(15) {
                    // Two operators at once, who need not have heard of one another's change.
                    let other = self.another(at);
                    self.change_layout(other);
                }
            }
        }
    }

    /// The store of a node is behind its flushes. Owners take the same writes, so others often are at the same time.
    fn busy(&mut self, at: NodeIndex) {
        let others = if self.faults.percent(50) { 60 } else { 0 };
        let mean = *self.faults.pick(&[30 * MS, 30 * MS, 200 * MS]);
        let mut count = 0;
        for node in 0..self.nodes.len() as NodeIndex {
            if node != at && !self.faults.percent(others) {
                continue;
            }
            count += 1;
            self.trouble(node, |disk| disk.trouble.busy = true);
            let us = MS + self.faults.exponential(mean);
            self.plan_in(us, Occurrence::Heal(Heal::Store(node)));
            self.note(node, || format!("has a store that is behind its flushes for {} ms", us / MS));
        }
        self.recorder.mark(if count > 1 { "busy stores" } else { "busy store" });
    }

    fn for_a_while(&mut self, at: NodeIndex, what: &'static str, heal: Heal) {
        let us = self.a_while();
        self.note(at, || format!("{what} for {} ms", us / MS));
        self.plan_in(us, Occurrence::Heal(heal));
    }

    fn trouble(&mut self, at: NodeIndex, change: impl FnMut(&mut Disk)) {
        self.nodes[usize::from(at)].disks.iter_mut().for_each(change);
    }

    pub(super) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Links(links) => links.into_iter().for_each(|(from, to)| self.mend(from, to)),
            Heal::Flap { a, b, times } => self.flap(a, b, times),
            Heal::Node(at) => self.nodes[usize::from(at)].service_us = SERVICE_US,
            Heal::Disk(at) => self.nodes[usize::from(at)].sync_us = SYNC_US,
            Heal::Room(at) => self.trouble(at, |disk| disk.trouble.full = false),
            Heal::Crammed { at, kills } => self.kill_crammed(at, kills),
            Heal::Store(at) => self.trouble(at, |disk| disk.trouble.busy = false),
            Heal::Blocks(at) => self.trouble(at, |disk| disk.trouble.bad_blocks.clear()),
            Heal::Plugins => self.plugin_trouble = 0,
        }
    }

    fn another(&mut self, than: NodeIndex) -> NodeIndex {
        let other = self.faults.index(self.nodes.len() - 1) as NodeIndex;
        if other >= than { other + 1 } else { other }
    }

    fn cut(&mut self, links: Vec<(NodeIndex, NodeIndex)>, us: u64, what: &str) {
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        let shown: Vec<String> =
            if self.trace.is_kept() { links.iter().map(|(a, b)| format!("{a}>{b}")).collect() } else { Vec::new() };
        self.trace.line(self.now_us, None, None, || format!("{what}: {} for {} ms", shown.join(" "), us / MS));
        self.plan_in(us, Occurrence::Heal(Heal::Links(links)));
    }

    pub(super) fn mend(&mut self, from: NodeIndex, to: NodeIndex) {
        for (connection, envelope) in self.network.mend(from, to) {
            self.post_parcel(from, to, connection, super::Parcel::Message(envelope), false);
        }
    }

    /// Cuts the nodes into two sides.
    fn partition(&mut self) {
        let sides: Vec<bool> = (0..self.options.nodes).map(|_| self.faults.percent(50)).collect();
        let all = 0..self.options.nodes;
        let apart = |(from, to): &(NodeIndex, NodeIndex)| sides[usize::from(*from)] != sides[usize::from(*to)];
        let links = all.clone().flat_map(|from| all.clone().map(move |to| (from, to))).filter(apart).collect();
        let us = self.a_while();
        self.cut(links, us, "partition");
    }

    /// Cuts the nodes into two sides, but for those that reach both. So all hear of a change of layout, and not all
    /// owners can meet.
    fn bridge(&mut self) {
        let side = |rng: &mut Rng| (!rng.percent(30)).then(|| rng.percent(50));
        let sides: Vec<Option<bool>> = (0..self.options.nodes).map(|_| side(&mut self.faults)).collect();
        let all = 0..self.options.nodes;
        let apart = |(from, to): &(NodeIndex, NodeIndex)| {
            let of = |at: NodeIndex| sides[usize::from(at)];
            of(*from).zip(of(*to)).is_some_and(|(one, other)| one != other)
        };
        let links = all.clone().flat_map(|from| all.clone().map(move |to| (from, to))).filter(apart).collect();
        let us = self.a_while();
        self.cut(links, us, "bridge");
        self.recorder.mark("bridge");
    }

    /// Cuts one direction: some nodes do not hear a node any more.
    fn one_way(&mut self, at: NodeIndex) {
        let deaf: Vec<NodeIndex> = (0..self.options.nodes).filter(|to| *to != at && self.faults.percent(60)).collect();
        let us = self.a_while();
        self.cut(deaf.into_iter().map(|to| (at, to)).collect(), us, "one way");
    }

    fn flap(&mut self, a: NodeIndex, b: NodeIndex, times: u64) {
        if times == 0 || self.network.calm {
            return;
        }
        let (off_us, on_us) = (5 * MS + self.faults.exponential(300 * MS), 5 * MS + self.faults.exponential(200 * MS));
        self.cut(vec![(a, b), (b, a)], off_us, "flap");
        self.plan_in(off_us + on_us, Occurrence::Heal(Heal::Flap { a, b, times: times - 1 }));
    }

    /// Ends a node now, or in the middle of its next batch.
    fn kill(&mut self, at: NodeIndex, death: Death) {
        if self.nodes[usize::from(at)].running.is_none() {
            return;
        }
        if self.faults.percent(50) {
            self.nodes[usize::from(at)].doom = Some(death);
        } else {
            self.die(at, death, None);
        }
    }

    fn jump(&mut self, at: NodeIndex) {
        // Retries are promised only while clocks differ by no more than the limit.
        let limit = self.options.max_skew_ms;
        let most =
            if self.options.clients.retries.0 > 0 { limit / 2 } else { *self.faults.pick(&[limit / 2, limit * 3]) };
        let skew_ms = self.faults.between(0, 2 * most) as i64 - most as i64;
        self.set_clock(at, skew_ms);
        self.note(at, || format!("has a wall clock that is {skew_ms} ms off"));
    }

    /// Sets a node's wall clock that far off.
    pub(super) fn set_clock(&mut self, at: NodeIndex, skew_ms: i64) {
        self.latest_wall_ms = self.latest_wall_ms.max(self.wall_ms(at));
        self.nodes[usize::from(at)].skew_ms = skew_ms;
    }

    fn bad_block(&mut self, at: NodeIndex) {
        let shard = self.faults.index(usize::from(self.options.shards));
        let keys: Vec<_> = self.nodes[usize::from(at)].disks[shard].object_keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = self.faults.pick(&keys).clone();
        // A bad block is written over by what comes in, so it is as good as lost. What is not acknowledged yet may be
        // lost with it, see `Atlas::replaced`.
        if !self.may_forget(at, shard as u16, &key, None) {
            return;
        }
        self.nodes[usize::from(at)].disks[shard].trouble.bad_blocks.insert(key);
        if self.faults.percent(50) {
            self.for_a_while(at, "cannot read a block", Heal::Blocks(at));
        } else {
            self.note(at, || "cannot read a block until it is written over".into());
        }
    }

    /// A store gives up a table: a range of keys is lost. A node that runs learns of it when it reads such a key; one
    /// that is down is told when its store opens.
    fn lose_range(&mut self, at: NodeIndex) {
        let shard = self.faults.index(usize::from(self.options.shards));
        let keys: Vec<_> = self.nodes[usize::from(at)].disks[shard].object_keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let (one, other) = (self.faults.pick(&keys).clone(), self.faults.pick(&keys).clone());
        let (first, last) = if one <= other { (one, other) } else { (other, one) };
        let disk = &self.nodes[usize::from(at)].disks[shard];
        let index = shard as u16;
        let mut objects = disk.durable_objects(&first, &last).into_keys();
        if !objects.all(|key| self.may_forget(at, index, &key, disk.after_loss(&key).map(|bytes| &bytes[..]))) {
            return;
        }
        let node = &mut self.nodes[usize::from(at)];
        node.reported_loss |= node.running.is_none();
        let lost = node.disks[shard].lose_range(first, last);
        if self.faults.percent(30) {
            // The table had rows of hash trees too.
            node.disks[shard].lose_leaves();
        }
        let count = lost.len();
        for copy in lost {
            self.copy_lost(index, &copy);
        }
        self.recorder.run.losses.push(Loss {
            node: at,
            at_us: self.now_us,
            synced: true,
            wiped: false,
            known_us: None,
        });
        self.recorder.mark("range lost");
        self.note(at, || format!("has LOST a range of keys with {count} objects"));
    }

    /// A disk is full and loses objects: its node comes up, says so, cannot write it down, and is killed there once or
    /// more. Somebody makes room while it is down.
    fn cram(&mut self, at: NodeIndex) {
        self.trouble(at, |disk| disk.trouble.full = true);
        self.lose(at);
        let kills = self.faults.between(1, 3);
        let us = self.a_while();
        self.note(at, || format!("has a full disk, and is to be killed {kills} times on it"));
        self.plan_in(us, Occurrence::Heal(Heal::Crammed { at, kills }));
    }

    fn kill_crammed(&mut self, at: NodeIndex, kills: u64) {
        if self.network.calm {
            return;
        }
        self.die(at, Death::Kill, None);
        if kills > 1 {
            let us = self.a_while();
            return self.plan_in(us, Occurrence::Heal(Heal::Crammed { at, kills: kills - 1 }));
        }
        self.trouble(at, |disk| disk.trouble.full = false);
    }

    /// Whether the atlas lets a node's disks become `left`.
    fn may_become(&self, at: NodeIndex, left: &[Disk]) -> bool {
        let disks = &self.nodes[usize::from(at)].disks;
        (0..).zip(disks.iter().zip(left)).all(|(shard, (disk, left))| {
            let mut keys = disk.object_keys();
            keys.all(|key| self.may_forget(at, shard, key, left.object(key).map(|bytes| &bytes[..])))
        })
    }

    fn wipe(&mut self, at: NodeIndex) {
        let empty = vec![Disk::default(); usize::from(self.options.shards)];
        self.die(at, Death::Kill, None);
        if self.may_become(at, &empty) && self.others_know_the_buckets(at) {
            let ring = self.ring_of_another(at);
            let node = &mut self.nodes[usize::from(at)];
            node.ring = ring;
            (node.disks, node.state, node.backup, node.reported_loss) = (empty, None, None, false);
            (node.ids, node.catalog) = (None, Catalog::default());
            self.recorder.run.losses.push(Loss {
                node: at,
                at_us: self.now_us,
                synced: true,
                wiped: true,
                known_us: None,
            });
            self.recorder.mark("wipe");
            self.note(at, || "has its disk WIPED".into());
        }
    }

    /// Whether another node's kept catalog has every bucket.
    fn others_know_the_buckets(&self, at: NodeIndex) -> bool {
        let knows = |node: &super::node::Node| {
            self.catalog.records.iter().all(|made| node.catalog.records.iter().any(|record| record.key == made.key))
        };
        (0..self.options.nodes).any(|other| other != at && knows(&self.nodes[usize::from(other)]))
    }

    /// Takes a backup; or the machine's disks become those of the backup.
    fn old_copy(&mut self, at: NodeIndex) {
        if self.nodes[usize::from(at)].backup.is_none() || self.faults.percent(40) {
            return self.back_up(at);
        }
        let Some(backup) = self.nodes[usize::from(at)].backup.clone() else { return };
        if !self.will_be_found_out(at, &backup) {
            return;
        }
        self.die(at, Death::Kill, None);
        if !self.may_become(at, &backup.disks) {
            return;
        }
        let node = &mut self.nodes[usize::from(at)];
        (node.disks, node.state, node.ids, node.catalog) =
            (backup.disks, Some(backup.state), backup.ids, backup.catalog);
        self.recorder.run.losses.push(Loss {
            node: at,
            at_us: self.now_us,
            synced: true,
            wiped: false,
            known_us: None,
        });
        self.truce(at);
        let life = self.nodes[usize::from(at)].life;
        self.plan_in(50 * MS, Occurrence::Boot { node: at, life });
        self.recorder.mark("old copy");
        self.note(at, || "has an OLD COPY of its disks put back".into());
    }

    /// Until that node serves, no other may lose power.
    fn truce(&mut self, at: NodeIndex) {
        self.meeting.push(at);
        for node in &mut self.nodes {
            node.doom = node.doom.filter(|death| *death != Death::Power);
        }
    }

    /// Whether a node with an old disk has not met its peers yet, or owes the ends of its tenures. Until these are
    /// written a kill brings the old actors back, and a peer must still know of them.
    fn old_disks_are_met(&mut self) -> bool {
        let nodes = &self.nodes;
        self.meeting.retain(|at| !nodes[usize::from(*at)].has_met_its_peers());
        !self.meeting.is_empty()
    }

    fn back_up(&mut self, at: NodeIndex) {
        let actors = self.actors(at);
        let node = &mut self.nodes[usize::from(at)];
        if let (Some(_), Some(state)) = (&node.running, node.state) {
            let disks = node.disks.iter().map(Disk::copy).collect();
            let (ids, catalog) = (node.ids.clone(), node.catalog.clone());
            node.backup = Some(Backup { disks, state, ids, catalog, actors, puts: node.puts });
            self.note(at, || "is backed up".into());
        }
    }

    /// Whether the handshake must find an old disk out: each of its actors that has gone on since must have been seen
    /// to, and one at least, if anything was written. A disk from before its node's first writes has no actor that a
    /// peer could know, so nobody can tell; then the actors are new, which is safe, but the node takes a retry for a
    /// first attempt.
    fn will_be_found_out(&self, at: NodeIndex, backup: &Backup) -> bool {
        let node = &self.nodes[usize::from(at)];
        let gone_on = |actor: &&ActorNext| {
            let minted = node.minted.iter().find(|(known, _)| *known == actor.actor);
            minted.is_some_and(|(_, highest)| *highest >= actor.next)
        };
        let mut outrun = backup.actors.iter().filter(gone_on).peekable();
        let idle = node.puts == backup.puts;
        (idle || outrun.peek().is_some()) && outrun.all(|actor| self.is_observed(at, actor.actor, actor.next))
    }

    /// Whether a peer remembers, durably, that an actor has used a counter which it would use again: a start that meets
    /// it is told, and one that does not meet everybody takes new actors. If nobody remembers, no handshake could find
    /// an old disk, and neither could anything else.
    fn is_observed(&self, at: NodeIndex, actor: ActorId, next: u64) -> bool {
        // Whatever the partition was called when it was noted.
        let is_of = |key: &[u8]| key.first() == Some(&b'o') && key.ends_with(&actor.0.to_be_bytes());
        let knows = |peer: &NodeIndex| {
            let pinned = self.nodes[usize::from(*peer)].disks.iter().flat_map(Disk::all_pinned);
            let mut rows = pinned.filter(|(key, _)| is_of(key)).map(|(_, row)| codec::decode::<ObservedRow>(row));
            rows.any(|row| row.is_ok_and(|row| row.0 >= next))
        };
        (0..self.options.nodes).filter(|peer| *peer != at).any(|peer| knows(&peer))
    }

    /// A store loses some objects, and reports it.
    fn lose(&mut self, at: NodeIndex) {
        self.die(at, Death::Kill, None);
        let mut left = self.nodes[usize::from(at)].disks.clone();
        let share = *self.faults.pick(&[10, 50, 100]);
        for disk in &mut left {
            disk.forget_objects(|| self.faults.percent(share));
        }
        if self.may_become(at, &left) {
            let node = &mut self.nodes[usize::from(at)];
            (node.disks, node.reported_loss) = (left, true);
            self.recorder.run.losses.push(Loss {
                node: at,
                at_us: self.now_us,
                synced: true,
                wiped: false,
                known_us: None,
            });
            self.recorder.mark("reported loss");
            self.note(at, || "has LOST objects, and knows it".into());
        }
    }

    /// An operator changes a bucket at some node; the others learn of it from that one.
    fn change_catalog(&mut self, at: NodeIndex) {
        let bucket = self.faults.index(self.keys.buckets.len());
        if self.versions.stage(bucket) != Stage::Healthy {
            // With what a node knew before the bad version came, good ones would fold what that has made.
            return;
        }
        let siblings = *self.faults.pick(&[2, 3, 8, 32]);
        let of = &self.keys.buckets[bucket];
        let (tenant, name, most) = (of.tenant, of.name.clone(), of.options.siblings.max(2));
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        let key = RecordKey::Bucket(tenant, name.clone());
        let Some(record) = running.control.control.get(&key).cloned() else { return };
        let RecordBody::Bucket { props, .. } = record.body else { return };
        // Within what was promised of it.
        let props = BucketProps { siblings: siblings.clamp(2, most), ..props };
        self.note(at, || format!("bucket b{bucket} is to take {siblings} siblings"));
        self.tell_control(
            at,
            CatalogEvent::Change(0, CatalogChange::BucketSet(tenant, name, record.version, props), nobody()),
            None,
        );
    }

    /// Two operators make one bucket at the same time, with different numbers of copies.
    fn race(&mut self, at: NodeIndex) {
        let (other, number) = (self.another(at), self.faults.below(1 << 32));
        let name = Name::new(format!("raced-{number}")).expect("a good name");
        let tenant = self.keys.buckets[0].tenant;
        self.note(at, || format!("makes bucket {name}, and so does n{other}"));
        for (node, n) in [(at, 1), (other, 3)] {
            let props = BucketProps { n, ..BucketProps::default() };
            self.tell_control(
                node,
                CatalogEvent::Change(0, CatalogChange::BucketCreate(tenant, name.clone(), props), nobody()),
                None,
            );
        }
    }
}

/// A wait for the connected nodes only.
pub(super) fn nobody() -> Wait {
    Wait { all: BTreeSet::new(), until_us: 0 }
}
