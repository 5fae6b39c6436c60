//! Undos of folds: what they find before anything is written, and what they refuse.

use bytes::Bytes;

use rejoin_core::port::Space;
use rejoin_core::view::ClusterView;
use rejoin_proto::catalog::{Activation, BucketProps, Quorum, Record, RecordBody, RecordKey};
use rejoin_proto::client::{Get, Put, PutOutcome};
use rejoin_proto::quota::{Limit, Quota};
use rejoin_proto::receipt::{KeptReceipt, MAX_RESTORED};
use rejoin_proto::{Content, Entry, ErrorCode, Hlc, PluginDigest};

use crate::receipts::{fold, kept, now_with, props, undo, values};
use crate::sloppy::{cut_owners, five_with, heal_owners, w};
use crate::support::cluster::Cluster;
use crate::support::{bucket, delete, get, layout, object_id, put, tenant, with};

/// A fold at the first node, and the bucket without the plugin since. W is `w`.
fn folded(w: Quorum) -> (Cluster, KeptReceipt) {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let receipt = kept(&cluster, 0).remove(0);
    now_with(&mut cluster, BucketProps { plugin: None, w, ..props() });
    (cluster, receipt)
}

/// The same receipt with so many inputs of so many bytes.
fn forged(kept: &KeptReceipt, count: usize, bytes: usize) -> KeptReceipt {
    let mut forged = kept.clone();
    let content = Content::Value("x".repeat(bytes).into());
    // Each stands for all of it.
    let input = Entry { content, dots: kept.receipt.dots.clone(), ..kept.receipt.inputs[0].clone() };
    forged.receipt.inputs = vec![input; count];
    forged
}

fn contents(of: &[&str]) -> Vec<Content> {
    of.iter().map(|value| Content::Value((*value).to_owned().into())).collect()
}

#[test]
pub(crate) fn an_undo_finds_what_was_written_while_its_coordinator_was_away() {
    for deleted in [false, true] {
        let (mut cluster, receipt) = folded(Quorum::Majority);
        cluster.cut(0);
        let context = cluster.get(1, get("k")).context;
        let newer = if deleted { delete("k", 5) } else { put("k", "newer", 5) };
        assert_eq!(cluster.put(1, with(&context, newer)).outcome, PutOutcome::Stored);
        (1..3).for_each(|other| cluster.join(0, other));
        cluster.deliver();
        assert!(kept(&cluster, 0)[0].live, "it has missed the write");
        assert_eq!(cluster.refused(0, undo(&receipt, 7)), ErrorCode::VersionConflict);
        let wanted = if deleted { vec![Content::Tombstone] } else { contents(&["newer"]) };
        for at in 0..3 {
            assert_eq!(values(&cluster.stored(at, "k")), wanted, "nothing comes back at node {at}");
        }
    }
}

#[test]
fn an_undo_needs_so_many_owners_that_it_meets_every_write() {
    let (mut cluster, receipt) = folded(Quorum::Count(1));
    cluster.sever(0, 2);
    assert_eq!(cluster.refused(0, undo(&receipt, 7)), ErrorCode::Unavailable, "a write may be at one owner only");
    assert!(kept(&cluster, 0)[0].live, "nothing was written");
    cluster.join(0, 2);
    assert_eq!(cluster.put(0, undo(&receipt, 8)).outcome, PutOutcome::Stored);
    let (mut cluster, receipt) = folded(Quorum::Majority);
    cluster.sever(0, 2);
    assert_eq!(cluster.put(0, undo(&receipt, 7)).outcome, PutOutcome::Stored, "two of three have every write");
    assert_eq!(values(&cluster.stored(1, "k")), contents(&["a", "b"]));
}

