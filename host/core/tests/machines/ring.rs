//! The machine that changes layouts, on a few nodes with data of the simplest kind: numbered writes that owners have or
//! have not. Messages are late, links break, nodes restart and disks are full; whatever happens, a quorum read finds
//! every acknowledged write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::placement::bootstrap;
use rejoin_core::ring::{
    Awaited, CopiesChange, GOSSIP_US, RingCommand, RingControl, RingEffect, RingEvent, RingView, SAVE_AGAIN_US,
    Staging, Step, plan,
};
use rejoin_proto::ring::Role;
use rejoin_proto::{
    Address, BucketId, ErrorCode, ErrorReply, Layout, LayoutNode, LayoutRef, Name, NodeId, PartitionId, Ring,
    RingMessage,
};

/// The copies of the only bucket, until they are changed.
const N: u8 = 3;
pub(crate) const BUCKET: BucketId = BucketId(7);
pub(crate) const PARTITIONS: u32 = 8;
/// The parts of the ring in which there are writes: as many as the partitions can come to.
const KEYS: u32 = 32;
const SHARDS: u16 = 2;

pub(crate) fn name(at: usize) -> Name {
    Name::new(format!("n{at}")).expect("a good name")
}

pub(crate) fn id(at: usize) -> NodeId {
    NodeId::from_name(&name(at))
}

pub(crate) fn address(at: usize) -> Address {
    Address::from(([127, 0, 0, 1], 7_000 + at as u16))
}

fn first_layout(nodes: usize) -> Layout {
    let zone = Name::new("z").expect("a good name");
    let node = |at| LayoutNode { id: id(at), name: name(at), zone: zone.clone(), capacity: 1, address: address(at) };
    bootstrap((0..nodes).map(node).collect(), PARTITIONS).expect("a layout")
}

pub(crate) fn member(capacity: u32) -> Role {
    Role::Member { zone: Name::new("z").expect("a good name"), capacity }
}

/// One node: the machine, and what its shards have.
pub(crate) struct Node {
    pub(crate) control: RingControl,
    /// As it was saved last.
    kept: Ring,
    view: RingView,
    held: BTreeMap<PartitionId, BTreeSet<u32>>,
    /// For the newest layout: from whom what was taken.
    taken: BTreeSet<(PartitionId, NodeId)>,
    settled: BTreeSet<(u16, u64)>,
    exchanged: BTreeSet<(u16, LayoutRef)>,
    is_disk_full: bool,
}

/// A write under way.
struct Write {
    coordinator: NodeId,
    partition: PartitionId,
    number: u32,
    generation: u64,
    by: LayoutRef,
    /// The owners in each live layout, as the coordinator saw them, and how many of them are needed.
    owners: Vec<(Vec<NodeId>, usize)>,
    unasked: Vec<NodeId>,
    stored: BTreeSet<NodeId>,
}

pub(crate) struct World {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    wire: BTreeMap<(NodeId, NodeId), VecDeque<RingMessage>>,
    /// Links that are up, each in both directions.
    links: BTreeSet<(NodeId, NodeId)>,
    writes: Vec<Write>,
    acknowledged: BTreeMap<PartitionId, BTreeSet<u32>>,
    pub(crate) answers: Vec<(NodeId, Result<LayoutRef, ErrorReply>)>,
    rng: Xoshiro256PlusPlus,
    now_us: u64,
    next: u32,
    reads: u32,
    /// Writes that an owner has refused because they were by an older layout.
    refused: u32,
}

