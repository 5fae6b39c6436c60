//! Nodes with the real protocol over real QUIC, whose replies the test chooses.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rejoin_client::{Client, ClientBuilder, Tls};
use rejoin_proto::client::{
    ClientHello, GetReply, HelloReply, PROTOCOL, Put, PutOutcome, PutReply, Receipt, Reply, ReplyEnvelope, Request,
    RequestBody, Routes, ServerHello, StartId,
};
use rejoin_proto::{
    BucketId, ClusterId, ErrorCode, ErrorReply, Layout, LayoutNode, LayoutPolicy, Name, NodeId, ObjectId, PartitionId,
    TenantId, codec,
};
use rejoin_wire::{Accepted, Class, CloseCode, Connection, Endpoint, Identity, Limits};
use rejoin_wire::{Validity, cert::ClusterCa};

pub(crate) const TOKEN: &str = "app:secret";
/// The tenant of the client.
pub(crate) fn tenant() -> Name {
    Name::new("shop").unwrap()
}

/// The behaviour of a node for a request.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, in a queue of a test")]
pub(crate) enum React {
    /// Replies.
    Say(Reply),
    /// Never replies.
    Silence,
    /// Closes the connection without a reply.
    Close,
    /// The same, and uses another start id from then on.
    CloseAndForget,
}

/// A request as a node got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) node: String,
    pub(crate) class: Class,
    pub(crate) request: Request,
}

/// Shared by the nodes of a cluster.
pub(crate) struct Shared {
    layout: Mutex<Layout>,
    window_ms: u32,
    reactions: Mutex<VecDeque<React>>,
    /// The nodes that reply to nothing.
    silent: Mutex<BTreeSet<String>>,
    seen: Mutex<Vec<Seen>>,
    start: AtomicU64,
    tag: AtomicU64,
}

/// Some fake nodes. They stop when it is dropped.
pub(crate) struct Cluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ca_pem: String,
    pub(crate) addresses: Vec<SocketAddr>,
    nodes: Vec<Option<(Endpoint, tokio::task::JoinHandle<()>)>>,
}

impl Cluster {
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::with_window(nodes, 60_000).await
    }

    pub(crate) async fn with_window(nodes: usize, window_ms: u32) -> Self {
        let now = SystemTime::now();
        let ca = ClusterCa::create(ClusterId(3), Validity::years(now, 10)).unwrap();
        let mut bound = Vec::new();
        for at in 1..=nodes {
            let name = Name::new(format!("n{at}")).unwrap();
            let issued = ca.issue_node(&name, &[], Validity::years(now, 2)).unwrap();
            let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
            let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), identity, Limits::default()).unwrap();
            bound.push((name, endpoint));
        }
        let layout = layout(&bound);
        let (start, tag) = (AtomicU64::new(100), AtomicU64::new(0));
        let shared = Arc::new(Shared {
            layout: Mutex::new(layout),
            window_ms,
            reactions: Mutex::default(),
            silent: Mutex::default(),
            seen: Mutex::default(),
            start,
            tag,
        });
        let addresses = bound.iter().map(|(_, endpoint)| endpoint.local_addr()).collect();
        let run = |(name, endpoint): (Name, Endpoint)| {
            let task = tokio::spawn(serve(endpoint.clone(), name, Arc::clone(&shared)));
            Some((endpoint, task))
        };
        let nodes = bound.into_iter().map(run).collect();
        Self { shared: Arc::clone(&shared), ca_pem: ca.cert_pem().to_string(), addresses, nodes }
    }

    /// A builder that knows every node as a seed.
    pub(crate) fn builder(&self) -> ClientBuilder {
        let seeds = self.addresses.iter().map(ToString::to_string);
        Client::builder()
            .seeds(seeds)
            .tls(Tls::pem(self.ca_pem.clone()))
            .token(TOKEN)
            .connect_timeout(Duration::from_millis(700))
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// The behaviours for the next requests for objects, on any node. Later requests succeed.
    pub(crate) fn react(&self, reactions: impl IntoIterator<Item = React>) {
        self.shared.reactions.lock().unwrap().extend(reactions);
    }

    /// From now on a node takes requests, and replies to none.
    pub(crate) fn silence(&self, name: &str) {
        self.shared.silent.lock().unwrap().insert(name.to_owned());
    }

    /// The requests for objects so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The writes so far, with the node that got them.
    pub(crate) fn puts(&self) -> Vec<(String, Put)> {
        let put = |seen: Seen| match seen.request.body {
            RequestBody::Put(put) => Some((seen.node, put)),
            _ => None,
        };
        self.seen().into_iter().filter_map(put).collect()
    }

    /// The owners of a key, in order.
    pub(crate) fn owners(&self, bucket: &str, key: &str) -> Vec<String> {
        let tenant = TenantId::from_name(&tenant());
        let bucket = BucketId::derive(tenant, &Name::new(bucket).unwrap(), 0);
        let object = ObjectId { tenant, bucket, key: key.as_bytes().to_vec().into() };
        let layout = self.shared.layout.lock().unwrap();
        layout.owners(layout.partition(&object), 5).map(|node| node.name.to_string()).collect()
    }

    /// Replaces the layout by a newer one in which every owner list is turned around.
    pub(crate) fn turn_layout(&self) {
        let mut layout = self.shared.layout.lock().unwrap();
        layout.version += 1;
        layout.owners.iter_mut().for_each(|list| list.reverse());
    }

    /// Ends a node: its connections close and nothing answers at its address any more.
    pub(crate) async fn kill(&mut self, name: &str) {
        let at: usize = name.trim_start_matches('n').parse().unwrap();
        if let Some((endpoint, task)) = self.nodes[at - 1].take() {
            task.abort();
            endpoint.close(CloseCode::SHUTDOWN, "killed").await;
        }
    }
}

