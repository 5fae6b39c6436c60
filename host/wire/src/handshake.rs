//! Makes a [`Connection`] of a dialled address or an incoming attempt, within [`Limits::handshake`]. TLS verifies the
//! certificates (`tls.rs`); this module checks that the certificate may use the protocol, takes a slot, and opens the
//! streams (`preamble.rs`).

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use quinn::{ConnectError, ConnectionError, Runtime, VarInt, crypto::rustls::HandshakeData};
use rustls_pki_types::CertificateDer;

use rejoin_proto::{ClusterId, Name};

use crate::shares::{ProcessorShares, Share};
use crate::slots::ConnectionSlots;
use crate::spread::Spread;
use crate::{
    CLIENT_PROTOCOL, CloseCode, Closed, Connection, Error, Identity, Limits, NODE_DNS_NAME, PEER_PROTOCOL, Subject,
    Validity,
    connection::{Accepted, AcceptedAs},
    identity::Remote,
    preamble,
    runtime::within,
    tls,
};

/// The TLS alert for "none of these protocols" (RFC 7301).
const ALERT_NO_PROTOCOL: u8 = 120;
/// QUIC carries a TLS alert as 0x100 + alert (RFC 9001).
const QUIC_CRYPTO_ERROR: std::ops::Range<u64> = 0x100..0x200;

/// Shared by dialled and accepted connections.
pub(crate) struct Handshake {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) slots: Arc<ConnectionSlots>,
    /// Of accepted clients.
    pub(crate) shares: ProcessorShares,
    pub(crate) spread: Spread,
    identity: RwLock<Identity>,
}

impl Handshake {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, limits: Arc<Limits>, identity: Identity) -> Self {
        let slots = ConnectionSlots::new(limits.clone());
        let (shares, identity) = (ProcessorShares::new(), RwLock::new(identity));
        Self { runtime, limits, slots, shares, spread: Spread::default(), identity }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Dials `addr` as a peer of the node `expected`, or, without a name, as a client of any node.
    pub(crate) async fn dial(
        &self,
        quic: &quinn::Endpoint,
        addr: SocketAddr,
        expected: Option<Name>,
    ) -> Result<Connection, Error> {
        let attempt = self.try_dial(quic, addr, expected);
        let in_time = within(&*self.runtime, self.limits.handshake, attempt).await;
        in_time.unwrap_or(Err(Error::Unreachable { addr, waited: self.limits.handshake }))
    }

    async fn try_dial(
        &self,
        quic: &quinn::Endpoint,
        addr: SocketAddr,
        expected: Option<Name>,
    ) -> Result<Connection, Error> {
        let protocol = if expected.is_some() { PEER_PROTOCOL } else { CLIENT_PROTOCOL };
        let identity = self.identity();
        let (crypto, refusal) = tls::client_config(&identity, protocol, expected)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(self.limits.transport(0)?));
        let connecting = quic.connect_with(config, addr, NODE_DNS_NAME).map_err(|error| connect_error(error, addr))?;
        let explain = |error| refusal.get().cloned().unwrap_or_else(|| dial_error(error, addr, protocol, &self.limits));
        let connection = CloseOnDrop::guard(connecting.await.map_err(explain)?);
        let remote = certificate_of(&connection.0)?;
        let streams = match preamble::open(&connection.0).await {
            Ok(streams) => streams,
            // In TLS 1.3 the server checks our certificate after our handshake is complete: its refusal arrives only
            // now.
            Err(Error::Lost(lost)) => {
                let error = connection.0.close_reason().map(|error| dial_error(error, addr, protocol, &self.limits));
                return Err(error.unwrap_or(Error::Lost(lost)));
            }
            Err(error) => return Err(connection.reject(error)),
        };
        Ok(Connection::start(
            &*self.runtime,
            connection.disarm(),
            streams,
            &self.limits,
            identity.subject(),
            remote,
            None,
        ))
    }

    /// Completes the handshake of an incoming attempt. On failure the other side has been sent the reason. An expected
    /// peer does not wait for newcomers' processor time.
    pub(crate) async fn accept(&self, incoming: quinn::Incoming, is_expected: bool) -> Result<Accepted, Error> {
        let addr = incoming.remote_address();
        let share = if is_expected { self.shares.exempt() } else { self.shares.newcomer() };
        let attempt = self.try_accept(incoming, share);
        let in_time = within(&*self.runtime, self.limits.handshake, attempt).await;
        in_time.unwrap_or(Err(Error::Unreachable { addr, waited: self.limits.handshake }))
    }

    async fn try_accept(&self, incoming: quinn::Incoming, share: Arc<Share>) -> Result<Accepted, Error> {
        let addr = incoming.remote_address();
        let lost = |error| accept_error(error, addr);
        let connecting = share.spawning(|| incoming.accept()).map_err(lost)?;
        let connection = CloseOnDrop::guard(connecting.await.map_err(lost)?);
        // Checked before any stream is accepted or read.
        let identity = self.identity();
        let (remote, node) = match authorize(&connection.0, identity.cluster) {
            Ok(authorized) => authorized,
            Err(error) => return Err(connection.reject(error)),
        };
        if node.is_some() {
            share.exempt();
        }
        let new = node.is_none() && self.limits.first_frame.is_some();
        let slot = match &node {
            Some(_) => self.slots.peer(),
            None => self.slots.client(&connection.0, new),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => return Err(connection.reject(error)),
        };
        if !new {
            connection.0.set_receive_window(self.limits.window());
        }
        let streams = match preamble::accept(&connection.0).await {
            Ok(streams) => streams,
            Err(error) => return Err(connection.reject(error)),
        };
        let connection = Connection::start(
            &*self.runtime,
            connection.disarm(),
            streams,
            &self.limits,
            identity.subject(),
            remote,
            Some(AcceptedAs { slot, new, share }),
        );
        Ok(match node {
            Some(name) => Accepted::Peer(connection, name),
            None => Accepted::Client(connection),
        })
    }
}