impl World {
    /// A cluster of so many members, and some more nodes that know it.
    pub(crate) fn new(members: usize, others: usize, seed: u64) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            wire: BTreeMap::new(),
            links: BTreeSet::new(),
            writes: Vec::new(),
            acknowledged: BTreeMap::new(),
            answers: Vec::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            now_us: 0,
            next: 0,
            reads: 0,
            refused: 0,
        };
        let ring = Ring::new(first_layout(members));
        for at in 0..members + others {
            let (rng, own) = (Xoshiro256PlusPlus::seed_from_u64(seed + at as u64), (name(at), address(at)));
            let control = RingControl::new(id(at), SHARDS, ring.clone(), own, rng);
            let (kept, view) = (control.ring().clone(), control.view());
            let (held, taken) = (BTreeMap::new(), BTreeSet::new());
            let (settled, exchanged) = (BTreeSet::new(), BTreeSet::new());
            let node = Node { control, kept, view, held, taken, settled, exchanged, is_disk_full: false };
            world.nodes.insert(id(at), node);
        }
        let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
        for (at, &one) in ids.iter().enumerate() {
            ids[at + 1..].iter().for_each(|&other| world.connect(one, other));
        }
        // Until all have heard of all.
        world.settle();
        world
    }

    fn pick(&mut self, count: usize) -> usize {
        (self.rng.next_u64() % count.max(1) as u64) as usize
    }

    fn any(&mut self) -> NodeId {
        let at = self.pick(self.nodes.len());
        self.nodes.keys().nth(at).copied().expect("a node")
    }

    fn connect(&mut self, one: NodeId, other: NodeId) {
        if one != other && self.links.insert((one.min(other), one.max(other))) {
            self.handle(one, RingEvent::PeerUp(other));
            self.handle(other, RingEvent::PeerUp(one));
        }
    }

    pub(crate) fn disconnect(&mut self, one: NodeId, other: NodeId) {
        if self.links.remove(&(one.min(other), one.max(other))) {
            self.wire.remove(&(one, other));
            self.wire.remove(&(other, one));
            self.handle(one, RingEvent::PeerDown(other));
            self.handle(other, RingEvent::PeerDown(one));
        }
    }

    pub(crate) fn handle(&mut self, at: NodeId, event: RingEvent) {
        let (mut next, now_us) = (Some(event), self.now_us);
        while let Some(event) = next.take() {
            let node = self.nodes.get_mut(&at).expect("a node");
            let mut effects = Vec::new();
            node.control.handle(now_us, 1_000, event, &mut effects);
            for effect in effects {
                match effect {
                    RingEffect::Save => {
                        let full = || ErrorReply::new(ErrorCode::DiskFull, "the disk is full");
                        let result = if node.is_disk_full { Err(full()) } else { Ok(()) };
                        if result.is_ok() {
                            node.kept = node.control.ring().clone();
                        }
                        next = Some(RingEvent::Saved(result));
                    }
                    RingEffect::Changed => {
                        let newest = |view: &RingView| view.live.last().map(Layout::name);
                        let view = node.control.view();
                        if newest(&view) != newest(&node.view) {
                            node.taken.clear();
                        }
                        node.view = view;
                    }
                    RingEffect::Send(to, message) => {
                        if self.links.contains(&(at.min(to), at.max(to))) {
                            self.wire.entry((at, to)).or_default().push_back(message);
                        }
                    }
                    RingEffect::Answer(_, answer) => self.answers.push((at, answer)),
                }
            }
        }
    }

    /// One of the things that can happen now. The order is the seed's.
    fn step(&mut self) {
        match self.pick(12) {
            0 | 1 if self.writes.len() < 8 => self.begin_write(),
            0..=4 => self.go_on_with_a_write(),
            5 | 6 => self.deliver(),
            7 => self.report(),
            8 => self.take(),
            9 => self.read(),
            10 => self.hand_over(),
            _ => {
                self.now_us += GOSSIP_US / 4;
                let at = self.any();
                if self.nodes[&at].control.next_wake_us() <= self.now_us {
                    self.handle(at, RingEvent::Tick);
                }
            }
        }
    }

    fn deliver(&mut self) {
        let at = self.pick(self.wire.len());
        let Some((&(from, to), queue)) = self.wire.iter_mut().nth(at) else { return };
        match queue.pop_front() {
            Some(message) => self.handle(to, RingEvent::Peer(from, message)),
            None => drop(self.wire.remove(&(from, to))),
        }
    }

    fn begin_write(&mut self) {
        let (coordinator, partition) = (self.any(), PartitionId(self.pick(KEYS as usize) as u16));
        let view = &self.nodes[&coordinator].view;
        if view.live.iter().all(|layout| layout.node(coordinator).is_none()) {
            return;
        }
        let of = |layout: &Layout| (owners(layout, partition), quorum(layout));
        let owners: Vec<(Vec<NodeId>, usize)> = view.live.iter().map(of).collect();
        let unasked: BTreeSet<NodeId> = owners.iter().flat_map(|(owners, _)| owners).copied().collect();
        let by = view.live.last().expect("a layout").name();
        let generation = view.generation;
        self.next += 1;
        self.writes.push(Write {
            coordinator,
            partition,
            number: self.next,
            generation,
            by,
            owners,
            unasked: unasked.into_iter().collect(),
            stored: BTreeSet::new(),
        });
    }

    /// The next owner gets a write, or is found out of reach. A write ends when all were asked.
    fn go_on_with_a_write(&mut self) {
        let at = self.pick(self.writes.len());
        if at >= self.writes.len() {
            return;
        }
        let next = self.pick(self.writes[at].unasked.len());
        let write = &mut self.writes[at];
        let to = write.unasked.swap_remove(next);
        let (from, partition, number) = (write.coordinator, write.partition, write.number);
        let reaches = from == to || self.links.contains(&(from.min(to), from.max(to)));
        if let Some(node) = self.nodes.get_mut(&to).filter(|_| reaches) {
            let refuses = node.view.closed && node.view.live.last().expect("a layout").name() > write.by;
            if refuses {
                self.refused += 1;
            } else {
                node.held.entry(partition).or_default().insert(number);
                write.stored.insert(to);
            }
        }
        if write.unasked.is_empty() {
            let write = self.writes.swap_remove(at);
            let stored = |owners: &Vec<NodeId>| owners.iter().filter(|node| write.stored.contains(node)).count();
            if write.owners.iter().all(|(owners, needed)| stored(owners) >= *needed) {
                self.acknowledged.entry(partition).or_default().insert(number);
            }
        }
    }

    /// A shard tells its control what it has done.
    fn report(&mut self) {
        let (at, shard) = (self.any(), self.pick(usize::from(SHARDS)) as u16);
        let node = self.nodes.get_mut(&at).expect("a node");
        let view = node.view.clone();
        let older = |write: &Write| write.coordinator == at && write.generation < view.generation;
        if !self.writes.iter().any(older) && node.settled.insert((shard, view.generation)) {
            return self.handle(at, RingEvent::Settled { shard, generation: view.generation });
        }
        let layout = view.live.last().expect("a layout").name();
        let of_shard = |partition: &PartitionId| partition.0 % SHARDS == shard;
        let node = &self.nodes[&at];
        let is_done = |wanted: &(PartitionId, NodeId)| node.taken.contains(wanted) || view.dead.contains(&wanted.1);
        let done = wanted(at, &view).filter(|(partition, _)| of_shard(partition)).all(|wanted| is_done(&wanted));
        if view.closed && done && !node.exchanged.contains(&(shard, layout)) {
            self.nodes.get_mut(&at).expect("a node").exchanged.insert((shard, layout));
            self.handle(at, RingEvent::Exchanged { shard, layout });
        }
    }

    /// An owner to be takes what it gains from an older owner.
    fn take(&mut self) {
        let at = self.any();
        let view = &self.nodes[&at].view;
        let open: Vec<(PartitionId, NodeId)> =
            wanted(at, view).filter(|wanted| !self.nodes[&at].taken.contains(wanted)).collect();
        let which = self.pick(open.len());
        let Some(&(partition, from)) = open.get(which) else { return };
        let view = &self.nodes[&at].view;
        let reaches = self.links.contains(&(at.min(from), at.max(from)));
        if view.closed && view.sources.contains(&from) && reaches {
            let has = self.nodes[&from].held.get(&partition).cloned().unwrap_or_default();
            let node = self.nodes.get_mut(&at).expect("a node");
            node.held.entry(partition).or_default().extend(has);
            node.taken.insert((partition, from));
        }
    }

    /// A quorum of owners in the layout by which a node reads has everything that was acknowledged.
    fn read(&mut self) {
        let (at, partition) = (self.any(), PartitionId(self.pick(KEYS as usize) as u16));
        let view = &self.nodes[&at].view;
        let layout = view.live.iter().find(|layout| layout.name() == view.reads).expect("a live layout").clone();
        if view.live.iter().all(|layout| layout.node(at).is_none()) {
            return;
        }
        let mut asked = owners(&layout, partition);
        while asked.len() > quorum(&layout) {
            let out = self.pick(asked.len());
            asked.swap_remove(out);
        }
        let mut found = BTreeSet::new();
        for owner in asked {
            let Some(node) = self.nodes.get(&owner) else { return };
            // It has retired the layout, or does not know it: it answers "stale layout".
            let (oldest, newest) = (node.view.live.first(), node.view.live.last());
            let name = |layout: Option<&Layout>| layout.expect("a layout").name();
            if name(oldest) > layout.name() || name(newest) < layout.name() {
                return;
            }
            found.extend(node.held.get(&partition).into_iter().flatten().copied());
        }
        let acknowledged = self.acknowledged.get(&partition).cloned().unwrap_or_default();
        let lost: Vec<&u32> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "{partition} at {}: {lost:?} are lost", view_of(&layout));
        self.reads += 1;
    }

    /// A node that owns nothing of a partition any more gives what it has to all owners, and drops it.
    fn hand_over(&mut self) {
        let at = self.any();
        let node = &self.nodes[&at];
        let view = &node.view;
        let newest = view.live.last().expect("a layout");
        let owns = |partition: PartitionId| view.live.iter().any(|layout| owners(layout, partition).contains(&at));
        let Some(partition) = node.held.keys().copied().find(|partition| !owns(*partition)) else { return };
        let receivers = owners(newest, partition);
        let confirms = |to: &NodeId| {
            // A dead node confirms nothing.
            let theirs = self.nodes.get(to).and_then(|node| node.view.live.last()).map(Layout::name);
            theirs == Some(newest.name()) && self.links.contains(&(at.min(*to), at.max(*to)))
        };
        if receivers.iter().all(confirms) {
            let has = self.nodes.get_mut(&at).and_then(|node| node.held.remove(&partition)).unwrap_or_default();
            for to in receivers {
                self.nodes.get_mut(&to).expect("a node").held.entry(partition).or_default().extend(&has);
            }
        }
    }

    /// A node ends and starts again with what it has saved.
    fn restart(&mut self, at: NodeId) {
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != at).collect();
        others.iter().for_each(|other| self.disconnect(at, *other));
        self.writes.retain(|write| write.coordinator != at);
        let seed = self.rng.next_u64();
        let node = self.nodes.get_mut(&at).expect("a node");
        let known = node.kept.notes.announced.get(&at).cloned().expect("itself");
        let own = (known.name, known.address);
        node.control = RingControl::new(at, SHARDS, node.kept.clone(), own, Xoshiro256PlusPlus::seed_from_u64(seed));
        (node.view, node.settled, node.exchanged) = (node.control.view(), BTreeSet::new(), BTreeSet::new());
        others.iter().for_each(|other| self.connect(at, *other));
    }

    pub(crate) fn stage(&mut self, at: NodeId, node: usize, role: Role) {
        let staging = Staging { roles: vec![(name(node), role)], ..Staging::default() };
        self.handle(at, RingEvent::Command(1, RingCommand::Stage(staging)));
    }

    pub(crate) fn stage_split(&mut self, at: NodeId) {
        let staging = Staging { split: true, ..Staging::default() };
        self.handle(at, RingEvent::Command(1, RingCommand::Stage(staging)));
    }

    /// Applies what is staged at a node. Returns whether that was possible.
    pub(crate) fn apply(&mut self, at: NodeId) -> bool {
        let Ok(solution) = self.nodes[&at].control.plan() else { return false };
        self.handle(at, RingEvent::Command(2, RingCommand::Apply(solution.layout.name())));
        matches!(self.answers.last(), Some((_, Ok(name))) if *name == solution.layout.name())
    }

    /// Gives the bucket other copies at a node. Returns whether that was possible.
    pub(crate) fn set_copies(&mut self, at: NodeId, n: u8) -> bool {
        let seen = self.nodes[&at].control.ring().newest().copies_of(BUCKET).map_or(0, |copies| copies.change);
        self.set_copies_seen(at, n, seen)
    }

    fn set_copies_seen(&mut self, at: NodeId, n: u8, seen: u32) -> bool {
        let change = CopiesChange { bucket: BUCKET, name: name(0), seen, n, sloppy: false };
        self.handle(at, RingEvent::Command(6, RingCommand::SetCopies(change)));
        matches!(self.answers.last(), Some((_, Ok(_))))
    }

    pub(crate) fn ring(&self, at: usize) -> &Ring {
        self.nodes[&id(at)].control.ring()
    }

    pub(crate) fn newest(&self, at: NodeId) -> &Layout {
        self.nodes[&at].control.ring().newest()
    }

    fn run(&mut self, steps: u32) {
        (0..steps).for_each(|_| self.step());
    }

    /// Repairs everything and runs until no change is under way.
    pub(crate) fn settle(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for &one in &ids {
            self.nodes.get_mut(&one).expect("a node").is_disk_full = false;
            ids.iter().for_each(|&other| self.connect(one, other));
        }
        self.now_us += SAVE_AGAIN_US;
        for _ in 0..400 {
            self.run(200);
            let rings: BTreeSet<u64> = self.nodes.values().map(|node| node.control.ring().digest()).collect();
            let is_done = |node: &Node| Awaited::of(node.control.ring()).step.is_none() && node.view.live.len() == 1;
            if rings.len() == 1 && self.nodes.values().all(is_done) {
                return;
            }
        }
        let waits = self.nodes.values().map(|node| Awaited::of(node.control.ring())).collect::<Vec<_>>();
        panic!("the change does not end: {waits:?}");
    }

    /// What can go wrong, at times.
    fn trouble(&mut self) {
        let (one, other) = (self.any(), self.any());
        match self.pick(6) {
            0 | 1 => self.disconnect(one, other),
            2 | 3 => self.connect(one, other),
            4 => self.restart(one),
            _ => {
                let node = self.nodes.get_mut(&one).expect("a node");
                node.is_disk_full = !node.is_disk_full;
            }
        }
    }
}

