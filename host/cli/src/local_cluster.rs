//! The files of a cluster on this machine, for `dev`, `demo` and `bench`: certificates, configurations and a profile.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rejoin_proto::Name;

use crate::commands::cert::{self, SECRET};
use crate::commands::token::root_token;
use crate::failure::Failure;
use crate::files::{self, Mode};

/// One node of a local cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LocalNode {
    /// From 1.
    pub(crate) number: u8,
    /// For clients and peers.
    pub(crate) address: SocketAddr,
    /// For metrics, health and faults.
    pub(crate) admin: SocketAddr,
}

impl LocalNode {
    /// `n1`, `n2`, ...
    pub(crate) fn name(self) -> String {
        format!("n{}", self.number)
    }
}

/// A local cluster: its directory and nodes.
#[derive(Clone, Debug)]
pub(crate) struct LocalCluster {
    dir: PathBuf,
    nodes: Vec<LocalNode>,
    dev_faults: bool,
    shards: Option<usize>,
    /// How many of the nodes begin the cluster; the others join it.
    founders: usize,
}

impl LocalCluster {
    /// A cluster in that directory, of those nodes.
    pub(crate) fn new(dir: PathBuf, nodes: Vec<LocalNode>) -> Self {
        let founders = nodes.len();
        Self { dir, nodes, dev_faults: false, shards: None, founders }
    }

    /// Sets the shards of each node, a power of two. For new directories only: the shards of a node are fixed.
    pub(crate) fn with_shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Has only so many of the nodes begin the cluster. The others join it when they are started.
    pub(crate) fn with_founders(mut self, founders: usize) -> Self {
        self.founders = founders;
        self
    }

    /// The nodes that begin the cluster, as a cluster.
    pub(crate) fn founders(&self) -> Self {
        let mut founders = self.clone();
        founders.nodes.truncate(self.founders);
        founders
    }

    /// Enables fault injection on the admin ports.
    pub(crate) fn with_faults(mut self) -> Self {
        self.dev_faults = true;
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// The profile file for clients.
    pub(crate) fn profile(&self) -> PathBuf {
        self.dir.join("profile.toml")
    }

    /// The configuration file of a node.
    pub(crate) fn config(&self, node: LocalNode) -> PathBuf {
        self.dir.join(node.name()).join("node.toml")
    }

    /// Makes the certificates and secrets that do not exist, and writes the configurations and the profile.
    ///
    /// # Errors
    /// A file cannot be written, or existing files do not belong together.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        files::directory(&self.dir)?;
        let ca =
            if self.dir.join("ca.pem").exists() { cert::load(&self.dir)? } else { cert::authority(&self.dir, 3650)? };
        for node in &self.nodes {
            let home = self.dir.join(node.name());
            files::directory(&home)?;
            if !home.join("cert.pem").exists() {
                let name = Name::new(node.name()).map_err(Failure::usage)?;
                let issued = ca
                    .issue_node(&name, &[node.address.ip().to_string()], cert::days_from_now(3650))
                    .map_err(Failure::usage)?;
                files::replace(&home.join("key.pem"), issued.key_pem.as_bytes(), Mode::Private)?;
                files::replace(&home.join("cert.pem"), issued.cert_pem.as_bytes(), Mode::Public)?;
            }
            files::replace(&self.config(*node), self.config_text(*node).as_bytes(), Mode::Public)?;
        }
        let token = root_token(&self.dir.join(SECRET))?;
        files::replace(&self.profile(), self.profile_text(&token).as_bytes(), Mode::Private)
    }

    fn config_text(&self, node: LocalNode) -> String {
        let LocalNode { address, admin, .. } = node;
        let mut text =
            format!("name = \"{}\"\nlisten = \"{address}\"\nadmin = \"{admin}\"\ndata = \"data\"\n", node.name());
        text.push_str(
            "ca = \"../ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nsecret = \"../cluster-secret\"\n",
        );
        if self.dev_faults {
            text.push_str("dev_faults = true\n");
        }
        if let Some(shards) = self.shards {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "shards = {shards}");
        }
        let founders = &self.nodes[..self.founders];
        if let Some(first) = founders.first().filter(|_| !founders.contains(&node)) {
            let _ = writeln!(text, "join = [\"{}\"]", first.address);
            return text;
        }
        for node in founders {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[bootstrap]]\nname = \"{}\"\naddress = \"{}\"\n", node.name(), node.address);
        }
        text
    }

    fn profile_text(&self, token: &str) -> String {
        let seeds: Vec<String> =
            self.nodes[..self.founders].iter().map(|node| format!("\"{}\"", node.address)).collect();
        format!("seeds = [{}]\nca = \"ca.pem\"\ntoken = \"{token}\"\n", seeds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(dir: &Path) -> LocalCluster {
        let node = |number: u8| {
            let port = 7400 + u16::from(number);
            LocalNode { number, address: ([127, 0, 0, 1], port).into(), admin: ([127, 0, 0, 1], port + 100).into() }
        };
        LocalCluster::new(dir.join("cluster"), vec![node(1), node(2)])
    }

    #[test]
    fn what_is_written_is_what_nodes_and_clients_read() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path()).with_shards(8);
        cluster.write().unwrap();
        for node in cluster.nodes() {
            let config = rejoin_node::Config::load(&cluster.config(*node)).unwrap();
            assert_eq!((config.name.as_str(), config.shards), (node.name().as_str(), 8));
            for file in ["cert.pem", "key.pem", "../ca.pem", "../cluster-secret"] {
                assert!(cluster.dir().join(node.name()).join(file).is_file(), "{file}");
            }
        }
        let profile = rejoin_client::Profile::load(cluster.profile()).unwrap();
        assert_eq!(profile.seeds(), ["127.0.0.1:7401", "127.0.0.1:7402"]);
    }

    #[test]
    fn a_second_start_keeps_every_certificate_and_secret() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path());
        let all = || {
            ["ca.pem", "ca-key.pem", SECRET, "n1/cert.pem", "n2/key.pem", "profile.toml"]
                .map(|file| files::read(&cluster.dir().join(file)).unwrap())
        };
        cluster.write().unwrap();
        let first = all();
        cluster.write().unwrap();
        assert!(first == all());
    }
}
