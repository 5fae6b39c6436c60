//! A simulated cluster: each node is a host with its own virtual clock. A script observes it and injects faults.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes, Client, ClientBuilder, Tls};
use rejoin_node::clock::Clock;
use rejoin_node::platform::{Compiling, Threads};
use rejoin_node::{Config, Node, Platform};
use rejoin_wire::{Endpoint, Identity, Limits};

use crate::disk::PageCache;
use crate::{Files, SimNetwork};

/// The port of every node.
const PORT: u16 = 7400;
/// The name of the script's host.
pub const SCRIPT: &str = "script";
/// The wall clock at the begin of a simulation: the first of January 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// The longest simulation, in virtual time.
const MAX_DURATION: Duration = Duration::from_secs(600);
/// The datagrams that a host takes in one tick of a millisecond. Further ones are lost, as with a full socket buffer.
const SOCKET_QUEUE: usize = 2048;

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed of all random numbers, except those of TLS.
    pub seed: u64,
    /// The names of the nodes.
    pub nodes: &'static [&'static str],
    /// More lines of their configuration.
    pub more: &'static str,
    /// The shortest and the longest latency of a datagram, in milliseconds.
    pub latency_ms: (u64, u64),
}

impl Default for Setup {
    fn default() -> Self {
        Self { seed: 1, nodes: &["n1", "n2", "n3"], more: "", latency_ms: (1, 3) }
    }
}

