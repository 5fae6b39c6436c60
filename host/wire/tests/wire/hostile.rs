//! Hostile peers and clients. After each attack the endpoint still serves.

use std::time::Duration;

use rejoin_wire::{
    CLIENT_PROTOCOL, Class, CloseCode, Closed, Connection, Endpoint, Error, Limits, PerClass, cert::ClusterCa,
};

use crate::support::{
    CLUSTER, accept_client, accept_peer, authority, client_of, name, node_of, raw_dial, raw_dial_from, soon,
    still_serves,
};

fn setting(limits: Limits) -> (ClusterCa, Endpoint) {
    let ca = authority(CLUSTER);
    let node = node_of(&ca, "n1", limits);
    (ca, node)
}

fn preamble(class: Class) -> [u8; 8] {
    let mut bytes = *b"rejn\x01\x00\x00\x00";
    bytes[6] = class.index() as u8;
    bytes
}

async fn closed_with(connection: &quinn::Connection, code: CloseCode) {
    let closed = soon(connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{code} was expected: {closed:?}") };
    assert_eq!(u64::from(close.error_code), u64::from(code.0), "{close}");
}

/// A raw connection that has greeted as it should, with its streams in the order of classes.
async fn greeted(ca: &ClusterCa, node: &Endpoint) -> (quinn::Connection, Vec<quinn::SendStream>, Connection) {
    let raw = raw_dial(ca, None, CLIENT_PROTOCOL, node.local_addr()).await.unwrap();
    let mut streams = Vec::new();
    for class in Class::ALL {
        let (mut send, recv) = raw.open_bi().await.unwrap();
        send.write_all(&preamble(class)).await.unwrap();
        // Kept unread: dropping it would stop the stream.
        std::mem::forget(recv);
        streams.push(send);
    }
    let accepted = accept_client(node).await;
    (raw, streams, accepted)
}

#[tokio::test]
async fn garbage_datagrams_are_harmless() {
    let (ca, node) = setting(Limits::default());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut word: u32 = 0x9e37_79b9;
    for length in (0..1_400).chain([5_000]) {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 17;
            word ^= word << 5;
            word as u8
        })
        .take(length)
        .collect();
        socket.send_to(&bytes, node.local_addr()).unwrap();
    }
    still_serves(&ca, &node).await;
    assert_eq!(node.stats().accepted, 1);
}

#[tokio::test]
async fn streams_that_begin_wrong_close_the_connection_with_the_reason() {
    let (ca, node) = setting(Limits::default());
    let wrong: [(&[u8], CloseCode); 5] = [
        (b"GET / HTTP/1.1\r\n", CloseCode::PROTOCOL),
        (b"rejn\x02\x00\x00\x00", CloseCode::VERSION),
        (b"rejn\x01\x00\x01\x00", CloseCode::PROTOCOL),
        (b"rejn\x01\x00\x00\x07", CloseCode::PROTOCOL),
        (b"rej", CloseCode::PROTOCOL),
    ];
    for (bytes, code) in wrong {
        let raw = raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await.unwrap();
        let (mut send, _recv) = raw.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        closed_with(&raw, code).await;
    }
    still_serves(&ca, &node).await;
    assert_eq!(node.stats().failed, 5);
}

#[tokio::test]
async fn a_dialer_that_greets_too_slowly_is_let_go_and_holds_nobody_up() {
    let mut limits = Limits::default();
    limits.handshake = Duration::from_millis(400);
    let (ca, node) = setting(limits);
    let raw = raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await.unwrap();
    let (mut send, _recv) = raw.open_bi().await.unwrap();
    send.write_all(b"rejn").await.unwrap();
    still_serves(&ca, &node).await;
    closed_with(&raw, CloseCode::TOO_SLOW).await;
}

