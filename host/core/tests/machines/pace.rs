//! What a shard that coordinates nothing knows of the pace of its clients.

use rejoin_proto::catalog::{BucketProps, Durability};
use rejoin_proto::client::PutOutcome;

use crate::support::cluster::Cluster;
use crate::support::put;

/// How much a node waits for from its disk after it was sent a write that another one coordinates: its
/// acknowledgement, and the time of it.
fn waits(durability: Durability) -> usize {
    let mut cluster = Cluster::new(3, BucketProps { durability, ..BucketProps::default() });
    cluster.now_ms += 1_000;
    cluster.nodes[2].syncing = false;
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    let waits = cluster.nodes[2].behind.len();
    cluster.nodes[2].syncing = true;
    cluster.sync(2);
    cluster.deliver();
    assert!(cluster.nodes[2].behind.is_empty());
    waits
}

#[test]
fn the_acknowledgement_of_a_served_write_is_timed_where_it_waits_for_the_disk() {
    assert_eq!([Durability::Fsync, Durability::Os].map(waits), [2, 0]);
}
