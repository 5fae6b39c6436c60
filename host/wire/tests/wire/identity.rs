//! Certificates: who is accepted, and as what.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

use rejoin_proto::ClusterId;
use rejoin_wire::{
    CloseCode, Endpoint, Error, Identity, Limits, NODE_DNS_NAME, PEER_PROTOCOL,
    cert::{ClusterCa, Issued},
};

use crate::support::{
    CLUSTER, accept_client, authority, client_of, loopback, name, node_of, raw_dial, soon, still_serves, valid,
};

fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(300);
    limits
}

#[tokio::test]
async fn handshakes_go_on_while_the_certificate_is_replaced() {
    let ca = authority(CLUSTER);
    let (node, client) = (node_of(&ca, "n1", Limits::default()), client_of(&ca, Limits::default()));
    let issued = ca.issue_node(&name("n1"), &[], valid()).unwrap();
    let identity = Identity::node(ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    // Between any two steps of a handshake.
    let replace = async {
        loop {
            node.set_identity(identity.clone()).unwrap();
            tokio::task::yield_now().await;
        }
    };
    let dial = async {
        for _ in 0..20 {
            let (dialled, _accepted) = tokio::join!(client.connect_client(node.local_addr()), accept_client(&node));
            dialled.unwrap();
        }
    };
    tokio::select! {
        () = replace => {}
        () = dial => {}
    }
}

#[tokio::test]
async fn a_node_of_a_foreign_authority_is_refused_by_who_dials_it() {
    let (ours, theirs) = (authority(CLUSTER), authority(CLUSTER));
    let (one, two) = (node_of(&ours, "n1", Limits::default()), node_of(&theirs, "n2", Limits::default()));
    let refused = soon(one.connect_peer(two.local_addr(), &name("n2"))).await;
    assert!(matches!(refused, Err(Error::Untrusted { .. })), "{refused:?}");
    let refused = soon(client_of(&ours, Limits::default()).connect_client(two.local_addr())).await;
    assert!(matches!(refused, Err(Error::Untrusted { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_dialer_of_a_foreign_authority_is_refused_before_it_is_accepted() {
    let (ours, theirs) = (authority(CLUSTER), authority(CLUSTER));
    let node = node_of(&ours, "n1", Limits::default());
    // It trusts us, but its own certificate is another authority's, for the very same cluster id and name.
    let forged = theirs.issue_node(&name("n2"), &[], valid()).unwrap();
    let identity = Identity::node(ours.cert_pem(), &forged.cert_pem, &forged.key_pem).unwrap();
    let intruder = Endpoint::bind(loopback(), identity, Limits::default()).unwrap();
    let refused = soon(intruder.connect_peer(node.local_addr(), &name("n1"))).await;
    assert!(matches!(refused, Err(Error::CertificateRefused { .. })), "{refused:?}");
    let refused = soon(intruder.connect_client(node.local_addr())).await;
    assert!(matches!(refused, Err(Error::CertificateRefused { .. })), "also as a client: {refused:?}");
    still_serves(&ours, &node).await;
    assert_eq!((node.stats().accepted, node.stats().failed), (1, 2));
}

/// A certificate signed with the authority's own key and name, but for another cluster.
fn of_another_cluster(ca: &ClusterCa, uri: &str) -> Issued {
    let mut issuer_params = CertificateParams::default();
    issuer_params.distinguished_name = rcgen::DistinguishedName::new();
    issuer_params.distinguished_name.push(rcgen::DnType::OrganizationName, format!("rejoin {}", ca.cluster()));
    issuer_params.distinguished_name.push(rcgen::DnType::CommonName, "ca");
    let issuer = Issuer::new(issuer_params, KeyPair::from_pem(&ca.key_pem()).unwrap());
    let mut params = CertificateParams::new(vec![NODE_DNS_NAME.to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Issued { cert_pem: params.signed_by(&key, &issuer).unwrap().pem(), key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn a_node_certificate_of_another_cluster_is_refused_even_from_the_same_key() {
    let ca = authority(CLUSTER);
    let node = node_of(&ca, "n1", Limits::default());
    let own_cluster = of_another_cluster(&ca, &format!("rejoin://{CLUSTER}/node/n2"));
    let good = raw_dial(&ca, Some(&own_cluster), PEER_PROTOCOL, node.local_addr()).await.unwrap();
    assert!(good.close_reason().is_none(), "the forgery is perfect but for the cluster");
    drop(good);

    for uri in [
        format!("rejoin://{}/node/n2", ClusterId(2)),
        "https://example.org/".to_owned(),
        "rejoin://c1/node/n2".to_owned(),
    ] {
        let forged = of_another_cluster(&ca, &uri);
        let refused = match raw_dial(&ca, Some(&forged), PEER_PROTOCOL, node.local_addr()).await {
            Ok(connection) => soon(connection.closed()).await,
            Err(error) => error,
        };
        let quinn::ConnectionError::ConnectionClosed(close) = refused else { panic!("{uri}: {refused:?}") };
        assert!((0x100..0x200).contains(&u64::from(close.error_code)), "{uri}: refused by TLS, not by us: {close}");
    }
    still_serves(&ca, &node).await;
}

#[tokio::test]
async fn a_client_certificate_or_none_is_no_peer_and_nothing_it_says_is_read() {
    let ca = authority(CLUSTER);
    let node = node_of(&ca, "n1", Limits::default());
    let client = ca.issue_client(&name("shop"), valid()).unwrap();
    for own in [Some(&client), None] {
        let connection = raw_dial(&ca, own, PEER_PROTOCOL, node.local_addr()).await.unwrap();
        // Bytes that would be answered with another code if they were read.
        if let Ok((mut send, _)) = connection.open_bi().await {
            let _ = send.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        }
        let closed = soon(connection.closed()).await;
        let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
        assert_eq!(u64::from(close.error_code), u64::from(CloseCode::NOT_A_NODE.0), "{close}");
    }
    assert_eq!(node.stats().accepted, 0);

    // The same error from an endpoint before it dials.
    let identity = Identity::client(ca.cert_pem(), Some((&client.cert_pem, &client.key_pem))).unwrap();
    let endpoint = Endpoint::bind(loopback(), identity, Limits::default()).unwrap();
    assert!(matches!(endpoint.connect_peer(node.local_addr(), &name("n1")).await, Err(Error::NotANode { .. })));
    let anonymous = client_of(&ca, Limits::default());
    assert!(matches!(anonymous.connect_peer(node.local_addr(), &name("n1")).await, Err(Error::NoCertificate)));
    let (dialled, accepted) =
        tokio::join!(soon(endpoint.connect_client(node.local_addr())), crate::support::accept_client(&node));
    dialled.unwrap();
    assert_eq!(
        accepted.subject().unwrap().to_string(),
        format!("rejoin://{CLUSTER}/client/shop"),
        "as a client it is welcome"
    );
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_refused() {
    let ca = authority(CLUSTER);
    let (one, two) = (node_of(&ca, "n1", Limits::default()), node_of(&ca, "n2", Limits::default()));
    let refused = soon(one.connect_peer(two.local_addr(), &name("n3"))).await;
    let Err(Error::WrongNode { expected, found }) = refused else { panic!("{refused:?}") };
    assert_eq!((expected, found), (name("n3"), name("n2")));
    still_serves(&ca, &two).await;
}

#[tokio::test]
async fn a_client_certificate_cannot_serve() {
    let ca = authority(CLUSTER);
    // The name of a node, but the key usages of a client.
    let client = ca.issue_client(&name("n2"), valid()).unwrap();
    assert!(matches!(Identity::node(ca.cert_pem(), &client.cert_pem, &client.key_pem), Err(Error::NotANode { .. })));
    let identity = Identity::client(ca.cert_pem(), Some((&client.cert_pem, &client.key_pem))).unwrap();
    let deaf = Endpoint::bind(loopback(), identity, Limits::default()).unwrap();
    let one = node_of(&ca, "n1", quick());
    let refused = soon(one.connect_peer(deaf.local_addr(), &name("n2"))).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. } | Error::Refused { .. } | Error::Lost(_))), "{refused:?}");
}

#[tokio::test]
async fn an_unknown_protocol_a_taken_port_and_silence_are_told_apart() {
    let ca = authority(CLUSTER);
    let node = node_of(&ca, "n1", quick());
    let refused = raw_dial(&ca, None, "h3", node.local_addr()).await.unwrap_err();
    let quinn::ConnectionError::ConnectionClosed(close) = &refused else { panic!("{refused:?}") };
    assert_eq!(u64::from(close.error_code), 0x100 + 120, "no_application_protocol");

    let again = Endpoint::bind(node.local_addr(), node.identity().clone(), Limits::default());
    assert!(matches!(again, Err(Error::AddressInUse { addr }) if addr == node.local_addr()), "{again:?}");

    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let unanswered = soon(node.connect_peer(silent.local_addr().unwrap(), &name("n2"))).await;
    assert!(matches!(unanswered, Err(Error::Unreachable { .. })), "{unanswered:?}");
    still_serves(&ca, &node).await;
}

#[test]
fn without_a_runtime_it_says_so() {
    let ca = authority(CLUSTER);
    let identity = Identity::client(ca.cert_pem(), None).unwrap();
    assert!(matches!(Endpoint::bind(loopback(), identity, Limits::default()), Err(Error::NoRuntime)));
}
