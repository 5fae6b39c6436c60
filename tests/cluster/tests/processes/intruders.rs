//! Whoever does not belong to the cluster, or does not speak as its members do, is refused with a reason; the cluster
//! goes on.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use quinn::ConnectionError;

use rejoin_client::admin::{BucketProps, Scope};
use rejoin_client::{Bytes, ErrorKind};
use rejoin_proto::client::{ClientHello, HelloReply, PROTOCOL};
use rejoin_proto::{ErrorCode, codec};
use rejoin_test_cluster::{Cluster, Intruder, cluster_id, eventually, http, name};
use rejoin_wire::{Class, CloseCode, Closed, Endpoint, Identity, Limits};
use rejoin_wire::{
    Validity,
    cert::{ClusterCa, Issued},
};

const PEER: &str = "rejoin-peer/1";
const CLIENT: &str = "rejoin-client/1";
/// TLS alerts come as QUIC errors from here on.
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.bucket("plain", BucketProps::default()).await;
    cluster
}

fn valid() -> Validity {
    Validity::years(SystemTime::now(), 1)
}

/// All three nodes still are the processes that were started, see each other, and take a write and a read.
async fn assert_goes_on(cluster: &Cluster, after: &str) {
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    bucket
        .put(after, after.as_bytes().to_vec())
        .create()
        .w(3)
        .await
        .unwrap_or_else(|error| panic!("after {after}: {error}"));
    let object = bucket.get(after).r(3).await.unwrap_or_else(|error| panic!("after {after}: {error}"));
    assert_eq!(object.value.as_deref(), Some(after.as_bytes()));
    for index in 0..3 {
        let (status, text) = http::get(cluster.admin(index), "/health").unwrap();
        assert!(status == 200 && text.contains("connected to 2 of 2"), "after {after}: {status} {text}");
    }
}

/// Dials and waits for the refusal. Nothing that an application has sent may come before it.
async fn refusal(cluster: &Cluster, protocol: &str, own: Option<&Issued>) -> ConnectionError {
    match Intruder::dial(cluster.address(0), cluster.files.ca.cert_pem(), protocol, own).await {
        Err(error) => error,
        Ok(intruder) => tokio::select! {
            ended = intruder.ended() => ended,
            Ok(mut recv) = intruder.connection.accept_uni() => {
                panic!("a stream was opened to an intruder: {:?}", recv.read_to_end(64).await)
            }
            Ok((_, mut recv)) = intruder.connection.accept_bi() => {
                panic!("a stream was opened to an intruder: {:?}", recv.read_to_end(64).await)
            }
        },
    }
}

fn assert_alert(error: &ConnectionError, who: &str) {
    let ConnectionError::ConnectionClosed(close) = error else { panic!("{who} was not refused by TLS: {error:?}") };
    assert!(TLS_ALERTS.contains(&u64::from(close.error_code)), "{who}: {close:?}");
}

fn assert_closed(error: &ConnectionError, code: CloseCode, words: &str) {
    let ConnectionError::ApplicationClosed(close) = error else { panic!("not closed with {words:?}: {error:?}") };
    let said = String::from_utf8_lossy(&close.reason);
    assert!(
        close.error_code.into_inner() == u64::from(code.0) && said.contains(words),
        "{close:?} instead of {words:?}"
    );
}

