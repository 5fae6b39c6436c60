//! Errors, with advice in their texts, and the codes and reasons with which connections close.

use std::{fmt, net::SocketAddr, time::Duration};

use rejoin_proto::{Address, ClusterId, Name};

use crate::{Class, Subject};

/// Why an endpoint, a certificate or a connection could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A PEM file is malformed or holds something else.
    #[error("{what} cannot be read: {why}; make it again with `rejoin cert`")]
    BadPem {
        /// The file, as part of a sentence.
        what: &'static str,
        /// The cause.
        why: String,
    },
    /// A certificate has no subject of the form that Rejoin uses.
    #[error(
        "the certificate carries no single name of the form rejoin://<cluster>/node/<name>; make it with `rejoin cert`"
    )]
    NoIdentity,
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {subject}; give the pair that was made together")]
    KeyMismatch {
        /// The certificate's subject.
        subject: Subject,
    },
    /// A certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Issue(String),
    /// The remote certificate was not signed by this cluster's authority, or has expired.
    #[error(
        "{addr} shows a certificate that this cluster's authority does not vouch for ({why}); check the address and \
            the CA file"
    )]
    Untrusted {
        /// The dialled address.
        addr: SocketAddr,
        /// The verifier's text.
        why: String,
    },
    /// A certificate is of another cluster.
    #[error("the certificate is of cluster {found}, this is cluster {expected}; check the address and the CA file")]
    WrongCluster {
        /// Ours.
        expected: ClusterId,
        /// The certificate's.
        found: ClusterId,
    },
    /// Another node answers at that address.
    #[error("node {found} answers where {expected} was expected; check the address in the layout")]
    WrongNode {
        /// The node that was expected.
        expected: Name,
        /// The node that answered.
        found: Name,
    },
    /// The certificate files of a running endpoint were replaced by those of another subject.
    #[error(
        "the certificate is of {found}, and this side is {expected}; make one for the same name with `rejoin cert`"
    )]
    OtherSubject {
        /// The subject of this side.
        expected: String,
        /// The subject of the new certificate.
        found: String,
    },
    /// A certificate of a client or an authority, where that of a node is needed.
    #[error("{subject} is not a node; a node certificate is needed here (`rejoin cert node`)")]
    NotANode {
        /// The certificate's subject.
        subject: Subject,
    },
    /// No certificate, where that of a node is needed.
    #[error("no certificate where a node's is needed; make one with `rejoin cert node`")]
    NoCertificate,
    /// The other side refuses our certificate.
    #[error("{addr} refuses our certificate (TLS alert {alert}: {why}); use one that its cluster's authority signed")]
    CertificateRefused {
        /// The dialled address.
        addr: SocketAddr,
        /// The TLS alert.
        alert: u8,
        /// The meaning of the alert.
        why: String,
    },
    /// The other side does not speak our protocol.
    #[error("{addr} speaks none of our protocols ({protocol}); is it a Rejoin node of this version?")]
    NoSuchProtocol {
        /// The dialled address.
        addr: SocketAddr,
        /// The protocol that was offered.
        protocol: &'static str,
    },
    /// Another program has the port.
    #[error("{addr} is in use by another program; stop it or choose another port")]
    AddressInUse {
        /// The wanted address.
        addr: SocketAddr,
    },
    /// The socket could not be opened.
    #[error("{addr} cannot be opened: {why}")]
    Bind {
        /// The wanted address.
        addr: SocketAddr,
        /// The system's text.
        why: String,
    },
    /// A host name has no IP address.
    #[error("{address} cannot be found: {why}; check the host name and the resolver of this machine")]
    Unresolved {
        /// The address to resolve.
        address: Address,
        /// The resolver's text.
        why: String,
    },
    /// Nobody answered in time.
    #[error("{addr} did not answer within {} ms; is the node up, and does UDP pass?", waited.as_millis())]
    Unreachable {
        /// The dialled address.
        addr: SocketAddr,
        /// The time-out.
        waited: Duration,
    },
    /// The other side uses another version of the framing.
    #[error("the other side speaks wire version {theirs}, this one {ours}; upgrade the older one")]
    Version {
        /// Ours.
        ours: u16,
        /// Theirs.
        theirs: u16,
    },
    /// A stream did not begin with the preamble.
    #[error("the other side does not begin its streams as Rejoin does; is it another program?")]
    Foreign,
    /// The other side closed the connection during the handshake.
    #[error("{addr} refuses the connection: {closed}")]
    Refused {
        /// The dialled address.
        addr: SocketAddr,
        /// Its reason.
        closed: Closed,
    },
    /// All slots of a kind are taken.
    #[error("all slots for connections of {whom} are taken; close some, or raise the limit")]
    NoSlot {
        /// `nodes`, `clients` or `handshakes`.
        whom: &'static str,
    },
    /// The connection ended during the handshake.
    #[error("the connection was lost: {0}")]
    Lost(Closed),
    /// A value of [`Limits`](crate::Limits) is out of range.
    #[error("bad limits: {0}")]
    BadLimits(&'static str),
    /// The endpoint was made outside a tokio runtime.
    #[error("an endpoint needs a tokio runtime with I/O and time enabled; call it inside one")]
    NoRuntime,
    /// The endpoint was closed.
    #[error("this endpoint is closed")]
    EndpointClosed,
    /// The TLS library refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Why a frame was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue of the class is full, because the other side reads slowly. Nothing was queued.
    #[error("the {0} queue is full; retry later or shed the load")]
    Full(Class),
    /// The connection has ended.
    #[error("the connection is closed")]
    Closed,
    /// The body is above the class's limit. Nothing was queued.
    #[error("a {class} frame of {len} bytes is above the limit of {limit}; split it or raise the limit on both sides")]
    TooLarge {
        /// The class.
        class: Class,
        /// The body's length, bytes.
        len: usize,
        /// The limit, bytes.
        limit: u32,
    },
}

