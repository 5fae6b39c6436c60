//! Gives each partition its copies: a flow of least cost from partitions to nodes, under an upper bound of copies for
//! each node.
//!
//! A copy that the partition had before costs nothing and a new one costs one, so the cost is the number of copies that
//! move. Flow is added along cheapest paths: a partition takes a node, which gives up another partition, which takes
//! another node, and so on until a node has room. A flow that grows along cheapest paths has the least cost for its
//! size. Paths are found by correcting labels, since giving up a copy that was new costs minus one. A library with
//! explicit edges would hold one for each pair of partition and node (four million at 1 000 nodes); here they follow
//! from the sets.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The path that leads to a place: what was taken before, or nothing.
const NONE: u32 = u32::MAX;

/// Copies of all partitions under construction. Nodes and zones are indices.
#[derive(Debug)]
pub(super) struct Fill<'a> {
    /// The zone of each node.
    pub zone_of: &'a [u16],
    /// How many zones the copies of a partition are in.
    pub spread: usize,
    /// How many copies each partition gets.
    pub want: usize,
    /// The copies of each partition so far.
    pub sets: Vec<Vec<u16>>,
    /// The first copies of each set that are not given up.
    pub fixed: usize,
    /// The nodes that a partition may take, if not all.
    pub allowed: Option<&'a [Vec<u16>]>,
    /// The copies that each partition had before. Empty: there was nothing before, and no copy has a cost.
    pub before: &'a [Vec<u16>],
    /// How many copies each node may have.
    pub room: Vec<u32>,
    /// How many copies each node has.
    pub load: Vec<u32>,
}

/// What is known of a node or of a gap in a partition during one search.
#[derive(Clone, Copy)]
struct Label {
    cost: i32,
    /// The gap through which a node was reached, or the node that left a gap.
    from: u32,
}

const FAR: Label = Label { cost: i32::MAX, from: NONE };

/// A number that looks random for each pair of partition and node. (The finaliser of MurmurHash3.)
fn mix(partition: usize, node: usize) -> u64 {
    let mut word = (partition as u64) << 32 | node as u64;
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        word = (word ^ word >> 33).wrapping_mul(factor);
    }
    word ^ word >> 33
}