#[tokio::test]
async fn more_handshakes_than_allowed_are_refused_and_room_comes_back() {
    let mut limits = Limits::default();
    limits.max_handshakes = 2;
    limits.handshake = Duration::from_millis(500);
    let (ca, node) = setting(limits);
    let slow = [
        raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await,
        raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await,
    ];
    assert!(slow.iter().all(Result::is_ok));
    let refused = raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await;
    assert!(matches!(refused, Err(quinn::ConnectionError::ConnectionClosed(_))), "{refused:?}");
    assert_eq!(node.stats().refused, 1);
    for raw in slow {
        closed_with(&raw.unwrap(), CloseCode::TOO_SLOW).await;
    }
    still_serves(&ca, &node).await;
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused_and_room_comes_back() {
    let mut limits = Limits::default();
    limits.max_connections = 2;
    let (ca, node) = setting(limits);
    let client = client_of(&ca, Limits::default());
    let mut open = Vec::new();
    for _ in 0..2 {
        let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
        open.push((dialled.unwrap(), accepted));
    }
    let refused = soon(client.connect_client(node.local_addr())).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(node.stats().refused, 1);
    let (dialled, _) = open.pop().unwrap();
    dialled.close(CloseCode::DONE, "no longer needed");
    // A closed connection keeps its slot until late packets can no longer come.
    let again = async { while client.connect_client(node.local_addr()).await.is_err() {} };
    soon(async { tokio::join!(again, accept_client(&node)) }).await;
}

#[tokio::test]
async fn an_oversized_frame_closes_its_connection_and_no_other() {
    let mut limits = Limits::default();
    limits.max_frame = PerClass { control: 100, request: 1_000, large: 5_000, bulk: 10_000 };
    limits.max_node_frame = limits.max_frame;
    let (ca, node) = setting(limits.clone());
    let (bystander, _keep, witness) = greeted(&ca, &node).await;
    for class in Class::ALL {
        let limit = limits.max_frame.get(class);
        let (raw, mut streams, accepted) = greeted(&ca, &node).await;
        let mut good = [&5_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), b"hello"].concat();
        good.extend((limit + 1).to_le_bytes());
        good.extend(2_u64.to_le_bytes());
        streams[class.index()].write_all(&good).await.unwrap();
        closed_with(&raw, CloseCode::FRAME_TOO_LARGE).await;
        assert_eq!(soon(accepted.recv()).await.unwrap().body, "hello", "what came before it is still delivered");
        assert!(soon(accepted.recv()).await.is_none());
    }
    assert!(bystander.close_reason().is_none() && witness.close_reason().is_none());
    still_serves(&ca, &node).await;
}

#[tokio::test]
async fn random_bytes_on_greeted_streams_end_one_connection_at_most() {
    let (ca, node) = setting(Limits::default());
    let (raw, mut streams, accepted) = greeted(&ca, &node).await;
    let _ = streams[1].write_all(&[0xff; 5_000]).await;
    closed_with(&raw, CloseCode::FRAME_TOO_LARGE).await;
    assert!(soon(accepted.recv()).await.is_none());

    let (raw, mut streams, accepted) = greeted(&ca, &node).await;
    streams[2].finish().unwrap();
    closed_with(&raw, CloseCode::PROTOCOL).await;
    assert!(soon(accepted.recv()).await.is_none());
    still_serves(&ca, &node).await;
}

#[tokio::test]
async fn streams_beyond_those_of_the_classes_are_not_given() {
    let (ca, node) = setting(Limits::default());
    let (raw, _streams, _accepted) = greeted(&ca, &node).await;
    let further = tokio::time::timeout(Duration::from_millis(200), raw.open_bi()).await;
    assert!(further.is_err(), "no credit for a further stream");
    let one_way = tokio::time::timeout(Duration::from_millis(200), raw.open_uni()).await;
    assert!(one_way.is_err(), "no credit for a one-way stream");
    assert_eq!(node.identity().subject().unwrap().role, rejoin_wire::Role::Node(name("n1")));
}

#[tokio::test]
async fn a_clients_datagrams_are_dropped() {
    let (ca, node) = setting(Limits::default());
    let (raw, _streams, accepted) = greeted(&ca, &node).await;
    for _ in 0..2_000 {
        // The oldest that wait give way.
        raw.send_datagram(vec![0; 1_000].into()).unwrap();
        tokio::task::yield_now().await;
    }
    still_serves(&ca, &node).await;
    assert!(accepted.close_reason().is_none());
}