fn layout(bound: &[(Name, Endpoint)]) -> Layout {
    let node = |(name, endpoint): &(Name, Endpoint)| {
        let (id, zone) = (NodeId::from_name(name), Name::new("z").unwrap());
        LayoutNode { id, name: name.clone(), zone, capacity: 1, address: endpoint.local_addr().into() }
    };
    let mut nodes: Vec<LayoutNode> = bound.iter().map(node).collect();
    nodes.sort_by_key(|node| node.id);
    let count = u16::try_from(nodes.len()).unwrap();
    let owners = (0..8).map(|partition| (0..count.min(3)).map(|copy| (partition + copy) % count).collect()).collect();
    Layout { version: 1, policy: LayoutPolicy::default(), nodes, owners, copies: Vec::new() }
}

async fn serve(endpoint: Endpoint, name: Name, shared: Arc<Shared>) {
    while let Some(accepted) = endpoint.accept().await {
        if let Accepted::Client(connection) = accepted {
            tokio::spawn(talk(connection, name.clone(), Arc::clone(&shared)));
        }
    }
}

async fn talk(connection: Connection, name: Name, shared: Arc<Shared>) {
    let Some(hello) = connection.recv().await else { return };
    let hello: ClientHello = codec::decode(&hello.body).unwrap();
    let reply = if hello.token == TOKEN {
        HelloReply::Welcome(ServerHello {
            protocol: PROTOCOL,
            cluster: ClusterId(3),
            node: name.clone(),
            tenant: tenant(),
            tenant_id: TenantId::from_name(&tenant()),
            start: StartId(shared.start.load(Ordering::SeqCst)),
            retry_window_ms: shared.window_ms,
            routes: shared.routes(),
        })
    } else {
        HelloReply::Refused(ErrorReply::new(ErrorCode::Denied, "the token is not known"))
    };
    connection.sender().try_send(Class::Control, 0, codec::encode(&reply).into()).unwrap();
    while let Some(frame) = connection.recv().await {
        let request: Request = codec::decode(&frame.body).unwrap();
        match shared.reaction(&name, frame.class, request) {
            React::Say(reply) => {
                let (layout, start) =
                    (shared.layout.lock().unwrap().name(), StartId(shared.start.load(Ordering::SeqCst)));
                let answer = ReplyEnvelope { layout, start, reply };
                let _ = connection.sender().try_send(frame.class, frame.id, codec::encode(&answer).into());
            }
            React::Silence => {}
            React::Close => connection.close(CloseCode::DONE, "told to"),
            React::CloseAndForget => {
                shared.start.fetch_add(1, Ordering::SeqCst);
                connection.close(CloseCode::DONE, "told to");
            }
        }
    }
}

impl Shared {
    fn routes(&self) -> Routes {
        Routes { layout: self.layout.lock().unwrap().clone(), moved: Vec::new() }
    }

    fn reaction(&self, node: &Name, class: Class, request: Request) -> React {
        if request.body == RequestBody::Layout {
            return React::Say(Reply::Layout(self.routes()));
        }
        let usual = self.usual(&request.body);
        self.seen.lock().unwrap().push(Seen { node: node.to_string(), class, request });
        if self.silent.lock().unwrap().contains(node.as_str()) {
            return React::Silence;
        }
        self.reactions.lock().unwrap().pop_front().unwrap_or(React::Say(usual))
    }

    fn usual(&self, body: &RequestBody) -> Reply {
        match body {
            RequestBody::Get(_) => Reply::Get(found("5", self.tag.fetch_add(1, Ordering::SeqCst) as u8)),
            RequestBody::Put(put) => {
                let receipt = Some(Receipt { partition: PartitionId(1), id: put.request.0 });
                match stored(PutOutcome::Stored, 2) {
                    Reply::Put(reply) => Reply::Put(PutReply { receipt, ..reply }),
                    other => other,
                }
            }
            _ => Reply::Records(Vec::new()),
        }
    }
}

/// A read that found one value, with a context that ends in `tag`.
pub(crate) fn found(value: &'static str, tag: u8) -> GetReply {
    let sibling = rejoin_proto::client::Sibling { value: value.into(), stamp_ms: 1, writer: 1 };
    GetReply {
        value: Some(value.into()),
        shown: None,
        siblings: vec![sibling],
        context: vec![9, tag].into(),
        merged_by: None,
        merge_fault: None,
        answered: vec![Name::new("n1").unwrap()],
        unreachable: Vec::new(),
    }
}

/// The reply to a write.
pub(crate) fn stored(outcome: PutOutcome, acked: u8) -> Reply {
    Reply::Put(PutReply { outcome, context: vec![7, 7].into(), acked, needed: 2, receipt: None })
}

/// A refusal.
pub(crate) fn refused(code: ErrorCode) -> React {
    React::Say(Reply::Error(ErrorReply::new(code, format!("refused with {code:?}"))))
}
