//! The cluster itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::members::Requests;
use rejoin_core::port::{Space, Store, StoreFault};
use rejoin_core::ring::RingView;
use rejoin_core::shard::event::{
    Alarm, ApplyJob, ApplyTicket, Barrier, ClientRequest, DurableTicket, Effect, Event, MergeJob, MergeTicket, Merged,
    PluginError, ReplyTo, ScanTicket, ScannedRows, ValidateJob, ValidateTicket,
};
use rejoin_core::shard::{Config, ReadLimits, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Record};
use rejoin_proto::client::{Get, GetReply, Put, PutReply, Reply, StartId};
use rejoin_proto::context::ContextKey;
use rejoin_proto::peer::{DataRequest, PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, ErrorReply, Layout, LayoutRef, NodeId, Object, ObjectId, PluginDigest, codec};

use super::store::Memory;
use super::{DEADLINE_US, SKEW_MS, WINDOW_MS, at, bucket, layout, merge, node, object_id, tenant};

pub(crate) fn contexts() -> ContextKey {
    ContextKey::derive(1, b"secret")
}

/// One node: a shard, its disk, and what its shell holds back.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) shard: Shard,
    pub(crate) store: Memory,
    pub(crate) config: Config,
    /// Whether the disk answers: while it does not, nothing that waits for it happens.
    pub(crate) syncing: bool,
    /// How far its wall clock is ahead of the others; wraps around for one that is behind.
    pub(crate) ahead_ms: u64,
    pub(crate) behind: VecDeque<Behind>,
}

/// What waits for the disk.
pub(crate) enum Behind {
    Send(NodeId, Box<PeerEnvelope>),
    Durable(DurableTicket),
}

/// How merges end.
pub(crate) type Plugin = fn(&MergeJob) -> Result<Merged, PluginError>;

/// How validations end.
pub(crate) type Validator = fn(&ValidateJob) -> Result<(), PluginError>;

/// How operations end.
pub(crate) type Operator = fn(&ApplyJob) -> Result<Bytes, PluginError>;

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) view: Arc<ClusterView>,
    pub(crate) now_ms: u64,
    /// Messages under way: from, to, what.
    pub(crate) wire: VecDeque<(NodeId, NodeId, PeerEnvelope)>,
    pub(crate) replies: BTreeMap<u64, Reply>,
    pub(crate) alarms: Vec<Alarm>,
    /// Which node wants which plugin quarantined, and why.
    pub(crate) quarantines: Vec<(usize, PluginDigest, String)>,
    /// The nodes that have told that they are rebuilt.
    pub(crate) rebuilt: Vec<usize>,
    /// The nodes that have ended the operations of earlier generations, each with the generation.
    pub(crate) settled: Vec<(usize, u64)>,
    /// The nodes that have taken what they gain, each with the layout.
    pub(crate) exchanged: Vec<(usize, LayoutRef)>,
    /// What shards have told of their requests to peers.
    pub(crate) requests: Vec<(usize, Vec<(NodeId, Requests)>)>,
    pub(crate) fatal: Vec<String>,
    /// Merges that were asked for and not run yet.
    pub(crate) merges: VecDeque<(usize, MergeTicket, MergeJob)>,
    /// `None`: merges are kept for the test to answer.
    pub(crate) plugin: Option<Plugin>,
    /// Validations that were asked for and not run yet.
    pub(crate) validations: VecDeque<(usize, ValidateTicket, ValidateJob)>,
    /// `None`: validations are kept for the test to answer.
    pub(crate) validator: Option<Validator>,
    /// Operations that were asked for and not applied yet.
    pub(crate) operations: VecDeque<(usize, ApplyTicket, ApplyJob)>,
    /// `None`: operations are kept for the test to answer.
    pub(crate) operator: Option<Operator>,
    /// Whether scans are answered at once. If not, they wait in `scans`, with the rows of the time when they were asked
    /// for.
    pub(crate) scanning: bool,
    pub(crate) scans: VecDeque<(usize, ScanTicket, Result<ScannedRows, StoreFault>)>,
    next_request: u64,
    seed: u64,
}