impl Fill<'_> {
    /// Adds as many copies as there is room for, at the least cost. Returns how many are still missing.
    pub(super) fn run(&mut self) -> usize {
        let mut known = 0;
        if !self.before.is_empty() {
            // A direct step costs one, so paths that cost nothing come first.
            while self.augment(0, true).is_some() {}
            known = 1;
        }
        self.direct();
        while let Some(cost) = self.augment(known, false) {
            known = cost;
        }
        self.sets.iter().map(|set| self.want - set.len()).sum()
    }

    /// Gives every node room for more copies, up to a bound for each.
    pub(super) fn widen(&mut self, by: u32, bound: impl Fn(usize) -> u32) {
        for (node, room) in self.room.iter_mut().enumerate() {
            *room = bound(node).min(*room + by).max(*room);
        }
    }

    /// Keeps the copies that partitions had before, as far as room and zones allow.
    pub(super) fn keep(&mut self) {
        for partition in 0..self.before.len() {
            for at in 0..self.before[partition].len() {
                let node = self.before[partition][at];
                let has_room = self.load[usize::from(node)] < self.room[usize::from(node)];
                let allowed = self.is_allowed(partition, usize::from(node));
                if self.sets[partition].len() < self.want && has_room && allowed && self.may_take(partition, NONE, node)
                {
                    self.sets[partition].push(node);
                    self.load[usize::from(node)] += 1;
                }
            }
        }
    }

    /// Lets partitions take the emptiest nodes with room, as long as that is possible without another step.
    fn direct(&mut self) {
        for partition in 0..self.sets.len() {
            while self.sets[partition].len() < self.want {
                let candidate =
                    |at: &usize| self.load[*at] < self.room[*at] && self.may_take(partition, NONE, *at as u16);
                // Ties are broken by a hash, so that each node has copies in common with all others.
                let rank = |at: &usize| (self.load[*at].abs_diff(self.room[*at]), mix(partition, *at));
                let Some(node) = self.candidates(partition).filter(candidate).max_by_key(rank) else { break };
                self.sets[partition].push(node as u16);
                self.load[node] += 1;
            }
        }
    }

    fn candidates(&self, partition: usize) -> impl Iterator<Item = usize> + '_ {
        let listed = self.allowed.map(|lists| lists[partition].as_slice());
        let all = if listed.is_some() { 0..0 } else { 0..self.zone_of.len() };
        listed.unwrap_or_default().iter().map(|&at| usize::from(at)).chain(all)
    }

    fn is_allowed(&self, partition: usize, node: usize) -> bool {
        self.allowed.is_none_or(|lists| lists[partition].iter().any(|&at| usize::from(at) == node))
    }

    fn cost(&self, partition: usize, node: u16) -> i32 {
        i32::from(self.before.get(partition).is_some_and(|before| !before.contains(&node)))
    }

    /// Whether a partition may take a node once it has given up a copy in the zone `left`.
    ///
    /// The copies and the zones that are still missing must fit the wanted number.
    fn may_take(&self, partition: usize, left: u32, node: u16) -> bool {
        let set = &self.sets[partition];
        if set.contains(&node) {
            return false;
        }
        let zone = self.zone_of[usize::from(node)];
        let (mut distinct, mut in_left, mut has_zone) = (0, 0, false);
        for (at, &other) in set.iter().enumerate() {
            let of = self.zone_of[usize::from(other)];
            distinct += usize::from(!set[..at].iter().any(|&earlier| self.zone_of[usize::from(earlier)] == of));
            in_left += usize::from(u32::from(of) == left);
            has_zone |= of == zone;
        }
        let mut len = set.len() + 1;
        if left != NONE {
            len -= 1;
            if in_left == 1 {
                distinct -= 1;
                has_zone &= u32::from(zone) != left;
            }
        }
        distinct += usize::from(!has_zone);
        len + self.spread.saturating_sub(distinct) <= self.want
    }

    /// Adds one copy along a cheapest path, and returns its cost. Paths that cost more than nothing are ignored if
    /// `free` is set. `least` is a lower bound of the cost: a path of that cost is taken at once.
    fn augment(&mut self, least: i32, free: bool) -> Option<i32> {
        let (nodes, zones) = (self.zone_of.len(), self.zone_of.iter().max().map_or(0, |&zone| usize::from(zone) + 1));
        // A gap is a partition, and the zone in which it has given up a copy; the last place is that of none.
        let width = zones + 1;
        let mut gaps = alloc::vec![FAR; self.sets.len() * width];
        let mut reached = alloc::vec![FAR; nodes];
        let mut queue = VecDeque::new();
        let mut queued = alloc::vec![false; gaps.len()];
        for partition in (0..self.sets.len()).filter(|&at| self.sets[at].len() < self.want) {
            let gap = partition * width + zones;
            gaps[gap].cost = 0;
            queued[gap] = true;
            queue.push_back(gap);
        }
        let held = self.held();
        let mut best: Option<(i32, usize)> = None;
        while let Some(gap) = queue.pop_front() {
            queued[gap] = false;
            let (partition, left) = (gap / width, gap % width);
            let left = if left == zones { NONE } else { left as u32 };
            // Only a copy that was there before costs nothing.
            let before = if free { self.before[partition].as_slice() } else { &[] };
            let all = (!free).then(|| self.candidates(partition)).into_iter().flatten();
            for node in before.iter().map(|&at| usize::from(at)).filter(|at| self.is_allowed(partition, *at)).chain(all)
            {
                let cost = gaps[gap].cost + self.cost(partition, node as u16);
                if cost >= reached[node].cost || (free && cost > 0) || !self.may_take(partition, left, node as u16) {
                    continue;
                }
                reached[node] = Label { cost, from: gap as u32 };
                if self.load[node] < self.room[node] {
                    if best.is_none_or(|(known, _)| cost < known) {
                        best = Some((cost, node));
                    }
                    continue;
                }
                for &other in &held[node] {
                    let back = cost - self.cost(other as usize, node as u16);
                    let next = other as usize * width + usize::from(self.zone_of[node]);
                    // A gap is never worth less than nothing while the flow is as cheap as it can be: it could take the
                    // place of the first gap of the path. So labels are bounded, and the search ends in any case.
                    if (0..gaps[next].cost).contains(&back) {
                        gaps[next] = Label { cost: back, from: node as u32 };
                        if !core::mem::replace(&mut queued[next], true) {
                            queue.push_back(next);
                        }
                    }
                }
            }
            if let Some((cost, node)) = best
                && cost <= least
                && self.apply(node, &gaps, &reached, width)
            {
                return Some(cost);
            }
        }
        // The cheapest path may be refused, and a dearer one not.
        let has_room = |at: &usize| reached[*at].cost < FAR.cost && self.load[*at] < self.room[*at];
        let mut ends: Vec<(i32, usize)> = (0..nodes).filter(has_room).map(|at| (reached[at].cost, at)).collect();
        ends.sort_unstable();
        ends.into_iter().find(|&(_, node)| self.apply(node, &gaps, &reached, width)).map(|(cost, _)| cost)
    }

    /// The partitions that each node holds and may give up.
    fn held(&self) -> Vec<Vec<u32>> {
        let mut held = alloc::vec![Vec::new(); self.zone_of.len()];
        for (partition, set) in self.sets.iter().enumerate() {
            set.iter().skip(self.fixed).for_each(|&node| held[usize::from(node)].push(partition as u32));
        }
        held
    }

    /// Walks a path back from its end and exchanges the copies on it. A path that meets a partition twice is checked
    /// once more: its steps were found one by one, and may not fit together.
    fn apply(&mut self, end: usize, gaps: &[Label], reached: &[Label], width: usize) -> bool {
        let (mut path, mut node) = (Vec::new(), end);
        loop {
            let gap = reached[node].from as usize;
            if path.len() > self.zone_of.len() {
                return false;
            }
            let by = gaps[gap].from;
            path.push((gap / width, by, node));
            if by == NONE {
                break;
            }
            node = by as usize;
        }
        let before: Vec<(usize, Vec<u16>)> = path.iter().map(|step| (step.0, self.sets[step.0].clone())).collect();
        // From its beginning, as it was found.
        for &(partition, by, node) in path.iter().rev() {
            let set = &mut self.sets[partition];
            match set.iter_mut().find(|other| u32::from(**other) == by) {
                Some(place) => *place = node as u16,
                None => set.push(node as u16),
            }
        }
        let repeats = |(at, step): (usize, &(usize, u32, usize))| path[..at].iter().any(|other| other.0 == step.0);
        let repeated = path.iter().enumerate().filter(|step| repeats(*step)).map(|(_, step)| step.0);
        if !repeated.clone().all(|partition| self.is_sound(partition)) {
            for (partition, set) in before {
                self.sets[partition] = set;
            }
            return false;
        }
        self.load[end] += 1;
        true
    }

    /// Whether the copies of a partition are on different nodes, no more than wanted, and leave room for the zones that
    /// are missing.
    fn is_sound(&self, partition: usize) -> bool {
        let set = &self.sets[partition];
        let is_new = |at: &usize| !set[..*at].contains(&set[*at]);
        let zone = |at: usize| self.zone_of[usize::from(set[at])];
        let opens_zone = |at: &usize| !(0..*at).any(|other| zone(other) == zone(*at));
        let distinct = (0..set.len()).filter(opens_zone).count();
        (0..set.len()).all(|at| is_new(&at)) && set.len() + self.spread.saturating_sub(distinct) <= self.want
    }
}
