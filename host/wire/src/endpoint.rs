//! One UDP port, from which connections are dialled and on which they are accepted. It owns the acceptor task and never
//! redials: that is for its callers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use quinn::{AsyncUdpSocket, Runtime, VarInt};
use quinn_proto::crypto::HandshakeTokenKey;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

use rejoin_proto::{Address, Name};

use crate::{
    Accepted, CloseCode, Connection, Error, Identity, Limits, Network, OsNetwork, Role,
    handshake::Handshake,
    limits::STREAMS,
    runtime::within,
    shares::{ProcessorShares, SharedRuntime},
    slots::Slot,
    tls,
    warning_limiter::WarningLimiter,
};

/// Accepted connections that wait for [`Endpoint::accept`]. Further ones wait within their handshake, and count as
/// such.
const READY: usize = 64;

/// Counters of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Open connections, dialled and accepted, handshakes included.
    pub connections: usize,
    /// Open connections accepted from nodes.
    pub peers: usize,
    /// Open connections accepted from clients.
    pub clients: usize,
    /// Clients among them that were not admitted yet ([`Connection::admit`]).
    pub new_clients: usize,
    /// Incoming handshakes that became a connection.
    pub accepted: u64,
    /// Incoming handshakes that failed: wrong certificate, wrong protocol, too slow.
    pub failed: u64,
    /// Attempts refused because a limit was reached.
    pub refused: u64,
}

/// One UDP port. Clones are cheap and share it. When the last one is dropped, the port and its connections are closed.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quic: quinn::Endpoint,
    local: SocketAddr,
    handshake: Arc<Handshake>,
    /// Of an endpoint with a certificate; it stays when that is replaced.
    retry_key: Option<Arc<dyn HandshakeTokenKey>>,
    ready: Mutex<mpsc::Receiver<Accepted>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// No new connections are accepted.
    closed_to_new: AtomicBool,
    accepted: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("local", &self.local)
            .field("identity", &self.handshake.identity())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quic.close(VarInt::from_u32(CloseCode::SHUTDOWN.0), b"the endpoint is gone");
    }
}

impl Endpoint {
    /// Binds `addr`, port 0 for any free one. An endpoint with a node's identity accepts and dials, one with a client's
    /// only dials. Must be called within a tokio runtime, which then drives it.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::Bind`], [`Error::BadLimits`], [`Error::NoRuntime`].
    pub fn bind(addr: SocketAddr, identity: Identity, limits: Limits) -> Result<Self, Error> {
        Self::bind_on(&OsNetwork, None, addr, identity, limits)
    }

    /// As [`Endpoint::bind`], on a network of the caller's. A seed makes QUIC's random choices repeatable, not those of
    /// TLS.
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

