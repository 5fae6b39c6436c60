//! Splits of partitions, as operators apply them. What shards make of them is tested in `splits`.

use std::collections::BTreeSet;

use rejoin_core::ring::{MOST_PARTITIONS, PlanRefused, RingCommand, RingEvent, Staging};
use rejoin_proto::{BucketId, LayoutPolicy};

use crate::ring::{BUCKET, PARTITIONS, World, copies, id, member, name};

#[test]
pub(crate) fn partitions_are_split_alone_and_up_to_a_bound() {
    let mut world = World::new(3, 2, 13);
    let said = |world: &mut World, command| {
        world.handle(id(0), RingEvent::Command(5, command));
        world.answers.last().expect("an answer").1.clone().err().map(|error| error.message)
    };
    let split = || RingCommand::Stage(Staging { split: true, ..Staging::default() });
    // A node that joins is under way.
    world.stage(id(0), 3, member(1));
    assert!(world.apply(id(0)));
    let refused = said(&mut world, split()).expect("it is refused");
    assert!(refused.contains("a change of layout is under way"), "{refused}");
    world.settle();
    let mut partitions = PARTITIONS;
    while partitions < MOST_PARTITIONS {
        let before = world.newest(id(0)).clone();
        world.stage_split(id(0));
        assert!(world.apply(id(0)));
        partitions *= 2;
        world.settle();
        let ring = world.nodes[&id(1)].control.ring();
        assert_eq!((ring.partitions(), ring.newest().partitions()), (partitions, partitions));
        assert_eq!(ring.newest().owners, before.divided(partitions).owners, "both halves have the owners of the whole");
        let past = &ring.notes.past[&ring.newest().name()];
        assert_eq!((past.moved, past.split), (0, Some(partitions)), "for the history");
    }
    let refused = said(&mut world, split()).expect("it is refused");
    assert!(refused.contains("the ring has 4096 partitions"), "{refused}");
}

#[test]
fn a_split_beside_other_changes_is_refused_when_it_is_staged_in_either_order() {
    let mut world = World::new(3, 1, 17);
    let said = |world: &mut World, staging| {
        world.handle(id(0), RingEvent::Command(5, RingCommand::Stage(staging)));
        world.answers.last().expect("an answer").1.clone().err().map(|error| error.message)
    };
    let split = || Staging { split: true, ..Staging::default() };
    let joins = || Staging { roles: vec![(name(3), member(1))], ..Staging::default() };
    let now = world.newest(id(0)).policy;
    let policy = |n| Staging { policy: Some(LayoutPolicy { n, ..now }), ..Staging::default() };
    for other in [joins(), policy(2)] {
        assert_eq!(said(&mut world, split()), None);
        let refused = said(&mut world, other.clone()).expect("it is refused");
        assert!(refused.contains("a split is staged") && refused.contains("`rejoin layout revert`"), "{refused}");
        assert_eq!(said(&mut world, split()), None, "once more is the same");
        world.handle(id(0), RingEvent::Command(5, RingCommand::Revert));
        assert_eq!(said(&mut world, other.clone()), None);
        let refused = said(&mut world, split()).expect("it is refused");
        assert!(refused.contains("other changes are staged") && refused.contains("layout revert`"), "{refused}");
        world.handle(id(0), RingEvent::Command(5, RingCommand::Revert));
        let refused = said(&mut world, Staging { split: true, ..other }).expect("it is refused");
        assert!(refused.contains("without other changes"), "{refused}");
    }
    // What was refused has left nothing behind, and the policy of now is no change.
    assert!(world.nodes[&id(0)].control.plan().is_err_and(|why| why == PlanRefused::NothingStaged));
    assert_eq!(said(&mut world, policy(now.n)), None);
    assert_eq!(said(&mut world, split()), None);
    assert!(world.apply(id(0)));
    world.settle();
    // Two operators who do not hear of each other get both staged, and no plan.
    (1..4).for_each(|other| world.disconnect(id(0), id(other)));
    world.stage_split(id(0));
    world.stage(id(1), 3, member(1));
    world.settle();
    let plan = |world: &World| world.nodes[&id(2)].control.plan();
    assert!(plan(&world).is_err_and(|why| why == PlanRefused::SplitWithOthers));
    world.handle(id(2), RingEvent::Command(5, RingCommand::Revert));
    assert!(plan(&world).is_err_and(|why| why == PlanRefused::NothingStaged));
}

#[test]
fn a_split_that_lost_a_race_is_a_split_all_the_same() {
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        let mut world = World::new(3, 2, 100 + seed);
        [id(1), id(2), id(3), id(4)].iter().for_each(|other| world.disconnect(id(0), *other));
        world.stage_split(id(0));
        world.stage(id(1), 3, member(1 + seed as u32));
        assert!(world.apply(id(0)) && world.apply(id(1)));
        world.settle();
        let ring = world.nodes[&id(2)].control.ring().clone();
        assert!(world.nodes.values().all(|node| node.control.ring().digest() == ring.digest()));
        assert_eq!((ring.partitions(), ring.newest().version), (2 * PARTITIONS, 2));
        found.insert(ring.newest().partitions());
        // The next layout has the partitions of the ring, whoever has won.
        world.stage(id(2), 4, member(1));
        assert!(world.apply(id(2)));
        world.settle();
        assert_eq!(world.newest(id(0)).partitions(), 2 * PARTITIONS);
    }
    assert_eq!(found.len(), 2, "either has won at times");
}

#[test]
fn buckets_keep_their_copies_when_partitions_are_split_and_the_split_stays_when_copies_change() {
    let mut world = World::new(5, 0, 29);
    assert!(world.set_copies(id(0), 5));
    world.settle();
    world.stage_split(id(1));
    assert!(world.apply(id(1)));
    assert!(world.set_copies(id(1), 2), "also while the split is under way");
    world.settle();
    let newest = world.newest(id(2));
    assert_eq!((newest.partitions(), newest.version, copies(newest)), (2 * PARTITIONS, 4, 2));
    assert_eq!(newest.divided(4 * PARTITIONS).copies_of(BUCKET), newest.copies_of(BUCKET));
    assert_eq!(newest.copies_of(BucketId(8)), None);
}

#[test]
fn a_staged_split_stays_staged_when_copies_change_and_is_void_once_the_ring_is_split() {
    let mut world = World::new(3, 0, 31);
    world.stage_split(id(0));
    assert!(world.set_copies(id(0), 2));
    assert!(!world.apply(id(0)), "the change of copies is under way");
    world.settle();
    assert!(world.apply(id(0)));
    world.settle();
    let ring = world.nodes[&id(1)].control.ring();
    assert_eq!((ring.partitions(), ring.staged_split()), (2 * PARTITIONS, None));
    // A peer that stages as many again, or a number that no ring has.
    let mut ring = ring.clone();
    for partitions in [2 * PARTITIONS, 3 * PARTITIONS, PARTITIONS, 0, 1 << 20] {
        let base = ring.newest().name();
        ring.notes.split = Some(rejoin_proto::ring::Staged { base, number: 1, what: Some(partitions) });
        assert_eq!(ring.staged_split(), None, "{partitions}");
    }
}
