//! The cluster's certificate authority, for `rejoin cert` and `rejoin dev`.
//!
//! An authority is one certificate and one Ed25519 key of one cluster, whose id is in every certificate that it signs.
//! This module makes and reads PEM text. It touches no files: the caller keeps keys secret.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use rejoin_proto::access::Scope;
use rejoin_proto::{ClusterId, Name};

use crate::{
    Error, NODE_DNS_NAME, Role, Subject, Validity,
    der::{AltName, alt_names},
    identity::{authorities, certificates},
};

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// A new certificate and its private key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate; public.
    pub cert_pem: String,
    /// The private key; secret.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A cluster's certificate authority, able to sign.
pub struct ClusterCa {
    cluster: ClusterId,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterCa").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl ClusterCa {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// [`Error::Issue`] if the system gives no randomness.
    pub fn create(cluster: ClusterId, valid: Validity) -> Result<Self, Error> {
        let key = new_key()?;
        let params = ca_params(cluster, Some(valid))?;
        let cert_pem = params.self_signed(&key).map_err(issue)?.pem();
        Ok(Self { cluster, cert_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads an authority that [`ClusterCa::create`] or [`ClusterCa::successor`] made. The text may have certificates
    /// of other authorities of the cluster beside that of the key.
    ///
    /// # Errors
    /// Unreadable PEM, a certificate that is not an authority's, a key of another certificate.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let (certs, cluster) = authorities(cert_pem)?;
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| Error::BadPem { what: "the CA's private key", why: error.to_string() })?;
        if !certs.iter().any(|cert| same_key(cert, &key)) {
            return Err(Error::KeyMismatch { subject: Subject { cluster, role: Role::Authority } });
        }
        // The issuer fields of a certificate, name and key id, follow from cluster and key alone.
        let params = ca_params(cluster, None)?;
        Ok(Self { cluster, cert_pem: cert_pem.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// An authority of the same cluster with another key. Its certificate text has those of this one too: whoever has
    /// it accepts what either of them has signed.
    ///
    /// # Errors
    /// [`Error::Issue`] if the system gives no randomness.
    pub fn successor(&self, valid: Validity) -> Result<Self, Error> {
        let next = Self::create(self.cluster, valid)?;
        let cert_pem = format!("{}{}", next.cert_pem, self.cert_pem);
        Ok(Self { cert_pem, ..next })
    }

    /// Its own certificate alone: whoever has only that accepts nothing any more that an earlier authority has signed.
    ///
    /// # Errors
    /// Unreadable PEM.
    pub fn without_others(&self) -> Result<String, Error> {
        self.blocks().map(|(own, _)| own)
    }

    /// The PEM text of its own certificate, and that of all others.
    fn blocks(&self) -> Result<(String, String), Error> {
        let (mut own, mut others) = (String::new(), String::new());
        for part in self.cert_pem.split(PEM_END) {
            let Some(begin) = part.find(PEM_BEGIN) else { continue };
            let block = format!("{}{PEM_END}\n", &part[begin..]);
            let certs = certificates("the CA certificate", &block)?;
            let text = if certs.iter().any(|cert| same_key(cert, self.issuer.key())) { &mut own } else { &mut others };
            text.push_str(&block);
        }
        Ok((own, others))
    }

    /// The cluster it signs for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's certificate, PEM. Public: every node and client needs it.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's private key, PEM. Its holder can make nodes.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a certificate for the node of that name. Rejoin verifies the name and [`NODE_DNS_NAME`], never an address.
    /// `extra` has addresses or DNS names for other programs that read the certificate.
    ///
    /// # Errors
    /// [`Error::Issue`] if an extra name is not ASCII, or the system gives no randomness.
    pub fn issue_node(&self, name: &Name, extra: &[String], valid: Validity) -> Result<Issued, Error> {
        let mut names = vec![SanType::DnsName(NODE_DNS_NAME.try_into().map_err(issue)?)];
        for text in extra {
            names.push(match text.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(text.as_str().try_into().map_err(issue)?),
            });
        }
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(Role::Node(name.clone()), names, usages, valid)
    }

    /// Signs a certificate for a client of that name. It can dial as a client, never as a node.
    ///
    /// # Errors
    /// [`Error::Issue`] if the system gives no randomness.
    pub fn issue_client(&self, name: &Name, valid: Validity) -> Result<Issued, Error> {
        self.issue(Role::Client(name.clone()), Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth], valid)
    }

    /// Signs a certificate for a client that shows no token: nodes take it for what the certificate says.
    ///
    /// # Errors
    /// [`Error::Issue`] if the system gives no randomness.
    pub fn issue_tenant(&self, tenant: &Name, scope: Scope, name: &Name, valid: Validity) -> Result<Issued, Error> {
        let role = Role::Tenant { tenant: tenant.clone(), scope, name: name.clone() };
        self.issue(role, Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth], valid)
    }

    /// Signs a certificate that replaces an earlier one, valid or expired: for the same node or client, with the same
    /// names. With `key_pem` the key stays the same, otherwise a new one is made.
    ///
    /// # Errors
    /// Unreadable PEM, a certificate of another cluster or of no node or client, a key of another certificate,
    /// [`Error::Issue`].
    pub fn renew(&self, cert_pem: &str, key_pem: Option<&str>, valid: Validity) -> Result<Issued, Error> {
        let unreadable = |why: String| Error::BadPem { what: "the certificate", why };
        let cert = certificates("the certificate", cert_pem)?.swap_remove(0);
        let subject = Subject::of(&cert)?;
        subject.expect_cluster(self.cluster)?;
        let usages = match &subject.role {
            Role::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client(_) | Role::Tenant { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Authority => return Err(unreadable(format!("it is the certificate of {subject}"))),
        };
        let names =
            alt_names(&cert).ok_or_else(|| unreadable("its names are malformed".into()))?.into_iter().map(|name| {
                match name {
                    AltName::Dns(name) => Ok(SanType::DnsName(name.try_into().map_err(issue)?)),
                    AltName::Ip(ip) => Ok(SanType::IpAddress(ip)),
                }
            });
        let names = names.collect::<Result<Vec<_>, Error>>()?;
        let key = match key_pem {
            None => new_key()?,
            Some(pem) => {
                let key = KeyPair::from_pem(pem)
                    .map_err(|error| Error::BadPem { what: "the private key", why: error.to_string() })?;
                if !same_key(&cert, &key) {
                    return Err(Error::KeyMismatch { subject });
                }
                key
            }
        };
        self.issue_with(key, subject.role, names, usages, valid)
    }

    /// A new certificate of this authority with the same key, and those of other authorities that its text had. The
    /// certificates that it has signed stay valid.
    ///
    /// # Errors
    /// Unreadable PEM, [`Error::Issue`].
    pub fn renew_own(&self, valid: Validity) -> Result<String, Error> {
        let (_, others) = self.blocks()?;
        let own = ca_params(self.cluster, Some(valid))?.self_signed(self.issuer.key()).map_err(issue)?.pem();
        Ok(own + &others)
    }

    fn issue(
        &self,
        role: Role,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        valid: Validity,
    ) -> Result<Issued, Error> {
        self.issue_with(new_key()?, role, names, usages, valid)
    }

    fn issue_with(
        &self,
        key: KeyPair,
        role: Role,
        mut names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        valid: Validity,
    ) -> Result<Issued, Error> {
        let subject = Subject { cluster: self.cluster, role };
        names.push(SanType::URI(subject.to_string().try_into().map_err(issue)?));
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&subject);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, valid);
        let cert = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

/// The fields of the authority's certificate. The validity is needed only to make one.
fn ca_params(cluster: ClusterId, valid: Option<Validity>) -> Result<CertificateParams, Error> {
    let subject = Subject { cluster, role: Role::Authority };
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&subject);
    params.subject_alt_names = vec![SanType::URI(subject.to_string().try_into().map_err(issue)?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Some(valid) = valid {
        set_validity(&mut params, valid);
    }
    Ok(params)
}

/// The subject as a distinguished name, for people with other tools. It may be cut: Rejoin never reads it.
fn common_name(subject: &Subject) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, format!("rejoin {}", subject.cluster));
    name.push(
        DnType::CommonName,
        match &subject.role {
            Role::Authority => "ca".to_owned(),
            Role::Node(name) | Role::Client(name) | Role::Tenant { name, .. } => name.to_string(),
        },
    );
    name
}

fn set_validity(params: &mut CertificateParams, valid: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(valid.from);
    params.not_after = epoch + Duration::from_secs(valid.until);
}

/// Makes an Ed25519 key: verification is fast, and all signatures have one length, so that the handshakes of a
/// simulation have the same size.
fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(issue)
}