    /// Binds a UDP port, 0 for any free one. It is not served until it is passed to [`Endpoint::bind_with`].
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::Bind`].
    pub fn open_port(
        network: &dyn Network,
        addr: SocketAddr,
        limits: &Limits,
    ) -> Result<Arc<dyn AsyncUdpSocket>, Error> {
        network.open(addr, limits.socket_buffer).map_err(|error| bind_error(addr, &error))
    }

    /// Binds any free port on all addresses, for an endpoint that only dials: IPv6 and IPv4 where the system has both,
    /// else IPv4.
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
    pub fn for_dialling_on(
        network: &dyn Network,
        seed: Option<[u8; 32]>,
        identity: Identity,
        limits: Limits,
    ) -> Result<Self, Error> {
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        match Self::bind_on(network, seed, any6, identity.clone(), limits.clone()) {
            Err(Error::Bind { .. }) => {
                Self::bind_on(network, seed, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), identity, limits)
            }
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
        let retry_key = identity.credentials.as_deref().map(Limits::retry_key);
        let server = server_config(&identity, &limits, retry_key.as_ref())?;
        let config = limits.endpoint_config(seed, identity.credentials.as_deref())?;
        let quic =
            quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(SharedRuntime(runtime.clone())));
        let quic = quic.map_err(|error| bind_error(local, &error))?;
        let (sender, receiver) = mpsc::channel(READY);
        let counters = Arc::<Counters>::default();
        let handshake = Arc::new(Handshake::new(runtime.clone(), Arc::new(limits), identity));
        let acceptor = Acceptor {
            quic: quic.clone(),
            handshake: handshake.clone(),
            ready: sender,
            counters: counters.clone(),
            warnings: Arc::default(),
        };
        runtime.spawn(Box::pin(acceptor.run()));
        Ok(Self(Arc::new(Inner { quic, local, handshake, retry_key, ready: Mutex::new(receiver), counters })))
    }

    /// The bound address, with its actual port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// The identity in use.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.0.handshake.identity()
    }

    /// How the processor time of its accepted clients is shared out. Each is of the flow that
    /// [`Connection::charge_to`] names.
    #[must_use]
    pub fn processor_shares(&self) -> ProcessorShares {
        self.0.handshake.shares.clone()
    }

    /// Spreads the connections that are accepted from now on over these runtimes, in turn: the tasks of a connection
    /// are spawned on its runtime, which also has its timers. The port is still read by the runtime in which the
    /// endpoint was bound. Empty: that runtime has all connections. To be called once, before a connection is accepted.
    pub fn spread_over(&self, runtimes: &[Handle]) {
        self.0.handshake.spread.over(runtimes);
    }

    /// The runtime whose turn it is to have the connection to a peer: it should be dialled there. `None` if the
    /// connections are not spread.
    #[must_use]
    pub fn runtime_for_peer(&self) -> Option<Handle> {
        self.0.handshake.spread.next(true)
    }

    /// Replaces the certificate, which must be of the same subject, and the authority's certificate, of the same
    /// cluster, for handshakes that begin from now on. Open connections stay.
    ///
    /// # Errors
    /// [`Error::OtherSubject`], [`Error::WrongCluster`], [`Error::Tls`]. The identity is unchanged then.
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
        let server = server_config(&identity, &handshake.limits, self.0.retry_key.as_ref())?;
        handshake.set_identity(identity);
        self.0.quic.set_server_config(server);
        Ok(())
    }

    /// Dials a node as a peer. Returns once the other side has accepted our certificate and all streams are ready, at
    /// the latest after [`Limits::handshake`].
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

    /// As [`Endpoint::connect_peer`], at the first IP address of `address` where the node answers.
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
        Err(last.unwrap_or_else(|| no_ip_address(address)))
    }

    /// Resolves an address to at least one IP address. Host names are looked up by the system at each call, for at most
    /// [`Limits::handshake`].
    ///
    /// # Errors
    /// [`Error::Unresolved`].
    pub async fn resolve(&self, address: &Address) -> Result<Vec<SocketAddr>, Error> {
        if let Some(address) = address.ip() {
            return Ok(vec![address]);
        }
        let handshake = &self.0.handshake;
        let found = within(&*handshake.runtime, handshake.limits.handshake, resolve(address)).await;
        found.unwrap_or_else(|| {
            Err(Error::Unresolved { address: address.clone(), why: "the resolver does not answer".into() })
        })
    }

    /// Dials a node as a client. Any node of the cluster may answer.
    ///
    /// # Errors
    /// As [`Endpoint::connect_peer`], except for the errors about names.
    pub async fn connect_client(&self, addr: SocketAddr) -> Result<Connection, Error> {
        self.0.handshake.dial(&self.0.quic, addr, None).await
    }

    /// The next accepted connection, after its handshake. Handshakes run concurrently. `None` once the endpoint is
    /// closed. An endpoint without a node's identity accepts none.
    pub async fn accept(&self) -> Option<Accepted> {
        self.0.ready.lock().await.recv().await
    }

    /// Reserves two handshake slots for each of these addresses of peers, beside [`Limits::max_handshakes`]. Replaces
    /// the addresses of an earlier call. A peer dials from the port at which it listens.
    pub fn expect_peers(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.handshake.slots.expect(addresses);
    }

    /// Refuses new attempts from now on. Open connections and pending handshakes continue.
    pub fn refuse_new(&self) {
        self.0.counters.closed_to_new.store(true, Ordering::Relaxed);
    }

    /// Closes every connection with that code and reason and accepts no more. Returns once the close was sent to the
    /// other sides that can be reached.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.0.quic.close(VarInt::from_u32(code.0), reason.as_bytes());
        self.0.quic.wait_idle().await;
    }

    /// The counters of this endpoint.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        let (counters, slots) = (&self.0.counters, self.0.handshake.slots.counts());
        EndpointStats {
            connections: self.0.quic.open_connections(),
            peers: slots.peers,
            clients: slots.clients,
            new_clients: slots.new_clients,
            accepted: counters.accepted.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}

/// The task that takes incoming attempts, and spawns a task for each handshake.
struct Acceptor {
    quic: quinn::Endpoint,
    handshake: Arc<Handshake>,
    ready: mpsc::Sender<Accepted>,
    counters: Arc<Counters>,
    warnings: Arc<WarningLimiter>,
}

impl Acceptor {
    async fn run(self) {
        while let Some(incoming) = self.quic.accept().await {
            let handshake = &self.handshake;
            let (limits, counters) = (&handshake.limits, &self.counters);
            if counters.closed_to_new.load(Ordering::Relaxed)
                || self.quic.open_connections() >= most_connections(limits)
            {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                incoming.refuse();
            } else if !incoming.remote_address_validated() {
                // The sender proves its address first (a QUIC Retry), or it could be another's: a handshake would send
                // three times the attempt's bytes there, and what closes it at its end, and take a slot meanwhile.
                if incoming.retry().is_err() {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                }
            } else if let Some((slot, evicted)) =
                handshake.slots.handshake(incoming.remote_address(), handshake.runtime.now())
            {
                self.spawn_handshake(incoming, slot, evicted);
            } else {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                incoming.refuse();
            }
        }
    }

    fn spawn_handshake(&self, incoming: quinn::Incoming, slot: Slot, evicted: oneshot::Receiver<()>) {
        let (handshake, ready, counters) = (self.handshake.clone(), self.ready.clone(), self.counters.clone());
        let warnings = self.warnings.clone();
        let is_expected = slot.is_reserved();
        let on = self.handshake.spread.next(is_expected);
        let task = async move {
            let remote = incoming.remote_address();
            let accepted = tokio::select! {
                biased;
                accepted = handshake.accept(incoming, is_expected) => accepted,
                Ok(()) = evicted => Err(Error::NoSlot { whom: "handshakes" }),
            };
            match accepted {
                Ok(accepted) => {
                    counters.accepted.fetch_add(1, Ordering::Relaxed);
                    // Fails only when the endpoint is gone: the connection is then closed by the drop.
                    let _ = ready.send(accepted).await;
                }
                Err(error) => {
                    let counter =
                        if matches!(error, Error::NoSlot { .. }) { &counters.refused } else { &counters.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if warnings.allows(remote.ip(), &error, handshake.runtime.now()) {
                        tracing::warn!(%remote, %error, "incoming connection refused");
                    } else {
                        tracing::info!(%remote, %error, "incoming connection refused");
                    }
                }
            }
            drop(slot);
        };
        match on {
            // quinn spawns the connection's own task on the runtime in which it is accepted.
            Some(on) => drop(on.spawn(task)),
            None => self.handshake.runtime.spawn(Box::pin(task)),
        }
    }
}

/// The limit of open connections of all kinds. Half of it is for connections that have ended and wait for late packets.
fn most_connections(limits: &Limits) -> usize {
    limits.max_connections.saturating_add(limits.max_peers).saturating_add(limits.max_handshakes).saturating_mul(2)
}

/// The server configuration, `None` without a node's identity.
fn server_config(
    identity: &Identity,
    limits: &Limits,
    retry_key: Option<&Arc<dyn HandshakeTokenKey>>,
) -> Result<Option<quinn::ServerConfig>, Error> {
    let Some(crypto) = tls::server_config(identity)? else { return Ok(None) };
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(limits.transport(STREAMS)?));
    limits.apply_to(&mut config);
    if let Some(key) = retry_key {
        config.token_key(key.clone());
    }
    Ok(Some(config))
}

fn bind_error(addr: SocketAddr, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse { addr },
        _ => Error::Bind { addr, why: error.to_string() },
    }
}

/// Resolves an address with the system's resolver to at least one IP address.
///
/// # Errors
/// [`Error::Unresolved`].
pub async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = address.ip() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host(address.to_string()).await;
    let found: Vec<SocketAddr> =
        found.map_err(|why| Error::Unresolved { address: address.clone(), why: why.to_string() })?.collect();
    if found.is_empty() { Err(no_ip_address(address)) } else { Ok(found) }
}

fn no_ip_address(address: &Address) -> Error {
    Error::Unresolved { address: address.clone(), why: "it has no IP address".into() }
}
