//! Writes and reads in clusters of any size: the shards of the nodes that take part, without disk and network.
//!
//! A few partitions are used, and only their owners run. Each of them is connected to all other nodes of the cluster,
//! and knows the whole layout, so whatever an operation costs because there are many nodes is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use rejoin_core::placement;
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{ClientRequest, Effect, Event, Now, ReplyTo};
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome, Reply, StartId};
use rejoin_proto::peer::{DataRequest, PeerEnvelope};
use rejoin_proto::{
    BucketId, Content, Hlc, LayoutNode, Name, NodeId, ObjectId, PartitionId, RequestId, TenantId, codec,
};

use crate::CpuTime;
use crate::layouts::node;
use crate::memory::{Memory, shard};

/// The partitions of each of these clusters, and how many of them are used.
const PARTITIONS: u32 = 4_096;
const USED: u16 = 8;
/// The keys in these.
const KEYS: usize = 400;
const TENANT: TenantId = TenantId(1);
const NOW: Now = Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 };

/// What some operations have cost in all nodes together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// Messages between nodes.
    pub messages: u64,
    /// Their bytes, without frames.
    pub bytes: u64,
    /// CPU time, with that of writing and reading the messages.
    pub cpu: Duration,
}

/// A cluster of which the owners of a few partitions run.
#[derive(Debug)]
pub struct Crowd {
    view: Arc<ClusterView>,
    shards: BTreeMap<NodeId, (Shard, Memory)>,
    /// Each with the node that is asked.
    keys: Vec<(NodeId, Vec<u8>)>,
    start: BTreeMap<NodeId, StartId>,
    /// Of the last write of each key.
    contexts: BTreeMap<usize, Bytes>,
    asked: u64,
    cost: Cost,
}

fn bucket() -> Name {
    Name::new("plain").expect("a name")
}

impl Crowd {
    /// A cluster of so many nodes, in three zones.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let nodes: Vec<LayoutNode> = (0..nodes).map(|at| node(at, 3, 1)).collect();
        let all: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let layout = placement::bootstrap(nodes, PARTITIONS).expect("a layout");
        let id = BucketId::derive(TENANT, &bucket(), 0);
        let body = RecordBody::Bucket { id, props: BucketProps::default(), past: Default::default() };
        let record = Record { key: RecordKey::Bucket(TENANT, bucket()), version: 1, stamp: Hlc::default(), body };
        let used: BTreeSet<PartitionId> = (0..USED).map(|at| PartitionId(at * (PARTITIONS as u16 / USED))).collect();
        let owners = |partition: PartitionId| layout.owners(partition, 3).map(|node| node.id).collect::<Vec<NodeId>>();
        let key = |number: u32| {
            let key = number.to_le_bytes().to_vec();
            let object = ObjectId { tenant: TENANT, bucket: id, key: key.clone().into() };
            let partition = Some(layout.partition(&object)).filter(|partition| used.contains(partition))?;
            Some((owners(partition)[0], key))
        };
        let keys = (0..).filter_map(key).take(KEYS).collect();
        let running: BTreeSet<NodeId> = used.iter().flat_map(|partition| owners(*partition)).collect();
        let view = Arc::new(ClusterView::new(layout, &[record]));
        let shards = running.iter().map(|id| (*id, shard(*id, view.clone()))).collect();
        let (start, contexts, cost) = (BTreeMap::new(), BTreeMap::new(), Cost::default());
        let mut crowd = Self { view, shards, keys, start, contexts, asked: 0, cost };
        for id in running {
            let start = StartId(crowd.shards[&id].0.start());
            crowd.start.insert(id, start);
            crowd.event(id, Event::Start(start));
            for peer in all.iter().filter(|peer| **peer != id) {
                crowd.event(id, Event::PeerUp(*peer));
                crowd.event(id, Event::PeerActors(*peer, Vec::new()));
            }
            crowd.event(id, Event::Serving { met_all: true });
        }
        crowd
    }

    /// How many nodes take part.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shards.len()
    }

    /// Writes so many times, over the values of before, each at the first owner of the key.
    ///
    /// # Panics
    /// If a write is not stored.
    pub fn puts(&mut self, count: u64) -> Cost {
        self.operations(count, |crowd, key| {
            let start = crowd.start[&crowd.keys[key].0];
            DataRequest::Put(Put {
                bucket: bucket(),
                key: crowd.keys[key].1.clone().into(),
                content: Content::Value(crate::bytes(crate::SMALL).into()),
                basis: crowd.contexts.get(&key).map_or(Basis::Blind, |context| Basis::Context(context.clone())),
                request: RequestId(crowd.asked.into()),
                start,
                attempt: 0,
                w: None,
                pw: None,
                ttl_ms: None,
            })
        })
    }

    /// Reads so many times, each at the first owner of the key.
    ///
    /// # Panics
    /// If a read is not answered.
    pub fn gets(&mut self, count: u64) -> Cost {
        self.operations(count, |crowd, key| {
            let key = crowd.keys[key].1.clone().into();
            DataRequest::Get(Get {
                bucket: bucket(),
                key,
                r: None,
                pr: None,
                siblings: false,
                show: rejoin_proto::client::Show::Nothing,
            })
        })
    }

    fn operations(&mut self, count: u64, request: impl Fn(&Self, usize) -> DataRequest) -> Cost {
        self.cost = Cost::default();
        let cpu = CpuTime::of(|| {
            for _ in 0..count {
                self.asked += 1;
                let key = self.asked as usize % self.keys.len();
                let request = ClientRequest {
                    reply_to: ReplyTo { connection: 1, request: self.asked },
                    tenant: TENANT,
                    layout: self.view.layout_name(),
                    trace: self.asked,
                    arrived_us: NOW.mono_us,
                    deadline_us: NOW.mono_us + 5_000_000,
                    request: request(self, key),
                };
                let answered = self.event(self.keys[key].0, Event::Client(request));
                assert_eq!(answered, 1, "each request is answered once");
            }
        });
        Cost { cpu, ..self.cost }
    }

    /// Lets a node handle an event, and delivers what follows from it. Returns how many requests were answered well.
    fn event(&mut self, at: NodeId, event: Event) -> u32 {
        let (mut waiting, mut answered) = (VecDeque::from([(at, event)]), 0);
        while let Some((at, event)) = waiting.pop_front() {
            let Some((shard, store)) = self.shards.get_mut(&at) else { continue };
            let mut effects = Vec::new();
            shard.handle(NOW, event, store, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { to, envelope, .. } => {
                        let bytes = codec::encode(&envelope);
                        self.cost.messages += 1;
                        self.cost.bytes += bytes.len() as u64;
                        let envelope: PeerEnvelope = codec::decode(&bytes).expect("what is sent can be read");
                        waiting.push_back((to, Event::Peer(at, envelope)));
                    }
                    Effect::WhenDurable(ticket) => waiting.push_back((at, Event::Durable(ticket))),
                    Effect::StartRenewed(start) => {
                        self.start.insert(at, StartId(start));
                        waiting.push_back((at, Event::Start(StartId(start))));
                    }
                    Effect::Reply { reply: Reply::Put(put), .. } => {
                        answered += u32::from(put.outcome == PutOutcome::Stored);
                        self.contexts.insert(self.asked as usize % self.keys.len(), put.context);
                    }
                    Effect::Reply { reply: Reply::Get(get), .. } => answered += u32::from(get.value.is_some()),
                    Effect::Reply { reply, .. } => panic!("an operation was answered with {reply:?}"),
                    _ => {}
                }
            }
        }
        answered
    }
}
