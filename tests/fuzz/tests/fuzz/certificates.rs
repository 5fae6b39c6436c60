//! Certificates, and other bytes in their place, to identities.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, SanType};

use rejoin_proto::ClusterId;
use rejoin_wire::{Error, Identity, Role, Subject};
use rejoin_wire::{Validity, cert::ClusterCa};

use crate::fuzz;

const CLUSTER: ClusterId = ClusterId(0xc1);

/// An authority and a node of its, made once.
struct Made {
    ca: ClusterCa,
    node_pem: String,
    key: KeyPair,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let valid = Validity::years(UNIX_EPOCH + Duration::from_secs(1_700_000_000), 10);
    let ca = ClusterCa::create(CLUSTER, valid).unwrap();
    let issued = ca.issue_node(&"n1".parse().unwrap(), &["10.0.0.1".into(), "db.example".into()], valid).unwrap();
    Made { ca, key: KeyPair::from_pem(&issued.key_pem).unwrap(), node_pem: issued.cert_pem }
});

/// What a list of names says, read at leisure: who it is, if exactly one of them is ours and spelled as we spell it.
fn meaning<'a>(names: impl Iterator<Item = &'a str>) -> Option<(String, String)> {
    let ours: Vec<&str> = names.filter(|name| name.starts_with("rejoin:")).collect();
    let [only] = ours[..] else { return None };
    let (cluster, role) = only.strip_prefix("rejoin://")?.split_once('/')?;
    let is_hex =
        cluster.len() == 32 && cluster.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let is_name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=64).contains(&name.len()) && name.bytes().all(allowed) && name.as_bytes()[0].is_ascii_alphanumeric()
    };
    let known = role == "ca"
        || role.split_once('/').is_some_and(|(kind, name)| ["node", "client"].contains(&kind) && is_name(name));
    (is_hex && known).then(|| (cluster.to_owned(), role.to_owned()))
}

fn load(cert_pem: &str) -> Result<Identity, Error> {
    Identity::client(MADE.ca.cert_pem(), Some((cert_pem, &MADE.key.serialize_pem())))
}

/// Each line is a name in a certificate that is sound otherwise.
fn names(text: &str) {
    let mut params = CertificateParams::default();
    for line in text.lines() {
        let Ok(name) = line.try_into() else { return };
        params.subject_alt_names.push(SanType::URI(name));
    }
    let Ok(cert) = params.self_signed(&MADE.key) else { return };
    match (load(&cert.pem()), meaning(text.lines())) {
        (Ok(identity), Some((cluster, role))) => {
            let subject = identity.subject().unwrap();
            assert_eq!(subject.to_string(), format!("rejoin://{cluster}/{role}"));
            let as_node = Identity::node(MADE.ca.cert_pem(), &cert.pem(), &MADE.key.serialize_pem());
            assert_eq!(as_node.is_ok(), matches!(subject.role, Role::Node(_)), "only a node passes for one");
        }
        (Err(Error::WrongCluster { found, .. }), Some((cluster, _))) => {
            assert!(found.to_string() == cluster && found != CLUSTER)
        }
        (Err(Error::NoIdentity), None) => {}
        (found, expected) => panic!("{found:?} where {expected:?} was expected"),
    }
}

/// A certificate of any bytes: if it is taken, then for somebody whose name is in it.
fn der(bytes: &[u8]) {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(bytes));
    match load(&pem) {
        Ok(identity) => {
            let subject = identity.subject().unwrap();
            assert_eq!(subject.cluster, CLUSTER);
            let spelled = subject.to_string();
            assert!(bytes.windows(spelled.len()).any(|window| window == spelled.as_bytes()), "{spelled} is not in it");
        }
        Err(error) => assert!(
            matches!(
                error,
                Error::NoIdentity | Error::WrongCluster { .. } | Error::KeyMismatch { .. } | Error::BadPem { .. }
            ),
            "{error:?}"
        ),
    }
}

/// Files of any text.
fn pem(text: &str) {
    if let Ok(identity) = Identity::client(text, None) {
        assert!(identity.subject().is_none() && text.contains("BEGIN CERTIFICATE"));
    }
    if let Ok(ca) = ClusterCa::load(text, text) {
        assert!(text.contains("PRIVATE KEY"));
        let again = ClusterCa::load(ca.cert_pem(), &ca.key_pem()).unwrap();
        assert_eq!(again.cluster(), ca.cluster());
    }
}

/// The first byte says what the rest is.
fn property(bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => names(&String::from_utf8_lossy(rest)),
        1 => der(rest),
        _ => pem(&String::from_utf8_lossy(rest)),
    }
}

#[test]
fn certificates() {
    let ours = Subject { cluster: CLUSTER, role: Role::Node("n1".parse().unwrap()) }.to_string();
    let names = [
        ours.clone(),
        format!("https://example.com/\n{ours}"),
        format!("rejoin://{}/client/app", ClusterId(2)),
        format!("rejoin://{CLUSTER}/ca"),
    ];
    let unwrapped =
        |pem: &str| STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let ders = [unwrapped(&MADE.node_pem), unwrapped(MADE.ca.cert_pem())];
    let pems = [MADE.ca.cert_pem().to_owned(), format!("{}{}", MADE.ca.cert_pem(), MADE.ca.key_pem())];
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let seeds = names.iter().map(|text| of(0, text.as_bytes())).chain(ders.iter().map(|der| of(1, der)));
    fuzz("certificates", seeds.chain(pems.iter().map(|text| of(2, text.as_bytes()))).collect(), property);
}
