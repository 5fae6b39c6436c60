//! The configuration of a client, and its connection to a first node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rejoin_proto::Name;
use rejoin_proto::client::{ClientHello, PROTOCOL};
use rejoin_wire::{Identity, Network, OsNetwork};

use crate::bootstrap::{Bootstrapped, bootstrap};
use crate::connections::Connections;
use crate::engine::{Engine, Settings};
use crate::profile::read_file;
use crate::session::endpoint_error;
use crate::{Client, Error, ErrorKind, Result, time};

/// The certificate of the cluster's authority, which verifies the nodes, and optionally a certificate of the client.
/// All in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    authority: Source,
    /// The client's certificate and its key.
    own: Option<(Source, Source)>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Pem(String),
}

impl Tls {
    /// The authority's certificate in a file, which is read when the client connects.
    ///
    /// ```
    /// let tls = rejoin_client::Tls::file("/etc/rejoin/ca.pem");
    /// ```
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { authority: Source::File(path.into()), own: None }
    }

    /// The authority's certificate as PEM text.
    ///
    /// ```
    /// let tls = rejoin_client::Tls::pem("-----BEGIN CERTIFICATE-----\n…");
    /// ```
    #[must_use]
    pub fn pem(text: impl Into<String>) -> Self {
        Self { authority: Source::Pem(text.into()), own: None }
    }

    /// Also sends a certificate of the client (`rejoin cert client`), from these files. One that was made with a scope
    /// takes the place of the token. Others are checked only for the cluster, and the token says whose the client is.
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
    /// Reads the files and checks that they belong together.
    fn identity(&self) -> Result<Identity> {
        let own = self
            .own
            .as_ref()
            .map(|(certificate, key)| Ok::<_, Error>((certificate.text()?, key.text()?)))
            .transpose()?;
        let own = own.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
        Identity::client(&self.authority.text()?, own).map_err(endpoint_error)
    }
}

/// Configures a [`Client`]. Seeds, TLS and a token (or a certificate that takes its place) are required, the rest has
/// defaults.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    tls: Option<Tls>,
    token: String,
    tenant: Option<String>,
    name: String,
    timeout: Duration,
    connect_timeout: Duration,
    attempts: u8,
    /// `None`: with more than one attempt.
    backpressure: Option<bool>,
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
            tenant: None,
            name: concat!("rejoin-client/", env!("CARGO_PKG_VERSION")).into(),
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            attempts: 3,
            backpressure: None,
            pinned: false,
            network: Arc::new(OsNetwork),
            seed: None,
        }
    }
}

impl std::fmt::Debug for ClientBuilder {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seeds, tls, tenant, name, timeout, connect_timeout, attempts, backpressure, pinned, .. } = self;
        f.debug_struct("ClientBuilder")
            .field("seeds", seeds)
            .field("tls", tls)
            .field("tenant", tenant)
            .field("name", name)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout)
            .field("attempts", attempts)
            .field("backpressure", backpressure)
            .field("pinned", pinned)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// The nodes to connect to first, as `address:port` or `name:port`. One that answers is enough: it sends the
    /// layout. Names are resolved at each dial; a seed that cannot be resolved is skipped.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["10.0.0.1:7400", "node2.internal:7400"]);
    /// ```
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how nodes are verified.
    ///
    /// ```
    /// use rejoin_client::{Client, Tls};
    /// let builder = Client::builder().tls(Tls::file("ca.pem"));
    /// ```
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The token that `rejoin token create` printed.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().token("app:6d2f");
    /// ```
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Reads and writes in this tenant, not in that of the token. Only an operator's token may.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().tenant("shop");
    /// ```
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// The name of this client in the nodes' logs. At most 64 bytes are kept.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().name("checkout");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The time-out of an operation with all its attempts, unless it sets another one, and of
    /// [`connect`](Self::connect). Default 5 s. Zero is refused by `connect`, more than a year counts as a year. The
    /// nodes are told the deadline and drop requests that are too late.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().timeout(std::time::Duration::from_millis(800));
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time for one node to accept a connection before the next one is tried. Default 1 s. Zero is refused by
    /// [`connect`](Self::connect).
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().connect_timeout(std::time::Duration::from_millis(300));
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The most attempts of an operation, the first one included. Default 3; 1 means no retries. Nodes that cannot be
    /// reached do not count, nor do refusals that are waited out ([`backpressure`](Self::backpressure)). All operations
    /// of a client together may retry once for ten successes, and fifty times at the start.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().attempts(1);
    /// ```
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Whether reads and writes that a node refuses as overloaded, so that nothing was done, wait until it takes more,
    /// or until their time-out; then they fail with [`ErrorKind::Overloaded`]. A client that has been refused has fewer
    /// requests under way at that node and lets the others wait before they are sent, so one that waits for each
    /// answer goes as fast as the cluster does. At most 1 024 wait for a node; more are refused at once. By default
    /// operations wait if they have more than one [attempt](Self::attempts).
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().backpressure(false);
    /// ```
    pub fn backpressure(mut self, waits: bool) -> Self {
        self.backpressure = Some(waits);
        self
    }

    /// Sends every request to the first seed that answers, not to the owners in the layout. Shows the cluster as one
    /// node sees it.
    ///
    /// ```
    /// let builder = rejoin_client::Client::builder().seeds(["127.0.0.1:7402"]).pinned();
    /// ```
    pub fn pinned(mut self) -> Self {
        self.pinned = true;
        self
    }

    /// Uses a network of the caller's and a seed for random numbers, for simulations: with virtual time and the same
    /// seed a run is repeated exactly.
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

    /// Connects to the first seed that admits the client, within [`timeout`](Self::timeout). Seeds are dialled in
    /// order; the next one also while earlier ones have not answered.
    ///
    /// ```no_run
    /// # async fn run(builder: rejoin_client::ClientBuilder) -> rejoin_client::Result<()> {
    /// let client = builder.connect().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an invalid configuration (a time-out of zero, or no seed that is an address),
    /// [`ErrorKind::Denied`] for an unknown token, or one that does not open the tenant, [`ErrorKind::NotFound`] for a
    /// tenant that there is not, [`ErrorKind::Untrusted`] for a seed that is not a node of the
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
        let bad_tenant =
            |why: rejoin_proto::BadName| config(&format!("{:?} cannot be a tenant's name: {why}", self.tenant));
        let tenant = self.tenant.as_ref().map(Name::new).transpose().map_err(bad_tenant)?;
        let client = self.name.chars().take(64).collect();
        let hello = ClientHello { protocol: PROTOCOL, token: self.token.clone(), tenant, client };
        let timeout = time::bounded("a time-out", self.timeout)?;
        let connect_timeout = time::bounded("a time-out for connecting", self.connect_timeout)?;
        let connections = Arc::new(Connections::open(&*self.network, self.seed, identity, hello, connect_timeout)?);
        let (attempts, pinned, seed) = (self.attempts, self.pinned, self.seed);
        let backpressure = self.backpressure.unwrap_or(attempts > 1);
        let settings = Settings { timeout, attempts, backpressure, pinned, seed };
        let Bootstrapped { session, routes, address } = bootstrap(&connections, &self.seeds, timeout).await?;
        let bad = || Error::new(ErrorKind::Protocol, format!("{} has sent an invalid layout", session.name));
        Ok(Client(Arc::new(Engine::new(connections, &session, address, routes, &settings).ok_or_else(bad)?)))
    }
}
