//! Changes of layouts with real rings and real shards: old plans that come late, administrators that race or vanish,
//! nodes of which each sees another step of a change, and other copies of a bucket.

use std::collections::BTreeSet;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use rejoin_core::ring::{RingCommand, RingEvent};
use rejoin_proto::catalog::BucketProps;
use rejoin_proto::client::{PutOutcome, Reply};
use rejoin_proto::{ErrorCode, RingMessage};

use crate::support::rings::Rings;
use crate::support::{get, node, object_id, put};

/// A bucket whose quorums meet, without fallbacks.
fn strict() -> BucketProps {
    BucketProps { sloppy: false, ..BucketProps::default() }
}

/// Writes that were acknowledged, each to a key of its own, and reads that must show them.
#[derive(Default)]
struct Writes {
    asked: u64,
    acknowledged: Vec<u64>,
    refused: u32,
    read: u32,
    unread: u32,
}

impl Writes {
    /// Asks a node to write. Some messages of the write are delivered before that many messages of rings.
    fn write(&mut self, rings: &mut Rings, at: usize, (before, between): (usize, usize)) {
        self.asked += 1;
        let key = format!("k{}", self.asked);
        let number = rings.cluster.ask_put(at, put(&key, &key, u128::from(self.asked)));
        for _ in 0..before {
            rings.cluster.deliver_one(|_, _, _| true);
        }
        for _ in 0..between {
            rings.deliver_ring(0);
        }
        rings.cluster.deliver();
        match rings.cluster.replies.remove(&number) {
            Some(Reply::Put(reply)) if reply.outcome == PutOutcome::Stored => self.acknowledged.push(self.asked),
            _ => self.refused += 1,
        }
    }

    /// A read of what was acknowledged shows it, or is refused.
    fn read(&mut self, rings: &mut Rings, at: usize, key: u64) {
        let key = format!("k{key}");
        let number = rings.cluster.ask_get(at, get(&key));
        rings.cluster.deliver();
        match rings.cluster.replies.remove(&number) {
            Some(Reply::Get(reply)) => {
                assert_eq!(reply.value.as_deref(), Some(key.as_bytes()), "node {at} reads {key}");
                self.read += 1;
            }
            _ => self.unread += 1,
        }
    }

    /// Every node reads everything, and nothing of it is anywhere but at its owners.
    fn check(&mut self, rings: &mut Rings, nodes: usize) {
        for key in self.acknowledged.clone() {
            (0..nodes).for_each(|at| self.read(rings, at, key));
        }
        (0..40).for_each(|_| rings.pass(100));
        for key in &self.acknowledged {
            let key = format!("k{key}");
            let (layout, id) = (rings.cluster.view.layout(), object_id(&key));
            let n = layout.copies_of(id.bucket).map_or(3, |copies| copies.n);
            let owners: BTreeSet<_> = layout.owners(layout.partition(&id), n).map(|owner| owner.id).collect();
            for at in 0..nodes {
                let has = !rings.cluster.stored(at, &key).is_empty();
                assert_eq!(has, owners.contains(&node(at)), "{key} at node {at}");
            }
        }
    }
}

/// What DynamoDB's outage of October 2025 began with: a plan that was delayed comes when a newer one is in force and
/// what it names was cleaned up.
#[test]
fn a_delayed_old_plan_changes_nothing_after_a_newer_one_was_retired() {
    let (mut rings, mut writes) = (Rings::new(3, 6, strict()), Writes::default());
    (0..6).for_each(|at| writes.write(&mut rings, at % 3, (9, 0)));
    rings.stage(0, 3, Some(1));
    let old = rings.plan(0).expect("a plan");
    rings.command(0, RingCommand::Apply(old)).expect("applied");
    // Each message that told of it is delivered, and once more when it is over.
    let delayed: Vec<(usize, usize, RingMessage)> = rings.wire.iter().cloned().collect();
    assert!(delayed.iter().any(|(.., message)| matches!(message, RingMessage::Layouts(_))));
    rings.settle();
    rings.replace(1, 0, 4);
    rings.settle();
    let newest = rings.replace(2, 1, 5);
    rings.settle();
    (0..6).for_each(|at| writes.write(&mut rings, at, (9, 0)));
    let before: Vec<u64> = (0..6).map(|at| rings.ring(at).digest()).collect();
    for (from, to, message) in delayed {
        rings.handle(to, RingEvent::Peer(node(from), message));
    }
    // The administrator's client tries again, too.
    let refused = rings.command(0, RingCommand::Apply(old)).expect_err("it is over");
    assert_eq!(refused.code, ErrorCode::BadRequest, "{}", refused.message);
    (0..20).for_each(|_| {
        rings.pass(200);
        rings.deliver();
    });
    assert_eq!((0..6).map(|at| rings.ring(at).digest()).collect::<Vec<_>>(), before);
    assert!((0..6).all(|at| rings.views[at].layout_name() == newest && rings.views[at].layouts().count() == 1));
    writes.check(&mut rings, 6);
    assert_eq!((writes.acknowledged.len(), writes.unread), (12, 0));
}

