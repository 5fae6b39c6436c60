//! The links between nodes: who hears whom, which connections each side holds, and how long a message takes.
//!
//! As on real connections, a message that is sent while its link is cut waits and is sent again when it heals; it is
//! lost with its connection. A side gives a connection up when it has heard nothing for the idle time, each side on its
//! own.

use rejoin_proto::peer::{PeerBody, PeerEnvelope};

use crate::history::NodeIndex;
use crate::options::NetworkOptions;
use crate::rng::Rng;

/// One direction between two nodes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Link {
    /// Faults that cut it now.
    cuts: u32,
    /// Orders what keeps its order.
    last_us: u64,
    /// What waits for the link to heal.
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
    /// What has been sent between nodes and has not come.
    pub(crate) under_way: u64,
    /// Whether the network does nothing worse than to take its time.
    pub(crate) calm: bool,
}

/// What becomes of a message.
pub(crate) enum Passage {
    /// It arrives then, and perhaps once more.
    Arrives { at_us: u64, again_us: Option<u64> },
    /// It waits for the link to heal.
    Waits,
    /// It is lost.
    Lost,
}

impl Network {
    pub(crate) fn new(nodes: usize, options: NetworkOptions, rng: Rng) -> Self {
        Self { nodes, links: vec![Link::default(); nodes * nodes], options, rng, generations: 0, under_way: 0, calm: false }
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

    /// Ends one cut. Returns what waited, if the link is whole again.
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

    /// How long a connection may be silent.
    pub(crate) fn idle_us(&self) -> u64 {
        self.options.idle_us
    }

    /// Whether a message that outlives its connection is still delivered.
    pub(crate) fn lets_ghosts_through(&self, body: &PeerBody) -> bool {
        bears_anything(body) && self.options.ghosts && !self.calm
    }

    /// The time of a datagram that begins a connection.
    pub(crate) fn one_way_us(&mut self) -> u64 {
        self.plain_delay_us()
    }

    /// The time of one message.
    fn delay_us(&mut self) -> u64 {
        let base = self.plain_delay_us();
        if !self.calm && self.rng.chance(self.options.stragglers) { base * 100 } else { base }
    }

    fn plain_delay_us(&mut self) -> u64 {
        self.options.latency_us + self.rng.exponential(self.options.jitter_us)
    }

    /// When a message that keeps its order arrives.
    pub(crate) fn in_order(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex) -> u64 {
        let at_us = now_us + self.delay_us();
        let link = self.link(from, to);
        link.last_us = link.last_us.max(at_us) + 1;
        link.last_us
    }

    /// What becomes of a message between nodes that is sent now.
    pub(crate) fn passage(&mut self, now_us: u64, from: NodeIndex, to: NodeIndex, body: &PeerBody) -> Passage {
        if !self.calm && self.rng.chance(self.options.loss) {
            return Passage::Lost;
        }
        if self.is_cut(from, to) {
            return Passage::Waits;
        }
        let at_us = if self.options.ordered { self.in_order(now_us, from, to) } else { now_us + self.delay_us() };
        let twice = !self.calm && bears_anything(body) && self.rng.chance(self.options.duplicates);
        let again_us = twice.then(|| now_us + self.delay_us());
        Passage::Arrives { at_us, again_us }
    }

    /// When something between a client and a node arrives, if it does. None straggles: a write that is on its way for
    /// longer than its retries are remembered can be done a second time, and a client's connection does not live so
    /// long without a word.
    pub(crate) fn client_passage(&mut self, now_us: u64) -> Option<u64> {
        let lost = !self.calm && self.rng.chance(self.options.loss);
        (!lost).then(|| now_us + self.plain_delay_us())
    }
}

/// Whether the core must bear it when a message comes twice or comes from a connection that has ended. A request that
/// is forwarded twice would be begun twice, and what is refused the first time may be done the second; no real
/// connection does that.
fn bears_anything(body: &PeerBody) -> bool {
    matches!(body, PeerBody::Read { .. } | PeerBody::ReadReply { .. } | PeerBody::Replicate(_) | PeerBody::Replicated { .. })
}
