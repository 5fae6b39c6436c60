//! One UDP port: where connections are dialled from and accepted at.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use quinn::{AsyncUdpSocket, Runtime, VarInt};
use tokio::sync::{Mutex, mpsc, oneshot};

use rejoin_proto::{Address, Name};

use crate::{
    CloseCode, Connection, Error, Identity, Limits, Network, OsNetwork, Role, handshake::Handshake, places::Place, runtime::within, tls,
    warned::Warned,
};

/// Connections that are ready and wait for [`Endpoint::accept`]; beyond it their handshakes stay under way, and count
/// as such.
const READY: usize = 64;

/// A connection that somebody else dialled.
#[derive(Debug)]
pub enum Accepted {
    /// From the node of that name, by its certificate.
    Peer(Connection, Name),
    /// From a client, with or without a certificate.
    Client(Connection),
}

/// What an endpoint has seen so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Connections open now, in both directions, handshakes included.
    pub connections: usize,
    /// Accepted connections of nodes.
    pub peers: usize,
    /// Accepted connections of clients.
    pub clients: usize,
    /// Those of them that have not been let in yet.
    pub new_clients: usize,
    /// Incoming handshakes that became a connection.
    pub accepted: u64,
    /// Incoming handshakes that failed: wrong certificate, wrong protocol, too slow.
    pub failed: u64,
    /// Attempts turned away because a limit was reached.
    pub refused: u64,
}

/// One UDP port. Clones are cheap and mean the same endpoint; when the last is dropped, it closes and so do its
/// connections.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quic: quinn::Endpoint,
    local: SocketAddr,
    handshake: Arc<Handshake>,
    ready: Mutex<mpsc::Receiver<Accepted>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// No more newcomers are taken.
    closed_to_new: AtomicBool,
    accepted: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local).field("identity", &self.handshake.identity()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(VarInt::from_u32(CloseCode::SHUTDOWN.0), b"the endpoint is gone");
    }
}

impl Endpoint {
    /// Opens `addr` (port 0 for any free one). With a node's identity it accepts and dials; with a client's it only
    /// dials. Must be called within a tokio runtime, which then drives it.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::Bind`], [`Error::BadLimits`], [`Error::NoRuntime`].
    pub fn bind(addr: SocketAddr, identity: Identity, limits: Limits) -> Result<Self, Error> {
        Self::bind_on(&OsNetwork, None, addr, identity, limits)
    }

