//! Many tasks that update the same keys of a bucket without a plugin, on real processes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::admin::BucketProps;
use rejoin_client::{Bucket, ErrorKind, Json, Sibling};
use rejoin_test_cluster::Cluster;

type Set = BTreeSet<u32>;

fn union(siblings: Vec<Sibling<Set>>) -> Set {
    siblings.into_iter().flat_map(|sibling| sibling.value).collect()
}

/// `tasks` tasks, each of which adds `each` numbers of its own to the key of its turn, one update after the other.
async fn storm(bucket: &Bucket<Json<Set>>, tasks: u32, keys: u32, each: u32) {
    let mut storm = JoinSet::new();
    for task in 0..tasks {
        let bucket = bucket.clone();
        storm.spawn(async move {
            for number in task * each..(task + 1) * each {
                let add = |old: Option<Set>| old.into_iter().flatten().chain([number]).collect();
                let update = bucket.update(format!("k{}", task % keys), add).resolve(union);
                update.timeout(Duration::from_secs(120)).await.unwrap_or_else(|error| panic!("task {task}: {error}"));
            }
        });
    }
    while let Some(ended) = storm.join_next().await {
        ended.unwrap();
    }
    for key in 0..keys {
        let found = bucket.get(format!("k{key}")).r(3).await.unwrap().into_value_with(union).unwrap_or_default();
        let expected: Set = (0..tasks * each).filter(|number| number / each % keys == key).collect();
        assert_eq!(found, expected, "k{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_on_eight_keys_without_a_plugin_all_finish_and_lose_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("sets", BucketProps::default()).await;
    storm(&cluster.client().await.bucket("sets").unwrap(), 64, 8, 4).await;
}

/// More tasks than the key may have siblings: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tasks_than_siblings_take_turns_at_one_key() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("narrow", BucketProps { siblings: 4, ..BucketProps::default() }).await;
    storm(&cluster.client().await.bucket("narrow").unwrap(), 24, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_meets_siblings_without_a_plugin_says_what_to_do() {
    let cluster = Cluster::start(3).await;
    cluster.bucket("sets", BucketProps::default()).await;
    let bucket: Bucket<Json<Set>> = cluster.client().await.bucket("sets").unwrap();
    bucket.put("k", Set::from([1])).blind().await.unwrap();
    let written = bucket.put("k", Set::from([2])).blind().await.unwrap();
    let error = bucket.update("k", Option::unwrap_or_default).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for words in ["2 siblings", "no merge plugin", "update(..).resolve(..)"] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // A chain of one's own contexts replaces what is one's own, and no sibling that was not read.
    let mut context = written.context;
    for number in 3..40 {
        context = bucket.put("k", Set::from([number])).context(&context).await.unwrap().context;
    }
    let updated = bucket.update("k", Option::unwrap_or_default).resolve(union).await.unwrap();
    assert_eq!(updated.value, Set::from([1, 39]));
}
