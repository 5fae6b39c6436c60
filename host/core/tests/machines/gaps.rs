//! Replicas that have lost something: their copies do not count until they have what the others have.

use std::sync::Arc;

use rejoin_core::exchange::{ExchangeConfig, RebuildProgress};
use rejoin_core::port::Space;
use rejoin_core::shard::event::Event;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{BucketProps, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::exchange::{Ask, ExchangeAsk};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{BucketId, ErrorCode, Hlc};

use crate::support::cluster::Cluster;
use crate::support::store::{Memory, Writes};
use crate::support::{at, bucket, get, name, object_id, put, tenant};
use crate::trees::problems;

fn three() -> Cluster {
    let mut cluster =
        Cluster::with_config(3, BucketProps::default(), |config| config.exchange = ExchangeConfig::default());
    pass(&mut cluster);
    cluster
}

fn pass(cluster: &mut Cluster) {
    (0..100).for_each(|_| cluster.pass(50));
}

/// Nodes 0 and 1 have acknowledged a write that node 2 has not seen, and node 1 is away.
fn with_a_write_of_two(cluster: &mut Cluster) {
    cluster.cut(2);
    assert_eq!(cluster.put(0, put("k", "a", 1)).outcome, PutOutcome::Stored);
    cluster.cut(1);
    cluster.heal(2);
    cluster.wire.clear();
}

/// Reads with R = 2 at nodes 0 and 2.
fn reads(cluster: &mut Cluster) -> Vec<Result<Option<bytes::Bytes>, ErrorCode>> {
    let read = |at: usize| {
        let number = cluster.ask_get(at, get("k"));
        cluster.deliver();
        match cluster.reply(number) {
            rejoin_proto::client::Reply::Get(reply) => Ok(reply.value),
            rejoin_proto::client::Reply::Error(error) => Err(error.code),
            other => panic!("{other:?}"),
        }
    };
    [0, 2].map(read).to_vec()
}

fn incomplete(cluster: &Cluster) -> usize {
    cluster.nodes[0].shard.exchange_status().incomplete.len()
}

/// Node 0 starts on what a fault has left, while node 1 is away; then it meets node 2.
fn restart(cluster: &mut Cluster, store: Memory, replaced: bool) {
    cluster.nodes[0].config.rows_lost = !replaced;
    cluster.nodes[0].config.replaced = replaced;
    cluster.restart(0, true, store);
    cluster.cut(1);
    cluster.nodes[0].config.rows_lost = false;
    pass(cluster);
}

#[test]
pub(crate) fn a_replica_that_has_lost_something_counts_when_it_has_met_enough_others() {
    let mut cluster = three();
    with_a_write_of_two(&mut cluster);
    restart(&mut cluster, Memory::default(), true);
    assert_eq!(incomplete(&cluster), 8, "node 2 alone is not enough");
    assert_eq!(reads(&mut cluster), [Err(ErrorCode::Unavailable), Err(ErrorCode::Unavailable)]);
    // A restart does not begin anew, and does not forget.
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    cluster.cut(1);
    assert_eq!(incomplete(&cluster), 8);
    cluster.cut(2);
    cluster.heal(1);
    assert_eq!(cluster.rebuilt, [0; 0]);
    pass(&mut cluster);
    assert_eq!(incomplete(&cluster), 0, "node 2 was met in the last run");
    assert_eq!(cluster.rebuilt, [0], "it says so, and once");
    cluster.cut(1);
    cluster.heal(2);
    assert_eq!(reads(&mut cluster), [Ok(Some("a".into())), Ok(Some("a".into()))]);
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    assert_eq!(incomplete(&cluster), 0, "the same directory is not noted twice");
    pass(&mut cluster);
    assert_eq!(cluster.rebuilt, [0, 0], "each start says so");
}

#[test]
pub(crate) fn a_replaced_node_counts_in_no_bucket_that_it_learns_of_before_it_is_rebuilt() {
    let mut cluster = three();
    with_a_write_of_two(&mut cluster);
    let (full, empty) = (cluster.view.clone(), Arc::new(ClusterView::new(cluster.view.layout().clone(), &[])));
    // With its data directory the catalog is gone. It hears of the loss first, and then of the buckets.
    cluster.view = empty;
    restart(&mut cluster, Memory::default(), true);
    cluster.view = full.clone();
    cluster.event(0, Event::View(full));
    assert_eq!(reads(&mut cluster), [Err(ErrorCode::Unavailable), Err(ErrorCode::Unavailable)]);
    cluster.heal(1);
    pass(&mut cluster);
    assert_eq!(reads(&mut cluster), [Ok(Some("a".into())), Ok(Some("a".into()))]);
}

/// A bucket with that many copies.
fn record(of: &str, n: u8, stamp: Hlc) -> Record {
    let props = BucketProps { n, w: Quorum::Majority, ..BucketProps::default() };
    let body = RecordBody::Bucket { id: BucketId::derive(tenant(), &name(of), 0), props, past: Default::default() };
    Record { key: RecordKey::Bucket(tenant(), name(of)), version: 1, stamp, body }
}

/// Its gaps have ended, because it has a catalog whose buckets need nobody else. One of an older time comes after that.
#[test]
pub(crate) fn a_replaced_node_counts_in_no_older_bucket_that_it_learns_of_after_it_is_rebuilt() {
    let mut cluster = three();
    with_a_write_of_two(&mut cluster);
    let (full, layout) = (cluster.view.clone(), cluster.view.layout().clone());
    let alone = record("alone", 1, Hlc::default());
    cluster.view = Arc::new(ClusterView::new(layout.clone(), std::slice::from_ref(&alone)));
    restart(&mut cluster, Memory::default(), true);
    assert_eq!((incomplete(&cluster), cluster.rebuilt.as_slice()), (0, &[0][..]));
    // A restart remembers when the loss was.
    let store = cluster.nodes[0].store.clone();
    cluster.nodes[0].config.replaced = false;
    cluster.restart(0, false, store);
    cluster.cut(1);
    pass(&mut cluster);
    assert_eq!(cluster.rebuilt, [0, 0], "it says so again");
    cluster.view = full.clone();
    cluster.event(0, Event::View(full));
    assert_eq!(incomplete(&cluster), 8);
    assert_eq!(reads(&mut cluster), [Err(ErrorCode::Unavailable), Err(ErrorCode::Unavailable)]);
    cluster.heal(1);
    pass(&mut cluster);
    assert_eq!((incomplete(&cluster), reads(&mut cluster)[0].clone()), (0, Ok(Some("a".into()))));
    // What is created since was not lost.
    let later = record("later", 3, Hlc::from_ms(at(cluster.now_ms).wall_ms + 10 * 60_000));
    let cart = bucket(BucketProps::default());
    cluster.event(0, Event::View(Arc::new(ClusterView::new(layout, &[cart, later]))));
    assert_eq!(incomplete(&cluster), 0);
}

#[test]
pub(crate) fn a_loss_that_the_store_reports_begins_a_gap() {
    let mut cluster = three();
    with_a_write_of_two(&mut cluster);
    let mut store = cluster.nodes[0].store.clone();
    store.rows.remove(&(Space::Objects, object_id("k").store_key().into()));
    restart(&mut cluster, store, false);
    assert_eq!(reads(&mut cluster), [Err(ErrorCode::Unavailable), Err(ErrorCode::Unavailable)]);
    cluster.heal(1);
    pass(&mut cluster);
    assert_eq!(incomplete(&cluster), 0);
    assert_eq!(reads(&mut cluster), [Ok(Some("a".into())), Ok(Some("a".into()))]);
}

#[test]
pub(crate) fn a_range_that_is_lost_is_rebuilt_without_a_read() {
    let mut cluster = three();
    for number in 0..50 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster);
    let progress = |cluster: &Cluster| cluster.nodes[0].shard.exchange_status().rebuild;
    assert_eq!(progress(&cluster), RebuildProgress::default());
    cluster.nodes[0].store.lose_all();
    cluster.pass(1000);
    assert_eq!((incomplete(&cluster), progress(&cluster).partitions), (8, 8));
    pass(&mut cluster);
    assert_eq!((incomplete(&cluster), progress(&cluster).partitions), (0, 8));
    // Both others may have brought it at the same time.
    let taken = progress(&cluster);
    assert!((50..=100).contains(&taken.objects) && taken.bytes >= 50, "{taken:?}");
    for number in 0..50 {
        assert_eq!(cluster.stored(0, &format!("k{number}")), cluster.stored(1, &format!("k{number}")));
    }
    assert_eq!(problems(&cluster, 0), [""; 0]);
    // The next start is not told of it, and need not be.
    let store = cluster.nodes[0].store.clone();
    cluster.restart(0, false, store);
    assert_eq!(incomplete(&cluster), 0);
    // A loss that nobody has noticed before the end of the process.
    let mut store = cluster.nodes[0].store.clone();
    store.lose_all();
    cluster.restart(0, false, store);
    assert_eq!(incomplete(&cluster), 8);
}