/// The code with which a connection is closed. Codes below 256 belong to this crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// A normal close.
    pub const DONE: Self = Self(0);
    /// A violation of the protocol on a stream.
    pub const PROTOCOL: Self = Self(1);
    /// Another version of the framing.
    pub const VERSION: Self = Self(2);
    /// A frame above the limit.
    pub const FRAME_TOO_LARGE: Self = Self(3);
    /// A peer connection without a node's certificate.
    pub const NOT_A_NODE: Self = Self(4);
    /// The endpoint is shutting down.
    pub const SHUTDOWN: Self = Self(5);
    /// The handshake took too long.
    pub const TOO_SLOW: Self = Self(6);
    /// No slot is free, or the connection was evicted.
    pub const BUSY: Self = Self(7);
    /// The first code that is free for the application.
    pub const FIRST_FREE: Self = Self(256);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::DONE => "done",
            Self::PROTOCOL => "protocol error",
            Self::VERSION => "other version",
            Self::FRAME_TOO_LARGE => "frame too large",
            Self::NOT_A_NODE => "not a node",
            Self::SHUTDOWN => "shutting down",
            Self::TOO_SLOW => "handshake too slow",
            Self::BUSY => "busy",
            Self(code) => return write!(f, "code {code}"),
        };
        f.write_str(text)
    }
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The other side closed it.
    #[error("closed by the other side ({code}): {reason}")]
    ByPeer {
        /// Its code.
        code: CloseCode,
        /// Its text; untrusted.
        reason: String,
    },
    /// This side closed it.
    #[error("closed by this side ({code}): {reason}")]
    ByUs {
        /// Our code.
        code: CloseCode,
        /// Our text.
        reason: String,
    },
    /// Nothing arrived for [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    #[error("nothing was heard from the other side any more")]
    TimedOut,
    /// The other side no longer knows the connection: it has restarted.
    #[error("the other side has restarted")]
    Reset,
    /// The transport itself failed, or refused to start.
    #[error("transport error: {0}")]
    Transport(String),
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        match error {
            Quic::ApplicationClosed(close) => {
                let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
                Self::ByPeer { code: CloseCode(code), reason: String::from_utf8_lossy(&close.reason).into_owned() }
            }
            Quic::LocallyClosed => Self::ByUs { code: CloseCode::DONE, reason: "dropped".into() },
            Quic::TimedOut => Self::TimedOut,
            Quic::Reset => Self::Reset,
            other => Self::Transport(other.to_string()),
        }
    }
}