fn same_key(cert: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let Ok(parsed) = EndEntityCert::try_from(cert) else { return false };
    parsed.subject_public_key_info().as_ref() == key.subject_public_key_info()
}

fn issue(error: rcgen::Error) -> Error {
    Error::Issue(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, der};
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(86_400);

    fn valid() -> Validity {
        Validity::years(UNIX_EPOCH + DAY * 20_000, 2)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn an_authority_survives_its_files() {
        let made = ClusterCa::create(ClusterId(5), valid()).unwrap();
        let loaded = ClusterCa::load(made.cert_pem(), &made.key_pem()).unwrap();
        assert_eq!(loaded.cluster(), ClusterId(5));
        let issued = loaded.issue_node(&name("n1"), &["10.0.0.1".into(), "db.example".into()], valid()).unwrap();
        let identity = Identity::node(made.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
        assert_eq!(identity.cluster(), ClusterId(5));
        assert_eq!(identity.subject().map(ToString::to_string).unwrap(), format!("rejoin://{}/node/n1", ClusterId(5)));
    }

    #[test]
    fn a_certificate_is_renewed_with_all_its_names() {
        let ca = ClusterCa::create(ClusterId(5), valid()).unwrap();
        let extra = ["10.0.0.1".to_owned(), "db.example".into(), "2001:db8::1".into()];
        let old = ca.issue_node(&name("n1"), &extra, Validity::days(UNIX_EPOCH + DAY * 100, 1)).unwrap();
        let der = |issued: &Issued| certificates("it", &issued.cert_pem).unwrap().swap_remove(0);
        let kept = ca.renew(&old.cert_pem, Some(&old.key_pem), valid()).unwrap();
        let anew = ca.renew(&old.cert_pem, None, valid()).unwrap();
        assert_eq!(kept.key_pem, old.key_pem);
        assert_ne!(anew.key_pem, old.key_pem);
        let names = alt_names(&der(&old)).unwrap();
        assert_eq!(names.len(), 4, "{names:?}");
        for new in [&kept, &anew] {
            assert_eq!(alt_names(&der(new)).unwrap(), names);
            let identity = Identity::node(ca.cert_pem(), &new.cert_pem, &new.key_pem).unwrap();
            assert_eq!(
                identity.subject().map(ToString::to_string).unwrap(),
                format!("rejoin://{}/node/n1", ClusterId(5))
            );
            assert_eq!(identity.own_validity().unwrap(), identity.authority_validity());
        }
        let client = ca.issue_client(&name("c"), valid()).unwrap();
        let again = ca.renew(&client.cert_pem, Some(&client.key_pem), valid()).unwrap();
        assert!(matches!(Identity::node(ca.cert_pem(), &again.cert_pem, &again.key_pem), Err(Error::NotANode { .. })));
        let other = ClusterCa::create(ClusterId(6), valid()).unwrap();
        assert!(matches!(other.renew(&old.cert_pem, None, valid()), Err(Error::WrongCluster { .. })));
        assert!(matches!(ca.renew(&old.cert_pem, Some(&client.key_pem), valid()), Err(Error::KeyMismatch { .. })));
        assert!(matches!(ca.renew(ca.cert_pem(), None, valid()), Err(Error::BadPem { .. })));
        let longer = ca.renew_own(Validity::years(UNIX_EPOCH + DAY * 20_000, 20)).unwrap();
        let identity = Identity::node(&longer, &kept.cert_pem, &kept.key_pem).unwrap();
        assert!(identity.authority_validity().until > identity.own_validity().unwrap().until);
        assert!(ClusterCa::load(&longer, &ca.key_pem()).is_ok());
    }

    #[test]
    fn what_two_authorities_have_signed_is_accepted_until_one_is_left_out() {
        let first = ClusterCa::create(ClusterId(5), valid()).unwrap();
        let second = first.successor(Validity::years(UNIX_EPOCH + DAY * 20_000, 20)).unwrap();
        assert_ne!(first.key_pem(), second.key_pem());
        let both = second.cert_pem();
        assert_eq!(certificates("both", both).unwrap().len(), 2);
        // Either key finds its own certificate among both.
        for key in [first.key_pem(), second.key_pem()] {
            assert_eq!(ClusterCa::load(both, &key).unwrap().cluster(), ClusterId(5));
        }
        let identity = Identity::client(both, None).unwrap();
        assert_eq!(identity.authority_validity(), Validity::years(UNIX_EPOCH + DAY * 20_000, 20), "the one that lasts");
        let loaded = ClusterCa::load(both, &second.key_pem()).unwrap();
        assert_eq!(certificates("it", &loaded.renew_own(valid()).unwrap()).unwrap().len(), 2, "a renewal drops none");
        let alone = loaded.without_others().unwrap();
        assert_eq!(certificates("it", &alone).unwrap().len(), 1);
        assert!(matches!(ClusterCa::load(&alone, &first.key_pem()), Err(Error::KeyMismatch { .. })));

        let other = ClusterCa::create(ClusterId(6), valid()).unwrap();
        let mixed = format!("{both}{}", other.cert_pem());
        assert!(matches!(Identity::client(&mixed, None), Err(Error::WrongCluster { .. })));
        let mut last = second;
        for _ in 2..crate::identity::MAX_AUTHORITIES {
            last = last.successor(valid()).unwrap();
        }
        assert!(Identity::client(last.cert_pem(), None).is_ok());
        let more = last.successor(valid()).unwrap();
        assert!(matches!(Identity::client(more.cert_pem(), None), Err(Error::BadPem { .. })));
    }

    #[test]
    fn no_cut_of_a_certificate_is_read_beyond_its_end() {
        let ca = ClusterCa::create(ClusterId(5), valid()).unwrap();
        let der = certificates("it", ca.cert_pem()).unwrap().swap_remove(0);
        assert!(der::validity(&der).is_some());
        for length in 0..der.len() {
            assert_eq!(der::validity(&der[..length]), None, "{length} bytes");
        }
        assert_eq!(der::validity(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]), None);
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let ours = ClusterCa::create(ClusterId(5), valid()).unwrap();
        let other = ClusterCa::create(ClusterId(6), valid()).unwrap();
        let node = ours.issue_node(&name("n1"), &[], valid()).unwrap();
        let client = ours.issue_client(&name("c"), valid()).unwrap();
        let ca = ours.cert_pem();
        assert!(matches!(ClusterCa::load(ca, &other.key_pem()), Err(Error::KeyMismatch { .. })));
        assert!(matches!(ClusterCa::load(&node.cert_pem, &node.key_pem), Err(Error::BadPem { .. })));
        assert!(matches!(ClusterCa::load("nothing", "nothing"), Err(Error::BadPem { .. })));
        assert!(matches!(Identity::node(ca, &node.cert_pem, &client.key_pem), Err(Error::KeyMismatch { .. })));
        assert!(matches!(Identity::node(ca, &client.cert_pem, &client.key_pem), Err(Error::NotANode { .. })));
        assert!(matches!(
            Identity::node(other.cert_pem(), &node.cert_pem, &node.key_pem),
            Err(Error::WrongCluster { .. })
        ));
        assert!(matches!(Identity::client(&node.cert_pem, None), Err(Error::BadPem { .. })));
        assert!(Identity::client(ca, Some((&client.cert_pem, &client.key_pem))).is_ok());
        assert!(!format!("{node:?}").contains("PRIVATE"), "a key is never printed");
    }
}
