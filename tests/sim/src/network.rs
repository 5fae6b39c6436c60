//! The links between nodes: cuts, connections, and how long a message takes.
//!
//! Bulk messages have a stream of their own: they keep their order among themselves, and have none towards the others.
//! Their stream may stand while the others go on.
//!
//! As on real connections, a message that is sent while its link is cut is sent again when the link heals, and lost
//! with its connection. Each side closes a connection on its own when it has heard nothing for the idle time.

use rejoin_proto::peer::{PeerBody, PeerEnvelope};

use crate::history::NodeIndex;
use crate::options::NetworkOptions;
use crate::rng::Rng;

/// The mean time for which a bulk stream stands, in microseconds.
const STALL_US: u64 = 500_000;
/// A bulk stream whose last message arrives only after this time has a full queue more often than not.
const BACKLOG_US: u64 = 100_000;

/// One direction of a link.
#[derive(Clone, Default, Debug)]
pub(crate) struct Link {
    /// The number of faults that cut it now.
    cuts: u32,
    /// When the last ordered message arrives.
    last_us: u64,
    /// When the last bulk message arrives.
    bulk_us: u64,
    /// Messages that wait for the link to heal.
    pub(crate) parked: Vec<(u32, Box<PeerEnvelope>)>,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    links: Vec<Link>,
    options: NetworkOptions,
    rng: Rng,
    generations: u32,
    /// The number of messages between nodes that have not arrived.
    pub(crate) under_way: u64,
    /// Whether messages are only delayed: no loss, duplicates or cuts.
    pub(crate) calm: bool,
}

/// The fate of a message.
pub(crate) enum Passage {
    /// It arrives at this time, and perhaps once more.
    Arrives { at_us: u64, again_us: Option<u64> },
    /// It waits for the link to heal.
    Waits,
    /// It is lost.
    Lost,
}

impl Network {
    pub(crate) fn new(nodes: usize, options: NetworkOptions, rng: Rng) -> Self {
        Self {
            nodes,
            links: vec![Link::default(); nodes * nodes],
            options,
            rng,
            generations: 0,
            under_way: 0,
            calm: false,
        }
    }

    pub(crate) fn link(&mut self, from: NodeIndex, to: NodeIndex) -> &mut Link {
        &mut self.links[usize::from(from) * self.nodes + usize::from(to)]
    }

    pub(crate) fn is_cut(&self, from: NodeIndex, to: NodeIndex) -> bool {
        self.links[usize::from(from) * self.nodes + usize::from(to)].cuts > 0
    }

    pub(crate) fn cut(&mut self, from: NodeIndex, to: NodeIndex) {
        self.link(from, to).cuts += 1;
    }

    /// Ends one cut. Returns the messages that have waited, if no cut is left.
    pub(crate) fn mend(&mut self, from: NodeIndex, to: NodeIndex) -> Vec<(u32, Box<PeerEnvelope>)> {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
        if link.cuts == 0 { std::mem::take(&mut link.parked) } else { Vec::new() }
    }

    /// The number of a new connection.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.generations += 1;
        self.generations
    }

    /// The idle time of a connection.
    pub(crate) fn idle_us(&self) -> u64 {
        self.options.idle_us
    }

    /// Whether a message that outlives its connection is still delivered.
    pub(crate) fn lets_ghosts_through(&self, body: &PeerBody) -> bool {
        bears_anything(body) && self.options.ghosts && !self.calm
    }

    /// The delay of a datagram that begins a connection.
    pub(crate) fn one_way_us(&mut self) -> u64 {
        self.plain_delay_us()
    }

    /// The delay of one message.
    fn delay_us(&mut self) -> u64 {
        let base = self.plain_delay_us();
        if !self.calm && self.rng.chance(self.options.stragglers) { base * 100 } else { base }
    }

    fn plain_delay_us(&mut self) -> u64 {
        self.options.latency_us + self.rng.exponential(self.options.jitter_us)
    }

    /// When an ordered message arrives.
    pub(crate) fn in_order(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex) -> u64 {
        let at_us = now_us + self.delay_us();
        let link = self.link(from, to);
        link.last_us = link.last_us.max(at_us) + 1;
        link.last_us
    }

    /// When a bulk message arrives.
    fn in_bulk_order(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex) -> u64 {
        let stands = !self.calm && self.rng.chance(self.options.bulk_stalls);
        let stall_us = if stands { self.rng.exponential(STALL_US) } else { 0 };
        let at_us = now_us + self.delay_us() + stall_us;
        let link = self.link(from, to);
        link.bulk_us = link.bulk_us.max(at_us) + 1;
        link.bulk_us
    }

    /// Whether a message finds its queue full: then it is not sent, and the sender is told.
    pub(crate) fn is_full(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex, body: &PeerBody) -> bool {
        if self.calm {
            return false;
        }
        let behind = body.is_bulk() && self.link(from, to).bulk_us > now_us + BACKLOG_US;
        self.rng.chance(self.options.unsent) || (behind && self.rng.percent(60))
    }

    /// The fate of a message between nodes that is sent now.
    pub(crate) fn passage(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex, body: &PeerBody) -> Passage {
        if !self.calm && self.rng.chance(self.options.loss) {
            return Passage::Lost;
        }
        if self.is_cut(from, to) {
            return Passage::Waits;
        }
        let at_us = match (body.is_bulk(), self.options.ordered) {
            (true, _) => self.in_bulk_order(now_us, from, to),
            (false, true) => self.in_order(now_us, from, to),
            (false, false) => now_us + self.delay_us(),
        };
        let twice = !self.calm && bears_anything(body) && self.rng.chance(self.options.duplicates);
        let again_us = twice.then(|| now_us + self.delay_us());
        Passage::Arrives { at_us, again_us }
    }

    /// When a datagram arrives that is sent now: perhaps never, perhaps twice.
    pub(crate) fn datagram(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex) -> [Option<u64>; 2] {
        if self.is_cut(from, to) || (!self.calm && self.rng.chance(self.options.loss)) {
            return [None, None];
        }
        let twice = !self.calm && self.rng.chance(self.options.duplicates);
        let at_us = now_us + self.delay_us();
        [Some(at_us), twice.then(|| now_us + self.delay_us())]
    }

    /// When a message between a client and a node arrives, if it does. None of them straggles: a write that travels for
    /// longer than the retry window could be done twice, and a client's connection is idle long before.
    pub(crate) fn client_passage(&mut self, now_us: u64) -> Option<u64> {
        let lost = !self.calm && self.rng.chance(self.options.loss);
        (!lost).then(|| now_us + self.plain_delay_us())
    }
}

/// Whether a message may arrive twice, or after the end of its connection. A forwarded request must not: it would be
/// begun twice, and may be refused the first time and done the second. No real connection does that.
fn bears_anything(body: &PeerBody) -> bool {
    matches!(
        body,
        PeerBody::Read { .. }
            | PeerBody::ReadReply { .. }
            | PeerBody::ReadSame { .. }
            | PeerBody::Replicate(_)
            | PeerBody::Replicated { .. }
    )
}
