//! Chains of changes, each layout solved from the one before: after many changes a layout must be as good as one that
//! is made anew, and no change may move more than it has to.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use rejoin_proto::layout::MAX_OWNERS;
use rejoin_proto::{Layout, LayoutNode, LayoutPolicy, Name, NodeId, PartitionId, ZoneDemand};

use super::change::{compare, shares};
use super::solver::{Demand, Infeasible, solve};

/// Zones are of so many names.
const ZONES: u8 = 3;

/// What an operator changes. Nodes are picked among those that there are.
#[derive(Clone, Copy, Debug)]
enum Change {
    Join {
        zone: u8,
        capacity: u32,
    },
    Leave(usize),
    /// Another node comes in the place of one, in the same zone and with the same capacity.
    Replace(usize),
    /// Another capacity. With 0 the node is drained.
    Weigh(usize, u32),
    Move(usize, u8),
    Copies(u8),
}

fn changes() -> impl Strategy<Value = Change> {
    let (zone, capacity, pick) = (0..ZONES, 1..=5_u32, any::<usize>());
    prop_oneof![
        3 => (zone.clone(), capacity).prop_map(|(zone, capacity)| Change::Join { zone, capacity }),
        2 => pick.prop_map(Change::Leave),
        2 => pick.prop_map(Change::Replace),
        2 => (pick, 0..=5_u32).prop_map(|(pick, capacity)| Change::Weigh(pick, capacity)),
        1 => (pick, zone).prop_map(|(pick, zone)| Change::Move(pick, zone)),
        1 => (1..=3_u8).prop_map(Change::Copies),
    ]
}

/// A cluster at its beginning, and what is changed in it.
#[derive(Clone, Debug)]
struct Chain {
    nodes: usize,
    most: usize,
    zoned: bool,
    partitions: u32,
    changes: Vec<Change>,
}

/// Chains of clusters that have so many nodes at first, and never more than `most`.
fn chains(nodes: core::ops::RangeInclusive<usize>, most: usize, bits: u32) -> impl Strategy<Value = Chain> {
    let changes = proptest::collection::vec(changes(), 5..=20);
    (nodes, any::<bool>(), changes).prop_map(move |(nodes, zoned, changes)| Chain {
        nodes,
        most,
        zoned,
        partitions: 1 << bits,
        changes,
    })
}

fn node(number: usize, zone: u8, capacity: u32) -> LayoutNode {
    let name = |text| Name::new(text).expect("a good name");
    let (name, zone) = (name(format!("n{number}")), name(format!("z{zone}")));
    let (id, address) = (NodeId::from_name(&name), ([127, 0, 0, 1], 7000 + number as u16).into());
    LayoutNode { id, name, zone, capacity, address }
}

/// The cluster as it is to be.
#[derive(Clone, Debug)]
struct Wanted {
    nodes: Vec<LayoutNode>,
    policy: LayoutPolicy,
    /// The nodes that there were so far.
    count: usize,
}

impl Wanted {
    fn first(chain: &Chain) -> Self {
        let nodes = (0..chain.nodes).map(|at| node(at, at as u8 % ZONES, 1)).collect();
        let zones = if chain.zoned { LayoutPolicy::default().zones } else { ZoneDemand::Waived };
        Self { nodes, policy: LayoutPolicy { n: chain.nodes.min(3) as u8, zones }, count: chain.nodes }
    }

    fn newcomer(&mut self, zone: Name, capacity: u32) -> LayoutNode {
        self.count += 1;
        LayoutNode { zone, ..node(self.count - 1, 0, capacity) }
    }

