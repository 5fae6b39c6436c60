//! A cluster in one thread, under virtual time.
//!
//! Everything that happens is an [`Occurrence`] in one queue, ordered by time and then by the order of planning.
//! Nothing else decides, so a seed is a run. Nodes run the product's own machines (`rejoin_core::{shard, node,
//! control}`); only time, network, disk and chance are simulated. In reading order: this file (the queue), `node` (a
//! process and its disk), `batch` (a shard's queues), `scans`, `links` (connections), `leaving` (graceful stops),
//! `catalog` (the control task), `rings` (changes of layout), `steps` (what owners hold meanwhile), `lives` (starts and
//! ends), `clients`, `chaos` (faults), `versions` (of plugins), `undos` (of their folds), `calm` (the liveness phase).

mod batch;
mod calm;
mod catalog;
mod chaos;
mod clients;
mod leaving;
mod links;
mod lives;
mod members;
mod node;
mod rings;
mod scans;
mod steps;
mod undos;
mod versions;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use chaos::{Class, Heal};
use links::Dialling;
use node::Node;
use steps::Steps;
use versions::Versions;

use rejoin_core::control::Catalog;
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::node::batch::Output;
use rejoin_core::shard::event::{ClientRequest, Event, Now};
use rejoin_core::view::ClusterView;
use rejoin_proto::Ring;
use rejoin_proto::client::Reply;
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{PeerEnvelope, PeerHello, PeerReady};

use crate::atlas::Atlas;
use crate::history::{CallId, NodeIndex};
use crate::keys::Keys;
use crate::network::Network;
use crate::options::{Options, SECOND};
use crate::record::Recorder;
use crate::rng::{Rng, Stream};
use crate::trace::{Filter, Line, Trace};
use crate::workload::Session;

/// Wall time at the start of every run, in milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// When independent sessions begin, so that all nodes serve.
const APART_US: u64 = 10 * SECOND;

/// Something that happens at a planned time.
#[derive(Debug)]
enum Occurrence {
    /// A shard has something to do, or its timer is due. Ignored in another life of the node, like all that follow.
    Wake { node: NodeIndex, life: u32, shard: u16 },
    /// A sync of the first `goal` changes has ended.
    Synced { node: NodeIndex, life: u32, shard: u16, goal: u64 },
    /// An event for a shard.
    Notice { node: NodeIndex, life: u32, shard: u16, event: Box<Event> },
    /// A message over a connection between nodes.
    Parcel { from: NodeIndex, to: NodeIndex, connection: u32, parcel: Parcel },
    /// A client's request comes to a node.
    Request { node: NodeIndex, life: u32, request: Box<ClientRequest> },
    /// A reply comes to a client.
    Reply { call: CallId, reply: Box<Reply> },
    /// A session does its next step.
    Act { session: u16 },
    /// A client gives its call up.
    GiveUp { call: CallId },
    /// A node's links have something to do.
    Links { node: NodeIndex, life: u32 },
    /// A node's membership has something to do.
    Members { node: NodeIndex, life: u32 },
    /// A datagram comes over a connection between nodes.
    Datagram { from: NodeIndex, to: NodeIndex, connection: u32, body: Bytes },
    /// A node's catalog has something to do.
    Control { node: NodeIndex, life: u32 },
    /// A node's ring has something to do.
    Ring { node: NodeIndex, life: u32 },
    /// A datagram that opens a connection is sent.
    Dialling(Dialling),
    /// A connection is open at one end.
    Connected { node: NodeIndex, life: u32, peer: NodeIndex, connection: u32, dialled: bool },
    /// A stopping node checks what is still waited for.
    Leaving { node: NodeIndex, life: u32 },
    /// A node checks whether it still waits for a stopping peer.
    LetGo { node: NodeIndex, life: u32, peer: NodeIndex, connection: u32 },
    /// A node is to be started.
    Boot { node: NodeIndex, life: u32 },
    /// Idle connections are closed.
    Connections,
    /// A fault of a class is due.
    Fault(Class),
    /// A fault is over.
    Heal(Heal),
}

/// A message over a connection.
#[derive(Debug)]
enum Parcel {
    Message(Box<PeerEnvelope>),
    Hello(Box<PeerHello>),
    /// *Ready*, behind all objections to the receiver's actors.
    Ready(PeerReady),
    /// The sender is rebuilt, after its disk was replaced.
    Rebuilt,
    /// The sender's wall clock.
    Clock(u64),
    /// The sender is about to stop.
    Leaving,
    /// The sender asks nothing more of the receiver, which is stopping.
    Left,
    /// The other side has closed the connection, with the reason if it refuses the receiver.
    Closed(Option<String>),
}

