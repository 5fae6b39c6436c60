//! Starting and stopping a node.
//!
//! A start first reads and checks everything (`StartPlan`), then opens the ports and the data, and only then answers on
//! the network. A first start that fails leaves nothing behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, SetOnce, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use rejoin_core::control::Control;
use rejoin_core::node::links::LinkEvent;
use rejoin_proto::client::StartId;
use rejoin_proto::{Name, NodeId};
use rejoin_store::{DataDir, MaintenanceThread};
use rejoin_wire::{CloseCode, Endpoint, Limits};

use crate::audit::Audit;
use crate::bootstrap;
use crate::catalog::CatalogTask;
use crate::certificates::Certificates;
use crate::config::Config;
use crate::context::NodeContext;
use crate::driver::{Driver, ShardQueues};
use crate::engine::{self, Engine};
use crate::error::{StartError, StopError};
use crate::loops::Loops;
use crate::members::{self, Membership, ShardRequests};
use crate::messages::{CatalogRequest, Inbox, ShardHandle, ShardMessage};
use crate::metrics::Metrics;
use crate::open::{FirstStartGuard, OpenedNode, OpenedShard, StartPlan};
use crate::peer_table::Peers;
use crate::platform::{Platform, SharedRng, Threads};
use crate::plugins::PluginService;
use crate::problems::Problems;
use crate::readiness::Readiness;
use crate::requests::RequestQueue;
use crate::ring::RingPart;
use crate::scanning::Scans;
use crate::secret::Secret;
use crate::sessions::Sessions;
use crate::share_threads::ShareThreads;
use crate::sizes::Sizes;
use crate::view::NodeView;
use crate::{admin_access, drain, http, peers, quotas, renewal, run, syncing};

/// A connection between nodes that receives nothing for this long is closed.
const PEER_IDLE: Duration = Duration::from_secs(4);
/// How often a quiet connection between nodes sends something.
const PEER_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// One part in so many of `inbox_bytes` is for small messages of peers, the rest for large ones.
const SMALL_SHARE: u32 = 4;
/// Bulk messages of peers that wait before a shard, and their bytes: enough for one batch while the next is on its way.
const BULK_INBOX: usize = 256;
const BULK_INBOX_BYTES: u32 = 8 << 20;
/// The most bytes of a client's hello. A valid one is far smaller; with this much room a wrong one still gets an answer
/// that says what is wrong.
const HELLO_BYTES: u32 = 16 << 10;

/// A running node. Dropping it without [`Node::stop`] is like a crash: nothing acknowledged is lost, and the next start
/// takes longer.
pub struct Node {
    ctx: Arc<NodeContext>,
    endpoint: Endpoint,
    admin: Option<SocketAddr>,
    tasks: JoinSet<()>,
    /// Joined when dropped.
    shares: ShareThreads,
    shards: Vec<JoinHandle<()>>,
    /// Joined when dropped.
    maintenance: Vec<MaintenanceThread>,
    dir: DataDir,
    failures: watch::Receiver<Option<String>>,
}

/// The channels of the node's own tasks: the ends that are not in the context.
struct Channels {
    view: watch::Sender<Arc<NodeView>>,
    start: watch::Sender<StartId>,
    catalog: mpsc::UnboundedReceiver<CatalogRequest>,
    dials: mpsc::UnboundedReceiver<NodeId>,
    failures: mpsc::UnboundedReceiver<String>,
    starts: mpsc::UnboundedReceiver<(u16, u64)>,
    links: mpsc::UnboundedReceiver<LinkEvent>,
    requests: mpsc::UnboundedReceiver<ShardRequests>,
}

/// By which shards report to the node's own tasks.
struct ShardReports {
    starts: mpsc::UnboundedSender<(u16, u64)>,
    links: mpsc::UnboundedSender<LinkEvent>,
    requests: mpsc::UnboundedSender<ShardRequests>,
}

