//! Reads: what a reader is shown and told to have seen, merges, folds, repair and time to live.

use rejoin_core::shard::event::{Event, Merged};
use rejoin_proto::catalog::{Activation, BucketProps, Quorum};
use rejoin_proto::client::{Basis, Get, Put, PutOutcome};
use rejoin_proto::fault::{MergeFault, TrapKind};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::{Content, ErrorCode, Hlc, PluginDigest, ProfileId};

use crate::support::cluster::{Cluster, contexts};
use crate::support::{WALL_MS, delete, get, object_id, put, with};

fn plugin(self_causal: bool) -> BucketProps {
    let activation = Activation {
        plugin: PluginDigest([1; 32]),
        self_causal,
        since: Hlc::from_ms(WALL_MS),
        replaces: false,
        validates: false,
    };
    BucketProps { plugin: Some(activation), w: Quorum::Count(1), ..BucketProps::default() }
}

/// One write at each node while none hears of another.
fn apart(props: BucketProps, values: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(values.len(), props);
    for (node, value) in values.iter().enumerate() {
        let number = cluster.ask_put(node, put("k", value, node as u128));
        cluster.wire.clear();
        assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    }
    cluster
}

fn all(get: Get) -> Get {
    Get { r: Some(Quorum::Count(3)), ..get }
}

#[test]
pub(crate) fn a_self_causal_plugin_folds_at_once_and_every_owner_gets_the_result() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    let read = cluster.get(0, all(get("k")));
    assert_eq!(read.value.as_deref(), Some(&b"a,b,c"[..]));
    assert_eq!(read.merged_by.map(|by| by.digest), Some(PluginDigest([1; 32])));
    assert_eq!((read.siblings.len(), read.answered.len()), (1, 3));
    for node in 0..3 {
        let object = cluster.stored(node, "k");
        assert_eq!(object.entries.len(), 1, "node {node}");
        assert_eq!(object.entries[0].dots.spans().len(), 3, "it speaks for all three writes");
    }
    assert!(cluster.agrees("k", &[0, 1, 2]));
    let repairs = cluster.nodes[1].shard.counters().read_repairs;
    let read = cluster.get(1, all(get("k")));
    assert!(read.merged_by.is_some(), "a folded value still says who merged it");
    assert_eq!(cluster.nodes[1].shard.counters().read_repairs, repairs, "nothing is left to repair");
}

#[test]
pub(crate) fn any_other_plugin_merges_for_the_reader_and_leaves_the_siblings() {
    let mut cluster = apart(plugin(false), &["a", "b", "c"]);
    assert_eq!(cluster.get(0, all(get("k"))).value.as_deref(), Some(&b"a,b,c"[..]));
    (0..3).for_each(|node| assert_eq!(cluster.stored(node, "k").entries.len(), 3, "repaired, not folded"));
    let read = cluster.get(0, Get { siblings: true, ..all(get("k")) });
    assert_eq!((read.siblings.len(), read.value.is_some()), (3, true));
}

#[test]
pub(crate) fn for_its_delay_after_another_plugin_nothing_folds() {
    let mut props = plugin(true);
    props.plugin.as_mut().expect("a plugin").replaces = true;
    props.fold_delay_ms = 10_000;
    let mut cluster = apart(props, &["a", "b", "c"]);
    cluster.get(0, all(get("k")));
    assert_eq!(cluster.stored(0, "k").entries.len(), 3);
    cluster.pass(10_000);
    cluster.get(0, all(get("k")));
    assert_eq!(cluster.stored(0, "k").entries.len(), 1);
}

#[test]
pub(crate) fn a_merge_that_fails_shows_all_siblings_and_why() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    cluster.plugin = Some(|_| Err(MergeFault::Trapped(TrapKind::OutOfBounds).into()));
    let read = cluster.get(0, all(get("k")));
    assert_eq!((read.value, read.siblings.len()), (None, 3));
    assert_eq!(read.merge_fault.as_deref(), Some("the plugin trapped: it reached outside its memory"));
    assert!(cluster.agrees("k", &[0, 1, 2]), "repair goes on at the causal level");
    let full = cluster.put(1, with(&read.context, put("k", "d", 9)));
    assert_eq!(full.outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(0, all(get("k"))).value.as_deref(), Some(&b"d"[..]));
}