pub(crate) fn copies(layout: &Layout) -> u8 {
    layout.copies_of(BUCKET).map_or(N, |copies| copies.n)
}

fn quorum(layout: &Layout) -> usize {
    usize::from(copies(layout) / 2 + 1)
}

fn owners(layout: &Layout, partition: PartitionId) -> Vec<NodeId> {
    layout.divided(KEYS).owners(partition, copies(layout)).map(|node| node.id).collect()
}

fn view_of(layout: &Layout) -> String {
    format!("version {}", layout.version)
}

/// What a node has to take for the newest layout, and from whom.
fn wanted(at: NodeId, view: &RingView) -> impl Iterator<Item = (PartitionId, NodeId)> {
    let (oldest, newest) = (view.live.first().expect("a layout"), view.live.last().expect("a layout"));
    let has_others = copies(oldest) != copies(newest);
    let gains = |partition: &PartitionId| {
        owners(newest, *partition).contains(&at) && (has_others || !owners(oldest, *partition).contains(&at))
    };
    let gained: Vec<PartitionId> = (0..KEYS as u16).map(PartitionId).filter(gains).collect();
    let from = move |partition| owners(oldest, partition).into_iter().filter(move |from| *from != at);
    gained.into_iter().flat_map(move |partition| from(partition).map(move |from| (partition, from)))
}