/// Closes a connection whose handshake is dropped, for instance by the deadline.
struct CloseOnDrop(quinn::Connection, bool);

impl CloseOnDrop {
    fn guard(connection: quinn::Connection) -> Self {
        Self(connection, true)
    }

    fn disarm(mut self) -> quinn::Connection {
        self.1 = false;
        self.0.clone()
    }

    /// Closes the connection with a code and text for `error`, and returns the error.
    fn reject(mut self, error: Error) -> Error {
        let (code, words) = preamble::close_reason(&error);
        self.0.close(VarInt::from_u32(code.0), words.as_bytes());
        self.1 = false;
        error
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.close(VarInt::from_u32(CloseCode::TOO_SLOW.0), b"the handshake was given up");
        }
    }
}

/// The other side of an accepted connection, and its name if it is a peer. TLS has verified its certificate, if it sent
/// one.
fn authorize(connection: &quinn::Connection, cluster: ClusterId) -> Result<(Option<Remote>, Option<Name>), Error> {
    let remote = certificate_of(connection)?;
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol).unwrap_or_default();
    if protocol == CLIENT_PROTOCOL.as_bytes() {
        Ok((remote, None))
    } else if protocol == PEER_PROTOCOL.as_bytes() {
        let Some(remote) = remote else { return Err(Error::NoCertificate) };
        let name = remote.subject.clone().expect_node(cluster)?;
        Ok((Some(remote), Some(name)))
    } else {
        Err(Error::NoSuchProtocol { addr: connection.remote_address(), protocol: "unknown" })
    }
}

/// The certificate of the other side, `None` if it sent none.
fn certificate_of(connection: &quinn::Connection) -> Result<Option<Remote>, Error> {
    let chain =
        connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(certificate) = chain.as_ref().and_then(|chain| chain.first()) else { return Ok(None) };
    Ok(Some(Remote { subject: Subject::of(certificate)?, validity: Validity::of(certificate)? }))
}

fn connect_error(error: ConnectError, addr: SocketAddr) -> Error {
    match error {
        ConnectError::EndpointStopping => Error::EndpointClosed,
        other => Error::Bind { addr, why: other.to_string() },
    }
}

fn dial_error(error: ConnectionError, addr: SocketAddr, protocol: &'static str, limits: &Limits) -> Error {
    match error {
        // Our side refused the certificate or the TLS parameters of the other side.
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(ALERT_NO_PROTOCOL) => Error::NoSuchProtocol { addr, protocol },
            Some(_) => Error::Untrusted { addr, why: with_advice(error.reason) },
            None => Error::Lost(Closed::Transport(error.to_string())),
        },
        // The other side refused ours.
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(ALERT_NO_PROTOCOL) => Error::NoSuchProtocol { addr, protocol },
            Some(alert) => Error::CertificateRefused { addr, alert, why: alert_meaning(alert, &close.reason) },
            None => Error::Refused { addr, closed: Closed::Transport(close.to_string()) },
        },
        ConnectionError::ApplicationClosed(_) => Error::Refused { addr, closed: error.into() },
        ConnectionError::TimedOut => Error::Unreachable { addr, waited: limits.idle_timeout },
        ConnectionError::VersionMismatch => Error::NoSuchProtocol { addr, protocol },
        other => Error::Lost(other.into()),
    }
}

/// The error of an incoming attempt that failed before it was a connection.
fn accept_error(error: ConnectionError, addr: SocketAddr) -> Error {
    match error {
        // Our verifier refused the certificate of the other side.
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(ALERT_NO_PROTOCOL) | None => Error::Lost(Closed::Transport(error.to_string())),
            Some(_) => Error::Untrusted { addr, why: with_advice(error.reason) },
        },
        // The other side refused ours.
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(ALERT_NO_PROTOCOL) | None => Error::Lost(Closed::Transport(close.to_string())),
            Some(alert) => Error::CertificateRefused { addr, alert, why: alert_meaning(alert, &close.reason) },
        },
        other => Error::Lost(Closed::from(other)),
    }
}

/// The verifier's text, with advice where the cause is known.
fn with_advice(why: String) -> String {
    if why.contains("certificate expired") || why.contains("not valid yet") {
        format!("{why}; if the clocks of both machines are right, it has to be renewed with `rejoin cert`")
    } else {
        why
    }
}

/// The meaning of a TLS alert about our certificate (RFC 8446, 6.2), and the text that came with it.
fn alert_meaning(alert: u8, said: &[u8]) -> String {
    let meaning = match alert {
        45 => "it has expired, or one of the two machines has a wrong clock: renew it with `rejoin cert`",
        48 => "another authority has signed it",
        49 => "it is of another cluster, or names nobody of this one",
        116 => "none was shown",
        _ => "it is not taken",
    };
    let said = String::from_utf8_lossy(said);
    if said.is_empty() { meaning.into() } else { format!("{meaning}; it said: {said}") }
}

fn alert(code: u64) -> Option<u8> {
    QUIC_CRYPTO_ERROR.contains(&code).then_some((code & 0xff) as u8)
}
