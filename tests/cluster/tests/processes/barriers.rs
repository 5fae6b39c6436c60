//! The two barriers, seen from outside with the disk held back: no acknowledgement without the disk, no message without
//! the journal.

use std::future::IntoFuture;
use std::time::Duration;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes};
use rejoin_test_cluster::{Cluster, eventually, http};

/// Longer than either test holds anything.
const LONG: Duration = Duration::from_secs(40);

async fn cluster() -> (Cluster, [Bucket<Bytes>; 3]) {
    // A request must not give up before the disk is let go.
    let cluster = Cluster::start_with(3, "timeout_ms = 40000").await;
    cluster.bucket("plain", BucketProps::default()).await;
    let mut at = Vec::new();
    for index in 0..3 {
        let client = cluster.builder(index).timeout(LONG).attempts(1).connect().await.unwrap();
        at.push(client.bucket::<Bytes>("plain").unwrap());
    }
    (cluster, at.try_into().expect("three"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledgement_leaves_while_fdatasync_is_held_back() {
    let (cluster, at) = cluster().await;
    (0..3).for_each(|index| http::post(cluster.admin(index), "/faults/hold/fsync"));
    let put = tokio::spawn(at[0].put("k", b"v".to_vec()).create().into_future());
    for (index, bucket) in at.iter().enumerate() {
        eventually("every owner waits for its disk", async || match http::held(cluster.admin(index)) {
            0 => Err("nothing is held"),
            held => Ok(held),
        })
        .await;
        // It is in the journal of every owner; only the disk has not said so.
        eventually("every owner has the value", async || match bucket.get("k").r(1).await {
            Ok(object) if object.value.as_deref() == Some(b"v") => Ok(()),
            other => Err(other),
        })
        .await;
    }
    // Acknowledgements travel between the nodes, and to the client, behind one another: with the answers to a round of
    // reads every one that had left would be there.
    for _ in 0..3 {
        for bucket in &at {
            bucket.get("k").r(3).await.unwrap();
        }
    }
    assert!(!put.is_finished(), "the put was acknowledged while no disk had it: {:?}", put.await);

    // Two disks of three make the quorum, and not one does.
    http::post(cluster.admin(1), "/faults/release");
    for bucket in &at {
        bucket.get("k").r(3).await.unwrap();
    }
    assert!(!put.is_finished(), "one disk of three has it, and two are needed: {:?}", put.await);
    http::post(cluster.admin(0), "/faults/release");
    let written = put.await.unwrap().unwrap();
    assert_eq!((written.acked, written.needed), (2, 2));
    http::post(cluster.admin(2), "/faults/release");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_leaves_while_the_journal_write_is_held_back() {
    let (cluster, at) = cluster().await;
    let absorbed = || [1, 2].map(|index| http::metric(cluster.admin(index), "rejoin_absorbs_total"));
    let before = absorbed();
    http::post(cluster.admin(0), "/faults/hold/journal");
    let put = tokio::spawn(at[0].put("k", b"v".to_vec()).create().into_future());
    eventually("the coordinator waits for its journal", async || match http::held(cluster.admin(0)) {
        0 => Err("nothing is held"),
        held => Ok(held),
    })
    .await;
    a_read_by_all_comes_back_from(&at[0]).await;
    for bucket in &at[1..] {
        let object = bucket.get("k").r(1).await.unwrap();
        assert!(!object.is_found(), "a write left its coordinator before its journal had it: {object:?}");
    }
    assert_eq!(absorbed(), before, "nothing was absorbed");
    assert!(!put.is_finished(), "{:?}", put.await);

    http::post(cluster.admin(0), "/faults/release");
    let written = put.await.unwrap().unwrap();
    assert!(written.acked >= 2);
    for bucket in &at {
        eventually("the write gets everywhere", async || match bucket.get("k").r(1).await {
            Ok(object) if object.value.as_deref() == Some(b"v") => Ok(()),
            other => Err(other),
        })
        .await;
    }
    assert!(absorbed().iter().zip(before).all(|(now, before)| *now > before));
}

/// Reads of three replicas that this node coordinates in its other shard, which is not held. Their questions to the
/// other nodes travel behind whatever the held shard has let out.
async fn a_read_by_all_comes_back_from(bucket: &Bucket<Bytes>) {
    let mut reads = tokio::task::JoinSet::new();
    (0..16).for_each(|key| drop(reads.spawn(bucket.get(format!("f{key}")).r(3).into_future())));
    let first = reads.join_next().await.expect("there are some").expect("no panic").unwrap();
    assert_eq!(first.answered.len(), 3);
}
