//! Starting and stopping a node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng as _;
use rand_core::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use rejoin_core::control::{Catalog, Control};
use rejoin_core::placement::{DEFAULT_PARTITIONS, bootstrap};
use rejoin_core::port::StoreFault;
use rejoin_core::shard::{self, Shard};
use rejoin_core::view::ClusterView;
use rejoin_merge::{Host, HostConfig, HostError, Memo, Pool, PoolConfig};
use rejoin_proto::catalog::{Record, RecordBody, RecordKey};
use rejoin_proto::client::StartId;
use rejoin_proto::context::ContextKey;
use rejoin_proto::{ClusterId, Hlc, Layout, LayoutNode, Name, NodeId, TenantId, codec};
use rejoin_store::{ControlFile, DataDir, Disk, FileError, MaintenanceThread, OpenError, Options, OsDisk, ShardStore, Start};
use rejoin_wire::{Accepted, CloseCode, Endpoint, Identity, Limits, Role};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::catalog::{CATALOG_FILE, CatalogTask, node_view};
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::{Driver, Notice, ShardHandle, Work};
use crate::faults::{Faults, HeldDisk};
use crate::metrics::Metrics;
use crate::modules::Desk;
use crate::parts::Parts;
use crate::token::DEFAULT_TENANT;
use crate::{http, peers, session, syncing};

