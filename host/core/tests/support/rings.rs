//! A cluster whose layouts are changed by the product's own rings: what a ring decides is shown to the shard of its
//! node, and what the shard has done is told to the ring. Messages between rings are delivered one by one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::ring::{CopiesChange, RingCommand, RingControl, RingEffect, RingEvent, Staging};
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::ring::Role;
use rejoin_proto::{ErrorReply, LayoutRef, Ring, RingMessage};

use super::cluster::Cluster;
use super::{WALL_MS, bucket, layout, name, node, object_id};

pub(crate) struct Rings {
    pub(crate) cluster: Cluster,
    pub(crate) views: Vec<Arc<ClusterView>>,
    /// Messages between rings under way: from, to, what.
    pub(crate) wire: VecDeque<(usize, usize, RingMessage)>,
    pub(crate) answers: Vec<(usize, Result<LayoutRef, ErrorReply>)>,
    controls: Vec<RingControl>,
    /// As they were saved last.
    kept: Vec<Ring>,
    links: BTreeSet<(usize, usize)>,
    props: BucketProps,
}

impl Rings {
    /// Nodes n0, n1, ..., of which the first are members of the first layout.
    pub(crate) fn new(members: usize, nodes: usize, props: BucketProps) -> Self {
        let first = layout(members);
        let exchange = ExchangeConfig { interval_us: 200_000, ..ExchangeConfig::default() };
        let cluster = Cluster::in_ring(nodes, first.clone(), props.clone(), |config| config.exchange = exchange);
        let ring = Ring::new(first);
        let control = |at: usize| {
            let own = (name(&format!("n{at}")), ([127, 0, 0, 1], at as u16).into());
            RingControl::new(node(at), 1, ring.clone(), own, Xoshiro256PlusPlus::seed_from_u64(at as u64))
        };
        let controls: Vec<RingControl> = (0..nodes).map(control).collect();
        let kept = controls.iter().map(|control| control.ring().clone()).collect();
        let views = vec![cluster.view.clone(); nodes];
        let (wire, answers, links) = (VecDeque::new(), Vec::new(), BTreeSet::new());
        let mut rings = Self { cluster, views, wire, answers, controls, kept, links, props };
        for at in 0..nodes {
            rings.show(at);
            (0..at).for_each(|other| rings.link(at, other));
        }
        rings.settle();
        rings
    }

    pub(crate) fn ring(&self, at: usize) -> &Ring {
        self.controls[at].ring()
    }

    /// The layout that a node would apply now.
    pub(crate) fn plan(&self, at: usize) -> Option<LayoutRef> {
        self.controls[at].plan().ok().map(|solution| solution.layout.name())
    }

    /// A command at a node, and its answer.
    pub(crate) fn command(&mut self, at: usize, command: RingCommand) -> Result<LayoutRef, ErrorReply> {
        self.handle(at, RingEvent::Command(1, command));
        self.answers.pop().expect("an answer").1
    }

    pub(crate) fn stage(&mut self, at: usize, of: usize, capacity: Option<u32>) {
        let role = capacity.map_or(Role::Removed, |capacity| Role::Member { zone: name("z"), capacity });
        let staging = Staging { roles: vec![(name(&format!("n{of}")), role)], ..Staging::default() };
        self.command(at, RingCommand::Stage(staging)).expect("staged");
    }

    /// Applies what is staged at a node.
    pub(crate) fn apply(&mut self, at: usize) -> LayoutRef {
        let plan = self.plan(at).expect("a plan");
        self.command(at, RingCommand::Apply(plan)).expect("applied")
    }

    /// Replaces one member by another node, at a node.
    pub(crate) fn replace(&mut self, at: usize, old: usize, new: usize) -> LayoutRef {
        self.stage(at, old, None);
        self.stage(at, new, Some(1));
        self.apply(at)
    }

    /// Gives the bucket other copies, at a node.
    pub(crate) fn set_copies(&mut self, at: usize, n: u8, sloppy: bool) -> LayoutRef {
        let bucket = object_id("").bucket;
        let seen = self.ring(at).newest().copies_of(bucket).map_or(0, |copies| copies.change);
        let change = CopiesChange { bucket, name: name("cart"), seen, n, sloppy };
        self.command(at, RingCommand::SetCopies(change)).expect("applied")
    }

    pub(crate) fn handle(&mut self, at: usize, event: RingEvent) {
        self.handle_one(at, event);
        loop {
            let (settled, exchanged) =
                (std::mem::take(&mut self.cluster.settled), std::mem::take(&mut self.cluster.exchanged));
            if settled.is_empty() && exchanged.is_empty() {
                return;
            }
            for (at, generation) in settled {
                self.handle_one(at, RingEvent::Settled { shard: 0, generation });
            }
            for (at, layout) in exchanged {
                self.handle_one(at, RingEvent::Exchanged { shard: 0, layout });
            }
        }
    }

