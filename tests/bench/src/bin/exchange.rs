//! `rejoin-bench-exchange`: how many bytes two owners send each other to find what differs, and what the hash trees
//! take.
//!
//! Two shards of the real core, each over a store in memory, exchange until they are equal. Every message is encoded as
//! on the wire and counted. `--keys N` is the number of keys, `--differences A,B,…` how many of them one owner lacks or
//! has in an older version.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::causal::{self, Write};
use rejoin_core::exchange::ExchangeConfig;
use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::placement;
use rejoin_core::port::{Change, Space, Store, StoreFault, key_after};
use rejoin_core::shard::event::{Effect, Event, Now, ScanJob, ScannedRows};
use rejoin_core::shard::{Config, Shard};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Durability, Record, RecordBody, RecordKey};
use rejoin_proto::context::ContextKey;
use rejoin_proto::exchange::{Answer, Ask, ExchangeAnswer, ExchangeAsk};
use rejoin_proto::peer::{PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{
    ActorId, BucketId, Content, Dot, Hlc, LayoutNode, LayoutRef, Name, NodeId, Object, ObjectId, ReapEpoch, TenantId,
    codec,
};

/// The bytes of each value.
const VALUE: usize = 100;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut keys, mut differences) = (1_000_000_u64, vec![0, 1, 10, 1_000, 10_000, 100_000]);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--keys" => keys = value.parse().unwrap_or(keys),
            "--differences" => differences = value.split(',').filter_map(|number| number.parse().ok()).collect(),
            _ => {
                eprintln!("usage: rejoin-bench-exchange [--keys N] [--differences A,B,…]");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut pair = Pair::new(keys);
    let leaves = pair.nodes[0].shard.exchange_status().leaves;
    let rows: usize = pair.nodes[0].store.rows(Space::Trees).map(|(key, row)| key.len() + row.len()).sum();
    let per_key = |bytes: usize| bytes as f64 / keys as f64;
    // An entry of the map of leaves: place 16 bytes, leaf 64, and the share of a node of the map that is two thirds
    // full.
    let memory = leaves * (16 + 64) * 3 / 2;
    eprintln!(
        "{keys} keys: {leaves} leaves, {:.2} bytes of rows and about {:.2} bytes of memory per key",
        per_key(rows),
        per_key(memory)
    );
    for count in differences {
        pair.differ(count);
        let begun = Instant::now();
        let spent = pair.exchange();
        eprintln!(
            "{count} differences: {} bytes in {} messages to find them{}, {} objects sent, {} ms",
            spent.found,
            spent.messages,
            if count == 0 {
                String::new()
            } else {
                format!(" ({:.1} a difference)", spent.found as f64 / count as f64)
            },
            spent.objects,
            begun.elapsed().as_millis(),
        );
    }
    ExitCode::SUCCESS
}

/// What an exchange has cost.
#[derive(Default)]
struct Spent {
    /// Bytes of messages without objects, and of questions for objects.
    found: u64,
    messages: u64,
    objects: u64,
}

/// Two owners of all partitions.
struct Pair {
    nodes: Vec<Node>,
    wire: VecDeque<(usize, PeerEnvelope)>,
    bucket: BucketId,
    layout: LayoutRef,
    keys: u64,
    differed: u64,
    now_us: u64,
}

struct Node {
    id: NodeId,
    shard: Shard,
    store: Memory,
}