/// The name under which the layout is kept.
const LAYOUT_FILE: &str = "layout";
/// The fewest bytes of a cluster's secret.
const MIN_SECRET_BYTES: usize = 16;
/// A peer from which nothing comes for this long is down.
const PEER_IDLE: Duration = Duration::from_secs(4);
const PEER_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How often the metrics are folded, whether or not somebody reads them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file of the configuration cannot be read.
    #[error("{key} = {}: {source}", path.display())]
    File {
        /// Which key names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is configured does not go together.
    #[error("{0}")]
    Unfit(String),
    /// The data directory.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// A small file in the data directory.
    #[error(transparent)]
    Control(#[from] FileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// Certificates or the UDP address.
    #[error(transparent)]
    Wire(#[from] rejoin_wire::Error),
    /// The engine that runs plugins.
    #[error(transparent)]
    Merge(#[from] HostError),
    /// The admin address.
    #[error("admin = {address}: {source}; is another process using it?")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// Why a node did not stop cleanly. The next start treats it as a crash.
#[derive(Debug, thiserror::Error)]
#[error("the node did not stop cleanly: {0}")]
pub struct StopError(String);

/// A running node. Dropping it without [`Node::stop`] is like a crash: what was acknowledged is kept, the next start takes longer.
pub struct Node {
    parts: Arc<Parts>,
    endpoint: Endpoint,
    admin: Option<SocketAddr>,
    tasks: JoinSet<()>,
    shards: Vec<JoinHandle<()>>,
    /// Dropped, and with it joined, when the node is.
    maintenance: Vec<MaintenanceThread>,
    dir: DataDir,
    failures: watch::Receiver<Option<String>>,
}

/// A shard that is open and not yet running.
struct Opened {
    shard: Shard,
    store: ShardStore,
}

impl Node {
    /// Starts a node on the machine's disk and clocks. Must be called within a tokio runtime, which then drives its network.
    ///
    /// # Errors
    /// [`StartError`], whose text is one clear line.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let identity = identity(&config)?;
        let cluster = identity.cluster();
        let node = own_id(&config, &identity)?;
        let secret = read("secret", &config.secret)?;
        if secret.len() < MIN_SECRET_BYTES {
            return Err(StartError::Unfit(format!("secret = {}: it has fewer than {MIN_SECRET_BYTES} bytes", config.secret.display())));
        }
        let faults = Faults::default();
        let disk: Arc<dyn Disk> = if config.dev_faults { Arc::new(HeldDisk { faults: faults.clone() }) } else { Arc::new(OsDisk) };
        let owner = rejoin_store::Identity { cluster, node, shards: config.shards };
        let (dir, start) = DataDir::open_on(&config.data, owner, disk.clone())?;
        let files = dir.control();
        let layout = layout(&config, &files, node)?;
        if u32::from(config.shards) > layout.partitions() {
            return Err(StartError::Unfit(format!("shards = {}: more than the ring's {} partitions", config.shards, layout.partitions())));
        }
        let control = Control::new(catalog(&files)?);
        let first_view = Arc::new(node_view(&layout, &control, &secret));
        let (opened, lost) = open_shards(&config, (cluster, node), &secret, &first_view.cluster, &dir, disk, &start)?;

        // Bound only now: a node that cannot open its data must not be seen by its peers.
        let endpoint = Endpoint::bind(config.listen, identity, limits())?;
        let admin = match config.admin {
            Some(address) => Some(bind_admin(address).await?),
            None => None,
        };
        let clock = Clock::system();
        let metrics = Arc::new(Metrics::new());
        let desk = desk(&config, &dir, clock, metrics.clone())?;
        let (view_in, view) = watch::channel(first_view);
        let (start_in, start_out) = watch::channel(combined(&opened.iter().map(|o| o.shard.start()).collect::<Vec<_>>()));
        let (serving_in, serving) = watch::channel(false);
        let (control_in, control_calls) = mpsc::unbounded_channel();
        let (failures_in, failures_out) = mpsc::unbounded_channel();
        let (starts_in, starts_out) = mpsc::unbounded_channel();
        let starts: Vec<u64> = opened.iter().map(|o| o.shard.start()).collect();
        let queues: Vec<_> = opened.iter().map(|_| (mpsc::channel(config.inbox), mpsc::unbounded_channel())).collect();
        let handles = queues.iter().map(|((inbox, _), (notices, _))| ShardHandle { inbox: inbox.clone(), notices: notices.clone() });
        let parts = Arc::new(Parts {
            cluster,
            node,
            shards: handles.collect(),
            control: control_in,
            view,
            start: start_out,
            serving,
            catalog_digest: AtomicU64::new(control.digest()),
            peers: std::sync::Mutex::default(),
            generations: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
            session_numbers: AtomicU64::new(0),
            settled: Notify::new(),
            redial: Notify::new(),
            desk,
            faults,
            metrics,
            clock,
            lost,
            config,
        });

        let mut shards = Vec::new();
        let mut maintenance = Vec::new();
        for (index, (opened, ((_, inbox), (notices_in, notices)))) in opened.into_iter().zip(queues).enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            maintenance.push(opened.store.maintenance().spawn(&format!("flush-{index}")).map_err(StartError::Thread)?);
            let driver = Driver {
                name: parts.config.name.clone(),
                index,
                clock,
                view: parts.cluster_view(),
                desk: parts.desk.clone(),
                metrics: parts.metrics.clone(),
                syncs: syncing::start(index, opened.store.syncer(), notices_in.clone()).map_err(StartError::Thread)?,
                notices: notices_in,
                starts: starts_in.clone(),
                failures: failures_in.clone(),
                shard: opened.shard,
                store: opened.store,
            };
            shards.push(run_shard(driver, inbox, notices).map_err(StartError::Thread)?);
        }
        let (failed_in, failures) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let catalog = CatalogTask { control, layout, secret, files, view: view_in, failures: failures_in };
        tasks.spawn(catalog.run(parts.clone(), control_calls));
        tasks.spawn(combine_starts(parts.clone(), starts, start_in, starts_out));
        tasks.spawn(watch_failures(failures_out, failed_in, endpoint.clone()));
        tasks.spawn(accept(parts.clone(), endpoint.clone()));
        let others = parts.cluster_view().layout().nodes.clone();
        for other in others.into_iter().filter(|other| other.id > node) {
            tasks.spawn(peers::dial(parts.clone(), endpoint.clone(), other));
        }
        tasks.spawn(upkeep(parts.metrics.clone()));
        let begin = parts.clone();
        tasks.spawn(async move {
            peers::start_grace(&begin, Duration::from_millis(begin.config.start_grace_ms)).await;
            begin.tell_all(|| Notice::Serving);
            serving_in.send_replace(true);
        });
        let mut admin_address = None;
        if let Some(listener) = admin {
            admin_address = listener.local_addr().ok();
            let routes = http::routes(parts.clone());
            tasks.spawn(async move {
                if let Err(error) = axum::serve(listener, routes).await {
                    tracing::error!(%error, "the admin port has failed");
                }
            });
        }
        tracing::info!(name = %parts.config.name, address = %endpoint.local_addr(), %cluster, "node started");
        Ok(Self { parts, endpoint, admin: admin_address, tasks, shards, maintenance, dir, failures })
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.parts.config.name
    }

    /// Where clients and peers reach it (UDP), with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Where metrics and health are (TCP), if anywhere.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Resolves when the node takes requests: every other node is connected, or the start's grace is over.
    pub async fn ready(&self) {
        // An error means that the node is stopping; whoever waits for it finds out at its next request.
        let _ = self.parts.serving.clone().wait_for(|serving| *serving).await;
    }

    /// Resolves when the node cannot go on by itself (a failed fsync, a catalog that cannot be kept), with the reason. It must then be dropped.
    pub async fn failed(&self) -> String {
        let mut failures = self.failures.clone();
        let failed = failures.wait_for(Option::is_some).await;
        failed.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the node has been stopped".into())
    }

    /// Stops: connections are closed, what was written is synced, and the clean-stop mark is left.
    ///
    /// # Errors
    /// [`StopError`] if a shard could not be closed; the next start then treats this as a crash.
    pub async fn stop(mut self) -> Result<(), StopError> {
        self.endpoint.close(CloseCode::SHUTDOWN, "the node is stopping").await;
        self.tasks.shutdown().await;
        // A disk that is held back on purpose would hold up the stop for ever.
        self.parts.faults.release();
        let mut problems = Vec::new();
        for shard in &self.parts.shards {
            let (stop, stopped) = oneshot::channel();
            let _ = shard.notices.send(Notice::Stop(stop));
            match stopped.await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => problems.push(why),
                Err(_) => problems.push("a shard had stopped before".into()),
            }
        }
        for thread in self.shards.drain(..) {
            if thread.join().is_err() {
                problems.push("a shard has panicked".into());
            }
        }
        drop(self.maintenance);
        match problems.into_iter().next() {
            Some(problem) => Err(StopError(problem)),
            None => self.dir.mark_clean().map_err(|error| StopError(error.to_string())),
        }
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { key, path: path.to_path_buf(), source })
}

fn identity(config: &Config) -> Result<Identity, StartError> {
    let text = |key, path: &Path| read(key, path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (ca, certificate, key) = (text("ca", &config.ca)?, text("certificate", &config.certificate)?, text("key", &config.key)?);
    Ok(Identity::node(&ca, &certificate, &key)?)
}

/// The id of the node in the certificate, which must be the one that the configuration names.
fn own_id(config: &Config, identity: &Identity) -> Result<NodeId, StartError> {
    match identity.subject().map(|subject| &subject.role) {
        Some(Role::Node(name)) if *name == config.name => Ok(NodeId::from_name(name)),
        Some(role) => {
            let path = config.certificate.display();
            Err(StartError::Unfit(format!("certificate = {path}: it is for {role:?}, and this node is {}", config.name)))
        }
        None => Err(StartError::Unfit(format!("certificate = {}: it names nobody", config.certificate.display()))),
    }
}

/// The layout that was kept; on a first start the one that the bootstrap list gives, kept from then on.
fn layout(config: &Config, files: &ControlFile, node: NodeId) -> Result<Layout, StartError> {
    let unfit = |why: String| StartError::Unfit(why);
    if let Some(kept) = files.read(LAYOUT_FILE)? {
        let layout: Layout = codec::decode(&kept).map_err(|error| unfit(format!("the kept layout cannot be read: {error}")))?;
        layout.check().map_err(|bad| unfit(format!("the kept layout is damaged: {bad}")))?;
        return Ok(layout);
    }
    if config.bootstrap.is_empty() {
        return Err(unfit(
            "this is a first start and the configuration has no [[bootstrap]] list: name every node of the cluster there".into(),
        ));
    }
    let member = |node: &crate::BootstrapNode| LayoutNode {
        id: NodeId::from_name(&node.name),
        name: node.name.clone(),
        zone: node.zone.clone(),
        capacity: node.capacity,
        address: node.address,
    };
    let nodes: Vec<LayoutNode> = config.bootstrap.iter().map(member).collect();
    if !nodes.iter().any(|member| member.id == node) {
        return Err(unfit(format!("the [[bootstrap]] list does not name this node, {}", config.name)));
    }
    let layout = bootstrap(nodes, DEFAULT_PARTITIONS).map_err(|bad| unfit(format!("the [[bootstrap]] list makes no layout: {bad}")))?;
    files.write(LAYOUT_FILE, &codec::encode(&layout))?;
    Ok(layout)
}

/// The catalog that was kept; a new one knows the default tenant.
fn catalog(files: &ControlFile) -> Result<Catalog, StartError> {
    if let Some(kept) = files.read(CATALOG_FILE)? {
        return codec::decode(&kept).map_err(|error| StartError::Unfit(format!("the kept catalog cannot be read: {error}")));
    }
    let name = Name::new(DEFAULT_TENANT).map_err(|error| StartError::Unfit(error.to_string()))?;
    let key = RecordKey::Tenant(TenantId::from_name(&name));
    // Without a clock's reading, so that every node of a new cluster makes the same record.
    Ok(Catalog { records: vec![Record { key, version: 1, stamp: Hlc::default(), body: RecordBody::Tenant { name } }] })
}

/// Opens every shard. Whatever may have been lost ends all actors, durably, before anything is minted.
fn open_shards(
    config: &Config,
    (cluster, node): (ClusterId, NodeId),
    secret: &[u8],
    view: &Arc<ClusterView>,
    dir: &DataDir,
    disk: Arc<dyn Disk>,
    start: &Start,
) -> Result<(Vec<Opened>, Vec<String>), StartError> {
    let (mut opened, mut all_lost) = (Vec::new(), Vec::new());
    for index in 0..config.shards {
        let options = Options {
            segment_bytes: config.segment_bytes,
            memtable_bytes: config.memtable_bytes,
            cache_bytes: config.cache_bytes,
            free_space_floor: config.free_space_floor,
            ..Options::default()
        };
        let (mut store, recovery) = ShardStore::open(dir.shard_dir(index), options, disk.clone(), start)?;
        let lost = !recovery.lost.is_empty();
        all_lost.extend(recovery.lost.iter().map(|what| format!("shard {index}: {what}")));
        let config = shard::Config {
            node,
            shard: index,
            contexts: context_key(cluster, secret),
            max_skew_ms: config.max_skew_ms,
            retry_window_ms: u64::from(config.retry_window_ms),
            max_retry_rows: config.retry_rows,
            max_ops: config.in_flight,
            lost: lost || start.unsynced_may_be_gone(),
        };
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let shard = Shard::open(config, view.clone(), Xoshiro256PlusPlus::from_seed(seed), &mut store)?;
        store.commit()?;
        store.syncer().sync()?;
        if lost {
            store.settle_loss()?;
        }
        opened.push(Opened { shard, store });
    }
    dir.settle()?;
    Ok((opened, all_lost))
}

/// Seals contexts. Made with the cluster's id too, so that clusters which were given one secret still do not take each other's contexts.
fn context_key(cluster: ClusterId, secret: &[u8]) -> ContextKey {
    ContextKey::derive(0, &[&cluster.0.to_le_bytes()[..], secret].concat())
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = PEER_IDLE;
    limits.keep_alive = PEER_KEEP_ALIVE;
    limits
}

async fn bind_admin(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    tokio::net::TcpListener::bind(address).await.map_err(|source| StartError::Admin { address, source })
}

fn desk(config: &Config, dir: &DataDir, clock: Clock, metrics: Arc<Metrics>) -> Result<Desk, StartError> {
    let host = Host::new(HostConfig::default())?;
    let pool = PoolConfig { threads: config.merge_threads, queue: config.merge_queue };
    let pool = Pool::new(host, Memo::new(config.memo_bytes), pool)?;
    Ok(Desk::new(pool, dir.modules(), config.module_bytes, clock, metrics))
}

/// A thread of its own for a shard, with a runtime of its own for its timer and its queues.
fn run_shard(driver: Driver, inbox: mpsc::Receiver<Work>, notices: mpsc::UnboundedReceiver<Notice>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let name = format!("shard-{}", driver.index);
    let guard = PanicGuard { shard: driver.index, failures: driver.failures.clone() };
    std::thread::Builder::new().name(name).spawn(move || {
        let _guard = guard;
        runtime.block_on(driver.run(inbox, notices));
    })
}

/// Stops the node when a shard's thread ends in a panic: an invariant was broken, and going on would answer for data it no longer guards.
struct PanicGuard {
    shard: u16,
    failures: mpsc::UnboundedSender<String>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // If nobody listens, the node is stopping already.
            let _ = self.failures.send(format!("shard {} has panicked; its message is in the log", self.shard));
        }
    }
}

