//! Membership and liveness: which nodes answer, as this node sees it.
//!
//! [`Members`] is a sans-IO machine. Datagrams, the outcomes of requests and the time go in; datagrams and changes of
//! liveness come out. Two sources decide about a peer:
//!
//! - *Suspicion*: a `Track` for probes and one for requests count for how long a peer has left a
//!   question unanswered, against how long it usually takes (phi accrual, after Hayashibara et al. 2004 and, in its
//!   exponential form, Cassandra). As soon as a peer is late, this node sends it *checks* at a fixed interval, so that
//!   one lost datagram does not make a suspect.
//! - *Gossip*: SWIM (Das et al. 2002), by `foca`, probes one random member per period and spreads what it finds, so
//!   that the load of a node does not grow with the cluster. It counts while this node has no newer answer of its own.
//!
//! The machine never changes a layout: a suspect stays an owner, and is only asked last.
//!
//! Reading order: this file, `peer` (what is known of one peer), `track` (phi), `swim` (foca and its timers), `codec`
//! (datagrams).

mod codec;
mod peer;
mod swim;
mod track;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_proto::NodeId;

pub use self::codec::MAX_DATAGRAM;
use self::codec::{Datagram, Identity};
use self::peer::Peer;
pub use self::peer::{Gossip, Liveness, PeerView, Reason};
use self::swim::{Acts, Standing, Swim};

/// What the members of a node are made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The other members of the live layouts. Datagrams that name nodes which were never met are rejected.
    pub peers: Vec<NodeId>,
    /// Orders the processes of this node: milliseconds since 1970 at its start. If a peer remembers a later one, this
    /// process goes on with a number above that.
    pub start: u64,
    /// Intervals and thresholds.
    pub timing: Timing,
}

/// Intervals in microseconds, and thresholds of suspicion in thousandths of phi.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// SWIM probes one member in each period.
    pub probe_us: u64,
    /// When three others are asked to probe a member that has not answered.
    pub indirect_us: u64,
    /// The pause between two checks of a peer that is late. Also the least that is taken for its usual time to answer a
    /// probe.
    pub check_us: u64,
    /// The longest pause between two checks of a peer that is down.
    pub longest_check_us: u64,
    /// The least that is taken for a peer's usual time to answer a request, which may wait for a disk.
    pub request_us: u64,
    /// From this suspicion on a peer is [`Liveness::Suspect`].
    pub suspect_phi: u64,
    /// From this suspicion on a peer is [`Liveness::Down`].
    pub down_phi: u64,
    /// For how long an answer of the peer outweighs gossip about it.
    pub fresh_us: u64,
    /// How much longer a peer must leave questions open before this node tells others of its suspicion, for each
    /// doubling of the cluster. Each such suspicion costs every node some datagrams, so they must not become more when
    /// nodes do.
    pub spread_step_us: u64,
    /// How long others must have suspected a peer before that counts: it may refute it.
    pub settle_us: u64,
    /// How long requests that were given up without an answer count after that.
    pub forget_us: u64,
    /// A timer that fires so late means that this process stood still.
    pub pause_us: u64,
}

impl Timing {
    /// The binary logarithm of a cluster with so many nodes besides this one.
    fn doublings(peers: usize) -> u32 {
        (peers + 1).ilog2()
    }

    /// How much later than its own suspicion this node tells others of it.
    fn spread_us(&self, peers: usize) -> u64 {
        self.spread_step_us.saturating_mul(u64::from(Self::doublings(peers)))
    }

    /// From this suspicion on this node tells others of it: later by that for a peer that usually answers at once.
    fn spread_phi(&self, peers: usize) -> u64 {
        self.suspect_phi.saturating_add(track::milli_phi(self.spread_us(peers), self.check_us))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe_us: 1_000_000,
            indirect_us: 400_000,
            check_us: 200_000,
            longest_check_us: 10_000_000,
            request_us: 500_000,
            suspect_phi: 3_000,
            down_phi: 8_000,
            fresh_us: 2_000_000,
            spread_step_us: 200_000,
            settle_us: 1_000_000,
            forget_us: 10_000_000,
            pause_us: 500_000,
        }
    }
}

/// What happens to the members.
#[derive(Clone, Debug)]
pub enum MemberEvent {
    /// There is a connection to a peer: datagrams can be sent.
    LinkUp(NodeId),
    /// There is none any more.
    LinkDown(NodeId),
    /// The other members of the live layouts are these now. Other nodes count while they are connected.
    Members(Vec<NodeId>),
    /// A peer has sent a datagram.
    Datagram(NodeId, Bytes),
    /// What has become of a shard's requests to peers since it last told. It tells again and again while one waits, and
    /// once more when none does.
    Requests(u16, Vec<(NodeId, Requests)>),
    /// Time has passed; due at [`Members::next_wake_us`].
    Tick,
}

