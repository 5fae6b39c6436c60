//! The weighted fair queue: shares, waiting times, bounds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use rejoin_core::fair::{FairQueue, Full, Item, Load, Next, REQUEST_COST, Room, SHARED_US, STANDING_US, request_cost};

type Queue = FairQueue<u64, u64>;

const WIDE: Room = Room {
    waiting: Load { items: 1 << 20, bytes: 1 << 40 },
    flow_waiting: Load { items: 1 << 20, bytes: 1 << 40 },
    under_way: Load { items: 1 << 20, bytes: 1 << 40 },
    wait_us: u64::MAX,
};

fn item(value: u64, weight: u32, bytes: usize) -> Item<u64> {
    Item { value, weight, bytes }
}

fn push(queue: &mut Queue, flow: u64, value: u64, bytes: usize) -> Result<(), Full> {
    queue.push(0, flow, item(value, 1, bytes)).map_err(|(full, _)| full)
}

/// Takes one item, which ends at once.
fn serve(queue: &mut Queue) -> Option<Next<u64, u64>> {
    let next = queue.pop(0)?;
    queue.done(next.flow, next.load, 0);
    Some(next)
}

/// The flows of the next so many items.
fn order(queue: &mut Queue, count: usize) -> Vec<u64> {
    (0..count).filter_map(|_| serve(queue)).map(|next| next.flow).collect()
}

#[test]
pub(crate) fn flows_that_wait_are_served_by_their_weights() {
    let mut queue = Queue::new(WIDE);
    for value in 0..100 {
        for (flow, weight) in [(1, 1), (2, 3)] {
            queue.push(0, flow, item(value, weight, 0)).unwrap();
        }
    }
    let served = order(&mut queue, 100);
    let heavy = served.iter().filter(|flow| **flow == 2).count();
    assert!((74..=76).contains(&heavy), "{heavy} of 100");
}

#[test]
pub(crate) fn a_large_request_counts_as_much_as_its_bytes() {
    let mut queue = Queue::new(WIDE);
    let large = 63 * usize::try_from(REQUEST_COST).unwrap();
    for value in 0..200 {
        push(&mut queue, 1, value, large).unwrap();
        push(&mut queue, 2, value, 0).unwrap();
    }
    let served = order(&mut queue, 130);
    let of_large = served.iter().filter(|flow| **flow == 1).count();
    assert!((2..=3).contains(&of_large), "each is worth 64 small ones: {of_large}");
}

#[test]
pub(crate) fn a_flow_that_was_idle_has_no_credit() {
    let mut queue = Queue::new(WIDE);
    for value in 0..1_000 {
        push(&mut queue, 1, value, 0).unwrap();
    }
    // The other flow was served once, and then has nothing for long.
    push(&mut queue, 2, 0, 0).unwrap();
    let _ = order(&mut queue, 500);
    for value in 0..100 {
        push(&mut queue, 2, value, 0).unwrap();
    }
    let served = order(&mut queue, 100);
    let late = served.iter().filter(|flow| **flow == 2).count();
    assert!((49..=51).contains(&late), "half of what is served from now on: {late}");
}

#[test]
fn a_flow_that_stops_for_a_moment_still_owes() {
    let mut queue = Queue::new(WIDE);
    for value in 0..100 {
        push(&mut queue, 1, value, 0).unwrap();
    }
    push(&mut queue, 2, 0, 1 << 20).unwrap();
    assert_eq!(order(&mut queue, 2), [1, 2]);
    // It has had more than a hundred small ones.
    push(&mut queue, 2, 1, 0).unwrap();
    let served = order(&mut queue, 101);
    assert_eq!(served.iter().position(|flow| *flow == 2), Some(99), "behind all that waits: {served:?}");
    // Once nobody waits, nobody owes anything.
    push(&mut queue, 1, 0, 0).unwrap();
    push(&mut queue, 2, 0, 0).unwrap();
    push(&mut queue, 1, 0, 0).unwrap();
    assert_eq!(order(&mut queue, 3), [1, 2, 1]);
    assert_eq!(queue.flows(), 1, "only the one that has had more than the other is remembered");
}

