//! A peer that takes no bulk transfers, while it takes and answers requests as ever.

use std::sync::Arc;
use std::time::Duration;

use rejoin_client::Bytes;
use rejoin_proto::catalog::RecordKey;
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{LayoutRef, PluginDigest};
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Files, Impostor, Setup, World, simulate_with};
use rejoin_wire::{Class, Connection, Limits};

use crate::impostor::{self, send};

/// The bytes of a plugin's component, and how often the peer asks for it: far more than the queue, the window of the
/// stream and the inbox of the peer hold.
const COMPONENT: usize = 1 << 20;
const WANTED: usize = 48;

/// A component with a section that nobody reads.
fn padded(component: Vec<u8>, bytes: usize) -> Vec<u8> {
    let section = [&[3][..], b"pad", &vec![0; bytes]].concat();
    let mut length = section.len();
    let mut padded = [component, vec![0]].concat();
    while length >= 0x80 {
        padded.push(length as u8 | 0x80);
        length >>= 7;
    }
    padded.push(length as u8);
    padded.extend(section);
    padded
}

/// A node that answers requests, asks for every plugin that it hears of, and leaves all bulk unread.
async fn takes_no_bulk(world: World, node: &'static str) {
    impostor::play(world, node, |connection, layout, body| {
        if let PeerBody::CatalogRecords { records, .. } = body {
            for record in records {
                if let RecordKey::Plugin(_, digest) = record.key {
                    tokio::task::spawn_local(want(connection.clone(), layout, digest));
                }
            }
        }
    })
    .await;
}

/// Asks for a component again and again: what has found the queue full was not sent.
async fn want(connection: Connection, layout: LayoutRef, digest: PluginDigest) {
    for _ in 0..WANTED {
        send(&connection, layout, Class::Request, PeerBody::ModuleWanted(digest));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_peer_that_takes_no_bulk_holds_up_no_request_and_gets_a_bounded_queue() {
    let setup = Setup::default();
    let taker = "n3";
    let impostor: Impostor = (taker, |world, node| Box::pin(takes_no_bulk(world, node)));
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &[impostor], move |world| async move {
        world.plain().await;
        let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        client.admin().push_plugin("padded", padded(guests::first(), COMPONENT)).await.unwrap();
        let bound = Limits::default().queue_bytes.bulk + COMPONENT;
        let queued = async || world.figure("n1", "rejoin_peers_queued_bytes").await as usize;
        while queued().await + 2 * COMPONENT < Limits::default().queue_bytes.bulk {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for round in 0..50_u32 {
            let begun = world.now();
            let key = round.to_string();
            // Above 64 KiB a value travels as *large*.
            let value = vec![1; if round % 5 == 0 { 200_000 } else { 100 }];
            let put = bucket.put(&key, value).blind().w(3).await.unwrap();
            let read = bucket.get(&key).r(3).await.unwrap();
            assert_eq!((put.acked, read.answered.len()), (3, 3));
            assert!(world.now() - begun < Duration::from_millis(200), "round {round} took {:?}", world.now() - begun);
            let queued = queued().await;
            assert!(queued > 4 * COMPONENT && queued <= bound, "{queued} bytes are queued");
        }
        assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0, "a stalled stream ends no connection");
    });
}

#[test]
fn a_peer_that_takes_no_bulk_keeps_nobody_from_making_the_others_equal() {
    let setup = Setup { more: "[exchange]\ninterval_ms = 1000", ..Setup::default() };
    let impostor: Impostor = ("n3", |world, node| Box::pin(takes_no_bulk(world, node)));
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &[impostor], move |world| async move {
        world.plain().await;
        let bucket = world.pinned_plain("n1").await;
        world.kill("n2");
        tokio::time::sleep(Duration::from_secs(5)).await;
        for key in 0..200_u32 {
            bucket.put(key.to_string(), vec![1; 10_000]).blind().w(2).await.unwrap();
        }
        world.start("n2");
        loop {
            let begun = world.now();
            bucket.put(format!("probe at {begun:?}"), b"p".to_vec()).blind().w(2).await.unwrap();
            assert!(world.now() - begun < Duration::from_millis(200), "it took {:?}", world.now() - begun);
            let equal = async |at: &str, with: &str| {
                let pairs = world.pinned(at).await.admin().exchange().await.unwrap().pairs.into_iter();
                let is_equal = |pair: &rejoin_client::admin::ExchangePair| {
                    pair.peer.as_str() == with && pair.equal_ago_ms.is_some() && !pair.differs
                };
                pairs.filter(is_equal).count()
            };
            // It has compared nothing when it starts.
            if equal("n2", "n1").await == 256 {
                assert_eq!(equal("n1", "n3").await, 0, "nothing is known of one that does not answer");
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let other = world.pinned_plain("n2").await;
        for key in 0..200_u32 {
            let read = other.get(key.to_string()).r(1).await.unwrap();
            assert_eq!(
                (read.value.map(|value| value.len()), &read.answered[..]),
                (Some(10_000), &["n2".to_owned()][..])
            );
        }
        assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0, "a stalled stream ends no connection");
    });
}