/// The same with a node that has taken the old plan, and was away when the others made newer ones.
#[test]
fn a_node_that_was_away_with_a_plan_of_its_own_takes_that_of_the_others() {
    let (mut rings, mut writes) = (Rings::new(4, 6, strict()), Writes::default());
    (0..6).for_each(|at| writes.write(&mut rings, at % 4, (9, 0)));
    rings.cut(3);
    rings.stage(3, 4, Some(5));
    let alone = rings.apply(3);
    (0..20).for_each(|_| rings.pass(200));
    // The others do not wait for it.
    for (old, new) in [(0, 4), (1, 5)] {
        rings.replace(2, old, new);
        rings.command(2, RingCommand::Skip(crate::support::name("n3"))).expect("it is away");
        for _ in 0..100 {
            rings.deliver();
            rings.pass(50);
        }
        assert_eq!(rings.ring(2).live.len(), 1, "{:?}", rejoin_core::ring::Awaited::of(rings.ring(2)));
    }
    (0..6).filter(|at| *at != 3).for_each(|at| writes.write(&mut rings, at, (9, 0)));
    let newest = rings.ring(2).newest().name();
    assert!(newest > alone && rings.ring(3).newest().name() == alone);
    rings.heal(3);
    rings.settle();
    assert!((0..6).all(|at| rings.ring(at).newest().name() == newest));
    writes.check(&mut rings, 6);
    assert_eq!((writes.acknowledged.len(), writes.unread), (11, 0));
}

#[test]
fn of_two_administrators_who_race_one_wins_on_every_node_and_nothing_of_the_other_is_lost() {
    let mut winners = BTreeSet::new();
    for seed in 0..12 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut pick = move |count: usize| (rng.next_u64() % count.max(1) as u64) as usize;
        let (mut rings, mut writes) = (Rings::new(4, 7, strict()), Writes::default());
        (0..4).for_each(|at| writes.write(&mut rings, at, (9, 0)));
        // Which of two layouts wins follows from their hashes.
        let (one, other) = [(4, 5), (4, 6), (5, 4), (5, 6), (6, 4), (6, 5)][seed as usize % 6];
        let plans = [rings.replace(0, 1, one), rings.replace(2, 3, other)];
        assert_eq!(plans[0].version, plans[1].version, "neither has heard of the other");
        while !rings.is_settled() {
            let is_delivered = rings.deliver_some(&mut pick);
            if !is_delivered || pick(4) == 0 {
                rings.pass(50);
            }
            if pick(6) == 0 && writes.asked < 60 {
                writes.write(&mut rings, pick(7), (pick(12), pick(3)));
            }
            if pick(6) == 0 {
                let key = writes.acknowledged[pick(writes.acknowledged.len())];
                writes.read(&mut rings, pick(7), key);
            }
        }
        let won = *plans.iter().max().expect("two");
        assert!((0..7).all(|at| rings.ring(at).newest().name() == won));
        winners.insert(plans[0] == won);
        let unread = writes.unread;
        writes.check(&mut rings, 7);
        assert_eq!(writes.unread, unread, "all is read in the end");
    }
    assert_eq!(winners.len(), 2, "one or the other");
}