/// Changes by one or two operators, with everything that can go wrong.
fn changes_under_trouble(seeds: std::ops::Range<u64>) {
    let (mut reads, mut applied, mut split) = (0, 0, 0);
    for seed in seeds {
        let mut world = World::new(4, 2, seed);
        world.run(300);
        for round in 0..4 {
            for _ in 0..1 + world.pick(2) {
                let (at, node) = (world.any(), world.pick(6));
                if world.pick(3) == 0 {
                    let n = 1 + world.pick(5) as u8;
                    applied += u32::from(world.set_copies(at, n));
                    continue;
                }
                let role = if world.pick(3) == 0 { Role::Removed } else { member(1 + world.pick(3) as u32) };
                let splits = world.pick(4) == 0 && world.nodes[&at].control.ring().partitions() < KEYS;
                match splits {
                    true => world.stage_split(at),
                    false => world.stage(at, node, role),
                }
                applied += u32::from(world.apply(at));
            }
            for _ in 0..40 {
                world.run(25);
                if round < 3 {
                    world.trouble();
                }
            }
            if world.pick(2) == 0 {
                world.settle();
            }
        }
        world.settle();
        world.run(500);
        let partitions: BTreeSet<u32> = world.nodes.values().map(|node| node.control.ring().partitions()).collect();
        assert_eq!(partitions.len(), 1, "seed {seed}");
        split += u32::from(!partitions.contains(&PARTITIONS));
        reads += world.reads;
    }
    assert!(reads > 1_000 && applied > 10 && split > 3, "{reads} reads, {applied} changes, {split} rings are split");
}

