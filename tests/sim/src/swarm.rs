//! Many membership machines and nothing else, from 3 to 1 000 nodes: how soon a dead node is known, how often a live
//! one is suspected when datagrams get lost, and what that costs a node.
//!
//! The machines are the product's own ([`rejoin_core::members`]). Simulated are time and the datagrams between them:
//! each takes a latency and an exponential jitter, and gets lost by chance. Connections stay up, also those of a dead
//! node, so that only silence tells of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use bytes::Bytes;

use rejoin_core::members::{Config, Liveness, MemberEvent, MemberOutput, Members, Timing};
use rejoin_proto::NodeId;

use crate::options::PerMillion;
use crate::options::SECOND;
use crate::rng::{Rng, Stream};

/// A datagram's way takes so long at least, and so much more on average.
const LATENCY_US: u64 = 300;
const JITTER_US: u64 = 200;
/// How long the nodes have to meet before anything is measured.
const MEETING_US: u64 = 20 * SECOND;
/// How long nothing happens but losses.
const QUIET_US: u64 = 60 * SECOND;
/// How long a death is watched.
const WATCH_US: u64 = 90 * SECOND;
/// How long a node stands still, and how long it is watched afterwards.
const STALL_US: u64 = 10 * SECOND;
const AFTER_STALL_US: u64 = 30 * SECOND;
/// Datagrams that a node which stands still finds in its socket when it goes on.
const SOCKET: usize = 64;

/// What is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The nodes.
    pub nodes: u64,
    /// Of how many of them each one knows when it starts. It learns of the others at once.
    pub known: u64,
    /// Which share of the datagrams gets lost.
    pub loss: PerMillion,
    /// Everything else that chance decides.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What was run.
    pub setup: Setup,
    /// Datagrams and their bytes that a node sends in a thousand seconds while nobody dies.
    pub datagrams: u64,
    /// See `datagrams`.
    pub bytes: u64,
    /// How often a live node was suspected, and how often it was taken for down, while nobody died.
    pub false_suspects: u64,
    /// See `false_suspects`.
    pub false_downs: u64,
    /// How long after its death each other node suspects a node, ascending.
    pub suspected_us: Vec<u64>,
    /// How long after its death each other node takes it for down, ascending.
    pub down_us: Vec<u64>,
    /// Live nodes that a node suspects which has stood still.
    pub suspected_by_stalled: u64,
    /// Nodes that do not take it for alive half a minute after it goes on.
    pub estranged: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives { from: u64, to: u64, body: Bytes },
    Wakes(u64),
}

struct Node {
    members: Members,
    wake_us: u64,
    runs: bool,
    /// What has arrived while it stood still.
    socket: Vec<(u64, Bytes)>,
}

struct Swarm {
    setup: Setup,
    rng: Rng,
    nodes: BTreeMap<u64, Node>,
    /// By time, and then in the order in which it was planned.
    plan: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    planned: u64,
    now_us: u64,
    /// When, at whom, of whom, what.
    changes: Vec<(u64, u64, u64, Liveness)>,
}

impl Swarm {
    fn new(setup: Setup) -> Self {
        let rng = Rng::new(setup.seed, Stream::Network);
        let mut swarm = Self {
            setup,
            rng,
            nodes: BTreeMap::new(),
            plan: BinaryHeap::new(),
            planned: 0,
            now_us: SECOND,
            changes: Vec::new(),
        };
        let all = || 1..=setup.nodes;
        for node in all() {
            let peers = (1..=setup.known).filter(|peer| *peer != node).map(NodeId).collect();
            let config = Config { node: NodeId(node), peers, start: 1_000 + node, timing: Timing::default() };
            let rng = Rng::raw(setup.seed, Stream::Member(node));
            let members = Members::new(config, swarm.now_us, rng);
            swarm.nodes.insert(node, Node { members, wake_us: u64::MAX, runs: true, socket: Vec::new() });
        }
        for node in all().filter(|_| setup.known < setup.nodes) {
            swarm.event(node, MemberEvent::Members(all().map(NodeId).collect()));
        }
        for node in all() {
            all().filter(|peer| *peer != node).for_each(|peer| swarm.event(node, MemberEvent::LinkUp(NodeId(peer))));
        }
        swarm
    }

