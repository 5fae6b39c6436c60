//! The ring of each node, and the operators who change it. The product's own
//! [`RingControl`](rejoin_core::ring::RingControl) decides.

use std::sync::Arc;

use rejoin_core::node::links::LinkEvent;
use rejoin_core::ring::{Awaited, CopiesChange, RingCommand, RingControl, RingEffect, RingEvent, RingView, Staging};
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::ring::Role;
use rejoin_proto::{ErrorCode, ErrorReply, Layout, Name, NodeId};

use super::node::RingTask;
use super::{Occurrence, World};
use crate::history::{Loss, NodeIndex};
use crate::rng::{Rng, Stream};

impl World {
    /// Whether layouts change in this run.
    pub(super) fn has_changes(&self) -> bool {
        self.options.faults.layout > 0
    }

    /// The ring's machine of a node that starts, if layouts change in this run.
    pub(super) fn open_ring(&mut self, at: NodeIndex) -> Option<RingTask> {
        if !self.has_changes() {
            return None;
        }
        let (of, node) = (self.keys.of(at), &mut self.nodes[usize::from(at)]);
        let rng = Rng::raw(self.options.seed, Stream::Shard(at, node.life, u16::MAX - 2));
        let own = (of.name.clone(), of.address.clone());
        let control = RingControl::new(node.id, self.options.shards, node.ring.clone(), own, rng);
        node.ring = control.ring().clone();
        Some(RingTask { control, wake_us: u64::MAX })
    }

    /// The ring as the shards of a node are to see it.
    pub(super) fn ring_view(&self, ring: Option<&RingTask>) -> RingView {
        ring.map_or_else(|| RingView::settled(self.keys.layout().clone()), |ring| ring.control.view())
    }