impl Pair {
    fn new(keys: u64) -> Self {
        let name = |text: &str| Name::new(text).expect("a name");
        let node = |at: u8| LayoutNode {
            id: NodeId::from_name(&name(&format!("n{at}"))),
            name: name(&format!("n{at}")),
            zone: name("z"),
            capacity: 1,
            address: ([127, 0, 0, at], 1).into(),
        };
        let nodes: Vec<LayoutNode> = (1..=2).map(node).collect();
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let layout = placement::bootstrap(nodes, placement::DEFAULT_PARTITIONS).expect("a layout");
        let bucket = BucketId::derive(TenantId(1), &name("b"), 0);
        let props = BucketProps { n: 2, ..BucketProps::default() };
        let body = RecordBody::Bucket { id: bucket, props, past: Default::default() };
        let record = Record { key: RecordKey::Bucket(TenantId(1), name("b")), version: 1, stamp: Hlc(1), body };
        let view = Arc::new(ClusterView::new(layout, [&record]));
        let open = |id: NodeId| {
            let config = Config {
                node: id,
                shard: 0,
                shards: 1,
                exchange: ExchangeConfig { floor_bytes: u64::MAX / 4, ..ExchangeConfig::default() },
                contexts: ContextKey::derive(1, b"a secret of a benchmark"),
                causal_key: CausalKey::derive(b"a secret of a benchmark"),
                max_skew_ms: 60_000,
                retry_window_ms: 30_000,
                max_retry_bytes: 128 << 20,
                max_receipt_bytes: 256 << 20,
                max_ops: 8192,
                max_op_bytes: 128 << 20,
                lost: false,
                rows_lost: false,
                replaced: false,
                handoff: Default::default(),
                reads: Default::default(),
            };
            let mut store = Memory::default();
            let rng = Xoshiro256PlusPlus::seed_from_u64(id.0);
            let shard = Shard::open(config, view.clone(), rng, &mut store).expect("a shard");
            Node { id, shard, store }
        };
        let nodes = ids.into_iter().map(open).collect();
        let layout = view.layout_name();
        let mut pair = Self { nodes, wire: VecDeque::new(), bucket, layout, keys, differed: 0, now_us: 1 };
        pair.tick();
        for key in 0..keys {
            (0..2).for_each(|at| pair.absorb(at, key, 1));
        }
        (0..1000).for_each(|_| pair.tick());
        pair.wire.clear();
        for at in 0..2 {
            let peer = pair.nodes[1 - at].id;
            pair.event(at, Event::PeerUp(peer));
            pair.event(at, Event::Serving { met_all: true });
        }
        pair.exchange();
        pair
    }

    /// Stores a write at one owner.
    fn absorb(&mut self, at: usize, key: u64, counter: u64) {
        let mut state = Object::default();
        let dot = Dot { actor: ActorId(1 + key % 3), counter: key * 1000 + counter };
        let content = Content::Value(vec![counter as u8; VALUE].into());
        causal::put(&mut state, Write { seen: Default::default(), dot, content, stamp: Hlc(counter), expires: None });
        let message = Replicate {
            op: None,
            object: ObjectId { tenant: TenantId(1), bucket: self.bucket, key: key.to_string().into() },
            bucket_version: 1,
            epoch: ReapEpoch::default(),
            dot: None,
            durability: Durability::Os,
            state: state.into(),
        };
        let envelope = PeerEnvelope { layout: self.layout, trace: 0, body: PeerBody::Replicate(message) };
        let from = self.nodes[1 - at].id;
        self.event(at, Event::Peer(from, envelope));
    }

    /// So many keys get a write that only one of the owners has, or a newer one than the other.
    fn differ(&mut self, count: u64) {
        self.differed += 1;
        for number in 0..count {
            let key = number * (self.keys / count.max(1)).max(1) + self.differed;
            self.absorb((number % 2) as usize, key % self.keys, 1 + self.differed);
        }
        self.wire.clear();
        (0..100).for_each(|_| self.tick());
        self.wire.clear();
    }

    fn tick(&mut self) {
        self.now_us += 1000;
        (0..2).for_each(|at| self.event(at, Event::Tick));
    }

    /// One owner compares everything with the other, until both are equal. Of very many differences one round misses a
    /// few, because it compares two bytes of each sum.
    fn exchange(&mut self) -> Spent {
        let mut spent = Spent::default();
        self.round(&mut spent);
        for _ in 0..9 {
            if self.are_equal() {
                return spent;
            }
            self.round(&mut spent);
        }
        assert!(self.are_equal(), "the owners differ");
        spent
    }

