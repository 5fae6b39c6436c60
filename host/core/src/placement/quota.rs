//! How many copies each node gets: shares in proportion to capacities, as even as whole copies, zones and the number of
//! partitions allow.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};

/// The next copy of a node. The smallest is given first.
#[derive(PartialEq, Eq)]
struct Next {
    /// Its copies with this one.
    copies: u32,
    capacity: u32,
    /// Whether it had fewer before, so that this one would move.
    moves: bool,
    node: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        // Copies by capacity, compared as fractions without rounding.
        let fullness = |one: &Self, by: &Self| u64::from(one.copies) * u64::from(by.capacity);
        let fuller = fullness(self, other).cmp(&fullness(other, self));
        fuller.then(self.moves.cmp(&other.moves)).then(self.node.cmp(&other.node))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Copies for each node, `want` for each partition, at least those in `least`. The fullest node, by its capacity, is as
/// empty as possible, then the second fullest, and so on: each copy goes to the node that is emptiest with it, and zone
/// bounds are those of a matroid, for which that is the optimum. Of equals those are preferred that had more before.
///
/// A partition has its copies in `spread` different zones. So a zone has at most one copy of each partition if the
/// spread is `want`, and at least one if the spread is all zones.
pub(super) fn quotas(
    capacities: &[u32],
    zone_of: &[u16],
    (partitions, want, spread): (u32, usize, usize),
    before: &[u32],
    least: &[u32],
) -> Vec<u32> {
    let zones = zone_of.iter().max().map_or(0, |&zone| usize::from(zone) + 1);
    let mut copies = least.to_vec();
    let mut in_zone = alloc::vec![0_u64; zones];
    for (at, &count) in copies.iter().enumerate() {
        in_zone[usize::from(zone_of[at])] += u64::from(count);
    }
    let all = u64::from(partitions) * want as u64;
    let needs = u64::from(partitions) * spread as u64;
    let mut given: u64 = in_zone.iter().sum();
    let mut distinct: u64 = in_zone.iter().map(|&count| count.min(u64::from(partitions))).sum();
    let next = |node: usize, had: u32| {
        let moves = before.get(node).is_none_or(|&before| before <= had);
        Reverse(Next { copies: had + 1, capacity: capacities[node], moves, node })
    };
    let mut queue: BinaryHeap<Reverse<Next>> =
        (0..capacities.len()).filter(|&at| capacities[at] > 0).map(|at| next(at, copies[at])).collect();
    while given < all
        && let Some(Reverse(Next { node, .. })) = queue.pop()
    {
        let zone = &mut in_zone[usize::from(zone_of[node])];
        let new = u64::from(*zone < u64::from(partitions));
        // Once refused, a node is refused for good: neither bound ever loosens.
        if copies[node] >= partitions || given + 1 + needs.saturating_sub(distinct + new) > all {
            continue;
        }
        *zone += 1;
        copies[node] += 1;
        given += 1;
        distinct += new;
        queue.push(next(node, copies[node]));
    }
    copies
}
