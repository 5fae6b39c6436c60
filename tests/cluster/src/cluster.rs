//! A cluster of processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use rejoin_client::admin::{BucketProps, PluginInfo};
use rejoin_client::{Client, ClientBuilder, Profile};

use crate::cli::{self, Ran};
use crate::{Files, Process, Seat, cluster_id, eventually, guests, name};

/// Nodes in processes of their own, in a directory that goes with them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Option<Process>>,
    /// Its files.
    pub files: Files,
    dir: TempDir,
}

impl Cluster {
    /// Starts that many nodes and waits until each has found all others.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, "").await
    }

    /// As [`Cluster::start`], with more lines in every configuration.
    pub async fn start_with(count: usize, more: &str) -> Self {
        let mut cluster = Self::prepare(count, more);
        (0..count).for_each(|index| cluster.spawn(index));
        cluster.together().await;
        cluster
    }

    /// Makes the files and starts nothing.
    ///
    /// # Panics
    /// If they cannot be made.
    #[must_use]
    pub fn prepare(count: usize, more: &str) -> Self {
        Self::prepare_at((1..=count).map(|i| Seat::on_loopback(name(&format!("n{i}")), None)).collect(), more)
    }

    /// As [`Cluster::prepare`], with a place for each node.
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn prepare_at(seats: Vec<Seat>, more: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(100);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let id = cluster_id(NEXT.fetch_add(1, Ordering::Relaxed).into());
        let nodes = seats.iter().map(|_| None).collect();
        let files = Files::create_at(dir.path(), id, seats, more);
        Self { nodes, files, dir }
    }

    /// Starts a node, and does not wait for it.
    pub fn spawn(&mut self, index: usize) {
        self.nodes[index] = Some(Process::serve(&self.files.config_path(index)));
    }

    /// As [`Cluster::spawn`], with a filter of the log.
    pub fn spawn_logging(&mut self, index: usize, filter: &str) {
        let mut command = std::process::Command::new(crate::binary());
        command.env("REJOIN_LOG", filter);
        self.nodes[index] = Some(Process::serve_by(command, &self.files.config_path(index)));
    }

    /// Starts another node, which joins the cluster, and waits until it serves. Returns its index.
    pub async fn join(&mut self, node: &str) -> usize {
        let index = self.add(node);
        self.spawn(index);
        self.pinned(index).await;
        index
    }

    /// Makes the files of another node, which joins the cluster once it is started. Returns its index.
    pub fn add(&mut self, node: &str) -> usize {
        self.add_at(Seat::on_loopback(name(node), None))
    }

    /// As [`Cluster::add`], at a place.
    pub fn add_at(&mut self, seat: Seat) -> usize {
        self.nodes.push(None);
        self.files.add_at(seat)
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, index: usize) {
        self.take(index).kill();
    }

    /// Sends a node SIGHUP.
    ///
    /// # Panics
    /// If it does not run.
    pub fn hang_up(&self, index: usize) {
        self.nodes[index].as_ref().expect("it runs").hang_up();
    }

    /// The process id of a node.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].as_ref().expect("it runs").id()
    }

    /// Takes a node's process out: it is the caller's to end.
    ///
    /// # Panics
    /// If it does not run.
    pub fn take(&mut self, index: usize) -> Process {
        self.nodes[index].take().expect("it runs")
    }

    /// Waits until every node that was started sees all nodes that were started.
    ///
    /// # Panics
    /// If they do not find each other in time.
    pub async fn together(&self) {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|&index| self.nodes[index].is_some()).collect();
        for &index in &running {
            eventually("every node sees the others", async || self.seen(index, &running).await).await;
        }
    }

    async fn seen(&self, index: usize, running: &[usize]) -> Result<(), String> {
        let client =
            self.builder(index).connect().await.map_err(|error| format!("{error}; its log:\n{}", self.log(index)))?;
        let status = client.admin().status().await.map_err(|error| error.to_string())?;
        let up = |&&other: &&usize| status.nodes.iter().any(|node| node.up && node.name == self.files.nodes[other].0);
        if running.iter().filter(up).count() < running.len() || !status.missing_plugins.is_empty() {
            return Err(format!("{status:?}"));
        }
        Ok(())
    }

    /// What a node has said, in all its starts.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.files.config_path(index).with_extension("log")).unwrap_or_default()
    }

    /// A client that goes to the owners.
    ///
    /// # Panics
    /// If no node lets it in.
    pub async fn client(&self) -> Client {
        Client::from_profile(self.files.profile()).await.expect("a client is let in")
    }

    /// What a client that only asks one node is made with.
    ///
    /// # Panics
    /// If the profile cannot be read.
    pub fn builder(&self, index: usize) -> ClientBuilder {
        let profile = Profile::load(self.files.profile()).expect("it was written");
        profile.builder().seeds([self.address(index).to_string()]).pinned()
    }

    /// A client that only asks one node.
    ///
    /// # Panics
    /// If the node does not let it in for 20 s.
    pub async fn pinned(&self, index: usize) -> Client {
        eventually("a node lets a client in", async || {
            self.builder(index).connect_timeout(Duration::from_secs(2)).connect().await
        })
        .await
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn address(&self, index: usize) -> SocketAddr {
        self.files.nodes[index].1
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, index: usize) -> PathBuf {
        self.files.config_path(index).with_extension("data")
    }

    /// Where a node's admin port is.
    #[must_use]
    pub fn admin(&self, index: usize) -> SocketAddr {
        self.files.nodes[index].2
    }

    /// Runs `rejoin` with the profile of an administrator.
    #[must_use]
    pub fn rejoin(&self, arguments: &[&str]) -> Ran {
        cli::rejoin(self.dir.path(), Some(&self.files.profile()), arguments, b"")
    }

    /// Pushes a component and makes a bucket that merges with it, known to every node.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn bucket_merging_with(&self, name: &str, component: Vec<u8>, props: BucketProps) -> PluginInfo {
        let admin = self.client().await.admin();
        let plugin = admin.push_plugin(name, component).await.expect("a plugin");
        let props = BucketProps { plugin: Some(plugin.activation()), ..props };
        admin.create_bucket(name, props).await.expect("a bucket");
        self.know(name).await;
        plugin
    }

    /// Makes a bucket, known to every node.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn bucket(&self, name: &str, props: BucketProps) {
        self.client().await.admin().create_bucket(name, props).await.expect("a bucket");
        self.know(name).await;
    }

    /// Makes the bucket `cart` with the cart plugin.
    pub async fn cart(&self) -> PluginInfo {
        self.bucket_merging_with("cart", guests::cart().to_vec(), BucketProps::default()).await
    }

    /// Waits until every running node knows a bucket and has every plugin.
    async fn know(&self, bucket: &str) {
        for index in (0..self.nodes.len()).filter(|&index| self.nodes[index].is_some()) {
            let admin = self.pinned(index).await.admin();
            eventually("every node knows the bucket", async || admin.bucket(bucket).await).await;
            let has_all = async || match admin.status().await {
                Ok(status) if status.missing_plugins.is_empty() => Ok(()),
                other => Err(other),
            };
            eventually("every node has the plugins", has_all).await;
        }
    }
}