    fn event(&mut self, at: u64, event: MemberEvent) {
        let Some(node) = self.nodes.get_mut(&at).filter(|node| node.runs) else { return };
        let mut outputs = Vec::new();
        node.members.handle(self.now_us, event, &mut outputs);
        let wake_us = node.members.next_wake_us();
        let is_earlier = wake_us < node.wake_us;
        if is_earlier {
            node.wake_us = wake_us;
        }
        for output in outputs {
            match output {
                MemberOutput::Send(to, body) => self.post(at, to.0, body),
                MemberOutput::Changed(peer, liveness) => self.changes.push((self.now_us, at, peer.0, liveness)),
            }
        }
        if is_earlier {
            self.plan(wake_us, Happening::Wakes(at));
        }
    }

    fn post(&mut self, from: u64, to: u64, body: Bytes) {
        if !self.rng.chance(self.setup.loss) {
            let at_us = self.now_us + LATENCY_US + self.rng.exponential(JITTER_US);
            self.plan(at_us, Happening::Arrives { from, to, body });
        }
    }

    fn plan(&mut self, at_us: u64, what: Happening) {
        self.planned += 1;
        self.plan.push(Reverse((at_us.max(self.now_us), self.planned, what)));
    }

    fn run(&mut self, for_us: u64) {
        let until_us = self.now_us + for_us;
        while self.plan.peek().is_some_and(|Reverse((at_us, ..))| *at_us <= until_us) {
            let Some(Reverse((at_us, _, what))) = self.plan.pop() else { break };
            self.now_us = at_us;
            match what {
                Happening::Arrives { from, to, body } => self.arrived(from, to, body),
                Happening::Wakes(at) => {
                    let due = self.nodes.get_mut(&at).filter(|node| node.runs && node.wake_us == at_us);
                    if let Some(node) = due {
                        node.wake_us = u64::MAX;
                        self.event(at, MemberEvent::Tick);
                    }
                }
            }
        }
        self.now_us = until_us;
    }

    fn arrived(&mut self, from: u64, to: u64, body: Bytes) {
        let Some(node) = self.nodes.get_mut(&to) else { return };
        if node.runs {
            self.event(to, MemberEvent::Datagram(NodeId(from), body));
        } else if node.socket.len() < SOCKET {
            node.socket.push((from, body));
        }
    }

    /// A node stands still for a while and goes on: first its timers fire, then it reads its socket.
    fn stall(&mut self, at: u64) {
        let set = |swarm: &mut Self, runs| {
            if let Some(node) = swarm.nodes.get_mut(&at) {
                (node.runs, node.wake_us) = (runs, u64::MAX);
            }
        };
        set(self, false);
        self.run(STALL_US);
        set(self, true);
        self.event(at, MemberEvent::Tick);
        let waiting = self.nodes.get_mut(&at).map(|node| std::mem::take(&mut node.socket)).unwrap_or_default();
        for (from, body) in waiting {
            self.event(at, MemberEvent::Datagram(NodeId(from), body));
        }
    }

    fn sent(&self) -> (u64, u64) {
        let counters = self.nodes.values().map(|node| node.members.counters());
        counters.fold((0, 0), |sum, counters| (sum.0 + counters.datagrams_sent, sum.1 + counters.bytes_sent))
    }

    fn changed_to(&self, liveness: Liveness) -> u64 {
        self.changes.iter().filter(|change| change.3 == liveness).count() as u64
    }

