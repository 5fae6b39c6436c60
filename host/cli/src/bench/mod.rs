//! `bench`: measures a cluster, or a Redis server, under load.
//!
//! In reading order: [`args`] has the options, [`load`] runs the clients of [`cluster`] or [`redis`], [`schedule`] says
//! when operations are due, [`record`] collects them, [`cpu`], [`disk`] and [`watch`] measure the machine and the nodes
//! meanwhile, and [`report`] prints the result.

pub(crate) mod args;
mod cluster;
mod cpu;
mod disk;
mod load;
mod record;
mod redis;
mod report;
mod schedule;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use args::{BenchArgs, Mode, Plan};
use cluster::Writer;
use disk::Probe;
use load::Load;
use redis::Redis;
use report::{Measured, Report, System};
use schedule::Schedule;
use watch::Baseline;

use rejoin_client::admin::{BucketProps, Durability};
use rejoin_client::{Client, ClientBuilder, ErrorKind, Profile};

use crate::cart;
use crate::connect;
use crate::dev::wait_connected;
use crate::failure::{Exit, Failure};
use crate::global::GlobalArgs;
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::ready;
use crate::signals::Signals;

/// Runs the measurement and prints the report.
///
/// # Errors
/// The options cannot be combined, the system cannot be reached, or no operation succeeded.
pub(crate) async fn run(global: &GlobalArgs, out: Output, args: &BenchArgs) -> Result<(), Failure> {
    let plan = Arc::new(Plan::of(args, global)?);
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

/// The measurement, up to the last reply.
async fn measured(
    global: &GlobalArgs,
    args: &BenchArgs,
    plan: &Arc<Plan>,
    processes: Option<&mut Processes>,
) -> Result<Measured, Failure> {
    let target = match (args.redis, processes) {
        (Some(server), _) => BenchTarget::redis(args, server),
        (None, None) => BenchTarget::of_profile(args, connect::builder(global)?),
        (None, Some(processes)) => BenchTarget::private(global, processes).await?,
    };
    let (mut clients, system) = match &target.servers {
        Servers::Redis(server) => (redis_clients(*server, args, plan).await?, System::Redis),
        Servers::Cluster(builder) => (writers(builder, args, plan).await?, System::Cluster),
    };
    if plan.fills_first() {
        note(format!("writing {} keys", plan.keys));
        clients = load::fill(plan, clients).await?;
    }
    let probe = target.disk.as_deref().map(Probe::start).transpose()?;
    let before = if target.admin.is_empty() { None } else { Some(Baseline::ask(target.admin.clone()).await?) };
    let schedule = Schedule::start(plan).map_err(|why| Failure::usage(format!("no thread can be started: {why}")))?;
    let (began, schedule) = (schedule.began, Arc::new(schedule));
    let watch = before.map(|before| before.watch(began));
    let load = Load::start(plan, &schedule, clients);
    // The CPU time of the warm-up is not counted.
    tokio::time::sleep_until(began.into()).await;
    let (client_before, server_before) = (cpu::own(), cpu::of(&target.pids)?);
    let (recorder, ended) = load.ended().await;
    let (client_cpu, server_cpu) = (cpu::own() - client_before, cpu::of(&target.pids)?.saturating_sub(server_before));
    let counters = match watch {
        Some(watch) => Some(watch.end().await?),
        None => None,
    };
    Ok(Measured {
        system,
        durability: (system == System::Cluster).then(|| args.durability.into()),
        connections: if system == System::Cluster { args.connections } else { plan.clients },
        began,
        recorded: recorder.finish(ended),
        client_cpu,
        server_cpu: (!target.pids.is_empty()).then_some(server_cpu),
        counters,
        syncs: probe.map(Probe::end),
    })
}

/// The measured system, and what else of it is watched.
struct BenchTarget {
    servers: Servers,
    pids: Vec<u32>,
    admin: Vec<SocketAddr>,
    disk: Option<PathBuf>,
}

enum Servers {
    Cluster(Box<ClientBuilder>),
    Redis(SocketAddr),
}

impl BenchTarget {
    fn redis(args: &BenchArgs, server: SocketAddr) -> Self {
        Self { servers: Servers::Redis(server), pids: args.pid.clone(), admin: Vec::new(), disk: args.disk.clone() }
    }

    fn of_profile(args: &BenchArgs, builder: ClientBuilder) -> Self {
        let servers = Servers::Cluster(Box::new(builder));
        Self { servers, pids: args.pid.clone(), admin: args.metrics.clone(), disk: args.disk.clone() }
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
        Ok(Self { servers: Servers::Cluster(Box::new(builder)), pids, admin, disk: Some(cluster.dir().to_path_buf()) })
    }
}

/// The clients of a cluster. They do not retry, so that every failure is counted.
async fn writers(builder: &ClientBuilder, args: &BenchArgs, plan: &Plan) -> Result<Vec<load::LoadClient>, Failure> {
    let mut shared: Vec<Client> = Vec::new();
    for _ in 0..args.connections {
        shared.push(builder.clone().attempts(1).connect().await?);
    }
    let first = shared.first().ok_or_else(|| Failure::usage("a run needs a connection"))?;
    let bucket = bucket(first, args, plan.mode).await?;
    let mut clients = Vec::new();
    for (number, client) in (0..plan.clients).zip(shared.iter().cycle()) {
        clients.push(load::LoadClient::Rejoin(Writer::new(client.bucket(&bucket)?, number, plan)));
    }
    Ok(clients)
}

async fn redis_clients(server: SocketAddr, args: &BenchArgs, plan: &Plan) -> Result<Vec<load::LoadClient>, Failure> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let redis = Redis::connect(server, args.wait, plan).await;
        let redis = redis.map_err(|why| Failure::new(Exit::Unreachable, format!("Redis at {server}: {why}")))?;
        clients.push(load::LoadClient::Redis(redis, number));
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
