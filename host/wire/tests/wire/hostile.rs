//! What it withstands. After each attack the endpoint still serves.

use crate::support::{CLUSTER, accept_client, authority, client_of, name, node_of, raw_dial, soon, still_serves};
use rejoin_wire::{CLIENT_PROTOCOL, Class, CloseCode, Connection, Endpoint, Error, Limits, PerClass, cert::ClusterCa};
use std::time::Duration;

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
    let slow =
        [raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await, raw_dial(&ca, None, CLIENT_PROTOCOL, node.local_addr()).await];
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
    // A closed connection keeps its place until late packets can no longer come.
    let again = async { while client.connect_client(node.local_addr()).await.is_err() {} };
    soon(async { tokio::join!(again, accept_client(&node)) }).await;
}

#[tokio::test]
async fn an_oversized_frame_closes_its_connection_and_no_other() {
    let mut limits = Limits::default();
    limits.max_frame = PerClass { control: 100, request: 1_000, bulk: 10_000 };
    limits.max_node_frame = limits.max_frame;
    let (ca, node) = setting(limits);
    let (bystander, _keep, witness) = greeted(&ca, &node).await;
    for (class, limit) in [(Class::Control, 100_u32), (Class::Request, 1_000), (Class::Bulk, 10_000)] {
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
async fn streams_beyond_the_three_are_not_given() {
    let (ca, node) = setting(Limits::default());
    let (raw, _streams, _accepted) = greeted(&ca, &node).await;
    let fourth = tokio::time::timeout(Duration::from_millis(200), raw.open_bi()).await;
    assert!(fourth.is_err(), "no credit for a fourth stream");
    let one_way = tokio::time::timeout(Duration::from_millis(200), raw.open_uni()).await;
    assert!(one_way.is_err(), "no credit for a one-way stream");
    assert!(raw.max_datagram_size().is_none(), "datagrams are off");
    assert_eq!(node.identity().subject().unwrap().role, rejoin_wire::Role::Node(name("n1")));
}