    /// The same after a change. One that needs a node has none if there is only one left.
    fn with(&self, change: Change, most: usize) -> Self {
        let mut wanted = self.clone();
        let zone = |zone: u8| node(0, zone, 1).zone;
        let at = |pick: usize| pick % self.nodes.len();
        match change {
            Change::Join { zone: of, capacity } if self.nodes.len() < most => {
                let newcomer = wanted.newcomer(zone(of), capacity);
                wanted.nodes.push(newcomer);
            }
            Change::Leave(pick) if self.nodes.len() > 1 => drop(wanted.nodes.remove(at(pick))),
            Change::Join { .. } | Change::Leave(_) => {}
            Change::Replace(pick) => {
                let left = &self.nodes[at(pick)];
                wanted.nodes[at(pick)] = wanted.newcomer(left.zone.clone(), left.capacity);
            }
            Change::Weigh(pick, capacity) => wanted.nodes[at(pick)].capacity = capacity,
            Change::Move(pick, to) => wanted.nodes[at(pick)].zone = zone(to),
            Change::Copies(n) => wanted.policy.n = n,
        }
        wanted
    }

    fn solved(&self, partitions: u32, before: Option<&Layout>) -> Result<Layout, Infeasible> {
        let demand = Demand { nodes: self.nodes.clone(), partitions, before, policy: self.policy };
        solve(demand).map(|solution| solution.layout)
    }
}

/// Goes through a chain, and shows each layout with the one before. Changes that are refused are left out.
fn follow(chain: &Chain, mut look: impl FnMut(&Wanted, &Layout, &Layout)) {
    let mut wanted = Wanted::first(chain);
    let mut layout = wanted.solved(chain.partitions, None).expect("as many nodes as copies");
    for change in &chain.changes {
        let next = wanted.with(*change, chain.most);
        match next.solved(chain.partitions, Some(&layout)) {
            Ok(after) => {
                look(&next, &layout, &after);
                (wanted, layout) = (next, after);
            }
            Err(refused) => {
                let usable = next.nodes.iter().filter(|node| node.capacity > 0).count();
                assert!(matches!(refused, Infeasible::Nodes { .. }), "{refused}");
                assert!(usable < usize::from(next.policy.n), "{usable} nodes for {:?}", next.policy);
            }
        }
    }
}

/// How many zones these nodes of a layout are in.
fn zones(layout: &Layout, nodes: impl IntoIterator<Item = usize>) -> usize {
    nodes.into_iter().map(|at| &layout.nodes[at].zone).collect::<BTreeSet<_>>().len()
}

fn usable(layout: &Layout) -> Vec<usize> {
    (0..layout.nodes.len()).filter(|at| layout.nodes[*at].capacity > 0).collect()
}

/// The zones that so many copies are to be in.
fn spread(layout: &Layout, copies: usize) -> usize {
    let all = if layout.policy.zones == ZoneDemand::Waived { 1 } else { zones(layout, usable(layout)) };
    copies.min(all)
}

/// What holds for every layout: enough different owners with capacity, in as many zones as there are, for each n.
fn assert_sound(before: &Layout, after: &Layout) {
    assert_eq!((after.version, after.partitions()), (before.version + 1, before.partitions()));
    after.check().expect("a sound layout");
    let longest = usable(after).len().min(MAX_OWNERS);
    for list in &after.owners {
        let list: Vec<usize> = list.iter().map(|at| usize::from(*at)).collect();
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), longest, "{list:?}");
        assert!(list.iter().all(|at| after.nodes[*at].capacity > 0), "{list:?}");
        for copies in 1..=longest {
            assert!(zones(after, list[..copies].iter().copied()) >= spread(after, copies), "{copies} of {list:?}");
        }
    }
}

/// The fullness of the node that got each copy, when it got it, the fullest first. Smaller is better balanced.
fn balance(layout: &Layout, loads: &[u32]) -> Vec<u64> {
    // 60 is a multiple of every capacity.
    let of = |(load, node): (&u32, &LayoutNode)| {
        let capacity = u64::from(node.capacity);
        (1..=u64::from(*load)).map(move |at| at * 60 / capacity).collect::<Vec<u64>>()
    };
    let mut all: Vec<u64> = loads.iter().zip(&layout.nodes).flat_map(of).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all
}

