//! The identity of this side: its certificate, its key and the cluster's authority. Also the checks that a
//! certificate's subject must pass.

use std::{fmt, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use webpki::EndEntityCert;

use rejoin_proto::{ClusterId, Name};

use crate::{Error, Role, Subject, Validity};

impl Subject {
    /// Reads the subject of a certificate: its only `rejoin://` name.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| Error::NoIdentity)?;
        let mut names = parsed.valid_uri_names().filter(|uri| uri.starts_with("rejoin:"));
        match (names.next(), names.next()) {
            (Some(uri), None) => Self::parse(uri).ok_or(Error::NoIdentity),
            _ => Err(Error::NoIdentity),
        }
    }

    /// The name of a node of `cluster`; an error for any other subject.
    pub(crate) fn expect_node(self, cluster: ClusterId) -> Result<Name, Error> {
        self.expect_cluster(cluster)?;
        match self.role {
            Role::Node(name) => Ok(name),
            role => Err(Error::NotANode { subject: Self { cluster: self.cluster, role } }),
        }
    }

    /// Refuses a subject of another cluster.
    pub(crate) fn expect_cluster(&self, cluster: ClusterId) -> Result<(), Error> {
        if self.cluster == cluster {
            Ok(())
        } else {
            Err(Error::WrongCluster { expected: cluster, found: self.cluster })
        }
    }
}

/// The verified certificate of the other side.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) subject: Subject,
    pub(crate) validity: Validity,
}

/// The most certificates of authorities that a text may have.
pub const MAX_AUTHORITIES: usize = 4;

/// The certificate of a cluster's authority and, except for clients that have none, this side's certificate and key.
/// While an authority's key is replaced there are several; certificates of each of them are accepted. Cheap to clone;
/// the key is never printed.
#[derive(Clone)]
pub struct Identity {
    pub(crate) authorities: Arc<[CertificateDer<'static>]>,
    authority_validity: Validity,
    pub(crate) cluster: ClusterId,
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// This side's certificate and key.
pub(crate) struct Credentials {
    pub(crate) subject: Subject,
    validity: Validity,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("subject", &self.subject())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// A node: the certificates of up to [`MAX_AUTHORITIES`] authorities of one cluster, the node's, and its private
    /// key, each in PEM.
    ///
    /// # Errors
    /// Unreadable PEM, a certificate that names no node or one of another cluster, a key of another certificate.
    pub fn node(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let identity = Self::load(ca_pem, Some((cert_pem, key_pem)))?;
        if let Some(own) = &identity.credentials {
            own.subject.clone().expect_node(identity.cluster)?;
        }
        Ok(identity)
    }

    /// A client: the authority's certificate and, if there is one, the client's own certificate and private key, each
    /// in PEM.
    ///
    /// # Errors
    /// As [`Identity::node`]; any certificate of the cluster will do.
    pub fn client(ca_pem: &str, own: Option<(&str, &str)>) -> Result<Self, Error> {
        Self::load(ca_pem, own)
    }

    /// The cluster of the authority.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The subject of this side's certificate, `None` without one.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.credentials.as_ref().map(|own| &own.subject)
    }

    /// When the authority's certificate is valid, of several the one that ends last. No certificate of the cluster is
    /// accepted outside that time.
    #[must_use]
    pub fn authority_validity(&self) -> Validity {
        self.authority_validity
    }

    /// When this side's certificate is valid, `None` without one.
    #[must_use]
    pub fn own_validity(&self) -> Option<Validity> {
        self.credentials.as_ref().map(|own| own.validity)
    }

    fn load(ca_pem: &str, own: Option<(&str, &str)>) -> Result<Self, Error> {
        let (authorities, cluster) = authorities(ca_pem)?;
        let own = own.map(|(cert_pem, key_pem)| Credentials::load(cluster, cert_pem, key_pem)).transpose()?;
        let mut authority_validity = Validity::of(&authorities[0])?;
        for authority in &authorities[1..] {
            let other = Validity::of(authority)?;
            if other.until > authority_validity.until {
                authority_validity = other;
            }
        }
        let credentials = own.map(Arc::new);
        Ok(Self { authorities: authorities.into(), authority_validity, cluster, credentials })
    }
}

impl Credentials {
    fn load(cluster: ClusterId, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let chain = certificates("the certificate", cert_pem)?;
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| bad_pem("the private key", &error))?;
        let subject = Subject::of(&chain[0])?;
        subject.expect_cluster(cluster)?;
        let validity = Validity::of(&chain[0])?;
        let provider = rustls::crypto::ring::default_provider();
        match rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok(Self { subject, validity, chain, key }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(Error::KeyMismatch { subject }),
            Err(error) => Err(Error::BadPem { what: "the private key", why: error.to_string() }),
        }
    }
}

/// The certificates of the authorities of one cluster in a PEM text, at least one, and that cluster.
pub(crate) fn authorities(pem: &str) -> Result<(Vec<CertificateDer<'static>>, ClusterId), Error> {
    let what = "the CA certificate";
    let found = certificates(what, pem)?;
    if found.len() > MAX_AUTHORITIES {
        let why = format!("it has {} certificates, and {MAX_AUTHORITIES} are the most", found.len());
        return Err(Error::BadPem { what, why });
    }
    let mut cluster = None;
    for authority in &found {
        let subject = Subject::of(authority)?;
        if subject.role != Role::Authority {
            return Err(Error::BadPem { what, why: format!("it is the certificate of {subject}") });
        }
        subject.expect_cluster(*cluster.get_or_insert(subject.cluster))?;
    }
    let none = || Error::BadPem { what, why: "there is no certificate in it".into() };
    Ok((found, cluster.ok_or_else(none)?))
}

/// The certificates of a PEM text, at least one.
pub(crate) fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| bad_pem(what, &error))?;
    if found.is_empty() { Err(Error::BadPem { what, why: "there is no certificate in it".into() }) } else { Ok(found) }
}

fn bad_pem(what: &'static str, error: &rustls_pki_types::pem::Error) -> Error {
    Error::BadPem { what, why: error.to_string() }
}
