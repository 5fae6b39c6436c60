//! A shard of node n0 with its environment: clients, three peers, a disk in memory, plugins, and the effects that its
//! shell holds back.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::placement;
use rejoin_core::shard::event::{
    ClientRequest, DurableTicket, Effect, Event, MergeTicket, Merged, Now, PluginError, ReplyTo, ValidateTicket,
};
use rejoin_core::shard::{Config, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Activation, BucketProps, Durability, Record, RecordBody, RecordKey};
use rejoin_proto::client::StartId;
use rejoin_proto::context::ContextKey;
use rejoin_proto::layout::LayoutNode;
use rejoin_proto::peer::{DataRequest, OpId, PeerBody, PeerEnvelope};
use rejoin_proto::{
    ActorId, BucketId, Hlc, Layout, LayoutRef, Name, NodeId, ObjectId, PartitionId, PluginDigest, TenantId, codec,
};

use super::store::{Memory, Writes};
use super::watch::Watch;

/// The other nodes, by their places.
pub(super) const PEERS: &[usize] = &[1, 2, 3];
/// Wall time at the start.
const WALL_MS: u64 = 1_700_000_000_000;
/// How long a client waits.
const PATIENCE_US: u64 = 1_000_000;
/// The most requests under way.
pub(super) const MAX_OPS: usize = 6;
/// The most bytes that they hold: less than so many of the largest values, so that some are refused for it.
pub(super) const MAX_OP_BYTES: usize = 3_000;

/// Which request a call of the shard is about, if it is about one: the trace under which that came.
pub(super) type Cause = Option<u64>;

pub(super) struct World {
    shard: Shard,
    store: Memory,
    config: Config,
    view: Arc<ClusterView>,
    now_us: u64,
    next: u64,
    /// What this run of the shard has asked of peers, the latest first, with what it was asked about.
    asked: VecDeque<(OpId, Cause)>,
    /// Of the copy that it has asked peers to compare theirs with last.
    digest: [u8; 16],
    tickets: VecDeque<(DurableTicket, Cause)>,
    merges: Vec<(MergeTicket, Cause)>,
    validations: Vec<(ValidateTicket, Cause)>,
    /// Contexts as clients were told them.
    contexts: Vec<(ObjectId, Bytes)>,
    /// The last message that came, as it was on the wire.
    last: Vec<u8>,
    watch: Watch,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn tenant() -> TenantId {
    TenantId::from_name(&name("shop"))
}

/// Four nodes of one zone, so that some keys are not n0's.
fn layout() -> Layout {
    let node = |at: u16| {
        let name = name(&format!("n{at}"));
        LayoutNode {
            id: NodeId::from_name(&name),
            name,
            zone: self::name("z"),
            capacity: 1,
            address: ([127, 0, 0, 1], at).into(),
        }
    };
    placement::bootstrap((0..4).map(node).collect(), 8).expect("a layout")
}

/// Three buckets: on the disk and merged, with the operating system only, and one copy. `kind` turns folding and
/// validation on and off.
fn buckets(kind: u8) -> Vec<Record> {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: kind.is_multiple_of(2),
        since: Hlc(1),
        replaces: kind % 4 == 3,
        validates: kind >= 128,
    };
    let small = BucketProps { value_bytes: 32, siblings: 2 + u16::from(kind % 3), ..BucketProps::default() };
    let all = [
        BucketProps { plugin: Some(activation), ..small.clone() },
        BucketProps { durability: Durability::Os, ..small.clone() },
        BucketProps { n: 1, ttl_ms: Some(5_000), ..small },
    ];
    let record = |(at, props)| {
        let name = name(&format!("b{at}"));
        let body = RecordBody::Bucket { id: BucketId::derive(tenant(), &name, 0), props, past: Default::default() };
        Record { key: RecordKey::Bucket(tenant(), name), version: 1 + u64::from(kind), stamp: Hlc(1), body }
    };
    all.into_iter().enumerate().map(record).collect()
}

impl World {
    pub(super) fn new() -> Self {
        let view = Arc::new(ClusterView::new(layout(), &buckets(0)));
        let config = Config {
            node: NodeId::from_name(&name("n0")),
            shard: 0,
            shards: 1,
            exchange: ExchangeConfig { max_walks: 0, ..ExchangeConfig::default() },
            contexts: ContextKey::derive(1, b"secret"),
            causal_key: CausalKey::derive(b"secret"),
            max_skew_ms: 60_000,
            retry_window_ms: 60_000,
            max_retry_bytes: 2_500,
            max_receipt_bytes: 2_500,
            max_ops: MAX_OPS,
            max_op_bytes: MAX_OP_BYTES,
            lost: false,
            rows_lost: false,
            replaced: false,
            handoff: Default::default(),
            reads: Default::default(),
        };
        let mut store = Memory::default();
        let rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let shard = Shard::open(config.clone(), view.clone(), rng, &mut store).expect("a shard");
        let mut world = Self {
            watch: Watch::new(config.node, config.contexts.clone()),
            shard,
            store,
            config,
            view,
            now_us: 0,
            next: 1,
            asked: VecDeque::new(),
            digest: [0; 16],
            tickets: VecDeque::new(),
            merges: Vec::new(),
            validations: Vec::new(),
            contexts: Vec::new(),
            last: Vec::new(),
        };
        world.begin();
        world
    }