/// A script's request to the simulation.
#[derive(Clone, Copy, Debug)]
enum Order {
    Kill(&'static str),
    Start(&'static str),
}

/// A script's access to the simulation. Clones share it.
#[derive(Clone)]
pub struct World {
    /// The cluster's files.
    pub files: Arc<Files>,
    /// Its network.
    pub network: SimNetwork,
    data: std::path::PathBuf,
    addresses: Rc<Vec<(&'static str, SocketAddr)>>,
    running: Rc<RefCell<BTreeMap<&'static str, Rc<Node>>>>,
    orders: Rc<RefCell<VecDeque<Order>>>,
    seeds: Rc<RefCell<Xoshiro256PlusPlus>>,
}

/// Runs a script beside the nodes of a cluster, until it ends.
///
/// # Panics
/// If the script panics, a node fails, or the simulation takes too long.
pub fn simulate<F: Future<Output = ()> + 'static>(setup: &Setup, script: impl FnOnce(World) -> F) {
    simulate_with(setup, Arc::new(Files::create(setup.nodes)), &[], script);
}

/// A program of the test that runs on a node's host in place of the node.
pub type StandIn = (&'static str, fn(World, &'static str) -> Pin<Box<dyn Future<Output = ()>>>);

/// As [`simulate`], with files that exist already, and with programs in place of nodes.
///
/// # Panics
/// As [`simulate`].
pub fn simulate_with<F: Future<Output = ()> + 'static>(
    setup: &Setup,
    files: Arc<Files>,
    stand_ins: &[StandIn],
    script: impl FnOnce(World) -> F,
) {
    let mut sim = turmoil::Builder::new()
        .rng_seed(setup.seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(MAX_DURATION)
        .min_message_latency(Duration::from_millis(setup.latency_ms.0))
        .max_message_latency(Duration::from_millis(setup.latency_ms.1))
        .udp_capacity(SOCKET_QUEUE)
        .build();
    // The data does not belong to `files`, which may serve another simulation after this one.
    let data = tempfile::tempdir().expect("a folder");
    let addresses = setup.nodes.iter().map(|node| (*node, SocketAddr::new(sim.lookup(*node), PORT))).collect();
    let world = World {
        files,
        network: SimNetwork::new(setup.seed),
        data: data.path().to_path_buf(),
        addresses: Rc::new(addresses),
        running: Rc::default(),
        orders: Rc::default(),
        seeds: Rc::new(RefCell::new(Xoshiro256PlusPlus::seed_from_u64(setup.seed))),
    };
    for &node in setup.nodes {
        let (world, config) = (world.clone(), world.files.config(node, data.path(), &world.addresses, setup.more));
        match stand_ins.iter().find(|(name, _)| *name == node) {
            Some((_, stand_in)) => {
                let stand_in = *stand_in;
                sim.host(node, move || {
                    let playing = stand_in(world.clone(), node);
                    async move {
                        playing.await;
                        Ok(())
                    }
                });
            }
            None => sim.host(node, move || live(world.clone(), node, config.clone())),
        }
    }
    let playing = script(world.clone());
    sim.client(SCRIPT, async move {
        playing.await;
        Ok(())
    });
    loop {
        match sim.step() {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => panic!("at {:?}, with seed {}: {error}", sim.elapsed(), setup.seed),
        }
        while let Some(order) = { world.orders.borrow_mut().pop_front() } {
            match order {
                Order::Kill(node) => {
                    world.running.borrow_mut().remove(node);
                    sim.crash(node);
                }
                Order::Start(node) => sim.bounce(node),
            }
        }
    }
}

/// Runs a node on its host. Ends only if the node fails.
async fn live(world: World, node: &'static str, config: Config) -> turmoil::Result {
    let platform = Platform {
        clock: Clock::with_wall(wall_ms),
        disk: Arc::new(PageCache),
        network: Arc::new(world.network.clone()),
        threads: Threads::Shared,
        compiling: Compiling::Here,
        seed: Some(world.seed()),
    };
    let started = Rc::new(Node::start_on(platform, config).await?);
    world.running.borrow_mut().insert(node, started.clone());
    Err(format!("{node}: {}", started.failed().await).into())
}

/// The simulation's wall clock, in milliseconds since 1970.
fn wall_ms() -> u64 {
    turmoil::since_epoch().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl World {
    /// The next seed.
    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.seeds.borrow_mut().fill_bytes(&mut seed);
        seed
    }

    /// The virtual time since the begin.
    #[must_use]
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }

    /// A node's address.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn address(&self, node: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| *name == node).expect("a node of the cluster").1
    }

    /// A node's data directory, or another folder beside those.
    #[must_use]
    pub fn data(&self, node: &str) -> std::path::PathBuf {
        self.data.join(node)
    }

    /// A running node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn node(&self, node: &str) -> Rc<Node> {
        self.running.borrow().get(node).expect("it runs").clone()
    }

    /// The sum of a node's metrics of that name.
    ///
    /// # Panics
    /// If it has none.
    pub async fn figure(&self, node: &str, figure: &str) -> f64 {
        let text = self.node(node).metrics().await;
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(figure));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        assert!(!values.is_empty(), "{node} has no figure {figure}:\n{text}");
        values.iter().sum()
    }

    /// Kills a node. It sends nothing more, and nothing answers at its address.
    pub fn kill(&self, node: &'static str) {
        self.orders.borrow_mut().push_back(Order::Kill(node));
    }

    /// Starts a node that was killed.
    pub fn start(&self, node: &'static str) {
        self.orders.borrow_mut().push_back(Order::Start(node));
    }

    /// Cuts the link between two hosts: all their datagrams are lost.
    pub fn cut(&self, a: &str, b: &str) {
        turmoil::partition(a, b);
    }

    /// Heals a cut link.
    pub fn heal(&self, a: &str, b: &str) {
        turmoil::repair(a, b);
    }

    /// The builder of a client that knows all nodes.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .seeds(self.addresses.iter().map(|(_, address)| address.to_string()))
            .tls(Tls::pem(self.files.ca_pem()))
            .token(self.files.token())
            .network(Arc::new(self.network.clone()), self.seed())
    }

    /// The builder of a client that asks one node only.
    pub fn pinned_builder(&self, node: &str) -> ClientBuilder {
        self.builder().seeds([self.address(node).to_string()]).pinned()
    }

    /// Connects, and tries again until a node admits the client.
    pub async fn connect_eventually(&self, builder: impl Fn() -> ClientBuilder) -> Client {
        loop {
            // The end of the simulation is the deadline.
            match builder().connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// A client that sends each request to an owner of its key.
    pub async fn client(&self) -> Client {
        self.connect_eventually(|| self.builder()).await
    }

    /// A client that asks one node only.
    pub async fn pinned(&self, node: &str) -> Client {
        self.connect_eventually(|| self.pinned_builder(node)).await
    }

    /// Creates the bucket `plain`, with the default properties and no plugin.
    ///
    /// # Panics
    /// If it exists already.
    pub async fn plain(&self) -> Bucket<Bytes> {
        let client = self.client().await;
        client.admin().create_bucket("plain", BucketProps::default()).await.expect("it is new");
        client.bucket("plain").expect("a good name")
    }

    /// The bucket `plain`, of a client that asks one node only.
    ///
    /// # Panics
    /// Never.
    pub async fn pinned_plain(&self, node: &str) -> Bucket<Bytes> {
        self.pinned(node).await.bucket("plain").expect("a good name")
    }

    /// An endpoint on the caller's host, for tests that send frames themselves.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn endpoint(&self, port: u16, identity: Identity) -> Endpoint {
        let any = SocketAddr::from(([0, 0, 0, 0], port));
        Endpoint::bind_on(&self.network, Some(self.seed()), any, identity, Limits::default()).expect("a free port")
    }
}
