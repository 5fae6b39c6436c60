//! The files of a cluster that is made for a test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::SystemTime;

use rejoin_proto::{ClusterId, Name};
use rejoin_wire::{Validity, cert::ClusterCa};

/// The files of a cluster that is made for a test: authority, secret, and per node a certificate and a configuration.
#[derive(Debug)]
pub struct Files {
    /// Where they are.
    pub dir: PathBuf,
    /// The authority, for certificates that a test wants besides.
    pub ca: ClusterCa,
    /// The nodes: name, address for clients and peers, admin address.
    pub nodes: Vec<(Name, SocketAddr, SocketAddr)>,
    /// The cluster's secret.
    pub secret: String,
    /// The cluster.
    pub cluster: ClusterId,
    seats: Vec<Seat>,
    more: String,
}

/// A place for a node.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The node's name.
    pub name: Name,
    /// Its address for clients and peers.
    pub address: SocketAddr,
    /// Its admin address.
    pub admin: SocketAddr,
    /// Its zone, if it is in one.
    pub zone: Option<Name>,
}

impl Seat {
    /// On a loopback address that no other test uses, so that nobody can take its ports between two starts.
    #[must_use]
    pub fn on_loopback(name: Name, zone: Option<Name>) -> Self {
        let (address, admin) = free_addresses();
        Self { name, address, admin, zone }
    }