/// What has become of a shard's requests to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Requests {
    /// The longest time that an answer took since this was last told, if there was any.
    pub answered_after_us: Option<u64>,
    /// When the oldest request that waits for an answer was sent.
    pub waiting_since_us: Option<u64>,
}

/// What the members want done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberOutput {
    /// Send a datagram of at most [`MAX_DATAGRAM`] bytes. It may get lost.
    Send(NodeId, Bytes),
    /// The liveness of a peer has changed.
    Changed(NodeId, Liveness),
}

/// What the members have done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)] // The names say it, and the metrics page explains each.
pub struct Counters {
    pub datagrams_sent: u64,
    pub bytes_sent: u64,
    pub datagrams_received: u64,
    pub datagrams_rejected: u64,
    pub suspected: u64,
    pub declared_down: u64,
    pub pauses: u64,
}

/// The members of a cluster, as one node sees them.
#[derive(Debug)]
pub struct Members {
    node: NodeId,
    timing: Timing,
    swim: Swim,
    /// The other members of the live layouts.
    members: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that are peers no more. News of them may still be under way.
    former: BTreeSet<NodeId>,
    /// Peers of whose liveness time alone may change something.
    watched: BTreeSet<NodeId>,
    /// The number of the last check.
    checks: u64,
    next_pulse_us: u64,
    /// See [`Timing::spread_phi`].
    spread_phi: u64,
    /// When this process last went on after it had stood still. What was asked before counts from then.
    resumed_us: u64,
    counters: Counters,
}

impl Members {
    /// The members as a process that begins now sees them: nobody is connected.
    #[must_use]
    pub fn new(config: Config, now_us: u64, rng: Xoshiro256PlusPlus) -> Self {
        let Config { node, peers, start, timing } = config;
        let swim = Swim::new(Identity { node, start }, peers.len(), &timing, rng);
        let spread_phi = timing.spread_phi(peers.len());
        Self {
            node,
            timing,
            swim,
            members: peers.iter().copied().collect(),
            former: BTreeSet::new(),
            watched: peers.iter().copied().collect(),
            peers: peers.into_iter().map(|peer| (peer, Peer::new(now_us))).collect(),
            checks: 0,
            next_pulse_us: now_us.saturating_add(timing.check_us),
            spread_phi,
            resumed_us: now_us,
            counters: Counters::default(),
        }
    }

    /// Whether a peer answers. This node itself does.
    #[must_use]
    pub fn liveness(&self, node: NodeId) -> Liveness {
        self.peers.get(&node).map_or(Liveness::Alive, |peer| peer.judged.liveness)
    }

