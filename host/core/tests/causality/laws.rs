//! Laws of `sync`, `put` and `fold` over reachable states.

use proptest::prelude::*;

use rejoin_core::causal::{self, Write};
use rejoin_proto::{ActorId, Content, Dot, DotSet, Entry, Hlc, Object, codec};

use crate::model::{Model, steps};

fn sync(a: &Object, b: &Object) -> Object {
    causal::sync(a, b).0
}

fn all_dots(object: &Object) -> DotSet {
    object.entries.iter().flat_map(|entry| entry.dots.spans().iter().copied()).collect()
}

fn objects(model: &Model) -> Vec<Object> {
    model.replicas.iter().map(|replica| replica.object.clone()).collect()
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn sync_commutes_and_is_idempotent(steps in steps(true)) {
        let objects = objects(&Model::run(&steps));
        for a in &objects {
            prop_assert_eq!(&sync(a, a), a);
            for b in &objects {
                let joined = sync(a, b);
                prop_assert_eq!(&joined, &sync(b, a));
                prop_assert_eq!(&sync(&joined, b), &joined);
                prop_assert_eq!(&sync(&joined, &joined), &joined);
            }
        }
    }

    #[test]
    fn without_folds_any_order_and_grouping_ends_in_one_state(steps in steps(false)) {
        let objects = objects(&Model::run(&steps));
        let whole = sync(&sync(&objects[0], &objects[1]), &objects[2]);
        for [a, b, c] in ORDERS {
            prop_assert_eq!(&sync(&sync(&objects[a], &objects[b]), &objects[c]), &whole);
            prop_assert_eq!(&sync(&objects[a], &sync(&objects[b], &objects[c])), &whole);
        }
    }

    #[test]
    fn with_folds_contexts_and_live_dots_end_equal(steps in steps(true)) {
        let objects = objects(&Model::run(&steps));
        let whole = sync(&sync(&objects[0], &objects[1]), &objects[2]);
        for [a, b, c] in ORDERS {
            let (left, right) = (sync(&objects[a], &objects[b]), sync(&objects[b], &objects[c]));
            for other in [sync(&left, &objects[c]), sync(&objects[a], &right)] {
                prop_assert_eq!(&other.context, &whole.context);
                prop_assert_eq!(all_dots(&other), all_dots(&whole));
            }
        }
    }

    /// What is left when all have met is exactly what nobody overwrote having seen it.
    #[test]
    fn replicas_end_with_every_write_that_no_writer_had_seen(steps in steps(false)) {
        let mut model = Model::run(&steps);
        let end = model.settle();
        let expected = model.minted.keys().copied().filter(|dot| !model.overwritten.contains(dot)).collect();
        prop_assert_eq!(model.live(&end), expected);
    }

    #[test]
    fn with_folds_replicas_still_converge_and_lose_no_value(steps in steps(true)) {
        let mut model = Model::run(&steps);
        let end = model.settle();
        let live = model.live(&end);
        for (dot, tombstone) in &model.minted {
            let gone = model.overwritten.contains(dot);
            prop_assert!(!gone || !live.contains(dot), "{:?} came back", dot);
            prop_assert!(gone || *tombstone || live.contains(dot), "{:?} is lost", dot);
        }
    }

    #[test]
    fn a_put_with_a_full_context_leaves_one_entry(steps in steps(true), tombstone: bool) {
        for mut object in objects(&Model::run(&steps)) {
            let content = if tombstone { Content::Tombstone } else { Content::Value("last".into()) };
            let dot = Dot { actor: ActorId(999), counter: 1 };
            let seen = object.context.clone();
            causal::put(&mut object, Write { seen: seen.clone(), dot, content, stamp: Hlc(1), expires: None });
            prop_assert_eq!(object.entries.len(), 1);
            prop_assert!(causal::writers_view(&object, &seen, dot).covers(&object.context));
        }
    }

    #[test]
    fn objects_round_trip_within_their_bounds(steps in steps(true)) {
        let model = Model::run(&steps);
        for object in objects(&model) {
            let bytes = codec::encode(&object);
            prop_assert_eq!(&codec::decode::<Object>(&bytes).expect("what was encoded is read"), &object);
            let spans_of = |entry: &Entry| entry.dots.spans().len() + entry.covers.spans().len();
            let spans = object.entries.iter().map(spans_of).sum::<usize>() + object.context.cloud().len();
            let overhead = 12 + object.context.len() * 20 + spans * 30 + object.entries.len() * 100;
            let bound = overhead + causal::value_bytes(&object);
            prop_assert!(bytes.len() <= bound);
            // Live writes of one actor lie together: one span each, but for tombstones that a fold took out of the
            // middle, and for what writers of their own earlier writes did.
            let holes = model.minted.values().filter(|tombstone| **tombstone).count() + model.clouded.len();
            prop_assert!(all_dots(&object).spans().len() <= object.context.len() + holes);
        }
    }
}
