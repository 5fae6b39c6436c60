//! How a client is set up and meets its first node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::client::{ClientHello, PROTOCOL};
use rejoin_wire::{Identity, Network, OsNetwork};

use crate::engine::{Engine, Settings};
use crate::links::Links;
use crate::meet::{Met, meet};
use crate::profile::read_file;
use crate::session::endpoint_error;
use crate::{Client, Error, ErrorKind, Result, time};

/// How the nodes are verified: by the certificate of the cluster's authority, in PEM. And, if wanted, a certificate of
/// the client's own.
#[derive(Clone, Debug)]
pub struct Tls {
    authority: Source,
    /// A client's own certificate and its key.
    own: Option<(Source, Source)>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Pem(String),
}

impl Tls {
    /// The authority's certificate is in that file. It is read when the client connects.
    ///
    /// ```
    /// let tls = rejoin_client::Tls::file("/etc/rejoin/ca.pem");
    /// ```
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { authority: Source::File(path.into()), own: None }
    }

    /// The authority's certificate itself, as PEM text.
    ///
    /// ```
    /// let tls = rejoin_client::Tls::pem("-----BEGIN CERTIFICATE-----\n…");
    /// ```
    #[must_use]
    pub fn pem(text: impl Into<String>) -> Self {
        Self { authority: Source::Pem(text.into()), own: None }
    }

    /// Also shows a certificate of this client's own (`rejoin cert client`), in those files. Nodes let clients in by
    /// their token; a certificate that is shown must be of the cluster.
    ///
    /// ```
    /// let tls = rejoin_client::Tls::file("ca.pem").certificate("app.pem", "app.key");
    /// ```
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.own = Some((Source::File(certificate.into()), Source::File(key.into())));
        self
    }
}

impl Source {
    fn text(&self) -> Result<String> {
        match self {
            Self::File(path) => read_file(path),
            Self::Pem(text) => Ok(text.clone()),
        }
    }
}

impl Tls {
    /// Reads the files and checks that they go together.
    fn identity(&self) -> Result<Identity> {
        let own = self.own.as_ref().map(|(certificate, key)| Ok::<_, Error>((certificate.text()?, key.text()?))).transpose()?;
        let own = own.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        Identity::client(&self.authority.text()?, own).map_err(endpoint_error)
    }
}

/// Sets a [`Client`] up. Seeds, TLS and a token are needed, the rest has defaults.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    tls: Option<Tls>,
    token: String,
    name: String,
    timeout: Duration,
    connect_timeout: Duration,
    attempts: u8,
    pinned: bool,
    network: Arc<dyn Network>,
    seed: Option<[u8; 32]>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            tls: None,
            token: String::new(),
            name: concat!("rejoin-client/", env!("CARGO_PKG_VERSION")).into(),
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            attempts: 3,
            pinned: false,
            network: Arc::new(OsNetwork),
            seed: None,
        }
    }
}

impl std::fmt::Debug for ClientBuilder {
    /// Everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seeds, tls, name, timeout, connect_timeout, attempts, pinned, .. } = self;
        f.debug_struct("ClientBuilder")
            .field("seeds", seeds)
            .field("tls", tls)
            .field("name", name)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout)
            .field("attempts", attempts)
            .field("pinned", pinned)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Nodes to begin with, as `address:port` or `name:port`. One that answers is enough: it tells of the others. Names
    /// are looked up whenever the node is dialled; one that cannot be looked up is passed over.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["10.0.0.1:7400", "node2.internal:7400"]);
    /// ```
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// How the nodes are verified.
    ///
    /// ```
    /// use rejoin_client::{Client, Tls};
    /// let builder = Client::builder().tls(Tls::file("ca.pem"));
    /// ```
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The token, as it was handed out by `rejoin token create`.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().token("app:6d2f");
    /// ```
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// What this client is called in the nodes' logs. At most 64 bytes are kept.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().name("checkout");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long an operation may take with all its attempts, unless it says otherwise, and how long connecting may.
    /// Default 5 s. Zero is refused when connecting, more than a year counts as a year. The nodes are told and drop
    /// work that is too late.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().timeout(std::time::Duration::from_millis(800));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a node may take to accept a connection before the next one is tried. Default 1 s; zero is refused when
    /// connecting.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().connect_timeout(std::time::Duration::from_millis(300));
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How often an operation may be sent, the first time included. Default 3; 1 means no retries. A node that cannot
    /// be reached does not count. All operations of a client together may retry once in ten successes, and fifty times
    /// in a row from the start.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().attempts(1);
    /// ```
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sends every request to the first seed that answers, whatever the layout says: to see the cluster as one node
    /// sees it.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["127.0.0.1:7402"]).pinned();
    /// ```
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Sends and receives through a network of the caller's, for simulations, and draws what is left to chance from a
    /// seed: with virtual time and the same seed, the same happens again.
    ///
    /// ```no_run
    /// # fn run(network: std::sync::Arc<dyn rejoin_wire::Network>) {
    /// let builder = rejoin_client::Client::builder().network(network, [7; 32]);
    /// # }
    /// ```
    pub fn network(mut self, network: Arc<dyn Network>, seed: [u8; 32]) -> Self {
        self.network = network;
        self.seed = Some(seed);
        self
    }

    /// Connects to the first seed that lets the client in. Seeds are dialled in their order, the next one also while
    /// those before it are slow to answer, and all of it takes as long as an operation may at most
    /// ([`timeout`](Self::timeout)).
    ///
    /// ```no_run
    /// # async fn run(builder: rejoin_client::ClientBuilder) -> rejoin_client::Result<()> {
    /// let client = builder.connect().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a set-up that cannot work (a time-out of zero, or seeds of which none is an address),
    /// [`ErrorKind::Denied`] for a token that is not known, [`ErrorKind::Untrusted`] for a seed that is no node of the
    /// authority's cluster, [`ErrorKind::Unreachable`] if no seed answers.
    pub async fn connect(self) -> Result<Client> {
        let config = |what: &str| Error::new(ErrorKind::Config, what.to_string());
        let Some(tls) = &self.tls else {
            return Err(config("no authority to verify nodes by: give the cluster's CA certificate with `tls`"));
        };
        let identity = tls.identity()?;
        if self.seeds.is_empty() {
            return Err(config("no seeds: give at least one node's address with `seeds`"));
        }
        let hello = ClientHello { protocol: PROTOCOL, token: self.token.clone(), client: self.name.chars().take(64).collect() };
        let timeout = time::bounded("a time-out", self.timeout)?;
        let connect_timeout = time::bounded("a time-out for connecting", self.connect_timeout)?;
        let links = Arc::new(Links::open(&*self.network, self.seed, identity, hello, connect_timeout)?);
        let settings = Settings { timeout, attempts: self.attempts, pinned: self.pinned, seed: self.seed };
        let Met { session, layout, address } = meet(&links, &self.seeds, timeout).await?;
        let bad = || Error::new(ErrorKind::Protocol, format!("{} has sent a layout that breaks the rules of layouts", session.name));
        Ok(Client(Arc::new(Engine::new(links, &session, address, layout, &settings).ok_or_else(bad)?)))
    }
}
