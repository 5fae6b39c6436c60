//! Siblings of a bucket for a check of a plugin's laws: all that this node's copies have, and nothing of other buckets.

use std::collections::BTreeSet;

use bytes::Bytes;

use rejoin_core::port::Space;
use rejoin_core::shard::recorded;
use rejoin_proto::catalog::{BucketProps, Quorum};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::{BucketId, ObjectId};

use crate::support::cluster::Cluster;
use crate::support::{WALL_MS, object_id, put};

/// The keys that have siblings among many that have none.
const TORN: [&str; 3] = ["torn-a", "torn-b", "torn-c"];

fn write(cluster: &mut Cluster, key: &str, value: &str, request: u128) {
    let number = cluster.ask_put(0, put(key, value, request));
    cluster.wire.clear();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
}

/// The keys with siblings of all pages, and how many pages there were.
fn found(cluster: &Cluster, bucket: BucketId) -> (BTreeSet<Bytes>, usize) {
    let (mut keys, mut pages, mut from) = (BTreeSet::new(), 0, None);
    loop {
        let page = recorded::siblings_from(&cluster.nodes[0].store, bucket, from.as_ref(), WALL_MS);
        let page = page.expect("a sound store");
        pages += 1;
        for set in page.sets {
            assert_eq!(set.siblings.len(), 2, "{:?}", set.key);
            assert!(keys.insert(set.key), "no key is found twice");
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return (keys, pages),
        }
    }
}

#[test]
fn the_siblings_of_a_bucket_are_found_page_by_page_and_no_others() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() });
    (0..600_u128).for_each(|number| write(&mut cluster, &format!("whole-{number}"), "one", number + 1));
    for (at, key) in (0..).zip(TORN) {
        write(&mut cluster, key, "east", 1_000 + 2 * at);
        write(&mut cluster, key, "west", 1_001 + 2 * at);
    }
    let bucket = object_id("").bucket;
    let torn: BTreeSet<Bytes> = TORN.into_iter().map(Bytes::from).collect();
    let (keys, pages) = found(&cluster, bucket);
    assert_eq!(keys, torn);
    assert!(pages > 2, "{pages}: a turn of the shard reads a bounded number of rows");

    // A row of the buckets before and behind it is nothing of it.
    let store = &mut cluster.nodes[0].store;
    let row = store.rows[&(Space::Objects, Bytes::from(object_id(TORN[0]).store_key()))].clone();
    for other in [bucket.0.wrapping_sub(1), bucket.0.wrapping_add(1)] {
        let id = ObjectId { bucket: BucketId(other), ..object_id("foreign") };
        store.rows.insert((Space::Objects, id.store_key().into()), row.clone());
    }
    assert_eq!(found(&cluster, bucket).0, torn);
}

#[test]
fn one_object_has_its_siblings_or_none() {
    let mut cluster = Cluster::new(1, BucketProps { n: 1, w: Quorum::Count(1), ..BucketProps::default() });
    write(&mut cluster, "whole", "one", 1);
    write(&mut cluster, "torn", "east", 2);
    write(&mut cluster, "torn", "west", 3);
    let of = |key: &str| recorded::siblings_of(&cluster.nodes[0].store, &object_id(key), WALL_MS);
    let set = of("torn").expect("two siblings");
    let values: Vec<&[u8]> = set.siblings.iter().map(|one| &one.value[..]).collect();
    assert_eq!((set.key, values.len()), (Bytes::from("torn"), 2));
    assert!(values.contains(&&b"east"[..]) && values.contains(&&b"west"[..]), "{values:?}");
    assert_eq!((of("whole"), of("nothing")), (None, None));
}