    /// How long after `since_us` each node takes `of` for that or worse for the first time.
    fn delays(&self, of: u64, since_us: u64, liveness: Liveness) -> Vec<u64> {
        let mut first = BTreeMap::new();
        for (at_us, by, ..) in self.changes.iter().filter(|change| change.2 == of && change.3 >= liveness) {
            first.entry(*by).or_insert(at_us - since_us);
        }
        let mut delays: Vec<u64> = first.into_values().collect();
        delays.sort_unstable();
        delays
    }
}

/// Runs a swarm: it meets, nothing happens, a node dies, another one stands still for ten seconds.
#[must_use]
pub fn run(setup: Setup) -> Outcome {
    let mut swarm = Swarm::new(setup);
    swarm.run(MEETING_US);
    swarm.changes.clear();
    let (datagrams, bytes) = swarm.sent();
    swarm.run(QUIET_US);
    let (datagrams_after, bytes_after) = swarm.sent();
    let (false_suspects, false_downs) = (swarm.changed_to(Liveness::Suspect), swarm.changed_to(Liveness::Down));
    swarm.changes.clear();
    let (dead, stalled) = (setup.nodes, 1);
    swarm.nodes.remove(&dead);
    let died_us = swarm.now_us;
    swarm.run(WATCH_US);
    let suspected_us = swarm.delays(dead, died_us, Liveness::Suspect);
    let down_us = swarm.delays(dead, died_us, Liveness::Down);
    swarm.stall(stalled);
    swarm.changes.clear();
    swarm.run(AFTER_STALL_US);
    let by_stalled =
        |change: &&(u64, u64, u64, Liveness)| change.1 == stalled && change.2 != dead && change.3 != Liveness::Alive;
    let suspected_by_stalled = swarm.changes.iter().filter(by_stalled).count() as u64;
    let estranged = |node: &&Node| node.members.liveness(NodeId(stalled)) != Liveness::Alive;
    let estranged = swarm.nodes.values().filter(estranged).count() as u64;
    let per_node_kilosecond = |sum: u64| sum * 1_000 / setup.nodes / (QUIET_US / SECOND);
    Outcome {
        setup,
        datagrams: per_node_kilosecond(datagrams_after - datagrams),
        bytes: per_node_kilosecond(bytes_after - bytes),
        false_suspects,
        false_downs,
        suspected_us,
        down_us,
        suspected_by_stalled,
        estranged,
    }
}

/// The heads of the columns of an [`Outcome`].
pub const HEADS: &str = "nodes  loss   datagrams/s  bytes/s  false suspects  false downs  suspected after    down after      \
                         after a pause\n                per node  per node   per node-hour               half      last   \
                         half      last";

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, false_downs, .. } = self;
        let seconds = |delays: &[u64], at: usize| {
            delays.get(at).map_or_else(|| "never".to_owned(), |us| format!("{:.1} s", *us as f64 / 1e6))
        };
        let all = setup.nodes as usize - 1;
        let node_hours = setup.nodes as f64 * (QUIET_US / SECOND) as f64 / 3600.0;
        write!(f, "{:>5} {:>4.0} %", setup.nodes, f64::from(setup.loss.0) / 1e4)?;
        write!(f, "{:>13.2} {:>8.0}", self.datagrams as f64 / 1e3, self.bytes as f64 / 1e3)?;
        write!(f, "{:>16.1} {false_downs:>12}", self.false_suspects as f64 / node_hours)?;
        write!(f, "{:>9} {:>9}", seconds(&self.suspected_us, all / 2), seconds(&self.suspected_us, all - 1))?;
        write!(f, "{:>10} {:>9}", seconds(&self.down_us, all / 2), seconds(&self.down_us, all - 1))?;
        write!(f, "{:>8} suspected, {} estranged", self.suspected_by_stalled, self.estranged)
    }
}

/// The sizes and losses of the whole curve.
pub const SIZES: [u64; 6] = [3, 10, 30, 100, 300, 1_000];
/// See [`SIZES`].
pub const LOSSES: [PerMillion; 4] = [PerMillion(0), PerMillion(10_000), PerMillion(50_000), PerMillion(200_000)];
