//! Hash trees: what is stored of them is what the objects come to, after writes, crashes, damage and losses.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_core::exchange::hash::CausalKey;
use rejoin_core::port::Space;
use rejoin_proto::catalog::{BucketProps, Quorum};

use crate::support::cluster::Cluster;
use crate::support::store::{Memory, Writes};
use crate::support::trees::{StoredTrees, are_whole};
use crate::support::{delete, get, object_id, put, with};

/// Enough keys that the leaf of each of the 8 partitions is divided.
const KEYS: u32 = 3000;

fn one() -> Cluster {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() });
    cluster.pass(1);
    cluster
}

fn rows(store: &Memory, space: Space) -> BTreeMap<Bytes, Bytes> {
    let of_space = store.rows.iter().filter(|((of, _), _)| *of == space);
    of_space.map(|((_, key), row)| (key.clone(), row.clone())).collect()
}

/// What is wrong with the stored trees of a node. The keys of unreadable rows are not counted.
pub(crate) fn problems(cluster: &Cluster, at: usize) -> Vec<String> {
    let store = &cluster.nodes[at].store;
    let (leaves, mut objects) = (rows(store, Space::Trees), rows(store, Space::Objects));
    objects.retain(|key, _| !store.damaged.contains(&key[..]));
    let trees = StoredTrees { leaves: &leaves, objects: &objects, key: &CausalKey::derive(b"secret") };
    let mut problems = trees.problems(|_, _| false);
    if !are_whole(&leaves) {
        problems.push("leaves are unknown".into());
    }
    problems
}

fn leaves(cluster: &Cluster, at: usize) -> usize {
    rows(&cluster.nodes[at].store, Space::Trees).len() - 1
}

/// Lets recounts that could not be ended begin again.
fn settle(cluster: &mut Cluster) {
    (0..4).for_each(|_| cluster.pass(300));
}

fn fill(cluster: &mut Cluster, keys: u32) {
    for number in 0..keys {
        cluster.put(0, put(&format!("k{number}"), &format!("v{number}"), u128::from(number) + 1));
    }
    settle(cluster);
}

#[test]
pub(crate) fn leaves_are_what_the_objects_come_to_and_survive_a_kill() {
    let mut cluster = one();
    assert_eq!((problems(&cluster, 0), leaves(&cluster, 0)), (vec![], 0), "an empty store has no leaf");
    fill(&mut cluster, KEYS);
    assert_eq!(problems(&cluster, 0), [""; 0]);
    assert!((128..1000).contains(&leaves(&cluster, 0)), "{} leaves of {KEYS} keys", leaves(&cluster, 0));
    for number in 0..100 {
        let key = format!("k{number}");
        let context = cluster.get(0, get(&key)).context;
        let next = if number % 2 == 0 { delete(&key, 10_000 + number) } else { put(&key, "other", 10_000 + number) };
        cluster.put(0, with(&context, next));
        cluster.put(0, put(&key, "a sibling", 20_000 + number));
    }
    assert_eq!(problems(&cluster, 0), [""; 0]);
    // A start reads no object: the leaves are loaded.
    cluster.scanning = false;
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    settle(&mut cluster);
    assert_eq!((problems(&cluster, 0), cluster.scans.len()), (vec![], 0));
    cluster.put(0, put("k1", "after the restart", 30_000));
    assert_eq!(problems(&cluster, 0), [""; 0], "in memory they are as they were stored");
}

/// A store in which every third object is gone, as after a hole in the journal.
fn with_holes(cluster: &Cluster) -> Memory {
    let mut store = cluster.nodes[0].store.clone();
    let mut number = 0;
    store.rows.retain(|(space, _), _| {
        number += 1;
        *space != Space::Objects || number % 3 > 0
    });
    store
}

fn restart_with_holes(cluster: &mut Cluster, rows_lost: bool, store: Memory) {
    cluster.nodes[0].config.rows_lost = rows_lost;
    cluster.restart(0, rows_lost, store);
}

#[test]
pub(crate) fn after_a_loss_all_leaves_are_counted_anew() {
    let mut cluster = one();
    fill(&mut cluster, KEYS);
    let store = with_holes(&cluster);
    restart_with_holes(&mut cluster, true, store);
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
    assert!(leaves(&cluster, 0) > 50);
}

#[test]
pub(crate) fn a_start_that_is_not_told_of_a_loss_again_believes_no_leaf_from_before_it() {
    for writes in [Writes::Work, Writes::Full] {
        let mut cluster = one();
        fill(&mut cluster, 300);
        cluster.scanning = false;
        let mut store = with_holes(&cluster);
        store.writes = writes;
        restart_with_holes(&mut cluster, true, store);
        let is_told_again = cluster.nodes[0].shard.owes_ends();
        assert_eq!(is_told_again, writes == Writes::Full, "a store that takes nothing keeps the loss");
        let mut store = cluster.nodes[0].store.clone();
        store.writes = Writes::Work;
        (cluster.scanning, cluster.scans) = (true, Default::default());
        restart_with_holes(&mut cluster, is_told_again, store);
        settle(&mut cluster);
        assert_eq!(problems(&cluster, 0), [""; 0], "{writes:?}");
    }
}