    /// As [`Endpoint::bind`], on a network of the caller's. With a seed the choices that QUIC leaves to chance are
    /// repeatable (those of TLS are not).
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_on(
        network: &dyn Network,
        seed: Option<[u8; 32]>,
        addr: SocketAddr,
        identity: Identity,
        limits: Limits,
    ) -> Result<Self, Error> {
        limits.check()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::NoRuntime);
        }
        let socket = Self::open_port(network, addr, &limits)?;
        Self::bind_with(network.runtime(), socket, seed, identity, limits)
    }

    /// Opens a UDP port, 0 for any free one, at which nobody answers before [`Endpoint::bind_with`] is given it.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::Bind`].
    pub fn open_port(network: &dyn Network, addr: SocketAddr, limits: &Limits) -> Result<Arc<dyn AsyncUdpSocket>, Error> {
        network.open(addr, limits.socket_buffer).map_err(|error| bind_error(addr, &error))
    }

    /// Opens any free port of all addresses for who only dials: IPv6 and IPv4 where the system has both, IPv4
    /// elsewhere.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn for_dialling(identity: Identity, limits: Limits) -> Result<Self, Error> {
        Self::for_dialling_on(&OsNetwork, None, identity, limits)
    }

    /// As [`Endpoint::for_dialling`], on a network of the caller's, and perhaps with a seed: see [`Endpoint::bind_on`].
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn for_dialling_on(network: &dyn Network, seed: Option<[u8; 32]>, identity: Identity, limits: Limits) -> Result<Self, Error> {
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        match Self::bind_on(network, seed, any6, identity.clone(), limits.clone()) {
            Err(Error::Bind { .. }) => Self::bind_on(network, seed, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), identity, limits),
            done => done,
        }
    }

    /// As [`Endpoint::bind_on`], on a socket that is open already.
    ///
    /// # Errors
    /// [`Error::BadLimits`], [`Error::Bind`], [`Error::Tls`].
    pub fn bind_with(
        runtime: Arc<dyn Runtime>,
        socket: Arc<dyn AsyncUdpSocket>,
        seed: Option<[u8; 32]>,
        identity: Identity,
        limits: Limits,
    ) -> Result<Self, Error> {
        limits.check()?;
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let local = socket.local_addr().map_err(|error| bind_error(unknown, &error))?;
        let server = server_config(&identity, &limits)?;
        let config = limits.endpoint_config(seed, identity.own.as_deref())?;
        let quic = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime.clone());
        let quic = quic.map_err(|error| bind_error(local, &error))?;
        let (sender, receiver) = mpsc::channel(READY);
        let counters = Arc::<Counters>::default();
        let handshake = Arc::new(Handshake::new(runtime.clone(), Arc::new(limits), identity));
        let gate =
            Gate { quic: quic.clone(), handshake: handshake.clone(), ready: sender, counters: counters.clone(), warned: Arc::default() };
        runtime.spawn(Box::pin(gate.run()));
        Ok(Self(Arc::new(Inner { quic, local, handshake, ready: Mutex::new(receiver), counters })))
    }

    /// The address that was opened, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Who this endpoint is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.handshake.identity()
    }

    /// Shows another certificate of the same subject, and trusts another certificate of the same cluster's authority,
    /// in handshakes that begin from now on. Connections that are open stay.
    ///
    /// # Errors
    /// [`Error::OtherSubject`] for somebody else's certificate, [`Error::WrongCluster`], [`Error::Tls`]. Nothing has
    /// changed then.
    pub fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        let handshake = &self.0.handshake;
        let before = handshake.identity();
        if before.cluster() != identity.cluster() {
            return Err(Error::WrongCluster { expected: before.cluster(), found: identity.cluster() });
        }
        if before.subject() != identity.subject() {
            let name = |identity: &Identity| identity.subject().map_or_else(|| "nobody".into(), ToString::to_string);
            return Err(Error::OtherSubject { expected: name(&before), found: name(&identity) });
        }
        let server = server_config(&identity, &handshake.limits)?;
        handshake.set_identity(identity);
        self.0.quic.set_server_config(server);
        Ok(())
    }

    /// Dials a node as a node. Resolves once the other side has accepted our certificate and every stream is ready, or
    /// after [`Limits::handshake`].
    ///
    /// # Errors
    /// [`Error::NotANode`] or [`Error::NoCertificate`] if this endpoint has no node's identity, [`Error::WrongNode`],
    /// [`Error::Untrusted`], [`Error::CertificateRefused`], [`Error::Unreachable`], [`Error::Version`], and the rest of
    /// [`Error`].
    pub async fn connect_peer(&self, addr: SocketAddr, name: &Name) -> Result<Connection, Error> {
        match self.identity().subject() {
            Some(subject) if matches!(subject.role, Role::Node(_)) => {}
            Some(subject) => return Err(Error::NotANode { subject: subject.clone() }),
            None => return Err(Error::NoCertificate),
        }
        self.0.handshake.dial(&self.0.quic, addr, Some(name.clone())).await
    }

    /// As [`Endpoint::connect_peer`], at the first of the IP addresses of that address where the node answers.
    ///
    /// # Errors
    /// As [`Endpoint::connect_peer`], and [`Error::Unresolved`].
    pub async fn connect_peer_at(&self, address: &Address, name: &Name) -> Result<Connection, Error> {
        let mut last = None;
        for addr in self.resolve(address).await? {
            match self.connect_peer(addr, name).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| nowhere(address)))
    }

    /// The IP addresses of an address, at least one. Host names are looked up by the system, anew each time, for at
    /// most [`Limits::handshake`].
    ///
    /// # Errors
    /// [`Error::Unresolved`].
    pub async fn resolve(&self, address: &Address) -> Result<Vec<SocketAddr>, Error> {
        if let Some(address) = address.ip() {
            return Ok(vec![address]);
        }
        let handshake = &self.0.handshake;
        let found = within(&*handshake.runtime, handshake.limits.handshake, resolve(address)).await;
        found.unwrap_or_else(|| Err(Error::Unresolved { address: address.clone(), why: "the resolver does not answer".into() }))
    }

    /// Dials a node as a client: whichever node of the cluster answers there is fine.
    ///
    /// # Errors
    /// As [`Endpoint::connect_peer`], but for the names.
    pub async fn connect_client(&self, addr: SocketAddr) -> Result<Connection, Error> {
        self.0.handshake.dial(&self.0.quic, addr, None).await
    }

    /// The next connection that somebody else dialled and whose handshake is done. Handshakes run beside each other,
    /// none waits for a slow one. None once the endpoint is closed. An endpoint without a node's identity never has
    /// one.
    pub async fn accept(&self) -> Option<Accepted> {
        self.0.ready.lock().await.recv().await
    }

    /// Keeps places for handshakes from these addresses of peers, in place of those that were named before: two for
    /// each, beside [`Limits::max_handshakes`]. A peer dials from the port at which it listens.
    pub fn expect_peers(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.handshake.places.expect(addresses);
    }

    /// Refuses whoever dials from now on. Connections that are open, and handshakes under way, go on.
    pub fn refuse_new(&self) {
        self.0.counters.closed_to_new.store(true, Ordering::Relaxed);
    }

    /// Closes every connection with that code and reason and accepts no more. Resolves when the other sides have been
    /// told, as far as they can be.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.0.quic.close(VarInt::from_u32(code.0), reason.as_bytes());
        self.0.quic.wait_idle().await;
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        let (counters, taken) = (&self.0.counters, self.0.handshake.places.taken());
        EndpointStats {
            connections: self.0.quic.open_connections(),
            peers: taken.peers,
            clients: taken.clients,
            new_clients: taken.new_clients,
            accepted: counters.accepted.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}

