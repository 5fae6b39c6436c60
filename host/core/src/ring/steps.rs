//! The four steps of a change: which of them this node can take now, and whom a step waits for.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rejoin_proto::ring::Progress;
use rejoin_proto::{Layout, LayoutRef, NodeId, Ring};

use super::RingControl;

/// A step of a change of layout. Each waits for all members of live layouts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Writes need their quorum in the newest layout too.
    Acknowledge,
    /// The owners that gain partitions take them.
    Exchange,
    /// Reads use the newest layout.
    Read,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Acknowledge, Self::Exchange, Self::Read];

    /// How far a node has come with it.
    #[must_use]
    pub fn of(self, progress: &Progress) -> LayoutRef {
        match self {
            Self::Acknowledge => progress.acknowledged,
            Self::Exchange => progress.exchanged,
            Self::Read => progress.reads,
        }
    }
}

/// The nodes that the newest layout of a ring waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Awaited {
    /// The step that is not complete; `None` if no change is under way.
    pub step: Option<Step>,
    /// The nodes that have not taken it.
    pub nodes: Vec<NodeId>,
}

impl Awaited {
    /// Whom a ring waits for.
    #[must_use]
    pub fn of(ring: &Ring) -> Self {
        for step in Step::ALL {
            let nodes = missing(ring, step);
            if !nodes.is_empty() {
                return Self { step: Some(step), nodes };
            }
        }
        Self { step: None, nodes: Vec::new() }
    }
}

/// The members of live layouts that have not taken a step for the newest layout, without those declared dead.
fn missing(ring: &Ring, step: Step) -> Vec<NodeId> {
    let newest = ring.newest().name();
    let is_missing = |node: &NodeId| ring.notes.progress.get(node).is_none_or(|progress| step.of(progress) < newest);
    members(ring).into_iter().filter(|node| !is_dead(ring, *node)).filter(is_missing).collect()
}

/// Whether an operator has declared a node dead for the newest layout.
pub(super) fn is_dead(ring: &Ring, node: NodeId) -> bool {
    ring.notes.skipped.get(&node).is_some_and(|until| *until >= ring.newest().name())
}

/// The members of all live layouts.
fn members(ring: &Ring) -> BTreeSet<NodeId> {
    ring.live.iter().flat_map(|layout| &layout.nodes).map(|node| node.id).collect()
}

/// The ring as the shards see it: part of the [`ClusterView`](crate::view::ClusterView).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingView {
    /// The live layouts, the newest last. A write needs its quorum in each.
    pub live: Vec<Layout>,
    /// The layout by which reads are answered, one of `live`.
    pub reads: LayoutRef,
    /// The partitions of the ring, as many as a live layout has, or more.
    pub partitions: u32,
    /// Grows whenever the layouts that a write or a read uses have changed. When a shard has ended all operations that
    /// began with views of an earlier generation, it reports [`RingEvent::Settled`](super::RingEvent::Settled).
    pub generation: u64,
    /// Whether this node has seen that all have acknowledged the newest layout. It refuses writes by older ones then,
    /// and its shards take what they gain, from [`RingView::sources`], until they report
    /// [`RingEvent::Exchanged`](super::RingEvent::Exchanged).
    pub closed: bool,
    /// The nodes that have closed the older layouts too. What they had when an exchange with them began after that is
    /// all that was acknowledged by the older layouts.
    pub sources: BTreeSet<NodeId>,
    /// The nodes that an operator has declared dead: no exchange with them is waited for.
    pub dead: BTreeSet<NodeId>,
}

impl From<Layout> for RingView {
    fn from(layout: Layout) -> Self {
        Self::settled(layout)
    }
}

impl From<&RingView> for RingView {
    fn from(ring: &RingView) -> Self {
        ring.clone()
    }
}

impl RingView {
    /// The view of a cluster whose layout does not change.
    #[must_use]
    pub fn settled(layout: Layout) -> Self {
        let (reads, sources) = (layout.name(), layout.nodes.iter().map(|node| node.id).collect());
        let (partitions, dead) = (layout.partitions(), BTreeSet::new());
        Self { live: alloc::vec![layout], reads, partitions, generation: 0, closed: true, sources, dead }
    }
}

impl RingControl {
    /// What the shards are to know now.
    #[must_use]
    pub fn view(&self) -> RingView {
        let newest = self.ring.newest().name();
        let has_closed = |(_, progress): &(&NodeId, &Progress)| progress.closed >= newest;
        let dead = members(&self.ring).into_iter().filter(|node| is_dead(&self.ring, *node)).collect();
        RingView {
            live: self.ring.live.clone(),
            reads: self.reads(),
            partitions: self.ring.partitions(),
            generation: self.generation,
            closed: self.own().closed >= newest,
            sources: self.ring.notes.progress.iter().filter(has_closed).map(|(node, _)| *node).collect(),
            dead,
        }
    }

    fn own(&self) -> Progress {
        self.ring.notes.progress.get(&self.node).copied().unwrap_or_default()
    }

    /// The layout by which this node reads: the newest one for which all have exchanged.
    fn reads(&self) -> LayoutRef {
        let (newest, reached) = (self.ring.newest().name(), self.own().reads);
        if self.given.1 {
            return newest;
        }
        let names = || self.ring.live.iter().map(Layout::name);
        // Rule: reads wait for the exchange.
        names().filter(|name| *name <= reached).max().or_else(|| names().min()).unwrap_or(newest)
    }

    /// Takes all steps that are possible now.
    pub(super) fn advance(&mut self) {
        let newest = self.ring.newest().name();
        if self.given.0 != newest {
            self.given = (newest, false);
            self.unexchanged = (0..self.shards).collect();
            self.new_generation();
        }
        let mut own = self.own();
        let complete = |control: &Self, step| missing(&control.ring, step).is_empty();
        // Rule: older writes have ended.
        if own.acknowledged < newest && self.unsettled.is_empty() {
            own.acknowledged = newest;
            self.progress(own);
        }
        // Rule: exchanges wait for acknowledgements.
        if own.closed < newest && own.acknowledged >= newest && complete(self, Step::Acknowledge) {
            own.closed = newest;
            self.progress(own);
        }
        if own.exchanged < newest && own.closed >= newest && self.unexchanged.is_empty() {
            own.exchanged = newest;
            self.progress(own);
        }
        if !self.given.1 && complete(self, Step::Acknowledge) && complete(self, Step::Exchange) {
            self.given.1 = true;
            if own.reads < newest {
                self.new_generation();
            }
        }
        if own.reads < newest && self.given.1 && self.unsettled.is_empty() {
            own.reads = newest;
            self.progress(own);
        }
        // Rule: layouts retire unread.
        if self.ring.notes.oldest < newest && complete(self, Step::Read) {
            self.ring.notes.oldest = newest;
            self.ring.retire();
        }
    }

    fn new_generation(&mut self) {
        self.generation += 1;
        self.unsettled = (0..self.shards).collect();
    }

    fn progress(&mut self, own: Progress) {
        self.ring.notes.progress.insert(self.node, own);
    }
}