#[test]
pub(crate) fn a_quorum_read_finds_every_acknowledged_write_during_changes() {
    changes_under_trouble(0..60);
}

#[test]
pub(crate) fn no_write_is_refused_because_of_a_change_while_all_nodes_answer() {
    for seed in 0..20 {
        let mut world = World::new(4, 2, seed);
        for node in [4, 5, 0] {
            let (at, role) = (world.any(), if node == 0 { Role::Removed } else { member(1) });
            world.stage(at, node, role);
            assert!(world.apply(at));
            world.run(500);
            world.settle();
        }
        assert_eq!(world.refused, 0);
    }
}

#[test]
pub(crate) fn a_command_that_cannot_be_saved_is_undone() {
    let mut world = World::new(3, 1, 1);
    world.run(200);
    let before = world.nodes[&id(0)].control.ring().clone();
    world.nodes.get_mut(&id(0)).expect("a node").is_disk_full = true;
    world.stage(id(0), 3, member(1));
    assert!(matches!(world.answers.last(), Some((_, Err(error))) if error.code == ErrorCode::DiskFull));
    assert_eq!(world.nodes[&id(0)].control.ring(), &before);
}

#[test]
pub(crate) fn only_the_plan_that_was_shown_is_applied() {
    let mut world = World::new(3, 1, 1);
    world.run(200);
    world.stage(id(0), 3, member(1));
    let shown = world.nodes[&id(0)].control.plan().expect("a plan").layout.name();
    world.stage(id(0), 3, member(2));
    world.handle(id(0), RingEvent::Command(3, RingCommand::Apply(shown)));
    assert!(matches!(world.answers.last(), Some((_, Err(error))) if error.code == ErrorCode::VersionConflict));
    assert!(world.apply(id(0)));
}