/// A copy that comes while the plugin runs holds a write that the reader is not shown. Its context must not cover that
/// write, or the reader's next one would destroy it unseen.
#[test]
pub(crate) fn a_reader_is_not_told_to_have_seen_what_came_while_the_plugin_ran() {
    let mut cluster = apart(plugin(true), &["a", "b", "unseen"]);
    cluster.plugin = None;
    let (zero, one) = (cluster.nodes[0].id, cluster.nodes[1].id);
    let number = cluster.ask_get(0, get("k"));
    cluster.deliver_one(|_, to, _| to == one);
    cluster.deliver_one(|from, to, _| (from, to) == (one, zero));
    let (node, ticket, job) = cluster.merges.pop_front().expect("R = 2 have answered");
    assert_eq!(job.siblings.len(), 2);
    cluster.deliver();
    let merged = Merged { value: "a,b".into(), shown: None, profile: ProfileId(7), fuel_used: 7 };
    cluster.event(node, Event::Merged(ticket, Ok(merged)));
    let read = cluster.get_reply(number);
    assert_eq!(read.value.as_deref(), Some(&b"a,b"[..]));
    let seen = contexts().open(&object_id("k"), &read.context).expect("its context");
    assert_eq!(seen.len(), 2, "two writes were shown");
    cluster.deliver();
    cluster.put(0, with(&read.context, put("k", "mine", 9)));
    let read = cluster.ask_get(0, all(get("k")));
    cluster.deliver();
    let (_, _, job) = cluster.merges.pop_front().expect("a merge");
    assert!(job.siblings.iter().any(|sibling| sibling.value == "unseen"), "the third write is lost: {job:?} {read}");
}

#[test]
pub(crate) fn a_merge_result_that_comes_after_its_inputs_were_overwritten_is_thrown_away() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    cluster.plugin = None;
    let number = cluster.ask_get(0, all(get("k")));
    cluster.deliver();
    let (node, ticket, _) = cluster.merges.pop_front().expect("a merge");
    let seen = cluster.stored(0, "k").context.clone();
    let full = contexts().seal(&object_id("k"), &seen);
    cluster.put(0, with(&full, put("k", "newer", 9)));
    let merged = Merged { value: "a,b,c".into(), shown: None, profile: ProfileId(7), fuel_used: 7 };
    cluster.event(node, Event::Merged(ticket, Ok(merged)));
    cluster.deliver();
    assert_eq!(cluster.get_reply(number).value.as_deref(), Some(&b"a,b,c"[..]), "the reader's view is what it was");
    let counters = cluster.nodes[0].shard.counters();
    assert_eq!((counters.folds, counters.folds_discarded), (0, 1));
    let values =
        |node: usize| cluster.stored(node, "k").entries.iter().map(|entry| entry.content.clone()).collect::<Vec<_>>();
    assert!(values(0).contains(&Content::Value("newer".into())));
    assert!(!values(0).contains(&Content::Value("a,b,c".into())));
}

#[test]
pub(crate) fn a_fold_beside_a_tombstone_does_not_undo_the_delete() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    let read = cluster.get(0, all(get("k")));
    // A delete and a write that have not seen one another.
    cluster.put(0, with(&read.context, delete("k", 10)));
    cluster.put(1, put("k", "d", 11));
    cluster.put(2, put("k", "e", 12));
    assert_eq!(cluster.get(0, all(get("k"))).value.as_deref(), Some(&b"d,e"[..]));
    assert_eq!(cluster.stored(1, "k").entries.len(), 1, "folded, without the tombstone");
    assert_eq!(cluster.get(2, all(get("k"))).value.as_deref(), Some(&b"d,e"[..]));
}

#[test]
pub(crate) fn r_of_one_is_answered_by_an_owner_alone() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    let number = cluster.ask_get(0, Get { r: Some(Quorum::Count(1)), ..get("k") });
    assert!(cluster.wire.is_empty());
    let read = cluster.get_reply(number);
    assert_eq!((read.value.as_deref(), read.answered.len()), (Some(&b"a"[..]), 1));
    assert_eq!(cluster.nodes[0].shard.in_flight(), 0);
}

#[test]
pub(crate) fn a_late_copy_is_repaired_too() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let late = cluster.nodes[2].id;
    cluster.put(0, put("warm", "x", 1));
    let number = cluster.ask_put(0, put("k", "milk", 2));
    cluster.wire.retain(|(_, to, _)| *to != late);
    cluster.deliver();
    assert_eq!(cluster.put_reply(number).outcome, PutOutcome::Stored);
    assert!(cluster.stored(2, "k").is_empty());
    let number = cluster.ask_get(0, get("k"));
    cluster.deliver_without(2);
    assert!(cluster.get_reply(number).value.is_some(), "answered by two");
    cluster.deliver();
    assert!(cluster.agrees("k", &[0, 1, 2]), "the third was behind, answered late, and is repaired all the same");
    assert_eq!(cluster.nodes[0].shard.counters().read_repairs, 1);
}

#[test]
pub(crate) fn a_read_misses_its_quorum_at_the_deadline_or_when_it_cannot_be_reached() {
    let mut cluster = Cluster::new(3, BucketProps::default());
    let number = cluster.ask_get(0, get("k"));
    cluster.wire.clear();
    cluster.pass(1000);
    let error = cluster.error(number);
    assert_eq!((error.code, error.needed, error.got), (ErrorCode::TimedOut, 2, 1));
    assert_eq!(error.why.len(), 2, "each replica that is missing is named");
    cluster.cut(0);
    let number = cluster.ask_get(0, get("k"));
    assert_eq!(cluster.error(number).code, ErrorCode::Unavailable);
}

