//! The machine that changes layouts, on a few nodes with data of the simplest kind: numbered writes that owners have or
//! have not. Messages are late, links break, nodes restart and disks are full; whatever happens, a quorum read finds
//! every acknowledged write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::placement::bootstrap;
use rejoin_core::ring::{
    Awaited, GOSSIP_US, MOST_PARTITIONS, RingCommand, RingControl, RingEffect, RingEvent, RingView, SAVE_AGAIN_US,
    Staging, Step, plan,
};
use rejoin_proto::ring::Role;
use rejoin_proto::{
    Address, ErrorCode, ErrorReply, Layout, LayoutNode, LayoutRef, Name, NodeId, PartitionId, Ring, RingMessage,
};

const N: u8 = 3;
const QUORUM: usize = 2;
const PARTITIONS: u32 = 8;
/// The parts of the ring in which there are writes: as many as the partitions can come to.
const KEYS: u32 = 32;
const SHARDS: u16 = 2;

fn name(at: usize) -> Name {
    Name::new(format!("n{at}")).expect("a good name")
}

fn id(at: usize) -> NodeId {
    NodeId::from_name(&name(at))
}

fn address(at: usize) -> Address {
    Address::from(([127, 0, 0, 1], 7_000 + at as u16))
}

fn first_layout(nodes: usize) -> Layout {
    let zone = Name::new("z").expect("a good name");
    let node = |at| LayoutNode { id: id(at), name: name(at), zone: zone.clone(), capacity: 1, address: address(at) };
    bootstrap((0..nodes).map(node).collect(), PARTITIONS).expect("a layout")
}

fn member(capacity: u32) -> Role {
    Role::Member { zone: Name::new("z").expect("a good name"), capacity }
}

/// One node: the machine, and what its shards have.
struct Node {
    control: RingControl,
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
    /// The owners in each live layout, as the coordinator saw them.
    owners: Vec<Vec<NodeId>>,
    unasked: Vec<NodeId>,
    stored: BTreeSet<NodeId>,
}

struct World {
    nodes: BTreeMap<NodeId, Node>,
    wire: BTreeMap<(NodeId, NodeId), VecDeque<RingMessage>>,
    /// Links that are up, each in both directions.
    links: BTreeSet<(NodeId, NodeId)>,
    writes: Vec<Write>,
    acknowledged: BTreeMap<PartitionId, BTreeSet<u32>>,
    answers: Vec<(NodeId, Result<LayoutRef, ErrorReply>)>,
    rng: Xoshiro256PlusPlus,
    now_us: u64,
    next: u32,
    reads: u32,
    /// Writes that an owner has refused because they were by an older layout.
    refused: u32,
}