#[derive(Debug)]
struct Planned {
    /// The time in the upper half, and the number of the plan in the lower: one comparison orders two plans.
    order: u128,
    what: Occurrence,
}

impl Planned {
    fn at_us(&self) -> u64 {
        (self.order >> 64) as u64
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// A cluster, its clients and its faults.
pub(crate) struct World {
    pub(crate) options: Options,
    /// Virtual time.
    now_us: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    keys: Keys,
    view: Arc<ClusterView>,
    contexts: ContextKey,
    causal_key: CausalKey,
    nodes: Vec<Node>,
    network: Network,
    sessions: Vec<Session>,
    pub(crate) recorder: Recorder,
    atlas: Atlas,
    steps: Steps,
    versions: Versions,
    faults: Rng,
    clients: Rng,
    /// The streams of independent sessions.
    own: Vec<Rng>,
    plugins: Rng,
    scans: Rng,
    /// The percentage of merges that fail now; above 0 some also take long.
    plugin_trouble: u32,
    /// The latest time that any wall clock showed before it was set back.
    latest_wall_ms: u64,
    /// Nodes with an old disk that have not met all peers yet.
    meeting: Vec<NodeIndex>,
    /// From when on buckets are strict that were sloppy before.
    strict_from_us: BTreeMap<usize, u64>,
    /// The catalog of a new cluster.
    catalog: Catalog,
    /// Whether sessions begin calls.
    open: bool,
    pub(crate) trace: Trace,
    /// The outputs of a batch; kept for its allocation.
    outputs: Vec<Output>,
}

impl World {
    pub(crate) fn new(options: Options, filter: Option<Filter>) -> Self {
        let seed = options.seed;
        let mut keys = Keys::new(&options);
        let mut recorder = Recorder::default();
        for (bucket, of) in options.buckets.iter().enumerate() {
            (0..of.keys).for_each(|_| recorder.run.keys.extend(keys.make(bucket, None)));
        }
        recorder.run.tenants = options.tenants;
        let catalog = Catalog { records: keys.records() };
        let ring = Ring::new(keys.layout().clone());
        let view = Arc::new(ClusterView::new(keys.layout().clone(), &catalog.records));
        let network =
            Network::new(usize::from(options.nodes), options.network.clone(), Rng::new(seed, Stream::Network));
        let mut world = Self {
            now_us: 0,
            queue: BinaryHeap::with_capacity(1024),
            planned: 0,
            nodes: (0..options.nodes)
                .map(|at| Node::new(keys.node(at), options.shards, catalog.clone(), ring.clone()))
                .collect(),
            sessions: (0..options.clients.sessions)
                .map(|number| Session::new(u32::from(number)).apart(options.apart))
                .collect(),
            keys,
            view,
            contexts: ContextKey::derive(0, b"the simulated cluster"),
            causal_key: CausalKey::derive(b"the simulated cluster"),
            network,
            recorder,
            atlas: Atlas::default(),
            steps: Steps::default(),
            versions: Versions::new(&options),
            faults: Rng::new(seed, Stream::Faults),
            clients: Rng::new(seed, Stream::Clients),
            own: (0..options.clients.sessions)
                .filter(|_| options.apart)
                .map(|session| Rng::new(seed, Stream::Client(session.into())))
                .collect(),
            plugins: Rng::new(seed, Stream::Plugins),
            scans: Rng::new(seed, Stream::Scans),
            plugin_trouble: 0,
            latest_wall_ms: 0,
            meeting: Vec::new(),
            strict_from_us: BTreeMap::new(),
            catalog,
            open: true,
            trace: Trace::new(filter),
            outputs: Vec::new(),
            options,
        };
        if let Some(operator) = world.versions.operator {
            world.sessions.push(Session::new(operator.into()));
            world.recorder.run.bad = world.versions.bad().collect();
        }
        world.begin();
        world
    }

    /// Plans the first occurrences.
    fn begin(&mut self) {
        for node in 0..self.options.nodes {
            self.boot(node);
        }
        self.plan_in(1, Occurrence::Connections);
        for session in 0..self.options.clients.sessions {
            let think_us = self.options.clients.think_us;
            let pause = self.rng_of(session).exponential(think_us) + self.options.start_grace_us / 2;
            let pause = pause + if self.options.apart { APART_US } else { 0 };
            if self.options.neighbour || self.recorder.run.tenant_of(session.into()) == 0 {
                self.plan_in(pause, Occurrence::Act { session });
            }
        }
        self.plan_faults();
    }

    /// What decides for a session.
    fn rng_of(&mut self, session: u16) -> &mut Rng {
        self.own.get_mut(usize::from(session)).unwrap_or(&mut self.clients)
    }

    /// Virtual time, in microseconds.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    fn plan_at(&mut self, at_us: u64, what: Occurrence) {
        self.planned += 1;
        let order = u128::from(at_us.max(self.now_us)) << 64 | u128::from(self.planned);
        self.queue.push(Reverse(Planned { order, what }));
    }

    fn plan_in(&mut self, us: u64, what: Occurrence) {
        self.plan_at(self.now_us + us, what);
    }

    /// Runs up to that time.
    pub(crate) fn run_until(&mut self, end_us: u64) {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at_us() <= end_us) {
            self.step();
        }
        self.now_us = self.now_us.max(end_us);
    }

