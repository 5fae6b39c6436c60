//! Comparisons of views on a real node: peers that say something else, a quarantine, and its release.

use std::sync::Arc;
use std::time::Duration;

use rejoin_client::admin::{BucketProps, Quorum};
use rejoin_client::{Bytes, Client};
use rejoin_proto::peer::PeerBody;
use rejoin_test_hostile::guests;
use rejoin_test_shell::{Files, Impostor, Setup, World, simulate_with};
use rejoin_wire::Class;

use crate::impostor::{self, send};

/// A comparison ten times a second.
const OFTEN: &str = "[exchange]\nview_samples_per_minute = 600";

/// A node that tells another view than anybody else.
async fn says_one(world: World, node: &'static str) {
    impostor::play(world, node, |connection, layout, body| {
        if let PeerBody::ViewAsk(ask) = body {
            send(connection, layout, Class::Request, PeerBody::ViewAnswer { op: ask.op, view: Some([1; 16]) });
        }
    })
    .await;
}

/// Another one.
async fn says_two(world: World, node: &'static str) {
    impostor::play(world, node, |connection, layout, body| {
        if let PeerBody::ViewAsk(ask) = body {
            send(connection, layout, Class::Request, PeerBody::ViewAnswer { op: ask.op, view: Some([2; 16]) });
        }
    })
    .await;
}

/// A key with two siblings at n1, in a bucket that merges them.
async fn conflict(world: &World) -> Client {
    let client = world.patiently(|| world.pinned_builder("n1").attempts(1)).await;
    let plugin = client.admin().push_plugin("first", guests::first()).await.unwrap();
    let (r, w) = (Quorum::Count(1), Quorum::Count(1));
    let props = BucketProps { plugin: Some(plugin.activation()), r, w, ..BucketProps::default() };
    client.admin().create_bucket("merged", props).await.unwrap();
    let bucket = client.bucket::<Bytes>("merged").unwrap();
    for value in [b"a", b"b"] {
        bucket.put("k", value.to_vec()).blind().await.unwrap();
    }
    client
}

/// Waits until so many views were compared that were other ones.
async fn differences(world: &World, least: f64) {
    while world.figure("n1", "rejoin_views_different_total").await < least {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn two_peers_with_two_other_views_have_a_plugin_quarantined_until_it_is_released() {
    let setup = Setup { more: OFTEN, ..Setup::default() };
    let impostors: [Impostor; 2] =
        [("n2", |world, node| Box::pin(says_one(world, node))), ("n3", |world, node| Box::pin(says_two(world, node)))];
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &impostors, |world| async move {
        let client = conflict(&world).await;
        let (admin, bucket) = (client.admin(), client.bucket::<Bytes>("merged").unwrap());
        assert!(bucket.get("k").await.unwrap().merge_fault.is_none());
        while world.figure("n1", "rejoin_plugins_quarantined").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let plugin = admin.plugins().await.unwrap().remove(0);
        let why = plugin.quarantined.expect("it is quarantined");
        assert!(why.contains("n1") && why.contains("n2") && why.contains("n3") && why.contains("merged"), "{why}");
        let read = bucket.get("k").siblings().await.unwrap();
        assert_eq!((read.value.clone(), read.siblings.len()), (None, 2));
        assert!(read.merge_fault.unwrap().contains("is quarantined"));
        let status = admin.status().await.unwrap();
        assert!(status.warnings.iter().any(|line| line.contains("is quarantined")), "{:?}", status.warnings);
        assert!(status.problems.is_empty(), "no node is at fault: {:?}", status.problems);
        let props =
            BucketProps { plugin: Some(rejoin_client::admin::activation(plugin.digest)), ..BucketProps::default() };
        let refused = admin.create_bucket("another", props).await.unwrap_err();
        assert!(refused.to_string().contains("is quarantined"), "{refused}");

        let released = admin.release_plugin(plugin.digest).await.unwrap();
        assert_eq!(released.quarantined, None);
        assert!(bucket.get("k").await.unwrap().merge_fault.is_none());
    });
}

#[test]
fn one_peer_with_another_view_quarantines_nothing() {
    let setup = Setup { more: OFTEN, ..Setup::default() };
    // The other peer has no copy that could be compared.
    let impostors: [Impostor; 2] = [
        ("n2", |world, node| Box::pin(says_one(world, node))),
        ("n3", |world, node| {
            Box::pin(impostor::play(world, node, |connection, layout, body| {
                if let PeerBody::ViewAsk(ask) = body {
                    send(connection, layout, Class::Request, PeerBody::ViewAnswer { op: ask.op, view: None });
                }
            }))
        }),
    ];
    simulate_with(&setup, Arc::new(Files::create(setup.nodes)), &impostors, |world| async move {
        let client = conflict(&world).await;
        differences(&world, 10.0).await;
        assert_eq!(world.figure("n1", "rejoin_plugins_quarantined").await, 0.0);
        assert!(client.bucket::<Bytes>("merged").unwrap().get("k").await.unwrap().merge_fault.is_none());
    });
}
