//! From a socket address or an incoming attempt to a [`Connection`], within a deadline.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use quinn::{ConnectError, ConnectionError, Runtime, VarInt, crypto::rustls::HandshakeData};
use rustls_pki_types::CertificateDer;

use rejoin_proto::{ClusterId, Name};

use crate::places::Places;
use crate::{
    CLIENT_PROTOCOL, CloseCode, Closed, Connection, Error, Identity, Limits, NODE_DNS_NAME, PEER_PROTOCOL, Period, Subject,
    endpoint::Accepted, hello, runtime::within, tls,
};

/// The TLS alert for "none of these protocols" (RFC 7301).
const ALERT_NO_PROTOCOL: u8 = 120;
/// QUIC carries a TLS alert as 0x100 + alert (RFC 9001).
const QUIC_CRYPTO_ERROR: std::ops::Range<u64> = 0x100..0x200;

/// What both directions need.
pub(crate) struct Handshake {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) places: Arc<Places>,
    identity: RwLock<Identity>,
}

impl Handshake {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, limits: Arc<Limits>, identity: Identity) -> Self {
        let places = Places::new(limits.clone());
        Self { runtime, limits, places, identity: RwLock::new(identity) }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Dials `addr` as a peer that expects that node, or, without a name, as a client of whichever node answers.
    pub(crate) async fn dial(&self, quic: &quinn::Endpoint, addr: SocketAddr, expected: Option<Name>) -> Result<Connection, Error> {
        let attempt = self.try_dial(quic, addr, expected);
        let in_time = within(&*self.runtime, self.limits.handshake, attempt).await;
        in_time.unwrap_or(Err(Error::Unreachable { addr, waited: self.limits.handshake }))
    }

    async fn try_dial(&self, quic: &quinn::Endpoint, addr: SocketAddr, expected: Option<Name>) -> Result<Connection, Error> {
        let protocol = if expected.is_some() { PEER_PROTOCOL } else { CLIENT_PROTOCOL };
        let identity = self.identity();
        let (crypto, refusal) = tls::client_config(&identity, protocol, expected)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(self.limits.transport(0)?));
        let connecting = quic.connect_with(config, addr, NODE_DNS_NAME).map_err(|error| not_dialled(error, addr))?;
        let explain = |error| refusal.get().cloned().unwrap_or_else(|| dial_error(error, addr, protocol, &self.limits));
        let connection = Abandon::guard(connecting.await.map_err(explain)?);
        let remote = certificate_of(&connection.0)?;
        let streams = match hello::open(&connection.0).await {
            Ok(streams) => streams,
            // What TLS refuses after our last flight arrives only now.
            Err(Error::Lost(lost)) => {
                let error = connection.0.close_reason().map(|error| dial_error(error, addr, protocol, &self.limits));
                return Err(error.unwrap_or(Error::Lost(lost)));
            }
            Err(error) => return Err(connection.turn_away(error)),
        };
        Ok(Connection::start(&*self.runtime, connection.keep(), streams, &self.limits, identity.subject(), remote, None))
    }

    /// Brings an incoming attempt to its end. The other side has been told why when this fails.
    pub(crate) async fn accept(&self, incoming: quinn::Incoming) -> Result<Accepted, Error> {
        let addr = incoming.remote_address();
        let attempt = self.try_accept(incoming);
        let in_time = within(&*self.runtime, self.limits.handshake, attempt).await;
        in_time.unwrap_or(Err(Error::Unreachable { addr, waited: self.limits.handshake }))
    }

    async fn try_accept(&self, incoming: quinn::Incoming) -> Result<Accepted, Error> {
        let addr = incoming.remote_address();
        let lost = |error| accept_error(error, addr);
        let connection = Abandon::guard(incoming.accept().map_err(lost)?.await.map_err(lost)?);
        // Before a stream is accepted or a byte of it read: may this certificate speak this protocol?
        let identity = self.identity();
        let (remote, node) = match admit(&connection.0, identity.cluster) {
            Ok(admitted) => admitted,
            Err(error) => return Err(connection.turn_away(error)),
        };
        let new = node.is_none() && self.limits.first_frame.is_some();
        let place = match &node {
            Some(_) => self.places.peer(),
            None => self.places.client(&connection.0, new),
        };
        let place = match place {
            Ok(place) => place,
            Err(error) => return Err(connection.turn_away(error)),
        };
        if !new {
            connection.0.set_receive_window(self.limits.window());
        }
        let streams = match hello::accept(&connection.0).await {
            Ok(streams) => streams,
            Err(error) => return Err(connection.turn_away(error)),
        };
        let connection =
            Connection::start(&*self.runtime, connection.keep(), streams, &self.limits, identity.subject(), remote, Some((place, new)));
        Ok(match node {
            Some(name) => Accepted::Peer(connection, name),
            None => Accepted::Client(connection),
        })
    }
}

