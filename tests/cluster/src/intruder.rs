//! Somebody who speaks QUIC, and whatever he likes above it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use rejoin_wire::cert::Issued;

/// What a node's certificate is verified by.
const SERVER_NAME: &str = "node.rejoin";
/// The first bytes of each of the four streams: the magic, the version, the class.
const PREAMBLES: [[u8; 8]; 4] =
    [*b"rejn\x01\x00\x00\x00", *b"rejn\x01\x00\x01\x00", *b"rejn\x01\x00\x02\x00", *b"rejn\x01\x00\x03\x00"];

/// A raw connection, and the endpoint that keeps it alive.
pub struct Intruder {
    /// The connection.
    pub connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Intruder {
    /// Dials with a protocol name, and with a certificate or none. TLS is done on this side; the other side may yet say
    /// no.
    ///
    /// # Errors
    /// The other side said no already.
    ///
    /// # Panics
    /// If this side cannot be set up.
    pub async fn dial(
        to: SocketAddr,
        ca_pem: &str,
        protocol: &str,
        own: Option<&Issued>,
    ) -> Result<Self, quinn::ConnectionError> {
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a free port");
        endpoint.set_default_client_config(config(ca_pem, protocol, own));
        let connection = endpoint.connect(to, SERVER_NAME).expect("a good address").await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Opens the four streams as Rejoin does, and gives the sending halves. The receiving halves are left unread.
    ///
    /// # Panics
    /// If the other side takes none.
    pub async fn greet(&self) -> Vec<(quinn::SendStream, quinn::RecvStream)> {
        let mut streams = Vec::new();
        for preamble in PREAMBLES {
            let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
            send.write_all(&preamble).await.expect("written");
            streams.push((send, recv));
        }
        for (_, recv) in &mut streams {
            recv.read_exact(&mut [0; 8]).await.expect("the other side greets too");
        }
        streams
    }

    /// How the other side ends it.
    pub async fn ended(&self) -> quinn::ConnectionError {
        self.connection.closed().await
    }
}

fn config(ca_pem: &str, protocol: &str, own: Option<&Issued>) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let cert = CertificateDer::from_pem_slice(own.cert_pem.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.into()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("TLS for QUIC")))
}
