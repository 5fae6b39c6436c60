//! `dev`: a whole cluster in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rejoin_client::Client;
use rejoin_client::admin::PluginInfo;
use rejoin_node::{Config, Node};

use crate::args::DevArgs;
use crate::cart;
use crate::cluster::{Cluster, Seat};
use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::output::{Output, note};
use crate::serve::log;
use crate::signals::Stop;
use crate::verbs::status::ailment;

/// What a directory of ours says of itself.
const MARK: &str = "dev.toml";
const ADMIN_PORTS: u16 = 100;
/// How long the nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shape of the cluster in a directory. It is kept with the data: nodes know each other by address.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Shape {
    nodes: u8,
    base_port: u16,
}

/// What `--json` prints once the cluster serves.
#[derive(Serialize, Debug)]
struct Ready {
    profile: PathBuf,
    nodes: Vec<ReadyNode>,
    bucket: &'static str,
    plugin: String,
}

#[derive(Serialize, Debug)]
struct ReadyNode {
    name: String,
    address: SocketAddr,
    admin: SocketAddr,
}

/// A directory that goes when this does, if nobody asked to keep it.
struct Home {
    dir: PathBuf,
    kept: bool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.kept
            && let Err(why) = std::fs::remove_dir_all(&self.dir)
        {
            note(format!("{} could not be removed: {why}", self.dir.display()));
        }
    }
}

pub(crate) async fn run(out: Output, args: &DevArgs, talk_in_color: bool) -> Result<(), Failure> {
    log(out.json, talk_in_color, "warn");
    descriptors::raise();
    let mut stop = Stop::listen()?;
    let (home, shape) = home(args)?;
    let cluster = Cluster::new(home.dir.clone(), seats(shape));
    cluster.write()?;
    let mut nodes = Nodes::default();
    let served = tokio::select! {
        biased;
        () = stop.asked() => Ok(()),
        served = serve(out, &cluster, &home, &mut nodes) => served,
    };
    note(if home.kept { "stopping" } else { "stopping, and removing what was made" });
    nodes.stop().await;
    served
}

/// Starts everything, says what to try, and returns when a node has failed.
async fn serve(out: Output, cluster: &Cluster, home: &Home, nodes: &mut Nodes) -> Result<(), Failure> {
    for seat in cluster.seats() {
        nodes.start(&cluster.config(*seat)).await?;
    }
    let client = together(cluster).await?;
    let copies = u8::try_from(cluster.seats().len().min(3)).unwrap_or(3);
    let plugin = cart::set_up(&client, copies).await?;
    if out.json {
        let node = |seat: &Seat| ReadyNode { name: seat.name(), address: seat.address, admin: seat.admin };
        let nodes = cluster.seats().iter().map(node).collect();
        out.json(&Ready { profile: cluster.profile(), nodes, bucket: cart::BUCKET, plugin: plugin.digest.to_string() })?;
    } else {
        out.line(invitation(out, cluster, &plugin, home.kept))?;
    }
    Err(nodes.failed().await)
}

