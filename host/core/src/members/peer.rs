//! What is known of one peer, and what follows for its liveness.

use alloc::collections::BTreeMap;

use foca::State;

use rejoin_proto::NodeId;

use super::Timing;
use super::swim::Standing;
use super::track::Track;

/// An answer to one of this many last checks counts.
const CHECKS: u64 = 64;

/// Whether a node answers. It stays an owner of what it owns, whatever this says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Liveness {
    /// It answers, as far as this node knows.
    Alive,
    /// It is late: others are asked before it.
    Suspect,
    /// It has not answered for long: another node may take writes in its place.
    Down,
}

/// Why a peer is not [`Liveness::Alive`], or why it was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is no connection to it.
    NotConnected,
    /// It leaves probes unanswered.
    Probes,
    /// It leaves requests unanswered.
    Requests,
    /// That node says so, which may be this one if its own probe was not answered, directly and through others.
    Gossip(NodeId),
    /// It answers.
    Answers,
}

/// What SWIM says about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gossip {
    pub(super) state: State,
    /// Who has said it, as far as this node knows.
    pub told_by: Option<NodeId>,
    /// Since when, in microseconds.
    pub since_us: u64,
}

impl Gossip {
    /// What it says.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        match self.state {
            State::Alive => Liveness::Alive,
            State::Suspect => Liveness::Suspect,
            State::Down => Liveness::Down,
        }
    }
}

/// What one node thinks of another. Times are in microseconds of the node's own clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// Of whom.
    pub node: NodeId,
    /// What it thinks.
    pub liveness: Liveness,
    /// Since when.
    pub since_us: u64,
    /// Why.
    pub reason: Reason,
    /// Suspicion in thousandths of phi, by probes and by requests.
    pub phi_milli: (u64, u64),
    /// When a probe was last answered.
    pub probe_answered_us: Option<u64>,
    /// When a request was last answered.
    pub request_answered_us: Option<u64>,
    /// What others say.
    pub gossip: Gossip,
    /// Whether there is a connection.
    pub linked: bool,
}

/// A liveness, since when, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Judged {
    pub(super) liveness: Liveness,
    since_us: u64,
    reason: Reason,
}

/// What is known of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) linked: bool,
    /// The start of its process, once it has been met.
    pub(super) start: Option<u64>,
    pub(super) probes: Track,
    pub(super) requests: Track,
    /// Since when a request of a shard waits, by shard.
    pub(super) open: BTreeMap<u16, u64>,
    pub(super) gossip: Gossip,
    pub(super) judged: Judged,
    last_check: u64,
    pub(super) next_check_us: u64,
    pub(super) check_pause_us: u64,
}

impl Peer {
    /// A peer that has not been met.
    pub(super) fn new(now_us: u64) -> Self {
        let mut probes = Track::default();
        probes.asked(now_us);
        Self {
            linked: false,
            start: None,
            probes,
            requests: Track::default(),
            open: BTreeMap::new(),
            gossip: Gossip { state: State::Alive, told_by: None, since_us: now_us },
            judged: Judged { liveness: Liveness::Suspect, since_us: now_us, reason: Reason::NotConnected },
            last_check: 0,
            next_check_us: 0,
            check_pause_us: 0,
        }
    }

    /// SWIM thinks otherwise of it than before.
    pub(super) fn told(&mut self, now_us: u64, state: State, by: NodeId) {
        if self.gossip.state != state {
            self.gossip = Gossip { state, told_by: Some(by), since_us: now_us };
        }
    }

    pub(super) fn checked(&mut self, now_us: u64, number: u64, timing: &Timing) {
        self.probes.asked(now_us);
        self.last_check = number;
        self.next_check_us = now_us.saturating_add(self.check_pause_us.max(timing.check_us));
        // A peer that is down is looked for less and less often.
        if self.judged.liveness == Liveness::Down {
            self.check_pause_us = (self.check_pause_us.max(timing.check_us) * 2).min(timing.longest_check_us);
        }
    }

