//! Real nodes in virtual time: what was put is read, also after cuts and kills.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use rejoin_client::Bytes;
use rejoin_client::admin::BucketProps;
use rejoin_test_shell::{Setup, simulate};

#[test]
fn what_was_put_at_one_node_is_read_at_every_other() {
    simulate(&Setup::default(), |world| async move {
        let client = world.client().await;
        client.admin().create_bucket("plain", BucketProps::default()).await.unwrap();
        let bucket = client.bucket::<Bytes>("plain").unwrap();
        bucket.put("k", b"one".to_vec()).blind().await.unwrap();
        for node in ["n1", "n2", "n3"] {
            let read = world.pinned(node).await.bucket::<Bytes>("plain").unwrap().get("k").await.unwrap();
            assert_eq!(read.value.as_deref(), Some(&b"one"[..]));
        }
    });
}
