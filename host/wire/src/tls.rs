//! TLS configurations: version 1.3 only, no resumption, no early data, identities from certificates.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use rejoin_proto::{ClusterId, Name};

use crate::{Error, Identity, Subject};

/// The ALPN name of connections between nodes.
pub const PEER_PROTOCOL: &str = "rejoin-peer/1";
/// The ALPN name of connections from clients.
pub const CLIENT_PROTOCOL: &str = "rejoin-client/1";
/// The DNS name in the certificate of every node. A dialer verifies it instead of an address, so that nodes can move.
pub const NODE_DNS_NAME: &str = "node.rejoin";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    identity.authorities.iter().try_for_each(|authority| roots.add(authority.clone())).map_err(tls)?;
    Ok(Arc::new(roots))
}

fn tls(error: impl ToString) -> Error {
    Error::Tls(error.to_string())
}

/// The configuration of a node as a server: both protocols on one port. Every client is asked for a certificate, which
/// is verified within the handshake. `None` without a node's identity.
pub(crate) fn server_config(identity: &Identity) -> Result<Option<QuicServerConfig>, Error> {
    let Some(own) = identity.credentials.as_ref().filter(|own| matches!(own.subject.role, crate::Role::Node(_))) else {
        return Ok(None);
    };
    let inner = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(tls)?;
    let verifier = Arc::new(DialerVerifier { inner, cluster: identity.cluster });
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(tls)?;
    config.alpn_protocols = vec![PEER_PROTOCOL.into(), CLIENT_PROTOCOL.into()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map(Some).map_err(tls)
}

/// Why a server's certificate was refused, kept for the error of the dial: TLS passes only a text.
pub(crate) type Refusal = Arc<OnceLock<Error>>;

/// The configuration of one dial. `expected` is the node that must answer, `None` for any node of the cluster.
pub(crate) fn client_config(
    identity: &Identity,
    protocol: &str,
    expected: Option<Name>,
) -> Result<(QuicClientConfig, Refusal), Error> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider()).build().map_err(tls)?;
    let refusal = Refusal::default();
    let verifier = Arc::new(NodeVerifier { inner, cluster: identity.cluster, expected, refusal: refusal.clone() });
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &identity.credentials {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(tls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.into()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok((QuicClientConfig::try_from(config).map_err(tls)?, refusal))
}

/// Verifies the certificate of a dialer: the path to the authority, then that its subject is of this cluster.
#[derive(Debug)]
struct DialerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
}

impl ClientCertVerifier for DialerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        // Clients need none. A peer without one is refused by its protocol, before a stream is accepted.
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match Subject::of(end_entity).and_then(|subject| subject.expect_cluster(self.cluster)) {
            Ok(()) => Ok(verified),
            Err(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Verifies that the server is a node of this cluster, and the expected one.
#[derive(Debug)]
struct NodeVerifier {
    inner: Arc<WebPkiServerVerifier>,
    cluster: ClusterId,
    expected: Option<Name>,
    refusal: Refusal,
}

impl NodeVerifier {
    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = Subject::of(certificate)?.expect_node(self.cluster)?;
        match &self.expected {
            Some(expected) if *expected != found => Err(Error::WrongNode { expected: expected.clone(), found }),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.check_name(end_entity).map_err(|error| {
            // A verifier serves one dial; the first refusal is its error.
            let _ = self.refusal.set(error);
            rustls::Error::from(CertificateError::ApplicationVerificationFailure)
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
