//! Moves bytes: QUIC and TLS endpoints, certificates, frames and deadlines.
//!
//! One [`Endpoint`] is one UDP port. Nodes and clients speak to the same port: the protocol that TLS negotiates (ALPN)
//! decides which of the two a connection is. A connection between nodes is authenticated on both sides by certificates
//! of the cluster's own authority ([`cert::ClusterCa`]); a client verifies the node, and says who it is inside its
//! requests.
//!
//! A [`Connection`] carries *frames*: an id and a body that this crate does not interpret. Each traffic [`Class`] has
//! one bidirectional stream, so that a large transfer never delays a heartbeat. Within a class frames arrive in the
//! order in which they were sent. One writer task per connection writes all pending frames of a class at once.
//!
//! It never retries, reconnects or pairs requests with replies, and sets no time limits except for handshakes
//! ([`Limits::handshake`]).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rejoin_proto::{ClusterId, Name};
//! use rejoin_wire::{Accepted, Class, Endpoint, Identity, Limits, Validity, cert::ClusterCa};
//!
//! let ca = ClusterCa::create(ClusterId(7), Validity::years(std::time::SystemTime::now(), 10))?;
//! let issued = ca.issue_node(&Name::new("n1")?, &[], Validity::years(std::time::SystemTime::now(), 2))?;
//! let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem)?;
//! let node = Endpoint::bind("127.0.0.1:0".parse()?, identity, Limits::default())?;
//! let client = Endpoint::bind("127.0.0.1:0".parse()?, Identity::client(ca.cert_pem(), None)?, Limits::default())?;
//!
//! let connection = client.connect_client(node.local_addr()).await?;
//! let Some(Accepted::Client(at_node)) = node.accept().await else { panic!("a client was expected") };
//! connection.sender().try_send(Class::Request, 1, "hello".into())?;
//! let frame = at_node.recv().await.expect("the connection is open");
//! assert_eq!((frame.class, frame.id, &frame.body[..]), (Class::Request, 1, &b"hello"[..]));
//! # Ok(()) }
//! ```
//!
//! Reading order: [`cert`] and [`Identity`], [`Endpoint`], [`Connection`] and [`Sender`], [`Limits`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop"))]

pub mod cert;
mod connection;
mod der;
mod endpoint;
mod error;
mod frame;
mod handshake;
mod identity;
mod inbox;
mod limits;
mod network;
mod outbox;
mod preamble;
mod runtime;
mod shares;
mod signing;
mod slots;
mod spread;
mod subject;
mod tls;
mod utc;
mod validity;
mod warning_limiter;

pub use connection::{Accepted, Connection, ConnectionStats};
pub use endpoint::{Endpoint, EndpointStats, resolve};
pub use error::{CloseCode, Closed, Error, SendError};
pub use frame::{Class, Decoder, Frame, Oversized};
pub use identity::{Identity, MAX_AUTHORITIES};
pub use limits::{Limits, MAX_DATAGRAM, PerClass};
pub use network::{Network, OsNetwork};
pub use outbox::Sender;
pub use shares::{ProcessorShares, ShareWorker};
pub use signing::{SigningKey, is_signed};
pub use subject::{Role, Subject};
pub use tls::{CLIENT_PROTOCOL, NODE_DNS_NAME, PEER_PROTOCOL};
pub use utc::{utc_text, utc_text_ms};
pub use validity::Validity;