#[test]
fn what_is_known_afterwards_is_charged_then() {
    let mut queue = Queue::new(WIDE);
    for value in 0..50 {
        push(&mut queue, 1, value, 0).unwrap();
        push(&mut queue, 2, value, 0).unwrap();
    }
    let read = queue.pop(0).unwrap();
    assert_eq!((read.flow, read.cost), (1, request_cost(0)));
    // Its reply was as large as twenty small requests.
    queue.done(1, read.load, 20 * REQUEST_COST);
    let served = order(&mut queue, 22);
    assert_eq!(served.iter().filter(|flow| **flow == 1).count(), 1, "{served:?}");
}

#[test]
pub(crate) fn one_flow_leaves_room_and_a_late_one_finds_some() {
    let room = Room { waiting: Load { items: 100, bytes: 1_000_000 }, ..WIDE };
    let mut queue = Queue::new(room);
    let taken = |queue: &mut Queue, flow| (0..200).take_while(|value| push(queue, flow, *value, 10).is_ok()).count();
    assert_eq!(taken(&mut queue, 1), 50, "half of it");
    assert!(matches!(push(&mut queue, 1, 0, 10), Err(Full::Flow(Load { items: 50, bytes: 500 }))));
    let second = taken(&mut queue, 2);
    assert!((20..=34).contains(&second), "{second}");
    for late in 3..20 {
        assert!(push(&mut queue, late, 0, 10).is_ok(), "flow {late} finds a place");
    }
    // Bytes count in the same way.
    let mut queue = Queue::new(room);
    push(&mut queue, 1, 0, 400_000).unwrap();
    assert!(push(&mut queue, 1, 0, 400_000).is_err());
    push(&mut queue, 2, 0, 400_000).unwrap();
    assert_eq!(push(&mut queue, 3, 0, 400_000), Err(Full::All(Load { items: 2, bytes: 800_000 })));
    // An item that is larger than all of it waits alone.
    let mut queue = Queue::new(room);
    push(&mut queue, 1, 0, 2_000_000).unwrap();
    assert!(push(&mut queue, 2, 0, 1).is_err());
    // The bound of one flow holds too.
    let mut queue = Queue::new(Room { flow_waiting: Load { items: 3, bytes: 1 << 20 }, ..room });
    assert_eq!(taken(&mut queue, 1), 3);
}

#[test]
pub(crate) fn what_a_flow_has_under_way_leaves_room_to_others() {
    let mut queue = Queue::new(Room { under_way: Load { items: 8, bytes: 1 << 30 }, ..WIDE });
    for value in 0..40 {
        push(&mut queue, 1, value, 0).unwrap();
    }
    // Alone it is not held back: another bound, that of the shard, holds then.
    assert_eq!((0..6).filter_map(|_| queue.pop(0)).count(), 6);
    push(&mut queue, 2, 0, 0).unwrap();
    let next = queue.pop(1).unwrap();
    assert_eq!(next.flow, 2, "whoever has much under way waits");
    assert_eq!(queue.pop(1), None);
    assert!(!queue.is_empty());
    // As soon as there is room again it goes on, and is not owed what it was held back for.
    for _ in 0..3 {
        queue.done(1, Load::of(0), 0);
    }
    assert_eq!(queue.pop(2).unwrap().flow, 1);
    queue.done(1, Load::of(0), 0);
    for value in 0..10 {
        push(&mut queue, 2, value, 0).unwrap();
    }
    let served: Vec<u64> = (0..2).filter_map(|_| queue.pop(2)).map(|next| next.flow).collect();
    assert!(served.contains(&2), "{served:?}");
    // When the other one has sent nothing for long, the first one is alone again.
    let mut alone = Queue::new(Room { under_way: Load { items: 4, bytes: 1 << 30 }, ..WIDE });
    push(&mut alone, 2, 0, 0).unwrap();
    for value in 0..10 {
        push(&mut alone, 1, value, 0).unwrap();
    }
    assert_eq!((0..11).filter_map(|_| alone.pop(SHARED_US)).count(), 11);
    assert!(alone.is_shared(SHARED_US - 1) && !alone.is_shared(SHARED_US));
}

#[test]
fn a_notice_comes_behind_its_flow_and_there_is_always_room_for_it() {
    let mut queue = Queue::new(Room { waiting: Load { items: 1, bytes: 10 }, ..WIDE });
    push(&mut queue, 1, 10, 10).unwrap();
    queue.push_notice(1, 11);
    queue.push_notice(2, 20);
    assert_eq!(queue.waiting(), Load { items: 1, bytes: 10 });
    let mut served = BTreeMap::<u64, Vec<u64>>::new();
    while let Some(next) = serve(&mut queue) {
        served.entry(next.flow).or_default().push(next.value);
    }
    assert_eq!(served, BTreeMap::from([(1, vec![10, 11]), (2, vec![20])]));
    assert!(queue.is_empty() && queue.flows() == 0);
}

