//! The ring: all that nodes tell each other about layouts and their changes.
//!
//! Every node keeps the whole [`Ring`]. Two rings are joined field by field, and the join is commutative, associative
//! and idempotent, so it does not matter in which order nodes hear of each other. (The idea of update trackers that are
//! merged by their maximum is that of Garage's layout history.)
//!
//! A layout is *live* from the time it is applied until all nodes read by a newer one. Names of layouts are ordered, on
//! all nodes alike, by version and then hash: of two layouts that administrators applied at the same time, the one with
//! the larger name is the target, and the other one is live like any older layout.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::codec::Versioned;
use crate::id::{Name, NodeId};
use crate::layout::{Layout, LayoutPolicy, LayoutRange, LayoutRef, MAX_PARTITIONS};

/// The most layouts that are live at once. While there are so many, no further one is applied.
pub const MAX_LIVE: usize = 4;
/// The past layouts that are remembered for the operator.
pub const MAX_PAST: usize = 64;

/// All that a node knows of the cluster's layouts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ring {
    /// The cluster's first layout. Nodes with different ones are of different clusters.
    pub origin: LayoutRef,
    /// The live layouts, in the order of their names. The last one is the newest: the target of a change. Never empty,
    /// and at most [`MAX_LIVE`], unless administrators raced.
    pub live: Vec<Layout>,
    /// Everything else.
    pub notes: RingNotes,
}

impl Versioned for Ring {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "ring";
}

/// What is known about layouts, apart from the layouts themselves.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RingNotes {
    /// Layouts with a smaller name are retired.
    pub oldest: LayoutRef,
    /// How far each node has come. Larger names win, field by field.
    pub progress: BTreeMap<NodeId, Progress>,
    /// Nodes that an operator has declared dead: layouts up to that name do not wait for them. Larger names win.
    pub skipped: BTreeMap<NodeId, LayoutRef>,
    /// Changes of nodes that are staged and not applied. The larger entry wins.
    pub staged: BTreeMap<NodeId, Staged<Role>>,
    /// The policy that is staged. The larger entry wins.
    pub policy: Option<Staged<LayoutPolicy>>,
    /// The nodes that have started, members of a layout or not, and their addresses. The later start wins. Those that
    /// have left are forgotten ([`Ring::retire`]).
    pub announced: BTreeMap<NodeId, Announced>,
    /// The layouts that were applied so far, the last [`MAX_PAST`].
    pub past: BTreeMap<LayoutRef, PastLayout>,
    /// The most partitions that a layout had so far. The larger number wins.
    pub partitions: u32,
    /// The number of partitions that is staged. The larger entry wins.
    pub split: Option<Staged<u32>>,
}

/// How far a node has come, as the newest layout for which each step is done. The steps are in this order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Its writes need their quorum in that layout too, and its writes that did not have ended.
    pub acknowledged: LayoutRef,
    /// It has seen that all nodes have acknowledged that layout, and refuses writes by older ones: what it says in an
    /// exchange from then on has all that was acknowledged by older ones.
    pub closed: LayoutRef,
    /// It has everything of the partitions that it gains by that layout.
    pub exchanged: LayoutRef,
    /// It has seen that all nodes have exchanged, and its reads use that layout only.
    pub reads: LayoutRef,
}

/// Something that is staged on top of a layout. Once a newer layout is live, it is void.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Staged<T> {
    /// The newest layout when it was staged.
    pub base: LayoutRef,
    /// Counts the changes of this entry since.
    pub number: u32,
    /// What is staged; `None` if that was taken back.
    pub what: Option<T>,
}

/// What a node is to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A member, in that zone and with that capacity. A member without capacity owns nothing.
    Member {
        /// Its zone.
        zone: Name,
        /// Its share of the ring, relative to the capacities of other nodes.
        capacity: u32,
    },
    /// No member any more.
    Removed,
}

/// A node as it announces itself at its start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Announced {
    /// Counts the starts at which name or address changed.
    pub number: u64,
    /// Its name, as in its certificate.
    pub name: Name,
    /// The address at which peers and clients reach it.
    pub address: Address,
}

/// A layout that was applied.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PastLayout {
    /// When, in milliseconds since 1970 by the clock of the node that took the command.
    pub applied_ms: u64,
    /// The node that took the command.
    pub by: NodeId,
    /// Its members.
    pub nodes: u32,
    /// Copies of partitions that it moved, for the default n.
    pub moved: u32,
    /// The bucket whose copies it changed, and nothing else; `None` if it changed something else.
    pub bucket: Option<ChangedBucket>,
    /// The partitions into which it split the ring, and nothing else; `None` if it did not.
    pub split: Option<u32>,
}