/// The fewest moves for each possible distribution of copies, by trying all.
fn all_ways(before: &Layout, after: &Layout) -> BTreeMap<Vec<u32>, u32> {
    let (n, count) = (after.policy.n, after.nodes.len());
    let all = (0..1_u32 << count).filter(|set| set.count_ones() == u32::from(n));
    let members = all.map(|set| (0..count).filter(|at| set >> at & 1 == 1).collect::<Vec<usize>>());
    let allowed = |set: &Vec<usize>| {
        set.iter().all(|at| after.nodes[*at].capacity > 0)
            && zones(after, set.iter().copied()) >= spread(after, usize::from(n))
    };
    let sets: Vec<Vec<usize>> = members.filter(allowed).collect();
    let mut ways = BTreeMap::from([(alloc::vec![0; count], 0)]);
    for partition in (0..before.partitions()).map(|at| PartitionId(at as u16)) {
        let had: BTreeSet<NodeId> = before.owners(partition, n).map(|node| node.id).collect();
        let moves = |set: &Vec<usize>| set.iter().filter(|at| !had.contains(&after.nodes[**at].id)).count() as u32;
        let mut next = BTreeMap::new();
        for (loads, so_far) in &ways {
            for set in &sets {
                let mut loads: Vec<u32> = loads.clone();
                set.iter().for_each(|at| loads[*at] += 1);
                let least = next.entry(loads).or_insert(u32::MAX);
                *least = (so_far + moves(set)).min(*least);
            }
        }
        ways = next;
    }
    ways
}

/// The outcome does not depend on chance: a chain that fails does so in every run.
fn each(cases: u32, chains: impl Strategy<Value = Chain>, judge: impl Fn(&Chain)) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config { cases, failure_persistence: None, ..Config::default() }, rng);
    let judged = runner.run(&chains, |chain| {
        judge(&chain);
        Ok(())
    });
    if let Err(failed) = judged {
        panic!("{failed}");
    }
}

#[test]
fn each_layout_of_a_chain_of_small_rings_is_as_good_as_the_best_of_all() {
    each(64, chains(1..=5, 5, 2), |chain| {
        follow(chain, |_, before, after| {
            assert_sound(before, after);
            let (n, ways) = (after.policy.n, all_ways(before, after));
            let loads = shares(after, n);
            let best = ways.keys().map(|loads| balance(after, loads)).min();
            assert_eq!(Some(balance(after, &loads)), best, "the balance of {loads:?}");
            let change = compare(before, after, n).expect("comparable");
            assert_eq!(ways.get(&loads), Some(&change.moved()), "moves with the shares {loads:?}");
            assert!(change.moved() >= change.least_moved());
        });
    });
}

#[test]
fn a_chain_of_changes_ends_as_balanced_as_a_layout_that_is_made_anew() {
    let moves = [core::cell::Cell::new((0, 0)), core::cell::Cell::new((0, 0))];
    each(48, chains(6..=12, 16, 6), |chain| {
        follow(chain, |wanted, before, after| {
            assert_sound(before, after);
            let n = after.policy.n;
            let anew = wanted.solved(chain.partitions, None).expect("it was solved");
            assert_eq!(balance(after, &shares(after, n)), balance(&anew, &shares(&anew, n)));
            let change = compare(before, after, n).expect("comparable");
            let sum = &moves[usize::from(chain.zoned)];
            sum.set((sum.get().0 + change.moved(), sum.get().1 + change.least_moved()));
            let again = wanted.solved(chain.partitions, Some(after)).expect("it was solved");
            assert_eq!(compare(after, &again, n).expect("comparable").moved(), 0, "nothing is changed");
        });
    });
    // The lower bound knows of no zones, and not that the copies of a partition are on different nodes.
    for (sum, percent) in moves.iter().zip([105, 125]) {
        let (moved, least) = sum.get();
        assert!(least > 1_000 && moved * 100 <= least * percent, "{moved} copies are moved, {least} at least");
    }
}
