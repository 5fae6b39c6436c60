//! A seed decides everything above TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use rejoin_client::{Bucket, Bytes};
use rejoin_test_shell::{Files, Setup, Weather, World, simulate_with, traced};

/// Writes and reads through a storm, a cut, a kill and a crowd, and tells what came of each. No node is killed during a
/// handshake: whether its successor answers or ignores what is left of that hangs on bits that look random to it, and
/// come of keys that are.
async fn tour(world: World) {
    let bucket = world.plain().await;
    world.network.set(Weather { lost: 20, doubled: 20 });
    tell_all(&world, &bucket, 0..20).await;
    world.cut("n1", "n2");
    tell_all(&world, &bucket, 20..30).await;
    world.heal("n1", "n2");
    world.kill("n3");
    tell_all(&world, &bucket, 30..40).await;
    // Without one of its peers it lets clients in after a while only, and these have come by then.
    world.cut("n1", "n3");
    world.start("n3");
    let mut crowd = JoinSet::new();
    for _ in 0..8 {
        let world = world.clone();
        crowd.spawn_local(async move { world.pinned("n3").await });
    }
    crowd.join_all().await;
    world.heal("n1", "n3");
    tell_all(&world, &bucket, 40..60).await;
}

async fn tell_all(world: &World, bucket: &Bucket<Bytes>, keys: std::ops::Range<u32>) {
    for key in keys {
        let key = format!("k{}", key % 7);
        let written = bucket.put(&key, vec![7; 3000]).blind().timeout(Duration::from_secs(1)).await;
        let read = bucket.get(&key).timeout(Duration::from_secs(1)).await;
        tracing::info!(target: "rejoin_client", at = ?world.now(), key, ?written, ?read, "told");
    }
}

fn trace_of(files: &Arc<Files>, seed: u64) -> Vec<String> {
    let setup = Setup { seed, latency_ms: (1, 8), ..Setup::default() };
    traced(|| simulate_with(&setup, files.clone(), &[], tour))
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let files = Arc::new(Files::create(Setup::default().nodes));
    let (first, again, other) = (trace_of(&files, 7), trace_of(&files, 7), trace_of(&files, 8));
    assert!(
        first.len() > 1000 && first.iter().any(|line| line.contains("frame")),
        "{} lines tell nothing",
        first.len()
    );
    for (number, (first, again)) in first.iter().zip(&again).enumerate() {
        assert_eq!(first, again, "line {number}");
    }
    assert_eq!(first.len(), again.len());
    assert_ne!(first, other, "a trace that does not depend on the seed shows nothing");
}
