//! `bench`: puts a load on a cluster, or on a Redis server, and says what it came to.
//!
//! In reading order: [`args`] is what can be asked; [`load`] lets the clients of [`cluster`] or [`redis`] go as
//! [`pace`] says; [`record`] takes every operation; [`cpu`], [`disk`] and [`watch`] look at the machine and the nodes
//! meanwhile; [`report`] puts it together.

mod args;
mod cluster;
mod cpu;
mod disk;
mod load;
mod pace;
mod record;
mod redis;
mod report;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use args::{Mode, Plan};
use cluster::Writer;
use disk::Probe;
use load::Load;
use pace::Pace;
use redis::Redis;
use report::{Measured, Report, System};
use watch::Before;

use rejoin_client::admin::{BucketProps, Durability};
use rejoin_client::{Client, ClientBuilder, ErrorKind, Profile};

use crate::args::Global;
use crate::cart;
use crate::connect;
use crate::dev::together;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note};
use crate::processes::Processes;
use crate::signals::Stop;

pub(crate) use args::BenchArgs;

/// Measures what was asked for, and prints it.
///
/// # Errors
/// What was asked for does not go together, the system cannot be reached, or not one operation was done.
pub(crate) async fn run(global: &Global, out: Output, args: &BenchArgs) -> Result<(), Failure> {
    let plan = Arc::new(Plan::of(args, global)?);
    let mut stop = Stop::listen()?;
    let mut processes = args.dev.map(|nodes| Processes::prepare("bench", nodes)).transpose()?;
    let measured = tokio::select! {
        biased;
        () = stop.asked() => Err(Failure::new(Exit::Negative, "the run was interrupted")),
        measured = measured(global, args, &plan, processes.as_mut()) => measured,
    };
    if let Some(processes) = &mut processes {
        if measured.is_err() {
            processes.last_words().iter().for_each(note);
        }
        processes.end().await;
    }
    let measured = measured?;
    let nothing = measured.recorded.operations == 0;
    Report::new(&plan, measured).print(out, &plan)?;
    if nothing { Err(Failure::new(Exit::Retry, "not one operation was done")) } else { Ok(()) }
}

/// Everything up to the last answer.
async fn measured(global: &Global, args: &BenchArgs, plan: &Arc<Plan>, processes: Option<&mut Processes>) -> Result<Measured, Failure> {
    let scene = match (args.redis, processes) {
        (Some(server), _) => Scene::redis(args, server),
        (None, None) => Scene::of_profile(args, connect::builder(global)?),
        (None, Some(processes)) => Scene::private(global, processes).await?,
    };
    let (mut clients, system) = match &scene.servers {
        Servers::Redis(server) => (redis_clients(*server, args, plan).await?, System::Redis),
        Servers::Cluster(builder) => (writers(builder, args, plan).await?, System::Cluster),
    };
    if plan.fills_first() {
        note(format!("writing {} keys", plan.keys));
        clients = load::fill(plan, clients).await?;
    }
    let probe = scene.disk.as_deref().map(Probe::start).transpose()?;
    let before = if scene.admin.is_empty() { None } else { Some(Before::ask(scene.admin.clone()).await?) };
    let pace = Pace::start(plan).map_err(|why| Failure::usage(format!("no thread can be started: {why}")))?;
    let (began, pace) = (pace.began, Arc::new(pace));
    let watch = before.map(|before| before.watch(began));
    let load = Load::start(plan, &pace, clients);
    // What was spent on the warm-up does not count.
    tokio::time::sleep_until(began.into()).await;
    let (client_before, server_before) = (cpu::own(), cpu::of(&scene.pids)?);
    let (recorder, ended) = load.ended().await;
    let (client_cpu, server_cpu) = (cpu::own() - client_before, cpu::of(&scene.pids)?.saturating_sub(server_before));
    let marks = match watch {
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
        server_cpu: (!scene.pids.is_empty()).then_some(server_cpu),
        marks,
        syncs: probe.map(Probe::end),
    })
}

