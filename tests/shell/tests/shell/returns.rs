//! Nodes that come back: to a catalog that has changed, on an old disk, on an empty one. None is let off lightly: the
//! victim is each node in turn, so that it is the dialling side towards some peers and the dialled one towards others.

use std::path::Path;
use std::time::Duration;

use rejoin_client::admin::{BucketProps, Scope, Status};
use rejoin_client::{Bucket, Bytes, ErrorKind, Object};
use rejoin_test_shell::{Setup, World, simulate};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A slow network, so that whoever does not wait for its peers is found out.
fn slow(seed: u64) -> Setup {
    Setup { seed, latency_ms: (20, 25), ..Setup::default() }
}

fn another(than: &str) -> &'static str {
    if than == "n1" { "n2" } else { "n1" }
}

#[test]
fn a_node_that_comes_back_knows_what_was_made_meanwhile_before_it_lets_clients_in() {
    for (seed, victim) in (1..).zip(NODES) {
        simulate(&slow(seed), move |world| async move {
            world.plain().await;
            world.kill(victim);
            // Its peers' pauses between two attempts to dial become long.
            tokio::time::sleep(Duration::from_secs(20)).await;
            let admin = world.pinned(another(victim)).await.admin();
            admin.create_bucket("late", BucketProps::default()).await.unwrap();
            world.start(victim);
            let bucket = world.pinned(victim).await.bucket::<Bytes>("late").unwrap();
            bucket.put("k", b"v".to_vec()).blind().w(1).await.unwrap_or_else(|error| panic!("{victim}: {error}"));
        });
    }
}

#[test]
fn a_node_that_comes_back_takes_no_token_that_was_withdrawn_meanwhile() {
    for (seed, victim) in (1..).zip(NODES) {
        simulate(&slow(seed), move |world| async move {
            world.plain().await;
            let admin = world.pinned(another(victim)).await.admin();
            let token = admin.create_token("thief", Scope::ReadWrite).await.unwrap().text().to_owned();
            world.kill(victim);
            tokio::time::sleep(Duration::from_secs(1)).await;
            admin.revoke_token("thief").await.unwrap();
            world.start(victim);
            // Asked again and again from the first moment on.
            let refused = loop {
                match world.pinned_builder(victim).token(&token).connect().await {
                    Ok(_) => panic!("{victim} let the thief in"),
                    Err(error) if error.kind() == ErrorKind::Denied => break error,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            };
            assert!(refused.to_string().contains("token"), "{refused}");
        });
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&here, &there);
        } else {
            std::fs::copy(&here, &there).unwrap();
        }
    }
}