#[test]
pub(crate) fn an_old_disk_begins_gaps_in_all_partitions() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    let old = cluster.nodes[0].store.clone();
    cluster.put(0, put("k", "b", 2));
    cluster.restart(0, false, old);
    assert_eq!(incomplete(&cluster), 8, "its peers have seen later writes of its actor");
    pass(&mut cluster);
    assert_eq!(incomplete(&cluster), 0);
    assert_eq!(cluster.stored(0, "k"), cluster.stored(1, "k"));
}

#[test]
pub(crate) fn a_rebuild_has_ended_when_a_restart_does_not_bring_it_back() {
    let mut cluster = three();
    cluster.put(0, put("k", "a", 1));
    cluster.nodes[0].config.replaced = true;
    cluster.restart(0, true, Memory::default());
    pass(&mut cluster);
    assert_eq!((incomplete(&cluster), cluster.rebuilt.as_slice()), (0, &[0][..]));
    // It has everything and does not know it, and the disk does not take the ends of the gaps.
    cluster.rebuilt.clear();
    let mut store = cluster.nodes[0].store.clone();
    store.rows.retain(|(space, key), _| *space != Space::Pinned || !key.ends_with(b"noted"));
    store.writes = Writes::Full;
    cluster.restart(0, false, store);
    pass(&mut cluster);
    assert_eq!((incomplete(&cluster), cluster.rebuilt.as_slice()), (0, &[][..]));
    cluster.nodes[0].store.writes = Writes::Work;
    pass(&mut cluster);
    assert_eq!((incomplete(&cluster), cluster.rebuilt.as_slice()), (0, &[0][..]));
}

