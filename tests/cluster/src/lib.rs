//! Real nodes on real sockets and real files: what the tests of this crate are set up with.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rejoin_proto::{ClusterId, Name};
use rejoin_wire::cert::{ClusterCa, Validity};

/// The files of a cluster that is made for a test: authority, secret, and per node a certificate and a configuration.
pub struct Files {
    /// Where they are.
    pub dir: PathBuf,
    /// The authority, for certificates that a test wants besides.
    pub ca: ClusterCa,
    /// The nodes: name, address for clients and peers, admin address.
    pub nodes: Vec<(Name, SocketAddr, SocketAddr)>,
}

/// The secret of every test cluster.
pub const SECRET: &[u8] = b"a secret of a test cluster, long enough";

/// A cluster id for tests, so that two clusters of one test differ.
#[must_use]
pub fn cluster_id(number: u128) -> ClusterId {
    ClusterId(0x7e57_0000 + number)
}

/// A valid name.
///
/// # Panics
/// If it is not.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

impl Files {
    /// Writes the files of a cluster of `count` nodes into `dir`. Its addresses are free ones of the moment, on 127.0.0.1.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    #[must_use]
    pub fn create(dir: &Path, cluster: ClusterId, count: usize) -> Self {
        let valid = Validity::years(SystemTime::now(), 1);
        let ca = ClusterCa::create(cluster, valid).expect("an authority");
        std::fs::write(dir.join("ca.pem"), ca.cert_pem()).expect("writable");
        std::fs::write(dir.join("secret"), SECRET).expect("writable");
        let nodes: Vec<_> = (1..=count).map(|i| (name(&format!("n{i}")), free_udp(), free_tcp())).collect();
        let files = Self { dir: dir.to_path_buf(), ca, nodes };
        for index in 0..count {
            let (node, ..) = &files.nodes[index];
            let issued = files.ca.issue_node(node, &[], valid).expect("a certificate");
            std::fs::write(dir.join(format!("{node}.pem")), issued.cert_pem).expect("writable");
            std::fs::write(dir.join(format!("{node}.key")), issued.key_pem).expect("writable");
            std::fs::write(files.config_path(index), files.config(index)).expect("writable");
        }
        let seeds: Vec<String> = files.nodes.iter().map(|(_, address, _)| format!("\"{address}\"")).collect();
        let token = rejoin_node::root_token(SECRET);
        let profile = format!("seeds = [{}]\nca = \"ca.pem\"\ntoken = \"{token}\"\n", seeds.join(", "));
        std::fs::write(dir.join("profile.toml"), profile).expect("writable");
        files
    }

    /// The profile of an administrator.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.dir.join("profile.toml")
    }

    /// Where a node's configuration is.
    #[must_use]
    pub fn config_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{}.toml", self.nodes[index].0))
    }

    /// A node's configuration.
    #[must_use]
    pub fn config(&self, index: usize) -> String {
        let (node, address, admin) = &self.nodes[index];
        let mut text = format!(
            "name = \"{node}\"\nlisten = \"{address}\"\nadmin = \"{admin}\"\ndata = \"{node}.data\"\nca = \"ca.pem\"\n\
             certificate = \"{node}.pem\"\nkey = \"{node}.key\"\nsecret = \"secret\"\ndev_faults = true\nsegment_bytes = 4194304\n"
        );
        for (name, address, _) in &self.nodes {
            text.push_str(&format!("[[bootstrap]]\nname = \"{name}\"\naddress = \"{address}\"\n"));
        }
        text
    }
}

/// An address that was free a moment ago.
fn free_udp() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound")
}

fn free_tcp() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound")
}
