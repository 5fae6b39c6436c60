//! Frames over real connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Builder, Handle};

use rejoin_wire::{Class, CloseCode, Closed, Connection, Frame, Limits, MAX_DATAGRAM, PerClass, SendError};

use crate::support::{CLUSTER, Pair, accept_client, authority, client_of, node_of, pair, soon};

/// The body of the `id`th frame of a test: its length and its bytes follow from the id.
fn body(id: u64) -> Bytes {
    let lengths = [0, 1, 100, 4_095, 4_096, 4_097, 70_000, 1 << 20];
    vec![(id % 251) as u8; lengths[id as usize % lengths.len()]].into()
}

async fn send_numbered(connection: &Connection, count: u64) {
    let sender = connection.sender();
    for id in 0..count {
        for class in Class::ALL {
            sender.send(class, id, body(id)).await.unwrap();
        }
    }
}

async fn expect_numbered(connection: &Connection, count: u64) {
    let mut next = [0; Class::COUNT];
    while next != [count; Class::COUNT] {
        let frame = soon(connection.recv()).await.expect("the connection is open");
        let expected = &mut next[frame.class.index()];
        assert_eq!(frame.id, *expected, "order within {}", frame.class);
        assert_eq!(frame.body, body(frame.id), "body of {}", frame.id);
        *expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_all_sizes_go_both_ways_in_order() {
    let Pair { dialer, acceptor, endpoints: _open } = pair(Limits::default()).await;
    tokio::join!(
        send_numbered(&dialer, 40),
        send_numbered(&acceptor, 40),
        expect_numbered(&dialer, 40),
        expect_numbered(&acceptor, 40)
    );
    let (sent, received) = (dialer.stats(), acceptor.stats());
    assert_eq!((sent.frames_sent, sent.bytes_sent), (160, received.bytes_received));
    assert_eq!((received.frames_received, received.inbox_bytes), (160, 0));
}

#[tokio::test]
async fn a_client_needs_no_certificate_and_is_told_when_the_node_closes() {
    let ca = authority(CLUSTER);
    let (node, client) = (node_of(&ca, "n1", Limits::default()), client_of(&ca, Limits::default()));
    let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
    let dialled = dialled.unwrap();
    assert!(accepted.subject().is_none());
    assert_eq!(dialled.subject().unwrap().to_string(), format!("rejoin://{CLUSTER}/node/n1"));
    assert_eq!(accepted.remote_address(), client.local_addr());

    accepted.close(CloseCode(300), "enough");
    let reason = Closed::ByPeer { code: CloseCode(300), reason: "enough".into() };
    assert_eq!(soon(dialled.closed()).await, reason);
    assert_eq!(soon(accepted.closed()).await, Closed::ByUs { code: CloseCode(300), reason: "enough".into() });
    assert!(soon(dialled.recv()).await.is_none());
    assert_eq!(dialled.close_reason(), Some(reason));
    assert_eq!(dialled.sender().send(Class::Request, 1, Bytes::new()).await, Err(SendError::Closed));
}

#[tokio::test]
async fn a_dropped_connection_and_a_closed_endpoint_are_noticed() {
    let Pair { dialer, acceptor, endpoints: [one, two] } = pair(Limits::default()).await;
    let sender = dialer.sender();
    drop(dialer);
    assert_eq!(soon(acceptor.closed()).await, Closed::ByPeer { code: CloseCode::DONE, reason: "dropped".into() });
    assert!(soon(acceptor.recv()).await.is_none());
    soon(async {
        while sender.try_send(Class::Control, 0, Bytes::new()).is_ok() {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert!(sender.is_closed());

    let again = soon(one.connect_peer(two.local_addr(), &crate::support::name("n2"))).await.unwrap();
    soon(two.close(CloseCode::SHUTDOWN, "bye")).await;
    assert_eq!(soon(again.closed()).await, Closed::ByPeer { code: CloseCode::SHUTDOWN, reason: "bye".into() });
    while let Some(accepted) = soon(two.accept()).await {
        drop(accepted);
    }
    assert!(soon(two.connect_peer(one.local_addr(), &crate::support::name("n1"))).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_small_requests_are_pipelined_in_batches_from_a_thread() {
    const COUNT: u64 = 10_000;
    let Pair { dialer, acceptor, endpoints: _open } = pair(Limits::default()).await;
    let echo = async {
        let sender = acceptor.sender();
        let (mut batch, mut seen) = (Vec::new(), 0);
        while seen < COUNT {
            let came = soon(acceptor.recv_batch(&mut batch, 256)).await;
            assert!(came > 0, "the connection is open");
            seen += came as u64;
            while !batch.is_empty() {
                sender.try_send_batch(&mut batch).unwrap();
                tokio::task::yield_now().await;
            }
        }
    };
    let sender = dialer.sender();
    let thread = std::thread::spawn(move || {
        // A shard: no runtime, one call per batch.
        for first in (0..COUNT).step_by(100) {
            let mut batch: Vec<_> = (first..first + 100)
                .map(|id| Frame { class: Class::Request, id, body: id.to_le_bytes().to_vec().into() })
                .collect();
            assert_eq!(sender.try_send_batch(&mut batch), Ok(100));
        }
    });
    let replies = async {
        for id in 0..COUNT {
            let frame = soon(dialer.recv()).await.unwrap();
            assert_eq!((frame.id, &frame.body[..]), (id, &id.to_le_bytes()[..]));
        }
    };
    tokio::join!(echo, replies);
    thread.join().unwrap();
}

/// Windows and queues so small that they fill at once when nothing is read.
fn tight() -> Limits {
    let mut limits = Limits::default();
    limits.stream_window = 64 << 10;
    limits.inbox_bytes = PerClass::all(64 << 10);
    limits.queue_bytes = PerClass::all(1 << 20);
    limits
}

/// Bytes that fit outside the sender's queue under `tight`: the window, the inbox, and one read above its limit.
const UNDER_WAY: usize = 512 << 10;

/// Sends 16 KiB frames until the queue stays full. Returns the number queued.
async fn fill(connection: &Connection, class: Class) -> u64 {
    let sender = connection.sender();
    let mut count = 0;
    let frame = Bytes::from(vec![1; 16 << 10]);
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_millis(300), sender.send(class, count, frame.clone())).await
    {
        sent.unwrap();
        count += 1;
        assert!(count < 1_000, "nothing bounds what is taken without a reader");
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_does_not_read_fills_a_bounded_queue_and_loses_nothing() {
    let Pair { dialer, acceptor, endpoints: _open } = pair(tight()).await;
    let count = fill(&dialer, Class::Request).await;
    let refused = dialer.sender().try_send(Class::Request, count, vec![0; 64 << 10].into());
    assert_eq!(refused, Err(SendError::Full(Class::Request)));
    let taken = count as usize * (16 << 10);
    assert!(taken >= (1 << 20) - (32 << 10), "the queue was used: {taken}");
    assert!(taken <= (1 << 20) + UNDER_WAY, "{taken} bytes were taken without a reader");
    assert!(acceptor.stats().inbox_bytes <= UNDER_WAY, "{:?}", acceptor.stats());
    for id in 0..count {
        assert_eq!(soon(acceptor.recv()).await.unwrap().id, id);
    }
    dialer.sender().try_send(Class::Request, count, Bytes::new()).expect("there is room again");
    assert_eq!(soon(acceptor.recv()).await.unwrap().id, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_bulk_class_leaves_the_others_flowing() {
    let Pair { dialer, acceptor, endpoints: _open } = pair(tight()).await;
    let count = fill(&dialer, Class::Bulk).await;
    let echo = async {
        for round in 0..500 {
            let class = if round % 50 == 0 { Class::Large } else { Class::Request };
            let frame = soon(acceptor.recv_class(class)).await.unwrap();
            acceptor.sender().send(Class::Control, frame.id, frame.body).await.unwrap();
        }
    };
    let ask = async {
        for id in 0..500 {
            let (class, len) = if id % 50 == 0 { (Class::Large, 100_000) } else { (Class::Request, 2_000) };
            dialer.sender().send(class, id, vec![3; len].into()).await.unwrap();
            assert_eq!(soon(dialer.recv()).await.unwrap().id, id);
        }
    };
    tokio::join!(echo, ask);
    assert!(dialer.sender().queued_bytes(Class::Bulk) > 512 << 10, "bulk was blocked all the while");
    for id in 0..count {
        assert_eq!(soon(acceptor.recv_class(Class::Bulk)).await.unwrap().id, id);
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_where_it_is_sent() {
    let mut limits = Limits::default();
    limits.max_frame.control = 100;
    limits.max_node_frame.control = 100;
    let Pair { dialer, acceptor, endpoints: _open } = pair(limits).await;
    let refused = dialer.sender().try_send(Class::Control, 1, vec![0; 101].into());
    assert_eq!(refused, Err(SendError::TooLarge { class: Class::Control, len: 101, limit: 100 }));
    dialer.sender().try_send(Class::Control, 2, vec![0; 100].into()).unwrap();
    assert_eq!(soon(acceptor.recv()).await.unwrap().id, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_arrive_while_nobody_reads_the_frames() {
    let Pair { dialer, acceptor, endpoints: _open } = pair(Limits::default()).await;
    // More than flow control lets through: the bulk stream stands still.
    let sender = dialer.sender();
    for id in 0..32 {
        sender.try_send(Class::Bulk, id, vec![0; 400 << 10].into()).unwrap();
    }
    let largest = Bytes::from(vec![7; MAX_DATAGRAM]);
    for _ in 0..20 {
        // On its way a datagram may get lost.
        let arrives = async {
            loop {
                assert!(dialer.send_datagram(largest.clone()));
                tokio::select! {
                    body = acceptor.recv_datagram() => return body,
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        };
        assert_eq!(soon(arrives).await.as_ref(), Some(&largest));
    }
    assert!(!dialer.send_datagram(vec![7; MAX_DATAGRAM + 1].into()), "one that is too large is refused");
    dialer.close(CloseCode::DONE, "enough");
    while soon(acceptor.recv_datagram()).await.is_some() {}
    assert!(!dialer.send_datagram(largest), "and so is one on a connection that has ended");
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_dropped_and_hold_no_memory() {
    let Pair { dialer, acceptor, endpoints: _open } = pair(Limits::default()).await;
    for number in 0..1_000_u32 {
        let mut body = number.to_le_bytes().to_vec();
        body.resize(MAX_DATAGRAM, 0);
        dialer.send_datagram(body.into());
        tokio::task::yield_now().await;
    }
    dialer.sender().send(Class::Request, 1, Bytes::new()).await.unwrap();
    assert!(soon(acceptor.recv()).await.is_some());
    dialer.close(CloseCode::DONE, "enough");
    soon(acceptor.closed()).await;
    let mut left = 0;
    while soon(acceptor.recv_datagram()).await.is_some() {
        left += 1;
    }
    assert!(left <= 8, "{left} datagrams were kept");
}

#[tokio::test]
async fn connections_are_spread_over_runtimes_and_stay_on_theirs() {
    let runtimes = [(); 3].map(|()| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let all = [0, 1, 2].map(|index: usize| runtimes[index].handle().clone());
    let ca = authority(CLUSTER);
    let (node, client) = (node_of(&ca, "n1", Limits::default()), client_of(&ca, Limits::default()));
    node.spread_over(&all);
    let (mut seen, mut open) = (Vec::new(), Vec::new());
    for id in 0..6 {
        let (dialled, accepted) = tokio::join!(soon(client.connect_client(node.local_addr())), accept_client(&node));
        let dialled = dialled.unwrap();
        seen.push(accepted.runtime().unwrap().id());
        assert_eq!(dialled.runtime().unwrap().id(), Handle::current().id(), "only what is accepted is spread");
        dialled.sender().try_send(Class::Request, id, body(id)).unwrap();
        let frame = soon(accepted.recv()).await.unwrap();
        accepted.sender().try_send(Class::Request, frame.id, frame.body).unwrap();
        let answer = soon(dialled.recv()).await.unwrap();
        assert_eq!((answer.id, answer.body), (id, body(id)));
        open.push((dialled, accepted));
    }
    let turns = [1, 2, 0, 1, 2, 0].map(|index: usize| all[index].id());
    assert_eq!(seen, turns);
    let of_peers = [(); 3].map(|()| node.runtime_for_peer().unwrap().id());
    assert_eq!(of_peers, turns[..3], "peers take turns among themselves");
    drop(open);
    runtimes.into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
}

/// Frames one by one, with nothing to be sent back: each comes in a packet of its own.
#[tokio::test]
async fn packets_are_acknowledged_by_the_dozen() {
    const FRAMES: u64 = 400;
    let Pair { dialer, acceptor, endpoints } = pair(Limits::default()).await;
    let (before, began) = (acceptor.stats().datagrams_sent, Instant::now());
    for id in 0..FRAMES {
        dialer.sender().try_send(Class::Request, id, Bytes::new()).unwrap();
        assert_eq!(soon(acceptor.recv()).await.unwrap().id, id);
    }
    let (sent, took) = (acceptor.stats().datagrams_sent - before, began.elapsed());
    // On a slow machine one in 10 ms, and a few for the search for the path's MTU.
    let most = FRAMES / 16 + took.as_millis() as u64 / 10 + 40;
    assert!(sent <= most, "{sent} datagrams were sent for {FRAMES} that came in {took:?}, not {most}");
    drop(endpoints);
}
