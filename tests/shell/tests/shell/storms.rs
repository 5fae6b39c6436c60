//! Whatever a seed does to the cluster: every call ends in time, and nothing that was acknowledged is lost.

use std::rc::Rc;
use std::time::Duration;

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::task::JoinSet;

use rejoin_client::{Bucket, Bytes, Context};
use rejoin_test_shell::{Setup, Weather, World, simulate};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(30);
/// What a call may take; the SDK waits a little longer for the answer's way back.
const TIMEOUT: Duration = Duration::from_secs(2);
const ENDED: Duration = Duration::from_millis(2_250);
/// Writers, each with a key of its own.
const WRITERS: usize = 4;

/// Draws one trouble after another, and ends them all.
async fn trouble(world: World, seed: u64) {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |below: usize| (chance.next_u64() % below as u64) as usize;
    let mut down: Option<&'static str> = None;
    while world.now() < STORM {
        let (one, other) = (draw(3), 1 + draw(2));
        let (a, b) = (NODES[one], NODES[(one + other) % 3]);
        match draw(6) {
            0 => world.cut(a, b),
            1 => turmoil::partition_oneway(a, b),
            2 => NODES.iter().filter(|node| **node != a).for_each(|node| world.heal(a, node)),
            3 => world.network.set(Weather { lost: draw(200) as u64, doubled: draw(200) as u64 }),
            // One at a time: its disk is there, but not what it was just being told.
            4 if down.is_none() => {
                world.kill(a);
                down = Some(a);
            }
            _ => down.take().into_iter().for_each(|node| world.start(node)),
        }
        tokio::time::sleep(Duration::from_millis(draw(3_000) as u64)).await;
    }
    for (a, b) in [("n1", "n2"), ("n2", "n3"), ("n3", "n1")] {
        world.heal(a, b);
    }
    world.network.set(Weather::default());
    down.into_iter().for_each(|node| world.start(node));
}

/// What one writer knows of its key.
struct Story {
    key: String,
    /// The last number that was acknowledged, and the last that was tried.
    acked: u32,
    tried: u32,
}

/// Writes 1, 2, 3… under one key, each over what it has last been told.
async fn write(world: World, bucket: Rc<Bucket<Bytes>>, key: String) -> Story {
    let mut story = Story { key, acked: 0, tried: 0 };
    let mut seen: Option<Context> = None;
    while world.now() < STORM {
        story.tried += 1;
        let (put, begun) = (bucket.put(&story.key, story.tried.to_le_bytes().to_vec()), world.now());
        let put = match &seen {
            Some(context) => put.context(context),
            None => put.blind(),
        };
        if let Ok(written) = put.timeout(TIMEOUT).await {
            story.acked = story.tried;
            seen = Some(written.context);
        }
        assert!(world.now() - begun <= ENDED, "a write took {:?}", world.now() - begun);
        let begun = world.now();
        // What it finds is looked at in the end; here, only that it ends.
        let _ = bucket.get(&story.key).timeout(TIMEOUT).await;
        assert!(world.now() - begun <= ENDED, "a read took {:?}", world.now() - begun);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    story
}

fn storm(seed: u64) {
    simulate(&Setup { seed, latency_ms: (1, 20), ..Setup::default() }, move |world| async move {
        let bucket = Rc::new(world.plain().await);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn_local(write(world.clone(), bucket.clone(), format!("of {writer}")));
        }
        trouble(world.clone(), seed).await;
        for story in writers.join_all().await {
            assert!(story.acked > 0, "nothing of {} writes was acknowledged", story.tried);
            for node in NODES {
                let bucket = world.pinned_plain(node).await;
                let found = loop {
                    match bucket.get(&story.key).r(3).siblings().timeout(TIMEOUT).await {
                        Ok(found) => break found,
                        // The simulation's end is the deadline.
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                let numbers: Vec<u32> = found
                    .siblings
                    .iter()
                    .map(|sibling| u32::from_le_bytes(sibling.value[..].try_into().unwrap()))
                    .collect();
                // A later one that nobody acknowledged may have taken its place; an earlier one may not.
                let kept = numbers.iter().any(|number| (story.acked..=story.tried).contains(number));
                assert!(
                    kept,
                    "{} at {node}: {numbers:?} are there, {} was acknowledged and {} tried",
                    story.key, story.acked, story.tried
                );
            }
        }
    });
}

#[test]
fn every_call_ends_in_time_and_nothing_that_was_acknowledged_is_lost() {
    (1..=3).for_each(storm);
}
