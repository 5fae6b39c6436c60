//! Starting and stopping a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, SetOnce, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use rejoin_core::port::StoreFault;
use rejoin_merge::{
    ArtefactCache, ChildCompiler, CompileLimits, CompileQueue, Compiler, Host, HostConfig, HostError, Memo, Pool, PoolConfig, QueueConfig,
};
use rejoin_proto::{Name, NodeId};
use rejoin_store::{DataDir, FileError, MaintenanceThread, OpenError};
use rejoin_wire::{CloseCode, Endpoint, Limits};

use crate::bootstrap;
use crate::catalog::CatalogTask;
use crate::certificates::{self, Certificates};
use crate::config::Config;
use crate::driver::{Driver, Notice, ShardHandle, Work};
use crate::metrics::Metrics;
use crate::modules::Desk;
use crate::open::{Opened, Opening, Plan, Unwritten};
use crate::parts::Parts;
use crate::peers::Peers;
use crate::platform::{Chance, Compiling, Platform, Threads};
use crate::problems::Problems;
use crate::session::Sessions;
use crate::{http, leaving, peers, run, syncing};

/// A peer from which nothing comes for this long is down.
const PEER_IDLE: Duration = Duration::from_secs(4);
const PEER_KEEP_ALIVE: Duration = Duration::from_secs(1);

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

/// A running node. Dropping it without [`Node::stop`] is like a crash: what was acknowledged is kept, the next start
/// takes longer.
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

/// A shard's inbox and its notices, each with both of its ends.
type Queues = ((mpsc::Sender<Work>, mpsc::Receiver<Work>), (mpsc::UnboundedSender<Notice>, mpsc::UnboundedReceiver<Notice>));

