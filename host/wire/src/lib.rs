//! Moves bytes: QUIC and TLS endpoints, certificates, frames and deadlines.
//!
//! One [`Endpoint`] is one UDP port. Nodes and clients speak to the same port: the protocol that TLS negotiates (ALPN)
//! decides which of the two a connection is. A connection between nodes is authenticated on both sides by certificates
//! of the cluster's own authority ([`cert::ClusterCa`]); a client verifies the node, and says who it is inside its
//! requests.
//!
//! A [`Connection`] carries whole *frames*: an id and a body that this crate never looks into. Frames travel on one
//! bidirectional stream per traffic [`Class`], so that a large transfer never stands in front of a heartbeat; within a
//! class they arrive in the order in which they were sent. One writer task per connection writes everything that is
//! pending for a class at once.
//!
//! What it does not do: no retries, no reconnecting, no request/response pairing, no knowledge of what a body means. It
//! never decides how long something may take, except for handshakes ([`Limits::handshake`]).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rejoin_proto::{ClusterId, Name};
//! use rejoin_wire::{Accepted, Class, Endpoint, Identity, Limits, cert::{ClusterCa, Validity}};
//!
//! let ca = ClusterCa::create(ClusterId(7), Validity::years(std::time::SystemTime::now(), 10))?;
//! let issued = ca.issue_node(&Name::new("n1")?, &[], Validity::years(std::time::SystemTime::now(), 2))?;
//! let node = Endpoint::bind("127.0.0.1:0".parse()?, Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem)?, Limits::default())?;
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
//! Reading order: [`cert`] and [`Identity`] (who), [`Endpoint`] (where), [`Connection`] and [`Sender`] (what),
//! [`Limits`] (how much).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop"))]

pub mod cert;
mod connection;
mod endpoint;
mod error;
mod frame;
mod handshake;
mod hello;
mod identity;
mod inbox;
mod limits;
mod network;
mod outbox;
mod period;
mod places;
mod runtime;
mod tls;
mod warned;

pub use connection::{Connection, ConnectionStats};
pub use endpoint::{Accepted, Endpoint, EndpointStats, resolve};
pub use error::{CloseCode, Closed, Error, SendError};
pub use frame::{Class, Decoder, Frame, Oversized};
pub use identity::{Identity, Role, Subject};
pub use limits::{Limits, PerClass};
pub use network::{Network, OsNetwork};
pub use outbox::Sender;
pub use period::{Period, utc_text};
pub use tls::{CLIENT_PROTOCOL, NODE_DNS_NAME, PEER_PROTOCOL};
