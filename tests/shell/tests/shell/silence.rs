//! Those who stop reading: what is meant for them is bounded, and nobody else waits.

use std::sync::Arc;
use std::time::Duration;

use rejoin_client::{Bytes, ErrorKind};
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{ClientHello, Get, HelloReply, PROTOCOL, Reply, ReplyEnvelope, Request, RequestBody};
use rejoin_proto::peer::{PeerHello, PeerReady};
use rejoin_proto::{ErrorCode, LayoutRange, NodeId, codec};
use rejoin_test_shell::{Files, Impostor, Setup, World, name, simulate, simulate_with};
use rejoin_wire::{Accepted, Class, Identity, Limits};

/// Frame ids between peers: the hello, and the word that there are no objections.
const HELLO: u64 = 0;
const READY: u64 = 2;
/// How long nodes wait for a hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// A value that is large, and that a bucket takes.
const VALUE: usize = 1_000_000;

/// A node that says its hello, and then neither reads nor says anything any more, while its QUIC goes on.
async fn deaf(world: World, node: &'static str) {
    let endpoint = world.endpoint(world.address(node).port(), world.files.identity(node));
    let mut kept = Vec::new();
    while let Some(accepted) = endpoint.accept().await {
        let Accepted::Peer(connection, _) = accepted else { continue };
        let theirs: PeerHello = codec::decode(&connection.recv().await.unwrap().body).unwrap();
        // Of the same mind about everything, so that there is nothing to talk about.
        let ours = PeerHello { node: NodeId::from_name(&name(node)), known_disk: None, actors: Vec::new(), ..theirs };
        let layouts = LayoutRange { oldest: ours.params.origin, newest: ours.params.origin };
        let ready = PeerReady { catalog: ours.catalog, layouts };
        connection.sender().try_send(Class::Control, HELLO, codec::encode(&ours).into()).unwrap();
        connection.sender().try_send(Class::Control, READY, codec::encode(&ready).into()).unwrap();
        kept.push(connection);
    }
}

#[test]
fn a_peer_that_stops_reading_gets_a_bounded_queue_and_holds_up_nobody_who_does_not_need_it() {
    // What a shard keeps for a peer beside the queue is bounded by what its requests may take.
    let setup = Setup { more: "in_flight_bytes = 4194304", ..Setup::default() };
    // The one whom the others dial.
    let deaf_node = *setup.nodes.iter().max_by_key(|node| NodeId::from_name(&name(node))).unwrap();
    let hearing = setup.nodes.iter().find(|node| **node != deaf_node).unwrap();
    let impostor: Impostor = (deaf_node, |world, node| Box::pin(deaf(world, node)));
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &[impostor], move |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder(hearing).attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        let queue = Limits::default().queue_bytes.large + 2 * VALUE;
        let enough = 2 * Limits::default().queue_bytes.large / VALUE;
        for key in 0..enough {
            let begun = world.now();
            bucket.put(key.to_string(), vec![1; VALUE]).blind().await.unwrap();
            assert!(world.now() - begun < Duration::from_millis(500), "key {key} took {:?}", world.now() - begun);
            let queued = world.figure(hearing, "rejoin_peers_queued_bytes").await;
            assert!(queued <= queue as f64, "{queued} bytes are queued");
        }
        assert!(world.figure(hearing, "rejoin_sends_dropped_total").await > 0.0);

        // A write that needs the peer is told at once that its message was dropped, perhaps before others have
        // answered.
        let (wait, begun) = (Duration::from_millis(700), world.now());
        let error = bucket.put("all", vec![1; VALUE]).blind().w(3).timeout(wait).await.unwrap_err();
        assert_eq!((error.kind(), error.needed()), (ErrorKind::Unknown, 3), "{error}");
        assert!(error.got() <= 2 && world.now() - begun < wait, "after {:?}: {error}", world.now() - begun);
        // A read is small and waits in another queue, for the answer, up to its deadline.
        let begun = world.now();
        let error = bucket.get("0").r(3).timeout(wait).await.unwrap_err();
        assert_eq!((error.kind(), error.needed(), error.got()), (ErrorKind::TimedOut, 3, 2), "{error}");
        let took = world.now() - begun;
        assert!(took >= wait && took < wait + Duration::from_millis(500), "it took {took:?}");
    });
}

#[test]
fn a_client_that_stops_reading_is_answered_up_to_a_bound_and_holds_up_no_other() {
    simulate(&Setup::default(), |world| async move {
        let bucket = world.plain().await;
        bucket.put("large", vec![1; VALUE]).blind().w(3).await.unwrap();
        let endpoint = world.endpoint(0, Identity::client(world.files.ca_pem(), None).unwrap());
        let deaf = endpoint.connect_client(world.address("n1")).await.unwrap();
        let hello = ClientHello { protocol: PROTOCOL, token: world.files.token(), tenant: None, client: "deaf".into() };
        deaf.sender().try_send(Class::Control, 0, codec::encode(&hello).into()).unwrap();
        let HelloReply::Welcome(welcome) = codec::decode(&deaf.recv().await.unwrap().body).unwrap() else {
            panic!("not welcome")
        };
        let get = Get {
            bucket: name("plain"),
            key: "large".into(),
            r: Some(Quorum::Count(1)),
            pr: None,
            siblings: false,
            show: rejoin_proto::client::Show::Nothing,
        };
        let request = Request {
            deadline_ms: 60_000,
            trace: 1,
            layout: welcome.routes.layout.name(),
            body: RequestBody::Get(get),
        };
        let limits = Limits::default();
        let bound =
            (limits.queue_bytes.request + limits.inbox_bytes.request + limits.stream_window as usize) / VALUE + 2;
        for id in 0..2 * bound {
            deaf.sender().try_send(Class::Request, id as u64, codec::encode(&request).into()).unwrap();
        }

        let other = world.pinned_plain("n1").await;
        for _ in 0..20 {
            let begun = world.now();
            other.put("small", b"v".to_vec()).blind().await.unwrap();
            other.get("small").await.unwrap();
            assert!(world.now() - begun < Duration::from_millis(100), "it took {:?}", world.now() - begun);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        let (mut values, mut refused) = (0, 0);
        for _ in 0..2 * bound {
            let answer: ReplyEnvelope = codec::decode(&deaf.recv().await.unwrap().body).unwrap();
            match answer.reply {
                Reply::Get(_) => values += 1,
                Reply::Error(error) if error.code == ErrorCode::Overloaded && error.retry_after_ms > 0 => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(
            values > 0 && values <= bound && refused > 0,
            "{values} values and {refused} refusals, the bound is {bound}"
        );
    });
}

#[test]
fn who_connects_and_says_nothing_is_let_go() {
    simulate(&Setup::default(), |world| async move {
        let bucket = world.plain().await;
        let stranger = world.endpoint(0, Identity::client(world.files.ca_pem(), None).unwrap());
        let node = world.endpoint(0, world.files.identity("n3"));
        let begun = world.now();
        let client = stranger.connect_client(world.address("n1")).await.unwrap();
        let peer = node.connect_peer(world.address("n1"), &name("n1")).await.unwrap();
        let (client, peer) = tokio::join!(client.closed(), peer.closed());
        let took = world.now() - begun;
        assert!(took >= HELLO_WAIT && took < HELLO_WAIT + Duration::from_millis(200), "it took {took:?}");
        assert!(client.to_string().contains("no hello") && peer.to_string().contains("no hello"), "{client}; {peer}");
        bucket.put("k", b"v".to_vec()).blind().w(3).await.unwrap();
    });
}
