//! `dev`: a cluster in one process, with a sample bucket. `local_cluster` writes its files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use rejoin_client::Client;
use rejoin_client::admin::PluginInfo;
use rejoin_node::{Config, Node};

use crate::args::DevArgs;
use crate::cart;
use crate::commands::status::first_problem;
use crate::descriptors;
use crate::failure::{Exit, Failure};
use crate::files::{self, Mode};
use crate::local_cluster::{LocalCluster, LocalNode};
use crate::output::{Output, note};
use crate::ready;
use crate::serve::log;
use crate::signals::Signals;

/// The file that marks a directory as a cluster of `dev`.
const SHAPE_FILE: &str = "dev.toml";
const ADMIN_PORTS: u16 = 100;
/// The time for the nodes to connect to each other.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The shape of a cluster. It is stored with the data, because nodes know each other by address.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Shape {
    nodes: u8,
    base_port: u16,
}

/// The output of `--json` once the cluster serves.
#[derive(Serialize, Debug)]
struct DevOutput {
    profile: PathBuf,
    nodes: Vec<DevNode>,
    bucket: &'static str,
    plugin: String,
}

#[derive(Serialize, Debug)]
struct DevNode {
    name: String,
    address: SocketAddr,
    admin: SocketAddr,
}

/// The directory of the cluster, removed on drop unless it was given with `--data`.
struct ClusterDir {
    dir: PathBuf,
    kept: bool,
}

impl Drop for ClusterDir {
    fn drop(&mut self) {
        if !self.kept
            && let Err(why) = std::fs::remove_dir_all(&self.dir)
        {
            note(format!("{} could not be removed: {why}", self.dir.display()));
        }
    }
}

pub(crate) async fn run(out: Output, args: &DevArgs, color_stderr: bool) -> Result<(), Failure> {
    log(out.json, color_stderr, "warn");
    descriptors::raise();
    let mut signals = Signals::listen()?;
    let (cluster_dir, shape) = cluster_dir(args)?;
    let cluster = LocalCluster::new(cluster_dir.dir.clone(), nodes(shape));
    cluster.write()?;
    let mut nodes = Nodes::default();
    let served = tokio::select! {
        biased;
        () = signals.any() => Ok(()),
        served = serve(out, &cluster, &cluster_dir, &mut nodes) => served,
    };
    note(if cluster_dir.kept { "stopping" } else { "stopping, and removing the cluster's directory" });
    nodes.stop().await;
    served
}

/// Starts the nodes, prints what to try, and returns when a node fails.
async fn serve(
    out: Output,
    cluster: &LocalCluster,
    cluster_dir: &ClusterDir,
    nodes: &mut Nodes,
) -> Result<(), Failure> {
    for node in cluster.nodes() {
        nodes.start(&cluster.config(*node)).await?;
    }
    let client = wait_connected(cluster).await?;
    let copies = u8::try_from(cluster.nodes().len().min(3)).unwrap_or(3);
    let plugin = cart::set_up(&client, copies).await?;
    if out.json {
        let node = |node: &LocalNode| DevNode { name: node.name(), address: node.address, admin: node.admin };
        let nodes = cluster.nodes().iter().map(node).collect();
        out.json(&DevOutput {
            profile: cluster.profile(),
            nodes,
            bucket: cart::BUCKET,
            plugin: plugin.digest.to_string(),
        })?;
    } else {
        out.line(next_steps(out, cluster, &plugin, cluster_dir.kept))?;
    }
    Err(nodes.failed().await)
}