impl Cluster {
    pub(crate) fn new(nodes: usize, props: BucketProps) -> Self {
        Self::with_config(nodes, props, |_| {})
    }

    pub(crate) fn with_config(nodes: usize, props: BucketProps, change: impl Fn(&mut Config)) -> Self {
        Self::with_layout(layout(nodes), props, change)
    }

    /// The nodes of a layout, which are n0, n1, ....
    pub(crate) fn with_layout(layout: Layout, props: BucketProps, change: impl Fn(&mut Config)) -> Self {
        Self::in_ring(layout.nodes.len(), layout, props, change)
    }

    /// Nodes n0, n1, ..., of which some may be in no layout.
    pub(crate) fn in_ring(
        nodes: usize,
        ring: impl Into<RingView>,
        props: BucketProps,
        change: impl Fn(&mut Config),
    ) -> Self {
        let view = Arc::new(ClusterView::new(ring, &[bucket(props)]));
        let config = |at| {
            let mut config = Config {
                node: node(at),
                shard: 0,
                shards: 1,
                exchange: ExchangeConfig { max_walks: 0, ..ExchangeConfig::default() },
                contexts: contexts(),
                causal_key: CausalKey::derive(b"secret"),
                max_skew_ms: SKEW_MS,
                retry_window_ms: WINDOW_MS,
                max_retry_bytes: 20 << 20,
                max_receipt_bytes: 1 << 20,
                max_ops: 1000,
                max_op_bytes: 1 << 30,
                lost: false,
                rows_lost: false,
                replaced: false,
                handoff: Default::default(),
                // All owners are asked at once, so that a test does not depend on which are nearest.
                reads: ReadLimits { hedge_max_us: 0, ..ReadLimits::default() },
            };
            change(&mut config);
            config
        };
        let nodes = (0..nodes).map(|at| Node::open(config(at), &view, Memory::default(), at as u64)).collect();
        let mut cluster = Self {
            nodes,
            view,
            now_ms: 0,
            wire: VecDeque::new(),
            replies: BTreeMap::new(),
            alarms: Vec::new(),
            quarantines: Vec::new(),
            rebuilt: Vec::new(),
            settled: Vec::new(),
            exchanged: Vec::new(),
            requests: Vec::new(),
            fatal: Vec::new(),
            merges: VecDeque::new(),
            plugin: Some(merge::union),
            validations: VecDeque::new(),
            validator: Some(merge::is_words),
            operations: VecDeque::new(),
            operator: Some(merge::add_word),
            scanning: true,
            scans: VecDeque::new(),
            next_request: 1,
            seed: 1000,
        };
        (0..cluster.nodes.len()).for_each(|at| cluster.greet(at, true));
        cluster
    }

    /// Starts a node that was just opened: its peers connect, object if they must (unless that is lost), and it serves.
    fn greet(&mut self, at: usize, heard: bool) {
        let start = StartId(self.nodes[at].shard.start());
        self.event(at, Event::Start(start));
        for other in (0..self.nodes.len()).filter(|&other| other != at) {
            self.meet(other, at);
            self.meet(at, other);
        }
        if !heard {
            self.wire.clear();
        }
        self.deliver();
        self.event(at, Event::Serving { met_all: true });
    }

    /// A node hears that a peer is up, and what actors it has.
    fn meet(&mut self, at: usize, peer: usize) {
        let (id, actors) = (self.nodes[peer].id, self.nodes[peer].shard.actors());
        self.event(at, Event::PeerUp(id));
        self.event(at, Event::PeerActors(id, actors));
    }

    /// The owners of a key, in order, as places in `nodes`.
    pub(crate) fn owners(&self, key: &str) -> Vec<usize> {
        let layout = self.view.layout();
        let ids = layout.owners(layout.partition(&object_id(key)), 5).map(|owner| owner.id);
        ids.map(|id| self.place(id)).collect()
    }

    pub(crate) fn place(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of this cluster")
    }