/// One start id for the node, made of those of its shards: renewed when any of them is.
fn combined(starts: &[u64]) -> StartId {
    let mut hasher = blake3::Hasher::new_derive_key("rejoin 2026 start id");
    for start in starts {
        hasher.update(&start.to_le_bytes());
    }
    let mut word = [0; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    StartId(u64::from_le_bytes(word))
}

async fn combine_starts(
    parts: Arc<Parts>,
    mut starts: Vec<u64>,
    out: watch::Sender<StartId>,
    mut renewed: mpsc::UnboundedReceiver<(u16, u64)>,
) {
    parts.tell_all(|| Notice::Start(combined(&starts)));
    while let Some((shard, start)) = renewed.recv().await {
        starts[usize::from(shard)] = start;
        out.send_replace(combined(&starts));
        parts.tell_all(|| Notice::Start(combined(&starts)));
    }
}

/// The first failure closes the network, so that nothing more is promised.
async fn watch_failures(mut failures: mpsc::UnboundedReceiver<String>, out: watch::Sender<Option<String>>, endpoint: Endpoint) {
    if let Some(why) = failures.recv().await {
        tracing::error!(why, "the node cannot go on");
        out.send_replace(Some(why));
        endpoint.close(CloseCode::SHUTDOWN, "the node has failed").await;
        // Kept, so that shards which fail later still find somebody.
        while failures.recv().await.is_some() {}
    }
}

async fn upkeep(metrics: Arc<Metrics>) {
    let mut due = tokio::time::interval(METRICS_UPKEEP);
    loop {
        due.tick().await;
        metrics.upkeep();
    }
}

async fn accept(parts: Arc<Parts>, endpoint: Endpoint) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = served.join_next(), if !served.is_empty() => {}
            accepted = endpoint.accept() => match accepted {
                None => return,
                Some(Accepted::Peer(connection, name)) => {
                    let parts = parts.clone();
                    served.spawn(async move { peers::serve(&parts, connection, name).await });
                }
                Some(Accepted::Client(connection)) => {
                    served.spawn(session::serve(parts.clone(), connection));
                }
            }
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = self.parts.catalog_digest.load(Relaxed);
        f.debug_struct("Node").field("name", self.name()).field("catalog", &digest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::{BucketId, ObjectId, VersionVector};

    #[test]
    fn clusters_with_one_secret_do_not_take_each_others_contexts() {
        let object = ObjectId { tenant: TenantId(1), bucket: BucketId(2), key: "k".into() };
        let token = context_key(ClusterId(1), b"one secret").seal(&object, &VersionVector::new());
        assert!(context_key(ClusterId(1), b"one secret").open(&object, &token).is_ok());
        assert!(context_key(ClusterId(2), b"one secret").open(&object, &token).is_err());
    }

    #[test]
    fn a_start_id_is_renewed_with_any_shards() {
        assert_ne!(combined(&[1, 2]), combined(&[1, 3]));
        assert_eq!(combined(&[1, 2]), combined(&[1, 2]));
    }
}
