//! Changes of the layout: the four steps that lead from older live layouts to the newest one.
//!
//! [`RingControl`] owns the [`Ring`] of one node: the live layouts, what is staged, and how far every node has come. It
//! decides each step of this node and tells the others. It never reads a file or a clock: the shell saves the ring when
//! asked to, hands [`RingView`]s to the shards, and reports what these have done.
//!
//! No step blocks data, and each is complete when all members of live layouts have taken it (a node that an operator
//! has declared dead is not waited for):
//!
//! 1. *Acknowledge.* A node that learns of a layout gives it to its shards. Each new write needs its quorum in every
//!    live layout; when the writes that began before have ended, the node has acknowledged.
//! 2. *Exchange.* When all have acknowledged, nobody writes by the older layouts alone any more. A node that has seen
//!    that *closes* them: it refuses writes by them, so what it has is all of theirs that it will ever acknowledge. The
//!    owners that gain partitions take them from the older owners that have closed, and are done when they have been
//!    equal with all of these. (Closing is what makes this safe. The acknowledgements are waited for so that no write
//!    is refused because of a change.)
//! 3. *Read.* When all have exchanged, a node reads by the newest layout only, and says so when the reads that began
//!    before have ended. Until then it reads by the oldest live one, which has everything.
//! 4. *Retire.* When all read by the newest layout, the older ones are not live any more. Who owns nothing of a
//!    partition any more hands over what it has left, as a fallback does.
//!
//! **Copies of a bucket.** Their number, and whether other nodes stand in for owners, are a part of each layout
//! ([`BucketCopies`](rejoin_proto::BucketCopies)), so another n is another layout, and takes the same steps. All owners
//! of the bucket in it take what the older ones have, also those that were owners before: a quorum of fewer owners need
//! not meet one of more. Where nodes stood in and do not any more, a node has exchanged when it has also handed over
//! what it holds.
//!
//! **Two administrators at once.** Of two layouts with one version, the one with the larger hash is the target. The
//! other one is live, and is retired with the older ones. Each node names the newest layout it knows, so neither is
//! completed by nodes that have not heard of the other: the one that took the command has.
//!
//! **Splits.** A layout may have twice the partitions of the one before. Both halves of a partition have its owners, so
//! nothing moves, and the change runs the same steps. Shards see all live layouts with the partitions of the ring
//! ([`Ring::partitions`](rejoin_proto::Ring::partitions)), which only ever grow.
//!
//! **What is told.** A node's own steps go to all connected peers at once. Everything else is passed on by a comparison
//! with one peer after another each second, so that news also reaches the nodes that its maker does not.
//!
//! In reading order: [`RingEvent`], [`RingEffect`], [`RingControl::handle`], `steps`, `commands`, [`joining`].

mod changes;
mod commands;
pub mod joining;
mod steps;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rand_core::Rng;

use rejoin_proto::ring::{Announced, RingMessage, RingNotes};
use rejoin_proto::{ErrorReply, Layout, LayoutPolicy, LayoutRef, Name, NodeId, Ring};

use crate::Prng;
use crate::placement::solver::Solution;

pub use changes::staging;
pub use commands::{CopiesChange, MAX_CAPACITY, MOST_PARTITIONS, PlanRefused, Staging, plan};
pub use steps::{Awaited, RingView, Step};

/// How often a node compares its ring with that of a peer, in microseconds.
pub const GOSSIP_US: u64 = 1_000_000;
/// The pause after a failed save, in microseconds.
pub const SAVE_AGAIN_US: u64 = 1_000_000;

/// An operator's command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingCommand {
    /// Stage changes of nodes, and of the policy.
    Stage(Staging),
    /// Take back everything that is staged.
    Revert,
    /// Make what is staged the newest layout, if that is the layout with this name.
    Apply(LayoutRef),
    /// Do not wait for a node in the changes that are under way. What only it has acknowledged is given up by reads of
    /// one quorum.
    Skip(Name),
    /// Other copies of a bucket: another n, or other nodes that stand in for owners or do not any more.
    SetCopies(CopiesChange),
}