    /// Whether an answer to that check is an answer to a question of this node.
    pub(super) fn has_checked(&self, number: u64) -> bool {
        number <= self.last_check && self.last_check - number < CHECKS
    }

    /// A peer that has left a question open for the usual time is checked.
    pub(super) fn is_check_due(&self, now_us: u64) -> bool {
        self.linked && self.probes.asked_us.is_some() && now_us >= self.next_check_us
    }

    /// Whether nothing changes by time alone: nothing is asked of it, and nobody doubts it.
    pub(super) fn is_quiet(&self) -> bool {
        let asked = self.probes.asked_us.is_some() || self.requests.asked_us.is_some();
        self.linked && !asked && self.gossip.state == State::Alive && self.judged.liveness == Liveness::Alive
    }

    /// What this node's own probes and checks say about it.
    pub(super) fn standing(&self, now_us: u64, timing: &Timing, spread_phi: u64) -> Standing {
        match self.probes.phi_milli(now_us, timing.check_us) {
            _ if !self.linked => Standing::Silent,
            _ if self.probes.asked_us.is_none() => Standing::Answers,
            phi if phi < spread_phi => Standing::Late,
            _ => Standing::Silent,
        }
    }

    pub(super) fn excuse(&mut self, now_us: u64, late_us: u64) {
        self.probes.excuse(now_us, late_us);
        self.requests.excuse(now_us, late_us);
    }

    /// Decides on its liveness.
    pub(super) fn judge(&mut self, now_us: u64, timing: &Timing) {
        let (liveness, reason) = self.verdict(now_us, timing);
        if liveness != self.judged.liveness {
            self.judged = Judged { liveness, since_us: now_us, reason };
        } else if liveness != Liveness::Alive {
            self.judged.reason = reason;
        }
    }

    fn verdict(&self, now_us: u64, timing: &Timing) -> (Liveness, Reason) {
        let of = |phi: u64| match phi {
            phi if phi >= timing.down_phi => Liveness::Down,
            phi if phi >= timing.suspect_phi => Liveness::Suspect,
            _ => Liveness::Alive,
        };
        let probes = of(self.probes.phi_milli(now_us, timing.check_us));
        let requests = of(self.requests.phi_milli(now_us, timing.request_us));
        if !self.linked {
            return (probes.max(Liveness::Suspect), Reason::NotConnected);
        }
        let gossip = if self.heeds_gossip(now_us, timing) { self.gossip.liveness() } else { Liveness::Alive };
        let told_by = self.gossip.told_by.map_or(Reason::Answers, Reason::Gossip);
        let worst = probes.max(requests).max(gossip);
        match worst {
            Liveness::Alive => (worst, Reason::Answers),
            _ if probes == worst => (worst, Reason::Probes),
            _ if requests == worst => (worst, Reason::Requests),
            _ => (worst, told_by),
        }
    }

    /// What others say counts while this node has no newer answer of its own, and none that is fresh. A suspicion also
    /// has to stand for a while.
    fn heeds_gossip(&self, now_us: u64, timing: &Timing) -> bool {
        let stands_us = now_us.saturating_sub(self.gossip.since_us);
        if self.gossip.state == State::Suspect && stands_us < timing.settle_us {
            return false;
        }
        let Some(answered_us) = self.probes.answered_us.max(self.requests.answered_us) else { return true };
        answered_us < self.gossip.since_us && now_us.saturating_sub(answered_us) > timing.fresh_us
    }

    pub(super) fn view(&self, node: NodeId, now_us: u64, timing: &Timing) -> PeerView {
        let phi_milli =
            (self.probes.phi_milli(now_us, timing.check_us), self.requests.phi_milli(now_us, timing.request_us));
        PeerView {
            node,
            liveness: self.judged.liveness,
            since_us: self.judged.since_us,
            reason: self.judged.reason,
            phi_milli,
            probe_answered_us: self.probes.answered_us,
            request_answered_us: self.requests.answered_us,
            gossip: self.gossip,
            linked: self.linked,
        }
    }
}