#[test]
fn a_replica_without_other_owners_has_nobody_to_wait_for() {
    let props = BucketProps { n: 1, w: rejoin_proto::catalog::Quorum::Count(1), ..BucketProps::default() };
    let mut cluster = Cluster::with_config(1, props, |config| config.exchange = ExchangeConfig::default());
    pass(&mut cluster);
    cluster.nodes[0].config.replaced = true;
    cluster.restart(0, true, Memory::default());
    assert_eq!(incomplete(&cluster), 0);
    pass(&mut cluster);
    assert_eq!(cluster.rebuilt, [0], "what nobody can bring is not waited for");
    assert_eq!(cluster.get(0, get("k")).value, None);
}

#[test]
pub(crate) fn a_gap_is_walked_with_whole_hashes() {
    let mut cluster = three();
    for number in 0..200 {
        cluster.put(0, put(&format!("k{number}"), "v", number + 1));
    }
    pass(&mut cluster);
    cluster.nodes[0].config.replaced = true;
    cluster.restart(0, true, Memory::default());
    let mut widths = Vec::new();
    for _ in 0..100 {
        cluster.now_ms += 50;
        cluster.event(0, Event::Tick);
        let from = cluster.nodes[0].id;
        widths.extend(cluster.wire.iter().filter_map(|(sender, _, envelope)| match &envelope.body {
            PeerBody::ExchangeAsk(ExchangeAsk { ask: Ask::Compare { width, .. }, .. }) if *sender == from => {
                Some(*width)
            }
            _ => None,
        }));
        if !cluster.deliver_one(|_, _, _| true) {
            continue;
        }
    }
    assert!(!widths.is_empty() && widths.iter().all(|width| *width == 16), "{widths:?}");
}