#[test]
pub(crate) fn what_is_written_while_leaves_are_counted_is_in_them() {
    let mut cluster = one();
    fill(&mut cluster, 600);
    let store = cluster.nodes[0].store.clone();
    cluster.scanning = false;
    restart_with_holes(&mut cluster, true, store);
    let mut number = 1_000_000;
    // Each result is older than the store: some rows are new, some changed, since it was asked for.
    for round in 0..200 {
        cluster.pass(300);
        for key in (0..12).map(|at| format!("k{}", (round * 12 + at) % 900)) {
            number += 1;
            cluster.put(0, put(&key, "meanwhile", number));
        }
        cluster.answer_scan();
    }
    cluster.scanning = true;
    while cluster.answer_scan() {}
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
}

#[test]
pub(crate) fn a_copy_that_cannot_be_read_is_left_out_until_something_takes_its_place() {
    let mut cluster = Cluster::new(2, BucketProps { n: 2, ..BucketProps::default() });
    cluster.pass(1);
    fill(&mut cluster, 300);
    let key = object_id("k7").store_key();
    cluster.nodes[0].store.damaged.insert(key.clone());
    let _ = cluster.get(0, get("k8"));
    assert_eq!(problems(&cluster, 0).len(), 1, "nobody has noticed");
    cluster.nodes[0].store.damaged.remove(&key);
    assert_eq!(problems(&cluster, 0), [""; 0]);
    cluster.nodes[0].store.damaged.insert(key);
    // The read notices it, and the other owner's copy takes its place.
    let _ = cluster.get(0, rejoin_proto::client::Get { r: Some(Quorum::Count(1)), ..get("k7") });
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
    assert_eq!(cluster.stored(0, "k7"), cluster.stored(1, "k7"));
}

#[test]
pub(crate) fn a_copy_that_cannot_be_read_while_leaves_are_counted_anew_has_one() {
    let mut cluster = one();
    fill(&mut cluster, 1);
    let key = object_id("k0").store_key();
    cluster.nodes[0].store.damaged.insert(key.clone());
    let store = cluster.nodes[0].store.clone();
    restart_with_holes(&mut cluster, true, store);
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
    cluster.nodes[0].store.damaged.remove(&key);
    assert_eq!(problems(&cluster, 0), [""; 0], "it can be read again, and a leaf is there for it");
}

#[test]
pub(crate) fn a_copy_that_can_be_read_again_counts_again_without_a_read() {
    let mut cluster = one();
    fill(&mut cluster, 1);
    let counted = |cluster: &Cluster| cluster.nodes[0].shard.usage().values().map(|sum| sum.count).sum::<u64>();
    let key = object_id("k0").store_key();
    cluster.nodes[0].store.damaged.insert(key.clone());
    let store = cluster.nodes[0].store.clone();
    restart_with_holes(&mut cluster, true, store);
    settle(&mut cluster);
    assert_eq!(counted(&cluster), 0);
    cluster.nodes[0].store.damaged.remove(&key);
    cluster.scanning = false;
    cluster.pass(5_000);
    assert_eq!(cluster.scans.len(), 0, "it is tried from time to time only");
    cluster.scanning = true;
    cluster.pass(10_000);
    settle(&mut cluster);
    assert_eq!((counted(&cluster), problems(&cluster, 0)), (1, vec![]));
}

#[test]
fn a_copy_that_can_be_read_again_counts_again() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() });
    cluster.pass(1);
    fill(&mut cluster, 300);
    let key = object_id("k7").store_key();
    cluster.nodes[0].store.damaged.insert(key.clone());
    cluster.ask_get(0, get("k7"));
    settle(&mut cluster);
    let left_out = problems(&cluster, 0);
    cluster.nodes[0].store.damaged.remove(&key);
    assert_eq!(cluster.get(0, get("k7")).value.as_deref(), Some(&b"v7"[..]));
    settle(&mut cluster);
    assert_eq!((left_out, problems(&cluster, 0)), (vec![], vec![]));
    let context = cluster.get(0, get("k7")).context;
    cluster.put(0, with(&context, put("k7", "new", 5000)));
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
}

#[test]
fn a_lost_range_is_counted_without_what_was_lost() {
    let mut cluster = Cluster::new(2, BucketProps { n: 2, ..BucketProps::default() });
    cluster.pass(1);
    fill(&mut cluster, 300);
    cluster.nodes[0].store.lose_all();
    for number in 0..300 {
        cluster.get(0, rejoin_proto::client::Get { r: Some(Quorum::Count(1)), ..get(&format!("k{number}")) });
    }
    settle(&mut cluster);
    assert_eq!(problems(&cluster, 0), [""; 0]);
}
