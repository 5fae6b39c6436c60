//! Single histories, each with its reason.

use rejoin_core::causal::{self, OneDotTwoValues, Write};
use rejoin_proto::{ActorId, Content, Dot, FoldedBy, Hlc, Object, PluginDigest, ProfileId, VersionVector};

use crate::model::fold;

fn write(object: &mut Object, seen: &VersionVector, actor: u64, counter: u64, value: Option<&str>) {
    let content = value.map_or(Content::Tombstone, |value| Content::Value(value.to_owned().into()));
    let dot = Dot { actor: ActorId(actor), counter };
    causal::put(object, Write { seen: seen.clone(), dot, content, stamp: Hlc::from_ms(counter), expires: None });
}

fn blind(actor: u64, counter: u64, value: &str) -> Object {
    let mut object = Object::default();
    write(&mut object, &VersionVector::new(), actor, counter, Some(value));
    object
}

fn sync(a: &Object, b: &Object) -> Object {
    causal::sync(a, b).0
}

fn values(object: &Object) -> Vec<String> {
    causal::siblings(&causal::visible(object, 0))
        .iter()
        .map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned())
        .collect()
}

/// Scenario 7.
#[test]
fn a_fold_beside_a_tombstone_keeps_what_was_deleted_deleted() {
    let first = blind(1, 1, "old");
    let mut deleted = first.clone();
    write(&mut deleted, &first.context, 2, 1, None);
    let mut folded = sync(&deleted, &sync(&blind(3, 1, "x"), &blind(4, 1, "y")));
    assert_eq!(folded.entries.len(), 3);
    fold(&mut folded, 0);
    assert_eq!(folded.entries.len(), 1, "the tombstone is dropped, its dot stays seen");
    for stale in [&first, &deleted] {
        let met = sync(&folded, stale);
        assert_eq!(values(&met), ["v0(x y)"]);
        assert_eq!(met.entries.len(), 1);
    }
}

#[test]
fn a_late_merge_result_is_thrown_away() {
    let object = sync(&blind(1, 1, "a"), &blind(2, 1, "b"));
    let inputs = causal::visible(&object, 0);
    let mut newer = object.clone();
    write(&mut newer, &object.context, 3, 1, Some("c"));
    let before = newer.clone();
    assert!(!causal::fold(&mut newer, &inputs, "a b".into(), None));
    assert_eq!(newer, before);
    // Also when only one input has gone, or one has merely lost a dot.
    let mut half = object.clone();
    write(&mut half, &[Dot { actor: ActorId(1), counter: 1 }].into_iter().collect(), 3, 1, Some("c"));
    assert!(!causal::fold(&mut half, &inputs, "a b".into(), None));
    assert!(!causal::fold(&mut half, &[], "a b".into(), None));
}

/// Scenario 6.
#[test]
fn one_dot_with_two_values_keeps_both_and_says_so() {
    let (a, b) = (blind(1, 1, "a"), blind(1, 1, "b"));
    let (joined, alarm) = causal::sync(&a, &b);
    assert_eq!(alarm, Some(OneDotTwoValues));
    assert_eq!(values(&joined), ["a", "b"]);
    assert_eq!(sync(&b, &a), joined);
    assert_eq!(sync(&joined, &a), joined);
    assert_eq!(sync(&joined, &joined), joined);
    assert_eq!(causal::sync(&a, &a).1, None);
    let mut tombstone = Object::default();
    write(&mut tombstone, &VersionVector::new(), 1, 1, None);
    assert_eq!(causal::sync(&a, &tombstone), (sync(&tombstone, &a), Some(OneDotTwoValues)));
}

#[test]
fn two_folds_that_share_dots_raise_no_alarm_and_converge() {
    let (a, b, c) = (blind(1, 1, "a"), blind(2, 1, "b"), blind(3, 1, "c"));
    let (mut left, mut right) = (sync(&a, &b), sync(&b, &c));
    fold(&mut left, 0);
    fold(&mut right, 0);
    let (joined, alarm) = causal::sync(&left, &right);
    assert_eq!((alarm, joined.entries.len()), (None, 2), "they overlap: neither speaks for the other");
    assert_eq!(sync(&right, &left), joined);
    let mut folded = joined.clone();
    fold(&mut folded, 0);
    assert_eq!(folded.entries[0].dots.spans().len(), 3);
    assert_eq!(sync(&folded, &joined), folded);
}

/// Scenario 8.
#[test]
fn two_folds_of_equal_dots_by_two_plugins_meet_in_one_of_them() {
    let object = sync(&blind(1, 1, "a"), &blind(2, 1, "b"));
    let (mut old, mut new) = (object.clone(), object);
    fold(&mut old, 0);
    fold(&mut new, 1);
    assert_ne!(old, new);
    let (joined, alarm) = causal::sync(&old, &new);
    assert_eq!((alarm, joined.entries.len()), (None, 1));
    assert_eq!(sync(&new, &old), joined);
}