    /// Hands a node one event and does what it wants, up to the messages, which stay on the wire.
    pub(crate) fn event(&mut self, to: usize, event: Event) {
        let mut effects = Vec::new();
        let node = &mut self.nodes[to];
        let mut now = at(self.now_ms);
        now.wall_ms = now.wall_ms.wrapping_add(node.ahead_ms);
        node.shard.handle(now, event, &mut node.store, &mut effects);
        for effect in effects {
            self.effect(to, effect);
        }
        self.sync(to);
    }

    fn effect(&mut self, from: usize, effect: Effect) {
        let id = self.nodes[from].id;
        match effect {
            Effect::Send { to, barrier: Barrier::Written, envelope } => self.wire.push_back((id, to, envelope)),
            Effect::Send { to, barrier: Barrier::Durable, envelope } => {
                self.nodes[from].behind.push_back(Behind::Send(to, Box::new(envelope)))
            }
            Effect::WhenDurable(ticket) => self.nodes[from].behind.push_back(Behind::Durable(ticket)),
            Effect::Reply { reply_to, reply } => {
                assert!(self.replies.insert(reply_to.request, reply).is_none(), "a request is answered once");
            }
            Effect::Merge(ticket, job) => match self.plugin {
                Some(plugin) => {
                    let result = plugin(&job);
                    self.event(from, Event::Merged(ticket, result));
                }
                None => self.merges.push_back((from, ticket, job)),
            },
            Effect::Validate(ticket, job) => match self.validator {
                Some(validator) => {
                    let result = validator(&job);
                    self.event(from, Event::Validated(ticket, result));
                }
                None => self.validations.push_back((from, ticket, job)),
            },
            Effect::Apply(ticket, job) => match self.operator {
                Some(operator) => {
                    let result = operator(&job);
                    self.event(from, Event::Applied(ticket, result));
                }
                None => self.operations.push_back((from, ticket, job)),
            },
            Effect::Scan(ticket, job) => {
                let scanned = self.nodes[from].store.scanned(&job);
                match self.scanning {
                    true => self.event(from, Event::Scanned(ticket, scanned)),
                    false => self.scans.push_back((from, ticket, scanned)),
                }
            }
            Effect::StartRenewed(start) => self.event(from, Event::Start(StartId(start))),
            Effect::Requests(requests) => self.requests.push((from, requests)),
            Effect::OlderEnded(generation) => self.settled.push((from, generation)),
            Effect::Exchanged(layout) => self.exchanged.push((from, layout)),
            Effect::Alarm(alarm) => self.alarms.push(alarm),
            Effect::Rebuilt => self.rebuilt.push(from),
            Effect::Quarantine(_, plugin, why) => self.quarantines.push((from, plugin, why)),
            Effect::Fatal(why) => self.fatal.push(why),
        }
    }

    /// Lets the disk of a node catch up, if it does.
    pub(crate) fn sync(&mut self, at: usize) {
        while self.nodes[at].syncing
            && let Some(behind) = self.nodes[at].behind.pop_front()
        {
            match behind {
                Behind::Send(to, envelope) => self.wire.push_back((self.nodes[at].id, to, *envelope)),
                Behind::Durable(ticket) => self.event(at, Event::Durable(ticket)),
            }
        }
    }

    /// Delivers the first message on the wire that is one of those.
    pub(crate) fn deliver_one(&mut self, which: impl Fn(NodeId, NodeId, &PeerBody) -> bool) -> bool {
        let Some(at) = self.wire.iter().position(|(from, to, envelope)| which(*from, *to, &envelope.body)) else {
            return false;
        };
        let (from, to, envelope) = self.wire.remove(at).expect("it was found");
        let bytes = codec::encode(&envelope);
        let envelope = codec::decode(&bytes).expect("what is sent can be read");
        let to = self.place(to);
        self.event(to, Event::Peer(from, envelope));
        true
    }

    /// Delivers everything until nothing is under way.
    pub(crate) fn deliver(&mut self) {
        while self.deliver_one(|_, _, _| true) {}
    }

    /// Delivers everything but what goes from or to one node; that stays.
    pub(crate) fn deliver_without(&mut self, cut: usize) {
        let cut = self.nodes[cut].id;
        while self.deliver_one(|from, to, _| from != cut && to != cut) {}
    }

