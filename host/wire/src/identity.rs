//! Who somebody is: the name in a certificate, and the files that prove one's own.

use std::{fmt, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use webpki::EndEntityCert;

use rejoin_proto::{ClusterId, Name};

use crate::{Error, Period};

/// What a certificate's owner is within its cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// The authority itself.
    Authority,
    /// A node of that name.
    Node(Name),
    /// A client of that name.
    Client(Name),
}

/// The owner of a certificate: `rejoin://<cluster>/node/<name>`, `…/client/<name>` or `…/ca`, kept as a URI in the
/// certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// The cluster whose authority signed it.
    pub cluster: ClusterId,
    /// What it may act as.
    pub role: Role,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejoin://{}", self.cluster)?;
        match &self.role {
            Role::Authority => f.write_str("/ca"),
            Role::Node(name) => write!(f, "/node/{name}"),
            Role::Client(name) => write!(f, "/client/{name}"),
        }
    }
}

impl Subject {
    /// Reads the form that `Display` writes, and no other.
    fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("rejoin://")?.split('/');
        let cluster: ClusterId = parts.next()?.parse().ok()?;
        let role = match (parts.next()?, parts.next(), parts.next()) {
            ("ca", None, None) => Role::Authority,
            ("node", Some(name), None) => Role::Node(Name::new(name).ok()?),
            ("client", Some(name), None) => Role::Client(Name::new(name).ok()?),
            _ => return None,
        };
        let subject = Self { cluster, role };
        // The number parser takes signs and upper case; one subject has one spelling.
        (subject.to_string() == uri).then_some(subject)
    }

    /// The subject of a certificate: its only `rejoin://` name.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| Error::NoIdentity)?;
        let mut names = parsed.valid_uri_names().filter(|uri| uri.starts_with("rejoin:"));
        match (names.next(), names.next()) {
            (Some(uri), None) => Self::parse(uri).ok_or(Error::NoIdentity),
            _ => Err(Error::NoIdentity),
        }
    }

    /// The node's name, if it is one of `cluster`.
    pub(crate) fn expect_node(self, cluster: ClusterId) -> Result<Name, Error> {
        self.expect_cluster(cluster)?;
        match self.role {
            Role::Node(name) => Ok(name),
            role => Err(Error::NotANode { subject: Self { cluster: self.cluster, role } }),
        }
    }

    /// Refuses a subject of another cluster.
    pub(crate) fn expect_cluster(&self, cluster: ClusterId) -> Result<(), Error> {
        if self.cluster == cluster { Ok(()) } else { Err(Error::WrongCluster { expected: cluster, found: self.cluster }) }
    }
}

/// A cluster's authority certificate and, for who has one, one's own certificate and key. Cheap to clone; the key is
/// never printed.
#[derive(Clone)]
pub struct Identity {
    pub(crate) authority: CertificateDer<'static>,
    authority_period: Period,
    pub(crate) cluster: ClusterId,
    pub(crate) own: Option<Arc<Own>>,
}

/// A certificate and its key.
pub(crate) struct Own {
    pub(crate) subject: Subject,
    period: Period,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.cluster).field("subject", &self.subject()).finish_non_exhaustive()
    }
}

impl Identity {
    /// A node: the authority's certificate, the node's, and its private key, each in PEM.
    ///
    /// # Errors
    /// Unreadable PEM, a certificate that names no node or one of another cluster, a key of another certificate.
    pub fn node(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let identity = Self::load(ca_pem, Some((cert_pem, key_pem)))?;
        if let Some(own) = &identity.own {
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

    /// The cluster, as the authority's certificate has it.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Who the certificate says we are; none without a certificate.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.own.as_ref().map(|own| &own.subject)
    }

    /// From when to when the authority's certificate holds: without it none of its cluster is taken.
    #[must_use]
    pub fn authority_period(&self) -> Period {
        self.authority_period
    }

    /// From when to when our own certificate holds; none without a certificate.
    #[must_use]
    pub fn own_period(&self) -> Option<Period> {
        self.own.as_ref().map(|own| own.period)
    }

    fn load(ca_pem: &str, own: Option<(&str, &str)>) -> Result<Self, Error> {
        let authority = certificates("the CA certificate", ca_pem)?.swap_remove(0);
        let subject = Subject::of(&authority)?;
        if subject.role != Role::Authority {
            return Err(Error::BadPem { what: "the CA certificate", why: format!("it is the certificate of {subject}") });
        }
        let own = own.map(|(cert_pem, key_pem)| Own::load(subject.cluster, cert_pem, key_pem)).transpose()?;
        let authority_period = Period::of(&authority)?;
        Ok(Self { authority, authority_period, cluster: subject.cluster, own: own.map(Arc::new) })
    }
}

impl Own {
    fn load(cluster: ClusterId, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let chain = certificates("the certificate", cert_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| bad_pem("the private key", &error))?;
        let subject = Subject::of(&chain[0])?;
        subject.expect_cluster(cluster)?;
        let period = Period::of(&chain[0])?;
        let provider = rustls::crypto::ring::default_provider();
        match rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(_) => Ok(Self { subject, period, chain, key }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(Error::KeyMismatch { subject }),
            Err(error) => Err(Error::BadPem { what: "the private key", why: error.to_string() }),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_spelling() {
        let cluster = ClusterId(0xab);
        let n1 = Name::new("n1").unwrap();
        for role in [Role::Authority, Role::Node(n1.clone()), Role::Client(n1)] {
            let subject = Subject { cluster, role };
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        let hex = cluster.to_string();
        let wrong = [
            format!("rejoin://{hex}/node/"),
            format!("rejoin://{hex}/node/n1/x"),
            format!("rejoin://{hex}/admin/n1"),
            format!("rejoin://{hex}/ca/n1"),
            format!("rejoin://{}/node/n1", hex.to_uppercase()),
            "rejoin://ab/node/n1".into(),
            "rejoin://+0000000000000000000000000000ab/ca".into(),
            "http://example/".into(),
        ];
        for uri in wrong {
            assert_eq!(Subject::parse(&uri), None, "{uri}");
        }
    }
}
