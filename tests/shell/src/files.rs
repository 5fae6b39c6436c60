//! The files of a simulated cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use tempfile::TempDir;

use rejoin_node::Config;
use rejoin_proto::{ClusterId, Name};
use rejoin_wire::Identity;
use rejoin_wire::{Validity, cert::ClusterCa};

/// The secret of every simulated cluster.
const SECRET: &str = "the secret of a simulated cluster";

/// Authority, secret, and per node a certificate, a configuration and a data directory; removed when dropped.
#[derive(Debug)]
pub struct Files {
    dir: TempDir,
    ca: ClusterCa,
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
    /// An authority of its own, and certificates for these nodes.
    ///
    /// # Panics
    /// If a file cannot be written: the test cannot go on.
    #[must_use]
    pub fn create(names: &[&str]) -> Self {
        let valid = Validity::years(SystemTime::now(), 1);
        let dir = tempfile::tempdir().expect("a folder");
        let ca = ClusterCa::create(ClusterId(0x7e57), valid).expect("an authority");
        let write = |file: String, text: &str| std::fs::write(dir.path().join(file), text).expect("writable");
        write("ca.pem".into(), ca.cert_pem());
        write("secret".into(), SECRET);
        for node in names {
            let issued = ca.issue_node(&name(node), &[], valid).expect("a certificate");
            write(format!("{node}.pem"), &issued.cert_pem);
            write(format!("{node}.key"), &issued.key_pem);
        }
        Self { dir, ca }
    }

    /// Gives all nodes this secret, in place of a good one.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn spoil_secret(&self, secret: &str) {
        std::fs::write(self.dir.path().join("secret"), secret).expect("writable");
    }

    /// The certificate by which clients verify nodes, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    /// The authority, for who makes certificates.
    #[must_use]
    pub fn ca(&self) -> &ClusterCa {
        &self.ca
    }

    /// An administrator's token.
    #[must_use]
    pub fn token(&self) -> String {
        rejoin_node::root_token(SECRET.as_bytes())
    }

    /// A node's certificate and key, in PEM.
    ///
    /// # Panics
    /// If the node has no files.
    #[must_use]
    pub fn pem_of(&self, node: &str) -> (String, String) {
        let read = |file: String| std::fs::read_to_string(self.dir.path().join(file)).expect("readable");
        (read(format!("{node}.pem")), read(format!("{node}.key")))
    }

    /// A node's own identity, for who wants to stand in for it.
    ///
    /// # Panics
    /// If the node has no files.
    #[must_use]
    pub fn identity(&self, node: &str) -> Identity {
        let (certificate, key) = self.pem_of(node);
        Identity::node(self.ca_pem(), &certificate, &key).expect("they go together")
    }

    /// A node's configuration in a cluster of these nodes, with `more` lines of it. The folder is for the data of all.
    ///
    /// # Panics
    /// If `more` is no configuration.
    #[must_use]
    pub fn config(&self, node: &str, data: &Path, nodes: &[(&'static str, SocketAddr)], more: &str) -> Config {
        let (_, listen) = nodes.iter().find(|(name, _)| *name == node).expect("one of them");
        let mut text = format!(
            "name = \"{node}\"\nlisten = \"{listen}\"\ndata = \"{}\"\nca = \"ca.pem\"\ncertificate = \"{node}.pem\"\n\
             key = \"{node}.key\"\nsecret = \"secret\"\nsegment_bytes = 4194304\ncheck_laws = false\n{more}\n",
            data.join(node).display()
        );
        for (name, address) in nodes {
            text.push_str(&format!("[[bootstrap]]\nname = \"{name}\"\naddress = \"{address}\"\n"));
        }
        Config::parse(&text, self.dir.path()).unwrap_or_else(|error| panic!("{error}"))
    }
}