#[test]
fn a_write_whose_fold_was_cut_back_to_it_is_preferred_as_it_was_written() {
    let (a, b) = (blind(1, 1, "a"), blind(2, 1, "b"));
    let mut folded = sync(&a, &b);
    fold(&mut folded, 0);
    let mut cut = folded.clone();
    write(&mut cut, &a.context, 3, 1, Some("c"));
    assert_eq!(cut.entries.len(), 2, "the fold still speaks for b");
    let (joined, alarm) = causal::sync(&cut, &b);
    assert_eq!(alarm, None);
    assert_eq!(values(&joined), ["b", "c"], "fewer covers win: nothing of the overwritten a comes back");
}

#[test]
fn a_single_visible_value_is_folded_byte_for_byte() {
    let mut object = blind(1, 1, "a");
    write(&mut object, &VersionVector::new(), 2, 1, None);
    let inputs = causal::visible(&object, 0);
    assert!(causal::fold(&mut object, &inputs, "something else".into(), Some(by())));
    assert_eq!(object.entries, inputs);
    assert_eq!(object.context.len(), 2);
}

/// Two folds that share writes; then a context cuts from one of them what only it spoke for, and the other speaks for
/// the rest.
#[test]
fn a_put_that_cuts_a_fold_leaves_an_object_as_a_sync_would() {
    let (a, b, c) = (blind(1, 1, "a"), blind(2, 1, "b"), blind(3, 1, "c"));
    let (mut left, mut right) = (sync(&a, &b), sync(&b, &c));
    fold(&mut left, 0);
    fold(&mut right, 0);
    let mut object = sync(&left, &right);
    write(&mut object, &a.context, 4, 1, Some("d"));
    assert_eq!(values(&object), ["v0(b c)", "d"], "what is left of the other fold, b, is in this one");
    assert_eq!(sync(&object, &object), object);
}

fn by() -> FoldedBy {
    FoldedBy { plugin: PluginDigest([1; 32]), profile: ProfileId(1) }
}

#[test]
fn a_fold_has_the_latest_stamp_and_expiry_and_never_is_the_latest() {
    let expiring = |actor, ms: Option<u64>| {
        let mut object = blind(actor, actor, "x");
        object.entries[0].expires = ms.map(Hlc::from_ms);
        object
    };
    for (ends, expected) in [([Some(5), Some(9), Some(7)], Some(9)), ([Some(5), None, Some(7)], None)] {
        let mut object = sync(&expiring(1, ends[0]), &sync(&expiring(2, ends[1]), &expiring(3, ends[2])));
        let inputs = causal::visible(&object, 0);
        assert_eq!(causal::siblings(&inputs).len(), 1, "byte-equal values are given to a plugin once");
        assert!(causal::fold(&mut object, &inputs, "x".into(), Some(by())));
        let entry = &object.entries[0];
        assert_eq!((entry.expires, entry.stamp), (expected.map(Hlc::from_ms), Hlc::from_ms(3)));
    }
}

/// A merge by stamps must not depend on which of its inputs were folded before.
#[test]
fn byte_equal_values_are_given_to_a_plugin_with_the_latest_stamp_as_if_they_were_folded() {
    let shown = |object: &Object| {
        let siblings = causal::siblings(&causal::visible(object, 0));
        let mut all: Vec<_> = siblings.into_iter().map(|s| (s.value, s.stamp_ms, s.writer)).collect();
        all.sort();
        all
    };
    let equal = sync(&blind(1, 1, "a"), &blind(2, 5, "a"));
    let mut folded = equal.clone();
    assert!(causal::fold(&mut folded, &causal::visible(&equal, 0), "a".into(), Some(by())));
    let other = blind(3, 3, "b");
    let unfolded = shown(&sync(&equal, &other));
    assert_eq!(unfolded, [("a".into(), 5, 2), ("b".into(), 3, 3)]);
    assert_eq!(unfolded, shown(&sync(&folded, &other)));
}

