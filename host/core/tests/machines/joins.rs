//! By which ring a node joins whose data directory is empty.

use rejoin_core::ring::joining::{MOST_ASKED, joined, to_ask};
use rejoin_core::ring::{RingCommand, RingEvent};
use rejoin_proto::ring::Role;
use rejoin_proto::{Address, LayoutRef, NodeId, Ring};

use crate::ring::{World, address, id, member, name};

fn is_member(node: NodeId, ring: &Ring) -> bool {
    ring.live.iter().any(|layout| layout.node(node).is_some())
}

/// The rings of a node that does not know yet that n3 is dead, of one that knows and waits for it to be removed, and of
/// all in the end.
fn rings_of_a_death() -> [Ring; 3] {
    let mut world = World::new(4, 0, 7);
    let before = world.ring(1).clone();
    [0, 1, 2].iter().for_each(|at| world.disconnect(id(*at), id(3)));
    world.nodes.remove(&id(3)).expect("a node");
    world.stage(id(0), 3, Role::Removed);
    assert!(world.apply(id(0)));
    world.handle(id(0), RingEvent::Command(4, RingCommand::Skip(name(3))));
    let during = world.ring(0).clone();
    world.settle();
    [before, during, world.ring(0).clone()]
}

#[test]
pub(crate) fn a_node_that_was_declared_dead_joins_as_no_member_through_one_that_has_not_heard_of_it() {
    let [before, _, after] = rings_of_a_death();
    assert!(is_member(id(3), &before) && !is_member(id(3), &after));
    let mut others: Vec<Address> = [0, 1, 2].map(address).into();
    let mut asked = to_ask(id(3), &before);
    others.sort();
    asked.sort();
    assert_eq!(asked, others, "it asks all others");
    let ring = joined(id(3), before.clone(), vec![before.clone(), after.clone()]).expect("it joins");
    assert_eq!(ring.digest(), after.digest(), "by what the one knows that has heard of it");
    // No ring makes it a member again that says it is none.
    assert!(to_ask(id(3), &after).is_empty());
    assert_eq!(joined(id(3), after.clone(), vec![before.clone()]).expect("it joins").digest(), after.digest());
    // One that has lost its disk is a member as before, also if nobody else answers.
    assert_eq!(joined(id(2), before.clone(), Vec::new()).expect("it joins").digest(), before.digest());
    // The ring of a cluster that began otherwise says nothing here.
    let mut strange = after;
    strange.origin = LayoutRef { version: 1, hash: 99 };
    assert!(is_member(id(3), &joined(id(3), before, vec![strange]).expect("it joins")));
}

#[test]
pub(crate) fn a_node_that_was_declared_dead_joins_when_the_change_that_removes_it_has_ended() {
    let [before, during, after] = rings_of_a_death();
    assert!(is_member(id(3), &during), "the layout of before is live");
    let refused = joined(id(3), before.clone(), vec![during.clone()]).expect_err("it waits");
    assert!(refused.to_string().contains("`rejoin layout show` says what it waits for"), "{refused}");
    assert!(joined(id(3), during.clone(), Vec::new()).is_err(), "also with that ring alone");
    assert!(joined(id(3), during, vec![after]).is_ok());
    // One that leaves alive is waited for by the change, so it must not wait itself.
    let mut world = World::new(4, 0, 7);
    world.stage(id(0), 3, Role::Removed);
    assert!(world.apply(id(0)));
    let leaves = world.ring(0).clone();
    assert!(joined(id(3), leaves, vec![before]).is_ok());
    // One that stays a member is rebuilt, even if it was declared dead in a change of others.
    let mut world = World::new(4, 1, 7);
    [0, 1, 2, 4].iter().for_each(|at| world.disconnect(id(*at), id(3)));
    world.nodes.remove(&id(3)).expect("a node");
    world.stage(id(0), 4, member(1));
    assert!(world.apply(id(0)));
    world.handle(id(0), RingEvent::Command(4, RingCommand::Skip(name(3))));
    assert!(joined(id(3), world.ring(0).clone(), Vec::new()).is_ok());
}

#[test]
fn few_of_many_nodes_are_asked_and_those_first_that_are_furthest() {
    let mut world = World::new(MOST_ASKED + 4, 0, 3);
    world.stage(id(0), 1, member(2));
    assert!(world.apply(id(0)));
    world.settle();
    let mut ring = world.ring(0).clone();
    assert_eq!(to_ask(id(2), &ring).len(), MOST_ASKED);
    let late: Vec<NodeId> = ring.notes.progress.keys().copied().filter(|node| *node != id(9)).collect();
    for node in late {
        ring.notes.progress.get_mut(&node).expect("a node").reads = LayoutRef::default();
    }
    assert_eq!(to_ask(id(2), &ring)[0], address(9));
}