    /// Hands an event to a node's ring, and carries out what follows.
    pub(super) fn ring_event(&mut self, at: NodeIndex, event: RingEvent) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let (now, wall_ms, mut effects) = (self.clock(at), self.wall_ms(at), Vec::new());
            let node = &mut self.nodes[usize::from(at)];
            let is_full = node.is_full();
            let Some(task) = node.running.as_mut().and_then(|running| running.ring.as_mut()) else { return };
            task.control.handle(now.mono_us, wall_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    RingEffect::Save => next = Some(RingEvent::Saved(self.save_ring(at, is_full))),
                    RingEffect::Changed => self.view_changed(at),
                    RingEffect::Send(peer, message) => {
                        let (to, layout) = (self.keys.index(peer), self.view.layout_name());
                        let envelope = PeerEnvelope { layout, trace: 0, body: PeerBody::Ring(message) };
                        self.send(at, to, Box::new(envelope));
                    }
                    RingEffect::Answer(_, result) => {
                        self.recorder.mark(if result.is_ok() { "ring command" } else { "ring command refused" });
                    }
                }
            }
        }
        self.look_at_steps(at);
        self.want_ring(at);
    }

    fn save_ring(&mut self, at: NodeIndex, is_full: bool) -> Result<(), ErrorReply> {
        if is_full {
            self.recorder.mark("ring not saved");
            return Err(ErrorReply::new(ErrorCode::DiskFull, "the disk is full"));
        }
        let node = &mut self.nodes[usize::from(at)];
        if let Some(task) = node.running.as_ref().and_then(|running| running.ring.as_ref()) {
            node.ring = task.control.ring().clone();
        }
        Ok(())
    }

    fn want_ring(&mut self, at: NodeIndex) {
        let node = &mut self.nodes[usize::from(at)];
        let life = node.life;
        let Some(task) = node.running.as_mut().and_then(|running| running.ring.as_mut()) else { return };
        let due_us = task.control.next_wake_us();
        if due_us < task.wake_us {
            task.wake_us = due_us;
            self.plan_at(due_us.max(1) - 1, Occurrence::Ring { node: at, life });
        }
    }

    pub(super) fn ring_due(&mut self, at: NodeIndex) {
        let running = self.nodes[usize::from(at)].running.as_mut();
        if let Some(task) = running.and_then(|running| running.ring.as_mut()) {
            task.wake_us = u64::MAX;
        }
        self.ring_event(at, RingEvent::Tick);
    }

    /// Makes a new view for the shards of a node: its ring or its catalog has changed.
    pub(super) fn view_changed(&mut self, at: NodeIndex) {
        let Some(running) = &self.nodes[usize::from(at)].running else { return };
        let ring = self.ring_view(running.ring.as_ref());
        self.note(at, || {
            let name = |layout: &Layout| format!("{}:{:04x}", layout.version, layout.name().hash >> 48);
            let live: Vec<String> = ring.live.iter().map(name).collect();
            let (reads, closed) = (ring.reads.version, ring.closed);
            format!("sees layouts {live:?}, reads {reads}, generation {}, closed: {closed}", ring.generation)
        });
        if self.options.change_copies {
            self.note_strict_buckets(&ring.live);
        }
        let node = &mut self.nodes[usize::from(at)];
        let Some(running) = &mut node.running else { return };
        let view = Arc::new(ClusterView::new(ring, running.control.control.records()));
        let before = std::mem::replace(&mut running.view, Arc::clone(&view));
        if before.layout_name() != view.layout_name() {
            node.earlier_layout = Some(before.layout().clone());
        }
        self.recorder.buckets_seen(at, running.control.control.records());
        if self.options.faults.version > 0 {
            running.shards.iter_mut().for_each(|task| task.views.push(Arc::clone(&view)));
            self.versions_seen(at, &view);
        }
        let layouts = view.layouts().range();
        self.tell_all(at, &Event::View(view));
        self.link_event(at, LinkEvent::Layouts(layouts));
    }

    /// The layouts by which a node may just now have found out who the owners of a key are.
    pub(super) fn layouts_of(&self, at: NodeIndex) -> Vec<&Layout> {
        let node = &self.nodes[usize::from(at)];
        let newest = if self.has_changes() { node.ring.newest() } else { self.keys.layout() };
        std::iter::once(newest).chain(&node.earlier_layout).collect()
    }

    /// An operator changes something of the ring at a node.
    pub(super) fn change_layout(&mut self, at: NodeIndex) {
        let Some(ring) = self.kept_ring(at) else { return };
        let (waits, newest, partitions) = (Awaited::of(ring), ring.newest().clone(), ring.partitions());
        if waits.step.is_some() && self.faults.percent(40) {
            return self.skip(at, &waits.nodes);
        }
        if self.options.change_copies && self.faults.percent(50) {
            return self.set_copies(at, &newest);
        }
        // Each split doubles what every shard has to look at.
        let split = self.faults.percent(20) && partitions < self.options.partitions * 8;
        let mut roles = Vec::new();
        if !split {
            roles.push(self.a_change(&newest));
            if self.faults.percent(40) {
                roles.push(self.a_change(&newest));
            }
        }
        self.note(at, || match split {
            true => format!("is asked to split {partitions} partitions"),
            false => format!("is asked to change the layout: {roles:?}"),
        });
        let staging = Staging { roles, split, ..Staging::default() };
        self.ring_event(at, RingEvent::Command(0, RingCommand::Stage(staging)));
        // An operator may think better of it, or be gone.
        if self.faults.percent(10) {
            return;
        }
        let running = self.nodes[usize::from(at)].running.as_ref();
        let plan = running.and_then(|running| running.ring.as_ref()).map(|task| task.control.plan());
        if let Some(Ok(solution)) = plan {
            self.recorder.mark(if solution.layout.partitions() > partitions {
                "split applied"
            } else {
                "layout applied"
            });
            self.ring_event(at, RingEvent::Command(0, RingCommand::Apply(solution.layout.name())));
        }
    }

    /// An operator gives a bucket other copies: more, fewer, or none any more but at owners.
    fn set_copies(&mut self, at: NodeIndex, newest: &Layout) {
        let bucket = self.faults.index(self.keys.buckets.len());
        let (now, id) = (self.keys.copies(newest, bucket), self.keys.bucket_id(bucket));
        let most = weigh(newest).clamp(1, 5) as u64;
        let turns_strict = now.sloppy && self.faults.percent(40);
        let n = match turns_strict && self.faults.percent(50) {
            true => now.n,
            false => self.faults.between(1, most) as u8,
        };
        let (seen, name) = (newest.copies_of(id).map_or(0, |of| of.change), self.keys.buckets[bucket].name.clone());
        let sloppy = now.sloppy && !turns_strict;
        self.note(at, || format!("is asked for n = {n}, sloppy {sloppy} of b{bucket} instead of {now:?}"));
        let mark = if turns_strict { "bucket turned strict" } else { "copies changed" };
        self.recorder.mark(mark);
        let change = CopiesChange { bucket: id, name, seen, n, sloppy };
        self.ring_event(at, RingEvent::Command(0, RingCommand::SetCopies(change)));
    }

    /// Notes the buckets that have turned strict: where no older layout is live any more, all nodes read by the newest.
    fn note_strict_buckets(&mut self, live: &[Layout]) {
        for bucket in 0..self.keys.buckets.len() {
            let strict = live.iter().all(|layout| !self.keys.copies(layout, bucket).sloppy);
            if strict && live.len() == 1 {
                self.strict_from_us.entry(bucket).or_insert(self.now_us);
            } else if !strict {
                // An operator who has raced may have made it sloppy again.
                self.strict_from_us.remove(&bucket);
            }
        }
    }

    /// The ring of a running node.
    fn kept_ring(&self, at: NodeIndex) -> Option<&rejoin_proto::Ring> {
        Some(self.nodes[usize::from(at)].running.as_ref()?.ring.as_ref()?.control.ring())
    }

    /// A node that joins, leaves, weighs something else or moves to another zone.
    fn a_change(&mut self, newest: &Layout) -> (Name, Role) {
        let node = self.any_node();
        let of = self.keys.of(node).clone();
        let copies = (0..self.keys.buckets.len()).map(|bucket| self.keys.copies(newest, bucket).n);
        let holds_most = copies.max().unwrap_or_default().max(3);
        let known = newest.node(of.id).cloned();
        let (zone, capacity) = (self.faults.below(u64::from(self.options.zones)), self.faults.between(1, 3) as u32);
        let another = Name::new(format!("z{zone}")).expect("a good name");
        // Two changes at once may take two nodes.
        let may_leave = weigh(newest) > usize::from(holds_most) + 1;
        let role = match (known, self.faults.below(3)) {
            (Some(_), 0) if may_leave => Role::Removed,
            (Some(known), 1) => Role::Member { zone: known.zone, capacity },
            (Some(known), _) => Role::Member { zone: another, capacity: known.capacity },
            (None, _) => Role::Member { zone: another, capacity },
        };
        (of.name, role)
    }

    /// An operator declares a node dead that a change waits for and that is down.
    fn skip(&mut self, at: NodeIndex, waited_for: &[NodeId]) {
        let down = waited_for.iter().map(|node| self.keys.index(*node));
        let Some(dead) = down.into_iter().find(|node| self.nodes[usize::from(*node)].running.is_none()) else { return };
        let name = self.keys.of(dead).name.clone();
        // What only it has acknowledged is given up by reads.
        let (node, at_us) = (dead, self.now_us);
        self.recorder.run.losses.push(Loss { node, at_us, synced: true, wiped: false, known_us: None });
        self.recorder.mark("node declared dead");
        self.note(at, || format!("is told that n{dead} is DEAD"));
        self.ring_event(at, RingEvent::Command(0, RingCommand::Skip(name)));
    }

    /// A ring for a node that has lost its own: that of another one.
    pub(super) fn ring_of_another(&mut self, at: NodeIndex) -> rejoin_proto::Ring {
        let newest = (0..).zip(&self.nodes).filter(|(other, _)| *other != at).map(|(_, node)| &node.ring);
        newest.max_by_key(|ring| ring.newest().name()).expect("another node").clone()
    }

    /// What a change of layout still waits for; `None` once all nodes know of its end.
    pub(super) fn unfinished_change(&self) -> Option<String> {
        let rings: Vec<_> = (0..self.options.nodes).filter_map(|at| Some((at, self.kept_ring(at)?))).collect();
        let (first, ring) = rings.first()?;
        let waits = Awaited::of(ring);
        if ring.live.len() > 1 || waits.step.is_some() {
            let nodes: Vec<NodeIndex> = waits.nodes.iter().map(|node| self.keys.index(*node)).collect();
            return Some(format!(
                "n{first}: {} layouts are live, {:?} waits for {nodes:?}",
                ring.live.len(),
                waits.step
            ));
        }
        let other = rings.iter().find(|(_, other)| other.digest() != ring.digest())?;
        Some(format!("the rings of n{first} and n{} differ: {:?} and {:?}", other.0, ring.notes, other.1.notes))
    }

    /// The owners of the keys are those of the layout at the end.
    pub(super) fn settle_owners(&mut self) {
        if let Some(ring) = self.kept_ring(0) {
            let newest = ring.newest().clone();
            self.keys.settle(&newest);
            for (place, key) in self.keys.places.iter().zip(&mut self.recorder.run.keys) {
                key.strict_from_us = self.strict_from_us.get(&place.bucket).copied();
            }
        }
    }
}

/// How many nodes may own something.
fn weigh(layout: &Layout) -> usize {
    layout.nodes.iter().filter(|node| node.capacity > 0).count()
}