impl Node {
    /// Starts a node on this machine. Must be called within a tokio runtime, which then drives its network.
    ///
    /// # Errors
    /// [`StartError`], whose text is one clear line.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Platform::machine(), config).await
    }

    /// Starts a node on another platform than the machine's, such as a simulation.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_on(platform: Platform, config: Config) -> Result<Self, StartError> {
        let chance = Chance::new(platform.seed);
        let plan = Plan::make(&config, &platform).await?;
        let Platform { clock, network, threads, compiling, seed, .. } = platform;
        // Everything that can fail without the data does so before it is opened, and a first start that fails later is
        // undone.
        let limits = limits(&config);
        let socket = Endpoint::open_port(&*network, plan.listen, &limits)?;
        let admin = match plan.admin {
            Some(address) => Some(bind_admin(address).await?),
            None => None,
        };
        let pool = pool(&config, threads)?;
        let mut unwritten = Unwritten::watch(&config.data, plan.first);
        let opening = plan.open(&config, threads, (clock, &chance), &mut unwritten)?;
        let Opening { dir, layout, control, links, view: first_view, shards: opened, lost } = opening;
        let Plan { identity, files, node, secret, faults, contradictions, .. } = plan;
        let cluster = identity.cluster();
        for why in &contradictions {
            tracing::warn!(why, "{}", bootstrap::KEPT);
        }
        let certificates = Certificates::new(identity.clone(), files);
        // Answers only from here on: a node that cannot open its data must not be seen by its peers.
        let endpoint = Endpoint::bind_with(network.runtime(), socket, seed.map(|_| chance.seed()), identity, limits)?;
        let metrics = Arc::new(Metrics::new());
        let queue = compile_queue(&config, threads, compiling, pool.host().clone())?;
        let desk = Desk::new(pool, queue, dir.modules(), config.module_bytes, clock, metrics.clone());
        let (view_in, view) = watch::channel(first_view);
        let (start_in, start_out) = watch::channel(run::combined(&opened.iter().map(|o| o.batch.shard().start()).collect::<Vec<_>>()));
        let (control_in, control_calls) = mpsc::unbounded_channel();
        let (failures_in, failures_out) = mpsc::unbounded_channel();
        let (starts_in, starts_out) = mpsc::unbounded_channel();
        let (dials_in, dials_out) = mpsc::unbounded_channel();
        let (heard_in, heard_out) = mpsc::unbounded_channel();
        let starts: Vec<u64> = opened.iter().map(|o| o.batch.shard().start()).collect();
        let queues: Vec<Queues> = opened.iter().map(|_| (mpsc::channel(config.inbox), mpsc::unbounded_channel())).collect();
        let room_bytes = config.inbox_bytes;
        let handles = queues.iter().map(|((inbox, _), (notices, _))| {
            let room = Arc::new(Semaphore::new(usize::try_from(room_bytes).unwrap_or(Semaphore::MAX_PERMITS)));
            ShardHandle { inbox: inbox.clone(), notices: notices.clone(), room, room_bytes }
        });
        let parts = Arc::new(Parts {
            cluster,
            node,
            shards: handles.collect(),
            control: control_in,
            view,
            start: start_out,
            serving: SetOnce::new(),
            barred: watch::Sender::default(),
            catalog_digest: AtomicU64::new(control.digest()),
            peers: std::sync::Mutex::new(Peers::new(links)),
            dials: dials_in,
            files: dir.control(),
            failures: failures_in.clone(),
            generations: AtomicU64::new(0),
            sessions: Sessions::default(),
            leaving: SetOnce::new(),
            left: watch::Sender::default(),
            session_numbers: AtomicU64::new(0),
            links_changed: Notify::new(),
            redial: Notify::new(),
            desk,
            faults,
            metrics,
            clock,
            chance,
            certificates,
            contradictions,
            lost,
            problems: Problems::default(),
            stores: opened.iter().map(|opened| opened.store.watch()).collect(),
            config,
        });

        let (failed_in, failures) = watch::channel(None);
        let mut node = Self {
            parts,
            endpoint,
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            tasks: JoinSet::new(),
            shards: Vec::new(),
            maintenance: Vec::new(),
            dir,
            failures,
        };
        for (index, (opened, queues)) in opened.into_iter().zip(queues).enumerate() {
            node.run_shard(threads, index, opened, queues, (&starts_in, &heard_in))?;
        }
        let files = node.dir.control();
        let guard = failures_in.clone();
        let catalog = CatalogTask { control, layout, secret, files, view: view_in, failures: failures_in };
        node.tasks.spawn(run::guarded("the catalog", guard.clone(), catalog.run(node.parts.clone(), control_calls)));
        node.tasks.spawn(run::combine_starts(node.parts.clone(), starts, start_in, starts_out));
        node.tasks.spawn(run::watch_failures(failures_out, failed_in, node.endpoint.clone()));
        node.meet(&guard, dials_out, heard_out);
        if let Some(listener) = admin {
            node.tasks.spawn(run::admin(listener, http::routes(node.parts.clone())));
        }
        unwritten.keep();
        tracing::info!(name = %node.name(), address = %node.address(), %cluster, "node started");
        Ok(node)
    }

    /// Sets a shard going, with who waits for the disk and who flushes.
    fn run_shard(
        &mut self,
        threads: Threads,
        index: usize,
        opened: Opened,
        ((_, inbox), (notices_in, notices)): Queues,
        (starts, heard): (&mpsc::UnboundedSender<(u16, u64)>, &mpsc::UnboundedSender<u64>),
    ) -> Result<(), StartError> {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        let maintenance = opened.store.maintenance();
        match threads {
            Threads::Own => self.maintenance.push(maintenance.spawn(&format!("flush-{index}")).map_err(StartError::Thread)?),
            Threads::Shared => drop(self.tasks.spawn(run::maintain(maintenance, opened.due))),
        }
        let driver = Driver {
            name: self.parts.config.name.clone(),
            data: self.parts.config.data.clone(),
            index,
            clock: self.parts.clock,
            view: self.parts.cluster_view(),
            desk: self.parts.desk.clone(),
            metrics: self.parts.metrics.clone(),
            syncs: syncing::start(threads, index, opened.store.syncer(), notices_in.clone()).map_err(StartError::Thread)?,
            notices: notices_in,
            starts: starts.clone(),
            failures: self.parts.failures.clone(),
            heard: heard.clone(),
            backlog_bytes: self.parts.config.in_flight_bytes,
            batch: opened.batch,
            store: opened.store,
        };
        self.shards.push(run::run_shard(driver, inbox, notices));
        Ok(())
    }

    /// Begins to accept and to dial. The links say when the node serves.
    fn meet(
        &mut self,
        failures: &mpsc::UnboundedSender<String>,
        dials: mpsc::UnboundedReceiver<NodeId>,
        heard: mpsc::UnboundedReceiver<u64>,
    ) {
        let parts = &self.parts;
        if let Some(by) = &parts.peers().links.disks().replaced {
            parts.report_replaced(by);
        }
        self.tasks.spawn(run::guarded("accepting", failures.clone(), run::accept(parts.clone(), self.endpoint.clone())));
        let links = peers::keep(parts.clone(), self.endpoint.clone(), dials, heard);
        self.tasks.spawn(run::guarded("the links", failures.clone(), links));
        self.tasks.spawn(peers::expect(parts.clone(), self.endpoint.clone()));
        self.tasks.spawn(run::upkeep(parts.metrics.clone()));
        self.tasks.spawn(run::guarded("the certificates", failures.clone(), certificates::watch(parts.clone(), self.endpoint.clone())));
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

    /// The node's figures, as Prometheus text: what the admin port's `/metrics` gives.
    pub async fn metrics(&self) -> String {
        http::figures(&self.parts).await
    }

    /// Uses the certificates of the configured files for new connections, if they are others than before. Says whether
    /// they are. The node looks at the files by itself too, every ten seconds.
    ///
    /// # Errors
    /// Why they are not used; those in use stay.
    pub fn reload_certificates(&self) -> Result<bool, String> {
        certificates::reload(&self.parts, &self.endpoint)
    }

    /// Resolves when the node takes requests: every other node is connected, or the start's grace is over.
    pub async fn ready(&self) {
        self.parts.serving.wait().await;
    }

    /// Resolves when the node cannot go on by itself (a failed fsync, a catalog that cannot be kept), with the reason.
    /// It must then be dropped.
    pub async fn failed(&self) -> String {
        let mut failures = self.failures.clone();
        let failed = failures.wait_for(Option::is_some).await;
        failed.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the node has been stopped".into())
    }

    /// Stops. Clients and then peers are told, and the requests that are under way end, for at most `drain_ms`; then
    /// connections are closed, what was written is synced, and the clean-stop mark is left.
    ///
    /// # Errors
    /// [`StopError`] if a shard could not be closed; the next start then treats this as a crash.
    pub async fn stop(mut self) -> Result<(), StopError> {
        // A disk that is held back on purpose would hold up the stop for ever.
        self.parts.faults.release();
        if self.failures.borrow().is_none() {
            leaving::drain(&self.parts, &self.endpoint).await;
        }
        self.endpoint.close(CloseCode::SHUTDOWN, "the node is stopping").await;
        self.tasks.shutdown().await;
        let (mut problems, mut owes_ends) = (Vec::<String>::new(), false);
        for shard in &self.parts.shards {
            let (stop, stopped) = oneshot::channel();
            let _ = shard.notices.send(Notice::Stop(stop));
            match stopped.await {
                Ok(shard) => {
                    owes_ends |= shard.owes_ends;
                    problems.extend(shard.closed.err());
                }
                Err(_) => problems.push("a shard had stopped before".into()),
            }
        }
        for shard in self.shards.drain(..) {
            if shard.await.is_err() {
                problems.push("a shard has panicked".into());
            }
        }
        drop(self.maintenance);
        // Ends of tenures that a full disk did not take must not be forgotten with this process. Nor must those of the
        // start be owed for ever: every shard has written them down by now.
        if owes_ends {
            problems.extend(self.dir.owe_renewal().err().map(|error| error.to_string()));
        } else if problems.is_empty() {
            problems.extend(self.dir.settle().err().map(|error| error.to_string()));
        }
        match problems.into_iter().next() {
            Some(problem) => Err(StopError(problem)),
            None => self.dir.mark_clean().map_err(|error| StopError(error.to_string())),
        }
    }
}

