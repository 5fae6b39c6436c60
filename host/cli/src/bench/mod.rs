//! `bench`: measures a cluster, a Redis server or etcd under load.
//!
//! In reading order: [`args`] has the options, [`load`] runs the clients of [`cluster`], [`redis`] or [`etcd`],
//! [`schedule`] says when operations are due, [`record`] collects them, [`generators`] divides a load among processes,
//! [`cpu`], [`memory`], [`disk`] and [`watch`] measure the machine and the nodes meanwhile, and [`report`] prints the
//! result.

pub(crate) mod args;
mod cluster;
mod cpu;
mod disk;
mod etcd;
mod generators;
mod load;
mod memory;
mod record;
mod redis;
mod report;
mod schedule;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use args::{BenchArgs, Mode, Plan};
use cluster::Writer;
use disk::Probe;
use etcd::Etcd;
use generators::{Generators, LoadTarget};
use load::{Load, LoadClient};
use memory::MemoryWatch;
use record::{Recorder, Share};
use redis::Redis;
use report::{Measured, Report, System};
use schedule::Schedule;
use watch::Baseline;

use rejoin_client::admin::{BucketProps, Durability};
use rejoin_client::{Client, ClientBuilder, ErrorKind, Profile};

use crate::cart;
use crate::connect;
use crate::descriptors;
use crate::dev::wait_connected;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::http;
use crate::local_cluster::LocalNode;
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::ready;
use crate::serve::end_with_parent;
use crate::signals::Signals;

/// The longest time that a node may take until it serves again.
const RESTART_TIMEOUT: Duration = Duration::from_secs(600);
/// How often it is asked.
const RESTART_POLL: Duration = Duration::from_millis(5);

/// Runs the measurement and prints the report.
///
/// # Errors
/// The options cannot be combined, the system cannot be reached, or no operation succeeded.
pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &BenchArgs) -> Result<(), Failure> {
    let plan = Arc::new(Plan::of(args, global)?);
    descriptors::raise();
    if args.generator.is_some() {
        return generate(global, out, args, &plan).await;
    }
    let mut signals = Signals::listen()?;
    let mut processes = args.dev.map(|nodes| Processes::prepare("bench", nodes)).transpose()?;
    let measured = tokio::select! {
        biased;
        () = signals.any() => Err(Failure::new(Exit::Negative, "the run was interrupted")),
        measured = measured(global, args, &plan, processes.as_mut()) => measured,
    };
    if let Some(processes) = &mut processes {
        if measured.is_err() {
            processes.log_tails().iter().for_each(note);
        }
        processes.end().await;
    }
    let measured = measured?;
    let nothing = measured.recorded.operations == 0;
    Report::new(&plan, measured).print(out, &plan)?;
    if nothing { Err(Failure::new(Exit::Retry, "no operation succeeded")) } else { Ok(()) }
}

/// A process of `--processes`: puts its share of the load on the system when it is told to, and hands over what it has
/// recorded.
async fn generate(global: &GlobalArgs, out: Output, args: &BenchArgs, plan: &Arc<Plan>) -> Result<(), Failure> {
    end_with_parent()?;
    let target = BenchTarget::running(global, args)?;
    let clients = target.clients(args, plan).await?;
    generators::wait_for_go(out).await?;
    let (began, load) = begin(plan, clients, Recorder::keeping)?;
    tokio::time::sleep_until(began.into()).await;
    let before = cpu::own();
    let (recorder, ended) = load.ended().await;
    out.json(&recorder.share(ended, cpu::own() - before))
}

/// Starts the load in this process. Returns when the measurement begins.
fn begin(
    plan: &Arc<Plan>,
    clients: Vec<LoadClient>,
    kind: fn(Recorder) -> Recorder,
) -> Result<(Instant, Load), Failure> {
    let schedule = Schedule::start(plan).map_err(|why| Failure::usage(format!("no thread can be started: {why}")))?;
    let (began, schedule) = (schedule.began, Arc::new(schedule));
    let recorder = kind(Recorder::new(began).with_deadline(plan.deadline));
    Ok((began, Load::start(plan, &schedule, clients, recorder)))
}

/// Where the load comes from.
enum Source {
    Here(Vec<LoadClient>),
    Apart(Generators),
}

/// A load under way.
enum Running {
    Here(Load),
    Apart(Generators),
}

impl Source {
    /// Starts the load. Returns when the measurement begins.
    async fn begin(self, plan: &Arc<Plan>) -> Result<(Instant, Running), Failure> {
        match self {
            Self::Here(clients) => {
                let (began, load) = begin(plan, clients, |recorder| recorder)?;
                Ok((began, Running::Here(load)))
            }
            Self::Apart(mut generators) => {
                generators.go().await?;
                Ok((Instant::now() + plan.warm_up, Running::Apart(generators)))
            }
        }
    }
}