/// Scenario 11, at the algebra alone: no limit forces a fold here.
#[test]
fn two_thousand_stale_puts_by_one_actor_fold_into_one_span() {
    let mut object = blind(1, 1, "first");
    let stale = object.context.clone();
    for counter in 2..=2001 {
        write(&mut object, &stale, 1, counter, Some("x"));
        let inputs = causal::visible(&object, 0);
        causal::fold(&mut object, &inputs, "x".into(), Some(by()));
        assert!(object.entries.len() == 1 && object.entries[0].dots.spans().len() == 1);
        assert_eq!(object.entries[0].covers.spans().len(), 1);
    }
    let mut siblings = blind(1, 1, "first");
    (2..=2001).for_each(|counter| write(&mut siblings, &VersionVector::new(), 1, counter, Some("x")));
    assert_eq!(siblings.entries.len(), 2001, "unfolded, each write is there");
    assert_eq!(siblings.context.len(), 1);
    fold(&mut siblings, 0);
    assert_eq!(siblings.entries[0].dots.spans(), [rejoin_proto::DotSpan { actor: ActorId(1), lo: 0, hi: 2001 }]);
}

#[test]
fn a_writer_is_told_of_its_own_dot_and_not_of_the_sibling_below_it() {
    let mut object = blind(1, 1, "unseen");
    let nothing = VersionVector::new();
    write(&mut object, &nothing, 1, 2, Some("mine"));
    let mine = Dot { actor: ActorId(1), counter: 2 };
    let view = causal::writers_view(&object, &nothing, mine);
    assert!(view.contains(mine) && !view.contains(Dot { actor: ActorId(1), counter: 1 }), "{view:?}");
    write(&mut object, &view, 1, 3, Some("next"));
    assert_eq!(values(&object), ["unseen", "next"]);
}

/// Two writers who never read take turns at one coordinator; every now and then a reader ends what the second has left.
#[test]
fn a_chain_of_own_contexts_stays_one_sibling_and_its_contexts_stay_small() {
    let mut object = blind(1, 1, "unseen");
    let mut seen = VersionVector::new();
    for round in 1..=200 {
        let own = Dot { actor: ActorId(1), counter: 2 * round };
        write(&mut object, &seen, 1, own.counter, Some("mine"));
        seen = causal::writers_view(&object, &seen, own);
        let mine = object.entries.iter().filter(|entry| entry.content == Content::Value("mine".into())).count();
        assert_eq!(mine, 1, "round {round}: {object:?}");
        assert!(
            seen.cloud().len() < object.entries.len(),
            "round {round}: {seen:?} beside {} entries",
            object.entries.len()
        );
        write(&mut object, &VersionVector::new(), 1, own.counter + 1, Some("another's"));
        if round % 8 == 0 {
            let shown = object.context.clone();
            write(&mut object, &shown, 2, round, Some("all that was read"));
        }
    }
}

/// The coordinator of the next write has neither the earlier one nor what lies below it: the earlier one is replaced
/// wherever it arrives.
#[test]
fn a_chain_that_changes_its_coordinator_replaces_what_arrives_there_later() {
    let unseen = blind(1, 1, "unseen");
    let mut first = unseen.clone();
    write(&mut first, &VersionVector::new(), 1, 2, Some("mine"));
    let view = causal::writers_view(&first, &VersionVector::new(), Dot { actor: ActorId(1), counter: 2 });
    let mut second = Object::default();
    write(&mut second, &view, 2, 1, Some("next"));
    assert_eq!((values(&second), second.context.cloud().len()), (vec!["next".to_owned()], 1));
    assert_eq!(values(&sync(&second, &unseen)), ["unseen", "next"]);
    let met = sync(&second, &first);
    assert_eq!((values(&met), met.context.cloud().is_empty()), (vec!["unseen".to_owned(), "next".to_owned()], true));
    assert_eq!(sync(&first, &second), met);
    assert_eq!(sync(&sync(&second, &unseen), &first), met);
}

/// What clouds cut out of an object is bounded: beyond that they are not heeded, and what they named stays as a
/// sibling.
#[test]
fn clouds_cut_a_bounded_number_of_holes() {
    let (mut object, mut seen) = (Object::default(), VersionVector::new());
    for round in 1..=2 * causal::MAX_SPANS as u64 {
        write(&mut object, &VersionVector::new(), 1, 2 * round - 1, Some("another's"));
        let taken = causal::bounded(&object, seen.clone());
        let own = Dot { actor: ActorId(1), counter: 2 * round };
        write(&mut object, &taken, 1, own.counter, Some("mine"));
        seen = causal::writers_view(&object, &seen, own);
        fold(&mut object, 0);
        let spans: Vec<usize> =
            object.entries.iter().map(|entry| entry.dots.spans().len().max(entry.covers.spans().len())).collect();
        assert!(spans.iter().all(|&spans| spans <= causal::MAX_SPANS), "round {round}: {spans:?}");
    }
}

#[test]
#[should_panic(expected = "a dot is minted above all earlier ones of its actor")]
fn a_dot_that_was_minted_before_stops_the_shard() {
    let mut object = blind(1, 5, "a");
    write(&mut object, &VersionVector::new(), 1, 5, Some("b"));
}