/// What happens to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingEvent {
    /// A peer is connected.
    PeerUp(NodeId),
    /// A peer's connection is lost.
    PeerDown(NodeId),
    /// A message of a connected peer.
    Peer(NodeId, RingMessage),
    /// A shard has ended all operations that began with views of an earlier generation ([`RingView::generation`]).
    Settled {
        /// The shard.
        shard: u16,
        /// Of the view that it has now.
        generation: u64,
    },
    /// A shard has everything of the partitions that it gains by a layout.
    Exchanged {
        /// The shard.
        shard: u16,
        /// The layout.
        layout: LayoutRef,
    },
    /// A command, under a number of the shell's.
    Command(u64, RingCommand),
    /// The answer to [`RingEffect::Save`], and always the next event after it. An error means that there was no room.
    Saved(Result<(), ErrorReply>),
    /// Time has passed; due at [`RingControl::next_wake_us`].
    Tick,
}

/// What the machine wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingEffect {
    /// Save the ring durably, then tell [`RingEvent::Saved`] before any other event. It is the last effect of its call.
    Save,
    /// Shards and sessions need a new [`RingControl::view`], links and members the members of the live layouts.
    Changed,
    /// A message to a connected peer, as a [`PeerBody::Ring`](rejoin_proto::peer::PeerBody::Ring).
    Send(NodeId, RingMessage),
    /// The answer to a command: the name of the newest layout.
    Answer(u64, Result<LayoutRef, ErrorReply>),
}

/// The purpose of a save that is under way.
#[derive(Debug)]
struct PendingSave {
    /// The command that is answered when it is saved, and undone if it cannot be.
    command: Option<(u64, Ring)>,
}

/// News that wait for layouts.
#[derive(Debug, Default)]
struct Parked {
    live: BTreeSet<LayoutRef>,
    notes: RingNotes,
}

/// The ring of one node.
#[derive(Debug)]
pub struct RingControl {
    node: NodeId,
    /// This node's name and address.
    own: (Name, rejoin_proto::Address),
    shards: u16,
    ring: Ring,
    /// What is saved, and so may be told.
    told: RingNotes,
    told_live: Vec<LayoutRef>,
    /// The view that the shell has made last.
    shown: Option<RingView>,
    /// Connected peers, with news of theirs that are about layouts which are not here yet.
    up: BTreeMap<NodeId, Option<Parked>>,
    rng: Prng,
    /// The views since the start whose layouts or reads differ.
    generation: u64,
    /// The newest layout of the view of the shards, and whether they read by it.
    given: (LayoutRef, bool),
    /// The shards that have not settled in this generation, and those that have not exchanged for the newest layout.
    unsettled: BTreeSet<u16>,
    unexchanged: BTreeSet<u16>,
    saving: Option<PendingSave>,
    save_again_us: Option<u64>,
    next_gossip_us: u64,
}

impl RingControl {
    /// The machine of a node that starts with this ring. The caller saves [`RingControl::ring`] before anything else.
    #[must_use]
    pub fn new(node: NodeId, shards: u16, kept: Ring, own: (Name, rejoin_proto::Address), mut rng: Prng) -> Self {
        let next_gossip_us = rng.next_u64() % GOSSIP_US;
        let given = (LayoutRef::default(), false);
        let mut control = Self {
            node,
            own,
            shards,
            ring: kept,
            told: RingNotes::default(),
            told_live: Vec::new(),
            shown: None,
            up: BTreeMap::new(),
            rng,
            generation: 0,
            given,
            unsettled: BTreeSet::new(),
            unexchanged: BTreeSet::new(),
            saving: None,
            save_again_us: None,
            next_gossip_us,
        };
        control.advance();
        announce(&mut control.ring, node, &control.own);
        control
    }

    /// The ring to be saved.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// When an [`RingEvent::Tick`] is due, in microseconds.
    #[must_use]
    pub fn next_wake_us(&self) -> u64 {
        self.save_again_us.unwrap_or(u64::MAX).min(self.next_gossip_us)
    }

    /// The layout that would be applied now.
    ///
    /// # Errors
    /// [`PlanRefused`]: nothing is staged, or the demands cannot be met.
    pub fn plan(&self) -> Result<Solution, PlanRefused> {
        commands::plan(&self.ring)
    }