/// A bucket whose copies a layout changed, for the operator.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ChangedBucket {
    /// Its name then.
    pub name: Name,
    /// Copies of each object.
    pub n: u8,
    /// Whether other nodes stand in for owners.
    pub sloppy: bool,
}

/// A message about the ring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RingMessage {
    /// The hash of the sender's whole ring. The receiver answers with all its news if its own is another one.
    Digest(u64),
    /// News, or all that there is.
    News {
        /// The names of the sender's live layouts, in their order.
        live: Vec<LayoutRef>,
        /// What is new, or all.
        notes: Box<RingNotes>,
        /// The sender wants the receiver's in return.
        wants: bool,
    },
    /// Asks for layouts by name.
    Wanted(Vec<LayoutRef>),
    /// Layouts that were asked for, or that the sender has applied just now.
    Layouts(Vec<Layout>),
}

impl Progress {
    /// The larger of both, step by step.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged.max(other.acknowledged),
            closed: self.closed.max(other.closed),
            exchanged: self.exchanged.max(other.exchanged),
            reads: self.reads.max(other.reads),
        }
    }
}

impl RingNotes {
    /// Joins what another node knows.
    pub fn join(&mut self, other: &Self) {
        self.oldest = self.oldest.max(other.oldest);
        for (node, theirs) in &other.progress {
            let ours = self.progress.entry(*node).or_default();
            *ours = ours.join(*theirs);
        }
        for (node, theirs) in &other.skipped {
            let ours = self.skipped.entry(*node).or_default();
            *ours = (*ours).max(*theirs);
        }
        join_larger(&mut self.staged, &other.staged);
        join_larger(&mut self.announced, &other.announced);
        join_larger(&mut self.past, &other.past);
        if other.policy > self.policy {
            self.policy.clone_from(&other.policy);
        }
        if other.split > self.split {
            self.split.clone_from(&other.split);
        }
        if is_count(other.partitions) {
            self.partitions = self.partitions.max(other.partitions);
        }
        while self.past.len() > MAX_PAST {
            self.past.pop_first();
        }
    }

    /// What these notes have and `told` has not: joined with `told`, it is these notes again, but for past layouts that
    /// were forgotten.
    #[must_use]
    pub fn since(&self, told: &Self) -> Self {
        Self {
            oldest: self.oldest,
            progress: newer(&self.progress, &told.progress),
            skipped: newer(&self.skipped, &told.skipped),
            staged: newer(&self.staged, &told.staged),
            policy: self.policy.clone().filter(|_| self.policy != told.policy),
            announced: newer(&self.announced, &told.announced),
            past: newer(&self.past, &told.past),
            partitions: self.partitions,
            split: self.split.clone().filter(|_| self.split != told.split),
        }
    }
}

/// Whether a ring can have so many partitions.
fn is_count(partitions: u32) -> bool {
    partitions.is_power_of_two() && partitions <= MAX_PARTITIONS
}

/// Keeps the larger of two entries under a key.
fn join_larger<K: Ord + Copy, V: Ord + Clone>(ours: &mut BTreeMap<K, V>, theirs: &BTreeMap<K, V>) {
    for (key, value) in theirs {
        if ours.get(key).is_none_or(|known| known < value) {
            ours.insert(*key, value.clone());
        }
    }
}

fn newer<K: Ord + Copy, V: PartialEq + Clone>(all: &BTreeMap<K, V>, told: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    all.iter().filter(|(key, value)| told.get(key) != Some(value)).map(|(key, value)| (*key, value.clone())).collect()
}

impl Ring {
    /// The ring of a cluster that begins with that layout.
    #[must_use]
    pub fn new(first: Layout) -> Self {
        let origin = first.name();
        let reached = Progress { acknowledged: origin, closed: origin, exchanged: origin, reads: origin };
        let progress = first.nodes.iter().map(|node| (node.id, reached)).collect();
        let partitions = first.partitions();
        let notes = RingNotes { oldest: origin, progress, partitions, ..RingNotes::default() };
        Self { origin, live: alloc::vec![first], notes }
    }