    fn round(&mut self, spent: &mut Spent) {
        let peer = self.nodes[1].id;
        self.event(0, Event::PeerDown(peer));
        self.event(0, Event::PeerUp(peer));
        for _ in 0..1_000_000 {
            self.now_us += 10;
            self.event(0, Event::Tick);
            while let Some((to, envelope)) = self.wire.pop_front() {
                let bytes = codec::encode(&envelope).len() as u64;
                spent.messages += 1;
                match objects(&envelope.body) {
                    Some(objects) => spent.objects += objects,
                    None => spent.found += bytes,
                }
                let from = self.nodes[1 - to].id;
                self.event(to, Event::Peer(from, envelope));
                self.event(0, Event::Tick);
            }
            let status = self.nodes[0].shard.exchange_status();
            let are_equal = status.pairs.iter().all(|(.., pair)| pair.equal_us.is_some() && !pair.differs);
            if are_equal && status.pairs.len() == placement::DEFAULT_PARTITIONS as usize {
                break;
            }
        }
    }

    fn are_equal(&self) -> bool {
        self.nodes[0].store.rows(Space::Objects).eq(self.nodes[1].store.rows(Space::Objects))
    }

    fn event(&mut self, at: usize, event: Event) {
        let (now, mut effects) = (Now { mono_us: self.now_us, wall_ms: 1_700_000_000_000 }, Vec::new());
        let node = &mut self.nodes[at];
        node.shard.handle(now, event, &mut node.store, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { envelope, .. } => self.wire.push_back((1 - at, envelope)),
                Effect::Scan(ticket, job) => {
                    let rows = self.nodes[at].store.scanned(&job);
                    self.event(at, Event::Scanned(ticket, Ok(rows)));
                }
                _ => {}
            }
        }
    }
}

/// The objects of a message that carries some.
fn objects(body: &PeerBody) -> Option<u64> {
    match body {
        PeerBody::ExchangeAsk(ExchangeAsk { ask: Ask::Objects { batch, .. }, .. })
        | PeerBody::ExchangeAnswer(ExchangeAnswer {
            answer: Ok(Answer::Objects { batch, .. } | Answer::Found { batch, .. }),
            ..
        }) => Some(batch.objects.len() as u64).filter(|objects| *objects > 0),
        _ => None,
    }
}

/// A store in memory.
#[derive(Default)]
struct Memory(BTreeMap<(Space, Bytes), Bytes>);

impl Memory {
    fn rows(&self, space: Space) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().filter(move |((of, _), _)| *of == space).map(|((_, key), row)| (key, row))
    }

    fn scanned(&self, job: &ScanJob) -> ScannedRows {
        let (mut found, mut bytes) = (ScannedRows::default(), 0);
        for ((space, key), row) in self.0.range((Space::Objects, job.from.clone())..) {
            if *space != Space::Objects || job.to.as_ref().is_some_and(|to| key >= to) {
                break;
            }
            bytes += key.len() + row.len();
            found.rows.push((key.clone(), row.clone()));
            if found.rows.len() >= job.max_rows || bytes >= job.max_bytes {
                found.next = Some(key_after(key));
                break;
            }
        }
        found
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.get(&(space, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), StoreFault> {
        for ((of, key), row) in self.0.range((space, Bytes::copy_from_slice(from))..) {
            let is_inside = *of == space && to.is_none_or(|to| &key[..] < to);
            if !is_inside || visit(key, row.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, change: Change) -> Result<(), StoreFault> {
        for row in change.rows {
            match row.value {
                Some(value) => self.0.insert((row.space, row.key), value),
                None => self.0.remove(&(row.space, row.key)),
            };
        }
        Ok(())
    }
}