/// A fold of five nodes that was written over at a fallback while its owners were away. They are back.
fn written_over_at_a_fallback() -> (Cluster, Vec<usize>, KeptReceipt) {
    let (mut cluster, nodes) = five_with(props());
    for (request, (node, value)) in (1..).zip([(nodes[0], "a"), (nodes[1], "b")]) {
        let number = cluster.ask_put(node, put("k", value, request));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    let context = cluster.get(nodes[0], Get { r: Some(Quorum::Count(3)), ..get("k") }).context;
    let receipt = kept(&cluster, nodes[0]).remove(0);
    // Any one owner has every write of three.
    now_with(&mut cluster, BucketProps { plugin: None, w: Quorum::Count(3), ..props() });
    cut_owners(&mut cluster, &nodes);
    let stored = cluster.put(nodes[3], w(1, with(&context, put("k", "newer", 5))));
    assert_eq!(stored.outcome, PutOutcome::Stored);
    heal_owners(&mut cluster, &nodes);
    assert!(kept(&cluster, nodes[0])[0].live, "the owners have missed the write");
    (cluster, nodes, receipt)
}

#[test]
fn an_undo_finds_what_a_fallback_has() {
    let (mut cluster, nodes, receipt) = written_over_at_a_fallback();
    assert_eq!(cluster.refused(nodes[0], undo(&receipt, 7)), ErrorCode::VersionConflict);
    assert_eq!(values(&cluster.stored(nodes[0], "k")), contents(&["newer"]));
    // A fallback that cannot be asked may have such a write.
    let (mut cluster, nodes, receipt) = written_over_at_a_fallback();
    nodes[3..].iter().for_each(|fallback| cluster.cut(*fallback));
    let number = cluster.ask_put(nodes[0], undo(&receipt, 7));
    cluster.deliver();
    let error = cluster.error(number);
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(error.message.contains(&format!("n{}", nodes[3])), "{error}");
    assert!(kept(&cluster, nodes[0])[0].live, "nothing was written");
}

#[test]
pub(crate) fn an_undo_restores_what_is_left_of_a_fold() {
    let mut cluster = Cluster::new(3, props());
    let mut contexts = Vec::new();
    for (at, value) in ["a", "b"].iter().enumerate() {
        let number = cluster.ask_put(at, put("k", value, 1 + at as u128));
        cluster.wire.clear();
        contexts.push(cluster.put_reply(number).context.clone());
    }
    cluster.get(0, Get { r: Some(Quorum::Count(3)), ..get("k") });
    let receipt = kept(&cluster, 0).remove(0);
    now_with(&mut cluster, BucketProps { plugin: None, ..props() });
    // Its writer goes on from "a", and has not seen "b".
    assert_eq!(cluster.put(1, with(&contexts[0], put("k", "newer", 5))).outcome, PutOutcome::Stored);
    assert!(kept(&cluster, 0)[0].live, "a part of it is there");
    // Nothing of the fold may be lost.
    let mut without = receipt.clone();
    without.receipt.inputs.retain(|input| input.content == Content::Value("a".into()));
    without.receipt.inputs.extend(without.receipt.inputs.clone());
    assert_eq!(cluster.refused(0, undo(&without, 8)), ErrorCode::BadRequest);
    assert_eq!(cluster.put(0, undo(&receipt, 9)).outcome, PutOutcome::Stored);
    for at in 0..3 {
        assert_eq!(values(&cluster.stored(at, "k")), contents(&["b", "newer"]), "node {at}");
    }
    assert!(!kept(&cluster, 0)[0].live);
}

#[test]
fn a_node_that_neither_owns_nor_has_the_object_does_not_know_whether_a_fold_is_live() {
    let (mut cluster, nodes) = five_with(props());
    for (request, (node, value)) in (1..).zip([(nodes[0], "a"), (nodes[1], "b")]) {
        let number = cluster.ask_put(node, put("k", value, request));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    cluster.get(nodes[0], Get { r: Some(Quorum::Count(3)), ..get("k") });
    // As if a fallback had folded, and had handed the object over since.
    let rows = cluster.nodes[nodes[0]].store.rows.iter();
    let receipts: Vec<_> = rows.filter(|((space, _), _)| *space == Space::Receipts).collect();
    let receipts: Vec<_> = receipts.into_iter().map(|(key, row)| (key.clone(), row.clone())).collect();
    cluster.nodes[nodes[3]].store.rows.extend(receipts);
    assert_eq!([nodes[0], nodes[3]].map(|at| kept(&cluster, at)[0].live), [true, true]);
    cluster.nodes[nodes[0]].store.rows.remove(&(Space::Objects, Bytes::from(object_id("k").store_key())));
    assert!(!kept(&cluster, nodes[0])[0].live, "an owner knows that it is not there");
}

#[test]
fn an_undo_that_the_plugin_would_fold_again_is_refused() {
    let mut cluster = Cluster::new(3, props());
    fold(&mut cluster, "k", ["a", "b"], 1);
    let (receipt, before) = (kept(&cluster, 0).remove(0), cluster.stored(0, "k"));
    let active = props().plugin.expect("a plugin");
    let at_limit = Activation { self_causal: false, ..active };
    for (request, plugin, siblings) in [(7, active, 32), (8, at_limit, 2)] {
        now_with(&mut cluster, BucketProps { plugin: Some(plugin), siblings, ..props() });
        let number = cluster.ask_put(0, undo(&receipt, request));
        cluster.deliver();
        let error = cluster.error(number);
        assert_eq!(error.code, ErrorCode::BadRequest, "{error}");
        assert!(error.message.contains("rejoin plugin rollback cart"), "{error}");
        assert_eq!(cluster.stored(0, "k"), before);
    }
    // It does not fold below the limit, and another plugin may merge the inputs in its own way.
    let other = Activation { plugin: PluginDigest([2; 32]), ..active };
    for (request, plugin, siblings) in [(9, at_limit, 3), (10, other, 32)] {
        let mut cluster = Cluster::new(3, props());
        fold(&mut cluster, "k", ["a", "b"], 1);
        let receipt = kept(&cluster, 0).remove(0);
        now_with(&mut cluster, BucketProps { plugin: Some(plugin), siblings, ..props() });
        assert_eq!(cluster.put(0, undo(&receipt, request)).outcome, PutOutcome::Stored);
        assert_eq!(values(&cluster.stored(1, "k")), contents(&["a", "b"]));
    }
}

#[test]
fn an_undo_keeps_the_limits_of_its_bucket() {
    let (mut cluster, receipt) = folded(Quorum::Majority);
    let before = cluster.stored(0, "k");
    // An object may have 40 bytes, and one write more.
    let small = BucketProps { plugin: None, value_bytes: 10, siblings: 8, w: Quorum::Majority, ..props() };
    now_with(&mut cluster, small.clone());
    let refused = [(11, 6, 10), (12, 10, 1), (13, 2, 11)];
    for (request, count, bytes) in refused {
        let code = cluster.refused(0, undo(&forged(&receipt, count, bytes), request));
        assert_eq!(code, ErrorCode::TooManySiblings, "{count} inputs of {bytes} bytes");
    }
    let code = cluster.refused(0, undo(&forged(&receipt, MAX_RESTORED + 1, 1), 14));
    assert_eq!(code, ErrorCode::BadRequest, "more than any object has siblings");
    // A quota counts too.
    let body = RecordBody::Quota(Box::new(Quota::default().with(Limit::Siblings, 2)));
    let quota = Record { key: RecordKey::Quota(tenant(), None), version: 1, stamp: Hlc::default(), body };
    cluster.show(ClusterView::new(layout(3), &[bucket(small.clone()), quota]));
    assert_eq!(cluster.refused(0, undo(&forged(&receipt, 4, 1), 15)), ErrorCode::TooManySiblings);
    assert_eq!(cluster.stored(0, "k"), before, "nothing was written");
    now_with(&mut cluster, small);
    let five: Put = undo(&forged(&receipt, 5, 10), 16);
    assert_eq!(cluster.put(0, five).outcome, PutOutcome::Stored);
    assert_eq!(cluster.stored(2, "k").entries.len(), 5);
}