/// Who is measured, and where that can be watched.
struct Scene {
    servers: Servers,
    pids: Vec<u32>,
    admin: Vec<SocketAddr>,
    disk: Option<PathBuf>,
}

enum Servers {
    Cluster(Box<ClientBuilder>),
    Redis(SocketAddr),
}

impl Scene {
    fn redis(args: &BenchArgs, server: SocketAddr) -> Self {
        Self { servers: Servers::Redis(server), pids: args.pid.clone(), admin: Vec::new(), disk: args.disk.clone() }
    }

    fn of_profile(args: &BenchArgs, builder: ClientBuilder) -> Self {
        let servers = Servers::Cluster(Box::new(builder));
        Self { servers, pids: args.pid.clone(), admin: args.metrics.clone(), disk: args.disk.clone() }
    }

    /// A cluster of this run's own, once its nodes have found each other.
    async fn private(global: &Global, processes: &mut Processes) -> Result<Self, Failure> {
        let pids = processes.start()?;
        let cluster = processes.cluster.clone();
        tokio::select! {
            biased;
            together = together(&cluster) => drop(together?),
            ended = processes.one_has_ended() => return Err(ended),
        }
        let builder = Profile::load(cluster.profile())?.builder().timeout(global.timeout);
        let admin = cluster.seats().iter().map(|seat| seat.admin).collect();
        Ok(Self { servers: Servers::Cluster(Box::new(builder)), pids, admin, disk: Some(cluster.dir().to_path_buf()) })
    }
}

/// The clients of a cluster. None of them tries twice: what fails is to be seen.
async fn writers(builder: &ClientBuilder, args: &BenchArgs, plan: &Plan) -> Result<Vec<load::Client>, Failure> {
    let mut shared: Vec<Client> = Vec::new();
    for _ in 0..args.connections {
        shared.push(builder.clone().attempts(1).connect().await?);
    }
    let first = shared.first().ok_or_else(|| Failure::usage("a run needs a connection"))?;
    let bucket = bucket(first, args, plan.mode).await?;
    let mut clients = Vec::new();
    for (number, client) in (0..plan.clients).zip(shared.iter().cycle()) {
        clients.push(load::Client::Rejoin(Writer::new(client.bucket(&bucket)?, number, plan)));
    }
    Ok(clients)
}

async fn redis_clients(server: SocketAddr, args: &BenchArgs, plan: &Plan) -> Result<Vec<load::Client>, Failure> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let redis = Redis::connect(server, args.wait, plan).await;
        let redis = redis.map_err(|why| Failure::new(Exit::Unreachable, format!("Redis at {server}: {why}")))?;
        clients.push(load::Client::Redis(redis, number));
    }
    Ok(clients)
}

/// The bucket of the run, made if it is not there.
async fn bucket(client: &Client, args: &BenchArgs, mode: Mode) -> Result<String, Failure> {
    let durability = Durability::from(args.durability);
    let shape = if mode == Mode::Conflict { "conflict" } else { "plain" };
    let named = args.bucket.clone();
    let name = named.unwrap_or_else(|| format!("bench-{shape}-{}", if durability == Durability::Fsync { "fsync" } else { "os" }));
    let admin = client.admin();
    match admin.bucket(&name).await {
        Ok(there) if there.props.durability == durability && there.props.plugin.is_some() == (mode == Mode::Conflict) => return Ok(name),
        Ok(_) => {
            let what = format!("bucket {name} has another durability, or a plugin where this run has none, or none where it needs one");
            return Err(Failure::usage(what).next("name another with --bucket, or leave it out to have one made"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let nodes = admin.status().await?.nodes.len();
    let mut props = BucketProps { durability, n: u8::try_from(nodes.min(3)).unwrap_or(3), ..BucketProps::default() };
    if mode == Mode::Conflict {
        props.plugin = Some(admin.push_plugin(cart::BUCKET, cart::component()?).await?.activation());
    }
    admin.create_bucket(&name, props).await?;
    Ok(name)
}