/// Reads a key with every owner, as soon as all of them count.
async fn read_of_all(bucket: &Bucket<Bytes>, key: &str) -> Object<Vec<u8>> {
    loop {
        match bucket.get(key).r(3).siblings().await {
            Ok(found) => return found,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

#[test]
fn an_old_disk_in_a_healthy_cluster_loses_no_acknowledged_write() {
    for (seed, victim) in (1..).zip(NODES) {
        simulate(&Setup { seed, ..Setup::default() }, move |world| async move {
            world.plain().await;
            let (dir, old) = (world.data(victim), world.data("old"));
            let here = world.pinned_plain(victim).await;
            // Writes in every partition, so that every actor has been drawn.
            for key in 0..1000_u32 {
                here.put(format!("seed{key}"), b"s".to_vec()).blind().w(1).await.unwrap();
            }
            world.kill(victim);
            tokio::time::sleep(Duration::from_secs(1)).await;
            copy(&dir, &old);
            world.start(victim);
            let (here, there) = (world.pinned_plain(victim).await, world.pinned_plain(another(victim)).await);
            for key in 0..40_u32 {
                here.put(format!("k{key}"), b"x".to_vec()).blind().w(3).await.unwrap();
                let seen = there.get(format!("k{key}")).await.unwrap();
                there.put(format!("k{key}"), b"y".to_vec()).context(&seen.context).w(3).await.unwrap();
            }
            world.kill(victim);
            // Its peers' pauses between two attempts to dial have become long.
            tokio::time::sleep(Duration::from_secs(20)).await;
            copy(&old, &dir);
            world.start(victim);
            let here = world.pinned_plain(victim).await;
            let mut acknowledged = Vec::new();
            for key in 0..40_u32 {
                let write = here.put(format!("k{key}"), b"acknowledged".to_vec()).blind().w(2);
                if write.timeout(Duration::from_millis(500)).await.is_ok() {
                    acknowledged.push(key);
                }
            }
            assert!(!acknowledged.is_empty(), "nothing was put to the test");
            let there = world.pinned_plain(another(victim)).await;
            for key in &acknowledged {
                // The old disk counts again when it is rebuilt.
                let found = read_of_all(&there, &format!("k{key}")).await;
                let held = |value: &[u8]| value == b"acknowledged";
                let there = found.value.as_deref().is_some_and(held)
                    || found.siblings.iter().any(|sibling| held(&sibling.value));
                assert!(there, "{victim}, k{key}: an acknowledged write is gone");
            }
        });
    }
}

#[test]
fn a_node_with_an_empty_disk_says_that_it_has_lost_everything_and_is_not_counted_until_it_is_rebuilt() {
    for (seed, victim) in (1..).zip(NODES) {
        // Nothing is rebuilt before it is told to be.
        let setup = Setup { seed, more: "[exchange]\npaused = true", ..Setup::default() };
        simulate(&setup, move |world| async move {
            let bucket = world.plain().await;
            bucket.put("k", b"v".to_vec()).blind().w(3).await.unwrap();
            world.kill(victim);
            tokio::time::sleep(Duration::from_secs(1)).await;
            std::fs::remove_dir_all(world.data(victim)).unwrap();
            for _ in 0..2 {
                // The second start is on the directory that the first one made: it is still not the one that was lost.
                world.start(victim);
                let status = world.pinned(victim).await.admin().status().await.unwrap();
                assert!(says_that_all_is_lost(&status), "{victim}: {:?}", status.problems);
                // Every node says so, and that reads can do without no other node.
                for node in NODES {
                    let status = world.pinned(node).await.admin().status().await.unwrap();
                    assert_eq!(
                        (replaced(&status), status.spare),
                        (vec![victim], Some((0, 1))),
                        "{victim}, as {node} sees it"
                    );
                }
                // Until it is rebuilt neither its own word nor its word to others makes up a quorum.
                let other = world.pinned_plain(another(victim)).await;
                let error = other.get("k").r(3).await.unwrap_err();
                assert!(error.to_string().contains("is not rebuilt"), "{victim}: {error}");
                assert_eq!(
                    world.pinned_plain(victim).await.get("k").r(1).await.unwrap().value.as_deref(),
                    Some(&b"v"[..]),
                    "{victim}"
                );
                world.kill(victim);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // In the end it has what it lost, and counts again. Every node says so, at once and after its next start.
            world.start(victim);
            world.pinned(victim).await.admin().pause_exchange(false).await.unwrap();
            for _ in 0..2 {
                for node in NODES {
                    is_whole(&world, node).await;
                }
                let found = world.pinned_plain(another(victim)).await.get("k").r(3).await.unwrap();
                assert_eq!(found.value.as_deref(), Some(&b"v"[..]), "{victim}");
                world.kill(victim);
                tokio::time::sleep(Duration::from_secs(1)).await;
                world.start(victim);
            }
        });
    }
}

fn says_that_all_is_lost(status: &Status) -> bool {
    status.problems.iter().any(|problem| problem.contains("lost everything"))
}

fn replaced(status: &Status) -> Vec<&str> {
    status.nodes.iter().filter(|node| node.replaced).map(|node| node.name.as_str()).collect()
}

/// Waits until a node takes no other one for replaced, and reads can do without one of them.
async fn is_whole(world: &World, node: &str) {
    loop {
        let status = world.pinned(node).await.admin().status().await.unwrap();
        if replaced(&status).is_empty() && !says_that_all_is_lost(&status) && status.spare == Some((1, 1)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_client_does_not_wait_for_a_node_that_waits_for_its_peers() {
    for (seed, victim) in (1..).zip(NODES) {
        let setup = Setup { seed, more: "start_grace_ms = 30000", ..Setup::default() };
        simulate(&setup, move |world| async move {
            let bucket = world.plain().await;
            world.kill(victim);
            let others = NODES.into_iter().filter(|node| *node != victim);
            others.clone().for_each(|other| world.cut(victim, other));
            world.start(victim);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let asked = world.now();
            let patient = world.pinned_builder(victim).connect_timeout(Duration::from_secs(5));
            let refused = patient.connect().await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotServing, "{refused}");
            let told = refused.to_string();
            assert!(told.starts_with(&format!("{victim} does not serve: it is starting, and waits for n")), "{told}");
            let waited = world.now() - asked;
            assert!(waited < Duration::from_secs(1), "{victim}: {waited:?}");
            // A client of all nodes goes on with the others, also for keys whose first owner it is.
            for key in 0..30_u32 {
                bucket.put(format!("k{key}"), b"v".to_vec()).blind().await.unwrap();
            }
            // One that waits when the start is over is let in.
            others.for_each(|other| world.heal(victim, other));
            world.pinned_plain(victim).await.put("k", b"w".to_vec()).blind().w(3).await.unwrap();
        });
    }
}