/// The measurement, up to the last reply, and with `--restart` up to the end of that.
async fn measured(
    global: &GlobalArgs,
    args: &BenchArgs,
    plan: &Arc<Plan>,
    mut processes: Option<&mut Processes>,
) -> Result<Measured, Failure> {
    let target = match processes.as_deref_mut() {
        Some(processes) => BenchTarget::private(global, processes).await?,
        None => BenchTarget::running(global, args)?,
    };
    if plan.fills_first() {
        note(format!("writing {} keys", plan.keys));
    }
    let source = match args.processes {
        1 => Source::Here(target.clients(args, plan).await?),
        _ => Source::Apart(target.generators(global, args, plan).await?),
    };
    let probe = target.disk.as_deref().map(Probe::start).transpose()?;
    let before = if target.admin.is_empty() { None } else { Some(Baseline::ask(target.admin.clone()).await?) };
    let memory = MemoryWatch::start(&target.pids)?;
    let (began, running) = source.begin(plan).await?;
    let began_unix_ms = unix_ms(began);
    let watch = before.map(|before| before.watch(began));
    // The CPU time of the warm-up is not counted.
    tokio::time::sleep_until(began.into()).await;
    let (client_before, server_before) = (cpu::own(), cpu::of(&target.pids)?);
    let (recorded, client_cpu) = match running {
        Running::Here(load) => {
            let (recorder, ended) = load.ended().await;
            let client_cpu = cpu::own() - client_before;
            (recorder.finish(ended), client_cpu)
        }
        Running::Apart(generators) => Share::merged(&generators.shares().await?),
    };
    let server_cpu = cpu::of(&target.pids)?.saturating_sub(server_before);
    let counters = match watch {
        Some(watch) => Some(watch.end().await?),
        None => None,
    };
    let (memory, syncs) = (memory.end(), probe.map(Probe::end));
    let disk_bytes = processes.as_deref().map(data_bytes);
    let restarted = match processes {
        Some(processes) if args.restart => Some(restart(processes).await?),
        _ => None,
    };
    let system = target.system();
    Ok(Measured {
        system,
        durability: (system == System::Cluster).then(|| args.durability.into()),
        processes: args.processes,
        // Each process has one at least.
        connections: if system == System::Cluster { args.connections.max(args.processes) } else { plan.clients },
        began,
        began_unix_ms,
        recorded,
        client_cpu,
        server_cpu: (!target.pids.is_empty()).then_some(server_cpu),
        counters,
        syncs,
        memory,
        disk_bytes,
        restarted,
    })
}