#[tokio::test]
async fn clients_do_not_keep_a_peer_out() {
    let mut limits = Limits::default();
    limits.max_connections = 8;
    let (ca, node) = setting(limits);
    let client = client_of(&ca, Limits::default());
    let mut open = Vec::new();
    for _ in 0..8 {
        let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
        open.push((dialled.unwrap(), accepted));
    }
    let refused = soon(client.connect_client(node.local_addr())).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let peer = node_of(&ca, "n2", Limits::default());
    let n1 = name("n1");
    let (dialled, (_accepted, from)) =
        tokio::join!(soon(peer.connect_peer(node.local_addr(), &n1)), accept_peer(&node));
    assert!(dialled.is_ok() && from == name("n2"), "{dialled:?}");
    let stats = node.stats();
    assert_eq!((stats.clients, stats.peers, stats.new_clients), (8, 1, 0));
}

#[tokio::test]
async fn peers_have_a_bound_of_their_own() {
    let mut limits = Limits::default();
    limits.max_peers = 1;
    let (ca, node) = setting(limits);
    let (n1, one, two) = (name("n1"), node_of(&ca, "n2", Limits::default()), node_of(&ca, "n3", Limits::default()));
    let (first, (_accepted, _)) = tokio::join!(soon(one.connect_peer(node.local_addr(), &n1)), accept_peer(&node));
    let refused = soon(two.connect_peer(node.local_addr(), &n1)).await;
    let Err(Error::Refused { closed: Closed::ByPeer { code, .. }, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(code, CloseCode::BUSY);
    first.unwrap().close(CloseCode::DONE, "done");
    let again = async { while two.connect_peer(node.local_addr(), &n1).await.is_err() {} };
    soon(async { tokio::join!(again, accept_peer(&node)) }).await;
}

fn first_frames_only() -> Limits {
    let mut limits = Limits::default();
    limits.first_frame = Some(1_000);
    limits
}

#[tokio::test]
async fn a_client_that_is_not_let_in_may_send_small_control_frames_and_little_of_anything() {
    let (ca, node) = setting(first_frames_only());
    // A client of this library: frames that it sends too early wait on its side, and arrive when it is admitted.
    let client = client_of(&ca, Limits::default());
    let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
    let dialled = dialled.unwrap();
    dialled.sender().try_send(Class::Control, 1, vec![1; 1_000].into()).unwrap();
    dialled.sender().try_send(Class::Request, 2, vec![7; 5 << 20].into()).unwrap();
    let first = soon(accepted.recv()).await.unwrap();
    assert_eq!((first.class, first.id, first.body.len()), (Class::Control, 1, 1_000));
    assert!(dialled.sender().queued_bytes(Class::Request) > 4 << 20, "most of it has not left the client");
    assert_eq!(accepted.stats().inbox_bytes, 0);
    accepted.admit();
    let second = soon(accepted.recv()).await.unwrap();
    assert_eq!((second.class, second.id, second.body.len()), (Class::Request, 2, 5 << 20));
    dialled.sender().try_send(Class::Control, 3, vec![1; 1_001].into()).unwrap();
    assert_eq!(soon(accepted.recv()).await.unwrap().id, 3);

    let (raw, mut streams, accepted) = greeted(&ca, &node).await;
    let mut frame = 1_001_u32.to_le_bytes().to_vec();
    frame.extend(1_u64.to_le_bytes());
    streams[0].write_all(&frame).await.unwrap();
    closed_with(&raw, CloseCode::FRAME_TOO_LARGE).await;
    assert!(soon(accepted.recv()).await.is_none());

    // Frames that are not taken stop the reading, however small they are.
    let (_raw, mut streams, accepted) = greeted(&ca, &node).await;
    let small = [&1_u32.to_le_bytes()[..], &9_u64.to_le_bytes(), b"x"].concat();
    let flood = async {
        for _ in 0..100_000 {
            streams[0].write_all(&small).await.unwrap();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_millis(300), flood).await.is_err(),
        "1.3 MB were taken from a client that is not let in"
    );
    assert!(accepted.stats().bytes_received < 10_000, "{:?}", accepted.stats());
    still_serves(&ca, &node).await;
}

#[tokio::test]
async fn who_is_not_let_in_gives_way_to_newcomers_and_who_is_does_not() {
    let mut limits = first_frames_only();
    (limits.max_connections, limits.max_new_clients) = (3, 2);
    let (ca, node) = setting(limits);
    let client = client_of(&ca, Limits::default());
    let dial = async || {
        let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
        (dialled.unwrap(), accepted)
    };
    let (one, two) = (dial().await, dial().await);
    let three = dial().await;
    // At most two may be new: the oldest was evicted.
    let Closed::ByPeer { code, .. } = soon(one.0.closed()).await else { panic!("{:?}", one.0.close_reason()) };
    assert_eq!((code, node.stats().new_clients), (CloseCode::BUSY, 2));
    two.1.admit();
    three.1.admit();
    let four = dial().await;
    assert_eq!((node.stats().clients, node.stats().new_clients), (3, 1));
    let five = dial().await;
    assert!(soon(four.0.closed()).await.to_string().contains("others wait for this slot"));
    five.1.admit();
    let refused = soon(client.connect_client(node.local_addr())).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "nobody gives way who is let in: {refused:?}");
    for (dialled, _) in [&two, &three, &five] {
        assert!(dialled.close_reason().is_none());
    }
}

#[tokio::test]
async fn handshakes_that_are_left_lying_do_not_keep_a_peer_out() {
    let mut limits = Limits::default();
    limits.max_handshakes = 4;
    limits.handshake = Duration::from_secs(20);
    let (ca, node) = setting(limits);
    let mut lying = Vec::new();
    for host in [2, 2, 3, 3] {
        lying.push(raw_dial_from([127, 0, 0, host], &ca, None, CLIENT_PROTOCOL, node.local_addr()).await.unwrap());
    }
    let peer = node_of(&ca, "n2", Limits::default());
    let n1 = name("n1");
    let dial = async {
        loop {
            match peer.connect_peer(node.local_addr(), &n1).await {
                Ok(connection) => break connection,
                // The others have not had their minimum time yet.
                Err(error) => assert!(matches!(error, Error::Refused { .. } | Error::Unreachable { .. }), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (_dialled, (_accepted, from)) = soon(async { tokio::join!(dial, accept_peer(&node)) }).await;
    assert_eq!(from, name("n2"));
    let still = lying.iter().filter(|raw| raw.close_reason().is_none()).count();
    assert_eq!(still, 3, "the oldest has given way, and the others still have their time");
}

#[tokio::test]
async fn half_made_handshakes_keep_no_expected_peer_out() {
    let mut limits = Limits::default();
    limits.max_handshakes = 8;
    // So long that none of the flood is evicted for its age.
    limits.handshake = Duration::from_secs(60);
    let (ca, node) = setting(limits.clone());
    let peer = node_of(&ca, "n2", limits);
    let flood = async |from: [u8; 4]| {
        let mut held = Vec::new();
        while let Ok(raw) = raw_dial_from(from, &ca, None, CLIENT_PROTOCOL, node.local_addr()).await {
            held.push(raw);
        }
        held
    };
    // One address takes most of the slots, and not all.
    let one = flood([127, 0, 0, 2]).await;
    assert_eq!(one.len(), 6);
    still_serves(&ca, &node).await;
    // Several of them take all but those that are reserved for peers.
    let more = flood([127, 0, 0, 3]).await;
    assert_eq!(more.len(), 2);
    let refused = soon(peer.connect_peer(node.local_addr(), &name("n1"))).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    node.expect_peers([peer.local_addr()]);
    let n1 = name("n1");
    let (dialled, (_, from)) = tokio::join!(soon(peer.connect_peer(node.local_addr(), &n1)), accept_peer(&node));
    assert!(dialled.is_ok() && from == name("n2"), "{dialled:?}");
    assert_eq!(one.iter().chain(&more).filter(|raw| raw.close_reason().is_some()).count(), 0);
}
