//! A node that has lost its disk, as an operator sees it: until it is rebuilt, and not longer.

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, Bytes};
use rejoin_test_cluster::{Cluster, eventually, http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_lost_its_disk_is_told_of_until_it_is_rebuilt_and_after_no_restart() {
    let mut cluster = Cluster::start_with(4, "[exchange]\npaused = true").await;
    cluster.bucket("plain", BucketProps::default()).await;
    let bucket = cluster.client().await.bucket::<Bytes>("plain").unwrap();
    for key in 0..20_u32 {
        bucket.put(key.to_string(), b"v".to_vec()).blind().w(3).await.unwrap();
    }
    let status = cluster.rejoin(&["--json", "status"]).json();
    assert!(status["rebuild"].is_null() && status["holdings"]["objects"] == 0, "{status}");
    cluster.kill(2);
    held_for_it(&cluster, &bucket).await;
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.spawn(2);
    cluster.together().await;
    let (code, health) = http::get(cluster.admin(2), "/health").unwrap();
    assert!(code == 503 && health.contains("has lost everything"), "{code}: {health}");
    cluster.rejoin(&["status"]).said(1, "was replaced by an empty one");
    let rebuild = cluster.pinned(2).await.admin().status().await.unwrap().rebuild.unwrap();
    assert!(rebuild.left.len() > 100 && rebuild.left.len() <= rebuild.partitions as usize, "{rebuild:?}");
    assert!(health.contains(" of ") && health.contains("rebuilds "), "{health}");
    let address = cluster.address(2).to_string();
    let told = cluster.rejoin(&["status", "--node", &address]);
    assert!(told.text().contains("n3 rebuilds "), "{told:?}");

    cluster.rejoin(&["exchange", "start"]).done();
    for restarted in [2, 0] {
        eventually("the cluster is whole", async || {
            let status = cluster.rejoin(&["status"]);
            let (code, health) = http::get(cluster.admin(2), "/health").unwrap_or_default();
            if (status.code, code) == (Some(0), 200) { Ok(()) } else { Err((status, health)) }
        })
        .await;
        cluster.kill(restarted);
        cluster.spawn(restarted);
        cluster.together().await;
        let status = cluster.rejoin(&["--json", "status"]).json();
        assert!(status["nodes"].as_array().unwrap().iter().all(|node| node["replaced"] == false), "{status}");
    }
}

/// Nodes that take writes in the place of one that is away say how much they hold.
async fn held_for_it(cluster: &Cluster, bucket: &Bucket<Bytes>) {
    for key in 100..120_u32 {
        eventually("a fallback takes the write", async || {
            bucket.put(key.to_string(), b"v".to_vec()).blind().w(3).await
        })
        .await;
    }
    let mut held = 0;
    for node in [0, 1, 3] {
        let holdings = cluster.pinned(node).await.admin().status().await.unwrap().holdings;
        assert!(holdings.partitions.len() as u64 <= holdings.objects, "{holdings:?}");
        held += holdings.objects;
        let (_, health) = http::get(cluster.admin(node), "/health").unwrap();
        assert_eq!(holdings.objects > 0, health.contains("for their owners"), "{health}");
    }
    assert!(held > 0, "some of the keys are the lost node's");
}