    /// On ports of an address that others use as well. `None` if this machine does not have the address.
    #[must_use]
    pub fn at(name: Name, ip: IpAddr) -> Option<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let is_here = UdpSocket::bind((ip, 0)).is_ok();
        // Below the ports that systems give out, so that nobody takes them between two starts.
        let mut ports = std::iter::repeat_with(|| {
            let number = NEXT.fetch_add(2, Ordering::Relaxed);
            10_000 + (std::process::id() as u16).wrapping_mul(64).wrapping_add(number) % 20_000
        });
        let free = |port: u16| {
            let node = UdpSocket::bind((ip, port)).ok()?;
            let admin = TcpListener::bind((ip, port + 1)).ok()?;
            Some((node.local_addr().ok()?, admin.local_addr().ok()?))
        };
        let (address, admin) = is_here.then(|| ports.find_map(free))??;
        Some(Self { name, address, admin, zone: None })
    }
}

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
    /// Writes the files of a cluster of `count` nodes into `dir`. Its addresses are free ones of the moment, on
    /// 127.0.0.1.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    #[must_use]
    pub fn create(dir: &Path, cluster: ClusterId, count: usize) -> Self {
        Self::create_with(dir, cluster, count, "")
    }

    /// As [`Files::create`], with more lines in every configuration.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    #[must_use]
    pub fn create_with(dir: &Path, cluster: ClusterId, count: usize, more: &str) -> Self {
        let seats = (1..=count).map(|i| Seat::on_loopback(name(&format!("n{i}")), None)).collect();
        Self::create_at(dir, cluster, seats, more)
    }

    /// As [`Files::create_with`], with a place for each node. Only nodes on loopback addresses take faults over their
    /// admin ports.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    #[must_use]
    pub fn create_at(dir: &Path, cluster: ClusterId, seats: Vec<Seat>, more: &str) -> Self {
        let valid = Validity::years(SystemTime::now(), 1);
        let ca = ClusterCa::create(cluster, valid).expect("an authority");
        let secret = format!("the secret of cluster {cluster}");
        std::fs::write(dir.join("ca.pem"), ca.cert_pem()).expect("writable");
        std::fs::write(dir.join("secret"), &secret).expect("writable");
        let nodes: Vec<_> = seats.iter().map(|seat| (seat.name.clone(), seat.address, seat.admin)).collect();
        let files = Self { dir: dir.to_path_buf(), ca, nodes, secret, cluster, seats, more: more.to_owned() };
        for index in 0..files.nodes.len() {
            let (node, ..) = &files.nodes[index];
            let issued = files.ca.issue_node(node, &[], valid).expect("a certificate");
            std::fs::write(dir.join(format!("{node}.pem")), issued.cert_pem).expect("writable");
            std::fs::write(dir.join(format!("{node}.key")), issued.key_pem).expect("writable");
            std::fs::write(files.config_path(index), files.config(index)).expect("writable");
        }
        let seeds: Vec<String> = files.nodes.iter().map(|(_, address, _)| format!("\"{address}\"")).collect();
        let token = rejoin_node::root_token(files.secret.as_bytes());
        let profile = format!("seeds = [{}]\nca = \"ca.pem\"\ntoken = \"{token}\"\n", seeds.join(", "));
        std::fs::write(dir.join("profile.toml"), profile).expect("writable");
        files
    }

    /// Adds the files of a node that joins the cluster when it runs. Returns its index.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    pub fn add(&mut self, node: &str) -> usize {
        self.add_at(Seat::on_loopback(name(node), None))
    }

    /// As [`Files::add`], at a place.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    pub fn add_at(&mut self, seat: Seat) -> usize {
        let Seat { name: node, address, admin, .. } = seat;
        let issued = self.ca.issue_node(&node, &[], Validity::years(SystemTime::now(), 1)).expect("a certificate");
        std::fs::write(self.dir.join(format!("{node}.pem")), issued.cert_pem).expect("writable");
        std::fs::write(self.dir.join(format!("{node}.key")), issued.key_pem).expect("writable");
        self.nodes.push((node, address, admin));
        let index = self.nodes.len() - 1;
        std::fs::write(self.config_path(index), self.config(index)).expect("writable");
        index
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

    /// Has a node join the cluster at its next start with an empty directory, whether or not it was there when the
    /// cluster began.
    ///
    /// # Panics
    /// If the file cannot be written: the test cannot go on.
    pub fn joins(&self, index: usize) {
        let (config, own) = (self.config(index), self.nodes[index].1);
        let kept = config.split("[[bootstrap]]").next().unwrap_or_default();
        let others: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.1)
            .filter(|other| *other != own)
            .map(|other| format!("\"{other}\""))
            .collect();
        let kept: String =
            kept.lines().filter(|line| !line.starts_with("join")).map(|line| format!("{line}\n")).collect();
        std::fs::write(self.config_path(index), format!("{kept}join = [{}]\n", others.join(", "))).expect("writable");
    }

    /// A node's configuration.
    #[must_use]
    pub fn config(&self, index: usize) -> String {
        let (node, address, admin) = &self.nodes[index];
        let faults = address.ip().is_loopback();
        let mut text = format!(
            "name = \"{node}\"\nlisten = \"{address}\"\nadmin = \"{admin}\"\ndata = \"{node}.data\"\nca = \"ca.pem\"\n\
             certificate = \"{node}.pem\"\nkey = \"{node}.key\"\nsecret = \"secret\"\ndev_faults = {faults}\n\
             segment_bytes = 4194304\n{}{}\n",
            if self.more.contains("check_laws") { "" } else { "check_laws = false\n" },
            self.more
        );
        if index >= self.seats.len() {
            let members: Vec<String> = self.seats.iter().map(|seat| format!("\"{}\"", seat.address)).collect();
            text.push_str(&format!("join = [{}]\n", members.join(", ")));
            return text;
        }
        for Seat { name, address, zone, .. } in &self.seats {
            text.push_str(&format!("[[bootstrap]]\nname = \"{name}\"\naddress = \"{address}\"\n"));
            if let Some(zone) = zone {
                text.push_str(&format!("zone = \"{zone}\"\n"));
            }
        }
        text
    }
}

/// A loopback address that no other test uses. Linux has all of 127.0.0.0/8; other systems may have only 127.0.0.1.
#[must_use]
pub fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let process = std::process::id();
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 64 + ((process >> 8) % 64) as u8, (process % 256) as u8, low)
}

/// Two addresses for a node, on a loopback address that no other test uses.
fn free_addresses() -> (SocketAddr, SocketAddr) {
    loop {
        if let Some(addresses) = free(own_loopback().into()).or_else(|| free(Ipv4Addr::LOCALHOST.into())) {
            return addresses;
        }
    }
}

/// A free UDP and a free TCP port there: fixed ones below those that systems give out, or, where only 127.0.0.1 exists,
/// any that are free just now.
fn free(ip: IpAddr) -> Option<(SocketAddr, SocketAddr)> {
    let fixed = if ip == Ipv4Addr::LOCALHOST { (0, 0) } else { (7400, 7500) };
    let node = UdpSocket::bind((ip, fixed.0)).ok()?;
    let admin = TcpListener::bind((ip, fixed.1)).ok()?;
    Some((node.local_addr().ok()?, admin.local_addr().ok()?))
}