#[test]
fn the_same_ring_gives_the_same_plan_on_every_node() {
    let mut world = World::new(4, 1, 3);
    world.stage(id(1), 4, member(2));
    world.settle();
    let plans: Vec<_> = world.nodes.values().map(|node| plan(node.control.ring()).expect("a plan")).collect();
    assert!(plans.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(plans[0].layout.version, 2);
}

#[test]
fn of_two_layouts_of_one_version_all_nodes_take_the_one_with_the_larger_hash() {
    let mut world = World::new(4, 2, 5);
    world.stage(id(0), 4, member(1));
    world.stage(id(1), 5, member(1));
    assert!(world.apply(id(0)) && world.apply(id(1)), "neither has heard of the other");
    let names: Vec<LayoutRef> = [0, 1].map(|at| world.nodes[&id(at)].control.ring().newest().name()).into();
    assert_eq!(names[0].version, names[1].version);
    world.settle();
    let newest = world.nodes[&id(2)].control.ring().newest().name();
    assert_eq!(Some(&newest), names.iter().max());
}

#[test]
fn a_change_waits_for_a_dead_node_until_an_operator_skips_it() {
    let mut world = World::new(4, 0, 7);
    world.run(300);
    let dead = id(3);
    [0, 1, 2].iter().for_each(|at| world.disconnect(id(*at), dead));
    let mut gone = world.nodes.remove(&dead).expect("a node");
    world.stage(id(0), 3, Role::Removed);
    assert!(world.apply(id(0)));
    world.run(5_000);
    let awaited = Awaited::of(world.nodes[&id(1)].control.ring());
    assert_eq!((awaited.step, awaited.nodes), (Some(Step::Acknowledge), vec![dead]));
    world.handle(id(1), RingEvent::Command(4, RingCommand::Skip(name(3))));
    assert!(matches!(world.answers.last(), Some((_, Ok(_)))));
    world.settle();
    assert!(world.nodes.values().all(|node| node.view.live.len() == 1 && node.view.live[0].node(dead).is_none()));
    // It comes back after all, and learns what has become of its layout.
    gone.view = gone.control.view();
    world.nodes.insert(dead, gone);
    world.settle();
}

#[test]
fn a_node_that_answers_is_not_skipped() {
    let mut world = World::new(4, 0, 7);
    world.stage(id(0), 1, member(3));
    assert!(world.apply(id(0)));
    for (node, word) in [(3, "answers"), (0, "answers"), (9, "no live layout")] {
        world.handle(id(0), RingEvent::Command(4, RingCommand::Skip(name(node))));
        let Some((_, Err(refused))) = world.answers.last() else { panic!("it is refused") };
        assert!(refused.message.contains(word), "{}", refused.message);
    }
}

#[test]
fn what_is_staged_on_an_older_layout_is_void() {
    let mut world = World::new(3, 2, 9);
    world.stage(id(0), 3, member(1));
    world.settle();
    world.stage(id(1), 4, member(1));
    assert!(world.apply(id(0)), "it has not heard of the second one");
    world.settle();
    assert!(world.nodes.values().all(|node| node.control.ring().staged().count() == 0));
    let newest = world.nodes[&id(1)].control.ring().newest();
    assert!(newest.node(id(3)).is_some() && newest.node(id(4)).is_none());
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut world = World::new(3, 1, 11);
    let refusal = |world: &mut World, command| {
        world.handle(id(0), RingEvent::Command(5, command));
        match world.answers.last() {
            Some((_, Err(error))) => error.message.clone(),
            other => panic!("{other:?}"),
        }
    };
    let stage =
        |node: usize, role| RingCommand::Stage(Staging { roles: vec![(name(node), role)], ..Staging::default() });
    assert!(refusal(&mut world, RingCommand::Revert).contains("nothing is staged"));
    assert!(refusal(&mut world, RingCommand::Skip(name(1))).contains("no change"));
    assert!(refusal(&mut world, stage(8, member(1))).contains("no node n8 is known"));
    assert!(refusal(&mut world, stage(3, Role::Removed)).contains("not in the layout"));
    assert!(refusal(&mut world, stage(1, member(2_000_000))).contains("the most is"));
    let name = world.nodes[&id(0)].control.ring().newest().name();
    assert!(refusal(&mut world, RingCommand::Apply(name)).contains("nothing is staged"));
    world.stage(id(0), 1, Role::Removed);
    world.stage(id(0), 2, Role::Removed);
    assert!(world.nodes[&id(0)].control.plan().is_err(), "one node cannot have three copies");
}

#[test]
pub(crate) fn a_change_of_copies_is_of_what_its_operator_has_seen() {
    let mut world = World::new(5, 0, 13);
    world.run(300);
    assert!(world.set_copies_seen(id(0), 5, 0));
    world.settle();
    assert_eq!(world.newest(id(1)).copies_of(BUCKET).map(|copies| (copies.n, copies.change)), Some((5, 1)));
    assert!(!world.set_copies_seen(id(1), 2, 0), "who has seen no change is refused");
    assert!(matches!(world.answers.last(), Some((_, Err(error))) if error.code == ErrorCode::VersionConflict));
    assert!(world.set_copies_seen(id(1), 2, 1));
    world.settle();
    let past = &world.nodes[&id(3)].control.ring().notes.past;
    let changed: Vec<u8> = past.values().filter_map(|past| Some(past.bucket.as_ref()?.n)).collect();
    assert_eq!(changed, [5, 2], "the history knows both");
}

#[test]
fn of_two_changes_of_copies_at_once_one_wins_and_the_other_is_drained() {
    let mut world = World::new(5, 0, 17);
    world.run(300);
    assert!(world.set_copies(id(0), 5) && world.set_copies(id(1), 2), "neither has heard of the other");
    let names: Vec<LayoutRef> = [0, 1].map(|at| world.newest(id(at)).name()).into();
    assert_eq!(names[0].version, names[1].version);
    world.run(2_000);
    world.settle();
    assert_eq!(Some(&world.newest(id(4)).name()), names.iter().max());
    world.run(500);
}

#[test]
fn what_is_staged_stays_staged_when_copies_change_and_is_applied_with_them() {
    let mut world = World::new(4, 1, 19);
    world.run(200);
    world.stage(id(0), 4, member(2));
    let shown = world.nodes[&id(0)].control.plan().expect("a plan").layout.name();
    assert!(world.set_copies(id(0), 5));
    world.handle(id(0), RingEvent::Command(3, RingCommand::Apply(shown)));
    assert!(matches!(world.answers.last(), Some((_, Err(error))) if error.code == ErrorCode::VersionConflict));
    assert!(world.apply(id(0)), "by its new plan, while the copies still change");
    world.run(500);
    world.settle();
    let newest = world.newest(id(2));
    assert!(newest.node(id(4)).is_some() && copies(newest) == 5);
}

#[test]
fn copies_are_within_their_bounds_and_no_more_layouts_are_live_than_may_be() {
    let mut world = World::new(3, 0, 23);
    assert!(!world.set_copies(id(0), 0) && !world.set_copies(id(0), 6));
    assert!(world.set_copies(id(0), 1) && world.set_copies(id(0), 2) && world.set_copies(id(0), 3));
    assert!(!world.set_copies(id(0), 2), "four layouts are live");
    assert!(matches!(world.answers.last(), Some((_, Err(error))) if error.code == ErrorCode::Overloaded));
    world.settle();
    assert!(world.set_copies(id(0), 2));
}

/// The nodes whose address a node knows.
fn addresses(world: &World, at: usize) -> Vec<NodeId> {
    world.nodes[&id(at)].control.ring().notes.announced.keys().copied().collect()
}

#[test]
fn nodes_that_have_left_are_forgotten_with_the_next_change_and_known_again_if_they_return() {
    let mut world = World::new(4, 1, 13);
    world.stage(id(0), 3, Role::Removed);
    assert!(world.apply(id(0)));
    // A change does not wait for n4, which is no member: until it has acknowledged it.
    world.settle();
    world.run(3_000);
    world.settle();
    assert_eq!(addresses(&world, 0).len(), 5, "n3 has left and still runs");
    let mut gone = Vec::new();
    for at in [3, 4] {
        (0..5).for_each(|other| world.disconnect(id(at), id(other)));
        gone.push(world.nodes.remove(&id(at)).expect("a node"));
    }
    world.stage(id(0), 2, member(2));
    assert!(world.apply(id(0)));
    world.settle();
    for at in 0..3 {
        let known: BTreeSet<NodeId> = addresses(&world, at).into_iter().collect();
        assert_eq!(known, [0, 1, 2].map(id).into(), "n3 and n4 are down since before this change");
        assert_eq!(world.nodes[&id(at)].control.ring().notes.progress.len(), 3);
    }
    // They come back with what they kept, and are known under their addresses as before.
    for (at, node) in [3, 4].into_iter().zip(gone) {
        world.nodes.insert(id(at), node);
        world.restart(id(at));
    }
    world.settle();
    assert!((0..5).all(|at| addresses(&world, at).len() == 5));
    world.stage(id(1), 4, member(1));
    assert!(world.apply(id(1)), "and can be assigned");
    world.settle();
}