/// A certificate that its own key has signed.
fn self_signed(uri: &str) -> Issued {
    let mut params = rcgen::CertificateParams::new(vec!["node.rejoin".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Issued { cert_pem: params.self_signed(&key).unwrap().pem(), key_pem: key.serialize_pem() }
}

/// A node's certificate that the cluster's own authority has signed, for a name that it would never sign.
fn signed(ca: &ClusterCa, uri: &str) -> Issued {
    let mut issuer = rcgen::CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(rcgen::DnType::OrganizationName, format!("rejoin {}", ca.cluster()));
    issuer.distinguished_name.push(rcgen::DnType::CommonName, "ca");
    let issuer = rcgen::Issuer::new(issuer, rcgen::KeyPair::from_pem(&ca.key_pem()).unwrap());
    let mut params = rcgen::CertificateParams::new(vec!["node.rejoin".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    Issued { cert_pem: params.signed_by(&own, &issuer).unwrap().pem(), key_pem: own.serialize_pem() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_no_nodes_of_this_cluster_is_refused_before_any_application_byte() {
    let cluster = cluster().await;
    let ca = &cluster.files.ca;

    let client = ca.issue_client(&name("somebody"), valid()).unwrap();
    assert_closed(
        &refusal(&cluster, PEER, Some(&client)).await,
        CloseCode::NOT_A_NODE,
        "/client/somebody is not a node",
    );
    assert_goes_on(&cluster, "a client's certificate").await;

    assert_closed(&refusal(&cluster, PEER, None).await, CloseCode::NOT_A_NODE, "a node's certificate");
    assert_goes_on(&cluster, "no certificate").await;

    let foreign = ClusterCa::create(ca.cluster(), valid()).unwrap().issue_node(&name("n2"), &[], valid()).unwrap();
    assert_alert(&refusal(&cluster, PEER, Some(&foreign)).await, "a foreign authority's node");
    assert_alert(&refusal(&cluster, CLIENT, Some(&foreign)).await, "a foreign authority's client");
    assert_goes_on(&cluster, "a foreign authority").await;

    let ours = signed(ca, &format!("rejoin://{}/node/n2", ca.cluster()));
    let let_in = Intruder::dial(cluster.address(0), ca.cert_pem(), CLIENT, Some(&ours)).await.unwrap();
    assert_eq!(
        let_in.greet().await.len(),
        4,
        "the authority's signature is good, so only the name can be at fault below"
    );
    let theirs = signed(ca, &format!("rejoin://{}/node/n2", cluster_id(1)));
    assert_alert(&refusal(&cluster, PEER, Some(&theirs)).await, "a node of another cluster");
    assert_goes_on(&cluster, "another cluster's node").await;

    let own = self_signed(&format!("rejoin://{}/node/n2", ca.cluster()));
    assert_alert(&refusal(&cluster, PEER, Some(&own)).await, "a self-signed certificate");
    assert_goes_on(&cluster, "a self-signed certificate").await;

    assert_alert(&refusal(&cluster, "h3", None).await, "another protocol");
    assert_goes_on(&cluster, "another protocol").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_or_first_layout_is_turned_away() {
    let cluster = cluster().await;
    let issued = cluster.files.ca.issue_node(&name("n9"), &[], valid()).unwrap();
    let identity = Identity::node(cluster.files.ca.cert_pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    let endpoint = Endpoint::for_dialling(identity, Limits::default()).unwrap();
    let connection = endpoint.connect_peer(cluster.address(0), &name("n1")).await.unwrap();
    let hello = rejoin_proto::peer::PeerHello {
        params: rejoin_proto::peer::ClusterParams {
            protocol: PROTOCOL,
            cluster: cluster.files.ca.cluster(),
            secret_check: 0,
            origin: rejoin_proto::LayoutRef::default(),
            max_skew_ms: 60_000,
        },
        node: rejoin_proto::NodeId::from_name(&name("n9")),
        run: 1,
        disk: rejoin_proto::peer::DiskId(1),
        replaced: false,
        rebuilt: false,
        member_of: None,
        known_disk: None,
        wall_ms: 0,
        catalog: 0,
        partition_bits: 8,
        actors: Vec::new(),
    };
    connection.sender().send(Class::Control, 0, codec::encode(&hello).into()).await.unwrap();
    let closed = connection.closed().await;
    let Closed::ByPeer { reason, .. } = &closed else { panic!("{closed:?}") };
    assert!(reason.contains("secret differs"), "{reason}");
    assert_goes_on(&cluster, "a node with another secret").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_without_harm() {
    let cluster = cluster().await;
    let (to, ca) = (cluster.address(0), cluster.files.ca.cert_pem());

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 1..1400_usize {
        let datagram: Vec<u8> = (0..length).map(|at| (at * 131 + length * 17) as u8).collect();
        socket.send_to(&datagram, to).unwrap();
    }
    assert_goes_on(&cluster, "garbage datagrams").await;

    let intruder = Intruder::dial(to, ca, CLIENT, None).await.unwrap();
    let (mut send, _recv) = intruder.connection.open_bi().await.unwrap();
    send.write_all(b"GET / HTTP/1.1\r\nhost: rejoin\r\n\r\n").await.unwrap();
    assert_closed(&intruder.ended().await, CloseCode::PROTOCOL, "do not begin as Rejoin's do");
    assert_goes_on(&cluster, "garbage streams").await;

    let intruder = Intruder::dial(to, ca, CLIENT, None).await.unwrap();
    let (mut send, _recv) = intruder.connection.open_bi().await.unwrap();
    send.write_all(b"rejn\x63\x00\x00\x00").await.unwrap();
    assert_closed(&intruder.ended().await, CloseCode::VERSION, "you speak 99");
    assert_goes_on(&cluster, "a wire version of the future").await;

    let intruder = Intruder::dial(to, ca, CLIENT, None).await.unwrap();
    let mut streams = intruder.greet().await;
    let mut header = [0; 12];
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    streams[0].0.write_all(&header).await.unwrap();
    assert_closed(&intruder.ended().await, CloseCode::FRAME_TOO_LARGE, "");
    assert_goes_on(&cluster, "an oversized frame").await;

    let intruder = Intruder::dial(to, ca, CLIENT, None).await.unwrap();
    let mut streams = intruder.greet().await;
    streams[1].0.write_all(&[0xff; 11]).await.unwrap();
    drop((streams, intruder));
    assert_goes_on(&cluster, "half a frame").await;
}

async fn hello(cluster: &Cluster, hello: Vec<u8>) -> HelloReply {
    let identity = Identity::client(cluster.files.ca.cert_pem(), None).unwrap();
    let endpoint = Endpoint::for_dialling(identity, Limits::default()).unwrap();
    let connection = endpoint.connect_client(cluster.address(0)).await.unwrap();
    connection.sender().send(Class::Control, 0, hello.into()).await.unwrap();
    let frame = connection.recv().await.expect("an answer");
    codec::decode(&frame.body).expect("a hello's answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_is_garbage_or_of_another_protocol_is_answered() {
    let cluster = cluster().await;
    for (garbage, words) in [
        (b"\xff\xff\xff\xff".to_vec(), "not a hello that this node understands"),
        (Vec::new(), "not a hello that this node understands"),
        (
            codec::encode(&ClientHello { protocol: 77, token: String::new(), tenant: None, client: String::new() }),
            "the client 77",
        ),
    ] {
        let HelloReply::Refused(error) = hello(&cluster, garbage).await else { panic!("it was let in") };
        assert_eq!(error.code, ErrorCode::Protocol);
        assert!(error.message.contains(words), "{error}");
    }
    assert_goes_on(&cluster, "garbage hellos").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_a_withdrawn_one_and_one_without_rights_are_denied() {
    let cluster = cluster().await;
    let root = rejoin_node::root_token(cluster.files.secret.as_bytes());
    for wrong in ["", "root", "root:", "nobody:x", &root[..root.len() - 1], &"x".repeat(10_000)] {
        let error = cluster.builder(0).token(wrong).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("this cluster does not accept the token"), "{error}");
    }
    assert_goes_on(&cluster, "wrong tokens").await;

    let admin = cluster.pinned(0).await.admin();
    let token = admin.create_token("app", Scope::ReadWrite).await.unwrap();
    let client = cluster.builder(0).token(token.text()).connect().await.unwrap();
    let bucket = client.bucket::<Bytes>("plain").unwrap();
    bucket.put("app", b"v".to_vec()).create().await.unwrap();
    let error = client.admin().create_token("more", Scope::TenantAdmin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(
        error
            .to_string()
            .contains("token app (read-write) may not make tokens: that takes a token of scope tenant-admin"),
        "{error}"
    );

    admin.revoke_token("app").await.unwrap();
    // The open connection ends, and no other is made.
    let error = eventually("the token is taken no more", async || {
        match bucket.get("app").timeout(Duration::from_secs(2)).await {
            Err(error) if error.kind() == ErrorKind::Denied => Ok(error),
            other => Err(other),
        }
    });
    assert!(error.await.to_string().contains("this cluster does not accept the token"));
    for index in 0..3 {
        let denied =
            eventually("no node takes it", async || match cluster.builder(index).token(token.text()).connect().await {
                Err(error) if error.kind() == ErrorKind::Denied => Ok(()),
                other => Err(other.map(|_| ())),
            });
        denied.await;
    }
    assert_goes_on(&cluster, "a withdrawn token").await;
}