/// Looks at incoming attempts, and gives each that it lets in a task of its own.
struct Gate {
    quic: quinn::Endpoint,
    handshake: Arc<Handshake>,
    ready: mpsc::Sender<Accepted>,
    counters: Arc<Counters>,
    warned: Arc<Warned>,
}

impl Gate {
    async fn run(self) {
        while let Some(incoming) = self.quic.accept().await {
            let handshake = &self.handshake;
            let (limits, counters) = (&handshake.limits, &self.counters);
            let under_way = handshake.places.taken().handshakes;
            if counters.closed_to_new.load(Ordering::Relaxed) || self.quic.open_connections() >= most_connections(limits) {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                incoming.refuse();
            } else if under_way * 2 >= limits.max_handshakes && incoming.may_retry() {
                // Under pressure a newcomer first proves that it receives what is sent to its address.
                if incoming.retry().is_err() {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                }
            } else if let Some((place, given_up)) =
                handshake.places.handshake(incoming.remote_address(), incoming.remote_address_validated(), handshake.runtime.now())
            {
                self.admit(incoming, place, given_up);
            } else {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                incoming.refuse();
            }
        }
    }

    fn admit(&self, incoming: quinn::Incoming, place: Place, given_up: oneshot::Receiver<()>) {
        let (handshake, ready, counters) = (self.handshake.clone(), self.ready.clone(), self.counters.clone());
        let warned = self.warned.clone();
        self.handshake.runtime.spawn(Box::pin(async move {
            let remote = incoming.remote_address();
            let accepted = tokio::select! {
                biased;
                accepted = handshake.accept(incoming) => accepted,
                Ok(()) = given_up => Err(Error::NoPlace { whom: "handshakes" }),
            };
            match accepted {
                Ok(accepted) => {
                    counters.accepted.fetch_add(1, Ordering::Relaxed);
                    // Fails only when the endpoint is gone; the connection then closes as it is dropped.
                    let _ = ready.send(accepted).await;
                }
                Err(error) => {
                    let counter = if matches!(error, Error::NoPlace { .. }) { &counters.refused } else { &counters.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if warned.is_news(remote.ip(), &error, handshake.runtime.now()) {
                        tracing::warn!(%remote, %error, "incoming connection turned away");
                    } else {
                        tracing::info!(%remote, %error, "incoming connection turned away");
                    }
                }
            }
            drop(place);
        }));
    }
}

/// Connections of all kinds at once, also those that have ended and wait for late packets: those make up the half.
fn most_connections(limits: &Limits) -> usize {
    limits.max_connections.saturating_add(limits.max_peers).saturating_add(limits.max_handshakes).saturating_mul(2)
}

/// How connections are accepted; none without a node's identity.
fn server_config(identity: &Identity, limits: &Limits) -> Result<Option<quinn::ServerConfig>, Error> {
    let Some(crypto) = tls::server_config(identity)? else { return Ok(None) };
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(limits.transport(3)?));
    limits.apply_to(&mut config);
    Ok(Some(config))
}

fn bind_error(addr: SocketAddr, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse { addr },
        _ => Error::Bind { addr, why: error.to_string() },
    }
}

/// The IP addresses of an address, at least one, as the system's resolver knows them.
///
/// # Errors
/// [`Error::Unresolved`].
pub async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = address.ip() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host(address.to_string()).await;
    let found: Vec<SocketAddr> = found.map_err(|why| Error::Unresolved { address: address.clone(), why: why.to_string() })?.collect();
    if found.is_empty() { Err(nowhere(address)) } else { Ok(found) }
}

fn nowhere(address: &Address) -> Error {
    Error::Unresolved { address: address.clone(), why: "it has no IP address".into() }
}