#[derive(Clone, Debug)]
struct Sent {
    flow: u64,
    bytes: usize,
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let one = (0_u64..4, prop_oneof![0_usize..100, 0_usize..200_000]).prop_map(|(flow, bytes)| Sent { flow, bytes });
    prop::collection::vec(one, 1..200)
}

proptest! {
    /// While two flows wait, what they are served differs from their weights by at most one item of each.
    #[test]
    fn shares_are_within_one_item_of_the_weights(
        sent in sent(),
        weights in prop::array::uniform4(1_u32..9),
        steps in 1_usize..200,
    ) {
        let mut queue = Queue::new(WIDE);
        let weight = |flow: u64| weights[usize::try_from(flow).unwrap()];
        let mut largest = [0_u64; 4];
        for (value, Sent { flow, bytes }) in (0..).zip(&sent) {
            queue.push(0, *flow, item(value, weight(*flow), *bytes)).unwrap();
            let largest = &mut largest[usize::try_from(*flow).unwrap()];
            *largest = request_cost(*bytes).max(*largest);
        }
        let mut served = [0_u64; 4];
        for _ in 0..steps {
            let Some(next) = serve(&mut queue) else { break };
            served[usize::try_from(next.flow).unwrap()] += next.cost;
            let waiting = |flow: u64| queue.waiting_of(flow).items > 0;
            for (one, other) in (0..4_u64).flat_map(|one| (0..one).map(move |other| (one, other))) {
                if !waiting(one) || !waiting(other) {
                    continue;
                }
                let of = |flow: u64, cost: [u64; 4]| {
                    i128::from(cost[usize::try_from(flow).unwrap()]) * 1_000 / i128::from(weight(flow))
                };
                let apart = (of(one, served) - of(other, served)).abs();
                let most = of(one, largest) + of(other, largest) + 2_000;
                prop_assert!(apart <= most, "flows {one} and {other}: {apart} of {most}, {served:?}");
            }
        }
    }

    /// A flow with one small item is served after at most one item of each other flow that waits, however many there
    /// are of these.
    #[test]
    fn nobody_waits_for_more_than_one_item_of_each_other_flow(sent in sent()) {
        let mut queue = Queue::new(WIDE);
        for (value, Sent { flow, bytes }) in (0..).zip(&sent) {
            queue.push(0, *flow, item(value, 1, *bytes)).unwrap();
        }
        let _ = serve(&mut queue);
        queue.push(0, 9, item(0, 1, 0)).unwrap();
        let mut ahead = BTreeMap::<u64, usize>::new();
        while let Some(next) = serve(&mut queue) {
            if next.flow == 9 {
                break;
            }
            *ahead.entry(next.flow).or_default() += 1;
        }
        prop_assert!(ahead.values().all(|count| *count <= 1), "{ahead:?}");
    }

    /// Within a flow the order is kept, everything is served once, and the books are empty in the end.
    #[test]
    fn nothing_is_lost_or_reordered(sent in sent(), popped in prop::collection::vec(0_usize..4, 1..200)) {
        let mut queue = Queue::new(WIDE);
        let (mut values, mut popped) = (0.., popped.into_iter());
        let (mut pushed, mut served) = (BTreeMap::<u64, Vec<u64>>::new(), BTreeMap::<u64, Vec<u64>>::new());
        let mut under_way = Vec::new();
        for Sent { flow, bytes } in &sent {
            let value = values.next().unwrap();
            queue.push(0, *flow, item(value, 1, *bytes)).unwrap();
            pushed.entry(*flow).or_default().push(value);
            for _ in 0..popped.next().unwrap_or_default() {
                if let Some(next) = queue.pop(0) {
                    served.entry(next.flow).or_default().push(next.value);
                    under_way.push(next);
                }
            }
        }
        while let Some(next) = queue.pop(0) {
            served.entry(next.flow).or_default().push(next.value);
            under_way.push(next);
        }
        prop_assert_eq!(pushed, served);
        prop_assert_eq!(queue.waiting(), Load::default());
        for next in under_way {
            queue.done(next.flow, next.load, 0);
        }
        queue.push(0, 9, item(0, 1, 0)).unwrap();
        prop_assert_eq!(queue.flows(), 1, "what owes nothing is forgotten");
    }
}

