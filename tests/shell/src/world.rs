//! A simulated cluster: each node a host with its own virtual clock, and a script that looks on and meddles.

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
use rejoin_node::loops::Loops;
use rejoin_node::platform::{Compiling, Threads};
use rejoin_node::{Config, Node, Platform};
use rejoin_wire::{Endpoint, Identity, Limits};

use crate::disk::PageCache;
use crate::{Files, SimNetwork};

/// Where the nodes listen.
const PORT: u16 = 7400;
/// The host of the script.
pub const SCRIPT: &str = "script";
/// When a simulation begins: the first of January 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// A simulation that has not ended by then never will.
const LONGEST: Duration = Duration::from_secs(600);
/// Datagrams that a host takes in one tick of a millisecond; further ones are lost, as those that a kernel has no room
/// for.
const SOCKET_QUEUE: usize = 2048;

/// What a simulation is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that chance has a part in.
    pub seed: u64,
    /// The nodes.
    pub nodes: &'static [&'static str],
    /// More lines of their configuration.
    pub more: &'static str,
    /// The shortest and the longest way of a datagram, in milliseconds.
    pub latency_ms: (u64, u64),
}

impl Default for Setup {
    fn default() -> Self {
        Self { seed: 1, nodes: &["n1", "n2", "n3"], more: "", latency_ms: (1, 3) }
    }
}

/// What a script asks of the simulation itself.
#[derive(Clone, Copy, Debug)]
enum Order {
    Kill(&'static str),
    Start(&'static str),
}

/// What a script has in hand. Clones mean the same simulation.
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
/// If the script does, or a node cannot go on, or virtual time runs out.
pub fn simulate<F: Future<Output = ()> + 'static>(setup: &Setup, script: impl FnOnce(World) -> F) {
    simulate_with(setup, Arc::new(Files::create(setup.nodes)), &[], script);
}

/// A node's place taken by a program of the test's own.
pub type Impostor = (&'static str, fn(World, &'static str) -> Pin<Box<dyn Future<Output = ()>>>);

/// As [`simulate`], with files that were made before, and with impostors.
///
/// # Panics
/// As [`simulate`].
pub fn simulate_with<F: Future<Output = ()> + 'static>(
    setup: &Setup,
    files: Arc<Files>,
    impostors: &[Impostor],
    script: impl FnOnce(World) -> F,
) {
    let mut sim = turmoil::Builder::new()
        .rng_seed(setup.seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(LONGEST)
        .min_message_latency(Duration::from_millis(setup.latency_ms.0))
        .max_message_latency(Duration::from_millis(setup.latency_ms.1))
        .udp_capacity(SOCKET_QUEUE)
        .build();
    // Data of this simulation's own: the files may serve another one after it.
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
        match impostors.iter().find(|(name, _)| *name == node) {
            Some((_, impostor)) => {
                let impostor = *impostor;
                sim.host(node, move || {
                    let playing = impostor(world.clone(), node);
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

/// A node's host: starts the node, and ends only if the node cannot go on.
async fn live(world: World, node: &'static str, config: Config) -> turmoil::Result {
    let platform = Platform {
        clock: Clock::with_wall(wall_ms),
        disk: Arc::new(PageCache),
        network: Arc::new(world.network.clone()),
        threads: Threads::Shared,
        loops: Loops::current(),
        compiling: Compiling::Here,
        seed: Some(world.seed()),
    };
    let started = Rc::new(Node::start_on(platform, config).await?);
    world.running.borrow_mut().insert(node, started.clone());
    Err(format!("{node}: {}", started.failed().await).into())
}

/// Milliseconds since 1970 in the simulation.
fn wall_ms() -> u64 {
    turmoil::since_epoch().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl World {
    /// A seed that nobody else has.
    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.seeds.borrow_mut().fill_bytes(&mut seed);
        seed
    }

    /// How long the simulation has lasted.
    #[must_use]
    pub fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_default()
    }

    /// Where a node listens.
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

    /// A node that runs.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn node(&self, node: &str) -> Rc<Node> {
        self.running.borrow().get(node).expect("it runs").clone()
    }

    /// One of a node's figures.
    ///
    /// # Panics
    /// If it has none of that name.
    pub async fn figure(&self, node: &str, figure: &str) -> f64 {
        let text = self.node(node).metrics().await;
        let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(figure));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        assert!(!values.is_empty(), "{node} has no figure {figure}:\n{text}");
        values.iter().sum()
    }

    /// Kills a node: nothing of it says a word any more, and its address is nobody's.
    pub fn kill(&self, node: &'static str) {
        self.orders.borrow_mut().push_back(Order::Kill(node));
    }

    /// Starts a node that was killed.
    pub fn start(&self, node: &'static str) {
        self.orders.borrow_mut().push_back(Order::Start(node));
    }

    /// Loses whatever these two send each other.
    pub fn cut(&self, a: &str, b: &str) {
        turmoil::partition(a, b);
    }

    /// Ends a cut.
    pub fn heal(&self, a: &str, b: &str) {
        turmoil::repair(a, b);
    }

    /// What a client is made with that knows all nodes.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .seeds(self.addresses.iter().map(|(_, address)| address.to_string()))
            .tls(Tls::pem(self.files.ca_pem()))
            .token(self.files.token())
            .network(Arc::new(self.network.clone()), self.seed())
    }

    /// What a client is made with that only asks one node.
    pub fn pinned_builder(&self, node: &str) -> ClientBuilder {
        self.builder().seeds([self.address(node).to_string()]).pinned()
    }

    /// A client, as soon as a node lets it in.
    pub async fn patiently(&self, builder: impl Fn() -> ClientBuilder) -> Client {
        loop {
            // The simulation's end is the deadline.
            match builder().connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// A client that goes to the owners.
    pub async fn client(&self) -> Client {
        self.patiently(|| self.builder()).await
    }

    /// A client that only asks one node.
    pub async fn pinned(&self, node: &str) -> Client {
        self.patiently(|| self.pinned_builder(node)).await
    }

    /// The bucket `plain`, made now, with the defaults of a bucket and no plugin.
    ///
    /// # Panics
    /// If it is there already.
    pub async fn plain(&self) -> Bucket<Bytes> {
        let client = self.client().await;
        client.admin().create_bucket("plain", BucketProps::default()).await.expect("it is new");
        client.bucket("plain").expect("a good name")
    }

    /// The bucket `plain` as one node has it.
    ///
    /// # Panics
    /// Never.
    pub async fn pinned_plain(&self, node: &str) -> Bucket<Bytes> {
        self.pinned(node).await.bucket("plain").expect("a good name")
    }

    /// A bare endpoint on this host, for who speaks frames.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn endpoint(&self, port: u16, identity: Identity) -> Endpoint {
        let any = SocketAddr::from(([0, 0, 0, 0], port));
        Endpoint::bind_on(&self.network, Some(self.seed()), any, identity, Limits::default()).expect("a free port")
    }
}
