//! Folds that are not stored: their plugin was stopped while it ran, or there is no room for them.

use rejoin_core::shard::event::Event;
use rejoin_proto::PluginDigest;
use rejoin_proto::catalog::{Activation, BucketProps, Quorum};
use rejoin_proto::client::{Get, PutOutcome};

use crate::receipts::{kept, now_with, props, write_apart};
use crate::support::cluster::Cluster;
use crate::support::store::Writes;
use crate::support::{get, merge, node, put};

fn all() -> Get {
    Get { r: Some(Quorum::Count(3)), ..get("k") }
}

#[test]
pub(crate) fn what_a_plugin_has_merged_that_was_stopped_meanwhile_is_not_stored() {
    let active = props().plugin.expect("a plugin");
    let other = Activation { plugin: PluginDigest([2; 32]), ..active };
    for (now, stored) in [(None, 2), (Some(other), 2), (Some(active), 1)] {
        let mut cluster = Cluster::new(3, props());
        write_apart(&mut cluster, "k", ["a", "b"], 1);
        cluster.plugin = None;
        let number = cluster.ask_get(0, all());
        cluster.deliver();
        let (at, ticket, job) = cluster.merges.pop_front().expect("a merge");
        now_with(&mut cluster, BucketProps { plugin: now, ..props() });
        cluster.event(at, Event::Merged(ticket, merge::union(&job)));
        cluster.deliver();
        assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a,b"[..]), "the reader had asked before");
        for node in 0..3 {
            assert_eq!(cluster.stored(node, "k").entries.len(), stored, "{now:?} at node {node}");
        }
        let counters = cluster.nodes[0].shard.counters();
        assert_eq!((counters.folds, counters.folds_discarded), if stored == 1 { (1, 0) } else { (0, 1) }, "{now:?}");
        assert_eq!(kept(&cluster, 0).len(), 2 - stored);
    }
}

#[test]
fn a_fold_without_room_does_not_keep_a_read_from_repairing() {
    let mut cluster = Cluster::new(3, props());
    // The first node has both values, the second one of them, the third none.
    for (at, value) in ["a", "b"].into_iter().enumerate() {
        let number = cluster.ask_put(at, put("k", value, at as u128 + 1));
        if at == 1 {
            while cluster.deliver_one(|_, to, _| to == node(0)) {}
        }
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    assert_eq!([0, 1, 2].map(|at| cluster.stored(at, "k").entries.len()), [2, 1, 0]);
    cluster.nodes[0].store.writes = Writes::Full;
    assert_eq!(cluster.get(0, all()).value.as_deref(), Some(&b"a,b"[..]));
    assert_eq!([0, 1, 2].map(|at| cluster.stored(at, "k").entries.len()), [2, 2, 2]);
    assert!(cluster.agrees("k", &[0, 1, 2]));
    assert_eq!(kept(&cluster, 0).len(), 0);
    // With room, the next read folds.
    cluster.nodes[0].store.writes = Writes::Work;
    cluster.get(0, all());
    assert_eq!([0, 1, 2].map(|at| cluster.stored(at, "k").entries.len()), [1, 1, 1]);
}