impl World {
    /// A cluster of so many members, and some more nodes that know it.
    fn new(members: usize, others: usize, seed: u64) -> Self {
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

    fn disconnect(&mut self, one: NodeId, other: NodeId) {
        if self.links.remove(&(one.min(other), one.max(other))) {
            self.wire.remove(&(one, other));
            self.wire.remove(&(other, one));
            self.handle(one, RingEvent::PeerDown(other));
            self.handle(other, RingEvent::PeerDown(one));
        }
    }

    fn handle(&mut self, at: NodeId, event: RingEvent) {
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
        let owners: Vec<Vec<NodeId>> = view.live.iter().map(|layout| owners(layout, partition)).collect();
        let unasked: BTreeSet<NodeId> = owners.iter().flatten().copied().collect();
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
            let enough = |owners: &Vec<NodeId>| owners.iter().filter(|node| write.stored.contains(node)).count();
            if write.owners.iter().all(|owners| enough(owners) >= QUORUM) {
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
        while asked.len() > QUORUM {
            let out = self.pick(asked.len());
            asked.swap_remove(out);
        }
        let mut found = BTreeSet::new();
        for owner in asked {
            let Some(node) = self.nodes.get(&owner) else { return };
            // It has retired the layout: it answers "stale layout".
            if node.view.live.first().expect("a layout").name() > layout.name() {
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

    fn stage(&mut self, at: NodeId, node: usize, role: Role) {
        let staging = Staging { roles: vec![(name(node), role)], ..Staging::default() };
        self.handle(at, RingEvent::Command(1, RingCommand::Stage(staging)));
    }

    fn stage_split(&mut self, at: NodeId) {
        let staging = Staging { split: true, ..Staging::default() };
        self.handle(at, RingEvent::Command(1, RingCommand::Stage(staging)));
    }

    /// Applies what is staged at a node. Returns whether that was possible.
    fn apply(&mut self, at: NodeId) -> bool {
        let Ok(solution) = self.nodes[&at].control.plan() else { return false };
        self.handle(at, RingEvent::Command(2, RingCommand::Apply(solution.layout.name())));
        matches!(self.answers.last(), Some((_, Ok(name))) if *name == solution.layout.name())
    }

    fn run(&mut self, steps: u32) {
        (0..steps).for_each(|_| self.step());
    }

    /// Repairs everything and runs until no change is under way.
    fn settle(&mut self) {
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

fn owners(layout: &Layout, partition: PartitionId) -> Vec<NodeId> {
    layout.divided(KEYS).owners(partition, N).map(|node| node.id).collect()
}

fn view_of(layout: &Layout) -> String {
    format!("version {}", layout.version)
}

/// What a node has to take for the newest layout, and from whom.
fn wanted(at: NodeId, view: &RingView) -> impl Iterator<Item = (PartitionId, NodeId)> {
    let (oldest, newest) = (view.live.first().expect("a layout"), view.live.last().expect("a layout"));
    let gains =
        |partition: &PartitionId| owners(newest, *partition).contains(&at) && !owners(oldest, *partition).contains(&at);
    let gained: Vec<PartitionId> = (0..KEYS as u16).map(PartitionId).filter(gains).collect();
    gained.into_iter().flat_map(|partition| owners(oldest, partition).into_iter().map(move |from| (partition, from)))
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
pub(crate) fn partitions_are_split_alone_and_up_to_a_bound() {
    let mut world = World::new(3, 2, 13);
    let said = |world: &mut World, command| {
        world.handle(id(0), RingEvent::Command(5, command));
        world.answers.last().expect("an answer").1.clone().err().map(|error| error.message)
    };
    let split = || RingCommand::Stage(Staging { split: true, ..Staging::default() });
    assert_eq!(said(&mut world, split()), None);
    world.stage(id(0), 3, member(1));
    let plan = |world: &World| world.nodes[&id(0)].control.plan();
    assert!(plan(&world).is_err_and(|why| why.to_string().contains("a change by itself")));
    assert_eq!(said(&mut world, RingCommand::Revert), None);
    assert!(plan(&world).is_err_and(|why| why.to_string().contains("nothing is staged")));
    // A node that joins is under way.
    world.stage(id(0), 3, member(1));
    assert!(world.apply(id(0)));
    let refused = said(&mut world, split()).expect("it is refused");
    assert!(refused.contains("a change of layout is under way"), "{refused}");
    world.settle();
    let mut partitions = PARTITIONS;
    while partitions < MOST_PARTITIONS {
        let before = world.nodes[&id(0)].control.ring().newest().clone();
        world.stage_split(id(0));
        assert!(world.apply(id(0)));
        partitions *= 2;
        world.settle();
        let ring = world.nodes[&id(1)].control.ring();
        assert_eq!((ring.partitions(), ring.newest().partitions()), (partitions, partitions));
        assert_eq!(ring.newest().owners, before.divided(partitions).owners, "both halves have the owners of the whole");
        assert_eq!(ring.notes.past[&ring.newest().name()].moved, 0);
    }
    let refused = said(&mut world, split()).expect("it is refused");
    assert!(refused.contains("the ring has 4096 partitions"), "{refused}");
}

#[test]
fn a_split_that_lost_a_race_is_a_split_all_the_same() {
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::new(3, 2, 100 + seed);
        [id(1), id(2), id(3), id(4)].iter().for_each(|other| world.disconnect(id(0), *other));
        world.stage_split(id(0));
        world.stage(id(1), 3, member(1 + seed as u32));
        assert!(world.apply(id(0)) && world.apply(id(1)));
        world.settle();
        let ring = world.nodes[&id(2)].control.ring().clone();
        assert!(world.nodes.values().all(|node| node.control.ring().digest() == ring.digest()));
        assert_eq!((ring.partitions(), ring.newest().version), (2 * PARTITIONS, 2));
        found.insert(ring.newest().partitions());
        // The next layout has the partitions of the ring, whoever has won.
        world.stage(id(2), 4, member(1));
        assert!(world.apply(id(2)));
        world.settle();
        assert_eq!(world.nodes[&id(0)].control.ring().newest().partitions(), 2 * PARTITIONS);
    }
    assert_eq!(found.len(), 2, "either has won at times");
}