    /// The connections between one node and all others end, with what was under way.
    pub(crate) fn cut(&mut self, at: usize) {
        (0..self.nodes.len()).filter(|&other| other != at).for_each(|other| self.sever(at, other));
        // What a node sends when it hears of one end goes nowhere when all of them have ended.
        let id = self.nodes[at].id;
        self.wire.retain(|(from, to, _)| *from != id && *to != id);
    }

    /// The connection between two nodes ends, with what was under way.
    pub(crate) fn sever(&mut self, a: usize, b: usize) {
        let (of_a, of_b) = (self.nodes[a].id, self.nodes[b].id);
        let between = |from, to| (from == of_a && to == of_b) || (from == of_b && to == of_a);
        self.wire.retain(|(from, to, _)| !between(*from, *to));
        self.event(a, Event::PeerDown(of_b));
        self.event(b, Event::PeerDown(of_a));
    }

    /// Two nodes are connected again.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        self.meet(a, b);
        self.meet(b, a);
    }

    pub(crate) fn heal(&mut self, at: usize) {
        self.greet(at, true);
    }

    /// Ends a node's process and opens it again on `store`.
    pub(crate) fn restart(&mut self, at: usize, lost: bool, store: Memory) {
        self.restart_heard(at, lost, store, true);
    }

    /// The same; with `heard` false, what its peers object at the handshake does not reach it.
    pub(crate) fn restart_heard(&mut self, at: usize, lost: bool, store: Memory, heard: bool) {
        self.cut(at);
        let mut config = self.nodes[at].config.clone();
        config.lost = lost;
        self.seed += 1;
        self.nodes[at] = Node::open(config, &self.view, store, self.seed);
        self.greet(at, heard);
    }

    /// Ends a node's process and opens it again on `store`, with no peer in reach: it serves when its grace is over.
    pub(crate) fn start_alone(&mut self, at: usize, store: Memory) {
        self.cut(at);
        self.seed += 1;
        self.nodes[at] = Node::open(self.nodes[at].config.clone(), &self.view, store, self.seed);
        let start = StartId(self.nodes[at].shard.start());
        self.event(at, Event::Start(start));
        self.event(at, Event::Serving { met_all: false });
    }

    /// Ends a node's process and opens it again on `store`. All are connected, and it does not serve yet.
    pub(crate) fn start_without_serving(&mut self, at: usize, store: Memory) {
        self.cut(at);
        self.seed += 1;
        self.nodes[at] = Node::open(self.nodes[at].config.clone(), &self.view, store, self.seed);
        for other in (0..self.nodes.len()).filter(|&other| other != at) {
            self.meet(at, other);
            self.meet(other, at);
        }
        self.deliver();
    }

    /// Opens a node again on an old disk, and asks it to write before any peer has spoken; then they connect, object,
    /// and it serves.
    pub(crate) fn restart_asked(&mut self, at: usize, store: Memory, put: Put) -> u64 {
        self.cut(at);
        self.seed += 1;
        self.nodes[at] = Node::open(self.nodes[at].config.clone(), &self.view, store, self.seed);
        for other in (0..self.nodes.len()).filter(|&other| other != at) {
            self.meet(at, other);
        }
        let number = self.ask_put(at, put);
        self.greet(at, true);
        number
    }

    /// Answers the scan that has waited for the longest. False if there is none.
    pub(crate) fn answer_scan(&mut self) -> bool {
        let Some((at, ticket, scanned)) = self.scans.pop_front() else { return false };
        self.event(at, Event::Scanned(ticket, scanned));
        true
    }

    /// Lets time pass and every node notice it.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        (0..self.nodes.len()).for_each(|at| self.event(at, Event::Tick));
        self.deliver();
    }

    /// Asks a node; what it sends stays on the wire. Returns the number under which the reply is found.
    pub(crate) fn ask(&mut self, to: usize, request: DataRequest) -> u64 {
        self.ask_since(to, request, self.now_ms * 1000)
    }

    /// The same with a request that has waited at the node since then.
    pub(crate) fn ask_since(&mut self, to: usize, request: DataRequest, arrived_us: u64) -> u64 {
        let number = self.next_request;
        self.next_request += 1;
        let request = ClientRequest {
            reply_to: ReplyTo { connection: 1, request: number },
            tenant: tenant(),
            layout: self.view.layout_name(),
            trace: number,
            arrived_us,
            deadline_us: self.now_ms * 1000 + DEADLINE_US,
            request,
        };
        self.event(to, Event::Client(request));
        number
    }

    pub(crate) fn ask_put(&mut self, to: usize, put: Put) -> u64 {
        self.ask(to, DataRequest::Put(put))
    }

    pub(crate) fn ask_get(&mut self, to: usize, get: Get) -> u64 {
        self.ask(to, DataRequest::Get(get))
    }

    pub(crate) fn reply(&mut self, number: u64) -> Reply {
        self.replies.remove(&number).expect("a reply")
    }

    pub(crate) fn error(&mut self, number: u64) -> ErrorReply {
        match self.reply(number) {
            Reply::Error(error) => error,
            other => panic!("an error was expected, not {other:?}"),
        }
    }

    pub(crate) fn put_reply(&mut self, number: u64) -> PutReply {
        match self.reply(number) {
            Reply::Put(reply) => reply,
            other => panic!("a put's reply was expected, not {other:?}"),
        }
    }

    pub(crate) fn get_reply(&mut self, number: u64) -> GetReply {
        match self.reply(number) {
            Reply::Get(reply) => reply,
            other => panic!("a get's reply was expected, not {other:?}"),
        }
    }

    pub(crate) fn put(&mut self, to: usize, put: Put) -> PutReply {
        let number = self.ask_put(to, put);
        self.deliver();
        self.put_reply(number)
    }

    pub(crate) fn get(&mut self, to: usize, get: Get) -> GetReply {
        let number = self.ask_get(to, get);
        self.deliver();
        self.get_reply(number)
    }

    /// The code of a refused put.
    pub(crate) fn refused(&mut self, to: usize, put: Put) -> ErrorCode {
        let number = self.ask_put(to, put);
        self.deliver();
        self.error(number).code
    }

    /// A node's stored object.
    pub(crate) fn stored(&self, at: usize, key: &str) -> Object {
        self.nodes[at].store.object(&object_id(key))
    }

    pub(crate) fn actor_of(&self, at: usize, key: &str) -> Option<rejoin_proto::peer::ActorNext> {
        let partition = self.view.layout().partition(&object_id(key));
        self.nodes[at].shard.actors().into_iter().find(|actor| actor.partition == partition)
    }

    /// Whether all owners hold the same object.
    pub(crate) fn agrees(&self, key: &str, owners: &[usize]) -> bool {
        owners.windows(2).all(|pair| self.stored(pair[0], key) == self.stored(pair[1], key))
    }

    pub(crate) fn records(&mut self, records: &[Record]) {
        self.show(ClusterView::new(self.view.layout().clone(), records));
    }

    /// Every node gets another view of the cluster.
    pub(crate) fn show(&mut self, view: ClusterView) {
        self.view = Arc::new(view);
        for at in 0..self.nodes.len() {
            let view = self.view.clone();
            self.event(at, Event::View(view));
        }
    }
}

impl Node {
    fn open(config: Config, view: &Arc<ClusterView>, mut store: Memory, seed: u64) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let shard = Shard::open(config.clone(), view.clone(), rng, &mut store).expect("a shard");
        Self { id: config.node, shard, store, config, syncing: true, ahead_ms: 0, behind: VecDeque::new() }
    }

    /// Ends the node's process and opens it again on `store`, while nobody hears of it.
    pub(crate) fn reopen(&mut self, view: &Arc<ClusterView>, store: Memory) {
        *self = Self::open(self.config.clone(), view, store, 77);
    }
}

impl Memory {
    pub(crate) fn object(&self, id: &ObjectId) -> Object {
        let bytes = self.get(Space::Objects, &id.store_key()).expect("a readable row");
        bytes.map_or_else(Object::default, |bytes| codec::decode(&bytes).expect("an object"))
    }
}