    /// The newest layout.
    ///
    /// # Panics
    /// If there is none, which [`Ring::check`] has refused.
    #[must_use]
    pub fn newest(&self) -> &Layout {
        self.live.last().expect("a ring has a live layout")
    }

    /// The partitions of the ring: the most that a layout ever had. A layout that has fewer is taken as
    /// [divided](Layout::divided) into so many. It was made before a split, or by an administrator who did not know of
    /// it and whose layout won; what was divided stays so.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.live.iter().map(Layout::partitions).fold(self.notes.partitions, u32::max)
    }

    /// Joins the notes of another node. The layouts that it has must be here already ([`Ring::lacks`]).
    pub fn join(&mut self, notes: &RingNotes) {
        self.notes.join(notes);
        self.retire();
    }

    /// Takes in layouts of other nodes. Returns whether any of them is new here.
    pub fn add(&mut self, layouts: Vec<Layout>) -> bool {
        let before = self.live.len();
        for layout in layouts {
            let name = layout.name();
            if self.lacks(name) {
                let at = self.live.partition_point(|known| known.name() < name);
                self.notes.partitions = self.notes.partitions.max(layout.partitions());
                self.live.insert(at, layout);
            }
        }
        self.live.len() > before
    }

    /// Whether a layout is unknown here, and not retired either.
    #[must_use]
    pub fn lacks(&self, name: LayoutRef) -> bool {
        name >= self.notes.oldest && self.live.iter().all(|known| known.name() != name)
    }

    /// Drops the layouts that are older than the oldest live one, and the nodes that were last seen before it and are
    /// no members. The newest layout always stays.
    ///
    /// A running node acknowledges each layout, whether it is a member or not. So one that has not acknowledged the
    /// oldest live layout is down since before the last change, and announces itself anew if it returns. A node that
    /// was declared dead stays known, because its data is refused.
    pub fn retire(&mut self) {
        let oldest = self.notes.oldest;
        let retired = self.live.iter().take(self.live.len() - 1).take_while(|layout| layout.name() < oldest).count();
        self.live.drain(..retired);
        let Self { live, notes, .. } = self;
        let is_gone = |(node, progress): &(&NodeId, &Progress)| {
            progress.acknowledged < oldest
                && !notes.skipped.contains_key(node)
                && live.iter().all(|layout| layout.node(**node).is_none())
        };
        let gone: Vec<NodeId> = notes.progress.iter().filter(is_gone).map(|(node, _)| *node).collect();
        for node in gone {
            notes.progress.remove(&node);
            notes.announced.remove(&node);
        }
    }

    /// The names of the oldest and the newest live layout.
    #[must_use]
    pub fn live_range(&self) -> LayoutRange {
        let newest = self.newest().name();
        LayoutRange { oldest: self.live.first().map_or(newest, Layout::name), newest }
    }

    /// A hash of everything: equal rings have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&crate::codec::encode(self))
    }

    /// The roles that are staged on top of the newest layout.
    pub fn staged(&self) -> impl Iterator<Item = (NodeId, &Role)> + '_ {
        let newest = self.newest().name();
        let valid = move |staged: &&Staged<Role>| staged.base == newest;
        self.notes.staged.iter().filter_map(move |(node, staged)| {
            Some(staged).filter(valid).and_then(|staged| Some((*node, staged.what.as_ref()?)))
        })
    }

    /// The policy that is staged on top of the newest layout, if one is.
    #[must_use]
    pub fn staged_policy(&self) -> Option<LayoutPolicy> {
        let newest = self.newest().name();
        self.notes.policy.as_ref().filter(|staged| staged.base == newest)?.what
    }

    /// The number of partitions that is staged on top of the newest layout, if one is, and the ring has not got so many
    /// by now.
    #[must_use]
    pub fn staged_split(&self) -> Option<u32> {
        let newest = self.newest().name();
        let staged = self.notes.split.as_ref().filter(|staged| staged.base == newest)?.what;
        staged.filter(|partitions| is_count(*partitions) && *partitions > self.partitions())
    }

    /// Checks a decoded ring.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), alloc::string::String> {
        if self.live.is_empty() {
            return Err("it has no layout".into());
        }
        if self.live.windows(2).any(|pair| pair[0].name() >= pair[1].name()) {
            return Err("its layouts are not in their order".into());
        }
        if !is_count(self.notes.partitions) {
            return Err("it has no possible number of partitions".into());
        }
        self.live.iter().try_for_each(|layout| layout.check().map_err(|bad| alloc::format!("{bad}")))
    }
}