const MS: u64 = 1_000;

fn push_at(queue: &mut Queue, now_us: u64, flow: u64) -> Result<(), Full> {
    queue.push(now_us, flow, item(0, 1, 0)).map_err(|(full, _)| full)
}

/// A turn that leaves the last item of flow 1, the only one.
fn turn_but_one(queue: &mut Queue, now_us: u64) {
    while queue.waiting_of(1).items > 1 {
        let next = queue.pop(now_us).unwrap();
        queue.done(next.flow, next.load, 0);
    }
}

/// Turns every 20 ms of which each finds an item that has waited for longer than the 10 ms that are allowed, and leaves
/// another one.
#[test]
pub(crate) fn a_flow_that_stays_late_is_refused_until_it_is_not() {
    let mut queue = Queue::new(Room { wait_us: 10 * MS, ..WIDE });
    // A stall now and then is none of the flow's doing, however long.
    push_at(&mut queue, 0, 1).unwrap();
    push_at(&mut queue, 0, 1).unwrap();
    turn_but_one(&mut queue, 1_000 * MS);
    push_at(&mut queue, 2_500 * MS, 1).unwrap();
    push_at(&mut queue, 2_515 * MS, 1).unwrap();
    turn_but_one(&mut queue, 2_520 * MS);
    push_at(&mut queue, 2_530 * MS, 1).unwrap();
    push_at(&mut queue, 2_600 * MS, 1).unwrap();
    turn_but_one(&mut queue, 2_605 * MS);
    push_at(&mut queue, 2_606 * MS, 1).unwrap();
    // This turn is in time.
    turn_but_one(&mut queue, 2_607 * MS);

    let (mut refused, began) = (Vec::new(), 3_000 * MS);
    for round in 0..10 {
        let now_us = began + round * 20 * MS;
        for at_us in [now_us, now_us + 15 * MS] {
            let eased = queue.has_eased(at_us, 1);
            match push_at(&mut queue, at_us, 1) {
                Ok(()) => assert!(eased),
                Err(Full::Late(waited_us)) => {
                    assert!(waited_us > 10 * MS, "{waited_us}");
                    assert!(!eased, "it has little waiting, and is refused all the same");
                    refused.push(at_us);
                }
                full => panic!("{full:?}"),
            }
        }
        assert!(queue.has_eased(now_us + 15 * MS, 2), "another flow is not late");
        // The younger items of a turn do not make it a good one.
        turn_but_one(&mut queue, now_us + 20 * MS);
    }
    let late_since = began + 20 * MS;
    let first = refused.first().copied().expect("some were refused") - late_since;
    assert!((STANDING_US..STANDING_US + 20 * MS).contains(&first), "after {first} microseconds");
    assert_eq!(refused.len(), 7, "{refused:?}");
    push_at(&mut queue, began + 200 * MS, 2).expect("another flow is not refused for it");
}

/// Turns that take long and leave nothing: what waits has waited for the turn before, not for a queue.
#[test]
pub(crate) fn a_queue_that_every_turn_empties_is_not_standing() {
    let mut queue = Queue::new(Room { wait_us: 10 * MS, ..WIDE });
    for round in 0..50 {
        let now_us = round * 20 * MS;
        for at_us in [now_us, now_us + 15 * MS] {
            assert!(queue.has_eased(at_us, 1));
            push_at(&mut queue, at_us, 1).expect("nothing was left behind");
        }
        while let Some(next) = queue.pop(now_us + 20 * MS) {
            queue.done(next.flow, next.load, 0);
        }
    }
    // A queue that stands until something is refused, and then is emptied once.
    let (mut refused, began) = (0, 2_000 * MS);
    for round in 0..10 {
        let now_us = began + round * 20 * MS;
        for at_us in [now_us, now_us + 15 * MS] {
            refused += usize::from(push_at(&mut queue, at_us, 1).is_err());
        }
        turn_but_one(&mut queue, now_us + 20 * MS);
    }
    assert!(refused > 0);
    let now_us = began + 200 * MS;
    assert!(push_at(&mut queue, now_us, 1).is_err());
    while let Some(next) = queue.pop(now_us) {
        queue.done(next.flow, next.load, 0);
    }
    push_at(&mut queue, now_us + MS, 1).expect("nothing of it waits");
    push_at(&mut queue, now_us + 30 * MS, 1).expect("one turn that has taken all is enough");
}