/// Closes a half-made connection when its handshake is given up, also by the deadline.
struct Abandon(quinn::Connection, bool);

impl Abandon {
    fn guard(connection: quinn::Connection) -> Self {
        Self(connection, true)
    }

    fn keep(mut self) -> quinn::Connection {
        self.1 = false;
        self.0.clone()
    }

    /// Tells the other side why, and hands the reason back.
    fn turn_away(mut self, error: Error) -> Error {
        let (code, words) = hello::answer(&error);
        self.0.close(VarInt::from_u32(code.0), words.as_bytes());
        self.1 = false;
        error
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if self.1 {
            self.0.close(VarInt::from_u32(CloseCode::TOO_SLOW.0), b"the handshake was given up");
        }
    }
}

/// Who is at the other end of an accepted connection; a name if it is a peer. Its certificate, if any, has been
/// verified by TLS.
fn admit(connection: &quinn::Connection, cluster: ClusterId) -> Result<(Option<Remote>, Option<Name>), Error> {
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

/// What the verified certificate of the other side says.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) subject: Subject,
    pub(crate) period: Period,
}

/// The certificate of the other side; none if it showed none.
fn certificate_of(connection: &quinn::Connection) -> Result<Option<Remote>, Error> {
    let chain = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(certificate) = chain.as_ref().and_then(|chain| chain.first()) else { return Ok(None) };
    Ok(Some(Remote { subject: Subject::of(certificate)?, period: Period::of(certificate)? }))
}

fn not_dialled(error: ConnectError, addr: SocketAddr) -> Error {
    match error {
        ConnectError::EndpointStopping => Error::EndpointClosed,
        other => Error::Bind { addr, why: other.to_string() },
    }
}

fn dial_error(error: ConnectionError, addr: SocketAddr, protocol: &'static str, limits: &Limits) -> Error {
    match error {
        // Our verifier, or our TLS, has refused what the other side showed.
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(ALERT_NO_PROTOCOL) => Error::NoSuchProtocol { addr, protocol },
            Some(_) => Error::Untrusted { addr, why: plainly(error.reason) },
            None => Error::Lost(Closed::Transport(error.to_string())),
        },
        // The other side has refused what we showed.
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(ALERT_NO_PROTOCOL) => Error::NoSuchProtocol { addr, protocol },
            Some(alert) => Error::CertificateRefused { addr, alert, why: meaning(alert, &close.reason) },
            None => Error::Refused { addr, closed: Closed::Transport(close.to_string()) },
        },
        ConnectionError::ApplicationClosed(_) => Error::Refused { addr, closed: error.into() },
        ConnectionError::TimedOut => Error::Unreachable { addr, waited: limits.idle_timeout },
        ConnectionError::VersionMismatch => Error::NoSuchProtocol { addr, protocol },
        other => Error::Lost(other.into()),
    }
}

/// Why an incoming attempt has failed before its connection was made.
fn accept_error(error: ConnectionError, addr: SocketAddr) -> Error {
    match error {
        // Our verifier has refused what the other side showed.
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(ALERT_NO_PROTOCOL) | None => Error::Lost(Closed::Transport(error.to_string())),
            Some(_) => Error::Untrusted { addr, why: plainly(error.reason) },
        },
        // The other side has refused what we showed.
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(ALERT_NO_PROTOCOL) | None => Error::Lost(Closed::Transport(close.to_string())),
            Some(alert) => Error::CertificateRefused { addr, alert, why: meaning(alert, &close.reason) },
        },
        other => Error::Lost(Closed::from(other)),
    }
}

/// What our verifier says, with what to do about it where that is known.
fn plainly(why: String) -> String {
    if why.contains("certificate expired") || why.contains("not valid yet") {
        format!("{why}; if the clocks of both machines are right, it has to be renewed with `rejoin cert`")
    } else {
        why
    }
}

/// What a TLS alert about our certificate means (RFC 8446, 6.2), and what the other side has said.
fn meaning(alert: u8, said: &[u8]) -> String {
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