    /// Handles one event at a time: `now_us` of a clock that never goes back, `wall_ms` for the history of layouts.
    pub fn handle(&mut self, now_us: u64, wall_ms: u64, event: RingEvent, effects: &mut Vec<RingEffect>) {
        debug_assert_eq!(self.saving.is_some(), matches!(event, RingEvent::Saved(_)), "a save is answered first");
        match event {
            RingEvent::PeerUp(peer) => {
                self.up.insert(peer, None);
                let digest = RingMessage::Digest(self.ring.digest());
                effects.push(RingEffect::Send(peer, digest));
            }
            RingEvent::PeerDown(peer) => drop(self.up.remove(&peer)),
            RingEvent::Peer(peer, message) => self.message(peer, message, effects),
            RingEvent::Settled { shard, generation } => {
                if generation == self.generation {
                    self.unsettled.remove(&shard);
                }
            }
            RingEvent::Exchanged { shard, layout } => {
                if layout == self.ring.newest().name() {
                    self.unexchanged.remove(&shard);
                }
            }
            RingEvent::Command(call, command) => {
                let before = self.ring.clone();
                match self.command(wall_ms, command) {
                    Ok(()) => return self.save(Some((call, before)), effects),
                    Err(refused) => effects.push(RingEffect::Answer(call, Err(refused))),
                }
            }
            RingEvent::Saved(result) => return self.saved(now_us, result, effects),
            RingEvent::Tick => {
                self.gossip(now_us, effects);
                if self.save_again_us.is_some_and(|at| at <= now_us) {
                    return self.save(None, effects);
                }
            }
        }
        self.go_on(effects);
    }

    /// Takes the steps that are possible now, and saves what has changed.
    fn go_on(&mut self, effects: &mut Vec<RingEffect>) {
        self.advance();
        // The others may have forgotten this node while it was down, or may know of an earlier address only.
        announce(&mut self.ring, self.node, &self.own);
        let is_news = self.ring.notes != self.told || self.names() != self.told_live;
        // What could not be saved is tried again later, and is not shown before.
        match (is_news, self.save_again_us) {
            (false, _) => self.show(effects),
            (true, None) => self.save(None, effects),
            (true, Some(_)) => {}
        }
    }

    /// Has the shell make a new view, if there is one.
    fn show(&mut self, effects: &mut Vec<RingEffect>) {
        let view = self.view();
        if self.shown.as_ref() != Some(&view) {
            self.shown = Some(view);
            effects.push(RingEffect::Changed);
        }
    }

    fn save(&mut self, command: Option<(u64, Ring)>, effects: &mut Vec<RingEffect>) {
        self.saving = Some(PendingSave { command });
        effects.push(RingEffect::Save);
    }

    fn saved(&mut self, now_us: u64, result: Result<(), ErrorReply>, effects: &mut Vec<RingEffect>) {
        let command = self.saving.take().and_then(|saving| saving.command);
        match (result, command) {
            (Ok(()), command) => {
                self.save_again_us = None;
                self.tell(command.is_some(), effects);
                if let Some((call, _)) = command {
                    effects.push(RingEffect::Answer(call, Ok(self.ring.newest().name())));
                }
                self.go_on(effects);
            }
            // Rule: unsaved rings are undone. Nobody has seen it yet.
            (Err(error), Some((call, before))) => {
                self.ring = before;
                effects.push(RingEffect::Answer(call, Err(error)));
            }
            // Nobody is told of what a restart could forget.
            (Err(_), None) => self.save_again_us = Some(now_us + SAVE_AGAIN_US),
        }
    }

    /// What is new is saved: shows it to the shell, and tells all connected peers.
    fn tell(&mut self, by_command: bool, effects: &mut Vec<RingEffect>) {
        self.show(effects);
        let (live, mut news) = (self.names(), self.ring.notes.since(&self.told));
        let new_layouts = self.ring.live.iter().filter(|layout| !self.told_live.contains(&layout.name()));
        // What others have made was pushed by them, and is passed on by gossip: a push by every node that learns it
        // would be a message for each pair of nodes.
        let layouts: Vec<Layout> = new_layouts.filter(|_| by_command).cloned().collect();
        if !by_command {
            let (mut progress, mut announced) = (news.progress, news.announced);
            progress.retain(|node, _| *node == self.node);
            announced.retain(|node, _| *node == self.node);
            let (oldest, partitions) = (news.oldest, news.partitions);
            news = RingNotes { oldest, partitions, progress, announced, ..RingNotes::default() };
        }
        let nothing = RingNotes { oldest: news.oldest, partitions: news.partitions, ..RingNotes::default() };
        if news != nothing {
            for &peer in self.up.keys() {
                if !layouts.is_empty() {
                    let body = RingMessage::Layouts(layouts.clone());
                    effects.push(RingEffect::Send(peer, body));
                }
                let message = RingMessage::News { live: live.clone(), notes: Box::new(news.clone()), wants: false };
                effects.push(RingEffect::Send(peer, message));
            }
        }
        (self.told, self.told_live) = (self.ring.notes.clone(), live);
    }