#[test]
fn what_was_staged_stays_when_the_administrators_client_is_gone_before_it_applies() {
    let (mut rings, mut writes) = (Rings::new(3, 5, strict()), Writes::default());
    (0..6).for_each(|at| writes.write(&mut rings, at % 3, (9, 0)));
    let before = rings.views[1].layout_name();
    rings.stage(0, 3, Some(1));
    rings.stage(0, 4, Some(2));
    // The client has seen the plan, and nobody hears of it again.
    let shown = rings.plan(0).expect("a plan");
    rings.restart(0);
    rings.settle();
    (0..40).for_each(|_| rings.pass(200));
    rings.settle();
    for at in 0..5 {
        assert_eq!(rings.views[at].layout_name(), before, "nothing is applied");
        assert_eq!(rings.plan(at), Some(shown), "node {at} shows the same plan");
        assert_eq!(rings.ring(at).staged().count(), 2);
    }
    assert!(rings.ring(1).notes.past.is_empty());
    // Another administrator takes it up, at another node.
    assert_eq!(rings.command(4, RingCommand::Apply(shown)).expect("applied"), shown);
    rings.settle();
    assert!((0..5).all(|at| rings.views[at].layout_name() == shown && rings.plan(at).is_none()));
    writes.check(&mut rings, 5);
    assert_eq!((writes.acknowledged.len(), writes.unread), (6, 0));
}

/// Scenario 9: the reader, the writer and an owner that is none any more each see another step of a change.
#[test]
pub(crate) fn a_read_shows_every_acknowledged_write_whatever_steps_its_reader_writer_and_ex_owner_see() {
    let (mut all_apart, mut reads, mut refused) = (0, 0, 0);
    for seed in 0..40 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1000 + seed);
        let mut pick = move |count: usize| (rng.next_u64() % count.max(1) as u64) as usize;
        let (mut rings, mut writes) = (Rings::new(3, 5, strict()), Writes::default());
        let mut writers = Vec::new();
        (0..4).for_each(|at| writes.write(&mut rings, at % 3, (9, 0)));
        writers.resize(writes.asked as usize + 1, 0);
        let mut changes = vec![(0, 3), (1, 4), (3, 0)];
        changes.rotate_left(seed as usize % 2);
        for _ in 0..300 {
            match pick(12) {
                0..=2 => {
                    rings.deliver_some(&mut pick);
                }
                5 => rings.pass(50),
                6..=8 if writes.asked < 80 => {
                    let at = pick(5);
                    writes.write(&mut rings, at, (pick(12), pick(3)));
                    writers.push(at);
                }
                11 if rings.ring(2).live.len() < 3 && pick(3) == 0 => {
                    if let Some((old, new)) = changes.pop()
                        && rings.ring(2).newest().node(node(old)).is_some()
                    {
                        rings.replace(2, old, new);
                    }
                }
                _ => {
                    let key = writes.acknowledged[pick(writes.acknowledged.len())];
                    let reader = pick(5);
                    let newest = rings.ring(2).newest().clone();
                    let step = |at: usize| (rings.views[at].layout_name(), rings.views[at].layouts().reads_name());
                    let seen = [reader, writers[key as usize]].map(step);
                    let ex_owners = (0..5).filter(|at| newest.node(node(*at)).is_none());
                    all_apart += ex_owners.filter(|at| seen[0] != seen[1] && !seen.contains(&step(*at))).count();
                    writes.read(&mut rings, reader, key);
                }
            }
        }
        rings.settle();
        let unread = writes.unread;
        writes.check(&mut rings, 5);
        assert_eq!(writes.unread, unread, "all is read in the end");
        (reads, refused) = (reads + writes.read, refused + writes.refused);
    }
    println!("{reads} reads, {all_apart} of them with three nodes in three steps; {refused} writes refused");
    assert!(reads > 2_000 && all_apart > 10, "{reads} reads, {all_apart} with all apart");
}

/// What came of a story of copies that change.
#[derive(Default)]
struct Told {
    reads: u32,
    /// Reads of which reader and writer saw different steps.
    apart: usize,
    /// Writes that were acknowledged while an owner was away.
    without_an_owner: usize,
}