    /// What is known of each peer, for people.
    pub fn views(&self, now_us: u64) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(move |(node, peer)| peer.view(*node, now_us, &self.timing))
    }

    /// What has been done since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When an [`MemberEvent::Tick`] is due, in microseconds.
    #[must_use]
    pub fn next_wake_us(&self) -> u64 {
        self.swim.next_due_us().min(self.next_pulse_us)
    }

    /// Handles one event.
    pub fn handle(&mut self, now_us: u64, event: MemberEvent, outputs: &mut Vec<MemberOutput>) {
        self.excuse_pause(now_us);
        match event {
            MemberEvent::LinkUp(peer) => self.link_up(now_us, peer, outputs),
            MemberEvent::LinkDown(peer) => {
                self.with_peer(now_us, peer, outputs, |peer| {
                    peer.linked = false;
                    peer.probes.asked(now_us);
                });
                self.forget_others();
            }
            MemberEvent::Members(members) => self.set_members(now_us, members),
            MemberEvent::Datagram(from, body) => self.datagram(now_us, from, &body, outputs),
            MemberEvent::Requests(shard, told) => {
                for (peer, requests) in told {
                    self.requests(now_us, shard, (peer, requests), outputs);
                }
            }
            MemberEvent::Tick => {}
        }
        let mut acts = Acts::default();
        let standing = standing(&self.peers, now_us, (&self.timing, self.spread_phi));
        self.swim.fire(now_us, standing, &mut acts);
        self.act(now_us, acts, None, outputs);
        if now_us >= self.next_pulse_us {
            self.next_pulse_us = now_us.saturating_add(self.timing.check_us);
            self.pulse(now_us, outputs);
        }
    }

    /// A timer that fires much too late shows that this process did not run: it was stopped, or its machine was. The
    /// silence of peers in that time is this node's own.
    fn excuse_pause(&mut self, now_us: u64) {
        let late_us = now_us.saturating_sub(self.next_wake_us());
        // Rule: own pauses are not counted.
        if late_us < self.timing.pause_us {
            return;
        }
        self.counters.pauses += 1;
        self.resumed_us = now_us;
        self.swim.postpone(late_us);
        for peer in self.peers.values_mut() {
            peer.excuse(now_us, late_us);
        }
    }

    fn set_members(&mut self, now_us: u64, members: Vec<NodeId>) {
        self.members = members.into_iter().filter(|member| *member != self.node).collect();
        for &member in &self.members {
            self.peers.entry(member).or_insert_with(|| {
                self.watched.insert(member);
                Peer::new(now_us)
            });
        }
        self.forget_others();
        self.spread_phi = self.timing.spread_phi(self.members.len());
        self.swim.resize(self.members.len(), &self.timing);
    }

    /// Who is neither a member nor connected is no peer any more.
    fn forget_others(&mut self) {
        let Self { members, peers, watched, former, .. } = self;
        peers.retain(|node, peer| {
            let stays = peer.linked || members.contains(node);
            if !stays {
                watched.remove(node);
                former.insert(*node);
            }
            stays
        });
    }

    fn link_up(&mut self, now_us: u64, peer: NodeId, outputs: &mut Vec<MemberOutput>) {
        self.watched.insert(peer);
        let known = self.peers.entry(peer).or_insert_with(|| Peer::new(now_us));
        known.linked = true;
        // The usual pause begins anew: the peer may have been down for long.
        known.check_pause_us = self.timing.check_us;
        known.probes.asked(now_us);
        self.check(now_us, peer, outputs);
        self.judge(now_us, peer, outputs);
    }

    /// Sends a check, and plans the next one in case it is not answered.
    fn check(&mut self, now_us: u64, to: NodeId, outputs: &mut Vec<MemberOutput>) {
        self.checks += 1;
        let (number, start) = (self.checks, self.swim.identity().start);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.checked(now_us, number, &self.timing);
        self.send(to, Datagram::Check { start, number }.encode(), outputs);
    }

    fn send(&mut self, to: NodeId, body: Bytes, outputs: &mut Vec<MemberOutput>) {
        if self.peers.get(&to).is_none_or(|peer| !peer.linked) {
            return;
        }
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += body.len() as u64;
        outputs.push(MemberOutput::Send(to, body));
    }

    fn datagram(&mut self, now_us: u64, from: NodeId, body: &Bytes, outputs: &mut Vec<MemberOutput>) {
        self.counters.datagrams_received += 1;
        let known = |node: NodeId| node == self.node || self.peers.contains_key(&node) || self.former.contains(&node);
        let Some(datagram) = Datagram::decode(body, from, self.node, known).filter(|_| self.peers.contains_key(&from))
        else {
            self.counters.datagrams_rejected += 1;
            return;
        };
        match datagram {
            Datagram::Check { start, number } => {
                let own = self.swim.identity().start;
                self.send(from, Datagram::Answer { start: own, number }.encode(), outputs);
                self.met(now_us, Identity { node: from, start }, outputs);
            }
            Datagram::Answer { start, number } => {
                if self.peers.get(&from).is_some_and(|peer| peer.has_checked(number)) {
                    self.answered_probe(now_us, from, outputs);
                }
                self.met(now_us, Identity { node: from, start }, outputs);
            }
            Datagram::Swim(packet) => {
                if packet.is_answer {
                    self.answered_probe(now_us, from, outputs);
                }
                let mut acts = Acts::default();
                self.swim.packet(now_us, &packet, &mut acts);
                self.act(now_us, acts, Some(from), outputs);
            }
        }
    }

    /// A peer has named its process. The first time SWIM learns of it by that.
    fn met(&mut self, now_us: u64, identity: Identity, outputs: &mut Vec<MemberOutput>) {
        let Some(peer) = self.peers.get_mut(&identity.node) else { return };
        let is_news = peer.start != Some(identity.start) || peer.gossip.state != foca::State::Alive;
        if is_news {
            peer.start = Some(identity.start);
            let mut acts = Acts::default();
            self.swim.met(now_us, identity, &mut acts);
            self.act(now_us, acts, Some(identity.node), outputs);
        }
    }

    fn answered_probe(&mut self, now_us: u64, from: NodeId, outputs: &mut Vec<MemberOutput>) {
        let check_us = self.timing.check_us;
        self.with_peer(now_us, from, outputs, |peer| {
            peer.probes.answered(now_us, None, check_us);
            peer.check_pause_us = check_us;
        });
    }

    fn requests(
        &mut self,
        now_us: u64,
        shard: u16,
        (of, requests): (NodeId, Requests),
        outputs: &mut Vec<MemberOutput>,
    ) {
        let (timing, resumed_us) = (self.timing, self.resumed_us);
        self.with_peer(now_us, of, outputs, |peer| {
            if let Some(after_us) = requests.answered_after_us {
                peer.requests.answered(now_us, Some(after_us), timing.request_us);
                // The peer has read a question and sent an answer: it needs no probe.
                peer.probes.answered(now_us, None, timing.check_us);
            }
            match requests.waiting_since_us {
                Some(since_us) => drop(peer.open.insert(shard, since_us)),
                None => drop(peer.open.remove(&shard)),
            }
            let Some(since_us) = peer.open.values().min().map(|since_us| resumed_us.max(*since_us)) else {
                return peer.requests.given_up(now_us, timing.forget_us);
            };
            // Rule: requests feed suspicion.
            peer.requests.asked(since_us);
            // A request may be slow where a check is not.
            if now_us.saturating_sub(since_us) >= timing.check_us {
                peer.probes.asked(since_us);
            }
        });
    }

    /// Does what SWIM wants. `by`: who has sent the packet, if it was one.
    fn act(&mut self, now_us: u64, acts: Acts, by: Option<NodeId>, outputs: &mut Vec<MemberOutput>) {
        for (to, packet, probe) in acts.sends {
            if probe.is_some()
                && let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.linked)
            {
                // Rule: probes feed suspicion.
                peer.probes.asked(now_us);
                peer.next_check_us = peer.next_check_us.max(now_us.saturating_add(self.timing.check_us));
                self.watched.insert(to);
            }
            self.send(to, packet, outputs);
        }
        for (node, state) in acts.changed {
            let by = by.unwrap_or(self.node);
            self.with_peer(now_us, node, outputs, |peer| peer.told(now_us, state, by));
        }
    }

    /// Changes something about a peer, and judges it anew.
    fn with_peer(
        &mut self,
        now_us: u64,
        node: NodeId,
        outputs: &mut Vec<MemberOutput>,
        change: impl FnOnce(&mut Peer),
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        change(peer);
        self.judge(now_us, node, outputs);
    }

    fn judge(&mut self, now_us: u64, node: NodeId, outputs: &mut Vec<MemberOutput>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let before = peer.judged.liveness;
        peer.judge(now_us, &self.timing);
        let after = peer.judged.liveness;
        if peer.is_quiet() {
            self.watched.remove(&node);
        } else {
            self.watched.insert(node);
        }
        if before != after {
            match after {
                Liveness::Alive => {}
                Liveness::Suspect => self.counters.suspected += 1,
                Liveness::Down => self.counters.declared_down += 1,
            }
            outputs.push(MemberOutput::Changed(node, after));
        }
    }

    /// Sends the checks that are due, and judges everybody of whom a question is open.
    fn pulse(&mut self, now_us: u64, outputs: &mut Vec<MemberOutput>) {
        let forget_us = self.timing.forget_us;
        let watched: Vec<NodeId> = self.watched.iter().copied().collect();
        for node in watched {
            if self.peers.get(&node).is_some_and(|peer| peer.is_check_due(now_us)) {
                self.check(now_us, node, outputs);
            }
            self.with_peer(now_us, node, outputs, |peer| {
                if peer.requests.is_given_up() {
                    peer.requests.given_up(now_us, forget_us);
                }
            });
        }
        let mut acts = Acts::default();
        let standing = standing(&self.peers, now_us, (&self.timing, self.spread_phi));
        self.swim.settle_doubts(now_us, standing, &mut acts);
        self.act(now_us, acts, None, outputs);
    }
}

/// What this node's own questions say about each peer.
fn standing<'a>(
    peers: &'a BTreeMap<NodeId, Peer>,
    now_us: u64,
    (timing, spread_phi): (&'a Timing, u64),
) -> impl Fn(NodeId) -> Standing + 'a {
    move |node| peers.get(&node).map_or(Standing::Silent, |peer| peer.standing(now_us, timing, spread_phi))
}