impl Node {
    /// Starts a node on this machine. Must be called within a tokio runtime, which then drives its network.
    ///
    /// # Errors
    /// [`StartError`], whose text is one clear line.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Platform::machine(), config).await
    }

    /// Starts a node on another platform than [`Platform::machine`], such as a simulation or several loops.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_on(platform: Platform, config: Config) -> Result<Self, StartError> {
        admin_access::check_file(&config)?;
        let rng = SharedRng::new(platform.seed);
        let plan = StartPlan::make(&config, &platform).await?;
        let Platform { clock, network, threads, loops, compiling, seed, .. } = platform;
        // Ports and engine first: if they fail, the data was not touched.
        let limits = limits(&config);
        let socket = Endpoint::open_port(&*network, plan.listen, &limits)?;
        let admin = match plan.admin {
            Some(address) => Some(bind_admin(address).await?),
            None => None,
        };
        let pool = engine::pool(&config, threads)?;
        let mut first_start = FirstStartGuard::new(&config.data, plan.first);
        let bound = socket.local_addr().ok();
        let opened = plan.open(&config, threads, (clock, &rng), (bound, &mut first_start))?;
        let (log, findings) = opened.dir.audit(config.audit_bytes)?;
        for why in &plan.contradictions {
            tracing::warn!(why, "{}", bootstrap::KEPT);
        }
        // The endpoint answers from here on. Before this the data must be open: a node that cannot open its data must
        // not be seen by its peers.
        let seed = seed.map(|_| rng.next_seed());
        let endpoint = Endpoint::bind_with(network.runtime(), socket, seed, plan.identity.clone(), limits)?;
        endpoint.spread_over(loops.all());
        let shares = ShareThreads::start(endpoint.processor_shares(), threads, &loops).map_err(StartError::Thread)?;
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::open(&config, threads, compiling, pool)?;
        let aside = engine.aside.clone();
        let plugins = PluginService::new(engine, opened.dir.modules(), clock, metrics.clone(), plan.faults.clone());

        let OpenedNode { dir, ring, control, links, members, view, shards, lost } = opened;
        let (handles, queues): (Vec<ShardHandle>, Vec<ShardQueues>) =
            shards.iter().map(|_| shard_queues(&config)).unzip();
        let starts: Vec<u64> = shards.iter().map(|opened| opened.batch.shard().start()).collect();
        let (view_in, view) = watch::channel(view);
        let (start_in, start) = watch::channel(run::node_start_id(&starts));
        let (catalog_in, catalog) = mpsc::unbounded_channel();
        let (dials_in, dials) = mpsc::unbounded_channel();
        let (failures_in, failures) = mpsc::unbounded_channel();
        let (starts_in, renewed) = mpsc::unbounded_channel();
        let (links_in, link_events) = mpsc::unbounded_channel();
        let (requests_in, requests) = mpsc::unbounded_channel();
        let reports = ShardReports { starts: starts_in, links: links_in, requests: requests_in };
        let channels = Channels {
            view: view_in,
            start: start_in,
            catalog,
            dials,
            failures,
            starts: renewed,
            links: link_events,
            requests,
        };
        let ctx = Arc::new(NodeContext {
            cluster: plan.identity.cluster(),
            node: plan.node,
            shards: handles,
            catalog: catalog_in,
            view,
            start,
            serving: SetOnce::new(),
            barred: watch::Sender::default(),
            catalog_digest: AtomicU64::new(control.digest()),
            peers: std::sync::Mutex::new(Peers::new(links)),
            members: std::sync::Mutex::new(Membership::new(members)),
            dials: dials_in,
            files: dir.control(),
            failures: failures_in,
            connection_numbers: AtomicU64::new(0),
            sessions: Sessions::default(),
            metering: Arc::default(),
            session_numbers: AtomicU64::new(0),
            stopping: SetOnce::new(),
            released_by: watch::Sender::default(),
            links_changed: Notify::new(),
            redial: Notify::new(),
            plugins,
            aside,
            faults: plan.faults,
            metrics,
            clock,
            rng,
            certificates: Certificates::new(plan.identity, plan.files),
            audit: Audit::new(log, findings),
            contradictions: plan.contradictions,
            lost,
            problems: Problems::default(),
            sizes: Sizes::default(),
            readiness: Readiness::default(),
            stores: shards.iter().map(|opened| opened.store.watch()).collect(),
            keys: plan.keys,
            config,
        });

        let (failed_in, failures) = watch::channel(None);
        let mut node = Self {
            ctx,
            endpoint,
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            tasks: JoinSet::new(),
            shares,
            shards: Vec::new(),
            maintenance: Vec::new(),
            dir,
            failures,
        };
        for (opened, queues) in shards.into_iter().zip(queues) {
            node.spawn_shard((threads, &loops), opened, queues, &reports)?;
        }
        node.spawn_tasks(channels, (control, ring, plan.secret), starts, failed_in);
        if let Some(listener) = admin {
            // Without an address it is not known to be on loopback.
            let open = node.admin.is_some_and(admin_access::is_open);
            node.tasks.spawn(run::admin(listener, http::routes(node.ctx.clone(), open)));
        }
        first_start.disarm();
        tracing::info!(name = %node.name(), address = %node.address(), cluster = %node.ctx.cluster, "node started");
        Ok(node)
    }

    /// Starts a shard's task, its sync thread and its maintenance.
    fn spawn_shard(
        &mut self,
        (threads, loops): (Threads, &Loops),
        opened: OpenedShard,
        queues: ShardQueues,
        reports: &ShardReports,
    ) -> Result<(), StartError> {
        let index = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let messages = self.ctx.shards[usize::from(index)].messages.clone();
        let maintenance = opened.store.maintenance();
        match threads {
            Threads::Own => {
                self.maintenance.push(maintenance.spawn(&format!("flush-{index}")).map_err(StartError::Thread)?)
            }
            Threads::Shared => drop(self.tasks.spawn(run::maintain(maintenance, opened.due))),
        }
        let driver = Driver {
            name: self.ctx.config.name.clone(),
            data: self.ctx.config.data.clone(),
            index,
            clock: self.ctx.clock,
            view: self.ctx.cluster_view(),
            plugins: self.ctx.plugins.clone(),
            metering: self.ctx.metering.clone(),
            metrics: self.ctx.metrics.clone(),
            syncs: syncing::start(threads, index, opened.store.syncer(), messages.clone())
                .map_err(StartError::Thread)?,
            scans: Scans::start(threads, index, messages.clone()).map_err(StartError::Thread)?,
            messages,
            starts: reports.starts.clone(),
            failures: self.ctx.failures.clone(),
            links: reports.links.clone(),
            catalog: self.ctx.catalog.clone(),
            requests: reports.requests.clone(),
            long_beside: threads == Threads::Own,
            faults: self.ctx.config.dev_faults.then(|| self.ctx.faults.clone()),
            backlog_bytes: self.ctx.config.in_flight_bytes,
            batch: opened.batch,
            store: opened.store,
        };
        self.shards.push(run::spawn_shard(loops, driver, queues));
        Ok(())
    }

    /// Starts the tasks of catalog, links, certificates and failures, and begins to accept and to dial. The links
    /// decide when the node serves.
    fn spawn_tasks(
        &mut self,
        channels: Channels,
        (control, ring, secret): (Control, RingPart, Secret),
        starts: Vec<u64>,
        failed: watch::Sender<Option<String>>,
    ) {
        let (ctx, endpoint) = (self.ctx.clone(), self.endpoint.clone());
        let Channels { view, start, catalog, dials, failures, starts: renewed, links: events, requests } = channels;
        let task =
            CatalogTask { control, ring, secret, files: self.dir.control(), view, failures: ctx.failures.clone() };
        self.tasks.spawn(run::supervised("the catalog", ctx.failures.clone(), task.run(ctx.clone(), catalog)));
        self.tasks.spawn(run::publish_start_ids(ctx.clone(), starts, start, renewed));
        self.tasks.spawn(run::watch_failures(failures, failed, endpoint.clone()));
        ctx.report_replaced(ctx.peers().links.disks());
        let accepting = run::accept(ctx.clone(), endpoint.clone());
        self.tasks.spawn(run::supervised("accepting", ctx.failures.clone(), accepting));
        let links = peers::run_links(ctx.clone(), endpoint.clone(), dials, events);
        self.tasks.spawn(run::supervised("the links", ctx.failures.clone(), links));
        let members = members::run_members(ctx.clone(), requests);
        self.tasks.spawn(run::supervised("membership", ctx.failures.clone(), members));
        self.tasks.spawn(peers::reserve_handshakes(ctx.clone(), endpoint.clone()));
        self.tasks.spawn(run::upkeep(ctx.metrics.clone()));
        self.tasks.spawn(run::supervised("the quotas", ctx.failures.clone(), quotas::watch(ctx.clone())));
        let certificates = renewal::watch(ctx.clone(), endpoint);
        self.tasks.spawn(run::supervised("the certificates", ctx.failures.clone(), certificates));
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.ctx.config.name
    }

    /// The UDP address for clients and peers, with the port that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// The TCP address of metrics and health, if configured.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The node's metrics as Prometheus text, as on the admin port's `/metrics`.
    pub async fn metrics(&self) -> String {
        http::figures(&self.ctx).await
    }

    /// Reads the certificate files and uses them for new connections if they have changed. Returns whether they have.
    /// The node also does so by itself, every ten seconds.
    ///
    /// # Errors
    /// Why the new files are not used. The certificates in use stay.
    pub fn reload_certificates(&self) -> Result<bool, String> {
        renewal::reload(&self.ctx, &self.endpoint)
    }

    /// Resolves when the node serves: every other node is connected, or the start's grace is over.
    pub async fn ready(&self) {
        self.ctx.serving.wait().await;
    }

    /// Resolves with the reason when the node cannot continue, such as a failed fsync or a catalog that cannot be
    /// saved. It must then be dropped.
    pub async fn failed(&self) -> String {
        let mut failures = self.failures.clone();
        let failed = failures.wait_for(Option::is_some).await;
        failed.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the node has been stopped".into())
    }

    /// Stops the node. Clients and peers are told, and requests under way may end, for at most `drain_ms`. Then
    /// connections are closed, the journals are synced, and the data directory is marked as cleanly stopped.
    ///
    /// # Errors
    /// [`StopError`] if a shard could not be closed; the next start then treats this as a crash.
    pub async fn stop(mut self) -> Result<(), StopError> {
        // Syncs held back by an injected fault would block the stop forever.
        self.ctx.faults.release();
        if self.failures.borrow().is_none() {
            drain::drain(&self.ctx, &self.endpoint).await;
        }
        self.endpoint.close(CloseCode::SHUTDOWN, "the node is stopping").await;
        self.tasks.shutdown().await;
        self.ctx.aside.ended().await;
        drop(self.shares);
        let (mut problems, mut owes_ends) = (Vec::<String>::new(), false);
        for shard in &self.ctx.shards {
            let (stop, stopped) = oneshot::channel();
            let _ = shard.messages.send(ShardMessage::Stop(stop));
            match stopped.await {
                Ok(shard) => {
                    owes_ends |= shard.owes_ends;
                    problems.extend(shard.closed.err());
                }
                Err(_) => problems.push("a shard has stopped before".into()),
            }
        }
        for shard in self.shards.drain(..) {
            if shard.await.is_err() {
                problems.push("a shard has panicked".into());
            }
        }
        drop(self.maintenance);
        // If a full disk did not take the ends of tenures, the next start must end these tenures. Otherwise every shard
        // has written them by now, and nothing is owed any more.
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

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    limits.first_frame = Some(HELLO_BYTES);
    limits.max_connections = config.max_clients;
    limits.max_new_clients = config.max_new_clients;
    limits.idle_timeout = PEER_IDLE;
    limits.keep_alive = PEER_KEEP_ALIVE;
    limits
}

/// Makes the queues of a shard.
fn shard_queues(config: &Config) -> (ShardHandle, ShardQueues) {
    let (requests_in, requests) = RequestQueue::new(config);
    let small = config.inbox_bytes / SMALL_SHARE;
    let (inbox_in, inbox) = Inbox::new(config.inbox, small.max(1));
    let (large_in, large) = Inbox::new(config.inbox, (config.inbox_bytes - small).max(1));
    let (bulk_in, bulk) = Inbox::new(BULK_INBOX, BULK_INBOX_BYTES);
    let (messages_in, messages) = mpsc::unbounded_channel();
    let handle =
        ShardHandle { requests: requests_in, inbox: inbox_in, large: large_in, bulk: bulk_in, messages: messages_in };
    (handle, ShardQueues { requests, inbox, large, bulk, messages })
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Admin { address, source })
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = self.ctx.catalog_digest.load(Relaxed);
        f.debug_struct("Node").field("name", self.name()).field("catalog", &digest).finish_non_exhaustive()
    }
}