/// The most bytes of a client's hello: many times what a token and a name take, so that a wrong one is answered in
/// words.
const HELLO_BYTES: u32 = 16 << 10;

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.first_frame = Some(HELLO_BYTES);
    limits.max_connections = config.max_clients;
    limits.max_new_clients = config.max_new_clients;
    limits.idle_timeout = PEER_IDLE;
    limits.keep_alive = PEER_KEEP_ALIVE;
    limits
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Admin { address, source })
}

/// The most plugin instances at once: each reserves some 4 GiB of addresses, of the 128 TiB that a process has.
const MOST_INSTANCES: u32 = 4_096;

fn pool(config: &Config, threads: Threads) -> Result<Pool, StartError> {
    // A merge or a plugin that is being loaded has one instance at a time.
    let least = HostConfig::default().instances;
    let busiest = config.merge_threads.saturating_add(config.compile_threads);
    let instances = u32::try_from(busiest).unwrap_or(u32::MAX).clamp(least, MOST_INSTANCES);
    let host = Host::new(HostConfig { instances, ..HostConfig::default() })?;
    let memo = Memo::new(config.memo_bytes);
    let shares = PoolConfig {
        threads: config.merge_threads,
        queue: config.merge_queue,
        bucket_threads: config.merge_bucket_threads,
        bucket_queue: config.merge_bucket_queue,
    };
    match threads {
        Threads::Own => Ok(Pool::new(host, memo, shares)?),
        Threads::Shared => Ok(Pool::inline(host, memo)),
    }
}

/// Where plugins are compiled, and kept in the data directory. One that cannot keep them compiles them anew after a
/// restart.
fn compile_queue(config: &Config, threads: Threads, compiling: Compiling, host: Host) -> Result<CompileQueue, StartError> {
    let compiler = match compiling {
        Compiling::Here => Compiler::InProcess,
        Compiling::Child => Compiler::Child(child_compiler(config)),
    };
    if threads == Threads::Shared {
        return Ok(CompileQueue::inline(host, compiler, None));
    }
    let cache = ArtefactCache::open(&config.data.join("compiled"), config.compiled_bytes, &host);
    let cache = cache.inspect_err(|error| tracing::warn!(%error, "compiled plugins cannot be kept")).ok();
    let at_once = QueueConfig { threads: config.compile_threads, queue: config.compile_queue };
    Ok(CompileQueue::new(host, compiler, cache, at_once)?)
}

fn child_compiler(config: &Config) -> ChildCompiler {
    let seconds = u64::from(config.compile_seconds);
    let limits = CompileLimits {
        memory_bytes: config.compile_memory_bytes,
        cpu_seconds: seconds,
        wall: Duration::from_secs(3 * seconds),
        ..CompileLimits::default()
    };
    let ChildCompiler { program, .. } = ChildCompiler::default();
    ChildCompiler { program: config.compile_program.clone().unwrap_or(program), limits }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = self.parts.catalog_digest.load(Relaxed);
        f.debug_struct("Node").field("name", self.name()).field("catalog", &digest).finish_non_exhaustive()
    }
}