#[test]
pub(crate) fn an_expired_value_is_hidden_and_never_reaches_a_plugin() {
    let mut cluster = Cluster::new(3, plugin(true));
    cluster.put(0, rejoin_proto::client::Put { ttl_ms: Some(5000), ..put("k", "short", 1) });
    cluster.put(0, put("k", "long", 2));
    assert_eq!(cluster.get(0, all(Get { siblings: true, ..get("other") })).siblings.len(), 0);
    cluster.pass(4990);
    let read = cluster.get(0, Get { r: Some(Quorum::Count(1)), siblings: true, ..get("k") });
    assert_eq!(read.value.as_deref(), Some(&b"long,short"[..]));
    let mut cluster = Cluster::new(3, plugin(true));
    cluster.put(0, rejoin_proto::client::Put { ttl_ms: Some(5000), ..put("k", "short", 1) });
    cluster.put(0, put("k", "long", 2));
    cluster.pass(5001);
    assert_eq!(cluster.get(0, all(get("k"))).value.as_deref(), Some(&b"long"[..]));
    assert_eq!(cluster.nodes[0].shard.counters().merges, 0, "one value needs no merge");
    assert_eq!(cluster.stored(0, "k").entries.len(), 2, "hidden, and still there while clocks may differ");
    cluster.pass(60_001);
    cluster.put(0, put("k", "more", 3));
    assert!(
        !cluster.stored(0, "k").entries.iter().any(|entry| entry.content == Content::Value("short".into())),
        "and then dropped"
    );
    assert!(cluster.agrees("k", &[0, 1, 2]), "its absence travels as that of a delete");
}

#[test]
pub(crate) fn a_single_value_stands_when_its_readable_form_is_not_made_in_time() {
    let mut cluster = Cluster::new(3, plugin(false));
    cluster.put(0, put("k", "one", 1));
    cluster.plugin = None;
    let number = cluster.ask_get(0, Get { show: rejoin_proto::client::Show::Readable, ..get("k") });
    cluster.deliver();
    assert_eq!(cluster.merges.len(), 1, "it is to be shown");
    cluster.pass(1001);
    let read = cluster.get_reply(number);
    assert_eq!((read.value.as_deref(), read.shown, read.merge_fault), (Some(&b"one"[..]), None, None));
}

#[test]
pub(crate) fn a_single_value_is_shown_by_the_plugin_and_stands_if_that_fails() {
    let mut cluster = apart(plugin(true), &["a", "b", "c"]);
    let shown =
        cluster.get(0, Get { show: rejoin_proto::client::Show::Readable, r: Some(Quorum::Count(1)), ..get("k") });
    assert_eq!((shown.value.as_deref(), shown.shown.as_deref()), (Some(&b"a"[..]), Some(&b"<a>"[..])));
    assert!(shown.merged_by.is_none(), "nothing was merged");
    cluster.plugin = Some(|_| Err(MergeFault::OutOfFuel { limit: 1 }.into()));
    let plain =
        cluster.get(0, Get { show: rejoin_proto::client::Show::Readable, r: Some(Quorum::Count(1)), ..get("k") });
    assert_eq!((plain.value.as_deref(), plain.shown, plain.merge_fault), (Some(&b"a"[..]), None, None));
}

#[test]
pub(crate) fn a_repair_asks_for_no_answer() {
    let mut cluster = apart(plugin(false), &["a", "b", "c"]);
    cluster.ask_get(0, all(get("k")));
    while cluster.deliver_one(|_, _, body| !matches!(body, PeerBody::Replicate(_))) {}
    assert_eq!(cluster.wire.len(), 2);
    cluster.deliver();
    assert!(cluster.agrees("k", &[0, 1, 2]));
}

/// A node starts with a clock that is ten years ahead, and learns it from its peers.
#[test]
fn a_corrected_clock_hides_no_live_value_and_stamps_none_in_the_future() {
    const YEARS_MS: u64 = 10 * 365 * 86_400_000;
    let mut cluster = Cluster::new(3, BucketProps::default());
    cluster.put(1, Put { ttl_ms: Some(86_400_000), ..put("k", "lives for a day", 1) });
    cluster.nodes[0].ahead_ms = YEARS_MS;
    cluster.event(0, Event::CorrectClock(-(YEARS_MS as i64)));
    assert_eq!(cluster.refused(0, Put { basis: Basis::Create, ..put("k", "new", 2) }), ErrorCode::Exists);
    assert_eq!(cluster.put(0, put("k", "beside it", 3)).outcome, PutOutcome::Stored);
    assert_eq!(cluster.get(0, get("k")).siblings.len(), 2);
    for node in 0..3 {
        let copy = cluster.stored(node, "k");
        assert_eq!(copy.entries.len(), 2, "node {node}");
        assert!(copy.entries.iter().all(|entry| entry.stamp.ms() < WALL_MS + 1000), "node {node}: {copy:?}");
    }
    // Somebody sets the clock: the correction would make it wrong again.
    cluster.nodes[0].ahead_ms = 0;
    cluster.pass(10);
    assert_eq!(cluster.get(0, get("k")).siblings.len(), 2);
    cluster.pass(86_400_000 + 1);
    assert_eq!(cluster.get(0, get("k")).value.as_deref(), Some(&b"beside it"[..]), "its time is over now");
}