    fn names(&self) -> Vec<LayoutRef> {
        self.ring.live.iter().map(Layout::name).collect()
    }

    /// Compares the ring with that of one peer, a random one.
    fn gossip(&mut self, now_us: u64, effects: &mut Vec<RingEffect>) {
        if self.next_gossip_us > now_us {
            return;
        }
        self.next_gossip_us = now_us + GOSSIP_US / 2 + self.rng.next_u64() % GOSSIP_US;
        let at = self.rng.next_u64() as usize % self.up.len().max(1);
        if let Some(&peer) = self.up.keys().nth(at) {
            let digest = RingMessage::Digest(self.ring.digest());
            effects.push(RingEffect::Send(peer, digest));
        }
    }

    fn message(&mut self, from: NodeId, message: RingMessage, effects: &mut Vec<RingEffect>) {
        if !self.up.contains_key(&from) {
            return;
        }
        match message {
            RingMessage::Digest(digest) => {
                if digest != self.ring.digest() {
                    effects.push(RingEffect::Send(from, self.everything(true)));
                }
            }
            RingMessage::News { live, notes, wants } => {
                if wants {
                    effects.push(RingEffect::Send(from, self.everything(false)));
                }
                self.news(from, &live, &notes, effects);
            }
            RingMessage::Wanted(names) => {
                let wanted = |layout: &&Layout| names.contains(&layout.name());
                let layouts: Vec<Layout> = self.ring.live.iter().filter(wanted).cloned().collect();
                // Also if there are none any more: then the other one learns from the notes that they are retired.
                effects.push(RingEffect::Send(from, RingMessage::Layouts(layouts)));
                effects.push(RingEffect::Send(from, self.everything(false)));
            }
            RingMessage::Layouts(layouts) => {
                let sound = |layout: &Layout| layout.check().is_ok();
                self.ring.add(layouts.into_iter().filter(sound).collect());
                self.join_parked();
            }
        }
    }

    fn everything(&self, wants: bool) -> RingMessage {
        let notes = Box::new(self.ring.notes.clone());
        RingMessage::News { live: self.names(), notes, wants }
    }

    /// Joins a peer's news, once all layouts that it has are here: what it says of its steps is about these.
    fn news(&mut self, from: NodeId, live: &[LayoutRef], notes: &RingNotes, effects: &mut Vec<RingEffect>) {
        // Rule: steps come with their layouts.
        let lacking: Vec<LayoutRef> = live.iter().copied().filter(|name| self.ring.lacks(*name)).collect();
        if lacking.is_empty() {
            self.ring.join(notes);
            return self.join_parked();
        }
        if let Some(parked) = self.up.get_mut(&from) {
            let parked = parked.get_or_insert_default();
            parked.live.extend(live);
            parked.notes.join(notes);
        }
        effects.push(RingEffect::Send(from, RingMessage::Wanted(lacking)));
    }

    /// Joins the news that waited for layouts, once all of these are here, or retired.
    fn join_parked(&mut self) {
        let Self { up, ring, .. } = self;
        for parked in up.values_mut() {
            let is_ready = |parked: &mut Parked| !parked.live.iter().any(|name| ring.lacks(*name));
            if let Some(parked) = parked.take_if(is_ready) {
                ring.join(&parked.notes);
            }
        }
    }
}

/// Notes the node's own name and address.
fn announce(ring: &mut Ring, node: NodeId, (name, address): &(Name, rejoin_proto::Address)) {
    let known = ring.notes.announced.get(&node);
    if known.is_none_or(|known| (&known.name, &known.address) != (name, address)) {
        let number = known.map_or(1, |known| known.number + 1);
        let announced = Announced { number, name: name.clone(), address: address.clone() };
        ring.notes.announced.insert(node, announced);
    }
}

/// The policy of the next layout: the staged one, or that of the newest layout.
fn policy(ring: &Ring) -> LayoutPolicy {
    ring.staged_policy().unwrap_or(ring.newest().policy)
}
