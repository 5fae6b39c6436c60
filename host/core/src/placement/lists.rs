//! Owner lists from quotas: first the owners of a bucket with the default number of copies, then their order, then the
//! owners behind them. Nodes and zones are indices here.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::fill::Fill;
use super::quota::quotas;

/// The index of a node that is not there any more.
pub(super) const GONE: u16 = u16::MAX;

/// What the lists are made for.
#[derive(Clone, Debug)]
pub(super) struct Ring<'a> {
    pub capacities: &'a [u32],
    pub zone_of: &'a [u16],
    /// The zones of which a list has as many as possible. Without, one.
    pub zones: usize,
    pub partitions: u32,
    /// The copies of a bucket for which lists are balanced first.
    pub n: usize,
    /// How long the lists are.
    pub longest: usize,
    /// The lists before, with [`GONE`] in the places of nodes that are gone. Empty if there were none.
    pub before: &'a [Vec<u16>],
}

impl Ring<'_> {
    fn spread(&self, copies: usize) -> usize {
        copies.min(self.zones)
    }

    fn loads(&self, lists: &[Vec<u16>], copies: usize) -> Vec<u32> {
        let mut loads = alloc::vec![0; self.capacities.len()];
        lists.iter().flat_map(|list| list.iter().take(copies)).for_each(|&node| loads[usize::from(node)] += 1);
        loads
    }

    /// The first `copies` of each list before, without those on nodes that are gone. Owners behind them do not move up:
    /// they had no copy for that n.
    fn had(&self, copies: usize) -> Vec<Vec<u16>> {
        let first = |list: &Vec<u16>| list.iter().take(copies).copied().filter(|node| *node != GONE).collect();
        self.before.iter().map(first).collect()
    }

    /// The owner lists.
    pub(super) fn lists(&self) -> Vec<Vec<u16>> {
        let set = self.owners();
        let mut lists = self.order(set);
        if self.before.is_empty() {
            self.vary_seconds(&mut lists);
        }
        for copies in self.n + 1..=self.longest {
            lists = self.extend(lists, copies);
        }
        lists
    }

    /// The first `n` owners of each partition, in no order.
    fn owners(&self) -> Vec<Vec<u16>> {
        let had = self.had(self.n);
        let none = alloc::vec![0; self.capacities.len()];
        let shape = (self.partitions, self.n, self.spread(self.n));
        let room = quotas(self.capacities, self.zone_of, shape, &self.loads(&had, self.n), &none);
        let mut fill = Fill {
            zone_of: self.zone_of,
            spread: self.spread(self.n),
            want: self.n,
            sets: alloc::vec![Vec::new(); self.partitions as usize],
            fixed: 0,
            allowed: None,
            before: &had,
            room,
            load: none,
        };
        fill.keep();
        // Where zones bind, every path to a node with room may meet a partition twice. Then some nodes take more than
        // their share.
        let mut step = 1;
        while fill.run() > 0 {
            fill.widen(step, |node| if self.capacities[node] > 0 { self.partitions } else { 0 });
            step *= 2;
        }
        fill.sets
    }

    /// Orders each set so that every prefix is balanced and in as many zones as it can be, from the last place to the
    /// first.
    fn order(&self, sets: Vec<Vec<u16>>) -> Vec<Vec<u16>> {
        let (all, had) = (self.loads(&sets, self.n), self.before);
        let (mut prefix, mut tails) = (sets, alloc::vec![Vec::<u16>::new(); self.partitions as usize]);
        for copies in (1..self.n).rev() {
            // At most 65 536 partitions and five copies: the product fits.
            let share = |load: &u32| load * copies as u32 / self.n as u32;
            let had: Vec<Vec<u16>> = if had.is_empty() { Vec::new() } else { self.had(copies) };
            let mut fill = Fill {
                zone_of: self.zone_of,
                spread: self.spread(copies),
                want: copies,
                sets: alloc::vec![Vec::new(); self.partitions as usize],
                fixed: 0,
                allowed: Some(&prefix),
                before: &had,
                room: all.iter().map(share).collect(),
                load: alloc::vec![0; self.capacities.len()],
            };
            fill.keep();
            // The share of a node is rounded down, then up. Zones of unequal size may need more.
            let mut step = 1;
            while fill.run() > 0 {
                fill.widen(step, |node| all[node]);
                step *= 2;
            }
            let sets = fill.sets;
            for ((tail, old), new) in tails.iter_mut().zip(&prefix).zip(&sets) {
                tail.extend(old.iter().filter(|node| !new.contains(node)));
            }
            prefix = sets;
        }
        for (list, tail) in prefix.iter_mut().zip(tails) {
            list.extend(tail.into_iter().rev());
        }
        prefix
    }

    /// Has different nodes follow a first owner, so that the load of one that fails falls on many. Two lists that have
    /// their second and third owners the other way round exchange them, which changes no share. Only for a first
    /// layout: buckets with two copies would move theirs.
    fn vary_seconds(&self, lists: &mut [Vec<u16>]) {
        if self.n < 3 {
            return;
        }
        let mut follows: BTreeMap<(u16, u16), i64> = BTreeMap::new();
        let mut turned: BTreeMap<(u16, u16), Vec<usize>> = BTreeMap::new();
        for (at, list) in lists.iter().enumerate() {
            *follows.entry((list[0], list[1])).or_default() += 1;
            turned.entry((list[1], list[2])).or_default().push(at);
        }
        let apart = |one: u16, other: u16| {
            self.spread(2) < 2 || self.zone_of[usize::from(one)] != self.zone_of[usize::from(other)]
        };
        for at in 0..lists.len() {
            let [first, second, third] = [0, 1, 2].map(|place| lists[at][place]);
            let others = turned.get(&(third, second)).map_or(&[][..], Vec::as_slice);
            let count = |pair| follows.get(&pair).copied().unwrap_or_default();
            // Squares of the counts: how much smaller their sum becomes.
            let gain = |other: &usize| {
                let other = lists[*other][0];
                let (more, less) = ([(first, third), (other, second)], [(first, second), (other, third)]);
                less.map(count).iter().sum::<i64>() - more.map(count).iter().sum::<i64>() - 2
            };
            let fits = |other: &&usize| apart(first, third) && apart(lists[**other][0], second);
            let Some(&other) = others.iter().filter(fits).max_by_key(|other| gain(other)) else { continue };
            if gain(&other) <= 0 || lists[other][0] == first {
                continue;
            }
            for (list, out, into) in [(at, second, third), (other, third, second)] {
                let owner = lists[list][0];
                *follows.entry((owner, out)).or_default() -= 1;
                *follows.entry((owner, into)).or_default() += 1;
                lists[list].swap(1, 2);
                if let Some(places) = turned.get_mut(&(out, into)) {
                    places.retain(|place| *place != list);
                }
                turned.entry((into, out)).or_default().push(list);
            }
        }
    }

    /// Adds one owner to each list.
    fn extend(&self, lists: Vec<Vec<u16>>, copies: usize) -> Vec<Vec<u16>> {
        let had = self.had(copies);
        let load = self.loads(&lists, copies);
        let shape = (self.partitions, copies, self.spread(copies));
        let room = quotas(self.capacities, self.zone_of, shape, &self.loads(&had, copies), &load);
        let mut fill = Fill {
            zone_of: self.zone_of,
            spread: self.spread(copies),
            want: copies,
            sets: lists,
            fixed: copies - 1,
            allowed: None,
            before: &had,
            room,
            load,
        };
        fill.keep();
        let mut step = 1;
        while fill.run() > 0 {
            fill.widen(step, |node| if self.capacities[node] > 0 { self.partitions } else { 0 });
            step *= 2;
        }
        fill.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn a_copy_is_found_for_each_partition_if_the_paths_to_it_meet_one_twice() {
        let before = [
            [1, 4, 2, 3, 0],
            [3, 1, 0, 4, 2],
            [0, 3, 1, 2, 4],
            [1, 4, 2, 0, 3],
            [3, 0, 1, 4, 2],
            [2, 4, 0, 1, 3],
            [4, 2, 3, 0, 1],
            [0, 3, 2, 1, 4],
        ]
        .map(Vec::from);
        let (capacities, zone_of) = ([1; 5], [1, 1, 0, 0, 0]);
        let ring = Ring {
            capacities: &capacities,
            zone_of: &zone_of,
            zones: 2,
            partitions: 8,
            n: 3,
            longest: 5,
            before: &before,
        };
        for list in ring.lists() {
            assert_eq!((list.iter().collect::<BTreeSet<_>>().len(), zones(&ring, &list[..2])), (5, 2), "{list:?}");
        }
    }

    fn zones(ring: &Ring<'_>, owners: &[u16]) -> usize {
        owners.iter().map(|&at| ring.zone_of[usize::from(at)]).collect::<BTreeSet<_>>().len()
    }

    /// The fullness of the node that got each copy, when it got it, the fullest first. Smaller is better balanced.
    fn balance(ring: &Ring<'_>, loads: &[u32]) -> Vec<u64> {
        let of = |(&load, &capacity): (&u32, &u32)| {
            (1..=u64::from(load)).map(move |at| at * 60 / u64::from(capacity)).collect::<Vec<u64>>()
        };
        let mut all: Vec<u64> = loads.iter().zip(ring.capacities).flat_map(of).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }

    fn moved(ring: &Ring<'_>, lists: &[Vec<u16>]) -> usize {
        let of = |(before, after): (&Vec<u16>, &Vec<u16>)| {
            after[..ring.n].iter().filter(|node| !before.iter().take(ring.n).any(|had| had == *node)).count()
        };
        ring.before.iter().zip(lists).map(of).sum()
    }

    /// The fewest moves for each possible distribution of copies, by trying all.
    fn all_ways(ring: &Ring<'_>) -> BTreeMap<Vec<u32>, usize> {
        let count = ring.capacities.len();
        let sets = (0..1_u32 << count).filter(|set| set.count_ones() as usize == ring.n);
        let sets = sets.map(|set| (0..count as u16).filter(|at| set >> at & 1 == 1).collect::<Vec<u16>>());
        let sets: Vec<Vec<u16>> = sets.filter(|set| zones(ring, set) >= ring.spread(ring.n)).collect();
        let mut ways = BTreeMap::from([(alloc::vec![0; count], 0)]);
        for partition in 0..ring.partitions as usize {
            let mut next = BTreeMap::new();
            for (loads, moves) in &ways {
                for set in &sets {
                    let mut loads: Vec<u32> = loads.clone();
                    set.iter().for_each(|&at| loads[usize::from(at)] += 1);
                    let had =
                        |at: &&u16| ring.before.get(partition).is_none_or(|b| b.iter().take(ring.n).any(|o| o == *at));
                    let moves: usize = moves + set.len() - set.iter().filter(had).count();
                    let least = next.entry(loads).or_insert(usize::MAX);
                    *least = moves.min(*least);
                }
            }
            ways = next;
        }
        ways
    }

    #[derive(Clone, Debug)]
    struct Case {
        capacities: Vec<u32>,
        zone_of: Vec<u16>,
        zones: usize,
        partitions: u32,
        n: usize,
        before: Vec<Vec<u16>>,
    }

    impl Case {
        fn ring(&self) -> Ring<'_> {
            Ring {
                capacities: &self.capacities,
                zone_of: &self.zone_of,
                zones: self.zones,
                partitions: self.partitions,
                n: self.n,
                longest: self.capacities.len(),
                before: &self.before,
            }
        }
    }

    fn cases() -> impl Strategy<Value = Case> {
        let list = |nodes: usize| {
            let all = Just((0..nodes as u16).collect::<Vec<u16>>()).prop_shuffle();
            (all, 0..=nodes).prop_map(|(mut list, len)| {
                list.truncate(len);
                list
            })
        };
        (1..=5_usize, 0..=3_u32).prop_flat_map(move |(nodes, bits)| {
            let partitions = 1_usize << bits;
            let before = proptest::collection::vec(list(nodes), partitions);
            let zone_of = proptest::collection::vec(0..nodes as u16, nodes);
            let capacities = proptest::collection::vec(1..=5_u32, nodes);
            (capacities, zone_of, proptest::option::of(before), 1..=nodes.min(3), any::<bool>()).prop_map(
                move |(capacities, zone_of, before, n, waived)| {
                    let zones = zone_of.iter().collect::<BTreeSet<_>>().len();
                    let zones = if waived { 1 } else { zones };
                    let before = before.unwrap_or_default();
                    Case { capacities, zone_of, zones, partitions: partitions as u32, n, before }
                },
            )
        })
    }

    proptest! {
        #[test]
        fn small_rings_are_as_good_as_the_best_of_all(case in cases()) {
            let ring = case.ring();
            let lists = ring.lists();
            for list in &lists {
                prop_assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), ring.longest);
                for copies in 1..=ring.longest {
                    prop_assert!(zones(&ring, &list[..copies]) >= ring.spread(copies), "{:?}", list);
                }
            }
            let loads = ring.loads(&lists, ring.n);
            let ways = all_ways(&ring);
            let best = ways.keys().map(|loads| balance(&ring, loads)).min();
            prop_assert_eq!(Some(balance(&ring, &loads)), best);
            if !ring.before.is_empty() {
                prop_assert_eq!(Some(&moved(&ring, &lists)), ways.get(&loads), "moves with these shares");
            }
        }

        #[test]
        fn a_solved_ring_is_left_as_it_is(case in cases()) {
            let first = case.ring().lists();
            let again = Ring { before: &first, ..case.ring() }.lists();
            prop_assert_eq!(moved(&Ring { before: &first, ..case.ring() }, &again), 0);
        }
    }
}