/// A client of the cluster, once every node sees every other.
pub(crate) async fn together(cluster: &Cluster) -> Result<Client, Failure> {
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut first = None;
    for seat in cluster.seats() {
        let client = loop {
            let missing = match alone(cluster, *seat).await {
                Ok((client, None)) => break client,
                Ok((_, Some(ailment))) => Failure::new(Exit::Retry, ailment),
                Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Retry) => failure,
                Err(failure) => return Err(failure),
            };
            if tokio::time::Instant::now() >= end {
                return Err(missing.during("the nodes do not find each other"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        first.get_or_insert(client);
    }
    first.ok_or_else(|| Failure::usage("a cluster needs a node"))
}

/// A client of one node, and what that node misses in the cluster.
async fn alone(cluster: &Cluster, seat: Seat) -> Result<(Client, Option<String>), Failure> {
    let profile = rejoin_client::Profile::load(cluster.profile())?;
    let client = profile.builder().seeds([seat.address.to_string()]).connect().await?;
    let ailment = ailment(&client.admin().status().await?);
    Ok((client, ailment))
}

/// The nodes of this process.
#[derive(Default)]
struct Nodes(Vec<(String, Node)>);

impl Nodes {
    async fn start(&mut self, config: &Path) -> Result<(), Failure> {
        let config = Config::load(config).map_err(|why| Failure::usage(format!("{}: {why}", config.display())))?;
        let name = config.name.to_string();
        let node = Node::start(config).await.map_err(|why| Failure::usage(format!("{name} does not start: {why}")))?;
        self.0.push((name, node));
        Ok(())
    }

    /// Resolves when one of them has failed.
    async fn failed(&self) -> Failure {
        let mut all: Vec<_> = self.0.iter().map(|(name, node)| Box::pin(async move { (name, node.failed().await) })).collect();
        let (name, why) = std::future::poll_fn(|context| {
            let done = all.iter_mut().find_map(|one| match one.as_mut().poll(context) {
                std::task::Poll::Ready(failed) => Some(failed),
                std::task::Poll::Pending => None,
            });
            done.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await;
        Failure::new(Exit::Negative, format!("{name} has stopped: {why}"))
    }

    /// Stops them all, and says so of those that did not end cleanly.
    async fn stop(self) {
        for (name, node) in self.0 {
            if let Err(why) = node.stop().await {
                note(format!("{name}: {why}"));
            }
        }
    }
}

fn seats(shape: Shape) -> Vec<Seat> {
    let seat = |number: u8| {
        let port = shape.base_port + u16::from(number);
        Seat { number, address: ([127, 0, 0, 1], port).into(), admin: ([127, 0, 0, 1], port + ADMIN_PORTS).into() }
    };
    (1..=shape.nodes).map(seat).collect()
}

/// The directory to use, and the shape of the cluster in it.
fn home(args: &DevArgs) -> Result<(Home, Shape), Failure> {
    let wanted = Shape { nodes: args.nodes.unwrap_or(3), base_port: args.base_port.unwrap_or(7400) };
    let Some(dir) = &args.data else {
        ports_are_free(wanted)?;
        let dir = std::env::temp_dir().join(format!("rejoin-dev-{:016x}", rand::random::<u64>()));
        files::directory(&dir)?;
        return Ok((Home { dir, kept: false }, wanted));
    };
    files::directory(dir)?;
    let dir = dir.canonicalize().map_err(|why| Failure::file(dir, "found", &why))?;
    let shape = if dir.join(MARK).exists() { there(&dir, args)? } else { claim(&dir, wanted)? };
    Ok((Home { dir, kept: true }, shape))
}

/// The shape of the cluster that is there, which must be the one that was asked for.
fn there(dir: &Path, args: &DevArgs) -> Result<Shape, Failure> {
    let path = dir.join(MARK);
    let text = files::read_text(&path)?;
    let shape: Shape = toml::from_str(&text).map_err(|why| Failure::usage(format!("{}: {}", path.display(), why.message())))?;
    let other = args.nodes.is_some_and(|nodes| nodes != shape.nodes) || args.base_port.is_some_and(|port| port != shape.base_port);
    if other {
        let what = format!("{} holds a cluster of {} nodes on base port {}", dir.display(), shape.nodes, shape.base_port);
        return Err(Failure::usage(what).next("leave --nodes and --base-port out to start it again, or name another directory"));
    }
    ports_are_free(shape)?;
    Ok(shape)
}

/// Fails before anything is made. A port that is taken in the meantime still shows when its node starts.
fn ports_are_free(shape: Shape) -> Result<(), Failure> {
    let taken = |address: SocketAddr, what: &str, why: &std::io::Error| {
        let why = if why.kind() == std::io::ErrorKind::AddrInUse { "it is in use by another program".into() } else { why.to_string() };
        Failure::usage(format!("{what} {address} cannot be used: {why}")).next("stop what uses it, or choose other ports with --base-port")
    };
    for seat in seats(shape) {
        std::net::UdpSocket::bind(seat.address).map_err(|why| taken(seat.address, "UDP", &why))?;
        std::net::TcpListener::bind(seat.admin).map_err(|why| taken(seat.admin, "TCP", &why))?;
    }
    Ok(())
}

/// Makes an empty directory ours.
fn claim(dir: &Path, shape: Shape) -> Result<Shape, Failure> {
    let mut entries = std::fs::read_dir(dir).map_err(|why| Failure::file(dir, "read", &why))?;
    if entries.next().is_some() {
        let what = format!("{} is not empty, and holds no cluster of `rejoin dev`", dir.display());
        return Err(Failure::usage(what).next("name an empty directory, or one that does not exist yet"));
    }
    ports_are_free(shape)?;
    let text = toml::to_string(&shape).map_err(Failure::usage)?;
    files::create(&dir.join(MARK), text.as_bytes(), Mode::Public)?;
    Ok(shape)
}

/// What to try next: every command runs as it is printed.
fn invitation(out: Output, cluster: &Cluster, plugin: &PluginInfo, kept: bool) -> String {
    let seats: Vec<String> = cluster.seats().iter().map(|seat| format!("{} {}", seat.name(), seat.address)).collect();
    let rejoin = std::env::args().next().unwrap_or_else(|| "rejoin".into());
    let profile = cluster.profile();
    let last = cluster.seats().last().map_or_else(String::new, |seat| seat.address.to_string());
    let admin = cluster.seats().first().map_or_else(String::new, |seat| seat.admin.to_string());
    let apples = r#"'{"clock":{"ann":1},"items":{"apples":{"ann:1":3}}}'"#;
    let pears = r#"'{"clock":{"bob":1},"items":{"pears":{"bob:1":1}}}'"#;
    let end = if kept { format!("Ctrl-C stops it; {} keeps it", cluster.dir().display()) } else { "Ctrl-C stops it and removes it".into() };
    [
        out.bold(&format!("a cluster of {} is up: {}", seats.len(), seats.join(", "))),
        format!("bucket {} merges with plugin {} {} ({})", cart::BUCKET, plugin.name, plugin.version, plugin.digest),
        String::new(),
        "Try, in another terminal:".into(),
        format!("  export REJOIN_PROFILE={}", quoted(&profile.display().to_string())),
        format!("  {rejoin} status"),
        format!("  {rejoin} put cart ann {apples}"),
        format!("  {rejoin} put cart ann {pears} --blind      # as if on the other side of a split"),
        format!("  {rejoin} get cart ann                      # the plugin has merged both"),
        format!("  {rejoin} get cart ann --node {last} --json"),
        format!("  curl http://{admin}/metrics"),
        String::new(),
        end,
    ]
    .join("\n")
}

/// A path as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "dev_tests.rs"]
mod tests;