/// Waits until every node is connected to every other. Returns a client of the first one.
pub(crate) async fn wait_connected(cluster: &LocalCluster) -> Result<Client, Failure> {
    let end = tokio::time::Instant::now() + TIMEOUT;
    let mut first = None;
    for node in cluster.nodes() {
        let client = loop {
            let missing = match connect_one(cluster, *node).await {
                Ok((client, None)) => break client,
                Ok((_, Some(problem))) => Failure::new(Exit::Retry, problem),
                Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Retry) => failure,
                Err(failure) => return Err(failure),
            };
            if tokio::time::Instant::now() >= end {
                return Err(missing.during("the nodes did not connect to each other in time"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        first.get_or_insert(client);
    }
    first.ok_or_else(|| Failure::usage("a cluster needs a node"))
}

/// A client of one node, and the first problem that the node reports.
async fn connect_one(cluster: &LocalCluster, node: LocalNode) -> Result<(Client, Option<String>), Failure> {
    let profile = rejoin_client::Profile::load(cluster.profile())?;
    let client = profile.builder().seeds([node.address.to_string()]).connect().await?;
    let problem = first_problem(&client.admin().status().await?);
    Ok((client, problem))
}

/// The nodes of this process.
#[derive(Default)]
struct Nodes(Vec<(String, Node)>);

impl Nodes {
    async fn start(&mut self, config: &Path) -> Result<(), Failure> {
        let loaded = Config::load(config).map_err(|why| Failure::usage(format!("{}: {why}", config.display())));
        let mut config = loaded?;
        config.released = ready::released()?;
        let name = config.name.to_string();
        let node = Node::start(config).await.map_err(|why| Failure::usage(format!("{name} does not start: {why}")))?;
        self.0.push((name, node));
        Ok(())
    }

    /// Waits until a node fails.
    async fn failed(&self) -> Failure {
        let mut all: Vec<_> =
            self.0.iter().map(|(name, node)| Box::pin(async move { (name, node.failed().await) })).collect();
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

    /// Stops all nodes, and prints the errors of those that did not stop cleanly.
    async fn stop(self) {
        for (name, node) in self.0 {
            if let Err(why) = node.stop().await {
                note(format!("{name}: {why}"));
            }
        }
    }
}

fn nodes(shape: Shape) -> Vec<LocalNode> {
    let node = |number: u8| {
        let port = shape.base_port + u16::from(number);
        LocalNode { number, address: ([127, 0, 0, 1], port).into(), admin: ([127, 0, 0, 1], port + ADMIN_PORTS).into() }
    };
    (1..=shape.nodes).map(node).collect()
}

/// The directory of the cluster, and its shape.
fn cluster_dir(args: &DevArgs) -> Result<(ClusterDir, Shape), Failure> {
    let wanted = Shape { nodes: args.nodes.unwrap_or(3), base_port: args.base_port.unwrap_or(7400) };
    let Some(dir) = &args.data else {
        ports_are_free(wanted)?;
        let dir = std::env::temp_dir().join(format!("rejoin-dev-{:016x}", rand::random::<u64>()));
        files::directory(&dir)?;
        return Ok((ClusterDir { dir, kept: false }, wanted));
    };
    files::directory(dir)?;
    let dir = dir.canonicalize().map_err(|why| Failure::file(dir, "found", &why))?;
    let shape = if dir.join(SHAPE_FILE).exists() { existing_shape(&dir, args)? } else { claim(&dir, wanted)? };
    Ok((ClusterDir { dir, kept: true }, shape))
}

/// The shape of the existing cluster, which must match the options.
fn existing_shape(dir: &Path, args: &DevArgs) -> Result<Shape, Failure> {
    let path = dir.join(SHAPE_FILE);
    let text = files::read_text(&path)?;
    let shape: Shape =
        toml::from_str(&text).map_err(|why| Failure::usage(format!("{}: {}", path.display(), why.message())))?;
    let other = args.nodes.is_some_and(|nodes| nodes != shape.nodes)
        || args.base_port.is_some_and(|port| port != shape.base_port);
    if other {
        let what =
            format!("{} holds a cluster of {} nodes on base port {}", dir.display(), shape.nodes, shape.base_port);
        return Err(
            Failure::usage(what).next("leave --nodes and --base-port out to start it again, or name another directory")
        );
    }
    ports_are_free(shape)?;
    Ok(shape)
}

/// Checks the ports before any file is made. A port that is taken after this fails the start of its node.
fn ports_are_free(shape: Shape) -> Result<(), Failure> {
    let taken = |address: SocketAddr, what: &str, why: &std::io::Error| {
        let why = if why.kind() == std::io::ErrorKind::AddrInUse {
            "it is in use by another program".into()
        } else {
            why.to_string()
        };
        Failure::usage(format!("{what} {address} cannot be used: {why}"))
            .next("stop what uses it, or choose other ports with --base-port")
    };
    for node in nodes(shape) {
        std::net::UdpSocket::bind(node.address).map_err(|why| taken(node.address, "UDP", &why))?;
        std::net::TcpListener::bind(node.admin).map_err(|why| taken(node.admin, "TCP", &why))?;
    }
    Ok(())
}

/// Marks an empty directory as a cluster of `dev`.
fn claim(dir: &Path, shape: Shape) -> Result<Shape, Failure> {
    let mut entries = std::fs::read_dir(dir).map_err(|why| Failure::file(dir, "read", &why))?;
    if entries.next().is_some() {
        let what = format!("{} is not empty, and holds no cluster of `rejoin dev`", dir.display());
        return Err(Failure::usage(what).next("name an empty directory, or one that does not exist yet"));
    }
    ports_are_free(shape)?;
    let text = toml::to_string(&shape).map_err(Failure::usage)?;
    files::create(&dir.join(SHAPE_FILE), text.as_bytes(), Mode::Public)?;
    Ok(shape)
}

/// The commands to try next, which run as printed.
fn next_steps(out: Output, cluster: &LocalCluster, plugin: &PluginInfo, kept: bool) -> String {
    let nodes: Vec<String> = cluster.nodes().iter().map(|node| format!("{} {}", node.name(), node.address)).collect();
    let rejoin = std::env::args().next().unwrap_or_else(|| "rejoin".into());
    let profile = cluster.profile();
    let last = cluster.nodes().last().map_or_else(String::new, |node| node.address.to_string());
    let admin = cluster.nodes().first().map_or_else(String::new, |node| node.admin.to_string());
    let apples = r#"'{"clock":{"ann":1},"items":{"apples":{"ann:1":3}}}'"#;
    let pears = r#"'{"clock":{"bob":1},"items":{"pears":{"bob:1":1}}}'"#;
    let end = if kept {
        format!("Ctrl-C stops it; {} keeps it", cluster.dir().display())
    } else {
        "Ctrl-C stops it and removes it".into()
    };
    [
        out.bold(&format!("a cluster of {} is up: {}", nodes.len(), nodes.join(", "))),
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

/// Quotes a path for the shell.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "dev_tests.rs"]
mod tests;
