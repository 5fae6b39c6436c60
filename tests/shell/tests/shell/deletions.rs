//! Deletions at real nodes, one of them away.

use std::time::Duration;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bytes, ErrorKind};
use rejoin_test_shell::{Setup, World, simulate};

/// The nodes of these tests.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Waits until a node has so many copies of objects of all tenants.
async fn has(world: &World, node: &str, copies: f64) {
    while world.figure(node, "rejoin_tenant_stored_objects").await != copies {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_deleted_bucket_is_reaped_at_every_node_and_its_name_shows_nothing_of_it() {
    simulate(&Setup::default(), |world| async move {
        let client = world.pinned("n1").await;
        let admin = client.admin();
        admin.create_bucket("notes", BucketProps::default()).await.unwrap();
        let notes = client.bucket::<Bytes>("notes").unwrap();
        for key in 0..40_u32 {
            notes.put(key.to_string(), b"old".to_vec()).create().w(3).await.unwrap();
        }
        for node in NODES {
            has(&world, node, 40.0).await;
        }
        let seen = notes.get("7").await.unwrap().context;
        world.kill("n3");
        let deleted = admin.delete_bucket("notes", Duration::from_secs(60)).await.unwrap();
        assert!(deleted.deleted.is_some_and(|deleted| !deleted.reaped));
        for refused in [notes.get("7").await.map(drop), notes.put("x", b"v".to_vec()).blind().await.map(drop)] {
            let error = refused.unwrap_err();
            assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("was deleted"), "{error}");
        }
        // In time everything comes back.
        admin.restore_bucket("notes").await.unwrap();
        assert_eq!(notes.get("7").await.unwrap().value.as_deref(), Some(&b"old"[..]));
        admin.delete_bucket("notes", Duration::from_secs(1)).await.unwrap();
        for node in ["n1", "n2"] {
            has(&world, node, 0.0).await;
        }
        assert!(admin.buckets().await.unwrap().is_empty());
        assert_eq!(admin.restore_bucket("notes").await.unwrap_err().kind(), ErrorKind::NotFound);
        admin.create_bucket("notes", BucketProps::default()).await.unwrap();
        assert!(!notes.get("7").await.unwrap().is_found());
        notes.put("7", b"new".to_vec()).create().await.unwrap();
        // A context of the old bucket opens nothing of the new one.
        assert!(notes.put("7", b"v".to_vec()).context(&seen).await.is_err());
        // The node that was away has the old objects. It removes them, and shows none.
        world.start("n3");
        let third = world.pinned("n3").await;
        has(&world, "n3", 1.0).await;
        let notes = third.bucket::<Bytes>("notes").unwrap();
        assert_eq!(notes.get("7").await.unwrap().value.as_deref(), Some(&b"new"[..]));
        assert!(!notes.get("9").await.unwrap().is_found());
        assert_eq!(third.admin().buckets().await.unwrap().len(), 1);
        for node in ["n1", "n2"] {
            assert_eq!(world.figure(node, "rejoin_tenant_stored_objects").await, 1.0, "{node}");
        }
    });
}

#[test]
fn a_deleted_tenant_is_closed_at_once_and_the_next_of_its_name_has_nothing_of_it() {
    simulate(&Setup::default(), |world| async move {
        let operator = world.client().await.admin();
        operator.create_tenant("shop").await.unwrap();
        let shop = world.patiently(|| world.builder().tenant("shop")).await;
        shop.admin().create_bucket("cart", BucketProps::default()).await.unwrap();
        let token = shop.admin().create_token("app", rejoin_client::admin::Scope::TenantAdmin).await.unwrap();
        let app = world.patiently(|| world.builder().token(token.text())).await;
        let cart = app.bucket::<Bytes>("cart").unwrap();
        cart.put("k", b"old".to_vec()).create().w(3).await.unwrap();
        operator.delete_tenant("shop", Duration::from_secs(30)).await.unwrap();
        let error = world.builder().token(token.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        operator.restore_tenant("shop").await.unwrap();
        let app = world.patiently(|| world.builder().token(token.text())).await;
        assert_eq!(app.bucket::<Bytes>("cart").unwrap().get("k").await.unwrap().value.as_deref(), Some(&b"old"[..]));
        operator.delete_tenant("shop", Duration::ZERO).await.unwrap();
        for node in NODES {
            has(&world, node, 0.0).await;
        }
        assert!(!operator.tenants().await.unwrap().iter().any(|tenant| tenant.name.as_str() == "shop"));
        operator.create_tenant("shop").await.unwrap();
        // The old token opens nothing, and nothing is there.
        let error = world.builder().token(token.text()).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let shop = world.patiently(|| world.builder().tenant("shop")).await;
        let listed = (shop.admin().buckets().await.unwrap().len(), shop.admin().tokens().await.unwrap().len());
        assert_eq!(listed, (0, 0));
        shop.admin().create_bucket("cart", BucketProps::default()).await.unwrap();
        let cart = shop.bucket::<Bytes>("cart").unwrap();
        assert!(!cart.get("k").await.unwrap().is_found());
        cart.put("k", b"new".to_vec()).create().w(3).await.unwrap();
        assert_eq!(cart.get("k").await.unwrap().value.as_deref(), Some(&b"new"[..]));
        let error = operator.delete_tenant("default", Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
    });
}