/// A moment by the wall clock, in milliseconds since 1970.
fn unix_ms(moment: Instant) -> u64 {
    let wall = SystemTime::now() + moment.saturating_duration_since(Instant::now());
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the data of all nodes takes on the disk.
fn data_bytes(processes: &Processes) -> u64 {
    let cluster = &processes.cluster;
    cluster.nodes().iter().map(|node| memory::disk_bytes(&cluster.dir().join(node.name()).join("data"))).sum()
}

/// Kills the first node and starts it again. Returns how long that took, until its health was good.
async fn restart(processes: &mut Processes) -> Result<Duration, Failure> {
    let first = processes.cluster.nodes().first().copied();
    let node = first.ok_or_else(|| Failure::usage("there is no node to restart"))?;
    processes.kill(node).await?;
    let begun = Instant::now();
    processes.start_one(node)?;
    tokio::select! {
        biased;
        ended = processes.one_has_ended() => Err(ended),
        served = serves_again(node, begun) => served,
    }
}

async fn serves_again(node: LocalNode, begun: Instant) -> Result<Duration, Failure> {
    loop {
        match http::get(node.admin, "/health").await {
            Ok(_) => return Ok(begun.elapsed()),
            Err(failure) if begun.elapsed() > RESTART_TIMEOUT => {
                return Err(failure.during("the node does not serve again"));
            }
            Err(_) => tokio::time::sleep(RESTART_POLL).await,
        }
    }
}

/// The measured system, and what else of it is watched.
struct BenchTarget {
    servers: Servers,
    pids: Vec<u32>,
    admin: Vec<SocketAddr>,
    disk: Option<PathBuf>,
}

enum Servers {
    /// With the profile where it is not that of the environment.
    Cluster(Box<ClientBuilder>, Option<PathBuf>),
    Redis(SocketAddr),
    Etcd(Vec<SocketAddr>),
}

impl BenchTarget {
    /// A system that runs already.
    ///
    /// # Errors
    /// It is a cluster, and the profile is missing or invalid.
    fn running(global: &GlobalArgs, args: &BenchArgs) -> Result<Self, Failure> {
        let servers = match args.redis {
            Some(server) => Servers::Redis(server),
            None if !args.etcd.is_empty() => Servers::Etcd(args.etcd.clone()),
            None => Servers::Cluster(Box::new(connect::builder(global)?), global.profile.clone()),
        };
        Ok(Self { servers, pids: args.pid.clone(), admin: args.metrics.clone(), disk: args.disk.clone() })
    }

    /// A private cluster, once its nodes are connected.
    async fn private(global: &GlobalArgs, processes: &mut Processes) -> Result<Self, Failure> {
        let pids = processes.start()?;
        let cluster = processes.cluster.clone();
        tokio::select! {
            biased;
            wait_connected = wait_connected(&cluster) => drop(wait_connected?),
            ended = processes.one_has_ended() => return Err(ended),
        }
        let builder = Profile::load(cluster.profile())?.builder().timeout(global.timeout);
        let admin = cluster.nodes().iter().map(|node| node.admin).collect();
        let servers = Servers::Cluster(Box::new(builder), Some(cluster.profile()));
        Ok(Self { servers, pids, admin, disk: Some(cluster.dir().to_path_buf()) })
    }

    fn system(&self) -> System {
        match self.servers {
            Servers::Cluster(..) => System::Cluster,
            Servers::Redis(_) => System::Redis,
            Servers::Etcd(_) => System::Etcd,
        }
    }

    /// The clients of a load, with their keys written where the load needs that.
    async fn clients(&self, args: &BenchArgs, plan: &Arc<Plan>) -> Result<Vec<LoadClient>, Failure> {
        let clients = match &self.servers {
            Servers::Redis(server) => redis_clients(*server, args, plan).await?,
            Servers::Etcd(members) => etcd_clients(members, plan).await?,
            Servers::Cluster(builder, _) => writers(builder, args, plan).await?,
        };
        if plan.fills_first() { load::fill(plan, clients).await } else { Ok(clients) }
    }

    /// Processes that have such clients. The bucket is made here, so that they do not make it at the same time.
    async fn generators(&self, global: &GlobalArgs, args: &BenchArgs, plan: &Plan) -> Result<Generators, Failure> {
        let Servers::Cluster(builder, profile) = &self.servers else {
            return Generators::start(global, args, plan, &LoadTarget::Other).await;
        };
        let bucket = bucket(&(**builder).clone().connect().await?, args, plan.mode).await?;
        let profile = profile.as_ref().map(|profile| profile.as_os_str().to_owned());
        Generators::start(global, args, plan, &LoadTarget::Cluster { bucket: &bucket, profile }).await
    }
}

/// The clients of a cluster. They do not retry, so that every failure is counted. In a closed loop they wait while a
/// node is overloaded: such a client goes as fast as the servers do, and has no more to offer.
async fn writers(builder: &ClientBuilder, args: &BenchArgs, plan: &Plan) -> Result<Vec<LoadClient>, Failure> {
    let mut shared: Vec<Client> = Vec::new();
    for _ in 0..args.connections {
        shared.push(builder.clone().attempts(1).backpressure(plan.rate.is_none()).connect().await?);
    }
    let first = shared.first().ok_or_else(|| Failure::usage("a run needs a connection"))?;
    let bucket = bucket(first, args, plan.mode).await?;
    let mut clients = Vec::new();
    for (number, client) in (0..plan.clients).zip(shared.iter().cycle()) {
        clients.push(LoadClient::Rejoin(Writer::new(client.bucket(&bucket)?, number, plan)));
    }
    Ok(clients)
}

async fn redis_clients(server: SocketAddr, args: &BenchArgs, plan: &Plan) -> Result<Vec<LoadClient>, Failure> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let redis = Redis::connect(server, args.wait, plan).await;
        let redis = redis.map_err(|why| Failure::new(Exit::Unreachable, format!("Redis at {server}: {why}")))?;
        clients.push(LoadClient::Redis(redis, number));
    }
    Ok(clients)
}

async fn etcd_clients(members: &[SocketAddr], plan: &Plan) -> Result<Vec<LoadClient>, Failure> {
    let mut clients = Vec::new();
    for (number, member) in (0..plan.clients).zip(members.iter().cycle()) {
        let etcd = Etcd::connect(*member, plan).await;
        let etcd = etcd.map_err(|why| Failure::new(Exit::Unreachable, format!("etcd at {member}: {why}")))?;
        clients.push(LoadClient::Etcd(etcd, number));
    }
    Ok(clients)
}

/// The bucket of the run, made if it does not exist.
async fn bucket(client: &Client, args: &BenchArgs, mode: Mode) -> Result<String, Failure> {
    let durability = Durability::from(args.durability);
    let shape = if mode == Mode::Conflict { "conflict" } else { "plain" };
    let named = args.bucket.clone();
    let name = named
        .unwrap_or_else(|| format!("bench-{shape}-{}", if durability == Durability::Fsync { "fsync" } else { "os" }));
    let admin = client.admin();
    match admin.bucket(&name).await {
        Ok(there)
            if there.props.durability == durability && there.props.plugin.is_some() == (mode == Mode::Conflict) =>
        {
            return Ok(name);
        }
        Ok(_) => {
            let what = format!(
                "bucket {name} does not fit this run: its durability differs, or it has a plugin where the run needs \
                    none, or none where it needs one"
            );
            return Err(Failure::usage(what).next("name another with --bucket, or leave it out to have one made"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let nodes = admin.status().await?.nodes.len();
    let mut props = BucketProps { durability, n: u8::try_from(nodes.min(3)).unwrap_or(3), ..BucketProps::default() };
    if mode == Mode::Conflict {
        props.plugin = Some(admin.push_plugin(cart::BUCKET, ready::CART.component()?).await?.activation());
    }
    admin.create_bucket(&name, props).await?;
    Ok(name)
}