    /// Runs until `done`, or up to that time. Returns whether it is done.
    fn run_while(&mut self, end_us: u64, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self) {
            if self.queue.peek().is_none_or(|Reverse(next)| next.at_us() > end_us) {
                return false;
            }
            self.step();
        }
        true
    }

    fn step(&mut self) {
        let Some(Reverse(planned)) = self.queue.pop() else { return };
        self.now_us = planned.at_us();
        match planned.what {
            Occurrence::Wake { node, life, shard } if self.lives(node, life) => self.wake(node, shard),
            Occurrence::Synced { node, life, shard, goal } if self.lives(node, life) => self.synced(node, shard, goal),
            Occurrence::Notice { node, life, shard, event } if self.lives(node, life) => self.tell(node, shard, *event),
            Occurrence::Links { node, life } if self.lives(node, life) => self.links_due(node),
            Occurrence::Members { node, life } if self.lives(node, life) => self.members_due(node),
            Occurrence::Datagram { from, to, connection, body } => self.datagram_arrived(from, to, connection, body),
            Occurrence::Control { node, life } if self.lives(node, life) => self.control_due(node),
            Occurrence::Ring { node, life } if self.lives(node, life) => self.ring_due(node),
            Occurrence::Connected { node, life, peer, connection, dialled } => {
                self.network.under_way -= 1;
                if self.lives(node, life) {
                    self.connected(node, peer, connection, dialled);
                }
            }
            Occurrence::Leaving { node, life } if self.lives(node, life) => self.leaving_due(node),
            Occurrence::LetGo { node, life, peer, connection } if self.lives(node, life) => {
                self.let_go(node, peer, connection)
            }
            Occurrence::Dialling(dialling) => self.dialling(dialling),
            Occurrence::Request { node, life, request } if self.lives(node, life) => {
                self.request_arrived(node, *request)
            }
            Occurrence::Boot { node, life } if self.nodes[usize::from(node)].life == life => self.boot(node),
            Occurrence::Parcel { from, to, connection, parcel } => self.parcel_arrived(from, to, connection, parcel),
            Occurrence::Reply { call, reply } => self.reply_arrived(call, *reply),
            Occurrence::Act { session } => self.act(session),
            Occurrence::GiveUp { call } => self.gave_up(call),
            Occurrence::Connections => self.look_at_connections(),
            Occurrence::Fault(class) => self.fault_due(class),
            Occurrence::Heal(heal) => self.heal(heal),
            Occurrence::Wake { .. }
            | Occurrence::Synced { .. }
            | Occurrence::Notice { .. }
            | Occurrence::Links { .. }
            | Occurrence::Members { .. }
            | Occurrence::Control { .. }
            | Occurrence::Ring { .. }
            | Occurrence::Request { .. }
            | Occurrence::Leaving { .. }
            | Occurrence::LetGo { .. }
            | Occurrence::Boot { .. } => {}
        }
    }

    /// Whether a node runs in that life.
    fn lives(&self, node: NodeIndex, life: u32) -> bool {
        let node = &self.nodes[usize::from(node)];
        node.life == life && node.running.is_some()
    }

    /// The time as a node's shell reads it. It is never 0, as in the product.
    fn clock(&self, node: NodeIndex) -> Now {
        Now { mono_us: self.now_us + 1, wall_ms: self.wall_ms(node) }
    }

    fn wall_ms(&self, node: NodeIndex) -> u64 {
        (WALL_MS + self.now_us / 1000).saturating_add_signed(self.nodes[usize::from(node)].skew_ms)
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.trace.into_lines()
    }

    /// A line of the trace about a node as a whole.
    fn note(&mut self, node: NodeIndex, text: impl FnOnce() -> String) {
        self.trace.line(self.now_us, Some(node), None, text);
    }
}