/// Gives the bucket of five nodes other copies, one change after the other or before the last one has ended, while it
/// is written and read. A node at a time is away for a while. Every acknowledged write is read, or the read is refused;
/// in a bucket that turns strict, once all nodes read by that.
fn tell(seed: u64, (first, sloppy): (u8, bool), changes: &[(u8, bool)]) -> Told {
    const NODES: usize = 5;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(2000 + seed);
    let mut pick = move |count: usize| (rng.next_u64() % count.max(1) as u64) as usize;
    let props = BucketProps { n: first, sloppy, ..BucketProps::default() };
    let (mut rings, mut writes, mut told) = (Rings::new(NODES, NODES, props), Writes::default(), Told::default());
    (0..4).for_each(|at| writes.write(&mut rings, at, (9, 0)));
    let mut writers: Vec<usize> = (0..=writes.asked as usize).map(|key| key.saturating_sub(1)).collect();
    let (mut due, mut away): (Vec<_>, _) = (changes.iter().rev().copied().collect(), None);
    for _ in 0..400 {
        match pick(16) {
            0..=3 => {
                rings.deliver_some(&mut pick);
            }
            4..=5 => rings.pass(50),
            6..=8 if writes.asked < 80 => {
                let (at, before) = (pick(NODES), writes.acknowledged.len());
                writes.write(&mut rings, at, (pick(12), pick(3)));
                writers.push(at);
                told.without_an_owner += usize::from(away.is_some()) * (writes.acknowledged.len() - before);
            }
            9 => match away.take() {
                Some(at) => rings.heal(at),
                None => {
                    let at = pick(NODES);
                    rings.cut(at);
                    away = Some(at);
                }
            },
            10 if rings.ring(2).live.len() < 3 && pick(3) == 0 => {
                if let Some((n, sloppy)) = due.pop() {
                    rings.set_copies(2, n, sloppy);
                }
            }
            _ => {
                let key = writes.acknowledged[pick(writes.acknowledged.len())];
                let reader = pick(NODES);
                let step = |at: usize| (rings.views[at].layout_name(), rings.views[at].layouts().reads_name());
                let seen = [reader, writers[key as usize]].map(step);
                let is_apart = seen[0] != seen[1];
                let is_strict = |at: usize| {
                    let layouts = rings.views[at].layouts();
                    let copies = layouts.newest().copies_of(object_id("").bucket);
                    layouts.count() == 1 && copies.is_some_and(|copies| !copies.sloppy)
                };
                if !sloppy || (0..NODES).any(is_strict) {
                    told.apart += usize::from(is_apart);
                    writes.read(&mut rings, reader, key);
                }
            }
        }
    }
    away.into_iter().for_each(|at| rings.heal(at));
    rings.settle();
    for (n, sloppy) in due.into_iter().rev() {
        rings.set_copies(2, n, sloppy);
        rings.settle();
    }
    let unread = writes.unread;
    writes.check(&mut rings, NODES);
    assert_eq!(writes.unread, unread, "all is read in the end");
    Told { reads: writes.read, ..told }
}

fn tell_all(first: (u8, bool), changes: &[(u8, bool)]) -> Told {
    (0..20).map(|seed| tell(seed, first, changes)).fold(Told::default(), |all, told| Told {
        reads: all.reads + told.reads,
        apart: all.apart + told.apart,
        without_an_owner: all.without_an_owner + told.without_an_owner,
    })
}

/// Scenario 9: n is changed from 1 to 3, from 3 to 2 and from 3 to 5, and from each to the next in one go.
#[test]
fn a_read_shows_every_acknowledged_write_while_the_copies_of_its_bucket_change() {
    let strict = |n: u8| (n, false);
    for copies in [&[1, 3][..], &[3, 2], &[3, 5], &[1, 3, 2, 5, 1, 4]] {
        let changes: Vec<_> = copies[1..].iter().map(|n| strict(*n)).collect();
        let told = tell_all(strict(copies[0]), &changes);
        println!("{copies:?}: {} reads, {} of them apart from the writer", told.reads, told.apart);
        assert!(told.reads > 2_000 && told.apart > 50, "{copies:?}: {} reads, {} apart", told.reads, told.apart);
        assert!(told.without_an_owner > 50, "{copies:?}: {} writes", told.without_an_owner);
    }
}

/// Scenario 9: a bucket turns strict while fallbacks hold what its owners lack.
#[test]
fn a_read_of_a_bucket_that_has_turned_strict_shows_what_fallbacks_have_acknowledged() {
    for changes in [&[(3, false)][..], &[(2, false)], &[(5, true), (3, false)]] {
        let told = tell_all((3, true), changes);
        println!("{changes:?}: {} reads", told.reads);
        assert!(told.reads > 1_000 && told.without_an_owner > 50, "{changes:?}: {} reads", told.reads);
    }
}
