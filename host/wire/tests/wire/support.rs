//! Authorities, endpoints, pairs of endpoints, and a dialer that breaks the protocol.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration, time::SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use rejoin_proto::{ClusterId, Name};
use rejoin_wire::{
    Accepted, Connection, Endpoint, Identity, Limits, NODE_DNS_NAME, Validity,
    cert::{ClusterCa, Issued},
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn valid() -> Validity {
    Validity::years(SystemTime::now(), 2)
}

pub(crate) fn authority(cluster: ClusterId) -> ClusterCa {
    ClusterCa::create(cluster, valid()).unwrap()
}

/// The longest wait for an expected event.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("this should have happened by now")
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn node_of(ca: &ClusterCa, node: &str, limits: Limits) -> Endpoint {
    let issued = ca.issue_node(&name(node), &[], valid()).unwrap();
    let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    Endpoint::bind(loopback(), identity, limits).unwrap()
}

pub(crate) fn client_of(ca: &ClusterCa, limits: Limits) -> Endpoint {
    Endpoint::bind(loopback(), Identity::client(ca.cert_pem(), None).unwrap(), limits).unwrap()
}

pub(crate) async fn accept_peer(endpoint: &Endpoint) -> (Connection, Name) {
    match soon(endpoint.accept()).await {
        Some(Accepted::Peer(connection, name)) => (connection, name),
        other => panic!("a peer was expected, not {other:?}"),
    }
}

pub(crate) async fn accept_client(endpoint: &Endpoint) -> Connection {
    match soon(endpoint.accept()).await {
        Some(Accepted::Client(connection)) => connection,
        other => panic!("a client was expected, not {other:?}"),
    }
}

/// Two nodes and the connection between them, seen from both ends.
pub(crate) struct Pair {
    pub(crate) dialer: Connection,
    pub(crate) acceptor: Connection,
    pub(crate) endpoints: [Endpoint; 2],
}

pub(crate) async fn pair(limits: Limits) -> Pair {
    let ca = authority(CLUSTER);
    let (one, two) = (node_of(&ca, "n1", limits.clone()), node_of(&ca, "n2", limits));
    let n2 = name("n2");
    let (dialer, (acceptor, from)) = tokio::join!(soon(one.connect_peer(two.local_addr(), &n2)), accept_peer(&two));
    assert_eq!(from, name("n1"));
    Pair { dialer: dialer.unwrap(), acceptor, endpoints: [one, two] }
}

/// The endpoint still serves an honest client.
pub(crate) async fn still_serves(ca: &ClusterCa, node: &Endpoint) {
    let client = client_of(ca, Limits::default());
    let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(node));
    let dialled = dialled.unwrap();
    accepted.admit();
    dialled.sender().try_send(rejoin_wire::Class::Request, 9, "ping".into()).unwrap();
    assert_eq!(soon(accepted.recv()).await.unwrap().body, "ping");
}

/// A QUIC connection with any certificate and any protocol, from a dialer that trusts the authority.
pub(crate) async fn raw_dial(
    ca: &ClusterCa,
    own: Option<&Issued>,
    protocol: &str,
    addr: SocketAddr,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    raw_dial_from([127, 0, 0, 1], ca, own, protocol, addr).await
}

/// The same from another address of this machine.
pub(crate) async fn raw_dial_from(
    from: [u8; 4],
    ca: &ClusterCa,
    own: Option<&Issued>,
    protocol: &str,
    addr: SocketAddr,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap())
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.into()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client((from, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    soon(endpoint.connect_with(config, addr, NODE_DNS_NAME).unwrap()).await
}