    /// Peers connect, and the shard serves.
    fn begin(&mut self) {
        self.event(None, Event::Start(StartId(self.shard.start())));
        for &peer in PEERS {
            self.event(None, Event::PeerUp(self.node(peer)));
        }
        self.event(None, Event::Serving { met_all: true });
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_ms: WALL_MS + self.now_us / 1000 }
    }

    /// Hands the shard an event, and does what it wants as far as its shell does that at once.
    pub(super) fn event(&mut self, cause: Cause, event: Event) {
        let mut effects = Vec::new();
        self.shard.handle(self.now(), event, &mut self.store, &mut effects);
        self.watch.effects(cause, &effects, &self.store);
        for effect in effects {
            match effect {
                Effect::Send { envelope, .. } => self.note_asked(&envelope),
                Effect::WhenDurable(ticket) => self.tickets.push_back((ticket, cause)),
                Effect::Merge(ticket, _) => self.merges.push((ticket, cause)),
                Effect::Validate(ticket, _) => self.validations.push((ticket, cause)),
                // Only a damaged message asks for one. Its plugin does not answer in time.
                Effect::Apply(..) => {}
                Effect::Scan(ticket, job) => {
                    let scanned = self.store.scanned(&job);
                    self.event(cause, Event::Scanned(ticket, scanned));
                }
                Effect::Reply { reply_to, reply } => self.contexts.extend(self.watch.told(reply_to, &reply)),
                Effect::OlderEnded(_) | Effect::Exchanged(_) => {}
                Effect::StartRenewed(start) => self.event(None, Event::Start(StartId(start))),
                Effect::Alarm(_) | Effect::Requests(_) | Effect::Rebuilt | Effect::Quarantine(..) => {}
                Effect::Fatal(why) => panic!("no disk here fails for good: {why}"),
            }
        }
        self.watch.state(&self.shard, &self.store);
    }

    fn note_asked(&mut self, envelope: &PeerEnvelope) {
        let op = match &envelope.body {
            PeerBody::Forward(forward) => forward.op,
            PeerBody::Read { op, digest, .. } => {
                self.digest = digest.unwrap_or(self.digest);
                *op
            }
            PeerBody::Offer(offer) => offer.op,
            PeerBody::Replicate(message) => match message.op {
                Some(op) => op,
                None => return,
            },
            _ => return,
        };
        if !self.asked.iter().any(|(known, _)| *known == op) {
            self.asked.push_front((op, Some(envelope.trace)));
        }
    }

    /// A client asks.
    pub(super) fn ask(&mut self, request: DataRequest) {
        let number = self.number();
        let reply_to = ReplyTo { connection: 1, request: number };
        let (bucket, key) = request.bucket_and_key();
        let target = self.view.target(tenant(), bucket, key).expect("a bucket and a key");
        self.watch.asked(reply_to, &target, &request);
        let deadline_us = self.now_us + PATIENCE_US;
        let client = ClientRequest {
            reply_to,
            tenant: tenant(),
            layout: self.layout(),
            trace: number,
            arrived_us: self.now_us,
            deadline_us,
            request,
        };
        self.event(Some(number), Event::Client(client));
    }

    /// A peer sends a message, over a wire.
    pub(super) fn says(&mut self, peer: usize, body: PeerBody) {
        let trace = self.number();
        self.last = codec::encode(&PeerEnvelope { layout: self.layout(), trace, body });
        self.arrives(peer);
    }

    /// The last message comes again, with bytes that have changed on the way.
    pub(super) fn damaged(&mut self, peer: usize, edits: &[(u8, u8)]) {
        for &(at, bits) in edits {
            let length = self.last.len().max(1);
            self.last.get_mut(usize::from(at) % length).into_iter().for_each(|byte| *byte ^= bits);
        }
        self.arrives(peer);
    }

    /// What cannot be read, or answers another shard of the node, never reaches this one.
    fn arrives(&mut self, peer: usize) {
        let Ok(envelope) = codec::decode::<PeerEnvelope>(&self.last) else { return };
        if let PeerBody::ReadReply { op, .. }
        | PeerBody::ReadSame { op, .. }
        | PeerBody::Replicated { op, .. }
        | PeerBody::ForwardReply { op, .. }
        | PeerBody::OfferReply { op, .. } = &envelope.body
            && op.shard != self.config.shard
        {
            return;
        }
        let about = |op: &OpId| self.asked.iter().find(|(known, _)| known == op).and_then(|(_, cause)| *cause);
        let cause = match &envelope.body {
            PeerBody::ReadReply { op, .. }
            | PeerBody::ReadSame { op, .. }
            | PeerBody::Replicated { op, .. }
            | PeerBody::ForwardReply { op, .. } => about(op),
            _ => Some(envelope.trace),
        };
        let from = self.node(peer);
        self.watch.arrives(from, cause, &envelope);
        self.event(cause, Event::Peer(from, envelope));
    }

    /// The disk catches up with the oldest of those that wait for it.
    pub(super) fn durable(&mut self, most: usize) {
        for _ in 0..=most {
            let Some((ticket, cause)) = self.tickets.pop_front() else { return };
            self.watch.durable(cause);
            self.event(cause, Event::Durable(ticket));
        }
    }

    /// A merge ends; it may do so twice.
    pub(super) fn merged(&mut self, which: usize, result: Result<Merged, PluginError>) {
        if let Some(&(ticket, cause)) = self.merges.get(which % self.merges.len().max(1)) {
            self.event(cause, Event::Merged(ticket, result));
        }
    }

    /// A validation ends; it may do so twice.
    pub(super) fn validated(&mut self, which: usize, result: Result<(), PluginError>) {
        if let Some(&(ticket, cause)) = self.validations.get(which % self.validations.len().max(1)) {
            self.watch.validated(cause, result.is_ok());
            self.event(cause, Event::Validated(ticket, result));
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_us += ms * 1000;
        self.event(None, Event::Tick);
    }

    pub(super) fn disk(&mut self, mode: u8) {
        self.store.writes = [Writes::Work, Writes::Full, Writes::Busy][usize::from(mode) % 3];
    }

    /// A copy becomes unreadable, or readable again.
    pub(super) fn damage(&mut self, bucket: usize, key: usize, damaged: bool) {
        let key = self.object_id(bucket, key).store_key();
        if damaged {
            self.watch.damaged(&key);
            self.store.damaged.insert(key);
        } else {
            self.store.damaged.remove(&key);
        }
    }

    /// The process ends and starts again on what was written. Whoever waited is told by the end of the connection.
    pub(super) fn restart(&mut self, lost: bool) {
        if self.store.writes != Writes::Work {
            return;
        }
        (self.asked, self.tickets, self.merges, self.validations) = Default::default();
        self.watch.restarted();
        let config = Config { lost, ..self.config.clone() };
        let rng = Xoshiro256PlusPlus::seed_from_u64(self.number());
        self.shard = Shard::open(config, self.view.clone(), rng, &mut self.store).expect("a shard");
        self.begin();
    }

    pub(super) fn change_bucket(&mut self, kind: u8) {
        self.view = Arc::new(ClusterView::new(layout(), &buckets(kind)));
        self.event(None, Event::View(self.view.clone()));
    }

    /// Time goes by until nobody can be waiting any more.
    pub(super) fn end(mut self) {
        self.store.writes = Writes::Work;
        for _ in 0..2 {
            self.pass(u64::from(u32::MAX));
        }
        assert_eq!(self.shard.in_flight(), 0, "everything ends by its deadline");
        self.watch.end();
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn node(&self, at: usize) -> NodeId {
        NodeId::from_name(&name(&format!("n{at}")))
    }

    pub(super) fn tenant(&self) -> TenantId {
        tenant()
    }

    pub(super) fn bucket(&self, at: usize) -> Name {
        name(&format!("b{at}"))
    }

    pub(super) fn key(&self, at: usize) -> Bytes {
        format!("k{at}").into()
    }

    pub(super) fn object_id(&self, bucket: usize, key: usize) -> ObjectId {
        ObjectId { tenant: tenant(), bucket: BucketId::derive(tenant(), &self.bucket(bucket), 0), key: self.key(key) }
    }

    pub(super) fn partition(&self, id: &ObjectId) -> PartitionId {
        self.view.layout().partition(id)
    }

    pub(super) fn partition_bits(&self) -> u8 {
        self.view.layout().partitions().trailing_zeros() as u8
    }

    pub(super) fn layout(&self) -> LayoutRef {
        self.view.layout_name()
    }

    pub(super) fn start(&self) -> StartId {
        StartId(self.shard.start())
    }

    pub(super) fn stamp(&self, ahead_ms: u64) -> Hlc {
        Hlc::from_ms(self.now().wall_ms + ahead_ms)
    }

    /// The digest that was asked about last.
    pub(super) fn digest(&self) -> [u8; 16] {
        self.digest
    }

    /// What was asked of a peer so many questions ago.
    pub(super) fn asked(&self, ago: usize) -> Option<OpId> {
        self.asked.get(ago % 8).map(|(op, _)| *op)
    }

    pub(super) fn own_actors(&self) -> Vec<ActorId> {
        self.shard.actors().iter().map(|actor| actor.actor).collect()
    }

    /// A context that a client was told, of that object or, for every fourth, of any.
    pub(super) fn context(&self, bucket: usize, key: usize, which: usize) -> Option<Bytes> {
        let id = self.object_id(bucket, key);
        let fitting: Vec<&Bytes> =
            self.contexts.iter().filter(|(of, _)| which % 4 == 3 || *of == id).map(|(_, context)| context).collect();
        fitting.get(which % fitting.len().max(1)).map(|context| Bytes::clone(context))
    }
}
