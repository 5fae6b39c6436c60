//! Exchanges between real nodes: walks and rebuilds whose network stands still, is cut, or comes back.

use std::time::Duration;

use rejoin_client::admin::Status;
use rejoin_client::{Bucket, Bytes};
use rejoin_test_shell::{Setup, World, simulate};

/// Each shard's walks move no more than that per second, so that one takes many seconds.
const SLOW: &str = "[exchange]\nfloor_bytes = 65536\nmax_bytes = 65536\ninterval_ms = 1000";
const KEYS: u32 = 400;
const VALUE: usize = 2_000;
/// A peer from which nothing comes for this long is down.
const PEER_IDLE: Duration = Duration::from_secs(4);
/// What a request may take while nothing but an exchange is in trouble.
const PROMPT: Duration = Duration::from_millis(400);

#[test]
fn the_table_exchange_of_the_configuration_paces_the_shards() {
    let setup = Setup { more: "[exchange]\npaused = true", ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        for node in ["n1", "n2", "n3"] {
            let status = world.pinned(node).await.admin().exchange().await.unwrap();
            assert!(status.paused, "{status:?}");
        }
    });
}

fn value(key: u32) -> Vec<u8> {
    vec![key as u8; VALUE]
}

/// Writes keys that two nodes are enough for.
async fn fill(world: &World, keys: std::ops::Range<u32>) {
    let bucket = world.pinned_plain("n1").await;
    for key in keys {
        bucket.put(key.to_string(), value(key)).blind().await.unwrap();
    }
}

/// A write and a read at a node, each soon enough.
async fn requests_go_on(world: &World, bucket: &Bucket<Bytes>, what: &str) {
    let begun = world.now();
    let key = format!("probe at {begun:?}");
    bucket.put(&key[..], b"p".to_vec()).blind().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    bucket.get(&key[..]).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(world.now() - begun < PROMPT, "{what}: it took {:?}", world.now() - begun);
}

/// The objects that a node's walks and those of its peers with it have brought it.
async fn brought(world: &World, to: &str) -> u64 {
    let mut sum = 0;
    for node in ["n1", "n2", "n3"] {
        let pairs = world.pinned(node).await.admin().exchange().await.unwrap().pairs;
        let of = |pair: &rejoin_client::admin::ExchangePair| match node == to {
            true => pair.received,
            false if pair.peer.as_str() == to => pair.sent,
            false => 0,
        };
        sum += pairs.iter().map(of).sum::<u64>();
    }
    sum
}

/// Waits until a node has been brought more than so many objects.
async fn brought_more_than(world: &World, to: &str, least: u64) -> u64 {
    loop {
        let brought = brought(world, to).await;
        if brought > least {
            return brought;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Cuts a node off from its peers, until its connections have timed out.
async fn cut_off(world: &World, node: &str, bucket: &Bucket<Bytes>) {
    for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != node) {
        world.cut(node, other);
    }
    let until = world.now() + 2 * PEER_IDLE;
    while world.now() < until {
        requests_go_on(world, bucket, "while a node is cut off").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(world.figure(node, "rejoin_peers_connected").await, 0.0);
    for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != node) {
        world.heal(node, other);
    }
}

/// Waits until no node knows of a difference or a rebuild.
async fn all_are_equal(world: &World) {
    for node in ["n1", "n2", "n3"] {
        let admin = world.pinned(node).await.admin();
        loop {
            let (exchange, status) = (admin.exchange().await.unwrap(), admin.status().await.unwrap());
            let open = exchange.pairs.iter().any(|pair| pair.differs || pair.equal_ago_ms.is_none());
            if !open && !exchange.pairs.is_empty() && exchange.incomplete.is_empty() && is_whole(&status) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_whole(status: &Status) -> bool {
    status.rebuild.is_none() && status.nodes.iter().all(|node| node.up && !node.replaced)
}

/// Reads every key from the copy of one node alone.
async fn has_all(world: &World, node: &str) {
    let bucket = world.pinned_plain(node).await;
    for key in 0..KEYS {
        let read = bucket.get(key.to_string()).r(1).await.unwrap();
        assert_eq!(read.value.as_deref(), Some(&value(key)[..]), "{key} at {node}");
        assert_eq!(read.answered, [node], "{key}");
    }
}

#[test]
fn a_walk_stands_still_with_its_network_begins_anew_after_a_cut_and_ends_with_equal_replicas() {
    let setup = Setup { more: SLOW, ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        let bucket = world.pinned_plain("n1").await;
        world.kill("n3");
        tokio::time::sleep(Duration::from_secs(5)).await;
        fill(&world, 0..KEYS).await;
        world.start("n3");
        let first = brought_more_than(&world, "n3", 10).await;

        // Packets wait for a while: the connection and the walk outlive that.
        turmoil::hold("n1", "n3");
        let until = world.now() + PEER_IDLE / 2;
        while world.now() < until {
            requests_go_on(&world, &bucket, "while packets wait").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        turmoil::release("n1", "n3");
        assert_eq!(world.figure("n1", "rejoin_peers_connected").await, 2.0);
        let second = brought_more_than(&world, "n3", first + 20).await;
        assert!(second < u64::from(KEYS), "{second} are too many for a cut in the middle");

        cut_off(&world, "n3", &bucket).await;
        brought_more_than(&world, "n3", second).await;
        requests_go_on(&world, &bucket, "after the cut").await;
        all_are_equal(&world).await;
        has_all(&world, "n3").await;
        // Two owners may bring it the same object, and what was brought before the cut is not brought again.
        let all = brought(&world, "n3").await;
        assert!(all <= 2 * u64::from(KEYS) + 200, "{all} objects were brought for {KEYS}");
    });
}

#[test]
fn a_rebuild_goes_on_after_its_connections_have_timed_out_and_after_a_kill() {
    let setup = Setup { more: SLOW, seed: 2, ..Setup::default() };
    simulate(&setup, |world| async move {
        world.plain().await;
        let bucket = world.pinned_plain("n1").await;
        fill(&world, 0..KEYS).await;
        world.kill("n3");
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::fs::remove_dir_all(world.data("n3")).unwrap();
        world.start("n3");
        let taken = rebuilt_more_than(&world, 10).await;
        cut_off(&world, "n3", &bucket).await;
        let taken = rebuilt_more_than(&world, taken).await;
        assert!(taken < u64::from(KEYS), "{taken} are too many for a kill in the middle");
        world.kill("n3");
        tokio::time::sleep(Duration::from_secs(5)).await;
        requests_go_on(&world, &bucket, "while the node is down").await;
        world.start("n3");
        rebuilt_more_than(&world, 0).await;
        requests_go_on(&world, &bucket, "while the node is rebuilt").await;
        all_are_equal(&world).await;
        has_all(&world, "n3").await;
    });
}

/// Waits until n3 has taken more than so many objects for its rebuild, which has not ended.
async fn rebuilt_more_than(world: &World, least: u64) -> u64 {
    loop {
        let status = world.pinned("n3").await.admin().status().await.unwrap();
        let rebuild = status.rebuild.expect("it is not rebuilt yet");
        assert!(!rebuild.left.is_empty() && rebuild.left.len() <= rebuild.partitions as usize, "{rebuild:?}");
        if rebuild.objects > least {
            return rebuild.objects;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
