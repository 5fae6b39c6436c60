//! The sibling and byte limits. Scenarios 11 and 14.

use rejoin_proto::catalog::{Activation, BucketProps, Durability};
use rejoin_proto::client::PutOutcome;
use rejoin_proto::fault::{MergeFault, TrapKind};
use rejoin_proto::{ErrorCode, Hlc, PluginDigest};

use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{WALL_MS, delete, get, put, with};

fn limited(siblings: u16, plugin: bool) -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal: false,
        since: Hlc::from_ms(WALL_MS),
        replaces: true,
        validates: false,
    };
    BucketProps { siblings, plugin: plugin.then_some(activation), ..BucketProps::default() }
}

#[test]
pub(crate) fn at_the_limit_the_siblings_are_folded_and_the_write_is_taken() {
    let mut cluster = Cluster::new(3, limited(4, true));
    (0..20).for_each(|at| assert_eq!(cluster.put(0, put("k", &format!("w{at}"), at)).outcome, PutOutcome::Stored));
    for node in 0..3 {
        assert!(cluster.stored(node, "k").entries.len() <= 4);
    }
    assert!(cluster.nodes[0].shard.counters().folds >= 5);
    let read = cluster.get(1, get("k"));
    let value = String::from_utf8(read.value.expect("a value").to_vec()).unwrap();
    assert_eq!(value.split(',').count(), 20, "every word is there: {value}");
}

/// The merge itself is well, and nothing is wrong with the write: it may come again.
#[test]
fn at_the_limit_a_store_that_takes_no_fold_is_named_as_what_refuses_the_write() {
    for (writes, code) in [(Writes::Busy, ErrorCode::Overloaded), (Writes::Full, ErrorCode::DiskFull)] {
        let mut cluster = Cluster::new(3, limited(3, true));
        (0..3).for_each(|at| assert_eq!(cluster.put(0, put("k", &format!("w{at}"), at)).outcome, PutOutcome::Stored));
        cluster.nodes[0].store.writes = writes;
        assert_eq!(cluster.refused(0, put("k", "one more", 3)), code);
        cluster.nodes[0].store.writes = Writes::Work;
        assert_eq!(cluster.put(0, put("k", "one more", 3)).outcome, PutOutcome::Stored);
    }
}

/// Scenario 14.
#[test]
pub(crate) fn at_the_limit_with_a_plugin_that_traps_full_contexts_get_through() {
    for deletes in [false, true] {
        let mut cluster = Cluster::new(3, limited(3, true));
        cluster.plugin = Some(|_| Err(MergeFault::Trapped(TrapKind::OutOfBounds).into()));
        (0..3).for_each(|at| assert_eq!(cluster.put(0, put("k", &format!("w{at}"), at)).outcome, PutOutcome::Stored));
        assert_eq!(cluster.refused(0, put("k", "one more", 3)), ErrorCode::TooManySiblings);
        assert_eq!(cluster.refused(0, delete("k", 4)), ErrorCode::TooManySiblings);
        let read = cluster.get(1, get("k"));
        assert_eq!(
            (read.siblings.len(), read.merge_fault.as_deref()),
            (3, Some("the plugin trapped: it reached outside its memory"))
        );
        let last = if deletes { delete("k", 5) } else { put("k", "last", 5) };
        assert_eq!(cluster.put(2, with(&read.context, last)).outcome, PutOutcome::Stored);
        assert_eq!(cluster.stored(0, "k").entries.len(), 1);
        assert_eq!(cluster.get(0, get("k")).value.is_some(), !deletes);
    }
}

#[test]
pub(crate) fn a_write_that_makes_room_for_itself_is_taken_without_a_merge() {
    let mut cluster = Cluster::new(3, limited(3, false));
    cluster.put(0, put("k", "a", 1));
    let seen_one = cluster.get(0, get("k")).context;
    (2..4).for_each(|at| assert_eq!(cluster.put(0, put("k", "b", at)).outcome, PutOutcome::Stored));
    assert_eq!(cluster.refused(0, put("k", "c", 4)), ErrorCode::TooManySiblings);
    assert_eq!(cluster.put(0, with(&seen_one, put("k", "c", 5))).outcome, PutOutcome::Stored, "replaces one, adds one");
    assert_eq!(cluster.stored(0, "k").entries.len(), 3);
}

#[test]
pub(crate) fn bytes_are_limited_as_siblings_are() {
    let props = BucketProps { value_bytes: 10, ..limited(256, false) };
    let mut cluster = Cluster::new(3, props);
    (0..4).for_each(|at| assert_eq!(cluster.put(0, put("k", "0123456789", at)).outcome, PutOutcome::Stored));
    assert_eq!(cluster.refused(0, put("k", "x", 4)), ErrorCode::TooManySiblings);
}

/// Deletes that have seen nothing pile up beside a value; at the limit they are dropped, for which no plugin is needed.
#[test]
pub(crate) fn tombstones_beside_the_only_value_do_not_lock_a_key() {
    let mut cluster = Cluster::new(3, limited(4, false));
    cluster.put(0, put("k", "value", 1));
    (2..12).for_each(|at| assert_eq!(cluster.put(0, delete("k", at)).outcome, PutOutcome::Stored));
    assert!(cluster.stored(1, "k").entries.len() <= 4);
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"value"[..]), "none of them had seen it");
}

/// Scenario 11: what one actor writes is one span, however long it goes on.
#[test]
pub(crate) fn two_thousand_stale_writes_keep_an_object_small_and_lose_nothing() {
    let props = BucketProps { durability: Durability::Os, ..limited(8, true) };
    for stale in [false, true] {
        let mut cluster = Cluster::new(3, props.clone());
        cluster.put(0, put("k", "w", 0));
        let context = cluster.get(0, get("k")).context;
        for at in 1..=2000u128 {
            let write = put("k", &format!("w{}", at % 16), at);
            let write = if stale { with(&context, write) } else { write };
            assert_eq!(cluster.put(0, write).outcome, PutOutcome::Stored);
        }
        for node in 0..3 {
            let object = cluster.stored(node, "k");
            assert!(object.entries.len() <= 8 && object.context.len() == 1);
            let spans: usize =
                object.entries.iter().map(|entry| entry.dots.spans().len() + entry.covers.spans().len()).sum();
            assert!(spans <= 2 * object.entries.len(), "{spans} spans in {} entries", object.entries.len());
        }
        let value = cluster.get(0, get("k")).value.expect("a value");
        assert_eq!(value.split(|&byte| byte == b',').count(), if stale { 16 } else { 17 }, "stale: {stale}");
    }
}