    fn handle_one(&mut self, at: usize, event: RingEvent) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let (now_ms, mut effects) = (self.cluster.now_ms, Vec::new());
            self.controls[at].handle(now_ms * 1000, WALL_MS + now_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    RingEffect::Save => {
                        self.kept[at] = self.controls[at].ring().clone();
                        next = Some(RingEvent::Saved(Ok(())));
                    }
                    RingEffect::Changed => self.show(at),
                    RingEffect::Send(to, message) => {
                        let to = self.cluster.place(to);
                        if self.links.contains(&(at.min(to), at.max(to))) {
                            self.wire.push_back((at, to, message));
                        }
                    }
                    RingEffect::Answer(_, answer) => self.answers.push((at, answer)),
                }
            }
        }
    }

    /// The shard of a node is shown its ring.
    fn show(&mut self, at: usize) {
        let view = Arc::new(ClusterView::new(self.controls[at].view(), &[bucket(self.props.clone())]));
        self.views[at] = view.clone();
        if view.layout_name() >= self.cluster.view.layout_name() {
            self.cluster.view = view.clone();
        }
        self.cluster.event(at, Event::View(view));
    }

    fn link(&mut self, a: usize, b: usize) {
        if self.links.insert((a.min(b), a.max(b))) {
            self.handle(a, RingEvent::PeerUp(node(b)));
            self.handle(b, RingEvent::PeerUp(node(a)));
        }
    }

    /// A node is not connected to any other any more.
    pub(crate) fn cut(&mut self, at: usize) {
        self.cluster.cut(at);
        for other in (0..self.controls.len()).filter(|other| *other != at) {
            if self.links.remove(&(at.min(other), at.max(other))) {
                self.handle(at, RingEvent::PeerDown(node(other)));
                self.handle(other, RingEvent::PeerDown(node(at)));
            }
        }
        self.wire.retain(|(from, to, _)| *from != at && *to != at);
    }

    /// It is connected to all again.
    pub(crate) fn heal(&mut self, at: usize) {
        self.cluster.heal(at);
        (0..self.controls.len()).filter(|other| *other != at).for_each(|other| self.link(at, other));
    }

    /// The process of a node ends, and begins again with what it has saved.
    pub(crate) fn restart(&mut self, at: usize) {
        self.cut(at);
        let own = (name(&format!("n{at}")), ([127, 0, 0, 1], at as u16).into());
        let rng = Xoshiro256PlusPlus::seed_from_u64(at as u64);
        self.controls[at] = RingControl::new(node(at), 1, self.kept[at].clone(), own, rng);
        let store = self.cluster.nodes[at].store.clone();
        self.cluster.restart(at, false, store);
        self.show(at);
        (0..self.controls.len()).filter(|other| *other != at).for_each(|other| self.link(at, other));
    }

    /// Delivers the message between rings at that place of the wire, if there is one.
    pub(crate) fn deliver_ring(&mut self, place: usize) -> bool {
        let Some((from, to, message)) = self.wire.remove(place) else { return false };
        self.handle(to, RingEvent::Peer(node(from), message));
        true
    }

    /// Delivers a message between rings that is picked of those under way. Between two nodes messages keep their order.
    pub(crate) fn deliver_some(&mut self, mut pick: impl FnMut(usize) -> usize) -> bool {
        let picked = pick(self.wire.len());
        let pair = self.wire.get(picked).map(|(from, to, _)| (*from, *to));
        let first = pair.and_then(|pair| self.wire.iter().position(|(from, to, _)| (*from, *to) == pair));
        first.is_some_and(|place| self.deliver_ring(place))
    }

    /// Delivers everything until nothing is under way.
    pub(crate) fn deliver(&mut self) {
        loop {
            self.cluster.deliver();
            // What shards have told meanwhile.
            self.handle(0, RingEvent::Tick);
            if !self.deliver_ring(0) {
                return;
            }
        }
    }

    /// Lets time pass for shards and rings. What rings send stays under way.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.cluster.pass(ms);
        for at in 0..self.controls.len() {
            if self.controls[at].next_wake_us() <= self.cluster.now_ms * 1000 {
                self.handle(at, RingEvent::Tick);
            }
        }
    }

    /// Whether no change is under way, and all rings are equal.
    pub(crate) fn is_settled(&self) -> bool {
        let digest = self.ring(0).digest();
        self.controls.iter().all(|control| control.ring().live.len() == 1 && control.ring().digest() == digest)
    }

    /// Lets time pass until no change is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            self.deliver();
            if self.is_settled() {
                return;
            }
            self.pass(50);
        }
        panic!("the change does not end: {:?}", rejoin_core::ring::Awaited::of(self.ring(0)));
    }
}
